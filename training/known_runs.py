"""Runs whose result is known, so that a report can say whether a loss is normal. Each has the command that gives it."""

from __future__ import annotations

from typing import NamedTuple

from recipes.story import SAMPLE_SHA256

TALES = "1.4 MB of fairy tales"  # for texts of one's own: prose that no program wrote


class KnownRun(NamedTuple):
    """A finished run."""

    text: str
    val_sha256: str  # of the validation data's source; "": not part of this repository
    parameters: float
    tokens: int  # batches times tokens per batch
    bpb: float  # of the last evaluation
    flags: str  # of train.py


KNOWN_RUNS = [
    KnownRun("the built-in stories", SAMPLE_SHA256, *values)
    for values in (
        (2.4e6, 60 * 1024, 1.265, "--config configs/story-small.json --max_iters 60 --training.eval_iters 3"),
        (2.4e6, 200 * 1024, 0.695, "--config configs/story-small.json --max_iters 200"),
        (2.4e6, 800 * 1024, 0.0902, "--config configs/story-small.json --max_iters 800 --training.eval_iters 5"),
        (2.4e6, 4500 * 1024, 0.0469, "--config configs/story-small.json"),
        (2.4e6, 15000 * 1024, 0.0436, "--config configs/story-small.json --max_iters 15000"),
        (2.4e6, 1100 * 1024, 0.124, "--config configs/story-small-8k.json --training.eval_iters 10"),
        (11.5e6, 1600 * 512, 0.131, "--config configs/story-small-8k.json --data.tokenizer gpt2 --batch_size 4"
                                    " --max_iters 1600 --training.eval_iters 10"),
    )
] + [
    KnownRun(TALES, "", *values)
    for values in (
        (3.4e6, 320 * 1024, 1.683, "--config configs/story-small-8k.json --dataset tale"
                                   " --data.tokenizer data/tale-8192.tiktoken --max_iters 320 --training.eval_iters 60"),
        (11.5e6, 500 * 512, 1.694, "--config configs/story-small-8k.json --dataset tale --data.tokenizer gpt2"
                                   " --batch_size 4 --max_iters 500 --training.eval_iters 60"),
        (2.9e6, 550 * 1024, 1.55, "--config configs/story-fast-8k.json --training.eval_iters 29"),
        (5.3e6, 1000 * 1024, 1.49, "--config configs/story-fast-8k-2min.json --training.eval_iters 29"),
        (30e6, 40 * 1024, 1.97, "--config configs/story-fast.json --training.eval_iters 29"),
    )
]  # fmt: skip
