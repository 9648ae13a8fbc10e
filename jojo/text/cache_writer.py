"""Writes a token cache's files, and continues where a process that was killed stopped.

Everything is written under names that begin with a dot. After every JOURNAL_BYTES of source text the files are synced to
disk, and a journal records their lengths. The next process that makes the same cache continues there, with the same result.
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
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from jojo.text.documents import Encoded
from jojo.text.token_cache import BLOCK_BYTES, FINGERPRINT, CacheManifest, digest_of
from utils import log, new_file, parse_json, replace_text

JOURNAL_BYTES = 64 << 20  # of source text between two journals
COUNTS = [item.name for item in fields(CacheManifest) if item.default == 0]
EXAMPLES = 3  # bad lines that are kept for the message


@contextlib.contextmanager
def errors_of(path: Path | str) -> Iterator[None]:
    """Add this file name to errors that have none: "No space left on device" does not say which file was written."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


class OutputFile(io.FileIO):
    """An unbuffered file. Its errors have its name."""

    def write(self, content: Any, /) -> int:
        with errors_of(self.name):
            return super().write(content)


class ChecksummedWriter:
    """Appends to a file (new, or left by a killed process) and computes the CRC-32 of each block."""

    def __init__(self, path: Path) -> None:
        self.size = 0
        self._crc32s: list[int] = []  # of the blocks; the last one may be unfinished
        self._file = io.BufferedRandom(OutputFile(str(path), "r+b" if path.exists() else "w+b"))

    @property
    def checksums(self) -> str:
        """Eight hex digits per block."""
        return "".join(f"{crc32:08x}" for crc32 in self._crc32s)

    def write(self, content: bytes) -> None:
        self._file.write(content)
        self._add_to_checksums(content)

    def _add_to_checksums(self, content: bytes) -> None:
        rest = memoryview(content)
        while rest:
            inside = self.size % BLOCK_BYTES
            part = rest[: BLOCK_BYTES - inside]
            self._crc32s.append(zlib.crc32(part, self._crc32s.pop() if inside else 0))
            self.size += len(part)
            rest = rest[len(part) :]

    def sync(self) -> dict[str, Any]:
        """Sync the file to disk; returns arguments for keep(), which then restores the file as it is now."""
        with errors_of(self._file.name):
            self._file.flush()
            os.fsync(self._file.fileno())
        full_blocks, pending = divmod(self.size, BLOCK_BYTES)
        return {"checksums": self.checksums[: 8 * full_blocks], "pending": pending}

    def keep(self, checksums: str = "", pending: int = 0) -> None:
        """Cut the file to the contents that sync() described, by default to nothing. ValueError if they changed."""
        size = len(checksums) // 8 * BLOCK_BYTES + pending
        self.size, self._crc32s = 0, []
        self._file.seek(0)
        while self.size < size:
            content = self._file.read(min(BLOCK_BYTES, size - self.size))
            if not content:
                raise ValueError("the file was cut short")
            self._add_to_checksums(content)
        if not self.checksums.startswith(checksums):
            raise ValueError("the file is damaged")
        self._file.seek(size)
        self._file.truncate()

    def close(self) -> None:
        """Close the file; bytes written since the last sync() may be lost."""
        with contextlib.suppress(OSError):
            self._file.close()


