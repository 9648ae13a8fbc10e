"""GPT-2 and its training step in plain PyTorch, in float32: the whole idea of train.py on one page.

Read it from top to bottom: a block, the model, the step. To train is then to call the step with one batch after another:

    model = PlainGPT(layers=4, heads=4, width=192, context=128, vocabulary=50_304)
    step = plain_loop(model, model.loss)
    for inputs, targets in batches:  # token ids, int64 (B, T); the target of each token is the token after it
        print(step(inputs, targets))

model.py, jojo/kernels/loss.py and trainer.py compute the same, faster. tools/benchmark.py measures how much faster.

Shape letters: B sequences, T tokens per sequence, C channels, H heads, D head size, V vocabulary rows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEARNING_RATE, BETAS, WEIGHT_DECAY, GRAD_CLIP = 6e-4, (0.9, 0.95), 0.1, 1.0  # as in configs/default.json

Step = Callable[[np.ndarray, np.ndarray], float]  # trains on inputs and targets, int64 (B, T); returns the loss


class PlainBlock(nn.Module):
    """Attention, then MLP, each with a residual connection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.ModuleDict({"c_attn": nn.Linear(width, 3 * width), "c_proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        qkv = self.attn["c_attn"](self.ln_1(x)).view(B, T, 3, self.heads, C // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, H, T, D)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # (B, H, T, D); no token sees a later one
        x = x + self.attn["c_proj"](y.transpose(1, 2).reshape(B, T, C))
        return x + self.mlp["c_proj"](F.gelu(self.mlp["c_fc"](self.ln_2(x)), approximate="tanh"))


class PlainGPT(nn.Module):
    """GPT-2 in plain PyTorch. Weights have the names that they have in model.py, without "transformer."."""

    def __init__(self, layers: int, heads: int, width: int, context: int, vocabulary: int) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.h = nn.ModuleList(PlainBlock(width, heads) for _ in range(layers))
        self.ln_f = nn.LayerNorm(width)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                nn.init.normal_(weight, std=0.02 / (2 * layers) ** 0.5 if "c_proj" in name else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (B, T, V) of tokens (B, T)."""
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.size(1)))  # (B, T, C)
        for block in self.h:
            x = block(x)
        return self.ln_f(x) @ self.wte.weight.T  # the embedding again: its rows are compared with x

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of targets (B, T), in nats."""
        return F.cross_entropy(self(tokens).flatten(0, 1), targets.flatten())


def plain_loop(model: nn.Module, loss_of: Callable[[Tensor, Tensor], Tensor]) -> Step:
    """The usual training step: loss, backward, clip, AdamW (PyTorch's fastest, "fused")."""
    weights = list(model.parameters())
    groups = [
        {"params": [w for w in weights if w.dim() >= 2], "weight_decay": WEIGHT_DECAY},
        {"params": [w for w in weights if w.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=BETAS, fused=True)

    def step(inputs: np.ndarray, targets: np.ndarray) -> float:
        loss = loss_of(torch.from_numpy(inputs), torch.from_numpy(targets))
        loss.backward()  # type: ignore[no-untyped-call]  # adds a gradient to each weight
        nn.utils.clip_grad_norm_(weights, GRAD_CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step
