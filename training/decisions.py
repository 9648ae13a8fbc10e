"""Fills in what a config leaves open (device, dtype, batch size, schedule), with a reason for each value."""

from __future__ import annotations

from dataclasses import dataclass, field

from config import Config, Value
from jojo.checkpoints.checkpoint import checkpoint_tokenizer
from jojo.machine import device as devices
from jojo.machine.ranks import SINGLE, Ranks
from jojo.schedule import Schedule, derive_schedule
from jojo.text.tokenizer import Tokenizer, get_tokenizer
from training.micro_batch import choose_batch_size
from training.resume import ResolvedRequest
from utils import UserError, log, plural, usable_cores


@dataclass
class Reasons:
    """Why each option has its value, by dotted name."""

    sources: dict[str, str]  # where a value came from: "default", a file, a checkpoint, a flag
    derived: dict[str, str] = field(default_factory=dict)  # why a value was filled in

    def derive(self, config: Config, name: str, value: Value, reason: str) -> None:
        """Set an option. If this changes its value, record the reason."""
        if config.get(name) != value:
            config.set(name, value)
            self.derived[name] = reason

    def by_flag(self, name: str) -> bool:
        """Whether a flag set this option."""
        return self.sources[name].startswith("--")


def decide(resolved: ResolvedRequest, tokenizer: Tokenizer, ranks: Ranks) -> Reasons:
    """Decide what does not depend on the data. Raises UserError if tokenizer, machine or ranks do not allow the config."""
    config, reasons = resolved.config, Reasons(resolved.sources)
    n_vocab, padded = tokenizer.n_vocab, tokenizer.padded_vocab_size
    if config.model.vocab_size is None:
        reasons.derive(config, "model.vocab_size", padded, f"{tokenizer.name} has {n_vocab:,} tokens; a multiple of 64")
    elif config.model.vocab_size < n_vocab:
        size, advice = f"{config.model.vocab_size:,}", f"set it to null or to {padded:,}"
        if resolved.start.checkpoint:
            advice = "the loaded model needs a tokenizer that Jojo does not have"
        raise UserError(f"model.vocab_size {size} is smaller than the tokenizer's {n_vocab:,} tokens; {advice}.")
    derive_system(config, reasons, ranks)
    if ranks.is_single and config.system.parallel == "fsdp" and reasons.by_flag("system.parallel"):
        log.warning("fsdp needs several processes; start them with torchrun.")
    refuse_uneven_shares(config, ranks, resolved.auto_batch_size)
    return reasons


def decide_tokenizer(resolved: ResolvedRequest) -> Tokenizer:
    """The loaded model's tokenizer, or the one that data.tokenizer names. Raises UserError if they differ."""
    config, sources, checkpoint = resolved.config, resolved.sources, resolved.start.checkpoint
    named = config.data.tokenizer
    if checkpoint is None:
        return get_tokenizer(named, config.data.dataset_name)
    own = checkpoint_tokenizer(checkpoint)
    recorded = checkpoint.config.get("data", {}).get("tokenizer", "gpt2" if own.is_gpt2 else own.name)
    # A config file that says "gpt2" mostly repeats the default, so only a flag with "gpt2" counts as a choice.
    if sources["data.tokenizer"].startswith("--") or named not in ("gpt2", recorded):
        if get_tokenizer(named).with_chatml(own.has_chatml).identity() != own.identity():
            trained = f"The model in '{checkpoint.path}' was trained with the tokenizer {own.name}"
            raise UserError(f"{trained}, and {sources['data.tokenizer']} names '{named}'; leave data.tokenizer out.")
    else:
        config.data.tokenizer = recorded
    return own


