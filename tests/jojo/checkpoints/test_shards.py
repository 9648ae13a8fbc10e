"""Tests of checkpoints/shards.py and of ShardSaver: shards are written, verified, kept, and moved with their `.pt`."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_run import differences, listening, make_trainer, settle, train, write_data
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint import hf_storage

from jojo.checkpoints import run_files
from jojo.checkpoints import saver as saver_module
from jojo.checkpoints.checkpoint import check_finite, load_checkpoint
from jojo.checkpoints.file import read_file, read_stamp, write_file
from jojo.checkpoints.run_files import RunFiles, shards_of
from jojo.checkpoints.saver import ShardSaver
from jojo.checkpoints.shards import Shards, flat_tensors
from jojo.machine.ranks import OtherRankFailed, Ranks
from tools import convert_checkpoint
from tools.convert_checkpoint import write_sharded
from utils import UserError

RUN_ID = "0123456789abcdef"
SAVED = Path("models/x.pt")


@pytest.fixture(autouse=True)
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(tmp_path, monkeypatch)
    write_data()
    SAVED.parent.mkdir()


def state(batch: int = 3, value: float = 0.0) -> dict[str, Any]:
    """What a run would save after one batch, with this run id and batch number."""
    trainer = make_trainer("--max_iters", "9")
    trainer.step(trainer.loader.batch(0, 0))
    trainer.batches_done = batch
    whole = trainer.state_dict()
    whole["model"]["transformer.wte.weight"][0, 0] = value
    return whole | {"metadata": whole["metadata"] | {"run_id": RUN_ID, "timestamp": "then"}}


@pytest.fixture
def sharded() -> Path:
    """A checkpoint in shards."""
    write_sharded(state(), SAVED)
    return SAVED


def folder_of(path: Path) -> Path:
    """Where a checkpoint's shards are."""
    folder = shards_of(path)
    assert folder
    return folder


