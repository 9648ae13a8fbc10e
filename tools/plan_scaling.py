"""Estimate a run on many GPUs: memory, communication, time and MFU, and how many GPUs are worth it.

    python tools/plan_scaling.py --config configs/gpt2-xl.json --gpu h100                from 1 to 4,096 GPUs
    python tools/plan_scaling.py --config configs/gpt2-xl.json --gpu h100 --gpus 64      64 GPUs, with all parts
    python tools/plan_scaling.py --config configs/gpt2.json --gpu a100 --batch_tokens 4e6 --network 12.5

It compares ddp, fsdp over all GPUs, and n x 8: fsdp over the GPUs of a machine, with a copy of the model on each of n
machines (--system.parallel, --system.shard_ranks). The size of the batch is the config's on any number of GPUs, and so is that of
a micro-batch, unless there are too many GPUs for it. A batch that cannot be divided evenly is rounded.

Memory is the estimate of training/memory.py. Collectives and their bytes are those of PyTorch's wrappers. Both agree with
runs of the real trainer on PyTorch's fake process group of 64 ranks (tests/tools/test_plan_scaling.py). Time was never
measured on such hardware. It is computed from data sheets, with these assumptions (arithmetic: tools/parts/scaling.py):
- The forward and backward pass reach 40 % of the peak (--efficiency), and a block takes at least 0.3 ms per micro-batch.
- Collectives reach 80 % of a link's bandwidth, and the update 80 % of the memory's.
- A collective takes at least 10 us, 1 us more per GPU of a machine, and 6 us more per machine in its ring or step of its tree.
- While the GPU computes, the ranks exchange their stop flags: 150 us for each step of a tree, and 60 us for each rank.
Larger models need tensor and pipeline parallelism, which Jojo does not have.

It takes the flags of train.py that describe a run. 92 % of a GPU's memory counts as usable.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from config import Config
from jojo.command import Parser, run_command
from jojo.networks import formulas
from tools.parts.runs import FLAGS_OF_TRAIN, config_of, parse_train_flags
from tools.parts.scaling import COMPUTE_SHARE, LINKED, Cluster, Plan, linked_gpu, no_fsdp, plans
from training.flags import overrides
from utils import UserError, byte_count, duration, log, one_line, output_path, plural, replace_text, short_count

GPU_COUNTS = tuple(2**power for power in range(13))  # 1 to 4,096
MOST_GPUS = 1 << 20
WORTH = 0.5  # share of one GPU's MFU; below it, more GPUs are not worth their price
WHY = {  # part of a plan's time -> what a sentence calls it
    "compute": "computing", "small kernels": "micro-batches too small to keep a GPU busy", "links": "the links inside a machine",
    "network": "the network between machines", "latency": "the collectives' latency", "update": "the update",
    "agreement": "the exchange of stop flags once a batch",
}  # fmt: skip


# --- the question --------------------------------------------------------------------------------------------------


def positive(flag: str, text: str, most: float, whole: bool = False) -> float:
    """Parse a flag's number, above 0 and at most `most`. Raises UserError for anything else."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= most or (whole and value != int(value)):
        kind = f"a whole number from 1 to {most:,.0f}" if whole else f"a number above 0 and at most {most:,g}"
        raise UserError(f"{flag} must be {kind}, not '{one_line(text)}'.")
    return value


def decide_config(args: argparse.Namespace, train_flags: Sequence[str]) -> Config:
    """The config that these flags of train.py give, for a CUDA device."""
    for flag, name, _ in overrides(args, list(train_flags)):
        if name in ("system.device", "system.parallel", "system.shard_ranks"):
            raise UserError(f"{flag} has no meaning here: --gpu names the device, and all layouts are compared.")
    config, _ = config_of(args, train_flags)
    config.system.device = "cuda"
    if config.system.dtype == "auto":
        config.system.dtype = "bfloat16"
    return config


def gpu_counts(asked: str | None, per_node: int) -> list[int]:
    """The numbers of GPUs to plan for. Raises UserError for a number that does not fill its machines."""
    if asked is None:
        return [n for n in GPU_COUNTS if n <= per_node or n % per_node == 0]
    gpus = int(positive("--gpus", asked, MOST_GPUS, whole=True))
    if gpus > per_node and gpus % per_node:
        raise UserError(f"--gpus {gpus}: on several machines it must be a multiple of --gpus_per_node, {per_node}.")
    return [gpus]


