"""Runs every numbered example on one engine: its results, then the tree of what it asked of the engine."""

import runpy
import time
from pathlib import Path

import sgrun as sg


def show(path: Path, engine: sg.Engine) -> None:
    example = runpy.run_path(str(path))
    print(f"\n=== {path.stem}: {example['__doc__']}\n")
    for state in example["main"](engine):
        print(f"\n{state.trace()}")


if __name__ == "__main__":
    started = time.perf_counter()
    with sg.Engine(progress=True) as engine:
        print(f"engine: {engine.device}, {engine.limits.num_pages} pages of {engine.limits.page_size} tokens")
        for path in sorted(Path(__file__).parent.glob("[0-9]*.py")):
            show(path, engine)
        stats = engine.stats
    print(f"\n{time.perf_counter() - started:.1f} s, loading included.", end=" ")
    print(f"Tokens: {stats.extend_tokens} prefilled, {stats.cached_tokens} reused, {stats.decode_tokens} decoded.")
