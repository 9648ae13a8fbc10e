"""The picture of a run, or of several: training loss, validation loss and learning rate against batches, as a PNG.

Which losses stand for the training is decided as 2.0.2 did: those of evaluations; where there are two or fewer, those of
the batches, smoothed to about 100 points.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jojo.metrics import MetricsTracker, Point
from utils import log

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SMOOTH_TO = 100  # points of the smoothed training curve
SPARSE = 10  # up to so many points are drawn as squares, more as dots
MARKERS_UP_TO = 300  # points; beyond, a line alone reads better
SHARE = 0.01  # of a run's time that its pictures may take, milestones aside
FIRST_DRAWING_S = 1.0  # what a picture is reckoned to take before the first one was drawn
TRAIN_COLOR, VAL_COLOR, LR_COLOR = "#0072b2", "#d55e00", "#009e73"  # told apart with any kind of eyes (Okabe & Ito)
RUN_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#000000")


def smooth(points: Sequence[Point]) -> list[Point]:
    """Means of consecutive groups, about SMOOTH_TO of them, each placed at its middle."""
    size = max(1, len(points) // SMOOTH_TO)
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(group[len(group) // 2][0], sum(v for _, v in group) / len(group)) for group in groups]


@dataclass(frozen=True)
class Losses:
    """What is drawn of one run.

    train, val: curves; batches: every batch's loss, for the faint line behind (empty where train is all there is).
    smoothed: train are batch losses, smoothed, not those of evaluations.
    reason: why, for --debug.
    """

    train: list[Point]
    val: list[Point]
    batches: list[Point]
    smoothed: bool
    reason: str

    @property
    def label(self) -> str:
        """Of the horizontal axis."""
        return "Training Step (Smoothed)" if self.smoothed else "Step"


def choose_losses(metrics: MetricsTracker) -> Losses:
    """Evaluations first; with two or fewer of them, batch losses. Values that are no numbers are left out."""
    evaluations, validations = finite(metrics.train_loss_eval), finite(metrics.val_loss_eval)
    batches = finite(metrics.train_loss_batch.points)
    if len(validations) == 1 and batches:  # the last step there is, so that it stands at the curve's end
        validations = [(max(batches[-1][0], validations[0][0]), validations[0][1])]
    if len(evaluations) > 2 or not batches:
        return Losses(evaluations, validations, batches, False, f"{len(evaluations)} evaluations")
    curve = smooth(batches)
    reason = f"{len(batches)} batch losses in {len(curve)} groups, because there are {len(evaluations)} evaluations"
    return Losses(curve, validations, batches if len(curve) < len(batches) else [], True, reason)


def finite(points: Sequence[Point]) -> list[Point]:
    """Points whose value is a finite number."""
    return [(step, value) for step, value in points if math.isfinite(value)]


class PlotManager:
    """Draws a run's picture while it trains. A failure is one warning and never reaches the training.

    The current picture is written over; a milestone's is kept. Drawing that is not asked for as a milestone waits until
    all of it together takes at most SHARE of the time since the start.
    """

    def __init__(self, path: Path, title: str) -> None:
        self.path, self.title = path, title
        self._failed = False
        self._started, self._spent, self._longest = time.monotonic(), 0.0, FIRST_DRAWING_S

    def draw_if_cheap(self, metrics: MetricsTracker) -> None:
        """Bring the current picture up to date where the time for it has been earned."""
        if self._spent + self._longest <= SHARE * (time.monotonic() - self._started):
            started = time.monotonic()
            self.draw(metrics)
            self._longest = time.monotonic() - started
            self._spent += self._longest

    def draw(self, metrics: MetricsTracker, milestone: Path | None = None) -> None:
        """Write the current picture over the last one, and keep it as a milestone's where that is given."""
        if self._failed or not metrics.train_loss_batch.points:
            return
        try:
            losses = choose_losses(metrics)
            log.debug("Plot: %s.", losses.reason)
            figure = picture(self.title, losses, metrics.learning_rate.points)
            for path in (milestone, self.path):
                if path:
                    save_figure(figure, path)
        except Exception as error:  # no matplotlib, no space, a font that is not there: training goes on
            self._failed = True
            log.warning("No plot: %s: %s. Training goes on without.", type(error).__name__, error)


