"""Tests of the training loop: it learns like a plain loop, and evaluations and saves do not change the training."""

from __future__ import annotations

import json
import math
import statistics
import time
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from helpers_cli import messages
from helpers_run import (
    differences,
    make_run,
    make_trainer,
    metrics_rows,
    settle,
    snapshot,
    state_of,
    stop_after,
    train,
    write_data,
)
from plain_recipe import compare

import data_loader
import trainer as trainer_module
from evaluation.builtin import builtin_questions
from evaluation.choices import run_task
from generation import load_model
from jojo.checkpoints import saver as saver_module
from jojo.checkpoints.checkpoint import load_checkpoint
from utils import UserError


@pytest.fixture(autouse=True)
def folder_with_data(tmp_path, monkeypatch):
    settle(tmp_path, monkeypatch)


# --- the same as a plain training loop ----------------------------------------------------------------------------


@pytest.mark.parametrize("accumulation", [1, 2])
def test_every_loss_agrees_with_a_plain_training_loop(accumulation):
    """The run is longer than an epoch, to include a last batch with ignored rows and a second data order."""
    run = make_run(
        *("--model.n_layer", "2", "--model.bias", "true", "--max_iters", "30"),
        *("--training.gradient_accumulation_steps", str(accumulation)),
    )
    assert run.plan.batches_per_epoch < 15
    difference, ours, plain = compare(run, 30)
    assert difference < 1e-3
    assert ours[-1] < ours[0] - 2  # it learned so much that a wrong learning rate would show
    assert len(set(plain)) == 30


# --- waiting for the device ---------------------------------------------------------------------------------------------

SYNCHRONISING = ("tolist", "item", "cpu", "numpy", "nonzero", "__bool__", "__int__", "__float__", "__index__")


def test_a_batch_synchronizes_with_the_device_once_after_it_loads_the_next_batch(monkeypatch):
    trainer = make_trainer("--training.gradient_accumulation_steps", "3", "--model.dropout", "0.1", "--max_iters", "9")
    trainer.loader.prefetches = True
    happened = []

    def noted(name):
        function = getattr(torch.Tensor, name)
        return lambda tensor, *rest: (happened.append(name), function(tensor, *rest))[1]

    load = trainer.loader.packed.batch
    for name in SYNCHRONISING:
        monkeypatch.setattr(torch.Tensor, name, noted(name))
    monkeypatch.setattr(trainer.loader.packed, "batch", lambda *place: (happened.append(place), load(*place))[1])
    for _ in range(3):
        trainer.step(trainer.loader.batch(trainer.epoch, trainer.position))
        trainer.advance()
    assert happened == [(0, 0), (0, 1), "tolist", (0, 2), "tolist", (0, 3), "tolist"]


def test_prefetching_changes_no_batch_and_loads_none_after_the_last(monkeypatch):
    flags = ("--epochs", "2", "--eval_interval", "0")
    whole = train("--output_checkpoint", "models/here.pt", *flags)
    plain, send = data_loader.DeviceLoader.__init__, data_loader.DeviceLoader.send

    def as_on_a_gpu(loader, *args):
        plain(loader, *args)
        loader.prefetches = True

    loads = []
    monkeypatch.setattr(data_loader.DeviceLoader, "__init__", as_on_a_gpu)
    monkeypatch.setattr(data_loader.DeviceLoader, "send", lambda own, batch: (loads.append(1), send(own, batch))[1])
    ahead = train("--output_checkpoint", "models/ahead.pt", *flags)
    assert whole.code == ahead.code == 0
    assert [row["loss"] for row in metrics_rows("models/here.metrics.jsonl")] == [
        row["loss"] for row in metrics_rows("models/ahead.metrics.jsonl")
    ]
    assert len(loads) == len(metrics_rows("models/ahead.metrics.jsonl"))


# --- accumulation ---------------------------------------------------------------------------------------------------


def gradients(trainer, position):
    """The loss of one batch, and its gradients by parameter name; the weights are not updated."""
    trainer.model.zero_grad = lambda set_to_none=True: None
    trainer.optimizers = []
    loss = trainer.step(trainer.loader.batch(0, position)).loss
    return loss, {name: parameter.grad for name, parameter in trainer.model.named_parameters()}


