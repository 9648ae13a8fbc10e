"""Tests of train.py's command line: flags, the errors a user can cause, and what --show_config prints."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator

import pytest
from helpers_cli import ROOT, finish, kept_log, messages, run_train, shown_config, start_python
from helpers_data import write_lines
from helpers_fork import run_script
from helpers_run import TINY, write_data
from hypothesis import example, given, settings
from hypothesis import strategies as st

import train
from config import OPTIONS, SECTIONS, resolve
from jojo.config_file import config_layers, file_layers
from training.flags import ALIASES, build_parser, overrides, parse_value
from utils import UserError, __version__

Capsys = pytest.CaptureFixture[str]

RUN_FLAGS = [
    "--config", "--save_config", "--show_config", "--dataset", "--epochs", "--max_iters", "--batch_size",
    "--learning_rate", "--eval_interval", "--log_interval", "--checkpoint_interval", "--device", "--dtype", "--seed",
    "--checkpoint", "--load_model_only", "--output_checkpoint", "--resume", "--no_cache", "--no_compile", "--no_color",
    "--debug", "--version", "--eval_only", "--max_minutes",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A new current folder that contains only the data set "mine"."""
    write_data(folder=tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pathlib.Path]:
    """One such folder for all examples of a Hypothesis test."""
    path = tmp_path_factory.mktemp("shared")
    write_data(folder=path / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        yield path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with the data set and a run of three batches: models/first.pt, learning rate 0.01."""
    path = tmp_path_factory.mktemp("trained")
    write_data(folder=path / "data")
    with pytest.MonkeyPatch.context() as patch, kept_log():
        patch.chdir(path)
        arguments = [*TINY, "--max_iters", "3", "--learning_rate", "0.01", "--output_checkpoint", "models/first.pt"]
        assert train.main(arguments) == 0
    return path


@pytest.fixture
def trained_copy(trained: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A new current folder: a copy of `trained`."""
    shutil.copytree(trained, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def parsed(*arguments: str) -> list[tuple[str, str, object]]:
    """The config overrides that these arguments give."""
    return overrides(build_parser().parse_args(list(arguments)), list(arguments))


# --- flags ----------------------------------------------------------------------------------------------------------


def test_every_config_field_has_a_dotted_flag() -> None:
    known = build_parser()._option_string_actions
    for name in OPTIONS:
        assert known[f"--{name}"].default is None, name
    assert set(RUN_FLAGS) <= set(known)


def test_help_shows_every_field_with_its_meaning_and_default() -> None:
    text = " ".join(build_parser().format_help().split())
    for name, opt in OPTIONS.items():
        row = re.split(rf" --(?:{'|'.join(SECTIONS)})\.", text.rsplit(f"--{name} ", 1)[1])[0]
        default = "null" if opt.default is None else str(opt.default).lower() if opt.type is bool else str(opt.default)
        assert opt.help in row and f"[{default}" in row, name


def test_a_short_flag_sets_the_same_field_as_its_dotted_flag() -> None:
    for alias, name in ALIASES.items():
        opt = OPTIONS[name]
        text = "float32" if opt.choices else {int: "7", float: "0.5", str: "word"}[opt.type]
        assert parsed(alias, text) == [(alias, name, opt.type(text))]
        assert parsed(f"{alias}={text}") == [(alias, name, opt.type(text))]
        assert parsed(f"--{name}", text) == [(f"--{name}", name, opt.type(text))]


def test_without_flags_there_are_no_overrides() -> None:
    assert parsed() == []


@pytest.mark.parametrize("flag", ["--conf", "--model.n_lay", "--data", "--learning", "--show", "--max_iter"])
def test_flags_cannot_be_abbreviated(flag: str, capsys: Capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        parsed(flag, "3")
    assert stopped.value.code == 2
    assert flag in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "meant"),
    [
        ("--model.n_layr", "--model.n_layer"),
        ("--learning-rate", "--learning_rate"),
        ("--batchsize=4", "--batch_size"),
        ("--resumee", "--resume"),
    ],
)
def test_an_unknown_flag_is_refused_with_the_nearest_flag(flag: str, meant: str, capsys: Capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        parsed(flag)
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert error.startswith("error: ") and error.count("\n") == 1
    assert flag.split("=")[0] in error and f"did you mean {meant}?" in error


@pytest.mark.parametrize(
    ("word", "meant"),
    [("configs/a b.json", "--config 'configs/a b.json'"), ("models/x.pt", "--resume models/x.pt")],
)
def test_a_file_without_a_flag_is_refused_with_the_flag(word: str, meant: str, capsys: Capsys) -> None:
    with pytest.raises(SystemExit):
        parsed(word)
    assert capsys.readouterr().err == f"error: unexpected '{word}'; did you mean {meant}?\n"


@pytest.mark.parametrize("word", ["story", "", " ", "--", "-", "-x", "---"])
def test_a_stray_word_is_refused_without_a_traceback(word: str, folder: pathlib.Path, capsys: Capsys) -> None:
    result = run_train(capsys, *TINY, "--show_config", "--debug", word)
    assert "Traceback" not in result.err
    assert result.code == 2 or word == "--"  # "--" alone ends the flags and means nothing more


@pytest.mark.parametrize("flag", ["--config", "--model.n_layer", "--output_checkpoint", "--seed"])
def test_a_flag_without_its_value_is_refused_in_one_line(flag: str, capsys: Capsys) -> None:
    result = run_train(capsys, flag)
    assert result.code == 2
    assert flag in result.err and "expected one argument" in result.err and result.err.count("\n") == 1


# --- values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("model.n_layer", "12", 12),
        ("optimizer.learning_rate", "6e-4", 6e-4),
        ("optimizer.learning_rate", "1", 1.0),
        ("training.max_iters", "null", None),
        ("training.max_iters", "None", None),
        ("training.compile_model", "null", None),
        ("training.compile_model", "TRUE", True),
        ("model.bias", "true", True),
        ("model.bias", "yes", True),
        ("model.bias", "1", True),
        ("model.bias", "False", False),
        ("model.bias", "no", False),
        ("model.bias", "0", False),
        ("data.dataset_name", "null", "null"),
        ("data.data_dir", "a b/", "a b/"),
    ],
)
def test_the_text_of_a_flag_is_converted_to_the_fields_type(name: str, text: str, value: object) -> None:
    result = parse_value(OPTIONS[name], text)
    assert result == value and type(result) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("model.n_layer", "six", 'a whole number, not "six"'),
        ("model.n_layer", "6.5", "a whole number"),
        ("model.n_layer", "null", "a whole number"),
        ("training.max_iters", "x", "a whole number or null"),
        ("optimizer.beta1", "high", "a number"),
        ("model.bias", "maybe", "true or false"),
    ],
)
def test_text_that_does_not_fit_the_fields_type_is_refused(name: str, text: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve(config_layers(None, parsed(f"--{name}={text}")))
    assert f"--{name}: '{name}' must be {words}" in str(caught.value)


def test_a_bool_flag_alone_means_true() -> None:
    assert parsed("--model.bias") == [("--model.bias", "model.bias", True)]
    assert parsed("--model.bias", "false") == [("--model.bias", "model.bias", False)]
    assert parsed("--model.bias", "--seed", "3") == [("--model.bias", "model.bias", True), ("--seed", "system.seed", 3)]


def test_negative_numbers_are_values_not_flags() -> None:
    assert parsed("--seed", "-3") == [("--seed", "system.seed", -3)]


def test_all_bad_values_are_reported_at_once_by_the_flag_that_was_typed() -> None:
    with pytest.raises(UserError) as caught:
        resolve(config_layers(None, parsed("--batch_size", "x", "--model.n_layer=y", "--seed", "3")))
    first, *problems = str(caught.value).splitlines()
    assert first.startswith("2 problems")
    assert sorted(line.split(":")[0] for line in problems) == ["  - --batch_size", "  - --model.n_layer"]


def test_no_cache_and_no_compile_set_config_fields() -> None:
    assert parsed("--no_cache") == [("--no_cache", "data.cache_tokenized", False)]
    assert parsed("--no_compile") == [("--no_compile", "training.compile_model", False)]


def try_flags(arguments: list[str]) -> None:
    """Parse and resolve. It may succeed, raise UserError or exit as argparse does; anything else is a bug."""
    with contextlib.suppress(UserError, SystemExit):
        resolve(config_layers(None, parsed(*arguments)))


texts = (
    st.text(max_size=8)
    | st.sampled_from(["nan", "inf", "-inf", "1e999", "null", "-1", "0", "true", "auto", "cuda:7", "~x", "9" * 25, "-" + "9" * 400])
    | st.integers(-(10**6), 10**6).map(str)
    | st.floats().map(str)
)  # fmt: skip
flags = st.sampled_from([*(f"--{name}" for name in OPTIONS), *ALIASES])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(flags, texts, st.booleans()), min_size=1, max_size=3))
@example([("--model.n_layer", "-" + "9" * 400, True)])
def test_any_flag_value_is_accepted_or_refused_with_a_message(given_flags: list[tuple[str, str, bool]]) -> None:
    arguments = []
    for flag, text, joined in given_flags:
        if "n_embd" not in flag or len(text) < 8:  # the search for heads that would fit grows with the width
            arguments += [f"{flag}={text}"] if joined else [flag, text]
    try_flags(arguments)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=6) | st.sampled_from(["--", "-", "--x", "--x=", "--=", "--resume", ""]), max_size=4))
