"""GGUF files: a real llama.cpp runs them as we run the model, and a wrong file is refused."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from helpers_hf import dry_run
from helpers_model import QWEN3, random_model, save_format3, tiny_config, unigram_model

import export as command
from engines import export, gguf_file, llama
from engines.export import export_gguf
from engines.llama import Llama
from engines.modelfile import modelfile
from generation import Sampling, chat_prompt, generate
from hf.parity import HARD_STRINGS, MESSAGES
from jojo.text.tokenizer import IM_END, Tokenizer, get_tokenizer
from model import GPT
from utils import UserError

STORY = get_tokenizer("story")
PIECES = (
    "abc XYZ'\n\t .,!?-", "0123456789½²Ⅷ٣๓१", "'s't're've'm'll'd’s 'S'LL", "日本語中文한국어ไทยالعربيةעבריתहिन्दी",
    "\u00a0\u2003\u3000\u2028\x85\u180e\u200b\ufeff\x00\x01\x1c\x1f\x7f\r\n \u200d", "👩‍👩‍👧‍👦🏳️‍🌈🇩🇪🤦🏽‍♂️\U000e0041",
    "e\u0301\u0302Z\u0338क्षिﬁßſÅ", "<|endoftext|><|im_start|><|im_end|>",
)  # fmt: skip


def model_for(tokenizer: Tokenizer, **changes: Any) -> GPT:
    """A model with random weights, large enough that its probabilities differ."""
    config = tiny_config(vocab_size=tokenizer.padded_vocab_size, block_size=128, **changes)
    return random_model(config, tokenizer.n_vocab, std=0.15).eval()


def nasty_texts(count: int) -> Iterator[str]:
    """Texts that tokenizers tend to split differently, and random characters."""
    rng = random.Random(1)
    yield from HARD_STRINGS
    for _ in range(count - len(HARD_STRINGS)):
        pool = "".join(rng.sample(PIECES, rng.randint(1, 4)))
        planes = [(0x20, 0x250), (0x250, 0x3000), (0x3000, 0xD800), (0xE000, 0x110000)]
        is_random, length = rng.random() < 0.4, rng.randint(1, 60)
        yield "".join(chr(rng.randrange(*rng.choice(planes))) if is_random else rng.choice(pool) for _ in range(length))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[GPT, Path]:
    """A Qwen3 and its file in f16. Tests must not change them."""
    path = tmp_path_factory.mktemp("gguf") / "x.gguf"
    model = model_for(STORY, **QWEN3)
    export_gguf(model, STORY, path, "f16", "x")
    return model, path


@pytest.fixture(scope="module")
def served(exported: tuple[GPT, Path]) -> Iterator[Llama]:
    with Llama(exported[1], 128) as running:
        yield running


# --- llama.cpp agrees -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "dtype", "name"),
    [
        ({"bias": True}, "f16", "gpt2"),
        ({"bias": False, "n_embd": 96, "n_head": 3}, "q8_0", "story"),
        ({"bias": True}, "bf16", "story"),
        (QWEN3 | {"n_kv_head": 1, "tie_embeddings": False, "norm_eps": 1e-5, "rope_theta": 500.0}, "f16", "story"),
        (QWEN3 | {"n_kv_head": None, "n_embd": 64, "n_inner": 96}, "q8_0", "story"),
    ],
)
def test_llama_cpp_runs_the_model(changes: dict[str, Any], dtype: str, name: str, tmp_path: Path) -> None:
    tokenizer = get_tokenizer(name)
    model, path = model_for(tokenizer, **changes), tmp_path / "x.gguf"
    export_gguf(model, tokenizer, path, dtype, "x")
    prompt = [tokenizer.eot_id, *tokenizer.encode("Once upon a time, there was a dragon")]
    with torch.no_grad(), Llama(path, 128) as running:
        ours = model(torch.tensor([prompt]))[0, -1, : model.n_vocab].log_softmax(-1)
        theirs = running.log_probabilities(prompt, model.n_vocab)
    tolerance = {"f16": 0.01, "bf16": 0.06, "q8_0": 0.2}[dtype]
    assert ours.std() > 2 * tolerance and (ours - theirs).abs().max() < tolerance


def test_greedy_text_is_the_same_but_where_two_tokens_are_nearly_equal(
    exported: tuple[GPT, Path], served: Llama
) -> None:
    model, _ = exported
    rng, same = random.Random(3), 0
    for _ in range(20):
        prompt = [STORY.eot_id, *(rng.randrange(STORY.eot_id) for _ in range(8))]
        theirs = served.greedy(prompt, 100)
        ours = [token for (token,) in generate(model, prompt, max_tokens=100, sampling=Sampling(0))]
        first = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
        if first is None:
            same += 1
        else:
            with torch.no_grad():
                best = model(torch.tensor([prompt + ours[:first]]))[0, -1, : model.n_vocab].topk(2).values
            assert best[0] - best[1] < 0.02
    assert same >= 15


def test_2000_nasty_texts_have_the_same_ids(served: Llama) -> None:
    assert [text for text in nasty_texts(2000) if served.tokens(text) != STORY.encode(text)] == []


def test_chats_are_rendered_as_gen_py_does(served: Llama) -> None:
    for messages in MESSAGES:
        assert served.prompt(messages) == chat_prompt(STORY, messages, room=1 << 30)[0]


# --- a wrong file is refused ------------------------------------------------------------------------------------------


def refused(path: Path, model: GPT, said: str) -> None:
    """Check that the export is refused in one sentence, and that the older file stays."""
    path.write_bytes(b"GGUF of before")
    with pytest.raises(UserError) as error:
        export_gguf(model, STORY, path, "f16", "x")
    assert said in str(error.value) and "\n" not in str(error.value)
    assert path.read_bytes() == b"GGUF of before" and len(list(path.parent.iterdir())) == 1


def test_a_tensor_that_was_written_wrongly_is_named(
    exported: tuple[GPT, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = gguf.GGUFWriter.add_tensor

    def spoil(self: Any, name: str, data: Any, **kinds: Any) -> None:
        if name == "blk.1.attn_k.weight":
            data = data.copy()
            data.flat[7] *= -1
        add(self, name, data, **kinds)

    monkeypatch.setattr(gguf.GGUFWriter, "add_tensor", spoil)
    refused(tmp_path / "x.gguf", exported[0], "The tensor 'blk.1.attn_k.weight' in the new file is not the model's")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("blk.0.attn_q.weight", "blk.1.attn_q.weight"), "The probabilities differ by"),
        (("blk.0.ffn_up.weight", "blk.0.ffn_gate.weight"), "The probabilities differ by"),
        (("blk.0.ffn_up.weight", "blk.0.ffn_odd.weight"), "llama.cpp cannot load the new file"),
    ],
)
def test_a_model_that_llama_cpp_understands_otherwise_is_refused(
    names: tuple[str, str], said: str, exported: tuple[GPT, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = gguf_file.tensors

    def swapped(*arguments: Any) -> Iterator[tuple[str, Any, Any]]:
        other = dict(zip(names, reversed(names), strict=True))
        yield from ((other.get(name, name), kind, data) for name, kind, data in right(*arguments))

    monkeypatch.setattr(gguf_file, "tensors", swapped)
    refused(tmp_path / "x.gguf", exported[0], said)


def test_other_ids_and_another_chat_template_are_refused(
    exported: tuple[GPT, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = gguf.GGUFWriter.add_token_merges
    with monkeypatch.context() as patch:
        patch.setattr(gguf.GGUFWriter, "add_token_merges", lambda self, merges: add(self, merges[::-1]))
        refused(tmp_path / "x.gguf", exported[0], "llama.cpp encodes 'Once upon a time")
    (tmp_path / "t.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    monkeypatch.setattr(gguf_file, "CHAT_TEMPLATE", tmp_path / "t.jinja")
    (tmp_path / "out").mkdir()
    refused(tmp_path / "out" / "x.gguf", exported[0], "llama.cpp's chat template renders 'Hello' to other ids")


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """models/x.pt, from the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("models").mkdir()
    return save_format3(model_for(STORY), Path("models/x.pt"), STORY)


