"""Show where the time of a batch goes, and what to change.

    python tools/analyze_mfu.py --config configs/story-small.json
    python tools/analyze_mfu.py --config configs/gpt2.json --batch_size 8 --batches 20 --json parts.json

It takes the flags of train.py that describe a run, trains some batches in memory and keeps nothing. It times plain batches, and
profiles a few more. The time of every operator, without the operators that it calls, is added to one of these parts:

    matrix products   of the blocks: c_attn, c_proj and the MLP, forward and backward
    attention         scores, softmax and values, forward and backward
    loss              output layer and cross-entropy, with their gradients
    optimizer         gradient norm, clipping, the update
    data              making the batch and copying it to the device
    overhead          everything else: norms, activations, residuals, casts, embeddings, Python

The profiler's own cost is measured and subtracted, and the parts are scaled to the time of a plain batch. On CUDA the parts are
kernel times, and the time that is not accounted for is mostly the device waiting for Python or for data.

FLOPs are counted as in MFU: also of attention to masked positions, but not of recomputed activations. Stop other programs first.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import mean, median
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from utils import UserError, byte_count, duration, log, output_path, replace_text, short_count

# Without this the profiler prints when it starts and stops. It must be set before torch is imported.
os.environ.setdefault("KINETO_LOG_LEVEL", "6")

import torch
from torch.profiler import ProfilerActivity, profile, record_function

import model
from config import Config
from jojo.command import TRAINED_MODEL, Parser, run_command
from jojo.machine import device as devices
from jojo.machine import estimate
from jojo.networks import common, formulas
from tools.parts.runs import FLAGS_OF_TRAIN, measured_request, predicted_note, synchronize, timed_step
from trainer import Trainer
from training import memory
from training.placement import compile_blocks, is_compiled
from training.run import prepare_run

PARTS = ("matrix products", "attention", "loss", "optimizer", "data", "overhead")
RANGE = "part: "  # prefix of the names of this tool's profiler ranges
STEP = "the step"  # the profiler range around a step; outside operators, its time is Python's
NODES = {  # word in the name of an operator or autograd node -> part
    "BlockedAttention": "attention", "scaled_dot_product": "attention", "ScaledDotProduct": "attention",
    "LinearCrossEntropy": "loss",
}  # fmt: skip
PRODUCTS = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"}
PROFILED, OWN_VOCABULARY = 3, 8192  # batches under the profiler; the default of prepare.py --train_tokenizer
MIN_GAIN = 0.03  # advice that saves a smaller share is left out
BUSY = 0.8  # at this share of the peak or above, larger products gain nothing


@dataclass(frozen=True)
class Op:
    """An operator that ran, its time without the operators that it calls, and what it ran in, innermost first."""

    name: str
    ms: float
    parents: tuple[str, ...] = ()

    @property
    def part(self) -> str:
        """The part of the nearest range or autograd node that it ran in; without one, by its own name."""
        for name in (self.name, *self.parents):
            if name.startswith(RANGE):
                return name.removeprefix(RANGE)
            if part := next((part for node, part in NODES.items() if node in name), None):
                return part
        return "matrix products" if self.is_product else "overhead"

    @property
    def is_product(self) -> bool:
        return not PRODUCTS.isdisjoint((self.name, *self.parents))


@dataclass
class Part:
    """A part's time in the plain step, how much of it is matrix products, and its FLOPs as MFU counts them."""

    ms: float
    products_ms: float
    flops: float = 0.0

    @property
    def flops_per_s(self) -> float | None:
        return self.flops / self.ms * 1e3 if self.flops and self.ms else None


@dataclass
class Findings:
    """The measurements of one run. Times in ms, rates in FLOP/s."""

    step_ms: float
    fastest_ms: float
    slowest_ms: float
    profiled_ms: float
    tokens: int  # that the model processes in a batch; speed and MFU count these
    targets: int  # those of them that are predicted
    peak_flops: float | None
    mfu: float | None
    parts: dict[str, Part]
    overhead_ops: dict[str, float]
    product_flops: dict[str, float] = field(default_factory=dict)  # "now", "twice the rows", "bfloat16"
    batch_again_ms: float = 0.0  # making the same batch again, without reading from a disk
    compiled: bool = False
    other_ms: float | None = None  # the step with torch.compile switched the other way; None: not measured

    @property
    def not_accounted_ms(self) -> float:
        return self.step_ms - sum(part.ms for part in self.parts.values())


