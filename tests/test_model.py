"""Tests of the networks: they equal GPT-2 and Qwen3 in transformers; initial weights, loss and KV cache."""

from __future__ import annotations

import math
import os
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers_model import QWEN3, both_architectures, random_model, random_tokens, relative_difference, tiny_config
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from config import ModelConfig
from jojo.checkpoints.checkpoint import SIZES
from jojo.networks import formulas
from jojo.networks.common import KVCache
from jojo.networks.gpt2 import Attention
from model import GPT

# This import takes seconds. Offline mode keeps transformers from downloading anything.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
from transformers import GPT2Config, GPT2LMHeadModel, Qwen3Config, Qwen3ForCausalLM

CONV1D = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")


def reference_gpt2(model: GPT) -> GPT2LMHeadModel:
    """GPT-2 in transformers with the weights of `model`; biases that `model` does not have are zero."""
    config = model.config
    reference = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config.vocab_size, n_positions=config.block_size, n_embd=config.n_embd, n_layer=config.n_layer,
            n_head=config.n_head, activation_function="gelu_new", resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
        )
    ).eval()  # fmt: skip
    own = model.state_dict()
    weights = {}
    for name, there in reference.state_dict().items():
        here = own[name] if name in own else torch.zeros_like(there)
        weights[name] = here.T if name.endswith(CONV1D) else here
        assert name in own or name.endswith(".bias"), name
    assert set(own) <= set(weights)
    reference.load_state_dict(weights)
    return reference


def reference_qwen3(model: GPT) -> Qwen3ForCausalLM:
    """Qwen3 in transformers with the weights of `model`."""
    config, state = model.config, model.state_dict()
    heads, D = (config.n_head, config.n_kv_head or config.n_head), config.n_embd // config.n_head
    rows, weights = (heads[0] * D, heads[1] * D, heads[1] * D), {}
    for name, weight in state.items():
        parts: tuple[torch.Tensor, ...] = (weight,)
        there = [name]
        if name.startswith("transformer.h."):
            layer, _, own = name.removeprefix("transformer.h.").partition(".")
            there = [f"model.layers.{layer}.{part}" for part in THEIR_NAMES[own]]
            if len(there) > 1:
                parts = weight.split(rows if len(there) == 3 else len(weight) // 2)
        elif name.startswith("transformer."):
            there = ["model." + {"wte": "embed_tokens", "ln_f": "norm"}[name.split(".")[1]] + ".weight"]
        weights |= dict(zip(there, parts, strict=True))
    reference = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=config.vocab_size, hidden_size=config.n_embd, num_hidden_layers=config.n_layer,
            num_attention_heads=config.n_head, num_key_value_heads=heads[1], head_dim=D, rms_norm_eps=config.norm_eps,
            intermediate_size=state["transformer.h.0.mlp.c_proj.weight"].size(1), tie_word_embeddings=config.tie_embeddings,
            max_position_embeddings=config.block_size,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        )
    ).eval()  # fmt: skip
    reference.load_state_dict(weights)
    return reference


THEIR_NAMES = {
    "ln_1.weight": ["input_layernorm.weight"], "ln_2.weight": ["post_attention_layernorm.weight"],
    "attn.c_attn.weight": [f"self_attn.{name}_proj.weight" for name in "qkv"],
    "attn.q_norm.weight": ["self_attn.q_norm.weight"], "attn.k_norm.weight": ["self_attn.k_norm.weight"],
    "attn.c_proj.weight": ["self_attn.o_proj.weight"], "mlp.c_proj.weight": ["mlp.down_proj.weight"],
    "mlp.c_fc.weight": ["mlp.gate_proj.weight", "mlp.up_proj.weight"],
}  # fmt: skip


