"""The files of a run: their names, who may write them, which ones are kept, and which one to continue from.

docs/checkpoints.md and docs/monitoring.md list them. Every checkpoint holds the id of its run. Files of another run under
these names, and checkpoints of batches that will be trained again, are moved to models/old/<run>-<time>/ and never overwritten.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shlex
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from jojo.checkpoints.checkpoint import Checkpoint, load_checkpoint
from jojo.checkpoints.file import TRAIN_FIRST, Stamp, copy_file, read_file, read_stamp, stamp_in
from jojo.checkpoints.shards import FOLDER_NAME, Shards
from jojo.machine.ranks import SINGLE, Ranks
from jojo.metrics import lock as lock_file
from utils import UserError, log, parse_json, replace_text, user_path

KINDS = r"(_best|_batch\d+)?\.(pt|png|config\.json|metrics\.jsonl|report\.html)"  # how the names of a run's files end
UNSTAMPED = Stamp("", -1)  # an older format, or a damaged end


class RunFiles:
    """Names and keeps the files of one run."""

    def __init__(self, last: Path) -> None:
        self.last = last
        self.folder, self.run = last.parent, last.name.removesuffix(".pt")
        self.best = self.folder / f"{self.run}_best.pt"
        self.metrics = self.folder / f"{self.run}.metrics.jsonl"
        self.plot = self.folder / f"{self.run}.png"
        self.report = self.folder / f"{self.run}.report.html"
        self.config = self.folder / f"{self.run}.config.json"
        self.tensorboard = self.folder / "tensorboard" / self.run
        self.shards = self.folder / f"{self.run}.shards"
        self.lock = self.folder / f".{self.run}.lock"  # a run that trains holds it
        self.job = self.folder / f".{self.run}.job"  # which torchrun job trains this run

    def numbered(self, batch: int, suffix: str = ".pt") -> Path:
        return self.folder / f"{self.run}_batch{batch}{suffix}"

    def own(self, suffix: str = "") -> list[Path]:
        """The run's files in the folder by name, so the last checkpoint is before the numbered ones and the best."""
        name = re.compile(re.escape(self.run) + KINDS)
        return sorted(p for p in self.folder.glob(f"*{suffix}") if name.fullmatch(p.name))

    def stamps(self) -> dict[Path, Stamp]:
        """The stamps of the run's checkpoints that are in the folder, by path."""
        return {path: read_stamp(path) or UNSTAMPED for path in self.own(".pt")}

    def kind(self, path: Path) -> str:
        """Which of the run's checkpoints a path is: "last", "best" or "numbered"."""
        return {self.last: "last", self.best: "best"}.get(path, "numbered")

    def owns(self, path: Path) -> bool:
        """Whether a path is a checkpoint of this run."""
        names = run_of(path), path.name.removesuffix(".pt")
        return path.parent.resolve() == self.folder.resolve() and self.run in names

    def newest_of(self, run_id: str) -> tuple[Path, int] | None:
        """The newest checkpoint that a run has saved, and its batch."""
        own = [(path, stamp.batch) for path, stamp in self.stamps().items() if stamp.run_id == run_id]
        return max(own, key=lambda entry: entry[1], default=None)

    def begin_job(self, job: str, run_id: str) -> None:
        """Note that this job trains the run from now on: a restart of the job continues it."""
        replace_text(self.job, json.dumps({"job": job, "run_id": run_id}))

    def is_of_job(self, job: str) -> bool:
        """Whether this job began the run, and has saved a checkpoint since."""
        with suppress(OSError, ValueError):
            noted = parse_json(self.job.read_text())
            return any(noted == {"job": job, "run_id": stamp.run_id} for stamp in self.stamps().values())
        return False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Lock these files for this run. Raises UserError if another run holds them, or the folder cannot be written."""
        lock, other = FileLock(self.lock), "use another --output_checkpoint"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            longest = self.numbered(10**12, ".png.9999999.tmp")
            longest.touch()  # fails if the run's name is too long for this file system
            longest.unlink()
            lock.acquire(timeout=0)
            with suppress(FileNotFoundError), open(self.metrics, "r+b") as rows:
                if not lock_file(rows):  # its run is still training, but somebody removed the lock file
                    lock.release()
                    raise Timeout(str(self.metrics))
        except Timeout:
            raise UserError(f"Another training run is writing '{self.last}'; wait until it ends, or {other}.") from None
        except NotImplementedError:  # a file system without locks
            log.warning("'%s' cannot lock files; make sure that only one run writes there.", self.folder)
        except OSError as error:
            why = error.strerror
            raise UserError(f"Cannot write to '{self.folder}' ({why}); check its permissions, or {other}.") from error
        try:
            self.sweep_up()
            yield
        finally:
            lock.release()

    def sweep_up(self) -> None:
        """Remove half-written files of this run that a killed process left. Other runs may still be writing theirs."""
        name = re.compile(rf"\.{{1,2}}{re.escape(self.run)}({KINDS}|\.job)\.\d+\.tmp")
        for path in self.folder.glob(".*.tmp"):
            if name.fullmatch(path.name):
                path.unlink(missing_ok=True)
        for path in self.shards.glob(".*.tmp"):
            shutil.rmtree(path, ignore_errors=True)

    def start(self, checkpoint: Checkpoint | None, run_id: str, batches_done: int, resumes: bool) -> None:
        """Before the first batch: move files that are in the way to models/old. `resumes`: the run keeps its own files.

        Raises UserError if another run has replaced `checkpoint`, which training starts from, meanwhile.
        """
        now = time.strftime("%Y%m%d-%H%M%S")
        if not resumes:
            rows = b""
            if checkpoint and batches_done and checkpoint.version == "3":  # it continues as a new run, with its metrics
                path = checkpoint.path.with_name(f"{checkpoint.state['metadata']['run']}.metrics.jsonl")
                rows = path.read_bytes() if path.is_file() else b""  # before make_room, which may move this file
            self.make_room(now)
            self.metrics.write_bytes(rows)
            return
        assert checkpoint
        if read_stamp(checkpoint.path) != Stamp(run_id, batches_done):
            raise UserError(f"Another run replaced '{checkpoint.path}' while this one started; start again.")
        self.set_later_aside(run_id, batches_done, now)

    def make_room(self, now: str) -> None:
        """Before a new run: move an earlier run's files of this name to old/<run>-<time>/, and say so."""
        if files := [*self.own(), *filter(Path.exists, [self.tensorboard])]:
            old = self._move_aside(files, now)
            free = next(p for n in range(2, 10**9) if not RunFiles(p := self.folder / f"{self.run}-{n}.pt").own())
            keep = f"--output_checkpoint {shlex.quote(str(free))}"
            log.info("Moved the files of an earlier run '%s' to %s/. To keep both here, use %s.", self.run, old, keep)

    def set_later_aside(self, run_id: str, batch: int, now: str) -> None:
        """Before a run continues from `batch`: move its checkpoints of later batches to old/<run>-<time>/, and say so.

        The run will train these batches again, perhaps with other settings. Checkpoints that stayed would count as the
        newest. The metrics so far are copied with them.
        """
        if later := [p for p, stamp in self.stamps().items() if stamp.run_id == run_id and stamp.batch > batch]:
            old = self._move_aside(later, now)
            if self.metrics.exists():
                shutil.copy2(self.metrics, old / self.metrics.name)
            log.info("Moved the checkpoints of later batches than %s to %s/.", f"{batch:,}", old)

    def _move_aside(self, files: Sequence[Path], now: str) -> Path:
        old = self.folder / "old" / f"{self.run}-{now}"
        while old.exists():
            old = old.with_name(f"{old.name}-2")
        old.mkdir(parents=True)
        shards = set[Path]()
        for path in files:
            with suppress(OSError, UserError):  # a checkpoint that cannot be read moves without its shards
                if path.suffix == ".pt" and (folder := shards_of(path)) and folder.is_dir():
                    shards.add(folder)
        for folder in shards:  # copied, and before the checkpoints: after a kill each checkpoint has its shards
            shutil.copytree(folder, old / folder.relative_to(self.folder), copy_function=link_or_copy)
        for path in files:
            shutil.move(path, old / path.name)  # os.replace would fail if old/ is on another file system
        for folder in shards - self.used_shards(or_else=shards):
            shutil.rmtree(folder, ignore_errors=True)
        return old

    def newest_first(self) -> list[Path]:
        """This run's checkpoints, newest first by the batch in their stamps; those without a stamp are last."""
        stamps = self.stamps()
        own = stamps.get(self.last, UNSTAMPED).run_id
        same = [path for path in stamps if not own or stamps[path].run_id in ("", own)]
        return sorted(same, key=lambda path: stamps[path].batch, reverse=True)

    def newest_valid(self, ranks: Ranks = SINGLE) -> Checkpoint:
        """The newest checkpoint that can be read; a warning names each that cannot. Raises UserError if none can."""
        problems: list[str] = []
        for path in self.newest_first():
            try:
                checkpoint = load_checkpoint(path, ranks)
            except UserError as error:
                problems.append(str(error))
                continue
            for problem in problems:
                log.warning("%s", problem)
            if problems:
                log.warning("Continuing from '%s' instead.", path)
            return checkpoint
        if problems:
            raise UserError(f"No checkpoint of the run '{self.run}' can be read: {' '.join(problems)}")
        near = sorted(str(p) for p in self.folder.glob(f"{glob.escape(self.run.rsplit('_epoch', 1)[0])}_epoch*.pt"))
        resume = shlex.join(["--resume", *near[-1:]])
        other = f"{resume} continues from another one" if near else "start the run without --resume"
        raise UserError(f"Nothing to resume: '{self.last}' does not exist; {other}.")

    def finish_save(self, source: Path, paths: Sequence[Path], keep: int | None) -> None:
        """Write those of `paths` that a kill during the save of `source` prevented. They are copies of it."""
        saved, stamps = read_stamp(source) or UNSTAMPED, self.stamps()
        for path in paths:
            there = stamps.get(path, Stamp(saved.run_id, -1))
            if there.run_id == saved.run_id and there.batch < saved.batch:
                copy_file(source, path)
                log.info("Wrote '%s', which the last save did not finish.", path)
        self.prune(saved.run_id, keep)

    def prune(self, run_id: str, keep: int | None) -> None:
        """After a save: remove this run's numbered checkpoints except the newest `keep` (None: keep all) by their stamps.

        Also remove its shards that are older than its newest checkpoint and that no checkpoint uses.
        """
        own = sorted((stamp.batch, path) for path, stamp in self.stamps().items() if stamp.run_id == run_id)
        numbered = [path for _, path in own if self.kind(path) == "numbered"]
        excess = 0 if keep is None else max(0, len(numbered) - keep)
        for path in numbered[:excess]:
            with suppress(OSError):  # the next save tries again
                path.unlink()
        found = filter(None, (FOLDER_NAME.fullmatch(folder.name) for folder in self.shards.glob("*")))
        newest = max((batch for batch, _ in own), default=0)
        old = {self.shards / name[0] for name in found if name[1] == run_id and int(name[2]) <= newest}
        for folder in old and old - self.used_shards(or_else=old):
            shutil.rmtree(folder, ignore_errors=True)

    def used_shards(self, or_else: set[Path]) -> set[Path]:
        """The shards of all checkpoints in the folder, also other runs'; `or_else` if one of them cannot be read."""
        try:
            return {folder for path in self.folder.glob("*.pt") if (folder := shards_of(path))}
        except (OSError, UserError):
            return or_else


