"""Text from a model: sampling, the decoding loop, loading a model, and the prompts of a conversation.

Decoding gives the same tokens with and without a KV cache. With learned positions the cache cannot slide. When the context is
full, the window restarts from its newest half, which is read again from position 0. This happens only once every
block_size / 2 tokens, so the time per token stays about constant.

Shape letters: B samples decoded together, V tokens of the vocabulary.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from config import Config
from jojo.checkpoints.checkpoint import Checkpoint, checkpoint_tokenizer, load_checkpoint, load_weights
from jojo.kernels.int8 import quantize
from jojo.networks.common import KVCache
from jojo.text.tokenizer import IM_END, Message, Tokenizer
from model import GPT
from utils import UserError

NOT_FINITE = "The model's logits are not finite numbers; use an earlier checkpoint, or --dtype float32."
LOWEST_TEMPERATURE = 1e-6  # below this, take the likeliest token: dividing by the temperature would overflow


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn. Raises UserError for values out of range."""

    temperature: float = 0.7  # 0 = always the likeliest token; 1 = the model's own probabilities
    top_k: int = 50  # draw from the k likeliest tokens; 0 = off
    top_p: float = 1.0  # draw from the likeliest tokens with this total probability (Holtzman et al. 2020); 1 = off
    repetition_penalty: float = 1.0  # above 1: tokens of the context are less likely (Keskar et al. 2019); 1 = off

    def __post_init__(self) -> None:
        penalty = self.repetition_penalty
        for fits, flag, value, rule in (
            (0 <= self.temperature < math.inf, "temp", self.temperature, "0 (greedy) or more"),  # refuses NaN too
            (self.top_k >= 0, "top_k", self.top_k, "0 (off) or more"),
            (0 < self.top_p <= 1, "top_p", self.top_p, "above 0 and at most 1 (off)"),
            (0.01 <= penalty <= 100, "repetition_penalty", penalty, "from 0.01 to 100 (1 = off)"),
        ):
            if not fits:
                raise UserError(f"--{flag} must be {rule}, not {value:g}.")


def choose(logits: Tensor, context: Tensor, sampling: Sampling, generator: torch.Generator | None = None) -> Tensor:
    """The next token of each sample, int64 (B,) on the CPU: drawn from its candidates."""
    p, ids = candidates(logits, context, sampling)
    return ids.gather(1, torch.multinomial(p, 1, generator=generator)).squeeze(1)


