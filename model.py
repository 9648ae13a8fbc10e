"""GPT-2, exactly: pre-LayerNorm blocks, tanh GELU, learned positions, tied embeddings, optional biases.

After Radford et al. 2019, "Language Models are Unsupervised Multitask Learners". Parameters have the names that nanoGPT
and Jojo 1 and 2 used (`transformer.h.0.attn.c_attn.weight`, ...), so their checkpoints load.

The network comes first. GPT2Formulas, at the end, computes its parameters, FLOPs and memory.

Shape letters: B batch, T time (tokens), C channels (n_embd), H heads, D head size (C / H), V vocabulary rows.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recomputed

from config import ModelConfig
from jojo.kernels.attention import causal_attention
from jojo.kernels.gelu import projected_gelu
from jojo.kernels.loss import linear_cross_entropy, token_losses


class KVCache:
    """Keys and values of the tokens seen so far, in memory allocated once for the whole context."""

    def __init__(self, config: ModelConfig, batch_size: int, device: torch.device, dtype: torch.dtype) -> None:
        shape = (config.n_layer, batch_size, config.n_head, config.block_size, config.n_embd // config.n_head)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)  # (n_layer, B, H, block_size, D)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.length = 0  # tokens in the cache

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append the new tokens' k and v (B, H, T, D) of one layer; returns the keys and values of all tokens so far."""
        end = self.length + k.size(2)
        self.keys[layer, :, :, self.length : end] = k
        self.values[layer, :, :, self.length : end] = v
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


class CausalSelfAttention(nn.Module):
    """Every position attends to itself and to the positions before it."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.n_head, self.dropout, self.layer = config.n_head, config.dropout, layer
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        B, T, C = x.shape
        qkv = self.c_attn(x)  # (B, T, 3 C)
        q, k, v = (part.view(B, T, self.n_head, C // self.n_head).transpose(1, 2) for part in qkv.split(C, dim=2))
        if cache is not None:
            k, v = cache.extend(self.layer, k.to(cache.keys.dtype), v.to(cache.values.dtype))  # (B, H, S, D)
            q = q.to(k.dtype)
        y = causal_attention(q, k, v, self.dropout if self.training else 0.0)  # (B, H, T, D)
        return self.resid_dropout(self.c_proj(y.transpose(1, 2).reshape(B, T, C).to(qkv.dtype)))


class MLP(nn.Module):
    """Two layers, four times as wide inside, with the tanh form of GELU that GPT-2 was trained with."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(projected_gelu(self.c_fc(x), self.c_proj))


