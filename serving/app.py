"""The server's addresses: OpenAI's API under /v1, what the page shows of a model under /inspect, and the page itself."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from serving.answers import JSON, Answer, ChatAnswer, as_json, error_body
from serving.engine import Busy
from serving.guard import Guard, ImpatientProtocol, Rules
from serving.look import attention, token_probabilities
from serving.metrics import Metrics
from serving.models import Served
from serving.schemas import (
    FORMS,
    AttentionRequest,
    ChatRequest,
    InspectRequest,
    SamplingRequest,
    TextRequest,
    TokensRequest,
)
from serving.writing import StreamedAnswer, Writing, whole_answer
from utils import UserError

PAGE = Path(__file__).parent / "page"
MAX_ATTENTION_TOKENS = 256  # the answer has about half as many numbers as the square of it
DEFAULT_MAX_TOKENS = 300  # gen.py's
DRAIN_SECONDS = 15  # how long requests that have begun may go on after the signal to stop
ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"description": "the request is wrong"}, 401: {"description": "the key is missing"},
    403: {"description": "the Host or Origin header is wrong"}, 404: {"description": "there is no such model"},
    408: {"description": "the request came too slowly"}, 413: {"description": "the request is too long"},
    429: {"description": "too many requests wait"}, 500: {"description": "the model cannot decode"},
    503: {"description": "the server is shutting down"},
}  # fmt: skip


class ApiError(Exception):
    """Becomes an answer with this status."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        self.status, self.body = status, error_body(message, "invalid_request_error", param, code)


@dataclass(frozen=True)
class Limits:
    """What one request may ask for."""

    max_tokens: int
    seconds: float


class Server:
    """The models, and what is done with them."""

    def __init__(self, models: dict[str, Served], limits: Limits) -> None:
        self.models, self.limits, self.metrics = models, limits, Metrics(models)

    def find(self, name: str) -> Served:
        """The model of this name."""
        if name not in self.models:
            message = f"There is no model '{name[:100]}'; GET /v1/models lists those there are."
            raise ApiError(404, message, "model", "model_not_found")
        return self.models[name]

    def ids(self, served: Served, prompt: str | list[int], param: str) -> list[int]:
        """The ids of a text; ids stay as they are."""
        if isinstance(prompt, str):
            return served.text_ids(prompt)
        if max(prompt) >= served.tokenizer.n_vocab:
            raise ApiError(400, f"{param}: the ids of this model are below {served.tokenizer.n_vocab:,}.", param)
        return prompt

    def max_tokens(self, asked: int | None) -> int:
        """How many tokens an answer may have."""
        most = self.limits.max_tokens
        if asked is not None and asked > most:
            raise ApiError(400, f"max_tokens: this server writes at most {most:,} tokens a text.", "max_tokens")
        return min(DEFAULT_MAX_TOKENS, most) if asked is None else asked

    def check_room(self, served: Served, n_texts: int) -> None:
        """Refuse a request that would not fit into an empty queue."""
        if n_texts > served.engine.n_waiting:
            raise ApiError(400, f"A request to this server can ask for at most {served.engine.n_waiting:,} texts.", "n")

    async def chat(self, request: Request, body: ChatRequest) -> Response:
        """Answer a conversation."""
        served = self.find(body.model)
        if not served.can_chat:
            message = f"'{served.name}' was not trained on conversations; use /v1/completions, or start the server with --template."
            raise ApiError(400, message, "model", "not_a_chat_model")
        self.check_room(served, body.n or 1)
        max_tokens = self.max_tokens(body.max_completion_tokens or body.max_tokens)
        prompt = served.chat_ids([message.as_message() for message in body.messages], max_tokens)
        answer = ChatAnswer(served.name, served.tokenizer, bool(body.return_token_ids), bool(body.logprobs))
        n_top = (body.top_logprobs or 0) if body.logprobs else None
        return await self._write(request, Writing(served, body, [prompt], self.metrics), max_tokens, n_top, answer)

    async def complete(self, request: Request, body: TextRequest) -> Response:
        """Continue texts."""
        served, prompt = self.find(body.model), body.prompt
        several: list[Any] = [prompt] if isinstance(prompt, str) or isinstance(prompt[0], int) else prompt
        self.check_room(served, len(several) * (body.n or 1))  # before they are encoded, which takes time
        prompts = [self.ids(served, one, "prompt") for one in several]
        answer = Answer(served.name, served.tokenizer, bool(body.return_token_ids), body.logprobs is not None)
        writing = Writing(served, body, prompts, self.metrics)
        return await self._write(request, writing, self.max_tokens(body.max_tokens), body.logprobs, answer)

    async def _write(
        self, request: Request, writing: Writing, max_tokens: int, n_top: int | None, answer: Answer
    ) -> Response:
        body: SamplingRequest = writing.body
        if name := body.unsupported():
            raise ApiError(
                400, f"This server does not support the parameter '{name}'; leave it out.", name, "unsupported"
            )
        writing.start(max_tokens, self.limits.seconds, n_top)
        return StreamedAnswer(writing, answer) if body.stream else await whole_answer(request, writing, answer)

    async def inspect(self, body: InspectRequest, most: int, look: Callable[[Served, list[int]], JSON]) -> JSON:
        """Call `look` with the model and the ids of the request, at most `most` of them, in the engine's thread."""
        served = self.find(body.model)
        if (body.text is None) == (body.ids is None):
            raise ApiError(400, "Send either 'text' or 'ids'.", "text")
        ids = self.ids(served, body.ids if body.text is None else body.text, "ids")  # type: ignore[arg-type]
        if len(ids) > min(most, served.model.config.block_size):
            most = min(most, served.model.config.block_size)
            raise ApiError(
                400, f"The text has {len(ids):,} tokens, but at most {most:,} can be shown; shorten it.", "text"
            )
        return await asyncio.wrap_future(served.engine.call(lambda: look(served, ids)))

    async def tokens(self, body: TokensRequest) -> JSON:
        """How likely each token of a text is."""
        return await self.inspect(
            body, 10**9, lambda served, ids: token_probabilities(served.model, served.tokenizer, ids, body.top)
        )

    async def attention(self, body: AttentionRequest) -> JSON:
        """What a head attends to."""
        shape = self.find(body.model).model.config
        for name, value, count in (("layer", body.layer, shape.n_layer), ("head", body.head, shape.n_head)):
            if value >= count:
                raise ApiError(400, f"{name}: must be below {count}.", name)
        return await self.inspect(
            body, MAX_ATTENTION_TOKENS,
            lambda served, ids: attention(served.model, served.tokenizer, ids, body.layer, body.head),
        )  # fmt: skip


