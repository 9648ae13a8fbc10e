"""Fuzz tests: any input is accepted, or refused with a message. No traceback, no hang, no unnoticed wrong result.

    HYPOTHESIS_PROFILE=thorough pytest tests/behaviour/test_fuzz.py       at least 1,000 examples of each, new ones every time

Every example starts from valid input and changes it in a few places. `bounded` ends an example that hangs or takes too
much memory. Numbers are small or enormous. If a check is missing, an example with an enormous number fails at once (the
allocator refuses 2^40 sequences of 8 tokens) instead of computing for hours.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import hashlib
import io
import itertools
import json
import math
import re
import shutil
import signal
import struct
import sys
import zipfile
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from helpers_cli import kept_log
from helpers_data import END, EOT, GPT2, LOOKALIKES, START, build, checksums, documents_of, encoded, new_folder
from helpers_model import random_model, save_2x, save_format3, save_v1, tiny_config
from helpers_run import TINY, differences, settle, state_of, write_data
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

import gen
import generation
import model
import prepare
import train
import trainer
from config import OPTIONS, SECTIONS, Config, ModelConfig, resolve
from data_loader import PackedLoader
from jojo import plotting
from jojo.checkpoints.checkpoint import Checkpoint, check_finite, load_checkpoint
from jojo.checkpoints.file import STAMP
from jojo.checkpoints.run_files import RunFiles
from jojo.command import Parser, run_command
from jojo.config_file import file_layers
from jojo.metrics import MetricsFile
from jojo.text import dataset_files
from jojo.text import readers as text_files
from jojo.text.documents import Encoded, record_messages
from jojo.text.token_cache import CacheManifest, TokenCache, digest_of
from jojo.text.tokenizer import Tokenizer
from tools import improvements_guide
from training.flags import ALIASES, build_parser
from utils import UserError

ROOT = Path(__file__).resolve().parents[2]
CPU_SECONDS = 10  # of processor time; an example takes a hundredth of it, so more is a hang
HEADROOM_BYTES = 2 << 30  # an example may allocate this much; more fails, as on a small machine
Main = Callable[[list[str]], int]


def examples(count: int) -> settings:
    """A third of `count` examples; with HYPOTHESIS_PROFILE=thorough (tests/conftest.py) 20 times `count`, at least 1,000."""
    most = settings.default.max_examples
    return settings(max_examples=max(20 * count, most) if most >= 1000 else count // 3, database=None)


class TooLong(BaseException):
    """An example hangs. This is a BaseException, so that no `except Exception` catches it."""


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Fails an example after CPU_SECONDS, and refuses memory beyond HEADROOM_BYTES, if the system can do that."""

    def stop(*_: object) -> None:
        raise TooLong

    with contextlib.ExitStack() as stack:
        if sys.platform == "linux":
            import resource

            limits = resource.getrlimit(resource.RLIMIT_AS)
            taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            most = limits[1] if limits[1] != resource.RLIM_INFINITY else taken + HEADROOM_BYTES
            resource.setrlimit(resource.RLIMIT_AS, (min(taken + HEADROOM_BYTES, most), limits[1]))
            stack.callback(resource.setrlimit, resource.RLIMIT_AS, limits)
        if hasattr(signal, "setitimer"):
            stack.callback(signal.signal, signal.SIGPROF, signal.signal(signal.SIGPROF, stop))
            signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
            stack.callback(signal.setitimer, signal.ITIMER_PROF, 0)
        try:
            yield
        except TooLong:
            pytest.fail(f"not done after {CPU_SECONDS} seconds of processor time", pytrace=False)


class Said(NamedTuple):
    """The exit code of a command, and what it printed."""

    code: int
    out: str
    err: str