# --- the answer -----------------------------------------------------------------------------------------------


def best(found: Sequence[Plan]) -> Plan | None:
    """The fastest plan that fits; None if no plan fits."""
    return min((plan for plan in found if plan.fits), key=lambda plan: plan.step_s, default=None)


def reason(plan: Plan) -> str:
    """What takes most of a plan's time besides computing, as part of a sentence."""
    rest = {name: seconds for name, seconds in plan.seconds.items() if name != "compute"}
    name = max(rest, key=lambda name: rest[name])
    return f"{WHY[name]}, {rest[name] / plan.step_s:.0%} of the time"


def kind_of(plan: Plan) -> str:
    """A layout's name without the number of machines."""
    return f"n x {plan.layout.split(' x ')[1]}" if " x " in plan.layout else plan.layout


def verdict(table: Sequence[Sequence[Plan]], one: Plan, skipped: Sequence[int], sequences: int) -> list[str]:
    """Sentences about each layout (on how many GPUs it fits and is worth it), the batch, and the best plan.

    Args:
        table: the plans for each number of GPUs that can share the batch.
        one: the plan for one GPU, even if it does not fit.
        skipped: numbers of GPUs that are larger than the batch.
        sequences: their number in a batch.
    """
    everything = [plan for found in table for plan in found]
    kinds = dict.fromkeys(kind_of(plan) for plan in everything)
    lines = [of_layout(kind, [plan for plan in everything if kind_of(plan) == kind], one) for kind in kinds]
    if skipped:
        lines.append(
            f"The batch has {plural(sequences, 'sequence')}: {skipped[0]:,} GPUs cannot share it (--batch_tokens)."
        )
    fastest = [plan for found in table if (plan := best(found))]
    paying = [plan for plan in fastest if plan.mfu >= WORTH * one.mfu]
    if table and not fastest:
        lines.append("Nothing fits: --training.activation_checkpointing true and a smaller --batch_size save memory.")
    elif len(table) == 1:
        loses = reason(fastest[0])
        lines.append(
            f"The fastest that fits: {fastest[0].layout}" + ("." if " 0% " in loses else f"; it loses most to {loses}.")
        )
    elif paying:
        least, most = max(paying, key=lambda plan: plan.mfu), paying[-1]
        lines.append(f"Cheapest: {of_speed(least)}. The most GPUs that pay off: {of_speed(most)}.")
    elif table:
        lines.append("Nothing that fits reaches half of one GPU's MFU.")
    return lines


def of_speed(plan: Plan) -> str:
    """A plan's GPUs, layout and speed."""
    how = "1 GPU" if plan.gpus == 1 else f"{plan.gpus:,} GPUs with {plan.layout}"
    return f"{how}, {short_count(plan.tokens_per_s)} tokens a second, MFU {plan.mfu:.1%}"


def of_layout(kind: str, plans: Sequence[Plan], one: Plan) -> str:
    """Say on how many GPUs a layout fits and is worth it."""
    fitting = [plan for plan in plans if plan.fits]
    if not fitting:
        least = min(plans, key=lambda plan: plan.peak_bytes)
        where = f"; on {least.gpus:,} GPUs it takes {{}} of each GPU" if least.gpus > 1 else "; it takes {}"
        return f"{kind}: does not fit{where.format(byte_count(least.peak_bytes))}."
    said = "fits"
    if len(fitting) < len(plans):
        together = fitting == plans[-len(fitting) :]
        said += f" from {fitting[0].gpus:,} GPUs on" if together else f" on {', '.join(f'{p.gpus:,}' for p in fitting)}"
    if late := next((plan for plan in fitting if plan.mfu < WORTH * one.mfu), None):
        said += f"; on {late.gpus:,} GPUs its MFU is {late.mfu:.1%}, below half of one GPU's: {reason(late)}"
    elif fitting[-1].gpus > 1:
        said += f"; its MFU stays above half of one GPU's, {fitting[-1].mfu:.1%} on {fitting[-1].gpus:,}"
    return f"{kind}: {said}."


# --- output ---------------------------------------------------------------------------------------------------------


