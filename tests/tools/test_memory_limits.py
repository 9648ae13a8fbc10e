"""tools/test_memory_limits.py: its answers, compared with training/memory.py and a real run; the configs for GPUs."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers_data import ROOT
from helpers_run import listening, make_run, settle, write_data
from hypothesis import given
from hypothesis import strategies as st

from config import Config, resolve
from jojo.config_file import file_layers
from jojo.machine import device as devices
from tools import test_memory_limits as tool
from training.flags import build_parser, overrides
from training.memory import memory_bytes
from utils import UserError

GPT2 = ("--config", str(ROOT / "configs" / "gpt2.json"))
CPU = ("--device", "cpu", "--dtype", "float32")
GPU_CONFIGS = {8: "gpu-8gb", 12: "gpu-12gb", 16: "gpu-16gb", 24: "gpu-24gb", 40: "gpu-40gb", 80: "gpu-80gb"}
MARGIN = 0.9  # share of a GPU's memory that its config may take


@pytest.fixture(autouse=True)
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(tmp_path, monkeypatch)


def ask(*flags: str) -> tuple[str, dict[str, Any]]:
    """The tool's output, and its JSON file."""
    with listening() as said:
        assert tool.main([*flags, "--json", "answer.json"]) == 0
    return "\n".join(said), json.loads(Path("answer.json").read_text())


def gpt2(batch_size: int, steps: int = 40, dtype: str = "bfloat16") -> Config:
    """configs/gpt2.json as the tool sees it on a GPU."""
    config, _ = resolve(file_layers(ROOT / "configs" / "gpt2.json"))
    config.model.vocab_size, config.system.device, config.system.dtype = 50304, "cuda", dtype
    config.training.batch_size, config.training.gradient_accumulation_steps = batch_size, steps
    return config


# --- what is said ---------------------------------------------------------------------------------------------------


def test_the_parts_add_up_to_the_estimate() -> None:
    said, found = ask(*GPT2, "--gpu", "RTX 3060")
    assert found["peak_bytes"] == memory_bytes(gpt2(12)) == sum(found["parts"].values())
    assert found["parameters"] == 124_475_904 and found["dtype"] == "bfloat16" and found["measured_bytes"] is None
    assert found["usable_bytes"] == 11_040_000_000 and found["fits"] is True
    assert "It fits: RTX 3060 has 11.0 GB of usable memory." in said
    for name in found["parts"]:
        assert f"\n  {name} " in said


def test_the_largest_batch_size_fits_and_one_more_does_not() -> None:
    for gigabytes in (4, 12, 80):
        largest = ask(*GPT2, "--gpu", str(gigabytes))[1]["largest_batch_size"]
        usable = 0.92 * gigabytes * 1e9
        assert memory_bytes(gpt2(largest)) <= usable < memory_bytes(gpt2(largest + 1))


def test_a_batch_that_does_not_fit_is_offered_in_smaller_micro_batches() -> None:
    said, found = ask(*GPT2, "--gpu", "6")
    assert found["fits"] is False and "It does not fit" in said
    (line,) = (line for line in said.splitlines() if line.startswith("The same batch"))
    words = line.split()
    size, steps = int(words[words.index("--batch_size") + 1]), int(words[-1])
    assert size * steps == 480 and size <= found["largest_batch_size"]
    assert ask(*GPT2, "--gpu", "6", *words[words.index("--batch_size") :])[1]["fits"] is True


def test_a_model_that_is_too_large_is_reported() -> None:
    said, found = ask("--config", str(ROOT / "configs" / "gpt2-xl.json"), "--gpu", "T4")
    assert found["largest_batch_size"] == 0 and found["fits"] is False and "Not even one sequence fits" in said


def test_the_table_marks_what_does_not_fit() -> None:
    said, found = ask(*GPT2, "--gpu", "12", "--table")
    sizes = {(row["batch_size"], row["block_size"]): row for row in found["table"]}
    assert set(sizes) == {(b, t) for b in (1, 2, 4, 8, 12, 16, 32, 64) for t in (128, 256, 512, 1024, 2048)}
    assert sizes[12, 1024]["peak_bytes"] == found["peak_bytes"]
    assert all(row["fits"] == (row["peak_bytes"] <= found["usable_bytes"]) for row in sizes.values())
    lines = said.split("Peak memory by batch size")[1].splitlines()[2:]
    assert lines[0].split() == ["128", "256", "512", "1,024", "2,048"] and len(lines) == 9
    assert said.count("B x") == sum(not row["fits"] for row in sizes.values()) > 0


