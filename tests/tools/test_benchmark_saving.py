"""Test of tools/benchmark_saving.py: it trains, saves at the same time, and shows all times."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers_run import listening, settle, write_data

from tools import benchmark_saving
from utils import UserError


@pytest.fixture(autouse=True)
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(tmp_path, monkeypatch)
    write_data()


def test_every_time_is_measured() -> None:
    model = {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 16}
    system = {"device": "cpu", "dtype": "float32"}
    config = {"model": model, "system": system, "data": {"dataset_name": "mine"}, "training": {"batch_size": 2}}
    Path("tiny.json").write_text(json.dumps(config))
    with listening() as said:
        assert benchmark_saving.main(["--config", "tiny.json", "--batches", "2", "--turns", "1"]) == 0
    rows = said[-1].splitlines()
    assert len(rows) == 8 and rows[0].startswith("checkpoint ")
    assert not list(Path("models").glob("*"))


def test_numbers_below_one_are_refused() -> None:
    with pytest.raises(UserError, match="must be at least 1"):
        benchmark_saving.main(["--batches", "0"])
