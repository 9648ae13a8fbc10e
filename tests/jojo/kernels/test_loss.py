"""Tests of the fused output layer and loss against the plain one, and of gradient accumulation built on it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from helpers_model import plain_loss, random_model, random_tokens, relative_difference, tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from jojo.kernels import loss as loss_module
from jojo.kernels.loss import linear_cross_entropy, token_losses


def case(n: int, c: int, v: int, n_vocab: int, ignored: float = 0.25, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Random hidden (N, C), weight (V, C) and targets (N,); a share `ignored` of the targets is -1."""
    generator = torch.Generator().manual_seed(seed)
    hidden, weight = torch.randn(n, c, generator=generator), torch.randn(v, c, generator=generator)
    targets = torch.randint(n_vocab, (n,), generator=generator)
    targets[torch.rand(n, generator=generator) < ignored] = -1
    return hidden, weight, targets


def run(
    function: Callable[..., Tensor], hidden: Tensor, weight: Tensor, targets: Tensor, n_vocab: int, scale: float = 1.0
) -> list[Tensor]:
    """Value, hidden gradient and weight gradient."""
    hidden, weight = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    value = function(hidden, weight, targets, n_vocab)
    (value * scale).backward()
    return [value.detach(), hidden.grad, weight.grad]


def assert_equals_plain(hidden: Tensor, weight: Tensor, targets: Tensor, n_vocab: int, scale: float = 1.0) -> None:
    """Compare with the plain loss in float64."""
    ours = run(linear_cross_entropy, hidden, weight, targets, n_vocab, scale)
    plain = run(plain64, hidden.double(), weight.double(), targets, n_vocab, scale)
    for name, a, b in zip(("value", "hidden gradient", "weight gradient"), ours, plain, strict=True):
        assert a.isfinite().all(), name
        assert relative_difference(a, b) < 1e-5, name


def plain64(hidden: Tensor, weight: Tensor, targets: Tensor, n_vocab: int) -> Tensor:
    """The plain loss without its float32 step."""
    return F.cross_entropy((hidden @ weight.T)[:, :n_vocab], targets, ignore_index=-1, reduction="sum")


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of 20 rows, 8 rows in the softmax, 7 rows of the weight: no size is a multiple of another."""
    monkeypatch.setattr(loss_module, "GROUP_ROWS", 20)
    monkeypatch.setattr(loss_module, "GROUP_WORDS", 7)
    monkeypatch.setattr(loss_module, "CACHE_BYTES", 1)


# --- against the plain loss -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 7, 8, 9, 16, 19, 20, 21, 28, 39, 40, 41, 60, 67])
def test_value_and_gradients_equal_the_plain_loss_around_every_edge(small_chunks: None, n: int) -> None:
    assert_equals_plain(*case(n, 6, 18, 18, seed=n), 18)


@pytest.mark.parametrize("n", [511, 512, 513, 2 * 512 + 3])
def test_value_and_gradients_equal_the_plain_loss_at_the_real_group_size(n: int) -> None:
    assert loss_module.GROUP_ROWS == 512
    assert_equals_plain(*case(n, 4, 40, 33, seed=n), 33)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("n", [1, 10, 20, 21, 67])
@pytest.mark.usefixtures("small_chunks")
def test_the_pieces_of_a_gpu_give_the_same(monkeypatch: pytest.MonkeyPatch, n: int, dtype: torch.dtype) -> None:
    monkeypatch.setattr(loss_module, "_on_cpu", lambda tensor: False)
    monkeypatch.setattr(loss_module, "GPU_GROUP_ROWS", 20)
    monkeypatch.setattr(loss_module, "GPU_ROWS", 8)
    hidden, weight, targets = case(n, 6, 18, 15, seed=n)
    hidden, weight = hidden.to(dtype), weight.to(dtype)
    ours = run(linear_cross_entropy, hidden, weight, targets, 15)
    plain = run(plain64, hidden.double(), weight.double(), targets, 15)
    for a, b in zip(ours, plain, strict=True):
        assert relative_difference(a, b) < (1e-5 if dtype is torch.float32 else 0.01)
    assert token_losses(hidden, weight, targets, 15).sum().item() == pytest.approx(plain[0].item(), rel=0.01)


class Operations(TorchDispatchMode):
    """Counts operations, without those that only make a view."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        self.count += not function.is_view
        return function(*arguments, **(named or {}))


