"""Text files of any common form to records: one dict per document, of a form documents.py knows.

    .txt .md    UTF-8; a line <|endoftext|> ends a document, long ones are cut into pieces at empty lines
    .jsonl      one record a line, or the text in its field --text_field
    .csv        with a header line; the text is in the column --text_field
    .parquet    one record a row, or the text in its column --text_field (needs pyarrow)

All but .parquet may have .gz or .zst behind. Everything is read in chunks, so memory does not grow with the file.
What is wrong with one line is counted in Problems; what spoils a whole file is a UserError that names it.
"""

from __future__ import annotations

import codecs
import csv
import functools
import glob
import gzip
import importlib
import io
import itertools
import os
import re
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from jojo.text.documents import UnknownForm, error_in_words, plain_text, read_line, record_messages
from utils import UserError, one_line, user_path

SEPARATOR = "<|endoftext|>"
TEXT_FIELD = "text"
FORMATS = (".txt", ".jsonl", ".md", ".csv", ".parquet")
PACKED = "all but the last also with .gz or .zst behind"
PIECE_CHARACTERS = 32_000  # a longer text is cut near this length: far longer than any context
CHUNK_BYTES = 1 << 18
PACKED_BYTES = 1 << 8  # given to zstd at once: zeros grow 30,000-fold, so this is what bounds its output
LONGEST_LINE = 64 << 20  # bytes of .jsonl and .csv; characters of a field
BATCH_ROWS = 64  # of .parquet: few, because each may be a book
MARKS = {  # UTF-32's first: its little-endian one begins as UTF-16's does
    "utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
    "utf-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}
CONVERT = "convert it, for example with iconv -f latin1 -t utf-8"
MEND = "mend them"


@dataclass(frozen=True)
class TextOptions:
    """How files become records."""

    separator: str = SEPARATOR  # the line that ends a document in .txt and .md files
    text_field: str = TEXT_FIELD  # the field or column that holds the text
    normalise: bool = False  # apply normalise() to every text

    def __post_init__(self) -> None:
        if "\n" in self.separator:
            raise UserError("--separator must be one line; it is what a line holds that ends a document.")


@dataclass
class Problems:
    """What was passed over: unreadable lines up to a limit, empty documents, and files in which there was nothing."""

    limit: int = 100
    count: int = 0
    examples: list[str] = field(default_factory=list)  # the first three, with file and line
    advice: str = ""  # what to do about the first one
    empty_documents: int = 0
    empty_files: int = 0

    def add(self, place: str, error: Exception) -> None:
        """Count an unreadable line. Raises UserError for the first one beyond the limit."""
        self.count += 1
        reason = f": {error_in_words(error)}"
        if isinstance(error, UnknownForm) and any(example.endswith(reason) for example in self.examples):
            reason = ""  # a long one: once will do
        self.examples = [*self.examples, place + reason][:3]
        self.advice = self.advice or _advice(error)
        if self.count > self.limit:
            how = f"{MEND}, or raise --data.max_bad_lines" if self.advice == MEND else self.advice
            raise UserError(f"More than {self.limit} unreadable lines ({self.shown}); {how}.") from None

    @property
    def shown(self) -> str:
        """The examples, for messages."""
        return "; ".join([*self.examples, *["..."] * (self.count > len(self.examples))])


def _advice(error: Exception) -> str:
    """What to do about an unreadable line."""
    if isinstance(error, UnknownForm):
        return "name the field with the text with --text_field"
    return CONVERT if isinstance(error, UnicodeDecodeError) else MEND


def find_files(inputs: Sequence[str], leave_out: Sequence[Path] = ()) -> list[Path]:
    """The files that --input names, each once, in a fixed order.

    Args:
        inputs: files, folders (searched to the bottom) and patterns like `stories/*.txt` and `books/**/*.md`. Folders
            and patterns give those of their files that can be read and whose name, and whose folders' names, do not
            begin with a dot. What exists is never taken for a pattern.
        leave_out: files that folders and patterns do not give.

    Raises:
        UserError: nothing there, nothing readable in it, not a regular file, or of a format that is not known; or a
            folder in it that may not be read.
    """
    files: dict[Path, Path] = {}
    left_out = {path.resolve() for path in leave_out}
    for name in inputs:
        if not name:
            raise UserError("One --input is empty (a shell variable that is not set?); name files or folders.")
        path = user_path(name)
        is_pattern = not path.exists() and any(sign in name for sign in "*?[")
        if is_pattern or path.is_dir():
            found = _matches(path) if is_pattern else _below(path)
            inside = sorted(p for p in found if p.is_file() and _format(p) and p.resolve() not in left_out)
            if not inside:
                what = f"pattern '{path}' matches" if is_pattern else f"folder '{path}' holds"
                raise UserError(f"The {what} no file that can be read ({', '.join(FORMATS)}; {PACKED}).")
        elif not path.exists():
            raise UserError(f"No file or folder '{path}'; check --input.")
        elif not path.is_file():
            raise UserError(f"'{path}' is not a regular file; write what it gives into one first.")
        elif not _format(path):
            known = f"{' nor '.join(FORMATS)} ({PACKED})"
            raise UserError(f"'{path}' is neither {known}; convert it, or rename it if it is one of them.")
        else:
            inside = [path]
        for path in inside:
            files.setdefault(path.resolve(), path)  # the same file by another name is the same file
    return list(files.values())


def _below(folder: Path) -> Iterator[Path]:
    """All files of a folder and of the folders in it, but for hidden ones."""

    def refuse(error: OSError) -> None:
        reason = f"({error.strerror}); check its permissions"
        raise UserError(f"The folder '{error.filename}' cannot be read {reason}.") from None

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place, name) for name in names if not name.startswith("."))


