"""Tests of readers.py: all formats give the same documents, in bounded memory, or an error of one clear sentence."""

from __future__ import annotations

import csv
import functools
import gzip
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import tracemalloc
import unicodedata
import zlib
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from helpers_run import listening
from hypothesis import example, given
from hypothesis import strategies as st

from jojo.text import readers
from jojo.text.readers import Problems, TextOptions, find_files, normalise, read_records, split_text
from utils import UserError

ROOT = Path(readers.__file__).resolve().parents[2]
HAS_ARROW = importlib.util.find_spec("pyarrow") is not None
HAS_ZSTANDARD = importlib.util.find_spec("zstandard") is not None

DOCUMENTS = [
    "Once upon a time\nthere was a fox.",
    'She said: "Well, well; indeed."\n\nThen she slept.',
    "Straße, 漢字, 🙂 and \u2028 too.",
    "One\ttab, 'two' quotes.",
]
CONVERSATION = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi\nthere"}]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def records(name, limit=0, **options):
    """All records of a file that has at most `limit` unreadable lines."""
    return list(read_records(Path(name), TextOptions(**options), Problems(limit)))


def texts(name, limit=0, **options):
    return [record["text"] for record in records(name, limit, **options)]


def problems_of(name, **options):
    """The messages about a file's unreadable lines, and the texts of its other lines."""
    problems = Problems()
    found = [record["text"] for record in read_records(Path(name), TextOptions(**options), problems)]
    assert problems.count <= 3
    return problems.examples, found


def refusal(name, **options):
    """The message, one sentence, with which a file is refused."""
    with pytest.raises(UserError) as error:
        records(name, **options)
    sentence = str(error.value)
    assert "\n" not in sentence and sentence.endswith(".")
    return sentence


def write_txt(path, documents, separator="<|endoftext|>"):
    path.write_bytes(f"\n{separator}\n".join(documents).encode())


def write_jsonl(path, documents, field="text"):
    path.write_bytes("".join(json.dumps({"id": 1, field: text}) + "\n" for text in documents).encode())


def write_csv(path, documents, field="text", delimiter=","):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["id", field])
        writer.writerows([number, text] for number, text in enumerate(documents))


def write_parquet(path, documents, field="text"):
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"id": list(range(len(documents))), field: pyarrow.array(documents, pyarrow.string())})
    pyarrow.parquet.write_table(table, path)


def zstd(content):
    import zstandard

    return zstandard.ZstdCompressor(write_checksum=True).compress(content)


WRITERS = {".txt": write_txt, ".md": write_txt, ".jsonl": write_jsonl, ".csv": write_csv}
PACKERS = {"": bytes, ".gz": gzip.compress, **({".zst": zstd} if HAS_ZSTANDARD else {})}


def pack(path, packing):
    """Writes the compressed file <name><packing>."""
    packed = path.with_name(path.name + packing)
    packed.write_bytes(PACKERS[packing](path.read_bytes()))
    return packed


def everything(documents):
    """Files with these documents, in every format and compression that this machine can read."""
    made = []
    for suffix, write in WRITERS.items():
        path = Path(f"x{suffix}")
        write(path, documents)
        made += [pack(path, packing) for packing in PACKERS]
    if HAS_ARROW:
        write_parquet(Path("x.parquet"), documents)
        made.append(Path("x.parquet"))
    return made


# --- which files ------------------------------------------------------------------------------------------------------


def touch(*names):
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("x")


def names(*inputs):
    return [path.as_posix() for path in find_files(inputs)]


def test_folders_are_searched_recursively_in_a_fixed_order_and_other_files_are_skipped():
    touch("in/b.txt", "in/a.MD", "in/x.py", "in/deep/er/c.jsonl.gz", "in/deep/d.CSV.zst", "in/e.parquet", "in/README")
    touch("in/f.parquet.gz", "in/g.tar.gz", "in/h.gz")
    assert names("in") == ["in/a.MD", "in/b.txt", "in/deep/d.CSV.zst", "in/deep/er/c.jsonl.gz", "in/e.parquet"]


def test_patterns_give_what_they_match():
    touch("in/b.txt", "in/a.txt", "in/a.py", "in/deep/c.txt", "in/deep/d.jsonl")
    assert names("in/*.txt") == ["in/a.txt", "in/b.txt"]
    assert names("in/?.*") == ["in/a.txt", "in/b.txt"]
    assert names("in/**/*.txt") == ["in/a.txt", "in/b.txt", "in/deep/c.txt"]
    assert names("in/**") == ["in/a.txt", "in/b.txt", "in/deep/c.txt", "in/deep/d.jsonl"]


def test_an_existing_path_is_not_a_pattern():
    touch("part[1].txt", "part1.txt", "in [old]/a.txt")
    assert names("part[1].txt") == ["part[1].txt"]
    assert names("in [old]") == ["in [old]/a.txt"]


def test_each_file_is_read_once_in_the_order_of_the_inputs(tmp_path):
    touch("in/a.txt", "in/b.txt", "z.txt")
    Path("link.txt").symlink_to("z.txt")
    there = str(tmp_path / "in" / "b.txt")
    assert names("z.txt", there, "in", "./in/../z.txt", "*.txt") == ["z.txt", there, "in/a.txt"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none.txt", "No file or folder 'none.txt'; check --input"),
        ("*.txt", r"No file in '\*.txt' can be read; --input takes \.txt, .*\.parquet \(all but the last .*\.zst"),
        ("a.*", r"No file in 'a\.\*' can be read"),
        ("a.pdf", r"'a\.pdf' has an unknown format; convert it to one of \.txt, \.jsonl, .*\.parquet"),
        ("a.tar.gz", r"'a\.tar\.gz' has an unknown format"),
        ("a.parquet.gz", r"all but the last also as \.gz or \.zst"),
        ("folder", r"No file in 'folder' can be read"),
        ("pipe.txt", r"No file in 'pipe\.txt' can be read"),
    ],
)
def test_an_input_without_a_readable_file_is_refused_in_a_sentence(name, words):
    touch("a.pdf", "a.tar.gz", "a.parquet.gz", "folder/x.py")
    if name == "pipe.txt":
        os.mkfifo(name)
    with pytest.raises(UserError, match=words) as error:
        find_files([name])
    assert "\n" not in str(error.value)


