"""Tests of jojo/metrics.py: thinned series, extremes, and a file that a resumed run continues without gaps or repeats."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
from helpers_run import listening, metrics_rows

from jojo.metrics import MAX_POINTS, Extremes, MetricsFile, MetricsTracker, Series


def row(step):
    """A row as the trainer writes it, with the keys that these tests need."""
    return {"step": step, "loss": 1.0 / step, "lr": step / 1000}


def steps(path):
    """The steps in a metrics file; every line must be whole."""
    return [json.loads(line)["step"] for line in path.read_text(encoding="utf-8").splitlines()]


def write(path, numbers, keep_until=0):
    """Append rows of these steps, as a run that resumes after batch `keep_until` does."""
    file = MetricsFile(path, keep_until)
    for step in numbers:
        file.append(row(step))
    file.close()


# --- series -----------------------------------------------------------------------------------------------------------


def test_a_short_series_keeps_every_point():
    series = Series()
    for step in range(1, MAX_POINTS + 1):
        series.add(step, float(step))
    assert series.points == [(step, float(step)) for step in range(1, MAX_POINTS + 1)]


@pytest.mark.parametrize("length", [MAX_POINTS + 1, 3 * MAX_POINTS, 20_000, 100_000])
def test_a_long_series_keeps_evenly_spaced_points_over_its_whole_length(length):
    series = Series()
    for step in range(1, length + 1):
        series.add(step, step / 2)
        assert len(series.points) <= MAX_POINTS
    taken = [step for step, _ in series.points]
    assert len(taken) >= MAX_POINTS // 2 - 1
    assert {b - a for a, b in pairwise(taken)} == {series.stride}
    assert taken[0] <= series.stride and taken[-1] > length - series.stride
    assert all(value == step / 2 for step, value in series.points)


def test_a_series_continues_after_saving_and_loading_as_if_uninterrupted():
    whole, part = MetricsTracker(), MetricsTracker()
    for step in range(1, 3 * MAX_POINTS):
        whole.add_batch(row(step))
        part.add_batch(row(step))
        if step in (5, MAX_POINTS, MAX_POINTS + 1, 9000):
            saved = json.loads(json.dumps(part.state_dict()))  # turns tuples into lists, which must work too
            part = MetricsTracker()
            part.load_state_dict(saved)
    assert json.dumps(part.state_dict()) == json.dumps(whole.state_dict())


# --- extremes ---------------------------------------------------------------------------------------------------------


def test_extremes_are_the_lowest_and_highest_value_and_only_a_lower_one_is_best():
    extremes = Extremes()
    assert (extremes.best, extremes.worst) == (math.inf, -math.inf)
    assert [extremes.add(value) for value in (3.0, 4.0, 2.0, 2.0, 2.5)] == [True, False, True, False, False]
    assert (extremes.best, extremes.worst) == (2.0, 4.0)


def test_nan_is_never_the_best_value_and_later_values_still_count():
    extremes = Extremes()
    assert extremes.add(math.nan) is False
    assert extremes.add(3.0) is True
    assert extremes.add(math.nan) is False
    assert extremes.add(2.0) is True
    assert (extremes.best, extremes.worst) == (2.0, 3.0)


def test_an_evaluation_is_added_to_both_extremes_and_all_three_series():
    tracker = MetricsTracker()
    best = [
        tracker.add_evaluation(step, {"train_loss_eval": train, "val_loss": val, "bpb": val / 2})
        for step, train, val in ((10, 3.0, 3.5), (20, 2.0, 3.0), (30, 1.0, 4.0))
    ]
    assert best == [True, True, False]
    saved = tracker.state_dict()
    assert (saved["best_train_loss"], saved["worst_train_loss"]) == (1.0, 3.0)
    assert (saved["best_val_loss"], saved["worst_val_loss"]) == (3.0, 4.0)
    assert saved["metrics"]["val_loss_eval"] == [(10, 3.5), (20, 3.0), (30, 4.0)]
    assert saved["metrics"]["bpb"] == [(10, 1.75), (20, 1.5), (30, 2.0)]


def test_a_saved_state_does_not_change_when_the_run_continues():
    tracker = MetricsTracker()
    tracker.add_batch(row(1))
    saved = tracker.state_dict()
    before = json.dumps(saved)
    tracker.add_batch(row(2))
    tracker.add_evaluation(2, {"train_loss_eval": 1.0, "val_loss": 1.0, "bpb": 1.0})
    assert json.dumps(saved) == before


# --- the file ---------------------------------------------------------------------------------------------------------


def test_each_row_is_a_line_and_is_on_disk_before_the_next_one(tmp_path):
    path = tmp_path / "x.metrics.jsonl"
    file = MetricsFile(path, 0)
    for step in (1, 2, 3):
        file.append(row(step))
        assert steps(path) == list(range(1, step + 1))
    file.close()


@pytest.mark.parametrize("keep_until", [0, 1, 4, 6, 99])
def test_rows_after_the_checkpoint_are_removed_on_resume(tmp_path, keep_until):
    path = tmp_path / "x.metrics.jsonl"
    write(path, range(1, 7))
    before = path.read_bytes()
    write(path, [], keep_until)
    kept = min(keep_until, 6)
    assert steps(path) == list(range(1, kept + 1))
    assert before.startswith(path.read_bytes())
    write(path, range(kept + 1, 10), keep_until=kept)
    assert steps(path) == list(range(1, 10))


@pytest.mark.parametrize(
    "torn", ['{"step": 4, "lo', '{"step": 4, "loss": 1.0}', "{", "\0" * 40, "\0\n", '{"loss": 1}\n', "[]\n"]
)
def test_a_torn_last_line_is_removed(tmp_path, torn):
    """After a power cut the last line may be incomplete, without its newline, or zeros."""
    path = tmp_path / "x.metrics.jsonl"
    write(path, range(1, 4))
    with open(path, "a") as file:
        file.write(torn)
    write(path, [4], keep_until=10)
    assert steps(path) == [1, 2, 3, 4]


def test_a_missing_or_empty_file_is_started(tmp_path):
    write(tmp_path / "a.jsonl", [6, 7], keep_until=5)
    assert steps(tmp_path / "a.jsonl") == [6, 7]
    Path(tmp_path / "b.jsonl").write_bytes(b"")
    write(tmp_path / "b.jsonl", [1])
    assert steps(tmp_path / "b.jsonl") == [1]


def test_nan_and_infinity_become_null(tmp_path):
    path = tmp_path / "x.metrics.jsonl"
    file = MetricsFile(path, 0)
    file.append({"step": 1, "loss": math.nan, "grad_norm": math.inf, "mfu": None, "lr": 0.1})
    file.close()
    assert path.read_text() == '{"step": 1, "loss": null, "grad_norm": null, "mfu": null, "lr": 0.1}\n'


class Full:
    """A file on a disk that has room for `room` more bytes."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, content):
        if not self.room:
            raise OSError(28, "No space left on device")
        written = self.file.write(content[: self.room])
        self.room -= written
        return written

    def __getattr__(self, name):
        return getattr(self.file, name)


