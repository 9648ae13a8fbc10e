"""Tests of schedule.py and optim.py: learning rates against formulas, parameter groups, optimizer state by name."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from helpers_cli import messages
from helpers_model import random_model, tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from config import Config, OptimizerConfig
from jojo.optim import NEWTON_SCHULZ, Optimizer, load_optimizer_state, make_optimizers, optimizer_state, orthogonalize
from jojo.schedule import Schedule, derive_schedule
from model import GPT
from utils import UserError


def plan(total: int, rate: float = 1e-3, **scheduler: Any) -> Schedule:
    """The schedule of a run of `total` batches with these scheduler options."""
    return derive_schedule(Config.from_dict({"optimizer": {"learning_rate": rate}, "scheduler": scheduler}), total)


def rates(schedule: Schedule, total: int) -> list[float]:
    return [schedule.lr(batch) for batch in range(total)]


# --- shapes ---------------------------------------------------------------------------------------------------------


def test_cosine_follows_its_formula() -> None:
    schedule = plan(100, warmup_iters=10, min_lr=1e-4)
    for batch in range(10):
        assert schedule.lr(batch) == pytest.approx(1e-3 * (batch + 1) / 11)
    for batch in range(10, 101):
        expected = 1e-4 + 0.5 * (1 + math.cos(math.pi * (batch - 10) / 90)) * 9e-4
        assert schedule.lr(batch) == pytest.approx(expected)


def test_wsd_follows_its_formula() -> None:
    schedule = plan(200, kind="wsd", warmup_iters=20, min_lr=0.0)
    for batch in range(20):
        assert schedule.lr(batch) == pytest.approx(1e-3 * (batch + 1) / 21)
    assert {schedule.lr(batch) for batch in range(20, 160)} == {1e-3}  # stable until 80 % of the run
    for batch in range(160, 201):
        assert schedule.lr(batch) == pytest.approx(1e-3 * (200 - batch) / 40)


def test_the_cooldown_of_wsd_starts_at_the_given_fraction() -> None:
    schedule = plan(100, kind="wsd", warmup_iters=10, cooldown_fraction=0.5)
    assert schedule.lr(49) == 1e-3 and schedule.lr(50) == pytest.approx(1e-3) and schedule.lr(51) < 1e-3


def test_cosine_holds_until_the_cooldown_fraction() -> None:
    schedule = plan(100, warmup_iters=10, cooldown_fraction=0.6, min_lr=0.0)
    assert {schedule.lr(batch) for batch in range(10, 60)} == {1e-3}
    assert schedule.lr(80) == pytest.approx(0.5e-3)


def test_without_decay_the_rate_stays_at_its_peak() -> None:
    schedule = plan(50, warmup_iters=5, decay_lr=False)
    assert rates(schedule, 5) == pytest.approx([1e-3 * n / 6 for n in range(1, 6)])
    assert {schedule.lr(batch) for batch in range(5, 500)} == {1e-3}


def test_after_the_decay_the_rate_stays_at_its_floor() -> None:
    schedule = plan(100, lr_decay_iters=40, min_lr=2e-5)
    assert {schedule.lr(batch) for batch in range(40, 200)} == {2e-5}
    assert schedule.lr(39) > 2e-5


def test_the_floor_is_a_tenth_of_the_peak_by_default() -> None:
    assert plan(100).floor == pytest.approx(1e-4)
    assert plan(100, min_lr=0.0).floor == 0.0


def test_fractions_are_shares_of_the_run() -> None:
    schedule = plan(1000, warmup_fraction=0.1)
    assert (schedule.warmup, schedule.decay_end) == (100, 1000)
    assert plan(1000, warmup_fraction=0).lr(0) == pytest.approx(1e-3)


def test_numbers_of_batches_override_fractions() -> None:
    schedule = plan(1000, warmup_iters=7, warmup_fraction=0.5, lr_decay_iters=600, cooldown_fraction=0.9)
    assert (schedule.warmup, schedule.cooldown_start, schedule.decay_end) == (7, 7, 600)


plans = st.fixed_dictionaries(
    {"kind": st.sampled_from(["cosine", "wsd"])},
    optional={
        "decay_lr": st.booleans(),
        "warmup_iters": st.none() | st.integers(0, 300),
        "lr_decay_iters": st.none() | st.integers(1, 300),
        "min_lr": st.none() | st.floats(0, 1e-3),
        "warmup_fraction": st.floats(0, 0.99),
        "cooldown_fraction": st.none() | st.floats(0, 1),
    },
)


@settings(max_examples=150, deadline=None)
@given(plans, st.integers(1, 200))
def test_every_schedule_starts_above_zero_reaches_its_peak_and_ends_at_its_floor(scheduler: Any, total: int) -> None:
    with messages():
        schedule = plan(total, **scheduler)
    values = rates(schedule, total)
    assert (schedule.warmup < total and schedule.warmup <= schedule.cooldown_start) or not schedule.decays
    assert all(0 < value <= 1e-3 * (1 + 1e-12) for value in values[: schedule.decay_end])
    assert max(values) == pytest.approx(1e-3)
    rising = values[: schedule.warmup + 1]
    assert rising == sorted(rising)
    falling = values[schedule.warmup :]
    assert all(later <= earlier * (1 + 1e-12) for earlier, later in itertools.pairwise(falling))
    assert schedule.lr(10**9) == (schedule.floor if schedule.decays else 1e-3)


@settings(max_examples=30, deadline=None)
@given(plans, st.integers(1, 200), st.lists(st.integers(0, 10**7), max_size=10))
def test_a_schedule_is_a_pure_function_of_config_and_batch(scheduler: Any, total: int, batches: list[int]) -> None:
    with messages():
        first, second = plan(total, **scheduler), plan(total, **scheduler)
    assert first == second
    forward = [first.lr(batch) for batch in batches]
    assert forward[::-1] == [second.lr(batch) for batch in reversed(batches)]
    assert Schedule(**dataclasses.asdict(first)) == first


# --- values that do not fit the run ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["cosine", "wsd"])
def test_values_of_2x_files_do_not_fit_a_short_run_so_it_warns_and_uses_fractions(kind: str) -> None:
    with messages() as said:
        schedule = plan(300, kind=kind, warmup_iters=2000, lr_decay_iters=60_000)
    assert len(said) == 2 and all(text.startswith("WARNING") for text in said)
    assert "warmup_iters 2,000" in said[0] and "300 batches" in said[0]
    assert "lr_decay_iters 60,000" in said[1]
    assert schedule == plan(300, kind=kind)
    assert schedule.warmup == 15 and schedule.decay_end == 300


def test_values_that_fit_raise_no_warning() -> None:
    with messages() as said:
        schedule = plan(60_000, warmup_iters=2000, lr_decay_iters=60_000)
    assert said == []
    assert (schedule.warmup, schedule.decay_end) == (2000, 60_000)


def test_only_the_value_that_does_not_fit_is_replaced() -> None:
    with messages() as said:
        schedule = plan(3000, warmup_iters=200, lr_decay_iters=60_000)
    assert len(said) == 1 and "lr_decay_iters" in said[0]
    assert (schedule.warmup, schedule.decay_end) == (200, 3000)


def test_a_decay_that_ends_within_the_warmup_is_replaced() -> None:
    with messages() as said:
        schedule = plan(100, warmup_iters=50, lr_decay_iters=50)
    assert len(said) == 1 and schedule.decay_end == 100


def test_a_decay_that_is_not_used_raises_no_warning() -> None:
    with messages() as said:
        plan(100, lr_decay_iters=60_000, decay_lr=False)
    assert said == []


def test_a_run_of_one_batch_trains_at_its_peak() -> None:
    for kind in ("cosine", "wsd"):
        assert plan(1, kind=kind).lr(0) == pytest.approx(1e-3)


def test_the_description_names_every_phase() -> None:
    text = plan(1000, kind="wsd", warmup_iters=50, lr_decay_iters=800, min_lr=1e-5).describe(1000)
    for words in ("50 batches of warm-up", "0.001 until batch 640", "wsd", "1e-05 at batch 800", "last 200 batches"):
        assert words in text
    assert plan(1000, warmup_iters=1).describe(1000).startswith("1 batch of warm-up, then cosine from 0.001 ")
    assert plan(1000, warmup_iters=0).describe(1000).startswith("cosine from 0.001 ")
    assert plan(100, warmup_iters=5, decay_lr=False).describe(100) == "5 batches of warm-up, then 0.001 throughout"
    assert plan(100, warmup_iters=0, decay_lr=False).describe(100) == "0.001 throughout"
    assert "last" not in plan(1000).describe(1000)


# --- AdamW ----------------------------------------------------------------------------------------------------------


class Small(nn.Module):
    """An embedding tied to the output layer, a norm and a layer with a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 4)
        self.norm = nn.LayerNorm(4)
        self.middle = nn.Linear(4, 4)
        self.out = nn.Linear(4, 11, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:  # (B,) -> (B, V)
        return self.out(self.middle(self.norm(self.embedding(ids))))


def small(seed: int = 0) -> Small:
    torch.manual_seed(seed)
    return Small()


def train_steps(model: nn.Module, optimizer: Optimizer | torch.optim.Optimizer, steps: int) -> None:
    for step in range(steps):
        loss = nn.functional.cross_entropy(model(torch.arange(11)), torch.arange(11).roll(step))
        model.zero_grad()
        loss.backward()
        optimizer.step()


def test_matrices_decay_and_vectors_do_not() -> None:
    model = small()
    [optimizer] = make_optimizers(model, OptimizerConfig(weight_decay=0.3))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay == {id(parameter): 0.3 if parameter.dim() >= 2 else 0.0 for parameter in model.parameters()}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(decay) == 5  # the tied weight once


def test_weight_decay_shrinks_only_matrices() -> None:
    model = small()
    before = copy.deepcopy(model.state_dict())
    [optimizer] = make_optimizers(model, OptimizerConfig(learning_rate=0.1, weight_decay=0.5))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    after = model.state_dict()
    torch.testing.assert_close(after["middle.weight"], before["middle.weight"] * 0.95)
    torch.testing.assert_close(after["embedding.weight"], before["embedding.weight"] * 0.95)
    for name in ("middle.bias", "norm.weight", "norm.bias"):
        assert torch.equal(after[name], before[name])


@pytest.mark.parametrize("betas", [(0.9, 0.95), (0.8, 0.99)])
def test_a_step_equals_that_of_torchs_adamw(betas: tuple[float, float]) -> None:
    ours, theirs = small(), small()
    config = OptimizerConfig(learning_rate=0.01, beta1=betas[0], beta2=betas[1])
    train_steps(ours, make_optimizers(ours, config)[0], 3)
    groups = [
        {"params": [p for p in theirs.parameters() if p.dim() >= 2], "weight_decay": 0.1},
        {"params": [p for p in theirs.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    train_steps(theirs, torch.optim.AdamW(groups, lr=0.01, betas=betas, fused=True), 3)
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor), name


def test_optimizer_state_is_kept_by_name() -> None:
    model = small()
    [optimizer] = make_optimizers(model, OptimizerConfig())
    train_steps(model, optimizer, 2)
    state = optimizer_state([optimizer], model)
    assert set(state) == {"embedding.weight", "norm.weight", "norm.bias", "middle.weight", "middle.bias"}
    for name, parameter in model.named_parameters():
        if name in state:
            assert torch.equal(state[name]["exp_avg"], optimizer.state[parameter]["exp_avg"])
            assert state[name]["step"] == 2


@pytest.mark.parametrize("reversed_groups", [False, True])
def test_optimizer_state_survives_a_round_trip_in_any_order_of_groups(reversed_groups: bool) -> None:
    config = OptimizerConfig(learning_rate=0.01)
    first = small()
    [optimizer] = make_optimizers(first, config)
    train_steps(first, optimizer, 3)
    second = small(seed=1)
    second.load_state_dict(first.state_dict())
    [other] = make_optimizers(second, config)
    if reversed_groups:
        other.param_groups = [group | {"params": group["params"][::-1]} for group in reversed(other.param_groups)]
    load_optimizer_state([other], second, copy.deepcopy(optimizer_state([optimizer], first)))  # like from a file
    train_steps(first, optimizer, 3)
    train_steps(second, other, 3)
    for name, tensor in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], tensor), name


def test_loading_state_does_not_change_the_settings() -> None:
    first, second = small(), small()
    [optimizer] = make_optimizers(first, OptimizerConfig(learning_rate=0.01, weight_decay=0.1))
    train_steps(first, optimizer, 1)
    [other] = make_optimizers(second, OptimizerConfig(learning_rate=0.5, weight_decay=0.2))
    load_optimizer_state([other], second, optimizer_state([optimizer], first))
    assert [group["lr"] for group in other.param_groups] == [0.5, 0.5]
    assert sorted(group["weight_decay"] for group in other.param_groups) == [0.0, 0.2]


def test_an_empty_state_can_be_loaded() -> None:
    model = small()
    [optimizer] = make_optimizers(model, OptimizerConfig())
    assert not any(value.any() for values in optimizer_state([optimizer], model).values() for value in values.values())
    load_optimizer_state([optimizer], model, {})
    train_steps(model, optimizer, 1)
    assert {values["step"].item() for values in optimizer_state([optimizer], model).values()} == {1}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("unknown.weight", {"step": torch.tensor(1.0)}),
        ("middle.weight", {"exp_avg": torch.zeros(4, 5)}),
    ],
)
def test_state_of_another_model_is_refused_by_name(name: str, values: dict[str, torch.Tensor]) -> None:
    model = small()
    [optimizer] = make_optimizers(model, OptimizerConfig())
    with pytest.raises(UserError) as caught:
        load_optimizer_state([optimizer], model, {name: values})
    assert name in str(caught.value)


