"""Text for the screen before and after the training loop: summary, result, and what to do when memory is full."""

from __future__ import annotations

import json
import math
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from config import OPTIONS, SECTIONS, Config, ModelConfig
from jojo.machine import estimate
from jojo.machine.device import describe_device, memory_in_use_bytes, total_memory_bytes
from jojo.machine.ranks import Ranks
from jojo.metrics import MetricsTracker
from jojo.networks import formulas
from training.dataset import Data
from training.decisions import Reasons
from training.memory import memory_bytes
from training.recorder import FORECAST_AFTER
from training.run import Plan, Run
from utils import UserError, byte_count, divisors, duration, is_out_of_memory, log, plural

WIDTH = 78
OPTION_WIDTH = max(len(name.split(".")[1]) for name in OPTIONS)


def summary(run: Run, peak_flops: float | None, compiled: bool) -> str:
    """The box before the first batch. `peak_flops`: the device's peak FLOP/s, or None if unknown."""
    config, plan, start = run.config, run.plan, run.start
    model, training, system = config.model, config.training, config.system
    data = run.data
    split = f"{training.gradient_accumulation_steps} x {plural(training.batch_size, 'sequence')} of {model.block_size}"
    writes = f"{run.files.last}" + (f", with its shards in {run.files.shards}/" if run.sharded else "")
    rows = [
        ("model", describe_model(model)),
        ("data", f"{data.train.manifest.source['label']}, cached in {data.train.path.parent}/\n{describe_size(data)}"),
        ("batches", f"{plan.total_batches:,} of {config.tokens_per_batch:,} tokens ({split})\n"
                    f"{passes(plan.total_batches, plan)}"),
        ("intervals", _intervals(run)),
        ("learning rate", plan.schedule.describe(plan.total_batches, start.batches_done)),
        ("system", f"{describe_device(run.device)}, {run.dtype}, compile {'on' if compiled else 'off'}, seed {system.seed}"),
        ("ranks", "" if run.ranks.is_single else _ranks(run)),
        ("memory", _memory(run)),
        ("time", _time(run, peak_flops)),
        ("starts from", start.mode.value.format(path=start.checkpoint and start.checkpoint.path, batch=start.batches_done)),
        ("writes", writes if training.save_checkpoints else "no checkpoint (save_checkpoints is false)"),
    ]  # fmt: skip
    return _box("TRAINING", rows)


def describe_model(model: ModelConfig) -> str:
    """The size and shape of a model, on two lines."""
    return (
        f"{formulas(model).n_parameters:,} parameters: {plural(model.n_layer, 'layer')}, "
        f"{plural(model.n_head, 'head')}, width {model.n_embd}, context {model.block_size}\n"
        f"{model.architecture}, vocabulary {model.vocab_size:,}, "
        f"{'with' if model.bias else 'without'} biases, dropout {model.dropout:g}"
    )


def describe_size(data: Data) -> str:
    """How much text there is."""
    train, val = data.train, data.val
    return (
        f"{plural(train.n_documents, 'document')}, {train.n_tokens:,} tokens; "
        f"validation {plural(val.n_documents, 'document')}, {val.n_tokens:,} tokens"
    )


def passes(batches: int, plan: Plan) -> str:
    """How often so many batches read the data."""
    passes, of = batches / plan.batches_per_epoch, f"of {plural(plan.batches_per_epoch, 'batch')}"
    if passes < 1:
        return f"{100 * passes:.2g}% of one pass over the data ({of})"
    return f"{passes:.2f} passes over the data, each {of}"


def _intervals(run: Run) -> str:
    training = run.config.training
    every = {"evaluation": training.eval_interval, "sample": training.sample_interval}
    every["numbered checkpoint"] = training.checkpoint_interval
    intervals = [f"{what} every {plural(interval, 'batch')}" for what, interval in every.items() if interval]
    if training.checkpoint_minutes:
        intervals.append(f"checkpoint every {training.checkpoint_minutes:g} min")
    return ", ".join(intervals)


def _ranks(run: Run) -> str:
    ranks, shard_ranks = run.ranks, run.config.system.shard_ranks or run.ranks.world_size
    here, copies = ranks.local_world_size, ranks.world_size // shard_ranks
    number = f"{ranks.world_size}" + (f", {here} on each machine" if here < ranks.world_size else "")
    if not run.sharded:
        return f"{number}; each has the whole model (ddp)"
    if copies > 1:
        return f"{number}; {copies} copies of the model, each sharded among {shard_ranks} (fsdp)"
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
    return f"about {duration(seconds)} (a guess until {FORECAST_AFTER} batches are done)"


def show_config(run: Run) -> str:
    """Every option, then what follows from them."""
    config, plan = run.config, run.plan
    follows = {
        "parameters": f"{formulas(config.model).n_parameters:,}",
        "tokens per batch": f"{config.tokens_per_batch:,}",
        "batches per epoch": f"{plan.batches_per_epoch:,}",
        "batches in all": f"{plan.total_batches:,}",
        "learning rate": plan.schedule.describe(plan.total_batches, run.start.batches_done),
        "device": run.device,
        "dtype": run.dtype,
        "checkpoint": run.files.last,
    }
    lines = (f"  {name:<{OPTION_WIDTH}}  {value}" for name, value in follows.items())
    return "\n".join([show_options(config, run.reasons), "", "[what follows]", *lines])


def show_options(config: Config, reasons: Reasons) -> str:
    """Every section with its values and where each came from."""
    blocks = {section: [f"[{section}]"] for section in SECTIONS}
    for name, opt in OPTIONS.items():
        section, key = name.split(".")
        value = config.get(name)
        shown = value if isinstance(value, str) else json.dumps(value)
        unit = f" {opt.unit}" if opt.unit and value is not None else ""
        source = f"derived: {reasons.derived[name]}" if name in reasons.derived else reasons.sources[name]
        blocks[section].append(f"  {key:<{OPTION_WIDTH}}  {shown + unit:<22} {source}")
    return "\n\n".join("\n".join(lines) for lines in blocks.values())


