"""The command-line parser that every verb uses."""

from __future__ import annotations

import argparse
import difflib
import itertools
import re
import shlex
import sys
from typing import Any, NoReturn

from utils import speaks


class Parser(argparse.ArgumentParser):
    """argparse that answers a mistyped flag with the nearest one, in one sentence."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does; `--flag=--`, which it reads as no value at all, is an error."""
        self.words = list(sys.argv[1:] if args is None else args)
        for word in self.words:
            if word.startswith("--") and word.endswith("=--"):
                self.error(f"argument {word[:-3]}: expected a value")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Print one sentence and exit with 2, as argparse does."""
        for flag in re.findall(r"^argument (?:.*/)?(-\S+): expected (?:at least )?one argument$", message):
            value = next((after for word, after in itertools.pairwise(self.words) if word == flag), "")
            if value.startswith("-") and value.split("=")[0] not in self._option_string_actions:
                message += f'; a value that begins with "-" is written {shlex.quote(f"{flag}={value}")}'
        if message.startswith("unrecognized arguments: "):
            words = message.removeprefix("unrecognized arguments: ").split() or [""]
            word = words[0].split("=")[0]
            known = self._option_string_actions
            close = [flag for flag in known if flag.endswith("." + word.lstrip("-"))]  # --eval_iters, of some section
            close = close or difflib.get_close_matches(word, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else "; see --help."
            message = f"unknown flag {word}{hint}" if word.startswith("-") else f"unexpected '{word}'; see --help."
        if speaks():
            print(f"error: {message}", file=sys.stderr)
        sys.exit(2)
