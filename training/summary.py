"""What a person sees of a run: the summary before it, the progress during it, the result after it."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from config import Config
from jojo.checkpoints.file import read_stamp
from jojo.machine import estimate
from jojo.machine.device import describe_device, memory_in_use_bytes, total_memory_bytes
from jojo.machine.memory import memory_bytes
from training.run import Run
from utils import UserError, byte_count, divisors, duration, is_out_of_memory, paint, use_color

WIDTH = 78


def summary(run: Run, peak_flops: float | None, compiled: bool) -> str:
    """What is about to happen, before the first batch. `peak_flops`: of the device, where known."""
    config, model, training = run.config, run.config.model, run.config.training
    data, facts = run.data, run.data.train.manifest
    intervals = [
        f"evaluation every {training.eval_interval:,} batches"
        if training.eval_interval
        else "evaluation at epoch ends",
        f"checkpoint every {training.checkpoint_minutes:g} min" if training.checkpoint_minutes else "",
        f"numbered checkpoint every {training.checkpoint_interval:,} batches" if training.checkpoint_interval else "",
        f"sample every {training.sample_interval:,} batches" if training.sample_interval else "",
    ]
    bias = "with" if model.bias else "without"
    rows = [
        ("model", f"{estimate.n_parameters(model):,} parameters: {model.n_layer} layers, {model.n_head} heads, "
                  f"width {model.n_embd}, context {model.block_size}, vocabulary {model.vocab_size:,}, {bias} biases, "
                  f"dropout {model.dropout:g}"),
        ("data", f"{facts.source['label']}: {facts.n_documents:,} documents, {facts.n_tokens:,} tokens "
                 f"(validation {data.val.n_documents:,} and {data.val.n_tokens:,}), cached in {data.train.path.parent}/"),
        ("batches", f"{run.plan.total_batches:,} of {config.tokens_per_batch:,} tokens "
                    f"({training.gradient_accumulation_steps} x {training.batch_size} sequences of {model.block_size}): "
                    f"{run.plan.total_batches / run.plan.batches_per_epoch:.2f} epochs of {run.plan.batches_per_epoch:,}"),
        ("intervals", ", ".join(filter(None, intervals))),
        ("learning rate", run.plan.schedule.describe(run.plan.total_batches)),
        ("system", f"{describe_device(run.device)}, {run.dtype}{_tf32(run)}, compile {'on' if compiled else 'off'}, "
                   f"seed {config.system.seed}"),
        *([] if run.ranks.is_single else [("ranks", _ranks(run))]),
        ("memory", _memory(run)),
        ("time", _time(run, peak_flops)),
        ("starts from", _origin(run)),
        ("writes", _writes(run)),
    ]  # fmt: skip
    return "\n".join([_rule("TRAINING"), *_rows(rows), _rule()])


def flops(config: Config, batches: int) -> float:
    """FLOPs of so many batches."""
    return estimate.flops_per_token(config.model) * config.tokens_per_batch * batches


def resume_command(run: Run) -> str:
    """The command that goes on from the run's last checkpoint, on as many ranks."""
    ranks, flags = run.ranks, f"train.py --resume {shlex.quote(str(run.files.last))}"
    if ranks.is_single or not ranks.by_torchrun:
        return f"python {flags}"
    here = f"--nproc_per_node {ranks.local_world_size}" if ranks.local_world_size == ranks.world_size else "..."
    return f"torchrun {here} {flags}"


def _ranks(run: Run) -> str:
    ranks, together = run.ranks, run.config.system.shard_ranks
    number = f"{ranks.world_size}" + (
        f", {ranks.local_world_size} on each machine" if ranks.local_world_size < ranks.world_size else ""
    )
    if not run.sharded:
        return f"{number}; each has the whole model (ddp)"
    if together and together < ranks.world_size:
        return f"{number}; {ranks.world_size // together} copies of the model, each shared out among {together} (fsdp)"
    return f"{number}; the model is shared out among them (fsdp)"


def _writes(run: Run) -> str:
    if not run.config.training.save_checkpoints:
        return "no checkpoint (save_checkpoints is false)"
    return f"{run.files.last}" + (f", with its parts in {run.files.shards}/" if run.sharded else "")


def _tf32(run: Run) -> str:
    if run.dtype != "float32" or not run.device.startswith("cuda"):
        return ""
    return " (TF32 on)" if run.config.system.allow_tf32_matmul else " (TF32 off)"


def _memory(run: Run) -> str:
    total, each = total_memory_bytes(run.device), "" if run.ranks.is_single else " of each rank"
    tensors_only = run.sharded and run.device == "cpu"  # what gloo copies there, and the heap's gaps, were not fitted
    needed = memory_bytes(run.config, run.ranks.world_size, tensors_only)
    what = " of tensors" if tensors_only else ""
    return f"about {byte_count(needed)}{what} at the peak{each}" + (f", of {byte_count(total)}" if total else "")


