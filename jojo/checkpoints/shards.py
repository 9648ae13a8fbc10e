"""A checkpoint in parts, for models that are shared out (fsdp): every rank writes its own, and reads what it needs.

    models/<run>.pt                                  the checkpoint without its large tensors, which says what belongs to it
    models/<run>.shards/<run id>-<batch>-<save>/     shard-00001-model-00001-of-00003.safetensors, ...

Every save has a folder of its own, which is never written to again. Checkpoints that were saved together share one.
A rank writes three files: parts of the weights, of AdamW's first and of its second averages. torch.distributed.checkpoint
decides who writes which part of a tensor (of copies, one) and where each is found, for any number of ranks that read. Its
safetensors form is used, in which there is no code to run. The `.pt` has the SHA-256 of every file, so it vouches for
them as it does for itself.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from jojo.checkpoints.file import Stamp
from jojo.machine.ranks import Ranks, is_dtensor
from utils import UserError, one_line, sha256_of

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

FILE_NUMBERS = {"model": 1, "exp_avg": 2, "exp_avg_sq": 3}  # in a file's name: what it has parts of
FILE_NAME = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")
PARTS_NAME = re.compile(r"([0-9a-f]{16})-(\d{1,20})-[0-9a-f]{8}")
LONGEST_FOLDER = 250
TIED = {"lm_head.weight": "transformer.wte.weight"}  # one matrix under two names


def parts_name(stamp: Stamp, save: str) -> str:
    """What a folder of parts is called; `save`: 8 hex digits that no other save has."""
    return f"{stamp.run_id}-{stamp.batch}-{save}"


def stamp_of_parts(folder: Path) -> Stamp | None:
    """Which run wrote a folder of parts, and after how many batches; None for other folders."""
    found = PARTS_NAME.fullmatch(folder.name)
    return Stamp(found[1], int(found[2])) if found else None


def flat_tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a checkpoint's state that are written in parts, by one name each."""
    tensors = {f"model.{name}": tensor.detach() for name, tensor in state["model"].items() if name not in TIED}
    for name, values in state["optimizer"].items():
        tensors |= {f"optimizer.{name}.{key}": value for key, value in values.items() if key in FILE_NUMBERS}
    return tensors


