"""Estimate a run's peak memory before it runs: whether it fits, and the largest batch size that fits.

    python tools/test_memory_limits.py --config configs/gpt2.json                   on this machine
    python tools/test_memory_limits.py --config configs/gpt2.json --gpu "RTX 3060"  on another GPU; or --gpu 12 (GB)
    python tools/test_memory_limits.py --config configs/gpt2.json --gpu 12 --table  also for other batch and block sizes
    python tools/test_memory_limits.py --config configs/story-small.json --measure  compared with three real batches

It takes the flags of train.py that describe a run. It allocates nothing and reads no data; training/memory.py explains the
figures. Only --measure trains, in a process of its own, and keeps nothing but the token cache.

92 % of the memory counts as usable: the rest goes to the display, other programs, and gaps between tensors.
1 GB is 1,000,000,000 bytes. A GPU has a little more memory than its maker's round figure, never less.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import subprocess
import sys
import tempfile
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from config import Config
from jojo.command import Parser, run_command
from jojo.networks import formulas
from tools.parts.gpu_names import SHORT_NAMES, find_gpu, has_bfloat16, short_name
from tools.parts.runs import FLAGS_OF_TRAIN, USABLE, config_of, parse_train_flags
from training.memory import CUDA_CONTEXT_BYTES, Parts, memory_bytes, peak_parts
from utils import UserError, byte_count, log, one_line, output_path, replace_text, user_path

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)  # rows of the table; the config's own is added
BLOCK_SIZES = (128, 256, 512, 1024, 2048)  # columns; the config's own is added
MOST_SEQUENCES = 1 << 30
MEASURED = [  # flags of the measured run: three batches, an evaluation and a save
    *("--max_iters", "3", "--eval_interval", "3", "--training.eval_iters", "1", "--training.sample_interval", "0"),
    *("--training.max_minutes", "null", "--training.save_checkpoints", "true", "--no_color"),
]
# Runs train.py and writes its peak to a file. getrusage(RUSAGE_CHILDREN) in this process could count this process's pages too.
PROGRAM = """
import sys
from pathlib import Path

import train
from jojo.command import run_command


def main(arguments):
    code = train.main(arguments[2:])
    from jojo.machine.device import peak_memory_bytes

    if code == 0:
        Path(arguments[1]).write_text(str(peak_memory_bytes(arguments[0]) or 0))
    return code


