"""evaluation/choices.py: what counts as right, and what guessing scores."""

from __future__ import annotations

import math

import pytest
from helpers_model import tiny_config, unigram_model

from evaluation.choices import credit, run_task
from evaluation.questions import Question
from jojo.text.tokenizer import Tokenizer, get_tokenizer
from model import GPT


@pytest.mark.parametrize(
    ("scores", "answer", "expected"),
    [
        ([-1, -2], 0, 1),
        ([-1, -2], 1, 0),
        ([-1, -1], 0, 0.5),
        ([-3, -1, -1], 2, 0.5),
        ([-3, -1, -1], 0, 0),
        ([-1, -1, -1, -1], 3, 0.25),
        ([-100.0, -100.00001], 1, 0.5),  # rounding in float32
        ([-100.0, -100.01], 1, 0),
    ],
)
def test_a_tie_counts_in_part(scores: list[float], answer: int, expected: float) -> None:
    assert credit(scores, answer) == expected


def model_of(tokenizer: Tokenizer, logits: dict[int, float]) -> GPT:
    return unigram_model(tiny_config(vocab_size=tokenizer.padded_vocab_size), logits, tokenizer.n_vocab)


def test_equal_logits_score_chance() -> None:
    tokenizer = get_tokenizer("story")
    questions = [Question("The", (" cat", " dog"), 0)] * 3 + [Question("The", (" cat", " dog", " boy", " a"), 2)]
    result = run_task(model_of(tokenizer, {}), tokenizer, questions)
    assert result.chance == (3 / 2 + 1 / 4) / 4
    assert result.scores["acc"].value == result.scores["acc_norm_token"].value == result.chance


def test_the_three_scores_compare_sums_means_per_token_and_means_per_byte() -> None:
    tokenizer = get_tokenizer("story")
    ids = {text: tokenizer.encode(text) for text in (" a", " boy boy")}
    assert [len(i) for i in ids.values()] == [1, 2]
    (a,), (boy, _) = ids.values()
    model = model_of(tokenizer, {a: 10.0, boy: 9.6})
    total = math.log(math.exp(10) + math.exp(9.6) + tokenizer.n_vocab - 2)
    result = run_task(model, tokenizer, [Question("The", (" a", " boy boy"), 1)])
    (short, long), = result.likelihoods  # fmt: skip
    assert short.log_likelihood == pytest.approx(10 - total, rel=1e-4)  # the sum and the mean per token are higher
    assert long.log_likelihood == pytest.approx(2 * (9.6 - total), rel=1e-4)
    assert (short.n_tokens, short.n_bytes, long.n_tokens, long.n_bytes) == (1, 2, 2, 8)
    assert {name: score.value for name, score in result.scores.items()} == {
        "acc": 0, "acc_norm_token": 0, "acc_norm": 1,
    }  # fmt: skip