def create_app(models: dict[str, Served], limits: Limits, rules: Rules) -> FastAPI:
    """The application."""
    server = Server(models, limits)

    app = FastAPI(title="Jojo", version="1", docs_url=None, redoc_url=None, responses=ERRORS)
    for path, answer in (("/v1/chat/completions", server.chat), ("/v1/completions", server.complete)):
        app.post(path, response_model=None)(answer)
    app.post("/inspect/tokens")(server.tokens)
    app.post("/inspect/attention")(server.attention)

    @app.get("/v1/models")
    async def list_models() -> JSON:
        return {"object": "list", "data": [served.card() for served in models.values()]}

    @app.get("/v1/models/{name}")
    async def one_model(name: str) -> JSON:
        return server.find(name).card()

    @app.get("/health")
    async def health() -> JSON:
        return {"status": "ok"}

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        return Response(server.metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    app.mount("/page", StaticFiles(directory=PAGE))
    add_error_handlers(app)
    app.add_middleware(Guard, rules=rules)
    return app


class WebServer(uvicorn.Server):
    """uvicorn for the application. After the signal to stop, answers that have begun may go on for DRAIN_SECONDS."""

    def __init__(self, models: dict[str, Served], limits: Limits, rules: Rules) -> None:
        app = create_app(models, limits, rules)
        silent = {"log_level": "error", "access_log": False, "server_header": False}
        super().__init__(uvicorn.Config(app, http=ImpatientProtocol, ws="none", lifespan="off", **silent))  # type: ignore[arg-type]
        logging.getLogger("asyncio").setLevel(logging.ERROR)  # else a line for each client that is gone
        self._models = models

    def close_engines(self) -> None:
        """End all texts; their clients are told that the server is shutting down."""
        for served in self._models.values():
            served.engine.close()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait for the answers, but not for ever: then end the texts, and then the connections whose clients do not read."""
        later = asyncio.get_running_loop().call_later
        timers = [later(DRAIN_SECONDS, self.close_engines), later(DRAIN_SECONDS + 1, self._abort)]
        await super().shutdown(sockets)
        for timer in timers:
            timer.cancel()
        if self.force_exit:  # a second Ctrl-C
            self.close_engines()
            self._abort()
            await asyncio.sleep(0.1)  # so that the tasks notice it

    def _abort(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def add_error_handlers(app: FastAPI) -> None:
    """Give every error the API's form."""

    @app.exception_handler(ApiError)
    async def ours(_request: Request, error: ApiError) -> Response:
        return as_json(error.body, error.status)

    @app.exception_handler(Busy)
    async def busy(_request: Request, _error: Busy) -> Response:
        message = "Too many requests wait; try again later."
        return as_json(error_body(message, "rate_limit_error", code="queue_full"), 429, {"Retry-After": "1"})

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        names = [str(part) for part in first["loc"][1:] if not str(part).startswith(("str", "list"))]  # without types
        if first["type"] == "json_invalid" or not names:
            return as_json(error_body("The body must be a JSON object, with Content-Type: application/json."), 400)
        form = next(
            (f"must be {FORMS[name]}" for name in names if name in FORMS and first["type"] != "missing"), first["msg"]
        )
        return as_json(error_body(f"{'.'.join(names)}: {form}.", param=names[0]), 400)

    @app.exception_handler(UserError)
    async def user_error(_request: Request, error: UserError) -> Response:
        return as_json(error_body(str(error)), 400)

    @app.exception_handler(HTTPException)
    async def http(_request: Request, error: HTTPException) -> Response:
        return as_json(error_body(f"{error.detail}."), error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def bug(_request: Request, _error: Exception) -> Response:
        return as_json(error_body("The server failed; its log says why.", "server_error"), 500)
