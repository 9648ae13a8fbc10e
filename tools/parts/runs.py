"""Read train.py's flags for tools: as a config, to estimate a run, or as a Request, to measure some of its batches."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from config import Config, Value, resolve
from jojo.config_file import config_layers
from jojo.text.tokenizer import get_tokenizer
from training.flags import Request, build_parser, overrides
from utils import UserError, user_path

if TYPE_CHECKING:
    from trainer import Trainer

NOT_MEASURED = (
    "resume", "load_model_only", "reset_epoch", "eval_only", "show_config", "save_config", "tensorboard", "output_checkpoint",
)  # fmt: skip
NOT_ESTIMATED = (*NOT_MEASURED, "checkpoint", "init_from", "allow_changes")
FLAGS_OF_TRAIN = "All other flags are those of train.py: --config, --batch_size, --model.n_layer ..."
USABLE = 0.92  # share of a GPU's memory that a run may use


# --- estimates ------------------------------------------------------------------------------------------------------


def parse_train_flags(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the flags of train.py that describe a run. Raises UserError for flags that need more than a config."""
    args = build_parser().parse_args(arguments)
    if unused := next((name for name in NOT_ESTIMATED if getattr(args, name)), None):
        raise UserError(f"--{unused} has no meaning here: the estimate needs only the config. Leave it out.")
    return args


def config_of(args: argparse.Namespace, arguments: Sequence[str]) -> tuple[Config, dict[str, str]]:
    """The config that these flags give, with its vocabulary size decided, and the source of each value."""
    config, sources = resolve(config_layers(args.config, overrides(args, list(arguments))))
    tokenizer, model = get_tokenizer(config.data.tokenizer), config.model
    model.vocab_size = model.vocab_size or tokenizer.padded_vocab_size
    if model.vocab_size < tokenizer.n_vocab:
        raise UserError(
            f"model.vocab_size {model.vocab_size:,} is smaller than the tokenizer's {tokenizer.n_vocab:,} tokens; "
            f"set it to null or to {tokenizer.padded_vocab_size:,}."
        )
    return config, sources


# --- measurements ---------------------------------------------------------------------------------------------------


def measured_request(
    arguments: Sequence[str], folder: Path, settings: Sequence[tuple[str, str, Value]] = ()
) -> Request:
    """The Request for the run that flags of train.py describe.

    Args:
        arguments: the flags.
        folder: for the run's files. Training steps alone write no files.
        settings: (flag, dotted name, value) of options that override the flags.

    Raises:
        UserError: flags that have no meaning because the run is not kept, or that contradict each other.
    """
    args = build_parser().parse_args(arguments)
    if unused := next((name for name in NOT_MEASURED if getattr(args, name)), None):
        text = "has no meaning here: the run is not kept. To measure a saved model, use --checkpoint."
        raise UserError(f"--{unused} {text}")
    if args.checkpoint and args.init_from is not None:
        raise UserError("--checkpoint and --init_from both name a model; use one of them.")
    given = [*overrides(args, list(arguments)), *settings]
    whole = args.checkpoint is None or has_training_state(args.checkpoint)
    start = {"continue_from" if whole else "weights_from": args.checkpoint}
    return Request(
        args.config, given, **start, init_from=args.init_from,
        output=str(folder / "measured.pt"), allow_changes=True,
    )  # fmt: skip


def has_training_state(path: str) -> bool:
    """Whether a checkpoint has more than weights. Raises UserError if it cannot be read."""
    from jojo.checkpoints.checkpoint import load_checkpoint

    return load_checkpoint(user_path(path)).has_training_state


def predicted_note(share: float) -> str:
    """The share of the tokens that were predicted, in words; empty if it is practically all of them."""
    return f"; {share:.0%} of the tokens were predicted" if share < 0.99 else ""


def synchronize(device: str) -> None:
    """Wait until the device has finished its work; on a CPU there is nothing to wait for."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    elif device == "mps":
        torch.mps.synchronize()


def timed_step(trainer: Trainer) -> tuple[float, int]:
    """Train on the next batch; returns its ms and its number of predicted tokens."""
    begin = time.perf_counter()
    batch = trainer.loader.batch(trainer.epoch, trainer.position)
    trainer.step(batch)
    synchronize(trainer.run.device)
    ms = (time.perf_counter() - begin) * 1e3
    trainer.advance()
    return ms, batch.n_targets
