"""The peak memory of a run, in bytes, estimated from its config without building the model.

Weights and the optimizer's averages are always in memory. The estimate adds what a batch holds at the worst of these
moments:

    loss          all activations, a group of logits and the output layer's gradient
    last block    the backward pass begins: all activations, and gradients inside the last block
    first block   the backward pass ends: one block's activations, and all gradients
    embeddings    all gradients, and the embedding's before it is added to the output layer's (if they are one matrix)
    update        all gradients, and the optimizer's working memory

With fsdp, there are three more:

    weights         the last block's weights arrive; the activations of the blocks before it are in memory
    last but one    the backward pass begins in that block, while the last block's gradients are being sent
    between blocks  the backward pass ends in that block: its own gradients are in memory too

Evaluation needs less than a batch. On a CPU this estimates the whole process, on a GPU the device's memory;
docs/performance.md says how exactly, and what is not counted.

With several ranks this estimates rank 0; no other rank holds more. With ddp, gradients are in buckets that are never freed.
With fsdp, a rank has its shard of weights, averages and gradients. A weight is sharded by rows: if it has fewer rows than
there are ranks, some ranks have none, and collectives pad it to one row per rank.

Shape letters: B sequences and N = B * T tokens in a micro-batch, C channels, L layers, V vocabulary rows; n ranks that share
one copy of the model.
"""

from __future__ import annotations

import math

from config import Config
from jojo.kernels.loss import CACHE_BYTES, GPU_GROUP_ROWS, GPU_ROWS, GROUP_ROWS, GROUP_WORDS
from jojo.networks import formulas
from jojo.networks.common import Shapes
from jojo.optim import OPTIMIZERS, AdamW

# On a CPU, fitted to real runs of many sizes (docs/performance.md, "Memory before a run", has the command):
PROGRAM_BYTES = 298_000_000  # Python, torch, oneDNN's kernels, tokenizer, plots: what runs of tiny models take
HEAP_SHARE = 0.28  # of a batch's tensors: gaps that the C library leaves between them, and oneDNN's own buffers
COMPILER_BYTES = 110_000_000  # PyTorch's compiler, which its activation checkpointing imports
RECOMPUTED_SHARE = 1.6  # of a block's activations: checkpointing computes them again, and they do not fit into gaps
CUDA_CONTEXT_BYTES = 500_000_000  # an assumption: CUDA itself, its kernels and cuBLAS's workspace

NOT_TENSORS = ("program", "gaps in the heap", "CUDA")

Parts = dict[str, int]  # name of a part -> bytes
Moments = dict[str, int]  # moment of a batch -> bytes of one part


def memory_bytes(config: Config, ranks: int = 1, tensors_only: bool = False) -> int:
    """The peak memory of training on each rank: of the whole process on a CPU, of the device on a GPU.

    The config must have its vocabulary size, device and dtype. `tensors_only` leaves out what the process or CUDA itself needs.
    """
    parts = peak_parts(config, ranks)[1]
    return sum(size for name, size in parts.items() if not (tensors_only and name in NOT_TENSORS))


def peak_parts(config: Config, ranks: int = 1) -> tuple[str, Parts]:
    """The moment of the peak, and what is in memory then; empty parts are left out."""
    moments = batch_bytes(config, ranks)
    moment = max(moments, key=lambda name: sum(moments[name].values()))
    parts = weights_bytes(config, ranks) | moments[moment]
    if config.system.device == "cpu":
        parts |= {"program": PROGRAM_BYTES, "gaps in the heap": gap_bytes(config, sum(moments[moment].values()), ranks)}
    elif config.system.device.startswith("cuda"):
        parts |= {"CUDA": CUDA_CONTEXT_BYTES}
    return moment, {name: size for name, size in parts.items() if size}


def weights_bytes(config: Config, ranks: int = 1) -> Parts:
    """What is in memory before the first batch: weights and averages in float32, and ddp's buckets."""
    model, L, n = formulas(config.model), config.model.n_layer, sharing_ranks(config, ranks)
    weights = elements(model.outside, n) + L * elements(model.block, n)
    blocks = L * elements(model.matrices, n)  # matrices: the configured optimizer's; AdamW updates the rest
    averages = OPTIMIZERS[config.optimizer.kind].n_averages() * blocks + AdamW.n_averages() * (weights - blocks)
    averages += weights * (config.training.ema > 0)
    buckets = ranks > 1 and config.system.parallel == "ddp"  # a copy of all gradients, for the all-reduce
    return {"weights": 4 * weights, "averages": 4 * averages, "buckets": 4 * model.n_parameters * buckets}


