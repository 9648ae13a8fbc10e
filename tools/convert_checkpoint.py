"""Convert a checkpoint in shards, as fsdp writes it, to one ordinary file, or an ordinary file to shards.

    python tools/convert_checkpoint.py models/big.pt -o models/big-whole.pt          shards to one file
    python tools/convert_checkpoint.py models/x.pt -o models/x-parts.pt --parts      one file to shards in a folder beside it

Every command reads both kinds (gen.py, --resume, upload_to_huggingface.py). One file is easier to copy; from shards, each
rank reads only what it needs. A run continues from the new file as it would from the old one.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from jojo.command import Parser, run_command
from utils import UserError, log, output_path, user_path


def main(arguments: Sequence[str]) -> int:
    """Run the tool with these arguments; returns the exit code."""
    parser = Parser("PT -o PT ", prog="convert_checkpoint.py", description=__doc__)
    add = parser.add_argument
    add("source", metavar="PT", help="the checkpoint to read, of either kind")
    add("-o", "--output", metavar="PT", required=True, help="the new checkpoint; must not exist yet")
    add("--parts", action="store_true", help="write shards instead of one file")
    add("--debug", action="store_true", help="show tracebacks with errors")
    args = parser.parse_args(arguments)
    source, output = user_path(args.source), user_path(args.output)
    if output.suffix != ".pt":
        raise UserError(f"'{output}' is not a checkpoint's name; give -o a name that ends in .pt.")
    if output.exists():
        raise UserError(f"'{output}' exists already; name another file with -o.")
    output_path(args.output)  # an error now, and not after reading

    from jojo.checkpoints.checkpoint import load_checkpoint
    from jojo.checkpoints.file import write_file

    checkpoint = load_checkpoint(source)
    if checkpoint.version != "3":
        raise UserError(f"'{source}' has an older format, which is always one file; use it as it is.")
    if args.parts and not checkpoint.has_training_state:
        raise UserError(f"'{source}' has only weights; fsdp can read them from one file, so use it as it is.")
    checkpoint.complete()
    (write_sharded if args.parts else write_file)(checkpoint.state, output)
    log.info("Wrote %s%s", output, ", and its shards beside it" if args.parts else "")
    return 0


def write_sharded(state: Mapping[str, Any], path: Path) -> None:
    """Write a state without sharded tensors in shards, in one process. Raises UserError if the disk fails."""
    from jojo.checkpoints.run_files import RunFiles, run_of
    from jojo.checkpoints.saver import ShardSaver
    from jojo.machine.ranks import SINGLE

    path.parent.mkdir(parents=True, exist_ok=True)
    files = RunFiles(path.with_name(run_of(path) + ".pt"))  # all checkpoints of a run have their shards in one folder
    ShardSaver(files, None, SINGLE).store(state, path)


if __name__ == "__main__":
    run_command(main)
