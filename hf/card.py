"""The model card of an export: README.md with the Hub's metadata, and the picture of the losses.

It says only what the checkpoint holds; what was not recorded has no line.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jojo.checkpoints.checkpoint import Checkpoint
from jojo.metrics import MetricsTracker
from jojo.plotting import choose_losses, finite, picture, save_figure
from jojo.text.tokenizer import Tokenizer
from model import GPT
from utils import UserError, duration, one_line

Row = tuple[str, str]  # of a table: what, and its value

CHAT_TOKENS = 16  # what the template makes of "Hello", and a little more
HYPERPARAMETERS = {  # as the card calls them
    "optimizer.kind": "optimizer",
    "optimizer.learning_rate": "learning rate",
    "scheduler.min_lr": "final learning rate",
    "scheduler.kind": "schedule",
    "scheduler.warmup_iters": "warm-up batches",
    "optimizer.weight_decay": "weight decay",
    "optimizer.beta1": "beta1",
    "optimizer.beta2": "beta2",
    "optimizer.grad_clip": "gradient clipping",
    "training.batch_size": "sequences per micro-batch",
    "training.gradient_accumulation_steps": "micro-batches per batch",
    "system.dtype": "precision",
    "system.seed": "seed",
}


@dataclass(frozen=True)
class CardRequest:
    """What the user said about the model.

    repo_id: its name on the Hub, with the owner where that is known.
    dataset: what it was trained on.
    license: an identifier of the Hub's list.
    language: an ISO 639-1 code.
    """

    repo_id: str
    dataset: str
    license: str = "mit"
    language: str = "en"

    def __post_init__(self) -> None:
        """Raises UserError for what the Hub would not take."""
        for what, value, pattern, looks in (
            ("--dataset", self.dataset, r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", "'fairytales' or 'owner/fairytales'"),
            ("--license", self.license, r"[a-z0-9][a-z0-9.-]*", "'mit' or 'cc-by-4.0', in small letters"),
            ("--language", self.language, r"[a-z]{2,3}(-[A-Za-z]+)?", "'en', in small letters"),
        ):
            if not re.fullmatch(pattern, value, re.ASCII) or len(value) > 96:
                raise UserError(f"{what} '{one_line(value, 40)}' is no name for the Hub; one looks like {looks}.")

    @property
    def title(self) -> str:
        return self.repo_id.split("/")[-1]


def write_card(checkpoint: Checkpoint, model: GPT, tokenizer: Tokenizer, request: CardRequest, folder: Path) -> None:
    """Write README.md, and loss.png where there are losses to draw."""
    if checkpoint.version == "3" and not checkpoint.has_training_state:
        checkpoint = dataclasses.replace(checkpoint, state={})  # whatever else is in such a file was never checked
    metrics = recorded(checkpoint)
    losses = choose_losses(metrics)
    has_picture = bool(losses.train or losses.val)
    if has_picture:
        save_figure(picture(request.title, losses, metrics.learning_rate.points), folder / "loss.png")
    text = card(checkpoint, model, tokenizer, request, metrics, has_picture)
    (folder / "README.md").write_text(text, encoding="utf-8", newline="\n")


def facts_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """When, with what and from what the checkpoint was made, as far as it says."""
    facts = checkpoint.state.get("metadata")
    return facts if isinstance(facts, dict) else {}


def trained_here(checkpoint: Checkpoint) -> bool:
    """Whether the checkpoint says that Jojo trained it."""
    return checkpoint.version == "1" or bool(facts_of(checkpoint).get("trainer_version"))


def base_model(checkpoint: Checkpoint) -> str | None:
    """The model on the Hub that training started from (--init_from), where it was one."""
    name = facts_of(checkpoint).get("init_from")
    return name if isinstance(name, str) and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name, re.ASCII) else None


def recorded(checkpoint: Checkpoint) -> MetricsTracker:
    """The metrics in a checkpoint; empty where it holds none."""
    metrics = MetricsTracker()
    if "metrics" in checkpoint.state:
        metrics.load_state_dict(checkpoint.state)
    return metrics


def card(
    checkpoint: Checkpoint,
    model: GPT,
    tokenizer: Tokenizer,
    request: CardRequest,
    metrics: MetricsTracker,
    has_picture: bool,
) -> str:
    """The whole of README.md."""
    results = evaluation(checkpoint, metrics)
    sections = [
        f"# {request.title}",
        f"A GPT-2-class language model, trained on {request.dataset}{' with Jojo' if trained_here(checkpoint) else ''}.",
        "## Architecture",
        table(architecture(model, tokenizer)),
    ]
    for title, rows in (
        ("Training", training(checkpoint, metrics, request)),
        ("Hyperparameters", hyperparameters(checkpoint)),
        ("Evaluation", [row for row in results.rows if row[1]]),
    ):
        if rows:
            sections += [f"## {title}", table(rows)]
    if has_picture:
        sections.append("![Training and validation loss](loss.png)")
    sections += [
        *usage(model, tokenizer, request, trained_here(checkpoint)),
        *limits(model, tokenizer, request),
        *citation(checkpoint, request),
    ]
    return f"---\n{metadata(request, results, base_model(checkpoint))}---\n\n" + "\n\n".join(sections) + "\n"


# --- facts ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Results:
    """What is known of the model's quality: as a table, and as the Hub's metadata has it (type, name, value)."""

    rows: list[Row]
    figures: list[tuple[str, str, float]]


def evaluation(checkpoint: Checkpoint, metrics: MetricsTracker) -> Results:
    """The last evaluation, with the batch it was made after; without one, the best validation loss."""
    done = checkpoint.state.get("batch_counter")
    rows: list[Row] = []
    figures: list[tuple[str, str, float]] = []
    last = finite(metrics.val_loss_eval)[-1:]
    if last:
        step, loss = last[0]
        when = f" (after batch {step:,} of {done:,})" if done and step != done else ""
        names = f"validation loss{when}", f"validation perplexity{when}"
    elif math.isfinite(metrics.val.best):
        loss = metrics.val.best
        names = "best validation loss", "best validation perplexity"
    else:
        return Results(rows, figures)
    figures.append(("loss", names[0], round(loss, 4)))
    rows.append((names[0], f"{loss:.4f} nats per token"))
    if loss < 50:
        figures.append(("perplexity", names[1], round(math.exp(loss), 4)))
        rows.append((names[1], f"{math.exp(loss):.4f}"))
    if last and (bits := [value for step, value in finite(metrics.bpb) if step == last[0][0]]):
        rows.append((f"bits per byte of the validation text{when}", f"{bits[-1]:.4f}"))
    if last and math.isfinite(metrics.val.best):
        rows.append(("best validation loss of the run", f"{metrics.val.best:.4f} nats per token"))
    return Results(rows, figures)


def architecture(model: GPT, tokenizer: Tokenizer) -> list[Row]:
    """The shape, counted without the embedding rows that are cut off."""
    shape = model.config
    vocabulary = ("GPT-2" if tokenizer.is_gpt2 else "its own") + (" and ChatML" if tokenizer.has_chatml else "")
    parameters = model.n_parameters() - (len(model.lm_head.weight) - tokenizer.n_vocab) * shape.n_embd
    return [
        ("parameters", f"{parameters:,}"),
        ("layers", f"{shape.n_layer:,}"),
        ("heads", f"{shape.n_head:,}"),
        ("width", f"{shape.n_embd:,}"),
        ("context", f"{shape.block_size:,} tokens"),
        ("vocabulary", f"{tokenizer.n_vocab:,} tokens ({vocabulary})"),
        ("biases", "yes" if shape.bias else "none (stored as zeros)"),
        ("dropout in training", f"{shape.dropout:g}"),
    ]


def training(checkpoint: Checkpoint, metrics: MetricsTracker, request: CardRequest) -> list[Row]:
    """How far and on what it was trained."""
    state, config = checkpoint.state, checkpoint.config
    facts = facts_of(checkpoint)
    machine = facts.get("machine") if isinstance(facts.get("machine"), dict) else {}
    machine = machine or {}
    sizes = [config.get("training", {}).get(k) for k in ("batch_size", "gradient_accumulation_steps")]
    sizes.append(config.get("model", {}).get("block_size"))
    counts = [n for n in sizes if type(n) is int]
    per_batch = math.prod(counts) if len(counts) == len(sizes) else None
    rows = [
        ("data set", request.dataset),
        ("batches", number(state.get("batch_counter"))),
        ("tokens per batch", number(per_batch)),
        ("tokens predicted", number(metrics.tokens)),
        ("time", duration(metrics.elapsed_s) if metrics.elapsed_s else ""),
        ("device", text(" ".join(str(machine[k]) for k in ("device", "name") if machine.get(k)))),
        ("saved", text(facts.get("timestamp"))),
        ("Jojo", text(facts.get("trainer_version"))),
        ("PyTorch", text(facts.get("pytorch_version"))),
        ("commit", text(facts.get("git_commit"))),
    ]
    return [row for row in rows if row[1]]


def hyperparameters(checkpoint: Checkpoint) -> list[Row]:
    """Options that the checkpoint recorded and that decide what was learned."""
    rows = []
    for name, title in HYPERPARAMETERS.items():
        section, key = name.split(".")
        value = checkpoint.config.get(section, {}).get(key)
        if value is not None and not (name == "system.dtype" and value == "auto"):
            rows.append((title, f"{value:g}" if isinstance(value, float) else text(value)))
    return rows


def number(value: Any) -> str:
    """A count with separators; nothing for none."""
    return f"{value:,}" if type(value) is int and value > 0 else ""


def text(value: Any) -> str:
    """Something from the file as a table's cell: one line, and nothing that Markdown or HTML would read."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", one_line(str(value))) if value not in (None, "") else ""


