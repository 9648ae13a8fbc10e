"""What a person sees of a run before and after its loop: the summary, the result, what to do when memory is full."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from config import OPTIONS, SECTIONS
from jojo.checkpoints.file import read_stamp
from jojo.machine import estimate
from jojo.machine.device import describe_device, memory_in_use_bytes, total_memory_bytes
from jojo.metrics import MetricsTracker, Point
from model import formulas
from training.memory import memory_bytes
from training.run import Run
from utils import UserError, byte_count, divisors, duration, is_out_of_memory, log, paint, plural, use_color

WIDTH = 78


# --- before the first batch -----------------------------------------------------------------------------------------


def summary(run: Run, peak_flops: float | None, compiled: bool) -> str:
    """What is about to happen. `peak_flops`: of the device; None: unknown."""
    config, model, training, plan = run.config, run.config.model, run.config.training, run.plan
    train, val = run.data.train, run.data.val
    split = f"{training.gradient_accumulation_steps} x {plural(training.batch_size, 'sequence')} of {model.block_size}"
    rows = [
        ("model", f"{formulas(model).n_parameters:,} parameters: {plural(model.n_layer, 'layer')}, "
                  f"{plural(model.n_head, 'head')}, width {model.n_embd}, context {model.block_size}\n"
                  f"vocabulary {model.vocab_size:,}, {'with' if model.bias else 'without'} biases, dropout {model.dropout:g}"),
        ("data", f"{train.manifest.source['label']}, cached in {train.path.parent}/\n"
                 f"{plural(train.n_documents, 'document')}, {train.n_tokens:,} tokens; "
                 f"validation {plural(val.n_documents, 'document')}, {val.n_tokens:,} tokens"),
        ("batches", f"{plan.total_batches:,} of {config.tokens_per_batch:,} tokens ({split})\n"
                    f"{plan.total_batches / plan.batches_per_epoch:.2f} epochs of {plural(plan.batches_per_epoch, 'batch')}"),
        ("intervals", _intervals(run)),
        ("learning rate", plan.schedule.describe(plan.total_batches)),
        ("system", f"{describe_device(run.device)}, {run.dtype}{_tf32(run)}, compile {'on' if compiled else 'off'}, "
                   f"seed {config.system.seed}"),
        ("ranks", "" if run.ranks.is_single else _ranks(run)),
        ("memory", _memory(run)),
        ("time", _time(run, peak_flops)),
        ("starts from", _origin(run)),
        ("writes", _writes(run)),
    ]  # fmt: skip
    return _box("TRAINING", rows)


def _intervals(run: Run) -> str:
    training = run.config.training
    intervals = [
        f"evaluation every {plural(training.eval_interval, 'batch')}" if training.eval_interval else
        "evaluation at epoch ends",
        f"checkpoint every {training.checkpoint_minutes:g} min" if training.checkpoint_minutes else "",
        f"numbered checkpoint every {plural(training.checkpoint_interval, 'batch')}" if training.checkpoint_interval else "",
        f"sample every {plural(training.sample_interval, 'batch')}" if training.sample_interval else "",
    ]  # fmt: skip
    return ", ".join(filter(None, intervals))


def show_config(run: Run) -> str:
    """Every section with its values and where each came from, then what follows from them."""
    width = max(len(name.split(".")[1]) for name in OPTIONS)
    lines: list[str] = []
    for section in SECTIONS:
        lines += [f"[{section}]", *(f"  {line}" for line in _section_lines(run, section, width)), ""]
    lines += ["[what follows]", *(f"  {name:<{width}}  {value}" for name, value in consequences(run))]
    return "\n".join(lines)


def _section_lines(run: Run, section: str, width: int) -> list[str]:
    lines, reasons = [], run.reasons
    for name, opt in OPTIONS.items():
        if name.split(".")[0] == section:
            value = run.config.get(name)
            shown = json.dumps(value) if not isinstance(value, str) else value
            unit = f" {opt.unit}" if opt.unit and value is not None else ""
            source = f"derived: {reasons.derived[name]}" if name in reasons.derived else reasons.sources[name]
            lines.append(f"{name.split('.')[1]:<{width}}  {shown + unit:<22} {source}")
    return lines


def consequences(run: Run) -> list[tuple[str, str]]:
    """Figures derived from the config: parameters, batches, tokens, schedule."""
    config = run.config
    return [
        ("parameters", f"{formulas(config.model).n_parameters:,}"),
        ("tokens per batch", f"{config.tokens_per_batch:,}"),
        ("batches per epoch", f"{run.plan.batches_per_epoch:,}"),
        ("batches in all", f"{run.plan.total_batches:,}"),
        ("learning rate", run.plan.schedule.describe(run.plan.total_batches)),
        ("device", run.device),
        ("dtype", run.dtype),
        ("checkpoint", str(run.files.last)),
    ]


def _tf32(run: Run) -> str:
    if run.dtype != "float32" or not run.device.startswith("cuda"):
        return ""
    return " (TF32 on)" if run.config.system.allow_tf32_matmul else " (TF32 off)"


def _ranks(run: Run) -> str:
    ranks, shard_ranks = run.ranks, run.config.system.shard_ranks
    number = f"{ranks.world_size}"
    if ranks.local_world_size < ranks.world_size:
        number += f", {ranks.local_world_size} on each machine"
    if not run.sharded:
        return f"{number}; each has the whole model (ddp)"
    if shard_ranks and shard_ranks < ranks.world_size:
        return (
            f"{number}; {ranks.world_size // shard_ranks} copies of the model, each sharded among {shard_ranks} (fsdp)"
        )
    return f"{number}; the model is sharded among them (fsdp)"


def _memory(run: Run) -> str:
    total, each = total_memory_bytes(run.device), "" if run.ranks.is_single else " of each rank"
    tensors_only = run.sharded and run.device == "cpu"  # the CPU estimate does not model gloo's buffers
    needed = memory_bytes(run.config, run.ranks.world_size, tensors_only)
    what = " of tensors" if tensors_only else ""
    return f"about {byte_count(needed)}{what} at the peak{each}" + (f", of {byte_count(total)}" if total else "")


def _time(run: Run, peak_flops: float | None) -> str:
    if not peak_flops:
        return "estimated after the first batches"
    tokens = run.config.tokens_per_batch * (run.plan.total_batches - run.start.batches_done)
    seconds = formulas(run.config.model).flops_per_token * tokens / (estimate.USUAL_MFU * peak_flops)
    return f"about {duration(seconds)} at {estimate.USUAL_MFU:.0%} MFU; estimated again after the first batches"


def _origin(run: Run) -> str:
    checkpoint, mode = run.start.checkpoint, run.start.mode
    if checkpoint is None:
        return "random weights"
    if not mode.loads_optimizer:
        return f"the weights of {checkpoint.path}"
    if not mode.keeps_counters:
        return f"the weights and optimizer state of {checkpoint.path}, counting from zero"
    return f"batch {checkpoint.state['batch_counter']:,} of {checkpoint.path}"


def _writes(run: Run) -> str:
    if not run.config.training.save_checkpoints:
        return "no checkpoint (save_checkpoints is false)"
    return f"{run.files.last}" + (f", with its shards in {run.files.shards}/" if run.sharded else "")


# --- after the last batch -------------------------------------------------------------------------------------------


def report_end(run: Run, metrics: MetricsTracker, batches_done: int, unsaved: Sequence[Path], exit_code: int) -> int:
    """Log how the run ended. Returns the exit code: `exit_code`, or 1 if checkpoints are `unsaved`."""
    if unsaved:
        log.error(
            "Not saved after batch %d: %s. Files under these names are older, if there are any; --resume continues from them.",
            batches_done, ", ".join(map(str, unsaved)),
        )  # fmt: skip
        return 1
    if batches_done == run.plan.total_batches:
        log.info(completed(run, metrics))
        return exit_code
    saved = f"saved to {run.files.last}. Continue with:\n  {resume_command(run)}"
    where = saved if run.config.training.save_checkpoints else "not saved."
    log.info("Stopped after batch %d of %d; %s", batches_done, run.plan.total_batches, where)
    return exit_code


def resume_command(run: Run) -> str:
    """The command that continues from the run's last checkpoint, on as many ranks."""
    ranks, flags = run.ranks, f"train.py --resume {shlex.quote(str(run.files.last))}"
    if ranks.is_single or not ranks.by_torchrun:
        return f"python {flags}"
    here = f"--nproc_per_node {ranks.local_world_size}" if ranks.local_world_size == ranks.world_size else "..."
    return f"torchrun {here} {flags}"


