"""The `chitchat` data set: small conversations, made from a seed (greetings, small talk, simple questions).

A conversation is put together from scenes. Each line of a scene has several wordings. The things that are drawn for a scene
(a dish, a pet, a plan) stay the same to its end. The words are in recipes/words/chitchat*.txt.

Look at five conversations (a second number is the seed): ``python -m recipes.chitchat 5``. Add a scene: write it into
chitchat_talk.txt, where the format is explained, and run ``pytest tests/recipes/test_chitchat.py``. The same index and
seed give the same conversation on every machine: every random number is from ``random.Random.random()``.
"""

from __future__ import annotations

import itertools
import random
import re
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple, TypeVar

from recipes.recipe import Recipe, RecipeRequest
from recipes.word_files import entries, pairs, sections

T = TypeVar("T")
Lines = dict[str, list[str]]  # the wordings of a line, by the letters before it: {"U": [...], "A": [...]}
Table = tuple[list[str], list[list[str]], int]  # columns, rows, and how many rows a scene needs
Fields = dict[str, str]  # slot -> the text drawn for it

DOCUMENTS = 20_000
TALK, QUESTIONS, MANNERS, SYSTEMS = "chitchat_talk", "chitchat_questions", "chitchat_manners", "chitchat_systems"
LENGTHS = (1, 2, 2, 2, 3, 3, 3, 4, 4, 4)  # pairs of a user's and an assistant's turn: two to eight turns
OPENINGS = ("", "", "HI", "HI", "GREET", "NAME", "NAMEHI")  # HI, NAMEHI: in the first turn; others: own turns
STYLES = ("",) * 12 + ("lower",) * 3 + ("bare",) * 3 + ("typos",) * 2  # how the user writes
CHOICE = re.compile(r"\[([^\[\]]*)\]")
YOURS = pairs("chitchat", "yours")  # "my" -> "your", and similar words
TYPOS = pairs("chitchat", "typing errors")
MY_WORDS = re.compile(rf"\b(?:{'|'.join(YOURS)})(?![\w'])")  # the words that YOURS replaces
PARTS = re.compile(r'"[^"]*"|[.!?:]')  # splits a turn into parts; drops quotations: they may occur twice
BARE = re.compile(r"[.!?,]+$|(?<=n)'(?=t\b)|(?<=\bi)'(?=m\b|ve\b)|(?<=t)'(?=s\b)")  # what a lazy writer leaves out


class Scene(NamedTuple):
    """One parsed topic (a topic with branches becomes a scene for each branch)."""

    name: str
    tags: frozenset[str]
    about: str  # the field of knowledge, if the scene is about questions
    tables: list[Table]
    pairs: list[tuple[list[str], list[str]]]  # the turns of the user and the assistant
    lines: Lines


# --- reading the words ------------------------------------------------------------------------------------------------


@cache
def macros() -> dict[str, str]:
    """The text of every macro <name>: the macros of the file, and table rows that are computed here."""
    names, numbers = entries("chitchat", "names"), entries("chitchat", "numbers")
    spans = [(a, b) for a in range(1, 10) for b in range(a + 3, a + 9)]
    rows: dict[str, Sequence[str]] = {
        "names": names,
        "sums": [
            *(f"{numbers[a]} plus {numbers[b]} | {numbers[a + b]}" for a in range(1, 13) for b in range(1, 13)),
            *(f"{numbers[a]} minus {numbers[b]} | {numbers[a - b]}" for a in range(2, 16) for b in range(1, a)),
            *(f"{numbers[a]} times {numbers[b]} | {numbers[a * b]}" for a in range(2, 7) for b in range(2, 6)),
        ],
        "counts": [
            *(f"count from {numbers[a]} to {numbers[b]} | {', '.join(numbers[a : b + 1])}" for a, b in spans),
            *(f"count [down/backwards] from {numbers[b]} | {', '.join(numbers[b:0:-1])}" for b in range(3, 13)),
        ],
        "after": [f"the number after {a} | {b}" for a, b in itertools.pairwise(numbers)],
        "before": [f"the number before {b} | {a}" for a, b in itertools.pairwise(numbers)],
    }
    for unit in ("day", "month"):
        names = entries("chitchat", f"{unit}s")
        after = [f"the {unit} after {name} | {names[(i + 1) % len(names)]}" for i, name in enumerate(names)]
        before = [f"the {unit} before {name} | {names[i - 1]}" for i, name in enumerate(names)]
        rows[f"{unit}s"] = after + before
    return pairs("chitchat", "macros") | {name: " ; ".join(found) for name, found in rows.items()}


