"""The thread in which all clients of a model use it. Jobs wait, join, get a token each step, and leave.

Every job has its own sampling and its own random numbers, so it writes what gen.py writes with the same seed.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from generation import NOT_FINITE, Sampling, candidates
from jojo.networks import formulas
from jojo.text.tokenizer import Tokenizer
from model import GPT
from serving.decoder import Decoder
from serving.text import Piece, StoppedText, Token
from utils import UserError, log

SMALL = 5_000_000  # parameters: below, a step is too short to share among processors, and the event loop needs one too


class Busy(Exception):
    """The queue is full."""


@dataclass(eq=False)
class Job:
    """One text to write. `tell` gets its pieces, in the engine's thread; the last one has `finish`."""

    prompt: Sequence[int]
    max_tokens: int
    sampling: Sampling
    seed: int
    stop_ids: Collection[int]  # tokens that end the text
    stops: Sequence[str]  # strings that end the text
    tell: Callable[[Piece], None]
    presence_penalty: float = 0.0  # subtracted from the logits of tokens that the text has
    frequency_penalty: float = 0.0  # the same, once for each time that the text has them
    n_top: int | None = None  # tell the probabilities of each token and of so many likeliest ones; None: of none
    deadline: float = float("inf")  # by time.monotonic(); then the text ends
    cancelled: bool = False
    written: Counter[int] = field(default_factory=Counter)  # how often the text has each token

    def start(self, tokenizer: Tokenizer) -> None:
        """Prepare what the steps need."""
        self.text, self.piece = StoppedText(tokenizer, self.stops), Piece()
        self.generator = torch.Generator().manual_seed(self.seed)

    @property
    def draws_alone(self) -> bool:
        """Whether its logits depend on its own text."""
        return bool(self.presence_penalty or self.frequency_penalty) or self.sampling.repetition_penalty != 1

    def advance(self, chosen: int, logits: Tensor) -> str | None:
        """Take the next token, drawn from logits (V,), and tell the text that is certain. Returns why the job ends, or None."""
        if chosen in self.stop_ids:
            return "stop"
        self.written[chosen] += 1
        self.piece.tokens.append(self._token(chosen, logits))
        self.piece.text += self.text.push(chosen)
        if self.text.stopped:
            return "stop"
        if self.written.total() >= self.max_tokens or time.monotonic() > self.deadline:
            return "length"
        if self.piece.text:
            self.tell(self.piece)
            self.piece = Piece()
        return None

    def end(self, reason: str, error: str = "") -> None:
        """Tell the last piece."""
        self.piece.text += self.text.finish()
        self.piece.finish, self.piece.error = reason, error
        self.tell(self.piece)

    def penalized(self, logits: Tensor) -> Tensor:
        """Logits (1, V) without the presence and frequency penalties of the tokens that the text has."""
        counts = torch.tensor([[*self.written.values()]], dtype=torch.float32)
        penalties = self.presence_penalty + self.frequency_penalty * counts
        return logits.index_add(1, torch.tensor([*self.written], dtype=torch.int64), -penalties)

    def _token(self, chosen: int, logits: Tensor) -> Token:
        if self.n_top is None:
            return Token(chosen, self.text.length)
        logprobs = logits.log_softmax(-1)
        values, ids = logprobs.topk(min(self.n_top, len(logprobs)))
        top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
        return Token(chosen, self.text.length, logprobs[chosen].item(), top)


