"""Tests of utils.py: the console, files, and numbers for people to read."""

from __future__ import annotations

import errno
import io
import os
import pathlib
import sys
from collections.abc import Iterator

import pytest
from helpers_cli import finish, kept_log, start_python, terminal
from hypothesis import given, settings
from hypothesis import strategies as st

import utils
from utils import UserError, byte_count, duration, locked, log, replace_text, short_count

Capsys = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """Restores the log after each test."""
    with kept_log():
        yield


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux can limit the cores of a process")
def test_only_the_cores_that_the_process_may_use_count() -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert utils.usable_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


# --- console --------------------------------------------------------------------------------------------------------


def test_info_goes_to_stdout_and_warnings_and_errors_go_to_stderr(capsys: Capsys) -> None:
    utils.set_up_console()
    log.info("all well")
    log.warning("careful")
    log.error("broken")
    log.debug("detail")
    captured = capsys.readouterr()
    assert captured.out == "all well\n"
    assert captured.err == "warning: careful\nerror: broken\n"


def test_debug_messages_are_shown_only_with_debug(capsys: Capsys) -> None:
    utils.set_up_console(debug=True)
    log.debug("detail")
    assert capsys.readouterr().out == "debug: detail\n"


def test_a_terminal_gets_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = terminal(monkeypatch)
    log.error("broken")
    log.info("all well")
    assert err.getvalue() == "\033[31merror: broken\033[0m\n"
    assert out.getvalue() == "all well\n"


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


def test_characters_that_the_console_cannot_encode_are_replaced(tmp_path: pathlib.Path) -> None:
    code = "import utils; utils.set_up_console(); utils.log.info('caf\\u00e9 \\u732b')"
    result = finish(start_python("-c", code, cwd=tmp_path, PYTHONIOENCODING="ascii"))
    assert (result.code, result.out) == (0, "caf? ?\n")


def test_what_would_control_a_terminal_is_written_out_on_the_console_and_in_the_log_file(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, err = terminal(monkeypatch)
    with utils.log_to_file(tmp_path / "train.log", "a\x1b[2Jrun"):
        log.info("data '%s'", "\x1b]0;owned\x07\x9b31m\r\b\u202e\u2066")
        log.warning("two lines\nand a\ttab, é 猫 \u200d \u200c")
    assert out.getvalue() == "data '\\x1b]0;owned\\x07\\x9b31m\\r\\x08\\u202e\\u2066'\n"
    assert err.getvalue() == "\033[33mwarning: two lines\nand a\ttab, é 猫 \u200d \u200c\033[0m\n"
    text = (tmp_path / "train.log").read_text()
    assert "\\x1b[2Jrun: data '\\x1b]0" in text and not set("\x1b\x07\x9b\r\b\u202e") & set(text)


def test_only_a_terminal_shows_a_part_of_a_message_in_red(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    out, _ = terminal(monkeypatch)
    with utils.log_to_file(tmp_path / "train.log", "run"):
        log.info("best 1, worst 3", extra={"red": r"(?<=worst )\d"})
    assert out.getvalue() == "best 1, worst \033[31m3\033[0m\n"
    assert (tmp_path / "train.log").read_text().endswith("best 1, worst 3\n")


# --- writing text ---------------------------------------------------------------------------------------------------


def test_replace_text_follows_links_writes_into_pipes_and_leaves_no_temporary_file(tmp_path: pathlib.Path) -> None:
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


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EPIPE])
def test_a_console_that_cannot_be_written_to_does_not_stop_the_program(
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
def test_durations_are_shown_in_the_units_that_people_use(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@settings(deadline=None)
@given(st.floats(0, 1e9))
def test_durations_never_show_60_seconds_or_60_minutes(seconds: float) -> None:
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
def test_large_counts_are_shortened_with_k_m_b_and_t(number: float, text: str) -> None:
    assert short_count(number) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1_500, "1.5 kB"), (1.5e6, "1.5 MB"), (2e9, "2.0 GB")]
)
def test_byte_counts_use_decimal_units(number: float, text: str) -> None:
    assert byte_count(number) == text


def test_a_lock_makes_its_folder_and_is_an_error_where_no_file_can_be_made(tmp_path: pathlib.Path) -> None:
    lock = tmp_path / "new" / ".x.lock"
    with locked(lock, "x"):
        assert lock.exists()
    lock.unlink()
    lock.symlink_to("missing/file")  # FileLock would wait forever
    with pytest.raises(FileNotFoundError), locked(lock, "x"):
        pass
