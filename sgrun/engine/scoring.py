"""Owns one running `score`: the trie of its choices as tasks, and the log-probabilities that they fill in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sgrun.engine.messages import Score, ScoreOutput
from sgrun.engine.sequence import Sequence, Task, Timing, Work
from sgrun.errors import NonFiniteLogitsError


@dataclass(slots=True, eq=False)
class Scoring(Work):
    """A running score operation: `logprobs[choice][token]`, filled as rows are computed."""

    op: Score
    logprobs: list[list[float]]
    unconditional_logprobs: list[list[float]]
    num_pending: int = 0

    def output(self, prompt_tokens: int, now: float) -> ScoreOutput:
        logprobs, unconditional = tuple(map(tuple, self.logprobs)), tuple(map(tuple, self.unconditional_logprobs))
        return ScoreOutput(logprobs, unconditional, self.timing.stats(prompt_tokens, now))


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

    def take(self, position: int, logits: Tensor) -> None:
        """Reads what is wanted of the logits [vocab] after `position`. Raises NonFiniteLogitsError."""
        logprobs = torch.log_softmax(logits.float(), dim=-1)
        if not bool(logprobs.sum().isfinite()):
            raise NonFiniteLogitsError(f"the model gave NaN or infinite logits after {position + 1} tokens")
        for wanted in self.wanted[position]:
            wanted.out[wanted.choice][wanted.index] = float(logprobs[wanted.token_id])


def start_scoring(seq: Sequence, op: Score, submitted: float, first_arrival: int) -> Scoring:
    """The tasks of `op` after the sequence and, where wanted, after nothing. A token before which there is nothing at
    all scores 0.0."""
    logprobs = [[0.0] * len(choice) for choice in op.choices]
    unconditional = [[0.0] * len(choice) for choice in op.choices] if op.unconditional else []
    scoring = Scoring(op, Timing(submitted), logprobs, unconditional)
    plans = list(_plan(op, seq.token_ids, logprobs))
    if op.unconditional:
        plans += _plan(op, [], unconditional)
    for number, (tokens, wanted) in enumerate(plans):
        task = ScoreTask(
            seq=seq,
            tokens=tokens,
            prompt_len=len(tokens),
            arrival=first_arrival + number,
            timing=scoring.timing,
            scoring=scoring,
            wanted=wanted,
        )
        scoring.tasks.append(task)
    scoring.num_pending = len(plans)
    return scoring


def _plan(op: Score, prefix: list[int], out: list[list[float]]) -> Iterator[tuple[list[int], dict[int, list[Wanted]]]]:
    """One task for each branch of the token trie below `prefix`, so that every node's logits are computed once: what
    an earlier branch wants, a later one takes from the cache."""
    wanted_at: dict[tuple[int, ...], list[Wanted]] = {}
    for number, choice in enumerate(op.choices):
        for index, token_id in enumerate(choice):
            if prefix or index:
                wanted_at.setdefault(choice[:index], []).append(Wanted(out, number, index, token_id))
    for choice in sorted(set(op.choices)):
        paths = [choice[:depth] for depth in range(len(choice))]
        wanted = {len(prefix) + len(path) - 1: wanted_at.pop(path) for path in paths if path in wanted_at}
        if wanted:
            yield prefix + list(choice[:-1]), wanted
