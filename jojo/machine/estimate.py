"""What a model costs: parameters, FLOPs, and the peak FLOP/s of the hardware it runs on."""

from __future__ import annotations

import re
import time

from config import ModelConfig, SystemConfig

# Dense peaks in TFLOP/s by product name, from the makers' data sheets (no sparsity): float32, TF32, bfloat16, float16.
# None: the hardware lacks it. The first name found in the device's name counts.
GPU_PEAK_TFLOPS: dict[str, tuple[float, float | None, float | None, float]] = {
    "B200": (75.0, 1125.0, 2250.0, 2250.0),
    "H200": (66.9, 494.7, 989.4, 989.4),
    "H100 PCIe": (51.2, 378.0, 756.0, 756.0),
    "H100 NVL": (60.0, 417.5, 835.5, 835.5),
    "H100": (66.9, 494.7, 989.4, 989.4),
    "A100": (19.5, 156.0, 312.0, 312.0),
    "A10G": (31.5, 35.0, 70.0, 70.0),
    "L40S": (91.6, 183.0, 362.0, 362.0),
    "L4": (30.3, 60.0, 121.0, 121.0),
    "T4": (8.1, None, None, 65.0),
    "V100-PCIE": (14.0, None, None, 112.0),
    "V100": (15.7, None, None, 125.0),
    "RTX 5090": (104.8, 104.8, 209.5, 209.5),
    "RTX 4090": (82.6, 82.6, 165.2, 165.2),
    "RTX 4080": (48.7, 48.7, 97.5, 97.5),
    "RTX 3090": (35.6, 35.6, 71.0, 71.0),
    "RTX 3080": (29.8, 29.8, 59.5, 59.5),
    "MI300X": (163.4, 653.7, 1307.4, 1307.4),
}
USUAL_MFU = 0.3  # of a run nothing has been measured of yet


def n_parameters(model: ModelConfig) -> int:
    """Parameters of a shape, the tied matrix counted once."""
    assert model.vocab_size is not None
    C, norms = model.n_embd, 2 if model.bias else 1
    block = 12 * C * C + (9 * C if model.bias else 0) + 2 * norms * C
    return (model.vocab_size + model.block_size) * C + model.n_layer * block + norms * C


def flops_per_token(model: ModelConfig) -> float:
    """FLOPs of forward and backward per trained token."""
    return sum(part_flops_per_token(model).values())


def part_flops_per_token(model: ModelConfig) -> dict[str, float]:
    """The same by where they come from: the blocks' matrix products, attention, and the loss with the output layer.

    6 per parameter that takes part in a matrix product (12·C² a block, V·C for the output layer; looking up an
    embedding is none), and 12·L·C·T for attention scores and values over the whole context
    (Chowdhery et al. 2022, "PaLM", appendix B).
    """
    assert model.vocab_size is not None
    L, C = model.n_layer, model.n_embd
    return {
        "matrix products": 72.0 * L * C**2,
        "attention": 12.0 * L * C * model.block_size,
        "loss": 6.0 * model.vocab_size * C,
    }


def _names(product: str, device: str) -> bool:
    """Whether a device's name has the product as whole words: an RTX A1000 is no A100, a laptop's 4090 no 4090."""
    return bool(re.search(rf"\b{re.escape(product)}\b(?! Laptop)", device, re.IGNORECASE))


def gpu_peak_flops(name: str, dtype: str, tf32: bool = True) -> float | None:
    """Published dense peak of a GPU, FLOP/s; None where this table does not know it.

    Args:
        name: as the driver gives it.
        dtype: of the matrix products.
        tf32: float32 products may run in TF32, on hardware that has it.
    """
    known = next((peaks for part, peaks in GPU_PEAK_TFLOPS.items() if _names(part, name)), None)
    if known is None:
        return None
    plain, in_tf32, bfloat16, float16 = known
    float32 = in_tf32 if tf32 and in_tf32 else plain
    peak = {"float32": float32, "bfloat16": bfloat16, "float16": float16}[dtype]
    return peak * 1e12 if peak else None


def measure_cpu_peak_flops(dtype: str, seconds: float = 1.0, size: int = 2048) -> float:
    """Best rate at which this processor multiplies two size x size matrices, FLOP/s."""
    import torch

    a = torch.full((size, size), 0.5, dtype=getattr(torch, dtype))
    best, deadline = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        start = time.perf_counter()
        torch.mm(a, a)
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best


def peak_flops(system: SystemConfig) -> float | None:
    """What MFU is measured against: as configured, a GPU's published peak, a CPU's measured one; None where unknown."""
    if system.peak_flops is not None:
        return system.peak_flops
    if system.device == "cpu":
        return measure_cpu_peak_flops(system.dtype)
    if system.device.startswith("cuda"):
        import torch

        return gpu_peak_flops(torch.cuda.get_device_name(system.device), system.dtype, system.allow_tf32_matmul)
    return None
