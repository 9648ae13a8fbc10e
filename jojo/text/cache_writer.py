"""Writes a token cache's files, and goes on where a process that was killed had got to.

Everything is written under names that begin with a dot. After every JOURNAL_BYTES of source text the files are made durable
and a journal notes how far they reach; the next process that makes the same cache goes on from there, to the same bytes.
Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
import glob
import io
import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jojo.text.documents import Encoded
from jojo.text.token_cache import BLOCK_BYTES, FINGERPRINT, SHARD_BLOCKS, CacheManifest, digest_of, shard_of, shards
from utils import log, replace_text

JOURNAL_BYTES = 64 << 20  # of source text between two journals
COUNTS = (
    "n_documents", "n_tokens", "n_control_tokens", "n_text_bytes", "longest_document", "lookalike_documents",
    "empty_documents", "bad_lines",
)  # fmt: skip
EXAMPLES = 3  # of bad lines that are kept for the message


@contextlib.contextmanager
def errors_of(path: Path | str) -> Iterator[None]:
    """Errors that name no file name this one: a full disk does not say what was being written."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


class OutputFile(io.FileIO):
    """A file, unbuffered, whose errors name it."""

    def write(self, content: Any, /) -> int:
        """Write bytes; returns how many were taken."""
        with errors_of(self.name):
            return super().write(content)


class ChecksummedWriter:
    """Appends to a file, or to its shards, and collects the CRC-32 of each block."""

    def __init__(self, path: Path, mark: dict[str, Any] | None = None) -> None:
        """`mark`: take over what an earlier writer had marked; ValueError or OSError where that is not there, intact."""
        self.path = path
        self.checksums: list[str] = []
        self._pending = bytearray()
        self._file: BinaryIO = self._open(path, new=not mark)
        if mark:
            try:
                self._take_over(mark)
            except BaseException:
                self.close()
                raise

    @staticmethod
    def _open(path: Path, new: bool) -> BinaryIO:
        return io.BufferedRandom(OutputFile(str(path), "w+b" if new else "r+b"))

    def close(self) -> None:
        """Close the file; what finish() or mark() did not make durable may be lost."""
        with contextlib.suppress(OSError):
            self._file.close()

    def write(self, content: bytes) -> None:
        self._pending += content
        while len(self._pending) >= BLOCK_BYTES:
            self._flush(BLOCK_BYTES)

    def _flush(self, size: int) -> None:
        block = bytes(self._pending[:size])
        del self._pending[:size]
        self._turn_to(len(self.checksums), new=True)
        self._file.write(block)
        self.checksums.append(f"{zlib.crc32(block):08x}")

    def _turn_to(self, block: int, new: bool) -> None:
        """Have the shard open that the block belongs to, at its place."""
        path, offset = shard_of(self.path, block)
        if str(path) != self._file.name:
            self._sync()
            self._file.close()
            self._file = self._open(path, new)
        self._file.seek(offset)

    def _sync(self) -> None:
        with errors_of(self._file.name):
            self._file.flush()
            os.fsync(self._file.fileno())

    def finish(self) -> str:
        """Write what is left, make it durable; returns the checksums as one string."""
        if self._pending:
            self._flush(len(self._pending))
            self._file.truncate()
        self._sync()
        return "".join(self.checksums)

    def mark(self) -> dict[str, Any]:
        """Make everything durable, the unfinished block too, and say what a later writer needs to take it over."""
        self._turn_to(len(self.checksums), new=True)
        self._file.write(self._pending)
        self._sync()
        return {"checksums": "".join(self.checksums), "pending": len(self._pending)}

    def _take_over(self, mark: dict[str, Any]) -> None:
        stored = [mark["checksums"][i : i + 8] for i in range(0, len(mark["checksums"]), 8)]
        for block, checksum in enumerate(stored):
            self._turn_to(block, new=False)
            if f"{zlib.crc32(self._file.read(BLOCK_BYTES)):08x}" != checksum:
                raise ValueError(f"block {block} is damaged")
        self._turn_to(len(stored), new=False)
        self._pending = bytearray(self._file.read(mark["pending"]))
        if len(self._pending) != mark["pending"]:
            raise ValueError("it was cut short")
        self.checksums = stored


