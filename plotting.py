"""The picture of a run: training loss, validation loss and learning rate against batches, as a PNG."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from metrics import MetricsTracker, Point
from utils import log

SMOOTH_TO = 100  # points of the smoothed training curve


def smooth(points: Sequence[Point]) -> list[Point]:
    """Means of consecutive groups, about SMOOTH_TO of them, each placed at its middle."""
    size = max(1, len(points) // SMOOTH_TO)
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(group[len(group) // 2][0], sum(v for _, v in group) / len(group)) for group in groups]


class PlotManager:
    """Draws a run's picture. A failure is one warning and never reaches the training."""

    def __init__(self, path: Path, title: str) -> None:
        self.path, self.title = path, title
        self._failed = False

    def draw(self, metrics: MetricsTracker) -> None:
        """Write the current picture over the last one."""
        if self._failed or not metrics.train_loss_batch.points:
            return
        try:
            self._draw(metrics)
        except Exception as error:  # no matplotlib, no space, a font that is not there: training goes on
            self._failed = True
            log.warning("No plot: %s: %s. Training goes on without.", type(error).__name__, error)

    def _draw(self, metrics: MetricsTracker) -> None:
        from matplotlib.figure import Figure  # no pyplot: no window system, no state left behind

        figure = Figure(figsize=(9, 6), layout="constrained")
        loss, rate = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
        batches = metrics.train_loss_batch.points
        if len(batches) > SMOOTH_TO:
            loss.plot(*zip(*batches, strict=True), color="tab:blue", alpha=0.2, linewidth=0.8)
        loss.plot(*zip(*smooth(batches), strict=True), color="tab:blue", label="training loss")
        if metrics.val_loss_eval:
            marker = "o" if len(metrics.val_loss_eval) <= 30 else None
            loss.plot(
                *zip(*metrics.val_loss_eval, strict=True),
                color="tab:orange", marker=marker, markersize=4, label="validation loss",
            )  # fmt: skip
            loss.set_title(f"{self.title}: best validation loss {metrics.val.best:.4f}", parse_math=False)
        else:
            loss.set_title(self.title, parse_math=False)
        loss.set_ylabel("loss (nats per token)")
        loss.legend(loc="upper right")
        rate.plot(*zip(*metrics.learning_rate.points, strict=True), color="tab:green")
        rate.set_ylabel("learning rate")
        rate.set_ylim(bottom=0)
        rate.set_xlabel("batch")
        for axes in (loss, rate):
            axes.grid(alpha=0.3)
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            figure.savefig(temporary, format="png", dpi=110)
            os.replace(temporary, self.path)
        finally:
            temporary.unlink(missing_ok=True)
