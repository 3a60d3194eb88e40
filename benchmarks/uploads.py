"""How long a compiled constraint takes until the device can use it: tables packed, copied, the copy waited for.

    PYTHONPATH=.:kernels:kernels/benchmarks python benchmarks/uploads.py [--maskbench FILE.jsonl.gz] [--every 5]

Of every Nth schema of MaskBench that compiles or, without the file, of the schemas that the suite decodes under. A
table and, last, one JSON line.
"""

from __future__ import annotations

import time
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from grammar_suites import maskbench
from timing import copy_bandwidth, print_result

from benchmarks.gpu.workloads import object_schemas
from sgrun.engine.device_automata import DeviceAutomata
from sgrun.errors import GrammarError
from sgrun.grammar.automaton import Automaton
from sgrun.grammar.compiler import compile_grammar
from sgrun.types import JsonSchemaSpec

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def compiled(specs: list[JsonSchemaSpec]) -> Iterator[Automaton]:
    for spec in specs:
        try:
            yield compile_grammar(spec)
        except GrammarError:  # refused, or too large: it never comes to the device
            continue


def synchronize() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--maskbench", type=Path)
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args()
    specs = object_schemas(3 if args.smoke else 64)
    if args.maskbench:
        specs = [JsonSchemaSpec(case.text) for case in maskbench(args.maskbench)[:: args.every]]
    automata = list(compiled(specs))
    on_device = DeviceAutomata(DEVICE, max_users=len(automata) + 1)
    on_device.acquire(automata[0])  # the first copy of a process also sets the device up
    times = []
    for automaton in automata[1:]:
        synchronize()
        started = time.perf_counter()
        on_device.acquire(automaton)
        synchronize()
        times.append(1e3 * (time.perf_counter() - started))
    sizes = [automaton.size_bytes / 1e3 for automaton in automata[1:]]
    rows = []
    for share in (0.5, 0.9, 0.99):
        row = {"share": share, "ms": float(np.quantile(times, share)), "table_kb": float(np.quantile(sizes, share))}
        rows.append({"source": "MaskBench" if args.maskbench else "the suite's", "schemas": len(times), **row})
        print(f"p{100 * share:<4.0f}{row['ms']:>9.3f} ms{row['table_kb']:>10.0f} kB")
    print_result("uploads", copy_bandwidth(), rows)


if __name__ == "__main__":
    main()
