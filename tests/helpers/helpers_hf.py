"""Folders in Hugging Face's form, made, loaded and changed by tests."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import upload_to_huggingface as upload


@contextmanager
def nothing_said() -> Iterator[None]:
    """Fail if transformers logs or warns in this block."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    listener, logger = Listener(logging.WARNING), logging.getLogger("transformers")
    logger.addHandler(listener)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    finally:
        logger.removeHandler(listener)
    assert said == []
    assert [str(w.message) for w in caught if "transformers" in str(w.filename)] == []


def load_plainly(folder: Path) -> tuple[Any, Any]:
    """Load with from_pretrained(folder) and no other argument."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with nothing_said():
        model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    return model, tokenizer


def dry_run(checkpoint: Path, folder: Path, *flags: str) -> Path:
    """Run upload_to_huggingface.py with --dry-run; returns the folder."""
    arguments = [str(checkpoint), "--repo-name", "tales", "--dataset", "fairytales", "--output-dir", str(folder)]
    assert upload.main([*arguments, "--dry-run", *flags]) == 0
    return folder


def change_json(path: Path, **changes: Any) -> None:
    values = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(values | changes), encoding="utf-8")


def change_weights(folder: Path, change: Any) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


def foreign(place: Path, shift: float = 0.0, **changes: Any) -> Path:
    """A folder with a GPT-2 as transformers saves it; `shift` is added to all its logits."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(3)
    shape = {"n_layer": 1, "n_head": 2, "n_embd": 16, "n_positions": 16}
    model = GPT2LMHeadModel(GPT2Config(**shape, **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)))
    with torch.no_grad():
        model.transformer.wte.weight.normal_(std=0.3)
        if shift:  # channel 0 is 1 in the last hidden state and `shift` in every embedding
            model.transformer.ln_f.weight[0], model.transformer.ln_f.bias[0] = 0.0, 1.0
            model.transformer.wte.weight[:, 0] = shift
    model.save_pretrained(place)
    change_json(place / "config.json", **changes)
    return place
