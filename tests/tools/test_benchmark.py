"""tools/benchmark.py: every part with tiny shapes, its arithmetic, and the plain model as a reference for Jojo's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import IO, Any

import numpy as np
import pytest
import torch
from helpers_data import ROOT
from helpers_fork import as_script, exit_code, fork
from helpers_model import random_model, random_tokens, tiny_config
from helpers_run import listening
from pictures import png_size

from jojo.machine import estimate
from jojo.machine.device import peak_memory_bytes
from tools import benchmark
from tools.parts import benchmark_contestants, benchmark_plain, benchmark_report
from utils import UserError

MEASURES = {
    "training": {"speed": "tokens/s", "memory": "bytes"},
    "loading": {"batch": "ms", "share_of_step": "%"},
    "decoding": {"start": "tokens/s", "end": "tokens/s", "samples": "tokens/s", "prompt": "ms"},
    "startup": {"first_batch": "s", "first_token": "s"},
}
IN_FLOAT32, IN_BFLOAT16 = "transformers float32", "transformers bfloat16"
TRAINED = {  # contestant -> what it is compared with
    IN_FLOAT32: IN_FLOAT32, IN_BFLOAT16: IN_BFLOAT16, "plain PyTorch float32": IN_FLOAT32,
    "Jojo float32": IN_FLOAT32, "Jojo bfloat16": IN_BFLOAT16,
}  # fmt: skip
DECODED = {
    IN_FLOAT32: IN_FLOAT32, IN_BFLOAT16: IN_BFLOAT16,
    "Jojo float32": IN_FLOAT32, "Jojo bfloat16": IN_BFLOAT16, "Jojo int8": IN_BFLOAT16,
}  # fmt: skip
LOADED = dict.fromkeys(("plain numpy.memmap", "Jojo"), "plain numpy.memmap")
STARTED = dict.fromkeys(("transformers", "Jojo"), "transformers")
COMPARED = {"training": TRAINED, "loading": LOADED, "decoding": DECODED, "startup": STARTED}


class Forked:
    """Replaces a new Python process by a fork of this one, which has imported torch and transformers already."""

    def __init__(self, arguments: Sequence[str], folder: Path, errors: IO[bytes]) -> None:
        requests, answers = os.pipe(), os.pipe()

        def run() -> None:
            os.chdir(folder)
            as_script(arguments)

        self.number = fork(run, (requests[0], answers[1], errors.fileno()), {})
        os.close(requests[0])
        os.close(answers[1])
        self.stdin, self.stdout = open(requests[1], "wb", buffering=0), open(answers[0], "rb")
        self.code: int | None = None

    def wait(self) -> int:
        if self.code is None:
            self.code = exit_code(self.number)
        return self.code

    def kill(self) -> None:
        if self.code is None:
            os.kill(self.number, 9)

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *error: object) -> None:
        self.stdin.close()
        self.stdout.close()
        self.wait()


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork the contestants instead of starting them, and leave out measuring the processor."""
    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork a process")
    from transformers import AutoTokenizer, GPT2LMHeadModel  # noqa: F401  (so that the forks have them)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(benchmark, "start_python", Forked)
    monkeypatch.setattr(estimate, "measure_cpu_peak_flops", lambda dtype: 1e11)


def measured(*flags: str) -> tuple[str, dict[str, Any]]:
    """The benchmark's output with tiny shapes, and its JSON file."""
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
    machine = found["machine"]
    assert machine["torch"] == torch.__version__ and machine["float32_gflops"] == machine["bfloat16_gflops"] == 100
    assert machine["cpu"] and machine["threads"] >= 1
    assert found["command"] == "python tools/benchmark.py --tiny" and found["settings"]["decode_context"] == 32
    parts = found["parts"]
    assert {name: {m: v["unit"] for m, v in part["measures"].items()} for name, part in parts.items()} == MEASURES
    for name, part in parts.items():
        for of, measure in part["measures"].items():
            check_arithmetic(measure["results"], COMPARED[name], rounds=1 if of == "memory" else 2)
        assert part["title"] in text and part["seconds"] > 0
    assert "float32: 4 of 4 tokens are the same in transformers and Jojo" in parts["decoding"]["notes"]
    losses = [float(words.split()[-1]) for words in parts["training"]["notes"][1].split(",")]
    assert len(losses) == 5 and all(abs(loss - np.log(50_304)) < 0.1 for loss in losses)


def check_arithmetic(results: dict[str, Any], compared: dict[str, str], rounds: int) -> None:
    """Check that medians are those of the rounds, and ratios are quotients of medians."""
    assert list(results) == list(compared)
    for name, result in results.items():
        assert len(result["rounds"]) == rounds and min(result["rounds"]) > 0
        assert result["median"] == median(result["rounds"])
        assert result["ratio_to"] == compared[name]
        assert result["ratio"] == result["median"] / results[compared[name]]["median"]


@pytest.mark.usefixtures("quick")
def test_without_transformers_jojo_is_still_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    text, found = measured("--rounds", "1")
    assert "The package transformers is not installed (pip install transformers); measuring without it." in text
    assert found["machine"]["transformers"] is None and list(found["parts"]) == list(MEASURES)
    names = {m: contestants(part, m) for part in found["parts"].values() for m in part["measures"]}
    assert not [name for of_measure in names.values() for name in of_measure if "transformers" in name]
    assert names["start"] == ["Jojo float32", "Jojo bfloat16", "Jojo int8"] and names["first_batch"] == ["Jojo"]
    speed, start = (
        found["parts"][p]["measures"][m]["results"] for p, m in (("training", "speed"), ("decoding", "start"))
    )
    assert speed["Jojo bfloat16"]["ratio_to"] == "plain PyTorch float32" and start["Jojo int8"]["ratio"] is None