def _expand(text: str) -> str:
    """The text with its macros replaced, and the macros inside of macros."""
    for _ in range(3):
        text = re.sub(r"<(\w+)>", lambda macro: macros()[macro[1]], text)
    return text


def _columns(table: str) -> list[str]:
    return [column.strip() for column in table.partition("=")[0].split("|")]


def _parse_table(text: str, slots: str = "") -> Table:
    """Parses "column | column = cell | cell ; cell | cell"; a slot such as {dish2} needs two rows."""
    columns = _columns(text)
    rows = [[" ".join(cell.split()) for cell in row.split("|")] for row in text.partition("=")[2].split(";")]
    if wrong := [row for row in rows if len(row) != len(columns)]:
        raise ValueError(f"the table with the columns {columns} has rows of another length: {wrong}")
    numbers = [int(number) for column in columns for number in re.findall(rf"\{{(?:\w+_)?{column}(\d)\}}", slots)]
    return columns, rows, max(numbers, default=1)


@cache
def shared_tables() -> list[tuple[list[str], str]]:
    """The tables that every scene may use, each with its columns."""
    return [(_columns(table), _expand(table)) for table in entries("chitchat", "shared tables")]


def _parse_scene(head: str, body: str) -> Iterator[Scene]:
    """Parses one topic, together with the shared tables whose columns it uses."""
    name, tags, about, *_ = re.split("[:=]", f"{head}=")
    lines = re.findall(r"^([A-Z]+)(?:\((\w+)\))?: (.*)$", re.sub(r"\n {2,}", " ", body), re.MULTILINE)
    tables = [_parse_table(text, body) for letter, _, text in lines if letter == "T"]
    used = set(re.findall(r"\{(?:\w+_)?(\w+?)\d?\}", body)) - {column for columns, _, _ in tables for column in columns}
    tables += [_parse_table(table, body) for columns, table in shared_tables() if used & {*columns}]
    for branch in sorted({branch for _, branch, _ in lines if branch}) or [""]:
        own = [(letter, text) for letter, tag, text in lines if letter != "T" and tag in ("", branch)]
        grouped = itertools.groupby(own, lambda line: line[0])
        groups = [(letter, [way for _, text in group for way in text.split(" || ")]) for letter, group in grouped]
        turns = [ways for letter, ways in groups if letter in "UA"]
        exchanges = list(zip(turns[::2], turns[1::2], strict=False))
        yield Scene(name, frozenset(tags.split()), about.strip(), tables, exchanges, dict(groups))


@cache
def scenes(file: str) -> list[Scene]:
    """All scenes of a file."""
    return [scene for head, body in sections(file).items() for scene in _parse_scene(head, _expand(body))]


@cache
def openers(first: bool) -> list[Scene]:
    """With `first`, the scenes that can only begin a conversation; without it, all others."""
    return [scene for scene in scenes(TALK) if ("start" in scene.tags) is first]


@cache
def phrases() -> Lines:
    """What is said between the scenes."""
    return scenes("chitchat_phrases")[0].lines


# --- making a conversation --------------------------------------------------------------------------------------------


