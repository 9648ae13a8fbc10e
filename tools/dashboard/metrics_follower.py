"""Follow the metrics files of runs while they grow.

This is the part of tools/dashboard.py without the web server. It never writes a file.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import re
import threading
import time
from collections import deque
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import suppress
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from tools.parts.thinning import Floats, as_curve, as_json, downsample, in_order, last, smooth, visible
from utils import log, parse_json, printable

SUFFIX = ".metrics.jsonl"
X = ("step", "tokens", "elapsed_s")  # what the x axis can be
Y = ("loss", "grad_norm", "lr", "tokens_per_s", "mfu", "peak_memory_bytes")
EVALUATION = ("val_loss", "bpb", "tasks")  # of tasks, the mean over all of them
SMOOTHED = ("loss", "grad_norm", "tokens_per_s", "mfu")  # noisy from batch to batch
RUNNING_SECONDS = 60.0  # without a lock to look at, a run counts as running if its file changed within this time
SPEED_ROWS = 50  # the time left is estimated from the speed of this many rows
BLOCK_BYTES = 1 << 22  # read and parsed at a time
TAIL_BYTES = 256  # compared at every mark, to notice that a file was replaced or cut back
MAX_CONFIG_BYTES, MAX_VALUE_CHARS = 1 << 20, 200
MAX_SAMPLE_ROWS, MAX_SAMPLES, MAX_SAMPLE_CHARS = 50, 8, 4000  # rows of a run, samples of a row, characters of a text

numbers_of = itemgetter(*X, *Y)  # faster than row.get()

Row = dict[str, Any]


# --- one row, many rows ---------------------------------------------------------------------------------------------


def parse_rows(text: str) -> tuple[Floats, list[tuple[int, Row]]]:
    """Read lines of a metrics file.

    Args:
        text: whole lines. Lines that are not rows (torn, garbage, without a step) are skipped.

    Returns:
        A table with the columns X and Y, NaN for missing numbers; and the rows with evaluations or samples, each with its
        index in the table.
    """
    numbers: list[tuple[Any, ...]] = []
    extras: list[tuple[int, Row]] = []
    for line in text.split("\n"):
        try:
            row = parse_json(line)
            values = numbers_of(row)
        except KeyError:
            values = tuple(map(row.get, (*X, *Y)))
        except (ValueError, TypeError):
            continue
        if "val_loss" in row or "samples" in row:
            extras.append((len(numbers), row))
        numbers.append(values)
    try:
        table = np.array(numbers, dtype=np.float64)  # null becomes NaN
    except (ValueError, TypeError, OverflowError):
        table = np.array([[number(value) for value in values] for values in numbers])
    table = table.reshape(-1, len(X) + len(Y))
    table[~np.isfinite(table)] = np.nan
    has_step = ~np.isnan(table[:, 0])
    place = np.cumsum(has_step) - 1
    return table[has_step], [(int(place[i]), row) for i, row in extras if has_step[i]]


def number(value: object) -> float:
    """A number from a file; NaN for anything else."""
    try:
        return float(value) if isinstance(value, (int, float)) else math.nan
    except OverflowError:  # an integer beyond 1e308
        return math.nan


def mean_of(value: object) -> float:
    """A number, or the mean of an object's numbers; NaN for anything else."""
    numbers = [number(entry) for entry in value.values()] if isinstance(value, dict) else [number(value)]
    return sum(numbers) / len(numbers) if numbers else math.nan


def clean_samples(samples: object) -> list[dict[str, str]]:
    """Prompts and texts of a row's samples, as many as the page shows."""
    items = [sample for sample in samples if isinstance(sample, dict)] if isinstance(samples, list) else []
    texts = [{key: item.get(key) for key in ("prompt", "text")} for item in items[:MAX_SAMPLES]]
    return [
        {k: printable(v[:MAX_SAMPLE_CHARS]) if isinstance(v, str) else "" for k, v in item.items()} for item in texts
    ]