@dataclass(frozen=True)
class Advice:
    """A change, the ms that it would save in a step, and their share of the step."""

    change: str
    saves_ms: float
    gain: float


# --- measuring ------------------------------------------------------------------------------------------------------


@contextmanager
def ranges(trainer: Trainer) -> Iterator[None]:
    """While this context is open, every call that belongs to a part runs inside a profiler range named after it."""
    places: list[tuple[Any, str, str]] = [
        (trainer.loader, "batch", "data"), (trainer.loader, "to_device", "data"),
        (common, "causal_attention", "attention"), (model, "linear_cross_entropy", "loss"),
        (trainer.scaler, "unscale_", "optimizer"), (torch.nn.utils, "get_total_norm", "optimizer"),
        (torch.nn.utils, "clip_grads_with_norm_", "optimizer"), (trainer.model, "zero_grad", "optimizer"),
        (trainer.average, "update", "optimizer"), *((optimizer, "step", "optimizer") for optimizer in trainer.optimizers),
    ]  # fmt: skip

    def inside(part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            if torch.compiler.is_compiling():  # compiled code cannot open a range
                return call(*arguments, **keywords)
            with record_function(RANGE + part):
                return call(*arguments, **keywords)

        return wrapped

    with ExitStack() as stack:
        for owner, name, part in places:
            stack.enter_context(patch.object(owner, name, inside(part, getattr(owner, name))))
        yield


def profiled_step(trainer: Trainer) -> tuple[float, Any]:
    """Run a step under the profiler; returns its ms and the profile."""
    cuda = [ProfilerActivity.CUDA] if trainer.run.device.startswith("cuda") else []
    recording = profile(activities=[ProfilerActivity.CPU, *cuda], acc_events=True)
    with ranges(trainer), recording, record_function(STEP):
        ms, _ = timed_step(trainer)
    return ms, recording


def profiler_cost_ms(calls: int = 1000) -> float:
    """The profiler's cost of recording one operator."""
    x = torch.zeros(1)

    def once() -> float:
        begin = time.perf_counter()
        for _ in range(calls):
            x.neg_()
        return (time.perf_counter() - begin) / calls * 1e3

    plain = min(once() for _ in range(3))
    with profile(activities=[ProfilerActivity.CPU], acc_events=True):
        return max(0.0, min(once() for _ in range(3)) - plain)


def read_ops(events: Iterable[Any], cuda: bool, cost_ms: float) -> list[Op]:
    """Operators from the profiler's events. What recording an operator costs is subtracted from its caller.

    Args:
        events: of a profile. Only CPU events are used; each has the time of the CUDA kernels that it started.
        cuda: take the kernels' times, except for the data, which the CPU makes.
        cost_ms: what recording one event costs.
    """
    ops = []
    for event in events:
        if event.device_type.name != "CPU":
            continue
        parents, parent = [], event.cpu_parent
        while parent is not None:
            parents.append(parent.name)
            parent = parent.cpu_parent
        ms = max(0.0, event.self_cpu_time_total / 1e3 - cost_ms * len(event.cpu_children))
        op = Op(event.name, ms, tuple(parents))
        if cuda and op.part != "data":
            op = Op(event.name, event.self_device_time_total / 1e3, op.parents)
        ops.append(op)
    return ops


def part_flops(config: Config) -> dict[str, float]:
    """FLOPs of a step by part."""
    return {name: flops * config.tokens_per_batch for name, flops in formulas(config.model).flops_by_part.items()}


def add_up(profiles: Sequence[tuple[float, Sequence[Op]]], step_ms: float) -> tuple[dict[str, Part], dict[str, float]]:
    """The parts of the plain step, and the time of each operator in the overhead, largest first.

    Args:
        profiles: for each profiled step, its ms without the profiler's cost, and its operators.
        step_ms: time of the plain step, to which all times are scaled.
    """
    parts = {name: Part(0.0, 0.0) for name in PARTS}
    overhead: defaultdict[str, float] = defaultdict(float)
    for ms, ops in profiles:
        scale = step_ms / ms / len(profiles)
        for op in ops:
            part = parts[op.part]
            part.ms += op.ms * scale
            part.products_ms += op.ms * scale * op.is_product
            if op.part == "overhead":
                name = "Python between operators" if op.name == STEP else op.name.rpartition(":")[2].strip()
                name = "compiled code" if name.startswith("## Call Compiled") else name
                overhead[name] += op.ms * scale
    return parts, dict(sorted(overhead.items(), key=lambda item: -item[1]))


def product_flops(shapes: Sequence[tuple[int, str]], width: int, device: str, seconds: float = 0.2) -> list[float]:
    """FLOP/s of the product (rows, width) @ (width, 4 width) for each (rows, dtype): the best of many calls."""
    pairs = []
    for rows, dtype in shapes:
        like = torch.empty(0, dtype=getattr(torch, dtype), device=device)
        pairs.append((like.new_full((rows, width), 0.5), like.new_full((width, 4 * width), 0.5)))
    best = [float("inf")] * len(pairs)
    deadline = time.perf_counter() + seconds * len(pairs)
    while time.perf_counter() < deadline or max(best) == float("inf"):
        for place, (a, b) in enumerate(pairs):
            synchronize(device)
            begin = time.perf_counter()
            torch.mm(a, b)
            synchronize(device)
            best[place] = min(best[place], time.perf_counter() - begin)
    return [8.0 * rows * width**2 / s for (rows, _), s in zip(shapes, best, strict=True)]


def product_rates(config: Config) -> dict[str, float]:
    """FLOP/s of the MLP's product: with the rows of a micro-batch, with twice the rows, and in bfloat16 if that is fast."""
    system, rows = config.system, config.training.batch_size * config.model.block_size
    shapes = {"now": (rows, system.dtype), "twice the rows": (2 * rows, system.dtype)}
    if system.dtype == "float32" and devices.choose_dtype("auto", system.device).value == "bfloat16":
        shapes["bfloat16"] = rows, "bfloat16"
    return dict(zip(shapes, product_flops(list(shapes.values()), config.model.n_embd, system.device), strict=True))


def other_way_ms(trainer: Trainer, batches: int, step_ms: float) -> float | None:
    """Time of a step with torch.compile off if it is on, and on if it is off; None if compiling fails."""
    run, compiled, plain = trainer.run, list[float](), list[float]()
    was_compiled = is_compiled(trainer.model)
    if not (was_compiled or compile_blocks(trainer.model, run.config.training.batch_size, run.device, run.dtype)):
        return None
    for _ in range(batches + 2):
        compiled.append(timed_step(trainer)[0])
        with devices.uncompiled():
            plain.append(timed_step(trainer)[0])
    ratio = median(plain[2:]) / median(compiled[2:])  # the first two steps compile
    return step_ms * (ratio if was_compiled else 1 / ratio)


def batch_again_ms(trainer: Trainer) -> float:
    """The time to make a batch whose tokens are in memory."""
    times = []
    for _ in range(4):
        begin = time.perf_counter()
        trainer.loader.batch(trainer.epoch, trainer.position)
        times.append((time.perf_counter() - begin) * 1e3)
    return min(times)


def measure(trainer: Trainer, batches: int, try_compile: bool = False) -> Findings:
    """Time plain steps, profile a few between them, and combine the results."""
    run, plain, profiles = trainer.run, list[tuple[float, int]](), list[tuple[float, Any]]()
    timed_step(trainer)
    seconds = timed_step(trainer)[0] / 1e3 * (batches + PROFILED + 1)
    log.info("Measuring takes about %s.", duration(seconds))
    profiled_step(trainer)  # warm-up: a compiled model is compiled again for the profiler
    for number in range(batches):
        plain.append(timed_step(trainer))
        if number * PROFILED // batches == len(profiles):
            profiles.append(profiled_step(trainer))
    times, targets, read = [ms for ms, _ in plain], round(mean(n for _, n in plain)), list[tuple[float, list[Op]]]()
    step_ms, cost_ms, cuda = median(times), profiler_cost_ms(), run.device.startswith("cuda")
    for ms, recorded in profiles:
        ops = read_ops(recorded.events(), cuda, cost_ms)
        read.append((step_ms if cuda else max(ms / 2, ms - cost_ms * len(ops)), ops))  # no kernel is slower
    parts, overhead = add_up(read, step_ms)
    for name, flops in part_flops(run.config).items():
        parts[name].flops = flops
    peak, tokens = estimate.peak_flops(run.config.system), run.config.tokens_per_batch
    return Findings(
        step_ms, min(times), max(times), median(ms for ms, _ in profiles), tokens, targets, peak,
        formulas(run.config.model).flops_per_token * tokens / step_ms * 1e3 / peak if peak else None,
        parts, overhead, product_rates(run.config), batch_again_ms(trainer), is_compiled(trainer.model),
        other_way_ms(trainer, batches, step_ms) if is_compiled(trainer.model) or try_compile else None,
    )  # fmt: skip


# --- advice ---------------------------------------------------------------------------------------------------------


def advise(found: Findings, config: Config, new_model: bool = True) -> list[Advice]:
    """Changes that would shorten the step, best first; empty if none gains more than MIN_GAIN.

    Args:
        found: the measurements; every gain is computed from them.
        config: the run's.
        new_model: the run starts with random weights, so its vocabulary may change.
    """
    parts, rates, step_ms = found.parts, found.product_flops, found.step_ms
    update_ms, reading_ms = parts["optimizer"].ms, parts["data"].ms - found.batch_again_ms
    saved = [
        (
            f"--training.gradient_accumulation_steps {2 * config.training.gradient_accumulation_steps}: the optimizer, "
            f"{update_ms / step_ms:.0%} of the time, runs half as often; batches become twice as large",
            update_ms / 2,
        ),
        (f"--data.cache_dir on a faster disk: tokens are read for {reading_ms:.1f} ms", reading_ms),
    ]
    if new_model and config.data.tokenizer == "gpt2" and (config.model.vocab_size or 0) > 2 * OWN_VOCABULARY:
        saved.append(own_vocabulary(found, config))
    if found.peak_flops and rates["now"] < BUSY * found.peak_flops:
        saved.append(larger_micro_batch(found, config, found.peak_flops))
    if "bfloat16" in rates:
        times = rates["bfloat16"] / rates["now"]
        products_ms = sum(part.products_ms for part in parts.values())
        saved.append((f"--dtype bfloat16: products run {times:.1f} times as fast", products_ms * (1 - 1 / times)))
    if found.other_ms is not None:
        change = f"--training.compile_model {'false' if found.compiled else 'true'}: measured"
        saved.append((change, step_ms - found.other_ms))
    kept = [Advice(change, ms, ms / step_ms) for change, ms in saved if ms > MIN_GAIN * step_ms]
    return sorted(kept, key=lambda one: -one.gain)


def own_vocabulary(found: Findings, config: Config) -> tuple[str, float]:
    """Advice: a smaller vocabulary means fewer FLOPs in the loss, and fewer parameters for AdamW."""
    shape, rows = config.model, config.model.vocab_size
    assert rows is not None
    saves = found.parts["loss"].ms * (1 - OWN_VOCABULARY / rows)
    if config.optimizer.kind == "adamw":
        now, then = (formulas(replace(shape, vocab_size=size)).n_parameters for size in (rows, OWN_VOCABULARY))
        saves += found.parts["optimizer"].ms * (1 - then / now)
    made = f"prepare.py --name {config.data.dataset_name} --train_tokenizer"
    return f"a vocabulary trained on this data ({made}): {OWN_VOCABULARY:,} output rows, not {rows:,}", saves


def larger_micro_batch(found: Findings, config: Config, peak: float) -> tuple[str, float]:
    """Advice: twice the sequences in a micro-batch, if products with twice the rows are faster."""
    training, now, twice = config.training, found.product_flops["now"], found.product_flops["twice the rows"]
    larger = replace(config, training=replace(training, batch_size=2 * training.batch_size))
    steps = training.gradient_accumulation_steps
    halved = f" --training.gradient_accumulation_steps {steps // 2} (the same result)" if steps % 2 == 0 else ""
    return (
        f"--batch_size {larger.training.batch_size}{halved}: products reach {now / peak:.0%} of the peak, with twice "
        f"the rows {twice / peak:.0%}; about {byte_count(memory.memory_bytes(larger))} of memory",
        found.parts["matrix products"].ms * (1 - now / twice),
    )


# --- output ---------------------------------------------------------------------------------------------------------


def table(found: Findings, advice: Sequence[Advice]) -> str:
    """The measurements and the advice as text."""
    peak, step, rest = found.peak_flops, found.step_ms, found.not_accounted_ms
    mfu = f", MFU {found.mfu:.1%} of {peak / 1e9:,.0f} GFLOP/s" if found.mfu is not None and peak else ""
    mfu += predicted_note(found.targets / found.tokens)
    lines = [
        f"A batch takes {step:.1f} ms ({found.fastest_ms:.1f} to {found.slowest_ms:.1f}; {found.profiled_ms:.1f} under the "
        f"profiler): {found.tokens:,} tokens, {short_count(found.tokens / step * 1e3)} a second{mfu}.\n",
        f"{'':<18}{'ms':>10}{'share':>8}{'GFLOP':>10}{'GFLOP/s':>10}{'of peak':>9}",
    ]
    for name, part in found.parts.items():
        line = f"{name:<18}{part.ms:>10.2f}{part.ms / step:>8.1%}"
        if rate := part.flops_per_s:
            line += f"{part.flops / 1e9:>10,.2f}{rate / 1e9:>10,.1f}{f'{rate / peak:.1%}' if peak else '-':>9}"
        lines.append(line)
    lines += [f"{'not accounted for':<18}{rest:>10.2f}{rest / step:>8.1%}", f"{'the batch':<18}{step:>10.2f}{1:>8.1%}"]
    largest = ", ".join(f"{name} {ms:.1f} ms" for name, ms in [*found.overhead_ops.items()][:5])
    lines.append(f"\nMost of the overhead: {largest}.\n")
    nothing = f"Nothing that this tool knows of would gain more than {MIN_GAIN:.0%}."
    lines.append("What to change, with the expected gain in time per token, each by itself:" if advice else nothing)
    return "\n".join(lines + [f"  {-one.gain:>5.0%}, to {step - one.saves_ms:.1f} ms: {one.change}" for one in advice])


def as_json(found: Findings, advice: Sequence[Advice], config: Config) -> str:
    """The measurements and the advice as JSON."""
    values = {"device": config.system.device, "dtype": config.system.dtype} | asdict(found)
    for name, part in found.parts.items():
        values["parts"][name] |= {"share": part.ms / found.step_ms, "flops_per_s": part.flops_per_s}
    values |= {"not_accounted_ms": found.not_accounted_ms, "advice": [asdict(one) for one in advice]}
    return json.dumps(values, indent=2) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Run the tool with these arguments; returns the exit code."""
    parser = Parser(prog="analyze_mfu.py", description=__doc__, epilog=FLAGS_OF_TRAIN)
    add = parser.add_argument
    add("--batches", type=int, default=10, metavar="N", help="number of batches to time [%(default)s]")
    add("--json", metavar="FILE", help="also write all results to this file")
    add("--try_compile", action="store_true", help="measure batches with torch.compile too (up to minutes)")
    own, train_flags = parser.parse_known_args(arguments)
    if own.batches < 1:
        raise UserError(f"--batches must be at least 1, not {own.batches}.")
    output = output_path(own.json) if own.json else None
    with (
        tempfile.TemporaryDirectory(prefix="jojo-mfu-") as folder,
        closing(prepare_run(measured_request(train_flags, Path(folder)))) as run,
    ):
        if run.device == "mps":
            raise UserError("PyTorch's profiler does not measure an Apple GPU; use --device cpu.")
        found = measure(Trainer(run), own.batches, own.try_compile)
        advice = advise(found, run.config, new_model=run.start.checkpoint is None)
        log.info("%s", table(found, advice))
        if output:
            replace_text(output, as_json(found, advice, run.config))
    if found.slowest_ms > 1.5 * found.step_ms:
        log.warning("Some batches took much longer than others. Stop other programs and measure again.")
    return 0


if __name__ == "__main__":
    run_command(main, if_full=TRAINED_MODEL)