def heading(config: Config, cluster: Cluster, sequences: int) -> str:
    """The run, the machines and the assumptions."""
    gpu, model = cluster.gpu, config.model
    recomputed = ", activation checkpointing" if config.training.activation_checkpointing else ""
    return (
        f"{formulas(model).n_parameters:,} parameters, {config.system.dtype}{recomputed}; a batch: "
        f"{plural(sequences, 'sequence')} of {model.block_size:,} tokens\n"
        f"{gpu.name}, {gpu.memory_gb:g} GB, {cluster.per_node} per machine: {gpu.link} {gpu.link_gb_s:g} GB/s, network "
        f"{cluster.network_gb_s:g} GB/s per GPU\n"
        "Memory and collectives agree with runs on a fake process group. Time was never measured. It is computed for "
        f"{cluster.efficiency:.0%} of the peak; --help lists what else it assumes.\n"
    )


def overview(table: Sequence[Sequence[Plan]], skipped: Sequence[int], one: Plan) -> str:
    """A table with a row for each number of GPUs: memory and MFU of the layouts, and the fastest that fits."""
    kinds = [*dict.fromkeys(kind_of(plan) for found in table for plan in found if plan.gpus > 1)] or ["ddp"]
    title = "memory of each GPU" if len(kinds) > 1 else "memory"
    lines = [
        f"{'':<19}{title:^{10 * len(kinds)}}{'MFU':^{8 * len(kinds)}}".rstrip(),
        f"{'GPUs':>6}{'batch':>13}" + "".join(f"{name:>9} " for name in kinds) + "".join(f"{name:>8}" for name in kinds)
        + "   fastest that fits",
    ]  # fmt: skip
    for found in table:
        first, by_kind = found[0], {kind_of(plan): plan for plan in found}
        if first.gpus == 1:
            by_kind[kinds[0]] = first
        plans = [by_kind.get(kind) for kind in kinds]
        line = f"{first.gpus:>6,}{f'{first.gpus * first.micro_batches:,} x {first.batch_size}':>13}"
        for plan in plans:
            line += f"{f'{plan.peak_bytes / 1e9:.1f} GB' + (' ' if plan.fits else 'x') if plan else '- ':>10}"
        line += "".join(f"{f'{plan.mfu:.1%}' if plan else '-':>8}" for plan in plans)
        if plan := best(found):
            line += f"   {plan.layout}: {shown_seconds(plan.step_s)}, {short_count(plan.tokens_per_s)} tokens/s, "
            line += f"{plan.tokens_per_s / plan.gpus / one.tokens_per_s:.0%}"
        lines.append(line)
    lines += [f"{gpus:>6,}{'-':>13}" for gpus in skipped]
    lines.append(
        "batch: micro-batches of all GPUs x sequences; x: does not fit; %: speed per GPU, relative to one GPU alone"
    )
    return "\n".join(lines)


def details(found: Sequence[Plan], one: Plan) -> str:
    """All parts of the plans for one number of GPUs, side by side."""
    first, moments = found[0], "/".join(dict.fromkeys(plan.moment for plan in found))
    memory = sorted(dict.fromkeys(name for plan in found for name in plan.memory), key=lambda name: name == "CUDA")
    times = [name for name in WHY if any(name in plan.seconds for plan in found)]
    rows: list[tuple[str, Callable[[Plan], str] | None]] = [  # with None: a heading
        ("memory of each GPU", None),
        *((name, lambda plan, name=name: shown(plan.memory, name, byte_count)) for name in memory),
        (f"peak ({moments})", lambda plan: byte_count(plan.peak_bytes)),
        ("fits", lambda plan: "yes" if plan.fits else "no"),
        ("each GPU sends, a batch", None),
        ("inside its machine", lambda plan: byte_count(plan.sent()[0])),
        ("to other machines", lambda plan: byte_count(plan.sent()[1])),
        ("collectives", lambda plan: f"{plan.number():,}"),
        ("time of a batch", None),
        *((name, lambda plan, name=name: shown(plan.seconds, name, shown_seconds)) for name in times),
        ("in all", lambda plan: shown_seconds(plan.step_s)),
        ("sending while it computes", lambda plan: shown_seconds(plan.hidden_s)),
        ("tokens a second", lambda plan: short_count(plan.tokens_per_s)),
        ("MFU", lambda plan: f"{plan.mfu:.1%}"),
        ("of one GPU's speed", lambda plan: f"{plan.tokens_per_s / plan.gpus / one.tokens_per_s:.0%}"),
    ]
    gpus = f"{first.gpus:,} GPU{'s' if first.gpus > 1 else ''}"
    lines = [f"{gpus}: {first.sequences:,} sequences, {first.micro_batches:,} x {first.batch_size} on each"]
    lines.append(f"{'':<32}" + "".join(f"{plan.layout:>12}" for plan in found))
    for name, cell in rows:
        lines.append(name if cell is None else f"  {name:<30}" + "".join(f"{cell(plan):>12}" for plan in found))
    return "\n".join(lines) + "\n"


