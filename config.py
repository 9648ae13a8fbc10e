"""What a run is: six dataclasses, filled from layers of values and checked before anything is built.

Values come from layers; a later layer overrides an earlier one:

    field default < a loaded checkpoint's config < "extends" < the JSON file < flags

Every field below is also a flag (`--model.n_layer 8`) and a row of docs/configuration.md; a test compares the two.
`null` means "derive it". All problems are reported at once. jojo/config_file.py reads and writes the JSON files.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import json
import operator
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from utils import UserError, divisors, one_line

MOST_PROBLEMS = 20  # in one message
AUTO = "auto"  # instead of a number, in a file or flag: find one that fits this machine (training/micro_batch.py)
LARGEST = 2**63 - 1  # for integer options without an upper limit of their own: what 64 bits hold
LONGEST_TEXT = 10_000  # for text options
DTYPES = ("auto", "float32", "bfloat16", "float16")
LIMITS = {"at_least": operator.ge, "above": operator.gt, "below": operator.lt, "at_most": operator.le}
Value = Any  # what a field may hold: bool, int, float, str or None
Values = dict[str, dict[str, Value]]  # {"model": {"n_layer": 6}, ...}, as in a JSON file
T = TypeVar("T")


def option(
    default: T,
    help: str,
    *,
    unit: str = "",
    choices: tuple[str, ...] = (),
    auto: bool = False,
    only: str = "",
    **limits: float,
) -> T:
    """A config field: its default, the one line that `--help` and the docs show, its unit and its LIMITS.

    With `auto`, files and flags may say "auto" too; the config itself always holds a number. `only` names the
    model.architecture that has the option; with another one, it must keep its default.
    """
    help = f"{help} ({only} only)" if only else help
    metadata = {"help": help, "unit": unit, "choices": choices, "limits": limits, "auto": auto, "only": only}
    return field(default=default, metadata=metadata)


@dataclass
class ModelConfig:
    """The network's shape; a loaded checkpoint fixes it."""

    n_layer: int = option(6, "transformer blocks", at_least=1, at_most=10_000)
    n_head: int = option(6, "attention heads per block; must divide n_embd", at_least=1, at_most=10_000)
    n_embd: int = option(384, "width of the residual stream", unit="channels", at_least=1, at_most=10**6)
    block_size: int = option(256, "longest context that the model can use", unit="tokens", at_least=2, at_most=10**7)
    dropout: float = option(0.0, "dropout probability; 0 is right for up to one epoch", at_least=0, below=1)
    bias: bool = option(False, "biases in linear and LayerNorm layers; false is a little faster", only="gpt2")
    vocab_size: int | None = option(
        None, "embedding rows; null = the tokenizer's size rounded up to 64", unit="tokens", at_least=1, at_most=10**7
    )
    architecture: str = option("gpt2", "the equations: those of GPT-2 or of Qwen3", choices=("gpt2", "qwen3"))
    n_kv_head: int | None = option(None, "key/value heads; must divide n_head; null = n_head", at_least=1, only="qwen3")
    n_inner: int | None = option(
        None, "inner width of the MLP; null = 8/3 of n_embd, rounded up to 64", unit="channels", at_least=1,
        at_most=10**7, only="qwen3",
    )  # fmt: skip
    tie_embeddings: bool = option(True, "one matrix for embedding and output layer", only="qwen3")
    rope_theta: float = option(
        10_000.0, "base of the rotary positions' wavelengths", above=1, at_most=1e12, only="qwen3"
    )
    norm_eps: float = option(1e-6, "added to the mean square in an RMSNorm", at_least=1e-12, at_most=1, only="qwen3")

    @property
    def kv_heads(self) -> int:
        """The number of key/value heads."""
        return self.n_kv_head or self.n_head


