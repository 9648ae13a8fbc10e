"""serve.py's command line, and a server from its start to its end."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from helpers_cli import environment
from helpers_model import random_model, save_format3, tiny_config

import serve
from jojo.text.tokenizer import Tokenizer
from serving.models import load, read_template
from utils import UserError

ROOT = Path(serve.__file__).parent


@pytest.fixture
def model(tmp_path: Path) -> Path:
    tokenizer = Tokenizer()
    return save_format3(
        random_model(tiny_config(vocab_size=tokenizer.padded_vocab_size), tokenizer.n_vocab), tmp_path / "x.pt"
    )


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--host", "0.0.0.0"], "needs a key; set JOJO_API_KEY, or add --api_key KEY"),
        (["--host", "192.168.0.7"], "needs a key"),
        (["--port", "70000"], "--port must be between 0 and 65,535, not 70000."),
        (["--rows", "0"], "--rows must be between 1"),
        (["--time_limit", "0"], "--time_limit must be above 0"),
        (["--template", "missing.jinja"], "missing.jinja"),
    ],
)
def test_a_wrong_flag_is_one_sentence(
    model: Path, flags: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JOJO_API_KEY", raising=False)
    with pytest.raises((UserError, OSError), match=re.escape(said)):
        serve.main([str(model), "--device", "cpu", "--port", "0", *flags])


def test_a_port_that_is_taken_is_one_sentence(model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} .*choose another --port"):
            serve.main([str(model), "--port", str(port)])


def test_missing_libraries_are_named_with_the_command(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "serving.app", raising=False)
    with pytest.raises(UserError, match=r"needs uvicorn: pip install -r requirements-serve\.txt"):
        serve.main([str(model)])


def test_models_of_the_same_name_get_numbers_and_text_models_cannot_chat(model: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    twin = tmp_path / "more" / "x.pt"
    twin.write_bytes(model.read_bytes())
    models = load([model, twin], "cpu", "float32", None, 2, 2)
    with_template = load([model], "cpu", "float32", "chatml", 2, 2)
    assert list(models) == ["x", "x-2"]
    assert [served.can_chat for served in (*models.values(), *with_template.values())] == [False, False, True]
    assert str(tmp_path) not in json.dumps([served.card() for served in models.values()])
    for served in (*models.values(), *with_template.values()):
        served.engine.close()


def test_a_template_writes_conversations_without_control_tokens(model: Path, tmp_path: Path) -> None:
    template = tmp_path / "plain.jinja"
    template.write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:")
    (served,) = load([model], "cpu", "float32", str(template), 2, 2).values()
    ids = served.chat_ids([{"role": "user", "content": "Hi <|im_end|>"}], 10)
    assert served.tokenizer.decode(ids[1:]) == "user: Hi <|im_end|>\nassistant:"
    assert ids[0] == served.tokenizer.eot_id and not set(ids[1:]) & set(served.tokenizer.special_tokens.values())
    served.engine.close()


@pytest.mark.parametrize("content", ["{% for %}", "{{ messages.__class__.__mro__ }}", "{{ 1 / 0 }}"])
def test_a_template_that_does_not_work_is_one_sentence(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.jinja"
    path.write_text(content)
    with pytest.raises(UserError, match=r"The chat template 'bad\.jinja' cannot write this"):
        read_template(str(path))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_answers_and_ends_with_a_signal_after_the_running_answer(model: Path, number: int) -> None:
    command = [sys.executable, "serve.py", str(model), "--device", "cpu", "--port", "0"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    try:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(3)]
        url = said[2].split()[1]
        body = json.dumps(
            {"model": "x", "prompt": "A", "max_tokens": 60, "temperature": 2, "top_k": 0, "seed": 1}
        ).encode()
        request = urllib.request.Request(f"{url}/completions", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert json.load(answer)["choices"][0]["text"]
        with socket.create_connection(("127.0.0.1", int(url.split(":")[2].split("/")[0]))) as connection:
            fields = f"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(f"POST /v1/completions HTTP/1.1\r\n{fields}".encode() + body)
            process.send_signal(number)
            content = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        assert content == b"" or b'"finish_reason"' in content  # it came too late, or is answered to the end
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out, err) == (0, "\nStopped.\n", "")
    finally:
        process.kill()
