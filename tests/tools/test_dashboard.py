"""The live view without a browser: it reads files that change, thins curves, and its server sends nothing else."""

from __future__ import annotations

import errno
import hashlib
import http.client
import itertools
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from helpers_run import listening
from hypothesis import given
from hypothesis import strategies as st
from live_view import ROOT, lines, row, serving, write

from tools import dashboard
from utils import UserError

import metrics_follower as follower  # isort: skip  (the import above puts it on the path)
from metrics_follower import Folder, RunFile, differences, downsample, flatten, smooth

PAGE = ROOT / "tools" / "dashboard"
ALL = {"low": -math.inf, "high": math.inf, "points": 1000, "window": 1}


def read(run: RunFile) -> list[int]:
    """Read new rows; returns all steps that were read so far."""
    run.read(threading.Lock())
    return [int(step) for step in run.x["step"]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of a run's metrics file."""
    return tmp_path / "a.metrics.jsonl"


@pytest.fixture
def run(path: Path) -> RunFile:
    """A run of three rows that has been read."""
    write(path, lines(1, 2, 3))
    run = RunFile(path, 1)
    assert read(run) == [1, 2, 3]
    return run


# --- reading ----------------------------------------------------------------------------------------------------------


def test_only_what_is_new_is_read(run: RunFile, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    parse = follower.parse_rows
    monkeypatch.setattr(follower, "parse_rows", lambda text: parsed.append(text) or parse(text))
    version = run.version
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(follower, "open", None, raising=False)  # a file that did not change is not even opened
        assert read(run) == [1, 2, 3] and not parsed and run.version == version
    write(path, lines(4, 5), append=True)
    assert read(run) == [1, 2, 3, 4, 5]
    assert parsed == [lines(4, 5).decode()] and run.version > version


def test_a_half_line_waits_for_the_rest(run: RunFile, path: Path) -> None:
    line = lines(4)
    for part in (line[:20], line[20:-1]):
        write(path, part, append=True)
        version = run.version
        assert read(run) == [1, 2, 3] and run.version == version
    write(path, line[-1:] + lines(5), append=True)
    assert read(run) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "garbage",
    [
        b"\n",
        b"garbage\n",
        lines(9)[:40] + b"\n",
        lines(9)[30:],
        b"\xff\xfe\x00\n",
        b"[1, 2]\n",
        b"3\n",
        b'"step"\n',
        b"null\n",
        b"{}\n",
        b'{"step": null}\n',
        b'{"step": NaN, "loss": 1}\n',
        b'{"step": "nine"}\n',
        b'{"step": [9]}\n',
        b'{"step": 1' + b"0" * 400 + b"}\n",
        b"[" * 100_000 + b"\n",
        b'{"step":' * 100_000 + b"\n",
    ],
)
def test_lines_that_are_not_rows_are_skipped(garbage: bytes, run: RunFile, path: Path) -> None:
    write(path, garbage + lines(4), append=True)
    assert read(run) == [1, 2, 3, 4]
    assert run.y["loss"].tolist() == pytest.approx([10, 5, 10 / 3, 2.5])


def test_values_that_are_not_numbers_are_gaps(path: Path) -> None:
    strange = [None, math.nan, math.inf, -math.inf, 10**400, [1], {"a": 1}, "much", 1e300]
    write(path, b"".join(lines(step, loss=value) for step, value in enumerate(strange, start=1)) + lines(99))
    run = RunFile(path, 1)
    assert len(read(run)) == len(strange) + 1
    curve = run.curves("step", **ALL)["loss"]
    assert curve["y"][:-2] == [None] * (len(strange) - 1)
    assert curve["y"][-1] == pytest.approx(0.10101, rel=1e-4)
    json.dumps(run.curves("step", **ALL), allow_nan=False)
    json.dumps(run.summary(), allow_nan=False)


def test_rows_may_lack_anything_but_the_step(path: Path) -> None:
    write(path, b'{"step": 1}\n{"step": 2, "loss": 2.5}\n')
    run = RunFile(path, 1)
    assert read(run) == [1, 2]
    assert run.curves("step", **ALL)["loss"] == {"x": [1, 2], "y": [None, 2.5]}
    assert run.curves("tokens", **ALL)["loss"] == {"x": [], "y": []}


def test_a_line_longer_than_a_block_is_skipped(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "BLOCK_BYTES", 1000)
    write(path, lines(1) + b"x" * 5000 + b"\n" + lines(2))
    assert read(RunFile(path, 1)) == [1, 2]


def test_rows_of_a_file_cut_back_are_forgotten(run: RunFile, path: Path) -> None:
    write(path, lines(1))
    assert read(run) == [1]
    write(path, lines(2, 3, 4), append=True)
    assert read(run) == [1, 2, 3, 4]
    write(path, b"")
    assert read(run) == []
    write(path, lines(7))
    assert read(run) == [7]


def test_a_file_cut_back_and_grown_between_two_reads_is_noticed(run: RunFile, path: Path) -> None:
    write(path, lines(1) + lines(2, 3, 4, 5, loss=0.25))
    assert read(run) == [1, 2, 3, 4, 5]
    assert run.y["loss"].tolist() == [10, 0.25, 0.25, 0.25, 0.25]


def test_another_file_of_the_same_size_is_noticed(run: RunFile, path: Path) -> None:
    other = path.with_name("other")
    write(other, lines(4, 5, 6))
    os.replace(other, path)
    assert read(run) == [4, 5, 6]


def test_a_long_file_cut_back_is_not_read_from_its_beginning(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "BLOCK_BYTES", 1000)
    whole = lines(*range(1, 101))
    write(path, whole)
    run = RunFile(path, 1)
    read(run)
    parsed: list[str] = []
    parse = follower.parse_rows
    monkeypatch.setattr(follower, "parse_rows", lambda text: parsed.append(text) or parse(text))
    write(path, lines(*range(1, 91)) + lines(91, 92, loss=0.5))
    assert read(run) == [*range(1, 93)]
    assert sum(map(len, parsed)) < len(whole) / 4


def test_a_file_that_grows_for_days_needs_one_mark_per_block(run: RunFile, path: Path) -> None:
    for step in range(4, 100):
        write(path, lines(step), append=True)
        read(run)
    assert len(run.marks) == 2


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("rows"), st.integers(1, 9)),
        st.tuples(st.just("half"), st.integers(1, 60)),
        st.tuples(st.just("garbage"), st.integers(0, 2)),
        st.tuples(st.just("cut"), st.integers(0, 2000)),
        st.tuples(st.just("replace"), st.integers(0, 12)),
        st.tuples(st.just("look"), st.just(0)),
    ),
    max_size=25,
)


