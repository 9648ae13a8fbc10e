"""Checkpoint -> Hugging Face folder.

The folder is built under a hidden name, loaded back and compared with the checkpoint (hf/parity.py), and only then
renamed. So an export that is wrong never appears.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from generation import model_of
from hf.families import EMBEDDING, FAMILIES, OUTPUT
from hf.folder import CARD_FILE, FILES, MARK, PADDING_FILE, WEIGHTS_FILE, exported_hashes
from hf.parity import check_parity
from hf.tokenizer_files import write_tokenizer
from jojo.checkpoints.checkpoint import Checkpoint, checkpoint_tokenizer
from jojo.text.tokenizer import IM_END, Tokenizer
from model import GPT
from utils import UserError, __version__, locked, log, make_durable, one_line, read_object, sha256_of


def export_tokenizer(checkpoint: Checkpoint, choice: str | None) -> Tokenizer:
    """The tokenizer to export with: the checkpoint's own, or the user's choice ("gpt2" or "extended")."""
    own = checkpoint_tokenizer(checkpoint)
    if choice == "extended" and not own.has_chatml:
        raise UserError(f"'{checkpoint.path}' was made without ChatML's tokens; leave out --tokenizer extended.")
    if choice == "gpt2" and not own.is_gpt2:
        raise UserError(f"'{checkpoint.path}' has a vocabulary of its own; leave out --tokenizer gpt2.")
    return own.with_chatml(False) if choice == "gpt2" else own


def export(
    checkpoint: Checkpoint, folder: Path, tokenizer: Tokenizer, write_rest: Callable[[Path, GPT], None] | None = None
) -> None:
    """Write a checkpoint as a Hugging Face folder. It appears only after it was compared with the checkpoint.

    The folder may exist if it is empty or an unchanged export of ours. `write_rest` writes more files of FILES into a folder.
    Raises UserError if the checkpoint is unusable, the export differs from it, or the folder holds other files.
    """
    refuse_to_overwrite(folder)
    refuse_unusable(checkpoint)
    model = model_of(checkpoint, tokenizer)
    try:
        with new_folder(folder) as temporary:
            write_folder(model, tokenizer, temporary)
            if write_rest:
                write_rest(temporary, model)
            seal(temporary)
            check_parity(model, tokenizer, temporary)
            refuse_to_overwrite(folder)  # again, because minutes may have passed
            card = folder / CARD_FILE
            if card.is_file() and fingerprint(card) != (exported_hashes(folder) or {}).get(CARD_FILE):
                shutil.copyfile(card, temporary / CARD_FILE)
                log.info("'%s' was edited and stays as it is; delete it to get a new one.", card)
            replace_folder(temporary, folder)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"Could not write '{folder}' ({reason}); check the path and the space.") from error


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder to fill, for one export at a time. Repairs what a killed export left behind."""
    new, old, lock = (folder.with_name(f".{folder.name}.{kind}") for kind in ("new", "old", "lock"))
    with locked(lock, f"'{folder}'"):
        try:
            if old.exists() and not folder.exists():  # it was killed between two renames
                os.replace(old, folder)
            for leftover in (old, new):
                shutil.rmtree(leftover, ignore_errors=True)
            new.mkdir()
            yield new
        finally:
            shutil.rmtree(new, ignore_errors=True)
            with contextlib.suppress(OSError):  # Windows keeps open files
                lock.unlink()


def refuse_to_overwrite(folder: Path) -> None:
    """Raises UserError if the folder holds anything but an unchanged export of ours. The model card may be edited."""
    if not folder.exists():
        return
    hint = "name another folder with --output-dir"
    if not folder.is_dir() or folder.is_symlink():
        raise UserError(f"'{folder}' is not a folder; {hint}.")
    if folder.resolve() == Path.cwd():
        raise UserError(f"'{folder}' is the current folder, which cannot be replaced; {hint}.")
    names = sorted(path.name for path in folder.iterdir())
    if other := next((name for name in names if name not in FILES), None):
        raise UserError(f"'{folder}' holds '{one_line(other)}', which is not part of an export; {hint}.")
    sealed = exported_hashes(folder) if names else {}
    if sealed is None:
        raise UserError(f"'{folder}' holds a model that was not exported from here; {hint}.")
    for name in names:
        if name != CARD_FILE and fingerprint(folder / name) != sealed.get(name):
            raise UserError(f"'{name}' in '{folder}' was changed since it was exported; {hint}.")


