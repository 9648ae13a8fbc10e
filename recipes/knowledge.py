"""The `knowledge` data set: questions about Wikipedia's articles and their answers.

The source is SQuAD 1.1 (Rajpurkar et al. 2016, https://arxiv.org/abs/1606.05250): parquet files from the Hub or a path, or
the original train-v1.1.json and dev-v1.1.json from a path. With an endpoint, a language model turns each answer into a
full sentence (rewrite.py).
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jojo.text.documents import Document
from recipes.hub import fetch_files, local_file
from recipes.recipe import Recipe, RecipeRequest
from recipes.rewrite import accepted, rewritten
from utils import UserError, parse_json

REPO = "rajpurkar/squad"
FILES = {  # split: the Hub's file, the original one
    "train": ("plain_text/train-00000-of-00001.parquet", "train-v1.1.json"),
    "val": ("plain_text/validation-00000-of-00001.parquet", "dev-v1.1.json"),
}
JOURNAL = "knowledge-rewritten.jsonl"
PROMPT = """Question: {question}
Answer: {answer}

Write the answer as one full sentence that can be understood without the question. Keep the words of the answer as they \
are, and add no other facts. Reply with the sentence alone."""


class Pair(NamedTuple):
    """A question and its answer."""

    split: str
    question: str
    answer: str


def documents(request: RecipeRequest) -> Iterator[Document]:
    """Every question with its answer, or with a sentence that holds the answer.

    The passage is left out. With it, a document would have about 200 tokens, and a small model would learn to copy a few
    of them. Without it, the question is what a person would type, and the model learns the fact.
    """
    if request.endpoint is None:
        for pair in pairs(request):
            yield pair.split, {"input": pair.question, "output": pair.answer}
        return
    answered = rewritten(
        pairs(request), prompt_of, request.endpoint, request.model, request.folder / JOURNAL,
        name_of=lambda pair: pair.question, most=request.max_documents,
    )  # fmt: skip
    complaint = "Answers left as they were, because the model's sentence lacks them"
    on_one_line = ((pair, " ".join(answer.split())) for pair, answer in answered)
    for pair, sentence in accepted(
        on_one_line, lambda pair, text: pair.answer.casefold() in text.casefold(), complaint
    ):
        yield pair.split, {"input": pair.question, "output": sentence or pair.answer}


def prompt_of(pair: Pair) -> str:
    """The prompt that asks for a sentence."""
    return PROMPT.format(question=pair.question, answer=pair.answer)


def pairs(request: RecipeRequest) -> Iterator[Pair]:
    """All questions that have an answer, in the source's order."""
    if request.source == "hub":
        parquet_reader()  # without pyarrow, stop before the download
        otherwise = "the built-in stories need no download: --dataset story --source sample"
        names = [hub for hub, _ in FILES.values()]
        files = list(zip(FILES, fetch_files(REPO, names, request.folder, otherwise=otherwise), strict=True))
    else:
        assert request.path is not None
        if request.path.is_file():
            files = [("", request.path)]  # "": it will be split
        else:
            files = [(split, local_file(request.path, names)) for split, names in FILES.items()]
    for split, path in files:
        with open(path, "rb") as file:
            is_parquet = file.read(4) == b"PAR1"
        for question, answers in read_parquet(path) if is_parquet else read_json(path):
            if question.strip() and answers and answers[0].strip():
                yield Pair(split, as_question(question), " ".join(answers[0].split()))


def as_question(text: str) -> str:
    """The question with single spaces and one question mark at its end."""
    text = " ".join(text.split())
    if re.search(r"\?[\"”’')]+$", text):  # it ends with a quoted question
        return text
    return re.sub(r"(?: ?\?)+$|(?<![A-Z])[ .,;:]+$", "", text) + "?"


def read_parquet(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Questions and their answers from one of the Hub's files, read in batches."""
    reader = parquet_reader()
    try:
        with reader.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=["question", "answers"]):
                for row in batch.to_pylist():
                    yield str(row["question"]), [str(text) for text in row["answers"]["text"]]
    except (ValueError, KeyError, TypeError) as error:  # pyarrow's own errors are ValueErrors
        raise UserError(
            f"'{path}' is not SQuAD as a whole parquet file ({type(error).__name__}); download it again."
        ) from None


def read_json(path: Path) -> list[tuple[str, list[str]]]:
    """Questions and their answers from one of the original files."""
    try:
        articles = parse_json(path.read_bytes())["data"]
        questions = [qa for article in articles for paragraph in article["paragraphs"] for qa in paragraph["qas"]]
        return [(str(qa["question"]), [str(answer["text"]) for answer in qa["answers"]]) for qa in questions]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{path}' is not SQuAD as JSON ({type(error).__name__}); download it again.") from None


def parquet_reader() -> Any:
    """pyarrow.parquet. Raises UserError if it is not installed."""
    try:
        return importlib.import_module("pyarrow.parquet")
    except ModuleNotFoundError:
        raise UserError(
            "Reading parquet files needs pyarrow: pip install pyarrow. (The original train-v1.1.json and dev-v1.1.json do "
            "not: --source FOLDER.)"
        ) from None


RECIPE = Recipe(
    name="knowledge",
    summary="questions about Wikipedia's articles and their answers (SQuAD 1.1)",
    licence="CC-BY-SA-4.0",
    source=f"https://huggingface.co/datasets/{REPO}",
    size="8 MB",
    sources=("hub", "path"),
    documents=documents,
    rewritable=True,
)
