"""Tests of the CORE metric, against a plain computation and with a folder of three small tasks."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_model import both_architectures, random_model, tiny_config

from evaluation.core import CoreTask, read_core, run_core
from jojo.text.tokenizer import Tokenizer, get_tokenizer
from model import GPT
from utils import UserError

WORDS = ("fox", "hen", "bear", "mouse", "owl", "goat")
TASKS = """icl_tasks:
- {label: animals, dataset_uri: animals.jsonl, num_fewshot: [2], icl_task_type: multiple_choice, continuation_delimiter: "\\nSo: "}
- {label: places, dataset_uri: deep/places.jsonl, num_fewshot: [0], icl_task_type: schema}
- {label: endings, dataset_uri: endings.jsonl, num_fewshot: [1], icl_task_type: language_modeling, continuation_delimiter: " "}
"""


def write_bundle(folder: Path) -> None:
    """A CORE folder of three tasks."""
    (folder / "eval_data" / "deep").mkdir(parents=True)
    (folder / "core.yaml").write_text(TASKS)
    (folder / "eval_meta_data.csv").write_text("Eval Task,Random baseline\nanimals,25\nplaces,50\nendings,0\n")
    animals = [{"query": f"The {w} sat.", "choices": WORDS[i : i + 3], "gold": i % 3} for i, w in enumerate(WORDS[:4])]
    places = [
        {"context_options": [f"The {w} was big", "The mouse was small"], "continuation": "so it hid.", "gold": i % 2}
        for i, w in enumerate(WORDS)
    ]
    endings = [{"context": f" The {w} and the ", "continuation": WORDS[i - 1]} for i, w in enumerate(WORDS)]
    for name, items in (("animals", animals), ("deep/places", places), ("endings", endings)):
        text = "".join(json.dumps(item) + "\n" for item in items)
        (folder / "eval_data" / f"{name}.jsonl").write_text(text)


def losses_of(model: GPT, ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of every id but the first, and the id that the model would have chosen there."""
    with torch.no_grad():
        logits = model(torch.tensor([ids]))[0, :-1, : model.n_vocab]
    return -logits.log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0], logits.argmax(-1)


def plain_accuracy(model: GPT, tokenizer: Tokenizer, task: CoreTask, items: list[dict[str, Any]]) -> float:
    """The accuracy of a task, computed as the paper says it: one text after another, with whole texts as examples."""
    right = 0
    for index, item in enumerate(items):
        others = [i for i in range(len(items)) if i != index]
        shots = [items[i] for i in random.Random(1234 + index).sample(others, task.n_examples)]
        d = task.delimiter
        if task.kind == "language_modeling":
            before = (
                "".join(f"{s['context'].strip()}{d}{s['continuation']}\n\n" for s in shots) + item["context"].strip()
            )
            ids = [tokenizer.eot_id, *tokenizer.encode(before + d + item["continuation"])]
            start = 1 + len(tokenizer.encode((before + d).strip()))
            right += losses_of(model, ids)[1][start - 1 :].tolist() == ids[start:]
            continue
        if task.kind == "schema":
            texts = [f"{context}{d}{item['continuation']}" for context in item["context_options"]]
            ends = [len(tokenizer.encode(f" {item['continuation']}"))] * len(texts)
        else:
            begin = "".join(f"{s['query']}{d}{s['choices'][s['gold']]}\n\n" for s in shots) + f"{item['query']}{d}"
            texts = [begin + choice for choice in item["choices"]]
            ends = [len(tokenizer.encode(text)) - len(tokenizer.encode(begin)) for text in texts]
        means = []
        for text, n in zip(texts, ends, strict=True):
            means.append(losses_of(model, [tokenizer.eot_id, *tokenizer.encode(text)])[0][-n:].mean().item())
        right += means.index(min(means)) == item["gold"]
    return right / len(items)


@both_architectures
def test_accuracies_and_their_centered_mean_are_those_of_a_plain_computation(
    tmp_path: Path, family: dict[str, Any]
) -> None:
    write_bundle(tmp_path)
    tokenizer = get_tokenizer("story")
    shape = tiny_config(vocab_size=tokenizer.padded_vocab_size, block_size=64, **family)
    model = random_model(shape, tokenizer.n_vocab, std=0.2)
    tasks = read_core(tmp_path, None)
    assert [(t.name, t.n_examples, t.delimiter, t.chance) for t in tasks] == [
        ("animals", 2, "\nSo: ", 0.25), ("places", 0, " ", 0.5), ("endings", 1, " ", 0.0),
    ]  # fmt: skip
    found = run_core(model, tokenizer, tasks)
    for task in tasks:
        expected = plain_accuracy(model, tokenizer, task, task.items)
        assert found.accuracies[task.name].value == expected
        assert found.centered[task.name] == pytest.approx((expected - task.chance) / (1 - task.chance))
    assert found.metric == pytest.approx(sum(found.centered.values()) / 3)
    assert found.to_dict()["tasks"]["places"]["accuracy"] == found.accuracies["places"].value


def test_fewer_questions_are_the_first_of_a_fixed_order(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    whole, part = read_core(tmp_path, None)[2], read_core(tmp_path, 2)[2]
    assert part.items == whole.items[:2] and len(whole.items) == 6
    order = [json.loads(line) for line in (tmp_path / "eval_data" / "endings.jsonl").read_text().splitlines()]
    random.Random(1337).shuffle(order)
    assert whole.items == order


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("core.yaml", None, "core.yaml' is missing; download eval_bundle.zip"),
        ("eval_data/endings.jsonl", None, "endings.jsonl' is missing; download eval_bundle.zip"),
        ("core.yaml", "icl_tasks: [", "core.yaml' is not a file of the CORE tasks"),
        ("eval_meta_data.csv", "a,b\n1,2\n", "eval_meta_data.csv' is not a file of the CORE tasks"),
        ("eval_data/animals.jsonl", '{"query": 1}\n', "animals.jsonl' is not a file of the CORE tasks"),
    ],
)
def test_a_bad_folder_is_one_sentence(tmp_path: Path, file: str, content: str | None, message: str) -> None:
    write_bundle(tmp_path)
    (tmp_path / file).unlink() if content is None else (tmp_path / file).write_text(content)
    with pytest.raises(UserError) as error:
        read_core(tmp_path, None)
    assert message in str(error.value) and "\n" not in str(error.value)
