"""evaluation/standard.py: lm-eval's tasks give the numbers that lm-eval finds for the exported model; errors are one sentence."""

from __future__ import annotations

import importlib.util
import json
import sys
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from helpers_model import both_architectures, random_model, save_format3, tiny_config

import upload_to_huggingface
from evaluation.intervals import RESAMPLES
from evaluation.standard import load_standard, run_standard
from generation import load_model
from jojo.text.tokenizer import Tokenizer, get_tokenizer
from model import GPT
from utils import UserError


class Manager:
    """Stands for lm-eval's TaskManager: it knows three names and finds no data."""

    all_tasks = ("hellaswag", "piqa", "gsm8k")
    error: Exception | None = None

    def load(self, names: list[str]) -> dict[str, Any]:
        if self.error:
            raise self.error
        return {"tasks": {names[0]: SimpleNamespace(OUTPUT_TYPE="generate_until")}}


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> type[Manager]:
    """The manager that is found instead of lm-eval's."""
    config = SimpleNamespace(HF_DATASETS_CACHE="/home/me/datasets")
    modules = {"lm_eval.tasks": SimpleNamespace(TaskManager=Manager), "datasets.config": config}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name.partition(".")[0], ModuleType(name))
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(Manager, "error", None)
    return Manager


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("helaswag", None, r"'helaswag' is no .* lm-eval \(did you mean 'hellaswag'\?\); correct --tasks\."),
        ("recal", None, r"did you mean 'recall'\?"),
        ("xyz", None, r"no task of lm-eval; correct"),
        (
            "piqa",
            ConnectionError("Couldn't reach 'baber/piqa' on the Hub (OfflineModeIsEnabled)"),
            "The data of 'piqa' is missing: Couldn't reach 'baber/piqa' .*; run this once where there is network, and copy "
            "its folder '/home/me/datasets' to this machine",
        ),
        ("piqa", AttributeError("no\nload"), r"cannot load the task 'piqa' \(AttributeError: no\?load\); leave it out"),
        ("gsm8k", None, "'gsm8k' asks for free text, but only given answers can be scored; leave it out"),
    ],
)
def test_a_task_that_cannot_be_asked_is_one_sentence(
    name: str, error: Exception | None, said: str, manager: type[Manager]
) -> None:
    manager.error = error
    with pytest.raises(UserError, match=said):
        load_standard([name], ["recall"])


def test_without_lm_eval_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "lm_eval.tasks", raising=False)
    with pytest.raises(UserError, match=r"'recal' is no file .* 'recall'\?\); .* pip install -r requirements-eval.txt"):
        load_standard(["recal"], ["recall"])


CONTEXTS = [f"The {word} went" for word in ("fox", "hen", "bear", "mouse", "owl", "goat", "dog", "cat", "cow", "pig")]
CHOICES = [[" to the old well.", " home", " up the hill"], [" away ", " in and out"]]
METRICS = {
    "multiple_choice": ["acc", "acc_norm"],
    "loglikelihood": ["perplexity", "acc"],
    "loglikelihood_rolling": ["word_perplexity", "bits_per_byte"],
}


