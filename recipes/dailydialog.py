"""The `dailydialog` data set: everyday conversations of two people (Li et al. 2017, https://arxiv.org/abs/1710.03957).

The source has one conversation a line, with __eou__ after every utterance and spaces around its punctuation
(" I ' m fine , thanks . "); `repaired` corrects them. chat.py gives the same conversations as messages.

The original zip files come from the Hub (a repository that has them unchanged) or from a path.
"""

from __future__ import annotations

import contextlib
import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import IO

from jojo.text.documents import Document
from recipes.hub import fetch_files
from recipes.recipe import Recipe, RecipeRequest
from utils import UserError

REPO = "roskoN/dailydialog"
ARCHIVES = ("train.zip", "validation.zip")  # without test.zip, which stays unseen for comparisons of models
SPLITS = {"dialogues_train.txt": "train", "dialogues_validation.txt": "val"}
WHOLE = "dialogues_text.txt"  # all conversations, without splits
OUTER_ARCHIVES = ("ijcnlp_dailydialog.zip", "I17-1099.Datasets.zip")  # the authors', the ACL Anthology's
END_OF_UTTERANCE = "__eou__"
OTHERWISE = "the built-in stories need no download: --dataset story --source sample"

Opener = Callable[[], IO[bytes]]


def documents(request: RecipeRequest) -> Iterator[Document]:
    """The conversations as plain text.

    One utterance a line, without names: two speakers take turns, so the end of a line says who is next. A label before
    each line ("A:") would cost tokens, and people do not type one.
    """
    for split, utterances in conversations(request):
        yield split, {"text": "\n".join(utterances)}


# --- reading ------------------------------------------------------------------------------------------------------------


def conversations(request: RecipeRequest) -> Iterator[tuple[str, list[str]]]:
    """Every conversation with its split: its utterances, repaired.

    Raises:
        UserError: the files are not available, or are not DailyDialog's.
    """
    if request.source == "hub":
        paths = fetch_files(REPO, ARCHIVES, request.folder, otherwise=OTHERWISE)
    else:
        assert request.path is not None
        paths = [request.path]
    with contextlib.ExitStack() as stack:
        found: dict[str, Opener] = {}
        for path in paths:
            found |= _texts_at(path, stack)
        names = [name for name in SPLITS if name in found] or list(found)[:1]
        if not names:
            looked_for = ", ".join((*SPLITS, WHOLE, *ARCHIVES, OUTER_ARCHIVES[0]))
            raise UserError(f"'{paths[0]}' holds none of DailyDialog's files ({looked_for}); check --source.")
        splits = SPLITS if len(names) > 1 else {}  # a single text has no splits of its own: prepare.py divides it
        for name in names:
            yield from ((splits.get(name, ""), utterances) for utterances in _read(name, found[name]))


def _texts_at(path: Path, stack: contextlib.ExitStack) -> dict[str, Opener]:
    """The texts at a path (a text, a zip file, or a folder of both) by name."""
    if path.is_dir():
        found: dict[str, Opener] = {}
        for inside in sorted(path.rglob("*")):
            if inside.name in (*SPLITS, WHOLE, *ARCHIVES, *OUTER_ARCHIVES) and inside.is_file():
                found |= _texts_at(inside, stack)
        return found
    if not path.is_file():
        raise UserError(f"There is no file or folder '{path}'; check --source.")
    if zipfile.is_zipfile(path):
        with _unpacking(path.name):
            archive = stack.enter_context(zipfile.ZipFile(path))
        if min((info.header_offset for info in archive.infolist()), default=0):  # only an inner zip is left
            raise UserError(f"'{path}' is not a whole zip file; download it again.")
        return _texts_in(archive, stack)
    if path.suffix.lower() == ".zip":
        raise UserError(f"'{path}' is not a whole zip file; download it again.")
    return {path.name: lambda: open(path, "rb")}


def _texts_in(archive: zipfile.ZipFile, stack: contextlib.ExitStack) -> dict[str, Opener]:
    """The texts in a zip file; the original one holds a zip file for each split."""
    found: dict[str, Opener] = {}
    for info in archive.infolist():
        name = Path(info.filename).name
        if name in (*SPLITS, WHOLE):
            found[name] = partial(archive.open, info)
        elif name in ARCHIVES:
            with _unpacking(name):
                inner = stack.enter_context(zipfile.ZipFile(io.BytesIO(archive.read(info))))
            found |= _texts_in(inner, stack)
    return found


