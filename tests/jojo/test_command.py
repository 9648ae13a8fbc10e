"""Tests of jojo/command.py: exit codes, errors as one sentence, colour flags."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from helpers_cli import ROOT, kept_log, start_python, terminal

import evaluate
import export
import gen
import prepare
import serve
import upload_to_huggingface
from jojo.command import Parser, explain_os_error, run_command
from training.flags import build_parser
from utils import UserError, explain_missing_package

COMMANDS: dict[str, Callable[[], Parser]] = {
    "train.py": build_parser,
    "gen.py": gen.build_parser,
    "serve.py": serve.build_parser,
    "evaluate.py": evaluate.build_parser,
    "export.py": export.build_parser,
    "prepare.py": prepare.build_parser,
    "upload_to_huggingface.py": upload_to_huggingface.build_parser,
}

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


@pytest.mark.parametrize(
    ("own", "spins"), [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)]
)
def test_waiting_threads_spin_for_a_short_time_unless_the_user_decided(
    own: dict[str, str], spins: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that it is restored after the test
        monkeypatch.delenv(name)
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        run_command(lambda arguments: 0, [])
    assert os.environ.get("GOMP_SPINCOUNT") == spins


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(raising(ZeroDivisionError()), [])


def test_a_signal_that_makes_a_librarys_cleanup_fail_is_still_a_signal(capsys: Capsys) -> None:
    def main(_: list[str]) -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)  # the signal ends it
        finally:
            raise AttributeError("no lock")

    assert exit_code(main) == 143
    assert capsys.readouterr().err == "error: Interrupted.\n"


def test_argparse_keeps_its_exit_code() -> None:
    assert exit_code(raising(SystemExit(2))) == 2


def test_a_full_memory_gives_the_commands_own_advice(capsys: Capsys) -> None:
    with pytest.raises(SystemExit):
        run_command(raising(MemoryError()), [], if_full="use fewer --num_samples")
    assert capsys.readouterr().err == "error: Out of memory: use fewer --num_samples.\n"
    assert exit_code(raising(RuntimeError("CUDA out of memory. Tried"))) == 1
    assert capsys.readouterr().err.startswith("error: Out of memory: close other programs")


LAUNCHED = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}


@pytest.mark.parametrize("kept", [["RANK"], ["RANK", "WORLD_SIZE"], list(LAUNCHED)])
@pytest.mark.parametrize("has_ranks", [False, True])
def test_only_ranks_of_a_launcher_leave_errors_to_rank_0(
    kept: list[str], has_ranks: bool, monkeypatch: pytest.MonkeyPatch, capsys: Capsys
) -> None:
    monkeypatch.setattr("jojo.command.RANK_0_FIRST_S", 0)
    for name in kept:
        monkeypatch.setenv(name, LAUNCHED[name])
    silent = has_ranks and kept == list(LAUNCHED)
    for main in (raising(UserError("Fix it.")), lambda _: Parser(prog="x").parse_args(["--nonsense"])):
        with pytest.raises(SystemExit):
            run_command(main, [], has_ranks=has_ranks)
        assert (capsys.readouterr().err == "") == silent
    monkeypatch.setenv("RANK", "2")  # not a rank of two
    with pytest.raises(SystemExit):
        run_command(raising(UserError("Fix it.")), [], has_ranks=has_ranks)
    assert capsys.readouterr().err == "error: Fix it.\n"


def test_a_missing_package_is_one_sentence_and_other_bugs_keep_their_traceback(capsys: Capsys) -> None:
    explain_missing_package(ModuleNotFoundError, ModuleNotFoundError("No module named 'torch'"), None)
    error = capsys.readouterr().err
    assert "'torch'" in error and "pip install -r requirements.txt" in error and error.count("\n") == 1
    explain_missing_package(KeyError, KeyError("x"), None)
    assert "KeyError" in capsys.readouterr().err


SCRIPTS = [ROOT / f"{name}.py" for name in ("train", "gen", "prepare", "evaluate", "export", "upload_to_huggingface")]


@pytest.mark.parametrize("command", [*SCRIPTS, *sorted(ROOT.glob("tools/*.py"))], ids=lambda path: path.name)
def test_without_the_packages_every_command_says_one_sentence(command: pathlib.Path) -> None:
    done = subprocess.run([sys.executable, "-ES", command], capture_output=True, text=True)
    assert done.returncode and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


TALK = """
import os, sys
from jojo.command import run_command
def main(arguments):
    print("out"); print("err", file=sys.stderr); assert sys.stdin.read() == ""
    assert min(os.open("file", os.O_CREAT | os.O_WRONLY) for _ in "12") > 2
    return 0
