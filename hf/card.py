"""The model card of an export: hf/card.md filled in with what the checkpoint holds, and the plot of the losses.

A fact that the checkpoint does not hold has no line in the card.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf.families import FAMILIES
from hf.folder import GGUF_FILE
from jojo.checkpoints.checkpoint import Checkpoint
from jojo.facts import Row, how_trained, hyperparameters, last_evaluation
from jojo.metrics import MetricsTracker
from jojo.networks import formulas
from jojo.plotting import choose_losses, plot_run, save_figure
from jojo.text.tokenizer import Tokenizer
from model import GPT
from utils import one_line

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

MIN_CHAT_TOKENS = 16  # ChatML around "Hello", and a short answer


@dataclass(frozen=True)
class CardRequest:
    """What the user says about the model."""

    repo_id: str  # its name on the Hub, with the owner if that is known
    dataset: str  # what it was trained on
    license: str = "mit"  # from the Hub's list
    language: str = "en"  # ISO 639-1 code
    has_gguf: bool = False  # the folder also has a GGUF file


def write_card(checkpoint: Checkpoint, model: GPT, tokenizer: Tokenizer, request: CardRequest, folder: Path) -> None:
    """Write README.md, and loss.png if there are losses to draw."""
    from huggingface_hub import ModelCard

    # In a file of format 3 without a training state, nothing has checked the other keys, so the card ignores them.
    state = checkpoint.state if checkpoint.has_training_state or checkpoint.version != "3" else {}
    metadata = state.get("metadata", {})
    title = request.repo_id.split("/")[-1]
    metrics = MetricsTracker()
    if "metrics" in state:
        metrics.load_state_dict(state)
    losses = choose_losses(metrics)
    has_plot = bool(losses.train or losses.val)
    if has_plot:
        save_figure(plot_run(title, losses, metrics.learning_rate.points), folder / "loss.png")
    evaluation, figures = last_evaluation(state.get("batch_counter"), metrics)
    room = min(100, model.config.block_size // 2)
    card = ModelCard.from_template(
        hub_metadata(request, title, figures, metadata.get("base_model"), model.config.architecture),
        template_path=str(Path(__file__).with_name("card.md")),
        title=title,
        repo_id=request.repo_id,
        dataset=request.dataset,
        architecture=architecture(model, tokenizer),
        paper=FAMILIES[model.config.architecture].paper,
        training=cells(how_trained(checkpoint.config, state, metrics, request.dataset)),
        hyperparameters=cells(hyperparameters(checkpoint.config)),
        evaluation=evaluation,
        has_plot=has_plot,
        gguf_file=GGUF_FILE if request.has_gguf else None,
        trained_here=checkpoint.version == "1" or bool(metadata.get("trainer_version")),
        context=f"{model.config.block_size:,}",
        room=room,
        has_chatml=tokenizer.has_chatml,
        can_chat=tokenizer.has_chatml and room >= MIN_CHAT_TOKENS,
        key=re.sub(r"[^A-Za-z0-9]", "", title) or "model",
        year=(re.match(r"20\d\d(?=-)", str(metadata.get("timestamp"))) or [""])[0],
    )
    (folder / "README.md").write_text(str(card).rstrip() + "\n", encoding="utf-8", newline="\n")


def hub_metadata(
    request: CardRequest, title: str, figures: dict[str, Row], base_model: Any, family: str
) -> ModelCardData:
    """The card's header for the Hub."""
    from huggingface_hub import EvalResult, ModelCardData

    data: Any = {"dataset_type": request.dataset, "dataset_name": request.dataset, "dataset_split": "validation"}
    results = [
        EvalResult("text-generation", metric_type=kind, metric_name=name, metric_value=float(value), **data)
        for kind, (name, value) in figures.items()
    ]
    is_name = isinstance(base_model, str) and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", base_model, re.ASCII)
    return ModelCardData(
        license=request.license,
        language=request.language,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=[family, "jojo"],
        datasets=[request.dataset],
        base_model=base_model if is_name else None,
        model_name=title if results else None,
        eval_results=results or None,
    )


def architecture(model: GPT, tokenizer: Tokenizer) -> list[Row]:
    """The shape, without the embedding rows that the export cuts off."""
    shape = model.config
    vocabulary = ("GPT-2" if tokenizer.is_gpt2 else "its own") + (" and ChatML" if tokenizer.has_chatml else "")
    matrices = 1 if shape.tie_embeddings else 2  # with a row per token
    cut_off = matrices * (len(model.lm_head.weight) - tokenizer.n_vocab) * shape.n_embd
    return [
        ("architecture", FAMILIES[shape.architecture].architecture),
        ("parameters", f"{formulas(shape).n_parameters - cut_off:,}"),
        ("layers", f"{shape.n_layer:,}"),
        ("heads", f"{shape.n_head:,}" + (f", {kv:,} of keys and values" if (kv := shape.n_kv_head) else "")),
        ("width", f"{shape.n_embd:,}"),
        ("context", f"{shape.block_size:,} tokens"),
        ("vocabulary", f"{tokenizer.n_vocab:,} tokens ({vocabulary})"),
        ("biases", "yes" if shape.bias else "none" + (" (stored as zeros)" if shape.architecture == "gpt2" else "")),
        ("dropout in training", f"{shape.dropout:g}"),
    ]


def cells(rows: list[Row]) -> list[Row]:
    """Rows for a table in Markdown: each value on one line, with the special characters of Markdown and HTML escaped."""
    return [(name, re.sub(r"([\\`*_\[\]<>|])", r"\\\1", one_line(value))) for name, value in rows]
