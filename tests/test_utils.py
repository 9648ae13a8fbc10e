"""Tests of utils.py: exit codes, the console, clean shutdown, "is it time", and how numbers are written."""

from __future__ import annotations

import errno
import io
import os
import pathlib
import signal
import sys
from collections.abc import Iterator

import pytest
from helpers_cli import finish, kept_log, start_python
from hypothesis import given, settings
from hypothesis import strategies as st

import utils
from jojo.command import explain_os_error, run_command
from jojo.stopping import Every, Shutdown
from utils import UserError, byte_count, duration, log, replace_text, short_count

Capsys = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """Leaves the log as it was."""
    with kept_log():
        yield


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def terminal(patch: pytest.MonkeyPatch) -> tuple[Terminal, Terminal]:
    """Makes standard output and error terminals, with NO_COLOR unset."""
    out, err = Terminal(), Terminal()
    patch.setattr(sys, "stdout", out)
    patch.setattr(sys, "stderr", err)
    patch.setenv("NO_COLOR", "")  # as if it were unset
    utils.set_up_console()
    return out, err


def raising(error: BaseException) -> utils.Callable[[list[str]], int]:
    def main(_: list[str]) -> int:
        raise error

    return main


def exit_code(main: utils.Callable[[list[str]], int], *arguments: str) -> object:
    with pytest.raises(SystemExit) as stopped:
        run_command(main, list(arguments))
    return stopped.value.code


# --- run_command ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 130, 143])
def test_the_code_of_main_is_the_exit_code(code: int) -> None:
    assert exit_code(lambda _: code) == code


def test_main_gets_the_arguments() -> None:
    seen: list[list[str]] = []
    assert exit_code(lambda arguments: seen.append(arguments) or 0, "--a", "b") == 0
    assert seen == [["--a", "b"]]


def test_arguments_come_from_the_command_line_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "--x"])
    seen: list[list[str]] = []
    with pytest.raises(SystemExit):
        run_command(lambda arguments: seen.append(arguments) or 0)
    assert seen == [["--x"]]


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("Mend 100% of it."), 1, "error: Mend 100% of it."),
        (KeyboardInterrupt(), 130, "error: Interrupted."),
        (PermissionError(13, "Permission denied", "models/x.pt"), 1, "error: Permission denied: 'models/x.pt'"),
        (OSError(28, "No space left on device"), 1, "error: No space left on device:"),
    ],
)
def test_what_a_user_can_cause_is_one_line_and_a_code(
    error: BaseException, code: int, line: str, capsys: Capsys
) -> None:
    assert exit_code(raising(error)) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(line) and captured.err.count("\n") == 1


def test_debug_shows_the_traceback(capsys: Capsys) -> None:
    assert exit_code(raising(UserError("Mend it.")), "--debug") == 1
    error = capsys.readouterr().err
    assert "error: Mend it." in error and "Traceback" in error


def test_bugs_keep_their_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(raising(ZeroDivisionError()), [])


def test_argparse_keeps_its_exit_code() -> None:
    assert exit_code(raising(SystemExit(2))) == 2


def test_a_reader_that_leaves_causes_no_complaint(tmp_path: pathlib.Path) -> None:
    (tmp_path / "talk.py").write_text(
        "import utils\n"
        "def main(arguments):\n"
        "    for i in range(100_000): print('line', i)\n"
        "    return 0\n"
        "utils.run_command(main)\n"
    )
    process = start_python("talk.py", cwd=tmp_path)
    assert process.stdout and process.stderr
    assert process.stdout.readline() == "line 0\n"
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 1
    assert error == ""


# --- console --------------------------------------------------------------------------------------------------------


def test_information_goes_to_stdout_and_problems_to_stderr(capsys: Capsys) -> None:
    utils.set_up_console()
    log.info("all well")
    log.warning("careful")
    log.error("broken")
    log.debug("detail")
    captured = capsys.readouterr()
    assert captured.out == "all well\n"
    assert captured.err == "warning: careful\nerror: broken\n"


def test_debug_shows_detail(capsys: Capsys) -> None:
    utils.set_up_console(debug=True)
    log.debug("detail")
    assert capsys.readouterr().out == "debug: detail\n"


def test_a_terminal_gets_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = terminal(monkeypatch)
    log.error("broken")
    log.info("all well")
    assert err.getvalue() == "\033[31merror: broken\033[0m\n"
    assert out.getvalue() == "all well\n"


@pytest.mark.parametrize("flag", ["--no_color", "--no-color"])
def test_no_color_on_the_command_line_wins_over_a_terminal(monkeypatch: pytest.MonkeyPatch, flag: str) -> None:
    _, err = terminal(monkeypatch)
    assert exit_code(raising(UserError("broken")), flag) == 1
    assert err.getvalue() == "error: broken\n"


def test_no_color_in_the_environment_wins_over_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    _, err = terminal(monkeypatch)
    monkeypatch.setenv("NO_COLOR", "1")
    assert exit_code(raising(UserError("broken"))) == 1
    assert err.getvalue() == "error: broken\n"


def test_a_dumb_terminal_gets_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    out, _ = terminal(monkeypatch)
    monkeypatch.setenv("TERM", "dumb")
    assert not utils.use_color(out)


def test_an_empty_no_color_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    out, _ = terminal(monkeypatch)
    assert utils.os.environ["NO_COLOR"] == ""
    assert utils.use_color(out)


def test_a_pipe_gets_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "")
    assert not utils.use_color(io.StringIO())
    assert not utils.use_color(object())


