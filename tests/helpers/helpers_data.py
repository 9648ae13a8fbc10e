"""Helpers for the tests of the tokenizer, the token cache and the loader."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings

from jojo.text import cache_builder, documents
from jojo.text.cache_builder import CacheBuilder, Source
from jojo.text.token_cache import CacheManifest, TokenCache
from jojo.text.tokenizer import Tokenizer, get_tokenizer
from utils import locked

ROOT = Path(__file__).resolve().parents[2]
LOOKALIKES = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
EOT, START, END = 50256, 50257, 50258
GPT2 = get_tokenizer("gpt2")
TURNS = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi there"}]
STORIES = [{"text": f"Story {n}: once upon a time there were {n} foxes.\n"} for n in range(1, 40)]


def encoded(lines: list[bytes], parse_special: bool = False, first_line: int = 1) -> documents.Encoded:
    """The documents that one tokenizing task makes from these lines."""
    return documents.encode_lines(first_line, lines, parse_special, GPT2)


def examples(count: int) -> settings:
    """Hypothesis settings: this many examples, and no limit on how long they take on a busy machine."""
    return settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@contextlib.contextmanager
def log_listener(listener: Callable[[logging.LogRecord], object]) -> Iterator[None]:
    """Call the listener with every record that the project logs at INFO and above in this block."""
    handler = logging.Handler(logging.INFO)
    handler.emit = listener  # type: ignore[method-assign,assignment]
    logger = logging.getLogger("jojo")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@contextlib.contextmanager
def logged() -> Iterator[list[logging.LogRecord]]:
    """Collect the log's records in this block."""
    records: list[logging.LogRecord] = []
    with log_listener(records.append):
        yield records


def warnings_in(records: Iterable[logging.LogRecord]) -> list[str]:
    return [r.getMessage() for r in records if r.levelno >= logging.WARNING]


@contextlib.contextmanager
def new_folder() -> Iterator[Path]:
    """A new folder, because all examples of a hypothesis test share one tmp_path."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        yield Path(name)


# --- real caches --------------------------------------------------------------------------------------------------


def write_lines(path: Path, records: Iterable[Any]) -> Path:
    """A JSONL file; bytes are written as they are, everything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join((r if isinstance(r, bytes) else json.dumps(r).encode()) + b"\n" for r in records))
    return path


def source_of(path: Path, name: str = "tales", split: str = "train") -> Source:
    return Source(name, split, str(path), path)


def open_cache(*arguments: Any, **options: Any) -> TokenCache | None:
    """The cache that a CacheBuilder with these arguments opens."""
    return CacheBuilder(*arguments, **options).open()


def build(path: Path, cache_dir: Path, tokenizer: Tokenizer | None = None, **options: Any) -> TokenCache:
    """The cache of an existing JSONL file."""
    cache = open_cache(source_of(path), tokenizer or get_tokenizer("gpt2"), cache_dir, **options)
    assert cache is not None
    return cache


def documents_of(cache: TokenCache) -> list[list[int]]:
    """Every document's ids, in the cache's order."""
    offsets = cache.offsets(0, cache.n_documents + 1).tolist()
    return [cache.tokens(a, b).tolist() for a, b in itertools.pairwise(offsets)]


def files_in(folder: Path) -> list[str]:
    """Names of the files in a cache folder, without locks."""
    return sorted(p.name for p in folder.iterdir() if p.suffix != ".lock") if folder.exists() else []


# --- caches made up for the loader --------------------------------------------------------------------------------


def checksums(path: Path) -> str:
    """CRC-32 of every 1 MiB block, as the manifest has them."""
    with open(path, "rb") as file:
        blocks = iter(lambda: file.read(1 << 20), b"")
        return "".join(f"{zlib.crc32(block):08x}" for block in blocks)


def made_up_cache(folder: Path, lengths: Sequence[int] | np.ndarray, kind: type[TokenCache] = TokenCache) -> TokenCache:
    """A cache whose documents have these lengths. Token k has the id k, or all have 0 if k does not fit 16 bits."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype("<u8")
    n_tokens = int(offsets[-1])
    stem = folder / "made_up-train-0123456789abcdef"
    offsets.tofile(stem.with_suffix(".idx"))
    if n_tokens < 1 << 16:
        np.arange(n_tokens, dtype="<u2").tofile(stem.with_suffix(".bin"))
    else:
        with open(stem.with_suffix(".bin"), "wb") as file:
            file.truncate(2 * n_tokens)  # sparse
    manifest = CacheManifest(
        name="made_up", split="train", fingerprint="0123456789abcdef", tokenizer={"n_vocab": 1 << 16}, rendering={},
        source={"label": "made up"}, dtype="<u2",
        n_documents=len(lengths), n_tokens=n_tokens,
        bin_crc32=checksums(stem.with_suffix(".bin")), idx_crc32=checksums(stem.with_suffix(".idx")),
    )  # fmt: skip
    stem.with_suffix(".json").write_text(manifest.to_json(), encoding="utf-8")
    return kind(stem.with_suffix(".json"))


# --- what other processes run -------------------------------------------------------------------------------------


def build_at_once(path: str, cache_dir: str, barrier: Any, results: Any) -> None:
    """Build a cache, taking its lock at the same moment as other processes; puts path, tasks and documents in results."""
    tasks, encode_lines = [], cache_builder.encode_lines

    def counting(*arguments: Any) -> Any:
        tasks.append(1)
        return encode_lines(*arguments)

    def lock_together(*arguments: Any) -> Any:
        barrier.wait(60)  # until every process has seen that the cache is missing
        return locked(*arguments)

    cache_builder.encode_lines, cache_builder.locked = counting, lock_together
    cache = build(Path(path), Path(cache_dir))
    results.put((str(cache.path), len(tasks), documents_of(cache)))


# --- an independent GPT-2 tokenizer -------------------------------------------------------------------------------


def byte_letters() -> dict[int, str]:
    """GPT-2's printable letter for every byte (Radford et al. 2019, `bytes_to_unicode`)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + n) for n, b in enumerate(others)}


def merges_of(ranks: dict[bytes, int]) -> Iterator[list[bytes]]:
    """The merge that made each token, in order: its two parts, found by merging with the lower ranks."""
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        parts = [token[i : i + 1] for i in range(len(token))]
        while len(parts) > 2:
            best, i = min((ranks.get(a + b, 1 << 30), i) for i, (a, b) in enumerate(itertools.pairwise(parts)))
            assert best < rank, f"{token!r} cannot be reached by merging"
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        if len(parts) == 2:
            yield parts


def reference_tokenizer(ranks: dict[bytes, int]) -> Any:
    """The tokenizer that `transformers` builds for GPT-2: byte-level BPE of the `tokenizers` library."""
    from tokenizers import Tokenizer as HuggingFaceTokenizer
    from tokenizers import decoders, models, pre_tokenizers

    letters = byte_letters()

    def written(token: bytes) -> str:
        return "".join(letters[b] for b in token)

    vocabulary = {written(token): rank for token, rank in ranks.items()}
    merges = [(written(a), written(b)) for a, b in merges_of(ranks)]
    reference = HuggingFaceTokenizer(models.BPE(vocabulary, merges))
    reference.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    reference.decoder = decoders.ByteLevel()
    return reference
