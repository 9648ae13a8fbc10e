"""Questions from new stories: the built-in generator tells them with a seed that training never uses.

A story is told twice, with one thing changed: another friend, another thing, or a boy instead of a girl. Where the two texts
differ, each is the twin of the other. Who learned from the built-in stories knows their sentences, but not these stories.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from itertools import count, tee

from evaluation.questions import Question
from recipes.story_generator import PRONOUNS, Plot, Telling, chooser, plots, tell

FEWEST_WORDS = 80  # before a question; shorter beginnings are also those of stories that training has
SHORTEST = 4  # letters of a thing; shorter words may be articles
SEED = 1  # the sample that is trained on has 0
WORD = re.compile(r"[A-Za-z]+|[^A-Za-z\s]")
GENDERED = {word for words in PRONOUNS.values() for word in words.values()} | {"herself", "himself"}

Twins = tuple[Question, Question]

STORY_TASKS = {
    "story_pronoun": "the hero of a new story is she or he",
    "story_friend": "a friend of the hero is named again",
    "story_thing": "a thing of the story is named again",
    "story_who": "the one of two people who was not named last",
}


def what_changes(task: str, plot: Plot, rng: random.Random) -> str:
    """What is told otherwise in the twin, as `tell` names it; "" if the plot does not have it."""
    if task == "story_pronoun":
        return "gender"
    roles, tables = [role for role, _ in plot.cast if role != "hero"], [f"table {n}" for n in range(len(plot.tables))]
    choices = roles if task == "story_friend" else tables
    return chooser(rng)(choices) if choices else ""


def is_asked(task: str, before: str, word: str, other: str) -> bool:
    """Whether a word of a story, at which the twin has the other one, suits the task."""
    if task == "story_pronoun":
        return {word, other} <= GENDERED
    named = [re.search(rf"\b{one}\b", before) is not None for one in (word, other)]
    if {word, other} & GENDERED or named != [True, False]:
        return False
    return word[0].isupper() if task == "story_friend" else word.islower() and len(word) >= SHORTEST


def told_twice(task: str, first: str, second: str, rng: random.Random) -> Twins | None:
    """A pair of twins from two texts that differ in some words; None if they have no place that suits."""
    one, two = (list(WORD.finditer(text)) for text in (first, second))
    if len(one) != len(two):
        return None
    different = [n for n, (a, b) in enumerate(zip(one, two, strict=True)) if a[0] != b[0]]
    suitable = []
    for n in different[1:]:  # the first one cannot be known
        begins = [text[: match[n].start()] for text, match in ((first, one), (second, two))]
        words = one[n][0], two[n][0]
        if len(begins[0].split()) < FEWEST_WORDS:
            continue
        asked = (is_asked(task, *sides) for sides in zip(begins, words, reversed(words), strict=True))
        if all(begin.endswith(" ") for begin in begins) and all(asked):
            suitable.append((begins, words))
    if not suitable:
        return None
    begins, words = chooser(rng)(suitable)
    choices = f" {words[0]}", f" {words[1]}"
    return Question(begins[0][:-1], choices, 0), Question(begins[1][:-1], choices, 1)


def two_people(telling: Telling, roles: list[str], rng: random.Random) -> Twins | None:
    """A story cut before one of two people is named, and before the other one is; each time the other one was named last."""
    people = [name for name in dict.fromkeys(telling.fields[role] for role in roles) if " " not in name]
    if len(people) < 2:
        return None
    choose = chooser(rng)
    chosen = choose(people)
    pair = chosen, choose([name for name in people if name != chosen])
    cuts = []
    for name in pair:
        places = [match.start() - 1 for match in re.finditer(rf"(?<= ){name}\b", telling.text)]
        begins = [telling.text[:place] for place in places]
        (other,) = set(pair) - {name}
        known = [b for b in begins if len(b.split()) >= FEWEST_WORDS and 0 <= b.rfind(name) < b.rfind(other)]
        if not known:
            return None
        cuts.append(choose(known))
    choices = f" {pair[0]}", f" {pair[1]}"
    return Question(cuts[0], choices, 0), Question(cuts[1], choices, 1)


def story_twins(task: str) -> Iterator[Twins]:
    """The task's questions, without end. A process makes them only once: each evaluation asks the same ones."""
    _made[task], twins = tee(_made.get(task) or _story_twins(task))
    return twins


_made: dict[str, Iterator[Twins]] = {}


def _story_twins(task: str) -> Iterator[Twins]:
    rng, by_name = random.Random(f"tasks/{task}"), {plot.name: plot for plot in plots()}
    for index in count():
        telling = tell(index, SEED)
        plot = by_name[telling.plot]
        if task == "story_who":
            found = two_people(telling, [role for role, _ in plot.cast], rng)
        else:
            changed = what_changes(task, plot, rng)
            found = told_twice(task, telling.text, tell(index, SEED, changed).text, rng) if changed else None
        if found:
            yield found
