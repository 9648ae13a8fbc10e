"""To and from the Hugging Face Hub, through huggingface_hub: every failure one sentence, and the token in none of them."""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from hf.folder import CARD_FILE, FILES, INDEX_FILE, WEIGHTS_FILE, sealed
from utils import UserError, log, one_line, sha256_of, user_path

T = TypeVar("T")

WAITS_S = (1.0, 3.0)  # before trying again what huggingface_hub tries once only
NEUTRAL_FILES = {".gitattributes"}  # the Hub puts it into every new repository
PASSING = (500, 502, 503, 504)  # statuses worth another try


class Hub:
    """A logged-in user's view of the Hub.

    Raises:
        UserError: not logged in, or the Hub cannot be reached or refuses the token.
    """

    def __init__(self) -> None:
        try:
            from huggingface_hub import HfApi, get_token
        except ValueError as error:  # it reads its settings when it is imported
            raise UserError(f"HF_ENDPOINT is no address ({error}); unset it, or correct it.") from error

        token = get_token()
        if not token:
            raise UserError(
                "Not logged in to the Hub; run `hf auth login`, or set HF_TOKEN to a token that may write. "
                "(--dry-run needs neither.)"
            )
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise UserError("The stored token is not one of the Hub's; log in again with `hf auth login`.")
        self.token = token
        self.api: Any = HfApi(token=token)
        with self.in_words("log in"):
            self.user = str(patiently(self.api.whoami)["name"])

    def upload(self, folder: Path, repo_id: str, private: bool, message: str) -> str:
        """Create the repository where there is none, and bring the folder's files into it in one commit.

        Returns:
            The repository's address.

        Raises:
            UserError: no right to, other content in the way, no network, or the Hub asks to wait.
        """
        with self.in_words(f"upload to '{repo_id}'"):
            self.check_card(folder / CARD_FILE, repo_id)  # before anything is created
            head, edited = self.prepare(repo_id, private)
            files = [name for name in FILES if not (edited and name == CARD_FILE)]
            patiently(
                lambda: self.api.upload_folder(
                    repo_id=repo_id, folder_path=folder, commit_message=message, parent_commit=head,
                    allow_patterns=files, delete_patterns=files if head else None,
                )
            )  # fmt: skip
        if edited:
            log.info("The model card on the Hub was edited there, and stays as it is; delete it for a new one.")
        return f"{self.api.endpoint}/{repo_id}"

    def check_card(self, path: Path, repo_id: str) -> None:
        """Raises UserError with the Hub's own words where it does not take the card's metadata."""
        from huggingface_hub import ModelCard

        card = ModelCard.load(path)
        try:
            patiently(card.validate)
        except json.JSONDecodeError:
            raise
        except ValueError as error:
            said = one_line(" ".join(str(error).split()), 300)
            raise UserError(
                f"Could not upload to '{repo_id}': the Hub does not take the model card ({said}); mend '{path}', or the flags."
            ) from error

    def prepare(self, repo_id: str, private: bool) -> tuple[str | None, bool]:
        """Make sure of a repository that may be written to.

        Returns:
            The commit its content is at, None for a new one; and whether somebody edited the card there.
        """
        from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

        refusal: HfHubHTTPError | None = None
        try:
            patiently(lambda: self.api.create_repo(repo_id, private=private or None))
            return None, False
        except HfHubHTTPError as error:
            if error.response.status_code not in (403, 409):
                raise
            refusal = error  # 403: a token for this one repository may create none
        try:
            info = patiently(lambda: self.api.repo_info(repo_id, files_metadata=True))
        except RepositoryNotFoundError:
            raise refusal from None
        if private and not info.private:
            raise UserError(f"'{repo_id}' exists and is public; make it private on the Hub, or leave out --private.")
        known = {entry.rfilename: entry for entry in info.siblings or [] if entry.rfilename not in NEUTRAL_FILES}
        commit = info.sha if re.fullmatch(r"[0-9a-f]{40}", info.sha or "") else None
        if not known:
            return commit, False
        written = self.written(repo_id, info.sha) if "config.json" in known else None
        weights = getattr(getattr(known.get(WEIGHTS_FILE), "lfs", None), "sha256", None)
        same = written is not None and weights in (None, written.get(WEIGHTS_FILE))
        if (
            written is None
            or not same
            or any(re.fullmatch(r"model.*\.(safetensors\.index\.json|bin)", n) for n in known)
        ):
            raise UserError(
                f"'{repo_id}' holds something that was not uploaded from here, or was changed since "
                f"({one_line(min(known))}); choose another --repo-name, or empty it on the Hub."
            )
        return commit, CARD_FILE in known and self.sha256_of(repo_id, CARD_FILE, info.sha) != written.get(CARD_FILE)

    def written(self, repo_id: str, commit: str) -> dict[str, Any] | None:
        """What the files of an export held when it was uploaded; None where there is no export of ours."""
        with self.fetched(repo_id, "config.json", commit) as path:
            try:
                return sealed(path.parent)
            except UserError:
                return None

    def sha256_of(self, repo_id: str, name: str, commit: str) -> str:
        """Of a file in a repository."""
        with self.fetched(repo_id, name, commit) as path:
            return sha256_of(path)

    @contextlib.contextmanager
    def fetched(self, repo_id: str, name: str, commit: str) -> Iterator[Path]:
        """A small file of a repository, for a moment."""
        with tempfile.TemporaryDirectory(prefix="jojo-hub-") as place:
            yield Path(patiently(lambda: self.api.hf_hub_download(repo_id, name, revision=commit, local_dir=place)))

    @contextlib.contextmanager
    def in_words(self, what: str) -> Iterator[None]:
        """Turns what the Hub or the network raises into a UserError of one sentence, without the token."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            words = explained(error, what, self.token)
            secret = any(self.token in f"{e!s}{e!r}" for e in chain(error))
            if words is None and not secret:
                raise  # a bug of ours keeps its traceback
            words = words or f"Could not {what} ({type(error).__name__})."
            raise UserError(words) from (None if secret else error)


def patiently(call: Callable[[], T]) -> T:
    """Call, and call again where the Hub stumbles or the connection breaks."""
    for wait in WAITS_S:
        try:
            return call()
        except Exception as error:
            status = status_of(error)
            garbled = isinstance(error, json.JSONDecodeError)
            if (
                status not in PASSING
                and not garbled
                and (status is not None or is_offline(error) or not is_network(error))
            ):
                raise
            log.warning("The Hub %s; trying again.", f"answered {status}" if status else "did not answer")
            time.sleep(wait)
    return call()


def chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and all that it came from."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def status_of(error: BaseException) -> int | None:
    """The HTTP status behind an exception."""
    for part in chain(error):
        status = getattr(getattr(part, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
    return None


def is_offline(error: BaseException) -> bool:
    """Whether the user asked for no network (HF_HUB_OFFLINE)."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    return any(isinstance(part, OfflineModeIsEnabled) for part in chain(error))


