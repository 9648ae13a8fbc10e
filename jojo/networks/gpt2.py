"""GPT-2: LayerNorm, attention, GELU in its tanh form, learned positions, optional biases.

Radford et al. 2019, "Language Models are Unsupervised Multitask Learners". Parameters have the names that nanoGPT
and Jojo 1 and 2 used (`transformer.h.0.attn.c_attn.weight`, ...), so their checkpoints load.

Shape letters: B batch, T time (tokens), C channels (n_embd), H heads, D head size (C / H), V vocabulary rows.
"""

from __future__ import annotations

import itertools

from torch import Tensor, nn

from config import ModelConfig
from jojo.kernels.activation import Gelu, projected
from jojo.kernels.norm import Rotation
from jojo.networks.common import CausalAttention, Formulas, Network, Shapes


class Attention(CausalAttention):
    """Queries, keys and values have the same number of heads. Positions are learned, so there is no rotation."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.n_head = config.n_head
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)

    def heads(self, x: Tensor, rotation: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        B, T, C = x.shape
        qkv = self.c_attn(x)  # (B, T, 3 C)
        q, k, v = (part.view(B, T, self.n_head, C // self.n_head).transpose(1, 2) for part in qkv.split(C, dim=2))
        return q, k, v  # (B, H, T, D)


class MLP(nn.Module):
    """Two linear layers with GELU between them (the tanh form, as in GPT-2); the inner width is 4 C."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(projected(self.c_fc(x), Gelu, self.c_proj))


def norm(config: ModelConfig) -> nn.Module:
    """A LayerNorm of the residual stream."""
    return nn.LayerNorm(config.n_embd, bias=config.bias)


class GPT2Formulas(Formulas):
    """GPT-2's: 12·C² parameters in the matrices of a block."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        V, C = self.output
        self.embeddings = {"transformer.wte.weight": (V, C), "transformer.wpe.weight": (config.block_size, C)}
        self.last_norm = self._with_bias({"transformer.ln_f": (C,)})
        attention: Shapes = {"ln_1": (C,), "attn.c_attn": (3 * C, C), "attn.c_proj": (C, C)}
        mlp: Shapes = {"ln_2": (C,), "mlp.c_fc": (4 * C, C), "mlp.c_proj": (C, 4 * C)}
        self.block = self._with_bias(attention | mlp)
        self.stacks = {"attn.c_attn.weight": (C, C, C)}  # queries, keys, values

    def _with_bias(self, modules: Shapes) -> Shapes:
        kinds = ("weight", "bias") if self.config.bias else ("weight",)
        shapes = itertools.product(modules.items(), kinds)
        return {f"{name}.{kind}": shape if kind == "weight" else shape[:1] for (name, shape), kind in shapes}

    def kept_bytes_per_token(self, dtype: str, device: str) -> int:
        C, H, size = self.config.n_embd, self.config.n_head, 4 if dtype == "float32" else 2
        residuals = 2 * 4 * C + 16  # the inputs of both LayerNorms, with their means and deviations, in float32
        norms = 2 * size * C  # their outputs, which c_attn and c_fc read
        mlp = 4 * size * C  # the input of GELU
        attention = 4 * size * C + 4 * H  # q, k, v, the output y, and the log-sum-exp of each row of scores
        masks = 2 * C if self.config.dropout else 0  # dropout's: a byte per channel, after attention and the MLP
        if device == "cpu" and self.config.dropout:
            masks = 2 * size * C
        if scores := self.dropout_scores(dtype, device):  # three such matrices
            attention = 4 * size * C + 3 * scores
        elif device == "cpu" and dtype != "float32":  # kernels/attention.py: q, k, v, y (B, H, T, D), y again (B, T, C)
            attention = 5 * size * C
        return residuals + norms + mlp + attention + masks

    def gradient_bytes_per_token(self, dtype: str, device: str) -> int:
        inner = 4 * self.config.n_embd * (4 if dtype == "float32" else 2)  # the MLP's inner layer
        scores = self.dropout_scores(dtype, device)
        return max(inner, scores - inner)  # GELU's input is freed before the scores get their gradient


GPT2 = Network(norm, Attention, MLP, GPT2Formulas)