def derive_system(config: Config, reasons: Reasons, ranks: Ranks = SINGLE) -> None:
    """Fill in device, dtype, compile and workers."""
    system, wanted, by_flag = config.system, config.system.device, reasons.by_flag("system.device")
    if ranks.is_single:
        device = devices.choose_device(wanted, by_flag)
    else:
        here = (ranks.local_rank, ranks.local_world_size, ranks.by_torchrun)
        device = devices.choose_rank_device(wanted, by_flag, *here)
    reasons.derive(config, "system.device", device.value, device.reason)
    # A config file may name a dtype for a GPU. If there is only a CPU here, choose_dtype may warn and choose another one.
    fell_back = wanted.startswith(("cuda", "mps")) and system.device == "cpu"
    dtype = devices.choose_dtype(system.dtype, system.device, reasons.by_flag("system.dtype") or not fell_back)
    reasons.derive(config, "system.dtype", dtype.value, dtype.reason)
    compiles = devices.choose_compile(config.training.compile_model, system.device)
    reasons.derive(config, "training.compile_model", compiles.value == "yes", compiles.reason)
    if system.num_workers is None:
        reasons.derive(config, "system.num_workers", usable_cores(), "one per core")


def derive_batch_size(config: Config, tokenizer: Tokenizer, reasons: Reasons, ranks: Ranks) -> None:
    """Fill in the micro-batch's size, and how many micro-batches make up the batch that the config describes."""
    rows, training, derived = config.rows_per_batch, config.training, reasons.derived
    training.batch_size, derived["training.batch_size"] = choose_batch_size(config, tokenizer.n_vocab, ranks)
    training.gradient_accumulation_steps = rows // training.batch_size
    derived["training.gradient_accumulation_steps"] = f"{rows:,} sequences a batch"


def decide_schedule(resolved: ResolvedRequest, total_batches: int, reasons: Reasons) -> Schedule:
    """The schedule of a run of this length. Fills in open options, and logs if a resumed run has another length."""
    config, start = resolved.config, resolved.start
    schedule = derive_schedule(config, total_batches)
    stored = start.checkpoint.state.get("lr_scheduler") if start.checkpoint and start.mode.keeps_counters else None
    if stored and stored["total_batches"] != total_batches:
        done, before = start.batches_done, stored["total_batches"]
        lengths, rates = (f"{total_batches:,}", f"{before:,}"), schedule.describe(total_batches, done)
        log.info("The run is now %s batches long instead of %s. Its learning rate from here on: %s.", *lengths, rates)
        if before <= done < total_batches and schedule.decays and schedule.lr(done) > schedule.floor:
            log.info("The loss rises with the learning rate, and falls again in the new cool-down.")
        if start.checkpoint and start.checkpoint.config["training"].get("max_iters") and not config.training.max_iters:
            log.warning("To train only as long again, use --max_iters %d instead of --epochs.", 2 * before)
    reasons.derive(config, "scheduler.warmup_iters", schedule.warmup, "warmup_fraction of the run")
    reasons.derive(config, "scheduler.lr_decay_iters", schedule.decay_end, "the run's end")
    reasons.derive(config, "scheduler.min_lr", schedule.floor, "a tenth of learning_rate")
    return schedule


def refuse_uneven_shares(config: Config, ranks: Ranks, auto_batch_size: bool = False) -> None:
    """Raises UserError if the ranks cannot share a batch's micro-batches, or the model."""
    rows, n, shard_ranks = config.rows_per_batch, ranks.world_size, config.system.shard_ranks
    steps = config.training.gradient_accumulation_steps
    if shard_ranks and config.system.parallel != "fsdp":
        raise UserError("system.shard_ranks is for fsdp; add --system.parallel fsdp, or leave it out.")
    if config.system.parallel == "fsdp" and n > 1:
        if config.system.dtype == "float16":
            raise UserError("fsdp does not support float16; use --dtype bfloat16 or float32.")
        if shard_ranks and n % shard_ranks:
            raise UserError(f"--system.shard_ranks {shard_ranks}: it must divide the number of ranks, {n}.")
        if auto_batch_size:
            raise UserError("--batch_size auto tries the whole model on one device; with fsdp, give a number.")
    if (rows if auto_batch_size else steps) % n:
        what = f"a batch of {rows:,} sequences" if auto_batch_size else plural(steps, "micro-batch")
        more = -(-steps // n) * n
        same = next((k for k in range(more, rows + 1, n) if rows % k == 0), None)  # keeps the batch as it is
        size = f"--batch_size {rows // same} " if same else ""
        advice = f"add {size}--training.gradient_accumulation_steps {same or more}"
        raise UserError(f"{n} ranks cannot share {what}; {advice}.")