@pytest.mark.parametrize("position", ["first", "last"])
def test_four_micro_batches_have_the_gradient_of_one_four_times_as_large(position):
    """Also in the epoch's last batch, whose micro-batches have different numbers of targets."""
    write_data(n_train=10)
    unclipped = ("--optimizer.grad_clip", "0")
    split = make_trainer("--batch_size", "2", "--training.gradient_accumulation_steps", "4", *unclipped)
    whole = make_trainer("--batch_size", "8", "--training.gradient_accumulation_steps", "1", *unclipped)
    number = 0 if position == "first" else split.run.plan.batches_per_epoch - 1
    batch = split.loader.batch(0, number)
    targets = (batch.targets >= 0).sum(dim=(1, 2)).tolist()
    if position == "last":
        assert len(set(targets)) > 1, "this batch must be uneven, or the test shows nothing"
    loss, parts = gradients(split, number)
    expected_loss, expected = gradients(whole, number)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    for name, gradient in expected.items():
        assert (parts[name] - gradient).norm() / gradient.norm() < 1e-5, name


def test_every_micro_batch_of_a_batch_has_different_data():
    batch = make_trainer("--training.gradient_accumulation_steps", "4").loader.batch(0, 0)
    assert len({rows.numpy().tobytes() for rows in batch.inputs}) == 4


def test_the_gradient_is_clipped_to_grad_clip():
    trainer = make_trainer("--optimizer.grad_clip", "0.01")
    norms = []
    step = trainer.optimizers[0].step

    def recording(*args, **kwargs):
        norms.append(math.sqrt(sum(p.grad.square().sum().item() for p in trainer.model.parameters())))
        return step(*args, **kwargs)

    trainer.optimizers[0].step = recording
    result = trainer.step(trainer.loader.batch(0, 0))
    assert result.grad_norm > 0.1  # the reported norm is the one before clipping
    assert norms == [pytest.approx(0.01, rel=1e-3)]


# --- evaluation -----------------------------------------------------------------------------------------------------


def test_evaluating_and_saving_do_not_change_the_training():
    flags = ("--model.dropout", "0.3", "--training.ema", "0.9", "--epochs", "2", "--training.checkpoint_minutes", "0")
    train(*flags, "--eval_interval", "1", "--checkpoint_interval", "4", "--output_checkpoint", "models/often.pt")
    train(*flags, "--eval_interval", "0", "--output_checkpoint", "models/seldom.pt")
    often, seldom = state_of("models/often.pt"), state_of("models/seldom.pt")
    for part in ("model", "optimizer", "loader", "rng", "batch_counter"):
        assert differences(often[part], seldom[part]) == []
    assert differences(often["metrics"]["train_loss_batch"], seldom["metrics"]["train_loss_batch"]) == []
    assert len(often["metrics"]["val_loss_eval"]) > len(seldom["metrics"]["val_loss_eval"]) == 2


def test_the_average_of_the_weights_is_evaluated_and_saved_and_training_goes_on_without_it():
    constant = ("--scheduler.decay_lr", "false", "--scheduler.warmup_iters", "0", "--output_checkpoint")
    train("--max_iters", "6", *constant, "models/plain.pt")
    train("--max_iters", "4", "--training.ema", "0.9", *constant, "models/averaged.pt")
    averaged = state_of("models/averaged.pt")
    losses = make_trainer("--load_model_only", "models/averaged.pt").evaluate()  # what gen.py and an export load
    assert averaged["metrics"]["val_loss_eval"] == [(4, losses["val_loss"])]
    raw = {name: values["raw_weight"] for name, values in averaged["optimizer"].items()}
    assert all(differences(weight, averaged["model"][name]) for name, weight in raw.items())
    flags = ("--max_iters", "6", "--training.ema", "0")
    with pytest.raises(UserError, match=r"ema 0.9 -> 0.0 \(another average of the weights is evaluated and saved\)"):
        train("--resume", "models/averaged.pt", *flags)
    assert train("--resume", "models/averaged.pt", *flags, "--allow_changes").code == 0
    plain, ended = state_of("models/plain.pt"), state_of("models/averaged.pt")
    for part in ("model", "optimizer"):
        assert differences(plain[part], ended[part]) == []


