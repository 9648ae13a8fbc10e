"""To and from the Hugging Face Hub. Every failure is one sentence, and the token is in none of them."""

from __future__ import annotations

import contextlib
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from hf.folder import CARD_FILE, FILES, INDEX_FILE, PICTURE_FILE, WEIGHTS_FILE, sealed_files
from utils import UserError, log, one_line, sha256_of, user_path

T = TypeVar("T")

WAITS_S = (1.0, 3.0)  # between tries of what huggingface_hub itself tries only once
NEW_REPOSITORY = {".gitattributes"}  # what the Hub puts into it

REASONS = {
    401: "the Hub does not accept the token (401); log in with `hf auth login`, or set HF_TOKEN to a valid token",
    403: "the token has no right to do this (403); use one that may write, or ask the organization for the right",
    404: "the Hub does not know it, or not for this token (404); check the name",
}


class Repository(NamedTuple):
    """A repository on the Hub that may be written to."""

    commit: str | None  # that its files are at
    card_was_edited: bool  # on the Hub, after our last upload


class Hub:
    """The Hub, for a user who is logged in.

    Raises:
        UserError: not logged in, or the Hub cannot be reached or refuses the token.
    """

    def __init__(self) -> None:
        try:
            from huggingface_hub import HfApi, get_token
        except ValueError as error:  # raised while importing, when it reads its settings
            raise UserError(f"HF_ENDPOINT is not an address ({error}); unset or correct it.") from error

        token = get_token()
        if not token:
            raise UserError(
                "Not logged in to the Hub; run `hf auth login`, or set HF_TOKEN to a token that may write. "
                "(--dry-run needs neither.)"
            )
        if not re.fullmatch(r"[!-~]+", token):
            raise UserError("The stored token is not a Hub token; log in again with `hf auth login`.")
        self.api: Any = HfApi(token=token)
        with hub_errors("log in", token):
            self.user = str(with_retries(self.api.whoami)["name"])

    def upload(self, folder: Path, repo_id: str, private: bool, message: str) -> str:
        """Upload the folder in one commit, and create the repository if it does not exist.

        Returns:
            The repository's address.

        Raises:
            UserError: no right to it, other files in the way, no network, or too many requests.
        """
        with hub_errors(f"upload to '{repo_id}'", self.api.token):
            self.check_card(folder / CARD_FILE)  # before anything is created
            repository = self.prepare(repo_id, private)
            files = [name for name in FILES if not (repository.card_was_edited and name == CARD_FILE)]
            with_retries(
                lambda: self.api.upload_folder(
                    repo_id=repo_id, folder_path=folder, commit_message=message, parent_commit=repository.commit,
                    allow_patterns=files, delete_patterns=files,
                )
            )  # fmt: skip
        if repository.card_was_edited:
            log.info("The model card was edited on the Hub and stays as it is; delete it there to get a new one.")
        return f"{self.api.endpoint}/{repo_id}"

    def check_card(self, path: Path) -> None:
        """Raises UserError with the Hub's own words if it refuses the card's metadata."""
        from huggingface_hub import ModelCard

        try:
            with_retries(ModelCard.load(path).validate)
        except ValueError as error:
            words = one_line(" ".join(str(error).split()), 300)
            raise UserError(f"The Hub refuses the model card ({words}); correct '{path}' or the flags.") from error

    def prepare(self, repo_id: str, private: bool) -> Repository:
        """Create the repository, or make sure that an old one holds nothing but our last upload.

        Raises:
            UserError: it is public and should be private, or holds other files than our last upload.
        """
        with_retries(lambda: self.api.create_repo(repo_id, private=private or None, exist_ok=True))
        info = with_retries(lambda: self.api.repo_info(repo_id, files_metadata=True))
        if private and not info.private:
            raise UserError(f"'{repo_id}' exists and is public; make it private on the Hub, or leave out --private.")
        commit = info.sha if re.fullmatch(r"[0-9a-f]{40}", info.sha or "") else None
        there = {entry.rfilename: entry for entry in info.siblings or [] if entry.rfilename not in NEW_REPOSITORY}
        if not there:
            return Repository(commit, False)
        with tempfile.TemporaryDirectory(prefix="jojo-hub-") as place:
            small = ["config.json", CARD_FILE]
            with_retries(
                lambda: self.api.snapshot_download(repo_id, revision=info.sha, allow_patterns=small, local_dir=place)
            )
            card = Path(place, CARD_FILE)
            card_sha256 = sha256_of(card) if card.exists() else None
            try:
                sealed = sealed_files(Path(place))
            except UserError:  # not JSON
                sealed = None
        weights = getattr(getattr(there.get(WEIGHTS_FILE), "lfs", None), "sha256", None)
        if sealed is None or weights not in (None, sealed.get(WEIGHTS_FILE)) or INDEX_FILE in there:
            raise UserError(
                f"'{repo_id}' holds files that were not uploaded from here, or were changed since "
                f"({one_line(min(there))}); choose another --repo-name, or empty it on the Hub."
            )
        return Repository(commit, card_sha256 not in (None, sealed.get(CARD_FILE)))


