"""Metrics files and a server, for the tests of the live view."""

from __future__ import annotations

import itertools
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tools import dashboard

from metrics_follower import Folder  # isort: skip  (the import above puts it on the path)

ROOT = Path(__file__).resolve().parents[2]


def row(step: int, **more: Any) -> dict[str, Any]:
    """A row of a metrics file as the trainer writes it."""
    return {
        "step": step,
        "tokens": step * 100,
        "elapsed_s": step / 2,
        "loss": 10 / step,
        "lr": step / 1e4,
        "grad_norm": 1.0,
        "tokens_per_s": 200.0,
        "samples_per_s": 2.0,
        "mfu": None,
        "peak_memory_bytes": None,
        **more,
    }


def lines(*steps: int, **more: Any) -> bytes:
    """The lines of a metrics file for these steps."""
    return b"".join(json.dumps(row(step, **more)).encode() + b"\n" for step in steps)


clock = itertools.count(1)


def write(path: Path, content: bytes, append: bool = False) -> None:
    """Write a file, with a later time than the last one written."""
    with open(path, "ab" if append else "wb") as file:
        file.write(content)
    os.utime(path, ns=(0, 10**18 + next(clock) * 10**9))


@contextmanager
def serving(folder: Path, port: int = 0, any_host: bool = False) -> Iterator[dashboard.Server]:
    """A server for a folder that has been read once."""
    followed = Folder(folder)
    followed.refresh()
    with dashboard.listen("127.0.0.1", port, followed, allow_remote=any_host) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
