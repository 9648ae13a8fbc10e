"""Tests of checkpoints/run_files.py: names, the lock, which checkpoint to continue from, which to keep."""

from __future__ import annotations

import os
from contextlib import closing
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

from jojo.checkpoints.file import read_stamp, write_file
from jojo.checkpoints.run_files import RunFiles, newest_checkpoint, run_path
from jojo.metrics import MetricsFile
from utils import UserError


@pytest.fixture(autouse=True)
def workshop(tmp_path, monkeypatch):
    settle(tmp_path, monkeypatch)


def state(batch: int = 1, run_id: str = "0123456789abcdef", value: float = 1.0):
    """The part of a checkpoint that these tests need."""
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
    (tmp_path / "folder.pt").mkdir()
    (tmp_path / "dangling.pt").symlink_to("nowhere")
    assert newest_checkpoint(tmp_path).name == "new.pt"


def test_of_the_checkpoints_of_one_save_the_newest_is_the_last_of_the_run(tmp_path):
    for name, batch in (("a.pt", 5), ("a_batch5.pt", 5), ("a_best.pt", 5)):
        write_file(state(batch=batch), tmp_path / name)
    assert newest_checkpoint(tmp_path).name == "a.pt"
    write_file(state(batch=6), tmp_path / "a_best.pt")
    assert newest_checkpoint(tmp_path).name == "a_best.pt"


def test_all_files_of_a_run_are_found_and_no_files_of_other_runs(tmp_path):
    files = RunFiles(tmp_path / "a.pt")
    own = ["a.pt", "a_best.pt", "a.metrics.jsonl", "a.png", "a_batch7.pt", "a_batch12.pt"]
    other = [
        "a-2.pt",
        "b.pt",
        "a_b.pt",
        "a_batch.pt",
        "a_batchX.pt",
        "a_batch7.pt.bak",
        "ab_batch7.pt",
        "a_batchX_batch7.pt",
    ]
    for name in own + other:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "a.config.json").symlink_to("elsewhere")  # must not be written through
    with listening() as said:
        files.make_room("now")
    assert {path.name for path in tmp_path.glob("*.*")} == set(other)
    assert {path.name for path in (tmp_path / "old/a-now").iterdir()} == {*own, "a.config.json"}
    assert said[0].endswith(f"To keep both here, use --output_checkpoint {tmp_path}/a-3.pt.")


def test_without_an_earlier_run_make_room_does_nothing(tmp_path):
    with listening() as said:
        RunFiles(tmp_path / "none" / "a.pt").make_room("now")
    assert said == [] and not (tmp_path / "none").exists()


def test_a_folder_that_cannot_be_written_is_an_error_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"Cannot write to .*--output_checkpoint"):
        RunFiles(tmp_path / "file" / "a.pt").held().__enter__()


# --- the id of a run --------------------------------------------------------------------------------------------------


def test_a_resumed_run_keeps_its_id_and_a_new_run_gets_a_new_id(monkeypatch):
    stop_after(monkeypatch, 2)
    train()
    first = read_stamp("models/mine_epoch1.pt")
    stop_after(monkeypatch, None)
    train_plainly("--resume", "models/mine_epoch1.pt")
    assert read_stamp("models/mine_epoch1.pt").run_id == first.run_id
    assert read_stamp("models/mine_epoch1.pt").batch > first.batch == 2
    train()
    assert read_stamp("models/mine_epoch1.pt").run_id != first.run_id


# --- two runs at a time ------------------------------------------------------------------------------------------------


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


def test_a_second_run_is_refused_also_if_somebody_removed_the_lock_file(tmp_path):
    files = RunFiles(tmp_path / "x.pt")
    with files.held(), closing(MetricsFile(files.metrics, 0)):
        (tmp_path / ".x.lock").unlink()
        with pytest.raises(UserError, match="Another training run is writing"), files.held():
            pass


def test_old_files_move_to_another_file_system(tmp_path, monkeypatch):
    def refuses(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.rename", refuses)
    monkeypatch.setattr("os.replace", refuses)
    (tmp_path / "x.pt").write_bytes(b"old")
    RunFiles(tmp_path / "x.pt").make_room("now")
    assert (tmp_path / "old/x-now/x.pt").read_bytes() == b"old" and not (tmp_path / "x.pt").exists()


def test_half_written_files_of_a_killed_process_are_removed():
    folder = Path("models")
    folder.mkdir()
    others = {".other.pt.99.tmp", ".mine_epoch10.pt.99.tmp", ".mine_epoch1_b.pt.99.tmp", ".mine_epoch10.png.99.tmp"}
    own = (".pt", "_batch3.pt", "_best.pt", ".png", "_batch100.png", ".config.json")
    for name in (*(f".mine_epoch1{end}.99.tmp" for end in own), *others):
        (folder / name).write_bytes(b"half")
    train("--max_iters", "1")
    assert {path.name for path in folder.glob(".*.tmp")} == others


# --- resuming from the newest ------------------------------------------------------------------------------------------


def test_checkpoints_are_ordered_by_the_batch_in_their_stamps_not_by_name_or_time(tmp_path):
    files = RunFiles(tmp_path / "a.pt")
    write_file(state(batch=5), tmp_path / "a.pt")
    write_file(state(batch=9), tmp_path / "a_batch2.pt")
    write_file(state(batch=7), tmp_path / "a_best.pt")
    write_file(state(batch=99, run_id="f" * 16), tmp_path / "a_batch99.pt")  # of another run
    os.utime(tmp_path / "a_batch2.pt", (1, 1))
    assert [path.name for path in files.newest_first()] == ["a_batch2.pt", "a_best.pt", "a.pt"]


def test_resume_falls_back_to_the_newest_undamaged_checkpoint(monkeypatch):
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


def test_if_all_checkpoints_are_damaged_the_error_of_resume_names_them():
    train("--max_iters", "2", "--checkpoint_interval", "2")
    for path in Path("models").glob("*.pt"):
        damage(path)
    with pytest.raises(UserError, match="No checkpoint of the run 'mine_epoch1' can be read") as refused:
        train("--max_iters", "4", "--resume")
    for name in ("mine_epoch1.pt", "mine_epoch1_batch2.pt", "mine_epoch1_best.pt"):
        assert name in str(refused.value)


# --- keeping -----------------------------------------------------------------------------------------------------------


def test_prune_keeps_the_newest_numbered_checkpoints_and_all_files_of_others(tmp_path):
    files = RunFiles(tmp_path / "a.pt")
    for name, batch in (("a_batch1.pt", 30), ("a_batch2.pt", 10), ("a_batch3.pt", 20), ("a.pt", 5), ("a_best.pt", 4)):
        write_file(state(batch=batch), tmp_path / name)
    write_file(state(batch=1, run_id="f" * 16), tmp_path / "a_batch4.pt")
    (tmp_path / "a_batch5.pt").write_bytes(b"a user's own")
    files.prune("0123456789abcdef", keep=2)
    left = {"a_batch1.pt", "a_batch3.pt", "a.pt", "a_best.pt", "a_batch4.pt", "a_batch5.pt"}
    assert {path.name for path in tmp_path.glob("*.pt")} == left


@pytest.mark.parametrize(("keep", "left"), [("2", [6, 8]), ("null", [2, 4, 6, 8])])
def test_keep_checkpoints_is_how_many_numbered_checkpoints_stay(keep, left):
    flags = ("--max_iters", "8", "--epochs", "2", "--checkpoint_interval", "2", "--training.keep_checkpoints", keep)
    assert train(*flags).code == 0
    assert sorted(read_stamp(path).batch for path in Path("models").glob("*_batch*.pt")) == left
