"""The architectures. Each has a file with the parts of a block and the formulas for them; model.py puts the parts together."""

from __future__ import annotations

from config import ModelConfig
from jojo.networks.common import Formulas
from jojo.networks.gpt2 import GPT2
from jojo.networks.qwen3 import QWEN3

NETWORKS = {"gpt2": GPT2, "qwen3": QWEN3}  # by model.architecture


def formulas(config: ModelConfig) -> Formulas:
    """The weight shapes, FLOPs and memory of a model."""
    return NETWORKS[config.architecture].formulas(config)
