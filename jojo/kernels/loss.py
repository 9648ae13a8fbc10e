"""The output layer and its loss as one operation: cross-entropy of `hidden @ weight.T`, without holding all logits.

With GPT-2's vocabulary, the logits of a small batch (3,072 tokens x 50,304 rows) are 618 MB in float32, and a plain
loss touches them five times. Here they exist for GROUP_ROWS positions at a time, in the dtype of the matrix products. They
turn into their own gradient (softmax minus one-hot) in place, a few rows at a time, so that the float32 softmax stays in the
processor's cache. The gradients are complete after the forward pass; `backward` only scales them. A GPU takes larger
pieces (GPU_...), because every piece costs a dozen small operations and a pass over the weight's gradient.

The plain reference, which the tests compare with, is one line:

    F.cross_entropy(hidden @ weight.T, targets, ignore_index=-1, reduction="sum")

Shape letters: N predicted positions, C channels, V vocabulary rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

GROUP_ROWS = 512  # positions whose logits exist together: large matrix products, little memory
GROUP_WORDS = 4096  # vocabulary rows of the weight's gradient that are updated at a time
CACHE_BYTES = 4 << 20  # of float32 probabilities at once on a CPU: they stay in its cache
GPU_GROUP_ROWS = 2048  # GROUP_ROWS on a GPU: 206 MB of logits with GPT-2's vocabulary in 16 bits
GPU_ROWS = 512  # rows that go through the softmax together on a GPU: a block of threads each, enough to fill it
FLOAT16_GAIN = 1024.0  # keeps probabilities of 1e-5 above float16's smallest numbers


def compute_dtype(hidden: Tensor) -> torch.dtype:
    """The dtype of matrix products: autocast's if it is on, else the input's."""
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype


def _slices(length: int, size: int) -> Iterator[slice]:
    """0 .. length in slices of `size`."""
    return (slice(first, first + size) for first in range(0, length, size))


def _on_cpu(tensor: Tensor) -> bool:  # a function, so that tests can try a GPU's pieces on a CPU
    return tensor.device.type == "cpu"


def _buffers(hidden: Tensor, V: int) -> tuple[Tensor, Tensor]:
    """Two buffers (rows, V): for the logits of a group, and in float32 for the rows that the softmax takes together."""
    few = _on_cpu(hidden) or hidden.dtype is torch.float16  # float16: a sum over many rows could overflow
    rows = max(1, min(len(hidden), GROUP_ROWS if few else GPU_GROUP_ROWS))
    softmax_rows = min(rows, max(8, CACHE_BYTES // (4 * V)) if _on_cpu(hidden) else GPU_ROWS)
    return hidden.new_empty(rows, V), hidden.new_empty(softmax_rows, V, dtype=torch.float32)


def _softmax(logits: Tensor, labels: Tensor, n_vocab: int, buffer: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities (rows, V) and the labels' log-probabilities (rows, 1), float32; padding gets probability 0.

    Both need one exponential per logit: the largest probability p and its logit z give the normaliser, z - log p.
    `buffer` is float32 (rows or more, V). On a CPU the probabilities replace the logits in it, so they stay in the cache.
    """
    logits[:, n_vocab:] = -torch.inf
    z = buffer[: len(logits)].copy_(logits)
    largest, label = z.amax(-1, keepdim=True), z.gather(1, labels)
    p = torch.softmax(z, dim=-1, out=z if _on_cpu(z) else torch.empty_like(z))
    return p, label - (largest - p.amax(-1, keepdim=True).log())


class LinearCrossEntropy(torch.autograd.Function):
    """The summed loss of all positions; the top of this file explains it."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, n_vocab: int, dtype: torch.dtype) -> Tensor:
        counted = (targets >= 0).unsqueeze(1)  # (N, 1)
        labels = targets.clamp_min(0).unsqueeze(1)  # (N, 1)
        gain = FLOAT16_GAIN if dtype is torch.float16 else 1.0
        loss = torch.zeros((), device=hidden.device, dtype=torch.float32)
        grad_hidden = torch.empty_like(hidden, dtype=torch.float32)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32)
        # Tensors that are freed together are allocated together: they leave one large piece for the gradients to come.
        h, w = hidden.to(dtype), weight.to(dtype)  # (N, C), (V, C)
        buffer, softmax_buffer = _buffers(h, len(w))
        words_together = min(len(w), GROUP_WORDS) if _on_cpu(h) else len(w)
        product = h.new_empty(words_together, h.size(1)), grad_weight.new_empty(words_together, h.size(1))
        with torch.autocast(h.device.type, enabled=False):
            for group in _slices(len(h), len(buffer)):
                logits = torch.mm(h[group], w.T, out=buffer[: len(h[group])])
                for part in _slices(len(logits), len(softmax_buffer)):
                    p, log_p = _softmax(logits[part], labels[group][part], n_vocab, softmax_buffer)
                    loss -= (log_p * counted[group][part]).sum()
                    p.scatter_add_(1, labels[group][part], p.new_full((len(p), 1), -1.0))
                    logits[part] = p if gain == 1.0 else p.mul_(gain)
                grad_logits = logits
                grad_hidden[group] = (grad_logits @ w).float() * (counted[group] / gain)
                # Divided before the product, because a frequent token's sum over the group would overflow float16.
                h_group = h[group] * counted[group] / gain
                for words in _slices(len(w), words_together):
                    n = len(w[words])
                    torch.mm(grad_logits[:, words].T, h_group, out=product[0][:n])
                    grad_weight[words] += product[1][:n].copy_(product[0][:n])
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.dtypes = hidden.dtype, weight.dtype
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        hidden_dtype, weight_dtype = ctx.dtypes
        grad_hidden.mul_(grad_loss)  # in place: autograd refuses a second backward pass
        grad_weight.mul_(grad_loss)
        return grad_hidden.to(hidden_dtype), grad_weight.to(weight_dtype), None, None, None


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, n_vocab: int) -> Tensor:
    """Sum over positions of -log softmax(hidden @ weight.T)[target], in nats: float32, differentiable once.

    Args:
        hidden: (N, C), the final hidden states.
        weight: (V, C), the output layer.
        targets: (N,) int64; -1 is not predicted.
        n_vocab: rows of `weight` that are tokens; the rows after them are padding, left out of the softmax.
    """
    return LinearCrossEntropy.apply(hidden, weight, targets, n_vocab, compute_dtype(hidden))  # type: ignore[no-untyped-call]


@torch.no_grad()
def token_losses(hidden: Tensor, weight: Tensor, targets: Tensor, n_vocab: int) -> Tensor:
    """The loss of each position, 0 where the target is -1; float32 (N,). For evaluation."""
    dtype = compute_dtype(hidden)
    h, w = hidden.to(dtype), weight.to(dtype)
    labels = targets.clamp_min(0).unsqueeze(1)  # (N, 1)
    losses = torch.zeros(len(h), device=h.device, dtype=torch.float32)
    buffer, softmax_buffer = _buffers(h, len(w))
    with torch.autocast(h.device.type, enabled=False):
        for group in _slices(len(h), len(buffer)):
            logits = torch.mm(h[group], w.T, out=buffer[: len(h[group])])
            for part in _slices(len(logits), len(softmax_buffer)):
                _, log_p = _softmax(logits[part], labels[group][part], n_vocab, softmax_buffer)
                losses[group][part] = -log_p.squeeze(1)
    return losses * (targets >= 0)
