"""Match, insert and evict on a radix tree of 100,000 nodes. Prints a table and, last, one JSON line.

python benchmarks/radix.py [--nodes 100000]
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import time
from collections.abc import Callable

from sgrun.cache.page_pool import PagePool
from sgrun.cache.radix_tree import RadixTree

PAGE_SIZE = 16
NODE_TOKENS = 32


def build(num_nodes: int) -> tuple[RadixTree, list[list[int]]]:
    """Texts that branch at random places, as turns of many conversations do; a node has about 32 tokens."""
    rng = random.Random(0)
    tree = RadixTree(PagePool(4 * num_nodes), PAGE_SIZE)
    texts: list[list[int]] = []
    num_tree_nodes = 0
    while num_tree_nodes < num_nodes:
        text: list[int] = []
        if texts and rng.random() < 0.8:
            parent = rng.choice(texts)
            text = parent[: rng.randint(1, len(parent))]
        text = text + rng.choices(range(50_000), k=rng.randint(NODE_TOKENS // 2, NODE_TOKENS * 3 // 2))
        if len(text) > 64 * NODE_TOKENS:
            continue
        own = tree.pool.allocate(-(-len(text) // PAGE_SIZE))
        tree.insert(text, len(text), own)
        tree.pool.release(own)
        texts.append(text)
        num_tree_nodes = sum(1 for _ in tree.nodes()) if len(texts) % 2000 == 0 else num_tree_nodes
    return tree, texts


def timed(count: int, action: Callable[[], object]) -> list[float]:
    """Microseconds of each call."""
    times = []
    for _ in range(count):
        started = time.perf_counter()
        action()
        times.append((time.perf_counter() - started) * 1e6)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=100_000)
    num_nodes = parser.parse_args().nodes
    tree, texts = build(num_nodes)
    rng = random.Random(1)

    def match() -> None:
        text = rng.choice(texts)
        tree.match_prefix(text, len(text) - 1)

    def insert() -> None:
        text = rng.choice(texts)[:-3] + rng.choices(range(50_000), k=NODE_TOKENS)
        own = tree.pool.allocate(-(-len(text) // PAGE_SIZE))
        tree.insert(text, len(text), own)
        tree.pool.release(own)

    rows = {
        "match_len": timed(20_000, lambda: tree.match_len(rng.choice(texts))),
        "match_prefix": timed(20_000, match),
        "insert": timed(20_000, insert),
        "evict, one page": timed(20_000, lambda: tree.evict(1)),
    }
    print(f"{num_nodes} nodes, {sum(map(len, texts)) // len(texts)} tokens a text, page_size {PAGE_SIZE}; microseconds")
    print(f"{'operation':<18}{'median':>9}{'p99':>9}{'mean':>9}")
    result: dict[str, object] = {"benchmark": "radix", "nodes": num_nodes, "python": platform.python_version()}
    for name, times in rows.items():
        p99 = statistics.quantiles(times, n=100)[98]
        print(f"{name:<18}{statistics.median(times):>9.1f}{p99:>9.1f}{statistics.fmean(times):>9.1f}")
        result[f"{name}_us"] = [round(value, 2) for value in (statistics.median(times), p99, statistics.fmean(times))]
    print(json.dumps(result))


if __name__ == "__main__":
    main()
