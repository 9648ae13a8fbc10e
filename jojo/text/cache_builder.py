"""Documents to token ids on disk, once: finds the cache of a source, or builds it (token_cache.py has the format).

Files are written under a temporary name and renamed when complete; two processes that want the same cache build it
once. Nothing here imports torch: preparing starts at once, and takes little memory.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jojo.text.cache_writer import CacheWriter
from jojo.text.documents import Encoded, Rendering, encode_lines, id_dtype
from jojo.text.token_cache import FINGERPRINT, FORMAT, CacheManifest, DamagedCache, TokenCache, digest_of
from jojo.text.tokenizer import Tokenizer
from utils import UserError, byte_count, locked, log, replace_text, sha256_of

TASK_BYTES = 1 << 19  # text per task
READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


@dataclass(frozen=True)
class Source:
    """Where a split's documents come from: a JSONL file, or a generator that the project ships."""

    name: str  # data set, as in the cache's file name
    split: str  # "train" or "val"
    label: str  # what messages call it: the path as the user wrote it, or "the built-in sample"
    path: Path | None = None
    generator: Any = None  # () -> Iterator[bytes] of JSONL lines, when there is no file
    generator_sha256: str = ""
    notes: Mapping[str, Any] = field(default_factory=dict)  # how the file was prepared, for the manifest

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
        """Hash of the contents."""
        return sha256_of(self.path) if self.path else self.generator_sha256

    def exists(self) -> bool:
        """Whether the documents can be read."""
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
    """The cache of a source: found or built.

    | source  | its cache          | cache_dir | what happens                                                       |
    | ------- | ------------------ | --------- | ------------------------------------------------------------------ |
    | missing | any                | any       | the newest cache that can only be its own is opened; or else, None |
    | there   | valid              | any       | it is opened; it is rebuilt where damage is found later            |
    | there   | missing or damaged | writable  | it is built by one process, while others wait                      |
    | there   | missing or damaged | read-only | a cache of the same contents is opened; or else, the OSError       |

    Args:
        source: what the documents come from.
        tokenizer: what they are encoded with.
        cache_dir: created when missing.
        rendering: how records become ids; None: the defaults.
        max_bad_lines: unreadable lines to skip before giving up.
        num_workers: threads that tokenize; below 2, this one does.

    Raises:
        UserError: the source cannot be read as documents; or it is missing, and several caches could be its own.
        OSError: the cache cannot be written.
    """
    builder = CacheBuilder(source, tokenizer, rendering or Rendering(), cache_dir, max_bad_lines, num_workers)
    if not source.exists():
        return builder.find_without_source()
    cache = builder.find()
    if cache is None:
        try:
            cache_dir.mkdir(parents=True, exist_ok=True)
            with builder.lock():
                cache = builder.find() or builder.build()
        except OSError as error:
            cache = builder.find_contents(builder.new_manifest()) if error.errno in READ_ONLY else None
            if cache is None:
                raise
    cache.rebuild = builder.rebuild
    return cache


_reported: set[Path] = set()  # damaged caches that a warning has named