def find_model(source: str) -> Path:
    """The folder of a model: the one given, or one fetched from the Hub (`openai-community/gpt2`).

    Raises:
        UserError: it is neither a folder nor a name on the Hub, or it cannot be fetched.
    """
    path = user_path(source)
    if path.is_dir():
        return path
    if path.exists():
        raise UserError(f"'{path}' is a file, not a Hugging Face folder; train.py reads it with --load_model_only.")
    from huggingface_hub import get_token, snapshot_download
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(source)
    except HFValidationError:
        raise UserError(f"'{one_line(source)}' is neither a folder nor a name on the Hub.") from None
    patterns = [INDEX_FILE, "model-*.safetensors", "added_tokens.json", *sorted({*FILES} - {CARD_FILE, PICTURE_FILE})]
    with hub_errors(f"fetch '{source}' (which is not a folder here)", get_token()):
        folder = Path(with_retries(lambda: snapshot_download(source, allow_patterns=patterns)))
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise UserError(f"'{source}' on the Hub has no safetensors ({WEIGHTS_FILE}); a pickle is never read.")
    return folder


# --- errors ---------------------------------------------------------------------------------------------------------


def with_retries(call: Callable[[], T]) -> T:
    """Call again if the Hub has trouble (a status of 500 or more) or the connection breaks."""
    from huggingface_hub import constants

    for wait in WAITS_S:
        try:
            return call()
        except Exception as error:
            status = status_of(error)
            if constants.HF_HUB_OFFLINE or not (status >= 500 if status else is_broken_connection(error)):
                raise
            log.warning("The Hub %s; trying again.", f"answered {status}" if status else "did not answer")
            time.sleep(wait)
    return call()


@contextlib.contextmanager
def hub_errors(action: str, token: str | None) -> Iterator[None]:
    """Turns what the Hub or the network raises into a UserError of one sentence."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        words = describe_error(error, action, token or "")
        if words is None:
            raise
        raise UserError(words) from None  # the token may be in what led here


def describe_error(error: Exception, action: str, token: str = "") -> str | None:
    """One sentence for an error of the Hub or the network; None for any other."""
    from huggingface_hub import constants

    status, cause = status_of(error), cause_of(error)
    words = (getattr(cause, "server_message", None) or "") if status else " ".join(str(cause).split())
    words = one_line(words.replace(token, "***") if token else words, 200)
    if status == 429:
        reason = f"the Hub allows no more requests for now (429); try again {wait_of(error)}"
    elif status:
        reason = REASONS.get(status) or f"the Hub answered {status}{f' ({words})' if words else ''}; try again later"
    elif is_broken_connection(error) and constants.HF_HUB_OFFLINE:
        reason = "HF_HUB_OFFLINE is set; unset it to use the network"
    elif is_broken_connection(error):
        reason = "the Hub cannot be reached; check the network, then start again"
    elif isinstance(cause, (ValueError, KeyError)):  # not JSON, or JSON with something else in it
        reason = f"the answer is not the Hub's ({type(cause).__name__}: {words}); check HF_ENDPOINT and any proxy"
    else:
        return None
    return f"Could not {action}: {reason}."


def cause_of(error: Exception) -> BaseException:
    """The error itself, or the one that huggingface_hub reports with it."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    wraps = isinstance(error, (LocalEntryNotFoundError, RuntimeError))
    return error.__cause__ if wraps and error.__cause__ else error


def status_of(error: Exception) -> int | None:
    """The HTTP status that an error reports."""
    status = getattr(getattr(cause_of(error), "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def is_broken_connection(error: Exception) -> bool:
    """Whether the network failed, or huggingface_hub was told not to use it (HF_HUB_OFFLINE)."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    http_error = HfHubHTTPError.__mro__[1]  # of the library below, which has changed its name before
    kinds = (http_error, ConnectionError, TimeoutError, LocalEntryNotFoundError)
    return status_of(error) is None and isinstance(cause_of(error), kinds)


def wait_of(error: Exception) -> str:
    """How long a 429 answer asks to wait."""
    headers: Any = getattr(getattr(cause_of(error), "response", None), "headers", {})
    limit = re.search(r";\s*t\s*=\s*(\d+)", headers.get("ratelimit", ""))
    seconds = limit[1] if limit else headers.get("retry-after", "")
    return f"in {seconds} seconds" if seconds.isdecimal() else "later"