def test_characters_a_console_lacks_are_replaced(tmp_path: pathlib.Path) -> None:
    code = "import utils; utils.set_up_console(); utils.log.info('caf\\u00e9 \\u732b')"
    result = finish(start_python("-c", code, cwd=tmp_path, PYTHONIOENCODING="ascii"))
    assert (result.code, result.out) == (0, "caf? ?\n")


def test_operating_system_errors_name_the_file() -> None:
    text = explain_os_error(FileNotFoundError(2, "No such file or directory", "a/b.txt"))
    assert text.startswith("No such file or directory: 'a/b.txt'") and text.endswith(".")
    assert "None" not in explain_os_error(OSError("odd"))


# --- writing text ---------------------------------------------------------------------------------------------------


def test_a_text_is_written_through_links_and_into_pipes_and_never_half(tmp_path: pathlib.Path) -> None:
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to(tmp_path / "real.txt")
    replace_text(tmp_path / "link.txt", "new \ud800\n")
    assert (tmp_path / "link.txt").is_symlink() and (tmp_path / "real.txt").read_text() == "new ?\n"
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    replace_text(tmp_path / "pipe", "through\n")
    assert os.read(reader, 99) == b"through\n"
    os.close(reader)
    with pytest.raises(UserError, match=r"Could not write '.*' \(Is a directory\)"):
        replace_text(tmp_path, "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.txt", "pipe", "real.txt"]


# --- Shutdown -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_the_first_signal_only_asks(
    number: signal.Signals, code: int, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", os.fdopen(os.dup(2), "w"))
    before = signal.getsignal(number)
    utils.set_up_console()
    with Shutdown() as stop:
        assert not stop.requested and stop.exit_code == 0
        signal.raise_signal(number)
        assert stop.requested and stop.exit_code == code
    assert signal.getsignal(number) is before
    sys.stderr.close()
    assert "saved" in capfd.readouterr().err


def test_a_signal_in_the_middle_of_a_print_does_not_break_it(tmp_path: pathlib.Path) -> None:
    code = """
import io, signal, sys
from utils import Shutdown, log, set_up_console
class Interrupted(io.RawIOBase):  # a stream that is being written to when the signal comes
    def writable(self): return True
    def write(self, data):
        if not stop.requested:
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
            assert not stop.requested
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EPIPE])
def test_a_console_that_cannot_be_written_to_does_not_end_the_work(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(number, "gone")

    monkeypatch.setattr(sys, "stdout", Gone())
    monkeypatch.setattr(sys, "stderr", Gone())
    utils.set_up_console()
    utils.log.info("to nobody")
    utils.log.error("to nobody")


TWO_SIGNALS = """
import signal
from utils import Shutdown
with Shutdown() as stop:
    signal.raise_signal(signal.{first})
    print("asked", stop.exit_code, flush=True)
    signal.raise_signal(signal.{second})
    print("not reached", flush=True)
"""


@pytest.mark.parametrize(("first", "second"), [("SIGINT", "SIGINT"), ("SIGTERM", "SIGTERM"), ("SIGTERM", "SIGINT")])
def test_the_second_signal_leaves_at_once(first: str, second: str, tmp_path: pathlib.Path) -> None:
    result = finish(start_python("-c", TWO_SIGNALS.format(first=first, second=second), cwd=tmp_path))
    assert result.code == -getattr(signal, second)  # what a shell shows as 128 + the number
    assert result.out == f"asked {128 + getattr(signal, first)}\n"


# --- Every ----------------------------------------------------------------------------------------------------------


def test_every_interval_counts_batches() -> None:
    every = Every(3)
    assert [n for n in range(1, 10) if every.due(n)] == [3, 6, 9]


@pytest.mark.parametrize("every", [Every(), Every(0), Every(None, 0), Every(0, 0.0)])
def test_zero_and_none_mean_never(every: Every) -> None:
    assert not any(every.due(n) for n in range(1, 50))


def test_every_so_many_seconds_counts_from_the_last_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(utils.time, "monotonic", lambda: clock[0])
    every, due = Every(seconds=10), []
    for second in (1, 9.5, 10, 15, 19.9, 21, 30.9, 31):
        clock[0] = 100 + second
        due.append(every.due(1))
    assert due == [False, False, True, False, False, True, False, True]


# --- numbers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0 s"),
        (0, "0.0 s"),
        (3.21, "3.2 s"),
        (42, "42 s"),
        (59.7, "1 min 00 s"),
        (60, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.6, "1 h 00 min"),
        (7800, "2 h 10 min"),
        (47.9 * 3600, "47 h 54 min"),
        (76 * 3600, "3 days 4 h"),
    ],
)
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@settings(deadline=None)
@given(st.floats(0, 1e9))
def test_durations_never_overflow_a_unit(seconds: float) -> None:
    words = duration(seconds).split()
    parts = dict(zip(words[1::2], map(float, words[::2]), strict=True))
    assert parts.get("s", 0) < 60 and parts.get("min", 0) < 60 and parts.get("h", 0) < 48
    units = {"s": 1, "min": 60, "h": 3600, "days": 86_400}
    smallest = units[words[-1]]
    assert abs(sum(units[unit] * number for unit, number in parts.items()) - seconds) <= smallest


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (9_999, "9,999"), (12_345, "12.3k"), (12_345_678, "12.3M"), (1.5e9, "1.5B"), (3e12, "3.0T")],
)
def test_counts_are_short(number: float, text: str) -> None:
    assert short_count(number) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1_500, "1.5 kB"), (1.5e6, "1.5 MB"), (2e9, "2.0 GB")]
)
def test_byte_counts_use_decimal_units(number: float, text: str) -> None:
    assert byte_count(number) == text
