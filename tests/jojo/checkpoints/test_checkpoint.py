"""The checkpoint file: whole or not at all, verified before it is read, free of code, and older formats load."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pickle
import random
import re
import zipfile
from pathlib import Path

import pytest
import torch
from helpers_run import differences

from config import ModelConfig
from jojo.checkpoints import checkpoint
from jojo.checkpoints import file as checkpoint_file
from jojo.checkpoints.checkpoint import (
    check_finite,
    checkpoint_tokenizer,
    git_commit,
    load_checkpoint,
    load_weights,
    metadata,
)
from jojo.checkpoints.file import STAMP, read_file, verify_file, write_file
from jojo.checkpoints.run_files import RunFiles
from jojo.checkpoints.saver import Saver
from jojo.text.tokenizer import Tokenizer
from model import GPT
from utils import UserError

ROOT = Path(__file__).resolve().parents[3]
SHAPE = ModelConfig(n_layer=1, n_head=2, n_embd=8, block_size=8, vocab_size=64)


def tiny_model() -> GPT:
    torch.manual_seed(0)
    return GPT(SHAPE)


def state(**more):
    """What a checkpoint of the present format looks like, as far as reading one goes."""
    model = tiny_model()
    return {
        "format_version": 3,
        "model": model.state_dict(),
        "config": {"model": vars(SHAPE).copy(), "training": {"batch_size": 3}},
        "tokenizer": Tokenizer().definition(),
        "optimizer": {"transformer.wpe.weight": {"step": torch.tensor(3.0), "exp_avg": torch.ones(8, 8)}},
        "derived": [],
        "lr_scheduler": {"schedule": {}, "total_batches": 9},
        "scaler": {},
        "rng": {"torch": torch.get_rng_state()},
        "loader": {"epoch": 1, "position": 5},
        "batch_counter": 2,
        "skipped_updates": 0,
        **dict.fromkeys(("best_val_loss", "worst_val_loss", "best_train_loss", "worst_train_loss"), float("inf")),
        "metrics": {name: [] for name in ("learning_rate", "train_loss_eval", "val_loss_eval", "bpb")}
        | {"train_loss_batch": [(1, 2.5), (2, 2.25)], "stride": 1, "elapsed_s": 0.0, "tokens": 0},
        "metadata": metadata({"name": "mine", "train": "1", "val": "2"}, "cpu") | {"run": "good", "run_id": "0" * 16},
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


def test_what_is_written_is_read_back_bit_for_bit(good):
    assert differences(read_file(good), state()) == []
    assert list(read_file(good)) == list(state())


def test_the_file_ends_with_the_sha256_of_everything_before_it(good):
    content = good.read_bytes()
    body, trailer = content[:-76], content[-76:]
    assert trailer == b"jojo-sha256:" + hashlib.sha256(body).hexdigest().encode()
    assert verify_file(good) is True


def test_plain_torch_with_weights_only_reads_it(good):
    assert differences(torch.load(good, weights_only=True), state()) == []


def test_tied_weights_are_stored_once_and_come_back_tied(tmp_path):
    model = tiny_model()
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
    """Written, synced, renamed, and the folder synced: in this order."""
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


@pytest.mark.parametrize("room", [0, 1, 100, 5_000])
def test_a_disk_that_fills_up_while_writing_leaves_the_previous_file_and_no_temporary(good, monkeypatch, room):
    before, plain = good.read_bytes(), checkpoint_file._HashingFile.write
    left = room

    def write(self, content):
        nonlocal left
        left -= len(memoryview(content).cast("B"))
        if left < 0:
            raise OSError(28, "No space left on device")
        return plain(self, content)

    monkeypatch.setattr(checkpoint_file._HashingFile, "write", write)
    with pytest.raises(UserError, match="Could not save"):
        write_file(state(), good)
    assert good.read_bytes() == before
    assert [p.name for p in good.parent.iterdir()] == ["good.pt"]


def test_a_folder_that_cannot_be_synced_does_not_lose_the_save(good, monkeypatch):
    """Some network file systems refuse to sync folders; the file itself is safe there all the same."""
    import stat

    fsync = os.fsync

    def files_only(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(22, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", files_only)
    write_file(state(loader={"epoch": 9, "position": 9}), good)
    assert read_file(good)["loader"] == {"epoch": 9, "position": 9}


# --- damage -------------------------------------------------------------------------------------------------------------


def test_every_single_flipped_bit_is_detected(good):
    content, draw = good.read_bytes(), random.Random(5)
    size = len(content)
    places = [draw.randrange(size) for _ in range(60)] + [0, size - 1, size - 64, size - 65, size - 76, size - 77]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << draw.randrange(8)
        good.write_bytes(damaged)
        with pytest.raises(UserError, match=r"damaged|cut short"):
            read_file(good)


def test_every_truncation_is_detected(good):
    content, draw = good.read_bytes(), random.Random(6)
    size = len(content)
    for length in [draw.randrange(size) for _ in range(40)] + [0, 1, size - 1, size - 75, size - 76, size - 77]:
        good.write_bytes(content[:length])
        with pytest.raises(UserError, match=r"damaged|cut short"):
            read_file(good)


def test_bytes_added_at_the_end_are_detected(good):
    content = good.read_bytes()
    for extra in (b"\0", b"x" * 100, content[-76:]):
        good.write_bytes(content + extra)
        with pytest.raises(UserError, match="damaged"):
            read_file(good)


def test_nothing_is_unpickled_before_the_sum_was_compared(good, monkeypatch):
    content = bytearray(good.read_bytes())
    content[len(content) // 2] ^= 4
    good.write_bytes(content)
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: pytest.fail("was unpickled"))
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
def test_what_is_not_a_checkpoint_is_refused_in_one_sentence(tmp_path, content):
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.pt' is not a checkpoint") as error:
        load_checkpoint(path)
    assert "\n" not in str(error.value)


def test_damaged_files_of_older_formats_never_end_in_a_traceback(tmp_path):
    """They carry no sum, so damage may go unseen; but what fails must fail in a sentence."""
    plain, draw = torch_bytes({"config": {"model": vars(SHAPE)}, "model": tiny_model().state_dict()}), random.Random(7)
    path = tmp_path / "old.pt"
    start = plain.index(b"data.pkl")
    for _ in range(150):
        damaged = bytearray(plain)
        for _ in range(draw.choice([1, 1, 3])):
            damaged[start + draw.randrange(2000)] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        with contextlib.suppress(UserError):
            load_weights(tiny_model(), load_checkpoint(path))


def test_a_folder_and_a_missing_file_say_what_is_there(good):
    with pytest.raises(UserError, match="is a folder"):
        read_file(good.parent)
    with pytest.raises(UserError, match=r"No checkpoint '.*none\.pt' \(.* holds: good\.pt\)"):
        read_file(good.parent / "none.pt")
    with pytest.raises(UserError, match="holds no checkpoint"):
        read_file(good.parent / "nowhere" / "none.pt")


# --- hostile files ----------------------------------------------------------------------------------------------------


class Calls:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def hostile(mark):
    """Things whose unpickling would make the file `mark`."""
    command = f"touch {mark}"
    return {
        "os.system": Calls(os.system, command),
        "eval": Calls(eval, f"open({str(mark)!r}, 'w')"),
        "exec": Calls(exec, f"open({str(mark)!r}, 'w')"),
        "getattr": Calls(getattr, Calls(__import__, "os"), "system"),
        "nested": {"model": {"a": [({"b": Calls(os.system, command)},)]}},
        "key": {Calls(os.system, command): 1},
        "open": Calls(open, str(mark), "w"),
        "torch.load": Calls(torch.load, str(mark)),
    }


@pytest.mark.parametrize("kind", list(hostile("x")))
@pytest.mark.parametrize("with_sum", [True, False])
def test_a_malicious_file_is_refused_and_nothing_in_it_runs(tmp_path, kind, with_sum):
    mark, path = tmp_path / "was here", tmp_path / "x.pt"
    content = state(extra=hostile(mark)[kind])
    if with_sum:
        write_file(content, path)
    else:
        torch.save(content, path)
    with pytest.raises(UserError, match=r"other than plain data.*refused, and nothing was run"):
        load_checkpoint(path)
    assert not mark.exists()


def test_a_refused_file_names_what_it_would_have_called(tmp_path):
    torch.save({"model": Calls(os.system, "true")}, tmp_path / "x.pt")
    with pytest.raises(UserError, match=rf"\({os.name}\.system\)"):
        read_file(tmp_path / "x.pt")


def test_an_old_style_pickle_is_not_opened_at_all(tmp_path, monkeypatch):
    """torch.save's format before 2019 is a bare pickle stream."""
    mark, path = tmp_path / "was here", tmp_path / "x.pt"
    path.write_bytes(pickle.dumps({"model": Calls(os.system, f"touch {mark}")}))
    with pytest.raises(UserError, match="not a checkpoint"):
        read_file(path)
    torch.save(state(extra=Calls(os.system, f"touch {mark}")), path, _use_new_zipfile_serialization=False)
    with pytest.raises(UserError):
        read_file(path)
    assert not mark.exists()


