"""The memory estimate: its parts are what torch allocates and keeps, and its sum grows with every size."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile

from config import Config, ModelConfig
from jojo.averaging import WeightAverage
from jojo.machine import device as devices
from jojo.networks import formulas
from jojo.optim import make_optimizers
from model import GPT
from training import memory
from training.memory import batch_bytes, memory_bytes, peak_parts, weights_bytes


def make_config(**changes: Any) -> Config:
    """A small run on a CPU in bfloat16, with the given options changed (`n_layer` for model.n_layer)."""
    values = {
        "n_layer": 2, "n_head": 4, "n_embd": 64, "block_size": 64, "vocab_size": 512, "batch_size": 4,
        "device": "cpu", "dtype": "bfloat16",
    } | changes  # fmt: skip
    sections = {
        "kind": "optimizer", "batch_size": "training", "gradient_accumulation_steps": "training",
        "activation_checkpointing": "training",
        "device": "system", "dtype": "system",
    }  # fmt: skip
    config = Config()
    for name, value in values.items():
        config.set(f"{sections.get(name, 'model')}.{name}", value)
    return config


def largest(config: Config) -> int:
    """The most bytes that a batch adds."""
    return max(sum(parts.values()) for parts in batch_bytes(config).values())


# --- before the first batch -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("bias", [True, False])
def test_weights_and_averages_are_what_is_allocated(kind: str, bias: bool) -> None:
    config = make_config(kind=kind, bias=bias)
    model = GPT(config.model)
    states = [state for optimizer in make_optimizers(model, config.optimizer) for state in optimizer.state.values()]
    averages = [value.nbytes for state in states for name, value in state.items() if name != "step"]
    weights = sum(parameter.nbytes for parameter in model.parameters())
    assert weights_bytes(config) == {"weights": weights, "averages": sum(averages), "buckets": 0}
    config.training.ema = 0.9
    own = sum(average.nbytes for average in WeightAverage(model, 0.9).averages.values())
    assert weights_bytes(config)["averages"] == sum(averages) + own


# --- what the forward pass keeps ------------------------------------------------------------------------------------


def kept_bytes(module: nn.Module, given: tuple[Any, ...], dtype: str) -> int:
    """Bytes that autograd keeps of a forward pass: each tensor's memory once, without token ids and parameters."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in parameters and tensor.is_floating_point():
            kept[place] = tensor
        return tensor

    with devices.autocast("cpu", dtype), saved_tensors_hooks(keep, lambda tensor: tensor):
        module(*given)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


QWEN3 = {"architecture": "qwen3", "n_kv_head": 2}


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("shape", [(64, 4, 64, 2), (96, 2, 32, 3)])
@pytest.mark.parametrize("family", [{}, QWEN3], ids=["gpt2", "qwen3"])
def test_a_block_keeps_what_autograd_keeps(
    family: dict[str, Any], dtype: str, dropout: float, shape: tuple[int, int, int, int]
) -> None:
    C, H, T, B = shape
    config = ModelConfig(n_layer=1, n_head=H, n_embd=C, block_size=T, dropout=dropout, vocab_size=64, **family)
    transformer = GPT(config).transformer
    rotation = transformer.rotation(torch.arange(T))
    tables = sum(part.nbytes for part in rotation or ())  # all blocks share them
    casts = 2 * sum(map(math.prod, formulas(config).matrices.values())) if dtype == "bfloat16" else 0
    kept = kept_bytes(transformer.h[0], (torch.randn(B, T, C, requires_grad=True), rotation), dtype)
    assert kept - casts - tables == B * T * formulas(config).kept_bytes_per_token(dtype, "cpu")


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("family", [{}, QWEN3], ids=["gpt2", "qwen3"])
def test_all_blocks_keep_what_autograd_keeps(family: dict[str, Any], dtype: str, dropout: float) -> None:
    config = make_config(n_layer=3, dtype=dtype, dropout=dropout, **family)
    kept = kept_bytes(GPT(config.model).transformer, (torch.zeros(4, 64, dtype=torch.int64),), dtype)
    parts = batch_bytes(config)["loss"]
    assert kept == pytest.approx(parts["activations"] + parts["casts of weights"], rel=0.006)


def test_on_a_gpu_attention_keeps_one_copy_and_the_rest_is_the_same() -> None:
    model = make_config(dropout=0.0).model
    C, H = 64, 4
    kept = formulas(model).kept_bytes_per_token
    assert kept("bfloat16", "cpu") - kept("bfloat16", "cuda") == 2 * C - 4 * H  # a copy of y; sums of exponentials
    assert kept("float32", "cuda") == kept("float32", "cpu")
    dropped = formulas(replace(model, dropout=0.1)).kept_bytes_per_token("bfloat16", "cuda")
    assert dropped - kept("bfloat16", "cuda") == 2 * C  # two masks of one byte; attention's scores are not kept


# --- the peak of a batch --------------------------------------------------------------------------------------------


def held_at_most(config: Config, folder: Path) -> int:
    """The most bytes of tensors that a batch as in trainer.py adds, counted by torch's profiler."""
    torch.manual_seed(0)
    model, dtype = GPT(config.model), config.system.dtype
    optimizers = make_optimizers(model, config.optimizer, dtype)
    A, B, T = config.training.gradient_accumulation_steps, config.training.batch_size, config.model.block_size
    model.transformer.checkpointing = config.training.activation_checkpointing

    def batch() -> None:
        ids = torch.randint(config.model.vocab_size or 0, (A, B, T))
        with devices.autocast("cpu", dtype):
            for micro in ids:
                total = model(micro, micro) / ids.numel()
                with devices.autocast("cpu", "float32"):
                    total.backward()
                del total
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad(set_to_none=True)

    batch()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        batch()
    recorded.export_chrome_trace(str(folder / "trace.json"))
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    changes = sorted((event["ts"], event["args"]["Bytes"]) for event in events if event.get("name") == "[memory]")
    now = most = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


