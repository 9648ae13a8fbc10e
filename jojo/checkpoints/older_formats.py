"""Converts the training state of older checkpoints to this version's: Jojo 1 and 2.x, and nanoGPT.

If the file has them, it keeps optimizer state, batches done, evaluations, best and worst losses, the time and the versions.
No older format holds the position in the data or the random states, so training continues at the beginning of an epoch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from config import OPTIONS, Values, check_value
from jojo.checkpoints.shards import TIED
from jojo.optim import AdamW
from utils import one_line

OTHER_NAMES = {"dataset": "data.dataset_name", "compile": "training.compile_model"}  # of options in v1 and nanoGPT
PER_CENT = ("eval_interval", "log_interval")


def flat_config(values: Any, per_cent: bool = True) -> Values:
    """The options in a flat config of v1 or nanoGPT; other names (colours, paths) are left out.

    `per_cent`: the config is v1's. Its intervals are in per cent of an epoch, and are left out too.
    """
    sections: Values = {}
    names = OTHER_NAMES | {name.split(".")[1]: name for name in OPTIONS if not name.startswith("model.")}
    for key, name in names.items():  # `dataset` first: in v1 it is a folder, and dataset_name overrides it
        if isinstance(values, dict) and key in values and not (per_cent and key in PER_CENT):
            _take(sections, name, values[key])
    return sections


def nested_config(values: Mapping[str, Any]) -> tuple[Values, list[str]]:
    """The options in a nested config that exist here, and the names of those that do not."""
    sections: Values = {}
    other = []
    for section, entries in values.items():
        for key, value in entries.items() if isinstance(entries, dict) else ():
            if not _take(sections, f"{section}.{key}", value):
                other.append(one_line(f"{section}.{key}"))
    return sections, other


def _take(sections: Values, name: str, value: Any) -> bool:
    """Add an option if it exists and its value is valid; model options are checked later. Returns whether it was added."""
    if name not in OPTIONS:
        return False
    section, option = name.split(".")
    taken, problem = check_value(OPTIONS[name], value)
    if problem and section != "model":
        return False
    sections.setdefault(section, {})[option] = value if problem else taken
    return True


def optimizer_by_name(stored: Any, weights: Mapping[str, Tensor]) -> dict[str, dict[str, Any]] | None:
    """AdamW's state by parameter name. Older formats number the parameters: matrices first, then vectors.

    `stored` is the optimizer's state_dict. Returns None if there is no state, or if it does not fit the weights.
    """
    states = stored.get("state") if isinstance(stored, dict) else None
    own = [name for name in weights if name not in TIED]  # tied weights have no state of their own
    names = [n for n in own if weights[n].dim() >= 2] + [n for n in own if weights[n].dim() < 2]
    if not isinstance(states, dict) or not states or set(states) != set(range(len(names))):
        return None
    by_name = {}
    for number, name in enumerate(names):
        values = states[number] if isinstance(states[number], dict) else {}
        averages: dict[str, Any] = {key: values.get(key) for key in AdamW.STATE if key != "step"}
        if any(not isinstance(a, Tensor) or a.shape != weights[name].shape for a in averages.values()):
            return None
        steps = max(0.0, _number(values.get("step"), 0))  # a plain number before torch 1.12
        by_name[name] = {"step": torch.tensor(steps)} | {key: a.float() for key, a in averages.items()}
    return by_name


def training_state(state: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """An older file's state for `Trainer.load_state_dict`; without "optimizer" if the file has no optimizer state."""
    optimizer = optimizer_by_name(state.get("optimizer"), weights)
    batches = max(int(values["step"]) for values in optimizer.values()) if optimizer else 0
    metrics, metadata = state.get("metrics"), state.get("metadata")
    series = metrics if isinstance(metrics, dict) else {}
    origin = metadata if isinstance(metadata, dict) else state  # Jojo 1 has its timestamp at the top level
    names = ("timestamp", "trainer_version", "pytorch_version", "git_commit")
    losses = {
        **{f"best_{split}_loss": _number(state.get(f"best_{split}_loss"), math.inf) for split in ("train", "val")},
        **{f"worst_{split}_loss": _number(state.get(f"worst_{split}_loss"), -math.inf) for split in ("train", "val")},
        "metrics": {
            **{name: _points(series.get(name)) for name in ("train_loss_batch", "learning_rate")},
            **{f"{split}_loss_eval": _evaluations(series, split, batches) for split in ("train", "val")},
            "bpb": [],
            "stride": 1,
            "elapsed_s": 0.0,
            "tokens": 0,
        },
        "metadata": {name: one_line(str(origin[name])) for name in names if isinstance(origin.get(name), str)},
    }
    if optimizer is None:
        return losses
    epoch = state.get("epoch")
    epoch = epoch if type(epoch) is int and 0 <= epoch < 2**31 else 0
    loader = {"epoch": epoch + 1, "position": 0}
    return losses | {"optimizer": optimizer, "loader": loader, "batch_counter": batches, "skipped_updates": 0}


def _evaluations(series: Mapping[str, Any], split: str, batches: int) -> list[tuple[int, float]]:
    """Losses of evaluations. If the file has losses by epoch only, each is put at its epoch's last batch."""
    if points := _points(series.get(f"{split}_loss_eval")):
        return points
    epochs = _points(series.get(f"{split}_loss_epoch"))
    return [(batches * (epoch + 1) // (epochs[-1][0] + 1), loss) for epoch, loss in epochs]


def _number(value: Any, default: float) -> float:
    """A stored number, which may be a tensor; nanoGPT's 1e9 means that there was no loss yet."""
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return default
    return number if math.isfinite(number) and abs(number) < 1e8 else default


def _points(values: Any) -> list[tuple[int, float]]:
    """(batch, value) pairs; anything else is left out."""
    sequence = (list, tuple)
    pairs = [p for p in values if isinstance(p, sequence) and len(p) == 2] if isinstance(values, sequence) else []
    pairs = [p for p in pairs if all(isinstance(number, (int, float)) and abs(number) < 1e15 for number in p)]
    return [(int(batch), float(value)) for batch, value in pairs if batch >= 0]
