"""How documents fill rows of `block_size` targets: laid end to end, or each kept whole.

`EpochStream` (data.pack "stream") lays all documents end to end, in another order each epoch, and cuts the stream into rows.
Nothing is wasted, and most rows begin inside a document.

`WholeRows` (data.pack "whole") puts documents into rows so that none crosses from one row into the next; the rest of a row
stays empty. Which documents share a row is decided once, so every epoch has the same number of rows; only their order
changes. Documents longer than a row are cut: a conversation before a turn, and before one that is not the assistant's where
possible; a turn that is longer than a row, like plain text, at the end of the row.

Both say which pieces of documents a row predicts, and which token comes before the first of them.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from jojo.text.chat_targets import AssistantTargets
from jojo.text.token_cache import TokenCache

CHUNK = 1 << 16  # documents looked at together


@dataclass(frozen=True)
class Piece:
    """Tokens `begin` to `begin + count` of a document (a number in the cache's order)."""

    document: int
    begin: int
    count: int


# --- order ----------------------------------------------------------------------------------------------------------


def _mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finalizer (Steele, Lea & Flood 2014): every input bit moves every output bit. uint64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def mix_key(*parts: int) -> int:
    """One 64-bit key from several integers, the same on every machine."""
    key = np.zeros(1, np.uint64)
    for part in parts:
        key = _mix(key + np.uint64(part & (2**64 - 1)) + np.uint64(0x9E3779B97F4A7C15))
    return int(key[0])


@lru_cache(maxsize=16)
def _round_keys(key: int) -> list[np.uint64]:
    """The keys of permute's rounds; the same few are asked for again and again."""
    return [np.uint64(mix_key(key, r)) for r in range(6)]


def permute(positions: np.ndarray, n: int, key: int) -> np.ndarray:
    """Where each position goes in a pseudo-random permutation of range(n): computed, never stored.

    A Feistel network on the smallest even number of bits that holds n; values that land outside are sent through
    again until they fall inside ("cycle walking", Black & Rogaway 2002), which keeps it a permutation.

    Args:
        positions: integers in [0, n), any shape.
        n: size of the permutation.
        key: which permutation.

    Returns:
        int64 of the same shape.
    """
    half = np.uint64((max(n - 1, 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << int(half)) - 1)
    values = np.asarray(positions).astype(np.uint64)
    walking = np.ones(values.shape, bool)
    while walking.any():
        left, right = values[walking] >> half, values[walking] & mask
        for round_key in _round_keys(key):
            left, right = right, left ^ (_mix(right + round_key) & mask)
        values[walking] = (left << half) | right
        walking = values >= n
    return values.astype(np.int64)


# --- rows -----------------------------------------------------------------------------------------------------------


class EpochStream:
    """One epoch's documents laid end to end in their order.

    Holds 8 bytes per document (where each begins in the stream); the order itself is computed.
    """

    def __init__(self, cache: TokenCache, block_size: int, key: int | None) -> None:
        """`key` decides the order; None keeps the documents as they are in the cache."""
        self.cache, self.block_size, self.key = cache, block_size, key
        self._starts: np.ndarray | None = None
        if key is not None:
            self._starts = np.zeros(cache.n_documents + 1, np.int64)
            index = cache.index()
            for first in range(0, cache.n_documents, CHUNK):
                documents = self._documents(first, min(first + CHUNK, cache.n_documents))
                self._starts[first + 1 : first + 1 + len(documents)] = index[documents + 1] - index[documents]
            np.cumsum(self._starts, out=self._starts)

    @staticmethod
    def count_rows(cache: TokenCache, block_size: int) -> int:
        """Rows of an epoch; the last one is not full."""
        return -(-cache.n_tokens // block_size)

    def _documents(self, first: int, last: int) -> np.ndarray:
        assert self.key is not None
        return permute(np.arange(first, last), self.cache.n_documents, self.key)

    def pieces(self, row: int) -> list[Piece]:
        """What a row predicts."""
        return self._pieces(row * self.block_size, min((row + 1) * self.block_size, self.cache.n_tokens))

    def context(self, row: int) -> Piece | None:
        """The token before a row's first target; None for the epoch's first row."""
        return self._pieces(row * self.block_size - 1, row * self.block_size)[0] if row else None

    def n_targets(self, row: int) -> int:
        """How many tokens a row predicts."""
        return min(self.block_size, self.cache.n_tokens - row * self.block_size)

    def _pieces(self, start: int, stop: int) -> list[Piece]:
        """The pieces that make up stream[start:stop]."""
        starts = self.cache.index() if self._starts is None else self._starts
        kind = starts.dtype.type  # a number of another type would have all starts converted
        first = int(np.searchsorted(starts, kind(start), side="right")) - 1
        last = int(np.searchsorted(starts, kind(stop), side="left"))
        documents = range(first, last) if self.key is None else self._documents(first, last)
        pieces = []
        for place, document in zip(range(first, last), documents, strict=True):
            begin, end = int(starts[place]), int(starts[place + 1])
            inside = max(start, begin)
            pieces.append(Piece(int(document), inside - begin, min(stop, end) - inside))
        return pieces


class WholeRows:
    """Documents put whole into rows. Holds 12 bytes per document and 8 per row.

    Attributes:
        n_rows: the same in every epoch.
        n_cut: documents longer than a row, which were cut.
    """

    def __init__(self, cache: TokenCache, block_size: int, roles: AssistantTargets | None) -> None:
        """`roles` finds the turns of conversations; None: there are no conversations."""
        self.cache, self.block_size = cache, block_size
        parts, self.n_cut = self._parts(roles)
        order, self._firsts = fill_rows(parts[:, 2], block_size)
        self._parts_by_row = parts[order]  # (document, begin, count)
        self.n_rows = len(self._firsts) - 1

    def _parts(self, roles: AssistantTargets | None) -> tuple[np.ndarray, int]:
        """All documents as (document, begin, count), the long ones in several parts, uint32 (n, 3); and how many are cut."""
        index, n = self.cache.index(), self.cache.n_documents
        assert n < 1 << 32
        long, n_cut = [], 0
        whole = [np.empty((0, 3), np.uint32)]
        for first in range(0, n, CHUNK):
            offsets = index[first : first + CHUNK + 1]
            lengths = (offsets[1:] - offsets[:-1]).astype(np.int64)
            fits = np.flatnonzero(lengths <= self.block_size)
            whole.append(np.stack([first + fits, np.zeros_like(fits), lengths[fits]], axis=1).astype(np.uint32))
            for number in np.flatnonzero(lengths > self.block_size).tolist():
                ids = self.cache.tokens(int(offsets[number]), int(offsets[number + 1]))
                long += [(first + number, *part) for part in cut_at_turns(ids, self.block_size, roles)]
                n_cut += 1
        return np.concatenate([*whole, np.array(long, np.uint32).reshape(-1, 3)]), n_cut

    def pieces(self, row: int) -> list[Piece]:
        """What a row predicts."""
        return [Piece(*part) for part in self._parts_by_row[self._firsts[row] : self._firsts[row + 1]].tolist()]

    def context(self, row: int) -> Piece | None:
        """None: no token of the data comes before a row."""
        return None

    def n_targets(self, row: int) -> int:
        """How many tokens a row predicts."""
        return int(self._parts_by_row[self._firsts[row] : self._firsts[row + 1], 2].sum())


def cut_at_turns(ids: np.ndarray, longest: int, roles: AssistantTargets | None) -> list[tuple[int, int]]:
    """A document in parts of at most `longest` tokens, cut before turns if possible: (begin, count).

    An answer of the assistant stays with its question, if there is another turn to cut before.
    """
    turns, answers = roles.turns(ids) if roles else (np.empty(0, np.int64), np.empty(0, bool))
    parts, begin = [], 0
    while len(ids) - begin > longest:
        inside = (turns > begin) & (turns <= begin + longest)
        best = turns[inside & ~answers] if (inside & ~answers).any() else turns[inside]
        end = int(best[-1]) if len(best) else begin + longest
        parts.append((begin, end - begin))
        begin = end
    return [*parts, (begin, len(ids) - begin)]


def fill_rows(lengths: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Fill rows with parts: each takes the longest part that is left, then the longest that still fits, and so on.

    Args:
        lengths: of the parts, each from 1 to `size`.
        size: of a row.

    Returns:
        The parts' numbers in the order of the rows, (n,), and where in it each row begins, with the end, (rows + 1,).
        Parts of the same length are in a random order, the same every time.
    """
    left = np.bincount(lengths, minlength=size + 1).tolist()  # parts by length
    shorter = list(range(size + 1))  # no length above shorter[room], up to room, is left

    def longest(room: int) -> int:
        """The longest length that is left and fits, or 0. Later searches skip what this one has passed."""
        path = []
        while room and not left[room]:
            path.append(room)
            room = shorter[room] if shorter[room] < room else room - 1
        for place in path:
            shorter[place] = room
        return room

    chosen, firsts = array("q"), [0]
    while (length := longest(size)) > 0:
        room = size
        while length:
            chosen.append(length)
            left[length] -= 1
            room -= length
            length = longest(room)
        firsts.append(len(chosen))
    drawn = permute(np.arange(len(lengths)), len(lengths), mix_key(0, 3)) if len(lengths) else np.arange(0)
    order = np.empty(len(lengths), np.int64)
    places = np.argsort(np.frombuffer(chosen, np.int64), kind="stable")
    order[places] = drawn[np.argsort(lengths[drawn], kind="stable")]
    return order, np.array(firsts)
