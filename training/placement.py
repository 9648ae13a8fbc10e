"""A model on its device, or on those of all ranks: built, compiled, copied to every rank or shared out among them.

    ddp     every rank has the whole model and the optimizer's averages; DistributedDataParallel adds up gradients
    fsdp    every rank has a part of each weight, of its gradient and averages; fully_shard brings a block's weights
            together when it is its turn (Rajbhandari et al. 2020, "ZeRO"; PyTorch's FSDP2)

A weight that is shared out is a DTensor: it looks like the whole one (distributed.py has the ways between the two).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from jojo.checkpoints.checkpoint import load_weights
from jojo.checkpoints.shards import flat_tensors
from jojo.machine import device as devices
from jojo.machine import estimate
from jojo.machine.memory import gathers_low
from jojo.machine.ranks import copy_into
from model import GPT, Block
from training.run import Run
from utils import UserError, byte_count, is_out_of_memory, log

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule


def build_model(run: Run) -> GPT:
    """The model with its first weights: the checkpoint's, or drawn from the seed.

    Where it is to be shared out, its shape only, on the device "meta": no rank has memory for all of it.
    """
    needed, there = 4 * estimate.n_parameters(run.config.model), devices.total_memory_bytes("cpu")
    if there and needed > there:
        raise UserError(
            f"The model's weights alone take {byte_count(needed)}, and this machine has {byte_count(there)} of memory; "
            "choose a smaller model."
        )
    if run.sharded:
        with torch.device("meta"):
            model = GPT(run.config.model, run.data.tokenizer.n_vocab)
    else:
        model = new_model(run)
        if run.start.checkpoint:
            run.start.checkpoint.complete()  # of parts, what is still to be read
    if run.start.checkpoint:
        load_weights(model, run.start.checkpoint)
    return model


def new_model(run: Run) -> GPT:
    """A model with weights drawn from the seed, on the CPU: the same for any device and number of ranks."""
    torch.manual_seed(run.config.system.seed)
    return GPT(run.config.model, run.data.tokenizer.n_vocab)


def compile_blocks(model: GPT, batch_size: int, device: str, dtype: str) -> bool:
    """Compile every transformer block (they share one compilation) and try it out.

    Returns:
        False, after one warning, where compiling fails here; the model then runs as it is.
    """
    config = model.config
    example = torch.zeros(batch_size, config.block_size, config.n_embd, device=device, requires_grad=True)  # (B, T, C)
    for block in model.transformer.h:
        block.compile()
    first = model.transformer.h[0]
    if model.device.type == "meta":  # another one of its kind
        first = Block(config, 0)
        first.compile()
    first.to(device)  # the others follow when the model is placed
    try:
        with devices.autocast(device, dtype):
            first(example).sum().backward()
        return True
    except Exception as error:  # whatever the compiler or its tool chain raises
        if is_out_of_memory(error):
            raise
        log.warning("torch.compile does not work here (%s); going on without it.", type(error).__name__)
        log.debug("%s", error)
        for block in model.transformer.h:
            block._compiled_call_impl = None
        return False
    finally:
        model.zero_grad(set_to_none=True)


def is_compiled(model: GPT) -> bool:
    """Whether the model's blocks are compiled."""
    return model.transformer.h[0]._compiled_call_impl is not None


def place(model: GPT, run: Run) -> nn.Module:
    """The model as it is called in training, on this rank's device; its backward pass makes the ranks' mean gradient.

    The parameters of `model` are those that are trained: with fsdp, its parts take their place.
    """
    if run.sharded:
        return shard(model, run)
    model.to(run.device)
    if run.ranks.is_single:
        return model
    device = torch.device(run.device)
    return DistributedDataParallel(
        model, device_ids=[device.index] if device.type == "cuda" else None, gradient_as_bucket_view=True
    )


def shard(model: GPT, run: Run) -> nn.Module:
    """Share out the model's weights, block by block: no device ever holds all of them.

    With `system.shard_ranks` so many ranks share one copy, and there are several copies.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.distributed_c10d import _set_pg_timeout
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    kind, n, together = run.device.partition(":")[0], run.ranks.world_size, run.config.system.shard_ranks
    if together is None or together == n:
        mesh = init_device_mesh(kind, (n,), mesh_dim_names=("shard",))
    else:
        mesh = init_device_mesh(kind, (n // together, together), mesh_dim_names=("replicate", "shard"))
        for group in mesh.get_all_groups():  # they do not take over how long the ranks wait for one another
            _set_pg_timeout(timedelta(seconds=run.ranks.timeout_s), group)
    # Blocks compute in `dtype`; the embeddings stay in float32, and with them the residual stream, as under autocast.
    low = gathers_low(run.config)
    policy = MixedPrecisionPolicy(
        torch.bfloat16 if low else None, torch.float32 if low else None, cast_forward_inputs=False
    )
    for block in model.transformer.h:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh)
    for method in ("losses", "next_logits"):
        register_fsdp_forward_method(model, method)
    model.to_empty(device=run.device)
    fill(model, run)
    return model


@torch.no_grad()
def fill(model: GPT, run: Run) -> None:
    """Give every rank its parts of the first weights: one weight after another is whole somewhere, never all of them.

    But for new ones: rank 0 draws them in its main memory, as a run on one device does, and sends the others their parts.
    """
    weights, checkpoint = dict(model.named_parameters()), run.start.checkpoint
    if checkpoint and checkpoint.shards:
        checkpoint.shards.read_into(flat_tensors({"model": weights, "optimizer": {}}))
        return
    source = None if checkpoint else 0
    values = checkpoint.model if checkpoint else new_model(run).state_dict() if run.ranks.is_main else {}
    for name, weight in weights.items():
        copy_into(weight, values[name] if name in values else torch.empty(weight.shape), source)


def synchronized(replica: nn.Module, last: bool) -> AbstractContextManager[object]:
    """Around a micro-batch: only the last one of a batch sends its gradients, with those of the others in them."""
    if isinstance(replica, DistributedDataParallel):
        return nullcontext() if last else replica.no_sync()
    if is_sharded(replica):
        replica.set_requires_gradient_sync(last)
    return nullcontext()


def is_sharded(model: nn.Module) -> TypeGuard[FSDPModule]:
    """Whether fully_shard made it. It is not asked for by its class: that would import it for every run."""
    return hasattr(model, "set_requires_gradient_sync")
