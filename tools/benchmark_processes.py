"""The processes that tools/benchmark.py measures: started, spoken to over pipes, and ended.

A contestant is kept alive and computes when it is asked to, so that its memory is its own and only one of them computes at
a time; a command is started anew each time, and timed until its output says that it is there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from utils import UserError, one_line


def start_python(arguments: Sequence[str], folder: Path, errors: IO[bytes]) -> subprocess.Popen[bytes]:
    """Python with a script and its arguments, in this folder; spoken to over pipes, its complaints in a file."""
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
    )


def contestant_command(name: str, **arguments: Any) -> list[str]:
    """What runs something in benchmark_contestants.py."""
    return [str(ROOT / "tools" / "benchmark_contestants.py"), name, json.dumps(arguments)]


def failure(what: str, errors: IO[bytes]) -> UserError:
    """That a process ended before it had answered, with the last thing it said."""
    errors.seek(0)
    said = errors.read().decode(errors="replace").strip().splitlines() or ["it said nothing"]
    return UserError(f"{what} could not be measured: {one_line(said[-1].removeprefix('error: '), 300)}")


class Contestant:
    """A process that is kept alive and computes when it is asked to.

    Args:
        label: what tables call it.
        home: the folder it works in.
        worker: its name in benchmark_contestants.py.
        arguments: the worker's.
    """

    def __init__(self, label: str, home: Path, worker: str, arguments: Mapping[str, Any]) -> None:
        self.label = label
        self._errors = tempfile.TemporaryFile()
        self._process = start_python(contestant_command(worker, **arguments), home, self._errors)

    def wait_until_ready(self) -> None:
        """Raises UserError where it cannot be measured."""
        self._answer()

    def run(self, **request: Any) -> dict[str, Any]:
        """Let it compute; returns its answer."""
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise failure(self.label, self._errors) from None
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise failure(self.label, self._errors)
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        finish(self._process)
        self._errors.close()


@contextmanager
def contestants(home: Path, wanted: Sequence[tuple[str, str, Mapping[str, Any]]]) -> Iterator[list[Contestant]]:
    """Processes, started one after another, of (label, worker, arguments); they end with the block."""
    with ExitStack() as stack:
        started = []
        for label, worker, arguments in wanted:
            started.append(stack.enter_context(closing(Contestant(label, home, worker, arguments))))
            started[-1].wait_until_ready()
        yield started


def finish(process: subprocess.Popen[bytes]) -> None:
    """End a process at once: it holds nothing that is to be kept."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            pipe.close()


def run_to_end(command: Sequence[str], folder: Path) -> None:
    """Run a command. Raises UserError where it fails."""
    with tempfile.TemporaryFile() as errors:
        process = start_python(command, folder, errors)
        try:
            assert process.stdout
            process.stdout.read()
            if process.wait():
                raise failure(Path(command[0]).name, errors)
        finally:
            finish(process)


def seconds_until(there: Callable[[bytes], bool], command: Sequence[str], folder: Path) -> float:
    """Seconds from starting a command to the output that says it is there. Raises UserError where it never is."""
    output = b""
    with tempfile.TemporaryFile() as errors:
        started = time.perf_counter()
        process = start_python(command, folder, errors)
        try:
            assert process.stdout
            while not there(output):
                part = os.read(process.stdout.fileno(), 1 << 16)
                if not part:
                    process.wait()
                    raise failure(Path(command[0]).name, errors)
                output += part
            return time.perf_counter() - started
        finally:
            finish(process)