class Teller:
    """Makes one conversation; all random numbers are from one generator."""

    def __init__(self, index: int, seed: int = 0) -> None:
        self.uniform = random.Random(f"chitchat/{seed}/{index}").random
        self.pairs: list[tuple[str, str]] = []
        while not self.pairs or self.repeats():
            self.name = self.system = self.asked = ""  # the user's name, the system prompt, the questions so far
            self.pairs, self.used = [], list[tuple[Scene, Fields]]()
            kind, pairs = self.uniform(), self.pick(LENGTHS)
            next(way for share, way in KINDS if kind < share)(self, pairs)

    def repeats(self) -> bool:
        """Whether a speaker repeats a sentence, or a part that ends with a colon, of four words or more."""
        for turns in zip(*self.pairs, strict=True):
            parts = [part.lower().split() for turn in turns for part in PARTS.split(turn)]
            said = [" ".join(part) for part in parts if len(part) > 3]
            if len({*said}) < len(said):
                return True
        return False

    def pick(self, items: Sequence[T]) -> T:
        """A random item; ``random.choice`` may give another one in another Python version."""
        return items[int(self.uniform() * len(items))]

    def unfold(self, text: str) -> str:
        """Makes all choices in a text, "[one/or another]"; the inner ones first."""
        while "[" in text:
            text = CHOICE.sub(lambda choice: self.pick(choice[1].split("/")), text)
        return text

    def line(self, kind: str, lines: Lines | None = None) -> str:
        """A random line of a kind. Its slots are not filled yet."""
        return self.unfold(self.pick((lines or phrases())[kind]))

    def finish(self, text: str, fields: Fields) -> str:
        """Fills the slots, mends the spaces that empty choices leave, and begins sentences with a capital."""
        text = text.format_map(fields)
        named = "@" in text and self.name and self.name not in text and self.uniform() < 0.7
        text = text.replace("@", f", {self.name}" if named else "")
        text = re.sub(r" (?=[,.!?:])|(?<=[!?])\.", "", " ".join(text.split()))
        return re.sub(r'(?:^|(?<=[^.][.!?] )|(?<=[.!?]" ))"?[a-z]', lambda start: start[0].upper(), text)

    def add(self, user: str, assistant: str, fields: Fields) -> None:
        self.pairs.append((self.finish(user, fields), self.finish(assistant, fields)))

    def draw(self, scene: Scene) -> Fields:
        """Draw as many rows of each table as a scene needs. The last table is first, because tables may use later ones."""
        fields = {"about": scene.about, "name": self.name}
        for columns, rows, needed in reversed(scene.tables):
            drawn: list[list[str]] = []
            while len(drawn) < needed:
                row = self.pick(rows)
                if row not in drawn and row[0] != self.name:
                    drawn.append(row)
            for number, row in zip(("", "2", "3", "4"), drawn, strict=False):
                for column, cell in zip(columns, row, strict=True):
                    text = self.unfold(cell).format_map(fields)
                    fields[column + number] = text
                    fields[f"a_{column}{number}"] = ("an " if text[0] in "aeiou" else "a ") + text
                    fields[f"your_{column}{number}"] = MY_WORDS.sub(lambda word: YOURS[word[0]], text)
        return fields

    def item(self, scene: Scene) -> Fields:
        """A question and its answer, both new in this conversation."""
        while (fields := self.draw(scene))["answer"] in self.asked:
            pass
        self.asked += f"{fields['x']}/{fields['answer']}/"
        fields["fact"], fields["question"] = (self.line(kind, scene.lines).format_map(fields) for kind in "FK")
        return fields

    def fits(self, scene: Scene, pairs: int) -> bool:
        """Whether a scene fits after the scenes so far, and needs at most `pairs` pairs of turns."""
        tags = {tag for other, _ in self.used for tag in other.tags}
        times = {tag for tag in tags | scene.tags if tag[0] == "@"}  # @morning, @evening: a conversation has one
        least = max([int(tag) for tag in scene.tags if tag.isdigit()], default=1)
        return pairs >= least and len(times) < 2 and not scene.tags & (tags | {"names"} if self.name else tags)

    def tell(self, scene: Scene, pairs: int, before: str = "", back: str = "") -> None:
        """Adds a scene, or as much of it as fits; `before` and `back` begin its first two turns."""
        fields = self.draw(scene)
        for users, assistants in scene.pairs[:pairs]:
            self.add(before + self.unfold(self.pick(users)), back + self.unfold(self.pick(assistants)), fields)
            before = back = ""
        self.system = self.finish(self.line("S", scene.lines), fields) if "S" in scene.lines else ""
        self.used.append((scene, fields))
        self.name = fields["name"] if "names" in scene.tags else self.name

    def open(self, pairs: int) -> tuple[str, str]:
        """Perhaps adds a greeting. Returns the first words of the two turns that follow."""
        kind = self.pick(OPENINGS)
        if kind.startswith("NAME"):
            self.name = self.pick(entries("chitchat", "names"))
        if kind in ("NAME", "GREET") and pairs > 1:
            self.add(self.line(kind), self.line(f"{kind}A"), {"name": self.name})
        elif kind.startswith("NAME"):
            return self.line("NAME") + " ", self.line("NAMEHI") + " "
        elif kind:
            return self.line("HI"), self.line("HIA") if self.uniform() < 0.5 else ""
        return "", ""

    def ask(self, pairs: int, before: str = "", back: str = "") -> None:
        """Adds a question; then, in the remaining pairs, more of its kind, corrections, and doubts."""
        scene = self.pick(scenes(QUESTIONS))
        fields = self.item(scene)
        own, polite = self.uniform() < 0.4, not before and self.uniform() < 0.5
        user = self.line("U", scene.lines) if own else (self.line("POLITE") if polite else "") + "{question}"
        self.add(before + user, back + self.line("ANSWER"), fields)
        self.used.append((scene, fields))
        steps = ["AGAIN", "AGAIN", "DOUBT", "CHECK", "MORE", *sorted(scene.tags)]  # such tags are steps: OOPS, THOUGHT
        for left in range(pairs - 1, 0, -1):
            steps.remove(step := self.pick(steps))
            if step == "CHECK":
                steps = ["AGAIN", "MORE"]  # in CHECK the user says thanks: no doubts after it
            if step == "MORE":
                return self.ask(left, self.line("ASKBRIDGE"))
            other = self.item(scene)
            again = {"fact": self.line("F", scene.lines).format_map(fields), "answer2": other["answer"]}
            fields = other if step in ("AGAIN", "OOPS") else fields | again
            self.add(self.line(step), self.line(f"{step}A"), fields)

    def quiz(self, pairs: int) -> None:
        """The assistant asks, the user answers."""
        scene = self.pick(scenes(QUESTIONS))
        fields = self.item(scene)
        self.add(self.line("QUIZ"), self.line("QUIZA"), fields)
        for left in range(max(1, pairs - 1), 0, -1):
            following = self.item(scene)
            reply = self.pick(("RIGHT", "RIGHT", "WRONG" if "THOUGHT" in scene.tags else "RIGHT", "PASS"))
            fields["guess"] = (following if reply == "WRONG" else fields)["answer"]
            fields["next"] = self.line("NEXT").format_map(following) if left > 1 else ""
            self.add(self.line("PASS" if reply == "PASS" else "GUESS"), self.line(f"{reply}A") + " {next}", fields)
            fields = following

    def obey(self, pairs: int) -> None:
        """Adds small talk, or questions, with a system prompt that says how to answer."""
        if self.uniform() < 0.4:
            return self.tell(self.pick(scenes(SYSTEMS)), pairs)
        manner, scene = self.pick(scenes(MANNERS)), self.pick(scenes(QUESTIONS))
        own = self.draw(manner) | {"about": scene.about}
        for number in range(pairs):
            off = "topic" in manner.tags and number % 2 == 1
            asked = self.pick([other for other in scenes(QUESTIONS) if other is not scene]) if off else scene
            user = self.line("HI") if number == 0 else ""
            user += "{question}" if number == 0 or "topic" in manner.tags else self.line("AGAIN")
            fields = self.item(asked) | own
            self.add(user, self.line("REFUSE") if off else self.line("A", manner.lines), fields)
        self.system = self.finish(self.line("S", manner.lines), fields)
        self.used.append((manner, fields))

    def close(self, pairs: int) -> None:
        """Ends a conversation: the user asks for something said before, says thanks or goodbye."""
        scene, fields = self.pick(self.used)
        fields["name"] = self.name
        kind = self.pick(("RECALL", "RECALL", "WHO", "BYE", "BYE"))
        if kind == "RECALL" and "Q" in scene.lines:
            self.add(self.line("RECALL") + self.line("Q", scene.lines), self.line("R", scene.lines), fields)
        elif kind == "WHO" and self.name:
            self.add(self.line("RECALL") + self.line("WHO"), self.line("WHOA"), fields)
        else:
            pairs += 1
        if pairs > 1:
            kind, wish = self.pick(("BYE", "BYE", "THANKS")), self.line("B", {**phrases(), **scene.lines})
            self.add(self.line(kind), self.line(f"{kind}A").replace("{wish}", wish), fields)

    def talk(self, pairs: int) -> None:
        """Adds small talk: an opening, one scene or more, and perhaps a question about them, or a goodbye."""
        before, back = self.open(pairs)
        pool = openers(not self.pairs and not before and self.uniform() < 0.3)
        while (room := pairs - len(self.pairs)) > 0:
            kind = self.uniform() if self.used else 1.0
            if kind < (0.5 if room == 1 else 0.2):
                return self.close(room)
            scene = self.pick(pool)
            if kind < 0.6:
                self.ask(1, self.line("ASKBRIDGE"))
            elif self.fits(scene, room):
                self.tell(scene, room, self.line("BRIDGE") if self.used else before, back)
                pool, before, back = openers(False), "", ""

    def messages(self) -> Iterator[dict[str, str]]:
        """All turns; the user's perhaps in lower case, without some punctuation, or with typing errors."""
        style = self.pick(STYLES)
        if self.system:
            yield {"role": "system", "content": self.system}
        for user, assistant in self.pairs:
            if style == "typos":
                user = re.sub(r"\w+", lambda w: TYPOS.get(w[0], w[0]) if self.uniform() < 0.4 else w[0], user)
            elif style:
                user = BARE.sub("", user.lower()) if style == "bare" else user.lower()
            yield from ({"role": "user", "content": user}, {"role": "assistant", "content": assistant})


