"""Ranks: the processes that train one model together. Alone, the same calls do nothing.

torchrun starts the processes and gives each its number in the environment. PyTorch's process groups move tensors between
them (NCCL between GPUs, gloo between CPUs), and its wrappers (placement.py) add up their gradients. What is left to do
here is to agree: on what must be the same everywhere, on when to stop, and on who says what went wrong.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor

from jojo.command import RANK_0_FIRST_S
from utils import UserError, duration, log

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

WAIT_S = 0.05  # between two looks into the store
SAY_S = 10.0  # after so long, say what is waited for
LOST = ("Connection closed by peer", "Connection reset", "Broken pipe", "Socket closed", "Connection refused")
LATE = ("timed out", "timeout")
WAITED = 0.8  # of its patience: a rank that is cut off after that had waited for the same one


class OtherRankFailed(UserError):
    """Another rank ended, or does not answer."""


@dataclass(eq=False)
class Ranks:
    """This process among those that train together; as it is by default, alone.

    rank: its number, from 0. Rank 0 writes all files and speaks for all.
    world_size: how many there are, on all machines.
    local_rank, local_world_size: the same on this machine. A rank's GPU has its local number.
    job: torchrun's name of the job, the same through restarts.
    restarts: how often torchrun has started the ranks of this machine anew.
    by_torchrun: whether torchrun started it; its ranks see all GPUs of their machine.
    named_job: whether the job's name is its own: whoever uses it again means the same job.
    store: short texts that all ranks can write and read, by name. Tensors go through the process group.
    timeout_s: how long this rank waits for the others in training before it gives up.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    job: str = ""
    restarts: int = 0
    by_torchrun: bool = True
    named_job: bool = False
    store: Any = None
    timeout_s: float = 600.0
    exchanges: int = 0  # that this rank has come to
    batch: int = 0  # from 1; that it is in
    told: int = 0  # times that all ranks said something
    arrived_at: float = math.inf  # at its last exchange, by this machine's clock
    rings: list[Any] = field(default_factory=lambda: [None])  # see _rings

    @property
    def is_main(self) -> bool:
        """Whether this rank speaks for all."""
        return self.rank == 0

    @property
    def is_single(self) -> bool:
        return self.world_size == 1

    # --- agreeing ---------------------------------------------------------------------------------------------------

    def connect(self, device: str, timeout_s: float) -> None:
        """Open the ways that tensors take from this rank's device: NCCL between CUDA devices, gloo between CPUs.

        First it waits for all ranks, for as long as that takes: one may still tokenize.
        """
        if not self.is_single:
            self.timeout_s = timeout_s
            numbers = self.all_gather_text("connect", str(self.local_rank))
            if device.startswith("cuda"):
                torch.cuda.set_device(device)
            torch.distributed.init_process_group(
                "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo",
                store=self.store, rank=self.rank, world_size=self.world_size, timeout=timedelta(seconds=timeout_s),
            )  # fmt: skip
            self.rings = self._rings(numbers)

    def _rings(self, numbers: Sequence[str]) -> list[Any]:
        """The process groups that `all_reduce_max` takes, one after another; None: that of all ranks.

        gloo passes a message from rank to rank in a ring. On several machines it goes through the ranks of each, between the
        first ranks, and through those of each again: as many steps as there are machines, and not as there are ranks.

        Args:
            numbers: local ranks, by rank.
        """
        firsts = [rank for rank, number in enumerate(numbers) if number == "0"]
        machines = [range(a, b) for a, b in itertools.pairwise([*firsts, self.world_size])]
        in_order = all(
            [numbers[rank] for rank in machine] == [str(n) for n in range(len(machine))] for machine in machines
        )
        if not 1 < len(machines) < self.world_size or not in_order or firsts[0]:
            return [None]

        def ring(ranks: Sequence[int]) -> Any:
            patience = timedelta(seconds=self.timeout_s)
            return torch.distributed.new_group(ranks, patience, backend="gloo", use_local_synchronization=True)

        own = ring(next(machine for machine in machines if self.rank in machine))
        return [own, ring(firsts), own] if self.rank in firsts else [own, own]

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks, in place; the same on each, to the last bit."""
        if not self.is_single:
            self.heartbeat()
            torch.distributed.all_reduce(tensor)
        return tensor

    def broadcast(self, tensor: Tensor) -> Tensor:
        """Rank 0's values, in place, of a tensor that each rank has."""
        if not self.is_single:
            self.heartbeat()
            torch.distributed.broadcast(tensor, 0)
        return tensor

    def all_reduce_max(self, *numbers: int) -> list[int]:
        """The largest of all ranks' numbers, each by itself."""
        if self.is_single:
            return list(numbers)
        self.heartbeat()
        tensor = torch.tensor(numbers, dtype=torch.int64)
        for ring in self.rings:
            torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MAX, ring)
        return tensor.tolist()

    def all_true(self, here: bool) -> bool:
        """Whether it is so on all ranks."""
        return not any(self.all_reduce_max(not here))

    def broadcast_text(self, name: str, value: str) -> str:
        """Rank 0's value of what every rank would choose for itself."""
        if self.is_single:
            return value
        if self.is_main:
            self.store.set(f"value/{name}", value)
        self._wait(f"value/{name}")
        return self.store.get(f"value/{name}").decode()

    def wait_for_main(self, name: str) -> None:
        """Wait until rank 0 comes here too. Rank 0 itself does not wait."""
        self.broadcast_text(name, "")

    @contextmanager
    def main_first(self, name: str) -> Iterator[None]:
        """Rank 0 does what is inside first; the others wait until it has finished it."""
        if not self.is_main:
            self.wait_for_main(name)
        yield
        if self.is_main:
            self.wait_for_main(name)

    def all_gather_text(self, what: str, value: str) -> list[str]:
        """What every rank says of this, by rank. Raises UserError where another rank has come to speak of something else."""
        if self.is_single:
            return [value]
        self.told += 1
        names = [f"told/{self.told}/{rank}" for rank in range(self.world_size)]
        self.store.set(names[self.rank], json.dumps([what, value]))
        self._wait(*names)
        said = [json.loads(text) for text in self.store.multi_get(names)]
        if others := [rank for rank, (topic, _) in enumerate(said) if topic != what]:
            raise UserError(
                f"Rank {others[0]} does not do what rank {self.rank} does ({what}); give every machine the same files and the "
                "same command."
            )
        return [value for _, value in said]

    def _wait(self, *names: str) -> None:
        """Wait for texts of these names; in small steps, as a wait in the store itself could not be interrupted."""
        say_at = time.monotonic() + SAY_S
        while not self.store.check(list(names)):
            if time.monotonic() > say_at and len(names) == self.world_size:
                say_at = math.inf
                late = [rank for rank, name in enumerate(names) if not self.store.check([name])]
                log.info("Waiting for %s.", ranks_called(late).lower())
            time.sleep(WAIT_S)

    def check_same(self, facts: Mapping[str, str]) -> None:
        """Wait for all ranks, of which there are several. Raises UserError where a fact is another one here than on rank 0."""
        theirs = json.loads(self.broadcast_text("facts", json.dumps(dict(facts))))
        if wrong := [what for what, mine in facts.items() if mine != theirs.get(what)]:
            more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
            raise UserError(
                f"Not what rank 0 has on rank {self.rank} ({platform.node()}): {', '.join(wrong[:4])}{more}; give every machine "
                "the same files and the same command."
            )
        self.all_reduce_max(0)

    # --- failing ----------------------------------------------------------------------------------------------------

    def heartbeat(self, batch: int | None = None) -> None:
        """Leave word that this rank has come to its next exchange with the others, in this batch (None: still in it)."""
        if not self.is_single:
            self.exchanges += 1
            self.batch = self.batch if batch is None else batch
            self.store.set(f"at/{self.rank}", f"{self.exchanges} {self.batch}")
            self.arrived_at = time.monotonic()

    @contextmanager
    def explain_failures(self) -> Iterator[None]:
        """Where another rank is missing, raise OtherRankFailed with which one, as far as that can be told."""
        try:
            yield
        except RuntimeError as error:
            if self.is_single or not (isinstance(error, torch.distributed.DistError) or "gloo" in str(error).lower()):
                raise
            # Whoever gives up first cuts the others off: they have waited as long.
            waited = time.monotonic() - self.arrived_at > WAITED * self.timeout_s
            late = any(words in str(error).lower() for words in LATE) and not any(words in str(error) for words in LOST)
            if late or waited:
                raise OtherRankFailed(
                    f"{self._behind()} did not answer for {duration(self.timeout_s)} (--system.timeout_minutes); see what it is "
                    "doing, and what it wrote last."
                ) from error
            raise OtherRankFailed(
                "Another rank ended unexpectedly; what it wrote is above, and torchrun says below which one it was and how it "
                "ended (exit code -9: it was killed, perhaps for want of memory). --resume goes on from the run's last checkpoint, "
                "if it has one."
            ) from error

    def _behind(self) -> str:
        """The ranks that others wait for: they have come to fewer exchanges."""
        places = dict.fromkeys(range(self.world_size), (0, 0))
        with suppress(RuntimeError):  # the store is gone with rank 0's machine
            for rank in places:
                if self.store.check([f"at/{rank}"]):
                    exchanges, batch = self.store.get(f"at/{rank}").decode().split()
                    places[rank] = int(exchanges), int(batch)
        behind = [rank for rank in places if places[rank][0] < max(places.values())[0]]
        if not behind and self.world_size == 2:
            behind = [1 - self.rank]
        if not behind:
            return "Another rank"
        return f"{ranks_called(behind)} (last heard of in batch {min(places[rank][1] for rank in behind):,})"

    def may_say(self, error: BaseException) -> bool:
        """Whether this rank is the one to say what went wrong; every other has its say of another error only."""
        if not self.is_main:
            time.sleep(RANK_0_FIRST_S)
        with suppress(RuntimeError):
            any_yet = self.store.add("errors", 1) > 1
            same_yet = self.store.add("error/" + hashlib.sha256(str(error).encode()).hexdigest(), 1) > 1
            if not any_yet:
                self.store.set("said", f"{platform.node()}\n{error}")
            return not (any_yet if isinstance(error, OtherRankFailed) else same_yet)
        return self.is_main

    def said_elsewhere(self) -> str:
        """What another machine's rank said went wrong, where somebody at this one could not read it; else empty."""
        with suppress(RuntimeError):
            if self.is_main and self.store.check(["said"]):
                machine, _, text = self.store.get("said").decode().partition("\n")
                return f"[{machine}] {text}" if machine != platform.node() else ""
        return ""


