"""The output layer and its loss in one: cross-entropy of `hidden @ weight.T` without ever holding all the logits.

With GPT-2's vocabulary, the logits of a small batch (3,072 tokens x 50,304 words) are 618 MB in float32, and a plain
loss touches them five times. Here they exist for a few rows at a time. The gradient is worked out in the same pass, as
softmax minus one-hot, while those rows are still in the processor's cache; `backward` only scales it.

The plain reference, which the tests compare with, is one line:

    F.cross_entropy(hidden @ weight.T, targets, ignore_index=-1, reduction="sum")

Shape letters: N predicted positions, C channels, V vocabulary rows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

GROUP_ROWS = 1024  # rows of logit gradients kept for one pair of large matrix products
CACHE_BYTES = 16 << 20  # float32 logits handled at once on a CPU: about what its last-level cache holds
FLOAT16_GAIN = 1024.0  # keeps probabilities of 1e-5 above float16's smallest numbers


def compute_dtype(hidden: Tensor) -> torch.dtype:
    """The dtype matrix products run in: autocast's where it is on, else the input's own."""
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype


def _rows_at_once(hidden: Tensor, vocab_size: int) -> int:
    return max(8, CACHE_BYTES // (4 * vocab_size)) if hidden.device.type == "cpu" else GROUP_ROWS


def _log_probabilities(hidden: Tensor, weight: Tensor, n_vocab: int) -> Tensor:
    """float32 (rows, V); rows of the vocabulary from n_vocab on are padding and get probability 0."""
    logits = hidden @ weight.T
    logits[:, n_vocab:] = -torch.inf
    return torch.log_softmax(logits, dim=-1, dtype=torch.float32)


class LinearCrossEntropy(torch.autograd.Function):
    """Summed loss of all positions; see the module's first lines."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, n_vocab: int, dtype: torch.dtype) -> Tensor:
        h, w = hidden.to(dtype), weight.to(dtype)  # (N, C), (V, C)
        counted = (targets >= 0).unsqueeze(1)  # (N, 1)
        labels = targets.clamp_min(0).unsqueeze(1)  # (N, 1)
        gain = FLOAT16_GAIN if dtype is torch.float16 else 1.0
        loss = torch.zeros((), device=h.device, dtype=torch.float32)
        grad_hidden = torch.empty(h.shape, device=h.device, dtype=torch.float32)
        grad_weight = torch.zeros(w.shape, device=h.device, dtype=torch.float32)
        rows = _rows_at_once(h, len(w))
        with torch.autocast(h.device.type, enabled=False):
            for group in range(0, len(h), GROUP_ROWS):
                here = slice(group, min(group + GROUP_ROWS, len(h)))
                grad_logits = torch.empty(here.stop - group, len(w), device=h.device, dtype=dtype)
                for first in range(group, here.stop, rows):
                    part = slice(first, min(first + rows, here.stop))
                    log_p = _log_probabilities(h[part], w, n_vocab)
                    loss -= (log_p.gather(1, labels[part]) * counted[part]).sum()
                    p = log_p.exp_()
                    p.scatter_add_(1, labels[part], p.new_full((len(p), 1), -1.0))
                    grad_logits[first - group : part.stop - group] = p if gain == 1.0 else p.mul_(gain)
                grad_hidden[here] = (grad_logits @ w).float() * counted[here]
                # Divided before the product: a frequent word's sum over the group would overflow float16.
                grad_weight += grad_logits.T @ (h[here] * counted[here] / gain)
        if gain != 1.0:
            grad_hidden = grad_hidden / gain
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.dtypes = hidden.dtype, weight.dtype
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        hidden_dtype, weight_dtype = ctx.dtypes
        return (grad_hidden * grad_loss).to(hidden_dtype), (grad_weight * grad_loss).to(weight_dtype), None, None, None


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, n_vocab: int) -> Tensor:
    """Sum over positions of -log softmax(hidden @ weight.T)[target], in nats.

    Args:
        hidden: (N, C), the final hidden states.
        weight: (V, C), the output layer.
        targets: (N,) int64; -1 is not predicted.
        n_vocab: rows of `weight` that are tokens; those beyond are padding, left out of the softmax.

    Returns:
        float32 scalar, differentiable in hidden and weight (once: there is no second derivative).
    """
    return LinearCrossEntropy.apply(hidden, weight, targets, n_vocab, compute_dtype(hidden))  # type: ignore[no-untyped-call]


@torch.no_grad()
def token_losses(hidden: Tensor, weight: Tensor, targets: Tensor, n_vocab: int) -> Tensor:
    """The same loss for each position by itself, 0 where the target is -1; float32 (N,). For evaluation."""
    dtype = compute_dtype(hidden)
    h, w = hidden.to(dtype), weight.to(dtype)
    losses = torch.zeros(len(h), device=h.device, dtype=torch.float32)
    rows = _rows_at_once(h, len(w))
    with torch.autocast(h.device.type, enabled=False):
        for first in range(0, len(h), rows):
            part = slice(first, first + rows)
            log_p = _log_probabilities(h[part], w, n_vocab)
            losses[part] = -log_p.gather(1, targets[part].clamp_min(0).unsqueeze(1)).squeeze(1)
    return losses * (targets >= 0)
