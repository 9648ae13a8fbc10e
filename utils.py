"""Small things every verb needs: one-sentence errors, the console, clean shutdown, and how numbers are written.

Imports nothing heavy, so that `--help` and `--version` stay instant.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import reprlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import ClassVar

__version__ = "3.0.0"

log = logging.getLogger("jojo")

RANK_0_FIRST_S = 0.5  # what goes wrong in all of torchrun's processes, rank 0 says
OUT_OF_MEMORY = (
    "Out of memory: halve --batch_size and double --training.gradient_accumulation_steps (the result is the same), "
    "or take a shorter --model.block_size or a smaller model."
)


class UserError(ValueError):
    """Something the user can put right. The message is one clear sentence that says what to do."""


def check_folder(flag: str, path: Path) -> None:
    """Raises UserError where a file is in the place of the folder that a flag names."""
    if path.exists() and not path.is_dir():
        raise UserError(f"{flag} '{path}' is a file; it must name a folder.")


def peak_memory_bytes() -> int | None:
    """Most resident memory that this process has had, as the operating system counts it. None: unknown.

    Linux tells it of the program that runs now; getrusage, for other systems, would count the process that started it.
    """
    try:
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    try:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    except ImportError:  # Windows
        return None


def one_line(value: object, most: int = 80) -> str:
    """Something from a file, fit to stand in a message: a line of printable characters, shortened."""
    text = value if isinstance(value, str) else reprlib.repr(value)  # which stops at some depth
    text = "".join(c if c.isprintable() else "?" for c in text[: most + 1])
    return text if len(text) <= most else text[: most - 3] + "..."


class Colors(logging.Formatter):
    """Warnings in yellow, errors in red, everything else as it is; plain when the stream is not a terminal."""

    CODES: ClassVar = {logging.WARNING: "33", logging.ERROR: "31"}
    WORDS: ClassVar = {logging.WARNING: "warning: ", logging.ERROR: "error: ", logging.DEBUG: "debug: "}

    def __init__(self, color: bool) -> None:
        super().__init__()
        self.color = color

    def format(self, record: logging.LogRecord) -> str:
        text = self.WORDS.get(record.levelno, "") + super().format(record)
        code = self.CODES.get(record.levelno)
        return paint(text, code) if self.color and code else text


class ConsoleHandler(logging.Handler):
    """Prints above a live progress bar instead of through it; problems go to stderr, the rest to stdout."""

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "file_only", False):
            return
        try:
            stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
            text = Colors(use_color(stream)).format(record)
            if "tqdm" in sys.modules:
                from tqdm import tqdm

                tqdm.write(text, file=stream)
            else:
                print(text, file=stream)
            stream.flush()
        except OSError:  # the reader left (| head), the terminal is gone, the disk of a log is full: work goes on
            pass


_plain = False  # --no_color was given


def use_color(stream: object) -> bool:
    """Colour only on a terminal that has it, and never where NO_COLOR is set (https://no-color.org)."""
    wanted = not _plain and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return wanted and bool(getattr(stream, "isatty", lambda: False)())


def paint(text: str, code: str) -> str:
    """Wrap text in an ANSI colour code."""
    return f"\033[{code}m{text}\033[0m"


def set_up_console(debug: bool = False, no_color: bool = False) -> None:
    """Send the project's log to the console: INFO and above, DEBUG too with `--debug`."""
    global _plain
    _plain = no_color
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a console that cannot show a character prints "?" instead of failing
            stream.reconfigure(errors="replace")
    log.handlers[:] = [ConsoleHandler()]
    log.setLevel(logging.DEBUG if debug else logging.INFO)
    log.propagate = False


@contextlib.contextmanager
def log_to_file(path: Path, run: str) -> Iterator[None]:
    """Append what is logged meanwhile to a file, each line with its time, level and run; several runs may share it."""
    try:
        handler = logging.FileHandler(path, encoding="utf-8", errors="replace")
    except OSError as error:
        log.warning("No log file '%s' (%s); going on without.", path, error.strerror)
        yield
        return
    prefix = f"%(asctime)s %(levelname)-7s {run.replace('%', '%%')}: "
    handler.setFormatter(logging.Formatter(prefix + "%(message)s", "%Y-%m-%d %H:%M:%S"))
    handler.handleError = lambda record: None  # type: ignore[method-assign]  # a full disk: the console has it all
    log.addHandler(handler)
    try:
        yield
    except Exception as error:  # it reaches the console when this file is closed already
        handler.handle(log.makeRecord(log.name, logging.ERROR, __file__, 0, str(error), (), None))
        raise
    finally:
        log.removeHandler(handler)
        with contextlib.suppress(OSError):
            handler.close()


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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is full; torch says so in a RuntimeError, in the words of each device."""
    words = "out of memory|can't allocate memory|not enough memory|bad_alloc|_STATUS_ALLOC_FAILED"
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and bool(re.search(words, str(error))))


def divisors(number: int) -> list[int]:
    """All divisors, from 1 up to the number itself."""
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return small + [number // d for d in reversed(small) if d * d != number]


def explain_os_error(error: OSError) -> str:
    """One sentence for a failed file operation, with the file's name and what to look at."""
    where = f" '{error.filename}'" if error.filename else ""
    return (
        f"{error.strerror or error}:{where or ' (no file named)'} - check the path, its permissions and the free space."
    )


class Shutdown:
    """Turns Ctrl-C, SIGTERM and a closed terminal (SIGHUP) into a request that the loop reads between batches.

    The first signal asks for a clean stop (finish the batch, save, exit 130, 143 or 129). The second one leaves at
    once, as the signal does by default: files already on disk are complete because they are only ever renamed.

    Args:
        quiet: say nothing of it; another process does.
        repeats_s: signals within so many seconds of the first one are the same one: launchers pass on to each process
            what the terminal sent to all.
    """

    SIGNALS: ClassVar = [signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

    def __init__(self, quiet: bool = False, repeats_s: float = 0.0) -> None:
        self.signal_number: int | None = None
        self.quiet, self.repeats_s = quiet, repeats_s
        self._first_at = -math.inf
        self._previous: dict[int, signal.Handlers | Callable[[int, FrameType | None], object] | int | None] = {}

    @property
    def requested(self) -> bool:
        return self.signal_number is not None

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as shells count: 130 for Ctrl-C, 143 for SIGTERM; 0 without one."""
        return 128 + self.signal_number if self.signal_number else 0

    def __enter__(self) -> Shutdown:
        for number in self.SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup has SIGHUP ignored, and means it
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def share(self, number: int) -> None:
        """Take over a signal that another rank got (0: none did)."""
        if number and not self.requested:
            self.signal_number, self._first_at = number, time.monotonic()

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.requested:
            if time.monotonic() - self._first_at >= self.repeats_s:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        self.signal_number, self._first_at = number, time.monotonic()
        if not self.quiet:
            again = "Press Ctrl-C again" if number == signal.SIGINT else "Send the signal again"
            say_at_once(f"warning: Stopping after this batch; the model will be saved. {again} to leave at once.")


def say_at_once(text: str) -> None:
    """Print from a signal handler, past the buffers: the signal may have come in the middle of a print."""
    with contextlib.suppress(OSError, ValueError):  # no terminal any more, or a stream that is no file
        if sys.stderr.isatty():  # perhaps in the middle of a progress bar
            text = "\n" + text
        os.write(sys.stderr.fileno(), (paint(text, "33") if use_color(sys.stderr) else text).encode() + b"\n")


class Every:
    """The one answer to "is it time?": every `interval` batches, or every `seconds`; 0 or None means never."""

    def __init__(self, interval: int | None = None, seconds: float | None = None) -> None:
        self.interval = interval
        self.seconds = seconds
        self._last = time.monotonic()

    def due(self, batches_done: int) -> bool:
        """True when `batches_done` is a multiple of the interval, or the seconds have passed since the last time."""
        if self.interval and batches_done % self.interval == 0:
            return True
        if self.seconds and time.monotonic() - self._last >= self.seconds:
            self._last = time.monotonic()
            return True
        return False


def duration(seconds: float) -> str:
    """Seconds as people say them: 42 s, 3 min 05 s, 2 h 10 min, 3 days 4 h."""
    seconds = max(0.0, seconds)
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    days, hours = divmod(hours, 24)
    return f"{days} days {hours} h"


def short_count(number: float) -> str:
    """12,345,678 as 12.3M; numbers below 10,000 in full."""
    for limit, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k")):
        if abs(number) >= limit:
            return f"{number / (1e3 if unit == 'k' else limit):.1f}{unit}"
    return f"{number:,.0f}"


def user_path(text: str) -> Path:
    """A path as typed, with ~ and ~user expanded. Raises UserError where there is no such user."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UserError(f"'{text}' starts with a home folder that does not exist; write the path in full.") from None


def replace_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all, as UTF-8; half a surrogate pair becomes a question mark.

    Raises:
        UserError: it cannot be written; what was there stays as it was.
    """
    target = path.resolve()  # a link stays a link
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        if target.exists() and not target.is_file():  # a pipe, a terminal (or a folder, which is refused)
            target.write_text(text, encoding="utf-8", errors="replace")
            return
        temporary.write_text(text, encoding="utf-8", errors="replace")
        os.replace(temporary, target)
    except OSError as error:
        raise UserError(f"Could not write '{path}' ({error.strerror}); check the path and the free space.") from error
    finally:
        temporary.unlink(missing_ok=True)


def sha256_of(path: Path, size: int | None = None) -> str:
    """SHA-256 of a file's contents, or of its first `size` bytes, in hexadecimal; read in pieces."""
    import hashlib

    digest, left = hashlib.sha256(), path.stat().st_size if size is None else size
    with open(path, "rb") as file:
        while block := file.read(min(left, 1 << 22)):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()


def byte_count(number: float) -> str:
    """Bytes in decimal units, as disks and memory sticks are sold: 1.5 MB."""
    for limit, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= limit:
            return f"{number / limit:.1f} {unit}"
    return f"{number:.0f} bytes"


def __getattr__(name: str) -> object:
    """CheckpointManager and PlotManager, for scripts that import them from here as in 2.x."""
    if name == "CheckpointManager":
        from run_files import CheckpointManager

        return CheckpointManager
    if name == "PlotManager":
        from plotting import PlotManager

        return PlotManager
    raise AttributeError(f"module 'utils' has no attribute '{name}'")