# --- the network ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 1, 8), (3, 4, 32), (2, 6, 48)])
def test_logits_equal_those_of_transformers(bias: bool, shape: tuple[int, int, int]) -> None:
    n_layer, n_head, n_embd = shape
    config = tiny_config(n_layer=n_layer, n_head=n_head, n_embd=n_embd, bias=bias, vocab_size=131)
    model = random_model(config, std=0.15)
    tokens = random_tokens(config, 3, config.block_size)
    with torch.no_grad():
        ours, theirs = model(tokens), reference_gpt2(model)(tokens).logits
    assert ours.std() > 0.3  # large enough for the comparison to mean something
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("n_kv_head", [1, 2, None])
def test_logits_and_gradients_of_qwen3_equal_those_of_transformers(tied: bool, n_kv_head: int | None) -> None:
    changes = QWEN3 | {
        "n_kv_head": n_kv_head,
        "tie_embeddings": tied,
        "n_inner": 40 if tied else None,
        "vocab_size": 131,
    }
    config = tiny_config(**changes, n_layer=2)
    model = random_model(config, std=0.2)
    reference = reference_qwen3(model)
    tokens, targets = random_tokens(config, 3, config.block_size), random_tokens(config, 3, config.block_size, seed=1)
    theirs = reference(tokens).logits
    ours = model(tokens)
    assert theirs.std() > 0.3  # large enough for the comparison to mean something
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    model(tokens, targets).backward()
    F.cross_entropy(theirs.flatten(0, 1), targets.flatten(), reduction="sum").backward()
    own = {name: parameter.grad for name, parameter in model.named_parameters()}
    # The gradients in the place of the weights, so that they get the same names as theirs:
    model.load_state_dict(own if not tied else own | {"lm_head.weight": own["transformer.wte.weight"]})
    expected = dict(reference.named_parameters())
    for name, gradient in reference_qwen3(model).named_parameters():
        assert relative_difference(gradient, expected[name].grad) < 1e-4, name


def test_gradients_equal_those_of_transformers() -> None:
    config = tiny_config(n_layer=2, n_head=4, n_embd=32)
    model = random_model(config, std=0.1)
    reference = reference_gpt2(model)
    tokens, targets = random_tokens(config, 2, 20, seed=1), random_tokens(config, 2, 20, seed=2)
    model(tokens, targets).backward()
    F.cross_entropy(reference(tokens).logits.flatten(0, 1), targets.flatten(), reduction="sum").backward()
    theirs = dict(reference.named_parameters())
    for name, parameter in model.named_parameters():
        expected = theirs[name].grad.T if name.endswith(CONV1D) else theirs[name].grad
        assert relative_difference(parameter.grad, expected) < 1e-4, name


@both_architectures
def test_later_tokens_never_change_earlier_logits(family: dict[str, Any]) -> None:
    config = tiny_config(**family, block_size=12)
    model = random_model(config)
    tokens = random_tokens(config, 1, 12)
    with torch.no_grad():
        before = model(tokens)
        for place in range(12):
            changed = tokens.clone()
            changed[0, place] = (changed[0, place] + 1) % config.vocab_size
            after = model(changed)
            torch.testing.assert_close(after[:, :place], before[:, :place], rtol=0, atol=1e-6)
            assert ((after - before)[0, place:].abs().amax(-1) > 1e-3).all()  # every later place changes too


def test_a_sequence_longer_than_the_context_is_refused() -> None:
    config = tiny_config(block_size=8)
    model = random_model(config)
    model(random_tokens(config, 1, 8))
    with pytest.raises(AssertionError, match="context"):
        model(random_tokens(config, 1, 9))


@both_architectures
def test_rows_of_a_batch_do_not_see_each_other(family: dict[str, Any]) -> None:
    config = tiny_config(**family)
    model = random_model(config)
    tokens = random_tokens(config, 4, 16)
    with torch.no_grad():
        together = model(tokens)
        for row in range(4):
            torch.testing.assert_close(together[row], model(tokens[row : row + 1])[0], rtol=0, atol=1e-4)


# --- parameters -----------------------------------------------------------------------------------------------------


