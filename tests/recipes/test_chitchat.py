"""Tests of the small conversations: reproducible, true to what was said before, and judged strictly."""

from __future__ import annotations

import hashlib
import json
import pathlib
import random
import re
import subprocess
import sys

import pytest

from jojo.text.documents import record_messages
from recipes import chitchat
from recipes.recipe import RecipeRequest, find_recipe

ROOT = pathlib.Path(__file__).resolve().parents[2]
Messages = list[dict[str, str]]
MUTATIONS = (("qux", 1), ("qux", 0), ("", 1), ("too", 1))  # a word, and how many words of the answer it replaces
UNKNOWN = "I'm sorry, I don't know about that."


@pytest.fixture(scope="module")
def tellers() -> list[chitchat.Teller]:
    """4,000 conversations; every 80th has names and wordings for validation only."""
    return [chitchat.Teller(index) for index in range(4000)]


def talk(*users: str) -> Messages:
    """The turns of a user; what the assistant answered decides nothing."""
    turns = [[{"role": "user", "content": user}, {"role": "assistant", "content": "Yes."}] for user in users]
    return [turn for pair in turns for turn in pair][:-1]


def prefixes(teller: chitchat.Teller) -> list[tuple[Messages, str]]:
    """The conversation up to each answer, and the answer."""
    return [(teller.messages[: n + 1], teller.messages[n + 1]["content"]) for n in range(0, len(teller.messages), 2)]


# --- the conversations --------------------------------------------------------------------------------------------------


def test_same_conversations_in_another_process() -> None:
    code = (
        "import hashlib, json; from recipes.chitchat import conversation;"
        "print(hashlib.sha256(json.dumps([conversation(i, 7) for i in range(200)]).encode()).hexdigest())"
    )
    environment = {"PYTHONHASHSEED": "123", "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=True)
    here = json.dumps([chitchat.conversation(index, 7) for index in range(200)])
    assert run.stdout.decode().strip() == hashlib.sha256(here.encode()).hexdigest()


@pytest.mark.parametrize(
    ("seed", "digest"),
    [
        (0, "170c143d6e9e3523f28db51d619fe61d17e51ed0fcfa8c90195f0de166ec5bda"),
        (1, "7a768245ccfd5f36515e4b97c566247f0fee3b5c5150ac65d080d2ce82c8920c"),
    ],
)
def test_same_conversations_on_every_machine(seed: int, digest: str) -> None:
    """The recorded hashes change when the words change, and must not change otherwise."""
    sha256 = hashlib.sha256()
    for index in range(2000):
        sha256.update(json.dumps(chitchat.conversation(index, seed)).encode() + b"\n")
    assert sha256.hexdigest() == digest


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    chitchat.main(["3", "1"])
    printed = capsys.readouterr().out
    assert printed.strip().count("\n\n") == 2
    assert all(chitchat.conversation(index, 1)["messages"][-1]["content"] in printed for index in (1, 2, 3))


def test_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chitchat, "DOCUMENTS", 100)
    recipe = find_recipe("chitchat")
    documents = list(recipe.documents(RecipeRequest("sample", seed=5)))
    assert [split for split, _ in documents] == ["train" if index % 80 else "val" for index in range(100)]
    assert documents[9][1] == chitchat.conversation(9, seed=5) and record_messages(documents[0][1])
    assert recipe.accepts is chitchat.accepts and find_recipe("story").accepts is None


def test_roles_alternate_and_the_assistant_ends(tellers: list[chitchat.Teller]) -> None:
    for teller in tellers:
        roles = [message["role"] for message in teller.messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2) and 2 <= len(roles) <= 18


def test_variety(tellers: list[chitchat.Teller]) -> None:
    """60 kinds of exchange and more, all of them used, 10,000 different turns of the user, and 600 names."""
    assert {exchange for teller in tellers for exchange in teller.used} == {*chitchat.exchanges()}
    assert len(chitchat.exchanges()) >= 60 and len({*chitchat.words("names")}) >= 600
    assert len({turn["content"] for teller in tellers for turn in teller.messages if turn["role"] == "user"}) > 10_000
    assert len({json.dumps(teller.messages) for teller in tellers}) > 0.95 * len(tellers)


def test_typography(tellers: list[chitchat.Teller]) -> None:
    mistakes = re.compile(r"[{}\[\]|<>@/_*]|  | [.,!?:]|[.,!?:][A-Za-z]|[!?,:.][.,!?:]|\bi\b")
    for teller in tellers:
        for answer in (turn["content"] for turn in teller.messages if turn["role"] == "assistant"):
            assert answer == answer.strip() and not mistakes.search(answer), answer
            assert re.match(r"[A-Z\d]", answer) and answer[-1] in ".!?" and not re.search(r"[.!?] [a-z]", answer), (
                answer
            )
        for user in (turn["content"] for turn in teller.messages if turn["role"] == "user"):
            assert user == user.strip() and not re.search(r"[{}\[\]|<>@_*]|  ", user), user


