"""Short children's stories, made from a seed: the built-in training sample.

A small model learns these stories in minutes: they have a few well-known plots, plain words and short sentences. A plot
is a list of beats (what happens next), and every beat is written in several ways. Names, places and things are drawn once
for a story and stay the same until its end. The words are in recipes/words/story.txt and story_plots.txt.

Look at three stories (a second number is the seed):

    python -m recipes.story_generator 3

Add a plot: write it into story_plots.txt, where the format is explained. Then run
``pytest tests/recipes/test_story_generator.py``: it finds unfilled slots, wrong articles, wrong pronouns and stories
that are too long or too short.

The same index and seed give the same story on every machine: every random number is from ``random.Random.random()``, which
gives the same numbers in every Python version.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import NamedTuple, TypeVar

from recipes.word_files import entries, sections

T = TypeVar("T")
Fields = dict[str, str]  # slot name -> text, for example {"hero": "Mia", "he": "she"}

ONCE_SHARE = 0.6  # the share of stories that begin with "Once upon a time"
SHORTEST, LONGEST = 100, 215  # words: each story draws its own limit between these, and drops beats to keep to it
MOST_WORDS = 220  # a story that is still longer is drawn again
BREAKS = {"---": ("\n\n",), "--?": ("\n\n", "")}  # blocks that begin a new paragraph, and their alternatives
PRONOUNS = {
    "girl": {"he": "she", "him": "her", "his": "her", "himself": "herself", "child": "girl"},
    "boy": {"he": "he", "him": "him", "his": "his", "himself": "himself", "child": "boy"},
}
PARENTS, GRANDPARENTS = [("Mom", "girl"), ("Dad", "boy")], [("Grandma", "girl"), ("Grandpa", "boy")]


class Plot(NamedTuple):
    """A parsed plot."""

    name: str
    cast: tuple[tuple[str, str], ...]  # pairs of role and kind
    once: tuple[str, ...]  # first sentences with "Once upon a time"
    openers: tuple[str, ...]  # other first sentences
    tables: tuple[tuple[Fields, ...], ...]
    beats: tuple[tuple[str, ...], ...]
    optional: tuple[int, ...]  # which beats may be left out (the opener is number 0)


class Telling(NamedTuple):
    """A finished story, with what was drawn for it."""

    plot: str
    fields: Fields
    text: str


# --- reading the words ------------------------------------------------------------------------------------------------


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _with_article(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def _with_capitals(fields: Fields) -> Fields:
    """The fields and their capital forms, so that ``{he}`` can also be written as ``{He}``."""
    return {**{_capital(slot): _capital(text) for slot, text in fields.items()}, **fields}


def _parse_block(block: str) -> tuple[str, ...]:
    """The alternatives of a block: its starred lines, each joined with the lines that continue it."""
    if block in BREAKS:
        return BREAKS[block]
    alternatives: list[str] = []
    for line in map(str.strip, block.splitlines()):
        if line[0] in "*~":
            alternatives.append(line[1:].strip())
        else:
            alternatives[-1] += " " + line
    return tuple(alternatives)


def _parse_table(table: str) -> tuple[Fields, ...]:
    """The rows of a table, with articles and capital forms added."""
    lines = "\n".join(map(str.strip, table.splitlines())).replace("|\n", "|").splitlines()
    columns, *rows = ([cell.strip() for cell in line.split("|")] for line in lines)
    parsed = []
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"the table with the columns {columns} has a row of another length: {row}")
        fields = dict(zip(columns, row, strict=True))
        articles = {f"a_{column}": _with_article(cell) for column, cell in fields.items() if cell[0].islower()}
        parsed.append(_with_capitals({**fields, **articles}))
    return tuple(parsed)


def _parse_plot(name: str, text: str) -> Plot:
    head, *parts = text.split("\n= ")
    pairs = (pair.split(":") for pair in head.removeprefix("cast:").split(","))
    cast = tuple((role.strip(), kind.strip()) for role, kind in pairs)
    hero = "child" if cast[0][1] == "child" else "animal"
    bodies: dict[str, list[str]] = {"openers": [], "table": [], "text": []}
    for part in parts:
        kind, _, body = part.partition("\n")
        bodies[kind].append(body.strip())
    (openers,), (story,) = bodies["openers"], bodies["text"]
    blocks = story.split("\n\n")
    return Plot(
        name=name,
        cast=cast,
        once=_parse_block(sections("story")[f"once {hero}"]),
        openers=_parse_block(sections("story")[f"other {hero}"]) + _parse_block(openers),
        tables=tuple(map(_parse_table, bodies["table"])),
        beats=tuple(map(_parse_block, blocks)),
        optional=tuple(number for number, block in enumerate(blocks, start=1) if block.startswith("~")),
    )


@cache
def plots() -> tuple[Plot, ...]:
    """All plots, in the order of the file."""
    return tuple(_parse_plot(name, text) for name, text in sections("story_plots").items())


@cache
def colors() -> tuple[Fields, ...]:
    """The slots of every color."""
    return tuple(
        _with_capitals({"color": color, "a_color": _with_article(color)}) for color in entries("story", "colors")
    )


def _people(kind: str) -> list[tuple[str, str]]:
    """The names that fit a kind of role, each with "girl" or "boy" (which only sets the pronouns)."""
    fixed = {"parent": PARENTS, "grand": GRANDPARENTS, "elder": PARENTS + GRANDPARENTS}
    if kind in fixed:
        return fixed[kind]
    prefix = "" if kind == "child" else "animal "
    girls = [] if kind == "rooster" else [(name, "girl") for name in entries("story", f"{prefix}girls")]
    return girls + [(name, "boy") for name in entries("story", f"{prefix}boys")]


@cache
def actors(role: str, kind: str) -> tuple[Fields, ...]:
    """The slots of everybody who can play a role. The hero's pronouns have no prefix: ``{he}``, but ``{pal_he}``."""
    prefix = "" if role == "hero" else f"{role}_"
    return tuple(
        _with_capitals({role: name, **{prefix + slot: word for slot, word in PRONOUNS[gender].items()}})
        for name, gender in _people(kind)
    )