def test_state_dict_has_the_names_of_nanogpt() -> None:
    block = [
        "ln_1.weight", "ln_1.bias", "attn.c_attn.weight", "attn.c_attn.bias", "attn.c_proj.weight", "attn.c_proj.bias",
        "ln_2.weight", "ln_2.bias", "mlp.c_fc.weight", "mlp.c_fc.bias", "mlp.c_proj.weight", "mlp.c_proj.bias",
    ]  # fmt: skip
    with_bias = [
        "transformer.wte.weight", "transformer.wpe.weight", *(f"transformer.h.{i}.{name}" for i in (0, 1) for name in block),
        "transformer.ln_f.weight", "transformer.ln_f.bias", "lm_head.weight",
    ]  # fmt: skip
    assert list(GPT(tiny_config(bias=True)).state_dict()) == with_bias
    assert list(GPT(tiny_config(bias=False)).state_dict()) == [n for n in with_bias if not n.endswith(".bias")]


def test_embedding_and_output_layer_share_one_matrix_even_after_a_dtype_change() -> None:
    model = GPT(tiny_config())
    assert model.lm_head.weight is model.transformer.wte.weight
    model = model.to(torch.bfloat16)
    assert model.lm_head.weight is model.transformer.wte.weight
    assert "lm_head.weight" not in dict(model.named_parameters())


def test_weights_have_the_shapes_that_the_config_says() -> None:
    weights = GPT(tiny_config(n_embd=24, vocab_size=70, block_size=9)).state_dict()
    expected = {
        "transformer.wte.weight": (70, 24), "transformer.wpe.weight": (9, 24), "lm_head.weight": (70, 24),
        "transformer.h.1.attn.c_attn.weight": (72, 24), "transformer.h.1.attn.c_proj.weight": (24, 24),
        "transformer.h.1.mlp.c_fc.weight": (96, 24), "transformer.h.1.mlp.c_proj.weight": (24, 96),
    }  # fmt: skip
    assert {name: tuple(weights[name].shape) for name in expected} == expected


@pytest.mark.parametrize("n_layer", [1, 8])
def test_weights_are_initialized_as_in_gpt2(n_layer: int) -> None:
    torch.manual_seed(0)
    model = GPT(tiny_config(n_layer=n_layer, n_embd=128, block_size=64, vocab_size=512))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif ".ln_" in name:
            assert (parameter == 1).all(), name
        else:
            std = 0.02 / math.sqrt(2 * n_layer) if name.endswith("c_proj.weight") else 0.02
            assert parameter.std().item() == pytest.approx(std, rel=0.05), name
            assert abs(parameter.mean().item()) < 5 * std / math.sqrt(parameter.numel()), name


def test_an_untrained_model_gives_all_tokens_nearly_the_same_probability() -> None:
    config = tiny_config(n_layer=4, n_embd=64, n_head=4, vocab_size=256)
    torch.manual_seed(0)
    model = GPT(config)
    loss = model(random_tokens(config, 8, 32), random_tokens(config, 8, 32, seed=1)) / (8 * 32)
    assert loss.item() == pytest.approx(math.log(256), rel=0.01)


@both_architectures
def test_the_same_seed_gives_the_same_weights(family: dict[str, Any]) -> None:
    def build(seed: int) -> list[torch.Tensor]:
        torch.manual_seed(seed)
        return list(GPT(tiny_config(**family)).state_dict().values())

    assert all(torch.equal(a, b) for a, b in zip(build(1), build(1), strict=True))
    assert not torch.equal(build(1)[0], build(2)[0])


@pytest.mark.parametrize(
    ("config", "known"),
    [
        (ModelConfig(12, 12, 768, 1024, 0.0, True, 50257), 124_439_808),  # the published GPT-2 sizes
        (ModelConfig(24, 16, 1024, 1024, 0.0, True, 50257), 354_823_168),
        (ModelConfig(48, 25, 1600, 1024, 0.0, True, 50257), 1_557_611_200),
        (ModelConfig(6, 6, 384, 256, 0.0, False, 50304), None),
        (ModelConfig(1, 1, 8, 2, 0.0, False, 3), 3 * 8 + 2 * 8 + 12 * 64 + 2 * 8 + 8),
        (ModelConfig(3, 4, 32, 17, 0.0, True, 50304), None),
        # Qwen3-4B's shape with heads of 80 channels, which this program has, in place of 128
        (ModelConfig(36, 32, 2560, 40960, 0.0, False, 151936, "qwen3", 8, 9728), None),
    ],
)
def test_the_formula_for_parameters_equals_the_counted_parameters(config: ModelConfig, known: int | None) -> None:
    with torch.device("meta"):
        counted = sum(p.numel() for p in GPT(config).parameters())
    assert counted == formulas(config).n_parameters
    assert known in (None, counted)


