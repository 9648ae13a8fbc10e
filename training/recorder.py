"""What a run writes down and shows while it trains: metrics, pictures, lines. Rank 0 keeps it for all ranks."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from config import Config, file_layers, resolve
from jojo.metrics import MetricsFile, MetricsTracker, open_board
from jojo.plotting import PlotManager
from training.run import Run
from training.summary import flops
from utils import duration, log, short_count


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
        files, training, done = run.files, run.config.training, run.start.batches_done
        self.metrics = metrics
        self.plot = PlotManager(files.plot, files.run)
        self.forecast = Forecast(run)
        with ExitStack() as opened:
            self.rows = opened.enter_context(closing(MetricsFile(files.metrics, keep_until=done)))
            self.board = opened.enter_context(closing(open_board(run.tensorboard, files.tensorboard, done)))
            self.progress = Progress(run.plan.total_batches, done, training.log_interval)
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


DAY_S = 86_400.0


class Progress:
    """A live bar on a terminal; plain lines every `log_interval` batches everywhere else."""

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
            log.info(line, *arguments, extra={"file_only": self.live})  # on a terminal the bar says it

    def evaluation(self, step: int, losses: Mapping[str, float], is_best: bool) -> None:
        """Show an evaluation."""
        log.info(
            "batch %d/%d  evaluation: training loss %.4f, validation loss %.4f, %.4f bits per byte%s",
            step, self.total, losses["train_loss_eval"], losses["val_loss"], losses["bpb"], " (best)" if is_best else "",
        )  # fmt: skip

    def samples(self, step: int, samples: Sequence[Mapping[str, str]]) -> None:
        """Show what the model writes by now."""
        for sample in samples:
            text = " ".join((sample["prompt"] + sample["text"]).split())
            log.info("batch %d/%d  sample: %s", step, self.total, text)

    def close(self) -> None:
        self.bar.close()


class Forecast:
    """Says once, after the first batches, how long the run will take; and what to do when that is days."""

    BATCHES = 5  # the first is slower than the rest

    def __init__(self, run: Run) -> None:
        self.run = run
        self.seconds: list[float] = []

    def batch(self, seconds: float, batches_done: int) -> None:
        """Take in a batch's time."""
        if len(self.seconds) >= self.BATCHES:
            return
        self.seconds.append(seconds)
        left = self.run.plan.total_batches - batches_done
        if len(self.seconds) == self.BATCHES and left > 0:
            batch_s = sorted(self.seconds)[self.BATCHES // 2]
            log.info("About %s to go at this rate (evaluations not counted).", duration(left * batch_s))
            if left * batch_s > DAY_S:
                self.advise(batch_s)

    def advise(self, batch_s: float) -> None:
        """Name a config that would not take days here, by its FLOPs at the rate measured."""
        small = small_config()
        share = flops(small, small.training.max_iters or 0) / flops(self.run.config, 1)
        log.warning(
            "That is days on this device. configs/story-small.json would take about %s; a GPU, a smaller model or fewer "
            "batches (--max_iters) shorten this one.",
            duration(share * batch_s),
        )


def small_config() -> Config:
    """The config that newcomers start with."""
    config, _ = resolve(file_layers(Path(__file__).resolve().parents[1] / "configs" / "story-small.json"))
    config.model.vocab_size = config.model.vocab_size or 50304
    return config
