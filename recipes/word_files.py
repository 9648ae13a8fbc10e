"""The words of the recipes that generate text, and of the built-in tasks: files in recipes/words/ that people can edit.

A file has sections. A section is a line "== NAME" and the lines below it. The lines above the first section explain the file.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

WORDS = Path(__file__).parent / "words"


@cache
def sections(file: str) -> dict[str, str]:
    """The text of each section of recipes/words/<file>.txt by name, in the order of the file."""
    text = (WORDS / f"{file}.txt").read_text(encoding="utf-8")
    blocks = [block.partition("\n") for block in re.split(r"^== ", text, flags=re.MULTILINE)[1:]]
    found = {name.strip(): body.strip() for name, _, body in blocks}
    if len(found) < len(blocks):
        raise ValueError(f"recipes/words/{file}.txt has two sections with the same name")
    return found


@cache
def entries(file: str, section: str) -> tuple[str, ...]:
    """The entries of a section: its lines, each with the indented lines that continue it."""
    return tuple(re.sub(r"\n +", " ", sections(file)[section]).splitlines())


@cache
def pairs(file: str, section: str) -> dict[str, str]:
    """The entries of a section that are written "name = text"."""
    return dict(entry.split(" = ", 1) for entry in entries(file, section))
