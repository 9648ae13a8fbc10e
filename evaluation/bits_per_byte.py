"""Bits per byte of a text, with an interval over its documents.

The documents fill rows as in training's evaluations, so the number is the `bpb` that train.py reports, if that reads the whole
split. Control tokens are no text: neither their loss nor their bytes count.

Shape letters: B sequences, T tokens per sequence, N targets.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_loader import IGNORED, PackedLoader
from evaluation.intervals import Estimate, bootstrap_ratio
from evaluation.likelihood import BATCH_TOKENS, target_losses
from jojo.text.cache_builder import CacheBuilder, Source
from jojo.text.dataset_files import to_line
from jojo.text.readers import Problems, TextOptions, find_files, read_records
from jojo.text.tokenizer import Tokenizer
from model import GPT
from utils import UserError, log, plural


@dataclass(frozen=True)
class TextResult:
    """How well a model predicts a text."""

    source: str  # where the text is from, in words
    bpb: Estimate
    loss: float  # nats per predicted token, control tokens included: what train.py calls the loss
    n_documents: int  # with text that is predicted
    n_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, unrounded."""
        return {
            "source": self.source, "bpb": self.bpb.value, "bpb_interval": self.bpb.interval, "loss": self.loss,
            "documents": self.n_documents, "bytes": self.n_bytes,
        }  # fmt: skip


def rows_at_once(block_size: int) -> int:
    """How many rows of a text to read together."""
    return max(1, BATCH_TOKENS // block_size)


def documents_of(loader: PackedLoader, index: int) -> np.ndarray:
    """The number of the document that each target of a batch belongs to: int64 (B, T). -1 where there is no target."""
    numbers = np.full((loader.batch_size, loader.block_size), -1, np.int64)
    for place, row in enumerate(loader.rows(0, index)[0].tolist()):
        if row >= 0:
            pieces = loader.layout(0).pieces(np.array([row]))
            found = np.repeat(pieces.document, pieces.count)
            numbers[place, : len(found)] = found
    return numbers


def measure_text(model: GPT, tokenizer: Tokenizer, loader: PackedLoader, source: str, seed: int) -> TextResult:
    """Bits per byte of all of a loader's text. The model must be in eval mode. `seed` draws the bootstrap's documents.

    Raises UserError if nothing in the text is predicted.
    """
    from tqdm import tqdm

    n_documents, loss, n_targets = loader.cache.n_documents, 0.0, 0
    nats, n_bytes = np.zeros(n_documents), np.zeros(n_documents, np.int64)
    for index in tqdm(range(loader.batches_per_epoch), desc="Reading", unit=" batches", leave=False, disable=None):
        batch = loader.batch(0, index)
        inputs, targets = batch.inputs[0], batch.targets[0]  # (B, T)
        losses = target_losses(model, torch.from_numpy(inputs), torch.from_numpy(targets))[0].numpy()  # (N,)
        loss, n_targets = loss + float(losses.sum()), n_targets + len(losses)
        documents, lengths = documents_of(loader, index)[targets != IGNORED], targets[targets != IGNORED]
        lengths = tokenizer.byte_lengths[lengths]  # (N,)
        np.add.at(nats, documents[lengths > 0], losses[lengths > 0])
        np.add.at(n_bytes, documents, lengths)
    nats, n_bytes = nats[n_bytes > 0], n_bytes[n_bytes > 0]
    if not len(nats):
        raise UserError(
            f"Nothing in {source} is predicted: it has no words of an assistant; name other text with --text."
        )
    bpb = bootstrap_ratio(nats / math.log(2), n_bytes, seed)
    return TextResult(source, bpb, loss / n_targets, len(nats), int(n_bytes.sum()))


def listed(names: Sequence[str]) -> str:
    """Names in a few words, for a message."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


@contextmanager
def text_loader(
    inputs: Sequence[str], text_field: str | None, tokenizer: Tokenizer, block_size: int
) -> Iterator[PackedLoader]:
    """The text of files, folders and patterns, ready for measure_text. Documents lie end to end, and every token is predicted.

    Raises UserError for a file that cannot be read, and for more than 100 unreadable lines; fewer are left out with a warning.
    """
    problems, label = Problems(otherwise="correct them"), listed(inputs)
    paths = find_files(inputs, flag="--text")

    def lines() -> Iterator[bytes]:
        found = False
        for path in paths:
            for record in read_records(path, TextOptions(text_field=text_field), problems):
                found = True
                yield to_line(record)
        if not found:
            unreadable = f", but {plural(problems.count, 'unreadable line')} ({problems.shown}); {problems.advice}"
            raise UserError(f"No documents in {label}{unreadable if problems.count else ''}.")

    source = Source("text", "val", label, generator=lines)
    with tempfile.TemporaryDirectory(prefix="jojo-text-", ignore_cleanup_errors=True) as folder:
        cache = CacheBuilder(source, tokenizer, Path(folder)).open()
        assert cache is not None, "a generator is never missing"
        with closing(cache):
            if problems.count:
                log.warning("Left out %s (%s).", plural(problems.count, "unreadable line"), problems.shown)
            yield PackedLoader(cache, block_size, rows_at_once(block_size), eot_id=tokenizer.eot_id, seed=None)