def shown(parts: Mapping[str, Any], name: str, write: Callable[[Any], str]) -> str:
    """Format a part of a plan; a dash if the plan does not have it."""
    return write(parts[name]) if name in parts else "-"


def shown_seconds(seconds: float) -> str:
    """Format seconds, as ms below one second."""
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.2f} s" if seconds < 100 else duration(seconds)


def as_json(table: Sequence[Sequence[Plan]], one: Plan, cluster: Cluster) -> str:
    """The plans as JSON."""
    rows = []
    for plan in (plan for found in table for plan in found):
        here, away = plan.sent()
        rows.append(
            asdict(plan)
            | {"peak_bytes": plan.peak_bytes, "step_s": plan.step_s, "sent_inside": here, "sent_away": away}
            | {"n_collectives": plan.number(), "speed": plan.tokens_per_s / plan.gpus / one.tokens_per_s}
        )
    return json.dumps({"cluster": asdict(cluster), "plans": rows}, indent=2) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Run the tool with these arguments; returns the exit code."""
    parser = Parser(prog="plan_scaling.py", description=__doc__, epilog=FLAGS_OF_TRAIN)
    add = parser.add_argument
    add("--gpu", metavar="NAME", help=f"one of: {', '.join(LINKED)}")
    add("--gpus", metavar="N", help="plan for N GPUs and show all parts [an overview of 1, 2, 4 ... 4096]")
    add("--gpus_per_node", metavar="N", default="8", help="GPUs in each machine [%(default)s]")
    add("--network", metavar="GB/s", help="network bandwidth between machines, per GPU [what is usual with this GPU]")
    add("--batch_tokens", metavar="N", help="tokens of a batch [the config's]")
    add("--efficiency", metavar="SHARE", default=str(COMPUTE_SHARE), help="share of the peak reached [%(default)s]")
    add("--all", action="store_true", help="show all parts for each number of GPUs")
    add("--json", metavar="FILE", help="also write all results to this file")
    own, train_flags = parser.parse_known_args(arguments)
    if own.gpu is None:
        raise UserError(f"--gpu is missing; name one of: {', '.join(LINKED)}.")
    gpu = linked_gpu(own.gpu)
    per_node = int(positive("--gpus_per_node", own.gpus_per_node, 1024, whole=True))
    network = gpu.network_gb_s if own.network is None else positive("--network", own.network, 1e6)
    output = output_path(own.json) if own.json else None
    cluster = Cluster(gpu, per_node, network, positive("--efficiency", own.efficiency, 1.0))
    config = decide_config(parse_train_flags(train_flags), train_flags)
    sequences = config.rows_per_batch
    if own.batch_tokens is not None:
        tokens = positive("--batch_tokens", own.batch_tokens, 2.0**40, whole=True)
        if tokens < config.model.block_size:
            raise UserError(
                f"--batch_tokens {tokens:,.0f} is less than one sequence of {config.model.block_size:,} tokens."
            )
        sequences = round(tokens / config.model.block_size)
    one = plans(config, 1, cluster, sequences)[0]
    numbers = gpu_counts(own.gpus, per_node)
    table = [found for gpus in numbers if (found := plans(config, gpus, cluster, sequences))]
    skipped = [gpus for gpus in numbers if gpus > sequences]
    log.info("%s", heading(config, cluster, sequences))
    if own.gpus is None and not own.all:
        log.info("%s\n", overview(table, skipped, one))
    else:
        for found in table:
            log.info("%s", details(found, one))
    log.info("%s", "\n".join(verdict(table, one, skipped, sequences)))
    if unsupported := no_fsdp(config):
        log.info("fsdp and n x 8 are left out: %s.", unsupported)
    if output:
        replace_text(output, as_json(table, one, cluster))
    return 0


if __name__ == "__main__":
    run_command(main)