def is_network(error: BaseException) -> bool:
    """Whether the connection failed, under whichever name the HTTP library has for it."""
    return any(
        isinstance(part, (ConnectionError, TimeoutError)) or type(part).__module__.split(".")[0].startswith("httpx")
        for part in chain(error)
    )


def explained(error: BaseException, what: str, token: str = "") -> str | None:
    """One sentence for what the Hub or the network raised; None for anything else."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    def without_token(text: str, most: int) -> str:
        return one_line(text.replace(token, "***") if token else text, most)

    if is_offline(error):
        return f"Could not {what}: HF_HUB_OFFLINE is set; unset it to use the network."
    if isinstance(error, json.JSONDecodeError):
        return (
            f"Could not {what}: what answered is not the Hub; check HF_ENDPOINT, and any proxy or login page between."
        )
    status = status_of(error)
    if status is None:
        if isinstance(error, (ValueError, KeyError)):  # an address that is none, an answer with something else in it
            return f"Could not {what} ({without_token(f'{type(error).__name__}: {error}', 200)}); check HF_ENDPOINT and any proxy."
        if is_network(error) or isinstance(error, LocalEntryNotFoundError):
            return f"Could not {what}: the Hub cannot be reached; check the network, then start again."
        return None
    if status == 429:
        return f"Could not {what}: the Hub allows no more requests for now (429); try again {wait_of(error)}."
    reasons = {
        401: "the Hub does not accept the token (401); log in again with `hf auth login`, or set HF_TOKEN to a valid one",
        403: "the token has no right to (403); use one that may write there, or ask the organization's administrators",
        404: "the Hub does not know it, or not for this token (404); check the name",
        409: "something else is changing it at this moment (409); start again",
        412: "it was changed meanwhile (412); start again",
    }
    if status in reasons:
        return f"Could not {what}: {reasons[status]}."
    if status >= 500:
        return f"Could not {what}: the Hub has trouble ({status}); start again later."
    message = getattr(error, "server_message", None) or ""
    said = without_token(str(message), 200)
    return f"Could not {what}: the Hub refused ({status}{': ' + said if said else ''})."


def wait_of(error: BaseException) -> str:
    """How long the Hub asks to wait, in words."""
    for part in chain(error):
        headers = getattr(getattr(part, "response", None), "headers", None)
        if headers is not None:
            limit = re.search(r";\s*t\s*=\s*(\d+)", headers.get("ratelimit", ""))
            seconds = limit[1] if limit else headers.get("retry-after", "")
            if seconds.isdecimal():
                return f"in {seconds} seconds"
    return "later"


def find_model(source: str) -> Path:
    """The folder of a model: the one given, or fetched from the Hub (`openai-community/gpt2`).

    Raises:
        UserError: neither a folder nor a name, or the Hub does not give it.
    """
    path = user_path(source)
    if path.is_dir():
        return path
    if path.exists():
        raise UserError(
            f"'{path}' is a file, and no Hugging Face folder; train.py starts from one with --load_model_only."
        )
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(source)
    except HFValidationError:
        raise UserError(f"There is no folder '{one_line(source)}', and it is no name for the Hub either.") from None
    return fetch(source)


def fetch(name: str) -> Path:
    """A model's files from the Hub, or from its cache on this machine. Raises UserError where they cannot be had."""
    from huggingface_hub import get_token, snapshot_download

    wanted = [INDEX_FILE, "model-*.safetensors", "added_tokens.json", *(set(FILES) - {"README.md", "loss.png"})]
    token = get_token() or ""
    what = f"fetch '{name}'"
    try:
        folder = Path(patiently(lambda: snapshot_download(name, allow_patterns=wanted)))
    except Exception as error:
        words = explained(error, what, token)
        if words is None:
            raise
        secret = bool(token) and any(token in f"{e!s}{e!r}" for e in chain(error))
        raise UserError(f"{words[:-1]} (there is no folder of that name either).") from (None if secret else error)
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise UserError(f"'{name}' on the Hub is no model in safetensors ({WEIGHTS_FILE}); a pickle is never read.")
    return folder