def test_hidden_files_and_folders_are_skipped_unless_they_are_named():
    touch("in/a.txt", "in/.b.txt", "in/._c.jsonl", "in/.ipynb_checkpoints/d.txt", "in/deep/.git/e.txt", ".own/f.txt")
    assert names("in") == names("in/**") == names("in/**/*.txt") == ["in/a.txt"]
    assert names("in/.b.txt", "in/.ipynb_checkpoints", ".own") == [
        "in/.b.txt", "in/.ipynb_checkpoints/d.txt", ".own/f.txt",
    ]  # fmt: skip


def test_files_to_leave_out_are_read_only_if_they_are_named():
    touch("in/a.txt", "in/own-train.jsonl")
    own = [Path("in/own-train.jsonl").absolute()]
    assert find_files(["in", "in/*"], own) == [Path("in/a.txt")]
    assert find_files(["in/own-train.jsonl"], own) == [Path("in/own-train.jsonl")]
    with pytest.raises(UserError, match=r"No file in 'in/own\*' can be read"):
        find_files(["in/own*"], own)


@pytest.mark.parametrize("inputs", ["in", "in/**", "in/**/*.txt", "i*/**/*.txt", "**/*.txt"])
def test_folders_and_patterns_enter_linked_folders_once_each(inputs):
    touch("in/a.txt", "far/b.txt", "far/deep/c.txt")
    links = {"in/far": "../far", "in/loop": ".", "far/back": "../in", "in/gone": "nowhere", "in/self": "self"}
    for name, target in links.items():
        Path(name).symlink_to(target)
    found = sorted(path.resolve().name for path in find_files([inputs]))
    assert found == ["a.txt", "b.txt", "c.txt"]


def test_all_inputs_that_cannot_be_read_are_named_together():
    touch("a.pdf", "b.txt", "folder/x.py")
    with pytest.raises(UserError) as error:
        find_files(["a.pdf", "b.txt", "none.txt", "folder"])
    assert re.fullmatch(
        r"'a\.pdf' has .*\. No file or folder 'none\.txt'; .*\. No file in 'folder' .*\.", str(error.value)
    )


@pytest.mark.parametrize("name", ["in", "in/deep"])
def test_a_folder_that_may_not_be_read_is_named(monkeypatch, name):
    touch("in/a.txt", "in/deep/b.txt")
    scandir = os.scandir

    def refusing(path):
        if str(path) == os.path.join("in", "deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(PermissionError, match="'in/deep'"):
        find_files([name])


# --- every format -----------------------------------------------------------------------------------------------------


def test_the_same_corpus_in_every_format_and_packing_gives_the_same_documents():
    paths = everything(DOCUMENTS)
    assert len(paths) == 4 * len(PACKERS) + HAS_ARROW
    assert sorted(find_files(["."])) == sorted(paths)
    for path in paths:
        assert texts(path) == DOCUMENTS, path
        assert texts(path.rename(path.name.upper())) == DOCUMENTS


@pytest.mark.parametrize("n_bytes", [1, 2, 7, 64])
def test_the_size_of_chunks_makes_no_difference(monkeypatch, n_bytes):
    paths = everything(DOCUMENTS)
    monkeypatch.setattr(readers, "CHUNK_BYTES", n_bytes)
    monkeypatch.setattr(readers, "COMPRESSED_BYTES", n_bytes)
    for path in paths:
        assert texts(path) == DOCUMENTS, path


def test_files_without_a_document_give_none():
    for path in everything([]) + everything(["", ""]):
        assert texts(path) == [], path
        if path.suffix != ".parquet":
            path.write_bytes(b"")
            assert texts(path) == [], path
    for content, suffixes in (
        ("\n\n", (".txt", ".jsonl")),
        (" \n\t\n", (".txt", ".jsonl")),
        ("\ufeff", (".txt", ".csv")),
    ):
        for suffix in suffixes:
            Path(f"y{suffix}").write_text(content, encoding="utf-8")
            assert texts(f"y{suffix}") == [], (suffix, content)


def test_a_text_that_is_null_or_white_space_is_an_empty_document_in_every_format():
    Path("a.jsonl").write_text('{"text": null}\n{"text": " \\n\\u3000"}\n{"text": ""}\n{"text": " a "}\n')
    Path("b.jsonl").write_text('{"body": null}\n{"body": "\\t"}\n{"body": ""}\n{"body": " a "}\n')
    write_csv(Path("a.csv"), ["", " \n\u3000", "", " a "])
    counts = [("a.jsonl", "text"), ("b.jsonl", "body"), ("a.csv", "text")]
    if HAS_ARROW:
        write_parquet(Path("a.parquet"), [None, " \n\u3000", "", " a "])
        write_parquet(Path("b.parquet"), [None, " \n\u3000", "", " a "], "body")
        counts += [("a.parquet", "text"), ("b.parquet", "body")]
    for name, field in counts:
        problems = Problems(0)
        found = list(read_records(Path(name), TextOptions(text_field=field), problems))
        assert (found, problems.empty_documents) == ([{"text": " a "}], 3), name


@pytest.mark.parametrize("packing", list(PACKERS))
@pytest.mark.parametrize("n_bytes", [1, 5, 1 << 18])
def test_line_ends_within_a_text_stay_what_they_are(monkeypatch, packing, n_bytes):
    documents = ["a\r\nb\rc\n\r\r\nd", "e\r\r\nf"]
    write_csv(Path("a.csv"), documents)
    write_jsonl(Path("a.jsonl"), documents)
    monkeypatch.setattr(readers, "CHUNK_BYTES", n_bytes)
    monkeypatch.setattr(readers, "COMPRESSED_BYTES", n_bytes)
    for name in ("a.csv", "a.jsonl"):
        assert texts(pack(Path(name), packing)) == documents


DOCUMENT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


@given(
    documents=st.lists(DOCUMENT, max_size=5),
    suffix=st.sampled_from(list(WRITERS)),
    packing=st.sampled_from(list(PACKERS)),
)
@example(documents=['"', "a,b;c\td", '""\n"', "\ufeffa", " a\n\n", "#"], suffix=".csv", packing="")
def test_documents_survive_writing_and_reading(documents, suffix, packing):
    path = Path(f"a{suffix}")
    WRITERS[suffix](path, documents)
    expected = documents
    if suffix in (".txt", ".md"):
        expected = [text.removeprefix("\ufeff") if text is documents[0] else text for text in documents]
        expected = in_memory("\n<|endoftext|>\n".join(expected).replace("\r\n", "\n").replace("\r", "\n"))
    assert texts(pack(path, packing)) == [text for text in expected if text.strip()]


# --- .txt and .md -----------------------------------------------------------------------------------------------------


def in_memory(text, separator="<|endoftext|>", near=readers.PIECE_CHARACTERS):
    """The reference for split_text: the same result, from the whole text at once."""

    def pieces(document):
        start = 0
        while len(document) - start > 1.5 * near:
            first, last = start + near, start + int(1.5 * near)
            cut = first
            for mark in (" ", "\n", "\n\n"):
                if (at := document.find(mark, first, last)) >= 0:
                    cut = at + len(mark)
            yield document[start:cut]
            start = cut
        yield document[start:]

    documents = re.split(rf"^[ \t]*{re.escape(separator)}[ \t]*$", text, flags=re.MULTILINE)
    return [piece.strip() for document in documents for piece in pieces(document) if piece.strip()]


def chunks_of(text, sizes):
    """The text in chunks of these sizes, over and over."""
    at = number = 0
    while at < len(text):
        yield text[at : at + sizes[number % len(sizes)]]
        at += sizes[number % len(sizes)]
        number += 1


SEPARATORS = st.sampled_from(["<|>", "-", "", " ", "a.b", "(", "é", "a", "\t-", "- ", "\r"])
SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=4)