@given(STEPS)
def test_after_any_changes_a_run_equals_a_new_reader(tmp_path_factory: pytest.TempPathFactory, steps: Any) -> None:
    path = tmp_path_factory.mktemp("run") / "a.metrics.jsonl"
    content, loss = b"", itertools.count(1)
    run = RunFile(path, 1)
    write(path, b"")
    for kind, amount in (*steps, ("look", 0)):
        new = b"".join(lines(step, loss=next(loss) / 7, val_loss=1.0, bpb=0.5) for step in range(1, amount % 20 + 1))
        if kind == "rows":
            content += new
        elif kind == "half":
            content += new[:amount]
        elif kind == "garbage":
            content += [b"\n", b"{]\n", b"\xff\n"][amount]
        elif kind == "cut":
            content = content[:amount]
        elif kind == "replace":
            content = new
        elif kind == "look":
            write(path, content)
            read(run)
    fresh = RunFile(path, 2)
    read(fresh)
    for columns in ("x", "y", "evaluations"):
        for name in getattr(run, columns).names:
            np.testing.assert_array_equal(getattr(run, columns)[name], getattr(fresh, columns)[name])


@given(st.integers(1, 400), st.integers(0, 30))
def test_blocks_may_end_anywhere(tmp_path_factory: pytest.TempPathFactory, block: int, count: int) -> None:
    path = tmp_path_factory.mktemp("run") / "a.metrics.jsonl"
    write(path, lines(*range(1, count + 1)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(follower, "BLOCK_BYTES", 300 + block)
        assert read(RunFile(path, 1)) == [*range(1, count + 1)]


# --- evaluations, samples, the table ------------------------------------------------------------------------------------


def test_evaluations_and_samples_are_taken_from_their_rows(path: Path) -> None:
    text = {"prompt": "Once", "text": " upon a time"}
    write(
        path, lines(1) + lines(2, val_loss=4.0, bpb=1.5, tasks={"name": 0.5, "order": 0.75}) + lines(3, samples=[text])
    )
    run = RunFile(path, 1)
    read(run)
    assert [(step, texts) for _, step, texts in run.samples] == [(3, [text])]
    write(path, lines(4, val_loss=5.0, bpb=None) + lines(5, samples=[text, text], val_loss=math.nan), append=True)
    read(run)
    curves = run.curves("tokens", **ALL)
    assert curves["val_loss"] == {"x": [200, 400], "y": [4, 5]}
    assert curves["bpb"] == {"x": [200], "y": [1.5]} and curves["tasks"] == {"x": [200], "y": [0.625]}
    summary = run.summary()
    assert (summary["step"], summary["best_val_loss"], summary["newest_samples"]) == (5, 4.0, 5)
    write(path, lines(1))
    read(run)
    assert not run.samples and run.summary()["best_val_loss"] is None and run.curves("step", **ALL)["bpb"]["x"] == []


@pytest.mark.parametrize("samples", [None, 3, "text", {}, [], [3, None], [{"prompt": 1}], [{"text": ["a"]}]])
def test_malformed_samples_do_no_harm(samples: object, path: Path) -> None:
    write(path, lines(1, samples=samples))
    run = RunFile(path, 1)
    assert read(run) == [1]
    assert all(text == "" for _, _, texts in run.samples for sample in texts for text in sample.values())


def test_number_and_length_of_samples_are_limited(path: Path) -> None:
    text = {"prompt": "p", "text": "t" * 10_000, "more": 1}
    write(path, b"".join(lines(step, samples=[text] * 20) for step in range(1, 80)))
    run = RunFile(path, 1)
    read(run)
    assert len(run.samples) == follower.MAX_SAMPLE_ROWS and run.samples[-1][1] == 79
    assert len(run.samples[0][2]) == follower.MAX_SAMPLES
    assert run.samples[0][2][0] == {"prompt": "p", "text": "t" * follower.MAX_SAMPLE_CHARS}


def test_a_run_is_running_if_its_file_was_written_recently(path: Path, run: RunFile) -> None:
    assert not run.summary()["running"]
    os.utime(path)
    read(run)
    assert run.summary()["running"]


def with_config(run: RunFile, **options: Any) -> RunFile:
    """The run with these options (double underscores for the dots), read again."""
    run.config = {name.replace("__", "."): value for name, value in options.items()}
    return run


def test_a_run_that_is_complete_is_not_running(path: Path, run: RunFile) -> None:
    os.utime(path)
    read(run)
    assert with_config(run, training__max_iters=4).progress() == {"running": True, "done": 0.75, "left_s": 0.5}
    assert with_config(run, training__max_iters=3).progress() == {"running": False, "done": 1, "left_s": None}


def test_the_length_of_a_run_in_epochs_is_that_of_its_learning_rates(run: RunFile) -> None:
    config = {"training__max_iters": None, "scheduler__lr_decay_iters": 12}
    assert with_config(run, **config).progress()["done"] == 0.25
    config["scheduler__lr_decay_iters"] = 2  # the run is longer than that, so its length is unknown
    assert with_config(run, **config).progress()["done"] is None
    assert with_config(run).progress()["done"] is None


def test_a_limit_in_minutes_limits_the_time_left(path: Path, run: RunFile) -> None:
    os.utime(path)
    read(run)
    limited = with_config(run, training__max_iters=1000, training__max_minutes=0.05)
    assert limited.progress()["left_s"] == 1.5


def test_a_run_ends_when_its_lock_is_released_and_runs_as_long_as_it_is_held(path: Path, run: RunFile) -> None:
    lock = FileLock(path.with_name(".a.lock"))
    run.read_lock(follower.held_locks())
    assert run.locked is None  # the time of the file decides
    with lock:
        held = follower.held_locks()
        if not held:
            pytest.skip("this system does not list its locks")
        run.read_lock(held)
        assert run.progress()["running"]  # though the file is old: a batch may take minutes
    os.utime(path)
    read(run)
    run.read_lock(follower.held_locks())
    assert not run.progress()["running"]


def test_seeds_of_a_config_belong_together_and_other_data_apart(run: RunFile) -> None:
    first = with_config(run, system__seed=1, data__dataset_name="a", data__predict="all").kind()
    assert first == with_config(run, system__seed=2, data__dataset_name="a", data__predict="all").kind()
    other = with_config(run, system__seed=1, data__dataset_name="b", data__predict="assistant").kind()
    assert (first["data"], other["data"]) == ("a", "b assistant") and first["repeats"] != other["repeats"]
    run.config = None
    assert run.kind() == {"data": None, "tokenizer": None, "repeats": None}


def test_escape_sequences_are_written_out(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[31m\u202eb.metrics.jsonl"
    text = "red \x1b[31m\n\ttab\xa0\u3000 \u202e \u0645\u06cc\u200c\u062e \ud800"
    write(path, lines(1, samples=[{"prompt": "\x07", "text": text}]))
    (tmp_path / (path.name.removesuffix(".metrics.jsonl") + ".config.json")).write_text('{"a\\u001b": "\\u001b]0;x"}')
    folder = Folder(tmp_path)
    assert names(folder) == ["a\\x1b[31m\\u202eb"]
    run = folder.runs[1]
    shown = "red \\x1b[31m\n\ttab\xa0\u3000 \\u202e \u0645\u06cc\u200c\u062e \ud800"
    assert run.samples[0][2] == [{"prompt": "\\x07", "text": shown}]
    assert differences([run.config or {}, {}]) == [{"name": "a\\x1b", "values": ["\\x1b]0;x", None]}]


# --- the folder -------------------------------------------------------------------------------------------------------


def names(folder: Folder) -> list[str]:
    """Read the folder again; returns the names of its runs."""
    folder.refresh()
    return [run["name"] for run in folder.overview()["runs"]]


def test_runs_come_and_go(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    assert names(folder) == []
    write(tmp_path / "b.metrics.jsonl", lines(1))
    write(tmp_path / "other.jsonl", lines(1))
    (tmp_path / "folder.metrics.jsonl").mkdir()
    os.mkfifo(tmp_path / "pipe.metrics.jsonl")  # opening it would wait forever
    assert names(folder) == ["b"]
    write(tmp_path / "a.metrics.jsonl", lines(1, 2))
    assert names(folder) == ["b", "a"]
    first = folder.overview()["runs"][1]["id"]
    (tmp_path / "a.metrics.jsonl").unlink()
    assert names(folder) == ["b"]
    write(tmp_path / "a.metrics.jsonl", lines(5))
    assert names(folder) == ["b", "a"]
    again = folder.overview()["runs"][1]
    assert again["step"] == 5 and again["id"] != first  # so the page asks for its curves again


def test_links_that_lead_nowhere_or_back_to_themselves_are_left_out(tmp_path: Path) -> None:
    write(tmp_path / "a.metrics.jsonl", lines(1))
    (tmp_path / "loop.metrics.jsonl").symlink_to("loop.metrics.jsonl")
    (tmp_path / "nowhere.metrics.jsonl").symlink_to("nowhere")
    (tmp_path / "a.config.json").symlink_to("a.config.json")
    folder = Folder(tmp_path)
    assert names(folder) == ["a"] and folder.overview()["problem"] == ""


def test_runs_stay_if_the_folder_cannot_be_read_for_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.metrics.jsonl", lines(1))
    write(tmp_path / "a.config.json", b'{"model": {"n_layer": 2}}')
    folder = Folder(tmp_path)
    assert names(folder) == ["a"]
    write(tmp_path / "a.config.json", b'{"model": {"n_layer": 3}}')

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(follower.os, "scandir", refuse)
        patch.setattr(Path, "read_bytes", refuse)
        assert names(folder) == ["a"] and folder.overview()["problem"] == "Too many open files"
        assert folder.runs[1].config == {"model.n_layer": 2}
    assert names(folder) == ["a"] and folder.overview()["problem"] == ""
    assert folder.runs[1].config == {"model.n_layer": 3}


def test_the_server_waits_if_no_connection_can_be_accepted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    waited: list[float] = []
    monkeypatch.setattr(dashboard.time, "sleep", waited.append)
    with dashboard.listen("127.0.0.1", 0, Folder(tmp_path), allow_remote=False) as server:
        server.socket.setblocking(False)  # nobody asks, so accepting fails as it does with too many open files
        with pytest.raises(OSError):
            server.get_request()
    assert waited == [dashboard.BUSY_SECONDS]


def test_a_missing_folder_is_reported_and_read_once_it_exists(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "models")
    assert names(folder) == [] and folder.overview()["problem"] == "No such file or directory"
    (tmp_path / "models").mkdir()
    write(tmp_path / "models" / "a.metrics.jsonl", lines(1))
    assert names(folder) == ["a"] and folder.overview()["problem"] == ""


def test_an_unreadable_file_is_reported_beside_its_name(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(path, lines(1))
    write(tmp_path / "b.metrics.jsonl", lines(1))
    stat = Path.stat

    def refuse(self: Path, **more: Any) -> os.stat_result:
        if self == path:
            raise PermissionError(13, "Permission denied")
        return stat(self, **more)

    monkeypatch.setattr(Path, "stat", refuse)
    folder = Folder(tmp_path)
    assert names(folder) == ["a", "b"]
    assert [(run["rows"], run["problem"]) for run in folder.overview()["runs"]] == [(0, "Permission denied"), (1, "")]
    monkeypatch.undo()
    names(folder)
    assert [(run["rows"], run["problem"]) for run in folder.overview()["runs"]] == [(1, ""), (1, "")]


def test_nothing_is_written(tmp_path: Path) -> None:
    write(tmp_path / "a.metrics.jsonl", lines(1, 2)[:-5])
    write(tmp_path / "a.config.json", b"{}")
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in tmp_path.iterdir()}
    folder = Folder(tmp_path)
    names(folder)
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in tmp_path.iterdir()} == before


# --- configs ----------------------------------------------------------------------------------------------------------


def test_only_options_that_differ_are_listed() -> None:
    configs = [
        {"model": {"n_layer": 4, "bias": True}, "optimizer": {"kind": "adamw", "learning_rate": 1e-3, "betas": [1, 2]}},
        {
            "model": {"n_layer": 4, "bias": False},
            "optimizer": {"kind": "muon", "learning_rate": 0.001, "betas": [1, 3]},
        },
        {"model": {"n_layer": 4.0, "bias": True, "new": None}, "optimizer": {"kind": "adamw", "learning_rate": 1e-3}},
    ]
    assert differences([dict(flatten(config)) for config in configs]) == [
        {"name": "model.bias", "values": ["true", "false", "true"]},
        {"name": "optimizer.kind", "values": ["adamw", "muon", "adamw"]},
        {"name": "optimizer.betas", "values": ["[1, 2]", "[1, 3]", None]},
        {"name": "model.new", "values": [None, None, "null"]},
    ]
    assert differences([]) == differences([{"a": 1}]) == differences([{"a": 1}, {"a": 1}]) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"\xff", b'{"a":' * 100_000, b" " * (1 << 20) + b"{}"])
def test_an_invalid_config_counts_as_missing(content: bytes, path: Path, run: RunFile) -> None:
    config = path.with_name("a.config.json")
    run.read_config()
    assert run.config is None and run.summary()["config"] == 0
    write(config, b'{"model": {"n_layer": 2}}')
    run.read_config()
    first = run.summary()["config"]
    assert run.config == {"model.n_layer": 2} and first > 0
    run.read_config()
    assert run.summary()["config"] == first
    write(config, content)
    run.read_config()
    assert run.config is None and run.summary()["config"] == 0
    write(config, b'{"model": {"n_layer": 3}}')
    run.read_config()
    assert run.config == {"model.n_layer": 3} and run.summary()["config"] > first


# --- curves -----------------------------------------------------------------------------------------------------------

VALUES = st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(math.nan)), max_size=300).map(np.array)


