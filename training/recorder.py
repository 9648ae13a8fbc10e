"""Shows a run's progress and writes its metrics: progress bar or lines, metrics file, plots, TensorBoard."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median
from typing import Any

import torch

from jojo.machine.device import peak_memory_bytes
from jojo.metrics import MetricsFile, MetricsTracker, TensorBoard
from jojo.networks import formulas
from jojo.plotting import PlotManager
from training.run import Run
from utils import duration, log, short_count

FORECAST_AFTER = 5  # batches; the first one is slower than the rest
BUSY = "Other programs use the cores: training waits %.0f%% of the time. OMP_NUM_THREADS=1 may be faster; stop and resume with it."
CORE_TIMES = Path("/proc/thread-self/schedstat")  # ns in which this thread ran, and waited for a free core; Linux only


class Record:
    """Shows and records a run: a progress bar on a terminal, or else a line every `log_interval` batches, and all files.

    Only rank 0 shows and writes anything.
    """

    def __init__(self, run: Run, metrics: MetricsTracker, peak_flops: float | None) -> None:
        """Open the files, to continue after the rows of finished batches. `peak_flops`: the device's FLOP/s, if known."""
        from tqdm import tqdm

        files, done, is_main = run.files, run.start.batches_done, run.ranks.is_main
        self.run, self.metrics, self.peak_flops, self.total = run, metrics, peak_flops, run.plan.total_batches
        self.row: dict[str, Any] = {}
        self.seconds: list[float] = []  # how long each of the first batches took
        self.may_warn = run.device == "cpu" and run.ranks.is_single and torch.get_num_threads() > 1
        self.plot = PlotManager(files.plot, files.run, enabled=is_main)
        self.outputs: list[MetricsFile | TensorBoard] = []
        self.live = is_main and sys.stderr.isatty()
        with ExitStack() as opened:  # closes what is open if an error comes before pop_all
            if is_main:
                self.outputs.append(opened.enter_context(closing(MetricsFile(files.metrics, done, metrics))))
            if is_main and run.tensorboard:
                self.outputs.append(opened.enter_context(closing(TensorBoard(files.tensorboard, done))))
            self.bar = opened.enter_context(tqdm(
                total=self.total, initial=done, unit="batch", disable=not self.live, smoothing=0.1, leave=False,
                dynamic_ncols=True, bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]",
            ))  # fmt: skip
            self.close = opened.pop_all().close

    def batch(self, step: int, loss: float, grad_norm: float, n_targets: int, seconds: float) -> None:
        """Show batch number `step` (from 1) and begin its row. The batch predicted `n_targets` tokens in `seconds`."""
        config, metrics = self.run.config, self.metrics
        metrics.elapsed_s = metrics.read_clock()
        metrics.tokens += n_targets
        tokens_per_s, rows_per_s = n_targets / seconds, config.rows_per_batch / seconds
        flops_per_s = config.tokens_per_batch / seconds * formulas(config.model).flops_per_token
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
        mfu_text = "n/a" if mfu is None else f"{mfu:.0%}"
        share = n_targets / config.tokens_per_batch  # below 1 in chats, where only answers are predicted
        predicted = f" ({share:.0%} of all)" if share < 0.99 else ""
        speed = f"{rows_per_s:.1f} seq/s, {short_count(tokens_per_s)} tok/s{predicted}, MFU {mfu_text}"
        self.bar.set_postfix_str(f"loss {loss:.3f}, {speed}, lr {lr:.1e}", refresh=False)
        self.bar.update()
        interval = config.training.log_interval
        if interval and (step % interval == 0 or step == self.total):
            line = f"batch {step}/{self.total}  loss {loss:.4f}  lr {lr:.2e}  {speed}"
            log.info("%s", line, extra={"file_only": self.live})  # a live bar shows the same
        if len(self.seconds) < FORECAST_AFTER:
            self.seconds.append(seconds)
            if len(self.seconds) == FORECAST_AFTER and step < self.total:
                left = duration((self.total - step) * median(self.seconds))
                log.info("About %s left at this speed, evaluations not counted.", left)
        if self.may_warn and step % 5 == 0 and CORE_TIMES.exists():
            ran, waited, *_ = map(int, CORE_TIMES.read_text().split())
            if waited > max(ran / 2, 10e9):
                self.may_warn = False
                log.warning(BUSY, 100 * waited / (ran + waited))

    def evaluation(self, losses: Mapping[str, float], is_best: bool) -> None:
        self.row |= losses
        log.info(
            "batch %d/%d  evaluation: training loss %.4f, validation loss %.4f, %.4f bits per byte%s", self.row["step"],
            self.total, losses["train_loss_eval"], losses["val_loss"], losses["bpb"], " (best)" if is_best else "",
        )  # fmt: skip

    def tasks(self, scores: Mapping[str, float]) -> None:
        """Show and record the share of right answers in the built-in tasks."""
        self.row["tasks"] = dict(scores)
        shares = ", ".join(f"{name} {share:.3f}" for name, share in scores.items())
        log.info("batch %d/%d  tasks: %s", self.row["step"], self.total, shares)

    def samples(self, samples: Sequence[Mapping[str, str]]) -> None:
        self.row["samples"] = samples
        for sample in samples:
            text = " ".join((sample["prompt"] + sample["text"]).split())
            log.info("batch %d/%d  sample: %s", self.row["step"], self.total, text)

    def write(self) -> None:
        """Write the row, once."""
        for output in self.outputs if self.row else ():
            output.append(self.row)
        self.row = {}
