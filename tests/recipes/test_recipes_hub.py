"""Tests of recipes with a local server: it plays the Hub, with all its errors, and the language model that rewrites."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import itertools
import json
import logging
import re
import shutil
import sys
import threading
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from data_server import DataServer
from helpers_data import examples, logged, warnings_in
from hypothesis import given
from hypothesis import strategies as st

import recipes.story
from jojo.text.documents import Document
from recipes import chat, dailydialog, hub, knowledge, rewrite, story
from recipes.dailydialog import repaired
from recipes.recipe import RecipeRequest
from utils import UserError

REPO, NAME = "someone/texts", "folder/text.txt"
KEY = "sk-" + "Secret" * 5


@pytest.fixture(scope="module")
def running() -> Iterator[DataServer]:
    with DataServer() as server:
        yield server


@pytest.fixture
def server(running: DataServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> DataServer:
    """The server without any files. huggingface_hub uses it as the Hub, and retries without waiting."""
    from huggingface_hub import constants

    running.clear()
    monkeypatch.setattr(constants, "ENDPOINT", running.endpoint)
    template = "{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{running.endpoint}/{template}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "handlers", [])  # they hold the first test's stderr
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(rewrite, "WAITS_S", (0.0,) * 4)
    return running


def switch_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes huggingface_hub refuse every connection from now on."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def documents(recipe: Any, **wanted: Any) -> list[Document]:
    return list(recipe.documents(RecipeRequest(**wanted)))


def fetch(folder: Path, **options: Any) -> Path:
    return hub.fetch_file(REPO, NAME, folder, **options)


def gets(server: DataServer) -> list[str]:
    """The Range header of every download; "" if it had no such header."""
    return [a.headers.get("Range", "") for a in server.asked if a.method == "GET" and a.path.endswith(NAME)]


# --- fetching ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("large", [True, False])
def test_a_file_is_fetched_once_and_needs_no_network_again(
    server: DataServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    server.add(REPO, NAME, b"some text", large)
    path = fetch(tmp_path)
    assert path == tmp_path / REPO / NAME
    assert path.read_bytes() == b"some text"
    asked = len(server.asked)
    switch_off(monkeypatch)
    assert fetch(tmp_path) == path
    assert len(server.asked) == asked


def test_a_broken_download_continues_where_it_broke(
    server: DataServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10_000)  # saved in pieces of this size
    content = bytes(range(256)) * 400
    server.add(REPO, NAME, content)
    server.cut(r"text\.txt", 40_000)
    assert fetch(tmp_path).read_bytes() == content
    assert logging.getLogger("huggingface_hub.file_download").getEffectiveLevel() == logging.ERROR
    first, second = [a for a in server.asked if a.path.startswith("/elsewhere/") and a.method == "GET"]
    assert "Range" not in first.headers
    assert second.headers["Range"] == "bytes=40000-"


@pytest.mark.parametrize("changed", [False, True])
def test_a_later_run_continues_a_download_only_of_the_same_version(
    server: DataServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: bool
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10_000)
    content = bytes(range(256)) * 400
    server.add(REPO, NAME, content)
    server.cut(r"text\.txt", 40_000)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("time.sleep", interrupt)  # Ctrl-C while it waits to try again
        fetch(tmp_path)
    assert not (tmp_path / REPO / NAME).exists()
    if changed:
        content = content[::-1]
        server.add(REPO, NAME, content)
    assert fetch(tmp_path).read_bytes() == content
    assert gets(server)[-1] == ("" if changed else "bytes=40000-")
    assert sorted(p.name for p in (tmp_path / REPO / NAME).parent.iterdir() if not p.name.endswith(".lock")) == [
        "text.txt",
        "text.txt.verified.json",
    ]


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("large", [True, False])
def test_a_damaged_file_is_fetched_again_and_a_second_one_refused(
    server: DataServer, tmp_path: Path, large: bool
) -> None:
    server.add(REPO, NAME, b"some text", large)
    server.instead[f"{REPO}/{NAME}"] = [b"some tekt"]
    with logged() as records:
        assert fetch(tmp_path).read_bytes() == b"some text"
    assert any("its hash differs); downloading it again" in text for text in warnings_in(records))
    server.instead[f"{REPO}/{NAME}"] = [b"some tekt", b"some te"]
    with pytest.raises(
        UserError, match=r"Could not fetch 'folder/text\.txt' of the data set 'someone/texts': it arrived"
    ):
        fetch(tmp_path / "other")
    assert not (tmp_path / "other" / REPO / NAME).exists()


def test_a_file_that_changed_on_disk_is_noticed(
    server: DataServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add(REPO, NAME, b"some text")
    path = fetch(tmp_path)
    for spoiled in (b"some tekt", b"some", b""):
        path.write_bytes(spoiled)
        assert fetch(tmp_path).read_bytes() == b"some text"
    shutil.copytree(tmp_path / "someone", tmp_path / "copied" / "someone", copy_function=shutil.copyfile)
    path.with_name(path.name + ".verified.json").write_text("[]")
    switch_off(monkeypatch)
    assert fetch(tmp_path / "copied").read_bytes() == b"some text"  # hashed again, without the network
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        fetch(tmp_path)


def test_a_file_that_is_there_without_a_note_is_not_fetched_again(server: DataServer, tmp_path: Path) -> None:
    server.add(REPO, NAME, b"some text")
    (tmp_path / REPO / NAME).parent.mkdir(parents=True)
    (tmp_path / REPO / NAME).write_bytes(b"some text")
    fetch(tmp_path)
    assert not gets(server)
    server.files[f"{REPO}/{NAME}"] = b"newer text"
    assert fetch(tmp_path).read_bytes() == b"some text"  # a verified file is kept
    assert fetch(tmp_path, revision="v2").read_bytes() == b"newer text"  # another version was asked for


REFUSED = [
    (401, "the Hub wants a valid token (401); log in with `hf auth login`, or check the name"),
    (403, "its owners want their terms accepted first (403)"),
    (404, "the Hub does not know it, or not for this token (404)"),
    (429, "the Hub allows no more requests for now (429); try again in a few minutes"),
    (500, "the Hub answered 500; try again later"),
    (None, "the Hub cannot be reached; check the network, then start again"),
]


@pytest.mark.parametrize(("status", "words"), REFUSED)
def test_every_error_is_one_sentence_that_says_what_to_do(
    server: DataServer, tmp_path: Path, status: int | None, words: str
) -> None:
    server.add(REPO, NAME, b"some text")
    server.fail("HEAD", "text", status, 99)
    with pytest.raises(UserError) as caught:
        fetch(tmp_path, otherwise="the sample works without it: --source sample")
    message = str(caught.value)
    assert message.startswith("Could not fetch 'folder/text.txt' of the data set 'someone/texts': ")
    assert words in message
    assert message.endswith(
        ". Or download folder/text.txt from https://huggingface.co/datasets/someone/texts/tree/main and add --source PATH "
        "(the file or its folder); the sample works without it: --source sample."
    )
    assert "\n" not in message


def test_all_missing_files_are_named_and_those_put_there_by_hand_are_taken_without_the_hub(
    server: DataServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch_off(monkeypatch)
    with pytest.raises(UserError, match=r"'a' of .*\. Or download a and b from .*/tree/v2 and add"):
        hub.fetch_files(REPO, ["a", "b"], tmp_path, "v2")
    (tmp_path / REPO / "a").write_bytes(b"text")
    with pytest.raises(UserError, match=r"'b' of .*\. Or download b from"), logged() as records:
        hub.fetch_files(REPO, ["a", "b"], tmp_path)
    assert warnings_in(records) == [
        f"The Hub cannot be reached to verify '{tmp_path / REPO / 'a'}'; using the file as it is."
    ]
    assert hub.fetch_files(REPO, ["a"], tmp_path) == [tmp_path / REPO / "a"]
    server.fail("HEAD", "a", 404)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(UserError, match="404"):  # now the Hub is reached
        hub.fetch_files(REPO, ["a"], tmp_path)


@pytest.mark.parametrize("headers", [{}, {"ETag": '"page-1"'}])
def test_a_login_page_in_place_of_a_file_is_not_kept(
    server: DataServer, tmp_path: Path, headers: dict[str, str]
) -> None:
    server.add(REPO, NAME, b"some text")
    server.fail("HEAD", "text", 200, 1, headers, "<html>")
    server.fail("GET", "text", 200, 1, headers, "<html>")
    with pytest.raises(UserError, match=r"is not the Hub's file \(it has no checksum\); check"):
        fetch(tmp_path)
    path = tmp_path / REPO / NAME
    assert [p for p in path.parent.iterdir() if p.suffix != ".lock"] == []
    server.faults.clear()
    assert fetch(tmp_path).read_bytes() == b"some text"
    path.write_bytes(b"<html>")  # as earlier versions kept it
    hub._note(path, None, None)
    assert fetch(tmp_path).read_bytes() == b"some text"


def test_a_file_that_is_not_on_the_hub(server: DataServer, tmp_path: Path) -> None:
    server.add(REPO, "other.txt", b"some text")
    with pytest.raises(UserError, match=r"does not know it, or not for this token \(404\)"):
        fetch(tmp_path)
    with pytest.raises(UserError, match=r"\(404\)"):
        hub.fetch_file("nobody/nothing", NAME, tmp_path)


def test_the_token_is_sent_and_never_shown(server: DataServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = "hf_" + "Secret" * 5
    monkeypatch.setenv("HF_TOKEN", token)
    server.add(REPO, NAME, b"some text")
    server.fail("HEAD", "text", 400, 1, {"X-Error-Message": f"bad {token}"})
    with pytest.raises(UserError) as caught:
        fetch(tmp_path)
    assert token not in str(caught.value)
    fetch(tmp_path)
    sent = {a.headers.get("authorization", a.headers.get("Authorization")) for a in server.asked if a.method == "HEAD"}
    assert sent == {f"Bearer {token}"}
    elsewhere = next(a for a in server.asked if a.path.startswith("/elsewhere/"))
    assert not {"authorization", "Authorization"} & set(elsewhere.headers)


def test_local_file(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b.txt", "deep/c.txt"):
        (tmp_path / name).touch()
    assert hub.local_file(tmp_path / "b.txt", ["a.txt"]) == tmp_path / "b.txt"
    assert hub.local_file(tmp_path, ["a.txt", "b.txt"]) == tmp_path / "b.txt"
    assert hub.local_file(tmp_path, ["elsewhere/b.txt"]) == tmp_path / "b.txt"
    assert hub.local_file(tmp_path, ["deep/c.txt"]) == tmp_path / "deep/c.txt"
    with pytest.raises(UserError, match=r"The folder '.*' holds no a\.txt or d\.txt; put it there"):
        hub.local_file(tmp_path, ["a.txt", "d.txt"])
    with pytest.raises(UserError, match=r"no file or folder '.*missing' \(for a\.txt\)"):
        hub.local_file(tmp_path / "missing", ["a.txt"])


# --- stories -----------------------------------------------------------------------------------------------------------

TALES = "Once there was a fox.\nIt slept.\n<|endoftext|>\n\n  A hen sat.  \n\n<|endoftext|>\n<|endoftext|>\n \nThe end – ja.\n"
STORIES = ["Once there was a fox.\nIt slept.", "A hen sat.", "The end – ja."]


def test_tiny_stories_from_the_hub_keep_their_splits(server: DataServer, tmp_path: Path) -> None:
    server.add(story.REPO, "TinyStoriesV2-GPT4-train.txt", TALES.encode())
    server.add(story.REPO, "TinyStoriesV2-GPT4-valid.txt", b"A goat.\n<|endoftext|>\n")
    expected = [("train", {"text": text}) for text in STORIES] + [("val", {"text": "A goat."})]
    assert documents(story.RECIPE, source="hub", folder=tmp_path) == expected
    by_hand = tmp_path / story.REPO
    assert documents(story.RECIPE, source="path", path=by_hand) == expected
    alone = documents(story.RECIPE, source="path", path=by_hand / "TinyStoriesV2-GPT4-valid.txt")
    assert alone == [("", {"text": "A goat."})]
    (by_hand / "TinyStoriesV2-GPT4-valid.txt").rename(by_hand / "goats.txt")
    assert documents(story.RECIPE, source="path", path=by_hand / "goats.txt") == [("", {"text": "A goat."})]
    with pytest.raises(UserError, match=r"holds no TinyStoriesV2-GPT4-valid\.txt"):
        documents(story.RECIPE, source="path", path=by_hand)


def test_without_a_network_the_sample_is_recommended(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"TinyStoriesV2-GPT4-train\.txt.*HF_HUB_OFFLINE.*the built-in sample needs no download"
    ):
        documents(story.RECIPE, source="hub", folder=tmp_path)


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_lines_may_end_as_on_windows_and_begin_with_a_mark(tmp_path: Path, ending: bytes) -> None:
    path = tmp_path / "tales.txt"
    path.write_bytes(b"\xef\xbb\xbf" + TALES.encode().replace(b"\n", ending))
    assert [text.replace("\r\n", "\n") for text in story.read_stories(path)] == STORIES


def test_text_that_is_not_utf8_is_named_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "tales.txt"
    path.write_bytes(b"A fox.\n<|endoftext|>\nA h\xffn.\n")
    stories = story.read_stories(path)
    assert next(stories) == "A fox."
    with pytest.raises(UserError, match=r"tales\.txt' is not UTF-8 text at byte 24;"):
        next(stories)
    assert path.read_bytes()[24] == 0xFF


def test_text_without_separators_is_not_read_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(story, "LONGEST_BYTES", 1000)
    path = tmp_path / "book.txt"
    for content in (b"word " * 1000, b"word\n" * 1000):
        path.write_bytes(b"A fox.\n<|endoftext|>\n" + content)
        with pytest.raises(UserError, match=r"no line <\|endoftext\|> between bytes 21 and 1,02\d"):
            list(story.read_stories(path))


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "tales.txt"
    path.write_bytes((b"A fox sat on a hill.\n" * 40 + b"<|endoftext|>\n") * 4000)  # 3.4 MB
    tracemalloc.start()
    try:
        count = sum(1 for _ in story.read_stories(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 4000
    assert peak < 200_000


def test_the_sample_gives_its_lines_as_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes.story, "STORIES", 80)
    given_out = documents(story.RECIPE, source="sample")
    for split, count in (("train", 78), ("val", 2)):
        lines = [json.loads(line) for line in story.sample_lines(split)]
        assert lines == [record for which, record in given_out if which == split]
        assert len(lines) == count


@pytest.mark.parametrize(
    ("split", "digest"),
    [
        ("train", "cddedfe66fa6595d16ca16ceeb348409f6c29e37080fb7449c893d19cffed380"),
        ("val", "60e6b98db04e931fefd6640dec74fb887f1d007a213b472182b96a27ef290fd8"),
    ],
)
def test_the_sample_is_the_text_that_its_fingerprint_names(split: str, digest: str) -> None:
    sha256 = hashlib.sha256()
    for line in story.sample_lines(split):
        sha256.update(line)
    assert (sha256.hexdigest(), story.SAMPLE_SHA256[:8]) == (digest, "8baf46c5"), "change both, or neither"


# --- conversations -----------------------------------------------------------------------------------------------------

TRAIN = "I ' m fine , thanks . __eou__ Good.Let ' s go ! __eou__\nTaxi ! __eou__ Where to ? __eou__ $ 20 ? __eou__\n"
VALIDATION = "Is it 3 : 30 ? __eou__ __eou__ It ’ s late . __eou__\nHello . __eou__\n"
CONVERSATIONS = [
    ("train", ["I'm fine, thanks.", "Good. Let's go!"]),
    ("train", ["Taxi!", "Where to?", "$20?"]),
    ("val", ["Is it 3:30?", "It’s late."]),
    ("val", ["Hello."]),
]


def zipped(**texts: str | bytes) -> bytes:
    """A zip file of these texts; "__" in a name stands for "/"."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in texts.items():
            archive.writestr(name.replace("__", "/").replace("_zip", ".zip").replace("_txt", ".txt"), text)
    return buffer.getvalue()


