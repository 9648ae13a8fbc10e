"""From flags and files to a run: everything that is decided before the first batch, decided once, with its reason."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import device as devices
import estimate
from checkpoint import Checkpoint, checkpoint_tokenizer, load_checkpoint
from config import OPTIONS, SECTIONS, Config, Value, Values, file_layers, resolve
from data_loader import PackedLoader, open_dataset
from optim import Schedule, derive_schedule
from run_files import CheckpointManager, run_path
from token_cache import TokenCache
from tokenizer import Tokenizer, get_tokenizer
from utils import UserError, log, user_path

# Fields that decide what is learned: changing one of them on resume makes it another run.
DECISIVE = [
    *(name for name in OPTIONS if name.split(".")[0] in ("model", "optimizer", "scheduler")),
    "training.batch_size", "training.gradient_accumulation_steps", "training.train_batches", "training.compile_model",
    "system.seed", "system.dtype", "data.tokenizer", "data.parse_special",
]  # fmt: skip
SHAPE = [n for n in OPTIONS if n.startswith("model.") and n != "model.dropout"]


@dataclass
class Request:
    """What was asked for on the command line."""

    config_file: str | None = None
    overrides: list[tuple[str, str, Value]] = field(default_factory=list)  # (flag as typed, dotted name, value)
    continue_from: str | None = None  # --checkpoint PATH, --resume PATH
    resume: bool = False  # --resume without a path
    weights_from: str | None = None  # --load_model_only
    output: str | None = None
    allow_changes: bool = False


@dataclass
class Run:
    """Everything a Trainer needs."""

    config: Config  # resolved: what was null or auto has its value
    sources: dict[str, str]  # dotted name → where its value came from
    derived: dict[str, str]  # dotted name → why it got the value it has
    tokenizer: Tokenizer
    train: TokenCache
    val: TokenCache
    schedule: Schedule
    batches_per_epoch: int
    total_batches: int
    files: CheckpointManager
    checkpoint: Checkpoint | None  # to go on from, or to take weights from
    continues: bool  # the checkpoint's whole training state is taken over
    run_id: str  # 16 hex digits, the same through all resumes
    compiled: bool = False  # torch.compile was asked for and works
    temporary_cache: Any = None  # keeps a --no_cache folder alive

    def close(self) -> None:
        """Close the data's files; removes a --no_cache folder."""
        self.train.close()
        self.val.close()
        if self.temporary_cache:
            self.temporary_cache.cleanup()

    @property
    def device(self) -> str:
        return self.config.system.device

    @property
    def dtype(self) -> str:
        return self.config.system.dtype

    @property
    def dataset_fingerprints(self) -> dict[str, str]:
        return {"name": self.train.facts.name, "train": self.train.facts.fingerprint, "val": self.val.facts.fingerprint}

    def loader(self, rank: int = 0, world_size: int = 1) -> PackedLoader:
        """The training batches of one rank."""
        return training_loader(self.config, self.train, self.tokenizer, rank, world_size)

    def evaluation_loader(self, split: str) -> PackedLoader:
        """Fixed micro-batches for evaluation: the same for every run over the same data and shape."""
        training = self.config.training
        limit = training.eval_iters
        if split == "val" and training.val_batches:
            limit = min(limit, training.val_batches)
        return PackedLoader(
            self.train if split == "train" else self.val, self.config.model.block_size, training.batch_size,
            eot_id=self.tokenizer.eot_id, seed=None, max_batches=limit,
        )  # fmt: skip


def training_loader(
    config: Config, cache: TokenCache, tokenizer: Tokenizer, rank: int = 0, world_size: int = 1
) -> PackedLoader:
    """The training batches of one rank."""
    training = config.training
    return PackedLoader(
        cache, config.model.block_size, training.batch_size, eot_id=tokenizer.eot_id,
        accumulation=training.gradient_accumulation_steps, seed=config.system.seed,
        rank=rank, world_size=world_size, max_batches=training.train_batches,
    )  # fmt: skip


def prepare_run(request: Request) -> Run:
    """Decide everything. Raises UserError for what cannot be."""
    config, sources, files, checkpoint, continues = resolve_request(request)
    derived: dict[str, str] = {}
    tokenizer = checkpoint_tokenizer(checkpoint) if checkpoint else get_tokenizer(config.data.tokenizer)
    derive_vocabulary(config, tokenizer, derived)
    derive_system(config, sources, derived)

    temporary, cache_dir = None, user_path(config.data.cache_dir)
    if not config.data.cache_tokenized:
        temporary = tempfile.TemporaryDirectory(prefix="jojo-cache-", ignore_cleanup_errors=True)
        cache_dir = Path(temporary.name)
    train, val = open_dataset(config, tokenizer, cache_dir, config.system.num_workers or 0)
    if train.n_tokens < config.model.block_size:
        raise UserError(
            f"The data set '{config.data.dataset_name}' has {train.n_tokens:,} tokens, fewer than one block of "
            f"{config.model.block_size:,}; add text, or set --model.block_size to {max(2, train.n_tokens // 2)} or less."
        )
    batches_per_epoch = training_loader(config, train, tokenizer).batches_per_epoch
    total_batches = config.training.max_iters or config.training.max_epochs * batches_per_epoch
    schedule = decide_schedule(config, total_batches, checkpoint if continues else None, derived)
    run = Run(
        config, sources, derived, tokenizer, train, val, schedule, batches_per_epoch, total_batches,
        files, checkpoint, continues, (checkpoint and continues and checkpoint.run_id) or secrets.token_hex(8),
        temporary_cache=temporary,
    )  # fmt: skip
    if continues and checkpoint and checkpoint.version == "3" and not request.allow_changes:
        refuse_changes(run)
    return run


