"""The device and the software on it, and the two rates that everything is limited by."""

from __future__ import annotations

import importlib
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import torch

from sweeps.spec import STANDIN_FAMILIES
from tests.gpu.checks import Place, Seen

GIB = 2**30
PACKAGES = ("torch", "deepspeed", "transformers", "mambapy", "triton")
SIDE = 8192


def now(device: torch.device) -> float:
    """Return the time once the device has done all that it was given, in seconds."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds_of(
    work: Callable[[], object], device: torch.device, times: int, warm: int = 2
) -> float:
    """Return the median seconds of a piece of work, after some that do not count."""
    for _ in range(warm):
        work()
    taken = []
    for _ in range(times):
        began = now(device)
        work()
        taken.append(now(device) - began)
    return statistics.median(taken)


def copy_rate() -> float:
    """Return the bytes per second, read and written, of a copy on the device."""
    device = torch.device("cuda", 0)
    source = torch.ones(2 * GIB, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / seconds_of(lambda: target.copy_(source), device, 10)


@cache
def matmul_rate(device: torch.device) -> float:
    """Return the FLOP/s of bf16 products of random matrices, measured now."""
    side = SIDE if device.type == "cuda" else SIDE // 32
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    b = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    return 2.0 * side**3 / seconds_of(lambda: a @ b, device, 10, warm=3)


def environment(place: Place) -> Iterator[Seen]:
    """Tell the device, the driver, the versions, and the two rates."""
    device = place.device
    about = torch.cuda.get_device_properties(device)
    driver = "driver " + _driver()
    yield Seen(
        f"{about.name}, {about.total_memory / GIB:.1f} GiB,"
        f" {about.multi_processor_count} multiprocessors, {driver}, CUDA {torch.version.cuda}",
        None,
    )
    versions = {name: _version(name) for name in PACKAGES}
    said = ", ".join(f"{name} {found or 'not there'}" for name, found in versions.items())
    ready = all(versions[name] for name in ("torch", "deepspeed", "transformers"))
    yield Seen(said, ready, versions)
    tf32 = {
        "matmul": torch.backends.cuda.matmul.allow_tf32,
        "cudnn": torch.backends.cudnn.allow_tf32,
    }
    yield Seen(
        f"TF32 in float32 products {'on' if tf32['matmul'] else 'off'},"
        f" in convolutions {'on' if tf32['cudnn'] else 'off'}",
        not tf32["matmul"],
        tf32,
    )
    copied = copy_rate()
    rate = matmul_rate(device)
    yield Seen(
        f"memory {copied / 1e12:.2f} TB/s (copy, read and written), bf16 products of"
        f" {SIDE}×{SIDE} {rate / 1e12:.0f} TFLOP/s",
        None,
        {"copy_bytes_per_second": copied, "matmul_flops": rate},
    )
    families = ", ".join(name for name in STANDIN_FAMILIES if not _imports(name))
    yield Seen("every family's code imports" if not families else f"no {families}", not families)


def _imports(family: str) -> bool:
    name = family.partition("_post")[0].removeprefix("looped_")
    try:
        importlib.import_module(f"transformers.models.{name}.modeling_{name}")
    except ImportError:
        return False
    return True


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _driver() -> str:
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return f"not known ({type(error).__name__})"
    return found.stdout.split()[0]