def test_flags_and_the_tokenizer_make_the_config() -> None:
    assert ask("--gpu", "8", "--model.n_layer", "1", "--model.n_embd", "96")[1]["parameters"] == (
        (50304 + 256) * 96 + 12 * 96**2 + 3 * 96
    )
    assert ask("--gpu", "8", "--dtype", "float32")[1]["dtype"] == "float32"


def test_this_machine_is_asked_for_its_own_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "total_memory_bytes", lambda device: 10**10)
    said, found = ask(*CPU)
    assert found["usable_bytes"] == 9_200_000_000 and found["device"] == "cpu" and "this machine (cpu)" in said
    monkeypatch.setattr(devices, "total_memory_bytes", lambda device: None)
    said, found = ask(*CPU, "--table")
    assert found["fits"] is None and "does not report how much memory" in said and "B x" not in said


# --- GPUs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wanted, name, gigabytes",
    [
        ("RTX 3060", "RTX 3060", 12), ("3060", "RTX 3060", 12), ("NVIDIA GeForce RTX 4060 Ti", "RTX 4060 Ti", 16),
        ("rtx4060ti 8gb", "RTX 4060 Ti 8GB", 8), ("A100-SXM4-80GB", "A100 80GB", 80), ("NVIDIA A100-PCIE-40GB", "A100", 40),
        ("Tesla V100-SXM2-32GB", "V100 32GB", 32), ("NVIDIA H100 80GB HBM3", "H100", 80), ("T4", "T4", 16),
        ("12", "a GPU of 12 GB", 12), ("7.5", "a GPU of 7.5 GB", 7.5),
    ],
)  # fmt: skip
def test_gpus_are_known_by_name_or_memory(wanted: str, name: str, gigabytes: float) -> None:
    place = tool.place_of(wanted)
    assert (place.name, place.total_bytes) == (name, int(gigabytes * 1e9))


def test_a_gpu_without_bfloat16_gets_another_dtype() -> None:
    assert ask(*GPT2, "--gpu", "T4")[1]["dtype"] == "float32"
    with pytest.raises(UserError, match="T4 has no bfloat16; use --dtype float16 or float32"):
        tool.main([*GPT2, "--gpu", "T4", "--dtype", "bfloat16"])
    assert ask(*GPT2, "--gpu", "A10")[1]["dtype"] == ask(*GPT2, "--gpu", "L4")[1]["dtype"] == "bfloat16"


def test_an_apple_gpu_cannot_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "available_devices", lambda: ["mps", "cpu"])
    assert ask()[1]["device"] == "mps"
    with pytest.raises(UserError, match="use --device cpu"):
        tool.main(["--measure"])


@pytest.mark.parametrize(
    "flags, words",
    [
        (("--gpu", "RTX 3061"), "'RTX 3061' is not a GPU that this tool knows .did you mean 'RTX 3060'"),
        (("--gpu", "toaster"), "'toaster' is not a GPU that this tool knows; give its memory in GB"),
        (("--gpu", "0"), "above 0"),
        (("--gpu", "nan"), "above 0"),
        (("--gpu", "-3"), "above 0"),
        (("--gpu", "12", "--device", "cpu"), "--gpu and --device both name a device"),
        (("--gpu", "12", "--measure"), "--measure runs on this machine"),
        (("--gpu", "12", "--resume"), "--resume has no meaning here"),
        (("--gpu", "12", "--model.vocab_size", "100"), "smaller than the tokenizer's"),
        (("--gpu", "12", "--batch_size", "0"), "batch_size"),
        (("--gpu", "12", "--config", "nowhere.json"), "nowhere.json"),
    ],
)
def test_errors_are_one_clear_sentence(flags: tuple[str, ...], words: str) -> None:
    with pytest.raises(UserError, match=words):
        tool.main([*flags])


# --- arithmetic -----------------------------------------------------------------------------------------------------


