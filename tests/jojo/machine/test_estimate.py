"""Tests of estimate.py and gpus.py: peak FLOP/s as in the makers' data sheets, and GPUs by name."""

from __future__ import annotations

import pytest
import torch

from config import SystemConfig
from jojo.machine import estimate
from jojo.machine.gpus import GPUS, gpu_peak_flops
from tools.parts.gpu_names import ALL_GPUS, find_gpu, has_bfloat16, short_name


# Dense TFLOP/s in the data sheets; float32 is TF32 if the hardware has it.
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
def test_peaks_are_as_in_the_data_sheets(name: str, float32: float, bfloat16: float | None, float16: float) -> None:
    for dtype, tera in (("float32", float32), ("bfloat16", bfloat16), ("float16", float16)):
        peak = gpu_peak_flops(name, dtype)
        assert peak is None if tera is None else peak == pytest.approx(tera * 1e12, rel=0.01), dtype


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA GeForce GTX 1080",
        "Quadro P400",
        "AMD Instinct MI250X",
        "",
        # These names contain a known name, but the hardware is several times slower or faster:
        "NVIDIA RTX A1000 Laptop GPU",
        "NVIDIA T400 4GB",
        "Tesla T40 24GB",
        "NVIDIA L40",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_unknown_hardware_has_no_peak(name: str, dtype: str) -> None:
    assert gpu_peak_flops(name, dtype) is None


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_cpus_peak_is_measured(dtype: str) -> None:
    assert 1e6 < estimate.measure_cpu_peak_flops(dtype, seconds=0.01, size=64) < 1e15


def test_a_cpu_has_a_peak_and_mps_has_one_only_if_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "measure_cpu_peak_flops", lambda dtype: {"float32": 2e11}[dtype])
    assert estimate.peak_flops(SystemConfig(device="cpu", dtype="float32")) == 2e11
    assert estimate.peak_flops(SystemConfig(device="mps", dtype="float32")) is None
    assert estimate.peak_flops(SystemConfig(device="mps", dtype="float32", peak_flops=3e12)) == 3e12


def test_a_gpus_peak_is_found_by_the_name_in_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_every_gpu_is_found_by_its_name_and_by_name_and_memory() -> None:
    known = [gpu for gpu in ALL_GPUS if gpu.memory_gb]
    assert len({short_name(gpu.name) for gpu in known}) == len(known)
    for gpu in known:
        assert find_gpu(gpu.name) is find_gpu(f"NVIDIA GeForce {gpu.name.lower()}") is gpu
        assert find_gpu(f"{gpu.name} {gpu.memory_gb:g} GB") == gpu or gpu.name.endswith("GB")
    assert find_gpu("H100 NVL") is None is find_gpu("12")


def test_a_gpu_with_a_link_has_all_values_that_plan_scaling_needs() -> None:
    for gpu in GPUS:
        if gpu.link:
            assert gpu.memory_gb and gpu.memory_gb_s and gpu.link_gb_s and gpu.network_gb_s
            assert gpu_peak_flops(gpu.name, "bfloat16")


def test_a_gpu_has_bfloat16_exactly_if_it_has_a_peak_for_it() -> None:
    assert all(has_bfloat16(gpu) == bool(gpu.tflops[2]) for gpu in GPUS if gpu.tflops)
    assert not has_bfloat16(find_gpu("GTX 1080")) and has_bfloat16(find_gpu("RTX 3060"))
