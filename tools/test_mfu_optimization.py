"""Find the settings that train a config fastest on this machine: micro-batch size, dtype, torch.compile, threads.

    python tools/test_mfu_optimization.py --config configs/story-small.json
    python tools/test_mfu_optimization.py --config configs/gpt2.json --batch_sizes 4,12,24 --dtypes float32,bfloat16 \\
        --threads 1,2 --compile false,true --rounds 3 --output best.json

It takes the flags of train.py that describe a run, trains some batches with each of the settings, and keeps no model. Tokens
per batch stay the same, because gradient accumulation follows from the micro-batch size; so the settings change the result only
by rounding. It varies one factor after another, from the best settings so far; --full tries every combination. Settings are
measured in turns, round after round, and the median counts. Each measurement has its own process, so that peak memory is
measured separately. Settings that do not fit get a line in the table. Ctrl-C ends the measurements and reports those made so far.

It writes mfu_sweep.json (every round), mfu_sweep.png and mfu_best.json, a config for train.py. Stop other programs first.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any, TypeVar

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from config import OPTIONS, Config, Value
from jojo.command import TRAINED_MODEL, Parser, run_command
from jojo.config_file import file_layers
from tools.parts.runs import FLAGS_OF_TRAIN, measured_request, timed_step
from tools.parts.sweep_report import SweepResult, as_json, best_config, draw, summary, table
from tools.parts.sweep_search import DOES_NOT_FIT, Answer, Settings, Sweep, coordinate_search, full_search, sizes_to_try
from utils import UserError, byte_count, divisors, is_out_of_memory, log, one_line, output_path, replace_text, user_path

if TYPE_CHECKING:
    from training.flags import Request
    from training.run import Run

__test__ = False  # pytest must not collect this file, although its name begins with test_
WORKER = "--measure_once"  # the tool starts itself with this flag for each measurement
DTYPES = [name for name in OPTIONS["system.dtype"].choices or () if name != "auto"]
T = TypeVar("T")


# --- one measurement, in a process of its own -----------------------------------------------------------------------


def options_of(settings: Settings) -> list[tuple[str, str, Value]]:
    """(flag, dotted name, value) for all settings except the threads, which are no option of a config."""
    values: dict[str, Value] = {
        "training.batch_size": settings.batch_size,
        "training.gradient_accumulation_steps": settings.accumulation,
        "system.dtype": settings.dtype,
        "training.compile_model": settings.compiled,
    }
    return [(f"--{name}", name, value) for name, value in values.items()]


def measure_here(settings: Settings, arguments: Sequence[str], device: str, batches: int, folder: str) -> Answer:
    """Train on some batches and time them, after one batch to compile and warm up.

    Args:
        settings: what to measure.
        arguments: flags of train.py.
        device: the same for all settings.
        batches: number of batches to time.
        folder: for the files of the run, although none are written.
    """
    import torch

    torch.set_num_threads(settings.threads)

    from jojo.machine import device as devices
    from trainer import Trainer
    from training.placement import is_compiled
    from training.run import prepare_run

    given = [("--device", "system.device", device), *options_of(settings)]
    with closing(prepare_run(measured_request(arguments, Path(folder), given))) as run:
        trainer = Trainer(run)
        if settings.compiled and not is_compiled(trainer.model):
            reason = run.reasons.derived.get("training.compile_model", "--training.compile_model true --debug says why")
            raise UserError(f"torch.compile does not work here ({reason})")
        timed_step(trainer)
        steps = [timed_step(trainer) for _ in range(batches)]
        ms, tokens = median(ms for ms, _ in steps), run.config.tokens_per_batch
        memory, predicted = devices.peak_memory_bytes(run.device), mean(n for _, n in steps) / tokens
        return Answer(ms, tokens / ms * 1e3, memory, predicted=predicted)


def measure_once() -> None:
    """Read a task from stdin and write the answer to stdout; all other output goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with contextlib.suppress(OSError):  # Linux: if memory runs out, the system kills this process first
        Path("/proc/self/oom_score_adj").write_text("1000")
    try:
        task = json.load(sys.stdin)
        answer = measure_here(**task | {"settings": Settings(**task["settings"])})
    except Exception as error:  # any failure becomes a line of the table
        answer = Answer(failed=reason_of(error))
    print(json.dumps(asdict(answer)), file=answers, flush=True)


