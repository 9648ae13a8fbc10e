"""Measure Jojo against transformers, on this machine's processor: training, loading, decoding and startup.

    python tools/benchmark.py                                  all four; leave the machine alone meanwhile
    python tools/benchmark.py --only training decoding
    python tools/benchmark.py --only training --layers 12 --heads 12 --width 768 --context 1024 --batch 4

Contestants take turns, round after round, so that all see the same machine; what counts is the median of the rounds. Each
has a process of its own, and only one of them computes at a time. Models, tokens and optimizer are the same for all:
random tokens, GPT-2 with biases and without dropout, AdamW ("fused"), gradients clipped, nothing compiled.

training  tokens per second, and the most memory of the process
loading   opening a prepared token cache; reading a batch, alone and as a share of Jojo's step; beside it numpy.memmap
decoding  one sequence of the likeliest tokens: at the start of the context, at its end, and reading a prompt
startup   from the command to the first batch of one sequence (train.py), to the first token (gen.py), and the same in
          lines of transformers; token cache and files were read before

Writes benchmark.json, with every round, and benchmark.png.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from benchmark_contestants import DATASET, MANY, PROMPT, VOCABULARY_FILE, Shape, jojo_options
from benchmark_processes import contestant_command, contestants, run_to_end, seconds_until
from benchmark_report import (
    OURS,
    Measure,
    Part,
    describe_machine,
    draw,
    machine_facts,
    table,
    threads,
    transformers_version,
    write_json,
)

import device
from cli import Parser
from tokenizer import VOCABULARY_FILE as GPT2_VOCABULARY
from utils import UserError, __version__, log, one_line, run_command, user_path

TINY = [
    *("--layers", "1", "--heads", "2", "--width", "32", "--context", "32", "--batch", "2", "--vocabulary", "320"),
    *("--decode_layers", "1", "--decode_heads", "2", "--decode_width", "32", "--decode_context", "32"),
    *("--tokens", "4", "--prompt", "16", "--batches", "2", "--stories", "40"),
    *("--training_rounds", "2", "--loading_rounds", "2", "--decoding_rounds", "2", "--startup_rounds", "1"),
]
COUNTS = {  # flag: (default, least, help)
    "layers": (6, 1, "of the model that is trained, loaded for and started"),
    "heads": (6, 1, "attention heads"),
    "width": (384, 1, "channels"),
    "context": (256, 2, "tokens per sequence"),
    "batch": (12, 1, "sequences per batch"),
    "vocabulary": (50_304, 260, "rows of the embedding, here and in decoding"),
    "decode_layers": (12, 1, "of the model that decodes; GPT-2's smallest"),
    "decode_heads": (12, 1, "attention heads"),
    "decode_width": (768, 1, "channels"),
    "decode_context": (1024, 8, "tokens"),
    "tokens": (32, 2, "decoded a round, at each place"),
    "prompt": (512, 1, "tokens of the prompt that is timed"),
    "batches": (3, 1, "a round, in training and loading"),
    "stories": (20_000, 40, "documents of the data set; the default makes 4.5 million tokens"),
    "training_rounds": (7, 1, "turns of each contestant"),
    "loading_rounds": (5, 1, "turns"),
    "decoding_rounds": (5, 1, "turns"),
    "startup_rounds": (5, 1, "starts of each command"),
}


# --- parts ----------------------------------------------------------------------------------------------------------


@dataclass
class Bench:
    """What all parts need: flags, shapes, a folder with a prepared data set, and whether transformers is there."""

    args: argparse.Namespace
    folder: Path
    transformers: bool

    @property
    def shape(self) -> Shape:
        """Of training."""
        args = self.args
        return Shape(args.layers, args.heads, args.width, args.context, args.batch, args.vocabulary)

    @property
    def decode_shape(self) -> Shape:
        args = self.args
        return Shape(args.decode_layers, args.decode_heads, args.decode_width, args.decode_context, 1, args.vocabulary)

    def present(self, *entrants: tuple[str, str]) -> list[tuple[str, str, str]]:
        """(label, library, dtype) of those (library, dtype) that can be measured here."""
        return [
            (f"{library} {dtype}", library, dtype)
            for library, dtype in entrants
            if self.transformers or library != "transformers"
        ]


def prepare_data(folder: Path, stories: int, vocabulary: int, shape: Shape) -> None:
    """A data set of stories and its token cache. A vocabulary smaller than GPT-2's is the beginning of it."""
    from data.story_generator import stories as tell
    from run import Request, prepare_run

    (folder / "data").mkdir()
    texts = [json.dumps({"text": text}) + "\n" for text in tell(stories)]
    held_out = max(1, stories // 40)
    for split, lines in (("val", texts[:held_out]), ("train", texts[held_out:])):
        (folder / "data" / f"{DATASET}-{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    tokens = GPT2_VOCABULARY.read_bytes().splitlines(keepends=True)
    if vocabulary < len(tokens) + 3:
        (folder / VOCABULARY_FILE).write_bytes(b"".join(tokens[: vocabulary - 3]))  # 3 are not text
    given = [(f"--{name}", name, value) for name, value in jojo_options(shape, folder).items()]
    prepare_run(Request(overrides=given)).close()


def measure_training(bench: Bench) -> Part:
    """Speed and memory, every contestant in a process that is kept alive."""
    shape, batches = bench.shape, bench.args.batches
    speed, memory = Measure("speed", "tokens/s"), Measure("peak memory", "bytes")
    entrants = bench.present(
        (OURS, device.choose_dtype("auto", "cpu").value),
        ("transformers", "float32"),
        ("transformers", "bfloat16"),
        ("plain PyTorch", "float32"),
    )
    common = {"shape": asdict(shape), "folder": str(bench.folder)}
    wanted = [(label, "training", common | {"library": lib, "dtype": dtype}) for label, lib, dtype in entrants]
    with contestants(bench.folder, wanted) as processes:
        losses = [f"{process.label} {process.run(batches=2)['losses'][0]:.4f}" for process in processes]  # warm-up
        for _ in range(bench.args.training_rounds):
            for process in processes:
                answer = process.run(batches=batches)
                speed.add(process.label, batches * shape.tokens_per_batch / sum(answer["seconds"]))
                if answer["peak_memory_bytes"]:
                    memory.values[process.label] = [answer["peak_memory_bytes"]]  # it only grows: the last one counts
    title = f"Training: {shape}, batch {shape.batch}"
    measures = {"speed": speed} | ({"memory": memory} if memory.values else {})
    return Part(
        title, asdict(shape) | {"batches": batches}, measures, [f"loss of the first batch: {', '.join(losses)}"]
    )


def measure_loading(bench: Bench) -> Part:
    """Opening the cache, each time in a new process; and batches, in processes that are kept alive."""
    shape, folder, batches = bench.shape, bench.folder, bench.args.batches
    opening, batch = Measure("command to open cache", "s"), Measure("a batch", "ms")
    share = Measure("share of Jojo's step", "%")
    plain = "plain numpy.memmap"
    openers = {
        label: contestant_command(name, folder=str(folder))
        for label, name in ((OURS, "open_jojo"), (plain, "open_plain"))
    }
    arguments = {"shape": asdict(shape), "folder": str(folder)}
    wanted = [(OURS, "jojo_loading", arguments), (plain, "plain_loading", arguments)]
    with contestants(folder, wanted) as processes:
        for process in processes:  # warm-up: the loader lays out an epoch, files come into memory
            process.run(batches=2)
        for number in range(bench.args.loading_rounds + 1):
            for label, command in openers.items():
                seconds = seconds_until(lambda out: b"ready" in out, command, folder)
                if number > 0:  # the first was to warm up
                    opening.add(label, seconds)
        for _ in range(bench.args.loading_rounds):
            answers = {process.label: process.run(batches=batches) for process in processes}
            step_s = sum(answers[OURS]["step_s"])
            for label, answer in answers.items():
                batch.add(label, 1e3 * sum(answer["load_s"]) / batches)
                share.add(label, 100 * sum(answer["load_s"]) / step_s)
    title = f"Loading: {bench.args.stories:,} documents, {shape.batch} x {shape.context} tokens, from mid-epoch on"
    settings = asdict(shape) | {"batches": batches, "stories": bench.args.stories}
    return Part(title, settings, {"open": opening, "batch": batch, "share_of_step": share})


def measure_decoding(bench: Bench) -> Part:
    """One sequence at a time, the same weights everywhere."""
    args, shape = bench.args, bench.decode_shape
    start, end = Measure("at the start", "tokens/s"), Measure("at the end", "tokens/s")
    prompt = Measure(f"{args.prompt}-token prompt", "ms")
    entrants = bench.present(
        *(("transformers", dtype) for dtype in ("float32", "bfloat16")),
        *((OURS, dtype) for dtype in ("float32", "bfloat16", "int8")),
    )
    wanted = [
        (label, "decoding", {"library": library, "dtype": dtype, "shape": asdict(shape)})
        for label, library, dtype in entrants
    ]
    with contestants(bench.folder, wanted) as processes:
        texts = {  # warm-up
            process.label: process.run(prompt_tokens=args.prompt, new_tokens=args.tokens)["tokens"]
            for process in processes
        }
        for _ in range(args.decoding_rounds):
            for process in processes:
                near_end = shape.context - args.tokens
                start.add(process.label, 1 / process.run(prompt_tokens=1, new_tokens=args.tokens)["token_s"])
                end.add(process.label, 1 / process.run(prompt_tokens=near_end, new_tokens=args.tokens)["token_s"])
                prompt.add(process.label, 1e3 * process.run(prompt_tokens=args.prompt, new_tokens=1)["prompt_s"])
    notes = []
    if theirs := texts.get("transformers float32"):
        same = sum(a == b for a, b in zip(theirs, texts[f"{OURS} float32"], strict=True))
        notes.append(f"float32: {same} of {args.tokens} tokens are the same in transformers and Jojo")
    settings = asdict(shape) | {"tokens": args.tokens, "prompt": args.prompt}
    return Part(f"Decoding: {shape}", settings, {"start": start, "end": end, "prompt": prompt}, notes)


def measure_startup(bench: Bench) -> Part:
    """Each time in a new process, stopped when it is there."""
    shape, folder = replace(bench.shape, batch=1), bench.folder
    first_batch, first_token = Measure("to the first batch", "s"), Measure("to the first token", "s")
    model = folder / "models" / "startup.pt"
    run_to_end(train_command(shape, folder, model, max_iters=1), folder)
    gen = [str(ROOT / "gen.py"), str(model), "--prompt", PROMPT, "--seed", "1", "--max_tokens", "20", "--nonstop"]
    contestants = [(OURS, train_command(shape, folder, folder / "models" / "stopped.pt", max_iters=MANY), gen)]
    if bench.transformers:
        export(model, folder / "exported")
        theirs = (
            contestant_command("first_batch_transformers", shape=asdict(shape), folder=str(folder)),
            contestant_command("first_token_transformers", folder=str(folder / "exported")),
        )
        contestants.append(("transformers", *theirs))
    for number in range(bench.args.startup_rounds + 1):
        for label, to_batch, to_token in contestants:
            batch_s = seconds_until(lambda out: b"batch 1/" in out, to_batch, folder)
            token_s = seconds_until(lambda out: len(out) > len(PROMPT), to_token, folder)
            if number > 0:  # the first was to warm up
                first_batch.add(label, batch_s)
                first_token.add(label, token_s)
    title = f"Startup: {shape.layers} layers, width {shape.width}, one sequence of {shape.context} tokens"
    return Part(title, asdict(shape), {"first_batch": first_batch, "first_token": first_token})


def train_command(shape: Shape, folder: Path, output: Path, max_iters: int) -> list[str]:
    """train.py for so many batches, saying something after each."""
    options = jojo_options(shape, folder) | {
        "training.max_iters": max_iters, "training.log_interval": 1, "training.eval_iters": 1,
    }  # fmt: skip
    values = {name: json.dumps(value) if isinstance(value, bool) else str(value) for name, value in options.items()}
    flags = itertools.chain.from_iterable((f"--{name}", value) for name, value in values.items())
    return [str(ROOT / "train.py"), *flags, "--output_checkpoint", str(output)]


def export(checkpoint: Path, folder: Path) -> None:
    """The model as a folder that transformers loads."""
    from generation import load_model
    from hf_export import write_folder

    model, tokenizer, _ = load_model(checkpoint)
    folder.mkdir()
    write_folder(model, tokenizer, folder)


# --- the command ----------------------------------------------------------------------------------------------------

MEASURES: dict[str, Callable[[Bench], Part]] = {
    "training": measure_training,
    "loading": measure_loading,
    "decoding": measure_decoding,
    "startup": measure_startup,
}


def build_parser() -> Parser:
    """Flags of the benchmark."""
    parser = Parser(
        prog="benchmark.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--only", nargs="+", metavar="PART", help=f"of {', '.join(MEASURES)} [all]")
    for name, (default, _, text) in COUNTS.items():
        add(f"--{name}", type=int, default=default, metavar="N", help=f"{text} [%(default)s]".strip())
    add("--tiny", action="store_true", help="shapes and rounds that show that it works; other flags still count")
    add("--output", default="benchmark", metavar="PATH", help="writes PATH.json and PATH.png [%(default)s]")
    add("--debug", action="store_true", help="tracebacks with errors")
    return parser


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The flags. Raises UserError for values that mean nothing."""
    parser = build_parser()
    args = parser.parse_args(arguments)
    if args.tiny:
        args = parser.parse_args([*TINY, *arguments])
    for part in args.only or ():
        if part not in MEASURES:
            raise UserError(f"--only: there is no part '{one_line(part, 30)}'; the parts are {', '.join(MEASURES)}.")
    for name, (_, least, _) in COUNTS.items():
        if getattr(args, name) < least:
            raise UserError(f"--{name} must be at least {least}, not {getattr(args, name)}.")
    for width, heads in (("width", "heads"), ("decode_width", "decode_heads")):
        if getattr(args, width) % getattr(args, heads):
            raise UserError(f"--{width} {getattr(args, width)} is no multiple of --{heads} {getattr(args, heads)}.")
    for name in ("tokens", "prompt"):
        if getattr(args, name) > args.decode_context // 2:
            raise UserError(f"--{name} must be at most half of --decode_context, {args.decode_context // 2}.")
    if not user_path(args.output).parent.is_dir():
        raise UserError(f"--output: there is no folder '{user_path(args.output).parent}'; create it first.")
    return args


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark with these arguments; returns the exit code."""
    args = parse(arguments)
    wanted = [name for name in MEASURES if not args.only or name in args.only]
    theirs = transformers_version()
    if not theirs:
        log.warning("The package transformers is not installed (pip install transformers); measuring without it.")
    machine = machine_facts()
    log.info(describe_machine(machine))
    output, parts = user_path(args.output), {}
    with tempfile.TemporaryDirectory(prefix="jojo-benchmark-") as name:
        bench = Bench(args, Path(name), bool(theirs))
        if set(wanted) - {"decoding"}:
            prepare_data(bench.folder, args.stories, args.vocabulary, bench.shape)
        for part in wanted:
            parts[part] = MEASURES[part](bench)
            log.info("\n%s", table(parts[part]))
    written = [output.with_name(output.name + ending) for ending in (".json", ".png")]
    write_json(written[0], arguments, machine, parts)
    versions = f"Jojo {__version__}" + (f" and transformers {theirs}" if theirs else "")
    draw(written[1], f"{versions}, on {machine['cpu']} with {threads(machine)}", parts)
    log.info("\nWrote %s and %s", *written)
    return 0


if __name__ == "__main__":
    run_command(main)
