"""A checkpoint in parts, for models that are shared out (fsdp): every rank writes its own, and reads what it needs.

    models/<run>.pt                              the checkpoint without its large tensors, which says what belongs to it
    models/<run>.shards/<run id>-<batch>/        shard-00001-model-00001-of-00003.safetensors, ...

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

from distributed import Ranks, is_shared_out
from utils import UserError, log, one_line, sha256_of

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

FILE_NUMBERS = {"model": 1, "exp_avg": 2, "exp_avg_sq": 3}  # in a file's name: what it has parts of
FILE_NAME = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")
FOLDER_NAME = re.compile(r"[^/\\]+\.shards/[0-9a-f]{16}-\d{1,20}")
TIED = {"lm_head.weight": "transformer.wte.weight"}  # one matrix under two names


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
    numbers = {name: FILE_NUMBERS[name.split(".")[0] if name.startswith("model.") else name.rpartition(".")[2]]
               for name in tensors}  # fmt: skip
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
        """Compare the files with their SHA-256, before anything in them is interpreted; each rank takes its share.

        Raises:
            UserError: one is missing or not what was written; on all ranks.
        """
        problem = ""
        there = {path.name for path in self.folder.iterdir() if path.is_file()} if self.folder.is_dir() else set()
        if missing := sorted(self.files.keys() - there):
            problem = (
                f"A part of the checkpoint '{self.path}' is missing ('{self.folder / missing[0]}'); put back the folder that "
                "was beside it, or use another checkpoint."
            )
        elif more := sorted(there - self.files.keys()):
            problem = f"'{self.folder / one_line(more[0])}' is no part of the checkpoint '{self.path}'; remove it."
        else:
            for name in sorted(self.files)[ranks.rank :: ranks.world_size]:
                path, (size, digest) = self.folder / name, self.files[name]
                if path.stat().st_size != size or sha256_of(path) != digest:
                    problem = (
                        f"The checkpoint '{self.path}' is damaged (the SHA-256 of its part '{path}' does not match); use "
                        "another one of the run."
                    )
        if problem := next(filter(None, ranks.from_all(f"read parts of '{self.path.name}'", problem)), ""):
            raise UserError(problem)

    def fill(self, state: dict[str, Any], whole: bool) -> None:
        """Put the tensors where they belong in a checkpoint's state: whole ones, or only their shapes (of device "meta")."""
        make = torch.empty if whole else lambda *shape: torch.empty(*shape, device="meta")
        tensors = {name: make(*shape) for name, shape in self.shapes.items()}
        if whole:
            self.read_into(tensors)
        for flat, tensor in tensors.items():
            section, _, name = flat.partition(".")
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
            UserError: they are not in the files as listed.
        """
        from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
        from torch.distributed.checkpoint.state_dict_loader import load

        alone = not any(is_shared_out(tensor) for tensor in tensors.values())
        try:
            self._check_covered(HuggingFaceStorageReader(str(self.folder)).read_metadata().state_dict_metadata)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that there is one process only
                load(dict(tensors), storage_reader=HuggingFaceStorageReader(str(self.folder)), no_dist=alone)
        except Exception as error:  # whatever the reader trips over
            log.debug("%s", error)
            raise UserError(
                f"The parts of the checkpoint '{self.path}' do not make up its tensors; use another one."
            ) from error

    def _check_covered(self, found: Mapping[str, Any]) -> None:
        """Raises ValueError where a tensor's parts are not as many numbers as it has."""
        for name, shape in self.shapes.items():
            parts = found[name]
            numbers = sum(math.prod(chunk.sizes) for chunk in parts.chunks)
            whole = tuple(parts.size) == shape and numbers == math.prod(shape)
            if not whole or parts.properties.dtype != torch.float32:
                raise ValueError(name)


def _is_list_of_parts(folder: str, files: Mapping[str, Any], shapes: Mapping[str, Any]) -> bool:
    """Whether these are names beside the `.pt`, with sizes and hashes, and shapes that so many bytes can fill."""
    known = FOLDER_NAME.fullmatch(folder) and ".." not in folder and all(map(FILE_NAME.fullmatch, files))
    sizes = [entry["bytes"] for entry in files.values()]
    hashed = all(re.fullmatch("[0-9a-f]{64}", entry["sha256"]) for entry in files.values())
    counts = [*sizes, *(n for shape in shapes.values() for n in shape)]
    if not (known and hashed and files and all(shapes.values()) and all(type(n) is int and n > 0 for n in counts)):
        return False
    named = all(name.startswith(("model.", "optimizer.")) for name in shapes)
    return named and 4 * sum(map(math.prod, shapes.values())) <= sum(sizes)
