"""Make a data set: recipe or files -> data/<name>-{train,val}.jsonl -> token cache.

    python prepare.py                                              list the recipes, and what is prepared
    python prepare.py --dataset dailydialog                        prepare a recipe
    python prepare.py --input book.txt stories/ --name mine        prepare your own text
    python prepare.py --name mine --train_tokenizer --vocab_size 8192
    python train.py --config configs/own-text.json

--input takes .txt, .md, .jsonl, .csv and .parquet files (all but .parquet also as .gz or .zst), folders and patterns.
A line of a .jsonl file is one document: {"text": "..."}, a conversation {"messages": [{"role": "user", "content": "..."},
...]}, or {"input": "...", "output": "..."}. A .txt file is one document, or several with a line <|endoftext|> between
them. A long text is cut at empty lines, into pieces of about 32,000 characters.

A hash of each document decides its split, so adding more text moves none of the old. Exact duplicates are dropped.
To continue an interrupted run, give the same command again. docs/data.md has the rest.
"""

from __future__ import annotations

import argparse
import glob
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jojo.command import Parser, explain_os_error, run_command
from utils import UserError, __version__, check_folder, log, one_line, plural, replace_text, user_path

if TYPE_CHECKING:
    from jojo.text.cache_builder import Source
    from jojo.text.dataset_files import DatasetFiles
    from jojo.text.documents import Document

SEPARATOR = "<|endoftext|>"
SHARED = ("data_dir", "cache_dir", "tokenizer", "parse_special", "max_bad_lines")  # --data.NAME, as in train.py
WITH_VERIFY = ("verify", "dataset", "name", "data_dir", "cache_dir", "num_workers", "no_color", "debug")
NEEDS = (  # each of the first options needs one of the second
    (("normalise", "text_field", "separator", "skip_unreadable"), ("input",)),
    (("source", "endpoint", "seed"), ("dataset",)),
    (("max_documents", "val_fraction"), ("dataset", "input")),
    (("force",), ("dataset", "input", "train_tokenizer")),
    (("vocab_size",), ("train_tokenizer",)),
    (("train_tokenizer", "stats"), ("name", "dataset")),
)


def build_parser() -> Parser:
    """Flags of prepare.py."""
    parser = Parser(prog="prepare.py", description=__doc__)
    add = parser.add_argument

    def shared(name: str, **options: Any) -> None:
        add(f"--data.{name}", dest=name, **options)

    add("--dataset", metavar="NAME", help="prepare the data set of a recipe")
    add("--source", metavar="hub|sample|PATH", help="with --dataset: where its files are; PATH = files you downloaded")
    add("--max_documents", type=int, metavar="N", help="stop after N documents")
    add("--endpoint", metavar="URL", help="with --dataset: an OpenAI-compatible server that rewrites the documents")
    add("--endpoint_model", metavar="NAME", help="the server's model; OPENAI_API_KEY holds the key")
    add("--seed", type=int, default=0, metavar="N", help="with --dataset: for recipes that generate text [%(default)s]")
    add("--input", nargs="+", metavar="PATH", help="files, folders and patterns of your own text")
    add("--name", metavar="NAME", help="name of the data set, for train.py --dataset NAME [the recipe's name]")
    add("--text_field", metavar="NAME", help="field or column that holds the text [text, or a conversation]")
    add("--separator", default=SEPARATOR, metavar="TEXT", help="line that ends a document in .txt files [%(default)s]")
    add("--skip_unreadable", action="store_true", help="leave out the files that cannot be read")
    add("--normalise", action="store_true", help="tidy Unicode, quotes and white space (see docs/data.md)")
    add("--val_fraction", type=float, default=0.05, metavar="X", help="share of validation documents [%(default)s]")
    add("--train_tokenizer", action="store_true", help="train a tokenizer on the training split")
    add("--vocab_size", type=int, default=8192, metavar="N", help="with --train_tokenizer: its size [%(default)s]")
    add("--stats", action="store_true", help="print statistics of a prepared data set, and plot document lengths")
    shared("data_dir", default="data/", metavar="DIR", help="folder of the data sets [%(default)s]")
    shared("cache_dir", default="cache/", metavar="DIR", help="folder of the token caches [%(default)s]")
    shared("tokenizer", metavar="NAME", help="gpt2, story, chat, or a vocabulary file [the recipe's, or gpt2]")
    special = "read <|im_start|> and the like in `text` records as control tokens"
    shared("parse_special", nargs="?", const="true", default="false", choices=("true", "false"), help=special)
    shared("max_bad_lines", type=int, default=100, metavar="N", help="unreadable lines to skip [%(default)s]")
    add("--num_workers", type=int, metavar="N", help="threads that tokenize [one per core]")
    add("--force", action="store_true", help="replace an existing data set or tokenizer")
    add("--verify", action="store_true", help="check every block of the token caches (of --name, or all) and exit")
    add("--no_color", "--no-color", action="store_true", help="no colours, even on a terminal")
    add("--debug", action="store_true", help="more detail, and tracebacks with errors")
    add("--version", action="version", version=f"Jojo {__version__}")
    return parser


