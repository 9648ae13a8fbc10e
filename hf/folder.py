"""The Hugging Face folder of a GPT-2: its format, what of it this model can compute, and folder -> checkpoint.

A folder holds what `transformers` needs to load the model as GPT2LMHeadModel, without code of ours and with nothing
pickled. hf_export.py writes one.

The names of the weights are GPT-2's own. Four matrices of each block are stored the other way round there (Conv1D); the
output matrix is the embedding and is not stored twice; embedding rows beyond the tokenizer's are cut off, so that nothing
can sample them, and kept in a file of their own (PADDING_FILE), so that the way back is exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from config import Config
from hf import tokenizer_files as hf_tokenizer
from hf.tokenizer_files import read_tokenizer
from jojo.checkpoints.checkpoint import MASKS, Checkpoint, complete_shape, load_checkpoint
from jojo.text.tokenizer import Tokenizer
from utils import UserError, one_line, read_object

MARK = "jojo"  # the key of config.json that only our folders have
WEIGHTS_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
PADDING_FILE = "padding_rows.jojo"  # safetensors; other programs load every file with that ending as weights
CARD_FILE, PICTURE_FILE = "README.md", "loss.png"
FILES = (
    "config.json", "generation_config.json", WEIGHTS_FILE, PADDING_FILE, CARD_FILE, PICTURE_FILE, *hf_tokenizer.FILES,
)  # fmt: skip
EMBEDDING, OUTPUT = "transformer.wte.weight", "lm_head.weight"
TURNED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
EPSILON = 1e-5  # of torch's LayerNorm and of GPT-2

# What model.py computes; a folder whose config says otherwise is another model.
FIXED: dict[str, tuple[Any, tuple[Any, ...]]] = {  # key: (what it is when left out, what it may be)
    "model_type": (None, ("gpt2",)),
    "activation_function": ("gelu_new", ("gelu_new", "gelu_pytorch_tanh")),
    "layer_norm_epsilon": (EPSILON, (EPSILON,)),
    "scale_attn_weights": (True, (True,)),
    "scale_attn_by_inverse_layer_idx": (False, (False,)),
    "reorder_and_upcast_attn": (False, (False,)),
    "add_cross_attention": (False, (False,)),
    "tie_word_embeddings": (True, (True,)),
    "quantization_config": (None, (None,)),
}


def load_hf(folder: Path, chatml: bool = False) -> Checkpoint:
    """A GPT-2 in Hugging Face form as a checkpoint without training state. Reads safetensors only; runs nothing.

    Args:
        folder: with config.json, and model.safetensors or its parts.
        chatml: to train on: with ChatML's tokens, whether the folder's tokenizer has them or not. New rows of the
            embedding start as the mean of the others: zeros would win every softmax where all real logits are negative.

    Raises:
        UserError: not such a model, damaged, or one that this version cannot compute.
    """
    if not (folder / "config.json").is_file():
        raise UserError(f"'{folder}' is not a Hugging Face model: it has no config.json.")
    values = read_object(folder / "config.json")
    mark = values.get(MARK)
    mark = mark if isinstance(mark, dict) else {}
    shape = read_shape(values, folder)
    weights = plain_names(read_weights(folder))
    stored = weights.get(EMBEDDING, torch.empty(0))
    if stored.dim() != 2 or type(values.get("vocab_size")) is not int or len(stored) != values["vocab_size"]:
        raise UserError(
            f"'{folder}' contradicts itself: vocab_size is {one_line(values.get('vocab_size'), 40)}, and "
            f"'{EMBEDDING}' has the shape {tuple(stored.shape)}."
        )
    own = read_tokenizer(folder, len(stored), mark.get("tokenizer"))
    tokenizer = own.with_chatml() if chatml else own
    rows, padding = rows_and_padding(mark, own, tokenizer, folder)
    weights[EMBEDDING] = weights[OUTPUT] = extended(stored[: own.n_vocab], rows, padding)
    weights = drop_added_biases(weights, mark)
    shape |= {"bias": any(name.endswith(".bias") for name in weights), "vocab_size": rows}
    checkpoint = Checkpoint(folder, "Hugging Face", weights, {"model": shape}, tokenizer.definition(), {})
    complete_shape(checkpoint)
    return checkpoint


def load_any(path: Path) -> Checkpoint:
    """A checkpoint of any version, or a Hugging Face folder as one."""
    return load_hf(path) if (path / "config.json").is_file() else load_checkpoint(path)


def read_shape(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The options of our model that a config.json stands for. Raises UserError where model.py computes something else."""
    for key, (default, allowed) in FIXED.items():
        value = values.get(key, default)
        if not any(type(value) is type(a) and value == a for a in allowed):
            raise UserError(
                f"The model in '{folder}' has {key} = {one_line(value, 40)}, which this version does not compute "
                f"(only {' or '.join(map(str, allowed))})."
            )
    names = {"n_layer": "n_layer", "n_head": "n_head", "n_embd": "n_embd", "n_positions": "block_size"}
    if missing := next((key for key in names if key not in values), None):
        raise UserError(f"'{folder / 'config.json'}' does not say '{missing}'.")
    shape = {ours: values[theirs] for theirs, ours in names.items()} | {"dropout": values.get("resid_pdrop", 0.1)}
    model = Config.from_dict({"model": shape}, str(folder / "config.json")).model
    if values.get("n_inner") not in (None, 4 * model.n_embd):
        raise UserError(
            f"The model in '{folder}' has n_inner = {one_line(values['n_inner'], 40)}, which this version does not "
            f"compute (only {4 * model.n_embd}, four times n_embd)."
        )
    return shape


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder's safetensors files, as float32."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if (folder / WEIGHTS_FILE).is_file():
        names = {WEIGHTS_FILE}
    elif (folder / INDEX_FILE).is_file():
        index = read_object(folder / INDEX_FILE).get("weight_map")
        names = {str(name) for name in index.values()} if isinstance(index, dict) else set()
    elif any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
        raise UserError(
            f"'{folder}' has its weights in a pickle, which could run anything when read; convert it to {WEIGHTS_FILE}."
        )
    else:
        names = set()
    if not names:
        raise UserError(f"'{folder}' holds no weights ({WEIGHTS_FILE}).")
    weights: dict[str, Tensor] = {}
    for name in sorted(names):
        if Path(name).name != name or not (folder / name).is_file():
            raise UserError(f"'{folder}' has no file '{one_line(name)}', where its index says that weights are.")
        try:
            weights |= load_file(folder / name)
        except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
            raise UserError(f"'{folder / name}' is damaged, or no safetensors file ({one_line(str(error))}).") from None
    odd = next((name for name, tensor in weights.items() if not tensor.is_floating_point()), None)
    if odd and not odd.endswith(MASKS):  # some store their masks as bytes
        raise UserError(f"The weight '{one_line(odd)}' in '{folder}' holds no floating-point numbers.")
    return {name: tensor.float() for name, tensor in weights.items()}


