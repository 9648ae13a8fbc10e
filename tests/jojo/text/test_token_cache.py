"""Tests of the token cache: never wrong data, built once, and found again."""

from __future__ import annotations

import errno
import gc
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import threading
import tracemalloc
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import filelock
import numpy as np
import pytest
from helpers_data import (
    EOT,
    GPT2,
    ROOT,
    STORIES,
    TURNS,
    build,
    build_at_once,
    checksums,
    documents_of,
    encoded,
    files_in,
    logged,
    made_up_cache,
    open_cache,
    source_of,
    warnings_in,
    write_lines,
)

from jojo.text import cache_builder, cache_writer, documents, token_cache
from jojo.text.cache_builder import CacheBuilder, Source
from jojo.text.documents import id_dtype
from jojo.text.token_cache import CacheManifest, CheckedFile, TokenCache
from jojo.text.tokenizer import Tokenizer
from utils import UserError


def refuse_building(*_: Any, **__: Any) -> None:
    raise AssertionError("the data was tokenized again")


def refuse_hashing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Source) -> str:
        raise AssertionError("the source was read again")

    monkeypatch.setattr(Source, "sha256", refuse)


# --- what is written ----------------------------------------------------------------------------------------------


def test_ids_take_two_bytes_up_to_65536_and_four_beyond() -> None:
    assert id_dtype(1) == id_dtype(50259) == id_dtype(1 << 16) == np.dtype("<u2")
    assert id_dtype((1 << 16) + 1) == np.dtype("<u4")
    assert np.array([65535], id_dtype(1 << 16))[0] == 65535


