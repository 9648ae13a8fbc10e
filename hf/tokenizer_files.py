"""Writes a tokenizer as the files that transformers reads, and reads such files.

The files are made from the vocabulary alone, which has each token's bytes and rank. The merges in GPT-2's files are computed
from it: after all earlier merges, two parts remain of a token's bytes, and the token merges these two.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from jojo.text.tokenizer import END_OF_TEXT, IM_END, IM_START, Tokenizer
from jojo.text.vocabulary import Vocabulary, byte_letters, gpt2_vocabulary, merges
from utils import UserError, log, one_line, read_object

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "chat_template.jinja")
LARGEST_VOCABULARY = 1 << 24  # bytes of its tokens together: 16 for each of the most tokens that prepare.py learns
CHAT_TEMPLATE = Path(__file__).with_name("chat_template.jinja")


@lru_cache(maxsize=2)
def ids_and_merges(vocabulary: Vocabulary) -> tuple[dict[str, int], list[str]]:
    """A vocabulary's tokens with their ids, and its merges in order, both with bytes written as letters, like in GPT-2's files."""
    letters = byte_letters()

    def written(token: bytes) -> str:
        return token.decode("latin-1").translate(letters)

    ids = {written(token): i for i, token in enumerate(vocabulary.tokens)}
    return ids, [f"{written(a)} {written(b)}" for a, b in merges(vocabulary.tokens)]


def write_tokenizer(tokenizer: Tokenizer, folder: Path, block_size: int) -> None:
    """Write everything `AutoTokenizer.from_pretrained(folder)` needs."""
    from tokenizers import Tokenizer as Writer
    from tokenizers import decoders, models, pre_tokenizers, processors

    text, pairs = ids_and_merges(tokenizer.vocabulary)
    vocabulary = text | {END_OF_TEXT: tokenizer.eot_id}
    whole: Any = Writer(models.BPE(vocabulary, [(a, b) for a, b in map(str.split, pairs)]))
    whole.pre_tokenizer, whole.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    begin = END_OF_TEXT  # as gen.py begins every prompt
    whole.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", pair=f"{begin} $A {begin} $B", special_tokens=[(begin, tokenizer.eot_id)]
    )
    whole.add_special_tokens([*tokenizer.special_tokens])
    settings: dict[str, Any] = {
        "tokenizer_class": "GPT2Tokenizer",
        "add_bos_token": True,  # for programs that read only vocab.json and merges.txt
        "add_prefix_space": False,
        "padding_side": "left",  # so that `generate` continues each text of a batch
        **dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), END_OF_TEXT),
        "clean_up_tokenization_spaces": False,
        "errors": "replace",
        "model_max_length": block_size,
    }
    texts = {}
    if tokenizer.has_chatml:
        settings["additional_special_tokens"] = [IM_START, IM_END]
        texts["chat_template.jinja"] = CHAT_TEMPLATE.read_text(encoding="utf-8")
    texts["tokenizer.json"] = whole.to_str()
    texts["tokenizer_config.json"] = json.dumps(settings, indent=2) + "\n"
    texts["vocab.json"] = json.dumps(vocabulary, ensure_ascii=False)
    texts["merges.txt"] = "\n".join(["#version: 0.2", *pairs, ""])
    for name, content in texts.items():
        (folder / name).write_text(content, encoding="utf-8", newline="\n")


def read_tokenizer(folder: Path, vocab_size: int, recorded: Any = None) -> Tokenizer:
    """The tokenizer of a model folder; without tokenizer files, the one with the `recorded` identity, or else GPT-2's.

    `vocab_size` is the number of rows of the model's embedding.
    Raises UserError if it does not split text as GPT-2's does, or has tokens that cannot be kept.
    """
    whole, ids = _object_in(folder / "tokenizer.json"), _object_in(folder / "vocab.json")
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        return _recorded_tokenizer(folder, vocab_size, recorded)
    if whole:
        ids, vocabulary = _object(_object(whole.get("model")).get("vocab")), _vocabulary_in(whole)
    else:
        text, _ = ids_and_merges(gpt2_vocabulary())
        vocabulary = gpt2_vocabulary() if text.items() <= ids.items() else None
    listed = whole.get("added_tokens")
    entries = [_object(entry) for entry in listed] if isinstance(listed, list) else []
    added = {entry["content"]: entry.get("id") for entry in entries if isinstance(entry.get("content"), str)}
    known = ids | _object_in(folder / "added_tokens.json") | added
    plain = Tokenizer(chatml=False, vocabulary=None if vocabulary is gpt2_vocabulary() else vocabulary)
    stem = f"The model in '{folder}' has"
    if vocabulary is None or known.get(END_OF_TEXT) != plain.eot_id:
        raise UserError(f"{stem} a tokenizer that is neither GPT-2's nor made here; this version cannot read it.")
    if vocab_size < plain.n_vocab:
        raise UserError(f"{stem} {vocab_size:,} tokens, fewer than its tokenizer's {plain.n_vocab:,}.")
    full = plain.with_chatml()
    has_chatml = all(known.get(name) == full.special_tokens[name] for name in (IM_START, IM_END))
    own = full if has_chatml and vocab_size >= full.n_vocab else plain
    others = [name for name, i in known.items() if type(i) is int and own.n_vocab <= i < vocab_size]
    if lost := [name for name in others if name.strip("<[|]>").lower() != "pad"]:
        tokens = one_line(", ".join(lost))
        raise UserError(f"{stem} tokens beyond the vocabulary ({tokens}); this version cannot keep them.")
    return own


def _recorded_tokenizer(folder: Path, vocab_size: int, recorded: Any) -> Tokenizer:
    """The tokenizer of a folder without tokenizer files."""
    known = [tokenizer for tokenizer in (Tokenizer(), Tokenizer(chatml=False)) if tokenizer.n_vocab <= vocab_size]
    if recorded is not None:
        if found := next((tokenizer for tokenizer in known if tokenizer.identity() == recorded), None):
            return found
        raise UserError(f"The model in '{folder}' was made with a tokenizer whose files are missing there.")
    if not known:
        raise UserError(f"The model in '{folder}' has no tokenizer, and fewer tokens than GPT-2's: {vocab_size:,}.")
    if vocab_size > known[-1].n_vocab:
        log.warning("'%s' has no tokenizer; its first %s tokens count as GPT-2's.", folder, f"{known[-1].n_vocab:,}")
    return known[-1]


def _vocabulary_in(whole: Mapping[str, Any]) -> Vocabulary | None:
    """The vocabulary in a tokenizer.json; None if our tokenizer would split text differently."""
    model, cut = _object(whole.get("model")), _object(whole.get("pre_tokenizer"))
    rules = (whole.get("normalizer"), cut.get("type"), cut.get("add_prefix_space", False), cut.get("use_regex", True))
    if rules != (None, "ByteLevel", False, True):
        return None
    bytes_of = {letter: byte for byte, letter in enumerate(byte_letters())}
    try:
        ids = model["vocab"]
        tokens = {name: i for name, i in ids.items() if i < ids[END_OF_TEXT]}
        pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
        if (tokens, pairs) == ids_and_merges(gpt2_vocabulary()):
            return gpt2_vocabulary()
        in_order = [bytes(bytes_of[c] for c in name) for name in sorted(tokens, key=tokens.__getitem__)]
        if sum(map(len, in_order)) > LARGEST_VOCABULARY:
            return None
        vocabulary = Vocabulary(b"".join(base64.b64encode(t) + b" %d\n" % i for i, t in enumerate(in_order)))
        return vocabulary if (tokens, pairs) == ids_and_merges(vocabulary) else None
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _object_in(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if there is no file."""
    return read_object(path) if path.is_file() else {}


def _object(value: Any) -> dict[str, Any]:
    """The value if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}