def test_a_gpu_is_not_kept_busy_with_small_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # "meta" has no autocast
    monkeypatch.setattr(loss_module, "compute_dtype", lambda hidden: torch.bfloat16)
    hidden, weight = torch.empty(16 * 1024, 768, device="meta"), torch.empty(50304, 768, device="meta")
    with Operations() as operations:
        value = linear_cross_entropy(hidden, weight, torch.empty(16 * 1024, dtype=torch.int64, device="meta"), 50257)
    assert value.shape == () and 100 < operations.count < 700  # each takes about 10 µs to start


def test_rows_at_once_follow_the_cache_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_module, "CACHE_BYTES", 4 * 18 * 11)  # 11 rows of 18 logits
    monkeypatch.setattr(loss_module, "GROUP_ROWS", 25)
    assert loss_module._buffers(torch.zeros(25, 6), 18)[1].shape == (11, 18)
    assert_equals_plain(*case(63, 6, 18, 18), 18)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(0, 50), c=st.integers(1, 9), v=st.integers(1, 24), data=st.data(), group=st.integers(1, 30),
    words=st.integers(1, 30),
    ignored=st.sampled_from([0.0, 0.3, 0.9, 1.0]), seed=st.integers(0, 1000),
)  # fmt: skip
def test_any_shape_equals_the_plain_loss(
    n: int, c: int, v: int, data: st.DataObject, group: int, words: int, ignored: float, seed: int
) -> None:
    n_vocab = data.draw(st.integers(1, v))
    with mock.patch.multiple(loss_module, GROUP_ROWS=group, GROUP_WORDS=words, CACHE_BYTES=1):
        hidden, weight, targets = case(n, c, v, n_vocab, ignored, seed)
        ours = run(linear_cross_entropy, hidden, weight, targets, n_vocab)
        plain = run(plain64, hidden.double(), weight.double(), targets, n_vocab)
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=2e-5, atol=2e-5)
    assert not ours[2][n_vocab:].any()


def test_all_targets_ignored_gives_zero_and_zero_gradients(small_chunks: None) -> None:
    hidden, weight, _ = case(45, 6, 18, 18)
    value, grad_hidden, grad_weight = run(linear_cross_entropy, hidden, weight, torch.full((45,), -1), 18)
    assert value == 0 and not grad_hidden.any() and not grad_weight.any()


