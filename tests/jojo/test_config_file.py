"""Tests of jojo/config_file.py: comments, "extends", and every way a file can be wrong."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from config import OPTIONS, SECTIONS, Config, resolve
from jojo.config_file import file_layers, read_json, save_config, strip_comments
from utils import UserError


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """One folder for all examples of a property."""
    return tmp_path_factory.mktemp("configs")


def write(path: pathlib.Path, content: Any) -> pathlib.Path:
    """Write a file with this text, or with this value as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def problem_of_file(path: pathlib.Path) -> str:
    """The error message from reading and resolving a config file."""
    with pytest.raises(UserError) as caught:
        resolve(file_layers(path))
    return str(caught.value)


def test_a_saved_config_is_read_back_equal(tmp_path: pathlib.Path) -> None:
    built = Config.from_dict(
        {"model": {"n_layer": 2}, "data": {"data_dir": "d\u00e9//x"}, "scheduler": {"min_lr": 1e-5}}
    )
    save_config(built, tmp_path / "new folder" / "saved.json")
    assert resolve(file_layers(tmp_path / "new folder" / "saved.json"))[0] == built


# --- reading -----------------------------------------------------------------------------------------------------


def test_comments_are_ignored_outside_strings_only(tmp_path: pathlib.Path) -> None:
    text = """// a comment
    {
      "model": {"n_layer": 2}, // "n_layer": 9
      //"optimizer": {},
      "data": {"data_dir": "http://x//y", "cache_dir": "a\\"//b"} // " unbalanced
    } // the end"""
    assert read_json(write(tmp_path / "a.json", text)) == {
        "model": {"n_layer": 2},
        "data": {"data_dir": "http://x//y", "cache_dir": 'a"//b'},
    }


@settings(deadline=None)
@given(st.text(alphabet='/"\\\n ab{}:,', max_size=60))
@example('"\\')
@example('"a\\"//b"//c')
def test_strip_comments_keeps_length_and_positions(text: str) -> None:
    stripped = strip_comments(text)
    assert len(stripped) == len(text)
    for before, after in zip(text, stripped, strict=True):
        assert after == before or (after == " " and before != "\n")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(alphabet='/"\\ab\n\u20ac'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='/"\\ab'), inner, max_size=3),
    max_leaves=10,
)


@settings(deadline=None)
@given(json_values, st.text(alphabet='/"\\ab{}', max_size=10))
def test_json_without_comments_stays_as_it_is_and_comments_do_not_change_its_value(value: Any, comment: str) -> None:
    plain = json.dumps(value, indent=1)
    assert strip_comments(plain) == plain
    commented = "\n".join(f"{line} //{comment}" for line in plain.splitlines())
    assert json.loads(strip_comments(commented)) == value


def test_an_error_in_json_names_line_and_column(tmp_path: pathlib.Path) -> None:
    problem = problem_of_file(write(tmp_path / "a.json", '{\n  // note\n  "model": {"n_layer": }\n}'))
    assert "a.json" in problem and "line 3 column 24" in problem


def test_a_comment_before_the_mistake_does_not_move_the_column(tmp_path: pathlib.Path) -> None:
    first = problem_of_file(write(tmp_path / "a.json", '{"model": {}, // x\n "data": nul}'))
    assert "line 2 column 10" in first


def test_an_empty_file_is_invalid_json(tmp_path: pathlib.Path) -> None:
    assert "not valid JSON" in problem_of_file(write(tmp_path / "a.json", ""))


def test_a_duplicate_key_is_refused_by_name(tmp_path: pathlib.Path) -> None:
    problem = problem_of_file(write(tmp_path / "a.json", '{"model": {"n_layer": 1, "n_head": 2, "n_layer": 3}}'))
    assert "'n_layer' twice" in problem


