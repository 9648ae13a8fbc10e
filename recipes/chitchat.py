"""The `chitchat` data set: small conversations, made from a seed, and a judge of answers to them.

A conversation is a row of exchanges: the user says something, the assistant answers. What the user tells (a name, a pet, a
plan) is remembered, and asked for later. One exchange in ten is something that the assistant does not know, and says so.
Validation conversations have names and wordings that training never sees. The words are in recipes/words/chitchat*.txt.

Look at five conversations (a second number is the seed): ``python -m recipes.chitchat 5``. Add an exchange: write it into
chitchat_talk.txt, where the format is explained, and run ``pytest tests/recipes/test_chitchat.py``. The same index and
seed give the same conversation on every machine: every random number is from ``random.Random.random()``.
"""

from __future__ import annotations

import itertools
import random
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from recipes.recipe import Recipe, RecipeRequest
from recipes.word_files import entries, sections

T = TypeVar("T")
Fields = dict[str, str]  # slot -> the text drawn for it
Memory = dict[str, Fields]  # what the user told -> its fields

DOCUMENTS = 40_000
VALIDATION_EVERY = 80  # every 80th conversation is in the validation split: 500 of them
MOST_EXCHANGES = 9
INVENTED = 0.6  # share of the names that are made of two others: a model learns to copy a name, not to know it
SLOT = re.compile(r"\{(\w+)\}")
CHOICE = re.compile(r"\[([^\[\]]*)\]")
NAME = r"(?-i:[A-Z])[\w-]*"
OPEN = {"name": NAME, "pet": NAME, "town": NAME, "word": r".+"}  # slots that are in no table, and what may be in them
# The shares of the groups in the middle of a conversation. "repeat" has many: it teaches a model to copy, which names need.
SHARES = {"know": 32, "recall": 26, "tell": 13, "unknown": 9, "repeat": 8, "bot": 5, "talk": 5, "ask": 2}  # percent


@dataclass(frozen=True, eq=False)  # eq: compared by identity
class Exchange:
    """One kind of exchange: a section of chitchat_talk.txt."""

    name: str
    group: str
    rows: list[Fields]
    users: list[str]
    unseen: list[str]  # the wordings that only validation conversations have
    asked: list[str]  # noun phrases, for the frames
    answers: list[str]
    otherwise: list[str]  # the answers if the user has not told what `answers` need


# --- reading the words ------------------------------------------------------------------------------------------------


@cache
def words(section: str) -> list[str]:
    """The words of a section: divided by semicolons, or by spaces if it has none."""
    text = sections("chitchat")[section]
    return " ".join(text.split()).split(" ; ") if ";" in text else text.split()


@cache
def macros() -> dict[str, list[str]]:
    """The rows of the tables that are computed here."""
    opposites = [pair.split() for pair in words("opposites")]
    sorts = dict(entry.split(" = ") for entry in entries("chitchat", "sorts"))
    kinds = {thing: sort for sort, things in sorts.items() for thing in things.split(" ; ")}
    sums = [(f"{a} {sign} {b}", a + b) for a in range(1, 11) for b in range(1, 11) for sign in ("+", "plus")]
    sums += [(f"{a} {sign} {b}", a - b) for a in range(2, 11) for b in range(1, a) for sign in ("-", "minus")]
    calendar = []
    for unit in ("day", "month"):
        names = words(f"{unit}s")
        for one, following in zip(names, [*names[1:], names[0]], strict=True):
            calendar += [f"the {unit} after {one} | {following}", f"the {unit} before {following} | {one}"]
    sizes = []
    for entry in entries("chitchat", "sizes"):
        (more, less), things = (side.split(end) for side, end in zip(entry.split(" = "), (" ", " ; "), strict=True))
        for small, big in itertools.combinations(things, 2):
            sizes.append(f"{small} | {big} | {more} | {big} is {more} than {small}")
            sizes.append(f"{small} | {big} | {less} | {small} is {less} than {big}")
    right = [f"{thing} | {sort} | yes, {thing} is {sort}" for thing, sort in kinds.items()]
    wrong = [f"{t} | {other} | no, {t} is {sort}" for t, sort in kinds.items() for other in sorts if other != sort]
    return {
        "opposites": [f"{a} | {b}" for pair in opposites for a, b in (pair, pair[::-1])],
        "plurals": [" | ".join(pair.split()) for pair in words("plurals")],
        "pasts": [" | ".join(pair.split()) for pair in words("pasts")],
        "sums": [f"{text} | {result}" for text, result in sums],
        "numbers": [f"after {n} | {n + 1}" for n in range(30)] + [f"before {n} | {n - 1}" for n in range(1, 31)],
        "counting": [
            *(f"to {n} | {', '.join(map(str, range(1, n + 1)))}" for n in range(2, 13)),
            *(
                f"from {a} to {a + n} | {', '.join(map(str, range(a, a + n + 1)))}"
                for a in range(1, 8)
                for n in range(2, 6)
            ),
            *(f"down from {n} | {', '.join(map(str, range(n, 0, -1)))}" for n in range(3, 11)),
        ],
        "ages": [str(age) for age in range(5, 91)],
        "calendar": calendar,
        "sizes": sizes,
        "sorts": [f"{thing} | {sort}" for thing, sort in kinds.items()],
        "guesses": right * (len(sorts) - 1) + wrong,  # one half of the guesses is right
    }