@dataclass
class OptimizerConfig:
    """AdamW (Loshchilov & Hutter 2019) or Muon (Jordan et al. 2024), with decay on matrices only."""

    kind: str = option("adamw", "muon (for the blocks' matrices) learns in fewer batches", choices=("adamw", "muon"))
    learning_rate: float = option(6e-4, "peak learning rate", above=0)
    embedding_learning_rate: float | None = option(None, "that of embeddings; null = learning_rate", above=0)
    output_learning_rate: float | None = option(None, "that of an untied output layer; null = learning_rate", above=0)
    norm_learning_rate: float | None = option(None, "that of norms and biases; null = learning_rate", above=0)
    momentum_warmup: int = option(0, "how long Muon's momentum rises from 0.85 to 0.95", unit="batches", at_least=0)
    weight_decay: float = option(0.1, "decoupled weight decay of matrices and embeddings", at_least=0)
    beta1: float = option(0.9, "AdamW's first-moment decay", at_least=0, below=1)
    beta2: float = option(0.95, "AdamW's second-moment decay", at_least=0, below=1)
    grad_clip: float = option(1.0, "largest global gradient norm; 0 = no clipping", at_least=0)


@dataclass
class SchedulerConfig:
    """The learning rate as a function of the batch number."""

    kind: str = option(
        "cosine", "cool-down: cosine, or wsd (linear; keeps the model before it)", choices=("cosine", "wsd")
    )
    decay_lr: bool = option(True, "false = constant learning rate after the warm-up")
    warmup_iters: int | None = option(None, "warm-up; null = warmup_fraction of the run", unit="batches", at_least=0)
    lr_decay_iters: int | None = option(None, "end of the cool-down; null = the run's end", unit="batches", at_least=1)
    min_lr: float | None = option(None, "final learning rate; null = a tenth of learning_rate", at_least=0)
    warmup_fraction: float = option(0.05, "warm-up as a share of the run", at_least=0, below=1)
    cooldown_fraction: float | None = option(
        None, "start of the cool-down, as a share of the run; null = after warm-up (wsd: 0.8)", at_least=0, at_most=1
    )


@dataclass
class TrainingConfig:
    """How long, how much at a time, and how often to evaluate and save."""

    max_epochs: int = option(1, "passes over the training split", at_least=1)
    max_iters: int | None = option(None, "length of the run; overrides max_epochs", unit="batches", at_least=1)
    max_minutes: float | None = option(None, "save and stop after this time; resumable", unit="minutes", above=0)
    batch_size: int = option(
        12, "sequences per micro-batch; auto = as many as fit", unit="sequences", at_least=1, at_most=10**6, auto=True
    )
    gradient_accumulation_steps: int = option(1, "micro-batches per batch, over all ranks", at_least=1, at_most=10**6)
    activation_checkpointing: bool = option(False, "recompute the blocks in the backward pass: less memory, slower")
    eval_iters: int = option(20, "micro-batches per evaluation, of each split", unit="micro-batches", at_least=1)
    eval_interval: int = option(100, "how often to evaluate; 0 = only after each epoch", unit="batches", at_least=0)
    log_interval: int = option(10, "how often to print, if not on a terminal; 0 = never", unit="batches", at_least=0)
    plot_interval: int = option(100, "how often to keep a plot; 0 = only the last", unit="batches", at_least=0)
    sample_interval: int = option(0, "how often to continue sample_prompts; 0 = never", unit="batches", at_least=0)
    sample_prompts: str | None = option(
        None, 'what samples continue; separate several with |; null = "Once upon a time", in chats "Hello!"'
    )
    sample_tokens: int = option(40, "length of a sample", unit="tokens", at_least=1)
    evaluate_tasks: str | None = option(
        None, "built-in tasks that each evaluation asks, separated by spaces (docs/evaluation.md), or all; null = none"
    )
    ema: float = option(
        0.0, "moving average of the weights, which evaluations and checkpoints use; 0.998 = over 500 batches, 0 = none",
        at_least=0, below=1,
    )  # fmt: skip
    save_checkpoints: bool = option(True, "write checkpoints; false = keep nothing but the metrics")
    checkpoint_interval: int = option(0, "batches between numbered checkpoints; 0 = none", unit="batches", at_least=0)
    keep_checkpoints: int | None = option(None, "numbered ones to keep; null = all", unit="checkpoints", at_least=1)
    checkpoint_minutes: float = option(15.0, "how often to save; 0 = only after epochs", unit="minutes", at_least=0)
    compile_model: bool | None = option(None, "torch.compile; null = on CUDA only")
    train_batches: int | None = option(None, "use at most this many batches of each epoch", unit="batches", at_least=1)
    val_batches: int | None = option(None, "limits eval_iters for validation", unit="micro-batches", at_least=1)


