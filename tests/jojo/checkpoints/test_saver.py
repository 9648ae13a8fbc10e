"""Tests of checkpoints/saver.py: saving while training continues, and saves that fail."""

from __future__ import annotations

import threading

import pytest
import torch
from helpers_run import differences, listening, settle, train

from jojo.checkpoints import saver as saver_module
from jojo.checkpoints.file import read_file, read_stamp
from jojo.checkpoints.run_files import RunFiles
from jojo.checkpoints.saver import Saver, in_memory
from utils import UserError


@pytest.fixture(autouse=True)
def workshop(tmp_path, monkeypatch):
    settle(tmp_path, monkeypatch)


@pytest.fixture
def files(tmp_path) -> RunFiles:
    return RunFiles(tmp_path / "a.pt")


def state(value: float = 1.0, batch: int = 1):
    """The part of a checkpoint that these tests need."""
    metadata = {"run_id": "0123456789abcdef"}
    return {"model": {"weight": torch.full((4, 4), value)}, "batch_counter": batch, "metadata": metadata}


class SlowDisk:
    """Replaces write_file: waits until `go` is set, and records each write."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.written: list[tuple[str, float]] = []
        self.error: UserError | None = None

    def __call__(self, state, path) -> None:
        assert self.go.wait(10)
        if self.error:
            raise self.error
        self.written.append((path.name, state["model"]["weight"][0, 0].item()))
        path.write_bytes(b"x")


@pytest.fixture
def disk(monkeypatch) -> SlowDisk:
    slow = SlowDisk()
    monkeypatch.setattr(saver_module, "write_file", slow)
    return slow


class Training:
    """Replaces a trainer; it has one weight."""

    def __init__(self, files: RunFiles) -> None:
        self.state, self.moves = state(value=1.0), 0
        self.saver = Saver(files, keep=None, move=self.move)

    def move(self) -> None:
        self.moves += 1
        weight = self.state["model"]["weight"]
        weight.data = weight.clone()

    def update(self, value: float) -> None:
        self.saver.before_update()
        self.state["model"]["weight"].fill_(value)


@pytest.fixture
def training(files) -> Training:
    return Training(files)


# --- while training continues -----------------------------------------------------------------------------------------


def test_a_slow_save_writes_the_state_from_when_it_began(training, files, disk):
    training.saver.save(training.state, [files.last])
    training.update(2.0)
    training.update(3.0)
    disk.go.set()
    training.saver.wait()
    assert disk.written == [("a.pt", 1.0)] and training.moves == 1
    assert training.state["model"]["weight"][0, 0] == 3


def test_nothing_is_copied_in_memory_if_the_save_ends_before_the_update(training, files, disk):
    address = training.state["model"]["weight"].data_ptr()
    disk.go.set()
    training.saver.save(training.state, [files.best, files.last])
    training.saver.wait()
    training.update(2.0)
    assert training.moves == 0 and training.state["model"]["weight"].data_ptr() == address
    assert disk.written == [("a_best.pt", 1.0)]  # written once; the last one is a copy of the file
    assert files.last.read_bytes() == files.best.read_bytes()


def test_training_in_a_copy_during_every_save_gives_the_same_weights(monkeypatch, tmp_path):
    flags = ("--max_iters", "6", "--checkpoint_interval", "1", "--eval_interval", "2")
    before_update = Saver.before_update

    def always(saver):
        saver._shares_training_tensors = True
        before_update(saver)

    train(*flags, "--output_checkpoint", "models/plain.pt")
    monkeypatch.setattr(Saver, "before_update", always)
    train(*flags, "--output_checkpoint", "models/moved.pt")
    for suffix in ("", "_best", "_batch1", "_batch4"):
        plain, moved = (read_file(tmp_path / f"models/{name}{suffix}.pt") for name in ("plain", "moved"))
        for part in ("model", "optimizer"):
            assert differences(plain[part], moved[part]) == []


def test_saves_run_one_after_another_and_all_are_written(training, files, disk):
    saver = training.saver
    saver.save(state(value=1.0), [files.numbered(1), files.last])
    second = threading.Thread(target=saver.save, args=(state(value=2.0), [files.last]))
    second.start()
    second.join(0.2)
    assert second.is_alive() and disk.written == []  # it waits for the running save
    disk.go.set()
    second.join(10)
    saver.wait()
    assert disk.written == [("a_batch1.pt", 1.0), ("a.pt", 2.0)]


def test_the_metrics_are_on_the_disk_before_the_checkpoint(training, files, monkeypatch):
    order = []
    monkeypatch.setattr(saver_module, "make_durable", lambda path: order.append(path))
    monkeypatch.setattr(saver_module, "write_file", lambda state, path: order.append(path))
    training.saver.save(training.state, [files.last])
    training.saver.wait()
    assert order == [files.metrics, files.last]


# --- saves that fail --------------------------------------------------------------------------------------------------


def refuse(monkeypatch, function: str, names: set[str]) -> None:
    """Let write_file or copy_file in saver.py fail for paths with one of these names."""
    real = getattr(saver_module, function)

    def refusing(content, path):
        if path.name in names:
            raise UserError(f"Could not save '{path}'.")
        real(content, path)

    monkeypatch.setattr(saver_module, function, refusing)


@pytest.mark.parametrize(("function", "order"), [("write_file", ("best", "last")), ("copy_file", ("last", "best"))])
def test_a_best_model_that_could_not_be_saved_is_saved_later_unchanged(training, files, monkeypatch, function, order):
    refused = {"a_best.pt"}
    refuse(monkeypatch, function, refused)
    training.saver.save(training.state, [getattr(files, kind) for kind in order])
    training.saver.wait()
    assert training.saver.failed == [files.best]
    training.saver.save(training.state, [files.last])  # before an update, so both saves share the tensors
    training.saver.wait()
    training.update(2.0)
    refused.clear()
    training.saver.save(training.state, [files.last])
    training.saver.wait()
    assert not training.saver.failed
    assert [read_file(path)["model"]["weight"][0, 0] for path in (files.best, files.last)] == [1, 2]


def test_only_the_newest_failed_numbered_save_stays_in_memory(training, files, monkeypatch):
    def full(state, path):
        raise UserError("The disk is full.")

    monkeypatch.setattr(saver_module, "write_file", full)
    for batch in range(1, 6):
        training.saver.save(state(batch=batch), [files.numbered(batch), files.last])
    training.saver.wait()
    assert training.saver.failed == [files.numbered(5), files.last]


def test_a_failed_save_prints_an_error_and_counts_until_one_succeeds(training, files, disk):
    disk.go.set()
    disk.error = UserError("The disk is full.")
    with listening() as said:
        training.saver.save(state(), [files.last])
        training.saver.wait()
    assert training.saver.failed and "The disk is full." in said[0]
    disk.error = None
    training.saver.save(state(), [files.last])
    training.saver.wait()
    assert not training.saver.failed


@pytest.mark.parametrize("fails_at", [2, 4])
def test_a_run_whose_last_save_failed_exits_with_an_error(monkeypatch, tmp_path, fails_at):
    write = saver_module.write_file

    def sometimes(state, path):
        if state["batch_counter"] == fails_at:
            raise UserError(f"Could not save '{path}' (No space left on device); make room.")
        write(state, path)

    monkeypatch.setattr(saver_module, "write_file", sometimes)
    outcome = train("--max_iters", "4", "--checkpoint_interval", "1", "--eval_interval", "0")
    assert "No space left on device" in outcome.said and "Training continues" in outcome.said
    assert outcome.code == (1 if fails_at == 4 else 0)
    assert ("Not saved after batch 4: " in outcome.said) == (fails_at == 4)
    kept = {read_stamp(path).batch for path in (tmp_path / "models").glob("*_batch*.pt")}
    assert kept == {1, 2, 3, 4} - {fails_at}


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_never_saved(training, files, bad):
    training.saver.save(training.state, [files.last])
    training.saver.wait()
    before = files.last.read_bytes()
    training.update(2.0)
    training.state["model"]["weight"][2, 3] = bad
    training.saver.save(training.state, [files.last])
    with pytest.raises(UserError, match="'weight' is not finite"):
        training.saver.wait()
    assert files.last.read_bytes() == before


# --- copies -----------------------------------------------------------------------------------------------------------


def test_a_copy_shares_no_memory_with_the_original_and_tied_weights_stay_tied():
    weight = torch.arange(6.0).view(2, 3)
    original = {
        "model": {"in": weight, "out": weight, "view": weight[0]},
        "points": [(1, 2.0)],
        "name": "x",
        "none": None,
    }
    copy = in_memory(original, copy=True)
    assert differences(copy, original) == []
    assert copy["model"]["in"].data_ptr() == copy["model"]["out"].data_ptr() != weight.data_ptr()
    original["points"].append((2, 3.0))
    weight.zero_()
    assert copy["model"]["in"].sum() == 15 and copy["model"]["view"].sum() == 3 and copy["points"] == [(1, 2.0)]


def test_without_copy_only_tensors_are_shared():
    weight = torch.arange(6.0)
    original = {"model": {"in": weight, "out": weight}, "points": [1]}
    same = in_memory(original, copy=False)
    original["points"].append(2)
    weight.zero_()
    assert same["points"] == [1] and same["model"]["in"].sum() == 0
    weight.data = torch.ones(6)  # training continues in other memory
    assert same["model"]["in"].sum() == 0
