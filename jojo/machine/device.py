"""The choices a machine forces, made once: device, precision, compile. Everything else just uses the answer."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from config import SystemConfig
from utils import UserError, byte_count, log, plural

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # parameters of glibc's mallopt(3)


@dataclass(frozen=True)
class Choice:
    """A decision and why it was taken, as the summary prints it."""

    value: str
    reason: str


def cuda_device_with_most_free_memory() -> str:
    """ "cuda:N" of the device with most free memory right now."""
    free = [torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count())]
    return f"cuda:{free.index(max(free))}"


def available_devices() -> list[str]:
    """Devices of this machine that training can use, best first."""
    cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return [*cuda, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def choose_device(wanted: str, from_flag: bool) -> Choice:
    """Resolve `system.device`.

    Args:
        wanted: auto, cpu, cuda, cuda:N or mps.
        from_flag: asked for on the command line: then its absence is an error. A config file or checkpoint may come
            from another machine: then it is a warning, and auto.

    Raises:
        UserError: a device that is not one, or that a flag named and this machine lacks.
    """
    known = available_devices()
    if wanted != "auto":
        if wanted in known or (wanted == "cuda" and known[0].startswith("cuda")):
            return Choice(cuda_device_with_most_free_memory() if wanted == "cuda" else wanted, "as asked")
        message = f"The device '{wanted}' does not exist here; this machine has: {', '.join(known)}"
        kind, _, index = wanted.partition(":")
        if from_flag or kind not in ("cpu", "cuda", "mps") or (index and not index.isdigit()):
            raise UserError(message + ". Use --device auto to let Jojo choose.")
        log.warning("%s. Going on as with device auto.", message)
    if known[0].startswith("cuda"):
        return Choice(cuda_device_with_most_free_memory(), "the CUDA device with most free memory")
    if "mps" in known:
        return Choice("mps", "Apple GPU")
    return Choice("cpu", "no GPU found")


def choose_rank_device(
    wanted: str, from_flag: bool, local_rank: int, local_world_size: int, sees_all: bool = True
) -> Choice:
    """Resolve `system.device` where ranks train together: on CUDA each has the GPU with its local number.

    Args:
        wanted: as configured.
        from_flag: a flag asks for it.
        local_rank: the rank's number among those on its machine.
        local_world_size: how many those are.
        sees_all: False: the launcher may show each process a GPU of its own only.

    Raises:
        UserError: one GPU was named for all, there are too few, or they are Apple's, which cannot work together.
    """
    if from_flag and (wanted.startswith("cuda:") or wanted == "mps"):
        raise UserError(f"--device {wanted} is one device for several ranks; use --device cuda (each its own) or cpu.")
    gpus = sum(device.startswith("cuda") for device in available_devices())
    if wanted == "cpu" or not gpus:
        return choose_device("cpu" if wanted in ("auto", "mps") else wanted, from_flag)
    if gpus == 1 and not sees_all:
        return Choice("cuda:0", "the GPU that this process sees")
    if local_world_size > gpus:
        raise UserError(
            f"{local_world_size} ranks on a machine with {gpus} GPU{'s' if gpus > 1 else ''}; use torchrun "
            f"--nproc_per_node {gpus}, or --device cpu."
        )
    return Choice(f"cuda:{local_rank}", "this rank's GPU")


def cpu_is_fast_at_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware (AVX512_BF16 or AMX); elsewhere it is emulated, slowly."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def choose_dtype(wanted: str, device: str, strict: bool = True) -> Choice:
    """Resolve `system.dtype` for a device.

    Args:
        wanted: auto, float32, bfloat16 or float16.
        device: the resolved device.
        strict: refuse float16 on a CPU; else (a file meant it for a GPU that is not here) warn and choose.

    Raises:
        UserError: float16 on a CPU, or bfloat16 on a GPU that lacks it.
    """
    kind = device.partition(":")[0]
    if wanted == "float16" and kind == "cpu":
        message = "float16 on a CPU is hundreds of times slower than float32"
        if strict:
            raise UserError(f"{message}; use --dtype auto, bfloat16 or float32.")
        log.warning("%s. Going on as with dtype auto.", message)
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
    """Whether this CUDA device multiplies bfloat16; torch asks the current one, which may be another model."""
    with torch.cuda.device(device):
        return torch.cuda.is_bf16_supported(including_emulation)


def cache_dtype(device: torch.device, weights: torch.dtype) -> torch.dtype:
    """What keys and values are kept in: as the weights, but on a CPU in float32, where one query is fastest so."""
    return torch.float32 if device.type == "cpu" else weights


def choose_compile(wanted: bool | None, device: str) -> Choice:
    """Whether to torch.compile, "yes" or "no". null means: on CUDA, where it wins and its compiler is at hand."""
    if wanted is None:
        return Choice("yes", "CUDA") if device.startswith("cuda") else Choice("no", "it gains little on this device")
    if wanted and device == "cpu" and not (shutil.which("g++") or shutil.which("clang++") or shutil.which("cl")):
        log.warning("No C++ compiler found, which torch.compile needs on a CPU. Going on without it.")
        return Choice("no", "no C++ compiler")
    return Choice("yes" if wanted else "no", "as asked")


def set_up_device(system: SystemConfig, device: str) -> None:
    """Apply the settings that belong to the device: TF32, memory share, on a CPU how memory is kept."""
    if device == "cpu":
        keep_freed_memory()
    if not device.startswith("cuda"):
        return
    torch.cuda.set_device(device)
    torch.backends.cuda.matmul.allow_tf32 = system.allow_tf32_matmul
    torch.backends.cudnn.allow_tf32 = system.allow_tf32_cudnn
    if system.optimize_memory:
        torch.cuda.empty_cache()
    if system.memory_fraction is not None:
        torch.cuda.set_per_process_memory_fraction(system.memory_fraction, device)


def keep_freed_memory() -> None:
    """Have glibc reuse large blocks instead of returning them to the system after every operation.

    Each step frees and allocates the same hundreds of megabytes; fresh from the system, every page of them is cleared
    again on first touch. Other C libraries manage without.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(M_MMAP_THRESHOLD, 1 << 30) or mallopt(M_MMAP_THRESHOLD, 32 << 20)  # what older versions allow
            mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def give_back_memory(system: SystemConfig, device: str) -> None:
    """Give what was freed back to the system: on a CPU always, on CUDA where `optimize_memory` asks for it.

    For when what follows allocates otherwise than what was before: freed pieces that then fit nothing would stay.
    """
    if system.optimize_memory and device.startswith("cuda"):
        torch.cuda.empty_cache()
    if sys.platform == "linux" and device == "cpu":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def autocast(device: str, dtype: str) -> contextlib.AbstractContextManager[object]:
    """Mixed precision for the forward pass: weights stay float32, matrix products run in `dtype`."""
    if dtype == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.partition(":")[0], dtype=getattr(torch, dtype))


