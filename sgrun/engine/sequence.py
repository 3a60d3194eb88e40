"""Owns a sequence, the operation it runs, and the tasks that this becomes. Knows nothing of how they are scheduled.

A task is one row of work: tokens whose K/V is wanted, the lease that holds their pages while it runs, and which of
their logits are wanted. A generate is n tasks (`generation.py`); a score is one for each branch of the choices' token
trie (`scoring.py`).
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field

from sgrun.cache.prefix_cache import Lease
from sgrun.cache.radix_tree import Node
from sgrun.engine.messages import Generate, Operation, Score
from sgrun.grammar.automaton import Automaton
from sgrun.types import OpStats


@dataclass(slots=True, eq=False)
class Sequence:
    """Token ids and the operations that wait for them. `pin` keeps the K/V of an idle sequence from eviction."""

    id: int
    priority: int
    cache_salt: str
    token_ids: list[int] = field(default_factory=list)
    ops: deque[Operation] = field(default_factory=deque)
    active: Work | None = None
    grammar: Future[Automaton] | None = None  # of the operation at the head of `ops`, once it is asked for
    pin: Node | None = None
    is_ready: bool = True  # False: a fork that its parent has not reached
    is_started: bool = False  # has generated or scored before
    error: Exception | None = None


@dataclass(slots=True)
class Timing:
    """Instants of one operation in seconds of the monotonic clock (0: has not happened), and what it cost."""

    submitted: float
    first_scheduled: float = 0.0
    first_sampled: float = 0.0
    cached_tokens: int = 0
    computed_tokens: int = 0

    def stats(self, prompt_tokens: int, now: float) -> OpStats:
        scheduled = self.first_scheduled or now
        sampled = self.first_sampled or now
        return OpStats(
            prompt_tokens=prompt_tokens,
            cached_tokens=self.cached_tokens,
            computed_tokens=self.computed_tokens,
            queue_s=scheduled - self.submitted,
            prefill_s=sampled - scheduled,
            decode_s=now - sampled,
        )


@dataclass(slots=True, eq=False)
class Work:
    """A generate or score operation that is running: a Generation or a Scoring."""

    op: Generate | Score
    timing: Timing
    tasks: list[Task] = field(default_factory=list, init=False)


@dataclass(slots=True, eq=False)
class Task:
    """tokens[:num_computed] have K/V in the lease, and once the steps that run have ended, `num_launched` places do;
    without a lease the task waits and both are 0."""

    seq: Sequence
    tokens: list[int]
    prompt_len: int
    arrival: int
    timing: Timing
    num_computed: int = 0
    num_launched: int = 0
    lease: Lease | None = None
    is_counted: bool = False  # its cached tokens are in the engine's statistics

    @property
    def num_ready(self) -> int:
        """How many tokens the next step may compute: those that are known, or the one that the steps that run will
        sample."""
        num_known = len(self.tokens) - self.num_launched
        return num_known if num_known > 0 else min(self.max_len - self.num_launched, 1)

    @property
    def max_len(self) -> int:
        """How many tokens are computed at most."""
        return len(self.tokens)

    @property
    def match_limit(self) -> int:
        """The most tokens that may come from the cache: what is after them is computed for its logits."""
        return len(self.tokens) - 1

    def wanted_positions(self, start: int, end: int) -> list[int]:
        """The positions in [start, end) whose logits are needed."""
        return [end - 1] if end >= len(self.tokens) else []
