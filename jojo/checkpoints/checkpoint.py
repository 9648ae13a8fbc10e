"""A checkpoint of any version, converted to this one: weights, config, tokenizer, training state.

file.py reads and writes the file. Older formats are read too: v1 (`model_args`, like nanoGPT's) and 2.x (`config` with a
`model` section).
"""

from __future__ import annotations

import contextlib
import functools
import platform
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from config import OPTIONS, Values
from jojo.checkpoints.file import has_present_format, read_file
from jojo.checkpoints.older_formats import flat_config, nested_config, training_state
from jojo.checkpoints.shards import Shards
from jojo.machine.ranks import SINGLE, Ranks
from jojo.text.tokenizer import Tokenizer, from_definition
from utils import UserError, __version__, one_line

NO_NAME = re.compile(r"[\0\ud800-\udc7f\udd00-\udfff]")  # in no file name; os.fsdecode gives U+DC80-DCFF for odd bytes
FITS: dict[str, Callable[[Any], bool]] = {  # whether a value is of this kind
    "dict": lambda v: isinstance(v, dict),
    "tensor": lambda v: isinstance(v, Tensor),
    "count": lambda v: type(v) is int and 0 <= v < 2**62,
    "positive": lambda v: FITS["count"](v) and v > 0,
    "number": lambda v: type(v) is float or (type(v) is int and abs(v) < 2**62),
    "seconds": lambda v: FITS["number"](v) and 0 <= v < 1e12,
    "point": lambda v: isinstance(v, tuple) and len(v) == 2 and FITS["count"](v[0]) and FITS["number"](v[1]),
    "points": lambda v: isinstance(v, list) and all(map(FITS["point"], v)),
    "names": lambda v: isinstance(v, list) and all(isinstance(name, str) for name in v),
    "line": lambda v: isinstance(v, str) and v.isprintable() and len(v) < 200,
    "file name": lambda v: isinstance(v, str) and len(v) < 256 and not NO_NAME.search(v) and Path(v).name == v,
}
ALWAYS: dict[str, Any] = {"config": "dict", "tokenizer": "dict"}  # every file of format 3 has these and the weights
LAYOUT: dict[str, Any] = ALWAYS | {  # needed to continue training; docs/checkpoints.md explains each key
    "derived": "names",
    "optimizer": "dict",
    "lr_scheduler": {"schedule": "dict", "total_batches": "count"},
    "scaler": "dict",
    "rng": {"torch": "tensor"},
    "loader": {"epoch": "count", "position": "count"},
    "batch_counter": "count",
    "skipped_updates": "count",
    **dict.fromkeys(("best_val_loss", "worst_val_loss", "best_train_loss", "worst_train_loss"), "number"),
    "metrics": {
        **dict.fromkeys(("train_loss_batch", "learning_rate", "train_loss_eval", "val_loss_eval", "bpb"), "points"),
        "stride": "positive",
        "elapsed_s": "seconds",
        "tokens": "count",
    },
    "metadata": {
        "run": "file name",
        "run_id": "file name",
        "dataset": dict.fromkeys(("name", "train", "val"), "file name"),
        "machine": dict.fromkeys(("device", "name", "pytorch"), "line") | {"threads": "count"},
    },
}
# Weights whose shapes give fields of ModelConfig; a test compares them with the formulas in model.py.
SIZES = {"transformer.wte.weight": ("vocab_size", "n_embd"), "transformer.wpe.weight": ("block_size", "n_embd")}
MASKS = (".attn.bias", ".attn.masked_bias")  # causal masks that nanoGPT and GPT-2 stored among the weights
PREFIXES = re.compile(r"^((_orig_mod|module)\.)+")  # left in names by torch.compile and data parallelism