def _parse_exchange(head: str, body: str) -> Exchange:
    """Parses a section of chitchat_talk.txt."""
    name, _, group = head.partition(": ")
    lines = dict(re.findall(r"^([A-Z]): (.*)$", re.sub(r"\n {2,}", " ", body), re.MULTILINE))
    ways = {letter: re.split(r" +\|\| +", lines[letter]) if letter in lines else [] for letter in "UVNAE"}
    columns, _, table = lines.get("T", "").partition(" = ")
    names = columns.split(" | ")
    rows = macros()[table[1:-1]] if table.startswith("<") else re.split(" +; +", table) if table else []
    cells = [dict(zip(names, row.split(" | "), strict=True)) for row in rows] or [dict[str, str]()]
    return Exchange(name, group, cells, ways["U"], ways["V"], ways["N"], ways["A"], ways["E"])


@cache
def exchanges() -> list[Exchange]:
    """All kinds of exchange, in the order of the file."""
    return [_parse_exchange(head, body) for head, body in sections("chitchat_talk").items()]


def find(name: str) -> Exchange:
    """The exchange of this name."""
    return next(exchange for exchange in exchanges() if exchange.name == name)


@cache
def groups() -> dict[str, dict[Exchange, float]]:
    """The exchanges of each group with their shares. Those with many facts come more often, as each has to be learned."""
    found: dict[str, dict[Exchange, float]] = {}
    for exchange in exchanges():
        share = min(len(exchange.rows), 100) ** 0.5 if exchange.group == "know" else 1.0
        found.setdefault(exchange.group, {})[exchange] = share
    return found


# --- what is said -----------------------------------------------------------------------------------------------------


@cache
def unfolded(text: str) -> list[str]:
    """All texts that the choices in a text, "[one/or another]", can give."""
    parts = [part.split("/") if number % 2 else [part] for number, part in enumerate(CHOICE.split(text))]
    return [" ".join("".join(chosen).split()) for chosen in itertools.product(*parts)]


def finish(text: str, fields: Fields) -> str:
    """Fills the slots and begins sentences with a capital."""
    text = re.sub(r" (?=[,.!?])", "", text.format_map(fields))
    return re.sub(r"(?:^|(?<=[.!?] ))[a-z]", lambda start: start[0].upper(), text)


def key_of(exchange: Exchange, fields: Fields) -> str:
    """What is told and recalled under the same key: "name" (of "tell name", "my name"), "favorite color"."""
    return f"{exchange.name.split()[-1]} {fields.get('topic', '')}".strip()


def reply(exchange: Exchange, fields: Fields, memory: Memory) -> list[str]:
    """All right answers to what the user says. What the user tells is put into `memory`."""
    if exchange.group == "tell":
        memory[key_of(exchange, fields)] = fields
    told = memory.get(key_of(exchange, fields), {}) if exchange.group == "recall" else {}
    ways = exchange.answers if told or exchange.group != "recall" else exchange.otherwise
    name = memory.get("name", {}).get("name")
    ways = [way.replace("@", f", {name}" if name else "") for way in ways]
    return [finish(text, {**fields, **told}) for way in ways for text in unfolded(way)]


# --- making a conversation --------------------------------------------------------------------------------------------


