"""Compares docs/migration.md with the code, and tests tools/improvements_guide.py, which prints the page."""

from __future__ import annotations

import os
import pathlib
import pydoc
import re
from typing import Any

import pytest
import torch
from helpers_cli import ROOT, Outcome, kept_log
from helpers_docs import configs_in, parsed

from config import OPTIONS, SECTIONS
from jojo.checkpoints.file import FORMAT_VERSION, write_file
from jojo.checkpoints.older_formats import flat_config, training_state
from jojo.command import run_command
from tools import improvements_guide as guide
from utils import UserError

Capsys = pytest.CaptureFixture[str]

TEXT = (ROOT / "docs" / "migration.md").read_text(encoding="utf-8")
PAGE = guide.sections()
HEADERS = [["command there", "here"], ["config key there", "here"], ["checkpoint key there", "what is taken over"]]
NAMES = ["Python name there", "here"]
WEIGHTS = {"transformer.wte.weight": torch.zeros(2, 2)}
SHAPE = {"n_layer": 1, "n_head": 1, "n_embd": 2, "block_size": 2, "bias": False, "vocab_size": 2, "dropout": 0.0}
MODULES = ("run_files.py", "plotting.py")  # named on the page, but not as commands
FLAT = {"learning_rate": 6e-4, "device": "cuda", "block_size": 2}

# Keys of the files that each version wrote. Of 2.x's config: only keys with another meaning or default today.
SHARED = """learning_rate weight_decay beta1 beta2 grad_clip decay_lr warmup_iters lr_decay_iters min_lr batch_size
    gradient_accumulation_steps eval_iters eval_interval log_interval device dtype n_layer n_head n_embd block_size dropout
    bias"""
IN_2 = "warmup_iters lr_decay_iters cooldown_fraction device gradient_accumulation_steps"
IN_FILES_OF_2 = """model optimizer lr_scheduler epoch batch_counter best_val_loss worst_val_loss best_train_loss
    worst_train_loss config metrics metadata"""
KEYS = [
    (
        "From Jojo 1", f"{SHARED} max_epochs dataset_name checkpoint_file log_level RED GREEN",
        "model optimizer model_args config dataset epoch epoch_iter batch_counter timestamp",
    ),
    ("From Jojo 2.0", IN_2, IN_FILES_OF_2),
    ("From Jojo 2.1", IN_2, IN_FILES_OF_2),
    (
        "From nanoGPT", f"{SHARED} max_iters compile dataset out_dir always_save_checkpoint wandb_log wandb_project",
        "model optimizer model_args iter_num best_val_loss config",
    ),
]  # fmt: skip


def code(text: str) -> list[str]:
    """The texts between backticks."""
    return re.findall(r"`([^`]+)`", text)


def tables(title: str) -> dict[str, list[list[str]]]:
    """The rows of each table of a section, header included, by the table's first header cell."""
    blocks = re.findall(r"(?:^\|.*\n?)+", PAGE[title], flags=re.MULTILINE)
    found = [[[c.strip() for c in row.strip("|").split("|")] for row in block.splitlines()] for block in blocks]
    assert all(len(row) == 2 for rows in found for row in rows), title
    return {rows[0][0]: [rows[0], *rows[2:]] for rows in found}


def commands() -> list[str]:
    """All commands and flags on the page, except for the first columns of tables, which hold those of other versions."""
    words = code(re.sub(r"^\|[^|\n]*\|", "", TEXT, flags=re.MULTILINE))
    return list(dict.fromkeys(w for w in words if re.match(r"--|(python )?\S+\.py\b", w) and w not in MODULES))


# --- what the page says -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", commands())
def test_every_command_on_the_page_parses(command: str) -> None:
    parsed(command)
    assert all((ROOT / file).is_file() for file in configs_in(command))


def test_the_search_finds_the_commands_on_the_page() -> None:
    found = commands()
    assert len(found) > 30
    for word in ("train.py", "gen.py", "prepare.py", "improvements_guide.py", "--reset_epoch", "--from_checkpoint"):
        assert any(word in command for command in found), word
    assert not any("sample.py" in command for command in found)  # the tables' first columns are left out


@pytest.mark.parametrize("command", ["--from_checkpont x.pt", "python gen.py --begin x", "--epochs two", "--config"])
def test_a_wrong_command_does_not_parse(command: str, capsys: Capsys) -> None:
    with pytest.raises((SystemExit, UserError)):
        parsed(command)


def test_every_dotted_option_on_the_page_exists() -> None:
    options = re.sub(r"^\| Python name there.*?\n\n", "", TEXT, flags=re.MULTILINE | re.DOTALL)
    names = set(re.findall(rf"\b(?:{'|'.join(SECTIONS)})\.[a-z]\w*", options)) - {"train.py"}
    assert len(names) > 8 and names <= set(OPTIONS)


def test_the_page_has_a_section_for_every_version() -> None:
    assert list(PAGE) == [*guide.GUIDES.values(), guide.COMMON]


