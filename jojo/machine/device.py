"""The device, the dtype and torch.compile, each chosen once with its reason; the device's settings and its memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from config import SystemConfig
from utils import UserError, byte_count, log, plural

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # parameters of glibc's mallopt(3)
NOT_GLIBC = (OSError, AttributeError, TypeError)  # what ctypes raises with another C library


@dataclass(frozen=True)
class Choice:
    """A decision and its reason, as the summary prints them."""

    value: str
    reason: str


def available_devices() -> list[str]:
    """The devices of this machine that can train, best first."""
    cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return [*cuda, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def choose_device(wanted: str, from_flag: bool) -> Choice:
    """Resolve `system.device`: auto, cpu, cuda, cuda:N or mps.

    Raises UserError if this is not the name of a device, or if a flag names a device that this machine lacks. A config file
    or a checkpoint may come from another machine: if its device is missing here, this warns and chooses one.
    """
    known = available_devices()
    has_cuda = known[0] == "cuda:0"
    if wanted in known:
        return Choice(wanted, "as asked")
    if wanted != "auto" and not (wanted == "cuda" and has_cuda):
        message = f"The device '{wanted}' does not exist here; this machine has: {', '.join(known)}"
        if from_flag or not re.fullmatch(r"(cpu|cuda|mps)(:\d+)?", wanted):
            raise UserError(message + ". Use --device auto to let Jojo choose.")
        log.warning("%s. Continuing with device auto.", message)
    if has_cuda:
        most_free = max(range(torch.cuda.device_count()), key=lambda index: torch.cuda.mem_get_info(index)[0])
        return Choice(f"cuda:{most_free}", "the CUDA device with the most free memory")
    return Choice(known[0], "Apple GPU" if known[0] == "mps" else "no GPU found")


def choose_rank_device(wanted: str, from_flag: bool, local_rank: int, local_world_size: int, sees_all: bool) -> Choice:
    """Resolve `system.device` for several ranks: on CUDA, each rank gets the GPU with its local number.

    `sees_all` is False if the launcher may show each process only its own GPU. Raises UserError if a flag names one
    device for all ranks, or if the machine has fewer GPUs than ranks.
    """
    if from_flag and (wanted.startswith("cuda:") or wanted == "mps"):
        raise UserError(f"--device {wanted} is one device for several ranks; use --device cuda (one for each) or cpu.")
    gpus = sum(device.startswith("cuda") for device in available_devices())
    if wanted == "cpu" or not gpus:
        return choose_device("cpu" if wanted in ("auto", "mps") else wanted, from_flag)
    if gpus == 1 and not sees_all:
        return Choice("cuda:0", "the GPU that this process sees")
    if local_world_size > gpus:
        message = f"{local_world_size} ranks on a machine with {plural(gpus, 'GPU')}"
        raise UserError(f"{message}; use torchrun --nproc_per_node {gpus}, or --device cpu.")
    return Choice(f"cuda:{local_rank}", "this rank's GPU")


def cpu_is_fast_at_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware (AVX512_BF16 or AMX). Otherwise it is emulated, slowly."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def choose_dtype(wanted: str, device: str, strict: bool = True) -> Choice:
    """Resolve `system.dtype` (auto, float32, bfloat16 or float16) for a device.

    Raises UserError for bfloat16 on a GPU that lacks it, and for float16 on a CPU. If not `strict`, float16 on a CPU only
    warns and becomes auto: a file chose float16 for a GPU, and this machine has none.
    """
    kind = device.partition(":")[0]
    if wanted == "float16" and kind == "cpu":
        message = "float16 on a CPU is hundreds of times slower than float32"
        if strict:
            raise UserError(f"{message}; use --dtype auto, bfloat16 or float32.")
        log.warning("%s. Continuing with dtype auto.", message)
        wanted = "auto"
    if wanted == "bfloat16" and kind == "cuda" and not _cuda_has_bfloat16(device, including_emulation=True):
        raise UserError(f"{torch.cuda.get_device_name(device)} has no bfloat16; use --dtype float16 or float32.")
    if wanted != "auto":
        return Choice(wanted, "as asked")
    if kind == "cuda" and _cuda_has_bfloat16(device, including_emulation=False):
        return Choice("bfloat16", "this GPU has bfloat16 tensor cores")
    if kind == "cpu" and cpu_is_fast_at_bfloat16():
        return Choice("bfloat16", "this processor has fast bfloat16")
    return Choice("float32", f"no fast bfloat16 on this {'processor' if kind == 'cpu' else 'device'}")


def _cuda_has_bfloat16(device: str, including_emulation: bool) -> bool:
    with torch.cuda.device(device):  # torch checks the current device, which may be another GPU
        return torch.cuda.is_bf16_supported(including_emulation)


def choose_compile(wanted: bool | None, device: str) -> Choice:
    """Whether to torch.compile, "yes" or "no". If `wanted` is None, only on CUDA: there it is faster and has a compiler."""
    if wanted is None:
        return Choice("yes", "CUDA") if device.startswith("cuda") else Choice("no", "it gains little on this device")
    if wanted and device == "cpu" and not any(map(shutil.which, ("g++", "clang++", "cl"))):
        log.warning("torch.compile needs a C++ compiler on a CPU. None was found; continuing without torch.compile.")
        return Choice("no", "no C++ compiler")
    return Choice("yes" if wanted else "no", "as asked")


def set_up_device(system: SystemConfig, device: str) -> None:
    """Apply the device's settings: on CUDA, TF32 and the share of memory; on a CPU, that freed memory is reused."""
    if device == "cpu":
        keep_freed_memory()
    if not device.startswith("cuda"):
        return
    torch.cuda.set_device(device)
    torch.backends.cuda.matmul.allow_tf32 = system.allow_tf32_matmul
    torch.backends.cudnn.allow_tf32 = system.allow_tf32_cudnn
    give_back_memory(system, device)
    if system.memory_fraction is not None:
        torch.cuda.set_per_process_memory_fraction(system.memory_fraction, device)


