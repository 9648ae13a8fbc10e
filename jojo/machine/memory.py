"""What a run holds in memory at its peak, told from its config alone: nothing is allocated, torch is not imported.

The weights and the optimizer's averages are there from the beginning. What a batch adds is at its highest in one of a few
moments; the peak is that of the highest (all sizes in bytes):

    loss          one group of logits and the output layer's gradient, on top of all activations
    last block    where the backward pass begins: the gradients inside of the block, on top of all activations
    first block   where it ends: all gradients, on top of the block's activations
    embeddings    all gradients, and the embeddings' before it is added to the output layer's (they are one matrix)
    update        all gradients, and what Muon works with

Evaluation keeps no activations and needs less than the loss of a batch. A save on a CPU reads training's own tensors. Only
where the disk is slower than a batch are weights and averages copied once more; that is not counted here, nor are
torch.compile and the tokenizing of new data. From a GPU a save copies to the host's memory.

On a CPU the estimate is of the whole process, within 10 % of what the system measured (docs/performance.md). On a GPU
it is of the device's memory and was never measured as a whole: its parts are those of the CPU where the kernels keep
the same, and what is known of CUDA's kernels elsewhere.

Of several ranks it is what rank 0 holds, and no other more. With ddp gradients go into buckets that are always there. With
fsdp a rank has its part of weights, averages and gradients, and beside it what PyTorch brings together for a while: the
embeddings through forward and backward pass, a block and the one that comes next, a block's gradients before they are
shared out. There are three more moments:

    weights         where the last block's arrive, on top of the activations before it
    last but one    where the backward pass begins in that block, and the gradients of the last one are on their way
    between blocks  where it ends there: that block's own gradients beside them

A weight is cut by rows. Where there are more ranks than rows, some have nothing, and what is sent is filled up to a row for
each rank. tests/test_plan_scaling.py compares with real batches of one among 64 ranks: within 4 %.

Letters: N tokens of a micro-batch, B sequences, T tokens, C channels, H heads, L layers, V rows of the vocabulary.
"""

from __future__ import annotations

from dataclasses import replace

from config import Config, ModelConfig
from jojo.machine.estimate import n_parameters

# loss.py's and optim.py's constants of these names, which are not imported: torch would be (a test compares them).
GROUP_ROWS = 512
GROUP_WORDS = 4096
CACHE_BYTES = 4 << 20
GPU_GROUP_ROWS = 2048
GPU_ROWS = 512
MUON_ELEMENTS = 1 << 24

# On a CPU, fitted to real runs of many shapes ("Memory before a run" in docs/performance.md has the command):
PROGRAM_BYTES = 298_000_000  # Python, torch, oneDNN's kernels, tokenizer, plots: what runs of tiny models take
HEAP_SHARE = 0.28  # of a batch's tensors: room that the C library keeps between them, and oneDNN's own work
COMPILER_BYTES = 110_000_000  # PyTorch's, which its activation checkpointing imports
RECOMPUTED_SHARE = 1.6  # of a block's activations: computed again, they fit in no gap
CUDA_CONTEXT_BYTES = 500_000_000  # an assumption: CUDA's own, its kernels and the workspace of cuBLAS

NO_TENSORS = ("program", "gaps in the heap", "CUDA")

Parts = dict[str, int]  # bytes by what they are
Shapes = list[tuple[int, int]]  # of parameters: rows, and elements of a row


def activation_bytes(
    model: ModelConfig, batch_size: int, dtype: str, device: str = "cpu", *, checkpointing: bool = False
) -> int:
    """What the blocks keep of a micro-batch's forward pass for its backward pass, without weights and their casts.

    Args:
        model: the shape.
        batch_size: sequences of a micro-batch.
        dtype: of the matrix products.
        device: its kernels decide what attention keeps.
        checkpointing: a block keeps its input only; one block at a time, everything is computed again.
    """
    tokens, L = batch_size * model.block_size, model.n_layer
    layer = tokens * layer_bytes_per_token(model, dtype, device)
    return L * block_input_bytes(model, batch_size) + layer if checkpointing else L * layer


