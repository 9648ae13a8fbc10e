"""Checkpoint -> Hugging Face folder, and back: the folder's format, and what of a GPT-2 this model can compute.

A folder holds what `transformers` needs to load the model as GPT2LMHeadModel, without code of ours and with nothing
pickled. It is built beside its place, loaded back and compared with the checkpoint (hf_parity.py), and only then renamed:
an export is right, or it does not happen.

The names of the weights are GPT-2's own. Four matrices of each block are stored the other way round there (Conv1D); the
output matrix is the embedding and is not stored twice; embedding rows beyond the tokenizer's are cut off, so that nothing
can sample them, and kept in a file of their own (PADDING_FILE), so that the way back is exact.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import hf_tokenizer
from checkpoint import MASKS, Checkpoint, checkpoint_tokenizer, complete_shape, make_durable
from config import Config, ModelConfig
from generation import model_of
from hf_tokenizer import read_object, read_tokenizer, write_tokenizer
from model import GPT
from tokenizer import IM_END, Tokenizer
from utils import UserError, __version__, one_line, user_path

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


# --- checkpoint -> folder -------------------------------------------------------------------------------------------


def export_tokenizer(checkpoint: Checkpoint, choice: str | None) -> Tokenizer:
    """The tokenizer to export with: the checkpoint's, or the one that was asked for ("gpt2" or "extended")."""
    own = checkpoint_tokenizer(checkpoint)
    if choice == "extended" and not own.has_chatml:
        raise UserError(
            f"The model in '{checkpoint.path}' was made without ChatML's tokens; leave out --tokenizer extended."
        )
    return Tokenizer(chatml=False) if choice == "gpt2" else own


def export(
    checkpoint: Checkpoint,
    folder: Path,
    tokenizer: Tokenizer,
    write_card: Callable[[Path, GPT], None] | None = None,
) -> None:
    """Write a checkpoint as a Hugging Face folder; it appears under its name only when it was found to be right.

    Args:
        checkpoint: of any version.
        folder: where to; may exist if it is empty or an unchanged export of ours.
        tokenizer: decides the vocabulary.
        write_card: puts the model card into the folder it is given.

    Raises:
        UserError: naming what is wrong with the checkpoint, what differs, or what is in the way.
    """
    from hf_parity import check_parity

    refuse_foreign(folder)
    refuse_unusable(checkpoint)
    model = model_of(checkpoint, tokenizer)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        write_folder(model, tokenizer, temporary)
        if write_card:
            write_card(temporary, model)
        check_parity(model, tokenizer, temporary)
        replace_folder(temporary, folder)
    except OSError as error:
        raise UserError(
            f"Could not write '{folder}' ({error.strerror or error}); check the path and the space."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def refuse_foreign(folder: Path) -> None:
    """Raises UserError where the folder holds anything but an export of ours that is as it was written."""
    if not folder.exists():
        return
    instead = "name another one with --output-dir"
    if not folder.is_dir() or folder.is_symlink():
        raise UserError(f"'{folder}' is not a folder; {instead}.")
    if folder.resolve() == Path.cwd():
        raise UserError(f"'{folder}' is where this command runs, and would be replaced; {instead}.")
    names = sorted(p.name for p in folder.iterdir())
    if not names:
        return
    if other := next((name for name in names if name not in FILES), None):
        raise UserError(f"'{folder}' holds something that no export writes ('{one_line(other)}'); {instead}.")
    mark = read_object(folder / "config.json").get(MARK) if "config.json" in names else None
    if not isinstance(mark, dict):
        raise UserError(f"'{folder}' holds a model that this program did not write; {instead}.")
    if WEIGHTS_FILE in names and sha256(folder / WEIGHTS_FILE) != mark.get("weights_sha256"):
        raise UserError(f"The weights in '{folder}' were changed since they were exported; {instead}.")


def refuse_unusable(checkpoint: Checkpoint) -> None:
    """Raises UserError naming a weight that is not finite, or an output matrix that is not the embedding."""
    for name, tensor in checkpoint.model.items():
        if not torch.isfinite(tensor).all():
            raise UserError(
                f"The weight '{one_line(name)}' in '{checkpoint.path}' is not finite; nothing was exported."
            )
    first, last = checkpoint.model.get(EMBEDDING), checkpoint.model.get(OUTPUT)
    if first is not None and last is not None and first.shape == last.shape and not torch.equal(first, last):
        raise UserError(f"'{OUTPUT}' in '{checkpoint.path}' differs from '{EMBEDDING}', and GPT-2 has them in one.")


def write_folder(model: GPT, tokenizer: Tokenizer, folder: Path) -> None:
    """Weights, configuration and tokenizer."""
    from safetensors.torch import save_file

    weights = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items() if name != OUTPUT}
    padding = weights[EMBEDDING][tokenizer.n_vocab :].clone()  # (rows that are no tokens, C)
    weights[EMBEDDING] = weights[EMBEDDING][: tokenizer.n_vocab].clone()
    if not model.config.bias:
        weights |= {name: torch.zeros(size) for name, size in bias_sizes(model.config).items()}
    save_file(turned(weights), folder / WEIGHTS_FILE, metadata={"format": "pt"})
    if len(padding):
        save_file({EMBEDDING: padding}, folder / PADDING_FILE)
    mark = {
        "version": __version__,
        "bias": model.config.bias,
        "vocab_rows": model.config.vocab_size,
        "weights_sha256": sha256(folder / WEIGHTS_FILE),
    }
    for name, values in (
        ("config.json", model_config(model.config, tokenizer) | {MARK: mark}),
        ("generation_config.json", generation_config(tokenizer)),
    ):
        (folder / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    write_tokenizer(tokenizer, folder, model.config.block_size)


def model_config(shape: ModelConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """config.json: the shape in GPT-2's words."""
    fixed = {key: values[0] for key, (_, values) in FIXED.items() if values[0] is not None}
    return {
        "architectures": ["GPT2LMHeadModel"],
        **fixed,
        "n_layer": shape.n_layer,
        "n_head": shape.n_head,
        "n_embd": shape.n_embd,
        "n_inner": None,
        "n_positions": shape.block_size,
        "n_ctx": shape.block_size,
        "vocab_size": tokenizer.n_vocab,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), shape.dropout),
        # no padding id: with one, every text that begins with that token brings a warning
        **dict.fromkeys(("bos_token_id", "eos_token_id"), tokenizer.eot_id),
        "initializer_range": 0.02,
        "use_cache": True,
        "dtype": "float32",
    }


