"""Show a training batch as text: its documents, who speaks, and which tokens are predicted.

    python tools/inspect_batch.py --config configs/story-small.json
    python tools/inspect_batch.py --dataset chitchat --data.predict assistant --data.pack whole --rows 3
    python tools/inspect_batch.py --checkpoint models/x.pt --batch 1200

On a terminal, predicted tokens are bright, other tokens are dim, and control tokens are coloured. Without colours, tokens that
are not predicted are in [-brackets-]. The first token of a row is never predicted: it is only the context of the next.

<|im_end|> is a control token; text that only looks like one has a backslash inside: <\\|im_end|>. Invisible characters are
written out, such as \\x1b and \\u202e.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from config import OPTIONS, Value
from data_loader import IGNORED, Batch, PackedLoader
from jojo.command import TRAINED_MODEL, Parser, run_command
from jojo.text.tokenizer import Tokenizer
from tools.parts.runs import has_training_state
from training.flags import Request, parse_value
from training.run import prepare_run
from utils import UserError, log, paint, use_color

FLAGS = {  # options of a run that decide what is in a batch -> their short names
    "data.dataset_name": "--dataset", "data.data_dir": "", "data.cache_dir": "", "data.tokenizer": "", "data.predict": "",
    "data.pack": "", "data.parse_special": "", "model.block_size": "--block_size", "training.batch_size": "--batch_size",
    "system.seed": "--seed",
}  # fmt: skip
COLORS = {"read": "2", "read control": "2;36", "predicted": "1", "predicted control": "1;36"}  # dim, bright, cyan
LOOKALIKE = re.compile(r"<(?=\|(?:endoftext|im_start|im_end)\|>)")


def row_texts(ids: Sequence[int], predicted: Sequence[bool], tokenizer: Tokenizer) -> Iterator[tuple[str, str]]:
    """Split a row where the kind of token changes: pairs of a kind, which is a key of COLORS, and a text."""
    names = {i: name for name, i in tokenizer.special_tokens.items()}

    def kind(place: int) -> tuple[bool, bool]:
        return bool(predicted[place]), ids[place] in names

    for (is_predicted, is_control), places in groupby(range(len(ids)), kind):
        inside = [ids[place] for place in places]
        text = "".join(names[i] for i in inside) if is_control else visible(tokenizer.decode(inside))
        yield ("predicted" if is_predicted else "read") + (" control" if is_control else ""), text


def visible(text: str) -> str:
    r"""Escape what looks like a control token (<\|im_end|>) or would control the terminal (\x1b)."""
    text = LOOKALIKE.sub(r"<\\", text)
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in ("Cc", "Cf") and c not in "\t\n" else c
        for c in text
    )


def painted(stretches: Iterable[tuple[str, str]], color: bool) -> str:
    """Format a row for the screen, with colours or with brackets."""
    if color:
        return "".join(paint(text, COLORS[kind]) for kind, text in stretches)
    shown = ""
    for predicted, inside in groupby(stretches, lambda stretch: stretch[0].startswith("predicted")):
        text = "".join(text for _, text in inside)
        shown += text if predicted else f"[-{text}-]"
    return shown


def show(loader: PackedLoader, batch: Batch, epoch: int, index: int, tokenizer: Tokenizer, most: int) -> None:
    """Print the first rows of a batch."""
    color, layout = use_color(sys.stdout), loader.layout(epoch)
    rows = loader.rows(epoch, index).ravel()
    inputs, targets = (part.reshape(-1, loader.block_size) for part in (batch.inputs, batch.targets))
    empty = int((rows < 0).sum())
    log.info(
        "Batch %s of epoch %d: %d rows%s, %s targets.", f"{index + 1:,}", epoch + 1, len(rows),
        f" ({empty} of them empty)" if empty else "", f"{batch.n_targets:,}",
    )  # fmt: skip
    for place, row in enumerate(rows[:most].tolist()):
        if row < 0:
            continue
        pieces = list(layout.pieces(rows[place : place + 1]))
        length = sum(piece.count for piece in pieces)
        unused = loader.block_size - length
        ids = [inputs[place][0].item(), *(i for piece in pieces for i in loader.ids(piece).tolist())]
        predicted = [False, *(targets[place][:length] != IGNORED).tolist()]
        named = ", ".join(f"{piece.document + 1}{'' if piece.begin == 0 else ' (continued)'}" for piece in pieces[:6])
        more = f" and {len(pieces) - 6} more" if len(pieces) > 6 else ""
        log.info(
            "\n--- row %d: documents %s%s; %d of %d tokens predicted%s", place + 1, named, more, sum(predicted), length,
            f", {unused} place{'' if unused == 1 else 's'} empty" if unused else "",
        )  # fmt: skip
        print(painted(row_texts(ids, predicted, tokenizer), color), flush=True)  # the log writes out colour codes


def main(arguments: Sequence[str]) -> int:
    """Run the tool with these arguments; returns the exit code."""
    parser = Parser(prog="inspect_batch.py", description=__doc__)
    add = parser.add_argument
    add("--config", metavar="FILE", help="JSON config of a run")
    add("--checkpoint", metavar="PT", help="use this checkpoint's run, at the batch where it stopped")
    add("--epoch", type=int, metavar="N", help="number from 1 [the first, or where the checkpoint stopped]")
    add("--batch", type=int, metavar="N", help="number from 1 [the first, or where the checkpoint stopped]")
    add("--rows", type=int, default=4, metavar="N", help="how many rows to show [%(default)s]")
    for name, short in FLAGS.items():
        add(*filter(None, [f"--{name}", short]), dest=name, metavar="X", help=OPTIONS[name].help.replace("%", "%%"))
    add("--no_color", "--no-color", action="store_true", help="brackets instead of colours")
    add("--debug", action="store_true", help="show tracebacks with errors")
    args = parser.parse_args(arguments)
    overrides: list[tuple[str, str, Value]] = []
    for name in FLAGS:
        if (text := getattr(args, name)) is not None:
            overrides.append((f"--{name}", name, parse_value(OPTIONS[name], text)))
    if args.checkpoint is not None and not has_training_state(args.checkpoint):
        raise UserError(f"'{args.checkpoint}' has only weights, no run; leave --checkpoint out and name --dataset.")
    run = prepare_run(
        Request(args.config, overrides, continue_from=args.checkpoint, allow_changes=True, output="models/inspected.pt")
    )
    with closing(run):
        loader = run.loader()
        epoch = args.epoch - 1 if args.epoch is not None else run.start.epoch
        index = args.batch - 1 if args.batch is not None else (run.start.position if args.epoch is None else 0)
        if args.rows < 1:
            raise UserError(f"--rows must be at least 1, not {args.rows}.")
        if not (epoch >= 0 and 0 <= index < loader.batches_per_epoch):
            raise UserError(f"--batch must be from 1 to {loader.batches_per_epoch:,}, and --epoch from 1 on.")
        show(loader, loader.batch(epoch, index), epoch, index, run.data.tokenizer, args.rows)
    return 0


if __name__ == "__main__":
    run_command(main, if_full=TRAINED_MODEL)
