"""Tests of a run that is resumed with another length: what its learning rate does, and that it can be interrupted."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from helpers_run import TINY, differences, metrics_rows, settle, state_of, stop_after, train, train_plainly

from jojo.schedule import Schedule

FLAGS = ("--scheduler.warmup_fraction", "0.2", "--eval_interval", "0")  # peak 0.01, floor 0.001
PARTS = "models/parts.pt"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    settle(tmp_path, monkeypatch)


def cosine(batch, total):
    """The rate of a batch in a run of `total` batches, a fifth of which are its warm-up."""
    warmup = total // 5
    if batch < warmup:
        return 0.01 * (batch + 1) / (warmup + 1)
    return 0.001 + 0.009 * 0.5 * (1 + math.cos(math.pi * (batch - warmup) / (total - warmup)))


def assert_rates(old_length, done, length):
    rates = [row["lr"] for row in metrics_rows("models/mine_epoch1.metrics.jsonl")]
    assert rates == pytest.approx([cosine(batch, old_length if batch < done else length) for batch in range(length)])


def training(path):
    """The contents of a checkpoint, without metadata, config and the list of derived options."""
    return {name: part for name, part in state_of(path).items() if name not in ("metadata", "config", "derived")}


def test_a_finished_run_that_gets_longer_follows_the_longer_schedule_and_says_so():
    train(*FLAGS, "--max_iters", "10")
    said = train_plainly("--resume", "models/mine_epoch1.pt", "--max_iters", "30").said
    rates = "cosine from 0.0094 to 0.001 at batch 30"
    assert f"30 batches long instead of 10. Its learning rate from here on: {rates}.\nThe loss rises" in said
    assert f"learning rate {rates}\n" in said and "--resume models/mine" not in said
    assert_rates(10, 10, 30)


@pytest.mark.parametrize("flags", [("--scheduler.lr_decay_iters", "8"), ("--scheduler.decay_lr", "false")])
def test_a_rate_that_does_not_change_raises_no_loss(flags):
    train(*FLAGS, *flags, "--max_iters", "10")
    said = train_plainly("--resume", "models/mine_epoch1.pt", "--max_iters", "12").said
    assert "12 batches long instead of 10" in said and "The loss rises" not in said
    rates = [row["lr"] for row in metrics_rows("models/mine_epoch1.metrics.jsonl")]
    assert rates[8:] == [rates[9]] * 4


@pytest.mark.parametrize("length", [13, 60])
def test_an_unfinished_run_that_gets_another_length_follows_its_schedule(monkeypatch, length):
    stop_after(monkeypatch, 8)
    train(*FLAGS, "--max_iters", "20")
    stop_after(monkeypatch, None)
    said = train_plainly("--resume", "models/mine_epoch1.pt", "--max_iters", str(length)).said
    assert f"{length} batches long instead of 20" in said and "The loss rises" not in said
    assert ("4 batches of warm-up, then cosine from 0.01 " in said) == (length == 60)  # 12 in all, 8 are done
    assert_rates(20, 8, length)


def test_the_description_begins_where_a_run_is_resumed():
    schedule = Schedule("wsd", peak=0.01, floor=0.001, warmup=5, cooldown_start=80, decay_end=100)
    last = "wsd from 0.01 to 0.001 at batch 100"
    assert schedule.describe(100, 2) == f"3 batches of warm-up, then 0.01 until batch 80, {last}"
    assert schedule.describe(100, 5) == schedule.describe(100, 79) == f"0.01 until batch 80, {last}"
    assert schedule.describe(100, 80) == last
    assert schedule.describe(100, 90) == "wsd from 0.0055 to 0.001 at batch 100"
    assert schedule.describe(130, 100) == "0.001 throughout"
    assert replace(schedule, decays=False).describe(130, 100) == "0.01 throughout"


@pytest.mark.parametrize("stop", [3, 6, 12], ids=["before it got longer", "in the first batch after", "later"])
@pytest.mark.parametrize(("optimizer", "dtype"), [("adamw", "float32"), ("muon", "bfloat16")])
def test_a_longer_run_that_was_interrupted_ends_as_if_it_never_stopped(monkeypatch, stop, optimizer, dtype):
    """5 batches, then 11 more."""
    flags = (*FLAGS, "--optimizer.kind", optimizer, "--dtype", dtype, "--model.dropout", "0.1", "--max_iters", "5")
    train(*flags, "--output_checkpoint", "models/whole.pt")
    train_plainly("--resume", "models/whole.pt", "--max_iters", "16")
    codes = []
    for command in ((*TINY, *flags, "--output_checkpoint", PARTS), ("--resume", PARTS, "--max_iters", "16")):
        stop_after(monkeypatch, stop)
        codes.append(train_plainly(*command).code)
        stop_after(monkeypatch, None)
        if codes[-1]:
            assert train_plainly("--resume", PARTS).code == 0  # the command that the stopped run printed
    assert sorted(codes) == [0, 130]
    assert differences(training("models/whole.pt"), training(PARTS)) == []
    assert metrics_rows("models/whole.metrics.jsonl") == metrics_rows("models/parts.metrics.jsonl")


def test_more_epochs_and_more_batches_give_the_same_run():
    train(*FLAGS, "--output_checkpoint", "models/a.pt")
    length = str(3 * state_of("models/a.pt")["batch_counter"])
    train_plainly("--resume", "models/a.pt", "--epochs", "3", "--output_checkpoint", "models/epochs.pt")
    train_plainly("--resume", "models/a.pt", "--max_iters", length, "--output_checkpoint", "models/batches.pt")
    assert differences(training("models/epochs.pt"), training("models/batches.pt")) == []


WSD = ("--scheduler.kind", "wsd", "--scheduler.warmup_iters", "3", "--eval_interval", "0")


def test_a_finished_wsd_run_that_gets_longer_is_the_run_that_was_planned_so_long():
    train(*WSD, "--max_iters", "30", "--output_checkpoint", "models/planned.pt")
    train(*WSD, "--max_iters", "15", "--output_checkpoint", "models/a.pt")
    assert [path.name for path in Path("models").glob("a_batch*")] == ["a_batch12.pt"]
    said = train_plainly("--resume", "models/a.pt", "--max_iters", "30").said
    assert (
        "no cool-down at batch 12: it continues from 'models/a_batch12.pt'.\n" in said and "The loss rises" not in said
    )
    assert "from here on: 0.01 until batch 24, wsd from 0.01 to 0.001 at batch 30.\n" in said
    assert differences(training("models/planned.pt"), training("models/a.pt")) == []
    rows = [metrics_rows(f"models/{name}.metrics.jsonl") for name in ("planned", "a")]
    assert rows[0] == rows[1]


def test_without_the_model_before_the_cooldown_a_longer_wsd_run_continues_from_its_end():
    train(*WSD, "--max_iters", "15", "--output_checkpoint", "models/a.pt")
    earlier = Path("models/a_batch12.pt")
    earlier.write_bytes(earlier.read_bytes()[:-9])
    said = train_plainly("--resume", "models/a.pt", "--max_iters", "30").said
    assert "The loss rises with the learning rate" in said and "continues from" not in said
    rates = [row["lr"] for row in metrics_rows("models/a.metrics.jsonl")]
    assert rates[14] < rates[15] == 0.01


def test_under_another_name_a_longer_wsd_run_continues_from_its_end():
    train(*WSD, "--max_iters", "15", "--output_checkpoint", "models/a.pt")
    train_plainly("--resume", "models/a.pt", "--max_iters", "30", "--output_checkpoint", "models/b.pt")
    rates = [row["lr"] for row in metrics_rows("models/b.metrics.jsonl")]
    assert rates[14] < rates[15] == 0.01
