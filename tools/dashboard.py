"""Show training runs in the browser while they train: curves, a table, samples, and the differences between their configs.

    python tools/dashboard.py [models/] [--port 8000]

It reads <folder>/*.metrics.jsonl and the <run>.config.json beside them, and writes nothing. The page is for this machine
only: the server listens on the loopback address. docs/dashboard.md explains the page.
"""

from __future__ import annotations

import errno
import hashlib
import json
import secrets
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Container, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "tools" / "dashboard"
sys.path[:0] = [str(ROOT), str(PAGE)]

from jojo.command import Parser, is_loopback, run_command
from utils import UserError, log, one_line, user_path  # isort: split

from metrics_follower import Folder, X, differences

REFRESH_SECONDS = 1.0
BUSY_SECONDS = 0.5  # before accepting a connection again
IDLE_SECONDS = 60.0  # an idle connection of a browser is closed after this time
MIN_POINTS, MAX_POINTS = 50, 2000  # points of a curve in an answer
MAX_WINDOW = 10**9  # the most rows to average over
FILES = {  # route -> file and type. No other file is ever sent; these are read once, at the start
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/charts.js": ("charts.js", "text/javascript; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/vendor/uPlot.min.css": ("vendor/uPlot.min.css", "text/css; charset=utf-8"),
    "/vendor/uPlot.iife.min.js": ("vendor/uPlot.iife.min.js", "text/javascript; charset=utf-8"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class BadQuery(Exception):
    """A field of a query is missing or invalid. The page itself sends no such query."""


class Server(ThreadingHTTPServer):
    """Serves the page and the data of one folder."""

    request_queue_size = 64

    def __init__(self, host: str, port: int, folder: Folder, any_host: bool = False) -> None:
        """Listen. Port 0 takes a free port. With `any_host`, requests may be addressed to any host name."""
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.folder, self.instance = folder, secrets.token_hex(4)  # tells the page that the server was restarted
        self.files = {route: ((PAGE / name).read_bytes(), kind) for route, (name, kind) in FILES.items()}
        super().__init__((host, port), Handler)
        self.name = f"[{host}]" if ":" in host else host
        names = ("localhost", "127.0.0.1", "[::1]", self.name)
        self.hosts = {f"{name}:{self.server_port}" for name in names} | ({*names} if self.server_port == 80 else set())
        self.any_host = any_host

    def server_bind(self) -> None:
        """Bind without looking up the machine's name, which may use the network."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[0], self.server_address[1]  # type: ignore[assignment]

    def get_request(self) -> tuple[Any, Any]:
        """Accept a connection. If that fails, as with too many open files, it waits in the queue: do not spin until then."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(BUSY_SECONDS)
            raise

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a browser that leaves in the middle of an answer; log anything else, which is a bug."""
        if not isinstance(sys.exc_info()[1], OSError):
            log.exception("While answering a request:")


class Handler(BaseHTTPRequestHandler):
    """Answers GET requests for the fixed files and the data. Nothing in a request ever becomes a path."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "Jojo", ""
    timeout = IDLE_SECONDS
    error_message_format, error_content_type = "%(code)d %(message)s\n", "text/plain; charset=utf-8"
    server: Server

    def do_GET(self) -> None:
        hosts = self.headers.get_all("Host", [])  # another name may be an attack from a web page (DNS rebinding)
        if not (self.server.any_host or (len(hosts) == 1 and hosts[0].strip().lower() in self.server.hosts)):
            return self.send_error(403, "This page is for this machine only; open it as localhost")
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            return self.send_error(400, "A request here has no body")
        route, _, query = self.path.partition("?")
        if route in self.server.files:
            return self.answer(*self.server.files[route])
        if route not in ANSWERS:
            return self.send_error(404)
        try:
            content = ANSWERS[route](self.server, dict(parse_qsl(query)))
        except BadQuery as error:
            return self.send_error(400, str(error))
        self.answer(json.dumps(content, separators=(",", ":"), allow_nan=False).encode(), "application/json")

    def refuse(self) -> None:
        """Answer every method but GET."""
        self.send_error(405, "Only GET")

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = refuse

    def answer(self, content: bytes, kind: str) -> None:
        """Send content, or 304 if the browser already has it."""
        tag = f'"{hashlib.blake2b(content, digest_size=12).hexdigest()}"'
        same = self.headers.get("If-None-Match") == tag
        self.send_response(304 if same else 200)
        self.send_header("ETag", tag)
        if not same:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if not same:
            self.wfile.write(content)

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        log.debug(one_line(format % args))


# --- what the page asks for -----------------------------------------------------------------------------------------


T = TypeVar("T")


def field(query: dict[str, str], name: str, kind: Callable[[str], T], allowed: Container[T] | None = None) -> T:
    """A field of a query. Raises BadQuery if it is missing, of another type, or not allowed."""
    try:
        value = kind(query[name])
    except (KeyError, ValueError):
        raise BadQuery(f"The query needs a field {name}") from None
    if allowed is not None and value not in allowed:
        raise BadQuery(f"The query's field {name} has an unknown value")
    return value


def overview(server: Server, _: dict[str, str]) -> dict[str, Any]:
    """/api/runs: the table. The version of a run changes when it has something new."""
    return {"instance": server.instance, **server.folder.overview()}


def curves(server: Server, query: dict[str, str]) -> dict[str, Any]:
    """/api/curves?run=1&x=step&points=1000&window=0&raw=1[&from=0&to=100]: all curves of a run in a range."""
    query = {"from": "-inf", "to": "inf", **query}
    low, high = field(query, "from", float), field(query, "to", float)
    if not low <= high:
        raise BadQuery("A range must begin before it ends")
    axis, raw = field(query, "x", str, allowed=X), field(query, "raw", int, allowed=(0, 1))
    points = min(max(field(query, "points", int), MIN_POINTS), MAX_POINTS)
    window = min(max(field(query, "window", int), 0), MAX_WINDOW)
    with server.folder.lock:
        run = server.folder.runs.get(field(query, "run", int))
        return {"curves": run.curves(axis, low, high, points, window, bool(raw))} if run else GONE


def samples(server: Server, query: dict[str, str]) -> dict[str, Any]:
    """/api/samples?run=1: the latest generated samples of a run, oldest first."""
    with server.folder.lock:
        run = server.folder.runs.get(field(query, "run", int))
        return {"rows": [{"step": step, "samples": texts} for _, step, texts in run.samples]} if run else GONE


def config(server: Server, query: dict[str, str]) -> dict[str, Any]:
    """/api/config?runs=1,2,5: the options that differ among these runs. Runs without a config are left out."""
    wanted = field(query, "runs", lambda text: [int(run_id) for run_id in text.split(",")])
    with server.folder.lock:
        runs = [server.folder.runs[run_id] for run_id in wanted if run_id in server.folder.runs]
        configs = {run.id: run.config for run in runs if run.config is not None}
    return {"runs": [*configs], "options": differences([*configs.values()])}


GONE = {"gone": True}  # the run's file was deleted since the page last looked, which is not an error
ANSWERS = {"/api/runs": overview, "/api/curves": curves, "/api/samples": samples, "/api/config": config}


# --- the command ----------------------------------------------------------------------------------------------------


def build_parser() -> Parser:
    """Flags of dashboard.py."""
    parser = Parser("[FOLDER] ", prog="dashboard.py", description=__doc__)
    add = parser.add_argument
    text = "folder that runs write their metrics to [%(default)s]"
    add("folder", nargs="?", default="models", metavar="FOLDER", help=text)
    add("--port", type=int, default=8000, metavar="N", help="port of the page; 0 takes a free one [%(default)s]")
    add("--host", default="127.0.0.1", metavar="ADDRESS", help="address to listen on [%(default)s]")
    add("--allow_remote", action="store_true", help="let other machines see the page, which has no password")
    add("--debug", action="store_true", help="show every request, and tracebacks with errors")
    return parser


def listen(host: str, port: int, folder: Folder, allow_remote: bool) -> Server:
    """Make the server and open its port. Raises UserError if it cannot or may not listen there."""
    host = host.strip("[]")
    if not allow_remote and not is_loopback(host):
        raise UserError(f"Other machines can reach --host {host}; add --allow_remote if that is what you want.")
    if not 0 <= port <= 65535:
        raise UserError(f"--port must be between 0 and 65535, not {port}.")
    try:
        return Server(host, port, folder, any_host=allow_remote)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"Port {port} is in use; choose another one with --port {port % 65535 + 1}.") from error
        raise UserError(f"Cannot listen on {host}, port {port} ({error.strerror}); see --host and --port.") from error


def follow(folder: Folder, stop: threading.Event) -> None:
    """Keep the folder's runs up to date until `stop` is set."""
    began = time.perf_counter()
    folder.refresh()
    if (seconds := time.perf_counter() - began) > 1:
        log.info("Read %s rows in %.1f s.", f"{sum(run.x.length for run in folder.runs.values()):,}", seconds)
    while not stop.wait(REFRESH_SECONDS):
        folder.refresh()


def main(arguments: Sequence[str]) -> int:
    """Serve the page until Ctrl-C; returns the exit code."""
    args = build_parser().parse_args(arguments)
    path, stop = user_path(args.folder), threading.Event()
    if path.exists() and not path.is_dir():
        raise UserError(f"'{path}' is not a folder; name the folder that runs write to, such as models/.")
    folder = Folder(path)
    with listen(args.host, args.port, folder, args.allow_remote) as server:
        if not path.exists():
            log.warning("There is no folder '%s' yet; the page is empty until a run writes there.", path)
        threading.Thread(target=follow, args=(folder, stop), daemon=True).start()
        if args.allow_remote:
            log.warning("Everybody who can reach this machine can see the runs.")
        log.info("http://%s:%d shows the runs in '%s'. Ctrl-C stops the server.", server.name, server.server_port, path)
        try:
            server.serve_forever()
        except KeyboardInterrupt:  # the normal end
            return 130
        finally:
            stop.set()
    return 0


if __name__ == "__main__":
    run_command(main)
