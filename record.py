"""What a run writes down and shows while it trains: metrics, pictures, lines. Rank 0 keeps it for all ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import report
from metrics import MetricsFile, MetricsTracker, open_board
from plotting import PlotManager
from run import Run


class NoRecord:
    """What the other ranks keep: nothing."""

    def batch(self, row: Mapping[str, Any], seconds: float) -> None:
        """Show a finished batch, which took so long."""

    def evaluation(self, step: int, losses: Mapping[str, float], is_best: bool) -> None:
        """Show an evaluation."""

    def samples(self, step: int, samples: Sequence[Mapping[str, str]]) -> None:
        """Show what the model writes by now."""

    def keep(self, row: Mapping[str, Any]) -> None:
        """Write the row of a finished batch, evaluation and samples included."""

    def draw(self, milestone: Path | None = None) -> None:
        """Draw the loss curve, and keep it under a milestone's name too."""

    def draw_if_cheap(self) -> None:
        """Draw the loss curve where the time for it has been earned."""

    def close(self) -> None:
        """Close the files."""


class Record(NoRecord):
    """See the module's first line.

    Args:
        run: what trains; its files are opened here and go on after the batches that are done.
        metrics: what the pictures show.
    """

    def __init__(self, run: Run, metrics: MetricsTracker) -> None:
        files, training, done = run.files, run.config.training, run.batches_done
        self.metrics = metrics
        self.plot = PlotManager(files.plot, files.run)
        self.forecast = report.Forecast(run)
        with ExitStack() as opened:
            self.rows = opened.enter_context(closing(MetricsFile(files.metrics, keep_until=done)))
            self.board = opened.enter_context(closing(open_board(run.tensorboard, files.tensorboard, done)))
            self.progress = report.Progress(run.total_batches, done, training.log_interval)
            opened.callback(self.progress.close)
            self._opened = opened.pop_all()

    def batch(self, row: Mapping[str, Any], seconds: float) -> None:
        self.progress.batch(row)
        self.forecast.batch(seconds, row["step"])

    def evaluation(self, step: int, losses: Mapping[str, float], is_best: bool) -> None:
        self.progress.evaluation(step, losses, is_best)

    def samples(self, step: int, samples: Sequence[Mapping[str, str]]) -> None:
        self.progress.samples(step, samples)

    def keep(self, row: Mapping[str, Any]) -> None:
        self.rows.append(row)
        self.board.add(row)

    def draw(self, milestone: Path | None = None) -> None:
        self.plot.draw(self.metrics, milestone)

    def draw_if_cheap(self) -> None:
        self.plot.draw_if_cheap(self.metrics)

    def close(self) -> None:
        self._opened.close()