# --- other formats ----------------------------------------------------------------------------------------------------


def weights():
    return {name: weight.clone() for name, weight in tiny_model().state_dict().items()}


def assert_loads(path, version):
    """The file's weights end up in a model; returns the checkpoint."""
    loaded = load_checkpoint(path)
    assert loaded.version == version
    assert not loaded.has_training_state
    model = GPT(SHAPE)
    load_weights(model, loaded)
    assert differences(dict(model.state_dict()), weights()) == []
    assert {name: loaded.config["model"][name] for name in ("n_layer", "n_embd", "block_size")} == {
        "n_layer": 1, "n_embd": 8, "block_size": 8,
    }  # fmt: skip
    return loaded


@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module.", "_orig_mod.module.", "module._orig_mod."])
def test_files_like_those_of_version_1_and_nanogpt_load_with_any_prefix(tmp_path, prefix):
    arguments = vars(SHAPE).copy()
    content = {
        "model": {prefix + name: weight for name, weight in weights().items()},
        "optimizer": {"state": {0: {"step": torch.tensor(5.0)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]},
        "model_args": arguments, "iter_num": 2000, "best_val_loss": torch.tensor(1.5),
        "config": {"dataset": "shakespeare", "batch_size": 12, "compile": True},
    }  # fmt: skip
    torch.save(content, tmp_path / "ckpt.pt")
    assert_loads(tmp_path / "ckpt.pt", "nanoGPT")
    del content["iter_num"]
    torch.save(content, tmp_path / "ckpt.pt")
    assert_loads(tmp_path / "ckpt.pt", "1")


def test_the_mask_that_nanogpt_stored_before_flash_attention_is_no_weight(tmp_path):
    content = {"model": weights() | {"transformer.h.0.attn.bias": torch.ones(1, 1, 8, 8).tril()}}
    torch.save(content | {"model_args": vars(SHAPE).copy()}, tmp_path / "ckpt.pt")
    assert_loads(tmp_path / "ckpt.pt", "1")


@pytest.mark.parametrize("pytorch_version", [torch.torch_version.TorchVersion("2.5.1+cu121"), "2.5.1"])
def test_files_like_those_of_version_2_load(tmp_path, pytorch_version):
    content = {
        "model": {f"_orig_mod.{name}": weight for name, weight in weights().items()},
        "config": {
            "model": vars(SHAPE) | {"flash_attention": True}, "data": {"dataset_name": "story", "old_option": 3},
            "training": {"compile_model": True}, "wandb": {"project": "x"}, "note": "hello",
        },
        "optimizer": {"state": {0: {"step": torch.tensor(5.0)}}, "param_groups": []},
        "metadata": {"pytorch_version": pytorch_version, "trainer_version": "2.0.1"},
        "iter_num": 7,
    }  # fmt: skip
    torch.save(content, tmp_path / "x.pt")
    loaded = assert_loads(tmp_path / "x.pt", "2.x")
    assert "flash_attention" not in loaded.config["model"] and "old_option" not in loaded.config["data"]
    assert "wandb" not in loaded.config or not loaded.config["wandb"]
    assert loaded.config["training"] == {"compile_model": True}


def test_an_unknown_format_names_the_keys_it_expected(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"model": weights(), "epoch": 3}, path)
    with pytest.raises(UserError, match=r"Missing 'model_args' or 'config\.model'"):
        load_checkpoint(path)
    torch.save({"state_dict": weights(), "epoch": 3}, path)
    with pytest.raises(UserError, match=r"Missing 'model'.*state_dict, epoch"):
        load_checkpoint(path)
    torch.save({}, path)
    with pytest.raises(UserError, match=r"Missing 'model'.*nothing"):
        load_checkpoint(path)