# --- Muon -----------------------------------------------------------------------------------------------------------


def block_model(seed: int = 0) -> GPT:
    return random_model(tiny_config(bias=True), seed=seed)


def fill_gradients(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("shape", [(8, 8), (8, 32), (32, 8), (1, 5), (64, 64), (30, 100)])
def test_orthogonalizing_keeps_singular_vectors_and_makes_singular_values_about_1(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(shape[0])
    matrices = torch.randn(3, *shape, generator=generator) * torch.tensor([1e-4, 1.0, 1e4]).view(3, 1, 1)
    for before, after in zip(matrices, orthogonalize(matrices), strict=True):
        u, sizes, vh = torch.linalg.svd(before, full_matrices=False)
        turned = u.T @ after @ vh.T  # diagonal if the singular vectors stayed the same
        torch.testing.assert_close(turned, torch.diag(turned.diagonal()), rtol=0, atol=1e-4)
        large = turned.diagonal()[sizes > 0.05 * sizes.norm()]  # far smaller ones need more steps
        assert large.min() > 0.6 and large.max() < 1.3


def test_singular_values_from_a_hundredth_of_the_largest_end_near_1() -> None:
    sizes = torch.logspace(-2, 0, 2000, dtype=torch.float64)
    for a, b, c in NEWTON_SCHULZ:
        sizes = a * sizes + b * sizes**3 + c * sizes**5
    assert sizes.min() > 0.72 and sizes.max() < 1.28


def test_orthogonalizing_zeros_gives_zeros() -> None:
    assert not orthogonalize(torch.zeros(2, 4, 6)).any()


def test_a_step_is_close_to_that_of_torchs_muon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jojo.optim.NEWTON_SCHULZ", 5 * [(3.4445, -4.7750, 2.0315)])  # torch's
    ours, theirs = block_model(), block_model()
    _, muon = make_optimizers(ours, OptimizerConfig(kind="muon", learning_rate=0.02, weight_decay=0.3), "bfloat16")
    names = [n for n, p in ours.named_parameters() if ".h." in n and p.dim() == 2 and not n.endswith("c_attn.weight")]
    assert len(names) == 3 * ours.config.n_layer
    reference = torch.optim.Muon(
        [p for n, p in theirs.named_parameters() if n in names],
        lr=0.02, weight_decay=0.3, momentum=0.95, adjust_lr_fn="match_rms_adamw",
    )  # fmt: skip
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    for step in range(3):
        for model, optimizer in ((ours, muon), (theirs, reference)):
            fill_gradients(model, step)
            optimizer.step()
    for name in names:
        a, b = ours.state_dict()[name] - before[name], theirs.state_dict()[name] - before[name]
        assert b.norm() > 0 and (a - b).norm() / b.norm() < 0.04, name  # bfloat16 products, in another order


def test_queries_keys_and_values_are_orthogonalized_apart() -> None:
    model = block_model()
    _, muon = make_optimizers(model, OptimizerConfig(kind="muon", learning_rate=1.0, weight_decay=0.0))
    weight = model.transformer.h[0].attn.c_attn.weight
    before = weight.detach().clone()
    fill_gradients(model, 0)
    weight.grad[: len(weight) // 3] *= 1e3  # queries; in one matrix they would hide keys and values
    muon.step()
    for change in (before - weight.detach()).chunk(3):
        sizes = torch.linalg.svdvals(change) / (0.2 * math.sqrt(len(change)))
        assert sizes.median() > 0.6


def test_muon_takes_the_matrices_inside_blocks_and_adamw_the_rest() -> None:
    model = block_model()
    adamw, muon = make_optimizers(model, OptimizerConfig(kind="muon", learning_rate=0.02, weight_decay=0.3))
    names = {p: name for name, p in model.named_parameters()}
    taken = [{names[p] for group in o.param_groups for p in group["params"]} for o in (adamw, muon)]
    assert taken[0] | taken[1] == set(names.values()) and not taken[0] & taken[1]
    assert taken[1] == {name for p, name in names.items() if ".h." in name and p.dim() == 2}
    assert {g["lr"] for o in (adamw, muon) for g in o.param_groups} == {0.02}
    assert {g["weight_decay"] for g in muon.param_groups} == {0.3}


def test_every_kind_of_weight_has_its_own_rate_in_proportion_to_the_scheduled_one() -> None:
    model = GPT(tiny_config(architecture="qwen3", bias=False, tie_embeddings=False))
    rates: Any = {"embedding_learning_rate": 0.06, "output_learning_rate": 0.01, "norm_learning_rate": 0.04}
    for kind in ("adamw", "muon"):
        optimizers = make_optimizers(model, OptimizerConfig(kind=kind, learning_rate=0.02, **rates))
        for optimizer in optimizers:
            optimizer.set_batch(7, 0.005)  # a quarter of the peak
        names = {p: name for name, p in model.named_parameters()}
        found = {names[p]: g["lr"] for o in optimizers for g in o.param_groups for p in g["params"]}
        assert found.pop("transformer.wte.weight") == pytest.approx(0.015)
        assert found.pop("lm_head.weight") == pytest.approx(0.0025)
        assert {n: pytest.approx(0.01 if "ln_" in n or "_norm" in n else 0.005) for n in found} == found


def test_without_rates_of_their_own_all_weights_have_exactly_the_scheduled_one() -> None:
    for optimizer in make_optimizers(block_model(), OptimizerConfig(kind="muon", learning_rate=0.0037)):
        optimizer.set_batch(3, 0.0011)
        assert {group["lr"] for group in optimizer.param_groups} == {0.0011}


def test_muons_momentum_rises_during_its_warmup() -> None:
    _, muon = make_optimizers(block_model(), OptimizerConfig(kind="muon", momentum_warmup=4))
    found = []
    for batch in range(6):
        muon.set_batch(batch, 0.01)
        found.append(muon.momentum)  # type: ignore[attr-defined]
    assert found == [pytest.approx(m) for m in (0.85, 0.875, 0.9, 0.925, 0.95, 0.95)]


@pytest.mark.parametrize("kinds", [("muon", "muon"), ("adamw", "muon"), ("muon", "adamw")])
def test_only_the_same_kind_of_optimizer_loads_the_state_of_a_weight(kinds: tuple[str, str]) -> None:
    first, second = block_model(), block_model()
    before, after = (
        make_optimizers(model, OptimizerConfig(kind=kind)) for model, kind in zip((first, second), kinds, strict=True)
    )
    for step in range(2):
        fill_gradients(first, step)
        for optimizer in before:
            optimizer.step()
    second.load_state_dict(first.state_dict())
    state = copy.deepcopy(optimizer_state(before, first))
    load_optimizer_state(after, second, state)
    kept = {name for name, values in optimizer_state(after, second).items() if any(map(torch.any, values.values()))}
    matrices = {name for name, p in first.named_parameters() if ".h." in name and p.dim() == 2}
    assert kept == (set(state) if kinds[0] == kinds[1] else set(state) - matrices)
    for model, optimizers in ((first, before), (second, after)):
        fill_gradients(model, 5)
        for optimizer in optimizers:
            optimizer.step()
    for name, tensor in second.state_dict().items():
        assert torch.equal(tensor, first.state_dict()[name]) == (kinds[0] == kinds[1] or name not in matrices), name


def test_schedule_fields_are_plain_values() -> None:
    assert {type(value) for value in dataclasses.asdict(plan(100)).values()} <= {str, int, float, bool}


def test_training_starts_without_torchs_compiler() -> None:
    """Importing the compiler takes as long as importing torch itself."""
    program = (
        "import sys, torch; from jojo.optim import make_optimizers; from config import OptimizerConfig;"
        "layer = torch.nn.Linear(2, 2); [optimizer] = make_optimizers(layer, OptimizerConfig());"
        "layer(torch.ones(2)).sum().backward(); optimizer.step(); print('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "False\n"