run_command(main)
"""


@dataclass(frozen=True)
class Place:
    """The device that a run must fit on: its name, and its memory in bytes (None: unknown)."""

    name: str
    total_bytes: int | None
    has_bfloat16: bool = True

    @property
    def usable_bytes(self) -> int | None:
        return None if self.total_bytes is None else int(USABLE * self.total_bytes)

    def fits(self, size: int) -> bool | None:
        """Whether this many bytes fit; None: unknown."""
        return None if self.usable_bytes is None else size <= self.usable_bytes


@dataclass
class Answer:
    """What the tool reports about a run."""

    place: str
    device: str
    dtype: str
    parameters: int
    batch_size: int
    block_size: int
    moment: str  # of the peak; see training/memory.py
    parts: Parts
    peak_bytes: int
    usable_bytes: int | None
    fits: bool | None
    largest_batch_size: int | None  # 0: not even one sequence fits
    table: list[dict[str, int | bool | None]] = field(default_factory=list)
    measured_bytes: int | None = None


# --- the question --------------------------------------------------------------------------------------------------


def place_of(wanted: str) -> Place:
    """The GPU that `--gpu` names by its name or memory. Raises UserError for anything else."""
    if gpu := find_gpu(wanted):
        return Place(gpu.name, int((gpu.memory_gb or 0) * 1e9), has_bfloat16(gpu))
    try:
        size = float(wanted)
    except ValueError:
        near = difflib.get_close_matches(short_name(wanted), SHORT_NAMES, n=1)
        hint = f" (did you mean '{SHORT_NAMES[near[0]].name}'?)" if near else ""
        raise UserError(
            f"--gpu '{one_line(wanted)}' is not a GPU that this tool knows{hint}; give its memory in GB instead: --gpu 12."
        ) from None
    if not 0 < size < 1e6:
        raise UserError(f"--gpu must be a GPU's name or its memory in GB, above 0, not '{one_line(wanted)}'.")
    return Place(f"a GPU of {size:g} GB", int(size * 1e9))


def decide_config(args: argparse.Namespace, train_flags: list[str], gpu: Place | None) -> Config:
    """The config that these flags of train.py give, with vocabulary, device and dtype decided.

    With --gpu, this machine's own hardware does not matter.
    """
    config, sources = config_of(args, train_flags)
    system = config.system
    if gpu is None:
        from training.decisions import Reasons, derive_system

        derive_system(config, Reasons(sources))
        return config
    if sources["system.device"].startswith("--"):
        raise UserError("--gpu and --device both name a device; use one of them.")
    if system.dtype == "bfloat16" and not gpu.has_bfloat16:
        raise UserError(f"{gpu.name} has no bfloat16; use --dtype float16 or float32.")
    system.device = "cuda"
    if system.dtype == "auto":
        system.dtype = "bfloat16" if gpu.has_bfloat16 else "float32"
    return config


def this_machine(device: str) -> Place:
    """This machine's device and its memory: a GPU's own, else the main memory."""
    from jojo.machine.device import describe_device, total_memory_bytes

    name = describe_device(device) if device.startswith("cuda") else f"this machine ({device})"
    return Place(name, total_memory_bytes(device))


# --- the answer -----------------------------------------------------------------------------------------------


def resized(config: Config, batch_size: int, block_size: int | None = None) -> Config:
    """The config with another micro-batch."""
    model = replace(config.model, block_size=block_size or config.model.block_size)
    return replace(config, model=model, training=replace(config.training, batch_size=batch_size))


def largest_batch_size(config: Config, usable_bytes: int) -> int:
    """The largest micro-batch whose peak is within this many bytes; 0: not even one sequence."""
    sizes = range(1, MOST_SEQUENCES)
    return bisect_right(sizes, usable_bytes, key=lambda n: memory_bytes(resized(config, n)))


def same_batch(config: Config, largest: int) -> tuple[int, int]:
    """Size and number of micro-batches that make the config's batch, with a size of at most `largest`."""
    rows = config.rows_per_batch
    size = next(size for size in range(min(rows, largest), 0, -1) if rows % size == 0)
    return size, rows // size


def answer(config: Config, place: Place, with_table: bool = False) -> Answer:
    """Estimate the run, and if with_table is set, other batch and block sizes too."""
    moment, parts = peak_parts(config)
    peak, usable = sum(parts.values()), place.usable_bytes
    result = Answer(
        place.name, config.system.device, config.system.dtype, formulas(config.model).n_parameters, config.training.batch_size,
        config.model.block_size, moment, parts, peak, usable, place.fits(peak),
        None if usable is None else largest_batch_size(config, usable),
    )  # fmt: skip
    for batch_size in sorted({*BATCH_SIZES, config.training.batch_size}) if with_table else ():
        for block_size in sorted({*BLOCK_SIZES, config.model.block_size}):
            size = memory_bytes(resized(config, batch_size, block_size))
            fits = place.fits(size)
            result.table.append({"batch_size": batch_size, "block_size": block_size, "peak_bytes": size, "fits": fits})
    return result


def measure(args: argparse.Namespace, train_flags: Sequence[str], config: Config) -> int:
    """Peak memory of three real batches in bytes: of the process on a CPU, of allocations on CUDA."""
    with tempfile.TemporaryDirectory(prefix="jojo-memory-") as folder:
        flags = [*train_flags, *MEASURED, "--output_checkpoint", str(Path(folder) / "measured.pt")]
        places = {"data.data_dir": config.data.data_dir, "data.cache_dir": config.data.cache_dir}
        if args.config is not None:
            places["config"] = args.config
        if user_path(config.data.tokenizer).is_file():
            places["data.tokenizer"] = config.data.tokenizer
        flags += [f"--{name}={user_path(path).resolve()}" for name, path in places.items()]  # its folder differs
        peak, output = Path(folder) / "peak", Path(folder) / "output"
        with output.open("wb") as file:
            code = subprocess.run(
                [sys.executable, "-c", PROGRAM, config.system.device, str(peak), *flags],
                cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=file, stderr=subprocess.STDOUT, check=False,
            ).returncode  # fmt: skip
        if code or not peak.exists():
            said = [line.strip() for line in output.read_text(errors="replace").splitlines() if line.strip()]
            raise UserError(f"The measured run ended with code {code}: {said[-1] if said else 'it printed nothing'}")
        return int(peak.read_text())