def batches_in(folder: Path) -> list[int]:
    """The batches of the saves in a folder of shards."""
    return sorted(int(path.name.split("-")[1]) for path in folder.iterdir())


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the list of shards in a `.pt`, and write it with a correct SHA-256."""
    content = read_file(path)
    change(content["shards"])
    write_file(content, path)


# --- one file and shards ---------------------------------------------------------------------------------------------


def test_a_state_written_in_shards_is_read_back_as_from_one_file(sharded: Path) -> None:
    original = state()
    write_file(original, Path("models/whole.pt"))
    ours, theirs = load_checkpoint(sharded), load_checkpoint(Path("models/whole.pt"))
    assert all(value["exp_avg"].is_meta for value in ours.state["optimizer"].values())  # sampling does not read it
    ours.complete()
    assert differences(ours.model, theirs.model) == [] and differences(ours.state, theirs.state) == []
    assert ours.model["lm_head.weight"] is ours.model["transformer.wte.weight"]
    assert read_stamp(sharded) == read_stamp(Path("models/whole.pt"))
    assert sharded.stat().st_size < 60_000 < sum(p.stat().st_size for p in folder_of(sharded).iterdir())


def test_a_file_converted_to_shards_and_back_is_the_same(sharded: Path) -> None:
    assert convert_checkpoint.main(["models/x.pt", "-o", "models/one.pt"]) == 0
    assert convert_checkpoint.main(["models/one.pt", "-o", "models/two.pt", "--parts"]) == 0
    assert convert_checkpoint.main(["models/two.pt", "-o", "models/three.pt"]) == 0
    assert Path("models/one.pt").read_bytes() == Path("models/three.pt").read_bytes()
    assert "shards" in read_file(Path("models/two.pt")) and "shards" not in read_file(Path("models/one.pt"))


def test_a_run_continues_from_shards_as_from_one_file() -> None:
    flags = ("--max_iters", "6", "--eval_interval", "0", "--optimizer.kind", "muon")
    train(*flags, "--output_checkpoint", "models/whole.pt", "--checkpoint_interval", "3")
    convert_checkpoint.main(["models/whole_batch3.pt", "-o", "models/x_batch3.pt", "--parts"])
    momentum = [name for name in load_checkpoint(Path("models/x_batch3.pt")).shards.shapes if "momentum" in name]
    assert len(momentum) == 4
    assert train(*flags, "--resume", "models/x_batch3.pt", "--output_checkpoint", "models/x.pt").code == 0
    ours, theirs = load_checkpoint(SAVED), load_checkpoint(Path("models/whole.pt"))
    assert ours.shards is None and differences(ours.model, theirs.model) == []
    assert differences(ours.state["optimizer"], theirs.state["optimizer"]) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["models/x.pt", "-o", "models/x.pt"], "exists already"),
        (["models/x.pt", "-o", "models/y"], "ends in .pt"),
        (["models/none.pt", "-o", "models/y.pt"], "No checkpoint"),
    ],
)
def test_the_tool_overwrites_no_file(arguments: list[str], expected: str, sharded: Path) -> None:
    before = sharded.read_bytes()
    with pytest.raises(UserError, match=expected):
        convert_checkpoint.main(arguments)
    assert sharded.read_bytes() == before


def test_weights_without_training_state_cannot_be_split() -> None:
    content = state()
    write_file({name: content[name] for name in ("format_version", "model", "config", "tokenizer")}, SAVED)
    with pytest.raises(UserError, match="has only weights"):
        convert_checkpoint.main(["models/x.pt", "-o", "models/y.pt", "--parts"])


# --- shards that are damaged or forged -------------------------------------------------------------------------------


def test_a_flipped_bit_in_a_shard_is_found_before_it_is_read(sharded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = sorted(folder_of(sharded).iterdir())[1]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 4
    shard.write_bytes(content)
    monkeypatch.setattr(Shards, "read_into", lambda *_: pytest.fail("read although it is damaged"))
    with pytest.raises(UserError, match=f"damaged .*'{shard}'"):
        load_checkpoint(sharded)


def test_an_error_names_a_shard_that_is_cut_short_missing_or_unknown(sharded: Path) -> None:
    shard = sorted(folder_of(sharded).iterdir())[0]
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    with pytest.raises(UserError, match="damaged"):
        load_checkpoint(sharded)
    shard.unlink()
    with pytest.raises(UserError, match=r"A shard of the checkpoint .* is missing .*shard-00001-model-00001"):
        load_checkpoint(sharded)
    shard.write_bytes(content)
    (shard.parent / "shard-00009-model-00001-of-00003.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="does not belong to the checkpoint"):
        load_checkpoint(sharded)
    shutil.rmtree(shard.parent)
    with pytest.raises(UserError, match="is missing"):
        load_checkpoint(sharded)


@pytest.mark.parametrize(
    "change",
    [
        lambda listed: listed.update(folder="../x.shards/0123456789abcdef-3-00000000"),
        lambda listed: listed.update(folder="/x.shards/0123456789abcdef-3-00000000"),
        lambda listed: listed.update(folder=3),
        lambda listed: listed.pop("files"),
        lambda listed: listed.update(files={}),
        lambda listed: listed.update(files=[1]),
        lambda listed: listed["files"].update({"../evil.safetensors": {"bytes": 1, "sha256": "0" * 64}}),
        lambda listed: listed["files"].update(
            {"shard-00002-model-00001-of-00003.safetensors": {"bytes": 1, "sha256": "0"}}
        ),
        lambda listed: listed["tensors"].update({"elsewhere.x": [1]}),
        lambda listed: listed["tensors"].update({"model.x": [-1, 4]}),
        lambda listed: listed["tensors"].update({"model.x": [2**40, 2**40]}),
        lambda listed: listed["tensors"].update({"model.x": []}),
        lambda listed: next(iter(listed["files"].values())).update(bytes=1e300),
        lambda listed: listed["tensors"].update({"model.x": "12"}),
        lambda listed: listed["tensors"].update({"model.x": [1] * 9}),
        lambda listed: listed["tensors"].update({"model.x": torch.ones(10**6, dtype=torch.uint8)}),
    ],
)
def test_a_malformed_list_of_shards_is_refused(change: Callable[[dict[str, Any]], object], sharded: Path) -> None:
    rewrite(sharded, change)
    with pytest.raises(UserError, match="its list of shards is malformed"):
        load_checkpoint(sharded)


def test_tensors_that_are_not_in_the_shards_are_refused(sharded: Path) -> None:
    content = sharded.read_bytes()
    for change, expected in (
        (lambda listed: listed["tensors"].update({"model.transformer.wpe.weight": [17, 16]}), "is not whole"),
        (
            lambda listed: listed["tensors"].update({"model.transformer.new.weight": [1]}),
            "model.transformer.new.weight",
        ),
    ):
        rewrite(sharded, change)
        with pytest.raises(UserError, match=rf"The shards of the checkpoint .* cannot be read \(.*{expected}"):
            load_checkpoint(sharded)
        sharded.write_bytes(content)
    load_checkpoint(sharded)


def forged(path: Path, tensors: dict[str, torch.Tensor] | bytes, offsets: dict[str, list[int]] | None = None) -> None:
    """Replace a checkpoint's first shard, and its size and SHA-256 in the list."""
    shard = sorted(folder_of(path).iterdir())[0]
    if isinstance(tensors, bytes):
        shard.write_bytes(tensors)
    else:
        listed = {name: {"saved_offsets": place} for name, place in (offsets or {}).items()}
        save_file(tensors, shard, metadata={"DCP_SHARDING_INFO": json.dumps(listed)})
    digest = hashlib.sha256(shard.read_bytes()).hexdigest()
    rewrite(
        path, lambda listed: listed["files"].update({shard.name: {"bytes": shard.stat().st_size, "sha256": digest}})
    )


