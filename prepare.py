"""Text to a data set: recipe or files -> data/<name>-{train,val}.jsonl -> token cache.

    python prepare.py                                              the recipes, and what is prepared
    python prepare.py --dataset dailydialog                        a recipe
    python prepare.py --input book.txt stories/ --name mine        text of your own
    python prepare.py --name mine --train_tokenizer --vocab_size 8192
    python train.py --dataset mine

Takes .txt, .md, .jsonl, .csv and .parquet files (all but the last also with .gz or .zst behind), folders of them and
patterns. A .jsonl line is one document: {"text": "..."}, a conversation {"messages": [{"role": "user", "content": "..."},
...]}, or {"input": "...", "output": "..."}. A .txt file is one document; a line <|endoftext|> ends one, and a long text is
cut into pieces of about 32 kB at empty lines.

Which split a document goes to is decided by its own contents, so it stays there when more data is added. Exact duplicates
are dropped. What was interrupted goes on when the same command is given again. docs/data.md has the rest.
"""

from __future__ import annotations

import argparse
import glob
import os
import shlex
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jojo.command import Parser, run_command
from utils import UserError, __version__, check_folder, log, one_line, replace_text, user_path

if TYPE_CHECKING:
    from jojo.text.cache_builder import Source
    from jojo.text.dataset_files import DatasetFiles
    from jojo.text.documents import Document

SEPARATOR = "<|endoftext|>"
WITH_VERIFY = ("verify", "dataset", "name", "data_dir", "cache_dir", "num_workers", "no_color", "debug")  # may be given


def build_parser() -> Parser:
    """Flags of prepare.py."""
    parser = Parser(
        prog="prepare.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--dataset", metavar="NAME", help="make the data set of a recipe")
    add("--source", metavar="hub|sample|PATH", help="with --dataset: where from; PATH: files fetched by hand")
    add("--max_documents", type=int, metavar="N", help="stop after so many documents")
    add("--endpoint", metavar="URL", help="with --dataset: an OpenAI-compatible server that rewrites the documents")
    add("--endpoint_model", metavar="NAME", help="the model to ask there; the key is read from OPENAI_API_KEY")
    add("--seed", type=int, default=0, metavar="N", help="of recipes that make up their text [%(default)s]")
    add("--input", nargs="+", metavar="PATH", help="files, folders and patterns of your own text")
    add("--name", metavar="NAME", help="name of the data set, as in train.py --dataset NAME; default: --dataset's")
    add("--text_field", default="text", metavar="NAME", help="field or column that holds the text [%(default)s]")
    add("--separator", default=SEPARATOR, metavar="TEXT", help="line that ends a document in .txt files [%(default)s]")
    add("--normalise", action="store_true", help="tidy Unicode, quotes and white space (docs/data.md lists what)")
    add("--val_fraction", type=float, default=0.05, metavar="X", help="share of documents that validate [%(default)s]")
    add("--train_tokenizer", action="store_true", help="learn a vocabulary of its own from the training split")
    add("--vocab_size", type=int, default=8192, metavar="N", help="with --train_tokenizer: its tokens [%(default)s]")
    add("--stats", action="store_true", help="say what is in a prepared set, and draw the lengths of its documents")
    option_flags(parser)
    add("--num_workers", type=int, default=None, metavar="N", help="threads that tokenize; default: one per core")
    add("--force", action="store_true", help="write over a data set of this name")
    add("--verify", action="store_true", help="check every block of the token caches (of --name, or all) and exit")
    add("--no_color", "--no-color", action="store_true", help="no colours, even on a terminal")
    add("--debug", action="store_true", help="more detail, and tracebacks with errors")
    add("--version", action="version", version=f"Jojo {__version__}")
    return parser


def option_flags(parser: Parser) -> None:
    """Those that train.py has too, under the same names."""
    for name, default, metavar, text in (
        ("data_dir", "data/", "DIR", "where the JSONL files go [%(default)s]"),
        ("cache_dir", "cache/", "DIR", "where the token cache goes [%(default)s]"),
        ("tokenizer", "gpt2", "NAME", "gpt2, or a vocabulary file of your own [%(default)s]"),
    ):
        parser.add_argument(f"--data.{name}", dest=name, default=default, metavar=metavar, help=text)
    parser.add_argument(
        "--data.parse_special", dest="parse_special", nargs="?", const="true", default="false", choices=("true", "false"),
        help="read <|im_start|> and the like in `text` records as control tokens",
    )  # fmt: skip
    parser.add_argument(
        "--data.max_bad_lines", dest="max_bad_lines", type=int, default=100, metavar="N",
        help="unreadable lines to skip [%(default)s]",
    )  # fmt: skip


