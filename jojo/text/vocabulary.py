"""Vocabularies: GPT-2's, or byte-pair encoding that the `tokenizers` library learns from your text.

GPT-2's 50,257 tokens were made for the whole web. In a small, plain corpus most of them never occur, but a small model
spends most of its weights and time on them. docs/data.md says when each is better, with figures.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from utils import UserError

VOCABULARY_FILE = Path(__file__).resolve().parents[2] / "assets" / "gpt2.tiktoken"
VOCABULARY_SHA256 = "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"
SMALLEST, LARGEST = 256 + 3, 1 << 20  # tokens: at least all bytes, and the control tokens


def train_vocabulary(texts: Iterable[str], vocab_size: int) -> Vocabulary:
    """Learn a vocabulary for a tokenizer of `vocab_size` tokens, including the three control tokens.

    It is smaller if no more pairs of tokens occur twice in the texts.
    """
    from tokenizers import Tokenizer as Learner
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.trainers import BpeTrainer

    letters = ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=vocab_size - 3, min_frequency=2, show_progress=False, initial_alphabet=letters)
    learner: Any = Learner(BPE())
    learner.pre_tokenizer = ByteLevel(add_prefix_space=False)  # cuts text like GPT-2
    valid = (text.encode("utf-8", "replace").decode() for text in texts)  # without half surrogate pairs
    learner.train_from_iterator(valid, trainer)
    bytes_of = {letter: byte for byte, letter in enumerate(byte_letters())}
    ids: dict[str, int] = learner.get_vocab()
    tokens = [bytes(bytes_of[letter] for letter in name) for name in sorted(ids, key=ids.__getitem__)]
    return Vocabulary(b"".join(base64.b64encode(token) + b" %d\n" % i for i, token in enumerate(tokens)))


def byte_letters() -> list[str]:
    """A printable letter for each of the 256 bytes, as in GPT-2's files (a space is Ġ)."""
    others = itertools.count(256)
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def merges(tokens: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """The pair of parts that is merged into each token of several bytes, in the order of the merges."""
    ranks = {token: rank for rank, token in enumerate(tokens)}
    never = len(tokens)
    for token in tokens:
        if len(token) > 1:
            parts = [token[i : i + 1] for i in range(len(token))]
            while len(parts) > 2:
                at = min(range(len(parts) - 1), key=lambda i: ranks.get(parts[i] + parts[i + 1], never))
                parts[at : at + 2] = [parts[at] + parts[at + 1]]
            yield parts[0], parts[1]


class Vocabulary:
    """The tokens that are text, in the order of their ids, which is also the order of their merges.

    The file has tiktoken's format: a line "base64-token id" for each token.

    Attributes:
        name: "gpt2", or "bpe" and the number of tokens.
        sha256: of the file's contents.
    """

    def __init__(self, content: bytes, name: str | None = None) -> None:
        """Raises ValueError if the content is not a vocabulary that can encode every text."""
        self.sha256 = hashlib.sha256(content).hexdigest()
        try:
            pairs = [line.split() for line in content.splitlines()]
            self.tokens = [base64.b64decode(token, validate=True) for token, _ in pairs]
            numbers = [int(number) for _, number in pairs]
        except ValueError:
            raise ValueError("it is not a list of tokens") from None
        self.name = name or f"bpe-{len(self.tokens)}"
        self.ranks = {token: i for i, token in enumerate(self.tokens)}
        if numbers != list(range(len(numbers))) or len(self.ranks) < len(self.tokens) or b"" in self.ranks:
            raise ValueError("its tokens are not numbered in order, or are not all different")
        if (missing := next((byte for byte in range(256) if bytes([byte]) not in self.ranks), None)) is not None:
            raise ValueError(f"it has no token for the byte {missing}")

    @property
    def content(self) -> bytes:
        """The contents of its file."""
        return b"".join(base64.b64encode(token) + b" %d\n" % i for i, token in enumerate(self.tokens))


@lru_cache(maxsize=1)
def gpt2_vocabulary() -> Vocabulary:
    """GPT-2's vocabulary, from the folder assets/."""
    content = VOCABULARY_FILE.read_bytes() if VOCABULARY_FILE.exists() else b""
    if hashlib.sha256(content).hexdigest() != VOCABULARY_SHA256:
        raise UserError(f"'{VOCABULARY_FILE}' is missing or damaged; restore it from the repository.")
    return Vocabulary(content, "gpt2")
