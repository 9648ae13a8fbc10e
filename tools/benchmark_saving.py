"""Measure what saving costs a training: how long the loop waits, and how much slower the batches are.

    python tools/benchmark_saving.py --config configs/story-small.json

It trains a few batches without saving, then a few with a save after each, and repeats this, so that both meet the same
conditions. It writes to a temporary folder. The loop waits before an update if the file is not written yet. It should wait no
longer than a copy of the state in memory takes.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import utils
from jojo.checkpoints.saver import NoSaver, Saver, in_memory
from jojo.command import TRAINED_MODEL, Parser, run_command
from trainer import Trainer
from training.flags import Request
from training.run import prepare_run


@dataclass
class Times:
    """Measurements in seconds, one entry each time."""

    batch: list[float] = field(default_factory=list)
    before_update: list[float] = field(default_factory=list)  # part of `batch`: moving training to copies
    wait: list[float] = field(default_factory=list)  # for the save of the batch before
    turn: list[float] = field(default_factory=list)  # all batches of a turn, until the last file is written
    copy: list[float] = field(default_factory=list)  # the state in memory, with no training at the same time
    write: list[float] = field(default_factory=list)  # a file, with no training at the same time


class TimedSaver(Saver):
    """A Saver that records how long the training waits before an update."""

    def __init__(self, trainer: Trainer, times: Times) -> None:
        super().__init__(trainer.run.files, keep=None, move=trainer.copy_tensors)
        self.times = times

    def before_update(self) -> None:
        begin = time.perf_counter()
        super().before_update()
        self.times.before_update.append(time.perf_counter() - begin)


def turn(trainer: Trainer, batches: int, saver: Saver | None, times: Times) -> None:
    """Train some batches; with a saver, save after each of them."""
    started = time.perf_counter()
    trainer.saver = saver or NoSaver()
    for _ in range(batches):
        begin = time.perf_counter()
        trainer.step(trainer.loader.batch(trainer.epoch, trainer.position))
        trainer.advance()
        times.batch.append(time.perf_counter() - begin)
        if saver:
            begin = time.perf_counter()
            saver.wait()
            times.wait.append(time.perf_counter() - begin)
            saver.save(trainer.state_dict(), [trainer.run.files.last])
    if saver:
        saver.wait()
    times.turn.append(time.perf_counter() - started)


def copy_and_write(trainer: Trainer, saver: Saver, times: Times) -> None:
    """Copy the state, then write it, with no training at the same time."""
    begin = time.perf_counter()
    in_memory(trainer.state_dict(), copy=True)
    copied = time.perf_counter()
    saver.save(trainer.state_dict(), [trainer.run.files.last])
    saver.wait()
    times.copy.append(copied - begin)
    times.write.append(time.perf_counter() - copied)


def measure(request: Request, batches: int, turns: int) -> tuple[Times, Times, int]:
    """Times without saving, times with saving, and the checkpoint's bytes."""
    plain, saving = Times(), Times()
    with closing(prepare_run(request)) as run:
        trainer = Trainer(run)
        saver = TimedSaver(trainer, Times())
        turn(trainer, 2, saver, saver.times)  # warm-up
        saver.times = saving
        for _ in range(turns):
            turn(trainer, batches, None, plain)
            turn(trainer, batches, saver, saving)
            copy_and_write(trainer, saver, saving)
        return plain, saving, run.files.last.stat().st_size


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark with these arguments; returns the exit code."""
    parser = Parser(prog="benchmark_saving.py", description=__doc__)
    add = parser.add_argument
    default = str(ROOT / "configs" / "story-small.json")
    add("--config", default=default, metavar="FILE", help="the run to measure [%(default)s]")
    add("--batches", type=int, default=10, metavar="N", help="batches in a turn [%(default)s]")
    add("--turns", type=int, default=5, metavar="N", help="turns of each kind [%(default)s]")
    add("--debug", action="store_true", help="more detail, and tracebacks with errors")
    args = parser.parse_args(arguments)
    if min(args.batches, args.turns) < 1:
        raise utils.UserError("--batches and --turns must be at least 1.")
    with tempfile.TemporaryDirectory(prefix="jojo-saving-") as folder:
        request = Request(config_file=args.config, output=str(Path(folder) / "saving.pt"))
        plain, saving, size = measure(request, args.batches, args.turns)
    ratios = [b / a for a, b in zip(plain.turn, saving.turn, strict=True)]
    rows = [
        ("checkpoint", utils.byte_count(size)),
        ("copy in memory, alone", f"{median(saving.copy) * 1e3:.0f} ms"),
        ("writing, alone", f"{median(saving.write) * 1e3:.0f} ms"),
        ("a batch", f"{median(plain.batch) * 1e3:.0f} ms"),
        ("a batch during the save of the one before", f"{median(saving.batch) * 1e3:.0f} ms"),
        ("of this, moving to a copy before the update", f"{mean(saving.before_update) * 1e3:.0f} ms"),
        ("waiting for the save of the batch before", f"{median(saving.wait) * 1e3:.0f} ms"),
        (
            "saving after every batch, in total",
            f"{median(ratios):.2f} times as long ({min(ratios):.2f} to {max(ratios):.2f})",
        ),
    ]
    utils.log.info("\n".join(f"{name:<47} {value}" for name, value in rows))
    return 0


if __name__ == "__main__":
    run_command(main, if_full=TRAINED_MODEL)