@given(
    text=st.text(st.sampled_from("ab- \t\n\n\r\x1c\u2028<|>é."), max_size=120),
    separator=SEPARATORS,
    sizes=SIZES,
    near=st.sampled_from([3, 8, 1000]),
)
@example(text="\n-\n", separator="-", sizes=[1], near=1000)
@example(text="a\n\t-\t\nb\n-", separator="-", sizes=[3], near=1000)
@example(text="a\n\n\nb", separator="", sizes=[2], near=1000)
@example(text="aaaa-\n-", separator="-", sizes=[4], near=1000)
@example(text="aaaaaaaaaaaaaaaa-", separator="-", sizes=[16, 1], near=8)
def test_a_text_in_chunks_gives_the_same_documents_as_at_once(text, separator, sizes, near):
    with mock.patch.object(readers, "PIECE_CHARACTERS", near):
        expected = in_memory(text, separator, near)
        assert list(split_text(text, separator)) == expected
        # The reader buffers at most about `near` characters of a line, so separator lines must be shorter.
        if near == 1000 or not re.search(rf"[ \t]{{{near}}}", text):
            assert list(split_text(chunks_of(text, sizes), separator)) == expected


@pytest.mark.parametrize("separator", ["", " ", "\t ", "-"])
def test_lines_that_begin_with_many_blanks_are_read_once(separator):
    line = " " * 60_000 + "x\n"  # trying every number of blanks would take minutes
    assert "".join("".join(split_text(line * 9 + "\nb", separator)).split()) == "xxxxxxxxxb"


@given(
    text=st.text(st.sampled_from("ab- \t\n\r\ufeffé漢🙂"), max_size=60),
    size=st.integers(1, 9),
    packing=st.sampled_from(list(PACKERS)),
)
def test_a_file_in_chunks_gives_the_same_text_as_text_mode(text, size, packing):
    Path("a.txt").write_bytes(text.encode())
    path = pack(Path("a.txt"), packing)
    with mock.patch.object(readers, "CHUNK_BYTES", size), mock.patch.object(readers, "COMPRESSED_BYTES", size):
        assert texts(path, separator="-") == in_memory(Path("a.txt").read_text("utf-8-sig"), "-")


@pytest.mark.parametrize("mark", ["\n\n", "\n", " ", ""], ids=["empty lines", "lines", "spaces", "nothing to cut at"])
def test_long_texts_are_cut_at_the_best_mark(mark):
    text = mark.join(f"word{i:06d}" for i in range(60_000)) + "\n<|endoftext|>\nThe end."
    Path("a.md").write_text(text)
    pieces = texts("a.md")
    assert len(pieces) > 12 and pieces == in_memory(text)
    assert "".join("".join(pieces).split()) == "".join(text.replace("<|endoftext|>", "").split())
    if mark:
        assert not any(re.match(r"\d", piece) for piece in pieces)  # no word was cut


