"""Runs code in a fork of the test's process, which has imported torch already: a new process would take seconds for that."""

from __future__ import annotations

import os
import runpy
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import torch
from helpers_cli import Outcome


def fork(call: Callable[[], object], streams: Sequence[int], environment: Mapping[str, str]) -> int:
    """Call a function in a fork with these standard streams (file descriptors) and variables. Returns the fork's number.

    The fork ends with the code of SystemExit, or 1 after an error. `os.fork` is missing on Windows.
    """
    if number := os.fork():
        return number
    code = 1
    try:
        os.environ |= environment
        for place, stream in enumerate(streams):
            os.dup2(stream, place)
        os.closerange(3, 256)  # otherwise pipes of other processes stay open
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")
        call()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def exit_code(number: int) -> int:
    """Wait for a fork to end; its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def as_script(arguments: Sequence[str]) -> None:
    """Run a script, the first of the arguments, as Python would."""
    sys.argv[:] = arguments
    torch.set_num_threads(1)
    runpy.run_path(arguments[0], run_name="__main__")


def run_script(*arguments: str, **environment: str) -> Outcome:
    """Run a script in a fork, in this folder and without an input, and wait for its end."""
    with open(os.devnull) as nothing, tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        streams = nothing.fileno(), out.fileno(), err.fileno()
        code = exit_code(fork(lambda: as_script(arguments), streams, environment))
        out.seek(0)
        err.seek(0)
        return Outcome(code, out.read(), err.read())
