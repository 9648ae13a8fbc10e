"""What clients send: the fields of OpenAI's API that this server knows, with their limits, and those of the page."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

# Parameters that would change the answer, with the values that change nothing. Other unknown parameters are ignored.
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "tools": ([],), "functions": ([],), "tool_choice": ("none", "auto"), "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},), "logit_bias": ({},), "audio": (), "modalities": (["text"],),
    "echo": (False,), "suffix": ("",), "best_of": (1,),
}  # fmt: skip
MOST_STOPS = 4
# A list ends its check at the first error: a long one with many would block the server.
IDS = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, fail_fast=True)]
FORMS = {  # what these fields may be, for the error's sentence
    "prompt": "a text, texts, ids (0 or more), or lists of ids", "stop": f"a text, or at most {MOST_STOPS}, not empty",
    "content": "a text, or a list of parts of type text",
}  # fmt: skip


class Request(BaseModel):
    """A request's body. Numbers must be numbers: no text that looks like one."""

    model_config = ConfigDict(strict=True, extra="allow")
    model: str = Field(description="a name from GET /v1/models")


class StreamOptions(BaseModel):
    """What a stream also tells."""

    include_usage: bool | None = None


def as_stops(stop: str | list[str] | None) -> list[str]:
    """A request's stop strings."""
    stops = [stop] if isinstance(stop, str) else stop or []
    if "" in stops or len(stops) > MOST_STOPS:
        raise ValueError("an empty text, or too many")
    return stops


class SamplingRequest(Request):
    """What chat and text requests have in common. None means the default, which is gen.py's."""

    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = Field(None, description="0 = off")
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    stop: Annotated[str | Annotated[list[str], Field(fail_fast=True)] | None, AfterValidator(as_stops)] = Field(
        None, validate_default=True
    )
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    n: Annotated[int, Field(ge=1, le=16)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    return_token_ids: bool | None = Field(None, description="also return the ids of the prompt and of the answer")

    def unsupported(self) -> str | None:
        """The name of a parameter that this server cannot follow."""
        given = self.model_extra or {}
        return next((name for name, idle in UNSUPPORTED.items() if given.get(name) not in (None, *idle)), None)


class ContentPart(BaseModel):
    """A part of a message. Only text can be read."""

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """A turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[ContentPart], Field(fail_fast=True)]

    def as_message(self) -> dict[str, str]:
        """The turn as the tokenizer takes it."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": self.role.replace("developer", "system"), "content": text}


class ChatRequest(SamplingRequest):
    """The body of /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, fail_fast=True)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = Field(None, description="the newer name of max_tokens")
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None


class TextRequest(SamplingRequest):
    """The body of /v1/completions."""

    prompt: (
        str | IDS | Annotated[list[str], Field(min_length=1, fail_fast=True)]
        | Annotated[list[IDS], Field(min_length=1, fail_fast=True)]
    )  # fmt: skip
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None


class InspectRequest(Request):
    """What to look at: a text, or ids."""

    text: str | None = None
    ids: IDS | None = None


class TokensRequest(InspectRequest):
    """The body of /inspect/tokens."""

    top: Annotated[int, Field(ge=0, le=100)] = 10


class AttentionRequest(InspectRequest):
    """The body of /inspect/attention."""

    layer: Annotated[int, Field(ge=0)]
    head: Annotated[int, Field(ge=0)]
