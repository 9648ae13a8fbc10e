"""tools/plan_scaling.py and the memory of ranks: compared with real batches of one rank among 64, and with figures by hand."""

from __future__ import annotations

import base64
import json
import math
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_data import ROOT, examples
from helpers_fork import run_script
from helpers_run import listening, make_run, settle, write_data
from hypothesis import given
from hypothesis import strategies as st

from config import OPTIONS, Config, resolve
from jojo.machine.ranks import Ranks
from jojo.networks import formulas
from tools import plan_scaling as tool
from tools.parts import scaling
from tools.parts.scaling import Cluster, Collective, linked_gpu, plans, split
from training import memory
from training import summary as report
from training.flags import build_parser, overrides
from training.memory import elements, memory_bytes, peak_parts, weights_bytes
from utils import UserError

SCRIPT = Path(__file__).parents[1] / "helpers" / "fake_ranks_script.py"
RANKS = 64
SMALL = "--dataset mine --device cpu --dtype float32 --model.n_head 4 --data.tokenizer bytes.tiktoken"
WIDE = "--model.n_layer 4 --model.n_embd 384 --model.block_size 64 --batch_size 1"
NARROW = "--model.n_layer 3 --model.n_embd 256 --model.block_size 64 --batch_size 1"
LONG = "--model.n_layer 3 --model.n_embd 256 --model.block_size 128 --model.vocab_size 1024 --batch_size 4"
FSDP, TWICE = "--system.parallel fsdp", "--training.gradient_accumulation_steps 128"
HSDP = f"{FSDP} --system.shard_ranks 8"
QWEN3 = "--model.architecture qwen3 --model.n_kv_head 2 --model.tie_embeddings false"
MUON = "--system.shard_ranks 2 --optimizer.kind muon"
CASES = [  # (moment of the peak, flags); each of 64 ranks has one micro-batch, or two
    ("loss", f"{WIDE} --model.vocab_size 4096"),
    (
        "embeddings",
        f"{WIDE} --model.n_layer 1 --model.n_embd 256 --model.block_size 32 --model.vocab_size 16384 {TWICE}",
    ),
    ("loss", f"{WIDE} --model.n_layer 1 --model.n_embd 128 --model.vocab_size 16384 {TWICE} {QWEN3}"),
    ("last block", f"{LONG} {FSDP} {QWEN3}"),
    ("last but one", f"{LONG} {FSDP} --training.activation_checkpointing true"),
    ("between blocks", f"{WIDE} --model.vocab_size 1024 {FSDP}"),
    ("weights", f"{WIDE} --model.vocab_size 1024 {FSDP} {TWICE}"),
    ("first block", f"{WIDE} --model.n_layer 2 --model.vocab_size 512 --model.bias true {FSDP}"),
    ("loss", f"{WIDE} --model.n_embd 300 --model.vocab_size 4096 --model.bias true --model.dropout 0.1 {HSDP} {TWICE}"),
    ("between blocks", f"{WIDE} --model.vocab_size 1024 {HSDP} {QWEN3}"),
    ("between blocks", f"{WIDE} --model.n_embd 260 --model.vocab_size 512 {FSDP}"),  # 260 rows are padded to 320
    ("update", f"{WIDE} --model.n_layer 5 --model.n_embd 260 --model.vocab_size 512 {FSDP} {MUON}"),
    ("between blocks", f"{NARROW} --model.vocab_size 512 {FSDP} --dtype bfloat16"),  # bfloat16: as on CUDA
    ("last block", f"{NARROW} --model.vocab_size 512 {HSDP} {TWICE} --dtype bfloat16 {QWEN3}"),
]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(tmp_path, monkeypatch)


def flags_of(case: str) -> str:
    return f"{SMALL} --training.gradient_accumulation_steps 64 {case}"


def config_of(case: str) -> Config:
    """The config that the script's flags give."""
    flags = shlex.split(flags_of(case))
    layers = [
        (flag, {name.split(".")[0]: {name.split(".")[1]: value}})
        for flag, name, value in overrides(build_parser().parse_args(flags), flags)
    ]
    return resolve(layers)[0]


def planned(**changes: Any) -> Config:
    """A run on CUDA in bfloat16: 8 blocks of 256 channels, batches of 64 x 4; options changed by their last names."""
    config = Config()
    names = {name.split(".")[1]: name for name in reversed(OPTIONS)}  # the optimizer's "kind" comes first
    values = {
        "n_layer": 8, "n_head": 4, "n_embd": 256, "block_size": 128, "vocab_size": 4096, "batch_size": 4,
        "gradient_accumulation_steps": 64, "device": "cuda", "dtype": "bfloat16",
    } | changes  # fmt: skip
    for name, value in values.items():
        config.set(names[name], value)
    return config


