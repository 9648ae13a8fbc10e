"""tools/test_mfu_optimization.py: the settings that it tries and finds best, its files, and flags that it refuses."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_data import ROOT
from helpers_run import TINY, listening, make_run, settle, snapshot
from pictures import png_size

from config import Config, resolve
from jojo.command import Stopped
from jojo.config_file import file_layers
from tools import test_mfu_optimization as tool
from tools.parts import sweep_report as report
from tools.parts import sweep_search as search
from utils import UserError

Settings, Answer, Sweep = search.Settings, search.Answer, search.Sweep
OWN = Settings(4, 3, "float32", False, 2)
CHOICES: dict[str, list[dict[str, Any]]] = {
    "batch size": [{"batch_size": size, "accumulation": 12 // size} for size in (1, 2, 3, 4, 6, 12)],
    "dtype": [{"dtype": "float32"}, {"dtype": "bfloat16"}],
    "threads": [{"threads": 1}, {"threads": 2}],
    "compile": [{"compiled": False}, {"compiled": True}],
}
BEST = Settings(6, 2, "bfloat16", False, 1)


def speed_of(settings: Any) -> float:
    """Tokens per second of a machine on which BEST is the fastest, and the factors are independent."""
    size = {1: 0.5, 2: 0.8, 3: 0.9, 4: 1.0, 6: 1.3, 12: 1.1}[settings.batch_size]
    faster = 1.5 if settings.dtype == "bfloat16" else 1.0
    return 1000 * size * faster * (0.7 if settings.compiled else 1.0) * (1.2 if settings.threads == 1 else 1.0)


class Machine:
    """Replaces the measuring processes: answers with the given speeds, and records the settings."""

    def __init__(
        self, speed: Callable[[Any], float] = speed_of, fails: Callable[[Any], bool] = lambda s: False
    ) -> None:
        self.speed, self.fails, self.asked = speed, fails, list[Any]()

    def __call__(self, settings: Any) -> Any:
        self.asked.append(settings)
        if self.fails(settings):
            return Answer(failed=search.DOES_NOT_FIT)
        return Answer(12_000 / self.speed(settings) * 1e3, self.speed(settings), 1000 * settings.batch_size)


def swept(
    machine: Callable[[Any], Any], rounds: int = 1, how: Callable[..., None] = search.coordinate_search, own: Any = OWN
) -> Any:
    sweep = Sweep(own, machine, rounds)
    how(sweep, CHOICES)
    return sweep


# --- the search -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how, measured", [(search.coordinate_search, 9), (search.full_search, 48)])
def test_the_best_is_found_and_tokens_per_batch_stay_the_same(how: Callable[..., None], measured: int) -> None:
    machine = Machine()
    sweep = swept(machine, how=how)
    assert sweep.best.settings == BEST and len(sweep.rows) == measured
    assert {s.batch_size * s.accumulation for s in machine.asked} == {12}
    assert sweep.best.ratio(sweep.rows[OWN]) == pytest.approx(1.3 * 1.5 * 1.2)
    ratios = [row.ratio(sweep.rows[OWN]) for row in sweep.ranked]
    assert ratios == sorted(ratios, reverse=True)


def test_every_round_has_the_configs_own_settings_and_all_choices_of_a_factor() -> None:
    machine = Machine()
    swept(machine, rounds=2)
    first, second = machine.asked[:6], machine.asked[6:12]
    assert {s.batch_size for s in first} == {1, 2, 3, 4, 6, 12} and second == first[::-1]
    assert machine.asked.count(OWN) == 2 * 4  # together with each factor
    assert max(machine.asked.count(s) for s in machine.asked if s != OWN) == 2


def test_a_machine_that_slows_down_does_not_hide_the_best() -> None:
    calls = [0]

    def slower_later(settings: Any) -> Any:
        calls[0] += 1
        return Answer(1.0, speed_of(settings) * (1.0 if calls[0] <= 6 else 0.25))

    sweep = swept(slower_later)
    assert sweep.best.settings == BEST
    assert sweep.best.tokens_per_s < sweep.rows[replace(OWN, batch_size=6, accumulation=2)].tokens_per_s


def test_medians_of_the_rounds_count() -> None:
    speeds = {OWN: iter([1000.0, 1000.0, 1000.0]), BEST: iter([1100.0, 9000.0, 1200.0])}
    sweep = Sweep(OWN, lambda settings: Answer(5.0, next(speeds[settings])), rounds=3)
    sweep.take_turns([OWN, BEST])
    assert sweep.rows[BEST].tokens_per_s == 1200 and sweep.rows[BEST].ratio(sweep.rows[OWN]) == pytest.approx(1.2)
    sweep.take_turns([OWN, BEST])  # both are known: another measurement would exhaust the iterators


@pytest.mark.parametrize("gain, best", [(1.005, OWN), (1.02, BEST)])
def test_nothing_changes_for_a_gain_that_is_noise(gain: float, best: Any) -> None:
    sweep = Sweep(OWN, Machine(lambda settings: 100.0 * (gain if settings == BEST else 1.0)), 1)
    sweep.take_turns([OWN, BEST])
    assert sweep.best.settings == best


def test_settings_that_fail_are_a_row_and_are_not_tried_again() -> None:
    machine = Machine(fails=lambda settings: settings.batch_size == 6)
    sweep = swept(machine, rounds=3)
    assert sweep.best.settings == Settings(12, 1, "bfloat16", False, 1)
    failed = [row for row in sweep.rows.values() if not row.works]
    assert [row.settings.batch_size for row in failed] == [6] and failed[0].failed == search.DOES_NOT_FIT
    assert machine.asked.count(failed[0].settings) == 1 and sweep.ranked[-1] is failed[0]


def test_one_failure_in_a_later_round_is_enough() -> None:
    answers = iter([Answer(1.0, 5.0), Answer(1.0, 50.0), Answer(failed="failed: it broke"), Answer(1.0, 5.0)])
    sweep = Sweep(OWN, lambda settings: next(answers), rounds=2)
    sweep.take_turns([OWN, BEST])
    assert sweep.best.settings == OWN and sweep.rows[BEST].failed == "failed: it broke"


def test_if_the_configs_own_settings_do_not_fit_others_are_found() -> None:
    sweep = swept(Machine(fails=lambda settings: settings.batch_size >= 4))
    assert sweep.best.settings == Settings(3, 4, "bfloat16", False, 1)


def test_if_compiling_fails_all_factors_are_tried_without_it() -> None:
    sweep = swept(Machine(fails=lambda settings: settings.compiled), own=replace(OWN, compiled=True))
    assert sweep.best.settings == BEST


def test_nothing_is_best_if_nothing_works() -> None:
    sweep = swept(Machine(fails=lambda settings: True))
    assert sweep.best is None and len(sweep.ranked) == len(sweep.rows) > 1


def test_sizes_are_the_divisors_or_if_there_are_many_about_doubles() -> None:
    assert search.sizes_to_try(12, 12) == [1, 2, 3, 4, 6, 12]
    assert search.sizes_to_try(1, 1) == [1] and search.sizes_to_try(7, 7) == [1, 7]
    many = search.sizes_to_try(480, 12)
    assert many == [1, 3, 6, 12, 24, 48, 96, 240, 480]
    for rows in range(1, 200):
        assert search.divisors(rows) == [n for n in range(1, rows + 1) if rows % n == 0]


# --- what it writes -------------------------------------------------------------------------------------------------


def found(fails: Callable[[Any], bool] = lambda settings: False, **changes: int) -> Any:
    """The results of a sweep over a config with 12 sequences in a batch."""
    config = Config()
    config.model.vocab_size, config.system.device, config.system.dtype = 512, "cpu", "float32"
    config.training.batch_size, config.training.gradient_accumulation_steps = OWN.batch_size, OWN.accumulation
    config.training.compile_model = False
    for name, value in changes.items():
        setattr(config.training, name, value)
    return report.SweepResult(
        swept(Machine(fails=fails)), config, ["--config", "mine.json"], {"cpu": "A", "device": "cpu"}, 1e6,
        {"bfloat16": 4.68e9, "float32": None},
    )  # fmt: skip


def values_of(path: Path) -> dict[str, Any]:
    """A config file's own values, without comments and without the file that it extends."""
    return file_layers(path)[-1][1]


