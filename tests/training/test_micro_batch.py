"""training.batch_size "auto": the search, files and flags that ask for it, and batches that stay the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_run import (
    TINY,
    differences,
    make_run,
    make_trainer,
    metrics_rows,
    settle,
    state_of,
    stop_after,
    train,
    train_plainly,
)
from hypothesis import example, given
from hypothesis import strategies as st

from config import Config, asks_for_auto, resolve
from jojo.machine import device as devices
from training import micro_batch
from training.micro_batch import CPU_TOKENS, SPARE, Trial, choose_batch_size, largest_fitting
from utils import UserError, divisors

BATCH_SIZE, ACCUMULATION = "training.batch_size", "training.gradient_accumulation_steps"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    settle(tmp_path, monkeypatch)


def enough_memory(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Make micro-batches of up to `most` sequences fit on a CPU, whatever this machine has."""
    monkeypatch.setattr(micro_batch, "fits_by_estimate", lambda config, size, ranks: size <= most)


# --- the search -----------------------------------------------------------------------------------------------------


@given(st.integers(1, 5000))
@example(2**12)
def test_divisors_are_complete_and_in_order(number: int) -> None:
    assert divisors(number) == [d for d in range(1, number + 1) if number % d == 0]


@given(st.integers(1, 3000), st.integers(0, 3100))
@example(720, 720)
@example(720, 719)
def test_the_search_finds_the_largest_divisor_that_fits(rows: int, most: int) -> None:
    tried: list[int] = []

    def fits(size: int) -> bool:
        tried.append(size)
        return size <= most

    if most == 0:
        with pytest.raises(UserError, match="Not even one sequence"):
            largest_fitting(rows, fits)
        assert tried == [1]
        return
    assert largest_fitting(rows, fits) == max(d for d in range(1, rows + 1) if rows % d == 0 and d <= most)
    assert tried[0] == 1
    assert len(set(tried)) == len(tried) <= 2 * len(divisors(rows)).bit_length() + 1


def test_the_search_never_tries_sizes_that_are_far_too_large() -> None:
    tried = []

    def fits(size: int) -> bool:
        tried.append(size)
        return size <= 3

    assert largest_fitting(5040, fits) == 3
    assert max(tried) <= 16


# --- where the number of sequences comes from -----------------------------------------------------------------------

FILE_LAYERS = [  # (values of training in the layers, rows per batch, whether the size must be found)
    ([{}], 12, False),
    ([{"batch_size": "auto"}], 12, True),
    ([{"batch_size": "auto", "gradient_accumulation_steps": 4}], 48, True),
    ([{"batch_size": 12, "gradient_accumulation_steps": 4}, {"batch_size": "auto"}], 48, True),
    ([{"batch_size": 6, "gradient_accumulation_steps": 4}, {"batch_size": "auto"}], 24, True),
    ([{"batch_size": 6}, {"batch_size": "auto"}, {"gradient_accumulation_steps": 5}], 30, True),
    ([{"gradient_accumulation_steps": 5}, {"batch_size": "auto"}, {"gradient_accumulation_steps": 2}], 24, True),
    ([{"batch_size": "auto"}, {"batch_size": 3}], 3, False),
    ([{"batch_size": "auto"}, {"batch_size": 3}, {"batch_size": "auto"}], 3, True),
    ([{"batch_size": "auto"}, {"batch_size": "auto"}, {"max_iters": 3}], 12, True),
]


@pytest.mark.parametrize(("layers", "rows", "auto"), FILE_LAYERS)
def test_auto_keeps_the_batch_of_the_layers_below_it(layers: list[dict[str, Any]], rows: int, auto: bool) -> None:
    named = [(f"layer {i}", {"training": values}) for i, values in enumerate(layers)]
    config, sources = resolve(named)
    assert config.rows_per_batch == rows and type(config.training.batch_size) is int
    assert asks_for_auto(named, BATCH_SIZE) is auto
    last = max((i for i, values in enumerate(layers) if "batch_size" in values), default=None)
    assert sources[BATCH_SIZE] == ("default" if last is None else f"layer {last}")


