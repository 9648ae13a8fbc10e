"""Token ids on disk: what is in cache/<name>-<split>-<fingerprint>.{bin,idx,json}, and reading it.

    .bin    the ids of all documents back to back, each ending with <|endoftext|>; uint16 or uint32, little-endian
    .idx    uint64 offsets into .bin: document i is ids[offsets[i]:offsets[i + 1]]
    .json   the manifest: counts, tokenizer, source, and a CRC-32 of every 1 MiB block of the other two

The fingerprint covers the source's contents, the tokenizer and data.parse_special, so a cache is never used for anything
but what it was made from. cache_builder.py writes the files. Nothing here imports torch.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import weakref
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import numpy as np

from utils import UserError, log, parse_json

FORMAT = 1
FINGERPRINT = "[0-9a-f]" * 16  # as a glob pattern
BLOCK_BYTES = 1 << 20  # one checksum per MiB


class DamagedCache(UserError):
    """A token cache does not hold what was written; `what` is the first half of the message: the file and the problem."""

    def __init__(self, path: Path, problem: str) -> None:
        self.what = f"The token cache '{path}' {problem}"
        super().__init__(f"{self.what}; delete it, and it is built again from the data.")


@dataclass
class CacheManifest:
    """The .json of a cache; see the module's first lines."""

    name: str
    split: str
    fingerprint: str
    tokenizer: dict[str, Any]
    rendering: dict[str, Any]
    source: dict[str, Any]  # label, sha256, and for a file its size and mtime_ns when its sha256 was last verified
    dtype: str
    n_documents: int = 0
    n_tokens: int = 0  # including the control tokens
    n_control_tokens: int = 0
    n_text_bytes: int = 0
    longest_document: int = 0  # tokens
    lookalike_documents: int = 0  # their text contains something written like a control token
    empty_documents: int = 0
    bad_lines: int = 0
    bin_crc32: str = ""  # eight hex digits per block
    idx_crc32: str = ""
    format: int = FORMAT

    def to_json(self) -> str:
        """JSON with a checksum of itself, so that a flipped bit is noticed."""
        values = asdict(self)
        return json.dumps(values | {"facts_sha256": digest_of(values)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> CacheManifest:
        """The manifest in a JSON text. Raises ValueError if it is not intact, or has another format."""
        values = parse_json(text)
        intact = isinstance(values, dict) and values.pop("facts_sha256", None) == digest_of(values)
        if not (intact and _is_sound(values)):
            raise ValueError("not an intact manifest")
        return cls(**values)


def _is_sound(values: dict[str, Any]) -> bool:
    """Whether types, counts and sizes fit. The checksum alone proves nothing: anybody can compute it."""
    types = {name: get_origin(hint) or hint for name, hint in get_type_hints(CacheManifest).items()}
    if {name: type(value) for name, value in values.items()} != types or values["format"] != FORMAT:
        return False
    if values["dtype"] not in ("<u2", "<u4") or min(value for value in values.values() if type(value) is int) < 0:
        return False
    if type(values["tokenizer"].get("n_vocab")) is not int or type(values["source"].get("label")) is not str:
        return False
    sizes = {"bin_crc32": values["n_tokens"] * int(values["dtype"][2]), "idx_crc32": (values["n_documents"] + 1) * 8}
    return all(len(values[name]) == 8 * -(-size // BLOCK_BYTES) for name, size in sizes.items())


def digest_of(values: Any) -> str:
    """SHA-256 of the JSON of plain values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


class CheckedFile:
    """Reads byte ranges of a file, and verifies each 1 MiB block's CRC-32 before its first use.

    Ranges are read, not mapped: resident memory stays flat over an epoch, and a file that was cut short is an error
    instead of a crash.
    """

    def __init__(self, path: Path, checksums: str, size: int) -> None:
        self.path, self.size = path, size
        self._checksums = checksums
        self._verified = bytearray(len(checksums) // 8)
        self._file = open(path, "rb", buffering=0)
        self.close = weakref.finalize(self, self._file.close)  # also runs when the last reference is gone
        actual = os.fstat(self._file.fileno()).st_size
        if actual != size:
            raise DamagedCache(path, f"holds {actual:,} bytes instead of {size:,}")

    def read(self, start: int, stop: int) -> bytes:
        self.verify(start, stop)
        return self._read(start, stop)

    def read_ranges(self, starts: np.ndarray, sizes: np.ndarray) -> bytes:
        """Several ranges, one after another: `sizes` bytes from `starts` on."""
        return b"".join(map(self.read, starts.tolist(), (starts + sizes).tolist()))

    def verify(self, start: int, stop: int) -> None:
        """Raises DamagedCache if a block with bytes of this range does not hold what was written."""
        for block in range(start // BLOCK_BYTES, -(-stop // BLOCK_BYTES)):
            if not self._verified[block]:
                begin = block * BLOCK_BYTES
                crc32 = zlib.crc32(self._read(begin, min(begin + BLOCK_BYTES, self.size)))
                if f"{crc32:08x}" != self._checksums[8 * block : 8 * block + 8]:
                    raise DamagedCache(self.path, f"is damaged near byte {begin:,}")
                self._verified[block] = 1

    def _read(self, start: int, stop: int) -> bytes:
        self._file.seek(start)
        content = self._file.read(stop - start)
        if len(content) < stop - start:
            raise DamagedCache(self.path, "was cut short while in use")
        return content


def rebuild_if_damaged(read: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """Decorates TokenCache's reading methods: if one finds damage, the cache is rebuilt and it is called again."""

    @functools.wraps(read)
    def read_twice(self: TokenCache, *arguments: Any) -> np.ndarray:
        try:
            return read(self, *arguments)
        except (DamagedCache, OSError) as damage:  # OSError: the files are gone
            if self.rebuild is None:
                raise
            what = damage.what if isinstance(damage, DamagedCache) else f"The token cache '{self.path}' cannot be read"
            log.warning("%s; rebuilding it.", what)
            self.close()
            self.rebuild(self.manifest)
            self._open()
            return read(self, *arguments)

    return read_twice


class TokenCache:
    """A finished cache, open for reading; `path` is its .json. Raises DamagedCache if the .json or a file's size is wrong.

    If reading finds damage, `rebuild` is called with the manifest. It writes the same files again, or raises UserError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rebuild: Callable[[CacheManifest], None] | None = None
        self._open()

    def _open(self) -> None:
        try:
            self.manifest = manifest = CacheManifest.from_json(self.path.read_text(encoding="utf-8"))
        except ValueError:
            raise DamagedCache(self.path, "is damaged or has another format") from None
        self.dtype = np.dtype(manifest.dtype)
        self.n_tokens, self.n_documents = manifest.n_tokens, manifest.n_documents
        size = self.n_tokens * self.dtype.itemsize
        self._bin = CheckedFile(self.path.with_suffix(".bin"), manifest.bin_crc32, size)
        self._idx = CheckedFile(self.path.with_suffix(".idx"), manifest.idx_crc32, (self.n_documents + 1) * 8)
        self._index_checked = False

    @rebuild_if_damaged
    def gather(self, documents: np.ndarray, begins: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """The ids of pieces of documents, one after another: `counts` tokens from `begins` on. The arguments are int64 (n,)."""
        size = self.dtype.itemsize
        offsets = np.frombuffer(self._idx.read_ranges(documents * 8, np.full_like(documents, 8)), "<i8")
        return self._checked(self._bin.read_ranges((offsets + begins) * size, counts * size))

    @rebuild_if_damaged
    def tokens(self, start: int, stop: int) -> np.ndarray:
        """The ids at positions `start` to `stop` - 1 of all documents back to back, as stored (uint16 or uint32)."""
        size = self.dtype.itemsize
        return self._checked(self._bin.read(start * size, stop * size))

    def _checked(self, content: bytes) -> np.ndarray:
        ids = np.frombuffer(content, dtype=self.dtype)
        if ids.max(initial=0) >= self.manifest.tokenizer["n_vocab"]:
            raise DamagedCache(self._bin.path, "is damaged: it holds ids that its tokenizer does not have")
        return ids

    @rebuild_if_damaged
    def offsets(self, start: int, stop: int) -> np.ndarray:
        """The positions of the first tokens of documents `start` to `stop` - 1; entry n_documents is the end. uint64."""
        return np.frombuffer(self._idx.read(start * 8, stop * 8), dtype="<u8")

    @rebuild_if_damaged
    def index(self) -> np.ndarray:
        """All offsets, verified, as a memory map: use it for one pass, do not keep it. uint64 (n_documents + 1,)."""
        self._idx.verify(0, self._idx.size)
        index = np.memmap(self._idx.path, dtype="<u8", mode="r")
        if not self._index_checked:
            if index[0] != 0 or index[-1] != self.n_tokens or (index[1:] <= index[:-1]).any():
                raise DamagedCache(self._idx.path, "is damaged: its offsets do not increase")
            self._index_checked = True
        return index

    def close(self) -> None:
        """Close the files; reading again fails."""
        self._bin.close()
        self._idx.close()

    def verify(self) -> None:
        """Read every block. Raises DamagedCache at the first damaged one."""
        for file in (self._bin, self._idx):
            file.verify(0, file.size)
