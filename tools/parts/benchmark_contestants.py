"""What tools/benchmark.py measures in separate processes: Jojo, transformers, and plain PyTorch and numpy.

    python tools/parts/benchmark_contestants.py NAME '{"argument": value}'

This runs the command of that name, or starts the worker of that name, which reads requests and writes answers, each a line of
JSON. A worker is a function that answers requests; `training`, `loading` and `decoding` prepare one
and return it.

Imports are inside the functions, because the time and memory that they cost are measured too.

Shape letters: B sequences, T tokens per sequence.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from model import GPT
    from tools.parts.benchmark_plain import Step
    from training.run import Run

T = TypeVar("T")
Worker = Callable[..., dict[str, Any]]
VOCABULARY = 50_304  # rows of the embedding: GPT-2's tokens, padded
TEXT_TOKENS = 50_256  # random ids are below this
DATASET = "benchmark"
PLAIN_LOADER = "plain numpy.memmap"
PROMPT = "Once upon a time"  # start-up ends when the first token after this prompt is printed
MANY = 1_000_000  # batches: so many that the run does not end while it is measured


@dataclass(frozen=True)
class Shape:
    """Shape of a model and its batches."""

    layers: int
    heads: int
    width: int
    context: int
    batch: int

    def __str__(self) -> str:
        return f"{self.layers} layers, {self.heads} heads, width {self.width}, context {self.context:,}"


def timed(call: Callable[[], T]) -> tuple[float, T]:
    """Seconds that a call takes, and its result."""
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


# --- training -------------------------------------------------------------------------------------------------------


def train_flags(shape: Shape, folder: Path) -> list[str]:
    """Flags of train.py for a run of this shape on the folder's data, with biases and without dropout."""
    options = {
        "model.n_layer": shape.layers, "model.n_head": shape.heads, "model.n_embd": shape.width,
        "model.block_size": shape.context, "model.vocab_size": VOCABULARY, "model.bias": "true", "model.dropout": 0,
        "training.batch_size": shape.batch, "training.gradient_accumulation_steps": 1,
        "training.compile_model": "false", "system.device": "cpu",
        "data.dataset_name": DATASET, "data.data_dir": folder / "data", "data.cache_dir": folder / "cache",
    }  # fmt: skip
    return [f"--{name}={value}" for name, value in options.items()]


def jojo_run(shape: Shape, folder: Path, dtype: str = "auto") -> Run:
    """Prepare a run; if its token cache is missing, it is made."""
    from tools.parts.runs import measured_request
    from training.run import prepare_run

    flags = [*train_flags(shape, folder), f"--training.max_iters={MANY}", f"--dtype={dtype}"]
    return prepare_run(measured_request(flags, folder))


def jojo_step(shape: Shape, dtype: str, folder: Path) -> Step:
    """The Trainer's own step."""
    from data_loader import Batch
    from trainer import Trainer

    trainer = Trainer(jojo_run(shape, folder, dtype))

    def step(inputs: np.ndarray, targets: np.ndarray) -> float:
        result = trainer.step(trainer.loader.send(Batch(inputs[None], targets[None], targets.size)))
        trainer.advance()
        return result.loss

    return step


