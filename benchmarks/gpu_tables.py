"""The tables of docs/performance.md, from benchmarks/results/*.jsonl.

    python -m benchmarks.gpu_tables [--write]

Of each case the newest result stands in the table. The peers' figures were taken on the same kind of card by the same
definitions (SGLang 0.5.17 and vLLM 0.26.0, torch 2.11.0, 2026-11-20), the better of the two.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- figures: python -m benchmarks.gpu_tables --write -->", "<!-- end of figures -->"

Result = dict[str, Any]

PEER_STEP_MS = {
    "llama-8b": {1: 4.79, 8: 5.14, 32: 5.85, 64: 6.77, 128: 8.74, 256: 13.86},
    "qwen3-0.6b": {1: 1.61, 8: 1.63, 32: 2.13, 64: 2.88, 128: 4.21, 256: 6.94},
}
PEER_ATTENTION_US = {  # context: {batch: us}; 32 query heads, 8 key/value heads, head_dim 128
    576: {1: 9.9, 8: 16.3, 32: 28.8, 64: 50.6, 128: 92.1, 256: 166},
    2112: {1: 14.4, 8: 28.4, 32: 72.3, 64: 139, 128: 269, 256: 523},
    8192: {1: 21.1, 8: 72.8, 32: 251, 64: 496, 128: 973, 256: 1951},
}
PEER_PREFIX_S = {"cold": 0.71, "warm": 0.63}
PEER_START_S = 62
PEER_OFFLINE_S = 30.85


def newest(name: str, *keys: str) -> list[Result]:
    """The last result of each case, in the order in which the cases first came."""
    path = RESULTS / f"{name}.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    rows = {}
    for row in map(json.loads, lines):
        rows[tuple(row.get(key) for key in keys)] = row
    return list(rows.values())


def part(title: str, text: str, results: list[Result]) -> str:
    """A part of the page. It names the commits that were measured: the code may have changed since."""
    if not results:
        return f"### {title}\n\nNot measured yet."
    commits = ", ".join(f"`{commit}`" for commit in sorted({row["commit"] for row in results}))
    return f"### {title}\n\n{text}\n\nMeasured at {commits}."


def table(head: str, rows: Iterable[Iterable[object]]) -> str:
    columns = head.split(" | ")
    lines = [head, " | ".join("---" for _ in columns), *(" | ".join(map(_cell, row)) for row in rows)]
    return "\n".join(f"| {line} |" for line in lines)


def decode() -> str:
    results = newest("decode", "shape", "batch")
    rows = []
    for row in results:
        peer = PEER_STEP_MS[row["shape"]][row["batch"]]
        step = (row["step_ms"], _range(row["step_ms_range"]), row["floor_ms"], row["ratio"])
        rows.append((row["shape"], row["batch"], *step, peer, f"{peer / row['step_ms']:.2f} x"))
    head = "Shape | Batch | Step, ms | Range | Floor, ms | Step / floor | Better peer, ms | Faster by"
    return part("Decode steps", table(head, rows), results)


def prefill() -> str:
    results = newest("prefill", "batch", "prompt_len", "case")
    batches = [
        (row["batch"], row["prompt_len"], row["ms"], f"{row['tokens_per_s']:,.0f}", row["share_of_matmul_rate"])
        for row in results
        if "case" not in row
    ]
    text = table("Prompts | Tokens each | ms | Tokens/s | Of the matrix rate of the run", batches)
    for row in newest("ceilings")[-1:]:
        text += (
            f"\n\nThe matrix rate is that of products of 8,192^3 for 0.2 s, {_cell(row['matmul_tflops'])} TFLOP/s;"
            f" of one at a time, with a pause after each, {_cell(row['short_matmul_tflops'])}."
        )
    for row in results:
        if "case" in row:
            text += (
                f"\n\n{row['case']}: its first token comes after {_cell(row['first_token_ms'])} ms; between the others'"
                f" tokens are {_cell(row['gap_alone_ms'])} ms before, then {_cell(row['gap_p50_ms'])} ms (p50) and"
                f" {_cell(row['gap_p99_ms'])} ms (p99)."
            )
    return part("Prefill, llama-8b", text, results)


def workloads() -> str:
    rows: list[tuple[object, ...]] = []
    prefix, offline, start = newest("shared_prefix", "case"), newest("offline", "shape"), newest("start", "case")
    for row in prefix:
        case = f"64 requests of 2,048 shared and 64 own tokens, 64 outputs, {row['shape']}, {row['case']}"
        rows.append((case, row["s"], _range(row["s_range"]), PEER_PREFIX_S[row["case"]]))
    for row in offline:
        case = f"{row['requests']} requests of 1,024 in and 1,024 out, {row['shape']}"
        rows.append((case, row["s"], _range(row["s_range"]), PEER_OFFLINE_S))
    for row in start:
        case = f"process start to first token, {row['shape']}, {row['case']} kernel cache"
        rows.append((case, row["s"], _range(row["s_range"]), PEER_START_S))
    return part("Whole workloads", table("What | s | Range | Better peer, s", rows), prefix + offline + start)


def grammar() -> str:
    results = newest("grammar_overhead", "shape", "vocab_size", "case")
    rows = []
    base: dict[object, Result] = {}
    for row in results:
        key = (row["shape"], row["vocab_size"])
        base.setdefault(key, row)
        step, p99 = (100 * (row[name] / base[key][name] - 1) for name in ("step_ms", "gap_p99_ms"))
        case = (row["shape"], f"{row['vocab_size']:,}", row["case"])
        times = (row["step_ms"], _range(row["step_ms_range"]), f"{step:+.1f} %")
        rows.append((*case, *times, row["gap_p99_ms"], _range(row["gap_p99_ms_range"]), f"{p99:+.1f} %"))
    head = "Shape | Vocabulary | 64 rows | Step, ms | Range | More | p99 between tokens, ms | Range | More"
    return part("Steps under constraints", table(head, rows), results)


def profiles() -> str:
    results = newest("profile", "shape", "batch", "case")
    rows = [
        (row["shape"], row["batch"], row["case"], f"{100 * row['busy']:.1f} %", row["blocking_calls_per_step"])
        for row in results
    ]
    head = "Shape | Rows | Constraints | GPU at work | Calls a step that wait for it"
    text = "The call that ends a profile is not counted.\n\n"
    return part("Profiles of decoding", text + table(head, rows), results)


def uploads() -> str:
    results = newest("uploads", "source", "share")
    rows = [
        (f"{row['schemas']} of {row['source']}", f"p{100 * row['share']:.0f}", row["ms"], row["table_kb"])
        for row in results
    ]
    text = "From the compiled automaton to the end of the copy.\n\n"
    return part("A new constraint on the device", text + table("Schemas | Share | ms | Table, kB", rows), results)


def attention() -> str:
    results = newest("attention", "kind", "rows", "new", "cached")
    rows = []
    for row in results:
        peer = PEER_ATTENTION_US.get(row["cached"] + 1, {}).get(row["rows"])
        if row["kind"] == "decode" and peer:
            rows.append((f"{row['cached'] + 1:,}", row["rows"], row["us"], row["us"] / row["floor_us"], peer))
    text = table("Context | Rows | us | Of the floor | Best peer, us", rows)
    shared = [
        (f"{row['cached']:,}", row["rows"], row["us"], row["alone_us"]) for row in results if row["kind"] == "shared"
    ]
    text += "\n\nRows on one prefix, with 96 tokens of their own:\n\n"
    text += table("Prefix | Rows | Read together, us | Each by itself, us", shared)
    extends = [
        (row["rows"], row["new"], row["cached"], row["us"], row["torch_us"])
        for row in results
        if row["kind"] == "extend"
    ]
    text += "\n\nExtends; torch's attention has no pages, and a mask where there is a prefix:\n\n"
    text += table("Rows | New tokens | Cached | us | torch, us", extends)
    return part("Attention: 32 query heads, 8 key/value heads, head_dim 128", text, results)


def sampling() -> str:
    results = newest("sampling", "class", "logits", "num_rows")
    by_class: dict[str, dict[int, Result]] = {}
    for row in results:
        if "us" in row:
            by_class.setdefault(f"{row['class']}, {row['logits']} logits", {})[row["num_rows"]] = row
    rows = [(name, *(of[size]["us"] for size in (1, 8, 64, 256)), of[64]["torch_us"]) for name, of in by_class.items()]
    head = "Rows | 1 | 8 | 64 | 256 | torch softmax + multinomial, 64"
    return part("Sampling in us, 131,072 tokens in bfloat16", table(head, rows), results)


def equality() -> str:
    results = newest("equality", "dtype")
    rows = [(row["dtype"], row["prompts"], row["outputs"], row["identical"]) for row in results]
    head = "dtype | Prompts | Greedy tokens each | All tokens are those of the CPU in float32"
    return part("The default model against the CPU", table(head, rows), results)


def baseline() -> str:
    results = newest("baseline", "shape", "batch")
    rows = [(row["shape"], row["batch"], row["step_ms"]) for row in results]
    return part("transformers' generate (sdpa)", table("Shape | Batch | Step, ms", rows), results)


PARTS = (decode, prefill, workloads, grammar, profiles, uploads, attention, sampling, equality, baseline)


def figures() -> str:
    return "\n\n".join([BEGIN, *(make() for make in PARTS), END])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    if not parser.parse_args().write:
        print(figures())
        return
    page = PAGE.read_text()
    before, after = page[: page.index(BEGIN)], page[page.index(END) + len(END) :]
    PAGE.write_text(before + figures() + after)


def _range(ends: list[float]) -> str:
    low, high = map(_cell, ends)
    return f"{low} to {high}"


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