def test_the_built_in_tasks_are_asked_at_each_evaluation_as_evaluate_py_asks_them(monkeypatch):
    flags = ("--max_iters", "2", "--eval_interval", "2", "--training.evaluate_tasks", "name", "--training.ema", "0.9")
    assert train(*flags, "--output_checkpoint", "models/asked.pt").code == 0
    rows = metrics_rows("models/asked.metrics.jsonl")
    model, tokenizer, _ = load_model(load_checkpoint(Path("models/asked.pt")), "cpu", "float32")
    found = run_task(model, tokenizer, builtin_questions("name", tokenizer)).scores["acc"].value
    assert rows[1]["tasks"] == {"name": found} and "tasks" not in rows[0]
    with pytest.raises(
        UserError, match=r"'sorting' is no built-in task for training\.evaluate_tasks; there are: agreement,"
    ):
        make_trainer("--training.evaluate_tasks", "name, sorting")
    run = make_run("--training.evaluate_tasks", "all")
    monkeypatch.setattr(type(run), "sharded", True)
    with pytest.raises(UserError, match=r"training\.evaluate_tasks needs whole models, not fsdp"):
        trainer_module.Trainer(run)


def test_dropout_acts_only_in_training_and_depends_only_on_seed_and_batch_number():
    """The test above proves something only if dropout acts."""
    trainer = make_trainer("--model.dropout", "0.5", "--learning_rate", "1e-9", "--epochs", "3")
    batch = trainer.loader.batch(0, 0)
    losses = []
    for number in range(3):
        trainer.batches_done = number * trainer.run.plan.batches_per_epoch  # the same position in every epoch
        losses.append(trainer.step(batch).loss)
        torch.manual_seed(number)  # other uses of random numbers do not matter
        assert trainer.step(batch).loss == pytest.approx(losses[-1], abs=1e-6)
    assert min(abs(losses[a] - losses[b]) for a, b in ((0, 1), (0, 2), (1, 2))) > 1e-4
    assert trainer.evaluate() == trainer.evaluate()


def test_every_micro_batch_of_a_batch_has_its_own_dropout_mask():
    trainer = make_trainer("--model.dropout", "0.5", "--training.gradient_accumulation_steps", "2")
    batch = trainer.loader.batch(0, 0)
    batch.inputs[1], batch.targets[1] = batch.inputs[0], batch.targets[0]
    seen = []
    forward = trainer.model.forward
    trainer.model.forward = lambda x, y: (loss := forward(x, y), seen.append(loss.item()))[0]
    trainer.step(batch)
    assert len(seen) == 2 and abs(seen[0] - seen[1]) > 1e-3


def test_evaluate_equals_a_plain_computation_and_bpb_its_definition():
    trainer = make_trainer("--training.eval_iters", "1000")
    for _ in range(3):
        trainer.step(trainer.loader.batch(0, trainer.position))
        trainer.advance()
    losses = trainer.evaluate()
    tokenizer = trainer.run.data.tokenizer
    trainer.model.eval()
    for split, name in (("train", "train_loss_eval"), ("val", "val_loss")):
        nats, text_nats, tokens, rows = 0.0, 0.0, [], []
        loader = trainer.run.evaluation_loader(split)
        for index in range(loader.batches_per_epoch):
            batch = loader.batch(0, index)
            x, y = torch.from_numpy(batch.inputs[0]), torch.from_numpy(batch.targets[0]).flatten()
            with torch.no_grad():
                logits = trainer.model(x)[..., : tokenizer.n_vocab].double().flatten(0, 1)
            each = F.cross_entropy(logits, y.clamp_min(0), reduction="none")
            nats += each[y >= 0].sum().item()
            text_nats += each[(y >= 0) & (y < tokenizer.eot_id)].sum().item()
            tokens += y[y >= 0].tolist()
            text_bytes = torch.tensor([len(tokenizer.token_bytes(token)) for token in y.tolist()])
            per_row = [values.reshape(x.shape).sum(1).tolist() for values in (each * (text_bytes > 0), text_bytes)]
            rows += [row for row in zip(*per_row, strict=True) if row[1]]
        assert len(tokens) == getattr(trainer.run.data, split).n_tokens  # the whole split, each token once
        assert losses[name] == pytest.approx(nats / len(tokens), rel=1e-5)
    text = [json.loads(line)["text"] for line in Path("data/mine-val.jsonl").read_text().splitlines()]
    n_bytes = sum(len(document.encode()) for document in text)
    assert losses["bpb"] == pytest.approx(text_nats / math.log(2) / n_bytes, rel=1e-5)
    apart = [nats - text_nats / n_bytes * length for nats, length in rows]  # from what the ratio says, in each row
    error = math.sqrt(len(rows) * statistics.variance(apart)) / n_bytes / math.log(2)
    assert losses["bpb_se"] == pytest.approx(error, rel=1e-4)


