"""Tests of attention against the plain formula in float64, and of the choice of a kernel."""

from __future__ import annotations

import math
from unittest import mock

import pytest
import torch
from helpers_model import relative_difference
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from jojo.kernels import attention
from jojo.kernels.attention import BlockedAttention, causal_attention


def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention in one line; the queries are those of the last T of S tokens."""
    T, S, G = q.size(2), k.size(2), q.size(1) // k.size(1)
    k, v = k.repeat_interleave(G, 1), v.repeat_interleave(G, 1)  # G query heads in a row share keys and values
    mask = torch.full((T, S), -torch.inf, dtype=q.dtype).triu(S - T + 1)
    return torch.softmax(q @ k.mT / math.sqrt(q.size(3)) + mask, -1) @ v


def qkv(B: int, H: int, T: int, D: int, dtype: torch.dtype = torch.bfloat16, seed: int = 0, G: int = 1) -> list[Tensor]:
    """Queries, keys and values as a model has them: views of one projection, head by head; G times as many queries."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(B, T, (G + 2) * H, D, generator=generator).to(dtype)
    return [part.transpose(1, 2).requires_grad_() for part in x.split((G * H, H, H), 2)]


def run(function: object, parts: list[Tensor], seed: int = 1) -> list[Tensor]:
    """The output, and the gradients of q, k and v for a random gradient of the output."""
    assert callable(function)
    parts = [part.detach().clone().requires_grad_() for part in parts]
    y = function(*parts)
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed)).to(y.dtype)
    return [y.detach(), *torch.autograd.grad(y, parts, grad)]


def blocked(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> Tensor:
    return BlockedAttention.apply(q, k, v, dropout)


@settings(max_examples=40, deadline=None)
@given(
    B=st.integers(1, 3), H=st.integers(1, 3), T=st.integers(1, 40), D=st.integers(1, 9), rows=st.integers(1, 17),
    cache=st.sampled_from([1, 300, 1 << 20]), seed=st.integers(0, 1000), G=st.integers(1, 3),
)  # fmt: skip
def test_any_shape_in_any_pieces_equals_the_plain_formula(
    B: int, H: int, T: int, D: int, rows: int, cache: int, seed: int, G: int
) -> None:
    parts = qkv(B, H, T, D, torch.float32, seed, G)
    with mock.patch.multiple(attention, QUERY_ROWS=rows, CACHE_BYTES=cache):
        ours = run(blocked, parts)
    truth = run(plain, [part.double() for part in parts])
    for a, b in zip(ours, truth, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("B", "H", "T", "D", "G"), [(2, 3, 200, 40, 1), (1, 2, 128, 64, 2), (3, 1, 257, 16, 3)])
def test_in_bfloat16_it_is_as_near_the_truth_as_the_plain_formula(B: int, H: int, T: int, D: int, G: int) -> None:
    parts = qkv(B, H, T, D, G=G)
    truth = run(plain, [part.double() for part in parts])
    ours, rounded = run(causal_attention, parts), run(plain, parts)
    for name, a, b, exact in zip("yqkv", ours, rounded, truth, strict=True):
        assert a.dtype is torch.bfloat16
        assert relative_difference(a, exact) < 1.3 * relative_difference(b, exact) < 0.02, name


def test_large_scores_stay_finite() -> None:
    parts = [60 * part.detach() for part in qkv(1, 2, 150, 32)]
    assert all(tensor.isfinite().all() for tensor in run(causal_attention, parts))


def test_nothing_of_size_t_squared_is_kept_for_the_backward_pass() -> None:
    y = causal_attention(*qkv(1, 2, 300, 8))
    assert {tuple(tensor.shape) for tensor in y.grad_fn.saved_tensors} == {(2, 1, 300, 8), (2, 300, 8)}


@pytest.mark.parametrize("G", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("T", "S"), [(1, 1), (1, 7), (5, 12), (12, 12)])
def test_new_tokens_see_the_past_and_themselves(T: int, S: int, dtype: torch.dtype, G: int) -> None:
    q, k, v = (part.detach() for part in qkv(2, 2, S, 8, dtype, G=G))
    truth = plain(q.double(), k.double(), v.double())[:, :, S - T :]
    assert relative_difference(causal_attention(q[:, :, S - T :], k, v), truth) < (
        1e-5 if dtype.itemsize == 4 else 0.02
    )


def test_the_blocked_form_is_for_bfloat16_on_a_cpu() -> None:
    with mock.patch.object(BlockedAttention, "apply", side_effect=BlockedAttention.apply) as used:
        causal_attention(*qkv(1, 1, 4, 8, torch.float32))
        causal_attention(*(part.to("meta") for part in qkv(1, 1, 4, 8)))
        assert not used.called
        causal_attention(*qkv(1, 1, 4, 8), dropout=0.1)
        assert used.called


# --- dropout --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("G", [1, 3])
def test_dropped_weights_are_those_of_the_seed_in_both_passes(G: int) -> None:
    """With the identity as values, the output is the weights themselves, dropped ones as zeros."""
    T, dropout = 24, 0.3
    q, k, v = qkv(2, 2, T, T, torch.float32, G=G)
    with mock.patch.multiple(attention, QUERY_ROWS=7, CACHE_BYTES=1 << 12):
        torch.manual_seed(5)
        weights = blocked(q, k, torch.eye(T).expand(2, 2, T, T), dropout).detach()
        factor = (weights > 0).double() / (1 - dropout)

        def truth(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            k, v = k.repeat_interleave(G, 1), v.repeat_interleave(G, 1)
            scores = q @ k.mT / math.sqrt(T) + torch.full((T, T), -torch.inf, dtype=q.dtype).triu(1)
            return (torch.softmax(scores, -1) * factor) @ v

        def ours(*parts: Tensor) -> Tensor:
            torch.manual_seed(5)
            return blocked(*parts, dropout)

        for found, exact in zip(run(ours, [q, k, v]), run(truth, [q.double(), k.double(), v.double()]), strict=True):
            torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_each_weight_is_dropped_with_the_probability(probability: float) -> None:
    n = 200_001  # not a multiple of the numbers that are drawn together
    weights = [torch.ones(2, n).bfloat16() for _ in range(3)]
    for tensor, seed in zip(weights, (1, 1, 2), strict=True):
        attention.Dropout(probability, seed).zero(tensor)
    for column in (weights[0][:, lane::8] for lane in range(8)):  # the parts of each random number are alike
        deviation = math.sqrt(probability * (1 - probability) / column.numel())
        assert abs(1 - column.mean(dtype=torch.float64) - probability) < 4.5 * deviation
    assert weights[0].equal(weights[1]) and not weights[0].equal(weights[2])