KINDS = ((0.09, Teller.obey), (0.24, Teller.ask), (0.28, Teller.quiz), (1.0, Teller.talk))  # cumulative shares


def conversation(index: int, seed: int = 0) -> dict[str, Any]:
    """One conversation as a record: {"messages": [{"role", "content"}, ...]}."""
    return {"messages": list(Teller(index, seed).messages())}


def conversations(n: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """The first n conversations in order; a few occur twice."""
    return (conversation(index, seed) for index in range(n))


def main(arguments: Sequence[str]) -> None:
    """Prints some conversations: the first argument says how many, the second one is the seed."""
    count, seed = (int(argument) for argument in (*arguments[:2], *("1", "0")[len(arguments) :]))
    for record in conversations(count, seed):
        print(*(f"{turn['role']:>9}: {turn['content']}" for turn in record["messages"]), sep="\n", end="\n\n")


def number(request: RecipeRequest) -> int:
    """How many conversations to make: twice as many as the user wants is enough, because only a few occur twice."""
    return max(DOCUMENTS, 2 * (request.max_documents or 0))


RECIPE = Recipe(
    name="chitchat",
    summary="small conversations: greetings, small talk, simple questions, and what was said before",
    licence="MIT (made here)",
    source="made by recipes/chitchat.py",
    size="about 20,000 conversations, 9.4 MB",
    sources=("sample",),
    documents=lambda request: (("", record) for record in conversations(number(request), request.seed)),
    seeded=True,
)

if __name__ == "__main__":
    main(sys.argv[1:])
