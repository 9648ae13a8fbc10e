"""tools/perplexity.py: it finds the loss of train.py --eval_only, and what rounding adds to it."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers_run import listening, settle, train

from jojo.checkpoints.file import read_file, write_file
from tools import perplexity
from utils import UserError


@pytest.fixture(autouse=True)
def workshop(tmp_path, monkeypatch):
    settle(tmp_path, monkeypatch)


def rows(*arguments: str, model: str = "models/mine_epoch1.pt") -> dict[str, tuple[float, float, float]]:
    """Loss, perplexity and its change in percent, by kind of weights."""
    with listening() as said:
        assert perplexity.main([model, *arguments]) == 0
    found = re.findall(r"^(\w+) +([\d.]+) +([\d.]+) +([-+][\d.]+)%$", "\n".join(said), re.MULTILINE)
    return {kind: (float(loss), float(value), float(change)) for kind, loss, value, change in found}


def test_it_finds_the_loss_of_all_validation_data_and_the_cost_of_rounding():
    train("--max_iters", "30")
    evaluated = train("--checkpoint", "models/mine_epoch1.pt", "--eval_only", "--training.eval_iters", "1000").said
    expected = float(re.search(r"validation loss ([\d.]+)", evaluated)[1])
    found = rows()
    assert list(found) == ["float32", "bfloat16", "int8"]
    assert found["float32"][0] == pytest.approx(expected, abs=1e-4) and found["float32"][2] == 0
    for loss, value, change in found.values():
        assert value == pytest.approx(math.exp(loss), rel=1e-4)
        assert change == pytest.approx(100 * math.expm1(loss - found["float32"][0]), abs=0.002)
    assert 0 < abs(found["int8"][2]) < 1


def test_weights_alone_are_enough_if_the_data_is_named():
    train("--max_iters", "2")
    state = read_file(Path("models/mine_epoch1.pt"))
    weights = {name: state[name] for name in ("format_version", "model", "tokenizer")}
    write_file(weights | {"config": {"model": state["config"]["model"]}}, Path("models/weights.pt"))
    found = rows("--dataset", "mine", model="models/weights.pt")
    assert found["float32"][0] == pytest.approx(rows()["float32"][0], abs=1e-5)
    with pytest.raises(UserError, match="does not say which data it was trained on; name a data set with --dataset"):
        rows(model="models/weights.pt")


def test_fewer_batches_read_less():
    train("--max_iters", "2")
    assert rows("--batches", "1", "--dtypes", "float32") != rows("--dtypes", "float32")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--dtypes", "float32,int4"), "unknown 'int4'; choose from float32, bfloat16, int8"),
        (("--batches", "0"), "--batches must be at least 1"),
        (("--dataset", "nowhere"), "nowhere"),
        (("--dataset", "../x"), "dataset_name"),
    ],
)
def test_errors_are_one_sentence(flags, said):
    train("--max_iters", "1")
    with pytest.raises(UserError, match=said):
        perplexity.main(["models/mine_epoch1.pt", *flags])


@pytest.mark.parametrize("factor", [1e8, float("nan")])
def test_a_diverged_model_is_an_error(factor):
    train("--max_iters", "1")
    state = read_file(Path("models/mine_epoch1.pt"))
    state["model"]["transformer.ln_f.weight"] *= factor
    write_file(state, Path("models/diverged.pt"))
    with pytest.raises(UserError, match=r"With float32 weights the loss is .*; use an earlier checkpoint"):
        perplexity.main(["models/diverged.pt"])


def test_it_runs_as_a_command():
    tool = Path(perplexity.__file__)
    outcome = subprocess.run([sys.executable, str(tool), "no.pt"], capture_output=True, text=True)
    assert outcome.returncode == 1 and "no.pt" in outcome.stderr + outcome.stdout and "Traceback" not in outcome.stderr
