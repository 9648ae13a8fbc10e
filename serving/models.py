"""The models that a server has, by name, and what each of them can do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generation import chat_prompt, ends_turns, load_model, room_for_prompt
from hf.folder import load_folder_or_file
from jojo.networks import formulas
from jojo.text.tokenizer import Message, Tokenizer
from model import GPT
from serving.engine import Engine
from utils import UserError, user_path

Template = Callable[[Sequence[Message]], str]  # a conversation as text, ready for the assistant's turn


@dataclass
class Served:
    """A model with its engine."""

    name: str
    model: GPT
    tokenizer: Tokenizer
    engine: Engine
    created: int  # seconds since 1970, of the file
    template: Template | None  # how a conversation is written; None: in ChatML
    can_chat: bool

    def chat_ids(self, messages: Sequence[Message], max_tokens: int) -> list[int]:
        """The ids of a conversation, as gen.py --chat makes them: the oldest turns are left out if the context is full.

        What a template writes stays whole; the model sees its end.
        """
        if self.template:
            return self.text_ids(self.template(messages))
        room = room_for_prompt(self.model.config.block_size, max_tokens)
        return chat_prompt(self.tokenizer, messages, room)[0]

    def text_ids(self, text: str) -> list[int]:
        """The ids of a document that begins with this text."""
        return [self.tokenizer.eot_id, *self.tokenizer.encode(text)]

    def card(self) -> dict[str, Any]:
        """The model's entry in /v1/models."""
        shape = self.model.config
        return {
            "id": self.name, "object": "model", "created": self.created, "owned_by": "jojo",
            "max_model_len": shape.block_size, "architecture": shape.architecture, "n_layer": shape.n_layer,
            "n_head": shape.n_head, "n_parameters": formulas(shape).n_parameters, "chat": self.can_chat,
        }  # fmt: skip


def load(
    paths: Sequence[Path], device: str, dtype: str, template: str | None, n_rows: int, n_waiting: int
) -> dict[str, Served]:
    """The models in these files or folders. A name is that of the file; a second one of the same name gets a number."""
    written = read_template(template) if template not in (None, "chatml") else None
    served: dict[str, Served] = {}
    for path in paths:
        model, tokenizer, _ = load_model(load_folder_or_file(path), device, dtype)
        name = base = path.resolve().stem
        number = 1
        while name in served:
            number += 1
            name = f"{base}-{number}"
        can_chat = template is not None or (tokenizer.has_chatml and ends_turns(model, tokenizer))
        engine = Engine(model, tokenizer, n_rows, n_waiting)
        served[name] = Served(name, model, tokenizer, engine, int(path.stat().st_mtime), written, can_chat)
    return served


def read_template(name: str) -> Template:
    """A chat template in Jinja, as Hugging Face's are: it gets `messages` and `add_generation_prompt`. Raises UserError.

    Its text is encoded without control tokens, so a message cannot write one.
    """
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    source = user_path(name).read_bytes()

    def refuse(message: str) -> None:  # templates call it for conversations that they cannot write
        raise ValueError(message)

    def render(messages: Sequence[Message]) -> str:
        try:
            template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(source.decode())
            return template.render(messages=list(messages), add_generation_prompt=True, raise_exception=refuse)
        except Exception as error:  # a template is a program, and can fail in any way
            raise UserError(f"The chat template '{Path(name).name}' cannot write this: {error}.") from None

    render([{"role": "user", "content": "Hello"}])
    return render
