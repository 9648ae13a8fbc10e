"""Reads text files of common formats as records: one dict per document, in a form that documents.py accepts.

    .txt .md    a line <|endoftext|> ends a document; long documents are cut at empty lines
    .jsonl      one record a line
    .csv        one record a row, after a header line
    .parquet    one record a row (needs pyarrow)

A record may hold its text in the field --text_field. All but .parquet may be compressed, as .gz or .zst. Everything is read in
chunks, so memory does not grow with the file. An unreadable line is counted in Problems; an unreadable file is a UserError.
"""

from __future__ import annotations

import codecs
import csv
import glob
import gzip
import importlib
import io
import itertools
import math
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from jojo.text import documents
from jojo.text.documents import Record, UnknownForm, describe_error, describe_fields, normalise
from utils import UserError, log, one_line, plural, user_path

SEPARATOR = "<|endoftext|>"
FORMATS = (".txt", ".jsonl", ".md", ".csv", ".parquet")
BLANKS = " \t"
KNOWN = f"{', '.join(FORMATS)} (all but the last also as .gz or .zst)"
PIECE_CHARACTERS = 32_000  # a longer text is cut near this length, which is far longer than any context
CHUNK_BYTES = 1 << 18
COMPRESSED_BYTES = 1 << 8  # given to zstd at once; its output may be 30,000 times larger
LONGEST_LINE = 64 << 20  # bytes of .jsonl and .csv; characters of a .csv field
TOO_LARGE = f"a text is longer than {LONGEST_LINE >> 20} MiB"
BATCH_ROWS = 64  # of .parquet: few, because each may be a book
SMALL, MOST_PACKED = 4 << 20, 200  # what unpacks to more bytes, and over 200 times its size, may fill the memory
CONVERT = "convert it, for example with iconv -f {} -t utf-8"
TURNS = ("conversation", "messages")
FORMS = ("text", *TURNS, "instruction", "input", "output")  # the fields that make a record


@dataclass(frozen=True)
class TextOptions:
    """How files become records."""

    separator: str = SEPARATOR  # the line that ends a document in .txt and .md files
    text_field: str | None = None  # take the text from this field or column where there is one
    normalise: bool = False  # apply normalise() to every text


@dataclass
class Problems:
    """What was skipped: unreadable lines up to a limit, and empty documents."""

    limit: int = 100
    count: int = 0
    examples: list[str] = field(default_factory=list)  # the first three, with file and line
    advice: str = ""  # what to do about the first one
    otherwise: str = "correct them, or raise --data.max_bad_lines"  # the advice if nothing better is known
    empty_documents: int = 0
    found_field: bool = False  # whether any record has the field that the user named

    def add(self, place: str, error: Exception) -> None:
        """Count an unreadable line. Raises UserError for the first one beyond the limit."""
        self.count += 1
        reason = f": {describe_error(error)}"
        is_known = reason in "".join(self.examples)
        self.examples = [*self.examples, place if is_known else place + reason][:3]
        if not self.advice:
            named = isinstance(error, UnknownForm) and "name the field that holds the text with --text_field"
            encoded = isinstance(error, UnicodeDecodeError) and CONVERT.format("cp1252")
            self.advice = named or encoded or self.otherwise
        if self.count > self.limit:
            raise UserError(f"More than {self.limit} unreadable lines ({self.shown}); {self.advice}.") from None

    @property
    def shown(self) -> str:
        return "; ".join(self.examples) + ("; ..." if self.count > len(self.examples) else "")


def find_files(inputs: Sequence[str], leave_out: Iterable[Path] = (), flag: str = "--input") -> list[Path]:
    """The files that a flag names, each once, in a fixed order.

    Folders and patterns skip unknown formats, names that begin with a dot, and the files to `leave_out`. An existing path
    is never a pattern. Raises UserError, which names all inputs that are missing or cannot be read.
    """
    files: dict[Path, Path] = {}
    wrong: list[str] = []
    left_out = {path.resolve() for path in leave_out}
    for name in inputs:
        path, paths = user_path(name), list[Path]()
        if path.is_file():
            paths = [path]
            if not _format(path):
                wrong.append(f"'{path}' has an unknown format; convert it to one of {KNOWN}.")
        elif path.exists() or glob.has_magic(name):
            found = _matches(Path(glob.escape(str(path)), "**") if path.is_dir() else path)
            paths = sorted(p for p in found if p.is_file() and _format(p) and p.resolve() not in left_out)
            if not paths:
                wrong.append(f"No file in '{path}' can be read; {flag} takes {KNOWN}.")
        else:
            wrong.append(f"No file or folder '{path}'; check {flag}.")
        for path in paths:
            files.setdefault(path.resolve(), path)  # a file may have several names
    if wrong:
        raise UserError(" ".join(wrong))
    return list(files.values())


