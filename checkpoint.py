"""The checkpoint file: written whole or not at all, verified before it is read, and free of code.

A file is `torch.save` of plain values and tensors (so `torch.load(weights_only=True)` reads it), followed by a stamp
(which run wrote it, and after how many batches) and a trailer with the SHA-256 of everything before it. It is written
under a temporary name, made durable and renamed, so that a crash leaves either the old file or the new one.

Older files are read too: v1 (`model_args`, as nanoGPT's) and 2.x (`config` with a `model` section).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import pickletools
import platform
import re
import shutil
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from config import OPTIONS, Values
from distributed import ALONE, Ranks
from older_formats import flat_config, nested_config, training_state
from shards import Shards
from tokenizer import Tokenizer, from_definition
from utils import UserError, __version__, one_line, sha256_of

FORMAT_VERSION = 3
TRAILER_MARK = b"jojo-sha256:"  # followed by 64 hex digits
TRAILER_BYTES = len(TRAILER_MARK) + 64
STAMP = "jojo-run:{run:0>16.16} batch:{batch:020d} "  # before the trailer, and covered by it
STAMP_BYTES = len(STAMP.format(run="", batch=0))
COUNT, POSITIVE, NUMBER, SECONDS = "a count", "a count from 1", "a number", "seconds"  # see _fits
POINTS, NAMES, PLAIN = "points", "names", "plain values"
LINE, FILE_NAME = "a line", "a file name"
WEIGHTS_ONLY: dict[str, Any] = {"config": dict, "tokenizer": dict}  # beside the weights, in any file of format 3
LAYOUT: dict[str, Any] = WEIGHTS_ONLY | {  # where training can go on; docs/checkpoints.md says what each is
    "derived": NAMES,
    "optimizer": dict,
    "lr_scheduler": {"schedule": PLAIN, "total_batches": COUNT},
    "scaler": dict,
    "rng": {"torch": Tensor},
    "loader": {"epoch": COUNT, "position": COUNT},
    "batch_counter": COUNT,
    "skipped_updates": COUNT,
    "best_val_loss": NUMBER,
    "worst_val_loss": NUMBER,
    "best_train_loss": NUMBER,
    "worst_train_loss": NUMBER,
    "metrics": {
        **dict.fromkeys(("train_loss_batch", "learning_rate", "train_loss_eval", "val_loss_eval", "bpb"), POINTS),
        "stride": POSITIVE,
        "elapsed_s": SECONDS,
        "tokens": COUNT,
    },
    "metadata": {
        "run": FILE_NAME,
        "run_id": FILE_NAME,
        "dataset": dict.fromkeys(("name", "train", "val"), FILE_NAME),
        "machine": dict.fromkeys(("device", "name", "pytorch"), LINE) | {"threads": COUNT},
    },
}
LONGEST_NAME = 1000
MASKS = (".attn.bias", ".attn.masked_bias")  # causal masks that nanoGPT and GPT-2 stored among the weights
PREFIXES = ("_orig_mod.", "module.")  # left in names by torch.compile and data parallelism


# --- the file -----------------------------------------------------------------------------------------------------


class _HashingFile:
    """Passes writes on and hashes them; all that torch.save needs of a file. `error`: why a write failed."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.digest = file, hashlib.sha256()
        self.error: OSError | None = None

    def write(self, content: Any) -> int:
        self.digest.update(content)
        try:
            return self.file.write(content)
        except OSError as error:  # torch turns it into a RuntimeError that does not say why
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def write_file(state: Mapping[str, Any], path: Path) -> None:
    """Save atomically and durably. Raises UserError when the disk refuses; the previous file is then untouched."""
    with _new_file(path) as file:
        hashing = _HashingFile(file)
        try:
            torch.save(dict(state), hashing)  # type: ignore[arg-type]
        except RuntimeError as error:
            raise hashing.error or error from None
        hashing.write(_stamp_of(state))
        file.write(TRAILER_MARK + hashing.digest.hexdigest().encode())