def completed(run: Run, metrics: MetricsTracker) -> str:
    """The box after the last batch: losses, time, the files, and how to talk to the model."""
    files, saves, manifest = run.files, run.config.training.save_checkpoints, run.data.train.manifest
    bpb = _last(metrics.bpb)
    is_chat = manifest.n_control_tokens > manifest.n_documents  # more than the one that ends each document
    prompt = "--chat" if is_chat else '--prompt "Once upon a time"'
    rows = [
        ("total time", duration(metrics.read_clock())),
        ("training loss", _losses(_last(metrics.train_loss_eval), metrics.train.best, metrics.train.worst)),
        ("validation loss", _losses(_last(metrics.val_loss_eval), metrics.val.best, metrics.val.worst)),
        ("bits per byte", f"{bpb:.4f} (validation)" if math.isfinite(bpb) else ""),
        ("model", str(files.last) if saves else ""),
        ("best model", str(files.best) if saves and files.best.exists() else ""),
        ("metrics", str(files.metrics) if files.metrics.exists() else ""),
        ("loss curve", str(files.plot) if files.plot.exists() else ""),
        ("talk to it", f"python gen.py {shlex.quote(str(files.last))} {prompt}" if saves else ""),
    ]
    return _box("TRAINING COMPLETED", rows)


