"""What a run shows and writes while it trains: a bar or lines, the metrics file, pictures, TensorBoard. Rank 0 only."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from jojo.metrics import MetricsFile, MetricsTracker, NoBoard, TensorBoard
from jojo.plotting import PlotManager
from training.run import Run
from utils import duration, log, short_count


class NoRecord:
    """The record of the other ranks: they keep nothing."""

    def batch(self, row: Mapping[str, Any], seconds: float) -> None:
        """Show a finished batch and how long it took."""

    def evaluation(self, step: int, losses: Mapping[str, float], is_best: bool) -> None:
        """Show an evaluation."""

    def samples(self, step: int, samples: Sequence[Mapping[str, str]]) -> None:
        """Show what the model writes."""

    def keep(self, row: Mapping[str, Any]) -> None:
        """Write the row of a finished batch, evaluation and samples included."""

    def draw(self, milestone: Path | None = None) -> None:
        """Draw the loss curve, under a milestone's name too."""

    def draw_if_cheap(self) -> None:
        """Draw the loss curve, unless drawing would take a noticeable share of the run's time."""

    def close(self) -> None:
        """Close the files."""


class Record(NoRecord):
    """The record of rank 0.

    Args:
        run: the run; its files are opened and continued after the batches that are done.
        metrics: what the pictures show.
    """

    def __init__(self, run: Run, metrics: MetricsTracker) -> None:
        files, done, total = run.files, run.start.batches_done, run.plan.total_batches
        self.metrics = metrics
        self.plot = PlotManager(files.plot, files.run)
        self.forecast = Forecast(total)
        with ExitStack() as opened:
            self.rows = opened.enter_context(closing(MetricsFile(files.metrics, keep_until=done)))
            board = TensorBoard(files.tensorboard, done) if run.tensorboard else NoBoard()
            self.board = opened.enter_context(closing(board))
            self.progress = opened.enter_context(closing(Progress(total, done, run.config.training.log_interval)))
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


class Progress:
    """A live bar on a terminal; elsewhere a line every `log_interval` batches."""

    def __init__(self, total: int, done: int, log_interval: int) -> None:
        from tqdm import tqdm

        self.total, self.log_interval = total, log_interval
        self.live = sys.stderr.isatty()
        self.bar = tqdm(
            total=total, initial=done, unit="batch", disable=not self.live, smoothing=0.1, leave=False,
            dynamic_ncols=True, bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]",
        )  # fmt: skip

    def batch(self, row: Mapping[str, Any]) -> None:
        """Show the row of a finished batch."""
        mfu = f"{row['mfu']:.0%}" if row["mfu"] is not None else "n/a"
        rates = f"{row['samples_per_s']:.1f} seq/s, {short_count(row['tokens_per_s'])} tok/s, MFU {mfu}"
        if self.live:
            self.bar.set_postfix_str(f"loss {row['loss']:.3f}, {rates}, lr {row['lr']:.1e}", refresh=False)
            self.bar.update()
        if self.log_interval and (row["step"] % self.log_interval == 0 or row["step"] == self.total):
            line = "batch %d/%d  loss %.4f  lr %.2e  %s"
            arguments = row["step"], self.total, row["loss"], row["lr"], rates
            log.info(line, *arguments, extra={"file_only": self.live})  # the bar shows it

    def evaluation(self, step: int, losses: Mapping[str, float], is_best: bool) -> None:
        """Show an evaluation."""
        log.info(
            "batch %d/%d  evaluation: training loss %.4f, validation loss %.4f, %.4f bits per byte%s",
            step, self.total, losses["train_loss_eval"], losses["val_loss"], losses["bpb"], " (best)" if is_best else "",
        )  # fmt: skip

    def samples(self, step: int, samples: Sequence[Mapping[str, str]]) -> None:
        """Show what the model writes."""
        for sample in samples:
            text = " ".join((sample["prompt"] + sample["text"]).split())
            log.info("batch %d/%d  sample: %s", step, self.total, text)

    def close(self) -> None:
        self.bar.close()


class Forecast:
    """Estimates once, after the first batches, how long the run will take."""

    BATCHES = 5  # the first is slower than the rest
    DAY_S = 86_400.0

    def __init__(self, total_batches: int) -> None:
        self.total_batches = total_batches
        self.seconds: list[float] = []

    def batch(self, seconds: float, batches_done: int) -> None:
        """Add the time of a batch."""
        left = self.total_batches - batches_done
        if len(self.seconds) == self.BATCHES:
            return
        self.seconds.append(seconds)
        if len(self.seconds) == self.BATCHES and left > 0:
            left_s = left * sorted(self.seconds)[self.BATCHES // 2]
            log.info("About %s left at this speed, evaluations not counted.", duration(left_s))
            if left_s > self.DAY_S:
                log.warning(
                    "That is days; use a GPU, a smaller model (configs/story-small.json) or fewer batches (--max_iters)."
                )
