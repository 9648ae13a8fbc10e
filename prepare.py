"""Text to a data set: files -> data/<name>-{train,val}.jsonl -> token cache.

    python prepare.py --input book.txt stories/ more.jsonl --name mine
    python train.py --dataset mine

Takes .txt and .jsonl files, and folders of them. A .jsonl line is one document: {"text": "..."}, a conversation
{"messages": [{"role": "user", "content": "..."}, ...]}, or {"input": "...", "output": "..."}. A .txt file is one
document; a line <|endoftext|> ends one, and a long text is cut into pieces of about 32 kB at empty lines.

Which split a document goes to is decided by its own contents, so it stays there when more data is added.
"""

from __future__ import annotations

import argparse
import glob
import hashlib
import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cli import Parser
from documents import error_in_words, record_messages
from utils import UserError, __version__, log, one_line, run_command, user_path

SEPARATOR = "<|endoftext|>"
PIECE_CHARACTERS = 32_000  # a longer text is cut near this length: far longer than any context
SUFFIXES = (".txt", ".jsonl")


def build_parser() -> Parser:
    """Flags of prepare.py."""
    parser = Parser(
        prog="prepare.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--input", nargs="+", metavar="PATH", help=".txt and .jsonl files, or folders of them")
    add("--name", metavar="NAME", help="name of the data set, as in train.py --dataset NAME")
    add("--val_fraction", type=float, default=0.05, metavar="X", help="share of documents that validate [%(default)s]")
    add("--separator", default=SEPARATOR, metavar="TEXT", help="line that ends a document in .txt files [%(default)s]")
    add(
        "--data.data_dir",
        dest="data_dir",
        default="data/",
        metavar="DIR",
        help="where the JSONL files go [%(default)s]",
    )
    add(
        "--data.cache_dir",
        dest="cache_dir",
        default="cache/",
        metavar="DIR",
        help="where the token cache goes [%(default)s]",
    )
    add("--data.parse_special", dest="parse_special", nargs="?", const="true", default="false", choices=("true", "false"),
        help="read <|im_start|> and the like in `text` records as control tokens")  # fmt: skip
    add(
        "--data.max_bad_lines",
        dest="max_bad_lines",
        type=int,
        default=100,
        metavar="N",
        help="unreadable lines to skip [%(default)s]",
    )
    add("--num_workers", type=int, default=None, metavar="N", help="processes that tokenize; default: one per core")
    add("--force", action="store_true", help="write over a data set of this name")
    add("--verify", action="store_true", help="check every block of the token caches (of --name, or all) and exit")
    add("--no_color", "--no-color", action="store_true", help="no colours, even on a terminal")
    add("--debug", action="store_true", help="more detail, and tracebacks with errors")
    add("--version", action="version", version=f"Jojo {__version__}")
    return parser


# --- reading --------------------------------------------------------------------------------------------------------


def find_files(inputs: Sequence[str]) -> list[Path]:
    """The files that --input names, folders searched, in a fixed order. Raises UserError for what is not there."""
    files: list[Path] = []
    for name in inputs:
        path = user_path(name)
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix.lower() in SUFFIXES)
            if not inside:
                raise UserError(f"The folder '{path}' holds no {' or '.join(SUFFIXES)} file.")
            files += inside
        elif not path.exists():
            raise UserError(f"No file or folder '{path}'; check --input.")
        elif path.suffix.lower() not in SUFFIXES:
            raise UserError(
                f"'{path}' is neither {' nor '.join(SUFFIXES)}; convert it, or rename it if it is one of them."
            )
        else:
            files.append(path)
    return list(dict.fromkeys(files))


def read_documents(path: Path, separator: str, problems: list[str], limit: int) -> Iterator[dict[str, Any]]:
    """The documents of one file as records; unreadable lines are added to `problems`, up to the limit."""
    if path.suffix.lower() == ".txt":
        yield from ({"text": text} for text in split_text(_read_text(path), separator))
        return
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
                if not isinstance(record, dict):
                    raise ValueError("must be a JSON object")
                if record_messages(record) or record["text"]:  # an empty text is no document
                    yield record
            except (ValueError, RecursionError) as error:
                problems.append(f"{path}, line {number}: {error_in_words(error)}")
                if len(problems) > limit:
                    shown = "; ".join(problems[:3])
                    raise UserError(
                        f"More than {limit} unreadable lines ({shown}; ...); mend them, or raise --data.max_bad_lines."
                    ) from None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"'{path}' is not UTF-8 text (byte {error.start:,}); convert it, for example with iconv."
        ) from None