@given(VALUES, st.integers(4, 60))
def test_downsample_keeps_order_ends_and_extremes(y: np.ndarray[Any, Any], most: int) -> None:
    chosen = downsample(y, most)
    assert len(chosen) <= most and (np.diff(chosen) > 0).all()
    if len(y) <= most:
        assert chosen.tolist() == [*range(len(y))]
        return
    assert chosen[0] == 0 and chosen[-1] == len(y) - 1
    if np.isfinite(y).any():
        assert np.nanmin(y[chosen]) == np.nanmin(y) and np.nanmax(y[chosen]) == np.nanmax(y)
        buckets = (most - 2) // 2
        size = -(-len(y) // buckets)
        for start in range(0, len(y), size):  # the same holds in every bucket
            part = y[start : start + size]
            if np.isfinite(part).any():
                inside = y[chosen[(chosen >= start) & (chosen < start + size)]]
                assert np.nanmin(inside) == np.nanmin(part) and np.nanmax(inside) == np.nanmax(part)


def test_a_long_gap_stays_a_gap() -> None:
    y = np.r_[np.ones(500), np.full(1000, np.nan), np.ones(500)]
    assert np.isnan(y[downsample(y, 100)]).sum() > 10


@given(VALUES.filter(len), st.integers(1, 400), st.integers(1, 40))
def test_smooth_is_the_mean_of_the_finite_values(y: np.ndarray[Any, Any], window: int, count: int) -> None:
    at = np.unique(np.linspace(0, len(y) - 1, count).astype(np.intp))
    for i, value in zip(at, smooth(y, window, at), strict=True):
        part = y[max(0, i - window // 2) : i + window // 2 + 1]
        part = part[np.isfinite(part)]
        assert math.isnan(value) if not len(part) else value == pytest.approx(part.mean(), abs=1e-6)


def test_curves_of_a_range_have_one_more_point_on_both_sides(path: Path) -> None:
    write(path, lines(*range(1, 101)))
    run = RunFile(path, 1)
    read(run)
    assert run.curves("step", 10, 12, 1000, 1)["lr"]["x"] == [9, 10, 11, 12, 13]
    assert run.curves("step", 10.5, 10.6, 1000, 1)["lr"]["x"] == [10, 11]
    assert run.curves("elapsed_s", 0, 1, 1000, 1)["lr"]["x"] == [0.5, 1, 1.5]
    assert run.curves("step", 200, 300, 1000, 0)["lr"]["x"] == [100]
    assert run.curves("step", -5, 0, 1000, 0)["lr"]["x"] == [1]


def test_rows_out_of_order_make_a_curve_in_order(path: Path) -> None:
    write(path, lines(3, 1, 2) + lines(4, elapsed_s=None))
    run = RunFile(path, 1)
    read(run)
    assert run.curves("step", **ALL)["loss"] == {"x": [1, 2, 3, 4], "y": [10, 5, 3.33333, 2.5]}
    assert run.curves("elapsed_s", **ALL)["loss"]["x"] == [0.5, 1, 1.5]


def test_a_run_without_rows_has_empty_curves(path: Path) -> None:
    write(path, b"")
    run = RunFile(path, 1)
    assert read(run) == []
    for window in (0, 1, 50):
        curves = run.curves("step", -math.inf, math.inf, 100, window)
        assert all(curve == {"x": [], "y": []} for curve in curves.values())
    assert run.summary()["step"] is None


# --- the server -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dashboard.Server]:
    """A server for a folder with a run of 51 rows, and a secret beside it."""
    folder = tmp_path_factory.mktemp("models")
    write(folder / "a.metrics.jsonl", lines(*range(1, 51)) + lines(51, samples=[{"prompt": "p", "text": "t"}]))
    write(folder / "a.config.json", b'{"model": {"n_layer": 2}}')
    write(folder / "secret.txt", b"secret")
    with serving(folder) as server:
        yield server


class Answer:
    """Status, headers and content of an answer."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.content = answer.status, answer.headers, answer.read()

    @property
    def json(self) -> Any:
        return json.loads(self.content)


def ask(server: dashboard.Server, target: str, method: str = "GET", **headers: str) -> Answer:
    """Send one request, with its target exactly as given."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    try:
        connection.putrequest(method, target, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        return Answer(connection.getresponse())
    finally:
        connection.close()


CURVES = "/api/curves?run=1&x=step&points=100&window=0&raw=1"


def test_every_route_answers_with_its_type_and_security_headers(server: dashboard.Server) -> None:
    routes = {**{route: kind for route, (_, kind) in dashboard.FILES.items()}}
    routes |= dict.fromkeys(["/api/runs", CURVES, "/api/samples?run=1", "/api/config?runs=1"], "application/json")
    for route, kind in routes.items():
        answer = ask(server, route)
        assert (answer.status, answer.headers["Content-Type"]) == (200, kind), route
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'self';")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert int(answer.headers["Content-Length"]) == len(answer.content) > 0


def test_an_answer_that_has_not_changed_is_not_sent_again(path: Path) -> None:
    write(path, lines(1))
    with serving(path.parent) as server:
        first = ask(server, "/api/runs")
        again = ask(server, "/api/runs", If_None_Match=first.headers["ETag"])
        assert (again.status, again.content) == (304, b"")
        write(path, lines(2), append=True)
        server.folder.refresh()
        third = ask(server, "/api/runs", If_None_Match=first.headers["ETag"])
    assert third.status == 200
    assert third.json["runs"][0]["version"] > first.json["runs"][0]["version"]
    assert third.json["runs"][0]["step"] == 2


def test_the_data_is_that_of_the_files(server: dashboard.Server) -> None:
    curves = ask(server, CURVES).json["curves"]
    assert curves["lr"]["x"] == [*range(1, 52)]
    assert curves["mfu"] == {"x": [], "y": []}
    assert ask(server, "/api/samples?run=1").json == {"rows": [{"step": 51, "samples": [{"prompt": "p", "text": "t"}]}]}
    assert ask(server, "/api/config?runs=1,7").json == {"runs": [1], "options": []}
    assert "loss" not in ask(server, CURVES.replace("window=0&raw=1", "window=5&raw=0")).json["curves"]
    for gone in (CURVES.replace("run=1", "run=8"), "/api/samples?run=8"):
        assert ask(server, gone).json == {"gone": True}


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "CONNECT", "BREW"])
def test_other_methods_are_refused(method: str, server: dashboard.Server) -> None:
    assert ask(server, "/", method).status == (501 if method == "BREW" else 405)


@pytest.mark.parametrize(
    "target",
    [
        "/secret.txt",
        "/models/secret.txt",
        "/../secret.txt",
        "/vendor/../../dashboard.py",
        "/vendor/..%2f..%2fdashboard.py",
        "/%2e%2e/dashboard.py",
        "/..\\..\\dashboard.py",
        "//etc/passwd",
        "/./style.css",
        "/vendor/",
        "/vendor/LICENSE",
        "/index.html",
        "/style.css/",
        "/style.css%00",
        "/api/",
        "/api/runs/a",
        "*",
        "/api/samples/../../secret.txt?run=1",
    ],
)
def test_nothing_but_the_fixed_routes_exists(target: str, server: dashboard.Server) -> None:
    answer = ask(server, target)
    assert answer.status == 404 and b"secret" not in answer.content
    assert answer.headers["Content-Security-Policy"] and answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    "query",
    [
        "",
        "run=a",
        "run=-1&x=name",
        "run=../secret.txt&x=step&points=100&window=0&raw=1",
        "run=1&x=loss&points=100&window=0&raw=1",
        "run=1&x=__class__&points=100&window=0&raw=1",
        "run=1&x=step&points=many&window=0&raw=1",
        "run=1&x=step&points=100&window=0&raw=yes",
        "run=1&x=step&points=100&window=0&raw=1&from=nan",
        "run=1&x=step&points=100&window=0&raw=1&from=5&to=4",
        "run=1&x=step&points=1e3&window=0&raw=1",
    ],
)
def test_a_query_that_makes_no_sense_is_refused(query: str, server: dashboard.Server) -> None:
    answer = ask(server, f"/api/curves?{query}")
    assert answer.status == 400 and b"Traceback" not in answer.content
    assert ask(server, "/api/samples?run=one").status == ask(server, "/api/config?runs=").status == 400


def test_extreme_queries_are_answered(server: dashboard.Server) -> None:
    for more in ("&from=-inf&to=inf", "&from=1e300&to=1e300", "&from=-1e999"):
        assert ask(server, CURVES + more).status == 200
    assert ask(server, CURVES.replace("window=0", "window=1" + "0" * 30)).status == 200
    assert ask(server, CURVES.replace("points=100", "points=-1" + "0" * 30)).status == 200
    assert ask(server, CURVES.replace("run=1", "run=" + "9" * 30)).json == {"gone": True}


def test_only_requests_addressed_to_this_machine_are_answered(server: dashboard.Server) -> None:
    port = server.server_port
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}", f"LocalHost:{port}"):
        assert ask(server, "/api/runs", Host=host).status == 200
    evil = ["evil.example", f"evil.example:{port}", "localhost", f"localhost:{port + 1}", f"localhost.evil:{port}", ""]
    for host in (*evil, f"127.0.0.1:{port}@evil", f"evil.example, localhost:{port}", f"0.0.0.0:{port}"):
        for target in ("/", "/api/runs", "/nothing"):
            assert ask(server, target, Host=host).status == 403, host


