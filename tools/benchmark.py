"""Measure Jojo against transformers, on this machine's processor: training, loading, decoding and start-up.

    python tools/benchmark.py                       all four: 10 to 15 minutes on two cores; stop other programs first
    python tools/benchmark.py --only decoding
    python tools/benchmark.py --only training --layers 12 --heads 12 --width 768 --context 1024 --batch 4

The contestants take turns, in reverse order every second round, so that a machine that slows down is fair to all. Only one
computes at a time, with PyTorch's default number of threads (OMP_NUM_THREADS changes it). Warm-up does not count. Results are
medians of the rounds. The models are GPT-2 with biases, without dropout and with a vocabulary of 50,304 rows.

training  tokens per second and peak memory: the same random tokens for all, fused AdamW, clipped gradients, nothing
          compiled. bfloat16 is mixed precision with float32 weights
loading   time to make a batch, and its share of Jojo's step, compared with random windows of a numpy.memmap
decoding  the same weights and prompts, always the likeliest token: speed at the start of the context, at its end and with
          several samples at once, and the time to read a prompt that almost fills the context. With int8 the linear
          layers have int8 weights, and the rest is in bfloat16
startup   from the command to the first batch of one sequence (train.py) and to the first token (gen.py), compared with a
          script that does the same with transformers in float32. The token cache exists, and all files have been read once before

A ratio compares with transformers in the same dtype; int8 is compared with bfloat16. The tool writes benchmark.json, with
every round, and benchmark.png.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import IO, Any, TypeVar

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from jojo.command import Parser, run_command
from tools.parts import benchmark_report
from tools.parts.benchmark_contestants import DATASET, MANY, PLAIN_LOADER, PROMPT, Shape, jojo_run, train_flags
from tools.parts.benchmark_report import OURS, Measure, Part
from utils import UserError, __version__, log, one_line, output_path, user_path

T = TypeVar("T")

COUNTS = {  # flag: (default, value with --tiny, minimum, help)
    "layers": (6, 1, 1, "layers of the model in training, loading and startup"),
    "heads": (6, 2, 1, "its attention heads"),
    "width": (384, 32, 1, "its width"),
    "context": (256, 32, 2, "its context in tokens"),
    "batch": (12, 2, 1, "its sequences per batch"),
    "decode_layers": (12, 1, 1, "layers of the model in decoding; the defaults are GPT-2 with 124M parameters"),
    "decode_heads": (12, 2, 1, "its attention heads"),
    "decode_width": (768, 32, 1, "its width"),
    "decode_context": (1024, 32, 8, "its context in tokens"),
    "tokens": (32, 4, 2, "tokens decoded in a turn, at the start and again at the end"),
    "samples": (8, 2, 1, "samples decoded at once"),
    "batches": (3, 2, 1, "batches in a turn, in training and loading"),
    "stories": (20_000, 40, 40, "documents of the data set; the default has 4.5 million tokens"),
    "rounds": (5, 2, 1, "turns of each contestant"),
}


# --- processes -----------------------------------------------------------------------------------------------------


def start_python(arguments: Sequence[str], folder: Path, errors: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start Python with a script and its arguments in this folder, with pipes for input and output and a file for errors."""
    offline = os.environ | {"HF_HUB_OFFLINE": "1"}  # transformers reads a folder and needs no network
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=folder, env=offline, stdin=pipe, stdout=pipe, stderr=errors
    )


def contestant_command(name: str, **arguments: Any) -> list[str]:
    """The command that runs something in benchmark_contestants.py."""
    return [str(ROOT / "tools" / "parts" / "benchmark_contestants.py"), name, json.dumps(arguments)]


def failure(name: str, errors: IO[bytes]) -> UserError:
    """The error for a process that ended before it answered, with the last line that it printed."""
    errors.seek(0)
    said = errors.read().decode(errors="replace").strip().splitlines() or ["it printed nothing"]
    return UserError(f"{name} could not be measured: {one_line(said[-1].removeprefix('error: '), 300)}")


