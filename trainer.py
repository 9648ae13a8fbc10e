"""The training loop. It reads from top to bottom: state, one batch, evaluation, the loop.

One *batch* is one optimizer step. It takes `gradient_accumulation_steps` micro-batches of new data, and its gradient is the
mean over its predicted tokens. Everything periodic (log, evaluate, save, plot) is outside the step and cannot change the
result: the order of the data and the seed of dropout for each micro-batch are pure functions of (seed, position).

Shape letters: A micro-batches per batch, B sequences per micro-batch, T tokens per sequence.
"""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data_loader import IGNORED, DeviceBatch, DeviceLoader, PackedLoader
from evaluation.builtin import chosen_tasks
from evaluation.choices import run_task
from evaluation.intervals import ratio_error
from generation import sample_texts
from jojo.averaging import WeightAverage
from jojo.checkpoints.checkpoint import metadata
from jojo.checkpoints.saver import NoSaver, Saver, ShardSaver
from jojo.checkpoints.shards import flat_tensors
from jojo.config_file import save_config
from jojo.machine import device as devices
from jojo.machine import estimate
from jojo.machine.ranks import full_tensor
from jojo.metrics import MetricsFile, MetricsTracker
from jojo.optim import load_optimizer_state, make_optimizers, optimizer_state
from jojo.plotting import PlotManager
from jojo.stopping import Shutdown, StopFlags, due
from jojo.text.packing import mix_key
from training.placement import build_model, compile_blocks, is_compiled, place, synchronized
from training.recorder import Record
from training.report import write_report
from training.resume import Mode
from training.run import Run
from training.summary import memory_explained, report_end, summary
from utils import UserError, log, log_to_file

LOG_FILE = Path("train.log")
MAX_SKIPPED_UPDATES = 20  # float16 overflows in a row: fewer only mean that the loss scale is still too large


@dataclass
class StepResult:
    """What one batch gives: the loss in nats per predicted token, and the gradient norm before clipping."""

    loss: float
    grad_norm: float


