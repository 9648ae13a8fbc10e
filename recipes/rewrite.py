"""Documents rewritten by a language model: any server with OpenAI's chat API, asked once for each.

POST <endpoint>/chat/completions, with the key in OPENAI_API_KEY where that is set. Every answer is appended to a journal
at once, by the hash of model and prompt: a run that was broken off, or a larger one later, asks for what is new only.
"""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import http.client
import json
import os
import re
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from utils import UserError, duration, log, one_line

T = TypeVar("T")

THREADS = 4  # requests at a time
WINDOW = 32  # items read ahead, so that one slow answer does not stop the others
WAITS_S = (1.0, 4.0, 15.0, 60.0)  # between the tries
LONGEST_WAIT_S = 600.0  # whatever a server asks for
TIMEOUT_S = 300.0  # models on a processor are slow
REFUSED = (400, 413, 422)  # statuses that are about this one prompt
MOST_REFUSED = 10  # prompts before the first answer; more of them are no accident
EMPTY = "answers with no message"
PASSING = (408, 409, 425, 429, 500, 502, 503, 504, 529)  # statuses worth another try
ANSWER_BYTES = 4 << 20  # more is no answer
MALFORMED = (ValueError, RecursionError, KeyError, IndexError, TypeError)  # not JSON, or not of the form expected


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
    """Each item with the model's answer to its prompt ("" where it has none for this one), in the order of the items.

    Args:
        items: read as needed, a few ahead of what was given.
        prompt_of: what to ask for an item.
        endpoint: the server's address up to and without /chat/completions, such as http://localhost:8000/v1.
        model: the model's name there.
        journal: a JSONL file of answers; made where there is none.
        name_of: what to call an item, for messages.
        most: no more than so many are wanted, so that no more are asked for; None: all.

    Raises:
        UserError: the server cannot be asked, gives no answer after several tries, or refuses all of the first prompts.
    """
    server, answers = Server(endpoint, model), Journal(journal)
    done: set[str] = set()
    waiting: deque[tuple[T, Future[str]]] = deque()
    pool = ThreadPoolExecutor(THREADS, "rewrite")

    def answer(prompt: str) -> str:
        key = hashlib.sha256(f"{model}\0{prompt}".encode("utf-8", "replace")).hexdigest()
        text = answers.known.get(key) or answers.add(key, server.ask(prompt))
        done.add(key)
        return text

    rest, refused, left = iter(items), 0, most
    try:
        while True:
            ahead = WINDOW if left is None else min(WINDOW, max(1, left))  # 1: a duplicate was among them
            waiting.extend((item, pool.submit(answer, prompt_of(item))) for item in islice(rest, ahead - len(waiting)))
            if not waiting:
                return
            item, future = waiting.popleft()
            try:
                text = future.result()
            except PromptRefusal as error:
                text, refused = "", refused + 1
                where = f"{error} for '{one_line(name_of(item))}'"
                if not done and (refused == MOST_REFUSED or not waiting):
                    others = f", and nothing for {refused - 1} before it" if refused > 1 else ""
                    raise Refusal(f"{where}{others}; see to it, then start again") from None
                if refused == 1:
                    log.warning("%s, which stays as it was; if there are more of them, they will be counted.", where)
            left = None if left is None else left - 1
            yield item, text
    except Refusal as error:
        server.stop.set()
        pool.shutdown(cancel_futures=True)  # what is under way may still be answered
        kept = f" ({len(done):,} answers are kept; the same command continues from there)" if done else ""
        raise UserError(f"{error}{kept}.") from None
    finally:  # also where the caller stops, or Ctrl-C was pressed
        server.stop.set()
        pool.shutdown(cancel_futures=True)
        answers.file.close()


