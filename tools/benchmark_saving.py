"""Measure what saving costs a training: how long the loop waits, and how much slower the batches beside it are.

    python tools/benchmark_saving.py --config configs/story-small.json

Trains in turns of a few batches, without saving and saving after every batch, so that both see the same machine; writes
to a temporary folder. The loop should wait no longer than copying the state in memory takes: before an update, where the
file is not written by then.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from jojo.checkpoints.saver import Saver, in_memory
from jojo.command import Parser, run_command
from trainer import Trainer
from training.recorder import NoRecord
from training.resume import Request
from training.run import prepare_run
from utils import UserError, byte_count, log


@dataclass
class Times:
    """Seconds: of each batch, of waiting for the save before, of leaving its tensors to it, of each turn to its last file,
    of a copy alone, of writing a file alone."""

    batch: list[float] = field(default_factory=list)
    wait: list[float] = field(default_factory=list)
    move: list[float] = field(default_factory=list)
    turn: list[float] = field(default_factory=list)
    copy: list[float] = field(default_factory=list)
    write: list[float] = field(default_factory=list)


class Moves(NoRecord):
    """Has the saver take care of its tensors, and notes for how long the training waits."""

    def __init__(self, saver: Saver | None, times: Times) -> None:
        self.saver, self.times = saver, times

    def before_update(self) -> None:
        begin = time.perf_counter()
        if self.saver:
            self.saver.before_update()
        self.times.move.append(time.perf_counter() - begin)


def turn(trainer: Trainer, batches: int, saver: Saver | None) -> Times:
    """Train some batches; with a saver, save after each of them."""
    times, started = Times(), time.perf_counter()
    trainer.record = Moves(saver, times)
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
    return times


def alone(trainer: Trainer, saver: Saver, times: Times) -> None:
    """Copy the state and write it, with no training beside."""
    begin = time.perf_counter()
    in_memory(trainer.state_dict(), copy=True)
    copied = time.perf_counter()
    saver.save(trainer.state_dict(), [trainer.run.files.last])
    saver.wait()
    times.copy.append(copied - begin)
    times.write.append(time.perf_counter() - copied - (copied - begin))


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark with these arguments; returns the exit code."""
    parser = Parser(
        prog="benchmark_saving.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--config",
        default=str(ROOT / "configs" / "story-small.json"),
        metavar="FILE",
        help="what to train [%(default)s]",
    )
    add("--batches", type=int, default=10, metavar="N", help="batches a turn [%(default)s]")
    add("--turns", type=int, default=5, metavar="N", help="turns of each kind [%(default)s]")
    add("--debug", action="store_true", help="more detail, and tracebacks with errors")
    args = parser.parse_args(arguments)
    if min(args.batches, args.turns) < 1:
        raise UserError("--batches and --turns must be at least 1.")
    plain, saving = Times(), Times()
    with tempfile.TemporaryDirectory(prefix="jojo-saving-") as folder:
        request = Request(config_file=args.config, output=str(Path(folder) / "saving.pt"))
        with closing(prepare_run(request)) as run:
            trainer = Trainer(run)
            saver = Saver(run.files, keep=None, move=trainer.move)
            turn(trainer, 2, saver)  # warm-up
            for _ in range(args.turns):
                for times, found in (
                    (plain, turn(trainer, args.batches, None)),
                    (saving, turn(trainer, args.batches, saver)),
                ):
                    times.batch += found.batch
                    times.wait += found.wait
                    times.move += found.move
                    times.turn += found.turn
                alone(trainer, saver, saving)
            size = run.files.last.stat().st_size
    ratios = [b / a for a, b in zip(plain.turn, saving.turn, strict=True)]
    rows = [
        ("checkpoint", byte_count(size)),
        ("copy in memory, alone", f"{median(saving.copy) * 1e3:.0f} ms"),
        ("writing, alone", f"{median(saving.write) * 1e3:.0f} ms"),
        ("a batch", f"{median(plain.batch) * 1e3:.0f} ms"),
        ("a batch while the last one is being saved", f"{median(saving.batch) * 1e3:.0f} ms"),
        ("of it, for a copy where the file is not written", f"{median(saving.move) * 1e3:.0f} ms"),
        ("and before, for the save of the last batch", f"{median(saving.wait) * 1e3:.0f} ms"),
        (
            "saving after every batch, in all",
            f"{median(ratios):.2f} times as long ({min(ratios):.2f} to {max(ratios):.2f})",
        ),
    ]
    log.info("\n".join(f"{name:<47} {value}" for name, value in rows))
    return 0


if __name__ == "__main__":
    run_command(main)