def raw(server: dashboard.Server, content: bytes) -> bytes:
    """Send these bytes; returns all that comes back until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as connection:
        connection.sendall(content)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_odd_requests_are_refused(server: dashboard.Server) -> None:
    host = f"Host: localhost:{server.server_port}\r\n".encode()
    assert b" 403 " in raw(server, b"GET / HTTP/1.1\r\n\r\n")
    assert b" 403 " in raw(server, b"GET / HTTP/1.0\r\n\r\n")
    assert b" 403 " in raw(server, b"GET / HTTP/1.1\r\n" + host + host + b"\r\n")
    with_body = raw(
        server, b"GET / HTTP/1.1\r\n" + host + b"Content-Length: 30\r\n\r\nGET /api/runs HTTP/1.1\r\n" + host
    )
    assert with_body.count(b"HTTP/1.1") == 1 and b" 400 " in with_body
    assert b" 414 " in raw(server, b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n" + host + b"\r\n")
    assert b" 404 " in raw(server, b"GET http://elsewhere/ HTTP/1.1\r\n" + host + b"\r\n")
    twice = 2 * (b"GET /icon.svg HTTP/1.1\r\n" + host + b"\r\n")
    assert raw(server, twice).count(b" 200 ") == 2
    with listening() as heard:
        raw(server, b"\x16\x03\x01garbage\r\n\r\n")
    assert not heard


def test_with_any_host_every_name_is_answered(tmp_path: Path) -> None:
    with serving(tmp_path, any_host=True) as server:
        assert ask(server, "/api/runs", Host="lab-machine:8000").status == 200


def test_a_long_run_is_answered_in_a_bounded_size(tmp_path: Path) -> None:
    n = 200_000
    template = (
        json.dumps(row(7)).replace('"step": 7', '"step": %d').replace('"loss": 1.4285714285714286', '"loss": %.6f')
    )
    losses = [9.5 if step == 123_457 else 2 + step % 7 / 10 for step in range(n)]
    text = "\n".join(template % (step, loss) for step, loss in enumerate(losses, start=1))
    write(tmp_path / "long.metrics.jsonl", text.encode() + b"\n")
    with serving(tmp_path) as server:
        answer = ask(server, "/api/curves?run=1&x=step&points=1000000&window=0&raw=1")
        curves = answer.json["curves"]
        assert all(len(curve["x"]) == len(curve["y"]) <= dashboard.MAX_POINTS for curve in curves.values())
        assert len(answer.content) < 400_000
        assert curves["loss"]["y"][curves["loss"]["x"].index(123_458)] == 9.5  # the one peak among 200,000
        zoomed = ask(server, "/api/curves?run=1&x=step&points=2000&window=1&raw=1&from=100000&to=100500").json["curves"]
        assert zoomed["loss"]["x"] == [*range(99_999, 100_502)]


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "127.0.0.1.evil.org"])
def test_it_does_not_listen_to_other_machines(host: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="allow_remote"):
        dashboard.main([str(tmp_path), "--host", host, "--port", "0"])


def test_it_listens_on_every_loopback_address(tmp_path: Path) -> None:
    hosts = ["localhost", "127.0.0.1", "127.0.0.2"] + (["::1", "[::1]"] if socket.has_ipv6 and ipv6() else [])
    for host in hosts:
        with dashboard.listen(host, 0, Folder(tmp_path), allow_remote=False) as server:
            assert server.server_port > 0
    with dashboard.listen("0.0.0.0", 0, Folder(tmp_path), allow_remote=True) as server:
        assert server.any_host


def ipv6() -> bool:
    """Whether this machine has a loopback address of IPv6."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
        return True
    except OSError:
        return False


