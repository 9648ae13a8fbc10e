"""Tests of the moving average of the weights, against PyTorch's."""

from __future__ import annotations

import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from config import ModelConfig
from jojo.averaging import WeightAverage
from model import GPT


def tiny_model() -> GPT:
    torch.manual_seed(0)
    return GPT(ModelConfig(n_layer=1, n_head=1, n_embd=8, block_size=4, vocab_size=16))


@torch.no_grad()
def move(model: GPT) -> None:
    for weight in model.parameters():
        weight.add_(torch.randn_like(weight))


def test_the_average_is_pytorchs_exponential_moving_average() -> None:
    model = tiny_model()
    ours, theirs = WeightAverage(model, 0.9), AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    theirs.update_parameters(model)  # its first call copies the weights
    for batches_done in range(100, 105):  # at batch 81, (1 + t) / (10 + t) passes 0.9
        move(model)
        ours.update(batches_done)
        theirs.update_parameters(model)
    for name, average in theirs.module.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], average)


def test_the_average_forgets_the_first_weights_in_the_first_batches() -> None:
    model = tiny_model()
    average, weight = WeightAverage(model, 0.999), model.transformer.wte.weight
    expected = weight.detach().double().clone()
    for batches_done, keep in enumerate((1 / 10, 2 / 11, 3 / 12)):
        move(model)
        average.update(batches_done)
        expected = keep * expected + (1 - keep) * weight.detach().double()
    torch.testing.assert_close(average.averages[weight].double(), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_the_model_has_the_averages_only_inside_the_block(decay: float) -> None:
    model = tiny_model()
    average = WeightAverage(model, decay)
    move(model)
    average.update(50)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    averaged = {name: weight.clone() for name, weight in average.state_dict().items()}
    with pytest.raises(RuntimeError, match="in the block"), average.in_model():
        for name, weight in model.state_dict().items():
            assert torch.equal(weight, averaged[name]) and torch.equal(weight, before[name]) == (decay == 0)
        raise RuntimeError("in the block")
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name])
    assert all(torch.equal(weight, averaged[name]) for name, weight in average.state_dict().items())
