"""A moving average of the weights (`training.ema`): for evaluations, samples and checkpoints, not for training itself.

Late in a run, the weights of each batch are scattered around a better point, and their average is near it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from jojo.machine.ranks import local_tensor


class WeightAverage:
    """average = keep * average + (1 - keep) * weight after each batch, for every weight of a model.

    keep is `decay`, but in batch t at most (1 + t) / (10 + t): so the average always forgets the random weights of the beginning.
    With a decay of 0 nothing is averaged.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.averages = {weight: weight.detach().clone() for weight in model.parameters()} if decay else {}

    @torch.no_grad()
    def update(self, batches_done: int) -> None:
        """Take in the weights after an update. `batches_done`: the batches before this one."""
        keep = min(self.decay, (1 + batches_done) / (10 + batches_done))
        averages, weights = (
            [local_tensor(tensor) for tensor in part] for part in (self.averages.values(), self.averages)
        )
        if averages:
            torch._foreach_lerp_(averages, weights, 1 - keep)

    @contextmanager
    def in_model(self) -> Iterator[None]:
        """In the block, the model has the averages as its weights."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for weight, average in self.averages.items():  # in place: FSDP and compiled code keep the weights' memory
            copy = local_tensor(weight).clone()
            local_tensor(weight).copy_(local_tensor(average))
            local_tensor(average).copy_(copy)

    def state_dict(self) -> dict[str, Tensor]:
        """The model's state dict, with averages instead of weights."""
        weights = self.model.state_dict(keep_vars=True)
        return {name: self.averages.get(weight, weight).detach() for name, weight in weights.items()}
