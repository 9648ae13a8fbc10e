"""evaluation/likelihood.py: the likelihoods of choices are those of a plain loop, and of lm-eval where it is installed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_model import both_architectures, random_model, save_format3, tiny_config

import upload_to_huggingface
from evaluation.choices import run_task
from evaluation.likelihood import choice_likelihoods, encode_choice, target_losses
from evaluation.questions import Question
from generation import load_model
from jojo.text.tokenizer import Tokenizer, get_tokenizer
from model import GPT
from utils import UserError

QUESTIONS = [
    Question("The cat sat on", (" the mat.", " the old wooden bench.", " a"), 0),
    Question("The cat sat on ", ("the mat.", "mats"), 1),  # the space belongs to the choice
    Question("The cat sat on \n ", ("the mat.", "mats"), 1),
    Question("", ("Once upon a time", "Time"), 0),
    Question(" \n", ("Once", "Twice"), 0),
    Question("He was hap", ("py to see her.", "less and sad."), 0),  # "happy" has fewer tokens than "hap" and "py"
    Question("naïve — 東京", (" café", "都 😀"), 1),  # characters of several tokens
    Question("word " * 60 + "the", (" end", " next " * 12), 0),  # longer than the context
]


@pytest.fixture
def tokenizer() -> Tokenizer:
    return get_tokenizer("story")


def model_for(tokenizer: Tokenizer, **changes: Any) -> GPT:
    return random_model(tiny_config(vocab_size=tokenizer.padded_vocab_size, **changes), tokenizer.n_vocab, std=0.2)


def plain_log_likelihood(model: GPT, tokenizer: Tokenizer, context: str, choice: str) -> float:
    """One sequence at a time, in float64."""
    before = tokenizer.encode(context.rstrip())
    after = tokenizer.encode(context + choice)[len(before) :]
    window = torch.tensor([tokenizer.eot_id, *before, *after][-model.config.block_size - 1 :])
    with torch.no_grad():
        log_p = model(window[None, :-1])[0, :, : model.n_vocab].double().log_softmax(-1)
    return float(log_p.gather(1, window[1:, None])[-len(after) :].sum())


@both_architectures
def test_likelihoods_are_those_of_a_plain_loop(family: dict[str, Any], tokenizer: Tokenizer) -> None:
    model = model_for(tokenizer, **family)
    found = choice_likelihoods(model, tokenizer, QUESTIONS)
    for question, choices in zip(QUESTIONS, found, strict=True):
        for text, choice in zip(question.choices, choices, strict=True):
            expected = plain_log_likelihood(model, tokenizer, question.context, text)
            assert choice.log_likelihood == pytest.approx(expected, rel=1e-6)
            assert choice.n_bytes == len(text.encode())


def test_the_end_of_text_stands_before_the_context(tokenizer: Tokenizer) -> None:
    assert encode_choice(tokenizer, "", "Once") == ([tokenizer.eot_id], tokenizer.encode("Once"))


def test_control_tokens_in_a_text_are_ordinary_text(tokenizer: Tokenizer) -> None:
    before, ids = encode_choice(tokenizer, "<|im_start|>user", "<|endoftext|>")
    assert max(before[1:] + ids) < tokenizer.eot_id


def test_the_size_of_a_batch_changes_nothing(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_for(tokenizer)
    together = choice_likelihoods(model, tokenizer, QUESTIONS)
    monkeypatch.setattr("evaluation.likelihood.BATCH_TOKENS", 1)
    monkeypatch.setattr("evaluation.likelihood.LOGIT_ROWS", 3)
    for a, b in zip(together, choice_likelihoods(model, tokenizer, QUESTIONS), strict=True):
        assert [x.log_likelihood for x in a] == pytest.approx([x.log_likelihood for x in b], rel=1e-6)


def test_int8_weights_are_close(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = save_format3(model_for(tokenizer), tmp_path / "x.pt", tokenizer)
    exact, rounded = (
        choice_likelihoods(*load_model(path, dtype=dtype)[:2], QUESTIONS) for dtype in ("float32", "int8")
    )
    for a, b in zip(exact, rounded, strict=True):
        assert [x.log_likelihood for x in a] == pytest.approx([x.log_likelihood for x in b], rel=0.05)
        assert a != b


@pytest.mark.parametrize(
    ("question", "said"),
    [
        (
            Question("x", (" a" * 40, " b"), 0),
            r"Question 2: the choice ' a a.*' has 40 tokens, more than .* 32; shorten it",
        ),
        (Question("See t", ("he", "wo"), 0), "Question 2: the choice 'he' only changes the context's last token; let"),
    ],
)
def test_a_choice_that_cannot_be_scored_is_an_error(question: Question, said: str, tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match=said):
        choice_likelihoods(model_for(tokenizer), tokenizer, [QUESTIONS[0], question])


def test_a_diverged_model_is_an_error(tokenizer: Tokenizer) -> None:
    model = model_for(tokenizer)
    model.transformer.ln_f.weight.data[0] = float("nan")
    with pytest.raises(UserError, match="not finite numbers; use an earlier checkpoint"):
        target_losses(model, torch.zeros(1, 4, dtype=torch.int64), torch.zeros(1, 4, dtype=torch.int64))


if importlib.util.find_spec("lm_eval"):

    @both_architectures
    def test_likelihoods_and_scores_are_those_of_lm_eval(
        family: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: Tokenizer
    ) -> None:
        from lm_eval import simple_evaluate

        monkeypatch.chdir(tmp_path)
        path = save_format3(model_for(tokenizer, **family), tmp_path / "x.pt", tokenizer)
        assert upload_to_huggingface.main([str(path), "--repo-name", "x", "--dataset", "x", "--dry-run"]) == 0
        lines = [json.dumps({"context": q.context, "choices": q.choices, "answer": q.answer}) for q in QUESTIONS]
        Path("q.jsonl").write_text("\n".join(lines))
        task = {
            "task": "local",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"validation": "q.jsonl"}},
            "validation_split": "validation",
            "output_type": "multiple_choice",
            "doc_to_text": "context",
            "doc_to_choice": "choices",
            "doc_to_target": "answer",
            "target_delimiter": "",
            "metric_list": [{"metric": "acc"}, {"metric": "acc_bytes"}],
        }
        model = {
            "pretrained": "hf_model",
            "dtype": "float32",
            "device": "cpu",
            "logits_cache": False,
        }  # docs/evaluation.md
        found = simple_evaluate("hf", model, tasks=[task], log_samples=True)
        result = run_task(*load_model(path)[:2], QUESTIONS)
        for sample in found["samples"]["local"]:
            theirs = [resp[0][0] for resp in sample["resps"]]
            ours = [choice.log_likelihood for choice in result.likelihoods[sample["doc_id"]]]
            assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-5)
        assert found["results"]["local"]["acc,none"] == pytest.approx(result.scores["acc"].value)
        assert found["results"]["local"]["acc_bytes,none"] == pytest.approx(result.scores["acc_norm"].value)
