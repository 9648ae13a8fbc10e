"""What a recipe is: a module in this folder that says where a data set comes from, and yields its documents.

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
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from utils import UserError, one_line

if TYPE_CHECKING:  # documents.py imports numpy; without it, `python -m recipes.chitchat` answers at once
    from jojo.text.documents import Document


@dataclass(frozen=True)
class RecipeRequest:
    """What the user asks of a recipe.

    source: "hub" (downloaded), "sample" (made or found on this machine), or "path".
    path: with "path": the file or folder of the source's own files.
    folder: keeps downloaded files for the next time.
    seed: for recipes that generate text.
    endpoint: an OpenAI-compatible server that rewrites documents (recipes/rewrite.py); None: they stay as they are.
    model: the server's model.
    max_documents: how many the user wants, without duplicates; None: all.
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
    """A data set that one command prepares.

    name: as in `prepare.py --dataset NAME`.
    summary: what it is, in a few words.
    licence: the licence of the text, by its SPDX identifier if it has one.
    source: where the text comes from, for messages.
    size: about how much text it is, for messages.
    sources: which of "hub", "sample" and "path" it takes; the first is the default.
    documents: yields them, always in the same order. Raises UserError if the source is not available.
    rewritable: whether it uses `endpoint`.
    seeded: whether it uses `seed`.
    tokenizer: which vocabulary suits it best, as in data.tokenizer.
    accepts: whether an answer to a conversation is right, for recipes that know; None: nobody can tell.
    """

    name: str
    summary: str
    licence: str
    source: str
    size: str
    sources: tuple[str, ...]
    documents: Callable[[RecipeRequest], Iterator[Document]]
    rewritable: bool = False
    seeded: bool = False
    tokenizer: str = "gpt2"
    accepts: Callable[[Sequence[Mapping[str, str]], str], bool] | None = None

    def read(self, request: RecipeRequest) -> Iterator[Document]:
        """Its documents. A file that cannot be read becomes a UserError that names it, or its folder."""
        try:
            yield from self.documents(request)
        except UnicodeDecodeError as error:
            source = request.path or request.folder
            raise UserError(
                f"The recipe '{self.name}' cannot read '{source}': it is not {error.encoding} text; convert it."
            ) from error
        except OSError as error:
            if not (request.path and error.filename and Path(error.filename).is_relative_to(request.path)):
                raise
            raise UserError(
                f"The recipe '{self.name}' cannot read '{error.filename}' ({error.strerror}); check --source."
            ) from error


def recipes() -> dict[str, Recipe]:
    """All recipes in this folder by name."""
    modules = sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))
    return {name: recipe for name in modules if (recipe := _recipe_in(name))}


def find_recipe(name: str) -> Recipe:
    """The recipe of this name, which is also its module's. Raises UserError, naming all recipes, if it is unknown."""
    if (Path(__file__).parent / f"{name}.py").is_file() and (recipe := _recipe_in(name)):
        return recipe
    raise UserError(
        f"No recipe '{one_line(name)}'; choose one of {', '.join(recipes())}, or use --input for your own text."
    )


def how_to_prepare(name: str) -> str:
    """The command that makes a data set of this name: of the recipe, or else of the user's own text."""
    known = name in (module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])) and _recipe_in(name)
    return f"python prepare.py {f'--dataset {name}' if known else f'--input FILES --name {shlex.quote(name)}'}"


def _recipe_in(module: str) -> Recipe | None:
    recipe = getattr(importlib.import_module(f"recipes.{module}"), "RECIPE", None)
    assert recipe is None or recipe.name == module
    return recipe
