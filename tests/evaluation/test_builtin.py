"""The built-in tasks: fair, reproducible, never seen in training, and right by rules that do not know the templates."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from functools import cache

import pytest

from evaluation.builtin import TASKS, builtin_questions
from evaluation.questions import Question
from evaluation.story_tasks import SEED, STORY_TASKS
from jojo.text.tokenizer import Tokenizer, get_tokenizer
from jojo.text.vocabulary import train_vocabulary
from recipes.chitchat import conversation
from recipes.story_generator import stories, tell
from recipes.word_files import sections
from utils import UserError

GIRLS, BOYS = (
    {name for group in ("", "animal ", "new ") for name in sections("tasks")[f"{group}{gender}s"].split()}
    for gender in ("girl", "boy")
)
NUMBERS = sections("tasks")["numbers"].split()
COLORS = "|".join(sections("tasks")["colors"].split())
SHE, HE = {"she", "her", "herself", "girl"}, {"he", "him", "his", "himself", "boy"}
SINGULAR = {"was", "it", "she", "he", "goose"}
NOT = r"\b(not|no|never|Nobody)\b|n't"
# What somebody says or is given in the end, and who that is.
CUES = {
    "I am wet": r"(\w+) fell into",
    "I found it": r"(\w+) found a",
    "I am hungry": r"(\w+) had no",
    "Give it back": r" of (\w+)\.",
    "I can't sleep": r"(\w+) was awake",
    "I am so high": r"(\w+) climbed",
    "Nobody was in": r"(\w+) went out",
}

Rule = Callable[[str, list[str]], object]  # of a context and the words of the choices: the right word


@cache
def tokenizer(name: str) -> Tokenizer:
    """The tokenizer of this name, or with a vocabulary of so many tokens."""
    return (
        Tokenizer(vocabulary=train_vocabulary(list(stories(200)), int(name))) if name.isdigit() else get_tokenizer(name)
    )


@cache
def all_stories() -> tuple[str, str]:
    """The new stories that questions may come from, and the sample that is trained on, each after a zero."""
    return "\0".join(tell(index, SEED).text for index in range(9000)), "\0" + "\0".join(stories(20_000))


@cache
def questions(task: str, name: str = "story") -> list[Question]:
    return builtin_questions(task, tokenizer(name))


# --- rules that answer the questions ------------------------------------------------------------------------------------


def agreement(context: str, choices: list[str]) -> object:
    """Looks for the first name, or for the first noun of the last sentence and for words like "two"."""
    last = re.split(r"[.] ", context)[-1]
    if set(choices) & SHE and set(choices) & HE:
        people = [word for word in re.findall(r"\w+", context) if word in GIRLS | BOYS]
        return next(word for word in choices if word in (SHE if people[0] in GIRLS else HE))
    if "was" in choices:
        noun = re.match(rf"(?i)(?:One day, )?(?:the|his|her) (?:(?:{COLORS}) )?(\w+)", last)
        assert noun, context
        plural = noun[1].endswith("s")
    else:
        plural = bool(re.search(r"\b(two|three|some) |[A-Z]\w+ and [A-Z]\w+ (ran|went)", context))
    (one,) = (word for word in choices if word in SINGULAR or f"{word}s" in choices)
    return next(word for word in choices if (word == one) != plural)


def name(context: str, choices: list[str]) -> object:
    """Looks for the only name, for who is called by name, for whose turn it is, and then for a cue."""
    inside = [word for word in choices if re.search(rf"\b{word}\b", context)]
    if len(inside) == 1:
        return inside[0]
    *earlier, quote = [match[1] for match in re.finditer(r'"([^"]*)"', context)] or [""]
    called = [word for word in choices if re.search(rf"\b{word}\b", quote)]
    if called:
        return next(word for word in choices if word not in called)
    if earlier and f'"{earlier[-1]}" "{quote}"' in context:
        return next(word for word in choices if word in earlier[-1])
    if turn := re.search(r'(?:asked|said) (\w+)\. "[^"]*" \w+$', context):
        return next(word for word in choices if word != turn[1])
    if given := re.search(r"They gave the (\w+) to$", context):
        return re.search(rf"(?i)the {given[1]} was for (\w+)", context)[1]  # type: ignore[index]
    (cue,) = (cue for cue in CUES if cue in context)
    return re.findall(CUES[cue], context)[-1]


def negation(context: str, choices: list[str]) -> object:
    """Takes the choice that stands in a part of a sentence without a negation."""
    for plain, negated in (("happy", "lonely"), ("bed", "play"), ("everything", "nothing")):
        if plain in choices:
            return negated if re.search(NOT, context) else plain
    parts = re.split(r'[.] |, "?but |, it ', context)
    (right,) = {c for c in choices for part in parts if re.search(rf"\b{c}\b", part) and not re.search(NOT, part)}
    return right


def order(context: str, choices: list[str]) -> object:
    """Sorts the choices by time, and reads whether the first or the last is asked for."""
    if choices[0] in NUMBERS:
        before = re.search(r"had (\w+)", context) if "one more" in context else None
        last = before[1] if before else [word for word in re.findall(r"\w+", context) if word in NUMBERS][-1]
        return NUMBERS[NUMBERS.index(last) + 1]
    if faster := re.search(r"(\w+) was faster", context):
        return faster[1]
    first, second = sorted(choices, key=lambda word: [m.start() for m in re.finditer(rf"\b{word}\b", context)][-1])
    if re.search(r" after (he|she) saw| after the \w+ did|slower|Before|came last, and", context):
        first, second = second, first
    return second if re.search(r"\b(last|second)\b", re.split(r'[.] "?', context)[-1]) else first


def copying(context: str, choices: list[str]) -> object:
    """Finds the longest end of the context that occurs earlier, and says what followed there."""
    words = [word.strip('.,!?:"') for word in context.split()]
    for length in range(4, 0, -1):
        end = words[-length:]
        places = [i for i in range(len(words) - length) if words[i : i + length] == end]
        following = {words[i + length] for i in places} & set(choices)
        if following:
            (right,) = following
            return right
    return None


def recall(context: str, choices: list[str]) -> object:
    """Takes the choice in the part of a sentence that shares most words with the end of the context."""
    inside = [choice for choice in choices if re.search(rf"\b{choice}\b", context)]
    if len(inside) == 1:
        return inside[0]
    parts = [set(re.findall(r"\w+", part)) for part in re.split(r"[.,] | and ", context)]
    end = set(re.findall(r"\w+", re.split(r'[.] "?(?=[A-Z])', context)[-1]))
    return max(choices, key=lambda choice: max(len(part & end) for part in parts if choice in part))


def story_pronoun(context: str, choices: list[str]) -> object:
    """Looks for the first name, or for the first word that is for girls or boys only."""
    known = next(word for word in re.findall(r"\w+", context) if word in GIRLS | BOYS)
    return next(word for word in choices if word in (SHE if known in GIRLS | SHE else HE))


def story_who(context: str, choices: list[str]) -> object:
    """Takes the one who was not named last."""
    return min(choices, key=context.rfind)


def story_recall(context: str, choices: list[str]) -> object:
    """Takes the only choice that was there before."""
    (right,) = (choice for choice in choices if re.search(rf"\b{choice}\b", context))
    return right


RULES: dict[str, Rule] = {
    "agreement": agreement,
    "name": name,
    "negation": negation,
    "order": order,
    "copying": copying,
    "recall": recall,
    "story_pronoun": story_pronoun,
    "story_friend": story_recall,
    "story_who": story_who,
    "story_thing": story_recall,
}


@pytest.mark.parametrize("task", TASKS)
def test_the_right_answers_are_right(task: str) -> None:
    for question in questions(task, "gpt2") + questions(task):
        choices = [choice.split()[-1] for choice in question.choices]
        assert RULES[task](question.context, choices) == choices[question.answer], question


# --- fair, reproducible, unseen -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("vocabulary", ["gpt2", "story", "chat", "256", "600"])
@pytest.mark.parametrize("task", TASKS)
def test_twins_have_the_same_choices_of_equal_length(task: str, vocabulary: str) -> None:
    """So a model that looks only at the choices, whatever it thinks of them, is right in one half."""
    found, encode = questions(task, vocabulary), tokenizer(vocabulary).encode
    assert len(found) == len({(question.context, question.choices) for question in found}) == 600
    for first, second in zip(found[::2], found[1::2], strict=True):
        assert first.choices == second.choices and (first.answer, second.answer) == (0, 1)
    for question in found:
        context = encode(question.context)
        one, other = (encode(question.context + choice) for choice in question.choices)
        assert one[: len(context)] == other[: len(context)] == context  # the choices begin with a token of their own
        assert len(one) == len(other)


def test_the_same_questions_on_every_machine() -> None:
    """Compares with recorded hashes."""
    hashes = {
        "b9dbb8ef5a5af337eef6ec60e78f0ce0c83064172abf2fd29377b961a2232a1e": TASKS.keys() - STORY_TASKS,
        "b762a1ddacdba98c04fd29b2b7dbf426db946c7ef1e87b7a4b0f7d0fce8ece33": STORY_TASKS.keys(),
    }
    for expected, tasks in hashes.items():
        text = "".join(f"{question}\0" for task in TASKS if task in tasks for question in questions(task)).encode()
        assert hashlib.sha256(text).hexdigest() == expected


def test_fewer_questions_are_the_first_ones() -> None:
    assert builtin_questions("name", tokenizer("gpt2"), 30) == questions("name", "gpt2")[:30]


def test_a_vocabulary_without_enough_questions() -> None:
    with pytest.raises(UserError, match="The task 'order' needs 1000000 questions"):
        builtin_questions("order", tokenizer("story"), 10**6)


def beginnings(text: str) -> Iterator[str]:
    """Every sentence of a text, and every part of it from its first word on."""
    for sentence in re.split(r'(?<=[.!?]) |(?<=[.!?]") |\n+', text):
        words = sentence.split()
        yield from (" ".join(words[:count]) for count in range(5, len(words) + 1))


def test_training_never_sees_the_sentences() -> None:
    """Compares sentences of five words or more with stories and conversations, the last one as far as it goes."""
    seen = {part for story in stories(3000) for part in beginnings(story)}
    for index in range(3000):
        seen |= {part for message in conversation(index)["messages"] for part in beginnings(message["content"])}
    for task in TASKS.keys() - STORY_TASKS:
        for question in questions(task):
            for sentence in re.split(r'(?<=[.!?]) |(?<=[.!?]") ', question.context + question.choices[question.answer]):
                assert sentence not in seen


@pytest.mark.parametrize("task", STORY_TASKS)
def test_questions_of_new_stories_are_stories_that_training_never_sees(task: str) -> None:
    """One of two twins is the beginning of a story with the questions' seed; no context begins a story of the sample."""
    told, sample = all_stories()
    found = questions(task)
    for first, second in zip(found[::2], found[1::2], strict=True):
        right = [question.context + question.choices[question.answer] for question in (first, second)]
        assert right[0] in told and (task != "story_who" or right[1] in told)
        assert not any(f"\0{text}" in sample for text in right), right


def test_a_story_told_with_one_change_differs_only_there() -> None:
    told, girl_or_boy, pal = tell(0, SEED), tell(0, SEED, "gender"), tell(0, SEED, "pal")
    assert tell(0, SEED, "nothing") == told and told.plot == girl_or_boy.plot == pal.plot
    assert told.fields["he"] != girl_or_boy.fields["he"] and told.fields["hero"] != girl_or_boy.fields["hero"]
    assert told.fields["pal"] != pal.fields["pal"]
    assert told.text.replace(told.fields["pal"], pal.fields["pal"]) == pal.text
