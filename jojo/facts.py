"""What is known of a trained model, as rows of a table; hf/card.py and training/report.py show them.

A fact that is not recorded has no row. Texts come as they are recorded: whoever shows a row escapes it.
"""

from __future__ import annotations

import math
from typing import Any

from jojo.metrics import MetricsTracker
from jojo.plotting import finite
from utils import duration

Row = tuple[str, str]  # name and value

HYPERPARAMETERS = {  # option -> its name in the table
    "optimizer.kind": "optimizer", "optimizer.learning_rate": "learning rate", "scheduler.min_lr": "final learning rate",
    "scheduler.kind": "schedule", "scheduler.warmup_iters": "warm-up batches", "optimizer.weight_decay": "weight decay",
    "optimizer.beta1": "beta1", "optimizer.beta2": "beta2", "optimizer.grad_clip": "gradient clipping",
    "training.batch_size": "sequences per micro-batch", "training.gradient_accumulation_steps": "micro-batches per batch",
    "training.ema": "moving average of the weights", "system.dtype": "precision", "system.seed": "seed",
}  # fmt: skip


def last_evaluation(batches: int | None, metrics: MetricsTracker) -> tuple[list[Row], dict[str, Row]]:
    """The last evaluation, or the best loss if none is recorded: as a table, and by the Hub's metric types."""
    evaluations, best = finite(metrics.val_loss_eval), metrics.val.best
    if not evaluations and not math.isfinite(best):
        return [], {}
    step, loss = evaluations[-1] if evaluations else (0, best)
    prefix = "" if evaluations else "best "
    when = f" (after batch {step:,} of {batches:,})" if evaluations and batches not in (None, step) else ""
    figures = {"loss": (f"{prefix}validation loss{when}", f"{loss:.4f}")}
    if loss < 50:
        figures["perplexity"] = (f"{prefix}validation perplexity{when}", f"{math.exp(loss):.4f}")
    rows = [(name, f"{value} nats per token" if kind == "loss" else value) for kind, (name, value) in figures.items()]
    rows += [(f"bits per byte of the validation text{when}", f"{b:.4f}") for at, b in finite(metrics.bpb) if at == step]
    if evaluations and math.isfinite(best):
        rows.append(("best validation loss of the run", f"{best:.4f} nats per token"))
    return rows, figures


def how_trained(config: dict[str, Any], state: dict[str, Any], metrics: MetricsTracker, dataset: str) -> list[Row]:
    """How long, on which data and on which machine the model was trained. `state`: the contents of a checkpoint."""
    metadata = state.get("metadata", {})
    machine = metadata.get("machine", {})
    options = config.get("training", {}) | config.get("model", {})
    sizes = [options.get(key) for key in ("batch_size", "gradient_accumulation_steps", "block_size")]
    rows: list[tuple[str, Any]] = [
        ("data set", dataset),
        ("batches", state.get("batch_counter")),
        ("tokens per batch", math.prod(sizes) if all(type(size) is int for size in sizes) else None),
        ("tokens predicted", metrics.tokens),
        ("time", duration(metrics.elapsed_s) if metrics.elapsed_s else ""),
        ("device", " ".join(machine[key] for key in ("device", "name") if machine.get(key))),
        ("saved", metadata.get("timestamp")),
        ("Jojo", metadata.get("trainer_version")),
        ("PyTorch", metadata.get("pytorch_version")),
        ("commit", metadata.get("git_commit")),
    ]
    return [(name, f"{value:,}" if isinstance(value, int) else str(value)) for name, value in rows if value]


def hyperparameters(config: dict[str, Any]) -> list[Row]:
    """The recorded options that decide what a model learns."""
    flat = {f"{section}.{key}": value for section, options in config.items() for key, value in options.items()}
    rows = [(name, flat.get(option)) for option, name in HYPERPARAMETERS.items()]
    return [(n, f"{v:g}" if isinstance(v, float) else str(v)) for n, v in rows if v not in (None, "auto")]
