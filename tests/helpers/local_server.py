"""The base of the stand-ins for servers: a free port, a thread, and scripted faults."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

Self = TypeVar("Self", bound="LocalServer")


@dataclass
class Fault:
    """How to answer the next `times` requests of this method and path."""

    method: str
    path: str
    status: int | None
    times: int
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    after: bool = False  # do the work first, then break the connection instead of answering


class LocalServer:
    """A server that runs in a `with` block; its handlers find it under the attribute `name`."""

    def __init__(self, handler: type[BaseHTTPRequestHandler], name: str) -> None:
        self.lock = threading.Lock()
        self.faults: list[Fault] = []
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (handler,), {name: self}))
        self.http.daemon_threads = True
        self.port = self.http.server_address[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"

    def fail(
        self, method: str, path: str, status: int | None, times: int = 1, headers: dict[str, str] | None = None,
        body: str = "", after: bool = False,
    ) -> None:  # fmt: skip
        self.faults.append(Fault(method, path, status, times, headers or {}, body, after))

    def fault_of(self, method: str, path: str) -> Fault | None:
        """The scripted fault for such a request, which then has one time less. The caller holds the lock."""
        for fault in self.faults:
            if fault.times and fault.method == method and re.search(fault.path, path):
                fault.times -= 1
                return fault
        return None

    def __enter__(self: Self) -> Self:
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()
