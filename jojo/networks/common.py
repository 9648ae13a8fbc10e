"""What all architectures share: the cache of keys and values, and the arithmetic of weights, FLOPs and memory.

Shape letters: B batch, T time (tokens), C channels (n_embd), H heads, K key/value heads, D head size (C / H).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from config import ModelConfig
from jojo.kernels.attention import causal_attention
from jojo.kernels.norm import Rotation

Shapes = dict[str, tuple[int, ...]]  # weight name -> shape


class KVCache:
    """Keys and values of the tokens seen so far, in memory allocated once for the whole context."""

    def __init__(self, config: ModelConfig, batch_size: int, device: torch.device, dtype: torch.dtype) -> None:
        shape = (config.n_layer, batch_size, config.kv_heads, config.block_size, config.n_embd // config.n_head)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)  # (n_layer, B, K, block_size, D)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.length = 0  # tokens in the cache
        self.seen: Tensor | None = None  # a mask of keys, 0 or -inf; None: a new token sees all up to itself

    def positions(self, T: int) -> Tensor:
        """The positions of the next T tokens, int64 (T,)."""
        assert self.length + T <= self.keys.size(3), "more tokens than the context holds"
        return torch.arange(self.length, self.length + T, device=self.keys.device)

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append a layer's k and v of new tokens (B, K, T, D); returns those of all S tokens so far (B, K, S, D)."""
        end = self.length + k.size(2)
        self.keys[layer, :, :, self.length : end] = k
        self.values[layer, :, :, self.length : end] = v
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def advance(self, T: int) -> None:
        """The T tokens are in the cache of every layer."""
        self.length += T


class RowsCache(KVCache):
    """Keys and values of texts of different lengths, one in each row. The model then reads one token of each text."""

    def row(self, number: int) -> KVCache:
        """An empty cache in the memory of one row, to read a text's beginning into it."""
        row = KVCache.__new__(KVCache)
        row.keys, row.values = (memory[:, number : number + 1] for memory in (self.keys, self.values))
        row.length, row.seen = 0, None
        return row

    def copy(self, source: int, target: int) -> None:
        """Make row `target` equal to row `source`."""
        for memory in (self.keys, self.values):
            memory[:, target] = memory[:, source]

    def clear(self, number: int) -> None:
        """Set a row to 0."""
        for memory in (self.keys, self.values):
            memory[:, number] = 0

    def begin(self, lengths: Sequence[int]) -> None:
        """Call it before the model reads a token for each of the first B rows, which have so many tokens so far."""
        device, dtype = self.keys.device, self.keys.dtype
        self.rows, self.lengths = torch.arange(len(lengths), device=device), torch.tensor(lengths, device=device)
        hidden = torch.arange(max(lengths) + 1, device=device) > self.lengths.view(-1, 1, 1, 1)  # (B, 1, 1, S)
        self.seen = torch.zeros(hidden.shape, device=device, dtype=dtype).masked_fill_(hidden, -torch.inf)

    def positions(self, T: int) -> Tensor:
        """The position of each row's next token, int64 (B, 1)."""
        assert T == 1
        return self.lengths.view(-1, 1)

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add a layer's k and v (B, K, 1, D); returns those of the longest row's S tokens, (B, K, S, D)."""
        assert self.seen is not None
        B, S = len(k), self.seen.size(-1)
        for memory, new in ((self.keys, k), (self.values, v)):
            memory[layer, self.rows, :, self.lengths] = new[:, :, 0].to(memory.dtype)
        return self.keys[layer, :B, :, :S], self.values[layer, :B, :, :S]

    def advance(self, T: int) -> None:
        """The lengths change with the next begin()."""


class CausalAttention(nn.Module):
    """Attention and the projection of its result. A subclass adds the linear layers before it."""

    c_proj: nn.Linear

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.dropout, self.layer = config.dropout, layer
        self.resid_dropout = nn.Dropout(config.dropout)

    def heads(self, x: Tensor, rotation: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H, T, D), keys and values (B, K, T, D) of x (B, T, C); `rotation` is that of the T positions."""
        raise NotImplementedError

    def forward(self, x: Tensor, rotation: Rotation | None = None, cache: KVCache | None = None) -> Tensor:
        """(B, T, C) to (B, T, C): every position attends to itself and to those before it. A cache gets keys and values."""
        q, k, v = self.heads(x, rotation)
        dtype, seen = v.dtype, None
        if cache is not None:  # it may be in float32 while the weights are not
            (k, v), seen = cache.extend(self.layer, k, v), cache.seen  # (B, K, S, D)
        y = causal_attention(q.to(v.dtype), k.to(v.dtype), v, self.dropout if self.training else 0.0, seen)
        return self.resid_dropout(self.c_proj(y.transpose(1, 2).flatten(2).to(dtype)))


