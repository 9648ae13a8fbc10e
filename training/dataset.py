"""The text of a run: finds the files of a data set's splits and opens their token caches."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from config import Config
from jojo.text.cache_builder import CacheBuilder, Source
from jojo.text.dataset_files import DatasetFiles
from jojo.text.token_cache import TokenCache
from jojo.text.tokenizer import Tokenizer
from utils import UserError, check_folder, log, plural, user_path

if TYPE_CHECKING:  # importing it imports torch, which prepare.py does not need
    from jojo.machine.ranks import Ranks


@dataclass
class Data:
    """The text as token ids."""

    tokenizer: Tokenizer
    train: TokenCache
    val: TokenCache
    temporary: tempfile.TemporaryDirectory[str] | None = None  # holds the caches of a run with --no_cache

    @property
    def fingerprints(self) -> dict[str, str]:
        train, val = self.train.manifest, self.val.manifest
        return {"name": train.name, "train": train.fingerprint, "val": val.fingerprint}

    @property
    def is_chat(self) -> bool:
        """Whether the training text is conversations: every document ends with a control token, and these have more."""
        return self.train.manifest.n_control_tokens > self.train.n_documents

    def close(self) -> None:
        self.train.close()
        self.val.close()
        if self.temporary:
            self.temporary.cleanup()


def open_data(config: Config, tokenizer: Tokenizer, ranks: Ranks) -> Data:
    """The data of a run. Rank 0 prepares it. Raises UserError if the text is shorter than the context."""
    temporary, cache_dir = None, user_path(config.data.cache_dir)
    if not config.data.cache_tokenized:
        temporary = tempfile.TemporaryDirectory(prefix="jojo-cache-", ignore_cleanup_errors=True)
        cache_dir = Path(temporary.name)
    with ranks.main_first("data"):
        train, val = open_dataset(config, tokenizer, cache_dir)
    if train.n_tokens < config.model.block_size:
        raise UserError(
            f"The data set '{config.data.dataset_name}' has {train.n_tokens:,} tokens, fewer than the context of "
            f"{config.model.block_size:,}; add text, or train a new model with --model.block_size {max(2, train.n_tokens // 2)}."
        )
    return Data(tokenizer, train, val, temporary)


def open_dataset(config: Config, tokenizer: Tokenizer, cache_dir: Path) -> tuple[TokenCache, TokenCache]:
    """The token caches of both splits, built if they do not exist. Raises UserError if the data set is missing."""
    data, files = config.data, DatasetFiles(user_path(config.data.data_dir), config.data.dataset_name)
    workers = config.system.num_workers or 0

    def opened(source: Source) -> TokenCache | None:  # None if the split's file is missing
        return CacheBuilder(source, tokenizer, cache_dir, data.parse_special, data.max_bad_lines, workers).open()

    train, val = opened(file_source(files, "train")), None
    if train is not None:
        val = opened(file_source(files, "val"))
    elif data.dataset_name == "story":
        train, val = opened(story_sample("train")), opened(story_sample("val"))
        if train and val:
            log.info("Using the built-in sample of %s short stories.", f"{train.n_documents + val.n_documents:,}")
    if train is None or val is None:
        raise missing_split(files, "train" if train is None else "val")
    lookalikes = train.manifest.lookalike_documents + val.manifest.lookalike_documents
    if lookalikes and not data.parse_special:
        advice = "if it is ChatML already, use --data.parse_special true"
        log.warning("Text like <|im_start|> in %s is read as plain text; %s.", plural(lookalikes, "document"), advice)
    return train, val


def missing_split(files: DatasetFiles, split: str) -> UserError:
    """The error if neither a split's file nor its token cache exists."""
    from recipes.recipe import how_to_prepare

    known = sorted(path.name.removesuffix("-train.jsonl") for path in files.folder.glob("*-train.jsonl"))
    found = f"{files.folder} holds: {', '.join(known) or 'no data set'}"
    return UserError(f"'{files.splits[split]}' does not exist ({found}); make it: {how_to_prepare(files.name)}")


def file_source(files: DatasetFiles, split: str) -> Source:
    """A split of a prepared data set. Raises UserError if its folder is a file."""
    check_folder("--data.data_dir", files.folder)
    if files.pending.exists():  # another process is writing the data set, or was killed near the end
        with files.locked():
            files.settle()
    path, provenance = files.splits[split], files.provenance()
    notes = {"prepared": {"normalised": True}} if provenance and provenance.request.get("normalise") else {}
    return Source(files.name, split, str(path), path, notes=notes)


def story_sample(split: str) -> Source:
    """The built-in story sample. It has no file in data/; its cache is called story_sample."""
    from recipes.story import SAMPLE_SHA256, sample_lines

    label = f"the built-in story sample ({split})"
    return Source("story_sample", split, label, None, lambda: sample_lines(split), SAMPLE_SHA256)
