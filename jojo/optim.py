"""AdamW and Muon, and their state by parameter name.

To add an optimizer, write a subclass of Optimizer and add it to OPTIMIZERS and its name to config.OptimizerConfig.kind.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from config import OptimizerConfig
from jojo.machine.ranks import Shares, copy_into, local_tensor, n_shards
from jojo.networks import formulas
from jojo.networks.common import Formulas
from utils import UserError, one_line

EPSILON = 1e-8  # added to the square root of AdamW's second moment
FIRST_MOMENTUM, MUON_MOMENTUM = 0.85, 0.95  # at the first batch, if `optimizer.momentum_warmup` is not 0, and after it
MUON_ELEMENTS = 1 << 24  # elements of weights that are updated at a time
# Polynomials a x + b x³ + c x⁵, one for each step of Muon. For singular values from 0.01 to 1, each brings the worst one as near to
# 1 as a quintic can, given the steps before it (Amsel et al. 2025, "The Polar Express").
NEWTON_SCHULZ = ((8.0934, -23.6204, 17.4462), (3.6366, -2.7219, 0.5365), (2.6613, -1.9772, 0.4526))
RAW_WEIGHT = "raw_weight"  # in a checkpoint with `training.ema`: the weight with which training continues
ADAMW_STEP_SIZE = 0.2  # root mean square of AdamW's usual step at learning rate 1 (Liu et al. 2025)


def make_optimizers(model: nn.Module, config: OptimizerConfig, dtype: str = "float32") -> list[Optimizer]:
    """AdamW for all weights; or AdamW, and the optimizer of config.kind for the matrices inside the blocks.

    Weight decay applies to matrices and embeddings, not to biases and LayerNorms. `dtype` is for Muon's matrix products.
    """
    kind, rest = OPTIMIZERS[config.kind], defaultdict[str, list[Tensor]](list)
    layers: dict[str, list[Tensor]] = defaultdict(list)  # matrices of one shape, by their name in a block
    for name, weight in model.named_parameters():
        part = kind_of(name, weight)
        if kind is not AdamW and part == "matrix":
            layers[name.split(".", 3)[-1]].append(weight)  # attn.c_attn.weight, without "transformer.h.0."
        else:
            rest[part].append(weight)
    decay, usual = config.weight_decay, config.learning_rate
    rates = {
        "embedding": config.embedding_learning_rate, "output": config.output_learning_rate,
        "norm": config.norm_learning_rate,
    }  # fmt: skip
    groups: list[dict[str, Any]] = [
        {
            "params": weights,
            "weight_decay": 0.0 if part == "norm" else decay,
            "share": (rates.get(part) or usual) / usual,
        }
        for part, weights in rest.items()
    ]
    optimizers: list[Optimizer] = [AdamW(groups, config, dtype)]
    if layers:
        named, rows_of = sorted(layers.items()), formulas(model.config).rows_of  # type: ignore[arg-type]
        groups = [{"params": layer, "weight_decay": decay, "rows": rows_of(name)} for name, layer in named]
        optimizers.append(kind(groups, config, dtype))
    return optimizers


def kind_of(name: str, weight: Tensor) -> str:
    """The kind of a weight, by which it has its learning rate. One matrix for embedding and output is an embedding."""
    if weight.dim() < 2:
        return "norm"  # also biases
    return "matrix" if ".h." in name else "output" if name.startswith("lm_head") else "embedding"


class Optimizer:
    """Updates groups of weights. Each group has its own settings, and each weight has a state.

    Not a torch.optim.Optimizer: constructing one imports torch._dynamo (1 s, 74 MB). It has the same attributes.
    All state is allocated here. Allocated in the first batch, it would fragment the memory that batches free and reuse.
    """

    STATE: ClassVar[tuple[str, ...]]  # the state of a weight: "step" is a number, all others have its shape

    def __init__(self, groups: Iterable[dict[str, Any]], config: OptimizerConfig, dtype: str) -> None:
        self.param_groups = [{"lr": config.learning_rate, "share": 1.0} | group for group in groups]
        self.config, self.dtype = config, torch.bfloat16 if dtype == "bfloat16" else torch.float32
        self.state: dict[Tensor, dict[str, Tensor]] = {}
        for weight in (weight for group in self.param_groups for weight in group["params"]):
            step = torch.zeros((), device=weight.device)
            self.state[weight] = {key: step if key == "step" else torch.zeros_like(weight) for key in self.STATE}

    def set_batch(self, batch: int, lr: float) -> None:
        """Set what depends on the batch's number, from 0 on, and on the scheduled learning rate: each group's own rate."""
        for group in self.param_groups:
            group["lr"] = lr * group["share"]

    def step(self) -> None:
        """Update every weight that has a gradient."""
        raise NotImplementedError

    @classmethod
    def n_averages(cls) -> int:
        """How many numbers of state each element of a weight has."""
        return sum(key != "step" for key in cls.STATE)

    # What an update of all blocks takes, for each of the ranks that share a copy of the model:

    @staticmethod
    def update_bytes(model: Formulas, dtype: str, ranks: int = 1) -> int:
        """The most memory on top of weights, gradients and state."""
        return 0

    @staticmethod
    def update_flops(model: Formulas, ranks: int = 1) -> int:
        """FLOPs of matrix products."""
        return 0

    @staticmethod
    def exchanged_bytes(model: Formulas, dtype: str, ranks: int) -> list[int]:
        """Bytes of every all-to-all."""
        return []


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019).

        m = average of the gradient g      v = average of g², both over about 1 / (1 - beta) batches
        w = w - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + EPSILON) - lr weight_decay w

    PyTorch's fused kernel reads the memory once, separate operations a dozen times.
    """

    STATE = ("step", "exp_avg", "exp_avg_sq")

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            steps, m, v = ([local_tensor(self.state[weight][key]) for weight in weights] for key in self.STATE)
            if weights:
                torch._foreach_add_(steps, 1)
                torch._fused_adamw_(
                    [local_tensor(weight) for weight in weights], [local_tensor(weight.grad) for weight in weights],
                    m, v, [], steps,
                    lr=group["lr"], beta1=self.config.beta1, beta2=self.config.beta2,
                    weight_decay=group["weight_decay"], eps=EPSILON, amsgrad=False, maximize=False,
                )  # fmt: skip