@dataclass(frozen=True)
class CacheBuilder:
    """Finds and builds the caches of one source; open_cache says when it does which."""

    source: Source
    tokenizer: Tokenizer
    rendering: Rendering
    cache_dir: Path
    max_bad_lines: int
    num_workers: int

    # --- finding ---

    def find(self) -> TokenCache | None:
        """The cache made from this path, size and time (a generator: this hash). The contents are not read."""
        known: dict[str, Any] = {"label": self.source.label, **(self.source.stat() or {"sha256": self.source.sha256()})}
        return next((cache for cache in self._caches() if known.items() <= cache.manifest.source.items()), None)

    def find_contents(self, manifest: CacheManifest) -> TokenCache | None:
        """The valid cache of the same contents, made from a file at any path and of any time."""
        return self._open_valid(self.cache_dir / f"{manifest.name}-{manifest.split}-{manifest.fingerprint}.json")

    def find_without_source(self) -> TokenCache | None:
        """The newest cache made from the missing file, or from the only other file of this set and split."""
        label, caches = self.source.label, dict[str, TokenCache]()
        for cache in self._caches():
            caches.setdefault(cache.manifest.source["label"], cache)
        if label not in caches and len(caches) > 1:
            raise UserError(
                f"No {label}, and '{self.cache_dir}' holds token caches of several files of that name "
                f"({', '.join(sorted(caches))}); choose one with --data.data_dir."
            )
        if not caches:
            return None
        made_from = label if label in caches else next(iter(caches))
        log.info("No %s: using the token cache made from %s.", label, "it" if made_from == label else made_from)
        return caches[made_from]

    def _caches(self) -> Iterator[TokenCache]:
        """Valid caches of this data set and split, made with this tokenizer and rendering, newest first."""
        paths = self.cache_dir.glob(f"{glob.escape(self.source.name)}-{self.source.split}-{FINGERPRINT}.json")
        for path in sorted(paths, key=lambda p: p.stat().st_mtime, reverse=True):
            if cache := self._open_valid(path):
                yield cache

    def _open_valid(self, path: Path) -> TokenCache | None:
        """The cache at a path. None where it is missing, damaged (with a warning), or made in another way."""
        try:
            cache = TokenCache(path)
        except FileNotFoundError:
            return None
        except ValueError as error:
            if path not in _reported:
                unusable = f"The token cache '{path}' is not usable ({error})"
                log.warning("%s.", error.what if isinstance(error, DamagedCache) else unusable)
                _reported.add(path)
            return None
        made_with = (self.tokenizer.identity(), asdict(self.rendering))
        return cache if (cache.manifest.tokenizer, cache.manifest.rendering) == made_with else None

    # --- building ---

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Held by the one process that builds caches of this set and split."""
        return locked(self.cache_dir / f".{self.source.name}-{self.source.split}.lock", self.source.label)

    def build(self) -> TokenCache:
        """The cache of the source's contents: one that is there already, or a new one. Call it under the lock."""
        manifest = self.new_manifest()
        if cache := self.find_contents(manifest):
            cache.manifest.source = manifest.source
            with contextlib.suppress(UserError, OSError):  # only so that find() finds it next time
                replace_text(cache.path, cache.manifest.to_json())
            return cache
        path = self.write(manifest)
        if not self.source.stat().items() <= manifest.source.items():
            for suffix in (".json", ".bin", ".idx"):
                path.with_suffix(suffix).unlink()
            raise UserError(f"{self.source.label} changed while it was being read; start again when it is complete.")
        return TokenCache(path)

    def rebuild(self, damaged: CacheManifest) -> None:
        """Write a damaged cache's files again. Raises UserError where the source has changed."""
        with self.lock():
            manifest = self.new_manifest()
            if manifest.fingerprint != damaged.fingerprint:
                raise UserError(
                    f"The token cache of {self.source.label} is damaged, and the data have changed since it was made; "
                    "start again to use the new data."
                )
            self.write(manifest)

    def new_manifest(self) -> CacheManifest:
        """What a cache of the source as it is now says of itself, without counts. Reads the whole source."""
        source, tokenizer, rendering = self.source, self.tokenizer.identity(), asdict(self.rendering)
        stat, sha256 = source.stat(), source.sha256()
        prepared = {"prepared": dict(source.notes)} if source.notes else {}
        return CacheManifest(
            source.name, source.split, digest_of([FORMAT, sha256, tokenizer, rendering])[:16], tokenizer, rendering,
            {"label": source.label, "sha256": sha256, **stat, **prepared}, id_dtype(self.tokenizer.n_vocab).str,
        )  # fmt: skip

    def write(self, manifest: CacheManifest) -> Path:
        """Encode the source's lines and write the files, from where an earlier process stopped; returns the .json.

        Raises:
            UserError: too many unreadable lines, or no document at all.
        """
        label, size = self.source.label, manifest.source.get("size")
        log.info("Tokenizing %s%s", label, f" ({byte_count(size)})" if size else "")
        writer = CacheWriter(manifest, self.cache_dir, resumable=self.source.path is not None)
        try:
            for part in with_progress(self._encode(writer), size, writer.bytes_done):
                writer.add(part)
                if manifest.bad_lines > self.max_bad_lines:
                    raise UserError(
                        f"{label} has more than {self.max_bad_lines} unreadable lines ({_examples(writer)}); "
                        "correct them, or raise data.max_bad_lines."
                    )
            if count := manifest.bad_lines:
                plural = "s" if count > 1 else ""
                log.warning("%s: skipped %d unreadable line%s (%s).", label, count, plural, _examples(writer))
            if not manifest.n_documents:
                raise UserError(f'{label} holds no document; every line should be like {{"text": "..."}}.')
            return writer.finish()
        finally:
            writer.close()

    def _encode(self, writer: CacheWriter) -> Iterator[Encoded]:
        """Encode the rest of the source task by task, in order, in this thread or in others."""
        tasks = split_into_tasks(self.source.lines(writer.bytes_done), writer.lines_done + 1)
        if self.num_workers < 2:
            for first, lines in tasks:
                yield encode_lines(first, lines, self.rendering, self.tokenizer)
            return
        # Threads, not processes: tiktoken runs outside of Python's lock, so two threads encode twice as fast as one,
        # and nothing is copied between them.
        with ThreadPoolExecutor(self.num_workers, "tokenize") as pool:
            pending: deque[Future[Encoded]] = deque()
            for first, lines in tasks:
                pending.append(pool.submit(encode_lines, first, lines, self.rendering, self.tokenizer))
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


def with_progress(parts: Iterable[Encoded], source_bytes: int | None, bytes_done: int) -> Iterator[Encoded]:
    """The parts, counted in bytes of the source on a terminal as they pass."""
    from tqdm import tqdm

    with tqdm(
        total=source_bytes, initial=bytes_done, unit="B", unit_scale=True, desc="Tokenizing", leave=False,
        disable=not sys.stderr.isatty(),
    ) as bar:  # fmt: skip
        for part in parts:
            yield part
            bar.update(part.source_bytes)


def _examples(writer: CacheWriter) -> str:
    shown = "; ".join(f"line {number}: {reason}" for number, reason in writer.bad_lines)
    return shown + ("; ..." if writer.manifest.bad_lines > len(writer.bad_lines) else "")
