"""A vocabulary of your own: byte-pair encoding learned from text by the `tokenizers` library.

GPT-2's 50,257 tokens were made for the whole web. On a small, plain corpus most of them never occur, and a small model
spends most of its weights and its time on them. docs/data.md says when which is better, with figures.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

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


def byte_letters() -> list[str]:
    """A printable letter for each of the 256 bytes, as GPT-2's files write them (a space is Ġ)."""
    letters, others = [], 0
    for byte in range(256):
        if 33 <= byte <= 126 or 161 <= byte <= 172 or byte >= 174:
            letters.append(chr(byte))
        else:
            letters.append(chr(256 + others))
            others += 1
    return letters


def merges(tokens: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """The merge behind each token of two bytes and more, in the order in which they apply."""
    ranks = {token: rank for rank, token in enumerate(tokens)}
    never = len(tokens)
    for token in tokens:
        if len(token) > 1:
            parts = [token[i : i + 1] for i in range(len(token))]
            while len(parts) > 2:
                at = min(range(len(parts) - 1), key=lambda i: ranks.get(parts[i] + parts[i + 1], never))
                parts[at : at + 2] = [parts[at] + parts[at + 1]]
            yield parts[0], parts[1]


VOCABULARY_FILE = Path(__file__).resolve().parents[2] / "assets" / "gpt2.tiktoken"


VOCABULARY_SHA256 = "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"


class Vocabulary:
    """The tokens that are text, in the order of their ids, which is the order in which they were merged.

    As a file: one "base64-token id" line a token, the format of tiktoken.

    Attributes:
        name: "gpt2", or "bpe" and the number of tokens.
        sha256: of the file's contents.
    """

    def __init__(self, content: bytes, name: str | None = None) -> None:
        """Raises ValueError where the content is not a vocabulary in which every text can be written."""
        self.sha256 = hashlib.sha256(content).hexdigest()
        try:
            pairs = [line.split() for line in content.splitlines()]
            self.tokens = [base64.b64decode(token, validate=True) for token, _ in pairs]
            numbers = [int(number) for _, number in pairs]
        except (ValueError, binascii.Error):
            raise ValueError("it is no list of tokens") from None
        self.name = name or f"bpe-{len(self.tokens)}"
        self.ranks = {token: i for i, token in enumerate(self.tokens)}
        if numbers != list(range(len(numbers))) or len(self.ranks) < len(self.tokens) or b"" in self.ranks:
            raise ValueError("its tokens are not numbered one after another, or not all different")
        if (missing := next((byte for byte in range(256) if bytes([byte]) not in self.ranks), None)) is not None:
            raise ValueError(f"it has no token for the byte {missing}")

    @property
    def content(self) -> bytes:
        """The file."""
        return b"".join(base64.b64encode(token) + b" %d\n" % i for i, token in enumerate(self.tokens))


@lru_cache(maxsize=1)
def gpt2_vocabulary() -> Vocabulary:
    """GPT-2's own, which travels with the project."""
    try:
        vocabulary = Vocabulary(VOCABULARY_FILE.read_bytes(), "gpt2")
    except FileNotFoundError:
        raise UserError(f"'{VOCABULARY_FILE}' is missing; restore it from the repository.") from None
    except ValueError:
        vocabulary = None
    if vocabulary is None or vocabulary.sha256 != VOCABULARY_SHA256:
        raise UserError(f"'{VOCABULARY_FILE}' is damaged (wrong SHA-256); restore it from the repository.")
    return vocabulary
