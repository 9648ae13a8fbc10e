"""A checkpoint in parts, as fsdp writes it, -> one ordinary file; or an ordinary file -> parts.

    python tools/convert_checkpoint.py models/big.pt -o models/big-whole.pt          all of it in one file
    python tools/convert_checkpoint.py models/x.pt -o models/x-parts.pt --parts      its tensors in a folder beside it

Both kinds are read everywhere (gen.py, --resume, upload_to_huggingface.py). One file is easier to carry; of parts, each
rank reads only what it needs. A run that goes on from what is made here is the same run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from jojo.command import Parser, run_command
from utils import UserError, log, user_path


def main(arguments: Sequence[str]) -> int:
    """Run the tool with these arguments; returns the exit code."""
    parser = Parser(
        prog="convert_checkpoint.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("source", metavar="PT", help="the checkpoint to read, of either kind")
    add("-o", "--output", metavar="PT", required=True, help="where the checkpoint goes; must not exist")
    add("--parts", action="store_true", help="write parts instead of one file")
    add("--debug", action="store_true", help="tracebacks with errors")
    args = parser.parse_args(arguments)
    source, output = user_path(args.source), user_path(args.output)
    if output.suffix != ".pt":
        raise UserError(f"'{output}' is no name of a checkpoint; give -o one that ends in .pt.")
    if output.exists():
        raise UserError(f"'{output}' is there already; name another file with -o.")

    from jojo.checkpoints.checkpoint import load_checkpoint
    from jojo.checkpoints.file import write_file
    from jojo.checkpoints.saver import write_sharded

    checkpoint = load_checkpoint(source)
    if checkpoint.version != "3":
        raise UserError(f"'{source}' is of an older format, whose files are ordinary ones; use it as it is.")
    if args.parts and not checkpoint.has_training_state:
        raise UserError(f"'{source}' holds weights only, and fsdp reads them from one file too; use it as it is.")
    checkpoint.complete()
    (write_sharded if args.parts else write_file)(checkpoint.state, output)
    log.info("Wrote %s%s", output, ", and its parts beside it" if args.parts else "")
    return 0


if __name__ == "__main__":
    run_command(main)
