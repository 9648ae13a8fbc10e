"""Tests of checkpoints/unpickler.py: it reads what torch.save writes, and no file can make it call, hash or fill the memory."""

from __future__ import annotations

import io
import pickle
import random
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_run import differences
from hostile_files import (
    BUILD,
    EMPTY_DICT,
    NONE,
    SETITEM,
    Innocent,
    call,
    get,
    members,
    name,
    put,
    text,
    zipped,
)
from torch import nn

from jojo.checkpoints import unpickler
from jojo.checkpoints.unpickler import NotPlainError, read_plain

TUPLE_1, TUPLE_2, PERSISTENT = b"\x85", b"\x86", b"Q"


@pytest.fixture
def good() -> Innocent:
    """A small checkpoint."""
    return Innocent({"model": {"w": torch.arange(6.0).view(2, 3)}, "points": [(1, 2.5)], "nothing": None})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file that a test writes."""
    return tmp_path / "x.pt"


# --- what torch.save writes ---------------------------------------------------------------------------------------------

DTYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8,
    torch.bool,
)  # fmt: skip


def like_nanogpt() -> dict[str, Any]:
    """The contents of a nanoGPT checkpoint: an OrderedDict with an attribute, and an optimizer's state."""
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).state_dict()
    states = {i: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(3)} for i in range(4)}
    return {
        "model": model,
        "optimizer": {"state": states, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.95), "params": [0, 1, 2, 3]}]},
        "iter_num": 2000,
        "best_val_loss": torch.tensor(1.47),
        "config": {"batch_size": 64, "compile": False, "lr": 1e-3, "big": 2**62, "negative": -5, "none": None},
    }


LEGAL: dict[str, Callable[[], Any]] = {
    "nanoGPT": like_nanogpt,
    "weights only": lambda: nn.Linear(4, 3).state_dict(),
    "parameters": lambda: OrderedDict(
        weight=nn.Parameter(torch.ones(2)), other=nn.Parameter(torch.ones(1), requires_grad=False)
    ),
    "numbers of every kind": lambda: {str(dtype): torch.tensor([0, 1, 100]).to(dtype) for dtype in DTYPES},
    "shapes": lambda: [
        torch.tensor(3.0),
        torch.zeros(0, 4),
        torch.arange(24.0).view(2, 3, 4).transpose(0, 2),
        torch.ones(9)[2::3],
    ],
    "nested values": lambda: {
        "a": [(), [], {}, (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), True, False, ""],
        7: {8: "\ud800 ü 漢"},
    },
}


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("what", LEGAL)
def test_it_reads_what_torch_reads(path: Path, what: str, mapped: bool) -> None:
    torch.save(LEGAL[what](), path)
    assert differences(torch.load(path, weights_only=True), read_plain(path, mapped)) == []


def test_a_mapped_tensor_holds_only_its_own_numbers(path: Path) -> None:
    """Otherwise saving it again would write the whole file."""
    torch.save({"a": torch.ones(10_000), "b": torch.arange(3.0)}, path)
    assert read_plain(path, mapped=True)["b"].untyped_storage().nbytes() == 12


# --- zips ---------------------------------------------------------------------------------------------------------------


def directory(entries: list[tuple[str, int, int]]) -> bytes:
    """The list of a zip's members: (name, offset, size)."""
    return b"".join(
        struct.pack("<4s6H3L5H2L", b"PK\1\2", *[0] * 7, size, size, len(member), *[0] * 5, offset) + member.encode()
        for member, offset, size in entries
    )


def ended(content: bytes, listed: bytes, count: int, offset: int) -> bytes:
    """A zip: the contents, the list of the members, and the record that says where the list is."""
    return content + listed + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(listed), offset, 0)


def listing(good: Innocent, *entries: tuple[str, int, int]) -> bytes:
    """A checkpoint with another list of its members."""
    return ended(good.file, directory([*entries]), len(entries), len(good.file))


def overlapping(good: Innocent) -> bytes:
    """Every tensor is the same part of the file, and so large that all of them together would fill the memory."""
    with zipfile.ZipFile(io.BytesIO(good.file)) as archive:
        info = archive.getinfo("archive/data.pkl")
    where = info.header_offset, info.file_size
    return listing(good, ("archive/data.pkl", *where), *((f"archive/data/{i}", *where) for i in range(200)))