def peak_of(read):
    """The peak of the memory that Python allocates during a call, in bytes."""
    tracemalloc.start()
    try:
        read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@functools.cache
def words() -> str:
    """9 MB that compress badly."""
    return "".join(f"{zlib.crc32(n.to_bytes(4, 'big')):08x} " for n in range(1_000_000))


@pytest.mark.parametrize("end", ["\n\n", " ", "\n<|endoftext|>\n"], ids=["empty lines", "one line", "documents"])
@pytest.mark.parametrize("packing", list(PACKERS))
def test_memory_does_not_grow_with_a_text(end, packing):
    Path("a.txt").write_text(end.join(words()[at : at + 900] for at in range(0, len(words()), 900)))
    path = pack(Path("a.txt"), packing)

    def read():
        for _ in read_records(path, TextOptions(), Problems()):
            pass

    assert peak_of(read) < 3_000_000


# --- .jsonl -----------------------------------------------------------------------------------------------------------


def test_jsonl_records_of_every_form_are_kept_as_they_are():
    expected = [
        {"text": "Plain \u0000 too", "id": 7},
        {"messages": CONVERSATION},
        {"conversation": CONVERSATION},
        {"input": "2+2?", "output": "4"},
    ]
    Path("a.jsonl").write_text("\n\n".join(map(json.dumps, expected)) + "\r\n \n")
    assert records("a.jsonl") == expected


def test_unreadable_lines_are_counted_up_to_the_limit_with_their_numbers():
    Path("a.jsonl").write_bytes(b'{"text": "ok"}\n{]\n\n[1]\n{"text": "\xff"}\n{"text": 5}\n{"text": "end"}')
    list(read_records(Path("a.jsonl"), TextOptions(), problems := Problems(4)))
    assert problems.count == 4 and len(problems.examples) == 3
    assert problems.examples[0].startswith("a.jsonl, line 2: not JSON: ")
    assert problems.examples[1:] == [
        "a.jsonl, line 4: must be a JSON object",
        "a.jsonl, line 5: not UTF-8 text",
    ]
    with pytest.raises(
        UserError,
        match=r"More than 3 unreadable lines \(a\.jsonl, line 2: .*line 4.*; \.\.\.\); correct them, or raise --data",
    ):
        records("a.jsonl", limit=3)


def test_only_the_first_bytes_of_a_file_say_that_it_is_utf_16(monkeypatch):
    monkeypatch.setattr(readers, "CHUNK_BYTES", 14)
    Path("a.jsonl").write_bytes(b'{"text": "a"}\n\xff\xfe\n')
    said, found = problems_of("a.jsonl")
    assert found == ["a"] and said[0].startswith("a.jsonl, line 2: not ")


def test_if_too_many_lines_lack_the_field_the_message_lists_the_fields_and_the_flag():
    write_jsonl(Path("a.jsonl"), DOCUMENTS, "body")
    assert refusal("a.jsonl") == (
        'More than 0 unreadable lines (a.jsonl, line 1: needs "text", "messages", or "input" and "output" '
        "(it has: id, body)); name the field that holds the text with --text_field."
    )
    assert refusal("a.jsonl", text_field="txt") == (
        "More than 0 unreadable lines (a.jsonl, line 1: has no field 'txt' (it has: id, body)); "
        "name the field that holds the text with --text_field."
    )
    with pytest.raises(UserError, match=r"\(it has: id, body\); a\.jsonl, line 2; a\.jsonl, line 3; \.\.\.\); name"):
        records("a.jsonl", limit=3)


def test_if_too_many_lines_have_another_encoding_the_message_says_how_to_convert():
    Path("a.jsonl").write_bytes('{"text": "Straße"}\n'.encode("latin-1") * 5)
    said = "a.jsonl, line 1: not UTF-8 text; a.jsonl, line 2; a.jsonl, line 3"
    with pytest.raises(UserError) as error:
        records("a.jsonl", limit=3)
    assert str(error.value) == (
        f"More than 3 unreadable lines ({said}; ...); convert it, for example with iconv -f cp1252 -t utf-8."
    )


def test_the_text_is_taken_from_the_named_field():
    Path("a.jsonl").write_text(
        '{"id": 1, "body": "One."}\n{"id": 2, "title": "No"}\n{"body": 3}\n{"body": "Two.", "text": "Not this."}\n{"body": ""}'
    )
    said, found = problems_of("a.jsonl", text_field="body")
    assert found == ["One.", "Two."]
    assert said == [
        "a.jsonl, line 2: has no field 'body' (it has: id, title)",
        "a.jsonl, line 3: the text must be a string",
    ]
    assert records("a.jsonl", limit=9, text_field="body")[0] == {"text": "One."}


def test_extreme_nesting_is_an_unreadable_line():
    Path("a.jsonl").write_text('{"text": "a"}\n{"text": "b", "x": ' + "[" * 100_000 + "]" * 100_000 + "}\n")
    said, found = problems_of("a.jsonl")
    assert found == ["a"] and said == ["a.jsonl, line 2: it is nested too deeply"]


