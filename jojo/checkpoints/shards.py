"""A checkpoint in shards, for models that are sharded over ranks (fsdp): every rank writes its shards and reads those it needs.

    models/<run>.pt                                  the checkpoint without its large tensors, and the list of its shards
    models/<run>.shards/<run id>-<batch>-<save>/     shard-00001-model-00001-of-00003.safetensors, ...

Every save has its own folder, which later saves never change. If a save writes several checkpoints (last, best), they
share the folder. A rank writes a file for each kind of tensor: its shards of the weights, of AdamW's first averages and
second averages, of Muon's momentum, and of the weights that `training.ema` averages. torch.distributed.checkpoint decides which
rank writes which rows of a tensor, and can read them with any number of ranks. Its safetensors format holds no code. The `.pt`
has the SHA-256 of every file, so all of them are verified.
"""

from __future__ import annotations

import itertools
import math
import re
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from jojo.machine.ranks import Ranks, is_dtensor
from jojo.optim import OPTIMIZERS, RAW_WEIGHT
from utils import UserError, one_line, sha256_of

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

STATE = (*(key for kind in OPTIMIZERS.values() for key in kind.STATE if key != "step"), RAW_WEIGHT)
KINDS = ("model", *STATE)  # each rank writes a file of each kind, numbered from 1 in this order
FILE_NAME = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")
FOLDER_NAME = re.compile(r"([0-9a-f]{16})-(\d{1,20})-[0-9a-f]{8}")  # run id, batch, random digits
LISTED_FOLDER = re.compile(rf"[^/\0]{{1,255}}\.shards/{FOLDER_NAME.pattern}")  # beside the `.pt`, and nowhere else
SHA256 = re.compile("[0-9a-f]{64}")
LARGEST_HEADER = 1 << 24  # bytes; the most blocks that a model may have, 10,000, need less
TIED = {"lm_head.weight": "transformer.wte.weight"}  # one matrix under two names, if tie_embeddings is true


def check_header(path: Path) -> None:
    """Raises ValueError if the header of a safetensors file is so large that reading it would take minutes."""
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
    if size > LARGEST_HEADER:
        raise ValueError(f"its header has {size:,} bytes, more than {LARGEST_HEADER:,}")


def flat_tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a checkpoint's state that are written in shards, by flat name."""
    tied = TIED if state["config"]["model"].get("tie_embeddings", True) else {}
    tensors = {f"model.{name}": tensor.detach() for name, tensor in state["model"].items() if name not in tied}
    for name, values in state["optimizer"].items():
        tensors |= {f"optimizer.{name}.{key}": value for key, value in values.items() if key in STATE}
    return tensors


