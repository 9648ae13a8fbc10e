"""Make a checkpoint from a Hugging Face folder: the reverse of upload_to_huggingface.py.

    python tools/hf_to_checkpoint.py hf_model -o models/x.pt
    python tools/hf_to_checkpoint.py openai-community/gpt2 -o models/gpt2.pt     downloaded from the Hub

The weights of a folder that Jojo exported come back bit for bit. A folder has no training state. To start a new run, use
--load_model_only with the checkpoint, or --init_from with the folder itself.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from jojo.command import Parser, run_command
from utils import UserError, log, output_path, user_path


def main(arguments: Sequence[str]) -> int:
    """Run the tool with these arguments; returns the exit code."""
    parser = Parser("FOLDER_OR_ID -o PT ", prog="hf_to_checkpoint.py", description=__doc__)
    add = parser.add_argument
    add("source", metavar="FOLDER_OR_ID", help="a folder with config.json and model.safetensors, or a name on the Hub")
    add("-o", "--output", metavar="PT", required=True, help="the new checkpoint; must not exist yet")
    add("--chatml", action="store_true", help="add ChatML's tokens if they are missing, as --init_from does")
    add("--debug", action="store_true", help="show tracebacks with errors")
    args = parser.parse_args(arguments)
    output = user_path(args.output)
    if output.exists():
        raise UserError(f"'{output}' exists already; name another file with -o.")
    output_path(args.output)  # an error now, and not after reading

    from generation import model_of
    from hf.folder import load_hf
    from hf.hub import find_model
    from jojo.checkpoints.checkpoint import check_finite, checkpoint_tokenizer
    from jojo.checkpoints.file import FORMAT_VERSION, write_file
    from jojo.networks import formulas

    checkpoint = load_hf(find_model(args.source), chatml=args.chatml)
    check_finite(checkpoint.model)
    tokenizer = checkpoint_tokenizer(checkpoint)
    model = model_of(checkpoint, tokenizer)
    state = {
        "format_version": FORMAT_VERSION,
        "model": model.state_dict(),
        "config": checkpoint.config,
        "tokenizer": tokenizer.definition(),
    }
    write_file(state, output)
    n_parameters = formulas(model.config).n_parameters
    log.info("Wrote %s (%s parameters, %s tokens)", output, f"{n_parameters:,}", f"{tokenizer.n_vocab:,}")
    return 0


if __name__ == "__main__":
    run_command(main)
