"""Print what changes for people who come from an earlier version, or from nanoGPT.

    python tools/improvements_guide.py models/x.pt       what concerns the version that wrote this checkpoint
    python tools/improvements_guide.py --from nanogpt    what concerns people who come from there
    python tools/improvements_guide.py                   the newest checkpoint in models/; without one, everything

The text is that of docs/migration.md.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from jojo.command import Parser, run_command
from utils import UserError, log, one_line, user_path

PAGE = ROOT / "docs" / "migration.md"
GUIDES = {"1": "From Jojo 1", "2.0": "From Jojo 2.0", "2.1": "From Jojo 2.1", "nanogpt": "From nanoGPT"}
COMMON = "For everyone"
WIDTHS = 40, 120  # of a line: at least, at most


# --- whose file it is -----------------------------------------------------------------------------------------------


def version_of(state: Mapping[str, Any], path: Path) -> str | None:
    """Which of GUIDES concerns the program that wrote a checkpoint; None: it was this version.

    Raises:
        UserError: it cannot be told.
    """
    from jojo.checkpoints.file import has_present_format

    if "format_version" in state:
        if not has_present_format(state):
            raise UserError(
                f"'{path}' has format {one_line(state['format_version'])}, newer than this version of Jojo reads."
            )
        return None
    if isinstance(state.get("model_args"), dict):
        return "nanogpt" if "iter_num" in state else "1"
    metadata = state.get("metadata")
    version = one_line(metadata.get("trainer_version", "")) if isinstance(metadata, dict) else ""
    if (short := ".".join(version.split(".")[:2])) in GUIDES:
        return short
    raise UserError(f"'{path}' does not say which version wrote it; name one with --from {'|'.join(GUIDES)}.")


def newest_model() -> Path | None:
    """The newest checkpoint in models/; None where there is none."""
    from jojo.checkpoints.run_files import newest_checkpoint

    try:
        return newest_checkpoint(Path("models"))
    except UserError:
        return None


# --- the page -------------------------------------------------------------------------------------------------------


def sections() -> dict[str, str]:
    """The page's text by heading."""
    parts = re.split(r"^## (.+)\n", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {title: text.strip() for title, text in zip(parts[1::2], parts[2::2], strict=True)}


def show(titles: Sequence[str], width: int) -> str:
    """These sections as plain text."""
    page = sections()
    return "\n\n".join(f"{title}\n{'=' * len(title)}\n\n{plain(page[title], width)}" for title in titles)


def plain(markdown: str, width: int) -> str:
    """Tables in columns, paragraphs and points filled to the width, without the signs of Markdown."""
    blocks = re.split(r"\n\n|\n(?=- )", markdown)
    lines: list[str] = []
    for block in blocks:
        text = re.sub(r"`|\*\*", "", block)
        if text.startswith("|"):
            rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in text.splitlines()]
            lines += ["", *table_lines([rows[0], *rows[2:]], width)]
        elif text.startswith("- "):
            lines += fill(text, width, "  ")
        else:
            lines += ["", *fill(text, width), ""]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def table_lines(rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """Two columns side by side, the first one no wider than it needs to be, and a rule under the first row."""
    left = min(max(len(row[0]) for row in rows), width // 2 - 2)
    for number, (first, second) in enumerate(rows):
        pair = fill(first, left, "  "), fill(second, width - left - 2)
        for line in range(max(map(len, pair))):
            a, b = (column[line] if line < len(column) else "" for column in pair)
            yield f"{a:<{left}}  {b}".rstrip()
        if number == 0:
            yield f"{'-' * left}  {'-' * (width - left - 2)}"


def fill(text: str, width: int, indent: str = "") -> list[str]:
    """Lines of at most this width; those after the first are indented. Flags and paths stay whole."""
    words = " ".join(text.split())
    return textwrap.wrap(words, width, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False) or [""]


# --- the command ----------------------------------------------------------------------------------------------------


def build_parser() -> Parser:
    """Flags of improvements_guide.py."""
    parser = Parser(
        prog="improvements_guide.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("checkpoint", nargs="?", metavar="CHECKPOINT", help="a file of the version that you come from")
    add("--from", dest="version", choices=GUIDES, help="the version that you come from, where there is no file of it")
    add("--debug", action="store_true", help="tracebacks with errors")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Print the guide that these arguments ask for; returns the exit code."""
    args = build_parser().parse_args(arguments)
    if args.checkpoint and args.version:
        raise UserError("A checkpoint and --from both say where you come from; use one of them.")
    titles, choices = [GUIDES[args.version]] if args.version else [*GUIDES.values()], "|".join(GUIDES)
    path = user_path(args.checkpoint) if args.checkpoint else None if args.version else newest_model()
    if path:
        from jojo.checkpoints.file import read_file

        version = version_of(read_file(path), path)
        if version is None:
            log.info("'%s' was written by this version: nothing is needed. For another one: --from %s.", path, choices)
            return 0
        titles = [GUIDES[version]]
        log.info("'%s' was written by %s.\n", path, titles[0].removeprefix("From "))
    elif not args.version:
        log.info("There is no checkpoint in models/; --from %s shows one part of what follows.\n", choices)
    log.info(show([*titles, COMMON], min(max(shutil.get_terminal_size((WIDTHS[1], 0)).columns, WIDTHS[0]), WIDTHS[1])))
    return 0


if __name__ == "__main__":
    run_command(main)
