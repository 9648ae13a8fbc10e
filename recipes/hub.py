"""Downloads files of data sets from the Hub, once, and verifies them; or finds the files that a user downloaded.

    path = fetch_file("rajpurkar/squad", "plain_text/train-00000-of-00001.parquet", request.folder)

A broken download continues where it stopped, in a later run too; at most the last 10 MB are lost. A file is verified
against the size and the hash that the Hub gives for it. <file>.verified.json records that: later runs compare only size
and time, and hash again if the time has changed.
"""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

from utils import UserError, locked, log, one_line, parse_json, replace_text

HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")  # the Hub's ETag of a file is a hash: git's, or SHA-256

REASONS = {  # used here instead of those in hf/hub.py, which are about uploads
    401: "the Hub wants a valid token (401); log in with `hf auth login`, or check the name",
    403: "its owners want their terms accepted first (403); log in and do that on its page on the Hub",
}


class Unusable(Exception):
    """What arrived is not the Hub's file. The message has no period."""


def fetch_file(repo: str, name: str, folder: Path, revision: str | None = None, *, otherwise: str = "") -> Path:
    """One file of a data set on the Hub; see fetch_files."""
    return fetch_files(repo, [name], folder, revision, otherwise=otherwise)[0]


def fetch_files(
    repo: str, names: Sequence[str], folder: Path, revision: str | None = None, *, otherwise: str = ""
) -> list[Path]:
    """Files of a data set on the Hub; verified files are not downloaded again.

    Args:
        repo: the data set's repository, "owner/name".
        names: the files' paths in it.
        folder: a file goes to <folder>/<repo>/<name>. If the Hub cannot be reached to verify a file that was put there
            by hand, the file is used as it is.
        revision: branch, tag or commit; None: the newest.
        otherwise: half a sentence on what works without the files, for messages.

    Raises:
        UserError: a file is not available, or arrives damaged twice.
    """
    from hf.hub import check_endpoint, is_broken_connection

    paths = [folder / repo / name for name in names]
    for name, path in zip(names, paths, strict=True):
        if is_verified(path, revision):
            continue
        check_endpoint()
        try:
            _fetch(repo, name, path, revision)
        except Exception as error:
            if is_broken_connection(error) and path.is_file() and not _note_of(path).exists():
                log.warning("The Hub cannot be reached to verify '%s'; using the file as it is.", path)
                continue
            reason = _reason(error, f"fetch '{name}' of the data set '{repo}'")
            if reason is None:
                raise
            missing = [n for n, p in zip(names, paths, strict=True) if n == name or not p.is_file()]
            by_hand = f"https://huggingface.co/datasets/{repo}/tree/{revision or 'main'}"
            raise UserError(
                f"{reason}. Or download {' and '.join(missing)} from {by_hand} and add --source PATH (the file or its "
                f"folder){'; ' + otherwise if otherwise else ''}."
            ) from None
    return paths


def _fetch(repo: str, name: str, path: Path, revision: str | None) -> None:
    """Download one file; once more if it arrives damaged. Raises Unusable, or what the Hub and the network raise."""
    with locked(path.with_name(f".{path.name}.lock"), f"'{path}'"):
        damage = _download(repo, name, path, revision)
        if damage:
            log.warning("'%s' arrived damaged (%s); downloading it again.", path, damage)
            damage = _download(repo, name, path, revision)
    if damage:
        raise Unusable(f"it arrived damaged twice ({damage}); try again later")