def accepted(
    answered: Iterable[tuple[T, str]], fits: Callable[[T, str], bool], complaint: str
) -> Iterator[tuple[T, str]]:
    """The same with "" for an answer that does not fit its item; how many those were is a warning at the end."""
    lost = 0
    try:
        for item, answer in answered:
            good = fits(item, answer)
            lost += not good
            yield item, answer if good else ""
    finally:  # also where no more are wanted
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
        if lines and not lines[-1].endswith(b"\n"):  # torn when the run ended
            self.file.truncate(sum(map(len, lines[:-1])))
            del lines[-1]
        for line in lines:
            with contextlib.suppress(*MALFORMED):  # what is damaged is asked for again
                entry = json.loads(line)
                self.known[str(entry["key"])] = str(entry["answer"])

    def add(self, key: str, answer: str) -> str:
        with self.lock:
            self.known[key] = answer
            self.file.write(json.dumps({"key": key, "answer": answer}).encode() + b"\n")
            self.file.flush()
        return answer


class Refusal(Exception):
    """The server gives no answer, however often it is asked. A sentence without its period."""


class PromptRefusal(Refusal):
    """The server gives no answer to this prompt; it may to another."""


class Trouble(Exception):
    """The server gave no answer this time: what it does, and the seconds that it asks to wait."""


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would send the key to another server."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Server:
    """An OpenAI-compatible server, asked patiently."""

    def __init__(self, endpoint: str, model: str | None) -> None:
        address = re.fullmatch(r"(https?://(?:[\w.-]+|\[[\da-fA-F:.]+\])(?::\d+)?)(/[^\s?#]*)?", endpoint, re.ASCII)
        if not (address and endpoint.isascii() and endpoint.isprintable()):
            raise UserError("--endpoint must be an address like http://localhost:8000/v1, without a name or key in it.")
        if not model:
            raise UserError("Name the model that --endpoint is to ask: --endpoint_model NAME.")
        self.url = endpoint.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"
        self.name, self.model, self.stop = address[1], model, threading.Event()
        self.key = os.environ.get("OPENAI_API_KEY", "").strip()
        if not (self.key.isascii() and self.key.isprintable()):
            raise UserError("OPENAI_API_KEY holds characters that no key has; set it anew.")
        self.opener = urllib.request.build_opener(NoRedirects)

    def ask(self, prompt: str) -> str:
        """The model's answer. Raises Refusal where there is none after all tries, or where trying is of no use."""
        for wait in (*WAITS_S, None):
            try:
                return self.try_once(prompt)
            except Trouble as trouble:
                what, wanted_s = trouble.args
            if wait is not None:
                wait = min(max(wait, wanted_s), LONGEST_WAIT_S)
                log.warning("%s %s; trying again in %s.", self.name, what, duration(wait))
                if self.stop.wait(wait):
                    break
        if what == EMPTY:
            raise PromptRefusal(f"{self.name} {what}")
        raise Refusal(f"{self.name} {what}; see to it, then start again")

    def try_once(self, prompt: str) -> str:
        """One request. Raises Trouble where another may be answered, else Refusal."""
        asked = {"model": self.model, "messages": [{"role": "user", "content": prompt}], "temperature": 0}
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        request = urllib.request.Request(self.url, json.dumps(asked).encode(), headers)  # noqa: S310  # http(s) only
        try:
            with self.opener.open(request, timeout=TIMEOUT_S) as response:
                content = json.loads(response.read(ANSWER_BYTES))["choices"][0]["message"]["content"]
        except urllib.error.HTTPError as error:
            with error:
                raise self.explained(error) from None
        except (OSError, http.client.HTTPException) as error:
            raise Trouble(f"cannot be reached ({type(getattr(error, 'reason', error)).__name__})", 0.0) from None
        except MALFORMED as error:
            is_json = isinstance(error, (LookupError, TypeError))
            raise Trouble(EMPTY if is_json else "answers with something that is not JSON", 0.0) from None
        if not isinstance(content, str) or not content.strip():
            raise Trouble(EMPTY, 0.0)
        return content.strip()

    def explained(self, error: urllib.error.HTTPError) -> Exception:
        """What a status means."""
        if error.code in PASSING:
            what = "allows no more requests for now" if error.code == 429 else "has trouble"
            return Trouble(f"{what} ({error.code})", seconds_asked(error.headers.get("Retry-After", "")))
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


def seconds_asked(header: str) -> float:
    """The wait that a Retry-After header asks for, which holds seconds or a date."""
    with contextlib.suppress(ValueError):
        return max(0.0, float(header))
    with contextlib.suppress(ValueError):
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    return 0.0
