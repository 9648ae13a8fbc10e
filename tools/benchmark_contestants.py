"""What tools/benchmark.py measures, each in a process of its own: Jojo, transformers, and plain PyTorch and numpy.

    python tools/benchmark_contestants.py NAME '{"argument": value}'

runs the command, or serves the worker, of that name (see COMMANDS and WORKERS). Each imports what it needs and no more,
because the time and the memory that this takes are measured too: that is why imports stand inside the functions.

Shape letters: B sequences, T tokens per sequence.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np

from utils import peak_memory_bytes

if TYPE_CHECKING:
    from benchmark_plain import Step
    from torch import Tensor

    from trainer import Trainer

TEXT_TOKENS = 50_256  # of GPT-2's vocabulary; random ids stay below
DATASET, VOCABULARY_FILE = "benchmark", "vocabulary.tiktoken"
PROMPT = "Once upon a time"  # of the first token that startup waits for
MANY = 1_000_000  # batches: a run that does not end while it is measured


@dataclass(frozen=True)
class Shape:
    """Of a model and its batches: what flags of tools/benchmark.py say."""

    layers: int
    heads: int
    width: int
    context: int
    batch: int
    vocabulary: int

    @property
    def tokens_per_batch(self) -> int:
        return self.batch * self.context

    def __str__(self) -> str:
        return (
            f"{self.layers} layers, {self.heads} heads, width {self.width}, context {self.context:,}, "
            f"vocabulary {self.vocabulary:,}"
        )


# --- training -------------------------------------------------------------------------------------------------------


def data_options(folder: Path) -> dict[str, Any]:
    """Jojo's options that name the data in the benchmark's folder."""
    own = folder / VOCABULARY_FILE
    return {
        "data.dataset_name": DATASET,
        "data.data_dir": str(folder / "data"),
        "data.cache_dir": str(folder / "cache"),
        "data.tokenizer": str(own) if own.exists() else "gpt2",
    }


def jojo_options(shape: Shape, folder: Path) -> dict[str, Any]:
    """Jojo's options of a run of this shape: with biases, as GPT-2 has them, in the dtype that Jojo chooses itself."""
    return {
        "model.n_layer": shape.layers,
        "model.n_head": shape.heads,
        "model.n_embd": shape.width,
        "model.block_size": shape.context,
        "model.vocab_size": shape.vocabulary,
        "model.bias": True,
        "training.batch_size": shape.batch,
        "training.compile_model": False,
        "system.device": "cpu",
    } | data_options(folder)


def jojo_trainer(shape: Shape, folder: Path) -> Trainer:
    """A Trainer before its first batch."""
    from run import Request, prepare_run
    from trainer import Trainer

    options = jojo_options(shape, folder) | {"training.max_iters": MANY}
    given = [(f"--{name}", name, value) for name, value in options.items()]
    return Trainer(prepare_run(Request(overrides=given, output=str(folder / "models" / "benchmark.pt"))))


def jojo_step(shape: Shape, dtype: str, folder: Path) -> Step:
    """The Trainer's own step; `dtype` is what it chose."""
    from data_loader import Batch

    trainer = jojo_trainer(shape, folder)
    assert trainer.run.dtype == dtype

    def step(inputs: np.ndarray, targets: np.ndarray) -> float:
        result = trainer.step(Batch(inputs[None], targets[None], targets.size))
        trainer.advance()
        return result.loss

    return step


def transformers_step(shape: Shape, dtype: str, folder: Path | None = None) -> Step:
    """GPT2LMHeadModel in the plain loop: in float32, or with its forward pass in bfloat16 autocast."""
    import torch
    from benchmark_plain import plain_loop

    model = transformers_model(shape)

    def loss_of(tokens: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
            return model(input_ids=tokens, labels=targets, shift_labels=targets).loss

    return plain_loop(model.train(), loss_of)


def transformers_model(shape: Shape) -> Any:
    """GPT2LMHeadModel with random weights, without dropout."""
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=shape.vocabulary, n_positions=shape.context, n_embd=shape.width, n_layer=shape.layers,
            n_head=shape.heads, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=None, eos_token_id=None,
        )
    )  # fmt: skip


def plain_step(shape: Shape, dtype: str, folder: Path | None = None) -> Step:
    """PlainGPT in the plain loop."""
    from benchmark_plain import PlainGPT, plain_loop

    model = PlainGPT(shape.layers, shape.heads, shape.width, shape.context, shape.vocabulary)
    return plain_loop(model, model.loss)


