"""The files of a run: their names, who may write them, which are kept, and which one to go on from.

    models/<run>.pt                the last checkpoint             models/<run>.metrics.jsonl   one row per batch
    models/<run>_best.pt           lowest validation loss          models/<run>.png             the picture
    models/<run>_batch<N>.pt       every checkpoint_interval       models/<run>_batch<N>.png    one every plot_interval
    models/<run>.config.json       what was decided                models/tensorboard/<run>/    with --tensorboard
    models/.<run>.lock             held while training          models/.<run>.job            which torchrun job trains it

Every checkpoint carries the identity of its run. What another run left under one of these names, or this one left of
batches that are about to be done anew, is moved to models/old/<run>-<time>/ and never written over.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch import Tensor

from checkpoint import (
    Checkpoint,
    Stamp,
    check_finite,
    copy_file,
    load_checkpoint,
    make_durable,
    read_file,
    read_stamp,
    write_file,
)
from utils import UserError, byte_count, log, replace_text, user_path


class CheckpointManager:
    """Names and keeps the files of one run."""

    def __init__(self, last: Path) -> None:
        self.last = last
        self.folder, self.run = last.parent, last.name.removesuffix(".pt")

    @property
    def best(self) -> Path:
        return self.folder / f"{self.run}_best.pt"

    @property
    def metrics(self) -> Path:
        return self.folder / f"{self.run}.metrics.jsonl"

    @property
    def plot(self) -> Path:
        return self.folder / f"{self.run}.png"

    @property
    def config(self) -> Path:
        return self.folder / f"{self.run}.config.json"

    @property
    def tensorboard(self) -> Path:
        return self.folder / "tensorboard" / self.run

    def numbered(self, batch: int, suffix: str = ".pt") -> Path:
        return self.folder / f"{self.run}_batch{batch}{suffix}"

    def all_numbered(self, suffix: str = ".pt") -> list[Path]:
        """The numbered checkpoints (or pictures) that are there, by name only."""
        name = re.compile(re.escape(self.run) + r"_batch\d+" + re.escape(suffix))
        return sorted(p for p in self.folder.glob(f"*{suffix}") if name.fullmatch(p.name))

    def checkpoints(self) -> list[Path]:
        """All checkpoints under the run's name that are there."""
        return [path for path in (self.last, *self.all_numbered(), self.best) if path.exists()]

    def kind(self, path: Path) -> str:
        """Which of the run's checkpoints a path is: "last", "best" or "numbered"."""
        return {self.last: "last", self.best: "best"}.get(path, "numbered")

    def owns(self, path: Path) -> bool:
        """Whether a checkpoint is one of this run's files."""
        stem = re.sub(r"_(best|batch\d+)$", "", path.name.removesuffix(".pt"))
        return path.parent.resolve() == self.folder.resolve() and self.run in (stem, path.name.removesuffix(".pt"))

    def existing(self) -> list[Path]:
        """Files of this run that are there now."""
        named = (self.last, self.best, self.metrics, self.plot, self.config, self.tensorboard)
        return [p for p in (*named, *self.all_numbered(), *self.all_numbered(".png")) if p.exists()]

    # --- a torchrun job ---------------------------------------------------------------------------------------------

    @property
    def job(self) -> Path:
        """Which job is training the run now, and as which run: for a restart, which is to go on with that."""
        return self.folder / f".{self.run}.job"

    def begin_job(self, job: str, run_id: str) -> None:
        """Note that this job is at the run from now on."""
        replace_text(self.job, json.dumps({"job": job, "run_id": run_id}))

    def is_of_job(self, job: str) -> bool:
        """Whether this job has begun the run under this name, and saved it since."""
        try:
            told = json.loads(self.job.read_text())
        except (OSError, ValueError):
            return False
        stamps = [read_stamp(path) for path in self.checkpoints()]
        return any(stamp and told == {"job": job, "run_id": stamp.run_id} for stamp in stamps)

    # --- before training --------------------------------------------------------------------------------------------

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other training runs away from these files. Raises UserError when one is at work, or nothing can be written."""
        self.check_writable()
        lock = FileLock(self.folder / f".{self.run}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"Another training run is writing '{self.last}'; wait until it ends, "
                "or name another place with --output_checkpoint."
            ) from None
        except NotImplementedError:  # a file system without locks
            log.warning("'%s' cannot lock files; make sure that only one run writes there.", self.folder)
        try:
            self.sweep_up()
            yield
        finally:
            lock.release()

    def sweep_up(self) -> None:
        """Remove what a killed process left half-written of this run (and of no other, which may be at work)."""
        name = re.compile(re.escape(f".{self.run}") + r"(_best|_batch\d+)?\.(pt|png|config\.json)\.\d+\.tmp")
        for path in self.folder.glob(".*.tmp"):
            if name.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def check_writable(self) -> None:
        """Raises UserError now rather than at the first save when the folder cannot be written."""
        probe = self.folder / f".{self.run}.{os.getpid()}.probe"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise UserError(
                f"Cannot write to '{self.folder}' ({error.strerror}); "
                "check its permissions, or name another place with --output_checkpoint."
            ) from error

    def make_room(self, time: str) -> None:
        """Before a fresh start: move an earlier run's files of this name to old/<run>-<time>/, and say so."""
        if files := self.existing():
            old = self._move_aside(files, time)
            log.info("Moved the files of an earlier run '%s' to %s/.", self.run, old)

    def set_later_aside(self, run_id: str, batch: int, time: str) -> None:
        """Before going on from `batch`: move this run's checkpoints of later batches to old/<run>-<time>/, and say so.

        They belong to batches that are about to be done anew, perhaps with something changed; left in place, they would
        be taken for the newest. The metrics so far are copied with them.
        """
        stamps = {path: read_stamp(path) for path in self.checkpoints()}
        later = [path for path, stamp in stamps.items() if stamp and stamp.run_id == run_id and stamp.batch > batch]
        if later:
            old = self._move_aside(later, time)
            if self.metrics.exists():
                shutil.copy2(self.metrics, old / self.metrics.name)
            log.info("Moved the checkpoints of later batches than %s to %s/.", f"{batch:,}", old)

    def _move_aside(self, files: Sequence[Path], time: str) -> Path:
        old = self.folder / "old" / f"{self.run}-{time}"
        tries = 1
        while old.exists():
            tries += 1
            old = old.with_name(f"{self.run}-{time}-{tries}")
        old.mkdir(parents=True)
        for path in files:
            os.replace(path, old / path.name)
        return old

    def take_metrics_of(self, checkpoint: Path, run: str) -> None:
        """Start the metrics file with the rows of the run that is gone on from under this name."""
        rows = checkpoint.parent / f"{run}.metrics.jsonl"
        if rows.is_file() and not self.metrics.exists():
            shutil.copyfile(rows, self.metrics)

    # --- going on ---------------------------------------------------------------------------------------------------

    def newest_first(self) -> list[Path]:
        """The run's checkpoints, by the batch recorded in them; those without a stamp last, another run's left out."""
        found = self.checkpoints()
        stamps = {path: read_stamp(path) or Stamp("", -1) for path in found}
        own = stamps[self.last].run_id if self.last in stamps else ""
        same = [path for path in found if not own or stamps[path].run_id in ("", own)]
        return sorted(same, key=lambda path: stamps[path].batch, reverse=True)

    def newest_valid(self) -> Checkpoint:
        """The newest checkpoint that can be read; each that cannot is named in a warning.

        Raises:
            UserError: there is none.
        """
        problems: list[str] = []
        for path in self.newest_first():
            try:
                checkpoint = load_checkpoint(path)
            except UserError as error:
                problems.append(str(error))
                continue
            for problem in problems:
                log.warning("%s", problem)
            if problems:
                log.warning("Going on from '%s' instead.", path)
            return checkpoint
        if problems:
            raise UserError(f"No checkpoint of the run '{self.run}' can be read: {' '.join(problems)}")
        near = sorted(str(p) for p in self.folder.glob(f"{glob.escape(self.run.rsplit('_epoch', 1)[0])}_epoch*.pt"))
        other = f"--resume {near[-1]} goes on from another one" if near else "start the run without --resume"
        raise UserError(f"Nothing to resume: there is no '{self.last}'; {other}.")

    # --- keeping ----------------------------------------------------------------------------------------------------

    def prune(self, run_id: str, keep: int) -> None:
        """Remove this run's numbered checkpoints but the newest `keep`, by the batch recorded in them."""
        own = [(stamp.batch, p) for p in self.all_numbered() if (stamp := read_stamp(p)) and stamp.run_id == run_id]
        for _, path in sorted(own)[: max(0, len(own) - keep)]:
            try:
                path.unlink()
                log.debug("Removed %s", path)
            except OSError as error:
                log.warning("Could not remove the older checkpoint '%s' (%s).", path, error.strerror)


