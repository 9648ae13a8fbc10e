"""GPUs by name, from their makers' data sheets: peak FLOP/s, memory, and links to one another.

To add a GPU, add a row to GPUS, or to MEMORY_GB in tools/parts/gpu_names.py if only its memory matters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """A GPU. None in `tflops`: the hardware lacks this dtype."""

    name: str
    memory_gb: float | None  # None: only drivers use this name; another row has the name that people use
    tflops: tuple[float, float | None, float | None, float] | None = None  # dense: float32, TF32, bfloat16, float16
    memory_gb_s: float = 0.0  # bandwidth of its memory
    link: str = ""  # connects the GPUs of one machine
    link_gb_s: float = 0.0  # in each direction
    network_gb_s: float = 0.0  # between machines, as usual for each of these GPUs; 1 GB/s is 8 Gb/s


# If the driver's name of a GPU contains several of these names, the first row counts.
GPUS = [
    Gpu("B200", 180, (75.0, 1125.0, 2250.0, 2250.0), 7700, "NVLink", 900, 50),
    Gpu("H200", 141, (66.9, 494.7, 989.4, 989.4), 4800, "NVLink", 450, 50),
    Gpu("H100 PCIe", None, (51.2, 378.0, 756.0, 756.0)),
    Gpu("H100 NVL", None, (60.0, 417.5, 835.5, 835.5)),
    Gpu("H100", 80, (66.9, 494.7, 989.4, 989.4), 3350, "NVLink", 450, 50),
    Gpu("A100", 40, (19.5, 156.0, 312.0, 312.0), 1555, "NVLink", 300, 25),
    Gpu("A100 80GB", 80, (19.5, 156.0, 312.0, 312.0), 2039, "NVLink", 300, 25),
    Gpu("A10G", 24, (31.5, 35.0, 70.0, 70.0)),
    Gpu("L40S", 48, (91.6, 183.0, 362.0, 362.0), 864, "PCIe 4.0", 32, 12.5),
    Gpu("L4", 24, (30.3, 60.0, 121.0, 121.0)),
    Gpu("T4", 16, (8.1, None, None, 65.0)),
    Gpu("V100-PCIE", None, (14.0, None, None, 112.0)),
    Gpu("V100", 16, (15.7, None, None, 125.0)),
    Gpu("RTX 5090", 32, (104.8, 104.8, 209.5, 209.5), 1792, "PCIe 5.0", 64, 1.25),
    Gpu("RTX 4090", 24, (82.6, 82.6, 165.2, 165.2), 1008, "PCIe 4.0", 32, 1.25),
    Gpu("RTX 4080", 16, (48.7, 48.7, 97.5, 97.5)),
    Gpu("RTX 3090", 24, (35.6, 35.6, 71.0, 71.0), 936, "PCIe 4.0", 32, 1.25),
    Gpu("RTX 3080", 10, (29.8, 29.8, 59.5, 59.5)),
    Gpu("MI300X", 192, (163.4, 653.7, 1307.4, 1307.4)),
]


def gpu_peak_flops(name: str, dtype: str, tf32: bool = True) -> float | None:
    """Published dense peak in FLOP/s of the GPU with this driver name. `tf32`: float32 products may run in TF32.

    None: the GPU is unknown or lacks the dtype. Names match as whole words: an RTX A1000 is not an A100. Laptop GPUs are unknown.
    """
    for gpu in GPUS:
        if gpu.tflops and re.search(rf"\b{gpu.name}\b(?! Laptop)", name, re.IGNORECASE):
            float32, in_tf32, bfloat16, float16 = gpu.tflops
            peak = {"float32": (tf32 and in_tf32) or float32, "bfloat16": bfloat16, "float16": float16}[dtype]
            return peak * 1e12 if peak else None
    return None
