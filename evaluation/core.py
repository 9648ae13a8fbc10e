"""The CORE metric of DataComp-LM (Li et al. 2024): 22 tasks with examples in the prompt, and the mean of their centered accuracies.

The data is a folder that you download once (docs/evaluation.md says from where):

    core.yaml            the tasks: name, file, kind, number of examples
    eval_meta_data.csv   the accuracy of guessing, in percent
    eval_data/           the questions, as JSONL

Prompts, examples and scores are those of nanochat's core_eval.py, so that numbers can be compared. A centered accuracy is
(accuracy - chance) / (1 - chance): 0 is guessing, 1 is always right.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.choices import credit
from evaluation.intervals import Estimate, wilson
from evaluation.likelihood import scored
from jojo.text.tokenizer import Tokenizer
from model import GPT
from utils import UserError, one_line

SHUFFLE_SEED = 1337  # nanochat's: which questions --items keeps
EXAMPLE_SEED = 1234  # nanochat's: which examples a question gets
Item = dict[str, Any]  # a question, as its file has it
Prompts = list[tuple[list[int], int]]  # ids, and how many of them at the end are scored


@dataclass(frozen=True)
class CoreTask:
    """One of the tasks."""

    name: str
    kind: str  # of KINDS
    n_examples: int
    delimiter: str  # between a question and its answer
    chance: float
    items: list[Item]


@dataclass(frozen=True)
class CoreResult:
    """What a model scores: by task, its accuracy, that of guessing, and its centered accuracy."""

    accuracies: dict[str, Estimate]
    chances: dict[str, float]
    centered: dict[str, float]

    @property
    def metric(self) -> float:
        """The mean of the centered accuracies."""
        return sum(self.centered.values()) / len(self.centered)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, unrounded."""
        tasks = {
            name: {"accuracy": accuracy.value, "interval": accuracy.interval, "centered": self.centered[name]}
            for name, accuracy in self.accuracies.items()
        }
        return {"metric": self.metric, "tasks": tasks}


def read_core(folder: Path, most: int | None) -> list[CoreTask]:
    """The tasks in a folder, with at most `most` questions each. Raises UserError if a file is missing or malformed."""
    import yaml  # type: ignore[import-untyped]

    path = folder / "core.yaml"
    try:
        described = yaml.safe_load(path.read_text(encoding="utf-8"))["icl_tasks"]
        path = folder / "eval_meta_data.csv"
        with open(path, encoding="utf-8", newline="") as file:
            chances = {row["Eval Task"]: float(row["Random baseline"]) / 100 for row in csv.DictReader(file)}
        tasks = []
        for task in described:
            path = folder / "eval_data" / task["dataset_uri"]
            items = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            random.Random(SHUFFLE_SEED).shuffle(items)
            kind, delimiter = task["icl_task_type"], task.get("continuation_delimiter", " ")
            name, n_examples = task["label"], task["num_fewshot"][0]
            tasks.append(CoreTask(name, kind, n_examples, delimiter, chances[name], items[:most]))
            KINDS[kind](tasks[-1], items[0], "")  # raises an error if keys are missing
        return tasks
    except FileNotFoundError:
        where = "download eval_bundle.zip (docs/evaluation.md says from where) and name its unpacked folder"
        raise UserError(f"'{path}' is missing; {where} with --core.") from None
    except (OSError, ValueError, KeyError, TypeError, IndexError, yaml.YAMLError) as error:
        raise UserError(f"'{path}' is not a file of the CORE tasks ({one_line(repr(error))}).") from None


def choice_texts(task: CoreTask, item: Item, examples: str) -> list[str]:
    """One prompt for each choice: they begin alike."""
    return [f"{examples}{item['query']}{task.delimiter}{choice}" for choice in item["choices"]]


def schema_texts(task: CoreTask, item: Item, examples: str) -> list[str]:
    """One prompt for each context: they end alike."""
    return [f"{examples}{context}{task.delimiter}{item['continuation']}" for context in item["context_options"]]


def language_texts(task: CoreTask, item: Item, examples: str) -> list[str]:
    """The prompt without the continuation that the model must find, and with it."""
    before = f"{examples}{item['context'].strip()}{task.delimiter}"
    return [before.strip(), before + item["continuation"]]


KINDS: dict[str, Callable[[CoreTask, Item, str], list[str]]] = {
    "multiple_choice": choice_texts,
    "schema": schema_texts,
    "language_modeling": language_texts,
}


def example_text(task: CoreTask, item: Item) -> str:
    """A question with its right answer."""
    texts = KINDS[task.kind](task, item, "")
    return texts[item.get("gold", 1)] + "\n\n"


def prompts(task: CoreTask, index: int, tokenizer: Tokenizer) -> Prompts:
    """What the model reads for a question: one sequence for each answer, or the one that it must find."""
    others = [i for i in range(len(task.items)) if i != index]
    chosen = random.Random(EXAMPLE_SEED + index).sample(others, min(task.n_examples, len(others)))
    examples = "".join(example_text(task, task.items[i]) for i in chosen)
    texts = KINDS[task.kind](task, task.items[index], examples)
    sequences = [[tokenizer.eot_id, *tokenizer.encode(text)] for text in texts]
    if task.kind == "schema":
        n_equal = equal_ids([ids[::-1] for ids in sequences])
        return [(ids, n_equal) for ids in sequences]
    start = equal_ids(sequences)
    return [(ids, len(ids) - start) for ids in (sequences[1:] if task.kind == "language_modeling" else sequences)]


def equal_ids(sequences: Sequence[Sequence[int]]) -> int:
    """How many ids all sequences begin with."""
    columns = zip(*sequences, strict=False)
    return next((n for n, ids in enumerate(columns) if len(set(ids)) > 1), min(map(len, sequences)))


def right(model: GPT, task: CoreTask, index: int, tokenizer: Tokenizer) -> float:
    """1 if the model answers a question, else 0; a part of 1 if it finds several answers equally good."""
    longest = model.config.block_size
    sequences = [(ids, min(max(n, 1), longest)) for ids, n in prompts(task, index, tokenizer)]
    scores = scored(model, sequences)
    if task.kind == "language_modeling":
        return float(scores[0].is_likeliest)
    means = [score.log_likelihood / n for score, (_, n) in zip(scores, sequences, strict=True)]
    return credit(means, task.items[index]["gold"])


def run_core(model: GPT, tokenizer: Tokenizer, tasks: Sequence[CoreTask]) -> CoreResult:
    """What a model scores in the tasks. The model must be in eval mode."""
    from tqdm import tqdm

    accuracies, centered = {}, {}
    for task in tasks:
        n = len(task.items)
        shown = tqdm(range(n), desc=f"CORE {task.name}", unit=" questions", leave=False, disable=None)
        accuracy = sum(right(model, task, index, tokenizer) for index in shown) / n
        accuracies[task.name] = wilson(accuracy, n)
        centered[task.name] = (accuracy - task.chance) / (1 - task.chance)
    return CoreResult(accuracies, {task.name: task.chance for task in tasks}, centered)