def test_articles(tellers: list[chitchat.Teller]) -> None:
    for teller in tellers:
        for text in (turn["content"].lower() for turn in teller.messages):
            for article, word in re.findall(r"(?<![\w'-])(an?) ([a-z]+)", text):
                if word not in {"hour"}:
                    assert (article == "an") == (word[0] in "aeiou"), (article, word, text)


def test_training_never_sees_what_is_for_validation(tellers: list[chitchat.Teller]) -> None:
    for section in ("names", "pets", "towns", "things", "beasts", "lands"):
        assert not {*chitchat.words(section)} & {*chitchat.words(f"{section} unseen")}
    for slot in chitchat.known("")[0].keys() & chitchat.known(" unseen")[0].keys():
        raise AssertionError(slot)
    for exchange in chitchat.exchanges():
        seen, unseen = (chitchat.wordings(exchange, which) for which in ("", " unseen"))
        assert unseen and not {*map(chitchat.clean, seen)} & {*map(chitchat.clean, unseen)}, exchange.name
    told = {
        word for teller in tellers if not teller.unseen for turn in teller.messages for word in turn["content"].split()
    }
    assert not {name for name in chitchat.words("names unseen") if told & {name, f"{name}.", f"{name}!"}}


# --- the judge ----------------------------------------------------------------------------------------------------------


def test_the_generators_own_answers_are_accepted(tellers: list[chitchat.Teller]) -> None:
    for teller in tellers:
        for (messages, answer), exchange in zip(prefixes(teller), teller.used, strict=True):
            assert chitchat.accepts(messages, answer), (messages, answer)
            understood, _ = chitchat.understand(messages[-1]["content"])
            assert understood is exchange or exchange.group == "unknown", messages[-1]


def test_wrong_answers_are_refused(tellers: list[chitchat.Teller]) -> None:
    """Truncated, doubled, empty, with a word changed, left out or swapped, and the answers to other turns."""
    rng = random.Random(1)
    others = [(a, e) for t in tellers[1000:1200] for (_, a), e in zip(prefixes(t), t.used, strict=True)]
    for teller in tellers[:300]:
        for messages, answer in prefixes(teller):
            words = answer.split()
            at, (other, of_other) = rng.randrange(len(words)), rng.choice(others)
            wrong = ["", answer[:-1], " ".join(words[:-1]), f"{answer} {answer}", f"{answer} {other}", f"{answer} Yes."]
            wrong += [" ".join([*words[:at], inserted, *words[at + skipped :]]) for inserted, skipped in MUTATIONS]
            kind, _ = chitchat.understand(messages[-1]["content"])
            wrong += [other] if not {*kind.answers, *kind.otherwise} & {*of_other.answers, *of_other.otherwise} else []
            for text in wrong:
                assert not chitchat.accepts(messages, text), (messages, text)


@pytest.mark.parametrize(
    ("users", "right", "wrong"),
    [
        (["My name is Zork."], "Nice to meet you, Zork!", "Nice to meet you, Zack!"),
        (["Call me Ann", "What is my name?"], "Your name is Ann.", "Your name is Anna."),
        (["I'm Ann.", "Is a rose a flower?", "who am i"], "Your name is Ann.", "I don't know your name. What is it?"),
        (["What is my name?"], "I don't know your name. What is it?", "Your name is Ann."),
        (["I'm Ann.", "Actually, my name is Bo.", "What's my name?"], "Your name is Bo.", "Your name is Ann."),
        (["I'm Ann.", "Bye!"], "Goodbye, Ann! See you soon.", "Goodbye! See you soon."),
        (["Bye!"], "Goodbye! See you soon.", "Goodbye, Ann! See you soon."),
        (["What is the capital of France?"], "The capital of France is Paris.", "The capital of France is Rome."),
        (["what is the capital of italy"], "The capital of Italy is Rome.", "The capital of France is Paris."),
        (["What is the capital of Atlantis?"], UNKNOWN, "The capital of Atlantis is Paris."),
        (["Who won the chess game?"], "I don't know about that. I am only a small model.", "A piano."),
        (["My favorite color is red.", "My favorite food is rice.", "What is my favorite color?"], "Your favorite color is red.",
         "Your favorite color is rice."),
        (["I have a cat named Bo.", "I'm Ann.", "What is my pet called?"], "You have a cat called Bo.",
         "You have a cat called Ann."),
        (["Is a rose an animal?"], "No, a rose is a flower.", "Yes, a rose is an animal."),
        (["Which is bigger, a mouse or a dog?"], "A dog is bigger than a mouse.", "A mouse is bigger than a dog."),
        (["What is 2 + 3?"], "2 + 3 is 5.", "2 + 3 is 6."),
        (["I will bake a cake tomorrow.", "What is my plan?"], "Tomorrow you want to bake a cake.",
         "Tomorrow you want to bake bread."),
    ],
)  # fmt: skip
def test_judgements(users: list[str], right: str, wrong: str) -> None:
    assert chitchat.accepts(talk(*users), right) and not chitchat.accepts(talk(*users), wrong)
