"""Tests of older_formats.py: training continues with the state in checkpoints of v1, 2.x and nanoGPT."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from helpers_model import random_model, tiny_config
from helpers_run import TINY, metrics_rows, settle, state_of, train_plainly

from config import Config
from jojo.checkpoints.checkpoint import load_checkpoint
from jojo.checkpoints.older_formats import flat_config, training_state
from model import GPT
from trainer import Trainer
from training.flags import Request
from training.run import prepare_run
from utils import UserError

SHAPE = {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 16, "dropout": 0.0, "bias": False, "vocab_size": 50304}


@pytest.fixture(autouse=True)
def workshop(tmp_path, monkeypatch):
    settle(tmp_path, monkeypatch)


def trained_plainly(bias: bool = False, steps: int = 3) -> tuple[GPT, torch.optim.AdamW]:
    """A trained model, and its optimizer as older versions made it: matrices in one group, vectors in the other."""
    model = random_model(tiny_config(**SHAPE | {"bias": bias}), n_vocab=50259, std=0.05).train()
    parameters = list(model.parameters())
    groups = [[p for p in parameters if p.dim() >= 2], [p for p in parameters if p.dim() < 2]]
    optimizer = torch.optim.AdamW(
        [{"params": groups[0], "weight_decay": 0.1}, {"params": groups[1], "weight_decay": 0.0}], lr=1e-3
    )
    for step in range(steps):
        tokens = torch.randint(1000, (2, 16), generator=torch.Generator().manual_seed(step))
        model(tokens, tokens.roll(-1, 1)).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def save_old(path: str, version: str, model: GPT, optimizer: torch.optim.AdamW, **more) -> Path:
    """Write a checkpoint in the layout of an older version."""
    Path(path).parent.mkdir(exist_ok=True)
    shape = SHAPE | {"bias": model.config.bias}
    content = {"model": model.state_dict(), "optimizer": optimizer.state_dict()} | more
    if version == "2.x":
        training = {"max_epochs": 1, "batch_size": 2, "gradient_accumulation_steps": 1, "eval_iters": 2}
        content["config"] = {
            "model": shape, "training": training, "data": {"dataset_name": "mine"},
            "optimizer": {"learning_rate": 0.01}, "system": {"dtype": "float32", "device": "cpu"},
            "scheduler": {"warmup_iters": 2000, "lr_decay_iters": 60000},
        }  # fmt: skip
        content["metadata"] = {"trainer_version": "2.0.1", "pytorch_version": torch.__version__}
    else:
        content["model_args"] = shape
        content["config"] = {"dataset": "mine", "batch_size": 2, "learning_rate": 0.01, "eval_interval": 5, "RED": "x"}
    torch.save(content, path)
    return Path(path)


@pytest.mark.parametrize("version", ["1", "2.x"])
@pytest.mark.parametrize("bias", [False, True])
def test_each_weight_gets_its_own_optimizer_state(version, bias):
    model, optimizer = trained_plainly(bias)
    loaded = load_checkpoint(save_old("models/old.pt", version, model, optimizer))
    parameters = dict(model.named_parameters())
    assert loaded.version == version and set(loaded.state["optimizer"]) == set(parameters)
    for name, parameter in parameters.items():
        for key, value in optimizer.state[parameter].items():
            assert torch.equal(loaded.state["optimizer"][name][key], value), (name, key)


@pytest.mark.parametrize(("version", "flag"), [("1", "--from_checkpoint"), ("2.x", "--checkpoint")])
def test_training_continues_from_an_older_checkpoint(version, flag):
    model, optimizer = trained_plainly()
    path = save_old("models/old.pt", version, model, optimizer, epoch=0, best_val_loss=5.5)
    outcome = train_plainly(
        *TINY, "--data.tokenizer", "gpt2", flag, str(path), "--max_iters", "6", "--output_checkpoint", "models/new.pt"
    )
    assert outcome.code == 0
    assert "'models/old.pt' does not store the position in the data; batch 3 is followed by a new epoch" in outcome.said
    state = state_of("models/new.pt")
    assert state["batch_counter"] == 6 and state["best_val_loss"] == 5.5
    assert {int(values["step"]) for values in state["optimizer"].values()} == {6}
    assert [row["step"] for row in metrics_rows("models/new.metrics.jsonl")] == [4, 5, 6]
    assert state["config"]["optimizer"]["learning_rate"] == 0.01


def test_the_next_update_is_the_same_as_the_old_optimizers():
    """One more batch changes the weights as the old optimizer does with the same batch."""
    model, optimizer = trained_plainly()
    save_old("models/old.pt", "2.x", model, optimizer)
    overrides = [("--max_iters", "training.max_iters", 9), ("--decay", "scheduler.decay_lr", False)]
    trainer = Trainer(prepare_run(Request(continue_from="models/old.pt", overrides=overrides, output="models/new.pt")))
    batch = trainer.loader.batch(trainer.epoch, trainer.position)
    rate = trainer.run.plan.schedule.lr(trainer.batches_done)
    result = trainer.step(batch)
    for group in optimizer.param_groups:
        group.update(lr=rate, betas=(0.9, 0.95))
    loss = model(batch.inputs[0], batch.targets[0]) / batch.n_targets
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    assert result.loss == pytest.approx(loss.item(), rel=1e-6)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(trainer.model.state_dict()[name], tensor, rtol=1e-5, atol=1e-7)


def test_a_file_without_optimizer_state_says_how_to_use_its_weights():
    model, optimizer = trained_plainly(steps=0)
    path = save_old("models/old.pt", "2.x", model, optimizer)
    with pytest.raises(UserError, match=r"no optimizer state.*--load_model_only models/old\.pt"):
        train_plainly(*TINY, "--checkpoint", str(path))


def test_state_that_does_not_fit_the_weights_is_not_used():
    model, optimizer = trained_plainly()
    weights = model.state_dict()
    good = optimizer.state_dict()
    assert training_state({"optimizer": good}, weights)
    for spoil in (
        lambda s: s["state"].pop(0),
        lambda s: s["state"].update({0: s["state"][1], 1: s["state"][0]}),
        lambda s: s["state"].update({0: {"step": torch.tensor(1.0)}}),
        lambda s: s["state"].clear(),
    ):
        bad = {"state": dict(good["state"])}
        spoil(bad)
        assert "optimizer" not in training_state({"optimizer": bad}, weights)
    odd = {"state": {number: values | {"step": torch.zeros(2)} for number, values in good["state"].items()}}
    assert training_state({"optimizer": odd}, weights)["batch_counter"] == 0
    for nothing in ({}, {"optimizer": []}):
        assert "optimizer" not in training_state(nothing, weights)


def test_losses_are_also_read_from_a_file_without_optimizer_state():
    model, _ = trained_plainly(steps=0)
    state = training_state({"metrics": {"val_loss_eval": [(5, 2.5)]}, "best_val_loss": 2.5}, model.state_dict())
    assert state["metrics"]["val_loss_eval"] == [(5, 2.5)] and state["best_val_loss"] == 2.5


def test_losses_by_epoch_are_put_at_the_last_batch_of_each_epoch():
    model, optimizer = trained_plainly(steps=6)
    by_epoch = {"train_loss_epoch": [(0, 3.0), (1, 2.0)], "val_loss_epoch": [(0, 3.5), (1, 2.5)]}
    state = training_state({"optimizer": optimizer.state_dict(), "metrics": by_epoch}, model.state_dict())
    assert state["metrics"]["train_loss_eval"] == [(3, 3.0), (6, 2.0)]
    assert state["metrics"]["val_loss_eval"] == [(3, 3.5), (6, 2.5)]


def test_losses_and_series_that_are_missing_or_malformed_have_defaults():
    model, optimizer = trained_plainly()
    content = {
        "optimizer": optimizer.state_dict(), "best_val_loss": torch.tensor(1e9), "worst_val_loss": "?",
        "metrics": {"val_loss_eval": [(1, 2.5), (2, None), "x", [3, 2.25]], "learning_rate": None},
    }  # fmt: skip
    state = training_state(content, model.state_dict())
    assert (state["best_val_loss"], state["worst_val_loss"]) == (math.inf, -math.inf)
    assert state["metrics"]["val_loss_eval"] == [(1, 2.5), (3, 2.25)] and state["metrics"]["learning_rate"] == []


def test_a_flat_config_gives_the_options_that_this_version_has():
    flat = {
        "dataset": "chat", "learning_rate": 3e-4, "decay_lr": True, "max_epochs": 2, "eval_interval": 5,  # per cent
        "RED": "x", "batch_size": "many", "n_layer": 3, "seed": 5,
    }  # fmt: skip
    sections = flat_config(flat)
    assert sections == {
        "data": {"dataset_name": "chat"}, "optimizer": {"learning_rate": 3e-4}, "scheduler": {"decay_lr": True},
        "training": {"max_epochs": 2}, "system": {"seed": 5},
    }  # fmt: skip
    assert Config.from_dict(sections).optimizer.learning_rate == 3e-4
    assert flat_config(None) == {}