def _time(run: Run, peak_flops: float | None) -> str:
    if not peak_flops:
        return "measured after the first batches"
    seconds = flops(run.config, run.plan.total_batches - run.start.batches_done) / (estimate.USUAL_MFU * peak_flops)
    return f"about {duration(seconds)} at {estimate.USUAL_MFU:.0%} MFU; measured after the first batches"


def _origin(run: Run) -> str:
    if run.start.checkpoint is None:
        return "random weights"
    if not run.start.mode.loads_optimizer:
        return f"the weights of {run.start.checkpoint.path}"
    if not run.start.mode.keeps_counters:
        return f"the weights and optimizer state of {run.start.checkpoint.path}, counting anew"
    return f"batch {run.start.checkpoint.state['batch_counter']:,} of {run.start.checkpoint.path}"


def completed(run: Run, losses: Mapping[str, float], elapsed_s: float, title: str = "TRAINING COMPLETED") -> str:
    """The box after the last batch: six losses, time, where the model went and how to talk to it."""
    color = use_color(sys.stdout)

    def loss(name: str) -> str:
        value = losses[name]
        text = f"{value:.4f}" if math.isfinite(value) else "-"
        return paint(text, "31") if color and name.startswith("worst") and text != "-" else text

    rows = [
        ("total time", duration(elapsed_s)),
        ("training loss", f"final {loss('final_train_loss')}, best {loss('best_train_loss')}, worst {loss('worst_train_loss')}"),
        ("validation loss", f"final {loss('final_val_loss')}, best {loss('best_val_loss')}, worst {loss('worst_val_loss')}"),
    ]  # fmt: skip
    if math.isfinite(losses["bpb"]):
        rows.append(("bits per byte", f"{losses['bpb']:.4f} (validation)"))
    if run.config.training.save_checkpoints:
        rows.append(("model", str(run.files.last)))
        if run.files.best.exists():
            rows.append(("best model", str(run.files.best)))
    if run.files.metrics.exists():
        rows.append(("record", str(run.files.metrics)))
    if run.files.plot.exists():
        rows.append(("loss curve", str(run.files.plot)))
    if run.config.training.save_checkpoints:
        facts = run.data.train.manifest
        chats = facts.n_control_tokens > facts.n_documents  # more than the one that ends every document: turns
        how = "--chat" if chats else '--prompt "Once upon a time"'
        rows.append(("talk to it", f"python gen.py {shlex.quote(str(run.files.last))} {how}"))
    return "\n".join([_rule(title), *_rows(rows), _rule()])


@contextmanager
def memory_explained(run: Run) -> Iterator[None]:
    """Where memory is full, raise UserError with what to change."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(out_of_memory(run)) from error


def out_of_memory(run: Run) -> str:
    """What to change in a run that did not fit, with its own numbers, and how to go on."""
    config, training, last = run.config, run.config.training, run.files.last
    rows, size = config.rows_per_batch, training.batch_size
    ways = []
    if size > 1:
        half = max(d for d in divisors(rows) if d <= size // 2)
        split = f"--batch_size {half} --training.gradient_accumulation_steps {rows // half}"
        ways.append(f"{split}: as many tokens per batch")
        if "training.batch_size" not in run.reasons.derived:
            ways.append("--batch_size auto: the same, in the largest micro-batches that fit")
    if not training.activation_checkpointing:
        ways.append("--training.activation_checkpointing true: slower, the same result")
    if size == 1:
        ways.append(f"a new run with --model.block_size {max(2, config.model.block_size // 2)} or a smaller model")
    text = f"Out of memory on {run.device}{_in_use(run.device)}. What takes less:\n" + "\n".join(
        f"  - {w}" for w in ways
    )
    stamp = read_stamp(last) if last.exists() else None
    if stamp and stamp.run_id == run.start.run_id:
        changes = " (with another --batch_size: and --allow_changes)" if size > 1 else ""
        text += f"\n--resume {shlex.quote(str(last))} goes on after batch {stamp.batch:,}{changes}."
    return text


def _in_use(device: str) -> str:
    total = total_memory_bytes(device)
    used = memory_in_use_bytes(device)
    return f" ({byte_count(used)} of {byte_count(total)} in use)" if used and total else ""


def _rule(title: str = "") -> str:
    return f"--- {title} ".ljust(WIDTH, "-") if title else "-" * WIDTH


def _rows(rows: Iterable[tuple[str, str]]) -> list[str]:
    return [f"  {name:<16} {value}" for name, value in rows]