def test_a_line_of_50_mb_is_read_and_one_beyond_the_limit_is_refused_in_bounded_memory():
    n = 50_000_000
    with open("a.jsonl", "wb") as file:
        file.write(b'{"text": "first"}\n{"text": "' + b"x" * n + b'"}\n{"text": "')
        for _ in range(6):
            file.write(b"y" * (readers.LONGEST_LINE // 4))
        file.write(b'"}\n{"text": "last"}')
    sizes = []

    def read():
        with pytest.raises(UserError, match=r"^'a\.jsonl', line 3, is longer than 64 MiB; split or remove it\.$"):
            sizes.extend(len(record["text"]) for record in read_records(Path("a.jsonl"), TextOptions(), Problems()))

    assert peak_of(read) < 3.5 * n
    assert sizes == [5, n]


@given(
    lines=st.lists(st.text(st.sampled_from("ab \r"), max_size=9), max_size=6),
    end=st.booleans(),
    size=st.integers(1, 12),
)
def test_lines_are_the_same_as_pythons(lines, end, size):
    content = "\n".join(lines).encode() + b"\n" * end
    Path("a.jsonl").write_bytes(content)
    with mock.patch.object(readers, "CHUNK_BYTES", size):
        assert list(readers._lines(Path("a.jsonl"))) == list(enumerate(io.BytesIO(content), 1))


# --- .csv -------------------------------------------------------------------------------------------------------------


@given(
    documents=st.lists(DOCUMENT, min_size=1, max_size=4),
    delimiter=st.sampled_from(",;\t"),
    field=st.sampled_from(["text", "bödy", "a b"]),
)
def test_csv_with_any_delimiter_gives_its_column(documents, delimiter, field):
    write_csv(Path("a.csv"), documents, field, delimiter)
    assert texts("a.csv", text_field=field) == [text for text in documents if text.strip()]


def test_csv_of_other_programs_is_read():
    Path("a.csv").write_bytes(
        b'\xef\xbb\xbf"id";"text"\r\n1;"Two\r\nlines; a ""word"""\r\n\r\n2;Plain "words", too\r\n3;'
    )
    assert texts("a.csv") == ['Two\r\nlines; a "word"', 'Plain "words", too']


def test_a_missing_column_is_an_error_that_lists_the_columns():
    write_csv(Path("a.csv"), DOCUMENTS, "body")
    assert refusal("a.csv") == (
        "'a.csv' has no column 'text' (it has: id, body); name the column that holds the text with --text_field."
    )


def test_csv_rows_are_records_of_every_form_as_in_jsonl():
    header, rows = (
        "id,instruction,input,output,text\n",
        "1,Add.,2+2?,4,no\n2,,Hi,Hello,\n3,Add.,,5,\n4,,,,Tale.\n5,,,,\n",
    )
    Path("a.csv").write_text(header + rows)
    assert records("a.csv") == [
        {"instruction": "Add.", "input": "2+2?", "output": "4", "text": "no"},
        {"input": "Hi", "output": "Hello"},
        {"instruction": "Add.", "input": "", "output": "5"},
        {"input": "", "text": "Tale."},
    ]
    assert texts("a.csv", text_field="text") == ["no", "Tale."]
    Path("b.csv").write_text("input,output\n2+2?,4\n,5\n")
    assert records("b.csv") == [{"input": "2+2?", "output": "4"}, {"input": "", "output": "5"}]


def test_a_named_field_is_taken_where_there_is_one_and_is_not_asked_of_other_files():
    turns = {"messages": CONVERSATION}
    write_csv(Path("a.csv"), DOCUMENTS, "body")
    Path("a.jsonl").write_text(json.dumps({"text": "Plain."}) + "\n" + json.dumps(turns))
    problems, options = Problems(0), TextOptions(text_field="body")
    assert list(read_records(Path("a.jsonl"), options, problems)) == [{"text": "Plain."}, turns]
    assert not problems.found_field
    assert len(list(read_records(Path("a.csv"), options, problems))) == 4 and problems.found_field
    Path("b.jsonl").write_text(json.dumps({"text": "This.", "input": "a", "output": "b"}))
    assert texts("b.jsonl", text_field="text") == ["This."]
    assert "text" in records("b.jsonl")[0] and "input" in records("b.jsonl")[0]


def test_roles_of_other_data_sets_get_their_usual_names():
    roles = ["System", "human", "gpt", " User ", "ASSISTANT", "Narrator", "bot", "model"]
    turns = [{"role": role, "content": "Hello"} for role in roles]
    Path("a.jsonl").write_text(json.dumps({"messages": turns}) + "\n" + json.dumps({"conversation": turns}))
    for record in records("a.jsonl"):
        (found,) = record.values()
        assert [t["role"] for t in found] == [
            "system",
            "user",
            "assistant",
            "user",
            *["assistant", "Narrator", "assistant", "assistant"],
        ]


def test_rows_that_do_not_fit_the_header_are_unreadable_lines():
    Path("a.csv").write_text('id,text\n\n0\n1,"a\nb"\n2,Hello, world\n4,c\n')
    said, found = problems_of("a.csv")
    assert found == ["a\nb", "c"]
    assert said == ["a.csv, line 3: must have 2 columns, like the header", "a.csv, line 6"]


@pytest.mark.parametrize("row", ['2,"He said "no" twice"', '2,"never closed'])
def test_wrong_quotes_stop_with_the_line_on_which_the_row_begins(row):
    Path("a.csv").write_text(f'id,text\n1,"a\nb"\n{row}\n3,c\n4,d')
    assert re.match(r"'a\.csv', the row from line 4, cannot be read \(.*\); check its quotes", refusal("a.csv"))


def test_a_large_cell_is_read_and_an_endless_cell_is_refused(monkeypatch):
    write_csv(Path("a.csv"), ["x" * 1_000_000])
    assert texts("a.csv") == ["x" * 1_000_000]
    monkeypatch.setattr(readers, "LONGEST_LINE", 1000)
    assert refusal("a.csv").startswith("'a.csv', line 2, is longer than ")
    monkeypatch.setattr(readers, "LONGEST_LINE", 1 << 20)
    Path("a.csv").write_text('text\nshort\n"' + "a line\n" * 150_000 + '"')
    assert "the row from line 3, cannot be read (field larger than field limit (1048576)); check its" in refusal(
        "a.csv"
    )


# --- not text ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".txt", ".md", ".csv", ".txt.gz"])
def test_a_nul_byte_is_refused_with_its_place(suffix):
    content = b"text\n" + b"abc\n" * 300_000 + b"d\0e\n"
    Path(f"a{suffix}").write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    assert refusal(f"a{suffix}").startswith(f"'a{suffix}' is not UTF-8 text (byte 1,200,006 is NUL); if it is UTF-16,")


def test_a_nul_in_json_is_kept_where_json_allows_it():
    Path("a.jsonl").write_bytes(b'{"text": "a\\u0000b"}\n')
    assert texts("a.jsonl") == ["a\0b"]
    Path("a.jsonl").write_bytes(b'{"text": "a"}\n{"text": "a\0b"}\n')
    assert refusal("a.jsonl").startswith("'a.jsonl' is not UTF-8 text (byte 25 is NUL)")


GERMAN = "Die Straße führt „über“ fünf Brücken – für 3 €."


@pytest.mark.parametrize("size", [2, 7, 1 << 18])
@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".csv", ".md.gz"])
def test_windows_1252_is_read_with_a_warning_and_utf_16_by_its_mark(monkeypatch, suffix, encoding, size):
    content = {".jsonl": json.dumps({"text": GERMAN}, ensure_ascii=False), ".csv": f'text\n"{GERMAN}"\n'}
    raw = content.get(suffix, GERMAN).encode(encoding)
    Path(f"a{suffix}").write_bytes(gzip.compress(raw) if suffix.endswith("gz") else raw)
    monkeypatch.setattr(readers, "CHUNK_BYTES", size)
    if suffix == ".jsonl" and encoding == "cp1252":  # JSON is UTF-8, so there every such line is unreadable
        assert "not UTF-8 text); convert it" in refusal(f"a{suffix}")
        return
    with listening() as said:
        assert texts(f"a{suffix}") == [GERMAN]
    warning = f"'a{suffix}' is not UTF-8, so it was read as Windows-1252; if words look wrong, convert it, for example"
    assert said == ([f"{warning} with iconv -f cp1250 -t utf-8."] if encoding == "cp1252" else [])