@pytest.mark.parametrize("changes", [{"bias": True}, {"bias": False}, QWEN3, QWEN3 | {"tie_embeddings": False}])
def test_the_formulas_list_every_weight_with_its_shape_in_the_models_order(changes: dict[str, Any]) -> None:
    config = tiny_config(**changes, n_layer=3)
    model = GPT(config)
    assert list(formulas(config).weights().items()) == [(n, tuple(p.shape)) for n, p in model.named_parameters()]
    blocks = {n for n, _ in model.transformer.h.named_parameters(prefix="transformer.h")}
    assert set(formulas(config).outside) == {n for n, _ in model.named_parameters()} - blocks
    assert formulas(config).output == tuple(model.lm_head.weight.shape)
    for name, fields in SIZES.items() if config.architecture == "gpt2" else ():
        assert formulas(config).weights()[name] == tuple(getattr(config, field) for field in fields)


# --- the loss -------------------------------------------------------------------------------------------------------


@both_architectures
def test_loss_is_the_sum_over_targets_that_are_not_ignored(family: dict[str, Any]) -> None:
    config = tiny_config(**family)
    model = random_model(config)
    tokens, targets = random_tokens(config, 3, 16), random_tokens(config, 3, 16, seed=1)
    targets[0, :5] = targets[1, 10:] = targets[2] = -1
    with torch.no_grad():
        logits = model(tokens)
        expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="sum")
        assert model(tokens, targets).item() == pytest.approx(expected.item(), rel=1e-5)
        assert model(tokens, torch.full_like(targets, -1)).item() == 0
    assert model(tokens, targets).dtype is torch.float32


def test_ignored_positions_have_no_gradient() -> None:
    config = tiny_config(block_size=16)
    model = random_model(config)
    tokens, targets = random_tokens(config, 1, 16), random_tokens(config, 1, 16, seed=1)
    targets[0, 6:] = -1
    model(tokens, targets).backward()
    position_gradients = model.transformer.wpe.weight.grad
    assert (position_gradients[:6].abs().amax(-1) > 0).all()
    assert not position_gradients[6:].any()


def test_padded_vocabulary_rows_get_no_probability_and_no_gradient() -> None:
    config = tiny_config(vocab_size=64)
    model = random_model(config, n_vocab=50)
    tokens = random_tokens(config, 2, 16, n_vocab=50)
    targets = random_tokens(config, 2, 16, seed=1, n_vocab=50)
    with torch.no_grad():
        model.lm_head.weight[50:] *= 30  # would win every softmax if they took part
        logits = model(tokens)[..., :50].flatten(0, 1)
    loss = model(tokens, targets)
    assert loss.item() == pytest.approx(F.cross_entropy(logits, targets.flatten(), reduction="sum").item(), rel=1e-5)
    loss.backward()
    assert not model.lm_head.weight.grad[50:].any()
    assert (model.lm_head.weight.grad[:50].abs().amax(-1) > 0).all()
    assert model.next_logits(tokens).shape == (2, 50)
    assert model.losses(tokens, targets).sum().item() == pytest.approx(loss.item(), rel=1e-5)


def test_losses_are_the_cross_entropy_of_each_token() -> None:
    config = tiny_config()
    model = random_model(config)
    tokens, targets = random_tokens(config, 3, 16), random_tokens(config, 3, 16, seed=1)
    targets[1, 3:9] = -1
    with torch.no_grad():
        logits = model(tokens)
    expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="none")
    losses = model.losses(tokens, targets)
    assert losses.shape == targets.shape and losses.dtype is torch.float32 and not losses.requires_grad
    torch.testing.assert_close(losses.flatten(), expected, rtol=1e-5, atol=1e-5)
    assert not losses[1, 3:9].any()


