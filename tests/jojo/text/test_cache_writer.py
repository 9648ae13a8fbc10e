"""A preparation that is killed continues where it stopped, and writes the same bytes."""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers_data import ROOT, files_in, logged, open_cache, write_lines

from jojo.text import cache_builder, cache_writer, token_cache
from jojo.text.cache_builder import Source
from jojo.text.token_cache import TokenCache
from jojo.text.tokenizer import get_tokenizer
from utils import UserError

GPT2 = get_tokenizer("gpt2")
RECORDS: list[Any] = [{"text": f"Story {n}: " + "once upon a time " * (n % 7)} for n in range(600)]
SMALL = {"TASK_BYTES": 700, "JOURNAL_BYTES": 2000, "BLOCK_BYTES": 1024}

BUILD = """
import os, sys
from pathlib import Path
from jojo.text import cache_builder, cache_writer, token_cache
for name, value in {small!r}.items():
    for module in (cache_builder, cache_writer, token_cache):
        if hasattr(module, name):
            setattr(module, name, value)
left, add = {kill_at}, cache_writer.CacheWriter.add
def counting(self, part):
    global left
    left -= 1
    if left == 0:
        os._exit(9)  # no clean-up, and what was not flushed is lost: SIGKILL, or a power cut
    add(self, part)
cache_writer.CacheWriter.add = counting
source = cache_builder.Source("tales", "train", "tales", Path(sys.argv[1]))
cache_builder.CacheBuilder(source, cache_builder.Tokenizer(), Path(sys.argv[2])).open()
"""


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks, journals and blocks are so small that a test's data fill many of them."""
    for name, value in SMALL.items():
        for module in (cache_builder, cache_writer, token_cache):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "tales.jsonl", [*RECORDS[:300], "not a record", *RECORDS[300:]])


def source_of(data: Path) -> Source:
    return Source("tales", "train", "tales", data)


def build(data: Path, cache_dir: Path) -> TokenCache:
    cache = open_cache(source_of(data), GPT2, cache_dir)
    assert cache is not None
    return cache


def killed(data: Path, cache_dir: Path, kill_at: int) -> None:
    """Runs a process that builds the cache and dies before its task number `kill_at` is written."""
    code = BUILD.format(small=SMALL, kill_at=kill_at)
    process = subprocess.run([sys.executable, "-c", code, str(data), str(cache_dir)], cwd=ROOT, check=False)
    assert process.returncode == 9


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files_in(folder)}


def test_killed_five_times_and_continued_gives_the_same_bytes(small: None, data: Path, tmp_path: Path) -> None:
    build(data, tmp_path / "whole")
    chance = random.Random(5)
    for _ in range(5):
        killed(data, tmp_path / "broken", chance.randint(5, 12))
    with logged() as said:
        build(data, tmp_path / "broken")
    assert any("Continuing after line" in record.getMessage() for record in said)
    assert any("skipped 1 unreadable line (line 301" in record.getMessage() for record in said)
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")


@pytest.mark.parametrize("what", ["bin cut", "bin flipped", "idx gone", "journal cut", "journal changed"])
def test_damaged_files_of_a_killed_process_are_not_used(small: None, data: Path, tmp_path: Path, what: str) -> None:
    build(data, tmp_path / "whole")
    broken = tmp_path / "broken"
    killed(data, broken, 20)
    (journal,) = broken.glob(".*.part.json")
    files = {path.name.rpartition(".part.")[2]: path for path in broken.glob(".*.part.*")}
    path = {"bin": files["bin"], "idx": files["idx"], "journal": journal}[what.split()[0]]
    content = path.read_bytes()
    if what.endswith("gone"):
        path.unlink()
    else:
        changed = {"cut": content[: len(content) // 2], "flipped": content[:99] + b"\xff" + content[100:]}
        path.write_bytes(changed.get(what.split()[1], content.replace(b'"lines": ', b'"lines": 1')))
    build(data, broken)
    assert contents(broken) == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    "change",
    [{"counts": {}}, {"bad_lines": [[1]]}, {"lines": "x"}, {".bin": {"checksums": "", "pending": 1 << 70}}],
)
def test_a_forged_journal_is_not_used(small: None, data: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    build(data, tmp_path / "whole")
    killed(data, tmp_path / "broken", 20)
    (path,) = (tmp_path / "broken").glob(".*.part.json")
    journal = json.loads(path.read_text())
    del journal["digest"]
    journal |= change
    path.write_text(json.dumps(journal | {"digest": token_cache.digest_of(journal)}))
    build(data, tmp_path / "broken")
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")


def test_changed_data_start_again_and_leave_nothing(small: None, data: Path, tmp_path: Path) -> None:
    killed(data, tmp_path / "cache", 20)
    write_lines(data, RECORDS[:50])
    build(data, tmp_path / "cache")
    build(data, tmp_path / "whole")
    assert contents(tmp_path / "cache") == contents(tmp_path / "whole")


def test_a_failure_after_a_journal_keeps_what_was_done(small: None, data: Path, tmp_path: Path) -> None:
    """Too many unreadable lines: with a higher limit the same preparation continues."""
    bad = write_lines(data, [*RECORDS[:400], *["bad"] * 3, *RECORDS[400:]])
    with pytest.raises(UserError, match="more than 2 unreadable lines"):
        open_cache(source_of(bad), GPT2, tmp_path / "cache", max_bad_lines=2)
    with logged() as said:
        build(bad, tmp_path / "cache")
    assert any("Continuing after line" in record.getMessage() for record in said)
    build(bad, tmp_path / "whole")
    assert contents(tmp_path / "cache") == contents(tmp_path / "whole")


def test_a_disk_that_is_full_names_the_file(small: None, data: Path, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as error:
            build(data, tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(error.value.filename).startswith(str(tmp_path / "cache" / ".tales-train-"))
    build(data, tmp_path / "cache")  # now the disk has room
    build(data, tmp_path / "whole")
    assert contents(tmp_path / "cache") == contents(tmp_path / "whole")
