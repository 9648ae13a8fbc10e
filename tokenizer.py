"""Text to token ids and back: GPT-2's byte-pair encoding, extended with the three control tokens of ChatML.

    <|endoftext|> 50256     ends every document
    <|im_start|>  50257     opens a chat turn:  <|im_start|>user\\nHello<|im_end|>\\n
    <|im_end|>    50258     closes it

Control tokens come from structure only. Text that happens to contain `<|im_start|>` is encoded letter by letter and
can never forge one; `encode_parsed` is the single exception, for documents that were rendered as ChatML beforehand.
"""

from __future__ import annotations

import base64
import codecs
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from utils import UserError, one_line

VOCABULARY_FILE = Path(__file__).resolve().parent / "assets" / "gpt2.tiktoken"
VOCABULARY_SHA256 = "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"

# How GPT-2 cuts text before merging: contractions, words, numbers, punctuation, white space (Radford et al. 2019).
SPLIT_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s++$|\s+(?!\S)|\s+"

# A million white-space characters in a row are more than a regular expression engine takes. GPT-2 always cuts before the
# last one that precedes a word, so cutting there beforehand changes no id.
LONG_SPACE = re.compile(r"(?=[ \t\r\n]\S)(?<=[ \t\r\n]{1000})")

END_OF_TEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

Message = Mapping[str, str]  # {"role": "user", "content": "Hello"}


class Tokenizer:
    """GPT-2's vocabulary with or without ChatML.

    Attributes:
        name: "gpt2"; what `data.tokenizer` names.
        special_tokens: control tokens and their ids.
        n_vocab: ids in use, 50,259 (50,257 without ChatML). The model's rows beyond are padding, never sampled.
    """

    def __init__(self, chatml: bool = True) -> None:
        self.name = "gpt2"
        self.special_tokens = {END_OF_TEXT: 50256} | ({IM_START: 50257, IM_END: 50258} if chatml else {})
        self.n_vocab = 50256 + len(self.special_tokens)
        self.eot_id = self.special_tokens[END_OF_TEXT]

    @cached_property
    def _encoding(self) -> Any:  # tiktoken.Encoding, imported and built when the first text is encoded
        import tiktoken

        return tiktoken.Encoding(
            "gpt2", pat_str=SPLIT_PATTERN, mergeable_ranks=self._ranks, special_tokens=self.special_tokens
        )

    @cached_property
    def _ranks(self) -> dict[bytes, int]:
        try:
            content = VOCABULARY_FILE.read_bytes()
        except FileNotFoundError:
            raise UserError(f"'{VOCABULARY_FILE}' is missing; restore it from the repository.") from None
        if hashlib.sha256(content).hexdigest() != VOCABULARY_SHA256:
            raise UserError(f"'{VOCABULARY_FILE}' is damaged (wrong SHA-256); restore it from the repository.")
        return {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in content.splitlines())}

    @property
    def padded_vocab_size(self) -> int:
        """n_vocab rounded up to 64, which matrix units like: 50,304."""
        return -(-self.n_vocab // 64) * 64

    @property
    def has_chatml(self) -> bool:
        return IM_START in self.special_tokens

    def definition(self) -> dict[str, Any]:
        """Everything a checkpoint or cache must hold to know this tokenizer again; plain values."""
        return {
            "name": self.name,
            "n_vocab": self.n_vocab,
            "special_tokens": dict(self.special_tokens),
            "vocabulary_sha256": VOCABULARY_SHA256,
        }

    def encode(self, text: str) -> list[int]:
        """Ids of plain text. Control-token look-alikes stay text."""
        return [i for part in LONG_SPACE.split(text) for i in self._encoding.encode_ordinary(part)]

    def encode_parsed(self, text: str) -> list[int]:
        """Ids of text that was rendered with control tokens: `<|im_start|>` becomes the control token."""
        return [i for part in LONG_SPACE.split(text) for i in self._encoding.encode(part, allowed_special="all")]

    def looks_controlled(self, text: str) -> bool:
        """Whether text contains something written like a control token."""
        return "<|" in text and any(token in text for token in self.special_tokens)

    def encode_turn(self, role: str, content: str) -> list[int]:
        """One finished chat turn: <|im_start|>role, newline, content<|im_end|>, newline."""
        return [*self.open_turn(role), *self.encode(content), self.special_tokens[IM_END], *self.encode("\n")]

    def open_turn(self, role: str) -> list[int]:
        """The beginning of a chat turn, for the model to go on from."""
        self.require_chatml()
        return [self.special_tokens[IM_START], *self.encode(f"{role}\n")]

    def encode_chat(self, messages: Iterable[Message]) -> list[int]:
        """A conversation in ChatML."""
        return [i for message in messages for i in self.encode_turn(message["role"], message["content"])]

    def require_chatml(self) -> None:
        """Raises UserError where the vocabulary has no chat tokens."""
        if not self.has_chatml:
            raise UserError("This vocabulary has no chat tokens; leave out --use_base_tokenizer or --chat.")

    def token_bytes(self, token: int) -> bytes:
        """The bytes one id stands for; b"" for control and padded ids, which are not text."""
        return self._encoding.decode_single_token_bytes(token) if 0 <= token < self.eot_id else b""

    @cached_property
    def byte_lengths(self) -> list[int]:
        """Bytes of text per id, 0 for control tokens: what bits per byte are counted with. Length n_vocab."""
        lengths = [0] * self.n_vocab
        for token, rank in self._ranks.items():
            lengths[rank] = len(token)
        return lengths

    def decode(self, ids: Iterable[int], show_control: bool = False) -> str:
        """Text of ids; bytes that are not UTF-8 become U+FFFD. Control tokens are left out unless asked for."""
        return "".join(self.decode_stream(ids, show_control))

    def decode_stream(self, ids: Iterable[int], show_control: bool = False) -> Iterator[str]:
        """One string per id (empty while a character is unfinished), then what is left at the end."""
        names = {i: name for name, i in self.special_tokens.items()} if show_control else {}
        stream = TextStream(self)
        for token in ids:
            yield stream.finish() + names[token] if token in names else stream.push(token)
        yield stream.finish()


class TextStream:
    """Ids to text one at a time: a character whose bytes span several tokens comes out once it is whole."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """The text that becomes certain with this id."""
        return self._decoder.decode(self._tokenizer.token_bytes(token))

    def finish(self) -> str:
        """What is left unfinished, as U+FFFD; the stream can go on afterwards."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest


def get_tokenizer(name: str) -> Tokenizer:
    """The tokenizer that `data.tokenizer` names."""
    if name != "gpt2":
        raise UserError(f"No tokenizer '{name}'; data.tokenizer knows 'gpt2'.")
    return Tokenizer()


def from_definition(definition: Mapping[str, Any], what: str = "This") -> Tokenizer:
    """The tokenizer that `what` was made with. Raises UserError when this version cannot reproduce it."""
    for candidate in (Tokenizer(), Tokenizer(chatml=False)):
        try:
            if candidate.definition() == dict(definition):
                return candidate
        except RuntimeError:  # a tensor in it, which is not equal to anything in one way
            break
    raise UserError(
        f"{what} was made with the tokenizer '{one_line(definition.get('name'))}' "
        f"({one_line(definition.get('n_vocab'))} tokens), which this version does not have."
    )
