"""Owns the order of work: which tasks run in the next step and with how many tokens. Knows nothing of models.

One token budget a step is shared by decodes and chunks of extends. Running tasks come first, oldest first; then waiting
ones are admitted. Tokens of a planned extend are published to the radix tree at once, so whoever is admitted after it
in the same step shares the pages that this step fills.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from sgrun.cache.prefix_cache import Lease, PrefixCache, SlotCopy
from sgrun.engine.sequence import Task

MAX_CANDIDATES = 256  # waiting tasks whose cached prefix is looked up in one step


@dataclass(frozen=True, slots=True)
class Row:
    """`num_tokens` tokens of `task` from position `start` on, in the step that is planned. The token behind those that
    are known is the one that the steps before it sample."""

    task: Task
    lease: Lease
    start: int
    num_tokens: int
    copy: SlotCopy | None

    @property
    def is_current(self) -> bool:
        """Whether the task still runs where it did; otherwise what this row computes is of no use any more."""
        return self.task.lease is self.lease


class Scheduler:
    """`release_idle` unpins the KV of one sequence that is not running; False if there is none left."""

    def __init__(
        self,
        cache: PrefixCache,
        *,
        token_budget: int,
        max_running: int,
        max_wait_s: float,
        release_idle: Callable[[], bool],
    ) -> None:
        self.cache = cache
        self.token_budget = token_budget
        self.max_running = max_running
        self.max_wait_s = max_wait_s
        self.release_idle = release_idle
        self.waiting: list[Task] = []
        self.running: list[Task] = []
        self.num_retractions = 0

    def add(self, task: Task) -> None:
        self.waiting.append(task)

    def remove(self, task: Task) -> None:
        """Takes a finished or failed task out; its lease is the caller's."""
        queue = self.waiting if task.lease is None else self.running
        queue.remove(task)

    def plan(self) -> list[Row]:
        """The rows of the next step, empty if there is nothing to do. All their pages are allocated."""
        num_retractions = self.num_retractions
        rows = self._plan_running()
        if self.num_retractions == num_retractions:
            self._admit(rows, self.token_budget - sum(row.num_tokens for row in rows))
        return rows

    def retract(self, task: Task) -> None:
        """Gives up a running task's pages (what it computed stays in the cache as long as there is room) and lets it
        wait; it goes on where it was."""
        assert task.lease is not None
        self.cache.publish(task.lease, task.tokens, task.num_computed)
        self._requeue(task)
        self.num_retractions += 1

    def requeue_orphans(self) -> None:
        """Tasks that shared pages which have been discarded from the tree start again."""
        for task in list(self.running):
            assert task.lease is not None
            if self.cache.tree.is_detached(task.lease.node):
                self._requeue(task)

    def _requeue(self, task: Task) -> None:
        assert task.lease is not None
        self.cache.release(task.lease)
        self.running.remove(task)
        task.lease = None
        task.num_computed = task.num_launched = 0
        self.waiting.append(task)

    def _plan_running(self) -> list[Row]:
        rows: list[Row] = []
        budget = self.token_budget
        planned: set[int] = set()
        num_decodes_left = sum(task.num_ready == 1 for task in self.running)
        for task in sorted(self.running, key=_seniority):
            if task.lease is None:  # retracted for the sake of an older one
                continue
            num_ready = task.num_ready
            is_decode = num_ready == 1
            num_decodes_left -= is_decode
            num_tokens = 1 if is_decode else min(num_ready, budget - num_decodes_left)
            if budget < 1 or num_tokens < 1:
                continue
            if not self._make_room(task, task.num_launched + num_tokens, planned):
                break
            copy = self.cache.grow(task.lease, task.num_launched + num_tokens)
            rows.append(self._row(task, num_tokens, copy))
            planned.add(id(task))
            budget -= num_tokens
        return rows

    def _make_room(self, task: Task, length: int, planned: set[int]) -> bool:
        """Frees the pages that `task` needs, retracting the youngest tasks that are not planned yet, `task` itself as
        the last. False if it was."""
        assert task.lease is not None
        num_pages = self.cache.pages_to_grow(task.lease, length)
        while num_pages and not self._reserve(num_pages):
            victim = max((other for other in self.running if id(other) not in planned), key=_seniority)
            self.retract(victim)
            if victim is task:
                return False
        return True

    def _reserve(self, num_pages: int) -> bool:
        while not self.cache.reserve(num_pages):
            if not self.release_idle():
                return False
        return True

    def _admit(self, rows: list[Row], budget: int) -> None:
        if not self.waiting or budget < 1 or len(self.running) >= self.max_running:
            return
        for task in self._admission_order():
            if budget < 1 or len(self.running) >= self.max_running:
                return
            lease = self._acquire(task)
            if lease is None:
                return
            self.waiting.remove(task)
            self.running.append(task)
            task.lease = lease
            task.num_computed = task.num_launched = lease.cached_len
            copy = self.cache.grow(lease, len(task.tokens))
            row = self._row(task, min(task.num_ready, budget), copy)
            rows.append(row)
            budget -= row.num_tokens

    def _acquire(self, task: Task) -> Lease | None:
        """A lease with room for the whole of the task's tokens reserved, or None if it has to wait for others."""
        lease = self.cache.acquire(task.tokens, task.match_limit, task.seq.cache_salt)
        # A spare page for each running task, or the next decodes would retract the newcomer right away.
        num_pages = self.cache.pages_to_grow(lease, len(task.tokens)) + len(self.running)
        if self._reserve(num_pages):
            return lease
        self.cache.release(lease)
        if self.running:
            return None
        # Alone and still too large: its own cached path holds pages that the bare tokens would not need (divergences
        # inside a page keep both copies). Without the match everything can be evicted, and a checked task fits.
        lease = self.cache.acquire(task.tokens, 0, task.seq.cache_salt)
        has_room = self._reserve(self.cache.pages_to_grow(lease, len(task.tokens)))
        assert has_room, f"{len(task.tokens)} tokens do not fit an empty pool"
        return lease

    def _admission_order(self) -> list[Task]:
        """Priority, then who has waited too long, then programs that have started, then the longest cached prefix."""
        now = time.monotonic()
        first = sorted(self.waiting, key=_seniority)[:MAX_CANDIDATES]

        def order(task: Task) -> tuple[int, bool, bool, int, int]:
            is_aged = now - task.timing.submitted > self.max_wait_s
            is_started = task.seq.is_started or len(task.tokens) > task.prompt_len
            cached_len = self.cache.tree.match_len(task.tokens, task.seq.cache_salt)
            return (-task.seq.priority, not is_aged, not is_started, 0 if is_aged else -cached_len, task.arrival)

        return sorted(first, key=order)

    def _row(self, task: Task, num_tokens: int, copy: SlotCopy | None) -> Row:
        assert task.lease is not None
        start = task.num_launched
        end = start + num_tokens
        # Sampled tokens are published when the task ends or yields, not one by one.
        if num_tokens > 1 or end <= task.prompt_len:
            self.cache.publish(task.lease, task.tokens, end)
        task.num_launched = end
        return Row(task, task.lease, start, num_tokens, copy)


def _seniority(task: Task) -> tuple[int, int]:
    return (-task.seq.priority, task.arrival)