def resolve_request(
    request: Request,
) -> tuple[Config, dict[str, str], CheckpointManager, Checkpoint | None, bool]:
    """The config and where its values come from, the run's files, the checkpoint, and whether training continues."""
    layers = request_layers(request)
    loads = request.weights_from or request.continue_from or request.resume
    config, sources = resolve(layers, partial=bool(loads))
    files = CheckpointManager(run_path(request.output, config.data.dataset_name, config.training.max_epochs))
    checkpoint, continues = open_checkpoint(request, files)
    if checkpoint:
        given = {f"{section}.{key}" for _, values in layers for section, entries in values.items() for key in entries}
        config, sources = resolve([checkpoint_layer(checkpoint, continues, given), *layers])
        refuse_other_shape(config, sources, checkpoint)
        if continues and request.output is None and checkpoint.version == "3":
            files = CheckpointManager(checkpoint.path.parent / f"{checkpoint.state['metadata']['run']}.pt")
    return config, sources, files, checkpoint, continues


# --- layers ---------------------------------------------------------------------------------------------------------


def request_layers(request: Request) -> list[tuple[str, Values]]:
    """The config file and what it extends, then one layer per flag (so that messages can name the flag)."""
    layers = file_layers(user_path(request.config_file)) if request.config_file is not None else []
    for flag, name, value in request.overrides:
        section, key = name.split(".")
        layers.append((flag, {section: {key: value}}))
    return layers


def open_checkpoint(request: Request, files: CheckpointManager) -> tuple[Checkpoint | None, bool]:
    """The checkpoint the request names, and whether training continues from it (else only its weights count)."""
    if request.weights_from:
        return load_checkpoint(user_path(request.weights_from)), False
    if request.continue_from:
        checkpoint = load_checkpoint(user_path(request.continue_from))
    elif request.resume:
        checkpoint = files.newest_valid()
    else:
        return None, False
    if not checkpoint.has_training_state:
        raise UserError(
            f"'{checkpoint.path}' holds no optimizer state to go on with; start a new run from its weights: "
            f"--load_model_only {checkpoint.path}."
        )
    if checkpoint.version != "3":
        log.info(
            "'%s' is of format %s: weights and optimizer are taken over, batches done: %s. Its place in the data is not "
            "known, so training goes on at the beginning of an epoch.",
            checkpoint.path, checkpoint.version, f"{checkpoint.state['batch_counter']:,}",
        )  # fmt: skip
    return checkpoint, True


def checkpoint_layer(checkpoint: Checkpoint, continues: bool, given: set[str]) -> tuple[str, Values]:
    """The checkpoint's config as a layer; only the model's part where only weights are taken.

    Values of the schedule that were derived from the run's length stay underived, so that a longer run derives anew;
    and epochs that are `given` now count, although the run was measured in batches.
    """
    values = checkpoint.config if continues else {"model": checkpoint.config.get("model", {})}
    derived = checkpoint.state.get("derived", [])
    again = {name for name in derived if name.startswith("scheduler.")}
    if "training.max_epochs" in given and "training.max_iters" not in given:
        again.add("training.max_iters")
    kept = {
        section: {k: v for k, v in entries.items() if f"{section}.{k}" not in again}
        for section, entries in values.items()
    }
    return f"checkpoint {checkpoint.path}", kept


def refuse_other_shape(config: Config, sources: dict[str, str], checkpoint: Checkpoint) -> None:
    """Raises UserError when a file or flag contradicts the shape of the model that was loaded."""
    stored = checkpoint.config.get("model", {})
    problems = [
        f"{name} {config.get(name)} ({sources[name]}) against {stored[name.split('.')[1]]}"
        for name in SHAPE
        if config.get(name) is not None and stored.get(name.split(".")[1], config.get(name)) != config.get(name)
    ]
    if problems:
        raise UserError(
            f"The model in '{checkpoint.path}' has another shape: {'; '.join(problems)}. Leave these options out."
        )
    config.model.vocab_size = stored.get("vocab_size", config.model.vocab_size)


# --- decisions ------------------------------------------------------------------------------------------------------


