"""A vocabulary of your own: byte-pair encoding learned from text by the `tokenizers` library.

GPT-2's 50,257 tokens were made for the whole web. On a small, plain corpus most of them never occur, and a small model
spends most of its weights and its time on them. docs/data.md says when which is better, with figures.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

from hf_tokenizer import byte_letters, merges
from tokenizer import Vocabulary
from utils import UserError

SMALLEST = 256 + 3  # all bytes, and the control tokens


def check_size(vocab_size: int) -> None:
    """Raises UserError for a size that no vocabulary can have."""
    if not SMALLEST <= vocab_size <= 1 << 20:
        raise UserError(f"--vocab_size must be between {SMALLEST} and {1 << 20:,}, not {vocab_size:,}.")


def train_vocabulary(texts: Iterable[str], vocab_size: int) -> Vocabulary:
    """Learn a vocabulary whose tokenizer has `vocab_size` tokens, the three control tokens among them.

    Args:
        texts: to learn from.
        vocab_size: at most so many; fewer where the text has no more pairs that occur twice.

    Raises:
        UserError: a size that cannot be.
    """
    from tokenizers import Tokenizer as Learner
    from tokenizers import models, pre_tokenizers, trainers

    check_size(vocab_size)
    learner: Any = Learner(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # cuts text as GPT-2 does
    learner.train_from_iterator(
        (text.encode("utf-8", "replace").decode() for text in texts),  # halves of surrogate pairs are no text
        trainers.BpeTrainer(
            vocab_size=vocab_size - 3,
            min_frequency=2,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    bytes_of = {letter: byte for byte, letter in enumerate(byte_letters())}
    ids: dict[str, int] = learner.get_vocab()
    tokens = [bytes(bytes_of[letter] for letter in name) for name in sorted(ids, key=ids.__getitem__)]
    vocabulary = Vocabulary(b"".join(base64.b64encode(token) + b" %d\n" % i for i, token in enumerate(tokens)))
    assert all(part in vocabulary.ranks for pair in merges(tokens) for part in pair)  # every token can come about
    return vocabulary
