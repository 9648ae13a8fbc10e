"""Text to token ids and back: byte-pair encoding with GPT-2's vocabulary or one of your own, and three control tokens.

    <|endoftext|> 50256     ends every document
    <|im_start|>  50257     opens a chat turn:  <|im_start|>user\\nHello<|im_end|>\\n
    <|im_end|>    50258     closes it

(These ids are GPT-2's. In any vocabulary the control tokens follow the last token that is text.)

Jojo puts control tokens at turns and document ends only. If a text contains `<|im_start|>`, it is
encoded as ordinary characters. `encode_parsed` is the only exception, for documents that were rendered as ChatML beforehand.
"""

from __future__ import annotations

import codecs
import re
import shlex
import threading
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from jojo.text.vocabulary import SHIPPED, VOCABULARY_SHA256, Vocabulary, gpt2_vocabulary
from utils import UserError, one_line, user_path

# How GPT-2 cuts text before merging: contractions, words, numbers, punctuation, white space (Radford et al. 2019). Here
# words come first, in one group with all parts that need no look-ahead. This cuts at the same places, 1.7 times faster.
SPLIT_PATTERN = r"(?: ?\p{L}+| ?\p{N}+|'(?:[sdmt]|ll|ve|re)| ?[^\s\p{L}\p{N}]+)|\s++$|\s+(?!\S)|\s+"

# A million white-space characters in a row overflow the regular expression engine. If a word follows, GPT-2 always cuts
# before the last of them, so cutting there first changes no id. White space is Unicode's (Python's \s also has \x1c to \x1f).
# If a text has a thousand in a row, every hundredth character has at least nine in a row (SPARSE_SPACE).
SPACE = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
LONG_SPACE = re.compile(rf"(?=[{SPACE}][^{SPACE}])(?<=[{SPACE}]{{1000}})")
SPARSE_SPACE = re.compile(rf"[{SPACE}]{{9}}")

TURN_LINE = re.compile(r"(<\|im_start\|>[^\n]*\n)")
END_OF_TEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

Message = Mapping[str, str]  # {"role": "user", "content": "Hello"}


def _parts(text: str) -> list[str]:
    """The text, cut at LONG_SPACE. With SPARSE_SPACE, most texts skip the slow search."""
    return LONG_SPACE.split(text) if SPARSE_SPACE.search(text[::100]) else [text]


class Tokenizer:
    """A vocabulary with or without ChatML's control tokens."""

    def __init__(self, chatml: bool = True, vocabulary: Vocabulary | None = None) -> None:
        """`vocabulary`: None means GPT-2's; it is read when the first text is encoded."""
        self._own = vocabulary
        self.is_gpt2, self.has_chatml = vocabulary is None, chatml
        self.name = vocabulary.name if vocabulary else "gpt2"
        self.eot_id = len(vocabulary.tokens) if vocabulary else 50256
        names = (END_OF_TEXT, IM_START, IM_END) if chatml else (END_OF_TEXT,)
        self.special_tokens = {name: self.eot_id + i for i, name in enumerate(names)}
        self.n_vocab = self.eot_id + len(names)  # ids in use; GPT-2: 50,259 (50,257 without ChatML)
        self.padded_vocab_size = -(-self.n_vocab // 64) * 64  # 64: for faster matrix products; GPT-2: 50,304
        self._of_thread = threading.local()

    @property
    def end_ids(self) -> set[int]:
        """The control tokens that end a document or a turn."""
        return {i for name, i in self.special_tokens.items() if name != IM_START}

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokens that are text."""
        return self._own or gpt2_vocabulary()

    @property
    def _encoding(self) -> Any:
        """tiktoken.Encoding, built when a thread encodes its first text.

        One for each thread: a shared one would halve the speed, because its regular expressions make threads wait.
        """
        if not hasattr(self._of_thread, "encoding"):
            import tiktoken

            self._of_thread.encoding = tiktoken.Encoding(
                self.name, pat_str=SPLIT_PATTERN, mergeable_ranks=self.vocabulary.ranks,
                special_tokens=self.special_tokens,
            )  # fmt: skip
        return self._of_thread.encoding

    def with_chatml(self, chatml: bool = True) -> Tokenizer:
        return Tokenizer(chatml, self._own)

    def identity(self) -> dict[str, Any]:
        """Plain values that distinguish this tokenizer from every other."""
        return {
            "name": self.name,
            "n_vocab": self.n_vocab,
            "special_tokens": dict(self.special_tokens),
            "vocabulary_sha256": self._own.sha256 if self._own else VOCABULARY_SHA256,
        }

    def definition(self) -> dict[str, Any]:
        """What a checkpoint stores to restore this tokenizer: its identity, and the vocabulary if it is not GPT-2's."""
        return self.identity() | ({"vocabulary": self._own.content.decode("ascii")} if self._own else {})

    def encode(self, text: str) -> list[int]:
        """Ids of plain text. Control-token look-alikes stay text."""
        return [i for part in _parts(text) for i in self._encoding.encode_ordinary(part)]

    def encode_array(self, text: str) -> np.ndarray:
        """`encode` as an array, uint32 (T,): faster, and it lets other threads run."""
        try:
            arrays = [self._encoding.encode_to_numpy(part, disallowed_special=()) for part in _parts(text)]
        except UnicodeEncodeError:  # half a surrogate pair, which `encode` replaces
            return np.array(self.encode(text), np.uint32)
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)

    def encode_parsed(self, text: str) -> list[int]:
        """Ids of text that was rendered with control tokens: `<|im_start|>` becomes the control token.

        A turn's first line is encoded separately, as in `open_turn`, so that a role always has the same ids.
        """
        pieces = TURN_LINE.split(text) if self.has_chatml and IM_START in text else [text]
        parts = (part for piece in pieces for part in _parts(piece))
        return [i for part in parts for i in self._encoding.encode(part, allowed_special="all")]

    def contains_control_text(self, text: str) -> bool:
        return "<|" in text and any(token in text for token in self.special_tokens)

    def open_turn(self, role: str) -> list[int]:
        """The beginning of a chat turn, for the model to continue."""
        self.require_chatml()
        return [self.special_tokens[IM_START], *self.encode(f"{role}\n")]

    def encode_chat(self, messages: Iterable[Message]) -> list[int]:
        """A conversation in ChatML; each turn is <|im_start|>role, newline, content<|im_end|>, newline."""
        ids: list[int] = []
        for message in messages:
            ids += self.open_turn(message["role"]) + self.encode(message["content"])
            ids += [self.special_tokens[IM_END], *self.encode("\n")]
        return ids

    def require_chatml(self) -> None:
        if not self.has_chatml:
            raise UserError("This vocabulary has no chat tokens; leave out --use_base_tokenizer or --chat.")

    def token_bytes(self, token: int) -> bytes:
        """The bytes of one id; b"" for control tokens and padding, which are not text."""
        return self._encoding.decode_single_token_bytes(token) if 0 <= token < self.eot_id else b""

    @cached_property
    def byte_lengths(self) -> np.ndarray:
        """Bytes of text per id, 0 for control tokens, to compute bits per byte: int64 (n_vocab,)."""
        return np.array([len(token) for token in self.vocabulary.tokens] + [0] * len(self.special_tokens))

    def decode(self, ids: Iterable[int], show_control: bool = False) -> str:
        """Text of ids, without control tokens unless `show_control`; bytes that are not UTF-8 become U+FFFD."""
        names = {i: name.encode() for name, i in self.special_tokens.items()} if show_control else {}
        return b"".join(names.get(i) or self.token_bytes(i) for i in ids).decode("utf-8", "replace")


