"""Ids on disk to packed micro-batches. Order is a pure function of (seed, epoch); position is an integer.

An epoch's stream is <|endoftext|> (context for the first token) and then every document of the split, in an order
drawn anew each epoch. The stream is cut into rows of `block_size` targets; rows, too, come in an order drawn anew, so
that a batch mixes text from everywhere. Every token is a target exactly once an epoch:

    stream   <eot> a b c <eot> d e <eot> ...
    row 0    x: <eot> a b c      y: a b c <eot>
    row 1    x: <eot> d e <eot>  y: d e <eot> ...

Nothing is remembered between batches: `batch(epoch, 10_000_000)` costs what `batch(epoch, 10)` does, which is why a
resumed run seeks instead of replaying.

Shape letters: A micro-batches per batch on this rank, B sequences per micro-batch, T tokens per sequence.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cache_builder import Source, open_cache
from config import Config
from documents import Rendering
from token_cache import TokenCache
from tokenizer import Tokenizer
from utils import UserError, log, user_path

IGNORED = -1  # target where nothing is to be predicted
CHUNK = 1 << 16  # documents looked at together when an epoch's order is laid out


# --- order --------------------------------------------------------------------------------------------------------


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
    round_keys = [np.uint64(mix_key(key, r)) for r in range(6)]
    values = np.asarray(positions).astype(np.uint64)
    walking = np.ones(values.shape, bool)
    while walking.any():
        left, right = values[walking] >> half, values[walking] & mask
        for round_key in round_keys:
            left, right = right, left ^ (_mix(right + round_key) & mask)
        values[walking] = (left << half) | right
        walking = values >= n
    return values.astype(np.int64)


class EpochStream:
    """One epoch's documents laid end to end in their order; reads any stretch of it.

    Holds 8 bytes per document (where each begins in the stream); the order itself is computed.
    """

    def __init__(self, cache: TokenCache, key: int | None) -> None:
        """`key` decides the order; None keeps the documents as they are in the cache."""
        self.cache = cache
        self.key = key
        self.n_tokens = cache.n_tokens
        self._starts: np.ndarray | None = None
        if key is not None:
            self._starts = np.zeros(cache.n_documents + 1, np.int64)
            index = cache.index()
            for first in range(0, cache.n_documents, CHUNK):
                documents = self._documents(first, min(first + CHUNK, cache.n_documents))
                lengths = (index[documents + 1] - index[documents]).astype(np.int64)
                np.cumsum(lengths, out=self._starts[first + 1 : first + 1 + len(lengths)])
                self._starts[first + 1 : first + 1 + len(lengths)] += self._starts[first]

    def _documents(self, first: int, last: int) -> np.ndarray:
        assert self.key is not None
        return permute(np.arange(first, last), self.cache.n_documents, self.key)

    def _pieces(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        """(document, first token in it, tokens) of the documents that stream[start:stop] is made of."""
        starts = self.cache.index() if self._starts is None else self._starts
        first = int(np.searchsorted(starts, start, side="right")) - 1
        last = int(np.searchsorted(starts, stop, side="left"))
        documents = range(first, last) if self.key is None else self._documents(first, last)
        pieces = []
        for place, document in zip(range(first, last), documents, strict=True):
            begin, end = int(starts[place]), int(starts[place + 1])
            inside = max(start, begin)
            pieces.append((int(document), inside - begin, min(stop, end) - inside))
        return pieces

    def read(self, start: int, stop: int) -> np.ndarray:
        """Ids of stream[start:stop], 0 <= start < stop <= n_tokens."""
        if self._starts is None:
            return self.cache.tokens(start, stop)
        parts = []
        for document, skip, count in self._pieces(start, stop):
            begin = int(self.cache.offsets(document, document + 1)[0]) + skip
            parts.append(self.cache.tokens(begin, begin + count))
        return np.concatenate(parts)

    def documents(self, start: int, stop: int) -> list[int]:
        """Numbers (from 0, in the cache's order) of the documents in stream[start:stop]."""
        return [document for document, _, _ in self._pieces(start, stop)]


# --- batches ------------------------------------------------------------------------------------------------------


@dataclass
class Batch:
    """The micro-batches of one optimizer step on this rank.

    inputs, targets: int64 (A, B, T); a target of -1 is not predicted.
    n_targets: predicted tokens of the whole batch, over all ranks: what the loss is divided by.
    """

    inputs: np.ndarray
    targets: np.ndarray
    n_targets: int


class PackedLoader:
    """Batches of an epoch by number.

    Args:
        cache: the split.
        block_size: T, tokens per sequence.
        batch_size: B, sequences per micro-batch.
        accumulation: micro-batches per batch over all ranks; rank r takes numbers r, r + world_size, ...
        seed: decides the order of every epoch; None keeps the cache's order of documents (evaluation).
        rank, world_size: this process and how many there are; accumulation must be a multiple of world_size.
        max_batches: use at most so many batches of each epoch.
        eot_id: the token before an epoch's first target.
    """

    def __init__(
        self,
        cache: TokenCache,
        block_size: int,
        batch_size: int,
        *,
        eot_id: int,
        accumulation: int = 1,
        seed: int | None = 0,
        rank: int = 0,
        world_size: int = 1,
        max_batches: int | None = None,
    ) -> None:
        assert accumulation % world_size == 0
        self.cache = cache
        self.block_size, self.batch_size, self.accumulation = block_size, batch_size, accumulation
        self.seed, self.rank, self.world_size, self.eot_id = seed, rank, world_size, eot_id
        self.n_rows = -(-cache.n_tokens // block_size)
        self.rows_per_batch = batch_size * accumulation
        available = -(-self.n_rows // self.rows_per_batch)
        self.batches_per_epoch = min(available, max_batches or available)
        self._stream: tuple[int, EpochStream] | None = None

    def stream(self, epoch: int) -> EpochStream:
        """The epoch's stream; the last one asked for is kept."""
        if self._stream is None or self._stream[0] != epoch:
            self._stream = None  # frees the old order before the new one is laid out
            key = None if self.seed is None else mix_key(self.seed, epoch, 1)
            self._stream = epoch, EpochStream(self.cache, key)
        return self._stream[1]

    def rows(self, epoch: int, index: int) -> np.ndarray:
        """Row numbers of batch `index`, all ranks, (A·world_size, B); -1 fills up the epoch's last batch."""
        first = index * self.rows_per_batch
        rows = np.full(self.rows_per_batch, -1, np.int64)
        real = max(0, min(self.n_rows - first, self.rows_per_batch))
        rows[:real] = permute(np.arange(first, first + real), self.n_rows, mix_key(self.seed or 0, epoch, 2))
        return rows.reshape(self.accumulation, self.batch_size)

    def _row_targets(self, row: int) -> tuple[int, int]:
        """The stretch of the stream that a row predicts."""
        return row * self.block_size, min((row + 1) * self.block_size, self.cache.n_tokens)

    def batch(self, epoch: int, index: int) -> Batch:
        """Batch `index` of `epoch`: the same for the same arguments, whatever was read before."""
        assert index >= 0
        stream, rows = self.stream(epoch), self.rows(epoch, index)
        mine = rows[self.rank :: self.world_size]
        inputs = np.full((*mine.shape, self.block_size), self.eot_id, np.int64)
        targets = np.full((*mine.shape, self.block_size), IGNORED, np.int64)
        for place in np.ndindex(mine.shape):
            if (row := int(mine[place])) < 0:
                continue
            start, stop = self._row_targets(row)
            ids = stream.read(max(start - 1, 0), stop)
            targets[place][: stop - start] = ids[len(ids) - (stop - start) :]
            known = ids[:-1]  # one token of context before each target; the stream's very first one is eot_id
            inputs[place][stop - start - len(known) : stop - start] = known
        full, short = int((rows >= 0).sum()), int((rows == self.n_rows - 1).sum())
        missing = self.n_rows * self.block_size - self.cache.n_tokens  # the stream's last row is not full
        return Batch(inputs, targets, full * self.block_size - short * missing)

    def documents(self, epoch: int, index: int) -> list[int]:
        """Numbers of the documents in a batch, for messages about it."""
        stream, rows = self.stream(epoch), self.rows(epoch, index)
        return sorted({d for row in rows.flat if row >= 0 for d in stream.documents(*self._row_targets(int(row)))})


# --- data sets ----------------------------------------------------------------------------------------------------


def open_dataset(
    config: Config, tokenizer: Tokenizer, cache_dir: Path, num_workers: int
) -> tuple[TokenCache, TokenCache]:
    """The token caches of a run's training and validation split, built where needed.

    Raises:
        UserError: unknown data set, or data that cannot be read.
    """
    data = config.data
    rendering = Rendering(parse_special=data.parse_special)
    caches: list[TokenCache] = []

    def opened(source: Source) -> TokenCache | None:
        return open_cache(
            source, tokenizer, cache_dir, rendering, max_bad_lines=data.max_bad_lines, num_workers=num_workers
        )

    sample = False  # decided by the training split: the two are never mixed
    for split in ("train", "val"):
        path = user_path(data.data_dir) / f"{data.dataset_name}-{split}.jsonl"
        cache = opened(Source(data.dataset_name, split, str(path), path))
        if sample := data.dataset_name == "story" and (cache is None if split == "train" else sample):
            if split == "train":
                log.info(
                    "No %s: using the built-in sample of short stories. "
                    "A larger set of your own takes its place: python prepare.py --input FILES --name story", path,
                )  # fmt: skip
            cache = opened(story_sample(split))
        if cache is None:
            raise UserError(_missing(path))
        caches.append(cache)
    warn_of_lookalikes(caches, data.parse_special)
    return caches[0], caches[1]


def story_sample(split: str) -> Source:
    """The built-in story sample. It lives in the cache under a name of its own, never as data/story-*."""
    from data.story import sample_lines, sample_sha256

    label = f"the built-in story sample ({split})"
    return Source("story_sample", split, label, None, lambda: sample_lines(split), sample_sha256())


def statistics(cache: TokenCache) -> str:
    """What is in a cache, for people."""
    facts = cache.facts
    text_tokens = facts.n_tokens - facts.n_control_tokens
    rows = [
        ("documents", f"{facts.n_documents:,}"),
        ("tokens", f"{facts.n_tokens:,}, of which {facts.n_control_tokens:,} special"),
        ("bytes per token", f"{facts.n_text_bytes / max(1, text_tokens):.2f}"),
        ("longest document", f"{facts.longest_document:,} tokens"),
    ]
    if facts.empty_documents:
        rows.append(("empty documents", f"{facts.empty_documents:,}, skipped"))
    return "\n".join(f"  {name:<17} {value}" for name, value in rows)


def warn_of_lookalikes(caches: list[TokenCache], parse_special: bool) -> None:
    """Say once how many documents hold text that is written like control tokens, and which option reads it."""
    count = sum(cache.facts.lookalike_documents for cache in caches)
    which = f"{count:,} document{'s' if count > 1 else ''}"
    if count and not parse_special:
        log.warning(
            "%s contain text like <|im_start|>, which is read as plain text; "
            "if they were rendered as ChatML beforehand, use --data.parse_special true.", which,
        )  # fmt: skip


def _missing(path: Path) -> str:
    name, suffix = path.name.rsplit("-", 1)
    known = sorted(p.name.removesuffix("-train.jsonl") for p in path.parent.glob("*-train.jsonl"))
    there = f"{path.parent} holds: {', '.join(known)}" if known else f"{path.parent} holds no prepared data set"
    if suffix == "val.jsonl" and name in known:
        return f"No validation split '{path}'; run python prepare.py --input {path.parent / name}-train.jsonl --name {name}2."
    return f"No data set '{name}': '{path}' does not exist ({there}); prepare.py makes one from your text."
