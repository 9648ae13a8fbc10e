"""Run rank 0 of 64 without the other ranks: tests/helpers/fake_ranks_script.py CASE ... > measured.json

A CASE is train.py's flags in one argument. For each, the real Trainer runs some batches on PyTorch's fake process group, whose
collectives send nothing. Each case prints one line of JSON: the bytes of all tensors before the last batch, the peak in it,
and a batch's collectives by kind as [number, bytes]. For a sharded tensor, the bytes of the whole tensor count.

With --dtype bfloat16, fsdp gathers blocks in bfloat16 here, as it otherwise does only on CUDA.
"""

import gc
import json
import os
import shlex
import sys
import tempfile
from collections import defaultdict
from contextlib import nullcontext
from pathlib import Path
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # silences the profiler; set before torch is imported

import torch
import torch.distributed as dist
import torch.distributed.fsdp
from torch.profiler import ProfilerActivity, profile, record_function
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from data_loader import DeviceBatch
from jojo.machine.ranks import Ranks
from trainer import Trainer
from training.flags import build_parser, read_request
from training.run import prepare_run

RANKS = 64
KINDS = {
    "allreduce": "all-reduce", "all_reduce": "all-reduce", "allgather_base": "all-gather",
    "reduce_scatter_base": "reduce-scatter", "broadcast": "broadcast", "alltoall_base": "all-to-all",
}  # fmt: skip


class FakeRanks(Ranks):
    """Rank 0 of 64. All ranks are assumed to have the same texts and flags as this one."""

    def connect(self, device: str, timeout_s: float) -> None:
        self.timeout_s = timeout_s

    def check_same(self, facts: Any) -> None: ...

    def heartbeat(self, batch: int | None = None) -> None: ...

    def all_reduce_max(self, *numbers: int) -> list[int]:  # its collectives are not counted
        return list(numbers)

    def broadcast_text(self, name: str, value: str) -> str:
        return value


class Collectives(TorchDispatchMode):
    """Counts the operators of process groups by kind, and the bytes of the largest tensor of each."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(hasattr(kind, "full_tensor") for kind in types):  # a DTensor: it calls the operators on its parts
            return NotImplemented
        name = str(op).split(".")[1].strip("_")
        if "c10d" in str(op) and name in KINDS:
            entry = self.seen[KINDS[name]]
            entry[0] += 1
            entry[1] += max(map(tensor_bytes, args))
        return op(*args, **kwargs or {})


def tensor_bytes(value: Any) -> int:
    """The bytes of a tensor, or of all tensors in a list."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    return sum(map(tensor_bytes, value)) if isinstance(value, (list, tuple)) else 0


def reduced(group: None, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """Do what DDP does with a bucket by default; the future of the fake group's all-reduce has no tensor."""
    dist.all_reduce(bucket.buffer().div_(RANKS))
    done: torch.futures.Future[torch.Tensor] = torch.futures.Future()
    done.set_result(bucket.buffer())
    return done


def as_on_cuda() -> None:
    """From now on use fsdp as placement.shard does on CUDA, where autocast also casts LayerNorm's weights to float32."""
    policy, layer_norm = torch.distributed.fsdp.MixedPrecisionPolicy, torch.nn.functional.layer_norm

    def low(*_: Any, **flags: Any) -> torch.distributed.fsdp.MixedPrecisionPolicy:
        return policy(torch.bfloat16, torch.float32, **flags)

    def wide(x: torch.Tensor, shape: Any, *weights: Any) -> torch.Tensor:
        return layer_norm(x, shape, *(w.float() if isinstance(w, torch.Tensor) else w for w in weights))

    torch.distributed.fsdp.MixedPrecisionPolicy, torch.nn.functional.layer_norm = low, wide  # type: ignore[misc, assignment]


def measured(flags: list[str], folder: Path) -> dict[str, Any]:
    """The values of the line of JSON for a run with these flags."""
    args = build_parser().parse_args(flags)
    collectives = Collectives()
    if getattr(args, "system.dtype") == "bfloat16":
        as_on_cuda()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        run = prepare_run(read_request(args, flags), FakeRanks(0, RANKS, 0, 8))
        trainer = Trainer(run)
        if not run.sharded:
            trainer.replica.register_comm_hook(None, reduced)  # type: ignore[operator]
        model, training = run.config.model, run.config.training
        steps = training.gradient_accumulation_steps // RANKS
        ids = torch.randint(0, 100, (steps, training.batch_size, model.block_size))
        first = () if run.sharded else (nullcontext(),)  # DDP's first batch differs
        watches = *first, nullcontext(), collectives, record_function("batch")
        for watched in watches:
            with watched:
                trainer.step(DeviceBatch(ids, ids, ids.numel() * RANKS))
            trainer.batches_done += 1
    recorded.export_chrome_trace(str(folder / "trace.json"))
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    begin = next(event["ts"] for event in events if event.get("name") == "batch")
    now = most = before = 0
    for when, change in sorted((e["ts"], e["args"]["Bytes"]) for e in events if e.get("name") == "[memory]"):
        now += change
        before, most = (now, most) if when < begin else (before, max(most, now))
    return {"before": before, "peak": most, "collectives": collectives.seen}


def main() -> None:
    gc.freeze()  # collecting between cases takes less then
    with tempfile.TemporaryDirectory() as folder:
        for case in sys.argv[1:]:
            dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=RANKS)  # type: ignore[no-untyped-call]
            print(json.dumps(measured(shlex.split(case), Path(folder))), flush=True)
            dist.destroy_process_group()
            gc.collect()  # otherwise this case's memory is freed in the next one


if __name__ == "__main__":
    main()