def picture(title: str, losses: Losses, learning_rate: Sequence[Point]) -> Figure:
    """One run: its losses above, its learning rate below."""
    figure, axes, below = panels(title)
    if losses.batches:
        axes.plot(*zip(*losses.batches, strict=True), color=TRAIN_COLOR, alpha=0.2, linewidth=0.8)
    lowest = [
        lowest_marked(axes, losses.train, "Min Train", TRAIN_COLOR, "training loss"),
        lowest_marked(axes, losses.val, "Min Val", VAL_COLOR, "validation loss"),
    ]
    notes = [(text, color) for text, color in lowest if text]
    make_room_above(axes, notes)
    draw_rates(below, learning_rate, LR_COLOR)
    below.set_xlabel(losses.label)
    return figure


def comparison(title: str, runs: Sequence[tuple[str, MetricsTracker]]) -> Figure:
    """Several runs: each in a colour of its own, training losses as lines, validation losses dashed."""
    figure, axes, below = panels(title)
    labels, notes = set(), []
    for number, (name, metrics) in enumerate(runs):
        losses, color = choose_losses(metrics), RUN_COLORS[number % len(RUN_COLORS)]
        labels.add(losses.label)
        if losses.train:
            only = marks(losses.train) if len(losses.train) == 1 else {}
            axes.plot(*zip(*losses.train, strict=True), color=color, label=name, linewidth=1.5, **only)
        if losses.val:
            axes.plot(*zip(*losses.val, strict=True), color=color, linestyle="--", **marks(losses.val))
            notes.append((f"Min Val {min(v for _, v in losses.val):.4f}", color))
        draw_rates(below, metrics.learning_rate.points, color)
    make_room_above(axes, notes, "training (validation dashed)")
    below.set_xlabel(" / ".join(sorted(labels)))
    return figure


def panels(title: str) -> tuple[Figure, Axes, Axes]:
    """An empty picture: losses above, learning rate below, one axis of batches."""
    from matplotlib.figure import Figure  # no pyplot: no window system, no state left behind
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 6), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    axes.set_title(title, parse_math=False)
    axes.set_ylabel("loss (nats per token)")
    below.set_ylabel("learning rate")
    below.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    below.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    for part in (axes, below):
        part.ticklabel_format(axis="y", useOffset=False)
        part.grid(alpha=0.3)
        part.spines[["top", "right"]].set_visible(False)
    return figure, axes, below


def draw_rates(axes: Axes, rates: Sequence[Point], color: str) -> None:
    """The learning rate, on an axis that begins at 0."""
    if rates := finite(rates):
        axes.plot(*zip(*rates, strict=True), color=color, marker="s" if len(rates) == 1 else None)
        axes.set_ylim(0, None)


def marks(points: Sequence[Point]) -> dict[str, Any]:
    """Squares for sparse data, dots for dense, none where they would run into one another."""
    if len(points) > MARKERS_UP_TO:
        return {"marker": None}
    return {"marker": "s", "markersize": 5} if len(points) <= SPARSE else {"marker": "o", "markersize": 2.5}


def lowest_marked(axes: Axes, points: list[Point], name: str, color: str, label: str) -> tuple[str, str]:
    """Draw a curve and ring its lowest point; returns what to note about it (nothing for no points), and the colour."""
    if not points:
        return "", color
    axes.plot(*zip(*points, strict=True), color=color, label=label, **marks(points))
    step, value = min(points, key=lambda point: point[1])
    axes.plot([step], [value], marker="o", markersize=10, fillstyle="none", color=color)
    return f"{name} {value:.4f} at {step:,}", color


def make_room_above(axes: Axes, notes: Sequence[tuple[str, str]], title: str | None = None) -> None:
    """Put legend and notes into a band above all curves, made for them: so they cannot meet one."""
    handles = axes.get_legend_handles_labels()[0]
    if not handles:
        return
    columns = 2 if len(handles) + len(notes) > 6 else 1
    lines = max(-(-len(handles) // columns) + (1 if title else 0), -(-len(notes) // columns))
    low, high = axes.get_ylim()
    share = min(0.6, 0.03 + 0.062 * lines)  # of the height that the band takes
    axes.set_ylim(low, high + (high - low) * share / (1 - share))
    legend = axes.legend(loc="upper right", ncols=columns, title=title, fontsize=9, title_fontsize=9, framealpha=0.0)
    for text in legend.get_texts():
        text.set_parse_math(False)
    for number, (note, color) in enumerate(notes):
        column, line = number % columns, number // columns
        place = (0.01 + 0.23 * column, 0.985 - 0.055 * line)
        axes.text(*place, note, transform=axes.transAxes, color=color, fontsize=9, ha="left", va="top")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        figure.savefig(temporary, format="png", dpi=110)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
