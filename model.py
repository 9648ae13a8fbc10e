"""GPT-2, exactly: pre-LayerNorm blocks, tanh GELU, learned positions, tied embeddings, optional biases.

After Radford et al. 2019, "Language Models are Unsupervised Multitask Learners". Parameter names are those that
nanoGPT and Jojo 1 and 2 used (`transformer.h.0.attn.c_attn.weight`, ...), so their checkpoints load.

Shape letters: B batch, T time (tokens), C channels (n_embd), H heads, D head size (C / H), V vocabulary rows.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recomputed

from config import ModelConfig
from jojo.kernels.attention import causal_attention
from jojo.kernels.gelu import projected_gelu
from jojo.kernels.loss import linear_cross_entropy, token_losses


class KVCache:
    """Keys and values of the tokens seen so far, in room allocated once for the whole context."""

    def __init__(self, config: ModelConfig, batch_size: int, device: torch.device, dtype: torch.dtype) -> None:
        shape = (config.n_layer, batch_size, config.n_head, config.block_size, config.n_embd // config.n_head)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)  # (n_layer, B, H, block_size, D)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.length = 0  # tokens in it

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append the new tokens' k and v (B, H, T, D) of one layer; returns those of all tokens so far."""
        end = self.length + k.size(2)
        self.keys[layer, :, :, self.length : end] = k
        self.values[layer, :, :, self.length : end] = v
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


class CausalSelfAttention(nn.Module):
    """Every position looks at itself and what came before."""

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
    """Four times as wide inside, with the tanh form of GELU that GPT-2 was trained with."""

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

    With `checkpointing` set, what is inside of a block is not kept for the backward pass but computed again there
    (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost"): a block leaves its input only, (B, T, C).
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.block_size, self.dropout = config.block_size, config.dropout
        self.checkpointing = False  # no part of the shape: who trains decides
        self.wte = nn.Embedding(vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.drop = nn.Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, bias=config.bias)

    def forward(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """Final hidden states (B, T, C) of tokens (B, T); with a cache, of tokens that follow those in it."""
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
    """The language model.

    Args:
        config: the shape; `vocab_size` must be a number here.
        n_vocab: tokens in use; embedding rows from there on are padding, left out of the loss. None: all rows.
    """

    def __init__(self, config: ModelConfig, n_vocab: int | None = None) -> None:
        super().__init__()
        assert config.vocab_size is not None and (n_vocab or 0) <= config.vocab_size
        self.config = config
        self.n_vocab = n_vocab or config.vocab_size
        self.transformer = Transformer(config, config.vocab_size)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False, device="meta")
        self.lm_head.weight = self.transformer.wte.weight  # tied: one matrix reads tokens in and out
        self._init_weights()

    def _init_weights(self) -> None:
        """GPT-2's: normal(0, 0.02), and projections into the residual stream smaller by the root of their number."""
        for name, parameter in self.named_parameters():
            if name.endswith("c_proj.weight"):
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * self.config.n_layer))
            elif parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor, targets: Tensor | None = None) -> Tensor:
        """Logits, or the loss of given targets.

        Args:
            tokens: int64 (B, T).
            targets: int64 (B, T), -1 where nothing is to be predicted.

        Returns:
            Without targets: logits (B, T, V). With: their loss summed over the targets, in nats (float32 scalar);
            the caller divides by the number of targets of the whole batch.
        """
        x = self.transformer(tokens)
        if targets is None:
            return self.lm_head(x)
        return linear_cross_entropy(x.flatten(0, 1), self.lm_head.weight, targets.flatten(), self.n_vocab)

    @torch.no_grad()
    def losses(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Loss of each target by itself, float32 (B, T), 0 where the target is -1."""
        x = self.transformer(tokens).flatten(0, 1)
        return token_losses(x, self.lm_head.weight, targets.flatten(), self.n_vocab).view_as(targets)

    @torch.no_grad()
    def next_logits(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """Float32 logits (B, n_vocab) of the token after the last one; padded rows are not among them."""
        x = self.transformer(tokens, cache)[:, -1]
        return self.lm_head(x)[:, : self.n_vocab].float()

    def n_parameters(self) -> int:
        """Parameters, the tied matrix counted once."""
        return sum(p.numel() for p in self.parameters())

    @property
    def device(self) -> torch.device:
        return self.lm_head.weight.device
