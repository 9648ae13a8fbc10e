"""Writes checkpoints while training continues: rank 0 writes whole files, or every rank writes its shards."""

from __future__ import annotations

import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jojo.checkpoints.checkpoint import check_finite
from jojo.checkpoints.file import copy_file, save_errors, write_file
from jojo.checkpoints.run_files import RunFiles
from jojo.checkpoints.shards import without_shards, write_shards
from jojo.machine.ranks import SINGLE, OtherRankFailed, Ranks, local_tensor
from utils import UserError, log, make_durable, one_line

FOLDER_SEEN_S = 90.0  # network file systems show a new file late
MISSING_RANK = "Another rank ended during a save, or took longer than --system.timeout_minutes; continue with --resume."


class NoSaver:
    """The saver of a run or a rank that writes no checkpoints."""

    @property
    def failed(self) -> Sequence[Path]:
        """Files that could not be written so far. Call wait() before you read it."""
        return ()

    def save(self, state: Mapping[str, Any], paths: Sequence[Path]) -> None:
        """Write the state to each path, while training continues."""

    def before_update(self) -> None:
        """Call this before the weights change, so that a running save still writes the old ones."""

    def wait(self) -> None:
        """Wait for the running save. Raises an error if nothing more can be saved."""

    def __enter__(self) -> NoSaver:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        """Wait for the save. An error of the block is kept: it may have caused the save's error."""
        with suppress(Exception) if error else nullcontext():
            self.wait()