@example([""])
@example([" "])
def test_any_command_line_is_parsed_or_refused_with_a_message(arguments: list[str]) -> None:
    try_flags(arguments)


numbers = [name for name, opt in OPTIONS.items() if opt.type in (int, float, bool) and name != "model.n_embd"]
number_texts = (
    st.integers(-1, 100).map(str) | st.floats(0, 2).map(str) | st.sampled_from(["9" * 20, "null", "1e-30", "true"])
)


@settings(max_examples=30, deadline=None)
@given(choice=st.lists(st.tuples(st.sampled_from(numbers), number_texts), min_size=1, max_size=4))
@example(choice=[("system.seed", "9" * 30)])
def test_any_numbers_give_a_config_table_or_error(shared_folder: pathlib.Path, choice: list[tuple[str, str]]) -> None:
    arguments = [*TINY, "--show_config", *(f"--{name}={text}" for name, text in choice)]
    with messages() as said:
        try:
            assert train.main(arguments) == 0
        except UserError as error:
            assert str(error)
        else:
            assert "what follows" in said[-1]


# --- --help and --version -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_and_version_do_not_import_torch_or_other_large_packages(flag: str, tmp_path: pathlib.Path) -> None:
    result = finish(start_python("-X", "importtime", str(ROOT / "train.py"), flag, cwd=tmp_path))
    assert result.code == 0
    assert ("usage: train.py" if flag == "--help" else __version__) in result.out
    imported = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in result.err.splitlines() if "|" in line}
    assert {"config", "utils", "argparse"} <= imported
    assert not imported & {"torch", "numpy", "matplotlib", "transformers", "tiktoken", "tqdm", "filelock"}


