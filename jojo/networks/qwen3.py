"""Qwen3: RMSNorm, SwiGLU, rotary positions, key and value heads that several query heads share, and no biases.

Yang et al. 2025, "Qwen3 Technical Report"; the equations are those of transformers' Qwen3ForCausalLM, with which the tests
compare. A weight has the name of GPT-2's weight with the same task. `c_attn` holds queries, keys and values above one
another; `c_fc` holds gate and up.

Shape letters: B batch, T time (tokens), C channels (n_embd), H query heads, K key/value heads, D head size (C / H),
F inner width of the MLP, V vocabulary rows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from config import ModelConfig
from jojo.kernels.activation import SwiGlu, projected
from jojo.kernels.norm import Rotation, rms_norm, rotated_norms
from jojo.networks.common import CausalAttention, Formulas, Network

WIDTH_MULTIPLE = 64  # the MLP's inner width is rounded up to it, for faster matrix products


def inner_width(config: ModelConfig) -> int:
    """F: n_inner, or 8/3 of the width, so that the MLP's three matrices have about as many parameters as GPT-2's two."""
    return config.n_inner or -(-8 * config.n_embd // (3 * WIDTH_MULTIPLE)) * WIDTH_MULTIPLE


def rotation(positions: Tensor, config: ModelConfig) -> Rotation:
    """The angles of rotary positions (Su et al. 2021, "RoFormer"): a pair i of D channels turns by position / theta^(2i/D)."""
    D = config.n_embd // config.n_head
    slowness = config.rope_theta ** (torch.arange(0, D, 2, device=positions.device, dtype=torch.float32) / D)
    angles = positions.float().unsqueeze(-1) / slowness  # (T, D / 2), or (B, T, D / 2) if rows have their own positions
    angles = angles if angles.dim() == 2 else angles.unsqueeze(1)  # the same for all heads: (B, 1, T, D / 2)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)


class RMSNorm(nn.Module):
    """Channels divided by their root mean square, times a weight each (Zhang & Sennrich 2019)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps, self.weight = eps, nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


def norm(config: ModelConfig) -> nn.Module:
    """An RMSNorm of the residual stream."""
    return RMSNorm(config.n_embd, config.norm_eps)


class Attention(CausalAttention):
    """H / K query heads share keys and values. Queries and keys are normalized and rotated."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__(config, layer)
        head_size = config.n_embd // config.n_head
        self.n_head, self.n_kv_head = config.n_head, config.kv_heads
        self.c_attn = nn.Linear(config.n_embd, (self.n_head + 2 * self.n_kv_head) * head_size, bias=False)
        self.q_norm, self.k_norm = (RMSNorm(head_size, config.norm_eps) for _ in range(2))
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=False)

    def heads(self, x: Tensor, rotation: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        assert rotation is not None
        B, T, C = x.shape
        H, K = self.n_head, self.n_kv_head
        qkv = self.c_attn(x).view(B, T, H + 2 * K, C // H)  # all heads of queries, then of keys, then of values
        qk, v = qkv.split((H + K, K), dim=2)
        q, k = rotated_norms(qk, (H, K), (self.q_norm.weight, self.k_norm.weight), self.q_norm.eps, rotation)
        return q, k, v.transpose(1, 2)  # (B, H, T, D), and k and v (B, K, T, D)


class MLP(nn.Module):
    """SwiGLU (Shazeer 2020): one linear layer's output, through SiLU, gates another's; a third projects the product."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 2 * inner_width(config), bias=False)
        self.c_proj = nn.Linear(inner_width(config), config.n_embd, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(projected(self.c_fc(x), SwiGlu, self.c_proj))


class Qwen3Formulas(Formulas):
    """Qwen3's: (2·C + 2·K·D)·C parameters in a block's attention, 3·C·F in its MLP."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        V, C = self.output
        D, F = C // config.n_head, inner_width(config)
        self.kv = config.kv_heads * D  # rows of the keys' matrix, and of the values'
        self.embeddings = {"transformer.wte.weight": (V, C)}
        self.last_norm = {"transformer.ln_f.weight": (C,)}
        self.block = {
            "ln_1.weight": (C,),
            "attn.c_attn.weight": (C + 2 * self.kv, C),
            "attn.q_norm.weight": (D,),
            "attn.k_norm.weight": (D,),
            "attn.c_proj.weight": (C, C),
            "ln_2.weight": (C,),
            "mlp.c_fc.weight": (2 * F, C),
            "mlp.c_proj.weight": (C, F),
        }
        self.stacks = {"attn.c_attn.weight": (C, self.kv, self.kv), "mlp.c_fc.weight": (F, F)}
        self.inner = F

    def kept_bytes_per_token(self, dtype: str, device: str) -> int:
        C, size = self.config.n_embd, 4 if dtype == "float32" else 2
        H, K = self.config.n_head, self.config.kv_heads
        residuals = 2 * (4 * C + 4)  # the inputs of both RMSNorms and their scales, in float32
        norms = 2 * size * C  # their outputs, which c_attn and c_fc read
        mlp = 2 * size * self.inner  # gate and up
        attention = size * (2 * C + 2 * self.kv) + 4 * (H + K)  # c_attn's output, y, and the scales of q and k
        masks = 2 * C if self.config.dropout else 0  # dropout's: a byte per channel, after attention and the MLP
        if device == "cpu" and self.config.dropout:
            masks = 2 * size * C
        if scores := self.dropout_scores(dtype, device):  # three such matrices, and q, k, v of all heads
            attention += 3 * 4 * C + 3 * scores
        elif device == "cpu" and dtype != "float32":  # kernels/attention.py: q, k, v (heads, T, D), y again (B, T, C)
            attention += size * (2 * C + 2 * self.kv)
        else:  # q and k rotated, and the log-sum-exp of each row of scores; on a GPU, q and k in float32 too
            attention += size * (C + self.kv) + 4 * H + (0 if device == "cpu" else 4 * (C + self.kv))
        return residuals + norms + mlp + attention + masks

    def gradient_bytes_per_token(self, dtype: str, device: str) -> int:
        inner = self.inner * (4 if dtype == "float32" else 2)
        scores = self.dropout_scores(dtype, device)
        return max(3 * inner, scores - 2 * inner)  # of gate, up and their product; freed: gate and up


QWEN3 = Network(norm, Attention, MLP, Qwen3Formulas, rotation)