def test_ignored_positions_add_nothing(small_chunks: None) -> None:
    hidden, weight, targets = case(45, 6, 18, 18, ignored=0.5)
    value, grad_hidden, grad_weight = run(linear_cross_entropy, hidden, weight, targets, 18)
    kept = targets >= 0
    alone = run(linear_cross_entropy, hidden[kept], weight, targets[kept], 18)
    assert 5 < kept.sum() < 40
    assert not grad_hidden[~kept].any()
    for a, b in zip((value, grad_hidden[kept], grad_weight), alone, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n_vocab", [1, 2, 13, 17, 18])
def test_padded_rows_are_left_out_of_the_softmax(small_chunks: None, n_vocab: int) -> None:
    hidden, weight, targets = case(45, 6, 18, n_vocab)
    weight[n_vocab:] *= 50  # their logits would be the largest by far
    assert_equals_plain(hidden, weight, targets, n_vocab)
    assert not run(linear_cross_entropy, hidden, weight, targets, n_vocab)[2][n_vocab:].any()


@pytest.mark.parametrize("scale", [1 / 300, 3.7, -2.0, 65536.0])
def test_gradients_scale_with_the_gradient_of_the_loss(small_chunks: None, scale: float) -> None:
    assert_equals_plain(*case(45, 6, 18, 18), 18, scale=scale)


def test_the_inputs_are_left_as_they_were(small_chunks: None) -> None:
    hidden, weight, targets = case(45, 6, 18, 15)
    copies = hidden.clone(), weight.clone(), targets.clone()
    run(linear_cross_entropy, hidden, weight, targets, 15)
    token_losses(hidden, weight, targets, 15)
    assert all(torch.equal(a, b) for a, b in zip((hidden, weight, targets), copies, strict=True))


def test_no_logits_are_kept_for_the_backward_pass() -> None:
    hidden, weight, targets = case(70, 3, 500, 500)
    value = linear_cross_entropy(hidden.requires_grad_(), weight.requires_grad_(), targets, 500)
    assert {tuple(t.shape) for t in value.grad_fn.saved_tensors} == {(70, 3), (500, 3)}


def test_gradcheck_against_finite_differences() -> None:
    hidden, weight, targets = case(9, 4, 7, 6)
    _, grad_hidden, grad_weight = run(linear_cross_entropy, hidden, weight, targets, 6)
    generator = torch.Generator().manual_seed(1)
    dh, dw = torch.randn(9, 4, generator=generator).double(), torch.randn(7, 4, generator=generator).double()
    step = 1e-5
    up, down = (plain64(hidden.double() + s * dh, weight.double() + s * dw, targets, 6).item() for s in (step, -step))
    slope = (grad_hidden.double() * dh).sum() + (grad_weight.double() * dw).sum()
    assert slope.item() == pytest.approx((up - down) / (2 * step), rel=1e-4)


# --- extremes -------------------------------------------------------------------------------------------------------


def test_losses_of_hundreds_of_nats_stay_exact() -> None:
    hidden = torch.tensor([[200.0], [200.0], [-200.0], [1.0], [-150.0]])
    weight = torch.tensor([[1.0], [-1.0], [0.5]])
    targets = torch.tensor([1, 0, 0, 2, 0])
    assert_equals_plain(hidden, weight, targets, 3)
    torch.testing.assert_close(
        token_losses(hidden, weight, targets, 3)[[0, 1, 2, 4]], torch.tensor([400.0, 0.0, 400.0, 300.0])
    )
    assert linear_cross_entropy(hidden, weight, targets, 3).item() > 1100


@pytest.mark.parametrize("size", [1e3, 1e5])
def test_enormous_logits_give_finite_losses_and_gradients(size: float) -> None:
    hidden, weight, targets = case(45, 6, 18, 18)
    for tensor in run(linear_cross_entropy, hidden * size, weight, targets, 18):
        assert tensor.isfinite().all()
    assert token_losses(hidden * size, weight, targets, 18).isfinite().all()


def test_a_certain_prediction_has_no_loss_and_no_gradient() -> None:
    hidden, weight = torch.tensor([[100.0]]), torch.tensor([[1.0], [-1.0]])
    value, grad_hidden, grad_weight = run(linear_cross_entropy, hidden, weight, torch.tensor([0]), 2)
    assert value == 0 and not grad_hidden.any() and not grad_weight.any()


# --- lower precision ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [5, 300])
def test_under_bfloat16_autocast_it_is_as_near_the_truth_as_the_plain_loss(n: int) -> None:
    hidden, weight, targets = case(n, 32, 96, 90, seed=n)
    weight *= 0.2
    truth = run(plain64, hidden.double(), weight.double(), targets, 90)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = run(linear_cross_entropy, hidden, weight, targets, 90)
        plain = run(plain_loss, hidden, weight, targets, 90)
    assert [t.dtype for t in ours] == [torch.float32] * 3
    for name, a, b, exact in zip(("value", "hidden", "weight"), ours, plain, truth, strict=True):
        allowed = 1.5 * relative_difference(b, exact) + 1e-3
        assert relative_difference(a, exact) < allowed < 0.03, name


def test_autocast_is_what_decides_the_precision_of_the_products() -> None:
    hidden, weight, targets = case(64, 32, 96, 96)
    exact = run(linear_cross_entropy, hidden, weight, targets, 96)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = run(linear_cross_entropy, hidden, weight, targets, 96)
    assert 1e-4 < relative_difference(rounded[2], exact[2]) < 0.03


def test_gradients_have_the_dtype_of_their_tensors() -> None:
    hidden, weight, targets = case(30, 6, 18, 18)
    value, grad_hidden, grad_weight = run(linear_cross_entropy, hidden.bfloat16(), weight.bfloat16(), targets, 18)
    assert (value.dtype, grad_hidden.dtype, grad_weight.dtype) == (torch.float32, torch.bfloat16, torch.bfloat16)


def test_float16_gradients_of_small_probabilities_do_not_vanish() -> None:
    hidden, weight, _ = case(64, 8, 2000, 2000)
    weight *= 0.02
    hidden[:, 0], weight[0, 0] = 4, 4  # token 0 is nearly certain; every other token has a probability of about 1e-7
    targets = torch.zeros(64, dtype=torch.int64)
    hidden, weight = hidden.half(), weight.half()
    ours = run(linear_cross_entropy, hidden, weight, targets, 2000)
    exact = run(plain64, hidden.double(), weight.double(), targets, 2000)
    assert exact[2][1:].abs().max() < 1e-4
    assert relative_difference(ours[2][1:], exact[2][1:]) < 0.02


def test_float16_gradients_of_a_frequent_word_do_not_overflow() -> None:
    # 200 of 1024 targets are the same token, and one channel of the hidden states has a mean of 2: both are common in text.
    hidden, weight, targets = case(1024, 8, 64, 64, ignored=0)
    hidden[:, 0] += 2
    targets[:200] = 13
    hidden, weight = hidden.half(), (weight * 0.02).half()
    ours = run(linear_cross_entropy, hidden, weight, targets, 64)
    exact = run(plain64, hidden.double(), weight.double(), targets, 64)
    for name, a, b in zip(("value", "hidden", "weight"), ours, exact, strict=True):
        assert a.isfinite().all(), name
        assert relative_difference(a, b) < 0.01, name


def test_float16_gradients_of_a_single_word_do_not_overflow_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_module, "_on_cpu", lambda tensor: False)
    hidden, weight, _ = case(2048, 8, 64, 64)
    hidden[:, 0] += 70  # a channel that stands out, as trained models have
    targets = torch.full((2048,), 13)
    with torch.autocast("cpu", dtype=torch.float16):
        ours = run(linear_cross_entropy, hidden, weight * 1e-3, targets, 64)
    exact = run(plain64, hidden.double(), weight.double() * 1e-3, targets, 64)
    for name, a, b in zip(("value", "hidden", "weight"), ours, exact, strict=True):
        assert a.isfinite().all() and relative_difference(a, b) < 0.01, name