def test_thirty_adamw_steps_halve_the_loss_of_a_batch() -> None:
    config = tiny_config()
    torch.manual_seed(0)
    model = GPT(config)
    tokens, targets = random_tokens(config, 4, 16), random_tokens(config, 4, 16, seed=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    history = []
    for _ in range(30):
        loss = model(tokens, targets) / targets.numel()
        history.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert history[-1] < 0.5 * history[0]


# --- dropout --------------------------------------------------------------------------------------------------------


def test_dropout_acts_in_training_only() -> None:
    config = tiny_config(dropout=0.3)
    model = random_model(config)
    plain = random_model(tiny_config(dropout=0.0)).train()  # the same weights
    tokens = random_tokens(config, 2, 16)
    with torch.no_grad():
        assert torch.equal(model(tokens), model(tokens))
        torch.testing.assert_close(model(tokens), plain(tokens), rtol=0, atol=1e-5)
        model.train()
        assert not torch.allclose(model(tokens), model(tokens), atol=1e-2)
        torch.manual_seed(5)
        first = model(tokens)
        torch.manual_seed(5)
        assert torch.equal(model(tokens), first)


@pytest.mark.parametrize("place", ["drop", "attn", "attn.resid_dropout", "mlp.dropout"])
def test_dropout_acts_at_each_of_gpt2s_four_places(place: str) -> None:
    config = tiny_config(dropout=0.5, n_layer=1)
    model = random_model(config).train()
    transformer, block = model.transformer, model.transformer.h[0]
    places = {
        "drop": transformer.drop,
        "attn.resid_dropout": block.attn.resid_dropout,
        "mlp.dropout": block.mlp.dropout,
    }
    for name, dropout in places.items():
        dropout.p = 0.5 if name == place else 0.0
    block.attn.dropout = 0.5 if place == "attn" else 0.0  # of the attention weights
    tokens = random_tokens(config, 2, 16)
    with torch.no_grad():
        first, second, whole = model(tokens), model(tokens), model.eval()(tokens)
    assert not torch.allclose(first, second, atol=1e-2)
    assert not torch.allclose(first, whole, atol=1e-2)


# --- the KV cache ---------------------------------------------------------------------------------------------------


@both_architectures
@pytest.mark.parametrize("pieces", [[16], [1] * 16, [5, 1, 1, 4, 5], [15, 1], [1, 15], [2, 3, 11]])
def test_reading_tokens_in_pieces_with_the_kv_cache_equals_reading_them_at_once(
    family: dict[str, Any], pieces: list[int]
) -> None:
    config = tiny_config(**family, n_layer=3, block_size=16)
    model = random_model(config)
    tokens = random_tokens(config, 2, 16)
    cache = KVCache(config, 2, torch.device("cpu"), torch.float32)
    with torch.no_grad():
        whole = model.transformer(tokens)
        parts = []
        for piece in tokens.split(pieces, dim=1):
            parts.append(model.transformer(piece, cache))
    assert cache.length == 16
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=1e-4)


@both_architectures
def test_next_logits_equal_the_last_logits_of_forward_with_and_without_a_cache(family: dict[str, Any]) -> None:
    config = tiny_config(**family, block_size=16)
    model = random_model(config, n_vocab=60)
    tokens = random_tokens(config, 2, 10, n_vocab=60)
    cache = KVCache(config, 2, model.device, torch.float32)
    with torch.no_grad():
        expected = model(tokens)[:, -1, :60]
    torch.testing.assert_close(model.next_logits(tokens), expected, rtol=0, atol=1e-4)
    model.next_logits(tokens[:, :9], cache)
    torch.testing.assert_close(model.next_logits(tokens[:, 9:], cache), expected, rtol=0, atol=1e-4)
    assert model.to(torch.bfloat16).next_logits(tokens).dtype is torch.float32


def test_a_cache_whose_length_is_set_to_0_ignores_its_earlier_contents() -> None:
    config = tiny_config(block_size=16)
    model = random_model(config)
    cache = KVCache(config, 1, model.device, torch.float32)
    model.next_logits(random_tokens(config, 1, 16, seed=7), cache)
    cache.length = 0
    tokens = random_tokens(config, 1, 6)
    torch.testing.assert_close(model.next_logits(tokens, cache), model.next_logits(tokens), rtol=0, atol=1e-4)


