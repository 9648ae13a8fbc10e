"""Tests of ranks.py and launch.py, with several Ranks in one process: threads that share a store."""

from __future__ import annotations

import math
import platform
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers_run import listening

from jojo.machine import launch
from jojo.machine import ranks as ranks_module
from jojo.machine.ranks import SINGLE, OtherRankFailed, Ranks, Shares, copy_into, full_tensor, local_tensor
from utils import UserError

CLOSED = "[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:1"
TIMED_OUT = "[gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 3000ms"


def on_all(n: int, call: Callable[[Ranks], Any]) -> list[Any]:
    """What `call` returns or raises on each of n ranks."""
    store = torch.distributed.HashStore()

    def on_one(rank: int) -> Any:
        try:
            return call(Ranks(rank, n, rank, n, store=store))
        except UserError as error:
            return str(error)

    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(on_one, range(n)))


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return str(free.getsockname()[1])


# --- texts ----------------------------------------------------------------------------------------------------------


def test_texts_reach_all_ranks() -> None:
    assert on_all(3, lambda ranks: ranks.broadcast_text("name", str(ranks.rank))) == ["0", "0", "0"]
    assert on_all(3, lambda ranks: ranks.all_gather_text("topic", str(ranks.rank))) == [["0", "1", "2"]] * 3
    assert SINGLE.broadcast_text("name", "a") == "a" and SINGLE.all_gather_text("topic", "a") == ["a"]


def test_rank_0_goes_first() -> None:
    order = []

    def go(ranks: Ranks) -> None:
        with ranks.main_first("data"):
            time.sleep(0.0 if ranks.rank else 0.2)
            order.append(ranks.rank)

    on_all(2, go)
    assert order == [0, 1]


def test_ranks_that_do_different_things_raise_an_error() -> None:
    def go(ranks: Ranks) -> Any:
        ranks.all_gather_text("read parts of 'x.pt'" if ranks.rank else "connect", "")

    assert [text.split(";")[0] for text in on_all(2, go)] == [
        "Rank 1 does not do what rank 0 does (connect)",
        "Rank 0 does not do what rank 1 does (read parts of 'x.pt')",
    ]


def test_an_error_names_the_facts_that_differ_between_ranks() -> None:
    facts = {"the code": "a", "the training data": "b", "training.batch_size": "4"}
    assert on_all(2, lambda ranks: ranks.check_same(facts)) == [None, None]
    other = facts | {"the code": "x", "training.batch_size": "8"}
    expected = f"Rank 1 ({platform.node()}) differs from rank 0 in: the code, training.batch_size; give every machine"
    for text in on_all(2, lambda ranks: ranks.check_same(other if ranks.rank else facts)):
        assert text.startswith(expected)


def test_rank_0_says_which_ranks_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, store = iter(range(0, 1000, 7)), torch.distributed.HashStore()

    def sleep(_: float) -> None:
        if len(said) == 1:
            for rank in range(1, 12):
                store.set(f"gather/1/{rank}", '["connect", ""]')

    monkeypatch.setattr(ranks_module.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(ranks_module.time, "sleep", sleep)
    with listening() as said:
        Ranks(0, 12, store=store).all_gather_text("connect", "")
    assert said == ["Waiting for ranks 1, 2, 3, 4, 5, 6, 7, 8 and 3 more."]


# --- failures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "waited_s", "expected"),
    [
        (CLOSED, 5.0, "Another rank ended unexpectedly"),
        (CLOSED, -math.inf, "Another rank ended unexpectedly"),  # outside a wait that has a limit
        (TIMED_OUT, 601.0, r"Ranks 1, 2 \(last seen in batch 7\) did not answer for 10 min"),
        (CLOSED, 550.0, r"Ranks 1, 2 \(last seen in batch 7\) did not answer"),  # another rank timed out first
    ],
)
def test_errors_of_gloo_become_a_sentence(message: str, waited_s: float, expected: str) -> None:
    store = torch.distributed.HashStore()
    for rank, place in enumerate(("27 9", "24 8", "23 7")):
        store.set(f"at/{rank}", place)
    ranks = Ranks(0, 3, store=store)
    ranks.heartbeat_at = time.monotonic() - waited_s
    with pytest.raises(OtherRankFailed, match=expected), ranks.explain_failures():
        raise RuntimeError(message)


def test_other_errors_are_not_changed() -> None:
    for ranks in (SINGLE, Ranks(0, 2)):
        with pytest.raises(RuntimeError, match="a bug"), ranks.explain_failures():
            raise RuntimeError("a bug")


