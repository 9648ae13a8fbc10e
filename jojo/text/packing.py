"""How documents fill rows of `block_size` targets: end to end, or each document whole in one row.

`EpochStream` (data.pack "stream") lays all documents end to end, in a new order each epoch, and cuts the stream into rows.
Nothing is wasted, and most rows begin inside a document.

`WholeRows` (data.pack "whole") puts documents into rows so that no document continues in the next row; the rest of a row
stays empty. Which documents share a row is decided once, so every epoch has the same number of rows; only their order
changes. Documents longer than a row are cut. A conversation is cut before a turn, if possible not between a question and its
answer. Plain text, and a turn that is longer than a row, is cut at the end of the row.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from jojo.text.chat_targets import AssistantTargets
from jojo.text.token_cache import TokenCache

CHUNK = 1 << 16  # documents processed at once
KEPT = 1 << 12  # positions permuted at once


@dataclass(frozen=True)
class Piece:
    """Tokens `begin` to `begin + count` of a document (its index in the cache)."""

    document: int
    begin: int
    count: int


@dataclass(frozen=True)
class Pieces:
    """The pieces of several rows, one after another, as arrays: int64 (n,)."""

    row: np.ndarray  # a piece belongs to this one of the rows
    document: np.ndarray
    begin: np.ndarray
    count: np.ndarray

    def __iter__(self) -> Iterator[Piece]:
        return map(Piece, self.document.tolist(), self.begin.tolist(), self.count.tolist())


def ranges(firsts: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers first, first + 1, ... of each range, and the ranges that they belong to: int64 (sum of counts,)."""
    number = np.repeat(np.arange(len(counts)), counts)
    return np.arange(len(number)) + np.repeat(firsts - (np.cumsum(counts) - counts), counts), number


def _mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finalizer (Steele, Lea & Flood 2014): every bit of the result depends on every bit of x (uint64)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@lru_cache(maxsize=64)
def mix_key(*parts: int) -> int:
    """One 64-bit key from several integers, the same on every machine."""
    key = np.zeros(1, np.uint64)
    for part in parts:
        key = _mix(key + np.uint64(part & (2**64 - 1)) + np.uint64(0x9E3779B97F4A7C15))
    return int(key[0])


@lru_cache(maxsize=16)
def _round_keys(key: int) -> list[np.uint64]:
    return [np.uint64(mix_key(key, r)) for r in range(6)]


def permute(positions: np.ndarray, n: int, key: int) -> np.ndarray:
    """Apply a pseudo-random permutation of range(n), chosen by `key`, to positions; nothing is stored.

    It is a Feistel network on the smallest even number of bits that holds n. A result outside of range(n) goes through
    again until it is inside ("cycle walking", Black & Rogaway 2002), so the whole stays a permutation. Positions are
    integers in [0, n); the result is int64 of the same shape.
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


def permuted_range(first: int, stop: int, n: int, key: int) -> np.ndarray:
    """permute() of `first` to `stop` - 1. A few thousand are computed together and kept, for the ranges that follow."""
    chunks = [_permuted_chunk(chunk, n, key) for chunk in range(first // KEPT, -(-stop // KEPT))]
    return np.concatenate([np.empty(0, np.int64), *chunks])[first % KEPT :][: stop - first]


@lru_cache(maxsize=4)
def _permuted_chunk(chunk: int, n: int, key: int) -> np.ndarray:
    return permute(np.arange(chunk * KEPT, min((chunk + 1) * KEPT, n)), n, key)


class EpochStream:
    """One epoch's documents laid end to end. Holds 8 bytes per document: where each begins in the stream."""

    def __init__(self, cache: TokenCache, block_size: int, key: int | None) -> None:
        """`key` decides the order; None keeps the documents as they are in the cache."""
        self.cache, self.block_size, self.key = cache, block_size, key
        self._starts: np.ndarray | None = None
        if key is not None:
            index, n = cache.index(), cache.n_documents
            self._starts = np.zeros(n + 1, np.int64)
            for first in range(0, n, CHUNK):
                documents = self._documents(np.arange(first, min(first + CHUNK, n)))
                self._starts[first + 1 : first + 1 + len(documents)] = index[documents + 1] - index[documents]
            np.cumsum(self._starts, out=self._starts)

    def _documents(self, places: np.ndarray) -> np.ndarray:
        """The documents at these places of the stream."""
        return places if self.key is None else permute(places, self.cache.n_documents, self.key)

    def pieces(self, rows: np.ndarray, n_before: int = 0) -> Pieces:
        """The pieces of documents that rows predict. `n_before`: with so many tokens before them, as far as there are any."""
        first = np.maximum(rows * self.block_size - n_before, 0)
        stop = np.minimum((rows + 1) * self.block_size, self.cache.n_tokens)
        starts = self.cache.index() if self._starts is None else self._starts
        ends = np.stack([first, stop - 1]).astype(starts.dtype)  # with another dtype, all starts would be converted
        after, last = np.searchsorted(starts, ends, side="right")
        places, row = ranges(after - 1, last - after + 1)
        offsets, following = starts[places].astype(np.int64), starts[places + 1].astype(np.int64)
        begin, end = np.maximum(first[row], offsets), np.minimum(stop[row], following)
        return Pieces(row, self._documents(places), begin - offsets, end - begin)

    def n_targets(self, rows: np.ndarray) -> np.ndarray:
        """How many tokens each row predicts."""
        return np.minimum(self.block_size, self.cache.n_tokens - rows * self.block_size)


