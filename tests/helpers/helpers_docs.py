"""Reads the documentation for the tests: its pages, the commands in them, and what the programs make of a command."""

from __future__ import annotations

import argparse
import importlib
import pathlib
import re
import shlex
from typing import Any
from unittest import mock

from config import resolve
from jojo.command import Parser
from jojo.config_file import config_layers
from training.flags import build_parser, overrides

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PASS_ON = (
    "analyze_mfu",
    "plan_scaling",
    "test_memory_limits",
    "test_mfu_optimization",
)  # tools that take train.py's flags too
PLAIN_PARSE = Parser.parse_known_args


class _Parsed(Exception):
    """Ends a command as soon as its flags are read."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__()
        self.arguments = arguments


def parsed_by_train(words: list[str]) -> argparse.Namespace:
    """The flags as train.py reads them; the types of their values are checked, too."""
    arguments = build_parser().parse_args(words)
    resolve(config_layers(None, overrides(arguments, words)), partial=True)
    return arguments


def parsed(command: str) -> argparse.Namespace:
    """The command as its program reads it; flags alone are train.py's. SystemExit or UserError: the program refuses it."""
    words = shlex.split(command.removeprefix("python "), comments=True)
    script = words.pop(0).removesuffix(".py") if words[0].endswith(".py") else "train"
    if script == "train":
        return parsed_by_train(words)

    def parse_and_stop(self: Parser, args: Any = None, namespace: Any = None) -> Any:
        own, others = PLAIN_PARSE(self, args, namespace)
        if script.endswith(PASS_ON):
            with mock.patch.object(Parser, "parse_known_args", PLAIN_PARSE):
                parsed_by_train(others)
        elif others:
            self.error(f"unrecognized arguments: {' '.join(others)}")
        raise _Parsed(own)

    main = importlib.import_module(script.replace("/", ".")).main
    with mock.patch.object(Parser, "parse_known_args", parse_and_stop):
        try:
            main(words)
        except _Parsed as found:
            return found.arguments
    raise AssertionError(f"{script} reads no flags")


def commands(text: str) -> list[str]:
    """The commands of a page, in fenced blocks and between backticks, that run a program of this project."""
    blocks = re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    inline = re.findall(r"`(python [^`\n]+)`", text)
    lines = "\n".join([*blocks, *inline]).replace("\\\n", " ").splitlines()
    parts = [part.strip() for line in lines for part in line.split("&&")]
    return [
        re.sub(r"^torchrun .*?(?=train\.py)", "", part) for part in parts if re.match(r"python \S+\.py|torchrun ", part)
    ]


def configs_in(command: str) -> list[str]:
    """The config files of this project that a command names."""
    return re.findall(r"configs/[\w.-]+\.json", command)
