"""The plot of a run, as a PNG: training loss, validation loss and learning rate against batches."""

from __future__ import annotations

import logging
import math
import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jojo.metrics import MetricsTracker, Point
from utils import log, new_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SMOOTH_TO = 100  # points of the smoothed training curve
SPARSE = 10  # up to this many points are drawn as squares, more points as dots
MARKERS_UP_TO = 300  # with more points, a line without markers is easier to read
MAX_SHARE = 0.01  # of a run's time may be spent on drawing, milestones not counted
FIRST_DRAWING_S = 1.0  # assumed until one plot was timed
TRAIN_COLOR, VAL_COLOR, LR_COLOR = "#0072b2", "#d55e00", "#009e73"  # safe for colour-blind readers (Okabe & Ito)


@dataclass(frozen=True)
class Losses:
    """The curves of one run."""

    train: list[Point]
    val: list[Point]
    batches: list[Point]  # the loss of every batch, for the faint line; empty if `train` shows it already
    x_label: str  # says whether `train` is the smoothed loss of the batches
    reason: str  # why these curves were chosen, for --debug


def choose_losses(metrics: MetricsTracker) -> Losses:
    """The losses of evaluations; with two or fewer evaluations, those of batches, smoothed. Only finite values are drawn."""
    evaluations, validations = finite(metrics.train_loss_eval), finite(metrics.val_loss_eval)
    batches = finite(metrics.train_loss_batch.points)
    if len(validations) == 1 and batches:  # a single validation loss is drawn at the curve's end
        validations = [(max(batches[-1][0], validations[0][0]), validations[0][1])]
    if len(evaluations) > 2 or not batches:
        return Losses(evaluations, validations, batches, "batch", f"{len(evaluations)} evaluations")
    curve = smooth(batches)
    reason = f"{len(batches)} batch losses in {len(curve)} groups, because there are {len(evaluations)} evaluations"
    behind = batches if len(curve) < len(batches) else []
    return Losses(curve, validations, behind, "batch (training loss smoothed)", reason)


def finite(points: Sequence[Point]) -> list[Point]:
    """The points whose value is a finite number."""
    return [(step, value) for step, value in points if math.isfinite(value)]


def smooth(points: Sequence[Point]) -> list[Point]:
    """Split the points into about SMOOTH_TO groups; returns each group's mean, at the middle of the group."""
    size = max(1, len(points) // SMOOTH_TO)
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(group[len(group) // 2][0], sum(v for _, v in group) / len(group)) for group in groups]


class PlotManager:
    """Draws a run's plot while it trains. If drawing fails, it warns once and draws no more; training continues.

    The current plot is replaced each time; a milestone's plot is kept. If not `enabled`, nothing is drawn.
    """

    def __init__(self, path: Path, title: str, enabled: bool = True) -> None:
        self.path, self.title, self._enabled = path, title, enabled
        self._started, self._spent, self._longest = time.monotonic(), 0.0, FIRST_DRAWING_S

    def draw_if_cheap(self, metrics: MetricsTracker) -> None:
        """Draw if all drawing so far, this one included, takes at most MAX_SHARE of the time since the start."""
        if self._spent + self._longest <= MAX_SHARE * (time.monotonic() - self._started):
            started = time.monotonic()
            self.draw(metrics)
            self._longest = time.monotonic() - started
            self._spent += self._longest

    def draw(self, metrics: MetricsTracker, milestone: Path | None = None) -> None:
        """Replace the current plot, and write the same plot to a milestone's path."""
        if not self._enabled or not metrics.train_loss_batch.points:
            return
        try:
            losses = choose_losses(metrics)
            log.debug("Plot: %s.", losses.reason)
            for path in filter(None, (milestone, self.path)):  # a figure that is saved again gets another layout
                save_figure(plot_run(self.title, losses, metrics.learning_rate.points), path)
        except Exception as error:  # matplotlib or a font is missing, the disk is full
            self._enabled = False
            log.warning("No plot: %s: %s. Training continues without it.", type(error).__name__, error)


def plot_run(title: str, losses: Losses, learning_rate: Sequence[Point]) -> Figure:
    """One run: its losses above, its learning rate below."""
    figure, axes, below = panels(title)
    if losses.batches:
        axes.plot(*zip(*losses.batches, strict=True), color=TRAIN_COLOR, alpha=0.2, linewidth=0.8)
    for name, points, color in (("training", losses.train, TRAIN_COLOR), ("validation", losses.val, VAL_COLOR)):
        if points:
            step, value = min(points, key=lambda point: point[1])
            label = f"{name} loss, lowest {value:.4f} at batch {step:,}"
            axes.plot(*zip(*points, strict=True), color=color, label=label, **marks(points))
            axes.plot([step], [value], marker="o", markersize=10, fillstyle="none", color=color)
    draw_rates(below, learning_rate, LR_COLOR)
    below.set_xlabel(losses.x_label)
    add_legend(figure, axes)
    return figure


def panels(title: str) -> tuple[Figure, Axes, Axes]:
    """An empty plot: losses above, learning rate below, with one axis of batches."""
    figure = new_figure(9, 6)
    from matplotlib.ticker import MaxNLocator

    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    axes.set_title(title)
    axes.set_ylabel("loss (nats per token)")
    below.set_ylabel("learning rate")
    below.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    below.xaxis.set_major_formatter("{x:,.0f}")
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
    """Squares for sparse data, dots for dense data, no markers where they would overlap."""
    if len(points) > MARKERS_UP_TO:
        return {"marker": None}
    return {"marker": "s", "markersize": 5} if len(points) <= SPARSE else {"marker": "o", "markersize": 2.5}


def add_legend(figure: Figure, axes: Axes, title: str | None = None) -> None:
    """A legend above the axes, where it hides no curve."""
    if handles := axes.get_legend_handles_labels()[0]:
        figure.legend(handles=handles, fontsize=9, loc="outside upper right", ncols=2, title=title, frameon=False)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches. Call it before importing anything else from matplotlib."""
    os.environ.pop("MPLBACKEND", None)  # a notebook's backend is an error where it is not installed
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it would warn of its caches and fonts
    from matplotlib.figure import Figure  # not pyplot, which would look for a window system

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG, whole or not at all. Characters that cannot be drawn become escapes such as \\u65e5."""
    from matplotlib.font_manager import findfont, get_font
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)  # a name may have a "$"
        font = get_font(findfont(text.get_fontproperties()))
        text.set_text("".join(
            c if c.isprintable() and font.get_char_index(ord(c)) else c.encode("unicode_escape").decode()
            for c in text.get_text()
        ))  # fmt: skip
    with warnings.catch_warnings(), new_file(path) as file:
        warnings.simplefilter("ignore", UserWarning)  # long names leave no room for the curves
        figure.savefig(file, format="png", dpi=110)