def _matches(pattern: Path) -> Iterator[Path]:
    """What a pattern matches, as with glob.glob, but ** enters every folder once, also through links."""
    parts = pattern.parts
    if "**" not in parts:
        yield from map(Path, glob.glob(str(pattern)))
        return
    at = parts.index("**")
    for top in glob.glob(str(Path(*parts[:at]))):
        for folder in _folders(top):
            yield from _matches(Path(glob.escape(folder), *(parts[at + 1 :] or "*")))


def _folders(top: str) -> Iterator[str]:
    """A folder and all folders below it, without hidden ones; each once, although links may lead to it again."""

    def refuse(error: OSError) -> None:  # without it, os.walk skips unreadable folders
        raise error

    entered = set()
    for place, folders, _ in os.walk(top, onerror=refuse, followlinks=True):
        is_new = os.path.realpath(place) not in entered
        entered.add(os.path.realpath(place))
        folders[:] = sorted(name for name in folders if is_new and not name.startswith("."))
        if is_new:
            yield place


def _format(path: Path) -> str:
    """The format that a file's name says, such as ".txt" for a.txt.gz; "" if it is unknown."""
    packed = path.suffix.lower() in (".gz", ".zst")
    name = (Path(path.stem) if packed else path).suffix.lower()
    return name if name in (FORMATS[:-1] if packed else FORMATS) else ""


def read_records(path: Path, options: TextOptions, problems: Problems) -> Iterator[Record]:
    r"""The documents of a file from find_files, as records that documents.record_texts accepts.

    `problems` counts unreadable lines, and empty documents, which are left out. NUL characters in JSON (\u0000) or Parquet
    are kept. Raises UserError if the file cannot be read to its end, or if too many lines are unreadable.
    """
    kind = _format(path)
    if kind in (".txt", ".md"):
        texts = split_text(read_text(path), options.separator)
        if options.normalise:
            texts = (normalise(text).strip() for text in texts)
        yield from ({"text": text} for text in texts if text)
        return
    read_rows = {".jsonl": _json_lines, ".csv": _csv_rows, ".parquet": _parquet_rows}[kind]
    for place, value in read_rows(path, options.text_field):
        try:
            if isinstance(value, Exception):
                raise value
            record = documents.read_record(value) if isinstance(value, bytes) else value
            problems.found_field |= (options.text_field or "") in record
            record = _with_options(record, options)
            if documents.record_texts(record):
                yield record
            else:
                problems.empty_documents += 1
        except ValueError as error:
            problems.add(f"{path}, {place}", error)


def _with_options(record: Record, options: TextOptions) -> Record:
    """The record, or only its field `text_field`; with the usual names of roles, and normalised if requested."""
    name = options.text_field
    if name and name in record:
        record = {"text": record[name]}
    elif name and not record.keys() & set(FORMS):
        raise UnknownForm(f"has no field '{name}' {describe_fields(record)}")
    record = documents.with_usual_roles(record)
    return documents.normalised(record) if options.normalise else record


Rows = Iterator[tuple[str, Record | bytes | ValueError]]  # (place in the file, a record, its JSON, or an error instead)


def _json_lines(path: Path, text_field: str | None) -> Rows:
    for number, line in _lines(path, "surrogateescape"):  # which keeps bytes that are not UTF-8
        if line.strip():
            yield f"line {number}", line


def _csv_rows(path: Path, text_field: str | None) -> Rows:
    """Rows with the columns that make a record; line ends inside of a cell stay as they are."""
    csv.field_size_limit(LONGEST_LINE)
    lines = (line.decode("utf-8-sig" if number == 1 else "utf-8") for number, line in _lines(path))
    header = next(lines, "")
    rows = csv.reader(itertools.chain([header], lines), delimiter=max(",;\t", key=header.count), strict=True)
    at = 1  # the line on which a row begins
    try:
        names = next(rows)
        columns = _columns(path, text_field, names, TURNS) if header else []
        at = rows.line_num + 1
        for row in rows:
            if len(row) == len(names):
                cells = dict(zip(names, row, strict=True))
                record = {n: cells[n] for n in columns if cells[n] or n == "input"}  # an empty cell means null
                yield f"line {at}", record if any(record.values()) else {columns[0]: ""}
            elif row:
                yield f"line {at}", ValueError(f"must have {plural(len(names), 'column')}, like the header")
            at = rows.line_num + 1
    except csv.Error as error:  # where the next row begins is unknown now
        how = "check its quotes, and double every quote inside of a quoted field"
        raise UserError(f"'{path}', the row from line {at}, cannot be read ({error}); {how}.") from None


