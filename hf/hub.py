"""To and from the Hugging Face Hub. Every failure is reported in one sentence, without the token."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hf.folder import CARD_FILE, FILES, GGUF_FILE, INDEX_FILE, WEIGHTS_FILE, exported_hashes
from utils import UserError, log, one_line, sha256_of, user_path

REASONS = {
    401: "the Hub does not accept the token (401); log in with `hf auth login`, or set HF_TOKEN to a valid token",
    403: "the token has no right to do this (403); use one that may write, or ask the organization for the right",
    404: "the Hub does not know it, or not for this token (404); check the name",
    429: "the Hub allows no more requests for now (429); try again in a few minutes",
}


class Hub:
    """The Hub, for a user who is logged in. Raises UserError if nobody is, or if the Hub does not accept the token."""

    def __init__(self) -> None:
        from huggingface_hub import HfApi, get_token

        token = get_token()
        if not token:
            raise UserError("Not logged in to the Hub; run `hf auth login`, or set HF_TOKEN to a token that may write.")
        if not re.fullmatch(r"[!-~]+", token):
            raise UserError("The stored token is not a Hub token; log in again with `hf auth login`.")
        self.api: Any = HfApi(token=token)
        with hub_errors("log in"):
            self.user = str(self.api.whoami()["name"])

    def upload(self, folder: Path, repo_id: str, private: bool, message: str) -> str:
        """Upload the folder in one commit, and create the repository if it does not exist. Returns its address.

        Raises UserError if the user may not write to it, it holds other files, or the network fails.
        """
        with hub_errors(f"upload to '{repo_id}'"):
            check_card(folder / CARD_FILE)  # before anything is created
            commit, card_was_edited = self.prepare(repo_id, private)
            files = [name for name in FILES if not (card_was_edited and name == CARD_FILE)]
            self.api.upload_folder(
                repo_id=repo_id, folder_path=folder, commit_message=message, parent_commit=commit,
                allow_patterns=files, delete_patterns=files,
            )  # fmt: skip
        if card_was_edited:
            log.info("The model card was edited on the Hub and stays as it is; delete it there to get a new one.")
        return f"{self.api.endpoint}/{repo_id}"

    def prepare(self, repo_id: str, private: bool) -> tuple[str, bool]:
        """Create the repository, or check that an existing one holds nothing but our last upload.

        Returns its newest commit, and whether the model card was edited on the Hub. Raises UserError if the repository
        is public and should be private, or holds other files than our last upload.
        """
        self.api.create_repo(repo_id, private=private or None, exist_ok=True)
        info = self.api.repo_info(repo_id, files_metadata=True)
        if private and not info.private:
            raise UserError(f"'{repo_id}' exists and is public; make it private on the Hub, or leave out --private.")
        existing = {entry.rfilename: entry for entry in info.siblings or [] if entry.rfilename != ".gitattributes"}
        if not existing:
            return info.sha, False
        with tempfile.TemporaryDirectory(prefix="jojo-hub-") as copy:
            small = ["config.json", CARD_FILE]
            self.api.snapshot_download(repo_id, revision=info.sha, allow_patterns=small, local_dir=copy)
            sealed, card = exported_hashes(Path(copy)), Path(copy, CARD_FILE)
            card_was_edited = card.exists() and sha256_of(card) != (sealed or {}).get(CARD_FILE)
        weights = getattr(getattr(existing.get(WEIGHTS_FILE), "lfs", None), "sha256", None)
        if sealed is None or weights not in (None, sealed.get(WEIGHTS_FILE)) or INDEX_FILE in existing:
            raise UserError(
                f"'{repo_id}' holds files that were not uploaded from here, or were changed since "
                f"({one_line(min(existing))}); choose another --repo-name, or empty it on the Hub."
            )
        return info.sha, card_was_edited


def check_card(path: Path) -> None:
    """Raises UserError with the Hub's own words if it refuses the card's metadata."""
    from huggingface_hub import ModelCard
    from yaml import YAMLError  # type: ignore[import-untyped]

    try:
        ModelCard.load(path).validate()
    except (ValueError, YAMLError) as error:
        words = one_line(" ".join(str(error).split()), 300)
        raise UserError(f"The Hub refuses the model card ({words}); correct '{path}' or the flags.") from error


def find_model(source: str) -> Path:
    """The folder of a model: `source` itself, or a copy fetched from the Hub (`openai-community/gpt2`).

    Raises UserError if it is neither a folder nor a name on the Hub, or if it cannot be fetched.
    """
    path = user_path(source)
    if path.is_dir():
        return path
    if path.exists():
        raise UserError(f"'{path}' is a file, not a Hugging Face folder; train.py reads it with --load_model_only.")
    check_endpoint()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    patterns = [*(name for name in FILES if name != GGUF_FILE), INDEX_FILE, "model-*.safetensors", "added_tokens.json"]
    with hub_errors(f"fetch '{source}' (which is not a folder here)"):
        try:
            folder = Path(snapshot_download(source, allow_patterns=patterns))
        except HFValidationError:
            raise UserError(f"'{one_line(source)}' is neither a folder nor a name on the Hub.") from None
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise UserError(f"'{source}' on the Hub has no safetensors ({WEIGHTS_FILE}); a pickle is never read.")
    return folder


def check_endpoint() -> None:
    """Raises UserError if HF_ENDPOINT is not an address. Call it first: with such a value, importing huggingface_hub can fail."""
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    with contextlib.suppress(ValueError):
        if re.fullmatch(r"https?://[!-~]+", address) and urlsplit(address).port != 0:  # a bad port raises ValueError
            return
    raise UserError(f"HF_ENDPOINT is not an address ('{one_line(address)}'); unset or correct it.")


@contextlib.contextmanager
def hub_errors(action: str) -> Iterator[None]:
    """Turns what the Hub or the network raises into a UserError of one sentence."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if words := describe_error(error, action):
            raise UserError(words) from None  # from None, because the token may be in the original error
        raise


