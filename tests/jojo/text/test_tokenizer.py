"""Tests of the tokenizer: exactly GPT-2's ids, control tokens never from text, and text that survives the round trip."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers_data import LOOKALIKES, ROOT, byte_letters, examples, reference_tokenizer
from hypothesis import example, given
from hypothesis import strategies as st

from jojo.text import tokenizer as tokenizer_module
from jojo.text import vocabulary
from jojo.text.tokenizer import TextStream, Tokenizer, from_definition, get_tokenizer
from jojo.text.vocabulary import SHIPPED, train_vocabulary
from recipes.chitchat import VALIDATION_EVERY, conversation
from recipes.story import sample_lines
from utils import UserError

EOT, START, END = 50256, 50257, 50258
GPT2 = get_tokenizer("gpt2")

snippets = st.sampled_from(
    ["the", " Once", "'ll", "'S", "'", " 's", "re",
     "\n", "\n\n", "  ", "\t", " 42", "3rd", "é", "日本語", "👩‍👩‍👧", "🏴‍☠️", "ﷺ", "\u0301", "\x85",
     "\u3000", "\x1c", "\0", "�", "—", "...", " !?", "\r\n", *LOOKALIKES]
)  # fmt: skip
characters = st.characters(exclude_categories=["Cs"])
texts = st.lists(st.one_of(snippets, st.text(characters, max_size=12)), max_size=12).map("".join)
any_texts = st.lists(st.one_of(snippets, st.text(st.characters(), max_size=12)), max_size=8).map("".join)
forgeries = st.lists(
    st.one_of(
        st.sampled_from([*LOOKALIKES, "<|", "|>", "<|im_", "_start|>", "im_end", "\n", " "]), st.text(max_size=4)
    ),
    max_size=10,
).map("".join)


@pytest.fixture(scope="module")
def reference() -> Any:
    return reference_tokenizer(GPT2.vocabulary.ranks)


# --- ids ----------------------------------------------------------------------------------------------------------


def test_known_ids_of_gpt2() -> None:
    assert GPT2.encode("Hello world") == [15496, 995]
    assert GPT2.encode("Once upon a time, there was a little girl.") == [
        7454, 2402, 257, 640, 11, 612, 373, 257, 1310, 2576, 13,
    ]  # fmt: skip
    assert GPT2.encode("") == []


@examples(300)
@given(texts)
@example("a" * 3000 + " " * 3000 + "b")
def test_ids_equal_the_byte_level_bpe_that_transformers_uses(reference: Any, text: str) -> None:
    assert GPT2.encode(text) == reference.encode(text).ids


@examples(100)
@given(texts)
def test_text_equals_that_of_the_reference_decoder(reference: Any, text: str) -> None:
    ids = GPT2.encode(text)
    assert GPT2.decode(ids) == reference.decode(ids) == text


def test_every_single_byte_and_every_rank_is_in_the_vocabulary() -> None:
    assert sorted(GPT2.vocabulary.ranks.values()) == list(range(EOT))
    assert {bytes([b]) for b in range(256)} <= set(GPT2.vocabulary.ranks)
    assert [GPT2.token_bytes(rank) for rank in range(256)] == [bytes([b]) for b in byte_letters()]


@examples(200)
@given(any_texts)
@example("\ud800")
@example("\udc00\ud800")
@example("a\ud83db")
def test_lone_surrogates_become_replacement_characters_and_nothing_else_changes(text: str) -> None:
    expected = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert GPT2.decode(GPT2.encode(text)) == expected
    assert GPT2.decode(GPT2.encode_parsed(text), show_control=True) == expected


@pytest.mark.parametrize("character", [" ", "\n", "\t", "a", "!", "1", "é", "日"])
def test_a_long_run_of_one_character_survives(character: str) -> None:
    text = "start" + character * 200_000 + "end"
    assert GPT2.decode(GPT2.encode(text)) == text


@pytest.mark.parametrize("tail", ["", "x"])
def test_a_million_spaces_are_encoded_or_refused_but_do_not_crash(tail: str) -> None:
    text = " " * 1_000_000 + tail
    for encode in (GPT2.encode, GPT2.encode_parsed):
        try:
            ids = encode(text)
        except UserError:  # allowed; a panic of the Rust code would be no Exception and fail the test
            continue
        assert GPT2.decode(ids) == text


@pytest.mark.parametrize("space", ["\u3000", "\u00a0", "\x85", "\u2028", "\x0b"])
@pytest.mark.parametrize("tail", ["a", " a", "\x1c"])
def test_white_space_of_every_kind_is_cut_where_gpt_2_cuts(space: str, tail: str) -> None:
    text = f"start{space * 1500}{tail}"
    assert len(tokenizer_module._parts(text)) == 2
    assert GPT2.encode(text) == GPT2._encoding.encode_ordinary(text)


def test_encoding_needs_neither_torch_nor_a_connection() -> None:
    program = (
        "import socket, sys\n"
        "def refuse(*a, **k): raise AssertionError('a connection was opened')\n"
        "socket.socket.connect = refuse\n"
        "from jojo.text import tokenizer\n"
        "assert tokenizer.get_tokenizer('gpt2').encode('Hello world') == [15496, 995]\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


# --- sizes --------------------------------------------------------------------------------------------------------


def test_special_ids_and_sizes() -> None:
    assert GPT2.special_tokens == {"<|endoftext|>": EOT, "<|im_start|>": START, "<|im_end|>": END}
    assert (GPT2.eot_id, GPT2.n_vocab, GPT2.padded_vocab_size) == (EOT, 50259, 50304)


def test_the_base_vocabulary_has_no_chat_tokens_and_says_so() -> None:
    base = Tokenizer(chatml=False)
    assert (base.n_vocab, base.padded_vocab_size, base.has_chatml) == (50257, 50304, False)
    assert base.encode_parsed("a<|im_start|>") == base.encode("a<|im_start|>")
    assert base.encode_parsed("a<|endoftext|>") == [64, EOT]
    with pytest.raises(UserError, match="no chat tokens"):
        base.encode_chat([{"role": "user", "content": "Hello"}])


@examples(200)
@given(texts)
def test_byte_lengths_sum_to_the_bytes_of_the_text(text: str) -> None:
    lengths = GPT2.byte_lengths
    assert sum(lengths[i] for i in GPT2.encode(text)) == len(text.encode())


def test_byte_lengths_are_those_of_every_id_and_zero_for_control_tokens() -> None:
    lengths = GPT2.byte_lengths
    assert len(lengths) == GPT2.n_vocab
    assert all(lengths[i] == len(GPT2.token_bytes(i)) > 0 for i in range(EOT))
    assert lengths[EOT:].tolist() == [0, 0, 0]


# --- control tokens -----------------------------------------------------------------------------------------------


@examples(200)
@given(forgeries)
def test_lookalikes_in_text_never_become_control_tokens(text: str) -> None:
    ids = GPT2.encode(text)
    assert all(i < EOT for i in ids)
    assert GPT2.decode(ids) == text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@examples(200)
@given(st.lists(st.tuples(forgeries, forgeries), max_size=4))
def test_lookalikes_in_roles_and_contents_never_become_control_tokens(turns: list[tuple[str, str]]) -> None:
    ids = GPT2.encode_chat({"role": role, "content": content} for role, content in turns)
    assert [i for i in ids if i >= EOT] == [START, END] * len(turns)


def test_lookalikes_are_noticed() -> None:
    assert all(GPT2.contains_control_text(f"x{token}y") for token in LOOKALIKES)
    assert not any(GPT2.contains_control_text(text) for text in ("", "<|", "<|im_start>", "im_end", "<| im_end |>"))


def test_parsed_text_holds_the_control_tokens_that_are_written_in_it() -> None:
    hello, newline = GPT2.encode("Hello"), GPT2.encode("\n")
    parsed = GPT2.encode_parsed("<|im_start|>user\nHello<|im_end|>\n<|endoftext|>")
    assert parsed == [START, *GPT2.encode("user\n"), *hello, END, *newline, EOT]


@examples(100)
@given(st.lists(st.one_of(st.sampled_from(LOOKALIKES), st.text(characters, max_size=8)), max_size=8))
def test_parsed_text_is_cut_at_control_tokens_only(pieces: list[str]) -> None:
    text = "".join(pieces)
    written = sum(text.count(token) for token in LOOKALIKES)
    ids = GPT2.encode_parsed(text)
    assert sum(i >= EOT for i in ids) == written
    assert GPT2.decode(ids, show_control=True) == text


# --- chat ---------------------------------------------------------------------------------------------------------


def test_a_conversation_is_rendered_token_by_token() -> None:
    messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi there"}]
    assert GPT2.encode_chat(messages) == [
        START, 7220, 198, 15496, END, 198,  # <|im_start|> user \n Hello <|im_end|> \n
        START, 562, 10167, 198, 17250, 612, END, 198,  # <|im_start|> ass istant \n Hi _there <|im_end|> \n
    ]  # fmt: skip
    assert GPT2.open_turn("assistant") == [START, 562, 10167, 198]


def test_plain_chat_reads_back_as_the_text_it_was_rendered_from() -> None:
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "日本 👩‍👩‍👧?"}]
    rendered = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
    assert GPT2.decode(GPT2.encode_chat(messages), show_control=True) == rendered
    assert GPT2.encode_parsed(rendered) == GPT2.encode_chat(messages)


# --- streams ------------------------------------------------------------------------------------------------------


@examples(200)
@given(texts)
def test_a_stream_never_shows_half_a_character_and_joins_to_the_text(text: str) -> None:
    ids = GPT2.encode(text)
    pieces = streamed(ids)
    assert "".join(pieces) == GPT2.decode(ids) == text
    assert len(pieces) == len(ids) + 1
    whole = b""
    for token, seen in zip(ids, _running(pieces), strict=False):
        whole += GPT2.token_bytes(token)
        assert text.startswith(seen)
        assert len(whole) - len(seen.encode()) in range(4)  # nothing is held back but an unfinished character


def streamed(ids: list[int]) -> list[str]:
    """The text that each id completes, and the rest at the end."""
    stream = TextStream(GPT2)
    return [*map(stream.push, ids), stream.finish()]


def _running(pieces: list[str]) -> list[str]:
    return ["".join(pieces[: n + 1]) for n in range(len(pieces))]


@examples(100)
@given(st.lists(st.integers(-2, 50310), max_size=30))
def test_any_ids_decode_as_their_bytes_do(ids: list[int]) -> None:
    expected = b"".join(GPT2.token_bytes(i) for i in ids).decode("utf-8", "replace")
    assert GPT2.decode(ids) == "".join(streamed(ids)) == expected


def test_an_unfinished_character_ends_as_a_replacement_character() -> None:
    first_byte = GPT2.encode("👍")[0]
    assert streamed([first_byte]) == ["", "�"]


def test_control_tokens_are_left_out_unless_asked_for() -> None:
    ids = [START, *GPT2.encode("Hi"), END, EOT, 50300, -1]
    assert GPT2.decode(ids) == "Hi"
    assert GPT2.decode(ids, show_control=True) == "<|im_start|>Hi<|im_end|><|endoftext|>"


def test_a_shown_control_token_stands_after_the_unfinished_character_before_it() -> None:
    half = GPT2.encode("👍")[0]
    assert GPT2.decode([half, END, 17250], show_control=True) == "�<|im_end|>Hi"


def test_a_text_stream_can_be_used_again_after_its_end() -> None:
    stream = TextStream(GPT2)
    first, *rest = GPT2.encode("👍")
    assert (stream.push(first), stream.finish(), stream.finish()) == ("", "�", "")
    assert "".join(stream.push(i) for i in [first, *rest]) + stream.finish() == "👍"


# --- identity -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chatml", [True, False])
def test_a_definition_through_json_gives_the_same_tokenizer(chatml: bool) -> None:
    original = Tokenizer(chatml)
    again = from_definition(json.loads(json.dumps(original.definition())))
    assert again.definition() == original.definition()
    assert (again.n_vocab, again.special_tokens) == (original.n_vocab, original.special_tokens)


def test_a_definition_is_a_copy() -> None:
    definition = GPT2.definition()
    definition["special_tokens"]["<|new|>"] = 1
    assert "<|new|>" not in GPT2.special_tokens


@pytest.mark.parametrize("change", [{"name": "mine"}, {"n_vocab": 32000}, {"vocabulary_sha256": "0"}, {"merges": []}])
def test_an_unknown_definition_is_refused_by_name(change: dict[str, Any]) -> None:
    definition = GPT2.definition() | change
    with pytest.raises(UserError, match=rf"'{definition['name']}'.*{definition['n_vocab']}"):
        from_definition(definition)


def test_an_empty_definition_is_refused() -> None:
    with pytest.raises(UserError):
        from_definition({})


@examples(100)
@given(any_texts)
@example("a\ud83d\ude00b\ud800")
def test_an_array_holds_the_same_ids(text: str) -> None:
    array = GPT2.encode_array(text)
    assert array.dtype == np.uint32 and array.tolist() == GPT2.encode(text)


@examples(40)
@given(
    st.lists(st.tuples(st.sampled_from([" ", "\n", " \t", "a", "\u00a0"]), st.integers(900, 1100)), max_size=4),
    st.text(max_size=5),
)
def test_long_white_space_is_found_in_every_hundredth_character(runs: list[tuple[str, int]], end: str) -> None:
    text = "".join(character * count for character, count in runs) + end
    assert tokenizer_module._parts(text) == tokenizer_module.LONG_SPACE.split(text)


# --- your own vocabulary --------------------------------------------------------------------------------------------

OWN_TEXTS = [
    "Once upon a time there was a fox. " * 3,
    "The fox and the hen sang, and sang: la la la la!",
    "aaaa aaaaaaa aaa bbb",
] * 4
OWN = Tokenizer(vocabulary=train_vocabulary(OWN_TEXTS, 320))


@examples(300)
@given(any_texts)
@example("aaaaaaaaaaaaaaaaa aaaa <|im_start|>")
def test_encode_and_decode_are_the_identity(text: str) -> None:
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert OWN.decode(OWN.encode(text)) == whole
    assert max(OWN.encode(text), default=0) < OWN.eot_id


@examples(200)
@given(texts)
@example("aaaaaaaaaaaaaaaaa aaaa")
def test_own_ids_equal_those_of_an_independent_implementation(text: str) -> None:
    assert OWN.encode(text) == own_reference().encode(text).ids


@lru_cache(maxsize=1)
def own_reference() -> Any:
    return reference_tokenizer(OWN.vocabulary.ranks)


def test_long_runs_are_cut_and_give_no_long_tokens() -> None:
    lengths = [1, 999, 1000, 1001, 2500, 40_000]
    texts = [f"x{letter * n} fox" for letter in ("=", "a", " ", "7", "日") for n in lengths]
    tokens = train_vocabulary(texts * 2, 700).tokens
    assert 64 <= max(map(len, tokens)) <= vocabulary.MOST_TOKEN_BYTES


@examples(200)
@given(texts)
def test_shorter_words_are_learned_as_gpt2_cuts_them(text: str) -> None:
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import ByteLevel, Split

    cut = Split(Regex(vocabulary.LEARNED_WORDS), "isolated").pre_tokenize_str(text)
    assert [span for _, span in cut] == [span for _, span in ByteLevel(add_prefix_space=False).pre_tokenize_str(text)]


def test_the_merges_of_a_long_token_need_few_steps() -> None:
    class Counted(dict[bytes, int]):
        asked = 0

        def get(self, key: bytes, default: Any = None) -> Any:
            self.asked += 1
            return super().get(key, default)

    single = [bytes([byte]) for byte in range(256)]
    runs = [*(2**power for power in range(1, 13)), 6144, 7168, 7680, 7936, 8000]
    ranks = Counted({token: rank for rank, token in enumerate([*single, *(b"=" * length for length in runs)])})
    assert vocabulary.last_cut(b"=" * 8000, ranks) == 7936 and ranks.asked < 4 * 8000
    with pytest.raises(UserError, match="no earlier tokens make up its token b'fox'"):
        list(vocabulary.merges([*single, b"fox"]))


def test_control_tokens_follow_the_text_and_never_come_from_it() -> None:
    n = len(OWN.vocabulary.tokens)
    assert OWN.special_tokens == {"<|endoftext|>": n, "<|im_start|>": n + 1, "<|im_end|>": n + 2}
    assert OWN.n_vocab <= 320 and OWN.padded_vocab_size % 64 == 0
    for text in LOOKALIKES:
        assert max(OWN.encode(text)) < n
    assert sum(OWN.byte_lengths[i] for i in OWN.encode("Once upon a time")) == 16
    plain = OWN.with_chatml(False)
    assert (plain.n_vocab, plain.encode("a fox")) == (n + 1, OWN.encode("a fox"))


def test_a_vocabulary_comes_back_from_its_file_and_from_its_definition(tmp_path: Path) -> None:
    path = tmp_path / "own.tiktoken"
    path.write_bytes(OWN.vocabulary.content)
    for again in (get_tokenizer(str(path)), from_definition(json.loads(json.dumps(OWN.definition())))):
        assert again.identity() == OWN.identity() and again.encode("a fox sang") == OWN.encode("a fox sang")
    assert "vocabulary" not in OWN.identity()
    other = Tokenizer(vocabulary=train_vocabulary(OWN_TEXTS, 300))
    assert other.identity() != OWN.identity()
    for change in (
        {"vocabulary": other.definition()["vocabulary"]},
        {"vocabulary": 5},
        {"vocabulary_sha256": "0" * 64},
    ):
        with pytest.raises(UserError, match="which this version does not have"):
            from_definition(OWN.definition() | change)


@pytest.mark.parametrize("content", [b"", b"abc", b"YQ== 0\n", b"\xff\xfe", b"YQ== x\n"])
def test_a_file_that_is_not_a_vocabulary_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "own.tiktoken"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"own\.tiktoken' is not a tokenizer made by prepare\.py --train_tokenizer"):
        get_tokenizer(str(path))
    path.write_bytes(OWN.vocabulary.content.replace(b" 5\n", b" 6\n", 1))
    with pytest.raises(UserError, match="not numbered in order"):
        get_tokenizer(str(path))


def test_if_your_own_vocabulary_is_missing_the_error_has_the_command() -> None:
    with pytest.raises(
        UserError, match=r"make one: python prepare\.py --name tale --train_tokenizer --vocab_size 8192\."
    ):
        get_tokenizer("data/tale-8192.tiktoken")


def test_an_unknown_name_is_refused_and_gpt2_is_suggested() -> None:
    with pytest.raises(UserError, match=r"'gpt3'.*use gpt2, story or chat, or make one"):
        get_tokenizer("gpt3")


# --- the vocabulary file ------------------------------------------------------------------------------------------


def test_a_missing_vocabulary_file_is_named(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "VOCABULARY_FILE", tmp_path / "gone.tiktoken")
    monkeypatch.setattr(tokenizer_module, "gpt2_vocabulary", vocabulary.gpt2_vocabulary.__wrapped__)
    with pytest.raises(UserError, match=r"gone\.tiktoken' is missing or damaged"):
        Tokenizer().encode("Hello")


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "line endings"])
def test_a_damaged_vocabulary_file_is_named(tmp_path: Any, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    content = vocabulary.VOCABULARY_FILE.read_bytes()
    path = tmp_path / "hurt.tiktoken"
    path.write_bytes(
        {
            "cut": content[:-100],
            "flipped": content[:1000] + bytes([content[1000] ^ 1]) + content[1001:],
            "empty": b"",
            "line endings": content.replace(b"\n", b"\r\n"),
        }[damage]
    )
    monkeypatch.setattr(vocabulary, "VOCABULARY_FILE", path)
    monkeypatch.setattr(tokenizer_module, "gpt2_vocabulary", vocabulary.gpt2_vocabulary.__wrapped__)
    with pytest.raises(UserError, match=r"hurt\.tiktoken' is missing or damaged"):
        Tokenizer().encode("Hello")


def test_the_vocabulary_of_the_built_in_stories_is_learned_from_them() -> None:
    texts = [json.loads(line)["text"] for line in sample_lines("train")]
    assert train_vocabulary(texts, 4096).content == SHIPPED["story"].read_bytes()
    story = get_tokenizer("story")
    assert story.decode(story.encode(texts[0])) == texts[0] and story.n_vocab == 3025


def test_the_vocabulary_of_the_built_in_conversations_is_learned_from_them() -> None:
    talks = [conversation(index)["messages"] for index in range(4000) if index % VALIDATION_EVERY]
    texts = [message["content"] for messages in talks for message in messages]
    assert train_vocabulary(texts, 1536).content == SHIPPED["chat"].read_bytes()
    assert get_tokenizer("chat").n_vocab == 1536
