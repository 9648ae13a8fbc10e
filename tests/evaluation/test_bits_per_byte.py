"""evaluation/bits_per_byte.py: the number that training reports, divided among documents."""

from __future__ import annotations

import math
from pathlib import Path

import helpers_run
import numpy as np
import pytest
import torch
from helpers_data import write_lines
from helpers_run import both_architectures, make_trainer, sentences, settle

from evaluation import bits_per_byte
from evaluation.bits_per_byte import documents_of, measure_text, text_loader
from jojo.text.chat_targets import AssistantTargets
from trainer import Trainer
from utils import UserError


@pytest.fixture(autouse=True)
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(tmp_path, monkeypatch)


def measured(trainer: Trainer) -> bits_per_byte.TextResult:
    return measure_text(trainer.model.eval(), trainer.run.data.tokenizer, trainer.eval_loaders["val"], "it", seed=0)


WAYS = {
    "stream": (),
    "whole": ("--data.pack", "whole"),
    "assistant": ("--data.predict", "assistant", "--data.pack", "whole", "--model.block_size", "64"),
}


@both_architectures
@pytest.mark.parametrize("way", WAYS)
def test_it_is_what_training_reports_for_the_whole_split(way: str, family: tuple[str, ...]) -> None:
    if way == "assistant":
        turns = [("user", "Who?"), ("assistant", "Me, the fox."), ("user", "And?"), ("assistant", "Nobody.")]
        chat = {"messages": [{"role": role, "content": text} for role, text in turns]}
        for split in ("train", "val"):
            write_lines(Path(f"data/mine-{split}.jsonl"), [chat, {"text": sentences(1)[0]}] * 3)
    trainer = make_trainer("--max_iters", "5", "--training.eval_iters", "1000", *WAYS[way], *family)
    trainer.train()
    expected = trainer.evaluate()
    found = measured(trainer)
    trainer.run.close()
    assert found.bpb.value == pytest.approx(expected["bpb"], rel=1e-5)
    assert found.loss == pytest.approx(expected["val_loss"], rel=1e-5)
    assert found.n_documents == 6 and found.bpb.low < found.bpb.value < found.bpb.high


def test_each_document_gets_the_loss_of_its_own_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer()
    loader, tokenizer = trainer.eval_loaders["val"], trainer.run.data.tokenizer
    loader.max_batches, loader.batches_per_epoch = None, -(-loader.n_rows // loader.batch_size)
    per_document: dict[str, np.ndarray] = {}
    monkeypatch.setattr(bits_per_byte, "bootstrap_ratio", lambda bits, size, seed: per_document.update(b=bits, n=size))
    with torch.no_grad():
        measured_ = measure_text(trainer.model.eval(), tokenizer, loader, "it", 0)
    stream, cache = [tokenizer.eot_id, *loader.cache.tokens(0, loader.cache.n_tokens).tolist()], loader.cache
    bits, sizes = np.zeros(6), np.zeros(6)
    for first in range(0, len(stream) - 1, 16):  # rows of 16 targets, plainly
        row = torch.tensor(stream[first : first + 17])
        with torch.no_grad():
            log_p = trainer.model(row[None, :-1])[0, :, : tokenizer.n_vocab].log_softmax(-1)
        for place, token in enumerate(row[1:].tolist()):
            document = int(np.searchsorted(cache.index(), first + place, side="right")) - 1
            if token < tokenizer.eot_id:
                bits[document] -= log_p[place, token].item() / math.log(2)
                sizes[document] += len(tokenizer.token_bytes(token))
    trainer.run.close()
    assert per_document["b"] == pytest.approx(bits, rel=1e-5)
    assert per_document["n"].tolist() == sizes.tolist() == [len(text.encode()) for text in sentences(20)[14:]]
    assert measured_.n_bytes == sizes.sum()


def test_empty_rows_belong_to_no_document() -> None:
    trainer = make_trainer("--batch_size", "64")
    loader = trainer.eval_loaders["val"]
    documents, targets = documents_of(loader, 0), loader.batch(0, 0).targets[0]
    trainer.run.close()
    assert loader.n_rows < 64 and ((documents >= 0) == (targets >= 0)).all()


def test_text_of_files_is_read_as_prepare_reads_it() -> None:
    Path("a.txt").write_text("One.\n<|endoftext|>\nTwo <|im_start|>.\n", encoding="utf-8")
    write_lines(Path("b.jsonl"), [{"body": "Drei, größer."}, {"body": ""}])
    trainer = make_trainer()
    tokenizer = trainer.run.data.tokenizer
    with text_loader(["a.txt", "b.jsonl"], "body", tokenizer, 16) as loader:
        found = measure_text(trainer.model.eval(), tokenizer, loader, "it", seed=0)
    trainer.run.close()
    assert found.n_documents == 3
    assert found.n_bytes == len("One.") + len("Two <|im_start|>.") + len("Drei, größer.".encode())


def test_text_that_is_not_predicted_is_an_error() -> None:
    write_lines(Path("data/mine-val.jsonl"), [{"messages": [{"role": "user", "content": "Hello?"}]}])
    trainer = make_trainer()
    trainer.eval_loaders["val"].targets = AssistantTargets.of(trainer.run.data.tokenizer)
    with pytest.raises(UserError, match="Nothing in it is predicted: it has no words of an assistant"):
        measured(trainer)
    trainer.run.close()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.pdf", "x", "unknown format"),
        ("a.txt", " \n", r"No documents in a.txt\."),
        (
            "a.jsonl",
            "{\n",
            r"No documents in a.jsonl, but 1 unreadable line \(a.jsonl, line 1: not JSON.*\); correct them\.",
        ),
        (
            "a.jsonl",
            '{"body": "x"}\n' * 101,
            "More than 100 unreadable lines .* name the field that holds the text with",
        ),
        ("a.csv", "body\nx\n", "has no column 'text'.* with --text_field"),
    ],
)
def test_text_that_cannot_be_read_is_one_sentence(name: str, content: str, said: str) -> None:
    Path(name).write_text(content, encoding="utf-8")
    trainer = make_trainer()
    with pytest.raises(UserError, match=said), text_loader([name], None, trainer.run.data.tokenizer, 16):
        pass
    trainer.run.close()


def test_few_unreadable_lines_are_left_out_with_a_warning() -> None:
    Path("a.jsonl").write_text('{"text": "One."}\n{\n', encoding="utf-8")
    trainer = make_trainer()
    with helpers_run.listening() as said, text_loader(["a.jsonl"], None, trainer.run.data.tokenizer, 16) as loader:
        assert loader.cache.n_documents == 1
    trainer.run.close()
    assert any("Left out 1 unreadable line (a.jsonl, line 2: not JSON" in line for line in said)
