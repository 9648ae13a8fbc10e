"""Text that is told in pieces, up to a stop string."""

from __future__ import annotations

from helpers_serving import TOKENIZER
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.text import StoppedText

LETTERS = st.text("ab é🎉", max_size=12)


def told(text: str, stops: list[str]) -> tuple[list[str], bool]:
    """The pieces, and whether a stop string ended the text."""
    stream = StoppedText(TOKENIZER, stops)
    pieces = []
    for token in TOKENIZER.encode(text):
        pieces.append(stream.push(token))
        if stream.stopped:
            break
    return [*pieces, stream.finish()], stream.stopped


@settings(max_examples=300, deadline=None)
@given(LETTERS, st.lists(st.text("ab é🎉", min_size=1, max_size=3), max_size=4))
def test_the_pieces_are_the_text_before_the_first_stop_string(text: str, stops: list[str]) -> None:
    """It is the one that is complete first, as far as whole tokens tell."""
    pieces, stopped = told(text, stops)
    starts, ids = [], TOKENIZER.encode(text)
    for end in range(1, len(ids) + 1):
        so_far = TOKENIZER.decode(ids[:end]).rstrip("\ufffd")
        if starts := [so_far.find(stop) for stop in stops if stop in so_far]:
            break
    assert stopped == bool(starts)
    assert "".join(pieces) == text[: min(starts, default=len(text))]


def test_text_is_told_as_soon_as_no_stop_string_can_begin_in_it() -> None:
    tokens = [TOKENIZER.encode(piece)[0] for piece in ("a", "b", "c")]
    stream = StoppedText(TOKENIZER, ["bd"])
    assert [stream.push(token) for token in tokens] == ["a", "", "bc"]
    assert stream.length == 3


def test_an_unfinished_character_is_left_out() -> None:
    ids = TOKENIZER.encode("🎉")
    assert len(ids) > 1
    stream = StoppedText(TOKENIZER, [])
    assert [stream.push(token) for token in ids[:-1]] == [""] * (len(ids) - 1)
    assert stream.finish() == ""
