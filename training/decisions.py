"""What a run leaves open, decided before the first batch: each value once, with its reason."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from config import Config
from data_loader import PackedLoader
from jojo.checkpoints.checkpoint import checkpoint_tokenizer
from jojo.machine import device as devices
from jojo.machine.ranks import SINGLE, Ranks
from jojo.schedule import Schedule, derive_schedule
from jojo.text.tokenizer import Tokenizer, get_tokenizer
from training.dataset import Data
from training.micro_batch import choose_batch_size
from training.resume import Asked
from utils import UserError, divisors, log


@dataclass
class Reasons:
    """Why the config is as it is, by dotted name."""

    sources: dict[str, str]  # where a value came from: "default", a file, a checkpoint, a flag
    derived: dict[str, str] = field(default_factory=dict)  # why a value was decided

    def by_flag(self, name: str) -> bool:
        """Whether a flag gave this option."""
        return self.sources[name].startswith("--")


def decide(asked: Asked, tokenizer: Tokenizer, ranks: Ranks) -> Reasons:
    """Decide what needs no data. Raises UserError for what does not fit this machine or these ranks."""
    config, reasons = asked.config, Reasons(asked.sources)
    derive_vocabulary(config, tokenizer, reasons, loaded=asked.checkpoint is not None)
    derive_system(config, reasons, ranks)
    if ranks.is_single and config.system.parallel == "fsdp" and reasons.by_flag("system.parallel"):
        log.warning("fsdp needs several processes; start them with torchrun.")
    refuse_uneven_shares(config, ranks, asked.auto_batch_size)
    return reasons


def decide_tokenizer(asked: Asked) -> Tokenizer:
    """The loaded model's tokenizer, or the one that data.tokenizer names. Raises UserError where these two differ."""
    config, sources, checkpoint = asked.config, asked.sources, asked.checkpoint
    named = config.data.tokenizer
    if checkpoint is None:
        return get_tokenizer(named)
    own = checkpoint_tokenizer(checkpoint)
    recorded = checkpoint.config.get("data", {}).get("tokenizer", "gpt2" if own.is_gpt2 else own.name)
    # "gpt2" in a config file is mostly the default, written out; a flag is meant.
    if sources["data.tokenizer"].startswith("--") or named not in ("gpt2", recorded):
        if get_tokenizer(named).with_chatml(own.has_chatml).identity() != own.identity():
            raise UserError(
                f"The model in '{checkpoint.path}' was trained with the tokenizer {own.name}, and "
                f"{sources['data.tokenizer']} names '{named}' (data.tokenizer); leave it out."
            )
    else:
        config.data.tokenizer = recorded
    return own


def derive_vocabulary(config: Config, tokenizer: Tokenizer, reasons: Reasons, loaded: bool) -> None:
    """Fill in model.vocab_size. Raises UserError when it is smaller than the tokenizer; `loaded`: of a checkpoint."""
    if config.model.vocab_size is None:
        config.model.vocab_size = tokenizer.padded_vocab_size
        reasons.derived["model.vocab_size"] = f"{tokenizer.name} has {tokenizer.n_vocab:,} tokens, rounded up to 64"
    if config.model.vocab_size < tokenizer.n_vocab:
        if loaded:
            raise UserError(
                f"The loaded model has {config.model.vocab_size:,} tokens, its tokenizer {tokenizer.n_vocab:,}: it was trained "
                "with a tokenizer that this version does not have. It cannot be continued here."
            )
        raise UserError(
            f"model.vocab_size {config.model.vocab_size:,} is smaller than the tokenizer's {tokenizer.n_vocab:,} tokens; "
            f"set it to null or to {tokenizer.padded_vocab_size:,}."
        )


def derive_system(config: Config, reasons: Reasons, ranks: Ranks = SINGLE) -> None:
    """Fill in device, dtype, compile and workers."""
    system, training, derived = config.system, config.training, reasons.derived
    wanted_device, by_flag = system.device, reasons.by_flag("system.device")
    if ranks.is_single:
        choice = devices.choose_device(wanted_device, by_flag)
    else:
        choice = devices.choose_rank_device(
            wanted_device, by_flag, ranks.local_rank, ranks.local_world_size, ranks.by_torchrun
        )
    if choice.value != wanted_device:
        system.device, derived["system.device"] = choice.value, choice.reason
    fell_back = wanted_device.startswith(("cuda", "mps")) and system.device == "cpu"
    choice = devices.choose_dtype(system.dtype, system.device, reasons.by_flag("system.dtype") or not fell_back)
    if choice.value != system.dtype:
        system.dtype, derived["system.dtype"] = choice.value, choice.reason
    wanted = training.compile_model
    choice = devices.choose_compile(wanted, system.device)
    training.compile_model = choice.value == "yes"
    if training.compile_model != wanted:
        derived["training.compile_model"] = choice.reason
    if system.num_workers is None:
        system.num_workers = os.cpu_count() or 1
        derived["system.num_workers"] = "one per core"