def check_arguments(args: argparse.Namespace) -> None:
    """Raises UserError for values that make no sense, alone or together."""
    name = args.name if args.name is not None else args.dataset
    if name is not None and (
        not name or name == ".." or name.startswith("-") or Path(name).name != name or not name.isprintable()
    ):
        raise UserError(f"--name '{one_line(name)}' must be a plain name, without folders.")
    for option in ("data_dir", "cache_dir"):
        check_folder(f"--data.{option}", user_path(getattr(args, option)))
    if args.max_bad_lines < 0:
        raise UserError(f"--data.max_bad_lines must be 0 or more, not {args.max_bad_lines}.")
    if args.num_workers is not None and args.num_workers < 0:
        raise UserError(f"--num_workers must be 0 or more, not {args.num_workers}.")
    if not 0 < args.val_fraction < 1:
        raise UserError(f"--val_fraction must be between 0 and 1, not {args.val_fraction:g}.")
    if args.max_documents is not None and args.max_documents < 2:
        raise UserError(
            f"--max_documents must be at least 2, not {args.max_documents}: one to train on, one to validate."
        )
    if args.verify and (given := next((n for n in vars(args) if n not in WITH_VERIFY and is_given(args, n)), None)):
        raise UserError(f"--verify only checks the token caches there are; leave out {flag_of(given)}.")
    if args.dataset and args.input:
        raise UserError("--dataset makes the set of a recipe, --input one of your own text; leave one of them out.")
    if not args.input and (
        given := next((n for n in ("normalise", "text_field", "separator") if is_given(args, n)), None)
    ):
        raise UserError(f"--{given} goes with --input, which names text of your own.")
    if not (args.dataset or args.input) and (
        given := next((f for f in ("max_documents", "val_fraction") if is_given(args, f)), None)
    ):
        raise UserError(f"--{given} goes with --dataset or --input, which make a data set.")
    if args.dataset is None and (given := next((f for f in ("source", "endpoint", "seed") if is_given(args, f)), None)):
        raise UserError(f"--{given} goes with --dataset, which names a recipe.")
    if bool(args.endpoint) != bool(args.endpoint_model):
        raise UserError("--endpoint and --endpoint_model go together: a server, and the model to ask there.")
    if args.input and not args.name:
        raise UserError("Name the data set too: python prepare.py --input FILES --name NAME (see --help).")
    if (args.train_tokenizer or args.stats) and name is None:
        raise UserError("Name the data set: --name NAME for one that is prepared, --dataset NAME for a recipe's.")
    if args.force and not (args.dataset or args.input or args.train_tokenizer):
        raise UserError("--force goes with --dataset, --input or --train_tokenizer: with what is to be made anew.")
    if is_given(args, "vocab_size") and not args.train_tokenizer:
        raise UserError("--vocab_size goes with --train_tokenizer, which makes a vocabulary.")
    if args.train_tokenizer:
        if args.tokenizer != "gpt2":
            raise UserError("--train_tokenizer makes a tokenizer, --data.tokenizer names one; leave one of them out.")
        from jojo.text.vocabulary import check_size

        check_size(args.vocab_size)  # before any work is done for it


@lru_cache(maxsize=1)
def defaults() -> argparse.Namespace:
    """The values that options have where they are not given."""
    return build_parser().parse_args([])


def is_given(args: argparse.Namespace, name: str) -> bool:
    """Whether an option has another value than its default."""
    return bool(getattr(args, name) != getattr(defaults(), name))


def flag_of(name: str) -> str:
    """How an option is written."""
    shared = ("data_dir", "cache_dir", "tokenizer", "parse_special", "max_bad_lines")  # with train.py
    return f"--data.{name}" if name in shared else f"--{name}"


# --- where documents come from ----------------------------------------------------------------------------------------


