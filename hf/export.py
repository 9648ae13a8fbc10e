"""Checkpoint -> Hugging Face folder.

It is built beside its place, loaded back and compared with the checkpoint (hf_parity.py), and only then renamed: an export
is right, or it does not happen.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from config import ModelConfig
from generation import model_of
from hf.folder import CARD_FILE, EMBEDDING, FILES, FIXED, MARK, OUTPUT, PADDING_FILE, WEIGHTS_FILE, sealed, turned
from hf.parity import check_parity
from hf.tokenizer_files import write_tokenizer
from jojo.checkpoints.checkpoint import Checkpoint, checkpoint_tokenizer
from jojo.text.tokenizer import IM_END, Tokenizer
from model import GPT
from utils import UserError, __version__, log, make_durable, one_line, read_object, sha256_of


def export_tokenizer(checkpoint: Checkpoint, choice: str | None) -> Tokenizer:
    """The tokenizer to export with: the checkpoint's, or the one that was asked for ("gpt2" or "extended")."""
    own = checkpoint_tokenizer(checkpoint)
    if choice == "extended" and not own.has_chatml:
        raise UserError(
            f"The model in '{checkpoint.path}' was made without ChatML's tokens; leave out --tokenizer extended."
        )
    if choice == "gpt2" and not own.is_gpt2:
        raise UserError(
            f"The model in '{checkpoint.path}' has a vocabulary of its own ({own.name}), not GPT-2's; leave out --tokenizer gpt2."
        )
    return own.with_chatml(False) if choice == "gpt2" else own


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
    tidy_up(folder)
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
        seal(temporary)
        check_parity(model, tokenizer, temporary)
        refuse_foreign(folder)  # again: minutes may have passed
        keep_edited_card(folder, temporary)
        replace_folder(temporary, folder)
    except OSError as error:
        raise UserError(
            f"Could not write '{folder}' ({error.strerror or error}); check the path and the space."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def tidy_up(folder: Path) -> None:
    """Clear away what processes that were killed have left: half an export, or the folder under a hidden name."""
    for kind in ("tmp", "old"):
        for path in folder.parent.glob(f".{glob.escape(folder.name)}.*.{kind}"):
            number = path.name.split(".")[-2]
            if not number.isdecimal() or is_alive(int(number)):
                continue
            if kind == "old" and not folder.exists():
                os.replace(path, folder)
            else:
                shutil.rmtree(path, ignore_errors=True)


def is_alive(process: int) -> bool:
    """Whether a process of this number runs on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def refuse_foreign(folder: Path) -> None:
    """Raises UserError where the folder holds anything but an export of ours as it was written, but for the card."""
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
    written = sealed(folder)
    if written is None:
        raise UserError(f"'{folder}' holds a model that this program did not write; {instead}.")
    for name in names:
        if name != CARD_FILE and state_of(folder / name) != written.get(name):
            raise UserError(f"'{name}' in '{folder}' was changed since it was exported; {instead}.")


def keep_edited_card(folder: Path, new: Path) -> None:
    """A card that somebody edited in the folder stays, in the place of the new one."""
    edited = folder / CARD_FILE
    if edited.is_file() and state_of(edited) != (sealed(folder) or {}).get(CARD_FILE):
        shutil.copyfile(edited, new / CARD_FILE)
        log.info("'%s' was edited, and stays as it is; delete it for a new one.", edited)


def seal(folder: Path) -> None:
    """Note in config.json what every file of a finished export holds."""
    path = folder / "config.json"
    values = read_object(path)
    names = sorted(p.name for p in folder.iterdir() if p != path)
    values[MARK]["files"] = {name: state_of(folder / name) for name in names} | {path.name: state_of(path)}
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    for name in (WEIGHTS_FILE, PADDING_FILE):
        if (folder / name).exists():
            shutil.copymode(path, folder / name)  # safetensors writes files for their owner alone


def state_of(path: Path) -> str:
    """SHA-256 of a file's contents; of config.json, without what `seal` writes into it."""
    if path.name == "config.json":
        values = read_object(path)
        if isinstance(values.get(MARK), dict):
            values[MARK].pop("files", None)
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    return sha256_of(path)


def refuse_unusable(checkpoint: Checkpoint) -> None:
    """Raises UserError naming a weight that is not finite or was turned, or an output matrix that is not the embedding."""
    for name, tensor in checkpoint.model.items():
        if not tensor.is_contiguous():  # a square one would fit; no program that trains stores weights in this way
            raise UserError(
                f"The weight '{one_line(name)}' in '{checkpoint.path}' was transposed; nothing was exported."
            )
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
        "tokenizer": tokenizer.identity(),
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


def bias_sizes(shape: ModelConfig) -> dict[str, int]:
    """The biases of a model of this shape, and their lengths."""
    width = shape.n_embd
    inside = {
        "ln_1": width, "ln_2": width, "attn.c_attn": 3 * width, "attn.c_proj": width,
        "mlp.c_fc": 4 * width, "mlp.c_proj": width,
    }  # fmt: skip
    blocks = {f"h.{layer}.{name}": size for layer in range(shape.n_layer) for name, size in inside.items()}
    return {f"transformer.{name}.bias": size for name, size in (blocks | {"ln_f": width}).items()}


def replace_folder(new: Path, folder: Path) -> None:
    """Put a finished folder in its place; the old one goes only when the new one is there."""
    for path in new.iterdir():
        make_durable(path)
    before = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    if folder.exists():
        os.replace(folder, before)
    try:
        os.replace(new, folder)
    except BaseException:  # Ctrl-C too
        if before.exists() and not folder.exists():
            os.replace(before, folder)
        raise
    shutil.rmtree(before, ignore_errors=True)
    make_durable(folder.parent)
