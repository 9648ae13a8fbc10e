"""Tests of README.md and docs/: every command can be typed, every link leads somewhere, every picture is small."""

from __future__ import annotations

import pathlib
import re

import pytest
from helpers_docs import PAGES, ROOT, commands, configs_in, parsed

from utils import UserError

FIRST = [
    "pip install -r requirements.txt && python train.py --config configs/story-small.json",
    'python gen.py models/story_epoch1.pt --prompt "Once upon a time"',
    "pip install -r requirements-dev.txt && pytest",
]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def name(page: pathlib.Path) -> str:
    return page.name


def anchors(page: pathlib.Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in titles}


def dead_links(page: pathlib.Path, text: str) -> list[str]:
    """Links to files and headings of this project that are not there."""
    dead = []
    for link in LINK.findall(text):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if "://" in link:
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    return dead


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_of_a_page_is_one_that_its_program_takes(page: pathlib.Path) -> None:
    text = page.read_text(encoding="utf-8")
    if page.name == "migration.md":  # the first columns of its tables hold commands of other programs
        text = re.sub(r"^\|[^|\n]*\|", "", text, flags=re.MULTILINE)
    for command in commands(text):
        try:
            parsed(command)
        except (SystemExit, UserError) as error:
            if not command.endswith("--help"):
                pytest.fail(f"{command}: {error}")
        assert all((ROOT / file).is_file() for file in configs_in(command)), command


def test_commands_are_found_in_blocks_with_their_parts_and_continued_lines() -> None:
    text = "```\nmake && python train.py --seed 1 \\\n    --epochs 2  # twice\ntorchrun --x 8 train.py --seed 2\n```\n"
    first, second = commands(text)
    assert (parsed(first).__dict__["training.max_epochs"], second) == ("2", "train.py --seed 2")


@pytest.mark.parametrize(
    "command", ["python train.py --epoch 2", "python gen.py a b", "python tools/analyze_mfu.py --epoch 2"]
)
def test_a_wrong_command_on_a_page_would_be_noticed(command: str) -> None:
    with pytest.raises(SystemExit):
        parsed(command)


def test_the_readme_begins_with_the_commands_that_set_everything_up() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```\n(.*?)\n```", text, re.DOTALL | re.MULTILINE)
    assert blocks[:3] == FIRST


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page: pathlib.Path) -> None:
    assert dead_links(page, page.read_text(encoding="utf-8")) == []


def test_a_dead_link_would_be_noticed() -> None:
    text = "[a](docs/data.md#chat) [b](no.md) [c](docs/data.md#no) [d](#no)"
    assert dead_links(ROOT / "README.md", text) == ["no.md", "docs/data.md#no", "#no"]


def test_every_page_of_docs_is_reached_from_the_readme() -> None:
    linked = set(LINK.findall((ROOT / "README.md").read_text(encoding="utf-8")))
    assert {f"docs/{page.name}" for page in PAGES[1:]} <= linked


def test_pictures_are_under_60_kilobytes() -> None:
    assert [file.name for file in (ROOT / "docs").rglob("*.png") if file.stat().st_size > 60_000] == []
