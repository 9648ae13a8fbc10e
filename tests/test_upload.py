"""Tests of upload_to_huggingface.py with a local Hub server: what is uploaded, and the messages when it fails."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers_cli import Outcome, finish, kept_log, start_python
from helpers_model import random_model, save_format3, tiny_config
from hub_server import ORGANIZATION, TOKEN, USER, HubServer

import upload_to_huggingface as verb
from generation import load_model
from hf import export as hf_export
from hf import hub as hf_hub
from hf.folder import FILES, load_hf
from hf.hub import find_model
from jojo.checkpoints.checkpoint import load_checkpoint
from jojo.command import run_command
from jojo.text.tokenizer import Tokenizer
from utils import UserError


@pytest.fixture(scope="module")
def server() -> Iterator[HubServer]:
    with HubServer() as running:
        yield running


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model's checkpoint."""
    model = random_model(tiny_config(vocab_size=50304, bias=False, n_embd=4), 50259)
    return save_format3(model, tmp_path_factory.mktemp("upload") / "x.pt")


@pytest.fixture(scope="module")
def ready(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Exports of the checkpoint by vocabulary size."""
    folder, loaded = tmp_path_factory.mktemp("ready"), load_checkpoint(checkpoint)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hf_export, "check_parity", lambda *_: None)  # tests/hf/test_parity.py checks it
        for tokenizer in (Tokenizer(), Tokenizer(chatml=False)):
            hf_export.export(loaded, folder / str(tokenizer.n_vocab), tokenizer)
            (folder / str(tokenizer.n_vocab) / "README.md").write_text("---\nlicense: mit\n---\n")
            hf_export.seal(folder / str(tokenizer.n_vocab))
    return {int(path.name): path for path in folder.iterdir()}


@pytest.fixture
def hub(server: HubServer, ready: dict[int, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> HubServer:
    """The empty local Hub. huggingface_hub connects to it, a token is set, and exports are copies of `ready`."""
    from huggingface_hub import constants

    server.clear()
    monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
    template = "{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{server.endpoint}/{template}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "handlers", [])  # they keep the first test's stderr
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("time.sleep", lambda seconds: None)

    def export(_: object, folder: Path, tokenizer: Tokenizer, __: object) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(ready[tokenizer.n_vocab], folder, ignore=lambda *_: {"vocab.json", "merges.txt"})
        (folder / "tokenizer.json").write_text("{}")  # megabytes that no test here reads
        hf_export.seal(folder)

    monkeypatch.setattr(hf_export, "export", export)
    return server


def upload(
    capsys: pytest.CaptureFixture[str], checkpoint: Path, folder: Path, *flags: str, name: str = "tales"
) -> Outcome:
    """Run the command and check that its output does not contain the token."""
    words = [str(checkpoint), "--repo-name", name, "--dataset", "fairytales", "--output-dir", str(folder), *flags]
    capsys.readouterr()
    with kept_log(), pytest.raises(SystemExit) as stopped:
        run_command(verb.main, words)
    captured = capsys.readouterr()
    assert TOKEN not in captured.out + captured.err
    assert "Traceback" not in captured.err or "--debug" in flags
    code = stopped.value.code
    assert isinstance(code, int)
    return Outcome(code, captured.out, captured.err)


def errors_in(outcome: Outcome) -> list[str]:
    """The error lines. There must be exactly one."""
    assert outcome.code == 1
    found = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert len(found) == 1
    return found


# --- uploads --------------------------------------------------------------------------------------------------------


def test_an_upload_is_one_commit_with_the_folders_files(
    hub: HubServer, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = upload(capsys, checkpoint, tmp_path / "out", "--commit-message", "First tales")
    assert outcome.code == 0, outcome.err
    repository = hub.repositories[f"{USER}/tales"]
    assert [commit["summary"] for commit in repository.commits] == ["First tales"]
    assert not repository.private
    there = {name: content for name, content in repository.files.items() if name != ".gitattributes"}
    assert there == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md"} <= set(there) <= set(FILES)
    assert f"{hub.endpoint}/{USER}/tales" in outcome.out


def test_private_and_organization_choose_the_visibility_and_the_owner(
    hub: HubServer, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert upload(capsys, checkpoint, tmp_path / "out", "--private", "--organization", ORGANIZATION).code == 0
    assert list(hub.repositories) == [f"{ORGANIZATION}/tales"]
    assert hub.repositories[f"{ORGANIZATION}/tales"].private


def test_a_second_upload_replaces_all_files_of_the_first_and_no_others(
    hub: HubServer, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert upload(capsys, checkpoint, tmp_path / "out").code == 0
    repository = hub.repositories[f"{USER}/tales"]
    assert "chat_template.jinja" in repository.files
    repository.files["notes.txt"] = b"the user's own"
    assert upload(capsys, checkpoint, tmp_path / "out", "--tokenizer", "gpt2").code == 0
    assert len(repository.commits) == 2
    assert "chat_template.jinja" not in repository.files
    assert repository.files["notes.txt"] == b"the user's own"
    assert json.loads(repository.files["config.json"])["vocab_size"] == 50257
    assert upload(capsys, checkpoint, tmp_path / "out", "--tokenizer", "gpt2").code == 0  # nothing new
    assert len(repository.commits) == 2


def test_an_uploaded_model_can_be_fetched_and_loaded(hub: HubServer, ready: dict[int, Path], checkpoint: Path) -> None:
    hf_hub.Hub().upload(ready[50259], f"{USER}/tales", False, "Tales")
    model, _, _ = load_model(checkpoint)
    fetched = load_hf(find_model(f"{USER}/tales"))
    assert all((fetched.model[name] == tensor).all() for name, tensor in model.state_dict().items())
    with pytest.raises(
        UserError, match=r"Could not fetch 'me/other' \(which is not a folder here\): the Hub does not know it"
    ):
        find_model("me/other")


def test_large_files_can_be_uploaded_without_lfs(
    hub: HubServer,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from huggingface_hub import constants

    pytest.importorskip("hf_xet")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)  # most users upload with xet
    hub.lfs = False
    assert upload(capsys, checkpoint, tmp_path / "out").code == 0
    assert len(hub.repositories[f"{USER}/tales"].commits) == 1


# --- failures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "preupload", 500),
        ("POST", "objects/batch", 502),
        ("PUT", "/lfs/", None),
    ],
)
def test_a_failed_request_is_tried_again(
    hub: HubServer, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str, path: str,
    status: int | None,
) -> None:  # fmt: skip
    hub.fail(method, path, status)
    outcome = upload(capsys, checkpoint, tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert not hub.faults[0].times
    assert len(hub.repositories[f"{USER}/tales"].commits) == 1


@pytest.mark.parametrize("path", ["repos/create", "/commit/"])
def test_the_same_command_completes_an_upload_whose_answer_was_lost(
    hub: HubServer, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], path: str
) -> None:
    hub.fail("POST", path, None, after=True)
    assert "cannot be reached" in errors_in(upload(capsys, checkpoint, tmp_path / "out"))[0]
    assert upload(capsys, checkpoint, tmp_path / "out").code == 0
    assert len(hub.repositories[f"{USER}/tales"].commits) == 1


@pytest.mark.parametrize(
    ("method", "path", "status", "sentence"),
    [
        ("GET", "whoami", 401, "does not accept the token (401)"),
        ("GET", "whoami", 429, "no more requests for now (429); try again in a few minutes"),
        ("POST", "repos/create", 403, "the token has no right to do this (403)"),
        ("POST", "preupload", 403, "the token has no right to do this (403)"),
        ("POST", "preupload", 429, "no more requests for now (429)"),
        ("POST", "/commit/", 409, "the Hub answered 409 (Bearer *** is bad); try again later"),
        ("POST", "/commit/", 412, "the Hub answered 412"),
        ("POST", "/commit/", 500, "the Hub answered 500"),
        ("GET", "whoami", None, "the Hub cannot be reached; check the network"),
        ("POST", "/commit/", 400, "the Hub answered 400"),
    ],
)  # fmt: skip
def test_a_refusal_by_the_hub_is_one_sentence_and_nothing_is_uploaded(
    hub: HubServer, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str, path: str,
    status: int | None, sentence: str,
) -> None:  # fmt: skip
    hub.fail(method, path, status, times=100, body=json.dumps({"error": f"Bearer {TOKEN} is bad"}))
    outcome = upload(capsys, checkpoint, tmp_path / "out", "--debug")
    assert sentence in errors_in(outcome)[0]
    assert not any(repository.commits for repository in hub.repositories.values())


def test_an_upload_without_a_valid_token_is_refused(
    hub: HubServer,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert "Not logged in" in errors_in(upload(capsys, checkpoint, tmp_path / "out"))[0]
    monkeypatch.setenv("HF_TOKEN", "hf_ä secret")
    outcome = upload(capsys, checkpoint, tmp_path / "out")
    assert "not a Hub token" in errors_in(outcome)[0]
    assert "secret" not in outcome.err
    assert not (tmp_path / "out").exists()


def test_an_upload_to_a_hub_that_cannot_be_reached_is_refused(
    hub: HubServer,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in errors_in(upload(capsys, checkpoint, tmp_path / "out"))[0]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens
    assert "cannot be reached" in errors_in(upload(capsys, checkpoint, tmp_path / "out"))[0]
    with pytest.raises(UserError, match="cannot be reached"):
        find_model("me/tales")
    monkeypatch.setattr(constants, "ENDPOINT", "http://1.2.3.999")  # the library does not accept this URL
    assert "check HF_ENDPOINT" in errors_in(upload(capsys, checkpoint, tmp_path / "out"))[0]


def test_an_organization_that_the_user_may_not_write_to_is_refused(
    hub: HubServer, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = errors_in(upload(capsys, checkpoint, tmp_path / "out", "--organization", "others"))[0]
    assert "'others/tales'" in said
    assert "no right to do this (403)" in said
    assert "is complete" in said


def test_a_repository_with_files_of_others_is_not_overwritten(
    hub: HubServer, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.repositories[f"{USER}/tales"] = repository = hf_repository({"README.md": b"mine", "config.json": b"{}"})
    said = errors_in(upload(capsys, checkpoint, tmp_path / "out"))[0]
    assert f"'{USER}/tales' holds files that were not uploaded from here, or were changed since (README.md)" in said
    repository.files["config.json"] = b"not JSON"
    assert "holds files" in errors_in(upload(capsys, checkpoint, tmp_path / "out"))[0]
    assert not repository.commits
    repository.files = {".gitattributes": b""}
    assert "exists and is public" in errors_in(upload(capsys, checkpoint, tmp_path / "out", "--private"))[0]
    assert upload(capsys, checkpoint, tmp_path / "out").code == 0  # an empty repository is used
    assert len(repository.commits) == 1


def test_a_model_that_was_fine_tuned_elsewhere_is_not_overwritten(
    hub: HubServer, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """config.json keeps our mark when transformers saves the model again, but the weights differ."""
    assert upload(capsys, checkpoint, tmp_path / "out").code == 0
    repository = hub.repositories[f"{USER}/tales"]
    weights = repository.files["model.safetensors"]
    repository.files["model.safetensors"] += b"tuned"
    assert "were changed since" in errors_in(upload(capsys, checkpoint, tmp_path / "out"))[0]
    repository.files["model.safetensors"] = weights
    repository.files["model.safetensors.index.json"] = b"{}"
    assert "were changed since" in errors_in(upload(capsys, checkpoint, tmp_path / "out"))[0]
    assert len(repository.commits) == 1


def test_a_model_card_that_was_edited_on_the_hub_is_kept(
    hub: HubServer, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert upload(capsys, checkpoint, tmp_path / "out").code == 0
    repository = hub.repositories[f"{USER}/tales"]
    repository.files["README.md"] += b"MY EDIT"
    outcome = upload(capsys, checkpoint, tmp_path / "out", "--tokenizer", "gpt2")
    assert outcome.code == 0
    assert "was edited on the Hub and stays as it is" in outcome.out
    assert repository.files["README.md"].endswith(b"MY EDIT") and len(repository.commits) == 2
    assert json.loads(repository.files["config.json"])["vocab_size"] == 50257


def test_a_model_card_that_the_hub_rejects_is_refused_before_anything_is_created(
    hub: HubServer,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = hf_export.export

    def export(*arguments: object) -> None:
        plain(*arguments)  # type: ignore[arg-type]
        card = tmp_path / "out" / "README.md"
        card.write_text(card.read_text().replace("license: mit", "license: foo"))

    monkeypatch.setattr(hf_export, "export", export)
    said = errors_in(upload(capsys, checkpoint, tmp_path / "out", "--license", "foo"))[0]
    assert "refuses the model card" in said and "must be one of a list" in said
    assert hub.repositories == {}


def test_a_model_card_that_is_not_valid_yaml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: [mit\n---\n")
    with pytest.raises(UserError, match="refuses the model card"):
        hf_hub.check_card(tmp_path / "README.md")


def test_a_token_that_may_not_create_repositories_can_upload_to_an_existing_one(
    hub: HubServer, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert upload(capsys, checkpoint, tmp_path / "out").code == 0
    hub.fail("POST", "repos/create", 403)
    assert upload(capsys, checkpoint, tmp_path / "out", "--tokenizer", "gpt2").code == 0
    assert len(hub.repositories[f"{USER}/tales"].commits) == 2


@pytest.mark.parametrize(
    ("method", "path", "status", "body", "times", "sentence"),
    [
        ("GET", "whoami", 200, "<html>log in</html>", 9, "the answer is not the Hub's"),
        ("GET", "whoami", 200, "{}", 9, "the answer is not the Hub's (KeyError"),
        ("POST", "repos/create", 200, "<html>", 9, "the answer is not the Hub's"),
        ("POST", "validate-yaml", 500, "<html>", 9, "the Hub answered 500"),
        ("POST", "validate-yaml", 429, "<html>", 9, "no more requests for now (429)"),
        ("POST", "preupload", 200, "<html>", 9, "the answer is not the Hub's"),
        ("POST", "objects/batch", 200, '{"objects": [{"oid": "x", "size": 1, "error": {"code": 403, "message": "quota"}}]}', 9,
         "quota"),
    ],
)  # fmt: skip
def test_an_unexpected_answer_is_reported(
    hub: HubServer, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    method: str, path: str, status: int, body: str, times: int, sentence: str,
) -> None:  # fmt: skip
    hub.fail(method, path, status, times=times, body=body)
    assert sentence in errors_in(upload(capsys, checkpoint, tmp_path / "out"))[0]


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:99999", "http://[::1", "http://a\tb", "http://a\x1fb", "ftp://x", "no", ""]
)
@pytest.mark.parametrize("flags", [(), ("--dry-run",)])
def test_an_endpoint_that_is_not_an_address_is_refused(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, address: str,
    flags: tuple[str, ...],
) -> None:  # fmt: skip
    monkeypatch.setenv("HF_ENDPOINT", address)
    assert "HF_ENDPOINT is not an address" in errors_in(upload(capsys, checkpoint, tmp_path / "out", *flags))[0]
    with pytest.raises(UserError, match="HF_ENDPOINT is not an address"):
        find_model("me/tales")


def test_an_invalid_endpoint_is_refused_before_huggingface_hub_is_imported(checkpoint: Path, tmp_path: Path) -> None:
    words = [verb.__file__, str(checkpoint), "--repo-name", "x", "--dataset", "d"]
    outcome = finish(start_python(*words, cwd=tmp_path, HF_ENDPOINT="http://127.0.0.1:99999"))
    assert outcome.code == 1 and "HF_ENDPOINT is not an address" in outcome.err and "Traceback" not in outcome.err


@pytest.mark.parametrize("name", ["my--model", "日本", "a..b", "x.git", "_-", "a" * 97, "a/b/c"])
def test_a_source_that_is_neither_a_folder_nor_a_name_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="is neither a folder nor a name on the Hub"):
        find_model(name)


def hf_repository(files: dict[str, bytes]) -> object:
    from hub_server import Repository

    return Repository(files={".gitattributes": b"", **files})


def test_a_commit_by_somebody_else_during_the_upload_is_not_overwritten(
    hub: HubServer,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert upload(capsys, checkpoint, tmp_path / "out").code == 0
    repository = hub.repositories[f"{USER}/tales"]
    plain = hf_hub.Hub.prepare

    def prepare(self: hf_hub.Hub, *arguments: object) -> str | None:
        head = plain(self, *arguments)  # type: ignore[arg-type]
        repository.commits.append({"summary": "somebody else's"})
        return head

    monkeypatch.setattr(hf_hub.Hub, "prepare", prepare)
    said = errors_in(upload(capsys, checkpoint, tmp_path / "out", "--tokenizer", "gpt2"))[0]
    assert "the Hub answered 412 (A commit has happened since" in said


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--repo-name", "a/b"), "is not a name that the Hub accepts"),
        (("--repo-name", "a--b"), "is not a name that the Hub accepts"),
        (("--organization", "../x"), "is not a name that the Hub accepts"),
        (("--license", "MIT licence"), "--license 'MIT licence' is not a name that the Hub accepts"),
        (("--dataset", "[x](http://y)"), "--dataset '[x](http://y)' is not a name that the Hub accepts"),
    ],
)
def test_names_that_the_hub_does_not_allow_are_refused(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, str], sentence: str
) -> None:
    assert sentence in errors_in(upload(capsys, checkpoint, tmp_path / "out", "--dry-run", *flags))[0]
    assert not (tmp_path / "out").exists()


def test_an_output_folder_with_other_or_changed_files_is_not_overwritten(
    hub: HubServer,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    assert "not exported from here" in errors_in(upload(capsys, checkpoint, folder, "--dry-run"))[0]
    (folder / "thesis.tex").write_text("x")
    assert "'thesis.tex'" in errors_in(upload(capsys, checkpoint, folder, "--dry-run"))[0]
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "thesis.tex"]

    other = tmp_path / "other"
    assert upload(capsys, checkpoint, other, "--dry-run").code == 0
    assert upload(capsys, checkpoint, other, "--dry-run", "--tokenizer", "gpt2").code == 0  # unchanged since our export
    with open(other / "model.safetensors", "ab") as file:
        file.write(b"x")
    assert "was changed since" in errors_in(upload(capsys, checkpoint, other, "--dry-run"))[0]
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert "is the current folder" in errors_in(upload(capsys, checkpoint, Path(), "--dry-run"))[0]


def test_the_command_works_as_users_run_it(server: HubServer, checkpoint: Path, tmp_path: Path) -> None:
    """Nothing is replaced here: the parity check runs, in a separate process that reads HF_ENDPOINT."""
    server.clear()
    base = [verb.__file__, str(checkpoint), "--repo-name", "tales"]
    environment = {"HF_ENDPOINT": server.endpoint, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    environment |= {"HF_HOME": str(tmp_path / "home")}
    outcome = finish(start_python(*base, "--dataset", "fairytales", cwd=tmp_path, **environment))
    assert outcome.code == 0, outcome.err
    assert TOKEN not in outcome.out + outcome.err
    repository = server.repositories[f"{USER}/tales"]
    there = {path.name: path.read_bytes() for path in (tmp_path / "hf_model").iterdir()}
    assert {n: c for n, c in repository.files.items() if n != ".gitattributes"} == there
    assert f'"{USER}/tales"' in there["README.md"].decode()
    assert len(repository.commits) == 1


def test_help_does_not_import_torch_or_other_large_packages(tmp_path: Path) -> None:
    code = (
        "import sys, contextlib, upload_to_huggingface as verb\n"
        "with contextlib.suppress(SystemExit): verb.main(['--help'])\n"
        "print(sorted({'torch', 'transformers', 'huggingface_hub', 'numpy'} & set(sys.modules)))"
    )
    outcome = finish(start_python("-c", code, cwd=tmp_path))
    assert outcome.out.splitlines()[-1] == "[]"


def test_a_tokenizer_that_the_model_does_not_have_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], checkpoint: Path
) -> None:
    model = random_model(tiny_config(vocab_size=50257, n_embd=4), 50257)
    path = save_format3(model, tmp_path / "plain.pt", Tokenizer(chatml=False))
    said = errors_in(upload(capsys, path, tmp_path / "out", "--dry-run", "--tokenizer", "extended"))[0]
    assert "made without ChatML's tokens" in said