def test_the_best_config_extends_the_measured_one_and_has_what_differs(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "out").mkdir()
    mine, best = tmp_path / "configs" / "mine.json", tmp_path / "out" / "best.json"
    training = {"batch_size": 4, "gradient_accumulation_steps": 3, "max_iters": 5}
    mine.write_text(json.dumps({"model": {"n_layer": 2}, "training": training}))
    flags = {"optimizer.learning_rate": 0.5, "training.max_iters": 5, "system.device": "cpu"}
    best.write_text(report.best_config(found(), best, mine, flags))
    text = best.read_text()
    assert text.startswith("// 2,340 tokens/s, 2.34 times the config's own; found by: python tools/test_mfu")
    assert text.splitlines()[0].endswith(" --config mine.json") and '"extends": "../configs/mine.json"' in text
    assert values_of(best) == {
        "optimizer": {"learning_rate": 0.5},
        "training": {"batch_size": 6, "gradient_accumulation_steps": 2, "eval_iters": 14},  # instead of 20
        "system": {"device": "cpu", "dtype": "bfloat16"},
    }
    config = resolve(file_layers(best))[0]
    assert (config.rows_per_batch, config.model.n_layer, config.training.max_iters) == (12, 2, 5)
    assert config.training.compile_model is None  # it was derived, and no other value is better


