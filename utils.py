"""What every command needs: errors for users, the console, files, and numbers in readable form.

Imports nothing heavy, so that `--help` and `--version` answer at once.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
import reprlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

__version__ = "3.0.0"

log = logging.getLogger("jojo")

LARGEST_JSON = 1 << 27  # bytes that read_object reads; the files of a tokenizer with a million tokens have 100 million

# Control characters except newline and tab, line separators, and characters that change the direction of the text after them.
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


class UserError(ValueError):
    """An error that the user can fix. The message is one clear sentence that says what to do."""


def check_folder(flag: str, path: Path) -> None:
    """Raises UserError if a flag names a file where it must name a folder."""
    if path.exists() and not path.is_dir():
        raise UserError(f"{flag} '{path}' is a file; it must name a folder.")


def one_line(value: object, most: int = 80) -> str:
    """A value that comes from a file, as one short line of printable characters, ready for a message."""
    text = value if isinstance(value, str) else reprlib.repr(value)  # short even for a large nested value
    text = "".join(c if c.isprintable() else "?" for c in text[: most + 1])
    return text if len(text) <= most else text[: most - 3] + "..."


def printable(text: str) -> str:
    """Text from outside, safe for a terminal: what would control it is written out, like \\x1b and \\u202e."""
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class LogFormatter(logging.Formatter):
    """Formats log records as printable text."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


STYLES = {logging.DEBUG: ("debug: ", ""), logging.WARNING: ("warning: ", "33"), logging.ERROR: ("error: ", "31")}


class ConsoleHandler(logging.Handler):
    """Prints above a live progress bar. Warnings (yellow) and errors (red) go to stderr, the rest to stdout.

    What matches the pattern `record.red` is red too.
    """

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "file_only", False):
            return
        stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        prefix, code = STYLES.get(record.levelno, ("", ""))
        text = prefix + LogFormatter().format(record)
        if use_color(stream):
            red = getattr(record, "red", r"\Z.")  # by default a pattern that matches nothing
            text = paint(text, code) if code else re.sub(red, lambda found: paint(found[0], "31"), text)
        with contextlib.suppress(OSError):  # a closed pipe (| head) or a full disk must not stop training
            if "tqdm" in sys.modules:
                sys.modules["tqdm"].tqdm.write(text, file=stream)
            else:
                print(text, file=stream)
            stream.flush()


_plain = False  # True after --no_color


def use_color(stream: object) -> bool:
    """Whether to use colour: on a terminal that has it, unless NO_COLOR is set (https://no-color.org)."""
    wanted = not _plain and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return wanted and bool(getattr(stream, "isatty", lambda: False)())


def paint(text: str, code: str) -> str:
    """Wrap text in an ANSI colour code."""
    return f"\033[{code}m{text}\033[0m"


def set_up_console(debug: bool = False, no_color: bool = False) -> None:
    """Send the log to the console: INFO and above, with `--debug` also DEBUG."""
    global _plain
    _plain = no_color
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by the caller: else the next opened file would get its number
            setattr(sys, name, open(os.open(os.devnull, os.O_RDWR), mode))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # print "?" for characters that the console lacks
            stream.reconfigure(errors="replace")
    log.handlers[:] = [ConsoleHandler()]
    log.setLevel(logging.DEBUG if debug else logging.INFO)
    log.propagate = False


def explain_missing_package(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Print one sentence for a package that is not installed, instead of a traceback. For sys.excepthook."""
    if isinstance(error, ModuleNotFoundError) and "--debug" not in sys.argv:
        set_up_console()
        log.error("%s; install the packages: python -m pip install -r requirements.txt", str(error))
    else:
        sys.__excepthook__(kind, error, traceback)


sys.excepthook = explain_missing_package  # some commands import packages before their main() begins


@contextlib.contextmanager
def log_to_file(path: Path, run: str) -> Iterator[None]:
    """Also append the log to a file while the block runs, each line with its time, level and run."""
    try:
        handler = logging.FileHandler(path, encoding="utf-8", errors="replace")
    except OSError as error:
        log.warning("Cannot write the log file '%s' (%s); continuing without it.", path, error.strerror)
        yield
        return
    prefix = f"%(asctime)s %(levelname)-7s {run.replace('%', '%%')}: "
    handler.setFormatter(LogFormatter(prefix + "%(message)s", "%Y-%m-%d %H:%M:%S"))
    handler.handleError = lambda record: None  # type: ignore[method-assign]  # a full disk must not end training
    log.addHandler(handler)
    try:
        yield
    except Exception as error:  # run_command prints it too, but only after this file is closed
        handler.handle(log.makeRecord(log.name, logging.ERROR, __file__, 0, str(error), (), None))
        raise
    finally:
        log.removeHandler(handler)
        with contextlib.suppress(OSError):
            handler.close()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory is full. PyTorch raises a RuntimeError with words that depend on the device."""
    words = "out of memory|can't allocate memory|not enough memory|bad_alloc|_STATUS_ALLOC_FAILED"
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and bool(re.search(words, str(error))))


