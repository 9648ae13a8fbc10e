"""When to stop (a signal, a time limit), and when something periodic, such as a checkpoint, is due."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, ClassVar

from utils import paint, use_color

COPIES_S = 5.0  # torchrun may pass on a signal that the ranks received too; within this time it is ignored


class Shutdown:
    """Turns Ctrl-C, SIGTERM and a closed terminal (SIGHUP) into a request that the loop reads between batches.

    The first signal asks for a clean stop: finish the batch, save, exit with 130, 143 or 129. The second one ends the
    process at once. Files on the disk are complete even then, because they are only ever renamed into place.

    With several ranks it prints nothing, and signals within COPIES_S of the first one are torchrun's copies of it.
    """

    SIGNALS: ClassVar = [signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

    def __init__(self, is_single: bool = True) -> None:
        self.is_single = is_single
        self.signal_number = 0  # the signal that asked to stop; 0: no signal
        self._first_at = -math.inf
        self._previous: dict[int, Any] = {}

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as shells count: 130 for Ctrl-C, 143 for SIGTERM; 0 without a signal."""
        return 128 + self.signal_number if self.signal_number else 0

    def __enter__(self) -> Shutdown:
        for number in self.SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP on purpose
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def share(self, number: int) -> None:
        """Act on a signal that another rank received; 0: no signal."""
        if number and not self.signal_number:
            self.signal_number, self._first_at = number, time.monotonic()

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.signal_number:
            if self.is_single or time.monotonic() - self._first_at >= COPIES_S:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        self.share(number)
        if not self.is_single:
            return
        again = "Press Ctrl-C again" if number == signal.SIGINT else "Send the signal again"
        text = f"warning: Stopping after this batch; the model will be saved. {again} to leave at once."
        with contextlib.suppress(OSError, ValueError):  # the terminal is closed, or the stream is not a file
            start = "\n" if sys.stderr.isatty() else ""  # a progress bar may be on this line
            text = f"{start}{paint(text, '33') if use_color(sys.stderr) else text}\n"
            os.write(sys.stderr.fileno(), text.encode())  # not print(): the signal may have interrupted one


def due(interval: int | None, batches_done: int) -> bool:
    """Whether something is due that comes after every `interval` batches; 0 or None: never."""
    return bool(interval and batches_done and batches_done % interval == 0)


class Timer:
    """Is due when `seconds` have passed since it began, or since it was last due; 0: never."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self._last = seconds, time.monotonic()

    def due(self) -> bool:
        is_due = 0 < self.seconds <= time.monotonic() - self._last
        if is_due:
            self._last = time.monotonic()
        return is_due


class StopFlags:
    """Whether to stop or to save after this batch. With several ranks, all of them act on the same flags."""

    signal = 0  # the signal that asks to stop; 0: no signal
    time_is_over = False  # the time limit is reached
    save = False  # it is time for a checkpoint

    def __init__(self, shutdown: Shutdown, limit_s: float = 0, save_s: float = 0, is_main: bool = True) -> None:
        """`limit_s` until the time limit, `save_s` between checkpoints; 0: never. Only the main rank's clock counts."""
        self.shutdown = shutdown
        self.limit = Timer(limit_s if is_main else 0)
        self.checkpoint = Timer(save_s if is_main else 0)

    @property
    def stop(self) -> bool:
        return bool(self.signal) or self.time_is_over

    def update(self, all_reduce_max: Callable[..., list[int]] | None = None) -> None:
        """Read the flags of this rank; with several ranks, take the maximum over all of them."""
        flags = [self.shutdown.signal_number, self.limit.due(), self.checkpoint.due()]
        self.signal, over, save = all_reduce_max(*flags) if all_reduce_max else flags
        self.time_is_over, self.save = bool(over), bool(save)
        self.shutdown.share(self.signal)