@dataclass
class SystemConfig:
    """The machine, and the seed. The device and its settings change results only by rounding."""

    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps; auto = CUDA (most free memory), else MPS, else CPU")
    dtype: str = option("auto", "auto = bfloat16 if it is fast here, else float32; float16 needs a GPU", choices=DTYPES)
    seed: int = option(1337, "decides the initial weights, the order of the data and dropout", at_least=0)
    parallel: str = option("ddp", "on each rank: ddp = the whole model, fsdp = a shard of it", choices=("ddp", "fsdp"))
    shard_ranks: int | None = option(None, "fsdp: ranks per copy of the model; null = all", unit="ranks", at_least=1)
    timeout_minutes: float = option(10.0, "how long a rank waits for the others (torchrun)", unit="minutes", above=0)
    num_workers: int | None = option(None, "threads that tokenize; null = one per core, 0 = no threads", at_least=0)
    pin_memory: bool = option(True, "page-locked buffers for copies to a CUDA device")
    memory_fraction: float | None = option(None, "share of CUDA memory to use at most; null = all", above=0, at_most=1)
    optimize_memory: bool = option(False, "empty PyTorch's CUDA cache before training and after evaluations")
    peak_flops: float | None = option(None, "peak for MFU; null = looked up or measured", unit="FLOP/s", at_least=10**6)
    allow_tf32_matmul: bool = option(True, "TF32 matrix products on CUDA (float32 only)")
    allow_tf32_cudnn: bool = option(True, "TF32 in cuDNN on CUDA (float32 only)")


@dataclass
class DataConfig:
    """Where the text is and how it becomes tokens."""

    dataset_name: str = option("story", "reads <data_dir>/<dataset_name>-train.jsonl and -val.jsonl")
    data_dir: str = option("data/", "folder of the prepared JSONL files")
    tokenizer: str = option("gpt2", "gpt2, story, chat, or a file of your own (prepare.py --train_tokenizer)")
    predict: str = option("all", "tokens to predict: all, or only the assistant's", choices=("all", "assistant"))
    pack: str = option("stream", "how documents fill rows: end to end, or kept whole", choices=("stream", "whole"))
    parse_special: bool = option(False, "read <|im_start|> and the like in `text` records as control tokens")
    max_bad_lines: int = option(100, "unreadable lines to skip before giving up", unit="lines", at_least=0)
    cache_tokenized: bool = option(True, "keep token ids in cache_dir; false = tokenize for this run only")
    cache_dir: str = option("cache/", "folder of the token caches")


