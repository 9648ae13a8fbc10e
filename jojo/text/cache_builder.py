"""Finds the token cache of a source, or builds it from the source's documents (token_cache.py has the format).

Files are written under a temporary name and renamed when complete. If two processes want the same cache, one builds it and
the other waits. Nothing here imports torch: preparing starts at once, and takes little memory.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import glob
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jojo.text.cache_writer import CacheWriter
from jojo.text.documents import Encoded, encode_lines, id_dtype
from jojo.text.token_cache import FINGERPRINT, FORMAT, CacheManifest, DamagedCache, TokenCache, digest_of
from jojo.text.tokenizer import Tokenizer
from utils import UserError, byte_count, locked, log, plural, replace_text, sha256_of

TASK_BYTES = 1 << 19  # of JSONL that one task encodes
READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
warn_once = functools.cache(log.warning)  # the same damaged cache is looked at several times


@dataclass(frozen=True)
class Source:
    """Where a split's documents come from: a JSONL file, or a generator that the project ships."""

    name: str  # data set, as in the cache's file name
    split: str  # "train" or "val"
    label: str  # what messages call it: the path as the user wrote it, or "the built-in sample"
    path: Path | None = None
    generator: Any = None  # () -> Iterator[bytes] of JSONL lines, when there is no file
    generator_sha256: str = ""
    notes: Mapping[str, Any] = field(default_factory=dict)  # more about it, for the manifest

    def lines(self, first_byte: int = 0) -> Iterator[bytes]:
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
        return sha256_of(self.path) if self.path else self.generator_sha256

    def exists(self) -> bool:
        return self.path is None or self.path.is_file()