def test_evaluations_read_as_much_text_as_before() -> None:
    changes = report.changed_options(found(eval_iters=7, val_batches=2).config, OWN, replace(OWN, batch_size=1))
    assert changes["training.eval_iters"] == 28 and changes["training.val_batches"] == 8
    compiled = report.changed_options(found().config, OWN, replace(OWN, compiled=True, threads=9))
    assert compiled == {"training.compile_model": True}


def test_without_a_config_file_the_best_one_extends_nothing(tmp_path: Path) -> None:
    best = tmp_path / "best.json"
    best.write_text(report.best_config(found(), best, None, {"training.batch_size": 4, "model.n_layer": 6}))
    assert "extends" not in values_of(best) and "model" not in values_of(best)
    best.write_text(report.best_config(found(), best, None, {"model.n_layer": 6}, of_checkpoint=True))
    assert values_of(best)["model"] == {"n_layer": 6}  # the checkpoint may have another value


def test_a_command_cannot_break_out_of_the_comment(tmp_path: Path) -> None:
    best = tmp_path / "best.json"
    best.write_text(report.best_config(replace(found(), tool_flags=["--x", 'a\n{"b": 1}']), best, None, {}))
    assert resolve(file_layers(best))[0].training.batch_size == 6


def test_the_table_has_everything() -> None:
    lines = report.table(found(fails=lambda settings: settings.batch_size == 12)).splitlines()
    assert lines[0].split("  ")[0] == "batch size" and "peak memory" in lines[0]
    best, own = lines[1].split(), next(line for line in lines if "<- the config's own" in line).split()
    assert " ".join(best) == "6 2 bfloat16 no 1 5,128.2 2,340 50.0% 6.0 kB 2.34 <- best"
    assert " ".join(own) == "4 3 float32 no 2 12,000.0 1,000 - 4.0 kB 1.00 <- the config's own"
    (failed,) = [line for line in lines if "does not fit" in line]
    assert failed.split()[:5] == ["12", "1", "float32", "no", "2"]
    assert lines[1].index("bfloat16") == failed.index("float32")


