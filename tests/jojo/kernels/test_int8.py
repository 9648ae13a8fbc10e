"""Tests of 8-bit weights against the plain formula, and of what they cost in perplexity."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from helpers_model import random_model, random_tokens, relative_difference, tiny_config
from torch import Tensor, nn

from generation import Sampling, generate
from jojo.kernels.int8 import FEW_ROWS, Int8Linear, quantize
from model import GPT


def layer(n_in: int = 64, n_out: int = 80, bias: bool = True) -> nn.Linear:
    """Channels of very different sizes, one of them all zero."""
    torch.manual_seed(0)
    linear = nn.Linear(n_in, n_out, bias=bias)
    with torch.no_grad():
        linear.weight.mul_(torch.logspace(-3, 2, n_out).unsqueeze(1))
        linear.weight[7] = 0
    return linear


def test_every_weight_is_within_half_a_step() -> None:
    linear = layer()
    packed = Int8Linear(linear)
    scale = packed.scale.float().unsqueeze(1)
    assert packed.weight.dtype is torch.int8 and packed.weight.abs().max() == 127
    # The step is rounded to bfloat16, so a channel's largest weight may be a little over 127 steps.
    assert ((packed.weight * scale - linear.weight).abs() <= scale * (0.5 + 127 / 256)).all()
    assert (linear.weight.abs().amax(1) / scale.squeeze(1)).max() < 127 * (1 + 1 / 256)
    assert not packed.weight[7].any() and packed.scale.isfinite().all()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (1, FEW_ROWS), (1, FEW_ROWS + 1), (5, 40)])
@pytest.mark.parametrize("n_in", [8, 48, 64, 96])
def test_it_multiplies_with_the_rounded_weights(shape: tuple[int, int], bias: bool, n_in: int) -> None:
    packed = Int8Linear(layer(n_in, bias=bias))
    x = torch.randn(*shape, n_in, generator=torch.Generator().manual_seed(1)).bfloat16()
    y = packed(x)
    plain = F.linear(x.double(), packed.weight.double() * packed.scale.double().unsqueeze(1))
    plain = plain if packed.bias is None else plain + packed.bias.double()
    assert y.dtype is torch.bfloat16 and y.shape == (*shape, 80)
    assert relative_difference(y, plain) < 0.005


@pytest.fixture(scope="module")
def trained() -> tuple[GPT, Tensor]:
    """A small model trained on made-up text, in which each token has two likely successors, and more such text."""
    generator = torch.Generator().manual_seed(3)
    follows = torch.randint(64, (64, 2), generator=generator)
    text = torch.zeros(33, 400, dtype=torch.int64)
    for i in range(1, len(text)):
        text[i] = follows[text[i - 1], torch.randint(2, (400,), generator=generator)]
    model = GPT(tiny_config(n_embd=32))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for i in range(120):
        rows = text[:, 3 * i : 3 * i + 3].T
        (model(rows[:, :-1], rows[:, 1:].contiguous()) / 96).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval(), text[:, 360:].T


@torch.no_grad()
def loss(model: GPT, rows: Tensor) -> float:
    """Nats per token."""
    return F.cross_entropy(model(rows[:, :-1]).float().flatten(0, 1), rows[:, 1:].flatten()).item()


def test_a_trained_model_loses_less_than_one_percent_of_perplexity(trained: tuple[GPT, Tensor]) -> None:
    model, rows = trained
    assert loss(model, rows) < 1.5  # chance is 4.2
    difference = loss(quantize(copy.deepcopy(model)), rows) - loss(model, rows)
    assert abs(math.exp(difference) - 1) < 0.01


def test_all_linear_layers_take_a_byte_a_weight_and_the_original_is_copied() -> None:
    model = random_model(tiny_config(bias=False))
    packed = quantize(copy.deepcopy(model))
    assert not [module for module in packed.modules() if isinstance(module, nn.Linear)]
    assert sum(isinstance(module, Int8Linear) for module in packed.modules()) == 4 * 2 + 1
    assert {p.dtype for p in packed.parameters()} == {torch.bfloat16}
    assert packed.device == model.device and model.lm_head.weight is model.transformer.wte.weight


def test_decoding_with_the_cache_equals_decoding_without(trained: tuple[GPT, Tensor]) -> None:
    model = quantize(copy.deepcopy(trained[0]))
    texts = [
        list(generate(model, [5, 9], max_tokens=50, sampling=Sampling(temperature=0), use_cache=use_cache))
        for use_cache in (True, False)
    ]
    assert texts[0] == texts[1]


def test_samples_decoded_together_are_those_decoded_alone(trained: tuple[GPT, Tensor]) -> None:
    model = quantize(copy.deepcopy(trained[0]))
    tokens = random_tokens(model.config, 1, 20)
    together = model(tokens.expand(3, -1))
    torch.testing.assert_close(together[2], model(tokens)[0], rtol=0.02, atol=0.02)