def test_only_the_batch_size_may_be_auto() -> None:
    for name in ("gradient_accumulation_steps", "max_iters"):
        with pytest.raises(UserError, match=f"training.{name}' must be a whole number"):
            resolve([("a", {"training": {name: "auto"}})])
    with pytest.raises(UserError, match='must be a whole number or auto, not "Auto "'):
        resolve([("a", {"training": {"batch_size": "Auto "}})])


@pytest.mark.parametrize(
    ("file", "flags", "split"),
    [
        ({"batch_size": 12, "gradient_accumulation_steps": 4}, ("--batch_size", "auto"), (8, 6)),
        ({"batch_size": "auto", "gradient_accumulation_steps": 4}, (), (8, 6)),
        ({"batch_size": "auto"}, (f"--{ACCUMULATION}", "3"), (9, 4)),
        ({"batch_size": "auto"}, ("--batch_size", "5"), (5, 1)),
        ({"batch_size": 2}, (f"--{BATCH_SIZE}=AUTO",), (2, 1)),
    ],
)
def test_files_and_flags_reach_the_same_number_of_sequences(file, flags, split, monkeypatch, capsys) -> None:
    enough_memory(monkeypatch, 10)
    Path("run.json").write_text(json.dumps({"training": file}))
    shown = show("--config", "run.json", *flags)
    assert (shown[BATCH_SIZE][0], shown[ACCUMULATION][0]) == split
    if flags == ("--batch_size", "5"):
        assert (shown[BATCH_SIZE][1], shown[ACCUMULATION][1]) == ("--batch_size", "default")
    else:
        assert shown[BATCH_SIZE][1].startswith("derived: the most that fit")
        assert shown[ACCUMULATION][1] == f"derived: {split[0] * split[1]} sequences a batch"


SHAPE = ("--dataset", "mine", "--device", "cpu", "--dtype", "float32", "--model.n_layer", "1", "--model.n_embd", "6")


def show(*flags: str) -> dict[str, tuple[int, str]]:
    """Value and source of the two sizes in the output of --show_config."""
    lines = train_plainly(*SHAPE, "--model.block_size", "16", *flags, "--show_config").said.splitlines()
    found = {}
    for name in (BATCH_SIZE, ACCUMULATION):
        key = name.split(".")[1]
        words = next(line.strip() for line in lines if line.strip().startswith(key + " ")).split()
        skip = 3 if words[2] == "sequences" else 2
        found[name] = int(words[1]), " ".join(words[skip:])
    return found


# --- the choice on a CPU --------------------------------------------------------------------------------------------


def cpu_config(rows: int, block_size: int, device: str = "cpu") -> Config:
    config = Config.from_dict(
        {"model": {"vocab_size": 128, "block_size": block_size}, "training": {"batch_size": rows}}
    )
    config.system.device, config.system.dtype = device, "float32"
    return config


def test_on_a_cpu_the_estimate_must_fit_in_available_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "available_memory_bytes", lambda: 1_000_000)
    asked = []

    def memory_bytes(config: Config, ranks: int) -> int:
        asked.append((config.training.batch_size, config.training.gradient_accumulation_steps))
        return 100_000 * config.training.batch_size

    monkeypatch.setattr(micro_batch, "memory_bytes", memory_bytes)
    size, reason = choose_batch_size(cpu_config(48, 16), 100)
    assert size == 8  # 800,000 bytes: USABLE is four fifths of a million
    assert "estimate" in reason
    assert {a * b for a, b in asked} == {48}
    monkeypatch.setattr(devices, "available_memory_bytes", lambda: 100_000)
    with pytest.raises(UserError, match="activation_checkpointing"):
        choose_batch_size(cpu_config(48, 16), 100)
    monkeypatch.setattr(devices, "available_memory_bytes", lambda: None)
    assert choose_batch_size(cpu_config(48, 16), 100)[0] == 48