class Teller:
    """Makes one conversation; all random numbers are from one generator."""

    def __init__(self, index: int, seed: int = 0) -> None:
        self.uniform = random.Random(f"chitchat/{seed}/{index}").random
        self.unseen = " unseen" if index % VALIDATION_EVERY == 0 else ""
        self.memory: Memory = {}
        self.used: list[Exchange] = []
        self.messages: list[dict[str, str]] = []
        pairs = 1 + int(self.uniform() * MOST_EXCHANGES)
        while len(self.used) < pairs:
            self.add(self.next(is_last=len(self.used) == pairs - 1))

    def pick(self, items: Sequence[T]) -> T:
        """A random item; ``random.choice`` may give another one in another Python version."""
        return items[int(self.uniform() * len(items))]

    def weighted(self, shares: Mapping[T, float]) -> T:
        """A random key; its probability is proportional to its share."""
        ends = list(itertools.accumulate(shares.values()))  # sum() rounds differently in other Python versions
        at = self.uniform() * ends[-1]
        return next(item for item, end in zip(shares, ends, strict=True) if at < end)

    def next(self, is_last: bool) -> Exchange:
        """The kind of the next exchange."""
        chance = self.uniform()
        if not self.used and chance < 0.6:
            return self.weighted(groups()["start"] if chance < 0.2 else {find("tell name"): 1.0})
        if is_last and chance < 0.3:
            return self.weighted(groups()["end"])
        group, chance = self.weighted(SHARES), self.uniform()
        if group == "recall" and chance < 0.8:
            told = [key for key in self.memory if key != "name"]
            if told and chance < 0.45:
                return find(f"my {self.pick(told).split()[0]}")
            return find("my name")
        if group == "tell" and chance < 0.4:
            return find("tell name" if "name" not in self.memory else "new name")
        while (exchange := self.weighted(groups()[group])) in self.used and group not in ("know", "unknown", "repeat"):
            group = self.weighted(SHARES)
        return exchange

    def draw(self, slot: str) -> str:
        """A text for a slot that is in no table."""
        slot = slot.rstrip("2")
        if slot in ("name", "pet", "town") and not self.unseen and self.uniform() < INVENTED:
            cut = 1 + int(self.uniform() * 3)
            first, last = self.pick(words(f"{slot}s")), self.pick(words(f"{slot}s"))
            made = first[: cut + 1] + last[cut:]
            return first if made in words(f"{slot}s unseen") else made
        if slot == "word":
            nouns = " | ".join(macros()["plurals"]).split(" | ")
            count = 1 + int(self.uniform() * 4)
            return " ".join(self.pick(nouns) if self.uniform() < 0.3 else self.draw("name") for _ in range(count))
        if slot in ("year", "big"):
            low, high = (1700, 2030) if slot == "year" else (21, 99)
            return str(low + int(self.uniform() * (high - low)))
        return self.pick(words(f"{slot}s{self.unseen}"))

    def add(self, exchange: Exchange) -> None:
        """Adds what the user and the assistant say."""
        ways = exchange.unseen if self.unseen else exchange.users
        if exchange.asked and self.uniform() < 0.5:
            frame = self.pick(entries("chitchat", f"frames{self.unseen}"))
            ways = [frame.replace("{np}", asked) for asked in exchange.asked]
        user = self.pick(unfolded(self.pick(ways)))
        fields = dict(self.pick(exchange.rows))
        told = [key for key in self.memory if key.startswith("favorite ")]
        if exchange.name == "my favorite" and told and self.uniform() < 0.8:
            fields["topic"] = self.pick(told).split()[1]
        for slot in SLOT.findall(user):
            fields[slot] = fields.get(slot) or self.draw(slot)
        answer = self.pick(reply(exchange, fields, self.memory))
        self.used.append(exchange)
        self.messages.append({"role": "user", "content": self.styled(finish(user, fields), exchange, user)})
        self.messages.append({"role": "assistant", "content": answer})

    def styled(self, text: str, exchange: Exchange, user: str) -> str:
        """The user's text, perhaps with a word before or after it, in lower case or without punctuation."""
        chance = self.uniform()
        small = text if user[0] in "{I" else text[0].lower() + text[1:]
        if chance < 0.15 and exchange.group not in ("start", "end", "talk"):
            before = self.pick(entries("chitchat", "before"))
            return f"{before} {text if before[-1] in '.!:' else small}"
        if chance < 0.2 and exchange.group in ("know", "bot", "ask", "recall"):
            return f"{text.rstrip('.?!')} {self.pick(entries('chitchat', 'after'))}{text[-1]}"
        if chance > 0.75:
            text = text.lower() if exchange.group == "know" or not SLOT.search(user) else small
        return text.rstrip(".?!") if 0.7 < chance < 0.85 else text


