"""Tests of the words that people can edit: sections, entries and pairs."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipes import word_files

TEXT = """What the file is for.

== colors: bright
red
light
  green

== pairs
a = b = c
d = e
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(word_files, "WORDS", tmp_path)
    for function in (word_files.sections, word_files.entries, word_files.pairs):
        monkeypatch.setattr(word_files, function.__name__, function.__wrapped__)  # without its cache
    return tmp_path


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_sections_entries_and_pairs(folder: Path, end: str) -> None:
    (folder / "x.txt").write_bytes(TEXT.replace("\n", end).encode())
    assert list(word_files.sections("x")) == ["colors: bright", "pairs"]
    assert word_files.entries("x", "colors: bright") == ("red", "light green")
    assert word_files.pairs("x", "pairs") == {"a": "b = c", "d": "e"}


def test_two_sections_with_one_name_are_refused(folder: Path) -> None:
    (folder / "x.txt").write_text("== a\nb\n== a\nc\n")
    with pytest.raises(ValueError, match=r"x\.txt has two sections with the same name"):
        word_files.sections("x")


def test_every_file_says_what_it_is_for() -> None:
    files = sorted(word_files.WORDS.glob("*.txt"))
    assert len(files) == 5
    for path in files:
        assert word_files.sections(path.stem) and not path.read_text(encoding="utf-8").startswith("== ")
