"""How the kernels' benchmarks take times and say what they were taken on."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence

import torch
import triton

COLD_BYTES = 256 * 2**20  # several times the L2 of an H100 or H200


def num_cold_copies(size_bytes: int) -> int:
    """How many copies of inputs of this size to take turns with, so that none is found in the L2."""
    return min(-(-COLD_BYTES // max(size_bytes, 1)), 64) if torch.cuda.is_available() else 1


def median_us(calls: Sequence[Callable[[], object]], repeats: int = 15) -> float:
    """Median microseconds of one call, of `calls` that do the same on different data.

    On a GPU they are captured in one CUDA graph, as a decode step is, and its replays are timed with events. Elsewhere
    each is called once: that shows that it runs, and its time means nothing.
    """
    for call in calls:
        call()
    if not torch.cuda.is_available():
        started = time.perf_counter()
        calls[0]()
        return 1e6 * (time.perf_counter() - started)
    torch.cuda.synchronize()
    rounds = max(16 // len(calls), 1)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(rounds):
            for call in calls:
                call()
    times = []
    for _ in range(repeats + 2):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(1e3 * start.elapsed_time(end) / (rounds * len(calls)))
    return statistics.median(times[2:])


def copy_bandwidth() -> float:
    """Bytes a second of a large copy on the device, reads and writes counted: what floors are computed with.

    By a kernel: a plain copy in a graph is left to the copy engines, which are slower (2.7 against 4.2 TB/s, H200).
    """
    if not torch.cuda.is_available():
        return 1e10
    source = torch.randint(0, 2**30, (2**29,), dtype=torch.int32, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / (1e-6 * median_us([lambda: torch.bitwise_not(source, out=target)]))


def print_result(benchmark: str, bandwidth: float, rows: list[dict[str, object]]) -> None:
    """The last line of a benchmark's output."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "Triton's interpreter"
    result = {
        "benchmark": benchmark,
        "device": device,
        "torch": torch.__version__,
        "triton": triton.__version__,
        "copy_gb_per_s": round(bandwidth / 1e9),
        "rows": rows,
    }
    print(json.dumps(result))
