"""How Hugging Face stores a family of models: config.json, and the names and layout of the weights.

hf/folder.py reads with a Family and hf/export.py writes with it, so each fact about an architecture is written here once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from config import Config, ModelConfig
from jojo.checkpoints.checkpoint import MASKS
from utils import UserError, one_line

EMBEDDING, OUTPUT = "transformer.wte.weight", "lm_head.weight"  # two names of one matrix


@dataclass(frozen=True)
class Family:
    """One architecture."""

    model_type: str  # the family's name in config.json
    architecture: str  # the class in transformers
    shape: Mapping[str, tuple[str, ...]]  # field of ModelConfig -> keys of config.json; reads the first, writes all
    defaults: Mapping[str, Any]  # values for keys of `shape` that config.json may leave out
    mlp_width: str  # the key that may hold the width inside the MLP; model.py always has 4 * n_embd
    fixed: Mapping[str, tuple[Any, ...]]  # what model.py computes: key -> equivalent values, the default first
    other: Mapping[str, Any]  # other keys to write to config.json
    prefix: str  # start of weight names; the family's original files may leave it out
    transposed: tuple[str, ...]  # endings of the names of matrices stored as (in, out); ours are (out, in)

    def write_config(self, shape: ModelConfig) -> dict[str, Any]:
        """Our shape as keys of config.json."""
        return {
            "architectures": [self.architecture],
            "model_type": self.model_type,
            **{key: values[0] for key, values in self.fixed.items() if values[0] is not None},
            **{key: getattr(shape, field) for field, keys in self.shape.items() for key in keys},
            self.mlp_width: None,
            **self.other,
        }

    def read_config(self, values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        """The fields of ModelConfig that a config.json gives. Raises UserError if model.py computes something else."""
        for key, allowed in self.fixed.items():
            value = values.get(key, allowed[0])
            if not any(type(value) is type(a) and value == a for a in allowed):
                raise unsupported(folder, key, value, allowed)
        values = {**self.defaults, **values}
        if missing := next((keys[0] for keys in self.shape.values() if keys[0] not in values), None):
            raise UserError(f"'{folder / 'config.json'}' has no '{missing}'.")
        shape = {field: values[keys[0]] for field, keys in self.shape.items()}
        n_embd = Config.from_dict({"model": shape}, str(folder / "config.json")).model.n_embd
        if values.get(self.mlp_width) not in (None, 4 * n_embd):
            raise unsupported(folder, self.mlp_width, values[self.mlp_width], (4 * n_embd,))
        return shape

    def transpose(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights from our layout to the family's, or back: doing it twice changes nothing."""
        return {n: t.t().contiguous() if n.endswith(self.transposed) else t.contiguous() for n, t in weights.items()}

    def read_weights(self, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Stored weights under our names and in our layout, without the output matrix and causal masks."""
        named = {
            name if name.startswith((self.prefix, "lm_head.")) else self.prefix + name: tensor
            for name, tensor in stored.items()
            if not f".{name}".endswith(MASKS)
        }
        if odd := next((n for n, t in named.items() if n.endswith(self.transposed) and t.dim() != 2), None):
            raise UserError(f"The weight '{one_line(odd)}' is not a matrix.")
        output, embedding = named.pop(OUTPUT, None), named.get(EMBEDDING)
        if output is not None and (embedding is None or not torch.equal(output, embedding)):
            raise UserError(f"'{OUTPUT}' differs from '{EMBEDDING}'; this version has one matrix for both.")
        return self.transpose(named)


GPT2 = Family(
    model_type="gpt2",
    architecture="GPT2LMHeadModel",
    shape={
        "n_layer": ("n_layer",),
        "n_head": ("n_head",),
        "n_embd": ("n_embd",),
        "block_size": ("n_positions", "n_ctx"),
        "dropout": ("resid_pdrop", "embd_pdrop", "attn_pdrop"),
    },
    defaults={"resid_pdrop": 0.1},
    mlp_width="n_inner",
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
    other={"initializer_range": 0.02, "use_cache": True, "dtype": "float32"},
    prefix="transformer.",
    transposed=("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight"),
)
FAMILIES = {family.model_type: family for family in (GPT2,)}


def family_of(values: Mapping[str, Any], folder: Path) -> Family:
    """The family that a config.json names. Raises UserError if it is not one of ours."""
    name = values.get("model_type")
    if not isinstance(name, str) or name not in FAMILIES:
        raise unsupported(folder, "model_type", name, tuple(FAMILIES))
    return FAMILIES[name]


def unsupported(folder: Path, key: str, value: object, allowed: tuple[Any, ...]) -> UserError:
    """The error for a value in config.json that model.py cannot compute."""
    known = " or ".join(map(str, allowed))
    return UserError(f"The model in '{folder}' has {key} = {one_line(value, 40)}; this version only computes {known}.")
