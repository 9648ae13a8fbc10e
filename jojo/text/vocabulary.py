"""Vocabularies: GPT-2's, or byte-pair encoding that the `tokenizers` library learns from your text.

GPT-2's 50,257 tokens were made for the whole web. In a small, plain corpus most of them never occur, but a small model
spends most of its weights and time on them. docs/data.md says when each is better, with figures.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

from utils import UserError, one_line

VOCABULARY_FILE = Path(__file__).resolve().parents[2] / "assets" / "gpt2.tiktoken"
SHIPPED = {name: VOCABULARY_FILE.with_name(f"{name}.tiktoken") for name in ("story", "chat")}  # of the built-in texts
VOCABULARY_SHA256 = "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"
SMALLEST, LARGEST = 256 + 3, 1 << 20  # tokens: at least all bytes, and the control tokens
MOST_TOKEN_BYTES = 128  # as in GPT-2's vocabulary

# SPLIT_PATTERN of tokenizer.py, but longer words are cut, because the time to learn grows with the square of their length.
LEARNED_WORDS = (
    r" ?\p{L}{1,1000}| ?\p{N}{1,1000}|'(?:[sdmt]|ll|ve|re)| ?[^\s\p{L}\p{N}]{1,1000}|\s{1,1000}(?!\S)|\s{1,1000}"
)


def train_vocabulary(texts: Iterable[str], vocab_size: int) -> Vocabulary:
    """Learn a vocabulary for a tokenizer of `vocab_size` tokens, including the three control tokens.

    It is smaller if no more pairs of tokens occur twice in the texts.
    """
    from tokenizers import Regex, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Learner

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    cut = pre_tokenizers.Split(Regex(LEARNED_WORDS), "isolated")
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 3, min_frequency=2, initial_alphabet=byte_level.alphabet(),
        show_progress=sys.stderr.isatty(), max_token_length=MOST_TOKEN_BYTES + 1,  # the library keeps tokens shorter than this
    )  # fmt: skip
    learner: Any = Learner(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Sequence([cut, byte_level])
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
    """The merge that makes each token of several bytes, in the order in which they apply."""
    ranks = {token: rank for rank, token in enumerate(tokens)}
    for token in tokens:
        if len(token) > 1:
            cut = last_cut(token, ranks)
            yield token[:cut], token[cut:]


def last_cut(token: bytes, ranks: dict[bytes, int]) -> int:
    """Where the last merge of a token joins two parts, as a position in its bytes.

    Only earlier tokens are merged. A heap holds the possible merges: a list of all parts would take hours for long tokens.
    Raises UserError if earlier tokens do not make up the token.
    """
    n, own = len(token), ranks[token]
    before, after = list(range(-1, n)), list(range(1, n + 2))  # where the parts beside the part at a position begin
    possible: list[tuple[int, int, int, int]] = []

    def offer(start: int, middle: int, end: int) -> None:
        if start >= 0 and end <= n and (rank := ranks.get(token[start:end], own)) < own:
            heappush(possible, (rank, start, middle, end))

    for i in range(n - 1):
        offer(i, i + 1, i + 2)
    while possible:
        _, start, middle, end = heappop(possible)
        if after[start] == middle and after[middle] == end:  # no other merge took one of the parts
            after[start], after[middle], before[end] = end, n + 1, start
            offer(before[start], start, end)
            offer(start, end, after[end])
    if after[after[0]] != n:
        raise UserError(f"The vocabulary cannot be exported: no earlier tokens make up its token {one_line(token)}.")
    return after[0]


class Vocabulary:
    """The tokens that are text, in the order of their ids, which is also the order of their merges.

    Its file, `content`, has tiktoken's format: a line "base64-token id" for each token.
    """

    def __init__(self, content: bytes, name: str | None = None) -> None:
        """Raises ValueError if the content is not a vocabulary that can encode every text."""
        self.content, self.sha256 = content, hashlib.sha256(content).hexdigest()
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


@lru_cache(maxsize=1)
def gpt2_vocabulary() -> Vocabulary:
    """GPT-2's vocabulary, from the folder assets/."""
    content = VOCABULARY_FILE.read_bytes() if VOCABULARY_FILE.exists() else b""
    if hashlib.sha256(content).hexdigest() != VOCABULARY_SHA256:
        raise UserError(f"'{VOCABULARY_FILE}' is missing or damaged; restore it from the repository.")
    return Vocabulary(content, "gpt2")
