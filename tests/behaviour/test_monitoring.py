"""Tests of what a person sees of a run: plots, samples, the metrics file, the log file, TensorBoard, the console."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from helpers_cli import finish, start_python
from helpers_data import write_lines
from helpers_fork import run_script
from helpers_run import (
    TINY,
    differences,
    listening,
    make_trainer,
    metrics_rows,
    settle,
    snapshot,
    state_of,
    stop_after,
    train,
    train_plainly,
)

import generation
import trainer as trainer_module
from config import Config
from jojo import plotting
from jojo.machine import estimate
from jojo.metrics import MetricsTracker
from jojo.networks import formulas
from tools.regenerate_plot import plot_runs
from training import recorder, summary
from utils import UserError

ROOT = Path(__file__).resolve().parents[2]
FEW = ("--eval_interval", "0", "--training.eval_iters", "1")


@pytest.fixture(autouse=True)
def folder_with_data(tmp_path, monkeypatch):
    settle(tmp_path, monkeypatch)


@pytest.fixture
def drawn(monkeypatch):
    """Records every plot instead of drawing it: (batch, file name of a numbered plot or None)."""
    calls = []

    def draw(self, metrics, milestone=None):
        calls.append((metrics.train_loss_batch.points[-1][0], milestone and milestone.name))

    monkeypatch.setattr(plotting.PlotManager, "draw", draw)
    return calls


@pytest.mark.parametrize(
    ("threads", "times", "warnings"),
    [
        (2, "10000000000 30000000000 9", 1),
        (2, "10000000000 4000000000 9", 0),
        (1, "10000000000 30000000000 9", 0),
        (2, None, 0),
    ],
)
def test_a_busy_machine_is_said_once_if_fewer_threads_can_help(monkeypatch, threads, times, warnings):
    monkeypatch.setattr(recorder, "CORE_TIMES", table := Path("schedstat"))
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    if times:
        table.write_text(times + "\n")
    said = train("--max_iters", "11", *FEW).said
    assert said.count("Other programs use the cores: training waits 75% of the time. OMP_NUM_THREADS=1") == warnings


# --- plots ----------------------------------------------------------------------------------------------------------


def test_a_numbered_plot_is_drawn_every_plot_interval_and_the_current_plot_at_the_end(drawn):
    train("--max_iters", "7", "--training.plot_interval", "3", *FEW)
    assert drawn == [(3, "mine_epoch1_batch3.png"), (6, "mine_epoch1_batch6.png"), (7, None)]


def test_with_plot_interval_0_only_the_current_plot_is_drawn(drawn):
    train("--max_iters", "3", "--training.plot_interval", "0", *FEW)
    assert drawn == [(3, None)]


def test_500_batches_give_five_numbered_plots_and_500_rows_even_after_two_interruptions(drawn, monkeypatch):
    tiny = ("--model.n_embd", "2", "--model.block_size", "2", "--training.checkpoint_minutes", "0")
    for batch in (137, 301, None):
        stop_after(monkeypatch, batch)
        train("--max_iters", "500", *tiny, *FEW, *(() if batch == 137 else ("--resume",)))
    assert [step for step, name in drawn if name] == [100, 200, 300, 400, 500]
    assert [row["step"] for row in metrics_rows("models/mine_epoch1.metrics.jsonl")] == list(range(1, 501))


def test_numbered_plots_of_an_earlier_run_are_moved_to_old_with_it(monkeypatch):
    train("--max_iters", "2", "--checkpoint_interval", "1")
    Path("models/mine_epoch1_batch1.png").write_bytes(b"a picture")
    train("--max_iters", "1")
    assert b"a picture" in snapshot("models/old").values()


def test_drawing_takes_at_most_a_hundredth_of_the_time(monkeypatch, tmp_path):
    clock, drawn = [0.0], []
    monkeypatch.setattr(plotting.time, "monotonic", lambda: clock[0])
    plot = plotting.PlotManager(tmp_path / "x.png", "x")

    def draw(metrics):
        drawn.append(clock[0])
        clock[0] += 0.5

    monkeypatch.setattr(plot, "draw", draw)
    while clock[0] < 1000:
        clock[0] += 1.0
        plot.draw_if_cheap(None)
    assert 8 < len(drawn) <= 20 and drawn[0] >= 100
    assert all(0.5 * (number + 1) <= 0.01 * (at + 0.5) for number, at in enumerate(drawn))


def test_the_plot_shows_grouped_batch_losses_until_there_are_three_evaluations(tmp_path, caplog):
    metrics = MetricsTracker()
    for step in range(1, 301):
        metrics.add_batch({"step": step, "loss": 3.0, "lr": 0.1})
    chosen = plotting.choose_losses(metrics)
    assert (chosen.x_label, len(chosen.train)) == ("batch (training loss smoothed)", 100)
    assert chosen.reason == "300 batch losses in 100 groups, because there are 0 evaluations"
    for step in (100, 200):
        metrics.add_evaluation(step, {"train_loss_eval": 2.0, "val_loss": 2.5, "bpb": 1.0})
    assert plotting.choose_losses(metrics).x_label == "batch (training loss smoothed)"  # two are not enough
    metrics.add_evaluation(300, {"train_loss_eval": 2.0, "val_loss": float("nan"), "bpb": 1.0})
    chosen = plotting.choose_losses(metrics)
    assert chosen.x_label == "batch"
    assert chosen.train == [(100, 2.0), (200, 2.0), (300, 2.0)] and chosen.val == [(100, 2.5), (200, 2.5)]


def test_a_single_validation_loss_is_plotted_at_the_last_training_step():
    metrics = MetricsTracker()
    for step in range(1, 31):
        metrics.add_batch({"step": step, "loss": 3.0, "lr": 0.1})
    metrics.add_evaluation(10, {"train_loss_eval": 2.0, "val_loss": 2.5, "bpb": 1.0})
    assert plotting.choose_losses(metrics).val == [(30, 2.5)]


def legend_of(figure):
    """The legend's labels. Its box must be inside the figure and above the axes, where it hides no curve."""
    figure.draw_without_rendering()
    legend = figure.legends[0]
    box, axes, whole = (part.get_window_extent() for part in (legend, figure.axes[0], figure))
    assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and axes.y1 <= box.y0 and box.y1 <= whole.y1
    return [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize("shape", ["falls", "rises", "flat", "spike", "two", "one"])
def test_the_legend_shows_the_lowest_losses_and_hides_no_curve(shape):
    n = {"two": 2, "one": 1}.get(shape, 400)
    metrics = MetricsTracker()
    for step in range(1, n + 1):
        loss = {"falls": 10 / step, "rises": step / 10, "flat": 3.0, "spike": 50.0 if step == 5 else 1.0}.get(
            shape, 2.0 + step
        )
        metrics.add_batch({"step": step, "loss": loss, "lr": 0.1})
        if step % 40 == 0 or n < 3:
            metrics.add_evaluation(step, {"train_loss_eval": loss, "val_loss": loss + 1, "bpb": 1.0})
    figure = plotting.plot_run("a run", plotting.choose_losses(metrics), metrics.learning_rate.points)
    lowest = {"falls": (0.025, 400), "rises": (4.0, 40), "flat": (3.0, 40), "spike": (1.0, 40)}.get(shape, (3.0, 1))
    assert legend_of(figure) == [
        f"training loss, lowest {lowest[0]:.4f} at batch {lowest[1]}",
        f"validation loss, lowest {lowest[0] + 1:.4f} at batch {lowest[1]}",
    ]


def test_the_legend_of_eight_runs_fits_into_the_plot():
    runs = []
    for number in range(8):
        metrics = MetricsTracker()
        for step in range(1, 200):
            metrics.add_batch({"step": step, "loss": 5 + number - step / 50, "lr": 0.1})
        metrics.add_evaluation(199, {"train_loss_eval": 2.0, "val_loss": 2.5 + number, "bpb": 1.0})
        runs.append((f"a rather long name of a run {number}", metrics))
    assert legend_of(plot_runs("x", runs)) == [
        f"a rather long name of a run {number}, lowest validation {2.5 + number:.4f}" for number in range(8)
    ]


# --- best and worst ---------------------------------------------------------------------------------------------------


def test_best_and_worst_losses_equal_the_metrics_file_even_if_the_loss_rises_at_the_end(monkeypatch):
    losses = iter([5.0, 3.0, 2.0, 2.5, 4.0, 9.0])
    evaluation = {"bpb": 1.0}

    def evaluate(self):
        value = next(losses)
        return {"train_loss_eval": value - 0.5, "val_loss": value, **evaluation}

    monkeypatch.setattr(trainer_module.Trainer, "evaluate", evaluate)
    said = train("--max_iters", "6", "--eval_interval", "1").said
    rows = metrics_rows("models/mine_epoch1.metrics.jsonl")
    state = state_of("models/mine_epoch1.pt")
    for name, key in (("val", "val_loss"), ("train", "train_loss_eval")):
        values = [row[key] for row in rows]
        assert (state[f"best_{name}_loss"], state[f"worst_{name}_loss"]) == (min(values), max(values))
    shown = dict(re.findall(r"((?:Final|Best|Worst) (?:train|val) loss:) +([\d.]+)", said))
    assert shown == {
        "Final train loss:": "8.5000", "Best train loss:": "1.5000", "Worst train loss:": "8.5000",
        "Final val loss:": "9.0000", "Best val loss:": "2.0000", "Worst val loss:": "9.0000",
    }  # fmt: skip
    assert "Total training time:" in said.partition("TRAINING COMPLETED")[2]
    assert state_of("models/mine_epoch1_best.pt")["batch_counter"] == 3


# --- samples ------------------------------------------------------------------------------------------------------------


def test_samples_are_in_the_metrics_file_and_the_output_and_do_not_change_the_training(monkeypatch):
    flags = ("--max_iters", "4", "--model.dropout", "0.1", "--training.sample_prompts", "Number|The fox")
    said = train(*flags, "--training.sample_interval", "2", "--training.sample_tokens", "5").said
    rows = metrics_rows("models/mine_epoch1.metrics.jsonl")
    assert [row["step"] for row in rows if "samples" in row] == [2, 4]
    assert [sample["prompt"] for sample in rows[1]["samples"]] == ["Number", "The fox"]
    assert said.count("  sample: Number") == 2 and said.count("  sample: The fox") == 2
    with_samples = state_of("models/mine_epoch1.pt")
    train(*flags)
    plain = state_of("models/mine_epoch1.pt")
    for part in ("model", "optimizer", "rng", "metrics"):
        assert differences(with_samples[part], plain[part]) == []


def test_samples_depend_only_on_the_weights_and_are_limited_to_sample_tokens():
    trainer = make_trainer("--training.sample_tokens", "7")
    first = trainer.samples()
    torch.manual_seed(99)
    assert trainer.samples() == first
    assert first[0]["prompt"] == "Once upon a time" and first[0]["text"]
    assert len(trainer.run.data.tokenizer.encode(first[0]["text"])) <= 14


def test_a_prompt_longer_than_the_context_is_continued_too():
    trainer = make_trainer("--training.sample_prompts", "word " * 100)
    assert trainer.samples()[0]["text"]


# --- the files of a run ---------------------------------------------------------------------------------------------------


def test_the_config_file_of_a_run_starts_the_same_run_again(monkeypatch):
    train("--max_iters", "2", "--seed", "5")
    config = json.loads(Path("models/mine_epoch1.config.json").read_text())
    assert Config.from_dict(config).to_dict() == state_of("models/mine_epoch1.pt")["config"]
    first = state_of("models/mine_epoch1.pt")
    train_plainly("--config", "models/mine_epoch1.config.json")
    assert differences(first["model"], state_of("models/mine_epoch1.pt")["model"]) == []


def test_the_log_file_contains_the_output_with_time_level_and_run():
    train("--max_iters", "4", "--log_interval", "2", "--scheduler.warmup_iters", "50")
    lines = Path("train.log").read_text().splitlines()
    stamped = [
        line for line in lines if re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (INFO|WARNING|ERROR) +mine_epoch1: ", line)
    ]
    assert any("batch 2/4  loss " in line for line in stamped) and any("evaluation" in line for line in stamped)
    train("--max_iters", "1", "--output_checkpoint", "models/other.pt")
    text = Path("train.log").read_text()
    assert text.startswith("\n".join(lines)) and " other: " in text  # appended


def test_a_log_file_that_cannot_be_written_gives_one_warning(monkeypatch):
    Path("train.log").mkdir()
    outcome = train("--max_iters", "1")
    assert outcome.code == 0 and outcome.said.count("Cannot write the log file 'train.log'") == 1


def test_errors_are_written_to_the_log_file_too(monkeypatch):
    def step(self, batch):
        raise UserError("The loss is not finite.")

    monkeypatch.setattr(trainer_module.Trainer, "step", step)
    with pytest.raises(UserError):
        train("--max_iters", "2")
    assert "ERROR" in Path("train.log").read_text() and "The loss is not finite." in Path("train.log").read_text()


# --- TensorBoard --------------------------------------------------------------------------------------------------------


def scalars(folder):
    """Everything that TensorBoard would show of a run: {name: [(step, value), ...]}."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), purge_orphaned_data=True)
    events.Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_tensorboard_shows_the_values_of_the_metrics_file_even_after_a_resume(monkeypatch):
    stop_after(monkeypatch, 3)
    train("--max_iters", "5", "--eval_interval", "2", "--tensorboard", "--training.sample_interval", "2")
    stop_after(monkeypatch, None)
    train_plainly("--resume", "models/mine_epoch1.pt", "--tensorboard")
    shown, rows = (
        scalars("models/tensorboard/mine_epoch1"),
        metrics_rows("models/mine_epoch1.metrics.jsonl", clock=True),
    )
    for key, name in {"loss": "loss/train", "val_loss": "loss/val", "lr": "batch/learning_rate"}.items():
        expected = [(row["step"], row[key]) for row in rows if key in row]
        assert [step for step, _ in shown[name]] == [step for step, _ in expected]
        assert [value for _, value in shown[name]] == pytest.approx([value for _, value in expected])


def test_tensorboard_that_is_not_installed_is_refused_before_anything_is_written(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "tensorboard" else find(name))
    with pytest.raises(UserError, match="pip install tensorboard"):
        train("--max_iters", "1", "--tensorboard")
    assert not Path("models").exists()


# --- the console --------------------------------------------------------------------------------------------------------


def test_the_summary_estimates_the_memory_and_the_time_of_the_run():
    said = train("--max_iters", "3", "--training.sample_interval", "2").said
    assert re.search(r"memory +about [\d.]+ MB at the peak, of [\d.]+ GB", said)
    assert re.search(r"time +about .* \(a guess until 5 batches are done\)", said)
    assert "sample every 2 batches" in said and "cached in cache/" in said
    assert re.search(r"Metrics: +models/mine_epoch1\.metrics\.jsonl", said)


def test_on_a_narrow_terminal_the_summary_is_wrapped_at_words_but_commands_are_not(monkeypatch):
    monkeypatch.setenv("COLUMNS", "44")
    monkeypatch.setattr(summary.sys.stdout, "isatty", lambda: True, raising=False)
    said = train("--max_iters", "2", "--no_color").said
    for line in said[said.index("--- TRAINING ") :].splitlines():
        assert len(line) <= 44 or "python " in line or "models/" in line or line.startswith("batch")
    assert 'python gen.py models/mine_epoch1.pt --prompt "Once upon a time"\n' in said


def test_samples_of_a_run_on_conversations_answer_a_greeting():
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello, I am a fox."}]
    for split in ("train", "val"):
        write_lines(Path(f"data/mine-{split}.jsonl"), [{"messages": messages}] * 8)
    trainer = make_trainer("--training.sample_tokens", "3")
    with patch.object(generation, "generate", wraps=generation.generate) as called:
        assert [sample["prompt"] for sample in trainer.samples()] == ["Hello!"]
    prompt = trainer.run.data.tokenizer.decode(called.call_args.args[1], show_control=True)
    assert prompt == "<|endoftext|><|im_start|>user\nHello!<|im_end|>\n<|im_start|>assistant\n"


def test_without_a_known_peak_of_the_device_mfu_is_not_available(monkeypatch):
    monkeypatch.setattr(estimate, "peak_flops", lambda system: None)
    said = train("--max_iters", "2", "--log_interval", "1").said
    assert "MFU n/a" in said and re.search("time +estimated after the first batches", said)
    assert {row["mfu"] for row in metrics_rows("models/mine_epoch1.metrics.jsonl", clock=True)} == {None}


def test_mfu_counts_every_processed_token_and_the_line_shows_the_share_that_was_predicted():
    """The last batch of the epoch has ignored rows, which the model processes as well."""
    said = train("--epochs", "1", "--system.peak_flops", "2.5e9", "--log_interval", "1").said
    config = make_trainer().config
    rows = metrics_rows("models/mine_epoch1.metrics.jsonl", clock=True)
    for row in rows:
        flops_per_s = row["samples_per_s"] * config.model.block_size * formulas(config.model).flops_per_token
        assert row["mfu"] == pytest.approx(flops_per_s / 2.5e9, rel=1e-3)
    share = (rows[-1]["tokens"] - rows[-2]["tokens"]) / config.tokens_per_batch
    *_, last = re.findall(r"^batch \d+/\d+  loss.*", said, re.MULTILINE)
    assert 0 < share < 0.9 and f"tok/s ({share:.0%} of all), MFU" in last


COLOURED = {"NO_COLOR": "", "TERM": "xterm"}


def test_output_in_a_file_has_neither_escape_codes_nor_carriage_returns():
    result = run_script(str(ROOT / "train.py"), *TINY, "--max_iters", "3", "--log_interval", "1", **COLOURED)
    assert result.code == 0
    assert not set("\x1b\r") & set(result.out + result.err)
    assert len(re.findall(r"^batch \d/3  loss", result.out, re.MULTILINE)) == 3


TERMINAL = """
import fcntl, os, pty, struct, sys, termios
child, terminal = pty.fork()
if child == 0:
    fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
try:
    while output := os.read(terminal, 1024):
        os.write(1, output)
except OSError:  # the end
    pass
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_terminal_shows_a_progress_bar_and_colours(tmp_path):
    command = [str(ROOT / "train.py"), *TINY, "--max_iters", "3", "--log_interval", "1"]
    result = finish(start_python("-c", TERMINAL, *command, cwd=tmp_path, **COLOURED))
    assert result.code == 0, result.out + result.err
    assert "| 3/3 [" in result.out
    assert re.search(r"\x1b\[3\dm", result.out)  # the worst losses, in red
    assert "batch 3/3  loss" not in result.out  # the progress bar shows it
    assert "batch 3/3  loss" in (tmp_path / "train.log").read_text()


# --- regenerate_plot ----------------------------------------------------------------------------------------------------


@pytest.fixture
def regenerate(monkeypatch):
    sys.path.insert(0, str(ROOT / "tools"))
    import regenerate_plot

    sys.path.remove(str(ROOT / "tools"))

    def run(*arguments):
        with listening() as said:
            assert regenerate_plot.main([str(argument) for argument in arguments]) == 0
        return said

    return run


def test_regenerate_plot_draws_a_run_from_its_checkpoint_or_its_metrics_file(regenerate):
    train("--max_iters", "4", "--eval_interval", "1")
    assert regenerate("models/mine_epoch1.pt") == ["Wrote models/mine_epoch1.png"]
    from_checkpoint = Path("models/mine_epoch1.png").read_bytes()
    assert regenerate("models/mine_epoch1.metrics.jsonl", "-o", "own.png") == ["Wrote own.png"]
    assert Path("own.png").read_bytes() == from_checkpoint  # both hold the same


def test_regenerate_plot_draws_several_runs_in_one_plot(regenerate):
    train("--max_iters", "4", "--eval_interval", "1")
    train("--max_iters", "3", "--output_checkpoint", "models/b.pt")
    files = ("models/mine_epoch1.pt", "models/b.metrics.jsonl")
    assert regenerate(*files, "--output", "both.png") == ["Wrote both.png"]
    assert Path("both.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match="-o FILE"):
        regenerate(*files)


def test_regenerate_plot_tells_runs_of_one_name_apart(regenerate, monkeypatch):
    train("--max_iters", "2", "--eval_interval", "1")
    Path("other").mkdir()
    shutil.copy("models/mine_epoch1.pt", "other/mine_epoch1.pt")
    names = []
    monkeypatch.setattr("regenerate_plot.plot_runs", lambda title, runs: names.extend(name for name, _ in runs))
    monkeypatch.setattr("regenerate_plot.save_figure", lambda figure, path: None)
    regenerate("models/mine_epoch1.pt", "other/mine_epoch1.pt", "-o", "both.png")
    assert names == ["models/mine_epoch1.pt", "other/mine_epoch1.pt"]


def test_regenerate_plot_refuses_files_without_losses(regenerate):
    train("--max_iters", "1")
    content = state_of("models/mine_epoch1.pt")
    torch.save({"model": content["model"], "model_args": content["config"]["model"]}, "old.pt")
    Path("empty.metrics.jsonl").write_text("not a row\n{}\n[]\n")
    for name in ("old.pt", "empty.metrics.jsonl"):
        with pytest.raises(UserError, match=rf"'{name}' has no losses to plot"):
            regenerate(name)
    with pytest.raises(UserError, match="no metrics file 'none"):
        regenerate("none.metrics.jsonl")
    with pytest.raises(UserError, match="no folder 'nowhere'"):
        regenerate("models/mine_epoch1.pt", "-o", "nowhere/x.png")
    with pytest.raises(UserError, match="Could not write 'models'"):
        regenerate("models/mine_epoch1.pt", "-o", "models")