@pytest.mark.parametrize(
    ("device", "block_size", "size"),
    [("cpu", 256, 16), ("cpu", 1000, 4), ("cpu", 4096, 1), ("cpu", 9000, 1), ("mps", 1000, 48)],
)
def test_a_cpu_gets_no_more_tokens_than_make_it_faster(monkeypatch, device: str, block_size: int, size: int) -> None:
    monkeypatch.setattr(micro_batch, "memory_bytes", lambda config, ranks: 1)
    assert choose_batch_size(cpu_config(48, block_size, device), 100)[0] == size
    assert CPU_TOKENS == 4096


# --- the choice on CUDA, with a fake device -------------------------------------------------------------------------


class FakeCuda:
    """A device of 1,000 bytes. A step takes `weights` + `per_row` for each sequence; if that is too much, torch's error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, per_row: int, weights: int = 100, others: int = 0) -> None:
        self.per_row, self.weights, self.others = per_row, weights, others
        self.reserved, self.tried, self.emptied, self.built = 0, [], 0, 0
        for name in ("reset_peak_memory_stats", "set_device"):
            monkeypatch.setattr(torch.cuda, name, lambda *_: None)
        monkeypatch.setattr(torch.cuda, "empty_cache", self.empty_cache)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1000 - self.others - self.reserved, 1000))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: self.reserved)
        monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *_: None)
        monkeypatch.setattr(micro_batch, "build", self.build)
        monkeypatch.setattr(micro_batch, "try_step", self.try_step)

    def build(self, config: Config, n_vocab: int) -> tuple[torch.nn.Module, list[Any]]:
        self.built += 1
        self.take(self.weights)
        return torch.nn.Linear(1, 1), []

    def take(self, needed: int) -> None:
        if needed > 1000 - self.others:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        self.reserved = needed

    def try_step(self, model: torch.nn.Module, optimizers: list[Any], config: Config) -> None:
        self.tried.append(config.training.batch_size)
        assert config.rows_per_batch == 48
        self.take(self.weights + self.per_row * config.training.batch_size)

    def empty_cache(self) -> None:
        self.emptied += 1
        self.reserved = min(self.reserved, self.weights)


@pytest.mark.parametrize(
    ("per_row", "others", "size"),
    [
        (1, 0, 48),
        (50, 0, 16),  # 900 of 1,000
        (53, 0, 16),  # 948: 52 are left
        (54, 0, 12),  # 16 would take 964 and leave less than a twentieth
        (53, 10, 12),  # another program uses 10
        (300, 0, 2),
        (800, 0, 1),
    ],
)
def test_on_cuda_the_largest_size_that_ran_and_left_memory_is_chosen(monkeypatch, per_row, others, size) -> None:
    cuda = FakeCuda(monkeypatch, per_row, others=others)
    chosen, reason = choose_batch_size(cpu_config(48, 16, "cuda:0"), 100)
    assert chosen == size and "cuda:0" in reason
    assert cuda.built == 1
    assert cuda.emptied > len(cuda.tried)  # after each trial, and at the end
    assert SPARE == 0.05


def test_memory_fraction_limits_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    config = cpu_config(48, 16, "cuda:0")
    config.system.memory_fraction = 0.5
    FakeCuda(monkeypatch, 50)
    assert choose_batch_size(config, 100)[0] == 6  # takes 400 of 500; 8 sequences would take all 500


def test_a_model_that_is_too_large_is_an_error_and_other_errors_are_raised_unchanged(monkeypatch) -> None:
    config = cpu_config(48, 16, "cuda:0")
    cuda = FakeCuda(monkeypatch, 1, weights=2000)
    with pytest.raises(UserError, match="Not even one sequence fits"):
        choose_batch_size(config, 100)
    assert cuda.tried == []

    def broken(*_: object) -> None:
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(micro_batch, "build", broken)
    with pytest.raises(RuntimeError, match="illegal"):
        choose_batch_size(config, 100)


@pytest.mark.parametrize(("kind", "on"), [("adamw", False), ("muon", True)])
def test_a_trial_is_a_real_step_of_the_real_model(monkeypatch: pytest.MonkeyPatch, kind: str, on: bool) -> None:
    """On this machine's CPU: micro-batches have the size that is tried, and every weight is updated."""
    config = cpu_config(6, 16)
    config.optimizer.kind, config.training.activation_checkpointing = kind, on
    config.model.n_layer, config.model.n_embd, config.model.n_head = 1, 16, 2
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (900, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 100)
    trial = Trial(config, 100)
    trial.parts = micro_batch.build(config, 100)
    model = trial.parts[0]
    assert model.transformer.checkpointing is on
    before, shapes = {n: p.clone() for n, p in model.named_parameters()}, []
    model.transformer.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))
    assert trial.fits(3)
    assert shapes == [(3, 16), (3, 16)]
    assert trial.fits(6)
    assert shapes[2:] == [(6, 16)]
    assert all(not torch.equal(before[n], p) and p.grad is None for n, p in model.named_parameters())