class Engine:
    """A model's decoding thread. At most `n_rows` jobs are decoded together; at most `n_waiting` wait."""

    def __init__(self, model: GPT, tokenizer: Tokenizer, n_rows: int, n_waiting: int) -> None:
        self.model, self.tokenizer, self.n_waiting = model, tokenizer, n_waiting
        self._n_rows, self._decoder = n_rows, Decoder(model, n_rows)
        self._n_threads = torch.get_num_threads()
        self._step_threads = 1 if formulas(model.config).n_parameters < SMALL else self._n_threads
        self.waiting: deque[Job] = deque()
        self.running: list[Job] = []  # the job of each row of the decoder
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._changed, self.closing = threading.Condition(), False
        self._thread = threading.Thread(target=self._run, name="decoding", daemon=True)
        self._thread.start()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Let jobs wait for their turn. Raises Busy if the queue has no room for all of them."""
        with self._changed:
            if self.closing or len(self.waiting) + len(jobs) > self.n_waiting:
                raise Busy
            for job in jobs:
                job.start(self.tokenizer)
            self.waiting.extend(jobs)
            self._changed.notify()

    def cancel(self, jobs: Sequence[Job]) -> None:
        """End jobs before their next token."""
        with self._changed:
            for job in jobs:
                job.cancelled = True
                if job in self.waiting:
                    self.waiting.remove(job)

    def call(self, function: Callable[[], Any]) -> Future[Any]:
        """Run a function between two steps. Raises Busy as submit() does."""
        future: Future[Any] = Future()
        with self._changed:
            if self.closing or len(self._calls) >= self.n_waiting:
                raise Busy
            self._calls.append((function, future))
            self._changed.notify()
        return future

    def close(self) -> None:
        """End all jobs and the thread."""
        with self._changed:
            self.closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self.waiting or self.running or self._calls or self.closing)
            if self.closing:
                break
            if self._calls:
                self._answer(*self._calls.popleft())
            try:
                self._leave([row for row, job in enumerate(self.running) if job.cancelled], "stop")
                torch.set_num_threads(self._n_threads)  # a prompt is read by all processors
                while len(self.running) < self._n_rows and (job := self._next_job()):
                    self.running.append(job)
                    self._decoder.join(job.prompt)
                if self.running:
                    self._step()
            except Exception as error:  # it must not end the server
                known = isinstance(error, UserError)  # logits that are not numbers, for example
                log.error("Decoding failed: %s", error, exc_info=None if known else error)
                message = str(error) if known else "The model could not decode; the server's log says why."
                self._leave(range(len(self.running)), "error", message)
        torch.set_num_threads(self._n_threads)
        for job in (*self.waiting, *self.running):
            job.end("error", "The server is shutting down.")
        for _, future in self._calls:
            future.cancel()

    def _answer(self, function: Callable[[], Any], future: Future[Any]) -> None:
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(function())
            except Exception as error:
                future.set_exception(error)

    def _next_job(self) -> Job | None:
        with self._changed:
            return self.waiting.popleft() if self.waiting else None

    def _step(self) -> None:
        """A token for every running job. Jobs with the same sampling share the work of it."""
        torch.set_num_threads(self._step_threads)  # each time: the engine of another model may have changed it
        logits = self._decoder.step().cpu()  # (B, V)
        groups: dict[tuple[Sampling, int | None], list[int]] = {}
        ended: dict[int, tuple[str, str]] = {}
        for row, (job, good) in enumerate(zip(self.running, logits.isfinite().all(1).tolist(), strict=True)):
            if good:
                groups.setdefault((job.sampling, row if job.draws_alone else None), []).append(row)
            else:
                ended[row] = "error", NOT_FINITE
        for (sampling, alone), rows in groups.items():
            given, context = logits[rows], torch.empty(len(rows), 0, dtype=torch.int64)
            if alone is not None:
                given, context = self.running[alone].penalized(given), torch.tensor([self._decoder.windows[alone]])
            p, ids = candidates(given, context, sampling)
            for i, row in enumerate(rows):
                job = self.running[row]
                chosen = int(ids[i, torch.multinomial(p[i], 1, generator=job.generator)])
                self._decoder.windows[row].append(chosen)
                if reason := job.advance(chosen, logits[row]):
                    ended[row] = reason, ""
        for row in sorted(ended, reverse=True):
            self._leave([row], *ended[row])

    def _leave(self, rows: Sequence[int], reason: str, error: str = "") -> None:
        for row in sorted(rows, reverse=True):  # so the job that takes a free row has been looked at
            job, last = self.running[row], self.running.pop()
            if job is not last:
                self.running[row] = last
            self._decoder.leave(row, clear=bool(error))
            job.end(reason, error)
