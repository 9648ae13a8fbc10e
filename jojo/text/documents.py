"""Turns a line of JSON into token ids: the record forms that are accepted, and how each is rendered.

{"text": "..."}                                              plain text
{"messages": [{"role": "user", "content": "..."}, ...]}      a conversation ("conversation" is read too)
{"input": "...", "output": "..."}                            a question and its answer
{"instruction": "...", "input": "...", "output": "..."}      the same (Alpaca); "input" may be empty or missing
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jojo.text.tokenizer import Message, Tokenizer
from utils import one_line, parse_json

ROLES = {"system": "system", "user": "user", "human": "user"}
ROLES |= dict.fromkeys(("assistant", "gpt", "bot", "model"), "assistant")
Record = dict[str, Any]  # {"text"}, {"messages"} or {"input", "output"}, as above
Document = tuple[str, Record]  # its split ("train", "val", or "" if the source has no splits) and the record


class UnknownForm(ValueError):
    """A record that has none of the accepted forms."""


def read_record(line: bytes) -> Record:
    """The object in a line of JSON. Raises ValueError for anything else; describe_error gives the reason in words."""
    if b"\0" in line:  # json would take it for UTF-16
        raise ValueError("holds a NUL byte, so it is not UTF-8 text")
    record = parse_json(line)
    if not isinstance(record, dict):
        raise ValueError("must be a JSON object")
    return record


def describe_error(error: Exception) -> str:
    """Why a line is not a record."""
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg}"
    return "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)


def describe_fields(names: Iterable[str]) -> str:
    """Which fields or columns there are, for messages about a missing one."""
    return f"(it has: {one_line(', '.join(names), 200)})"


def record_messages(record: Mapping[str, Any]) -> Sequence[Message] | None:
    """The conversation in a record, or None if it holds plain text. Raises ValueError for an unknown form."""
    turns = record.get("conversation")
    if turns is None:
        turns = record.get("messages")
    if turns is None and "output" in record and ("instruction" in record or "input" in record):
        question = record.get("input")
        if "instruction" in record:  # it goes before the input, with an empty line between them
            parts = [record["instruction"], question or ""]
            question = "\n\n".join(filter(None, parts)) if all(isinstance(part, str) for part in parts) else None
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": record["output"]}]
    if turns is None:
        if "text" not in record:
            raise UnknownForm(f'needs "text", "messages", or "input" and "output" {describe_fields(record)}')
        if not isinstance(record["text"], str | None):
            raise ValueError("the text must be a string")
        return None
    if not isinstance(turns, list) or not turns:
        raise ValueError("a conversation must be a list of turns")
    for turn in turns:
        if not isinstance(turn, dict) or not all(isinstance(turn.get(k), str) for k in ("role", "content")):
            raise ValueError('every turn needs a "role" and a "content" of text')
        if not turn["role"].strip() or "\n" in turn["role"]:  # a second line would become content
            raise ValueError('a "role" must be one line, and not empty')
    return turns


def with_usual_roles(record: Record) -> Record:
    """The record. Roles that other data sets call "Assistant", "gpt" or "human" get the names that training knows."""
    for turns in (record.get("conversation"), record.get("messages")):
        for turn in turns if isinstance(turns, list) else ():
            if isinstance(turn, dict) and isinstance(role := turn.get("role"), str):
                turn["role"] = ROLES.get(role.strip().lower(), role)
    return record


def plain_text(record: Mapping[str, Any]) -> str:
    """The text of a record without a conversation; "" for an empty document (null, or white space only)."""
    text: str | None = record["text"]
    return text if text and not text.isspace() else ""


def record_texts(record: Mapping[str, Any]) -> list[str]:
    """The texts of a record, turn by turn; [] for an empty document. Raises ValueError for an unknown form."""
    messages = record_messages(record)
    texts = [turn["content"] for turn in messages] if messages else [plain_text(record)]
    return texts if messages or texts[0] else []


def line_texts(line: bytes) -> list[str]:
    """The texts of the document in a JSONL line; [] if the line holds no document."""
    try:
        return record_texts(read_record(line))
    except ValueError:
        return []


_CHARACTERS: dict[int, str | None] = {
    **dict.fromkeys(map(ord, "\u2018\u2019\u201a\u201b"), "'"),
    **dict.fromkeys(map(ord, "\u201c\u201d\u201e\u201f"), '"'),
    **dict.fromkeys([0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000], " "),
    **dict.fromkeys([0x200B, 0x2060, 0xFEFF, 0xAD]),  # zero-width space, word joiner, byte order mark, soft hyphen
}
_JOINERS = re.compile("(?<![\u0300-\U0010ffff])[\u200c\u200d]+(?![\u0300-\U0010ffff])")


def normalise(text: str) -> str:
    """The text with one character in place of several that look alike. A second call changes nothing.

    Besides _CHARACTERS, it applies Unicode NFC, and removes zero-width joiners and non-joiners, except beside a character
    that is not Latin, where they matter (Persian, Hindi, emoji). Three or more empty lines become one.
    """
    if not text.isascii():  # remove characters first: one may stand between a letter and its accent
        text = _JOINERS.sub("", unicodedata.normalize("NFC", text.translate(_CHARACTERS)))
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = "\n".join(line.rstrip(" \t") for line in text.split("\n"))
    return re.sub(r"(\A|\n)\n{3,}", r"\1\n", text)


def normalised(record: Record) -> Record:
    """A record, or a turn of a conversation, with its texts normalised; everything else stays as it is."""
    result = dict(record)
    for name in ("text", "instruction", "input", "output", "content"):
        if isinstance(result.get(name), str):
            result[name] = normalise(result[name])
    for name in ("conversation", "messages"):
        if isinstance(result.get(name), list):
            result[name] = [normalised(turn) if isinstance(turn, dict) else turn for turn in result[name]]
    return result


def render(record: Record, tokenizer: Tokenizer, parse_special: bool) -> tuple[np.ndarray, bool]:
    """The ids of a record (uint32) without the final <|endoftext|>, and whether it has look-alikes that stayed text."""
    messages = record_messages(record)
    if messages is not None:
        return np.array(tokenizer.encode_chat(messages), np.uint32), False
    text = plain_text(record)
    lookalike = tokenizer.contains_control_text(text)
    if not (lookalike and parse_special):
        return tokenizer.encode_array(text), lookalike
    ids = tokenizer.encode_parsed(text)
    while ids and ids[-1] == tokenizer.eot_id:  # encode_lines adds one to every document
        ids.pop()
    return np.array(ids, np.uint32), False


@dataclass
class Encoded:
    """The result of one task: the ids of several documents, and counts."""

    ids: np.ndarray  # all documents back to back, each with its <|endoftext|>
    lengths: np.ndarray  # ids per document
    text_bytes: int = 0  # of all ids that are not control tokens
    control_tokens: int = 0
    lookalikes: int = 0
    empty: int = 0
    bad_lines: list[tuple[int, str]] = field(default_factory=list)
    source_lines: int = 0
    source_bytes: int = 0


def encode_lines(first_line: int, lines: list[bytes], parse_special: bool, tokenizer: Tokenizer) -> Encoded:
    """Parse and encode consecutive JSONL lines (the work of one task). Blank lines are skipped.

    `first_line` is the number of the first one, for messages. Several threads may share the tokenizer.
    """
    parts: list[np.ndarray] = [np.empty(0, np.uint32)]
    end = np.array([tokenizer.eot_id], np.uint32)
    lengths: list[int] = []
    result = Encoded(np.empty(0), np.empty(0), source_lines=len(lines), source_bytes=sum(map(len, lines)))
    for number, line in enumerate(lines, first_line):
        if not line.strip():
            continue
        try:
            ids, lookalike = render(read_record(line), tokenizer, parse_special)
        except ValueError as error:
            result.bad_lines.append((number, describe_error(error)))
            continue
        if not len(ids):
            result.empty += 1
            continue
        parts += (ids, end)
        lengths.append(len(ids) + 1)
        result.lookalikes += lookalike
    result.ids = np.concatenate(parts).astype(id_dtype(tokenizer.n_vocab))
    result.text_bytes = int(tokenizer.byte_lengths[result.ids].sum())
    result.control_tokens = int((result.ids >= tokenizer.eot_id).sum())
    result.lengths = np.array(lengths, dtype=np.int64)
    return result


def id_dtype(n_vocab: int) -> np.dtype[Any]:
    """The smallest little-endian integer that holds every id."""
    return np.dtype("<u2" if n_vocab <= 1 << 16 else "<u4")
