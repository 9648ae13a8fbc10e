"""Tests of training on several ranks: they train like one process, and they stop together if one of them fails."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_cli import environment
from helpers_run import QWEN3, TINY, make_run, metrics_rows, settle, state_of, train

from jojo.checkpoints.checkpoint import load_checkpoint
from jojo.machine.ranks import Ranks
from trainer import Trainer

SCRIPT = Path(__file__).parents[1] / "helpers" / "ranks_script.py"
BATCHES = 21
FLAGS = [  # seven epochs of three batches; in an epoch's last batch some ranks have few tokens or none
    *("--training.gradient_accumulation_steps", "4", "--epochs", "7", "--model.dropout", "0.1"),
    *("--eval_interval", "5", "--checkpoint_interval", "3", "--training.plot_interval", "0"),
]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(tmp_path, monkeypatch)


def train_alone(*flags: str) -> dict[str, Any]:
    """The checkpoint of one process that trained with the flags."""
    assert train(*FLAGS, *flags, "--output_checkpoint", "models/alone.pt").code == 0
    return state_of("models/alone.pt")


def torchrun(event: str, ranks: int, restarts: int, *flags: str) -> subprocess.CompletedProcess[str]:
    """Runs tests/helpers/ranks_script.py with torchrun on this machine."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
    command += [f"--max-restarts={restarts}", str(SCRIPT), event, *TINY, *FLAGS, *flags]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=120)


def forked(event: str, ranks: int, *flags: str) -> tuple[list[int], list[str]]:
    """The exit codes and outputs of ranks without torchrun, which ends a rank when another ends."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        place = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1]), "RANKS": str(ranks)}
    command = [sys.executable, str(SCRIPT), event, *TINY, *FLAGS, *flags]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment(**place), timeout=120)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout), [Path(f"rank-{rank}.txt").read_text() for rank in range(ranks)]


def assert_same_training(path: str, reference: dict[str, Any]) -> None:
    """Every batch's loss to 1e-5, the final weights to 1e-4 and averages to 1e-3 are those of one process."""
    ours, theirs = metrics_rows(f"models/{path}.metrics.jsonl"), metrics_rows("models/alone.metrics.jsonl")
    assert [row["step"] for row in ours] == [row["step"] for row in theirs] == list(range(1, BATCHES + 1))
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys() and a["tokens"] == b["tokens"]
        for name in {"loss", "train_loss_eval", "val_loss", "bpb"} & a.keys():
            assert a[name] == pytest.approx(b[name], rel=1e-5), (a["step"], name)
        # torch sums a large matrix less exactly than its shards
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-3)
    state = state_of(f"models/{path}.pt")
    for name, weight in reference["model"].items():
        torch.testing.assert_close(state["model"][name], weight, rtol=1e-4, atol=1e-5)
    for name, values in reference["optimizer"].items():
        torch.testing.assert_close(state["optimizer"][name], values, rtol=1e-3, atol=1e-5)
    assert state["loader"] == reference["loader"] and state["batch_counter"] == BATCHES


# --- the same training ----------------------------------------------------------------------------------------------


def test_a_killed_rank_is_restarted_and_two_ranks_train_like_one() -> None:
    reference = train_alone()
    ended = torchrun("kill:1:11", 2, 1, "--output_checkpoint", "models/two.pt")
    output = ended.stdout + ended.stderr
    assert ended.returncode == 0, output
    # Rank 0 either finds out by itself, or torchrun's signal is faster.
    assert len(re.findall("Another rank ended unexpectedly|torchrun ended this rank", output)) == 1
    assert output.count("continues from the last checkpoint of 'two'") == 1
    assert output.count("--- TRAINING COMPLETED") == 1
    assert_same_training("two", reference)
    for rank in range(2):  # one reduction a batch; batch 11 was trained twice, and 12 perhaps begun
        assert len(Path(f"syncs-{rank}.txt").read_text().splitlines()) in (BATCHES + 1, BATCHES + 2)
    assert not list(Path("models").glob(".*.job")) and not Path("models/old").exists()