@contextlib.contextmanager
def _unpacking(name: str) -> Iterator[None]:
    """Turns the errors of a damaged zip file into a UserError that names the damaged file."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"'{name}' cannot be unpacked ({error}); download its zip file again.") from None


def _read(name: str, opener: Opener) -> Iterator[list[str]]:
    """The conversations of one text."""
    with _unpacking(name), opener() as file:
        for number, line in enumerate(file, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError:
                raise UserError(f"'{name}', line {number:,}, is not UTF-8 text; download it again.") from None
            if text and END_OF_UTTERANCE not in text:
                raise UserError(
                    f"'{name}', line {number:,}, has no {END_OF_UTTERANCE}, so it is not DailyDialog's text."
                )
            utterances = [repaired(part) for part in text.split(END_OF_UTTERANCE)]
            if said := [utterance for utterance in utterances if utterance]:
                yield said


# --- punctuation --------------------------------------------------------------------------------------------------------

FULL_WIDTH = str.maketrans(
    {"。": ". ", "，": ", ", "、": ", ", "；": "; ", "：": ": ", "？": "? ", "！": "! ", "（": " (", "）": ") "}
)
ABBREVIATIONS = ("a.m", "p.m", "A.M", "P.M", "e.g", "i.e", "a.k.a", "U.S", "Ph.D")  # a last period may follow
INITIALS = (  # a last period must follow
    "U.S.A", "U.K", "U.N", "D.C", "L.A", "N.Y", "J.F.K", "P.S", "P.O", "I.D", "V.I.P", "R.S.V.P", "M.B.A", "N.B.A", "T.V",
)  # fmt: skip
ONES = "one|two|three|four|five|six|seven|eight|nine"
TENS = "twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
UNITS = "minute|hour|day|night|week|month|year|story|star|page|piece|percent|inch|foot|mile|pound"


def _spaced(abbreviations: Iterable[str], end: str) -> str:
    """A pattern of abbreviations that may have spaces around their periods."""
    ways = "|".join(name.replace(".", r" ?\. ?") for name in abbreviations)
    return rf"\b(?=\w\w? ?\.)(?:{ways}){end}"  # the look-ahead only makes it faster


# Single words and numbers that the source has in several parts: all spaces in a match are removed.
SOLID = re.compile(
    "|".join(
        [
            r"(?<=\w) ?['’] ?(?:s|m|d|re|ve|ll)(?!\w|['’](?!\w))",  # it ' s, but not the letter 's'
            r"(?<=n) ?['’] ?t(?!\w)|(?<=\w) n ?['’] ?t\b",  # don ' t, do n't
            r"\b(?i:gon na|wan na|got ta)\b",
            r"(?<=[A-Z]{2}) ?['’] ?(?:S|D|RE|VE|LL|T)(?!\w)",  # IT ' S
            r"\b(?i:o ?['’] ?clock|ma ?['’] ?am|y ?['’] ?all|c ?['’] ?mon)\b",
            r"\bO ?['’] (?=[A-Z][a-z])",  # O ' Brien
            r"\b\d{1,2} : \d\d\b|(?<=\d) ['’] (?=\d)",  # 3 : 30; 5 ' 10
            r"(?<=\d) , 000\b",  # 5 , 000; next line: 5 , 500 people, if the two cannot be separate numbers
            r"(?<!, )(?<!room )(?<!page )(?<!number )\b[1-9]\d{0,2} , \d{3}(?= [a-z])",
            r"\b\d+ \. \d+(?= ?%| (?:percent|[mb]illion)\b)",
            r"[$£€¥] ?\d+ (?:\. \d\d|, \d{3})\b",  # $ 3 . 50; $ 1 , 500
            rf"\b(?i:\d+|ten|{ONES}) - (?:{UNITS})\b",  # 15 - minute
            rf"\b(?i:{TENS}) - (?:{ONES})\b|\b[eE] - mails?\b|\b[cC]o - (?=workers?\b)",
            r"(?<=\d) / (?=\d)",  # 24 / 7
            r"(?<!\S)-(?: -)+(?!\S)",  # - -
            r"(?:\bwww \. )?\b\w+ \. (?:com|org)\b|\bhttps? ?: ?/ ?/ (?=\w)|(?<=\w) @ (?=\w+ ?\. ?(?:com|org)\b)",
            _spaced(INITIALS, r" ?\."),
            _spaced(ABBREVIATIONS, r"\b(?: ?\.)?"),
        ]
    )
)
SHOUTED = re.compile(r"(?<=\w)( ?['’] ?)(Ve|Re|Ll)(?!\w)")  # the source's I ’ Ve
BEFORE = re.compile(  # a space before these is removed
    r"(?<=[^\s,;:]) (?=[,;?!](?!\w)|\.+(?![\w.])|:(?!\w|-?[()])|[…)\]}])|(?<=\d) (?=[%°])"
)
TO_MOVE = re.compile(r" ([,;?!]|\.\.+|\.(?=[A-Z](?:[a-z]|\W)))(?=\w)")  # a space before these moves behind them
AFTER = re.compile(r"(?<=[(\[{]) |(?<=[$£€¥#]) (?=\d)")  # a space after these is removed
MISSING = re.compile(  # a space after these is added: between two sentences, or after a comma
    r"(?<=[a-z'’][a-z])[.?!](?=[A-Z][a-z]*\.?(?:[^\w.@/]|$))|\b(?:Mr|Ms|Dr)\.(?=[A-Z])|(?<=[A-Za-z]),(?=[A-Za-z])"
)
APOSTROPHES = ("'", "’", "‘")
SHORTENED = re.compile(r"(?:em|til|tis|twas|\d0s)\b")  # words that begin with an apostrophe: tell ' em
MAYBE_SHORTENED = re.compile(r"(?:cause|cuz|bout|round|\d\d)\b")  # the same, but only if no quote can begin here
NO_OWNERS = {"as", "is", "was", "has", "does", "says", "means", "calls", "reads", "spells", "this", "yes", "us", "its"}


def repaired(utterance: str) -> str:
    """The utterance with its spaces corrected; a correct utterance stays as it is.

    Words stay as they are: only spaces beside punctuation change, and those inside of words such as do n't, gon na.
    """
    text = " ".join(utterance.translate(FULL_WIDTH).split())
    text = re.sub("``|''", '"', text) if "``" in text else text
    for _ in range(10):  # until nothing changes: one repair can allow another
        before = text
        text = SOLID.sub(lambda match: match[0].replace(" ", ""), text)
        text = SHOUTED.sub(lambda match: match[1].strip() + match[2].lower(), text)
        text = _single_quotes(text.split(" "))
        text = _double_quotes(text)
        text = TO_MOVE.sub(r"\1 ", AFTER.sub("", BEFORE.sub("", text)))
        text = MISSING.sub(lambda match: match[0] + " ", text)
        if text == before:
            break
    return text


def _single_quotes(words: list[str]) -> str:
    """Attach each mark that stands alone: to the word it shortens, to its owner (months ' pay), or to its quote."""
    alone = [i for i, word in enumerate(words) if word in APOSTROPHES]
    joined = set()  # i: no space between words i and i + 1
    opened = None
    for more_follow, i in zip(reversed(range(len(alone))), alone, strict=True):
        before, after = words[i - 1] if i else "", words[i + 1] if i + 1 < len(words) else ""
        if SHORTENED.match(after) or (MAYBE_SHORTENED.match(after) and opened is None and not more_follow):
            joined.add(i)
        elif opened is not None:
            if i > opened + 1:
                joined |= {opened, i - 1}
            opened = None
        elif (before[-1:] in ("s", "S") and before not in NO_OWNERS and (after[:1].isalpha() or not more_follow)) or (
            not more_follow and len(before) > 3 and before.endswith("in")  # goin ' home
        ):
            joined.add(i - 1)
        elif more_follow:
            opened = i
    return "".join(word + ("" if i in joined else " ") for i, word in enumerate(words)).rstrip(" ")


def _double_quotes(text: str) -> str:
    """Remove the spaces inside of quotes, if all marks come in pairs."""
    if "”" in text and re.fullmatch(r"([^“”\"]*“[^“”\"]*”)*[^“”\"]*", text):
        parts = re.split("[“”]", text)
    elif "“" not in text and "”" not in text and text.count('"') % 2 == 0:
        parts = text.split('"')
    else:
        return text
    marks = re.findall('[“”"]', text)
    for i in range(1, len(parts), 2):  # the quotes
        quoted = parts[i]
        if quoted.strip() and (not parts[i - 1] or parts[i - 1][-1] in " ([{"):
            quoted = quoted.lstrip(" ")
        if quoted.strip() and not re.match(r"\w", parts[i + 1]):
            quoted = quoted.rstrip(" ")
        parts[i] = quoted
    return "".join(part + mark for part, mark in zip(parts, [*marks, ""], strict=True))


RECIPE = Recipe(
    name="dailydialog",
    summary="everyday conversations as plain text, one utterance a line (DailyDialog)",
    licence="CC-BY-NC-SA-4.0",
    source=f"https://huggingface.co/datasets/{REPO}",
    size="6 MB",
    sources=("hub", "path"),
    documents=documents,
)
