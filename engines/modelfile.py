"""Ollama's Modelfile, which says how Ollama runs a GGUF file."""

from __future__ import annotations

from generation import Sampling, ends_turns
from jojo.text.tokenizer import IM_END, Tokenizer
from model import GPT

CHATML = """{{- range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
"""


def modelfile(model: GPT, tokenizer: Tokenizer, name: str) -> str:
    """The text of a Modelfile for the file `name` beside it, with gen.py's way to sample.

    A model that does not end its turns gets the prompt as it is, because it would continue a chat without end.
    """
    chats, sampling = tokenizer.has_chatml and ends_turns(model, tokenizer), Sampling()
    values: dict[str, object] = {
        "num_ctx": model.config.block_size, "temperature": sampling.temperature, "top_k": sampling.top_k,
        "top_p": sampling.top_p, "min_p": 0.0, "repeat_penalty": sampling.repetition_penalty,
    } | ({"stop": f'"{IM_END}"'} if chats else {})  # fmt: skip
    lines = [f"FROM ./{name}", f'TEMPLATE """{CHATML if chats else "{{ .Prompt }}"}"""']
    return "\n".join([*lines, *(f"PARAMETER {key} {value}" for key, value in values.items()), ""])