# --- against real batches -------------------------------------------------------------------------------------------


def test_a_plan_is_what_one_of_64_ranks_holds_and_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory within 4 %, collectives exactly. One test, because one start of the script serves all cases."""
    for module in (memory, scaling):  # the script does the same
        monkeypatch.setattr(module, "gathers_low", lambda config: config.system.dtype == "bfloat16")
    write_data()
    lines = [f"{base64.b64encode(bytes([n])).decode()} {n}\n" for n in range(256)]
    Path("bytes.tiktoken").write_text("".join(lines))
    ended = run_script(str(SCRIPT), *(flags_of(case) for _, case in CASES))
    assert ended.code == 0, ended.err
    for (moment, case), line in zip(CASES, ended.out.splitlines(), strict=True):
        config, found = config_of(case), json.loads(line)
        always = sum(weights_bytes(config, RANKS).values())
        estimated, _ = peak_parts(config, RANKS)
        tensors = memory_bytes(config, RANKS, tensors_only=True)
        print(f"{case}: {found['peak'] / 1e6:.1f} MB, {tensors / found['peak'] - 1:+.1%}")
        assert estimated == moment, case
        assert always == pytest.approx(found["before"], rel=0.02), case
        assert tensors == pytest.approx(found["peak"], rel=0.04), case
        assert tensors - always == pytest.approx(found["peak"] - found["before"], rel=0.04), case
        sent: dict[str, list[int]] = {}
        for one in scaling.collectives(config, RANKS, 8):
            entry = sent.setdefault(one.kind, [0, 0])
            entry[0] += one.number
            entry[1] += one.number * one.bytes
        assert sent == found["collectives"], case


# --- memory of ranks, by hand ---------------------------------------------------------------------------------------


def test_shards_are_cut_by_rows() -> None:
    assert elements({"matrix": (10, 3), "vector": (4,)}, 4) == 3 * 3 + 1
    assert elements({"matrix": (10, 3), "vector": (4,)}, 1000) == 3 + 1  # rows are never cut
    config = planned(parallel="fsdp", n_layer=1)
    C, V, T = 256, 4096, 128
    rows = (V // 64 + T // 64 + 3 * C // 64 + C // 64 + 4 * C // 64) * C + C // 64 * 4 * C + 3 * C // 64
    assert weights_bytes(config, 64) == {"weights": 4 * rows, "averages": 8 * rows, "buckets": 0}


def test_ddp_has_buckets_and_gradients_only_between_micro_batches() -> None:
    every = 4 * formulas(planned().model).n_parameters
    assert weights_bytes(planned(), 64)["buckets"] == every
    one, two = (memory.batch_bytes(planned(gradient_accumulation_steps=steps), 64)["loss"] for steps in (64, 128))
    assert two["gradients"] - one["gradients"] == every and one["gradients"] == 0
    alone = memory.batch_bytes(planned(gradient_accumulation_steps=2))["loss"]
    assert alone == two


def test_on_cuda_blocks_are_gathered_in_bfloat16_and_not_cast() -> None:
    low, full = (
        memory.batch_bytes(planned(parallel="fsdp", dtype=dtype), 8)["last block"] for dtype in ("bfloat16", "float32")
    )
    block = elements(formulas(planned().model).block)
    assert full["gathered weights"] - low["gathered weights"] == 2 * 2 * block
    assert low["casts of weights"] == 0 < memory.batch_bytes(planned(), 8)["last block"]["casts of weights"]


def test_weights_are_sharded_over_shard_ranks_and_not_on_one_gpu() -> None:
    parts = weights_bytes(planned(parallel="fsdp", shard_ranks=8), 64)
    assert parts == weights_bytes(planned(parallel="fsdp"), 8) != weights_bytes(planned(parallel="fsdp"), 64)
    assert peak_parts(planned(parallel="fsdp")) == peak_parts(planned())


@given(st.integers(1, 24), st.sampled_from([64, 100, 768]), st.integers(1, 12), st.integers(1, 3), st.booleans())
@examples(60)
def test_more_ranks_never_have_more_weights_each(layers: int, width: int, power: int, micro: int, bias: bool) -> None:
    n = 2**power
    shape = {"n_layer": layers, "n_embd": width, "bias": bias, "parallel": "fsdp"}
    fewer, more = (weights_bytes(planned(**shape), ranks) for ranks in (n, 2 * n))
    assert all(more[name] <= fewer[name] for name in fewer)
    once, again = (planned(**shape, gradient_accumulation_steps=steps * n) for steps in (micro, micro + 1))
    assert memory_bytes(once, n) <= memory_bytes(again, n)


def test_the_summary_shows_what_a_rank_takes_with_fsdp() -> None:
    write_data()
    run = make_run("--system.parallel", "fsdp")
    run.ranks = Ranks(0, 2, 0, 2)
    estimated = memory_bytes(run.config, 2, tensors_only=True)
    assert estimated < memory_bytes(run.config, 2) - memory.PROGRAM_BYTES
    assert report._memory(run).startswith(f"about {report.byte_count(estimated)} of tensors at the peak of each rank")


# --- what is sent, by hand ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, ranks, nodes, here, away",
    [
        ("all-reduce", 8, 1, 2 * 7 / 8, 0.0),
        ("all-gather", 8, 1, 7 / 8, 0.0),
        ("reduce-scatter", 16, 2, 15 / 16 * 7 / 8, 15 / 16 / 8),  # one of eight rings leaves at this GPU
        ("all-reduce", 4, 4, 0.0, 2 * 3 / 4),  # one rank on each machine
        ("all-to-all", 16, 2, 7 / 16, 8 / 16),  # a sixteenth to each other rank
        ("all-gather", 1, 1, 0.0, 0.0),
    ],
)
def test_a_ring_sends(kind: str, ranks: int, nodes: int, here: float, away: float) -> None:
    assert Collective(kind, "", 1000, ranks, nodes).sent() == pytest.approx((1000 * here, 1000 * away))


def test_the_slower_link_and_every_hop_take_time() -> None:
    cluster = Cluster(linked_gpu("h100"), 8, 50)
    inside = Collective("all-gather", "", 10**9, 8, 1).seconds(cluster)
    assert inside == pytest.approx({"links": 7 / 8 / (0.8 * 450), "latency": 17e-6})
    wide = Collective("all-gather", "", 10**9, 64, 8).seconds(cluster)
    assert wide == pytest.approx({"network": 63 / 64 / 8 / (0.8 * 50), "latency": 17e-6 + 7 * 6e-6})
    tree = Collective("all-reduce", "", 10**9, 64, 8).seconds(cluster)
    assert tree == pytest.approx({"network": 2 * 63 / 64 / 8 / (0.8 * 50), "latency": 17e-6 + 2 * 3 * 6e-6})


def test_buckets_are_full_or_the_last() -> None:
    config = planned(n_layer=12, n_embd=768, vocab_size=50304)
    sizes = scaling.buckets(config)
    assert sum(sizes) == 4 * formulas(config.model).n_parameters
    assert sizes[0] == 4 * (768 + 4 * 768**2)  # the last norm and a whole matrix, above 1 MB
    assert all(25 << 20 <= size < (25 << 20) + 4 * 4 * 768**2 for size in sizes[1:-1])
    assert sizes[-1] > 4 * 50304 * 768
    assert (scaling.FIRST_BUCKET_BYTES, scaling.BUCKET_BYTES) == (
        torch.distributed._DEFAULT_FIRST_BUCKET_BYTES,
        25 << 20,
    )


# --- the batch ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "gpus, sequences, shared",
    [
        (1, 480, (12, 40)),
        (8, 480, (12, 5)),
        (16, 480, (10, 3)),
        (64, 480, (8, 1)),
        (480, 480, (1, 1)),
        (481, 480, None),
    ],
)
def test_a_batch_is_shared_as_evenly_as_it_can_be(gpus: int, sequences: int, shared: tuple[int, int] | None) -> None:
    assert split(planned(batch_size=12), gpus, sequences) == shared


def test_layouts_are_those_that_the_trainer_takes() -> None:
    def names(gpus: int, **changes: Any) -> list[str]:
        return [plan.layout for plan in plans(planned(**changes), gpus, Cluster(linked_gpu("h100"), 8, 50), 256)]

    assert names(1) == ["one GPU"]
    assert names(8) == ["ddp", "fsdp"]
    assert names(64) == ["ddp", "fsdp", "8 x 8"]
    assert names(64, dtype="float16") == ["ddp"]
    assert names(512) == []


# --- time -----------------------------------------------------------------------------------------------------------


def test_one_gpu_computes_and_updates() -> None:
    config = planned(n_layer=12, n_embd=2048, block_size=1024)
    (plan,) = plans(config, 1, Cluster(linked_gpu("h100"), 8, 50, 0.5), 256)
    flops = formulas(config.model).flops_per_token * 256 * 1024
    update = 40 * formulas(config.model).n_parameters / (0.8 * 3350e9)
    assert plan.seconds == pytest.approx({"compute": flops / 989.4e12 / 0.5, "small kernels": 0.0, "update": update})
    assert plan.mfu == pytest.approx(flops / plan.step_s / 989.4e12) and 0.45 < plan.mfu < 0.5
    recomputing = replace(config, training=replace(config.training, activation_checkpointing=True))
    (longer,) = plans(recomputing, 1, Cluster(linked_gpu("h100"), 8, 50, 0.5), 256)
    assert longer.seconds["compute"] == pytest.approx(4 / 3 * plan.seconds["compute"])


def test_with_fsdp_each_gpu_updates_some_matrices_and_waits_for_both_exchanges() -> None:
    config, cluster = planned(n_layer=12, n_embd=2048, kind="muon"), Cluster(linked_gpu("h100"), 8, 50, 0.5)
    ddp, fsdp = plans(config, 8, cluster, 256)
    one = 3 * (4 * 6 + 2 * 18) * 2048**3  # q, k, v and c_proj; c_fc and the MLP's c_proj
    for plan, own in ((ddp, 12), (fsdp, 2)):
        read = (
            40 * weights_bytes(replace(config, system=replace(config.system, parallel=plan.layout)), 8)["weights"] / 4
        )
        assert plan.seconds["update"] == pytest.approx(own * one / 989.4e12 / 0.5 + read / (0.8 * 3350e9))
    sent = [call.bytes for call in fsdp.collectives if call.kind == "all-to-all"]
    assert len(sent) == 2 * 7 and sum(sent) == 2 * 2 * 2 * 12 * 2048**2  # both ways, bfloat16, two of each matrix


def test_ddp_waits_for_the_last_bucket_or_for_all_that_backward_cannot_hide() -> None:
    config, fast, slow = (
        planned(n_layer=12, n_embd=2048),
        Cluster(linked_gpu("h100"), 8, 50),
        Cluster(linked_gpu("h100"), 8, 0.01),
    )
    quick, late = (plans(config, 64, cluster, 256)[0] for cluster in (fast, slow))
    seconds = [math.fsum(one.seconds(fast).values()) for one in quick.collectives]
    exposed = sum(quick.seconds[name] for name in ("links", "network", "latency") if name in quick.seconds)
    backward = 2 / 3 * (quick.seconds["compute"] + quick.seconds["small kernels"])
    assert exposed == pytest.approx(max(sum(seconds[:-1]) - backward, seconds[-2]) + seconds[-1])
    slowly = sum(math.fsum(one.seconds(slow).values()) for one in late.collectives)
    assert late.step_s == pytest.approx(slowly + quick.step_s - exposed - backward, rel=1e-3)


@given(
    st.sampled_from([1, 2, 8, 16, 128, 1024]), st.sampled_from(sorted(scaling.LINKED)), st.sampled_from([256, 2000, 8192]),
    st.booleans(), st.floats(0.1, 100),
)  # fmt: skip
@examples(60)
def test_faster_machines_are_never_slower(gpus: int, gpu: str, sequences: int, again: bool, network: float) -> None:
    config = planned(activation_checkpointing=again)
    for name, more in (("network_gb_s", 2 * network), ("efficiency", 0.8)):
        cluster = Cluster(linked_gpu(gpu), 8, network, 0.4)
        slower, faster = (
            plans(config, gpus, cluster, sequences),
            plans(config, gpus, replace(cluster, **{name: more}), sequences),
        )
        for one, other in zip(slower, faster, strict=True):
            assert other.step_s <= one.step_s * (1 + 1e-9)
            assert min(one.seconds.values()) >= 0 and one.hidden_s >= 0 and 0 < one.mfu <= 0.4
            assert abs(one.sequences - sequences) <= gpus / 2


# --- the command ----------------------------------------------------------------------------------------------------


def ask(*flags: str) -> tuple[str, dict[str, Any]]:
    """The tool's output, and its JSON file."""
    with listening() as said:
        assert tool.main([*flags, "--json", "plan.json"]) == 0
    return "\n".join(said), json.loads(Path("plan.json").read_text())


