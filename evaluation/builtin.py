"""The built-in tasks: questions with two choices, made from a seed. They need no download.

The templates are in recipes/words/tasks.txt, which explains their format. Questions come as twins: the same two choices
after two contexts, and what is right after one is wrong after the other. So a model that does not read the context scores
exactly 50 %. Both choices have the same number of tokens; so the questions also depend on the vocabulary.

The same task and vocabulary give the same questions on every machine: every random number is from ``random.Random.random()``.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from evaluation.questions import Question
from evaluation.story_tasks import STORY_TASKS, Twins, story_twins
from recipes.story_generator import PRONOUNS
from recipes.word_files import entries, sections
from utils import UserError, one_line

if TYPE_CHECKING:  # it imports NumPy, which evaluate.py --help does not need
    from jojo.text.tokenizer import Tokenizer

Fields = dict[str, str]  # slot -> text, for example {"nameA": "Kate", "he": "she"}

TASKS = {
    "agreement": "a verb or a pronoun fits its subject",
    "name": "a person is named again",
    "negation": "what is so, and what is not",
    "order": "what came first, what came last, and which number is next",
    "copying": "a list or a sentence is said again",
    "recall": "a thing, color or place is named again",
    **STORY_TASKS,
}
QUESTIONS = 600  # 300 pairs of twins
TRIES = 20_000  # twins; far more than a vocabulary needs that has words
GROUPS = ("", "", "animal ", "animal ", "new ")  # of names; the stories do not have the new ones
MOST_PAUSES = 4  # sentences in a {pause}
SLOT = re.compile(r"\{([a-z]+)([AB\d])\}")
ALTERNATIVES = re.compile(r"\[([^|\]]*)\|([^\]]*)\]")
TWIN = {"A": "B", "B": "A"}


def _shuffled(items: Sequence[str], rng: random.Random) -> list[str]:
    """The items in random order; ``rng.shuffle`` may give another order in another Python version."""
    return [item for _, item in sorted((rng.random(), item) for item in items)]


def _words(section: str) -> list[str]:
    """The words of a list: divided by semicolons, or by spaces if it has none."""
    text = " ".join(sections("tasks")[section].split())
    return text.split(" ; ") if ";" in text else text.split()


def _expand(template: str, rng: random.Random) -> str:
    """The template with sentences in place of {start}, {opening} and {pause}."""
    for slot in ("start", "opening"):
        if f"{{{slot}}}" in template:
            template = template.replace(f"{{{slot}}}", _shuffled(entries("tasks", f"{slot}s"), rng)[0])
    if "{pause}" in template:
        pauses = _shuffled(entries("tasks", "pauses"), rng)[: int(rng.random() * (MOST_PAUSES + 1))]
        template = template.replace("{pause}", " ".join(pauses))
    return " ".join(template.split())


def _draw(template: str, rng: random.Random) -> tuple[Fields, Fields]:
    """The text of every slot, for both twins."""
    group = GROUPS[int(rng.random() * len(GROUPS))]
    gender = "girl" if rng.random() < 0.5 else "boy"
    first, second = (PRONOUNS[gender] | {"kid": kid} for kid in ("girl", "boy"))
    if group == "animal ":
        animal = _shuffled(_words("species"), rng)[0]
        first = second = PRONOUNS[gender] | {"kid": animal, "child": animal}
    first, second = (
        fields | {slot.capitalize(): fields[slot].capitalize() for slot in fields} for fields in (first, second)
    )
    slots = sorted(set(SLOT.findall(template)))
    for kind in sorted({kind for kind, _ in slots}):
        person = gender if kind == "name" else kind
        words = _words(f"{group}{person}s" if person in PRONOUNS else f"{person}s")
        if kind == "number":
            skipped = int(rng.random() * (len(words) - 5))
            first |= {f"number{i}": word for i, word in enumerate(words[skipped:], 1)}
            second |= {f"number{i}": word for i, word in enumerate(words[skipped + 1 :], 1)}
            continue
        ends = sorted({more for other, end in slots if other == kind for more in (end, TWIN.get(end, end))})
        drawn = dict(zip(ends, _shuffled(words, rng), strict=False))
        first |= {kind + end: drawn[end] for end in ends}
        second |= {kind + end: drawn[TWIN.get(end, end)] for end in ends}
    return first, second


def _side(template: str, fields: Fields, number: int) -> tuple[str, str]:
    """Context and right choice of a twin, number 0 or 1."""
    text = ALTERNATIVES.sub(lambda match: match[number + 1], template).format_map(fields)
    context, right = text.split(" => ")
    return context, f" {right}"


def twins(task: str) -> Iterator[Twins]:
    """The task's questions, without end. All templates come equally often."""
    rng = random.Random(f"tasks/{task}")
    templates = entries("tasks", task)
    while True:
        for template in _shuffled(templates, rng):
            template = _expand(template, rng)
            sides = [_side(template, fields, number) for number, fields in enumerate(_draw(template, rng))]
            choices = tuple(right for _, right in sides)
            yield Question(sides[0][0], choices, 0), Question(sides[1][0], choices, 1)


def _is_fair(question: Question, tokenizer: Tokenizer) -> bool:
    """Whether the choices have the same number of tokens after the context."""
    return len({len(tokenizer.encode(question.context + choice)) for choice in question.choices}) == 1


def builtin_questions(task: str, tokenizer: Tokenizer, n: int = QUESTIONS) -> list[Question]:
    """The first `n` questions of a task whose choices have equally many tokens in this vocabulary; `n` is even.

    No question is there twice, and one half of the answers is 0. Raises UserError if the vocabulary gives fewer.
    """
    questions: dict[Question, None] = {}
    for pair in islice(story_twins(task) if task in STORY_TASKS else twins(task), TRIES):
        if not any(question in questions for question in pair) and all(_is_fair(q, tokenizer) for q in pair):
            questions |= dict.fromkeys(pair)
        if len(questions) >= n:
            return list(questions)
    raise UserError(
        f"The task '{task}' needs {n} questions whose choices have equally many tokens, but this vocabulary gives "
        f"{len(questions)}; use other tasks."
    )


def chosen_tasks(names: str, tokenizer: Tokenizer) -> dict[str, list[Question]]:
    """The questions of the tasks that `training.evaluate_tasks` names. Raises UserError for an unknown name."""
    chosen = list(TASKS) if names.strip() == "all" else names.replace(",", " ").split()
    if unknown := next((name for name in chosen if name not in TASKS), None):
        known = ", ".join(TASKS)
        raise UserError(
            f"'{one_line(unknown)}' is no built-in task for training.evaluate_tasks; there are: {known}, or all."
        )
    return {name: builtin_questions(name, tokenizer) for name in chosen}
