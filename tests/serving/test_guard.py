"""Requests that the server must refuse, and connections that say nothing."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest
from helpers_serving import Client, endless_model, served, serving, until

from serving import guard
from serving.guard import MAX_BODY_BYTES, Rules

BODY = {"model": "tiny", "prompt": "A", "max_tokens": 2}


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with serving(served("tiny")) as made:
        yield made


@pytest.mark.parametrize(
    ("host", "local", "everywhere"),
    [
        ("127.0.0.1:8000", True, True), ("localhost", True, True), ("[::1]:8000", True, True), ("LOCALHOST:1", True, True),
        ("192.168.0.7:8000", False, True), ("[fe80::1]:8000", False, True), ("big.lan", False, True),
        ("evil.example", False, False), ("localhost.evil.example", False, False), ("127.0.0.1.nip.io", False, False),
        ("", False, False), ("[::1", False, False), ("x@localhost", True, True),
    ],
)  # fmt: skip
def test_a_host_header_must_name_the_server(host: str, local: bool, everywhere: bool) -> None:
    names = ("localhost", "127.0.0.1", "::1")
    assert Rules(names, any_address=False, key=None).knows_host(host) == local
    assert Rules((*names, "big.lan"), any_address=True, key=None).knows_host(host) == everywhere


@pytest.mark.parametrize("path", ["/v1/models", "/", "/page/page.js", "/health", "/no/such/path"])
def test_a_foreign_host_is_refused_everywhere(client: Client, path: str) -> None:
    status, answer = client.ask(path, Host="evil.example")
    assert (status, answer["error"]["code"]) == (403, "wrong_host")


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://localhost", "http://[", ""]
)
def test_pages_of_other_sites_are_refused(client: Client, origin: str) -> None:
    status, answer = client.ask("/v1/completions", BODY, Origin=origin)
    assert (status, answer["error"]["code"]) == (403, "wrong_origin")
    assert client.ask("/v1/completions", BODY, Origin=client.url)[0] == 200


def test_with_a_key_only_its_owners_may_ask() -> None:
    with serving(served("tiny"), key="secret") as client:
        for path, body in (
            ("/v1/models", None),
            ("/v1/completions", BODY),
            ("/metrics", None),
            ("/openapi.json", None),
        ):
            for sent in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer secre\xe9"}):
                status, answer = client.ask(path, body, **sent)
                assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
            assert client.ask(path, body, Authorization="Bearer secret")[0] == 200
        assert client.ask("/")[0] == client.ask("/page/page.js")[0] == client.ask("/health")[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe{}", b'{"model": "tiny", "prompt": NaN}', b"[" * 100_000,
 b'{"model": "tiny", "prompt": "A", "seed": 1e999}',
        b'{"model": "tiny", "prompt": "A", "max_tokens": ' + b"9" * 5000 + b"}", b"--boundary",
    ],
)  # fmt: skip
def test_a_malformed_body_is_400_in_the_apis_form(client: Client, body: bytes) -> None:
    status, answer = client.ask("/v1/completions", body, method="POST")
    assert status == 400
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert len(answer["error"]["message"]) < 300


def test_other_paths_and_methods_have_the_apis_form(client: Client) -> None:
    for method, path, expected in (("GET", "/v1/nothing", 404), ("GET", "/v1/completions", 405), ("PUT", "/", 405)):
        status, answer = client.ask(path, method=method)
        assert status == expected and "message" in answer["error"]
    for path in ("/page/../app.py", "/page/%2e%2e/app.py", "/page/..%2f..%2fserve.py", "/page//etc/passwd"):
        assert client.ask(path)[0] == 404


def test_a_body_that_is_too_long_is_refused(client: Client) -> None:
    body = b'{"prompt": "' + b"a" * MAX_BODY_BYTES + b'"}'
    status, answer = client.ask("/v1/completions", body)
    assert (status, answer["error"]["code"]) == (413, "request_too_large")
    chunk = b"10000\r\n" + b"a" * 0x10000 + b"\r\n"
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    status, _, _ = client.raw(head + chunk * (MAX_BODY_BYTES // 0x10000 + 1))
    assert status == 413


def test_what_is_not_http_is_400_in_the_apis_form(client: Client) -> None:
    for content in (b"garbage\r\n\r\n", b"GET /health HTTP/1.1\r\n\r\n", b"\x16\x03\x01\r\n\r\n"):
        status, headers, body = client.raw(content)
        assert (status, headers["content-type"]) == (400, "application/json")
        assert json.loads(body)["error"]["message"] == "Invalid HTTP request received."


def test_a_client_that_does_not_read_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "WRITE_SECONDS", 0.3)
    endless = served("endless", model=endless_model())
    with serving(endless, max_tokens=10**6, buffer=4096) as client, client.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        body = json.dumps(
            {"model": "endless", "prompt": "A" * 9, "max_tokens": 10**6, "stream": True, "logprobs": 20}
        ).encode()
        fields = f"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(f"POST /v1/completions HTTP/1.1\r\n{fields}".encode() + body)
        until(lambda: endless.engine.running)
        until(lambda: not endless.engine.running)


def test_connections_that_send_nothing_are_closed_and_others_are_served(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "READ_SECONDS", 0.5)
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n"
    silent = [client.connect() for _ in range(30)]
    for number, connection in enumerate(silent):
        connection.sendall((b"", head, head + b"\r\n{")[number % 3])
    assert client.ask("/v1/completions", BODY)[0] == 200
    for number, connection in enumerate(silent):
        answer = b"".join(iter(lambda connection=connection: connection.recv(1 << 16), b""))  # until it is closed
        assert answer.startswith(b"HTTP/1.1 408") == (number % 3 == 2), answer
        connection.close()


def test_a_kept_connection_has_the_same_time_for_another_request(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "READ_SECONDS", 0.5)
    with client.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = connection.recv(1 << 16)
        connection.sendall(b"GET /hea")
        answer += b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert answer.count(b"HTTP/1.1 200") == 1 and answer.count(b"HTTP/1.1") == 1


def test_every_answer_forbids_what_comes_from_elsewhere(client: Client) -> None:
    for path, host in (
        ("/", "localhost"),
        ("/v1/models", "localhost"),
        ("/v1/models", "evil.example"),
        ("/x", "localhost"),
    ):
        _, headers, body = client.raw(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        assert headers["content-security-policy"].startswith("default-src 'self'; ")
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers
        assert b"Traceback" not in body