def candidates(logits: Tensor, context: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """The tokens that may be drawn, with their probabilities: float32 and int64 (B, n) on the CPU.

    `logits`, (B, V), are on any device. The CPU computes, in float32, so a seed means the same on every device.
    `context`, int64 (B, n), has the tokens that the repetition penalty applies to. Raises UserError if a logit is NaN or infinite.
    """
    logits = logits.float().cpu()
    if sampling.repetition_penalty != 1:
        seen = logits.gather(1, context)
        penalty = sampling.repetition_penalty
        logits = logits.scatter(1, context, torch.where(seen > 0, seen / penalty, seen * penalty))
    if not all(map(math.isfinite, logits.aminmax())):  # both are NaN if a logit is NaN
        raise UserError(NOT_FINITE)
    if sampling.temperature < LOWEST_TEMPERATURE:
        return torch.ones(len(logits), 1), logits.argmax(dim=-1, keepdim=True)
    logits = (logits - logits.amax(-1, keepdim=True)) / sampling.temperature  # the largest is 0: exp cannot overflow
    ids = torch.arange(logits.size(1)).expand_as(logits)
    if 0 < sampling.top_k < logits.size(1):
        logits, ids = logits.topk(sampling.top_k)
    elif sampling.top_p < 1:
        logits, ids = logits.sort(descending=True)
    p = logits.softmax(-1)
    if sampling.top_p < 1:
        beyond = p.cumsum(-1) - p >= sampling.top_p  # the tokens before this one already reach top_p
        beyond[:, 0] = False  # the likeliest token always stays
        p = p.masked_fill(beyond, 0)
    return p, ids


def cache_dtype(model: GPT) -> torch.dtype:
    """The dtype of a model's keys and values: on a CPU, PyTorch's attention of a single query is fastest in float32."""
    return torch.float32 if model.device.type == "cpu" else model.transformer.wte.weight.dtype


@torch.no_grad()
def generate(
    model: GPT,
    prompt: Sequence[int],
    *,
    max_tokens: int,
    sampling: Sampling | None = None,
    stop: Collection[int] = (),
    num_samples: int = 1,
    generator: torch.Generator | None = None,
    use_cache: bool = True,
    agree: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[list[int | None]]:
    """Continue a prompt. Yields one list per step: the next id of each sample, None for samples that have ended.

    The model must be in eval mode. Ids in `stop` end a sample and are not yielded. Without `use_cache`, every step reads the
    whole window again. `agree` makes all processes that decode together choose the same tokens; it takes and returns int64
    (num_samples,).
    """
    assert prompt, "a prompt needs at least one token"
    sampling = sampling or Sampling()
    block_size = model.config.block_size
    window = torch.tensor([list(prompt)] * num_samples, device=model.device)  # (B, n)
    cache = KVCache(model.config, num_samples, model.device, cache_dtype(model)) if use_cache else None
    running = [True] * num_samples
    for _ in range(max_tokens):
        if window.size(1) > block_size:
            window = window[:, -max(1, block_size // 2) :]
            if cache:
                cache.length = 0
        fresh = window[:, cache.length :] if cache else window
        chosen = choose(model.next_logits(fresh, cache), window.cpu(), sampling, generator)
        chosen = agree(chosen) if agree else chosen
        tokens = chosen.tolist()
        running = [going and token not in stop for going, token in zip(running, tokens, strict=True)]
        if not any(running):
            return
        yield [token if going else None for going, token in zip(running, tokens, strict=True)]
        window = torch.cat([window, chosen.to(window.device).unsqueeze(1)], dim=1)


def sample_texts(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    max_tokens: int,
    seed: int,
    agree: Callable[[Tensor], Tensor] | None = None,
    chat: bool = False,
) -> list[dict[str, str]]:
    """What the model writes after each prompt: [{"prompt": ..., "text": ...}, ...]. `agree` is that of generate().

    With `chat`, a prompt is the first turn of a conversation and the text answers it.
    The text after prompt number n is drawn with seed + n, so the same weights write the same texts.
    """
    model.eval()
    samples, stop = [], set(tokenizer.special_tokens.values())
    for number, prompt in enumerate(prompts):
        ids, generator = [tokenizer.eot_id, *tokenizer.encode(prompt)], torch.Generator().manual_seed(seed + number)
        if chat:
            ids, _ = chat_prompt(tokenizer, [{"role": "user", "content": prompt}], model.config.block_size)
        steps = generate(model, ids, max_tokens=max_tokens, stop=stop, generator=generator, agree=agree)
        samples.append({"prompt": prompt, "text": tokenizer.decode(t for (t,) in steps if t is not None)})
    return samples


def load_model(
    path: Path | Checkpoint, device: str = "cpu", dtype: str = "float32", chatml: bool = True
) -> tuple[GPT, Tokenizer, Checkpoint]:
    """A model in eval mode that can generate text, its tokenizer, and its checkpoint.

    With the dtype int8, the linear layers are int8 and the rest is bfloat16. Without `chatml`, its tokens are never sampled.
    """
    checkpoint = path if isinstance(path, Checkpoint) else load_checkpoint(path)
    tokenizer = checkpoint_tokenizer(checkpoint)
    tokenizer = tokenizer if chatml else tokenizer.with_chatml(False)
    model = model_of(checkpoint, tokenizer).to(device).eval()
    model = quantize(model) if dtype == "int8" else model.to(getattr(torch, dtype))
    return model, tokenizer, checkpoint


def model_of(checkpoint: Checkpoint, tokenizer: Tokenizer) -> GPT:
    """A checkpoint's model with its weights. Raises UserError if config, weights and tokenizer do not fit together."""
    path = checkpoint.path
    config = Config.from_dict({"model": checkpoint.config.get("model", {})}, str(path)).model
    if config.vocab_size is None:
        config.vocab_size = tokenizer.padded_vocab_size
    if config.vocab_size < tokenizer.n_vocab:
        raise UserError(
            f"The model in '{path}' has {config.vocab_size} tokens, but its tokenizer has {tokenizer.n_vocab}; "
            "Jojo does not have the tokenizer that the model was trained with."
        )
    model = GPT(config, tokenizer.n_vocab)
    load_weights(model, checkpoint)
    return model


@torch.no_grad()
def ends_turns(model: GPT, tokenizer: Tokenizer) -> bool:
    """Whether the end of a turn is among the likeliest tenth of tokens after an answer: without conversations it is rare."""
    prompt, end = chat_prompt(tokenizer, [{"role": "user", "content": "Hello"}], 0)[0], tokenizer.special_tokens[IM_END]
    for answer in ("Hello.", "Hello! How can I help you?"):
        answered = [*prompt, *tokenizer.encode(answer)][-model.config.block_size :]
        logits = model.next_logits(torch.tensor([answered], device=model.device))[0]
        if int((logits >= logits[end]).sum()) <= model.n_vocab // 10:
            return True
    return False


def room_for_prompt(block_size: int, max_tokens: int) -> int:
    """How many tokens of the context a conversation may take; the rest is for an answer of max_tokens."""
    return max(block_size // 2, block_size - max_tokens)


def chat_prompt(tokenizer: Tokenizer, messages: Sequence[Message], room: int) -> tuple[list[int], int]:
    """The ids of a conversation, ready for the assistant's turn, and how many messages were left out.

    The oldest messages are left out until the ids fit into `room`. The system message and the last message always stay.
    """
    system = [m for m in messages[:1] if m["role"] == "system"]
    turns = messages[len(system) :]
    encoded = [tokenizer.encode_chat([turn]) for turn in turns]
    before, after = [tokenizer.eot_id, *tokenizer.encode_chat(system)], tokenizer.open_turn("assistant")
    dropped, size = 0, len(before) + sum(map(len, encoded)) + len(after)
    while dropped < len(turns) - 1 and (size > room or (dropped and turns[dropped]["role"] != "user")):
        size -= len(encoded[dropped])  # the first turn must not be an answer
        dropped += 1
    return [*before, *itertools.chain(*encoded[dropped:]), *after], dropped