def seal(folder: Path) -> None:
    """Record the fingerprints of all files in config.json."""
    config = folder / "config.json"
    values = read_object(config)
    values[MARK]["files"] = {path.name: fingerprint(path) for path in sorted(folder.iterdir())}
    write_object(config, values)
    for path in folder.iterdir():
        shutil.copymode(config, path)  # safetensors writes files that only their owner can read


def fingerprint(path: Path) -> str:
    """SHA-256 of a file's contents; of config.json, without the fingerprints in it."""
    if path.name != "config.json":
        return sha256_of(path)
    values = read_object(path)
    if isinstance(values.get(MARK), dict):
        values[MARK].pop("files", None)
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def refuse_unusable(checkpoint: Checkpoint) -> None:
    """Raises UserError if a weight is not finite or is a transposed view, or if the output matrix is not the embedding."""
    for name, tensor in checkpoint.model.items():
        finite = bool(torch.isfinite(tensor).all())
        if not finite or not tensor.is_contiguous():  # a square view fits; but no training program stores one
            what = "was transposed" if finite else "is not finite"
            raise UserError(f"The weight '{one_line(name)}' in '{checkpoint.path}' {what}; nothing was exported.")
    tied = checkpoint.config["model"].get("tie_embeddings", True)
    wte, head = checkpoint.model.get(EMBEDDING), checkpoint.model.get(OUTPUT)
    if tied and wte is not None and head is not None and wte.shape == head.shape and not torch.equal(wte, head):
        raise UserError(
            f"'{OUTPUT}' in '{checkpoint.path}' differs from '{EMBEDDING}'; this model has one matrix for both."
        )


def write_folder(model: GPT, tokenizer: Tokenizer, folder: Path) -> None:
    """Write weights, configuration and tokenizer."""
    from safetensors.torch import save_file

    shape, n_vocab, family = model.config, tokenizer.n_vocab, FAMILIES[model.config.architecture]
    weights = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    rows = {name: weights[name] for name in (EMBEDDING, OUTPUT) if name == EMBEDDING or not shape.tie_embeddings}
    weights |= {name: tensor[:n_vocab] for name, tensor in rows.items()}
    save_file(family.write_weights(weights, shape), folder / WEIGHTS_FILE, metadata={"format": "pt"})
    if n_vocab < len(rows[EMBEDDING]):
        save_file({name: tensor[n_vocab:].clone() for name, tensor in rows.items()}, folder / PADDING_FILE)
    eot = tokenizer.eot_id
    ends = [eot, *([tokenizer.special_tokens[IM_END]] if tokenizer.has_chatml else [])]  # where gen.py stops
    identity = tokenizer.identity()
    mark = {"version": __version__, "bias": shape.bias, "vocab_rows": shape.vocab_size, "tokenizer": identity}
    # no pad_token_id: with one, transformers warns about every text that begins with that token
    own = {"vocab_size": n_vocab, "bos_token_id": eot, "eos_token_id": eot, MARK: mark}
    write_object(folder / "config.json", family.write_config(shape) | own)
    write_object(folder / "generation_config.json", {"bos_token_id": eot, "eos_token_id": ends, "pad_token_id": eot})
    write_tokenizer(tokenizer, folder, shape.block_size)


def write_object(path: Path, values: dict[str, Any]) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def replace_folder(new: Path, folder: Path) -> None:
    """Rename a finished folder to its final name. The old folder is removed only afterwards."""
    for path in new.iterdir():
        make_durable(path)
    before = folder.with_name(f".{folder.name}.old")
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
