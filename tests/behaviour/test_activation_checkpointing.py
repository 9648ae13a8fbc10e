"""Tests of training.activation_checkpointing: it gives the same numbers to the last bit and needs less memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers_model import QWEN3, random_model, random_tokens, tiny_config
from helpers_run import (
    both_architectures,
    differences,
    make_trainer,
    metrics_rows,
    settle,
    state_of,
    stop_after,
    train,
    train_plainly,
)
from torch import Tensor

import model as model_module
from jojo.networks.common import KVCache
from model import GPT

ON = ("--training.activation_checkpointing", "true")


@pytest.fixture(autouse=True)
def folder_with_data(tmp_path, monkeypatch):
    settle(tmp_path, monkeypatch)


def flags(dropout: str, dtype: str) -> tuple[str, ...]:
    return (
        *("--model.n_layer", "3", "--model.dropout", dropout, "--dtype", dtype, "--max_iters", "4"),
        *("--training.gradient_accumulation_steps", "2"),
    )


# --- the same numbers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("dropout", ["0", "0.3"])
@both_architectures
def test_checkpointing_changes_no_bit_of_losses_and_gradients(
    family: tuple[str, ...], dropout: str, dtype: str
) -> None:
    """Trainer.step runs the backward pass outside of autocast, but the recomputation must run inside."""
    losses, gradients = [], []
    for extra in ((), ON):
        trainer = make_trainer(*flags(dropout, dtype), *family, *extra)
        trainer.model.zero_grad = lambda set_to_none=True: None  # type: ignore[method-assign]
        trainer.optimizers = []
        losses.append(trainer.step(trainer.loader.batch(0, 0)).loss)
        gradients.append({name: p.grad for name, p in trainer.model.named_parameters()})
    assert losses[0] == losses[1]
    assert all(g is not None and g.any() for g in gradients[0].values())
    assert differences(gradients[0], gradients[1]) == []


@pytest.mark.parametrize(("dropout", "dtype"), [("0", "bfloat16"), ("0.3", "float32")])
def test_a_run_with_checkpointing_ends_with_the_same_weights(dropout: str, dtype: str) -> None:
    for name, extra in (("kept", ()), ("again", ON)):
        assert train(*flags(dropout, dtype), *extra, "--output_checkpoint", f"models/{name}.pt").code == 0
    kept, again = state_of("models/kept.pt"), state_of("models/again.pt")
    assert (
        kept["config"]["training"]["activation_checkpointing"],
        again["config"]["training"]["activation_checkpointing"],
    ) == (False, True)
    assert (
        differences({k: kept[k] for k in ("model", "optimizer")}, {k: again[k] for k in ("model", "optimizer")}) == []
    )
    assert metrics_rows("models/kept.metrics.jsonl") == metrics_rows("models/again.metrics.jsonl")


@pytest.mark.parametrize("family", [{}, QWEN3 | {"n_embd": 16}], ids=["gpt2", "qwen3"])
def test_compiled_blocks_are_recomputed_too(family: dict[str, Any]) -> None:
    results = []
    for on in (False, True):
        torch._dynamo.reset()
        model = random_model(tiny_config(n_layer=2, **family)).train()
        for block in model.transformer.h:
            block.compile(backend="aot_eager")
        model.transformer.checkpointing = on
        loss, saved = loss_and_saved_bytes(model)
        results.append((loss.detach(), {name: p.grad for name, p in model.named_parameters()}))
        assert model.transformer.h[0]._compiled_call_impl is not None
    assert torch.equal(results[0][0], results[1][0])
    assert differences(results[0][1], results[1][1]) == []
    assert saved < 2 * 32 * 16 * 4 * 8  # only of tensors outside of the blocks


# --- less memory ----------------------------------------------------------------------------------------------------


def loss_and_saved_bytes(model: GPT) -> tuple[Tensor, int]:
    """The loss of 2 x 32 tokens after a backward pass, and the bytes that the forward pass kept for the backward pass.

    Weights are not counted, because they are in memory anyway.
    """
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    tokens = random_tokens(model.config, 2, 32)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = model(tokens, tokens)
    size = sum(kept.values())
    loss.backward()
    return loss, size


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_block_keeps_only_its_input(dropout: float) -> None:
    def saved(n_layer: int, on: bool) -> int:
        model = random_model(tiny_config(n_layer=n_layer, dropout=dropout)).train()
        model.transformer.checkpointing = on
        return loss_and_saved_bytes(model)[1]

    of_a_block = (saved(6, on=False) - saved(2, on=False)) / 4
    its_input = 2 * 32 * 16 * 4  # B T C, float32
    assert of_a_block > 12 * its_input  # norms, q k v, attention, and four widths of the MLP twice
    assert saved(6, on=True) - saved(2, on=True) == 4 * its_input
    assert saved(6, on=True) < saved(6, on=False) / 5


def test_blocks_are_recomputed_only_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluation, generation and passes without gradients keep no activations, so there is nothing to recompute."""
    monkeypatch.setattr(model_module, "checkpoint", lambda *_, **__: pytest.fail("checkpointed all the same"))
    config = tiny_config()
    model, tokens = random_model(config), random_tokens(config, 1, 8)
    model.transformer.checkpointing = True
    model(tokens)
    with torch.no_grad():
        model.train()(tokens)
    model.eval().next_logits(tokens, KVCache(config, 1, torch.device("cpu"), torch.float32))


def test_the_random_state_is_kept_only_with_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    plain = model_module.checkpoint

    def recording(*args: object, **settings: object) -> object:
        asked.append(settings)
        return plain(*args, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(model_module, "checkpoint", recording)
    for dropout in (0.0, 0.1):
        model = random_model(tiny_config(n_layer=1, dropout=dropout)).train()
        model.transformer.checkpointing = True
        loss_and_saved_bytes(model)
    assert asked == [{"use_reentrant": False, "preserve_rng_state": keep} for keep in (False, True)]


# --- resuming -------------------------------------------------------------------------------------------------------


def test_checkpointing_can_be_switched_on_when_a_run_is_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    train(*flags("0.3", "float32"), "--output_checkpoint", "models/whole.pt")
    stop_after(monkeypatch, 2)
    train(*flags("0.3", "float32"))
    stop_after(monkeypatch, None)
    assert train_plainly("--resume", "models/mine_epoch1.pt", *ON).code == 0
    whole, resumed = state_of("models/whole.pt"), state_of("models/mine_epoch1.pt")
    assert resumed["config"]["training"]["activation_checkpointing"] is True
    assert differences(whole["model"], resumed["model"]) == []