def check_arguments(args: argparse.Namespace) -> None:
    """Raises UserError for values that make no sense, alone or together."""
    check_values(args)
    if args.verify and (other := next((name for name in args.given if name not in WITH_VERIFY), None)):
        raise UserError(f"--verify only checks existing token caches; leave out {flag_of(other)}.")
    if args.dataset and args.input:
        raise UserError("--dataset prepares a recipe, --input your own text; leave one of them out.")
    for options, needed in NEEDS:
        option = next((option for option in options if option in args.given), None)
        if option and not set(needed) & set(args.given):
            flags = " or ".join(f"--{name}" for name in needed)
            raise UserError(f"--{option} needs {flags}; add it, or leave out --{option}.")
    if bool(args.endpoint) != bool(args.endpoint_model):
        raise UserError("--endpoint and --endpoint_model go together: a server and the name of its model; give both.")
    if args.input and not args.name:
        raise UserError("The data set needs a name: python prepare.py --input FILES --name NAME (see --help).")
    if args.train_tokenizer and args.tokenizer:
        raise UserError("--train_tokenizer makes a tokenizer, --data.tokenizer names one; leave one of them out.")


def check_values(args: argparse.Namespace) -> None:
    """Raises UserError for a value that no command accepts."""
    from jojo.text.vocabulary import LARGEST, SMALLEST

    name = args.name if args.name is not None else args.dataset
    if name is not None and (name == ".." or name[0] == "-" or Path(name).name != name or not name.isprintable()):
        raise UserError(f"--name '{one_line(name)}' must be a plain name, without folders.")
    for option in ("data_dir", "cache_dir"):
        check_folder(f"--data.{option}", user_path(getattr(args, option)))
    for option, least in (("max_bad_lines", 0), ("num_workers", 0), ("max_documents", 2)):
        value = getattr(args, option)
        if value is not None and value < least:
            raise UserError(f"{flag_of(option)} must be at least {least}, not {value}.")
    if not 0 < args.val_fraction < 1:
        raise UserError(f"--val_fraction must be between 0 and 1, not {args.val_fraction:g}.")
    if not SMALLEST <= args.vocab_size <= LARGEST:
        raise UserError(f"--vocab_size must be between {SMALLEST} and {LARGEST:,}, not {args.vocab_size:,}.")
    if "\n" in args.separator:
        raise UserError("--separator must be one line; a document ends where a line is equal to it.")


def flag_of(name: str) -> str:
    """The flag of an option: --NAME, or --data.NAME if train.py has it too."""
    return f"--data.{name}" if name in SHARED else f"--{name}"


def requested_documents(args: argparse.Namespace, files: DatasetFiles) -> tuple[Iterator[Document], dict[str, Any]]:
    """The documents of --dataset or --input, and a description of the request, to see if the same one was done before."""
    request: dict[str, Any] = {"val_fraction": args.val_fraction, "max_documents": args.max_documents}
    if args.dataset:
        return recipe_documents(args, request)
    from jojo.text.readers import Problems, TextOptions, find_files, read_records

    options = TextOptions(args.separator, args.text_field, args.normalise)
    paths = find_files(args.input, leave_out=files.splits.values())  # if a folder or pattern contains them
    problems = Problems(args.max_bad_lines)
    request |= {"files": [file_state(path) for path in paths], **asdict(options)}
    request["text_field"] = args.text_field or "text"
    if args.text_field == "text":
        request["only_text"] = True

    def documents() -> Iterator[Document]:
        found, n_unreadable = False, 0
        for path in paths:
            before = asdict(problems)
            try:
                for record in read_records(path, options, problems):
                    yield "", record  # "": a hash of the document decides its split
                    found = True
            except (UserError, OSError) as error:
                if len(paths) == 1:
                    raise
                log.warning("%s", explain_os_error(error) if isinstance(error, OSError) else error)
                vars(problems).update(before)
                n_unreadable += 1
        if n_unreadable and not args.skip_unreadable:
            advice = "correct them, or leave them out with --skip_unreadable"
            raise UserError(f"{n_unreadable} of {len(paths)} files cannot be read (see above); {advice}.")
        if args.text_field and found and not problems.found_field:
            raise UserError(f"No record has a field '{args.text_field}'; correct --text_field, or leave it out.")
        bad_lines = f"{plural(problems.count, 'unreadable line')} ({problems.shown})"
        if problems.count and not found:
            raise UserError(f"No documents in {', '.join(args.input)}, but {bad_lines}; {problems.advice}.")
        if problems.count:
            log.warning("Skipped %s.", bad_lines)
        if problems.empty_documents and found:
            log.info("Skipped %s.", plural(problems.empty_documents, "empty document"))

    return documents(), request