GPT2 = ("--config", str(ROOT / "configs" / "gpt2.json"))


def test_layouts_that_fsdp_does_not_support_are_left_out_with_a_reason() -> None:
    said, written = ask(*GPT2, "--gpu", "h100", "--dtype", "float16")
    assert "fsdp and n x 8 are left out: they do not support float16" in said
    assert {plan["layout"] for plan in written["plans"]} == {"one GPU", "ddp"}
    assert "left out" not in ask(*GPT2, "--gpu", "h100")[0]


def test_the_overview_ends_where_the_batch_does() -> None:
    said, found = ask(*GPT2, "--gpu", "h100")
    assert "The batch has 480 sequences: 512 GPUs cannot share it" in said
    assert "Time was never measured" in said and "40% of the peak" in said
    assert {plan["gpus"] for plan in found["plans"]} == {2**power for power in range(9)}
    larger, _ = ask(*GPT2, "--gpu", "h100", "--batch_tokens", str(2**23))
    assert "cannot share it" not in larger and " 4,096    4,096 x 2" in larger


def test_one_number_is_shown_with_all_parts() -> None:
    said, found = ask(
        *GPT2, "--gpu", "NVIDIA A100-SXM4-80GB", "--gpus", "64", "--network", "12.5", "--gpus_per_node", "4"
    )
    assert found["cluster"]["gpu"]["memory_gb"] == 80 and found["cluster"]["network_gb_s"] == 12.5
    assert [plan["layout"] for plan in found["plans"]] == ["ddp", "fsdp", "16 x 4"]
    for plan in found["plans"]:
        assert plan["peak_bytes"] == sum(plan["memory"].values())
        assert report.byte_count(plan["peak_bytes"]) in said and f"{plan['mfu']:.1%}" in said
    assert "it loses most to" in said and "gathered weights" in said
    every, _ = ask(*GPT2, "--gpu", "h100", "--all")
    assert every.count("memory of each GPU") == 9