class Formulas:
    """A model's weight shapes, FLOPs and memory, from its config alone. The tests compare them with the network."""

    embeddings: Shapes  # before the blocks
    block: Shapes  # of one block, by their names in it
    last_norm: Shapes  # after the blocks
    stacks: dict[str, tuple[int, ...]]  # of a weight that holds several matrices above one another: the rows of each

    def __init__(self, config: ModelConfig) -> None:
        assert config.vocab_size is not None
        self.config, self.tied = config, config.tie_embeddings
        self.output = (config.vocab_size, config.n_embd)  # the last layer's matrix; if tied, also the embedding

    @property
    def head(self) -> Shapes:
        """The output layer's weights, unless they are the embedding's."""
        return {} if self.tied else {"lm_head.weight": self.output}

    @property
    def outside(self) -> Shapes:
        """The weights that are not in a block."""
        return self.embeddings | self.last_norm | self.head

    def rows_of(self, name: str) -> tuple[int, ...]:
        """The rows of each matrix that a block's weight holds above one another; most weights hold one matrix."""
        return self.stacks.get(name, self.block[name][:1])

    @property
    def matrices(self) -> Shapes:
        """A block's matrices."""
        return {name: shape for name, shape in self.block.items() if len(shape) == 2}

    def weights(self) -> Shapes:
        """All weights, in the order of the model's parameters()."""
        layers = range(self.config.n_layer)
        blocks = {f"transformer.h.{layer}.{name}": shape for layer in layers for name, shape in self.block.items()}
        return self.embeddings | blocks | self.last_norm | self.head

    @property
    def n_parameters(self) -> int:
        """Number of parameters. A tied matrix counts once."""
        outside, block = (sum(map(math.prod, shapes.values())) for shapes in (self.outside, self.block))
        return outside + self.config.n_layer * block

    @property
    def flops_per_token(self) -> float:
        """FLOPs of the forward and backward pass for one token."""
        return sum(self.flops_by_part.values())

    @property
    def flops_by_part(self) -> dict[str, float]:
        """flops_per_token by part: the blocks' matrix products, attention, and the loss with the output layer.

        A matrix product takes 6 FLOPs per parameter. Attention scores and values take 12·L·C·T over the whole context.
        An embedding lookup takes none. (Chowdhery et al. 2022, "PaLM", appendix B)
        """
        L, C = self.config.n_layer, self.config.n_embd
        return {
            "matrix products": 6.0 * L * sum(map(math.prod, self.matrices.values())),
            "attention": 12.0 * L * C * self.config.block_size,
            "loss": 6.0 * math.prod(self.output),
        }

    def dropout_scores(self, dtype: str, device: str) -> int:
        """Bytes per token of one T x T matrix of scores of each head, if attention with dropout holds them all."""
        holds = self.config.dropout and device == "cpu" and dtype == "float32"  # PyTorch's kernel
        return 4 * self.config.n_head * self.config.block_size if holds else 0

    def kept_bytes_per_token(self, dtype: str, device: str) -> int:
        """Bytes per token that one block keeps for its backward pass, without weights and their copies in `dtype`."""
        raise NotImplementedError

    def gradient_bytes_per_token(self, dtype: str, device: str) -> int:
        """Bytes per token of the largest gradient inside a block, minus what the backward pass has freed by then."""
        raise NotImplementedError


@dataclass(frozen=True)
class Network:
    """What makes an architecture."""

    norm: Callable[[ModelConfig], nn.Module]
    attention: Callable[[ModelConfig, int], nn.Module]  # of the layer with this number
    mlp: Callable[[ModelConfig], nn.Module]
    formulas: Callable[[ModelConfig], Formulas]
    # The angles by which attention rotates queries and keys at these positions (T,); None: positions are learned.
    rotation: Callable[[Tensor, ModelConfig], Rotation] | None = None
