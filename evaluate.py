"""Measure how good a model is: bits per byte of a text, and choice tasks, each with a 95 % interval.

python evaluate.py models/x.pt                          its own validation text and all built-in tasks
python evaluate.py models/x.pt --text book.txt          any text: to compare models with different vocabularies
python evaluate.py models/x.pt --tasks name recall      some built-in tasks
python evaluate.py models/x.pt --tasks questions.jsonl  your own questions
python evaluate.py models/x.pt --tasks hellaswag piqa   standard tasks, by lm-eval
docs/evaluation.md says what the numbers mean, and how a file of questions looks.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
from collections.abc import Sequence
from contextlib import closing
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jojo.command import Parser, run_command
from utils import UserError, __version__, log, output_path, plural, replace_text, user_path

if TYPE_CHECKING:
    from evaluation.bits_per_byte import TextResult
    from evaluation.results import Results
    from jojo.checkpoints.checkpoint import Checkpoint
    from jojo.text.tokenizer import Tokenizer
    from model import GPT

FEW_DOCUMENTS = 30  # with fewer, a bootstrap interval is usually too narrow (docs/evaluation.md has a measurement)


def build_parser() -> Parser:
    """Flags of evaluate.py."""
    from evaluation.builtin import TASKS

    parser = Parser("MODEL ", prog="evaluate.py", description=__doc__)
    add = parser.add_argument
    add("model", metavar="MODEL", help="checkpoint or Hugging Face folder")
    add(
        "--text",
        nargs="+",
        action="extend",
        metavar="FILE",
        help="bits per byte of these files or folders, as one text",
    )
    add("--text_field", metavar="NAME", help="take the text from this field or column of --text's files")
    add("--validation", action="store_true", help="bits per byte of its validation text")
    tasks = f"built-in tasks ({', '.join(TASKS)}), JSONL files of questions, and names of lm-eval's tasks"
    add("--tasks", nargs="+", action="extend", metavar="TASK", help=tasks)
    add("--core", metavar="FOLDER", help="the CORE metric's 22 tasks; docs/evaluation.md says where to get the folder")
    add("--items", type=int, metavar="N", help="at most N questions of each task of CORE and lm-eval")
    add("--json", metavar="FILE", help="also write everything to a file, unrounded")
    add("--plot", metavar="FILE", help="also draw the results with their intervals, as a PNG")
    add("--seed", type=int, default=0, metavar="N", help="draws the documents of the bootstrap [%(default)s]")
    add("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:N or mps [%(default)s]")
    dtypes = ("float32", "auto", "bfloat16", "float16", "int8")
    add("--dtype", default="float32", choices=dtypes, help="type of the weights, as in gen.py [%(default)s]")
    add("--no_color", "--no-color", action="store_true", help="no colours, even on a terminal")
    add("--debug", action="store_true", help="show tracebacks with errors")
    add("--version", action="version", version=f"Jojo {__version__}")
    return parser


def check_flags(args: argparse.Namespace) -> None:
    """Raises UserError for values out of range and flags that miss another one."""
    if not 0 <= args.seed < 2**63:
        raise UserError(f"--seed must be between 0 and {2**63 - 1:,}, not {args.seed:,}.")
    if args.items is not None and args.items < 1:
        raise UserError(f"--items must be 1 or more, not {args.items:,}.")
    if args.text_field and not args.text:
        raise UserError("--text_field needs --text; add it, or leave out --text_field.")
    for output in filter(None, (args.json, args.plot)):
        if output.endswith(".pt"):
            raise UserError(f"'{output}' must not replace a model; choose another name.")


def validation_result(model: GPT, tokenizer: Tokenizer, checkpoint: Checkpoint, seed: int) -> TextResult:
    """Bits per byte of the whole validation split that the model was trained with."""
    from config import resolve
    from data_loader import evaluation_loader
    from evaluation.bits_per_byte import measure_text, rows_at_once
    from jojo.machine.ranks import SINGLE
    from training.dataset import open_data

    if "dataset_name" not in checkpoint.config.get("data", {}):
        raise UserError(f"'{checkpoint.path}' does not say which data it was trained on; name files with --text.")
    config, _ = resolve([(f"checkpoint {checkpoint.path}", checkpoint.config)])
    config.model = model.config
    config.training.eval_iters, config.training.val_batches = 10**9, None
    config.training.batch_size = rows_at_once(model.config.block_size)
    with closing(open_data(config, tokenizer, SINGLE)) as data:
        loader = evaluation_loader(config, "val", data.val, tokenizer)
        source = f"validation text of {config.data.dataset_name}"
        return measure_text(model, tokenizer, loader, source, seed)


def measure(args: argparse.Namespace, model: GPT, tokenizer: Tokenizer, checkpoint: Checkpoint) -> Results:
    """Everything that the flags ask for."""
    from evaluation.bits_per_byte import listed, measure_text, text_loader
    from evaluation.builtin import TASKS, builtin_questions
    from evaluation.choices import run_task
    from evaluation.core import read_core, run_core
    from evaluation.questions import read_questions
    from evaluation.results import Results
    from evaluation.standard import load_standard, run_standard

    everything = not (args.text or args.tasks or args.validation or args.core)
    core = read_core(user_path(args.core), args.items) if args.core else None  # errors before the work
    questions, names = {}, []
    for name in args.tasks or (TASKS if everything else ()):
        if name in TASKS:
            questions[name] = builtin_questions(name, tokenizer)
        elif name.endswith(".jsonl") or user_path(name).is_file():
            questions[name] = read_questions(user_path(name))
        else:
            names.append(name)
    if args.items and not (core or names):
        raise UserError("--items is for --core and lm-eval's tasks only; leave it out.")
    standard = load_standard(names, list(TASKS)) if names else None
    results = Results()
    if args.validation or everything:
        results.texts["validation"] = validation_result(model, tokenizer, checkpoint, args.seed)
    if args.text:
        with text_loader(args.text, args.text_field, tokenizer, model.config.block_size) as loader:
            results.texts["text"] = measure_text(model, tokenizer, loader, listed(args.text), args.seed)
    for name, task in questions.items():
        results.tasks[name] = run_task(model, tokenizer, task)
    if core:
        results.core = run_core(model, tokenizer, core)
    if standard:
        results.standard = run_standard(model, tokenizer, standard, args.items)
    return results


def description(args: argparse.Namespace, arguments: Sequence[str], model: GPT, tokenizer: Tokenizer) -> dict[str, Any]:
    """What was measured, and with what: enough to do it again."""
    import numpy
    import torch

    from jojo.networks import formulas

    return {
        "model": args.model,
        "architecture": model.config.architecture,
        "parameters": formulas(model.config).n_parameters,
        "block_size": model.config.block_size,
        "tokenizer": tokenizer.identity(),
        "device": str(model.device),
        "dtype": args.dtype,
        "seed": args.seed,
        "command": shlex.join(["python", "evaluate.py", *arguments]),
        "versions": {
            "jojo": __version__, "python": platform.python_version(), "torch": torch.__version__,
            "numpy": numpy.__version__,
        },
    }  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Run evaluate.py with these arguments; returns the exit code."""
    args = build_parser().parse_args(arguments)
    check_flags(args)
    json_file, plot_file = (output_path(name) if name else None for name in (args.json, args.plot))

    from generation import load_model
    from hf.folder import load_folder_or_file
    from jojo.machine.device import choose_device, choose_dtype

    path = user_path(args.model)
    device = choose_device(args.device, from_flag=True).value
    args.dtype = choose_dtype(args.dtype, device).value
    checkpoint = load_folder_or_file(path)
    model, tokenizer, _ = load_model(checkpoint, device, args.dtype)
    about = description(args, arguments, model, tokenizer)
    results = measure(args, model, tokenizer, checkpoint)
    if results.standard:
        about["versions"]["lm-eval"] = metadata.version("lm_eval")

    log.info("%s: %s, %s parameters; %s", path, about["architecture"], f"{about['parameters']:,}", args.dtype)
    log.info("\n%s\n", results.tables())
    log.info("In brackets: 95 % intervals. docs/evaluation.md says what the numbers mean.")
    for text in results.texts.values():
        if text.n_documents < FEW_DOCUMENTS:
            few = plural(text.n_documents, "document")
            log.warning("%s: %s, so the interval is missing or too narrow.", text.source, few)
    if json_file:
        replace_text(json_file, json.dumps(about | results.to_dict(), indent=1) + "\n")
    if plot_file and (results.texts or results.shares()):
        results.draw(plot_file, Path(args.model).name)
    elif plot_file:
        log.warning("No picture: --plot draws bits per byte and shares of right answers, and there are none.")
    return 0


if __name__ == "__main__":
    run_command(main, if_full="use --dtype bfloat16, or a smaller model")
