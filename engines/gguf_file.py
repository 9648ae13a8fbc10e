"""Writes a model and its tokenizer as a GGUF file, and reads its weights back to compare them.

Names and layout are those of llama.cpp's convert_hf_to_gguf.py: the weights are first put into Hugging Face's layout
(hf/families.py), and the package gguf knows llama.cpp's name for each of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from config import ModelConfig
from hf.families import EMBEDDING, FAMILIES, OUTPUT, GPT2Family
from hf.tokenizer_files import CHAT_TEMPLATE, ids_and_merges
from jojo.text.tokenizer import IM_END, Tokenizer
from model import GPT
from utils import UserError

Q8_0_BLOCK = 32  # numbers that share a scale; a matrix with rows of another length is written in f16


def write_gguf(model: GPT, tokenizer: Tokenizer, path: Path, dtype: str, name: str) -> None:
    """Write the file. `name` is what programs show. Raises UserError if the package gguf is not installed."""
    try:
        import gguf
    except ModuleNotFoundError:
        raise UserError("GGUF needs the package gguf: python -m pip install -r requirements-export.txt") from None

    writer = gguf.GGUFWriter(path, model.config.architecture)
    try:
        writer.add_name(name)
        writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{dtype.upper()}"])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        add_shape(writer, model.config)
        add_tokenizer(writer, tokenizer)
        for tensor, kind, data in tensors(model, tokenizer.n_vocab, dtype):
            writer.add_tensor(tensor, data, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def add_shape(writer: Any, shape: ModelConfig) -> None:
    """Add the sizes of the network and its constants."""
    values = FAMILIES[shape.architecture].write_config(shape)
    writer.add_context_length(shape.block_size)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(shape.n_layer)
    writer.add_head_count(shape.n_head)
    if shape.architecture == "gpt2":
        writer.add_feed_forward_length(4 * shape.n_embd)
        writer.add_layer_norm_eps(values["layer_norm_epsilon"])
        return
    writer.add_feed_forward_length(values["intermediate_size"])
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(values["head_dim"])
    writer.add_value_length(values["head_dim"])
    writer.add_layer_norm_rms_eps(shape.norm_eps)
    writer.add_rope_freq_base(shape.rope_theta)


def add_tokenizer(writer: Any, tokenizer: Tokenizer) -> None:
    """Add the vocabulary, its merges, the control tokens and the chat template."""
    from gguf import TokenType

    text, merges = ids_and_merges(tokenizer.vocabulary)
    ids, control = text | tokenizer.special_tokens, set(tokenizer.special_tokens.values())
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")  # how a text is cut before the merges
    writer.add_token_list(sorted(ids, key=ids.__getitem__))
    writer.add_token_types([TokenType.CONTROL if i in control else TokenType.NORMAL for i in range(len(ids))])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokenizer.eot_id)
    writer.add_eos_token_id(tokenizer.eot_id)
    writer.add_add_bos_token(True)  # gen.py begins every prompt with it too
    if tokenizer.has_chatml:
        writer.add_eot_token_id(tokenizer.special_tokens[IM_END])
        writer.add_chat_template(CHAT_TEMPLATE.read_text(encoding="utf-8"))


def tensors(model: GPT, n_vocab: int, dtype: str) -> Iterator[tuple[str, Any, np.ndarray]]:
    """The name of each tensor in the file, its GGML type, and its data. Rows that only pad the vocabulary are left out."""
    import gguf

    shape = model.config
    architecture = next(kind for kind, name in gguf.MODEL_ARCH_NAMES.items() if name == shape.architecture)
    names = gguf.get_tensor_name_map(architecture, shape.n_layer)
    own = {name: t[:n_vocab] if name in (EMBEDDING, OUTPUT) else t for name, t in model.state_dict().items()}
    for theirs, tensor in FAMILIES[shape.architecture].write_weights(own, shape).items():
        if shape.architecture == "gpt2" and theirs.endswith(GPT2Family.TRANSPOSED):
            tensor = tensor.t()  # GGUF has (out, in), as we do
        name = names.get_name(theirs, try_suffixes=(".weight", ".bias"))
        assert name, theirs
        kind = gguf.GGMLQuantizationType[dtype.upper() if tensor.dim() > 1 else "F32"]
        if kind == gguf.GGMLQuantizationType.Q8_0 and tensor.size(-1) % Q8_0_BLOCK:
            kind = gguf.GGMLQuantizationType.F16
        yield name, kind, gguf.quants.quantize(tensor.float().contiguous().cpu().numpy(), kind)


def compare_tensors(model: GPT, n_vocab: int, dtype: str, path: Path) -> None:
    """Compare every tensor of a file with the model, byte for byte. Raises UserError for the first difference."""
    from gguf import GGUFReader

    found = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    for name, kind, data in tensors(model, n_vocab, dtype):
        stored = found.pop(name, None)
        if stored is None or stored.tensor_type != kind or stored.data.tobytes() != data.tobytes():
            raise UserError(f"The tensor '{name}' in the new file is not the model's; the file was not kept.")
    if found:
        raise UserError(f"The new file has a tensor '{next(iter(found))}' that the model lacks; it was not kept.")
