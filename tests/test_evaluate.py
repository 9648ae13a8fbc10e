"""evaluate.py as a command: what it measures, what it writes, and its errors."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from helpers_data import write_lines
from helpers_fork import run_script
from helpers_run import listening, settle, train
from pictures import png_size

import evaluate
import upload_to_huggingface
from evaluation.builtin import TASKS
from evaluation.choices import TaskResult
from evaluation.core import CoreResult
from evaluation.intervals import Estimate
from evaluation.results import Results
from evaluation.standard import StandardResult
from jojo.checkpoints.file import read_file, write_file
from utils import UserError

MODEL = "models/mine_epoch1.pt"
QUESTION = {"context": "the fox went to the", "choices": [" hill", " well"], "answer": 0}


@pytest.fixture(autouse=True)
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(tmp_path, monkeypatch)
    train("--max_iters", "3", "--training.eval_iters", "1000")


def found(*flags: str, model: str = MODEL) -> tuple[dict[str, Any], str]:
    """What --json writes, and what is said."""
    with listening() as said:
        assert evaluate.main([model, *flags, "--json", "out.json"]) == 0
    return json.loads(Path("out.json").read_text(encoding="utf-8")), "\n".join(said)


def test_a_model_alone_is_measured_on_its_validation_text_and_all_built_in_tasks() -> None:
    values, said = found("--seed", "7")
    assert values["tasks"].keys() == TASKS.keys()
    for name, task in values["tasks"].items():
        assert task["questions"] == 600 and task["chance"] == 0.5
        assert abs(task["acc"] - 0.5) < 0.08  # it has learned nothing
        assert re.search(rf"^{name} +0\.\d+ ", said, re.MULTILINE)
    reported = json.loads(Path("models/mine_epoch1.metrics.jsonl").read_text().splitlines()[-1])["bpb"]
    validation = values["bits_per_byte"]["validation"]
    assert validation["bpb"] == pytest.approx(reported, rel=1e-5) and validation["documents"] == 6
    low, high = validation["bpb_interval"]
    assert f"validation text of mine  {validation['bpb']:.4f} [{low:.4f}, {high:.4f}]" in said
    assert "validation text of mine: 6 documents, so the interval is missing or too narrow." in said
    assert values["model"] == MODEL and values["dtype"] == "float32"
    assert values["command"] == f"python evaluate.py {MODEL} --seed 7 --json out.json"
    again, other = (found("--validation", "--seed", seed)[0]["bits_per_byte"] for seed in ("7", "0"))
    assert again == values["bits_per_byte"] != other


def test_texts_and_tasks_are_measured_together() -> None:
    Path("a.txt").write_text("The fox went to the hill.", encoding="utf-8")
    write_lines(Path("q.jsonl"), [QUESTION, QUESTION | {"choices": [" hill", " well", " mill"]}])
    flags = ("--text", "a.txt", "--text", "a.txt", "--tasks", "q.jsonl", "--validation", "--plot", "out.png")
    values, said = found(*flags)
    assert values["bits_per_byte"].keys() == {"validation", "text"}
    text, task = values["bits_per_byte"]["text"], values["tasks"]["q.jsonl"]
    assert (text["documents"], text["bytes"], text["bpb_interval"]) == (1, 25, None)
    assert task["questions"] == 2 and task["chance"] == pytest.approx(5 / 12)
    assert [len(row) for row in task["log_likelihoods"]] == [2, 3] and task["tokens"][0] == [1, 1]
    right = [max(row) == row[0] for row in task["log_likelihoods"]]
    assert task["acc"] == sum(right) / 2 and task["acc_interval"][0] < task["acc"] + 1e-9
    assert re.search(rf"^q\.jsonl +{task['acc']:.3f} \[0\.\d+, \d\.\d+\] .* 0\.417 +2$", said, re.MULTILINE)
    width, height = png_size(Path("out.png"))
    assert width > 600 and height > 300
    alone = found("--tasks", "q.jsonl", "recall")[0]
    assert alone["bits_per_byte"] == {} and list(alone["tasks"]) == ["q.jsonl", "recall"]


def test_a_hugging_face_folder_is_the_same_model() -> None:
    flags = ["--repo-name", "tales", "--dataset", "mine", "--dry-run"]
    assert upload_to_huggingface.main([MODEL, *flags]) == 0
    write_lines(Path("q.jsonl"), [QUESTION])
    flags = ["--text", "data/mine-val.jsonl", "--tasks", "q.jsonl"]
    folder, checkpoint = found(*flags, model="hf_model")[0], found(*flags)[0]
    assert folder["tasks"] == checkpoint["tasks"]
    assert folder["bits_per_byte"] == checkpoint["bits_per_byte"]
    validation = found("--validation")[0]["bits_per_byte"]["validation"]
    assert checkpoint["bits_per_byte"]["text"]["bpb"] == pytest.approx(validation["bpb"])
    with pytest.raises(UserError, match="'hf_model' does not say which data it was trained on; name files with --text"):
        evaluate.main(["hf_model"])


def test_names_that_are_neither_built_in_nor_files_go_to_lm_eval(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    metrics = {"acc": (1 / 3, 0.04321), "word_perplexity": (1234.5, None)}

    def run(model: object, tokenizer: object, loaded: object, most: object) -> dict[str, StandardResult]:
        asked.append((loaded, most))
        return {"piqa": StandardResult(1838, "1.0", metrics)}

    monkeypatch.setattr("evaluation.standard.load_standard", lambda names, builtin: names)
    monkeypatch.setattr("evaluation.standard.run_standard", run)
    monkeypatch.setattr("evaluate.metadata.version", lambda name: f"version of {name}")
    Path("blimp").mkdir()
    values, said = found("--tasks", "piqa", "blimp", "--items", "7", "--plot", "out.png")
    assert asked == [(["piqa", "blimp"], 7)]
    assert values["lm_eval"]["piqa"] == {
        "questions": 1838, "version": "1.0", "acc": 1 / 3, "acc_stderr": 0.04321,
        "word_perplexity": 1234.5, "word_perplexity_stderr": None,
    }  # fmt: skip
    assert values["versions"]["lm-eval"] == "version of lm_eval" and values["tasks"] == values["bits_per_byte"] == {}
    assert re.search(r"^piqa +acc +0\.3333 +0\.0432 +1,838$", said, re.MULTILINE)
    assert re.search(r"^piqa +word_perplexity +1234\.5000 +1,838$", said, re.MULTILINE)
    assert "No picture" not in said and png_size(Path("out.png"))[0] > 600
    metrics.pop("acc")
    assert "No picture" in found("--tasks", "piqa", "--plot", "none.png")[1] and not Path("none.png").exists()


def test_every_share_of_right_answers_is_drawn_with_its_interval_and_what_guessing_scores() -> None:
    task = TaskResult([], 0.25, {"acc": Estimate(0.4, 0.3, 0.5), "acc_norm": Estimate(0.5, 0.4, 0.6)})
    core = CoreResult({"arc_easy": Estimate(0.3, 0.2, 0.4)}, {"arc_easy": 0.25}, {"arc_easy": 0.0667})
    arc = StandardResult(10, "1.0", {"acc": (0.5, 0.1), "perplexity": (20.0, 1.0), "acc_norm": (0.25, None)})
    gsm = StandardResult(10, "1.0", {"perplexity": (20.0, 1.0)})
    results = Results(tasks={"recall": task}, core=core, standard={"arc_easy": arc, "wikitext": gsm})
    by_name = {name: (scores, chance) for name, scores, chance in results.shares()}
    assert by_name["recall"] == (task.scores, 0.25) and by_name["CORE arc_easy"] == (
        {"acc": Estimate(0.3, 0.2, 0.4)},
        0.25,
    )
    drawn, chance = by_name["lm-eval arc_easy"]
    assert by_name.keys() == {"recall", "CORE arc_easy", "lm-eval arc_easy"} and chance is None
    assert drawn["acc"] == Estimate(0.5, pytest.approx(0.304, abs=1e-4), pytest.approx(0.696, abs=1e-4))
    assert drawn["acc_norm"].value == 0.25 and drawn["acc_norm"].interval is None
    results.draw(Path("shares.png"), "x.pt")
    assert png_size(Path("shares.png"))[0] > 600


def test_weights_of_fewer_bits_are_measured_too() -> None:
    exact, rounded = (found("--validation", "--dtype", dtype)[0] for dtype in ("float32", "int8"))
    assert (exact["dtype"], rounded["dtype"]) == ("float32", "int8")
    bpb = [values["bits_per_byte"]["validation"]["bpb"] for values in (exact, rounded)]
    assert bpb[0] != bpb[1] and bpb[0] == pytest.approx(bpb[1], rel=0.01)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--text", "none.txt"), "No file or folder 'none.txt'; check --text."),
        (("--seed", "-1"), "--seed must be between 0 and"),
        (("--text_field", "x"), "--text_field needs --text"),
        (("--items", "0"), "--items must be 1 or more, not 0."),
        (("--items", "5", "--tasks", "recall"), "--items is for --core and lm-eval's tasks only; leave it out."),
        (("--json", MODEL), "must not replace a model"),
        (("--tasks", "bad.jsonl"), "'bad.jsonl', line 1: \"choices\" must be a list"),
        (("--json", "data/mine-val.jsonl/x.json"), "Could not write"),
        (("--dtype", "float16", "--device", "cpu"), "float16 on a CPU is hundreds of times slower"),
        (("--device", "cuda:99"), "cuda"),
    ],
)
def test_errors_are_one_sentence(flags: tuple[str, ...], said: str) -> None:
    write_lines(Path("bad.jsonl"), [{"context": "", "choices": [], "answer": 0}])
    with pytest.raises(UserError, match=re.escape(said)):
        evaluate.main([MODEL, *flags])


def test_missing_data_is_an_error_that_says_how_to_make_it() -> None:
    state = read_file(Path(MODEL))
    state["config"]["data"]["dataset_name"] = "gone"
    write_file(state, Path("models/gone.pt"))
    with pytest.raises(UserError, match=r"'data/gone-train.jsonl' does not exist .* make it: python prepare.py"):
        evaluate.main(["models/gone.pt"])


def test_it_runs_as_a_command_and_a_missing_file_of_questions_is_one_sentence() -> None:
    done = run_script(evaluate.__file__, MODEL, "--tasks", "none.jsonl")
    assert done.code == 1 and done.err.count("\n") == 1 and "No such file or directory: 'none.jsonl'" in done.err
