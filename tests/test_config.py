"""Tests of config.py: defaults, precedence, and every way a config can be wrong."""

from __future__ import annotations

import dataclasses
import difflib
import json
import pathlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import config
from config import OPTIONS, SECTIONS, Config, resolve
from jojo.config_file import file_layers, read_json, save_config
from utils import UserError

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """One folder for all examples of a Hypothesis test."""
    return tmp_path_factory.mktemp("configs")


def write(path: pathlib.Path, content: Any) -> pathlib.Path:
    """Write this text, or this value as JSON, and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def problem_of(*layers: Any) -> str:
    """The error that resolve() raises for these layers, which are named a, b, c, ..."""
    with pytest.raises(UserError) as caught:
        resolve(list(zip("abcdef", layers, strict=False)))
    return str(caught.value)


# --- defaults and fields --------------------------------------------------------------------------------------------


def test_without_layers_every_option_has_its_default() -> None:
    built, sources = resolve([])
    assert built == Config()
    assert set(sources) == set(OPTIONS)
    assert set(sources.values()) == {"default"}


def test_every_default_is_valid() -> None:
    for opt in OPTIONS.values():
        assert config.check_value(opt, opt.default) == (opt.default, ""), opt.name


def test_every_section_and_field_of_version_2_1_still_exists() -> None:
    wanted = {
        "model": "n_layer n_head n_embd block_size dropout bias vocab_size",
        "optimizer": "learning_rate weight_decay beta1 beta2 grad_clip",
        "scheduler": "decay_lr warmup_iters lr_decay_iters min_lr warmup_fraction cooldown_fraction",
        "training": "max_epochs max_iters batch_size gradient_accumulation_steps eval_iters eval_interval log_interval "
        "save_checkpoints checkpoint_interval compile_model train_batches val_batches",
        "system": "device dtype seed num_workers pin_memory memory_fraction optimize_memory allow_tf32_matmul "
        "allow_tf32_cudnn",
        "data": "dataset_name data_dir cache_tokenized cache_dir",
    }
    assert list(SECTIONS) == list(wanted)
    for section, names in wanted.items():
        assert set(names.split()) <= {field.name for field in dataclasses.fields(SECTIONS[section])}


def test_every_option_has_a_one_line_help_text() -> None:
    for opt in OPTIONS.values():
        assert opt.help and "\n" not in opt.help, opt.name
        assert opt.default is not None or opt.optional, opt.name


def test_a_batch_has_one_micro_batch_by_default_and_otherwise_gradient_accumulation_steps() -> None:
    built = Config.from_dict({"training": {"batch_size": 3, "gradient_accumulation_steps": 5}})
    assert Config().training.gradient_accumulation_steps == 1
    assert built.rows_per_batch == 15
    assert built.tokens_per_batch == 15 * built.model.block_size


def test_get_and_set_use_dotted_names() -> None:
    built = Config()
    built.set("model.n_layer", 3)
    assert built.model.n_layer == built.get("model.n_layer") == 3


# --- precedence -----------------------------------------------------------------------------------------------------


def test_a_later_layer_overrides_an_earlier_one_and_is_named_as_the_source(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "base.json", {"model": {"n_layer": 3, "n_head": 3, "block_size": 33}})
    write(tmp_path / "run.json", {"extends": "base.json", "model": {"n_head": 4, "block_size": 44}})
    loaded = {"model": {"n_layer": 2, "n_head": 2, "block_size": 22, "dropout": 0.2}}
    layers = [("checkpoint x.pt", loaded), *file_layers(tmp_path / "run.json"), ("--b", {"model": {"block_size": 55}})]
    built, sources = resolve(layers)
    model = built.model
    assert (model.n_embd, model.dropout, model.n_layer, model.n_head, model.block_size) == (384, 0.2, 3, 4, 55)
    assert [sources[f"model.{key}"] for key in ("n_embd", "dropout", "n_layer", "n_head", "block_size")] == [
        "default", "checkpoint x.pt", str(tmp_path / "base.json"), str(tmp_path / "run.json"), "--b",
    ]  # fmt: skip


def test_null_in_a_later_layer_unsets_an_earlier_value() -> None:
    built, sources = resolve([("a", {"training": {"max_iters": 5}}), ("b", {"training": {"max_iters": None}})])
    assert built.training.max_iters is None
    assert sources["training.max_iters"] == "b"


def test_a_later_layer_can_resolve_a_contradiction() -> None:
    built, _ = resolve([("a", {"model": {"n_embd": 100}}), ("b", {"model": {"n_head": 5}})])
    assert built.model.n_embd // built.model.n_head == 20


def test_options_that_are_missing_have_their_defaults() -> None:
    assert Config.from_dict({"model": {"n_layer": 2}}).optimizer == Config().optimizer
    assert Config.from_dict({}) == Config()


def test_resolve_changes_neither_the_layers_nor_the_defaults() -> None:
    layer = {"model": {"n_layer": 2}}
    resolve([("a", layer), ("b", {"model": {"n_layer": 9}})])
    assert layer == {"model": {"n_layer": 2}}
    assert Config().model.n_layer == OPTIONS["model.n_layer"].default


# --- what is refused ------------------------------------------------------------------------------------------------


def test_an_unknown_key_is_refused_with_the_nearest_known_key() -> None:
    problem = problem_of({"model": {"n_layr": 4}})
    assert problem.startswith("a: ") and "'model.n_layr'" in problem and "did you mean" in problem
    assert "n_layer'" in problem


def test_an_unknown_section_is_refused_with_the_nearest_known_section() -> None:
    problem = problem_of({"trainning": {}})
    assert "'trainning'" in problem and "did you mean 'training'" in problem


@pytest.mark.parametrize(
    ("section", "key", "meant"),
    [
        ("training", "learning_rate", "optimizer.learning_rate"),
        ("model", "seed", "system.seed"),
        ("system", "dataset_name", "data.dataset_name"),
        ("model", "batch_size", "training.batch_size"),  # although model.block_size is spelled similarly
        ("training", "min_lr", "scheduler.min_lr"),
        ("optimizer", "lr", "optimizer.learning_rate"),  # the name in other projects
    ],
)
def test_an_option_in_the_wrong_section_is_refused_with_its_right_section(section: str, key: str, meant: str) -> None:
    problem = problem_of({section: {key: 1}})
    assert f"'{section}.{key}'" in problem
    assert f"did you mean '{meant}'" in problem


def test_an_unknown_key_unlike_any_option_gets_no_suggestion() -> None:
    assert "did you mean" not in problem_of({"model": {"zzzzqqqq": 1}})


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("model.n_layer", "6", "must be a whole number"),
        ("model.n_layer", 6.5, "must be a whole number"),
        ("model.n_layer", True, "must be a whole number, not true"),
        ("model.n_layer", None, "must be a whole number, not null"),
        ("model.n_layer", [6], "must be a whole number"),
        ("model.n_layer", {"x": 1}, "must be a whole number"),
        ("model.n_layer", float("nan"), "must be a whole number"),
        ("model.n_layer", float("inf"), "must be a whole number"),
        ("model.bias", 1, "must be true or false, not 1"),
        ("model.bias", "true", "must be true or false"),
        ("model.dropout", "0.1", "must be a number"),
        ("model.dropout", False, "must be a number, not false"),
        ("optimizer.learning_rate", float("nan"), "must be a finite number"),
        ("optimizer.learning_rate", float("inf"), "must be a finite number"),
        ("optimizer.learning_rate", 10**400, "number"),
        ("training.max_iters", "many", "must be a whole number or null"),
        ("data.dataset_name", 7, "must be a string"),
        ("system.device", None, "must be a string, not null"),
    ],
    ids=lambda item: str(item)[:30],
)
def test_a_value_of_the_wrong_type_is_refused_with_the_right_type(name: str, value: Any, words: str) -> None:
    section, key = name.split(".")
    problem = problem_of({section: {key: value}})
    assert f"'{name}'" in problem and words in problem


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("model.n_layer", 0, "at least 1, not 0"),
        ("model.n_layer", -(10**400), "at least 1"),
        ("model.block_size", 1, "at least 2"),
        ("model.dropout", 1, "below 1"),
        ("model.dropout", -0.1, "at least 0"),
        ("optimizer.learning_rate", 0, "above 0"),
        ("optimizer.beta2", 1.0, "below 1"),
        ("scheduler.cooldown_fraction", 1.5, "at most 1"),
        ("system.memory_fraction", 0, "above 0"),
        ("training.max_iters", 0, "at least 1"),
        ("system.seed", -1, "at least 0"),
        ("system.dtype", "bfloat", "did you mean 'bfloat16'"),
        ("scheduler.kind", "linear", "one of cosine, wsd"),
    ],
    ids=lambda item: str(item)[:30],
)
def test_a_value_outside_its_limits_is_refused_with_the_limit(name: str, value: Any, words: str) -> None:
    section, key = name.split(".")
    problem = problem_of({section: {key: value}})
    assert f"'{name}'" in problem and words in problem


def test_whole_floats_become_ints_and_ints_become_floats_as_the_option_needs() -> None:
    built = Config.from_dict({"model": {"n_layer": 4.0, "dropout": 0}})
    assert (built.model.n_layer, type(built.model.n_layer)) == (4, int)
    assert (built.model.dropout, type(built.model.dropout)) == (0.0, float)


def test_several_problems_are_reported_at_once() -> None:
    problem = problem_of(
        {"model": {"n_layr": 4, "n_embd": "wide"}, "sistem": {}}, {"optimizer": {"beta1": 2}, "data": 5}
    )
    assert problem.startswith("5 problems")
    assert len(problem.splitlines()) == 6
    for words in (
        "a: unknown option 'model.n_layr'",
        "'model.n_embd'",
        "'sistem'",
        "b: 'optimizer.beta1'",
        "b: section 'data'",
    ):
        assert words in problem


def test_contradictions_are_reported_together_with_other_problems() -> None:
    problem = problem_of({"model": {"n_embd": 100, "n_head": 7, "bias": 3}, "data": {"dataset_name": "a/b"}})
    assert problem.startswith("3 problems")
    assert "n_embd 100" in problem and "n_head 7" in problem and "a/b" in problem and "model.bias" in problem


def test_an_output_layer_that_is_the_embedding_has_no_rate_of_its_own() -> None:
    values = {"model": {"architecture": "qwen3"}, "optimizer": {"output_learning_rate": 0.01}}
    assert "is for an output layer of its own" in problem_of(values)
    values["model"]["tie_embeddings"] = False  # type: ignore[assignment]
    assert Config.from_dict(values).optimizer.output_learning_rate == 0.01


def test_a_refused_value_is_not_reported_again_as_a_contradiction() -> None:
    assert "divisible" not in problem_of({"model": {"n_embd": 100, "n_head": "seven"}})


def test_an_n_embd_not_divisible_by_n_head_is_refused_with_a_number_of_heads_that_fits() -> None:
    problem = problem_of({"model": {"n_embd": 100, "n_head": 7}})
    assert "not divisible" in problem and "5 heads" in problem


@pytest.mark.parametrize(
    "model", [{"n_kv_head": 2}, {"rope_theta": 5.0}, {"tie_embeddings": False}, {"architecture": "qwen3", "bias": True}]
)
def test_an_option_that_the_architecture_does_not_have_is_refused_by_name(model: dict[str, Any]) -> None:
    has, has_not = ("gpt2", "qwen3") if "bias" in model else ("qwen3", "gpt2")
    message = rf"^model\.{list(model)[-1]} .*: the architecture {has_not} does not have this option \({has} has\)"
    with pytest.raises(UserError, match=message):
        Config.from_dict({"model": model})


def test_a_min_lr_above_the_learning_rate_is_refused() -> None:
    assert "min_lr" in problem_of({"scheduler": {"min_lr": 0.1}, "optimizer": {"learning_rate": 0.01}})
    Config.from_dict({"scheduler": {"min_lr": 0.01}, "optimizer": {"learning_rate": 0.01}})


@pytest.mark.parametrize("name", ["", "a/b", "../x", "/", "."])
def test_a_dataset_name_that_is_not_a_plain_name_is_refused(name: str) -> None:
    assert "dataset_name" in problem_of({"data": {"dataset_name": name}})


@pytest.mark.parametrize("values", [[], "text", 3, None])
def test_a_layer_that_is_not_a_json_object_is_refused(values: Any) -> None:
    assert "JSON object" in problem_of(values)


@pytest.mark.parametrize("text", ["a\0b", "a\nb", "\x1b[2J", "\ud800", "\udfff", "a" * 10_001])
def test_text_that_is_endless_or_not_printable_unicode_is_refused(text: str) -> None:
    assert "'data.data_dir' must be printable Unicode text" in problem_of({"data": {"data_dir": text}})


def test_only_the_beginning_of_an_endless_name_is_compared_with_known_names(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []
    monkeypatch.setattr(difflib, "get_close_matches", lambda name, *_, **__: compared.append(name) or [])
    for values in ({"model": {"n" * 10**6: 1}}, {"m" * 10**6: {}}, {"optimizer": {"kind": "a" * 9_000}}):
        problem_of(values)
    assert [len(name) for name in compared] == [100] * 3


@pytest.mark.parametrize("text", ["\udcff", "\u3000", "👩\u200d💻", "\xa0"])
def test_any_text_that_a_path_can_contain_is_accepted(text: str) -> None:
    assert Config.from_dict({"data": {"data_dir": text}}).data.data_dir == text


@pytest.mark.parametrize("seed", [2**64, 10**30])
def test_a_seed_beyond_64_bits_is_refused(seed: int) -> None:
    assert "system.seed" in problem_of({"system": {"seed": seed}})


def test_default_json_contains_every_option_with_its_default() -> None:
    values = read_json(ROOT / "configs" / "default.json")
    assert values == Config().to_dict()
    assert list(values) == list(SECTIONS)


def test_shipped_configs_are_valid() -> None:
    paths = sorted((ROOT / "configs").glob("*.json"))
    assert {"default.json", "story-small.json"} <= {path.name for path in paths}
    for path in paths:
        resolve(file_layers(path))


# --- round trips ------------------------------------------------------------------------------------------------


def values_of(opt: config.Option) -> st.SearchStrategy[Any]:
    """Valid values of an option."""
    low, above, below, high = (opt.limits.get(key) for key in ("at_least", "above", "below", "at_most"))
    values: st.SearchStrategy[Any]
    if opt.choices:
        values = st.sampled_from(opt.choices)
    elif opt.type is bool:
        values = st.booleans()
    elif opt.type is int:
        values = st.integers(int(low or 0), min(int(high or 10**6), 10**6))
    elif opt.type is float:
        bottom = max(x for x in (low, above, 0.0) if x is not None)
        top = min(x for x in (high, below, 1e6) if x is not None)
        values = st.floats(bottom, top, exclude_min=above is not None, exclude_max=below is not None)
    else:
        values = st.text(
            st.characters(exclude_characters="/", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12
        )
    return st.none() | values if opt.optional else values


@st.composite
def valid_values(draw: st.DrawFn) -> dict[str, dict[str, Any]]:
    """Valid config values for any subset of the options, without contradictions."""
    names = draw(st.lists(st.sampled_from(sorted(OPTIONS)), unique=True, max_size=20))
    values: dict[str, dict[str, Any]] = {}
    for name in names:
        section, key = name.split(".")
        values.setdefault(section, {})[key] = draw(values_of(OPTIONS[name]))
    model = values.setdefault("model", {})
    model["n_head"] = draw(st.integers(1, 64))
    model["n_embd"] = model["n_head"] * 2 * draw(st.integers(1, 32))
    if model.get("n_kv_head"):
        model["n_kv_head"] = draw(st.sampled_from([n for n in range(1, 65) if model["n_head"] % n == 0]))
    for key in [key for key in model if OPTIONS[f"model.{key}"].only not in ("", model.get("architecture", "gpt2"))]:
        del model[key]
    if model.get("tie_embeddings", True):
        values.get("optimizer", {}).pop("output_learning_rate", None)
    rate = values.get("optimizer", {}).get("learning_rate", OPTIONS["optimizer.learning_rate"].default)
    if (values.get("scheduler", {}).get("min_lr") or 0) > rate:
        values["scheduler"]["min_lr"] = rate
    if values.get("data", {}).get("dataset_name") in (".", ".."):
        values["data"]["dataset_name"] = "dots"
    return values


@given(valid_values())
@settings(max_examples=60, deadline=None)
def test_a_valid_config_is_unchanged_by_a_json_round_trip(values: dict[str, dict[str, Any]]) -> None:
    built = Config.from_dict(values)
    for section, entries in values.items():
        for key, value in entries.items():
            assert built.get(f"{section}.{key}") == value
    again = Config.from_dict(json.loads(json.dumps(built.to_dict())))
    assert again == built
    assert again.to_dict() == built.to_dict()


@given(values=valid_values())
@settings(max_examples=20, deadline=None)
def test_a_saved_config_is_read_back_unchanged(scratch: pathlib.Path, values: dict[str, dict[str, Any]]) -> None:
    built, path = Config.from_dict(values), scratch / "new folder" / "saved.json"
    save_config(built, path)
    assert resolve(file_layers(path))[0] == built
