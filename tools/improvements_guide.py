"""Print what changes for users of an earlier version or of nanoGPT. The text is docs/migration.md.

python tools/improvements_guide.py models/x.pt       for the version that wrote this checkpoint
python tools/improvements_guide.py --from nanogpt    for users of nanoGPT
python tools/improvements_guide.py                   for the newest checkpoint in models/; if there is none, the whole guide
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from jojo.command import Parser, run_command
from utils import UserError, log, one_line, user_path

PAGE = ROOT / "docs" / "migration.md"
GUIDES = {"1": "From Jojo 1", "2.0": "From Jojo 2.0", "2.1": "From Jojo 2.1", "nanogpt": "From nanoGPT"}
COMMON = "For everyone"


def version_of(state: Mapping[str, Any], path: Path) -> str | None:
    """The key of GUIDES for the version that wrote a checkpoint; None for this version.

    Raises:
        UserError: the checkpoint does not say its version, or has a later one.
    """
    from jojo.checkpoints.file import has_present_format

    if "format_version" in state:
        if not has_present_format(state):
            raise UserError(
                f"'{path}' has format {one_line(state['format_version'])}, which is newer than this version of Jojo."
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
    """The newest checkpoint in models/; None if there is none."""
    from jojo.checkpoints.run_files import newest_checkpoint

    try:
        return newest_checkpoint(Path("models"))
    except UserError:
        return None


def sections() -> dict[str, str]:
    """The text of docs/migration.md by heading."""
    parts = re.split(r"^## (.+)\n", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {title: text.strip() for title, text in zip(parts[1::2], parts[2::2], strict=True)}


def build_parser() -> Parser:
    """Flags of improvements_guide.py."""
    parser = Parser("[CHECKPOINT] ", prog="improvements_guide.py", description=__doc__)
    add = parser.add_argument
    add("checkpoint", nargs="?", metavar="CHECKPOINT", help="a checkpoint of the version that you used before")
    add("--from", dest="version", choices=GUIDES, help="the version that you used before, if you have no checkpoint")
    add("--debug", action="store_true", help="show tracebacks with errors")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Print the guide that these arguments ask for; returns the exit code."""
    args = build_parser().parse_args(arguments)
    if args.checkpoint and args.version:
        raise UserError("Use either a checkpoint or --from, not both.")
    titles, choices = [GUIDES[args.version]] if args.version else [*GUIDES.values()], "|".join(GUIDES)
    path = user_path(args.checkpoint) if args.checkpoint else None if args.version else newest_model()
    if path:
        from jojo.checkpoints.file import read_file

        version = version_of(read_file(path), path)
        if version is None:
            log.info("'%s' was written by this version; nothing changes. For others: --from %s.", path, choices)
            return 0
        titles = [GUIDES[version]]
        log.info("'%s' was written by %s.\n", path, titles[0].removeprefix("From "))
    elif not args.version:
        log.info("There is no checkpoint in models/. To see one part of this guide: --from %s.\n", choices)
    page = sections()
    log.info("\n\n".join(f"## {title}\n\n{page[title]}" for title in [*titles, COMMON]))
    return 0


if __name__ == "__main__":
    run_command(main)
