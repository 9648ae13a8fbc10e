"""What a server has done, in Prometheus' format."""

from __future__ import annotations

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from serving.models import Served

SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)


class Metrics:
    """Counters of one server. Each has the label `model`."""

    def __init__(self, models: dict[str, Served]) -> None:
        self._registry, label = CollectorRegistry(), ["model"]
        self._requests = Counter("jojo_requests", "Requests for text", label, registry=self._registry)
        self._read = Counter("jojo_prompt_tokens", "Tokens of prompts", label, registry=self._registry)
        self._written = Counter("jojo_written_tokens", "Tokens written", label, registry=self._registry)
        self._first = Histogram(
            "jojo_first_text_seconds", "Seconds to the first text", label, registry=self._registry, buckets=SECONDS
        )
        running = Gauge("jojo_running", "Texts that are being written", label, registry=self._registry)
        waiting = Gauge("jojo_waiting", "Texts that wait for their turn", label, registry=self._registry)
        for name, served in models.items():
            running.labels(name).set_function(partial(len, served.engine.running))
            waiting.labels(name).set_function(partial(len, served.engine.waiting))

    def text(self) -> bytes:
        """All values."""
        return generate_latest(self._registry)

    def started(self, model: str, prompt_tokens: int) -> None:
        """Count a request."""
        self._requests.labels(model).inc()
        self._read.labels(model).inc(prompt_tokens)

    def first_piece(self, model: str, seconds: float) -> None:
        """A request's first text came after so many seconds."""
        self._first.labels(model).observe(seconds)

    def wrote(self, model: str, tokens: int) -> None:
        """Count tokens of answers."""
        self._written.labels(model).inc(tokens)
