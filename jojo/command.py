"""The command-line parser that every verb uses."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import itertools
import os
import re
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

from utils import OUT_OF_MEMORY, UserError, is_out_of_memory, log, set_up_console


class Parser(argparse.ArgumentParser):
    """argparse that answers a mistyped flag with the nearest one, in one sentence."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does; `--flag=--`, which it reads as no value at all, is an error."""
        self.words = list(sys.argv[1:] if args is None else args)
        for word in self.words:
            if word.startswith("--") and word.endswith("=--"):
                self.error(f"argument {word[:-3]}: expected a value")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Print one sentence and exit with 2, as argparse does."""
        for flag in re.findall(r"^argument (?:.*/)?(-\S+): expected (?:at least )?one argument$", message):
            value = next((after for word, after in itertools.pairwise(self.words) if word == flag), "")
            if value.startswith("-") and value.split("=")[0] not in self._option_string_actions:
                message += f'; a value that begins with "-" is written {shlex.quote(f"{flag}={value}")}'
        if message.startswith("unrecognized arguments: "):
            words = message.removeprefix("unrecognized arguments: ").split() or [""]
            word = words[0].split("=")[0]
            known = self._option_string_actions
            close = [flag for flag in known if flag.endswith("." + word.lstrip("-"))]  # --eval_iters, of some section
            close = close or difflib.get_close_matches(word, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else "; see --help."
            message = f"unknown flag {word}{hint}" if word.startswith("-") else f"unexpected '{word}'; see --help."
        if speaks():
            print(f"error: {message}", file=sys.stderr)
        sys.exit(2)


RANK_0_FIRST_S = 0.5  # what goes wrong in all of torchrun's processes, rank 0 says


class Stopped(KeyboardInterrupt):
    """SIGTERM or SIGHUP, raised like Ctrl-C, so that what is half done is cleaned up."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextlib.contextmanager
def signals_raised() -> Iterator[None]:
    """Meanwhile SIGTERM and SIGHUP raise `Stopped`, unless they are ignored (as under nohup)."""

    def stop(number: int, _frame: FrameType | None) -> None:
        raise Stopped(number)

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in (getattr(signal, name) for name in names)}
    changed = [number for number, handler in before.items() if handler == signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        changed = []
    for number in changed:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, before[number])


def run_command(main: Callable[[list[str]], int], argv: list[str] | None = None) -> None:
    """Run a verb's main(), turning what a user can cause into one sentence and a non-zero exit code.

    `--debug` anywhere on the command line shows the traceback as well. Bugs keep theirs: a traceback that
    reaches the user is a defect of ours.
    """
    arguments = sys.argv[1:] if argv is None else argv
    debug = "--debug" in arguments

    def say(text: str) -> None:
        if speaks():
            log.error(text, exc_info=debug)

    set_up_console(debug, no_color="--no_color" in arguments or "--no-color" in arguments)
    try:
        with signals_raised():
            code = main(arguments)
        sys.stdout.flush()
    except UserError as error:
        say(str(error))
        code = 1
    except KeyboardInterrupt as error:
        say("Interrupted.")
        code = 128 + (error.number if isinstance(error, Stopped) else signal.SIGINT)
    except BrokenPipeError:  # the reader of our output left; keep the interpreter from complaining about it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        say(explain_os_error(error))
        code = 1
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        say(OUT_OF_MEMORY)
        code = 1
    sys.exit(code)


def speaks() -> bool:
    """Whether this process says what went wrong: of those that torchrun started the first one, which is given the time."""
    if os.environ.get("RANK", "0") == "0":
        return True
    time.sleep(RANK_0_FIRST_S)
    return False


def explain_os_error(error: OSError) -> str:
    """One sentence for a failed file operation, with the file's name and what to look at."""
    where = f" '{error.filename}'" if error.filename else ""
    return (
        f"{error.strerror or error}:{where or ' (no file named)'} - check the path, its permissions and the free space."
    )