def test_rows_wait_while_the_disk_is_full_and_are_written_later(tmp_path):
    path = tmp_path / "x.metrics.jsonl"
    file = MetricsFile(path, 0)
    file.append(row(1))
    file._file = Full(file._file, 30)  # the next row is cut short
    with listening() as said:
        file.append(row(2))
        file.append(row(3))
    assert len(said) == 1 and "No space left on device" in said[0] and "wait" in said[0]
    file._file = file._file.file
    file.append(row(4))
    file.close()
    assert [r["step"] for r in metrics_rows(path)] == [1, 2, 3, 4]


def test_rows_that_could_not_be_written_are_reported_and_leave_no_incomplete_line(tmp_path):
    path = tmp_path / "x.metrics.jsonl"
    file = MetricsFile(path, 0)
    file.append(row(1))
    file._file = Full(file._file, 30)
    with listening() as said:
        file.append(row(2))
        file.close()
    assert "lacks its last 1 rows" in said[-1]
    assert [r["step"] for r in metrics_rows(path)] == [1]


@pytest.mark.parametrize("rows", [1, 7, 400, 3000])
@pytest.mark.parametrize("tail", [b"", b'{"step": 99', b"\0" * 300, b"x" * 200_000])
def test_a_file_of_any_length_is_cut_after_the_row_to_continue_from(tmp_path, rows, tail):
    path = tmp_path / "x.metrics.jsonl"
    lines = [json.dumps(row(step)).encode() + b"\n" for step in range(1, rows + 1)]
    for keep in sorted({0, 1, rows // 2, rows - 1, rows}):
        path.write_bytes(b"".join(lines) + tail)
        MetricsFile(path, keep).close()
        assert path.read_bytes() == b"".join(lines[:keep])


ROWS = [json.dumps(row(step)).encode() + b"\n" for step in range(1, 9)]
FOREIGN = [json.dumps(row(step) | {"loss": 9.0}).encode() + b"\n" for step in range(1, 9)]


@pytest.mark.parametrize(
    ("lines", "rebuilt"),
    [
        (ROWS, []),
        ([], [1, 2, 3, 4, 5, 6]),
        ([b"\0" * 700], [1, 2, 3, 4, 5, 6]),
        (ROWS[:3], [4, 5, 6]),
        ([*ROWS[:2], b'{"step": 3, "lo', *ROWS[4:]], [3, 4, 5]),
        ([ROWS[0], b"x" * 100, b"\n", *ROWS[2:]], [2]),
        ([ROWS[1], ROWS[0], *ROWS[2:]], []),
        ([*FOREIGN[:1], *ROWS[1:]], [1]),
        (FOREIGN, [1, 2, 3, 4, 5, 6]),
    ],
)
def test_rows_that_are_missing_damaged_or_of_another_run_are_rebuilt_from_the_checkpoint(tmp_path, lines, rebuilt):
    path = tmp_path / "x.metrics.jsonl"
    path.write_bytes(b"".join(lines))
    known = MetricsTracker()
    for step in range(1, 7):
        known.add_batch(row(step))
    known.add_evaluation(6, {"train_loss_eval": 1.0, "val_loss": 2.0, "bpb": 3.0})
    with listening() as said:
        MetricsFile(path, 6, known).close()
    assert [r["loss"] for r in metrics_rows(path)] == [row(step)["loss"] for step in range(1, 7)]
    assert len(said) == bool(rebuilt) and all(f"; {len(rebuilt)} were rebuilt" in text for text in said)
    assert ("val_loss" in metrics_rows(path)[5]) == (6 in rebuilt)


def test_rows_that_the_thinned_series_lacks_are_named_as_lost(tmp_path):
    path = tmp_path / "x.metrics.jsonl"
    known = MetricsTracker(train_loss_batch=Series([(4, 0.4), (8, 0.8)], stride=4))
    with listening() as said:
        MetricsFile(path, 8, known).close()
    assert steps(path) == [4, 8] and "8 rows" in said[0] and "2 were rebuilt" in said[0]


def test_a_row_may_have_any_length(tmp_path):
    path = tmp_path / "x.metrics.jsonl"
    path.write_text("".join(json.dumps(row(step) | {"samples": "x" * 200_000}) + "\n" for step in (1, 2, 3)))
    MetricsFile(path, 2).close()
    assert steps(path) == [1, 2]


def test_a_deleted_file_is_written_again_with_all_its_rows(tmp_path):
    path = tmp_path / "folder" / "x.metrics.jsonl"
    path.parent.mkdir()
    file = MetricsFile(path, 0)
    file.append(row(1))
    path.unlink()
    path.parent.rmdir()
    file.append(row(2))
    file.close()
    assert steps(path) == [1, 2]