@dataclass
class Checkpoint:
    """A checkpoint of any format, converted to the current one."""

    path: Path
    version: str  # "3", "2.x", "1" or "nanoGPT"
    model: dict[str, Tensor]
    config: Values  # nested, as in a JSON file; only options that this version knows
    tokenizer: dict[str, Any] | None  # None: an older format; see checkpoint_tokenizer
    state: dict[str, Any] = field(repr=False)  # the file's contents; for an older format, a training state made from it
    other_options: list[str] = field(default_factory=list)  # options in the file that this version does not know
    shards: Shards | None = None  # files of the large tensors that are still on the device "meta"

    @property
    def has_training_state(self) -> bool:
        """Whether training can continue from it: bit for bit from format 3, approximately from older formats."""
        return "optimizer" in self.state

    @property
    def run_id(self) -> str | None:
        """The id of the run that wrote it; None if the file does not say."""
        return self.state.get("metadata", {}).get("run_id")

    def complete(self) -> None:
        """Read the large tensors that are still in shards."""
        if self.shards:
            if any(weight.is_meta for weight in self.model.values()):
                self.shards.fill(self.state, "model", whole=True)
                self.model = dict(self.state["model"])
            self.shards.fill(self.state, "optimizer", whole=True)
            self.shards = None

    def release(self) -> None:
        """Free the tensors of model and optimizer once they are loaded: a run needs the memory."""
        self.model = {}
        self.state = {name: part for name, part in self.state.items() if name not in ("model", "optimizer")}


def load_checkpoint(path: Path, ranks: Ranks = SINGLE) -> Checkpoint:
    """Read a checkpoint of any version. Raises UserError if the file is not one or contradicts itself.

    If it has shards, `complete()` must be called to read the optimizer's tensors and, with several ranks, the weights. The
    ranks share the work of verifying the shards.
    """
    state = read_file(path, mapped=not ranks.is_single)
    if "format_version" in state and not has_present_format(state):
        newer = one_line(state["format_version"])
        raise UserError(f"'{path}' has format {newer}, newer than this version of Jojo reads.")
    weights, shards = state.get("model"), None
    if not isinstance(weights, dict):
        there = ", ".join(map(one_line, state)) or "nothing"
        raise UserError(f"'{path}' is not a checkpoint. Missing 'model' (it has: {there}).")
    if not all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in weights.items()):
        raise UserError(f"'{path}' is not a checkpoint: its 'model' holds something other than named tensors.")
    if "shards" in state and has_present_format(state) and isinstance(state.get("optimizer"), dict):
        shards = Shards.listed_in(path, state.pop("shards"))
        shards.verify(ranks)
        shards.fill(state, "model", whole=ranks.is_single)
        shards.fill(state, "optimizer", whole=False)
    weights = {PREFIXES.sub("", name): tensor for name, tensor in weights.items() if not name.endswith(MASKS)}
    config = state.get("config")
    if isinstance(config, dict) and isinstance(config.get("model"), dict):
        version = "3" if "format_version" in state else "2.x"
        known, other = nested_config(config)
    elif isinstance(state.get("model_args"), dict):
        version = "nanoGPT" if "iter_num" in state else "1"
        shape = {k: v for k, v in state["model_args"].items() if f"model.{k}" in OPTIONS}
        known, other = {"model": shape} | flat_config(config, version == "1"), []
    else:
        raise UserError(f"'{path}' has an unknown format. Missing 'model_args' or 'config.model'.")
    if version != "3":
        state = training_state(state, weights)
    elif problem := _misfit(state, LAYOUT if "optimizer" in state else ALWAYS):
        raise UserError(f"'{path}' is not a valid checkpoint: {problem}.")
    checkpoint = Checkpoint(path, version, weights, known, state.get("tokenizer"), state, other, shards)
    complete_shape(checkpoint)
    return checkpoint


def _misfit(value: Any, layout: Any, where: str = "") -> str | None:
    """A phrase about the first entry that does not fit the layout; None if all fit."""
    if isinstance(layout, dict) and isinstance(value, dict):
        inside = (_misfit(value.get(key), part, f"{where}.{key}" if where else key) for key, part in layout.items())
        return next(filter(None, inside), None)
    fits = isinstance(layout, str) and FITS[layout](value)
    return None if fits else f"'{where}' is missing or malformed"


