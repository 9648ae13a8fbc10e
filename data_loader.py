"""Token ids on disk -> batches -> the device. Their order is a pure function of (seed, epoch); the position is an integer.

By default an epoch's stream is <|endoftext|> (context for the first token) and then every document of the split, in a new
order each epoch. The stream is cut into rows of `block_size` targets. The rows are shuffled too, so that a batch mixes many
documents. Every token is a target exactly once in an epoch:

    stream   <eot> a b c <eot> d e <eot> ...
    row 0    x: <eot> a b c      y: a b c <eot>
    row 1    x: <eot> d e <eot>  y: d e <eot> ...

jojo/text/packing.py can also keep documents whole. jojo/text/chat_targets.py can make only the assistant's tokens targets.

Shape letters: A micro-batches per batch on this rank, B sequences per micro-batch, T tokens per sequence.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from config import Config, SystemConfig
from jojo.machine.ranks import SINGLE, Ranks
from jojo.text.chat_targets import AssistantTargets
from jojo.text.packing import EpochStream, Piece, WholeRows, mix_key, permuted_range
from jojo.text.token_cache import TokenCache
from jojo.text.tokenizer import Tokenizer

IGNORED = -1  # a target that the loss leaves out


@dataclass
class Batch:
    """The micro-batches of one optimizer step on this rank."""

    inputs: np.ndarray  # int64 (A, B, T)
    targets: np.ndarray  # int64 (A, B, T); -1 is ignored
    n_targets: int  # predicted tokens of the whole batch, over all ranks; the loss is divided by it


@dataclass
class PackedLoader:
    """Makes the batches of an epoch, by number."""

    cache: TokenCache
    block_size: int  # T, tokens per sequence
    batch_size: int  # B, sequences per micro-batch
    _: KW_ONLY
    eot_id: int  # <|endoftext|>: the input before an epoch's first target, and in unused places
    accumulation: int = 1  # micro-batches per batch over all ranks; rank r takes micro-batches r, r + world_size, ...
    seed: int | None = 0  # decides the order of every epoch; None keeps the cache's order of documents (evaluation)
    rank: int = 0
    world_size: int = 1  # must divide `accumulation`
    max_batches: int | None = None  # use at most this many batches of each epoch
    targets: AssistantTargets | None = None  # finds the tokens to predict; None: all are
    whole: WholeRows | None = None  # rows of whole documents; None: a stream cut into rows

    def __post_init__(self) -> None:
        assert self.accumulation % self.world_size == 0
        self.n_rows = self.whole.n_rows if self.whole else -(-self.cache.n_tokens // self.block_size)
        self.rows_per_batch = self.batch_size * self.accumulation
        available = -(-self.n_rows // self.rows_per_batch)
        self.batches_per_epoch = min(available, self.max_batches or available)
        self._stream: tuple[int, EpochStream] | None = None

    def layout(self, epoch: int) -> EpochStream | WholeRows:
        """How documents fill the rows of an epoch. The stream that was used last is kept."""
        if self.whole:
            return self.whole
        if self._stream is None or self._stream[0] != epoch:
            self._stream = None  # frees the old order before the new one is laid out
            key = None if self.seed is None else mix_key(self.seed, epoch, 1)
            self._stream = epoch, EpochStream(self.cache, self.block_size, key)
        return self._stream[1]

    def rows(self, epoch: int, index: int) -> np.ndarray:
        """Row numbers of batch `index` for all ranks, (A·world_size, B); -1 fills up the last batch of the epoch."""
        first = index * self.rows_per_batch
        rows = np.full(self.rows_per_batch, -1, np.int64)
        real = max(0, min(self.n_rows - first, self.rows_per_batch))
        rows[:real] = permuted_range(first, first + real, self.n_rows, mix_key(self.seed or 0, epoch, 2))
        return rows.reshape(self.accumulation, self.batch_size)

    def batch(self, epoch: int, index: int) -> Batch:
        """Batch `index` of `epoch`. The same arguments always give the same batch."""
        assert index >= 0
        layout, rows = self.layout(epoch), self.rows(epoch, index)
        of_this_rank = slice(self.rank, None, self.world_size)
        mine, others = rows[of_this_rank], np.delete(rows, of_this_rank, axis=0)
        inputs = np.full((*mine.shape, self.block_size), self.eot_id, np.int64)  # (A, B, T)
        targets = np.full_like(inputs, IGNORED)
        inputs[mine >= 0], targets[mine >= 0] = self._read(layout, mine[mine >= 0])
        n_targets = np.count_nonzero(targets != IGNORED)  # of this rank; then add those of the other ranks
        elsewhere = others[others >= 0]
        if self.targets:
            n_targets += sum(self._predicted(self.targets, layout, row).sum() for row in elsewhere.tolist())
        else:
            n_targets += layout.n_targets(elsewhere).sum()
        return Batch(inputs, targets, int(n_targets))

    def _read(self, layout: EpochStream | WholeRows, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets of n rows, int64 (n, T) each: a target is the input's next token."""
        pieces = layout.pieces(rows, n_before=1)
        ids = self.cache.gather(pieces.document, pieces.begin, pieces.count)
        n_targets, n_ids = layout.n_targets(rows)[:, None], np.bincount(pieces.row, pieces.count, len(rows))[:, None]
        column = np.arange(self.block_size + 1)  # 0: the token before the first target, which not every row has
        tokens = np.full((len(rows), self.block_size + 1), self.eot_id, np.int64)
        tokens[(column > n_targets - n_ids) & (column <= n_targets)] = ids
        is_target = column[1:] <= n_targets
        inputs, targets = np.where(is_target, tokens[:, :-1], self.eot_id), np.where(is_target, tokens[:, 1:], IGNORED)
        if self.targets:
            for place, row in enumerate(rows.tolist()):
                targets[place, : n_targets[place, 0]][~self._predicted(self.targets, layout, row)] = IGNORED
        return inputs, targets

    def _predicted(self, targets: AssistantTargets, layout: EpochStream | WholeRows, row: int) -> np.ndarray:
        """Which tokens of a row are predicted, bool. Reads a conversation from its beginning, to know who speaks."""
        masks = []
        for piece in layout.pieces(np.array([row])):
            is_chat = self.ids(Piece(piece.document, 0, 1))[0] == targets.im_start
            known = Piece(piece.document, 0, piece.begin + piece.count) if is_chat else piece
            masks.append(targets.mask(self.ids(known))[-piece.count :])
        return np.concatenate(masks)

    def ids(self, piece: Piece) -> np.ndarray:
        """The ids of one piece."""
        return self.cache.gather(np.array([piece.document]), np.array([piece.begin]), np.array([piece.count]))

    def documents(self, epoch: int, index: int) -> list[int]:
        """Numbers (from 0, in the cache's order) of the documents in a batch, for messages about it."""
        layout, rows = self.layout(epoch), self.rows(epoch, index)
        return np.unique(layout.pieces(rows[rows >= 0]).document).tolist()

    def describe_documents(self, epoch: int, index: int, tokenizer: Tokenizer, most: int = 4) -> str:
        """The documents in a batch, for a message: their lines in the JSONL file, from 1, and their first words."""
        documents = self.documents(epoch, index)
        shown = []
        for document in documents[:most]:
            start, stop = self.cache.offsets(document, document + 2).tolist()
            text = tokenizer.decode(self.cache.tokens(start, min(stop, start + 10)).tolist())
            shown.append(f"{document + 1} ({' '.join(text.split())!r} ...)")
        return ", ".join(shown) + (f" and {len(documents) - most} more" if len(documents) > most else "")