class TextStream:
    """Ids to text, one at a time: a character whose bytes span several tokens is returned once it is complete."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """The text that this id completes."""
        return self._decoder.decode(self._tokenizer.token_bytes(token))

    def finish(self) -> str:
        """The unfinished character as U+FFFD; the stream can be used again."""
        return self._decoder.decode(b"", final=True)


def get_tokenizer(name: str, dataset: str | None = None) -> Tokenizer:
    """The tokenizer that `data.tokenizer` names: gpt2, story, chat, or a vocabulary file.

    Raises UserError if it cannot be read; the message says how to make one for this data set.
    """
    if name == "gpt2":
        return Tokenizer()
    path = SHIPPED.get(name) or user_path(name)
    if not path.is_file():
        named = re.fullmatch(r"data/([^/]+)-(\d+)\.tiktoken", path.as_posix())  # as prepare.py names it
        own = (dataset or named[1]) if named else ""
        flags = ["--name", own, "--train_tokenizer", "--vocab_size", named[2]] if named else ["--train_tokenizer"]
        make = f"make one: python prepare.py {shlex.join(flags)}"
        if named and own != named[1]:
            make += f", and add {shlex.join(['--data.tokenizer', f'data/{own}-{named[2]}.tiktoken'])}"
        raise UserError(f"No tokenizer '{name}' (data.tokenizer); use gpt2, story or chat, or {make}.")
    try:
        return Tokenizer(vocabulary=Vocabulary(path.read_bytes()))
    except ValueError as error:
        raise UserError(f"'{name}' is not a tokenizer made by prepare.py --train_tokenizer: {error}.") from None


def from_definition(definition: Mapping[str, Any], what: str = "This") -> Tokenizer:
    """The tokenizer of a definition. Raises UserError if this version lacks it; `what` begins the message."""
    stored = definition.get("vocabulary")
    try:
        vocabulary = Vocabulary(stored.encode()) if isinstance(stored, str) else None
        for candidate in (Tokenizer(True, vocabulary), Tokenizer(False, vocabulary)):
            if candidate.definition() == dict(definition):
                return candidate
    except (ValueError, RuntimeError):  # RuntimeError: a made-up definition may hold a tensor, which == cannot compare
        pass
    made_with = f"'{one_line(definition.get('name'))}' ({one_line(definition.get('n_vocab'))} tokens)"
    raise UserError(f"{what} was made with the tokenizer {made_with}, which this version does not have.")