def test_turns_are_taken_back_and_forth() -> None:
    assert "".join(benchmark.turns("abc", 3)) == "abccbaabc"


@pytest.mark.parametrize("library", ["Jojo", "transformers"])
def test_samples_are_decoded_together(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    put = benchmark_contestants.Stamps.put
    monkeypatch.setattr(
        benchmark_contestants.Stamps, "put", lambda self, t: [seen.append(tuple(t.shape)), put(self, t)]
    )
    shape = {"layers": 1, "heads": 2, "width": 32, "context": 32, "batch": 3}
    run = benchmark_contestants.decoding(f"{library} float32", shape, "")
    alone, together = run(8, 4)["tokens"], run(8, 4, samples=3)["tokens"]
    assert alone == together and len(alone) == 4
    assert [s for s in seen if len(s) == 1] == [(1,)] * 4 + [(3,)] * 4


def test_transformers_is_set_up_at_its_fastest() -> None:
    model = benchmark_contestants.transformers_model(benchmark_contestants.Shape(1, 2, 32, 32, 1))
    assert model.config._attn_implementation == "sdpa"
    assert type(model.transformer.h[0].mlp.act).__name__ == "GELUTanh"


@pytest.mark.usefixtures("quick")
def test_only_the_chosen_parts_are_measured() -> None:
    _, found = measured("--only", "loading", "--rounds", "3")
    assert list(found["parts"]) == ["loading"]
    measures = found["parts"]["loading"]["measures"]
    assert {len(result["rounds"]) for m in measures.values() for result in m["results"].values()} == {3}


@pytest.mark.usefixtures("quick")
def test_a_part_is_kept_when_a_later_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        benchmark.MEASURES, "startup", lambda bench: benchmark.seconds_until(None, ["nothing.py"], Path())
    )
    with pytest.raises(UserError, match=r"^nothing\.py could not be measured"):
        measured("--only", "loading", "startup", "--rounds", "1")
    assert list(json.loads(Path("benchmark.json").read_text())["parts"]) == ["loading"]


@pytest.mark.usefixtures("quick")
def test_only_what_is_needed_is_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "prepare_data", None)
    _, found = measured("--only", "decoding", "--rounds", "1")
    assert list(found["parts"]) == ["decoding"]


def test_a_contestant_is_a_process_of_its_own(tmp_path: Path) -> None:
    bench = benchmark.Bench(benchmark.parse([]), tmp_path, transformers=False)
    labels, shape = ["transformers float32", "plain PyTorch float32"], benchmark_contestants.Shape(1, 1, 8, 8, 2)
    with bench.contestants("training", labels, shape, batches=1) as (process,):
        assert len(process.warm_up["losses"]) == 1
        assert len(process.run(batches=3)["seconds"]) == 3
    assert isinstance(process._process, subprocess.Popen) and process._process.returncode is not None


def test_memory_is_that_of_the_process_alone() -> None:
    large = np.ones(75_000_000)  # 600 MB, in this process only
    code = "from jojo.machine.device import peak_memory_bytes; print(peak_memory_bytes('cpu'))"
    with open(os.devnull, "wb") as nowhere:
        process = benchmark.start_python(["-c", code], ROOT, nowhere)
    assert 5e6 < int(process.communicate()[0]) < large.nbytes < peak_memory_bytes("cpu")


def test_plain_batches_are_windows_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    np.arange(50, dtype="<u2").tofile(tmp_path / "cache" / "benchmark-train-0.bin")
    ids = benchmark_contestants.mapped_ids(tmp_path)
    shape = benchmark_contestants.Shape(1, 1, 8, context=8, batch=3)
    x, y = benchmark_contestants.windows(ids, shape, np.random.default_rng(0))
    assert x.shape == y.shape == (3, 8) and x.dtype == y.dtype == np.int64
    assert (x == x[:, :1] + np.arange(8)).all() and (y == x + 1).all()


# --- what they compute ----------------------------------------------------------------------------------------------


def test_the_plain_model_computes_the_same_as_jojos() -> None:
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


def test_flags_that_mean_nothing_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        benchmark.main(["--only", "training", "traning"])
    assert "invalid choice: 'traning'" in capsys.readouterr().err
    assert refused("--rounds", "0") == "--rounds must be at least 1, not 0."
    assert refused("--tokens", "600") == "--tokens must be at most half of --decode_context, 512."
    (tmp_path / "file").write_text("")
    assert refused("--output", f"{tmp_path}/file/x").startswith(f"Could not write '{tmp_path}/file/x.json'")


@pytest.mark.usefixtures("quick")
def test_failures_are_one_sentence() -> None:
    with pytest.raises(UserError, match=r"^train\.py could not be measured: .*model\.n_embd.*\.$"):
        benchmark.seconds_until(None, [str(ROOT / "train.py"), "--model.n_embd", "0"], Path())
    bench = benchmark.Bench(benchmark.parse([]), Path(), transformers=False)
    nobody = bench.contestants("nothing", ["Jojo"], bench.shape())
    with pytest.raises(UserError, match=r"^Jojo could not be measured: KeyError: 'nothing'$"), nobody:
        pass
    wrong = bench.contestants("training", ["Jojo float32"], benchmark_contestants.Shape(1, 3, 8, 8, 2))
    with pytest.raises(UserError, match=r"^Jojo float32 could not be measured: .*n_embd.*n_head.*$"), wrong:
        pass
    with pytest.raises(UserError, match=r"^gen\.py could not be measured: it printed nothing$"):
        benchmark.seconds_until(lambda out: False, [str(ROOT / "gen.py"), "--version"], Path())