@pytest.mark.parametrize("encoding", ["cp1251", "koi8-r", "shift_jis", "gb18030"])
def test_an_alphabet_that_is_not_latin_is_not_taken_for_windows_1252(encoding):
    words = "Жили-были старик со старухой. " if encoding in ("cp1251", "koi8-r") else "昔々おじいさんが住む"
    Path("a.txt").write_bytes(words.encode(encoding) * 9)
    assert refusal("a.txt").startswith(
        "'a.txt' is neither UTF-8 nor Windows-1252 text; convert it, for example with iconv"
    )


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".csv", ".md.gz"])
def test_utf_16_without_a_mark_and_utf_32_are_refused_with_a_way_to_convert_them(suffix, encoding):
    content = '{"text": "a"}'.encode(encoding)
    Path(f"a{suffix}").write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    said = refusal(f"a{suffix}")
    assert re.fullmatch(
        r"'.*' is not UTF-8 text \(byte \d is NUL\); .* convert it with iconv -f utf-16 -t utf-8\.", said
    )


# --- compressed -------------------------------------------------------------------------------------------------------

PACKED_TEXT = "\n<|endoftext|>\n".join(f"Document {n}, {zlib.crc32(bytes([n]))}." for n in range(200)).encode()


@given(share=st.floats(0, 1, exclude_max=True), packing=st.sampled_from([p for p in PACKERS if p]))
@example(share=0.999999, packing=".gz")
def test_a_packed_file_that_was_cut_short_is_refused(share, packing):
    content = PACKERS[packing](PACKED_TEXT)
    path = Path(f"a.txt{packing}")
    path.write_bytes(content[: int(share * len(content))])
    if path.stat().st_size:
        assert re.match(
            rf"'a\.txt{packing}' is damaged or incomplete \(.+\); make or download it again\.", refusal(path)
        )
    else:
        assert texts(path) == []


@given(
    share=st.floats(0, 1, exclude_max=True),
    byte=st.binary(min_size=1, max_size=1),
    packing=st.sampled_from([p for p in PACKERS if p]),
)
def test_a_packed_file_with_a_wrong_byte_is_refused_or_gives_the_right_text(share, byte, packing):
    content = bytearray(PACKERS[packing](PACKED_TEXT))
    at = int(share * len(content))
    content[at : at + 1] = byte
    path = Path(f"a.txt{packing}")
    path.write_bytes(content)
    try:
        found = texts(path)
    except UserError as error:
        assert "damaged or incomplete" in str(error)
    else:
        assert found == in_memory(PACKED_TEXT.decode())


@pytest.mark.parametrize("packing", [p for p in PACKERS if p])
def test_a_small_file_that_unpacks_to_many_times_its_size_is_refused_before_it_fills_the_memory(packing):
    path = Path(f"a.jsonl{packing}")
    path.write_bytes(PACKERS[packing](b'{"text": "' + b"x" * 30_000_000 + b'"}'))
    said = f"'{path}' becomes over 200 times larger; unpack it first if it is text."
    assert peak_of(lambda: said == refusal(path) or pytest.fail()) < 25_000_000


@pytest.mark.parametrize("packing", [p for p in PACKERS if p])
def test_concatenated_packed_files_are_read_as_one(packing):
    half = len(PACKED_TEXT) // 2
    path = Path(f"a.txt{packing}")
    path.write_bytes(b"".join(map(PACKERS[packing], (PACKED_TEXT[:half], b"", PACKED_TEXT[half:]))))
    assert texts(path) == in_memory(PACKED_TEXT.decode())
    path.write_bytes(PACKERS[packing](PACKED_TEXT) + b"something else")
    assert "damaged" in refusal(path)


