"""The learning rate as a pure function of the batch number."""

from __future__ import annotations

import math
from dataclasses import dataclass

from config import Config
from utils import log, plural


@dataclass(frozen=True)
class Schedule:
    """The learning rate of every batch. Checkpoints store these fields.

    warm-up    batches 0 to warmup - 1: it rises linearly from above 0 towards `peak`
    hold       it stays at `peak` until `cooldown_start`
    cool-down  it falls to `floor` at `decay_end`, as half a cosine ("cosine") or a straight line ("wsd"), and stays there
    """

    kind: str
    peak: float
    floor: float
    warmup: int
    cooldown_start: int
    decay_end: int
    decays: bool = True

    def lr(self, batch: int) -> float:
        """Learning rate of batch number `batch`, counted from 0."""
        if batch < self.warmup:
            return self.peak * (batch + 1) / (self.warmup + 1)
        if not self.decays or batch < self.cooldown_start:
            return self.peak
        if batch >= self.decay_end:
            return self.floor
        progress = (batch - self.cooldown_start) / (self.decay_end - self.cooldown_start)
        share = 1 - progress if self.kind == "wsd" else 0.5 * (1 + math.cos(math.pi * progress))
        return self.floor + share * (self.peak - self.floor)

    @property
    def before_cooldown(self) -> int | None:
        """With "wsd", the batches before the cool-down: a run can become longer from there without having cooled down."""
        return self.cooldown_start if self.kind == "wsd" and self.decays else None

    def describe(self, total_batches: int, done: int = 0) -> str:
        """One line for the summary: the learning rate after the first `done` batches."""
        warm = f"{plural(self.warmup - done, 'batch')} of warm-up, then " if done < self.warmup else ""
        if not self.decays:
            return f"{warm}{self.peak:g} throughout"
        if done >= self.decay_end:
            return f"{self.floor:g} throughout"
        holds = self.cooldown_start > max(self.warmup, done)
        hold = f"{self.peak:g} until batch {self.cooldown_start:,}, " if holds else ""
        first = f"{self.peak:g}" if done <= self.cooldown_start else f"{self.lr(done):.3g}"
        line = f"{warm}{hold}{self.kind} from {first} to {self.floor:g} at batch {self.decay_end:,}"
        rest = total_batches - self.decay_end
        return line + (f"; the last {rest:,} batches stay at {self.floor:g}" if rest > 0 else "")


def derive_schedule(config: Config, total_batches: int) -> Schedule:
    """The schedule of a run of this length.

    Numbers of batches in the config override fractions. If they do not fit the run (2.x files have a warm-up of 2,000 and a
    decay of 60,000 batches), it warns and uses the fractions.
    """
    wanted, peak = config.scheduler, config.optimizer.learning_rate
    floor = float(f"{peak / 10:.12g}") if wanted.min_lr is None else wanted.min_lr
    length = f"a run of {total_batches:,} batches"
    warmup = wanted.warmup_iters
    if warmup is not None and warmup >= total_batches:
        use = f"using warmup_fraction {wanted.warmup_fraction:g} of it instead."
        log.warning("scheduler.warmup_iters %s does not fit %s; %s", f"{warmup:,}", length, use)
        warmup = None
    if warmup is None:
        warmup = int(wanted.warmup_fraction * total_batches)
    end, fraction = wanted.lr_decay_iters, wanted.cooldown_fraction
    if end is not None and not warmup < end <= total_batches and wanted.decay_lr:
        length += f" with {warmup:,} of warm-up"
        log.warning("scheduler.lr_decay_iters %s does not fit %s; decaying until its end.", f"{end:,}", length)
        end = None
    if wanted.kind == "wsd":
        fraction = 0.8 if fraction is None else fraction
    elif end is not None or fraction is None:
        fraction = 0.0  # the cosine starts right after the warm-up
    end = end or total_batches
    start = max(warmup, int(fraction * end))
    return Schedule(wanted.kind, peak, floor, warmup, min(start, end - 1), end, wanted.decay_lr)
