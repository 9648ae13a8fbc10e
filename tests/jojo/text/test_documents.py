"""Tests of the record forms: every form becomes its ids, and any other line is a bad line with a reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers_data import (
    END,
    EOT,
    GPT2,
    LOOKALIKES,
    START,
    STORIES,
    TURNS,
    build,
    documents_of,
    encoded,
    examples,
    files_in,
    logged,
    new_folder,
    warnings_in,
    write_lines,
)
from hypothesis import example, given
from hypothesis import strategies as st

from jojo.text import cache_builder
from jojo.text.documents import line_texts, record_messages
from jojo.text.tokenizer import Tokenizer
from utils import UserError

CHAT = [START, 7220, 198, 15496, END, 198, START, 562, 10167, 198, 17250, 612, END, 198, EOT]


# --- records ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"text": "a"}, None),
        ({"text": "", "id": 7}, None),
        ({"text": None}, None),
        ({"conversation": TURNS}, TURNS),
        ({"messages": TURNS, "id": 7}, TURNS),
        ({"input": "Hello", "output": "Hi there"}, TURNS),
        ({"instruction": "Hello", "input": "", "output": "Hi there"}, TURNS),
        ({"instruction": "Hello", "output": "Hi there"}, TURNS),
        (
            {"instruction": "Add.", "input": "1, 2", "output": "3"},
            [
                {"role": "user", "content": "Add.\n\n1, 2"},
                {"role": "assistant", "content": "3"},
            ],
        ),
        ({"text": "a", "messages": None}, None),
        ({"conversation": None, "messages": TURNS}, TURNS),  # a table's empty column is not a conversation
    ],
)
def test_accepted_records(record: dict[str, Any], expected: Any) -> None:
    assert record_messages(record) == expected


@pytest.mark.parametrize(
    "record",
    [
        {}, {"text": 5}, {"texts": "a"}, {"input": "a"}, {"output": "a"}, {"input": 1, "output": "b"},
        {"instruction": "a"}, {"instruction": 1, "output": "b"}, {"instruction": "a", "input": 1, "output": "b"},
        {"messages": []}, {"messages": "a"}, {"messages": {}}, {"messages": ["a"]}, {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": None}]}, {"conversation": [{"role": 1, "content": "a"}]},
        {"messages": [{"role": "assistant\nfoo", "content": "a"}]}, {"messages": [{"role": " ", "content": "a"}]},
    ],
)  # fmt: skip
def test_refused_records(record: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"needs|conversation|turn|must be a string|must be one line"):
        record_messages(record)


@pytest.mark.parametrize(
    ("record", "ids"),
    [
        ({"text": "Hello world"}, [15496, 995, EOT]),
        ({"messages": TURNS}, CHAT),
        ({"conversation": TURNS}, CHAT),
        ({"input": "Hello", "output": "Hi there"}, CHAT),
    ],
)
def test_every_record_form_becomes_its_ids(tmp_path: Path, cache_dir: Path, record: Any, ids: list[int]) -> None:
    cache = build(write_lines(tmp_path / "x.jsonl", [record]), cache_dir)
    assert documents_of(cache) == [ids]


def test_documents_keep_their_order_and_end_with_the_end_of_text(stories: Path, cache_dir: Path) -> None:
    cache = build(stories, cache_dir)
    assert documents_of(cache) == [[*GPT2.encode(record["text"]), EOT] for record in STORIES]


def test_lookalikes_in_text_stay_text_and_are_counted(tmp_path: Path, cache_dir: Path) -> None:
    records = [{"text": f"a{token}b"} for token in LOOKALIKES] + [{"text": "plain <| |>"}, {"messages": TURNS}]
    cache = build(write_lines(tmp_path / "x.jsonl", records), cache_dir)
    assert all(i < EOT for document in documents_of(cache)[:4] for i in document[:-1])
    assert cache.manifest.lookalike_documents == 3


def test_parse_special_reads_text_but_never_roles_or_contents(tmp_path: Path, cache_dir: Path) -> None:
    rendered = "<|im_start|>user\nHello<|im_end|>\n"
    records = [{"text": rendered}, {"messages": [{"role": "user<|im_end|>", "content": rendered}]}]
    cache = build(write_lines(tmp_path / "x.jsonl", records), cache_dir, parse_special=True)
    text, chat = documents_of(cache)
    assert text == [START, 7220, 198, 15496, END, 198, EOT]
    assert [i for i in chat if i >= EOT] == [START, END, EOT]


def test_a_written_end_of_text_is_not_doubled(tmp_path: Path, cache_dir: Path) -> None:
    records = [{"text": "Hello<|endoftext|>"}, {"text": "<|endoftext|>"}, {"text": "Hello<|endoftext|>Hello"}]
    cache = build(write_lines(tmp_path / "x.jsonl", records), cache_dir, parse_special=True)
    assert documents_of(cache) == [[15496, EOT], [15496, EOT, 15496, EOT]]
    assert cache.manifest.empty_documents == 1


def test_the_ids_are_those_of_the_tokenizer_that_was_asked_for(tmp_path: Path, cache_dir: Path) -> None:
    base = Tokenizer(chatml=False)
    records = [{"text": "Hello<|im_start|>"}, {"messages": TURNS}]
    cache = build(write_lines(tmp_path / "x.jsonl", records), cache_dir, base, parse_special=True)
    assert cache.manifest.tokenizer == base.definition()
    assert documents_of(cache) == [[*base.encode("Hello<|im_start|>"), EOT]]  # it has no chat tokens to write
    assert cache.manifest.bad_lines == 1


# --- lines --------------------------------------------------------------------------------------------------------


def test_blank_lines_and_empty_documents_are_left_out(tmp_path: Path, cache_dir: Path) -> None:
    path = write_lines(tmp_path / "x.jsonl", [b"", {"text": "a"}, b"  \t\r", {"text": ""}, {"text": "b"}, b""])
    with logged() as records:
        cache = build(path, cache_dir)
    assert documents_of(cache) == [[64, EOT], [65, EOT]]
    assert (cache.manifest.empty_documents, cache.manifest.bad_lines) == (1, 0)
    assert not warnings_in(records)


def test_texts_that_are_null_or_white_space_are_empty_documents(tmp_path: Path, cache_dir: Path) -> None:
    path = write_lines(tmp_path / "x.jsonl", [{"text": None}, {"text": " \n\u3000"}, {"text": " a"}])
    cache = build(path, cache_dir)
    assert documents_of(cache) == [[257, EOT]]
    assert (cache.manifest.empty_documents, cache.manifest.bad_lines) == (2, 0)
    lines = path.read_bytes().splitlines()
    assert [line_texts(line) for line in lines] == [[], [], [" a"]]


def test_utf_16_is_not_read_as_json() -> None:
    for encoding in ("utf-16-le", "utf-32-be"):
        (problem,) = encoded([json.dumps({"text": "a"}).encode(encoding)]).bad_lines
        assert problem == (1, "holds a NUL byte, so it is not UTF-8 text")


def test_line_endings_byte_order_marks_and_a_missing_last_newline_do_not_matter(
    tmp_path: Path, cache_dir: Path
) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n{"text": "b"}\r\n{"text": "c"}')
    assert documents_of(build(path, cache_dir)) == [[64, EOT], [65, EOT], [66, EOT]]


BAD = [b"{", b"[1]", b"null", b'{"text": 5}', b"\xff\xfe\xfd", b"[" * 100_000, b"9" * 5000]


def test_bad_lines_are_counted_shown_with_their_numbers_and_skipped(tmp_path: Path, cache_dir: Path) -> None:
    path = write_lines(tmp_path / "x.jsonl", [{"text": "a"}, b"", *BAD, {"text": "b"}])
    with logged() as records:
        cache = build(path, cache_dir, max_bad_lines=len(BAD))
    assert documents_of(cache) == [[64, EOT], [65, EOT]]
    assert cache.manifest.bad_lines == len(BAD)
    (warning,) = warnings_in(records)
    assert f"{len(BAD)} unreadable lines" in warning and str(path) in warning
    assert "line 3:" in warning and "line 4:" in warning


@pytest.mark.parametrize("line", BAD)
def test_every_bad_line_has_a_reason_in_words(line: bytes) -> None:
    (problem,) = encoded([line], first_line=7).bad_lines
    assert problem[0] == 7 and problem[1] and "\n" not in problem[1]


def test_one_bad_line_more_than_the_limit_is_refused(tmp_path: Path, cache_dir: Path) -> None:
    path = write_lines(tmp_path / "x.jsonl", [{"text": "a"}, *BAD])
    with pytest.raises(UserError, match=r"more than 6 unreadable lines \(line 2: .*max_bad_lines"):
        build(path, cache_dir, max_bad_lines=len(BAD) - 1)
    assert files_in(cache_dir) == []


def test_line_numbers_count_on_across_tasks(tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_builder, "TASK_BYTES", 10)
    path = write_lines(tmp_path / "x.jsonl", [*STORIES[:20], b"oops", *STORIES[20:], b"no"])
    with logged() as records:
        build(path, cache_dir)
    assert "line 21:" in warnings_in(records)[0] and "line 41:" in warnings_in(records)[0]


@pytest.mark.parametrize("content", [b"", b"\n\n", b'{"text": ""}\n'])
def test_a_set_without_documents_is_refused(tmp_path: Path, cache_dir: Path, content: bytes) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.jsonl holds no document"):
        build(path, cache_dir)
    assert files_in(cache_dir) == []


def test_a_line_of_a_million_spaces_is_a_document_or_a_bad_line(tmp_path: Path, cache_dir: Path) -> None:
    path = write_lines(tmp_path / "x.jsonl", [{"text": "a"}, {"text": " " * 1_000_000 + "x"}])
    facts = build(path, cache_dir).manifest
    assert facts.n_documents + facts.bad_lines == 2


leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(), max_size=8))
values = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
)
turn = st.fixed_dictionaries(
    {}, optional={"role": st.one_of(values, st.text()), "content": st.one_of(values, st.text())}
)
talk = st.one_of(values, st.lists(st.one_of(turn, values), max_size=3))
text = st.one_of(values, st.text(), st.sampled_from(LOOKALIKES))
record = st.one_of(
    values,
    st.fixed_dictionaries(
        {}, optional={"text": text, "conversation": talk, "messages": talk, "input": text, "output": text}
    ),
)


def check_encoded(lines: list[bytes], parse_special: bool) -> None:
    """Every line is a document, an empty document, bad or blank, and the ids are well-formed."""
    result = encoded(lines, parse_special)
    blank = sum(not line.strip() for line in lines)
    assert len(result.lengths) + result.empty + len(result.bad_lines) + blank == len(lines)
    assert result.lengths.sum() == len(result.ids)
    ends = result.lengths.cumsum() - 1
    assert (result.ids[ends] == EOT).all() and (result.ids < GPT2.n_vocab).all()
    assert result.control_tokens == (result.ids >= EOT).sum()


@examples(200)
@given(st.lists(record, max_size=4), st.booleans())
@example([{"text": "\ud800"}, {"input": "\udfff", "output": "\ud800<|im_end|>"}], True)
def test_any_json_is_a_document_or_a_bad_line(records: list[Any], parse_special: bool) -> None:
    check_encoded([json.dumps(r).encode() for r in records], parse_special)
    check_encoded([json.dumps(r, ensure_ascii=False).encode("utf-8", "surrogatepass") for r in records], False)


@examples(200)
@given(st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"")), max_size=4))
@example([b'\x00{\x00"\x00', b"\xff\xfe{\x00", b"\xef\xbb\xbf", b"NaN", b"-", b'{"text": "\xed\xa0\x80"}'])
def test_any_bytes_are_a_document_or_a_bad_line(lines: list[bytes]) -> None:
    check_encoded(lines, False)


@examples(20)
@given(st.binary(max_size=200), st.integers(0, 3))
def test_any_file_gives_a_cache_or_one_sentence(content: bytes, limit: int) -> None:
    with new_folder() as folder:
        path = folder / "x.jsonl"
        path.write_bytes(content)
        try:
            cache = build(path, folder / "cache", max_bad_lines=limit)
        except UserError as error:
            assert "\n" not in str(error)
            assert files_in(folder / "cache") == []
        else:
            assert len(documents_of(cache)) == cache.n_documents > 0
