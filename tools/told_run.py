"""A run as the flags of train.py describe it, for tools that tell of it on paper: nothing is built, torch is not imported."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from config import Config, resolve
from jojo.config_file import config_layers
from jojo.text.tokenizer import get_tokenizer
from training.flags import build_parser, overrides
from utils import UserError

NOT_HERE = (
    "resume", "checkpoint", "load_model_only", "init_from", "reset_epoch", "allow_changes", "eval_only", "show_config",
    "save_config", "tensorboard", "output_checkpoint",
)  # fmt: skip
FLAGS_OF_TRAIN = "All other flags are those of train.py: --config, --batch_size, --model.n_layer ..."
USABLE = 0.92  # of a device's memory


def flags_of_train(others: Sequence[str]) -> argparse.Namespace:
    """The flags of train.py that a tool leaves over. Raises UserError for those that need more than a config."""
    args = build_parser().parse_args(others)
    if unused := next((name for name in NOT_HERE if getattr(args, name)), None):
        raise UserError(f"--{unused} has no meaning here, where a run is told from its config alone; leave it out.")
    return args


def told_config(args: argparse.Namespace, others: Sequence[str]) -> tuple[Config, dict[str, str]]:
    """The config that these flags give, with its vocabulary decided, and where its values come from."""
    config, sources = resolve(config_layers(args.config, overrides(args, list(others))))
    tokenizer, model = get_tokenizer(config.data.tokenizer), config.model
    model.vocab_size = model.vocab_size or tokenizer.padded_vocab_size
    if model.vocab_size < tokenizer.n_vocab:
        raise UserError(
            f"model.vocab_size {model.vocab_size:,} is smaller than the tokenizer's {tokenizer.n_vocab:,} tokens; "
            f"set it to null or to {tokenizer.padded_vocab_size:,}."
        )
    return config, sources
