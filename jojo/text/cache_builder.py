"""Documents to token ids on disk, once: finds the cache of a source, or builds it (token_cache.py has the format).

Files are written under a temporary name and renamed when complete; two processes that want the same cache build it
once. Nothing here imports torch: preparing starts at once, and takes little memory.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import itertools
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jojo.text.cache_writer import CacheWriter
from jojo.text.documents import Encoded, Rendering, encode_lines, id_dtype
from jojo.text.token_cache import FINGERPRINT, FORMAT, CacheManifest, TokenCache, digest_of, shards
from jojo.text.tokenizer import Tokenizer
from utils import UserError, byte_count, locked, log, replace_text, sha256_of

TASK_BYTES = 1 << 19  # text per task


# --- encoding -------------------------------------------------------------------------------------------------------


def write_cache(
    facts: CacheManifest,
    source: Source,
    cache_dir: Path,
    tokenizer: Tokenizer,
    rendering: Rendering,
    *,
    max_bad_lines: int,
    num_workers: int,
) -> Path:
    """Encode a source's lines and write the files, from where an earlier process had got to; returns the .json.

    Raises:
        UserError: too many bad lines, or no document at all.
    """
    writer = CacheWriter(facts, cache_dir, can_go_on=source.path is not None)
    try:
        tasks = _tasks(source.lines(writer.bytes_done), writer.lines_done + 1)
        size = facts.source.get("size")
        for part in _encode_all(tasks, rendering, tokenizer, num_workers, size, writer.bytes_done):
            writer.add(part)
            _check_bad_lines(writer, max_bad_lines)
        _report_bad_lines(writer)
        if not facts.n_documents:
            raise UserError(f'{facts.source["label"]} holds no document; every line should be like {{"text": "..."}}.')
        return writer.finish()
    finally:
        writer.close()


def _check_bad_lines(writer: CacheWriter, limit: int) -> None:
    if writer.manifest.bad_lines > limit:
        raise UserError(
            f"{writer.manifest.source['label']} has more than {limit} unreadable lines ({_first(writer)}); "
            "mend them, or raise data.max_bad_lines."
        )


def _report_bad_lines(writer: CacheWriter) -> None:
    if count := writer.manifest.bad_lines:
        plural = "s" if count > 1 else ""
        log.warning(
            "%s: skipped %d unreadable line%s (%s).", writer.manifest.source["label"], count, plural, _first(writer)
        )


def _first(writer: CacheWriter) -> str:
    shown = "; ".join(f"line {number}: {reason}" for number, reason in writer.bad_lines)
    return shown + ("; ..." if writer.manifest.bad_lines > len(writer.bad_lines) else "")


def _tasks(lines: Iterable[bytes], first: int) -> Iterator[tuple[int, list[bytes]]]:
    """Group lines into tasks of about TASK_BYTES: (number of the first line, lines)."""
    batch: list[bytes] = []
    size = 0
    for line in lines:
        batch.append(line)
        size += len(line)
        if size >= TASK_BYTES:
            yield first, batch
            first, batch, size = first + len(batch), [], 0
    if batch:
        yield first, batch


def _encode_all(
    tasks: Iterable[tuple[int, list[bytes]]],
    rendering: Rendering,
    tokenizer: Tokenizer,
    num_workers: int,
    source_bytes: int | None,
    bytes_done: int,
) -> Iterator[Encoded]:
    """Encode every task, in order, in this thread or in others; at most two tasks a thread are in flight.

    Threads, not processes: tiktoken works outside of Python's lock, so two of them encode twice as fast as one, and nothing
    has to be sent between them.
    """
    from tqdm import tqdm

    with tqdm(
        total=source_bytes, initial=bytes_done, unit="B", unit_scale=True, desc="Tokenizing", leave=False,
        disable=not sys.stderr.isatty(),
    ) as bar:  # fmt: skip
        if num_workers < 2:
            for first, lines in tasks:
                encoded = encode_lines(first, lines, rendering, tokenizer)
                bar.update(encoded.source_bytes)
                yield encoded
            return
        with ThreadPoolExecutor(num_workers, "tokenize") as pool:
            pending: deque[Future[Encoded]] = deque()
            try:
                for first, lines in tasks:
                    pending.append(pool.submit(encode_lines, first, lines, rendering, tokenizer))
                    if len(pending) >= 2 * num_workers:
                        yield _result(pending.popleft(), bar)
                while pending:
                    yield _result(pending.popleft(), bar)
            finally:
                for future in pending:
                    future.cancel()


def _result(future: Future[Encoded], bar: Any) -> Encoded:
    encoded = future.result()
    bar.update(encoded.source_bytes)
    return encoded


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
    notes: Mapping[str, Any] = field(default_factory=dict)  # how the file was prepared, for the facts

    def lines(self, first_byte: int = 0) -> Iterator[bytes]:
        """All lines, or those of a file from a byte on."""
        if self.path is None:
            yield from self.generator()
            return
        with open(self.path, "rb") as file:
            file.seek(first_byte)
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
        return sha256_of(self.path)

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
        num_workers: threads that tokenize; below 2, this one does.

    Returns:
        The open cache, which mends itself where damage is found later; None where neither the source nor a cache of it
        exists.

    Raises:
        UserError: the source cannot be read as documents; or it does not exist, and it is not clear which cache is its.
        OSError: the cache cannot be written.
    """
    rendering = rendering or Rendering()
    if not source.exists():
        return _without_source(source, tokenizer, rendering, cache_dir)

    def write(facts: CacheManifest) -> Path:
        size = facts.source.get("size")
        log.info("Tokenizing %s%s", source.label, f" ({byte_count(size)})" if size else "")
        return write_cache(
            facts, source, cache_dir, tokenizer, rendering, max_bad_lines=max_bad_lines, num_workers=num_workers,
        )  # fmt: skip

    def mend(damaged: CacheManifest) -> None:
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
        try:
            cache_dir.mkdir(parents=True, exist_ok=True)
            with locked(lock, source.label):
                cache = _find(source, tokenizer, rendering, cache_dir) or _make(
                    source, tokenizer, rendering, cache_dir, write
                )
        except OSError as error:
            cache = _read_only(source, tokenizer, rendering, cache_dir, error)
    cache.rebuild = mend
    return cache