def test_the_summary_says_how_to_train(tmp_path: Path) -> None:
    text = report.summary(found(), Path("a best.json"))
    assert text.startswith(f"Fastest: {BEST}: 2,340 tokens/s, 2.34 times the config's own.")
    assert "OMP_NUM_THREADS=1 python train.py --config 'a best.json'" in text
    text = report.summary(found(), Path("b.json"), checkpoint="c.pt")
    assert "--checkpoint c.pt --allow_changes" in text
    text = report.summary(found(fails=lambda settings: settings == OWN), Path("b.json"))
    assert "own settings cannot be measured here (4 x 3, float32, 2 threads: does not fit)" in text
    text = report.summary(found(fails=lambda settings: settings != OWN), Path("b.json"))
    assert text.startswith("The config's own settings are the fastest") and "OMP" not in text


def test_json_and_plot_have_failed_settings_too(tmp_path: Path) -> None:
    some = found(fails=lambda settings: settings.batch_size == 12)
    values = json.loads(report.as_json(some))
    assert values["best"] == {"batch_size": 6, "accumulation": 2, "dtype": "bfloat16", "compiled": False, "threads": 1}
    assert values["tokens_per_batch"] == 12 * 256 and values["machine"]["cpu"] == "A"
    best, *_, last = values["rows"]
    assert best["mfu"] == pytest.approx(0.5) and best["ratio"] == pytest.approx(2.34) and len(best["rounds"]) == 1
    assert last["failed"] == "does not fit" and last["tokens_per_s"] is None and last["rounds"] == []
    report.draw(tmp_path / "sweep.png", some, "$a title")
    assert png_size(tmp_path / "sweep.png") > (300, 100)


# --- measuring ------------------------------------------------------------------------------------------------------


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(tmp_path, monkeypatch)


def task(**changes: Any) -> dict[str, Any]:
    return {"arguments": TINY, "device": "cpu", "batches": 3, "folder": "."} | changes


def test_a_measurement_is_the_median_after_a_warm_up(workshop: None, monkeypatch: pytest.MonkeyPatch) -> None:
    threads, seen, times = list[int](), list[Any](), iter([(900.0, 32), (10.0, 32), (40.0, 32), (20.0, 26)])
    monkeypatch.setattr(torch, "set_num_threads", threads.append)

    def step(trainer: Any) -> tuple[float, int]:
        seen.append(trainer.config)
        return next(times)

    monkeypatch.setattr(tool, "timed_step", step)
    answer = tool.measure_here(Settings(1, 4, "bfloat16", False, 3), **task())
    assert (answer.ms, answer.tokens_per_s) == (20.0, pytest.approx(3200.0)) and answer.peak_memory_bytes > 1e6
    assert answer.predicted == pytest.approx(90 / 192)  # of 3 batches; the speed counts all tokens
    assert threads == [3] and next(times, None) is None
    training, system = seen[0].training, seen[0].system
    assert (training.batch_size, training.gradient_accumulation_steps, system.dtype) == (1, 4, "bfloat16")


