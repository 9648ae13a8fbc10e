"""A run as the flags of train.py describe it, for tools that measure some batches of it and keep nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from config import Value
from training.flags import Request, build_parser, overrides
from utils import UserError

if TYPE_CHECKING:
    from trainer import Trainer

NOT_HERE = (
    "resume", "load_model_only", "reset_epoch", "eval_only", "show_config", "save_config", "tensorboard", "output_checkpoint",
)  # fmt: skip
FLAGS_OF_TRAIN = "All other flags are those of train.py: --config, --checkpoint, --model.n_layer ..."


def measured_request(
    arguments: Sequence[str], folder: Path, settings: Sequence[tuple[str, str, Value]] = ()
) -> Request:
    """The run that flags of train.py describe.

    Args:
        arguments: the flags.
        folder: where its files would go; nothing is written as long as only steps are taken.
        settings: (flag, dotted name, value) of options that count more than the flags.

    Raises:
        UserError: flags that mean nothing where nothing is kept, or that contradict each other.
    """
    args = build_parser().parse_args(arguments)
    if unused := next((name for name in NOT_HERE if getattr(args, name)), None):
        raise UserError(
            f"--{unused} has no meaning here, where nothing is kept; --checkpoint names a model to measure."
        )
    if args.checkpoint and args.init_from is not None:
        raise UserError("--checkpoint and --init_from both name a model; use one of them.")
    given = [*overrides(args, list(arguments)), *settings]
    return Request(
        args.config, given, continue_from=args.checkpoint, init_from=args.init_from,
        output=str(folder / "measured.pt"), allow_changes=True,
    )  # fmt: skip


def wait(device: str) -> None:
    """Until the device has done what it was given; a CPU always has."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    elif device == "mps":
        torch.mps.synchronize()


def timed_step(trainer: Trainer) -> tuple[float, int]:
    """Train on the next batch; returns ms and predicted tokens."""
    begin = time.perf_counter()
    batch = trainer.loader.batch(trainer.epoch, trainer.position)
    trainer.step(batch)
    wait(trainer.run.device)
    ms = (time.perf_counter() - begin) * 1e3
    trainer.advance()
    return ms, batch.n_targets