def copy_file(source: Path, path: Path) -> None:
    """The same file under another name, as write_file would write it."""
    with _new_file(path) as file, open(source, "rb") as original:
        shutil.copyfileobj(original, file, 1 << 22)


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """A file that takes its name, and the place of an earlier one, when it is whole and durable.

    Raises:
        UserError: the disk refuses.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        make_durable(path.parent)
    except (OSError, RuntimeError) as error:
        cause = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
        raise UserError(f"Could not save '{path}' ({cause}); check the folder's permissions and free space.") from error
    finally:
        temporary.unlink(missing_ok=True)


def _stamp_of(state: Mapping[str, Any]) -> bytes:
    run = state.get("metadata", {}).get("run_id", "")
    return STAMP.format(run=run, batch=state.get("batch_counter", 0)).encode()


@dataclass(frozen=True)
class Stamp:
    """Which run wrote a checkpoint, and after how many batches."""

    run_id: str
    batch: int

    @property
    def name(self) -> str:
        """Of a folder that belongs to the checkpoint."""
        return f"{self.run_id}-{self.batch}"

    @classmethod
    def named(cls, name: str) -> Stamp | None:
        """Inverse of `name`; None for other names."""
        found = re.fullmatch(r"([0-9a-f]{16})-(\d{1,20})", name)
        return cls(found[1], int(found[2])) if found else None


def read_stamp(path: Path) -> Stamp | None:
    """A checkpoint's stamp, found without reading the rest; None where there is none (an older format, or damage)."""
    try:
        with open(path, "rb") as file:
            file.seek(-(STAMP_BYTES + TRAILER_BYTES), os.SEEK_END)
            found = re.fullmatch(rb"jojo-run:([0-9a-f]{16}) batch:(\d{20}) ", file.read(STAMP_BYTES))
    except OSError:
        return None
    return Stamp(found[1].decode(), int(found[2])) if found else None


def make_durable(path: Path) -> None:
    """Have the system write a file, or a folder's list of files, to the disk now; where it can and there is one."""
    if os.name == "posix":
        with contextlib.suppress(OSError):  # some network file systems cannot sync a folder
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def verify_file(path: Path) -> bool:
    """Compare the file with its SHA-256. True: intact; False: it has no trailer (an older format).

    Raises:
        UserError: the contents are not what was written.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        file.seek(max(0, size - TRAILER_BYTES))
        trailer = file.read()
    if not trailer.startswith(TRAILER_MARK):
        return False
    if trailer[len(TRAILER_MARK) :] != sha256_of(path, size - TRAILER_BYTES).encode():
        raise UserError(f"The checkpoint '{path}' is damaged (its SHA-256 does not match); use another one of the run.")
    return True


def read_file(path: Path, mapped: bool = False) -> dict[str, Any]:
    """Verify and read a checkpoint of any format, on the CPU. Executes nothing that is in it.

    Args:
        path: of the file.
        mapped: read tensors when they are used only, from a map of the file.

    Raises:
        UserError: missing, damaged, not a checkpoint, or holding anything but plain values and tensors.
    """
    if not path.is_file():
        raise UserError(_missing(path))
    has_trailer = verify_file(path)
    if not _is_plain_zip(path):
        raise UserError(f"'{path}' is not a checkpoint, or was cut short.")
    try:
        # 2.x metadata holds a TorchVersion; what torch warns of is refused below, or harmless
        with torch.serialization.safe_globals([torch.torch_version.TorchVersion]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # whatever a damaged or hostile file makes the reader trip over: never tried another way
        found = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if found:
            what = f"holds something other than plain data ({one_line(found.group(1))}); refused, and nothing was run"
        else:
            what = "is not a checkpoint, or is damaged"
        raise UserError(f"'{path}' {what}.") from error
    if not isinstance(state, dict):
        raise UserError(f"'{path}' is not a checkpoint: it holds a {type(state).__name__}, not a dictionary.")
    if has_present_format(state) and not has_trailer:
        raise UserError(f"The checkpoint '{path}' is damaged (its SHA-256 is missing); use another one of the run.")
    if odd := _odd_tensor(state):
        raise UserError(f"'{path}' holds a tensor that no checkpoint has ({odd}); refused.")
    return state


def has_present_format(state: Mapping[str, Any]) -> bool:
    """Whether a file says that it is of the present format."""
    version = state.get("format_version")
    return type(version) is int and version == FORMAT_VERSION


def _is_plain_zip(path: Path) -> bool:
    """Whether a file is an archive as torch.save writes it: nothing is compressed, so nothing can swell, or there twice."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            names = {member.filename for member in members}
            if len(names) < len(members) or any(m.compress_type != zipfile.ZIP_STORED for m in members):
                return False
            pickles = [archive.read(name) for name in names if name.endswith(".pkl")]
        return all(_has_short_names(content) for content in pickles)
    except (
        zipfile.BadZipFile,
        ValueError,
        NotImplementedError,
        EOFError,
        OSError,
    ):  # OSError: it points outside itself
        return False