def block_input_bytes(model: ModelConfig, batch_size: int) -> int:
    """A micro-batch's residual stream, float32 (B, T, C)."""
    return 4 * batch_size * model.block_size * model.n_embd


def layer_bytes_per_token(model: ModelConfig, dtype: str, device: str = "cpu") -> int:
    """What one block keeps of a token."""
    C, H, T, size = model.n_embd, model.n_head, model.block_size, 4 if dtype == "float32" else 2
    residuals = 2 * 4 * C + 16  # what the two LayerNorms read, in float32, and their means and deviations
    norms = 2 * size * C  # what they write, as c_attn and c_fc read it
    mlp = 4 * size * C  # before GELU
    if device != "cpu":  # one kernel reads q, k and v where c_attn wrote them; y, and the logarithm of its sums
        attention, masks = 4 * size * C + 4 * H, 2 * C  # a byte for each channel after attention and MLP
    elif model.dropout:  # scaled by itself: q, k, v in float32, y, and three times all scores
        attention, masks = (3 * 4 + size) * C + 3 * 4 * H * T, 2 * size * C
    elif dtype == "float32":  # q, k and v where c_attn wrote them; y, and the logarithm of its sums
        attention, masks = 4 * size * C + 4 * H, 0
    else:  # BlockedAttention: q, k, v and y by heads, and y again by tokens
        attention, masks = 5 * size * C, 0
    return residuals + norms + mlp + attention + (masks if model.dropout else 0)


def group_shapes(model: ModelConfig) -> tuple[Shapes, Shapes]:
    """The parameters that fsdp sends together: those outside of the blocks, and those of one block."""
    assert model.vocab_size is not None
    C, norm = model.n_embd, [(model.n_embd, 1)] * (2 if model.bias else 1)
    matrices = [(3 * C, C), (C, C), (4 * C, C), (C, 4 * C)]
    biases = [(rows, 1) for rows, _ in matrices] if model.bias else []
    return [(model.vocab_size, C), (model.block_size, C), *norm], [*matrices, *biases, *norm, *norm]


