"""What a recipe is: one module in this folder that says where a data set comes from and gives its documents.

    RECIPE = Recipe(
        name="proverbs", summary="proverbs and what they mean", licence="CC0-1.0",
        source="https://example.org/proverbs", size="2 MB", sources=("hub", "path"), documents=documents,
    )

prepare.py lists the recipes, splits their documents, drops exact duplicates, and writes data/<name>-{train,val}.jsonl.
docs/data.md shows how to add one.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from jojo.text.documents import Document
from utils import UserError, one_line


@dataclass(frozen=True)
class Wanted:
    """What was asked of a recipe.

    source: "hub" (fetched), "sample" (made or found on this machine), or "path".
    path: with "path": the file or folder that holds the source's own files.
    folder: where fetched files are kept, for the next time.
    seed: decides what a generator makes.
    endpoint: an OpenAI-compatible server that rewrites documents (recipes/rewrite.py); None: they stay as they are.
    model: the model to ask there.
    max_documents: how many will be taken, before anything is dropped; None: all.
    """

    source: str
    path: Path | None = None
    folder: Path = Path("data/downloads")
    seed: int = 0
    endpoint: str | None = None
    model: str | None = None
    max_documents: int | None = None


@dataclass(frozen=True)
class Recipe:
    """A data set that can be made with one command.

    name: as in `prepare.py --dataset NAME`.
    summary: what it is, in a few words.
    licence: of the text; an SPDX identifier where there is one.
    source: where it comes from, for people.
    size: about how much text it is, for people.
    sources: which of "hub", "sample" and "path" it takes; the first is the default.
    documents: gives them, in an order that is always the same. Raises UserError where the source is not to be had.
    rewritable: whether it uses `Wanted.endpoint`.
    seeded: whether it uses `Wanted.seed`.
    """

    name: str
    summary: str
    licence: str
    source: str
    size: str
    sources: tuple[str, ...]
    documents: Callable[[Wanted], Iterator[Document]]
    rewritable: bool = False
    seeded: bool = False

    def read(self, wanted: Wanted) -> Iterator[Document]:
        """Its documents. What it cannot read becomes a UserError that names the file, or the folder of its files."""
        try:
            yield from self.documents(wanted)
        except UnicodeDecodeError as error:
            source = wanted.path or wanted.folder
            raise UserError(
                f"The recipe '{self.name}' cannot read '{source}': it is no {error.encoding} text; convert it to that."
            ) from error
        except OSError as error:
            if not (wanted.path and error.filename and Path(error.filename).is_relative_to(wanted.path)):
                raise
            raise UserError(
                f"The recipe '{self.name}' cannot read '{error.filename}' ({error.strerror}); check --source."
            ) from error


def recipes() -> dict[str, Recipe]:
    """All recipes in this folder by name."""
    modules = sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))
    return {name: recipe for name in modules if (recipe := _recipe_in(name))}


def find_recipe(name: str) -> Recipe:
    """The recipe of this name, which is its module's. Raises UserError naming all where there is none."""
    if (Path(__file__).parent / f"{name}.py").is_file() and (recipe := _recipe_in(name)):
        return recipe
    raise UserError(f"No recipe '{one_line(name)}'; there are: {', '.join(recipes())}. Your own text: --input.")


def _recipe_in(module: str) -> Recipe | None:
    recipe = getattr(importlib.import_module(f"recipes.{module}"), "RECIPE", None)
    assert recipe is None or recipe.name == module
    return recipe