# --- telling a story --------------------------------------------------------------------------------------------------


def chooser(rng: random.Random) -> Callable[[Sequence[T]], T]:
    """A function that picks a random item; ``rng.choice`` may pick another one in another Python version."""
    uniform = rng.random

    def choose(items: Sequence[T]) -> T:
        return items[int(uniform() * len(items))]

    return choose


def _another(everybody: Sequence[Fields], actor: Fields, role: str, taken: set[str], other_gender: bool) -> Fields:
    """The next one after an actor who could play the role, with the same pronouns or with others; the actor if there is none."""

    def pronouns(fields: Fields) -> list[str]:
        return [text for slot, text in fields.items() if slot.lower() != role]

    at = everybody.index(actor)
    for other in [*everybody[at + 1 :], *everybody[:at]]:
        if (pronouns(other) != pronouns(actor)) == other_gender and other[role] not in taken:
            return other
    return actor


def _draw_fields(plot: Plot, rng: random.Random, changed: str = "") -> Fields:
    """Draws all names and things that stay the same through a story; nobody plays two roles. `changed`: see tell."""
    choose = chooser(rng)
    fields: Fields = {}
    taken: set[str] = set()
    for role, kind in plot.cast:
        everybody = actors(role, kind)
        actor = choose(everybody)
        while actor[role] in taken:
            actor = choose(everybody)
        if changed == role or (changed, role) == ("gender", "hero"):
            actor = _another(everybody, actor, role, taken, other_gender=changed == "gender")
        taken.add(actor[role])
        fields.update(actor)
    fields.update(choose(colors()))
    fields["trait"] = choose(entries("story", "traits"))
    fields["home"] = choose(entries("story", "homes"))
    for number, table in enumerate(plot.tables):
        row = choose(table)
        if changed == f"table {number}":
            row = table[(table.index(row) + 1) % len(table)]
        for slot, text in row.items():
            fields[slot] = text.format_map(fields) if "{" in text else text
    return fields


def _shorten(beats: list[str], optional: tuple[int, ...], limit: float, rng: random.Random) -> None:
    """Empties optional beats, in random order, until the story has at most ``limit`` words, or all of them are empty."""
    length = sum(len(beat.split()) for beat in beats)
    left = list(optional)
    while left and length > limit:
        number = left.pop(int(rng.random() * len(left)))
        length -= len(beats[number].split())
        beats[number] = ""


def _tell_once(rng: random.Random, changed: str) -> Telling:
    """Draws a plot, its names and its beats, and puts the story together. It may be too long."""
    choose = chooser(rng)
    plot = choose(plots())
    fields = _draw_fields(plot, rng, changed)
    opener = choose(plot.once if rng.random() < ONCE_SHARE else plot.openers)
    # "One day, ..." must not follow on "One windy morning, ...".
    fields["one_day"] = "That morning" if opener.startswith("One ") else choose(entries("story", "days"))
    beats = [beat.format_map(fields) for beat in (opener, *(choose(beat) for beat in plot.beats))]
    _shorten(beats, plot.optional, SHORTEST + (LONGEST - SHORTEST) * rng.random(), rng)
    paragraphs = " ".join(beat for beat in beats if beat).split("\n\n")
    text = "\n\n".join(paragraph.strip() for paragraph in paragraphs if paragraph.strip())
    return Telling(plot.name, fields, text)


def tell(index: int, seed: int = 0, changed: str = "") -> Telling:
    """A story with the name of its plot and the slots that were filled in.

    Args:
        index: the number of the story, from 0 on.
        seed: another seed gives another series of stories.
        changed: tells the same story with one thing changed: a role ("pal") is played by another one of the same gender,
            the hero is a boy instead of a girl ("gender"), or another row of a table of things is taken ("table 0").
    """
    rng = random.Random(f"{seed}/{index}")
    telling = _tell_once(rng, changed)
    while len(telling.text.split()) > MOST_WORDS:  # about one story in 20,000
        telling = _tell_once(rng, changed)
    return telling


def story(index: int, seed: int = 0) -> str:
    """The text of one story, the same on every machine: two to five paragraphs with empty lines between them."""
    return tell(index, seed).text


def stories(count: int, seed: int = 0) -> Iterator[str]:
    """The first ``count`` stories in order, without exact repeats."""
    seen: set[str] = set()
    index = 0
    while len(seen) < count:
        text = story(index, seed)
        index += 1
        if text not in seen:
            seen.add(text)
            yield text


def main(arguments: Sequence[str]) -> None:
    """Prints some stories: the first argument says how many, the second one is the seed."""
    count = int(arguments[0]) if arguments else 1
    seed = int(arguments[1]) if len(arguments) > 1 else 0
    print("\n\n* * *\n\n".join(stories(count, seed)))


if __name__ == "__main__":
    main(sys.argv[1:])
