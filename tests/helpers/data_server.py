"""A stand-in for two servers on this machine: the Hub's data sets, and a language model with OpenAI's chat API.

Requests for large files are redirected to another host name, as the Hub does. Failures are scripted: `server.fail("GET", r"\\.zip",
500)` answers the next such request with 500, `status=None` breaks the connection; `server.cut(r"\\.zip", 1000)` breaks it
after so many bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from local_server import Fault, LocalServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Request:
    """A request that the server received."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class DataServer(LocalServer):
    """Start with `with DataServer() as server`; its address is `server.endpoint`."""

    def __init__(self) -> None:
        super().__init__(Handler, "server_state")
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.files: dict[str, bytes] = {}  # "owner/name/path"
        self.large: set[str] = set()  # files that are redirected to another host name
        self.instead: dict[str, list[bytes]] = {}  # contents to send instead of a file, once each
        self.cuts: list[tuple[str, int]] = []
        self.faults: list[Fault] = []
        self.asked: list[Request] = []
        self.reply: Callable[[str], Any] = lambda prompt: f"about {prompt}"  # an int is a status, bytes a whole body

    def add(self, repo: str, path: str, content: bytes, large: bool = True) -> None:
        """Put a file into a data set's repository."""
        self.files[f"{repo}/{path}"] = content
        if large:
            self.large.add(f"{repo}/{path}")

    def cut(self, path: str, after: int) -> None:
        """Break the connection in the next download of this file."""
        self.cuts.append((path, after))

    def prompts(self) -> list[str]:
        """The prompts that the language model received."""
        return [json.loads(a.body)["messages"][0]["content"] for a in self.asked if a.path.endswith("/completions")]

    def next_fault(self, asked: Request) -> Fault | None:
        with self.lock:
            self.asked.append(asked)
            return self.fault_of(asked.method, asked.path)


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server_state: DataServer
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def handle_one(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        fault = self.server_state.next_fault(Request(self.command, path, dict(self.headers), body))
        if fault:
            return self.break_off() if fault.status is None else self.answer(fault.status, fault.body, fault.headers)
        if match := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self.resolve(match[1], f"{match[1]}/{match[3]}")
        if path.startswith("/elsewhere/"):
            return self.send(path.removeprefix("/elsewhere/"), {})
        if path == "/v1/chat/completions" and self.command == "POST":
            return self.chat(json.loads(body))
        return self.answer(404, {"error": f"no such page: {path}"})

    do_GET = do_POST = do_HEAD = handle_one

    def break_off(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def answer(self, status: int, body: Any = "", headers: dict[str, str] | None = None, length: int = -1) -> None:
        content = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content) if length < 0 else length), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        self.wfile.flush()

    # --- the Hub ----------------------------------------------------------------------------------------------------

    def resolve(self, repo: str, name: str) -> None:
        state = self.server_state
        if not any(known.startswith(repo + "/") for known in state.files):
            return self.answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        if name not in state.files:
            return self.answer(404, "", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        content = state.files[name]
        if name in state.large:
            headers = {
                "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Linked-Size": str(len(content)),
                "X-Repo-Commit": COMMIT, "Location": f"http://localhost:{state.port}/elsewhere/{name}",
            }  # fmt: skip
            return self.answer(302, "", headers)
        git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        return self.send(name, {"ETag": f'"{git}"', "X-Repo-Commit": COMMIT})

    def send(self, name: str, headers: dict[str, str]) -> None:
        """Send a file from where the request starts, up to a scripted cut."""
        state = self.server_state
        content = state.files[name]
        if self.command == "GET" and state.instead.get(name):
            content = state.instead[name].pop(0)
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        if asked:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        cut = next((cut for cut in state.cuts if re.search(cut[0], name)), None)
        rest = content[start:]
        if self.command == "GET" and cut:
            state.cuts.remove(cut)
            self.answer(206 if asked else 200, rest[: cut[1]], headers, len(rest))
            return self.break_off()
        return self.answer(206 if asked else 200, rest, headers)

    # --- the model --------------------------------------------------------------------------------------------------

    def chat(self, asked: dict[str, Any]) -> None:
        reply = self.server_state.reply(asked["messages"][0]["content"])
        if isinstance(reply, int):
            return self.answer(reply)
        if isinstance(reply, bytes):
            return self.answer(200, reply)
        message = {"role": "assistant", "content": reply}
        return self.answer(200, {"object": "chat.completion", "choices": [{"index": 0, "message": message}]})