def derive_batch_size(config: Config, tokenizer: Tokenizer, reasons: Reasons, ranks: Ranks) -> None:
    """Fill in the micro-batch's size, and how many micro-batches make up the batch that the config describes."""
    rows, training, derived = config.rows_per_batch, config.training, reasons.derived
    training.batch_size, derived["training.batch_size"] = choose_batch_size(config, tokenizer.n_vocab, ranks)
    training.gradient_accumulation_steps = rows // training.batch_size
    derived["training.gradient_accumulation_steps"] = f"{rows:,} sequences a batch"


def decide_schedule(asked: Asked, total_batches: int, reasons: Reasons) -> Schedule:
    """The schedule of a run of this length. Fills in what the config left open, and logs when a run's length changed."""
    config, scheduler = asked.config, asked.config.scheduler
    schedule = derive_schedule(config, total_batches)
    stored = asked.checkpoint.state.get("lr_scheduler") if asked.checkpoint and asked.mode.keeps_counters else None
    if stored and stored["total_batches"] != total_batches:
        log.info(
            "The run is now %s batches long instead of %s. From here on: %s.",
            f"{total_batches:,}", f"{stored['total_batches']:,}", schedule.describe(total_batches),
        )  # fmt: skip
    for name, value, reason in (
        ("warmup_iters", schedule.warmup, "warmup_fraction of the run"),
        ("lr_decay_iters", schedule.decay_end, "the run's end"),
        ("min_lr", schedule.floor, "a tenth of learning_rate"),
    ):
        if getattr(scheduler, name) != value:
            setattr(scheduler, name, value)
            reasons.derived[f"scheduler.{name}"] = reason
    return schedule


# --- what is refused --------------------------------------------------------------------------------------------------


def refuse_uneven_shares(config: Config, ranks: Ranks, auto_batch_size: bool = False) -> None:
    """Raises UserError where the ranks cannot share a batch's micro-batches, or the model."""
    steps, n, together = config.training.gradient_accumulation_steps, ranks.world_size, config.system.shard_ranks
    rows = config.rows_per_batch
    if together and config.system.parallel != "fsdp":
        raise UserError("system.shard_ranks is for fsdp; add --system.parallel fsdp, or leave it out.")
    if config.system.parallel == "fsdp" and n > 1:
        if config.optimizer.kind == "muon":
            raise UserError("Muon needs whole matrices, and fsdp shards them; use --system.parallel ddp or AdamW.")
        if config.system.dtype == "float16":
            raise UserError("fsdp does not support float16; use --dtype bfloat16 or float32.")
        if together and n % together:
            raise UserError(f"--system.shard_ranks {together}: it must divide the number of ranks, {n}.")
        if auto_batch_size:
            raise UserError("--batch_size auto tries the whole model on one device; with fsdp, give a number.")
    if auto_batch_size and rows % n:
        raise UserError(
            f"{n} ranks cannot share a batch of {rows:,} sequences; set --training.gradient_accumulation_steps to a "
            "multiple of the number of ranks."
        )
    if steps % n and not auto_batch_size:
        same = [d for d in divisors(rows) if d % n == 0]
        below, above = ([d for d in same if d < steps][-1:], [d for d in same if d > steps][:1])
        ways = [f"{d} with --batch_size {rows // d}" for d in (*below, *above)]
        raise UserError(
            f"{n} ranks cannot share {steps} micro-batches (training.gradient_accumulation_steps); set it to a multiple of {n}"
            + (f". A batch stays at {rows:,} sequences with {' or '.join(ways)}." if ways else ".")
        )


def refuse_too_little_text(config: Config, data: Data) -> None:
    """Raises UserError where the text is shorter than one block."""
    n_tokens, block_size = data.train.n_tokens, config.model.block_size
    if n_tokens < block_size:
        raise UserError(
            f"The data set '{config.data.dataset_name}' has {n_tokens:,} tokens, fewer than one block of {block_size:,}; "
            f"add text, or set --model.block_size to {max(2, n_tokens // 2)} or less."
        )


def refuse_no_targets(split: str, loader: PackedLoader) -> None:
    """Raises UserError where data.predict leaves nothing to evaluate in a split."""
    if not any(loader.batch(0, index).n_targets for index in range(loader.batches_per_epoch)):
        raise UserError(
            f"In the {split} split, the evaluated batches have no words of an assistant to predict (data.predict); use data with "
            "conversations, --data.predict all, or more --training.eval_iters."
        )
