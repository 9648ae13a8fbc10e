"""Ways to start and to continue: what counts of a checkpoint, and which changes are refused."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from config import OPTIONS, Config, Values, asks_for_auto, resolve
from jojo.checkpoints.checkpoint import Checkpoint, load_checkpoint, machine
from jojo.checkpoints.run_files import RunFiles, run_path
from jojo.config_file import config_layers
from jojo.machine.ranks import SINGLE, Ranks
from training.flags import Request
from utils import UserError, log, user_path

SHAPE = [n for n in OPTIONS if n.startswith("model.") and n != "model.dropout"]
# Options that decide what is learned: a run does not continue with another value of one of them.
DECISIVE = [
    *(name for name in OPTIONS if name.split(".")[0] in ("model", "optimizer", "scheduler")),
    "training.batch_size", "training.gradient_accumulation_steps", "training.train_batches", "training.compile_model",
    "system.seed", "system.dtype", "data.tokenizer", "data.parse_special", "data.predict", "data.pack",
]  # fmt: skip
# What a change of them means for the rest of the run; the first entry that begins an option's name counts.
CONSEQUENCES = {
    "model.dropout": "dropout leaves out other activations",
    "optimizer": "the updates change",
    "scheduler": "the learning rate changes",
    "training.train_batches": "epochs end at another batch",
    "training.compile_model": "results may differ in the last bits",
    "training": "batches are made of other sequences, from the same position in the epoch",
    "system.seed": "data order and dropout change",
    "system.dtype": "rounding changes",
    "data": "tokens or targets change",
}


class Mode(Enum):
    """How a run starts. This table is the truth; docs/checkpoints.md has the same rows, and a test walks them.

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

    position: batches done, and the place in the data. An older format has only the first: training starts an epoch.
    metrics:  the record and its losses; of an older format, evaluations and the best and worst loss.
    options:  whose values the run starts with; config files and flags count more.
    changes:  of an option in DECISIVE, or of the data. The shape of loaded weights never changes.
    files:    named by --output_checkpoint or data set and epochs ("by options"), or those of the checkpoint's run.
              What stands under a new run's name moves to models/old/.
    """

    FRESH = "random weights"
    WEIGHTS = "a new run from weights"
    RESET = "a new run from weights and optimizer state"
    CONTINUE = "the checkpoint's training, as a run of its own"
    RESUME = "the checkpoint's run"

    @property
    def loads_optimizer(self) -> bool:
        """Whether optimizer state and options come from the checkpoint."""
        return self in (Mode.RESET, Mode.CONTINUE, Mode.RESUME)

    @property
    def keeps_counters(self) -> bool:
        """Whether batches, epochs and metrics count from the checkpoint."""
        return self in (Mode.CONTINUE, Mode.RESUME)


@dataclass
class Asked:
    """What flags, config files and checkpoint ask for, put together."""

    config: Config
    sources: dict[str, str]  # dotted name → where its value comes from
    files: RunFiles
    checkpoint: Checkpoint | None
    mode: Mode
    auto_batch_size: bool  # training.batch_size is still to be found
    init_from: str | None  # the Hugging Face model that the weights go back to, through any number of checkpoints


@dataclass
class Start:
    """Where training begins."""

    mode: Mode
    checkpoint: Checkpoint | None
    epoch: int
    position: int  # batches of that epoch that are done
    batches_done: int
    run_id: str  # 16 hex digits, the same through all resumes
    init_from: str | None


# --- from request to Asked --------------------------------------------------------------------------------------------


def ask(request: Request, ranks: Ranks = SINGLE) -> Asked:
    """Put together what was asked for; a restarted torchrun job continues from its last checkpoint."""
    asked = read_layers(request, ranks)
    if is_restart(request, asked.files, ranks):
        log.info("Torchrun restarted this job; it continues from the last checkpoint of '%s'.", asked.files.run)
        return read_layers(after_restart(request, asked.files), ranks)
    if ranks.restarts:
        log.info("Torchrun restarted this job before its first save; it begins again.")
    return asked


def read_layers(request: Request, ranks: Ranks) -> Asked:
    """The config of defaults, checkpoint, files and flags, and what goes with it."""
    mode = mode_of(request)
    layers = config_layers(request.config_file, request.overrides)
    auto = asks_for_auto(layers, "training.batch_size")
    config, sources = resolve(layers, partial=mode is not Mode.FRESH)
    files = RunFiles(run_path(request.output, config.data.dataset_name, config.training.max_epochs))
    checkpoint = open_checkpoint(request, mode, files, ranks)
    if checkpoint is None:
        return Asked(config, sources, files, None, mode, auto, None)
    without_checkpoint = config
    config, sources = resolve([checkpoint_layer(checkpoint, mode, layers), *layers])
    if auto and mode.loads_optimizer and keep_split(config, without_checkpoint, sources, checkpoint):
        auto = mode is Mode.RESET or request.allow_changes  # perhaps on another machine: found again
    refuse_other_shape(config, sources, checkpoint)
    path = run_path(request.output, config.data.dataset_name, config.training.max_epochs)
    if request.output is None and mode is Mode.RESUME and checkpoint.version == "3":
        path = checkpoint.path.parent / f"{checkpoint.state['metadata']['run']}.pt"
    files = RunFiles(path)
    if mode is Mode.RESUME and not (checkpoint.run_id and files.owns(checkpoint.path)):
        mode = Mode.CONTINUE
    recorded = checkpoint.state.get("metadata", {}).get("init_from")
    init_from = request.init_from or (recorded if isinstance(recorded, str) else None)
    return Asked(config, sources, files, checkpoint, mode, auto, init_from)


def mode_of(request: Request) -> Mode:
    """How a request starts; whether RESUME is CONTINUE, the files decide."""
    if request.weights_from or request.init_from is not None:
        return Mode.WEIGHTS
    if request.continue_from or request.resume:
        return Mode.RESET if request.reset_epoch else Mode.RESUME
    return Mode.FRESH


def is_restart(request: Request, files: RunFiles, ranks: Ranks) -> bool:
    """Whether this torchrun job has already begun the run and saved it; rank 0 decides.

    A job that was started by hand under its old name continues too, unless it names what to start from.
    """
    names_start = request.continue_from or request.weights_from or request.init_from is not None or request.reset_epoch
    again = (ranks.restarts > 0 or (ranks.named_job and not names_start)) and files.is_of_job(ranks.job)
    return ranks.broadcast_text("restart", "yes" if again else "no") == "yes"


def after_restart(request: Request, files: RunFiles) -> Request:
    """The same request, from the job's last checkpoint."""
    return replace(
        request, resume=True, output=str(files.last), continue_from=None, weights_from=None, init_from=None, reset_epoch=False
    )  # fmt: skip


