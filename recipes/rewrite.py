"""Lets a language model rewrite documents: any server with OpenAI's chat API, one request per document.

A request is POST <endpoint>/chat/completions, with the key in OPENAI_API_KEY if it is set. Every answer is appended to a
journal at once, under the hash of model and prompt. So a later run asks only for the answers that are missing.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
import threading
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from utils import UserError, duration, log, one_line, parse_json

T = TypeVar("T")

THREADS = 4  # requests at a time
WINDOW = 32  # items read ahead, so that one slow answer does not stop the others
WAITS_S = (1.0, 4.0, 15.0, 60.0)  # between tries
LONGEST_WAIT_S = 600.0  # even if a server asks for more
TIMEOUT_S = 300.0  # models on a CPU are slow
REFUSED = (400, 413, 422)  # statuses that concern this one prompt
MOST_REFUSED = 10  # prompts; if so many are refused before the first answer, the run stops
EMPTY = "answers with no message"
TRANSIENT = (408, 409, 425, 429, 500, 502, 503, 504, 529)  # statuses after which to try again
ANSWER_BYTES = 4 << 20  # a longer answer is cut


class Refusal(Exception):
    """The server gives no answer, however often it is asked. The message has no period."""


class PromptRefusal(Refusal):
    """The server gives no answer to this prompt; it may answer others."""


class TransientError(Exception):
    """The server gave no answer this time. The arguments: what it did, and how many seconds it asks to wait."""


def rewritten(
    items: Iterable[T],
    prompt_of: Callable[[T], str],
    endpoint: str,
    model: str | None,
    journal: Path,
    *,
    name_of: Callable[[T], str] = str,
    most: int | None = None,
) -> Iterator[tuple[T, str]]:
    """Each item with the model's answer to its prompt ("" if it refused this one), in the order of the items.

    Args:
        items: read as needed, a few ahead.
        prompt_of: the prompt of an item.
        endpoint: the server's address without /chat/completions, such as http://localhost:8000/v1.
        model: the model's name there.
        journal: a JSONL file of answers.
        name_of: the name of an item, for messages.
        most: how many items the caller needs; no more are requested. None: all.

    Raises:
        UserError: the server gives no answer after several tries, or refuses all of the first prompts.
    """
    server, answers = Server(endpoint, model), Journal(journal)
    pool = ThreadPoolExecutor(THREADS, "rewrite")

    def ask(item: T) -> str:
        prompt = prompt_of(item)
        key = hashlib.sha256(f"{model}\0{prompt}".encode("utf-8", "replace")).hexdigest()
        return answers.known.get(key) or answers.add(key, server.ask(prompt))

    def stop() -> None:
        server.stop.set()
        pool.shutdown(cancel_futures=True)  # waits for requests that were sent

    try:
        yield from _in_order(_ahead(items, lambda item: pool.submit(ask, item), most), name_of)
    except Refusal as error:
        stop()
        known = len(answers.known)
        kept = f" ({known:,} answers are kept; the same command continues from there)" if known else ""
        raise UserError(f"{error}{kept}.") from None
    finally:  # also if the caller stops early, or after Ctrl-C
        stop()
        answers.file.close()


def _ahead(items: Iterable[T], submit: Callable[[T], Future[str]], most: int | None) -> Iterator[tuple[T, Future[str]]]:
    """Each item with its future answer; up to WINDOW items are submitted ahead, but not more than `most` in all."""
    rest, waiting, left = iter(items), deque[tuple[T, "Future[str]"]](), most
    while True:
        ahead = WINDOW if left is None else min(WINDOW, max(1, left))  # 1: to replace a duplicate
        waiting.extend((item, submit(item)) for item in islice(rest, ahead - len(waiting)))
        if not waiting:
            return
        yield waiting.popleft()
        left = None if left is None else left - 1


def _in_order(submitted: Iterable[tuple[T, Future[str]]], name_of: Callable[[T], str]) -> Iterator[tuple[T, str]]:
    """The answers as they arrive. Raises Refusal if the server refuses all prompts, or the first MOST_REFUSED."""
    refused, answered, where = 0, False, ""
    for item, future in submitted:
        try:
            text, answered = future.result(), True
        except PromptRefusal as error:
            text, refused = "", refused + 1
            where = f"{error} for '{one_line(name_of(item))}'"
            if not answered and refused == MOST_REFUSED:
                break
            if refused == 1:
                log.warning("%s, which stays as it was; the others will be counted.", where)
        yield item, text
    if refused and not answered:
        others = f", and nothing for {refused - 1} before it" if refused > 1 else ""
        raise Refusal(f"{where}{others}; correct that, then start again")


def accepted(
    answered: Iterable[tuple[T, str]], fits: Callable[[T, str], bool], complaint: str
) -> Iterator[tuple[T, str]]:
    """The same pairs, with "" for an answer that does not fit its item; a warning at the end counts these answers."""
    lost = 0
    try:
        for item, answer in answered:
            good = fits(item, answer)
            lost += not good
            yield item, answer if good else ""
    finally:  # also if the caller stops early
        if lost:
            log.warning("%s: %d.", complaint, lost)


class Journal:
    """The answers so far, by key, in a JSONL file that only grows."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.known: dict[str, str] = {}
        self.lock, self.file = threading.Lock(), open(path, "a+b")
        self.file.seek(0)
        lines = self.file.read().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):  # the run was killed while it wrote
            self.file.truncate(sum(map(len, lines[:-1])))
            del lines[-1]
        for line in lines:
            with contextlib.suppress(ValueError, KeyError, TypeError):  # damaged lines are asked for again
                entry = parse_json(line)
                self.known[str(entry["key"])] = str(entry["answer"])

    def add(self, key: str, answer: str) -> str:
        with self.lock:
            self.known[key] = answer
            self.file.write(json.dumps({"key": key, "answer": answer}).encode() + b"\n")
            self.file.flush()
        return answer


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """No redirects: they would send the key to another server."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Server:
    """An OpenAI-compatible server."""

    def __init__(self, endpoint: str, model: str | None) -> None:
        address = re.fullmatch(r"(https?://(?:[\w.-]+|\[[\da-fA-F:.]+\])(?::\d+)?)(/[^\s?#]*)?", endpoint, re.ASCII)
        if not (address and endpoint.isascii() and endpoint.isprintable()):
            raise UserError("--endpoint must be an address like http://localhost:8000/v1, without a name or key in it.")
        if not model:
            raise UserError("--endpoint needs the name of a model too: --endpoint_model NAME.")
        self.url = endpoint.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"
        self.name, self.model, self.stop = address[1], model, threading.Event()
        self.key = os.environ.get("OPENAI_API_KEY", "").strip()
        if not (self.key.isascii() and self.key.isprintable()):
            raise UserError("OPENAI_API_KEY holds characters that no key has; set it again.")
        self.opener = urllib.request.build_opener(NoRedirects)

    def ask(self, prompt: str) -> str:
        """The model's answer, with retries. Raises Refusal if the last try fails too."""
        for wait_s in (*WAITS_S, None):
            try:
                return self.ask_once(prompt)
            except TransientError as error:
                what, asked_s = error.args
            if wait_s is not None:
                wait_s = min(max(wait_s, asked_s), LONGEST_WAIT_S)
                log.warning("%s %s; trying again in %s.", self.name, what, duration(wait_s))
                if self.stop.wait(wait_s):
                    break
        if what == EMPTY:
            raise PromptRefusal(f"{self.name} {what}")
        raise Refusal(f"{self.name} {what}; correct that, then start again")

    def ask_once(self, prompt: str) -> str:
        """The answer to one request. Raises TransientError if another request may succeed, else Refusal."""
        asked = {"model": self.model, "messages": [{"role": "user", "content": prompt}], "temperature": 0}
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        request = urllib.request.Request(self.url, json.dumps(asked).encode(), headers)  # noqa: S310  # http(s) only
        try:
            with self.opener.open(request, timeout=TIMEOUT_S) as response:
                content = parse_json(response.read(ANSWER_BYTES))["choices"][0]["message"]["content"]
        except urllib.error.HTTPError as error:
            with error:
                raise self.error_of(error) from None
        except (OSError, http.client.HTTPException) as error:
            raise TransientError(f"cannot be reached ({type(getattr(error, 'reason', error)).__name__})", 0.0) from None
        except ValueError:
            raise TransientError("answers with something that is not JSON", 0.0) from None
        except (LookupError, TypeError):
            content = None
        if not isinstance(content, str) or not content.strip():
            raise TransientError(EMPTY, 0.0)
        return content.strip()

    def error_of(self, error: urllib.error.HTTPError) -> Exception:
        """The exception for an error status."""
        if error.code in TRANSIENT:
            what = "allows no more requests for now" if error.code == 429 else "has trouble"
            return TransientError(f"{what} ({error.code})", retry_after_s(error.headers.get("Retry-After", "")))
        if error.code in (401, 403):
            return Refusal(f"{self.name} does not accept the key ({error.code}); set OPENAI_API_KEY to a valid one")
        if error.code == 404:
            what = f"{self.name} knows no model '{one_line(self.model)}' or not this address (404)"
            return Refusal(f"{what}; check --endpoint_model, and --endpoint, which often ends in /v1")
        said = ""
        with contextlib.suppress(OSError, http.client.HTTPException):
            said = error.read(ANSWER_BYTES).decode("utf-8", "replace").strip()
        said = one_line(said.replace(self.key, "***") if self.key else said, 200)
        kind = PromptRefusal if error.code in REFUSED else Refusal
        return kind(f"{self.name} refused the request ({error.code}{': ' + said if said else ''})")


def retry_after_s(header: str) -> float:
    """The seconds in a Retry-After header; 0 if it holds something else."""
    return float(header) if re.fullmatch(r"\d+(\.\d+)?", header) else 0.0
