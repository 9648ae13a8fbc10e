"""Documents -> data/<name>-{train,val}.jsonl, and what they were made from.

Which split a document goes to is decided by its own contents, unless its source has splits of its own; exact duplicates are
dropped, whichever split they would go to. Both files are written under temporary names and appear together, with a file
beside them that says what they were made from: the same command again finds them done.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jojo.text.cache_writer import OutputFile, errors_of
from jojo.text.documents import Document, plain_text, record_messages
from utils import UserError, log

SPLITS = ("train", "val")
RARE = bytes(set(range(32)) - set(b"\n"))  # control characters, which JSON escapes in many ways


class Seen:
    """A set of 64-bit numbers that takes 16 to 32 bytes for each: a table with open addressing (linear probing)."""

    def __init__(self) -> None:
        self._table = np.zeros(1 << 16, np.uint64)  # 0: free
        self._count = 0

    def add(self, number: int) -> bool:
        """Put a number in; returns whether it was not there yet."""
        if 2 * self._count >= len(self._table):
            self._grow()
        number = number or 1
        at = self._place(number)
        if self._table[at]:
            return False
        self._table[at] = number
        self._count += 1
        return True

    def _place(self, number: int) -> int:
        table, mask = self._table, len(self._table) - 1
        at = number & mask
        while (there := int(table[at])) and there != number:
            at = (at + 1) & mask
        return at

    def _grow(self) -> None:
        known = self._table[self._table != 0]
        self._table = np.zeros(2 * len(self._table), np.uint64)
        for first in range(0, len(known), 1 << 12):  # few Python integers at a time
            for number in known[first : first + (1 << 12)].tolist():
                self._table[self._place(number)] = number


@dataclass
class Made:
    """What two files of a data set are made from; plain values.

    request: what was asked for, and the state of the sources (names, sizes, times).
    documents: per split.
    duplicates: documents that were dropped.
    sizes: of the files in bytes, per split.
    """

    request: dict[str, Any]
    documents: dict[str, int]
    duplicates: int
    sizes: dict[str, int]

    @property
    def options(self) -> dict[str, Any]:
        """How the text was changed on its way, if it was."""
        return {"normalised": True} if self.request.get("normalise") else {}


@dataclass(frozen=True)
class DatasetFiles:
    """The files of a data set in a folder."""

    folder: Path
    name: str

    def split(self, split: str) -> Path:
        return self.folder / f"{self.name}-{split}.jsonl"

    @property
    def facts(self) -> Path:
        """What the set was made from."""
        return self.folder / f"{self.name}.made.json"

    @property
    def pending(self) -> Path:
        """Facts of a set that is written, but whose files do not all have their names yet."""
        return self.folder / f".{self.name}.pending.json"

    @property
    def lock(self) -> Path:
        """Held by the process that makes the set, or settles it."""
        return self.folder / f".{self.name}.lock"

    def unnamed(self, split: str) -> Path:
        """Where a split is written before it gets its name."""
        return self.folder / f".{self.name}-{split}.jsonl.new"

    @property
    def unfinished(self) -> list[Path]:
        """What a set is written to before it is pending: its facts and its splits."""
        return [self.pending.with_suffix(".new"), *map(self.unnamed, SPLITS)]

    def settle(self) -> None:
        """Bring in order what a killed process left; for who holds the lock.

        A finished set is given its names. What is not finished goes.
        """
        if self.pending.exists():
            self.facts.unlink(missing_ok=True)
            for split in SPLITS:
                if self.unnamed(split).exists():
                    os.replace(self.unnamed(split), self.split(split))
            os.replace(self.pending, self.facts)
        for path in self.unfinished:
            path.unlink(missing_ok=True)

    def made(self) -> Made | None:
        """What the files that are there were made from; None where they are incomplete, changed, or somebody else's."""
        try:
            made = Made(**json.loads(self.facts.read_text(encoding="utf-8")))
            sizes = {split: self.split(split).stat().st_size for split in SPLITS}
            counts = [made.documents[split] for split in SPLITS]
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None
        sound = isinstance(made.request, dict) and all(type(count) is int for count in counts)
        return made if sound and made.sizes == sizes else None

    def there(self) -> list[str]:
        """Those of the two files that exist."""
        return [str(self.split(split)) for split in SPLITS if self.split(split).exists()]


def share_of(record: Mapping[str, Any]) -> float:
    """A number in [0, 1) drawn from what the document says (not from other fields such as an id)."""
    return _number(record) / 2**64


def _number(record: Mapping[str, Any]) -> int:
    """64 bits of what is said, as to_line writes it."""
    if messages := record_messages(record):
        turns = [{name: _written(turn[name]).decode() for name in ("role", "content")} for turn in messages]
        content = json.dumps(turns, sort_keys=True).encode()
    else:
        content = _written(plain_text(record))
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big")


def _written(text: str) -> bytes:
    """UTF-8; half a surrogate pair, which no text has, becomes a question mark."""
    return text.encode("utf-8", "replace")