def reason_of(error: Exception) -> str:
    """Say in one line why settings could not be measured."""
    if is_out_of_memory(error):
        return DOES_NOT_FIT
    said = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return f"failed: {one_line(' '.join(said.split()), 200)}"


def measure_in_process(settings: Settings, **task: Any) -> Answer:
    """Call measure_here in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, WORKER], input=json.dumps(task | {"settings": asdict(settings)}).encode(),
        capture_output=True, check=False,
    )  # fmt: skip
    said = done.stderr.decode(errors="replace").strip()
    log.debug("%s", said)
    if done.returncode == 0:
        return Answer(**json.loads(done.stdout))
    if done.returncode == -9:  # SIGKILL: nobody else sends it
        return Answer(failed=f"{DOES_NOT_FIT} (the system killed it)")
    last = (said.splitlines() or ["it printed nothing"])[-1]
    return Answer(failed=f"failed: the process ended with {done.returncode}: {one_line(last, 160)}")


def too_large(config: Config, settings: Settings) -> str | None:
    """Say why settings do not fit in main memory by the estimate, because trying them could stop the machine; None: they fit."""
    from jojo.machine import device as devices
    from training.memory import memory_bytes

    wanted = replace(config, training=replace(config.training, batch_size=settings.batch_size))
    wanted.system = replace(config.system, dtype=settings.dtype)
    needed, total = memory_bytes(wanted), devices.total_memory_bytes("cpu")
    if config.system.device != "cpu" or total is None or needed <= total:  # on a GPU, too much is only an error
        return None
    return f"{DOES_NOT_FIT} (needs about {byte_count(needed)} of {byte_count(total)})"


# --- the settings to try --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choices:
    """The values that the flags list; None: the tool chooses them for the machine."""

    batch_sizes: list[int] | None
    dtypes: list[str] | None
    compiled: list[bool] | None
    threads: list[int] | None


def listed(flag: str, text: str | None, parse: Callable[[str], T], kind: str) -> list[T] | None:
    """Parse a flag's list, each value once. Raises UserError if it is malformed."""
    if text is None:
        return None
    try:
        return list(dict.fromkeys(parse(part.strip().lower()) for part in text.split(",")))
    except (ValueError, KeyError):
        raise UserError(f"{flag} must be a list of {kind} with commas between them, not '{one_line(text)}'.") from None


def known_dtype(text: str) -> str:
    """Check a dtype's name. Raises ValueError for an unknown one."""
    if text not in DTYPES:
        raise ValueError(text)
    return text


def positive_integer(text: str) -> int:
    """Parse a whole number of at least 1. Raises ValueError for anything else."""
    number = int(text)
    if not 1 <= number < 2**31:
        raise ValueError(text)
    return number


def parse_choices(args: argparse.Namespace) -> Choices:
    """Parse the lists of all flags."""
    return Choices(
        listed("--batch_sizes", args.batch_sizes, positive_integer, "whole numbers from 1 on"),
        listed("--dtypes", args.dtypes, known_dtype, f"dtypes ({', '.join(DTYPES)})"),
        listed("--compile", args.compile, {"true": True, "false": False}.__getitem__, "true and false"),
        listed("--threads", args.threads, positive_integer, "whole numbers from 1 on"),
    )


def own_settings(config: Config) -> Settings:
    """The settings of a resolved config, with the number of threads that train.py would use."""
    import torch

    training = config.training
    return Settings(
        training.batch_size, training.gradient_accumulation_steps, config.system.dtype, bool(training.compile_model),
        torch.get_num_threads(),
    )  # fmt: skip