def test_a_format_of_the_future_says_that_it_is_newer(tmp_path):
    write_file(state(format_version=4), tmp_path / "x.pt")
    with pytest.raises(UserError, match="format 4, newer"):
        load_checkpoint(tmp_path / "x.pt")


@pytest.mark.parametrize("model", [{3: torch.zeros(2)}, {"transformer.wte.weight": 5}, {"a": [1]}, {}])
def test_a_model_that_is_no_dictionary_of_named_tensors_is_refused_in_a_sentence(tmp_path, model):
    torch.save({"model": model, "model_args": vars(SHAPE)}, tmp_path / "x.pt")
    with pytest.raises(UserError):
        load_weights(tiny_model(), load_checkpoint(tmp_path / "x.pt"))


def test_the_tokenizer_is_the_stored_one_and_in_older_formats_the_one_that_fits(tmp_path):
    write_file(state(tokenizer=Tokenizer(chatml=False).definition()), tmp_path / "x.pt")
    assert not checkpoint_tokenizer(load_checkpoint(tmp_path / "x.pt")).has_chatml
    for vocab_size, chatml in ((50304, True), (50259, True), (50257, False)):
        sized = weights() | {"transformer.wte.weight": torch.zeros(vocab_size, 8)}
        torch.save({"model": sized, "model_args": vars(SHAPE) | {"vocab_size": vocab_size}}, tmp_path / "x.pt")
        assert checkpoint_tokenizer(load_checkpoint(tmp_path / "x.pt")).has_chatml is chatml
    write_file(state(tokenizer={"name": "klingon", "n_vocab": 7}), tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"'klingon' \(7 tokens\)"):
        checkpoint_tokenizer(load_checkpoint(tmp_path / "x.pt"))


