"""Documents -> data/<name>-{train,val}.jsonl, and <name>.made.json, which says what they were made from.

A document's own contents decide its split, unless its source has splits of its own. Exact duplicates are dropped, also
across splits. All files get their names together, so the same command, given again, finds all of them or none.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jojo.text.cache_writer import OutputFile, errors_of
from jojo.text.documents import Document, plain_text, record_messages
from utils import UserError, log, parse_json

SPLITS = ("train", "val")
RARE = bytes(set(range(32)) - set(b"\n"))  # control characters, which only json escapes correctly
SHORTEST = 100  # characters that a single document needs to be cut into two splits


@dataclass
class Provenance:
    """What the files of a data set were made from; plain values."""

    request: dict[str, Any]  # what was asked for, and the state of the sources (names, sizes, times)
    documents: dict[str, int]  # per split
    duplicates: int  # how many documents were dropped
    sizes: dict[str, int]  # of the files in bytes, per split


@dataclass(frozen=True)
class DatasetFiles:
    """The files of a data set in a folder."""

    folder: Path
    name: str

    def split(self, split: str) -> Path:
        return self.folder / f"{self.name}-{split}.jsonl"

    @property
    def provenance_file(self) -> Path:
        return self.folder / f"{self.name}.made.json"

    @property
    def pending(self) -> Path:
        """The provenance of a set that is written, but whose files may still have their temporary names."""
        return self.folder / f".{self.name}.pending.json"

    @property
    def lock(self) -> Path:
        """Held by the process that writes the set, or calls settle()."""
        return self.folder / f".{self.name}.lock"

    def temporary(self, split: str) -> Path:
        """Where a split is written."""
        return self.folder / f".{self.name}-{split}.jsonl.new"

    @property
    def unfinished(self) -> list[Path]:
        """The files of a set that is not pending yet: its provenance and its splits."""
        return [self.pending.with_suffix(".new"), *map(self.temporary, SPLITS)]

    def settle(self) -> None:
        """Clean up after a killed process: rename the files of a pending set, delete unfinished ones. Needs the lock."""
        if self.pending.exists():
            self.provenance_file.unlink(missing_ok=True)
            for split in SPLITS:
                if self.temporary(split).exists():
                    os.replace(self.temporary(split), self.split(split))
            os.replace(self.pending, self.provenance_file)
        for path in self.unfinished:
            path.unlink(missing_ok=True)

    def provenance(self) -> Provenance | None:
        """What the files were made from. None if they are incomplete, were changed, or came from somewhere else."""
        try:
            found = Provenance(**parse_json(self.provenance_file.read_bytes()))
            sizes = {split: self.split(split).stat().st_size for split in SPLITS}
            counts = [found.documents[split] for split in SPLITS]
        except (OSError, ValueError, TypeError, KeyError):
            return None
        sound = isinstance(found.request, dict) and all(type(count) is int for count in counts)
        return found if sound and found.sizes == sizes else None


def write_dataset(
    files: DatasetFiles, documents: Iterable[Document], request: dict[str, Any], source: str
) -> Provenance:
    """Write both splits and their provenance, all or nothing.

    Raises UserError if there are no documents, or a single one that is too short to be split.

    Args:
        files: the files to write.
        documents: what to write; read once.
        request: kept in the provenance. "val_fraction" is the share of validation documents if the source has no
            splits. "max_documents" stops after so many documents; if the source has splits, only its training documents
            are used, and they are split again.
        source: where the documents come from, for messages.
    """
    provenance_file, *splits = files.unfinished
    try:
        counts, duplicates = _write_splits(files, documents, request["val_fraction"], request["max_documents"])
        if not sum(counts.values()):
            raise UserError(f"No documents in {source}; nothing was written.")
        with errors_of(files.folder):
            for empty, full in (("val", "train"), ("train", "val")):
                if not counts[empty]:
                    _fill_empty_split(empty, files.temporary(empty), files.temporary(full))
                    counts[empty], counts[full] = 1, max(1, counts[full] - 1)
            sizes = {split: files.temporary(split).stat().st_size for split in SPLITS}
            provenance = Provenance(request, counts, duplicates, sizes)
            for path in splits:
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
            provenance_file.write_text(json.dumps(asdict(provenance), indent=1) + "\n", encoding="utf-8")
            os.replace(provenance_file, files.pending)
            files.settle()
    finally:
        if not files.pending.exists():
            for path in files.unfinished:
                path.unlink(missing_ok=True)
    return provenance


def _write_splits(
    files: DatasetFiles, documents: Iterable[Document], val_fraction: float, max_documents: int | None
) -> tuple[dict[str, int], int]:
    """Write each document once, to its split. Returns how many each split has, and how many were duplicates."""
    from tqdm import tqdm

    counts, duplicates = dict.fromkeys(SPLITS, 0), 0
    seen: set[int] = set()
    with ExitStack() as stack:
        places = {split: OutputFile(str(files.temporary(split)), "wb") for split in SPLITS}
        out = {split: stack.enter_context(io.BufferedWriter(place)) for split, place in places.items()}
        shown = tqdm(documents, unit=" documents", desc="Reading", leave=False, disable=not sys.stderr.isatty())
        for own_split, record in shown:
            if max_documents and own_split == "val":
                continue
            number = digest(record)
            if number in seen:
                duplicates += 1
                continue
            seen.add(number)
            split = "val" if number / 2**64 < val_fraction else "train"
            if own_split and not max_documents:
                split = own_split
            out[split].write(to_line(record))
            counts[split] += 1
            if sum(counts.values()) == max_documents:
                break
    return counts, duplicates


def digest(record: Mapping[str, Any]) -> int:
    """A 64-bit hash of the document's text, which also decides its split. Other fields, such as an id, do not matter."""
    if messages := record_messages(record):
        turns = [
            {name: turn[name].encode("utf-8", "replace").decode() for name in ("role", "content")} for turn in messages
        ]
        content = json.dumps(turns, sort_keys=True).encode()
    else:
        content = plain_text(record).encode("utf-8", "replace")
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big")


def to_line(record: Mapping[str, Any]) -> bytes:
    """One JSONL line, with "?" for a character that has no UTF-8 form (half a surrogate pair)."""
    if record.keys() == {"text"}:  # most records; three times faster than json
        text = record["text"].encode("utf-8", "replace")
        if len(text.translate(None, RARE)) == len(text):
            escaped = text.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")
            return b'{"text": "' + escaped + b'"}\n'
    return json.dumps(record, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def _fill_empty_split(split: str, empty: Path, full: Path) -> None:
    """Move the document whose digest is nearest into an empty split. A single document is cut; its end is for validation.

    Raises UserError for a single document that is short, or a conversation.
    """
    lines = full.read_bytes().splitlines(keepends=True)
    if len(lines) > 1:
        digests = [digest(json.loads(line)) for line in lines]
        moved = lines.pop(digests.index((min if split == "val" else max)(digests)))
        log.warning("The %s split was empty, so it got one document. Add more text, or change --val_fraction.", split)
    else:
        record = json.loads(lines[0])
        text = str(record.get("text") or "").strip()
        if len(text) < SHORTEST:
            raise UserError("One document cannot be split into training and validation; add more text.")
        latest = int(0.9 * len(text))
        cut = max(0, text.rfind("\n", len(text) // 2, latest)) or latest
        beginning, end = (to_line({**record, "text": part.strip()}) for part in (text[:cut], text[cut:]))
        moved, lines = (beginning, [end]) if split == "train" else (end, [beginning])
        log.warning("There is only one document, so its end became the validation split.")
    empty.write_bytes(moved)
    full.write_bytes(b"".join(lines))