def run(main: Main, *arguments: str) -> Said:
    """Runs a command as the command line does. It must succeed, or fail with an error message."""
    out, err = io.StringIO(), io.StringIO()
    with kept_log(), bounded(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run_command(main, list(arguments))
        except SystemExit as ended:
            code = ended.code
    said = Said(code, out.getvalue(), err.getvalue())
    assert said.code in (0, 1, 2), said
    if said.code:
        assert "error: " in said.err and "Traceback" not in said.err, said
    if said.code == 2:
        assert re.fullmatch(r"error: .+\n", said.err), said
    return said


# --- the folder of all tests ----------------------------------------------------------------------------------------------

# The smallest model that the vocabulary allows, trained for two batches.
SMALLEST = "--data.tokenizer gpt2 --model.n_embd 2 --model.n_head 1 --model.block_size 8 --max_iters 2"
FLAGS = [*TINY, *SMALLEST.split()]
SHAPE = {"n_layer": 1, "n_head": 1, "n_embd": 2, "block_size": 8, "dropout": 0.0, "bias": False, "vocab_size": 50304}
OWN = "models/mine_epoch1.pt"  # the checkpoint that this run writes
OTHER = "models/other.pt"
VERSIONS = ("3", "2.x", "1", "nanoGPT")
State = dict[Any, Any]


class Few(model.Block):
    """A transformer block that refuses models of ten layers or of a large width: no file here has weights for them."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        assert layer < 9 and config.n_embd < 900, "a model is built that the file cannot fill"
        super().__init__(config, layer)


class States(dict[str, State]):
    """The contents of a checkpoint of each version. They are not printed when an example fails."""

    def __repr__(self) -> str:
        return "..."


DATA: list[tuple[str, bytes]] = []  # the data set: names and contents
GENERATE = generation.generate


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[States]:
    """Enters the folder that all tests here share, and yields the contents of a checkpoint of every version."""
    folder = tmp_path_factory.mktemp("deep") / "er" / "place"  # so deep that "../.." stays inside
    folder.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch, kept_log():
        settle(folder, patch)
        patch.setattr(plotting.PlotManager, "draw", lambda *_: None)
        patch.setenv("HOME", str(folder))
        patch.setattr(sys, "stdin", io.StringIO())  # no input
        encodings = {True: GPT2._encoding, False: Tokenizer(chatml=False)._encoding}
        patch.setattr(Tokenizer, "_encoding", property(lambda self: encodings[self.has_chatml]))
        patch.setattr(model, "Block", Few)
        patch.setattr(generation, "generate", lambda *given, **how: itertools.islice(GENERATE(*given, **how), 12))
        patch.setattr(trainer, "compile_blocks", lambda *_: False)  # compiling takes minutes
        DATA[:] = sorted((path.name, path.read_bytes()) for path in Path("data").glob("*.jsonl"))
        assert train.main(FLAGS) == 0
        state = state_of(OWN)
        yield States((version, state if version == "3" else older(state, version)) for version in VERSIONS)


def older(state: State, version: str) -> State:
    """The same training as an older version, or nanoGPT, would have written it."""
    weights = state["model"]
    own = [name for name in weights if name != "lm_head.weight"]
    numbered = [name for name in own if weights[name].dim() >= 2] + [name for name in own if weights[name].dim() < 2]
    result = {
        "model": {"_orig_mod." + name: tensor for name, tensor in weights.items()},
        "optimizer": {
            "state": {number: dict(state["optimizer"][name]) for number, name in enumerate(numbered)},
            "param_groups": [{"lr": 1e-3, "params": list(range(len(numbered)))}],
        },
        "epoch": 0,
        "best_val_loss": 5.5,
    }
    losses = {"train_loss_batch": [(1, 5.5), (2, 5.25)], "val_loss_epoch": [(0, 5.5)], "learning_rate": [[1, 0.01]]}
    if version == "2.x":
        result |= {"metrics": losses, "batch_counter": 2, "worst_val_loss": 6.0, "lr_scheduler": None}
        result["metadata"] = {"trainer_version": "2.0.1", "pytorch_version": torch.__version__, "git_commit": None}
        result["config"] = {
            "model": SHAPE, "data": {"dataset_name": "mine"}, "optimizer": {"learning_rate": 0.01},
            "training": {"max_epochs": 1, "batch_size": 2, "gradient_accumulation_steps": 1, "eval_iters": 2},
            "system": {"dtype": "float32", "device": "cpu", "option_of_long_ago": True},
            "scheduler": {"warmup_iters": 2000, "lr_decay_iters": 60000},
        }  # fmt: skip
        return result
    result["model_args"] = SHAPE
    result["config"] = {"dataset": "mine", "batch_size": 2, "learning_rate": 0.01, "eval_interval": 5, "RED": "x"}
    return result | ({"iter_num": 2} if version == "nanoGPT" else {"batch_counter": 2, "epoch_iter": 2})


# --- nested values and their changes --------------------------------------------------------------------------------------


class Change(NamedTuple):
    """A change of one place in nested values. `where` has the keys that lead to it; a number may count entries."""

    where: tuple[Any, ...]
    how: str  # "put", "drop", or "rename" its key
    value: Any = None  # the new value or key, or its name in ODD


def odd_list() -> list[Any]:
    """A list that contains itself."""
    result: list[Any] = []
    result.append(result)
    return result


def odd_dict() -> dict[str, Any]:
    """A dictionary that contains itself."""
    result: dict[str, Any] = {}
    result["config"] = result["model"] = result
    return result


DEEP = "nested deeply"  # `saved` replaces it by 5,000 nested lists, which torch.save could not write
HUGE = [2**31, 2**40, 2**60, 2**62, 2**63 - 1, 2**63, 2**64, 10**30, 10**400, -(2**40), -(2**63), -(10**400)]
ODD: dict[str, Callable[[], Any]] = {
    "an endless list": odd_list,
    "an endless dictionary": odd_dict,
    "tensor()": lambda: torch.zeros(()),
    "tensor(1)": lambda: torch.ones((), dtype=torch.int64),
    "tensor[0]": lambda: torch.zeros(0),
    "tensor[3]": lambda: torch.arange(3),
    "tensor[2, 2]": lambda: torch.ones(2, 2),
    "tensor[8, 2]": lambda: torch.ones(8, 2),
    "tensor[8, 2] of float64": lambda: torch.ones(8, 2, dtype=torch.float64),
    "tensor[8, 2] of bfloat16": lambda: torch.ones(8, 2, dtype=torch.bfloat16),
    "tensor[8, 2] of bool": lambda: torch.ones(8, 2, dtype=torch.bool),
    "tensor[8, 2] of NaN": lambda: torch.full((8, 2), math.nan),
    "tensor[8, 900]": lambda: torch.ones(8, 900),
    "tensor[50304, 2]": lambda: torch.full((50304, 2), 1e30),
    "tensor[1] of inf": lambda: torch.full((1,), math.inf),
    "tensor of bytes": lambda: torch.zeros(16, dtype=torch.uint8),
    "tensor of a parameter": lambda: torch.nn.Parameter(torch.zeros(2)),
    "tensor without memory": lambda: torch.empty(8, 2, device="meta"),
    "tensor of a terabyte": lambda: torch.zeros(1).expand(1 << 40),
    "tensor that is sparse": lambda: torch.eye(2).to_sparse(),
    "tensor of complex": lambda: torch.zeros(2, dtype=torch.complex64),
    "a set": lambda: {1, "a"},
    "an OrderedDict": lambda: collections.OrderedDict(a=1),
    "a Size": lambda: torch.Size([2]),
    "a dtype": lambda: torch.float16,
    "a device": lambda: torch.device("cpu"),
    "a version": lambda: torch.torch_version.TorchVersion("2.0"),
}
STRINGS = [
    "", " ", ".", "..", "../../escaped", "models/other.pt", "models/../models", "a\0b", "a\nb", "\x1b[2J\x1b[31m", "\ud800",
    "\udcff", "é" * 300, "x" * 5000, "%s%d{0}", "*", "[", "null", "nan", "auto", "cpu", "cuda", "cuda:7", "cuda:²", "mps",
    "float16", "bfloat16", "muon", "wsd", "gpt2", "story", "mine", "other", "0" * 16, DEEP,
]  # fmt: skip
NUMBERS = [-1, 0, 1, 2, 3, 9, 0.0, -0.5, 0.5, 1.5, 1e308, -1e308, 1e-320, 1e-45, math.nan, math.inf, -math.inf]
CONTAINERS = [[], {}, (), [0], [None], [[1, 2.5]], [(1, 2.5)], [(3, math.inf)], [(1, 10**400)], {"": None}, {0: {0: 0}}]
SINGLE = [None, True, False, b"", b"bytes", *NUMBERS, *HUGE, *STRINGS, *ODD]
scalars = st.sampled_from(SINGLE)
anything = scalars | st.sampled_from([*SINGLE, *CONTAINERS]) | st.integers(-9, 9) | st.floats() | st.text(max_size=5)
anything |= st.lists(scalars, max_size=3) | st.lists(st.tuples(st.integers(0, 9), scalars), max_size=2)
anything |= st.dictionaries(st.sampled_from(STRINGS) | st.integers(-1, 3), scalars, max_size=3)
names = st.sampled_from(STRINGS) | st.integers(-1, 9) | st.none() | st.floats() | st.tuples(st.sampled_from(STRINGS))
names |= st.sampled_from([*ODD]) | st.sampled_from(
    [
        "module.model", "module." * 999, "transformer.h.", "transformer.h.1.ln_1.weight", "transformer.h.0.attn.bias",
        "lm_head.weight", "transformer.wpe.weight", "step", "exp_avg", "momentum_buffer", "model", "config", "format_version",
    ]
)  # fmt: skip


def made(value: Any) -> Any:
    """The value of a Change, with the objects of ODD in place of their names."""
    if isinstance(value, (list, tuple)):
        return type(value)(made(entry) for entry in value)
    if isinstance(value, dict):
        return {key: made(entry) for key, entry in value.items()}
    return ODD[value]() if isinstance(value, str) and value in ODD else value


def changed(value: Any, change: Change) -> Any:
    """A copy of nested values with one place changed; missing keys that lead to it are added."""
    if not change.where:
        return made(change.value)
    first, *rest = change.where
    if isinstance(value, dict):
        known = first in value or isinstance(first, str) or not value
        key = first if known else [*value][first % len(value)]
        result = dict(value)
        if rest and (key not in value or isinstance(value[key], (dict, list, tuple))):
            result[key] = changed(value.get(key, {}), change._replace(where=tuple(rest)))
        elif change.how == "put":
            result[key] = made(change.value)
        elif change.how == "drop":
            result.pop(key, None)
        else:
            entry, new = result.pop(key, None), made(change.value)
            result[new if isinstance(new, Hashable) else str(new)] = entry
        return result
    if isinstance(value, (list, tuple)) and value:
        place = (first if isinstance(first, int) else len(first)) % len(value)
        entries = list(value)
        if rest or change.how != "drop":
            entries[place] = changed(entries[place], change._replace(where=tuple(rest)))
        else:
            del entries[place]
        return type(value)(entries) if type(value) in (list, tuple) else entries
    return made(change.value)


SERIES = [[(1, value)] for value in NUMBERS] + [[(1, 10**400)], [(2**62, 1.0), (1, 2)], [(1, 2.0)] * 5000, [[1, 2.0]]]
TENSORS = [name for name in ODD if name.startswith("tensor")]
NUMBER = [True, *NUMBERS, *HUGE, "tensor()", "tensor[3]"]
ALIKE: dict[type, list[Any]] = {  # replacements for values of a type
    int: NUMBER,
    float: NUMBER,
    str: [*STRINGS, 0, "tensor[3]", ["x"]],
    bool: [None, 1, 0.0, "true", "tensor()", "tensor[3]"],
    list: [*SERIES, [], {}, list(STRINGS), list(OPTIONS), [[]], "an endless list", DEEP],
    dict: [*CONTAINERS, "an endless dictionary", "an OrderedDict", dict.fromkeys(STRINGS, "tensor[3]"), DEEP],
    Tensor: [*TENSORS, 0, []],
}
FIELDS: dict[type, str] = {
    int: """format_version lr_scheduler.total_batches loader.epoch loader.position batch_counter skipped_updates epoch
        metrics.stride metrics.tokens tokenizer.n_vocab metadata.machine.threads iter_num config.batch_size""",
    float: """best_val_loss worst_val_loss best_train_loss worst_train_loss metrics.elapsed_s scaler.scale
        lr_scheduler.schedule.peak config.learning_rate optimizer.state.0.step""",
    str: """metadata.run metadata.run_id metadata.dataset.name metadata.dataset.train metadata.dataset.val
        metadata.machine.name metadata.machine.new metadata.trainer_version tokenizer.name config.dataset""",
    list: """derived metrics.train_loss_batch metrics.learning_rate metrics.train_loss_eval metrics.val_loss_eval metrics.bpb
        metrics.val_loss_epoch""",
    dict: """model config tokenizer tokenizer.special_tokens optimizer optimizer.state lr_scheduler lr_scheduler.schedule scaler
        rng loader metrics metadata metadata.dataset metadata.machine model_args""",
    Tensor: "rng.torch",
}
KINDS: dict[tuple[Any, ...], type] = {
    tuple(int(key) if key.isdigit() else key for key in where.split(".")): kind
    for kind, fields in FIELDS.items()
    for where in fields.split()
}
KINDS |= {("config", *name.split(".")): opt.type for name, opt in OPTIONS.items()}
KINDS |= {("config", section): dict for section in SECTIONS} | {("model_args", key): type(SHAPE[key]) for key in SHAPE}
KINDS |= {("model", f"transformer.{name}.weight"): Tensor for name in ("wte", "wpe", "ln_f")}
KINDS |= {("optimizer", "transformer.wpe.weight", key): Tensor for key in ("step", "exp_avg", "exp_avg_sq")}
KINDS |= {("optimizer", "state", n, key): Tensor for n in (0, 1, 8) for key in ("step", "exp_avg", "exp_avg_sq")}
LIKELY = [Change(where, "put", value) for where, kind in KINDS.items() for value in ALIKE[kind]]
places = st.sampled_from([*KINDS]) | st.lists(st.integers(0, 60), min_size=1, max_size=5).map(tuple)
change = st.one_of(
    st.sampled_from(LIKELY),
    st.builds(Change, places, st.just("put"), anything),
    st.builds(Change, places, st.just("drop"), st.none()),
    st.builds(Change, places, st.just("rename"), names),
)
many_changes = st.sampled_from([[one] for one in LIKELY]) | st.lists(change, min_size=1, max_size=3)


def torch_bytes(state: Any) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def repacked(content: bytes, change_pickle: Callable[[bytes], bytes]) -> bytes:
    """The same archive with another pickle. The archive itself is valid."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(member.filename, archive.read(member)) for member in archive.infolist()]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members:
            archive.writestr(name, change_pickle(data) if name.endswith("data.pkl") else data)
    return buffer.getvalue()


def saved(state: Any) -> bytes:
    """What torch.save writes, with deeply nested lists in place of DEEP."""
    content, word = torch_bytes(state), b"X" + struct.pack("<I", len(DEEP)) + DEEP.encode()
    if word not in content:
        return content
    deep = b"]" * 5000 + b"a" * 4999  # creates 5,000 lists, then appends each to the one before it
    return repacked(content, lambda data: data.replace(word, deep))


def stamped(content: bytes, state: State) -> bytes:
    """The contents with a stamp and a SHA-256 of format 3. Both are valid, whatever the contents are."""
    metadata, batch = state.get("metadata"), state.get("batch_counter")
    run_id = metadata.get("run_id") if isinstance(metadata, dict) else None
    run_id = run_id if isinstance(run_id, str) else ""
    batch = batch if type(batch) is int and 0 <= batch < 10**20 else 0
    content += STAMP.format(run=run_id, batch=batch).encode("utf-8", "replace")
    return content + b"jojo-sha256:" + hashlib.sha256(content).hexdigest().encode()


def clean_up() -> None:
    """Deletes everything except for the data set, which is restored, and its caches."""
    for entry in Path().iterdir():
        if entry.name not in ("data", "cache") or not entry.is_dir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    if sorted((path.name, path.read_bytes()) for path in Path("data").glob("*.jsonl")) != DATA:
        shutil.rmtree("data", ignore_errors=True)
        write_data()


def lay(state: State, version: str, changed_places: Sequence[Change]) -> tuple[str, State]:
    """Cleans up, writes a checkpoint with these changes, and returns its path and its contents."""
    clean_up()
    for one in changed_places:
        state = changed(state, one)
    path = Path(OWN if version == "3" else OTHER)
    path.parent.mkdir()
    content = saved(state)
    path.write_bytes(stamped(content, state) if version == "3" else content)
    return str(path), state


def one_more(version: str, state: State) -> str:
    """The --max_iters that trains one more batch, if the file says how many are done."""
    done = state.get("batch_counter") if version == "3" else None
    return str(done + 1 if type(done) is int and 0 <= done < 2**63 else 3)


def put(where: str, value: Any) -> list[Change]:
    """The list of one Change that puts this value there."""
    return [Change(tuple(int(key) if key.isdigit() else key for key in where.split(".")), "put", value)]


# --- checkpoints: contents ------------------------------------------------------------------------------------------------

MACHINE = ("--device", "cpu", "--dtype", "float32")
SAY = ("--prompt", "Once", "--max_tokens", "9", *MACHINE)
WAYS: dict[str, tuple[Main, list[str]]] = {  # other commands that read a checkpoint; its path comes first
    "gen": (gen.main, [*SAY, "--verbose", "--nonstop"]),
    "gen --chat": (gen.main, [*SAY, "--chat", "--system", "Be kind."]),
    "gen --use_base_tokenizer": (gen.main, [*SAY, "--use_base_tokenizer", "--top_k", "5"]),
    "train --load_model_only": (
        lambda words: train.main(["--load_model_only", *words]),
        ["--dataset", "mine", *MACHINE, "--max_iters", "1"],
    ),
    "train --eval_only": (lambda words: train.main(["--checkpoint", *words]), ["--eval_only", "--allow_changes"]),
    "train --reset_epoch": (lambda words: train.main(["--resume", *words]), ["--reset_epoch", "--max_iters", "1"]),
    "improvements_guide": (improvements_guide.main, []),
}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_command_accepts_the_unchanged_checkpoints(place: States, version: str) -> None:
    """Otherwise an error message in the tests below would prove nothing."""
    path, state = lay(place[version], version, [])
    assert run(train.main, "--checkpoint", path, "--max_iters", one_more(version, state)).code == 0
    for way, (main, arguments) in WAYS.items():
        path, _ = lay(place[version], version, [])
        assert run(main, path, *arguments).code == 0, way


@given(version=st.sampled_from(VERSIONS), changes=many_changes)
@example("3", put("rng.torch", "tensor()"))
@example("3", put("rng.torch", "tensor of bytes"))
@example("3", put("metrics.stride", 0))
@example("3", put("metrics.elapsed_s", 10**400))
@example("3", put("metrics.elapsed_s", math.inf))
@example("3", put("metrics.tokens", 2**63 - 1))  # what is saved after it must be readable
@example("3", put("best_train_loss", -(10**400)))
@example("3", put("metrics.val_loss_eval", [(1, 10**400)]))
@example("3", put("format_version", "tensor[3]"))
@example("3", put("tokenizer.n_vocab", "tensor[3]"))
@example("3", put("metadata.machine.threads", "tensor[3]"))
@example("3", put("lr_scheduler.schedule.peak", "tensor[3]"))
@example("3", put("config.data.cache_dir", "\ud800"))
@example("3", put("config.model.n_layer", 10**9))  # building this model would never end
@example("1", put("model_args.n_layer", 9_999))
@example("2.x", put("config.model.block_size", 2**40))
@example("3", [Change(("optimizer", "lm_head.weight"), "rename", "\x1b[2J\x1b[31m")])
@example("2.x", [Change(("config", "system"), "rename", "\x1b[2J\x1b[31m")])
@example("1", put("best_val_loss", 10**400))
@example("1", put("format_version", "tensor[3]"))
@example("nanoGPT", put("model_args.n_layer", "tensor[3]"))
@example("nanoGPT", put("config.batch_size", 2**63 - 1))
@example("nanoGPT", put("config.batch_size", 1e308))
@examples(80)
def test_training_continues_from_any_contents_or_refuses(place: States, version: str, changes: list[Change]) -> None:
    """Trains one more batch from a file that was changed on purpose and has a valid SHA-256."""
    path, state = lay(place[version], version, changes)
    said = run(train.main, "--checkpoint", path, "--max_iters", one_more(version, state))
    assert "\x1b" not in said.out + said.err, said
    if said.code == 0:
        for written in Path().rglob("*.pt"):
            if written.is_file() and (str(written) != path or version == "3"):
                check_finite(load_checkpoint(written).model)


@given(way=st.sampled_from([*WAYS]), version=st.sampled_from(VERSIONS), changes=many_changes)
@example("gen", "3", put("tokenizer.n_vocab", "tensor[3]"))
@example("gen", "2.x", put("worst_train_loss", 10**400))
@example("gen", "nanoGPT", put("model_args.n_embd", "tensor[3]"))
@example(
    "gen", "3", [Change(("model", "transformer.wpe.weight"), "put", "tensor[8, 900]"), *put("config.model.n_embd", 900)]
)
@example("train --eval_only", "2.x", put("config.training.batch_size", 1e308))
@example("improvements_guide", "2.x", put("format_version", DEEP))
@example("improvements_guide", "2.x", put("format_version", "\x1b[2J"))
@example("improvements_guide", "2.x", put("format_version", "tensor[3]"))
@examples(100)
def test_every_command_accepts_any_contents_or_refuses_them_with_a_message(
    place: States, way: str, version: str, changes: list[Change]
) -> None:
    path, _ = lay(place[version], version, changes)
    main, arguments = WAYS[way]
    said = run(main, path, *arguments)
    assert "\x1b" not in said.err, said


@pytest.mark.parametrize("save", [save_format3, save_2x, save_v1])
def test_a_missing_number_of_heads_is_refused_and_not_guessed(save: Callable[..., Path]) -> None:
    """The weights fit every number that divides n_embd, so a wrong guess would load as another model."""
    path = Path("heads.pt")
    save(random_model(tiny_config(n_embd=12, n_head=2, vocab_size=50304)), path)
    where = ("model_args", "n_head") if save is save_v1 else ("config", "model", "n_head")
    state = changed(state_of(path), Change(where, "drop"))
    path.write_bytes(stamped(torch_bytes(state), state) if save is save_format3 else torch_bytes(state))
    with pytest.raises(UserError, match="n_head"):
        generation.load_model(path)


# --- bytes ------------------------------------------------------------------------------------------------------------------


class Edit(NamedTuple):
    """A change of some bytes; a negative `at` counts from the end."""

    how: str
    at: int
    more: int


EDITS: dict[str, Callable[[bytes, int, int], bytes]] = {
    "flip": lambda old, at, more: (
        old[:at] + bytes([old[at] ^ (1 << more % 8)]) + old[at + 1 :] if at < len(old) else old
    ),
    "cut": lambda old, at, more: old[:at],
    "leave out": lambda old, at, more: old[:at] + old[at + more :],
    "zeros": lambda old, at, more: old[:at] + bytes(len(old[at : at + more])) + old[at + more :],
    "insert": lambda old, at, more: old[:at] + bytes([more % 256]) * (more // 256 + 1) + old[at:],
    "double": lambda old, at, more: old[:at] + old[at : at + more] + old[at:],
    "swap": lambda old, at, more: (
        old[:at] + old[at + more : at + 2 * more] + old[at : at + more] + old[at + 2 * more :]
    ),
    "move": lambda old, at, more: old[at:] + old[:at],
}
some_places = st.integers(-400, 400) | st.integers(0, 1 << 16) | st.sampled_from([0, -1, -64, -76, -77, -137])
edit = st.builds(Edit, st.sampled_from([*EDITS]), some_places, st.integers(0, 100) | st.integers(0, 1 << 16))
many_edits = st.lists(edit, min_size=1, max_size=3)


def edited(content: bytes, edits: Sequence[Edit]) -> bytes:
    """The contents after all these edits."""
    for one in edits:
        at = one.at % (len(content) + 1)
        content = EDITS[one.how](content, at, one.more)
    return content


@pytest.fixture(scope="module")
def small(place: States) -> States:
    """The contents of a small checkpoint of every version: its vocabulary has only 64 tokens."""

    def fewer(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value[:64].clone() if value.dim() else value
        if isinstance(value, dict):
            return {key: fewer(entry) for key, entry in value.items()}
        return 64 if value == 50304 and type(value) is int else value

    return States((version, fewer(state) | {"rng": state.get("rng")}) for version, state in place.items())


def other_batch(state: State, batch: int) -> State:
    """The same run after another number of batches."""
    return state | {"batch_counter": batch, "loader": {"epoch": 0, "position": batch}}


@given(edits=many_edits)
@examples(150)
def test_a_checkpoint_with_changed_bytes_is_refused(small: States, edits: list[Edit]) -> None:
    content = stamped(torch_bytes(small["3"]), small["3"])
    path = Path("bytes.pt")
    path.write_bytes(edited(content, edits))
    with bounded(), contextlib.suppress(UserError):
        assert differences(load_checkpoint(path).state, small["3"]) == []
        assert path.read_bytes() == content


@given(edits=st.lists(st.lists(edit, max_size=2), min_size=3, max_size=3))
@examples(40)
def test_the_newest_valid_checkpoint_is_never_a_damaged_one(small: States, edits: list[list[Edit]]) -> None:
    """The last, the best and a numbered checkpoint are each damaged or not."""
    with new_folder() as folder:
        files = RunFiles(folder / "x.pt")
        states = {
            path: other_batch(small["3"], batch)
            for batch, path in enumerate((files.best, files.numbered(1), files.last))
        }
        intact = {path: stamped(torch_bytes(state), state) for path, state in states.items()}
        for (path, content), damage in zip(intact.items(), edits, strict=True):
            path.write_bytes(edited(content, damage))
        whole = [path for path, content in intact.items() if path.read_bytes() == content]
        with bounded():
            try:
                found = files.newest_valid()
            except UserError:
                assert whole == []
            else:
                assert found.path in whole
                assert differences(found.state, states[found.path]) == []


@given(version=st.sampled_from(VERSIONS[1:]), edits=many_edits)
@example("2.x", [Edit("move", 69, 69)])  # the archive's table of contents points before its beginning
@examples(100)
def test_an_older_checkpoint_with_changed_bytes_is_read_or_refused(
    small: States, version: str, edits: list[Edit]
) -> None:
    """Older checkpoints have no SHA-256, so a changed one may load."""
    path = Path("bytes.pt")
    path.write_bytes(edited(torch_bytes(small[version]), edits))
    with bounded(), contextlib.suppress(UserError):
        assert isinstance(load_checkpoint(path), Checkpoint)


@given(version=st.sampled_from(VERSIONS), edits=many_edits)
@examples(100)
def test_a_checkpoint_with_a_changed_pickle_is_read_or_refused(small: States, version: str, edits: list[Edit]) -> None:
    """The pickle's instructions are changed; the archive and the SHA-256 are valid."""
    path, state = Path("bytes.pt"), small[version]
    content = repacked(torch_bytes(state), lambda data: edited(data, edits))
    path.write_bytes(stamped(content, state) if version == "3" else content)
    with bounded(), contextlib.suppress(UserError):
        assert isinstance(load_checkpoint(path), Checkpoint)


# --- token caches -------------------------------------------------------------------------------------------------------------

RECORDS = [{"text": f"Story {n}: once upon a time there were {n} foxes."} for n in range(9)] + [
    {"messages": [{"role": "user", "content": "Hello"}]}
]
IDS = [[*GPT2.encode(record["text"]), EOT] for record in RECORDS[:-1]] + [
    [*GPT2.encode_chat(RECORDS[-1]["messages"]), EOT]
]
FACTS: dict[str, type] = {
    item.name: type(item.default) for item in dataclasses.fields(CacheManifest) if item.name != "format"
}
FACTS |= dict.fromkeys(("name", "split", "fingerprint", "dtype"), str) | {"format": int}
FACTS |= dict.fromkeys(("tokenizer", "rendering", "source", "tokenizer.special_tokens"), dict)
FACTS |= {
    "tokenizer.n_vocab": int,
    "tokenizer.name": str,
    "source.label": str,
    "source.sha256": str,
    "source.size": int,
}
FACTS |= {"source.mtime_ns": int, "rendering.parse_special": bool}
PLAIN = {kind: [v for v in values if not any(name in str(v) for name in ODD)] for kind, values in ALIKE.items()}
LIKELY_FACTS = [
    Change(tuple(where.split(".")), "put", value)
    for where, kind in FACTS.items()
    for value in [*PLAIN[kind], "<u4", "<u8", "<i2", "<f4", "00000000", 38, 76, 152, 10, 60_000, 10**6]
    if not isinstance(value, (tuple, bytes))
]
fact_change = st.sampled_from(LIKELY_FACTS) | st.builds(
    Change, st.sampled_from([tuple(name.split(".")) for name in FACTS]), st.just("drop"), st.none()
)


@contextlib.contextmanager
def small_cache() -> Iterator[tuple[Path, TokenCache]]:
    """A data set of ten documents and its cache."""
    with new_folder() as folder:
        path = folder / "tales-train.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
        cache = build(path, folder / "cache")
        yield path, cache


def read_alone(path: Path) -> list[list[int]] | None:
    """A cache's documents, read as training reads them, or None if the cache is refused."""
    try:
        cache = TokenCache(path)
        index = cache.index().tolist()
        assert index[0] == 0 and all(a < b for a, b in itertools.pairwise(index)) and index[-1] == cache.n_tokens
        documents = documents_of(cache)
        for seed in (0, None):
            loader = PackedLoader(cache, 8, 2, eot_id=EOT, seed=seed)
            for batch in range(loader.batches_per_epoch):
                ids = loader.batch(0, batch).inputs
                assert ids.min() >= 0 and ids.max() < max(cache.manifest.tokenizer["n_vocab"], EOT + 1)
        return documents
    except (ValueError, FileNotFoundError):  # as documented: UserError is a ValueError
        return None


@given(changes=st.lists(fact_change, min_size=1, max_size=3))
@example(put("tokenizer.n_vocab", 38))
@example(put("idx_crc32", "00000000"))
@examples(80)
def test_a_cache_with_a_changed_manifest_is_rebuilt(changes: list[Change]) -> None:
    """The manifest's own checksum is valid."""
    with small_cache() as (source, cache), bounded():
        values = dataclasses.asdict(cache.manifest)
        for one in changes:
            values = changed(values, one)
        cache.path.write_text(json.dumps(values | {"facts_sha256": digest_of(values)}), encoding="utf-8")
        alone = read_alone(cache.path)
        if alone is not None and all(
            values[k] == getattr(cache.manifest, k) for k in ("dtype", "n_tokens", "n_documents")
        ):
            assert alone == IDS
        assert documents_of(build(source, cache.path.parent)) == IDS


@given(damage=st.lists(st.tuples(st.sampled_from([".bin", ".idx", ".json"]), many_edits), min_size=1, max_size=3))
@examples(80)
def test_a_cache_with_changed_bytes_is_rebuilt(damage: list[tuple[str, list[Edit]]]) -> None:
    with small_cache() as (source, cache), bounded():
        for suffix, edits in damage:
            path = cache.path.with_suffix(suffix)
            path.write_bytes(edited(path.read_bytes(), edits))
        assert read_alone(cache.path) in (IDS, None)
        with kept_log():
            assert documents_of(build(source, cache.path.parent)) == IDS


@given(
    ids=st.lists(st.integers(0, 50258) | st.sampled_from([0, EOT, 50258, 50259, 65535]), max_size=40),
    offsets=st.lists(st.integers(0, 40) | st.sampled_from([2**32, 2**63, 2**64 - 1]), min_size=1, max_size=6),
    in_order=st.booleans(),
)
@examples(80)
def test_a_forged_cache_with_valid_checksums_is_read_or_refused(
    ids: list[int], offsets: list[int], in_order: bool
) -> None:
    with new_folder() as folder:
        if in_order:
            offsets = sorted({0, len(ids), *(offset for offset in offsets if offset < len(ids))})
        path = folder / f"tales-train-{'0' * 16}.json"
        np.array(ids, "<u2").tofile(path.with_suffix(".bin"))
        np.array(offsets, "<u8").tofile(path.with_suffix(".idx"))
        facts = CacheManifest(
            "tales", "train", "0" * 16, GPT2.definition(), {"parse_special": False}, {"label": "tales"}, "<u2",
            n_documents=len(offsets) - 1, n_tokens=len(ids),
            bin_crc32=checksums(path.with_suffix(".bin")), idx_crc32=checksums(path.with_suffix(".idx")),
        )  # fmt: skip
        path.write_text(facts.to_json(), encoding="utf-8")
        with bounded():
            documents = read_alone(path)
        if in_order and len(offsets) > 1 and max(ids, default=0) < GPT2.n_vocab:
            assert documents == [ids[a:b] for a, b in itertools.pairwise(offsets)]
        if documents is not None:
            assert list(itertools.chain(*documents)) == ids


@given(edits=many_edits, depth=st.integers(0, 1200) | st.none())
@examples(100)
def test_a_manifest_is_read_as_it_was_written_or_refused(edits: list[Edit], depth: int | None) -> None:
    facts = CacheManifest("a", "train", "0" * 16, GPT2.definition(), {}, {"label": "a"}, "<u2", idx_crc32="0" * 8)
    text = edited(facts.to_json().encode(), edits)
    if depth is not None:  # valid, except for one more entry
        text = facts.to_json().replace("{", '{"more": ' + "[" * depth + "]" * depth + ", ", 1).encode()
    with bounded(), contextlib.suppress(ValueError):
        assert CacheManifest.from_json(text.decode("utf-8")) == facts


# --- data sets ------------------------------------------------------------------------------------------------------------------

GOOD_LINES = [
    b'{"text": "Once upon a time."}',
    b'{"text": "<|im_start|>user\\nHi<|im_end|><|endoftext|>"}',
    '{"text": "é🎉\u2028 \\ud83c\\udf89 \\u0000\\n", "id": 7}'.encode(),
    b'{"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "<|im_end|>Hi", "n": 1.5}]}',
    b'{"conversation": [{"role": "<|im_start|>system", "content": ""}], "text": 5}',
    b'{"input": "What?", "output": "That."}',
    b'{"text": ""}',
]
LINE_PARTS = [
    b'"text"', b'"messages"', b'"conversation"', b'"input"', b'"output"', b'"role"', b'"content"', b"null", b"true", b"-0",
    b"NaN", b"Infinity", b"1e999", b"9" * 4301, b"[", b"]", b"{", b"}", b'"', b"\\", b",", b":", b"\\ud800", b"\\udc00\\ud800",
    b"\xed\xa0\x80", b"\xff", b"\0", b"\xef\xbb\xbf", b"\r", b"\x0b", b"\xc2\x85", b"\xe2\x80\xa8", b"//", b"{}", b"[]", b'""',
    *(token.encode() for token in LOOKALIKES),
]  # fmt: skip


@st.composite
def changed_lines(draw: st.DrawFn) -> bytes:
    """A valid line in which parts of other lines are inserted or replace some of its bytes."""
    line = draw(st.sampled_from(GOOD_LINES))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(line)))
        stop = draw(st.just(start) | st.integers(start, len(line)))
        line = line[:start] + draw(st.sampled_from([*LINE_PARTS, *GOOD_LINES, b""])) + line[stop:]
    return line


depths = st.integers(0, 30) | st.integers(850, 1050) | st.just(100_000)
deep_lines = st.builds(
    lambda depth, key: b'{"' + key + b'": ' + b"[" * depth + b"]" * depth + b', "text": "deep"}',
    depths, st.sampled_from([b"text", b"messages", b"more", b"id"]),
)  # fmt: skip
odd_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=6) | st.sampled_from([10**30, 10**4299, *STRINGS, *LOOKALIKES]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "text", "\ud800"]), inner),
    max_leaves=6,
)  # fmt: skip
odd_records = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(["text", "messages", "conversation", "input", "output"], odd_values)
)
lines = (
    st.sampled_from(GOOD_LINES) | changed_lines() | deep_lines | st.binary(max_size=30)
    | odd_records.map(lambda record: json.dumps(record).encode())
    | odd_records.map(lambda record: json.dumps(record, ensure_ascii=False).encode("utf-8", "surrogatepass"))
).map(lambda line: line.replace(b"\n", b" "))  # fmt: skip


