"""From a request to texts: the jobs that it needs, and its answer, whole or as a stream of events."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial

from fastapi import Request
from fastapi.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from generation import Sampling
from serving.answers import JSON, Answer, as_json, error_body
from serving.engine import Job
from serving.metrics import Metrics
from serving.models import Served
from serving.schemas import SamplingRequest
from serving.text import Piece


class Writing:
    """The texts that a request asked for: `n` for each prompt."""

    def __init__(self, served: Served, body: SamplingRequest, prompts: Sequence[list[int]], metrics: Metrics) -> None:
        self.served, self.metrics, self.body = served, metrics, body
        self.prompts = [prompt for prompt in prompts for _ in range(body.n or 1)]  # of each text
        self.usage: JSON = {"prompt_tokens": sum(map(len, prompts)), "completion_tokens": 0}
        self._pieces: asyncio.Queue[tuple[int, Piece]] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self.jobs: list[Job] = []

    def start(self, max_tokens: int, seconds: float, n_top: int | None) -> None:
        """Let the engine write. `seconds` is the longest time, `n_top` is Job's. Raises serving.engine.Busy."""
        body, self.started = self.body, time.monotonic()
        seed = random.getrandbits(62) if body.seed is None else body.seed
        given = {name: getattr(body, name) for name in ("temperature", "top_k", "top_p", "repetition_penalty")}
        sampling = Sampling(**{name: value for name, value in given.items() if value is not None})  # else gen.py's
        for number, prompt in enumerate(self.prompts):
            self.jobs.append(
                Job(
                    prompt, max_tokens, sampling, seed + number % (body.n or 1), self.served.tokenizer.end_ids,
                    body.stop or [],
                    presence_penalty=body.presence_penalty or 0.0, frequency_penalty=body.frequency_penalty or 0.0,
                    n_top=n_top, deadline=self.started + seconds, tell=partial(self._tell, number),
                )
            )  # fmt: skip
        self.served.engine.submit(self.jobs)
        self.metrics.started(self.served.name, self.usage["prompt_tokens"])

    def cancel(self) -> None:
        """End the texts that have not ended: nobody reads them any more."""
        self.served.engine.cancel(self.jobs)

    def _tell(self, number: int, piece: Piece) -> None:
        """Called in the engine's thread."""
        if self.jobs[number].written.total() == len(piece.tokens):
            self.metrics.first_piece(self.served.name, time.monotonic() - self.started)
        self.metrics.wrote(self.served.name, len(piece.tokens))
        with contextlib.suppress(RuntimeError):  # the loop has ended, with a second Ctrl-C
            self._loop.call_soon_threadsafe(self._pieces.put_nowait, (number, piece))

    async def pieces(self) -> AsyncIterator[tuple[int, Piece]]:
        """The number of a text and its next piece, until all texts have ended."""
        running = len(self.jobs)
        while running:
            number, piece = await self._pieces.get()
            self.usage["completion_tokens"] += len(piece.tokens)
            running -= piece.finish is not None
            yield number, piece
        self.usage["total_tokens"] = sum(self.usage.values())


async def whole_answer(request: Request, writing: Writing, answer: Answer) -> Response:
    """The answer when all texts have ended. They end at once if the client leaves."""
    texts = [Piece() for _ in writing.jobs]

    async def collect() -> None:
        async for number, piece in writing.pieces():
            texts[number].add(piece)

    async def client_leaves() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    tasks = [asyncio.ensure_future(collect()), asyncio.ensure_future(client_leaves())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            tasks[0].result()  # raises what went wrong there
    finally:
        for task in tasks:
            task.cancel()
        writing.cancel()
    if error := next((text.error for text in texts if text.error), None):
        return as_json(error_body(error, "server_error"), 503 if writing.served.engine.closing else 500)
    return as_json(answer.whole(texts, writing.prompts, writing.usage))


class StreamedAnswer(StreamingResponse):
    """The answer as server-sent events, while the texts are written. They end at once if the client leaves."""

    def __init__(self, writing: Writing, answer: Answer) -> None:
        self._writing, self._answer = writing, answer
        super().__init__(self._events(), media_type="text/event-stream")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._writing.cancel()

    async def _events(self) -> AsyncIterator[str]:
        options = self._writing.body.stream_options
        for number, prompt in enumerate(self._writing.prompts):
            if opening := self._answer.opening(number, prompt):
                yield event(opening)
        async for number, piece in self._writing.pieces():
            if piece.error:
                yield event(error_body(piece.error, "server_error"))
                return
            yield event(self._answer.chunk(number, piece))
        if options and options.include_usage:
            yield event(self._answer.usage_chunk(self._writing.usage))
        yield "data: [DONE]\n\n"


def event(content: JSON) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(content)}\n\n"
