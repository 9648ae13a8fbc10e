"""The metrics of a run: one JSON object per batch in models/<run>.metrics.jsonl, and a thinned copy for checkpoints."""

from __future__ import annotations

import importlib.util
import json
import math
import mmap
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from utils import UserError, log, parse_json

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
        """Inverse of state_dict."""
        self.val = Extremes(state["best_val_loss"], state["worst_val_loss"])
        self.train = Extremes(state["best_train_loss"], state["worst_train_loss"])
        saved = state["metrics"]
        self.train_loss_batch = Series(list(saved["train_loss_batch"]), saved["stride"])
        self.learning_rate = Series(list(saved["learning_rate"]), saved["stride"])
        for name in ("train_loss_eval", "val_loss_eval", "bpb"):
            setattr(self, name, list(saved[name]))
        self.elapsed_s, self.tokens = saved["elapsed_s"], saved["tokens"]


class MetricsFile:
    """Appends one row per batch; every line is whole. When the disk is full, rows wait in memory for a later write."""

    def __init__(self, path: Path, keep_until: int) -> None:
        """Open the file to continue after batch `keep_until`. Later rows are removed: their batches are trained again."""
        self.path = path
        self._file = open(path, "r+b" if path.exists() else "w+b", buffering=0)
        self._waiting: list[bytes] = []
        self._end = _end_of_row(self._file, keep_until)  # bytes of whole rows
        self._file.truncate(self._end)

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one row. JSON has no NaN and no infinity: they become null."""
        clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        self._waiting.append(json.dumps(clean).encode() + b"\n")
        try:
            self._write()
        except OSError as error:  # a full disk must not stop the training
            if len(self._waiting) == 1:
                message = "Could not write to '%s' (%s); rows wait in memory until there is room."
                log.warning(message, self.path, error.strerror)

    def _write(self) -> None:
        """Write the waiting rows after the last whole row. Half a row from a failed write is overwritten."""
        content = b"".join(self._waiting)
        self._file.seek(self._end)
        written = 0
        while written < len(content):
            written += self._file.write(content[written:]) or 0
        self._end += len(content)
        self._waiting = []

    def close(self) -> None:
        """Close the file. Rows that still cannot be written are lost; an error says so."""
        try:
            self._write()
        except OSError as error:
            self._file.truncate(self._end)
            log.error("'%s' lacks its last %d rows (%s).", self.path, len(self._waiting), error.strerror)
        finally:
            self._file.close()


def _end_of_row(file: BinaryIO, step: int) -> int:
    """Where the last row up to batch `step` ends, in bytes. Searches from the end, so a long file takes no longer."""
    if not file.seek(0, os.SEEK_END):  # mmap refuses an empty file
        return 0
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        end = content.rfind(b"\n") + 1
        while end > 0:
            start = content.rfind(b"\n", 0, end - 1) + 1
            if 0 <= _step(content[start:end]) <= step:
                break
            end = start
    return end


def _step(line: bytes) -> float:
    """The batch of a row; infinity if the line is not a row."""
    try:
        return float(parse_json(line)["step"])
    except (ValueError, KeyError, TypeError, OverflowError):
        return math.inf


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
        for number, sample in enumerate(row.get("samples", ())):
            self._writer.add_text(f"sample/{number}", f"{sample['prompt']}{sample['text']}", step)

    def close(self) -> None:
        """Write what is still in memory."""
        self._writer.close()


def require_tensorboard() -> None:
    """Raises UserError if TensorBoard is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        raise UserError("--tensorboard needs a package that is not installed: pip install tensorboard")