# --- mistakes of a user ---------------------------------------------------------------------------------------------


def config_file(text: str) -> list[str]:
    pathlib.Path("run.json").write_text(text, encoding="utf-8")
    return ["--config", "run.json"]


def extends_cycle() -> list[str]:
    pathlib.Path("b.json").write_text('{"extends": "run.json"}')
    return config_file('{"extends": "b.json"}')


def not_a_checkpoint() -> list[str]:
    pathlib.Path("notes.pt").write_text("these are notes, not weights")
    return ["--checkpoint", "notes.pt"]


def data_file(content: bytes) -> list[str]:
    pathlib.Path("data/mine-train.jsonl").write_bytes(content)
    return []


def few_words() -> list[str]:
    write_lines(pathlib.Path("data/mine-train.jsonl"), [{"text": "Too short."}])
    return []


def bad_lines() -> list[str]:
    good = pathlib.Path("data/mine-train.jsonl").read_bytes()
    data_file(b'{"text": "fine"}\n{"text": 5}\nnot json\n{"other": 1}\n' + good)
    return ["--data.max_bad_lines", "2"]


def unwritable_models() -> list[str]:
    pathlib.Path("models").write_text("a file where the folder should be")
    return ["--max_iters", "1"]


def incomplete_split() -> list[str]:
    pathlib.Path("data/mine-val.jsonl").unlink()
    return []


