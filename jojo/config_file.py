"""Config files: JSON with // comments, where "extends" names a file to start from."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from config import SECTIONS, Config, Value, Values, is_short_text, nearest
from utils import UserError, one_line, parse_json, replace_text, user_path

MOST_FILES = 20  # that extend each other
STRING_OR_COMMENT = re.compile(r'"(?:\\.|[^"\\])*"?|//[^\n]*', re.DOTALL)


def strip_comments(text: str) -> str:
    """Replace comments by spaces of the same length, so that errors still name the right line and column."""
    return STRING_OR_COMMENT.sub(lambda found: found[0] if found[0][0] == '"' else " " * len(found[0]), text)


def read_json(path: Path) -> Any:
    """Read a JSON file with // comments. Raises UserError with line and column for what is wrong."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        return parse_json(strip_comments(text), object_pairs_hook=_without_duplicates)
    except (FileNotFoundError, IsADirectoryError):
        folder = path if path.is_dir() else path.parent
        known = sorted(map(str, {*folder.glob("*.json"), *Path("configs").glob("*.json")}))
        near, there = nearest(str(path), known), ", ".join(known) or "none"
        raise UserError(f"No config file '{path}'{near}; there are: {there}.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"'{path}' is not UTF-8 text (byte {error.start}); save it as UTF-8.") from None
    except ValueError as error:
        raise UserError(f"'{path}' is not valid JSON: {error}.") from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The dict of a JSON object. Raises ValueError if it has a key twice."""
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"an object has the key '{one_line(key)}' twice")
        values[key] = value
    return values


def file_layers(path: Path, extended_by: tuple[Path, ...] = ()) -> list[tuple[str, Values]]:
    """The layers of a config file: the file that it extends, then itself.

    `extended_by` are the files that led to this one. Raises UserError if a file is missing, malformed, or extends itself.
    """
    if path.resolve() in extended_by or len(extended_by) == MOST_FILES:
        chain = one_line(" -> ".join(p.name for p in (*extended_by, path)), 200)
        raise UserError(f'The configs extend each other in a circle or too deeply: {chain}; remove one "extends".')
    values = read_json(path)
    if not isinstance(values, dict):
        raise UserError(f"'{path}' must hold a JSON object with the sections {', '.join(SECTIONS)}.")
    base = values.pop("extends", None)
    if base is not None and not (isinstance(base, str) and base.strip() and is_short_text(base)):
        raise UserError(f"'{path}': \"extends\" must be the name of one JSON file.")
    base_layers = file_layers(path.parent / base, (*extended_by, path.resolve())) if base else []
    return [*base_layers, (str(path), values)]


def config_layers(file: str | None, overrides: Sequence[tuple[str, str, Value]]) -> list[tuple[str, Values]]:
    """The layers of a config file, then one per flag. `overrides`: (flag as typed, dotted name, value)."""
    layers = file_layers(user_path(file)) if file is not None else []
    for flag, name, value in overrides:
        section, key = name.split(".")
        layers.append((flag, {section: {key: value}}))
    return layers


def save_config(config: Config, path: Path) -> None:
    """Write a config file that `--config` reads back to an equal config."""
    replace_text(path, config_text(config))


def config_text(config: Config) -> str:
    """The contents of a config file."""
    return json.dumps(config.to_dict(), indent=2) + "\n"
