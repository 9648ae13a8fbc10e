"""An export that differs from its checkpoint is refused, and the first difference is named."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_cli import messages
from helpers_hf import change_json, change_weights, dry_run
from helpers_model import random_model, save_format3, tiny_config
from torch import Tensor

from generation import load_model
from hf import parity as hf_parity
from utils import UserError


def transposed(weights: dict[str, Tensor]) -> None:
    name = "transformer.h.1.attn.c_proj.weight"
    weights[name] = weights[name].t().contiguous()


CORRUPTIONS = {
    "missing keys transformer.h.0.mlp.c_fc.weight": lambda w: w.pop("transformer.h.0.mlp.c_fc.weight"),
    "unexpected keys transformer.h.0.extra": lambda w: w.update({"transformer.h.0.extra": torch.zeros(2)}),
    "'transformer.h.1.attn.c_proj.weight' has other values": transposed,
    "'transformer.ln_f.weight' has other values": lambda w: w["transformer.ln_f.weight"].mul_(1.0001),
    "transformers cannot load it|mismatched keys": lambda w: w.update({"transformer.wpe.weight": torch.zeros(3, 16)}),
    "'transformer.wpe.weight' has other values": lambda w: w["transformer.wpe.weight"].fill_(math.nan),
}


def check(path: Path, folder: Path) -> None:
    model, tokenizer, _ = load_model(path)
    hf_parity.check_parity(model, tokenizer, folder)


@pytest.mark.parametrize("sentence", CORRUPTIONS)
def test_weights_that_differ_are_named(exported: tuple[Path, Path], folder: Path, sentence: str) -> None:
    change_weights(folder, CORRUPTIONS[sentence])
    with pytest.raises(UserError, match=sentence):
        check(exported[0], folder)


@pytest.mark.parametrize(
    "change",
    [{"activation_function": "relu"}, {"layer_norm_epsilon": 1e-2}, {"n_head": 4}, {"scale_attn_weights": False}],
)
def test_another_computation_is_found(exported: tuple[Path, Path], folder: Path, change: dict[str, Any]) -> None:
    change_json(folder / "config.json", **change)
    with pytest.raises(UserError, match=r"differs .* logits by \S+ \(at most 0.0001\)"):
        check(exported[0], folder)


def test_greedy_text_is_compared_too(exported: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    plain = hf_parity.greedy
    monkeypatch.setattr(hf_parity, "greedy", lambda *a: [t + (i == 6) for i, t in enumerate(plain(*a))])
    with pytest.raises(UserError, match="greedy text from token 7 of 31, after a prompt of 1 tokens"):
        check(exported[0], exported[1])


def test_large_logits_are_compared_in_double_precision(tmp_path: Path) -> None:
    """Here float32 logits differ by more than 1e-4 by rounding alone. The export is right, and is kept."""
    model = random_model(tiny_config(vocab_size=50304), 50259)
    with torch.no_grad():
        model.transformer.ln_f.weight.mul_(300)
    with messages() as said:
        dry_run(save_format3(model, tmp_path / "x.pt"), tmp_path / "out")
    assert any("comparing in float64" in line for line in said)


def test_a_model_whose_logits_overflow_is_not_exported(tmp_path: Path) -> None:
    model = random_model(tiny_config(vocab_size=50304), 50259)
    with torch.no_grad():
        model.transformer.ln_f.weight.mul_(1e38)
    with pytest.raises(UserError, match="logits are not finite, so nothing was exported; use an earlier checkpoint"):
        dry_run(save_format3(model, tmp_path / "x.pt"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tokenizers_and_templates_that_differ_are_named(exported: tuple[Path, Path], folder: Path) -> None:
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|endoftext|>", ""))
    with pytest.raises(UserError, match="the chat template renders 'Hello' to other ids"):
        check(exported[0], folder)
    whole = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    del whole["model"]["merges"][100:]
    (folder / "tokenizer.json").write_text(json.dumps(whole), encoding="utf-8")
    with pytest.raises(UserError, match="the tokenizer encodes 'Once upon a time"):
        check(exported[0], folder)
