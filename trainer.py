"""The training loop, and nothing that another file could own.

One *batch* is one optimizer step. It takes `gradient_accumulation_steps` micro-batches of new data; its gradient is the
mean over all its predicted tokens, however they fall into micro-batches. Everything periodic (log, evaluate, save,
draw) stands apart from the step and cannot touch its randomness: the order of the data and the seed of every
micro-batch's dropout are pure functions of (seed, position).

Shape letters: A micro-batches per batch, B sequences per micro-batch, T tokens per sequence.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_loader import IGNORED, Batch, PackedLoader
from generation import sample_texts
from jojo.checkpoints.checkpoint import metadata
from jojo.checkpoints.saver import NoSaver, Saver, ShardSaver
from jojo.checkpoints.shards import flat_tensors
from jojo.config_file import save_config
from jojo.machine import device as devices
from jojo.machine import estimate
from jojo.machine.ranks import full_tensor
from jojo.metrics import MetricsTracker
from jojo.optim import load_optimizer_state, make_optimizers, optimizer_state
from jojo.stopping import Every, Shutdown
from jojo.text.packing import mix_key
from training import summary as report
from training.placement import build_model, compile_blocks, place, synchronized
from training.recorder import NoRecord, Record
from training.resume import Mode
from training.run import Run
from utils import UserError, log, log_to_file

LOG_FILE = Path("train.log")
REPEATS_S = 5.0  # torchrun passes on a signal that the ranks may have had already
MAX_SKIPPED_UPDATES = 20  # float16: so many overflowing batches in a row mean divergence, not a scale to be found


@dataclass
class StepResult:
    """What a batch reports. loss: nats per predicted token; grad_norm: before clipping."""

    loss: float
    grad_norm: float


@dataclass
class DeviceBatch:
    """A Batch on the device: inputs and targets int64 (A, B, T)."""

    inputs: Tensor
    targets: Tensor
    n_targets: int


class Trainer:
    """Trains a prepared Run.

    The state that survives a restart is what state_dict() lists; everything else follows from the Run.
    """

    def __init__(self, run: Run) -> None:
        self.run, self.config, self.ranks = run, run.config, run.ranks
        system, training = run.config.system, run.config.training
        devices.set_up_device(system, run.device)
        self.model = build_model(run)
        self.model.transformer.checkpointing = training.activation_checkpointing
        self.scaler = torch.amp.GradScaler(run.device.partition(":")[0], enabled=run.dtype == "float16")
        self.compiled = training.compile_model is True and compile_blocks(
            self.model, training.batch_size, run.device, run.dtype
        )
        self.replica = place(self.model, run)  # the same weights; called in training
        self.optimizers = make_optimizers(self.model, run.config.optimizer, run.dtype)
        self.loader = run.loader()
        self.eval_loaders = {split: run.evaluation_loader(split) for split in ("train", "val")}
        self.byte_lengths = torch.tensor(run.data.tokenizer.byte_lengths, device=run.device)  # (n_vocab,)
        self.metrics = MetricsTracker()
        self.epoch, self.position, self.batches_done = run.start.epoch, run.start.position, run.start.batches_done
        self.reads_ahead = run.device != "cpu"  # a GPU computes by itself; on a CPU there is nothing to overlap
        self.ahead: tuple[tuple[int, int], DeviceBatch] | None = None  # a batch that waits on the device, and its place
        self.skipped_updates = 0
        self.last_evaluation: tuple[int, dict[str, float]] | None = None
        if run.start.mode.loads_optimizer and run.start.checkpoint:
            self.load_state_dict(run.start.checkpoint.state)
        self.flops_per_token = estimate.flops_per_token(run.config.model)
        self.peak_flops: float | None = None  # what MFU is measured against; found when training starts
        self.clock = time.monotonic()  # when this run would have started without interruptions
        self.record, self.saver = NoRecord(), NoSaver()
        self.asked: tuple[Shutdown, Every, Every] | None = None  # for signals; whether the time is over; to be saved
        self.agreed: Sequence[int] = (0, 0, 0)  # what ranks wish after this batch, together

    # --- state ------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything a restart needs, as plain values and tensors: the contents of a checkpoint."""
        return {
            "format_version": 3,
            "model": self.model.state_dict(),
            "config": self.config.to_dict(),
            "derived": sorted(self.run.reasons.derived),
            "tokenizer": self.run.data.tokenizer.definition(),
            "optimizer": optimizer_state(self.optimizers, self.model),
            "lr_scheduler": {
                "schedule": self.run.plan.schedule.to_dict(),
                "total_batches": self.run.plan.total_batches,
            },
            "scaler": self.scaler.state_dict(),
            "rng": {"torch": torch.get_rng_state()},
            "loader": {"epoch": self.epoch, "position": self.position},
            "epoch": self.epoch,
            "batch_counter": self.batches_done,
            "global_iter_num": self.batches_done * self.config.training.gradient_accumulation_steps,
            "skipped_updates": self.skipped_updates,
            "metadata": metadata(self.run.data.fingerprints, self.run.device)
            | {"run": self.run.files.run, "run_id": self.run.start.run_id}
            | ({"init_from": self.run.start.init_from} if self.run.start.init_from else {}),
            **self.metrics.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of state_dict. The weights are in the model already; where in the data to go on is the Run's decision."""
        load_optimizer_state(self.optimizers, self.model, state["optimizer"])
        if self.run.start.checkpoint and self.run.start.checkpoint.shards:
            averages = {"model": {}, "optimizer": optimizer_state(self.optimizers, self.model)}
            self.run.start.checkpoint.shards.read_into(flat_tensors(averages))
        if state.get("scaler"):  # older formats have none, and only float16 needs one
            self.scaler.load_state_dict(state["scaler"])
        if not self.run.start.mode.keeps_counters:
            return
        if "rng" in state:
            try:
                torch.set_rng_state(state["rng"]["torch"])
            except (TypeError, RuntimeError):  # nothing of the training depends on it
                log.warning("The checkpoint's random state is not one of this version of torch; it is left out.")
        self.skipped_updates = state["skipped_updates"]
        self.metrics.load_state_dict(state)

    def move(self) -> None:
        """Go on in a copy of weights and averages, and leave the tensors that state_dict() gave out as they are."""
        averages = (
            value for optimizer in self.optimizers for state in optimizer.state.values() for value in state.values()
        )
        for tensor in (*self.model.parameters(), *averages):
            tensor.data = tensor.detach().clone()

    # --- one batch --------------------------------------------------------------------------------------------------

    def to_device(self, ids: np.ndarray) -> Tensor:
        """Ids on the device; to CUDA from page-locked memory, without waiting for the copy."""
        tensor = torch.from_numpy(ids)
        if self.run.device.startswith("cuda") and self.config.system.pin_memory:
            return tensor.pin_memory().to(self.run.device, non_blocking=True)
        return tensor.to(self.run.device)

    def load(self, epoch: int, position: int) -> DeviceBatch:
        """A batch of the data, on the device or on its way there."""
        if self.ahead and self.ahead[0] == (epoch, position):
            return self.ahead[1]
        return self.send(self.loader.batch(epoch, position))

    def send(self, batch: Batch) -> DeviceBatch:
        """A batch, on its way to the device."""
        return DeviceBatch(self.to_device(batch.inputs), self.to_device(batch.targets), batch.n_targets)

    def load_ahead(self) -> None:
        """Make the batch after this one and send it, while the device still works on this one."""
        last = self.position + 1 == self.run.plan.batches_per_epoch
        place = (self.epoch + 1, 0) if last else (self.epoch, self.position + 1)
        if self.reads_ahead and self.batches_done + 1 < self.run.plan.total_batches:
            self.ahead = place, self.load(*place)

    def step(self, batch: Batch | DeviceBatch) -> StepResult:
        """Train on one batch: forward and backward per micro-batch, one update. One device synchronisation.

        Raises:
            UserError: loss or gradient is not finite; the weights are as they were before.
        """
        self.model.train()
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            group["lr"] = self.run.plan.schedule.lr(self.batches_done)
        total = torch.zeros((), device=self.run.device)
        self.ranks.heartbeat(self.batches_done + 1)
        batch = batch if isinstance(batch, DeviceBatch) else self.send(batch)
        with devices.autocast(self.run.device, self.run.dtype):  # around all of them: weights are cast once
            for micro in range(len(batch.inputs)):
                if self.config.model.dropout:
                    number = micro * self.ranks.world_size + self.ranks.rank  # among all micro-batches of the batch
                    torch.manual_seed(mix_key(self.config.system.seed, self.batches_done, number, 0))
                if self.run.sharded:  # casts of the last micro-batch's would take their gradients past fully_shard
                    torch.clear_autocast_cache()
                last = micro + 1 == len(batch.inputs)
                with synchronized(self.replica, last):
                    loss = self.replica(batch.inputs[micro], batch.targets[micro]) / max(1, batch.n_targets)
                    if last:
                        self.ranks.heartbeat()
                    with devices.no_autocast(self.run.device):  # the ranks' mean gradient is to be their sum
                        self.scaler.scale(loss * self.ranks.world_size).backward()
                total += loss.detach()
        self.ranks.all_reduce_sum(total)
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)  # type: ignore[arg-type]  # it needs param_groups only
        norm = full_tensor(
            torch.nn.utils.get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        )
        self.load_ahead()
        if (
            not self.ranks.is_single
        ):  # while a GPU computes; also, a missing rank ends this in a sentence, and a GPU's wait in an abort
            self.agreed = self.ranks.all_reduce_max(*self.wishes())
        result = StepResult(*torch.stack([total, norm]).tolist())  # the batch's one synchronisation
        self.check_finite(result)
        if 0 < self.config.optimizer.grad_clip < result.grad_norm:
            torch.nn.utils.clip_grads_with_norm_(self.model.parameters(), self.config.optimizer.grad_clip, norm)
        if math.isfinite(result.grad_norm):  # float16 gradients that overflowed: no update, and a smaller scale
            self.saver.before_update()
            for optimizer in self.optimizers:
                optimizer.step()
        self.scaler.update()
        self.model.zero_grad(set_to_none=True)
        return result

    def check_finite(self, result: StepResult) -> None:
        """Stop before the update when the numbers have gone bad."""
        what = "loss" if not math.isfinite(result.loss) else "gradient" if not math.isfinite(result.grad_norm) else None
        overflow = what == "gradient" and self.scaler.is_enabled()
        self.skipped_updates = self.skipped_updates + 1 if overflow else 0
        if what is None or (overflow and self.skipped_updates < MAX_SKIPPED_UPDATES):
            return
        self.model.zero_grad(set_to_none=True)
        documents = self.loader.describe_documents(self.epoch, self.position, self.run.data.tokenizer)
        raise UserError(
            f"The {what} of batch {self.batches_done + 1} is not finite; stopped before it reached the weights. "
            f"{self.remedy()} with a lower --learning_rate, a smaller --optimizer.grad_clip or --dtype float32, "
            f"or look at the documents it was trained on: {documents}."
        )

    def remedy(self) -> str:
        """How to start again after bad numbers; the same on all ranks, which all come here."""
        last = self.run.files.last
        saved = self.ranks.broadcast_text("saved", "yes" if last.exists() else "no") == "yes"
        return f"Go on from '{last}' (--resume and --allow_changes)" if saved else "Start again"

    # --- evaluation -------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Losses on fixed micro-batches of both splits, shared by the ranks, weighed by token; training randomness is left
        alone.

        Returns:
            train_loss_eval and val_loss in nats per token, and bpb: bits per byte of the validation text.
        """
        self.model.eval()
        losses = {}
        for split, name in (("train", "train_loss_eval"), ("val", "val_loss")):
            nats, tokens, text_nats, text_bytes = self._evaluate_split(self.eval_loaders[split])
            losses[name] = nats / tokens
            if split == "val":
                losses["bpb"] = text_nats / math.log(2) / text_bytes if text_bytes else math.nan
        devices.give_back_memory(self.config.system, self.run.device)
        return losses

    def _evaluate_split(self, loader: PackedLoader) -> tuple[float, float, float, float]:
        """Summed loss and count of all targets, then summed loss and bytes of those that are text."""
        parts: list[Tensor] = []
        rounds = -(-loader.batches_per_epoch // self.ranks.world_size)
        for index in range(self.ranks.rank, rounds * self.ranks.world_size, self.ranks.world_size):
            batch = loader.batch(0, index)
            if index >= loader.batches_per_epoch:  # as many rounds on every rank, with nothing to predict in the last
                batch.targets[:] = IGNORED
            inputs, targets = self.to_device(batch.inputs[0]), self.to_device(batch.targets[0])  # (B, T)
            with devices.autocast(self.run.device, self.run.dtype):
                losses = self.model.losses(inputs, targets)
            size = self.byte_lengths[targets.clamp_min(0)] * (targets >= 0)
            parts.append(torch.stack([losses.sum(), (targets >= 0).sum(), (losses * (size > 0)).sum(), size.sum()]))
        nats, tokens, text_nats, text_bytes = self.ranks.all_reduce_sum(
            torch.stack(parts).cpu().double().sum(0)
        ).tolist()
        return nats, tokens, text_nats, text_bytes

    def samples(self) -> list[dict[str, str]]:
        """How the model goes on from the fixed prompts, each with a seed of its own; training randomness is left alone."""
        training, low = self.config.training, self.run.dtype if self.run.sharded else "float32"
        with devices.uncompiled(), devices.autocast(self.run.device, low):
            return sample_texts(
                self.model, self.run.data.tokenizer, training.sample_prompts.split("|"), training.sample_tokens,
                self.config.system.seed, self.ranks.broadcast if self.run.sharded else None,
            )  # fmt: skip

    # --- the loop ---------------------------------------------------------------------------------------------------

    def train(self) -> int:
        """Train to the end, or until a signal or the time limit. Returns the process's exit code."""
        if self.batches_done >= self.run.plan.total_batches:
            log.info(
                "This run is complete (%s batches); raise --epochs or --max_iters to go on, or count anew with --reset_epoch.",
                f"{self.batches_done:,}",
            )
            return 0
        first, files = self.ranks.is_main, self.run.files
        with (
            files.held() if first else nullcontext(),
            log_to_file(LOG_FILE, files.run) if first else nullcontext(),
            report.memory_explained(self.run),
            self.ranks.explain_failures(),
            Shutdown(quiet=not self.ranks.is_single, repeats_s=0.0 if self.ranks.is_single else REPEATS_S) as stop,
        ):
            if first:
                self.start_files()
                self.write_config()
                if self.ranks.job:
                    files.begin_job(self.ranks.job, self.run.start.run_id)
            if self.run.start.checkpoint:
                self.run.start.checkpoint.release()
            self.peak_flops = estimate.peak_flops(self.config.system)
            devices.give_back_memory(self.config.system, self.run.device)
            log.info(report.summary(self.run, self.peak_flops, self.compiled))
            self.saver = make_saver(self.run, self.move)
            self.record = Record(self.run, self.metrics) if first else NoRecord()
            with self.saver, closing(self.record):
                moved = self.batches_done or (
                    self.run.start.checkpoint and self.ranks.job
                )  # a restart may not find it again
                if moved and self.run.start.mode is not Mode.RESUME and self.config.training.save_checkpoints:
                    self.saver.save(self.state_dict(), [files.last])  # from now on --resume finds it here
                self.loop(stop)
            self.record.draw()
            code = self.finish(stop)
            if first and not code:
                files.job.unlink(missing_ok=True)
            self.ranks.wait_for_main("end")  # torchrun ends those that are still at work when others end with an error
            return code

    def loop(self, stop: Shutdown) -> None:
        """Batch after batch: step, report, evaluate, save, draw."""
        training, files, record = self.config.training, self.run.files, self.record
        evaluate, number = Every(training.eval_interval), Every(training.checkpoint_interval)
        sample, milestone = Every(training.sample_interval), Every(training.plot_interval)
        save = Every(seconds=training.checkpoint_minutes * 60)
        limit = Every(seconds=(training.max_minutes or 0) * 60)
        self.asked = stop, limit, save
        self.clock = time.monotonic() - self.metrics.elapsed_s
        first = self.batches_done
        stopped = False
        while self.batches_done < self.run.plan.total_batches and not stopped:
            started = time.perf_counter()
            batch = self.load(self.epoch, self.position)
            result = self.step(batch)
            if self.batches_done == first:  # its operators left what they keep for good between what it freed
                devices.give_back_memory(self.config.system, self.run.device)
            ended = self.advance() or self.batches_done == self.run.plan.total_batches
            seconds = time.perf_counter() - started
            row = self.row(batch, result, seconds)
            record.batch(row, seconds)

            paths = []
            if ended or evaluate.due(self.batches_done):
                losses, is_best = self.evaluate_now()
                row |= losses
                paths += [files.best] if is_best else []
            if sample.due(self.batches_done) and (self.ranks.is_main or self.run.sharded):
                row["samples"] = self.samples()
                record.samples(self.batches_done, row["samples"])
            record.keep(row)
            signal, over, saving = self.wishes() if self.ranks.is_single else self.agreed
            stop.share(signal)
            stopped = bool(signal or over)
            if signal and not self.ranks.is_single:  # not when it came: torchrun sends one where another rank died, too
                log.warning("Stopping%s.", "; the model will be saved" if training.save_checkpoints else "")
            if number.due(self.batches_done):
                paths.append(files.numbered(self.batches_done))
            if ended or stopped or saving:
                paths.append(files.last)
            if paths and training.save_checkpoints:
                self.saver.save(self.state_dict(), paths)
            if milestone.due(self.batches_done):
                record.draw(files.numbered(self.batches_done, ".png"))
            record.draw_if_cheap()

    def wishes(self) -> tuple[int, int, int]:
        """What this rank wants after this batch; of several ranks, the largest counts.

        Returns:
            A signal that it got (0: none); whether the time is over, and whether it is time to save, both by rank 0's clock.
        """
        if self.asked is None:
            return 0, 0, 0
        stop, limit, save = self.asked
        over, due = limit.due(self.batches_done), save.due(self.batches_done)
        return stop.signal_number or 0, int(self.ranks.is_main and over), int(self.ranks.is_main and due)

    def start_files(self) -> None:
        """Before the first batch: what is in the way under the run's name is moved to models/old."""
        start = self.run.start
        self.run.files.start(start.checkpoint, start.run_id, self.batches_done, start.mode is Mode.RESUME)

    def write_config(self) -> None:
        """Leave what was decided beside the record, for people and for the dashboard."""
        try:
            save_config(self.config, self.run.files.config)
        except UserError as error:  # training needs it not
            log.warning("%s", error)

    def advance(self) -> bool:
        """Count a finished batch; True at the end of an epoch."""
        self.batches_done += 1
        self.position += 1
        if self.position < self.run.plan.batches_per_epoch:
            return False
        self.epoch, self.position = self.epoch + 1, 0
        return True

    def row(self, batch: DeviceBatch, result: StepResult, seconds: float) -> dict[str, Any]:
        """The metrics row of a finished batch."""
        self.metrics.elapsed_s = time.monotonic() - self.clock
        self.metrics.tokens += batch.n_targets
        tokens_per_s = batch.n_targets / seconds
        peak = self.ranks.world_size * (self.peak_flops or 0)
        row = {
            "step": self.batches_done,
            "tokens": self.metrics.tokens,
            "elapsed_s": round(self.metrics.elapsed_s, 4),
            "loss": result.loss,
            "lr": self.run.plan.schedule.lr(self.batches_done - 1),
            "grad_norm": result.grad_norm,
            "tokens_per_s": round(tokens_per_s, 2),
            "samples_per_s": round(self.config.rows_per_batch / seconds, 3),
            "mfu": round(tokens_per_s * self.flops_per_token / peak, 5) if peak else None,
            "peak_memory_bytes": devices.peak_memory_bytes(self.run.device),
        }
        self.metrics.add_batch(row)
        return row

    def evaluate_now(self) -> tuple[dict[str, float], bool]:
        """Evaluate, show and remember; returns the losses, and whether they are the best so far."""
        losses = self.evaluate()
        is_best = self.metrics.add_evaluation(self.batches_done, losses)
        self.last_evaluation = self.batches_done, losses
        self.record.evaluation(self.batches_done, losses, is_best)
        return losses, is_best

    def finish(self, stop: Shutdown) -> int:
        """Say how it ended; returns the exit code."""
        if self.saver.failed:
            log.error(
                "Not saved after batch %d: %s. What is there under these names, if anything, is older; --resume goes on from it.",
                self.batches_done, ", ".join(map(str, self.saver.failed)),
            )  # fmt: skip
            return 1
        if self.batches_done < self.run.plan.total_batches:
            saved = self.config.training.save_checkpoints
            where = (
                f"saved to {self.run.files.last}. Go on with:\n  {report.resume_command(self.run)}"
                if saved
                else "not saved."
            )
            log.info("Stopped after batch %d of %d; %s", self.batches_done, self.run.plan.total_batches, where)
            return stop.exit_code
        final = self.last_evaluation[1] if self.last_evaluation else {}
        losses = {
            "final_train_loss": final.get("train_loss_eval", math.nan),
            "final_val_loss": final.get("val_loss", math.nan),
            "bpb": final.get("bpb", math.nan),
            "best_train_loss": self.metrics.train.best,
            "worst_train_loss": self.metrics.train.worst,
            "best_val_loss": self.metrics.val.best,
            "worst_val_loss": self.metrics.val.worst,
        }
        log.info(report.completed(self.run, losses, time.monotonic() - self.clock))
        return stop.exit_code


def make_saver(run: Run, move: Callable[[], None]) -> NoSaver:
    """What writes the checkpoints of a run: rank 0 alone, or every rank the parts that it has.

    `move`: has the training go on in a copy of its tensors.
    """
    if not run.config.training.save_checkpoints:
        return NoSaver()
    if run.sharded:
        return ShardSaver(run.files, run.config.training.keep_checkpoints, run.ranks, run.device)
    return Saver(run.files, run.config.training.keep_checkpoints, move) if run.ranks.is_main else NoSaver()
