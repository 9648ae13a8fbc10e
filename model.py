"""The network, exactly GPT-2's: pre-LayerNorm blocks, tanh GELU, learned positions, tied embeddings, optional biases.

Radford et al. 2019, "Language Models are Unsupervised Multitask Learners". Parameters have the names that nanoGPT
and Jojo 1 and 2 used (`transformer.h.0.attn.c_attn.weight`, ...), so their checkpoints load.

Shape letters: B batch, T time (tokens), C channels (n_embd), H heads, D head size (C / H), V vocabulary rows.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

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
        """Append a layer's k and v of new tokens (B, H, T, D); returns those of all S tokens so far (B, H, S, D)."""
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
            q = q.to(k.dtype)  # a cache may be in float32 while the weights are not
        y = causal_attention(q, k, v, self.dropout if self.training else 0.0)  # (B, H, T, D)
        return self.resid_dropout(self.c_proj(y.transpose(1, 2).reshape(B, T, C).to(qkv.dtype)))


class MLP(nn.Module):
    """Two linear layers with GELU between them (the tanh form, as in GPT-2); the inner width is 4 C."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(projected_gelu(self.c_fc(x), self.c_proj))


class Block(nn.Module):
    """Attention, then MLP. Each reads the normalised residual stream and adds its output to the stream."""

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
    """Embeddings, blocks and the final LayerNorm: from tokens to hidden states.

    With `checkpointing`, each block keeps only its input (B, T, C). The backward pass computes the rest of the block again
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
                x = checkpoint(block, x, use_reentrant=False, preserve_rng_state=self.dropout > 0)
            else:
                x = block(x, cache)
        if cache is not None:
            cache.length += tokens.size(1)
        return self.ln_f(x)


class GPT(nn.Module):
    """The language model. The first `n_vocab` rows of the embedding are tokens (None: all rows are). The other rows are
    padding, which the loss leaves out."""

    def __init__(self, config: ModelConfig, n_vocab: int | None = None) -> None:
        super().__init__()
        assert config.vocab_size is not None and (n_vocab or 0) <= config.vocab_size
        self.config = config
        self.n_vocab = n_vocab or config.vocab_size
        self.transformer = Transformer(config, config.vocab_size)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False, device="meta")
        self.lm_head.weight = self.transformer.wte.weight  # tied; the meta weight took no memory
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


Shapes = dict[str, tuple[int, ...]]  # weight name -> shape


class GPT2Formulas:
    """A GPT-2's weight shapes, FLOPs and memory, from its config alone. The tests compare them with the network above."""

    def __init__(self, config: ModelConfig) -> None:
        V, T, C = config.vocab_size, config.block_size, config.n_embd
        assert V is not None
        self.config, self.output = config, (V, C)  # output: the last layer's matrix, which is also the embedding
        self._embeddings: Shapes = {"transformer.wte.weight": (V, C), "transformer.wpe.weight": (T, C)}
        self._last_norm = self._with_bias({"transformer.ln_f": (C,)})
        self.outside = self._embeddings | self._last_norm  # the weights that are not in a block
        attention: Shapes = {"ln_1": (C,), "attn.c_attn": (3 * C, C), "attn.c_proj": (C, C)}
        mlp: Shapes = {"ln_2": (C,), "mlp.c_fc": (4 * C, C), "mlp.c_proj": (C, 4 * C)}
        self.block = self._with_bias(attention | mlp)
        self.matrices: Shapes = {name: shape for name, shape in self.block.items() if len(shape) == 2}

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
        """Number of parameters. The tied matrix counts once."""
        outside, block = (sum(map(math.prod, shapes.values())) for shapes in (self.outside, self.block))
        return outside + self.config.n_layer * block

    @property
    def flops_per_token(self) -> float:
        """FLOPs of the forward and backward pass for one token."""
        return sum(self.flops_by_part.values())

    @property
    def flops_by_part(self) -> dict[str, float]:
        """flops_per_token by part: the blocks' matrix products, attention, and the loss with the output layer.

        A matrix product takes 6 FLOPs per parameter: 12·C² parameters in each of L blocks, V·C in the output layer.
        Attention scores and values take 12·L·C·T over the whole context. An embedding lookup takes none.
        (Chowdhery et al. 2022, "PaLM", appendix B)
        """
        L, C = self.config.n_layer, self.config.n_embd
        return {
            "matrix products": 6.0 * L * sum(map(math.prod, self.matrices.values())),
            "attention": 12.0 * L * C * self.config.block_size,
            "loss": 6.0 * math.prod(self.output),
        }

    def kept_bytes_per_token(self, dtype: str, device: str) -> int:
        """Bytes per token that one block keeps for its backward pass, without weights and their copies in `dtype`."""
        C, H, T, size = self.config.n_embd, self.config.n_head, self.config.block_size, 4 if dtype == "float32" else 2
        residuals = 2 * 4 * C + 16  # the inputs of both LayerNorms, with their means and deviations, in float32
        norms = 2 * size * C  # their outputs, which c_attn and c_fc read
        mlp = 4 * size * C  # the input of GELU
        attention = 4 * size * C + 4 * H  # q, k, v, the output y, and the log-sum-exp of each row of scores
        masks = 2 * C if self.config.dropout else 0  # dropout's: a byte per channel, after attention and the MLP
        if device == "cpu" and self.config.dropout:  # q, k, v and three T x T matrices in float32, y in `dtype`
            attention, masks = (3 * 4 + size) * C + 3 * 4 * H * T, 2 * size * C
        elif device == "cpu" and dtype != "float32":  # kernels/attention.py: q, k, v, y (B, H, T, D), y again (B, T, C)
            attention = 5 * size * C
        return residuals + norms + mlp + attention + masks

    def gradient_bytes_per_token(self, dtype: str, device: str) -> int:
        """Bytes per token of the largest gradient inside a block, minus what the backward pass has freed by then."""
        inner = 4 * self.config.n_embd * (4 if dtype == "float32" else 2)  # the MLP's inner layer
        scores = 4 * self.config.n_head * self.config.block_size if self.config.dropout and device == "cpu" else 0
        return max(inner, scores - inner)  # GELU's input is freed before the scores get their gradient


formulas = GPT2Formulas  # other files call formulas(config); GPT-2 is the only architecture