whole_rows = lru_cache(maxsize=4)(WholeRows)  # all loaders of a split share one layout


def packed_loader(config: Config, cache: TokenCache, tokenizer: Tokenizer, **settings: Any) -> PackedLoader:
    """The batches of a split, packed as the config says; `settings` are PackedLoader's."""
    block_size = config.model.block_size
    targets = AssistantTargets.of(tokenizer) if config.data.predict == "assistant" else None
    roles = AssistantTargets.of(tokenizer) if tokenizer.has_chatml else None  # finds turns: long chats are cut there
    whole = whole_rows(cache, block_size, roles) if config.data.pack == "whole" else None
    return PackedLoader(
        cache, block_size, config.training.batch_size, eot_id=tokenizer.eot_id, targets=targets, whole=whole, **settings
    )


def training_loader(config: Config, cache: TokenCache, tokenizer: Tokenizer, ranks: Ranks = SINGLE) -> PackedLoader:
    """The training batches of this rank."""
    training = config.training
    return packed_loader(
        config, cache, tokenizer, accumulation=training.gradient_accumulation_steps, seed=config.system.seed,
        rank=ranks.rank, world_size=ranks.world_size, max_batches=training.train_batches,
    )  # fmt: skip


def evaluation_loader(config: Config, split: str, cache: TokenCache, tokenizer: Tokenizer) -> PackedLoader:
    """Micro-batches of "train" or "val" for evaluation: always the same for the same data and sizes."""
    limits = [config.training.eval_iters, config.training.val_batches if split == "val" else None]
    return packed_loader(config, cache, tokenizer, seed=None, max_batches=min(filter(None, limits)))


@dataclass
class DeviceBatch:
    """A Batch on the device: inputs and targets int64 (A, B, T)."""

    inputs: Tensor
    targets: Tensor
    n_targets: int


class DeviceLoader:
    """The batches of a PackedLoader, on the device."""

    def __init__(self, packed: PackedLoader, system: SystemConfig) -> None:
        self.packed, self.device = packed, system.device
        self.pin_memory = system.pin_memory and self.device.startswith("cuda")
        self.prefetches = self.device != "cpu"  # on a CPU there is no copy to overlap with computing
        self._next: tuple[tuple[int, int], DeviceBatch] | None = None  # (epoch, position) and the batch there

    def batch(self, epoch: int, position: int) -> DeviceBatch:
        """The batch at a position, like PackedLoader.batch; the prefetched one if `prefetch` was called for it."""
        if self._next and self._next[0] == (epoch, position):
            return self._next[1]
        return self.send(self.packed.batch(epoch, position))

    def prefetch(self, epoch: int, position: int) -> None:
        """Read a batch now and start sending it to the device."""
        if self.prefetches:
            self._next = (epoch, position), self.batch(epoch, position)

    def send(self, batch: Batch) -> DeviceBatch:
        return DeviceBatch(self.to_device(batch.inputs), self.to_device(batch.targets), batch.n_targets)

    def to_device(self, ids: np.ndarray) -> Tensor:
        """Copy ids to the device. With pinned memory, the CPU continues during the copy."""
        tensor = torch.from_numpy(ids)
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.pin_memory else tensor.to(self.device)
