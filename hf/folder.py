"""A Hugging Face folder: which files are in it, and how it becomes a checkpoint. hf/export.py writes one.

transformers loads such a folder without our code, and nothing in it is pickled. Embedding rows that belong
to no token are cut off, so that nothing can sample them. PADDING_FILE keeps them, so that import is exact.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from config import ModelConfig
from hf.families import EMBEDDING, OUTPUT, family_of
from hf.tokenizer_files import TOKENIZER_FILES, read_tokenizer
from jojo.checkpoints.checkpoint import MASKS, Checkpoint, complete_shape, load_checkpoint
from jojo.checkpoints.shards import check_header
from utils import UserError, one_line, read_object

MARK = "jojo"  # the key of config.json that only our folders have
WEIGHTS_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
PADDING_FILE = "padding_rows.jojo"  # a safetensors file; other programs would load *.safetensors as weights
CARD_FILE = "README.md"
GGUF_FILE = "model.gguf"  # with `upload_to_huggingface.py --gguf`
FILES = (
    *("config.json", "generation_config.json", WEIGHTS_FILE, PADDING_FILE, CARD_FILE, "loss.png", GGUF_FILE),
    *TOKENIZER_FILES,
)


def load_folder_or_file(path: Path) -> Checkpoint:
    """The model that a user names: a Hugging Face folder, or else a checkpoint. Raises UserError if it is neither."""
    return load_hf(path) if (path / "config.json").is_file() else load_checkpoint(path)


def load_hf(folder: Path, chatml: bool = False) -> Checkpoint:
    """The model in a folder as a checkpoint without training state. Reads only safetensors, and runs no code.

    `chatml`: add ChatML's tokens for training if the folder's tokenizer lacks them. New embedding rows start as the mean of
    the others. Zeros would not work: if all real logits are negative, a logit of zero wins the softmax.
    Raises UserError if the folder is not such a model, is damaged, or has a model that this version does not support.
    """
    if not (folder / "config.json").is_file():
        raise UserError(f"'{folder}' is not a Hugging Face model: it has no config.json.")
    values = read_object(folder / "config.json")
    mark = values[MARK] if isinstance(values.get(MARK), dict) else {}
    family = family_of(values, folder)
    shape = family.read_config(values, folder)
    weights = family.read_weights(read_weights(folder), ModelConfig(**shape))
    stored, vocab_size = weights.get(EMBEDDING, torch.empty(0)), values.get("vocab_size")
    if stored.dim() != 2 or type(vocab_size) is not int or len(stored) != vocab_size:
        raise UserError(
            f"'{folder}' contradicts itself: vocab_size is {one_line(vocab_size, 40)}, and '{EMBEDDING}' has the shape "
            f"{tuple(stored.shape)}."
        )
    own = read_tokenizer(folder, len(stored), mark.get("tokenizer"))
    tokenizer = own.with_chatml() if chatml else own
    adds_tokens = tokenizer.n_vocab > own.n_vocab
    rows, recorded = tokenizer.padded_vocab_size, mark.get("vocab_rows")
    if type(recorded) is int and own.n_vocab <= recorded <= 2 * rows:  # plausible; else ignored
        rows = max(recorded, rows) if adds_tokens else recorded
    path = folder / PADDING_FILE
    kept = read_tensors(path) if path.is_file() and not adds_tokens else {}
    for name in [name for name in (EMBEDDING, OUTPUT) if name in weights]:
        tensor, padding = weights[name][: own.n_vocab], kept.get(name)
        if padding is None or padding.shape != (rows - own.n_vocab, tensor.size(1)):
            padding = tensor.double().mean(0).float().expand(rows - own.n_vocab, -1)
        weights[name] = torch.cat([tensor, padding]).float()
    weights.setdefault(OUTPUT, weights[EMBEDDING])
    biases = {name for name in weights if name.endswith(".bias")}
    if mark.get("bias") is False and not any(weights[name].any() for name in biases):  # zeros that the export added
        weights, biases = {name: tensor for name, tensor in weights.items() if name not in biases}, set()
    shape |= {"bias": bool(biases), "vocab_size": rows}
    checkpoint = Checkpoint(folder, "Hugging Face", weights, {"model": shape}, tokenizer.definition(), {})
    complete_shape(checkpoint)
    return checkpoint


def exported_hashes(folder: Path) -> dict[str, Any] | None:
    """SHA-256 of each file when the folder was exported; None if it is not an export of ours."""
    try:
        mark = read_object(folder / "config.json").get(MARK)
    except (OSError, UserError):  # it is missing, or not JSON
        return None
    files = mark.get("files") if isinstance(mark, dict) else None
    return files if isinstance(files, dict) else None


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder's weights, as float32."""
    weights: dict[str, Tensor] = {}
    for name in weight_files(folder):
        weights |= read_tensors(folder / name)
    used = {name: tensor for name, tensor in weights.items() if not name.endswith(MASKS)}  # a causal mask may be uint8
    if odd := next((name for name, tensor in used.items() if not tensor.is_floating_point()), None):
        raise UserError(f"The weight '{one_line(odd)}' in '{folder}' does not hold floating-point numbers.")
    return weights


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file; floating-point numbers of any precision become float32."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        check_header(path)
        return {name: t.float() if t.is_floating_point() else t for name, t in load_file(path).items()}
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(f"'{path}' is damaged, or not a safetensors file ({one_line(str(error))}).") from None


def weight_files(folder: Path) -> list[str]:
    """The names of the files with a folder's weights. Raises UserError if no such file is safe to read."""
    if (folder / WEIGHTS_FILE).is_file():
        return [WEIGHTS_FILE]
    names: set[str] = set()
    if (folder / INDEX_FILE).is_file():
        index = read_object(folder / INDEX_FILE).get("weight_map")
        names = {str(name) for name in index.values()} if isinstance(index, dict) else set()
    elif any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
        raise UserError(f"'{folder}' has its weights in a pickle, which can run code; convert it to {WEIGHTS_FILE}.")
    if not names:
        raise UserError(f"'{folder}' has no weights ({WEIGHTS_FILE}).")
    if missing := next((n for n in sorted(names) if Path(n).name != n or not (folder / n).is_file()), None):
        raise UserError(f"'{folder}' has no file '{one_line(missing)}', which its index names.")
    return sorted(names)