def report_end(run: Run, metrics: MetricsTracker, batches_done: int, unsaved: Sequence[Path], exit_code: int) -> int:
    """Log how the run ended. Returns the exit code: `exit_code`, or 1 if checkpoints are `unsaved`."""
    if unsaved:
        log.error(
            "Not saved after batch %d: %s. If there are files of these names, they are older; --resume continues from them.",
            batches_done, ", ".join(map(str, unsaved)),
        )  # fmt: skip
        return 1
    if batches_done == run.plan.total_batches:
        log.info(completed(run, metrics), extra={"red": r"Worst \w+ loss: +[\d.]+"})
        return exit_code
    saved = f"saved to {run.files.last}. Continue with:\n  {resume_command(run)}"
    where = saved if run.config.training.save_checkpoints else "not saved."
    log.info("Stopped after batch %d of %d; %s", batches_done, run.plan.total_batches, where)
    return exit_code


def resume_command(run: Run) -> str:
    """The command that continues from the run's last checkpoint, on the same number of ranks."""
    return start_command(run.ranks, ["--resume", str(run.files.last)])


def start_command(ranks: Ranks, arguments: Sequence[str]) -> str:
    """The command that starts train.py with these flags on so many ranks."""
    flags = shlex.join(["train.py", *arguments])
    if ranks.is_single or not ranks.by_torchrun:
        return f"python {flags}"
    here = f"--nproc_per_node {ranks.local_world_size}" if ranks.local_world_size == ranks.world_size else "..."
    return f"torchrun {here} {flags}"


def completed(run: Run, metrics: MetricsTracker) -> str:
    """The box after the last batch: losses, time, the files, and how to talk to the model."""
    files, saves = run.files, run.config.training.save_checkpoints
    evaluations = (metrics.train_loss_eval, metrics.val_loss_eval, metrics.bpb)
    final_train, final_val, bpb = (points[-1][1] if points else math.nan for points in evaluations)
    prompt = "--chat" if run.data.is_chat else '--prompt "Once upon a time"'
    rows = [
        ("Total training time:", duration(metrics.read_clock())),  # scripts for Jojo 2.1 look for these seven names
        ("Final train loss:", _number(final_train)),
        ("Final val loss:", _number(final_val)),
        ("Best train loss:", _number(metrics.train.best)),
        ("Best val loss:", _number(metrics.val.best)),
        ("Worst train loss:", _number(metrics.train.worst)),
        ("Worst val loss:", _number(metrics.val.worst)),
        ("Bits per byte:", f"{bpb:.4f} (validation)" if math.isfinite(bpb) else ""),
        ("Model:", str(files.last) if saves else ""),
        ("Best model:", str(files.best) if saves and files.best.exists() else ""),
        ("Metrics:", str(files.metrics)),
        ("Loss curve:", str(files.plot) if files.plot.exists() else ""),
        ("Report:", str(files.report) if files.report.exists() else ""),
        ("Talk to it:", f"python gen.py {shlex.quote(str(files.last))} {prompt}" if saves else ""),
    ]
    return _box("TRAINING COMPLETED", rows)


def _number(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "-"


def _box(title: str, rows: Sequence[tuple[str, str]]) -> str:
    """Rows of (name, value) in a frame, wrapped at words on a narrow terminal. Leaves out rows with an empty value."""
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    indent = max(len(name) for name, _ in rows) + 3
    lines = [f"--- {title} ".ljust(min(WIDTH, columns), "-")]
    for name, value in rows:
        beside = name
        for line in value.splitlines():
            parts = textwrap.wrap(line, max(20, columns - indent), break_long_words=False, break_on_hyphens=False)
            for part in [line] if line.startswith("python ") else parts:  # a command stays on one line, to be copied
                lines.append(f"  {beside}".ljust(indent) + part)
                beside = ""
    return "\n".join([*lines, "-" * min(WIDTH, columns)])


@contextmanager
def memory_explained(run: Run) -> Iterator[None]:
    """Turn an out-of-memory error into a UserError that says what to change."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(out_of_memory(run)) from error


def out_of_memory(run: Run) -> str:
    """What to change in a run that did not fit in memory, with its own numbers, and how to continue it."""
    config, training = run.config, run.config.training
    rows, size = config.rows_per_batch, training.batch_size
    used, total = memory_in_use_bytes(run.device), total_memory_bytes(run.device)
    in_use = f" ({byte_count(used)} of {byte_count(total)} in use)" if used and total else ""
    lines = [f"Out of memory on {run.device}{in_use}. To use less:"]
    if size > 1:
        half = max(d for d in divisors(rows) if d <= size // 2)
        split = f"--batch_size {half} --training.gradient_accumulation_steps {rows // half}"
        lines.append(f"  - {split}: as many tokens per batch")
        if "training.batch_size" not in run.reasons.derived:
            lines.append("  - --batch_size auto: the same, in the largest micro-batches that fit")
    if not training.activation_checkpointing:
        lines.append("  - --training.activation_checkpointing true: slower, with the same result")
    if size == 1:
        shorter = f"--model.block_size {max(2, config.model.block_size // 2)}"
        lines.append(f"  - a new run with a shorter context ({shorter}) or a smaller model")
    if newest := run.files.newest_of(run.start.run_id):
        changes = " (add --allow_changes for another --batch_size)" if size > 1 else ""
        lines.append(f"--resume {shlex.quote(str(newest[0]))} continues after batch {newest[1]:,}{changes}.")
    return "\n".join(lines)
