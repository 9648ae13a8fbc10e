"""Tests of checkpoints/checkpoint.py: files of any format are read, and malformed contents are refused."""

from __future__ import annotations

import hashlib
import io
import os
import re
from pathlib import Path

import pytest
import torch
from helpers_run import differences

from config import ModelConfig
from jojo.checkpoints import checkpoint
from jojo.checkpoints.checkpoint import (
    checkpoint_tokenizer,
    git_commit,
    load_checkpoint,
    load_weights,
    metadata,
)
from jojo.checkpoints.file import STAMP, write_file
from jojo.text.tokenizer import Tokenizer
from model import GPT
from utils import UserError

ROOT = Path(__file__).resolve().parents[3]
SHAPE = ModelConfig(n_layer=1, n_head=2, n_embd=8, block_size=8, vocab_size=64)


def tiny_model() -> GPT:
    torch.manual_seed(0)
    return GPT(SHAPE)


def state(**more):
    """A checkpoint of the present format, with all keys that reading one checks."""
    model = tiny_model()
    return {
        "format_version": 3,
        "model": model.state_dict(),
        "config": {"model": vars(SHAPE).copy(), "training": {"batch_size": 3}},
        "tokenizer": Tokenizer().definition(),
        "optimizer": {"transformer.wpe.weight": {"step": torch.tensor(3.0), "exp_avg": torch.ones(8, 8)}},
        "derived": [],
        "lr_scheduler": {"schedule": {}, "total_batches": 9},
        "scaler": {},
        "rng": {"torch": torch.get_rng_state()},
        "loader": {"epoch": 1, "position": 5},
        "batch_counter": 2,
        "skipped_updates": 0,
        **dict.fromkeys(("best_val_loss", "worst_val_loss", "best_train_loss", "worst_train_loss"), float("inf")),
        "metrics": {name: [] for name in ("learning_rate", "train_loss_eval", "val_loss_eval", "bpb")}
        | {"train_loss_batch": [(1, 2.5), (2, 2.25)], "stride": 1, "elapsed_s": 0.0, "tokens": 0},
        "metadata": metadata({"name": "mine", "train": "1", "val": "2"}, "cpu") | {"run": "good", "run_id": "0" * 16},
        "nothing": None,
        **more,
    }


@pytest.fixture
def good(tmp_path):
    """A checkpoint that is intact."""
    path = tmp_path / "good.pt"
    write_file(state(), path)
    return path


# --- other formats ----------------------------------------------------------------------------------------------------


def weights():
    return {name: weight.clone() for name, weight in tiny_model().state_dict().items()}


def assert_loads(path, version):
    """Load a checkpoint and put its weights into a model; returns the checkpoint."""
    loaded = load_checkpoint(path)
    assert loaded.version == version
    assert not loaded.has_training_state
    model = GPT(SHAPE)
    load_weights(model, loaded)
    assert differences(dict(model.state_dict()), weights()) == []
    assert {name: loaded.config["model"][name] for name in ("n_layer", "n_embd", "block_size")} == {
        "n_layer": 1, "n_embd": 8, "block_size": 8,
    }  # fmt: skip
    return loaded