SINGLE = Ranks()


def ranks_called(numbers: Sequence[int]) -> str:
    """Ranks, as a sentence begins with them."""
    if len(numbers) == 1:
        return f"Rank {numbers[0]}"
    more = f" and {len(numbers) - 8} more" if len(numbers) > 8 else ""
    return f"Ranks {', '.join(map(str, numbers[:8]))}{more}"


# --- tensors that are shared out ------------------------------------------------------------------------------------


def is_dtensor(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether it is a DTensor, of which each rank has a part. Where nothing has imported them, there are none."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local_tensor(tensor: Tensor) -> Tensor:
    """The part of a tensor that is on this rank, in its own memory; of a plain tensor, all of it."""
    return tensor.to_local() if is_dtensor(tensor) else tensor


def full_tensor(tensor: Tensor) -> Tensor:
    """All of a tensor; every rank must ask for it."""
    return tensor.full_tensor() if is_dtensor(tensor) else tensor


def copy_into(tensor: Tensor, values: Tensor, source: int | None = None) -> None:
    """Copy the values of a whole tensor into one that may be shared out.

    Args:
        tensor: to copy into.
        values: whole, of its shape.
        source: the rank whose values count, where each of them calls this; None: each rank has the same.
    """
    if is_dtensor(tensor):
        from torch.distributed.tensor import distribute_tensor

        values = distribute_tensor(
            values.to(tensor.device), tensor.device_mesh, tensor.placements, src_data_rank=source
        ).to_local()
    local_tensor(tensor).copy_(values)
