"""Documents -> data/<name>-{train,val}.jsonl, and <name>.made.json, which says what they were made from.

A document's own contents decide its split, unless its source has splits of its own. Exact duplicates are dropped, also
across splits. All files get their names together, so the same command, given again, finds all of them or none.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jojo.text.cache_writer import OutputFile, errors_of
from jojo.text.documents import Document, plain_text, record_messages
from utils import UserError, locked, log, parse_json, plural

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


class DatasetFiles:
    """The files of a data set in a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.splits = {split: folder / f"{name}-{split}.jsonl" for split in SPLITS}
        self.temporary = {split: folder / f".{name}-{split}.jsonl.new" for split in SPLITS}
        self.provenance_file = folder / f"{name}.made.json"
        # The provenance of a set that is written, but whose files may still have their temporary names:
        self.pending = folder / f".{name}.pending.json"
        # The files of a set that is not pending yet, its provenance and its splits:
        self.unfinished = [self.pending.with_suffix(".new"), *self.temporary.values()]

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """The lock of the set, to write it or to settle()."""
        return locked(self.folder / f".{self.name}.lock", f"the data set '{self.name}'")

    def settle(self) -> None:
        """Rename the files of a pending set, or delete those of an unfinished one. Needs the lock."""
        if self.pending.exists():
            self.provenance_file.unlink(missing_ok=True)
            for split in SPLITS:
                if self.temporary[split].exists():
                    os.replace(self.temporary[split], self.splits[split])
            os.replace(self.pending, self.provenance_file)
        for path in self.unfinished:
            path.unlink(missing_ok=True)

    def provenance(self) -> Provenance | None:
        """What the files were made from. None if they are incomplete, were changed, or came from somewhere else."""
        try:
            found = Provenance(**parse_json(self.provenance_file.read_bytes()))
            sizes = {split: self.splits[split].stat().st_size for split in SPLITS}
            counts = [found.documents[split] for split in SPLITS]
        except (OSError, ValueError, TypeError, KeyError):
            return None
        sound = isinstance(found.request, dict) and all(type(count) is int for count in counts)
        return found if sound and found.sizes == sizes else None


def write_dataset(
    files: DatasetFiles, documents: Iterable[Document], request: dict[str, Any], source: str
) -> Provenance:
    """Write both splits and their provenance, all or nothing. Messages name the `source`.

    The request's "max_documents" stops after so many documents; if the source has splits, only its training documents are
    used, and they are split again. Raises UserError if there are no documents, or a single one too short to be split.
    """
    (provenance_file, *splits), val_fraction = files.unfinished, request["val_fraction"]
    try:
        counts, duplicates, has_splits = _write_splits(files, documents, val_fraction, request["max_documents"])
        if not sum(counts.values()):
            raise UserError(f"No documents in {source}; nothing was written.")
        with errors_of(files.folder):
            if not has_splits or not all(counts.values()):
                counts = _balance(splits, counts, val_fraction)
            sizes = {split: files.temporary[split].stat().st_size for split in SPLITS}
            provenance = Provenance(request, counts, duplicates, sizes)
            for path in splits:
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
            provenance_file.write_text(json.dumps(asdict(provenance), indent=1) + "\n", encoding="utf-8")
            os.replace(provenance_file, files.pending)
    finally:
        files.settle()
    return provenance


def _write_splits(
    files: DatasetFiles, documents: Iterable[Document], val_fraction: float, max_documents: int | None
) -> tuple[dict[str, int], int, bool]:
    """Write each document once, to its split.

    Returns how many each split has, how many were duplicates, and whether the source has splits of its own.
    """
    from tqdm import tqdm

    counts, duplicates, has_splits = dict.fromkeys(SPLITS, 0), 0, False
    seen: set[int] = set()
    with contextlib.ExitStack() as stack:
        places = {split: OutputFile(str(files.temporary[split]), "wb") for split in SPLITS}
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
                split, has_splits = own_split, True
            out[split].write(to_line(record))
            counts[split] += 1
            if sum(counts.values()) == max_documents:
                break
    return counts, duplicates, has_splits


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
    return json.dumps(record, ensure_ascii=False, default=str).encode("utf-8", "replace") + b"\n"


def _balance(paths: Sequence[Path], counts: dict[str, int], val_fraction: float) -> dict[str, int]:
    """Correct what no draw of many documents gives: an empty split, or one with nearly all of the text.

    Returns the new counts. Raises UserError for a single document that is short, or a conversation.
    """
    total, low, high = sum(counts.values()), val_fraction / 100, (1 + val_fraction) / 2
    wanted = min(total - 1, max(1, round(val_fraction * total)))
    sizes = [path.stat().st_size for path in paths]
    share = sizes[1] / sum(sizes)  # of the text, for validation
    few = counts["val"] < max(1, wanted / 10)  # as if the text were the training split of another set
    if counts["train"] and not few and low < share < high:
        return counts
    train, val = (path.read_bytes().splitlines(keepends=True) for path in paths)
    if wanted and (few or share >= high):
        digests = {line: digest(json.loads(line)) for line in train + val}
        limit = sorted(digests.values())[wanted]
        train, val = ([line for line in digests if (digests[line] < limit) is chosen] for chosen in (False, True))
    if low < sum(map(len, val)) / sum(sizes) < high:
        got = plural(wanted, "document")
        log.warning("The random split was uneven, so validation got %s. Add text, or change --val_fraction.", got)
    else:
        by_length = sorted(train + val, key=len)
        shortest, longest = by_length[0], by_length[-1]
        beginning, end = _cut(longest) or (longest, shortest)
        if beginning == end:
            raise UserError("One document cannot be split into training and validation; add more text.")
        train, val = ([line for line in lines if line not in (longest, end)] for lines in (train, val))
        train, val = [*train, beginning], [*val, end]
        which = "There is only one document" if total == 1 else "One document has most of the text"
        part = "the shortest one" if beginning == longest else "its end"
        log.warning("%s, so %s became the validation split.", which, part)
    for path, lines in zip(paths, (train, val), strict=True):
        path.write_bytes(b"".join(lines))
    return dict(zip(SPLITS, (len(train), len(val)), strict=True))


def _cut(line: bytes) -> tuple[bytes, bytes] | None:
    """Two documents, of which the second has the last tenth of the text. None for a short text or a conversation."""
    record = json.loads(line)
    text = "" if record_messages(record) else plain_text(record).strip()
    if len(text) < SHORTEST:
        return None
    latest = int(0.9 * len(text))
    cut = max(0, text.rfind("\n", len(text) // 2, latest)) or latest
    beginning, end = (to_line({**record, "text": part.strip()}) for part in (text[:cut], text[cut:]))
    return beginning, end