def test_the_cache_is_allocated_once_and_refuses_tokens_when_it_is_full() -> None:
    config = tiny_config(block_size=8)
    model = random_model(config)
    cache = KVCache(config, 1, model.device, torch.float32)
    place = cache.keys.data_ptr()
    assert cache.keys.shape == cache.values.shape == (2, 1, 2, 8, 8)
    for _ in range(8):
        model.next_logits(random_tokens(config, 1, 1), cache)
    assert cache.keys.data_ptr() == place
    with pytest.raises(AssertionError, match="context"):
        model.next_logits(random_tokens(config, 1, 1), cache)


def test_an_attention_head_does_not_change_the_output_of_another() -> None:
    config = tiny_config(n_head=2, n_embd=8, bias=False)
    torch.manual_seed(0)
    attention = Attention(config, 0).eval()
    with torch.no_grad():
        attention.c_proj.weight.copy_(torch.eye(8))
        x = torch.randn(1, 5, 8)
        before = attention(x)
        attention.c_attn.weight[4:8] *= 3  # the second head's queries
        after = attention(x)
    assert torch.equal(before[..., :4], after[..., :4])
    assert not torch.allclose(before[:, 1:, 4:], after[:, 1:, 4:], atol=1e-3)


# --- FLOPs -------------------------------------------------------------------------------------------------------------

SHAPES = [
    tiny_config(n_layer=1, n_embd=8, n_head=1, vocab_size=40, block_size=8),
    tiny_config(n_layer=3, n_embd=32, n_head=4, vocab_size=64, block_size=48, bias=False),
    tiny_config(n_layer=2, n_embd=16, n_head=2, vocab_size=1000, block_size=16),
    tiny_config(n_layer=2, n_embd=16, n_head=4, vocab_size=32, block_size=256),
    tiny_config(**QWEN3, n_layer=2, vocab_size=1000),
    tiny_config(**QWEN3 | {"tie_embeddings": False, "n_inner": 80}, n_layer=1, vocab_size=90),
]


def counted_flops_per_token(config: ModelConfig) -> tuple[float, float]:
    """FLOPs per token that torch counts in forward and backward with the plain loss: (of the weights, of attention).

    Attention runs in the math kernel, because torch does not count the fused CPU kernel. The math kernel
    multiplies the whole T x T square, as the estimate assumes, and recomputes nothing.
    """
    model = GPT(config)
    tokens = random_tokens(config, 2, config.block_size)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        F.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()).backward()
    counts = counter.get_flop_counts()["Global"]
    attention = counts.get(torch.ops.aten.bmm, 0)
    return (sum(counts.values()) - attention) / tokens.numel(), attention / tokens.numel()


@pytest.mark.parametrize("config", SHAPES)
def test_flops_per_token_equal_what_torch_counts(config: ModelConfig) -> None:
    matrices, attention = counted_flops_per_token(config)
    assert formulas(config).flops_per_token == pytest.approx(matrices + attention, rel=0.01)


@pytest.mark.parametrize("config", SHAPES)
def test_flops_are_6_per_multiplied_parameter_plus_the_attention_term(config: ModelConfig) -> None:
    matrices, attention = counted_flops_per_token(config)
    # 6 per parameter, except for parameters that are only looked up or added: positions, biases, LayerNorms.
    vectors = sum(p.numel() for p in GPT(config).parameters() if p.dim() == 1)
    looked_up = (
        config.block_size if config.architecture == "gpt2" else 0 if config.tie_embeddings else config.vocab_size
    )
    multiplied = formulas(config).n_parameters - looked_up * config.n_embd - vectors
    assert matrices == pytest.approx(6 * multiplied, rel=0.01)
    assert attention == pytest.approx(12 * config.n_layer * config.n_embd * config.block_size, rel=0.01)


def test_the_parameters_and_flops_of_gpt2_are_the_published_ones() -> None:
    gpt2 = ModelConfig(12, 12, 768, 1024, 0.0, True, 50257)
    assert formulas(gpt2).n_parameters == 124_439_808
    assert formulas(gpt2).flops_per_token == pytest.approx(6 * 123.6e6 + 12 * 12 * 768 * 1024, rel=1e-3)
