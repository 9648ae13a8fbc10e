"""Every way to start or continue a run does what its row in the table of training.resume.Mode says."""

from __future__ import annotations

import json
import math
import re
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_run import (
    TINY,
    differences,
    metrics_rows,
    model_of,
    request_of,
    save_as_2x,
    settle,
    snapshot,
    state_of,
    train,
)

from hf.export import write_folder
from jojo.machine.ranks import SINGLE, Ranks
from jojo.text.tokenizer import Tokenizer
from trainer import Trainer
from training.resume import Mode
from training.run import prepare_run
from utils import UserError

DOCS = Path(__file__).resolve().parents[2] / "docs" / "checkpoints.md"
PATH, OLDER, OTHER, FOLDER = "models/mine_epoch1.pt", "models/older.pt", "models/other.pt", "gpt2"
WORDS = {"PATH": PATH, "PATH_OR_ID": FOLDER, "OTHER": OTHER, "OLDER_FORMAT": OLDER}
HEADER = ["flags", "mode", "weights", "optimizer", "position", "metrics", "options", "changes", "run id", "files"]


def rows_of_docstring() -> list[list[str]]:
    """The table of Mode, its header first."""
    table = (Mode.__doc__ or "").split("\n\n")[1].rstrip()
    return [re.split(r"  +", line.strip()) for line in table.splitlines()]


def rows_of_docs() -> list[list[str]]:
    """The same table in docs/checkpoints.md."""
    section = DOCS.read_text(encoding="utf-8").split("## Start and continue")[1]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    return [[cell.replace("`", "") for cell in row] for row in rows[: len(rows_of_docstring()) + 1] if row[0] != "---"]


def test_the_docs_have_the_same_table() -> None:
    assert rows_of_docstring()[0] == HEADER
    assert rows_of_docs() == rows_of_docstring()


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of four batches that has its own options, and with the same model in other formats."""
    folder = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch:
        settle(folder, patch)
        assert train("--max_iters", "4", "--eval_interval", "2", "--seed", "7", "--data.tokenizer", "gpt2").code == 0
        save_as_2x(state_of(PATH), Path(OLDER))
        Path(FOLDER).mkdir()
        write_folder(model_of(PATH), Tokenizer(), Path(FOLDER))
    return folder


@pytest.mark.parametrize("row", rows_of_docstring()[1:], ids=lambda row: row[0])
def test_a_way_to_start(row: list[str], first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(first, tmp_path, dirs_exist_ok=True)
    settle(tmp_path, monkeypatch)
    expected = dict(zip(HEADER, row, strict=True))
    before, old_files, ranks = state_of(PATH), snapshot("models"), SINGLE
    flags = [] if row[0].startswith("(") else [WORDS.get(word, word) for word in row[0].split()]
    flags += ["--dataset", "mine", "--device", "cpu", "--dtype", "float32"]
    if row[0] == "(torchrun restarts the job)":
        flags += ["--load_model_only", PATH]  # a restarted job has the flags with which it began
        ranks = Ranks(job="a", restarts=1)
        job = {"job": "a", "run_id": before["metadata"]["run_id"]}
        Path("models/.mine_epoch1.job").write_text(json.dumps(job))
    elif not row[0].startswith("--resume -") and row[0] != "--resume":  # --resume alone finds the run by --epochs
        flags += ["--epochs", "3"]
    if row[0] == "(none)":
        flags += [*TINY, "--model.n_embd", "8"]

    changed = [*flags, "--optimizer.weight_decay", "0.3"]
    if expected["changes"] == "refused":
        with pytest.raises(UserError, match=r"not continue the same run: optimizer\.weight_decay 0\.1 -> 0\.3"):
            prepare_run(request_of(*changed), ranks)
    else:
        prepare_run(request_of(*changed), ranks).close()

    with closing(prepare_run(request_of(*flags), ranks)) as run:
        trainer = Trainer(run)
        check(expected, trainer, before)
        files = {
            "same": "mine_epoch1",
            "OTHER": "other",
            "by options": "mine_epoch3" if "3" in flags else "mine_epoch1",
        }
        assert run.files.run == files[expected["files"]]
        run.files.start(run.start.checkpoint, run.start.run_id, trainer.batches_done, run.start.mode is Mode.RESUME)
        if run.files.run != "mine_epoch1":
            assert snapshot("models").items() >= old_files.items()  # the files of the first run are unchanged
        steps = [row["step"] for row in metrics_rows(run.files.metrics)] if run.files.metrics.exists() else []
        assert steps == ([1, 2, 3, 4] if expected["metrics"] == "yes" else [])


def check(expected: dict[str, str], trainer: Trainer, before: dict[str, Any]) -> None:
    """Compare a trainer before its first batch with a row of the table (`expected`) and with the checkpoint (`before`)."""
    run, now = trainer.run, trainer.state_dict()
    assert run.start.mode.name == expected["mode"]
    if expected["weights"] == "yes":
        assert all(torch.equal(now["model"][name], weight) for name, weight in before["model"].items())
    else:
        assert differences(now["model"], before["model"])
    assert (differences(now["optimizer"], before["optimizer"]) == []) == (expected["optimizer"] == "yes")
    assert now["batch_counter"] == (0 if expected["position"] == "-" else 4)
    assert now["loader"]["position"] == (4 if expected["position"] == "yes" else 0)
    best = math.inf if expected["metrics"] == "-" else before["best_val_loss"]
    assert now["best_val_loss"] == best and bool(now["metrics"]["train_loss_batch"]) == (expected["metrics"] == "yes")
    assert run.config.model.n_embd == (8 if expected["options"] == "-" else 16)
    assert run.config.system.seed == (7 if expected["options"] == "all" else 1337)
    same_run = now["metadata"]["run_id"] == before["metadata"]["run_id"]
    assert same_run == (expected["run id"] == "same")
