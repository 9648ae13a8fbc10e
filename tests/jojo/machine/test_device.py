"""Tests of device.py: which device, dtype and compilation are chosen, on pretended hardware."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers_cli import messages
from helpers_data import ROOT

from config import SystemConfig
from jojo.machine import device
from jojo.machine.device import choose_compile, choose_device, choose_dtype, choose_rank_device
from utils import UserError

Patch = pytest.MonkeyPatch


def pretend(patch: Patch, cuda_free: tuple[int, ...] = (), mps: bool = False, bfloat16: bool = True) -> None:
    """Pretend that the machine has CUDA devices with this much free memory, or an Apple GPU."""
    patch.setattr(torch.cuda, "is_available", lambda: bool(cuda_free))
    patch.setattr(torch.cuda, "device_count", lambda: len(cuda_free))
    patch.setattr(torch.cuda, "mem_get_info", lambda index: (cuda_free[index], 10**12))
    patch.setattr(torch.cuda, "get_device_name", lambda *_: "Old GPU")
    patch.setattr(torch.cuda, "device", lambda name: contextlib.nullcontext())
    patch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bfloat16)
    patch.setattr(torch.backends.mps, "is_available", lambda: mps)


def pretend_cpu(patch: Patch, avx512_bf16: bool = False, amx: bool = False) -> None:
    patch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    patch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)


# --- device ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cuda_free", "mps", "chosen"),
    [
        ((), False, "cpu"),
        ((), True, "mps"),
        ((5,), False, "cuda:0"),
        ((5, 9, 7), True, "cuda:1"),
        ((9, 5), False, "cuda:0"),
    ],
)
def test_auto_takes_the_cuda_device_with_most_free_memory_then_mps_then_the_cpu(
    monkeypatch: Patch, cuda_free: tuple[int, ...], mps: bool, chosen: str
) -> None:
    pretend(monkeypatch, cuda_free, mps)
    choice = choose_device("auto", from_flag=True)
    assert choice.value == chosen
    assert choice.reason


def test_cuda_without_a_number_is_the_one_with_most_free_memory(monkeypatch: Patch) -> None:
    pretend(monkeypatch, (1, 2, 3))
    assert choose_device("cuda", from_flag=False).value == "cuda:2"


@pytest.mark.parametrize("wanted", ["cpu", "cuda:0", "cuda:1", "mps"])
def test_a_device_that_exists_is_used_as_asked(monkeypatch: Patch, wanted: str) -> None:
    pretend(monkeypatch, (1, 2), mps=True)
    assert choose_device(wanted, from_flag=True).value == wanted


@pytest.mark.parametrize("wanted", ["cuda", "cuda:0", "mps"])
def test_a_missing_device_named_by_a_flag_is_an_error(monkeypatch: Patch, wanted: str) -> None:
    pretend(monkeypatch)
    with pytest.raises(UserError) as caught:
        choose_device(wanted, from_flag=True)
    assert f"'{wanted}'" in str(caught.value) and "this machine has: cpu" in str(caught.value)


def test_the_error_for_a_missing_cuda_number_lists_the_devices(monkeypatch: Patch) -> None:
    pretend(monkeypatch, (1, 2))
    with pytest.raises(UserError) as caught:
        choose_device("cuda:2", from_flag=True)
    assert "cuda:0, cuda:1, cpu" in str(caught.value)


@pytest.mark.parametrize(
    ("wanted", "cuda_free", "mps", "instead"),
    [
        ("cuda", (), False, "cpu"),
        ("cuda:3", (5, 9), False, "cuda:1"),
        ("mps", (), False, "cpu"),
        ("cuda", (), True, "mps"),
    ],
)
def test_a_missing_device_named_by_a_file_warns_and_falls_back(
    monkeypatch: Patch, wanted: str, cuda_free: tuple[int, ...], mps: bool, instead: str
) -> None:
    pretend(monkeypatch, cuda_free, mps)
    with messages() as said:
        assert choose_device(wanted, from_flag=False).value == instead
    assert len(said) == 1 and said[0].startswith("WARNING") and f"'{wanted}'" in said[0]


@pytest.mark.parametrize("wanted", ["", "gpu", "cuda:x", "cuda:-1", "CUDA", "tpu:0", "meta"])
def test_a_word_that_is_not_a_device_is_an_error_in_a_flag_and_in_a_file(monkeypatch: Patch, wanted: str) -> None:
    pretend(monkeypatch, (1,))
    for from_flag in (True, False):
        with pytest.raises(UserError):
            choose_device(wanted, from_flag)


# --- dtype ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("avx512_bf16", "amx", "chosen"),
    [(False, False, "float32"), (True, False, "bfloat16"), (False, True, "bfloat16"), (True, True, "bfloat16")],
)
def test_auto_on_a_cpu_is_bfloat16_only_if_the_hardware_multiplies_it(
    monkeypatch: Patch, avx512_bf16: bool, amx: bool, chosen: str
) -> None:
    pretend_cpu(monkeypatch, avx512_bf16, amx)
    choice = choose_dtype("auto", "cpu")
    assert choice.value == chosen and "bfloat16" in choice.reason


@pytest.mark.parametrize(("supported", "chosen"), [(True, "bfloat16"), (False, "float32")])
def test_auto_on_cuda_follows_the_device(monkeypatch: Patch, supported: bool, chosen: str) -> None:
    pretend(monkeypatch, (1,), bfloat16=supported)
    assert choose_dtype("auto", "cuda:0").value == chosen


def test_bfloat16_that_is_only_emulated_is_not_chosen(monkeypatch: Patch) -> None:
    pretend(monkeypatch, (1,))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert choose_dtype("auto", "cuda:0").value == "float32"


def test_bfloat16_is_checked_on_the_chosen_device_and_not_on_the_first(monkeypatch: Patch) -> None:
    pretend(monkeypatch, (5, 9))
    current = ["cuda:0"]  # an old GPU beside a new one

    @contextlib.contextmanager
    def on(name: str) -> Iterator[None]:
        current.append(name)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device", on)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: current[-1] == "cuda:1")
    assert choose_dtype("auto", "cuda:1").value == choose_dtype("bfloat16", "cuda:1").value == "bfloat16"
    assert choose_dtype("auto", "cuda:0").value == "float32"
    with pytest.raises(UserError):
        choose_dtype("bfloat16", "cuda:0")
    assert current == ["cuda:0"]


def test_auto_on_mps_is_float32() -> None:
    assert choose_dtype("auto", "mps").value == "float32"


@pytest.mark.parametrize(
    ("wanted", "on"), [("float32", "cpu"), ("bfloat16", "cpu"), ("float16", "cuda:0"), ("float16", "mps")]
)
def test_a_dtype_that_works_is_used_as_asked(monkeypatch: Patch, wanted: str, on: str) -> None:
    pretend_cpu(monkeypatch)
    assert choose_dtype(wanted, on).value == wanted


def test_float16_on_a_cpu_is_refused_with_the_reason() -> None:
    with pytest.raises(UserError) as caught:
        choose_dtype("float16", "cpu")
    assert "slower" in str(caught.value) and "float32" in str(caught.value)


def test_float16_from_a_file_on_a_cpu_warns_and_chooses(monkeypatch: Patch) -> None:
    pretend_cpu(monkeypatch)
    with messages() as said:
        assert choose_dtype("float16", "cpu", strict=False).value == "float32"
    assert len(said) == 1 and said[0].startswith("WARNING") and "float16" in said[0]


def test_bfloat16_on_a_gpu_without_it_is_refused_by_name(monkeypatch: Patch) -> None:
    pretend(monkeypatch, (1,), bfloat16=False)
    with pytest.raises(UserError) as caught:
        choose_dtype("bfloat16", "cuda:0")
    assert "Old GPU" in str(caught.value) and "float16" in str(caught.value)


# --- compile --------------------------------------------------------------------------------------------------------


def test_null_compiles_only_on_cuda() -> None:
    assert [choose_compile(None, on).value for on in ("cuda:0", "cpu", "mps")] == ["yes", "no", "no"]


@pytest.mark.parametrize("on", ["cuda:0", "cpu", "mps"])
def test_false_never_compiles(on: str) -> None:
    assert choose_compile(False, on).value == "no"


def test_true_compiles_if_there_is_a_compiler(monkeypatch: Patch) -> None:
    monkeypatch.setattr(device.shutil, "which", lambda name: "/usr/bin/g++" if name == "g++" else None)
    assert choose_compile(True, "cpu").value == "yes"
    assert choose_compile(True, "cuda:0").value == "yes"


def test_a_cpu_without_a_compiler_warns_once_and_continues(monkeypatch: Patch) -> None:
    monkeypatch.setattr(device.shutil, "which", lambda name: None)
    with messages() as said:
        assert choose_compile(True, "cpu").value == "no"
    assert len(said) == 1 and "compiler" in said[0]


# --- settings -----------------------------------------------------------------------------------------------------


@pytest.fixture
def tf32() -> Iterator[None]:
    """Restores torch's TF32 switches after the test."""
    switches = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [switch.allow_tf32 for switch in switches]
    yield
    for switch, value in zip(switches, before, strict=True):
        switch.allow_tf32 = value