def _has_short_names(content: bytes) -> bool:
    """Whether all names of functions in a pickle are of a sensible length: torch takes for ever over those that are not.

    Reads the pickle's instructions without following them; ValueError where it is none.
    """
    return all(
        len(str(argument)) <= LONGEST_NAME
        for instruction, argument, _ in pickletools.genops(content)
        if instruction.name in ("GLOBAL", "INST")
    )


def _odd_tensor(state: Any) -> str | None:
    """What is odd about the first tensor in nested values that is not a plain one in memory; None where all are."""
    seen: set[int] = set()  # values may hold themselves
    left = [state]
    while left:
        value = left.pop()
        if isinstance(value, Tensor):
            whole = value.untyped_storage().nbytes() if value.layout == torch.strided and not value.is_meta else 0
            if type(value) not in (Tensor, nn.Parameter) or value.is_quantized or value.is_complex():
                return f"{type(value).__name__}, {value.dtype}"
            if whole < value.numel() * value.element_size():  # sparse, meta, or a few numbers that pose as many
                return f"{tuple(value.shape)} in {whole} bytes"
        elif isinstance(value, (dict, list, tuple, set, frozenset)) and id(value) not in seen:
            seen.add(id(value))
            left += [*value.keys(), *value.values()] if isinstance(value, dict) else list(value)
    return None


def _missing(path: Path) -> str:
    if path.is_dir():
        return f"'{path}' is a folder; name a checkpoint (.pt) in it."
    there = sorted(p.name for p in path.parent.glob("*.pt")) if path.parent.is_dir() else []
    known = f"'{path.parent}' holds: {', '.join(there[:8])}" if there else f"'{path.parent}' holds no checkpoint"
    return f"No checkpoint '{path}' ({known})."


# --- what is in it --------------------------------------------------------------------------------------------------


@dataclass
class Checkpoint:
    """A checkpoint of any format, in the terms of this one."""

    path: Path
    version: str  # "3", "2.x", "1" or "nanoGPT"
    model: dict[str, Tensor]
    config: Values  # nested, as in a JSON file; only what this version knows
    tokenizer: dict[str, Any] | None  # None: an older format, which always meant GPT-2 with ChatML
    state: dict[str, Any] = field(repr=False)  # the training state; of format 3, the whole file
    other_options: list[str] = field(default_factory=list)  # in the file's config, and not known here
    shards: Shards | None = None  # where the large tensors are still to be read from; `model` has their shapes then

    @property
    def has_training_state(self) -> bool:
        """Whether training can go on from it; exactly so from format 3."""
        return "optimizer" in self.state

    @property
    def run_id(self) -> str | None:
        """The run that wrote it; None where that was not recorded."""
        return self.state.get("metadata", {}).get("run_id")

    def complete(self) -> None:
        """Read the large tensors that are in files of their own still, whole."""
        if self.shards:
            self.shards.fill(self.state, whole=True)
            self.model, self.shards = dict(self.state["model"]), None

    def release(self) -> None:
        """Let go of the tensors of model and optimizer, once they are loaded: a run needs the memory."""
        self.model = {}
        self.state = {name: part for name, part in self.state.items() if name not in ("model", "optimizer")}