# --- weights ------------------------------------------------------------------------------------------------------------


def test_weights_that_do_not_fit_are_named_with_what_is_wrong_and_change_nothing(good):
    loaded, model = load_checkpoint(good), tiny_model()
    before = weights()
    del loaded.model["transformer.ln_f.weight"]
    loaded.model["transformer.extra"] = torch.zeros(2)
    loaded.model["transformer.wpe.weight"] = torch.zeros(9, 8)
    loaded.model["transformer.wte.weight"] = torch.ones(64, 8)
    with pytest.raises(UserError) as error:
        load_weights(model, loaded)
    text = str(error.value)
    assert "'transformer.ln_f.weight' is missing" in text
    assert "'transformer.extra' is not part of this model" in text
    assert "'transformer.wpe.weight' has the shape (9, 8) instead of (8, 8)" in text
    assert differences(dict(model.state_dict()), before) == []


def test_many_weights_that_do_not_fit_are_counted(good):
    loaded = load_checkpoint(good)
    total = len(loaded.model)
    loaded.model = {}
    with pytest.raises(UserError, match=f"and {total - 3} more"):
        load_weights(tiny_model(), loaded)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_never_saved(good, bad):
    poisoned = state()
    poisoned["model"]["transformer.wpe.weight"][2, 3] = bad
    with pytest.raises(UserError, match=r"'transformer\.wpe\.weight' is not finite"):
        check_finite(poisoned["model"])
    before = good.read_bytes()
    saver = Saver(RunFiles(good), keep=None, move=lambda: None)
    saver.save(poisoned, [good])
    with pytest.raises(UserError, match="not finite"):
        saver.close()
    assert good.read_bytes() == before


# --- where a checkpoint comes from --------------------------------------------------------------------------------------


def test_the_commit_is_the_one_of_this_code_and_missing_outside_a_checkout(tmp_path, monkeypatch):
    git_commit.cache_clear()
    if (ROOT / ".git").exists():
        assert re.fullmatch("[0-9a-f]{40}", git_commit())
    monkeypatch.setattr(checkpoint, "__file__", str(tmp_path / "checkpoint.py"))
    for path in (os.environ["PATH"], str(tmp_path)):  # no checkout; no git
        monkeypatch.setenv("PATH", path)
        git_commit.cache_clear()
        assert git_commit() is None
    git_commit.cache_clear()


