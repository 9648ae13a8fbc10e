"""From a request to a run: everything that is decided before the first batch."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass

import torch

from config import OPTIONS, Config
from data_loader import PackedLoader, evaluation_loader, training_loader
from jojo.checkpoints.checkpoint import git_commit
from jojo.checkpoints.run_files import RunFiles
from jojo.machine.ranks import SINGLE, Ranks
from jojo.schedule import Schedule
from training.dataset import Data, open_data
from training.decisions import (
    Reasons,
    decide,
    decide_schedule,
    decide_tokenizer,
    derive_batch_size,
    refuse_no_targets,
    refuse_too_little_text,
)
from training.flags import Request
from training.resume import Start, ask, note_other_machine, refuse_changes, run_length, starting_point
from utils import __version__, log


@dataclass
class Plan:
    """How long the run is, and its learning rates."""

    schedule: Schedule
    batches_per_epoch: int
    total_batches: int


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
    tensorboard: bool = False  # also write TensorBoard events

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


def prepare_run(request: Request, ranks: Ranks = SINGLE) -> Run:
    """Put together what was asked for, decide what it leaves open, and open the data. Raises UserError for what cannot be."""
    asked = ask(request, ranks)
    tokenizer = decide_tokenizer(asked)
    reasons = decide(asked, tokenizer, ranks)
    config, system = asked.config, asked.config.system
    data = open_data(config, tokenizer, ranks)
    ranks.connect(system.device, 60 * system.timeout_minutes)
    refuse_too_little_text(config, data)
    if asked.auto_batch_size:
        derive_batch_size(config, tokenizer, reasons, ranks)

    loader = training_loader(config, data.train, tokenizer, ranks)
    log_cut_documents(loader, data, config.model.block_size)
    batches_per_epoch = loader.batches_per_epoch
    start = starting_point(asked, batches_per_epoch, secrets.token_hex(8))
    start.run_id = ranks.broadcast_text("run_id", start.run_id)
    total_batches = run_length(start, config, batches_per_epoch)
    plan = Plan(decide_schedule(asked, total_batches, reasons), batches_per_epoch, total_batches)
    run = Run(config, reasons, data, asked.files, plan, start, ranks, request.tensorboard)

    if config.data.predict != "all":
        for split in ("train", "val"):
            refuse_no_targets(split, run.evaluation_loader(split))
    if start.checkpoint and start.mode.keeps_counters and start.checkpoint.version == "3":
        if not request.allow_changes:
            refuse_changes(start.checkpoint, config, reasons.derived, data.fingerprints)
        note_other_machine(start.checkpoint, system.device)
    if not ranks.is_single:
        ranks.check_same(facts_of(run))
    return run


def log_cut_documents(loader: PackedLoader, data: Data, block_size: int) -> None:
    """Say how many documents are too long to stay whole (data.pack)."""
    if loader.whole and loader.whole.n_cut:
        log.info(
            "%s of %s documents are longer than %s tokens and are cut: conversations before a turn, or inside a turn that is "
            "longer itself (data.pack).",
            f"{loader.whole.n_cut:,}", f"{data.train.n_documents:,}", f"{block_size:,}",
        )  # fmt: skip


def facts_of(run: Run) -> dict[str, str]:
    """What must be the same on all ranks."""
    differing = ("system.device", "system.num_workers", "data.data_dir", "data.cache_dir")
    fingerprints, checkpoint = run.data.fingerprints, run.start.checkpoint
    return {
        "the code": f"{__version__} {git_commit()}",
        "the version of PyTorch": torch.__version__,
        "the training data": fingerprints["train"],
        "the validation data": fingerprints["val"],
        "the checkpoint": f"{checkpoint.run_id} {run.start.batches_done}" if checkpoint else "",
    } | {name: json.dumps(run.config.get(name)) for name in OPTIONS if name not in differing}