def conversation(index: int, seed: int = 0) -> dict[str, Any]:
    """One conversation as a record: {"messages": [{"role", "content"}, ...]}."""
    return {"messages": Teller(index, seed).messages}


# --- judging an answer ------------------------------------------------------------------------------------------------


def clean(text: str) -> str:
    """A text without punctuation."""
    return " ".join(re.sub(r"[^\w\s{}+-]", "", text).split())


def wordings(exchange: Exchange, unseen: str) -> list[str]:
    """All that the user may say in an exchange, with empty slots. `unseen`: as in the names of sections, "" or " unseen"."""
    frames = entries("chitchat", f"frames{unseen}")
    asked = [frame.replace("{np}", noun) for noun in exchange.asked for frame in frames]
    return [text for way in (exchange.unseen if unseen else exchange.users) + asked for text in unfolded(way)]


@cache
def known(unseen: str) -> tuple[dict[str, tuple[Exchange, Fields]], list[tuple[Exchange, re.Pattern[str]]]]:
    """What the user may say in the exchanges that the assistant knows: texts, and patterns for those with a name."""
    texts, named = {}, []
    for exchange in (exchange for exchange in exchanges() if exchange.group != "unknown"):
        for text in wordings(exchange, unseen):
            slots = set(SLOT.findall(text))
            if slots <= exchange.rows[0].keys():
                texts.update({clean(text.format_map(row)).lower(): (exchange, row) for row in exchange.rows})
            else:
                pattern = SLOT.sub(lambda slot: f"(?P<{slot[1]}>{OPEN.get(slot[1], '.+')})", clean(text))
                named.append((exchange, re.compile(pattern, re.IGNORECASE)))
    return texts, sorted(named, key=lambda way: -len(way[1].pattern))  # the most specific first


@cache
def understand(user: str) -> tuple[Exchange, Fields]:
    """What the user says: the exchange and its fields. If it is nothing that the assistant knows, it should say so."""
    text = clean(user)
    before, after = ("|".join(clean(word) for word in entries("chitchat", side)) for side in ("before", "after"))
    shorter = re.sub(f"^(?:{before}) ", "", text, flags=re.IGNORECASE)
    ways = [text, shorter, re.sub(f" (?:{after})$", "", text), re.sub(f" (?:{after})$", "", shorter)]
    for way, unseen in itertools.product(ways, ("", " unseen")):
        if found := known(unseen)[0].get(way.lower()):
            return found
    for way, unseen in itertools.product(ways, ("", " unseen")):
        for exchange, pattern in known(unseen)[1]:
            if match := pattern.fullmatch(way):
                said = match.groupdict()
                for row in exchange.rows:
                    if all(row.get(slot, text).lower() == text.lower() for slot, text in said.items()):
                        return exchange, {**said, **row}
    return find("something else"), {}


def accepts(messages: Sequence[Mapping[str, str]], answer: str) -> bool:
    """Whether an answer to a conversation is right: one that the recipe itself might give to the user's last turn."""
    memory: Memory = {}
    right: list[str] = []
    for message in messages:
        if message["role"] == "user":
            right = reply(*understand(message["content"]), memory)
    return answer.strip() in right


def main(arguments: Sequence[str]) -> None:
    """Prints some conversations: the first argument says how many, the second one is the seed."""
    count, seed = (int(argument) for argument in (*arguments[:2], *("1", "0")[len(arguments) :]))
    for index in range(1, count + 1):
        record = conversation(index, seed)
        print(*(f"{turn['role']:>9}: {turn['content']}" for turn in record["messages"]), sep="\n", end="\n\n")


def documents(request: RecipeRequest) -> Iterator[tuple[str, dict[str, Any]]]:
    """The conversations, each with its split: twice as many as the user wants, because some occur twice."""
    for index in range(max(DOCUMENTS, 2 * (request.max_documents or 0))):
        yield "train" if index % VALIDATION_EVERY else "val", conversation(index, request.seed)


RECIPE = Recipe(
    name="chitchat",
    summary="small conversations: greetings, small talk, simple questions, and what was said before",
    licence="MIT (made here)",
    source="made by recipes/chitchat.py",
    size="about 39,000 conversations, 24 MB",
    sources=("sample",),
    documents=documents,
    seeded=True,
    tokenizer="chat",
    accepts=accepts,
)

if __name__ == "__main__":
    main(sys.argv[1:])