def _columns(path: Path, text_field: str | None, names: Sequence[str], unread: Sequence[str] = ()) -> list[str]:
    """The columns of a table to read: the one that the user named, or else those that make a record."""
    found = [n for n in names if n == text_field] or [n for n in FORMS if n in names and n not in unread]
    if not found:
        problem = f"has no column '{text_field or 'text'}' {describe_fields(names)}"
        raise UserError(f"'{path}' {problem}; name the column that holds the text with --text_field.")
    return found


def _parquet_rows(path: Path, text_field: str | None) -> Rows:
    """Rows with the columns that make a record, without null values."""
    arrow, parquet = _optional("pyarrow", path), _optional("pyarrow.parquet", path)
    number = 0
    with open(path, "rb") as file:
        try:  # without these options it reads whole columns at once
            source = parquet.ParquetFile(file, pre_buffer=False, buffer_size=CHUNK_BYTES)
            columns = _columns(path, text_field, source.schema_arrow.names)
            fields = dict.fromkeys(TURNS, r"\..*\.(role|content)")  # no others: Python cannot represent some times
            wanted = "|".join(re.escape(name) + fields.get(name, r"(\..*)?") for name in columns)
            leaves = [leaf.path for leaf in source.schema if re.fullmatch(wanted, leaf.path)]
            for index in range(source.num_row_groups):
                n_rows = _rows_at_once(source.metadata.row_group(index), leaves)
                for batch in source.iter_batches(n_rows, [index], leaves):
                    if batch.nbytes > 8 * LONGEST_LINE:
                        raise ValueError(TOO_LARGE)
                    for row in batch.to_pylist():
                        number += 1
                        yield f"row {number}", {n: row[n] for n in row if row[n] is not None} or {columns[0]: None}
        except UserError:
            raise
        except (arrow.ArrowException, OSError, ValueError, ArithmeticError, LookupError) as error:
            reason = f"after row {number:,}: {one_line(str(error))}"
            raise UserError(f"'{path}' cannot be read as Parquet ({reason}); make or download it again.") from None


def _rows_at_once(group: Any, leaves: Sequence[str]) -> int:
    """How many rows of a row group to read together. Raises ValueError if one of them could fill the memory."""
    size = 1.0
    for chunk in map(group.column, range(group.num_columns)):
        if chunk.path_in_schema in leaves:
            unpacked, most = chunk.total_uncompressed_size, MOST_PACKED * chunk.total_compressed_size
            is_text = unpacked < max(SMALL, most)
            size += max(unpacked, 100 * chunk.num_values) if is_text else math.inf  # 100 bytes: a Python object
    if size > LONGEST_LINE * max(1, group.num_rows):
        raise ValueError(TOO_LARGE)
    return max(1, min(BATCH_ROWS, int(LONGEST_LINE * group.num_rows / size)))


def _optional(module: str, path: Path) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UserError(f"Reading '{path}' needs {module}: pip install {module}.") from None


def split_text(text: str | Iterable[str], separator: str = SEPARATOR) -> Iterator[str]:
    """The documents of a text, or of its chunks, stripped and not empty; long ones are cut into pieces.

    A line that is the separator, with or without spaces and tabs around it, ends a document.
    """
    return filter(None, map(str.strip, _pieces(_parts([text] if isinstance(text, str) else text, separator))))


def _pieces(parts: Iterable[tuple[str, bool]]) -> Iterator[str]:
    """Cut at the first empty line past PIECE_CHARACTERS; without one, at a line end, a space, or anywhere."""
    near, far = PIECE_CHARACTERS, int(1.5 * PIECE_CHARACTERS)
    rest = ""  # of the current document
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
    """Yields (part of the text without separator lines, whether a document ends after it)."""
    # (?=(x*))\1 matches like x*, but never tries fewer: a line that begins with many blanks is read once.
    line = re.compile(rf"^(?=([ \t]*))\1{re.escape(separator.strip(BLANKS))}(?=([ \t]*))\2$", re.MULTILINE)
    longest = PIECE_CHARACTERS + len(separator)  # a longer line is no separator and need not be buffered
    held = "\n"  # the buffered text, and the character before it, which ^ needs
    for chunk in chunks:
        held += chunk
        end, done = max(0, held.rfind("\n")), 1  # up to `end`, lines are complete
        for match in line.finditer(held, 1, end) if separator in held else ():
            if separator in match[0]:  # it may begin or end with blanks itself
                yield held[done : match.start()], True
                done = match.end()
        if len(held) - end > longest:
            end = len(held) - 1
        yield held[done : end + 1], False
        held = held[end:]
    yield "" if separator in held and line.fullmatch(held, 1) else held[1:], True