@given(st.integers(1, 600), st.integers(1, 50), st.integers(1, 2000))
def test_the_same_batch_has_as_many_sequences(batch_size: int, steps: int, largest: int) -> None:
    config = gpt2(batch_size, steps)
    size, pieces = tool.same_batch(config, largest)
    assert size * pieces == batch_size * steps and size <= largest


# --- a real run -----------------------------------------------------------------------------------------------------


def test_a_real_run_takes_what_was_estimated(tmp_path: Path) -> None:
    """GPT-2's vocabulary makes this slow, but smaller tensors would be small beside the program itself.

    The program is still half of the peak, and its pages in memory differ by up to 90 MB between installations.
    """
    write_data(n_train=400)  # no epoch ends in three batches: its save would run during the next batch
    make_run().close()  # make the token cache now, so that the tokenizer takes no memory later
    before = {path for path in tmp_path.rglob("*") if "cache" not in path.parts}
    said, found = ask(
        *CPU, "--dataset", "mine", "--model.n_layer", "2", "--model.n_head", "2", "--model.n_embd", "192",
        "--model.block_size", "64", "--batch_size", "1", "--system.peak_flops", "1e11", "--measure",
    )  # fmt: skip
    assert found["peak_bytes"] == pytest.approx(found["measured_bytes"], rel=0.2)
    assert "Measured: " in said and found["measured_bytes"] > 1.3 * found["parts"]["program"]
    assert {path for path in tmp_path.rglob("*") if "cache" not in path.parts} - before == {tmp_path / "answer.json"}


def test_a_run_that_fails_says_why() -> None:
    with pytest.raises(UserError, match=r"ended with code 1: .*nothere"):
        tool.main([*CPU, "--dataset", "nothere", "--measure"])


def test_the_figures_in_the_docs_are_the_estimates() -> None:
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8").split("## Memory before a run")[1]
    rows = re.findall(
        r"^\| `--config (\S+)(.*?)` \| ([\d.]+) (GB|MB) \| ([\d.]+) (GB|MB) \| ([-+.\d]+) % \|$", page, re.MULTILINE
    )
    assert len(rows) >= 6
    for config, flags, estimated, unit, measured, measured_unit, percent in rows:
        vocabulary = ["--model.vocab_size", "8192"] if "8k" in config else []  # as in a tokenizer that is not here
        cpu = ["--device", "cpu", "--dtype", "bfloat16"]
        arguments = ["--config", str(ROOT / config), *cpu, *flags.split(), *vocabulary]
        args = build_parser().parse_args(arguments)
        layers = [
            (flag, {name.split(".")[0]: {name.split(".")[1]: value}})
            for flag, name, value in overrides(args, arguments)
        ]
        run, _ = resolve([*file_layers(ROOT / config), *layers])
        run.model.vocab_size = run.model.vocab_size or (3072 if run.data.tokenizer == "story" else 50304)
        size = {"GB": 1e9, "MB": 1e6}
        assert float(estimated) * size[unit] == pytest.approx(memory_bytes(run), rel=0.005), config
        assert abs(float(percent)) < 10
        apart = float(estimated) * size[unit] / (float(measured) * size[measured_unit]) - 1
        assert 100 * apart == pytest.approx(float(percent), abs=0.5)


# --- the configs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gigabytes", GPU_CONFIGS)
def test_the_configs_for_gpus_are_the_largest_that_fit(gigabytes: int) -> None:
    config, sources = resolve(file_layers(ROOT / "configs" / f"{GPU_CONFIGS[gigabytes]}.json"))
    assert config.tokens_per_batch == 480 * 1024 and sources["system.dtype"].endswith(".json")
    expected = gpt2(config.training.batch_size, config.training.gradient_accumulation_steps)
    assert config.model == replace(expected.model, vocab_size=None) and config.system.dtype == "bfloat16"
    room = MARGIN * gigabytes * 1e9
    assert memory_bytes(expected) <= room
    larger = next(size for size in range(config.training.batch_size + 1, 481) if 480 % size == 0)
    assert memory_bytes(gpt2(larger, 480 // larger)) > room


def test_there_are_no_other_configs_for_gpus() -> None:
    assert {path.stem for path in (ROOT / "configs").glob("gpu-*.json")} == set(GPU_CONFIGS.values())
