"""Makes a Run from a Request: decides everything that must be known before the first batch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from config import OPTIONS, Config
from data_loader import PackedLoader, evaluation_loader, training_loader
from jojo.checkpoints.checkpoint import git_commit
from jojo.checkpoints.run_files import RunFiles
from jojo.machine.ranks import SINGLE, Ranks
from jojo.schedule import Schedule
from jojo.text.chat_targets import roles_in
from training.dataset import Data, open_data
from training.decisions import Reasons, decide, decide_schedule, decide_tokenizer, derive_batch_size
from training.flags import Request
from training.resume import (
    Mode,
    Start,
    before_cooldown,
    check_changes,
    note_other_machine,
    resolve_request,
    set_position,
)
from utils import UserError, __version__, log, one_line, plural

FEW_BATCHES = 10  # an epoch of fewer batches is worth a warning


@dataclass
class Plan:
    """How long the run is, and its learning rates."""

    schedule: Schedule
    batches_per_epoch: int
    total_batches: int


@dataclass
class Run:
    """Everything a Trainer needs."""

    config: Config  # resolved: options that were null or auto have values
    reasons: Reasons
    data: Data
    files: RunFiles
    plan: Plan
    start: Start
    ranks: Ranks = SINGLE
    tensorboard: bool = False  # also write TensorBoard events
    arguments: Sequence[str] = ()  # the flags of train.py as typed

    def close(self) -> None:
        self.data.close()

    @property
    def sharded(self) -> bool:
        """Whether each rank holds only a shard of the model (fsdp)."""
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
        """Fixed micro-batches for evaluation: the same in every run with the same data, batch_size and block_size."""
        return evaluation_loader(self.config, split, getattr(self.data, split), self.data.tokenizer)


def prepare_run(request: Request, ranks: Ranks = SINGLE) -> Run:
    """Resolve the request, decide what it leaves open, and open the data. Raises UserError if the run is impossible."""
    resolved = resolve_request(request, ranks)
    tokenizer = decide_tokenizer(resolved)
    reasons = decide(resolved, tokenizer, ranks)
    config, start, system = resolved.config, resolved.start, resolved.config.system
    data = open_data(config, tokenizer, ranks)
    ranks.connect(system.device, 60 * system.timeout_minutes)
    if config.training.sample_prompts is None:
        prompt, kind = ("Hello!", "conversations") if data.is_chat else ("Once upon a time", "text")
        reasons.derive(config, "training.sample_prompts", prompt, f"the data are {kind}")
    if resolved.auto_batch_size:
        derive_batch_size(config, tokenizer, reasons, ranks)

    loader = training_loader(config, data.train, tokenizer, ranks)
    if loader.whole and loader.whole.n_cut:
        numbers = (loader.whole.n_cut, data.train.n_documents, config.model.block_size)
        log.info("%s of %s documents are longer than %s tokens and are cut (data.pack).", *map("{:,}".format, numbers))
    total_batches = set_position(start, config, loader.batches_per_epoch)
    if earlier := before_cooldown(resolved, total_batches, ranks):
        start.checkpoint = earlier
        total_batches = set_position(start, config, loader.batches_per_epoch)
    start.run_id = ranks.broadcast_text("run_id", start.run_id)
    plan = Plan(decide_schedule(resolved, total_batches, reasons), loader.batches_per_epoch, total_batches)
    run = Run(config, reasons, data, resolved.files, plan, start, ranks, request.tensorboard, request.arguments)

    if plan.batches_per_epoch < FEW_BATCHES and start.mode is not Mode.RESUME:
        accumulates = config.training.gradient_accumulation_steps > ranks.world_size
        how = "--training.gradient_accumulation_steps 1" if accumulates else "a smaller --batch_size, or more --epochs"
        batches = plural(plan.batches_per_epoch, "batch")
        log.warning("An epoch has only %s; to learn more from it, use %s.", batches, how)

    for split in ("train", "val") if config.data.predict != "all" else ():
        evaluated = run.evaluation_loader(split)
        if not any(evaluated.batch(0, index).n_targets for index in range(evaluated.batches_per_epoch)):
            lack = f"In the {split} split, the evaluated batches have no words of an assistant to predict"
            roles = one_line(", ".join(roles_in(getattr(data, split), tokenizer)))
            raise UserError(f"{lack} (roles: {roles}); use conversations of user and assistant, or --data.predict all.")
    if start.checkpoint and start.mode.keeps_counters and start.checkpoint.version == "3":
        check_changes(start.checkpoint, config, reasons.derived, data.fingerprints, request.allow_changes)
        note_other_machine(start.checkpoint, system.device)
    if not ranks.is_single:
        ranks.check_same(facts_of(run))
    return run


def facts_of(run: Run) -> dict[str, str]:
    """What must be the same on all ranks."""
    may_differ = ("system.device", "system.num_workers", "data.data_dir", "data.cache_dir")
    fingerprints, checkpoint = run.data.fingerprints, run.start.checkpoint
    return {
        "the code": f"{__version__} {git_commit()}",
        "the version of PyTorch": torch.__version__,
        "the training data": fingerprints["train"],
        "the validation data": fingerprints["val"],
        "the checkpoint": f"{checkpoint.run_id} {run.start.batches_done}" if checkpoint else "",
    } | {name: json.dumps(run.config.get(name)) for name in OPTIONS if name not in may_differ}
