"""What the language itself costs: programs on a scripted backend, whose answers take a fixed time and no computation.

Run: python benchmarks/interpreter.py. Prints a table, then one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import threading
import time
from collections.abc import Callable

import sgrun as sg
from sgrun.lang.scripted import ScriptedBackend

NUM_GENERATIONS = 4
LATENCY_S = 0.2


@sg.function
def four_generations(s: sg.ProgramState) -> None:
    s += "Start."
    for number in range(NUM_GENERATIONS):
        s += sg.gen(f"step_{number}")
        s[f"step_{number}"]


@sg.function
def one_generation(s: sg.ProgramState) -> None:
    s += "Start." + sg.gen("answer")
    s["answer"]


@sg.function
def fork_and_join(s: sg.ProgramState) -> None:
    s += "Start."
    forks = s.fork(64)
    forks += "x"
    forks.join()


def batch_s(program: sg.Program, num_programs: int, latency_s: float) -> float:
    """Wall time of a batch; the backend is another thread of this process, so its work is in the time too."""
    with ScriptedBackend(latency_s=latency_s) as backend:
        start = time.perf_counter()
        program.run_batch([{}] * num_programs, backend=backend)
        return time.perf_counter() - start


def run_ms(program: sg.Program) -> float:
    """Mean time of one run after another, without latency."""
    with ScriptedBackend() as backend:
        start = time.perf_counter()
        for _ in range(100):
            program.run(backend=backend)
        return (time.perf_counter() - start) * 10


def largest_stall_ms() -> float:
    """The longest time that a streaming loop was not free for others, beyond the millisecond they slept."""

    async def main(backend: ScriptedBackend) -> float:
        state = one_generation.run(backend=backend, stream=True)
        largest = 0.0

        async def watch() -> None:
            nonlocal largest
            while True:
                before = time.perf_counter()
                await asyncio.sleep(0.001)
                largest = max(largest, time.perf_counter() - before - 0.001)

        watcher = asyncio.create_task(watch())
        async for _ in state.text_async_iter("answer"):
            pass
        watcher.cancel()
        return largest * 1000

    with ScriptedBackend(" word" * 100, latency_s=0.5) as backend:
        return asyncio.run(main(backend))


def measure(name: str, unit: str, call: Callable[[], float], repeats: int) -> dict[str, object]:
    values = [call() for _ in range(repeats)]
    row = {"name": name, "unit": unit, "median": statistics.median(values), "min": min(values), "max": max(values)}
    print(f"{name:<44}{row['median']:>9.3f} {unit}  ({row['min']:.3f} to {row['max']:.3f}, {repeats} runs)", flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    batch_s(one_generation, 8, 0.0)
    num_threads = threading.active_count()
    rows = [
        measure(
            "512 programs x 4 generations of 0.2 s", "s", lambda: batch_s(four_generations, 512, LATENCY_S), repeats
        ),
        measure("10,000 programs x 1 generation of 0.2 s", "s", lambda: batch_s(one_generation, 10_000, LATENCY_S), 1),
        measure("one program, one generation of 0 s", "ms", lambda: run_ms(one_generation), repeats),
        measure("fork(64) and join, no generation", "ms", lambda: run_ms(fork_and_join), repeats),
        measure("largest stall of a streaming loop", "ms", largest_stall_ms, repeats),
    ]
    print(
        json.dumps(
            {
                "benchmark": "interpreter",
                "python": platform.python_version(),
                "cpus": os.cpu_count(),
                "threads_besides_backend": num_threads,
                "rows": rows,
            }
        )
    )


if __name__ == "__main__":
    main()
