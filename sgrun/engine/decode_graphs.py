"""Owns the captured decode steps: one CUDA graph for each number of rows, bound of lengths and way to read them,
captured when first wanted."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

ROW_BUCKETS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 80, 96, 128, 160, 192, 224, 256)
MIN_LEN = 1024  # bounds of lengths are powers of two from here on

Step = Callable[[int, int, bool], Tensor]
"""Runs one step of so many rows, none longer than so many tokens, sharing prefixes or not; returns the logits."""


class DecodeGraphs:
    """Runs `step` by replaying a graph of it on CUDA, and as it is elsewhere. `warm_up` runs it without effect."""

    def __init__(
        self, step: Step, warm_up: Callable[[int, int, bool], None], max_rows: int, max_len: int, device: torch.device
    ) -> None:
        self._step = step
        self._warm_up = warm_up
        self._buckets = [*(size for size in ROW_BUCKETS if size < max_rows), max_rows]
        self._max_len = max_len
        self._is_cuda = device.type == "cuda"
        self._graphs: dict[tuple[int, int, bool], tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        self._pool: Any = None  # of memory, which all graphs share: only one runs at a time

    def num_lanes(self, num_rows: int) -> int:
        """How many rows a step of `num_rows` has: the rest of them is spare."""
        return self._buckets[bisect_left(self._buckets, num_rows)]

    def run(self, num_lanes: int, longest: int, shares: bool) -> Tensor:
        """A step of `num_lanes` rows, none longer than `longest`, which read together what they share if `shares`.
        Logits [num_lanes, V], good until the next step."""
        bound = min(max(1 << (longest - 1).bit_length(), MIN_LEN), self._max_len)
        if not self._is_cuda:
            return self._step(num_lanes, bound, shares)
        key = num_lanes, bound, shares
        if key not in self._graphs:
            self._graphs[key] = self._capture(*key)
        graph, logits = self._graphs[key]
        graph.replay()
        return logits

    def forget(self) -> None:
        """Drops all graphs, since memory that they use has moved."""
        if self._graphs:
            torch.cuda.synchronize()  # they may be running
            self._graphs.clear()

    def _capture(self, num_lanes: int, bound: int, shares: bool) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        # Compiles kernels and makes libraries allocate, which a capture may not.
        self._warm_up(num_lanes, bound, shares)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            logits = self._step(num_lanes, bound, shares)
        self._pool = graph.pool()
        return graph, logits