def transformers_step(shape: Shape, dtype: str, folder: Path) -> Step:
    """GPT2LMHeadModel in the plain loop, in float32 or with bfloat16 autocast, as in Jojo."""
    import torch

    from tools.parts.benchmark_plain import plain_loop

    model = transformers_model(shape)

    def loss_of(tokens: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
            return model(input_ids=tokens, labels=targets, shift_labels=targets, use_cache=False).loss

    return plain_loop(model.train(), loss_of)


def transformers_model(shape: Shape) -> Any:
    """GPT2LMHeadModel with random weights, set up to be as fast as possible.

    The default activation, "gelu_new", computes the same as "gelu_pytorch_tanh" in many slow operations. Training uses
    use_cache=False, because the cache copies all keys and values.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=shape.context, n_embd=shape.width, n_layer=shape.layers, n_head=shape.heads,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=None, eos_token_id=None,
        activation_function="gelu_pytorch_tanh",
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def plain_step(shape: Shape, dtype: str, folder: Path) -> Step:
    """PlainGPT in the plain loop."""
    from tools.parts.benchmark_plain import PlainGPT, plain_loop

    model = PlainGPT(shape.layers, shape.heads, shape.width, shape.context, VOCABULARY)
    return plain_loop(model, model.loss)


STEPS: dict[str, Callable[[Shape, str, Path], Step]] = {
    "Jojo": jojo_step, "transformers": transformers_step, "plain PyTorch": plain_step,
}  # fmt: skip


def training(label: str, shape: Mapping[str, int], folder: str) -> Worker:
    """A worker that trains on random tokens, the same for every contestant, and times each batch."""
    import torch

    from jojo.machine.device import peak_memory_bytes

    torch.manual_seed(0)
    library, _, dtype = label.rpartition(" ")
    step = STEPS[library](Shape(**shape), dtype, Path(folder))
    chance, size = np.random.default_rng(0), (shape["batch"], shape["context"] + 1)

    def run(batches: int) -> dict[str, Any]:
        seconds, losses = [], []
        for _ in range(batches):
            tokens = chance.integers(0, TEXT_TOKENS, size)  # (B, T + 1)
            spent, loss = timed(partial(step, tokens[:, :-1].copy(), tokens[:, 1:].copy()))
            seconds.append(spent)
            losses.append(loss)
        return {"seconds": seconds, "losses": losses, "peak_memory_bytes": peak_memory_bytes("cpu")}

    return run


# --- loading --------------------------------------------------------------------------------------------------------


def mapped_ids(folder: Path) -> np.ndarray:
    """The ids of Jojo's token cache, mapped into memory; the file is a plain array."""
    (path,) = (folder / "cache").glob(f"{DATASET}-train-*.bin")
    return np.memmap(path, dtype="<u2", mode="r")


def windows(ids: np.ndarray, shape: Shape, chance: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A batch of random windows in plain NumPy: inputs and targets, int64 (B, T)."""
    starts = chance.integers(0, len(ids) - shape.context, shape.batch)
    rows = np.stack([ids[start : start + shape.context + 1] for start in starts]).astype(np.int64)  # (B, T + 1)
    return np.ascontiguousarray(rows[:, :-1]), np.ascontiguousarray(rows[:, 1:])


def loading(label: str, shape: Mapping[str, int], folder: str) -> Worker:
    """A worker that loads batches alternately with Jojo's loader (from mid-epoch on) and plainly, and trains on each."""
    from data_loader import Batch, DeviceBatch
    from trainer import Trainer

    trainer = Trainer(jojo_run(Shape(**shape), Path(folder)))
    trainer.position = trainer.run.plan.batches_per_epoch // 2
    chance, ids = np.random.default_rng(0), mapped_ids(Path(folder))

    def plain_batch() -> DeviceBatch:
        inputs, targets = windows(ids, Shape(**shape), chance)
        return trainer.loader.send(Batch(inputs[None], targets[None], targets.size))

    def run(batches: int) -> dict[str, Any]:
        load_s: dict[str, list[float]] = {"Jojo": [], PLAIN_LOADER: []}
        step_s = []
        for _ in range(batches):
            jojo_batch = partial(trainer.loader.batch, trainer.epoch, trainer.position)
            makers: list[tuple[str, Callable[[], DeviceBatch]]] = [("Jojo", jojo_batch), (PLAIN_LOADER, plain_batch)]
            for name, make in makers:
                seconds, batch = timed(make)
                load_s[name].append(seconds)
                step_s.append(timed(partial(trainer.step, batch))[0])
            trainer.advance()
        return {"load_s": load_s, "step_s": step_s}

    return run


# --- decoding -------------------------------------------------------------------------------------------------------


class Stamps:
    """Records the time of each decoded token. transformers uses it as a streamer."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.tokens: list[int] = []  # of the first sample

    def put(self, tokens: Tensor) -> None:
        """Take the next token of every sample, (B,). The first call has the prompts, (B, T), which are ignored."""
        if tokens.dim() == 1:
            self.times.append(time.perf_counter())
            self.tokens.append(int(tokens[0]))

    def end(self) -> None:
        """Do nothing; transformers calls this after the last token."""


def random_model(shape: Shape) -> GPT:
    """Jojo's model with random weights from a fixed seed, so that all contestants decode with the same ones."""
    import torch

    from config import ModelConfig
    from model import GPT

    torch.manual_seed(0)
    config = ModelConfig(
        n_layer=shape.layers, n_head=shape.heads, n_embd=shape.width, block_size=shape.context, dropout=0.0, bias=True,
        vocab_size=VOCABULARY,
    )  # fmt: skip
    return GPT(config).eval()


def transformers_decoder(shape: Shape, dtype: str) -> Callable[[Tensor, int, Stamps], None]:
    """A function that decodes with GPT2LMHeadModel.generate()."""
    import torch

    from hf.families import GPT2

    model = transformers_model(shape).eval()
    source = random_model(shape)
    model.load_state_dict(
        GPT2.write_weights(source.state_dict(), source.config), strict=False
    )  # the output layer is tied
    model.to(getattr(torch, dtype))

    def decode(prompts: Tensor, new_tokens: int, stamps: Stamps) -> None:
        model.generate(
            prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=new_tokens, do_sample=False,
            pad_token_id=0, streamer=stamps,
        )  # fmt: skip

    return decode


def jojo_decoder(shape: Shape, dtype: str) -> Callable[[Tensor, int, Stamps], None]:
    """A function that decodes with Jojo's generate()."""
    import torch

    from generation import Sampling, generate
    from jojo.kernels.int8 import quantize

    model, greedy = random_model(shape), Sampling(temperature=0)
    model = quantize(model) if dtype == "int8" else model.to(getattr(torch, dtype))

    def decode(prompts: Tensor, new_tokens: int, stamps: Stamps) -> None:
        prompt = prompts[0].tolist()
        for tokens in generate(model, prompt, max_tokens=new_tokens, sampling=greedy, num_samples=len(prompts)):
            stamps.put(torch.tensor(tokens))

    return decode


def decoding(label: str, shape: Mapping[str, int], folder: str) -> Worker:
    """A worker that continues a random prompt with the likeliest tokens, in one sample or several at once."""
    import torch

    library, _, dtype = label.rpartition(" ")
    decode = (jojo_decoder if library == "Jojo" else transformers_decoder)(Shape(**shape), dtype)

    def run(prompt_tokens: int, new_tokens: int, samples: int = 1) -> dict[str, Any]:
        """Seconds to the first new token, mean seconds of each step after it, and the first sample's new tokens."""
        chance = torch.Generator().manual_seed(prompt_tokens)
        prompts = torch.randint(TEXT_TOKENS, (prompt_tokens,), generator=chance).expand(samples, -1)  # (B, T)
        stamps, started = Stamps(), time.perf_counter()
        decode(prompts, new_tokens, stamps)
        first, *rest = stamps.times
        assert len(rest) == new_tokens - 1
        return {"prompt_s": first - started, "step_s": (rest[-1] - first) / len(rest), "tokens": stamps.tokens}

    return run


# --- commands that print when they are done -----------------------------------------------------------------------


def first_batch(shape: Mapping[str, int], folder: str) -> None:
    """Do what train.py does up to its first batch, with transformers and plain batches."""
    step = transformers_step(Shape(**shape), "float32", Path(folder))
    batch = windows(mapped_ids(Path(folder)), Shape(**shape), np.random.default_rng(0))
    print(f"batch 1/1  loss {step(*batch):.4f}", flush=True)


def first_token(folder: str) -> None:
    """Do what gen.py does up to its first token, with transformers and an exported model."""
    from transformers import AutoTokenizer, GPT2LMHeadModel

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = GPT2LMHeadModel.from_pretrained(folder)
    ids = model.generate(**tokenizer(PROMPT, return_tensors="pt"), max_new_tokens=1, do_sample=True)
    print(PROMPT + repr(tokenizer.decode(ids[0, -1:])), flush=True)


WORKERS: dict[str, Callable[..., Worker]] = {"training": training, "loading": loading, "decoding": decoding}
COMMANDS: dict[str, Callable[..., None]] = {"first_batch": first_batch, "first_token": first_token}


if __name__ == "__main__":
    _, name, values = sys.argv
    if name in COMMANDS:
        COMMANDS[name](**json.loads(values))
        sys.exit()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # all other output goes to stderr
    answer = WORKERS[name](**json.loads(values))
    for request in sys.stdin:
        print(json.dumps(answer(**json.loads(request))), file=answers, flush=True)