def complete_shape(checkpoint: Checkpoint) -> None:
    """Fill in what the config lacks of the model's shape, from the weights. Raises UserError if config and weights differ."""
    model, weights = checkpoint.config.setdefault("model", {}), checkpoint.model
    if "n_head" not in model:
        raise UserError(f"'{checkpoint.path}' does not say how many heads its model has. Missing 'n_head'.")
    model.setdefault("bias", any(name.endswith(".c_attn.bias") for name in weights))
    blocks = {name.split(".")[2] for name in weights if name.startswith("transformer.h.")}
    sizes = [("n_layer", len(blocks))]
    for name in SIZES.keys() & weights.keys():
        sizes += zip(SIZES[name], weights[name].shape, strict=False)
    for key, size in sizes:
        stated = model.get(key)
        if stated is not None and not (type(stated) is int and stated == size):
            config = f"model.{key} is {one_line(stated)}"
            raise UserError(f"'{checkpoint.path}' contradicts itself: {config}, and its weights have {size}.")
        if size:
            model[key] = size


def checkpoint_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """The tokenizer a checkpoint was trained with; older formats used GPT-2's, with ChatML if vocab_size allows."""
    if checkpoint.tokenizer:
        return from_definition(checkpoint.tokenizer, f"The model in '{checkpoint.path}'")
    full = Tokenizer()
    vocab_size = checkpoint.config.get("model", {}).get("vocab_size") or full.padded_vocab_size
    return full if vocab_size >= full.n_vocab else Tokenizer(chatml=False)


def load_weights(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Copy the checkpoint's weights into the model; on the device "meta", only compare names and shapes.

    Raises UserError with the names of weights that are missing, extra or of another shape.
    """
    own = model.state_dict()
    problems = [f"'{name}' is missing" for name in own if name not in checkpoint.model]
    problems += [f"'{one_line(name)}' is not part of this model" for name in checkpoint.model if name not in own]
    problems += [
        f"'{name}' has the shape {tuple(tensor.shape)} instead of {tuple(own[name].shape)}"
        for name, tensor in checkpoint.model.items()
        if name in own and tensor.shape != own[name].shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(f"The weights in '{checkpoint.path}' do not fit: {'; '.join(problems[:3])}{more}.")
    if not any(weight.is_meta for weight in own.values()):
        model.load_state_dict(checkpoint.model)


def check_finite(weights: Mapping[str, Tensor]) -> None:
    """Raises UserError naming the first weight with a NaN or infinity: such a model is never saved."""
    for name, tensor in weights.items():
        if tensor.numel() and not all(end.isfinite() for end in tensor.aminmax()):  # aminmax returns any NaN
            raise UserError(f"The weight '{name}' is not finite; nothing was saved over the last good checkpoint.")


@functools.cache
def git_commit() -> str | None:
    """The git commit of this code; None without git or outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.check_output(command, stderr=subprocess.DEVNULL, text=True, timeout=5).strip()  # noqa: S603
    return None


def machine(device: str) -> dict[str, Any]:
    """What rounding depends on besides the config. A resumed run is exact if these stay the same."""
    kind = device.partition(":")[0]
    name = torch.cuda.get_device_name(device) if kind == "cuda" else platform.machine()
    return {"device": kind, "name": name, "threads": torch.get_num_threads(), "pytorch": str(torch.__version__)}


def metadata(dataset: Mapping[str, str], device: str) -> dict[str, Any]:
    """Versions, time, data set and machine of a checkpoint, as plain values."""
    return {
        "trainer_version": __version__,
        "pytorch_version": str(torch.__version__),
        "git_commit": git_commit(),
        "timestamp": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "dataset": dict(dataset),
        "machine": machine(device),
    }