@pytest.mark.parametrize("title", guide.GUIDES.values())
def test_a_section_has_three_tables_and_says_what_differs(title: str) -> None:
    headers = [*HEADERS, NAMES] if title == "From Jojo 2.1" else HEADERS
    assert [rows[0] for rows in tables(title).values()] == headers
    assert all(len(rows) > 4 for rows in tables(title).values())
    points = PAGE[title].split("\n\nBehaves differently:\n\n")[1]
    assert len(re.findall(r"^- \*\*", points, re.MULTILINE)) >= 2


@pytest.mark.parametrize(("title", "config_keys", "checkpoint_keys"), KEYS)
def test_every_key_of_the_older_versions_is_listed(title: str, config_keys: str, checkpoint_keys: str) -> None:
    for header, keys in (("config key there", config_keys), ("checkpoint key there", checkpoint_keys)):
        listed = {name.split(".")[-1] for there, _ in tables(title)[header] for name in code(there)}
        assert set(keys.split()) <= listed, header


def same_names(title: str) -> dict[str, str]:
    """The keys that have the same name today, as the page says, with their dotted names."""
    rows = [
        (code(there), m[1])
        for there, here in tables(title)["config key there"]
        if (m := re.fullmatch(r"the same names in section `(\w+)`", here))
    ]
    return {key: f"{section}.{key}" for keys, section in rows for key in keys}


@pytest.mark.parametrize("title", ["From Jojo 1", "From nanoGPT"])
def test_the_page_names_exactly_the_options_that_are_taken_from_a_flat_config(title: str) -> None:
    names = same_names(title)
    assert len(names) > 18 and set(names.values()) <= set(OPTIONS)
    values = {key: OPTIONS[name].default or OPTIONS[name].type(1) for key, name in names.items()}
    version_1 = title == "From Jojo 1"
    taken = flat_config(values | {"dataset": "mine"} | ({} if version_1 else {"compile": True}), per_cent=version_1)
    expected = {n for n in names.values() if not n.startswith("model.")} | {"data.dataset_name"}
    said = next(here for there, here in tables(title)["checkpoint key there"] if there == "`config`")
    if version_1:
        expected -= {"training.eval_interval", "training.log_interval"}
    else:
        expected |= {"training.compile_model"}
    assert ("except the two intervals" in said) == version_1 and ("`compile`" in said) != version_1
    assert {f"{section}.{key}" for section, entries in taken.items() for key in entries} == expected


@pytest.mark.parametrize("title", ["From Jojo 2.0", "From Jojo 2.1"])
def test_the_page_names_exactly_the_metrics_that_are_taken_over(title: str) -> None:
    weight = torch.zeros(2, 2)
    optimizer = {"state": {0: {"step": torch.tensor(1.0), "exp_avg": weight, "exp_avg_sq": weight}}}
    there = [
        *("train_loss_batch", "learning_rate", "samples_per_sec", "train_loss_eval", "val_loss_eval"),
        *("train_loss_epoch", "val_loss_epoch", "train_loss", "val_loss"),
    ]
    taken = training_state({"optimizer": optimizer, "metrics": {name: [(1, 2.5)] for name in there}}, {"wte": weight})
    assert taken
    said = next(here for key, here in tables(title)["checkpoint key there"] if key == "`metrics`")
    assert code(said) == [name for name in there if taken["metrics"].get(name) == [(1, 2.5)]]


def test_every_python_name_that_is_named_as_a_replacement_exists() -> None:
    rows = tables("From Jojo 2.1")["Python name there"][1:]
    replacements = [text for _, here in rows for text in code(here) if not re.match(r"--|python |models/", text)]
    for path in re.findall(r"[a-z_]+(?:\.\w+)+", " ".join(replacements)):
        assert pydoc.locate(path) is not None, path
    there = " ".join(names for names, _ in rows)
    for name in (
        *("GPTConfig", "Config.from_file", "get_default_config", "ProgressTracker", "DeviceManager"),
        *("simple_packed_loader", "setup_tokenizer"),
    ):
        assert name in there


# --- printing ---------------------------------------------------------------------------------------------------------


def run_guide(capsys: Capsys, *arguments: str) -> Outcome:
    """Runs improvements_guide.py with these arguments, in this process and the current folder."""
    capsys.readouterr()
    with kept_log(), pytest.raises(SystemExit) as stopped:
        run_command(guide.main, list(arguments))
    captured = capsys.readouterr()
    assert isinstance(stopped.value.code, int)
    return Outcome(stopped.value.code, captured.out, captured.err)


def titles_in(text: str) -> list[str]:
    return re.findall(r"^## (.+)$", text, re.MULTILINE)


@pytest.mark.parametrize(("version", "title"), guide.GUIDES.items())
def test_from_prints_the_section_of_the_version_and_the_common_one(version: str, title: str, capsys: Capsys) -> None:
    result = run_guide(capsys, "--from", version)
    assert (result.code, result.err) == (0, "")
    assert titles_in(result.out) == [title, guide.COMMON]
    assert all(PAGE[heading] in result.out for heading in (title, guide.COMMON))


