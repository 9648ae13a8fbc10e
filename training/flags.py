"""The command line of train.py: its flags, and the Request made from them. It works without importing torch."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from config import AUTO, OPTIONS, SECTIONS, Option, Value
from jojo.command import Parser
from utils import UserError, __version__

# Short names of config fields, as in Jojo 2.x.
ALIASES = {"--dataset": "data.dataset_name", "--epochs": "training.max_epochs"} | {
    f"--{name.split('.')[1]}": name
    for name in (
        "training.max_iters", "training.max_minutes", "training.batch_size", "optimizer.learning_rate",
        "training.eval_interval", "training.log_interval", "training.checkpoint_interval", "training.train_batches",
        "training.val_batches", "system.device", "system.dtype", "system.seed",
    )
}  # fmt: skip

# Flags that are not config fields: names, value, help. A value in brackets may be left out.
WITH_VALUE = [
    ("--config", "FILE", "JSON config; see configs/"),
    ("--save_config", "FILE", "also write the config of this run to FILE"),
    ("--output_checkpoint", "PATH", "where to save; default models/<dataset>_epoch<epochs>.pt"),
    ("--resume", "[PATH]", "continue exactly where the run (or this checkpoint) stopped"),
    ("--checkpoint --from_checkpoint", "PATH", "the same as --resume PATH; with --load_model_only, take its weights"),
    ("--load_model_only", "[PATH]", "start a new run from a checkpoint's weights"),
    ("--init_from", "PATH_OR_ID", "start a new run from a Hugging Face GPT-2: a folder, or a name on the Hub"),
]
SWITCHES = [
    ("--reset_epoch", "with --checkpoint or --resume: keep weights and optimizer state, but count from zero"),
    ("--allow_changes", "continue even if the data changed, or an option that affects the result"),
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
    parser = Parser(prog="train.py", description=description)
    parser.add_argument("--version", action="version", version=f"Jojo {__version__}")
    group = parser.add_argument_group("run")
    for names, metavar, text in WITH_VALUE:
        path = {"nargs": "?", "const": True} if metavar == "[PATH]" else {}
        group.add_argument(*names.split(), metavar=metavar.strip("[]"), help=text, **path)  # type: ignore[arg-type]
    for names, text in SWITCHES:
        group.add_argument(*names.split(), action="store_true", help=text)
    most_used = parser.add_argument_group("most used", "Options with a short name; the groups below have all others.")
    for section, cls in SECTIONS.items():
        group = parser.add_argument_group(section, (cls.__doc__ or "").strip().splitlines()[0])
        for name, opt in OPTIONS.items():
            if name.startswith(section + "."):
                short = [alias for alias, target in ALIASES.items() if target == name]
                keywords: dict[str, Any] = {"nargs": "?", "const": "true"} if opt.type is bool else {}
                kind = {bool: "true|false", int: "N", float: "X", str: "TEXT"}[opt.type]
                metavar = "|".join(opt.choices) if opt.choices else f"{kind}|{AUTO}" if opt.auto else kind
                keywords |= {"dest": name, "metavar": metavar, "help": _help(opt)}
                (most_used if short else group).add_argument(*short, f"--{name}", **keywords)
    return parser


def _help(opt: Option) -> str:
    default = "null" if opt.default is None else str(opt.default).lower() if opt.type is bool else opt.default
    unit = f" {opt.unit}" if opt.unit and opt.default is not None else ""
    return f"{opt.help} [{default}{unit}]".replace("%", "%%")


def parse_value(opt: Option, text: str) -> Value:
    """A flag's text converted to its field's type. Text that cannot be converted stays text; config.resolve refuses it."""
    if text.lower() in ("null", "none") and opt.optional:
        return None
    if text.lower() == AUTO and opt.auto:
        return AUTO
    if opt.type is bool:
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(text.lower(), text)
    try:
        return opt.type(text)
    except ValueError:
        return text


def overrides(args: argparse.Namespace, arguments: list[str]) -> list[tuple[str, str, Value]]:
    """(flag as typed, dotted name, value) of every config flag given."""
    typed = {a.split("=")[0] for a in arguments if a.startswith("--")}
    result: list[tuple[str, str, Value]] = []
    for name, opt in OPTIONS.items():
        if (text := getattr(args, name)) is not None:
            flag = next((f for f, target in ALIASES.items() if target == name and f in typed), f"--{name}")
            result.append((flag, name, parse_value(opt, text)))
    switches = {"--no_cache": "data.cache_tokenized", "--no_compile": "training.compile_model"}
    return result + [(flag, name, False) for flag, name in switches.items() if flag in typed]


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
    arguments: Sequence[str] = ()  # the flags as typed


def read_request(args: argparse.Namespace, arguments: list[str]) -> Request:
    """Make a Request from parsed flags. Raises UserError if flags contradict each other, or TensorBoard is missing."""
    starts = {name: getattr(args, name) for name in ("checkpoint", "resume", "load_model_only", "init_from")}
    paths = {f"--{name}": value for name, value in starts.items() if isinstance(value, str)}
    new_run = args.load_model_only or args.init_from is not None
    if args.load_model_only is True and not args.checkpoint:
        raise UserError("--load_model_only needs a checkpoint: give it a path, or add --checkpoint PATH.")
    if len(paths) > 1:
        raise UserError(f"{' and '.join(paths)} name different models to start from; use one of them.")
    if args.resume and new_run:
        raise UserError("--resume continues a run; --load_model_only and --init_from start a new one. Use one of them.")
    if args.reset_epoch and (new_run or not (args.resume or args.checkpoint)):
        raise UserError("--reset_epoch needs a checkpoint to continue from; add --checkpoint PATH.")
    if args.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise UserError("--tensorboard needs a package that is not installed: pip install tensorboard")
    path = next(iter(paths.values()), None)  # at most one
    return Request(
        config_file=args.config, overrides=overrides(args, arguments), continue_from=None if new_run else path,
        resume=bool(args.resume), weights_from=path if args.load_model_only else None, init_from=args.init_from,
        output=args.output_checkpoint, allow_changes=args.allow_changes, reset_epoch=args.reset_epoch,
        tensorboard=args.tensorboard, arguments=arguments,
    )  # fmt: skip
