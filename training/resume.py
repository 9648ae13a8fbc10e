"""What was asked for: a config file, flags and perhaps a checkpoint, put together into one config."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum

from config import OPTIONS, Config, Value, Values, asks_for_auto, resolve
from jojo.checkpoints.checkpoint import Checkpoint, load_checkpoint
from jojo.checkpoints.run_files import RunFiles, run_path
from jojo.config_file import config_layers
from jojo.machine.ranks import SINGLE, Ranks
from utils import UserError, log, user_path

SHAPE = [n for n in OPTIONS if n.startswith("model.") and n != "model.dropout"]


class Mode(Enum):
    """How a run starts, by what it takes of a checkpoint."""

    FRESH = "fresh"  # nothing
    WEIGHTS = "weights"  # the weights: a new run
    RESET = "reset"  # weights and optimizer state; batches, epochs and metrics start at zero
    CONTINUE = "continue"  # everything, as a run of its own under another name
    RESUME = "resume"  # everything, and it is the same run in the same files

    @property
    def loads_optimizer(self) -> bool:
        """Whether the optimizer state comes from the checkpoint."""
        return self in (Mode.RESET, Mode.CONTINUE, Mode.RESUME)

    @property
    def keeps_counters(self) -> bool:
        """Whether batches, epochs and metrics count from the checkpoint."""
        return self in (Mode.CONTINUE, Mode.RESUME)


@dataclass
class Request:
    """What was asked for on the command line."""

    config_file: str | None = None
    overrides: list[tuple[str, str, Value]] = field(default_factory=list)  # (flag as typed, dotted name, value)
    continue_from: str | None = None  # --checkpoint PATH, --resume PATH
    resume: bool = False  # --resume without a path
    weights_from: str | None = None  # --load_model_only
    init_from: str | None = None  # --init_from: a Hugging Face folder, or a name on the Hub
    output: str | None = None
    allow_changes: bool = False
    reset_epoch: bool = False
    tensorboard: bool = False
    ranks: Ranks = SINGLE


def resolve_request(
    request: Request,
) -> tuple[Config, dict[str, str], RunFiles, Checkpoint | None, bool, bool]:
    """The config and where its values come from, the run's files, the checkpoint, whether training continues, and
    whether the micro-batch's size is to be found (training.batch_size "auto")."""
    layers = config_layers(request.config_file, request.overrides)
    auto = asks_for_auto(layers, "training.batch_size")
    loads = request.weights_from or request.init_from is not None or request.continue_from or request.resume
    config, sources = resolve(layers, partial=bool(loads))
    files = RunFiles(run_path(request.output, config.data.dataset_name, config.training.max_epochs))
    checkpoint, continues = open_checkpoint(request, files)
    if checkpoint:
        given = {f"{section}.{key}" for _, values in layers for section, entries in values.items() for key in entries}
        alone = config  # what the request means without the checkpoint
        config, sources = resolve([checkpoint_layer(checkpoint, continues, given), *layers])
        if auto and continues and checkpoint.version == "3" and keep_split(config, alone, sources, checkpoint):
            auto = request.reset_epoch or request.allow_changes  # perhaps on a machine of another size: found anew
        refuse_other_shape(config, sources, checkpoint)
        if continues and request.output is None:
            own_name = checkpoint.version == "3" and not request.reset_epoch
            named = checkpoint.path.parent / f"{checkpoint.state['metadata']['run']}.pt" if own_name else None
            files = RunFiles(named or run_path(None, config.data.dataset_name, config.training.max_epochs))
    return config, sources, files, checkpoint, continues, auto


def is_restart(request: Request, files: RunFiles) -> bool:
    """Whether this is a torchrun job that has begun the run already and is to go on with it; rank 0 decides.

    A job that was started by hand under its old name goes on too, unless it is told what to start from.
    """
    ranks = request.ranks
    told = request.continue_from or request.weights_from or request.init_from is not None or request.reset_epoch
    again = (ranks.restarts > 0 or (ranks.named_job and not told)) and files.is_of_job(ranks.job)
    return ranks.broadcast_text("restart", "yes" if again else "no") == "yes"


def after_restart(request: Request, files: RunFiles) -> Request:
    """What was asked for, from where the job's last checkpoint left it."""
    return replace(
        request, resume=True, output=str(files.last), continue_from=None, weights_from=None, init_from=None, reset_epoch=False
    )  # fmt: skip


