"""Token ids on disk: what is in cache/<name>-<split>-<fingerprint>.{bin,idx,json}, and reading it.

    .bin    the ids of all documents back to back, each ending with <|endoftext|>; uint16 or uint32, little-endian.
            After every 4 GiB (2^31 ids of uint16) they go on in another file: .1.bin, .2.bin, ...
    .idx    uint64 offsets into .bin: document i is ids[offsets[i]:offsets[i + 1]]
    .json   facts: counts, tokenizer, what it was made from, and a CRC-32 of every 1 MiB block of the other two

The fingerprint covers the source's contents, the tokenizer and the rendering, so a cache is never used for anything
but what it was made from. cache_builder.py writes the files. Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import string
import weakref
import zlib
from collections.abc import Callable, Iterator
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from utils import UserError, log

FORMAT = 1
FINGERPRINT = "[0-9a-f]" * 16  # as a glob pattern
BLOCK_BYTES = 1 << 20  # one checksum per MiB
SHARD_BLOCKS = 1 << 12  # of a .bin file: 4 GiB, which every file system and object store takes
T = TypeVar("T")


class DamagedCache(UserError):
    """A token cache's contents are not what was written.

    what: the file and what is wrong with it, the beginning of the sentence.
    """

    def __init__(self, path: Path, how: str) -> None:
        self.what = f"The token cache '{path}' {how}"
        super().__init__(f"{self.what}; delete it, and it is built anew from the data.")


@dataclass
class CacheManifest:
    """The .json beside a cache; see the module's first lines."""

    name: str
    split: str
    fingerprint: str
    tokenizer: dict[str, Any]
    rendering: dict[str, Any]
    source: dict[str, Any]  # label, sha256, and for a file its size and mtime_ns when it was last compared
    dtype: str
    n_documents: int = 0
    n_tokens: int = 0  # with the control tokens
    n_control_tokens: int = 0
    n_text_bytes: int = 0
    longest_document: int = 0  # tokens
    lookalike_documents: int = 0
    empty_documents: int = 0
    bad_lines: int = 0
    bin_crc32: str = ""  # eight hex digits per block
    idx_crc32: str = ""
    format: int = FORMAT

    def to_json(self) -> str:
        """JSON with a checksum of its own, so that no flipped bit goes unseen."""
        values = asdict(self)
        return json.dumps(values | {"facts_sha256": digest_of(values)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> CacheManifest:
        """Raises ValueError where the text is not intact facts of this format."""
        try:
            values = json.loads(text)
            intact = isinstance(values, dict) and values.pop("facts_sha256", None) == digest_of(values)
        except (ValueError, RecursionError):
            intact = False
        if not intact:
            raise ValueError("damaged")
        if values.get("format") != FORMAT:
            raise ValueError("of another format")
        if not _possible(values):
            raise ValueError("damaged")
        return cls(**values)


def _possible(values: dict[str, Any]) -> bool:
    """Whether facts are of the right kinds and fit together: their checksum does not say who wrote them."""
    kinds = {item.name: type(item.default) for item in fields(CacheManifest) if item.default is not MISSING}
    kinds |= dict.fromkeys(("name", "split", "fingerprint", "dtype"), str)
    kinds |= dict.fromkeys(("tokenizer", "rendering", "source"), dict)
    if values.keys() != kinds.keys() or any(type(values[name]) is not kind for name, kind in kinds.items()):
        return False
    counts = [value for value in values.values() if type(value) is int]
    vocabulary, label = values["tokenizer"].get("n_vocab"), values["source"].get("label")
    if (
        min(counts) < 0
        or values["dtype"] not in ("<u2", "<u4")
        or type(vocabulary) is not int
        or type(label) is not str
    ):
        return False
    sizes = {"bin_crc32": values["n_tokens"] * int(values["dtype"][2]), "idx_crc32": (values["n_documents"] + 1) * 8}
    return all(
        len(values[name]) == 8 * -(-size // BLOCK_BYTES) and set(values[name]) <= set(string.hexdigits)
        for name, size in sizes.items()
    )


def digest_of(values: Any) -> str:
    """SHA-256 of plain values, by way of their JSON."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def shards(path: Path) -> Iterator[Path]:
    """The files that contents may be spread over: the one named, and for a .bin those that go on after it."""
    yield path
    for number in itertools.count(1) if path.suffix == ".bin" else ():
        yield path.with_suffix(f".{number}.bin")


def shard_of(path: Path, block: int) -> tuple[Path, int]:
    """The file that holds a block, and where in it the block begins."""
    number, inside = divmod(block, SHARD_BLOCKS) if path.suffix == ".bin" else (0, block)
    return (path.with_suffix(f".{number}.bin") if number else path), inside * BLOCK_BYTES


class CheckedFile:
    """Reads byte ranges of a file, verifying each 1 MiB block's CRC-32 before its first use.

    Ranges are read, not mapped: resident memory stays flat over an epoch, and a file that was cut short is an error
    instead of a crash.
    """

    def __init__(self, path: Path, checksums: str, size: int) -> None:
        self.path = path
        self.size = size
        self._checksums = checksums
        self._verified = bytearray(len(checksums) // 8)
        files = contextlib.ExitStack()
        self.close = weakref.finalize(self, files.close)  # by hand, or when nobody reads it any more
        self._shard_bytes = SHARD_BLOCKS * BLOCK_BYTES if path.suffix == ".bin" else max(1, size)
        self._files = [
            files.enter_context(open(shard, "rb", buffering=0))
            for shard in itertools.islice(shards(path), max(1, -(-size // self._shard_bytes)))
        ]
        actual = sum(os.fstat(file.fileno()).st_size for file in self._files)
        if actual != size:
            raise self._damaged(f"holds {actual:,} bytes instead of {size:,}")

    def read(self, start: int, stop: int) -> bytes:
        """Bytes start to stop."""
        for block in range(start // BLOCK_BYTES, -(-stop // BLOCK_BYTES)):
            if not self._verified[block]:
                self.verify(block)
        return self._read(start, stop)

    def verify(self, block: int) -> None:
        """Raises UserError when the block's contents are not what was written."""
        begin = block * BLOCK_BYTES
        content = self._read(begin, min(begin + BLOCK_BYTES, self.size))
        if f"{zlib.crc32(content):08x}" != self._checksums[8 * block : 8 * block + 8]:
            raise self._damaged(f"is damaged near byte {begin:,}")
        self._verified[block] = 1

    def verify_all(self) -> None:
        """Verify every block that has not been yet."""
        for block, verified in enumerate(self._verified):
            if not verified:
                self.verify(block)

    def _read(self, start: int, stop: int) -> bytes:
        content = b""
        while start < stop:  # once, but at the end of a shard, and where a raw read stops early (at 2 GiB)
            shard, offset = divmod(start, self._shard_bytes)
            file = self._files[shard]
            file.seek(offset)
            part = file.read(min(stop - start, self._shard_bytes - offset))
            if not part:
                raise self._damaged("was cut short while in use")
            content, start = content + part if content else part, start + len(part)
        return content

    def _damaged(self, how: str) -> DamagedCache:
        return DamagedCache(self.path, how)


class TokenCache:
    """A finished cache, open for reading.

    Where damage shows only when it is read, the cache is built anew and read again, if `rebuild` is given: it is called
    with the facts, and writes the same files from the same data or raises UserError.
    """

    def __init__(self, facts_path: Path, rebuild: Callable[[CacheManifest], None] | None = None) -> None:
        self.path, self.rebuild = facts_path, rebuild
        self.manifest = CacheManifest.from_json(facts_path.read_text(encoding="utf-8"))
        self.dtype = np.dtype(self.manifest.dtype)
        self.n_tokens, self.n_documents = self.manifest.n_tokens, self.manifest.n_documents
        self._open()

    def _open(self) -> None:
        facts, size = self.manifest, self.n_tokens * self.dtype.itemsize
        self._bin = CheckedFile(self.path.with_suffix(".bin"), facts.bin_crc32, size)
        self._idx = CheckedFile(self.path.with_suffix(".idx"), facts.idx_crc32, (self.n_documents + 1) * 8)

    def _sound(self, read: Callable[[], T]) -> T:
        """What `read` returns; where it meets damage, once more after the cache was built anew."""
        try:
            return read()
        except DamagedCache as damage:
            if self.rebuild is None:
                raise
            log.warning("%s; building it anew.", damage.what)
            self.close()
            self.rebuild(self.manifest)
            self.manifest = CacheManifest.from_json(self.path.read_text(encoding="utf-8"))
            if (self.manifest.n_tokens, self.manifest.n_documents) != (self.n_tokens, self.n_documents):
                raise
            self._open()
            return read()

    def tokens(self, start: int, stop: int) -> np.ndarray:
        """Ids start to stop of all documents back to back, as stored (uint16 or uint32)."""
        return self._sound(lambda: self._ids(start, stop))

    def _ids(self, start: int, stop: int) -> np.ndarray:
        size = self.dtype.itemsize
        ids = np.frombuffer(self._bin.read(start * size, stop * size), dtype=self.dtype)
        if ids.max(initial=0) >= self.manifest.tokenizer["n_vocab"]:
            raise DamagedCache(self._bin.path, "is damaged: it holds ids that its tokenizer does not have")
        return ids

    def offsets(self, start: int, stop: int) -> np.ndarray:
        """Where documents start to stop - 1 begin, in tokens; entry n_documents is the end. uint64."""
        return np.frombuffer(self._sound(lambda: self._idx.read(start * 8, stop * 8)), dtype="<u8")

    def index(self) -> np.ndarray:
        """All offsets, verified and mapped: for one pass over them, not to be kept. uint64 (n_documents + 1,)."""
        return self._sound(self._whole_index)

    def _whole_index(self) -> np.ndarray:
        self._idx.verify_all()
        index = np.memmap(self._idx.path, dtype="<u8", mode="r")
        if index[0] != 0 or index[-1] != self.n_tokens or (index[1:] <= index[:-1]).any():
            raise DamagedCache(self._idx.path, "is damaged: its documents do not follow one another")
        return index

    def close(self) -> None:
        """Close the files; reading again fails."""
        self._bin.close()
        self._idx.close()

    def verify(self) -> None:
        """Read every block. Raises DamagedCache at the first damaged one."""
        self._bin.verify_all()
        self._idx.verify_all()