class Contestant:
    """A process that computes on request, so that its memory can be measured separately."""

    def __init__(self, label: str, command: Sequence[str], folder: Path) -> None:
        self.label = label
        self.warm_up: dict[str, Any] = {}  # the answer to the first request; its times do not count
        self._errors = tempfile.TemporaryFile()
        self._process = start_python(command, folder, self._errors)

    def run(self, **request: Any) -> dict[str, Any]:
        """Send a request; returns the answer. Raises UserError if the process fails."""
        assert self._process.stdin and self._process.stdout
        with suppress(BrokenPipeError):  # the process has ended; readline then returns nothing
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise failure(self.label, self._errors)
        return json.loads(line)

    def close(self) -> None:
        """Kill the process; it has nothing to save."""
        with self._process, self._errors:
            self._process.kill()


def turns(contestants: Sequence[T], rounds: int) -> Iterator[T]:
    """Every contestant once a round, every second round backwards: a machine that slows down slows all equally."""
    for number in range(rounds):
        yield from contestants[:: -1 if number % 2 else 1]


def seconds_until(is_done: Callable[[bytes], bool] | None, command: Sequence[str], folder: Path) -> float:
    """Seconds from the start of a command until is_done(output) is true, or with None until the command ends.

    Raises UserError if the command ends earlier, or fails.
    """
    output, started = b"", time.perf_counter()
    with tempfile.TemporaryFile() as errors, start_python(command, folder, errors) as process:
        try:
            assert process.stdout
            while part := os.read(process.stdout.fileno(), 1 << 16):
                output += part
                if is_done and is_done(output):
                    return time.perf_counter() - started
            if process.wait() or is_done:
                raise failure(Path(command[0]).name, errors)
            return time.perf_counter() - started
        finally:
            process.kill()


# --- parts ----------------------------------------------------------------------------------------------------------


@dataclass
class Bench:
    """What all parts need: flags, a folder with a prepared data set, and whether transformers is installed."""

    args: argparse.Namespace
    folder: Path
    transformers: bool

    def shape(self, prefix: str = "", batch: str = "batch") -> Shape:
        """The shape that the flags with this prefix give."""
        names = [f"{prefix}{name}" for name in ("layers", "heads", "width", "context")]
        return Shape(*(getattr(self.args, name) for name in [*names, batch]))

    @contextmanager
    def contestants(
        self, worker: str, labels: Sequence[str], shape: Shape, **warm_up: int
    ) -> Iterator[list[Contestant]]:
        """Start a worker of benchmark_contestants.py for each label (library and dtype) whose library is installed.

        The processes start one after another, each with warm_up as its first request, and end with the `with` block.
        """
        with ExitStack() as stack:
            started = []
            for label in labels:
                if self.transformers or not label.startswith("transformers"):
                    command = contestant_command(worker, label=label, shape=asdict(shape), folder=str(self.folder))
                    started.append(stack.enter_context(closing(Contestant(label, command, self.folder))))
                    started[-1].warm_up = started[-1].run(**warm_up)
            yield started