class Trainer:
    """Trains a prepared Run. state_dict() lists what a restart needs; everything else is derived from the Run."""

    def __init__(self, run: Run) -> None:
        self.run, self.config, self.ranks = run, run.config, run.ranks
        system, training = run.config.system, run.config.training
        if training.evaluate_tasks and run.sharded:
            raise UserError("training.evaluate_tasks needs whole models, not fsdp; use evaluate.py on a checkpoint.")
        devices.set_up_device(system, run.device)
        self.model = build_model(run)
        self.model.transformer.checkpointing = training.activation_checkpointing
        if training.compile_model:
            compile_blocks(self.model, training.batch_size, run.device, run.dtype)
        self.replica = place(self.model, run)  # the same weights in DDP's or FSDP's wrapper; training calls it
        self.optimizers = make_optimizers(self.model, run.config.optimizer, run.dtype)
        self.average = WeightAverage(self.model, training.ema)
        self.tasks = chosen_tasks(training.evaluate_tasks or "", run.data.tokenizer)
        self.scaler = torch.amp.GradScaler(run.device.partition(":")[0], enabled=run.dtype == "float16")
        self.loader = DeviceLoader(run.loader(), system)
        self.eval_loaders = {split: run.evaluation_loader(split) for split in ("train", "val")}
        self.epoch, self.position, self.batches_done = run.start.epoch, run.start.position, run.start.batches_done
        self.skipped_updates = 0  # updates skipped in a row because float16 gradients overflowed
        self.can_save = True  # weights and counters are those of the same batch, and gave a finite loss
        self.metrics = MetricsTracker()
        if run.start.mode.loads_optimizer and run.start.checkpoint:
            self.load_state_dict(run.start.checkpoint.state)
        self.saver = NoSaver()
        self.flags = StopFlags(Shutdown())

    def state_dict(self) -> dict[str, Any]:
        """Everything a restart needs, as plain values and tensors: the contents of a checkpoint."""
        run, plan = self.run, self.run.plan
        return {
            "format_version": 3,
            "model": self.average.state_dict(),
            "config": self.config.to_dict(),
            "derived": sorted(run.reasons.derived),
            "tokenizer": run.data.tokenizer.definition(),
            "optimizer": optimizer_state(self.optimizers, self.model, weights=self.config.training.ema > 0),
            "lr_scheduler": {"schedule": asdict(plan.schedule), "total_batches": plan.total_batches},
            "scaler": self.scaler.state_dict(),
            "rng": {"torch": torch.get_rng_state()},
            "loader": {"epoch": self.epoch, "position": self.position},
            "epoch": self.epoch,
            "batch_counter": self.batches_done,
            "global_iter_num": self.batches_done * self.config.training.gradient_accumulation_steps,
            "skipped_updates": self.skipped_updates,
            "metadata": metadata(run.data.fingerprints, run.device)
            | {"run": run.files.run, "run_id": run.start.run_id}
            | ({"base_model": run.start.base_model} if run.start.base_model else {}),
            **self.metrics.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what state_dict() saved, but not weights and position: those were set before, from the Run."""
        start = self.run.start
        load_optimizer_state(self.optimizers, self.model, state["optimizer"])
        if start.checkpoint and start.checkpoint.shards:
            tensors = {
                "model": {},
                "optimizer": optimizer_state(self.optimizers, self.model, weights=True),
                "config": self.config.to_dict(),
            }
            start.checkpoint.shards.read_into(flat_tensors(tensors))
        if state.get("scaler"):  # older formats have none, and only float16 needs one
            self.scaler.load_state_dict(state["scaler"])
        if not start.mode.keeps_counters:
            return
        if "rng" in state:
            with suppress(TypeError, RuntimeError):  # saved by another version of torch; training does not need it
                torch.set_rng_state(state["rng"]["torch"])
        self.skipped_updates = state["skipped_updates"]
        self.metrics.load_state_dict(state)

    def copy_tensors(self) -> None:
        """Move weights, averages and optimizer state to new memory; a running save can still read the old tensors."""
        states = (state.values() for optimizer in self.optimizers for state in optimizer.state.values())
        for tensor in chain(self.model.parameters(), self.average.averages.values(), *states):
            tensor.data = tensor.detach().clone()

    # === one batch ==================================================================================================

    def step(self, batch: DeviceBatch) -> StepResult:
        """Train on one batch: forward and backward per micro-batch, one update. Waits for the device only once.

        Raises UserError if loss or gradient is not finite; the weights then stay as they were.
        """
        self.model.train()
        for optimizer in self.optimizers:
            optimizer.set_batch(self.batches_done, self.run.plan.schedule.lr(self.batches_done))
        self.ranks.heartbeat(self.batches_done + 1)
        loss = self.ranks.all_reduce_sum(self.backward(batch))
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)  # type: ignore[arg-type]  # it needs param_groups only
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = full_tensor(torch.nn.utils.get_total_norm(gradients))

        if self.batches_done + 1 < self.run.plan.total_batches:  # while a GPU still computes
            self.loader.prefetch(*self.next_position())
        if not self.ranks.is_single:  # on the CPU group: a dead rank raises an error here instead of hanging NCCL
            self.flags.update(self.ranks.all_reduce_max)

        result = StepResult(*torch.stack([loss, norm]).tolist())  # waits for the device
        self.can_save = False
        self.check_finite(result)
        if 0 < self.config.optimizer.grad_clip < result.grad_norm:
            torch.nn.utils.clip_grads_with_norm_(self.model.parameters(), self.config.optimizer.grad_clip, norm)
        if math.isfinite(result.grad_norm):  # else float16 gradients overflowed: no update, and a smaller scale
            self.saver.before_update()  # a running save may still read the weights
            for optimizer in self.optimizers:
                optimizer.step()
            self.average.update(self.batches_done)
        self.scaler.update()
        self.model.zero_grad(set_to_none=True)
        return result

    def backward(self, batch: DeviceBatch) -> Tensor:
        """Add up the gradients of this rank's micro-batches. Returns their part of the batch's mean loss."""
        total = torch.zeros((), device=self.run.device)
        with devices.autocast(self.run.device, self.run.dtype):  # around all micro-batches: weights are cast once
            for micro, (inputs, targets) in enumerate(zip(batch.inputs, batch.targets, strict=True)):  # (B, T)
                last = micro + 1 == len(batch.inputs)
                if self.config.model.dropout:
                    number = micro * self.ranks.world_size + self.ranks.rank  # among the micro-batches of all ranks
                    torch.manual_seed(mix_key(self.config.system.seed, self.batches_done, number, 0))
                if self.run.sharded:  # cached casts would bypass FSDP's gradient hooks
                    torch.clear_autocast_cache()
                with synchronized(self.replica, last):
                    loss = self.replica(inputs, targets) / max(1, batch.n_targets)
                    if last:
                        self.ranks.heartbeat()  # the ranks reduce gradients next
                    with devices.autocast(self.run.device, "float32"):  # PyTorch: no autocast around backward()
                        self.scaler.scale(loss * self.ranks.world_size).backward()  # DDP and FSDP divide by it
                total += loss.detach()
        return total

    def check_finite(self, result: StepResult) -> None:
        """Raise UserError if loss or gradient is not finite. Some float16 overflows in a row are allowed."""
        what = "loss" if not math.isfinite(result.loss) else "gradient" if not math.isfinite(result.grad_norm) else None
        overflow = what == "gradient" and self.scaler.is_enabled()
        self.skipped_updates = self.skipped_updates + 1 if overflow else 0
        if what is None or (overflow and self.skipped_updates < MAX_SKIPPED_UPDATES):
            return
        self.model.zero_grad(set_to_none=True)
        with suppress(Exception):  # the newest checkpoint may still be on its way to the disk
            self.saver.wait()
        documents = self.loader.packed.describe_documents(self.epoch, self.position, self.run.data.tokenizer)
        newest = self.run.files.newest_of(self.run.start.run_id)
        way = f"use --resume {shlex.quote(str(newest[0]))} --allow_changes" if newest else "start again"
        raise UserError(
            f"The {what} of batch {self.batches_done + 1} is not finite; stopped before the update. Check its documents: "
            f"{documents}. Or {way} with a lower --learning_rate, a smaller --optimizer.grad_clip or --dtype float32."
        )

    def next_position(self) -> tuple[int, int]:
        """Epoch and position of the batch after this one."""
        last = self.position + 1 >= self.run.plan.batches_per_epoch
        return (self.epoch + 1, 0) if last else (self.epoch, self.position + 1)

    def advance(self) -> bool:
        """Count a finished batch. Returns whether it was the last one of an epoch."""
        self.epoch, self.position = self.next_position()
        self.batches_done += 1
        self.can_save = True
        return self.position == 0

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """In the block, the model has the averages of its weights, if `training.ema` asks for them."""
        self.saver.before_update()
        with self.average.in_model():
            yield

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Mean losses over fixed micro-batches of both splits, divided among the ranks. Uses no random numbers.

        train_loss_eval and val_loss are nats per token; bpb is bits per byte of the validation text, and bpb_se its
        standard error, from the differences between the evaluated rows.
        """
        self.model.eval()
        with self.averaged():
            train_nats, train_tokens, *_ = self.evaluate_split(self.eval_loaders["train"])
            nats, tokens, text_nats, text_bytes, *sums_over_rows = self.evaluate_split(self.eval_loaders["val"])
        devices.give_back_memory(self.config.system, self.run.device)
        bpb = text_nats / math.log(2) / text_bytes if text_bytes else math.nan
        error = ratio_error(text_nats, text_bytes, *sums_over_rows) / math.log(2)
        return {"train_loss_eval": train_nats / train_tokens, "val_loss": nats / tokens, "bpb": bpb, "bpb_se": error}

    def evaluate_split(self, loader: PackedLoader) -> list[float]:
        """Eight sums: loss and number of all targets, loss and bytes of text targets (control tokens have no bytes).

        Then over the rows, of each row's loss and bytes of text: loss², loss·bytes and bytes²; and the number of rows.
        """
        byte_lengths = torch.tensor(self.run.data.tokenizer.byte_lengths, device=self.run.device)  # (n_vocab,)
        sums: list[Tensor] = []
        rank, world_size = self.ranks.rank, self.ranks.world_size
        rounds = -(-loader.batches_per_epoch // world_size)  # equal on all ranks, which all-reduce below
        for index in range(rank, rounds * world_size, world_size):
            batch = loader.batch(0, index)
            if index >= loader.batches_per_epoch:  # in the last round some ranks have no batch left
                batch.targets[:] = IGNORED
            inputs, targets = self.loader.to_device(batch.inputs[0]), self.loader.to_device(batch.targets[0])  # (B, T)
            with devices.autocast(self.run.device, self.run.dtype):
                losses = self.model.losses(inputs, targets)
            text_bytes = byte_lengths[targets.clamp_min(0)] * (targets >= 0)
            text_losses = losses * (text_bytes > 0)
            totals = losses.sum(), (targets >= 0).sum(), text_losses.sum(), text_bytes.sum()
            x, y = text_losses.sum(1), text_bytes.sum(1)  # (B,)
            sums.append(torch.stack([*totals, (x * x).sum(), (x * y).sum(), (y * y).sum(), (y > 0).sum()]))
        return self.ranks.all_reduce_sum(torch.stack(sums).cpu().double().sum(0)).tolist()

    def task_scores(self) -> dict[str, float]:
        """The share of right answers in each of evaluate_tasks. Uses no random numbers."""
        self.model.eval()
        with self.averaged(), devices.uncompiled(), devices.autocast(self.run.device, self.run.dtype):
            results = {name: run_task(self.model, self.run.data.tokenizer, task) for name, task in self.tasks.items()}
        return {name: result.scores["acc"].value for name, result in results.items()}

    def samples(self) -> list[dict[str, str]]:
        """What the model writes after each of sample_prompts; with FSDP all ranks write it. Leaves torch's random state alone."""
        training, tokenizer, seed = self.config.training, self.run.data.tokenizer, self.config.system.seed
        dtype, agree = (self.run.dtype, self.ranks.broadcast) if self.run.sharded else ("float32", None)
        prompts, n_tokens = (training.sample_prompts or "").split("|"), training.sample_tokens
        chat = self.run.data.is_chat
        try:
            with self.averaged(), devices.uncompiled(), devices.autocast(self.run.device, dtype):
                return sample_texts(self.model, tokenizer, prompts, n_tokens, seed=seed, agree=agree, chat=chat)
        except UserError as error:  # the logits are not finite; if the loss is not either, training stops there
            log.warning("No samples: %s", error)
            return []

    def train(self) -> int:
        """Train to the end, or until a signal or the time limit. Returns the process's exit code."""
        files, is_main = self.run.files, self.ranks.is_main
        if self.batches_done >= self.run.plan.total_batches:
            newest = files.newest_of(self.run.start.run_id)
            if is_main and self.run.start.mode is Mode.RESUME and newest and newest[1] == self.batches_done:
                with files.held():
                    MetricsFile(files.metrics, self.batches_done, self.metrics).close()
                    self.finish_last_save()
            log.info("This run is complete. To continue it, raise --epochs or --max_iters, or use --reset_epoch.")
            return 0
        with (
            files.held() if is_main else nullcontext(),
            log_to_file(LOG_FILE, files.run) if is_main else nullcontext(),
            memory_explained(self.run),
            self.ranks.explain_failures(),
            Shutdown(self.ranks.is_single) as shutdown,
        ):
            record = self.begin()
            with self.saver, closing(record), self.saved_before_errors(record):
                self.loop(shutdown, record)
            record.plot.draw(self.metrics)
            if is_main:
                made_by = metadata(self.run.data.fingerprints, self.run.device)
                write_report(self.run, self.metrics, self.batches_done, made_by)
            code = report_end(self.run, self.metrics, self.batches_done, self.saver.failed, shutdown.exit_code)
            if is_main and not code:
                files.job.unlink(missing_ok=True)
            # The ranks exit together: when one exits with an error, torchrun kills those that still work.
            self.ranks.broadcast_text("end", "")
            return code

    @contextmanager
    def saved_before_errors(self, record: Record) -> Iterator[None]:
        """If an error ends the block, save what is trained. Not with several ranks: the others may be gone."""
        try:
            yield
        except Exception:
            saves = self.can_save and self.config.training.save_checkpoints and self.ranks.is_single
            if saves and self.batches_done > self.run.start.batches_done:
                with suppress(Exception):  # the error that ends the run is the one to report
                    record.write()
                    self.saver.save(self.state_dict(), [self.run.files.last])
                    self.saver.wait()
                    if not self.saver.failed:
                        log.info("Saved batch %d to %s before this error:", self.batches_done, self.run.files.last)
            raise

    def checkpoints_due(self) -> list[Path]:
        """The checkpoints that get the state after this batch, whenever the run is stopped or resumed."""
        files, done, points, best = self.run.files, self.batches_done, self.metrics.val_loss_eval, self.metrics.val.best
        paths = [files.last] if self.position == 0 or done == self.run.plan.total_batches else []
        if points[-1:] == [(done, best)] and best not in (loss for _, loss in points[:-1]):
            paths.append(files.best)
        if due(self.config.training.checkpoint_interval, done) or done == self.run.plan.schedule.before_cooldown:
            paths.append(files.numbered(done))
        return paths

    def finish_last_save(self) -> None:
        """Write the files of the batch to resume from that are missing, because the run was killed."""
        files, training, checkpoint = self.run.files, self.config.training, self.run.start.checkpoint
        assert checkpoint
        if training.save_checkpoints:
            files.finish_save(checkpoint.path, self.checkpoints_due(), training.keep_checkpoints)
        milestones = [files.numbered(self.batches_done, ".png")] * due(training.plot_interval, self.batches_done)
        PlotManager(files.plot, files.run).draw(self.metrics, *milestones)
        is_missing = not files.report.exists() or files.report.stat().st_mtime < checkpoint.path.stat().st_mtime
        if is_missing and self.batches_done == self.run.plan.total_batches:
            write_report(self.run, self.metrics, self.batches_done, checkpoint.state["metadata"])

    def begin(self) -> Record:
        """Before the first batch: move old files aside, print the summary, open saver and record."""
        files, start, ranks, training = self.run.files, self.run.start, self.ranks, self.config.training
        if ranks.is_main:
            files.start(start.checkpoint, start.run_id, self.batches_done, start.mode is Mode.RESUME)
            if start.mode is Mode.RESUME:
                self.finish_last_save()
            try:
                save_config(self.config, files.config)
            except UserError as error:  # for people and the dashboard; training does not need this file
                log.warning("%s", error)
            if ranks.job:
                files.begin_job(ranks.job, start.run_id)
        if start.checkpoint:
            start.checkpoint.release()
        peak_flops = estimate.peak_flops(self.config.system)
        devices.give_back_memory(self.config.system, self.run.device)
        log.info(summary(self.run, peak_flops, is_compiled(self.model)))
        if training.save_checkpoints and self.run.sharded:
            self.saver = ShardSaver(files, training.keep_checkpoints, ranks, self.run.device)
        elif training.save_checkpoints and ranks.is_main:
            self.saver = Saver(files, training.keep_checkpoints, self.copy_tensors)
        return Record(self.run, self.metrics, peak_flops)

    def loop(self, shutdown: Shutdown, record: Record) -> None:
        """For each batch: step, report, evaluate, save, plot."""
        training, files, start, ranks = self.config.training, self.run.files, self.run.start, self.ranks
        total, first = self.run.plan.total_batches, self.batches_done
        starts_from_checkpoint = first or (start.checkpoint and ranks.job)  # a torchrun job may restart before it saves
        if starts_from_checkpoint and start.mode is not Mode.RESUME and training.save_checkpoints:
            self.saver.save(self.state_dict(), [files.last, *self.checkpoints_due()])  # --resume finds it by its name
        limit_s, save_s = 60 * (training.max_minutes or 0), 60 * training.checkpoint_minutes
        self.flags = StopFlags(shutdown, limit_s, save_s, ranks.is_main)
        self.metrics.start_clock()
        while self.batches_done < total and not self.flags.stop:
            started = time.perf_counter()
            result = self.step(batch := self.loader.batch(self.epoch, self.position))
            if self.batches_done == first:  # the first batch leaves unused memory between its tensors
                devices.give_back_memory(self.config.system, self.run.device)
            ended = self.advance() or self.batches_done == total
            done = self.batches_done
            record.batch(done, result.loss, result.grad_norm, batch.n_targets, time.perf_counter() - started)

            if ended or due(training.eval_interval, done):
                losses = self.evaluate()
                record.evaluation(losses, self.metrics.add_evaluation(done, losses))
                if self.tasks and ranks.is_main:
                    record.tasks(self.task_scores())
            if due(training.sample_interval, done) and (ranks.is_main or self.run.sharded):
                record.samples(self.samples())
            record.write()
            if ranks.is_single:  # several ranks exchanged their flags in step()
                self.flags.update()
            elif self.flags.signal:  # said only now: torchrun also sends a signal after another rank died
                log.warning("Stopping%s.", "; the model will be saved" if training.save_checkpoints else "")
            paths = [files.last] * (self.flags.stop or self.flags.save) + self.checkpoints_due()
            if paths and training.save_checkpoints:
                self.saver.save(self.state_dict(), paths)
            if due(training.plot_interval, done):
                record.plot.draw(self.metrics, files.numbered(done, ".png"))
            record.plot.draw_if_cheap(self.metrics)