@dataclass(frozen=True)
class CacheBuilder:
    """Finds and builds the caches of one source. With `num_workers` below 2, the calling thread tokenizes."""

    source: Source
    tokenizer: Tokenizer
    cache_dir: Path
    parse_special: bool = False
    max_bad_lines: int = 100
    num_workers: int = 0

    def open(self) -> TokenCache | None:
        """The cache of the source: found or built. It is rebuilt if damage is found later.

        None if the source is missing and has no cache. In a folder that is read-only, a cache of the same contents is
        opened; without one, an OSError. Raises UserError if the source has more than `max_bad_lines` unreadable lines or no
        document, or if it is missing and several caches could be its own.
        """
        if not self.source.exists():
            return self.find_without_source()
        cache = self.find()
        if cache is None:
            try:
                with self.lock():
                    cache = self.find() or self.build()
            except OSError as error:
                cache = self.find_contents(self.new_manifest()) if error.errno in READ_ONLY else None
                if cache is None:
                    raise
        cache.rebuild = self.rebuild
        return cache

    def find(self) -> TokenCache | None:
        """The cache made from this path, size and time, or from the generator's hash. A file's contents are not read."""
        known: dict[str, Any] = {"label": self.source.label, **(self.source.stat() or {"sha256": self.source.sha256()})}
        return next((cache for cache in self._caches() if known.items() <= cache.manifest.source.items()), None)

    def find_contents(self, manifest: CacheManifest) -> TokenCache | None:
        """The valid cache of the same contents. The path and the time of its source may differ."""
        return self._open_valid(self.cache_dir / f"{manifest.name}-{manifest.split}-{manifest.fingerprint}.json")

    def find_without_source(self) -> TokenCache | None:
        """The newest cache made from the missing file, or from the only other file of this set and split."""
        label = self.source.label
        caches = {cache.manifest.source["label"]: cache for cache in reversed([*self._caches()])}
        if label not in caches and len(caches) > 1:
            found = f"token caches of several files of that name ({', '.join(sorted(caches))})"
            raise UserError(f"No {label}, and '{self.cache_dir}' holds {found}; choose one with --data.data_dir.")
        cache = caches.get(label) or next(iter(caches.values()), None)
        if cache:
            log.info("No %s: using the token cache made from %s.", label, cache.manifest.source["label"])
        return cache

    def _caches(self) -> Iterator[TokenCache]:
        """Valid caches of this data set and split, made with this tokenizer and these options, newest first."""
        paths = self.cache_dir.glob(f"{glob.escape(self.source.name)}-{self.source.split}-{FINGERPRINT}.json")
        for path in sorted(paths, key=lambda p: p.stat().st_mtime, reverse=True):
            if cache := self._open_valid(path):
                yield cache

    def _open_valid(self, path: Path) -> TokenCache | None:
        """The cache at a path. None if it is missing, damaged (with a warning), or made with other settings."""
        try:
            cache = TokenCache(path)
        except FileNotFoundError:
            return None
        except DamagedCache as error:
            warn_once(f"{error.what}.")
            return None
        made_with = (self.tokenizer.identity(), {"parse_special": self.parse_special})
        return cache if (cache.manifest.tokenizer, cache.manifest.rendering) == made_with else None

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """A lock for this set and split: only one process at a time builds their caches."""
        return locked(self.cache_dir / f".{self.source.name}-{self.source.split}.lock", self.source.label)

    def build(self) -> TokenCache:
        """The cache of the source's contents: an existing one, or a new one. Call it under the lock."""
        manifest = self.new_manifest()
        if cache := self.find_contents(manifest):
            cache.manifest.source = manifest.source
            with contextlib.suppress(UserError, OSError):  # not needed now, but find() finds it next time
                replace_text(cache.path, cache.manifest.to_json())
            return cache
        return TokenCache(self.write(manifest))

    def rebuild(self, damaged: CacheManifest) -> None:
        """Write a damaged cache's files again. Raises UserError if the source has changed."""
        with self.lock():
            manifest = self.new_manifest()
            if manifest.fingerprint != damaged.fingerprint:
                problem = "is damaged, and the data have changed since it was made"
                raise UserError(f"The token cache of {self.source.label} {problem}; start again to use the new data.")
            self.write(manifest)

    def new_manifest(self) -> CacheManifest:
        """The manifest for a new cache of the source, with all counts 0. Reads the whole source, for its hash."""
        source, tokenizer, rendering = self.source, self.tokenizer.identity(), {"parse_special": self.parse_special}
        stat, sha256 = source.stat(), source.sha256()
        made_from = {"label": source.label, "sha256": sha256, **stat, **source.notes}
        fingerprint = digest_of([FORMAT, sha256, tokenizer, rendering])[:16]
        dtype = id_dtype(self.tokenizer.n_vocab).str
        return CacheManifest(source.name, source.split, fingerprint, tokenizer, rendering, made_from, dtype)

    def write(self, manifest: CacheManifest) -> Path:
        """Encode the source and write the files, or continue where an earlier process stopped; returns the .json."""
        from tqdm import tqdm

        label, size = self.source.label, manifest.source.get("size")
        log.info("Tokenizing %s%s", label, f" ({byte_count(size)})" if size else "")
        writer = CacheWriter(manifest, self.cache_dir, resumable=self.source.path is not None)
        look = {"desc": "Tokenizing", "unit": "B", "unit_scale": True, "leave": False, "disable": None}  # on terminals
        with contextlib.closing(writer), tqdm(total=size, initial=writer.bytes_done, **look) as bar:
            for part in self._encode(writer):
                writer.add(part)
                bar.update(part.source_bytes)
                if manifest.bad_lines > self.max_bad_lines:
                    shown = f"more than {self.max_bad_lines} unreadable lines ({writer.examples})"
                    raise UserError(f"{label} has {shown}; correct them, or raise data.max_bad_lines.")
            if count := manifest.bad_lines:
                log.warning("%s: skipped %s (%s).", label, plural(count, "unreadable line"), writer.examples)
            if not manifest.n_documents:
                raise UserError(f'{label} holds no document; every line should be like {{"text": "..."}}.')
            if not self.source.stat().items() <= manifest.source.items():
                raise UserError(f"{label} changed while it was being read; start again when it is complete.")
            return writer.finish()

    def _encode(self, writer: CacheWriter) -> Iterator[Encoded]:
        """Encode the rest of the source task by task, in order, in this thread or in others."""
        tasks = split_into_tasks(self.source.lines(writer.bytes_done), writer.lines_done + 1)
        if self.num_workers < 2:
            for first, lines in tasks:
                yield encode_lines(first, lines, self.parse_special, self.tokenizer)
            return
        # Threads, not processes: tiktoken releases the GIL, so two threads encode twice as fast as one, and nothing is
        # copied between them.
        with ThreadPoolExecutor(self.num_workers, "tokenize") as pool:
            pending: deque[Future[Encoded]] = deque()
            for first, lines in tasks:
                pending.append(pool.submit(encode_lines, first, lines, self.parse_special, self.tokenizer))
                if len(pending) >= 2 * self.num_workers:
                    yield pending.popleft().result()
            for future in pending:
                yield future.result()


def split_into_tasks(lines: Iterable[bytes], first: int) -> Iterator[tuple[int, list[bytes]]]:
    """Group lines into tasks of about TASK_BYTES: (number of the first line, lines)."""
    task: list[bytes] = []
    size = 0
    for line in lines:
        task.append(line)
        size += len(line)
        if size >= TASK_BYTES:
            yield first, task
            first, task, size = first + len(task), [], 0
    if task:
        yield first, task