def test_a_signal_to_one_rank_stops_all_fsdp_ranks_and_one_process_can_resume() -> None:
    """With Muon, averaged weights, and a Qwen3 of three blocks whose output layer is a matrix of its own."""
    model = (*QWEN3, "--model.n_layer", "3", "--optimizer.kind", "muon", "--training.ema", "0.9")
    reference = train_alone(*model)
    flags = ("--system.parallel", "fsdp", "--system.shard_ranks", "2", "--output_checkpoint", "models/two.pt")
    codes, (output, *others) = forked("term:1:7", 4, *model, *flags)
    assert codes == [143] * 4 and output.count("Stopped after batch 8 of 21; saved to models/two.pt") == 1, output
    assert "error: " not in output and not any(others)
    assert state_of("models/two.pt")["batch_counter"] == len(metrics_rows("models/two.metrics.jsonl")) == 8
    shards = sum(path.stat().st_size for path in Path("models/two.shards").glob("*-8-*/*"))
    assert shards < 16 * sum(map(torch.numel, reference["model"].values())) + 60_000  # those of one of the two copies
    assert train(*FLAGS, *model, "--resume", "models/two.pt").code == 0
    assert_same_training("two", reference)


def test_fsdp_reduces_once_per_batch_learns_the_same_in_bfloat16_and_survives_a_full_disk() -> None:
    flags = [
        "--dtype",
        "bfloat16",
        "--training.gradient_accumulation_steps",
        "6",
        "--epochs",
        "2",
        "--eval_interval",
        "2",
    ]
    assert train(*FLAGS, *flags, "--output_checkpoint", "models/alone.pt").code == 0
    flags += ["--system.parallel", "fsdp", "--training.sample_interval", "3", "--training.sample_tokens", "4"]
    codes, (output, _) = forked("full:1:2", 2, *flags, "--output_checkpoint", "models/two.pt")
    assert codes == [0, 0], output
    assert output.count("Could not save") == 1 and "(No space left on device)" in output
    assert output.count("--- TRAINING COMPLETED") == 1 and not list(Path("models/two.shards").glob(".*"))
    for name in ("two", "two_best", "two_batch3"):
        load_checkpoint(Path(f"models/{name}.pt"))
    ours, theirs = metrics_rows("models/two.metrics.jsonl"), metrics_rows("models/alone.metrics.jsonl")
    assert len(ours) == len(theirs) >= 2 and ours[2].pop("samples")
    for a, b in zip(ours, theirs, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=0.01)
    batches = [json.loads(line) for line in Path("syncs-1.txt").read_text().splitlines()]
    assert len(batches) == len(ours)
    for counts in batches:  # one reduction for the block, one for the rest
        assert sum(number for kind, number in counts.items() if "reduce_scatter" in kind) == 2


# --- failures, without torchrun to end the other rank ---------------------------------------------------------------


def test_a_loss_that_is_not_finite_on_one_rank_stops_all_before_the_update() -> None:
    codes, (output, silent) = forked("nan:1:4", 2, "--output_checkpoint", "models/two.pt")
    assert codes == [1, 1] and not silent
    assert output.count("error:") == 1 and "The loss of batch 5 is not finite" in output
    assert all(weight.isfinite().all() for weight in state_of("models/two_batch3.pt")["model"].values())
    assert len(metrics_rows("models/two.metrics.jsonl")) == 4


def test_a_rank_that_does_not_answer_is_named() -> None:
    flags = ("--system.timeout_minutes", "0.03", "--output_checkpoint", "models/two.pt")
    (code, _), (output, _) = forked("sleep:1:4", 2, *flags)
    assert code == 1
    assert output.count("error:") == 1 and "Rank 1 (last seen in batch 4) did not answer for 1.8 s" in output


@pytest.mark.parametrize(("agreed", "code"), [((15, 0, 0), 143), ((0, 1, 0), 0)])
def test_ranks_stop_after_a_batch_by_the_flags_that_they_exchanged(
    agreed: tuple[int, int, int], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(*FLAGS, "--eval_interval", "0", "--output_checkpoint", "models/two.pt")
    trainer, mine = Trainer(run), list[tuple[int, ...]]()

    def all_reduce_max(*flags: int) -> list[int]:
        mine.append(flags)
        return list(agreed if len(mine) == 2 else (0, 0, 1))

    several = Ranks(0, 2)
    monkeypatch.setattr(several, "all_reduce_max", all_reduce_max)
    monkeypatch.setattr(several, "all_reduce_sum", lambda tensor: tensor)
    monkeypatch.setattr(several, "heartbeat", lambda *_: None)
    monkeypatch.setattr(several, "broadcast_text", lambda _, value: value)
    trainer.ranks = several
    assert trainer.train() == code
    assert mine == [(0, 0, 0), (0, 0, 0)] and state_of("models/two.pt")["batch_counter"] == 2