def test_evaluation_reads_the_same_batches_whatever_the_seed():
    batches = []
    for seed in ("1", "2"):
        run = make_run("--seed", seed)
        loader = run.evaluation_loader("val")
        batches.append([loader.batch(0, i).targets.tobytes() for i in range(loader.batches_per_epoch)])
    assert batches[0] == batches[1]


# --- length of a run ------------------------------------------------------------------------------------------------


def note_saves(monkeypatch):
    """A list that receives (batch, path) of every checkpoint saved from now on."""
    saved, save = [], saver_module.Saver.save

    def noted(saver, state, paths):
        saved.extend((state["batch_counter"], path) for path in paths)
        save(saver, state, paths)

    monkeypatch.setattr(saver_module.Saver, "save", noted)
    return saved


def test_a_run_ends_after_its_epochs_with_an_evaluation_and_a_checkpoint_at_each_epochs_end(monkeypatch):
    saved = note_saves(monkeypatch)
    outcome = train("--epochs", "2", "--eval_interval", "0")
    per_epoch = make_run().plan.batches_per_epoch
    last = Path("models/mine_epoch2.pt")
    assert outcome.code == 0
    assert [number for number, path in saved if path == last] == [per_epoch, 2 * per_epoch]
    state = state_of(last)
    assert state["loader"] == {"epoch": 2, "position": 0} and state["epoch"] == 2
    assert state["batch_counter"] == 2 * per_epoch
    assert [step for step, _ in state["metrics"]["val_loss_eval"]] == [per_epoch, 2 * per_epoch]
    assert state["metrics"]["tokens"] == 2 * make_run().data.train.n_tokens  # every token once an epoch, no filling
    assert "TRAINING COMPLETED" in outcome.said and "python gen.py models/mine_epoch2.pt" in outcome.said


def test_max_iters_overrides_epochs_and_may_be_longer_than_an_epoch():
    per_epoch = make_run().plan.batches_per_epoch
    train("--epochs", "1", "--max_iters", str(per_epoch + 3), "--eval_interval", "0")
    state = state_of("models/mine_epoch1.pt")
    assert state["batch_counter"] == per_epoch + 3
    assert state["loader"] == {"epoch": 1, "position": 3}


def test_train_batches_and_val_batches_shorten_an_epoch_and_an_evaluation():
    outcome = train("--epochs", "3", "--train_batches", "2", "--val_batches", "1", "--eval_interval", "0")
    state = state_of("models/mine_epoch3.pt")
    assert outcome.code == 0
    assert state["batch_counter"] == 6 and state["loader"] == {"epoch": 3, "position": 0}
    run = make_run("--val_batches", "1")
    assert run.evaluation_loader("val").batches_per_epoch == 1


