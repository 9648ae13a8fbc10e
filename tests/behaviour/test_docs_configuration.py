"""Compares docs/configuration.md with the code: options, defaults, units, texts, short flags and examples."""

from __future__ import annotations

import json
import pathlib
import re

import pytest

from config import OPTIONS, SECTIONS, Config, Option, resolve
from jojo.config_file import file_layers, strip_comments
from jojo.schedule import derive_schedule
from training.flags import ALIASES

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")


def section_of(title: str) -> str:
    """The text under a heading, up to the next one of any level."""
    match = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert match, f"docs/configuration.md has no heading '{title}'"
    return match[1]


def table(title: str) -> list[list[str]]:
    """The cells of the rows of the table under a heading, unescaped."""
    rows = [line for line in section_of(title).splitlines() if line.startswith("|")][2:]
    return [[re.sub(r"\\([|<])", r"\1", cell.strip()) for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


def default_with_unit(opt: Option) -> str:
    if opt.default is None:
        return f"null ({opt.unit})" if opt.unit else "null"
    text = json.dumps(opt.default) if opt.type is bool else str(opt.default)
    return f"{text} {opt.unit}" if opt.unit else text


@pytest.mark.parametrize("section", SECTIONS)
def test_the_tables_list_every_option_as_the_code_has_it(section: str) -> None:
    expected = [
        [f"`{name.split('.')[1]}`", default_with_unit(opt), opt.help]
        for name, opt in OPTIONS.items()
        if name.startswith(section + ".")
    ]
    assert table(section) == expected


def test_every_section_of_the_page_quotes_its_docstring_in_the_code() -> None:
    for section, cls in SECTIONS.items():
        assert cls.__doc__ and cls.__doc__.splitlines()[0] in section_of(section)


def test_the_table_of_short_flags_is_that_of_the_parser() -> None:
    assert table("Flags") == [[f"`{flag}`", f"`{name}`"] for flag, name in ALIASES.items()]


def test_the_example_file_is_a_valid_config() -> None:
    example = re.search(r"```json\n(.*?)```", section_of("Files"), re.DOTALL)
    assert example
    values = json.loads(strip_comments(example[1]))
    assert (ROOT / "configs" / values.pop("extends")).is_file()
    assert Config.from_dict(values).scheduler.min_lr is None


def test_null_is_allowed_exactly_where_it_is_the_default() -> None:
    assert [name for name, opt in OPTIONS.items() if opt.optional != (opt.default is None)] == []


def test_the_example_of_show_config_has_the_values_of_the_config(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    layers = [*file_layers(pathlib.Path("configs/story-small.json")), ("--batch_size", {"training": {"batch_size": 8}})]
    config, sources = resolve(layers)
    assert config.training.max_iters
    schedule, section, checked = derive_schedule(config, config.training.max_iters), "", []
    example = re.search(r"```\n(.*?)```", section_of("What would run"), re.DOTALL)
    assert example
    for line in filter(None, example[1].splitlines()):
        if line.startswith("["):
            section = line.strip("[]")
            continue
        key, value, source = re.split(r"  +", line.strip())
        name = f"{section}.{key}"
        checked.append(name)
        expected = schedule.warmup if name == "scheduler.warmup_iters" else config.get(name)
        assert value == f"{expected} {OPTIONS[name].unit}".strip()
        assert source == sources[name] or source.startswith("derived: ")
    assert len(checked) == 4
