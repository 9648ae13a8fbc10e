"""Which tokens of a conversation are targets with data.predict "assistant".

    <|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\nHello!<|im_end|>\\n<|endoftext|>
                                                          ^^^^^^^^^^^^^^^^

The targets are what the assistant says and the <|im_end|> after it: all that generation has to produce. They are found by the
control tokens in the ids. Text never becomes a control token, so no text can pretend to be a turn of the assistant. If a
document is not a conversation, all its tokens are targets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jojo.text.token_cache import TokenCache
from jojo.text.tokenizer import IM_END, Tokenizer


@dataclass(frozen=True)
class AssistantTargets:
    """The ids that mark an assistant's turn."""

    im_start: int
    im_end: int
    header: tuple[int, ...]  # "assistant" and a new line, after <|im_start|>

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> AssistantTargets:
        """The ids in this tokenizer. Raises UserError if it has no chat tokens."""
        start, *header = tokenizer.open_turn("assistant")
        return cls(start, tokenizer.special_tokens[IM_END], tuple(header))

    def mask(self, ids: np.ndarray) -> np.ndarray:
        """Which tokens are targets, for a document's ids, or the first n of them: bool of the same length."""
        starts, answers = self.turns(ids)
        if not len(starts) or starts[0] != 0:
            return np.ones(len(ids), bool)
        predicted = np.zeros(len(ids), bool)
        ends = np.flatnonzero(ids == self.im_end)
        for start, following, answer in zip(starts, [*starts[1:], len(ids)], answers, strict=True):
            if answer:
                first = start + 1 + len(self.header)
                at = np.searchsorted(ends, first)
                last = ends[at] + 1 if at < len(ends) else len(ids)
                predicted[first : min(last, following)] = True
        return predicted

    def turns(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where turns begin, and whether each is the assistant's."""
        starts = np.flatnonzero(ids == self.im_start)
        headers = (tuple(ids[start + 1 : start + 1 + len(self.header)].tolist()) for start in starts)
        return starts, np.array([header == self.header for header in headers], bool)


def roles_in(cache: TokenCache, tokenizer: Tokenizer) -> list[str]:
    """The roles at the beginning of a cache, each once; [] if it holds no conversations."""
    ids = cache.tokens(0, min(cache.n_tokens, 10_000))
    turns = np.split(ids, AssistantTargets.of(tokenizer).turns(ids)[0])[1:]
    lines = (tokenizer.decode(turn[:64].tolist()).partition("\n") for turn in turns)
    return sorted({role for role, newline, _ in lines if newline})
