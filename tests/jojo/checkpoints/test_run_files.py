"""Tests of run_files.py: names, the lock, which checkpoint to go on from, which to keep, saving beside the training."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
import torch
from helpers_run import (
    differences,
    listening,
    metrics_rows,
    settle,
    state_of,
    stop_after,
    train,
    train_plainly,
)

from jojo.checkpoints import saver as saver_module
from jojo.checkpoints.file import read_file, read_stamp, write_file
from jojo.checkpoints.run_files import RunFiles, newest_checkpoint, run_path
from jojo.checkpoints.saver import Saver, in_memory
from utils import UserError


@pytest.fixture(autouse=True)
def workshop(tmp_path, monkeypatch):
    settle(tmp_path, monkeypatch)


def state(batch: int = 1, run_id: str = "0123456789abcdef", value: float = 1.0):
    """As little of a checkpoint as these tests need."""
    return {
        "format_version": 3,
        "model": {"weight": torch.full((4, 4), value)},
        "config": {"model": {}},
        "batch_counter": batch,
        "metadata": {"run_id": run_id},
    }


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


# --- the files of a run -------------------------------------------------------------------------------------------------


def test_run_path_is_named_after_the_data_set_or_as_asked():
    assert run_path(None, "story", 3) == Path("models/story_epoch3.pt")
    assert run_path("here/x.pt", "story", 3) == Path("here/x.pt")
    assert run_path("here/x", "story", 3) == Path("here/x.pt")
    assert run_path("here/v1.5", "story", 3) == Path("here/v1.5.pt")
    assert run_path("~/x.pt", "story", 3) == Path("~/x.pt").expanduser()


def test_the_newest_checkpoint_of_a_folder_is_the_one_written_last(tmp_path):
    with pytest.raises(UserError, match=r"No model in .*python train\.py"):
        newest_checkpoint(tmp_path)
    with pytest.raises(UserError, match="No model in"):
        newest_checkpoint(tmp_path / "none")
    for age, name in enumerate(["new.pt", "a.pt", "z_batch9.pt"]):
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    (tmp_path / ".unfinished.pt").write_bytes(b"")
    (tmp_path / "newer.metrics.jsonl").write_bytes(b"")
    assert newest_checkpoint(tmp_path).name == "new.pt"


def test_the_files_of_a_run_are_found_in_every_form_and_those_of_others_are_not(tmp_path):
    files = RunFiles(tmp_path / "a.pt")
    own = ["a.pt", "a_best.pt", "a.metrics.jsonl", "a.png", "a_batch7.pt", "a_batch12.pt"]
    other = ["b.pt", "a_b.pt", "a_batch.pt", "a_batchX.pt", "a_batch7.pt.bak", "ab_batch7.pt", "a_batchX_batch7.pt"]
    for name in own + other:
        (tmp_path / name).write_bytes(b"")
    assert {path.name for path in files.existing()} == set(own)


def test_making_room_with_nothing_there_does_nothing(tmp_path):
    with listening() as said:
        RunFiles(tmp_path / "none" / "a.pt").make_room("now")
    assert said == [] and not (tmp_path / "none").exists()


def test_a_folder_that_cannot_be_written_is_noticed_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"Cannot write to .*--output_checkpoint"):
        RunFiles(tmp_path / "file" / "a.pt").held().__enter__()


# --- whose they are ---------------------------------------------------------------------------------------------------


def test_a_checkpoint_tells_its_run_and_batch_without_being_read(tmp_path):
    write_file(state(batch=1234567), tmp_path / "x.pt")
    stamp = read_stamp(tmp_path / "x.pt")
    assert (stamp.run_id, stamp.batch) == ("0123456789abcdef", 1234567)


def test_what_has_no_stamp_has_none(tmp_path):
    torch.save({"model": {}}, tmp_path / "old.pt")
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "text.pt").write_text("jojo-run: and so on " * 30)
    for name in ("old.pt", "empty.pt", "text.pt", "missing.pt"):
        assert read_stamp(tmp_path / name) is None


def test_a_resumed_run_keeps_its_identity_and_a_new_one_gets_another(monkeypatch):
    stop_after(monkeypatch, 2)
    train()
    first = read_stamp("models/mine_epoch1.pt")
    stop_after(monkeypatch, None)
    train_plainly("--resume", "models/mine_epoch1.pt")
    assert read_stamp("models/mine_epoch1.pt").run_id == first.run_id
    assert read_stamp("models/mine_epoch1.pt").batch > first.batch == 2
    train()
    assert read_stamp("models/mine_epoch1.pt").run_id != first.run_id


# --- two at once -------------------------------------------------------------------------------------------------------


def test_a_second_run_on_the_same_files_is_refused_and_moves_nothing(tmp_path):
    train("--max_iters", "2")
    before = sorted(path.name for path in Path("models").iterdir())
    with (
        RunFiles(Path("models/mine_epoch1.pt")).held(),
        pytest.raises(UserError, match=r"Another training run is writing 'models/mine_epoch1\.pt'"),
    ):
        train("--max_iters", "2")
    assert sorted(path.name for path in Path("models").iterdir()) == before
    assert train("--max_iters", "2", "--output_checkpoint", "models/other.pt").code == 0


def test_what_a_killed_process_left_of_a_save_is_swept_up():
    folder = Path("models")
    folder.mkdir()
    others = {".other.pt.99.tmp", ".mine_epoch10.pt.99.tmp", ".mine_epoch1_b.pt.99.tmp", ".mine_epoch10.png.99.tmp"}
    own = (".pt", "_batch3.pt", "_best.pt", ".png", "_batch100.png", ".config.json")
    for name in (*(f".mine_epoch1{end}.99.tmp" for end in own), *others):
        (folder / name).write_bytes(b"half")
    train("--max_iters", "1")
    assert {path.name for path in folder.glob(".*.tmp")} == others


# --- going on from the newest ------------------------------------------------------------------------------------------


def test_checkpoints_are_ordered_by_the_batch_in_them_not_by_name_or_time(tmp_path):
    files = RunFiles(tmp_path / "a.pt")
    write_file(state(batch=5), tmp_path / "a.pt")
    write_file(state(batch=9), tmp_path / "a_batch2.pt")
    write_file(state(batch=7), tmp_path / "a_best.pt")
    write_file(state(batch=99, run_id="f" * 16), tmp_path / "a_batch99.pt")  # of another run
    os.utime(tmp_path / "a_batch2.pt", (1, 1))
    assert [path.name for path in files.newest_first()] == ["a_batch2.pt", "a_best.pt", "a.pt"]


def test_resume_falls_back_to_the_newest_checkpoint_that_is_whole(monkeypatch):
    flags = ("--max_iters", "6", "--checkpoint_interval", "2", "--eval_interval", "0")
    train(*flags, "--output_checkpoint", "models/whole.pt")
    stop_after(monkeypatch, 5)
    train(*flags, "--output_checkpoint", "models/broken.pt")
    stop_after(monkeypatch, None)
    damage(Path("models/broken.pt"))
    outcome = train(*flags, "--output_checkpoint", "models/broken.pt", "--resume")
    assert outcome.code == 0
    assert "'models/broken.pt' is damaged" in outcome.said
    assert "Continuing from 'models/broken_batch4.pt' instead." in outcome.said
    for part in ("model", "optimizer", "loader"):
        assert differences(state_of("models/whole.pt")[part], state_of("models/broken.pt")[part]) == []
    assert [row["step"] for row in metrics_rows("models/broken.metrics.jsonl")] == [1, 2, 3, 4, 5, 6]


def test_resume_with_nothing_whole_names_everything_that_is_damaged():
    train("--max_iters", "2", "--checkpoint_interval", "2")
    for path in Path("models").glob("*.pt"):
        damage(path)
    with pytest.raises(UserError, match="No checkpoint of the run 'mine_epoch1' can be read") as refused:
        train("--max_iters", "4", "--resume")
    for name in ("mine_epoch1.pt", "mine_epoch1_batch2.pt", "mine_epoch1_best.pt"):
        assert name in str(refused.value)


# --- keeping -----------------------------------------------------------------------------------------------------------


def test_only_the_newest_numbered_checkpoints_of_this_run_are_kept(tmp_path):
    files = RunFiles(tmp_path / "a.pt")
    for name, batch in (("a_batch1.pt", 30), ("a_batch2.pt", 10), ("a_batch3.pt", 20), ("a.pt", 5), ("a_best.pt", 4)):
        write_file(state(batch=batch), tmp_path / name)
    write_file(state(batch=1, run_id="f" * 16), tmp_path / "a_batch4.pt")
    (tmp_path / "a_batch5.pt").write_bytes(b"a user's own")
    files.prune("0123456789abcdef", keep=2)
    left = {"a_batch1.pt", "a_batch3.pt", "a.pt", "a_best.pt", "a_batch4.pt", "a_batch5.pt"}
    assert {path.name for path in tmp_path.glob("*.pt")} == left


@pytest.mark.parametrize(("keep", "left"), [("2", [6, 8]), ("null", [2, 4, 6, 8])])
def test_keep_checkpoints_is_the_number_kept(keep, left):
    flags = ("--max_iters", "8", "--epochs", "2", "--checkpoint_interval", "2", "--training.keep_checkpoints", keep)
    assert train(*flags).code == 0
    assert sorted(read_stamp(path).batch for path in Path("models").glob("*_batch*.pt")) == left


# --- saving beside the training ----------------------------------------------------------------------------------------


def nothing() -> None:
    """Where nobody trains."""


class SlowDisk:
    """Stands for write_file: waits until it is let go, and remembers what it wrote."""

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
    """Stands for a trainer with one weight."""

    def __init__(self, saver_files) -> None:
        self.state, self.moves = state(value=1.0), 0
        self.saver = Saver(saver_files, keep=None, move=self.move)

    def move(self) -> None:
        self.moves += 1
        weight = self.state["model"]["weight"]
        weight.data = weight.clone()

    def update(self, value: float) -> None:
        self.saver.before_update()
        self.state["model"]["weight"].fill_(value)


def test_what_is_saved_is_the_state_of_that_moment_however_slow_the_disk(tmp_path, disk):
    training = Training(RunFiles(tmp_path / "a.pt"))
    training.saver.save(training.state, [tmp_path / "a.pt"])
    training.update(2.0)
    training.update(3.0)
    disk.go.set()
    training.saver.wait()
    assert disk.written == [("a.pt", 1.0)] and training.moves == 1
    assert training.state["model"]["weight"][0, 0] == 3


def test_nothing_is_copied_in_memory_where_the_disk_is_fast_enough(tmp_path, disk):
    training = Training(RunFiles(tmp_path / "a.pt"))
    address = training.state["model"]["weight"].data_ptr()
    disk.go.set()
    training.saver.save(training.state, [tmp_path / "a_best.pt", tmp_path / "a.pt"])
    training.saver.wait()
    training.update(2.0)
    assert training.moves == 0 and training.state["model"]["weight"].data_ptr() == address
    assert disk.written == [("a_best.pt", 1.0)]  # once: the other is a copy of the file
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "a_best.pt").read_bytes()


def refuse(monkeypatch, function: str, names: set[str]) -> None:
    """run_files' `function` (of what to write, and the path) fails where the path has one of these names."""
    real = getattr(saver_module, function)

    def refusing(content, path):
        if path.name in names:
            raise UserError(f"Could not save '{path}'.")
        real(content, path)

    monkeypatch.setattr(saver_module, function, refusing)


