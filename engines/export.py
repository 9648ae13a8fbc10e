"""Model -> a GGUF file that gets its name only after llama.cpp has loaded it and agreed."""

from __future__ import annotations

import os
from pathlib import Path

from engines.gguf_file import compare_tensors, write_gguf
from engines.llama import check_with_llama, require_llama
from jojo.text.tokenizer import Tokenizer
from model import GPT
from utils import UserError, new_file


def export_gguf(model: GPT, tokenizer: Tokenizer, path: Path, dtype: str, name: str, check: bool = True) -> None:
    """Write the file. An older GGUF file of this name stays as it was until the new one is complete and checked.

    The model must be in float32 and in eval mode. Without `check`, only the weights are read back, and llama.cpp is not needed.
    Raises UserError if a package is missing, the file cannot be written, differs from the model, or would replace another file.
    """
    refuse_to_replace(path)
    if check:
        require_llama()
    try:
        with new_file(Path(os.path.realpath(path)), durable=True) as file:
            write_gguf(model, tokenizer, Path(file.name), dtype, name)
            compare_tensors(model, tokenizer.n_vocab, dtype, Path(file.name))
            if check:
                check_with_llama(model, tokenizer, Path(file.name), dtype)
    except OSError as error:
        raise UserError(f"Could not write '{path}' ({error.strerror}); check the path and the free space.") from error


def refuse_to_replace(path: Path) -> None:
    """Raises UserError if the path holds anything but a GGUF file."""
    if path.is_dir():
        raise UserError(f"'{path}' is a folder; name a file with -o.")
    if path.exists():
        with open(path, "rb") as file:
            if file.read(4) != b"GGUF":
                raise UserError(f"'{path}' is not a GGUF file, and must not be replaced; name another one with -o.")
