"""Tests of resuming: a resumed run ends exactly like an uninterrupted one, and new runs keep the files of older ones."""

from __future__ import annotations

import gc
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import weakref
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from helpers_run import (
    QWEN3,
    TINY,
    both_architectures,
    differences,
    metrics_rows,
    settle,
    snapshot,
    state_of,
    stop_after,
    train,
    train_plainly,
    write_data,
)

import trainer as trainer_module
from jojo.checkpoints import file as checkpoint_file
from jojo.checkpoints import saver as saver_module
from jojo.checkpoints.run_files import RunFiles
from training.flags import Request
from training.run import prepare_run
from utils import UserError

ROOT = Path(__file__).resolve().parents[2]
# An epoch has 11 micro-batches, so it has 6 batches, and the last one is half empty.
HARD = ("--model.dropout", "0.1", "--training.gradient_accumulation_steps", "2", "--max_iters", "15")


@pytest.fixture(autouse=True)
def folder_with_data(tmp_path, monkeypatch):
    settle(tmp_path, monkeypatch)


def left_over(path):
    """The contents of a checkpoint, without the metadata and the config of its run."""
    state = dict(state_of(path))
    del state["metadata"], state["config"], state["derived"]
    return state


def same_training(a, b):
    """Asserts that two checkpoints hold the same training; evaluations may have happened at other times."""
    a, b = state_of(a), state_of(b)
    names = ("model", "optimizer", "scaler", "rng", "loader", "epoch", "batch_counter", "global_iter_num")
    assert [d for name in names for d in differences(a[name], b[name], name)] == []
    for name in ("train_loss_batch", "learning_rate", "tokens"):
        assert differences(a["metrics"][name], b["metrics"][name], name) == []


# --- exactness ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "batches"), [((), (1, 6, 14)), (QWEN3, (4, 8))])
def test_a_run_stopped_at_any_batch_and_resumed_ends_as_if_it_never_stopped(monkeypatch, family, batches):
    """Stops after the first batch, in an epoch, at its end (6), in the second epoch and before the last batch."""
    flags = (*HARD, *family, "--eval_interval", "4", "--output_checkpoint")
    assert train(*flags, "models/whole.pt").code == 0
    for batch in batches:
        name = f"models/stopped_at_{batch}"
        stop_after(monkeypatch, batch)
        assert train(*flags, f"{name}.pt").code == 130
        assert state_of(f"{name}.pt")["batch_counter"] == batch
        stop_after(monkeypatch, None)
        outcome = train_plainly("--resume", f"{name}.pt")  # the command that the stopped run printed
        assert outcome.code == 0
        assert f"batch {batch} of {name}.pt" in outcome.said
        assert differences(left_over("models/whole.pt"), left_over(f"{name}.pt")) == [], batch
        assert differences(left_over("models/whole_best.pt"), left_over(f"{name}_best.pt")) == [], batch
        rows = metrics_rows(f"{name}.metrics.jsonl")
        assert [row["step"] for row in rows] == list(range(1, 16))
        assert rows == metrics_rows("models/whole.metrics.jsonl")


@both_architectures
def test_muons_momentum_and_the_average_of_the_weights_are_saved_and_resumed(monkeypatch, family):
    averaged_muon = ("--optimizer.kind", "muon", "--training.ema", "0.9", "--optimizer.momentum_warmup", "5")
    averaged_muon += ("--optimizer.embedding_learning_rate", "0.02", "--optimizer.norm_learning_rate", "0.005")
    flags = (*HARD, *family, *averaged_muon, "--max_iters", "6", "--output_checkpoint")
    assert train(*flags, "models/whole.pt").code == 0
    stop_after(monkeypatch, 3)
    assert train(*flags, "models/stopped.pt").code == 130
    stop_after(monkeypatch, None)
    assert train_plainly("--resume", "models/stopped.pt").code == 0
    kept = state_of("models/stopped.pt")["optimizer"]
    kept_of_matrices = {key for name, values in kept.items() if ".mlp." in name for key in values}
    assert kept_of_matrices == {"momentum_buffer", "raw_weight"}
    assert differences(left_over("models/whole.pt"), left_over("models/stopped.pt")) == []