@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module.", "_orig_mod.module.", "module._orig_mod."])
def test_checkpoints_of_version_1_and_nanogpt_load_with_any_prefix(tmp_path, prefix):
    arguments = vars(SHAPE).copy()
    content = {
        "model": {prefix + name: weight for name, weight in weights().items()},
        "optimizer": {"state": {0: {"step": torch.tensor(5.0)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]},
        "model_args": arguments, "iter_num": 2000, "best_val_loss": torch.tensor(1.5),
        "config": {"dataset": "shakespeare", "batch_size": 12, "compile": True},
    }  # fmt: skip
    torch.save(content, tmp_path / "ckpt.pt")
    assert_loads(tmp_path / "ckpt.pt", "nanoGPT")
    del content["iter_num"]
    torch.save(content, tmp_path / "ckpt.pt")
    assert_loads(tmp_path / "ckpt.pt", "1")


def test_the_mask_that_nanogpt_stored_before_flash_attention_is_not_a_weight(tmp_path):
    content = {"model": weights() | {"transformer.h.0.attn.bias": torch.ones(1, 1, 8, 8).tril()}}
    torch.save(content | {"model_args": vars(SHAPE).copy()}, tmp_path / "ckpt.pt")
    assert_loads(tmp_path / "ckpt.pt", "1")


@pytest.mark.parametrize("pytorch_version", [torch.torch_version.TorchVersion("2.5.1+cu121"), "2.5.1"])
def test_checkpoints_of_version_2_load(tmp_path, pytorch_version):
    content = {
        "model": {f"_orig_mod.{name}": weight for name, weight in weights().items()},
        "config": {
            "model": vars(SHAPE) | {"flash_attention": True}, "data": {"dataset_name": "story", "old_option": 3},
            "training": {"compile_model": True}, "wandb": {"project": "x"}, "note": "hello",
        },
        "optimizer": {"state": {0: {"step": torch.tensor(5.0)}}, "param_groups": []},
        "metadata": {"pytorch_version": pytorch_version, "trainer_version": "2.0.1"},
        "iter_num": 7,
    }  # fmt: skip
    torch.save(content, tmp_path / "x.pt")
    loaded = assert_loads(tmp_path / "x.pt", "2.x")
    assert "flash_attention" not in loaded.config["model"] and "old_option" not in loaded.config["data"]
    assert "wandb" not in loaded.config or not loaded.config["wandb"]
    assert loaded.config["training"] == {"compile_model": True}


def test_an_unknown_format_names_the_keys_it_expected(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"model": weights(), "epoch": 3}, path)
    with pytest.raises(UserError, match=r"Missing 'model_args' or 'config\.model'"):
        load_checkpoint(path)
    torch.save({"state_dict": weights(), "epoch": 3}, path)
    with pytest.raises(UserError, match=r"Missing 'model'.*state_dict, epoch"):
        load_checkpoint(path)
    torch.save({}, path)
    with pytest.raises(UserError, match=r"Missing 'model'.*nothing"):
        load_checkpoint(path)


def test_the_error_for_a_later_format_says_that_it_is_newer(tmp_path):
    write_file(state(format_version=4), tmp_path / "x.pt")
    with pytest.raises(UserError, match="format 4, newer"):
        load_checkpoint(tmp_path / "x.pt")


@pytest.mark.parametrize("model", [{3: torch.zeros(2)}, {"transformer.wte.weight": 5}, {"a": [1]}, {}])
def test_a_model_that_is_not_a_dictionary_of_named_tensors_is_refused(tmp_path, model):
    torch.save({"model": model, "model_args": vars(SHAPE)}, tmp_path / "x.pt")
    with pytest.raises(UserError):
        load_weights(tiny_model(), load_checkpoint(tmp_path / "x.pt"))


def test_the_tokenizer_is_the_stored_one_or_for_older_formats_the_one_that_fits(tmp_path):
    write_file(state(tokenizer=Tokenizer(chatml=False).definition()), tmp_path / "x.pt")
    assert not checkpoint_tokenizer(load_checkpoint(tmp_path / "x.pt")).has_chatml
    for vocab_size, chatml in ((50304, True), (50259, True), (50257, False)):
        sized = weights() | {"transformer.wte.weight": torch.zeros(vocab_size, 8)}
        torch.save({"model": sized, "model_args": vars(SHAPE) | {"vocab_size": vocab_size}}, tmp_path / "x.pt")
        assert checkpoint_tokenizer(load_checkpoint(tmp_path / "x.pt")).has_chatml is chatml
    write_file(state(tokenizer={"name": "klingon", "n_vocab": 7}), tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"'klingon' \(7 tokens\)"):
        checkpoint_tokenizer(load_checkpoint(tmp_path / "x.pt"))


# --- weights ------------------------------------------------------------------------------------------------------------


def test_an_error_names_the_weights_that_do_not_fit_and_the_model_is_unchanged(good):
    loaded, model = load_checkpoint(good), tiny_model()
    before = weights()
    del loaded.model["transformer.ln_f.weight"]
    loaded.model["transformer.extra"] = torch.zeros(2)
    loaded.model["transformer.wpe.weight"] = torch.zeros(9, 8)
    loaded.model["transformer.wte.weight"] = torch.ones(64, 8)
    with pytest.raises(UserError) as error:
        load_weights(model, loaded)
    text = str(error.value)
    assert "'transformer.ln_f.weight' is missing" in text
    assert "'transformer.extra' is not part of this model" in text
    assert "'transformer.wpe.weight' has the shape (9, 8) instead of (8, 8)" in text
    assert differences(dict(model.state_dict()), before) == []


