"""tools/analyze_mfu.py: the part of each operator, the sums of the parts, and the advice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers_run import QWEN3, listening, make_trainer, settle, write_data

from config import Config
from jojo.networks import common, formulas
from tools import analyze_mfu as tool
from utils import UserError

Op = tool.Op
BACKWARD = "autograd::engine::evaluate_function: "
SMALL = [  # a shape that is small, but has some work in every part
    *("--dataset", "mine", "--device", "cpu", "--dtype", "float32", "--model.n_layer", "2", "--model.n_head", "2"),
    *("--model.n_embd", "64", "--model.block_size", "64", "--batch_size", "2", "--model.vocab_size", "50304"),
]


@pytest.fixture(autouse=True)
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(tmp_path, monkeypatch)


# --- parts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "op, part",
    [
        (Op("aten::mm", 1, ("aten::matmul", "aten::linear", tool.STEP)), "matrix products"),
        (Op("aten::addmm", 1, (BACKWARD + "AddmmBackward0", tool.STEP)), "matrix products"),
        (Op("aten::resize_", 1, ("aten::mm", tool.STEP)), "matrix products"),
        (Op("aten::bmm", 1, ("BlockedAttention", tool.RANGE + "attention", tool.STEP)), "attention"),
        (Op("aten::bmm", 1, ("BlockedAttentionBackward", BACKWARD + "BlockedAttentionBackward")), "attention"),
        (Op("aten::_scaled_dot_product_flash_attention_for_cpu", 1, ("CompiledFunction", tool.STEP)), "attention"),
        (Op("aten::copy_", 1, (BACKWARD + "ScaledDotProductFlashAttentionForCpuBackward0",)), "attention"),
        (Op("aten::mm", 1, ("LinearCrossEntropy", tool.RANGE + "loss", tool.STEP)), "loss"),
        (Op("aten::mul_", 1, ("LinearCrossEntropyBackward", BACKWARD + "LinearCrossEntropyBackward")), "loss"),
        (Op("aten::baddbmm", 1, (tool.RANGE + "optimizer", tool.STEP)), "optimizer"),  # Muon's
        (Op(tool.RANGE + "data", 1, (tool.STEP,)), "data"),
        (Op("aten::native_layer_norm", 1, ("aten::layer_norm", tool.STEP)), "overhead"),
        (Op("aten::add_", 1, (BACKWARD + "torch::autograd::AccumulateGrad", tool.STEP)), "overhead"),
        (Op(tool.STEP, 1), "overhead"),
        (Op("aten::mm", 1, ("## Call CompiledFxGraph f3 ##", tool.STEP)), "matrix products"),
    ],
)
def test_an_operator_counts_towards_the_innermost_part_it_runs_in(op: Any, part: str) -> None:
    assert op.part == part and part in tool.PARTS


def event(
    name: str, us: float, parent: Any = None, children: int = 0, device_us: float = 0.0, kind: str = "CPU"
) -> Any:
    """A profiler event, as far as the tool reads it."""
    return SimpleNamespace(
        name=name, self_cpu_time_total=us, cpu_parent=parent, cpu_children=[None] * children,
        self_device_time_total=device_us, device_type=SimpleNamespace(name=kind),
    )  # fmt: skip


def test_the_cost_of_recording_is_subtracted_from_the_caller() -> None:
    step = event(tool.STEP, 5000, children=3)
    gelu, quick = event("aten::gelu", 700, step), event("aten::view", 1, step, children=2)
    ops = tool.read_ops([step, gelu, quick], cuda=False, cost_ms=0.5)
    assert [op.ms for op in ops] == [3.5, 0.7, 0.0]
    assert ops[1].parents == (tool.STEP,)


def test_on_cuda_times_are_those_of_kernels_except_for_the_data() -> None:
    step = event(tool.STEP, 5000)
    data = event(tool.RANGE + "data", 900, step)
    product = event("aten::mm", 20, event(BACKWARD + "MmBackward0", 5), device_us=3000)
    kernel = event("ampere_sgemm", 0, device_us=3000, kind="CUDA")  # counted with the operator that started it
    ops = tool.read_ops([step, data, product, kernel], cuda=True, cost_ms=0.0)
    assert [(op.part, op.ms) for op in ops] == [("overhead", 0.0), ("data", 0.9), ("matrix products", 3.0)]


def test_parts_are_means_scaled_to_the_plain_step() -> None:
    first = [Op("aten::mm", 4.0), Op("aten::bmm", 3.0, (tool.RANGE + "attention",)), Op("aten::gelu", 3.0)]
    second = [Op("aten::mm", 10.0), Op("aten::exp", 4.0, (tool.RANGE + "attention",)), Op(tool.STEP, 5.0)]
    second.append(Op("## Call CompiledFxGraph f3zh ##", 1.0))
    parts, overhead = tool.add_up([(10.0, first), (20.0, second)], step_ms=100.0)
    assert {name: part.ms for name, part in parts.items() if part.ms} == pytest.approx(
        {"matrix products": 45.0, "attention": 25.0, "overhead": 30.0}
    )
    assert parts["attention"].products_ms == pytest.approx(15.0)
    assert overhead == pytest.approx({"gelu": 15.0, "Python between operators": 12.5, "compiled code": 2.5})


def test_flops_of_the_parts_are_those_of_the_model() -> None:
    config = Config()
    config.model.vocab_size = 512
    total = formulas(config.model).flops_per_token * config.tokens_per_batch
    assert sum(tool.part_flops(config).values()) == pytest.approx(total)


def test_after_profiling_every_function_is_the_original_again() -> None:
    trainer = make_trainer()
    before = common.causal_attention, torch.nn.utils.get_total_norm, set(vars(trainer.loader)), set(vars(trainer))
    with tool.ranges(trainer):
        assert common.causal_attention is not before[0]
    assert before == (
        common.causal_attention, torch.nn.utils.get_total_norm, set(vars(trainer.loader)), set(vars(trainer))
    )  # fmt: skip
    trainer.run.close()


# --- a real run -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "activation"), [((), "gelu"), (QWEN3, "silu")])
def test_a_real_step_is_accounted_for(tmp_path: Path, family: tuple[str, ...], activation: str) -> None:
    file = tmp_path / "parts.json"
    write_data(n_train=60)
    with listening() as said:
        assert tool.main([*SMALL, *family, "--batches", "3", "--json", str(file)]) == 0
    text, found = "\n".join(said), json.loads(file.read_text())
    assert abs(found["not_accounted_ms"]) < 0.05 * found["step_ms"]
    parts = found["parts"]
    assert tuple(parts) == tool.PARTS and all(part["ms"] > 0 for part in parts.values())
    assert sum(part["ms"] for part in parts.values()) + found["not_accounted_ms"] == pytest.approx(found["step_ms"])
    assert max(parts, key=lambda name: parts[name]["ms"]) == "loss"  # with 64 channels and 50,304 rows of vocabulary
    assert all((part["flops_per_s"] is not None) == (part["flops"] > 0) for part in parts.values())
    assert found["targets"] == 128 and found["peak_flops"] == 1e11 and found["fastest_ms"] <= found["step_ms"]
    assert found["dtype"] == "float32" and found["mfu"] > 0
    assert found["overhead_ops"]["Python between operators"] > 0 and activation in found["overhead_ops"]
    assert found["advice"][0]["change"].startswith("a vocabulary trained on this data (prepare.py --name mine ")
    for name in (*tool.PARTS, "not accounted for", "Most of the overhead", "What to change"):
        assert name in text
    assert not Path("models").exists()


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--batches", "0"], "--batches must be"),
        (["--seed", "x"], "--seed: 'system.seed' must be a whole number"),
        (["--resume"], "--resume has no meaning here"),
        (["--checkpoint", "a.pt", "--init_from", "b"], "use one of them"),
    ],
)
def test_wrong_flags_are_refused(flags: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tool.main([*SMALL, *flags])


def test_an_apple_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jojo.machine.device.available_devices", lambda: ["mps", "cpu"])
    with pytest.raises(UserError, match="Apple GPU"):
        tool.main([*SMALL, "--device", "mps"])


# --- advice ---------------------------------------------------------------------------------------------------------


def found(other_ms: float | None = None, compiled: bool = False, targets: int = 3072, **ms: float) -> Any:
    """Findings of a step of 100 ms on a device that is used well; the time of no other part is matrix products."""
    parts = {name: tool.Part(ms.get(name, 0.0), 0.0) for name in tool.PARTS}
    rest = 100.0 - sum(part.ms for part in parts.values())
    parts["matrix products"] = tool.Part(rest, rest)
    rates = {"now": 9e11, "twice the rows": 9e11}
    return tool.Findings(
        100.0, 99.0, 101.0, 102.0, 3072, targets, 1e12, 0.5, parts, {}, rates, compiled=compiled, other_ms=other_ms
    )


def config(vocab_size: int = 8192, **training: int) -> Config:
    result = Config()
    result.model.vocab_size = vocab_size
    return replace(result, training=replace(result.training, **training))


def gains(found: Any, config: Config, **how: bool) -> dict[str, float]:
    """The first word of each piece of advice, and its gain in per cent."""
    return {one.change.split(" ")[0].rstrip(":"): round(100 * one.gain, 2) for one in tool.advise(found, config, **how)}


def test_nothing_is_advised_if_nothing_gains() -> None:
    measured = found(optimizer=5, data=2.9, loss=40, other_ms=98.0)
    assert gains(measured, config()) == {}
    assert "Nothing that this tool knows of" in tool.table(measured, [])


def test_all_tokens_count_and_the_share_of_predicted_ones_is_shown_if_it_is_low() -> None:
    few, all_of_them = (tool.table(found(targets=targets), []).splitlines()[0] for targets in (522, 3060))
    assert "3,072 tokens, 30.7k a second, MFU 50.0% of 1,000 GFLOP/s; 17% of the tokens were predicted." in few
    assert "3,072 tokens" in all_of_them and "predicted" not in all_of_them


def test_a_vocabulary_of_its_own_takes_flops_off_the_loss() -> None:
    measured, large = found(loss=50), config(vocab_size=81920)
    assert gains(measured, large) == {"a": 45.0}
    assert gains(measured, large, new_model=False) == {}
    large.data.tokenizer = "mine.tiktoken"
    assert gains(measured, large) == {}


def test_adamw_gains_from_a_smaller_vocabulary_too_and_muon_is_left_out() -> None:
    measured, large = found(loss=50, optimizer=5), config(vocab_size=81920)
    parameters = [formulas(replace(large.model, vocab_size=size)).n_parameters for size in (8192, 81920)]
    assert gains(measured, large)["a"] == pytest.approx(45 + 5 * (1 - parameters[0] / parameters[1]), abs=0.01)
    large.optimizer.kind = "muon"
    assert gains(measured, large)["a"] == 45.0


def test_bfloat16_saves_time_in_products_if_it_was_measured_to_be_fast() -> None:
    measured = found(overhead=50)
    measured.product_flops["bfloat16"] = 3.6e12
    assert gains(measured, config()) == {"--dtype": 37.5}


@pytest.mark.parametrize(
    "dtype, auto, names", [("float32", "bfloat16", 3), ("float32", "float32", 2), ("bfloat16", "bfloat16", 2)]
)
def test_bfloat16_is_measured_only_if_the_device_is_fast_at_it(
    dtype: str, auto: str, names: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool.devices, "choose_dtype", lambda wanted, device: tool.devices.Choice(auto, ""))
    monkeypatch.setattr(tool, "product_flops", lambda shapes, width, device: [float(rows) for rows, _ in shapes])
    small = config()
    small.system.dtype, small.system.device = dtype, "cpu"
    rates = tool.product_rates(small)
    assert len(rates) == names and rates["twice the rows"] == 2 * rates["now"] == 2 * 12 * 256


def test_a_larger_micro_batch_is_advised_if_its_products_are_faster() -> None:
    measured = found(overhead=50)
    measured.product_flops |= {"now": 4e11, "twice the rows": 5e11}
    assert gains(measured, config()) == {"--batch_size": 10.0}
    (advice,) = tool.advise(measured, config(batch_size=3, gradient_accumulation_steps=4))
    assert (
        "--batch_size 6 --training.gradient_accumulation_steps 2 (the same result): products reach 40%" in advice.change
    )
    measured.product_flops["now"] = 0.81e12
    assert gains(measured, config()) == {}  # fast enough
    measured.peak_flops = None
    assert gains(measured, config()) == {}


def test_fewer_updates_and_a_faster_disk_are_advised_if_they_gain() -> None:
    assert gains(found(optimizer=20), config()) == {"--training.gradient_accumulation_steps": 10.0}
    assert gains(found(optimizer=20, data=2), config()).keys() == {"--training.gradient_accumulation_steps"}
    assert gains(found(data=4), config()) == {"--data.cache_dir": 4.0}
    made = replace(found(data=4), batch_again_ms=3.5)  # the batch takes as long from memory
    assert gains(made, config()) == {}


def test_compiling_is_advised_as_it_was_measured() -> None:
    for compiled, word in ((True, "false"), (False, "true")):
        (advice,) = tool.advise(found(other_ms=80.0, compiled=compiled), config())
        assert advice.change == f"--training.compile_model {word}: measured" and advice.gain == pytest.approx(0.2)
        assert "  -20%, to 80.0 ms: --training.compile_model" in tool.table(found(), [advice])


@pytest.mark.parametrize(
    "was_compiled, works, expected", [(True, True, 200.0), (False, True, 50.0), (False, False, None)]
)
def test_the_other_compile_setting_is_measured_in_turns(
    was_compiled: bool, works: bool, expected: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([900.0, 900.0, 900.0, 900.0, *(6.0, 12.0) * 3])  # compiled, not compiled, ...; the first ones compile
    monkeypatch.setattr(tool, "timed_step", lambda trainer: (next(times), 1))
    monkeypatch.setattr(tool, "is_compiled", lambda model: was_compiled)
    monkeypatch.setattr(tool, "compile_blocks", lambda *arguments: works)
    run = SimpleNamespace(config=config(), device="cpu", dtype="float32")
    assert tool.other_way_ms(SimpleNamespace(run=run, model=None), 3, step_ms=100.0) == expected
