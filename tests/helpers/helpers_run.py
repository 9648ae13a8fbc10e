"""Tiny runs for the tests: a model, a data set of a few sentences, and train.py called in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_data import log_listener, write_lines

import train as train_script
import trainer
from config import ModelConfig
from jojo import plotting
from jojo.checkpoints import file as checkpoint_file
from jojo.checkpoints.checkpoint import checkpoint_tokenizer, load_checkpoint, load_weights
from jojo.machine import estimate
from jojo.stopping import Shutdown
from model import GPT
from training.flags import Request, build_parser, read_request
from training.run import Run, prepare_run

TINY = [  # with a vocabulary of 3,025 tokens, a batch costs a fifth of one with GPT-2's
    *("--dataset", "mine", "--device", "cpu", "--dtype", "float32", "--data.tokenizer", "story"),
    *("--model.n_layer", "1", "--model.n_head", "2", "--model.n_embd", "16", "--model.block_size", "16"),
    *("--batch_size", "2", "--learning_rate", "0.01", "--training.eval_iters", "2", "--log_interval", "0"),
]

QWEN3 = ("--model.architecture", "qwen3", "--model.n_kv_head", "1", "--model.tie_embeddings", "false")
both_architectures = pytest.mark.parametrize("family", [(), QWEN3], ids=["gpt2", "qwen3"])  # flags

CLOCK = {"elapsed_s", "tokens_per_s", "samples_per_s", "mfu", "peak_memory_bytes", "timestamp"}  # differ between runs

ANIMALS = ["fox", "hen", "bear", "mouse", "owl", "goat", "swan", "wolf"]
PLACES = ["hill", "well", "mill", "barn", "lake", "wood", "road", "gate"]
THINGS = ["a red hat", "some bread", "an old key", "a silver bell", "two plums", "a letter"]


def sentences(n: int, first: int = 0) -> list[str]:
    """n different short documents of uneven length, the same every time."""
    documents = []
    for i in range(first, first + n):
        animal, place = ANIMALS[i % 8], PLACES[(i // 8 + i) % 8]
        text = f"Number {i}: the {animal} went to the {place} and found {THINGS[i % 6]}."
        documents.append(text + f" Then the {animal} slept." * (i % 3))
    return documents


def write_data(name: str = "mine", n_train: int = 14, n_val: int = 6, folder: str | Path = "data") -> None:
    """Write data/<name>-train.jsonl and -val.jsonl, as prepare.py would."""
    texts = sentences(n_train + n_val)
    for split, part in (("train", texts[:n_train]), ("val", texts[n_train:])):
        write_lines(Path(folder) / f"{name}-{split}.jsonl", [{"text": text} for text in part])


def settle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plots: bool = False) -> None:
    """Work in tmp_path with a small data set, without slow steps that other tests cover."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    monkeypatch.setattr(estimate, "measure_cpu_peak_flops", lambda dtype: 1e11)
    if not plots:
        monkeypatch.setattr(plotting.PlotManager, "draw", lambda self, metrics, milestone=None: None)
    write_data()


@contextmanager
def listening() -> Iterator[list[str]]:
    """Collect what the project logs in this block, at INFO and above."""
    said: list[str] = []
    with log_listener(lambda record: said.append(record.getMessage())):
        yield said


@dataclass
class Outcome:
    """How train.py ended: its exit code and what it logged."""

    code: int
    said: str


def train(*flags: str) -> Outcome:
    """Run train.py with the tiny model's flags and these."""
    return train_plainly(*TINY, *flags)


def train_plainly(*flags: str) -> Outcome:
    """Run train.py with these flags only, as somebody would to resume."""
    with listening() as said:
        code = train_script.main(list(flags))
    return Outcome(code, "\n".join(said))


def request_of(*flags: str) -> Request:
    """The Request that train.py would make from these flags."""
    return read_request(build_parser().parse_args(flags), list(flags))


def make_run(*flags: str) -> Run:
    """The Run that train.py would make from the tiny model's flags and these."""
    return prepare_run(request_of(*TINY, *flags))


def make_trainer(*flags: str) -> trainer.Trainer:
    """A Trainer before its first batch."""
    return trainer.Trainer(make_run(*flags))


def stop_after(monkeypatch: pytest.MonkeyPatch, batch: int | None, signal_number: int = 2) -> None:
    """From now on every run gets a signal during this batch; None: no more signals."""
    current: list[Shutdown] = []

    class Watched(Shutdown):
        def __enter__(self) -> Shutdown:
            current[:] = [self]
            return super().__enter__()

    plain_step = STEP

    def step(self: trainer.Trainer, data: Any) -> trainer.StepResult:
        result = plain_step(self, data)
        if batch is not None and self.batches_done + 1 == batch:
            current[0].signal_number = signal_number
        return result

    monkeypatch.setattr(trainer, "Shutdown", Watched)
    monkeypatch.setattr(trainer.Trainer, "step", step)


STEP = trainer.Trainer.step


def state_of(path: str | Path) -> dict[str, Any]:
    """The contents of a checkpoint."""
    return checkpoint_file.read_file(Path(path))


def model_of(path: str | Path) -> GPT:
    """The model of a checkpoint."""
    checkpoint = load_checkpoint(Path(path))
    model = GPT(ModelConfig(**checkpoint.config["model"]), checkpoint_tokenizer(checkpoint).n_vocab)
    load_weights(model, checkpoint)
    return model


def save_as_2x(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint of this version in the layout of 2.x."""
    names = list(state["model"])[:-1]  # the last one is tied to the first
    order = [n for n in names if state["model"][n].dim() > 1] + [n for n in names if state["model"][n].dim() == 1]
    old = {name: state[name] for name in ("model", "config", "epoch", "batch_counter", "best_val_loss")}
    old["optimizer"] = {"state": {i: state["optimizer"][name] for i, name in enumerate(order)}}
    torch.save(old | {"metadata": {"trainer_version": "2.0.1"}}, path)


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """Places where two nested states differ, bit for bit, without values that depend on the clock."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return [] if a.dtype == b.dtype and torch.equal(a, b) else [where]
    if isinstance(a, dict) and isinstance(b, dict):
        names = sorted({*a, *b} - CLOCK, key=str)
        return [d for n in names for d in differences(a.get(n), b.get(n), f"{where}.{n}")]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        return [d for i, (x, y) in enumerate(zip(a, b, strict=True)) for d in differences(x, y, f"{where}[{i}]")]
    return [] if type(a) is type(b) and a == b else [where]


def metrics_rows(path: str | Path, clock: bool = False) -> list[dict[str, Any]]:
    """Rows of a metrics file, by default without values that depend on the clock."""
    rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    return rows if clock else [{k: v for k, v in row.items() if k not in CLOCK} for row in rows]


def snapshot(folder: str | Path) -> dict[str, bytes]:
    """Every file below a folder and its contents, without the empty files that locks leave behind."""
    root = Path(folder)
    files = [p for p in sorted(root.rglob("*")) if p.is_file() and p.suffix != ".lock"]
    return {str(p.relative_to(root)): p.read_bytes() for p in files}