@pytest.mark.usefixtures("tf32")
@pytest.mark.parametrize("matmul", [True, False])
def test_cuda_settings_are_applied_to_the_device(monkeypatch: Patch, matmul: bool) -> None:
    done: list[object] = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda name: done.append(("device", name)))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: done.append("emptied"))
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda share, name: done.append(("share", share, name))
    )
    system = SystemConfig(
        optimize_memory=True, memory_fraction=0.5, allow_tf32_matmul=matmul, allow_tf32_cudnn=not matmul
    )
    device.set_up_device(system, "cuda:1")
    assert done == [("device", "cuda:1"), "emptied", ("share", 0.5, "cuda:1")]
    assert torch.backends.cuda.matmul.allow_tf32 is matmul
    assert torch.backends.cudnn.allow_tf32 is not matmul
    device.give_back_memory(system, "cuda:1")
    device.give_back_memory(SystemConfig(), "cuda:1")
    assert done.count("emptied") == 2


def test_a_cpu_needs_no_settings(monkeypatch: Patch) -> None:
    monkeypatch.setattr(torch.cuda, "set_device", lambda name: pytest.fail("there is no CUDA device"))
    device.set_up_device(SystemConfig(optimize_memory=True, memory_fraction=0.5), "cpu")
    device.give_back_memory(SystemConfig(optimize_memory=True), "cpu")


