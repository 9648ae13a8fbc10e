"""Several ranks: what they share, what they compare before a run, and how a torchrun job continues after a restart."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers_run import listening, make_run, settle, state_of, train

from config import Config
from jojo.checkpoints.checkpoint import load_checkpoint
from jojo.checkpoints.run_files import RunFiles
from jojo.machine.ranks import SINGLE, Ranks
from trainer import Trainer
from training import summary as report
from training.decisions import refuse_uneven_shares
from training.flags import Request
from training.resume import Mode, is_restart
from training.run import facts_of
from utils import UserError

FLAGS = ("--training.gradient_accumulation_steps", "4")
OUTPUT = ("--output_checkpoint", "models/two.pt")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(tmp_path, monkeypatch)


def test_ranks_compare_the_config_but_not_their_devices() -> None:
    facts = facts_of(make_run(*FLAGS))
    assert facts["training.gradient_accumulation_steps"] == "4" and "system.device" not in facts


# --- shares of a batch and a model -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "name", "value", "expected"),
    [
        ("system", "dtype", "float16", "use --dtype bfloat16"),
        ("system", "shard_ranks", 3, "must divide the number of ranks, 4"),
    ],
)
def test_what_fsdp_cannot_do_is_refused(section: str, name: str, value: Any, expected: str) -> None:
    config = Config()
    config.training.gradient_accumulation_steps, config.system.parallel = 4, "fsdp"
    refuse_uneven_shares(config, Ranks(0, 4))
    config.set(f"{section}.{name}", value)
    with pytest.raises(UserError, match=expected):
        refuse_uneven_shares(config, Ranks(0, 4))
    refuse_uneven_shares(config, SINGLE)


def test_fsdp_in_one_process_is_a_warning_and_shard_ranks_without_fsdp_an_error() -> None:
    with listening() as said:
        make_run(*FLAGS, "--system.parallel", "fsdp")
    assert any("fsdp needs several processes" in line for line in said)
    with pytest.raises(UserError, match=r"system\.shard_ranks is for fsdp"):
        make_run(*FLAGS, "--system.shard_ranks", "2")


def test_micro_batches_that_ranks_cannot_share_are_refused() -> None:
    config = Config()
    config.training.gradient_accumulation_steps = 4
    refuse_uneven_shares(config, Ranks(0, 2))
    with pytest.raises(UserError, match=r"3 ranks cannot share 4 micro-batches; add --batch_size 8 --tr.*_steps 6\."):
        refuse_uneven_shares(config, Ranks(0, 3))  # 48 sequences are also 6 micro-batches of 8
    with pytest.raises(UserError, match=r"5 ranks cannot share 4 micro-batches; add --training.*_steps 5\."):
        refuse_uneven_shares(config, Ranks(0, 5))


def test_an_automatic_batch_size_needs_a_sequence_for_every_rank() -> None:
    config = Config()  # 12 sequences a batch
    refuse_uneven_shares(config, Ranks(0, 4), auto_batch_size=True)
    with pytest.raises(UserError, match="5 ranks cannot share a batch of 12 sequences"):
        refuse_uneven_shares(config, Ranks(0, 5), auto_batch_size=True)
    config.system.parallel = "fsdp"
    with pytest.raises(UserError, match="with fsdp, give a number"):
        refuse_uneven_shares(config, Ranks(0, 4), auto_batch_size=True)


@pytest.mark.parametrize(
    ("parallel", "shard_ranks", "local", "expected"),
    [
        ("ddp", None, 4, "4; each has the whole model (ddp)"),
        ("fsdp", None, 2, "4, 2 on each machine; the model is sharded among them (fsdp)"),
        ("fsdp", 2, 2, "4, 2 on each machine; 2 copies of the model, each sharded among 2 (fsdp)"),
    ],
)
def test_the_summary_says_what_the_ranks_share(
    parallel: str, shard_ranks: int | None, local: int, expected: str
) -> None:
    run = make_run(*FLAGS, *OUTPUT)
    run.ranks, run.config.system.parallel, run.config.system.shard_ranks = Ranks(0, 4, 0, local), parallel, shard_ranks
    lines = [" ".join(line.split()) for line in report.summary(run, 1e12, False).splitlines()]
    assert f"ranks {expected}" in lines
    parts = ", with its shards in models/two.shards/" if parallel == "fsdp" else ""
    assert f"writes models/two.pt{parts}" in lines


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        (SINGLE, "python train.py --resume models/two.pt"),
        (Ranks(0, 4, 0, 4), "torchrun --nproc_per_node 4 train.py --resume models/two.pt"),
        (Ranks(0, 4, 0, 2), "torchrun ... train.py --resume models/two.pt"),
        (Ranks(0, 4, 0, 4, by_torchrun=False), "python train.py --resume models/two.pt"),
    ],
)
def test_a_stopped_run_says_how_to_continue_on_as_many_ranks(ranks: Ranks, expected: str) -> None:
    run = SimpleNamespace(ranks=ranks, files=RunFiles(Path("models/two.pt")))
    assert report.resume_command(run) == expected  # type: ignore[arg-type]


# --- a torchrun job -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ranks", "request_", "expected"),
    [
        (Ranks(restarts=1, job="a"), Request(weights_from="x.pt"), True),
        (Ranks(restarts=1, job="b"), Request(), False),
        (Ranks(job="a"), Request(), False),  # no --rdzv_id and no restart
        (Ranks(job="a", named_job=True), Request(), True),
        (Ranks(job="a", named_job=True), Request(weights_from="x.pt"), False),
        (Ranks(job="a", named_job=True), Request(continue_from="x.pt"), False),
    ],
)
def test_a_job_continues_its_own_run(ranks: Ranks, request_: Request, expected: bool) -> None:
    assert train(*FLAGS, "--max_iters", "1", *OUTPUT).code == 0
    files = RunFiles(Path("models/two.pt"))
    files.job.write_text(json.dumps({"job": "a", "run_id": state_of("models/two.pt")["metadata"]["run_id"]}))
    assert is_restart(request_, files, ranks) is expected
    files.job.write_text("{")
    assert not is_restart(request_, files, ranks)


def test_a_job_that_loads_weights_from_its_output_can_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    """It dies before its first batch, and its weights came from the file that it saves to."""
    flags = (*FLAGS, "--max_iters", "2", "--eval_interval", "0", *OUTPUT)
    assert train(*flags).code == 0
    run = make_run(*flags)
    run.ranks = Ranks(job="a", named_job=True)
    run.start.mode, run.start.checkpoint = Mode.WEIGHTS, load_checkpoint(run.files.last)
    trainer, step = Trainer(run), Trainer.step

    def dies(own: Trainer, batch: Any) -> Any:
        own.saver.wait()  # the save of batch 0 has finished
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "step", dies)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    monkeypatch.setattr(Trainer, "step", step)
    request, ranks = Request(weights_from="models/two.pt"), Ranks(job="a", named_job=True, restarts=1)
    assert is_restart(request, run.files, ranks)
    assert state_of("models/two.pt")["batch_counter"] == 0
    assert train(*flags, "--resume").code == 0
