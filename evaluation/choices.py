"""Choice tasks: for how many questions does a model find the right choice the likeliest?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.intervals import Estimate, wilson
from evaluation.likelihood import Likelihood, choice_likelihoods
from evaluation.questions import Question
from jojo.text.tokenizer import Tokenizer
from model import GPT

SAME = 1e-6  # scores that differ less, relative to their size, are a tie: float32 cannot tell which is larger

SCORES: dict[str, Callable[[Likelihood], float]] = {  # the choice with the largest score is the model's answer
    "acc": lambda choice: choice.log_likelihood,
    "acc_norm_token": lambda choice: choice.log_likelihood / choice.n_tokens,
    "acc_norm": lambda choice: choice.log_likelihood / choice.n_bytes,
}


@dataclass(frozen=True)
class TaskResult:
    """What a model scores in a task."""

    likelihoods: list[tuple[Likelihood, ...]]  # of every choice of every question
    chance: float  # what guessing scores
    scores: dict[str, Estimate]  # the names are those of SCORES

    def to_dict(self) -> dict[str, Any]:
        """Plain values, unrounded."""
        values: dict[str, Any] = {"questions": len(self.likelihoods), "chance": self.chance}
        for name, score in self.scores.items():
            values |= {name: score.value, f"{name}_interval": score.interval}
        values["log_likelihoods"] = [[choice.log_likelihood for choice in choices] for choices in self.likelihoods]
        values["tokens"] = [[choice.n_tokens for choice in choices] for choices in self.likelihoods]
        return values


def credit(scores: Sequence[float], answer: int) -> float:
    """1 if the answer has the best score, 1/k if it shares it with k - 1 others, else 0. So equal scores give chance."""
    best = max(scores)
    tied = [number for number, score in enumerate(scores) if math.isclose(score, best, rel_tol=SAME)]
    return 1 / len(tied) if answer in tied else 0.0


def run_task(model: GPT, tokenizer: Tokenizer, questions: Sequence[Question]) -> TaskResult:
    """What a model scores in a task. The model must be in eval mode. No random numbers are used."""
    likelihoods, n = choice_likelihoods(model, tokenizer, questions), len(questions)
    scores = {}
    for name, score in SCORES.items():
        pairs = zip(questions, likelihoods, strict=True)
        right = math.fsum(credit([score(choice) for choice in choices], q.answer) for q, choices in pairs)
        scores[name] = wilson(right / n, n)
    return TaskResult(likelihoods, math.fsum(1 / len(q.choices) for q in questions) / n, scores)
