"""The `story` data set: the sample that is built in, so that training starts with nothing else on the machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

STORIES = 20_000
VALIDATION_EVERY = 40  # every 40th story validates: 500 of them, none of which is in the training split


def sample_lines(split: str) -> Iterator[bytes]:
    """The sample's documents as JSONL lines, in a fixed order. `split` is "train" or "val"."""
    from data.story_generator import stories

    for index, text in enumerate(stories(STORIES)):
        if (index % VALIDATION_EVERY == 0) == (split == "val"):
            yield json.dumps({"text": text}).encode() + b"\n"


def sample_sha256() -> str:
    """Identity of the sample: the code and the words it is made from, and how much of it there is."""
    digest = hashlib.sha256(f"{STORIES}/{VALIDATION_EVERY}".encode())
    for path in sorted(Path(__file__).parent.glob("story*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