@dataclass
class Config:
    """One run. Plain data: `to_dict` and `from_dict` are inverses, through JSON as well."""

    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    system: SystemConfig = field(default_factory=SystemConfig)
    data: DataConfig = field(default_factory=DataConfig)

    def to_dict(self) -> Values:
        """Nested plain values, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Values, source: str = "config") -> Config:
        """Build and check a config. Raises UserError naming every problem."""
        return resolve([(source, values)])[0]

    def get(self, name: str) -> Value:
        """The value of a field by its dotted name, `model.n_layer`."""
        section, key = name.split(".")
        return getattr(getattr(self, section), key)

    def set(self, name: str, value: Value) -> None:
        """Set a field by its dotted name."""
        section, key = name.split(".")
        setattr(getattr(self, section), key, value)

    @property
    def rows_per_batch(self) -> int:
        """Sequences per optimizer step, over all micro-batches."""
        return self.training.batch_size * self.training.gradient_accumulation_steps

    @property
    def tokens_per_batch(self) -> int:
        """Tokens per optimizer step."""
        return self.rows_per_batch * self.model.block_size


SECTIONS: dict[str, type] = {name: type(section) for name, section in vars(Config()).items()}


@dataclass(frozen=True)
class Option:
    """One config field, described for flags, docs and validation."""

    name: str  # "model.n_layer"
    type: Any  # bool, int, float or str
    optional: bool  # may be null
    default: Value
    help: str
    unit: str
    choices: tuple[str, ...]
    limits: dict[str, float]  # as in LIMITS
    auto: bool  # may be "auto" in a file or flag
    only: str  # the one architecture that has this option; "": all have it


def options() -> Iterator[Option]:
    """Every config field in order."""
    for section, cls in SECTIONS.items():
        hints = get_type_hints(cls)
        for item in dataclasses.fields(cls):
            kinds = get_args(hints[item.name]) or (hints[item.name],)  # int | None -> (int, NoneType)
            yield Option(f"{section}.{item.name}", kinds[0], type(None) in kinds, item.default, **item.metadata)


OPTIONS: dict[str, Option] = {o.name: o for o in options()}


def resolve(layers: list[tuple[str, Values]], partial: bool = False) -> tuple[Config, dict[str, str]]:
    """Merge layers of (source, nested values), later over earlier, and check the result.

    Returns the config, and for every dotted name the source of its value ("default" if no layer set it). Raises UserError
    that names all problems. With `partial`, more layers will follow, so checks between fields are left out.
    """
    config, sources = Config(), dict.fromkeys(OPTIONS, "default")
    problems = list(itertools.islice(_apply_layers(config, sources, layers, partial), MOST_PROBLEMS))
    if len(problems) == 1:
        raise UserError(problems[0] + ".")
    if problems:
        count = f"{len(problems)} problems" if len(problems) < MOST_PROBLEMS else f"The first {len(problems)} problems"
        raise UserError(f"{count} in the configuration:\n" + "\n".join(f"  - {p}" for p in problems))
    return config, sources


def asks_for_auto(layers: list[tuple[str, Values]], name: str) -> bool:
    """Whether these checked layers set an option to "auto"; the last layer that sets it counts."""
    section, key = name.split(".")
    given = [values[section][key] for _, values in layers if key in values.get(section, {})]
    return given[-1:] == [AUTO]


def _apply_layers(
    config: Config, sources: dict[str, str], layers: list[tuple[str, Values]], partial: bool
) -> Iterator[str]:
    """Set the fields that the layers give, and their sources; yields every problem."""
    refused = set()
    for source, values in layers:
        for name, value, problem in _entries(values):
            if not problem and not (OPTIONS[name].auto and value == AUTO):  # "auto" leaves the number of earlier layers
                value, problem = check_value(OPTIONS[name], value)
                problem = problem and f"'{name}' {problem}"
                if not problem:
                    config.set(name, value)
            if problem:
                yield f"{source}: {problem}"
                refused.add(name)
            else:
                sources[name] = source
    if not partial:
        yield from (problem for names, problem in contradictions(config) if not refused & names)


def _entries(values: Values) -> Iterator[tuple[str, Value, str]]:
    """Yields (dotted name, value, problem) for each option in a layer; the problem is "" if there is none."""
    if not isinstance(values, dict):
        yield "", None, f"must hold a JSON object with the sections {', '.join(SECTIONS)}"
        return
    for section, entries in values.items():
        if section not in SECTIONS:
            hint = nearest(section, [*SECTIONS, "extends"])
            yield section, None, f"unknown section '{one_line(section)}'{hint}"
        elif not isinstance(entries, dict):
            yield section, None, f"section '{section}' must be an object of options"
        else:
            known = list(vars(SECTIONS[section]()))
            for key, value in entries.items():
                name = f"{section}.{key}"
                unknown = key not in known and f"unknown option '{one_line(name)}'{nearest(str(key), known)}"
                yield name, value, unknown or ""


NAMES_ELSEWHERE = {  # our flags and options, and their names in other projects
    "learning_rate": "lr max_lr", "epochs": "num_epochs n_epochs num_train_epochs", "max_iters": "steps max_steps num_steps iters",
    "batch_size": "bs micro_batch_size device_batch_size per_device_train_batch_size", "weight_decay": "wd", "device": "gpu",
    "gradient_accumulation_steps": "grad_accum grad_accum_steps", "grad_clip": "max_grad_norm", "warmup_iters": "warmup_steps",
    "n_layer": "layers num_layers n_layers depth", "n_head": "heads num_heads n_heads", "n_embd": "dim d_model hidden_size width",
    "block_size": "context context_length n_ctx seq_len max_seq_len sequence_length", "dataset": "data", "resume": "continue",
    "eval_interval": "eval_steps", "checkpoint_interval": "save_steps", "output_checkpoint": "out output out_dir output_dir",
    "temp": "temperature", "max_tokens": "max_new_tokens n_predict max_length length n", "prompt": "start text p",
}  # fmt: skip


def nearest(name: str, known: list[str]) -> str:
    """The hint " (did you mean 'x'?)" with the same name in another section or project, or the closest known name, or ""."""
    name = name[:100]  # difflib takes a second for a name of megabytes
    names = [name, *(ours for ours, others in NAMES_ELSEWHERE.items() if name.lower() in others.split())]
    close = difflib.get_close_matches(name, known, 1, cutoff=0.5)
    found = [n for n in OPTIONS if n.partition(".")[2] in names] or close
    return f" (did you mean '{found[0]}'?)" if found else ""


def check_value(opt: Option, value: Value) -> tuple[Value, str]:
    """The value, converted to the field's type (int to float, 2.0 to 2), and its problem; "" if there is none."""
    kind = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}[opt.type]
    kind += " or null" if opt.optional else " or auto" if opt.auto else ""
    if value is None:
        return value, "" if opt.optional else f"must be {kind}, not null"
    if opt.type is float and type(value) in (int, float):
        if not -sys.float_info.max <= value <= sys.float_info.max:  # refuses NaN and too large integers
            return value, "must be a finite number"
        value = float(value)
    elif opt.type is int and type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not opt.type:
        simple = isinstance(value, (bool, int, float, str))
        return value, f"must be {kind}, not {one_line(json.dumps(value, ensure_ascii=False) if simple else value, 60)}"
    if opt.type is str and not is_short_text(value):
        return value, f"must be printable Unicode text of at most {LONGEST_TEXT:,} characters, not '{one_line(value)}'"
    if value == "" and opt.name != "training.sample_prompts":
        return value, "must not be empty"
    if opt.choices and value not in opt.choices:
        hint = nearest(value, list(opt.choices))
        return value, f"must be one of {', '.join(opt.choices)}, not '{one_line(value)}'{hint}"
    limits: dict[str, float] = {"at_most": LARGEST} | opt.limits if opt.type is int else opt.limits
    for words, limit in limits.items():
        if not LIMITS[words](value, limit):
            return value, f"must be {words.replace('_', ' ')} {limit:,}, not {one_line(value, 40)}"
    return value, ""


