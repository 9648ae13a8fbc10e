"""prepare.py: text of any form becomes a data set whose splits are disjoint and stay as they are when text is added."""

from __future__ import annotations

import importlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers_data import ROOT, examples, log_listener
from helpers_run import TINY, listening, sentences, settle, snapshot, state_of, train_plainly, write_lines
from hypothesis import given
from hypothesis import strategies as st

import prepare
from jojo.text import dataset_files
from jojo.text import stats as dataset_stats
from jojo.text.tokenizer import get_tokenizer
from recipes.recipe import recipes as find_recipes
from utils import UserError

ONE_VALIDATES = ("--val_fraction", "0.000001")  # so small that no document is drawn; then one is taken


@pytest.fixture(autouse=True)
def folder_with_data(tmp_path, monkeypatch):
    settle(tmp_path, monkeypatch)
    for path in Path("data").iterdir():
        path.unlink()


def run_prepare(*flags):
    """Runs prepare.py --name set with these flags and returns its output."""
    with listening() as said:
        assert prepare.main(["--name", "set", "--num_workers", "0", *map(str, flags)]) == 0
    return "\n".join(said)


def lines(split, name="set"):
    """The records of a split."""
    content = Path(f"data/{name}-{split}.jsonl").read_bytes()
    return [json.loads(line) for line in content.split(b"\n") if line]


def texts(*splits):
    """The texts of these splits (both when none is named), sorted."""
    return sorted(record["text"] for split in splits or ("train", "val") for record in lines(split))


def without_spaces(text):
    return re.sub(r"\s", "", text)


def nothing_was_left():
    """Whether there is neither a data set nor a part of one."""
    return not Path("data").exists() or not [p for p in Path("data").iterdir() if p.suffix != ".lock"]


# --- input ------------------------------------------------------------------------------------------------------------


def test_a_separator_ends_a_document_only_if_it_is_a_whole_line(tmp_path):
    Path("book.txt").write_text("One.\n<|endoftext|>\nTwo, with <|endoftext|> inside.\n  <|endoftext|>\t\n\nThree.\n\n")
    run_prepare("--input", "book.txt", *ONE_VALIDATES)
    assert texts() == ["One.", "Three.", "Two, with <|endoftext|> inside."]


def test_another_separator_is_taken_literally():
    Path("book.txt").write_text("One.\n***\nTwo.\n***\n<|endoftext|>\n")
    run_prepare("--input", "book.txt", "--separator", "***", *ONE_VALIDATES)
    assert texts() == ["<|endoftext|>", "One.", "Two."]


