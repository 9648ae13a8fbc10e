"""Who may talk to the server, and how much: checked before a request is read.

- A page of another site must not use a server on this machine: its requests carry a foreign Origin, or (after DNS rebinding)
  a foreign Host.
- With a key, the API answers only to those who send it.
- A request's body has a limit in bytes and in seconds. A connection must bring a request in time, and read its answer.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import socket
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

import h11
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from serving.answers import as_json, error_body

MAX_BODY_BYTES = 256 << 10
READ_SECONDS = 10.0  # for a request's head, and again for its body
WRITE_SECONDS = 60.0  # until a client reads more
SECURITY_HEADERS = {
    "content-security-policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


@dataclass(frozen=True)
class Rules:
    """What the guard checks."""

    hosts: Collection[str]  # names that a Host header may have
    any_address: bool  # it may also be any IP address: the server listens on all of them
    key: str | None

    def knows_host(self, header: str) -> bool:
        """Whether a Host header names this server."""
        name = _host_of(f"//{header}")
        return name in self.hosts or (self.any_address and _is_address(name))

    def problem(self, path: str, headers: Headers) -> tuple[int, str, str] | None:
        """Status, sentence and code if a request is refused."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self.knows_host(host):
            return 403, "The Host header does not name this server; use the address that serve.py shows.", "wrong_host"
        if origin is not None and origin.partition("://")[2] != host:
            return 403, "Requests from pages of other sites are refused.", "wrong_origin"
        if self.key is None or path in ("/", "/health") or path.startswith("/page/"):
            return None
        scheme, _, sent = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(sent.encode(), self.key.encode()):
            return 401, "A key is needed: send the header Authorization: Bearer KEY.", "invalid_api_key"
        return None


class Guard:
    """ASGI middleware: refuses what `rules` forbid, reads the body within its limits, and adds SECURITY_HEADERS."""

    def __init__(self, app: ASGIApp, rules: Rules) -> None:
        self.app, self.rules = app, rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_encoded(SECURITY_HEADERS)]
            await send(message)

        async def refuse(status: int, message: str, code: str) -> None:
            kind = "authentication_error" if status == 401 else "invalid_request_error"
            headers = {"connection": "close"} | ({"www-authenticate": "Bearer"} if status == 401 else {})
            await as_json(error_body(message, kind, code=code), status, headers)(scope, receive, send_safely)

        if problem := self.rules.problem(scope["path"], Headers(scope=scope)):
            return await refuse(*problem)
        try:
            body = await asyncio.wait_for(read_body(receive), READ_SECONDS)
        except asyncio.TimeoutError:
            return await refuse(408, f"The request did not arrive within {READ_SECONDS:g} seconds.", "timeout")
        if body is None:
            return await refuse(413, f"The request exceeds {MAX_BODY_BYTES:,} bytes.", "request_too_large")
        unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_again() -> Message:
            return unread.pop() if unread else await receive()

        await self.app(scope, receive_again, send_safely)


async def read_body(receive: Receive) -> bytes | None:
    """A request's body; None if it is too long, or if the client has gone before its end."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES or message["type"] == "http.disconnect":
            return None
        if not message["more_body"]:
            return bytes(body)


class ImpatientProtocol(H11Protocol):
    """uvicorn's HTTP, but it does not wait for ever: for the head of a request READ_SECONDS, for a reader WRITE_SECONDS."""

    _stuck: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # Without this, the first event of a stream waits 40 ms for the client to acknowledge the head.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._wait_for_request()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stuck = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stuck:
            self._stuck.cancel()

    def send_400_response(self, msg: str) -> None:
        """What is not HTTP gets an answer in the API's form."""
        headers = {"content-type": "application/json", "connection": "close"}
        body = json.dumps(error_body(msg)).encode()
        response = h11.Response(status_code=400, headers=_encoded(headers | SECURITY_HEADERS), reason=b"Bad Request")
        for event in (response, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        if self.cycle is not None and self.cycle.response_complete:  # a kept connection: another request begins
            self._wait_for_request()
        super().data_received(data)

    def _wait_for_request(self) -> None:
        self.loop.call_later(READ_SECONDS, self._close_if_none_followed, self.cycle)

    def _close_if_none_followed(self, last: RequestResponseCycle | None) -> None:
        if self.cycle is last:
            self.transport.close()


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # a bracket without its other half
        return ""


def _is_address(name: str) -> bool:
    try:
        return bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def _encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]