def test_a_process_says_why_it_cannot_measure(workshop: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # so no compiler is found
    answer = tool.measure_in_process(Settings(2, 1, "float32", True, 1), **task(batches=1))
    assert answer.failed == "failed: torch.compile does not work here (no C++ compiler)"


@pytest.mark.parametrize(
    "code, said, expected",
    [
        (-9, "", "does not fit (the system killed it)"),
        (-11, "", "failed: the process ended with -11: it printed nothing"),
        (1, "Traceback\nOops: \x1b[31m bad", "failed: the process ended with 1: Oops: ?[31m bad"),
    ],
)
def test_a_process_that_dies_is_a_row(code: int, said: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.CompletedProcess([], code, b"", said.encode())
    monkeypatch.setattr(tool.subprocess, "run", lambda *arguments, **keywords: done)
    assert tool.measure_in_process(OWN, **task()).failed == expected


@pytest.mark.parametrize(
    "error, expected",
    [
        (MemoryError(), "does not fit"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "does not fit"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "does not fit"),
        (UserError("Not like\nthis."), "failed: Not like this."),
        (KeyError("x"), "failed: KeyError: 'x'"),
    ],
)
def test_the_reason_of_a_failure(error: Exception, expected: str) -> None:
    assert tool.reason_of(error) == expected


def test_settings_larger_than_the_memory_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    config = found().config
    monkeypatch.setattr("jojo.machine.device.total_memory_bytes", lambda device: 2 * 10**9)
    assert tool.too_large(config, OWN) is None
    reason = tool.too_large(config, replace(OWN, batch_size=1000))
    assert reason and reason.startswith("does not fit (needs about") and reason.endswith("of 2.0 GB)")
    config.system.device = "cuda:0"
    assert tool.too_large(config, replace(OWN, batch_size=1000)) is None


# --- the command ----------------------------------------------------------------------------------------------------


def flags(*more: str) -> list[str]:
    """The tool's flags for a tiny run, to measure its own settings and one other micro-batch size once."""
    own = ["--batch_sizes", "1", "--dtypes", "float32", "--threads", "1", "--compile", "false"]
    return [*own, "--rounds", "1", "--batches", "1", *TINY, *more]


def test_a_real_sweep(workshop: None, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    Path("mine.json").write_text('{"training": {"max_iters": 3}}')
    before = snapshot(tmp_path)
    with listening() as said:
        assert tool.main(flags("--config", "mine.json", "--output", "best.json")) == 0
    text, values = "\n".join(said), json.loads(Path("mfu_sweep.json").read_text())
    assert [(row["batch_size"], row["accumulation"]) for row in values["rows"]] in ([(2, 1), (1, 2)], [(1, 2), (2, 1)])
    for row in values["rows"]:
        assert row["failed"] is None and row["ms"] > 0 and row["mfu"] > 0 and row["peak_memory_bytes"] > 1e7
        assert row["tokens_per_s"] == pytest.approx(32 / row["ms"] * 1e3)  # 2 sequences of 16 tokens
    assert png_size(Path("mfu_sweep.png")) > (300, 100)
    config = resolve(file_layers(Path("best.json")))[0]
    size = values["best"]["batch_size"]
    assert (config.training.batch_size, config.training.gradient_accumulation_steps) == (size, 2 // size)
    assert config.training.max_iters == 3 and config.model.n_embd == 16
    assert "peak memory" in text and "python train.py --config best.json" in text
    new = {name for name in snapshot(tmp_path).keys() - before.keys() if not name.startswith("cache")}
    assert new == {"best.json", "mfu_sweep.json", "mfu_sweep.png"}


def test_the_sample_is_measured_if_no_data_are_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("jojo.machine.estimate.measure_cpu_peak_flops", lambda dtype: 1e11)
    monkeypatch.setattr(tool, "measure_in_process", lambda settings, **task: Answer(1.0, float(settings.batch_size)))
    config = str(ROOT / "configs" / "story-small.json")
    own = ["--rounds", "1", "--dtypes", "float32", "--threads", "1", "--compile", "false"]
    assert tool.main(["--config", config, "--device", "cpu", "--batch_size", "2", *own, "--full"]) == 0
    values = json.loads(Path("mfu_sweep.json").read_text())
    assert {row["batch_size"] for row in values["rows"]} == {1, 2}
    assert resolve(file_layers(Path("mfu_best.json")))[0].data.dataset_name == "story"


def test_if_nothing_works_one_sentence_says_why(workshop: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "measure_in_process", lambda settings, **task: Answer(failed="failed: no luck"))
    with pytest.raises(UserError, match=r"No settings can .*2 x 1, float32, 1 thread.: failed: no luck\.$"):
        tool.main(flags())
    assert not Path("mfu_best.json").exists()


@pytest.mark.parametrize(
    "wrong, message",
    [
        (["--batch_sizes", "1,5"], "5 does not divide the 2 sequences of a batch .*Sizes that divide it: 1, 2"),
        (["--batch_sizes", "1,,2"], "--batch_sizes must be a list of whole numbers"),
        (["--batch_sizes", "0"], "--batch_sizes must be a list of whole numbers"),
        (["--threads", "two"], "--threads must be a list of whole numbers"),
        (["--dtypes", "float32,float8"], r"--dtypes must be a list of dtypes \(float32, bfloat16, float16\)"),
        (["--dtypes", "float16"], "--dtypes: float16 on a CPU"),
        (["--compile", "maybe"], "--compile must be a list of true and false"),
        (["--rounds", "0"], "--rounds must be at least 1"),
        (["--batches", "-1"], "--batches must be at least 1"),
        (["--plot", "data"], "Could not write 'data'"),
        (["--config", "mine.json", "--output", "mine.json"], "--output 'mine.json' is a file that --config reads"),
        (["--config", "mine.json", "--json", "below.json"], "--json 'below.json' is a file that --config reads"),
        (["--json", "x", "--plot", "./x"], "--json and --plot both name 'x'"),
        (["--config", "none.json"], "No config file 'none.json'"),
        (["--resume"], "--resume has no meaning here"),
    ],
)
def test_wrong_flags_are_refused(
    wrong: Sequence[str], message: str, workshop: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool, "measure_in_process", lambda settings, **task: pytest.fail("nothing should be measured"))
    Path("below.json").write_text("{}")
    Path("mine.json").write_text('{"extends": "below.json"}')
    with pytest.raises(UserError, match=message):
        tool.main(flags(*wrong))


def test_the_default_choices_suit_the_machine(workshop: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    run = make_run("--batch_size", "6")
    nothing = tool.Choices(None, None, None, None)
    for fast, dtypes in ((True, ["float32", "bfloat16"]), (False, ["float32"])):
        monkeypatch.setattr("jojo.machine.device.cpu_is_fast_at_bfloat16", lambda fast=fast: fast)
        choices = tool.choices_of(run.config, nothing)
        assert [choice["dtype"] for choice in choices["dtype"]] == dtypes
    assert [(c["batch_size"], c["accumulation"]) for c in choices["batch size"]] == [(1, 6), (2, 3), (3, 2), (6, 1)]
    assert [choice["threads"] for choice in choices["threads"]] == [2, 4, 8]
    assert [choice["compiled"] for choice in choices["compile"]] == [False, True]
    assert tool.own_settings(run.config) == Settings(6, 1, "float32", False, 4)
    assert tool.threads_of("cuda:0") == [4]
    run.close()


def test_pytest_collects_nothing_from_a_tool_named_like_a_test() -> None:
    assert tool.__test__ is False and not [name for name in vars(tool) if name.lower().startswith("test")]


def test_ctrl_c_keeps_the_results_so_far(workshop: None, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([Answer(10.0, 100.0), Answer(20.0, 50.0)])

    def measure(settings: Any, **task: Any) -> Any:
        if answer := next(answers, None):
            return answer
        raise Stopped(signal.SIGTERM)

    monkeypatch.setattr(tool, "measure_in_process", measure)
    with pytest.raises(Stopped), listening() as said:
        tool.main([*flags("--batch_size", "6"), "--batch_sizes", "1,2,3"])
    assert [line.rpartition("; ")[2] for line in said if "tokens/s; about" in line] == ["about 3 left", "about 2 left"]
    values = json.loads(Path("mfu_sweep.json").read_text())
    assert [row["batch_size"] for row in values["rows"]] == [6, 1] and values["best"]["batch_size"] == 6
    assert resolve(file_layers(Path("mfu_best.json")))[0].training.batch_size == 6
    answers = iter(())
    Path("mfu_sweep.json").unlink()
    with pytest.raises(Stopped):  # nothing was measured yet
        tool.main(flags())
    assert not Path("mfu_sweep.json").exists()