def no_autocast(device: str) -> contextlib.AbstractContextManager[object]:
    """Inside autocast: operations as they are written, as the backward pass wants them."""
    return torch.autocast(device.partition(":")[0], enabled=False)


def peak_memory_bytes(device: str) -> int | None:
    """Most memory used so far: the GPU's allocations, or on a CPU this process's resident memory. None: unknown."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    return peak_resident_bytes()


def describe_device(device: str) -> str:
    """What the summary says of a device: its name and memory."""
    if device.startswith("cuda"):
        facts = torch.cuda.get_device_properties(device)
        return f"{device} ({facts.name}, {byte_count(facts.total_memory)})"
    return f"cpu ({plural(torch.get_num_threads(), 'thread')})" if device == "cpu" else device


def total_memory_bytes(device: str) -> int | None:
    """All the memory there is: the GPU's, or this machine's. None: unknown."""
    if device.startswith("cuda"):
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return None


def available_memory_bytes() -> int | None:
    """Main memory that can be had now: on Linux what is free or can be freed, within the limits of control groups (as
    containers have them); elsewhere all there is. None: unknown."""
    try:
        facts = Path("/proc/meminfo").read_text()
        available = next(int(line.split()[1]) * 1024 for line in facts.splitlines() if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return total_memory_bytes("cpu")
    return min([available, *_cgroup_rooms()])


def memory_in_use_bytes(device: str) -> int | None:
    """What all programs together have taken of a device's memory. None: unknown."""
    if device.startswith("cuda"):
        free, all_there_is = torch.cuda.mem_get_info(device)
        return all_there_is - free
    total, available = total_memory_bytes(device), available_memory_bytes()
    return total - available if total and available else None


def _cgroup_rooms(own: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> Iterator[int]:
    """What each control group that this process is in still allows, in bytes; both versions (see cgroups(7))."""
    for line in own.read_text().splitlines() if own.exists() else []:
        number, controllers, place = line.split(":", 2)
        if number != "0" and "memory" not in controllers.split(","):
            continue
        base = root if number == "0" else root / "memory"
        names = (
            ("memory.max", "memory.current") if number == "0" else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        )
        group = base / place.strip("/")
        for folder in (group, *group.parents):  # a container sees its own group as the outermost one
            with contextlib.suppress(OSError, ValueError):  # no such group here, or no limit ("max")
                limit, used = (int((folder / name).read_text()) for name in names)
                stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                dropped = int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))  # cache of files
                yield max(0, limit - max(0, used - dropped))
            if folder == base:
                break


def uncompiled() -> contextlib.AbstractContextManager[object]:
    """Run compiled modules as they were written: for shapes that are not worth a compilation."""
    if "torch._dynamo" not in sys.modules:  # nothing is compiled, and asking the compiler would import it
        return contextlib.nullcontext()
    return torch.compiler.set_stance("force_eager")


def peak_resident_bytes() -> int | None:
    """Most resident memory that this process has had, as the operating system counts it. None: unknown.

    Linux tells it of the program that runs now; getrusage, for other systems, would count the process that started it.
    """
    try:
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    try:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    except ImportError:  # Windows
        return None