def test_many_weights_that_do_not_fit_are_counted(good):
    loaded = load_checkpoint(good)
    total = len(loaded.model)
    loaded.model = {}
    with pytest.raises(UserError, match=f"and {total - 3} more"):
        load_weights(tiny_model(), loaded)


# --- metadata and layout -----------------------------------------------------------------------------------------------


def test_the_commit_is_that_of_this_code_and_none_outside_a_checkout(tmp_path, monkeypatch):
    git_commit.cache_clear()
    if (ROOT / ".git").exists():
        assert re.fullmatch("[0-9a-f]{40}", git_commit())
    monkeypatch.setattr(checkpoint, "__file__", str(tmp_path / "checkpoint.py"))
    for path in (os.environ["PATH"], str(tmp_path)):  # without a checkout, then also without git
        monkeypatch.setenv("PATH", path)
        git_commit.cache_clear()
        assert git_commit() is None
    git_commit.cache_clear()


def write_by_hand(content, path):
    """Write a file with a correct SHA-256, without the checks of write_file."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    whole = buffer.getvalue() + STAMP.format(run="", batch=0).encode()
    path.write_bytes(whole + b"jojo-sha256:" + hashlib.sha256(whole).hexdigest().encode())


NO_COUNT = (None, True, -1, 1.5, 2**63, "1", [1])
NO_NUMBER = (None, True, "1", [1], torch.zeros(()))
NO_POINTS = (None, 1, {}, [1], [(1,)], [(-1, 2.0)], [(1, "x")], [[1, 2.0]])
MISFITS = {
    "tokenizer": (None, [], "gpt2"),
    "derived": (None, {}, [1], "model.n_layer"),
    "lr_scheduler.total_batches": NO_COUNT,
    "lr_scheduler": (None, [], 3),
    "scaler": (None, [1]),
    "rng.torch": (None, 1, [0, 1]),
    "loader.epoch": NO_COUNT,
    "loader.position": NO_COUNT,
    "batch_counter": NO_COUNT,
    "skipped_updates": NO_COUNT,
    "best_val_loss": NO_NUMBER,
    "worst_train_loss": NO_NUMBER,
    "metrics.train_loss_batch": NO_POINTS,
    "metrics.bpb": NO_POINTS,
    "metrics.stride": NO_COUNT,
    "metrics.elapsed_s": NO_NUMBER,
    "metadata.run": (None, 7, "a/b", "a\0b", "\ud800", "x" * 256),
    "metadata.run_id": (None, 7, ["0"]),
    "metadata.dataset.train": (None, 7),
    "metadata.machine": (None, "cpu"),
}


@pytest.mark.parametrize(
    ("place", "value"), [(p, v) for p, values in MISFITS.items() for v in values], ids=lambda part: repr(part)[:30]
)
def test_an_error_names_the_entry_that_is_missing_or_malformed(tmp_path, place, value):
    odd = state()
    *above, last = place.split(".")
    inside = odd
    for key in above:
        inside[key] = dict(inside[key])
        inside = inside[key]
    if value is None:
        del inside[last]
    else:
        inside[last] = value
    write_by_hand(odd, tmp_path / "odd.pt")
    with pytest.raises(UserError, match=re.escape(place)):
        load_checkpoint(tmp_path / "odd.pt")


def test_the_name_of_a_run_may_have_bytes_that_are_not_utf8(tmp_path):
    odd = state()
    odd["metadata"] |= {"run": os.fsdecode(b"\xff")}
    write_file(odd, tmp_path / "x.pt")
    assert load_checkpoint(tmp_path / "x.pt").state["metadata"]["run"] == os.fsdecode(b"\xff")


def test_a_checkpoint_of_weights_only_loads_but_has_no_training_state(tmp_path):
    whole = state()
    write_file({key: whole[key] for key in ("format_version", "model", "config", "tokenizer")}, tmp_path / "x.pt")
    loaded = load_checkpoint(tmp_path / "x.pt")
    assert loaded.version == "3" and not loaded.has_training_state


def test_metadata_holds_only_plain_values():
    facts = metadata({"name": "mine", "train": "1", "val": "2"}, "cpu")
    assert type(facts["pytorch_version"]) is str
    assert {type(value) for value in facts.values()} <= {str, dict, type(None)}
    assert facts["dataset"] == {"name": "mine", "train": "1", "val": "2"}