class WholeRows:
    """Rows of whole documents. Holds 12 bytes per document and 8 per row."""

    def __init__(self, cache: TokenCache, block_size: int, roles: AssistantTargets | None) -> None:
        """`roles` finds where the turns of conversations begin; None: treat every document as plain text."""
        self.n_cut = 0  # documents that are longer than a row, and were cut
        parts = self._parts(cache, block_size, roles)
        order, self._firsts = fill_rows(parts[:, 2], block_size)
        self._parts_by_row = parts[order]  # (document, begin, count)
        self.n_rows = len(self._firsts) - 1

    def _parts(self, cache: TokenCache, block_size: int, roles: AssistantTargets | None) -> np.ndarray:
        """All documents as pieces (document, begin, count), long documents as several: uint32 (n, 3)."""
        index, whole = cache.index(), [np.empty((0, 3), np.uint32)]
        cut: list[tuple[int, int, int]] = []
        for first in range(0, cache.n_documents, CHUNK):
            offsets = index[first : first + CHUNK + 1]
            lengths = (offsets[1:] - offsets[:-1]).astype(np.int64)
            fits = np.flatnonzero(lengths <= block_size)
            whole.append(np.stack([first + fits, np.zeros_like(fits), lengths[fits]], axis=1).astype(np.uint32))
            for number in np.flatnonzero(lengths > block_size).tolist():
                ids = cache.tokens(int(offsets[number]), int(offsets[number + 1]))
                cut += [(first + number, *part) for part in cut_at_turns(ids, block_size, roles)]
                self.n_cut += 1
        return np.concatenate([*whole, np.array(cut, np.uint32).reshape(-1, 3)])

    def pieces(self, rows: np.ndarray, n_before: int = 0) -> Pieces:
        """The pieces of rows. No row has a token before its first target, whatever `n_before` is."""
        places, row = ranges(self._firsts[rows], self._firsts[rows + 1] - self._firsts[rows])
        return Pieces(row, *self._parts_by_row[places].astype(np.int64).T)

    def n_targets(self, rows: np.ndarray) -> np.ndarray:
        """How many tokens each row predicts."""
        pieces = self.pieces(rows)
        return np.bincount(pieces.row, pieces.count, len(rows)).astype(np.int64)


def cut_at_turns(ids: np.ndarray, longest: int, roles: AssistantTargets | None) -> list[tuple[int, int]]:
    """The parts (begin, count) of a document, each of at most `longest` tokens; cut before turns if possible.

    An answer of the assistant stays with its question if there is another place to cut.
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
    """Fill rows of `size` with pieces: each takes the longest piece that is left, then the longest that still fits, ...

    Returns order (n,), the pieces' indices row after row, and firsts (rows + 1,): row i has order[firsts[i] : firsts[i + 1]].
    Pieces of the same length are in a random order, the same every time.
    """
    left = np.bincount(lengths, minlength=size + 1).tolist()  # number of pieces by length
    shorter = [0, *range(size)]  # the length to try next if no piece of this length is left

    def longest(room: int) -> int:
        """The longest length that is left and fits, or 0."""
        while room and not left[room]:
            if not left[shorter[room]]:
                shorter[room] = shorter[shorter[room]]  # later searches skip a length
            room = shorter[room]
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
    drawn = permute(np.arange(len(lengths)), len(lengths), mix_key(0, 3))  # a fixed key
    order = np.empty(len(lengths), np.int64)
    places = np.argsort(np.frombuffer(chosen, np.int64), kind="stable")
    order[places] = drawn[np.argsort(lengths[drawn], kind="stable")]
    return order, np.array(firsts)