def recipe_documents(args: argparse.Namespace, request: dict[str, Any]) -> tuple[Iterator[Document], dict[str, Any]]:
    """The documents of a recipe, and a description of the request."""
    from recipes.recipe import RecipeRequest, find_recipe

    recipe = find_recipe(args.dataset)
    source, path, inside = args.source or recipe.sources[0], None, list[Path]()
    if source not in ("hub", "sample"):
        source, path = "path", user_path(source)
        if not path.exists():
            raise UserError(f"There is no file or folder '{path}'; check --source.")
        inside = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    if source not in recipe.sources:
        takes = " or ".join(recipe.sources)
        raise UserError(f"The recipe '{recipe.name}' does not take --source {args.source}; it takes {takes}.")
    if args.endpoint and not recipe.rewritable:
        raise UserError(f"The recipe '{recipe.name}' does not rewrite its documents; leave out --endpoint.")
    if "seed" in args.given and not recipe.seeded:
        raise UserError(f"The recipe '{recipe.name}' does not use a seed; leave out --seed.")
    data_dir = user_path(args.data_dir)
    own = data_dir.resolve()  # this command writes there, so files in it do not identify the request
    states = [file_state(p) for p in inside if p == path or not p.resolve().is_relative_to(own)]
    model, seed, downloads = args.endpoint_model, args.seed, data_dir / "downloads"
    request |= {"recipe": recipe.name, "source": source, "seed": seed, "endpoint_model": model, "files": states}
    return recipe.read(RecipeRequest(source, path, downloads, seed, args.endpoint, model, args.max_documents)), request


def file_state(path: Path) -> list[Any]:
    """A file's name, size and modification time."""
    status = path.stat()
    return [str(path), status.st_size, status.st_mtime_ns]


def make_files(args: argparse.Namespace, files: DatasetFiles) -> None:
    """Write the two JSONL files, unless the same request has written them."""
    from jojo.text.dataset_files import write_dataset

    with files.locked():
        files.settle()
        documents, request = requested_documents(args, files)
        provenance = files.provenance()
        if provenance and provenance.request == request and not args.force:
            log.info("The data set '%s' exists already, made from the same sources.", files.name)
            return
        existing = " and ".join(str(path) for path in files.splits.values() if path.exists())
        if existing and not args.force:
            raise UserError(f"{existing} exist already; add --force to replace, or choose another --name.")
        source = ", ".join(args.input) if args.input else f"the recipe '{args.dataset}'"
        provenance = write_dataset(files, documents, request, source)
        if provenance.duplicates:
            log.info("Dropped %s.", plural(provenance.duplicates, "exact duplicate"))
        if (total := sum(provenance.documents.values())) < (args.max_documents or 0):
            log.warning("There are only %s, fewer than --max_documents asks for.", plural(total, "document"))


def prepare(args: argparse.Namespace, name: str) -> None:
    """Make those of data set, tokenizer and token caches that do not exist yet, and print statistics."""
    from config import Config, DataConfig, SystemConfig
    from jojo.text.chat_targets import roles_in
    from jojo.text.dataset_files import SPLITS, DatasetFiles
    from jojo.text.stats import describe, statistics
    from jojo.text.tokenizer import get_tokenizer
    from recipes.recipe import find_recipe
    from training.dataset import file_source, missing_split, open_dataset, story_sample
    from utils import usable_cores

    files = DatasetFiles(user_path(args.data_dir), name)
    if args.dataset or args.input:
        make_files(args, files)
    sources = [file_source(files, split) for split in SPLITS]
    if name == "story" and not sources[0].exists():
        sources = [story_sample(split) for split in SPLITS]
    for source in sources if args.train_tokenizer or args.stats else ():  # which read the text itself
        if not source.exists():
            raise missing_split(files, source.split)
    args.tokenizer = args.tokenizer or (find_recipe(args.dataset).tokenizer if args.dataset else "gpt2")
    if args.train_tokenizer:
        args.tokenizer = str(train_tokenizer(args, files, sources[0]))
        args.given.append("tokenizer")
    tokenizer = get_tokenizer(args.tokenizer)
    special, workers = args.parse_special == "true", usable_cores() if args.num_workers is None else args.num_workers
    data = DataConfig(name, args.data_dir, parse_special=special, max_bad_lines=args.max_bad_lines)
    config = Config(data=data, system=SystemConfig(num_workers=workers))
    caches = open_dataset(config, tokenizer, user_path(args.cache_dir))
    for cache in caches:
        log.info("%s\n%s", cache.manifest.source["label"], statistics(cache))
    if args.stats:
        describe(sources, caches, files)
    if (roles := roles_in(caches[0], tokenizer)) and "assistant" not in roles:
        log.warning("No turn has the role assistant, which --chat needs; roles: %s.", one_line(", ".join(roles)))
    log.info("Train on it: %s", train_command(args, name, "assistant" in roles))