class Columns:
    """Columns of numbers that grow at their end."""

    def __init__(self, names: Sequence[str], dtype: type[np.floating[Any]]) -> None:
        self.names, self.length = names, 0
        self._data = np.empty((len(names), 0), dtype)  # allocated with room for more rows

    def __getitem__(self, name: str) -> Floats:
        return self._data[self.names.index(name), : self.length]

    def append(self, rows: Floats) -> None:
        """Add rows with one value per column."""
        end = self.length + len(rows)
        if end > self._data.shape[1]:
            data = np.empty((len(self.names), end + end // 2), self._data.dtype)
            data[:, : self.length] = self._data[:, : self.length]
            self._data = data
        with np.errstate(over="ignore"):  # a float32 column may overflow to infinity
            self._data[:, self.length : end] = rows.T
        self.length = end


# --- a run, a folder ------------------------------------------------------------------------------------------------


class Mark(NamedTuple):
    """A position between two lines of a file. Everything before it has been read."""

    offset: int = 0
    rows: int = 0
    tail: bytes = b""  # the last bytes before it

    def holds(self, file: BinaryIO) -> bool:
        """Whether the file still has the same bytes before this position."""
        file.seek(self.offset - len(self.tail))
        return file.read(len(self.tail)) == self.tail


class RunFile:
    """A run's metrics file, read incrementally, and its config.

    One thread reads the file. Other threads use the rows while they hold the lock.
    """

    def __init__(self, path: Path, run_id: int) -> None:
        self.path, self.id, self.name = path, run_id, path.name.removesuffix(SUFFIX)
        self.locked: bool | None = None  # whether a trainer on this machine holds the run's lock; None: never seen held
        self.version = 0  # grows whenever something on the page changes
        self.size, self.modified, self.problem = 0, 0.0, ""
        self.x, self.y = Columns(X, np.float64), Columns(Y, np.float32)
        self.evaluations = Columns(("row", *EVALUATION), np.float64)
        self.samples: deque[tuple[int, float, list[dict[str, str]]]] = deque(maxlen=MAX_SAMPLE_ROWS)  # row, step, texts
        self.config: dict[str, Any] | None = None  # by dotted name
        self.config_version = 0
        self.marks = [Mark()]
        self._stamp: object = None  # size and times of the file as it was last read to its end
        self._config_stamp: object = None

    @property
    def unread_bytes(self) -> int:
        return 0 if self.problem else max(0, self.size - self.marks[-1].offset)

    def read(self, lock: threading.Lock) -> None:
        """Read new rows, up to the last whole line. Raises OSError if the file cannot be read."""
        stat = self.path.stat()
        self.size, self.modified = stat.st_size, stat.st_mtime
        stamp = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
        if stamp == self._stamp:
            return
        with open(self.path, "rb") as file:
            self._go_back(file, lock)
            while self._read_block(file, lock):
                pass
        self._stamp = stamp

    def _go_back(self, file: BinaryIO, lock: threading.Lock) -> None:
        """Forget rows that are gone, because the file was cut back to a checkpoint or replaced."""
        marks = list(self.marks)
        while not marks[-1].holds(file):
            marks.pop()
        if len(marks) < len(self.marks):
            with lock:
                self.marks = marks
                self.x.length = self.y.length = rows = marks[-1].rows
                self.evaluations.length = int(np.searchsorted(self.evaluations["row"], rows))
                while self.samples and self.samples[-1][0] >= rows:
                    self.samples.pop()
                self.version += 1

    def _read_block(self, file: BinaryIO, lock: threading.Lock) -> bool:
        """Read the next block; False if no whole line is left."""
        start = self.marks[-1]
        file.seek(start.offset)
        block = file.read(BLOCK_BYTES)
        end = block.rfind(b"\n") + 1
        if not end:
            if len(block) < BLOCK_BYTES:
                return False
            end = len(block)  # no row is this long: skip the block
        table, extras = parse_rows(block[:end].decode("utf-8", "replace"))
        with lock:
            for place, row in extras:
                values = [mean_of(row.get(name)) for name in EVALUATION]
                if any(map(math.isfinite, values)):
                    self.evaluations.append(np.array([[start.rows + place, *values]]))
                if samples := clean_samples(row.get("samples")):
                    self.samples.append((start.rows + place, float(table[place, 0]), samples))
            self.x.append(table[:, : len(X)])
            self.y.append(table[:, len(X) :])
            if len(self.marks) > 1 and start.offset + end - self.marks[-2].offset < BLOCK_BYTES:
                self.marks.pop()  # one mark per block is enough
            self.marks.append(Mark(start.offset + end, self.x.length, (start.tail + block[:end])[-TAIL_BYTES:]))
            self.version += 1
        return True

    def read_config(self) -> None:
        """Read <run>.config.json if it changed. A file that cannot be read counts as missing."""
        path, content = self.path.with_name(self.name + ".config.json"), b""
        try:
            stat = path.stat() if path.is_file() else None
            stamp = stat and (stat.st_size, stat.st_mtime_ns, stat.st_ino)
            if stamp == self._config_stamp:
                return
            if stat and stat.st_size <= MAX_CONFIG_BYTES:
                content = path.read_bytes()
        except OSError as error:  # perhaps only for now, so it is tried again
            log.debug("Cannot read '%s': %s", path, error.strerror)
            return
        self._config_stamp, self.config, self.config_version = stamp, None, self.config_version + 1
        with suppress(ValueError):
            self.config = dict(flatten(parse_json(content)))

    def read_lock(self, held: Container[str]) -> None:
        """Whether a trainer holds the run's lock, once it was seen held. `held` is from held_locks()."""
        with suppress(OSError):
            stat = self.path.with_name(f".{self.name}.lock").stat()
            now = f"{os.major(stat.st_dev):02x}:{os.minor(stat.st_dev):02x}:{stat.st_ino}" in held
            self.locked = now if now or self.locked is not None else None

    @property
    def total_batches(self) -> int | None:
        """The run's length by its config: max_iters, or else the end of the learning rate's decay; None: unknown."""
        config = self.config or {}
        total = config.get("training.max_iters") or config.get("scheduler.lr_decay_iters")
        step = last(self.x["step"])
        return total if isinstance(total, int) and step <= total else None

    def progress(self) -> dict[str, Any]:
        """Whether the run is running, the share that is done, and the seconds that are left; None: unknown."""
        total, step, seconds = self.total_batches, self.x["step"][-SPEED_ROWS:], self.x["elapsed_s"][-SPEED_ROWS:]
        recent = self.size > 0 and abs(time.time() - self.modified) < RUNNING_SECONDS
        running = (recent and not (total and step[-1] >= total)) if self.locked is None else self.locked
        done = float(step[-1] / total) if total else math.nan
        left = (total - step[-1]) * (seconds[-1] - seconds[0]) / max(1.0, step[-1] - step[0]) if total else math.nan
        minutes = (self.config or {}).get("training.max_minutes")
        if isinstance(minutes, (int, float)) and total and 60 * minutes > seconds[-1]:
            left = min(left, 60 * minutes - seconds[-1])
        known = running and len(step) > 1
        return {"running": running, "done": as_json(done), "left_s": as_json(float(left), 3) if known else None}

    def summary(self) -> dict[str, Any]:
        """What the table of runs shows."""
        val_loss = self.evaluations["val_loss"]
        return {
            "id": self.id,
            "name": printable(self.name),
            "version": self.version,
            "rows": self.x.length,
            **{name: as_json(last(self.x[name]), digits=15) for name in X},
            **{name: as_json(last(self.y[name])) for name in ("loss", "tokens_per_s")},
            "best_val_loss": as_json(float(np.nanmin(val_loss)) if np.isfinite(val_loss).any() else math.nan),
            "bpb": as_json(last(self.evaluations["bpb"])),
            **self.progress(),
            **self.kind(),
            "newest_samples": self.samples[-1][1] if self.samples else None,  # their step
            "config": self.config_version if self.config is not None else 0,
            "problem": self.problem,
        }

    def kind(self) -> dict[str, str | None]:
        """What the run may be compared with: its data, its tokenizer, and its config without the seed (runs that repeat it)."""
        config = self.config
        if config is None:
            return dict.fromkeys(("data", "tokenizer", "repeats"))
        data = " ".join(as_text(config[name]) for name in ("data.dataset_name", "data.predict") if name in config)
        repeats = sorted((name, as_text(value)) for name, value in config.items() if name != "system.seed")
        return {"data": data.removesuffix(" all"), "tokenizer": as_text(config.get("data.tokenizer")),
                "repeats": hashlib.sha256(repr(repeats).encode()).hexdigest()[:16]}  # fmt: skip

    def curves(
        self, axis: str, low: float, high: float, points: int, window: int, raw: bool = True
    ) -> dict[str, dict[str, list[float | None]]]:
        """All curves of the run, thinned.

        Args:
            axis: one of X.
            low: start of the visible range on that axis.
            high: end of the visible range.
            points: the most points of a curve.
            window: rows to average over; 1 = none, 0 = a fiftieth of the visible rows.
            raw: also return the original of smoothed curves.

        Returns:
            {"x": [...], "y": [...]} by name, with one more point on both sides so that lines reach the edge. A smoothed
            curve is called "<name>_smooth".
        """
        curves = {}
        x, order = in_order(self.x[axis])
        first, end = visible(x, low, high)
        window = window or max(1, (end - first) // 50)
        at = np.unique(np.linspace(first, max(first, end - 1), points // 2).astype(np.intp))
        for name in Y:
            y = self.y[name][order]
            smoothed = name in SMOOTHED and window > 1 and end > first
            if smoothed:
                curves[name + "_smooth"] = as_curve(x[at], smooth(y, window, at), slice(None))
            if raw or not smoothed:
                curves[name] = as_curve(x, y, first + downsample(y[first:end], points))
        x, order = in_order(self.x[axis][self.evaluations["row"].astype(np.intp)])
        first, end = visible(x, low, high)
        for name in EVALUATION:
            y = self.evaluations[name][order]
            there = first + np.flatnonzero(np.isfinite(y[first:end]))
            curves[name] = as_curve(x, y, there[downsample(y[there], points)])
        return curves


class Folder:
    """The runs of a folder, followed by a thread that calls refresh()."""

    def __init__(self, path: Path) -> None:
        self.path, self.problem = path, ""
        self.lock = threading.Lock()  # held while rows are added or used
        self.runs: dict[int, RunFile] = {}  # by number; a run that disappears and comes back gets a new one
        self._numbers = itertools.count(1)

    def refresh(self) -> None:
        """Find new and deleted runs, and read new rows, the newest run first."""
        try:
            with os.scandir(self.path) as entries:
                found = {entry.name for entry in entries if entry.name.endswith(SUFFIX) and is_file(entry)}
            problem = ""
        except (FileNotFoundError, NotADirectoryError) as error:
            found, problem = set(), error.strerror or str(error)
        except OSError as error:  # such as too many open files: the runs are still there
            found, problem = {run.path.name for run in self.runs.values()}, error.strerror or str(error)
        locks = held_locks()
        with self.lock:
            self.problem = problem
            known = {run.path.name for run in self.runs.values()}
            self.runs = {i: run for i, run in self.runs.items() if run.path.name in found}
            new = [RunFile(self.path / name, next(self._numbers)) for name in sorted(found - known)]
            self.runs |= {run.id: run for run in new}
        for run in sorted(self.runs.values(), key=lambda run: run.modified, reverse=True):
            try:
                run.read_config()
                run.read_lock(locks)
                run.read(self.lock)
                run.problem = ""
            except OSError as error:
                run.problem = error.strerror or str(error)

    def overview(self) -> dict[str, Any]:
        """The table of runs. "read" is the share of the files that has been read; None: all of it."""
        with self.lock:
            unread, total = sum(run.unread_bytes for run in self.runs.values()), sum(r.size for r in self.runs.values())
            return {
                "folder": printable(str(self.path)),
                "problem": self.problem,
                "read": round(1 - unread / total, 2) if unread > BLOCK_BYTES else None,
                "runs": [run.summary() for run in self.runs.values()],
            }


def is_file(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a file or a link to one; a link that leads back to itself is an error to the system."""
    try:
        return entry.is_file()
    except OSError:
        return False


def held_locks() -> set[str]:
    """The locked files of this machine as device:inode; empty on systems other than Linux."""
    with suppress(OSError):
        return set(re.findall(r" ([0-9a-f]+:[0-9a-f]+:[0-9]+) ", Path("/proc/locks").read_text()))
    return set()


# --- configs --------------------------------------------------------------------------------------------------------


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The options of a nested config with their dotted names. Raises ValueError if it is not a config."""
    if not isinstance(config, dict):
        raise ValueError("not a JSON object")
    for name, value in config.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield printable(prefix + name), value


def differences(configs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The options whose values differ among flat configs: {"name": ..., "values": one text per config}.

    The value is None if a config does not have the option.
    """
    names = dict.fromkeys(name for config in configs for name in config)
    rows = [{"name": n, "values": [as_text(c[n]) if n in c else None for c in configs]} for n in names]
    return [row for row in rows if len(set(row["values"])) > 1]


def as_text(value: object) -> str:
    """Format a config's value: 1.0 as 1, texts without quotes."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    return printable((value if isinstance(value, str) else json.dumps(value))[:MAX_VALUE_CHARS])
