"""Texts that are decoded together get the logits that each would get alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers_model import both_architectures, random_model, tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st

from generation import Sampling, generate
from jojo.kernels.int8 import quantize
from model import GPT
from serving.decoder import Decoder

GREEDY = Sampling(temperature=0)


def alone(model: GPT, prompt: list[int], n: int) -> list[int]:
    """What generate() writes after a prompt, always the likeliest token."""
    return [int(token or 0) for (token,) in generate(model, prompt, max_tokens=n, sampling=GREEDY)]


def advance(decoder: Decoder) -> list[int]:
    """A step: the likeliest token of each text, appended to it."""
    chosen = decoder.step().argmax(-1).tolist()
    for window, token in zip(decoder.windows, chosen, strict=True):
        window.append(token)
    return chosen


@both_architectures
@settings(max_examples=15, deadline=None)
@given(st.data())
def test_texts_that_join_and_leave_at_any_step_are_those_of_generate(
    family: dict[str, Any], data: st.DataObject
) -> None:
    """Also beyond the context, where the window restarts."""
    model = random_model(tiny_config(**family, block_size=8))
    decoder, rows, written = Decoder(model, 4), list[int](), dict[int, tuple[list[int], list[int]]]()
    for _ in range(data.draw(st.integers(5, 30))):
        action = data.draw(st.sampled_from(["join", "leave", "step", "step", "step"]))
        if action == "join" and len(rows) < 4:
            prompt = data.draw(st.lists(st.integers(0, 63), min_size=1, max_size=11))
            decoder.join(prompt)
            rows.append(len(written))
            written[rows[-1]] = (prompt, [])
        elif action == "leave" and rows:
            gap = data.draw(st.integers(0, len(rows) - 1))
            decoder.leave(gap)
            last = rows.pop()
            if gap < len(rows):
                rows[gap] = last
        elif rows:
            for text, token in zip(rows, advance(decoder), strict=True):
                written[text][1].append(token)
    for prompt, tokens in written.values():
        assert tokens == alone(model, prompt, len(tokens))


@both_architectures
def test_logits_equal_those_of_the_whole_text(family: dict[str, Any]) -> None:
    model = random_model(tiny_config(**family))
    texts = [[1], [5, 6, 7, 8, 9], [2, 3, 4]]
    decoder = Decoder(model, 5)
    for text in texts:
        decoder.join(text)
    for row, logits in enumerate(decoder.step()):
        expected = model(torch.tensor([texts[row]]))[0, -1]
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)


@both_architectures
@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_weights_of_16_and_8_bits_give_the_logits_of_the_whole_text(family: dict[str, Any], dtype: str) -> None:
    model = random_model(tiny_config(**family | {"n_embd": 64}))
    model = quantize(model) if dtype == "int8" else model.to(torch.bfloat16)
    decoder = Decoder(model, 3)
    for prompt in ([1, 2, 3], [9], [5, 6]):
        decoder.join(prompt)
    for _ in range(5):
        for logits, window in zip(decoder.step(), decoder.windows, strict=True):
            expected = model.next_logits(torch.tensor([window]))[0]
            torch.testing.assert_close(logits, expected, rtol=0, atol=0.03 * expected.abs().max().item())
            window.append(int(expected.argmax()))


@both_architectures
def test_a_second_answer_to_the_same_prompt_copies_what_was_read(
    family: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_model(tiny_config(**family))
    decoder, reads = Decoder(model, 3), []
    original = decoder._read
    monkeypatch.setattr(decoder, "_read", lambda row: (reads.append(row), original(row)))
    decoder.join([3, 1, 4])
    decoder.join([3, 1, 4])
    assert reads == [0]
    first, second = decoder.step()
    torch.testing.assert_close(first, second, rtol=0, atol=1e-6)
    decoder.windows[0].append(1)
    decoder.windows[1].append(2)
    decoder.join([3, 1, 4])  # the others are further now
    assert reads == [0, 2]
    expected = [model(torch.tensor([text]))[0, -1] for text in ([3, 1, 4, 1], [3, 1, 4, 2], [3, 1, 4])]
    torch.testing.assert_close(decoder.step(), torch.stack(expected), rtol=0, atol=1e-4)
