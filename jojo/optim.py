"""The optimizers and their state, and the learning rate as a pure function of the batch number."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from config import OptimizerConfig
from jojo.machine.ranks import copy_into, local_tensor
from utils import UserError, one_line

EPSILON = 1e-8  # added to the root of AdamW's second moment
STATES = ({"step", "exp_avg", "exp_avg_sq"}, {"momentum_buffer"})  # what AdamW and Muon keep of a weight
MUON_MOMENTUM = 0.95
MUON_ELEMENTS = 1 << 24  # of weights that are worked on together
ADAMW_STEP_SIZE = 0.2  # root mean square of AdamW's usual step, in learning rates (Liu et al. 2025)


def make_optimizers(model: nn.Module, config: OptimizerConfig, dtype: str = "float32") -> list[Optimizer]:
    """AdamW for everything; with kind "muon", Muon for the matrices inside the blocks and AdamW for the rest.

    Matrices and embeddings decay; biases and LayerNorms do not. `dtype` is what Muon's matrix products run in.
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    hidden = [(name, p) for name, p in named if config.kind == "muon" and ".h." in name and p.dim() == 2]
    taken = {name for name, _ in hidden}
    rest = [p for name, p in named if name not in taken]
    groups = [
        {"params": [p for p in rest if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in rest if p.dim() < 2], "weight_decay": 0.0},
    ]
    adamw = AdamW(groups, config.learning_rate, (config.beta1, config.beta2))
    if not hidden:
        return [adamw]
    kinds = {name.split(".", 3)[-1] for name, _ in hidden}  # "attn.c_attn.weight" and so on: one shape each
    muon = Muon(
        [
            {"params": [p for name, p in hidden if name.endswith(kind)], "matrices": 3 if "c_attn" in kind else 1}
            for kind in sorted(kinds)
        ],
        config.learning_rate, config.weight_decay, torch.bfloat16 if dtype == "bfloat16" else torch.float32,
    )  # fmt: skip
    return [adamw, muon]


class Optimizer:
    """Groups of weights with settings of their own, and what is remembered of each weight.

    It looks like torch.optim.Optimizer from outside. It is none because to make one of those imports torch's compiler,
    which takes as long as torch itself and 70 MB, at every start. The state is there from the beginning: made in the
    middle of the first batch it would lie between what every batch frees, and memory would be in pieces.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], **settings: Any) -> None:
        self.param_groups = [settings | group for group in groups]
        self.state = {weight: self.first_state(weight) for group in self.param_groups for weight in group["params"]}

    def first_state(self, weight: Tensor) -> dict[str, Tensor]:
        """What is remembered of a weight before its first update."""
        raise NotImplementedError

    def step(self) -> None:
        """Update every weight that has a gradient."""
        raise NotImplementedError


class AdamW(Optimizer):
    """Adam with weight decay that stands apart from the gradient (Loshchilov & Hutter 2019).

        m = average of the gradient g      v = average of g², both over about 1 / (1 - beta) batches
        w = w - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + EPSILON) - lr weight_decay w

    PyTorch's fused kernel does it in one pass over the memory, where the formula takes a dozen.

    Args:
        groups: weights; "weight_decay".
        lr: learning rate.
        betas: of the two averages.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, betas: tuple[float, float]) -> None:
        super().__init__(groups, lr=lr, betas=betas)

    @torch.no_grad()
    def step(self) -> None:
        """Update every weight that has a gradient."""
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            states = [self.state[weight] for weight in weights]
            steps, m, v = ([local_tensor(state[key]) for state in states] for key in ("step", "exp_avg", "exp_avg_sq"))
            if weights:
                torch._foreach_add_(steps, 1)
                gradients = [local_tensor(weight.grad) for weight in weights]
                torch._fused_adamw_(
                    [local_tensor(weight) for weight in weights], gradients, m, v, [], steps,
                    lr=group["lr"], beta1=group["betas"][0], beta2=group["betas"][1],
                    weight_decay=group["weight_decay"], eps=EPSILON, amsgrad=False, maximize=False,
                )  # fmt: skip

    def first_state(self, weight: Tensor) -> dict[str, Tensor]:
        averages = {key: torch.zeros_like(weight) for key in ("exp_avg", "exp_avg_sq")}
        return {"step": torch.zeros((), device=weight.device)} | averages