def test_the_file_is_beside_the_model_with_a_modelfile(checkpoint: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert command.main([str(checkpoint), "--to", "gguf"]) == 0
    assert "Wrote 'models/x.gguf' (f16, " in caplog.text and "llama.cpp agrees" in caplog.text
    assert Path("models/x.Modelfile").read_text().startswith('FROM ./x.gguf\nTEMPLATE """{{ .Prompt }}"""\n')
    Path("models/x.Modelfile").write_text("mine")
    first = Path("models/x.gguf").read_bytes()
    assert command.main([str(checkpoint), "--to", "gguf", "--no_check"]) == 0
    assert Path("models/x.gguf").read_bytes() == first and Path("models/x.Modelfile").read_text() == "mine"
    dry_run(checkpoint, Path("hf_model"))
    assert command.main(["hf_model", "--to", "gguf", "--no_check", "-o", "x.gguf"]) == 0
    assert Path("x.gguf").read_bytes() == first


def test_by_default_nothing_is_written_outside_the_current_folder(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("here").mkdir()
    monkeypatch.chdir("here")
    assert command.main([str(Path("..", checkpoint)), "--to", "gguf", "--no_check"]) == 0
    assert {path.name for path in Path().iterdir()} == {"x.gguf", "x.Modelfile"}
    assert {path.name for path in Path("../models").iterdir()} == {"x.pt"}


def test_a_model_that_ends_its_turns_gets_a_chat_template_in_ollama() -> None:
    ends = unigram_model(
        tiny_config(vocab_size=STORY.padded_vocab_size, bias=True), {STORY.special_tokens[IM_END]: 9.0}
    )
    text = modelfile(ends, STORY, "x.gguf")
    assert "<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n" in text
    assert 'PARAMETER stop "<|im_end|>"' in text and "PARAMETER temperature 0.7\nPARAMETER top_k 50\n" in text


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("-o", "x.bin"), "'x.bin' must end in .gguf"),
        (("-o", "mine.gguf"), "'mine.gguf' is not a GGUF file, and must not be replaced"),
        (("-o", "models/x.pt/x.gguf"), "Could not write 'models/x.pt/x.gguf'"),
    ],
)
def test_errors_are_one_sentence(flags: tuple[str, ...], said: str, checkpoint: Path) -> None:
    Path("mine.gguf").write_text("mine")
    with pytest.raises(UserError, match=said):
        command.main([str(checkpoint), "--to", "gguf", *flags])
    assert Path("mine.gguf").read_text() == "mine"


def test_missing_packages_are_one_sentence(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"install -r requirements-export.txt, or --no_check"):
        command.main([str(checkpoint), "--to", "gguf"])
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(UserError, match=r"GGUF needs the package gguf: python -m pip install -r requirements-export"):
        command.main([str(checkpoint), "--to", "gguf", "--no_check"])
    assert not Path("models/x.gguf").exists()
    assert export.require_llama is llama.require_llama


def test_a_hugging_face_folder_can_have_a_gguf_file(checkpoint: Path) -> None:
    folder = dry_run(checkpoint, Path("hf_model"), "--gguf", "q8_0")
    assert (folder / "model.gguf").read_bytes()[:4] == b"GGUF"
    assert "ollama run hf.co/tales" in (folder / "README.md").read_text()
    dry_run(checkpoint, folder)  # it is part of an unchanged export, so it may be replaced
    assert not (folder / "model.gguf").exists() and "ollama" not in (folder / "README.md").read_text()