# --- batches stay the same ------------------------------------------------------------------------------------------


def splits(size: int, accumulation: int) -> tuple[str, ...]:
    return "--batch_size", str(size), f"--{ACCUMULATION}", str(accumulation)


@pytest.mark.parametrize("pack", ["stream", "whole"])
def test_a_batch_holds_the_same_rows_in_the_same_order_however_it_is_split(pack: str) -> None:
    loaders = [make_run(*splits(size, 12 // size), "--data.pack", pack).loader() for size in (1, 3, 4, 12)]
    assert len({loader.batches_per_epoch for loader in loaders}) == 1 < loaders[0].batches_per_epoch
    for epoch, index in [(0, 0), (0, 1), (0, loaders[0].batches_per_epoch - 1), (1, 0)]:
        batches = [loader.batch(epoch, index) for loader in loaders]
        assert [len(batch.inputs) for batch in batches] == [12, 4, 3, 1]
        for part in ("inputs", "targets"):
            rows = [getattr(batch, part).reshape(12, -1).tolist() for batch in batches]
            assert rows[0] == rows[1] == rows[2] == rows[3]
        assert len({batch.n_targets for batch in batches}) == 1


def test_losses_and_gradient_norms_agree_however_batches_are_split() -> None:
    results = []
    for size in (1, 3, 4, 12):
        trainer = make_trainer(*splits(size, 12 // size))
        results.append([trainer.step(trainer.loader.batch(0, index)) for index in range(3)])
    for other in results[1:]:
        for ours, theirs in zip(results[0], other, strict=True):
            assert (ours.loss, ours.grad_norm) == pytest.approx((theirs.loss, theirs.grad_norm), rel=1e-4)


# --- runs -----------------------------------------------------------------------------------------------------------


def forbid_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.decisions.choose_batch_size", lambda *_: pytest.fail("searched again"))


@pytest.fixture
def six() -> None:
    """six.json: two sequences a batch; with three micro-batches from flags, six."""
    Path("six.json").write_text('{"training": {"batch_size": 2}}')


def flags_without_batch_size() -> list[str]:
    """TINY without its own batch size."""
    place = TINY.index("--batch_size")
    return [*TINY[:place], *TINY[place + 2 :]]


def test_checkpoint_and_config_file_hold_the_numbers_that_were_found(monkeypatch, six) -> None:
    enough_memory(monkeypatch, 5)
    flags = ["--config", "six.json", "--batch_size", "auto", f"--{ACCUMULATION}", "3", "--max_iters", "2"]
    outcome = train_plainly(*flags_without_batch_size(), *flags, "--save_config", "saved.json")
    assert outcome.code == 0 and "(2 x 3 sequences of 16)" in outcome.said
    state = state_of("models/mine_epoch1.pt")
    for values in (
        state["config"]["training"],
        json.loads(Path("models/mine_epoch1.config.json").read_text())["training"],
        json.loads(Path("saved.json").read_text())["training"],
    ):
        assert (values["batch_size"], values["gradient_accumulation_steps"]) == (3, 2)
    assert {BATCH_SIZE, ACCUMULATION} <= set(state["derived"])
    assert train(*splits(3, 2), "--max_iters", "2", "--output_checkpoint", "models/plain.pt").code == 0
    assert differences(state["model"], state_of("models/plain.pt")["model"]) == []


RESUMES: dict[str, list[str]] = {
    "plainly": [],
    "with auto again": ["--batch_size", "auto"],
    "with everything again": ["--config", "six.json", "--batch_size", "auto", f"--{ACCUMULATION}", "3"],
    "with a file that says auto": ["--config", "auto.json"],
    "with the numbers that were found": ["--batch_size", "3", f"--{ACCUMULATION}", "2"],
}


@pytest.mark.parametrize("how", RESUMES)
def test_a_resumed_run_keeps_its_split_and_does_not_search_again(monkeypatch, six, how: str) -> None:
    enough_memory(monkeypatch, 5)
    stop_after(monkeypatch, 2)
    Path("auto.json").write_text(
        '{"extends": "six.json", "training": {"batch_size": "auto", "gradient_accumulation_steps": 3}}'
    )
    train_plainly(*flags_without_batch_size(), "--config", "auto.json", "--max_iters", "4")
    stop_after(monkeypatch, None)
    assert train(*splits(3, 2), "--max_iters", "4", "--output_checkpoint", "models/plain.pt").code == 0
    forbid_search(monkeypatch)
    assert train_plainly("--resume", "models/mine_epoch1.pt", *RESUMES[how]).code == 0
    assert metrics_rows("models/mine_epoch1.metrics.jsonl") == metrics_rows("models/plain.metrics.jsonl")
    assert differences(state_of("models/mine_epoch1.pt")["model"], state_of("models/plain.pt")["model"]) == []


def test_a_file_with_auto_alone_means_the_same_when_the_run_is_resumed(monkeypatch) -> None:
    """The run has 12 (the default) x 3 = 36 sequences a batch. With the checkpoint's batch_size of 4 it would be 12."""
    Path("auto.json").write_text('{"training": {"batch_size": "auto", "gradient_accumulation_steps": 3}}')
    enough_memory(monkeypatch, 5)
    stop_after(monkeypatch, 1)
    train_plainly(*flags_without_batch_size(), "--config", "auto.json", "--max_iters", "2")
    stop_after(monkeypatch, None)
    assert state_of("models/mine_epoch1.pt")["config"]["training"]["batch_size"] == 4
    shown = train_plainly("--resume", "models/mine_epoch1.pt", "--config", "auto.json", "--show_config").said
    row = next(line.split() for line in shown.splitlines() if line.strip().startswith("batch_size"))
    assert row == ["batch_size", "4", "sequences", "checkpoint", "models/mine_epoch1.pt"]


def test_another_number_of_sequences_is_refused_and_allow_changes_searches_again(monkeypatch, six) -> None:
    enough_memory(monkeypatch, 5)
    stop_after(monkeypatch, 2)
    flags = ["--config", "six.json", "--batch_size", "auto", f"--{ACCUMULATION}", "3", "--max_iters", "4"]
    train_plainly(*flags_without_batch_size(), *flags)
    stop_after(monkeypatch, None)
    with pytest.raises(UserError, match=r"training\.batch_size 3 -> .*--allow_changes"):
        train_plainly("--resume", "models/mine_epoch1.pt", "--batch_size", "auto", f"--{ACCUMULATION}", "8")
    enough_memory(monkeypatch, 1)
    assert train_plainly("--resume", "models/mine_epoch1.pt", "--batch_size", "auto", "--allow_changes").code == 0
    training = state_of("models/mine_epoch1.pt")["config"]["training"]
    assert (training["batch_size"], training["gradient_accumulation_steps"]) == (1, 6)
    assert len(metrics_rows("models/mine_epoch1.metrics.jsonl")) == 4


def test_a_new_run_from_weights_searches_again(monkeypatch, six) -> None:
    train("--max_iters", "1")
    enough_memory(monkeypatch, 4)
    flags = [*SHAPE[:6], "--max_iters", "1", "--training.eval_iters", "1"]
    flags += ["--load_model_only", "models/mine_epoch1.pt", "--batch_size", "auto"]
    assert train_plainly(*flags, "--output_checkpoint", "models/n.pt").code == 0
    training = state_of("models/n.pt")["config"]["training"]
    assert (training["batch_size"], training["gradient_accumulation_steps"]) == (4, 3)
