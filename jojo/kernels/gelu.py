"""GELU and the projection after it as one operation, which keeps only the input of GELU for the backward pass.

Autograd keeps GELU's input and output, each four times as wide as the residual stream: together two fifths of a block's
activations. Here the output is computed again when the weight's gradient needs it.

The plain reference, which the tests compare with, is one line:

    F.linear(F.gelu(x, approximate="tanh"), weight, bias)
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from jojo.kernels.loss import compute_dtype


def gelu(x: Tensor) -> Tensor:
    """GELU in the tanh form that GPT-2 was trained with."""
    return F.gelu(x, approximate="tanh")


def projected_gelu(x: Tensor, projection: nn.Module) -> Tensor:
    """projection(gelu(x)), (B, T, inner) to (B, T, C). `projection` is an nn.Linear, or an int8 layer in inference."""
    if torch.compiler.is_compiling() or not (torch.is_grad_enabled() and isinstance(projection, nn.Linear)):
        return projection(gelu(x))  # a compiler decides itself what to compute again
    dtype = compute_dtype(x)
    bias = None if projection.bias is None else projection.bias.to(dtype)
    return ProjectedGelu.apply(x.to(dtype), projection.weight.to(dtype), bias)  # type: ignore[no-untyped-call]


class ProjectedGelu(torch.autograd.Function):
    """GELU and projection; the top of this file explains it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.linear(gelu(x), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        x, weight = ctx.saved_tensors
        rows = grad.flatten(0, -2)
        grad_weight = rows.T @ gelu(x).flatten(0, -2)
        grad_bias = rows.sum(0) if ctx.needs_input_grad[2] else None
        grad_x = grad @ weight  # so far the gradient of gelu(x); the next line overwrites it with the gradient of x
        torch.ops.aten.gelu_backward.grad_input(grad_x, x, approximate="tanh", grad_input=grad_x)
        return grad_x, grad_weight, grad_bias