def test_max_minutes_stops_with_a_checkpoint_to_resume_from(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    advance = trainer_module.Trainer.advance

    def a_minute_later(self):
        now[0] += 60.0
        return advance(self)

    monkeypatch.setattr(trainer_module.Trainer, "advance", a_minute_later)
    outcome = train("--max_minutes", "4", "--training.checkpoint_minutes", "0")
    assert outcome.code == 0
    assert state_of("models/mine_epoch1.pt")["batch_counter"] == 4
    assert "Stopped after batch 4 of " in outcome.said and "--resume models/mine_epoch1.pt" in outcome.said


def test_a_checkpoint_is_written_every_checkpoint_minutes(monkeypatch):
    now, saved = [0.0], note_saves(monkeypatch)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    advance = trainer_module.Trainer.advance

    def a_minute_later(self):
        now[0] += 60.0
        return advance(self)

    monkeypatch.setattr(trainer_module.Trainer, "advance", a_minute_later)
    train("--max_iters", "8", "--eval_interval", "0", "--training.checkpoint_minutes", "3")
    assert [number for number, path in saved if path.name == "mine_epoch1.pt"] == [3, 6, 8]


def test_numbered_checkpoints_contain_the_batch_that_they_are_named_after():
    train("--max_iters", "5", "--eval_interval", "0", "--checkpoint_interval", "2")
    assert state_of("models/mine_epoch1_batch2.pt")["batch_counter"] == 2
    assert state_of("models/mine_epoch1_batch4.pt")["batch_counter"] == 4
    assert not Path("models/mine_epoch1_batch5.pt").exists()


def test_save_checkpoints_false_writes_the_metrics_the_config_and_the_report():
    outcome = train("--max_iters", "3", "--eval_interval", "1", "--training.save_checkpoints", "false")
    assert set(snapshot("models")) == {
        f"mine_epoch1.{kind}" for kind in ("metrics.jsonl", "config.json", "report.html")
    }
    assert "gen.py" not in outcome.said


def test_eval_only_evaluates_a_checkpoint_and_writes_nothing():
    train("--max_iters", "3")
    before = snapshot("models")
    loss = state_of("models/mine_epoch1.pt")["metrics"]["val_loss_eval"][-1][1]
    outcome = train("--checkpoint", "models/mine_epoch1.pt", "--eval_only")
    assert outcome.code == 0
    assert f"validation loss {loss:.4f}" in outcome.said
    assert snapshot("models") == before


# --- NaN and infinity -------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_before_the_update_and_keeps_weights_and_checkpoint(monkeypatch):
    seen = {}
    step = trainer_module.Trainer.step

    def poisoned(self, batch):
        if self.batches_done < 5:
            return step(self, batch)
        seen["trainer"], seen["documents"] = self, self.loader.packed.documents(self.epoch, self.position)
        seen["before"] = {name: weight.clone() for name, weight in self.model.state_dict().items()}
        monkeypatch.setattr(self.model, "forward", lambda x, y: self.model.lm_head.weight.sum() * math.nan)
        return step(self, batch)

    monkeypatch.setattr(trainer_module.Trainer, "step", poisoned)
    with pytest.raises(UserError, match="loss of batch 6 is not finite") as error:
        train("--max_iters", "9", "--eval_interval", "0", "--checkpoint_interval", "4")
    for document in seen["documents"][:8]:
        assert f"{document}" in str(error.value)
    assert "--learning_rate" in str(error.value)
    assert differences(seen["before"], dict(seen["trainer"].model.state_dict())) == []
    assert all(p.grad is None for p in seen["trainer"].model.parameters())
    assert state_of("models/mine_epoch1_batch4.pt")["batch_counter"] == 4
    assert [row["step"] for row in metrics_rows("models/mine_epoch1.metrics.jsonl")] == [1, 2, 3, 4, 5]


def test_a_gradient_that_is_not_finite_stops_before_the_update():
    trainer = make_trainer()
    before = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    trainer.model.transformer.h[0].mlp.c_fc.weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(UserError, match="gradient of batch 1 is not finite"):
        trainer.step(trainer.loader.batch(0, 0))
    assert differences(before, dict(trainer.model.state_dict())) == []


def with_scaler(scale: float = 2.0**10):
    """A trainer whose GradScaler is on, as with float16 on a GPU."""
    trainer = make_trainer()
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1000)
    return trainer


