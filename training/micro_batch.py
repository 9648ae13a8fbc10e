"""How many sequences go through the model at once: training.batch_size "auto" takes the most that fit.

The size divides the batch's number of sequences, so batches stay the same and results change only by rounding. Larger
micro-batches keep a device busier.

On CUDA, sizes are tried with real training steps. CPUs and Apple's GPUs use main memory. If that is full, there is no error:
the machine swaps, or kills the process. So an estimate chooses the size on these.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from config import Config
from jojo.machine import device as devices
from jojo.machine.ranks import SINGLE, Ranks
from jojo.networks import formulas
from jojo.optim import Optimizer, make_optimizers
from model import GPT
from training.memory import memory_bytes
from utils import UserError, divisors, is_out_of_memory

SPARE = 0.05  # of a CUDA device's memory must stay free in a trial, because a long run fragments memory
USABLE = 0.8  # of the available main memory may be used, because the need is an estimate
CPU_TOKENS = 4_096  # in a micro-batch; with more, a CPU needs more memory and is no faster


def choose_batch_size(config: Config, n_vocab: int, ranks: Ranks = SINGLE) -> tuple[int, str]:
    """The largest size that fits on all ranks, and why. Raises UserError if not even one sequence fits.

    The config must have its device, dtype and vocabulary size. The ranks must be able to share the batch equally.
    """
    rows, device = config.rows_per_batch // ranks.world_size, config.system.device
    if not device.startswith("cuda"):
        size = largest_fitting(rows, lambda size: ranks.all_true(fits_by_estimate(config, size, ranks)))
        limit = f", up to {CPU_TOKENS:,} tokens" if device == "cpu" else ""
        return size, f"the most that fit, by an estimate{limit}"
    devices.set_up_device(config.system, device)
    missing = (not ranks.is_single) + (
        config.training.ema > 0
    )  # ddp's buckets, the weights' average: a trial has neither
    trial = Trial(config, n_vocab, missing * 4 * formulas(config.model).n_parameters)
    size = largest_fitting(rows, lambda size: ranks.all_true(trial.fits(size)))
    trial.parts = None  # frees the model of the trial
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return size, f"the most that fit on {device}, tried out"


def largest_fitting(rows: int, fits: Callable[[int], bool]) -> int:
    """The largest divisor of `rows` that fits. If a size fits, all smaller ones must fit too.

    The search doubles its stride until a size does not fit, then bisects: it never tries sizes that are far too large.
    """
    sizes = divisors(rows)
    if not fits(1):
        needed = "--training.activation_checkpointing true, a shorter --model.block_size or a smaller model"
        raise UserError(f"Not even one sequence fits in memory; use {needed}.")
    good, bad, stride = 0, len(sizes), 1  # indices of the largest size that fits, and of the smallest that does not
    while bad - good > 1:
        middle = min(good + stride, (good + bad) // 2)
        if fits(sizes[middle]):
            good, stride = middle, 2 * stride
        else:
            bad, stride = middle, len(sizes)
    return sizes[good]


def with_batch_size(config: Config, size: int) -> Config:
    """The config with the same batches in micro-batches of `size` sequences; `size` must divide rows_per_batch."""
    training = replace(config.training, batch_size=size, gradient_accumulation_steps=config.rows_per_batch // size)
    return replace(config, training=training)


def fits_by_estimate(config: Config, size: int, ranks: Ranks) -> bool:
    """Whether all ranks of this machine should fit in main memory with this size. On a CPU, CPU_TOKENS is a limit too."""
    if config.system.device == "cpu" and size > 1 and size * config.model.block_size > CPU_TOKENS:
        return False
    per_rank = memory_bytes(with_batch_size(config, size), ranks.world_size)
    available = devices.available_memory_bytes()
    return available is None or ranks.local_world_size * per_rank <= USABLE * available


class Trial:
    """Training steps of the real model on a CUDA device. They are not compiled: that takes long, and would need less memory."""

    def __init__(self, config: Config, n_vocab: int, extra_bytes: int = 0) -> None:
        """`extra_bytes`: memory that the run needs and a trial does not."""
        self.config, self.n_vocab, self.extra_bytes = config, n_vocab, extra_bytes
        self.parts: tuple[GPT, list[Optimizer]] | None = None  # built with the first size

    def fits(self, size: int) -> bool:
        """Whether a step with micro-batches of this size fits and leaves SPARE."""
        system, fits = self.config.system, False
        try:
            self.parts = self.parts or build(self.config, self.n_vocab)
            try_step(*self.parts, with_batch_size(self.config, size))
            free, total = torch.cuda.mem_get_info(system.device)  # the step's memory is still reserved
            usable = int(total * (system.memory_fraction or 1))
            left = min(free, usable - torch.cuda.memory_reserved(system.device)) - self.extra_bytes
            fits = left >= SPARE * usable
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        if self.parts:
            self.parts[0].zero_grad(set_to_none=True)
        torch.cuda.empty_cache()  # not inside `except`, where the traceback keeps tensors alive
        return fits


def build(config: Config, n_vocab: int) -> tuple[GPT, list[Optimizer]]:
    """A model with random weights on the device, and its optimizers."""
    with torch.device(config.system.device):
        model = GPT(config.model, n_vocab).train()
    model.transformer.checkpointing = config.training.activation_checkpointing
    return model, make_optimizers(model, config.optimizer, config.system.dtype)


def try_step(model: GPT, optimizers: Sequence[Optimizer], config: Config) -> None:
    """Train on a batch of random tokens, as in Trainer.step. Two micro-batches need as much memory as more of them."""
    system, training = config.system, config.training
    shape = training.batch_size, config.model.block_size  # B, T
    tokens = torch.randint(model.n_vocab, shape, device=system.device)
    with devices.autocast(system.device, system.dtype):
        for _ in range(min(2, training.gradient_accumulation_steps)):  # the second adds to the first's gradients
            loss = model(tokens, tokens) / tokens.numel()
            with devices.autocast(system.device, "float32"):
                loss.backward()
    for optimizer in optimizers:
        optimizer.step()
