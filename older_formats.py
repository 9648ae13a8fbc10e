"""Training state of older checkpoints, in the terms of this version: Jojo 1 and 2.x, and nanoGPT.

Taken over where the file has it: optimizer state, how many batches were done, evaluations, best and worst losses. No older
format holds the place in the data or the random states; training goes on at the beginning of an epoch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from config import OPTIONS, Values

OTHER_NAMES = {"dataset": "data.dataset_name"}  # what v1 and nanoGPT call otherwise
OTHER_MEANING = ("eval_interval", "log_interval")  # v1 counted them in per cent of an epoch


def flat_config(values: Any) -> Values:
    """The options in a flat config of v1 or nanoGPT; its other names (colours, paths) are left out."""
    sections: Values = {}
    names = {name.split(".")[1]: name for name in OPTIONS if not name.startswith("model.")}
    for key, value in values.items() if isinstance(values, dict) else ():
        name = OTHER_NAMES.get(key) or names.get(key)
        if name and key not in OTHER_MEANING and isinstance(value, OPTIONS[name].type):
            section, option = name.split(".")
            sections.setdefault(section, {})[option] = value
    return sections


def optimizer_by_name(stored: Any, weights: Mapping[str, Tensor]) -> dict[str, dict[str, Any]] | None:
    """AdamW's state by parameter name. Older formats number the parameters: matrices first, then vectors.

    Args:
        stored: the optimizer's state_dict as the file has it.
        weights: by plain name, in the model's order.

    Returns:
        None where there is no state, or it does not fit the weights.
    """
    states = stored.get("state") if isinstance(stored, dict) else None
    if not isinstance(states, dict) or not states:
        return None
    own = [name for name in weights if name != "lm_head.weight"]  # tied to the embedding, so it has no state of its own
    names = [n for n in own if weights[n].dim() >= 2] + [n for n in own if weights[n].dim() < 2]
    if set(states) != set(range(len(names))):
        return None
    by_name = {name: states[number] for number, name in enumerate(names)}
    for name, values in by_name.items():
        if not isinstance(values, dict) or set(values) != {"step", "exp_avg", "exp_avg_sq"}:
            return None
        if any(
            not isinstance(values[key], Tensor) or values[key].shape != weights[name].shape
            for key in ("exp_avg", "exp_avg_sq")
        ):
            return None
    return by_name


def training_state(state: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """What `Trainer.load_state_dict` takes over from an older file; None where it holds no optimizer state."""
    optimizer = optimizer_by_name(state.get("optimizer"), weights)
    if optimizer is None:
        return None
    batches = max(int(_number(values["step"], 0)) for values in optimizer.values())
    metrics = state.get("metrics")
    series = metrics if isinstance(metrics, dict) else {}
    epoch = state.get("epoch")
    return {
        "optimizer": optimizer,
        "loader": {"epoch": (epoch if isinstance(epoch, int) else 0) + 1, "position": 0},
        "batch_counter": batches,
        "skipped_updates": 0,
        "best_val_loss": _number(state.get("best_val_loss"), math.inf),
        "worst_val_loss": _number(state.get("worst_val_loss"), -math.inf),
        "best_train_loss": _number(state.get("best_train_loss"), math.inf),
        "worst_train_loss": _number(state.get("worst_train_loss"), -math.inf),
        "metrics": {
            "train_loss_batch": _points(series.get("train_loss_batch")),
            "learning_rate": _points(series.get("learning_rate")),
            "train_loss_eval": _points(series.get("train_loss_eval")),
            "val_loss_eval": _points(series.get("val_loss_eval")),
            "bpb": [],
            "stride": 1,
            "elapsed_s": 0.0,
            "tokens": 0,
        },
    }


def _number(value: Any, otherwise: float) -> float:
    """A stored number, which may be a tensor; as a loss, nanoGPT starts with 1e9 for "none yet"."""
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        return otherwise
    return number if math.isfinite(number) and abs(number) < 1e8 else otherwise


def _points(values: Any) -> list[tuple[int, float]]:
    """(batch, value) pairs; anything else is left out."""
    pairs: Iterable[Any] = values if isinstance(values, (list, tuple)) else ()
    return [
        (int(pair[0]), float(pair[1]))
        for pair in pairs
        if isinstance(pair, (list, tuple)) and len(pair) == 2 and all(isinstance(v, (int, float)) for v in pair)
    ]