def batch_bytes(config: Config, ranks: int = 1) -> dict[str, Parts]:
    """What a batch adds, at each moment that can be its peak."""
    gradients = gradient_bytes(config, ranks)
    parts: dict[str, Moments] = {
        "casts of weights": cast_bytes(config, ranks),
        "gathered weights": gathered_bytes(config, ranks),
        "activations": activation_bytes(config),
        "gradients": gradients,
        "loss": {"loss": loss_bytes(config)},
        "update": {"update": update_bytes(config, ranks)},
    }
    return {moment: {name: of.get(moment, 0) for name, of in parts.items()} for moment in gradients}


def elements(weights: Shapes, ranks: int = 1) -> int:
    """The number of elements of these weights; with several ranks, of their largest shard."""
    return sum(-(-shape[0] // ranks) * math.prod(shape[1:]) for shape in weights.values())


def layer_bytes(config: Config) -> int:
    """Bytes that one block keeps of a micro-batch for its backward pass."""
    each = formulas(config.model).kept_bytes_per_token(config.system.dtype, config.system.device)
    return config.training.batch_size * config.model.block_size * each


def sharing_ranks(config: Config, ranks: int) -> int:
    """How many ranks share one copy of the model; 1 if each rank has a whole copy."""
    return (config.system.shard_ranks or ranks) if config.system.parallel == "fsdp" else 1


def gathers_low(config: Config) -> bool:
    """Whether fsdp gathers blocks in bfloat16, as placement.shard sets it up."""
    return config.system.dtype == "bfloat16" and config.system.device.startswith("cuda")


def cast_bytes(config: Config, ranks: int = 1) -> Moments:
    """Autocast's copies of the blocks' matrices; a third of them is freed before the first block's backward pass ends."""
    if config.system.dtype == "float32" or (ranks > 1 and config.system.parallel == "fsdp" and gathers_low(config)):
        return {}
    casts = 2 * config.model.n_layer * elements(formulas(config.model).matrices)
    early = ("weights", "loss", "last block", "last but one", "between blocks")
    return dict.fromkeys(early, casts) | dict.fromkeys(("first block", "embeddings"), casts * 2 // 3)


def activation_bytes(config: Config) -> Moments:
    """What the forward pass keeps, and what the backward pass adds inside a block."""
    model, N, layer = config.model, config.training.batch_size * config.model.block_size, layer_bytes(config)
    stream = 4 * N * model.n_embd  # the residual stream, float32 (B, T, C)
    # What each block saves in the forward pass, and what is computed again in a block's backward pass:
    saved, recomputed = (stream, layer) if config.training.activation_checkpointing else (layer, 0)
    kept = model.n_layer * saved + stream + (stream if model.dropout else 0)  # blocks, last output, embeddings' mask
    gradient = N * formulas(model).gradient_bytes_per_token(config.system.dtype, config.system.device)
    return {
        "weights": kept - layer + recomputed,
        "loss": kept,
        "last block": kept + recomputed + gradient,
        "last but one": kept - saved + recomputed + gradient,
        "between blocks": kept - 2 * (layer - recomputed) + stream,
        "first block": layer + 2 * stream,
        "embeddings": 2 * stream,
    }


def gradient_bytes(config: Config, ranks: int = 1) -> Moments:
    """Gradients, except those in ddp's buckets. The keys are all moments that can be the peak of this run."""
    if ranks > 1:
        return ranks_gradient_bytes(config, ranks)
    model = formulas(config.model)
    every, output = 4 * model.n_parameters, 4 * math.prod(model.output)
    held = every if config.training.gradient_accumulation_steps > 1 else 0  # earlier micro-batches' gradients
    last = held + output
    most = max(every, last)
    embedding = output if model.tied else 0  # its gradient, before it is added to the output layer's
    return {"loss": held, "last block": last, "first block": most, "embeddings": most + embedding, "update": every}


def ranks_gradient_bytes(config: Config, ranks: int) -> Moments:
    """Gradients on one of several ranks, as in `gradient_bytes`."""
    model, L, n = formulas(config.model), config.model.n_layer, sharing_ranks(config, ranks)
    several, low = config.training.gradient_accumulation_steps > ranks, gathers_low(config)
    output = 4 * math.prod(model.output)
    held = 4 * model.n_parameters if several else 0  # earlier micro-batches' gradients
    held_outside = 4 * elements(model.outside) if several else 0  # what is left of them once the blocks' were sent
    matrix = (2 if low else 4) * max(map(math.prod, model.block.values()))  # the largest new gradient in a block
    moments = {"loss": held, "last block": held + output + matrix}
    if config.system.parallel == "ddp":
        sent = 0 if model.tied else output  # an output layer of its own is in its bucket before the last block begins
        outside = held_outside + output - sent - several * sent
        moments |= {"last block": moments["last block"] - sent - several * sent, "first block": outside + matrix}
        return moments | {"embeddings": outside + output, "update": 0}
    block, shard = 4 * elements(model.block), 4 * elements(model.block, n)
    sending = n * shard if L > 1 else 0  # a block's gradients in the reduce-scatter, padded
    new = block // 2 if low else matrix if several else block  # the block's new gradients when its backward pass ends
    moments |= {
        "weights": held,
        "first block": held_outside + several * block + output + new + sending + L * shard,
        "embeddings": held_outside + 2 * output + sending + L * shard,
        "update": L * shard + 4 * elements(model.outside, n),
    }
    if L > 2:
        after_last = held - several * block + output + sending + shard
        moments |= {"last but one": after_last + matrix, "between blocks": after_last + new}
    return moments


def gathered_bytes(config: Config, ranks: int = 1) -> Moments:
    """Whole weights that fsdp gathers: those outside the blocks, the current block's, and the next block's.

    A block arrives in one buffer and is copied into its weights. In the forward pass, a buffer stays until the next arrives.
    """
    if ranks == 1 or config.system.parallel == "ddp":
        return {}
    model, n = formulas(config.model), sharing_ranks(config, ranks)
    outside = 4 * n * elements(model.outside, n)
    block = (2 if gathers_low(config) else 4) * n * elements(model.block, n)
    next_block = block if config.model.n_layer > 1 else 0
    return {
        "weights": outside + 2 * block + next_block,
        "loss": outside + block,
        "last block": outside + block + next_block,
        "last but one": outside + 2 * block,
        "between blocks": outside + 2 * block,
        "first block": outside + block,
        "embeddings": outside,
    }


def loss_bytes(config: Config) -> int:
    """The working memory of jojo/kernels/loss.py, for the output layer and its cross-entropy."""
    size, on_cpu = 4 if config.system.dtype == "float32" else 2, config.system.device == "cpu"
    V, C = formulas(config.model).output
    N = config.training.batch_size * config.model.block_size
    rows = min(N, GROUP_ROWS if on_cpu or config.system.dtype == "float16" else GPU_GROUP_ROWS)
    logits = rows * (V + C) * size  # (rows, V), and their gradient towards the hidden states (rows, C)
    softmax = min(max(8 * 4 * V, CACHE_BYTES), rows * 4 * V) if on_cpu else 2 * min(GPU_ROWS, rows) * 4 * V
    product = (min(V, GROUP_WORDS) if on_cpu else V) * C * (4 + size)  # before it is added to the weight's gradient
    cast = size if size == 2 else 0
    weight = (4 + cast) * V * C  # its gradient in float32, and its cast
    hidden = N * C * (4 + 4 + cast)  # the hidden states, their gradient, and their cast
    return logits + softmax + product + weight + hidden


def update_bytes(config: Config, ranks: int = 1) -> int:
    """The working memory of the optimizer that updates the blocks' matrices."""
    kind, n = OPTIMIZERS[config.optimizer.kind], sharing_ranks(config, ranks)
    return kind.update_bytes(formulas(config.model), config.system.dtype, n)


def gap_bytes(config: Config, batch: int, ranks: int = 1) -> int:
    """What the heap of a process on a CPU takes beyond a batch's tensors, which are `batch` bytes at the peak."""
    gaps = int(HEAP_SHARE * batch) + update_bytes(config, ranks)  # an update's large tensors do not fit into gaps
    if config.training.activation_checkpointing:
        gaps += COMPILER_BYTES + int(RECOMPUTED_SHARE * layer_bytes(config))
    return gaps