def shards_of(path: Path) -> Path | None:
    """The folder of a checkpoint's shards; None if it has none. Raises OSError or UserError if it cannot be read."""
    stamp = stamp_in(path)
    return Shards.listed_in(path, read_file(path).get("shards")).folder if stamp and stamp.has_shards else None


def run_of(path: Path) -> str:
    """The name of a checkpoint's run."""
    return re.sub(r"_(best|batch\d+)\Z", "", path.name.removesuffix(".pt"))


def link_or_copy(source: str, target: str) -> None:
    """Hard-link a file; copy it if the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def run_path(output: str | None, dataset: str, max_epochs: int) -> Path:
    """Where a run's last checkpoint goes: --output_checkpoint, else models/<dataset>_epoch<max_epochs>.pt."""
    if output is None:
        return Path("models") / f"{dataset}_epoch{max_epochs}.pt"
    path = user_path(output)
    if not path.name or path.is_dir():
        raise UserError(f"--output_checkpoint '{output}' does not name a file; give one, like models/mine.pt.")
    if taken := re.search(r"_(best|batch\d+)(\.pt)?$", path.name):
        raise UserError(f"--output_checkpoint '{output}': _{taken[1]} is for other checkpoints; choose another name.")
    return path if path.suffix == ".pt" else path.with_name(path.name + ".pt")


def newest_checkpoint(folder: Path) -> Path:
    """The newest checkpoint in a folder, which gen.py uses if no model is named. Of one save, the run's last checkpoint."""
    found = [p for p in folder.glob("*.pt") if p.is_file() and not p.name.startswith(".")]
    if not found:
        raise UserError(f"No model in '{folder}/'; train one first: {TRAIN_FIRST}")
    newest = max(found, key=lambda p: p.stat().st_mtime)
    last = newest.with_name(f"{run_of(newest)}.pt")  # the same save has also written _best and _batch<N>
    stamp = read_stamp(newest)
    return last if stamp and last in found and read_stamp(last) == stamp else newest
