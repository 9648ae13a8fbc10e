"""Batches on the device. A GPU receives the next batch while it still computes the current one.

Shape letters: A micro-batches per batch on this rank, B sequences per micro-batch, T tokens per sequence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from config import SystemConfig
from data_loader import Batch, PackedLoader


@dataclass
class DeviceBatch:
    """A Batch on the device: inputs and targets int64 (A, B, T)."""

    inputs: Tensor
    targets: Tensor
    n_targets: int


class DeviceLoader:
    """The batches of a PackedLoader, on the device."""

    def __init__(self, packed: PackedLoader, system: SystemConfig) -> None:
        self.packed, self.device = packed, system.device
        self.pin_memory = system.pin_memory and self.device.startswith("cuda")
        self.prefetches = self.device != "cpu"  # on a CPU there is no copy to overlap with computing
        self._next: tuple[tuple[int, int], DeviceBatch] | None = None  # (epoch, position) and the batch there

    def batch(self, epoch: int, position: int) -> DeviceBatch:
        """The batch at a position, like PackedLoader.batch; the prefetched one if `prefetch` was called for it."""
        if self._next and self._next[0] == (epoch, position):
            return self._next[1]
        return self.send(self.packed.batch(epoch, position))

    def prefetch(self, epoch: int, position: int) -> None:
        """Read a batch now and start sending it to the device."""
        if self.prefetches:
            self._next = (epoch, position), self.batch(epoch, position)

    def send(self, batch: Batch) -> DeviceBatch:
        return DeviceBatch(self.to_device(batch.inputs), self.to_device(batch.targets), batch.n_targets)

    def to_device(self, ids: np.ndarray) -> Tensor:
        """Copy ids to the device. With pinned memory, the CPU continues during the copy."""
        tensor = torch.from_numpy(ids)
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.pin_memory else tensor.to(self.device)