ZIPS: dict[str, Callable[[Innocent], bytes]] = {
    "overlapping members": overlapping,
    "a member twice": lambda good: good.repacked(good.pickle, ("archive/data/0", bytes(24))),
    "a member larger than the file": lambda good: listing(good, ("archive/data.pkl", 0, 1 << 31)),
    "a member outside of the file": lambda good: listing(good, ("archive/data.pkl", 1 << 31, 10)),
    "an endless list of members": lambda good: good.repacked(
        good.pickle, *((f"x/{i}/{'y' * 60_000}", b"") for i in range(300))
    ),
    "a compressed pickle": lambda good: compressed(*members(good.file)),
    "no numbers": lambda good: zipped(*((n, c) for n, c in members(good.file) if "/data/" not in n)),
    "too few numbers": lambda good: zipped(*((n, c[:8] if "/data/" in n else c) for n, c in members(good.file))),
}


def compressed(*files: tuple[str, bytes]) -> bytes:
    """A zip whose members are compressed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in files:
            archive.writestr(member, content)
    return buffer.getvalue()


def test_a_second_list_of_members_is_not_read(path: Path, good: Innocent) -> None:
    """Python's zipfile reads the list before the end record, torch the list at the offset that the end record has."""
    evil = good.repacked(good.pickle_with(NONE, key="evil"))
    content = zipped(("x", bytes(9000)), *members(evil), ("y", good.pickle))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        places = {info.filename: (info.header_offset, info.file_size) for info in archive.infolist()}
    names = [member for member, _ in members(evil)]
    first = directory([(member, *places[member]) for member in names])
    places["archive/data.pkl"] = places["y"]
    second = directory([(member, places[member][0] - len(first), places[member][1]) for member in names])
    path.write_bytes(ended(content + first, second, len(names), len(content)))
    assert torch.load(path, weights_only=True).keys() - read_plain(path).keys() == {"evil"}


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("what", ZIPS)
def test_a_zip_that_torch_never_writes_is_refused(path: Path, good: Innocent, what: str, mapped: bool) -> None:
    path.write_bytes(ZIPS[what](good))
    with pytest.raises(Exception):  # noqa: B017
        read_plain(path, mapped)


# --- pickles ------------------------------------------------------------------------------------------------------------

DEEP = NONE + TUPLE_1 * 200_000  # hashing this tuple crashes Python
WIDE = NONE + (put(90_000) + get(90_000) + TUPLE_2) * 80  # and this one takes longer than the universe
TENSOR = name("torch._utils", "_rebuild_tensor_v2")
FLOATS = b"(" + text("storage") + name("torch", "FloatStorage") + text("0") + text("cpu") + b"K\x06tQ"


def integer(value: int) -> bytes:
    """LONG1: push an integer."""
    content = pickle.encode_long(value)
    return b"\x8a" + bytes([len(content)]) + content


def tensor(*shape: bytes) -> bytes:
    """A tensor of this shape, with the numbers of the first one in the file."""
    return call(TENSOR, FLOATS, b"K\0", b"(" + b"".join(shape) + b"t", b"(" + b"K\0" * len(shape) + b"t", b"\x89", b"}")


def keyed(key: bytes) -> bytes:
    """A dictionary with this key."""
    return EMPTY_DICT + key + NONE + SETITEM