run_command(main)
"""


def test_a_command_works_with_closed_standard_streams_and_never_prints_into_a_file(tmp_path: pathlib.Path) -> None:
    for closed in ("<&-", "</dev/null >&-", "</dev/null 2>&-", "<&- >&- 2>&-"):
        shell = f'exec "{sys.executable}" -c "$TALK" {closed}'
        process = start_python("-c", "import os; os.execvp('sh', ['sh', '-c', os.environ['SHELL_LINE']])",
                               cwd=tmp_path, TALK=TALK, SHELL_LINE=shell)  # fmt: skip
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, out + err
        assert (out == "out\n") == (">&- 2" not in closed and not closed.endswith(" >&-"))
    assert (tmp_path / "file").read_bytes() == b""


# --- flags ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_value_is_refused_except_for_free_text(command: str, empty: str, capsys: Capsys) -> None:
    parser = COMMANDS[command]()
    for action in parser._actions:
        if action.nargs == 0 or action.metavar == "TEXT":
            continue
        words = [f"{action.option_strings[0]}={empty}"] if action.option_strings else [empty]
        with pytest.raises(SystemExit) as stopped:
            parser.parse_args(words)
        error = capsys.readouterr().err
        assert stopped.value.code == 2 and error.count("\n") == 1
        assert "the value is empty" in error and (action.option_strings or [action.metavar])[0] in error
    assert gen.build_parser().parse_args(["--prompt", empty]).prompt == empty


@pytest.mark.parametrize(
    ("command", "flag", "meant"),
    [
        ("train.py", "--lr", "--learning_rate"),
        ("train.py", "--n-layer", "--model.n_layer"),
        ("train.py", "--steps=3", "--max_iters"),
        ("train.py", "--eval_iters", "--training.eval_iters"),
        ("train.py", "--LR", "--learning_rate"),
        ("gen.py", "--temperature", "--temp"),
        ("gen.py", "-n", "--max_tokens"),
        ("gen.py", "--max-new-tokens", "--max_tokens"),
    ],
)
def test_the_name_of_a_flag_in_other_projects_leads_to_ours(
    command: str, flag: str, meant: str, capsys: Capsys
) -> None:
    with pytest.raises(SystemExit):
        COMMANDS[command]().parse_args([flag])
    assert capsys.readouterr().err == f"error: unknown flag {flag.split('=')[0]}; did you mean {meant}?\n"


@pytest.mark.parametrize("words", [["x.pt", "Once upon", "a"], ["Once", "upon a", "time"]])
def test_words_without_a_flag_lead_to_the_prompt(words: list[str], capsys: Capsys) -> None:
    with pytest.raises(SystemExit):
        gen.build_parser().parse_args(words)
    assert capsys.readouterr().err == f"error: unexpected '{words[1]}'; did you mean --prompt \"TEXT\"?\n"


def test_an_unknown_flag_cannot_control_the_terminal(capsys: Capsys) -> None:
    with pytest.raises(SystemExit):
        gen.build_parser().parse_args(["--x\x1b[2J"])
    assert "--x\\x1b[2J" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_begins_with_one_line_of_usage_and_the_flags_that_people_need_first(command: str) -> None:
    text = COMMANDS[command]().format_help()
    assert text.startswith(f"usage: {command} ") and text.splitlines()[0].endswith("[flags]")
    assert text.splitlines()[1] == ""
    if command == "train.py":
        places = [text.index(f"  --{name} ") for name in ("config", "learning_rate", "batch_size", "dataset")]
        assert places == sorted(places) and places[-1] < text.index("\nmodel:")


# --- the end of a command -------------------------------------------------------------------------------------------


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
    assert explain_os_error(OSError(28, "No space left on device", "x")).endswith("'x' - make free space.")