def whole(text: str, mark: str) -> str:
    """Text with `mark` for every lone surrogate; surrogate pairs become one character."""
    joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return "".join(mark if "\ud800" <= c <= "\udfff" else c for c in joined)


def rendered(record: dict[str, Any], mark: str) -> str:
    """A valid record as text, with control tokens in their printed form."""
    if (turns := record_messages(record)) is None:
        return whole(record["text"], mark) + "<|endoftext|>"
    said = (f"<|im_start|>{whole(turn['role'], mark)}\n{whole(turn['content'], mark)}<|im_end|>\n" for turn in turns)
    return "".join(said) + "<|endoftext|>"


def control_tokens(record: dict[str, Any]) -> list[int]:
    """The control tokens that a record's structure adds."""
    return [START, END] * len(record_messages(record) or []) + [EOT]


def documents_in(lines: list[bytes]) -> tuple[list[list[int]], Encoded]:
    """The documents that training sees of these lines."""
    result = encoded(lines)
    ends = result.lengths.cumsum().tolist()
    return [result.ids[a:b].tolist() for a, b in itertools.pairwise([0, *ends])], result


@given(lines=st.lists(lines, max_size=4))
@example([b'{"text": "a\\ud800"}', b'{"text": ["a"]}', b'{"input": "\\udc00", "output": "<|im_end|>"}'])
@examples(150)
def test_every_line_becomes_its_document_or_is_counted_as_bad_or_empty(lines: list[bytes]) -> None:
    with bounded():
        alone = [documents_in([line]) for line in lines]
        documents, result = documents_in(lines)
    assert documents == [ids for one, _ in alone for ids in one]  # whatever the other lines are
    assert result.bad_lines == [(n, reason) for n, (_, one) in enumerate(alone, 1) for _, reason in one.bad_lines]
    assert all("\n" not in reason for _, reason in result.bad_lines)
    for line, (ids, one) in zip(lines, alone, strict=True):
        assert len(ids) + len(one.bad_lines) + one.empty == bool(line.strip())
        if ids:
            record = json.loads(line)
            assert GPT2.decode(ids[0], show_control=True) == rendered(record, "\ufffd")
            assert [i for i in ids[0] if i >= EOT] == control_tokens(record)


