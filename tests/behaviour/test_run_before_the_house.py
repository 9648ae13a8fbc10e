"""Resumes a run of older code: its data, token caches and metrics, and a checkpoint after 6 of 12 batches.

It ran on a processor that may round differently, so losses are compared to a millionth and not bit for bit.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import train

WRITTEN = Path(__file__).parent / "run_before_the_house"
FOLDERS = {".tiktoken": "data", ".bin": "cache", ".idx": "cache", ".json": "cache", ".pt": "models"}


def rows(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_run_of_old_code_resumes_and_ends_with_equal_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("jojo.optim.NEWTON_SCHULZ", 5 * [(3.4445, -4.7750, 2.0315)])  # what Muon's steps were then
    for file in WRITTEN.iterdir():
        folder = FOLDERS.get(file.suffix) or ("models" if "metrics" in file.name else "data")
        (tmp_path / folder).mkdir(exist_ok=True)
        shutil.copy(file, tmp_path / folder / file.name)
    caches = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in Path("cache").glob("before*.[bi]*")}

    assert train.main(["--resume", "models/before_batch6.pt"]) == 0

    expected, found = rows(WRITTEN / "before.metrics.jsonl"), rows(Path("models/before.metrics.jsonl"))
    assert found[:6] == expected[:6] and [row["step"] for row in found] == list(range(1, 13))
    for key in ("tokens", "loss", "lr", "grad_norm", "val_loss", "bpb"):
        values = [row.get(key) for row in expected]
        assert [row.get(key) for row in found] == [v and pytest.approx(v, rel=1e-6) for v in values], key
    assert found[-1]["samples"] == expected[-1]["samples"]
    assert {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in caches} == caches
