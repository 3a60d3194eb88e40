"""What a profile says of a decode: how busy the device is, with what, and whether the host ever waits inside a step."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.workloads import Prompts
from sgrun.engine.client import Engine
from sgrun.types import GrammarSpec, SamplingParams

# Calls of the runtime that hold the host until the device is done; waiting for the event of a step's tokens is none.
BLOCKING = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaMemcpy", "cudaMalloc", "cudaFree")

NAME_LEN, NUM_NAMES = 48, 12  # of the kernels that are listed


def trace_decode(engine: Engine, prompts: Prompts, batch: int, grammars: Sequence[GrammarSpec]) -> dict[str, Any]:
    """Profiles a sixth of a second from the middle of a long generation of `batch` rows."""
    params = SamplingParams(max_tokens=3000, temperature=1.0, seed=0, ignore_eos=True)
    seq_ids = []
    for number, token_ids in enumerate(prompts.take(batch, 64)):
        seq_id = engine.open()
        engine.append_ids(seq_id, token_ids)
        engine.generate(seq_id, params, grammars[number] if grammars else None)
        seq_ids.append(seq_id)
    while engine.stats.num_running < batch:
        time.sleep(0.05)
    started = engine.stats.num_steps
    while engine.stats.num_steps < started + 100:  # kernels are compiled, graphs captured, constraints in place
        time.sleep(0.05)
    steps = engine.stats.num_steps
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as trace:
        time.sleep(1 / 6)
    steps = engine.stats.num_steps - steps
    for seq_id in seq_ids:
        engine.abort(seq_id)
    events = list(trace.events())
    kernels = sorted(
        (event.time_range.start, event.time_range.end) for event in events if event.device_type == DeviceType.CUDA
    )
    blocking = Counter(event.name for event in events if event.name in BLOCKING)
    by_name: Counter[str] = Counter()
    for event in events:
        if event.device_type == DeviceType.CUDA:
            by_name[event.name[:NAME_LEN]] += event.time_range.end - event.time_range.start
    return {
        "steps": steps,
        "busy": _covered(kernels) / (kernels[-1][1] - kernels[0][0]),
        # one is the profile's own
        "blocking_calls_per_step": max(sum(blocking.values()) - 1, 0) / steps,
        "blocking": dict(blocking),
        "us_per_step": {name: round(us / steps, 1) for name, us in by_name.most_common(NUM_NAMES)},
    }


def _covered(spans: list[tuple[float, float]]) -> float:
    """How much of the line the spans, in the order of their starts, cover together."""
    total, reached = 0.0, spans[0][0]
    for start, end in spans:
        total += max(end - max(start, reached), 0.0)
        reached = max(reached, end)
    return total