def test_the_first_batch_after_a_resume_is_the_next_one_of_the_data(monkeypatch):
    seen = []
    step = trainer_module.Trainer.step

    def watched(self, batch):
        seen.append((self.batches_done, self.epoch, self.position, batch.targets.tolist()))
        return step(self, batch)

    monkeypatch.setattr(trainer_module.Trainer, "step", watched)
    train(*HARD, "--output_checkpoint", "models/whole.pt", "--checkpoint_interval", "7")
    whole = list(seen)
    seen.clear()
    train_plainly("--resume", "models/whole_batch7.pt")
    assert seen == whole[7:]


def test_several_interruptions_and_changed_intervals_do_not_change_the_training(monkeypatch):
    train(*HARD, "--eval_interval", "0", "--output_checkpoint", "models/whole.pt")
    parts = "models/parts.pt"
    stop_after(monkeypatch, 3)
    flags = ("--eval_interval", "1", "--training.checkpoint_minutes", "0", "--output_checkpoint", parts)
    assert train(*HARD, *flags).code == 130
    stop_after(monkeypatch, 9, signal.SIGTERM)
    flags = ("--eval_interval", "2", "--checkpoint_interval", "1", "--log_interval", "1", "--training.eval_iters", "5")
    assert train_plainly("--resume", parts, *flags).code == 143
    stop_after(monkeypatch, 10)
    assert train_plainly("--resume", parts, "--eval_interval", "0", "--checkpoint_interval", "0").code == 130
    stop_after(monkeypatch, None)
    flags = ("--eval_interval", "5", "--training.checkpoint_minutes", "1", "--val_batches", "1")
    assert train_plainly("--resume", parts, *flags).code == 0
    same_training("models/whole.pt", parts)
    losses = [
        (row["step"], row["loss"], row["lr"], row["tokens"]) for row in metrics_rows("models/parts.metrics.jsonl")
    ]
    assert losses == [
        (row["step"], row["loss"], row["lr"], row["tokens"]) for row in metrics_rows("models/whole.metrics.jsonl")
    ]


def test_a_killed_run_resumes_from_its_last_checkpoint_and_repeats_the_lost_batches_exactly(monkeypatch):
    train(*HARD, "--output_checkpoint", "models/whole.pt")

    class PowerCut(BaseException):
        pass

    step = trainer_module.Trainer.step

    def cut(self, batch):
        if self.batches_done == 11:
            raise PowerCut
        return step(self, batch)

    monkeypatch.setattr(trainer_module.Trainer, "step", cut)
    with pytest.raises(PowerCut):
        train(*HARD, "--output_checkpoint", "models/parts.pt", "--eval_interval", "100")
    assert state_of("models/parts.pt")["batch_counter"] == 6  # saved at the epoch's end
    assert len(metrics_rows("models/parts.metrics.jsonl")) == 11
    with open("models/parts.metrics.jsonl", "a") as file:
        file.write('{"step": 12, "lo')
    monkeypatch.setattr(trainer_module.Trainer, "step", step)
    assert train_plainly("--resume", "models/parts.pt").code == 0
    assert differences(left_over("models/whole.pt"), left_over("models/parts.pt")) == []
    assert metrics_rows("models/parts.metrics.jsonl") == metrics_rows("models/whole.metrics.jsonl")


