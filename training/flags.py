"""The command line of train.py: every flag, and the request that they add up to. Torch is not imported here."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from typing import Any

from config import AUTO, OPTIONS, SECTIONS, Option, Value, join_problems
from jojo.command import Parser
from utils import UserError, __version__

# Short names, as in 2.x.
ALIASES = {"--dataset": "data.dataset_name", "--epochs": "training.max_epochs"} | {
    f"--{name.split('.')[1]}": name
    for name in (
        "training.max_iters", "training.max_minutes", "training.batch_size", "optimizer.learning_rate",
        "training.eval_interval", "training.log_interval", "training.checkpoint_interval", "training.train_batches",
        "training.val_batches", "system.device", "system.dtype", "system.seed",
    )
}  # fmt: skip

# Flags that are no config field: names, value, help. A value in brackets may be left out.
WITH_VALUE = [
    ("--config", "FILE", "JSON config; see configs/"),
    ("--save_config", "FILE", "also write the config of this run to FILE"),
    ("--output_checkpoint", "PATH", "where to save; default models/<dataset>_epoch<epochs>.pt"),
    ("--resume", "[PATH]", "continue exactly where the run (or this checkpoint) stopped"),
    (
        "--checkpoint --from_checkpoint",
        "PATH",
        "continue from this checkpoint; with --load_model_only, take its weights",
    ),
    ("--load_model_only", "[PATH]", "start a new run from a checkpoint's weights"),
    ("--init_from", "PATH_OR_ID", "start a new run from a Hugging Face GPT-2: a folder, or a name on the Hub"),
]
SWITCHES = [
    ("--reset_epoch", "with --checkpoint or --resume: keep weights and optimizer state, but count from zero"),
    ("--allow_changes", "continue although the data or an option changed that decides the result"),
    ("--show_config", "print every value, its source and what follows from it; then exit"),
    ("--eval_only", "evaluate and exit"),
    ("--tensorboard", "also write TensorBoard events to models/tensorboard/<run>"),
    ("--no_cache", "tokenize for this run only: --data.cache_tokenized false"),
    ("--no_compile", "--training.compile_model false"),
    ("--no_color --no-color", "no colours, even on a terminal"),
    ("--debug", "more detail, and tracebacks with errors"),
]


def build_parser(description: str | None = None) -> Parser:
    """The flags of train.py. Every config field is a flag."""
    parser = Parser(
        prog="train.py", description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"Jojo {__version__}")
    group = parser.add_argument_group("run")
    for names, metavar, text in WITH_VALUE:
        path = {"nargs": "?", "const": True} if metavar == "[PATH]" else {}
        group.add_argument(*names.split(), metavar=metavar.strip("[]"), help=text, **path)  # type: ignore[arg-type]
    for names, text in SWITCHES:
        group.add_argument(*names.split(), action="store_true", help=text)
    short = {name: flag for flag, name in ALIASES.items()}
    for section, cls in SECTIONS.items():
        group = parser.add_argument_group(section, (cls.__doc__ or "").strip().splitlines()[0])
        for name, opt in OPTIONS.items():
            if name.startswith(section + "."):
                flags = [f"--{name}", *([short[name]] if name in short else [])]
                keywords: dict[str, Any] = {"nargs": "?", "const": "true"} if opt.type is bool else {}
                group.add_argument(*flags, dest=name, metavar=_metavar(opt), help=_help(opt), **keywords)
    return parser


def _metavar(opt: Option) -> str:
    kind = {bool: "true|false", int: "N", float: "X", str: "TEXT"}[opt.type]
    return "|".join(opt.choices) if opt.choices else f"{kind}|{AUTO}" if opt.auto else kind


def _help(opt: Option) -> str:
    default = "null" if opt.default is None else str(opt.default).lower() if opt.type is bool else opt.default
    unit = f" {opt.unit}" if opt.unit and opt.default is not None else ""
    return f"{opt.help} [{default}{unit}]".replace("%", "%%")


def parse_value(opt: Option, text: str) -> Value:
    """A flag's text as a value of its field. Raises UserError for a text of another type."""
    if text.lower() in ("null", "none") and opt.optional:
        return None
    if text.lower() == AUTO and opt.auto:
        return AUTO
    try:
        if opt.type is bool:
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]
        return opt.type(text)
    except (ValueError, KeyError):
        kind = {bool: "true or false", int: "a whole number", float: "a number"}[opt.type]
        other = " or null" if opt.optional else f" or {AUTO}" if opt.auto else ""
        raise UserError(f"must be {kind}{other}, not '{text}'") from None


def overrides(args: argparse.Namespace, arguments: list[str]) -> list[tuple[str, str, Value]]:
    """(flag as typed, dotted name, value) of every config flag given. Raises UserError for all bad values at once."""
    typed = {a.split("=")[0] for a in arguments if a.startswith("--")}
    result, problems = [], []
    for name, opt in OPTIONS.items():
        text = getattr(args, name)
        if text is not None:
            flag = next((f for f, target in ALIASES.items() if target == name and f in typed), f"--{name}")
            try:
                result.append((flag, name, parse_value(opt, text)))
            except UserError as error:
                problems.append(f"{flag} {error}")
    if problems:
        raise UserError(join_problems(problems))
    if args.no_cache:
        result.append(("--no_cache", "data.cache_tokenized", False))
    if args.no_compile:
        result.append(("--no_compile", "training.compile_model", False))
    return result


@dataclass
class Request:
    """What the command line asks for."""

    config_file: str | None = None
    overrides: list[tuple[str, str, Value]] = field(default_factory=list)  # (flag as typed, dotted name, value)
    continue_from: str | None = None  # --checkpoint PATH, --resume PATH
    resume: bool = False  # --resume, with or without a path
    weights_from: str | None = None  # --load_model_only
    init_from: str | None = None  # a Hugging Face folder, or a name on the Hub
    output: str | None = None
    allow_changes: bool = False
    reset_epoch: bool = False
    tensorboard: bool = False


def read_request(args: argparse.Namespace, arguments: list[str]) -> Request:
    """The request that parsed flags make. Raises UserError for bad values, and for flags that contradict each other."""
    given = overrides(args, arguments)
    resume_path, weights = (value if isinstance(value, str) else None for value in (args.resume, args.load_model_only))
    refusals = {
        "--load_model_only needs a checkpoint: give it a path, or add --checkpoint PATH.":
            args.load_model_only is True and not args.checkpoint,
        "--checkpoint and --load_model_only both name a checkpoint; use --load_model_only without a path.":
            weights and args.checkpoint,
        "--resume and --checkpoint both name a checkpoint; use one of them.":
            resume_path and args.checkpoint,
        "--init_from starts a new run from a Hugging Face model; leave the checkpoint out.":
            args.init_from is not None and (args.resume or args.checkpoint or args.load_model_only),
        "--reset_epoch needs a checkpoint to continue from; add --checkpoint PATH.":
            args.reset_epoch and not args.resume and (args.load_model_only or not args.checkpoint),
        "--resume continues a run and --load_model_only starts a new one; use one of them.":
            args.resume and args.load_model_only,
    }  # fmt: skip
    for problem, applies in refusals.items():
        if applies:
            raise UserError(problem)
    return Request(
        args.config, given, None if args.load_model_only else resume_path or args.checkpoint, bool(args.resume),
        weights or (args.checkpoint if args.load_model_only else None), args.init_from, args.output_checkpoint,
        args.allow_changes, args.reset_epoch, args.tensorboard,
    )  # fmt: skip