def train_tokenizer(args: argparse.Namespace, files: DatasetFiles, source: Source) -> Path:
    """Train a tokenizer on a split; returns its file. An existing one is kept, unless --force is given."""
    from jojo.text.documents import line_texts
    from jojo.text.vocabulary import train_vocabulary

    path = files.folder / f"{files.name}-{args.vocab_size}.tiktoken"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not args.force:
        log.info("The tokenizer '%s' exists already; add --force to train it again.", path)
        return path
    log.info("Training a tokenizer of %s tokens on %s", f"{args.vocab_size:,}", source.label)
    vocabulary = train_vocabulary((text for line in source.lines() for text in line_texts(line)), args.vocab_size)
    replace_text(path, vocabulary.content.decode("ascii"))
    size = len(vocabulary.tokens) + 3
    log.info("Wrote %s (%s tokens, 3 of them control tokens)", path, f"{size:,}")
    if size < args.vocab_size:
        log.info("The name says %s, but this text has no more tokens that occur twice.", args.vocab_size)
    return path


def train_command(args: argparse.Namespace, name: str, chat: bool) -> str:
    """The command that trains on the data set, with the options that it needs; the configs suit every computer."""
    if chat:
        config, dataset, tokenizer = "chat-small", "chitchat", "chat"
    elif name == "story":
        config, dataset, tokenizer = "story-small", "story", "story"
    else:
        config, dataset, tokenizer = "own-text", "mine", "data/mine-8192.tiktoken"
    words = ["python", "train.py", "--config", f"configs/{config}.json", *["--dataset", name] * (name != dataset)]
    for option in ("data_dir", "cache_dir", "parse_special", "tokenizer"):
        if option in args.given if option != "tokenizer" else args.tokenizer != tokenizer:
            words += [f"--data.{option}", getattr(args, option)]
    return shlex.join(words)


def list_recipes(args: argparse.Namespace) -> None:
    """Print all recipes, and the data sets that exist."""
    from jojo.text.dataset_files import DatasetFiles
    from recipes.recipe import recipes

    folder = user_path(args.data_dir)
    known = recipes()
    log.info("Recipes (python prepare.py --dataset NAME):\n")
    for name, recipe in known.items():
        provenance = DatasetFiles(folder, name).provenance()
        missing = "a sample is built in" if name == "story" else "not prepared"
        state = f"prepared: {sum(provenance.documents.values()):,} documents" if provenance else missing
        log.info("  %-12s %s", name, recipe.summary)
        log.info("  %-12s %s; %s; %s", "", recipe.licence, recipe.size, state)
        log.info("  %-12s %s", "", recipe.source if recipe.source.startswith("made") else f"from {recipe.source}")
    others = sorted({p.name.removesuffix("-train.jsonl") for p in folder.glob("*-train.jsonl")} - known.keys())
    if others:
        log.info("\nPrepared from your own text: %s", ", ".join(map(one_line, others)))
    log.info("\nYour own text: python prepare.py --input FILES --name NAME (--help has all options)")


def verify(args: argparse.Namespace) -> None:
    """Read every block of the token caches. Reads them all, then raises UserError if any is damaged."""
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
        raise UserError(f"{damaged} of {len(found)} token caches are damaged; training makes them again from the data.")


def main(arguments: Sequence[str]) -> int:
    """Run prepare.py with these arguments; returns the exit code."""
    parser = build_parser()
    args = parser.parse_args(arguments)
    args.given = [name for name, value in vars(args).items() if value != parser.get_default(name)]
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
    run_command(main, if_full="close other programs, or use fewer --num_workers")