class Muon(Optimizer):
    """Momentum made orthogonal, for the weight matrices inside the blocks (Jordan et al. 2024).

    A gradient matrix is dominated by a few directions. Here every direction of the update is given the same length,
    so that the rare ones are learned as fast as the common ones.
    The step is scaled to the size of AdamW's (Liu et al. 2025, "Muon is scalable"): one learning rate suits both.

    Unlike torch.optim.Muon, with which the tests compare it, it takes apart matrices that are stored as one, works on
    small matrices together, and multiplies in `dtype`: not every processor is fast at bfloat16.

    Args:
        groups: weights (rows, columns) of one shape each; "matrices": how many are stored above one another in it.
        lr, weight_decay: as AdamW's.
        dtype: what matrix products run in.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, weight_decay: float, dtype: torch.dtype) -> None:
        super().__init__(groups, lr=lr, weight_decay=weight_decay)
        self.dtype = dtype

    @torch.no_grad()
    def step(self) -> None:
        """Update every weight that has a gradient."""
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            together = max(1, MUON_ELEMENTS // weights[0].numel()) if weights else 1
            for first in range(0, len(weights), together):
                self._update(weights[first : first + together], group)

    def _update(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        directions = torch.stack([self._direction(weight).to(self.dtype) for weight in weights])  # (n, rows, columns)
        matrices = directions.view(len(weights) * group["matrices"], -1, directions.size(2))
        size = group["lr"] * ADAMW_STEP_SIZE * math.sqrt(max(matrices.shape[1:]))
        for weight, step in zip(weights, orthogonalize(matrices).reshape(directions.shape), strict=True):
            weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(step, alpha=size)

    def first_state(self, weight: Tensor) -> dict[str, Tensor]:
        return {"momentum_buffer": torch.zeros_like(weight)}

    def _direction(self, weight: Tensor) -> Tensor:
        """Nesterov momentum: the average gradient, and a step ahead."""
        assert weight.grad is not None
        momentum = self.state[weight]["momentum_buffer"].lerp_(weight.grad, 1 - MUON_MOMENTUM)
        return weight.grad.lerp(momentum, MUON_MOMENTUM)


def orthogonalize(matrices: Tensor) -> Tensor:
    """The nearest matrix whose singular values are all about 1 (between 0.7 and 1.2), for each of a stack.

    Five steps of a Newton-Schulz iteration, a quintic polynomial in the matrix, with the coefficients of Jordan et
    al. (2024): they raise small singular values fastest. Matrix products only, so it is fast where training is.

    Args:
        matrices: (n, rows, columns) in the dtype to compute in.
    """
    wide = matrices if matrices.size(1) <= matrices.size(2) else matrices.mT
    x = wide / wide.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(5):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, polynomial, x, beta=3.4445)  # 3.4445 x - 4.7750 (x xᵀ) x + 2.0315 (x xᵀ)² x
    return x if wide is matrices else x.mT


def optimizer_state(optimizers: Sequence[Optimizer], model: nn.Module) -> dict[str, dict[str, Any]]:
    """Optimizer state by parameter name, so that it survives a change of groups or their order."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return {names[p]: dict(state) for optimizer in optimizers for p, state in optimizer.state.items()}


def load_optimizer_state(
    optimizers: Sequence[Optimizer], model: nn.Module, state: Mapping[str, Mapping[str, Any]]
) -> None:
    """Inverse of optimizer_state. State that another kind of optimizer left is not taken over.

    Raises:
        UserError: names or shapes do not fit the model.
    """
    parameters = dict(model.named_parameters())
    for name, values in state.items():
        if name not in parameters or not isinstance(values, dict) or set(values) not in STATES:
            raise UserError(f"The checkpoint's optimizer state does not fit this model at '{one_line(name)}'.")
        for key, value in values.items():
            shape = () if key == "step" else parameters[name].shape
            if not isinstance(value, Tensor) or value.shape != shape or not value.is_floating_point():
                raise UserError(f"The checkpoint's optimizer state does not fit this model at '{name}' ({key}).")
    trained = (name for name, parameter in parameters.items() if parameter.requires_grad)
    if state and (missing := next((name for name in trained if name not in state), None)):
        raise UserError(f"The checkpoint's optimizer state does not fit this model: it has none for '{missing}'.")
    for optimizer in optimizers:
        for name, values in state.items():
            own = optimizer.state.get(parameters[name], {})
            if own.keys() == values.keys():
                for key, value in values.items():
                    if not value.is_meta:  # else only its shape is known so far
                        copy_into(own[key], value)
