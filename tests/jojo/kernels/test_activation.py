"""Tests of an activation and its projection in one operation, against the plain line with autograd's own backward pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers_model import random_model, relative_difference, tiny_config
from helpers_run import differences
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from jojo.kernels.activation import Gelu, SwiGlu, projected
from jojo.kernels.int8 import Int8Linear
from jojo.machine import device as devices


def plain_gelu(x: Tensor, projection: nn.Linear) -> Tensor:
    return F.linear(F.gelu(x, approximate="tanh"), projection.weight, projection.bias)


def plain_swiglu(x: Tensor, projection: nn.Linear) -> Tensor:
    gate, up = x.chunk(2, -1)
    return F.linear(F.silu(gate) * up, projection.weight, projection.bias)


def ours_gelu(x: Tensor, projection: nn.Module) -> Tensor:
    return projected(x, Gelu, projection)


def ours_swiglu(x: Tensor, projection: nn.Module) -> Tensor:
    return projected(x, SwiGlu, projection)


PAIRS = [(ours_gelu, plain_gelu, 1), (ours_swiglu, plain_swiglu, 2)]  # and how many times wider the input is
both = pytest.mark.parametrize(("ours", "plain", "widths"), PAIRS, ids=["gelu", "swiglu"])


def run(function: object, x: Tensor, projection: nn.Linear, dtype: str = "float32") -> dict[str, Tensor]:
    """The output and the gradients, for a random gradient of the output. As in training, backward is outside of autocast."""
    assert callable(function)
    x = x.detach().clone().requires_grad_()
    projection.zero_grad()
    with devices.autocast("cpu", dtype):
        y = function(x, projection)
    y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype))
    gradients = {name: p.grad.clone() for name, p in projection.named_parameters() if p.grad is not None}
    assert x.grad is not None
    return {"y": y.detach(), "x": x.grad} | gradients


@both
@settings(max_examples=40, deadline=None)
@given(
    B=st.integers(1, 3), T=st.integers(1, 9), inner=st.integers(1, 24), C=st.integers(1, 9), bias=st.booleans(),
    scale=st.sampled_from([0.1, 1.0, 30.0]), seed=st.integers(0, 1000),
)  # fmt: skip
def test_any_shape_equals_the_plain_line(
    ours: Any, plain: Any, widths: int, B: int, T: int, inner: int, C: int, bias: bool, scale: float, seed: int
) -> None:
    torch.manual_seed(seed)
    x, projection = scale * torch.randn(B, T, widths * inner), nn.Linear(inner, C, bias=bias)
    found, truth = run(ours, x, projection), run(plain, x.double(), projection.double())
    projection.float()
    assert found.keys() == truth.keys() and len(found) == 3 + bias
    for name, value in truth.items():
        torch.testing.assert_close(found[name].double(), value, rtol=1e-4, atol=1e-4, msg=name)


@both
@pytest.mark.parametrize("bias", [True, False])
def test_in_bfloat16_it_is_as_near_the_truth_as_the_plain_line(ours: Any, plain: Any, widths: int, bias: bool) -> None:
    torch.manual_seed(0)
    x, projection = torch.randn(2, 200, widths * 256).bfloat16(), nn.Linear(256, 64, bias=bias)
    found, rounded = (run(function, x, projection, "bfloat16") for function in (ours, plain))
    truth = run(plain, x.double(), projection.double())
    assert found["y"].dtype is torch.bfloat16 and found["weight"].dtype is torch.float32
    for name, exact in truth.items():
        assert relative_difference(found[name], exact) < 1.1 * relative_difference(rounded[name], exact) < 0.02, name


@both
def test_the_input_of_an_activation_is_kept_and_its_output_is_not(ours: Any, plain: Any, widths: int) -> None:
    x, projection = torch.randn(2, 30, widths * 32, requires_grad=True), nn.Linear(32, 8)
    saved = ours(x, projection).grad_fn.saved_tensors  # type: ignore[union-attr]
    assert [tensor.data_ptr() for tensor in saved] == [x.data_ptr(), projection.weight.data_ptr()]


@both
def test_a_compiler_gets_the_plain_line(ours: Any, plain: Any, widths: int) -> None:
    x, projection = torch.randn(2, 30, widths * 32, requires_grad=True), nn.Linear(32, 8)
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True)
    assert "Projected" not in str(compiled(x, projection).grad_fn)
    torch.testing.assert_close(compiled(x, projection), plain(x, projection))


def test_the_projection_of_an_inference_model_may_have_another_type() -> None:
    x, projection = torch.randn(2, 3, 64, dtype=torch.bfloat16), nn.Linear(64, 8)
    y = ours_gelu(x, Int8Linear(projection))  # type: ignore[arg-type]
    assert relative_difference(y, plain_gelu(x.float(), projection)) < 0.02


def test_a_model_trains_as_with_the_plain_line(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens = random_model(tiny_config(n_layer=2)).train(), torch.randint(50, (2, 16))
    gradients = []
    for function in (projected, lambda x, _, projection: plain_gelu(x, projection)):
        monkeypatch.setattr("jojo.networks.gpt2.projected", function)
        model.zero_grad()
        model(tokens, tokens).backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert len(gradients[0]) == len(list(model.parameters()))
    assert differences(gradients[0], gradients[1]) == []
