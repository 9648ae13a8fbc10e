"""Tests of continuing a run: from an earlier checkpoint, under another name, with changed options or reset counters."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from helpers_run import (
    TINY,
    differences,
    listening,
    make_trainer,
    metrics_rows,
    save_as_2x,
    settle,
    snapshot,
    state_of,
    stop_after,
    train,
    train_plainly,
)

from jojo.checkpoints import checkpoint, run_files
from jojo.checkpoints.file import read_stamp, write_file
from trainer import Trainer
from training.flags import Request
from training.run import prepare_run
from utils import UserError


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    settle(tmp_path, monkeypatch)


def training(path):
    """The parts of a checkpoint that are equal when two runs trained the same."""
    return {name: state_of(path)[name] for name in ("model", "optimizer", "loader", "batch_counter")}


def test_a_copied_checkpoint_continues_with_all_metrics_of_its_run():
    """docs/checkpoints.md suggests such a copy."""
    train("--max_iters", "3", "--eval_interval", "2", "--output_checkpoint", "models/x.pt")
    rows = metrics_rows("models/x.metrics.jsonl", clock=True)
    Path("models/keep.pt").write_bytes(Path("models/x.pt").read_bytes())
    train_plainly("--resume", "models/keep.pt", "--max_iters", "5")
    assert metrics_rows("models/x.metrics.jsonl", clock=True)[:3] == rows
    train("--max_iters", "4", "--output_checkpoint", "models/x.pt", "--seed", "2")  # rows of another run
    said = train_plainly("--resume", "models/keep.pt", "--max_iters", "4").said
    assert "3 rows of 'models/x.metrics.jsonl' were missing or damaged; 3 were rebuilt" in said
    now = metrics_rows("models/x.metrics.jsonl")
    values = [[row.get(name) for name in ("step", "loss", "lr", "val_loss")] for row in rows]
    assert [[row.get(name) for name in ("step", "loss", "lr", "val_loss")] for row in now[:3]] == values
    assert now[3]["step"] == 4


def test_a_run_measured_in_batches_that_gets_epochs_is_told_how_to_train_as_long_again():
    train("--max_iters", "3")
    said = train_plainly("--checkpoint", "models/mine_epoch1.pt", "--epochs", "2").said
    assert "22 batches long instead of 3" in said and "use --max_iters 6 instead of --epochs" in said


@pytest.mark.parametrize("flag", ["--resume", "--load_model_only"])
def test_a_damaged_checkpoint_is_refused_with_the_name_of_an_undamaged_one_of_its_run(flag):
    train(
        "--max_iters", "5", "--checkpoint_interval", "2", "--eval_interval", "0", "--output_checkpoint", "models/a.pt"
    )
    train("--max_iters", "6", "--output_checkpoint", "models/a-2.pt")
    for name in ("a.pt", "a_best.pt"):
        content = bytearray(Path("models", name).read_bytes())
        content[len(content) // 2] ^= 1
        Path("models", name).write_bytes(content)
    with pytest.raises(UserError, match=r"a\.pt' is damaged .* 'models/a_batch4\.pt' of the same run is undamaged\.$"):
        train_plainly(flag, "models/a.pt")


# --- from an earlier checkpoint -------------------------------------------------------------------------------------


def test_continuing_from_an_earlier_checkpoint_moves_later_ones_aside_with_their_metrics():
    train("--max_iters", "6", "--checkpoint_interval", "2", "--eval_interval", "3")
    before = snapshot("models")
    said = train_plainly("--resume", "models/mine_epoch1_batch2.pt", "--max_iters", "3", "--allow_changes").said
    assert "Moved the checkpoints of later batches than 2 to models/old/mine_epoch1-" in said
    moved = {Path(name).name: content for name, content in snapshot("models/old").items()}
    later = {"mine_epoch1.pt", "mine_epoch1_best.pt", "mine_epoch1_batch4.pt", "mine_epoch1_batch6.pt"}
    assert set(moved) == later | {"mine_epoch1.metrics.jsonl"}
    assert all(moved[name] == before[name] for name in moved)
    assert [row["step"] for row in metrics_rows("models/mine_epoch1.metrics.jsonl")] == [1, 2, 3]
    assert Path("models/mine_epoch1_batch2.pt").read_bytes() == before["mine_epoch1_batch2.pt"]


def test_a_run_that_continued_from_an_earlier_checkpoint_resumes_its_new_batches(monkeypatch):
    train("--max_iters", "6", "--checkpoint_interval", "1", "--training.keep_checkpoints", "3")
    stop_after(monkeypatch, 5)
    flags = ("--learning_rate", "0.001", "--allow_changes")
    assert train_plainly("--resume", "models/mine_epoch1_batch4.pt", *flags).code == 130
    stop_after(monkeypatch, None)
    assert "batch 5 of models/mine_epoch1" in train("--resume", *flags, "--max_iters", "6").said
    kept = {read_stamp(path).batch for path in Path("models").glob("*_batch*.pt")}
    assert kept == {4, 5, 6}


def test_continuing_from_the_newest_checkpoint_moves_nothing(monkeypatch):
    stop_after(monkeypatch, 3)
    train("--max_iters", "5", "--checkpoint_interval", "1")
    stop_after(monkeypatch, None)
    train("--max_iters", "5", "--resume")
    assert not Path("models/old").exists()


def test_a_checkpoint_that_another_run_replaced_during_the_start_is_refused(monkeypatch):
    stop_after(monkeypatch, 2)
    train("--max_iters", "4")
    run = prepare_run(Request(continue_from="models/mine_epoch1.pt"))  # this run is about to start
    stop_after(monkeypatch, None)
    train_plainly("--resume", "models/mine_epoch1.pt")  # another process trains to the end
    before = snapshot("models")
    with pytest.raises(UserError, match=r"Another run replaced .* while this one started; start again"):
        Trainer(run).train()
    assert snapshot("models") == before


# --- under another name ---------------------------------------------------------------------------------------------


def test_continuing_under_another_name_makes_a_new_run_with_all_metrics_so_far(monkeypatch):
    stop_after(monkeypatch, 3)
    train("--max_iters", "6", "--eval_interval", "2", "--output_checkpoint", "models/a.pt")
    first = snapshot("models")
    stop_after(monkeypatch, None)
    train_plainly("--resume", "models/a.pt", "--output_checkpoint", "models/b.pt")
    assert {name: content for name, content in snapshot("models").items() if name.startswith("a")} == first
    assert [row["step"] for row in metrics_rows("models/b.metrics.jsonl")] == [1, 2, 3, 4, 5, 6]
    assert state_of("models/a.pt")["metadata"]["run_id"] != state_of("models/b.pt")["metadata"]["run_id"]
    train("--max_iters", "6", "--eval_interval", "2", "--output_checkpoint", "models/whole.pt")
    assert differences(training("models/whole.pt"), training("models/b.pt")) == []
    assert metrics_rows("models/whole.metrics.jsonl") == metrics_rows("models/b.metrics.jsonl")


def test_a_run_under_another_name_is_saved_before_its_first_batch(monkeypatch):
    stop_after(monkeypatch, 3)
    train("--max_iters", "6", "--output_checkpoint", "models/a.pt")
    stop_after(monkeypatch, None)

    class PowerCut(BaseException):
        pass

    def cut(self, batch):
        raise PowerCut

    monkeypatch.setattr(Trainer, "step", cut)
    with pytest.raises(PowerCut):
        train_plainly("--resume", "models/a.pt", "--output_checkpoint", "models/b.pt")
    assert differences(training("models/a.pt"), training("models/b.pt")) == []


@pytest.mark.parametrize("name", ["x_best.pt", "x_batch12.pt", "x_best", "x_batch3"])
def test_an_output_name_that_looks_like_another_runs_checkpoint_is_refused(name):
    with pytest.raises(UserError, match="other checkpoints; choose another name"):
        run_files.run_path(f"models/{name}", "mine", 1)
    assert run_files.run_path("models/x_batch.pt", "mine", 1) == Path("models/x_batch.pt")
    assert run_files.run_path("models/bestest.pt", "mine", 1) == Path("models/bestest.pt")


def test_an_older_checkpoint_of_the_same_name_is_moved_aside():
    train("--max_iters", "2", "--data.tokenizer", "gpt2")
    save_as_2x(state_of("models/mine_epoch1.pt"), Path("models/mine_epoch1.pt"))
    before = Path("models/mine_epoch1.pt").read_bytes()
    assert train_plainly("--checkpoint", "models/mine_epoch1.pt", "--max_iters", "3").code == 0
    assert before in snapshot("models/old").values()
    assert state_of("models/mine_epoch1.pt")["batch_counter"] == 3


# --- with changed options -------------------------------------------------------------------------------------------


def test_a_refused_change_is_reported_with_what_it_affects(monkeypatch):
    stop_after(monkeypatch, 2)
    train("--max_iters", "6")
    flags = ("--batch_size", "4", "--seed", "7", "--model.dropout", "0.1", "--learning_rate", "0.5")
    with pytest.raises(UserError) as error:
        train_plainly("--resume", "models/mine_epoch1.pt", *flags)
    for words in (
        "batch_size 2 -> 4 (batches have other sequences; the position in the epoch is kept)",
        "seed 1337 -> 7 (data order and dropout change)",
        "dropout 0.0 -> 0.1 (dropout leaves out other activations)",
        "learning_rate 0.01 -> 0.5 (the updates change)",
    ):
        assert words in str(error.value)
    with open("data/mine-train.jsonl", "a") as file:
        file.write('{"text": "One more story."}\n')
    with pytest.raises(UserError, match=r"mine-train \w+ -> mine-train \w+ \(the rest of the epoch has other text\)"):
        train_plainly("--resume", "models/mine_epoch1.pt")


@pytest.mark.parametrize(("size", "position", "total"), [("4", 2, 8), ("1", 10, 23)])
def test_another_batch_size_keeps_the_position_in_the_data_and_the_number_of_epochs(monkeypatch, size, position, total):
    """After 5 of 11 batches of 2 rows (22 rows of 16 tokens in all): 10 rows are done, two and a half batches of 4."""
    stop_after(monkeypatch, 5)
    train("--epochs", "1")
    assert state_of("models/mine_epoch1.pt")["loader"] == {"epoch": 0, "position": 5}
    flags = [("--batch_size", "training.batch_size", int(size))]
    run = prepare_run(Request(continue_from="models/mine_epoch1.pt", overrides=flags, allow_changes=True))
    n_rows = run.loader().n_rows
    assert (run.start.epoch, run.start.position, run.start.batches_done) == (0, position, 5)
    left = -(-(n_rows - position * int(size)) // int(size))
    assert run.plan.total_batches == 5 + left
    stop_after(monkeypatch, None)
    assert Trainer(run).train() == 0
    assert state_of("models/mine_epoch1.pt")["loader"] == {"epoch": 1, "position": 0}


def test_another_dtype_starts_with_a_new_loss_scale(monkeypatch):
    trainer = make_trainer()
    state = trainer.state_dict()
    assert state["scaler"] == {}
    trainer.scaler = torch.amp.GradScaler("cpu", enabled=True)
    trainer.load_state_dict(state)  # float16 now; the state has no loss scale


def test_another_machine_is_reported_because_it_may_round_differently(monkeypatch):
    stop_after(monkeypatch, 2)
    train("--max_iters", "4")
    with listening() as said:
        prepare_run(Request(continue_from="models/mine_epoch1.pt"))
    assert not [line for line in said if "differ in the last digits" in line]
    monkeypatch.setattr(checkpoint.torch, "get_num_threads", lambda: 64)
    with listening() as said:
        prepare_run(Request(continue_from="models/mine_epoch1.pt"))
    (line,) = [line for line in said if "differ in the last digits" in line]
    assert re.fullmatch(r"Resumed with 64 threads instead of \d+: results may differ in the last digits\.", line)


# --- reset counters -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [("--checkpoint", "models/mine_epoch1.pt"), ("--resume",)])
def test_reset_epoch_moves_the_earlier_run_aside(flags):
    train("--max_iters", "4")
    before = Path("models/mine_epoch1.pt").read_bytes()
    outcome = train(*flags, "--reset_epoch", "--max_iters", "2")
    assert outcome.code == 0 and "counting from zero" in outcome.said
    assert before in snapshot("models/old").values()
    assert [row["step"] for row in metrics_rows("models/mine_epoch1.metrics.jsonl")] == [1, 2]
    assert state_of("models/mine_epoch1.pt")["batch_counter"] == 2


@pytest.mark.parametrize("flags", [(), ("--load_model_only", "models/mine_epoch1.pt")])
def test_reset_epoch_without_a_checkpoint_to_continue_from_is_refused(flags):
    train("--max_iters", "1")
    with pytest.raises(UserError, match="--reset_epoch needs a checkpoint to continue from"):
        train_plainly(*TINY, *flags, "--reset_epoch")


# --- NaN and infinity -----------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_names_the_documents_by_line_and_first_words():
    train("--max_iters", "2")
    spoiled = state_of("models/mine_epoch1.pt")
    for tensor in spoiled["model"].values():
        tensor.mul_(float("inf")).nan_to_num_(nan=0.0, posinf=3e38, neginf=-3e38)
    write_file(spoiled, Path("models/mine_epoch1.pt"))
    with pytest.raises(UserError) as error:
        train_plainly("--resume", "models/mine_epoch1.pt", "--max_iters", "4")
    text = str(error.value)
    assert "batch 3 is not finite" in text and "--learning_rate" in text
    shown = re.findall(r"(\d+) \('(Number (\d+)[^']*)' \.\.\.\)", text)
    assert shown and all(int(line) == int(number) + 1 for line, _, number in shown)
