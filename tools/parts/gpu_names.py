"""Finds a GPU by any usual spelling of its name: those of jojo/machine/gpus.py, and others, of which only the memory is known."""

from __future__ import annotations

import re

from jojo.machine.gpus import GPUS, Gpu

# If a GPU is sold with several memory sizes, the plain name stands for the usual size.
MEMORY_GB: dict[str, float] = {
    "GTX 1060": 6, "GTX 1070": 8, "GTX 1080": 8, "GTX 1080 Ti": 11,
    "RTX 2060": 6, "RTX 2070": 8, "RTX 2080": 8, "RTX 2080 Ti": 11, "Titan RTX": 24,
    "RTX 3050": 8, "RTX 3060": 12, "RTX 3060 Ti": 8, "RTX 3070": 8, "RTX 3070 Ti": 8,
    "RTX 3080 12GB": 12, "RTX 3080 Ti": 12, "RTX 3090 Ti": 24,
    "RTX 4060": 8, "RTX 4060 Ti": 16, "RTX 4060 Ti 8GB": 8, "RTX 4070": 12, "RTX 4070 Super": 12, "RTX 4070 Ti": 12,
    "RTX 4070 Ti Super": 16, "RTX 4080 Super": 16,
    "RTX 5060": 8, "RTX 5060 Ti": 16, "RTX 5060 Ti 8GB": 8, "RTX 5070": 12, "RTX 5070 Ti": 16, "RTX 5080": 16,
    "RTX A2000": 6, "RTX A4000": 16, "RTX A5000": 24, "RTX A6000": 48, "RTX 6000 Ada": 48,
    "P100": 16, "V100 32GB": 32, "A10": 24, "A40": 48, "MI210": 64, "MI250X": 128,
}  # fmt: skip
ALL_GPUS = [*GPUS, *(Gpu(name, memory_gb) for name, memory_gb in MEMORY_GB.items())]


def has_bfloat16(gpu: Gpu) -> bool:
    """Whether the hardware multiplies bfloat16."""
    return not gpu.name.startswith(("GTX", "RTX 20", "Titan RTX", "P100", "T4", "V100"))


def short_name(name: str) -> str:
    """A name as people may write it: 'NVIDIA GeForce RTX 3060', 'rtx3060' and '3060' become the same."""
    rest = re.sub(r"nvidia|geforce|tesla|amd|instinct|rtx|gtx|sxm\d?|pcie|hbm\d?|[^a-z0-9]", "", name.lower())
    return rest.removesuffix("gb")


SHORT_NAMES = {short_name(gpu.name): gpu for gpu in ALL_GPUS if gpu.memory_gb}
SHORT_NAMES |= {f"{name}{gpu.memory_gb:g}": gpu for name, gpu in SHORT_NAMES.items()}  # "RTX 3060 12GB"


def find_gpu(wanted: str) -> Gpu | None:
    """The GPU of this name, in any usual spelling, with or without its memory. None: unknown."""
    return SHORT_NAMES.get(short_name(wanted))
