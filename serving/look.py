"""What the page shows of a model: how likely each token of a text is, and what a head attends to.

Shape letters: T tokens, C channels, H heads, K key/value heads, D head size, V vocabulary.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch

from jojo.kernels.attention import attention_weights, causal_mask
from jojo.networks.common import CausalAttention
from jojo.text.tokenizer import Tokenizer
from model import GPT, Block

LOGIT_ROWS = 128  # tokens whose logits are in memory at the same time


def named(tokenizer: Tokenizer, token: int) -> dict[str, Any]:
    """A token's id and text; control tokens by name."""
    return {"id": token, "text": tokenizer.decode([token], show_control=True)}


@torch.no_grad()
def token_probabilities(model: GPT, tokenizer: Tokenizer, ids: list[int], n_top: int) -> dict[str, Any]:
    """Each token of `ids` with its log-probability (nats), its rank (1 = the likeliest) and the `n_top` likeliest at its place.

    The first token has none of these. Also the mean loss in nats, and the loss in bits per byte of text.
    """
    tokens = [named(tokenizer, ids[0]) | {"logprob": None, "rank": None, "top": []}]
    hidden = model.transformer(torch.tensor([ids], device=model.device))[0, :-1]  # (T - 1, C)
    following, loss = torch.tensor(ids[1:], dtype=torch.int64), 0.0
    for rows, targets in zip(*(torch.split(part, LOGIT_ROWS) for part in (hidden, following)), strict=True):
        logprobs = model.lm_head(rows)[:, : model.n_vocab].float().cpu().log_softmax(-1)  # (rows, V)
        own = logprobs.gather(1, targets.unsqueeze(1))  # (rows, 1)
        top_values, top_ids = logprobs.topk(min(n_top, model.n_vocab))
        columns = (targets, own.squeeze(1), (logprobs > own).sum(1), top_ids, top_values)
        for token, logprob, n_likelier, likeliest, values in zip(*(column.tolist() for column in columns), strict=True):
            top = [named(tokenizer, i) | {"logprob": value} for i, value in zip(likeliest, values, strict=True)]
            tokens.append(named(tokenizer, token) | {"logprob": logprob, "rank": n_likelier + 1, "top": top})
            loss -= logprob
    n_bytes = sum(len(tokenizer.token_bytes(i)) for i in ids[1:])
    bits_per_byte = loss / math.log(2) / n_bytes if n_bytes else None
    return {"tokens": tokens, "loss": loss / (len(ids) - 1) if ids[1:] else None, "bits_per_byte": bits_per_byte}


@torch.no_grad()
def attention(model: GPT, tokenizer: Tokenizer, ids: list[int], layer: int, head: int) -> dict[str, Any]:
    """How much each token attends to those up to itself, in one head: row i has i + 1 weights, with the sum 1."""
    part = cast(CausalAttention, cast(Block, model.transformer.h[layer]).attn)
    inputs: list[Any] = []
    hook = part.register_forward_pre_hook(lambda _module, given: inputs.extend(given))
    try:
        model.transformer(torch.tensor([ids], device=model.device))
    finally:
        hook.remove()
    q, k, _ = (heads[0].float().cpu() for heads in part.heads(*inputs[:2]))  # (H, T, D), and k (K, T, D)
    of_keys = head * len(k) // len(q)
    weights = attention_weights(q[head, None], k[of_keys, None], causal_mask(len(ids), torch.float32))
    rows = weights[0].tolist()
    return {"tokens": [named(tokenizer, i) for i in ids], "weights": [row[: i + 1] for i, row in enumerate(rows)]}
