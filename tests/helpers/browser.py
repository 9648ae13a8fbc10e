"""Headless Chromium, driven through the DevTools protocol with the standard library only."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--window-size=1300,900", "--remote-debugging-port=0"),
]
TIMEOUT_S = 30.0  # to wait for a change of the page before the test fails
KEYS = {"ArrowLeft": 37, "ArrowRight": 39, "Tab": 9, " ": 32, "Enter": 13, "Escape": 27, "Home": 36, "End": 35}


class Browser:
    """A new Chromium with one page, and what that page requested and reported."""

    def __enter__(self) -> Browser:
        self.home = tempfile.TemporaryDirectory(prefix="jojo-browser-", ignore_cleanup_errors=True)
        command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={self.home.name}", "about:blank"]
        environment = {**os.environ, "HOME": self.home.name}
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        self.events: list[dict[str, Any]] = []
        self.number = 0
        port_file = Path(self.home.name) / "DevToolsActivePort"
        self._until(lambda: port_file.exists() and port_file.read_text().count("\n"), "the browser does not start")
        port = int(port_file.read_text().splitlines()[0])
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
            url = next(target["webSocketDebuggerUrl"] for target in json.load(answer) if target["type"] == "page")
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {urlsplit(url).path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self.stream = self.socket.makefile("rb")
        while self.stream.readline().strip():  # the answer's headers
            pass
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self.call("Browser.close")
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.stream.close()
        self.socket.close()
        self.home.cleanup()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its result; events that come in between are kept."""
        self.number += 1
        content = json.dumps({"id": self.number, "method": method, "params": parameters}).encode()
        length = len(content)
        size = struct.pack(">B", 0x80 | length) if length < 126 else struct.pack(">BH", 0xFE, length)
        assert length < 1 << 16
        self.socket.sendall(b"\x81" + size + b"\0\0\0\0" + content)  # one frame of text, masked with zeros
        while True:
            message = json.loads(self._receive())
            if message.get("id") == self.number:
                assert "error" not in message, message["error"]
                return message["result"]
            self.events.append(message)

    def _receive(self) -> bytes:
        """The next message, put together from its frames."""
        content, last = b"", False
        while not last:
            head = self.stream.read(2)
            if len(head) < 2:
                raise ConnectionError("the browser is gone")
            length = head[1]
            if length > 125:
                form = ">H" if length == 126 else ">Q"
                (length,) = struct.unpack(form, self.stream.read(struct.calcsize(form)))
            content += self.stream.read(length)
            last = bool(head[0] & 0x80)
        return content

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def open(self, url: str) -> None:
        """Open a page, and forget the events of the page before."""
        self.events.clear()
        self.call("Page.navigate", url=url)
        self.wait("document.readyState == 'complete'")

    def wait(self, script: str) -> None:
        """Wait until an expression in the page is true."""
        self._until(lambda: self.evaluate(script), script)

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """Send a mouse event at a place in the window."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def press(self, key: str) -> None:
        """Press a key and release it."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=KEYS[key])

    def problems(self) -> list[str]:
        """Messages in the console, and uncaught errors."""
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(event["params"]) for event in self.events if event["method"] in kinds]

    def hosts(self) -> set[str]:
        """The hosts that the page sent requests to."""
        sent = [event["params"] for event in self.events if event["method"] == "Network.requestWillBeSent"]
        return {urlsplit(params["request"]["url"]).netloc for params in sent}

    @staticmethod
    def _until(condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(what)
            time.sleep(0.05)
