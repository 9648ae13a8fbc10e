"""Run train.py on one of several ranks and trigger an event: tests/helpers/ranks_script.py EVENT FLAGS ...

With RANKS=n in the environment, it forks n ranks, prints their exit codes, and rank N prints to rank-N.txt. So PyTorch is
imported only once. Ranks that still run 10 s after rank 0 has ended are killed.

EVENT is kind:rank:batch. It happens once, not again after a restart. Kinds: kill (SIGKILL), term (SIGTERM), nan (the rank's
loss is not finite), sleep (the rank does nothing for 5 s), full (the rank's disk is full at the next save).
Every rank writes a line to syncs-RANK.txt when its gradients are reduced; with fsdp the line counts the batch's collectives.
"""

import errno
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import train
import trainer
from jojo import plotting
from jojo.command import run_command
from jojo.machine import estimate

SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM}


def trigger(event: str, trainer: Any) -> None:
    """Trigger the event if this is its rank and batch."""
    kind, rank, batch = event.split(":")
    restarted = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    if restarted or trainer.ranks.rank != int(rank) or trainer.batches_done != int(batch):
        return
    if kind == "full":
        fill_disk_once()
    elif kind == "sleep":
        time.sleep(5)
    elif kind == "nan":
        forward = trainer.model.forward
        trainer.model.forward = lambda *args: forward(*args) * torch.nan
    else:
        os.kill(os.getpid(), SIGNALS[kind])


def fill_disk_once() -> None:
    """Make this rank's next write of shards fail as on a full disk; later writes work."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter  # takes half a second

    write = HuggingFaceStorageWriter.write_data

    def refuses(*_: Any) -> Any:
        HuggingFaceStorageWriter.write_data = write
        raise OSError(errno.ENOSPC, "No space left on device")

    HuggingFaceStorageWriter.write_data = refuses  # type: ignore[method-assign]


class Collectives(TorchDispatchMode):
    """Counts the operators of process groups by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if str(op).startswith("c10d"):
            self.counts[str(op)] += 1
        return op(*args, **kwargs or {})


def note_sync(path: Path, bucket: torch.distributed.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """Reduce as DDP does by default, and write a line for the last bucket of a batch."""
    if bucket.is_last():
        with open(path, "a") as file:
            file.write("sync\n")
    return allreduce_hook(None, bucket)


def become_rank(ranks: int) -> None:
    """Return in each of so many forked processes as another rank; in this one, wait for them and exit."""
    import torch._dynamo  # noqa: F401  (DDP and FSDP import it, which takes 2 s)

    processes = []
    for rank in range(ranks):
        if not (process := os.fork()):
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
            output = os.open(f"rank-{rank}.txt", os.O_CREAT | os.O_WRONLY)
            os.dup2(output, 1)
            os.dup2(output, 2)
            return
        processes.append(process)
    codes = [os.waitstatus_to_exitcode(os.waitpid(processes[0], 0)[1])]
    late = threading.Timer(10, lambda: [os.kill(process, signal.SIGKILL) for process in processes[1:]])
    late.start()
    codes += [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes[1:]]
    late.cancel()
    print(json.dumps(codes))
    sys.exit()


def main() -> None:
    event, flags = sys.argv[1], sys.argv[2:]
    if "RANKS" in os.environ:
        become_rank(int(os.environ["RANKS"]))
    step, make = trainer.Trainer.step, trainer.Trainer.__init__

    def watched_step(self: Any, batch: Any) -> Any:
        trigger(event, self)
        if not self.run.sharded:
            return step(self, batch)
        with Collectives() as collectives:
            result = step(self, batch)
        with open(f"syncs-{self.ranks.rank}.txt", "a") as file:
            file.write(json.dumps(collectives.counts) + "\n")
        return result

    def watched_make(self: Any, run: Any) -> None:
        make(self, run)
        if not run.sharded:
            self.replica.register_comm_hook(Path(f"syncs-{self.ranks.rank}.txt"), note_sync)

    trainer.Trainer.step, trainer.Trainer.__init__ = watched_step, watched_make  # type: ignore[method-assign, assignment]
    plotting.PlotManager.draw = lambda *_: None  # type: ignore[method-assign, assignment]
    estimate.measure_cpu_peak_flops = lambda dtype: 1e11  # type: ignore[assignment]
    run_command(train.main, flags, has_ranks=True)


if __name__ == "__main__":
    main()