class CacheWriter:
    """Writes the files of one cache. The counts in its manifest grow with every part."""

    def __init__(self, manifest: CacheManifest, cache_dir: Path, resumable: bool) -> None:
        """`resumable`: whether the source can be read from any byte on; without that, a journal would be useless."""
        self.manifest, self.resumable = manifest, resumable
        self.lines_done = self.bytes_done = 0  # how much of the source is in the files
        self._journalled = 0  # bytes_done at the last journal
        self.bad_lines: list[tuple[int, str]] = []  # the first ones: (number, reason)
        self.path = cache_dir / f"{manifest.name}-{manifest.split}-{manifest.fingerprint}.json"
        for leftover in cache_dir.glob(f".{glob.escape(manifest.name)}-{manifest.split}-{FINGERPRINT}.*"):
            if not leftover.name.startswith(f".{self.path.stem}.part."):
                # It has another fingerprint. The caller holds the lock, so nobody is writing it.
                leftover.unlink(missing_ok=True)
        self._ids, self._index = ChecksummedWriter(self._part(".bin")), ChecksummedWriter(self._part(".idx"))
        if not (resumable and self._resume()):
            self._ids.keep()
            self._index.keep()
            self._index.write(np.zeros(1, "<u8").tobytes())

    @property
    def examples(self) -> str:
        """The first unreadable lines, for a message."""
        shown = [f"line {number}: {reason}" for number, reason in self.bad_lines]
        return "; ".join(shown + ["..."] * (self.manifest.bad_lines > len(shown)))

    def _part(self, suffix: str) -> Path:
        return self.path.with_name(f".{self.path.stem}.part{suffix}")

    def _resume(self) -> bool:
        """Continue the files of a killed process. Returns False if they are missing or damaged."""
        try:
            journal = parse_json(self._part(".json").read_text(encoding="utf-8"))
            if journal.pop("digest") != digest_of(journal):
                return False
            counts = {name: int(journal["counts"][name]) for name in COUNTS}
            lines, size = int(journal["lines"]), int(journal["bytes"])
            bad_lines = [(int(number), str(reason)) for number, reason in journal["bad_lines"]]
            self._ids.keep(**journal[".bin"])
            self._index.keep(**journal[".idx"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False
        vars(self.manifest).update(counts)
        self.lines_done, self.bytes_done, self._journalled, self.bad_lines = lines, size, size, bad_lines
        log.info("Continuing after line %s, where an earlier process stopped.", f"{lines:,}")
        return True

    def add(self, part: Encoded) -> None:
        manifest = self.manifest
        self._ids.write(part.ids.tobytes())
        self._index.write((manifest.n_tokens + np.cumsum(part.lengths)).astype("<u8").tobytes())
        manifest.n_documents += len(part.lengths)
        manifest.n_tokens += len(part.ids)
        manifest.n_control_tokens += part.control_tokens
        manifest.n_text_bytes += part.text_bytes
        manifest.longest_document = max(manifest.longest_document, int(part.lengths.max(initial=0)))
        manifest.lookalike_documents += part.lookalikes
        manifest.empty_documents += part.empty
        manifest.bad_lines += len(part.bad_lines)
        self.bad_lines = [*self.bad_lines, *part.bad_lines][:EXAMPLES]
        self.lines_done += part.source_lines
        self.bytes_done += part.source_bytes
        if self.resumable and self.bytes_done - self._journalled >= JOURNAL_BYTES:
            self._write_journal()

    def _write_journal(self) -> None:
        journal = {
            ".bin": self._ids.sync(),
            ".idx": self._index.sync(),
            "counts": {name: getattr(self.manifest, name) for name in COUNTS},
            "lines": self.lines_done,
            "bytes": self.bytes_done,
            "bad_lines": [list(bad) for bad in self.bad_lines],
        }
        replace_text(self._part(".json"), json.dumps(journal | {"digest": digest_of(journal)}))
        self._journalled = self.bytes_done

    def finish(self) -> Path:
        """Give the files their names; returns the .json, which comes last: without it there is no cache."""
        self._ids.sync()
        self._index.sync()
        self.manifest.bin_crc32, self.manifest.idx_crc32 = self._ids.checksums, self._index.checksums
        with errors_of(self.path), new_file(self.path) as file:
            file.write(self.manifest.to_json().encode())
            file.flush()  # a full disk is noticed before the other files get their names
            os.replace(self._part(".bin"), self.path.with_suffix(".bin"))
            os.replace(self._part(".idx"), self.path.with_suffix(".idx"))
        self._part(".json").unlink(missing_ok=True)
        return self.path

    def close(self) -> None:
        """Close the files. Unfinished files are deleted, unless a journal says what is in them."""
        self._ids.close()
        self._index.close()
        if not self._part(".json").exists():
            for suffix in (".bin", ".idx"):
                self._part(suffix).unlink(missing_ok=True)
