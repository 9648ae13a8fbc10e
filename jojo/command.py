"""What every command shares: the parser, signals, and errors as one sentence with an exit code."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import errno
import itertools
import math
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

from config import NAMES_ELSEWHERE
from utils import UserError, is_out_of_memory, log, one_line, printable, set_up_console

ANY_MODEL = "close other programs, or use a smaller model"  # what to do if memory is full
TRAINED_MODEL = (  # the same, for commands with the flags of train.py
    "halve --batch_size and double --training.gradient_accumulation_steps (the result stays the same), "
    "or use a shorter --model.block_size or a smaller model"
)
Main = Callable[[list[str]], int]  # gets a command's arguments, returns its exit code
_has_ranks = False  # set by run_command


def bare_name(flag: str) -> str:
    """A flag without dashes and its section: learning_rate for --optimizer.learning_rate and --learning-rate."""
    return flag.lstrip("-").split(".")[-1].replace("-", "_").lower()


class Parser(argparse.ArgumentParser):
    """An ArgumentParser without abbreviations. An error is one sentence; for an unknown flag it names a similar one."""

    def __init__(self, needs: str = "", **options: Any) -> None:
        """`needs`: what the usage line shows before [flags]; the rest of the help explains all flags."""
        formatter, usage = argparse.RawDescriptionHelpFormatter, f"%(prog)s {needs}[flags]"
        super().__init__(formatter_class=formatter, allow_abbrev=False, usage=usage, **options)

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        """Convert one value. Only free text (TEXT in the help) may be empty, and numbers are finite."""
        if not arg_string.strip() and action.metavar != "TEXT":  # an unset variable of the shell, for example
            raise argparse.ArgumentError(action, "the value is empty; write one, or leave it out.")
        value = super()._get_value(action, arg_string)
        if isinstance(value, float) and not math.isfinite(value):
            raise argparse.ArgumentError(action, f"must be a finite number, not {arg_string}.")
        return value

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse like argparse, but report `--flag=--` as an error: argparse would drop the value."""
        self.words = list(sys.argv[1:] if args is None else args)
        for word in self.words:
            if word.startswith("--") and word.endswith("=--"):
                self.error(f"argument {word[:-3]}: expected a value")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Print one sentence and exit with code 2, as argparse does."""
        if found := re.search(r"^argument (?:.*/)?(-\S+): expected (?:at least )?one argument$", message):
            flag = found[1]  # argparse may have taken the word after it, such as -x, for a flag
            value = next((after for word, after in itertools.pairwise(self.words) if word == flag), "")
            if value.startswith("-") and value.split("=")[0] not in self._option_string_actions:
                message += f'; write a value that begins with "-" as {shlex.quote(f"{flag}={value}")}'
        if message.startswith("unrecognized arguments: "):
            rest = message.removeprefix("unrecognized arguments: ")  # joined by spaces, which words may have too
            word = max((word for word in self.words if rest.startswith(word)), key=len, default="").split("=")[0]
            known = self._option_string_actions
            named = {bare_name(flag): flag for flag in reversed(known)}
            names = [ours for ours, others in NAMES_ELSEWHERE.items() if bare_name(word) in others.split()]
            close = [named[name] for name in (bare_name(word), *names) if name in named]
            flag = {".json": "--config", ".pt": "--resume"}.get(os.path.splitext(word)[1], "--input")
            if word.startswith("-"):
                close = close or difflib.get_close_matches(word, known, n=1)
            elif flag in known:
                close = [f"{flag} {shlex.quote(word)}"]
            elif "--prompt" in known:
                close = ['--prompt "TEXT"']
            hint = f"; did you mean {close[0]}?" if close else "; see --help."
            message = f"unknown flag {word}{hint}" if word.startswith("-") else f"unexpected '{word}'{hint}"
        if prints_errors():
            print(f"error: {printable(message)}", file=sys.stderr)
        sys.exit(2)


RANK_0_FIRST_S = 0.5  # the other ranks wait this long before they exit, so that rank 0 prints its error


class Stopped(KeyboardInterrupt):
    """SIGTERM or SIGHUP, raised like Ctrl-C so that unfinished files are cleaned up. args[0] is its number."""


@contextlib.contextmanager
def signals_raised() -> Iterator[None]:
    """Raise `Stopped` on SIGTERM and SIGHUP while the block runs, unless they are ignored (as under nohup)."""

    def stop(number: int, _frame: FrameType | None) -> None:
        raise Stopped(number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    changed = [number for number in numbers if signal.getsignal(number) == signal.SIG_DFL]
    for number in changed:
        signal.signal(number, stop)
    try:
        yield
    except Exception as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # it interrupted a library, whose cleanup then failed
            raise error.__context__ from None
        raise
    finally:
        for number in changed:
            signal.signal(number, signal.SIG_DFL)


def run_command(main: Main, argv: list[str] | None = None, if_full: str = ANY_MODEL, has_ranks: bool = False) -> None:
    """Run a command's main() and exit with its code. A user's error becomes one sentence and a non-zero code.

    With `--debug` the traceback is printed too. Any other exception is a bug of ours and keeps its traceback.
    `if_full`: what to do if memory is full. `has_ranks`: several processes may run the command as the ranks of one run.
    """
    global _has_ranks
    _has_ranks = has_ranks
    arguments = sys.argv[1:] if argv is None else argv
    debug = "--debug" in arguments
    # How long waiting threads spin: docs/performance.md has the reason. OpenMP reads it when torch is imported.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    set_up_console(debug, no_color="--no_color" in arguments or "--no-color" in arguments)
    code, problem = 1, ""
    failure: BaseException | None = None
    try:
        with signals_raised():
            code = main(arguments)
        sys.stdout.flush()
    except UserError as error:
        problem, failure = str(error), error
    except KeyboardInterrupt as error:
        problem, failure = "Interrupted.", error
        code = 128 + (error.args[0] if isinstance(error, Stopped) else signal.SIGINT)
    except BrokenPipeError:  # stdout was closed (| head): replace it, or Python prints an error at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        problem, failure = explain_os_error(error), error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        problem, failure = f"Out of memory: {if_full}.", error
    if problem and prints_errors():
        log.error(problem, exc_info=failure if debug else None)
    sys.exit(code)


def prints_errors() -> bool:
    """Whether this process prints errors: of several ranks, only rank 0 does. The others wait here until it has done so."""
    rank, world_size, *address = map(os.environ.get, ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))
    launched = _has_ranks and all(address) and f"{rank}{world_size}".isdecimal()  # other programs set RANK alone
    if not launched or not 0 < int(rank or 0) < int(world_size or 0):
        return True
    time.sleep(RANK_0_FIRST_S)
    return False


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    import ipaddress

    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def explain_os_error(error: OSError) -> str:
    """One sentence for a failed file operation: what happened, to which file, and what to check."""
    name = f"'{one_line(str(error.filename), 300)}'" if error.filename else "(no file name)"
    check = "make free space" if error.errno == errno.ENOSPC else "check the path and its permissions"
    return f"{error.strerror or error}: {name} - {check}."
