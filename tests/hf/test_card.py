"""The model card says what the checkpoint holds, and no more."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import helpers_run
import pytest
import torch
from helpers_hf import dry_run, foreign
from helpers_model import random_model, tiny_config

from hf import card as hf_card
from hf import hub as hf_hub
from jojo.checkpoints.checkpoint import Checkpoint, load_checkpoint
from jojo.checkpoints.older_formats import training_state
from jojo.text.tokenizer import Tokenizer


def test_the_base_model_is_kept_when_a_run_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helpers_run.settle(tmp_path, monkeypatch)
    monkeypatch.setattr(hf_hub, "find_model", lambda source: foreign(tmp_path / "fetched"))
    flags = ["--dataset", "mine", "--device", "cpu", "--dtype", "float32", "--batch_size", "2"]
    helpers_run.train_plainly("--init_from", "lab/base", *flags, "--max_iters", "1")
    helpers_run.train_plainly("--resume", "models/mine_epoch1.pt", "--max_iters", "2")
    checkpoint = load_checkpoint(Path("models/mine_epoch1.pt"))
    _, data = card_of(checkpoint.state, checkpoint.config, tmp_path)
    assert data.base_model == "lab/base"


def test_a_local_folder_is_nowhere_in_the_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helpers_run.settle(tmp_path, monkeypatch)
    foreign(tmp_path / "clients" / "acme-secret")
    flags = ["--dataset", "mine", "--device", "cpu", "--dtype", "float32", "--batch_size", "2", "--max_iters", "1"]
    helpers_run.train_plainly("--init_from", "clients/acme-secret", *flags, "--output_checkpoint", "secret_run/x.pt")
    folder = dry_run(Path("secret_run/x.pt"), tmp_path / "secret_out")
    for private in (b"acme-secret", b"secret_run", str(tmp_path).encode()):
        assert [path.name for path in folder.iterdir() if private in path.read_bytes()] == []


STATE: dict[str, Any] = {
    "optimizer": {},
    "batch_counter": 4321,
    "best_val_loss": 1.25,
    "worst_val_loss": 3.0,
    "best_train_loss": 1.5,
    "worst_train_loss": 3.0,
    "metrics": {
        "train_loss_batch": [(1, 3.0), (2, 2.0)],
        "learning_rate": [(1, 0.1), (2, 0.2)],
        "train_loss_eval": [(1, 3.0), (4321, 1.5)],
        "val_loss_eval": [(1, 3.0), (4321, 1.375)],
        "bpb": [(1, 2.0), (4321, 0.875)],
        "stride": 1,
        "elapsed_s": 7384.0,
        "tokens": 987654,
    },
    "metadata": {
        "timestamp": "2031-02-03T04:05:06+00:00",
        "trainer_version": "3.0.0",
        "machine": {"device": "cuda", "name": "Card | <b>7</b>", "threads": 2},
    },
}


CONFIG: dict[str, Any] = {
    "model": {"block_size": 32},
    "optimizer": {"kind": "muon", "learning_rate": 0.0125},
    "training": {"batch_size": 6, "gradient_accumulation_steps": 7},
    "system": {"seed": 31},
}


def card_of(
    state: dict[str, Any], config: dict[str, Any], place: Path, chatml: bool = True, version: str = "3"
) -> tuple[str, Any]:
    """The card's text, and what huggingface_hub reads from it."""
    from huggingface_hub import ModelCard

    checkpoint = Checkpoint(Path("x.pt"), version, {}, config, None, state)
    model = random_model(tiny_config(vocab_size=50304, bias=False), 50259)
    request = hf_card.CardRequest("our-lab/tales", "lab/fairytales", "apache-2.0")
    hf_card.write_card(checkpoint, model, Tokenizer(chatml), request, place)
    card = ModelCard.load(place / "README.md")
    return card.content, card.data


