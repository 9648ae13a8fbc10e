"""Train a model: flags -> Config -> Trainer.

    python train.py --config configs/story-small.json     a small model in minutes, with nothing to download
    python train.py --dataset NAME --epochs 2             a prepared data set (see prepare.py)
    python train.py --resume models/NAME_epoch2.pt        go on after an interruption, exactly
    python train.py --config FILE --show_config           what would run, and where every value comes from

Every config field is a flag (--model.n_layer 8); docs/configuration.md explains them.
"""

from __future__ import annotations

import argparse
from contextlib import closing
from dataclasses import replace

from config import AUTO, OPTIONS, SECTIONS, Option, Value, join_problems
from jojo.command import Parser, run_command
from utils import UserError, __version__, log, user_path

# Short names, as 2.x had them.
ALIASES = {
    "--dataset": "data.dataset_name",
    "--epochs": "training.max_epochs",
    "--max_iters": "training.max_iters",
    "--max_minutes": "training.max_minutes",
    "--batch_size": "training.batch_size",
    "--learning_rate": "optimizer.learning_rate",
    "--eval_interval": "training.eval_interval",
    "--log_interval": "training.log_interval",
    "--checkpoint_interval": "training.checkpoint_interval",
    "--train_batches": "training.train_batches",
    "--val_batches": "training.val_batches",
    "--device": "system.device",
    "--dtype": "system.dtype",
    "--seed": "system.seed",
}


def build_parser() -> Parser:
    """Flags of train.py; those of config fields are made from the fields."""
    parser = Parser(
        prog="train.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"Jojo {__version__}")
    add = parser.add_argument_group("run").add_argument
    add("--config", metavar="FILE", help="JSON config; see configs/")
    add("--show_config", action="store_true", help="print every value, where it came from and what follows; then exit")
    add(
        "--save_config",
        metavar="FILE",
        help="write the config of this run to FILE, then go on (or exit with --show_config)",
    )
    add("--output_checkpoint", metavar="PATH", help="where the model goes; default models/<dataset>_epoch<epochs>.pt")
    add(
        "--resume",
        nargs="?",
        const=True,
        metavar="PATH",
        help="go on exactly where the run (or this checkpoint) stopped",
    )
    add(
        "--checkpoint",
        "--from_checkpoint",
        metavar="PATH",
        help="go on from this checkpoint; with --load_model_only, take its weights",
    )
    add("--load_model_only", nargs="?", const=True, metavar="PATH", help="start a new run from a checkpoint's weights")
    add(
        "--init_from",
        metavar="PATH_OR_ID",
        help="start a new run from a GPT-2 in Hugging Face form: a folder, or the Hub's",
    )
    add(
        "--reset_epoch",
        action="store_true",
        help="with --checkpoint or --resume: keep weights and optimizer state, count batches, epochs and metrics anew",
    )
    add("--allow_changes", action="store_true", help="resume even though something changed that changes the result")
    add("--eval_only", action="store_true", help="evaluate and exit")
    add("--tensorboard", action="store_true", help="write TensorBoard events to models/tensorboard/<run> too")
    add("--no_cache", action="store_true", help="tokenize for this run only: --data.cache_tokenized false")
    add("--no_compile", action="store_true", help="--training.compile_model false")
    add("--no_color", "--no-color", action="store_true", help="no colours, even on a terminal")
    add("--debug", action="store_true", help="more detail, and tracebacks with errors")
    short = {name: flag for flag, name in ALIASES.items()}
    for section, cls in SECTIONS.items():
        group = parser.add_argument_group(section, (cls.__doc__ or "").strip().splitlines()[0])
        for name, opt in OPTIONS.items():
            if name.startswith(section + "."):
                flags = [f"--{name}", *([short[name]] if name in short else [])]
                keywords = {"nargs": "?", "const": "true"} if opt.type is bool else {}
                group.add_argument(*flags, dest=name, metavar=_metavar(opt), help=_help(opt), **keywords)  # type: ignore[arg-type]
    return parser


def _metavar(opt: Option) -> str:
    kind = {bool: "true|false", int: "N", float: "X", str: "TEXT"}[opt.type]
    return "|".join(opt.choices) if opt.choices else f"{kind}|{AUTO}" if opt.auto else kind


def _help(opt: Option) -> str:
    default = "null" if opt.default is None else str(opt.default).lower() if opt.type is bool else opt.default
    unit = f" {opt.unit}" if opt.unit and opt.default is not None else ""
    return f"{opt.help} [{default}{unit}]".replace("%", "%%")


def parse_value(opt: Option, text: str) -> Value:
    """A flag's text as the field's type. Raises UserError where it is not one."""
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


def main(arguments: list[str]) -> int:
    """Run train.py with these arguments; returns the exit code."""
    args = build_parser().parse_args(arguments)
    given = overrides(args, arguments)

    from jojo.config_file import save_config
    from jojo.machine.launch import joined
    from jojo.metrics import require_tensorboard
    from training.resume import Request
    from training.run import prepare_run, show_config

    path = args.resume if isinstance(args.resume, str) else args.checkpoint
    weights_only = args.load_model_only
    if weights_only is True and not args.checkpoint:
        raise UserError("--load_model_only needs a checkpoint: give it a path, or --checkpoint PATH beside it.")
    if isinstance(weights_only, str) and args.checkpoint:
        raise UserError(
            "--checkpoint and --load_model_only both name a checkpoint; use --load_model_only without a path."
        )
    if isinstance(args.resume, str) and args.checkpoint:
        raise UserError("--resume and --checkpoint both name a checkpoint; use one of them.")
    if args.init_from is not None and (args.resume or args.checkpoint or weights_only):
        raise UserError("--init_from starts a new run from a Hugging Face model; leave the checkpoint out.")
    request = Request(
        config_file=args.config,
        overrides=given,
        continue_from=None if weights_only else path,
        resume=bool(args.resume),
        weights_from=args.checkpoint if weights_only is True else weights_only,
        init_from=args.init_from,
        output=args.output_checkpoint,
        allow_changes=args.allow_changes,
        reset_epoch=args.reset_epoch,
        tensorboard=args.tensorboard,
    )
    if args.reset_epoch and not (request.continue_from or request.resume):
        raise UserError("--reset_epoch goes on from a checkpoint and counts anew; name one with --checkpoint.")
    if weights_only and args.resume:
        raise UserError("--resume continues a run and --load_model_only starts a new one; use one of them.")
    if args.tensorboard:
        require_tensorboard()
    with joined() as ranks, closing(prepare_run(replace(request, ranks=ranks))) as run:
        if args.save_config and ranks.is_main:
            save_config(run.config, user_path(args.save_config))
            log.info("Wrote %s", args.save_config)
        if args.show_config:
            log.info(show_config(run))
            return 0

        from trainer import Trainer
        from training.summary import memory_explained

        with memory_explained(run):
            trainer = Trainer(run)
            if args.eval_only:
                losses = trainer.evaluate()
                log.info("training loss %.4f, validation loss %.4f, %.4f bits per byte", *losses.values())
                return 0
            return trainer.train()


if __name__ == "__main__":
    run_command(main)