def prepare_data(folder: Path, stories: int, shape: Shape) -> None:
    """Make a data set of stories and its token cache."""
    from recipes.story_generator import stories as tell

    (folder / "data").mkdir()
    texts = [json.dumps({"text": text}) + "\n" for text in tell(stories)]
    held_out = max(1, stories // 40)
    for split, lines in (("val", texts[:held_out]), ("train", texts[held_out:])):
        (folder / "data" / f"{DATASET}-{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    jojo_run(shape, folder).close()


def measure_training(bench: Bench) -> Part:
    """Measure speed and memory."""
    from jojo.machine import device

    shape, batches = bench.shape(), bench.args.batches
    speed, memory = Measure("speed", "tokens/s"), Measure("peak memory", "bytes")
    labels = (
        "transformers float32", "transformers bfloat16", "plain PyTorch float32", f"{OURS} float32", f"{OURS} bfloat16",
    )  # fmt: skip
    with bench.contestants("training", labels, shape, batches=2) as processes:
        losses = ", ".join(f"{process.label} {process.warm_up['losses'][0]:.4f}" for process in processes)
        for process in turns(processes, bench.args.rounds):
            answer = process.run(batches=batches)
            speed.add(process.label, batches * shape.batch * shape.context / sum(answer["seconds"]))
            if answer["peak_memory_bytes"]:
                memory.values[process.label] = [answer["peak_memory_bytes"]]  # it only grows: the last counts
    auto = device.choose_dtype("auto", "cpu")
    notes = [f"{OURS} chooses {auto.value} by itself: {auto.reason}", f"loss of the first batch: {losses}"]
    measures = {"speed": speed} | ({"memory": memory} if memory.values else {})
    return Part(f"Training: {shape}, batch {shape.batch}", measures, notes)


def measure_loading(bench: Bench) -> Part:
    """Measure Jojo's loader and the plain one in turns, in one process that trains on their batches."""
    shape, batches = bench.shape(), bench.args.batches
    batch, share = Measure("a batch", "ms"), Measure("share of a step", "%")
    with bench.contestants("loading", [OURS], shape, batches=2) as (process,):  # the warm-up computes the epoch's order
        for _ in range(bench.args.rounds):
            answer = process.run(batches=batches)
            for label in (PLAIN_LOADER, OURS):
                load_s = sum(answer["load_s"][label]) / batches
                batch.add(label, 1e3 * load_s)
                share.add(label, 100 * load_s / median(answer["step_s"]))
    title = f"Loading: {bench.args.stories:,} documents, {shape.batch} x {shape.context:,} tokens, from mid-epoch on"
    return Part(title, {"batch": batch, "share_of_step": share})


def measure_decoding(bench: Bench) -> Part:
    """Measure tokens per second of all samples together."""
    args, shape, new = bench.args, bench.shape("decode_", "samples"), bench.args.tokens
    nearly_all = shape.context - new
    start, end = Measure("at the start", "tokens/s"), Measure("at the end", "tokens/s")
    several = Measure(f"{args.samples} samples at the start", "tokens/s")
    prompt = Measure(f"prompt of {nearly_all:,}", "ms")
    labels = ("transformers float32", "transformers bfloat16", f"{OURS} float32", f"{OURS} bfloat16", f"{OURS} int8")
    with bench.contestants("decoding", labels, shape, prompt_tokens=nearly_all, new_tokens=new) as processes:
        texts = {process.label: process.warm_up["tokens"] for process in processes}
        for process in turns(processes, args.rounds):
            at_start = process.run(prompt_tokens=1, new_tokens=new)
            at_end = process.run(prompt_tokens=nearly_all, new_tokens=new)
            at_once = process.run(prompt_tokens=1, new_tokens=new, samples=args.samples)
            start.add(process.label, 1 / at_start["step_s"])
            end.add(process.label, 1 / at_end["step_s"])
            several.add(process.label, args.samples / at_once["step_s"])
            prompt.add(process.label, 1e3 * at_end["prompt_s"])
    notes = ["int8 is compared with transformers bfloat16"] if bench.transformers else []
    if theirs := texts.get("transformers float32"):
        same = sum(a == b for a, b in zip(theirs, texts[f"{OURS} float32"], strict=True))
        notes.append(f"float32: {same} of {new} tokens are the same in transformers and {OURS}")
    return Part(f"Decoding: {shape}", {"start": start, "end": end, "samples": several, "prompt": prompt}, notes)


def train_command(shape: Shape, folder: Path, name: str, max_iters: int) -> list[str]:
    """The command that trains for max_iters batches and prints a line after each."""
    flags = [f"--training.max_iters={max_iters}", "--training.log_interval=1", "--training.eval_iters=1"]
    flags += [*train_flags(shape, folder), f"--output_checkpoint={folder / 'models' / name}"]
    return [str(ROOT / "train.py"), *flags]


def transformers_commands(shape: Shape, folder: Path, checkpoint: Path) -> tuple[list[str], list[str]]:
    """Commands of transformers up to the first batch, and up to the first token of this checkpoint, which is exported."""
    from generation import load_model
    from hf.export import write_folder

    exported = folder / "exported"
    exported.mkdir()
    model, tokenizer, _ = load_model(checkpoint)
    write_folder(model, tokenizer, exported)
    to_batch = contestant_command("first_batch", shape=asdict(shape), folder=str(folder))
    return to_batch, contestant_command("first_token", folder=str(exported))


def measure_startup(bench: Bench) -> Part:
    """Measure start-up, each time in a new process, which is then killed."""
    shape, folder = replace(bench.shape(), batch=1), bench.folder
    first_batch, first_token = Measure("to the first batch", "s"), Measure("to the first token", "s")
    model = folder / "models" / "startup.pt"
    seconds_until(None, train_command(shape, folder, model.name, 1), folder)
    gen = [str(ROOT / "gen.py"), str(model), "--prompt", PROMPT, "--seed", "1", "--max_tokens", "20", "--nonstop"]
    entrants = [(OURS, train_command(shape, folder, "stopped.pt", MANY), gen)]
    if bench.transformers:
        entrants.insert(0, ("transformers", *transformers_commands(shape, folder, model)))
    for number, (label, to_batch, to_token) in enumerate((*entrants, *turns(entrants, bench.args.rounds))):
        batch_s = seconds_until(lambda out: b"batch 1/" in out, to_batch, folder)
        token_s = seconds_until(lambda out: len(out) > len(PROMPT), to_token, folder)
        if number >= len(entrants):  # the first ones were the warm-up
            first_batch.add(label, batch_s)
            first_token.add(label, token_s)
    title = f"Start-up: {shape.layers} layers, width {shape.width}, one sequence of {shape.context:,} tokens"
    return Part(title, {"first_batch": first_batch, "first_token": first_token})


# --- the command ----------------------------------------------------------------------------------------------------

MEASURES: dict[str, Callable[[Bench], Part]] = {
    "training": measure_training, "loading": measure_loading, "decoding": measure_decoding, "startup": measure_startup,
}  # fmt: skip


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the flags. Raises UserError for values out of range."""
    parser = Parser(prog="benchmark.py", description=__doc__)
    add = parser.add_argument
    add("--only", nargs="+", choices=list(MEASURES), default=list(MEASURES), metavar="PART",
        help=f"parts to measure, of {', '.join(MEASURES)} [all]")  # fmt: skip
    for name, (default, _, _, text) in COUNTS.items():
        add(f"--{name}", type=int, default=default, metavar="N", help=f"{text} [%(default)s]")
    add("--tiny", action="store_true", help="small shapes and few rounds, to check that it works; flags override it")
    add("--output", default="benchmark", metavar="PATH", help="writes PATH.json and PATH.png [%(default)s]")
    add("--debug", action="store_true", help="show tracebacks with errors")
    if parser.parse_args(arguments).tiny:
        parser.set_defaults(**{name: tiny for name, (_, tiny, _, _) in COUNTS.items()})
    args = parser.parse_args(arguments)
    for name, (_, _, least, _) in COUNTS.items():
        if getattr(args, name) < least:
            raise UserError(f"--{name} must be at least {least}, not {getattr(args, name)}.")
    if args.tokens > args.decode_context // 2:
        raise UserError(f"--tokens must be at most half of --decode_context, {args.decode_context // 2}.")
    for ending in (".json", ".png"):
        output_path(args.output + ending)
    return args


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark with these arguments; returns the exit code."""
    args = parse(arguments)
    machine = benchmark_report.machine_facts()
    log.info(", ".join(f"{name}: {value}" for name, value in machine.items()))
    theirs = machine["transformers"]
    if not theirs:
        log.warning("The package transformers is not installed (pip install transformers); measuring without it.")
    output, parts = user_path(args.output), {}
    written = [output.with_name(output.name + ending) for ending in (".json", ".png")]
    command = shlex.join(["python", "tools/benchmark.py", *arguments])
    settings = {name: getattr(args, name) for name in COUNTS}
    how = {"jojo": __version__, "command": command, "settings": settings, "machine": machine}
    with tempfile.TemporaryDirectory(prefix="jojo-benchmark-") as folder:
        bench = Bench(args, Path(folder), bool(theirs))
        if set(args.only) - {"decoding"}:
            prepare_data(bench.folder, args.stories, bench.shape())
        for part in (name for name in MEASURES if name in args.only):
            started = time.monotonic()
            parts[part] = MEASURES[part](bench)
            parts[part].seconds = time.monotonic() - started
            log.info("\n%s", benchmark_report.table(parts[part]))
            benchmark_report.write_json(written[0], how, parts)  # after every part: a later one may fail
    versions = f"{OURS} {__version__}" + (f" and transformers {theirs}" if theirs else "")
    title = f"{versions}, on {machine['cpu']}, threads: {machine['threads']}"
    benchmark_report.draw(written[1], title, parts)
    log.info("\nWrote %s and %s", *written)
    return 0


if __name__ == "__main__":
    run_command(main)