def split_text(text: str, separator: str = SEPARATOR) -> Iterator[str]:
    """Documents of a text: what stands between separator lines, long ones cut into pieces at empty lines."""
    for document in re.split(rf"^[ \t]*{re.escape(separator)}[ \t]*$", text, flags=re.MULTILINE):
        yield from (piece.strip() for piece in _pieces(document) if piece.strip())


def _pieces(text: str) -> Iterator[str]:
    """Cut at the first empty line (failing that, line end, space, anywhere) past PIECE_CHARACTERS."""
    start = 0
    while len(text) - start > 1.5 * PIECE_CHARACTERS:
        near, far = start + PIECE_CHARACTERS, start + int(1.5 * PIECE_CHARACTERS)
        cut = next((at + len(mark) for mark in ("\n\n", "\n", " ") if (at := text.find(mark, near, far)) >= 0), near)
        yield text[start:cut]
        start = cut
    yield text[start:]


# --- splitting and writing --------------------------------------------------------------------------------------------


def share_of(record: Mapping[str, Any]) -> float:
    """A number in [0, 1) drawn from what the document says (not from other fields such as an id)."""
    content = record_messages(record) or record["text"]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def write_splits(args: argparse.Namespace, paths: dict[str, Path]) -> None:
    """Read all inputs and write both JSONL files, each whole or not at all."""
    temporary = {split: path.with_name(f".{path.name}.{os.getpid()}.tmp") for split, path in paths.items()}
    counts = dict.fromkeys(paths, 0)
    problems: list[str] = []
    try:
        with ExitStack() as stack:
            files = {split: stack.enter_context(open(path, "wb")) for split, path in temporary.items()}
            for path in find_files(args.input):
                for record in read_documents(path, args.separator, problems, args.max_bad_lines):
                    try:
                        split = "val" if share_of(record) < args.val_fraction else "train"
                        files[split].write(to_line(record))
                        counts[split] += 1
                    except RecursionError:  # reading JSON goes a little deeper than writing it
                        problems.append(f"{path}: a record that is nested too deeply")
        if problems:
            log.warning("Skipped %d unreadable lines (%s).", len(problems), "; ".join(problems[:3]))
        if not sum(counts.values()):
            raise UserError(f"No documents in {', '.join(args.input)}; nothing was written.")
        for empty, full in (("val", "train"), ("train", "val")):
            if not counts[empty]:
                fill_empty_split(empty, temporary[empty], temporary[full])
        for split, path in paths.items():
            os.replace(temporary[split], path)
    except RecursionError:
        raise UserError("A record is nested too deeply to be written again; leave it out.") from None
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)


