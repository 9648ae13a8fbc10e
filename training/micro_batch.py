"""How many sequences go through the model at once: the most that fit (training.batch_size "auto").

A batch, the sequences of one update, is what the config says; it is only cut into other micro-batches. Their sum is the
same but for rounding, and larger ones keep a device busier. The size is always a divisor of the batch.

On CUDA sizes are tried, with real training steps. On a CPU, and on Apple's GPUs, which share its memory, too much of it
is no error that could be caught but a machine that swaps or kills: there nothing is tried, and an estimate decides.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from config import Config
from jojo.machine import device as devices
from jojo.machine.memory import bucket_bytes, memory_bytes
from jojo.machine.ranks import SINGLE, Ranks
from jojo.optim import Optimizer, make_optimizers
from model import GPT
from utils import UserError, divisors, is_out_of_memory

SPARE = 0.05  # of a CUDA device's memory, to be left over by a trial: in a long run memory gets into pieces
USABLE = 0.8  # of the main memory that is available: the need is an estimate
CPU_TOKENS = 4_096  # a CPU's matrix products are no faster with more in a micro-batch, which then only takes memory


def choose_batch_size(config: Config, n_vocab: int, ranks: Ranks = SINGLE) -> tuple[int, str]:
    """The size of micro-batches for a config's sequences per batch, and why.

    Args:
        config: with device, dtype and vocabulary decided; batch_size x gradient_accumulation_steps is what counts.
        n_vocab: tokens in use.
        ranks: they share the sequences, of which there are a multiple of their number; what fits on all of them counts.

    Raises:
        UserError: not even one sequence fits.
    """
    rows, device = config.rows_per_batch // ranks.world_size, config.system.device
    if device.startswith("cuda"):
        devices.set_up_device(config.system, device)
        trial = Trial(config, n_vocab, bucket_bytes(config, ranks.world_size))
        size = largest_fitting(rows, lambda size: ranks.all_true(trial.fits(size)))
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return size, f"the most that fit on {device}, tried out"
    size = largest_fitting(rows, lambda size: ranks.all_true(fits_by_estimate(config, size, ranks)))
    limit = f", up to {CPU_TOKENS:,} tokens" if device == "cpu" else ""
    return size, f"the most that fit, by an estimate{limit}"


def largest_fitting(rows: int, fits: Callable[[int], bool]) -> int:
    """The largest divisor of `rows` that fits, where everything smaller than a size that fits does too.

    It starts small, takes strides that double, and halves what is left after the first size that does not fit: what is
    far too large is not tried.

    Raises:
        UserError: not even 1 fits.
    """
    sizes = divisors(rows)
    if not fits(1):
        raise UserError(
            "Not even one sequence fits in memory; use --training.activation_checkpointing true, a shorter "
            "--model.block_size or a smaller model (or give --batch_size a number, to try it all the same)."
        )
    good, bad, stride = 0, len(sizes), 1  # places in sizes: of the largest that fits, of the smallest that does not
    while bad - good > 1:
        place = min(good + stride, (good + bad) // 2)
        if fits(sizes[place]):
            good, stride = place, 2 * stride
        else:
            bad, stride = place, len(sizes)
    return sizes[good]


def with_batch_size(config: Config, size: int) -> Config:
    """The same batches in micro-batches of `size`, a divisor of their sequences."""
    training = replace(config.training, batch_size=size, gradient_accumulation_steps=config.rows_per_batch // size)
    return replace(config, training=training)


def fits_by_estimate(config: Config, size: int, ranks: Ranks) -> bool:
    """Whether micro-batches of this size should fit in main memory, on all ranks of this machine; on a CPU, also whether
    they are worth it."""
    if config.system.device == "cpu" and size > 1 and size * config.model.block_size > CPU_TOKENS:
        return False
    each = memory_bytes(with_batch_size(config, size), ranks.world_size)
    available = devices.available_memory_bytes()
    return available is None or ranks.local_world_size * each <= USABLE * available


class Trial:
    """Training steps on a CUDA device, of the real model in the real dtype, with nothing kept of them.

    Nothing is compiled: that takes long, and compiled blocks take less memory.
    """

    def __init__(self, config: Config, n_vocab: int, more: int = 0) -> None:
        """`more`: bytes that the run takes beside what a step here does."""
        self.config, self.n_vocab, self.more = config, n_vocab, more
        self.parts: tuple[GPT, list[Optimizer]] | None = None  # made at the first size

    def fits(self, size: int) -> bool:
        """Whether a step with micro-batches of this size fits, and leaves enough to spare."""
        fits = self._fits(size)
        if self.parts:
            self.parts[0].zero_grad(set_to_none=True)
        torch.cuda.empty_cache()  # here the error, and what its traceback held, is gone
        return fits

    def _fits(self, size: int) -> bool:
        system = self.config.system
        try:
            self.parts = self.parts or build(self.config, self.n_vocab)
            try_step(*self.parts, with_batch_size(self.config, size))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return False
        free, total = torch.cuda.mem_get_info(system.device)  # what the step took counts as in use until it is emptied
        ours = int(total * (system.memory_fraction or 1))
        return min(free, ours - torch.cuda.memory_reserved(system.device)) - self.more >= SPARE * ours


def build(config: Config, n_vocab: int) -> tuple[GPT, list[Optimizer]]:
    """A model with random weights on the device, and its optimizers."""
    with torch.device(config.system.device):
        model = GPT(config.model, n_vocab).train()
    model.transformer.checkpointing = config.training.activation_checkpointing
    return model, make_optimizers(model, config.optimizer, config.system.dtype)


def try_step(model: GPT, optimizers: Sequence[Optimizer], config: Config) -> None:
    """A batch as Trainer.step trains on it, of random tokens; two micro-batches show what any number takes.

    Raises:
        RuntimeError, MemoryError: it does not fit (see utils.is_out_of_memory).
    """
    system, training = config.system, config.training
    shape = (training.batch_size, config.model.block_size)  # B T
    tokens = torch.randint(model.n_vocab, shape, device=system.device)
    with devices.autocast(system.device, system.dtype):
        for _ in range(min(2, training.gradient_accumulation_steps)):  # the second finds gradients in place
            loss = model(tokens, tokens) / tokens.numel()
            with devices.no_autocast(system.device):
                loss.backward()
    for optimizer in optimizers:
        optimizer.step()
