"""The runs of tools/compare.py: each is trained by train.py in a process of its own, and continued if it was interrupted."""

from __future__ import annotations

import hashlib
import json
import math
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config import resolve
from jojo.config_file import config_layers
from training.flags import build_parser, overrides
from utils import UserError, log, one_line, replace_text

if TYPE_CHECKING:
    from jojo.checkpoints.run_files import RunFiles

TRAIN = Path(__file__).resolve().parents[2] / "train.py"
NOT_COMPARED = (
    "resume", "checkpoint", "output_checkpoint", "reset_epoch", "eval_only", "show_config", "save_config", "system.seed",
)  # fmt: skip
METRICS = ("bpb", "val_loss", "train_loss_eval")


@dataclass(frozen=True)
class Arm:
    """One of the configs that are compared."""

    name: str  # A, B, ...
    flags: tuple[str, ...]  # of train.py
    digest: str  # of its config: with another one, its runs are other runs

    @classmethod
    def parse(cls, name: str, text: str) -> Arm:
        """From what the user typed. Raises UserError if train.py would refuse it, or if it sets what the tool sets."""
        try:
            words = shlex.split(text)
        except ValueError:
            raise UserError(f'The quotes in "{one_line(text)}" do not match.') from None
        flags = words if words[:1] and words[0].startswith("--") else ["--config", *words]
        args = build_parser().parse_args(flags)
        if unused := next((name for name in NOT_COMPARED if getattr(args, name)), None):
            flag = unused.removeprefix("system.")
            raise UserError(f"--{flag} has no place in a compared run ('{one_line(text)}'); leave it out.")
        config, _ = resolve(config_layers(args.config, overrides(args, flags)))
        content = json.dumps([config.to_dict(), args.load_model_only, args.init_from], sort_keys=True)
        return cls(name, tuple(flags), hashlib.sha256(content.encode()).hexdigest()[:8])

    def checkpoint(self, folder: Path, seed: int) -> Path:
        """Where the run with this seed saves its model."""
        return folder / f"{self.name}-{self.digest}-seed{seed}.pt"


@dataclass(frozen=True)
class Result:
    """A finished run. Each list has a value for every evaluation."""

    batches: list[int]
    values: dict[str, list[float]]  # by METRICS
    seconds: list[float]  # of training, without evaluations
    tokens: int
    peak_memory_bytes: int
    data: dict[str, str]  # the fingerprint of each split
    made_with: dict[str, Any]  # code and machine, on which the last digits depend

    def at(self, seconds: float, metric: str) -> float:
        """The metric at this time of training, on a straight line between evaluations."""
        import numpy as np

        return float(np.interp(seconds, self.seconds, self.values[metric]))


def finished(arm: Arm, seed: int, folder: Path, keep_models: bool) -> Result:
    """The result of a run. Trains it, or the rest of it, if it is not finished. Raises UserError if that fails."""
    from jojo.checkpoints.run_files import RunFiles

    files = RunFiles(arm.checkpoint(folder, seed))
    stored = files.last.with_suffix(".result.json")
    if not stored.exists():
        wait_for(files)
        resume = ["--resume"] if files.newest_first() else []
        fixed = ("--system.seed", str(seed), "--output_checkpoint", str(files.last), "--training.plot_interval", "0")
        said = files.last.with_suffix(".log")
        if run_to_end([sys.executable, str(TRAIN), *arm.flags, *fixed, *resume], said):
            last = (said.read_text(errors="replace").strip().splitlines() or ["it printed nothing"])[-1]
            raise UserError(f"Run {arm.name} with seed {seed} failed: {one_line(last, 300)} See '{said}'.")
        replace_text(stored, json.dumps(asdict(read_result(files))))
    for path in [] if keep_models else files.own(".pt"):
        path.unlink()
    return Result(**json.loads(stored.read_text()))


def wait_for(files: RunFiles) -> None:
    """Wait for a run that is still training because the comparison that started it was killed."""
    from filelock import FileLock, Timeout

    lock = FileLock(files.lock)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("'%s' is still being trained; waiting for it.", files.last)
        lock.acquire()
    lock.release()


def run_to_end(command: Sequence[str], said: Path) -> int:
    """Run a command and append what it prints to a file; returns its exit code. On Ctrl-C it may save first."""
    with open(said, "ab") as file:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            raise


def read_result(files: RunFiles) -> Result:
    """The result of a finished run, from its metrics and its last checkpoint."""
    from jojo.checkpoints.checkpoint import load_checkpoint

    batches, seconds, peak, elapsed, tokens = list[int](), list[float](), 0, 0.0, 0
    values: dict[str, list[float]] = {name: [] for name in METRICS}
    for row in map(json.loads, files.metrics.read_text().splitlines()):
        elapsed += (row["tokens"] - tokens) / row["tokens_per_s"]
        tokens, peak = row["tokens"], max(peak, row["peak_memory_bytes"] or 0)
        if "val_loss" in row:
            batches.append(row["step"])
            seconds.append(elapsed)
            for name in METRICS:
                values[name].append(math.nan if row[name] is None else row[name])
    metadata = load_checkpoint(files.last).state["metadata"]
    data = {split: metadata["dataset"][split] for split in ("train", "val")}
    made_with = {"git_commit": metadata["git_commit"], **metadata["machine"]}
    return Result(batches, values, seconds, tokens, peak, data, made_with)
