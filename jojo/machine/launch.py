"""Makes this process a rank, from the environment variables of torchrun or of a launcher that sets the same."""

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

STORE_TIMEOUT = timedelta(days=1)  # a rank may tokenize for hours before it meets the others
CONNECT_S = 2.0  # timeout of one attempt to reach rank 0's store


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the ranks; yields this process's Ranks. If an error ends the run, the user sees one message, not one per rank."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield SINGLE
        return
    ranks = from_environment()
    if not ranks.is_main:
        log.setLevel(max(log.level, logging.ERROR))
    try:
        with ranks.explain_failures():
            yield ranks
    except (UserError, OSError) as error:
        if message := ranks.report(explain_os_error(error) if isinstance(error, OSError) else str(error)):
            log.error("%s", message, exc_info=log.isEnabledFor(logging.DEBUG))
        if ranks.is_main and not uses_torchruns_store():
            with suppress(KeyboardInterrupt):
                time.sleep(2 * RANK_0_FIRST_S)  # this process holds the store, and the other ranks still read it
        raise SystemExit(1) from error
    except KeyboardInterrupt as error:
        with suppress(RuntimeError):
            if ranks.store.check(["problem"]):  # torchrun ends this rank because another one failed and reported it
                raise SystemExit(1) from error
        if not (isinstance(error, Stopped) and ranks.by_torchrun):
            raise
        if ranks.is_main:
            log.error("torchrun ended this rank: it was stopped, or another rank failed; see above.")
        raise SystemExit(128 + error.args[0]) from error
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def from_environment() -> Ranks:
    """This process's Ranks, from the launcher's variables. Raises UserError if these do not fit together."""
    from torch.distributed.distributed_c10d import PrefixStore

    env = os.environ
    if missing := [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in env]:
        raise UserError(f"RANK is set but {missing[0]} is missing; start ranks with torchrun, or unset RANK.")
    rank, world_size = number("RANK"), number("WORLD_SIZE")
    local_rank, local_world_size = number("LOCAL_RANK", rank), number("LOCAL_WORLD_SIZE", world_size)
    if not (rank < world_size and local_rank < local_world_size <= world_size):
        local = f"LOCAL_RANK {local_rank} of LOCAL_WORLD_SIZE {local_world_size}"
        raise UserError(f"RANK {rank} of WORLD_SIZE {world_size}, {local} do not fit together; use torchrun.")
    one_machine, restarts = local_world_size == world_size, number("TORCHELASTIC_RESTART_COUNT", 0)
    if number("TORCHELASTIC_MAX_RESTARTS", 0) and not one_machine and uses_torchruns_store():
        needs = "set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 on each: restarted ranks need a new store"
        raise UserError(f"With --max-restarts on several machines, {needs}.")
    # On one machine torchrun's store survives restarts, with the keys of dead ranks. So each start has its own prefix.
    store = PrefixStore(f"start/{restarts if one_machine else 0}", open_store(rank, world_size))
    by_torchrun, job = "TORCHELASTIC_RUN_ID" in env, env.get("TORCHELASTIC_RUN_ID", "none")
    if not (named := job != "none"):  # then the address identifies the job
        job = f"{env['MASTER_ADDR']}:{env['MASTER_PORT']}"
    return Ranks(rank, world_size, local_rank, local_world_size, job, restarts, by_torchrun, named, store)


def number(name: str, default: int | None = None) -> int:
    """A whole number from the environment. Raises UserError if the value is anything else."""
    text = str(os.environ.get(name, default))
    if not text.isdecimal():
        raise UserError(f"{name} in the environment is '{one_line(text)}', not a number; start ranks with torchrun.")
    return int(text)


def uses_torchruns_store() -> bool:
    """Whether torchrun keeps the store; otherwise rank 0 does."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def open_store(rank: int, world_size: int) -> Any:
    """The store that all ranks share: torchrun's, or rank 0's. Waits until it can be reached."""
    from torch.distributed.rendezvous import rendezvous

    if uses_torchruns_store():
        return next(rendezvous("env://", timeout=STORE_TIMEOUT))[0]
    address, port = os.environ["MASTER_ADDR"], number("MASTER_PORT")
    say_at = time.monotonic() + SAY_S
    while rank:  # PyTorch's own wait prints warnings, and Ctrl-C does not interrupt it
        try:
            socket.create_connection((address, port), CONNECT_S).close()
            break
        except OSError:
            if time.monotonic() > say_at:
                log.info("Rank %d waits for rank 0 at %s:%d.", rank, address, port)
                say_at = math.inf
            time.sleep(CONNECT_S / 4)
    try:
        return torch.distributed.TCPStore(  # type: ignore[attr-defined]
            address, port, world_size, rank == 0, STORE_TIMEOUT, wait_for_workers=False, multi_tenant=True
        )
    except RuntimeError as error:
        why = one_line(str(error).splitlines()[0])
        raise UserError(f"Rank {rank} cannot open MASTER_PORT {port} ({why}); use another port.") from error