def open_checkpoint(request: Request, mode: Mode, files: RunFiles, ranks: Ranks) -> Checkpoint | None:
    """The checkpoint to start from. Raises UserError where it cannot be read, or holds too little."""
    if request.init_from is not None:
        from hf.folder import load_hf
        from hf.hub import find_model

        return load_hf(find_model(request.init_from), chatml=True)
    if mode is Mode.FRESH:
        return None
    path = request.weights_from or request.continue_from
    checkpoint = load_checkpoint(user_path(path), ranks) if path else files.newest_valid(ranks)
    if mode.loads_optimizer:
        check_continuable(checkpoint, mode)
    return checkpoint


def check_continuable(checkpoint: Checkpoint, mode: Mode) -> None:
    """Say what a checkpoint lacks. Raises UserError where it has no training state."""
    if not checkpoint.has_training_state:
        raise UserError(
            f"'{checkpoint.path}' has no optimizer state to continue with; start a new run from its weights: "
            f"--load_model_only {checkpoint.path}."
        )
    if checkpoint.version != "3" and mode is not Mode.RESET:
        maker = checkpoint.version if checkpoint.version == "nanoGPT" else f"Jojo {checkpoint.version}"
        log.info(
            "'%s' is a checkpoint of %s, which does not store the position in the data: training continues after %s batches, "
            "at the beginning of an epoch.",
            checkpoint.path, maker, f"{checkpoint.state['batch_counter']:,}",
        )  # fmt: skip
    if checkpoint.other_options:
        log.warning(
            "Options of '%s' that this version does not have: %s.", checkpoint.path, ", ".join(checkpoint.other_options)
        )


def checkpoint_layer(checkpoint: Checkpoint, mode: Mode, layers: list[tuple[str, Values]]) -> tuple[str, Values]:
    """The checkpoint's config as a layer below `layers`; only the model's shape where only weights are taken.

    What was derived from the run's length is left out, so that a longer run derives it again. So is max_iters where a
    layer gives max_epochs.
    """
    source = f"checkpoint {checkpoint.path}"
    if not mode.loads_optimizer:
        return source, {"model": checkpoint.config.get("model", {})}
    left_out = {name for name in checkpoint.state.get("derived", []) if name.startswith("scheduler.")}
    given = {f"{section}.{key}" for _, values in layers for section, entries in values.items() for key in entries}
    if "training.max_epochs" in given and "training.max_iters" not in given:
        left_out.add("training.max_iters")
    return source, {
        section: {key: value for key, value in entries.items() if f"{section}.{key}" not in left_out}
        for section, entries in checkpoint.config.items()
    }


