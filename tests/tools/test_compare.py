"""Tests of tools/compare.py, with runs trained in this process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers_run import TINY, settle, stop_after, train_plainly, write_data

from tools import compare
from tools.parts import compared_runs
from utils import UserError

RUN = " ".join([*TINY, "--max_iters", "6", "--eval_interval", "3"])


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(tmp_path, monkeypatch)

    def run_to_end(command: Sequence[str], said: Path) -> int:
        said.touch()
        code = train_plainly(*command[2:]).code
        if code == 130:
            raise KeyboardInterrupt
        return code

    monkeypatch.setattr(compared_runs, "run_to_end", run_to_end)


def compared(*arguments: str) -> dict[str, Any]:
    """compare.json of a comparison, without the times."""
    assert compare.main([*arguments]) == 0
    report = json.loads(Path("compare/compare.json").read_text())
    del report["times"]
    return report


def test_equal_configs_are_identical_and_a_better_one_is_found(caplog: pytest.LogCaptureFixture) -> None:
    report = compared(RUN, RUN, f"{RUN} --learning_rate 0.000001", "--seeds", "3")
    same, worse = report["differences"]["B - A"], report["differences"]["C - A"]
    assert same["identical"] and same["p"] == 1
    runs = report["runs"]
    assert runs["A"]["values"] == runs["B"]["values"] and len(set(runs["A"]["values"])) == 3
    assert worse["mean"] == pytest.approx(runs["C"]["mean"] - runs["A"]["mean"]) and worse["mean"] > 0
    assert worse["adjusted_p"] == pytest.approx(2 * worse["p"]) and worse["p"] < 0.025
    assert "B - A: identical in every run." in compare.table(json.loads(Path("compare/compare.json").read_text()))
    assert Path("compare/compare.png").stat().st_size > 10_000
    assert not list(Path("compare").glob("*.pt"))


def test_an_interrupted_comparison_continues_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = (RUN, f"{RUN} --optimizer.kind muon", "--seeds", "2")
    whole = compared(*arguments)
    Path("compare").rename("first")
    stop_after(monkeypatch, 4)
    with pytest.raises(KeyboardInterrupt):
        compare.main([*arguments])
    stop_after(monkeypatch, None)
    assert compared(*arguments) == whole


def test_it_stops_at_the_first_look_if_the_answer_is_clear_and_doubles_the_seeds_if_not() -> None:
    until = ("--until", "0.05", "--seeds", "2", "--max_seeds", "4")
    report = compared(RUN, RUN, *until)
    assert report["looks_after_seeds"] == [2, 4] and report["seeds"] == 4
    report = compared(RUN, f"{RUN} --learning_rate 0.000001", "--until", "0.5", *until[2:])
    assert (
        report["seeds"] == 2
        and report["differences"]["B - A"]["p"] < report["differences"]["B - A"]["adjusted_p"] < 0.5
    )


def test_at_equal_time_a_slower_run_counts_at_the_end_of_the_faster_one() -> None:
    fast = compared_runs.Result([1, 2], {"bpb": [3.0, 2.0]}, [1.0, 2.0], 0, 0, {}, {})
    slow = compared_runs.Result([1, 2], {"bpb": [2.5, 1.5]}, [1.5, 3.0], 0, 0, {}, {})
    runs = {"A": [fast], "B": [slow]}
    assert compare.outcomes(runs, "bpb", equal_time=False) == {"A": [2.0], "B": [1.5]}
    assert compare.outcomes(runs, "bpb", equal_time=True) == {"A": [2.0], "B": [pytest.approx(2.5 - 1 / 3)]}


def test_runs_on_other_data_are_not_compared() -> None:
    compared(RUN, RUN, "--seeds", "2")
    write_data(n_train=9)
    with pytest.raises(
        UserError, match=r"^Run A with seed 3 had other data than the first; delete 'compare' and start again.$"
    ):
        compare.main([RUN, RUN, "--seeds", "3"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((RUN,), "Name two to 10 runs to compare."),
        ((RUN, RUN, "--seeds", "1"), "--seeds must be from 2 to 1,000."),
        ((RUN, RUN, "--until", "5"), "--until is a p-value, between 0 and 1: --until 0.05"),
        ((RUN, RUN, "--until", "0.05", "--max_seeds", "4"), "--max_seeds must not be below --seeds."),
        ((RUN, f"{RUN} --seed 3"), "--seed has no place in a compared run"),
        ((RUN, f"{RUN} --resume"), "--resume has no place in a compared run"),
        ((RUN, "missing.json"), "No config file 'missing.json'"),
        ((RUN, f"{RUN} --dataset other"), "Run B with seed 1 failed: "),
        ((RUN, "a.json 'b"), 'The quotes in "a.json \'b" do not match'),
    ],
)
def test_what_cannot_be_compared_is_said_in_one_sentence(
    arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(command: Sequence[str], said: Path) -> int:
        said.write_text("error: no data\n")
        return 1 if "other" in command else train_plainly(*command[2:]).code

    monkeypatch.setattr(compared_runs, "run_to_end", fails)
    with pytest.raises(UserError) as error:
        compare.main([*arguments])
    assert str(error.value).startswith(message) and "\n" not in str(error.value)
