"""Tests of the small conversations: reproducible, varied, and true to what was said before."""

from __future__ import annotations

import collections
import hashlib
import json
import pathlib
import re
import subprocess
import sys

import pytest

from jojo.text.documents import record_messages
from recipes import chitchat
from recipes.recipe import RecipeRequest, find_recipe
from recipes.word_files import entries

ROOT = pathlib.Path(__file__).resolve().parents[2]
Talk = tuple[list[dict[str, str]], chitchat.Teller]

# Words that the assistant may use after "my". All others ("my weekend", "my dog") belong to people.
OWN = {
    "pleasure",
    "own",
    "first",
    "field",
    "parrot",
    "name",
    "attention",
    "best",
    "limits",
    "job",
    "favorite",
    "friend",
}
OWN |= {"guess", "day", "turn"}
NAMES = entries("chitchat", "names")
NEVER_DONE = re.compile(
    r"\bI (ate|slept|went|saw|cooked|drank|walked|visited|watched|lived|grew|bought|played|swam|woke|dreamed|met|heard)\b"
    r"|\bI (live|work) (in|at|on)\b|\bI'm (hungry|tired|human|a person)\b|\b(here|outside) it's (sunny|raining|cold)\b"
)


@pytest.fixture(scope="module")
def talks() -> list[Talk]:
    """20,000 conversations, each with its Teller, which has the texts that were drawn."""
    tellers = [chitchat.Teller(index) for index in range(20_000)]
    return [(list(teller.messages()), teller) for teller in tellers]


def scenes(*files: str) -> list[chitchat.Scene]:
    return [scene for file in files for scene in chitchat.scenes(file)]


def spoken(messages: list[dict[str, str]], role: str) -> list[str]:
    return [message["content"] for message in messages if message["role"] == role]


def scenes_of(teller: chitchat.Teller) -> list[str]:
    return [scene.name for scene, _ in teller.used]


def unquoted(text: str) -> str:
    return re.sub(r'"[^"]*"', '""', text)


