"""Tests of hostile files: every command refuses them in one sentence, and no code in them is run."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import tarfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers_cli import kept_log
from helpers_data import checksums
from helpers_run import TINY, settle, snapshot, state_of
from hostile_files import (
    CHECKPOINTS,
    EXTRACTED,
    MODULE,
    OTHER_FILES,
    SETITEM,
    Innocent,
    command,
    members,
    name,
    saved,
    stamped,
    text,
)

import gen
import prepare
import train
from jojo.checkpoints import file as checkpoint_file
from jojo.checkpoints.file import read_stamp
from jojo.command import run_command
from jojo.text import cache_builder
from jojo.text.token_cache import CacheManifest

ROOT = Path(__file__).resolve().parents[2]
Capsys = pytest.CaptureFixture[str]
Main = Callable[[list[str]], int]

# The smallest model there is: its checkpoints are read hundreds of times.
FLAGS = [*TINY, "--model.n_embd", "2", "--model.n_head", "1", "--model.block_size", "8", "--max_iters", "2"]
TALK = ["--max_tokens", "1", "--seed", "1", "--device", "cpu", "--dtype", "float32"]
FILE = "models/mine_epoch1.pt"


# --- the folder of all tests ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Place:
    """A folder with a data set, and the files of a good run of two batches."""

    folder: Path
    good: Innocent  # models/mine_epoch1.pt
    older: bytes  # models/mine_epoch1_batch1.pt
    caches: dict[str, bytes]
    run_id: str
    mark: Path  # the file that exists after code of any hostile file was run
    contents: dict[str, bytes]  # of every hostile checkpoint

    def lay(self, kind: str, with_stamp: bool, path: str = FILE) -> None:
        """Writes a hostile checkpoint in place of the run's last one; with a stamp it is the newest."""
        content = self.contents[kind]
        Path(path).write_bytes(stamped(content, self.run_id, 2) if with_stamp else content)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The current folder of all tests here. It is also on sys.path, as the folder of a script is."""
    folder = tmp_path_factory.mktemp("deep") / "er" / "place"  # so deep that a file written outside is still found
    folder.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch, kept_log():
        settle(folder, patch)
        patch.syspath_prepend(folder)
        assert train.main([*FLAGS, "--checkpoint_interval", "1"]) == 0
        good, older = Innocent(state_of(FILE)), Path("models/mine_epoch1_batch1.pt").read_bytes()
        mark = folder / "mark"
        contents = {name: kind.build(good, mark) for name, kind in CHECKPOINTS.items()}
        yield Place(folder, good, older, snapshot("cache"), good.state["metadata"]["run_id"], mark, contents)


@pytest.fixture
def place(shared: Place) -> Iterator[Place]:
    """The same folder without models. A test fails if it ran, imported, extracted or allowed something."""
    shutil.rmtree("models")
    Path("models").mkdir()
    allowed = torch.serialization.get_safe_globals()
    yield shared
    done = {
        "run": shared.mark.exists(),
        "imported": MODULE in sys.modules,
        "allowed": os.system in torch.serialization.get_safe_globals(),
        "extracted": list(shared.folder.parents[1].rglob(EXTRACTED)),
    }
    undo(shared, allowed)
    for path in done["extracted"]:
        path.unlink()
    assert not any(done.values()), done


def undo(place: Place, allowed: list[Any]) -> None:
    """Undoes what a hostile file did, for the next test."""
    place.mark.unlink(missing_ok=True)
    sys.modules.pop(MODULE, None)
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(allowed)


@dataclass
class Watch:
    """Records how files were read."""

    reads: list[Path] = field(default_factory=list)  # checkpoints
    careless: list[str] = field(default_factory=list)  # calls that could run code in a file

    def assert_careful(self) -> None:
        """Every checkpoint was read at most once, and nothing was unpickled by anybody else."""
        assert self.careless == []
        assert max(Counter(self.reads).values(), default=0) <= 1


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Records which checkpoints are read, and calls of functions that could run code in a file."""
    watch, read = Watch(), checkpoint_file.read_plain

    def watched(path: Path, mapped: bool) -> Any:
        watch.reads.append(path)
        return read(path, mapped)

    monkeypatch.setattr(checkpoint_file, "read_plain", watched)
    for module, function in ((pickle, "load"), (pickle, "loads"), (torch, "load"), (torch.jit, "load"), (np, "load")):
        called = f"{module.__name__}.{function}"
        monkeypatch.setattr(module, function, lambda *_, called=called, **__: watch.careless.append(called))

    class Popen(subprocess.Popen):  # the mark that it makes would come late
        def __init__(self, *arguments: Any, **options: Any) -> None:
            watch.careless.append("subprocess.Popen")
            super().__init__(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", Popen)
    return watch


@dataclass
class Said:
    """The exit code of a command, and the lines on its stderr, Python's warnings included."""

    code: int
    lines: list[str]
    out: str = ""  # on stdout

    @property
    def unprintable(self) -> list[str]:
        """Lines of both streams with a character that is not printable."""
        return [line for line in [*self.lines, *self.out.split("\n")] if not line.isprintable()]

    def assert_refused(self, *words: str) -> None:
        """The output is one sentence that contains these words."""
        assert self.code == 1
        assert len(self.lines) == 1, self.lines
        assert self.lines[0].startswith("error: ") and self.lines[0].endswith(".") and self.lines[0].isprintable()
        for word in words:
            assert word in self.lines[0]

    def assert_explained(self, *words: str) -> None:
        """The output is some warnings, or none, and then an error. These words are in it."""
        assert self.code == 1
        assert [line.partition(": ")[0] for line in self.lines] == ["warning"] * (len(self.lines) - 1) + ["error"]
        assert all(line.isprintable() and len(line) < 500 for line in self.lines)
        for word in words:
            assert word in "\n".join(self.lines)


def run(capsys: Capsys, main: Main, *arguments: str) -> Said:
    """Runs a command as the command line does. An exception that is not meant for the user (a bug) is raised."""
    capsys.readouterr()
    with kept_log(), warnings.catch_warnings(record=True) as warned, pytest.raises(SystemExit) as stopped:
        warnings.resetwarnings()  # Python's default: all are shown except for these
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)
        run_command(main, list(arguments))
    shown = [warnings.formatwarning(w.message, w.category, w.filename, w.lineno) for w in warned]
    out, err = capsys.readouterr()
    return Said(stopped.value.code, (err + "".join(shown)).splitlines(), out)


