"""Ranks: the processes that train one model together. In a single process the same calls return at once.

PyTorch's process groups move tensors between them (NCCL between GPUs, gloo between CPUs), and its wrappers reduce the
gradients (training/placement.py). Here the ranks agree on texts and flags, and one of them reports an error.
"""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor

from jojo.command import RANK_0_FIRST_S
from utils import UserError, duration, log

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

POLL_S = 0.05  # between two reads of the store
SAY_S = 10.0  # after this long a wait is logged, with the ranks that are late
LATE = 0.8  # of the timeout: an error after such a wait means that another rank is late, not dead
SAME_INPUT = "give every machine the same files and the same command."
DIED = "Another rank ended unexpectedly; see its output above and torchrun's summary below. --resume continues the run."


class OtherRankFailed(UserError):
    """Another rank ended or does not answer."""


@dataclass(eq=False)
class Ranks:
    """This process as one of the ranks; by default it is the only one."""

    rank: int = 0  # rank 0, the main rank, writes the files and prints for all
    world_size: int = 1  # the number of ranks on all machines
    local_rank: int = 0  # the rank's number on this machine, also that of its GPU
    local_world_size: int = 1
    job: str = ""  # torchrun's name of the job, the same after a restart
    restarts: int = 0  # how often torchrun has restarted the ranks of this machine
    by_torchrun: bool = True  # torchrun started the ranks, not another launcher
    named_job: bool = False  # the user named the job (--rdzv_id): the same name later means the same job
    store: Any = None  # short texts by name, which all ranks read and write
    timeout_s: float = 600.0  # how long a rank waits for the others while they train
    exchanges: int = 0  # how many collectives this rank has started
    batch: int = 0  # the batch that this rank is in, from 1
    heartbeat_at: float = math.inf  # when this rank started its last collective (time.monotonic)

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def is_single(self) -> bool:
        return self.world_size == 1

    # Texts go through the store, mostly before training. A wait for a text has no limit, because a rank may still tokenize.
    # Ctrl-C ends the wait. When a rank dies, torchrun ends the others.

    def broadcast_text(self, name: str, text: str) -> str:
        """Rank 0's text on every rank; the others wait for it."""
        if self.is_single:
            return text
        if self.is_main:
            self.store.set(f"text/{name}", text)
        self._wait([f"text/{name}"])
        return self.store.get(f"text/{name}").decode()

    @contextmanager
    def main_first(self, name: str) -> Iterator[None]:
        """Run the block on rank 0; the other ranks run it when rank 0 has finished."""
        if not self.is_main:
            self.broadcast_text(name, "")
        yield
        if self.is_main:
            self.broadcast_text(name, "")

    def all_gather_text(self, topic: str, text: str) -> list[str]:
        """The texts of all ranks, by rank. Raises UserError if another rank gathers texts on another topic."""
        if self.is_single:
            return [text]
        self.heartbeat()
        names = [f"gather/{self.exchanges}/{rank}" for rank in range(self.world_size)]
        self.store.set(names[self.rank], json.dumps([topic, text]))
        self._wait(names)
        gathered = [json.loads(item) for item in self.store.multi_get(names)]
        if others := [rank for rank, (other, _) in enumerate(gathered) if other != topic]:
            raise UserError(f"Rank {others[0]} does not do what rank {self.rank} does ({topic}); {SAME_INPUT}")
        return [text for _, text in gathered]

    def raise_together(self, topic: str, problem: str) -> None:
        """Raises UserError on all ranks if the `problem` of one of them is not empty."""
        if problem := next(filter(None, self.all_gather_text(topic, problem)), ""):
            raise UserError(problem)

    def check_same(self, facts: Mapping[str, str]) -> None:
        """Raises UserError on all ranks if one of them has other facts than rank 0."""
        expected = json.loads(self.broadcast_text("facts", json.dumps(dict(facts))))
        wrong = [name for name, fact in facts.items() if fact != expected.get(name)]
        own = f"Rank {self.rank} ({platform.node()}) differs from rank 0 in: {', '.join(wrong[:4])}; {SAME_INPUT}"
        self.raise_together("compare", own if wrong else "")

    def _wait(self, names: list[str]) -> None:
        """Wait for texts in small steps: Ctrl-C cannot interrupt the store's own wait."""
        self.heartbeat_at = math.inf  # this wait has no limit, so no rank is late
        say_at = time.monotonic() + SAY_S
        while not self.store.check(names):
            if time.monotonic() > say_at and len(names) == self.world_size:
                say_at = math.inf
                late = [rank for rank, name in enumerate(names) if not self.store.check([name])]
                log.info("Waiting for %s.", name_ranks(late).lower())
            time.sleep(POLL_S)

    # Tensors go through process groups. With gloo, a rank that waits gets an error: at once if the other rank died, after
    # timeout_s if it is late. all_reduce_max always uses gloo, because NCCL's kernels wait on the GPU for a dead rank.

    def connect(self, device: str, timeout_s: float) -> None:
        """Create the process groups for this rank's device, after all ranks have come this far."""
        if self.is_single:
            return
        self.timeout_s = timeout_s
        self.all_gather_text("connect", "")
        self.heartbeat()
        on_cuda = device.startswith("cuda")
        if on_cuda:
            torch.cuda.set_device(device)
        torch.distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if on_cuda else "gloo",
            store=self.store, rank=self.rank, world_size=self.world_size, timeout=timedelta(seconds=timeout_s),
        )  # fmt: skip

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks, in place, with the same bits on each."""
        if not self.is_single:
            self.heartbeat()
            torch.distributed.all_reduce(tensor)
        return tensor

    def broadcast(self, tensor: Tensor) -> Tensor:
        """Rank 0's values on every rank, in place."""
        if not self.is_single:
            self.heartbeat()
            torch.distributed.broadcast(tensor, 0)
        return tensor

    def all_reduce_max(self, *numbers: int) -> list[int]:
        """For each of the numbers, its maximum over all ranks."""
        if self.is_single:
            return list(numbers)
        self.heartbeat()
        tensor = torch.tensor(numbers, dtype=torch.int64)
        gathered = [torch.empty_like(tensor) for _ in range(self.world_size)] if self.is_main else None
        torch.distributed.gather(tensor, gathered)  # gloo's all_reduce would go around all ranks twice
        if gathered:
            tensor = torch.stack(gathered).amax(0)
        torch.distributed.broadcast(tensor, 0)
        return tensor.tolist()

    def all_true(self, here: bool) -> bool:
        """Whether `here` is true on all ranks."""
        return not any(self.all_reduce_max(not here))

    # The user sees one message for the whole run: the first error that a rank reports. The other ranks print nothing.

    def heartbeat(self, batch: int | None = None) -> None:
        """Record in the store that this rank starts its next collective, and in which batch."""
        if not self.is_single:
            self.exchanges += 1
            self.batch = self.batch if batch is None else batch
            self.store.set(f"at/{self.rank}", f"{self.exchanges} {self.batch}")
            self.heartbeat_at = time.monotonic()

    @contextmanager
    def explain_failures(self) -> Iterator[None]:
        """Turn an error that another rank caused into OtherRankFailed, which names that rank if it is known."""
        try:
            yield
        except RuntimeError as error:
            if self.is_single or not (isinstance(error, torch.distributed.DistError) or "gloo" in str(error).lower()):
                raise
            # The rank that times out first disconnects the others, so their errors say little: compare how long they waited.
            if time.monotonic() - self.heartbeat_at < LATE * self.timeout_s:
                raise OtherRankFailed(DIED) from error
            late = f"{self._late_ranks()} did not answer for {duration(self.timeout_s)} (--system.timeout_minutes)"
            raise OtherRankFailed(f"{late}; look at what it does and what it wrote last.") from error

    def _late_ranks(self) -> str:
        """Name the ranks that have started fewer collectives than the others, which wait for them."""
        with suppress(RuntimeError):  # the store ended with rank 0's machine
            texts = self.store.multi_get([f"at/{rank}" for rank in range(self.world_size)])
            exchanges, batches = zip(*(map(int, text.split()) for text in texts), strict=True)
            if late := [rank for rank in range(self.world_size) if exchanges[rank] < max(exchanges)]:
                return f"{name_ranks(late)} (last seen in batch {min(batches[rank] for rank in late):,})"
        return "Another rank"

    def report(self, problem: str) -> str:
        """What this rank prints: the first problem of all ranks if it is its own; rank 0 also prints one from another machine."""
        if not self.is_main:
            time.sleep(RANK_0_FIRST_S)
        own = json.dumps([self.rank, platform.node(), problem])
        try:
            rank, machine, first = json.loads(self.store.compare_set("problem", "", own))
        except RuntimeError:  # the store ended with rank 0, which has reported
            return problem if self.is_main else ""
        if rank == self.rank or (self.is_main and machine != platform.node()):
            return f"[rank {rank}, {machine}] {first}" if rank else first
        return ""


