"""The metrics of a run: one JSON object per batch in models/<run>.metrics.jsonl, and a thinned copy for checkpoints."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, ClassVar

from utils import log, new_file, parse_json, plural

MAX_POINTS = 4096  # of a series in a checkpoint; the metrics file has every batch

Point = tuple[int, float]  # (batches done, value)


@dataclass
class Series:
    """A per-batch series thinned to at most MAX_POINTS: it keeps every batch, later every 2nd, every 4th ..."""

    points: list[Point] = field(default_factory=list)
    stride: int = 1

    def add(self, step: int, value: float) -> None:
        if step % self.stride == 0:
            self.points.append((step, value))
            if len(self.points) > MAX_POINTS:
                self.stride *= 2
                self.points = [p for p in self.points if p[0] % self.stride == 0]


@dataclass
class Extremes:
    """Best (lowest) and worst (highest) loss of the evaluations; infinite before the first one."""

    best: float = math.inf
    worst: float = -math.inf

    def add(self, value: float) -> bool:
        """Add a value; returns whether it is the best so far."""
        is_best = value < self.best
        self.best, self.worst = min(self.best, value), max(self.worst, value)
        return is_best


@dataclass
class MetricsTracker:
    """What a run has measured so far; checkpoints keep it through state_dict() and load_state_dict()."""

    train_loss_batch: Series = field(default_factory=Series)
    learning_rate: Series = field(default_factory=Series)
    train_loss_eval: list[Point] = field(default_factory=list)
    val_loss_eval: list[Point] = field(default_factory=list)
    bpb: list[Point] = field(default_factory=list)
    train: Extremes = field(default_factory=Extremes)
    val: Extremes = field(default_factory=Extremes)
    elapsed_s: float = 0.0  # wall clock of training, summed over resumes
    tokens: int = 0  # predicted tokens so far
    _started: float = field(default=0.0, repr=False)

    def start_clock(self) -> None:
        """Start the clock of read_clock() at `elapsed_s`."""
        self._started = time.monotonic() - self.elapsed_s

    def read_clock(self) -> float:
        """Seconds of training until now, earlier sessions included."""
        return time.monotonic() - self._started

    def add_batch(self, row: Mapping[str, Any]) -> None:
        self.train_loss_batch.add(row["step"], row["loss"])
        self.learning_rate.add(row["step"], row["lr"])

    def add_evaluation(self, step: int, losses: Mapping[str, float]) -> bool:
        """Add an evaluation; returns whether its validation loss is the best so far."""
        points = {"train_loss_eval": self.train_loss_eval, "val_loss": self.val_loss_eval, "bpb": self.bpb}
        for name in points.keys() & losses.keys():
            points[name].append((step, losses[name]))
        self.train.add(losses["train_loss_eval"])
        return self.val.add(losses["val_loss"])

    def rows(self) -> dict[int, dict[str, Any]]:
        """Rows of the metrics file by batch, with only the values that a checkpoint keeps."""
        series = {"loss": self.train_loss_batch.points, "lr": self.learning_rate.points}
        series |= {"train_loss_eval": self.train_loss_eval, "val_loss": self.val_loss_eval, "bpb": self.bpb}
        rows: dict[int, dict[str, Any]] = {}
        for name, points in series.items():
            for step, value in points:
                rows.setdefault(step, {"step": step, "loss": None, "lr": None})[name] = value
        return rows

    def state_dict(self) -> dict[str, Any]:
        """The metrics' entries in a checkpoint."""
        return {
            "best_val_loss": self.val.best,
            "worst_val_loss": self.val.worst,
            "best_train_loss": self.train.best,
            "worst_train_loss": self.train.worst,
            "metrics": {
                "train_loss_batch": list(self.train_loss_batch.points),
                "learning_rate": list(self.learning_rate.points),
                "train_loss_eval": list(self.train_loss_eval),
                "val_loss_eval": list(self.val_loss_eval),
                "bpb": list(self.bpb),
                "stride": self.train_loss_batch.stride,
                "elapsed_s": self.elapsed_s,
                "tokens": self.tokens,
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.val = Extremes(state["best_val_loss"], state["worst_val_loss"])
        self.train = Extremes(state["best_train_loss"], state["worst_train_loss"])
        saved = state["metrics"]
        self.train_loss_batch = Series(list(saved["train_loss_batch"]), saved["stride"])
        self.learning_rate = Series(list(saved["learning_rate"]), saved["stride"])
        for name in ("train_loss_eval", "val_loss_eval", "bpb"):
            setattr(self, name, list(saved[name]))
        self.elapsed_s, self.tokens = saved["elapsed_s"], saved["tokens"]


class MetricsFile:
    """Appends one row per batch; every line is whole. When the disk is full, rows wait in memory for a later write.

    While it is open the file is locked, and if somebody deletes it, it is written again.
    """

    def __init__(self, path: Path, keep_until: int, known: MetricsTracker | None = None) -> None:
        """Open the file to continue after batch `keep_until`. Later rows are removed: their batches are trained again.

        `known`: the checkpoint's metrics. Rows that are missing or damaged are rebuilt from them.
        """
        self.path = path
        self._waiting: list[bytes] = []
        path.touch()
        self._end = _complete_rows(path, keep_until, known or MetricsTracker())  # bytes of whole rows
        self._open()
        self._file.truncate(self._end)

    def _open(self) -> None:
        self._file = open(self.path, "r+b", buffering=0)
        lock(self._file)

    def append(self, row: Mapping[str, Any]) -> None:
        self._waiting.append(_line(row))
        try:
            self._write()
        except OSError as error:  # a full disk must not stop the training
            if len(self._waiting) == 1:
                message = "Could not write to '%s' (%s); rows wait in memory until there is room."
                log.warning(message, self.path, error.strerror)

    def _write(self) -> None:
        """Write the waiting rows after the last whole row. Half a row from a failed write is overwritten."""
        if not self.path.exists():
            self._restore()
        content = b"".join(self._waiting)
        self._file.seek(self._end)
        written = 0
        while written < len(content):
            written += self._file.write(content[written:]) or 0
        self._end += len(content)
        self._waiting = []

    def _restore(self) -> None:
        """Write the file again after somebody deleted it: an open file can still be read."""
        self._file.seek(0)
        rows = self._file.read(self._end) or b""
        with new_file(self.path) as file:
            file.write(rows)
        self._file.close()
        self._open()
        log.warning("'%s' was deleted while this run writes it; its rows are written again.", self.path)

    def close(self) -> None:
        """Close the file. Rows that still cannot be written are lost; an error says so."""
        try:
            self._write()
        except OSError as error:
            self._file.truncate(self._end)
            log.error("'%s' lacks its last %d rows (%s).", self.path, len(self._waiting), error.strerror)
        finally:
            self._file.close()


def lock(file: IO[bytes]) -> bool:
    """Lock an open file until it is closed, where the system can. Returns False if another process has locked it."""
    with suppress(ImportError):
        import fcntl  # POSIX only

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return not isinstance(error, BlockingIOError)
    return True


def _line(row: Mapping[str, Any]) -> bytes:
    """A row as JSON, which has no NaN and no infinity: they become null."""
    clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
    return json.dumps(clean).encode() + b"\n"


def _row(line: bytes) -> tuple[int, Any]:
    """Batch and loss of a row; (0, None) if the line is not a row."""
    with suppress(ValueError, KeyError, TypeError):
        row = parse_json(line)
        if type(row["step"]) is int and line.endswith(b"\n"):
            return row["step"], row["loss"]
    return 0, None


def _complete_rows(path: Path, until: int, known: MetricsTracker) -> int:
    """Make a file begin with the rows of batches 1 to `until`; returns their length in bytes. Writes only if it must.

    Rows that are missing, damaged or of another run are rebuilt as far as `known` has their values, and a warning says so.
    """
    points, end = known.train_loss_batch.points, 0
    losses = dict(points)
    with open(path, "rb") as file:
        for step in range(1, until + 1):
            line = file.readline()
            found, loss = _row(line)
            if found != step or losses.get(step, loss) != loss:
                break
            end += len(line)
        else:
            return end
        file.seek(0)
        found_rows = {step: (line, loss) for line in file for step, loss in [_row(line)] if 0 < step <= until}
    wrong = {step for step, (_, loss) in found_rows.items() if losses.get(step, loss) != loss}
    if 2 * len(wrong) > len(losses.keys() & found_rows.keys()):  # the file of another run
        found_rows = {}
    rows = {step: line for step, (line, _) in found_rows.items() if step not in wrong}
    # The checkpoint knows nothing of earlier batches, so their rows cannot be missed.
    known_from = points[0][0] - known.train_loss_batch.stride + 1 if points else until + 1
    lost = set(range(known_from, until + 1)) - rows.keys()
    rebuilt = {step: _line(row) for step, row in known.rows().items() if step in lost}
    content = b"".join(line for _, line in sorted((rows | rebuilt).items()))
    if lost:
        what = "%s of '%s' were missing or damaged; %d were rebuilt from the checkpoint (losses and learning rates)."
        log.warning(what, plural(len(lost), "row"), path, len(rebuilt))
    if path.read_bytes()[: len(content)] != content:
        with new_file(path) as replaced:
            replaced.write(content)
    return len(content)


class TensorBoard:
    """Writes rows as TensorBoard events."""

    NAMES: ClassVar = {
        "loss": "loss/train", "train_loss_eval": "loss/train_eval", "val_loss": "loss/val", "bpb": "loss/bpb",
        "lr": "batch/learning_rate", "grad_norm": "batch/grad_norm", "tokens_per_s": "speed/tokens_per_s",
        "samples_per_s": "speed/samples_per_s", "mfu": "speed/mfu", "peak_memory_bytes": "speed/peak_memory_bytes",
    }  # fmt: skip

    def __init__(self, folder: Path, done: int) -> None:
        """Hide events of batches after `done`: these batches are trained again."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder), purge_step=done + 1)

    def append(self, row: Mapping[str, Any]) -> None:
        step = row["step"]
        for key, name in self.NAMES.items():
            if row.get(key) is not None:
                self._writer.add_scalar(name, row[key], step)
        for name, share in row.get("tasks", {}).items():
            self._writer.add_scalar(f"tasks/{name}", share, step)
        for number, sample in enumerate(row.get("samples", ())):
            self._writer.add_text(f"sample/{number}", f"{sample['prompt']}{sample['text']}", step)

    def close(self) -> None:
        self._writer.close()
