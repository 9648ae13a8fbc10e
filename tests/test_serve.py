"""serve.py's command line, and a server from its start to its end."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers_cli import environment
from helpers_model import random_model, save_format3, tiny_config
from helpers_serving import endless_model, served, serving, until

import serve
from jojo.text.tokenizer import Tokenizer
from serving import app
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
    assert [one.can_chat for one in (*models.values(), *with_template.values())] == [False, False, True]
    assert str(tmp_path) not in json.dumps([one.card() for one in models.values()])
    for one in (*models.values(), *with_template.values()):
        one.engine.close()


def test_a_template_writes_conversations_without_control_tokens(model: Path, tmp_path: Path) -> None:
    template = tmp_path / "plain.jinja"
    template.write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:")
    (one,) = load([model], "cpu", "float32", str(template), 2, 2).values()
    ids = one.chat_ids([{"role": "user", "content": "Hi <|im_end|>"}], 10)
    assert one.tokenizer.decode(ids[1:]) == "user: Hi <|im_end|>\nassistant:"
    assert ids[0] == one.tokenizer.eot_id and not set(ids[1:]) & set(one.tokenizer.special_tokens.values())
    one.engine.close()


@pytest.mark.parametrize("content", ["{% for %}", "{{ messages.__class__.__mro__ }}", "{{ 1 / 0 }}"])
def test_a_template_that_does_not_work_is_one_sentence(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.jinja"
    path.write_text(content)
    with pytest.raises(UserError, match=r"The chat template 'bad\.jinja' cannot write this"):
        read_template(str(path))


def request(port: int, max_tokens: int) -> bytes:
    """A request for a stream that ends after so many tokens, or at a control token, which is rare."""
    body = json.dumps(
        {"model": "x", "prompt": "A", "max_tokens": max_tokens, "temperature": 2, "top_k": 0, "stream": True}
    )
    fields = (
        f"Host: localhost:{port}\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {len(body)}"
    )
    return f"POST /v1/completions HTTP/1.1\r\n{fields}\r\n\r\n{body}".encode()


@pytest.mark.parametrize(
    ("signals", "max_tokens", "ends"),
    [
        ([signal.SIGTERM], 99, b"data: [DONE]"), ([signal.SIGHUP], 99, b"data: [DONE]"),
        ([signal.SIGINT, signal.SIGINT], 10**6, b""),
    ],
)  # fmt: skip
def test_a_server_ends_after_the_running_answers_and_at_once_with_a_second_signal(
    model: Path, signals: list[int], max_tokens: int, ends: bytes
) -> None:
    command = [sys.executable, "serve.py", str(model), "--device", "cpu", "--port", "0", "--max_tokens", "1000000"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    try:
        assert process.stdout is not None
        port = int([process.stdout.readline() for _ in range(3)][2].rsplit(":", 1)[1].split("/")[0])
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(request(port, max_tokens))
            content = connection.recv(1)
            for number in signals:
                process.send_signal(number)
                time.sleep(0.3)
            with contextlib.suppress(ConnectionResetError):
                content += b"".join(iter(lambda: connection.recv(1 << 16), b""))
        assert content.startswith(b"HTTP/1.1 200") and ends in content
        assert process.communicate(timeout=20) == ("\nStopped.\n", "")
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


def test_texts_that_take_too_long_after_the_signal_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "DRAIN_SECONDS", 0.2)
    endless = served("endless", model=endless_model())
    body = {"model": "endless", "prompt": "A", "max_tokens": 10**6}
    with serving(endless, max_tokens=10**6) as client, ThreadPoolExecutor() as pool:
        whole = pool.submit(client.ask, "/v1/completions", body)
        stream = pool.submit(client.ask, "/v1/completions", body | {"stream": True})
        until(lambda: len(endless.engine.running) == 2)
        client.stop()
        status, answer = whole.result(20)
        assert (status, answer["error"]["message"]) == (503, "The server is shutting down.")
        assert "The server is shutting down." in stream.result(20)[1]
