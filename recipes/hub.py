"""Files of data sets: fetched from the Hub once, verified, found again without a network; or found where a user put them.

    path = fetch_file("rajpurkar/squad", "plain_text/train-00000-of-00001.parquet", wanted.folder)

A download that was broken off goes on where it had got to, in a later run too; what has come is kept in steps of 10 MB. A
file is verified against the size and the hash that the Hub gives for it. What was verified is noted beside it
(<file>.verified.json), so that later runs compare size and time only, and hash again where the time has changed.
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

from utils import UserError, locked, log, one_line, replace_text

HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")  # as the Hub names the contents of a file: git's, or SHA-256

# Said otherwise than in hf_hub.py, whose sentences are about uploads too.
REFUSALS = {
    401: "the Hub does not give it without a valid token (401): log in with `hf auth login`, or check the name",
    403: "its owners want their terms accepted first (403): log in and do that on its page on the Hub",
}


class Unusable(Exception):
    """What came is not the Hub's file: what it is, without a period."""


def fetch_file(repo: str, name: str, folder: Path, revision: str | None = None, *, otherwise: str = "") -> Path:
    """One file of a data set on the Hub; see fetch_files."""
    return fetch_files(repo, [name], folder, revision, otherwise=otherwise)[0]


def fetch_files(
    repo: str, names: Sequence[str], folder: Path, revision: str | None = None, *, otherwise: str = ""
) -> list[Path]:
    """Files of a data set on the Hub; not fetched again where they are there and were verified.

    Args:
        repo: the data set's repository, "owner/name".
        names: the files' paths in it.
        folder: a file goes to <folder>/<repo>/<name>. One that was put there by hand is taken where the Hub cannot be
            reached to verify it.
        revision: branch, tag or commit; None: the newest.
        otherwise: half a sentence on what works without the files, for messages.

    Raises:
        UserError: a file cannot be had, or arrives damaged twice.
    """
    from hf.hub import status_of

    paths = [folder / repo / name for name in names]
    for name, path in zip(names, paths, strict=True):
        if is_verified(path, revision):
            continue
        try:
            _fetch(repo, name, path, revision)
        except Exception as error:
            words = _explained(error, f"fetch '{name}' of the data set '{repo}'")
            if words is None:
                raise
            unreachable = status_of(error) is None and not isinstance(error, Unusable)
            if unreachable and path.is_file() and not _note_of(path).exists():
                log.warning("'%s' could not be verified, because the Hub cannot be reached; taking it as it is.", path)
                continue
            missing = [n for n, p in zip(names, paths, strict=True) if n == name or not p.is_file()]
            raise UserError(
                f"{words}; {' and '.join(missing)}, fetched by hand from "
                f"https://huggingface.co/datasets/{repo}/tree/{revision or 'main'}, can be given with --source PATH "
                f"(the file or its folder){', and ' + otherwise if otherwise else ''}."
            ) from None
    return paths