def to_line(record: Mapping[str, Any]) -> bytes:
    """One JSONL line; half a surrogate pair, which no text has, becomes a question mark."""
    return json.dumps(record, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def fill_empty_split(split: str, empty: Path, full: Path) -> None:
    """Sets of a few documents: give the empty split the one nearest to it, with its copies; a single one is cut."""
    lines = full.read_bytes().splitlines(keepends=True)
    shares = [_share_of_line(line) for line in lines]
    known = {share for share in shares if share is not None}
    if len(known) > 1:
        chosen = (min if split == "val" else max)(known)
        moved = [line for line, share in zip(lines, shares, strict=True) if share == chosen]
        stay = [line for line, share in zip(lines, shares, strict=True) if share != chosen]
        log.warning(
            "No document was drawn for the %s split: gave it one. More text, or another --val_fraction, makes this unnecessary.",
            split,
        )
    else:
        record = json.loads(lines[0])
        text = record.get("text")
        if not isinstance(text, str) or len(text) < 100:
            raise UserError("One short document cannot be split into training and validation; add more text.")
        cut = text.rfind("\n", len(text) // 2, int(0.9 * len(text)))
        parts = text[: cut if cut > 0 else int(0.9 * len(text))], text[cut if cut > 0 else int(0.9 * len(text)) :]
        pieces = [[to_line({**record, "text": part.strip()})] for part in parts]
        moved, stay = pieces if split == "train" else pieces[::-1]
        log.warning("There is one document only: its end validates.")
    empty.write_bytes(b"".join(moved))
    full.write_bytes(b"".join(stay))


def _share_of_line(line: bytes) -> float | None:
    """The share of a line that was written; None where it is nested a little too deeply to be read from here."""
    try:
        return share_of(json.loads(line))
    except RecursionError:
        return None


# --- the verb ---------------------------------------------------------------------------------------------------------


def prepare(args: argparse.Namespace) -> None:
    """Write the data set and its token cache, and print what is in it."""
    from cache_builder import Source, locked, open_cache
    from data_loader import statistics, warn_of_lookalikes
    from documents import Rendering
    from tokenizer import get_tokenizer

    if args.max_bad_lines < 0:
        raise UserError(f"--data.max_bad_lines must be 0 or more, not {args.max_bad_lines}.")
    if not 0 < args.val_fraction < 1:
        raise UserError(f"--val_fraction must be between 0 and 1, not {args.val_fraction:g}.")
    folder = user_path(args.data_dir)
    paths = {split: folder / f"{args.name}-{split}.jsonl" for split in ("train", "val")}
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / f".{args.name}.lock", f"the data set '{args.name}'"):
        there = [str(path) for path in paths.values() if path.exists()]
        if there and not args.force:
            raise UserError(
                f"{' and '.join(there)} exist already; --force writes over them, another --name keeps them."
            )
        write_splits(args, paths)
    workers = args.num_workers if args.num_workers is not None else os.cpu_count() or 1
    caches = []
    for split, path in paths.items():
        cache = open_cache(
            Source(args.name, split, str(path), path), get_tokenizer("gpt2"), user_path(args.cache_dir),
            Rendering(parse_special=args.parse_special == "true"), max_bad_lines=args.max_bad_lines, num_workers=workers,
        )  # fmt: skip
        assert cache is not None
        caches.append(cache)
        log.info("%s\n%s", path, statistics(cache))
    warn_of_lookalikes(caches, args.parse_special == "true")
    log.info("Train on it with: %s", train_command(args))


def train_command(args: argparse.Namespace) -> str:
    """The command that trains on what was prepared, with the options that must be repeated."""
    defaults = build_parser().parse_args([])
    words = ["python", "train.py", "--dataset", args.name]
    for name in ("data_dir", "cache_dir", "parse_special"):
        if getattr(args, name) != getattr(defaults, name):
            words += [f"--data.{name}", getattr(args, name)]
    return shlex.join(words)


def verify(args: argparse.Namespace) -> None:
    """Read every block of the caches. Raises UserError where one is damaged, after looking at all of them."""
    from cache_builder import FINGERPRINT
    from token_cache import TokenCache

    name = glob.escape(args.name) if args.name else "*"
    found = sorted(user_path(args.cache_dir).glob(f"{name}-*-{FINGERPRINT}.json"))
    if not found:
        raise UserError(f"No token cache{f' of {args.name!r}' if args.name else ''} in '{args.cache_dir}'.")
    damaged = 0
    for path in found:
        try:
            TokenCache(path).verify()
            log.info("%s is intact.", path)
        except (ValueError, TypeError, OSError) as error:
            damaged += 1
            log.warning("%s is not usable: %s", path, str(error).rstrip(".") + ".")
    if damaged:
        raise UserError(f"{damaged} of {len(found)} token caches are damaged; training builds them anew from the data.")


def main(arguments: Sequence[str]) -> int:
    """Run prepare.py with these arguments; returns the exit code."""
    args = build_parser().parse_args(arguments)
    if args.name is not None and (Path(args.name).name != args.name or not args.name.isprintable()):
        raise UserError(f"--name '{one_line(args.name)}' must be a plain name, without folders.")
    if args.verify:
        verify(args)
    elif args.input and args.name:
        prepare(args)
    else:
        raise UserError("Name the text and the data set: python prepare.py --input FILES --name NAME (see --help).")
    return 0


if __name__ == "__main__":
    run_command(main)
