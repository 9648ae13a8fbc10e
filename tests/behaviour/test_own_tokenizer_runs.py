"""Tests of runs with their own tokenizer: the checkpoint contains it, and it is never mixed with another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers_run import TINY, listening, settle, state_of, train, train_plainly

import gen
import prepare
import recipes.story
import upload_to_huggingface
from jojo.text.tokenizer import get_tokenizer
from utils import UserError

OWN = ("--data.tokenizer", "data/mine-300.tiktoken")


@pytest.fixture(autouse=True)
def folder_with_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(tmp_path, monkeypatch)
    assert prepare.main(["--name", "mine", "--train_tokenizer", "--vocab_size", "300", "--num_workers", "0"]) == 0


def test_a_checkpoint_contains_its_tokenizer(capsys: pytest.CaptureFixture[str]) -> None:
    """Resuming, generating and exporting do not need the vocabulary file."""
    train("--max_iters", "2", *OWN)
    own = get_tokenizer(OWN[1])
    state = state_of("models/mine_epoch1.pt")
    assert state["tokenizer"] == own.definition()
    assert state["config"]["model"]["vocab_size"] == own.padded_vocab_size == 320
    Path(OWN[1]).unlink()
    assert train_plainly("--resume", "models/mine_epoch1.pt", "--max_iters", "3").code == 0
    capsys.readouterr()
    assert gen.main(["models/mine_epoch1.pt", "--prompt", "Number", "--max_tokens", "5", "--device", "cpu"]) == 0
    assert capsys.readouterr().out.startswith("Number")
    flags = ["--repo-name", "x", "--dataset", "mine", "--dry-run"]
    assert upload_to_huggingface.main(["models/mine_epoch1.pt", *flags]) == 0
    flags = ["--dataset", "mine", "--device", "cpu", "--dtype", "float32", "--max_iters", "1", "--batch_size", "2"]
    assert train_plainly("--init_from", "hf_model", *flags, "--training.eval_iters", "1").code == 0
    assert state_of("models/mine_epoch1.pt")["tokenizer"] == own.definition()


def test_loading_a_model_with_another_tokenizer_is_refused() -> None:
    train("--max_iters", "2", *OWN)
    name = r"was trained with the tokenizer bpe-297, and --data\.tokenizer names 'gpt2'"
    for flags in (
        ["--resume", "models/mine_epoch1.pt"],
        ["--load_model_only", "models/mine_epoch1.pt", "--dataset", "mine"],
    ):
        with pytest.raises(UserError, match=name):
            train_plainly(*flags, "--max_iters", "3", "--data.tokenizer", "gpt2")
    train("--max_iters", "1", "--output_checkpoint", "models/plain.pt", "--data.tokenizer", "gpt2")
    with pytest.raises(UserError, match=r"trained with the tokenizer gpt2, and --data\.tokenizer names 'data/mine-300"):
        train_plainly("--load_model_only", "models/plain.pt", "--dataset", "mine", *OWN)


def test_the_loaded_models_tokenizer_overrides_gpt2_in_a_config_file() -> None:
    train("--max_iters", "1", *OWN)
    Path("own.json").write_text(json.dumps({"data": {"dataset_name": "mine", "tokenizer": "gpt2"}}))
    flags = [
        "--config",
        "own.json",
        "--load_model_only",
        "models/mine_epoch1.pt",
        "--device",
        "cpu",
        "--max_iters",
        "1",
    ]
    assert train_plainly(*flags, "--training.eval_iters", "1", "--output_checkpoint", "models/new.pt").code == 0
    state = state_of("models/new.pt")
    assert state["tokenizer"]["name"] == "bpe-297"
    assert state["config"]["data"]["tokenizer"] == OWN[1]


def test_a_tokenizer_can_be_trained_on_the_built_in_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes.story, "STORIES", 400)
    with listening() as said:
        assert prepare.main(["--name", "story", "--train_tokenizer", "--vocab_size", "400", "--num_workers", "0"]) == 0
    assert said[-1].endswith("story-small.json --data.tokenizer data/story-400.tiktoken")
    assert not Path("data/story-train.jsonl").exists()
    flags = [*TINY, "--dataset", "story", "--data.tokenizer", "data/story-400.tiktoken", "--max_iters", "1"]
    assert train_plainly(*flags).code == 0
