"""Tests of checkpoints/file.py: a file is whole or not written, verified before it is read, and holds only plain data."""

from __future__ import annotations

import hashlib
import io
import os
import random
import stat
import zipfile

import pytest
import torch
from helpers_model import random_model, tiny_config
from helpers_run import differences

from jojo.checkpoints import file as checkpoint_file
from jojo.checkpoints.checkpoint import load_checkpoint
from jojo.checkpoints.file import read_file, read_stamp, verify_file, write_file
from utils import UserError


def state(**more):
    """The part of a checkpoint that these tests need."""
    return {
        "format_version": 3,
        "model": {"weight": torch.arange(12.0).view(3, 4)},
        "optimizer": {"weight": {"step": torch.tensor(3.0), "exp_avg": torch.ones(3, 4)}},
        "loader": {"epoch": 1, "position": 5},
        "batch_counter": 1234567,
        "metadata": {"run_id": "0123456789abcdef"},
        "points": [(1, 2.5), (2, 2.25)],
        "nothing": None,
        **more,
    }


@pytest.fixture
def good(tmp_path):
    """A checkpoint that is intact."""
    path = tmp_path / "good.pt"
    write_file(state(), path)
    return path


# --- writing and reading ----------------------------------------------------------------------------------------------


def test_a_written_state_is_read_back_bit_for_bit(good):
    assert differences(read_file(good), state()) == []
    assert list(read_file(good)) == list(state())


def test_the_file_ends_with_the_sha256_of_everything_before_it(good):
    content = good.read_bytes()
    body, trailer = content[:-76], content[-76:]
    assert trailer == b"jojo-sha256:" + hashlib.sha256(body).hexdigest().encode()
    assert verify_file(good) is True


def test_torch_load_with_weights_only_reads_the_file(good):
    assert differences(torch.load(good, weights_only=True), state()) == []


def test_tied_weights_are_stored_once_and_are_tied_when_read(tmp_path):
    model = random_model(tiny_config(n_layer=1, n_embd=8))
    write_file({"model": model.state_dict()}, tmp_path / "tied.pt")
    alone = {name: weight for name, weight in model.state_dict().items() if name != "lm_head.weight"}
    write_file({"model": alone}, tmp_path / "alone.pt")
    assert (tmp_path / "tied.pt").stat().st_size < (tmp_path / "alone.pt").stat().st_size + 1500
    loaded = read_file(tmp_path / "tied.pt")["model"]
    assert loaded["lm_head.weight"].data_ptr() == loaded["transformer.wte.weight"].data_ptr()


def test_a_missing_folder_is_made_and_no_temporary_file_stays(tmp_path):
    path = tmp_path / "new" / "deep" / "x.pt"
    write_file(state(), path)
    assert [p.name for p in path.parent.iterdir()] == ["x.pt"]


def test_the_new_file_is_durable_before_it_replaces_the_old_one(tmp_path, monkeypatch):
    """The file is synced and renamed, then the folder is synced: in this order."""
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (order.append("sync"), fsync(descriptor))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("rename"), replace(a, b))[1])
    write_file(state(), tmp_path / "x.pt")
    assert order == (["sync", "rename", "sync"] if os.name == "posix" else ["sync", "rename"])


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_leaves_the_previous_file_and_no_temporary(good, monkeypatch, call):
    before = good.read_bytes()

    def fails(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fails)
    with pytest.raises(UserError, match=r"Could not save '.*good\.pt' \(No space left on device\)"):
        write_file(state(loader={"epoch": 9, "position": 9}), good)
    monkeypatch.undo()
    assert good.read_bytes() == before
    assert [p.name for p in good.parent.iterdir()] == ["good.pt"]


