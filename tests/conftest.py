"""Settings and fixtures for all tests."""

import os
from pathlib import Path

import pytest

# The models here are tiny: several threads would only wait for each other. Must be set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def stories(tmp_path: Path) -> Path:
    """A JSONL file of helpers_data.STORIES."""
    from helpers_data import STORIES, write_lines

    return write_lines(tmp_path / "data" / "tales-train.jsonl", STORIES)


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    """Where a test's token caches go."""
    return tmp_path / "cache"