def test_a_grad_scaler_changes_nothing_if_nothing_overflows():
    """Scaled by a power of two and back, the float32 gradients are the same numbers."""
    plain, scaled = make_trainer(), with_scaler()
    for trainer in (plain, scaled):
        for _ in range(3):
            trainer.step(trainer.loader.batch(0, trainer.position))
            trainer.advance()
    for name, weight in plain.model.state_dict().items():
        assert torch.allclose(weight, scaled.model.state_dict()[name], atol=1e-6), name


def test_overflowing_gradients_skip_the_update_and_halve_the_scale():
    trainer = with_scaler()
    hook = trainer.model.transformer.h[0].mlp.c_fc.weight.register_hook(lambda gradient: gradient * math.inf)
    before = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    trainer.step(trainer.loader.batch(0, 0))
    assert trainer.skipped_updates == 1
    assert trainer.scaler.get_scale() == 2.0**9
    assert differences(before, dict(trainer.model.state_dict())) == []
    hook.remove()
    trainer.step(trainer.loader.batch(0, 1))
    assert trainer.skipped_updates == 0  # the count starts again after an update
    assert differences(before, dict(trainer.model.state_dict())) != []
    assert all(torch.isfinite(weight).all() for weight in trainer.model.state_dict().values())


def test_twenty_skipped_updates_in_a_row_stop_the_run():
    trainer = with_scaler(2.0**100)
    trainer.model.transformer.h[0].mlp.c_fc.weight.register_hook(lambda gradient: gradient * math.inf)
    for _ in range(19):
        trainer.step(trainer.loader.batch(0, 0))
        trainer.advance()
    with pytest.raises(UserError, match="gradient of batch 20 is not finite"):
        trainer.step(trainer.loader.batch(0, 0))


def test_a_loss_that_is_not_finite_stops_the_run_with_a_grad_scaler_too():
    trainer = with_scaler()
    trainer.model.forward = lambda x, y: trainer.model.lm_head.weight.sum() * math.nan
    with pytest.raises(UserError, match="loss of batch 1 is not finite"):
        trainer.step(trainer.loader.batch(0, 0))


# --- metrics ----------------------------------------------------------------------------------------------------------


def test_the_metrics_file_has_a_row_per_batch_that_includes_the_losses_of_an_evaluation():
    run = make_run("--max_iters", "7")
    train("--max_iters", "7", "--eval_interval", "3", "--training.gradient_accumulation_steps", "2")
    rows = metrics_rows("models/mine_epoch1.metrics.jsonl", clock=True)
    per_batch = {"step", "tokens", "elapsed_s", "loss", "lr", "grad_norm", "tokens_per_s", "samples_per_s", "mfu"}
    per_batch |= {"peak_memory_bytes"}
    of_evaluation = {"train_loss_eval", "val_loss", "bpb", "bpb_se"}
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    evaluated = [row["step"] for row in rows if of_evaluation & set(row)]
    end_of_epoch = make_run("--training.gradient_accumulation_steps", "2").plan.batches_per_epoch
    assert evaluated == sorted({3, 6, 7, end_of_epoch} & set(range(8)))
    for row in rows:
        assert set(row) == per_batch | (of_evaluation if row["step"] in evaluated else set())
        assert row["lr"] == run.plan.schedule.lr(row["step"] - 1)
        assert all(isinstance(row[name], (int, float)) for name in row)
    assert [row["elapsed_s"] for row in rows] == sorted(row["elapsed_s"] for row in rows)
    assert rows[0]["tokens"] == 64


def test_best_and_worst_losses_are_those_of_the_evaluations():
    train("--max_iters", "8", "--eval_interval", "2", "--learning_rate", "0.3")  # so high that losses go up and down
    rows = [row for row in metrics_rows("models/mine_epoch1.metrics.jsonl") if "val_loss" in row]
    val, training = [row["val_loss"] for row in rows], [row["train_loss_eval"] for row in rows]
    state = state_of("models/mine_epoch1.pt")
    assert (state["best_val_loss"], state["worst_val_loss"]) == (min(val), max(val))
    assert (state["best_train_loss"], state["worst_train_loss"]) == (min(training), max(training))
    best = state_of("models/mine_epoch1_best.pt")
    assert best["batch_counter"] == rows[val.index(min(val))]["step"]
    assert best["best_val_loss"] == min(val)