def generation_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """generation_config.json: where gen.py stops."""
    ends = [tokenizer.eot_id] + ([tokenizer.special_tokens[IM_END]] if tokenizer.has_chatml else [])
    return {"bos_token_id": tokenizer.eot_id, "eos_token_id": ends, "pad_token_id": tokenizer.eot_id}


def turned(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights with Conv1D's matrices the other way round: from our form to GPT-2's, or back."""
    return {n: t.t().contiguous() if n.endswith(TURNED) else t.contiguous() for n, t in weights.items()}


def bias_sizes(shape: ModelConfig) -> dict[str, int]:
    """The biases of a model of this shape, and their lengths."""
    width = shape.n_embd
    inside = {
        "ln_1": width, "ln_2": width, "attn.c_attn": 3 * width, "attn.c_proj": width,
        "mlp.c_fc": 4 * width, "mlp.c_proj": width,
    }  # fmt: skip
    blocks = {f"h.{layer}.{name}": size for layer in range(shape.n_layer) for name, size in inside.items()}
    return {f"transformer.{name}.bias": size for name, size in (blocks | {"ln_f": width}).items()}


def sha256(path: Path) -> str:
    """Of a file's contents."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def replace_folder(new: Path, folder: Path) -> None:
    """Put a finished folder in its place; the old one goes only when the new one is there."""
    for path in new.iterdir():
        make_durable(path)
    before = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    if folder.exists():
        os.replace(folder, before)
    try:
        os.replace(new, folder)
    except OSError:
        if before.exists():
            os.replace(before, folder)
        raise
    shutil.rmtree(before, ignore_errors=True)
    make_durable(folder.parent)


# --- folder -> checkpoint -------------------------------------------------------------------------------------------


def load_hf(source: str | Path, chatml: bool = False) -> Checkpoint:
    """A GPT-2 in Hugging Face form as a checkpoint without training state. Reads safetensors only; runs nothing.

    Args:
        source: a folder, or the name of a model on the Hub (`openai-community/gpt2`).
        chatml: to train on: with ChatML's tokens, whether the folder's tokenizer has them or not. New rows of the
            embedding start as the mean of the others: zeros would win every softmax where all real logits are negative.

    Raises:
        UserError: not such a model, damaged, or one that this version cannot compute.
    """
    folder = find_folder(source)
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
    own = read_tokenizer(folder, len(stored))
    tokenizer = Tokenizer() if chatml else own
    rows, padding = rows_and_padding(mark, own, tokenizer, folder)
    weights[EMBEDDING] = weights[OUTPUT] = extended(stored[: own.n_vocab], rows, padding)
    weights = drop_added_biases(weights, mark)
    shape |= {"bias": any(name.endswith(".bias") for name in weights), "vocab_size": rows}
    checkpoint = Checkpoint(folder, "Hugging Face", weights, {"model": shape}, tokenizer.definition(), {})
    complete_shape(checkpoint)
    return checkpoint


def find_folder(source: str | Path) -> Path:
    """The folder of a model: given, or fetched from the Hub."""
    path = user_path(str(source))
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UserError(f"'{path}' is not a Hugging Face model: it has no config.json.")
        return path
    if path.exists():
        raise UserError(f"'{path}' is a file; name a Hugging Face folder, or use --load_model_only for a checkpoint.")
    if isinstance(source, str) and re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", source):
        from hf_upload import fetch

        return fetch(source)
    raise UserError(f"There is no folder '{source}'.")


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
    usual, recorded = Tokenizer().padded_vocab_size, mark.get("vocab_rows")
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
