"""The peak FLOP/s of the hardware. MFU is the share of it that training reaches."""

from __future__ import annotations

import time

import torch

from config import SystemConfig
from jojo.machine.gpus import gpu_peak_flops

USUAL_MFU = 0.3  # assumed until a run has measured its own


def peak_flops(system: SystemConfig) -> float | None:
    """The peak FLOP/s: the configured one, else a GPU's published one or a CPU's measured one. None: unknown."""
    if system.peak_flops is not None:
        return system.peak_flops
    if system.device == "cpu":
        return measure_cpu_peak_flops(system.dtype)
    if system.device.startswith("cuda"):
        return gpu_peak_flops(torch.cuda.get_device_name(system.device), system.dtype, system.allow_tf32_matmul)
    return None


def measure_cpu_peak_flops(dtype: str, seconds: float = 0.4, size: int = 2048) -> float:
    """The highest FLOP/s of this processor in products of two size x size matrices, measured for `seconds`."""
    a = torch.full((size, size), 0.5, dtype=getattr(torch, dtype))
    best, deadline = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        start = time.perf_counter()
        torch.mm(a, a)
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best