def derive_vocabulary(config: Config, tokenizer: Tokenizer, derived: dict[str, str]) -> None:
    """Fill in model.vocab_size. Raises UserError when it is smaller than the tokenizer."""
    if config.model.vocab_size is None:
        config.model.vocab_size = tokenizer.padded_vocab_size
        derived["model.vocab_size"] = f"{tokenizer.name} has {tokenizer.n_vocab:,} tokens, rounded up to 64"
    if config.model.vocab_size < tokenizer.n_vocab:
        raise UserError(
            f"model.vocab_size {config.model.vocab_size:,} is smaller than the tokenizer's {tokenizer.n_vocab:,} tokens; "
            f"set it to null or to {tokenizer.padded_vocab_size:,}."
        )


def derive_system(config: Config, sources: dict[str, str], derived: dict[str, str]) -> None:
    """Fill in device, dtype, compile and workers."""
    system, training = config.system, config.training
    wanted_device, asked_by_flag = system.device, {n for n, source in sources.items() if source.startswith("--")}
    choice = devices.choose_device(wanted_device, "system.device" in asked_by_flag)
    if choice.value != wanted_device:
        system.device, derived["system.device"] = choice.value, choice.reason
    fell_back = wanted_device.startswith(("cuda", "mps")) and system.device == "cpu"
    choice = devices.choose_dtype(system.dtype, system.device, "system.dtype" in asked_by_flag or not fell_back)
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


def decide_schedule(
    config: Config, total_batches: int, continued: Checkpoint | None, derived: dict[str, str]
) -> Schedule:
    """The schedule of a run of this length; fills in what the config left open, and says when a run's length changed."""
    scheduler = config.scheduler
    schedule = derive_schedule(config, total_batches)
    stored = continued.state.get("lr_scheduler") if continued else None
    if stored and stored["total_batches"] != total_batches and stored["schedule"] != schedule.to_dict():
        log.info(
            "The run is now %s batches long instead of %s; from here on: %s.",
            f"{total_batches:,}", f"{stored['total_batches']:,}", schedule.describe(total_batches),
        )  # fmt: skip
    for name, value, reason in (
        ("warmup_iters", schedule.warmup, "warmup_fraction of the run"),
        ("lr_decay_iters", schedule.decay_end, "the run's end"),
        ("min_lr", schedule.floor, "a tenth of learning_rate"),
    ):
        if getattr(scheduler, name) != value:
            setattr(scheduler, name, value)
            derived[f"scheduler.{name}"] = reason
    return schedule


def refuse_changes(run: Run) -> None:
    """Raises UserError when something that decides what is learned differs from the checkpoint's run."""
    assert run.checkpoint
    stored, state = run.checkpoint.config, run.checkpoint.state
    rederived = set(run.derived) & {n for n in DECISIVE if n.startswith("scheduler.")}
    changes = []
    for name in DECISIVE:
        section, key = name.split(".")
        before, now = stored.get(section, {}).get(key), run.config.get(name)
        if key in stored.get(section, {}) and before != now and name not in rederived:
            changes.append(f"{name} {before} -> {now}")
    before = state["metadata"]["dataset"]
    for split, now in (("train", run.train.facts), ("val", run.val.facts)):
        if before[split] != now.fingerprint:
            what = "training" if split == "train" else "validation"
            changes.append(f"the {what} data ({before['name']} {before[split]} -> {now.fingerprint})")
    if changes:
        raise UserError(
            f"This would not continue the same run: {'; '.join(changes)}. "
            "Leave the change out, or add --allow_changes to go on with it (the result will differ)."
        )


# --- what is shown --------------------------------------------------------------------------------------------------


def show_config(run: Run) -> str:
    """Every section with its values and where each came from, then what follows from them."""
    width = max(len(name.split(".")[1]) for name in OPTIONS)
    lines: list[str] = []
    for section in SECTIONS:
        lines += [f"[{section}]", *(f"  {line}" for line in _section_lines(run, section, width)), ""]
    lines += ["[what follows]", *(f"  {name:<{width}}  {value}" for name, value in consequences(run))]
    return "\n".join(lines)


def _section_lines(run: Run, section: str, width: int) -> list[str]:
    lines = []
    for name, opt in OPTIONS.items():
        if name.split(".")[0] == section:
            value = run.config.get(name)
            shown = json.dumps(value) if not isinstance(value, str) else value
            unit = f" {opt.unit}" if opt.unit and value is not None else ""
            source = f"derived: {run.derived[name]}" if name in run.derived else run.sources[name]
            lines.append(f"{name.split('.')[1]:<{width}}  {shown + unit:<22} {source}")
    return lines


def consequences(run: Run) -> list[tuple[str, str]]:
    """Figures derived from the config: parameters, batches, tokens, schedule."""
    config = run.config
    return [
        ("parameters", f"{estimate.n_parameters(config.model):,}"),
        ("tokens per batch", f"{config.tokens_per_batch:,}"),
        ("batches per epoch", f"{run.batches_per_epoch:,}"),
        ("batches in all", f"{run.total_batches:,}"),
        ("learning rate", run.schedule.describe(run.total_batches)),
        ("device", run.device),
        ("dtype", run.dtype),
        ("checkpoint", str(run.files.last)),
    ]
