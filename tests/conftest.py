"""Settings and fixtures for all tests."""

import functools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The models here are tiny: several threads would only wait for each other. torch reads this when it is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test needs the network

# Hypothesis tries the same few examples every time. With HYPOTHESIS_PROFILE=thorough in the environment it tries other
# examples each time: a thousand, or as many as a test sets itself.
COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]}
settings.register_profile("quick", derandomize=True, max_examples=40, **COMMON)
settings.register_profile("thorough", max_examples=1000, print_blob=True, **COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


@pytest.fixture
def stories(tmp_path: Path) -> Path:
    """A JSONL file of helpers_data.STORIES."""
    from helpers_data import STORIES, write_lines

    return write_lines(tmp_path / "data" / "tales-train.jsonl", STORIES)


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    """Where a test's token caches go."""
    return tmp_path / "cache"


@pytest.fixture(scope="session", autouse=True)
def told_once() -> Iterator[None]:
    """The built-in stories are made once for all tests of a process, which takes seconds."""
    from recipes import story_generator
    from recipes.story import STORIES

    make = story_generator.stories

    @functools.cache
    def told(seed: int) -> list[str]:
        return list(make(STORIES, seed))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            story_generator,
            "stories",
            lambda count, seed=0: iter(told(seed)) if count == STORIES else make(count, seed),
        )
        yield