class Training:
    """Trains on random tokens, some timed batches at a time; every contestant is given the same ones."""

    STEPS: Mapping[str, Callable[[Shape, str, Path], Step]] = {
        "Jojo": jojo_step, "transformers": transformers_step, "plain PyTorch": plain_step,
    }  # fmt: skip

    def __init__(self, library: str, dtype: str, shape: Mapping[str, int], folder: str) -> None:
        import torch

        torch.manual_seed(0)
        self.shape = Shape(**shape)
        self.step = self.STEPS[library](self.shape, dtype, Path(folder))
        self.chance = np.random.default_rng(0)

    def run(self, batches: int) -> dict[str, Any]:
        """Train on so many batches; their seconds and losses, and the most memory of this process so far."""
        seconds, losses = [], []
        for _ in range(batches):
            high = min(self.shape.vocabulary, TEXT_TOKENS)
            tokens = self.chance.integers(0, high, (self.shape.batch, self.shape.context + 1))  # (B, T + 1)
            inputs, targets = tokens[:, :-1].copy(), tokens[:, 1:].copy()
            started = time.perf_counter()
            losses.append(self.step(inputs, targets))
            seconds.append(time.perf_counter() - started)
        return {"seconds": seconds, "losses": losses, "peak_memory_bytes": peak_memory_bytes()}


# --- loading --------------------------------------------------------------------------------------------------------


class JojoLoading:
    """Jojo's loader from the middle of an epoch on, and the steps it loads for."""

    def __init__(self, shape: Mapping[str, int], folder: str) -> None:
        self.trainer = jojo_trainer(Shape(**shape), Path(folder))
        self.trainer.position = self.trainer.run.batches_per_epoch // 2

    def run(self, batches: int) -> dict[str, Any]:
        """Seconds of loading each of so many batches, and of training on it."""
        trainer, load, step = self.trainer, [], []
        for _ in range(batches):
            started = time.perf_counter()
            batch = trainer.loader.batch(trainer.epoch, trainer.position)
            loaded = time.perf_counter()
            trainer.step(batch)
            trainer.advance()
            load.append(loaded - started)
            step.append(time.perf_counter() - loaded)
        return {"load_s": load, "step_s": step}


class PlainLoading:
    """The plain way: the file of ids mapped into memory, and windows of it anywhere."""

    def __init__(self, shape: Mapping[str, int], folder: str) -> None:
        self.shape, self.ids = Shape(**shape), mapped_ids(Path(folder))
        self.chance = np.random.default_rng(0)

    def batch(self) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets, int64 (B, T)."""
        T = self.shape.context
        starts = self.chance.integers(0, len(self.ids) - T, self.shape.batch)
        rows = np.stack([self.ids[start : start + T + 1] for start in starts]).astype(np.int64)  # (B, T + 1)
        return np.ascontiguousarray(rows[:, :-1]), np.ascontiguousarray(rows[:, 1:])

    def run(self, batches: int) -> dict[str, Any]:
        """Seconds of loading each of so many batches."""
        load = []
        for _ in range(batches):
            started = time.perf_counter()
            self.batch()
            load.append(time.perf_counter() - started)
        return {"load_s": load}


def mapped_ids(folder: Path) -> np.ndarray:
    """The ids of Jojo's token cache, which are stored as such a file stores them."""
    (path,) = (folder / "cache").glob(f"{DATASET}-train-*.bin")
    return np.memmap(path, dtype="<u2", mode="r")


# --- decoding -------------------------------------------------------------------------------------------------------


def random_weights(shape: Shape) -> Any:
    """Jojo's model with weights drawn from one seed: the same for all that decode."""
    import torch

    from config import ModelConfig
    from model import GPT

    torch.manual_seed(0)
    return GPT(
        ModelConfig(
            n_layer=shape.layers, n_head=shape.heads, n_embd=shape.width, block_size=shape.context, dropout=0.0,
            bias=True, vocab_size=shape.vocabulary,
        )
    ).eval()  # fmt: skip