def test_same_conversations_in_another_process() -> None:
    code = (
        "import hashlib, json; from recipes.chitchat import conversations;"
        "print(hashlib.sha256(json.dumps(list(conversations(200, seed=7))).encode()).hexdigest())"
    )
    environment = {"PYTHONHASHSEED": "123", "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=True)
    here = hashlib.sha256(json.dumps(list(chitchat.conversations(200, seed=7))).encode()).hexdigest()
    assert run.stdout.decode().strip() == here


@pytest.mark.parametrize(
    ("seed", "count", "digest"),
    [
        (0, 20_000, "ca34ec444cd77d38f5feea9128b26c6ee85ec2fc7777123c5abea117d34337a2"),
        (1, 2_000, "89e0f451cfdf428a6e3ca909eb63cb1764625c30017250b51e7143ec24384328"),
        (2, 2_000, "cdbda3a0ccb69e3ddd155bd2128d23092399fbd2c2687cad3b04f019b5a6bd7d"),
    ],
)
def test_same_conversations_on_every_machine(seed: int, count: int, digest: str) -> None:
    """The recorded hashes change when the words change, and must not change otherwise."""
    sha256 = hashlib.sha256()
    for record in chitchat.conversations(count, seed):
        sha256.update(json.dumps(record).encode() + b"\n")
    assert sha256.hexdigest() == digest


def test_a_conversation_does_not_depend_on_how_many_are_asked_for() -> None:
    many = list(chitchat.conversations(30, seed=2))
    assert list(chitchat.conversations(5, seed=2)) == many[:5]
    assert chitchat.conversation(29, seed=2) == many[29]
    assert chitchat.conversation(29, seed=3) != many[29]


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    chitchat.main(["3", "1"])
    printed = capsys.readouterr().out
    assert printed.strip().count("\n\n") == 2
    assert all(chitchat.conversation(index, 1)["messages"][-1]["content"] in printed for index in range(3))


def test_recipe() -> None:
    documents = list(find_recipe("chitchat").documents(RecipeRequest("sample", seed=5)))
    assert len(documents) == chitchat.DOCUMENTS
    assert {split for split, _ in documents} == {""}
    assert documents[9][1] == chitchat.conversation(9, seed=5)
    assert record_messages(documents[0][1])


def test_roles_alternate_and_the_assistant_ends(talks: list[Talk]) -> None:
    for messages, _ in talks:
        roles = [message["role"] for message in messages]
        turns = roles[1:] if roles[0] == "system" else roles
        assert turns == ["user", "assistant"] * (len(turns) // 2), messages
        assert 2 <= len(turns) <= 8, messages


def test_lengths(talks: list[Talk]) -> None:
    pairs = collections.Counter(len(teller.pairs) for _, teller in talks)
    assert min(pairs[number] for number in (1, 2, 3, 4)) > 0.05 * len(talks)
    assert 0.04 < sum(messages[0]["role"] == "system" for messages, _ in talks) / len(talks) < 0.12
    for messages, _ in talks:
        assert all(len(message["content"].split()) <= 60 for message in messages), messages
    words = [sum(len(message["content"].split()) for message in messages) for messages, _ in talks]
    assert max(words) <= 180 and 45 < sum(words) / len(words) < 60


def test_conversations_are_distinct(talks: list[Talk]) -> None:
    assert len({json.dumps(messages) for messages, _ in talks}) > 0.99 * len(talks)


def test_distinct_word_sequences(talks: list[Talk]) -> None:
    """38,900 of the 42,600 8-grams in 1,000 conversations are distinct, 12,700 of 15,700 within one turn."""
    across, within = set[tuple[str, ...]](), set[tuple[str, ...]]()
    for messages, _ in talks[:1000]:
        turns = [message["content"].lower().split() for message in messages]
        for found, texts in ((across, [[word for turn in turns for word in turn]]), (within, turns)):
            found.update(tuple(text[start : start + 8]) for text in texts for start in range(len(text) - 7))
    assert len(across) > 37_500 and len(within) > 12_000


def test_nobody_says_a_sentence_twice(talks: list[Talk]) -> None:
    for messages, _ in talks[:2000]:
        for role in ("user", "assistant"):
            parts = [part.split() for text in spoken(messages, role) for part in re.split("[.!?:]", unquoted(text))]
            said = collections.Counter(" ".join(part).lower() for part in parts if len(part) > 3)
            assert not said or max(said.values()) == 1, messages


def test_no_reply_is_too_common(talks: list[Talk]) -> None:
    replies = collections.Counter(reply for messages, _ in talks for reply in spoken(messages, "assistant"))
    reply, count = replies.most_common(1)[0]
    assert count < 0.005 * replies.total(), reply


def test_every_scene_occurs(talks: list[Talk]) -> None:
    counts = collections.Counter(name for _, teller in talks for name in scenes_of(teller))
    every = {scene.name for scene in scenes(chitchat.TALK, chitchat.QUESTIONS, chitchat.MANNERS, chitchat.SYSTEMS)}
    assert counts.keys() == every
    assert min(counts.values()) > 40, counts


def test_typography(talks: list[Talk]) -> None:
    mistakes = re.compile(
        r"[{}\[\]|<>@/_*]|  | [.,!?:]|[.,!?:][A-Za-z]|,,|\.\.(?!\.)(?<!\.\.\.)|[!?,:][.,!?:](?<!\?!)|\bi\b"
    )
    for messages, _ in talks[:8000]:
        for text in spoken(messages, "assistant") + spoken(messages, "system"):
            assert text == text.strip() and not mistakes.search(text), (mistakes.search(text), text)
            assert text[0].isupper() or text[0] == '"', text
            assert not re.search(r'[^.][.!?]"? [a-z]', text), text
            assert re.search(r'[.!?]"?$', text) and text.count('"') % 2 == 0, text
        for text in spoken(messages, "user"):
            assert text == text.strip() and not re.search(r"[{}\[\]|<>@/_*]|  | [.,!?:]", text), text


def test_articles(talks: list[Talk]) -> None:
    for messages, _ in talks[:8000]:
        for text in (message["content"].lower() for message in messages):
            for article, word in re.findall(r"(?<![\w'-])(an?) ([a-z]+)", text):
                if word not in {"one", "hour", "ukulele"}:
                    assert (article == "an") == (word[0] in "aeiou"), (article, word, text)


def test_no_repeated_words(talks: list[Talk]) -> None:
    for messages, _ in talks[:8000]:
        for text in spoken(messages, "assistant"):
            assert not re.search(r"\b(the|a|an|to|and|of|in|is|was|it|he|she|i|you|your|my) \1\b", text.lower()), text


def test_names_were_given_before(talks: list[Talk]) -> None:
    """The assistant uses a name only after a user's turn or the system prompt has used it."""
    named = 0
    for messages, _ in talks:
        before = ""
        for message in messages:
            if message["role"] == "assistant":
                names = set(re.findall(r"[A-Z][a-z]+", message["content"])) & {*NAMES}
                assert all(re.search(rf"\b{name}\b", before, re.IGNORECASE) for name in names), messages
                named += len(names)
            before += " " + message["content"]
    assert named > 5000


def test_the_given_name_is_used_later(talks: list[Talk]) -> None:
    """If the user asks for the name, the answer is the name that was given; no other name is used."""
    asked = called = 0
    question = re.compile(
        r"(tell me|know|remember|what'?s|was) (my name( again)?|who i am|what i'?m called)\??$|\bwho am i\??$"
    )
    for messages, teller in (one for one in talks if not one[1].system):
        users, replies = spoken(messages, "user"), spoken(messages, "assistant")
        for number, (user, reply) in enumerate(zip(users, replies, strict=True)):
            known = re.search(rf"\b{teller.name}\b", " ".join(users[:number]), re.IGNORECASE) if teller.name else None
            if known and question.search(user.lower()):
                asked += 1
                assert teller.name in reply, messages
            if called_by := re.search(r", ([A-Z][a-z]+)[.!]$", reply):
                called += called_by[1] == teller.name
                assert called_by[1] == teller.name or called_by[1] not in NAMES, messages
    assert asked > 200 and called > 300


def always_has(line: str, slot: str) -> bool:
    """Whether a line has a slot, or another form of it, in all its alternatives."""
    has = re.compile(rf"\{{(a_|your_)?{slot}\}}")
    while "[" in line:
        line = chitchat.CHOICE.sub(
            lambda choice: f"{{{slot}}}" if all(map(has.search, choice[1].split("/"))) else "", line
        )
    return bool(has.search(line))


def test_what_is_said_back_was_said_before() -> None:
    """For all drawn texts, the answer to a question about an earlier turn was said in an earlier turn."""
    for scene in scenes(chitchat.TALK):
        for answer in scene.lines.get("R", []):
            slots = {re.sub(r"^(a|your)_", "", slot) for slot in re.findall(r"\{(\w+)\}", answer)}
            assert slots, (scene.name, answer)
            for slot in slots - {"khe", "khim", "khis"}:  # pronouns
                said = [all(always_has(way, slot) for way in turn) for pair in scene.pairs for turn in pair]
                assert any(said), (scene.name, slot)


def test_the_assistant_claims_no_life_of_its_own(talks: list[Talk]) -> None:
    for messages, teller in talks:
        for reply in map(unquoted, spoken(messages, "assistant")):
            assert not NEVER_DONE.search(reply), reply
            assert {word.lower() for word in re.findall(r"\b[Mm]y ([A-Za-z]+)", reply)} <= OWN, (
                reply,
                scenes_of(teller),
            )


def test_last_replies_of_scenes_ask_nothing() -> None:
    for scene in scenes(chitchat.TALK):
        for reply in scene.pairs[-1][1]:
            assert "?" not in re.sub(r"\{\w+\}\? (\[[^\]]*\] )?", "", reply)[-3:], (scene.name, reply)


def test_every_slot_is_filled_and_every_column_is_used() -> None:
    for scene in scenes(chitchat.TALK, chitchat.QUESTIONS, chitchat.SYSTEMS):
        fields = chitchat.Teller(0).draw(scene) | {"fact": "", "question": ""}
        turns = [line for pair in scene.pairs for lines in pair for line in lines]
        turns += [line for lines in scene.lines.values() for line in lines]
        used = {slot for line in turns for slot in re.findall(r"\{(\w+)\}", line)}
        assert used <= fields.keys(), (scene.name, used - fields.keys())


MANNERS = {
    "short": lambda reply: reply.count(".") == 1 and len(reply.split()) <= 15,
    "few words": lambda reply: len(reply.split()) <= 4 and not re.search(r"\b(is|are|says) ", reply),
    "cheerful": lambda reply: reply.endswith("!"),
    "polite": lambda reply: "'" not in reply and "!" not in reply,
    "question back": lambda reply: reply.endswith("?"),
    "pirate": lambda reply: re.match(r"(Arr|Ahoy|Yo ho|Aye)!", reply),
    "robot": lambda reply: "beep" in reply.lower(),
    "system short": lambda reply: len(re.findall(r"[.!?]", reply)) == 1 and len(reply.split()) <= 12,
    "system cheerful": lambda reply: "!" in reply,
}


def test_system_prompts_are_obeyed(talks: list[Talk]) -> None:
    for messages, teller in talks:
        if messages[0]["role"] != "system":
            continue
        scene, fields = teller.used[0]
        replies = spoken(messages, "assistant")
        if scene.name in MANNERS:
            assert all(MANNERS[scene.name](reply) for reply in replies), messages
        elif scene.name == "by name":
            assert fields["name"] in messages[0]["content"]
            assert all(fields["name"] in reply for reply in replies), messages
        elif scene.name == "first word":
            assert all(reply.lower().startswith(fields["word"]) for reply in replies), messages
        elif scene.name == "topic":
            refused = [f"about {fields['about']}" in reply for reply in replies]
            assert refused == [number % 2 == 1 for number in range(len(replies))], messages
        elif scene.name == "system name":
            assert fields["botname"] in replies[0]
        elif scene.name == "system user":
            assert fields["name"] in replies[0] and fields["name"] == teller.name
        else:
            assert scene.name == "system place"
            assert fields["open"] in replies[0] and fields["close"] in replies[0], messages
            assert len(replies) < 3 or f"{fields['day']}s" in replies[2], messages