@given(lines=st.lists(lines.map(lambda line: line.replace(b"\0", b"")), max_size=4))  # prepare.py refuses NUL
@example([b'{"text": "a\\ud800"}', b'{"text": ["a"]}', b'{"input": "\\udc00", "output": "<|im_end|>"}'])
@examples(100)
def test_prepare_writes_what_training_would_read(lines: list[bytes]) -> None:
    """prepare.py and training refuse the same lines, and prepare.py does not change the others."""
    Path("lines.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    documents, result = documents_in(lines)
    problems = text_files.Problems(99)
    with bounded():
        records = list(text_files.read_records(Path("lines.jsonl"), text_files.TextOptions(), problems))
        digests = [dataset_files.digest(record) for record in records]
        written, again = documents_in([dataset_files.to_line(record) for record in records])
    assert problems.count == len(result.bad_lines) and not again.bad_lines
    assert all(0 <= digest < 2**64 for digest in digests)
    assert len(written) == len(documents)
    for record, ids, before in zip(records, written, documents, strict=True):
        assert GPT2.decode(ids, show_control=True) == rendered(record, "?")
        assert [i for i in ids if i >= EOT] == [i for i in before if i >= EOT] == control_tokens(record)


@given(
    lines=st.lists(lines, max_size=6),
    more=st.sampled_from(["", "a\n<|endoftext|>\nb\n", " \t\n", "\ufeffa\r\nb", "\x1c"]),
)
@examples(40)
def test_every_document_is_in_one_split_or_prepare_refuses_with_a_message(lines: list[bytes], more: str) -> None:
    for folder in ("input", "made"):
        shutil.rmtree(folder, ignore_errors=True)
    Path("input").mkdir()
    Path("input/lines.jsonl").write_bytes(b"\n".join(lines))
    Path("input/text.txt").write_text(more, encoding="utf-8", newline="")
    folders = ("--data.data_dir", "made/data", "--data.cache_dir", "made/cache")
    said = run(prepare.main, "--input", "input", "--name", "x", *folders, "--num_workers", "0")
    if said.code == 0:
        documents, _ = documents_in(lines)
        expected = [whole(GPT2.decode(ids, show_control=True).removesuffix("<|endoftext|>"), "?") for ids in documents]
        expected += list(text_files.split_text(more.removeprefix("\ufeff").replace("\r\n", "\n")))
        found = [
            GPT2.decode(ids, show_control=True).removesuffix("<|endoftext|>")
            for path in sorted(Path("made/cache").glob("*.json"))
            for ids in documents_of(TokenCache(path))
        ]
        lost = [text.replace("\ufffd", "?") for text in expected]
        if len(set(lost)) > 1:
            assert {text.replace("\ufffd", "?") for text in found} == set(lost)
            assert len(found) <= len(lost)  # exact duplicates are dropped
        else:  # the end of a single document is the validation split
            assert set("".join(lost)) - set(" \n") == set("".join(found)) - set(" \n")


@given(
    text=st.text(st.sampled_from("ab \t\n\r\x1c\u2028<|>é"), max_size=60),
    separator=st.sampled_from(["<|>", "", "a.b", "(", "é"]),
)
@examples(100)
def test_a_text_is_cut_at_its_separators_and_loses_nothing_else(text: str, separator: str) -> None:
    pieces = list(text_files.split_text(text, separator))
    assert all(piece == piece.strip() != "" for piece in pieces)
    kept = [line for line in text.split("\n") if line.strip(" \t") != separator]
    assert "".join("".join(pieces).split()) == "".join("".join(kept).split())


# --- metrics files ----------------------------------------------------------------------------------------------------------------


ROWS = b"".join(json.dumps({"step": n, "loss": 5.5, "lr": 0.01, "mfu": None}).encode() + b"\n" for n in range(1, 30))


@given(edits=st.lists(edit, max_size=3), odd=st.sampled_from(LINE_PARTS) | odd_values, step=st.integers(0, 31))
@example([], -math.inf, 5)
@example([], 10**400, 5)
@examples(100)
def test_a_metrics_file_with_any_contents_is_continued_after_the_step(edits: list[Edit], odd: Any, step: int) -> None:
    path = Path("x.metrics.jsonl")
    last = odd if isinstance(odd, bytes) else json.dumps(odd).encode()
    path.write_bytes(edited(ROWS, edits) + b'{"step": ' + last + b"}\n")
    before = path.read_bytes()
    with bounded(), contextlib.closing(MetricsFile(path, keep_until=step)) as rows:
        rows.append({"step": step + 1})
    *kept, end, after = path.read_bytes().split(b"\n")
    assert json.loads(end) == {"step": step + 1} and not after
    steps = [json.loads(line)["step"] for line in kept]
    assert set(kept) <= set(before.split(b"\n")) and steps == sorted({*steps} & {*range(1, step + 1)})


# --- configs --------------------------------------------------------------------------------------------------------------------

CONFIGS = [(ROOT / "configs" / name).read_text(encoding="utf-8") for name in ("default.json", "story-small.json")]
CONFIGS += [json.dumps(Config().to_dict(), indent=1), json.dumps({"extends": "default.json"}), "{}"]
JSON_PARTS = [
    *(part.decode("utf-8", "replace") for part in LINE_PARTS), *(f'"{name}"' for name in SECTIONS), "\ud800", "/*", "\n", "\x1b",
    '"extends": "mine.json",', '"extends": "default.json"', '"extends": ".",', '"extends": "\\ud800",', '"extends": "a\\u0000b",',
    '"n_layer": 2,', '"model": {},', "999999999999", "1e308", "-1", "0", "1.0", "0.5", "1e-400", "6", "true", "false", "null",
    "1" + "0" * 308, "1e18", '"\\u001b[2J"', '"' + "x" * 300 + '"', "\u2028", "é", '{"a":' * 3000, "[" * 3000,
]  # fmt: skip


@st.composite
def config_texts(draw: st.DrawFn) -> str:
    """A config's text with parts inserted or replaced, often whole words."""
    text = draw(st.sampled_from(CONFIGS))
    for _ in range(draw(st.integers(0, 3))):
        words = [match.span() for match in re.finditer(r'"[^"\n]*"|[-+.\w]+|[{}\[\]:,]', text)] or [(0, 0)]
        start, stop = draw(st.sampled_from(words) | st.tuples(*[st.integers(0, len(text))] * 2).map(sorted))
        text = text[:start] + draw(st.sampled_from(JSON_PARTS)) + text[draw(st.sampled_from([start, stop])) :]
    return text


LIKELY_OPTIONS = [
    (n, v) for n, o in OPTIONS.items() for v in [*PLAIN[o.type], 2, "a"] if not isinstance(v, (bytes, tuple))
]
option_values = st.sampled_from(LIKELY_OPTIONS) | st.tuples(st.sampled_from([*OPTIONS]), odd_values)


@st.composite
def config_values(draw: st.DrawFn) -> str:
    """A config with odd values for a few options."""
    values: dict[str, Any] = {"extends": draw(st.just("default.json") | st.sampled_from(STRINGS))}
    for name, value in draw(option_values.map(lambda one: [one]) | st.lists(option_values, min_size=1, max_size=3)):
        section, key = name.split(".")
        values.setdefault(section, {})[key] = value
    return json.dumps(values, ensure_ascii=draw(st.booleans()))


some_configs = st.tuples(
    config_texts() | config_values(), st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16"])
)


def lay_config(text: str, encoding: str) -> Path:
    """Writes configs/mine.json, and configs/default.json, which it may extend."""
    Path("configs").mkdir(exist_ok=True)
    Path("configs/default.json").write_text(CONFIGS[0], encoding="utf-8")
    Path("configs/mine.json").write_bytes(text.encode(encoding, "surrogatepass"))
    return Path("configs/mine.json")


@given(content=some_configs)
@example(('{"extends": "\\ud800"}', "utf-8"))
@example(('{"model": {"n_embd": 1000000000000000003, "n_head": 500000000000000000}}', "utf-8"))  # a prime number
@examples(200)
def test_any_config_file_is_read_exactly_or_refused_with_a_message(content: tuple[str, str]) -> None:
    path = lay_config(*content)
    with bounded():
        try:
            config, sources = resolve(file_layers(path))
        except (UserError, OSError) as error:  # OSError: for example if a file name is too long
            assert len(str(error)) > 10
            return
        assert Config.from_dict(config.to_dict()) == config
        assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    if "//" not in content[0]:
        given_values = json.loads(path.read_bytes())
        for name, source in sources.items():
            if source == str(path):
                section, key = name.split(".")
                value, written = config.get(name), given_values[section][key]
                assert value == (float(written) if isinstance(value, float) else written)
                assert isinstance(value, bool) == isinstance(written, bool)


@given(content=some_configs)
@example(('{"data": {"cache_dir": "\\ud800", "dataset_name": "mine"}}', "utf-8"))
@example(('{"training": {"max_epochs": 1e308}}', "utf-8"))
@example(('{"training": {"batch_size": %s}}' % ("9" * 4299), "utf-8"))
@examples(40)
def test_any_config_file_gives_a_config_table_or_an_error_message(content: tuple[str, str]) -> None:
    path, saved = lay_config(*content), Path("saved.json")
    saved.unlink(missing_ok=True)
    said = run(train.main, "--config", str(path), "--show_config", "--save_config", str(saved))
    assert said.code == 1 or "[what follows]" in said.out
    if said.code == 0:
        again = run(train.main, "--config", str(saved), "--show_config")
        assert again.code == 0
        assert again.out.partition("[what follows]")[2] == said.out.partition("[what follows]")[2]


# --- command lines ----------------------------------------------------------------------------------------------------------------

# What a command line can contain: no NUL, and only those lone surrogates that stand for bytes that are not UTF-8.
# There are no absolute paths, because the commands would write there.
WORDS = [text for text in STRINGS if "\0" not in text and "\ud800" not in text and text != DEEP]
WORDS += [str(number) for number in [*NUMBERS, *HUGE]]
WORDS += [
    "-nan", "1_0", "１", "0x10", "1e5", "true", "~nobody/x", "-", "--", "--=", OTHER, "data", "data/mine-train.jsonl", "models",
    "missing.pt", "**", "[a", "?", "x-y", "a/b", "a//b", "./x", "x/",
]  # fmt: skip
words = st.sampled_from(WORDS) | st.text(st.characters(codec="utf-8", exclude_characters="\0/~"), max_size=5)


def flags_of(parser: Parser, *without: str) -> list[str]:
    """The flags that a parser knows."""
    without = ("--debug", *without)  # --debug shows tracebacks
    return [flag for action in parser._actions for flag in action.option_strings if flag not in without]


def command_lines(known: list[str]) -> st.SearchStrategy[list[str]]:
    """Command lines of these flags, with any values or none, and sometimes with other words."""
    flags = st.sampled_from(known)
    one = st.one_of(
        flags.map(lambda flag: [flag]),
        st.tuples(flags, words).map(list),
        st.tuples(flags, words).map(lambda pair: [f"{pair[0]}={pair[1]}"]),
        st.tuples(flags.map(lambda flag: flag[:-1]), words).map(list),
        words.map(lambda word: [word]),
    )
    return one | st.lists(one, max_size=4).map(joined)


def joined(parts: list[list[str]]) -> list[str]:
    return [word for part in parts for word in part]


def numbers_for(*flags: str) -> st.SearchStrategy[list[str]]:
    """One of these flags with a number."""
    likely = [[f"{flag}={number}"] for flag in flags for number in [*NUMBERS, *HUGE]]
    return st.sampled_from(likely) | st.tuples(st.sampled_from(flags), st.floats()).map(
        lambda pair: [f"{pair[0]}={pair[1]}"]
    )


GEN = [OTHER, *MACHINE, "--max_tokens", "3", "--prompt", "Once"]
VERIFY = ["--data.data_dir", "made", "--data.cache_dir", "cache", "--num_workers", "0", "--verify"]
PREPARE = [*VERIFY[:-1], "--input", "data", "--name", "x"]


def test_the_commands_work_before_flags_are_added(place: States) -> None:
    lay(place["2.x"], "2.x", [])
    for main, arguments in ((gen.main, GEN), (prepare.main, VERIFY), (prepare.main, PREPARE), (train.main, FLAGS)):
        assert run(main, *arguments).code == 0
    assert run(improvements_guide.main).out.startswith("'models/mine_epoch1.pt' was written by this version")


sampling = numbers_for(
    "--temp", "--top_k", "--top_p", "--repetition_penalty", "--seed", "--max_tokens", "--num_samples"
)


@given(arguments=sampling | st.lists(sampling, max_size=3).map(joined) | command_lines(flags_of(gen.build_parser())))
@example(["--temp=1e-320"])
@example(["--top_p=1e-46"])
@example(["--repetition_penalty=1e-320"])
@example([f"--num_samples={2**63}"])
@example(["--prompt_file=--"])
@examples(150)
def test_any_flags_of_gen_give_text_or_an_error_message(place: States, arguments: list[str]) -> None:
    lay(place["2.x"], "2.x", [])
    run(gen.main, *GEN, *arguments)


@given(arguments=command_lines(flags_of(prepare.build_parser())), verify=st.booleans())
@example(["--data.cache_dir=--"], False)
@example(["--name", "**"], True)
@example(["--name", "/x"], True)
@examples(80)
def test_any_flags_of_prepare_give_a_data_set_or_an_error_message(arguments: list[str], verify: bool) -> None:
    clean_up()
    run(prepare.main, *(VERIFY if verify else PREPARE), *arguments)


OF_OPTIONS = [f"--{name}" for name in OPTIONS] + [*ALIASES]
run_flags = flags_of(build_parser(), "--init_from", *OF_OPTIONS)  # --init_from would ask the Hub


@given(arguments=command_lines(run_flags))
@example(["--config=--"])
@example(["--dataset=--"])
@examples(60)
def test_any_flags_of_train_give_a_run_or_an_error_message(place: States, arguments: list[str]) -> None:
    lay(place["2.x"], "2.x", [])
    run(train.main, *FLAGS, *arguments, "--max_iters", "1")


asked = [name for name, opt in OPTIONS.items() if opt.type in (int, float)]


@given(arguments=numbers_for(*(f"--{name}" for name in asked)))
@example([f"--model.n_embd={2**63}"])
@example([f"--model.n_embd={2**62}"])
@example([f"--training.batch_size={2**60}"])
@example([f"--training.batch_size={2**63}"])
@example([f"--training.batch_size={10**400}"])
@example([f"--training.gradient_accumulation_steps={2**64}"])
@example([f"--training.gradient_accumulation_steps={10**400}"])
@example(["--system.peak_flops=1e-320"])
@examples(60)
def test_any_number_in_an_option_trains_or_gives_an_error_message(place: States, arguments: list[str]) -> None:
    """Trains one batch, if the number allows it."""
    lay(place["2.x"], "2.x", [])
    run(train.main, *FLAGS, *arguments, "--max_iters", "1", "--model.dropout=0.1")
