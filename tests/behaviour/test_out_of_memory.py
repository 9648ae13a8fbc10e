"""Tests of a run that does not fit into memory: it says which flags to change, and keeps its files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from filelock import FileLock
from helpers_cli import kept_log, run_train
from helpers_run import TINY, make_run, settle, snapshot, state_of, train_plainly
from helpers_run import train as train_tiny

import train
import trainer as trainer_module
from jojo.machine import device as devices
from model import GPT
from utils import UserError, is_out_of_memory

ERRORS = {
    "CUDA": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ..."),
    "a library of CUDA's": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "another": RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "Windows": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: not enough memory: you tried to allocate 4 bytes."
    ),
    "small things on a CPU": RuntimeError("std::bad_alloc"),
    "a CPU": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you "
    ),
    "Apple": RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB, other allocations: 384.00 KB)"),
    "Python": MemoryError(),
}


@pytest.fixture(autouse=True)
def folder_with_data(tmp_path, monkeypatch):
    settle(tmp_path, monkeypatch)
    monkeypatch.setattr(devices, "available_memory_bytes", lambda: 3_000_000_000)
    for module in ("training.summary", "jojo.machine.device"):
        monkeypatch.setattr(f"{module}.total_memory_bytes", lambda device: 12_000_000_000)


def full_at(monkeypatch: pytest.MonkeyPatch, number: int, error: BaseException = ERRORS["a CPU"]) -> None:
    """Raises `error` in the forward pass with targets of this number, counted from 1."""
    plain, calls = GPT.forward, []

    def forward(self, tokens, targets=None):
        calls.append(1)
        if len(calls) == number:
            raise error
        return plain(self, tokens, targets)

    monkeypatch.setattr(GPT, "forward", forward)


# --- the message ----------------------------------------------------------------------------------------------------


def message(*flags: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        train_tiny(*flags)
    return str(caught.value).splitlines()


@pytest.mark.parametrize("kind", ERRORS)
def test_every_kind_of_out_of_memory_error_is_explained(monkeypatch, kind: str) -> None:
    assert is_out_of_memory(ERRORS[kind])
    full_at(monkeypatch, 1, ERRORS[kind])
    lines = message("--batch_size", "12", "--max_iters", "2")
    assert lines == [
        "Out of memory on cpu (9.0 GB of 12.0 GB in use). To use less:",
        "  - --batch_size 6 --training.gradient_accumulation_steps 2: as many tokens per batch",
        "  - --batch_size auto: the same, in the largest micro-batches that fit",
        "  - --training.activation_checkpointing true: slower, with the same result",
    ]


@pytest.mark.parametrize(
    ("size", "accumulation", "advice"),
    [("7", "4", (2, 14)), ("7", "1", (1, 7)), ("12", "4", (6, 8)), ("2", "1", (1, 2)), ("9", "2", (3, 6))],
)
def test_the_suggested_batch_size_is_at_most_half_with_as_many_tokens(monkeypatch, size, accumulation, advice) -> None:
    full_at(monkeypatch, 1)
    lines = message("--batch_size", size, "--training.gradient_accumulation_steps", accumulation, "--max_iters", "2")
    wanted = f"--batch_size {advice[0]} --training.gradient_accumulation_steps {advice[1]}:"
    assert wanted in lines[1] and advice[0] * advice[1] == int(size) * int(accumulation)


def test_at_batch_size_1_a_smaller_run_is_suggested(monkeypatch) -> None:
    full_at(monkeypatch, 1)
    assert message("--batch_size", "1", "--max_iters", "2")[1:] == [
        "  - --training.activation_checkpointing true: slower, with the same result",
        "  - a new run with a shorter context (--model.block_size 8) or a smaller model",
    ]


def test_options_that_are_already_set_are_not_suggested(monkeypatch) -> None:
    monkeypatch.setattr("training.decisions.choose_batch_size", lambda *_: (6, "made up"))
    full_at(monkeypatch, 1)
    flags = ["--training.gradient_accumulation_steps", "12", "--training.activation_checkpointing", "true"]
    place = TINY.index("--batch_size")
    with pytest.raises(UserError) as caught:
        train_plainly(*TINY[:place], *TINY[place + 2 :], "--batch_size", "auto", *flags, "--max_iters", "2")
    assert str(caught.value).splitlines()[1:] == [
        "  - --batch_size 3 --training.gradient_accumulation_steps 48: as many tokens per batch"
    ]


def test_other_errors_are_raised_unchanged(monkeypatch) -> None:
    full_at(monkeypatch, 1, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        train_tiny("--max_iters", "2")
    assert not is_out_of_memory(ValueError("out of memory")) and not is_out_of_memory(RuntimeError("a bug"))


# --- after the error ------------------------------------------------------------------------------------------------


def test_out_of_memory_gives_an_exit_code_and_a_log_entry_without_a_traceback(monkeypatch, capsys) -> None:
    full_at(monkeypatch, 1)
    outcome = run_train(capsys, *TINY, "--max_iters", "3")
    assert outcome.code == 1
    assert outcome.err.startswith("error: Out of memory on cpu") and "Traceback" not in outcome.err
    assert "Out of memory on cpu (9.0 GB" in Path("train.log").read_text(encoding="utf-8")
    assert "--resume" not in outcome.err  # there is no checkpoint to resume from


def test_after_out_of_memory_checkpoints_stay_the_lock_is_free_and_the_run_can_resume(monkeypatch, capsys) -> None:
    """After batch 2 a checkpoint is written; at batch 4 memory is full."""
    flags = ("--max_iters", "6", "--training.checkpoint_minutes", "0", "--train_batches", "2")
    train_tiny(*flags, "--epochs", "3", "--output_checkpoint", "models/whole.pt")
    with monkeypatch.context() as patch:
        full_at(patch, 4)
        outcome = run_train(capsys, *TINY, *flags, "--epochs", "3", "--output_checkpoint", "models/x.pt")
    assert outcome.code == 1
    assert "--resume models/x.pt continues after batch 3 (add --allow_changes for another --batch_size)." in outcome.err
    with FileLock("models/.x.lock").acquire(timeout=0):
        pass
    state = state_of("models/x.pt")
    assert state["batch_counter"] == 3
    before = snapshot("models")
    with monkeypatch.context() as patch:
        full_at(patch, 1)
        assert run_train(capsys, "--resume", "models/x.pt").code == 1
    assert snapshot("models")["x.pt"] == before["x.pt"]
    split = ("--batch_size", "1", "--training.gradient_accumulation_steps", "2", "--allow_changes")
    with kept_log():
        assert train.main(["--resume", "models/x.pt", *split]) == 0
    assert state_of("models/x.pt")["batch_counter"] == 6


def test_the_checkpoint_of_another_run_is_not_suggested(monkeypatch) -> None:
    """Memory is full before the first batch, while the checkpoint of that name is still an earlier run's."""
    train_tiny("--max_iters", "2")

    def full(*_: object) -> None:
        raise ERRORS["CUDA"]

    monkeypatch.setattr(trainer_module, "make_optimizers", full)
    lines = message("--max_iters", "2")
    assert lines[0].startswith("Out of memory on cpu") and not any("--resume" in line for line in lines)


def test_out_of_memory_is_not_reported_as_a_compiler_failure(monkeypatch) -> None:
    class Full(torch.nn.Module):
        def compile(self) -> None: ...

        def forward(self, x: torch.Tensor, rotation: None) -> torch.Tensor:
            raise ERRORS["CUDA"]

    model = trainer_module.build_model(make_run())
    model.transformer.h = torch.nn.ModuleList([Full()])
    with pytest.raises(torch.OutOfMemoryError):
        trainer_module.compile_blocks(model, 2, "cpu", "float32")


def test_the_message_leaves_out_the_memory_in_use_if_it_is_not_known(monkeypatch) -> None:
    full_at(monkeypatch, 1)
    monkeypatch.setattr(devices, "available_memory_bytes", lambda: None)
    assert message("--max_iters", "1")[0] == "Out of memory on cpu. To use less:"