@pytest.mark.parametrize(("function", "first"), [("write_file", "a_best.pt"), ("copy_file", "a.pt")])
def test_a_save_that_fails_is_tried_again_as_it_was(tmp_path, monkeypatch, function, first):
    training, refused = Training(RunFiles(tmp_path / "a.pt")), {"a_best.pt"}
    refuse(monkeypatch, function, refused)
    training.saver.save(
        training.state, sorted((tmp_path / "a_best.pt", tmp_path / "a.pt"), key=lambda p: p.name != first)
    )
    training.saver.wait()
    assert training.saver.failed == [tmp_path / "a_best.pt"]
    training.saver.save(training.state, [tmp_path / "a.pt"])  # before the next update: the same tensors
    training.saver.wait()
    training.update(2.0)
    refused.clear()
    training.saver.save(training.state, [tmp_path / "a.pt"])
    training.saver.wait()
    assert not training.saver.failed
    assert [read_file(tmp_path / name)["model"]["weight"][0, 0] for name in ("a_best.pt", "a.pt")] == [1, 2]


def test_training_that_moves_away_from_every_save_learns_the_same(monkeypatch):
    flags = ("--max_iters", "6", "--checkpoint_interval", "1", "--eval_interval", "2")
    before_update = saver_module.Saver.before_update

    def always(saver):
        saver._shares_training_tensors = True
        before_update(saver)

    train(*flags, "--output_checkpoint", "models/plain.pt")
    monkeypatch.setattr(saver_module.Saver, "before_update", always)
    train(*flags, "--output_checkpoint", "models/moved.pt")
    for suffix in ("", "_best", "_batch1", "_batch4"):
        plain, moved = (read_file(Path(f"models/{name}{suffix}.pt")) for name in ("plain", "moved"))
        for part in ("model", "optimizer"):
            assert differences(plain[part], moved[part]) == []


