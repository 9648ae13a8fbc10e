"""evaluation/questions.py: JSONL files of questions, and one sentence for each kind of bad line."""

from __future__ import annotations

import json

import pytest

from evaluation.questions import Question, read_questions
from utils import UserError

GOOD = {"context": "One", "choices": [" two", " three"], "answer": 1}


def test_a_file_is_read_in_order(tmp_path):
    lines = [json.dumps(GOOD), "", json.dumps(GOOD | {"context": "", "source": "other fields are ignored"})]
    (tmp_path / "q.jsonl").write_text("\n".join(lines))
    assert read_questions(tmp_path / "q.jsonl") == [
        Question("One", (" two", " three"), 1),
        Question("", (" two", " three"), 1),
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "not JSON: Expecting property name enclosed in double quotes"),
        ("[]", "must be a JSON object"),
        (b"\xff", "not UTF-8 text"),
        ("[" * 100_000, "nested too deeply"),
        (GOOD | {"context": None}, '"context" must be a string'),
        (GOOD | {"choices": [" two"]}, '"choices" must be a list of two or more strings, none empty'),
        (GOOD | {"choices": " two"}, '"choices" must be'),
        (GOOD | {"choices": [" two", ""]}, '"choices" must be'),
        (GOOD | {"choices": [" two", 3]}, '"choices" must be'),
        (GOOD | {"answer": 2}, '"answer" must be the number of the right choice, from 0 to 1'),
        (GOOD | {"answer": -1}, '"answer" must be'),
        (GOOD | {"answer": True}, '"answer" must be'),
        (GOOD | {"answer": "1"}, '"answer" must be'),
        (GOOD | {"context": "\ud800"}, "half of a surrogate pair"),
    ],
)
def test_a_bad_line_is_one_sentence_with_its_number(tmp_path, line, said):
    line = line if isinstance(line, bytes) else (line if isinstance(line, str) else json.dumps(line)).encode()
    path = tmp_path / "q.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\n" + line)
    with pytest.raises(UserError) as error:
        read_questions(path)
    assert str(error.value).startswith(f"'{path}', line 2: ") and said in str(error.value)
    assert str(error.value).count(". ") == 0 and str(error.value).endswith("correct this line.")


def test_a_file_without_questions_is_an_error(tmp_path):
    (tmp_path / "q.jsonl").write_text("\n")
    with pytest.raises(UserError, match="has no questions"):
        read_questions(tmp_path / "q.jsonl")
