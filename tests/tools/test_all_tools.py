"""What several tools have in common: files are checked before the work, and errors name only flags of the tool."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers_run import TINY, settle, train

from jojo.checkpoints.file import read_file, write_file
from tools import analyze_mfu, convert_checkpoint, hf_to_checkpoint, inspect_batch, plan_scaling, test_memory_limits
from tools.parts.runs import measured_request
from training.run import prepare_run
from utils import UserError


@pytest.fixture(autouse=True)
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(tmp_path, monkeypatch)


@pytest.fixture
def weights() -> str:
    """A checkpoint without training state."""
    train("--max_iters", "1")
    state = read_file(Path("models/mine_epoch1.pt"))
    kept = {name: state[name] for name in ("format_version", "model", "tokenizer")}
    write_file(kept | {"config": {"model": state["config"]["model"]}}, Path("models/weights.pt"))
    return "models/weights.pt"


def test_weights_alone_can_be_measured(weights: str, tmp_path: Path) -> None:
    run = prepare_run(measured_request([*TINY, "--checkpoint", weights], tmp_path))
    run.close()
    assert run.start.checkpoint is not None and run.config.model.n_embd == 16


def test_weights_alone_have_no_batch_to_show(weights: str) -> None:
    with pytest.raises(UserError, match="has only weights, no run; leave --checkpoint out and name --dataset"):
        inspect_batch.main(["--checkpoint", weights])


@pytest.mark.parametrize(
    ("tool", "flags"),
    [
        (analyze_mfu, [*TINY, "--json"]),
        (test_memory_limits, ["--json"]),
        (plan_scaling, ["--gpu", "h100", "--json"]),
        (convert_checkpoint, ["models/none.pt", "-o"]),
        (hf_to_checkpoint, ["none", "-o"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_file_that_cannot_be_written_is_an_error_before_the_work(tool: Any, flags: list[str]) -> None:
    Path("file").write_text("")
    with pytest.raises(UserError, match=r"Could not write 'file/x\.pt'"):
        tool.main([*flags, "file/x.pt"])
