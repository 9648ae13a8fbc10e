"""Tiny models behind a real server in a thread, and plain HTTP to talk to it."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from helpers_model import random_model, tiny_config, unigram_model

from jojo.text.tokenizer import get_tokenizer
from serve import LOCAL_NAMES
from serving.app import Limits, WebServer
from serving.engine import Engine
from serving.guard import Rules
from serving.models import Served

TOKENIZER = get_tokenizer("story")
N_VOCAB = TOKENIZER.n_vocab


def tiny_model(**changes: Any) -> Any:
    """A random model with the tokens of the built-in stories."""
    std = changes.pop("std", 0.3)
    return random_model(tiny_config(vocab_size=TOKENIZER.padded_vocab_size, **changes), N_VOCAB, std=std)


def endless_model() -> Any:
    """A model that always writes the same token, and never a control token."""
    return unigram_model(tiny_config(vocab_size=TOKENIZER.padded_vocab_size), {10: 30.0}, N_VOCAB)


def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def served(
    name: str = "tiny", can_chat: bool = True, n_rows: int = 4, n_waiting: int = 8, model: Any = None, **changes: Any
) -> Served:
    """A model, tiny and random by default, with its engine; it must be closed."""
    model = model or tiny_model(**changes)
    return Served(name, model, TOKENIZER, Engine(model, TOKENIZER, n_rows, n_waiting), 1_700_000_000, None, can_chat)


class Client:
    """Requests to one server."""

    def __init__(self, port: int, stop: Callable[[], None]) -> None:
        self.port, self.url, self.stop = port, f"http://127.0.0.1:{port}", stop

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def raw(self, content: bytes) -> tuple[int, dict[str, str], bytes]:
        """Send these bytes. Returns status, headers and body of the answer."""
        with self.connect() as connection:
            connection.sendall(content)
            return answer_of(connection)

    def ask(self, path: str, body: Any = None, method: str = "", **headers: str) -> tuple[int, Any]:
        """The status and the JSON of an answer; the body is JSON too, or bytes."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
        method = method or ("GET" if body is None else "POST")
        fields = {"Host": f"127.0.0.1:{self.port}", "Content-Type": "application/json", "Connection": "close"}
        fields |= {name.replace("_", "-"): value for name, value in headers.items()} | {
            "Content-Length": str(len(content))
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        status, kind, text = self.raw(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + content)
        return status, json.loads(text) if "json" in kind.get("content-type", "") else text.decode()

    def events(self, path: str, body: dict[str, Any]) -> list[Any]:
        """The events of a streamed answer."""
        status, text = self.ask(path, body | {"stream": True})
        assert status == 200, text
        *events, last, empty = text_of_chunks(text).split("\n\n")
        assert (last, empty) == ("data: [DONE]", "")
        return [json.loads(event.removeprefix("data: ")) for event in events]


def answer_of(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer that ends with the connection."""
    content = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    head, _, body = content.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(first.split()[1]) if first else 0, headers, body


def text_of_chunks(text: str) -> str:
    """The content of a body in HTTP's chunked form."""
    content, rest = b"", text.encode()
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        content, rest = content + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return content.decode()


@contextlib.contextmanager
def serving(
    *models: Served, key: str | None = None, max_tokens: int = 100, seconds: float = 30.0, buffer: int | None = None
) -> Iterator[Client]:
    """A server for these models on a free port, until the block ends."""
    rules = Rules(LOCAL_NAMES, any_address=False, key=key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        if buffer:  # bytes that the system takes for a client that does not read
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        server = WebServer({model.name: model for model in models}, Limits(max_tokens, seconds), rules)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield Client(listener.getsockname()[1], lambda: setattr(server, "should_exit", True))
        finally:
            server.should_exit = True
            thread.join(20)
            server.close_engines()
            assert not thread.is_alive()