def documents_wanted(args: argparse.Namespace, files: DatasetFiles) -> tuple[Iterator[Document], dict[str, Any]]:
    """The documents that were asked for, and what identifies the request: the same one finds its result done.

    `files`: where they will be written; folders and patterns of the input do not give these.
    """
    request: dict[str, Any] = {"val_fraction": args.val_fraction, "max_documents": args.max_documents}
    if args.dataset:
        return recipe_documents(args, request)
    from jojo.text.dataset_files import SPLITS
    from jojo.text.readers import Problems, TextOptions, find_files, read_records

    options = TextOptions(args.separator, args.text_field, args.normalise)
    paths, problems = find_files(args.input, [files.split(s) for s in SPLITS]), Problems(args.max_bad_lines)
    request |= {
        "files": [file_state(path) for path in paths],
        "separator": args.separator, "text_field": args.text_field, "normalise": args.normalise,
    }  # fmt: skip

    def documents() -> Iterator[Document]:
        found = False
        for path in paths:
            for record in read_records(path, options, problems):
                yield "", record
                found = True
        lines = f"{problems.count} unreadable line{'s' if problems.count > 1 else ''} ({problems.shown})"
        if problems.count and not found:
            raise UserError(f"No documents in {', '.join(args.input)}, but {lines}; {problems.advice}.")
        if not found:
            return
        if problems.count:
            log.warning("Skipped %s.", lines)
        if problems.empty_documents:
            log.info("Left out %s empty documents.", f"{problems.empty_documents:,}")
        if problems.empty_files:
            log.warning("%d of %d files hold no document.", problems.empty_files, len(paths))

    return documents(), request


def recipe_documents(args: argparse.Namespace, request: dict[str, Any]) -> tuple[Iterator[Document], dict[str, Any]]:
    """The documents of a recipe."""
    from recipes.recipe import Wanted, find_recipe

    recipe = find_recipe(args.dataset)
    source, path = args.source or recipe.sources[0], None
    if source not in ("hub", "sample"):
        source, path = "path", user_path(source)
        if not path.exists():
            raise UserError(f"There is no file or folder '{path}' (--source).")
    if source not in recipe.sources:
        takes = " or ".join({"path": "a path"}.get(s, s) for s in recipe.sources)
        raise UserError(f"The recipe '{recipe.name}' does not take --source {args.source}; it takes {takes}.")
    if args.endpoint and not recipe.rewritable:
        raise UserError(f"The recipe '{recipe.name}' rewrites nothing; leave out --endpoint.")
    if is_given(args, "seed") and not recipe.seeded:
        raise UserError(f"The recipe '{recipe.name}' draws nothing by a seed; leave out --seed.")
    wanted = Wanted(
        source, path, user_path(args.data_dir) / "downloads", args.seed, args.endpoint, args.endpoint_model,
        args.max_documents,
    )  # fmt: skip
    inside = [path] if path and path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()) if path else []
    own = user_path(args.data_dir).resolve()  # what this command writes is not what it reads
    state = [file_state(p) for p in inside if p == path or not p.resolve().is_relative_to(own)]
    request |= {
        "recipe": recipe.name, "source": source, "files": state, "seed": args.seed,
        "endpoint_model": args.endpoint_model,
    }  # fmt: skip
    return recipe.read(wanted), request


def file_state(path: Path) -> list[Any]:
    """A file's name, size and time."""
    status = path.stat()
    return [str(path), status.st_size, status.st_mtime_ns]


# --- the verb ---------------------------------------------------------------------------------------------------------


def make_files(args: argparse.Namespace, files: DatasetFiles) -> None:
    """Write the two JSONL files, unless the same request has done so."""
    from jojo.text.dataset_files import write_dataset
    from utils import locked

    files.folder.mkdir(parents=True, exist_ok=True)
    with locked(files.lock, f"the data set '{files.name}'"):
        files.settle()
        documents, request = documents_wanted(args, files)
        made = files.made()
        if made and made.request == request and not args.force:
            log.info("The data set '%s' is there already, made from the same.", files.name)
            return
        if (there := files.there()) and not args.force:
            raise UserError(
                f"{' and '.join(there)} exist already; --force writes over them, another --name keeps them."
            )
        what = ", ".join(args.input) if args.input else f"the recipe '{args.dataset}'"
        made = write_dataset(files, documents, request, what, args.val_fraction, args.max_documents)
        if made.duplicates:
            log.info("Dropped %s exact duplicate%s.", f"{made.duplicates:,}", "s" if made.duplicates > 1 else "")


def prepare(args: argparse.Namespace, name: str) -> None:
    """Make what is missing of a data set, its tokenizer and its token caches, and print what is in it."""
    from jojo.text.cache_builder import open_cache
    from jojo.text.dataset_files import DatasetFiles
    from jojo.text.documents import Rendering
    from jojo.text.stats import statistics, warn_of_lookalikes
    from jojo.text.tokenizer import get_tokenizer

    files = DatasetFiles(user_path(args.data_dir), name)
    if args.dataset or args.input:
        make_files(args, files)
    sources = split_sources(files)
    missing = next((source for source in sources if not source.exists()), None)
    if missing and (args.train_tokenizer or args.stats):
        raise no_data_set(missing)
    if args.train_tokenizer:
        args.tokenizer = str(train_tokenizer(args, files, sources[0]))
    tokenizer = get_tokenizer(args.tokenizer)
    workers = args.num_workers if args.num_workers is not None else os.cpu_count() or 1
    caches = []
    for source in sources:
        cache = open_cache(
            source, tokenizer, user_path(args.cache_dir), Rendering(parse_special=args.parse_special == "true"),
            max_bad_lines=args.max_bad_lines, num_workers=workers,
        )  # fmt: skip
        if cache is None:
            raise no_data_set(source)
        caches.append(cache)
        log.info("%s\n%s", source.label, statistics(cache))
    warn_of_lookalikes(caches, args.parse_special == "true")
    if args.stats:
        from jojo.text.stats import describe

        describe(sources, caches, files)
    log.info("Train on it with: %s", train_command(args, name))


