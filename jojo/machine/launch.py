"""How a process finds its place among the ranks: from torchrun's environment, or another launcher's with the same variables."""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch

from jojo.command import RANK_0_FIRST_S, Stopped, explain_os_error
from jojo.machine.ranks import SAY_S, SINGLE, Ranks
from utils import UserError, log, one_line

STORE_PATIENCE = timedelta(days=1)  # some tokenize before they meet; torchrun ends those that wait for the dead
CONNECT_S = 2.0  # to try to reach rank 0's store, before it is tried again


@contextmanager
def joined() -> Iterator[Ranks]:
    """This process's place among the ranks, for as long as they work together; every error is said by one of them."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield SINGLE
        return
    if missing := [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        raise UserError(f"RANK is set and {missing[0]} is not; start several ranks with torchrun, or unset RANK.")
    ranks = from_environment()
    if not ranks.is_main:
        log.setLevel(max(log.level, logging.ERROR))
    try:
        with ranks.explain_failures():
            yield ranks
    except (UserError, OSError) as error:
        text = explain_os_error(error) if isinstance(error, OSError) else str(error)
        if ranks.may_say(error):
            log.error(
                "%s", text if ranks.is_main else f"[rank {ranks.rank}] {text}", exc_info=log.isEnabledFor(logging.DEBUG)
            )
        elif elsewhere := ranks.said_elsewhere():
            log.error("%s", elsewhere)
        if ranks.is_main and not uses_torchruns_store():
            with suppress(KeyboardInterrupt):  # the store ends with this process, and the others still ask it
                time.sleep(2 * RANK_0_FIRST_S)
        raise SystemExit(1) from error
    except KeyboardInterrupt as error:
        with suppress(RuntimeError):
            if ranks.store.add("errors", 0) > 0:  # torchrun ends this rank as another one failed, and said so
                raise SystemExit(1) from error
        if not (isinstance(error, Stopped) and ranks.by_torchrun):
            raise
        if ranks.is_main:
            log.error(
                "Torchrun ended this rank: it was told to, or another rank failed (see above, and on other machines)."
            )
        raise SystemExit(128 + error.number) from error
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def from_environment() -> Ranks:
    """The place that torchrun, or another launcher with its variables, gave this process.

    torchrun keeps its store through restarts on one machine, with all that dead ranks left in it: every start gets a part
    of its own. On several machines, each of which counts its restarts for itself, torchrun must be told to make a new one.

    Raises:
        UserError: the numbers are none, or do not fit together.
    """
    from torch.distributed.distributed_c10d import PrefixStore

    env = os.environ
    job, restarts = env.get("TORCHELASTIC_RUN_ID", "none"), int(env.get("TORCHELASTIC_RESTART_COUNT", "0"))
    named = job != "none"  # else torchrun was not told a name, and only its address tells it from others
    rank, world_size = number("RANK"), number("WORLD_SIZE")
    local_rank, local_world_size = number("LOCAL_RANK", rank), number("LOCAL_WORLD_SIZE", world_size)
    if not (rank < world_size and local_rank < local_world_size <= world_size):
        raise UserError(
            f"RANK {rank} of WORLD_SIZE {world_size}, LOCAL_RANK {local_rank} of LOCAL_WORLD_SIZE {local_world_size}: ranks are "
            "counted from 0, and those of a machine are among all; start them with torchrun."
        )
    one_machine, restarting = local_world_size == world_size, int(env.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0
    if restarting and not one_machine and uses_torchruns_store():
        if local_rank:
            raise SystemExit(1)  # once on each machine
        raise UserError(
            "With --max-restarts on several machines, set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for torchrun on each of them: "
            "restarted ranks need a new store."
        )
    return Ranks(
        rank, world_size, local_rank, local_world_size,
        job if named else f"{env['MASTER_ADDR']}:{env['MASTER_PORT']}", restarts, "TORCHELASTIC_RUN_ID" in env, named,
        PrefixStore(f"start/{restarts if one_machine else 0}", open_store(rank, world_size)),
    )  # fmt: skip


def number(name: str, default: int | None = None) -> int:
    """A count from the environment. Raises UserError for anything else."""
    text = os.environ.get(name, default)
    if not str(text).isdecimal():
        raise UserError(
            f"{name} in the environment is '{one_line(text)}', and must be a number; start ranks with torchrun."
        )
    return int(str(text))


def uses_torchruns_store() -> bool:
    """Whether torchrun keeps the store, and not rank 0."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def open_store(rank: int, world_size: int) -> Any:
    """The store that all ranks share: torchrun's, or rank 0's. Where that is not there yet, wait, and say so."""
    from torch.distributed.rendezvous import rendezvous

    if uses_torchruns_store():
        return next(rendezvous("env://", timeout=STORE_PATIENCE))[0]
    address, port = os.environ["MASTER_ADDR"], number("MASTER_PORT")
    if rank:
        wait_for(address, port, f"Rank {rank} waits for rank 0 at {address}:{port}.")
    try:
        return torch.distributed.TCPStore(  # type: ignore[attr-defined]
            address, port, world_size, rank == 0, STORE_PATIENCE, wait_for_workers=False, multi_tenant=True
        )
    except RuntimeError as error:
        raise UserError(
            f"Rank {rank} cannot open MASTER_PORT {port} ({one_line(str(error).splitlines()[0])}); use another port."
        ) from error


def wait_for(address: str, port: int, says: str) -> None:
    """Until somebody listens there; PyTorch's own wait could not be interrupted, and prints much."""
    say_at = time.monotonic() + SAY_S
    while True:
        try:
            socket.create_connection((address, port), CONNECT_S).close()
            return
        except OSError:
            if time.monotonic() > say_at:
                log.info("%s", says)
                say_at = math.inf
            time.sleep(CONNECT_S / 4)