def write_by_hand(content, path):
    """A file with a right SHA-256, whatever is in it."""
    whole = torch_bytes(content) + STAMP.format(run="", batch=0).encode()
    path.write_bytes(whole + b"jojo-sha256:" + hashlib.sha256(whole).hexdigest().encode())


NO_COUNT = (None, True, -1, 1.5, 2**63, "1", [1])
NO_NUMBER = (None, True, "1", [1], torch.zeros(()))
NO_POINTS = (None, 1, {}, [1], [(1,)], [(-1, 2.0)], [(1, "x")], [[1, 2.0]])
MISFITS = {
    "tokenizer": (None, [], "gpt2"),
    "derived": (None, {}, [1], "model.n_layer"),
    "lr_scheduler.total_batches": NO_COUNT,
    "lr_scheduler": (None, [], 3),
    "scaler": (None, [1]),
    "rng.torch": (None, 1, [0, 1]),
    "loader.epoch": NO_COUNT,
    "loader.position": NO_COUNT,
    "batch_counter": NO_COUNT,
    "skipped_updates": NO_COUNT,
    "best_val_loss": NO_NUMBER,
    "worst_train_loss": NO_NUMBER,
    "metrics.train_loss_batch": NO_POINTS,
    "metrics.bpb": NO_POINTS,
    "metrics.stride": NO_COUNT,
    "metrics.elapsed_s": NO_NUMBER,
    "metadata.run_id": (None, 7, b"0"),
    "metadata.dataset.train": (None, 7),
    "metadata.machine": (None, "cpu"),
}


@pytest.mark.parametrize(
    ("place", "value"), [(p, v) for p, values in MISFITS.items() for v in values], ids=lambda part: repr(part)[:30]
)
def test_a_file_with_something_else_in_a_place_is_refused_by_its_name(tmp_path, place, value):
    odd = state()
    *above, last = place.split(".")
    inside = odd
    for key in above:
        inside[key] = dict(inside[key])
        inside = inside[key]
    if value is None:
        del inside[last]
    else:
        inside[last] = value
    write_by_hand(odd, tmp_path / "odd.pt")
    with pytest.raises(UserError, match=re.escape(place)):
        load_checkpoint(tmp_path / "odd.pt")


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
def test_tensors_that_are_not_plain_numbers_in_memory_are_refused(tmp_path, tensor):
    for odd in (state(nothing=[{"deep": (tensor,)}]), state(model=weights() | {"transformer.wpe.weight": tensor})):
        write_file(odd, tmp_path / "odd.pt")
        with pytest.raises(UserError, match="tensor that no checkpoint has"):
            load_checkpoint(tmp_path / "odd.pt")


def test_values_that_hold_themselves_do_not_hang_the_reader(tmp_path):
    loop = []
    loop.append(loop)
    write_file(state(nothing=loop), tmp_path / "x.pt")
    assert load_checkpoint(tmp_path / "x.pt").version == "3"


def test_an_archive_that_would_swell_is_refused_before_it_is_read(tmp_path, monkeypatch):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", b"\0" * (1 << 20))
    (tmp_path / "x.pt").write_bytes(content.getvalue())
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: pytest.fail("was read"))
    with pytest.raises(UserError, match="not a checkpoint"):
        read_file(tmp_path / "x.pt")


def test_weights_alone_are_a_checkpoint_to_talk_to_but_not_to_go_on_from(tmp_path):
    whole = state()
    write_file({key: whole[key] for key in ("format_version", "model", "config", "tokenizer")}, tmp_path / "x.pt")
    loaded = load_checkpoint(tmp_path / "x.pt")
    assert loaded.version == "3" and not loaded.has_training_state


def test_metadata_holds_plain_values_only():
    facts = metadata({"name": "mine", "train": "1", "val": "2"}, "cpu")
    assert type(facts["pytorch_version"]) is str
    assert {type(value) for value in facts.values()} <= {str, dict, type(None)}
    assert facts["dataset"] == {"name": "mine", "train": "1", "val": "2"}
