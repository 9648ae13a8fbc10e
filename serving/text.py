"""A model's tokens as the text that a client sees: whole characters, and nothing from a stop string on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from jojo.text.tokenizer import TextStream, Tokenizer


@dataclass(frozen=True)
class Token:
    """A token that the model wrote."""

    id: int
    offset: int  # characters of the answer before it
    logprob: float = 0.0  # nats, by the model itself: without temperature, penalties and cuts
    top: tuple[tuple[int, float], ...] = ()  # the likeliest tokens at its place: (id, logprob)


@dataclass
class Piece:
    """A part of an answer."""

    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    finish: str | None = None  # why the answer ends here: "stop", "length", or "error"
    error: str = ""  # a sentence

    def add(self, following: Piece) -> None:
        """Append the part that follows."""
        self.text += following.text
        self.tokens += following.tokens
        self.finish, self.error = following.finish, following.error


class StoppedText:
    """Tokens to text. Text that could be the beginning of a stop string is held back until that is decided."""

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str]) -> None:
        self._stream, self._stops = TextStream(tokenizer), stops
        self._held = ""
        self.length = 0  # characters so far, including those held back
        self.stopped = False  # whether a stop string has appeared

    def push(self, token: int) -> str:
        """The text that is certain after this token."""
        text = self._stream.push(token)
        self.length += len(text)
        self._held += text
        ends = [end for stop in self._stops if (end := self._held.find(stop)) >= 0]
        self.stopped = bool(ends)
        return self._release(min(ends) if ends else len(self._held) - self._possible())

    def finish(self) -> str:
        """The text that was held back; an unfinished character is left out, as gen.py does."""
        return "" if self.stopped else self._release(len(self._held))

    def _possible(self) -> int:
        """The length of the longest end of the text that begins a stop string."""
        longest = max(map(len, self._stops), default=0)
        lengths = range(min(longest - 1, len(self._held)), 0, -1)
        return next((n for n in lengths if any(stop.startswith(self._held[-n:]) for stop in self._stops)), 0)

    def _release(self, end: int) -> str:
        text, self._held = self._held[:end], self._held[end:]
        return text