def test_jsonl_records_of_every_form_are_written_unchanged():
    records = [
        {"text": "Plain: äöü 漢字 🙂 \u2028 end", "id": 7},
        {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi\nthere"}]},
        {"conversation": [{"role": "user", "content": "Well?"}]},
        {"input": "2+2?", "output": "4"},
    ]
    write_lines(Path("a.jsonl"), records)
    run_prepare("--input", "a.jsonl", *ONE_VALIDATES)
    assert sorted(map(json.dumps, lines("train") + lines("val"))) == sorted(map(json.dumps, records))


def test_folders_are_searched_recursively_and_files_named_twice_are_read_once():
    Path("in/deep/er").mkdir(parents=True)
    Path("in/a.txt").write_text("From a.")
    Path("in/deep/b.TXT").write_text("From b.")
    write_lines(Path("in/deep/er/c.jsonl"), [{"text": "From c."}])
    Path("in/notes.pdf").write_text("Not this.")
    Path("other.txt").write_text("From other.")
    run_prepare("--input", "in", "other.txt", "in/a.txt", *ONE_VALIDATES)
    assert texts() == ["From a.", "From b.", "From c.", "From other."]


def test_windows_line_ends_and_byte_order_marks_are_removed():
    Path("a.txt").write_bytes(b"\xef\xbb\xbfOne.\r\n<|endoftext|>\r\nTwo.\r\nLines.\r\n")
    Path("b.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "Three."}\r\n\r\n{"text": "Four."}')
    run_prepare("--input", "a.txt", "b.jsonl", *ONE_VALIDATES)
    assert texts() == ["Four.", "One.", "Three.", "Two.\nLines."]


def test_files_that_prepare_wrote_into_the_input_folder_are_not_read_as_input():
    Path("data/a.txt").write_text("\n<|endoftext|>\n".join(sentences(20)))
    Path("data/b.txt").write_text("\n<|endoftext|>\n".join(sentences(20, first=50)))
    run_prepare("--input", "data", "--val_fraction", "0.2")
    assert "exists already, made from the same" in run_prepare("--input", "data", "--val_fraction", "0.2")
    Path("data/b.txt").unlink()
    run_prepare("--input", "data", "--val_fraction", "0.2", "--force")
    assert texts() == sorted(sentences(20))


# --- the split --------------------------------------------------------------------------------------------------------


def test_every_document_is_in_exactly_one_split_and_about_val_fraction_of_them_in_val():
    write_lines(Path("a.jsonl"), [{"text": text} for text in sentences(1000)])
    run_prepare("--input", "a.jsonl", "--val_fraction", "0.2")
    assert texts() == sorted(sentences(1000))
    assert not set(texts("train")) & set(texts("val"))
    assert 140 < len(lines("val")) < 260


def test_a_document_stays_in_its_split_when_other_documents_are_added():
    write_lines(Path("b.jsonl"), [{"text": text} for text in sentences(100)])
    run_prepare("--input", "b.jsonl", "--val_fraction", "0.3")
    before = {split: set(texts(split)) for split in ("train", "val")}
    write_lines(Path("a.jsonl"), [{"text": text} for text in sentences(50, first=500)])
    write_lines(Path("c.jsonl"), [{"text": text} for text in sentences(50, first=900)])
    run_prepare("--input", "c.jsonl", "b.jsonl", "a.jsonl", "--val_fraction", "0.3", "--force")
    for split, documents in before.items():
        assert documents < set(texts(split))


def test_the_same_input_gives_the_same_files():
    write_lines(Path("a.jsonl"), [{"text": text} for text in sentences(50)])
    run_prepare("--input", "a.jsonl")
    before = snapshot("data")
    run_prepare("--input", "a.jsonl", "--force")
    assert snapshot("data") == before


def test_a_document_that_occurs_twice_is_never_in_both_splits():
    write_lines(Path("a.jsonl"), [{"text": text} for text in sentences(60) * 2])
    run_prepare("--input", "a.jsonl", "--val_fraction", "0.3")
    assert not set(texts("train")) & set(texts("val"))


def test_of_a_few_documents_one_is_for_validation_and_the_rest_for_training():
    write_lines(Path("a.jsonl"), [{"text": text} for text in sentences(3)])
    said = run_prepare("--input", "a.jsonl", *ONE_VALIDATES)
    assert (len(lines("train")), len(lines("val"))) == (2, 1)
    assert texts() == sorted(sentences(3))
    assert "--val_fraction" in said


@pytest.mark.parametrize("copies", [2, 3])
def test_the_one_document_taken_for_validation_leaves_no_copy_in_training(copies):
    write_lines(Path("a.jsonl"), [{"text": text} for text in sentences(2) * copies])
    run_prepare("--input", "a.jsonl", *ONE_VALIDATES)
    assert len(set(texts("train"))) == len(set(texts("val"))) == 1
    assert not set(texts("train")) & set(texts("val"))


def test_the_last_tenth_of_a_single_document_is_the_validation_split():
    words = " ".join(f"word{i}" for i in range(500))
    Path("a.txt").write_text(words)
    said = run_prepare("--input", "a.txt")
    (training,), (validating,) = texts("train"), texts("val")
    assert without_spaces(training + validating) == without_spaces(words)
    assert words.startswith(training) and words.endswith(validating)
    assert len(validating) == pytest.approx(len(words) / 10, rel=0.1)
    assert "only one document" in said


def sizes():
    """Characters of text in training and in validation."""
    return [sum(len(record["text"]) for record in lines(split)) for split in ("train", "val")]


@pytest.mark.parametrize("fraction", ["0.05", "0.5", "0.9"])
@pytest.mark.parametrize("short", ["short one", "short two", "another", "a fourth"])
def test_one_document_with_most_of_the_text_is_cut_so_that_it_is_never_all_in_one_split(short, fraction):
    write_lines(Path("a.jsonl"), [{"text": "The fox ran over the hill. " * 9000}, {"text": short}])
    said = run_prepare("--input", "a.jsonl", "--val_fraction", fraction)
    train, val = sizes()
    if val < train:
        assert val / (train + val) == pytest.approx(0.1, abs=0.01)
        assert "One document has most of the text, so its end became the validation split." in said
    else:
        assert float(fraction) > 0.05 and val / (train + val) < (1 + float(fraction)) / 2


def test_of_conversations_the_longest_is_never_for_validation():
    for first in ("a", "b", "c"):
        turns = [[{"role": "user", "content": first}, {"role": "assistant", "content": "x" * n}] for n in (9000, 9)]
        write_lines(Path("a.jsonl"), [{"messages": messages} for messages in turns])
        run_prepare("--input", "a.jsonl", "--force")
        assert [lines(split) for split in ("train", "val")] == [[{"messages": messages}] for messages in turns]


def test_short_documents_of_one_length_are_never_refused():
    for first in range(40):  # so that some draws put two of the three into validation
        dataset_files.write_dataset(
            dataset_files.DatasetFiles(Path("data"), "set"),
            [("", {"text": f"Number {n}."}) for n in range(100 + 3 * first, 103 + 3 * first)],
            {"val_fraction": 0.3, "max_documents": None},
            "a.jsonl",
        )
        train, val = sizes()
        assert 0 < val < 2 / 3 * train


def test_a_set_made_from_the_training_splits_of_others_gets_a_whole_validation_split():
    for name, first in (("one", 0), ("two", 1000)):
        write_lines(Path("a.jsonl"), [{"text": text} for text in sentences(400, first=first)])
        assert prepare.main(["--input", "a.jsonl", "--name", name, "--num_workers", "0"]) == 0
    said = run_prepare("--input", "data/one-train.jsonl", "data/two-train.jsonl")
    n_train, n_val = len(lines("train")), len(lines("val"))
    assert n_val == round(0.05 * (n_train + n_val)) and f"validation got {n_val} documents" in said
    assert texts() == sorted(r["text"] for name in ("one", "two") for r in lines("train", name))


def test_one_short_document_is_refused():
    Path("a.txt").write_text("Too short.")
    with pytest.raises(UserError, match="cannot be split"):
        run_prepare("--input", "a.txt")
    assert nothing_was_left()
    write_lines(Path("a.jsonl"), [{"input": "Two and two?", "output": "Four."}])
    with pytest.raises(UserError, match="One document cannot be split"):
        run_prepare("--input", "a.jsonl")


def test_a_fraction_outside_0_and_1_is_refused():
    write_lines(Path("a.jsonl"), [{"text": text} for text in sentences(3)])
    for fraction in ("0", "1", "-0.1", "5"):
        with pytest.raises(UserError, match="--val_fraction must be between 0 and 1"):
            run_prepare("--input", "a.jsonl", "--val_fraction", fraction)
    assert nothing_was_left()


def test_if_every_document_is_drawn_for_validation_one_is_moved_to_training():
    write_lines(Path("a.jsonl"), [{"text": text} for text in sentences(3)])
    said = run_prepare("--input", "a.jsonl", "--val_fraction", "0.999999999")
    assert (len(lines("train")), len(lines("val"))) == (1, 2)
    assert "The random split was uneven, so validation got 2 documents." in said


# --- existing data sets -----------------------------------------------------------------------------------------------


def test_an_existing_data_set_is_replaced_only_with_force():
    write_lines(Path("a.jsonl"), [{"text": text} for text in sentences(40)])
    run_prepare("--input", "a.jsonl")
    before = snapshot("data")
    write_lines(Path("a.jsonl"), [{"text": text} for text in sentences(40, first=100)])
    with pytest.raises(UserError, match=r"set-train\.jsonl and .*set-val\.jsonl exist already; add --force"):
        run_prepare("--input", "a.jsonl")
    assert snapshot("data") == before
    run_prepare("--input", "a.jsonl", "--force")
    assert texts() == sorted(sentences(40, first=100))


def test_a_failed_preparation_changes_no_existing_data_set():
    write_lines(Path("a.jsonl"), [{"text": text} for text in sentences(40)])
    run_prepare("--input", "a.jsonl")
    Path("data/set2-train.jsonl").write_text("another set")
    before = snapshot("data")
    Path("bad.jsonl").write_text("{]\n" * 5)
    for bad, flags in (("bad.jsonl", ["--data.max_bad_lines", "2"]), ("none.txt", [])):
        with pytest.raises(UserError):
            run_prepare("--input", bad, "--force", *flags)
    assert snapshot("data") == before


def test_a_data_set_can_be_made_again_from_its_own_files():
    """Reading and writing the same files must not lose data."""
    write_lines(Path("a.jsonl"), [{"text": text} for text in sentences(40)])
    run_prepare("--input", "a.jsonl", "--val_fraction", "0.1")
    run_prepare("--input", "data/set-train.jsonl", "data/set-val.jsonl", "--val_fraction", "0.4", "--force")
    assert texts() == sorted(sentences(40))
    assert len(lines("val")) > 6


def test_the_same_command_again_does_nothing_and_a_different_one_is_refused():
    write_lines(Path("a.jsonl"), [{"text": text} for text in sentences(40)])
    run_prepare("--input", "a.jsonl")
    before = snapshot("data")
    assert "exists already, made from the same" in run_prepare("--input", "a.jsonl")
    assert snapshot("data") == before
    for flags in (["--val_fraction", "0.2"], ["--normalise"], ["--max_documents", "9"]):
        with pytest.raises(UserError, match="exist already"):
            run_prepare("--input", "a.jsonl", *flags)
    with open("data/set-val.jsonl", "a") as file:  # edited by hand
        file.write('{"text": "More."}\n')
    with pytest.raises(UserError, match="exist already"):
        run_prepare("--input", "a.jsonl")


def test_exact_duplicates_are_dropped_and_counted():
    write_lines(Path("a.jsonl"), [{"text": text, "id": i} for i, text in enumerate(sentences(30) * 3)])
    said = run_prepare("--input", "a.jsonl", "--val_fraction", "0.3")
    assert texts() == sorted(sentences(30))
    assert "Dropped 60 exact duplicates." in said
    write_lines(Path("b.jsonl"), [{"text": text} for text in [*sentences(9), sentences(1)[0], RENDERED]])
    said = run_prepare("--input", "b.jsonl", "--force", *ONE_VALIDATES)
    assert "Dropped 1 exact duplicate." in said and "Text like <|im_start|> in 1 document is read" in said


def test_documents_that_differ_only_in_fields_that_are_not_trained_on_are_duplicates():
    turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
    noted = [{**turn, "id": i, "ts": 7 * i} for i, turn in enumerate(turns)]
    write_lines(
        Path("a.jsonl"),
        [
            {"messages": turns}, {"messages": noted}, {"conversation": turns}, {"input": "Hello", "output": "Hi"},
            {"text": "a?"}, {"text": "a\ud800"}, {"messages": [{"role": "user", "content": "b\ud800"}]},
            {"messages": [{"role": "user", "content": "b?"}]},
        ],
    )  # fmt: skip
    assert "Dropped 5 exact duplicates" in run_prepare("--input", "a.jsonl", *ONE_VALIDATES)
    assert len(lines("train") + lines("val")) == 3


def test_the_split_of_a_document_is_the_same_in_every_version():
    """Another split would move documents from validation to training."""
    turns = [{"role": "user", "content": "Hällo"}, {"role": "assistant", "content": "Hi"}]
    shares = [dataset_files.digest(record) / 2**64 for record in ({"text": "Grüße 🙂"}, {"messages": turns})]
    assert shares == [pytest.approx(share, abs=1e-12) for share in (0.425119390541148, 0.093158460600615)]


@examples(200)
@given(st.dictionaries(st.sampled_from(["text", "id"]), st.text(st.characters() | st.sampled_from('\\"\n\t\x7f'))))
def test_a_written_line_equals_json_dumps_of_the_record(record):
    expected = json.dumps(record, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
    assert dataset_files.to_line(record) == expected


def test_max_documents_takes_the_first_documents():
    write_lines(Path("a.jsonl"), [{"text": text} for text in sentences(60)])
    run_prepare("--input", "a.jsonl", "--max_documents", "20", "--val_fraction", "0.3")
    assert texts() == sorted(sentences(20))


def test_the_cache_manifest_records_that_text_was_normalised():
    write_lines(Path("a.jsonl"), [{"text": f"“Number {i}”"} for i in range(40)])
    run_prepare("--input", "a.jsonl", "--normalise")
    assert texts() == sorted(f'"Number {i}"' for i in range(40))
    (facts,) = [json.loads(path.read_text()) for path in Path("cache").glob("set-train-*.json")]
    assert facts["source"]["prepared"] == {"normalised": True}


# --- recipes ----------------------------------------------------------------------------------------------------------


def test_one_command_prepares_a_recipe_and_the_list_shows_what_is_prepared():
    with listening() as said:
        assert prepare.main([]) == 0
    assert sum("a sample is built in" in line for line in said) == 1  # story
    with listening() as said:
        assert prepare.main(["--dataset", "story", "--source", "sample", "--max_documents", "50"]) == 0
    assert len(lines("train", "story")) + len(lines("val", "story")) == 50
    assert said[-1] == "Train on it: python train.py --config configs/story-small.json --data.tokenizer gpt2"
    run_prepare("--input", "data/story-train.jsonl")
    with listening() as said:
        assert prepare.main([]) == 0
    text = "\n".join(said)
    assert "prepared: 50 documents" in text and "from your own text: set" in text
    for name, recipe in find_recipes().items():
        assert name in text and recipe.summary in text and recipe.licence in text


def test_the_data_set_of_a_recipe_can_have_another_name():
    flags = ["--source", "sample", "--max_documents", "20"]
    assert prepare.main(["--dataset", "story", "--name", "few", *flags]) == 0
    assert len(lines("train", "few")) + len(lines("val", "few")) == 20
    assert not Path("data/story-train.jsonl").exists()


def test_a_recipe_with_fewer_documents_than_asked_for_says_so(monkeypatch):
    monkeypatch.setattr("recipes.story.STORIES", 20)
    with listening() as said:
        assert prepare.main(["--dataset", "story", "--source", "sample", "--max_documents", "50"]) == 0
    assert any(re.match(r"There are only \d+ documents, fewer than --max_documents asks for\.", line) for line in said)


def test_chitchat_makes_as_many_conversations_as_asked_for(monkeypatch):
    monkeypatch.setattr("recipes.chitchat.DOCUMENTS", 10)
    with listening() as said:
        assert prepare.main(["--dataset", "chitchat", "--max_documents", "30", "--num_workers", "0"]) == 0
    assert len(lines("train", "chitchat")) + len(lines("val", "chitchat")) == 30
    assert said[-1] == "Train on it: python train.py --config configs/chat-small.json"


def test_conversations_without_an_assistant_are_named_with_their_roles():
    for roles in (("user", "tool"), ("human", "bot")):
        turns = [[{"role": role, "content": text} for role in roles] for text in sentences(40)]
        write_lines(Path("a.jsonl"), [{"messages": messages} for messages in turns])
        said = run_prepare("--input", "a.jsonl", "--force")
        lacks = "No turn has the role assistant, which --chat needs; roles: tool, user." in said
        assert (
            lacks is (roles[1] == "tool")
            and ("configs/chat-small.json --dataset set --data.tokenizer gpt2" in said) is not lacks
        )


def test_a_seed_is_refused_if_the_recipe_draws_nothing():
    with pytest.raises(UserError, match="'story' does not use a seed; leave out --seed"):
        prepare.main(["--dataset", "story", "--source", "sample", "--seed", "3"])


def test_the_recipe_in_the_docs_works(tmp_path, monkeypatch):
    page = (Path(prepare.__file__).parent / "docs" / "data.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 20
    (tmp_path / "code").mkdir()
    (tmp_path / "code/proverbs.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path / "code")
    recipe = importlib.import_module("proverbs").RECIPE
    monkeypatch.setattr("recipes.recipe.find_recipe", lambda name: recipe)
    Path("p.txt").write_text("".join(f"Proverb {n}.\n\n" for n in range(40)))
    assert prepare.main(["--dataset", "proverbs", "--source", "p.txt", "--num_workers", "0"]) == 0
    assert len(lines("train", "proverbs")) + len(lines("val", "proverbs")) == 40
    Path("p.txt").write_bytes(b"caf\xe9\n")
    for source, words in (
        ("p.txt", "'p.txt': it is not utf-8 text"),
        ("code", r"'code' \(Is a directory\); check --source"),
    ):
        with pytest.raises(UserError, match=f"The recipe 'proverbs' cannot read {words}"):
            prepare.main(["--dataset", "proverbs", "--source", source, "--force"])
    if ruff := shutil.which("ruff"):
        subprocess.run([ruff, "check", "--config", ROOT / "pyproject.toml", tmp_path / "code"], check=True)


# --- training a tokenizer ---------------------------------------------------------------------------------------------


def test_a_tokenizer_is_trained_once_and_the_printed_training_command_names_it():
    write_lines(Path("a.jsonl"), [{"text": text} for text in sentences(60)])
    said = run_prepare("--input", "a.jsonl", "--train_tokenizer", "--vocab_size", "300")
    command = "python train.py --config configs/own-text.json --dataset set"
    assert said.endswith(f"{command} --data.tokenizer data/set-300.tiktoken")
    tokenizer = get_tokenizer("data/set-300.tiktoken")
    assert tokenizer.n_vocab == 300
    (facts,) = [json.loads(path.read_text()) for path in Path("cache").glob("set-train-*.json")]
    assert facts["tokenizer"] == tokenizer.identity()
    said = run_prepare("--train_tokenizer", "--vocab_size", "5000")
    size = get_tokenizer("data/set-5000.tiktoken").n_vocab
    assert f"({size:,} tokens, 3 of them control tokens)\nThe name says 5000, but this text has no more tokens" in said
    before = Path("data/set-300.tiktoken").read_bytes()
    write_lines(Path("b.jsonl"), [{"text": text} for text in sentences(60, first=500)])
    assert "exists already" in run_prepare("--train_tokenizer", "--vocab_size", "300")
    assert Path("data/set-300.tiktoken").read_bytes() == before
    run_prepare("--input", "b.jsonl", "--train_tokenizer", "--vocab_size", "300", "--force")
    assert Path("data/set-300.tiktoken").read_bytes() != before
    assert (
        train_plainly(*TINY, "--dataset", "set", "--data.tokenizer", "data/set-300.tiktoken", "--max_iters", "2").code
        == 0
    )


@pytest.mark.parametrize("size", ["258", "2000000", "0"])
def test_an_impossible_vocab_size_is_refused_before_anything_is_read(size):
    with pytest.raises(UserError, match="--vocab_size must be between 259 and 1,048,576"):
        run_prepare("--input", "none.jsonl", "--train_tokenizer", "--vocab_size", size)


def test_a_tokenizer_can_be_trained_on_text_with_lone_surrogates():
    write_lines(Path("data/set-train.jsonl"), [{"text": text + "\ud83d"} for text in sentences(20)])
    write_lines(Path("data/set-val.jsonl"), [{"text": "Alone."}])
    run_prepare("--train_tokenizer", "--vocab_size", "300")


# --- statistics -------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["a$^$b", "日本 [x]"])
def test_stats_work_for_a_data_set_of_any_name(name):
    write_lines(Path("a.jsonl"), [{"text": text} for text in sentences(30)])
    assert prepare.main(["--input", "a.jsonl", "--name", name, "--num_workers", "0", "--stats"]) == 0
    assert Path(f"data/{name}-lengths.png").exists()


def test_stats_ignore_empty_and_unreadable_lines():
    lines = [b'{"text": "Same."}', b"", b"bad", b'{"text": ""}', b"  ", b'{"text": "Other."}', b'{"text": "Same."}']
    Path("data/set-train.jsonl").write_bytes(b"\n".join(lines))
    write_lines(Path("data/set-val.jsonl"), [{"text": "Alone."}])
    assert "1 of 4 documents are copies of another; 0 occur in both splits." in run_prepare("--stats")


def test_the_built_in_sample_has_stats_and_can_be_verified(monkeypatch):
    monkeypatch.setattr("recipes.story.STORIES", 200)
    shutil.rmtree("data")
    assert prepare.main(["--name", "story", "--stats", "--num_workers", "0"]) == 0
    with listening() as said:
        assert prepare.main(["--verify", "--name", "story"]) == 0
    assert len([line for line in said if "is intact" in line]) == 2


def test_stats_count_duplicates_and_plot_document_lengths():
    write_lines(Path("data/set-train.jsonl"), [{"text": text} for text in [*sentences(20), *["Copied here."] * 4]])
    write_lines(Path("data/set-val.jsonl"), [{"text": "Copied here."}, {"text": "Alone."}])
    said = run_prepare("--stats")
    assert "4 of 26 documents are copies of another; 1 occur in both splits." in said
    assert "5 times: Copied here." in said
    assert "tokens per document: 5 %" in said
    assert Path("data/set-lengths.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (45, 2316, ["50", "100", "200", "500", "1,000", "2,000"]),
        (3, 9, ["4", "6", "8", "10"]),
        (1, 1_000_000, ["1", "10", "100", "1,000", "10,000", "100,000", "1,000,000"]),
        (600, 1000, ["600", "750", "900"]),
        (7, 7, ["7", "8"]),
    ],
)
def test_the_axis_of_the_length_plot_has_a_few_round_numbers(monkeypatch, low, high, labels):
    figures = []
    monkeypatch.setattr("jojo.plotting.save_figure", lambda figure, path: figures.append(figure))
    dataset_stats.draw_lengths({"train": np.array([low, high])}, "x", Path("x.png"))
    (axes,) = figures[0].axes
    figures[0].canvas.draw()
    left, right = axes.get_xlim()
    ticks = zip(axes.get_xticklabels(), axes.get_xticks(), strict=True)
    assert [label.get_text() for label, place in ticks if left <= place <= right] == labels
    assert not any(label.get_text() for label in axes.get_xticklabels(which="minor"))


KILLED = """
import os, sys, prepare
left, replace = {nth}, os.replace
def counting(old, new):
    global left
    left -= 1
    if left == 0:
        os._exit(9)
    replace(old, new)
os.replace = counting
prepare.main(sys.argv[1:])
"""


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("nth", [1, 2, 3, 4, 5])
def test_a_preparation_killed_before_any_rename_is_completed_by_the_same_command(nth, force):
    write_lines(Path("a.jsonl"), [{"text": text} for text in sentences(60)])
    flags = ["--input", "a.jsonl", "--name", "set", "--num_workers", "0", "--val_fraction", "0.2"]
    if force:
        write_lines(Path("old.jsonl"), [{"text": text} for text in sentences(60, first=30)])
        run_prepare("--input", "old.jsonl", "--val_fraction", "0.9")
        flags.append("--force")
    code = KILLED.format(nth=nth)
    killed = subprocess.run(
        [sys.executable, "-c", code, *flags], check=False, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert killed.returncode == 9
    assert train_plainly(*TINY, "--dataset", "set", "--max_iters", "1").code == 0 if force else True
    assert not set(texts("train")) & set(texts("val")) if Path("data/set-val.jsonl").exists() else True
    run_prepare("--input", "a.jsonl", "--val_fraction", "0.2", *(["--force"] if force else []))
    assert texts() == sorted(sentences(60))
    assert sorted(p.name for p in Path("data").iterdir() if p.suffix != ".lock") == [
        "set-train.jsonl", "set-val.jsonl", "set.made.json",
    ]  # fmt: skip


def test_temporary_files_of_a_killed_preparation_are_removed_by_the_next_one():
    write_lines(Path("a.jsonl"), [{"text": text} for text in sentences(60)])
    run_prepare("--input", "a.jsonl")
    before = snapshot("data")
    for name in (".set-train.jsonl.new", ".set-val.jsonl.new", ".set.pending.new"):
        Path("data", name).write_text("half")
    assert "exists already" in run_prepare("--input", "a.jsonl")
    assert snapshot("data") == before


def test_a_full_disk_gives_an_error_that_names_the_file(monkeypatch):
    Path("a.txt").write_text("\n<|endoftext|>\n".join(sentences(500)))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for size in (100, 30_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            with pytest.raises(OSError, match=r"File too large: 'data/\.set-train\.jsonl\.new'"):
                run_prepare("--input", "a.txt")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert nothing_was_left()


def test_training_needs_only_the_token_cache_of_a_data_set():
    write_lines(Path("a.jsonl"), [{"text": text} for text in sentences(40)])
    run_prepare("--input", "a.jsonl", "--val_fraction", "0.2")
    shutil.rmtree("data")
    said = run_prepare("--data.data_dir", "other")
    assert "No other/set-val.jsonl: using the token cache made from data/set-val.jsonl." in said
    assert said.endswith("--dataset set --data.data_dir other --data.tokenizer gpt2")
    assert (
        train_plainly(
            *TINY, "--data.tokenizer", "gpt2", "--dataset", "set", "--data.data_dir", "other", "--max_iters", "1"
        ).code
        == 0
    )
    for flag in ("--stats", "--train_tokenizer"):
        with pytest.raises(UserError, match=r"'data/set-train\.jsonl' does not exist .*; make it"):
            run_prepare(flag)


def test_an_invalid_record_of_how_a_data_set_was_made_is_ignored():
    write_lines(Path("a.jsonl"), [{"text": text} for text in sentences(40)])
    run_prepare("--input", "a.jsonl")
    record = Path("data/set.made.json")
    values = json.loads(record.read_text())
    for change in (
        {"documents": {"train": "x", "val": [1]}},
        {"sizes": 5},
        {"request": []},
        {"more": 1},
        {"documents": {}},
    ):
        record.write_text(json.dumps(values | change))
        assert dataset_files.DatasetFiles(Path("data"), "set").provenance() is None
        assert prepare.main([]) == 0
    record.write_text("[" * 100_000)
    assert dataset_files.DatasetFiles(Path("data"), "set").provenance() is None


# --- input with errors ------------------------------------------------------------------------------------------------


def test_unreadable_lines_are_skipped_and_reported_by_number_up_to_the_limit():
    good = [json.dumps({"text": text}) for text in sentences(20)]
    Path("a.jsonl").write_bytes("\n".join([*good, "{broken", "[1, 2]"]).encode() + b'\n{"text": "\xff"}\n\n')
    said = run_prepare("--input", "a.jsonl", "--data.max_bad_lines", "3")
    assert texts() == sorted(sentences(20))
    assert "3 unreadable lines" in said and "a.jsonl, line 21" in said and "line 22" in said and "line 23" in said


def test_one_unreadable_line_over_the_limit_stops_the_preparation():
    good = [json.dumps({"text": text}) for text in sentences(20)]
    Path("a.jsonl").write_text("\n".join([*good, "{broken", "null", "3"]))
    with pytest.raises(UserError, match=r"More than 2 unreadable lines \(a\.jsonl, line 21: not JSON.*max_bad_lines"):
        run_prepare("--input", "a.jsonl", "--data.max_bad_lines", "2")
    assert nothing_was_left()


def test_records_of_no_known_form_count_as_unreadable_before_anything_is_written():
    """They are valid JSON, but training could not read them: a data set with them would fail later."""
    good = [{"text": text} for text in sentences(20)]
    write_lines(Path("a.jsonl"), [*good, {"txt": "a typing error"}, {"text": 5}, {"messages": []}])
    with pytest.raises(UserError, match=r"line 21"):
        run_prepare("--input", "a.jsonl", "--data.max_bad_lines", "2")
    assert nothing_was_left()
    said = run_prepare("--input", "a.jsonl", "--data.max_bad_lines", "3")
    assert "3 unreadable lines" in said and "line 21" in said and '"text"' in said
    assert texts() == sorted(sentences(20))


def test_input_with_only_unreadable_lines_is_refused_with_advice():
    write_lines(Path("a.jsonl"), [{"id": 1, "body": text} for text in sentences(4)])
    Path("b.jsonl").write_bytes(b'{"text": "\xff"}\n')
    for name, words in (
        (
            "a.jsonl",
            r"4 unreadable lines \(a\.jsonl, line 1: .* \(it has: id, body\).*; \.\.\.\); name .* --text_field\.",
        ),
        ("b.jsonl", r"1 unreadable line \(b\.jsonl, line 1: not UTF-8 text\); convert it, .* iconv .*\."),
    ):
        with listening() as said, pytest.raises(UserError, match=rf"^No documents in {name}, but {words}$"):
            prepare.main(["--input", name, "--name", "set"])
        assert said == []
    assert nothing_was_left()


def test_a_file_without_documents_is_refused_and_empty_documents_are_counted():
    Path("empty.txt").write_text("")
    with listening() as said, pytest.raises(UserError, match=r"No documents in empty\.txt; nothing was written\."):
        prepare.main(["--input", "empty.txt", "--name", "set"])
    assert said == []
    write_lines(Path("a.jsonl"), [*({"text": text} for text in sentences(9)), {"text": None}, {"text": " "}])
    assert "Skipped 2 empty documents." in run_prepare("--input", "a.jsonl")


def mixed_folder():
    """A folder with three files that cannot be read and two that can; returns the texts of these."""
    Path("in").mkdir()
    Path("in/a.txt").write_text("Жили-были. " * 9, encoding="cp1251")
    Path("in/b.txt").write_text("A tale.")
    Path("in/c.csv").write_text("id,body\n1,x\n")
    Path("in/d.jsonl").write_text('{"text": "Half of it."}\n' + "{]\n" * 200)
    Path("in/e.jsonl").write_text('{"text": "Another tale."}\n{]\n')
    return ["A tale.", "Another tale.", "Half of it."]


def test_all_files_of_a_folder_that_cannot_be_read_are_named_together_and_can_be_left_out():
    expected = mixed_folder()
    with listening() as said, pytest.raises(UserError) as error:
        prepare.main(["--input", "in", "--name", "set"])
    count = "3 of 5 files cannot be read"
    assert str(error.value) == f"{count} (see above); correct them, or leave them out with --skip_unreadable."
    starts = ["'in/a.txt' is neither", "'in/c.csv' has no column 'text'", "More than 100 unreadable lines (in/d.jsonl,"]
    assert len(said) == 3 and all(map(str.startswith, said, starts))
    assert nothing_was_left()
    said = run_prepare("--input", "in", "--skip_unreadable", *ONE_VALIDATES)
    assert texts() == expected and "Skipped 1 unreadable line (in/e.jsonl, line 2: not JSON" in said


def test_a_failed_preparation_leaves_no_lock():
    Path("a.txt").write_text("Too short.")
    for name, flags in (("a.txt", []), ("none.txt", []), ("a.txt", ["--skip_unreadable"])):
        with pytest.raises(UserError):
            run_prepare("--input", name, *flags)
        assert list(Path("data").iterdir()) == []
    for split in ("train", "val"):
        Path(f"data/set-{split}.jsonl").write_text("no JSON\n")
    with pytest.raises(UserError, match="holds no document"):
        run_prepare()
    assert list(Path("cache").iterdir()) == []


def test_a_text_field_that_no_record_has_is_refused_and_text_can_be_named_too():
    write_lines(Path("a.jsonl"), [{"text": text, "input": "a", "output": text} for text in sentences(9)])
    with pytest.raises(UserError, match=r"No record has a field 'txt'; correct --text_field, or leave it out\."):
        run_prepare("--input", "a.jsonl", "--text_field", "txt")
    run_prepare("--input", "a.jsonl", *ONE_VALIDATES)
    assert "input" in lines("val")[0]
    with pytest.raises(UserError, match="exist already"):
        run_prepare("--input", "a.jsonl", "--text_field", "text", *ONE_VALIDATES)
    run_prepare("--input", "a.jsonl", "--text_field", "text", "--force", *ONE_VALIDATES)
    assert texts() == sorted(sentences(9)) and lines("val")[0].keys() == {"text"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none.txt", "No file or folder 'none.txt'"),
        ("a.pdf", r"'a\.pdf' has an unknown format"),
        ("folder", r"No file in 'folder' can be read"),
        ("empty.txt", r"No documents in empty\.txt"),
        ("empty.jsonl", r"No documents in empty\.jsonl"),
        ("spaces.txt", r"No documents in spaces\.txt"),
    ],
)
def test_input_without_a_document_is_refused(name, words):
    Path("a.pdf").write_bytes(b"%PDF")
    Path("folder").mkdir()
    Path("folder/x.html").write_text("x")
    Path("empty.txt").write_text("")
    Path("empty.jsonl").write_text("\n\n")
    Path("spaces.txt").write_text(" \n<|endoftext|>\n\t\n")
    with pytest.raises(UserError, match=words):
        run_prepare("--input", name)
    assert nothing_was_left()


def test_a_validation_split_never_has_only_empty_documents():
    """{"text": ""} is a record but not a document: training could not use a split of such records."""
    write_lines(Path("a.jsonl"), [{"text": text} for text in sentences(2)] + [{"text": ""}] * 3 + [{"text": " " * 0}])
    run_prepare("--input", "a.jsonl", *ONE_VALIDATES)
    assert all(record["text"] for record in lines("val"))
    assert any(record["text"] for record in lines("train"))


@pytest.mark.parametrize("name", ["a/b", "../x", ".", "..", "a/"])
def test_a_name_that_is_not_a_plain_name_is_refused(name):
    Path("a.txt").write_text("Text. " * 50)
    with pytest.raises(UserError, match="plain name"):
        prepare.main(["--input", "a.txt", "--name", name])
    assert nothing_was_left()


def test_input_without_a_name_is_refused_with_the_full_command():
    with pytest.raises(UserError, match="--input FILES --name NAME"):
        prepare.main(["--input", "x.txt"])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ["--name", "x"],
            r"'data/x-train\.jsonl' does not exist .*; make it: python prepare.py --input FILES --name x",
        ),
        (
            ["--name", "chitchat"],
            r"chitchat-train\.jsonl' does not exist .*; make it: python prepare\.py --dataset chitchat$",
        ),
        (["--dataset", "nothing"], "No recipe 'nothing'; choose one of .*story"),
        (["--dataset", "story", "--input", "a.txt"], "leave one of them out"),
        (["--dataset", "story", "--source", "gone.txt"], r"no file or folder 'gone\.txt'; check --source"),
        (["--dataset", "story", "--endpoint", "http://x"], "--endpoint_model go together"),
        (["--dataset", "story", "--endpoint", "http://x", "--endpoint_model", "m"], "does not rewrite"),
        (["--dataset", "chitchat", "--normalise"], "--normalise needs --input"),
        (["--name", "x", "--separator", "y"], "--separator needs --input"),
        (["--name", "x", "--skip_unreadable"], "--skip_unreadable needs --input"),
        (["--name=-q", "--stats"], "plain name"),
        (["--name", "x", "--source", "hub"], "--source needs --dataset"),
        (["--name", "x", "--max_documents", "9"], "--max_documents needs --dataset or --input"),
        (["--name", "x", "--val_fraction", "0.5"], "--val_fraction needs --dataset or --input"),
        (["--input", "x.txt", "--name", "x", "--seed", "1"], "--seed needs --dataset"),
        (["--dataset", "story", "--max_documents", "1"], "--max_documents must be at least 2"),
        (["--stats"], "--stats needs --name or --dataset"),
        (["--train_tokenizer"], "--train_tokenizer needs --name or --dataset"),
        (["--name", "x", "--train_tokenizer", "--data.tokenizer", "y"], "leave one of them out"),
        (["--name", "x", "--vocab_size", "500"], "--vocab_size needs --train_tokenizer"),
        (["--force"], "--force needs --dataset or --input or --train_tokenizer"),
        (["--name", "x", "--force"], "--force needs"),
        (["--name", "x", "--num_workers", "-3"], "--num_workers must be at least 0, not -3"),
        (["--name", "x", "--verify", "--train_tokenizer"], "only checks .*; leave out --train_tokenizer"),
        (["--name", "x", "--verify", "--input", "a.txt"], "only checks .*; leave out --input"),
        (["--verify", "--data.tokenizer", "y"], r"only checks .*; leave out --data\.tokenizer"),
        (["--input", "x.txt", "--name", "x", "--data.data_dir", __file__], "is a file; it must name a folder"),
        (["--name", "x", "--data.cache_dir", __file__], r"--data\.cache_dir '.*' is a file; it must name a folder"),
        (["--input", "x.txt", "--name", "x", "--separator", "a\nb"], "--separator must be one line"),
    ],
)
def test_wrong_flags_and_flags_that_do_not_go_together_are_refused(flags, words):
    with pytest.raises(UserError, match=words):
        prepare.main(flags)
    assert nothing_was_left()


def test_a_mistyped_flag_is_refused_with_the_nearest_flag(capsys):
    with pytest.raises(SystemExit) as error:
        prepare.main(["--inptu", "x.txt"])
    assert error.value.code == 2
    assert "did you mean --input" in capsys.readouterr().err


def test_for_a_value_that_begins_with_a_dash_the_error_shows_how_to_write_it(capsys):
    for words, end in (
        (["--separator", "---"], '; write a value that begins with "-" as --separator=---'),
        (["--separator", "--input", "x.txt"], ""),
        (["--separator", "--name=x"], ""),
        (["--separator"], ""),
    ):
        with pytest.raises(SystemExit):
            prepare.main(words)
        assert capsys.readouterr().err == f"error: argument --separator: expected one argument{end}\n"
    Path("book.txt").write_text("One.\n---\nTwo.\n")
    run_prepare("--input", "book.txt", "--separator=---", *ONE_VALIDATES)
    assert texts() == ["One.", "Two."]


# --- the output -------------------------------------------------------------------------------------------------------


def test_the_printed_statistics_are_those_of_the_data_set():
    documents = ["The fox sleeps.", "The hen runs. " * 30, "A bear eats.", "An owl flies."]
    write_lines(Path("a.jsonl"), [{"text": text} for text in documents])
    said = run_prepare("--input", "a.jsonl", *ONE_VALIDATES)
    from jojo.text.tokenizer import Tokenizer

    encode = Tokenizer().encode
    for split in ("train", "val"):
        part = said[said.index(f"data/set-{split}.jsonl\n") :]
        sizes = [len(encode(text)) + 1 for text in texts(split)]
        n_bytes = sum(len(text.encode()) for text in texts(split))

        def figure(name, part=part):
            return re.search(rf"{name}\s+(.*)", part).group(1)

        assert figure("documents") == f"{len(sizes)}"
        assert figure("tokens") == f"{sum(sizes):,}, {len(sizes)} of them control tokens"
        assert figure("bytes per token") == f"{n_bytes / (sum(sizes) - len(sizes)):.2f}"
        assert figure("longest document") == f"{max(sizes):,} tokens"
    assert "python train.py --config configs/own-text.json --dataset set --data.tokenizer gpt2" in said


def named_command(said):
    """The flags of the train.py command in the output, which is for the project's folder."""
    command = next(line for line in said.splitlines() if "python train.py" in line)
    return command.replace("configs/", f"{ROOT}/configs/").split("train.py", 1)[1].split()


def test_the_printed_training_command_finds_custom_data_and_cache_folders():
    write_lines(Path("a.jsonl"), [{"text": text} for text in sentences(40)])
    said = run_prepare("--input", "a.jsonl", "--data.data_dir", "d", "--data.cache_dir", "c")
    assert train_plainly(*TINY[2:], *named_command(said), "--max_iters", "1").code == 0
    assert not Path("cache").exists()  # it used the existing cache


RENDERED = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nHi<|im_end|>\n"


def test_text_that_looks_like_control_tokens_is_counted_and_parse_special_is_named():
    write_lines(Path("a.jsonl"), [{"text": text} for text in [*sentences(10), RENDERED, RENDERED + "!"]])
    said = run_prepare("--input", "a.jsonl", *ONE_VALIDATES)
    assert "Text like <|im_start|> in 2 documents is read" in said and "--data.parse_special true" in said


def test_control_tokens_that_were_read_are_counted_and_the_printed_command_reads_them_too():
    write_lines(Path("a.jsonl"), [{"text": text} for text in [*sentences(10), *[RENDERED + "!" * i for i in range(9)]]])
    said = run_prepare("--input", "a.jsonl", "--data.parse_special", *ONE_VALIDATES)
    assert "Text like" not in said
    specials = sum(int(n) for n in re.findall(r"(\d+) of them control tokens", said))
    assert specials == 19 + 9 * 4
    outcome = train_plainly(*TINY[2:], *named_command(said), "--max_iters", "1")
    assert "Text like" not in outcome.said and "Tokenizing" not in outcome.said


# --- verify -----------------------------------------------------------------------------------------------------------


def test_verify_names_every_intact_cache_and_every_damaged_one():
    write_lines(Path("a.jsonl"), [{"text": text} for text in sentences(40)])
    run_prepare("--input", "a.jsonl")
    said = run_prepare("--verify")
    assert said.count("is intact") == 2 and "set-train-" in said and "set-val-" in said
    for suffix in (".bin", ".idx", ".json"):
        (path,) = Path("cache").glob(f"set-train-*{suffix}")
        content = path.read_bytes()
        damaged = bytearray(content)
        damaged[len(damaged) // 2] ^= 1
        cut = content[:-1] if suffix != ".json" else content[:-9]
        for other in (damaged, cut, None):
            path.unlink() if other is None else path.write_bytes(other)
            if other is None and suffix == ".json":
                continue  # without its .json a cache does not exist
            with listening() as said, pytest.raises(UserError, match="1 of 2 token caches are damaged"):
                run_prepare("--verify")
            assert [line for line in said if "is not usable" in line and path.stem in line]
            assert [line for line in said if "is intact" in line and "set-val-" in line]
        path.write_bytes(content)
    assert run_prepare("--verify").count("is intact") == 2


def test_two_preparations_at_the_same_time_write_the_data_set_once(monkeypatch):
    write_lines(Path("a.jsonl"), [{"text": text} for text in sentences(40)])
    inside, waits, outcomes = threading.Event(), threading.Event(), []
    write_dataset = dataset_files.write_dataset

    def slowly(*arguments):
        inside.set()
        assert waits.wait(30)  # until the second thread reports that it waits
        return write_dataset(*arguments)

    def second():
        inside.wait()
        outcomes.append(run_prepare("--input", "a.jsonl"))

    monkeypatch.setattr(dataset_files, "write_dataset", slowly)
    with log_listener(lambda record: "Another process is preparing" in record.getMessage() and waits.set()):
        thread = threading.Thread(target=second)
        thread.start()
        run_prepare("--input", "a.jsonl")
        thread.join()
    assert len(outcomes) == 1 and "exists already, made from the same" in outcomes[0]


def test_verify_without_a_cache_is_refused():
    with pytest.raises(UserError, match=r"No token cache of 'set' in 'cache/'"):
        run_prepare("--verify")
    with pytest.raises(UserError, match=r"No token cache in 'cache/'"):
        prepare.main(["--verify"])


# --- training ---------------------------------------------------------------------------------------------------------


def test_training_does_not_tokenize_a_prepared_data_set_again():
    Path("book.txt").write_text("\n<|endoftext|>\n".join(sentences(30)))
    run_prepare("--input", "book.txt", "--val_fraction", "0.2")
    outcome = train_plainly(*TINY, "--data.tokenizer", "gpt2", "--dataset", "set", "--max_iters", "3")
    assert outcome.code == 0
    assert "Tokenizing" not in outcome.said
    assert state_of("models/set_epoch1.pt")["batch_counter"] == 3


def test_what_is_missing_for_training_is_named_with_the_command_that_makes_it():
    with pytest.raises(UserError, match=r"make it: python prepare\.py --dataset chitchat$"):
        train_plainly(*TINY, "--dataset", "chitchat")
    with pytest.raises(UserError, match=r"make it: python prepare\.py --input FILES --name 'my set'$"):
        train_plainly(*TINY, "--dataset", "my set")
    end = "--train_tokenizer --vocab_size 500, and add --data.tokenizer data/set-500.tiktoken"
    with pytest.raises(UserError, match=rf"make one: python prepare\.py --name set {end}\.$"):
        train_plainly(*TINY, "--dataset", "set", "--data.tokenizer", "data/story-500.tiktoken")


def test_names_and_folders_with_any_bytes_are_read():
    folder = os.fsdecode(b"in\xe9/d\n2")
    os.makedirs(folder)
    for number, name in enumerate((b"a\xff.txt", b"b\x1b[31m.txt")):
        Path(folder, os.fsdecode(name)).write_text(sentences(9)[number])
    flags = ("--name", "set", "--input", b"in\xe9", "--data.data_dir", b"d\xe9", *ONE_VALIDATES)
    # Not in this process: the workers of pytest-xdist cannot send such names in their reports.
    subprocess.run([sys.executable, str(ROOT / "prepare.py"), *flags], check=True, capture_output=True)
    assert len(list(Path(os.fsdecode(b"d\xe9")).glob("set-*.jsonl"))) == 2


def test_preparing_a_data_set_does_not_import_torch():
    """Importing it takes seconds, and more memory than everything else."""
    write_lines(Path("a.jsonl"), [{"text": text} for text in sentences(40)])
    code = "import sys, prepare; prepare.main(sys.argv[1:]); assert 'torch' not in sys.modules"
    flags = ["--input", "a.jsonl", "--name", "set", "--stats"]
    subprocess.run([sys.executable, "-c", code, *flags], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