def write_shards(state: Mapping[str, Any], folder: Path, rank: int, group: ProcessGroup | None) -> dict[str, Any]:
    """Write this rank's shards of the state's tensors into an empty folder; every rank of the group must call it.

    Returns the size and SHA-256 of the files this rank wrote, by name. They are durable.
    Raises OSError if one of the ranks cannot write.
    """
    import torch.distributed.checkpoint as dcp

    tensors = flat_tensors(state)
    kinds = {name: "model" if name.startswith("model.") else name.rpartition(".")[2] for name in tensors}
    numbers = {name: 1 + KINDS.index(kind) for name, kind in kinds.items()}
    writer = dcp.HuggingFaceStorageWriter(str(folder), fqn_to_index_mapping=numbers, save_distributed=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns if there is only one process
            dcp.save(tensors, storage_writer=writer, process_group=group, no_dist=group is None)
    except dcp.CheckpointException as error:
        cause = next(iter(error.failures.values()))[0]
        raise OSError(getattr(cause, "errno", None), getattr(cause, "strerror", None) or one_line(cause)) from error
    written = sorted(folder.glob(f"shard-{rank + 1:05}-*.safetensors"))
    return {path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in written}


def without_shards(state: Mapping[str, Any], folder: Path, files: Mapping[str, Any]) -> dict[str, Any]:
    """The content of the `.pt`: the state without the tensors in shards, but with the list of the shards."""
    tensors = flat_tensors(state)
    optimizer = {
        name: {key: value for key, value in values.items() if key not in STATE}
        for name, values in state["optimizer"].items()
    }
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    listed = {"folder": f"{folder.parent.name}/{folder.name}", "files": dict(files), "tensors": shapes}
    return {**state, "model": {}, "optimizer": optimizer, "shards": listed}


@dataclass(frozen=True)
class Shards:
    """The files that hold a checkpoint's large tensors."""

    path: Path  # the `.pt`
    folder: Path  # where the files are, beside it
    files: Mapping[str, tuple[int, str]]  # size in bytes and SHA-256, by name
    shapes: Mapping[str, tuple[int, ...]]  # of the whole tensors, by flat name; all are float32

    @classmethod
    def listed_in(cls, path: Path, listed: Any) -> Shards:
        """The shards in a checkpoint's list. Raises UserError if the list is malformed.

        A hostile list can name no files in other folders, and no tensors that are larger than its files.
        """
        with suppress(TypeError, KeyError, AttributeError):
            folder = listed["folder"]
            files = {name: (entry["bytes"], entry["sha256"]) for name, entry in listed["files"].items()}
            shapes = {name: tuple(shape[:9]) for name, shape in listed["tensors"].items()}  # 9: too many are refused
            sizes = [size for size, _ in files.values()]
            if (
                (LISTED_FOLDER.fullmatch(folder) and len(Path(folder).parts) == 2 and files)
                and all(FILE_NAME.fullmatch(name) and SHA256.fullmatch(digest) for name, (_, digest) in files.items())
                and all(0 < len(shape) <= 8 for shape in shapes.values())
                and all(type(n) is int and n > 0 for n in (*sizes, *itertools.chain(*shapes.values())))
                and all(name.startswith(("model.", "optimizer.")) for name in shapes)
                and 4 * sum(map(math.prod, shapes.values())) <= sum(sizes)
            ):
                return cls(path, path.parent / folder, files, shapes)
        raise UserError(f"'{path}' is not a valid checkpoint: its list of shards is malformed.")

    def verify(self, ranks: Ranks) -> None:
        """Compare the files with their SHA-256, each rank a part of them; then check their headers.

        Raises UserError, on all ranks, if a file is missing or damaged, or the files do not make up the tensors.
        """
        for check in (self._damage, self._gap):  # compare all files before reading a header
            try:
                problem = check(ranks)
            except OSError as error:
                problem = self._unreadable(error)
            ranks.raise_together(f"read the shards of '{self.path.name}'", problem)

    def _damage(self, ranks: Ranks) -> str:
        """A sentence about the first damage in this rank's part of the files; empty if there is none."""
        there = {path.name for path in self.folder.iterdir() if path.is_file()} if self.folder.is_dir() else set()
        if missing := sorted(self.files.keys() - there):
            lost = self.folder / missing[0]
            return f"A shard of the checkpoint '{self.path}' is missing ('{lost}'); restore it or use another one."
        if more := sorted(there - self.files.keys()):
            return f"'{self.folder / one_line(more[0])}' does not belong to the checkpoint '{self.path}'; remove it."
        for name in sorted(self.files)[ranks.rank :: ranks.world_size]:
            path, (size, digest) = self.folder / name, self.files[name]
            if path.stat().st_size != size or sha256_of(path) != digest:
                what = f"the SHA-256 of its shard '{path}' does not match"
                return f"The checkpoint '{self.path}' is damaged ({what}); use another one of the run."
        return ""

    def _gap(self, _ranks: Ranks) -> str:
        """A sentence about the first tensor whose rows are not in the files exactly once; empty if all are."""
        import torch.distributed.checkpoint as dcp

        try:
            for name in self.files:
                check_header(self.folder / name)
            found: Any = dcp.HuggingFaceStorageReader(str(self.folder)).read_metadata().state_dict_metadata
            for name, shape in self.shapes.items():
                row = 0
                for chunk in sorted(found[name].chunks, key=lambda chunk: chunk.offsets[0]):
                    rows, *rest = chunk.sizes
                    follows = tuple(chunk.offsets) == (row, *[0] * len(rest)) and tuple(rest) == shape[1:]
                    if rows and not follows:  # a tensor with few rows has empty chunks on some ranks
                        raise ValueError(f"'{name}' is not whole")
                    row += rows
                if row != shape[0] or found[name].properties.dtype != torch.float32:
                    raise ValueError(f"'{name}' is not whole")
        except Exception as error:  # a damaged or hostile header can raise anything
            return self._unreadable(error)
        return ""

    def fill(self, state: dict[str, Any], section: str, whole: bool) -> None:
        """Put the tensors of a section, "model" or "optimizer", into a checkpoint's state.

        `whole`: read them; otherwise they are on the device "meta".
        Raises UserError if they cannot be read, or the optimizer state is malformed.
        """
        if section == "optimizer" and not all(isinstance(values, dict) for values in state["optimizer"].values()):
            raise UserError(f"'{self.path}' is not a valid checkpoint: its optimizer state is malformed.")
        shapes, device = self.shapes, "cpu" if whole else "meta"
        tensors = {n: torch.empty(shape, device=device) for n, shape in shapes.items() if n.startswith(section)}
        if whole:
            self.read_into(tensors)
        for flat, tensor in tensors.items():
            name = flat.partition(".")[2]
            if section == "model":
                state["model"][name] = tensor
            else:
                name, _, key = name.rpartition(".")
                state["optimizer"].setdefault(name, {})[key] = tensor
        for name, same in TIED.items():
            if same in state["model"] and f"model.{name}" not in shapes:
                state["model"][name] = state["model"][same]

    def read_into(self, tensors: Mapping[str, Tensor]) -> None:
        """Read tensors by flat name, in place. Each rank reads its shards of sharded tensors; then all must call it.

        Raises UserError, on all ranks, if they cannot be read.
        """
        import torch.distributed.checkpoint as dcp

        wanted = {name: tensor for name, tensor in tensors.items() if name in self.shapes}
        alone = not any(is_dtensor(tensor) for tensor in wanted.values())
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch warns if there is only one process
                dcp.load(wanted, storage_reader=dcp.HuggingFaceStorageReader(str(self.folder)), no_dist=alone)
        except dcp.CheckpointException as error:  # an error of any kind, here or on another rank
            raise UserError(self._unreadable(next(iter(error.failures.values()))[0])) from error

    def _unreadable(self, cause: BaseException) -> str:
        why = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        return f"The shards of the checkpoint '{self.path}' cannot be read ({one_line(why)}); use another checkpoint."
