"""The API, asked by OpenAI's own client."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest
import torch
from helpers_serving import TOKENIZER, Client, endless_model, served, serving, until
from pydantic import ValidationError

from generation import Sampling, chat_prompt, generate
from jojo.text.tokenizer import Message
from serving.models import Served
from serving.schemas import ChatRequest, TextRequest

MESSAGES: list[Any] = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def models() -> list[Served]:
    return [served("tiny"), served("text", can_chat=False), served("endless", model=endless_model())]


@pytest.fixture(scope="module")
def client(models: list[Served]) -> Iterator[Client]:
    with serving(*models, max_tokens=10**6) as made:
        yield made


@pytest.fixture(scope="module")
def api(client: Client) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{client.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def written(model: Served, ids: list[int], n: int, seed: int, sampling: Sampling | None = None) -> list[int]:
    """What gen.py would write: up to n tokens, or up to a control token."""
    steps = generate(
        model.model,
        ids,
        max_tokens=n,
        sampling=sampling,
        stop=model.tokenizer.end_ids,
        generator=torch.Generator().manual_seed(seed),
    )
    return [token for (token,) in steps if token is not None]


def of_prompt(model: Served, prompt: str, n: int, seed: int, sampling: Sampling | None = None) -> str:
    return TOKENIZER.decode(written(model, [TOKENIZER.eot_id, *TOKENIZER.encode(prompt)], n, seed, sampling))


def of_chat(model: Served, messages: list[Message], n: int, seed: int) -> str:
    return TOKENIZER.decode(written(model, chat_prompt(TOKENIZER, messages, 16)[0], n, seed))


def test_models_are_listed(api: openai.OpenAI) -> None:
    assert [model.id for model in api.models.list()] == ["tiny", "text", "endless"]
    model = api.models.retrieve("text")
    assert (model.owned_by, model.created) == ("jojo", 1_700_000_000)
    assert model.model_extra["max_model_len"] == 32 and model.model_extra["chat"] is False


def test_a_completion_is_the_text_of_gen_py(api: openai.OpenAI, models: list[Served]) -> None:
    answer = api.completions.create(model="text", prompt="Once upon", max_tokens=40, seed=3)
    assert answer.choices[0].text == of_prompt(models[1], "Once upon", 40, 3)
    assert answer.usage.prompt_tokens == 1 + len(TOKENIZER.encode("Once upon"))
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.choices[0].finish_reason in ("stop", "length")
    options = {"temperature": 1.2, "top_p": 0.9, "extra_body": {"top_k": 20, "repetition_penalty": 1.5}}
    answer = api.completions.create(model="text", prompt="A cat", max_tokens=20, seed=4, **options)
    assert answer.choices[0].text == of_prompt(models[1], "A cat", 20, 4, Sampling(1.2, 20, 0.9, 1.5))


def test_several_prompts_and_choices_have_their_own_seeds(api: openai.OpenAI, models: list[Served]) -> None:
    answer = api.completions.create(model="text", prompt=["A cat", "The dog"], n=2, max_tokens=9, seed=5)
    expected = [of_prompt(models[1], prompt, 9, seed) for prompt in ("A cat", "The dog") for seed in (5, 6)]
    assert [choice.text for choice in answer.choices] == expected
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    ids = [TOKENIZER.eot_id, *TOKENIZER.encode("A cat")]
    for prompt in (ids, [ids]):
        answer = api.completions.create(model="text", prompt=prompt, max_tokens=9, seed=5)
        assert answer.choices[0].text == expected[0]


def test_a_conversation_is_the_answer_of_gen_py(api: openai.OpenAI, models: list[Served]) -> None:
    answer = api.chat.completions.create(model="tiny", messages=MESSAGES, max_completion_tokens=12, seed=3)
    assert answer.choices[0].message.content == of_chat(models[0], MESSAGES, 12, 3)
    assert answer.choices[0].message.role == "assistant"
    parts = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
    ]
    same = api.chat.completions.create(model="tiny", messages=parts, max_tokens=12, seed=3)
    assert same.choices[0].message.content == answer.choices[0].message.content


@pytest.mark.parametrize("kind", ["chat", "text"])
def test_a_stream_has_the_same_text_and_ends_with_the_usage(api: openai.OpenAI, kind: str) -> None:
    options = {"model": "tiny", "max_tokens": 15, "seed": 8, "n": 2}
    if kind == "chat":
        ask, options, get = api.chat.completions.create, options | {"messages": MESSAGES}, "message"
    else:
        ask, options, get = api.completions.create, options | {"prompt": "A"}, "text"
    whole = ask(**options)
    texts, reasons, usage = ["", ""], [None, None], None
    for chunk in ask(**options, stream=True, stream_options={"include_usage": True}):
        assert usage is None  # nothing follows it
        for choice in chunk.choices:
            texts[choice.index] += (choice.delta.content if kind == "chat" else choice.text) or ""
            reasons[choice.index] = choice.finish_reason
        usage = chunk.usage
    assert texts == [choice.message.content if get == "message" else choice.text for choice in whole.choices]
    assert reasons == [choice.finish_reason for choice in whole.choices]
    assert usage == whole.usage


def test_log_probabilities(api: openai.OpenAI, models: list[Served]) -> None:
    answer = api.chat.completions.create(
        model="tiny", messages=MESSAGES, max_tokens=6, seed=2, logprobs=True, top_logprobs=3
    )
    entries = answer.choices[0].logprobs.content
    assert (
        b"".join(bytes(entry.bytes) for entry in entries)
        .decode(errors="replace")
        .startswith(answer.choices[0].message.content)
    )
    assert all(len(entry.top_logprobs) == 3 and entry.top_logprobs[0].logprob >= entry.logprob for entry in entries)
    answer = api.completions.create(model="text", prompt="A", max_tokens=6, seed=2, logprobs=2)
    logprobs = answer.choices[0].logprobs
    ids = [TOKENIZER.eot_id, *TOKENIZER.encode("A")]
    for token, logprob, top in zip(
        written(models[1], ids, 6, 2), logprobs.token_logprobs, logprobs.top_logprobs, strict=True
    ):
        own = models[1].model(torch.tensor([ids]))[0, -1, : TOKENIZER.n_vocab].log_softmax(-1)
        assert logprob == pytest.approx(own[token].item(), abs=1e-5)
        assert max(top.values()) == pytest.approx(own.max().item(), abs=1e-5)
        ids.append(token)
    assert logprobs.text_offset[0] == 0 and logprobs.text_offset[1] == len(logprobs.tokens[0])
    streamed = api.completions.create(model="text", prompt="A", max_tokens=6, seed=2, logprobs=2, stream=True)
    assert [t for chunk in streamed for t in chunk.choices[0].logprobs.tokens] == logprobs.tokens


def test_a_stop_string_ends_the_text_before_it(api: openai.OpenAI, models: list[Served]) -> None:
    text = of_prompt(models[1], "A", 20, 3)
    assert text.startswith(" shouting Max shouting spoon")
    for stop, expected in (
        ("uti", " sho"), (" Max", " shouting"), ("x sh", " shouting Ma"), (["spo", "ax"], " shouting M"), ("never", text),
    ):  # fmt: skip
        for stream in (False, True):
            answer = api.completions.create(model="text", prompt="A", max_tokens=20, seed=3, stop=stop, stream=stream)
            chunks = list(answer) if stream else [answer]
            assert "".join(chunk.choices[0].text for chunk in chunks) == expected
            assert chunks[-1].choices[0].finish_reason == ("length" if expected == text else "stop")


def test_ids_are_returned_if_asked_for(client: Client, models: list[Served]) -> None:
    body = {"model": "tiny", "messages": MESSAGES, "max_tokens": 5, "seed": 1, "return_token_ids": True}
    prompt, _ = chat_prompt(TOKENIZER, MESSAGES, 27)
    ids = written(models[0], prompt, 5, 1)
    first, *rest = client.events("/v1/chat/completions", body)
    assert first["prompt_token_ids"] == prompt
    assert [i for chunk in rest for i in chunk["choices"][0]["token_ids"]] == ids
    status, whole = client.ask("/v1/chat/completions", body)
    assert (status, whole["prompt_token_ids"], whole["choices"][0]["token_ids"]) == (200, prompt, ids)


def request_of(**body: Any) -> bytes:
    """A request for a text without end, as bytes."""
    content = json.dumps({"model": "endless", "prompt": "A", "max_tokens": 10**6} | body).encode()
    fields = {"Host": "127.0.0.1", "Content-Type": "application/json", "Content-Length": len(content)}
    head = (
        "POST /v1/completions HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items()) + "\r\n"
    )
    return head.encode() + content


def test_a_stream_that_is_left_ends_its_decoding_within_two_tokens(
    api: openai.OpenAI, models: list[Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = models[2].engine._decoder
    step = decoder.step
    monkeypatch.setattr(decoder, "step", lambda: (time.sleep(0.1), step())[1])
    stream = api.completions.create(model="endless", prompt="A", max_tokens=10**6, stream=True)
    next(iter(stream))
    (job,) = models[2].engine.running
    written = job.written.total()
    stream.close()
    until(lambda: not models[2].engine.running)
    assert job.written.total() <= written + 2


def test_a_client_that_leaves_without_a_stream_ends_its_decoding(client: Client, models: list[Served]) -> None:
    with client.connect() as connection:
        connection.sendall(request_of())
        until(lambda: models[2].engine.running)
    until(lambda: not models[2].engine.running)


def test_a_reader_that_does_not_read_stalls_nobody(client: Client, models: list[Served]) -> None:
    with client.connect() as connection:
        connection.sendall(request_of(stream=True))
        until(lambda: models[2].engine.running)
        until(lambda: models[2].engine.running[0].written.total() > 500)  # it is further than what the socket holds
        assert client.ask("/v1/completions", {"model": "endless", "prompt": "A", "max_tokens": 5})[0] == 200
    until(lambda: not models[2].engine.running)


def test_a_list_with_many_errors_is_refused_at_the_first() -> None:
    for kind, body in (
        (TextRequest, {"prompt": [1.5] * 1000}), (TextRequest, {"prompt": ["A"] * 1000 + [None] * 1000}),
        (ChatRequest, {"messages": [{}] * 1000}), (ChatRequest, {"messages": [{"role": "user", "content": [1] * 1000}]}),
    ):  # fmt: skip
        with pytest.raises(ValidationError) as caught:
            kind.model_validate({"model": "x"} | body)
        assert caught.value.error_count() < 10


OK: dict[str, Any] = {"model": "tiny", "prompt": "A", "max_tokens": 2}


@pytest.mark.parametrize(
    ("changes", "status", "param", "said"),
    [
        ({"model": "gpt-5"}, 404, "model", "no model 'gpt-5'"),
        ({"model": None}, 400, "model", "valid string"),
        ({"prompt": None}, 400, "prompt", "prompt: "),
        ({"prompt": []}, 400, "prompt", "prompt: "),
        ({"prompt": [TOKENIZER.n_vocab]}, 400, "prompt", "ids of this model are below"),
        ({"max_tokens": -1}, 400, "max_tokens", "greater than or equal to 1"),
        ({"max_tokens": 10**7}, 400, "max_tokens", "at most 1,000,000"),
        ({"temperature": "hot"}, 400, "temperature", "valid number"),
        ({"temperature": "1"}, 400, "temperature", "valid number"),
        ({"top_p": 0}, 400, "top_p", "greater than 0"),
        ({"n": 99}, 400, "n", "less than or equal to 16"),
        ({"stop": ""}, 400, "stop", "a text, or at most 4, not empty"),
        ({"stop": ["a"] * 5}, 400, "stop", "a text, or at most 4, not empty"),
        ({"logprobs": True}, 400, "logprobs", "valid integer"),
        ({"echo": True}, 400, "echo", "does not support the parameter 'echo'"),
        ({"suffix": "x"}, 400, "suffix", "does not support"),
        ({"prompt": [1.5] * 1000}, 400, "prompt", "a text, texts, ids (0 or more), or lists of ids"),
        ({"prompt": ["A"] * 3, "n": 3}, 400, "n", "at most 8 texts"),
        ({"model": "\ud800"}, 404, "model", "no model"),
        ({"tools": [], "user": "someone", "made_up": 1, "logit_bias": None}, 200, None, ""),
    ],
)  # fmt: skip
def test_errors_have_the_apis_form(
    client: Client, changes: dict[str, Any], status: int, param: str | None, said: str
) -> None:
    body = {name: value for name, value in (OK | changes).items() if value is not None or name != "prompt"}
    got, answer = client.ask("/v1/completions", body)
    assert got == status, answer
    if status != 200:
        error = answer["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["param"] == param and said in error["message"]


def test_openais_client_raises_its_own_errors(api: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no model"):
        api.models.retrieve("gpt-5")
    with pytest.raises(openai.BadRequestError, match="not trained on conversations"):
        api.chat.completions.create(model="text", messages=MESSAGES)
    with pytest.raises(openai.BadRequestError, match="messages"):
        api.chat.completions.create(model="tiny", messages=[])
    with pytest.raises(openai.BadRequestError, match=r"messages\.0\.role"):
        api.chat.completions.create(model="tiny", messages=[{"role": "robot", "content": "Beep"}])


def test_a_full_queue_is_429_and_says_when_to_come_again() -> None:
    small = served("endless", n_rows=1, n_waiting=1, model=endless_model())
    with serving(small, max_tokens=10**6) as client, client.connect() as first, client.connect() as second:
        first.sendall(request_of())
        until(lambda: small.engine.running)
        second.sendall(request_of())
        until(lambda: small.engine.waiting)
        status, answer = client.ask("/v1/completions", {"model": "endless", "prompt": "A"})
        assert (status, answer["error"]["code"]) == (429, "queue_full")


def test_a_time_limit_ends_a_text() -> None:
    with serving(served("endless", model=endless_model()), max_tokens=10**6, seconds=0.3) as client:
        status, answer = client.ask("/v1/completions", {"model": "endless", "prompt": "A", "max_tokens": 10**6})
        assert (status, answer["choices"][0]["finish_reason"]) == (200, "length")


def test_what_the_server_has_done_can_be_read(client: Client) -> None:
    assert client.ask("/health") == (200, {"status": "ok"})
    status, text = client.ask("/metrics")
    assert status == 200
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(values['jojo_requests_total{model="text"}']) >= 1
    assert float(values['jojo_written_tokens_total{model="text"}']) >= 9
    assert float(values['jojo_running{model="tiny"}']) == 0