class Saver:
    """Writes checkpoints beside the training: one save in flight, the next one waits.

    On a CPU nothing is copied for it: the tensors are read where they are while the next batch computes its gradients.
    Just before that batch changes them, `before_update` leaves them to a save that still needs them, and training goes
    on in a copy. From a GPU they are copied when the save begins.

    A save that fails is an error message and is tried again with the next one: the best model as it was then, the run's
    last checkpoint as it is by then. Weights that are not finite are never written, and end the run.
    """

    def __init__(self, files: CheckpointManager, keep: int | None, move: Callable[[], None]) -> None:
        """`keep`: numbered checkpoints to keep; None: all. `move`: has the training go on in a copy of its tensors."""
        self.files, self.keep, self.move = files, keep, move
        # By kind: a newer one takes an older one's place. None: lost, and still to be reported.
        self._owed: dict[str, tuple[Path, Mapping[str, Any] | None]] = {}
        self._not_finite: UserError | None = None
        self._thread: threading.Thread | None = None
        self._borrowed = False  # whether training's own tensors are still needed here

    def save(self, state: Mapping[str, Any], paths: Sequence[Path], is_copy: bool = False) -> None:
        """Write the state to each path in the background; `is_copy`: training uses none of its tensors."""
        self.wait()
        self._borrowed = not is_copy and any(value.device.type == "cpu" for value in state["model"].values())
        state = in_memory(state, copy=not (is_copy or self._borrowed))
        self._owed |= {self.files.kind(path): (path, state) for path in paths}
        self._thread = threading.Thread(target=self._write, args=(state,), name="checkpoint")
        self._thread.start()

    def before_update(self) -> None:
        """Call this before the weights change: a save that is still at work keeps those that it was given."""
        if self._borrowed:
            self._borrowed = False
            self.move()

    def _write(self, newest: Mapping[str, Any]) -> None:
        try:
            check_finite(newest["model"])
        except UserError as error:
            self._not_finite = error
            return
        make_durable(self.files.metrics)  # its rows reach at least as far as the checkpoint, whatever happens
        written: Path | None = None  # where `newest` is on the disk
        refused = False  # whether some place did not take it: then it must stay as it is for the next save
        for kind, (path, state) in list(self._owed.items()):
            if state is None:
                continue
            try:
                if state is newest and written:
                    copy_file(written, path)
                else:
                    write_file(state, path)
                del self._owed[kind]
                log.debug("Saved %s (%s)", path, byte_count(path.stat().st_size))
            except Exception as error:  # what goes wrong in a thread would otherwise go unseen
                log.error("%s Training goes on, and the next save tries again.", error)
                if state is newest and written:  # its tensors may be others by now
                    self._owed[kind] = path, None
                    with suppress(UserError):  # without memory for it, say
                        self._owed[kind] = path, read_file(written)
                refused = refused or state is newest
                continue
            if state is newest:
                written = path
                self._borrowed = self._borrowed and refused
        if self.keep is not None and all(state is None for _, state in self._owed.values()):
            self.files.prune(newest["metadata"]["run_id"], self.keep)

    def wait(self) -> None:
        """Until what was asked for is on the disk. Raises UserError when the weights were not fit to be saved."""
        if self._thread:
            self._thread.join()
            self._thread = None
        if self._not_finite:
            raise self._not_finite

    @property
    def failed(self) -> list[Path]:
        """Files that could not be written so far; for when nothing is in flight."""
        return [path for path, _ in self._owed.values()]

    close = wait


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


def run_path(output: str | None, dataset: str, max_epochs: int) -> Path:
    """Where a run's last checkpoint goes: --output_checkpoint, else models/<dataset>_epoch<max_epochs>.pt."""
    if output is None:
        return Path("models") / f"{dataset}_epoch{max_epochs}.pt"
    path = user_path(output)
    if not path.name or path.is_dir():
        raise UserError(f"--output_checkpoint '{output}' names no file; give it one, like models/mine.pt.")
    if taken := re.search(r"_(best|batch\d+)(\.pt)?$", path.name):
        raise UserError(
            f"--output_checkpoint '{output}': a name that ends in _{taken[1]} is a checkpoint of the run before it; "
            "choose another one."
        )
    return path if path.suffix == ".pt" else path.with_name(path.name + ".pt")


def newest_checkpoint(folder: Path) -> Path:
    """The checkpoint written last in a folder; what gen.py talks to when none is named."""
    found = [p for p in folder.glob("*.pt") if not p.name.startswith(".")]
    if not found:
        raise UserError(f"No model in '{folder}/'; train one first: python train.py --config configs/story-small.json")
    return max(found, key=lambda p: p.stat().st_mtime)