def archives() -> dict[str, bytes]:
    """The three zip files as the Hub has them, with labels beside the text."""
    texts = {"train": TRAIN, "validation": VALIDATION, "test": "Unseen ? __eou__ Yes . __eou__\n"}
    return {
        f"{name}.zip": zipped(**{
            f"{name}__dialogues_act_{name}_txt": "1 2\n", f"{name}__dialogues_{name}_txt": text,
            f"__MACOSX__{name}__._dialogues_{name}_txt": b"\0\xff",
        })
        for name, text in texts.items()
    }  # fmt: skip


def test_conversations_from_the_hub(server: DataServer, tmp_path: Path) -> None:
    for name, content in archives().items():
        server.add(dailydialog.REPO, name, content)
    expected = [(split, {"text": "\n".join(said)}) for split, said in CONVERSATIONS]
    assert documents(dailydialog.RECIPE, source="hub", folder=tmp_path) == expected
    asked = len(server.asked)
    turns = documents(chat.RECIPE, source="hub", folder=tmp_path)
    assert len(server.asked) == asked  # the same files
    assert turns[0] == (
        "train",
        {"messages": [
            {"role": "user", "content": "I'm fine, thanks."}, {"role": "assistant", "content": "Good. Let's go!"}
        ]},
    )  # fmt: skip
    assert [(split, [m["content"] for m in record["messages"]]) for split, record in turns] == [
        ("train", CONVERSATIONS[0][1]),
        ("train", ["Taxi!", "Where to?"]),  # the last utterance has no answer
        ("val", CONVERSATIONS[2][1]),  # a single utterance is no conversation
    ]
    for _, record in turns:
        assert [m["role"] for m in record["messages"]] == ["user", "assistant"] * (len(record["messages"]) // 2)


def test_conversations_from_the_original_files(tmp_path: Path) -> None:
    def read(path: Path) -> list[tuple[str, list[str]]]:
        return list(dailydialog.conversations(RecipeRequest("path", path)))

    outer = {name.replace(".", "_"): content for name, content in archives().items()}
    whole = {"ijcnlp_dailydialog__dialogues_text_txt": TRAIN, "ijcnlp_dailydialog__readme_txt": "?"}
    nested = {f"ijcnlp_dailydialog__{name}": content for name, content in outer.items()}
    (tmp_path / "ijcnlp_dailydialog.zip").write_bytes(zipped(**whole, **nested))
    assert read(tmp_path / "ijcnlp_dailydialog.zip") == CONVERSATIONS
    assert read(tmp_path) == CONVERSATIONS
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(tmp_path / "ijcnlp_dailydialog.zip") as archive:
        archive.extractall(unpacked)
    assert read(unpacked) == CONVERSATIONS
    alone = [("", said) for _, said in CONVERSATIONS[:2]]  # "": without validation text, it will be split
    assert read(unpacked / "ijcnlp_dailydialog" / "train.zip") == alone
    assert read(unpacked / "ijcnlp_dailydialog" / "dialogues_text.txt") == alone
    for name in ("train", "validation", "test"):
        (unpacked / "ijcnlp_dailydialog" / f"{name}.zip").unlink()
    assert read(unpacked) == alone
    (unpacked / "train").mkdir()
    (unpacked / "train" / "dialogues_train.txt").write_text(TRAIN)
    assert read(unpacked) == alone


def test_an_incomplete_download_of_the_original_zip_is_noticed(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:  # not compressed, so that an inner zip is visible in its bytes
        for name, content in archives().items():
            archive.writestr(f"ijcnlp_dailydialog/{name}", content)
    path, whole = tmp_path / "ijcnlp_dailydialog.zip", buffer.getvalue()
    for length in range(50, len(whole), 50):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"is not a whole zip file|cannot be unpacked"):
            list(dailydialog.conversations(RecipeRequest("path", path)))
    path.write_bytes(whole)
    assert list(dailydialog.conversations(RecipeRequest("path", path))) == CONVERSATIONS


def test_files_that_are_not_dailydialogs_are_named(tmp_path: Path) -> None:
    def refusal(path: Path) -> str:
        with pytest.raises(UserError) as caught:
            list(dailydialog.conversations(RecipeRequest("path", path)))
        return str(caught.value)

    assert "no file or folder" in refusal(tmp_path / "missing")
    assert "holds none of DailyDialog's files (dialogues_train.txt" in refusal(tmp_path)
    text = tmp_path / "dialogues_train.txt"
    text.write_bytes(b"A fox .\n")
    assert "'dialogues_train.txt', line 1, has no __eou__" in refusal(text)
    text.write_bytes(b"A fox . __eou__\nA h\xffn . __eou__\n")
    assert "line 2, is not UTF-8" in refusal(tmp_path)
    archive = tmp_path / "train.zip"
    archive.write_bytes(b"PK nothing")
    assert "is not a whole zip file" in refusal(archive)
    archive.write_bytes(archives()["test.zip"])
    assert "train.zip' holds none of" in refusal(archive)
    content = bytearray(zipped(dialogues_train_txt=TRAIN))
    content[50:60] = b"\xff" * 10
    archive.write_bytes(content)
    assert "cannot be unpacked" in refusal(archive)
    archive.write_bytes(zipped(train_zip=b"PK nothing"))
    assert "'train.zip' cannot be unpacked" in refusal(archive)


def test_a_network_that_is_off_names_the_archive(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'train\.zip' of the data set 'roskoN/dailydialog'.*--source PATH"):
        documents(chat.RECIPE, source="hub", folder=tmp_path)


# --- punctuation of conversations --------------------------------------------------------------------------------------

REPAIRS = [  # (the text in the source, the corrected text)
    ("I ' m fine , thanks . And you ?", "I'm fine, thanks. And you?"),
    ("I don ' t know , do you ?", "I don't know, do you?"),
    ("It doesn't matter , I can ’ t go .", "It doesn't matter, I can’t go."),
    ("That ’ s your brother ’ s friend ’ s car .", "That’s your brother’s friend’s car."),
    ("You ' d better go , they ' re late and we ' ve time .", "You'd better go, they're late and we've time."),
    ("I ’ Ve tried and he ’ ll come .", "I’ve tried and he’ll come."),
    ("IT ' S LATE", "IT'S LATE"),
    ("I do n't , you ca n ’ t and we wo n ' t .", "I don't, you can’t and we won't."),
    ("I 'm gon na go , do you wan na ? I ' ve got ta .", "I'm gonna go, do you wanna? I've gotta."),
    ("the class of ' 99", "the class of '99"),
    ("`` Hello '' , he said , `` I ' m 5' 10 . ''", '"Hello", he said, "I\'m 5\' 10."'),
    ("three months ’ salary", "three months’ salary"),
    ("It ' s my parents ' house .", "It's my parents' house."),
    ("the boys ' room and the girls ' room", "the boys' room and the girls' room"),
    ("eleven o ’ clock sharp", "eleven o’clock sharp"),
    ("Yes , ma ' am .", "Yes, ma'am."),
    ("Mr . O ' Brien isn ' t in .", "Mr. O'Brien isn't in."),
    ("Mrs . Smith called .", "Mrs. Smith called."),
    ("tell ' em to wait", "tell 'em to wait"),
    ("don ’ t do it , ‘ cause you do", "don’t do it, ‘cause you do"),
    ("back in the ' 80s", "back in the '80s"),
    ("We ' re goin ' home .", "We're goin' home."),
    ("Rock'n'Roll , I guess .", "Rock'n'Roll, I guess."),
    ("put on a ' phantom show ' .", "put on a 'phantom show'."),
    ("He says ' hello ' to me .", "He says 'hello' to me."),
    ('She said , " I \' m late . " Then left .', 'She said, "I\'m late." Then left.'),
    ('" Yes , " he said , " go . "', '"Yes," he said, "go."'),
    ("“ Hello , ” he said .", "“Hello,” he said."),
    ("He didn ’ t because ‘ God ’ told him .", "He didn’t because ‘God’ told him."),
    ("Wait . . . what ?", "Wait... what?"),
    ("Er ... , that blue pair .", "Er..., that blue pair."),
    ("just a little bit ...", "just a little bit..."),
    ("It ' s $ 20 , I think .", "It's $20, I think."),
    ("to the tune of $ 195.00 .", "to the tune of $195.00."),
    ("It costs $ 3 . 50 , or $ 1 , 500 .", "It costs $3.50, or $1,500."),
    ("It costs 5 , 000 yuan .", "It costs 5,000 yuan."),
    ("in room 5 , 200 people", "in room 5, 200 people"),
    ("1 , 234 people and 5 , 500 dollars", "1,234 people and 5,500 dollars"),
    ("100 , 200 , 300 people , not 20 , 30 men", "100, 200, 300 people, not 20, 30 men"),
    ("3 . 5 percent of $ 1 . 5 million in room 3 . 5 men", "3.5 percent of $1.5 million in room 3. 5 men"),
    ("At 3 : 30 or 12:15 ?", "At 3:30 or 12:15?"),
    ("The ratio : 3 to 1 ; no more .", "The ratio: 3 to 1; no more."),
    ("from 9 a . m . till 8 p . m .", "from 9 a.m. till 8 p.m."),
    ("before 1 p . m . ?", "before 1 p.m.?"),
    ("fruit , e . g . apples , i . e . food", "fruit, e.g. apples, i.e. food"),
    ("I live in the U . S . A . now .", "I live in the U.S.A. now."),
    ("a Ph . D . in the U . S", "a Ph.D. in the U.S"),
    ("on T . V . , in the N . B . A .", "on T.V., in the N.B.A."),
    ("So it was I . A day later", "So it was I. A day later"),
    ("It is No . 249 .", "It is No. 249."),
    ("25 % off , or 10 % .", "25% off, or 10%."),
    ("By all means . ( = Of course . )", "By all means. (= Of course.)"),
    ("( Reads the lease ) So , according to it", "(Reads the lease) So, according to it"),
    ("a 15 - minute wait , a two - hour drive", "a 15-minute wait, a two-hour drive"),
    ("twenty - five e - mails to a co - worker - the last", "twenty-five e-mails to a co-worker - the last"),
    ("how things go - - whether I ' m suited", "how things go -- whether I'm suited"),
    ("open 24 / 7 , 5 ' 10 tall", "open 24/7, 5'10 tall"),
    ("see www . hotels . com .", "see www.hotels.com."),
    ("http : / / www . foo . com or joe @ foo . com", "http://www.foo.com or joe@foo.com"),
    ("Good.Let ' s go now .", "Good. Let's go now."),
    ("Excellent Cleaner ’ s.May I help you ?", "Excellent Cleaner’s. May I help you?"),
    ("Are you there?Yes , sir,I am .", "Are you there? Yes, sir, I am."),
    ("Well , really ! ! No way ! ?", "Well, really!! No way!?"),
    ("double  spaces   and\tmore ", "double spaces and more"),
    ("他 says ， yes 。 OK ？", "他 says, yes. OK?"),
    ("OK .I will ,too ...and then", "OK. I will, too... and then"),
    ("Mm — hmm . Yes — always .", "Mm — hmm. Yes — always."),
    ("the word “ yes “ is", "the word “ yes “ is"),  # it is unknown which mark opens the quote
    ("Thanks :) See .NET at 10:30, $5, 'x' or \"y\" (z)...", "Thanks :) See .NET at 10:30, $5, 'x' or \"y\" (z)..."),
    ("", ""),
]


@pytest.mark.parametrize(("raw", "right"), REPAIRS)
def test_punctuation(raw: str, right: str) -> None:
    assert repaired(raw) == right
    assert repaired(right) == right


WORDS = "I it don cats boys months was in goin he Yes A 3 30 000 20 s m d t re ve ll Ve clock o O Brien a p U S cause em com"
MARKS = ". , ; : ? ! ' ’ ‘ \" “ ” ( ) $ % - / ... — don't .But it’s well,no"
PIECES = st.lists(st.sampled_from((WORDS + " " + MARKS + " ' ’ . \"").split()), max_size=14)


@examples(600)
@given(PIECES, st.sampled_from([" ", " ", "  ", ""]))
def test_repairing_changes_only_spaces_and_a_second_time_changes_nothing(pieces: list[str], space: str) -> None:
    raw = space.join(pieces)
    right = repaired(raw)
    assert repaired(right) == right
    assert right.replace(" ", "").lower() == raw.replace(" ", "").lower()
    assert re.findall(r"\w+", right.lower()) == re.findall(r"\w+", raw.lower())  # no words joined


ORDINARY = st.sampled_from(
    ["the", "fox", "Fox", "cats", "boys", "says", "is", "Mary", "hen", "we", "ran", "red", "goin"]
)
LONE_MARKS = st.sampled_from([*",;:?!.'’‘\"“”()—-", "..."])


@examples(600)
@given(st.lists(ORDINARY | LONE_MARKS, max_size=16))
def test_a_mark_between_words_never_sticks_to_both(pieces: list[str]) -> None:
    right = repaired(" ".join(pieces))
    assert not re.search(r"\w[^\w\s]+\w", right)


@examples(300)
@given(st.text(max_size=40))
def test_any_text_can_be_repaired(text: str) -> None:
    assert repaired(repaired(text)) == repaired(text)


# --- questions ---------------------------------------------------------------------------------------------------------

QUESTIONS = [
    ("To whom did it  appear in 1858? ", ["Saint Bernadette Soubirous", "Bernadette"]),
    ("What is in front", ["a  copper\nstatue"]),
    ("Who was not asked ?", []),
    ("  ", ["nothing"]),
    ("When?", [" "]),
]
PAIRS = [("To whom did it appear in 1858?", "Saint Bernadette Soubirous"), ("What is in front?", "a copper statue")]


def squad_json(questions: list[tuple[str, list[str]]]) -> str:
    """SQuAD in the format of the original files (https://rajpurkar.github.io/SQuAD-explorer/)."""
    qas = [
        {"id": str(n), "question": question, "answers": [{"text": text, "answer_start": 0} for text in answers]}
        for n, (question, answers) in enumerate(questions)
    ]
    return json.dumps({"version": "1.1", "data": [{"title": "T", "paragraphs": [{"context": "C", "qas": qas}]}]})


def test_questions_from_the_original_files(tmp_path: Path) -> None:
    (tmp_path / "train-v1.1.json").write_text(squad_json(QUESTIONS), encoding="utf-8")
    (tmp_path / "dev-v1.1.json").write_text(squad_json(QUESTIONS[:1]), encoding="utf-8")
    train = [("train", {"input": question, "output": answer}) for question, answer in PAIRS]
    assert documents(knowledge.RECIPE, source="path", path=tmp_path) == [*train, ("val", train[0][1])]
    assert documents(knowledge.RECIPE, source="path", path=tmp_path / "dev-v1.1.json") == [("", train[0][1])]
    (tmp_path / "dev-v1.1.json").rename(tmp_path / "other.json")
    with pytest.raises(UserError, match=r"plain_text/validation-00000-of-00001\.parquet or dev-v1\.1\.json"):
        documents(knowledge.RECIPE, source="path", path=tmp_path)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"data": [1]}', b"[" * 100_000, b'{"data": "\xff"}', b"null"])
def test_json_that_is_not_squads(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "train.json").write_bytes(content)
    with pytest.raises(UserError, match="is not SQuAD as JSON"):
        documents(knowledge.RECIPE, source="path", path=tmp_path / "train.json")


@pytest.mark.parametrize(
    ("typed", "right"),
    [
        ("What is it?", "What is it?"),
        ("  What  is\nit ?? ", "What is it?"),
        ("What is it.", "What is it?"),
        ("In the U.S.?", "In the U.S.?"),
        ("In the U.S.", "In the U.S.?"),
        ('Who asked "why?"', 'Who asked "why?"'),
    ],
)
def test_a_question_ends_with_its_mark(typed: str, right: str) -> None:
    assert knowledge.as_question(typed) == right
    assert knowledge.as_question(right) == right


def test_without_pyarrow_the_hub_is_not_asked(
    server: DataServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UserError, match=r"needs pyarrow: pip install pyarrow\..*train-v1\.1\.json"):
        documents(knowledge.RECIPE, source="hub", folder=tmp_path)
    assert not server.asked
    (tmp_path / "train.parquet").write_bytes(b"PAR1...")
    with pytest.raises(UserError, match="needs pyarrow"):
        documents(knowledge.RECIPE, source="path", path=tmp_path / "train.parquet")


if importlib.util.find_spec("pyarrow"):

    def squad_parquet(questions: list[tuple[str, list[str]]], **other: Any) -> bytes:
        """SQuAD in the Hub's format: a row for each question, with its answers in two lists."""
        pyarrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
        answers = [{"text": texts, "answer_start": [0] * len(texts)} for _, texts in questions]
        kind = pyarrow.struct(
            {"text": pyarrow.list_(pyarrow.string()), "answer_start": pyarrow.list_(pyarrow.int32())}.items()
        )
        table = pyarrow.table(
            {
                "id": [str(n) for n in range(len(questions))],
                "title": ["T"] * len(questions),
                "context": ["C"] * len(questions),
                "question": [question for question, _ in questions],
                "answers": pyarrow.array(answers, type=kind),
            }
        )
        buffer = io.BytesIO()
        parquet.write_table(table.drop_columns(other["without"]) if other else table, buffer)
        return buffer.getvalue()

    def test_questions_from_the_hub(server: DataServer, tmp_path: Path) -> None:
        server.add(knowledge.REPO, "plain_text/train-00000-of-00001.parquet", squad_parquet(QUESTIONS))
        server.add(knowledge.REPO, "plain_text/validation-00000-of-00001.parquet", squad_parquet(QUESTIONS[1:2]))
        train = [("train", {"input": question, "output": answer}) for question, answer in PAIRS]
        expected = [*train, ("val", train[1][1])]
        assert documents(knowledge.RECIPE, source="hub", folder=tmp_path) == expected
        assert documents(knowledge.RECIPE, source="path", path=tmp_path / knowledge.REPO) == expected

    def test_parquet_files_that_are_not_squads(tmp_path: Path) -> None:
        path = tmp_path / "train.parquet"
        whole = squad_parquet(QUESTIONS)
        for content in (whole[:-40], squad_parquet(QUESTIONS, without=["answers"]), b"PAR1" + b"\0" * 100):
            path.write_bytes(content)
            with pytest.raises(UserError, match="is not SQuAD as a whole parquet file"):
                documents(knowledge.RECIPE, source="path", path=path)


# --- a model that rewrites ---------------------------------------------------------------------------------------------


def ask(server: DataServer, prompts: list[str], journal: Path) -> Iterator[tuple[str, str]]:
    """The prompts with the model's answers."""
    return rewrite.rewritten(prompts, lambda prompt: prompt, f"{server.endpoint}/v1", "small", journal)


def refused(server: DataServer, journal: Path, prompts: list[str] | None = None) -> str:
    """The error message when the model gives no answer."""
    with pytest.raises(UserError) as caught:
        list(ask(server, prompts or ["a"], journal))
    assert "\n" not in str(caught.value)
    assert KEY not in str(caught.value)
    return str(caught.value)


def test_the_request_that_is_sent(server: DataServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(ask(server, ["a fox – ja"], tmp_path / "deep" / "j.jsonl")) == [("a fox – ja", "about a fox – ja")]
    request = server.asked[0]
    assert json.loads(request.body) == {
        "model": "small", "messages": [{"role": "user", "content": "a fox – ja"}], "temperature": 0,
    }  # fmt: skip
    assert request.headers["Content-Type"] == "application/json"
    assert "Authorization" not in request.headers
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    list(ask(server, ["b"], tmp_path / "j.jsonl"))
    assert server.asked[1].headers["Authorization"] == f"Bearer {KEY}"
    assert KEY not in (tmp_path / "j.jsonl").read_text()


def test_answers_come_in_the_order_of_the_items(server: DataServer, tmp_path: Path) -> None:
    last = threading.Event()

    def reply(prompt: str) -> str:
        if prompt == "3":
            last.set()
        elif prompt == "0":
            assert last.wait(10)  # the first is answered after the last
        return f"<{prompt}>"

    server.reply = reply
    assert list(ask(server, list("0123"), tmp_path / "j.jsonl")) == [(p, f"<{p}>") for p in "0123"]


def test_no_more_is_read_ahead_than_needed(server: DataServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewrite, "WINDOW", 6)
    taken: list[str] = []
    endless = (taken.append(str(n)) or str(n) for n in itertools.count())  # type: ignore[func-returns-value]
    answers = rewrite.rewritten(endless, str, f"{server.endpoint}/v1", "small", tmp_path / "j.jsonl")
    for n in range(3):
        assert next(answers) == (str(n), f"about {n}")
        assert len(taken) == n + 6
    answers.close()  # type: ignore[attr-defined]


def test_a_run_that_was_killed_asks_only_for_the_rest(server: DataServer, tmp_path: Path) -> None:
    journal, prompts = tmp_path / "j.jsonl", [f"prompt {n}" for n in range(12)]

    def killed() -> Iterator[str]:
        yield from prompts[:7]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(rewrite.rewritten(killed(), str, f"{server.endpoint}/v1", "small", journal))
    first = server.prompts()
    assert 1 <= len(first) <= 7
    assert len(journal.read_bytes().splitlines()) == len(first)
    server.asked.clear()
    assert list(ask(server, prompts, journal)) == [(prompt, f"about {prompt}") for prompt in prompts]
    assert sorted(first + server.prompts()) == sorted(prompts)  # each was asked once
    server.asked.clear()
    more = [*prompts, "one more"]
    assert [item for item, _ in ask(server, more, journal)] == more
    assert server.prompts() == ["one more"]
    list(rewrite.rewritten(["one more"], str, f"{server.endpoint}/v1", "another", journal))
    assert len(server.prompts()) == 2  # another model is asked again


def test_a_refusal_says_how_many_answers_are_kept_and_the_next_run_continues(
    server: DataServer, tmp_path: Path
) -> None:
    journal, prompts = tmp_path / "j.jsonl", [str(n) for n in range(10)]
    server.reply = lambda prompt: 401 if prompt == "6" else f"about {prompt}"
    message = refused(server, journal, prompts)
    kept = len(journal.read_bytes().splitlines())
    assert kept >= 6
    assert message.endswith(f"valid one ({kept} answers are kept; the same command continues from there).")
    server.asked.clear()
    server.reply = lambda prompt: f"about {prompt}"
    assert len(list(ask(server, prompts, journal))) == 10
    assert len(server.prompts()) == 10 - kept


def test_a_damaged_journal_loses_the_damaged_lines_only(server: DataServer, tmp_path: Path) -> None:
    journal = tmp_path / "j.jsonl"
    list(ask(server, ["a", "b", "c"], journal))
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(lines[0] + b"no JSON\n[]\n" + lines[1] + lines[2][:-7])
    server.asked.clear()
    assert len(list(ask(server, ["a", "b", "c"], journal))) == 3
    assert len(server.prompts()) == 1
    repaired_lines = journal.read_bytes().splitlines()
    assert len(repaired_lines) == 5
    assert json.loads(repaired_lines[-1])["answer"].startswith("about ")


@pytest.mark.parametrize(
    "failure", [429, 500, 503, None, b"<html>", b"{}", b'{"choices": []}', b"[" * 100_000, "", " "]
)
def test_a_temporary_failure_is_tried_again(server: DataServer, tmp_path: Path, failure: Any) -> None:
    if isinstance(failure, int) or failure is None:
        server.fail("POST", "completions", failure, 4)
    else:
        replies = iter([failure] * 4 + ["fine"])
        server.reply = lambda prompt: next(replies)
    with logged() as records:
        [(_, answer)] = ask(server, ["a"], tmp_path / "j.jsonl")
    assert answer in ("fine", "about a")
    assert len(server.asked) == 5
    assert sum("trying again in" in text for text in warnings_in(records)) == 4


@pytest.mark.parametrize(
    ("failure", "words", "tries"),
    [
        (500, "has trouble (500); correct that, then start again.", 5),
        (429, "allows no more requests for now (429)", 5),
        (None, "cannot be reached (", 5),
        (401, "does not accept the key (401); set OPENAI_API_KEY to a valid one.", 1),
        (404, "knows no model 'small' or not this address (404); check --endpoint_model, and --endpoint", 1),
        (400, "refused the request (400: no *** here) for 'a'; correct that, then start again.", 1),
        (307, "refused the request (307", 1),
        (b"<html>", "answers with something that is not JSON", 5),
        (b'{"choices": [{"message": {"content": null}}]}', "answers with no message for 'a'", 5),
        (b'{"choices": [{}]}', "answers with no message", 5),
    ],
)
def test_a_permanent_failure(
    server: DataServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Any, words: str, tries: int
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    if isinstance(failure, bytes):
        server.reply = lambda prompt: failure
    else:
        elsewhere = {"Location": f"{server.endpoint}/v2"}
        server.fail("POST", "completions", failure, 99, elsewhere if failure == 307 else {}, f"no {KEY} here")
    message = refused(server, tmp_path / "j.jsonl")
    assert message.startswith(f"http://127.0.0.1:{server.port} ")
    assert words in message
    assert len(server.asked) == tries
    assert (tmp_path / "j.jsonl").read_bytes() == b""


@pytest.mark.parametrize("failure", [400, ""])
def test_a_refused_prompt_does_not_stop_the_others(server: DataServer, tmp_path: Path, failure: Any) -> None:
    prompts = [str(n) for n in range(30)]
    server.reply = lambda prompt: failure if prompt == "7" else f"about {prompt}"
    with logged() as records:
        found = dict(ask(server, prompts, tmp_path / "j.jsonl"))
    assert found == {prompt: "" if prompt == "7" else f"about {prompt}" for prompt in prompts}
    assert any("for '7', which stays as it was" in text for text in warnings_in(records))


def test_a_server_that_refuses_every_prompt_is_soon_left_alone(server: DataServer, tmp_path: Path) -> None:
    server.reply = lambda prompt: 400
    message = refused(server, tmp_path / "j.jsonl", [str(n) for n in range(100)])
    assert message.endswith("(400) for '9', and nothing for 9 before it; correct that, then start again.")
    assert len(server.asked) <= rewrite.WINDOW + rewrite.MOST_REFUSED  # of 100


def test_no_more_is_asked_for_than_wanted(server: DataServer, tmp_path: Path) -> None:
    def first(count: int) -> list[tuple[str, str]]:
        answers = rewrite.rewritten(
            map(str, itertools.count()), str, f"{server.endpoint}/v1", "small", tmp_path / "j.jsonl", most=5
        )
        found = list(itertools.islice(answers, count))
        answers.close()  # type: ignore[attr-defined]
        return found

    assert len(first(5)) == 5
    assert sorted(server.prompts()) == list("01234")
    assert len(first(7)) == 7  # two were dropped as duplicates
    assert sorted(server.prompts()) == list("0123456")


def test_a_server_that_cannot_be_reached(server: DataServer, tmp_path: Path) -> None:
    with DataServer() as other:
        address = other.endpoint
    with pytest.raises(UserError, match=r"cannot be reached \(ConnectionRefusedError\); correct that"):
        list(rewrite.rewritten(["a"], str, address, "small", tmp_path / "j.jsonl"))


def test_the_wait_grows_and_is_as_long_as_the_server_asks(server: DataServer, monkeypatch: pytest.MonkeyPatch) -> None:
    class Waits(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            waited.append(timeout)
            return False

    waited: list[float] = []
    monkeypatch.setattr(rewrite, "WAITS_S", (1.0, 4.0, 15.0, 60.0))
    model = rewrite.Server(f"{server.endpoint}/v1", "small")
    model.stop = Waits()
    for retry_after in ("7", "0.5", "9999", "soon"):
        server.fail("POST", "completions", 429, 1, {"Retry-After": retry_after})
    assert model.ask("a") == "about a"
    assert waited == [7.0, 4.0, rewrite.LONGEST_WAIT_S, 60.0]
    assert rewrite.retry_after_s("Wed, 21 Oct 2099 07:28:00 GMT") == rewrite.retry_after_s("nan") == 0


def test_a_run_that_ends_does_not_wait_for_its_retries(
    server: DataServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewrite, "WAITS_S", (3600.0,) * 4)
    server.reply = lambda prompt: "fine" if prompt == "a" else 503
    answers = ask(server, ["a", "b", "c"], tmp_path / "j.jsonl")
    assert next(answers) == ("a", "fine")
    answers.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "endpoint", ["", "localhost:8000", "ftp://x/v1", "http://me:key@x/v1", "http://x /v1", "http://["]
)
def test_an_invalid_address_is_refused(server: DataServer, tmp_path: Path, endpoint: str) -> None:
    with pytest.raises(UserError, match="--endpoint must be an address like"):
        list(rewrite.rewritten(["a"], str, endpoint, "small", tmp_path / "j.jsonl"))


def test_addresses_models_and_keys(server: DataServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for end in ("/v1", "/v1/", "/v1/chat/completions"):
        assert rewrite.Server(server.endpoint + end, "small").ask("a") == "about a"
    with pytest.raises(UserError, match="--endpoint_model"):
        rewrite.Server(server.endpoint, None)
    monkeypatch.setenv("OPENAI_API_KEY", "ключ")
    with pytest.raises(UserError, match="OPENAI_API_KEY holds characters") as caught:
        rewrite.Server(server.endpoint, "small")
    assert "ключ" not in str(caught.value)


def test_answers_become_sentences(server: DataServer, tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    path.write_text(squad_json(QUESTIONS), encoding="utf-8")
    server.reply = lambda prompt: (
        "It appeared to saint Bernadette\n Soubirous." if "1858" in prompt else "I cannot say."
    )
    wanted: dict[str, Any] = {
        "path": path, "folder": tmp_path, "endpoint": f"{server.endpoint}/v1", "model": "small",
    }  # fmt: skip
    with logged() as records:
        found = documents(knowledge.RECIPE, source="path", **wanted)
    assert [record["output"] for _, record in found] == [
        "It appeared to saint Bernadette Soubirous.",
        "a copper statue",
    ]
    assert [record["input"] for _, record in found] == [question for question, _ in PAIRS]
    assert warnings_in(records) == ["Answers left as they were, because the model's sentence lacks them: 1."]
    with logged() as records:  # the warning also comes if the caller stops early
        server.reply = lambda prompt: 400
        few = knowledge.RECIPE.read(RecipeRequest(source="path", max_documents=2, **wanted))
        assert [next(few), next(few)] == found
        few.close()  # type: ignore[attr-defined]
    assert warnings_in(records)[-1].endswith("lacks them: 1.")
    question = "Question: To whom did it appear in 1858?\nAnswer: Saint Bernadette Soubirous\n"
    assert any(prompt.startswith(question) for prompt in server.prompts())
    asked = len(server.asked)
    assert documents(knowledge.RECIPE, source="path", **wanted) == found
    assert len(server.asked) == asked


@pytest.mark.parametrize("module", [story, dailydialog, chat, knowledge])
def test_a_recipe_is_named_like_its_file_and_says_what_it_is(module: Any) -> None:
    recipe = module.RECIPE
    assert recipe.name == Path(module.__file__).stem
    assert recipe.sources[0] == "hub"
    assert recipe.source == f"https://huggingface.co/datasets/{module.REPO}"
    assert recipe.rewritable == (module is knowledge)


def test_a_text_without_separators_is_not_taken_for_tiny_stories(tmp_path: Path) -> None:
    path = tmp_path / "plain.jsonl"
    path.write_text('{"text": "Once."}\n' * 5)
    with pytest.raises(UserError, match="has no line"):
        list(recipes.story.read_stories(path))