def test_without_zstandard_the_error_says_what_to_install(monkeypatch):
    Path("a.txt.zst").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert refusal("a.txt.zst") == "Reading 'a.txt.zst' needs zstandard: pip install zstandard."


if HAS_ZSTANDARD:

    def test_frames_without_content_and_wide_windows_are_read():
        import zstandard

        wide = zstandard.ZstdCompressionParameters(window_log=30, hash_log=6, chain_log=6)
        stream = zstandard.ZstdCompressor(compression_params=wide).compressobj()
        skipped = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"  # a skippable frame, as pzstd writes them
        Path("a.txt.zst").write_bytes(skipped + stream.compress(PACKED_TEXT) + stream.flush())
        assert texts("a.txt.zst") == in_memory(PACKED_TEXT.decode())

    def test_chunks_stay_small_however_much_a_file_grows_when_it_is_unpacked(monkeypatch):
        monkeypatch.setattr(readers, "SMALL", 60_000_000)
        Path("a.jsonl.zst").write_bytes(zstd(b" " * 50_000_000 + b'\n{"text": "a"}'))
        assert max(map(len, readers._chunks(Path("a.jsonl.zst")))) < 10_000_000


# --- .parquet ---------------------------------------------------------------------------------------------------------


def test_without_pyarrow_the_error_says_what_to_install(monkeypatch):
    Path("a.parquet").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert refusal("a.parquet") == "Reading 'a.parquet' needs pyarrow: pip install pyarrow."


if HAS_ARROW:

    def write_table(columns, **options):
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.table(columns), "a.parquet", **options)

    @given(documents=st.lists(DOCUMENT, max_size=5), field=st.sampled_from(["text", "input", "a.b"]))
    def test_documents_survive_writing_and_reading_parquet(documents, field):
        write_parquet(Path("a.parquet"), documents, field)
        assert texts("a.parquet", text_field=field) == [text for text in documents if text.strip()]

    def test_parquet_rows_are_records_of_every_form_as_in_jsonl():
        write_table({"messages": [CONVERSATION, CONVERSATION[:1]], "id": [1, 2]})
        assert records("a.parquet") == [{"messages": CONVERSATION}, {"messages": CONVERSATION[:1]}]
        write_table({"conversation": [CONVERSATION]})
        assert records("a.parquet") == [{"conversation": CONVERSATION}]
        write_table({"input": ["2+2?"], "instruction": ["Add."], "output": ["4"]})
        assert records("a.parquet") == [{"instruction": "Add.", "input": "2+2?", "output": "4"}]
        assert records("a.parquet", text_field="instruction") == [{"text": "Add."}]
        for lacking in ({"instruction": ["Add."], "input": ["2+2?"]}, {"output": ["4"]}):
            write_table(lacking)
            assert "row 1: needs" in refusal("a.parquet")
        with_ids = [[{**turn, "id": b"\xff", "at": np.datetime64(1, "ns")} for turn in CONVERSATION]]  # no Python time
        write_table({"messages": with_ids})
        assert records("a.parquet") == [{"messages": CONVERSATION}]
        write_table({"text": ["a", None], "messages": [None, CONVERSATION]})
        assert records("a.parquet") == [{"text": "a"}, {"messages": CONVERSATION}]

    def test_rows_whose_text_is_not_a_string_are_unreadable_with_their_numbers():
        write_table({"text": ["a", None, "b", ""], "body": [1, 2, 3, 4]})
        assert problems_of("a.parquet") == ([], ["a", "b"])
        with pytest.raises(UserError, match=r"row 1: the text must be a string"):
            records("a.parquet", text_field="body")

    def test_a_column_without_text_is_refused_in_a_sentence():
        import pyarrow

        write_table({"text": [1.5], "time": pyarrow.array([1], pyarrow.timestamp("ns")), "bytes": [b"a"]})
        for field in ("text", "bytes"):
            assert "row 1: " in refusal("a.parquet", text_field=field)
        assert refusal("a.parquet", text_field="time").startswith(
            "'a.parquet' cannot be read as Parquet (after row 0: "
        )

    @pytest.mark.parametrize("columns", [["body", "id"], ["body"]])
    def test_a_missing_parquet_column_is_an_error_that_lists_the_columns(columns):
        write_table({name: ["a"] for name in columns})
        assert f"'a.parquet' has no column 'text' (it has: {', '.join(columns)}); name" in refusal("a.parquet")
        assert "has no column 'x'" in refusal("a.parquet", text_field="x")

    def small_and_large():
        """Columns of a Parquet file, small when packed and large in memory."""
        import pyarrow

        text = pyarrow.array(["x" * 3_000_000])
        turn = pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())])
        nulls = pyarrow.array([[None] * 20_000], pyarrow.list_(turn))
        copies = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 90, pyarrow.int32()), text.slice(0, 1))
        return {"cell": {"text": text}, "copies": {"text": copies}, "turns": {"messages": nulls}}

    def test_a_small_parquet_file_that_would_fill_the_memory_is_refused_unread(monkeypatch):
        import pyarrow

        monkeypatch.setattr(readers, "LONGEST_LINE", 1 << 20)
        monkeypatch.setattr(readers, "SMALL", 1 << 16)
        for name, columns in small_and_large().items():
            write_table(columns, compression="zstd")
            assert Path("a.parquet").stat().st_size < 20_000
            before = pyarrow.total_allocated_bytes()
            assert peak_of(lambda: refusal("a.parquet")) < 1_000_000, name
            assert pyarrow.total_allocated_bytes() - before < 1_000_000
            assert "(after row 0: a text is longer than 64 MiB)" in refusal("a.parquet")

    @given(share=st.floats(0, 1, exclude_max=True), cut=st.booleans(), byte=st.binary(min_size=1, max_size=1))
    def test_a_damaged_parquet_file_is_refused_or_read(share, cut, byte):
        write_parquet(Path("a.parquet"), DOCUMENTS)
        content = bytearray(Path("a.parquet").read_bytes())
        at = int(share * len(content))
        content[at : None if cut else at + 1] = b"" if cut else byte
        Path("a.parquet").write_bytes(content)
        try:
            found = records("a.parquet", limit=9)
        except UserError as error:
            assert "cannot be read as Parquet" in str(error) or "no column" in str(error)
            assert "\n" not in str(error)
        else:
            assert len(found) <= len(DOCUMENTS) and not (cut and found)

    def test_memory_does_not_grow_with_a_parquet_file():
        import pyarrow

        write_table({"text": [f"{n} " * 500 for n in range(11_000)]}, use_dictionary=False, compression="none")
        assert Path("a.parquet").stat().st_size > 25_000_000
        before = pyarrow.total_allocated_bytes()
        for _ in read_records(Path("a.parquet"), TextOptions(), Problems()):
            assert pyarrow.total_allocated_bytes() - before < 8_000_000
        assert peak_of(lambda: [None for _ in read_records(Path("a.parquet"), TextOptions(), Problems())]) < 8_000_000