# --- commands that read a checkpoint --------------------------------------------------------------------------------------


WAYS_IN: dict[str, tuple[Main, list[str]]] = {
    "train --checkpoint": (train.main, [*FLAGS, "--checkpoint", FILE]),
    "train --resume PATH": (train.main, ["--resume", FILE]),
    "train --resume": (train.main, [*FLAGS, "--resume"]),
    "train --load_model_only": (train.main, [*FLAGS, "--load_model_only", FILE]),
    "gen PATH": (gen.main, [FILE, *TALK]),
    "gen": (gen.main, TALK),
}


@pytest.mark.parametrize("way", WAYS_IN)
def test_the_good_checkpoint_that_hostile_ones_start_from_is_accepted(place: Place, capsys: Capsys, way: str) -> None:
    """Otherwise the errors in the tests below would prove nothing."""
    Path(FILE).write_bytes(stamped(place.good.file, place.run_id, 2))
    main, arguments = WAYS_IN[way]
    assert run(capsys, main, *arguments).code == 0


@pytest.mark.parametrize("kind", CHECKPOINTS)
@pytest.mark.parametrize("way", WAYS_IN)
def test_a_hostile_checkpoint_is_refused_in_one_sentence_and_nothing_is_run(
    place: Place, watch: Watch, capsys: Capsys, way: str, kind: str
) -> None:
    main, arguments = WAYS_IN[way]
    for with_stamp in (True, False):
        place.lay(kind, with_stamp)
        watch.reads.clear()
        said = run(capsys, main, *arguments)
        watch.assert_careful()
        said.assert_refused(FILE, CHECKPOINTS[kind].culprit or "")
        assert list(Path("models").rglob("*.pt")) == [Path(FILE)]


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_resume_skips_a_hostile_newest_checkpoint_with_a_warning(
    place: Place, watch: Watch, capsys: Capsys, kind: str
) -> None:
    older = "models/mine_epoch1_batch1.pt"
    place.lay(kind, with_stamp=True)
    Path(older).write_bytes(place.older)
    said = run(capsys, train.main, *FLAGS, "--resume", "--show_config")
    watch.assert_careful()
    assert said.code == 0
    assert len(said.lines) == 2, said.lines
    assert said.lines[0].startswith("warning: ") and FILE in said.lines[0] and said.lines[0].isprintable()
    assert (CHECKPOINTS[kind].culprit or "") in said.lines[0]
    assert said.lines[1] == f"warning: Continuing from '{older}' instead."