class Block(nn.Module):
    """Attention, then MLP; each reads a normalised copy of the residual stream and adds to it."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.attn = CausalSelfAttention(config, layer)
        self.ln_2 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        x = x + self.attn(self.ln_1(x), cache)
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """Embeddings, blocks and the final LayerNorm: tokens to hidden states.

    With `checkpointing`, a block keeps only its input (B, T, C) for the backward pass, which computes the rest again
    (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost").
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.block_size, self.dropout = config.block_size, config.dropout
        self.checkpointing = False  # not part of the config: the trainer sets it
        self.wte = nn.Embedding(vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.drop = nn.Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, bias=config.bias)

    def forward(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """Final hidden states (B, T, C) of tokens (B, T). With a cache, the tokens follow those in the cache."""
        start = cache.length if cache is not None else 0
        assert start + tokens.size(1) <= self.block_size, "more tokens than the context holds"
        positions = torch.arange(start, start + tokens.size(1), device=tokens.device)
        x = self.drop(self.wte(tokens) + self.wpe(positions))  # (B, T, C)
        recompute = self.checkpointing and self.training and torch.is_grad_enabled() and cache is None
        for block in self.h:
            if recompute:
                x = recomputed(block, x, use_reentrant=False, preserve_rng_state=self.dropout > 0)
            else:
                x = block(x, cache)
        if cache is not None:
            cache.length += tokens.size(1)
        return self.ln_f(x)


class GPT(nn.Module):
    """The language model. Of the embedding's rows, the first `n_vocab` are tokens (None: all). The rest is padding, left
    out of the loss."""

    def __init__(self, config: ModelConfig, n_vocab: int | None = None) -> None:
        super().__init__()
        assert config.vocab_size is not None and (n_vocab or 0) <= config.vocab_size
        self.config = config
        self.n_vocab = n_vocab or config.vocab_size
        self.transformer = Transformer(config, config.vocab_size)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False, device="meta")
        self.lm_head.weight = self.transformer.wte.weight  # tied: one matrix for input and output
        for name, parameter in self.named_parameters():  # GPT-2's initialization
            if name.endswith("c_proj.weight"):  # the residual stream is the sum of 2 n_layer of these
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * config.n_layer))
            elif parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor, targets: Tensor | None = None) -> Tensor:
        """Logits (B, T, V) of tokens, int64 (B, T). With targets (int64 (B, T), -1 is ignored): the
        sum of their losses in nats, float32. The caller divides it by the number of targets in the batch."""
        x = self.transformer(tokens)
        if targets is None:
            return self.lm_head(x)
        return linear_cross_entropy(x.flatten(0, 1), self.lm_head.weight, targets.flatten(), self.n_vocab)

    @torch.no_grad()
    def losses(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """The loss of each target, float32 (B, T), 0 where the target is -1."""
        x = self.transformer(tokens).flatten(0, 1)
        return token_losses(x, self.lm_head.weight, targets.flatten(), self.n_vocab).view_as(targets)

    @torch.no_grad()
    def next_logits(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """Float32 logits (B, n_vocab) of the token after the last one, without padding rows."""
        x = self.transformer(tokens, cache)[:, -1]
        return self.lm_head(x)[:, : self.n_vocab].float()

    @property
    def device(self) -> torch.device:
        return self.lm_head.weight.device


# --- parameters, FLOPs, memory --------------------------------------------------------------------------------------

Shapes = dict[str, tuple[int, ...]]  # weight name -> shape


class GPT2Formulas:
    """A GPT-2's weight shapes, FLOPs and memory, computed from its config without building the network.

    The tests compare them with the network above. Other files use only the public names below, so another
    architecture needs a class with the same names.
    """

    def __init__(self, config: ModelConfig) -> None:
        V, T, C = config.vocab_size, config.block_size, config.n_embd
        assert V is not None
        self.config, self.output = config, (V, C)  # the output layer's matrix, tied to the embedding
        self._embeddings: Shapes = {"transformer.wte.weight": (V, C), "transformer.wpe.weight": (T, C)}
        self._last_norm = self._with_bias({"transformer.ln_f": (C,)})
        self.outside = self._embeddings | self._last_norm  # the weights that are not in a block
        attention: Shapes = {"ln_1": (C,), "attn.c_attn": (3 * C, C), "attn.c_proj": (C, C)}
        mlp: Shapes = {"ln_2": (C,), "mlp.c_fc": (4 * C, C), "mlp.c_proj": (C, 4 * C)}
        self.block = self._with_bias(attention | mlp)
        self.matrices: Shapes = {name: shape for name, shape in self.block.items() if len(shape) == 2}  # of a block

    def _with_bias(self, modules: Shapes) -> Shapes:
        kinds = ("weight", "bias") if self.config.bias else ("weight",)
        shapes = itertools.product(modules.items(), kinds)
        return {f"{name}.{kind}": shape if kind == "weight" else shape[:1] for (name, shape), kind in shapes}

    def weights(self) -> Shapes:
        """All weights, in the order of the model's parameters()."""
        layers = range(self.config.n_layer)
        blocks = {f"transformer.h.{layer}.{name}": shape for layer in layers for name, shape in self.block.items()}
        return self._embeddings | blocks | self._last_norm

    @property
    def n_parameters(self) -> int:
        """Parameters, the tied matrix counted once."""
        outside, block = (sum(map(math.prod, shapes.values())) for shapes in (self.outside, self.block))
        return outside + self.config.n_layer * block

    @property
    def flops_per_token(self) -> float:
        """FLOPs of forward and backward pass for one trained token."""
        return sum(self.flops_by_part.values())

    @property
    def flops_by_part(self) -> dict[str, float]:
        """flops_per_token by part: the blocks' matrix products, attention, and the loss with the output layer.

        6 for each parameter in a matrix product (12·C² in a block, V·C in the output layer; looking up an embedding
        costs none), and 12·L·C·T for attention scores and values over the whole context, L layers
        (Chowdhery et al. 2022, "PaLM", appendix B).
        """
        L, C = self.config.n_layer, self.config.n_embd
        return {
            "matrix products": 6.0 * L * sum(map(math.prod, self.matrices.values())),
            "attention": 12.0 * L * C * self.config.block_size,
            "loss": 6.0 * math.prod(self.output),
        }

    def kept_bytes_per_token(self, dtype: str, device: str) -> int:
        """Bytes per token that one block keeps for its backward pass, without weights and their casts.

        `dtype` is that of matrix products; the residual stream is always float32. The device's kernels decide what
        attention keeps.
        """
        C, H, T, size = self.config.n_embd, self.config.n_head, self.config.block_size, 4 if dtype == "float32" else 2
        residuals = 2 * 4 * C + 16  # the inputs of both LayerNorms, with their means and deviations, in float32
        norms = 2 * size * C  # their outputs, which c_attn and c_fc read
        mlp = 4 * size * C  # the input of GELU
        attention = 4 * size * C + 4 * H  # q, k, v as c_attn wrote them, y, and each row's log-sum-exp
        masks = 2 * C if self.config.dropout else 0  # a byte for each channel after attention and after the MLP
        if device == "cpu" and self.config.dropout:  # not fused: q, k, v in float32, y, and T x T scores three times
            attention, masks = (3 * 4 + size) * C + 3 * 4 * H * T, 2 * size * C
        elif device == "cpu" and dtype != "float32":  # BlockedAttention: q, k, v, y by heads, and y again by tokens
            attention = 5 * size * C
        return residuals + norms + mlp + attention + masks

    def gradient_bytes_per_token(self, dtype: str, device: str) -> int:
        """Bytes per token of the largest gradient inside a block, less what the backward pass has freed by then."""
        inner = 4 * self.config.n_embd * (4 if dtype == "float32" else 2)  # of the MLP
        scores = 4 * self.config.n_head * self.config.block_size if self.config.dropout and device == "cpu" else 0
        return max(inner, scores - inner)  # GELU's input is freed before the scores get their gradient


formulas = GPT2Formulas  # the formulas for a config; GPT-2 is the only architecture
