"""Reads what `torch.save` wrote, without torch.load: plain values and dense tensors, and nothing else.

The file is a zip. Its `data.pkl` is a pickle of all values, and `data/0`, `data/1`, ... are the numbers of the tensors. A
pickle is a program for a stack machine. The machine here has only the steps that make plain values: no file can make it
import, call or set anything. Its memory is bounded by the size of the file.
"""

from __future__ import annotations

import io
import itertools
import pickletools
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

NUMBERS = ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Bool")
DTYPES = {"torch ByteStorage": torch.uint8, "torch CharStorage": torch.int8} | {
    f"torch {name}Storage": getattr(torch, name.lower()) for name in NUMBERS
}
DICT = "collections OrderedDict"
TENSOR, PARAMETER = "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"
VERSION = "torch.torch_version TorchVersion"  # in the metadata of 2.x
NAMES = {*DTYPES, DICT, TENSOR, PARAMETER, VERSION}
VALUES = {"BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}
CONSTANTS = {"NONE": None, "NEWFALSE": False, "NEWTRUE": True, "EMPTY_TUPLE": ()}
FROM_MARK = ("TUPLE", "APPENDS", "SETITEMS")
ONE, TWO = ("TUPLE1", "APPEND", "BINPERSID", "BUILD"), ("TUPLE2", "SETITEM", "REDUCE", "NEWOBJ")
TAKEN = dict.fromkeys(ONE, 1) | dict.fromkeys(TWO, 2) | {"TUPLE3": 3}
MOST_BYTES = 1 << 24  # of the pickle, and of the list of members
MOST_STEPS = 1_000_000  # of the pickle, and one more for 8 bytes of the file; a step makes up to 72 bytes


class NotPlainError(ValueError):
    """The file names a function or class, or has a tensor, that no checkpoint has. The message is its name."""


class _File(io.BufferedReader):
    """Refuses to read much at once. zipfile would read an endless list of members into memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MOST_BYTES:
            raise ValueError(f"{size} bytes are too many")
        return super().read(size)


def read_plain(path: Path, mapped: bool = False) -> Any:
    """The value that `torch.save` wrote to a file. `mapped`: read a tensor only when it is used.

    Raises NotPlainError, OSError, or any other exception if the file is damaged or hostile.
    """
    with _File(io.FileIO(path)) as file:
        return _Archive(path, file, mapped).value()


class _Archive:
    """One file while it is read."""

    def __init__(self, path: Path, file: _File, mapped: bool) -> None:
        self.file, self.size = file, path.stat().st_size
        self.whole = torch.UntypedStorage.from_file(str(path), False, self.size) if mapped else None
        infos = zipfile.ZipFile(file).infolist()
        self.members = {info.filename.partition("/")[2]: info for info in infos}
        if len(self.members) < len(infos) or sum(info.file_size for info in infos) > self.size:
            raise ValueError("members overlap")
        self.storages: dict[str, Tensor] = {}  # 1-dimensional, by name
        self.left = 2 * self.size  # bytes for all tensors; tied weights are in the file once, and count twice

    def start(self, info: zipfile.ZipInfo) -> int:
        """Where the contents of a member begin: after its header, whose length is in the header only."""
        self.file.seek(info.header_offset)
        start = info.header_offset + 30 + sum(struct.unpack("<26x2H", self.file.read(30)))
        if start + info.file_size > self.size:
            raise ValueError(f"'{info.filename}' is incomplete")
        self.file.seek(start)
        return start

    def storage(self, _mark: Any, kind: Any, key: Any, _device: Any, _size: Any) -> Tensor:
        """All numbers of a member; the same tensor each time."""
        if type(kind) is not str or type(key) is not str:
            raise ValueError("no storage of a tensor")
        name = f"data/{key}"
        if name not in self.storages:
            info = self.members[name]
            start = self.start(info)
            if self.whole is None:
                numbers = torch.empty(info.file_size, dtype=torch.uint8)
                self.file.readinto(numbers.numpy().data)
            else:
                part = self.whole[start : start + info.file_size]
                numbers = torch.empty(0, dtype=torch.uint8).set_(part)
            self.storages[name] = numbers.view(DTYPES[kind])
        return self.storages[name]

    def counted(self, value: Any) -> Any:
        """The value. Raises NotPlainError if the tensors so far would need more memory than the file has numbers."""
        if isinstance(value, Tensor):
            self.left -= max(64, value.nbytes)
            if self.left < 0:
                raise NotPlainError(f"a tensor of the shape {tuple(value.shape)}")
        return value

    def call(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        """What a function or class in NAMES returns."""
        if function == DICT and not arguments:
            return {}
        if function == TENSOR:
            storage, offset, shape, stride, *_ = arguments
            if len(shape) > 8:
                raise ValueError("no shape of a weight")
            return self.counted(storage.as_strided(shape, stride, offset))
        if function in (PARAMETER, VERSION):
            return arguments[0]
        raise ValueError("no function of a checkpoint")

    def value(self) -> Any:
        """Run the program in data.pkl. It takes values from the stack, and puts others there or changes the top one."""
        self.start(self.members["data.pkl"])
        steps: Iterator[Any] = pickletools.genops(self.file.read(self.members["data.pkl"].file_size))
        stack: list[Any] = []
        marks: list[int] = []
        memo: dict[int, Any] = {}
        for step, argument, _ in itertools.islice(steps, MOST_STEPS + self.size // 8):
            name = step.name.removeprefix("LONG_")
            place = marks.pop() if name in FROM_MARK else len(stack) - TAKEN.get(name, 0)
            taken = stack[place:]
            del stack[place:]
            if name in VALUES or (name == "GLOBAL" and argument in NAMES):
                stack.append(argument)
            elif name in CONSTANTS:
                stack.append(CONSTANTS[name])
            elif name in ("EMPTY_DICT", "EMPTY_LIST"):
                stack.append({} if name == "EMPTY_DICT" else [])
            elif name == "GLOBAL":
                raise NotPlainError(argument.replace(" ", "."))
            elif name == "BINPUT":
                memo[argument] = stack[-1]
            elif name == "BINGET":
                stack.append(self.counted(memo[argument]))
            elif name == "MARK":
                marks.append(len(stack))
            elif name.startswith("TUPLE"):
                stack.append(tuple(taken))
            elif name.startswith("APPEND"):
                stack[-1].extend(taken)
            elif name.startswith("SETITEM"):
                # Only short keys: hashing nested tuples can take forever or crash Python; long integers can share a hash.
                if not all(type(key) is str or (type(key) is int and abs(key) < 2**31) for key in taken[::2]):
                    break
                stack[-1].update(zip(taken[::2], taken[1::2], strict=True))
            elif name in ("REDUCE", "NEWOBJ"):
                stack.append(self.call(*taken))
            elif name == "BINPERSID":
                stack.append(self.storage(*taken[0]))
            elif name == "STOP":
                return stack[-1]
            elif name not in ("PROTO", "BUILD"):  # BUILD would set attributes; an OrderedDict of PyTorch has one
                break
        raise ValueError("too many steps, or one that makes no plain value")