class Stamps:
    """Notes when each token came. To transformers it is a streamer."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.tokens: list[int] = []

    def put(self, tokens: Tensor) -> None:
        """The next token, (1,); or first of all the prompt, (1, T)."""
        if tokens.dim() == 1:
            self.times.append(time.perf_counter())
            self.tokens.append(int(tokens[0]))

    def end(self) -> None:
        """All tokens have come."""


class Decoding:
    """Continues a prompt of random tokens with the likeliest ones, one sequence at a time."""

    def __init__(self, library: str, dtype: str, shape: Mapping[str, int]) -> None:
        import torch

        self.shape = Shape(**shape)
        model = random_weights(self.shape)
        if library == "transformers":
            from hf import turned

            theirs = transformers_model(self.shape).eval()
            theirs.load_state_dict(turned(model.state_dict()))
            self.model, self.continued = theirs.to(getattr(torch, dtype)), self._transformers
        else:
            from quantization import quantize

            self.model = quantize(model) if dtype == "int8" else model.to(getattr(torch, dtype))
            self.continued = self._jojo

    def run(self, prompt_tokens: int, new_tokens: int) -> dict[str, Any]:
        """Seconds to the first new token, mean seconds of each after it, and the tokens."""
        import torch

        chance = torch.Generator().manual_seed(prompt_tokens)
        prompt = torch.randint(min(self.shape.vocabulary, TEXT_TOKENS), (prompt_tokens,), generator=chance)
        stamps, started = Stamps(), time.perf_counter()
        self.continued(prompt, new_tokens, stamps)
        first, *rest = stamps.times
        assert len(rest) == new_tokens - 1
        per_token = (rest[-1] - first) / len(rest) if rest else None
        return {"prompt_s": first - started, "token_s": per_token, "tokens": stamps.tokens}

    def _jojo(self, prompt: Tensor, new_tokens: int, stamps: Stamps) -> None:
        import torch

        from generation import Sampling, generate

        for (token,) in generate(
            self.model, prompt.tolist(), max_tokens=new_tokens, sampling=Sampling(temperature=0)
        ):  # fmt: skip
            stamps.put(torch.tensor([token]))

    def _transformers(self, prompt: Tensor, new_tokens: int, stamps: Stamps) -> None:
        import torch

        self.model.generate(
            prompt[None], attention_mask=torch.ones_like(prompt)[None], max_new_tokens=new_tokens, do_sample=False,
            pad_token_id=0, streamer=stamps,
        )  # fmt: skip


# --- commands: they print when they are there -----------------------------------------------------------------------


def open_jojo(folder: str) -> None:
    """Open the token cache and read from it, as a run does."""
    from config import Config
    from data_loader import open_dataset
    from tokenizer import get_tokenizer

    values: dict[str, dict[str, Any]] = {"data": {}}
    for name, value in data_options(Path(folder)).items():
        values["data"][name.partition(".")[2]] = value
    config = Config.from_dict(values)
    train, _ = open_dataset(config, get_tokenizer(config.data.tokenizer), Path(config.data.cache_dir), 0)
    print("ready", len(train.tokens(0, 1)), flush=True)


def open_plain(folder: str) -> None:
    """Map the same file, and read from it."""
    print("ready", len(mapped_ids(Path(folder))[:1]), flush=True)


def first_batch_transformers(shape: Mapping[str, int], folder: str) -> None:
    """What train.py does up to its first batch, with transformers."""
    step = transformers_step(Shape(**shape), "float32")
    print(f"batch 1/1  loss {step(*PlainLoading(shape, folder).batch()):.4f}", flush=True)


def first_token_transformers(folder: str) -> None:
    """What gen.py does up to its first token, with transformers, of an exported model."""
    from transformers import AutoTokenizer, GPT2LMHeadModel

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = GPT2LMHeadModel.from_pretrained(folder)
    ids = model.generate(**tokenizer(PROMPT, return_tensors="pt"), max_new_tokens=1, do_sample=True)
    print(PROMPT + repr(tokenizer.decode(ids[0, -1:])), flush=True)


WORKERS: dict[str, Callable[..., Any]] = {
    "training": Training, "jojo_loading": JojoLoading, "plain_loading": PlainLoading, "decoding": Decoding,
}  # fmt: skip
COMMANDS: dict[str, Callable[..., None]] = {
    command.__name__: command for command in (open_jojo, open_plain, first_batch_transformers, first_token_transformers)
}


def serve(name: str, arguments: Mapping[str, Any], requests: Iterable[str]) -> None:
    """Answer requests, a line of JSON each, the first answer saying that it is ready; all other output goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = WORKERS[name](**arguments)
    print("{}", file=answers, flush=True)
    for request in requests:
        print(json.dumps(worker.run(**json.loads(request))), file=answers, flush=True)


def main(name: str, arguments: str) -> None:
    """Run the command, or serve the worker."""
    values = json.loads(arguments)
    if name in COMMANDS:
        COMMANDS[name](**values)
    else:
        serve(name, values, sys.stdin)


if __name__ == "__main__":
    main(*sys.argv[1:])