def _read_only(
    source: Source, tokenizer: Tokenizer, rendering: Rendering, cache_dir: Path, error: OSError
) -> TokenCache:
    """The cache of the source's contents, where nothing may be written; raises the error where it is not that, or no cache."""
    forbidden = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
    cache = _of_contents(_new_facts(source, tokenizer, rendering), cache_dir) if forbidden else None
    if cache is None:
        raise error
    return cache


def _make(
    source: Source, tokenizer: Tokenizer, rendering: Rendering, cache_dir: Path, write: Callable[[CacheManifest], Path]
) -> TokenCache:
    """The cache of the source's contents: one that was made of them at another time or place, or a new one."""
    facts = _new_facts(source, tokenizer, rendering)
    if cache := _of_contents(facts, cache_dir):
        cache.manifest.source = facts.source
        with contextlib.suppress(UserError, OSError):  # it is found faster the next time; that is all
            replace_text(cache.path, cache.manifest.to_json())
        return cache
    path = write(facts)
    if any(facts.source[key] != value for key, value in source.stat().items()):
        for file in (
            path,
            path.with_suffix(".idx"),
            *itertools.takewhile(Path.exists, shards(path.with_suffix(".bin"))),
        ):
            file.unlink()
        raise UserError(f"{source.label} was changed while it was being read; start again when it is complete.")
    return TokenCache(path)


def _of_contents(facts: CacheManifest, cache_dir: Path) -> TokenCache | None:
    """The intact cache of what these facts say of the source's contents, if there is one."""
    cache = _open_intact(cache_dir / f"{facts.name}-{facts.split}-{facts.fingerprint}.json")
    same = cache and (cache.manifest.tokenizer, cache.manifest.rendering) == (facts.tokenizer, facts.rendering)
    return cache if same else None


def _without_source(source: Source, tokenizer: Tokenizer, rendering: Rendering, cache_dir: Path) -> TokenCache | None:
    """The newest cache of a file that is not there: made from it, or from the only other file of this set and split."""
    caches = list(_caches(source, tokenizer, rendering, cache_dir))
    from_it = [cache for cache in caches if cache.manifest.source["label"] == source.label]
    labels = sorted({cache.manifest.source["label"] for cache in caches})
    if len(labels) > 1 and not from_it:
        raise UserError(
            f"No {source.label}, and '{cache_dir}' holds token caches of several files of that name "
            f"({', '.join(labels)}); say with --data.data_dir whose folder it is."
        )
    cache = next(iter(from_it or caches), None)
    if cache:
        made_from = "it" if from_it else cache.manifest.source["label"]
        log.info("No %s: using the token cache that was made from %s.", source.label, made_from)
    return cache


def _new_facts(source: Source, tokenizer: Tokenizer, rendering: Rendering) -> CacheManifest:
    stat, sha256 = source.stat(), source.sha256()
    identity = [FORMAT, sha256, tokenizer.identity(), asdict(rendering)]
    return CacheManifest(
        name=source.name,
        split=source.split,
        fingerprint=digest_of(identity)[:16],
        tokenizer=tokenizer.identity(),
        rendering=asdict(rendering),
        source={"label": source.label, "sha256": sha256}
        | stat
        | ({"prepared": dict(source.notes)} if source.notes else {}),
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
        if cache and (cache.manifest.tokenizer, cache.manifest.rendering) == (tokenizer.identity(), asdict(rendering)):
            yield cache


def _find(source: Source, tokenizer: Tokenizer, rendering: Rendering, cache_dir: Path) -> TokenCache | None:
    """A cache of the same path, size and time (a generator: of the same hash); contents are not looked at."""
    known: dict[str, Any] = {"label": source.label, **(source.stat() or {"sha256": source.generator_sha256})}
    for cache in _caches(source, tokenizer, rendering, cache_dir):
        if all(cache.manifest.source.get(key) == value for key, value in known.items()):
            return cache
    return None