def test_a_run_that_skipped_a_hostile_checkpoint_ends_with_the_same_weights(place: Place, capsys: Capsys) -> None:
    place.lay("os.system", with_stamp=True)
    Path("models/mine_epoch1_batch1.pt").write_bytes(place.older)
    assert run(capsys, train.main, *FLAGS, "--resume").code == 0
    assert read_stamp(Path(FILE)).batch == 2
    for weight, tensor in state_of(FILE)["model"].items():
        assert torch.equal(tensor, place.good.state["model"][weight])


# --- the hostile files are hostile ------------------------------------------------------------------------------------------


class Careless(pickle.Unpickler):
    """Python's own unpickler, with zeros in place of every storage."""

    def persistent_load(self, pid: Any) -> Any:
        return torch.zeros(pid[4])._typed_storage()


def unpickle(stream: bytes) -> None:
    """Unpickles one pickle after another without any checks, until one fails."""
    file = io.BytesIO(stream)
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while True:
            result = Careless(file).load()
            process = result.get("extra") if isinstance(result, dict) else None
            if isinstance(process, subprocess.Popen):
                process.wait()


def pickles_in(content: bytes) -> Iterator[bytes]:
    """Every pickle in a file of any format."""
    if content.startswith(b"PK"):
        yield from (data for member, data in members(content) if member.endswith(".pkl"))
    elif content.startswith(b"\x93NUMPY"):
        file = io.BytesIO(content)
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        yield file.read()
    elif content[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            yield from (archive.extractfile(member).read() for member in archive)
    else:
        yield content


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_a_hostile_checkpoint_runs_its_code_if_it_is_unpickled_without_checks(shared: Place, kind: str) -> None:
    """Otherwise it would prove nothing that no code is run in the other tests."""
    content, allowed = shared.contents[kind], torch.serialization.get_safe_globals()
    for file in (content, stamped(content, shared.run_id, 2)):
        try:
            for stream in pickles_in(file):
                unpickle(stream)
            assert shared.mark.exists()
        finally:
            undo(shared, allowed)


@pytest.mark.parametrize("kind", OTHER_FILES)
def test_a_hostile_cache_or_config_runs_its_code_if_it_is_read_without_checks(shared: Place, kind: str) -> None:
    content = OTHER_FILES[kind](shared.mark)
    if kind == "Python code":
        exec(content, {})
    else:
        for stream in pickles_in(content):
            unpickle(stream)
    assert shared.mark.exists()
    shared.mark.unlink()


# --- text in error messages -------------------------------------------------------------------------------------------------

PAINT = "\x1b]0;owned\x07\x1b[2J\x1b[32m"  # a terminal's title, an empty screen, green
EVIL_TEXT = f"fine\n{PAINT}error: everything is fine"


def with_key(place: Place, key: str) -> bytes:
    state = place.good.plus(**{key: 1})
    del state["model"]
    return saved(state)


def with_weight(place: Place, weight: str) -> bytes:
    state = place.good.plus()
    state["model"][weight] = torch.zeros(2)
    return saved(state)


def with_tokenizer(place: Place, title: str) -> bytes:
    return saved(place.good.plus(tokenizer={"name": title, "n_vocab": title}))


def with_option(place: Place, value: str) -> bytes:
    state = place.good.plus()
    state["config"]["model"]["n_layer"] = value
    return saved(state)


NAMING: dict[str, Callable[[Place, str], bytes]] = {
    "a global": lambda place, words: place.good.with_item(name(words.replace("\n", ""), "x")),
    "an entry": with_key,
    "a weight": with_weight,
    "the format": lambda place, words: saved(place.good.plus(format_version=words)),
    "the tokenizer": with_tokenizer,
    "an option": with_option,
}


@pytest.mark.parametrize("words", [EVIL_TEXT, "x" * 5_000], ids=["for the terminal", "without an end"])
@pytest.mark.parametrize("what", NAMING)
def test_names_inside_a_checkpoint_cannot_control_the_terminal(
    place: Place, capsys: Capsys, what: str, words: str
) -> None:
    Path(FILE).write_bytes(stamped(NAMING[what](place, words), place.run_id, 2))
    said = run(capsys, gen.main, FILE, *TALK)
    said.assert_refused(FILE)
    assert len(said.lines[0]) < 1000


def texts(value: Any, where: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The keys that lead to every text in nested dictionaries, and to a new key in every dictionary."""
    if isinstance(value, dict):
        yield (*where, EVIL_TEXT)
        for key, entry in value.items():
            yield from texts(entry, (*where, key))
    elif isinstance(value, str):
        yield where


def with_text(place: Place, where: tuple[str, ...]) -> bytes:
    state = inner = place.good.plus()
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = EVIL_TEXT
    return saved(state)


def test_no_text_in_a_checkpoint_can_control_the_terminal(place: Place, capsys: Capsys) -> None:
    """Every text, and a new key in every dictionary: refused or accepted, it is never printed as it is."""
    ways = list(texts({key: value for key, value in place.good.state.items() if key not in ("model", "optimizer")}))
    assert {("metadata", "run"), ("config", "data", "data_dir"), ("config", "model", EVIL_TEXT)} <= set(ways)
    shown = []
    for where in ways:
        Path(FILE).write_bytes(stamped(with_text(place, where), place.run_id, 2))
        for command_line in (["--resume", FILE], [*FLAGS, "--load_model_only", FILE]):
            said = run(capsys, train.main, *command_line, "--show_config")
            shown += [f"{command_line[0]}, {'/'.join(map(repr, where))}: {line!r}" for line in said.unprintable]
    for folder in Path().glob("fine*"):  # from data.cache_dir
        shutil.rmtree(folder)
    assert not shown, "\n".join(shown)


# --- a checkpoint that says where to write -----------------------------------------------------------------------------------


@pytest.mark.parametrize("run_name", ["../../escaped", "/absolute/escaped", "sub/escaped", "", ".", "a\0b"])
def test_a_checkpoint_cannot_choose_where_its_run_is_written(place: Place, capsys: Capsys, run_name: str) -> None:
    """The name of the run in a checkpoint becomes part of file names."""
    above = place.folder.parents[1]
    if run_name.startswith("/"):
        run_name = str(above / "absolute" / "escaped")
    state = place.good.plus()
    state["metadata"]["run"] = run_name
    Path(FILE).write_bytes(stamped(saved(state), place.run_id, 2))
    before = {path for path in above.rglob("*") if Path("models").resolve() not in path.parents}
    try:
        said = run(capsys, train.main, "--resume", FILE, "--max_iters", "3")
        after = {path for path in above.rglob("*") if Path("models").resolve() not in path.parents}
        assert after == before
        if said.code:
            said.assert_refused(FILE)
    finally:
        for path in above.rglob("*escaped*"):
            path.unlink()


def test_a_model_is_compared_with_the_files_weights_before_it_is_built(
    place: Place, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model of a billion layers would take all memory before the first missing weight is noticed."""
    import model

    built, plain = [], model.Block.__init__

    def build(self: Any, *arguments: Any) -> None:
        built.append(1)
        if len(built) > 8:
            raise RuntimeError("out of memory")
        plain(self, *arguments)

    monkeypatch.setattr(model.Block, "__init__", build)
    state = place.good.plus()
    state["config"]["model"]["n_layer"] = 1_000_000_000
    Path(FILE).write_bytes(stamped(saved(state), place.run_id, 2))
    run(capsys, gen.main, FILE, *TALK).assert_refused(FILE)


def test_a_deeply_nested_option_is_refused(place: Place, capsys: Capsys) -> None:
    """Unpickling it needs no recursion, so it is loaded; the code that checks it must not recurse either."""
    config = {section: entries for section, entries in place.good.state["config"].items() if section != "model"}
    shape = {key: value for key, value in place.good.state["config"]["model"].items() if key != "n_layer"}
    deep = b"]" * 100_000 + b"a" * 99_999
    model = pickle.dumps(shape, 2)[2:-1] + text("n_layer") + deep + SETITEM
    code = pickle.dumps(config, 2)[2:-1] + text("model") + model + SETITEM
    content = place.good.repacked(place.good.pickle_with(code, key="config"))
    Path(FILE).write_bytes(stamped(content, place.run_id, 2))
    run(capsys, gen.main, FILE, *TALK).assert_refused(FILE)


# --- token caches, data, configs ----------------------------------------------------------------------------------------------


@pytest.fixture
def caches(place: Place) -> Iterator[Path]:
    """Restores the good run's token caches, and yields the path of the training split's manifest."""
    cache_builder.warn_once.cache_clear()  # so that every test warns again
    yield lay_caches(place)
    lay_caches(place)


def lay_caches(place: Place) -> Path:
    shutil.rmtree("cache")
    Path("cache").mkdir()
    for file, content in place.caches.items():
        (Path("cache") / file).write_bytes(content)
    return next(Path("cache").glob("mine-train-*.json"))


ONE_BATCH = [*FLAGS, "--max_iters", "1", "--eval_interval", "0", "--training.save_checkpoints", "false"]
WITH_ITS_DATA = [True, False]


@contextlib.contextmanager
def hidden(path: Path, really: bool = True) -> Iterator[None]:
    """Moves this file away for a while."""
    aside = path.with_suffix(".aside")
    if really:
        path.rename(aside)
    try:
        yield
    finally:
        if really:
            aside.rename(path)


def assert_cache_is_rejected(place: Place, capsys: Capsys, path: Path, has_data: bool) -> None:
    """Training names the cache in a message, and builds it again or, without its data, fails."""
    with hidden(Path("data/mine-train.jsonl"), not has_data):
        said = run(capsys, train.main, *ONE_BATCH)
    if has_data and not said.code:
        assert all(line.startswith("warning: ") and line.isprintable() for line in said.lines)
        assert [line for line in said.lines if path.stem in line], said.lines
        assert snapshot("cache") == place.caches
    else:
        said.assert_explained(path.stem)


@pytest.mark.parametrize("has_data", WITH_ITS_DATA, ids=["with its data", "alone"])
@pytest.mark.parametrize("as_long", [False, True], ids=["", "of the same length"])
@pytest.mark.parametrize("suffix", [".json", ".bin", ".idx"])
@pytest.mark.parametrize("kind", OTHER_FILES)
def test_a_hostile_cache_is_rejected_and_nothing_is_run(
    place: Place, watch: Watch, capsys: Capsys, caches: Path, kind: str, suffix: str, as_long: bool, has_data: bool
) -> None:
    path, content = caches.with_suffix(suffix), OTHER_FILES[kind](place.mark)
    size = len(place.caches[path.name])
    path.write_bytes(content.ljust(size, b"\n")[:size] if as_long else content)
    run(capsys, prepare.main, "--verify").assert_explained(caches.stem)
    assert_cache_is_rejected(place, capsys, path, has_data)
    watch.assert_careful()


def signed(facts: Path, **changes: Any) -> None:
    """Changes a manifest, and gives it a valid checksum, which anybody can compute."""
    values = CacheManifest.from_json(facts.read_text(encoding="utf-8"))
    for key, value in changes.items():
        setattr(values, key, value)
    facts.write_text(values.to_json(), encoding="utf-8")


EVIL_FACTS: dict[str, dict[str, Any]] = {
    "objects": {"dtype": "O"},
    "pointers": {"dtype": "|O8"},
    "a type of structures": {"dtype": [["a", "<u2"]]},
    "a type of no bytes": {"dtype": "V0"},
    "floating-point ids": {"dtype": "<f2"},
    "fewer than no tokens": {"n_tokens": -1},
    "more tokens than there are": {"n_tokens": 2**62},
    "a word for a count": {"n_documents": "many"},
    "a list for a count": {"n_tokens": [1]},
    "half a document": {"n_documents": 1.5},
    "no checksums": {"bin_crc32": "", "idx_crc32": ""},
    "a list of checksums": {"bin_crc32": [1, 2, 3, 4, 5, 6, 7, 8]},
    "no checksum at all": {"idx_crc32": None},
    "a source that is a word": {"source": "label sha256 size mtime_ns"},
    "a source that is nothing": {"source": None},
}


@pytest.mark.parametrize("has_data", WITH_ITS_DATA, ids=["with its data", "alone"])
@pytest.mark.parametrize("kind", EVIL_FACTS)
def test_a_manifest_with_a_valid_checksum_and_impossible_values_is_rejected(
    place: Place, capsys: Capsys, caches: Path, kind: str, has_data: bool
) -> None:
    signed(caches, **EVIL_FACTS[kind])
    run(capsys, prepare.main, "--verify").assert_explained(caches.stem)
    assert_cache_is_rejected(place, capsys, caches, has_data)


def with_valid_checksum(facts: Path, suffix: str, content: bytes) -> None:
    """Writes contents into a cache, and their checksums into its manifest."""
    path = facts.with_suffix(suffix)
    path.write_bytes(content)
    signed(facts, **{f"{suffix[1:]}_crc32": checksums(path)})


EVIL_CONTENTS: dict[str, tuple[str, Callable[[int], bytes]]] = {  # from the size
    "ids that no tokenizer has": (".bin", lambda size: b"\xff" * size),
    "documents that begin nowhere": (".idx", lambda size: b"\xff" * size),
    "documents without tokens": (".idx", lambda size: b"\0" * size),
    "documents that begin in any order": (".idx", lambda size: np.arange(size // 8, dtype="<u8")[::-1].tobytes()),
}


@pytest.mark.parametrize("has_data", WITH_ITS_DATA, ids=["with its data", "alone"])
@pytest.mark.parametrize("kind", EVIL_CONTENTS)
def test_impossible_contents_with_valid_checksums_are_rejected(
    place: Place, capsys: Capsys, caches: Path, kind: str, has_data: bool
) -> None:
    suffix, contents = EVIL_CONTENTS[kind]
    with_valid_checksum(caches, suffix, contents(len(place.caches[caches.with_suffix(suffix).name])))
    assert_cache_is_rejected(place, capsys, caches, has_data)


@pytest.mark.parametrize("has_data", WITH_ITS_DATA, ids=["with its data", "alone"])
def test_a_deeply_nested_manifest_is_rejected(place: Place, capsys: Capsys, caches: Path, has_data: bool) -> None:
    caches.write_text("[" * 200_000, encoding="utf-8")
    run(capsys, prepare.main, "--verify").assert_explained(caches.stem)
    assert_cache_is_rejected(place, capsys, caches, has_data)


@pytest.mark.parametrize("kind", OTHER_FILES)
def test_a_data_set_that_is_code_is_refused(place: Place, watch: Watch, capsys: Capsys, kind: str) -> None:
    path = Path("data/evil-train.jsonl")
    path.write_bytes(OTHER_FILES[kind](place.mark))
    said = run(capsys, train.main, *FLAGS, "--dataset", "evil")
    watch.assert_careful()
    assert said.code == 1
    assert said.lines[-1].startswith("error: ") and str(path) in said.lines[-1]
    assert all(line.startswith("warning: ") and str(path) in line for line in said.lines[:-1])
    assert said.unprintable == []


@pytest.mark.parametrize(
    "record",
    [
        {"messages": [{"role": EVIL_TEXT, "content": "x"}]},
        {"messages": [{"role": "user", EVIL_TEXT: "x"}]},
        {"messages": EVIL_TEXT},
        {"input": "x", EVIL_TEXT: "y"},
        {EVIL_TEXT: "x"},
        {"text": [EVIL_TEXT]},
        [EVIL_TEXT],
    ],
    ids=["role", "key of a message", "messages", "key", "only key", "list for text", "list"],
)
def test_no_text_in_a_record_can_control_the_terminal(place: Place, capsys: Capsys, record: Any) -> None:
    path = Path("evil.jsonl")
    path.write_text((json.dumps(record) + "\n") * 2, encoding="utf-8")
    Path("data/evil-train.jsonl").write_bytes(path.read_bytes())
    for main, arguments in (
        (train.main, [*FLAGS, "--dataset", "evil"]),
        (prepare.main, ["--input", str(path), "--name", "evil", "--data.data_dir", "made", "--force"]),
    ):
        said = run(capsys, main, *arguments)
        assert said.unprintable == []


@pytest.mark.parametrize("key", ["name", "split", "fingerprint"])
def test_no_text_in_a_manifest_can_control_the_terminal(capsys: Capsys, caches: Path, key: str) -> None:
    signed(caches, **{key: EVIL_TEXT})
    said = run(capsys, train.main, *ONE_BATCH, "--show_config")
    assert said.unprintable == []


@pytest.mark.parametrize("suffix", [".jsonl", ".txt"])
@pytest.mark.parametrize("kind", OTHER_FILES)
def test_text_to_prepare_that_is_code_is_not_run(
    place: Place, watch: Watch, capsys: Capsys, kind: str, suffix: str
) -> None:
    """Python code is valid text; everything else is refused."""
    path = Path("evil").with_suffix(suffix)
    path.write_bytes(OTHER_FILES[kind](place.mark) * 20)
    said = run(capsys, prepare.main, "--input", str(path), "--name", "evil", "--data.data_dir", "made", "--force")
    watch.assert_careful()
    assert said.unprintable == []
    if (kind, suffix) == ("Python code", ".txt"):
        assert said.code == 0
    else:
        assert said.code == 1
        assert said.lines[-1].startswith("error: ") and str(path) in said.lines[-1]


EVIL_CONFIGS: dict[str, Callable[[Place], bytes]] = {
    **{kind: lambda place, kind=kind: OTHER_FILES[kind](place.mark) for kind in OTHER_FILES},
    "YAML that calls": lambda place: f"model: !!python/object/apply:os.system ['{command(place.mark)}']\n".encode(),
    "attributes of objects": lambda place: b'{"model": {"__class__": "os.system", "__init__": 1, "to_dict": 2}}',
    "attributes of classes": lambda place: b'{"__class__": {"x": 1}, "__dict__": {"y": 1}, "from_dict": {"z": 1}}',
    "nested without an end": lambda place: b'{"model": ' + b"[" * 200_000,
}


@pytest.mark.parametrize("extended", [False, True], ids=["", "extended"])
@pytest.mark.parametrize("kind", EVIL_CONFIGS)
def test_a_hostile_config_is_refused_and_nothing_is_run(
    place: Place, watch: Watch, capsys: Capsys, kind: str, extended: bool
) -> None:
    path, outer = Path("evil.json"), Path("outer.json")
    path.write_bytes(EVIL_CONFIGS[kind](place))
    outer.write_text(json.dumps({"extends": str(path)}), encoding="utf-8")
    said = run(capsys, train.main, "--config", str(outer if extended else path))
    watch.assert_careful()
    assert said.code == 1
    assert said.lines[0].startswith("error: ") and all(line.isprintable() for line in said.lines)
    assert str(path) in "\n".join(said.lines)
    assert len([line for line in said.lines if line.startswith("error: ")]) == 1


@pytest.mark.parametrize(
    "content",
    [
        json.dumps({"model": {EVIL_TEXT: 1}}),
        json.dumps({EVIL_TEXT: {}}),
        json.dumps({"data": {"tokenizer": EVIL_TEXT}}),
        json.dumps({"data": {"dataset_name": EVIL_TEXT}}),
        json.dumps({"system": {"device": EVIL_TEXT}}),
        json.dumps({"extends": EVIL_TEXT}),
        json.dumps({"model": {"n_layer": PAINT}}),
        '{"a\\u001b[2Jb": 1, "a\\u001b[2Jb": 2}',
    ],
    ids=["key", "section", "choice", "data set", "device", "base", "number", "key twice"],
)
def test_no_text_in_a_config_can_control_the_terminal(place: Place, capsys: Capsys, content: str) -> None:
    Path("evil.json").write_text(content, encoding="utf-8")
    said = run(capsys, train.main, "--config", "evil.json")
    assert said.code == 1
    assert said.unprintable == []


# --- the project's code -------------------------------------------------------------------------------------------------------

FORBIDDEN_CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load", "pickle.loads", "pickle.Unpickler",
    "marshal.loads", "marshal.load", "torch.load", "torch.jit.load", "torch.hub.load", "shelve.open", "yaml.load", "dill.load",
}  # fmt: skip
FORBIDDEN_KEYWORDS = {"allow_pickle": False, "shell": False}  # and the values that they must have


def careless_code(source: str) -> list[str]:
    """Calls in Python source that could run what a file says: "line 3: eval(...)"."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {k.arg: k.value for k in node.keywords}
            wrong = called in FORBIDDEN_CALLS
            for keyword, must_be in FORBIDDEN_KEYWORDS.items():
                value = given.get(keyword)
                wrong |= value is not None and not (isinstance(value, ast.Constant) and value.value is must_be)
            if wrong:
                found.append(f"line {node.lineno}: {ast.unparse(node)}")
    return found


FORBIDDEN_TEXT = re.compile(
    r"weights_only\s*=\s*False|pickle\.loads?\b|(?<![\w.])eval\(|(?<![\w.])exec\(|shell\s*=\s*True|allow_pickle\s*=\s*True"
)


def own_sources() -> list[Path]:
    """The project's Python files, without its tests and without virtual environments in the folder."""
    folders = [p for p in ROOT.iterdir() if p.is_dir() and p.name[0] not in "._" and p.name != "tests"]
    own = [p for p in folders if not (p / "pyvenv.cfg").exists()]
    return sorted([*ROOT.glob("*.py"), *(file for folder in own for file in folder.rglob("*.py"))])


def test_the_projects_code_has_no_call_that_could_run_code_from_a_file() -> None:
    sources = own_sources()
    assert {"checkpoint.py", "train.py", "crash_test.py", "story.py"} <= {path.name for path in sources}
    found = {
        str(path.relative_to(ROOT)): careless_code(source) + FORBIDDEN_TEXT.findall(source)
        for path in sources
        if (source := path.read_text(encoding="utf-8"))
    }
    assert {path: calls for path, calls in found.items() if calls} == {}


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path, weights_only=True)",
        "pickle.load(file)",
        "state = pickle.Unpickler(file).load()",
        "x = [eval('1')]",
        "exec(open('configurator.py').read())",
        f"subprocess.run('ls', shell={True})",
        f"numpy.load(path, allow_pickle={True})",
    ],
)
def test_the_search_finds_calls_that_could_run_code_from_a_file(source: str) -> None:
    assert careless_code(f"def read(path):\n    {source}\n")


def test_the_search_accepts_harmless_calls() -> None:
    good = "model.eval()\nrun(words, shell=False)\nre.compile('x')\nhistory.exec(1)\n"
    assert careless_code(good) == [] and FORBIDDEN_TEXT.findall(good) == []