def load_checkpoint(path: Path, ranks: Ranks = ALONE) -> Checkpoint:
    """Read a checkpoint of any version. Raises UserError for what is not one.

    Several ranks read large tensors only when they are needed, and share the work of verifying parts.
    """
    state = read_file(path, mapped=not ranks.alone)
    config = state.get("config")
    if "format_version" in state and not has_present_format(state):
        raise UserError(
            f"'{path}' has format {one_line(state['format_version'])}, newer than this version of Jojo reads."
        )
    if not isinstance(state.get("model"), dict):
        raise UserError(
            f"'{path}' is not a checkpoint: Missing 'model' (it has: {', '.join(map(one_line, state)) or 'nothing'})."
        )
    if not all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state["model"].items()):
        raise UserError(f"'{path}' is not a checkpoint: its 'model' holds something other than named tensors.")
    shards = None
    if "shards" in state and has_present_format(state) and isinstance(state.get("optimizer"), dict):
        shards = Shards.listed_in(path, state.pop("shards"))
        shards.verify(ranks)
        shards.fill(state, whole=ranks.alone)
    weights = {_plain_name(name): tensor for name, tensor in state["model"].items()}
    weights = {name: tensor for name, tensor in weights.items() if not name.endswith(MASKS)}
    if isinstance(config, dict) and isinstance(config.get("model"), dict):
        version = "3" if "format_version" in state else "2.x"
        known, other = nested_config(config)
    elif isinstance(state.get("model_args"), dict):
        version = "nanoGPT" if "iter_num" in state else "1"
        shape = {k: v for k, v in state["model_args"].items() if f"model.{k}" in OPTIONS}
        known, other = {"model": shape} | flat_config(config, version == "1"), []
    else:
        raise UserError(f"'{path}' has an unknown format: Missing 'model_args' or 'config.model'.")
    if version != "3":
        state = training_state(state, weights)
    elif wrong := _misfit(state, LAYOUT if "optimizer" in state else WEIGHTS_ONLY):
        raise UserError(f"'{path}' is not a checkpoint as this version writes them: {wrong}.")
    shards = None if ranks.alone else shards
    checkpoint = Checkpoint(path, version, weights, known, state.get("tokenizer"), state, other, shards)
    complete_shape(checkpoint)
    return checkpoint


def _misfit(value: Any, layout: Any, where: str = "") -> str | None:
    """What does not fit the layout first, in words; None where all does."""
    if isinstance(layout, dict):
        if not isinstance(value, dict):
            return f"{where or 'the whole'} is no dictionary"
        inside = ((f"{where}.{key}" if where else key, key, part) for key, part in layout.items())
        return next((w for name, key, part in inside if (w := _misfit(value.get(key), part, name))), None)
    return None if _fits(value, layout) else f"'{where}' is missing or not what it should be"


def _fits(value: Any, kind: Any) -> bool:
    if kind in (COUNT, POSITIVE):
        return type(value) is int and (kind == COUNT or value > 0) and 0 <= value < 2**62
    if kind in (NUMBER, SECONDS):
        is_number = type(value) is float or (type(value) is int and abs(value) < 2**62)
        return is_number and (kind == NUMBER or 0 <= value < 1e12)
    if kind in (LINE, FILE_NAME):
        is_line = isinstance(value, str) and value.isprintable() and len(value) < 200
        return is_line and (kind == LINE or Path(value).name == value)
    if kind == PLAIN:
        return isinstance(value, dict) and all(type(v) in (str, int, float, bool) for v in value.values())
    if kind == NAMES:
        return isinstance(value, list) and all(isinstance(name, str) for name in value)
    if kind == POINTS:
        return isinstance(value, list) and all(
            isinstance(p, tuple) and len(p) == 2 and _fits(p[0], COUNT) and _fits(p[1], NUMBER) for p in value
        )
    return isinstance(value, kind)


