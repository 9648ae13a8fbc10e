"""Tests of RMSNorm, alone and with rotary positions, against plain lines in float64 and against transformers' rotation."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from helpers_model import relative_difference
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from config import ModelConfig
from jojo.kernels.norm import rms_norm, rotated_norms
from jojo.networks.qwen3 import rotation

os.environ.setdefault("HF_HUB_OFFLINE", "1")
from transformers.models.qwen3.modeling_qwen3 import apply_rotary_pos_emb

EPS = 1e-5


def plain_norm(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + EPS).sqrt() * weight


def angles(T: int, D: int) -> Tensor:
    """(T, D / 2): position / theta^(2i/D), with theta = 50."""
    return torch.outer(torch.arange(T).double(), 50.0 ** -(torch.arange(0, D, 2).double() / D))


def plain_rotated(x: Tensor, weight: Tensor) -> Tensor:
    """transformers' rotation of plain_norm: (B, T, H, D) to (B, H, T, D)."""
    turn = torch.cat([angles(x.size(1), x.size(3))] * 2, -1)
    y = plain_norm(x, weight).transpose(1, 2)
    return apply_rotary_pos_emb(y, y, turn.cos()[None], turn.sin()[None])[0]


def ours_rotated(x: Tensor, weight: Tensor) -> Tensor:
    config = ModelConfig(n_head=1, n_embd=x.size(3), architecture="qwen3", rope_theta=50.0)
    turn, H = rotation(torch.arange(x.size(1)), config), x.size(2)
    parts = rotated_norms(x, (H - H // 2, H // 2), (weight, weight), EPS, turn)
    return torch.cat(list(parts), 1)


def run(function: Any, x: Tensor, weight: Tensor) -> list[Tensor]:
    """The output, and the gradients of x and weight for a random gradient of the output."""
    x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
    y = function(x, weight)
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    return [y.detach(), *torch.autograd.grad(y, (x, weight), grad)]


PAIRS = {"norm": (lambda x, w: rms_norm(x, w, EPS), plain_norm), "rotated": (ours_rotated, plain_rotated)}


@pytest.mark.parametrize("kind", PAIRS)
@settings(max_examples=40, deadline=None)
@given(
    B=st.integers(1, 3), T=st.integers(1, 9), H=st.integers(1, 4), half=st.integers(1, 9),
    scale=st.sampled_from([0.01, 1.0, 100.0]), seed=st.integers(0, 1000),
)  # fmt: skip
def test_any_shape_equals_the_plain_lines(
    kind: str, B: int, T: int, H: int, half: int, scale: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    # As in the network, x is a part of a larger tensor.
    x = scale * torch.randn(B, T, 2 * H, 2 * half, generator=generator)[:, :, :H]
    weight = torch.randn(2 * half, generator=generator)
    ours, plain = PAIRS[kind]
    for found, truth in zip(run(ours, x, weight), run(plain, x.double(), weight.double()), strict=True):
        torch.testing.assert_close(found.double(), truth, rtol=1e-4, atol=1e-5 * max(1.0, float(truth.abs().max())))
    with torch.no_grad():  # inference takes another way
        torch.testing.assert_close(ours(x, weight).double(), plain(x.double(), weight.double()), rtol=1e-4, atol=1e-5)


def test_in_bfloat16_queries_are_rounded_only_at_the_end() -> None:
    x, weight = torch.randn(2, 40, 3, 16).bfloat16(), torch.rand(16) + 0.5
    ours, truth = run(ours_rotated, x, weight), run(plain_rotated, x.double(), weight.double())
    assert ours[0].dtype is ours[1].dtype is torch.bfloat16 and ours[2].dtype is torch.float32
    turn = rotation(torch.arange(40), ModelConfig(n_head=1, n_embd=16, architecture="qwen3"))
    parts = rotated_norms(x, (2, 1), (weight, weight), EPS, turn)
    assert all(part.is_contiguous() for part in parts)  # attention in bfloat16 copies nothing
    for found, exact in zip(ours, truth, strict=True):
        assert relative_difference(found, exact) < 2**-8


@pytest.mark.parametrize("gradients", [True, False])
def test_queries_and_keys_have_their_own_weights(gradients: bool) -> None:
    x, weights = torch.randn(2, 6, 5, 8), [torch.rand(8) + 1, torch.rand(8) + 2]
    turn = rotation(torch.arange(6), ModelConfig(n_head=1, n_embd=8, architecture="qwen3", rope_theta=50.0))
    with torch.set_grad_enabled(gradients):
        q, k = rotated_norms(x, (3, 2), weights, EPS, turn)
    torch.testing.assert_close(q, plain_rotated(x[:, :, :3].double(), weights[0].double()).float())
    torch.testing.assert_close(k, plain_rotated(x[:, :, 3:].double(), weights[1].double()).float())


@pytest.mark.parametrize("kind", PAIRS)
def test_a_compiler_gets_the_plain_operations(kind: str) -> None:
    x, weight = torch.randn(1, 5, 2, 8, requires_grad=True), torch.rand(8)
    compiled = torch.compile(PAIRS[kind][0], backend="aot_eager", fullgraph=True)(x, weight)
    assert "Norm" not in str(compiled.grad_fn)
    torch.testing.assert_close(compiled, PAIRS[kind][0](x, weight))


def test_a_row_of_zeros_stays_finite() -> None:
    for tensor in run(PAIRS["norm"][0], torch.zeros(2, 8), torch.ones(8)):
        assert tensor.isfinite().all()