class Muon(Optimizer):
    """Momentum made orthogonal, for the weight matrices inside the blocks (Jordan et al. 2024).

    A few directions dominate the gradient of a matrix. Muon gives every direction of the update the same length, so that
    rare ones are learned as fast as common ones. The step is scaled to the size of AdamW's (Liu et al. 2025, "Muon is
    scalable"), so one learning rate suits both.

    Unlike torch.optim.Muon, with which the tests compare it, it splits matrices that are stored as one, updates small
    matrices together, and multiplies in `dtype`: not every processor is fast at bfloat16. With fsdp, each rank makes some
    of the matrices orthogonal: one all-to-all collects their rows, another one sends the rows of the update back.
    """

    STATE = ("momentum_buffer",)
    momentum = MUON_MOMENTUM

    def set_batch(self, batch: int, lr: float) -> None:
        super().set_batch(batch, lr)
        if batch < self.config.momentum_warmup:
            self.momentum = FIRST_MOMENTUM + (MUON_MOMENTUM - FIRST_MOMENTUM) * batch / self.config.momentum_warmup
        else:
            self.momentum = MUON_MOMENTUM

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            together = matrices_together(weights[0].numel(), n_shards(weights[0])) if weights else 1
            for first in range(0, len(weights), together):
                self._update(weights[first : first + together], group)

    def _update(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        shares = Shares(weights[0], len(weights))
        directions = torch.stack([self._direction(weight).to(self.dtype) for weight in weights])  # (n, rows, columns)
        directions = shares.gather(directions)  # with several ranks: from some rows of all to all rows of some
        parts = equal_matrices(group["rows"])
        for rows, part in parts:
            stack = directions[:, part]
            stack.copy_(orthogonalize(stack.reshape(-1, rows, shares.columns)).reshape(stack.shape))
        steps = shares.scatter(directions)
        for rows, part in parts:
            size = group["lr"] * ADAMW_STEP_SIZE * math.sqrt(max(rows, shares.columns))
            own = slice(*(max(0, row - shares.first_row) for row in (part.start, part.stop)))
            for weight, step in zip(weights, steps, strict=True):
                local_tensor(weight)[own].mul_(1 - group["lr"] * group["weight_decay"]).sub_(step[own], alpha=size)

    def _direction(self, weight: Tensor) -> Tensor:
        """Nesterov momentum: the average gradient, moved towards the new one."""
        assert weight.grad is not None
        gradient = local_tensor(weight.grad)
        momentum = local_tensor(self.state[weight]["momentum_buffer"]).lerp_(gradient, 1 - self.momentum)
        return gradient.lerp(momentum, self.momentum)

    @staticmethod
    def update_bytes(model: Formulas, dtype: str, ranks: int = 1) -> int:
        """The memory of orthogonalize: 3 copies of the stacked matrices and 2 square products, at most 5 numbers per element."""
        most = 0
        for name, (total, columns) in model.matrices.items():
            for rows, part in equal_matrices(model.rows_of(name)):
                n = (part.stop - part.start) // rows
                most = max(most, total * columns + n * 2 * (rows * columns + min(rows, columns) ** 2))
        own = -(-model.config.n_layer // ranks)
        return (2 if dtype == "bfloat16" else 4) * min(own * most, max(most, 5 * MUON_ELEMENTS))

    @staticmethod
    def update_flops(model: Formulas, ranks: int = 1) -> int:
        """Three products in each of orthogonalize's steps."""
        products = 0
        for name, (_, columns) in model.matrices.items():
            for short, long in (sorted((rows, columns)) for rows in model.rows_of(name)):
                products += 2 * short * short * (2 * long + short)
        return len(NEWTON_SCHULZ) * products * -(-model.config.n_layer // ranks)

    @staticmethod
    def exchanged_bytes(model: Formulas, dtype: str, ranks: int) -> list[int]:
        """One there and one back for each stack: what the rank with the largest share sends or receives."""
        sizes = []
        for rows, columns in model.matrices.values():
            together = matrices_together(rows * columns, ranks)
            for first in range(0, model.config.n_layer, together):
                n = min(together, model.config.n_layer - first)
                most = max(n * -(-rows // ranks), -(-n // ranks) * rows)  # rows
                sizes += 2 * [(2 if dtype == "bfloat16" else 4) * most * columns]
        return sizes


# By optimizer.kind: the optimizer of the matrices inside the blocks.
OPTIMIZERS: dict[str, type[Optimizer]] = {"adamw": AdamW, "muon": Muon}


def matrices_together(elements: int, ranks: int) -> int:
    """How many matrices of this size an update takes at a time, so that each rank has at most MUON_ELEMENTS, or one matrix."""
    return ranks * max(1, MUON_ELEMENTS // elements)


def equal_matrices(stack: Sequence[int]) -> list[tuple[int, slice]]:
    """Neighbours of equal size among matrices above one another, given the rows of each: (rows of one, rows of all)."""
    found, first = [], 0
    for rows, equal in itertools.groupby(stack):
        found.append((rows, slice(first, first := first + sum(equal))))
    return found


def orthogonalize(matrices: Tensor) -> Tensor:
    """For each matrix of a stack, the nearest one whose singular values are all about 1 (between 0.73 and 1.27).

    A Newton-Schulz iteration: each step applies a quintic polynomial to the singular values. It needs only matrix products, so
    it is fast wherever training is. `matrices` are (n, rows, columns), in the dtype to compute in.
    """
    wide = matrices if matrices.size(1) <= matrices.size(2) else matrices.mT
    x = wide / wide.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for a, b, c in NEWTON_SCHULZ:
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)  # a x + b (x xᵀ) x + c (x xᵀ)² x
    return x if wide is matrices else x.mT


def optimizer_state(
    optimizers: Sequence[Optimizer], model: nn.Module, weights: bool = False
) -> dict[str, dict[str, Any]]:
    """Optimizer state by parameter name, so that groups and their order may change. `weights`: with RAW_WEIGHT."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    raw = {p: {RAW_WEIGHT: p.detach()} if weights else {} for p in names}
    return {names[p]: state | raw[p] for optimizer in optimizers for p, state in optimizer.state.items()}


def load_optimizer_state(optimizers: Sequence[Optimizer], model: nn.Module, state: dict[str, dict[str, Any]]) -> None:
    """Inverse of optimizer_state. Skips the state of a weight that another kind of optimizer updates now.

    If the state has raw weights, the model gets them; until then it has the checkpoint's averages.

    Raises UserError if names or shapes do not fit the model.
    """
    misfit = "The checkpoint's optimizer state does not fit this model"
    parameters, kinds = dict(model.named_parameters()), [set(kind.STATE) for kind in OPTIMIZERS.values()]
    own = optimizer_state(optimizers, model, weights=True)
    for name, values in state.items():
        if name not in parameters or not isinstance(values, dict) or set(values) - {RAW_WEIGHT} not in kinds:
            raise UserError(f"{misfit} at '{one_line(name)}'.")
        for key, value in values.items():
            shape = () if key == "step" else parameters[name].shape
            if not isinstance(value, Tensor) or value.shape != shape or not value.is_floating_point():
                raise UserError(f"{misfit} at '{name}' ({key}).")
            fits = key == RAW_WEIGHT or own[name].keys() == values.keys() | {RAW_WEIGHT}
            if fits and not value.is_meta:  # meta: a shard, which is read later
                copy_into(own[name][key], value)
    if state and (missing := next((name for name in own if name not in state), None)):
        raise UserError(f"{misfit}: '{missing}' is missing.")
