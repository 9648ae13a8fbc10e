"""A seeded generator of short children's stories: the built-in training sample.

The stories are small enough for a small model to learn in minutes: a few well-known plots, plain words, and short
sentences. Each story is put together from a plot in ``story_words.py``. A plot is a list of beats (what happens
next), and every beat is written in several ways; names, places and things are drawn once per story and then stay
the same until its end.

Look at three stories (add a second number to choose another seed)::

    python -m recipes.story_generator 3

Add a plot: write one more ``Plot(...)`` entry in ``story_words.py`` and add it to ``PLOTS``. The format is explained
at the top of that file. Then run ``pytest tests/test_story_generator.py``: it finds unfilled slots, wrong articles,
wrong pronouns and stories that are too long or too short.

The same index and seed give the same story on every machine: all chance comes from ``random.Random.random()``, whose
stream is fixed for a given seed.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from recipes import story_words as words

T = TypeVar("T")
Fields = dict[str, str]  # slot name -> text, for example {"hero": "Mia", "he": "she"}

ONCE_SHARE = 0.6  # the share of stories that begin with "Once upon a time"
SHORTEST, LONGEST = 100, 215  # each story draws its own limit between these two, and drops beats to keep to it
MOST_WORDS = 220  # a story that is longer than this, even so, is told anew
BREAK, MAYBE_BREAK = "---", "--?"  # the block markers for a new paragraph
PRONOUNS = {
    "girl": {"he": "she", "him": "her", "his": "her", "himself": "herself", "child": "girl"},
    "boy": {"he": "he", "him": "him", "his": "his", "himself": "himself", "child": "boy"},
}
# Who can play which kind of role: pairs of a name and "girl" or "boy" (which only sets the pronouns).
MOM_DAD = [("Mom", "girl"), ("Dad", "boy")]
GRANDPARENTS = [("Grandma", "girl"), ("Grandpa", "boy")]
PEOPLE = {
    "child": [(name, "girl") for name in words.GIRLS] + [(name, "boy") for name in words.BOYS],
    "animal": [(name, "girl") for name in words.ANIMAL_GIRLS] + [(name, "boy") for name in words.ANIMAL_BOYS],
    "rooster": [(name, "boy") for name in words.ANIMAL_BOYS],
    "parent": MOM_DAD,
    "grand": GRANDPARENTS,
    "elder": MOM_DAD + GRANDPARENTS,
}


class CompiledPlot(NamedTuple):
    """A plot that is parsed and ready to be told."""

    name: str
    cast: tuple[tuple[str, str], ...]  # pairs of role and kind
    once: tuple[str, ...]  # first sentences with "Once upon a time"
    openers: tuple[str, ...]  # other first sentences
    tables: tuple[tuple[Fields, ...], ...]
    beats: tuple[tuple[str, ...], ...]
    optional: tuple[int, ...]  # which beats may be left out (the opener is number 0)


class Telling(NamedTuple):
    """A finished story together with what was drawn for it, which is handy for tests."""

    plot: str
    fields: Fields
    text: str


# ---------------------------------------------------------------------------------------------------------------------
# Reading the tables. This happens once, when the module is imported.
# ---------------------------------------------------------------------------------------------------------------------


def _capital(text: str) -> str:
    """Returns ``text`` with a capital first letter."""
    return text[:1].upper() + text[1:]


def _with_article(noun: str) -> str:
    """Returns ``noun`` with "a" or "an" in front."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def _spread(fields: Fields) -> Fields:
    """Adds capital forms to every slot, so that ``{he}`` can also be written as ``{He}``."""
    return {**{_capital(slot): _capital(text) for slot, text in fields.items()}, **fields}


def _parse_lines(block: str) -> tuple[str, ...]:
    """Returns the alternatives of a block: its starred lines, each joined with the lines that go on with it."""
    alternatives: list[str] = []
    for line in block.strip().splitlines():
        line = line.strip()
        if line[0] in "*~":
            alternatives.append(line[1:].strip())
        else:
            alternatives[-1] += " " + line
    return tuple(alternatives)


def _parse_beat(block: str) -> tuple[str, ...]:
    """Returns the alternatives of one block of a plot; a paragraph break is a beat of its own."""
    breaks = {BREAK: ("\n\n",), MAYBE_BREAK: ("\n\n", "")}
    return breaks.get(block) or _parse_lines(block)


def _parse_table(table: str) -> tuple[Fields, ...]:
    """Returns the rows of a table as dictionaries, with articles and capital forms added."""
    lines = [line.strip() for line in table.strip().splitlines()]
    rows = [[cell.strip() for cell in row.split("|")] for row in "\n".join(lines).replace("|\n", "|").split("\n")]
    columns, parsed = rows[0], []
    for row in rows[1:]:
        if len(row) != len(columns):
            raise ValueError(f"the table with the columns {columns} has a row of another length: {row}")
        fields = dict(zip(columns, row, strict=True))
        articles = {f"a_{column}": _with_article(cell) for column, cell in fields.items() if cell[0].islower()}
        parsed.append(_spread({**fields, **articles}))
    return tuple(parsed)