def test_the_card_says_what_the_checkpoint_holds(tmp_path: Path) -> None:
    text, data = card_of(STATE, CONFIG, tmp_path)
    assert (data.license, data.language, data.library_name) == ("apache-2.0", "en", "transformers")
    assert (data.pipeline_tag, data.datasets) == ("text-generation", ["lab/fairytales"])
    results = {result.metric_type: result.metric_value for result in data.eval_results}
    assert results == {"loss": 1.375, "perplexity": round(math.exp(1.375), 4)}
    expected = [
        f"| parameters | {50259 * 16 + 32 * 16 + 2 * (12 * 16 * 16 + 2 * 16) + 16:,} |", "| context | 32 tokens |",
        "| batches | 4,321 |", "| tokens per batch | 1,344 |", "| tokens predicted | 987,654 |",
        "| time | 2 h 03 min |", r"| device | cuda Card \| \<b\>7\</b\> |", "| learning rate | 0.0125 |",
        "| optimizer | muon |", "| seed | 31 |", "| validation loss | 1.3750 nats per token |",
        "| bits per byte of the validation text | 0.8750 |", "year = {2031}",
    ]  # fmt: skip
    assert [line for line in expected if line not in text] == []
    assert "![Training and validation loss](loss.png)" in text
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert "PyTorch |" not in text  # STATE does not have it


def test_a_card_without_recorded_facts(tmp_path: Path) -> None:
    text, data = card_of({}, {}, tmp_path, chatml=False)
    assert data.eval_results is None
    for absent in ("## Evaluation", "## Hyperparameters", "loss.png", "batches |", "conversational", "messages ="):
        assert absent not in text
    assert not (tmp_path / "loss.png").exists()
    assert "| data set | lab/fairytales |" in text


@pytest.mark.parametrize("state", [{}, STATE, STATE | {"batch_counter": 5000}])
def test_no_field_is_empty(tmp_path: Path, state: dict[str, Any]) -> None:
    text, data = card_of(state, CONFIG, tmp_path)
    cells = [cell.strip() for row in re.findall(r"^\| (.*) \|$", text, re.MULTILINE) for cell in row.split(" | ")]
    assert all(cells)
    assert not re.search(r"\b(None|nan|inf|null)\b", text)
    assert all(value not in (None, "", []) for value in data.to_dict().values())
    if state.get("batch_counter") == 5000:
        assert "| validation loss (after batch 4,321 of 5,000) |" in text


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ({"timestamp": "2026-11-22 18:36:39"}, ["| saved | 2026-11-22 18:36:39 |", "year = {2026}"]),
        (
            {"metadata": {"trainer_version": "2.0.1", "pytorch_version": torch.__version__, "git_commit": None}},
            ["| Jojo | 2.0.1 |", f"| PyTorch | {torch.__version__} |"],
        ),
    ],
    ids=["1", "2.x"],
)
def test_cards_of_older_files_have_date_and_versions(
    tmp_path: Path, stored: dict[str, Any], expected: list[str]
) -> None:
    text, _ = card_of(training_state(stored, {}), {}, tmp_path, version="2.x")
    assert [line for line in expected if line not in text] == []


def test_the_card_names_jojo_only_if_jojo_trained_the_model(tmp_path: Path) -> None:
    text, data = card_of({}, {}, tmp_path, version="nanoGPT")
    assert "with Jojo" not in text.split("## Use")[0] and "Trained with Jojo" not in text
    text, data = card_of(STATE, CONFIG, tmp_path)
    assert "with Jojo" in text.split("## Use")[0]
    assert data.tags == ["gpt2", "jojo"]


def test_the_cards_code_runs(exported: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """The calls in the card, with the folder for the name. The context is 32 tokens, so 100 new ones would not fit."""
    from transformers import pipeline

    text = (exported[1] / "README.md").read_text()
    assert "max_new_tokens=16" in text and "max_new_tokens=100" not in text
    generator = pipeline("text-generation", str(exported[1]))
    out = generator("Once upon a time", max_new_tokens=16, do_sample=True, temperature=0.7, top_k=50)
    assert out[0]["generated_text"].startswith("Once upon a time")
    messages = [{"role": "user", "content": "Hello"}]
    assert generator(messages, max_new_tokens=16)[0]["generated_text"][-1]["role"] == "assistant"


def test_unchecked_values_are_not_in_the_card(tmp_path: Path) -> None:
    """In a file with only weights, the keys of a training state may hold any value."""
    text, data = card_of({"metrics": 7, "batch_counter": "many", "metadata": {"machine": []}}, {}, tmp_path)
    assert data.eval_results is None
    assert "many" not in text


def test_a_best_loss_without_evaluations_is_called_best(tmp_path: Path) -> None:
    """Some checkpoints of 2.x hold no evaluations."""
    empty = {**STATE["metrics"], "val_loss_eval": [], "train_loss_eval": [], "bpb": []}
    text, data = card_of(STATE | {"metrics": empty}, {}, tmp_path)
    assert "| best validation loss | 1.2500 nats per token |" in text
    assert data.eval_results[0].metric_name == "best validation loss"
