"""The search of tools/test_mfu_optimization.py: the settings to measure, their order, and the best ones.

This file measures nothing itself; the caller passes a function that does.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from utils import divisors

MIN_GAIN = 0.01  # a smaller gain over the config's own settings counts as noise
MOST_SIZES = 8  # micro-batch sizes to try without --batch_sizes
DOES_NOT_FIT = "does not fit"


@dataclass(frozen=True)
class Settings:
    """What the sweep varies. Tokens per batch stay the same, so results differ only by rounding."""

    batch_size: int
    accumulation: int
    dtype: str
    compiled: bool
    threads: int

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{self.batch_size} x {self.accumulation}, {self.dtype}, {'compiled, ' * self.compiled}{threads}"


@dataclass(frozen=True)
class Answer:
    """What one process measured: medians over its batches, or why it failed."""

    ms: float = 0.0
    tokens_per_s: float = 0.0  # all tokens that the model processed
    peak_memory_bytes: int | None = None
    failed: str | None = None
    predicted: float = 1.0  # the share of these tokens that were predicted


@dataclass
class Row:
    """Settings and their measurements. Keys of ms_of and tokens_per_s_of are numbers of rounds."""

    settings: Settings
    ms_of: dict[int, float] = field(default_factory=dict)
    tokens_per_s_of: dict[int, float] = field(default_factory=dict)
    peak_memory_bytes: int | None = None
    failed: str | None = None
    predicted: float = 1.0

    def add(self, number: int, answer: Answer) -> None:
        """Add a round. Settings that fail once are not measured again."""
        if answer.failed:
            self.failed = answer.failed
            return
        self.ms_of[number], self.tokens_per_s_of[number] = answer.ms, answer.tokens_per_s
        self.predicted = answer.predicted
        if answer.peak_memory_bytes is not None:
            self.peak_memory_bytes = max(self.peak_memory_bytes or 0, answer.peak_memory_bytes)

    @property
    def works(self) -> bool:
        return not self.failed and bool(self.ms_of)

    @property
    def ms(self) -> float:
        return median(self.ms_of.values())

    @property
    def tokens_per_s(self) -> float:
        return median(self.tokens_per_s_of.values())

    def ratio(self, to: Row) -> float:
        """Speed relative to another row: the median over the rounds that both have."""
        shared = self.tokens_per_s_of.keys() & to.tokens_per_s_of.keys()
        if not shared:
            return self.tokens_per_s / to.tokens_per_s
        return median(self.tokens_per_s_of[number] / to.tokens_per_s_of[number] for number in shared)


class Sweep:
    """Measures settings in turns, always together with the config's own, so that noise affects all equally.

    Args:
        own: the config's settings.
        measure: measures settings once.
        rounds: number of turns.
    """

    def __init__(self, own: Settings, measure: Callable[[Settings], Answer], rounds: int) -> None:
        self.own, self.measure, self.rounds = own, measure, rounds
        self.rows: dict[Settings, Row] = {}
        self.interrupted: KeyboardInterrupt | None = None
        self.rounds_done = self.left = self.later = 0  # measurements left in these turns, and in later ones (about)

    def take_turns(self, candidates: Iterable[Settings]) -> None:
        """Measure the candidates that have not been measured yet."""
        new = [settings for settings in dict.fromkeys(candidates) if settings not in self.rows]
        if not new:
            return
        turns = list(dict.fromkeys([*([reference.settings] if (reference := self.reference) else []), *new]))
        for settings in turns:
            self.rows.setdefault(settings, Row(settings))
        self.left = self.rounds * len(turns) + self.later
        for _ in range(self.rounds):
            for settings in turns:
                self.left -= 1
                if not self.rows[settings].failed:
                    self.rows[settings].add(self.rounds_done, self.measure(settings))
            self.rounds_done += 1
            turns.reverse()  # so that a machine that slows down affects all equally

    @property
    def reference(self) -> Row | None:
        """The row that ratios refer to: the config's own settings, or if these fail, the first that work."""
        own = self.rows.get(self.own)
        return own if own and own.works else next((row for row in self.rows.values() if row.works), None)

    @property
    def ranked(self) -> list[Row]:
        """All rows, fastest first; settings that do not work come last."""
        reference = self.reference
        if reference is None:
            return list(self.rows.values())
        works = sorted((row for row in self.rows.values() if row.works), key=lambda row: -row.ratio(reference))
        return works + [row for row in self.rows.values() if not row.works]

    @property
    def best(self) -> Row | None:
        """The fastest, or the config's own if nothing gains more than MIN_GAIN. None: nothing works."""
        reference = self.reference
        if reference is None:
            return None
        fastest = self.ranked[0]
        return fastest if reference.settings != self.own or fastest.ratio(reference) > 1 + MIN_GAIN else reference


def coordinate_search(sweep: Sweep, choices: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Vary one factor after another, each time from the best settings so far.

    If the config's own settings do not work, all factors are tried again from settings that do.

    Args:
        sweep: measures the settings and knows the best so far.
        choices: for each factor, its choices as changes to Settings.
    """
    for _ in range(2):
        for tried, options in enumerate(choices.values(), start=1):
            sweep.later = sweep.rounds * sum(len(others) for others in [*choices.values()][tried:] if len(others) > 1)
            start = sweep.best.settings if sweep.best else sweep.own
            sweep.take_turns([sweep.own, *(replace(start, **option) for option in options)])
        if sweep.rows[sweep.own].works:
            return


def full_search(sweep: Sweep, choices: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Measure every combination, all in the same rounds."""
    combinations = itertools.product(*choices.values())
    changed = [{name: value for option in options for name, value in option.items()} for options in combinations]
    sweep.take_turns([sweep.own, *(replace(sweep.own, **fields) for fields in changed)])


def sizes_to_try(rows: int, own: int) -> list[int]:
    """Micro-batch sizes that divide a batch; if there are many, each is about twice the one before."""
    sizes = divisors(rows)
    if len(sizes) <= MOST_SIZES:
        return sizes
    kept = [own]
    while smaller := [size for size in sizes if 2 * size <= kept[0]]:
        kept.insert(0, smaller[-1])
    while larger := [size for size in sizes if size >= 2 * kept[-1]]:
        kept.append(larger[0])
    return kept
