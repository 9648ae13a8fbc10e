"""The page in a real browser: headless Chromium. If it is not installed, this file has no tests."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import torch
from browser import CHROMIUM, KEYS, Browser
from helpers_serving import TOKENIZER, Client, endless_model, served, serving, until

from serving.models import Served

__test__ = CHROMIUM is not None


@pytest.fixture(scope="module")
def models() -> list[Served]:
    return [
        served("chatty", block_size=256, std=0.05), served("text", can_chat=False), served("endless", model=endless_model()),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def client(models: list[Served]) -> Iterator[Client]:
    with serving(*models, max_tokens=10**6) as made:
        yield made


@pytest.fixture
def page(client: Client) -> Iterator[Browser]:
    """The page, opened; afterwards it has asked no other host and reported no error."""
    with Browser() as browser:
        browser.open(client.url)
        browser.wait("!!document.querySelector('#model option')")
        yield browser
        assert browser.hosts() - {""} == {urlsplit(client.url).netloc}  # "": the icon is in the page
        assert browser.problems() == []


def press(page: Browser, *keys: str) -> None:
    """Press keys with the text that they write, as Enter needs it to press a button."""
    for key in keys:
        text = {"Enter": "\r"}.get(key)
        fields = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
        page.call("Input.dispatchKeyEvent", type="keyDown", **fields, **({"text": text} if text else {}))
        page.call("Input.dispatchKeyEvent", type="keyUp", **fields)


def choose(page: Browser, model: str) -> None:
    """Choose a model in the list."""
    page.evaluate(f"document.getElementById('model').value = '{model}'")
    page.evaluate("document.getElementById('model').dispatchEvent(new Event('change', {bubbles: true}))")


def shown(page: Browser, selector: str) -> str:
    return page.evaluate(f"document.querySelector('{selector}').innerText")


TOKENS = "[...document.querySelectorAll('#completion .token')].map(one => one.textContent)"


def test_a_text_is_written_looked_into_and_goes_on_from_another_token_with_the_keyboard_alone(
    page: Browser, models: list[Served]
) -> None:
    choose(page, "text")
    page.evaluate("location.hash = 'complete'; document.getElementById('seed').value = '3'")
    page.evaluate("document.getElementById('prompt').focus()")
    page.evaluate("document.getElementById('prompt').value = 'A'")
    press(page, "Tab", "Enter")
    page.wait(
        "document.getElementById('write').textContent == 'Write' && !!document.querySelector('#completion .token')"
    )
    before = page.evaluate(TOKENS)
    assert "".join(before).startswith(" shouting Max shouting spoon")
    page.evaluate("document.querySelector('#completion .token').focus()")
    press(page, "ArrowRight", "Enter")
    page.wait("document.querySelectorAll('#panel-guesses li').length == 10")
    assert page.evaluate("document.activeElement.id") == "panel-title"
    ids = torch.tensor([[TOKENIZER.eot_id, *TOKENIZER.encode("A"), *TOKENIZER.encode(" shouting")]])
    p = models[1].model(ids)[0, -1, : TOKENIZER.n_vocab].softmax(-1)
    own = TOKENIZER.encode(" Max")[0]
    assert f"{100 * p[own].item():.4f} %" in shown(page, "#panel-facts")
    press(page, "Escape")
    assert page.evaluate("document.activeElement.textContent") == " Max"
    press(page, "Enter")
    page.wait("!!document.querySelector('#panel-guesses button')")
    other = page.evaluate("document.querySelector('#panel-guesses button').textContent")
    page.evaluate("document.querySelector('#panel-guesses button').focus()")
    press(page, "Enter")
    page.wait("document.getElementById('write').textContent == 'Write'")
    after = page.evaluate(TOKENS)
    assert after[0] == before[0] and after[1] != before[1] and after[1] in other


def test_a_conversation_can_be_stopped_changed_and_asked_again(
    page: Browser, models: list[Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(page, "endless")
    step = models[2].engine._decoder.step
    monkeypatch.setattr(models[2].engine._decoder, "step", lambda: (time.sleep(0.02), step())[1])
    page.evaluate("document.getElementById('max_tokens').value = 1000")
    page.evaluate("document.getElementById('message').focus()")
    page.call("Input.insertText", text="Hello")
    press(page, "Enter")
    page.wait("document.querySelectorAll('#turns .token').length > 3")
    page.evaluate("document.querySelectorAll('#turns .token')[2].click()")
    page.wait("document.querySelectorAll('#panel-guesses button').length > 3")
    page.evaluate("document.querySelectorAll('#panel-guesses button')[3].click()")  # while it writes
    page.wait("!['+', undefined].includes(document.querySelectorAll('#turns .token')[2]?.textContent)")
    page.wait("document.querySelectorAll('#turns .token').length > 5")
    assert len(models[2].engine.running) == 1
    page.evaluate("document.getElementById('message').focus()")
    press(page, "Tab", "Enter")  # the button says Stop
    page.wait("document.getElementById('send').textContent == 'Send'")
    until(lambda: not models[2].engine.running)
    assert "stopped" in shown(page, "#turns .note")
    buttons = "[...document.querySelectorAll('#turns button')].map(one => one.textContent)"
    assert page.evaluate(buttons) == ["Edit", "Copy", "Retry", "Continue", "Edit", "Copy", "Attention"]
    choose(page, "chatty")
    page.evaluate("document.getElementById('max_tokens').value = 8")
    page.evaluate("[...document.querySelectorAll('#turns button')].find(one => one.textContent == 'Retry').click()")
    page.wait(
        "document.getElementById('send').textContent == 'Send' && document.querySelectorAll('#turns li').length == 2"
    )


def test_losses_are_the_models(page: Browser, client: Client) -> None:
    choose(page, "text")
    page.evaluate("location.hash = 'loss'; document.getElementById('loss-text').value = 'A little cat'")
    page.evaluate("document.getElementById('measure').click()")
    page.wait("!!document.querySelector('#loss-tokens .token[data-logprob]')")
    of_page = page.evaluate(
        "[...document.querySelectorAll('#loss-tokens .token[data-logprob]')].map(one => +one.dataset.logprob)"
    )
    _, looked = client.ask("/inspect/tokens", {"model": "text", "text": "A little cat"})
    of_model = [token["logprob"] for token in looked["tokens"][1:]]
    assert [math.exp(value) for value in of_page] == pytest.approx([math.exp(value) for value in of_model], abs=1e-6)


def test_nothing_is_cut_off_on_a_phone_or_a_screen_in_light_or_dark(page: Browser, client: Client) -> None:
    for width in (1280, 390):
        for scheme in ("light", "dark"):
            page.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
            page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            for tab in ("talk", "complete", "loss", "attention", "compare"):
                page.evaluate(f"location.hash = '{tab}'")
                page.wait(f"!document.getElementById('{tab}').hidden")
                assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_server_with_a_key_asks_for_it() -> None:
    with serving(served("tiny"), key="secret") as client, Browser() as browser:
        browser.open(client.url)
        browser.wait("document.getElementById('key-dialog').open")
        knows_not = "document.getElementById('key-says').innerText.includes('does not know')"
        for key, condition in (("wrong", knows_not), ("secret", "!!document.querySelector('#model option')")):
            browser.evaluate(f"document.getElementById('key').value = '{key}'")
            browser.evaluate("document.querySelector('#key-form button').click()")
            browser.wait(condition)