def _plain_name(name: str) -> str:
    while name.startswith(PREFIXES):
        name = name.split(".", 1)[1]
    return name


def complete_shape(checkpoint: Checkpoint) -> None:
    """Fill in what the weights tell of the shape where the config does not, before a model of it is built.

    Raises:
        UserError: the config speaks of another size than the weights have, or the number of heads, which they do not
            tell, is missing.
    """
    model, weights = checkpoint.config.setdefault("model", {}), checkpoint.model
    if "n_head" not in model:
        raise UserError(f"'{checkpoint.path}' does not say how many heads its model has: Missing 'n_head'.")
    model.setdefault("bias", any(name.endswith(".c_attn.bias") for name in weights))
    blocks = {name.split(".")[2] for name in weights if name.startswith("transformer.h.")}
    sizes = [("n_layer", len(blocks))]
    for name, keys in (("wte", ("vocab_size", "n_embd")), ("wpe", ("block_size", "n_embd"))):
        sizes += zip(keys, weights.get(f"transformer.{name}.weight", torch.empty(0, 0)).shape, strict=False)
    for key, size in sizes:
        said = model.get(key)
        if said is not None and not (type(said) is int and said == size):
            raise UserError(
                f"'{checkpoint.path}' contradicts itself: model.{key} is {one_line(said)}, and its weights have {size}."
            )
        if size:
            model[key] = size


def checkpoint_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """The tokenizer a checkpoint was trained with; older formats always meant GPT-2, with ChatML where it fits."""
    if checkpoint.tokenizer:
        return from_definition(checkpoint.tokenizer, f"The model in '{checkpoint.path}'")
    full = Tokenizer()
    vocab_size = checkpoint.config.get("model", {}).get("vocab_size") or full.padded_vocab_size
    return full if vocab_size >= full.n_vocab else Tokenizer(chatml=False)


def load_weights(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Copy the checkpoint's weights into the model; into one on the device "meta" nothing, but they are compared.

    Raises:
        UserError: naming what is missing, extra or of another shape.
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
        if tensor.numel() and not all(end.isfinite() for end in tensor.aminmax()):  # NaN passes through; no copies
            raise UserError(f"The weight '{name}' is not finite; nothing was saved over the last good checkpoint.")


def git_commit() -> str | None:
    """The commit this code is at, read from .git without running anything; None outside a checkout."""
    git = Path(__file__).resolve().parent / ".git"
    try:
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        ref = head.removeprefix("ref: ")
        if (git / ref).is_file():
            return (git / ref).read_text().strip()
        packed = (git / "packed-refs").read_text().splitlines()
        return next((line.split()[0] for line in packed if line.endswith(" " + ref)), None)
    except OSError:
        return None


def machine(device: str) -> dict[str, Any]:
    """What decides how sums are rounded, besides the config: a run is exact where these stay the same."""
    kind = device.partition(":")[0]
    name = torch.cuda.get_device_name(device) if kind == "cuda" else platform.machine()
    return {"device": kind, "name": name, "threads": torch.get_num_threads(), "pytorch": str(torch.__version__)}


def metadata(dataset: Mapping[str, str], device: str) -> dict[str, Any]:
    """Where and with what a checkpoint was made; plain values."""
    import datetime

    return {
        "trainer_version": __version__,
        "pytorch_version": str(torch.__version__),
        "git_commit": git_commit(),
        "timestamp": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "dataset": dict(dataset),
        "machine": machine(device),
    }