def write_tasks(model: GPT, tokenizer: Tokenizer) -> None:
    """One task of each kind in the folder "tasks", and a group of the first two; half of the answers are the likeliest ones."""
    docs = []
    for number, context in enumerate(CONTEXTS):
        with torch.no_grad():
            likeliest = model(torch.tensor([[tokenizer.eot_id, *tokenizer.encode(context)]]))[0, -1, : model.n_vocab]
        end = tokenizer.decode([int(likeliest[: tokenizer.eot_id].argmax())]) if number % 2 else " away"
        choices, text = CHOICES[number % 2], f"{context} to the hill and back. " * number
        docs.append({"context": context, "choices": choices, "answer": number % 2, "end": end, "text": text})
    Path("q.jsonl").write_text("\n".join(json.dumps(doc) for doc in docs))
    Path("tasks").mkdir()
    for kind, names in METRICS.items():
        task = {
            "task": f"local_{kind}",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"validation": "q.jsonl"}},
            "validation_split": "validation",
            "output_type": kind,
            "doc_to_text": "" if kind == "loglikelihood_rolling" else "context",
            "doc_to_target": {"multiple_choice": "answer", "loglikelihood": "{{end}}"}.get(kind, "{{text}}"),
            "target_delimiter": "",
            "metric_list": [{"metric": name} for name in names],
        }
        choice = {"doc_to_choice": "choices"} if kind == "multiple_choice" else {}
        Path(f"tasks/{kind}.yaml").write_text(json.dumps(task | choice))  # JSON is YAML
    members = ["local_multiple_choice", "local_loglikelihood"]
    mean = {"metric": "acc", "aggregation": "mean", "weight_by_size": True}
    Path("tasks/group.yaml").write_text(json.dumps({"group": "both", "task": members, "aggregate_metric_list": [mean]}))


if importlib.util.find_spec("lm_eval"):

    @both_architectures
    def test_the_numbers_are_those_of_lm_eval_on_the_exported_model(
        family: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import lm_eval.tasks

        monkeypatch.chdir(tmp_path)
        tokenizer = get_tokenizer("story")
        config = tiny_config(vocab_size=tokenizer.padded_vocab_size, **family)
        path = save_format3(random_model(config, tokenizer.n_vocab, std=0.2), tmp_path / "x.pt", tokenizer)
        assert upload_to_huggingface.main([str(path), "--repo-name", "x", "--dataset", "x", "--dry-run"]) == 0
        model = load_model(path)[0]
        write_tasks(model, tokenizer)
        local = partial(
            lm_eval.tasks.TaskManager, include_path="tasks", include_defaults=False
        )  # those of lm-eval take 10 s
        monkeypatch.setattr(lm_eval.tasks, "TaskManager", local)

        for name, begins, questions in (("both", True, 9), ("local_loglikelihood_rolling", False, None)):
            ours = run_standard(model, tokenizer, load_standard([name], []), questions)
            arguments = {"pretrained": "hf_model", "dtype": "float32", "device": "cpu", "logits_cache": False}
            found = lm_eval.simple_evaluate(
                "hf", arguments | {"add_bos_token": begins}, tasks=[name], limit=questions, task_manager=local(),
                bootstrap_iters=RESAMPLES,
            )  # fmt: skip
            assert ours.keys() == found["results"].keys()
            for task, result in ours.items():
                theirs = found["results"][task]
                assert result.n_questions == theirs["sample_len"]
                assert len(result.metrics) == sum("," in key for key in theirs) / 2 > 0
                for metric, (value, error) in result.metrics.items():
                    assert value == pytest.approx(theirs[f"{metric},none"], rel=1e-5)
                    expected = theirs[f"{metric}_stderr,none"]
                    assert error == (None if expected == "N/A" else pytest.approx(expected, rel=1e-5))
            if name == "both":
                assert ours["both"].n_questions == 18 and 0 < ours["local_loglikelihood"].metrics["acc"][0] < 1

    def test_an_answer_longer_than_the_context_is_an_error() -> None:
        from lm_eval.api.instance import Instance

        from evaluation.standard import lm_model

        tokenizer = get_tokenizer("story")
        lm = lm_model(random_model(tiny_config(vocab_size=tokenizer.padded_vocab_size), tokenizer.n_vocab), tokenizer)
        for context, answer, n in (("x", " a" * 40, 40), ("The h", "en", 0)):
            request = Instance("loglikelihood", {}, (context, answer), 0)
            with pytest.raises(UserError, match=f"has {n} tokens of its own, and the model can score 1 to 32; leave"):
                lm.loglikelihood([request])
        with pytest.raises(UserError, match="asks for free text"):
            lm.generate_until([])
