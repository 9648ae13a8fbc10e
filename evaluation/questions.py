"""Questions with several choices, and the JSONL files that hold them.

One question a line, with the index of the right choice, from 0; other fields are ignored:

    {"context": "The cat sat on", "choices": [" the mat.", " the of."], "answer": 0}
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from utils import UserError

if TYPE_CHECKING:  # it imports NumPy, and evaluate.py --help needs the names of the tasks only
    from jojo.text.documents import Record


@dataclass(frozen=True)
class Question:
    """A context and the continuations to choose from."""

    context: str  # may be empty
    choices: tuple[str, ...]  # two or more; each follows the context exactly as written, so most begin with a space
    answer: int  # index of the right choice, from 0


def question_of(record: Record) -> Question:
    """The question in a JSON object. Raises ValueError for anything else; the message begins with a lower-case letter."""
    context, choices, answer = (record.get(name) for name in ("context", "choices", "answer"))
    if not isinstance(context, str):
        raise ValueError('"context" must be a string; it may be empty')
    if not (isinstance(choices, list) and len(choices) > 1 and all(isinstance(c, str) and c for c in choices)):
        raise ValueError('"choices" must be a list of two or more strings, none empty')
    if type(answer) is not int or not 0 <= answer < len(choices):
        raise ValueError(f'"answer" must be the number of the right choice, from 0 to {len(choices) - 1}')
    if any("\ud800" <= c <= "\udfff" for text in (context, *choices) for c in text):
        raise ValueError("a text has half of a surrogate pair, which is no character")
    return Question(context, tuple(choices), answer)


def read_questions(path: Path) -> list[Question]:
    """The questions of a JSONL file. Raises UserError for the first bad line, and for a file without questions."""
    from jojo.text.documents import describe_error, read_record

    questions = []
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                questions.append(question_of(read_record(line)))
            except ValueError as error:
                raise UserError(f"'{path}', line {number}: {describe_error(error)}; correct this line.") from None
    if not questions:
        raise UserError(f"'{path}' has no questions; write one a line, as docs/evaluation.md shows.")
    return questions
