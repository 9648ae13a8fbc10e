"""The `story` data set: TinyStories, or a built-in sample that needs no download.

TinyStories (Eldan and Li 2023, https://arxiv.org/abs/2305.07759) are short tales in the words of a small child. GPT-4 wrote
version 2, which is used here. Each file is one text, with a line <|endoftext|> between stories.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from jojo.text.documents import Document
from recipes.hub import fetch_files, local_file
from recipes.recipe import Recipe, RecipeRequest
from utils import UserError

STORIES = 20_000
# Identifies this text in token caches and checkpoints. A test compares the text itself; change both together.
SAMPLE_SHA256 = "8baf46c57a401ba948cd9841f315a044da2d0ce837a34ee4b663d65a30ccd805"
VALIDATION_EVERY = 40  # every 40th story is in the validation split: 500 of them

REPO = "roneneldan/TinyStories"
FILES = {"train": "TinyStoriesV2-GPT4-train.txt", "val": "TinyStoriesV2-GPT4-valid.txt"}
SEPARATOR = b"<|endoftext|>"
LONGEST_BYTES = 16 << 20  # stories have about 800; more without a separator is another kind of file


# --- the sample ---------------------------------------------------------------------------------------------------------


def sample_texts(split: str) -> Iterator[str]:
    """The sample's stories, in a fixed order. `split` is "train" or "val"."""
    from recipes.story_generator import stories

    for index, text in enumerate(stories(STORIES)):
        if (index % VALIDATION_EVERY == 0) == (split == "val"):
            yield text


def sample_lines(split: str) -> Iterator[bytes]:
    """The sample's documents as JSONL lines, in a fixed order. `split` is "train" or "val"."""
    for text in sample_texts(split):
        yield json.dumps({"text": text}).encode() + b"\n"


# --- TinyStories --------------------------------------------------------------------------------------------------------


def documents(request: RecipeRequest) -> Iterator[Document]:
    """The stories of the sample, of the Hub, or of files at `request.path`."""
    if request.source == "sample":
        for split in FILES:
            yield from ((split, {"text": text}) for text in sample_texts(split))
        return
    for split, path in files(request):
        yield from ((split, {"text": text}) for text in read_stories(path))


def files(request: RecipeRequest) -> list[tuple[str, Path]]:
    """The files to read, each with its split; all are downloaded before the first is read."""
    if request.source == "hub":
        otherwise = "the built-in sample needs no download: --source sample"
        return list(zip(FILES, fetch_files(REPO, [*FILES.values()], request.folder, otherwise=otherwise), strict=True))
    assert request.path is not None
    if request.path.is_file():
        return [("", request.path)]  # "": it will be split
    return [(split, local_file(request.path, [name])) for split, name in FILES.items()]


def read_stories(path: Path) -> Iterator[str]:
    """The stories of one file, stripped; read line by line, so that gigabytes need no memory.

    Raises:
        UserError: the file is not UTF-8 text, or has no separators.
    """
    story, start, separators = bytearray(), 0, 0  # a story, and where it begins in the file
    with open(path, "rb") as file:
        while line := file.readline(LONGEST_BYTES):
            if line.strip() == SEPARATOR:
                separators += 1
                yield from _decoded(path, story, start)
                story, start = bytearray(), file.tell()
            else:
                story += line
            if len(story) >= LONGEST_BYTES:
                raise UserError(
                    f"'{path}' has no line {SEPARATOR.decode()} between bytes {start:,} and {file.tell():,}, so it is "
                    "not TinyStories' text; prepare other text with --input."
                )
        if not separators and start == 0:
            raise UserError(
                f"'{path}' has no line {SEPARATOR.decode()}, so it is not TinyStories' text; prepare other text with --input."
            )
        yield from _decoded(path, story, start)


def _decoded(path: Path, story: bytearray, start: int) -> Iterator[str]:
    """The story as text; nothing if it is empty."""
    try:
        text = story.decode("utf-8-sig" if start == 0 else "utf-8").strip()
    except UnicodeDecodeError as error:
        offset = start + error.start
        raise UserError(f"'{path}' is not UTF-8 text at byte {offset:,}; download it again, or convert it.") from None
    if text:
        yield text


RECIPE = Recipe(
    name="story",
    summary="short stories in simple words (TinyStories V2, written by GPT-4)",
    licence="CDLA-Sharing-1.0",
    source=f"https://huggingface.co/datasets/{REPO}",
    size="2.2 GB",
    sources=("hub", "sample", "path"),
    documents=documents,
)