def keep_split(config: Config, without_checkpoint: Config, sources: dict[str, str], checkpoint: Checkpoint) -> bool:
    """Take the checkpoint's micro-batches where batch_size "auto" means as many sequences per batch as it has.

    The checkpoint's batch size may have been found, too. So the sequences count as they are in the config with the
    checkpoint, and in the one without it, as when the run began.
    """
    if checkpoint.version != "3":
        return False
    stored = Config.from_dict(checkpoint.config, str(checkpoint.path))
    if stored.rows_per_batch not in (config.rows_per_batch, without_checkpoint.rows_per_batch):
        return False
    for name in ("training.batch_size", "training.gradient_accumulation_steps"):
        config.set(name, stored.get(name))
        sources[name] = f"checkpoint {checkpoint.path}"
    return True


# --- what is refused --------------------------------------------------------------------------------------------------


def refuse_other_shape(config: Config, sources: dict[str, str], checkpoint: Checkpoint) -> None:
    """Raises UserError when a file or flag contradicts the shape of the loaded model."""
    stored = checkpoint.config.get("model", {})
    problems, by_flags = [], True
    for name in SHAPE:
        key, now = name.split(".")[1], config.get(name)
        if key in stored and now not in (None, stored[key]):
            problems.append(f"{name} {now} ({sources[name]}) against {stored[key]}")
            by_flags &= sources[name].startswith("--")
    if problems:
        raise UserError(
            f"The model in '{checkpoint.path}' has another shape: {'; '.join(problems)}. "
            + ("Leave these options out." if by_flags else "Leave --config out, or name one of this shape.")
        )
    config.model.vocab_size = stored.get("vocab_size", config.model.vocab_size)


def refuse_changes(checkpoint: Checkpoint, config: Config, derived: Collection[str], data: Mapping[str, str]) -> None:
    """Raises UserError when something that decides what is learned differs from the checkpoint's run.

    `derived` names options whose values follow from others: a schedule's lengths may. `data` are Data's fingerprints.
    """
    changes = []
    for name in DECISIVE:
        section, key = name.split(".")
        stored, now = checkpoint.config.get(section, {}), config.get(name)
        rederived = section == "scheduler" and name in derived
        if key in stored and stored[key] != now and not rederived:
            consequence = next(words for part, words in CONSEQUENCES.items() if name.startswith(part))
            changes.append(f"{name} {stored[key]} -> {now} ({consequence})")
    before = checkpoint.state["metadata"]["dataset"]
    for split, what, means in (
        ("train", "training", "the rest of the epoch is other text"),
        ("val", "validation", "validation losses do not compare"),
    ):
        if before[split] != data[split]:
            changes.append(
                f"the {what} data {before['name']} {before[split]} -> {data['name']} {data[split]} ({means})"
            )
    if changes:
        raise UserError(
            f"This would not continue the same run: {'; '.join(changes)}. "
            "Leave the change out, or add --allow_changes to continue with it."
        )


def note_other_machine(checkpoint: Checkpoint, device: str) -> None:
    """Say so when something that decides rounding differs from the checkpoint's run."""
    before, now = checkpoint.state["metadata"].get("machine", {}), machine(device)
    changes = [f"{name} {before[name]} -> {value}" for name, value in now.items() if before.get(name, value) != value]
    if changes:
        log.info("Results may differ in the last bits from here on: %s.", "; ".join(changes))


# --- where training begins --------------------------------------------------------------------------------------------


def starting_point(asked: Asked, batches_per_epoch: int, run_id: str) -> Start:
    """Where training begins, in batches of this run: with another batch size the position in the data is kept, rounded down.

    `run_id` is for a run of its own.
    """
    mode, checkpoint, config = asked.mode, asked.checkpoint, asked.config
    if checkpoint is None or not mode.keeps_counters:
        return Start(mode, checkpoint, 0, 0, 0, run_id, asked.init_from)
    state = checkpoint.state
    epoch, position = state["loader"]["epoch"], state["loader"]["position"]
    if checkpoint.version == "3":
        before = Config.from_dict(checkpoint.config, str(checkpoint.path))
        position = position * before.rows_per_batch // config.rows_per_batch
    if position >= batches_per_epoch:
        epoch, position = epoch + 1, 0
    if mode is Mode.RESUME:
        run_id = checkpoint.run_id or run_id
    return Start(mode, checkpoint, epoch, position, state["batch_counter"], run_id, asked.init_from)


def run_length(start: Start, config: Config, batches_per_epoch: int) -> int:
    """Batches of the whole run: `max_iters`, else those that are done and what is left of `max_epochs`."""
    if config.training.max_iters:
        return config.training.max_iters
    older = start.checkpoint is not None and start.checkpoint.version != "3"  # counted batches in another way
    if older or not start.mode.keeps_counters:
        return config.training.max_epochs * batches_per_epoch
    left = (config.training.max_epochs - start.epoch) * batches_per_epoch - start.position
    return start.batches_done + max(0, left)