def _matches(pattern: Path) -> Iterator[Path]:
    """What a pattern matches. Raises UserError where `**` meets a folder that may not be read: glob passes over it."""
    base = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), pattern.parts))
    for _ in _below(base) if "**" in pattern.parts and base.is_dir() else ():
        pass
    return map(Path, glob.glob(str(pattern), recursive=True))


def _format(path: Path) -> str | None:
    """The format that a file's name tells, without its packing; None where it is not known."""
    packed = path.suffix.lower() in (".gz", ".zst")
    name = (Path(path.stem) if packed else path).suffix.lower()
    return name if name in (FORMATS[:-1] if packed else FORMATS) else None


# --- records ----------------------------------------------------------------------------------------------------------


def read_records(path: Path, options: TextOptions, problems: Problems) -> Iterator[dict[str, Any]]:
    r"""The documents of one file as records that documents.record_messages accepts, none of them empty.

    A text that is null, or white space only, is an empty document. NUL characters that JSON (\u0000) or Parquet hold are
    kept: somebody meant them, and every byte has its token. A NUL byte in any other file is the sign of another format.

    Args:
        path: a file that find_files gave.
        options: how it is read.
        problems: unreadable lines are added to it, and the file itself where there is nothing in it.

    Raises:
        UserError: the file cannot be read to its end, or too many lines were unreadable.
    """
    before, n_records = problems.count, 0
    for record in _records(path, options, problems) if path.stat().st_size else ():
        n_records += 1
        yield record
    problems.empty_files += not n_records and problems.count == before


def _records(path: Path, options: TextOptions, problems: Problems) -> Iterator[dict[str, Any]]:
    kind = _format(path)
    if kind in (".txt", ".md"):
        texts = split_text(_text(path), options.separator)
        if options.normalise:
            texts = (normalise(text).strip() for text in texts)
        yield from ({"text": text} for text in texts if text)
        return
    assert kind, "find_files gives files of a known format only"
    values = {".jsonl": _json_lines, ".csv": _csv_rows, ".parquet": _parquet_rows}[kind](path, options)
    for place, value in values:
        try:
            record = _record(value, options)
            if record_messages(record) or plain_text(record):
                yield record
            else:
                problems.empty_documents += 1
        except (ValueError, RecursionError) as error:
            problems.add(f"{path}, {place}", error)


def _record(value: object, options: TextOptions) -> dict[str, Any]:
    """What a line or row gave as a record; an exception stands for one that could not be read, and is raised."""
    name = options.text_field
    if isinstance(value, Exception):
        raise value
    if not isinstance(value, dict):
        raise ValueError("must be a JSON object")
    if name != TEXT_FIELD:
        if name not in value:
            raise UnknownForm(_lacks("field", name, value))
        if not isinstance(value[name], str | None):
            raise ValueError(f"the field '{name}' must be a string")
        value = {"text": value[name]}
    return _normalised(value) if options.normalise else value


