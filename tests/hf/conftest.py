"""An export that the tests of hf/ share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers_hf import dry_run
from helpers_model import random_model, save_format3, tiny_config


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint with ChatML and without biases, and its exported folder. Tests must not change them."""
    place = tmp_path_factory.mktemp("hf")
    model = random_model(tiny_config(vocab_size=50304, bias=False), 50259)
    path = save_format3(model, place / "x.pt")
    return path, dry_run(path, place / "folder")


@pytest.fixture
def folder(exported: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of the exported folder that a test may change."""
    return Path(shutil.copytree(exported[1], tmp_path / "folder"))
