"""A real llama.cpp (the package xllamacpp) that loads a GGUF file and is compared with the model."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generation import chat_prompt
from hf.parity import GREEDY_TOKENS, HARD_STRINGS, MESSAGES, fixed_prompts
from jojo.text.tokenizer import Tokenizer
from model import GPT
from utils import UserError, one_line

SCRIPT = Path(__file__).with_name("llama_process.py")
LIKELY = 10.0  # nats below the likeliest token: what is less likely is not compared
TOLERANCE = {"f16": 0.05, "bf16": 0.3, "q8_0": 1.0}  # nats; llama.cpp rounds weights and activations (docs/engines.md)


def require_llama() -> None:
    """Raises UserError if xllamacpp is not installed."""
    if not find_spec("xllamacpp"):
        how = "python -m pip install -r requirements-export.txt, or --no_check of export.py to write the file without"
        raise UserError(f"A real llama.cpp checks the file, by the package xllamacpp: {how}.")


class Llama:
    """llama.cpp with a file loaded, as a context manager. Raises UserError if it cannot load the file."""

    def __init__(self, path: Path, context: int) -> None:
        command = [sys.executable, str(SCRIPT), str(path), str(context)]
        pipe = subprocess.PIPE
        self.errors, self.connection = tempfile.TemporaryFile(), http.client.HTTPConnection("")
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self.errors)  # noqa: S603

    def __enter__(self) -> Llama:
        assert self.process.stdout
        address = self.process.stdout.readline().decode().strip()
        if not address:
            reason = self.reason()
            self.__exit__()
            raise UserError(f"llama.cpp cannot load the new file ({reason}); it was not kept.")
        self.connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=600)
        return self

    def __exit__(self, *error: object) -> None:
        assert self.process.stdin and self.process.stdout
        self.connection.close()
        self.process.stdin.close()
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.errors.close()

    def reason(self) -> str:
        """What llama.cpp printed about its failure, in one line."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=10)
        self.process.kill()  # it may still run, if it did not answer
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").splitlines() or ["it printed nothing"]
        return one_line(next((line for line in lines if "error" in line), lines[-1]), 200)

    def ask(self, path: str, **request: Any) -> Any:
        """The server's answer to a request."""
        try:
            self.connection.request("POST", path, json.dumps(request), {"Content-Type": "application/json"})
            answer = self.connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            raise UserError(f"llama.cpp ended while it used the new file ({self.reason()}); it was not kept.") from None
        if answer.status != 200:
            raise UserError(f"llama.cpp refused a request: {one_line(content.decode(errors='replace'), 200)}")
        return json.loads(content)

    def tokens(self, text: str, is_prompt: bool = False) -> list[int]:
        """The ids of plain text, or of a prompt with control tokens, which gets the first token of every text."""
        answer = self.ask("/tokenize", content=text, add_special=is_prompt, parse_special=is_prompt)
        return list(answer["tokens"])

    def prompt(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """The ids of a conversation, by the file's chat template."""
        return self.tokens(self.ask("/apply-template", messages=list(messages))["prompt"], is_prompt=True)

    def log_probabilities(self, ids: Sequence[int], n_vocab: int) -> Tensor:
        """The log-probability of every token after these ids, float32 (V,)."""
        # The server shows nothing if the chosen token is half a character or ends a text, so another one is chosen.
        bias = [[self.tokens(".")[0], 1e4]]
        request = {"prompt": list(ids), "n_predict": 1, "temperature": 0, "n_probs": n_vocab, "logit_bias": bias}
        answer = self.ask("/completion", **request)  # the probabilities are those without the bias
        result = torch.full((n_vocab,), -torch.inf)
        for token in answer["completion_probabilities"][0]["top_logprobs"]:
            result[token["id"]] = token["logprob"]
        return result

    def greedy(self, ids: Sequence[int], most: int) -> list[int]:
        """The likeliest continuation, of at most so many ids; it may end earlier."""
        answer = self.ask("/completion", prompt=list(ids), n_predict=most, temperature=0, return_tokens=True)
        return list(answer["tokens"])


def check_with_llama(model: GPT, tokenizer: Tokenizer, path: Path, dtype: str) -> None:
    """Compare a file, as llama.cpp runs it, with the model: ids of texts and chats, probabilities, greedy text.

    The model must be in float32 and in eval mode. Raises UserError for the first difference.
    """
    room = model.config.block_size - 1  # llama.cpp leaves place for one more token
    prompts = [prompt[:room] for prompt in fixed_prompts(model, tokenizer)]
    with Llama(path, model.config.block_size) as llama:
        compare_ids(tokenizer, llama)
        for prompt in prompts:
            difference = largest_difference(model, llama, prompt)
            if not difference <= TOLERANCE[dtype]:  # also for NaN
                what = f"The probabilities differ by {difference:.2g} nats (at most {TOLERANCE[dtype]:g})"
                raise UserError(f"{what} after a prompt of {len(prompt)} tokens; the file was not kept.")
        for prompt in prompts[:2]:
            written = llama.greedy(prompt, min(GREEDY_TOKENS, room - len(prompt)))
            if written and (gap := worst_choice(model, prompt, written)) > TOLERANCE[dtype]:
                raise UserError(f"Greedy text has a token {gap:.2g} nats below the likeliest; the file was not kept.")


def compare_ids(tokenizer: Tokenizer, llama: Llama) -> None:
    """Compare the ids of difficult texts and conversations. Raises UserError for the first difference."""
    for text in HARD_STRINGS:
        if llama.tokens(text) != tokenizer.encode(text):
            raise UserError(f"llama.cpp encodes {text[:40]!r} to other ids; the file was not kept.")
    for messages in MESSAGES if tokenizer.has_chatml else ():
        if llama.prompt(messages) != chat_prompt(tokenizer, messages, room=1 << 30)[0]:
            last = messages[-1]["content"]
            raise UserError(f"llama.cpp's chat template renders {last!r} to other ids; the file was not kept.")


@torch.no_grad()
def largest_difference(model: GPT, llama: Llama, prompt: list[int]) -> float:
    """The largest difference of the log-probabilities of the next token, in nats, among the likely ones."""
    ours = model(torch.tensor([prompt]))[0, -1, : model.n_vocab].log_softmax(-1)  # (V,)
    theirs = llama.log_probabilities(prompt, model.n_vocab)
    likely = ours > ours.max() - LIKELY
    return (ours - theirs)[likely].abs().max().item()


@torch.no_grad()
def worst_choice(model: GPT, prompt: list[int], written: list[int]) -> float:
    """How many nats a token of a continuation is below the likeliest one, at most."""
    logits = model(torch.tensor([prompt + written]))[0, len(prompt) - 1 : -1, : model.n_vocab]  # (T, V)
    gaps = logits.max(-1).values - logits.gather(1, torch.tensor(written)[:, None])[:, 0]
    return gaps.max().item()
