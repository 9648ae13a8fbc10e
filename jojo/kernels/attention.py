"""Causal attention: PyTorch's kernels, and our own for bfloat16 on a CPU, which is twice as fast there.

`scaled_dot_product_attention` never holds all T x T scores, on any device. But its CPU kernel multiplies in float32, and
leaves bfloat16 instructions unused. BlockedAttention multiplies in bfloat16, and never holds all scores either. It takes
QUERY_ROWS queries at a time with the keys up to the last of them, so most scores that the causal mask hides are never
computed. It takes a few heads at a time, so their scores stay in the processor's cache. The backward pass computes the
scores again instead of keeping them (Dao et al. 2022, "FlashAttention").

The plain reference, which the tests compare with, is one line:

    torch.softmax(q @ k.mT / sqrt(D) + mask, -1) @ v        mask: -inf above the diagonal

Keys and values may have fewer heads than queries (Ainslie et al. 2023, "GQA"): G query heads in a row share theirs.

Shape letters: B batch, H query heads, K key/value heads, G = H / K, T time (tokens), S cached and new tokens, D head size,
N = B * K, R queries at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

QUERY_ROWS = 128  # R: fewer make small, slow products; more compute more scores that the mask hides
CACHE_BYTES = 4 << 20  # of scores at once: they fit into a processor's cache


def causal_attention(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0, seen: Tensor | None = None) -> Tensor:
    """For every position, a mean of the values up to its own, weighted by how well its query fits their keys.

    Args:
        q: (B, H, T, D), queries of the last T tokens; the result has their shape.
        k: (B, K, S, D), keys of all S >= T tokens so far; K divides H.
        v: (B, K, S, D), their values.
        dropout: probability that a weight is zeroed.
        seen: (B, 1, 1, S), for T = 1: which keys each row's token sees, as 0 or -inf; None: all.
    """
    (B, H, T, D), (K, S) = q.shape, k.shape[1:3]
    if T == 1:  # the queries that share keys take the place of T
        q_of_k = q.reshape(B, K, H // K, D)
        return F.scaled_dot_product_attention(q_of_k, k, v, attn_mask=seen, dropout_p=dropout).reshape(q.shape)
    if T < S:  # new token i sees the S - T cached tokens, and the new tokens up to i
        causal = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=causal, dropout_p=dropout, enable_gqa=H > K)
    if q.device.type == "cpu" and q.dtype is torch.bfloat16 and not torch.compiler.is_compiling():
        return BlockedAttention.apply(q, k, v, dropout)  # type: ignore[no-untyped-call]
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout, enable_gqa=H > K)


@lru_cache(maxsize=4)
def causal_mask(T: int, dtype: torch.dtype) -> Tensor:
    """(T, T): -inf where a query (row) would see a later key (column), else 0."""
    return torch.full((T, T), -torch.inf, dtype=dtype).triu_(1)


def pieces(q: Tensor) -> Iterator[tuple[slice, slice, slice]]:
    """(heads, queries, keys) that are computed together, for q (N, G, T, D)."""
    N, G, T, _ = q.shape
    rows = min(T, QUERY_ROWS)
    heads = max(1, CACHE_BYTES // (G * rows * T * q.element_size()))
    for row in range(0, T, rows):
        end = min(row + rows, T)
        for head in range(0, N, heads):
            yield slice(head, head + heads), slice(row, end), slice(0, end)


def attention_weights(q: Tensor, k: Tensor, mask: Tensor) -> Tensor:
    """Softmax of the scores, (heads, G R, keys), of q (heads, G R, D), k (heads, keys, D) and a mask (R, keys)."""
    mask = mask if len(mask) == q.size(1) else mask.repeat(q.size(1) // len(mask), 1)
    scores = torch.baddbmm(mask, q, k.mT, alpha=1 / math.sqrt(q.size(-1)))
    return torch.softmax(scores, -1, out=scores)


class Dropout:
    """Which attention weights stay, piece after piece; the same seed gives the same ones again in the backward pass.

    PyTorch's own dropout takes 6 ns per weight for its random numbers; 16 random bits take 1 ns.
    """

    def __init__(self, probability: float, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.lowest = round(probability * 2**16) - 2**15  # of the 16-bit numbers that stay
        self.gain = 1 / (1 - probability)

    def zero(self, *weights: Tensor) -> None:
        """Zero the same random elements in each of these tensors of one shape."""
        n = weights[0].numel()
        bits = torch.empty(-(-n // 4), dtype=torch.int64).random_(-(2**63), None, generator=self.generator)
        stays = (bits.view(torch.int16)[:n] >= self.lowest).view(weights[0].shape)
        for tensor in weights:
            tensor.mul_(stays)


class BlockedAttention(torch.autograd.Function):
    """Causal attention in bfloat16 on a CPU, as the top of this file explains it."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        (B, H, T, D), K, ctx.shapes = q.shape, k.size(1), (q.shape, k.shape)
        q = q.reshape(B * K, H // K, T, D).contiguous()
        k, v = (part.flatten(0, 1).contiguous() for part in (k, v))  # (N, T, D)
        y, mask = torch.empty_like(q), causal_mask(T, q.dtype)
        ctx.dropout = (dropout, int(torch.randint(2**62, ()))) if dropout else None
        drop = Dropout(*ctx.dropout) if ctx.dropout else None
        for heads, rows, keys in pieces(q):
            queries = q[heads, :, rows].flatten(1, 2)  # (heads, G R, D)
            p = attention_weights(queries, k[heads, keys], mask[rows, keys])
            if drop:
                drop.zero(p)
            y[heads, :, rows] = (p @ v[heads, keys]).view(y[heads, :, rows].shape)
        if drop:
            y.mul_(drop.gain)
        ctx.save_for_backward(q, k, v, y)
        return y.view(ctx.shapes[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, y = ctx.saved_tensors  # (N, G, T, D), and k and v (N, T, D)
        grad_y, mask = grad_y.reshape(q.shape), causal_mask(q.size(2), q.dtype)
        grad_q = torch.empty_like(q)
        grad_k, grad_v = torch.zeros_like(k, dtype=torch.float32), torch.zeros_like(v, dtype=torch.float32)
        drop = Dropout(*ctx.dropout) if ctx.dropout else None
        gain = drop.gain if drop else 1.0  # applied at the end
        # Softmax's backward pass subtracts, in each row, the mean of the gradients, weighted by the row's weights p.
        mean = (grad_y.float() * y).sum(-1, keepdim=True).div_(gain).to(q.dtype)  # (N, G, T, 1)
        for heads, rows, keys in pieces(q):
            queries, g, m = (part[heads, :, rows].flatten(1, 2) for part in (q, grad_y, mean))
            p = attention_weights(queries, k[heads, keys], mask[rows, keys])
            grad_p = g @ v[heads, keys].mT
            dropped = p
            if drop:
                drop.zero(dropped := p.clone(), grad_p)
            grad_v[heads, keys] += dropped.mT @ g
            grad_scores = grad_p.sub_(m).mul_(p)
            grad_q[heads, :, rows] = (grad_scores @ k[heads, keys]).view(grad_q[heads, :, rows].shape)
            grad_k[heads, keys] += grad_scores.mT @ queries
        scale = gain / math.sqrt(q.size(-1))
        grads = grad_q.mul_(scale), grad_k.mul_(scale).to(k.dtype), grad_v.mul_(gain).to(v.dtype)
        (queries_shape, keys_shape) = ctx.shapes
        return grads[0].view(queries_shape), grads[1].view(keys_shape), grads[2].view(keys_shape), None