# --- normalising ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("e\u0301a", "éa"),
        ("\u2018a\u2019 \u201cb\u201d \u201ec\u201f \u201ad\u201b", "'a' \"b\" \"c\" 'd'"),
        ("a\u2014b\u2013c\u2010d-e\u2212f", "a\u2014b\u2013c\u2010d-e\u2212f"),
        ("a\u00a0b\u2009c\u202fd\u3000e\u2003f\tg", "a b c d e f\tg"),
        ("a\u200bb\ufeffc\u00add\u2060e\u200cf\u200dg", "abcdefg"),
        ("می\u200cخواهم क\u094d\u200dष 👩\u200d🚀", "می\u200cخواهم क\u094d\u200dष 👩\u200d🚀"),
        ("a\r\nb\rc\nd\r\n\r\ne", "a\nb\nc\nd\n\ne"),
        ("a \t\nb\u00a0\n \n  c ", "a\nb\n\n  c"),
        ("a\n\n\nb", "a\n\n\nb"),  # two empty lines stay
        ("a\n\n\n\nb\n \n\t\n\u200b\n\n\nc", "a\n\nb\n\nc"),
        ("\n\n\na", "\na"),
        ("a\n\n\n\n", "a\n\n"),
        ("e\u200b\u0301\r\u200b\n", "é\n"),
        ("«x» 'y' `z` … ﬁ", "«x» 'y' `z` … ﬁ"),
        ("", ""),
    ],
)
def test_look_alike_characters_become_the_same(text, expected):
    assert normalise(text) == expected


TROUBLE = "a b\t\n\n\n\r\u00a0\u2000\u2019\u201c\u2014\u200b\u200c\u200d\ufeff\u00ad\u0301\u0323eé\u0915\u1100\u1161🙂\x85\u2028"


@given(st.one_of(st.text(st.sampled_from(TROUBLE), max_size=30), st.text(max_size=30)))
@example("e\u0301\u200da")
@example("a\u200d\u200b\u0301")
def test_normalising_twice_changes_nothing_more(text):
    once = normalise(text)
    assert normalise(once) == once
    assert unicodedata.is_normalized("NFC", once)
    assert not re.search("[\r\u200b\ufeff\u00ad\u2018-\u201f\u00a0\u2000-\u200a]|[ \t](\n|$)|(\n|\\A)\n\n\n", once)


def test_every_unicode_space_becomes_a_space():
    spaces = [chr(n) for n in range(sys.maxunicode + 1) if unicodedata.category(chr(n)) == "Zs"]
    assert {normalise(f"a{space}b") for space in spaces} == {"a b"}


def test_texts_of_every_form_of_record_are_normalised_and_nothing_else_is():
    raw, plain = "\u201cWell\u201d \r\n", '"Well"\n'
    turns = [{"role": "“user”", "content": raw, "n": 1}]
    lines = [{"text": raw, "id": raw}, {"messages": turns}, {"conversation": turns}, {"input": raw, "output": raw}]
    lines += [{"text": "\u200b"}, {"messages": 5, "text": raw}]
    Path("a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    problems = Problems()
    clean = [{**turns[0], "content": plain}]
    assert list(read_records(Path("a.jsonl"), TextOptions(normalise=True), problems)) == [
        {"text": plain, "id": raw},
        {"messages": clean},
        {"conversation": clean},
        {"input": plain, "output": plain},
    ]
    assert problems.count == 1


def test_every_format_is_normalised():
    for path in everything(["\u201cOne\u201d\u00a0\nline", "e\u0301"]):
        assert texts(path, normalise=True) == ['"One"\nline', "é"], path
    write_txt(Path("a.txt"), ["\u200b\n\u200b", "\u200b\n a"])
    assert texts("a.txt", normalise=True) == ["a"]


# --- what is imported -------------------------------------------------------------------------------------------------


def test_nothing_heavy_is_imported():
    heavy = {"torch", "tiktoken", "pyarrow", "zstandard", "transformers"}
    code = f"import sys; from jojo.text import readers; found = {heavy} & set(sys.modules); assert not found, found"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