def test_a_port_in_use_is_one_clear_sentence(tmp_path: Path) -> None:
    with dashboard.listen("127.0.0.1", 0, Folder(tmp_path), allow_remote=False) as server:
        port = server.server_port
        with pytest.raises(UserError, match=f"Port {port} is in use; choose another one with --port {port + 1}"):
            dashboard.main([str(tmp_path), "--port", str(port)])
    for port in (-1, 70_000):
        with pytest.raises(UserError, match="between 0 and 65535"):
            dashboard.main([str(tmp_path), "--port", str(port)])


def test_a_file_in_place_of_the_folder_is_an_error(path: Path) -> None:
    write(path, b"")
    with pytest.raises(UserError, match="is not a folder"):
        dashboard.main([str(path), "--port", "0"])


def test_ctrl_c_stops_the_server_without_a_message(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tools" / "dashboard.py"), "models", "--port", "0"]
    process = subprocess.Popen(command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    said = process.stdout.readline()
    url = said.split()[0]
    for _ in range(200):  # the folder is first read when the server runs already
        with urllib.request.urlopen(f"{url}/api/runs") as answer:
            if json.load(answer)["problem"]:
                break
        time.sleep(0.05)
    with urllib.request.urlopen(f"{url}/api/runs") as answer:  # an open connection does not keep the server alive
        assert json.load(answer)["problem"] == "No such file or directory"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130 and out == ""
    assert err == "warning: There is no folder 'models' yet; the page is empty until a run writes there.\n"
    assert [p.name for p in tmp_path.iterdir()] == []


# --- what the page is made of -----------------------------------------------------------------------------------------


def test_the_page_asks_for_nothing_from_elsewhere_and_inserts_no_markup() -> None:
    for name in ("index.html", "style.css", "charts.js", "app.js", "icon.svg"):
        text = (PAGE / name).read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "://" not in text, name
        markup = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function"
        assert not re.search(markup, text), name
        if name != "icon.svg":
            assert not re.search(r"<script>|\son\w+=\"|style=\"|<style|javascript:|@import|url\(", text), name
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    assert set(re.findall(r'(?:src|href)="([^"]+)"', page)) == dashboard.FILES.keys() - {"/"}


def test_the_vendored_files_have_the_hashes_in_their_readme() -> None:
    vendor = PAGE / "vendor"
    sums = dict(re.findall(r"^\| `([^`]+)` \|.*`([0-9a-f]{64})` \|$", (vendor / "README.md").read_text(), re.MULTILINE))
    found = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in vendor.iterdir() if p.name != "README.md"}
    assert found == sums


# Linear RGB as people with each kind of colour blindness see it: Machado, Oliveira and Fernandes (2009), severity 1.
VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def linear(color: str) -> np.ndarray[Any, Any]:
    """sRGB as #rrggbb to linear RGB."""
    c = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def oklab(rgb: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Linear RGB to Oklab, in which distances are about as large as they look (Ottosson, 2020)."""
    lms = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    lab = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return np.array(lab) @ np.cbrt(np.array(lms) @ rgb.clip(0, 1))


def test_colors_of_runs_differ_for_every_kind_of_vision() -> None:
    themes = re.findall(r"--card: (#\w{6}).*?(--c0: .*?)\n", (PAGE / "style.css").read_text(), re.DOTALL)
    assert len(themes) == 2
    for card, text in themes:
        colors = re.findall(r"--c\d: (#\w{6})", text)
        assert len(colors) == 7
        for matrix in VISION.values():
            seen = [oklab(np.array(matrix) @ linear(color)) for color in colors]
            assert min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2)) > 0.11
        light = [float(linear(color) @ [0.2126, 0.7152, 0.0722]) for color in (card, *colors)]
        contrasts = [(max(light[0], x) + 0.05) / (min(light[0], x) + 0.05) for x in light[1:]]
        assert min(contrasts) > 2.9  # to the card


def test_the_docs_name_every_flag_and_no_other() -> None:
    text = (ROOT / "docs" / "dashboard.md").read_text(encoding="utf-8")
    flags = {flag for action in dashboard.build_parser()._actions for flag in action.option_strings} - {"-h", "--help"}
    assert set(re.findall(r"--[a-z_]+", text.replace("--help", ""))) == flags