def test_saves_come_one_after_another_and_none_is_dropped(tmp_path, disk):
    saver = Saver(RunFiles(tmp_path / "a.pt"), keep=None, move=nothing)
    saver.save(state(value=1.0), [tmp_path / "a_batch1.pt", tmp_path / "a.pt"])
    second = threading.Thread(target=saver.save, args=(state(value=2.0), [tmp_path / "a.pt"]))
    second.start()
    second.join(0.2)
    assert second.is_alive() and disk.written == []  # it waits for the one in flight
    disk.go.set()
    second.join(10)
    saver.close()
    assert disk.written == [("a_batch1.pt", 1.0), ("a.pt", 2.0)]


def test_a_failed_save_is_loud_and_forgotten_once_one_succeeds(tmp_path, disk):
    saver = Saver(RunFiles(tmp_path / "a.pt"), keep=None, move=nothing)
    disk.go.set()
    disk.error = UserError("The disk is full.")
    with listening() as said:
        saver.save(state(), [tmp_path / "a.pt"])
        saver.wait()
    assert saver.failed and "The disk is full." in said[0]
    disk.error = None
    saver.save(state(), [tmp_path / "a.pt"])
    saver.wait()
    assert not saver.failed


@pytest.mark.parametrize("fails_at", [2, 4])
def test_a_run_whose_last_save_failed_exits_with_an_error(monkeypatch, fails_at):
    write = saver_module.write_file

    def sometimes(state, path):
        if state["batch_counter"] == fails_at:
            raise UserError(f"Could not save '{path}' (No space left on device); make room.")
        write(state, path)

    monkeypatch.setattr(saver_module, "write_file", sometimes)
    outcome = train("--max_iters", "4", "--checkpoint_interval", "1", "--eval_interval", "0")
    assert "No space left on device" in outcome.said and "Training goes on" in outcome.said
    assert outcome.code == (1 if fails_at == 4 else 0)
    assert ("Not saved after batch 4: " in outcome.said) == (fails_at == 4)
    kept = {read_stamp(path).batch for path in Path("models").glob("*_batch*.pt")}
    assert kept == {1, 2, 3, 4} - {fails_at}


def test_a_copy_shares_nothing_with_the_original_and_ties_what_was_tied():
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


def test_without_a_copy_only_the_tensors_are_shared():
    weight = torch.arange(6.0)
    original = {"model": {"in": weight, "out": weight}, "points": [1]}
    same = in_memory(original, copy=False)
    original["points"].append(2)
    weight.zero_()
    assert same["points"] == [1] and same["model"]["in"].sum() == 0
    weight.data = torch.ones(6)  # the training goes on elsewhere
    assert same["model"]["in"].sum() == 0