def test_what_does_not_fit_is_marked() -> None:
    seven = ["--model.n_layer", "32", "--model.n_embd", "4096", "--model.n_head", "32", "--batch_tokens", "1000000"]
    said, found = ask(*seven, "--gpu", "4090", "--gpus_per_node", "8")
    assert "one GPU: does not fit; it takes" in said and "GBx" in said
    assert not any(plan["fits"] for plan in found["plans"] if plan["layout"] == "ddp")
    huge, _ = ask(*seven, "--model.n_layer", "96", "--gpu", "3090", "--gpus", "8")
    assert "Nothing fits" in huge


@pytest.mark.parametrize(
    "flags, message",
    [
        ("--gpus 8", r"^--gpu is missing; name one of: b200, .*rtx 3090\.$"),
        ("--gpu h1000", r"^--gpu 'h1000' is not one that this tool knows; it knows b200, .*rtx 3090\.$"),
        ("--gpu h100 --gpus 12", r"^--gpus 12: .* multiple of --gpus_per_node, 8\.$"),
        ("--gpu h100 --gpus 1.5", r"^--gpus must be a whole number from 1 to 1,048,576, not '1.5'\.$"),
        ("--gpu h100 --gpus_per_node none", r"^--gpus_per_node must be a whole number"),
        ("--gpu h100 --network nan", r"^--network must be a number above 0"),
        ("--gpu h100 --efficiency 1.1", r"^--efficiency must be a number above 0 and at most 1, not '1.1'\.$"),
        ("--gpu h100 --batch_tokens -5", r"^--batch_tokens must be a whole number"),
        ("--gpu h100 --batch_tokens 5", r"^--batch_tokens 5 is less than one sequence of"),
        ("--gpu h100 --system.parallel fsdp", r"^--system.parallel has no meaning here"),
        ("--gpu h100 --device cpu", r"^--device has no meaning here"),
        ("--gpu h100 --resume", r"^--resume has no meaning here"),
        ("--gpu h100 --model.n_embd 100", r"not divisible by model.n_head"),
    ],
)
def test_errors_say_what_to_do(flags: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        tool.main(shlex.split(flags))


def test_the_tables_in_the_docs_are_what_the_commands_print(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs" / "distributed.md").read_text(encoding="utf-8").split("## Estimates for several machines")[1]
    blocks = re.findall(r"```\n(python tools/plan_scaling\.py (?:.|\\\n)*?[^\\])\n\n((?:.|\n)*?)```", page)
    assert len(blocks) == 2
    for command, shown in blocks:
        with listening() as said:
            assert tool.main(shlex.split(command.replace("\\\n", " "))[2:]) == 0
        assert shown.strip() == "\n".join(said).strip(), command