def _last(points: Sequence[Point]) -> float:
    return points[-1][1] if points else math.nan


def _losses(final: float, best: float, worst: float) -> str:
    shown = [f"{value:.4f}" if math.isfinite(value) else "-" for value in (final, best, worst)]
    if use_color(sys.stdout) and math.isfinite(worst):
        shown[2] = paint(shown[2], "31")
    return f"final {shown[0]}, best {shown[1]}, worst {shown[2]}"


def _box(title: str, rows: Sequence[tuple[str, str]]) -> str:
    """A frame around rows of a name and its value. Values may have several lines; empty ones are left out."""
    lines = [f"--- {title} ".ljust(WIDTH, "-")]
    for name, value in rows:
        if value:
            first, *more = value.splitlines()
            lines += [f"  {name:<16} {first}", *(f"  {'':<16} {line}" for line in more)]
    return "\n".join([*lines, "-" * WIDTH])


# --- when memory is full --------------------------------------------------------------------------------------------


@contextmanager
def memory_explained(run: Run) -> Iterator[None]:
    """When memory is full, raise UserError with what to change."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(out_of_memory(run)) from error


def out_of_memory(run: Run) -> str:
    """What to change in a run that did not fit, in its own numbers, and how to continue it."""
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
        ways.append("--training.activation_checkpointing true: slower, with the same result")
    if size == 1:
        ways.append(
            f"a new run with a shorter context (--model.block_size {max(2, config.model.block_size // 2)}) or a smaller model"
        )
    text = f"Out of memory on {run.device}{_in_use(run.device)}. To use less:\n" + "\n".join(f"  - {w}" for w in ways)
    stamp = read_stamp(last) if last.exists() else None
    if stamp and stamp.run_id == run.start.run_id:
        changes = " (add --allow_changes for another --batch_size)" if size > 1 else ""
        text += f"\n--resume {shlex.quote(str(last))} continues after batch {stamp.batch:,}{changes}."
    return text


def _in_use(device: str) -> str:
    total = total_memory_bytes(device)
    used = memory_in_use_bytes(device)
    return f" ({byte_count(used)} of {byte_count(total)} in use)" if used and total else ""