def test_a_run_killed_right_after_its_best_model_was_saved_resumes_from_it_without_a_gap(monkeypatch):
    class PowerCut(BaseException):
        pass

    save = saver_module.Saver.save

    def cut(self, state, paths):
        save(self, state, paths)
        if paths[0].name.endswith("_best.pt") and state["batch_counter"] == 4:
            raise PowerCut

    monkeypatch.setattr(saver_module.Saver, "save", cut)
    with pytest.raises(PowerCut):
        train(*HARD, "--eval_interval", "2")
    monkeypatch.setattr(saver_module.Saver, "save", save)
    assert state_of("models/mine_epoch1_best.pt")["batch_counter"] == 4
    train_plainly("--resume", "models/mine_epoch1_best.pt")
    rows = metrics_rows("models/mine_epoch1.metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 16))
    assert [row["step"] for row in rows if "val_loss" in row][:3] == [2, 4, 6]


def test_a_run_killed_between_any_two_files_of_a_save_ends_with_the_files_of_an_undisturbed_run(monkeypatch):
    """Every state that the folder has during the saves is a moment at which the run may be killed."""
    moments: list[dict[str, bytes]] = []

    with monkeypatch.context() as patch:
        for module, name in ((os, "replace"), (RunFiles, "prune")):  # before a temporary file gets its name
            real = getattr(module, name)
            patch.setattr(module, name, lambda *args, real=real: (moments.append(snapshot("models")), real(*args))[1])
        train(
            "--max_iters", "4", "--checkpoint_interval", "2", "--training.keep_checkpoints", "1", "--eval_interval", "2"
        )
    Path("models").rename("undisturbed")
    killed = [files for files in moments if any(name.endswith(".pt") for name in files)]
    both = {"mine_epoch1_batch2.pt", "mine_epoch1_batch4.pt"}  # only before prune()
    assert len(killed) > 5 and any(both <= files.keys() for files in killed)
    assert ".report.html." in str(killed[-1].keys())  # the last moment: the report has not got its name yet
    for files in killed:
        for name, content in files.items():
            Path("models").mkdir(exist_ok=True)
            Path("models", name).write_bytes(content)
        assert train("--max_iters", "4", "--resume").code == 0
        assert snapshot("models").keys() == snapshot("undisturbed").keys()
        for path in Path("undisturbed").glob("*.pt"):
            assert differences(left_over(path), left_over(Path("models", path.name))) == []
        name = "mine_epoch1.metrics.jsonl"
        assert metrics_rows(f"models/{name}") == metrics_rows(f"undisturbed/{name}")
        shutil.rmtree("models")


def test_a_real_signal_stops_a_real_process_with_its_exit_code_and_loses_nothing():
    number, code = signal.SIGTERM, 143
    flags = ["--model.dropout", "0.1", "--training.gradient_accumulation_steps", "2", "--scheduler.decay_lr", "false"]
    flags += ["--scheduler.warmup_iters", "2", "--eval_interval", "0", "--train_batches", "1000000"]
    command = [sys.executable, str(ROOT / "train.py"), *TINY, *flags, "--max_iters", "1000000"]
    process = subprocess.Popen(
        [*command, "--log_interval", "1"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    with process:
        said = ""
        for line in process.stdout:
            said += line
            if line.startswith("batch 3/"):
                process.send_signal(number)
        assert process.wait(timeout=60) == code, said
    assert "Traceback" not in said and "--resume models/mine_epoch1.pt" in said
    done = state_of("models/mine_epoch1.pt")["batch_counter"]
    assert done >= 3 and len(metrics_rows("models/mine_epoch1.metrics.jsonl")) == done
    length = ("--max_iters", str(done + 2), "--scheduler.decay_lr", "false")
    assert train_plainly("--resume", "models/mine_epoch1.pt", *length).code == 0
    assert train(*flags, *length, "--output_checkpoint", "models/whole.pt").code == 0
    same_training("models/whole.pt", "models/mine_epoch1.pt")


# --- which checkpoint -------------------------------------------------------------------------------------------------


def test_resume_without_a_path_continues_the_run_of_output_checkpoint(monkeypatch):
    stop_after(monkeypatch, 2)
    train(*HARD, "--output_checkpoint", "models/own.pt")
    stop_after(monkeypatch, None)
    outcome = train(*HARD, "--output_checkpoint", "models/own.pt", "--resume")
    assert outcome.code == 0 and "batch 2 of models/own.pt" in outcome.said


def test_resume_without_a_checkpoint_is_refused():
    with pytest.raises(UserError, match=r"Nothing to resume.*models/mine_epoch1\.pt"):
        train("--resume")
    with pytest.raises(UserError, match=r"No checkpoint 'models/none\.pt'"):
        train("--resume", "models/none.pt")
    assert not Path("models").exists()


def test_a_numbered_checkpoint_continues_in_the_files_of_its_run():
    train(*HARD, "--checkpoint_interval", "5")
    uninterrupted = left_over("models/mine_epoch1.pt")
    Path("models/mine_epoch1.pt").unlink()
    assert train_plainly("--resume", "models/mine_epoch1_batch5.pt").code == 0
    assert differences(uninterrupted, left_over("models/mine_epoch1.pt")) == []
    assert not Path("models/mine_epoch1_batch5_best.pt").exists()
    assert [row["step"] for row in metrics_rows("models/mine_epoch1.metrics.jsonl")] == list(range(1, 16))


@pytest.mark.parametrize("how", ["continue_from", "weights_from"])
def test_the_tensors_of_the_checkpoint_are_not_kept_in_memory_while_training_continues(how):
    train("--max_iters", "2")
    more = [("--max_iters", "training.max_iters", 3), ("--dataset", "data.dataset_name", "mine")]
    with closing(prepare_run(Request(overrides=more, **{how: "models/mine_epoch1.pt"}))) as run:
        trainer = trainer_module.Trainer(run)
        state = run.start.checkpoint.state
        averages = [value for weight in state["optimizer"].values() for value in weight.values()]
        kept = [weakref.ref(tensor) for tensor in [*run.start.checkpoint.model.values(), *averages]]
        del state, averages
        seen = []
        plain = trainer.backward

        def backward(batch):
            gc.collect()
            seen.append([ref() for ref in kept if ref() is not None])
            return plain(batch)

        trainer.backward = backward
        assert trainer.train() == 0
    assert len(kept) > 20 and seen and not any(seen)


def test_resuming_a_finished_run_says_so_and_writes_nothing():
    train("--max_iters", "3")
    before = snapshot("models")
    outcome = train_plainly("--resume", "models/mine_epoch1.pt")
    assert outcome.code == 0
    assert "complete" in outcome.said and "--max_iters" in outcome.said
    assert snapshot("models") == before


def test_a_run_that_reached_max_iters_continues_when_more_epochs_are_asked_for():
    """The message in the test above suggests this, so it must work."""
    train("--max_iters", "3")
    train_plainly("--resume", "models/mine_epoch1.pt", "--epochs", "2")
    assert state_of("models/mine_epoch1.pt")["batch_counter"] == 22


def test_resuming_into_a_longer_run_says_so_and_derives_the_rest_of_the_schedule():
    train("--max_iters", "6")
    outcome = train_plainly("--resume", "models/mine_epoch1.pt", "--max_iters", "12")
    assert outcome.code == 0
    assert "12 batches long instead of 6" in outcome.said
    rates = [row["lr"] for row in metrics_rows("models/mine_epoch1.metrics.jsonl")]
    assert len(rates) == 12
    assert rates[6] > rates[5]  # it was nearly at its minimum, and rises again
    assert rates[6:] == sorted(rates[6:], reverse=True)
    assert rates[11] < rates[5]


def test_resuming_with_the_same_length_reports_no_change_of_length(monkeypatch):
    stop_after(monkeypatch, 2)
    train("--max_iters", "6")
    stop_after(monkeypatch, None)
    assert "instead of" not in train_plainly("--resume", "models/mine_epoch1.pt").said


# --- options that must not change -------------------------------------------------------------------------------------

DECISIVE = [
    ("--batch_size", "training.batch_size 2 -> 4", "4"),
    ("--training.gradient_accumulation_steps", "training.gradient_accumulation_steps 1 -> 2", "2"),
    ("--learning_rate", "optimizer.learning_rate 0.01 -> 0.5", "0.5"),
    ("--optimizer.weight_decay", "optimizer.weight_decay 0.1 -> 0.0", "0"),
    ("--scheduler.kind", "scheduler.kind cosine -> wsd", "wsd"),
    ("--scheduler.warmup_iters", "scheduler.warmup_iters 0 -> 2", "2"),
    ("--model.dropout", "model.dropout 0.0 -> 0.2", "0.2"),
    ("--seed", "system.seed 1337 -> 7", "7"),
    ("--dtype", "system.dtype float32 -> bfloat16", "bfloat16"),
    ("--train_batches", "training.train_batches None -> 3", "3"),
]


def test_changes_of_options_that_affect_training_are_refused_by_name(monkeypatch):
    stop_after(monkeypatch, 2)
    train("--max_iters", "6")
    before = snapshot("models")
    for flag, words, value in DECISIVE:
        with pytest.raises(UserError) as error:
            train_plainly("--resume", "models/mine_epoch1.pt", flag, value)
        assert words in str(error.value) and "--allow_changes" in str(error.value)
    with pytest.raises(UserError) as error:
        train_plainly("--resume", "models/mine_epoch1.pt", "--seed", "7", "--batch_size", "4")
    assert "system.seed" in str(error.value) and "training.batch_size" in str(error.value)  # both in one message
    assert snapshot("models") == before


def test_allow_changes_continues_with_the_changed_option(monkeypatch):
    stop_after(monkeypatch, 2)
    train("--max_iters", "6")
    stop_after(monkeypatch, None)
    flags = ("--learning_rate", "0.001", "--allow_changes")
    assert train_plainly("--resume", "models/mine_epoch1.pt", *flags).code == 0
    rates = [row["lr"] for row in metrics_rows("models/mine_epoch1.metrics.jsonl")]
    assert rates[1] > 0.009 and rates[2] <= 0.001
    assert state_of("models/mine_epoch1.pt")["config"]["optimizer"]["learning_rate"] == 0.001


def test_allow_changes_with_fewer_batches_an_epoch_never_trains_on_an_empty_batch(monkeypatch):
    """At batch 9 of 11 the batches become twice as large: the epoch has six of them, and position 9 does not exist."""
    stop_after(monkeypatch, 9)
    train("--max_iters", "20")
    stop_after(monkeypatch, None)
    outcome = train_plainly("--resume", "models/mine_epoch1.pt", "--batch_size", "4", "--allow_changes")
    assert outcome.code == 0
    tokens = [row["tokens"] for row in metrics_rows("models/mine_epoch1.metrics.jsonl")]
    assert len(tokens) == 20
    assert all(a < b for a, b in pairwise(tokens))


def test_changed_training_data_is_refused_and_other_paths_to_the_same_data_are_not(monkeypatch):
    stop_after(monkeypatch, 2)
    train("--max_iters", "6")
    shutil.copytree("data", "elsewhere")
    stop_after(monkeypatch, 3)
    moved = ("--data.data_dir", "elsewhere", "--data.cache_dir", "cache2")
    assert train_plainly("--resume", "models/mine_epoch1.pt", *moved).code == 130
    with open("data/mine-train.jsonl", "a") as file:
        file.write('{"text": "One more story."}\n')
    with pytest.raises(UserError, match="mine-train "):
        train_plainly("--resume", "models/mine_epoch1.pt", "--data.data_dir", "data")
    stop_after(monkeypatch, None)
    flags = ("--data.data_dir", "data", "--allow_changes")
    assert train_plainly("--resume", "models/mine_epoch1.pt", *flags).code == 0


def test_a_resumed_run_keeps_its_data_set_and_every_other_choice_without_flags(monkeypatch):
    write_data("other", n_train=9)
    stop_after(monkeypatch, 2)
    train("--dataset", "other", "--seed", "5", "--max_iters", "4", "--model.n_layer", "2", "--eval_interval", "3")
    stop_after(monkeypatch, None)
    before = state_of("models/other_epoch1.pt")["config"]
    train_plainly("--resume", "models/other_epoch1.pt")
    assert state_of("models/other_epoch1.pt")["config"] == before
    assert before["data"]["dataset_name"] == "other" and before["training"]["eval_interval"] == 3


# --- weights only -----------------------------------------------------------------------------------------------------


def test_a_shape_that_contradicts_the_loaded_model_is_refused_with_both_values():
    train("--max_iters", "1")
    for start in ("--resume", "--load_model_only"):
        with pytest.raises(UserError, match=r"model\.n_layer 3 \(--model\.n_layer\) against 1") as error:
            train_plainly(start, "models/mine_epoch1.pt", "--model.n_layer", "3", "--model.bias", "true")
        assert "model.bias True (--model.bias) against False" in str(error.value)
    Path("shape.json").write_text('{"model": {"block_size": 32}, "data": {"dataset_name": "mine"}}')
    with pytest.raises(UserError, match=r"model\.block_size 32 \(shape\.json\) against 16"):
        train_plainly("--config", "shape.json", "--load_model_only", "models/mine_epoch1.pt")


def test_options_are_checked_against_the_loaded_model_not_against_the_defaults_it_replaces():
    """A width of 16 does not go with the default of 6 heads, but it does with the 2 heads that were loaded."""
    train("--max_iters", "1")
    for start in ("--resume", "--load_model_only"):
        flags = ("--model.n_embd", "16", "--max_iters", "2", "--dataset", "mine", "--device", "cpu")
        assert train_plainly(start, "models/mine_epoch1.pt", *flags).code == 0
        with pytest.raises(UserError, match=r"model\.n_embd 32 \(--model\.n_embd\) against 16"):
            train_plainly(start, "models/mine_epoch1.pt", "--model.n_embd", "32")


def test_load_model_only_without_a_checkpoint_or_beside_resume_is_refused():
    with pytest.raises(UserError, match="--load_model_only needs a checkpoint"):
        train("--load_model_only")
    with pytest.raises(UserError, match="one of them"):
        train("--resume", "models/a.pt", "--load_model_only", "models/b.pt")


@pytest.mark.parametrize("flag", ["--resume", "--load_model_only"])
def test_two_different_checkpoints_at_once_are_refused(flag):
    """Taking one of them silently would continue from the wrong one."""
    train("--max_iters", "1", "--output_checkpoint", "models/a.pt")
    shutil.copy("models/a.pt", "models/b.pt")
    with pytest.raises(UserError, match=r"--checkpoint"):
        train(flag, "models/a.pt", "--checkpoint", "models/b.pt", "--max_iters", "2")


# --- files of other runs ----------------------------------------------------------------------------------------------


def test_a_new_run_moves_all_files_of_an_earlier_run_of_its_name_to_old():
    train("--max_iters", "4", "--eval_interval", "2", "--checkpoint_interval", "2")
    for name in ("mine_epoch1.png", "mine_epoch1_batch2.png"):
        Path("models", name).write_bytes(b"a picture")
    before = snapshot("models")
    assert set(before) == {
        *("mine_epoch1.pt", "mine_epoch1_best.pt", "mine_epoch1_batch2.pt", "mine_epoch1_batch4.pt"),
        *("mine_epoch1.metrics.jsonl", "mine_epoch1.png", "mine_epoch1_batch2.png", "mine_epoch1.config.json"),
        "mine_epoch1.report.html",
    }
    outcome = train("--max_iters", "2", "--seed", "3")
    (old,) = Path("models/old").iterdir()
    assert old.name.startswith("mine_epoch1-")
    assert snapshot(old) == before
    assert "earlier run 'mine_epoch1'" in outcome.said and str(old) in outcome.said
    assert state_of("models/mine_epoch1.pt")["batch_counter"] == 2
    assert not Path("models/mine_epoch1_batch4.pt").exists()
    assert len(metrics_rows("models/mine_epoch1.metrics.jsonl")) == 2


def test_three_new_runs_of_one_name_within_a_second_are_all_kept(monkeypatch):
    monkeypatch.setattr("time.strftime", lambda *args: "20260101-120000")
    for seed in ("1", "2", "3"):
        assert train("--max_iters", "1", "--seed", seed).code == 0
    seeds = {state_of(path)["config"]["system"]["seed"] for path in Path("models").rglob("mine_epoch1.pt")}
    assert seeds == {1, 2, 3}


def test_runs_with_similar_names_are_never_touched(monkeypatch):
    """Starting, resuming and saving a run leave the files of other names unchanged, byte for byte."""
    times = itertools.count()
    monkeypatch.setattr("time.strftime", lambda *args: f"time{next(times)}")
    names = ["a_b", "a_batchX", "a_batchX_batch5", "a_batch", "a_best_b", "ab", "a.b", "a_bestest", "[a]"]
    Path("models").mkdir()
    others = {}
    for name in names:
        for suffix in (".pt", "_best.pt", "_batch2.pt", ".metrics.jsonl", ".png", "_batch2.png", ".config.json"):
            others[f"{name}{suffix}"] = f"{name}{suffix}".encode()
            Path("models", f"{name}{suffix}").write_bytes(others[f"{name}{suffix}"])
    flags = ("--eval_interval", "1", "--checkpoint_interval", "1", "--output_checkpoint", "models/a.pt")
    train("--max_iters", "2", *flags)
    train("--max_iters", "2", *flags)
    train_plainly("--resume", "models/a.pt", "--max_iters", "3")
    now = snapshot("models")
    assert {name: content for name, content in now.items() if name in others} == others
    moved = {Path(name).name for name in now if name.startswith("old/")}
    assert moved == {
        "a.pt",
        "a_best.pt",
        "a_batch1.pt",
        "a_batch2.pt",
        "a.metrics.jsonl",
        "a.config.json",
        "a.report.html",
    }


def test_wildcards_in_a_run_name_match_no_other_run():
    Path("models").mkdir()
    for name in ("a_batch1.pt", "b_batch1.pt"):
        Path("models", name).write_bytes(b"not mine")
    for _ in range(2):
        train("--max_iters", "1", "--checkpoint_interval", "1", "--output_checkpoint", "models/[ab]*.pt")
    assert Path("models/a_batch1.pt").read_bytes() == Path("models/b_batch1.pt").read_bytes() == b"not mine"
    assert len(list(Path("models/old").iterdir())) == 1


def test_resuming_under_another_name_does_not_overwrite_an_existing_run():
    train("--max_iters", "3", "--output_checkpoint", "models/a.pt", "--checkpoint_interval", "1")
    train("--max_iters", "5", "--output_checkpoint", "models/b.pt", "--seed", "2")
    b = {name: content for name, content in snapshot("models").items() if name.startswith("b")}
    train_plainly("--resume", "models/a_batch2.pt", "--output_checkpoint", "models/b.pt")
    contents = list(snapshot("models").values())
    for name, content in b.items():
        assert content in contents, f"{name} of the run that was there is lost"
    assert [row["step"] for row in metrics_rows("models/b.metrics.jsonl")][-1] == 3


def test_resuming_a_renamed_checkpoint_does_not_overwrite_the_run_that_has_its_old_name(monkeypatch):
    """After `mv models/a.pt models/good.pt`, another run `a` and a resumed `good`, both must exist."""
    stop_after(monkeypatch, 2)
    train("--max_iters", "4", "--output_checkpoint", "models/a.pt")
    Path("models/a.pt").rename("models/good.pt")
    stop_after(monkeypatch, None)
    train("--max_iters", "3", "--output_checkpoint", "models/a.pt", "--seed", "2")
    newer = Path("models/a.pt").read_bytes()
    train_plainly("--resume", "models/good.pt")
    assert newer in snapshot("models").values()


def test_the_loaded_model_survives_when_the_new_run_has_its_name():
    train("--max_iters", "2")
    loaded = Path("models/mine_epoch1.pt").read_bytes()
    train("--max_iters", "1", "--load_model_only", "models/mine_epoch1.pt")
    assert loaded in snapshot("models/old").values()


def test_a_run_refused_before_its_first_batch_leaves_every_file_where_it_was():
    train("--max_iters", "2")
    before = snapshot("models")
    with pytest.raises(UserError):
        train("--max_iters", "2", "--model.block_size", "100000")
    with pytest.raises(UserError):
        train("--resume", "models/mine_epoch1.pt", "--batch_size", "9")
    assert snapshot("models") == before


def test_no_temporary_files_are_left_in_the_models_folder(monkeypatch):
    stop_after(monkeypatch, 3)
    train("--checkpoint_interval", "1", "--eval_interval", "1")
    assert [name for name in snapshot("models") if name.startswith(".") or "tmp" in name] == []


NAMES = [
    "my\u00a0run",
    "\u3000\u00ad\u202e",
    "\u0645\u200c\u06cc",
    "\U0001f468\u200d\U0001f469",
    "a\nb",
    "a\\b",
    "x" * 210,
]


@pytest.mark.parametrize("name", NAMES)
def test_a_run_of_any_name_can_be_resumed(name):
    path = f"models/{name}.pt"
    train("--max_iters", "2", "--output_checkpoint", path)
    train_plainly("--resume", path, "--max_iters", "3")
    assert state_of(path)["batch_counter"] == 3


@pytest.mark.parametrize("flags", [("--output_checkpoint", "x" * 230), ("--max_iters", "9223372036854775807")])
def test_a_run_whose_checkpoints_could_not_be_read_is_refused_before_its_first_batch(flags):
    with pytest.raises(UserError, match=r"File name too long|9,223,372,036,854,775,807 batches is too long"):
        train("--max_minutes", "0.001", *flags)
    assert not list(Path().rglob("*.pt"))


# --- errors in mid-run --------------------------------------------------------------------------------------------------


def test_an_error_that_ends_training_saves_what_is_trained(monkeypatch):
    flags = ("--max_iters", "5", "--output_checkpoint")
    train(*flags, "models/whole.pt")
    batch = trainer_module.Trainer.backward

    def fails(self, data):
        if self.batches_done == 3:
            raise OSError(5, "Input/output error")
        return batch(self, data)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="Input/output"):
        patch.setattr(trainer_module.Trainer, "backward", fails)
        train(*flags, "models/x.pt")
    assert state_of("models/x.pt")["batch_counter"] == 3
    train_plainly("--resume", "models/x.pt")
    assert differences(state_of("models/whole.pt")["model"], state_of("models/x.pt")["model"]) == []
    assert metrics_rows("models/whole.metrics.jsonl") == metrics_rows("models/x.metrics.jsonl")


def test_an_error_in_the_middle_of_an_update_saves_nothing(monkeypatch):
    def fails(self):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(trainer_module.Trainer, "advance", fails)
    with pytest.raises(OSError, match="Input/output"):
        train("--max_iters", "2")
    assert not Path("models/mine_epoch1.pt").exists()


@pytest.mark.parametrize("folder", ["cache", "models"])
def test_a_folder_deleted_in_mid_run_is_written_again(monkeypatch, folder):
    flags = ("--max_iters", "6", "--eval_interval", "2", "--data.pack", "whole", "--output_checkpoint")
    train(*flags, "models/whole.pt")
    step = trainer_module.Trainer.step

    def deletes(self, data):
        if self.batches_done == 3:
            self.saver.wait()
            shutil.copytree("models", "kept", dirs_exist_ok=True)
            shutil.rmtree(folder)
        return step(self, data)

    monkeypatch.setattr(trainer_module.Trainer, "step", deletes)
    outcome = train(*flags, "models/x.pt")
    assert outcome.code == 0
    assert metrics_rows("kept/whole.metrics.jsonl") == metrics_rows("models/x.metrics.jsonl")
    assert differences(state_of("kept/whole.pt")["model"], state_of("models/x.pt")["model"]) == []


def test_divergence_names_the_newest_checkpoint_of_the_run():
    flags = ("--max_iters", "9", "--learning_rate", "1e15", "--scheduler.warmup_iters", "0")
    with pytest.raises(UserError, match="Or start again with a lower --learning_rate"):
        train(*flags)
    with pytest.raises(UserError, match=r"Or use --resume models/mine_epoch1_batch\d.pt --allow_changes with a lower"):
        train(*flags, "--checkpoint_interval", "1")


# --- saves that fail --------------------------------------------------------------------------------------------------


def test_weights_that_are_not_finite_are_never_saved_over_a_good_checkpoint(monkeypatch):
    train("--max_iters", "2")
    trainer = None
    advance = trainer_module.Trainer.advance

    def poison(self):
        nonlocal trainer
        trainer = self
        self.model.transformer.wpe.weight.data[3, 3] = float("nan")
        return advance(self)

    monkeypatch.setattr(trainer_module.Trainer, "advance", poison)
    good = Path("models/mine_epoch1.pt").read_bytes()
    with pytest.raises(UserError, match=r"'transformer\.wpe\.weight' is not finite"):
        train_plainly("--resume", "models/mine_epoch1.pt", "--max_iters", "3")
    assert trainer is not None and Path("models/mine_epoch1.pt").read_bytes() == good


def test_a_full_disk_keeps_the_previous_checkpoint_and_says_what_happened(monkeypatch):
    train("--max_iters", "2")
    good = Path("models/mine_epoch1.pt").read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_file.os, "fsync", full)
    outcome = train_plainly("--resume", "models/mine_epoch1.pt", "--max_iters", "4")
    assert outcome.code == 1
    assert "Could not save 'models/mine_epoch1.pt' (No space left on device)" in outcome.said
    assert "Not saved after batch 4: " in outcome.said
    assert Path("models/mine_epoch1.pt").read_bytes() == good


def test_the_commands_that_are_printed_work_for_a_path_with_a_space(monkeypatch):
    import shlex

    stop_after(monkeypatch, 2)
    said = train("--max_iters", "3", "--output_checkpoint", "my models/the run.pt").said
    stop_after(monkeypatch, None)
    command = next(line for line in said.splitlines() if "--resume" in line)
    assert shlex.split(command)[-2:] == ["--resume", "my models/the run.pt"]
    said = train_plainly(*shlex.split(command)[2:]).said
    talk = next(line for line in said.splitlines() if "gen.py" in line)
    assert "my models/the run.pt" in shlex.split(talk)


def test_the_metrics_file_is_strict_json_even_if_a_value_is_nan(monkeypatch):
    monkeypatch.setattr(
        trainer_module.Trainer, "evaluate", lambda self: {"train_loss_eval": 1.0, "val_loss": 2.0, "bpb": float("nan")}
    )
    train("--max_iters", "1")

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    (line,) = Path("models/mine_epoch1.metrics.jsonl").read_text().splitlines()
    assert json.loads(line, parse_constant=refuse)["bpb"] is None
