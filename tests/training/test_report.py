"""Tests of training/report.py: the page says what the run's files say, and never harms the run or its reader."""

from __future__ import annotations

import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import pytest
from helpers_cli import ROOT
from helpers_data import log_listener
from helpers_run import (
    differences,
    metrics_rows,
    settle,
    state_of,
    stop_after,
    train,
    train_plainly,
    write_data,
)

from config import resolve
from jojo.config_file import config_layers
from jojo.networks import formulas
from training import report
from training.flags import build_parser, overrides
from training.known_runs import KNOWN_RUNS, KnownRun
from utils import UserError

PAGE = Path("models/mine_epoch1.report.html")
TALKS = ("--training.sample_interval", "2", "--training.sample_tokens", "5", "--eval_interval", "2")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(tmp_path, monkeypatch)


class Reader(HTMLParser):
    """A page's elements and text, as a browser would have them."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.source = page.read_text(encoding="utf-8")
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.text, self.config, self.commands = "", "", list[str]()
        self.path: list[tuple[str, str]] = []  # the open elements and their classes
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in ("meta", "br", "polyline", "path"):
            self.path.append((tag, dict(attrs).get("class") or ""))
        if tag == "code":
            self.commands.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("polyline", "path"):
            assert self.path.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if ("style", "") in self.path:
            return
        self.text += data
        if self.path[-1:] == [("pre", "config")]:
            self.config += data
        if ("code", "") in self.path:
            self.commands[-1] += data


def test_the_report_says_what_the_metrics_the_config_and_the_checkpoint_say() -> None:
    assert train("--max_iters", "6", *TALKS).code == 0
    page, last = Reader(PAGE), metrics_rows("models/mine_epoch1.metrics.jsonl", clock=True)[-1]
    metadata = state_of("models/mine_epoch1.pt")["metadata"]
    assert page.config == Path("models/mine_epoch1.config.json").read_text()
    expected = [
        f"{last['bpb']:.4f} bits per byte ± {1.96 * last['bpb_se']:.4f} (95 %)",
        f"{last['val_loss']:.4f} validation loss", f"{last['tokens']} tokens predicted", "data/mine-train.jsonl: 6 batches",
        metadata["dataset"]["train"], metadata["dataset"]["val"], metadata["pytorch_version"], metadata["git_commit"],
        "learning rate0.01", "After batch 2, validation loss",
    ]  # fmt: skip
    assert [words for words in expected if words not in page.text] == []
    assert all(sample["prompt"] + sample["text"] in page.text for sample in last["samples"])
    assert any(line.startswith("python train.py --dataset mine") and "--max_iters 6" in line for line in page.commands)
    assert "unfinished" not in page.text


def test_the_config_and_the_command_in_the_report_give_the_same_run() -> None:
    train("--max_iters", "4", "--model.dropout", "0.1")
    page, before = Reader(PAGE), state_of("models/mine_epoch1.pt")
    Path("run.json").write_text(page.config)
    (line,) = [line for line in page.commands if "run.json" in line]
    assert train_plainly(*shlex.split(line)[2:]).code == 0
    assert differences(before["model"], state_of("models/mine_epoch1.pt")["model"]) == []
    assert len(list(Path("models/old").glob("*/mine_epoch1.report.html"))) == 1  # it moves with the run's other files


def test_tasks_have_intervals() -> None:
    rows = [{"step": 1, "tasks": {"name": 0.25}}, {"step": 2, "tasks": {"name": 0.5}}, {"step": 3}]
    assert report.tasks(rows) == [("task name, share of right answers", "0.500 (95 %: 0.460 to 0.540)")]  # of 600
    assert report.tasks(rows[2:]) == []


def test_hostile_names_and_texts_are_only_text() -> None:
    name, data, prompt = (
        '<img src=x onerror="alert(1)"> $body &amp;',
        "<b>it's",
        "<script>alert(1)</script>\u202eabc",
    )
    write_data(data)
    flags = ["--dataset", data, "--training.sample_prompts", prompt, "--output_checkpoint", f"models/{name}.pt"]
    train("--max_iters", "2", *TALKS, *flags)
    page = Reader(Path(f"models/{name}.report.html"))
    for words in (name, f"data/{data}-train.jsonl", "<script>alert(1)</script>\\u202eabc"):
        assert words in page.text
    assert page.elements.isdisjoint({"script", "img"}) and "\u202e" not in page.source
    assert not any(attribute.startswith("on") for attribute in page.attributes)


def test_the_page_asks_no_host_for_anything() -> None:
    train("--max_iters", "2", *TALKS)
    page = Reader(PAGE)
    assert page.attributes.isdisjoint({"src", "href", "action", "srcset", "data"})
    assert not re.search(r"https?:|//\w|url\(|@import", page.source)
    assert "default-src 'none'" in page.source


def test_a_report_that_cannot_be_written_is_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, text: str) -> None:
        raise UserError(f"Could not write '{path}' (No space left on device).")

    monkeypatch.setattr(report, "replace_text", full)
    warnings: list[str] = []
    with log_listener(lambda record: warnings.append(record.getMessage()) if record.levelname == "WARNING" else None):
        outcome = train("--max_iters", "2")
    assert outcome.code == 0 and "TRAINING COMPLETED" in outcome.said
    assert [words for words in warnings if "No space" in words] == [w for w in warnings if "report" in w.lower()]
    assert sum("No report" in words for words in warnings) == 1
    assert not PAGE.exists() and Path("models/mine_epoch1.pt").exists()


def test_a_stopped_run_has_an_unfinished_report_and_a_resumed_one_the_whole_story(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stop_after(monkeypatch, 3)
    train("--max_iters", "6", *TALKS)
    page = Reader(PAGE)
    assert "3 of 6 batches" in page.text and "This run is unfinished. To continue it:" in page.text
    assert "python train.py --resume models/mine_epoch1.pt" in page.commands
    stop_after(monkeypatch, None)
    assert "report.html" in train_plainly("--resume", "models/mine_epoch1.pt").said
    page = Reader(PAGE)
    assert "unfinished" not in page.text and "After batch 2" in page.text and "After batch 6" in page.text
    assert "batch 3 of models/mine_epoch1.pt" in page.text


def test_a_run_without_evaluations_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    stop_after(monkeypatch, 2)
    train("--max_iters", "6", "--eval_interval", "0", "--training.save_checkpoints", "false")
    page = Reader(PAGE)
    assert "This run has no evaluation yet" in page.text and "bits per byte" not in page.text
    assert not any("models/mine_epoch1.pt" in line for line in page.commands)  # there is no such file


def test_resuming_a_complete_run_writes_a_missing_report_and_keeps_one_that_is_there() -> None:
    train("--max_iters", "2")
    before = PAGE.read_bytes()
    train_plainly("--resume", "models/mine_epoch1.pt")
    assert PAGE.read_bytes() == before
    PAGE.unlink()
    train_plainly("--resume", "models/mine_epoch1.pt")
    assert "2 batches" in Reader(PAGE).text


# --- is it normal? ----------------------------------------------------------------------------------------------------


def known(tokens: int = 1000, parameters: float = 10.0, bpb: float = 1.0) -> KnownRun:
    return KnownRun("a text", "abc", parameters, tokens, bpb, "--flag")


@pytest.mark.parametrize(
    ("own", "says"),
    [
        (known(bpb=1.1), "Yes: it is near"),
        (known(bpb=1.3), "It is higher"),
        (known(bpb=0.8), "It is lower"),
        (known(tokens=1400, parameters=6.0), "Yes: it is near"),
        (known(tokens=2000), "another size or another length"),
        (known(parameters=30.0), "another size or another length"),
    ],
)
def test_a_run_is_judged_by_a_known_run_of_its_size_and_length(own: KnownRun, says: str) -> None:
    assert says in report.verdict(own, [known(), known(tokens=90_000, bpb=0.1)])


def test_only_known_runs_on_the_same_validation_text_count(monkeypatch: pytest.MonkeyPatch) -> None:
    train("--max_iters", "2")
    assert "no known run has this validation text" in Reader(PAGE).text
    (manifest,) = Path("cache").glob("mine-val-*.json")
    same = KnownRun("my text", json.loads(manifest.read_text())["source"]["sha256"], 1.0, 64, 0.5, "--config mine.json")
    monkeypatch.setattr(report, "KNOWN_RUNS", [same, known()])
    train("--max_iters", "2")
    page = Reader(PAGE)
    assert "another size" in page.text and "my text" in page.text and "a text" not in page.text
    assert "python train.py --config mine.json" in page.commands


@pytest.mark.parametrize("run", KNOWN_RUNS, ids=lambda run: f"{run.bpb}")
def test_a_known_runs_command_gives_its_size_and_length(run: KnownRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    words = run.flags.split()
    args = build_parser().parse_args(words)
    config, _ = resolve(config_layers(args.config, overrides(args, words)))
    own = 3072 if "built-in" in run.text else 8256  # the rows of a vocabulary that is made from the text
    config.model.vocab_size = {"story": 3072, "gpt2": 50304}.get(config.data.tokenizer, own)
    assert formulas(config.model).n_parameters == pytest.approx(run.parameters, rel=0.04)
    assert (config.training.max_iters or 0) * config.tokens_per_batch == run.tokens


# --- the curve --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high"), [(0.13, 8.0), (3.9, 4.2), (2.0, 2.0), (0.0, 1.0), (0.0, 4500.0), (1e-9, 1e12)]
)
def test_ticks_are_few_and_enclose_the_values(low: float, high: float) -> None:
    found = report.ticks(low, high)
    assert 2 <= len(found) <= 8 and found[0] <= low * (1 + 1e-12) and found[-1] >= high * (1 - 1e-12)
    assert found == sorted(set(found))