class CacheWriter:
    """The files of a cache in the making.

    Attributes:
        facts: grow with every part.
        lines_done, bytes_done: of the source, by what is in the files.
        bad_lines: the first of those that could not be read: (number, reason).
    """

    def __init__(self, facts: CacheManifest, cache_dir: Path, can_go_on: bool) -> None:
        """`can_go_on`: the source can be read from any place on, so a journal is of use."""
        self.manifest, self.cache_dir, self.can_go_on = facts, cache_dir, can_go_on
        self.lines_done = self.bytes_done = self._journalled = 0
        self.bad_lines: list[tuple[int, str]] = []
        self._stem = f"{facts.name}-{facts.split}-{facts.fingerprint}"
        for leftover in cache_dir.glob(f".{glob.escape(facts.name)}-{facts.split}-{FINGERPRINT}.part*"):
            if not leftover.name.startswith(f".{self._stem}."):
                leftover.unlink(missing_ok=True)  # of other contents; nobody else holds this set's lock
        self._ids, self._index = self._go_on() or (
            ChecksummedWriter(self._part(".bin")), ChecksummedWriter(self._part(".idx")),
        )  # fmt: skip
        if not self.lines_done:
            self._index.write(np.zeros(1, "<u8").tobytes())

    def _part(self, suffix: str) -> Path:
        return self.cache_dir / f".{self._stem}.part{suffix}"

    def _go_on(self) -> tuple[ChecksummedWriter, ChecksummedWriter] | None:
        """The files that a killed process left, with all it had counted; None where there are none that are sound."""
        try:
            journal = json.loads(self._part(".json").read_text(encoding="utf-8"))
            if not self.can_go_on or journal.pop("digest") != digest_of(journal):
                return None
            counts = {name: int(journal["counts"][name]) for name in COUNTS}
            lines, size = int(journal["lines"]), int(journal["bytes"])
            bad_lines = [(int(number), str(reason)) for number, reason in journal["bad_lines"]]
            ids = ChecksummedWriter(self._part(".bin"), journal[".bin"])
            try:
                index = ChecksummedWriter(self._part(".idx"), journal[".idx"])
            except BaseException:
                ids.close()
                raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            return None
        for name, count in counts.items():
            setattr(self.manifest, name, count)
        self.lines_done, self.bytes_done, self._journalled, self.bad_lines = lines, size, size, bad_lines
        log.info("Going on after line %s, where an earlier process had got to.", f"{self.lines_done:,}")
        return ids, index

    def add(self, part: Encoded) -> None:
        """Append the documents of one task."""
        facts = self.manifest
        self._ids.write(part.ids.tobytes())
        self._index.write((facts.n_tokens + np.cumsum(part.lengths)).astype("<u8").tobytes())
        facts.n_documents += len(part.lengths)
        facts.n_tokens += len(part.ids)
        facts.n_control_tokens += part.control_tokens
        facts.n_text_bytes += part.text_bytes
        facts.longest_document = max(facts.longest_document, int(part.lengths.max(initial=0)))
        facts.lookalike_documents += part.lookalikes
        facts.empty_documents += part.empty
        facts.bad_lines += len(part.bad_lines)
        self.bad_lines = [*self.bad_lines, *part.bad_lines][:EXAMPLES]
        self.lines_done += part.source_lines
        self.bytes_done += part.source_bytes
        if self.can_go_on and self.bytes_done - self._journalled >= JOURNAL_BYTES:
            self._write_journal()

    def _write_journal(self) -> None:
        journal = {
            ".bin": self._ids.mark(), ".idx": self._index.mark(),
            "counts": {name: value for name, value in asdict(self.manifest).items() if name in COUNTS},
            "lines": self.lines_done, "bytes": self.bytes_done, "bad_lines": [list(bad) for bad in self.bad_lines],
        }  # fmt: skip
        replace_text(self._part(".json"), json.dumps(journal | {"digest": digest_of(journal)}))
        self._journalled = self.bytes_done

    def finish(self) -> Path:
        """Give the files their names; returns the .json's, which comes last: a cache without it does not exist."""
        self.manifest.bin_crc32, self.manifest.idx_crc32 = self._ids.finish(), self._index.finish()
        facts, target = self._part(".facts"), self.cache_dir / f"{self._stem}.json"
        with errors_of(facts):
            facts.write_text(self.manifest.to_json(), encoding="utf-8")
        for suffix, writer in ((".bin", self._ids), (".idx", self._index)):
            places = shards(target.with_suffix(suffix))
            for number, place in zip(range(0, max(1, len(writer.checksums)), SHARD_BLOCKS), places, strict=False):
                os.replace(shard_of(self._part(suffix), number)[0], place)
                if suffix == ".idx":
                    break
        os.replace(facts, target)
        self._part(".json").unlink(missing_ok=True)
        return target

    def close(self) -> None:
        """Close the files. Those that are not finished stay where a journal says what is in them."""
        self._ids.close()
        self._index.close()
        if not self._part(".json").exists():
            for leftover in self.cache_dir.glob(f".{glob.escape(self._stem)}.part*"):
                leftover.unlink(missing_ok=True)