def _chunks(path: Path, errors: str = "windows-1252") -> Iterator[bytes]:
    """The decompressed text of a file in chunks, as UTF-8. A byte order mark tells UTF-16.

    By default other bytes are taken for Windows-1252, with a warning at the end. Raises UserError if most letters are such
    bytes, for a NUL byte, which no text has, and for a damaged file.
    """
    n_read = n_bytes = 0
    with open(path, "rb") as file:
        if path.suffix.lower() == ".zst":
            chunks = _zstd_chunks(path, file)
        else:
            source = gzip.GzipFile(fileobj=file) if path.suffix.lower() == ".gz" else file
            chunks = iter(lambda: source.read(CHUNK_BYTES), b"")
        try:
            for chunk in itertools.chain(filter(None, chunks), [b""]):  # the empty one is the end
                if not n_read:
                    marked = chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
                    encoding, handler = ("utf-16", "replace") if marked else ("utf-8", errors)
                    decoder = codecs.getincrementaldecoder(encoding)(handler)
                text = decoder.decode(chunk, not chunk).encode("utf-8", "surrogateescape")
                if (at := text.find(b"\0")) >= 0:
                    where, how = f"byte {n_bytes + at:,} is NUL", "convert it with iconv -f utf-16 -t utf-8"
                    raise UserError(f"'{path}' is not UTF-8 text ({where}); if it is UTF-16, {how}.")
                n_read, n_bytes = n_read + len(chunk), n_bytes + len(text)
                if n_read > SMALL and n_read > MOST_PACKED * file.tell():  # a pipe has no tell()
                    raise UserError(f"'{path}' becomes over {MOST_PACKED} times larger; unpack it first if it is text.")
                yield text
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            reason = one_line(str(error))
            raise UserError(f"'{path}' is damaged or incomplete ({reason}); make or download it again.") from None
    if marked or n_bytes <= n_read:
        return
    if n_bytes > 1.4 * n_read:  # every byte that is not UTF-8 became two or three
        raise UserError(f"'{path}' is neither UTF-8 nor Windows-1252 text; {CONVERT.format('cp1251')}.")
    how = CONVERT.format("cp1250")
    log.warning("'%s' is not UTF-8, so it was read as Windows-1252; if words look wrong, %s.", path, how)


def _as_windows_1252(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return error.object[error.start : error.end].decode("windows-1252", "replace"), error.end


codecs.register_error("windows-1252", _as_windows_1252)


def _zstd_chunks(path: Path, file: BinaryIO) -> Iterator[bytes]:
    """Decompress frame by frame: zstandard's readers do not notice that a file ends inside a frame."""
    zstd = _optional("zstandard", path)
    new_frame = zstd.ZstdDecompressor(max_window_size=1 << 31).decompressobj  # for files made with zstd --long=31
    frame = None
    try:
        while data := file.read(COMPRESSED_BYTES):
            while data:
                frame = frame or new_frame()
                yield frame.decompress(data)
                data, frame = (frame.unused_data, None) if frame.eof else (b"", frame)
    except zstd.ZstdError as error:
        raise EOFError(str(error)) from None
    if frame:
        raise EOFError("it ends too early")


def read_text(path: Path) -> Iterator[str]:
    """The text of a file in chunks; every line end becomes a newline."""
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8-sig")(), translate=True)
    for chunk in itertools.chain(_chunks(path), [b""]):  # the empty one is the end
        yield decoder.decode(chunk, final=not chunk)


def _lines(path: Path, errors: str = "windows-1252") -> Iterator[tuple[int, bytes]]:
    """Lines, each with its number and its line end. Raises UserError for a line longer than LONGEST_LINE."""
    held, number = bytearray(), 1
    for part in itertools.chain.from_iterable(map(io.BytesIO, _chunks(path, errors))):
        if len(held) + len(part) > LONGEST_LINE:
            raise UserError(f"'{path}', line {number}, is longer than {LONGEST_LINE >> 20} MiB; split or remove it.")
        if part.endswith(b"\n"):
            line = b"".join((held, part)) if held else part
            held.clear()  # before the yield, so that memory holds a long line once
            yield number, line
            number += 1
        else:
            held += part
    if held:
        yield number, bytes(held)
