"""From flags and files to a run: everything that is decided before the first batch, decided once, with its reason."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import torch

from config import OPTIONS, SECTIONS, Config
from data_loader import PackedLoader, evaluation_loader, training_loader
from jojo.checkpoints.checkpoint import Checkpoint, checkpoint_tokenizer, machine
from jojo.checkpoints.run_files import RunFiles
from jojo.machine import device as devices
from jojo.machine import estimate
from jojo.machine.ranks import SINGLE, Ranks
from jojo.schedule import Schedule, derive_schedule
from jojo.text.token_cache import TokenCache
from jojo.text.tokenizer import Tokenizer, get_tokenizer
from training.dataset import open_dataset
from training.micro_batch import choose_batch_size
from training.resume import Mode, Request, after_restart, is_restart, resolve_request, start_mode
from utils import UserError, divisors, log, user_path

# Fields that decide what is learned: changing one of them on resume makes it another run.
DECISIVE = [
    *(name for name in OPTIONS if name.split(".")[0] in ("model", "optimizer", "scheduler")),
    "training.batch_size", "training.gradient_accumulation_steps", "training.train_batches", "training.compile_model",
    "system.seed", "system.dtype", "data.tokenizer", "data.parse_special", "data.predict", "data.pack",
]  # fmt: skip
# What a change of them means for the rest of the run; the first entry that fits a name counts.
CONSEQUENCES = {
    "model.dropout": "other activations are dropped",
    "optimizer": "the updates are others",
    "scheduler": "the learning rates are others",
    "training.train_batches": "an epoch ends elsewhere",
    "training.compile_model": "sums are rounded differently",
    "training": "other sequences share a batch, from the same place in the epoch, to within one batch",
    "system.seed": "the data come in another order, and dropout draws anew",
    "system.dtype": "sums are rounded differently",
    "data": "the text becomes other tokens",
}


@dataclass
class Reasons:
    """Why the config is as it is."""

    sources: dict[str, str]  # dotted name → where its value came from
    derived: dict[str, str] = field(default_factory=dict)  # dotted name → why it got the value it has


@dataclass
class Data:
    """The text, as token ids."""

    tokenizer: Tokenizer
    train: TokenCache
    val: TokenCache
    temporary: tempfile.TemporaryDirectory[str] | None = None  # holds the caches of a run with --no_cache

    @property
    def fingerprints(self) -> dict[str, str]:
        train, val = self.train.manifest, self.val.manifest
        return {"name": train.name, "train": train.fingerprint, "val": val.fingerprint}

    def close(self) -> None:
        """Close the files and remove the temporary folder."""
        self.train.close()
        self.val.close()
        if self.temporary:
            self.temporary.cleanup()


@dataclass
class Plan:
    """How long the run is, and its learning rates."""

    schedule: Schedule
    batches_per_epoch: int
    total_batches: int


@dataclass
class Start:
    """Where training begins."""

    mode: Mode
    checkpoint: Checkpoint | None
    epoch: int
    position: int  # batches of that epoch that are done
    batches_done: int
    run_id: str  # 16 hex digits, the same through all resumes
    init_from: str | None  # the Hugging Face model that the weights go back to


@dataclass
class Run:
    """Everything a Trainer needs."""

    config: Config  # resolved: what was null or auto has its value
    reasons: Reasons
    data: Data
    files: RunFiles
    plan: Plan
    start: Start
    ranks: Ranks = SINGLE
    tensorboard: bool = False  # write its events too

    def close(self) -> None:
        self.data.close()

    @property
    def sharded(self) -> bool:
        """Whether each rank holds a shard of the model only (fsdp)."""
        return self.config.system.parallel == "fsdp" and not self.ranks.is_single

    @property
    def device(self) -> str:
        return self.config.system.device

    @property
    def dtype(self) -> str:
        return self.config.system.dtype

    def loader(self) -> PackedLoader:
        """The training batches of this rank."""
        return training_loader(self.config, self.data.train, self.data.tokenizer, self.ranks)

    def evaluation_loader(self, split: str) -> PackedLoader:
        """Fixed micro-batches for evaluation: the same for every run over the same data and shape."""
        cache = self.data.train if split == "train" else self.data.val
        return evaluation_loader(self.config, split, cache, self.data.tokenizer)


def prepare_run(request: Request) -> Run:
    """Decide everything. Raises UserError for what cannot be."""
    ranks = request.ranks
    config, sources, files, checkpoint, continues, auto_batch_size = resolve_request(request)
    if is_restart(request, files):
        log.info("Torchrun started this job anew; it goes on from the last checkpoint of '%s'.", files.run)
        request = after_restart(request, files)
        config, sources, files, checkpoint, continues, auto_batch_size = resolve_request(request)
    elif ranks.restarts:
        log.info("Torchrun started this job anew; it had saved nothing yet, and begins again.")
    derived: dict[str, str] = {}
    tokenizer = decide_tokenizer(config, sources, checkpoint)
    derive_vocabulary(config, tokenizer, derived, checkpoint is not None)
    derive_system(config, sources, derived, ranks)
    if ranks.is_single and config.system.parallel == "fsdp" and sources["system.parallel"].startswith("--"):
        log.warning("One process has nobody to share a model with (fsdp); start several with torchrun.")
    refuse_uneven_shares(config, ranks, auto_batch_size)

    temporary, cache_dir = None, user_path(config.data.cache_dir)
    if not config.data.cache_tokenized:
        temporary = tempfile.TemporaryDirectory(prefix="jojo-cache-", ignore_cleanup_errors=True)
        cache_dir = Path(temporary.name)
    with ranks.main_first("data"):  # rank 0 prepares the data, and says what there is to say of it
        train, val = open_dataset(config, tokenizer, cache_dir, config.system.num_workers or 0)
    ranks.connect(config.system.device, 60 * config.system.timeout_minutes)
    if train.n_tokens < config.model.block_size:
        raise UserError(
            f"The data set '{config.data.dataset_name}' has {train.n_tokens:,} tokens, fewer than one block of "
            f"{config.model.block_size:,}; add text, or set --model.block_size to {max(2, train.n_tokens // 2)} or less."
        )
    if auto_batch_size:
        derive_batch_size(config, tokenizer, derived, ranks)
    loader = training_loader(config, train, tokenizer, ranks)
    if loader.whole and loader.whole.n_cut:
        log.info(
            "%s of %s documents are longer than %s tokens, and were cut: conversations where a turn begins, or inside of a "
            "turn that is longer itself (data.pack).",
            f"{loader.whole.n_cut:,}", f"{train.n_documents:,}", f"{config.model.block_size:,}",
        )  # fmt: skip
    batches_per_epoch = loader.batches_per_epoch
    same_run = checkpoint if continues and not request.reset_epoch else None
    start = starting_point(same_run, config, batches_per_epoch)
    total_batches = config.training.max_iters or length_in_epochs(same_run, config, batches_per_epoch, start)
    schedule = decide_schedule(config, total_batches, same_run, derived)
    mode = start_mode(checkpoint, continues, request.reset_epoch, files)
    own = checkpoint.run_id if checkpoint and mode is Mode.RESUME else None
    run = Run(
        config, Reasons(sources, derived), Data(tokenizer, train, val, temporary), files,
        Plan(schedule, batches_per_epoch, total_batches),
        Start(mode, checkpoint, *start, ranks.broadcast_text("run_id", own or secrets.token_hex(8)), origin(request, checkpoint)),
        ranks, request.tensorboard,
    )  # fmt: skip
    refuse_no_targets(run)
    if same_run and same_run.version == "3":
        if not request.allow_changes:
            refuse_changes(run)
        note_other_machine(run)
    if not ranks.is_single:
        ranks.check_same(facts_of(run))
    return run


def facts_of(run: Run) -> dict[str, str]:
    """What must be the same on all ranks, in few words each."""
    own = ("system.device", "system.num_workers", "data.data_dir", "data.cache_dir")
    code = hashlib.sha256(
        b"".join(
            path.read_bytes()
            for path in [
                p
                for folder in (".", "jojo", "hf", "training")
                for p in sorted(
                    (Path(__file__).parents[1] / folder).rglob("*.py")
                    if folder != "."
                    else (Path(__file__).parents[1]).glob("*.py")
                )
            ]
        )
    )
    data = run.data.fingerprints
    return {
        "the code": code.hexdigest(),
        "the version of PyTorch": torch.__version__,
        "the training data": data["train"],
        "the validation data": data["val"],
        "the checkpoint": f"{run.start.checkpoint.run_id} {run.start.batches_done}" if run.start.checkpoint else "",
    } | {name: json.dumps(run.config.get(name)) for name in OPTIONS if name not in own}


def refuse_uneven_shares(config: Config, ranks: Ranks, auto_batch_size: bool = False) -> None:
    """Raises UserError where a batch's micro-batches, or the model, cannot be shared by the ranks."""
    steps, n, together = config.training.gradient_accumulation_steps, ranks.world_size, config.system.shard_ranks
    rows = config.rows_per_batch
    if together and config.system.parallel != "fsdp":
        raise UserError("system.shard_ranks is for fsdp; add --system.parallel fsdp, or leave it out.")
    if config.system.parallel == "fsdp" and n > 1:
        if config.optimizer.kind == "muon":
            raise UserError("Muon needs whole matrices, of which fsdp has parts; use --system.parallel ddp or AdamW.")
        if config.system.dtype == "float16":
            raise UserError("float16 is not there with fsdp; use --dtype bfloat16 or float32.")
        if together and n % together:
            raise UserError(f"--system.shard_ranks {together}: it must divide the number of ranks, {n}.")
        if auto_batch_size:
            raise UserError("--batch_size auto tries out the whole model on one device; with fsdp, give a number.")
    if auto_batch_size and rows % n:
        raise UserError(
            f"A batch of {rows:,} sequences cannot be shared by {n} ranks; set --training.gradient_accumulation_steps to a "
            "multiple of their number."
        )
    if steps % n and not auto_batch_size:
        same = [d for d in divisors(rows) if d % n == 0]
        below, above = ([d for d in same if d < steps][-1:], [d for d in same if d > steps][:1])
        ways = [f"{d} with --batch_size {rows // d}" for d in (*below, *above)]
        near = [str(d) for d in (steps // n * n, steps // n * n + n) if d]
        raise UserError(
            f"training.gradient_accumulation_steps is {steps}, micro-batches of all {n} ranks together, and not a multiple of "
            f"{n}; the nearest {'are' if len(near) > 1 else 'is'} {' and '.join(near)}"
            + (f"; a batch stays at {rows:,} sequences with {' or '.join(ways)}." if ways else ".")
        )


def refuse_no_targets(run: Run) -> None:
    """Raises UserError where data.predict leaves nothing to evaluate, of which no loss could be told."""
    for split in ("train", "val") if run.config.data.predict != "all" else ():
        loader = run.evaluation_loader(split)
        if not any(loader.batch(0, index).n_targets for index in range(loader.batches_per_epoch)):
            raise UserError(
                f"In the {split} split, nothing of what is evaluated is said by an assistant (data.predict): use data with "
                "conversations, --data.predict all, or more --training.eval_iters."
            )


def origin(request: Request, checkpoint: Checkpoint | None) -> str | None:
    """The Hugging Face model that the weights go back to, through any number of checkpoints."""
    known = checkpoint.state.get("metadata", {}).get("init_from") if checkpoint else None
    return request.init_from or (known if isinstance(known, str) else None)


def starting_point(same_run: Checkpoint | None, config: Config, batches_per_epoch: int) -> tuple[int, int, int]:
    """Epoch, batches of it that are done, and batches done in all. With another batch size (--allow_changes) the place
    in the data is kept, rounded down to a whole batch."""
    if same_run is None:
        return 0, 0, 0
    epoch, position = same_run.state["loader"]["epoch"], same_run.state["loader"]["position"]
    if same_run.version == "3":
        before = Config.from_dict(same_run.config, str(same_run.path))
        position = position * before.rows_per_batch // config.rows_per_batch
    if position >= batches_per_epoch:
        epoch, position = epoch + 1, 0
    return epoch, position, same_run.state["batch_counter"]


def length_in_epochs(
    same_run: Checkpoint | None, config: Config, batches_per_epoch: int, start: tuple[int, int, int]
) -> int:
    """Batches of the whole run: those that are done, and what is left of `max_epochs`."""
    if same_run is None or same_run.version != "3":  # older formats counted batches in ways of their own
        return config.training.max_epochs * batches_per_epoch
    epoch, position, done = start
    return done + max(0, (config.training.max_epochs - epoch) * batches_per_epoch - position)


# --- decisions ------------------------------------------------------------------------------------------------------


def decide_tokenizer(config: Config, sources: dict[str, str], checkpoint: Checkpoint | None) -> Tokenizer:
    """The loaded model's tokenizer, or the one that data.tokenizer names.

    Raises:
        UserError: both are there, and differ.
    """
    named = config.data.tokenizer
    if checkpoint is None:
        return get_tokenizer(named)
    own = checkpoint_tokenizer(checkpoint)
    recorded = checkpoint.config.get("data", {}).get("tokenizer", "gpt2" if own.is_gpt2 else own.name)
    if sources["data.tokenizer"].startswith("--") or (named not in ("gpt2", recorded)):  # files say gpt2 by habit
        if get_tokenizer(named).with_chatml(own.has_chatml).identity() != own.identity():
            raise UserError(
                f"The model in '{checkpoint.path}' was trained with the tokenizer {own.name}, and "
                f"{sources['data.tokenizer']} names '{named}' (data.tokenizer); leave that out."
            )
    else:
        config.data.tokenizer = recorded
    return own


def derive_vocabulary(config: Config, tokenizer: Tokenizer, derived: dict[str, str], loaded: bool) -> None:
    """Fill in model.vocab_size. Raises UserError when it is smaller than the tokenizer; `loaded`: of a checkpoint."""
    if config.model.vocab_size is None:
        config.model.vocab_size = tokenizer.padded_vocab_size
        derived["model.vocab_size"] = f"{tokenizer.name} has {tokenizer.n_vocab:,} tokens, rounded up to 64"
    if config.model.vocab_size < tokenizer.n_vocab and loaded:
        raise UserError(
            f"The loaded model knows {config.model.vocab_size:,} tokens, its tokenizer {tokenizer.n_vocab:,}; "
            "it was trained with a tokenizer that this version does not have, and cannot be gone on with here."
        )
    if config.model.vocab_size < tokenizer.n_vocab:
        raise UserError(
            f"model.vocab_size {config.model.vocab_size:,} is smaller than the tokenizer's {tokenizer.n_vocab:,} tokens; "
            f"set it to null or to {tokenizer.padded_vocab_size:,}."
        )


def derive_system(config: Config, sources: dict[str, str], derived: dict[str, str], ranks: Ranks = SINGLE) -> None:
    """Fill in device, dtype, compile and workers."""
    system, training = config.system, config.training
    wanted_device, asked_by_flag = system.device, {n for n, source in sources.items() if source.startswith("--")}
    by_flag = "system.device" in asked_by_flag
    if ranks.is_single:
        choice = devices.choose_device(wanted_device, by_flag)
    else:
        choice = devices.choose_rank_device(
            wanted_device, by_flag, ranks.local_rank, ranks.local_world_size, ranks.by_torchrun
        )
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


def derive_batch_size(config: Config, tokenizer: Tokenizer, derived: dict[str, str], ranks: Ranks) -> None:
    """Fill in the micro-batch's size, and how many make up the batch that the config describes."""
    rows, training = config.rows_per_batch, config.training
    training.batch_size, derived["training.batch_size"] = choose_batch_size(config, tokenizer.n_vocab, ranks)
    training.gradient_accumulation_steps = rows // training.batch_size
    derived["training.gradient_accumulation_steps"] = f"{rows:,} sequences a batch"


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
    assert run.start.checkpoint
    stored, state = run.start.checkpoint.config, run.start.checkpoint.state
    rederived = set(run.reasons.derived) & {n for n in DECISIVE if n.startswith("scheduler.")}
    changes = []
    for name in DECISIVE:
        section, key = name.split(".")
        before, now = stored.get(section, {}).get(key), run.config.get(name)
        if key in stored.get(section, {}) and before != now and name not in rederived:
            changes.append(f"{name} {before} -> {now} ({consequence(name)})")
    before = state["metadata"]["dataset"]
    for split, now in (("train", run.data.train.manifest), ("val", run.data.val.manifest)):
        if before[split] != now.fingerprint:
            what = "training" if split == "train" else "validation"
            means = "the rest of the epoch is other text" if split == "train" else "validation losses do not compare"
            changes.append(
                f"the {what} data {before['name']} {before[split]} -> {now.name} {now.fingerprint} ({means})"
            )
    if changes:
        raise UserError(
            f"This would not continue the same run: {'; '.join(changes)}. "
            "Leave the change out, or add --allow_changes to go on with it."
        )


def consequence(name: str) -> str:
    """What a change of this option means for the rest of a run."""
    return next(words for part, words in CONSEQUENCES.items() if name.startswith(part))


def note_other_machine(run: Run) -> None:
    """Say so when the machine differs in what decides rounding: then a resumed run is not exact to the last bit."""
    assert run.start.checkpoint
    before = run.start.checkpoint.state["metadata"].get("machine", {})
    now = machine(run.device)
    changes = [f"{name} {before[name]} -> {value}" for name, value in now.items() if before.get(name, value) != value]
    if changes:
        log.info("Sums may be rounded differently from here on, in their last bits: %s.", "; ".join(changes))


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
            source = (
                f"derived: {run.reasons.derived[name]}" if name in run.reasons.derived else run.reasons.sources[name]
            )
            lines.append(f"{name.split('.')[1]:<{width}}  {shown + unit:<22} {source}")
    return lines


def consequences(run: Run) -> list[tuple[str, str]]:
    """Figures derived from the config: parameters, batches, tokens, schedule."""
    config = run.config
    return [
        ("parameters", f"{estimate.n_parameters(config.model):,}"),
        ("tokens per batch", f"{config.tokens_per_batch:,}"),
        ("batches per epoch", f"{run.plan.batches_per_epoch:,}"),
        ("batches in all", f"{run.plan.total_batches:,}"),
        ("learning rate", run.plan.schedule.describe(run.plan.total_batches)),
        ("device", run.device),
        ("dtype", run.dtype),
        ("checkpoint", str(run.files.last)),
    ]