def split_sources(files: DatasetFiles) -> list[Source]:
    """Both splits of a prepared set, or of the built-in sample."""
    from jojo.text.dataset_files import SPLITS
    from training.dataset import file_source, story_sample

    sources = [file_source(files, split) for split in SPLITS]
    if files.name == "story" and not sources[0].exists():
        return [story_sample(split) for split in SPLITS]
    return sources


def no_data_set(source: Source) -> UserError:
    """What is said where a split is not there, nor a token cache of it."""
    return UserError(f"There is no data set '{source.name}' ({source.label}); make it with --dataset or --input.")


def train_tokenizer(args: argparse.Namespace, files: DatasetFiles, source: Source) -> Path:
    """Learn a vocabulary from a split; returns its file. One that is there is kept, unless --force says otherwise."""
    from jojo.text.documents import line_texts
    from jojo.text.vocabulary import train_vocabulary

    path = files.folder / f"{files.name}-{args.vocab_size}.tiktoken"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not args.force:
        log.info("The tokenizer '%s' is there already; --force makes it anew.", path)
        return path
    log.info("Learning a vocabulary of %s tokens from %s", f"{args.vocab_size:,}", source.label)
    vocabulary = train_vocabulary((text for line in source.lines() for text in line_texts(line)), args.vocab_size)
    replace_text(path, vocabulary.content.decode("ascii"))
    log.info("Wrote %s (%s tokens and 3 control tokens)", path, f"{len(vocabulary.tokens):,}")
    return path


def train_command(args: argparse.Namespace, name: str) -> str:
    """The command that trains on what was prepared, with the options that must be repeated."""
    words = ["python", "train.py", "--dataset", name]
    for option in ("data_dir", "cache_dir", "parse_special", "tokenizer"):
        if is_given(args, option):
            words += [f"--data.{option}", getattr(args, option)]
    return shlex.join(words)


def list_recipes(args: argparse.Namespace) -> None:
    """Print all recipes and prepared sets."""
    from jojo.text.dataset_files import DatasetFiles
    from recipes.recipe import recipes

    folder = user_path(args.data_dir)
    known = recipes()
    log.info("Recipes (python prepare.py --dataset NAME):\n")
    for name, recipe in known.items():
        made = DatasetFiles(folder, name).made()
        state = f"prepared: {sum(made.documents.values()):,} documents" if made else "not prepared"
        log.info("  %-12s %s", name, recipe.summary)
        log.info("  %-12s %s; %s; %s", "", recipe.licence, recipe.size, state)
        log.info("  %-12s %s", "", recipe.source if recipe.source.startswith("made") else f"from {recipe.source}")
    others = sorted({p.name.removesuffix("-train.jsonl") for p in folder.glob("*-train.jsonl")} - known.keys())
    if others:
        log.info("\nPrepared from text of your own: %s", ", ".join(map(one_line, others)))
    log.info("\nYour own text: python prepare.py --input FILES --name NAME (--help has all options)")


def verify(args: argparse.Namespace) -> None:
    """Read every block of the caches. Raises UserError where one is damaged, after looking at all of them."""
    from jojo.text.dataset_files import SPLITS
    from jojo.text.token_cache import FINGERPRINT, TokenCache

    name = args.name or args.dataset
    stems = [f"{glob.escape(n)}-{split}" for n in (name, f"{name}_sample") for split in SPLITS] if name else ["*"]
    folder = user_path(args.cache_dir)
    found = sorted(path for stem in stems for path in folder.glob(f"{stem}-{FINGERPRINT}.json"))
    if not found:
        raise UserError(f"No token cache{f' of {name!r}' if name else ''} in '{args.cache_dir}'.")
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
    check_arguments(args)
    name = args.name or args.dataset
    if args.verify:
        verify(args)
    elif name:
        prepare(args, name)
    else:
        list_recipes(args)
    return 0


if __name__ == "__main__":
    run_command(main)
