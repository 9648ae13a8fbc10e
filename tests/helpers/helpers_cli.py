"""Runs commands for the tests, inside a test or as a process, and collects what they print."""

from __future__ import annotations

import contextlib
import io
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
from utils import log, set_up_console

ROOT = pathlib.Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Outcome:
    """A command's exit code and output."""

    code: int
    out: str
    err: str


@contextlib.contextmanager
def kept_log() -> Iterator[None]:
    """Restore the project's log afterwards, because run_command sets it up for a console."""
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
    """Collect the log's messages in this block, like "WARNING: ..."."""
    handler = _Messages()
    with kept_log():
        log.handlers[:] = [handler]
        log.setLevel(logging.DEBUG)
        log.propagate = False
        yield handler.texts


def run_train(capsys: pytest.CaptureFixture[str], *arguments: str) -> Outcome:
    """Run train.py with these arguments, in this process and the current folder."""
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
    """Wait until a started process ends."""
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
    """The environment of a process that a test starts: one thread, and no variables of a coverage run."""
    return {k: v for k, v in os.environ.items() if not k.startswith("COV_")} | {"OMP_NUM_THREADS": "1"} | more


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def terminal(patch: pytest.MonkeyPatch) -> tuple[Terminal, Terminal]:
    """Replace standard output and error by terminals, with colours allowed."""
    out, err = Terminal(), Terminal()
    patch.setattr(sys, "stdout", out)
    patch.setattr(sys, "stderr", err)
    patch.setenv("NO_COLOR", "")  # an empty value counts as unset
    set_up_console()
    return out, err