def test_a_folder_that_cannot_be_synced_does_not_lose_the_save(good, monkeypatch):
    """Some network file systems cannot sync folders; the file itself is still safe there."""
    fsync = os.fsync

    def files_only(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(22, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", files_only)
    write_file(state(loader={"epoch": 9, "position": 9}), good)
    assert read_file(good)["loader"] == {"epoch": 9, "position": 9}


# --- the stamp --------------------------------------------------------------------------------------------------------


def test_the_stamp_has_run_and_batch_and_is_read_without_the_rest(tmp_path):
    write_file(state(), tmp_path / "x.pt")
    stamp = read_stamp(tmp_path / "x.pt")
    assert (stamp.run_id, stamp.batch) == ("0123456789abcdef", 1234567)


def test_the_stamp_of_any_other_file_is_none(tmp_path):
    torch.save({"model": {}}, tmp_path / "old.pt")
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "text.pt").write_text("jojo-run: and so on " * 30)
    for name in ("old.pt", "empty.pt", "text.pt", "missing.pt"):
        assert read_stamp(tmp_path / name) is None


# --- damage -------------------------------------------------------------------------------------------------------------


def test_every_changed_byte_is_detected(good):
    content, draw = good.read_bytes(), random.Random(5)
    size = len(content)
    ends = [0, 1, size - 1, size - 64, size - 65, size - 75, size - 76, size - 77]
    changed = [content + extra for extra in (b"\0", b"x" * 100, content[-76:])]
    changed += [content[:length] for length in [draw.randrange(size) for _ in range(40)] + ends]
    for place in [draw.randrange(size) for _ in range(60)] + ends:
        damaged = bytearray(content)
        damaged[place] ^= 1 << draw.randrange(8)
        changed.append(bytes(damaged))
    for damaged in changed:
        good.write_bytes(damaged)
        with pytest.raises(UserError, match=r"damaged|cut short"):
            read_file(good)


def test_nothing_is_unpickled_before_the_sha256_is_compared(good, monkeypatch):
    content = bytearray(good.read_bytes())
    content[len(content) // 2] ^= 4
    good.write_bytes(content)
    monkeypatch.setattr(checkpoint_file, "read_plain", lambda *args: pytest.fail("was unpickled"))
    with pytest.raises(UserError, match="SHA-256 does not match"):
        read_file(good)


def torch_bytes(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def zip_bytes(**files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a model\n",
        b"\x80\x02}q\x00.",
        b"\0" * 1000,
        zip_bytes(),
        zip_bytes(readme="a zip of something else"),
        torch_bytes([1, 2, 3]),
        torch_bytes(torch.zeros(3)),
        torch_bytes("text"),
        torch_bytes(None),
    ],
    ids=["empty", "text", "pickle", "zeros", "empty zip", "zip", "list", "tensor", "string", "none"],
)
def test_a_file_that_is_not_a_checkpoint_is_refused_in_one_sentence(tmp_path, content):
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.pt' is not a checkpoint") as error:
        load_checkpoint(path)
    assert "\n" not in str(error.value)


def test_the_error_for_a_folder_or_a_missing_file_lists_checkpoints(good):
    with pytest.raises(UserError, match="is a folder"):
        read_file(good.parent)
    with pytest.raises(UserError, match=r"No checkpoint '.*none\.pt' \(.* holds: good\.pt\)"):
        read_file(good.parent / "none.pt")
    (good.parent / "dangling.pt").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"No checkpoint '.*dangling\.pt' \(.* holds: good\.pt\)\.$"):
        read_file(good.parent / "dangling.pt")
    with pytest.raises(UserError, match=r"holds: no checkpoint\); train one first: python train\.py --config"):
        read_file(good.parent / "nowhere" / "none.pt")


# --- plain data -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(4, 4).to_sparse(),
        torch.zeros(2, dtype=torch.complex64),
        torch.empty(2, device="meta"),
        torch.zeros(1).expand(1 << 40),
    ],
    ids=["sparse", "complex", "without memory", "a terabyte of one number"],
)
def test_tensors_that_are_not_dense_real_and_in_memory_are_refused(tmp_path, tensor):
    for odd in (state(nothing=[{"deep": (tensor,)}]), state(model={"weight": tensor})):
        write_file(odd, tmp_path / "odd.pt")
        with pytest.raises(UserError, match=r"holds something other than plain data \(.+\); refused"):
            read_file(tmp_path / "odd.pt")


def test_a_list_that_contains_itself_is_read_without_a_hang(tmp_path):
    loop = []
    loop.append(loop)
    write_file(state(nothing=loop), tmp_path / "x.pt")
    assert read_file(tmp_path / "x.pt")["format_version"] == 3