def _lacks(kind: str, name: str, names: Iterable[str]) -> str:
    return f"has no {kind} '{name}' (it has: {one_line(', '.join(names), 200)})"


def _json_lines(path: Path, options: TextOptions) -> Iterator[tuple[str, object]]:
    for number, line in enumerate(_lines(_chunks(path)), 1):
        try:
            if line is None:
                raise ValueError(f"longer than {LONGEST_LINE >> 20} MiB")
            if line.strip():
                yield f"line {number}", read_line(line)
        except (ValueError, RecursionError) as error:
            yield f"line {number}", error


def _csv_rows(path: Path, options: TextOptions) -> Iterator[tuple[str, object]]:
    """The text column, its line ends as they are; rows that do not fit the header as exceptions."""
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_LINE))  # the whole process shares it: only ever raise it
    lines = _csv_lines(path)
    n_blank, header = next(((n, line) for n, line in enumerate(lines) if line.strip()), (0, ""))
    if not header:
        return
    rows = csv.DictReader(itertools.chain([header], lines), delimiter=max(",;\t", key=header.count), strict=True)
    at = n_blank + 1  # the line on which a row begins
    try:
        if options.text_field not in (names := rows.fieldnames or ()):
            raise _no_column(path, options, names)
        if names.count(options.text_field) > 1:
            raise UserError(f"'{path}' has more than one column '{options.text_field}'; rename all but one.")
        at = n_blank + rows.line_num + 1
        for row in rows:
            fits = None not in row and None not in row.values()
            text = {options.text_field: row[options.text_field]}
            yield f"line {at}", text if fits else ValueError(f"must have {len(names)} columns, as the header has")
            at = n_blank + rows.line_num + 1
    except csv.Error as error:  # where the next row begins is unknown now
        reason = f"wrong quotes ({error}); double every quote in a quoted field"
        if "field limit" in str(error):
            reason = f"a field of more than {LONGEST_LINE >> 20} MiB; make it shorter, or close its quotes"
        raise UserError(f"'{path}', the row from line {at}: {reason}.") from None


def _csv_lines(path: Path) -> Iterator[str]:
    for number, line in enumerate(_lines((text.encode() for text in _text(path, translate=False)), universal=True), 1):
        if line is None:
            raise UserError(f"'{path}', line {number}: longer than {LONGEST_LINE >> 20} MiB.")
        yield line.decode()


def _no_column(path: Path, options: TextOptions, names: Iterable[str]) -> UserError:
    problem = _lacks("column", options.text_field, names)
    return UserError(f"'{path}' {problem}; name the one with the text with --text_field.")


