"""What clients get: the JSON of OpenAI's API, whole or in chunks."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from jojo.text.tokenizer import Tokenizer
from serving.text import Piece, Token

JSON = dict[str, Any]


def error_body(
    message: str, kind: str = "invalid_request_error", param: str | None = None, code: str | None = None
) -> JSON:
    """An error in the API's form."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def as_json(content: JSON, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer in JSON. All of it is ASCII, so it can repeat what a client sent, half of a surrogate pair too."""
    return Response(json.dumps(content), status, headers, "application/json")


class Answer:
    """The form of /v1/completions. A choice is a text; in a stream, a chunk has a choice with a part of the text."""

    prefix, whole_object, chunk_object = "cmpl", "text_completion", "text_completion"

    def __init__(self, model: str, tokenizer: Tokenizer, with_ids: bool, with_logprobs: bool) -> None:
        self._tokenizer, self._with_ids, self._with_logprobs = tokenizer, with_ids, with_logprobs
        self._head = {"id": f"{self.prefix}-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    def whole(self, choices: list[Piece], prompts: list[list[int]], usage: JSON) -> JSON:
        """The answer to a request without streaming; `prompts` are the ids, one for each choice."""
        made = [self._choice(index, piece, self._content(piece)) for index, piece in enumerate(choices)]
        if self._with_ids:
            made = [choice | {"prompt_token_ids": ids} for choice, ids in zip(made, prompts, strict=True)]
        ids = {"prompt_token_ids": prompts[0]} if self._with_ids else {}
        return self._head | {"object": self.whole_object, "choices": made, "usage": usage} | ids

    def chunk(self, index: int, piece: Piece) -> JSON:
        """A part of a choice."""
        return self._chunk([self._choice(index, piece, self._part(piece))])

    def opening(self, index: int, prompt: list[int]) -> JSON | None:
        """The first chunk of a choice; None: there is nothing to say yet."""
        if not self._with_ids:
            return None
        return self._chunk([self._choice(index, Piece(), self._part(Piece()))]) | {"prompt_token_ids": prompt}

    def usage_chunk(self, usage: JSON) -> JSON:
        """The last chunk, if the client asks for it."""
        return self._chunk([]) | {"usage": usage}

    def _chunk(self, choices: list[JSON]) -> JSON:
        return self._head | {"object": self.chunk_object, "choices": choices}

    def _choice(self, index: int, piece: Piece, content: JSON) -> JSON:
        logprobs = self._logprobs(piece.tokens) if self._with_logprobs else None
        ids = {"token_ids": [token.id for token in piece.tokens]} if self._with_ids else {}
        return {"index": index, **content, "logprobs": logprobs, "finish_reason": piece.finish, **ids}

    def _content(self, piece: Piece) -> JSON:
        return {"text": piece.text}

    def _part(self, piece: Piece) -> JSON:
        return self._content(piece)

    def _name(self, token: int) -> str:
        return self._tokenizer.decode([token], show_control=True)

    def _logprobs(self, tokens: list[Token]) -> JSON:
        return {
            "tokens": [self._name(token.id) for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [{self._name(i): logprob for i, logprob in token.top} for token in tokens],
            "text_offset": [token.offset for token in tokens],
        }


class ChatAnswer(Answer):
    """The form of /v1/chat/completions. A choice is a message; in a stream, a chunk has a part of it, the delta."""

    prefix, whole_object, chunk_object = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def opening(self, index: int, prompt: list[int]) -> JSON:
        """The chunk that names the role."""
        ids = {"prompt_token_ids": prompt} if self._with_ids else {}
        return self._chunk([self._choice(index, Piece(), {"delta": {"role": "assistant", "content": ""}})]) | ids

    def _content(self, piece: Piece) -> JSON:
        return {"message": {"role": "assistant", "content": piece.text, "refusal": None}}

    def _part(self, piece: Piece) -> JSON:
        return {"delta": {"content": piece.text} if piece.text else {}}

    def _logprobs(self, tokens: list[Token]) -> JSON:
        def entry(token: int, logprob: float) -> JSON:
            return {"token": self._name(token), "logprob": logprob, "bytes": [*self._tokenizer.token_bytes(token)]}

        return {
            "content": [
                entry(token.id, token.logprob) | {"top_logprobs": [entry(*pair) for pair in token.top]}
                for token in tokens
            ],
            "refusal": None,
        }
