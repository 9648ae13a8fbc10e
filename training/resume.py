"""Ways to start and to continue a run: what is taken from a checkpoint, and which changes are refused."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from config import OPTIONS, Config, Values, asks_for_auto, resolve
from jojo.checkpoints.checkpoint import FITS, Checkpoint, load_checkpoint, machine
from jojo.checkpoints.run_files import RunFiles, run_of, run_path
from jojo.config_file import config_layers
from jojo.machine.ranks import SINGLE, Ranks
from training.flags import Request
from utils import UserError, log, one_line, plural, user_path

# Options that affect the result: beginning of the name -> what a change means for the rest of the run.
DECISIVE = {
    "model.dropout": "dropout leaves out other activations",
    "optimizer.": "the updates change",
    "scheduler.": "the learning rate changes",
    "training.batch_size": "batches have other sequences; the position in the epoch is kept",
    "training.gradient_accumulation_steps": "batches have other sequences; the position in the epoch is kept",
    "training.train_batches": "epochs get another length",
    "training.compile_model": "results may differ in the last bits",
    "training.ema": "another average of the weights is evaluated and saved",
    "system.seed": "data order and dropout change",
    "system.dtype": "rounding changes",
    **dict.fromkeys(("data.tokenizer", "data.parse_special", "data.predict", "data.pack"), "tokens or targets change"),
}


class Mode(Enum):
    """How a run starts, and in words where from. docs/checkpoints.md has the same table and explains its columns.

    flags                                    mode      weights  optimizer  position  metrics  options  changes   run id  files
    (none)                                   FRESH     -        -          -         -        -        allowed   new     by options
    --init_from PATH_OR_ID                   WEIGHTS   yes      -          -         -        model    allowed   new     by options
    --load_model_only PATH                   WEIGHTS   yes      -          -         -        model    allowed   new     by options
    --checkpoint PATH --load_model_only      WEIGHTS   yes      -          -         -        model    allowed   new     by options
    --checkpoint PATH --reset_epoch          RESET     yes      yes        -         -        all      allowed   new     by options
    --resume --reset_epoch                   RESET     yes      yes        -         -        all      allowed   new     by options
    --checkpoint PATH                        RESUME    yes      yes        yes       yes      all      refused   same    same
    --checkpoint PATH --resume               RESUME    yes      yes        yes       yes      all      refused   same    same
    --resume PATH                            RESUME    yes      yes        yes       yes      all      refused   same    same
    --resume                                 RESUME    yes      yes        yes       yes      all      refused   same    same
    --resume --allow_changes                 RESUME    yes      yes        yes       yes      all      allowed   same    same
    --resume PATH --output_checkpoint OTHER  CONTINUE  yes      yes        yes       yes      all      refused   new     OTHER
    --checkpoint OLDER_FORMAT                CONTINUE  yes      yes        batches   losses   all      allowed   new     by options
    (torchrun restarts the job)              RESUME    yes      yes        yes       yes      all      refused   same    same
    """

    FRESH = "random weights"
    WEIGHTS = "the weights of {path}"
    RESET = "the weights and optimizer state of {path}, counting from zero"
    CONTINUE = "batch {batch:,} of {path}, as a new run"
    RESUME = "batch {batch:,} of {path}"

    @property
    def loads_optimizer(self) -> bool:
        """Whether optimizer state and options come from the checkpoint."""
        return self in (Mode.RESET, Mode.CONTINUE, Mode.RESUME)

    @property
    def keeps_counters(self) -> bool:
        """Whether batches, epochs and metrics count from the checkpoint."""
        return self in (Mode.CONTINUE, Mode.RESUME)


@dataclass
class Start:
    """How and where training begins."""

    mode: Mode
    checkpoint: Checkpoint | None
    base_model: str | None  # the name on the Hub of the model that training began with, in this run or an earlier one
    run_id: str  # 16 hex digits; a resumed run keeps it
    epoch: int = 0
    position: int = 0  # batches of that epoch that are done
    batches_done: int = 0


@dataclass
class ResolvedRequest:
    """The request, combined with config files and the checkpoint."""

    config: Config
    sources: dict[str, str]  # dotted name → where its value comes from
    files: RunFiles
    start: Start  # without the position, which depends on the data
    auto_batch_size: bool  # training.batch_size must still be found


def resolve_request(request: Request, ranks: Ranks = SINGLE) -> ResolvedRequest:
    """Resolve what the user asked for. A job that torchrun restarted continues from its last checkpoint."""
    resolved = read_layers(request, ranks)
    if is_restart(request, resolved.files, ranks):
        log.info("Torchrun restarted this job; it continues from the last checkpoint of '%s'.", resolved.files.run)
        last, changes = str(resolved.files.last), request.allow_changes
        request = Request(request.config_file, request.overrides, resume=True, output=last, allow_changes=changes)
        return read_layers(request, ranks)
    return resolved


def read_layers(request: Request, ranks: Ranks) -> ResolvedRequest:
    """Build the config from defaults, checkpoint, config files and flags (later ones win), and find checkpoint and run."""
    mode, layers = mode_of(request), config_layers(request.config_file, request.overrides)
    auto = asks_for_auto(layers, "training.batch_size")
    config, sources = resolve(layers, partial=mode is not Mode.FRESH)
    files = RunFiles(run_path(request.output, config.data.dataset_name, config.training.max_epochs))
    base_model = request.init_from if request.init_from and not user_path(request.init_from).is_dir() else None
    start = Start(mode, open_checkpoint(request, mode, files, ranks), base_model, secrets.token_hex(8))
    if (checkpoint := start.checkpoint) is None:
        return ResolvedRequest(config, sources, files, start, auto)
    rows_without_checkpoint = config.rows_per_batch
    config, sources = resolve([checkpoint_layer(checkpoint, mode, sources), *layers])
    if auto and mode.loads_optimizer and keep_split(config, rows_without_checkpoint, sources, checkpoint):
        auto = mode is Mode.RESET or request.allow_changes  # search again: this may be another machine
    refuse_other_shape(config, sources, checkpoint)
    recorded = checkpoint.state.get("metadata", {})
    path = run_path(request.output, config.data.dataset_name, config.training.max_epochs)
    if request.output is None and mode is Mode.RESUME and checkpoint.version == "3":
        path = checkpoint.path.parent / f"{recorded['run']}.pt"
    files = RunFiles(path)
    if mode is Mode.RESUME and checkpoint.run_id and files.owns(checkpoint.path):
        start.run_id = checkpoint.run_id
    elif mode is Mode.RESUME:
        start.mode = Mode.CONTINUE
    if request.init_from is None and isinstance(recorded.get("base_model"), str):
        start.base_model = recorded["base_model"]
    return ResolvedRequest(config, sources, files, start, auto)


def mode_of(request: Request) -> Mode:
    """How a request starts. `read_layers` may turn RESUME into CONTINUE, depending on the files."""
    if request.weights_from or request.init_from is not None:
        return Mode.WEIGHTS
    if request.continue_from or request.resume:
        return Mode.RESET if request.reset_epoch else Mode.RESUME
    return Mode.FRESH


def is_restart(request: Request, files: RunFiles, ranks: Ranks) -> bool:
    """Whether this torchrun job has already saved the run, and so continues it; rank 0 decides.

    A job that a user starts again under the same name continues too, unless flags say what to start from.
    """
    names_start = request.continue_from or request.weights_from or request.init_from is not None or request.reset_epoch
    again = (ranks.restarts > 0 or (ranks.named_job and not names_start)) and files.is_of_job(ranks.job)
    return ranks.broadcast_text("restart", "yes" if again else "no") == "yes"


def open_checkpoint(request: Request, mode: Mode, files: RunFiles, ranks: Ranks) -> Checkpoint | None:
    """The checkpoint to start from. Raises UserError if it cannot be read, or has no state to continue with."""
    if request.init_from is not None:
        from hf.folder import load_hf
        from hf.hub import find_model

        return load_hf(find_model(request.init_from), chatml=True)
    if mode is Mode.FRESH:
        return None
    path = request.weights_from or request.continue_from
    checkpoint = load_named(user_path(path), ranks) if path else files.newest_valid(ranks)
    if not mode.loads_optimizer:
        return checkpoint
    name = checkpoint.path
    if not checkpoint.has_training_state:
        raise UserError(f"'{name}' has no optimizer state; start a new run from its weights: --load_model_only {name}.")
    if checkpoint.version != "3" and mode is not Mode.RESET:
        done = f"{checkpoint.state['batch_counter']:,}"
        log.info("'%s' does not store the position in the data; batch %s is followed by a new epoch.", name, done)
    if checkpoint.other_options:
        other = one_line(", ".join(checkpoint.other_options), 300)
        log.warning("Options of '%s' that Jojo does not have: %s.", name, other)
    return checkpoint


def load_named(path: Path, ranks: Ranks) -> Checkpoint:
    """The checkpoint that a flag names. If it cannot be read, the UserError names another one of the run that can."""
    try:
        return load_checkpoint(path, ranks)
    except UserError as error:
        others = RunFiles(path.parent / f"{run_of(path)}.pt").newest_first()
        for other in (other for other in others if other != path):
            with suppress(UserError):
                error.args = (f"{error} '{load_checkpoint(other).path}' of the same run is undamaged.",)
                break
        raise


def checkpoint_layer(checkpoint: Checkpoint, mode: Mode, sources: Mapping[str, str]) -> tuple[str, Values]:
    """The checkpoint's config as the lowest layer; only the model's shape if only weights are loaded.

    Options that were derived from the run's length are left out, so that a longer run derives them again. max_iters is
    left out if another layer sets max_epochs alone, because max_iters would win (`sources`: who sets each option).
    """
    source = f"checkpoint {checkpoint.path}"
    if not mode.loads_optimizer:
        return source, {"model": checkpoint.config.get("model", {})}
    left_out = {name for name in checkpoint.state.get("derived", []) if name.startswith("scheduler.")}
    if sources["training.max_epochs"] != "default" and sources["training.max_iters"] == "default":
        left_out.add("training.max_iters")
    return source, {
        section: {key: value for key, value in entries.items() if f"{section}.{key}" not in left_out}
        for section, entries in checkpoint.config.items()
    }


def keep_split(config: Config, rows_without_checkpoint: int, sources: dict[str, str], checkpoint: Checkpoint) -> bool:
    """With batch_size "auto": take the checkpoint's micro-batches if its batch has the wanted number of sequences.

    The checkpoint's batch_size may be one that "auto" found. So the config without the checkpoint, as when the run began, may
    match as well.
    """
    if checkpoint.version != "3":
        return False
    stored = Config.from_dict(checkpoint.config, str(checkpoint.path))
    if stored.rows_per_batch not in (config.rows_per_batch, rows_without_checkpoint):
        return False
    for name in ("training.batch_size", "training.gradient_accumulation_steps"):
        config.set(name, stored.get(name))
        sources[name] = f"checkpoint {checkpoint.path}"
    return True


def refuse_other_shape(config: Config, sources: dict[str, str], checkpoint: Checkpoint) -> None:
    """Raises UserError when a file or flag contradicts the shape of the loaded model."""
    stored = checkpoint.config.get("model", {})
    problems = [
        f"model.{key} {now} ({sources[f'model.{key}']}) against {value}"
        for key, value in stored.items()
        if key != "dropout" and (now := getattr(config.model, key)) not in (None, value)
    ]
    if problems:
        other = "; ".join(problems) + ". Leave these options out (of a config file too), or train a new model."
        raise UserError(f"The model in '{checkpoint.path}' has another shape: {other}")
    config.model.vocab_size = stored.get("vocab_size", config.model.vocab_size)


def check_changes(
    checkpoint: Checkpoint, config: Config, derived: Collection[str], data: Mapping[str, str], allowed: bool
) -> None:
    """Raises UserError, or with `allowed` warns, if something that affects the result has changed since the checkpoint.

    `derived` names options that were derived; those of a schedule may change. `data` has the fingerprints of Data.
    """
    changes = []
    for name, consequence in ((n, words) for part, words in DECISIVE.items() for n in OPTIONS if n.startswith(part)):
        section, key = name.split(".")
        now = config.get(name)
        stored = checkpoint.config.get(section, {}).get(key, now)
        if stored != now and not (section == "scheduler" and name in derived):
            changes.append(f"{name} {stored} -> {now} ({consequence})")
    old = checkpoint.state["metadata"]["dataset"]
    consequences = {"train": "the rest of the epoch has other text", "val": "validation losses are not comparable"}
    for split, means in consequences.items():
        if old[split] != data[split]:
            changes.append(f"{old['name']}-{split} {old[split]} -> {data['name']}-{split} {data[split]} ({means})")
    what = "; ".join(changes)
    if changes and allowed:
        log.warning("This run continues with changes: %s.", what)
    elif changes:
        advice = "Leave the change out, or add --allow_changes to continue with it."
        raise UserError(f"This would not continue the same run: {what}. {advice}")


def note_other_machine(checkpoint: Checkpoint, device: str) -> None:
    """Log what affects rounding and differs from the machine of the checkpoint."""
    before, now = checkpoint.state["metadata"].get("machine", {}), machine(device)
    words = {"device": f"device {now['device']}", "name": now["name"], "threads": plural(now["threads"], "thread")}
    words["pytorch"] = f"PyTorch {now['pytorch']}"
    if changed := [name for name in words if before.get(name, now[name]) != now[name]]:
        changes = ", ".join(f"{words[name]} instead of {before[name]}" for name in changed)
        log.info("Resumed with %s: results may differ in the last digits.", changes)


def set_position(start: Start, config: Config, batches_per_epoch: int) -> int:
    """Fill in where training begins, and return the number of batches of the whole run.

    If the batch size changed, the position in the data is kept, rounded down to a whole batch.
    """
    training, checkpoint = config.training, start.checkpoint
    total = training.max_epochs * batches_per_epoch
    if checkpoint and start.mode.keeps_counters:
        start.batches_done = checkpoint.state["batch_counter"]
        start.epoch, start.position = (checkpoint.state["loader"][name] for name in ("epoch", "position"))
        if checkpoint.version == "3":  # older formats have no position, and count batches in another way
            before = Config.from_dict(checkpoint.config, str(checkpoint.path))
            start.position = start.position * before.rows_per_batch // config.rows_per_batch
            if start.position >= batches_per_epoch:
                start.epoch, start.position = start.epoch + 1, 0
            total = start.batches_done + max(0, total - start.epoch * batches_per_epoch - start.position)
    total = training.max_iters or total
    if not FITS["count"](total):
        raise UserError(f"A run of {total:,} batches is too long to be saved; lower --max_iters or --epochs.")
    return total


def before_cooldown(resolved: ResolvedRequest, total_batches: int, ranks: Ranks) -> Checkpoint | None:
    """For a finished run with "wsd" that gets longer: its checkpoint from before the cool-down, if it is still there.

    From this one it becomes the run that was planned so long; what has cooled down needs many batches to recover.
    """
    start, finished = resolved.start, resolved.start.checkpoint
    if not finished or start.mode is not Mode.RESUME or finished.version != "3":
        return None
    stored, new = finished.state["lr_scheduler"], resolved.config.scheduler
    schedule, length = stored["schedule"], stored["total_batches"]
    batch, kinds = schedule.get("cooldown_start"), {schedule.get("kind"), new.kind}
    cools = kinds == {"wsd"} and schedule.get("decays") and new.decay_lr and isinstance(batch, int)
    if not (cools and batch < length <= start.batches_done < total_batches):
        return None
    try:
        earlier = load_checkpoint(resolved.files.numbered(batch), ranks)
    except UserError:  # deleted or damaged
        return None
    if earlier.run_id != start.run_id or earlier.state["batch_counter"] != batch:
        return None
    log.info("A longer run needs no cool-down at batch %s: it continues from '%s'.", f"{batch:,}", earlier.path)
    return earlier
