"""Tests of a disk that fills up while a run or prepare.py writes any of its files: no existing file is lost."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers_cli import kept_log
from helpers_run import TINY, differences, metrics_rows, settle, snapshot, state_of, train, train_plainly

import gen
import prepare
import train as train_command
from jojo.checkpoints.run_files import RunFiles
from jojo.command import run_command

# The sizes of a tiny run's files: a row of metrics 300 bytes, a cache 1 kB, a plot 30 kB, a checkpoint 0.7 MB.
LIMITS = [0, 150, 700, 2_000, 20_000, 100_000, 500_000]


@pytest.fixture(autouse=True)
def folder_with_data(tmp_path, monkeypatch):
    settle(tmp_path, monkeypatch, plots=True)


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Limits every file to this many bytes, so that a larger write fails as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def run(capsys, main, *flags):
    """Runs a command as the command line does. Returns its exit code and stderr, which must not have a traceback."""
    capsys.readouterr()
    with kept_log(), pytest.raises(SystemExit) as stopped:
        run_command(main, list(flags))
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return stopped.value.code, said


def leftovers():
    """Half-written files."""
    return [str(path) for path in Path().rglob("*.tmp*")]


@pytest.mark.parametrize("size", LIMITS[::2])
def test_a_run_continues_on_a_full_disk_and_every_earlier_checkpoint_stays_valid(capsys, size):
    steady = ("--scheduler.decay_lr", "false", "--scheduler.warmup_iters", "0")
    train("--max_iters", "2", "--checkpoint_interval", "1", "--eval_interval", "1", *steady)
    before = snapshot("models")
    flags = ("--resume", "models/mine_epoch1.pt", "--max_iters", "5", "--eval_interval", "1")
    with files_up_to(size):
        code, said = run(capsys, train_command.main, *flags)
    assert code == 1
    assert "error: Could not save 'models/mine_epoch1.pt' (File too large); check the folder's permissions" in said
    assert "error: Not saved after batch 5: " in said and "models/mine_epoch1_batch5.pt" in said
    for name, content in before.items():
        if name.endswith(".pt"):
            assert Path("models", name).read_bytes() == content, name
    assert RunFiles(Path("models/mine_epoch1.pt")).newest_valid().state["batch_counter"] == 2
    assert leftovers() == []
    assert train_plainly(*flags).code == 0  # the disk is no longer full
    assert [row["step"] for row in metrics_rows("models/mine_epoch1.metrics.jsonl")] == [1, 2, 3, 4, 5]
    train("--max_iters", "5", "--output_checkpoint", "models/whole.pt", *steady)
    for part in ("model", "optimizer", "loader"):
        assert differences(state_of("models/whole.pt")[part], state_of("models/mine_epoch1.pt")[part]) == []


@pytest.mark.parametrize("size", LIMITS[:4])
def test_a_run_that_cannot_write_its_token_cache_says_so_and_leaves_nothing_half_written(capsys, size):
    with open("data/mine-train.jsonl", "a") as file:
        file.writelines(json.dumps({"text": f"Number {number} is a number."}) + "\n" for number in range(100, 900))
    with files_up_to(size):
        code, said = run(capsys, train_command.main, *TINY, "--max_iters", "2")
    assert code == 1 and "File too large" in said and said.count("\n") == 1
    assert leftovers() == [] and not list(Path("cache").glob("mine-*"))
    assert train("--max_iters", "2").code == 0


@pytest.mark.parametrize("size", LIMITS[:3])
def test_a_preparation_that_cannot_write_keeps_the_existing_data_set(capsys, size):
    Path("book.txt").write_text("".join(f"Once there were {n} foxes.\n<|endoftext|>\n" for n in range(200)))
    before = snapshot("data")
    with files_up_to(size):
        code, said = run(capsys, prepare.main, "--input", "book.txt", "--name", "mine", "--force")
    assert code == 1 and "File too large" in said
    assert snapshot("data") == before and leftovers() == []


def test_a_config_and_a_generated_text_are_written_whole_or_not_at_all(capsys):
    train("--max_iters", "1")
    for main, flags, name in (
        (train_command.main, (*TINY, "--show_config", "--save_config", "own.json"), "own.json"),
        (
            gen.main,
            ("models/mine_epoch1.pt", "--max_tokens", "30", "--nonstop", "--output", "own.txt", "--seed", "1"),
            "own.txt",
        ),
    ):
        Path(name).write_text("as it was")
        with files_up_to(12):
            code, said = run(capsys, main, *flags)
        assert code == 1 and "File too large" in said
        assert Path(name).read_text() == "as it was" and leftovers() == []