def test_shards_that_hold_anything_but_safetensors_are_refused(sharded: Path) -> None:
    size = sorted(folder_of(sharded).iterdir())[0].stat().st_size
    pickled = io.BytesIO()
    torch.save({"a": torch.zeros(size)}, pickled)
    endless = (5_000_000).to_bytes(8, "little") + b" " * 5_000_000
    for content in (pickled.getvalue(), b"\0" * size, b"\xff" * size, endless):
        forged(sharded, content)
        with pytest.raises(UserError, match="cannot be read"):
            load_checkpoint(sharded)
    forged(sharded, (1 << 25).to_bytes(8, "little") + b"\0" * size)
    with pytest.raises(UserError, match="its header has 33,554,432 bytes, more than 16,777,216"):
        load_checkpoint(sharded)


@pytest.mark.parametrize(
    "forge",
    [
        lambda place, t: (place + 1, t),  # a row is missing before it
        lambda place, t: (place - 1, t),
        lambda place, t: (place, t[:-1].contiguous()),  # a row is missing after it
        lambda place, t: (place, t.to(torch.float64)),
        lambda place, t: (place, t.reshape(8, 32)),
        lambda place, t: (2**40, t),
    ],
)
def test_rows_that_no_shard_has_are_refused(
    forge: Callable[[int, torch.Tensor], tuple[int, torch.Tensor]], sharded: Path
) -> None:
    name = "model.transformer.wpe.weight"
    tensors = load_file(sorted(folder_of(sharded).iterdir())[0])
    places = {other: [0] * tensor.dim() for other, tensor in tensors.items()}
    row, tensors[name] = forge(0, tensors[name])
    places[name] = [row, 0]
    forged(sharded, tensors, places)
    with pytest.raises(UserError, match="cannot be read"):
        load_checkpoint(sharded)


def test_a_malformed_optimizer_state_is_refused_before_shards_are_read_into_it(sharded: Path) -> None:
    content = read_file(sharded)
    content["optimizer"] = dict.fromkeys(content["optimizer"], torch.zeros(3))
    write_file(content, sharded)
    with pytest.raises(UserError, match="its optimizer state is malformed"):
        load_checkpoint(sharded)