def write_parts(state: Mapping[str, Any], folder: Path, rank: int, group: ProcessGroup | None) -> dict[str, Any]:
    """Write this rank's part of the state's tensors into an empty folder; every rank of the group must.

    Returns:
        The size and SHA-256 of the files this rank wrote, by name. They are durable.

    Raises:
        OSError: the disk of one of them refuses.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    tensors = flat_tensors(state)
    kinds = {name: "model" if name.startswith("model.") else name.rpartition(".")[2] for name in tensors}
    numbers = {name: FILE_NUMBERS[kind] for name, kind in kinds.items()}
    writer = HuggingFaceStorageWriter(str(folder), fqn_to_index_mapping=numbers, save_distributed=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is one process only
            save(tensors, storage_writer=writer, process_group=group, no_dist=group is None)
    except CheckpointException as error:
        cause = next(iter(error.failures.values()))[0]
        raise OSError(getattr(cause, "errno", None), getattr(cause, "strerror", None) or one_line(cause)) from error
    mine = sorted(folder.glob(f"shard-{rank + 1:05}-*.safetensors"))
    return {path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in mine}


def index_of(state: Mapping[str, Any], folder: Path, files: Mapping[str, Any]) -> dict[str, Any]:
    """What the `.pt` holds: the state without the tensors that are in files, and what to know of those."""
    tensors = flat_tensors(state)
    rest = {
        name: {key: value for key, value in values.items() if key not in FILE_NUMBERS}
        for name, values in state["optimizer"].items()
    }
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    about = {"folder": f"{folder.parent.name}/{folder.name}", "files": dict(files), "tensors": shapes}
    return {**state, "model": {}, "optimizer": rest, "shards": about}


@dataclass(frozen=True)
class Shards:
    """The files that a checkpoint's tensors are in.

    folder: where they are, beside the `.pt`.
    files: size in bytes and SHA-256 of each, by name.
    shapes: of the whole tensors, by flat name. All are float32.
    """

    path: Path  # of the `.pt`
    folder: Path
    files: Mapping[str, tuple[int, str]]
    shapes: Mapping[str, tuple[int, ...]]

    @classmethod
    def listed_in(cls, path: Path, listed: Any) -> Shards:
        """From what a checkpoint says. Raises UserError where that is no list of such files."""
        try:
            fits = _is_list_of_parts(listed["folder"], listed["files"], listed["tensors"])
        except (TypeError, KeyError, AttributeError):
            fits = False
        if not fits:
            raise UserError(f"'{path}' is not a checkpoint as this version writes them: its list of parts is none.")
        files = {name: (entry["bytes"], entry["sha256"]) for name, entry in listed["files"].items()}
        shapes = {name: tuple(shape) for name, shape in listed["tensors"].items()}
        return cls(path, path.parent / listed["folder"], files, shapes)

    def verify(self, ranks: Ranks) -> None:
        """Compare the files with their SHA-256, of which each rank takes its share; then, what their headers say.

        Raises:
            UserError: one is missing or not what was written, or they do not make up the tensors; on all ranks.
        """
        for look in (self._wrong, self._gap):  # nothing is interpreted before all of it has been compared
            try:
                problem = look(ranks)
            except OSError as error:
                problem = self._unreadable(error)
            if problem := next(filter(None, ranks.all_gather_text(f"read parts of '{self.path.name}'", problem)), ""):
                raise UserError(problem)

    def _wrong(self, ranks: Ranks) -> str:
        """What is wrong with the files, in a sentence, as far as this rank looks; empty where nothing is."""
        there = {path.name for path in self.folder.iterdir() if path.is_file()} if self.folder.is_dir() else set()
        if missing := sorted(self.files.keys() - there):
            return (
                f"A part of the checkpoint '{self.path}' is missing ('{self.folder / missing[0]}'); put back the folder that "
                "was beside it, or use another checkpoint."
            )
        if more := sorted(there - self.files.keys()):
            return f"'{self.folder / one_line(more[0])}' is no part of the checkpoint '{self.path}'; remove it."
        for name in sorted(self.files)[ranks.rank :: ranks.world_size]:
            path, (size, digest) = self.folder / name, self.files[name]
            if path.stat().st_size != size or sha256_of(path) != digest:
                return (
                    f"The checkpoint '{self.path}' is damaged (the SHA-256 of its part '{path}' does not match); use "
                    "another one of the run."
                )
        return ""

    def _gap(self, _ranks: Ranks) -> str:
        """Where the rows of a tensor's parts do not follow one another from the first to the last, in a sentence."""
        from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

        try:
            found: Any = HuggingFaceStorageReader(str(self.folder)).read_metadata().state_dict_metadata
            for name, shape in self.shapes.items():
                row = 0
                for chunk in sorted(found[name].chunks, key=lambda chunk: chunk.offsets[0]):
                    rows, *rest = chunk.sizes
                    if rows:  # of a tensor with few, some ranks have none
                        follows = tuple(chunk.offsets) == (row, *[0] * len(rest))
                        if not follows or tuple(rest) != shape[1:]:
                            raise ValueError(f"'{name}' is not whole")
                        row += rows
                if row != shape[0] or found[name].properties.dtype != torch.float32:
                    raise ValueError(f"'{name}' is not whole")
        except Exception as error:  # whatever a damaged or hostile header makes the reader trip over
            return self._unreadable(error)
        return ""

    def fill(self, state: dict[str, Any], section: str, whole: bool) -> None:
        """Put the tensors of "model" or "optimizer" where they belong in a checkpoint's state.

        Args:
            state: of the checkpoint.
            section: of it.
            whole: read them; else only their shapes are there, on the device "meta".

        Raises:
            UserError: they cannot be read, or there is no place for them.
        """
        if section == "optimizer" and not all(isinstance(values, dict) for values in state["optimizer"].values()):
            raise UserError(
                f"'{self.path}' is not a checkpoint as this version writes them: its optimizer's state is none."
            )
        device = "cpu" if whole else "meta"
        shapes = {name: shape for name, shape in self.shapes.items() if name.startswith(section)}
        tensors = {name: torch.empty(shape, device=device) for name, shape in shapes.items()}
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
            if same in state["model"]:
                state["model"][name] = state["model"][same]

    def read_into(self, tensors: Mapping[str, Tensor]) -> None:
        """Read tensors by their flat names, in place. Where they are shared out, each rank its own parts; all must.

        Raises:
            UserError: they are not in the files as listed, or cannot be read; on all ranks.
        """
        from torch.distributed.checkpoint.api import CheckpointException
        from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
        from torch.distributed.checkpoint.state_dict_loader import load

        wanted = {name: tensor for name, tensor in tensors.items() if name in self.shapes}
        alone = not any(is_dtensor(tensor) for tensor in wanted.values())
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that there is one process only
                load(wanted, storage_reader=HuggingFaceStorageReader(str(self.folder)), no_dist=alone)
        except CheckpointException as error:  # whatever the reader tripped over, here or on another rank
            raise UserError(self._unreadable(next(iter(error.failures.values()))[0])) from error

    def _unreadable(self, cause: BaseException) -> str:
        why = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        return f"The parts of the checkpoint '{self.path}' cannot be read ({one_line(why)}); use another one."


def _is_list_of_parts(folder: str, files: Mapping[str, Any], shapes: Mapping[str, Any]) -> bool:
    """Whether these are names beside the `.pt`, with sizes and hashes, and shapes that so many bytes can fill."""
    beside, _, name = folder.partition(".shards/")
    plain = beside.isprintable() and not re.search(r"[/\\]|\.\.", beside) and 0 < len(beside) < LONGEST_FOLDER
    known = plain and PARTS_NAME.fullmatch(name) and all(map(FILE_NAME.fullmatch, files))
    sizes = [entry["bytes"] for entry in files.values()]
    hashed = all(re.fullmatch("[0-9a-f]{64}", entry["sha256"]) for entry in files.values())
    counts = [*sizes, *(n for shape in shapes.values() for n in shape)]
    if not (known and hashed and files and all(shapes.values()) and all(type(n) is int and n > 0 for n in counts)):
        return False
    named = all(name.startswith(("model.", "optimizer.")) for name in shapes)
    return named and 4 * sum(map(math.prod, shapes.values())) <= sum(sizes)