def _compile(plot: words.Plot) -> CompiledPlot:
    """Parses one plot."""
    cast = tuple((role.strip(), kind.strip()) for role, kind in (pair.split(":") for pair in plot.cast.split(",")))
    hero_kind = "child" if cast[0][1] == "child" else "animal"
    blocks = [block.strip() for block in plot.text.strip().split("\n\n")]
    return CompiledPlot(
        name=plot.name,
        cast=cast,
        once=_parse_lines(words.ONCE[hero_kind]),
        openers=_parse_lines(words.OTHER[hero_kind]) + _parse_lines(plot.openers),
        tables=tuple(_parse_table(table) for table in plot.tables),
        beats=tuple(_parse_beat(block) for block in blocks),
        optional=tuple(number for number, block in enumerate(blocks, start=1) if block.startswith("~")),
    )


def _role_fields(role: str, name: str, gender: str) -> Fields:
    """Returns the slots of one character. The hero's pronouns have no prefix: ``{he}``, but ``{pal_he}``."""
    prefix = "" if role == "hero" else f"{role}_"
    return _spread({role: name, **{prefix + slot: word for slot, word in PRONOUNS[gender].items()}})


PLOTS = tuple(_compile(plot) for plot in words.PLOTS)
COLORS = tuple(_spread({"color": color, "a_color": _with_article(color)}) for color in words.COLORS)
# For every role that occurs, the ready-made slots of everybody who could play it.
ACTORS: dict[tuple[str, str], tuple[Fields, ...]] = {
    (role, kind): tuple(_role_fields(role, name, gender) for name, gender in PEOPLE[kind])
    for plot in PLOTS
    for role, kind in plot.cast
}


# ---------------------------------------------------------------------------------------------------------------------
# Telling a story.
# ---------------------------------------------------------------------------------------------------------------------


def _chooser(rng: random.Random) -> Callable[[Sequence[T]], T]:
    """Returns a function that picks one item of a sequence.

    ``rng.choice`` is not used, because only the stream of ``rng.random()`` is promised to stay the same.
    """
    uniform = rng.random

    def choose(items: Sequence[T]) -> T:
        return items[int(uniform() * len(items))]

    return choose


def _draw_cast(plot: CompiledPlot, choose: Callable[[Sequence[Fields]], Fields]) -> Fields:
    """Draws somebody for every role; nobody plays two roles."""
    fields: Fields = {}
    taken: set[str] = set()
    for role, kind in plot.cast:
        actor = choose(ACTORS[role, kind])
        while actor[role] in taken:
            actor = choose(ACTORS[role, kind])
        taken.add(actor[role])
        fields.update(actor)
    return fields


def _draw_fields(plot: CompiledPlot, rng: random.Random) -> Fields:
    """Draws everything that stays the same through a whole story."""
    choose = _chooser(rng)
    fields = _draw_cast(plot, choose)
    fields.update(choose(COLORS))
    fields["trait"] = choose(words.TRAITS)
    fields["home"] = choose(words.HOMES)
    for table in plot.tables:
        for slot, text in choose(table).items():
            fields[slot] = text.format_map(fields) if "{" in text else text
    return fields


def _shorten(beats: list[str], optional: tuple[int, ...], limit: float, rng: random.Random) -> None:
    """Empties optional beats, in random order, until the story has no more words than ``limit`` (or none is left)."""
    length = sum(len(beat.split()) for beat in beats)
    left = list(optional)
    while left and length > limit:
        number = left.pop(int(rng.random() * len(left)))
        length -= len(beats[number].split())
        beats[number] = ""


def _tell_once(rng: random.Random) -> Telling:
    """Draws a plot and everything in it, and puts the story together."""
    choose = _chooser(rng)
    plot = choose(PLOTS)
    fields = _draw_fields(plot, rng)
    opener = choose(plot.once if rng.random() < ONCE_SHARE else plot.openers)
    # After "One windy morning, ..." the story must not go on with "One day, ...".
    fields["one_day"] = "That morning" if opener.startswith("One ") else choose(words.DAYS)
    beats = [beat.format_map(fields) for beat in (opener, *(choose(beat) for beat in plot.beats))]
    _shorten(beats, plot.optional, SHORTEST + (LONGEST - SHORTEST) * rng.random(), rng)
    paragraphs = " ".join(beat for beat in beats if beat).split("\n\n")
    text = "\n\n".join(paragraph.strip() for paragraph in paragraphs if paragraph.strip())
    return Telling(plot.name, fields, text)


def tell(index: int, seed: int = 0) -> Telling:
    """Tells the story with the given number.

    Args:
        index: The number of the story, from 0 on.
        seed: Another seed gives another series of stories.

    Returns:
        The story, the name of its plot, and the slots that were filled in.
    """
    rng = random.Random(f"{seed}/{index}")
    telling = _tell_once(rng)
    while len(telling.text.split()) > MOST_WORDS:  # this is very rare: about one story in 20,000
        telling = _tell_once(rng)
    return telling


def story(index: int, seed: int = 0) -> str:
    """Returns one story, the same on every machine.

    Args:
        index: The number of the story, from 0 on.
        seed: Another seed gives another series of stories.

    Returns:
        The text: two to five paragraphs, separated by blank lines.
    """
    return tell(index, seed).text


def stories(count: int, seed: int = 0) -> Iterator[str]:
    """Yields the first ``count`` stories in order, leaving out exact repeats.

    Args:
        count: How many stories to make.
        seed: Another seed gives another series of stories.

    Yields:
        The stories, all of them different.
    """
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