def plain_names(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under our names and our way round; GPT-2's own files leave out `transformer.`, and hold masks."""
    named = {
        name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}": tensor
        for name, tensor in stored.items()
        if not f".{name}".endswith(MASKS)
    }
    if odd := next((n for n, t in named.items() if n.endswith(TURNED) and t.dim() != 2), None):
        raise UserError(f"The weight '{one_line(odd)}' is no matrix.")
    output, embedding = named.pop(OUTPUT, None), named.get(EMBEDDING)
    if output is not None and (embedding is None or not torch.equal(output, embedding)):
        raise UserError(f"'{OUTPUT}' differs from '{EMBEDDING}': such a model has a matrix that this version does not.")
    return turned(named)


def turned(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights with Conv1D's matrices the other way round: from our form to GPT-2's, or back."""
    return {n: t.t().contiguous() if n.endswith(TURNED) else t.contiguous() for n, t in weights.items()}


def drop_added_biases(weights: dict[str, Tensor], mark: Mapping[str, Any]) -> dict[str, Tensor]:
    """Without the biases that the export added, if they are still zero (training elsewhere may have moved them)."""
    biases = {name for name in weights if name.endswith(".bias")}
    if mark.get("bias") is False and not any(weights[name].any() for name in biases):
        return {name: tensor for name, tensor in weights.items() if name not in biases}
    return weights


def rows_and_padding(
    mark: Mapping[str, Any], own: Tokenizer, tokenizer: Tokenizer, folder: Path
) -> tuple[int, Tensor | None]:
    """How many rows the embedding gets, and those that the export cut off, where they are to be put back.

    Args:
        mark: what the export recorded; empty in a folder of others.
        own: the folder's tokenizer.
        tokenizer: the one to go on with; rows that it alone has start anew.
        folder: where the cut-off rows may be.
    """
    usual, recorded = tokenizer.padded_vocab_size, mark.get("vocab_rows")
    rows = recorded if type(recorded) is int and own.n_vocab <= recorded <= 2 * usual else usual
    if tokenizer.n_vocab != own.n_vocab:
        return max(rows, tokenizer.padded_vocab_size), None
    return rows, read_padding(folder)


def read_padding(folder: Path) -> Tensor | None:
    """The rows that the export cut off; None where they are not there any more."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        padding = load_file(folder / PADDING_FILE).get(EMBEDDING)
    except (SafetensorError, OSError, ValueError):
        return None
    return padding.float() if padding is not None and padding.is_floating_point() else None


def extended(embedding: Tensor, rows: int, padding: Tensor | None = None) -> Tensor:
    """An embedding with this many rows: those that were there, then the padding given, or copies of their mean."""
    missing = rows - len(embedding)
    if padding is None or padding.shape != (missing, embedding.size(1)):
        padding = embedding.double().mean(0).float().expand(missing, -1)
    return torch.cat([embedding, padding])


def sealed(folder: Path) -> dict[str, Any] | None:
    """What the files of a folder held when they were exported; None where it is no export of ours."""
    mark = read_object(folder / "config.json").get(MARK) if (folder / "config.json").is_file() else None
    files = mark.get("files") if isinstance(mark, dict) else None
    return files if isinstance(files, dict) else None