SHAPE = {"n_embd": 128, "block_size": 64}  # small, because bfloat16 is slow on processors that lack it
BATCHES: list[tuple[str, dict[str, Any]]] = [
    ("loss", {"vocab_size": 8192}),
    ("loss", SHAPE | {"n_layer": 3, "batch_size": 8}),
    ("loss", SHAPE | {"n_layer": 3, "batch_size": 8, "dtype": "float32"}),
    ("loss", SHAPE | {"batch_size": 1, "vocab_size": 8192, "gradient_accumulation_steps": 2}),
    (
        "last block",
        {"n_embd": 128, "block_size": 1024, "n_layer": 1, "dropout": 0.1, "batch_size": 1, "dtype": "float32"},
    ),
    ("first block", SHAPE | {"n_layer": 8, "batch_size": 1, "vocab_size": 64}),
    ("embeddings", {"n_embd": 128, "n_layer": 6, "batch_size": 1, "vocab_size": 2048}),
    ("embeddings", {"n_embd": 256, "batch_size": 1, "vocab_size": 16384, "dtype": "float32"}),
    ("update", SHAPE | {"n_layer": 8, "batch_size": 1, "kind": "muon"}),
    ("update", SHAPE | {"n_layer": 8, "batch_size": 1, "kind": "muon", "dtype": "float32"}),
    ("loss", QWEN3 | SHAPE | {"n_layer": 3, "batch_size": 8}),
    ("first block", QWEN3 | SHAPE | {"n_layer": 8, "batch_size": 1, "tie_embeddings": False}),
    ("embeddings", QWEN3 | {"n_embd": 128, "n_layer": 6, "batch_size": 1, "vocab_size": 2048}),
    ("update", QWEN3 | SHAPE | {"n_layer": 8, "batch_size": 1, "kind": "muon"}),
]


@pytest.mark.parametrize("moment, changes", BATCHES)
def test_a_batch_holds_as_much_as_torch_allocates(moment: str, changes: dict[str, Any], tmp_path: Path) -> None:
    config = make_config(**changes)
    assert peak_parts(config)[0] == moment
    assert largest(config) == pytest.approx(held_at_most(config, tmp_path), rel=0.05)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_with_checkpointing_a_batch_holds_inputs_and_one_block(dtype: str, tmp_path: Path) -> None:
    config = make_config(**SHAPE, n_layer=8, batch_size=8, dtype=dtype)
    saving = make_config(**SHAPE, n_layer=8, batch_size=8, dtype=dtype, activation_checkpointing=True)
    stream = 4 * 8 * 64 * 128
    kept = batch_bytes(saving)["loss"]["activations"]
    assert kept == (8 + 1) * stream  # the input of each block, and the output of the last
    assert largest(saving) < 0.6 * largest(config)
    assert largest(saving) == pytest.approx(held_at_most(saving, tmp_path), rel=0.1)


# --- the whole ------------------------------------------------------------------------------------------------------

SIZES = {
    "n_layer": st.integers(1, 48), "n_embd": st.integers(1, 2048), "block_size": st.integers(2, 4096),
    "vocab_size": st.integers(1, 100_000), "batch_size": st.integers(1, 200),
}  # fmt: skip
KINDS = {
    "dtype": st.sampled_from(["float32", "bfloat16", "float16"]), "device": st.sampled_from(["cpu", "cuda:0", "mps"]),
    "kind": st.sampled_from(["adamw", "muon"]), "dropout": st.sampled_from([0.0, 0.1]), "bias": st.booleans(),
    "gradient_accumulation_steps": st.integers(1, 3), "activation_checkpointing": st.booleans(),
}  # fmt: skip


@given(st.fixed_dictionaries({**SIZES, **KINDS}), st.sampled_from(sorted(SIZES)), st.integers(1, 300))
def test_more_of_anything_never_takes_less(values: dict[str, Any], name: str, more: int) -> None:
    smaller = make_config(**values)
    larger = make_config(**values | {name: values[name] + more})
    assert memory_bytes(larger) >= memory_bytes(smaller)


@given(st.fixed_dictionaries({**SIZES, **KINDS}))
def test_a_wider_dtype_and_more_state_never_take_less(values: dict[str, Any]) -> None:
    narrow, wide = (make_config(**values | {"dtype": dtype}) for dtype in ("bfloat16", "float32"))
    sizes = [formulas(c.model).kept_bytes_per_token(c.system.dtype, c.system.device) for c in (narrow, wide)]
    assert sizes[0] <= sizes[1]
    muon, adamw = (weights_bytes(make_config(**values | {"kind": kind})) for kind in ("muon", "adamw"))
    assert sum(muon.values()) < sum(adamw.values())
    once, twice = (make_config(**values | {"gradient_accumulation_steps": steps}) for steps in (1, 2))
    assert memory_bytes(once) <= memory_bytes(twice)


def test_the_parts_are_those_of_the_device() -> None:
    config = make_config()
    cpu = peak_parts(config)[1]
    assert memory_bytes(config) == sum(cpu.values()) and cpu["program"] > 2e8
    config.system.device = "cuda:0"
    gpu = peak_parts(config)[1]
    assert "program" not in gpu and "gaps in the heap" not in gpu and gpu["CUDA"] == memory.CUDA_CONTEXT_BYTES
    assert "casts of weights" in gpu and "casts of weights" not in peak_parts(make_config(dtype="float32"))[1]
