"""Documents to token ids on disk, once: finds the cache of a source, or builds it (token_cache.py has the format).

Files are written under a temporary name and renamed when complete; two processes that want the same cache build it
once. Nothing here imports torch: worker processes stay small.
"""

from __future__ import annotations

import glob
import hashlib
import os
import signal
import sys
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock, Timeout

from documents import Encoded, Rendering, encode_lines, id_dtype
from token_cache import BLOCK_BYTES, FORMAT, Facts, TokenCache, digest_of
from tokenizer import Tokenizer
from utils import UserError, byte_count, log, replace_text

FINGERPRINT = "[0-9a-f]" * 16  # as a glob pattern
TASK_BYTES = 1 << 20  # text per worker task
PARALLEL_FROM_BYTES = 8 << 20  # below this, starting processes costs more than it saves


# --- writing ------------------------------------------------------------------------------------------------------


class ChecksummedWriter:
    """Appends to a file and collects the CRC-32 of each block."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = open(path, "wb")
        self._pending = bytearray()
        self.checksums: list[str] = []

    def __enter__(self) -> ChecksummedWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, content: bytes) -> None:
        self._pending += content
        while len(self._pending) >= BLOCK_BYTES:
            self._flush(BLOCK_BYTES)

    def _flush(self, size: int) -> None:
        block = bytes(self._pending[:size])
        del self._pending[:size]
        self.checksums.append(f"{zlib.crc32(block):08x}")
        self._file.write(block)

    def finish(self) -> str:
        """Write what is left, make it durable; returns the checksums as one string."""
        if self._pending:
            self._flush(len(self._pending))
        self._file.flush()
        os.fsync(self._file.fileno())
        return "".join(self.checksums)


def write_cache(
    facts: Facts,
    lines: Iterable[bytes],
    cache_dir: Path,
    rendering: Rendering,
    *,
    source_bytes: int | None,
    max_bad_lines: int,
    num_workers: int,
) -> Path:
    """Encode lines and write the three files; returns the path of the .json.

    Raises:
        UserError: too many bad lines, or no document at all.
    """
    stem = f"{facts.name}-{facts.split}-{facts.fingerprint}"
    pattern = f".{glob.escape(facts.name)}-{facts.split}-{FINGERPRINT}.*.tmp.*"
    for leftover in cache_dir.glob(pattern):  # of a process that was killed: nobody else holds this set's lock
        leftover.unlink(missing_ok=True)
    temporary = {suffix: cache_dir / f".{stem}.{os.getpid()}.tmp{suffix}" for suffix in (".bin", ".idx", ".json")}
    try:
        with ChecksummedWriter(temporary[".bin"]) as ids, ChecksummedWriter(temporary[".idx"]) as index:
            bad_lines: list[tuple[int, str]] = []
            index.write(np.zeros(1, "<u8").tobytes())
            for part in _encode_all(lines, rendering, facts.tokenizer, num_workers, source_bytes):
                bad_lines += part.bad_lines
                _check_bad_lines(bad_lines, facts, max_bad_lines)
                ids.write(part.ids.tobytes())
                index.write((facts.n_tokens + np.cumsum(part.lengths)).astype("<u8").tobytes())
                _add(facts, part)
            facts.bad_lines = len(bad_lines)
            facts.bin_crc32, facts.idx_crc32 = ids.finish(), index.finish()
        _report_bad_lines(bad_lines, facts)
        if not facts.n_documents:
            raise UserError(f'{facts.source["label"]} holds no document; every line should be like {{"text": "..."}}.')
        temporary[".json"].write_text(facts.to_json(), encoding="utf-8")
        for suffix in (".bin", ".idx", ".json"):  # the .json last: a cache without it does not exist
            os.replace(temporary[suffix], cache_dir / (stem + suffix))
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)
    return cache_dir / f"{stem}.json"


def _add(facts: Facts, part: Encoded) -> None:
    facts.n_documents += len(part.lengths)
    facts.n_tokens += len(part.ids)
    facts.n_control_tokens += part.control_tokens
    facts.n_text_bytes += part.text_bytes
    facts.longest_document = max(facts.longest_document, int(part.lengths.max(initial=0)))
    facts.lookalike_documents += part.lookalikes
    facts.empty_documents += part.empty


def _check_bad_lines(bad_lines: list[tuple[int, str]], facts: Facts, limit: int) -> None:
    if len(bad_lines) > limit:
        raise UserError(
            f"{facts.source['label']} has more than {limit} unreadable lines ({_first(bad_lines)}); "
            "mend them, or raise data.max_bad_lines."
        )


def _report_bad_lines(bad_lines: list[tuple[int, str]], facts: Facts) -> None:
    if bad_lines:
        plural = "s" if len(bad_lines) > 1 else ""
        log.warning(
            "%s: skipped %d unreadable line%s (%s).", facts.source["label"], len(bad_lines), plural, _first(bad_lines)
        )


def _first(bad_lines: list[tuple[int, str]]) -> str:
    shown = "; ".join(f"line {number}: {reason}" for number, reason in bad_lines[:3])
    return shown + ("; ..." if len(bad_lines) > 3 else "")


def _tasks(lines: Iterable[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """Group lines into tasks of about TASK_BYTES: (number of the first line, lines)."""
    first, batch, size = 1, [], 0
    for line in lines:
        batch.append(line)
        size += len(line)
        if size >= TASK_BYTES:
            yield first, batch
            first, batch, size = first + len(batch), [], 0
    if batch:
        yield first, batch


def _encode_all(
    lines: Iterable[bytes],
    rendering: Rendering,
    definition: dict[str, Any],
    num_workers: int,
    source_bytes: int | None,
) -> Iterator[Encoded]:
    """Encode every task, in order, in this process or in workers; at most two tasks per worker are in flight."""
    from tqdm import tqdm

    with tqdm(
        total=source_bytes, unit="B", unit_scale=True, desc="Tokenizing", leave=False, disable=not sys.stderr.isatty()
    ) as bar:
        if num_workers < 2 or (source_bytes or 0) < PARALLEL_FROM_BYTES:
            for first, batch in _tasks(lines):
                yield encode_lines(first, batch, rendering, definition)
                bar.update(sum(map(len, batch)))
            return
        context = get_context("spawn")
        with ProcessPoolExecutor(num_workers, mp_context=context, initializer=_leave_ctrl_c_to_parent) as pool:
            pending: deque[tuple[Future[Encoded], int]] = deque()
            for first, batch in _tasks(lines):
                pending.append((pool.submit(encode_lines, first, batch, rendering, definition), sum(map(len, batch))))
                if len(pending) >= 2 * num_workers:
                    yield _result(*pending.popleft(), bar)
            while pending:
                yield _result(*pending.popleft(), bar)


def _result(future: Future[Encoded], size: int, bar: Any) -> Encoded:
    try:
        encoded = future.result()
    except BrokenProcessPool:
        raise UserError("A tokenizing process died (out of memory?); try again with --system.num_workers 0.") from None
    bar.update(size)
    return encoded


def _leave_ctrl_c_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


# --- finding or building ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """Where a split's documents come from: a JSONL file, or a generator that the project ships."""

    name: str  # data set, as in the cache's file name
    split: str  # "train" or "val"
    label: str  # what messages call it: the path as the user wrote it, or "the built-in sample"
    path: Path | None = None
    generator: Any = None  # () -> Iterator[bytes] of JSONL lines, when there is no file
    generator_sha256: str = ""

    def lines(self) -> Iterator[bytes]:
        if self.path is None:
            yield from self.generator()
            return
        with open(self.path, "rb") as file:
            yield from file

    def stat(self) -> dict[str, int]:
        """Size and time of the file now; {} for a generator."""
        if self.path is None:
            return {}
        status = self.path.stat()
        return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}

    def sha256(self) -> str:
        if self.path is None:
            return self.generator_sha256
        digest = hashlib.sha256()
        with open(self.path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    def exists(self) -> bool:
        return self.path is None or self.path.is_file()


def open_cache(
    source: Source,
    tokenizer: Tokenizer,
    cache_dir: Path,
    rendering: Rendering | None = None,
    *,
    max_bad_lines: int = 100,
    num_workers: int = 0,
) -> TokenCache | None:
    """The cache of a source, found by size and time, else by contents, else built.

    Args:
        source: what the documents come from.
        tokenizer: what they are encoded with.
        cache_dir: created when missing.
        rendering: how records become ids; None: the defaults.
        max_bad_lines: unreadable lines to skip before giving up.
        num_workers: processes that tokenize; below 2, this one does.

    Returns:
        The open cache, which mends itself where damage is found later; None where neither the source nor a cache of it
        exists.

    Raises:
        UserError: the source cannot be read as documents.
        OSError: the cache cannot be written.
    """
    rendering = rendering or Rendering()
    if not source.exists():
        made_from_it = (
            c for c in _caches(source, tokenizer, rendering, cache_dir) if c.facts.source["label"] == source.label
        )
        if cache := next(made_from_it, None):
            log.info("No %s: using the token cache that was made from it.", source.label)
        return cache

    def write(facts: Facts) -> Path:
        size = facts.source.get("size")
        log.info("Tokenizing %s%s", source.label, f" ({byte_count(size)})" if size else "")
        return write_cache(
            facts, source.lines(), cache_dir, rendering,
            source_bytes=size, max_bad_lines=max_bad_lines, num_workers=num_workers,
        )  # fmt: skip

    def mend(damaged: Facts) -> None:
        with locked(lock, source.label):
            facts = _new_facts(source, tokenizer, rendering)
            if facts.fingerprint != damaged.fingerprint:
                raise UserError(
                    f"The token cache of {source.label} is damaged, and the data have changed since it was made; "
                    "start again to use the new data."
                )
            write(facts)

    lock = cache_dir / f".{source.name}-{source.split}.lock"
    cache = _find(source, tokenizer, rendering, cache_dir)
    if cache is None:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with locked(lock, source.label):
            cache = _find(source, tokenizer, rendering, cache_dir) or _make(
                source, tokenizer, rendering, cache_dir, write
            )
    cache.rebuild = mend
    return cache


def _make(
    source: Source, tokenizer: Tokenizer, rendering: Rendering, cache_dir: Path, write: Callable[[Facts], Path]
) -> TokenCache:
    """The cache of the source's contents: one that was made of them at another time or place, or a new one."""
    facts = _new_facts(source, tokenizer, rendering)
    path = cache_dir / f"{facts.name}-{facts.split}-{facts.fingerprint}.json"
    cache = _open_intact(path)
    if cache and (cache.facts.tokenizer, cache.facts.rendering) == (facts.tokenizer, facts.rendering):
        cache.facts.source = facts.source
        replace_text(path, cache.facts.to_json())
        return cache
    write(facts)
    if source.stat().items() - facts.source.items():
        for suffix in (".json", ".idx", ".bin"):
            path.with_suffix(suffix).unlink()
        raise UserError(f"{source.label} was changed while it was being read; start again when it is complete.")
    return TokenCache(path)


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """One process at a time prepares a data set; a second one says that it waits."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("Another process is preparing %s; waiting for it.", what)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _new_facts(source: Source, tokenizer: Tokenizer, rendering: Rendering) -> Facts:
    stat, sha256 = source.stat(), source.sha256()
    identity = [FORMAT, sha256, tokenizer.definition(), asdict(rendering)]
    return Facts(
        name=source.name,
        split=source.split,
        fingerprint=digest_of(identity)[:16],
        tokenizer=tokenizer.definition(),
        rendering=asdict(rendering),
        source={"label": source.label, "sha256": sha256} | stat,
        dtype=id_dtype(tokenizer.n_vocab).str,
    )


_reported: set[Path] = set()  # damaged caches that were named already


def _open_intact(path: Path) -> TokenCache | None:
    """The cache at path, or None (with a warning where it exists but is damaged: it will be built anew)."""
    try:
        return TokenCache(path)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        if path not in _reported:
            log.warning("The token cache '%s' is not usable (%s).", path, str(error).rstrip("."))
            _reported.add(path)
        return None


def _caches(source: Source, tokenizer: Tokenizer, rendering: Rendering, cache_dir: Path) -> Iterator[TokenCache]:
    """Intact caches of this data set and split, made with this tokenizer and rendering, newest first."""
    paths = cache_dir.glob(f"{glob.escape(source.name)}-{source.split}-{FINGERPRINT}.json")
    for path in sorted(paths, key=lambda p: p.stat().st_mtime, reverse=True):
        cache = _open_intact(path)
        if cache and (cache.facts.tokenizer, cache.facts.rendering) == (tokenizer.definition(), asdict(rendering)):
            yield cache


def _find(source: Source, tokenizer: Tokenizer, rendering: Rendering, cache_dir: Path) -> TokenCache | None:
    """A cache of the same path, size and time (a generator: of the same hash); contents are not looked at."""
    known: dict[str, Any] = {"label": source.label, **(source.stat() or {"sha256": source.generator_sha256})}
    for cache in _caches(source, tokenizer, rendering, cache_dir):
        if all(cache.facts.source.get(key) == value for key, value in known.items()):
            return cache
    return None
