"""An activation and the projection after it as one operation, which keeps only the activation's input for the backward pass.

Autograd keeps GELU's input and output, each four times as wide as the residual stream: together two fifths of a block's
activations. Here the output is computed again when the weight's gradient needs it.

The plain references, which the tests compare with, are one line each:

    F.linear(F.gelu(x, approximate="tanh"), weight, bias)
    F.linear(F.silu(gate) * up, weight)                         x holds gate and up, side by side
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from jojo.kernels.loss import compute_dtype


class Gelu:
    """GELU in the tanh form that GPT-2 was trained with."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return F.gelu(x, approximate="tanh")

    @staticmethod
    def again(x: Tensor) -> tuple[Tensor, None]:
        """forward(x) in the backward pass, and what `backward` needs of it."""
        return Gelu.forward(x), None

    @staticmethod
    def backward(grad: Tensor, x: Tensor, needed: None) -> Tensor:
        """The gradient of x; it takes the place of `grad`."""
        return torch.ops.aten.gelu_backward.grad_input(grad, x, approximate="tanh", grad_input=grad)


class SwiGlu:
    """SiLU of the first half of the channels, times the second half (Shazeer 2020)."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        gate, up = x.chunk(2, -1)
        return F.silu(gate) * up

    @staticmethod
    def again(x: Tensor) -> tuple[Tensor, Tensor]:
        """forward(x), and the memory of x's gradient: its halves hold SiLU's output and the result until then."""
        (gate, up), grad_x = x.chunk(2, -1), torch.empty_like(x)
        silu, y = grad_x.chunk(2, -1)
        return torch.mul(torch.ops.aten.silu.out(gate, out=silu), up, out=y), grad_x

    @staticmethod
    def backward(grad: Tensor, x: Tensor, grad_x: Tensor) -> Tensor:
        """The gradient of x, in the memory that `again` gave."""
        (gate, up), (silu, grad_up) = x.chunk(2, -1), grad_x.chunk(2, -1)
        torch.mul(grad, silu, out=grad_up)
        torch.ops.aten.silu_backward.grad_input(grad.mul_(up), gate, grad_input=silu)
        return grad_x


Activation = type[Gelu] | type[SwiGlu]


def projected(x: Tensor, activation: Activation, projection: nn.Module) -> Tensor:
    """projection(activation(x)), (B, T, inner) to (B, T, C). `projection` is an nn.Linear, or an int8 layer in inference."""
    if torch.compiler.is_compiling() or not (torch.is_grad_enabled() and isinstance(projection, nn.Linear)):
        return projection(activation.forward(x))  # a compiler decides itself what to compute again
    dtype = compute_dtype(x)
    bias = None if projection.bias is None else projection.bias.to(dtype)
    return Projected.apply(x.to(dtype), activation, projection.weight.to(dtype), bias)  # type: ignore[no-untyped-call]


class Projected(torch.autograd.Function):
    """Activation and projection; the top of this file explains it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, activation: Activation, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.activation = activation
        return F.linear(activation.forward(x), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows = grad.flatten(0, -2)
        y, needed = ctx.activation.again(x)
        grad_weight = rows.T @ y.flatten(0, -2)
        del y  # frees its memory
        grad_bias = rows.sum(0) if ctx.needs_input_grad[3] else None
        return ctx.activation.backward(grad @ weight, x, needed), None, grad_weight, grad_bias
