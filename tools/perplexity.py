"""Measure what lower precision costs: a model's validation loss with float32, bfloat16 and int8 weights.

    python tools/perplexity.py models/story_epoch1.pt
    python tools/perplexity.py models/x.pt --dataset mine --dtypes float32,int8 --batches 50

For each dtype, the model computes as gen.py --dtype does, on the same text.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from jojo.command import Parser, run_command
from utils import UserError, log, one_line, user_path

if TYPE_CHECKING:
    from config import Config, Values
    from data_loader import PackedLoader
    from jojo.checkpoints.checkpoint import Checkpoint
    from model import GPT

DTYPES = ("float32", "bfloat16", "int8")
MAX_LOSS = 100.0  # nats per token; a model that knows nothing has 11
LOGIT_ROWS = 512  # positions whose float32 logits are in memory at the same time


def mean_loss(model: GPT, loader: PackedLoader) -> tuple[float, int]:
    """Mean loss over all batches of a loader, in nats per predicted token, and the number of these tokens."""
    import torch
    import torch.nn.functional as F

    nats, tokens = 0.0, 0
    with torch.no_grad():
        for index in range(loader.batches_per_epoch):
            batch = loader.batch(0, index)
            inputs, targets = (torch.from_numpy(ids[0]).to(model.device) for ids in (batch.inputs, batch.targets))
            hidden = model.transformer(inputs).flatten(0, 1)  # (B T, C)
            for first in range(0, len(hidden), LOGIT_ROWS):
                rows = slice(first, first + LOGIT_ROWS)
                logits = model.lm_head(hidden[rows])[:, : model.n_vocab].float()
                nats += F.cross_entropy(logits, targets.flatten()[rows], ignore_index=-1, reduction="sum").item()
            tokens += batch.n_targets
    if not tokens:
        raise UserError("This validation data has no words of an assistant to predict; name other data with --dataset.")
    return nats / tokens, tokens


def data_config(checkpoint: Checkpoint, dataset: str | None, batches: int | None) -> Config:
    """The checkpoint's config, to read `batches` batches of validation data (None: all) of a data set (None: its own)."""
    from config import resolve

    if dataset is None and "dataset_name" not in checkpoint.config.get("data", {}):
        raise UserError(
            f"'{checkpoint.path}' does not say which data it was trained on; name a data set with --dataset."
        )
    given: Values = {} if dataset is None else {"data": {"dataset_name": dataset}}
    config, _ = resolve([(f"checkpoint {checkpoint.path}", checkpoint.config), ("--dataset", given)])
    config.training.eval_iters, config.training.val_batches = batches or 10**9, None
    return config


def main(arguments: Sequence[str]) -> int:
    """Run the tool with these arguments; returns the exit code."""
    parser = Parser("PT ", prog="perplexity.py", description=__doc__)
    add = parser.add_argument
    add("checkpoint", metavar="PT", help="the model")
    add("--dataset", metavar="NAME", help="read the validation data of this data set [the one that it was trained on]")
    text = "dtypes of the weights; each is compared with the first [%(default)s]"
    add("--dtypes", default=",".join(DTYPES), metavar="LIST", help=text)
    add("--batches", type=int, metavar="N", help="read only N batches [all]")
    add("--debug", action="store_true", help="show tracebacks with errors")
    args = parser.parse_args(arguments)
    dtypes = args.dtypes.split(",")
    if unknown := [dtype for dtype in dtypes if dtype not in DTYPES]:
        raise UserError(f"--dtypes: unknown '{one_line(unknown[0])}'; choose from {', '.join(DTYPES)}.")
    if args.batches is not None and args.batches < 1:
        raise UserError("--batches must be at least 1.")

    from data_loader import evaluation_loader
    from generation import load_model
    from jojo.checkpoints.checkpoint import load_checkpoint
    from jojo.machine.ranks import SINGLE
    from training.dataset import open_data

    checkpoint = load_checkpoint(user_path(args.checkpoint))
    config = data_config(checkpoint, args.dataset, args.batches)
    model, tokenizer, _ = load_model(checkpoint, dtype=dtypes[0])
    config.model = model.config
    with closing(open_data(config, tokenizer, SINGLE)) as data:
        loader, first = evaluation_loader(config, "val", data.val, tokenizer), None
        for dtype in dtypes:
            if dtype != dtypes[0]:
                model, _, _ = load_model(checkpoint, dtype=dtype)
            loss, tokens = mean_loss(model, loader)
            if not loss < MAX_LOSS:  # also refuses NaN
                raise UserError(f"With {dtype} weights the loss is {loss:g}; use an earlier checkpoint.")
            first = loss if first is None else first
            if dtype == dtypes[0]:
                log.info("%s, validation data, %s tokens", config.data.dataset_name, f"{tokens:,}")
                log.info("%-10s %10s %12s %10s", "weights", "loss", "perplexity", f"to {dtype}")
            log.info("%-10s %10.5f %12.4f %+9.3f%%", dtype, loss, math.exp(loss), 100 * math.expm1(loss - first))
    return 0


if __name__ == "__main__":
    run_command(main)