# --- which version wrote a file ---------------------------------------------------------------------------------------


def written_by(trainer_version: str) -> dict[str, Any]:
    """A small checkpoint of 2.x."""
    return {
        "model": WEIGHTS, "optimizer": {}, "lr_scheduler": {}, "epoch": 0, "batch_counter": 1, "best_val_loss": 2.5,
        "config": {"model": SHAPE}, "metrics": {},
        "metadata": {"trainer_version": trainer_version, "pytorch_version": torch.__version__},
    }  # fmt: skip


V1 = {"model": WEIGHTS, "optimizer": {}, "model_args": SHAPE, "config": FLAT, "epoch": 0, "epoch_iter": 3}
NANOGPT = {"model": WEIGHTS, "optimizer": {}, "model_args": SHAPE, "config": FLAT, "iter_num": 0, "best_val_loss": 1e9}


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A new, empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("state", "title"),
    [
        (V1, "From Jojo 1"),
        (written_by("2.0.0"), "From Jojo 2.0"),
        (written_by("2.0.2"), "From Jojo 2.0"),
        (written_by("2.1.0"), "From Jojo 2.1"),
        (written_by("2.1"), "From Jojo 2.1"),
        (NANOGPT, "From nanoGPT"),
    ],
)
def test_for_a_checkpoint_the_section_of_its_version_is_printed(
    state: dict[str, Any], title: str, folder: pathlib.Path, capsys: Capsys
) -> None:
    torch.save(state, "old.pt")
    result = run_guide(capsys, "old.pt")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(f"'old.pt' was written by {title.removeprefix('From ')}.\n")
    assert titles_in(result.out) == [title, guide.COMMON]


def test_a_checkpoint_of_this_version_needs_no_migration(folder: pathlib.Path, capsys: Capsys) -> None:
    write_file({"format_version": FORMAT_VERSION, "model": WEIGHTS, "config": {"model": SHAPE}}, folder / "new.pt")
    result = run_guide(capsys, "new.pt")
    assert (result.code, result.err) == (0, "")
    assert "nothing changes" in result.out and result.out.count("\n") == 1


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"weights": WEIGHTS}, "does not say which version wrote it; name one with --from"),
        ({"metadata": {"trainer_version": "2.7.0"}}, "does not say which version wrote it"),
        ({"metadata": "2.0.0", "model_args": None, "config": []}, "does not say which version wrote it"),
        (
            {"format_version": FORMAT_VERSION + 1, "model_args": SHAPE},
            f"has format {FORMAT_VERSION + 1}, which is newer than",
        ),
        ([1, 2], "is not a checkpoint"),
    ],
)
def test_a_file_of_an_unknown_version_is_refused_in_one_sentence(
    state: object, said: str, folder: pathlib.Path, capsys: Capsys
) -> None:
    torch.save(state, "odd.pt")
    result = run_guide(capsys, "odd.pt")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("error: 'odd.pt' ") and said in result.err and result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["notes.txt"], 1, "is not a checkpoint"),
        (["absent.pt"], 1, "No checkpoint 'absent.pt'"),
        (["old.pt", "--from", "1"], 1, "not both"),
        (["--from", "3"], 2, "invalid choice: '3'"),
    ],
)
def test_wrong_arguments_are_refused_in_one_sentence(
    arguments: list[str], code: int, said: str, folder: pathlib.Path, capsys: Capsys
) -> None:
    (folder / "notes.txt").write_text("no model", encoding="utf-8")
    result = run_guide(capsys, *arguments)
    assert (result.code, result.out) == (code, "")
    assert said in result.err and result.err.count("\n") == 1 and "Traceback" not in result.err


def test_debug_shows_the_traceback(folder: pathlib.Path, capsys: Capsys) -> None:
    assert "Traceback" in run_guide(capsys, "absent.pt", "--debug").err


def test_without_arguments_the_section_for_the_newest_model_is_printed(folder: pathlib.Path, capsys: Capsys) -> None:
    (folder / "models").mkdir()
    for age, (name, state) in enumerate([("b.pt", NANOGPT), ("a.pt", written_by("2.1.0")), ("c.pt", V1)]):
        torch.save(state, folder / "models" / name)
        os.utime(folder / "models" / name, (10**9 - age, 10**9 - age))
    assert titles_in(run_guide(capsys).out) == ["From nanoGPT", guide.COMMON]
    os.utime(folder / "models" / "a.pt", (2 * 10**9, 2 * 10**9))
    assert titles_in(run_guide(capsys).out) == ["From Jojo 2.1", guide.COMMON]


def test_without_a_model_the_choices_and_all_sections_are_printed(folder: pathlib.Path, capsys: Capsys) -> None:
    result = run_guide(capsys)
    assert (result.code, result.err) == (0, "")
    assert "--from 1|2.0|2.1|nanogpt" in result.out.splitlines()[0]
    assert titles_in(result.out) == [*guide.GUIDES.values(), guide.COMMON]