@pytest.mark.parametrize("failing", ["is_dir", "stat"])
def test_a_failing_disk_while_shards_are_verified_is_a_user_error(
    failing: str, sharded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, real = folder_of(sharded), getattr(Path, failing)

    def fails(path: Path, **more: Any) -> Any:
        if path == folder or path.parent == folder:
            raise OSError(5, "Input/output error")
        return real(path, **more)

    monkeypatch.setattr(Path, failing, fails)
    with pytest.raises(UserError, match=r"cannot be read \(Input/output error\)"):
        load_checkpoint(sharded)


def test_a_failing_disk_while_shards_are_read_is_a_user_error(sharded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(hf_storage.HuggingFaceStorageReader, "read_data", fails)
    with pytest.raises(UserError, match=r"cannot be read \(Input/output error\)"):
        load_checkpoint(sharded)


def test_resume_falls_back_to_an_older_checkpoint_if_a_shard_is_missing() -> None:
    files = RunFiles(SAVED)
    write_sharded(state(3), files.best)
    write_sharded(state(5), files.last)
    next(folder_of(files.last).iterdir()).unlink()
    with listening() as said:
        assert files.newest_valid().path == files.best
    assert "is missing" in said[0] and "Continuing from" in said[1]


# --- kept, moved, removed -------------------------------------------------------------------------------------------


def test_shards_are_removed_only_after_their_checkpoint_is_replaced() -> None:
    files = RunFiles(SAVED)
    for batch in (1, 2, 4, 5):
        write_sharded(state(batch), SAVED)
        if batch == 1:
            shutil.copy(SAVED, "models/kept.pt")  # the user's copy has the same shards
        if batch == 2:
            shutil.copy(SAVED, files.best)
    files.prune("f" * 16, keep=None)
    assert batches_in(files.shards) == [1, 2, 4, 5]
    files.prune(RUN_ID, keep=None)
    assert batches_in(files.shards) == [1, 2, 5]
    for path in (Path("models/kept.pt"), files.best, SAVED):
        load_checkpoint(path)
    SAVED.unlink()  # now the newest is best, of batch 2; newer shards may still be in use
    files.prune(RUN_ID, keep=None)
    assert batches_in(files.shards) == [1, 2, 5]


def test_nothing_is_removed_while_a_checkpoint_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    files, real = RunFiles(SAVED), run_files.stamp_in
    for batch in (1, 2):
        write_sharded(state(batch), SAVED)
    for error in (OSError(116, "Stale file handle"), UserError("damaged")):

        def fails(path: Path, error: Exception = error) -> Any:
            if path == SAVED:
                raise error
            return real(path)

        monkeypatch.setattr(run_files, "stamp_in", fails)
        files.prune(RUN_ID, keep=None)
        assert batches_in(files.shards) == [1, 2]
    monkeypatch.setattr(run_files, "stamp_in", real)
    files.prune(RUN_ID, keep=None)
    assert batches_in(files.shards) == [2]


def test_a_checkpoint_moves_with_its_shards_and_leaves_those_that_others_use() -> None:
    files = RunFiles(SAVED)
    for batch, path in ((3, files.numbered(3)), (5, files.last)):
        write_sharded(state(batch), path)
    shutil.copy(files.last, "models/kept.pt")
    files.set_later_aside(RUN_ID, 3, "now")
    for path in (files.numbered(3), Path("models/old/x-now/x.pt"), Path("models/kept.pt")):
        load_checkpoint(path)
    Path("models/kept.pt").unlink()
    files.make_room("then")
    assert load_checkpoint(Path("models/old/x-then/x_batch3.pt")).state["batch_counter"] == 3
    assert not list(Path("models").glob("*.pt"))
    assert batches_in(files.shards) == [5]  # the shards of kept.pt stay: the user may have moved it


def test_training_a_batch_again_does_not_overwrite_its_earlier_shards() -> None:
    files = RunFiles(SAVED)
    write_sharded(state(3, value=1.0), SAVED)
    shutil.copy(SAVED, "models/kept.pt")
    write_sharded(state(3, value=2.0), SAVED)
    files.prune(RUN_ID, keep=None)
    first = [load_checkpoint(Path(path)).model["transformer.wte.weight"][0, 0] for path in ("models/kept.pt", SAVED)]
    assert first == [1.0, 2.0]


@pytest.mark.parametrize("step", ["copytree", "move", "rmtree"])
def test_a_kill_while_checkpoints_are_moved_aside_loses_nothing(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException): ...

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    files = RunFiles(SAVED)
    write_sharded(state(3), SAVED)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(run_files.shutil, step, killed)
        files.make_room("now")
    left = [path for path in (SAVED.absolute(), *Path("models/old/x-now").absolute().glob("*.pt")) if path.exists()]
    assert len(left) == 1 and load_checkpoint(left[0]).state["batch_counter"] == 3


def test_shards_are_copied_if_they_cannot_be_hard_linked(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: Any) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(run_files.os, "link", refuses)
    write_sharded(state(3), SAVED)
    RunFiles(SAVED).make_room("now")
    load_checkpoint(Path("models/old/x-now/x.pt"))


def test_half_written_shards_of_a_killed_run_are_removed(sharded: Path) -> None:
    files = RunFiles(sharded)
    left = files.shards / f".{RUN_ID}-4-00000000.tmp"
    left.mkdir()
    (left / "shard-00001-model-00001-of-00003.safetensors").write_bytes(b"half")
    with files.held():
        assert not left.exists()
        load_checkpoint(sharded)


# --- saving while training continues ---------------------------------------------------------------------------------


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Callable[[dict[str, Any]], dict[str, Any]]]:
    """A process group of one rank; yields a function that shards a state's tensors over it."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (1,))

    def share(tensor: torch.Tensor) -> torch.Tensor:
        return distribute_tensor(tensor.detach().clone(), mesh, [Shard(0)]) if tensor.dim() else tensor

    def sharded(whole: dict[str, Any]) -> dict[str, Any]:
        optimizer = {
            name: {key: share(value) for key, value in values.items()} for name, values in whole["optimizer"].items()
        }
        return whole | {
            "model": {name: share(tensor) for name, tensor in whole["model"].items()},
            "optimizer": optimizer,
        }

    try:
        yield sharded
    finally:
        torch.distributed.destroy_process_group()


Share = Callable[[dict[str, Any]], dict[str, Any]]


def test_the_checkpoints_of_one_save_share_its_shards(group: Share) -> None:
    files = RunFiles(SAVED)
    saver = ShardSaver(files, 1, Ranks())
    whole = state(3)
    saver.save(group(whole), [files.best, files.numbered(3), files.last])
    saver.wait()
    assert batches_in(files.shards) == [3]
    best, last = load_checkpoint(files.best), load_checkpoint(files.last)
    best.complete()
    last.complete()
    assert differences(best.state, last.state) == []
    assert differences(last.state["optimizer"], whole["optimizer"]) == []
    saver.save(group(state(4)), [files.numbered(4), files.last])
    saver.save(group(state(6)), [files.last])
    saver.wait()
    assert saver.failed == [] and not files.numbered(3).exists()
    assert batches_in(files.shards) == [3, 4, 6]  # of best, numbered, last


def test_a_save_writes_the_state_from_when_it_began(group: Share) -> None:
    shared = group(state(3, value=1.0))
    saver = ShardSaver(RunFiles(SAVED), None, Ranks())
    saver.save(shared, [SAVED])
    flat_tensors(shared)["model.transformer.wte.weight"].to_local().fill_(7.0)  # training continues
    saver.wait()
    weights = load_checkpoint(SAVED).model["transformer.wte.weight"]
    assert weights[0, 0] == 1 and not (weights == 7).any()


@pytest.mark.parametrize("refusing", ["write_shards", "write_file", "copy_file"])
def test_a_failed_save_keeps_the_previous_one_and_is_tried_again_unchanged(
    refusing: str, group: Share, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = RunFiles(SAVED)
    saver = ShardSaver(files, None, Ranks())
    saver.save(group(state(1)), [files.best, files.last])
    saver.wait()
    real = getattr(saver_module, refusing)

    def fails(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saver_module, refusing, fails)
    with listening() as said:
        saver.save(group(state(2, value=2.0)), [files.last, files.best])
        saver.wait()
    assert len(said) == (1 if refusing == "copy_file" else 2) and "No space left" in said[0]
    assert saver.failed == ([files.best] if refusing == "copy_file" else [files.last, files.best])
    assert load_checkpoint(files.best).state["batch_counter"] == 1
    assert not list(files.shards.glob(".*"))
    monkeypatch.setattr(saver_module, refusing, real)
    saver.save(group(state(3)), [files.last])
    saver.wait()
    assert saver.failed == []
    best = load_checkpoint(files.best)
    assert best.state["batch_counter"] == 2 and best.model["transformer.wte.weight"][0, 0] == 2
    assert load_checkpoint(files.last).state["batch_counter"] == 3


def test_weights_that_are_not_finite_are_never_written_in_shards(group: Share) -> None:
    saver = ShardSaver(RunFiles(SAVED), None, Ranks())
    saver.save(group(state(1, value=float("nan"))), [SAVED])
    with pytest.raises(UserError, match=r"'transformer\.wte\.weight' is not finite"):
        saver.wait()
    assert not SAVED.exists()


def test_a_missing_rank_during_a_save_ends_the_run(group: Share, monkeypatch: pytest.MonkeyPatch) -> None:
    saver, shared = ShardSaver(RunFiles(SAVED), None, Ranks()), group(state(1))

    def missing(*_: Any) -> None:
        raise OtherRankFailed("Rank 1 did not answer.")

    monkeypatch.setattr(saver, "_all_gather", missing)
    with listening() as said:
        saver.save(shared, [SAVED])
        with pytest.raises(OtherRankFailed, match="Rank 1"):
            saver.wait()
        monkeypatch.setattr(saver_module, "check_finite", lambda _: None)
        saver._fatal = None
        saver.save(shared, [SAVED])
        with pytest.raises(OtherRankFailed, match="Rank 1"):
            saver.wait()
    assert not said and not SAVED.exists()


def test_the_saving_thread_uses_the_gpu_of_its_rank(group: Share, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    saver = ShardSaver(RunFiles(SAVED), None, Ranks(), "cuda:3")
    saver.save(group(state(1)), [SAVED])
    saver.wait()
    assert chosen == ["cuda:3"] and SAVED.exists()


def test_ranks_that_do_not_see_the_same_folder_are_an_error_before_the_first_batch(
    group: Share, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saver_module, "FOLDER_SEEN_S", 0.0)
    monkeypatch.setattr(Path, "exists", lambda _: False)
    with pytest.raises(
        UserError,
        match=r"Rank 0 does not see the folder .models. of rank 0, and with fsdp every rank writes to it; put it on a file system",
    ):
        ShardSaver(RunFiles(SAVED), None, Ranks())


def test_ranks_read_large_tensors_when_they_need_them(sharded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    several = Ranks(1, 2)
    monkeypatch.setattr(several, "all_gather_text", lambda _, value: [value, ""])
    checkpoint = load_checkpoint(sharded, several)
    assert all(weight.is_meta for weight in checkpoint.model.values()) and checkpoint.shards
    assert checkpoint.config["model"]["n_embd"] == 16
    checkpoint.complete()
    check_finite(checkpoint.model)
    assert checkpoint.shards is None and differences(checkpoint.model, load_checkpoint(sharded).model) == []