def start_mode(checkpoint: Checkpoint | None, continues: bool, reset: bool, files: RunFiles) -> Mode:
    """How a run starts from this checkpoint and into these files."""
    if checkpoint is None:
        return Mode.FRESH
    if not continues:
        return Mode.WEIGHTS
    if reset:
        return Mode.RESET
    return Mode.RESUME if checkpoint.run_id and files.owns(checkpoint.path) else Mode.CONTINUE


def open_checkpoint(request: Request, files: RunFiles) -> tuple[Checkpoint | None, bool]:
    """The checkpoint the request names, and whether training continues from it (else only its weights count)."""
    if request.weights_from:
        return load_checkpoint(user_path(request.weights_from), request.ranks), False
    if request.init_from is not None:
        from hf.folder import load_hf
        from hf.hub import find_model

        return load_hf(find_model(request.init_from), chatml=True), False
    if request.continue_from:
        checkpoint = load_checkpoint(user_path(request.continue_from), request.ranks)
    elif request.resume:
        checkpoint = files.newest_valid(request.ranks)
    else:
        return None, False
    if not checkpoint.has_training_state:
        raise UserError(
            f"'{checkpoint.path}' holds no optimizer state to go on with; start a new run from its weights: "
            f"--load_model_only {checkpoint.path}."
        )
    if checkpoint.version != "3" and not request.reset_epoch:
        maker = checkpoint.version if checkpoint.version == "nanoGPT" else f"Jojo {checkpoint.version}"
        log.info(
            "'%s' is a checkpoint of %s: weights and optimizer are taken over, batches done: %s. Its place in the data is not "
            "known, so training goes on at the beginning of an epoch.",
            checkpoint.path, maker, f"{checkpoint.state['batch_counter']:,}",
        )  # fmt: skip
    if checkpoint.other_options:
        log.warning(
            "Options of '%s' that are not known here: %s.", checkpoint.path, ", ".join(checkpoint.other_options)
        )
    return checkpoint, True


def checkpoint_layer(checkpoint: Checkpoint, continues: bool, given: set[str]) -> tuple[str, Values]:
    """The checkpoint's config as a layer; only the model's part where only weights are taken.

    Values of the schedule that were derived from the run's length stay underived, so that a longer run derives anew;
    and epochs that are `given` now count, although the run was measured in batches.
    """
    values = checkpoint.config if continues else {"model": checkpoint.config.get("model", {})}
    derived = checkpoint.state.get("derived", []) if continues else []
    again = {name for name in derived if name.startswith("scheduler.")}
    if "training.max_epochs" in given and "training.max_iters" not in given:
        again.add("training.max_iters")
    kept = {
        section: {k: v for k, v in entries.items() if f"{section}.{k}" not in again}
        for section, entries in values.items()
    }
    return f"checkpoint {checkpoint.path}", kept


def keep_split(config: Config, alone: Config, sources: dict[str, str], checkpoint: Checkpoint) -> bool:
    """Take the checkpoint's micro-batches where "auto" asks for as many sequences per batch as it has; else False.

    Its batch size may be one that was found. So the sequences asked for are counted from that, and also `alone`: from
    the files and flags only, as when the run began.
    """
    stored = Config.from_dict(checkpoint.config, str(checkpoint.path))
    if stored.rows_per_batch not in (config.rows_per_batch, alone.rows_per_batch):
        return False
    for name in ("training.batch_size", "training.gradient_accumulation_steps"):
        config.set(name, stored.get(name))
        sources[name] = f"checkpoint {checkpoint.path}"
    return True


def refuse_other_shape(config: Config, sources: dict[str, str], checkpoint: Checkpoint) -> None:
    """Raises UserError when a file or flag contradicts the shape of the model that was loaded."""
    stored = checkpoint.config.get("model", {})
    others = [
        name
        for name in SHAPE
        if config.get(name) is not None and stored.get(name.split(".")[1], config.get(name)) != config.get(name)
    ]
    problems = [f"{name} {config.get(name)} ({sources[name]}) against {stored[name.split('.')[1]]}" for name in others]
    typed = [sources[name].startswith("--") for name in others]
    if problems:
        raise UserError(
            f"The model in '{checkpoint.path}' has another shape: {'; '.join(problems)}. "
            + ("Leave these options out." if all(typed) else "Leave --config out, or name one of this shape.")
        )
    config.model.vocab_size = stored.get("vocab_size", config.model.vocab_size)
