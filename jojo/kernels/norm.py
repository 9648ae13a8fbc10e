"""RMSNorm, alone and together with rotary positions.

On a CPU, PyTorch has no kernel for RMSNorm. Autograd's backward pass would take a dozen passes over memory, so both operations
have one of their own. LayerNorm's kernel does most of its work: given a mean of zero, it computes the gradient of RMSNorm minus
one term, which is added afterwards.

The plain references, which the tests compare with:

    F.rms_norm(x, (C,), weight, eps)
    torch.cat([a * cos - b * sin, b * cos + a * sin], -1)       a, b: the halves of F.rms_norm(x, (D,), weight, eps)

Shape letters: B batch, T time (tokens), C channels, H heads, D head size, N rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# For each position the cosines of the angles, twice, and their sines, first negative, then positive: float32 (T, D) each.
# A pair of channels (x[i], x[i + D / 2]) turns by an angle: x * cosines + (x with its halves swapped) * sines.
Rotation = tuple[Tensor, Tensor]


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Returns x / sqrt(mean(x²) + eps) * weight, with means over the last dimension, (..., C)."""
    weight = weight.to(x.dtype)  # fsdp gathers weights in bfloat16
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.rms_norm(x, weight.shape, weight, eps)
    if torch.is_grad_enabled():
        return RmsNorm.apply(x, weight, eps)  # type: ignore[no-untyped-call]
    return (x * _scale(x, eps)).mul_(weight).to(x.dtype)


def rotated_norms(
    x: Tensor, heads: Sequence[int], weights: Sequence[Tensor], eps: float, rotation: Rotation
) -> Sequence[Tensor]:
    """Queries and keys, (B, H, T, D) each: each head normalized in float32, then rotated by its position.

    x (B, T, heads, D) holds the heads of both; `heads` says how many each has, and `weights` (D,) are those of their norms. The
    result is in the dtype of x; without gradients, in float32.
    """
    weights = [weight.float() for weight in weights]
    if torch.is_grad_enabled():
        on_cpu = x.device.type == "cpu" and not torch.compiler.is_compiling()
        rotated_norm = RotatedNorm.apply if on_cpu else _rotated_norm
        parts = zip(x.split_with_sizes(heads, 2), weights, strict=True)
        return [rotated_norm(part, weight, eps, *rotation) for part, weight in parts]
    y = x.transpose(1, 2).float()  # (B, heads, T, D)
    y = y * _scale(y, eps)
    for part, weight in zip(y.split_with_sizes(heads, 1), weights, strict=True):
        part.mul_(weight)
    return torch.addcmul(y * rotation[0], y.roll(y.size(-1) // 2, -1), rotation[1]).split_with_sizes(heads, 1)


def _rotated_norm(x: Tensor, weight: Tensor, eps: float, cosines: Tensor, sines: Tensor) -> Tensor:
    """The same as RotatedNorm, in plain operations."""
    y = F.rms_norm(x.transpose(1, 2).float(), weight.shape, weight, eps)
    return torch.addcmul(y * cosines, _swapped(y), sines).to(x.dtype)


def _copy(x: Tensor, dtype: torch.dtype) -> Tensor:
    """A contiguous copy."""
    return torch.empty(x.shape, dtype=dtype, device=x.device).copy_(x)


def _swapped(x: Tensor) -> Tensor:
    """The same tensor with the halves of its last dimension swapped."""
    return torch.cat(x.chunk(2, -1)[::-1], -1)


def _rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Returns x (B, H, T, D) rotated; faster than with _swapped(x), but without gradients."""
    rotated = x * cosines
    halves = zip(rotated.chunk(2, -1), x.chunk(2, -1)[::-1], sines.chunk(2, -1), strict=True)
    for half, other, sine in halves:
        half.addcmul_(other, sine)
    return rotated


def _scale(x: Tensor, eps: float) -> Tensor:
    """1 / root mean square of each row of x: (..., C) to float32 (..., 1)."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    return torch.full_like(length, eps).addcmul_(length, length, value=1 / x.size(-1)).rsqrt_()


def _gradients(grad: Tensor, x: Tensor, scale: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of x (..., C) and of weight, from that of the output. All are float32 and contiguous."""
    C, kernel = x.size(-1), torch.ops.aten.native_layer_norm_backward
    grad_x, grad_weight, _ = kernel(grad, x, [C], torch.zeros_like(scale), scale, weight, None, [True, True, False])
    mean = (grad.view(-1, C) @ weight).view_as(scale) / C  # of the row's weighted gradient, which LayerNorm subtracts
    return grad_x.add_(mean.mul_(scale)), grad_weight


class RmsNorm(torch.autograd.Function):
    """RMSNorm on a CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        scale = _scale(x, eps)
        ctx.save_for_backward(x, scale, weight)
        return (x * scale).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return *_gradients(grad.contiguous(), *ctx.saved_tensors), None


class RotatedNorm(torch.autograd.Function):
    """RMSNorm and rotation on a CPU, of x (B, T, H, D)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, cosines: Tensor, sines: Tensor) -> Tensor:
        if x.dtype is torch.bfloat16:  # kernels/attention.py needs each head's positions one after another
            y = _copy(x.transpose(1, 2), torch.float32)  # (B, H, T, D)
        else:  # PyTorch's attention gives its output the layout of the queries, and here (B, T, H, D) saves a copy
            y = _copy(x, torch.float32).transpose(1, 2)
        scale = _scale(y, eps).contiguous()
        ctx.save_for_backward(x, scale, weight, cosines, sines)
        return _rotate(y, cosines * weight, sines * _swapped(weight)).mul_(scale).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, weight, cosines, sines = ctx.saved_tensors
        turned_back = _rotate(_copy(grad, torch.float32), cosines, -sines)
        grad_x, grad_weight = _gradients(turned_back, _copy(x.transpose(1, 2), torch.float32), scale, weight)
        return grad_x.transpose(1, 2).to(x.dtype), grad_weight, None, None, None
