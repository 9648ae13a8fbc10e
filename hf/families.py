"""How Hugging Face stores a family of models: config.json, and the names and layout of the weights.

hf/folder.py reads with a Family and hf/export.py writes with it, so each fact about an architecture is written here once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from config import Config, ModelConfig
from jojo.checkpoints.checkpoint import MASKS
from jojo.networks import formulas
from jojo.networks.qwen3 import inner_width
from utils import UserError, one_line

EMBEDDING, OUTPUT = "transformer.wte.weight", "lm_head.weight"  # often two names of one matrix


@dataclass(frozen=True)
class Family:
    """One architecture."""

    name: str  # in model.architecture, and as the model_type of config.json
    architecture: str  # the class in transformers
    paper: str  # for the model card
    shape: Mapping[str, tuple[str, ...]]  # field of ModelConfig -> keys of config.json; reads the first, writes all
    defaults: Mapping[str, Any]  # values for keys of `shape` that config.json may leave out
    fixed: Mapping[str, tuple[Any, ...]]  # what our network computes: key -> equivalent values, the default first
    other: Mapping[str, Any]  # other keys to write to config.json

    def write_config(self, shape: ModelConfig) -> dict[str, Any]:
        """Our shape as keys of config.json."""
        return {
            "architectures": [self.architecture],
            "model_type": self.name,
            **{key: values[0] for key, values in self.fixed.items() if values[0] is not None},
            **{key: getattr(shape, field) for field, keys in self.shape.items() for key in keys},
            **self.other,
        }

    def read_config(self, values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        """The fields of ModelConfig that a config.json gives. Raises UserError if our network computes something else."""
        for key, allowed in self.fixed.items():
            value = values.get(key, allowed[0])
            if not any(type(value) is type(a) and value == a for a in allowed):
                raise unsupported(folder, key, value, allowed)
        values = {**self.defaults, **values}
        if missing := next((keys[0] for keys in self.shape.values() if keys[0] not in values), None):
            raise UserError(f"'{folder / 'config.json'}' has no '{missing}'.")
        shape = {"architecture": self.name} | {field: values[keys[0]] for field, keys in self.shape.items()}
        Config.from_dict({"model": shape}, str(folder / "config.json"))
        return shape

    def write_weights(self, weights: Mapping[str, Tensor], shape: ModelConfig) -> dict[str, Tensor]:
        """Our weights under the family's names and in its layout."""
        raise NotImplementedError

    def read_weights(self, stored: Mapping[str, Tensor], shape: ModelConfig) -> dict[str, Tensor]:
        """The inverse of write_weights. A tied output matrix is left out."""
        raise NotImplementedError


