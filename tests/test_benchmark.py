"""tools/benchmark.py: every part with tiny shapes, its arithmetic, and the plain model as a reference for Jojo's."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import IO, Any

import numpy as np
import pytest
import torch
from helpers_data import ROOT
from helpers_model import random_model, random_tokens, tiny_config
from helpers_run import listening
from test_plotting import png_size

import estimate
from utils import UserError

sys.path.insert(0, str(ROOT / "tools"))
try:
    import benchmark
    import benchmark_contestants
    import benchmark_plain
    import benchmark_processes
    import benchmark_report
finally:
    sys.path.pop(0)

MEASURES = {
    "training": {"speed": "tokens/s", "memory": "bytes"},
    "loading": {"open": "s", "batch": "ms", "share_of_step": "%"},
    "decoding": {"start": "tokens/s", "end": "tokens/s", "prompt": "ms"},
    "startup": {"first_batch": "s", "first_token": "s"},
}
PEERS = {
    "training": "transformers float32",
    "loading": "plain numpy.memmap",
    "decoding": "transformers float32",
    "startup": "transformers",
}


class Forked:
    """In the place of a new Python: a copy of this process, which has torch and transformers already."""

    def __init__(self, arguments: Sequence[str], folder: Path, errors: IO[bytes]) -> None:
        requests, answers = os.pipe(), os.pipe()
        self.number = os.fork()
        if not self.number:
            self.become(arguments, folder, (requests[0], answers[1], errors.fileno()))
        os.close(requests[0])
        os.close(answers[1])
        self.stdin, self.stdout = open(requests[1], "wb", buffering=0), open(answers[0], "rb")
        self.code: int | None = None

    @staticmethod
    def become(arguments: Sequence[str], folder: Path, streams: tuple[int, ...]) -> None:
        """Run the script as Python would, with these standard streams, and end."""
        code = 1
        try:
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
            os.closerange(3, 256)  # another contestant's pipes would stay open
            sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")
            sys.argv[:] = arguments
            os.chdir(folder)
            torch.set_num_threads(1)
            runpy.run_path(arguments[0], run_name="__main__")
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        finally:
            with suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def wait(self) -> int:
        if self.code is None:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.number, 0)[1])
        return self.code

    def kill(self) -> None:
        if self.code is None:
            os.kill(self.number, 9)


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that start at once, and a machine that is not measured."""
    if not hasattr(os, "fork"):
        pytest.skip("this system cannot copy a process")
    from transformers import AutoTokenizer, GPT2LMHeadModel  # noqa: F401  (the copies have them then)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(benchmark_processes, "start_python", Forked)
    monkeypatch.setattr(estimate, "measure_cpu_peak_flops", lambda dtype: 1e11)
    monkeypatch.setattr(benchmark_report, "BANDWIDTH_BYTES", 1 << 16)


def measured(*flags: str) -> tuple[str, dict[str, Any]]:
    """What the benchmark says with tiny shapes, and what it writes."""
    with listening() as said:
        assert benchmark.main(["--tiny", *flags]) == 0
    assert png_size(Path("benchmark.png")) > (300, 100)
    return "\n".join(said), json.loads(Path("benchmark.json").read_text())


def contestants(part: dict[str, Any], measure: str) -> list[str]:
    return list(part["measures"][measure]["results"])


# --- the parts ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
def test_all_parts_are_measured() -> None:
    text, found = measured()
    assert found["machine"]["torch"] == torch.__version__ and found["machine"]["float32_flops"] == 1e11
    assert found["machine"]["read_bytes_per_s"] > 0 and found["arguments"] == ["--tiny"]
    parts = found["parts"]
    assert {name: {m: v["unit"] for m, v in part["measures"].items()} for name, part in parts.items()} == MEASURES
    for name, part in parts.items():
        for measure in part["measures"].values():
            assert measure["ratio_to"] == PEERS[name]
            check_arithmetic(measure)
        assert part["title"] in text
    speed, decoding = contestants(parts["training"], "speed"), contestants(parts["decoding"], "start")
    assert speed[0] in ("Jojo float32", "Jojo bfloat16")
    assert speed[1:] == ["transformers float32", "transformers bfloat16", "plain PyTorch float32"]
    assert decoding == [*speed[1:3], "Jojo float32", "Jojo bfloat16", "Jojo int8"]
    assert contestants(parts["loading"], "batch") == ["Jojo", "plain numpy.memmap"]
    assert contestants(parts["startup"], "first_token") == ["Jojo", "transformers"]
    assert parts["decoding"]["notes"] == ["float32: 4 of 4 tokens are the same in transformers and Jojo"]
    losses = [float(words.split()[-1]) for words in parts["training"]["notes"][0].split(",")]
    assert len(losses) == 4 and all(abs(loss - np.log(320)) < 0.1 for loss in losses)


def check_arithmetic(measure: dict[str, Any]) -> None:
    """Medians are those of the rounds, ratios the quotients of medians."""
    results = measure["results"]
    for result in results.values():
        assert min(result["rounds"]) > 0
        assert result["median"] == median(result["rounds"])
        assert result["ratio"] == result["median"] / results[measure["ratio_to"]]["median"]


@pytest.mark.usefixtures("quick")
def test_without_transformers_jojo_is_still_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    text, found = measured()
    assert "The package transformers is not installed (pip install transformers); measuring without it." in text
    assert found["machine"]["transformers"] is None and list(found["parts"]) == list(MEASURES)
    names = {m: contestants(part, m) for part in found["parts"].values() for m in part["measures"]}
    assert not [name for of_measure in names.values() for name in of_measure if "transformers" in name]
    assert names["start"] == ["Jojo float32", "Jojo bfloat16", "Jojo int8"] and names["first_batch"] == ["Jojo"]
    assert found["parts"]["training"]["measures"]["speed"]["ratio_to"] == "plain PyTorch float32"
    assert found["parts"]["decoding"]["measures"]["start"]["results"]["Jojo int8"]["ratio"] is None


