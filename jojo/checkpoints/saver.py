"""Writing checkpoints beside the training: whole files by rank 0, or by every rank the part of the model that it has."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jojo.checkpoints.checkpoint import check_finite
from jojo.checkpoints.file import Stamp, copy_file, make_durable, read_file, refused, write_file
from jojo.checkpoints.run_files import RunFiles, remove_parts, run_of
from jojo.checkpoints.shards import index_of, parts_name, write_parts
from jojo.machine.ranks import SINGLE, OtherRankFailed, Ranks, local_tensor
from utils import UserError, log, one_line

FOLDER_SEEN_S = 90.0  # network file systems show a new file late


class NoSaver:
    """What the other ranks have where rank 0 writes for all."""

    @property
    def failed(self) -> Sequence[Path]:
        """Files that could not be written so far; for when nothing is in flight."""
        return ()

    def save(self, state: Mapping[str, Any], paths: Sequence[Path]) -> None:
        """Write the state to each path, beside the training."""

    def before_update(self) -> None:
        """The weights are about to change: a save that is at work takes care of its tensors."""

    def close(self) -> None:
        """Finish what is at work. Raises UserError where the weights were not fit to be saved."""

    def __enter__(self) -> NoSaver:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        """Close; what went wrong before counts, and not what it made of the save."""
        with suppress(Exception) if error else nullcontext():
            self.close()


class Saver(NoSaver):
    """Writes checkpoints beside the training: one save in flight, the next one waits.

    On a CPU nothing is copied for it: the tensors are read where they are while the next batch computes its gradients.
    Just before that batch changes them, `before_update` leaves them to a save that still needs them, and training goes
    on in a copy. From a GPU they are copied when the save begins.

    A save that fails is an error message and is tried again with the next one: the best model as it was then, the run's
    last checkpoint as it is by then. Weights that are not finite are never written, and end the run.
    """

    def __init__(self, files: RunFiles, keep: int | None, move: Callable[[], None]) -> None:
        """`keep`: numbered checkpoints to keep; None: all. `move`: has the training go on in a copy of its tensors."""
        self.files, self.keep, self.move = files, keep, move
        # By kind: a newer one takes an older one's place. None: lost, and still to be reported.
        self._owed: dict[str, tuple[Path, Mapping[str, Any] | None]] = {}
        self._fatal: Exception | None = None  # why nothing more can be saved
        self._thread: threading.Thread | None = None
        self._borrowed = False  # whether training's own tensors are still needed here

    def save(self, state: Mapping[str, Any], paths: Sequence[Path]) -> None:
        self.wait()
        state = self._taken(state)
        self._owed |= {self.files.kind(path): (path, state) for path in paths}
        self._thread = threading.Thread(target=self._work, args=(state,), name="checkpoint")
        self._thread.start()

    def before_update(self) -> None:
        """Call this before the weights change: a save that is still at work keeps those that it was given."""
        if self._borrowed:
            self._borrowed = False
            self.move()

    def _taken(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """The state as a save can have it for itself; on a CPU until `before_update`."""
        self._borrowed = any(value.device.type == "cpu" for value in state["model"].values())
        return in_memory(state, copy=not self._borrowed)

    def _check(self, state: Mapping[str, Any]) -> None:
        check_finite(state["model"])

    def store(self, state: Mapping[str, Any], path: Path) -> None:
        """Write a state, now. Raises UserError where the disk refuses."""
        write_file(state, path)

    def _copy(self, written: Path, path: Path) -> None:
        copy_file(written, path)

    def _failed(self, error: Exception) -> None:
        log.error("%s Training goes on, and the next save tries again.", error)

    def _sweep(self, state: Mapping[str, Any]) -> None:
        """Remove what is not to be kept any longer, when all is saved."""
        run_id = state.get("metadata", {}).get("run_id", "")
        if self.keep is not None:
            self.files.prune(run_id, self.keep)
        self.files.prune_parts(run_id)

    def _work(self, newest: Mapping[str, Any]) -> None:
        try:
            self._write(newest)
        except Exception as error:  # what goes wrong in a thread would otherwise go unseen
            self._fatal = error

    def _write(self, newest: Mapping[str, Any]) -> None:
        lent = self._borrowed
        self._check(newest)
        make_durable(self.files.metrics)  # its rows reach at least as far as the checkpoint, whatever happens
        written: Path | None = None  # where `newest` is on the disk
        refused = False  # whether some place did not take it: then it must stay as it is for the next save
        for kind, (path, state) in list(self._owed.items()):
            if state is None:
                continue
            try:
                if state is newest and written:
                    self._copy(written, path)
                else:
                    self.store(state, path)
                del self._owed[kind]
                log.debug("Saved %s", path)
            except OtherRankFailed:
                raise
            except Exception as error:
                self._failed(error)
                if state is newest and written and lent:  # its tensors may be others by now
                    self._owed[kind] = path, None
                    with suppress(UserError):  # without memory for it, say
                        self._owed[kind] = path, read_file(written)
                refused = refused or state is newest
                continue
            if state is newest:
                written = path
                self._borrowed = self._borrowed and refused
        if all(state is None for _, state in self._owed.values()):
            self._sweep(newest)

    def wait(self) -> None:
        """Until what was asked for is on the disk. Raises UserError when nothing more can be saved, as of bad weights."""
        if self._thread:
            self._thread.join()
            self._thread = None
        if self._fatal:
            raise self._fatal

    @property
    def failed(self) -> list[Path]:
        """Files that could not be written so far; for when nothing is in flight."""
        return [path for path, _ in self._owed.values()]

    def close(self) -> None:
        self.wait()


class ShardSaver(Saver):
    """For models that are shared out: every rank writes its part (shards.py), and rank 0 the `.pt` that says so.

    All ranks save together, in threads that have ways of their own between them. What fails on one has failed on all: so
    each knows what is still owed.
    """

    def __init__(self, files: RunFiles, keep: int | None, ranks: Ranks, device: str = "cpu") -> None:
        """Raises UserError, on all ranks, where they do not see the same folder."""
        super().__init__(files, keep, move=lambda: None)
        self.ranks, self.device = ranks, device
        patience = timedelta(seconds=ranks.timeout_s)
        self.group = None if ranks.is_single else torch.distributed.new_group(backend="gloo", timeout=patience)
        self._check_folder()

    def _check_folder(self) -> None:
        probe = self.files.folder / f".{self.files.run}.{self._exchange(os.getpid())[0]}.probe"
        with self._together():
            if self.ranks.is_main:
                probe.write_bytes(b"")
        with self._together():
            deadline = time.monotonic() + min(FOLDER_SEEN_S, self.ranks.timeout_s / 2)
            while not probe.exists():
                if time.monotonic() > deadline:
                    raise UserError(
                        f"Every rank writes a part of a checkpoint (fsdp), and rank {self.ranks.rank} does not see the "
                        f"'{self.files.folder}' of rank 0; put it on a file system that all machines share "
                        "(--output_checkpoint)."
                    )
                time.sleep(0.1)
        if self.ranks.is_main:
            probe.unlink(missing_ok=True)

    def _exchange(self, value: Any) -> list[Any]:
        """What each rank has, by rank. Raises OtherRankFailed where one is missing."""
        if self.ranks.is_single:
            return [value]
        values: list[Any] = [None] * self.ranks.world_size
        try:
            torch.distributed.all_gather_object(values, value, group=self.group)
        except RuntimeError as error:
            raise lost() from error
        return values

    @contextmanager
    def _together(self) -> Iterator[None]:
        """What goes wrong inside on one rank raises the same UserError on all."""
        problem = ""
        try:
            yield
        except UserError as error:
            problem = str(error)
        except torch.distributed.DistError as error:  # inside, all ranks wait for one another
            raise lost() from error
        except Exception as error:  # the others wait for this rank, whatever it was
            problem = one_line(error.strerror or error if isinstance(error, OSError) else error)
            log.debug("", exc_info=True)
        if problem := next(filter(None, self._exchange(problem)), ""):
            raise UserError(problem)

    def _taken(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

        parts = {name: state[name] for name in ("model", "optimizer")}
        rest = {name: value for name, value in state.items() if name not in parts}
        plain = StagingOptions(
            use_pinned_memory=False, use_shared_memory=False, use_async_staging=False, use_non_blocking_copy=False
        )
        stager = DefaultStager(plain)
        copied = stager.stage(parts)
        stager.close()
        assert isinstance(copied, dict)
        return in_memory(rest, copy=True) | copied

    def _write(self, newest: Mapping[str, Any]) -> None:
        if self.device.startswith("cuda"):  # a thread begins on the first one, where it would take memory
            torch.cuda.set_device(self.device)
        super()._write(newest)

    def _check(self, state: Mapping[str, Any]) -> None:
        with self._together():
            check_finite({name: local_tensor(tensor) for name, tensor in state["model"].items()})

    def store(self, state: Mapping[str, Any], path: Path) -> None:
        first, stamp = self.ranks.is_main, Stamp(state["metadata"]["run_id"], state["batch_counter"])
        folder = self.files.shards / parts_name(stamp, self._exchange(secrets.token_hex(4))[0])
        try:
            with self._together():
                if first:
                    unfinished(folder).mkdir(parents=True)
            with self._together():
                mine = write_parts(state, unfinished(folder), self.ranks.rank, self.group)
            files = {name: facts for part in self._exchange(mine) for name, facts in part.items()}
            with self._together():
                if first:
                    finish(folder)
        except OtherRankFailed:
            raise
        except UserError as error:
            if first:
                remove_parts(unfinished(folder))
            raise refused(path, str(error)) from error
        with self._together():
            if first:
                write_index(state, folder, files, path)

    def _copy(self, written: Path, path: Path) -> None:
        with self._together():
            if self.ranks.is_main:
                super()._copy(written, path)

    def _failed(self, error: Exception) -> None:
        if self.ranks.is_main:
            super()._failed(error)

    def _sweep(self, state: Mapping[str, Any]) -> None:
        if self.ranks.is_main:
            super()._sweep(state)

    @property
    def failed(self) -> list[Path]:
        return super().failed if self.ranks.is_main else []


def lost() -> OtherRankFailed:
    """Another rank did not take its part in a save."""
    return OtherRankFailed(
        "Another rank ended while a checkpoint was written, or took longer for its part than --system.timeout_minutes; see what it "
        "wrote last. --resume goes on from the run's last checkpoint."
    )


def unfinished(folder: Path) -> Path:
    """What a folder of parts is called until it is whole."""
    return folder.with_name(f".{folder.name}.tmp")


def finish(folder: Path) -> None:
    """Give a folder of parts its name, durably."""
    make_durable(unfinished(folder))
    os.replace(unfinished(folder), folder)
    make_durable(folder.parent)


def write_index(state: Mapping[str, Any], folder: Path, files: Mapping[str, Any], path: Path) -> None:
    """Write the `.pt` that the parts belong to; where the disk refuses it, they go."""
    try:
        write_file(index_of(state, folder, files), path)
    except BaseException:
        remove_parts(folder)
        raise


def write_in_parts(state: Mapping[str, Any], path: Path) -> None:
    """Write a whole state as ShardSaver does, in one process. Raises UserError where the disk refuses."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files = RunFiles(path.with_name(run_of(path) + ".pt"))  # a run's checkpoints have their parts in one place
    ShardSaver(files, None, SINGLE).store(state, path)


def in_memory(value: Any, copy: bool, copies: dict[Any, Tensor] | None = None) -> Any:
    """Nested values with all tensors in the CPU's memory; tensors that share memory (tied weights) still do.

    Args:
        value: mappings, lists, tuples, tensors and plain values; what can change of it, but tensors, is copied.
        copy: copy tensors too; else those in the CPU's memory are views of the originals.
        copies: those made so far, by what they are copies of.
    """
    copies = {} if copies is None else copies
    if isinstance(value, Tensor):
        key = value.device, value.data_ptr(), value.dtype, value.shape, value.stride()
        if key not in copies:
            copies[key] = value.detach().to("cpu", copy=copy)
        return copies[key]
    if isinstance(value, Mapping):
        return {name: in_memory(entry, copy, copies) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(in_memory(entry, copy, copies) for entry in value)
    return value
