"""Weights in 8 bits, for decoding. Decoding a token reads every weight once; 8 bits are a quarter of float32's bytes.

Only the weights of linear layers are rounded, to 255 levels with a scale per output channel. Activations, embeddings and
LayerNorms stay in bfloat16. For a few rows (decoding), PyTorch multiplies the 8-bit weights directly; for many (a prompt),
it is faster to convert them first.

The plain reference, which the tests compare with:

    F.linear(x, (weight / scale).round() * scale, bias)       scale = the channel's largest weight / 127
"""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEW_ROWS = 16  # up to here the 8-bit product is faster than converting the weights
KERNEL_COLUMNS = 32  # the kernel reads this many inputs at a time, so past the end if their number is not a multiple

M = TypeVar("M", bound=nn.Module)


class Int8Linear(nn.Module):
    """The same as `linear`, with weights that take a byte each. Inputs and outputs are bfloat16."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()  # (out, in)
        largest = weight.abs().amax(1, keepdim=True).clamp_min(1e-30)
        scale = (largest / 127).bfloat16()  # rounded first, because forward multiplies by the rounded scale
        self.register_buffer("weight", (weight / scale.float()).round().clamp(-127, 127).to(torch.int8))
        self.register_buffer("scale", scale.squeeze(1))  # (out,)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().bfloat16())

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out), bfloat16."""
        rows = x.reshape(-1, x.size(-1))
        if len(rows) <= FEW_ROWS and rows.size(1) % KERNEL_COLUMNS == 0:
            y = torch._weight_int8pack_mm(rows, self.weight, self.scale)
        else:
            y = F.linear(rows, self.weight.to(x.dtype)) * self.scale
        y = y.view(*x.shape[:-1], -1)
        return y if self.bias is None else y + self.bias


def quantize(model: M) -> M:
    """Convert a model in place for inference: linear layers to 8 bits, the rest to bfloat16. Returns the same model."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear):
                setattr(module, name, Int8Linear(child))
    return model.to(torch.bfloat16).requires_grad_(False)