def table(rows: Iterable[Row]) -> str:
    """A Markdown table of two columns."""
    return "\n".join(["| | |", "| --- | --- |", *(f"| {what} | {value} |" for what, value in rows)])


# --- the Hub's metadata ---------------------------------------------------------------------------------------------


def metadata(request: CardRequest, results: Results, base_model: str | None) -> str:
    """The card's YAML, made and checked by huggingface_hub."""
    from huggingface_hub import EvalResult, ModelCardData

    common: Mapping[str, Any] = {
        "task_type": "text-generation",
        "dataset_type": request.dataset,
        "dataset_name": request.dataset,
        "dataset_split": "validation",
    }
    evaluations = [
        EvalResult(**common, metric_type=kind, metric_name=name, metric_value=value)
        for kind, name, value in results.figures
    ]
    known: dict[str, Any] = {
        "license": request.license,
        "language": request.language,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["gpt2", "jojo"],
        "datasets": [request.dataset],
    }
    if base_model:
        known["base_model"] = base_model
    if evaluations:
        known |= {"model_name": request.title, "eval_results": evaluations}
    return ModelCardData(**known).to_yaml() + "\n"


# --- text -----------------------------------------------------------------------------------------------------------


def usage(model: GPT, tokenizer: Tokenizer, request: CardRequest, trained: bool) -> list[str]:
    """How to load it, from Transformers and from Jojo."""
    room = min(100, model.config.block_size // 2)
    why = "  # every document followed this token in training" if trained else ""
    lines = [
        "from transformers import pipeline",
        "",
        f'generator = pipeline("text-generation", "{request.repo_id}")',
        f'text = "<|endoftext|>Once upon a time"{why}',
        f'print(generator(text, max_new_tokens={room}, do_sample=True, temperature=0.7, top_k=50)[0]["generated_text"])',
    ]
    jojo = [f'python gen.py FOLDER --prompt "Once upon a time"     # FOLDER: a copy of {request.repo_id}']
    if tokenizer.has_chatml and room >= CHAT_TOKENS:
        lines += [
            "",
            'messages = [{"role": "user", "content": "Hello"}]  # of use if it was trained on conversations',
            f'print(generator(messages, max_new_tokens={room})[0]["generated_text"][-1]["content"])',
        ]
        jojo.append("python gen.py FOLDER --chat")
    jojo.append(f"python train.py --init_from {request.repo_id} --dataset mine")
    return [
        "## Use",
        "With Transformers:",
        "```python\n" + "\n".join(lines) + "\n```",
        "With Jojo:",
        "```\n" + "\n".join(jojo) + "\n```",
    ]


def limits(model: GPT, tokenizer: Tokenizer, request: CardRequest) -> list[str]:
    """What not to expect."""
    said = [
        f"It knows little beyond the text it was trained on ({request.dataset}), and repeats its slant and its errors.",
        "What it writes is likely text, not true text; it was not tuned to be safe or helpful.",
        f"It looks back {model.config.block_size:,} tokens at most.",
    ]
    if tokenizer.has_chatml:
        said.append(
            "The tokenizer reads `<|im_start|>`, `<|im_end|>` and `<|endoftext|>` in any text as control tokens, as "
            "Transformers always does; `split_special_tokens=True` leaves them text."
        )
    return ["## Limits", "\n".join(f"- {line}" for line in said)]


def citation(checkpoint: Checkpoint, request: CardRequest) -> list[str]:
    """This model, and where its architecture comes from."""
    stamp = facts_of(checkpoint).get("timestamp")
    year = re.match(r"(20\d\d)-", stamp) if isinstance(stamp, str) else None
    entry = [
        f"@misc{{{re.sub(r'[^A-Za-z0-9]', '', request.title) or 'model'},",
        f"  title = {{{request.title}: a GPT-2-class language model}},",
        *([f"  year = {{{year[1]}}},"] if year else []),
        *([f"  howpublished = {{https://huggingface.co/{request.repo_id}}},"] if "/" in request.repo_id else []),
        *(["  note = {Trained with Jojo}"] if trained_here(checkpoint) else []),
        "}",
    ]
    return [
        "## Citation",
        "```bibtex\n" + "\n".join(entry) + "\n```",
        "The architecture is GPT-2's: Radford, Wu, Child, Luan, Amodei and Sutskever (2019), "
        "*Language Models are Unsupervised Multitask Learners*.",
    ]