def test_one_rank_reports_the_first_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    assert on_all(3, lambda ranks: ranks.report("It broke.")) == ["It broke.", "", ""]
    store = torch.distributed.HashStore()
    monkeypatch.setattr(ranks_module.platform, "node", lambda: "far")
    assert Ranks(3, 4, store=store).report("It broke.") == "[rank 3, far] It broke."
    assert Ranks(0, 4, store=store).report("Another rank ended.") == ""
    monkeypatch.setattr(ranks_module.platform, "node", lambda: "near")  # its screen may not show rank 3's message
    assert Ranks(0, 4, store=store).report("Another rank ended.") == "[rank 3, far] It broke."
    assert Ranks(1, 4, store=store).report("Another rank ended.") == ""


# --- sharded tensors ------------------------------------------------------------------------------------------------


def test_values_are_copied_into_a_sharded_tensor_and_gathered_from_it(tmp_path: Path) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        mesh, values = init_device_mesh("cpu", (1,)), torch.arange(6.0).view(3, 2)
        sharded = distribute_tensor(values.clone(), mesh, [Shard(0)])
        copy_into(sharded, values + 1)
        assert torch.equal(local_tensor(sharded), values + 1) and torch.equal(full_tensor(sharded), values + 1)
    finally:
        torch.distributed.destroy_process_group()
    assert local_tensor(values) is full_tensor(values) is values


# --- the launcher's environment -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"MASTER_ADDR": ""}, "RANK is set but MASTER_ADDR is missing"),
        ({"MASTER_PORT": ""}, "RANK is set but MASTER_PORT is missing"),
        ({"MASTER_PORT": "y"}, "MASTER_PORT in the environment is 'y', not a number"),
        ({"RANK": "x"}, "RANK in the environment is 'x', not a number"),
        ({"RANK": "-1"}, "RANK in the environment is '-1', not a number"),
        ({"RANK": "5"}, "RANK 5 of WORLD_SIZE 2, LOCAL_RANK 5 of LOCAL_WORLD_SIZE 2 do not fit together"),
        ({"LOCAL_WORLD_SIZE": "3"}, "LOCAL_WORLD_SIZE 3 do not fit together"),
    ],
)
def test_environment_variables_that_do_not_fit_together_are_one_sentence(
    environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_USE_AGENT_STORE"):
        monkeypatch.delenv(name, raising=False)
    usual = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    for name, value in (usual | environment).items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match=expected), launch.joined():
        pass


def test_restarts_on_several_machines_require_a_setting_of_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["torch.distributed.rendezvous"]  # torch.distributed has a function of this name
    monkeypatch.setattr(module, "rendezvous", lambda *_, **__: iter([(None, 0, 4)]))
    environment = {
        "RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1",
        "TORCHELASTIC_MAX_RESTARTS": "3", "TORCHELASTIC_USE_AGENT_STORE": "True",
    }  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"):
        launch.from_environment()


def test_a_rank_that_waits_for_rank_0_says_so_and_can_be_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "SAY_S", 0.0)
    monkeypatch.setattr(launch.time, "sleep", lambda _: signal.raise_signal(signal.SIGINT))
    port = free_port()
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", port)
    # A shell's background jobs ignore SIGINT; without a handler the wait would be endless.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with listening() as said, pytest.raises(KeyboardInterrupt):
            launch.open_store(1, 2)
    finally:
        signal.signal(signal.SIGINT, before)
    assert said == [f"Rank 1 waits for rank 0 at localhost:{port}."]


# --- shares of matrices ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "rows"), [(5, 7), (2, 6), (3, 2)])
def test_each_rank_gets_some_matrices_whole_and_gives_their_rows_back(
    n: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, barrier, boxes = torch.randn(n, rows, 4), threading.Barrier(3, timeout=10), dict[int, Any]()
    shards = whole.split(-(-rows // 3), 1)

    def all_to_all(received: torch.Tensor, sent: torch.Tensor, sizes: list[int], splits: list[int], group: Any) -> None:
        boxes[group.rank()] = sent.split(splits)
        barrier.wait()
        parts = [boxes[rank][group.rank()] for rank in range(3)]
        assert [len(part) for part in parts] == sizes
        received.copy_(torch.cat(parts))
        barrier.wait()

    def exchange(ranks: Ranks) -> torch.Tensor:
        group = SimpleNamespace(rank=lambda: ranks.rank)
        mesh = SimpleNamespace(get_group=lambda name: group, size=lambda dim: 3)
        shares = Shares(SimpleNamespace(shape=(rows, 4), device_mesh=mesh, full_tensor=None), n)  # type: ignore[arg-type]
        own = shards[ranks.rank] if ranks.rank < len(shards) else whole[:, :0]
        gathered = shares.gather(own)
        assert torch.equal(shares.scatter(2 * gathered), 2 * own)
        assert shares.first_row == min(rows, ranks.rank * -(-rows // 3))
        return gathered

    monkeypatch.setattr(torch.distributed, "all_to_all_single", all_to_all)
    gathered = on_all(3, exchange)
    assert torch.equal(torch.cat(gathered), whole)
    assert max(map(len, gathered)) == len(gathered[0]) == -(-n // 3)