# --- output ---------------------------------------------------------------------------------------------------------


def report(found: Answer, config: Config) -> str:
    """The answer as text."""
    shape = f"{found.parameters:,} parameters, {found.batch_size} x {found.block_size:,} tokens at once, {found.dtype}"
    width = max(len(name) for name in found.parts) + 2
    lines = [f"{shape}\n", *(f"  {name:<{width}}{byte_count(size):>10}" for name, size in found.parts.items())]
    lines.append(f"  {'peak':<{width}}{byte_count(found.peak_bytes):>10}   ({found.moment})\n")
    if found.usable_bytes is None or found.largest_batch_size is None:
        return "\n".join([*lines, "This system does not report how much memory it has."])
    verdict = "It fits" if found.fits else "It does not fit"
    lines.append(f"{verdict}: {found.place} has {byte_count(found.usable_bytes)} of usable memory.")
    if found.largest_batch_size:
        lines.append(f"The largest batch size that fits is {found.largest_batch_size:,}.")
        if not found.fits:
            size, steps = same_batch(config, found.largest_batch_size)
            flags = f"--batch_size {size} --training.gradient_accumulation_steps {steps}"
            lines.append(f"The same batch in smaller micro-batches: {flags}")
    else:
        lines.append("Not even one sequence fits: choose a smaller model or a smaller --model.block_size.")
    return "\n".join(lines)


def table(found: Answer) -> str:
    """A table of peaks by batch size (rows) and block size (columns)."""
    columns = sorted({row["block_size"] or 0 for row in found.table})
    lines = ["Peak memory by batch size and block size (x: does not fit)\n"]
    lines.append(" " * 8 + "".join(f"{size:>12,}" for size in columns))
    for start in range(0, len(found.table), len(columns)):
        row = found.table[start : start + len(columns)]
        cells = (f"{byte_count(cell['peak_bytes'] or 0)}{' x' if cell['fits'] is False else '  '}" for cell in row)
        lines.append(f"{row[0]['batch_size']:>8,}" + "".join(f"{cell:>12}" for cell in cells))
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Run the tool with these arguments; returns the exit code."""
    parser = Parser(prog="test_memory_limits.py", description=__doc__, epilog=FLAGS_OF_TRAIN)
    add = parser.add_argument
    add("--gpu", metavar="NAME|GB", help="estimate for this GPU, named by its model or its memory [this machine]")
    add("--table", action="store_true", help="also show other batch sizes and block sizes")
    add("--measure", action="store_true", help="also train three batches on this machine and compare")
    add("--json", metavar="FILE", help="also write all results to this file")
    own, train_flags = parser.parse_known_args(arguments)
    args = parse_train_flags(train_flags)
    output = output_path(own.json) if own.json else None
    if own.measure and own.gpu is not None:
        raise UserError("--measure runs on this machine, and --gpu names another GPU; use one of them.")
    gpu = None if own.gpu is None else place_of(own.gpu)
    config = decide_config(args, train_flags, gpu)
    if own.measure and config.system.device == "mps":
        raise UserError("Memory on an Apple GPU cannot be measured; use --device cpu.")
    found = answer(config, gpu or this_machine(config.system.device), own.table)
    log.info("%s", report(found, config))
    if own.table:
        log.info("\n%s", table(found))
    if own.measure:
        found.measured_bytes = measure(args, train_flags, config)
        if not found.measured_bytes:
            raise UserError("This system does not report how much memory a process took.")
        # The measurement on CUDA counts allocations only, so CUDA's own memory is not in it.
        without = CUDA_CONTEXT_BYTES if config.system.device.startswith("cuda") else 0
        ratio = (found.peak_bytes - without) / found.measured_bytes - 1
        log.info(
            "Measured: %s; the estimate is %.1f %% %s it.",
            byte_count(found.measured_bytes), 100 * abs(ratio), "above" if ratio > 0 else "below",
        )  # fmt: skip
    if output:
        replace_text(output, json.dumps(asdict(found), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    run_command(main)
