"""The language model: tokens to logits, and to the loss. Read jojo/networks/gpt2.py next: it has attention and MLP.

A model is an embedding, a stack of equal blocks and an output layer. `model.architecture` chooses the parts of a block and
how positions are told: GPT-2's or Qwen3's (jojo/networks/). Everything else is the same for all.

Shape letters: B batch, T time (tokens), C channels (n_embd), V vocabulary rows.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from config import ModelConfig
from jojo.kernels.loss import linear_cross_entropy, token_losses
from jojo.kernels.norm import Rotation
from jojo.networks import NETWORKS
from jojo.networks.common import KVCache


class Block(nn.Module):
    """Attention, then MLP. Each reads the normalised residual stream and adds its output to the stream."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        network = NETWORKS[config.architecture]
        self.ln_1 = network.norm(config)
        self.attn = network.attention(config, layer)
        self.ln_2 = network.norm(config)
        self.mlp = network.mlp(config)

    def forward(self, x: Tensor, rotation: Rotation | None = None, cache: KVCache | None = None) -> Tensor:
        x = x + self.attn(self.ln_1(x), rotation, cache)
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """Embeddings, blocks and the final norm: from tokens to hidden states.

    With `checkpointing`, each block keeps only its input (B, T, C). The backward pass computes the rest of the block again
    (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost").
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        network = NETWORKS[config.architecture]
        self.config, self.rotate = config, network.rotation
        self.checkpointing = False  # not part of the config: the trainer sets it
        self.wte = nn.Embedding(vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd) if network.rotation is None else None
        self.drop = nn.Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.ln_f = network.norm(config)

    def forward(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """Final hidden states (B, T, C) of tokens (B, T). With a cache, the tokens follow those in the cache."""
        T = tokens.size(1)
        assert self.config.block_size >= T, "more tokens than the context holds"
        positions = torch.arange(T, device=tokens.device) if cache is None else cache.positions(T)
        x = self.wte(tokens)
        x = self.drop(x if self.wpe is None else x + self.wpe(positions))  # (B, T, C)
        turn = self.rotation(positions)
        recompute = self.checkpointing and self.training and torch.is_grad_enabled() and cache is None
        for block in self.h:
            if recompute:
                x = checkpoint(block, x, turn, use_reentrant=False, preserve_rng_state=self.config.dropout > 0)
            else:
                x = block(x, turn, cache)
        if cache is not None:
            cache.advance(T)
        return self.ln_f(x)

    def rotation(self, positions: Tensor) -> Rotation | None:
        """What the blocks need to know of the positions; None if the model has learned positions."""
        return self.rotate(positions, self.config) if self.rotate else None


class GPT(nn.Module):
    """The language model. The first `n_vocab` rows of the embedding are tokens (None: all rows are). The other rows are
    padding, which the loss leaves out."""

    def __init__(self, config: ModelConfig, n_vocab: int | None = None) -> None:
        super().__init__()
        assert config.vocab_size is not None and (n_vocab or 0) <= config.vocab_size
        self.config = config
        self.n_vocab = n_vocab or config.vocab_size
        self.transformer = Transformer(config, config.vocab_size)
        unused = "meta" if config.tie_embeddings else None  # a weight on this device takes no memory
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False, device=unused)
        if config.tie_embeddings:
            self.lm_head.weight = self.transformer.wte.weight
        for name, parameter in self.named_parameters():  # GPT-2's initialization
            if name.endswith("c_proj.weight"):  # 2 n_layer such matrices add to the residual stream
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * config.n_layer))
            elif parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor, targets: Tensor | None = None) -> Tensor:
        """Logits (B, T, V) of tokens, int64 (B, T). With targets, int64 (B, T): the sum of their losses in nats, float32.
        Targets of -1 are ignored. The caller divides the sum by the number of targets in the batch."""
        x = self.transformer(tokens)
        if targets is None:
            return self.lm_head(x)
        return linear_cross_entropy(x.flatten(0, 1), self.lm_head.weight, targets.flatten(), self.n_vocab)

    @torch.no_grad()
    def losses(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """The loss of each target, float32 (B, T); 0 for a target of -1."""
        x = self.transformer(tokens).flatten(0, 1)
        return token_losses(x, self.lm_head.weight, targets.flatten(), self.n_vocab).view_as(targets)

    @torch.no_grad()
    def next_logits(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """Logits of the next token after tokens (B, T), without padding rows: float32 (B, n_vocab)."""
        x = self.transformer(tokens, cache)[:, -1]
        return self.lm_head(x)[:, : self.n_vocab].float()

    @property
    def device(self) -> torch.device:
        return self.lm_head.weight.device