def _parquet_rows(path: Path, options: TextOptions) -> Iterator[tuple[str, object]]:
    """Rows without what is null, and with the columns that make a record only."""
    arrow, parquet = _optional("pyarrow", path), _optional("pyarrow.parquet", path)
    wanted = [options.text_field]
    if options.text_field == TEXT_FIELD:  # as in .jsonl, any form of record will do
        wanted += ["conversation", "messages", "instruction", "input", "output"]
    number = 0
    with open(path, "rb") as file:
        try:  # the options are what keeps it from reading whole columns at once
            source = parquet.ParquetFile(file, pre_buffer=False, buffer_size=CHUNK_BYTES)
            columns = [name for name in wanted if name in source.schema_arrow.names]
            asked = bool({"instruction", "input"} & set(columns)) and "output" in columns
            if columns != wanted and not asked and set(columns) <= {"instruction", "input", "output"}:
                raise _no_column(path, options, source.schema_arrow.names)
            for batch in source.iter_batches(BATCH_ROWS, columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", {n: row[n] for n in row if row[n] is not None} or {options.text_field: None}
        except UserError:
            raise
        except (arrow.ArrowException, OSError, ValueError) as error:
            reason = f"after row {number:,}: {one_line(str(error))}"
            how = "if it is damaged, make or download it again"
            raise UserError(f"'{path}' cannot be read as Parquet ({reason}); {how}.") from None


def _optional(module: str, path: Path) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise UserError(f"Reading '{path}' needs {package}: pip install {package}.") from None


# --- documents of a text ----------------------------------------------------------------------------------------------


def split_text(text: str | Iterable[str], separator: str = SEPARATOR) -> Iterator[str]:
    """Documents of a text: what stands between separator lines, long ones cut into pieces at empty lines.

    Args:
        text: a text, or the chunks of one; where they begin makes no difference.
        separator: the line that ends a document, taken literally; blanks may stand around it.

    Returns:
        Documents and pieces of them, without white space at both ends; none is empty.
    """
    return filter(None, map(str.strip, _pieces(_parts([text] if isinstance(text, str) else text, separator))))


def _pieces(parts: Iterable[tuple[str, bool]]) -> Iterator[str]:
    """Cut at the first empty line (failing that, line end, space, anywhere) past PIECE_CHARACTERS."""
    near, far = PIECE_CHARACTERS, int(1.5 * PIECE_CHARACTERS)
    rest = ""  # of the present document
    for part, ends in parts:
        rest += part
        while len(rest) > far:
            ends_of_marks = (rest.find(mark, near, far) + len(mark) for mark in ("\n\n", "\n", " "))
            cut = next((at for at in ends_of_marks if at > near), near)
            yield rest[:cut]
            rest = rest[cut:]
        if ends:
            yield rest
            rest = ""


def _parts(chunks: Iterable[str], separator: str) -> Iterator[tuple[str, bool]]:
    """The text without its separator lines, in parts, each with whether a document ends behind it."""
    line = re.compile(rf"^[ \t]*{re.escape(separator)}[ \t]*$", re.MULTILINE)
    longest = PIECE_CHARACTERS + len(separator)  # an unfinished line beyond this is no separator, and passed on
    held = "\n"  # its first character is the one before what is still to be passed on, so that ^ is right
    for chunk in chunks:
        held += chunk
        end, done = max(0, held.rfind("\n")), 1  # up to `end`, lines are whole
        for match in line.finditer(held, 1, end) if separator in held else ():
            yield held[done : match.start()], True
            done = match.end()
        if len(held) - end > longest:
            end = len(held) - 1
        yield held[done : end + 1], False
        held = held[end:]
    yield "" if line.fullmatch(held, 1) else held[1:], True


# --- bytes, text and lines --------------------------------------------------------------------------------------------


def _chunks(path: Path) -> Iterator[bytes]:
    """What is in a file, unpacked. Raises UserError for damaged packing, UTF-16 and UTF-32, and anything with a NUL."""
    with open(path, "rb") as file:
        if path.suffix.lower() == ".zst":
            chunks = _zstd_chunks(path, file)
        else:
            source = gzip.GzipFile(fileobj=file) if path.suffix.lower() == ".gz" else file
            chunks = iter(lambda: source.read(CHUNK_BYTES), b"")
        try:
            n_bytes, n_lines = 0, 1
            for chunk in filter(None, chunks):
                if n_bytes == 0 and (code := next((c for c, marks in MARKS.items() if chunk.startswith(marks)), "")):
                    how = f"convert it, for example with iconv -f {code} -t utf-8"
                    raise UserError(f"'{path}' is {code.upper()} text; {how}.")
                if (at := chunk.find(b"\0")) >= 0:
                    line = n_lines + chunk.count(b"\n", 0, at)
                    raise UserError(f"'{path}' is not a text file (byte {n_bytes + at:,}, in line {line:,}, is NUL).")
                n_bytes += len(chunk)
                n_lines += chunk.count(b"\n")
                yield chunk
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            reason = one_line(str(error))
            raise UserError(f"'{path}' is damaged or cut short ({reason}); make or download it again.") from None


def _zstd_chunks(path: Path, file: BinaryIO) -> Iterator[bytes]:
    """Frame by frame, as the readers of zstandard take a file that was cut short for one that ends there."""
    try:
        zstd = importlib.import_module("compression.zstd")  # Python 3.14
        options = {zstd.DecompressionParameter.window_log_max: 31}  # what zstd --long=31 packs is read
        new_frame = functools.partial(zstd.ZstdDecompressor, options=options)
    except ImportError:
        zstd = _optional("zstandard", path)
        new_frame = zstd.ZstdDecompressor(max_window_size=1 << 31).decompressobj
    frame = None
    try:
        while data := file.read(PACKED_BYTES):
            while data:
                frame = frame or new_frame()
                yield frame.decompress(data)
                data, frame = (frame.unused_data, None) if frame.eof else (b"", frame)
    except zstd.ZstdError as error:
        raise EOFError(str(error)) from None
    if frame:
        raise EOFError("it ends too early")


def _text(path: Path, translate: bool = True) -> Iterator[str]:
    r"""A file as chunks of text that do not end within a \r\n. Raises UserError for what is no UTF-8 text.

    Args:
        path: the file.
        translate: whether every line end becomes a \n.
    """
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8-sig")(), translate)
    n_bytes = 0
    for chunk in itertools.chain(_chunks(path), [b""]):  # the empty one is the end
        n_bytes += len(chunk)
        try:
            yield decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:  # its object is the end of what was read, with what was kept back
            at = n_bytes - len(error.object) + error.start
            raise UserError(f"'{path}' is not UTF-8 text (byte {at:,}); {CONVERT}.") from None


def _lines(chunks: Iterable[bytes], universal: bool = False) -> Iterator[bytes | None]:
    r"""Lines with their ends; None for one that is longer than LONGEST_LINE, of which no more is kept.

    Args:
        chunks: what the lines stand in; they may end anywhere (`universal`: but not within a \r\n).
        universal: whether \r and \r\n end a line too.
    """
    parts: list[bytes] = []
    size = 0
    ends = (b"\n", b"\r") if universal else b"\n"
    split: Callable[[bytes], Iterable[bytes]] = functools.partial(bytes.splitlines, keepends=True)
    for part in itertools.chain.from_iterable(map(split if universal else io.BytesIO, chunks)):
        size += len(part)
        parts.append(part)
        if size > LONGEST_LINE:
            parts.clear()
        if part.endswith(ends):
            line = b"".join(parts) if size <= LONGEST_LINE else None
            parts.clear()  # before the caller works on the line: a long one should not be there twice
            yield line
            size = 0
    if size:
        yield b"".join(parts) if size <= LONGEST_LINE else None


# --- normalising ------------------------------------------------------------------------------------------------------

_CHARACTERS: dict[int, str | None] = {
    **dict.fromkeys(map(ord, "\u2018\u2019\u201a\u201b"), "'"),
    **dict.fromkeys(map(ord, "\u201c\u201d\u201e\u201f"), '"'),
    **dict.fromkeys([0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000], " "),
    **dict.fromkeys([0x200B, 0x2060, 0xFEFF, 0xAD]),
}
_JOINERS = re.compile("(?<![\u0300-\U0010ffff])[\u200c\u200d]+(?![\u0300-\U0010ffff])")


def normalise(text: str) -> str:
    """The same text with one spelling for what looks alike; done twice, it changes nothing more.

    - Unicode NFC: a letter and its accent are one character where there is one
    - curly single and double quotes (high, low, reversed) become ' and "; dashes stay what they are
    - no-break and all other Unicode spaces become a space; tabs stay
    - zero-width spaces, word joiners, byte order marks and soft hyphens go; zero-width joiners and non-joiners too, but
      not beside a character beyond the Latin ones, where they are spelling (Persian, Hindi, emoji)
    - CRLF and CR become LF
    - spaces and tabs at the ends of lines go
    - three or more empty lines become one
    """
    if not text.isascii():  # in this order: what is dropped may have stood between a letter and its accent
        text = _JOINERS.sub("", unicodedata.normalize("NFC", text.translate(_CHARACTERS)))
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = "\n".join(line.rstrip(" \t") for line in text.split("\n"))
    return re.sub(r"(\A|\n)\n{3,}", r"\1\n", text)


def _normalised(record: dict[str, Any]) -> dict[str, Any]:
    """A record, or a turn of a conversation, with its texts normalised and all else as it was."""
    result = dict(record)
    for name in ("text", "instruction", "input", "output", "content"):
        if isinstance(result.get(name), str):
            result[name] = normalise(result[name])
    for name in ("conversation", "messages"):
        if isinstance(result.get(name), list):
            result[name] = [_normalised(turn) if isinstance(turn, dict) else turn for turn in result[name]]
    return result
