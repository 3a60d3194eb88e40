"""Owns a sequence and the tasks that its generate and score operations become. Knows nothing of how they are scheduled.

A task is one row of work: tokens whose KV is wanted, the lease that holds their pages while it runs, and what to do
with the logits. A generate is n sample tasks; a score is one task for each branch of the choices' token trie.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field

from sgrun.cache.prefix_cache import Lease
from sgrun.cache.radix_tree import Node
from sgrun.engine.detokenizer import Detokenizer
from sgrun.engine.messages import Generate, Operation, Score
from sgrun.grammar.automaton import Automaton
from sgrun.grammar.matcher import GrammarMatcher
from sgrun.types import Completion, OpStats, TokenLogprob


@dataclass(slots=True, eq=False)
class Sequence:
    """Token ids and the operations that wait for them. `pin` keeps the KV of an idle sequence from eviction."""

    id: int
    priority: int
    cache_salt: str
    token_ids: list[int] = field(default_factory=list)
    ops: deque[Operation] = field(default_factory=deque)
    active: Generation | Scoring | None = None
    grammar: Future[Automaton] | None = None  # of the operation at the head of `ops`, once it is asked for
    pin: Node | None = None
    is_ready: bool = True  # False: a fork that its parent has not reached
    is_started: bool = False  # has generated or scored before
    error: Exception | None = None


@dataclass(slots=True)
class Timing:
    """Instants of one operation, seconds of a monotonic clock; what has not happened is 0."""

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
class Generation:
    """A running generate operation: n tasks and their completions."""

    op: Generate
    timing: Timing
    tasks: list[SampleTask] = field(default_factory=list)
    completions: dict[int, Completion] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Scoring:
    """A running score operation: `logprobs[choice][token]`, filled as rows are computed."""

    op: Score
    timing: Timing
    logprobs: list[list[float]]
    unconditional_logprobs: list[list[float]]
    tasks: list[ScoreTask] = field(default_factory=list)
    num_pending: int = 0


@dataclass(slots=True, eq=False)
class Task:
    """tokens[:num_computed] have KV in the lease; without a lease the task waits and num_computed is 0."""

    seq: Sequence
    tokens: list[int]
    prompt_len: int
    arrival: int
    timing: Timing
    cache_salt: str
    num_computed: int = 0
    lease: Lease | None = None
    is_counted: bool = False  # its cached tokens are in the statistics

    @property
    def num_remaining(self) -> int:
        return len(self.tokens) - self.num_computed

    @property
    def match_limit(self) -> int:
        """The most tokens that may come from the cache: what is after them is computed for its logits."""
        return len(self.tokens) - 1

    def wanted_positions(self, start: int, end: int) -> list[int]:
        """The positions in [start, end) whose logits are needed."""
        return [end - 1] if end == len(self.tokens) else []


@dataclass(slots=True, eq=False, kw_only=True)
class SampleTask(Task):
    """Extends the prompt, then samples one token a step until it ends."""

    generation: Generation
    index: int
    seed: int
    detokenizer: Detokenizer
    matcher: GrammarMatcher | None
    chunk_token_ids: list[int] = field(default_factory=list)
    chunk_logprobs: list[TokenLogprob] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)

    @property
    def num_outputs(self) -> int:
        return len(self.tokens) - self.prompt_len


@dataclass(frozen=True, slots=True)
class Wanted:
    """`token_id`'s log-probability at some position goes to out[choice][index]."""

    out: list[list[float]]
    choice: int
    index: int
    token_id: int


@dataclass(slots=True, eq=False, kw_only=True)
class ScoreTask(Task):
    """Computes its tokens once and reads log-probabilities at `wanted` positions."""

    scoring: Scoring
    wanted: dict[int, list[Wanted]]

    @property
    def match_limit(self) -> int:
        return min(self.wanted)

    def wanted_positions(self, start: int, end: int) -> list[int]:
        return [position for position in self.wanted if start <= position < end]


def plan_score_tasks(
    scoring: Scoring, seq: Sequence, prefix: list[int], out: list[list[float]], cache_salt: str, first_arrival: int
) -> list[ScoreTask]:
    """One task for each branch of the choices' token trie below `prefix`, so that every distinct (prefix, choice
    tokens so far) is computed once. A token with nothing at all before it scores 0.0."""
    consumers: dict[tuple[int, ...], list[Wanted]] = {}
    for number, choice in enumerate(scoring.op.choices):
        for index, token_id in enumerate(choice):
            if prefix or index:
                consumers.setdefault(choice[:index], []).append(Wanted(out, number, index, token_id))
    tasks: list[ScoreTask] = []
    done: set[tuple[int, ...]] = set()
    for choice in sorted(set(scoring.op.choices)):
        paths = [choice[:depth] for depth in range(len(choice)) if choice[:depth] in consumers]
        wanted = {len(prefix) + len(path) - 1: consumers[path] for path in paths if path not in done}
        done.update(paths)
        if wanted:
            tokens = prefix + list(choice[:-1])
            task = ScoreTask(
                seq=seq,
                tokens=tokens,
                prompt_len=len(tokens),
                arrival=first_arrival + len(tasks),
                timing=scoring.timing,
                cache_salt=cache_salt,
                scoring=scoring,
                wanted=wanted,
            )
            tasks.append(task)
    return tasks