# --- one loss for each position -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 8, 20, 41])
def test_token_losses_equal_the_plain_ones_and_sum_to_the_whole(small_chunks: None, n: int) -> None:
    hidden, weight, targets = case(n, 6, 18, 15, seed=n)
    losses = token_losses(hidden, weight, targets, 15)
    logits = (hidden @ weight.T)[:, :15]
    expected = F.cross_entropy(logits, targets, ignore_index=-1, reduction="none")
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-5)
    assert losses.sum().item() == pytest.approx(linear_cross_entropy(hidden, weight, targets, 15).item(), rel=1e-5)
    assert not losses[targets < 0].any()


# --- gradient accumulation ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("ignored", [[0.0, 0.0, 0.0, 0.0], [0.0, 0.9, 0.3, 0.6], [0.1, 1.0, 0.0, 0.97]])
def test_four_micro_batches_have_the_gradient_of_one_four_times_as_large(bias: bool, ignored: list[float]) -> None:
    config = tiny_config(n_embd=32, n_head=4, vocab_size=128, bias=bias)
    model = random_model(config, n_vocab=120, std=0.1).train()
    size = 3  # sequences per micro-batch
    tokens = random_tokens(config, 4 * size, 32, n_vocab=120)
    targets = random_tokens(config, 4 * size, 32, seed=1, n_vocab=120)
    generator = torch.Generator().manual_seed(2)
    for micro, share in enumerate(ignored):
        rows = targets[micro * size : (micro + 1) * size]
        rows[torch.rand(rows.shape, generator=generator) < share] = -1
    n_targets = (targets >= 0).sum()

    def gradients(batch_size: int) -> tuple[float, dict[str, Tensor]]:
        model.zero_grad()
        total = 0.0
        for x, y in zip(tokens.split(batch_size), targets.split(batch_size), strict=True):
            part = model(x, y) / n_targets
            part.backward()
            total += part.item()
        return total, {name: p.grad.clone() for name, p in model.named_parameters()}

    whole_loss, whole = gradients(4 * size)
    sum_of_losses, accumulated = gradients(size)
    assert sum_of_losses == pytest.approx(whole_loss, rel=1e-5)
    for name, gradient in whole.items():
        assert gradient.any(), name
        assert relative_difference(accumulated[name], gradient) < 1e-5, name
