"""Builds the model, compiles it, and puts it on its device; several ranks replicate it (ddp) or shard it (fsdp).

    ddp     every rank has the whole model and the optimizer's averages; DistributedDataParallel averages gradients
    fsdp    every rank has a shard of each weight, of its gradient and averages; fully_shard gathers a block's weights
            when the block runs (Rajbhandari et al. 2020, "ZeRO"; PyTorch's FSDP2)

A sharded weight is a DTensor, with the shape of the whole weight (jojo/machine/ranks.py converts between the two).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from jojo.checkpoints.checkpoint import load_weights
from jojo.checkpoints.shards import flat_tensors
from jojo.machine import device as devices
from jojo.machine.ranks import copy_into
from jojo.networks import formulas
from model import GPT, Block
from training.memory import gathers_low
from training.run import Run
from utils import UserError, byte_count, is_out_of_memory, log


def build_model(run: Run) -> GPT:
    """The model with its initial weights: the checkpoint's, or drawn from the seed.

    A model that will be sharded has no values yet (device "meta"): it may not fit in the memory of one rank.
    """
    needed, total = 4 * formulas(run.config.model).n_parameters, devices.total_memory_bytes("cpu")
    if total and needed > total:
        sizes = f"The weights take {byte_count(needed)}, and this machine has {byte_count(total)} of memory"
        raise UserError(f"{sizes}; choose a smaller model.")
    if run.sharded:
        with torch.device("meta"):
            model = GPT(run.config.model, run.data.tokenizer.n_vocab)
    else:
        model = new_model(run)
        if run.start.checkpoint:
            run.start.checkpoint.complete()  # reads the shards, if it has any
    if run.start.checkpoint:
        load_weights(model, run.start.checkpoint)  # on "meta", this only compares names and shapes; fill() copies
    return model


def new_model(run: Run) -> GPT:
    """A model with weights drawn from the seed, on the CPU: the same for any device and number of ranks."""
    torch.manual_seed(run.config.system.seed)
    return GPT(run.config.model, run.data.tokenizer.n_vocab)


def compile_blocks(model: GPT, batch_size: int, device: str, dtype: str) -> bool:
    """Compile every transformer block (they share one compilation) and try one. False, with a warning, if that fails."""
    config = model.config
    example = torch.zeros(batch_size, config.block_size, config.n_embd, device=device, requires_grad=True)  # (B, T, C)
    rotation = model.transformer.rotation(torch.arange(config.block_size, device=device))
    first = model.transformer.h[0]
    if model.device.type == "meta":  # try another block of the same shape
        first = Block(config, 0)
    first.to(device)  # place() moves the others
    try:
        for block in {*model.transformer.h, first}:
            block.compile()
        with devices.autocast(device, dtype):
            first(example, rotation).sum().backward()
        return True
    except Exception as error:  # the compiler and its tool chain can raise any error
        if is_out_of_memory(error):
            raise
        log.warning("torch.compile does not work here (%s); training runs without it.", type(error).__name__)
        log.debug("%s", error)
        for block in model.transformer.h:
            block._compiled_call_impl = None  # undoes block.compile()
        return False
    finally:
        model.zero_grad(set_to_none=True)


def is_compiled(model: GPT) -> bool:
    """Whether the model's blocks are compiled."""
    return model.transformer.h[0]._compiled_call_impl is not None


def place(model: GPT, run: Run) -> nn.Module:
    """Put the model on this rank's device. Returns the module to call; its backward pass averages all ranks' gradients."""
    if run.sharded:
        return shard(model, run)
    model.to(run.device)
    return model if run.ranks.is_single else DistributedDataParallel(model, gradient_as_bucket_view=True)


def shard(model: GPT, run: Run) -> nn.Module:
    """Shard the model's weights, block by block: no device ever holds all of them."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.distributed_c10d import _set_pg_timeout
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    kind, n = run.device.partition(":")[0], run.ranks.world_size
    shard_ranks = run.config.system.shard_ranks or n
    if shard_ranks == n:
        mesh = init_device_mesh(kind, (n,), mesh_dim_names=("shard",))
    else:
        mesh = init_device_mesh(kind, (n // shard_ranks, shard_ranks), mesh_dim_names=("replicate", "shard"))
        for group in mesh.get_all_groups():  # new groups do not inherit the timeout
            _set_pg_timeout(timedelta(seconds=run.ranks.timeout_s), group)
    # As under autocast, blocks compute in `dtype`, and embeddings and the residual stream stay in float32.
    weights, gradients = (torch.bfloat16, torch.float32) if gathers_low(run.config) else (None, None)
    policy = MixedPrecisionPolicy(weights, gradients, cast_forward_inputs=False)
    for block in model.transformer.h:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh)
    for method in ("losses", "next_logits"):  # they are called instead of forward, and need gathered weights too
        register_fsdp_forward_method(model, method)
    model.to_empty(device=run.device)
    fill(model, run)
    return model


@torch.no_grad()
def fill(model: GPT, run: Run) -> None:
    """Give every rank its shards of the initial weights, one weight at a time."""
    weights, checkpoint = dict(model.named_parameters()), run.start.checkpoint
    if checkpoint and checkpoint.shards:
        checkpoint.shards.read_into(flat_tensors({"model": weights, "optimizer": {}, "config": run.config.to_dict()}))
        return
    source = None if checkpoint else 0  # rank 0 draws and sends new weights; every rank has read a checkpoint's
    values = checkpoint.model if checkpoint else new_model(run).state_dict() if run.ranks.is_main else {}
    for name, weight in weights.items():
        copy_into(weight, values[name] if name in values else torch.empty(weight.shape), source)


def synchronized(replica: nn.Module, last: bool) -> AbstractContextManager[object]:
    """A context for one micro-batch. Ranks reduce gradients only in the last one, summed over all micro-batches."""
    if isinstance(replica, DistributedDataParallel) and not last:
        return replica.no_sync()
    if hasattr(replica, "set_requires_gradient_sync"):  # fsdp; isinstance() would import it in every run
        replica.set_requires_gradient_sync(last)  # type: ignore[operator]
    return nullcontext()