def _fetch(repo: str, name: str, path: Path, revision: str | None) -> None:
    """Fetch one file, twice if need be. Raises Unusable, or what the Hub and the network raise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f".{path.name}.lock"), f"'{path}'"):
        for last in (False, True):
            damage = _download(repo, name, path, revision)
            if damage is None:
                return
            log.warning("'%s' arrived damaged (%s)%s.", path, damage, "" if last else "; fetching it again")
    raise Unusable("it arrived damaged twice; try again later")


def _download(repo: str, name: str, path: Path, revision: str | None) -> str | None:
    """Fetch a file, unless what is there is it already; returns what is wrong with what came, or None.

    What has come is kept under a name that says of which version it is a part, and a later call goes on behind it.
    """
    from huggingface_hub import get_hf_file_metadata, get_token, hf_hub_url
    from huggingface_hub.file_download import http_get

    from hf.hub import with_retries

    def url(version: str | None) -> str:
        return hf_hub_url(repo, name, repo_type="dataset", revision=version)

    expected = with_retries(lambda: get_hf_file_metadata(url(revision)))
    etag, size = expected.etag or "", expected.size
    if not HASH.fullmatch(etag) and not (etag and expected.commit_hash and size is not None):
        raise Unusable(
            "what answered is not the Hub's file (no checksum), and nothing was kept; check "
            "HF_ENDPOINT, and any proxy or login page between"
        )
    if damage_of(path, etag, size) is not None:
        known = size if HASH.fullmatch(etag) else None  # without both, nobody can say what a part is a part of
        part = path.with_name(f".{path.name}.{etag[:16] if known is not None else 'unknown'}.part")
        for old in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
            if old != part or known is None or old.stat().st_size > known:
                old.unlink()
        headers = {"Accept-Encoding": "identity"}  # packed, it could not be gone on with
        if token := get_token():
            headers["authorization"] = f"Bearer {token}"

        def go_on() -> None:
            logging.getLogger("huggingface_hub.file_download").setLevel(
                logging.ERROR
            )  # `with_retries` says what it would
            with open(part, "ab") as file:
                address = url(expected.commit_hash or revision)  # the very version that the metadata is of
                http_get(
                    address, file, resume_size=file.tell(), headers=headers, expected_size=size, displayed_filename=name
                )

        try:
            with_retries(go_on)
        except OSError as error:
            if "Consistency check failed" not in str(error):  # its words for another size than announced
                raise
        if damage := damage_of(part, etag, size):
            part.unlink(missing_ok=True)
            return damage
        os.replace(part, path)
    _note(path, expected.etag, revision)
    return None


def _explained(error: Exception, what: str) -> str | None:
    """What the Hub or the network raised, in words without a period; None for anything else."""
    if isinstance(error, Unusable):
        return f"Could not {what}: {error}"
    from huggingface_hub import get_token

    from hf.hub import describe_error, status_of

    refusal = REFUSALS.get(status_of(error) or 0)
    words = f"Could not {what}: {refusal}" if refusal else describe_error(error, what, get_token() or "")
    return words and words.removesuffix(".")


def damage_of(path: Path, etag: str | None, size: int | None) -> str | None:
    """What is wrong with a file, or None. `etag` is the Hub's: a large file's SHA-256, git's hash of any other."""
    if not path.is_file():
        return "it is not there"
    actual = path.stat().st_size
    if size is not None and actual != size:
        return f"{actual:,} bytes instead of {size:,}"
    if not (etag and HASH.fullmatch(etag)):
        return None  # a mirror of the Hub, with tags of its own
    digest = hashlib.sha256() if len(etag) == 64 else hashlib.sha1(b"blob %d\0" % actual, usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return None if digest.hexdigest() == etag else "its hash is another"


def is_verified(path: Path, revision: str | None) -> bool:
    """Whether this file was verified before and has not changed since."""
    try:
        noted = json.loads(_note_of(path).read_text(encoding="utf-8"))
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
    """Where it is noted that a file was verified."""
    return path.with_name(path.name + ".verified.json")


def _note(path: Path, etag: str | None, revision: str | None) -> None:
    facts = path.stat()
    noted = {"size": facts.st_size, "mtime_ns": facts.st_mtime_ns, "etag": etag, "revision": revision}
    replace_text(_note_of(path), json.dumps(noted) + "\n")


def local_file(path: Path, names: Sequence[str]) -> Path:
    """The file that a user put somewhere: `path` itself, or the first of `names` that the folder `path` holds.

    Raises:
        UserError: there is none; the message has the names.
    """
    if path.is_file():
        return path
    for candidate in (folder for name in names for folder in (path / name, path / Path(name).name)):
        if candidate.is_file():
            return candidate
    wanted = " or ".join(names)
    if path.is_dir():
        raise UserError(f"The folder '{path}' holds no {wanted}; put it there, or name the file itself with --source.")
    raise UserError(f"There is no file or folder '{one_line(str(path), 200)}' (for {wanted}); check --source.")
