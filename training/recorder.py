"""What a run shows and writes while it trains: a bar or lines, the metrics file, pictures, TensorBoard. Rank 0 only."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from jojo.machine.device import peak_memory_bytes
from jojo.metrics import MetricsFile, MetricsTracker, NoBoard, TensorBoard
from jojo.plotting import PlotManager
from model import formulas
from training.run import Run
from utils import duration, log, short_count


class NoRecord:
    """The record of the other ranks: they keep nothing."""

    def batch(self, step: int, loss: float, grad_norm: float, n_targets: int, seconds: float) -> None:
        """Show batch number `step`, from 1, and begin its row. It has predicted `n_targets` tokens in `seconds`."""

    def evaluation(self, losses: Mapping[str, float], is_best: bool) -> None:
        """Show an evaluation and add it to the row."""

    def samples(self, samples: Sequence[Mapping[str, str]]) -> None:
        """Show what the model writes and add it to the row."""

    def write(self) -> None:
        """Write the row."""

    def draw(self, milestone: Path | None = None) -> None:
        """Draw the loss curve, under a milestone's name too."""

    def draw_if_cheap(self) -> None:
        """Draw the loss curve, unless drawing would take a noticeable share of the run's time."""

    def close(self) -> None:
        """Close the files."""


class Record(NoRecord):
    """The record of rank 0: a live bar on a terminal, elsewhere a line every `log_interval` batches, and all files.

    Args:
        run: the run; its files are opened and continued after the batches that are done.
        metrics: gets every row; the pictures show it.
        peak_flops: of the device, what MFU is measured against; None: unknown.
    """

    def __init__(self, run: Run, metrics: MetricsTracker, peak_flops: float | None) -> None:
        from tqdm import tqdm

        files, done, total = run.files, run.start.batches_done, run.plan.total_batches
        self.run, self.metrics, self.peak_flops, self.total = run, metrics, peak_flops, total
        self.row: dict[str, Any] = {}
        self.plot = PlotManager(files.plot, files.run)
        self.forecast = Forecast(total)
        self.live = sys.stderr.isatty()
        with ExitStack() as opened:
            self.rows = opened.enter_context(closing(MetricsFile(files.metrics, keep_until=done)))
            board = TensorBoard(files.tensorboard, done) if run.tensorboard else NoBoard()
            self.board = opened.enter_context(closing(board))
            self.bar = opened.enter_context(tqdm(
                total=total, initial=done, unit="batch", disable=not self.live, smoothing=0.1, leave=False,
                dynamic_ncols=True, bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]",
            ))  # fmt: skip
            self._opened = opened.pop_all()

    def batch(self, step: int, loss: float, grad_norm: float, n_targets: int, seconds: float) -> None:
        config, metrics = self.run.config, self.metrics
        metrics.elapsed_s = metrics.read_clock()
        metrics.tokens += n_targets
        tokens_per_s, rows_per_s = n_targets / seconds, config.rows_per_batch / seconds
        flops_per_s = tokens_per_s * formulas(config.model).flops_per_token
        peak = self.run.ranks.world_size * (self.peak_flops or 0)
        mfu = round(flops_per_s / peak, 5) if peak else None
        lr = self.run.plan.schedule.lr(step - 1)
        self.row = {
            "step": step,
            "tokens": metrics.tokens,
            "elapsed_s": round(metrics.elapsed_s, 4),
            "loss": loss,
            "lr": lr,
            "grad_norm": grad_norm,
            "tokens_per_s": round(tokens_per_s, 2),
            "samples_per_s": round(rows_per_s, 3),
            "mfu": mfu,
            "peak_memory_bytes": peak_memory_bytes(config.system.device),
        }
        metrics.add_batch(self.row)
        share = "n/a" if mfu is None else f"{mfu:.0%}"
        speed = f"{rows_per_s:.1f} seq/s, {short_count(tokens_per_s)} tok/s, MFU {share}"
        self.bar.set_postfix_str(f"loss {loss:.3f}, {speed}, lr {lr:.1e}", refresh=False)
        self.bar.update()
        interval = config.training.log_interval
        if interval and (step % interval == 0 or step == self.total):
            line = f"batch {step}/{self.total}  loss {loss:.4f}  lr {lr:.2e}  {speed}"
            log.info("%s", line, extra={"file_only": self.live})  # the bar shows it
        self.forecast.batch(seconds, step)

    def evaluation(self, losses: Mapping[str, float], is_best: bool) -> None:
        self.row |= losses
        log.info(
            "batch %d/%d  evaluation: training loss %.4f, validation loss %.4f, %.4f bits per byte%s", self.row["step"],
            self.total, losses["train_loss_eval"], losses["val_loss"], losses["bpb"], " (best)" if is_best else "",
        )  # fmt: skip

    def samples(self, samples: Sequence[Mapping[str, str]]) -> None:
        self.row["samples"] = samples
        for sample in samples:
            text = " ".join((sample["prompt"] + sample["text"]).split())
            log.info("batch %d/%d  sample: %s", self.row["step"], self.total, text)

    def write(self) -> None:
        self.rows.append(self.row)
        self.board.add(self.row)

    def draw(self, milestone: Path | None = None) -> None:
        self.plot.draw(self.metrics, milestone)

    def draw_if_cheap(self) -> None:
        self.plot.draw_if_cheap(self.metrics)

    def close(self) -> None:
        self._opened.close()


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
