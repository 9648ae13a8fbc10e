"""train.py as one of several ranks, in one of which something happens: tests/helpers/ranks_script.py WHAT FLAGS ...

WHAT is nothing, or kind:rank:batch; kinds are kill (SIGKILL), term (SIGTERM), nan (its loss is none), sleep (for long),
full (its disk refuses the next save).
It happens in the first start only. Every rank writes a line to syncs-RANK.txt when its gradients were added to the others';
with fsdp a line a batch, of its collectives by their kinds.
"""

import errno
import json
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import train
import trainer
from jojo import plotting
from jojo.command import run_command
from jojo.machine import estimate

SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM}


def happens(what: str, own: Any) -> None:
    """Let it happen, if this is the place."""
    kind, rank, batch = what.split(":")
    if (
        own.ranks.rank != int(rank)
        or own.batches_done != int(batch)
        or os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    ):
        return
    if kind == "full":
        fill_disk_once()
    elif kind == "sleep":
        time.sleep(5)
    elif kind == "nan":
        forward = own.model.forward
        own.model.forward = lambda *args: forward(*args) * torch.nan
    else:
        os.kill(os.getpid(), SIGNALS[kind])


def fill_disk_once() -> None:
    """Have the disk refuse this rank's part of the next save, and then take everything."""
    write = HuggingFaceStorageWriter.write_data

    def refuses(*_: Any) -> Any:
        HuggingFaceStorageWriter.write_data = write
        raise OSError(errno.ENOSPC, "No space left on device")

    HuggingFaceStorageWriter.write_data = refuses  # type: ignore[method-assign]


class Messages(TorchDispatchMode):
    """Counts the operators of process groups by their names."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if str(op).startswith("c10d"):
            self.counts[str(op)] += 1
        return op(*args, **kwargs or {})


def note_sync(path: Path, bucket: torch.distributed.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """The usual reduction, and a line where it was a batch's last one."""
    if bucket.is_last():
        with open(path, "a") as file:
            file.write("sync\n")
    return allreduce_hook(None, bucket)


def main() -> None:
    what, flags = sys.argv[1], sys.argv[2:]
    step, make = trainer.Trainer.step, trainer.Trainer.__init__

    def watched_step(own: Any, batch: Any) -> Any:
        if what != "nothing":
            happens(what, own)
        if not own.run.sharded:
            return step(own, batch)
        with Messages() as messages:
            result = step(own, batch)
        with open(f"syncs-{own.ranks.rank}.txt", "a") as file:
            file.write(json.dumps(messages.counts) + "\n")
        return result

    def watched_make(own: Any, run: Any) -> None:
        make(own, run)
        if not run.sharded:
            own.replica.register_comm_hook(Path(f"syncs-{own.ranks.rank}.txt"), note_sync)

    trainer.Trainer.step, trainer.Trainer.__init__ = watched_step, watched_make  # type: ignore[method-assign, assignment]
    plotting.PlotManager.draw = lambda *_: None  # type: ignore[method-assign, assignment]
    estimate.measure_cpu_peak_flops = lambda dtype: 1e11  # type: ignore[assignment]
    run_command(train.main, flags)


if __name__ == "__main__":
    main()
