"""What the device can do at best, measured in the same run as everything else."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch


def copy_bytes_per_s(is_smoke: bool) -> float:
    """Of a large copy on the device: bytes read plus bytes written."""
    source = torch.randint(0, 2**30, (2**16 if is_smoke else 2**29,), dtype=torch.int32, device=_device())
    target = torch.empty_like(source)
    return 2 * source.nbytes / _median_s(lambda: target.copy_(source))


def matmul_flops(is_smoke: bool) -> float:
    """Operations a second of large bfloat16 matrix products, one after the other for as long as a long prompt takes:
    a single one runs at a clock that the device's power does not allow for long."""
    size, count = (64, 2) if is_smoke else (8192, 150)
    a, b = (torch.randn(size, size, dtype=torch.bfloat16, device=_device()) for _ in range(2))
    out = torch.empty_like(a)

    def products() -> None:
        for _ in range(count):
            torch.mm(a, b, out=out)

    return 2 * size**3 * count / _median_s(products, repeats=3)


def short_matmul_flops(is_smoke: bool) -> float:
    """The same of one product at a time, with a pause after each."""
    size = 64 if is_smoke else 8192
    a, b = (torch.randn(size, size, dtype=torch.bfloat16, device=_device()) for _ in range(2))
    return 2 * size**3 / _median_s(lambda: a @ b)


def _median_s(call: Callable[[], object], repeats: int = 10) -> float:
    """Of one call: on a GPU by its own clock."""
    seconds = []
    for _ in range(repeats + 3):
        if torch.cuda.is_available():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            end.record()
            torch.cuda.synchronize()
            seconds.append(1e-3 * start.elapsed_time(end))
        else:
            started = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[3:])


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
