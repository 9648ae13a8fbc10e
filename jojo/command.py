"""What every command shares: the parser, signals, and errors as one sentence with an exit code."""

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
    """An ArgumentParser without abbreviations. An error is one sentence; for an unknown flag it names a similar one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)

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
            words = message.removeprefix("unrecognized arguments: ").split() or [""]
            word = words[0].split("=")[0]
            known = self._option_string_actions
            close = [flag for flag in known if flag.endswith("." + word.lstrip("-"))]  # its section is missing
            close = close or difflib.get_close_matches(word, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else "; see --help."
            message = f"unknown flag {word}{hint}" if word.startswith("-") else f"unexpected '{word}'; see --help."
        if prints_errors():
            print(f"error: {message}", file=sys.stderr)
        sys.exit(2)


RANK_0_FIRST_S = 0.5  # the other ranks wait this long before they exit, so that rank 0 prints its error


class Stopped(KeyboardInterrupt):
    """SIGTERM or SIGHUP, raised like Ctrl-C so that unfinished files are cleaned up."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextlib.contextmanager
def signals_raised() -> Iterator[None]:
    """Raise `Stopped` on SIGTERM and SIGHUP while the block runs, unless they are ignored (as under nohup)."""

    def stop(number: int, _frame: FrameType | None) -> None:
        raise Stopped(number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    in_main_thread = threading.current_thread() is threading.main_thread()  # only the main thread may set handlers
    changed = [number for number in numbers if in_main_thread and signal.getsignal(number) == signal.SIG_DFL]
    for number in changed:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, signal.SIG_DFL)


def run_command(main: Callable[[list[str]], int], argv: list[str] | None = None) -> None:
    """Run a command's main() and exit with its code. A user's error becomes one sentence and a non-zero code.

    With `--debug` the traceback is printed too. Any other exception is a bug of ours and keeps its traceback.
    """
    arguments = sys.argv[1:] if argv is None else argv
    debug = "--debug" in arguments
    # Threads that wait sleep instead of spinning; spinning is up to ten times slower beside other programs. OpenMP reads
    # this when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
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
        code = 128 + (error.number if isinstance(error, Stopped) else signal.SIGINT)
    except BrokenPipeError:  # stdout was closed (| head): replace it, or Python prints an error at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        problem, failure = explain_os_error(error), error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        problem, failure = OUT_OF_MEMORY, error
    if problem and prints_errors():
        log.error(problem, exc_info=failure if debug else None)
    sys.exit(code)


def prints_errors() -> bool:
    """Whether this process prints errors: only rank 0 does. Any other rank waits here until rank 0 has printed its error."""
    if os.environ.get("RANK", "0") == "0":
        return True
    time.sleep(RANK_0_FIRST_S)
    return False


def explain_os_error(error: OSError) -> str:
    """One sentence for a failed file operation: what happened, to which file, and what to check."""
    name = f"'{error.filename}'" if error.filename else "(no file name)"
    return f"{error.strerror or error}: {name} - check the path, its permissions and the free space."