def keep_freed_memory() -> None:
    """Make glibc reuse large blocks instead of returning them to the system.

    Every batch frees and allocates the same hundreds of megabytes. The system would clear each page that it hands out.
    """
    with contextlib.suppress(*NOT_GLIBC):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, 1 << 30) or mallopt(M_MMAP_THRESHOLD, 32 << 20)  # older versions allow no more
        mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def give_back_memory(system: SystemConfig, device: str) -> None:
    """Return freed memory to the system: on a CPU always, on CUDA with `optimize_memory`.

    Call it before work with tensors of other sizes. They would not fit into the freed pieces, which would stay unused.
    """
    if system.optimize_memory and device.startswith("cuda"):
        torch.cuda.empty_cache()
    if device == "cpu":
        with contextlib.suppress(*NOT_GLIBC):
            ctypes.CDLL(None).malloc_trim(0)


def autocast(device: str, dtype: str) -> torch.autocast:
    """Mixed precision: weights stay in float32, matrix products run in `dtype`.

    With "float32", autocast is off, even inside another autocast. The backward pass runs that way.
    """
    low = None if dtype == "float32" else getattr(torch, dtype)
    return torch.autocast(device.partition(":")[0], dtype=low, enabled=low is not None)


def uncompiled() -> contextlib.AbstractContextManager[object]:
    """Run compiled modules without compilation, for shapes that occur too rarely to compile for them."""
    if "torch._dynamo" not in sys.modules:  # nothing is compiled, and set_stance would import the compiler
        return contextlib.nullcontext()
    return torch.compiler.set_stance("force_eager")


def describe_device(device: str) -> str:
    """A device for the summary: its name, and its memory or threads."""
    if device.startswith("cuda"):
        return f"{device} ({torch.cuda.get_device_name(device)}, {byte_count(total_memory_bytes(device) or 0)})"
    return f"cpu ({plural(torch.get_num_threads(), 'thread')})" if device == "cpu" else device


def peak_memory_bytes(device: str) -> int | None:
    """The most memory used so far: allocations on the GPU, or on a CPU this process's resident memory. None: unknown."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    if peak := _linux_bytes("/proc/self/status", "VmHWM"):  # getrusage would include the process that started this one
        return peak
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def total_memory_bytes(device: str) -> int | None:
    """The GPU's memory, or this machine's. None: unknown."""
    if device.startswith("cuda"):
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return None


def available_memory_bytes() -> int | None:
    """Main memory that this process can still allocate. None: unknown.

    On Linux: memory that is free or can be freed, within the limits of control groups, which containers use. Elsewhere: all."""
    available = _linux_bytes("/proc/meminfo", "MemAvailable")
    return total_memory_bytes("cpu") if available is None else min([available, *_cgroup_available()])


def memory_in_use_bytes(device: str) -> int | None:
    """The memory of a device that all programs together use. None: unknown."""
    if device.startswith("cuda"):
        free, whole = torch.cuda.mem_get_info(device)
        return whole - free
    total, available = total_memory_bytes(device), available_memory_bytes()
    return total - available if total and available else None


def _linux_bytes(table: str, key: str) -> int | None:
    """A value from one of Linux's tables, which are in kB. None: the table or the value is missing."""
    found = re.search(rf"^{key}:\s*(\d+)", Path(table).read_text(), re.MULTILINE) if Path(table).exists() else None
    return int(found[1]) * 1024 if found else None


def _cgroup_available(own: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> Iterator[int]:
    """Bytes that each control group of this process still allows; see cgroups(7)."""
    versions = {  # version 2 and version 1, by the controllers in a line of /proc/self/cgroup
        "": (root, "memory.max", "memory.current"),
        "memory": (root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    }
    for line in own.read_text().splitlines() if own.exists() else []:
        _, controllers, place = line.split(":", 2)
        if controllers not in versions:
            continue
        base, *names = versions[controllers]
        group = base / place.strip("/")
        for folder in (group, *group.parents):  # a container sees its own group as the outermost one
            with contextlib.suppress(OSError, ValueError):  # the group is not visible here, or has no limit ("max")
                limit, used = (int((folder / name).read_text()) for name in names)
                stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                file_cache = int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))  # can be freed
                yield max(0, limit - max(0, used - file_cache))
            if folder == base:
                break