def choices_of(config: Config, asked: Choices) -> dict[str, list[dict[str, Any]]]:
    """For each factor, its choices as changes to Settings. Raises UserError for an impossible choice."""
    rows, device = config.rows_per_batch, config.system.device
    sizes = asked.batch_sizes or sizes_to_try(rows, config.training.batch_size)
    if bad := next((size for size in sizes if rows % size), None):
        raise UserError(
            f"--batch_sizes: {bad} does not divide the {rows:,} sequences of a batch (batch_size x "
            f"gradient_accumulation_steps); the batch stays the same. Sizes that divide it: {', '.join(map(str, divisors(rows)))}."
        )
    for dtype in asked.dtypes or ():
        if reason := unusable(dtype, device):
            raise UserError(f"--dtypes: {reason}")
    return {
        "batch size": [{"batch_size": size, "accumulation": rows // size} for size in sizes],
        "dtype": [{"dtype": dtype} for dtype in asked.dtypes or dtypes_of(device)],
        "threads": [{"threads": number} for number in asked.threads or threads_of(device)],
        "compile": [{"compiled": compiled} for compiled in asked.compiled or (False, True)],
    }


def unusable(dtype: str, device: str) -> str | None:
    """Say why a device cannot train in a dtype; None: it can."""
    from jojo.machine import device as devices

    try:
        devices.choose_dtype(dtype, device)
    except UserError as error:
        return str(error)
    return None


def dtypes_of(device: str) -> list[str]:
    """The dtypes that a device can train in, without bfloat16 if the CPU emulates it."""
    from jojo.machine import device as devices

    emulated = {"bfloat16"} if device == "cpu" and not devices.cpu_is_fast_at_bfloat16() else set()
    return [dtype for dtype in DTYPES if dtype not in emulated and not unusable(dtype, device)]


def threads_of(device: str) -> list[int]:
    """Numbers of threads to try. On a CPU: half of torch's default, torch's default, and one per core; else the default."""
    import torch

    usual = torch.get_num_threads()
    return sorted({max(1, usual // 2), usual, os.cpu_count() or usual}) if device == "cpu" else [usual]


# --- the command ----------------------------------------------------------------------------------------------------


def build_parser() -> Parser:
    """The tool's own flags."""
    parser = Parser(prog="test_mfu_optimization.py", description=__doc__, epilog=FLAGS_OF_TRAIN)
    add = parser.add_argument
    add("--batch_sizes", metavar="N,N", help="micro-batch sizes, divisors of a batch's sequences [chosen divisors]")
    add("--dtypes", metavar="D,D", help=f"dtypes, of {', '.join(DTYPES)} [those that the device is fast at]")
    add("--threads", metavar="N,N", help="numbers of CPU threads [half of torch's default, the default, one per core]")
    add("--compile", metavar="B,B", help="whether to use torch.compile [false,true]")
    add("--full", action="store_true", help="try every combination instead of one factor after another")
    add("--rounds", type=int, default=3, metavar="N", help="how often to measure all settings in turns [%(default)s]")
    add("--batches", type=int, default=5, metavar="N", help="batches to time in a turn, after a warm-up [%(default)s]")
    add("--output", default="mfu_best.json", metavar="FILE", help="the best settings as a config [%(default)s]")
    add("--json", default="mfu_sweep.json", metavar="FILE", help="all measurements [%(default)s]")
    add("--plot", default="mfu_sweep.png", metavar="FILE", help="a plot of all measurements, PNG [%(default)s]")
    return parser


def check_files(args: argparse.Namespace, config_file: str | None) -> tuple[Path, Path, Path]:
    """The paths of config, JSON and plot. Raises UserError if one cannot be written, before anything is measured."""
    files = {flag: output_path(getattr(args, flag)) for flag in ("output", "json", "plot")}
    read = {Path(name).resolve() for name, _ in file_layers(user_path(config_file))} if config_file is not None else ()
    taken: dict[Path, str] = {}
    for flag, path in files.items():
        if path.resolve() in read:
            raise UserError(f"--{flag} '{path}' is a file that --config reads; name another one.")
        if other := taken.get(path.resolve()):
            raise UserError(f"--{other} and --{flag} both name '{path}'; name two files.")
        taken[path.resolve()] = flag
    return files["output"], files["json"], files["plot"]


def sweep_run(run: Run, args: argparse.Namespace, measure: Callable[[Settings], Answer]) -> Sweep:
    """Measure the settings that the flags select. Raises UserError if no settings work."""
    config, asked = run.config, parse_choices(args)
    choices = choices_of(config, asked)

    def measured(settings: Settings) -> Answer:
        reason = too_large(config, settings)
        answer = Answer(failed=reason) if reason else measure(settings)
        result = answer.failed or f"{answer.ms:,.1f} ms, {answer.tokens_per_s:,.0f} tokens/s"
        log.info("  %s: %s; about %d left", settings, result, sweep.left)
        return answer

    sweep = Sweep(own_settings(config), measured, args.rounds)
    log.info("Measuring settings, the config's own first (batch size x accumulation, dtype, threads). Ctrl-C ends it:")
    try:
        (full_search if args.full else coordinate_search)(sweep, choices)
    except KeyboardInterrupt as error:
        if sweep.best is None:
            raise
        sweep.interrupted = error
        log.warning("Interrupted; these are the results so far.")
        sweep.rows = {settings: row for settings, row in sweep.rows.items() if row.failed or row.works}
    if sweep.best is None:
        own = sweep.rows[sweep.own]
        raise UserError(f"No settings can be measured here. The config's own ({own.settings}): {own.failed}.")
    return sweep


def result_of(run: Run, sweep: Sweep, command: Sequence[str]) -> SweepResult:
    """The measurements, and what the report compares them with."""
    from jojo.machine import device as devices
    from jojo.machine import estimate
    from jojo.networks import formulas
    from tools.parts.benchmark_report import machine_names

    system = run.config.system
    dtypes = dict.fromkeys(row.settings.dtype for row in sweep.rows.values() if row.works)
    peaks = {dtype: estimate.peak_flops(replace(system, dtype=dtype)) for dtype in dtypes}
    machine = machine_names() | {"device": devices.describe_device(run.device)}
    return SweepResult(sweep, run.config, command, machine, formulas(run.config.model).flops_per_token, peaks)


def write_files(result: SweepResult, files: tuple[Path, Path, Path], request: Request) -> None:
    """Write JSON, config and plot."""
    output, json_file, plot = files
    replace_text(json_file, as_json(result))
    flags = {name: value for _, name, value in request.overrides}
    config_file = user_path(request.config_file) if request.config_file is not None else None
    of_checkpoint = request.continue_from is not None or request.init_from is not None
    replace_text(output, best_config(result, output, config_file, flags, of_checkpoint))
    config = result.config
    where = result.machine["cpu" if config.system.device == "cpu" else "device"]
    what = Path(request.config_file).name if request.config_file else config.data.dataset_name
    draw(plot, result, f"{one_line(what, 40)}, {config.tokens_per_batch:,} tokens a batch, on {where}")


def main(arguments: Sequence[str]) -> int:
    """Run the tool with these arguments; returns the exit code."""
    args, train_flags = build_parser().parse_known_args(arguments)
    for name in ("rounds", "batches"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} must be at least 1, not {getattr(args, name)}.")
    parse_choices(args)
    with tempfile.TemporaryDirectory(prefix="jojo-mfu-") as folder:
        request = measured_request(train_flags, Path(folder))
        files = check_files(args, request.config_file)

        from training.run import prepare_run

        with closing(prepare_run(request)) as run:
            task = {"arguments": train_flags, "device": run.device, "batches": args.batches, "folder": folder}
            sweep = sweep_run(run, args, lambda settings: measure_in_process(settings, **task))
            result = result_of(run, sweep, arguments)
    log.info("\n%s\n", table(result))
    write_files(result, files, request)
    log.info("%s", summary(result, files[0], request.continue_from, request.init_from))
    log.info("Wrote %s, %s and %s", *files)
    if sweep.interrupted:
        raise sweep.interrupted
    return 0


if __name__ == "__main__":
    if sys.argv[1:] == [WORKER]:
        measure_once()
    else:
        run_command(main, if_full=TRAINED_MODEL)