def test_autocast_lowers_matrix_products_and_float32_turns_it_off() -> None:
    ones = torch.ones(2, 2)
    with device.autocast("cpu", "bfloat16"):
        assert (ones @ ones).dtype == torch.bfloat16
        with device.autocast("cpu", "float32"):
            assert (ones @ ones).dtype == torch.float32


def test_uncompiled_does_not_import_the_compiler() -> None:
    code = "import sys\nfrom jojo.machine import device\nwith device.uncompiled(): assert 'torch._dynamo' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_compiled_function_runs_uncompiled_inside_uncompiled() -> None:
    calls = []
    double = torch.compile(lambda x: 2 * x, backend=lambda graph, inputs: calls.append(1) or graph.forward)
    with device.uncompiled():
        assert double(torch.ones(1)) == 2 and not calls
    assert double(torch.ones(1)) == 2 and calls


def test_facts_about_this_machine() -> None:
    assert device.available_devices()[-1] == "cpu"
    peak = device.peak_memory_bytes("cpu")
    assert peak is None or 10**7 < peak < 10**13  # this process holds torch: tens of megabytes at least
    assert device.describe_device("cpu").startswith("cpu (")


# --- memory ---------------------------------------------------------------------------------------------------------

GROUPS = {  # text of /proc/self/cgroup, files below the root, and the bytes that each group still allows
    "no group": ("", {}, []),
    "version 2, with a limit": (
        "0::/job\n",
        {"job/memory.max": "1000", "job/memory.current": "600", "job/memory.stat": "anon 5\ninactive_file 150\n"},
        [550],
    ),
    "version 2, without a limit": (
        "0::/job\n",
        {"job/memory.max": "max", "job/memory.current": "600", "job/memory.stat": "inactive_file 1\n"},
        [],
    ),
    "version 2, with a limit in an outer group": (
        "0::/job/part\n",
        {
            "job/part/memory.max": "max", "job/part/memory.current": "6", "job/part/memory.stat": "",
            "job/memory.max": "1000", "job/memory.current": "1200", "job/memory.stat": "",
        },
        [0],
    ),
    "version 2, as a container sees it": (
        "0::/\n", {"memory.max": "1000", "memory.current": "600", "memory.stat": "inactive_file 700\n"}, [1000]
    ),
    "version 1": (
        "5:cpu:/x\n4:memory:/job\n0::/\n",
        {
            "memory/job/memory.limit_in_bytes": "900", "memory/job/memory.usage_in_bytes": "300",
            "memory/job/memory.stat": "inactive_file 1\ntotal_inactive_file 100\n",
        },
        [700],
    ),
    "version 1, with a path that only the host knows": (
        "4:memory:/docker/abc\n",
        {
            "memory/memory.limit_in_bytes": "900", "memory/memory.usage_in_bytes": "300",
            "memory/memory.stat": "total_inactive_file 0\n",
        },
        [600],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GROUPS)
def test_the_memory_that_control_groups_allow(tmp_path: Path, name: str) -> None:
    own, files, allowed = GROUPS[name]
    (tmp_path / "own").write_text(own)
    for place, text in files.items():
        (tmp_path / "root" / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / place).write_text(text)
    assert list(device._cgroup_available(tmp_path / "own", tmp_path / "root")) == allowed
    assert list(device._cgroup_available(tmp_path / "missing", tmp_path / "root")) == []


def test_available_memory_is_limited_by_the_system_and_by_control_groups(monkeypatch: Patch) -> None:
    real, total = device.available_memory_bytes(), device.total_memory_bytes("cpu")
    assert real and total and 0 < real <= total
    monkeypatch.setattr(device, "_cgroup_available", lambda: iter([real * 2, 5]))
    assert device.available_memory_bytes() == 5


def test_memory_in_use_is_the_total_without_the_free_memory(monkeypatch: Patch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda name: {"cuda:1": (30, 100)}[name])
    assert device.memory_in_use_bytes("cuda:1") == 70
    monkeypatch.setattr(device, "total_memory_bytes", lambda name: 100)
    monkeypatch.setattr(device, "available_memory_bytes", lambda: 80)
    assert device.memory_in_use_bytes("cpu") == 20
    monkeypatch.setattr(device, "total_memory_bytes", lambda name: None)
    assert device.memory_in_use_bytes("cpu") is None


def test_an_older_glibc_gets_a_smaller_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def mallopt(parameter: int, value: int) -> int:
        asked.append((parameter, value))
        return int(value <= 32 << 20 or parameter == device.M_TRIM_THRESHOLD)

    monkeypatch.setattr(device.ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    device.keep_freed_memory()
    assert [value for parameter, value in asked if parameter == device.M_MMAP_THRESHOLD] == [1 << 30, 32 << 20]


@pytest.mark.parametrize(
    ("wanted", "by_flag", "known", "expected"),
    [
        ("auto", False, ["cuda:0", "cuda:1", "cpu"], "cuda:1"),
        ("cuda", True, ["cuda:0", "cuda:1", "cpu"], "cuda:1"),
        ("cuda:0", False, ["cuda:0", "cuda:1", "cpu"], "cuda:1"),  # from a checkpoint
        ("cpu", True, ["cuda:0", "cuda:1", "cpu"], "cpu"),
        ("auto", False, ["mps", "cpu"], "cpu"),
        ("cuda:1", True, ["cuda:0", "cuda:1", "cpu"], "--device cuda:1 is one device for several ranks"),
        ("mps", True, ["mps", "cpu"], "--device mps is one device"),
        ("auto", False, ["cuda:0", "cpu"], "2 ranks on a machine with 1 GPU; use torchrun --nproc_per_node 1"),
        ("cuda", True, ["cpu"], "The device 'cuda' does not exist here"),
    ],
)
def test_every_rank_has_its_own_gpu(
    wanted: str, by_flag: bool, known: list[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "available_devices", lambda: known)
    if " " in expected:
        with pytest.raises(UserError, match=re.escape(expected)):
            choose_rank_device(wanted, by_flag, 1, 2, sees_all=True)
    else:
        assert choose_rank_device(wanted, by_flag, 1, 2, sees_all=True).value == expected


def test_a_launcher_may_show_each_rank_only_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "available_devices", lambda: ["cuda:0", "cpu"])
    assert choose_rank_device("auto", False, 1, 2, sees_all=False).value == "cuda:0"
    monkeypatch.setattr(device, "available_devices", lambda: ["cuda:0", "cuda:1", "cpu"])
    assert choose_rank_device("auto", False, 1, 2, sees_all=False).value == "cuda:1"
    with pytest.raises(UserError, match="3 ranks on a machine with 2 GPUs"):
        choose_rank_device("auto", False, 1, 3, sees_all=False)
