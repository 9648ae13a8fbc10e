"""Tests of jojo/command.py: exit codes, errors as one sentence, colour flags."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Callable, Iterator

import pytest
from helpers_cli import kept_log, start_python, terminal

from jojo.command import explain_os_error, run_command
from utils import UserError

Capsys = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """Restores the log after each test."""
    with kept_log():
        yield


def raising(error: BaseException) -> Callable[[list[str]], int]:
    def main(_: list[str]) -> int:
        raise error

    return main


def exit_code(main: Callable[[list[str]], int], *arguments: str) -> object:
    with pytest.raises(SystemExit) as stopped:
        run_command(main, list(arguments))
    return stopped.value.code


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
        (UserError("Fill 100% of it."), 1, "error: Fill 100% of it."),
        (KeyboardInterrupt(), 130, "error: Interrupted."),
        (PermissionError(13, "Permission denied", "models/x.pt"), 1, "error: Permission denied: 'models/x.pt'"),
        (OSError(28, "No space left on device"), 1, "error: No space left on device:"),
    ],
)
def test_an_error_that_a_user_can_cause_is_one_line_and_an_exit_code(
    error: BaseException, code: int, line: str, capsys: Capsys
) -> None:
    assert exit_code(raising(error)) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(line) and captured.err.count("\n") == 1


def test_debug_shows_the_traceback(capsys: Capsys) -> None:
    assert exit_code(raising(UserError("Fix it.")), "--debug") == 1
    error = capsys.readouterr().err
    assert "error: Fix it." in error and "Traceback" in error


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(raising(ZeroDivisionError()), [])


def test_argparse_keeps_its_exit_code() -> None:
    assert exit_code(raising(SystemExit(2))) == 2


def test_a_closed_pipe_causes_no_error_message(tmp_path: pathlib.Path) -> None:
    (tmp_path / "talk.py").write_text(
        "from jojo.command import run_command\n"
        "def main(arguments):\n"
        "    for i in range(100_000): print('line', i)\n"
        "    return 0\n"
        "run_command(main)\n"
    )
    process = start_python("talk.py", cwd=tmp_path)
    assert process.stdout and process.stderr
    assert process.stdout.readline() == "line 0\n"
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 1
    assert error == ""


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


def test_operating_system_errors_name_the_file() -> None:
    text = explain_os_error(FileNotFoundError(2, "No such file or directory", "a/b.txt"))
    assert text.startswith("No such file or directory: 'a/b.txt'") and text.endswith(".")
    assert "None" not in explain_os_error(OSError("odd"))
