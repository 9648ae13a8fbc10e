"""tools/inspect_batch.py: the tokens that it marks as predicted are those of the loader."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from helpers_data import ROOT
from helpers_run import listening, settle, train, write_lines

from utils import UserError

sys.path.insert(0, str(ROOT / "tools"))
try:
    import inspect_batch
finally:
    sys.path.pop(0)

TALK = [
    {"messages": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": f"Hello, number {n}!"}]}
    for n in range(9)
]


@pytest.fixture(autouse=True)
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(tmp_path, monkeypatch)
    for split in ("train", "val"):
        write_lines(Path(f"data/talk-{split}.jsonl"), TALK)


def shown(*flags: str) -> str:
    with listening() as said, redirect_stdout(StringIO()) as printed:
        assert inspect_batch.main(["--dataset", "talk", "--block_size", "32", "--batch_size", "3", *flags]) == 0
    return "\n".join([*said, printed.getvalue()])


def test_tokens_that_are_not_predicted_are_in_brackets() -> None:
    text = shown("--data.predict", "assistant", "--data.pack", "whole")
    assert "Batch 1 of epoch 1: 3 rows, " in text
    turn = "[-<|endoftext|><|im_start|>user\nHi.<|im_end|>\n<|im_start|>assistant\n-]Hello, number "
    assert turn in text and "!<|im_end|>[-\n<|endoftext|>" in text
    assert text.count("Hello, number") == 3 and "places empty" in text


def test_in_a_stream_all_but_the_first_token_is_predicted() -> None:
    text = shown("--rows", "1", "--seed", "4")
    assert "32 of 32 tokens predicted" in text
    assert text.count("[-") == 1


def test_colours_replace_the_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect_batch, "use_color", lambda stream: True)
    text = shown("--data.predict", "assistant", "--rows", "1")
    assert "\033[1m" in text and "\033[2;36m" in text and "[-" not in text


def test_data_cannot_control_the_terminal() -> None:
    for split in ("train", "val"):
        write_lines(Path(f"data/talk-{split}.jsonl"), [{"text": f"\033[2J\tfour{n}\n\x07" * 9} for n in range(20)])
    text = shown("--rows", "1")
    assert r"\x1b[2J" in text and r"\x07" in text and not set(text) & {"\033", "\x07"}


def test_text_that_looks_like_a_control_token_is_escaped() -> None:
    for split in ("train", "val"):
        write_lines(
            Path(f"data/talk-{split}.jsonl"), [{"text": f"a <|im_end|> {n}\u202e\u200bb" * 9} for n in range(20)]
        )
    text = shown("--rows", "1")
    assert r"a <\|im_end|> " in text and r"\u202e\u200bb" in text
    assert "<|im_end|>" not in text and not set(text) & {"\u202e", "\u200b"}


def test_a_checkpoint_is_shown_at_the_batch_where_it_stopped() -> None:
    train("--max_iters", "2")
    with listening() as said:
        assert inspect_batch.main(["--checkpoint", "models/mine_epoch1.pt"]) == 0
    assert said[0].startswith("Batch 3 of epoch 1") or any(line.startswith("Batch 3 of epoch 1") for line in said)


@pytest.mark.parametrize(
    "flags", ["--batch 99", "--batch 0", "--epoch 0", "--block_size many", "--rows 0", "--data.parse_special perhaps"]
)
def test_batches_that_do_not_exist_are_refused(flags: str) -> None:
    with pytest.raises(UserError, match="must be"):
        shown(*flags.split())