def elements(shapes: Shapes, parts: int = 1) -> int:
    """Parameters of a group; in the largest of so many parts of it."""
    return sum(-(-rows // parts) * row for rows, row in shapes)


def sharing_ranks(config: Config, ranks: int) -> int:
    """How many of the ranks share one copy of the model; 1: each has all of it."""
    return (config.system.shard_ranks or ranks) if config.system.parallel == "fsdp" else 1


def gathers_low(config: Config) -> bool:
    """Whether fsdp brings blocks together in bfloat16, as placement.shard tells it."""
    return config.system.dtype == "bfloat16" and config.system.device.startswith("cuda")


def weights_bytes(config: Config, ranks: int = 1) -> Parts:
    """What is there before the first batch: weights in float32, two averages of each for AdamW, one for Muon; buckets."""
    model, shared_by = config.model, sharing_ranks(config, ranks)
    outside, block = (elements(shapes, shared_by) for shapes in group_shapes(model))
    weights = outside + model.n_layer * block
    hidden = 12 * model.n_layer * model.n_embd**2 if config.optimizer.kind == "muon" else 0
    parts = {"weights": 4 * weights, "averages": 8 * weights - 4 * hidden}
    return parts | ({"buckets": bucket_bytes(config, ranks)} if ranks > 1 and config.system.parallel == "ddp" else {})


def batch_bytes(config: Config, ranks: int = 1) -> dict[str, Parts]:
    """What a batch adds in each of the moments in which it may be at its highest."""
    model, training, device = config.model, config.training, config.system.device
    checkpointing = training.activation_checkpointing
    C, tokens = model.n_embd, training.batch_size * model.block_size
    size = 4 if config.system.dtype == "float32" else 2
    stream = block_input_bytes(model, training.batch_size)
    layer = tokens * layer_bytes_per_token(model, config.system.dtype, device)
    kept = activation_bytes(model, training.batch_size, config.system.dtype, device, checkpointing=checkpointing)
    kept += stream + (stream if model.dropout else 0)  # the last block's output, and the mask of the embeddings
    low = ranks > 1 and config.system.parallel == "fsdp" and gathers_low(config)
    # Of the blocks' matrices: autocast keeps two thirds.
    casts = 2 * 12 * model.n_layer * C**2 if size == 2 and not low else 0
    # The gradient inside of the MLP; or that of the scores, when what the MLP kept is freed.
    scores = 4 * tokens * model.n_head * model.block_size if model.dropout and device == "cpu" else 0
    backward = max(4 * size * C * tokens, scores - 4 * size * C * tokens)
    activations = {
        "weights": kept - layer, "loss": kept - layer if checkpointing else kept, "last block": kept + backward,
        "last but one": kept - (stream if checkpointing else layer) + backward,
        "between blocks": kept - (1 if checkpointing else 2) * layer + stream,
        "first block": layer + 2 * stream, "embeddings": 2 * stream, "update": 0,
    }  # fmt: skip
    left = {"first block": casts * 2 // 3, "embeddings": casts * 2 // 3, "update": 0}
    gradients, gathered = gradient_bytes(config, ranks), gathered_bytes(config, ranks)
    moments = {
        moment: {
            "casts of weights": left.get(moment, casts), "gathered weights": gathered.get(moment, 0),
            "activations": activations[moment], "gradients": gradients[moment],
        }
        for moment in gradients
    }  # fmt: skip
    moments["loss"]["loss"], moments["update"]["update"] = loss_bytes(config), muon_bytes(config)
    return moments


def gradient_bytes(config: Config, ranks: int = 1) -> dict[str, int]:
    """Gradients in each of those moments; with ddp, without its buckets."""
    model, several = config.model, config.training.gradient_accumulation_steps > ranks
    outside, block = group_shapes(model)
    L, every, output = model.n_layer, 4 * n_parameters(model), 4 * elements(outside[:1])  # output: of the output layer
    held = every if several else 0  # of the micro-batches before
    if ranks == 1:
        most = max(every, held + output)
        return {
            "loss": held,
            "last block": held + output,
            "first block": most,
            "embeddings": most + output,
            "update": every,
        }
    low, rest = gathers_low(config), 4 * elements(outside) if several else 0  # rest: held, where blocks' have left
    matrix = (2 if low else 4) * elements(block[2:3])  # a new gradient, the largest of a block's
    begin = {"loss": held, "last block": held + output + matrix}
    if config.system.parallel == "ddp":
        return begin | {"first block": rest + output + matrix, "embeddings": rest + 2 * output, "update": 0}
    n = sharing_ranks(config, ranks)
    whole, part = 4 * elements(block), 4 * elements(block, n)
    leaving = n * part if L > 1 else 0  # a block's, for reduce-scatter
    own = whole // 2 if low else matrix if several else whole  # made by a block
    sent = held - several * whole + output + leaving + part  # when the last block is done
    end = {
        "weights": held, "first block": rest + several * whole + output + own + leaving + L * part,
        "embeddings": rest + 2 * output + leaving + L * part, "update": L * part + 4 * elements(outside, n),
    }  # fmt: skip
    return begin | end | ({"last but one": sent + matrix, "between blocks": sent + own} if L > 2 else {})


def gathered_bytes(config: Config, ranks: int = 1) -> dict[str, int]:
    """With fsdp, whole weights in each of those moments: what is outside of blocks, a block and the one that comes next.

    A block arrives in one piece, of which its weights are copies; in the forward pass the piece stays until the next came.
    """
    if ranks == 1 or config.system.parallel == "ddp":
        return {}
    n, (outside, block) = sharing_ranks(config, ranks), group_shapes(config.model)
    root, one = 4 * n * elements(outside, n), (2 if gathers_low(config) else 4) * n * elements(block, n)
    next_one = one if config.model.n_layer > 1 else 0
    return {
        "weights": root + 2 * one + next_one, "loss": root + one, "last block": root + one + next_one,
        "last but one": root + 2 * one, "between blocks": root + 2 * one, "first block": root + one, "embeddings": root,
    }  # fmt: skip


def loss_bytes(config: Config) -> int:
    """What the output layer and its loss work with (loss.py)."""
    model, size = config.model, 4 if config.system.dtype == "float32" else 2
    assert model.vocab_size is not None
    C, V, tokens = model.n_embd, model.vocab_size, config.training.batch_size * model.block_size
    on_cpu, rows = config.system.device == "cpu", GROUP_ROWS
    if not on_cpu and config.system.dtype != "float16":
        rows = GPU_GROUP_ROWS
    rows = min(tokens, rows)
    softmax = min(max(8 * 4 * V, CACHE_BYTES), rows * 4 * V) if on_cpu else 2 * min(GPU_ROWS, rows) * 4 * V
    product = (min(V, GROUP_WORDS) if on_cpu else V) * C * (4 + size)  # added to the matrix's gradient
    matrix = (4 + (size if size == 2 else 0)) * V * C  # its gradient in float32, and a cast of it
    hidden = tokens * C * (4 + 4 + (size if size == 2 else 0))  # the same of the hidden states, and these
    return rows * (V + C) * size + softmax + product + matrix + hidden


def muon_bytes(config: Config) -> int:
    """What Muon's update holds at once: five times the matrices that it works on together (c_attn's are the most)."""
    model, size = config.model, 2 if config.system.dtype == "bfloat16" else 4
    one = 3 * model.n_embd**2
    return 5 * size * min(model.n_layer * one, max(one, MUON_ELEMENTS)) if config.optimizer.kind == "muon" else 0


def gap_bytes(config: Config, batch: int) -> int:
    """What the heap of a CPU takes more than the `batch` bytes of tensors that are in it at the peak.

    Muon's large pieces fit in no gap.
    """
    gaps = int(HEAP_SHARE * batch) + muon_bytes(config)
    if config.training.activation_checkpointing:
        layer = activation_bytes(replace(config.model, n_layer=1), config.training.batch_size, config.system.dtype)
        gaps += COMPILER_BYTES + int(RECOMPUTED_SHARE * layer)
    return gaps


def bucket_bytes(config: Config, ranks: int) -> int:
    """What each of several ranks (ddp) takes more than one alone: gradients on their way to the others."""
    return 4 * n_parameters(config.model) if ranks > 1 else 0


def peak_parts(config: Config, ranks: int = 1) -> tuple[str, Parts]:
    """The moment of a run's peak, and what is in memory then; parts that are empty are left out."""
    moments = batch_bytes(config, ranks)
    moment = max(moments, key=lambda name: sum(moments[name].values()))
    parts = weights_bytes(config, ranks) | moments[moment]
    if config.system.device == "cpu":
        parts |= {"program": PROGRAM_BYTES, "gaps in the heap": gap_bytes(config, sum(moments[moment].values()))}
    elif config.system.device.startswith("cuda"):
        parts |= {"CUDA": CUDA_CONTEXT_BYTES}
    return moment, {name: size for name, size in parts.items() if size}


def memory_bytes(config: Config, ranks: int = 1, tensors_only: bool = False) -> int:
    """What training holds in memory at its peak, on each rank: on a CPU the whole process, on a GPU on the device.

    Args:
        config: with its vocabulary, device and dtype decided.
        ranks: that train together, as config.system.parallel says.
        tensors_only: without what the process or CUDA takes for itself.
    """
    rest = NO_TENSORS if tensors_only else ()
    return sum(size for name, size in peak_parts(config, ranks)[1].items() if name not in rest)
