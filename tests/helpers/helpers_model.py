"""Tiny models, checkpoints of every format, and plain references for the tests of model, loss and generation."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from config import ModelConfig
from jojo.checkpoints.file import FORMAT_VERSION, write_file
from jojo.text.tokenizer import Tokenizer
from model import GPT


def tiny_config(**changes: Any) -> ModelConfig:
    """Two layers, two heads, width 16, a context of 32, a vocabulary of 64; then these changes."""
    values = {"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 32, "dropout": 0.0, "bias": True, "vocab_size": 64}
    return ModelConfig(**(values | changes))


QWEN3 = {"architecture": "qwen3", "bias": False, "n_head": 4, "n_kv_head": 2, "n_embd": 32, "rope_theta": 100.0}
both_architectures = pytest.mark.parametrize("family", [{}, QWEN3], ids=["gpt2", "qwen3"])


def random_model(config: ModelConfig, n_vocab: int | None = None, seed: int = 0, std: float = 0.3) -> GPT:
    """An eval-mode model with large random weights everywhere (LayerNorms and biases too), so that no error hides."""
    torch.manual_seed(seed)
    model = GPT(config, n_vocab).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=std)
            if (".ln_" in name or "_norm" in name) and name.endswith("weight"):
                parameter.add_(1)
    return model


def unigram_model(config: ModelConfig, logits: dict[int, float], n_vocab: int | None = None) -> GPT:
    """A model whose next-token logits are the same after every text: these, and 0 for all other tokens."""
    assert config.bias
    model = GPT(config, n_vocab).eval()
    with torch.no_grad():
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.zero_()
        model.transformer.ln_f.bias[0] = 1  # the final hidden state, whatever the input
        model.lm_head.weight[:, 0] = 0
        for token, logit in logits.items():
            model.lm_head.weight[token, 0] = logit
    return model


def random_tokens(config: ModelConfig, *shape: int, seed: int = 0, n_vocab: int | None = None) -> Tensor:
    """Token ids in [0, n_vocab)."""
    high = n_vocab or config.vocab_size
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


def plain_loss(hidden: Tensor, weight: Tensor, targets: Tensor, n_vocab: int) -> Tensor:
    """The summed cross-entropy in one line: loss.linear_cross_entropy must equal it."""
    return F.cross_entropy((hidden @ weight.T)[:, :n_vocab].float(), targets, ignore_index=-1, reduction="sum")


def relative_difference(a: Tensor, b: Tensor) -> float:
    """||a - b|| / ||b||, in float64; ||a|| if b is zero."""
    norm = b.double().norm().item()
    difference = (a.double() - b.double()).norm().item()
    return difference / norm if norm else difference


# --- checkpoints ----------------------------------------------------------------------------------------------------


def shape_of(config: ModelConfig) -> dict[str, Any]:
    """A model's config as older formats store it."""
    return {
        "n_layer": config.n_layer, "n_head": config.n_head, "n_embd": config.n_embd, "block_size": config.block_size,
        "bias": config.bias, "vocab_size": config.vocab_size, "dropout": 0.1,
    }  # fmt: skip


def save_format3(model: GPT, path: Path, tokenizer: Tokenizer | None = None) -> Path:
    """Write a checkpoint of this version, with only the parts that generation needs."""
    definition = (tokenizer or Tokenizer()).definition()
    config = {"model": asdict(model.config) | {"dropout": 0.1}, "training": {"batch_size": 4}}
    state = {"format_version": FORMAT_VERSION, "model": model.state_dict(), "config": config, "tokenizer": definition}
    write_file(state, path)
    return path


def save_2x(model: GPT, path: Path) -> Path:
    """Write the layout of 2.x: a compiled model's names, a flat config, metadata with a TorchVersion, no trailer."""
    weights = {"_orig_mod." + name: tensor for name, tensor in model.state_dict().items()}
    config = {
        "model": shape_of(model.config),
        "scheduler": {"warmup_iters": 2000, "lr_decay_iters": 60000},
        "system": {"device": "cuda", "option_of_long_ago": True},
    }
    metadata = {"trainer_version": "2.0.1", "pytorch_version": torch.__version__, "git_commit": None}
    torch.save({"model": weights, "config": config, "metadata": metadata, "epoch": 0, "metrics": {}}, path)
    return path


def save_v1(model: GPT, path: Path) -> Path:
    """Write the layout of version 1, which is nanoGPT's: model_args, and a flat config that is not used."""
    weights = {"_orig_mod." + name: tensor for name, tensor in model.state_dict().items()}
    args = shape_of(model.config)
    torch.save({"model": weights, "model_args": args, "config": {"dataset": "x", "eval_iters": 200}, "epoch": 0}, path)
    return path