MISTAKES: dict[str, tuple[Callable[[], list[str]], list[str]]] = {
    "unknown key": (lambda: config_file('{"model": {"n_layr": 4}}'), ["run.json", "model.n_layr", "n_layer'"]),
    "wrong type": (lambda: config_file('{"model": {"n_layer": "four"}}'), ["run.json", "model.n_layer", "whole number", '"four"']),
    "wrong type of a flag": (lambda: ["--batch_size", "many"], ["--batch_size", "whole number", '"many"']),
    "invalid JSON": (lambda: config_file('{\n  "model": {,}\n}'), ["run.json", "not valid JSON", "line 2 column 13"]),
    "extends cycle": (extends_cycle, ["circle", "run.json -> b.json -> run.json"]),
    "missing config": (lambda: ["--config", "none.json"], ["none.json"]),
    "missing checkpoint": (lambda: ["--checkpoint", "none.pt"], ["none.pt"]),
    "missing checkpoint to resume": (lambda: ["--resume", "models/none.pt"], ["models/none.pt"]),
    "missing weights": (lambda: ["--load_model_only", "none.pt"], ["none.pt"]),
    "not a checkpoint": (not_a_checkpoint, ["notes.pt", "not a checkpoint"]),
    "folder as checkpoint": (lambda: ["--checkpoint", "data"], ["data", "folder"]),
    "nothing to resume": (lambda: ["--resume"], ["models/mine_epoch1.pt", "without --resume"]),
    "weights of nothing": (lambda: ["--load_model_only"], ["--load_model_only", "--checkpoint"]),
    "resume and weights": (lambda: ["--resume", "--load_model_only", "a.pt"], ["--resume", "--load_model_only"]),
    "unknown data set": (lambda: ["--dataset", "nothing"], ["nothing", "mine", "prepare.py"]),
    "data set of wildcards": (lambda: ["--dataset", "**"], ["'data/**-train.jsonl'"]),
    "no validation split": (incomplete_split, ["mine-val.jsonl"]),
    "empty data set": (lambda: data_file(b""), ["mine-train.jsonl", "no document"]),
    "blank data set": (lambda: data_file(b"\n \n\n"), ["mine-train.jsonl", "no document"]),
    "less than the context": (few_words, ["mine", "fewer than the context of", "a new model with --model.block_size"]),
    "too many bad lines": (bad_lines, ["mine-train.jsonl", "more than 2", "line 3", "not JSON", "max_bad_lines"]),
    "indivisible width": (lambda: ["--model.n_head", "3"], ["n_embd 16", "n_head 3"]),
    "no such device": (lambda: ["--device", "cuda:99"], ["cuda:99", "cpu"]),
    "no device at all": (lambda: ["--device", "toaster"], ["toaster", "cpu"]),
    "float16 on a CPU": (lambda: ["--dtype", "float16"], ["float16", "CPU", "slower", "float32"]),
    "unknown dtype": (lambda: ["--dtype", "bf16"], ["bf16", "bfloat16"]),
    "unwritable models": (unwritable_models, ["Cannot write", "models", "--output_checkpoint"]),
    "small vocabulary": (lambda: ["--model.vocab_size", "3000"], ["vocab_size", "3,000", "3,025"]),
    "no such home": (lambda: ["--data.data_dir", "~nobody-of-this-name/x"], ["~nobody-of-this-name"]),
    "output without a name": (lambda: ["--output_checkpoint", "/"], ["output_checkpoint"]),
    "empty output": (lambda: ["--output_checkpoint", ""], ["output_checkpoint"]),
    "huge seed": (lambda: ["--seed", "9" * 30, "--max_iters", "1"], ["seed"]),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gives_a_one_line_error_and_nonzero_exit(mistake: str, folder: pathlib.Path, capsys: Capsys) -> None:
    make, words = MISTAKES[mistake]
    result = run_train(capsys, *TINY, *make())
    assert result.code in (1, 2)
    assert result.err.startswith("error: ") and result.err.count("\n") == 1, result.err
    assert result.err.rstrip().endswith((".", "?", ")")) or "python " in result.err  # a command
    for word in words:
        assert word in result.err
    assert not list(folder.glob("models/*.pt"))


def test_several_mistakes_are_listed_together(folder: pathlib.Path, capsys: Capsys) -> None:
    result = run_train(capsys, *config_file('{"model": {"n_layr": 1}, "optimizer": {"beta1": 2}}'), "--seed", "-1")
    assert result.code == 1
    assert "3 problems" in result.err and "Traceback" not in result.err
    for words in ("run.json: unknown option 'model.n_layr'", "run.json: 'optimizer.beta1'", "--seed: 'system.seed'"):
        assert words in result.err


def test_debug_adds_the_traceback_to_the_error(folder: pathlib.Path, capsys: Capsys) -> None:
    result = run_train(capsys, "--config", "none.json", "--debug")
    assert result.code == 1
    assert "none.json" in result.err and "Traceback" in result.err


def test_a_config_that_cannot_be_saved_gives_an_error_without_a_traceback(folder: pathlib.Path, capsys: Capsys) -> None:
    result = run_train(capsys, *TINY, "--show_config", "--save_config", "data")
    assert result.code == 1
    assert "'data'" in result.err and "Traceback" not in result.err


def test_bad_lines_within_the_limit_are_skipped_and_reported(folder: pathlib.Path, capsys: Capsys) -> None:
    result = run_train(capsys, *TINY, *bad_lines()[:-1], "3", "--show_config")
    assert result.code == 0
    assert "skipped 3" in result.err and "line 3: not JSON" in result.err


def test_mistakes_give_a_one_line_error_in_a_real_process_too(folder: pathlib.Path) -> None:
    program = str(ROOT / "train.py")
    cases = {
        "model.n_layr": config_file('{"model": {"n_layr": 4}}'),
        "float16 on a CPU": [*TINY, "--dtype", "float16"],
    }
    for words, arguments in cases.items():
        result = run_script(program, *arguments)
        assert result.code != 0
        assert words in result.err
        assert result.err.count("\n") == 1 and "Traceback" not in result.err + result.out


# --- --show_config and --save_config --------------------------------------------------------------------------------


def show(capsys: Capsys, *arguments: str) -> dict[str, str]:
    result = run_train(capsys, *arguments, "--show_config")
    assert result.code == 0, result.err
    return shown_config(result.out)


def test_show_config_shows_every_value_and_its_source(folder: pathlib.Path, capsys: Capsys) -> None:
    (folder / "base.json").write_text('{"training": {"eval_interval": 50, "plot_interval": 7}}')
    arguments = config_file('{"extends": "base.json", "training": {"plot_interval": 8}, "model": {"dropout": 0.25}}')
    rows = show(capsys, *TINY, *arguments, "--training.eval_iters", "3")
    assert set(OPTIONS) <= set(rows)
    assert rows["training.max_epochs"] == "1 default"
    assert rows["training.eval_interval"] == "50 batches base.json"
    assert rows["training.plot_interval"] == "8 batches run.json"
    assert rows["model.dropout"] == "0.25 run.json"
    assert rows["training.batch_size"] == "2 sequences --batch_size"
    assert rows["training.eval_iters"] == "3 micro-batches --training.eval_iters"
    assert rows["data.dataset_name"] == "mine --dataset"
    assert rows["system.device"] == "cpu --device"
    assert rows["training.max_iters"] == "null default"
    assert rows["model.vocab_size"].startswith("3072 tokens derived: ")
    assert rows["training.compile_model"].startswith("false derived: ")


def test_show_config_shows_the_values_that_follow_from_the_config(folder: pathlib.Path, capsys: Capsys) -> None:
    rows = show(capsys, *TINY, "--training.gradient_accumulation_steps", "3", "--epochs", "2")
    tokens = json.loads(next((folder / "cache").glob("mine-train-*.json")).read_text())["n_tokens"]
    batches = math.ceil(math.ceil(tokens / 16) / (2 * 3))
    attention, mlp, norms = 4 * 16 * 16, 8 * 16 * 16, 2 * 16
    figures = {name.removeprefix("what follows."): text for name, text in rows.items() if name.startswith("what")}
    assert figures["parameters"] == f"{(3072 + 16) * 16 + attention + mlp + norms + 16:,}"
    assert figures["tokens per batch"] == f"{2 * 3 * 16:,}"
    assert figures["batches per epoch"] == f"{batches:,}"
    assert figures["batches in all"] == f"{2 * batches:,}"
    assert figures["device"] == "cpu" and figures["dtype"] == "float32"
    assert figures["checkpoint"] == "models/mine_epoch2.pt"
    assert f"at batch {2 * batches:,}" in figures["learning rate"]


def test_show_config_shows_the_options_before_the_data_are_prepared(folder: pathlib.Path, capsys: Capsys) -> None:
    result = run_train(capsys, *TINY, "--dataset", "other", "--show_config", "--model.n_layer", "3")
    assert re.search(r"n_layer +3 +--model\.n_layer", result.out) and "[data]" in result.out
    assert result.code == 1 and "other-train.jsonl" in result.err


def test_an_epoch_of_few_batches_is_reported_with_what_to_change(folder: pathlib.Path, capsys: Capsys) -> None:
    accumulate = ("--training.gradient_accumulation_steps", "4")
    warned = run_train(capsys, *TINY, *accumulate, "--max_iters", "1").err
    assert re.search(r"An epoch has only \d batch(es)?; .*--training\.gradient_accumulation_steps 1", warned)
    assert "An epoch has" not in run_train(capsys, *TINY, "--max_iters", "1").err


def test_show_config_does_not_train(folder: pathlib.Path, capsys: Capsys) -> None:
    show(capsys, *TINY)
    assert not (folder / "models").exists()


def test_no_cache_writes_no_token_cache(folder: pathlib.Path, capsys: Capsys) -> None:
    rows = show(capsys, *TINY, "--no_cache", "--no_compile")
    assert rows["data.cache_tokenized"] == "false --no_cache"
    assert rows["training.compile_model"] == "false --no_compile"
    assert not (folder / "cache").exists()


def test_save_config_is_read_back_as_the_same_run(folder: pathlib.Path, capsys: Capsys) -> None:
    first = show(capsys, *TINY, "--model.dropout", "0.1", "--max_iters", "40", "--save_config", "saved/a.json")
    second = show(capsys, "--config", "saved/a.json", "--save_config", "saved/b.json")
    assert (folder / "saved/a.json").read_text() == (folder / "saved/b.json").read_text()
    built, sources = resolve(file_layers(folder / "saved/a.json"))
    assert (built.model.dropout, built.training.max_iters, built.model.n_layer) == (0.1, 40, 1)
    assert set(sources.values()) == {str(folder / "saved/a.json")}
    for name in OPTIONS:
        assert first[name].split()[0] == second[name].split()[0], name
    assert first["what follows.learning rate"] == second["what follows.learning rate"]


def test_flags_override_the_config_file_and_the_file_overrides_defaults(folder: pathlib.Path, capsys: Capsys) -> None:
    arguments = config_file('{"training": {"max_iters": 5, "batch_size": 5}}')
    rows = show(capsys, *TINY, *arguments, "--max_iters", "9")
    assert rows["training.max_iters"] == "9 batches --max_iters"
    assert rows["training.batch_size"] == "2 sequences --batch_size"


def test_values_of_2x_files_that_do_not_fit_the_run_fall_back_with_a_warning(
    folder: pathlib.Path, capsys: Capsys
) -> None:
    text = '{"scheduler": {"warmup_iters": 2000, "lr_decay_iters": 60000}, "system": {"device": "cuda:7"}}'
    tiny = [*TINY[: TINY.index("--device")], "--dtype", "float32"]
    result = run_train(capsys, *tiny, *config_file(text), "--max_iters", "100", "--show_config")
    assert result.code == 0
    for words in ("warmup_iters 2,000", "lr_decay_iters 60,000", "cuda:7"):
        assert words in result.err
    rows = shown_config(result.out)
    assert rows["scheduler.warmup_iters"].startswith("5 batches derived: ")
    assert rows["scheduler.lr_decay_iters"].startswith("100 batches derived: ")
    assert "cuda:7" not in rows["system.device"]


# --- a run and what starts from it ----------------------------------------------------------------------------------


def test_a_run_writes_its_files_and_prints_where(folder: pathlib.Path, capsys: Capsys) -> None:
    result = run_train(capsys, *TINY, "--max_iters", "2", "--save_config", "a.json")
    assert result.code == 0
    assert {path.name for path in (folder / "models").iterdir()} >= {
        "mine_epoch1.pt", "mine_epoch1_best.pt", "mine_epoch1.metrics.jsonl", "mine_epoch1.png",
    }  # fmt: skip
    assert len((folder / "models/mine_epoch1.metrics.jsonl").read_text().splitlines()) == 2
    assert (folder / "a.json").exists()
    for words in ("TRAINING COMPLETED", "models/mine_epoch1.pt", "python gen.py"):
        assert words in result.out
    assert "\033[" not in result.out + result.err


def test_eval_only_prints_losses_and_writes_no_model(folder: pathlib.Path, capsys: Capsys) -> None:
    result = run_train(capsys, *TINY, "--eval_only")
    assert result.code == 0
    assert "validation loss 8." in result.out  # ln 3,025 = 8.01: nothing was learned yet
    assert not list(folder.glob("models/*.pt"))


def test_a_checkpoint_overrides_defaults_and_flags_override_both(trained_copy: pathlib.Path, capsys: Capsys) -> None:
    rows = show(capsys, "--checkpoint", "models/first.pt", "--training.eval_interval", "9")
    assert rows["model.n_embd"] == "16 channels checkpoint models/first.pt"
    assert rows["optimizer.learning_rate"] == "0.01 checkpoint models/first.pt"
    assert rows["training.eval_interval"] == "9 batches --training.eval_interval"
    assert rows["what follows.checkpoint"] == "models/first.pt"


@pytest.mark.parametrize(
    "spelling",
    [["--load_model_only", "models/first.pt"], ["--checkpoint", "models/first.pt", "--load_model_only"]],
    ids=["path of its own", "beside --checkpoint"],
)
def test_load_model_only_takes_the_model_and_nothing_else(
    trained_copy: pathlib.Path, capsys: Capsys, spelling: list[str]
) -> None:
    rows = show(capsys, "--dataset", "mine", "--device", "cpu", *spelling)
    assert rows["model.n_embd"] == "16 channels checkpoint models/first.pt"
    assert rows["optimizer.learning_rate"].endswith("default")
    assert rows["training.batch_size"].endswith("default")
    assert rows["what follows.checkpoint"] == "models/mine_epoch1.pt"


def test_a_model_flag_that_contradicts_the_loaded_model_is_refused(trained_copy: pathlib.Path, capsys: Capsys) -> None:
    result = run_train(capsys, "--checkpoint", "models/first.pt", "--model.n_layer", "3", "--show_config")
    assert result.code == 1
    assert "n_layer 3 (--model.n_layer) against 1" in result.err


def test_a_model_flag_that_equals_the_loaded_value_is_accepted(trained_copy: pathlib.Path, capsys: Capsys) -> None:
    rows = show(capsys, "--checkpoint", "models/first.pt", "--model.n_embd", "16")  # 16 is no multiple of 6 heads
    assert rows["model.n_head"] == "2 checkpoint models/first.pt"


def test_flags_are_checked_against_the_checkpoint_not_the_defaults(trained_copy: pathlib.Path, capsys: Capsys) -> None:
    arguments = ["--checkpoint", "models/first.pt", "--scheduler.min_lr", "0.005", "--allow_changes"]
    assert show(capsys, *arguments)["scheduler.min_lr"].startswith("0.005 ")  # below the checkpoint's 0.01


def test_resume_continues_with_the_next_batch(trained_copy: pathlib.Path, capsys: Capsys) -> None:
    result = run_train(capsys, "--resume", "models/first.pt", "--max_iters", "5")
    assert result.code == 0, result.err
    rows = (trained_copy / "models/first.metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == [1, 2, 3, 4, 5]
    assert "instead of 3" in result.out  # the schedule was derived from another length


def test_resume_refuses_another_batch_size_without_allow_changes(trained_copy: pathlib.Path, capsys: Capsys) -> None:
    arguments = ["--resume", "models/first.pt", "--batch_size", "4", "--show_config"]
    result = run_train(capsys, *arguments)
    assert result.code == 1
    assert "training.batch_size 2 -> 4" in result.err and "--allow_changes" in result.err
    result = run_train(capsys, *arguments, "--allow_changes")
    assert result.code == 0 and "continues with changes: training.batch_size 2 -> 4" in result.err


def test_a_new_run_moves_an_earlier_run_of_its_name_to_old(trained_copy: pathlib.Path, capsys: Capsys) -> None:
    before = (trained_copy / "models/first.pt").read_bytes()
    result = run_train(capsys, *TINY, "--max_iters", "1", "--output_checkpoint", "models/first")
    assert result.code == 0
    moved = list((trained_copy / "models/old").glob("first-*/first.pt"))
    assert len(moved) == 1 and moved[0].read_bytes() == before
    assert str(moved[0].parent.relative_to(trained_copy)) in result.out


def test_max_minutes_stops_the_run_and_prints_how_to_continue(folder: pathlib.Path, capsys: Capsys) -> None:
    result = run_train(capsys, *TINY, "--max_iters", "50", "--max_minutes", "1e-9")
    assert result.code == 0
    assert "Stopped after batch 1 of 50" in result.out
    assert "--resume models/mine_epoch1.pt" in result.out
    assert run_train(capsys, "--resume", "models/mine_epoch1.pt", "--max_minutes", "1e-9").code == 0
    assert len((folder / "models/mine_epoch1.metrics.jsonl").read_text().splitlines()) == 2


def test_sections_of_help_are_those_of_the_config() -> None:
    titles = {group.title for group in build_parser()._action_groups}
    assert set(SECTIONS) <= titles
    assert isinstance(build_parser(), argparse.ArgumentParser)


def test_a_dotted_flag_without_its_section_is_refused_with_its_full_name(capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args(["--eval_iters", "3"])
    assert "unknown flag --eval_iters; did you mean --training.eval_iters?" in capsys.readouterr().err