def _download(repo: str, name: str, path: Path, revision: str | None) -> str | None:
    """Download a file, unless it is there already; returns what is wrong with the result, or None.

    Parts are kept under a name that says which version they belong to, so that a later call continues them.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    def url(version: str | None) -> str:
        return hf_hub_url(repo, name, repo_type="dataset", revision=version)

    expected = get_hf_file_metadata(url(revision))
    etag, size = expected.etag or "", expected.size
    if not HASH.fullmatch(etag) and not (etag and expected.commit_hash and size is not None):
        raise Unusable(
            "the answer is not the Hub's file (it has no checksum); check HF_ENDPOINT, and any proxy or login page"
        )
    if damage_of(path, etag, size) is not None:
        known = size if HASH.fullmatch(etag) else None  # without a hash, a part may be of any version
        part = path.with_name(f".{path.name}.{etag[:16] if known is not None else 'unknown'}.part")
        for old in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
            if old != part or known is None or old.stat().st_size > known:
                old.unlink()
        _continue_download(url(expected.commit_hash or revision), part, size, name)
        if damage := damage_of(part, etag, size):
            part.unlink(missing_ok=True)
            return damage
        os.replace(part, path)
    _note(path, expected.etag, revision)
    return None


def _continue_download(url: str, part: Path, size: int | None, name: str) -> None:
    """Download the rest of a file and append it to the part that is there."""
    from huggingface_hub import get_token
    from huggingface_hub.file_download import http_get

    headers = {"Accept-Encoding": "identity"}  # a compressed download could not be continued
    if token := get_token():
        headers["authorization"] = f"Bearer {token}"

    logging.getLogger("huggingface_hub.file_download").setLevel(logging.ERROR)  # it warns of every retry
    try:
        with open(part, "ab") as file:
            http_get(url, file, resume_size=file.tell(), headers=headers, expected_size=size, displayed_filename=name)
    except OSError as error:
        if "Consistency check failed" not in str(error):  # the size is wrong: damage_of reports it
            raise


def _reason(error: Exception, action: str) -> str | None:
    """What the Hub or the network raised, as a sentence without a period; None for anything else."""
    from hf.hub import describe_error, status_of

    reason = str(error) if isinstance(error, Unusable) else REASONS.get(status_of(error) or 0)
    words = f"Could not {action}: {reason}" if reason else describe_error(error, action)
    return words and words.removesuffix(".")


def damage_of(path: Path, etag: str | None, size: int | None) -> str | None:
    """What is wrong with a file, or None. `etag` is the Hub's: SHA-256 for a large file, else git's hash."""
    if not path.is_file():
        return "it is missing"
    actual = path.stat().st_size
    if size is not None and actual != size:
        return f"{actual:,} bytes instead of {size:,}"
    if not (etag and HASH.fullmatch(etag)):
        return None  # the ETag of a mirror, which is not a hash
    digest = hashlib.sha256() if len(etag) == 64 else hashlib.sha1(b"blob %d\0" % actual, usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return None if digest.hexdigest() == etag else "its hash differs"


def is_verified(path: Path, revision: str | None) -> bool:
    """Whether this file was verified before and has not changed since."""
    try:
        noted = parse_json(_note_of(path).read_bytes())
        facts = path.stat()
        if (noted["size"], noted["revision"]) != (facts.st_size, revision) or not noted["etag"]:
            return False
        if noted["mtime_ns"] != facts.st_mtime_ns:  # copied, perhaps
            if damage_of(path, noted["etag"], noted["size"]) is not None:
                return False
            _note(path, noted["etag"], revision)
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return True


def _note_of(path: Path) -> Path:
    """The file that says that a file was verified."""
    return path.with_name(path.name + ".verified.json")


def _note(path: Path, etag: str | None, revision: str | None) -> None:
    facts = path.stat()
    noted = {"size": facts.st_size, "mtime_ns": facts.st_mtime_ns, "etag": etag, "revision": revision}
    replace_text(_note_of(path), json.dumps(noted) + "\n")


def local_file(path: Path, names: Sequence[str]) -> Path:
    """The file that a user downloaded: `path` itself, or the first of `names` in the folder `path`.

    Raises:
        UserError: the file is missing; the message has the names.
    """
    if path.is_file():
        return path
    for candidate in (folder for name in names for folder in (path / name, path / Path(name).name)):
        if candidate.is_file():
            return candidate
    expected = " or ".join(names)
    if path.is_dir():
        raise UserError(f"The folder '{path}' holds no {expected}; put it there, or name the file with --source.")
    raise UserError(f"There is no file or folder '{one_line(str(path), 200)}' (for {expected}); check --source.")