SINGLE = Ranks()


def name_ranks(numbers: Sequence[int]) -> str:
    """The beginning of a sentence about ranks: "Ranks 1, 2, 3"."""
    more = f" and {len(numbers) - 8} more" if len(numbers) > 8 else ""
    return f"Rank{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers[:8]))}{more}"


def is_dtensor(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether each rank holds a shard of the tensor. isinstance() would have to import DTensor, which takes a second."""
    return hasattr(tensor, "full_tensor")


def local_tensor(tensor: Tensor) -> Tensor:
    """This rank's shard of a sharded tensor, without a copy; a plain tensor as it is."""
    return tensor.to_local() if is_dtensor(tensor) else tensor


def full_tensor(tensor: Tensor) -> Tensor:
    """The whole tensor, gathered from all ranks if it is sharded. Every rank must call it."""
    return tensor.full_tensor() if is_dtensor(tensor) else tensor


def n_shards(tensor: Tensor) -> int:
    """How many ranks share a tensor; 1 for a plain one."""
    return tensor.device_mesh.size(-1) if is_dtensor(tensor) else 1


class Shares:
    """Deals out n matrices that are sharded by rows: each rank gets about n / ranks of them whole.

    Copies of the model (system.shard_ranks) do this apart, each with its own ranks. A plain tensor has one rank.
    """

    def __init__(self, like: Tensor, n: int) -> None:
        """For n matrices with the shape and shards of `like` (rows, columns)."""
        rows, self.columns = like.shape
        self.group = like.device_mesh.get_group("shard") if is_dtensor(like) else None
        ranks, rank = n_shards(like), self.group.rank() if self.group else 0
        most = -(-rows // ranks)
        self.rows = [max(0, min(most, rows - r * most)) for r in range(ranks)]  # of a matrix, in each rank's shard
        self.counts = [n // ranks + (r < n % ranks) for r in range(ranks)]  # matrices that each rank gets
        self.own_rows, self.own_count = self.rows[rank], self.counts[rank]
        self.first_row = sum(self.rows[:rank])

    def gather(self, shards: Tensor) -> Tensor:
        """From this rank's rows of all matrices (n, own rows, columns) to all rows of its matrices (own n, rows, columns)."""
        if self.group is None:
            return shards
        sizes = [self.own_count * rows for rows in self.rows]
        received = shards.new_empty(sum(sizes), self.columns)
        sent = [count * self.own_rows for count in self.counts]
        torch.distributed.all_to_all_single(received, shards.flatten(0, 1), sizes, sent, self.group)
        parts = zip(torch.split(received, sizes), self.rows, strict=True)
        return torch.cat([part.view(self.own_count, rows, self.columns) for part, rows in parts], 1)

    def scatter(self, whole: Tensor) -> Tensor:
        """Inverse of gather."""
        if self.group is None:
            return whole
        parts = torch.cat([part.flatten(0, 1) for part in torch.split(whole, self.rows, 1)])
        sizes = [count * self.own_rows for count in self.counts]
        received = whole.new_empty(sum(sizes), self.columns)
        sent = [self.own_count * rows for rows in self.rows]
        torch.distributed.all_to_all_single(received, parts, sizes, sent, self.group)
        return received.view(sum(self.counts), self.own_rows, self.columns)


def copy_into(tensor: Tensor, values: Tensor, source: int | None = None) -> None:
    """Copy the values of a full tensor into one that may be sharded.

    Without `source`, every rank must have the same values. With it, all ranks must call this and get the values of that rank.
    """
    if is_dtensor(tensor):
        from torch.distributed.tensor import distribute_tensor

        values, mesh = values.to(tensor.device), tensor.device_mesh
        values = distribute_tensor(values, mesh, tensor.placements, src_data_rank=source).to_local()
    local_tensor(tensor).copy_(values)
