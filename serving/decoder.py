"""Several texts, decoded together: each step reads the newest token of every text and gives the logits of the next ones.

A text joins or leaves between any two steps. Its tokens are those that `generation.generate` would write: a full context
restarts from its newest half. So how many others are decoded changes a text's logits only by rounding.

Shape letters: B texts decoded together, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from generation import cache_dtype
from jojo.networks.common import RowsCache
from model import GPT


class Decoder:
    """A model, and the texts that it continues. The texts fill the first rows of the cache; the last moves into a gap."""

    def __init__(self, model: GPT, n_rows: int) -> None:
        self.model, self.block_size = model, model.config.block_size
        self.cache = RowsCache(model.config, n_rows, model.device, cache_dtype(model))
        self.windows: list[
            list[int]
        ] = []  # of each text, the ids that the model sees; the newest is not yet in the cache

    def join(self, prompt: Sequence[int]) -> None:
        """Add a text and read its prompt, except for the last token."""
        row, same = len(self.windows), list(prompt) in self.windows[-1:]
        self.windows.append(list(prompt))
        if same:  # another answer to the prompt that was just read
            self.cache.copy(row - 1, row)
        elif len(prompt) <= self.block_size:
            self._read(row)

    def leave(self, row: int, clear: bool = False) -> None:
        """Remove a text. The last text takes its row. `clear`: the cache has NaN, which even a mask lets through."""
        last = len(self.windows) - 1
        if row != last:
            self.cache.copy(last, row)
        if clear:
            self.cache.clear(last)
        self.windows[row] = self.windows[last]
        self.windows.pop()

    @torch.no_grad()
    def step(self) -> Tensor:
        """The logits of each text's next token, float32 (B, V). Append the tokens to `windows` before the next step."""
        for row, window in enumerate(self.windows):
            if len(window) > self.block_size:
                del window[: -max(1, self.block_size // 2)]
                self._read(row)
        self.cache.begin([len(window) - 1 for window in self.windows])
        newest = torch.tensor([window[-1:] for window in self.windows], device=self.model.device)
        return self.model.next_logits(newest, self.cache)

    @torch.no_grad()
    def _read(self, row: int) -> None:
        """Put a window's tokens into the cache, except for the newest."""
        before = self.windows[row][:-1]
        if before:
            self.model.transformer(torch.tensor([before], device=self.model.device), self.cache.row(row))
