"""TODO."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import ClassVar

from utils import paint, use_color


class Shutdown:
    """Turns Ctrl-C, SIGTERM and a closed terminal (SIGHUP) into a request that the loop reads between batches.

    The first signal asks for a clean stop (finish the batch, save, exit 130, 143 or 129). The second one leaves at
    once, as the signal does by default: files already on disk are complete because they are only ever renamed.

    Args:
        quiet: say nothing of it; another process does.
        repeats_s: signals within so many seconds of the first one are the same one: launchers pass on to each process
            what the terminal sent to all.
    """

    SIGNALS: ClassVar = [signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

    def __init__(self, quiet: bool = False, repeats_s: float = 0.0) -> None:
        self.signal_number: int | None = None
        self.quiet, self.repeats_s = quiet, repeats_s
        self._first_at = -math.inf
        self._previous: dict[int, signal.Handlers | Callable[[int, FrameType | None], object] | int | None] = {}

    @property
    def requested(self) -> bool:
        return self.signal_number is not None

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as shells count: 130 for Ctrl-C, 143 for SIGTERM; 0 without one."""
        return 128 + self.signal_number if self.signal_number else 0

    def __enter__(self) -> Shutdown:
        for number in self.SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup has SIGHUP ignored, and means it
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def share(self, number: int) -> None:
        """Take over a signal that another rank got (0: none did)."""
        if number and not self.requested:
            self.signal_number, self._first_at = number, time.monotonic()

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.requested:
            if time.monotonic() - self._first_at >= self.repeats_s:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        self.signal_number, self._first_at = number, time.monotonic()
        if not self.quiet:
            again = "Press Ctrl-C again" if number == signal.SIGINT else "Send the signal again"
            say_at_once(f"warning: Stopping after this batch; the model will be saved. {again} to leave at once.")


def say_at_once(text: str) -> None:
    """Print from a signal handler, past the buffers: the signal may have come in the middle of a print."""
    with contextlib.suppress(OSError, ValueError):  # no terminal any more, or a stream that is no file
        if sys.stderr.isatty():  # perhaps in the middle of a progress bar
            text = "\n" + text
        os.write(sys.stderr.fileno(), (paint(text, "33") if use_color(sys.stderr) else text).encode() + b"\n")


class Every:
    """The one answer to "is it time?": every `interval` batches, or every `seconds`; 0 or None means never."""

    def __init__(self, interval: int | None = None, seconds: float | None = None) -> None:
        self.interval = interval
        self.seconds = seconds
        self._last = time.monotonic()

    def due(self, batches_done: int) -> bool:
        """True when `batches_done` is a multiple of the interval, or the seconds have passed since the last time."""
        if self.interval and batches_done % self.interval == 0:
            return True
        if self.seconds and time.monotonic() - self._last >= self.seconds:
            self._last = time.monotonic()
            return True
        return False