NOT_PLAIN: dict[str, bytes] = {
    "a gigabyte of bytes": call(name("builtins", "bytearray"), integer(3 << 30)),
    "an endless decoder": call(name("_codecs", "encode"), text("ü" * 99), text("punycode")),
    "a set": call(name("builtins", "set"), WIDE),
    "a parameter with attributes": call(
        name("torch._utils", "_rebuild_parameter_with_state"), FLOATS, NONE, NONE, keyed(text("data"))
    ),
    "a class": name("torch", "Tensor"),
    "a name of 100,000 letters": name("x" * 100_000, "y"),
    "a terabyte of one number": tensor(integer(1 << 40)),
    "a large tensor in many places": b"(" + tensor(b"K\x06") + put(9) + get(9) * 5000 + b"t",
    "many tensors of the same numbers": (
        b"("
        + TENSOR
        + put(8)
        + tensor(b"K\x06")[len(TENSOR) : -1]
        + put(9)
        + b"R"
        + (get(8) + get(9) + b"R") * 2000
        + b"t"
    ),
}
REFUSED: dict[str, bytes] = {
    "a deep key": keyed(DEEP),
    "a wide key": keyed(WIDE),
    "a key that is no text": keyed(NONE),
    "keys of the same hash": EMPTY_DICT + b"(" + b"".join(integer(i * (2**61 - 1)) + NONE for i in range(1, 20_000)) + b"u",
    "a wide name of a storage": b"(" + text("storage") + name("torch", "FloatStorage") + WIDE + text("cpu") + b"K\x06tQ",
    "a wide kind of storage": b"(" + text("storage") + WIDE + text("0") + text("cpu") + b"K\x06tQ",
    "a wide function": call(WIDE, NONE),
    "a shape that is a wide tuple": call(TENSOR, FLOATS, b"K\0", WIDE, WIDE, b"\x89", b"}"),
    "a shape with a list": tensor(integer(10**9), b"]K\0a"),
    "a shape of a million numbers": tensor(*[integer(1 << 2000)] * 10_000),
    "a negative size": tensor(integer(-1)),
    "a place before the numbers": call(TENSOR, FLOATS, integer(-4), b"K\x01\x85", b"K\x01\x85", b"\x89", b"}"),
    "a place after the numbers": call(TENSOR, FLOATS, b"K\x05", b"K\x02\x85", b"K\x01\x85", b"\x89", b"}"),
    "a stride after the numbers": call(TENSOR, FLOATS, b"K\0", b"K\x02\x85", integer(1 << 61) + TUPLE_1, b"\x89", b"}"),
    "a decimal number": b"L" + b"9" * 4000 + b"L\n",
    "a step of another protocol": b"\x8c\x01x",
    "a value that is not there": get(12_345),
    "nothing to change": b"]]s",
}  # fmt: skip


@pytest.mark.parametrize("what", [*NOT_PLAIN, *REFUSED])
def test_a_pickle_that_torch_never_writes_is_refused_before_it_costs_anything(
    path: Path, good: Innocent, what: str
) -> None:
    path.write_bytes(good.with_item((NOT_PLAIN | REFUSED)[what]))
    with pytest.raises(NotPlainError if what in NOT_PLAIN else Exception):
        read_plain(path)


def test_a_pickle_of_too_many_steps_is_refused(path: Path, good: Innocent, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each `}` is a byte in the file, and a dictionary in memory."""
    monkeypatch.setattr(unpickler, "MOST_STEPS", 1_000)
    path.write_bytes(good.with_item(b"(" + b"}" * 1_500 + b"t"))
    with pytest.raises(ValueError, match="too many steps"):
        read_plain(path)


def test_attributes_are_ignored(path: Path, good: Innocent) -> None:
    """torch sets those of an OrderedDict, a tensor and a parameter."""
    path.write_bytes(good.with_item(call(name("collections", "OrderedDict")) + keyed(text("update")) + BUILD))
    assert differences(read_plain(path), good.plus(extra={})) == []


# --- random damage ------------------------------------------------------------------------------------------------------


def plain(value: Any) -> bool:
    """Whether nested values are of the kinds that a checkpoint has."""
    if isinstance(value, dict):
        return all(type(key) in (str, int) and plain(entry) for key, entry in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(plain, value))
    return type(value) in (str, int, float, bool, type(None), torch.Tensor)


def mutations(content: bytes, draw: random.Random) -> Iterator[bytes]:
    """Files that differ in a few bytes; half of them in steps of the pickle only."""
    while True:
        changed = bytearray(content)
        for _ in range(draw.randint(1, 4)):
            place, length = draw.randrange(len(changed)), draw.randint(0, 9)
            kind = draw.randrange(4)
            if kind == 0:
                changed[place] = draw.choice(
                    b"}]().0abcdeijlqrstuQRNK\x81\x85\x86\x87\x88\x8a\x93" + bytes([draw.randrange(256)])
                )
            elif kind == 1:
                other = draw.randrange(len(changed))
                changed[place:place] = changed[other : other + length]
            elif kind == 2:
                del changed[place : place + length]
            else:
                changed[place : place + 4] = struct.pack("<L", draw.choice((0, 1, 2**31 - 1, 2**32 - 1, len(changed))))
        yield bytes(changed)


@pytest.mark.parametrize("seed", range(4))
def test_random_damage_is_refused_or_leaves_plain_values(path: Path, good: Innocent, seed: int) -> None:
    draw = random.Random(seed)
    good = Innocent({**good.state, **like_nanogpt()}) if seed % 2 else good
    in_pickle, in_file = mutations(good.pickle, draw), mutations(good.file, draw)
    for _ in range(150):
        path.write_bytes(next(in_file) if draw.random() < 0.5 else good.repacked(next(in_pickle)))
        try:
            value = read_plain(path, mapped=draw.random() < 0.5)
        except Exception:
            continue
        assert plain(value)