def write_dataset(
    files: DatasetFiles,
    documents: Iterable[Document],
    request: dict[str, Any],
    what: str,
    val_fraction: float,
    max_documents: int | None = None,
) -> Made:
    """Write both splits and what they were made from, all or nothing.

    Args:
        files: where to.
        documents: what to write, read once.
        request: kept in the file of facts.
        what: the documents come from, for messages.
        val_fraction: share of documents that validate, of those that have no split of their own.
        max_documents: stop after so many, of what its source calls training text if it has splits; they are split anew.

    Raises:
        UserError: no documents, or a single one that is too short to be split.
    """
    facts, *written = files.unfinished
    try:
        counts, duplicates = _write_splits(files, documents, val_fraction, max_documents)
        if not sum(counts.values()):
            raise UserError(f"No documents in {what}; nothing was written.")
        with errors_of(files.folder):
            for empty, full in (("val", "train"), ("train", "val")):
                if not counts[empty]:
                    moved = fill_empty_split(empty, files.unnamed(empty), files.unnamed(full))
                    counts[empty], counts[full] = moved, max(1, counts[full] - moved)
            made = Made(request, counts, duplicates, {split: files.unnamed(split).stat().st_size for split in SPLITS})
            for path in written:
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
            facts.write_text(json.dumps(asdict(made), indent=1) + "\n", encoding="utf-8")
            os.replace(facts, files.pending)
            files.settle()
    finally:
        if not files.pending.exists():
            for path in files.unfinished:
                path.unlink(missing_ok=True)
    return made


def _write_splits(
    files: DatasetFiles, documents: Iterable[Document], val_fraction: float, max_documents: int | None
) -> tuple[dict[str, int], int]:
    """Write each document to its split, once; returns how many there are per split, and how many were duplicates."""
    counts, duplicates, seen = dict.fromkeys(SPLITS, 0), 0, Seen()
    with ExitStack() as stack:
        places = {split: OutputFile(str(files.unnamed(split)), "wb") for split in SPLITS}
        out = {split: stack.enter_context(io.BufferedWriter(place)) for split, place in places.items()}
        for own, record in _shown(documents):
            if max_documents and own == "val":
                continue
            try:
                number, line = _number(record), to_line(record)
            except RecursionError:  # reading JSON goes a little deeper than writing it
                log.warning("Skipped a record that is nested too deeply.")
                continue
            if not seen.add(number):
                duplicates += 1
                continue
            by_share = "val" if number / 2**64 < val_fraction else "train"
            split = own if own and not max_documents else by_share
            out[split].write(line)
            counts[split] += 1
            if sum(counts.values()) == max_documents:
                break
    return counts, duplicates


def _shown(documents: Iterable[Document]) -> Iterator[Document]:
    """The documents, counted on a terminal as they pass."""
    from tqdm import tqdm

    yield from tqdm(documents, unit=" documents", desc="Reading", leave=False, disable=not sys.stderr.isatty())


def to_line(record: Mapping[str, Any]) -> bytes:
    """One JSONL line."""
    if record.keys() == {"text"}:  # most records; by hand three times faster
        text = _written(record["text"])
        if len(text.translate(None, RARE)) == len(text):
            escaped = text.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")
            return b'{"text": "' + escaped + b'"}\n'
    return _written(json.dumps(record, ensure_ascii=False)) + b"\n"


def fill_empty_split(split: str, empty: Path, full: Path) -> int:
    """Sets of a few documents: give the empty split the one nearest to it; a single one is cut. Returns how many moved."""
    lines = full.read_bytes().splitlines(keepends=True)
    shares = [share if (share := _share_of_line(line)) is not None else 0.5 for line in lines]
    if len(lines) > 1:
        chosen = shares.index((min if split == "val" else max)(shares))
        moved, stay = [lines[chosen]], [line for i, line in enumerate(lines) if i != chosen]
        log.warning(
            "No document was drawn for the %s split: gave it one. More text, or another --val_fraction, makes this unnecessary.",
            split,
        )
    else:
        record = json.loads(lines[0])
        text = record.get("text")
        text = text.strip() if isinstance(text, str) else ""
        if len(text) < 100:
            raise UserError(
                f"One {'short ' if text else ''}document cannot be split into training and validation; add more text."
            )
        cut = text.rfind("\n", len(text) // 2, int(0.9 * len(text)))
        cut = cut if cut > 0 else int(0.9 * len(text))
        pieces = [[to_line({**record, "text": part.strip()})] for part in (text[:cut], text[cut:])]
        moved, stay = pieces if split == "train" else pieces[::-1]
        log.warning("There is one document only: its end validates.")
    empty.write_bytes(b"".join(moved))
    full.write_bytes(b"".join(stay))
    return 1


def _share_of_line(line: bytes) -> float | None:
    """The share of a line that was written; None where it is nested a little too deeply to be read from here."""
    try:
        return share_of(json.loads(line))
    except RecursionError:
        return None