def is_short_text(text: str) -> bool:
    """Whether text has no control characters or lone surrogates, except U+DC80-DCFF (bytes of a path, os.fsdecode)."""
    return len(text) <= LONGEST_TEXT and not re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udc7f\udd00-\udfff]", text)


def contradictions(config: Config) -> Iterator[tuple[set[str], str]]:
    """Yields (fields, problem) for values that are each valid but do not fit together."""
    model, name = config.model, config.data.dataset_name
    if config.optimizer.output_learning_rate is not None and model.tie_embeddings:
        problem = "optimizer.output_learning_rate is for an output layer of its own (model.tie_embeddings false)"
        yield {"optimizer.output_learning_rate", "model.tie_embeddings"}, problem
    if model.n_embd % model.n_head:
        best = min(divisors(model.n_embd), key=lambda heads: abs(heads - model.n_head))
        problem = f"model.n_embd {model.n_embd} is not divisible by model.n_head {model.n_head}; {best} heads would fit"
        yield {"model.n_embd", "model.n_head"}, problem
    elif model.architecture == "qwen3" and model.n_embd // model.n_head % 2:
        problem = f"model.n_embd / model.n_head is {model.n_embd // model.n_head}; rotary positions need an even number"
        yield {"model.n_embd", "model.n_head"}, problem
    if model.n_head % (model.n_kv_head or 1):
        problem = f"model.n_head {model.n_head} is not divisible by model.n_kv_head {model.n_kv_head}"
        yield {"model.n_head", "model.n_kv_head"}, problem
    for opt in OPTIONS.values():
        if opt.only not in ("", model.architecture) and config.get(opt.name) != opt.default:
            value = json.dumps(config.get(opt.name))
            problem = (
                f"{opt.name} {value}: the architecture {model.architecture} does not have this option ({opt.only} has)"
            )
            yield {opt.name, "model.architecture"}, problem
    final, peak = config.scheduler.min_lr, config.optimizer.learning_rate
    if final is not None and final > peak:
        problem = f"scheduler.min_lr {final:g} is above optimizer.learning_rate {peak:g}; null = a tenth of it"
        yield {"scheduler.min_lr", "optimizer.learning_rate"}, problem
    if not name or Path(name).name != name:
        yield {"data.dataset_name"}, f"data.dataset_name '{name}' must be a plain name, without folders"
