"""The checkpoint file: written whole or not at all, verified before it is read, and free of code.

A file is `torch.save` of plain values and tensors (so `torch.load(weights_only=True)` reads it), then a stamp (which run
wrote it, after how many batches), then a trailer with the SHA-256 of everything before it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch

from jojo.checkpoints.unpickler import NotPlainError, read_plain
from utils import UserError, new_file, one_line, sha256_of

FORMAT_VERSION = 3
TRAILER_MARK = b"jojo-sha256:"  # followed by 64 hex digits
TRAILER_BYTES = len(TRAILER_MARK) + 64
STAMP = "jojo-run:{run:0>16.16} batch:{batch:020d} "
WITH_SHARDS = "+"  # the stamp's last character if the checkpoint has shards (shards.py)
STAMP_BYTES = len(STAMP.format(run="", batch=0))
TRAIN_FIRST = "python train.py --config configs/story-small.json"  # what to do if there is no model yet


class _HashingFile:
    """A file for torch.save that computes a SHA-256. `error`: why a write failed; torch's RuntimeError does not say why."""

    error: OSError | None = None

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.digest, self.flush = file, hashlib.sha256(), file.flush

    def write(self, content: Any) -> int:
        self.digest.update(content)
        try:
            return self.file.write(content)
        except OSError as error:
            self.error = error
            raise


def write_file(state: Mapping[str, Any], path: Path) -> None:
    """Save atomically and durably. Raises UserError if the disk fails; the previous file then stays as it was."""
    with save_errors(path), new_file(path, durable=True) as file:
        hashing = _HashingFile(file)
        try:
            torch.save(dict(state), hashing)  # type: ignore[arg-type]
        except RuntimeError as error:
            raise hashing.error or error from None
        stamp = STAMP.format(run=state.get("metadata", {}).get("run_id", ""), batch=state.get("batch_counter", 0))
        hashing.write((stamp[:-1] + WITH_SHARDS if "shards" in state else stamp).encode())
        file.write(TRAILER_MARK + hashing.digest.hexdigest().encode())


def copy_file(source: Path, path: Path) -> None:
    """Copy a checkpoint, atomically and durably like write_file."""
    with save_errors(path), new_file(path, durable=True) as file, open(source, "rb") as original:
        shutil.copyfileobj(original, file, 1 << 22)


@contextmanager
def save_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a UserError: the checkpoint could not be saved."""
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        raise UserError(f"Could not save '{path}' ({why}); check the folder's permissions and free space.") from error


@dataclass(frozen=True)
class Stamp:
    """Which run wrote a checkpoint, after how many batches, and whether shards belong to it."""

    run_id: str
    batch: int
    has_shards: bool = field(default=False, compare=False)


def stamp_in(path: Path) -> Stamp | None:
    """A checkpoint's stamp, read without the rest; None for an older format or a damaged end. Raises OSError."""
    with open(path, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - STAMP_BYTES - TRAILER_BYTES))
        found = re.fullmatch(rb"jojo-run:([0-9a-f]{16}) batch:(\d{20})([ +])", file.read(STAMP_BYTES))
    return Stamp(found[1].decode(), int(found[2]), found[3].decode() == WITH_SHARDS) if found else None


def read_stamp(path: Path) -> Stamp | None:
    """Like stamp_in, but None also for a file that is missing or cannot be read."""
    with suppress(OSError):
        return stamp_in(path)
    return None


def verify_file(path: Path) -> bool:
    """Whether a file has a SHA-256 (older formats have none). Raises UserError if the contents do not match it."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        file.seek(max(0, size - TRAILER_BYTES))
        trailer = file.read()
    if not trailer.startswith(TRAILER_MARK):
        return False
    if trailer[len(TRAILER_MARK) :] != sha256_of(path, size - TRAILER_BYTES).encode():
        raise UserError(f"The checkpoint '{path}' is damaged (its SHA-256 does not match); use another one of the run.")
    return True


def read_file(path: Path, mapped: bool = False) -> dict[str, Any]:
    """Verify and read a checkpoint of any format, on the CPU. Never executes code from the file.

    `mapped`: map the file into memory, so that a tensor is read only when it is used.
    Raises UserError if the file is missing, damaged, or holds more than plain values and tensors.
    """
    if path.is_dir():
        raise UserError(f"'{path}' is a folder; name a checkpoint (.pt) in it.")
    if not path.is_file():
        there = ", ".join(sorted(p.name for p in path.parent.glob("*.pt") if p.is_file())[:8])
        hint = "." if there else f"; train one first: {TRAIN_FIRST}"
        raise UserError(f"No checkpoint '{path}' ('{path.parent}' holds: {there or 'no checkpoint'}){hint}")
    has_trailer = verify_file(path)
    try:
        state = read_plain(path, mapped)
    except NotPlainError as error:
        what = f"holds something other than plain data ({one_line(str(error))}); refused, and nothing was run"
        raise UserError(f"'{path}' {what}.") from error
    except Exception as error:  # a damaged or hostile file can raise anything
        raise UserError(f"'{path}' is not a checkpoint, or is damaged.") from error
    if not isinstance(state, dict):
        raise UserError(f"'{path}' is not a checkpoint: it holds a {type(state).__name__}, not a dictionary.")
    if has_present_format(state) and not has_trailer:
        raise UserError(f"The checkpoint '{path}' is damaged (its SHA-256 is missing); use another one of the run.")
    return state


def has_present_format(state: Mapping[str, Any]) -> bool:
    """Whether a file says that it has the present format."""
    version = state.get("format_version")
    return type(version) is int and version == FORMAT_VERSION