class GPT2Family(Family):
    """GPT-2 has our names; four matrices are stored as (in, out), ours are (out, in)."""

    TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")

    def read_config(self, values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        shape = super().read_config(values, folder)
        if values.get("n_inner") not in (None, 4 * shape["n_embd"]):
            raise unsupported(folder, "n_inner", values["n_inner"], (4 * shape["n_embd"],))
        return shape

    def write_weights(self, weights: Mapping[str, Tensor], shape: ModelConfig) -> dict[str, Tensor]:
        biased = formulas(replace(shape, bias=True)).weights()  # transformers expects biases
        zeros = {name: torch.zeros(size) for name, size in biased.items() if name.endswith(".bias")}
        return self._transpose(zeros | {name: tensor for name, tensor in weights.items() if name != OUTPUT})

    def read_weights(self, stored: Mapping[str, Tensor], shape: ModelConfig) -> dict[str, Tensor]:
        named = {  # OpenAI's files leave "transformer." out
            name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}": tensor
            for name, tensor in stored.items()
            if not f".{name}".endswith(MASKS)
        }
        if odd := next((n for n, t in named.items() if n.endswith(self.TRANSPOSED) and t.dim() != 2), None):
            raise UserError(f"The weight '{one_line(odd)}' is not a matrix.")
        return self._transpose(without_tied(named))

    def _transpose(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """From our layout to theirs, or back: doing it twice changes nothing."""
        return {n: t.t().contiguous() if n.endswith(self.TRANSPOSED) else t.contiguous() for n, t in weights.items()}


class Qwen3Family(Family):
    """Qwen3 has other names, and keeps apart what we stack: queries, keys and values; gate and up."""

    OUTSIDE: ClassVar = {  # their name -> ours
        "model.embed_tokens.weight": EMBEDDING,
        "model.norm.weight": "transformer.ln_f.weight",
        OUTPUT: OUTPUT,
    }
    BLOCK: ClassVar = {  # our name of a block's weight -> their names of its parts
        "ln_1.weight": ("input_layernorm.weight",),
        "attn.c_attn.weight": ("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"),
        "attn.q_norm.weight": ("self_attn.q_norm.weight",),
        "attn.k_norm.weight": ("self_attn.k_norm.weight",),
        "attn.c_proj.weight": ("self_attn.o_proj.weight",),
        "ln_2.weight": ("post_attention_layernorm.weight",),
        "mlp.c_fc.weight": ("mlp.gate_proj.weight", "mlp.up_proj.weight"),
        "mlp.c_proj.weight": ("mlp.down_proj.weight",),
    }

    def write_config(self, shape: ModelConfig) -> dict[str, Any]:
        full = replace(shape, n_kv_head=shape.kv_heads, n_inner=inner_width(shape))
        own = {
            "head_dim": shape.n_embd // shape.n_head,
            "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
        }
        return super().write_config(full) | own

    def read_config(self, values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        rope = values.get("rope_parameters") or {}  # transformers 4 had rope_theta outside of it
        if not isinstance(rope, dict) or rope.get("rope_type", rope.get("type", "default")) != "default":
            raise unsupported(folder, "rope_parameters", rope, ("the default rope_type",))
        theta = rope.get("rope_theta", values.get("rope_theta", 10_000.0))
        shape = super().read_config({**values, "rope_theta": theta}, folder)
        size, width = values.get("head_dim", 128), shape["n_embd"] // shape["n_head"]
        if size != width:
            raise unsupported(folder, "head_dim", size, (width,))
        layers = values.get("layer_types")
        if layers not in (None, ["full_attention"] * shape["n_layer"]):
            raise unsupported(folder, "layer_types", layers, ("full_attention in every layer",))
        return shape

    def write_weights(self, weights: Mapping[str, Tensor], shape: ModelConfig) -> dict[str, Tensor]:
        model, stored = formulas(shape), {}
        for theirs, ours in self.OUTSIDE.items():
            if not (theirs == OUTPUT and shape.tie_embeddings):
                stored[theirs] = weights[ours].contiguous()
        for layer in range(shape.n_layer):
            for ours, parts in self.BLOCK.items():
                weight = weights[f"transformer.h.{layer}.{ours}"]
                split = torch.split(weight, list(model.rows_of(ours)))
                stored |= {f"model.layers.{layer}.{name}": p.contiguous() for name, p in zip(parts, split, strict=True)}
        return stored

    def read_weights(self, stored: Mapping[str, Tensor], shape: ModelConfig) -> dict[str, Tensor]:
        stored, model = dict(stored), formulas(replace(shape, vocab_size=1))  # hf/folder.py compares the vocabulary

        def take(name: str, size: tuple[int, ...] | None = None) -> Tensor:
            if (tensor := stored.pop(name, None)) is None:
                raise UserError(f"The weight '{name}' is missing.")
            if size not in (None, tuple(tensor.shape)):
                raise UserError(f"The weight '{name}' has the shape {tuple(tensor.shape)} instead of {size}.")
            return tensor

        named = {ours: take(theirs) for theirs, ours in self.OUTSIDE.items() if ours != OUTPUT}
        if OUTPUT in stored or not shape.tie_embeddings:
            named[OUTPUT] = take(OUTPUT, tuple(named[EMBEDDING].shape))
        for layer in range(shape.n_layer):
            for ours, (_, *columns) in model.block.items():
                rows = zip(self.BLOCK[ours], model.rows_of(ours), strict=True)
                parts = [take(f"model.layers.{layer}.{name}", (n, *columns)) for name, n in rows]
                named[f"transformer.h.{layer}.{ours}"] = torch.cat(parts)
        if odd := next(iter(stored), None):
            raise UserError(f"The weight '{one_line(odd)}' is not part of a Qwen3.")
        return without_tied(named) if shape.tie_embeddings else named


def without_tied(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights without the output matrix. Raises UserError if it differs from the embedding."""
    output, embedding = weights.pop(OUTPUT, None), weights.get(EMBEDDING)
    if output is not None and (embedding is None or not torch.equal(output, embedding)):
        raise UserError(f"'{OUTPUT}' is not the embedding, although config.json says that they are one matrix.")
    return weights


GPT2 = GPT2Family(
    name="gpt2",
    architecture="GPT2LMHeadModel",
    paper="GPT-2's: Radford, Wu, Child, Luan, Amodei and Sutskever (2019), *Language Models are Unsupervised\nMultitask Learners*",
    shape={
        "n_layer": ("n_layer",),
        "n_head": ("n_head",),
        "n_embd": ("n_embd",),
        "block_size": ("n_positions", "n_ctx"),
        "dropout": ("resid_pdrop", "embd_pdrop", "attn_pdrop"),
    },
    defaults={"resid_pdrop": 0.1},
    fixed={
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "layer_norm_epsilon": (1e-5,),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "reorder_and_upcast_attn": (False,),
        "add_cross_attention": (False,),
        "tie_word_embeddings": (True,),
        "quantization_config": (None,),
    },
    other={"n_inner": None, "initializer_range": 0.02, "use_cache": True, "dtype": "float32"},
)
QWEN3 = Qwen3Family(
    name="qwen3",
    architecture="Qwen3ForCausalLM",
    paper="Qwen3's: Yang et al. (2025), *Qwen3 Technical Report*",
    shape={
        "n_layer": ("num_hidden_layers",),
        "n_head": ("num_attention_heads",),
        "n_kv_head": ("num_key_value_heads",),
        "n_embd": ("hidden_size",),
        "n_inner": ("intermediate_size",),
        "block_size": ("max_position_embeddings",),
        "dropout": ("attention_dropout",),
        "tie_embeddings": ("tie_word_embeddings",),
        "norm_eps": ("rms_norm_eps",),
        "rope_theta": ("rope_theta",),
    },
    defaults={"attention_dropout": 0.0, "tie_word_embeddings": False, "rms_norm_eps": 1e-6},
    fixed={
        "hidden_act": ("silu",),
        "attention_bias": (False,),
        "use_sliding_window": (False,),
        "rope_scaling": (None,),
        "quantization_config": (None,),
    },
    other={"initializer_range": 0.02, "use_cache": True, "dtype": "float32"},
)
FAMILIES = {family.name: family for family in (GPT2, QWEN3)}


def family_of(values: Mapping[str, Any], folder: Path) -> Family:
    """The family that a config.json names. Raises UserError if it is not one of ours."""
    name = values.get("model_type")
    if not isinstance(name, str) or name not in FAMILIES:
        raise unsupported(folder, "model_type", name, tuple(FAMILIES))
    return FAMILIES[name]


def unsupported(folder: Path, key: str, value: object, allowed: tuple[Any, ...]) -> UserError:
    """The error for a value in config.json that our networks cannot compute."""
    known = " or ".join(map(str, allowed))
    return UserError(f"The model in '{folder}' has {key} = {one_line(value, 40)}; this version only computes {known}.")