def test_a_cache_of_four_byte_ids_reads_like_one_of_two(
    stories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = build(stories, tmp_path / "small")
    for module in (documents, cache_builder):
        monkeypatch.setattr(module, "id_dtype", lambda n_vocab: np.dtype("<u4"))
    large = build(stories, tmp_path / "large")
    assert (small.manifest.dtype, large.manifest.dtype) == ("<u2", "<u4")
    assert small.path.with_suffix(".bin").stat().st_size * 2 == large.path.with_suffix(".bin").stat().st_size
    assert documents_of(small) == documents_of(large)
    monkeypatch.undo()
    assert documents_of(TokenCache(large.path)) == documents_of(small)  # the manifest records the dtype


def test_the_files_are_what_the_format_says(stories: Path, cache_dir: Path) -> None:
    cache = build(stories, cache_dir)
    expected = [[*GPT2.encode(r["text"]), EOT] for r in STORIES]
    ids = np.fromfile(cache.path.with_suffix(".bin"), "<u2")
    offsets = np.fromfile(cache.path.with_suffix(".idx"), "<u8")
    assert ids.tolist() == [i for document in expected for i in document]
    assert offsets.tolist() == np.cumsum([0, *map(len, expected)]).tolist()
    assert files_in(cache_dir) == sorted(cache.path.with_suffix(s).name for s in (".bin", ".idx", ".json"))


def test_the_manifest_has_all_counts(tmp_path: Path, cache_dir: Path) -> None:
    texts = ["Hello world", "日本語 👍", "", "one <|im_end|> two"]
    path = write_lines(tmp_path / "x.jsonl", [*({"text": t} for t in texts), {"messages": TURNS}, b"oops"])
    facts = build(path, cache_dir).manifest
    lengths = [len(GPT2.encode(t)) + 1 for t in texts if t] + [len(GPT2.encode_chat(TURNS)) + 1]
    assert (facts.name, facts.split, facts.dtype, facts.format) == ("tales", "train", "<u2", 1)
    assert (facts.n_documents, facts.n_tokens, facts.longest_document) == (4, sum(lengths), max(lengths))
    assert facts.n_control_tokens == 4 + 4  # an end for each document, two for each turn
    assert (facts.lookalike_documents, facts.empty_documents, facts.bad_lines) == (1, 1, 1)
    assert facts.source["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (facts.source["size"], facts.source["mtime_ns"]) == (path.stat().st_size, path.stat().st_mtime_ns)
    assert facts.source["label"] == str(path)
    assert facts.tokenizer == GPT2.definition() and facts.rendering == {"parse_special": False}


def test_bytes_of_text_are_counted_from_the_original_text(tmp_path: Path, cache_dir: Path) -> None:
    texts = ["Hello world", "日本語 👍", "one <|im_end|> two"]
    facts = build(write_lines(tmp_path / "x.jsonl", [{"text": t} for t in texts]), cache_dir).manifest
    assert facts.n_text_bytes == sum(len(t.encode()) for t in texts)


def test_bytes_of_text_leave_out_parsed_control_tokens(tmp_path: Path, cache_dir: Path) -> None:
    path = write_lines(tmp_path / "x.jsonl", [{"text": "<|im_start|>user\nHello<|im_end|>\n<|endoftext|>"}])
    facts = build(path, cache_dir, parse_special=True).manifest
    assert facts.n_text_bytes == len("user\nHello\n")


# --- in parallel --------------------------------------------------------------------------------------------------


def test_two_threads_write_the_same_bytes_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_lines(
        tmp_path / "x.jsonl", [*STORIES, b"oops", b"", {"messages": TURNS}, {"text": ""}, {"text": "日"}]
    )
    monkeypatch.setattr(cache_builder, "TASK_BYTES", 200)
    alone = build(path, tmp_path / "alone")
    plain, threads = cache_builder.encode_lines, set()

    def watched(*arguments: Any) -> Any:
        threads.add(threading.current_thread().name)
        return plain(*arguments)

    monkeypatch.setattr(cache_builder, "encode_lines", watched)
    with logged() as records:
        together = build(path, tmp_path / "together", num_workers=2)
    assert threads <= {"tokenize_0", "tokenize_1"} and threads
    for suffix in (".bin", ".idx", ".json"):
        assert alone.path.with_suffix(suffix).read_bytes() == together.path.with_suffix(suffix).read_bytes()
    assert "line 40:" in warnings_in(records)[0]
    with pytest.raises(UserError, match="more than 0 unreadable"):
        build(path, tmp_path / "refused", num_workers=2, max_bad_lines=0)
    assert files_in(tmp_path / "refused") == []


def test_tokenizing_does_not_import_torch() -> None:
    program = (
        "import sys\n"
        "from jojo.text import cache_builder, documents\n"
        'lines = [b\'{"text": "Hello"}\']\n'
        "assert len(cache_builder.encode_lines(1, lines, False, cache_builder.Tokenizer()).ids) == 2\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


# --- found again --------------------------------------------------------------------------------------------------


def test_an_unchanged_source_is_neither_tokenized_nor_read_again(
    stories: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build(stories, cache_dir)
    before = first.path.read_bytes()
    monkeypatch.setattr(CacheBuilder, "write", refuse_building)
    refuse_hashing(monkeypatch)
    again = build(stories, cache_dir)
    assert again.path == first.path and first.path.read_bytes() == before


def test_a_touched_source_is_compared_by_contents_once(
    stories: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build(stories, cache_dir)
    os.utime(stories, ns=(1, 123_456_789_000))
    monkeypatch.setattr(CacheBuilder, "write", refuse_building)
    again = build(stories, cache_dir)
    assert again.path == first.path and documents_of(again) == documents_of(first)
    refuse_hashing(monkeypatch)
    assert build(stories, cache_dir).manifest.source["mtime_ns"] == stories.stat().st_mtime_ns


def test_a_moved_source_uses_the_same_cache(
    stories: Path, tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build(stories, cache_dir)
    (tmp_path / "elsewhere").mkdir()
    moved = Path(shutil.move(stories, tmp_path / "elsewhere"))
    monkeypatch.setattr(CacheBuilder, "write", refuse_building)
    assert build(moved, cache_dir).path == first.path


def test_a_changed_source_is_tokenized_again(stories: Path, cache_dir: Path) -> None:
    first = build(stories, cache_dir)
    status = stories.stat()
    stories.write_bytes(stories.read_bytes().replace(b"foxes", b"bears"))
    os.utime(stories, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    again = build(stories, cache_dir)
    assert again.path != first.path
    assert GPT2.decode(documents_of(again)[0]) == "Story 1: once upon a time there were 1 bears.\n"


def test_two_files_of_one_name_size_and_time_are_distinguished(tmp_path: Path, cache_dir: Path) -> None:
    """Archives and disk images may give all files the same time; then only their folders differ."""
    paths = [
        write_lines(tmp_path / folder / "x.jsonl", [{"text": letter}]) for folder, letter in (("a", "A"), ("b", "B"))
    ]
    for path in paths:
        os.utime(path, ns=(10**18, 10**18))
    assert [GPT2.decode(documents_of(build(path, cache_dir))[0]) for path in paths] == ["A", "B"]


def test_a_cache_whose_source_is_absent_is_used(stories: Path, cache_dir: Path) -> None:
    expected = documents_of(build(stories, cache_dir))
    stories.unlink()
    assert documents_of(build(stories, cache_dir)) == expected
    assert open_cache(source_of(stories.with_name("others-train.jsonl"), "others"), GPT2, cache_dir) is None
    assert open_cache(source_of(stories, split="val"), GPT2, cache_dir) is None
    assert open_cache(source_of(stories), Tokenizer(chatml=False), cache_dir) is None
    assert open_cache(source_of(stories), GPT2, cache_dir, True) is None


def test_a_cache_that_was_copied_alone_is_found_whatever_its_data_folder_is_called(
    stories: Path, tmp_path: Path, cache_dir: Path
) -> None:
    expected = documents_of(build(stories, cache_dir))
    copied = Path(shutil.copytree(cache_dir, tmp_path / "elsewhere" / "cache"))
    absent = source_of(tmp_path / "elsewhere" / "d" / stories.name)
    with logged() as records:
        cache = open_cache(absent, GPT2, copied)
    assert cache is not None and documents_of(cache) == expected
    assert records[-1].getMessage() == f"No {absent.label}: using the token cache made from {stories}."


def test_of_caches_from_several_folders_the_right_one_is_used_or_the_user_is_asked(
    tmp_path: Path, cache_dir: Path
) -> None:
    paths = [write_lines(tmp_path / letter / "tales-train.jsonl", [{"text": letter}]) for letter in "ba"]
    for path in paths:
        build(path, cache_dir)
        path.unlink()
    assert [GPT2.decode(documents_of(build(path, cache_dir))[0]) for path in paths] == ["b", "a"]
    with pytest.raises(UserError, match=r"several files of that name .*; choose one with --data\.data_dir") as error:
        open_cache(source_of(tmp_path / "c" / "tales-train.jsonl"), GPT2, cache_dir)
    assert all(str(path) in str(error.value) for path in paths) and "\n" not in str(error.value)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_cache_in_a_read_only_folder_is_found_by_its_contents(
    stories: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    expected = documents_of(build(stories, cache_dir))
    os.utime(stories, ns=(1, 123_456_789_000))

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(number, "not here", str(cache_dir))

    before = {name: (cache_dir / name).read_bytes() for name in files_in(cache_dir)}
    with monkeypatch.context() as patch:
        patch.setattr(cache_builder, "replace_text", refuse)  # the lock works, but the manifest cannot be replaced
        assert documents_of(build(stories, cache_dir)) == expected
    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    assert documents_of(build(stories, cache_dir)) == expected
    assert {name: (cache_dir / name).read_bytes() for name in files_in(cache_dir)} == before
    stories.write_bytes(stories.read_bytes() + b'{"text": "One more."}\n')
    with pytest.raises(OSError, match="not here"):
        build(stories, cache_dir)


def test_an_absent_source_without_a_cache_gives_none_and_leaves_nothing_behind(tmp_path: Path, cache_dir: Path) -> None:
    assert open_cache(source_of(tmp_path / "gone.jsonl"), GPT2, cache_dir) is None
    assert not cache_dir.exists()


@pytest.mark.parametrize("name", ["a[b]c", "what?", "st*r", "with space", "日本", "x-train"])
def test_a_cache_is_found_again_whatever_the_data_set_is_called(tmp_path: Path, cache_dir: Path, name: str) -> None:
    path = write_lines(tmp_path / "x.jsonl", STORIES[:2])
    if os.name == "nt" and set(name) & set("?*"):
        name = "plain"
    first = open_cache(source_of(path, name), GPT2, cache_dir)
    path.unlink()
    again = open_cache(source_of(path, name), GPT2, cache_dir)
    assert first and again and again.path == first.path


def test_the_fingerprint_depends_on_rendering_and_tokenizer(tmp_path: Path, cache_dir: Path) -> None:
    path = write_lines(tmp_path / "x.jsonl", [{"text": "a<|im_end|>"}])
    variants = [
        build(path, cache_dir),
        build(path, cache_dir, parse_special=True),
        build(path, cache_dir, Tokenizer(chatml=False)),
    ]
    assert len({cache.manifest.fingerprint for cache in variants}) == 3
    assert documents_of(variants[0]) != documents_of(variants[1])
    again = build(path, cache_dir, parse_special=True)
    assert again.path == variants[1].path and documents_of(again) == documents_of(variants[1])


def test_the_fingerprint_is_the_same_in_every_process_and_folder(stories: Path, tmp_path: Path) -> None:
    caches = [build(stories, tmp_path / folder) for folder in ("a", "b")]
    assert caches[0].path.name == caches[1].path.name


def test_a_generator_is_found_by_its_own_hash(cache_dir: Path) -> None:
    def source(sha256: str, text: str) -> Source:
        return Source("made", "train", "a generator", None, lambda: iter([json.dumps({"text": text}).encode()]), sha256)

    first = open_cache(source("1" * 64, "a"), GPT2, cache_dir)
    again = open_cache(source("1" * 64, "never read"), GPT2, cache_dir)
    other = open_cache(source("2" * 64, "b"), GPT2, cache_dir)
    assert first and again and other
    assert (documents_of(first), documents_of(again), documents_of(other)) == ([[64, EOT]], [[64, EOT]], [[65, EOT]])


# --- damage -------------------------------------------------------------------------------------------------------


def damaged_cache_gives(path: Path, cache_dir: Path, facts: CacheManifest, expected: list[list[int]]) -> str:
    """The outcome of opening and reading a damaged cache: "refused" or "right". Wrong data fail the test."""
    try:
        cache = build(path, cache_dir)
        documents = documents_of(cache)
    except UserError as error:
        assert "\n" not in str(error) and "delete it" in str(error)
        return "refused"
    assert documents == expected and cache.manifest == facts
    return "right"


@pytest.mark.parametrize("suffix", [".bin", ".idx", ".json"])
def test_a_flipped_bit_anywhere_never_gives_wrong_data(stories: Path, cache_dir: Path, suffix: str) -> None:
    cache = build(stories, cache_dir)
    expected, path = documents_of(cache), cache.path.with_suffix(suffix)
    intact = {name: (cache_dir / name).read_bytes() for name in files_in(cache_dir)}
    dice, outcomes = random.Random(suffix), []
    for _ in range(25):
        for name, content in intact.items():
            (cache_dir / name).write_bytes(content)
        changed = bytearray(intact[path.name])
        changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
        path.write_bytes(changed)
        if suffix != ".json":
            with pytest.raises(UserError, match=r"damaged.*delete it"):
                TokenCache(cache.path).verify()
        outcomes.append(damaged_cache_gives(stories, cache_dir, cache.manifest, expected))
        assert path.read_bytes() == intact[path.name] or suffix == ".json"  # whose last line break does not matter
        TokenCache(cache.path).verify()
    assert set(outcomes) == {"right"}  # noticed when the block is read, and built again


def test_damage_found_in_the_middle_of_a_run_is_repaired_and_reported_once(stories: Path, cache_dir: Path) -> None:
    cache = build(stories, cache_dir)
    expected = documents_of(cache)
    for suffix in (".bin", ".idx"):
        running = build(stories, cache_dir)
        path = cache.path.with_suffix(suffix)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 16
        path.write_bytes(content)
        with logged() as records:
            assert documents_of(running) == expected
            assert documents_of(running) == expected
        assert len([w for w in warnings_in(records) if "damaged" in w and "rebuilding it" in w]) == 1


def test_a_damaged_cache_is_not_repaired_if_its_data_changed_or_are_missing(stories: Path, cache_dir: Path) -> None:
    running = build(stories, cache_dir)
    path = running.path.with_suffix(".bin")
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)
    kept = stories.read_bytes()
    stories.write_bytes(kept + b'{"text": "One more."}\n')
    with pytest.raises(UserError, match="the data have changed since it was made; start again"):
        documents_of(running)
    stories.unlink()
    without_data = open_cache(source_of(stories), GPT2, cache_dir, False)
    assert without_data is not None
    with pytest.raises(UserError, match=r"damaged.*delete it"):
        documents_of(without_data)


def test_leftovers_of_another_set_whose_name_begins_alike_are_not_deleted(stories: Path, cache_dir: Path) -> None:
    cache_dir.mkdir()
    own = cache_dir / f".tales-train-{'0' * 16}.part.bin"
    other = cache_dir / f".tales-train-x-train-{'0' * 16}.part.bin"
    for path in (own, other):
        path.write_bytes(b"half")
    build(stories, cache_dir)
    assert other.exists() and not own.exists()


@pytest.mark.parametrize("suffix", [".bin", ".idx", ".json"])
def test_a_file_that_is_cut_grown_or_gone_never_gives_wrong_data(stories: Path, cache_dir: Path, suffix: str) -> None:
    cache = build(stories, cache_dir)
    expected, path = documents_of(cache), cache.path.with_suffix(suffix)
    intact = path.read_bytes()
    for changed in (b"", intact[:1], intact[: len(intact) // 2], intact[:-1], intact + b"\0", intact[:-8], None):
        path.unlink() if changed is None else path.write_bytes(changed)
        assert (
            damaged_cache_gives(stories, cache_dir, cache.manifest, expected) == "right"
        )  # noticed at once, and built again
        TokenCache(cache.path).verify()
        assert path.read_bytes() == intact or suffix == ".json"  # whose last line break does not matter


def test_files_of_two_caches_are_not_mixed(tmp_path: Path, cache_dir: Path) -> None:
    paths = [write_lines(tmp_path / f"{letter}.jsonl", [{"text": f" {letter}" * 5}]) for letter in "ab"]
    first, second = (build(path, cache_dir) for path in paths)
    shutil.copy(first.path.with_suffix(".bin"), second.path.with_suffix(".bin"))
    with pytest.raises(UserError, match="damaged"):
        TokenCache(second.path).verify()


def test_a_manifest_of_another_format_is_not_read(
    stories: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = build(stories, cache_dir)
    expected = documents_of(cache)
    cache.manifest.format = 99
    cache.path.write_text(cache.manifest.to_json(), encoding="utf-8")
    with logged() as records:
        assert documents_of(build(stories, cache_dir)) == expected
    assert any("another format" in message for message in warnings_in(records))


def test_a_damaged_manifest_is_reported_once_and_in_words(stories: Path, cache_dir: Path) -> None:
    build(stories, cache_dir).path.write_text('{"name": "ta')
    with logged() as records:
        build(stories, cache_dir)
    (warning,) = warnings_in(records)
    assert "damaged" in warning


def test_a_file_that_is_cut_short_in_use_is_an_error(tmp_path: Path) -> None:
    cache = made_up_cache(tmp_path, [1000] * 100)
    cut = cache.path.with_suffix(".bin")
    with open(cut, "r+b") as file:
        file.truncate(1000)
    with pytest.raises(UserError, match="cut short"):
        cache.tokens(90_000, 90_010)


# --- interruption -------------------------------------------------------------------------------------------------


def interrupted_source(path: Path, error: BaseException) -> Source:
    class Interrupted(Source):
        def lines(self, first_byte: int = 0) -> Iterator[bytes]:
            yield from path.read_bytes().splitlines(keepends=True)[:20]
            raise error

    return Interrupted("tales", "train", str(path), path)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device"), MemoryError()])
def test_an_interrupted_build_leaves_nothing_behind(
    stories: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.setattr(cache_builder, "TASK_BYTES", 100)
    with pytest.raises(type(error)):
        open_cache(interrupted_source(stories, error), GPT2, cache_dir)
    assert files_in(cache_dir) == []
    assert documents_of(build(stories, cache_dir)) == [[*GPT2.encode(r["text"]), EOT] for r in STORIES]


def test_a_build_that_fails_at_its_last_rename_leaves_no_cache(
    stories: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def failing(old: Any, new: Any) -> None:
        if str(new).endswith(".json"):
            raise OSError(5, "Input/output error")
        replace(old, new)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="Input/output"):
        build(stories, cache_dir)
    monkeypatch.setattr(os, "replace", replace)
    assert not [name for name in files_in(cache_dir) if "part" in name or name.endswith(".json")]
    build(stories, cache_dir)
    assert len(files_in(cache_dir)) == 3


def test_an_interrupted_build_closes_its_files(stories: Path, cache_dir: Path) -> None:
    """An open file cannot be deleted on Windows: the temporary files would stay, and hide the reason."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        with pytest.raises(KeyboardInterrupt):
            open_cache(interrupted_source(stories, KeyboardInterrupt()), GPT2, cache_dir)
        gc.collect()
    assert [str(w.message) for w in caught if str(cache_dir) in str(w.message)] == []


def test_a_cache_without_references_closes_its_files(stories: Path, cache_dir: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        cache = build(stories, cache_dir)
        documents_of(cache)
        del cache
        gc.collect()
    assert [str(w.message) for w in caught if str(cache_dir) in str(w.message)] == []


KILLED = """
import os, sys
from pathlib import Path
from jojo.text import cache_builder
from jojo.text.cache_builder import CacheBuilder, Source
from jojo.text.tokenizer import get_tokenizer

class Killed(Source):
    def lines(self, first_byte=0):
        for number, line in enumerate(super().lines()):
            if number == 20:
                os._exit(9)  # no clean-up, as under SIGKILL or a power cut
            yield line

if __name__ == "__main__":
    cache_builder.TASK_BYTES = 100
    path = Path(sys.argv[1])
    source = Killed("tales", "train", str(path), path)
    CacheBuilder(source, get_tokenizer("gpt2"), Path(sys.argv[2])).open()
"""


def test_after_a_killed_build_the_next_one_builds_and_cleans_up(stories: Path, cache_dir: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(stories), str(cache_dir)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 9
    assert not [name for name in files_in(cache_dir) if name.endswith(".json") and "part" not in name]
    cache = build(stories, cache_dir)
    assert documents_of(cache) == [[*GPT2.encode(r["text"]), EOT] for r in STORIES]
    assert len(files_in(cache_dir)) == 3  # what the killed process left is gone


def test_a_source_that_grows_while_it_is_read_gives_no_cache(stories: Path, cache_dir: Path) -> None:
    class Growing(Source):
        def lines(self, first_byte: int = 0) -> Iterator[bytes]:
            yield from super().lines()
            with open(stories, "ab") as file:
                file.write(b'{"text": "one more"}\n')

    with pytest.raises(UserError, match="changed while it was being read"):
        open_cache(Growing("tales", "train", str(stories), stories), GPT2, cache_dir)
    assert files_in(cache_dir) == []
    assert build(stories, cache_dir).n_documents == len(STORIES) + 1


def test_a_file_in_the_place_of_the_cache_folder_is_one_sentence(stories: Path, cache_dir: Path) -> None:
    cache_dir.write_text("in the way")
    with pytest.raises((OSError, UserError)) as error:
        build(stories, cache_dir)
    assert str(cache_dir) in str(error.value) and "\n" not in str(error.value)
    assert cache_dir.read_text() == "in the way"


# --- two processes ------------------------------------------------------------------------------------------------


def test_two_processes_at_once_tokenize_once_and_both_get_the_cache(stories: Path, cache_dir: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    processes = [
        context.Process(target=build_at_once, args=(str(stories), str(cache_dir), barrier, results)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    answers = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    (path, tasks, documents), (other_path, other_tasks, other_documents) = answers
    assert path == other_path and sorted([tasks, other_tasks]) == [0, 1]
    assert documents == other_documents == [[*GPT2.encode(r["text"]), EOT] for r in STORIES]
    assert len(files_in(cache_dir)) == 3


# --- memory -------------------------------------------------------------------------------------------------------


def test_reading_takes_only_the_memory_of_a_block_and_maps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("mapped")

    monkeypatch.setattr(np, "memmap", refuse)
    size = 40 << 20
    path = tmp_path / "large.bin"
    with open(path, "wb") as file:
        file.truncate(size)
    checked = CheckedFile(path, checksums(path), size)
    dice = random.Random(1)
    tracemalloc.start()
    try:
        for start in [0, size - 4096, *(dice.randrange(size - 4096) for _ in range(200))]:
            assert checked.read(start, start + 4096) == bytes(4096)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 << 20  # a block being verified, not the file


def test_each_block_is_verified_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = (5 << 20) + 17
    path = tmp_path / "x.bin"
    path.write_bytes(random.Random(2).randbytes(size))
    checked = CheckedFile(path, checksums(path), size)
    verified = []

    def counting(block: bytes) -> int:
        verified.append(len(block))
        return zlib.crc32(block)

    monkeypatch.setattr(token_cache, "zlib", SimpleNamespace(crc32=counting))
    content = path.read_bytes()
    for start, stop in [(0, 1), (1 << 20, (1 << 20) + 1), ((1 << 20) - 1, (1 << 20) + 1), (3 << 20, size), (0, size)]:
        assert checked.read(start, stop) == content[start:stop]
    starts, sizes = np.array([size - 9, 5, (2 << 20) - 3]), np.array([9, 0, 6])
    assert checked.read_ranges(starts, sizes) == content[-9:] + content[(2 << 20) - 3 : (2 << 20) + 3]
    assert sorted(verified) == [17, *[1 << 20] * 5]


def test_building_holds_a_bounded_number_of_lines(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times the data take the same memory, apart from at most 20 bytes a document."""
    monkeypatch.setattr(cache_builder, "TASK_BYTES", 20_000)
    for module in (cache_writer, token_cache):
        monkeypatch.setattr(module, "BLOCK_BYTES", 4096)  # so that the buffer of a block is small
    encoded([b'{"text": "warm"}'])

    def peak_of(count: int) -> int:
        def lines() -> Iterator[bytes]:
            for number in range(count):
                yield json.dumps({"text": f"{number} " + "word " * 20}).encode()

        tracemalloc.start()
        try:
            open_cache(Source(f"n{count}", "train", "lines", None, lines, f"{count:064}"), GPT2, cache_dir)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak_of(100)
    small, large = peak_of(1_000), peak_of(10_000)
    assert large - small < 20 * 9_000
