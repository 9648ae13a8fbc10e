"""Runs train.py's command line inside a test, on a data set and a model that need about a second."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

import train
from jojo.command import run_command
from utils import log

ROOT = pathlib.Path(__file__).resolve().parents[2]

# A model and a machine on which every test gives the same answer.
TINY = [
    *("--dataset", "tiny", "--device", "cpu", "--dtype", "float32", "--batch_size", "4", "--training.eval_iters", "1"),
    *("--model.n_layer", "1", "--model.n_head", "2", "--model.n_embd", "16", "--model.block_size", "16"),
]

ANIMALS = ("cat", "dog", "fox", "hen", "owl", "bear", "duck", "frog", "goat", "mouse")
PLACES = [
    "on the mat",
    "in the barn",
    "by the river",
    "under a tree",
    "near the old mill",
    "at the market",
    "up a hill",
]


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str


def sentences(count: int) -> list[str]:
    """`count` short sentences, no two alike."""
    return [
        f"Once a {ANIMALS[i % 10]} sat {PLACES[i % 7]} and counted {i} clouds before going home to sleep."
        for i in range(count)
    ]


def write_lines(path: pathlib.Path, texts: list[str]) -> None:
    """A JSONL file with one document per text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")


def write_dataset(folder: pathlib.Path, name: str = "tiny", documents: int = 300) -> None:
    """The data set `name` in folder/data: `documents` sentences to train on and 20 to validate with."""
    texts = sentences(documents + 20)
    write_lines(folder / "data" / f"{name}-train.jsonl", texts[:documents])
    write_lines(folder / "data" / f"{name}-val.jsonl", texts[documents:])


@contextlib.contextmanager
def kept_log() -> Iterator[None]:
    """Puts the project's log back as it was: run_command sets it up for a console."""
    before = list(log.handlers), log.level, log.propagate
    try:
        yield
    finally:
        log.handlers[:], log.level, log.propagate = before


class _Messages(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(f"{record.levelname}: {record.getMessage()}")


@contextlib.contextmanager
def messages() -> Iterator[list[str]]:
    """The log's messages of a block, like "WARNING: ..."."""
    handler = _Messages()
    with kept_log():
        log.handlers[:] = [handler]
        log.setLevel(logging.DEBUG)
        log.propagate = False
        yield handler.texts


def run_train(capsys: pytest.CaptureFixture[str], *arguments: str) -> Outcome:
    """train.py with these arguments, in this process and the current folder."""
    capsys.readouterr()
    with kept_log(), pytest.raises(SystemExit) as stopped:
        run_command(train.main, list(arguments))
    captured = capsys.readouterr()
    code = stopped.value.code
    assert isinstance(code, int)
    return Outcome(code, captured.out, captured.err)


def start_python(*arguments: str, cwd: pathlib.Path, **environment: str) -> subprocess.Popen[str]:
    """Start Python with the project on its path; several may run side by side."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=cwd, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def finish(process: subprocess.Popen[str]) -> Outcome:
    """Wait for a started process."""
    out, err = process.communicate(timeout=120)
    return Outcome(process.returncode, out, err)


def shown_config(text: str) -> dict[str, str]:
    """The rows that --show_config prints, by dotted name: "6    default"."""
    rows, section = {}, ""
    for line in text.splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line.startswith("  ") and section:
            name, _, rest = line.strip().partition("  ")
            rows[f"{section}.{name}"] = " ".join(rest.split())
    return rows


def environment(**more: str) -> dict[str, str]:
    """The environment of a process that a test starts: one thread, and nothing of a coverage run."""
    return {k: v for k, v in os.environ.items() if not k.startswith("COV_")} | {"OMP_NUM_THREADS": "1"} | more
