"""Tests of jojo/stopping.py: signals between batches, and when something periodic is due."""

from __future__ import annotations

import os
import pathlib
import signal
import sys

import pytest
from helpers_cli import finish, start_python

import utils
from jojo import stopping
from jojo.stopping import Shutdown, StopFlags, Timer, due

Capsys = pytest.CaptureFixture[str]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_the_first_signal_only_asks_to_stop(
    number: signal.Signals, code: int, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", os.fdopen(os.dup(2), "w"))
    before = signal.getsignal(number)
    utils.set_up_console()
    with Shutdown() as stop:
        assert not stop.signal_number and stop.exit_code == 0
        signal.raise_signal(number)
        assert stop.signal_number and stop.exit_code == code
    assert signal.getsignal(number) is before
    sys.stderr.close()
    assert "saved" in capfd.readouterr().err


def test_a_signal_in_the_middle_of_a_print_does_not_break_it(tmp_path: pathlib.Path) -> None:
    code = """
import io, signal, sys
from jojo.stopping import Shutdown
from utils import log, set_up_console
class Interrupted(io.RawIOBase):  # a stream that is being written to when the signal comes
    def writable(self): return True
    def write(self, data):
        if not stop.signal_number:
            signal.raise_signal(signal.SIGINT)
        return len(data)
    def fileno(self): return 2
with Shutdown() as stop:
    sys.stdout = sys.stderr = io.TextIOWrapper(io.BufferedWriter(Interrupted()), write_through=True)
    set_up_console()
    log.info("hello")
    log.error("hello")
    sys.exit(stop.exit_code)
"""
    result = finish(start_python("-c", code, cwd=tmp_path))
    assert (result.code, result.err.count("Stopping after this batch")) == (130, 1)


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup leaves it
    try:
        with Shutdown() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop.signal_number
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


TWO_SIGNALS = """
import signal
from jojo.stopping import Shutdown
with Shutdown() as stop:
    signal.raise_signal(signal.{first})
    print("asked", stop.exit_code, flush=True)
    signal.raise_signal(signal.{second})
    print("not reached", flush=True)
"""


@pytest.mark.parametrize(("first", "second"), [("SIGINT", "SIGINT"), ("SIGTERM", "SIGTERM"), ("SIGTERM", "SIGINT")])
def test_the_second_signal_ends_the_process_at_once(first: str, second: str, tmp_path: pathlib.Path) -> None:
    result = finish(start_python("-c", TWO_SIGNALS.format(first=first, second=second), cwd=tmp_path))
    assert result.code == -getattr(signal, second)  # a shell shows it as 128 + the number
    assert result.out == f"asked {128 + getattr(signal, first)}\n"


# --- due, Timer ----------------------------------------------------------------------------------------------------------


def test_every_interval_counts_batches() -> None:
    assert [n for n in range(10) if due(3, n)] == [3, 6, 9]


@pytest.mark.parametrize("interval", [None, 0])
def test_zero_and_none_mean_never(interval: int | None) -> None:
    assert not any(due(interval, n) for n in range(50)) and not Timer(0).due()


def test_a_timer_counts_from_the_last_time_it_was_due(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(stopping.time, "monotonic", lambda: clock[0])
    timer, dues = Timer(10), []
    for second in (1, 9.5, 10, 15, 19.9, 21, 30.9, 31):
        clock[0] = 100 + second
        dues.append(timer.due())
    assert dues == [False, False, True, False, False, True, False, True]


# --- several ranks -------------------------------------------------------------------------------------------------


def test_ranks_stop_and_save_together_by_the_clock_of_rank_0() -> None:
    def flags_of(is_main: bool, limit_s: float, save_s: float, other: tuple[int, int, int] = (0, 0, 0)) -> StopFlags:
        flags = StopFlags(Shutdown(), limit_s, save_s, is_main)
        flags.update(lambda *own: [max(pair) for pair in zip(own, other, strict=True)])
        return flags

    main = flags_of(True, 0, 1e-9)
    assert (main.stop, main.save) == (False, True)
    assert flags_of(True, 1e-9, 0).stop
    other = flags_of(False, 1e-9, 1e-9)
    assert (other.stop, other.save) == (False, False)
    assert flags_of(False, 0, 0, other=(0, 0, 1)).save and flags_of(False, 0, 0, other=(0, 1, 0)).stop
    signalled = flags_of(False, 0, 0, other=(15, 0, 0))
    assert (signalled.stop, signalled.shutdown.exit_code) == (True, 143)


def test_a_signal_from_another_rank_and_the_launchers_copies_of_it_count_once() -> None:
    with Shutdown(is_single=False) as stop:
        stop.share(0)
        assert not stop.signal_number
        stop.share(15)
        for _ in range(3):
            os.kill(os.getpid(), 15)
        assert stop.signal_number == 15