def usable_cores() -> int:
    """The number of cores that this process may use. The machine may have more (taskset, batch systems)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def divisors(number: int) -> list[int]:
    """All divisors, from 1 up to the number itself."""
    return sorted({d for s in range(1, math.isqrt(number) + 1) if number % s == 0 for d in (s, number // s)})


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


def plural(number: int, noun: str) -> str:
    """A number and its noun: 1 layer, 12 layers, 1,000 batches."""
    ending = "" if number == 1 else "es" if noun.endswith("ch") else "s"
    return f"{number:,} {noun}{ending}"


def short_count(number: float) -> str:
    """12,345,678 as 12.3M; numbers below 10,000 in full."""
    for limit, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= max(limit, 1e4):
            return f"{number / limit:.1f}{unit}"
    return f"{number:,.0f}"


def user_path(text: str) -> Path:
    """A path as typed, with ~ and ~user expanded, if that user exists."""
    return Path(os.path.expanduser(text))


def parse_json(text: str | bytes, object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """The value that JSON text holds. Raises ValueError, and nothing else, for text that is not JSON."""
    try:
        return json.loads(text, object_pairs_hook=object_pairs_hook)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def make_durable(path: Path) -> None:
    """Flush a file, or a folder's list of files, to the disk, where the system can."""
    with contextlib.suppress(OSError):  # Windows and some network file systems cannot sync a folder
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def new_file(path: Path, durable: bool = False, replace: bool = True) -> Iterator[BinaryIO]:
    """A file to write in the block. It gets its name only when complete; an error leaves the old file as it was.

    The folder is made if it is missing.
    `durable`: also wait until the file and its name are on the disk. Without `replace` the new file is deleted again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        if replace:
            os.replace(temporary, path)
        if durable:
            make_durable(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def output_path(text: str) -> Path:
    """The path of a file to write later, as typed. Makes its folder. Raises UserError if the file cannot be written."""
    path = user_path(text)
    try:
        if path.is_dir() or path.is_file():
            open(path, "ab").close()  # fails for a folder and for a file without write permission
        if path.is_file() or not path.exists():
            with new_file(Path(os.path.realpath(path)), replace=False):
                pass
    except OSError as error:
        raise UserError(f"Could not write '{path}' ({error.strerror}); check the path and its permissions.") from error
    return path


def replace_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file completely or not at all. Raises UserError if it cannot be written."""
    try:
        special = path.exists() and not path.is_file()  # a pipe or a terminal (opening a folder fails)
        target = Path(os.path.realpath(path))  # a symbolic link stays one
        with open(path, "wb") if special else new_file(target) as file:
            file.write(text.encode("utf-8", errors="replace"))
    except OSError as error:
        raise UserError(f"Could not write '{path}' ({error.strerror}); check the path and the free space.") from error


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
    """Bytes in decimal units: 1,500,000 as 1.5 MB."""
    for limit, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= limit:
            return f"{number / limit:.1f} {unit}"
    return f"{number:.0f} bytes"


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a file lock during the block. If another process holds it, print that this one waits.

    The folder is made if it is missing. An error removes the file.
    """
    from filelock import FileLock, Timeout  # imported here: 14 ms that --help does not need

    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()  # an error where no file can be made: FileLock would wait forever
    lock = FileLock(path)
    try:
        held = lock.acquire(timeout=0)
    except Timeout:
        log.info("Another process is preparing %s; waiting for it.", what)
        held = lock.acquire()
    with held:
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):  # Windows keeps open files
                path.unlink()
            raise


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises UserError if it holds something else, or is larger than any that a model needs."""
    if path.stat().st_size > LARGEST_JSON:
        raise UserError(f"'{path}' is larger than {LARGEST_JSON >> 20} MiB, so it is not read.")
    try:
        values = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:  # UnicodeDecodeError is a ValueError
        raise UserError(f"'{path}' is not valid JSON ({one_line(str(error))}).") from None
    if not isinstance(values, dict):
        raise UserError(f"'{path}' must hold a JSON object.")
    return values