@pytest.mark.usefixtures("quick")
def test_only_what_was_asked_for_with_its_rounds() -> None:
    _, found = measured("--only", "loading", "--loading_rounds", "3")
    assert list(found["parts"]) == ["loading"]
    measures = found["parts"]["loading"]["measures"]
    assert {len(result["rounds"]) for m in measures.values() for result in m["results"].values()} == {3}


def test_a_contestant_is_a_process_of_its_own(tmp_path: Path) -> None:
    shape = {"layers": 1, "heads": 1, "width": 8, "context": 8, "batch": 2, "vocabulary": 300}
    (tmp_path / "cache").mkdir()
    np.arange(100, dtype="<u2").tofile(tmp_path / "cache" / "benchmark-train-0.bin")
    arguments = {"shape": shape, "folder": str(tmp_path)}
    with benchmark_processes.contestants(tmp_path, [("plain", "plain_loading", arguments)]) as (process,):
        assert len(process.run(batches=3)["load_s"]) == 3
        assert len(process.run(batches=1)["load_s"]) == 1
    assert isinstance(process._process, subprocess.Popen) and process._process.returncode is not None


def test_memory_is_that_of_the_process_alone(tmp_path: Path) -> None:
    code = "import benchmark_contestants; print(benchmark_contestants.peak_memory_bytes(), flush=True)"
    with open(os.devnull, "wb") as nowhere:
        process = benchmark_processes.start_python(["-c", code], ROOT / "tools", nowhere)
    peak = int(process.communicate()[0])
    assert 5e6 < peak < 1e8  # numpy, where this process has torch
    assert benchmark_contestants.peak_memory_bytes() > 1e8


def test_plain_batches_are_windows_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    np.arange(50, dtype="<u2").tofile(tmp_path / "cache" / "benchmark-train-0.bin")
    shape = {"layers": 1, "heads": 1, "width": 8, "context": 8, "batch": 3, "vocabulary": 300}
    x, y = benchmark_contestants.PlainLoading(shape, str(tmp_path)).batch()
    assert x.shape == y.shape == (3, 8) and x.dtype == y.dtype == np.int64
    assert (x == x[:, :1] + np.arange(8)).all() and (y == x + 1).all()


# --- what they compute ----------------------------------------------------------------------------------------------


def test_the_plain_model_is_jojos() -> None:
    config = tiny_config()
    ours = random_model(config)
    plain = benchmark_plain.PlainGPT(config.n_layer, config.n_head, config.n_embd, config.block_size, config.vocab_size)
    weights = {name.removeprefix("transformer."): weight for name, weight in ours.state_dict().items()}
    plain.load_state_dict({name: weight for name, weight in weights.items() if name != "lm_head.weight"})
    x, y = random_tokens(config, 2, 3, 20)
    expected, loss = ours(x, y) / y.numel(), plain.loss(x, y)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-4)
    expected.backward()
    loss.backward()
    gradients = {name.removeprefix("transformer."): weight.grad for name, weight in ours.named_parameters()}
    for name, weight in plain.named_parameters():
        torch.testing.assert_close(weight.grad, gradients[name], atol=1e-4, rtol=1e-3)


def test_the_plain_loop_learns() -> None:
    torch.manual_seed(0)
    model = benchmark_plain.PlainGPT(1, 2, 32, 8, 20)
    step = benchmark_plain.plain_loop(model, model.loss)
    tokens = np.tile(np.arange(9), (4, 1))
    losses = [step(tokens[:, :-1].copy(), tokens[:, 1:].copy()) for _ in range(60)]
    assert losses[0] == pytest.approx(np.log(20), abs=0.2) and losses[-1] < losses[0] / 2


def test_values_are_written_to_three_digits() -> None:
    cases = [
        (1234.6, "tokens/s", "1,235"),
        (12.34, "tokens/s", "12.3"),
        (1.234, "s", "1.23 s"),
        (9e8, "bytes", "900 MB"),
    ]
    assert [benchmark_report.shown(value, unit) for value, unit, _ in cases] == [text for *_, text in cases]


# --- what goes wrong ------------------------------------------------------------------------------------------------


def refused(*flags: str) -> str:
    with pytest.raises(UserError) as error:
        benchmark.main(list(flags))
    return str(error.value)


def test_flags_that_mean_nothing_are_refused() -> None:
    assert refused("--only", "training", "traning") == (
        "--only: there is no part 'traning'; the parts are training, loading, decoding, startup."
    )
    assert refused("--training_rounds", "0") == "--training_rounds must be at least 1, not 0."
    assert refused("--width", "100") == "--width 100 is no multiple of --heads 6."
    assert refused("--prompt", "600") == "--prompt must be at most half of --decode_context, 512."
    assert refused("--output", "nowhere/x") == "--output: there is no folder 'nowhere'; create it first."


@pytest.mark.usefixtures("quick")
def test_what_fails_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"^train\.py could not be measured: .*model\.n_embd.*\.$"):
        benchmark_processes.run_to_end([str(ROOT / "train.py"), "--model.n_embd", "0"], Path())
    nobody = benchmark_processes.contestants(Path(), [("Jojo", "nothing", {})])
    with pytest.raises(UserError, match=r"^Jojo could not be measured: KeyError: 'nothing'$"), nobody:
        pass
    with pytest.raises(UserError, match=r"^gen\.py could not be measured: it said nothing$"):
        benchmark_processes.seconds_until(lambda out: False, [str(ROOT / "gen.py"), "--version"], Path())
