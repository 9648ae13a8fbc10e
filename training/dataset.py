"""Which files a data set's splits are, and their token caches."""

from __future__ import annotations

from pathlib import Path

from config import Config
from jojo.text.cache_builder import Source, open_cache
from jojo.text.dataset_files import SPLITS, DatasetFiles
from jojo.text.documents import Rendering
from jojo.text.stats import warn_of_lookalikes
from jojo.text.token_cache import TokenCache
from jojo.text.tokenizer import Tokenizer
from utils import UserError, check_folder, locked, log, user_path


def open_dataset(
    config: Config, tokenizer: Tokenizer, cache_dir: Path, num_workers: int
) -> tuple[TokenCache, TokenCache]:
    """The token caches of a run's training and validation split, built where needed.

    Raises:
        UserError: unknown data set, or data that cannot be read.
    """
    data = config.data
    rendering = Rendering(parse_special=data.parse_special)
    caches: list[TokenCache] = []

    def opened(source: Source) -> TokenCache | None:
        return open_cache(
            source, tokenizer, cache_dir, rendering, max_bad_lines=data.max_bad_lines, num_workers=num_workers
        )

    sample = False  # decided by the training split: the two are never mixed
    files = DatasetFiles(user_path(data.data_dir), data.dataset_name)
    for split in SPLITS:
        path = files.split(split)
        cache = opened(file_source(files, split))
        if sample := data.dataset_name == "story" and (cache is None if split == "train" else sample):
            if split == "train":
                log.info(
                    "No %s: using the built-in sample of short stories. "
                    "A larger set of your own takes its place: python prepare.py --input FILES --name story", path,
                )  # fmt: skip
            cache = opened(story_sample(split))
        if cache is None:
            raise UserError(_missing(path))
        caches.append(cache)
    warn_of_lookalikes(caches, data.parse_special)
    return caches[0], caches[1]


def file_source(files: DatasetFiles, split: str) -> Source:
    """A split of a prepared data set. Raises UserError where a file is in the place of its folder."""
    check_folder("--data.data_dir", files.folder)
    if files.pending.exists():  # a process was killed just before it was done, or is at it
        with locked(files.lock, f"the data set '{files.name}'"):
            files.settle()
    path, provenance = files.split(split), files.provenance()
    return Source(files.name, split, str(path), path, notes=provenance.options if provenance else {})


def story_sample(split: str) -> Source:
    """The built-in story sample. It lives in the cache under a name of its own, never as data/story-*."""
    from recipes.story import SAMPLE_SHA256, sample_lines

    label = f"the built-in story sample ({split})"
    return Source("story_sample", split, label, None, lambda: sample_lines(split), SAMPLE_SHA256)


def _missing(path: Path) -> str:
    name, suffix = path.name.rsplit("-", 1)
    known = sorted(p.name.removesuffix("-train.jsonl") for p in path.parent.glob("*-train.jsonl"))
    there = f"{path.parent} holds: {', '.join(known)}" if known else f"{path.parent} holds no prepared data set"
    if suffix == "val.jsonl" and name in known:
        return f"No validation split '{path}'; run python prepare.py --input {path.parent / name}-train.jsonl --name {name}2."
    return f"No data set '{name}': '{path}' does not exist ({there}); prepare.py makes one from your text."
