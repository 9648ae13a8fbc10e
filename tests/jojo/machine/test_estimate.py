"""Tests of the cost estimates: FLOPs against a count made by torch, peaks against the makers' data sheets."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers_model import random_tokens, tiny_config
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from config import ModelConfig, SystemConfig
from jojo.machine import estimate
from model import GPT

SHAPES = [
    tiny_config(n_layer=1, n_embd=8, n_head=1, vocab_size=40, block_size=8),
    tiny_config(n_layer=3, n_embd=32, n_head=4, vocab_size=64, block_size=48, bias=False),
    tiny_config(n_layer=2, n_embd=16, n_head=2, vocab_size=1000, block_size=16),
    tiny_config(n_layer=2, n_embd=16, n_head=4, vocab_size=32, block_size=256),
]


def counted_flops_per_token(config: ModelConfig) -> tuple[float, float]:
    """What torch counts in forward and backward with the plain loss, per token: matrix products, and attention's.

    The math kernel of attention is used because torch counts its batched products (the fused CPU kernel goes
    uncounted). It multiplies the whole T x T square, as the estimate assumes, and recomputes nothing.
    """
    model = GPT(config)
    tokens = random_tokens(config, 2, config.block_size)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        F.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()).backward()
    counts = counter.get_flop_counts()["Global"]
    attention = counts.get(torch.ops.aten.bmm, 0)
    return (sum(counts.values()) - attention) / tokens.numel(), attention / tokens.numel()


@pytest.mark.parametrize("config", SHAPES)
def test_flops_per_token_equal_what_torch_counts(config: ModelConfig) -> None:
    matrices, attention = counted_flops_per_token(config)
    assert estimate.flops_per_token(config) == pytest.approx(matrices + attention, rel=0.01)


@pytest.mark.parametrize("config", SHAPES)
def test_the_two_terms_are_the_matrices_and_the_attention(config: ModelConfig) -> None:
    matrices, attention = counted_flops_per_token(config)
    # 6 per parameter, without those that are only looked up or added: positions, biases, LayerNorms.
    vectors = sum(p.numel() for p in GPT(config).parameters() if p.dim() == 1)
    multiplied = estimate.n_parameters(config) - config.block_size * config.n_embd - vectors
    assert matrices == pytest.approx(6 * multiplied, rel=0.01)
    assert attention == pytest.approx(12 * config.n_layer * config.n_embd * config.block_size, rel=0.01)


def test_gpt2_costs_what_the_paper_and_nanogpt_say() -> None:
    gpt2 = ModelConfig(12, 12, 768, 1024, 0.0, True, 50257)
    assert estimate.n_parameters(gpt2) == 124_439_808
    assert estimate.flops_per_token(gpt2) == pytest.approx(6 * 123.6e6 + 12 * 12 * 768 * 1024, rel=1e-3)


# Dense TFLOP/s of the data sheets; float32 is TF32 where the hardware has it.
@pytest.mark.parametrize(
    ("name", "float32", "bfloat16", "float16"),
    [
        ("NVIDIA H100 80GB HBM3", 494.7, 989.4, 989.4),
        ("NVIDIA H100 PCIe", 378, 756, 756),
        ("NVIDIA H100 NVL", 417.5, 835.5, 835.5),
        ("NVIDIA H200", 494.7, 989.4, 989.4),
        ("NVIDIA B200", 1125, 2250, 2250),
        ("NVIDIA A100-SXM4-80GB", 156, 312, 312),
        ("NVIDIA A100-PCIE-40GB", 156, 312, 312),
        ("NVIDIA A10G", 35, 70, 70),
        ("NVIDIA L4", 60, 121, 121),
        ("NVIDIA L40S", 183, 362, 362),
        ("NVIDIA GeForce RTX 4090", 82.6, 165.2, 165.2),
        ("NVIDIA GeForce RTX 3090", 35.6, 71, 71),
        ("AMD Instinct MI300X", 653.7, 1307.4, 1307.4),
        ("Tesla T4", 8.1, None, 65),
        ("Tesla V100-SXM2-16GB", 15.7, None, 125),
        ("Tesla V100-PCIE-32GB", 14, None, 112),
    ],
)
def test_peaks_are_those_of_the_data_sheets(name: str, float32: float, bfloat16: float | None, float16: float) -> None:
    for dtype, tera in (("float32", float32), ("bfloat16", bfloat16), ("float16", float16)):
        peak = estimate.gpu_peak_flops(name, dtype)
        assert peak is None if tera is None else peak == pytest.approx(tera * 1e12, rel=0.01), dtype


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA GeForce GTX 1080",
        "Quadro P400",
        "AMD Instinct MI250X",
        "",
        # Names that contain a known one and are other hardware, several times slower or faster:
        "NVIDIA RTX A1000 Laptop GPU",
        "NVIDIA T400 4GB",
        "Tesla T40 24GB",
        "NVIDIA L40",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_no_peak_is_made_up_for_unknown_hardware(name: str, dtype: str) -> None:
    assert estimate.gpu_peak_flops(name, dtype) is None


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_cpus_peak_is_measured(dtype: str) -> None:
    assert 1e6 < estimate.measure_cpu_peak_flops(dtype, seconds=0.01, size=64) < 1e15


def test_a_cpu_has_a_peak_and_other_devices_without_a_table_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "measure_cpu_peak_flops", lambda dtype: {"float32": 2e11}[dtype])
    assert estimate.peak_flops(SystemConfig(device="cpu", dtype="float32")) == 2e11
    assert estimate.peak_flops(SystemConfig(device="mps", dtype="float32")) is None
    assert estimate.peak_flops(SystemConfig(device="mps", dtype="float32", peak_flops=3e12)) == 3e12


def test_a_gpus_peak_goes_by_the_name_it_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"cuda:0": "NVIDIA H100 80GB HBM3", "cuda:1": "Tesla T4"}
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: names[device])
    for device, dtype, tf32, peak in (
        ("cuda:0", "bfloat16", True, 989.4e12),
        ("cuda:0", "float32", True, 494.7e12),
        ("cuda:0", "float32", False, 66.9e12),
        ("cuda:1", "bfloat16", True, None),
        ("cuda:1", "float32", True, 8.1e12),
    ):
        found = estimate.peak_flops(SystemConfig(device=device, dtype=dtype, allow_tf32_matmul=tf32))
        assert found == (pytest.approx(peak) if peak else None)