def describe_error(error: Exception, action: str) -> str | None:
    """One sentence for an error of the Hub or the network; None for any other."""
    from huggingface_hub import constants, get_token

    status, cause = status_of(error), cause_of(error)
    words = (getattr(cause, "server_message", None) or "") if status else " ".join(str(cause).split())
    words = one_line(words.replace(get_token() or "\n", "***"), 200)
    if status:
        reason = REASONS.get(status) or f"the Hub answered {status}{f' ({words})' if words else ''}; try again later"
    elif is_broken_connection(error) and constants.HF_HUB_OFFLINE:
        reason = "HF_HUB_OFFLINE is set; unset it to use the network"
    elif is_broken_connection(error):
        reason = "the Hub cannot be reached; check the network, then start again"
    elif isinstance(cause, (ValueError, KeyError)) or type(cause).__name__ == "InvalidURL":  # InvalidURL is httpx's
        reason = f"the answer is not the Hub's ({type(cause).__name__}: {words}); check HF_ENDPOINT and any proxy"
    else:
        return None
    return f"Could not {action}: {reason}."


def cause_of(error: Exception) -> BaseException:
    """The error that huggingface_hub wrapped in this one, or else the error itself."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    wraps = isinstance(error, (LocalEntryNotFoundError, RuntimeError))
    return error.__cause__ if wraps and error.__cause__ else error


def status_of(error: Exception) -> int | None:
    """The HTTP status that an error reports."""
    return getattr(getattr(cause_of(error), "response", None), "status_code", None)


def is_broken_connection(error: Exception) -> bool:
    """Whether the network failed, or huggingface_hub was told not to use it (HF_HUB_OFFLINE)."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    http_error = HfHubHTTPError.__mro__[1]  # the base class of the HTTP library below it, which has changed before
    kinds = (http_error, ConnectionError, TimeoutError, LocalEntryNotFoundError)
    return status_of(error) is None and isinstance(cause_of(error), kinds)