# --- the output -------------------------------------------------------------------------------------------------------


def test_after_five_batches_a_run_prints_once_how_long_it_takes(monkeypatch):
    seconds = [90.0, *[60.0] * 6]  # the first batch is slow and does not count
    clock = accumulate(gap for length in seconds for gap in (0.0, length))
    monkeypatch.setattr(trainer_module, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    said = train("--max_iters", "7", "--eval_interval", "0", "--training.eval_iters", "1").said
    assert said.count(" left at this speed") == 1 and "About 2 min 00 s left at this speed" in said


def test_the_summary_is_printed_before_the_first_batch_and_describes_the_run():
    said = train("--max_iters", "2", "--training.gradient_accumulation_steps", "3").said
    assert "3 x 2 sequences of 16" in said and "2 of 96 tokens" in said
    assert said.index("--- TRAINING ---") < said.index("evaluation:") < said.index("TRAINING COMPLETED")
    assert "models/mine_epoch1.pt" in said


# --- compile ------------------------------------------------------------------------------------------------------------


def test_no_compile_overrides_compile_model(monkeypatch):
    monkeypatch.setattr(trainer_module, "compile_blocks", lambda model: pytest.fail("compiled all the same"))
    assert make_run("--training.compile_model", "true", "--no_compile").config.training.compile_model is False
    assert train("--max_iters", "1", "--training.compile_model", "true", "--no_compile").code == 0


def test_if_compilation_fails_training_continues_unchanged_with_a_warning(monkeypatch):
    import torch._inductor.compile_fx

    def broken(*args, **kwargs):
        raise RuntimeError("the compiler is broken")

    train("--max_iters", "3", "--output_checkpoint", "models/eager.pt")
    monkeypatch.setattr(torch._inductor.compile_fx, "compile_fx", broken)
    monkeypatch.setattr(torch._inductor.compile_fx, "compile_fx_inner", broken)
    monkeypatch.setattr("jojo.machine.device.shutil.which", lambda name: f"/usr/bin/{name}")
    outcome = train("--max_iters", "3", "--training.compile_model", "true", "--output_checkpoint", "models/tried.pt")
    assert outcome.code == 0
    assert "compile" in outcome.said.lower().replace("compile on", "")
    assert differences(state_of("models/eager.pt")["model"], state_of("models/tried.pt")["model"]) == []


def test_without_a_cpp_compiler_training_continues_with_one_warning(monkeypatch):
    monkeypatch.setattr("jojo.machine.device.shutil.which", lambda name: None)
    outcome = train("--max_iters", "1", "--training.compile_model", "true")
    assert outcome.code == 0
    assert outcome.said.count("needs a C++ compiler") == 1
    assert "compile off" in outcome.said


# --- stopping -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(2, 130), (15, 143)])
def test_after_a_signal_the_batch_is_finished_and_saved_and_the_resume_command_is_printed(monkeypatch, number, code):
    stop_after(monkeypatch, 4, number)
    outcome = train("--eval_interval", "0")
    assert outcome.code == code
    assert state_of("models/mine_epoch1.pt")["batch_counter"] == 4
    assert "Stopped after batch 4 of 11" in outcome.said
    assert "train.py --resume models/mine_epoch1.pt" in outcome.said


def test_a_stopped_run_without_checkpoints_says_that_nothing_was_saved(monkeypatch):
    stop_after(monkeypatch, 2)
    outcome = train("--training.save_checkpoints", "false", "--eval_interval", "0")
    assert outcome.code == 130 and "not saved" in outcome.said and "--resume" not in outcome.said


def test_a_model_that_cannot_write_a_sample_still_ends_with_the_error_about_its_loss():
    trainer = make_trainer("--training.sample_interval", "1", "--max_iters", "3")
    with torch.no_grad():
        trainer.model.lm_head.weight.fill_(math.nan)
    with messages() as said:
        assert trainer.samples() == []
    assert "No samples: The model's logits are not finite" in said[0]
    with pytest.raises(UserError, match="The loss of batch 1 is not finite"):
        trainer.train()
