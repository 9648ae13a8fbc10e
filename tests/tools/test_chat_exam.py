"""tools/chat_exam.py: it counts right answers, and a model reads its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers_run import listening, settle, train

from recipes.chitchat import accepts, conversation, understand
from tools import chat_exam

Messages = list[dict[str, str]]


@pytest.fixture(autouse=True)
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(tmp_path, monkeypatch)
    monkeypatch.setattr(chat_exam, "TALKS", 3)
    monkeypatch.setattr(chat_exam, "NAMES", 2)
    monkeypatch.setattr(chat_exam, "MOST_TALKS", 200)
    monkeypatch.setattr(chat_exam, "MAX_TOKENS", 4)
    train("--max_iters", "1")


def said(*flags: str) -> str:
    with listening() as lines:
        assert chat_exam.main(["models/mine_epoch1.pt", *flags]) == 0
    return "\n".join(lines)


def test_a_model_that_knows_nothing_has_nothing_right() -> None:
    lines = said("--show").splitlines()
    assert lines[-1] == "0 of 2 names are right in the fourth turn"
    assert lines[-2].startswith("0 of ") and lines[-2].endswith("answers are right, and 0 of 3 last ones")
    assert len([line for line in lines if line.startswith("  > ")]) == int(lines[-2].split()[2]) + 8


def test_right_answers_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(model: Any, tokenizer: Any, sampling: Any, messages: Messages, seed: int) -> Iterator[Messages]:
        return (messages[: n + 2] for n in range(0, len(messages), 2))

    monkeypatch.setattr(chat_exam, "own_answers", answers)
    assert said().endswith(" last ones\n2 of 2 names are right in the fourth turn") and "and 3 of 3 last" in said()


def test_the_model_reads_its_own_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Messages] = []

    def chat_prompt(tokenizer: Any, messages: Messages, room: int) -> tuple[list[int], int]:
        read.append(messages)
        return [tokenizer.eot_id], 0

    monkeypatch.setattr("generation.chat_prompt", chat_prompt)
    monkeypatch.setattr("generation.generate", lambda *prompt, **options: iter([[ord("A")], [ord("B")]]))
    said()
    assert read[0] == conversation(0, 1)["messages"][:1]
    longest = max(read, key=len)
    answers = {message["content"] for message in longest if message["role"] == "assistant"}
    assert len(longest) > 3 and len(answers) == 1 and not accepts(longest[:1], *answers)


def test_a_name_is_told_first_and_asked_for_in_the_fourth_turn() -> None:
    talks = [conversation(number * 80, 1)["messages"] for number in range(400)]
    named = [messages for messages in talks if chat_exam.asks_for_name(messages)]
    for messages in named:
        (told, fields), (asked, _) = understand(messages[0]["content"]), understand(messages[6]["content"])
        assert (told.name, asked.name) == ("tell name", "my name")
        assert accepts(messages[:7], f"Your name is {fields['name']}.")
    assert 4 < len(named) < 40