class Saver(NoSaver):
    """Writes checkpoints in a thread, one save at a time; the next one waits.

    If a save fails, it prints an error, and the next save writes the same state again, unless it has a newer one of the
    same kind (last, best, numbered). Weights that are not finite are never written, and end the run.

    On a GPU the tensors are copied when a save begins. On a CPU save and training share them until the next update; if the
    save is not finished then, training continues in a copy. Always copying would cost 12 bytes per parameter at every save
    (360 MB of the 1.2 GB of configs/default.json).
    """

    def __init__(self, files: RunFiles, keep: int | None, move: Callable[[], None]) -> None:
        """`keep`: how many numbered checkpoints; None: all. `move`: makes the training continue in a copy of its tensors."""
        self.files, self.keep, self.move, self.ranks = files, keep, move, SINGLE
        self._pending: dict[str, tuple[Path, Mapping[str, Any]]] = {}  # by kind, what is not on the disk yet
        self._shares_training_tensors = False  # whether a pending state may use tensors that training updates in place
        self._fatal: Exception | None = None  # why nothing more can be saved: non-finite weights, or a missing rank
        self._thread: threading.Thread | None = None

    @property
    def failed(self) -> list[Path]:
        return [path for path, _ in self._pending.values()] if self.ranks.is_main else []

    def save(self, state: Mapping[str, Any], paths: Sequence[Path]) -> None:
        self.wait()
        state = self._snapshot(state)
        self._pending |= {self.files.kind(path): (path, state) for path in paths}
        self._thread = threading.Thread(target=self._work, args=(state,), name="checkpoint")
        self._thread.start()

    def before_update(self) -> None:
        if self._shares_training_tensors:
            self._shares_training_tensors = False
            self.move()

    def wait(self) -> None:
        if self._thread:
            self._thread.join()
            self._thread = None
        if self._fatal:
            raise self._fatal

    def _work(self, newest: Mapping[str, Any]) -> None:
        try:
            self._write(newest)
        except Exception as error:  # wait() raises it; in a thread nobody would see it
            self._fatal = error

    def _write(self, newest: Mapping[str, Any]) -> None:
        """Write all that is pending; `newest` is the state of this save."""
        with self._fail_together():
            check_finite({name: local_tensor(tensor) for name, tensor in newest["model"].items()})
        make_durable(self.files.metrics)  # the checkpoint needs these rows, so they are written first
        written: Path | None = None  # where `newest` is on the disk
        for kind, (path, state) in list(self._pending.items()):
            try:
                if state is newest and written:
                    with self._fail_together():
                        if self.ranks.is_main:
                            copy_file(written, path)
                else:
                    self.store(state, path)
            except OtherRankFailed:
                raise
            except Exception as error:
                if self.ranks.is_main:
                    log.error("%s Training continues; the next save tries again.", error)
                continue
            del self._pending[kind]
            written = path if state is newest else written
        if not self._pending:
            self._shares_training_tensors = False
            if self.ranks.is_main:
                self.files.prune(newest["metadata"]["run_id"], self.keep)

    def _snapshot(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """A copy of the state, but on a CPU its tensors are shared with training until `before_update`."""
        self._shares_training_tensors = any(value.device.type == "cpu" for value in state["model"].values())
        return in_memory(state, copy=not self._shares_training_tensors)

    def store(self, state: Mapping[str, Any], path: Path) -> None:
        """Write a state now. Raises UserError if the disk fails."""
        write_file(state, path)

    def _fail_together(self) -> AbstractContextManager[None]:
        """A context for a step: if it fails on one rank, it fails on all. Here there is only one."""
        return nullcontext()


class ShardSaver(Saver):
    """For models that are sharded over ranks: every rank writes its shards (shards.py), and rank 0 the `.pt`.

    All ranks save together, in threads with a process group of their own. If a save fails on one rank, it fails on all,
    so that all ranks have the same pending saves.
    """

    def __init__(self, files: RunFiles, keep: int | None, ranks: Ranks, device: str = "cpu") -> None:
        """Raises UserError, on all ranks, if they do not see the same folder."""
        super().__init__(files, keep, move=lambda: None)
        self.ranks, self.device = ranks, device
        timeout = timedelta(seconds=ranks.timeout_s)
        self.group = None if ranks.is_single else torch.distributed.new_group(backend="gloo", timeout=timeout)
        probe = files.folder / f".{files.run}.{self._all_gather(os.getpid())[0]}.probe"
        with self._fail_together(), save_errors(files.last):
            if ranks.is_main:
                probe.touch()
        with self._fail_together():
            deadline = time.monotonic() + min(FOLDER_SEEN_S, ranks.timeout_s / 2)
            while not probe.exists():
                if time.monotonic() > deadline:
                    unseen = f"Rank {ranks.rank} does not see the folder '{files.folder}' of rank 0"
                    shared = "put it on a file system that all machines share (--output_checkpoint)"
                    raise UserError(f"{unseen}, and with fsdp every rank writes to it; {shared}.")
                time.sleep(0.1)
        if ranks.is_main:
            probe.unlink(missing_ok=True)

    def _all_gather(self, value: Any) -> list[Any]:
        """Every rank's value, by rank. Raises OtherRankFailed if a rank is missing."""
        values: list[Any] = [value] * self.ranks.world_size
        if not self.ranks.is_single:
            try:
                torch.distributed.all_gather_object(values, value, group=self.group)
            except RuntimeError as error:
                raise OtherRankFailed(MISSING_RANK) from error
        return values

    @contextmanager
    def _fail_together(self) -> Iterator[None]:
        """An error in the block on one rank raises the same UserError on all ranks."""
        problem = ""
        try:
            yield
        except UserError as error:
            problem = str(error)
        except torch.distributed.DistError as error:  # the block waited for a missing rank
            raise OtherRankFailed(MISSING_RANK) from error
        except Exception as error:  # any error: the other ranks wait for this one
            problem = one_line(str(error) or repr(error))
            log.debug("", exc_info=True)
        if problem := next(filter(None, self._all_gather(problem)), ""):
            raise UserError(problem)

    def _write(self, newest: Mapping[str, Any]) -> None:
        if self.device.startswith("cuda"):  # a new thread would use GPU 0 and take memory there
            torch.cuda.set_device(self.device)
        super()._write(newest)

    def _snapshot(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

        sharded = {name: state[name] for name in ("model", "optimizer")}
        rest = {name: value for name, value in state.items() if name not in sharded}
        plain = StagingOptions(False, False, False, False)  # no pinned or shared memory, nothing asynchronous
        with closing(DefaultStager(plain)) as stager:
            copied: Any = stager.stage(sharded)
        return in_memory(rest, copy=True) | copied

    def store(self, state: Mapping[str, Any], path: Path) -> None:
        save = self._all_gather(secrets.token_hex(4))[0]
        folder = self.files.shards / f"{state['metadata']['run_id']}-{state['batch_counter']}-{save}"
        unfinished = folder.with_name(f".{folder.name}.tmp")
        try:
            with self._fail_together(), save_errors(path):
                if self.ranks.is_main:
                    unfinished.mkdir(parents=True)
            with self._fail_together(), save_errors(path):
                mine = write_shards(state, unfinished, self.ranks.rank, self.group)
            files = {name: facts for one_rank in self._all_gather(mine) for name, facts in one_rank.items()}
            with self._fail_together(), save_errors(path):
                if self.ranks.is_main:
                    make_durable(unfinished)
                    os.replace(unfinished, folder)
                    make_durable(folder.parent)
                    write_file(without_shards(state, folder, files), path)
        except OtherRankFailed:
            raise
        except UserError:
            if self.ranks.is_main:
                shutil.rmtree(unfinished, ignore_errors=True)
                shutil.rmtree(folder, ignore_errors=True)
            raise


def in_memory(value: Any, copy: bool, copies: dict[Any, Tensor] | None = None) -> Any:
    """Nested values with all tensors in the CPU's memory; tensors that share memory (tied weights) still do.

    Containers are always copied. Without `copy`, tensors on the CPU share memory with the originals.
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