def test_a_byte_order_mark_is_accepted(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" + b'{"model": {"n_layer": 2}}')
    assert read_json(path) == {"model": {"n_layer": 2}}


@pytest.mark.parametrize("content", ['{"model": {}}'.encode("utf-16"), b'{"data": {"data_dir": "caf\xe9"}}'])
def test_text_that_is_not_utf8_is_refused(tmp_path: pathlib.Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    assert "UTF-8" in problem_of_file(path)


def test_deep_nesting_is_refused_at_every_depth(tmp_path: pathlib.Path) -> None:
    for depth in (*range(900, 1010, 3), 100_000):
        text = '{"model": {"n_layer": ' + "[" * depth + "]" * depth + "}}"
        assert "a.json" in problem_of_file(write(tmp_path / "a.json", text))


@pytest.mark.parametrize("name", ["none/story_small", "configs/story_small.json", "story-smal.json"])
def test_the_error_for_a_missing_config_names_the_nearest_one_there_or_in_configs(name, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for there in ("configs/story-small.json", "configs/gpt2.json", "mine.json"):
        write(tmp_path / there, {})
    problem = problem_of_file(pathlib.Path(name))
    assert problem.startswith(
        f"No config file '{name}' (did you mean 'configs/story-small.json'?); there are: configs/gpt2.json"
    )


def test_a_folder_is_not_a_config(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "small.json", {})
    assert problem_of_file(tmp_path).partition("; there are: ")[2].startswith(f"{tmp_path}/small.json")


def test_only_the_first_of_very_many_problems_are_named(tmp_path: pathlib.Path) -> None:
    """Comparing each of 40,000 names with all known names would take half a minute."""
    text = json.dumps({"model": {f"n_layer_{number}": 1 for number in range(40_000)}})
    problem = problem_of_file(write(tmp_path / "a.json", text))
    assert problem.startswith("The first 20 problems") and len(problem.splitlines()) == 21


@pytest.mark.parametrize("text", ["[]", "3", '"x"', "null"])
def test_a_file_must_hold_an_object(tmp_path: pathlib.Path, text: str) -> None:
    problem = problem_of_file(write(tmp_path / "a.json", text))
    assert "a.json" in problem and "JSON object" in problem


# --- extends --------------------------------------------------------------------------------------------------------


def test_extends_is_relative_to_the_file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "one" / "base.json", {"model": {"n_layer": 3}})
    write(tmp_path / "base.json", {"model": {"n_layer": 9}})
    write(tmp_path / "two" / "run.json", {"extends": "../one/base.json", "model": {"n_head": 2}})
    monkeypatch.chdir(tmp_path)
    built, _ = resolve(file_layers(pathlib.Path("two/run.json")))
    assert (built.model.n_layer, built.model.n_head) == (3, 2)


def test_a_file_may_extend_one_that_extends_another(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "a.json", {"model": {"n_layer": 1, "n_head": 1, "n_embd": 16}})
    write(tmp_path / "b.json", {"extends": "a.json", "model": {"n_layer": 2, "n_head": 2}})
    write(tmp_path / "c.json", {"extends": "b.json", "model": {"n_layer": 3}})
    model = resolve(file_layers(tmp_path / "c.json"))[0].model
    assert (model.n_layer, model.n_head, model.n_embd) == (3, 2, 16)


def test_two_files_may_extend_the_same_one(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "a.json", {})
    for name in ("b", "c"):
        write(tmp_path / f"{name}.json", {"extends": "a.json"})
        assert len(file_layers(tmp_path / f"{name}.json")) == 2


@pytest.mark.parametrize("chain", ["a", "ab", "abc"])
def test_an_extends_cycle_names_its_files(tmp_path: pathlib.Path, chain: str) -> None:
    for name, following in zip(chain, chain[1:] + chain[0], strict=True):
        write(tmp_path / f"{name}.json", {"extends": f"{following}.json"})
    problem = problem_of_file(tmp_path / "a.json")
    assert "circle" in problem
    assert " -> ".join(f"{name}.json" for name in chain + "a") in problem


def test_a_cycle_through_another_spelling_of_the_path_is_found(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "x" / "a.json", {"extends": "../x/./a.json"})
    assert "circle" in problem_of_file(tmp_path / "x" / "a.json")


def test_a_thousand_files_that_extend_each_other_are_refused(tmp_path: pathlib.Path) -> None:
    for number in range(1_000):
        write(tmp_path / f"{number}.json", {"extends": f"{number + 1}.json"})
    assert "too deeply" in problem_of_file(tmp_path / "0.json")


def test_a_missing_file_that_is_extended_is_named(tmp_path: pathlib.Path) -> None:
    assert "gone.json" in problem_of_file(write(tmp_path / "a.json", {"extends": "gone.json"}))


@pytest.mark.parametrize("base", ["", " ", 3, ["a.json"], {}, True, "a\0b", "a" * 10_001])
def test_extends_must_name_one_file(tmp_path: pathlib.Path, base: Any) -> None:
    assert "extends" in problem_of_file(write(tmp_path / "a.json", {"extends": base}))


def test_an_error_in_the_extended_file_names_that_file(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "base.json", {"model": {"n_layr": 3}})
    problem = problem_of_file(write(tmp_path / "run.json", {"extends": "base.json"}))
    assert "base.json: unknown option" in problem and "run.json" not in problem


# --- fuzzing --------------------------------------------------------------------------------------------------------


def read_or_refuse(path: pathlib.Path) -> None:
    """Read a config: this must give a Config, or a UserError with a sentence."""
    try:
        built, _ = resolve(file_layers(path))
    except UserError as error:
        assert len(str(error)) > 10
    else:
        assert isinstance(built, Config)


keys = st.sampled_from([*SECTIONS, "extends", "modle", *(name.split(".")[1] for name in OPTIONS)]) | st.text(max_size=5)
scalars = (
    st.none() | st.booleans() | st.integers() | st.integers(10**300, 10**320) | st.floats() | st.text(max_size=6)
    | st.sampled_from(["", ".", "config.json", "missing.json", "auto", "cpu", "a\0b"])
)  # fmt: skip
trees = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=5), max_leaves=20
)
sections = st.fixed_dictionaries(
    {}, optional={"extends": scalars.filter(lambda v: not isinstance(v, str) or "/" not in v)}
    | {
        section: st.dictionaries(st.sampled_from([field.name for field in dataclasses.fields(cls)]), scalars, max_size=4)
        for section, cls in SECTIONS.items()
    },
)  # fmt: skip


@given(value=sections | trees)
@settings(max_examples=150, deadline=None)
def test_any_json_is_read_or_is_a_user_error(scratch: pathlib.Path, value: Any) -> None:
    read_or_refuse(write(scratch / "config.json", value))


VALID_TEXT = json.dumps({"model": {"n_layer": 2, "bias": True}, "data": {"data_dir": "a//b"}}, indent=1)


@given(
    edits=st.lists(
        st.tuples(st.integers(0, len(VALID_TEXT)), st.integers(0, 5), st.text(alphabet='{}[]":,/\\0.e-\n\u20ac', max_size=3)),
        min_size=1, max_size=4,
    )
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_a_mangled_config_is_read_or_is_a_user_error(scratch: pathlib.Path, edits: list[tuple[int, int, str]]) -> None:
    text = VALID_TEXT
    for position, removed, inserted in edits:
        text = text[:position] + inserted + text[position + removed :]
    read_or_refuse(write(scratch / "config.json", text))


@given(content=st.binary(max_size=60))
@settings(max_examples=80, deadline=None)
def test_any_bytes_are_read_or_are_a_user_error(scratch: pathlib.Path, content: bytes) -> None:
    path = scratch / "config.json"
    path.write_bytes(content)
    read_or_refuse(path)
