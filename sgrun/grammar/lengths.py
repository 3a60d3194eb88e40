"""Adds bounds on the length to an automaton over characters, by a counter where unrolling them would be long.

The numbers of characters read so far fall into runs: within a run, which labels can still be reached from which state
of the automaton does not depend on the count. So whatever looks reachable in the table with runs is reachable, and no
text is led to a place from which the length cannot be met any more (a pattern that needs three more characters, say,
where two are left).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sgrun.grammar.labelled import NO_LABEL, Labels, Table, minimize_labelled
from sgrun.grammar.limits import Budget

_MAX_UNROLLED = 4  # a run of so many counts, times its states, is written out
_MAX_EXACT_STEPS = 256
_Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False, slots=True)
class CountedTable:
    """A minimal table with counts: after a character, a state with a threshold adds 1 to the counter and goes on to
    `reached` if it is at the threshold, else to `below`. Where the threshold is 0, nothing is counted."""

    below: Table  # [num_states, num_atoms]; state 0 is dead, state 1 the start
    reached: Table  # the same where nothing is counted
    labels: Labels  # [num_states]
    thresholds: Labels  # [num_states]


@dataclass(slots=True)
class _Run:
    """Counts from `first` to `last` (None: without end) in which the same labels can be reached."""

    first: int
    last: int | None
    labels: Labels  # [num_states] of a text that ends here
    live: _Flags  # [num_states] from which a label can be reached
    needed: _Flags  # [num_states] of them, those that can be met with such a count
    leaving: _Flags  # [num_states] those met with the count after `last`


def with_lengths(table: Table, start: int, labels: Labels, thresholds: list[int], budget: Budget) -> CountedTable:
    """The minimal table for `labels[state, i]`, i being how many of the increasing `thresholds` (from 1) the length
    has reached. Raises GrammarTooLargeError."""
    graph = _Graph(table, start)
    runs = _find_runs(graph, labels, thresholds, budget)
    _find_needed(graph, runs)
    return _lay_out(graph, [run for run in runs if run.needed.any()], budget)


class _Graph:
    def __init__(self, table: Table, start: int) -> None:
        self.table = table
        self.start = start
        rows = [sorted(set(row)) for row in table.tolist()]
        width = max(map(len, rows))
        self._successors = np.array([row + [row[0]] * (width - len(row)) for row in rows])
        self._pairs = np.array([(state, target) for state, row in enumerate(rows) for target in row]).T

    def before(self, flags: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Or of the flags of all successors: [num_states, ..] for [num_states, ..]."""
        return np.asarray(flags[self._successors].any(axis=1))

    def after(self, flags: _Flags) -> _Flags:
        reached = np.zeros_like(flags)
        sources, targets = self._pairs
        reached[targets[flags[sources]]] = True
        return reached


def _find_runs(graph: _Graph, labels: Labels, thresholds: list[int], budget: Budget) -> list[_Run]:
    """Backwards from the last threshold. Raises GrammarTooLargeError where what can be reached keeps changing."""
    nothing = np.zeros(len(labels), np.bool_)
    names = np.unique(labels[labels != NO_LABEL])
    ends_here = [column[:, None] == names for column in labels.T]  # [num_states, num_names]
    reachable = ends_here[-1]
    while not np.array_equal(wider := reachable | graph.before(reachable), reachable):
        reachable = wider
    first = thresholds[-1] if thresholds else 0
    runs = [_Run(first, None, labels[:, -1], reachable.any(axis=1), nothing.copy(), nothing)]
    for i in range(len(thresholds) - 1, -1, -1):
        lowest = thresholds[i - 1] if i else 0
        count = thresholds[i] - 1
        is_new = True
        while count >= lowest:
            earlier = ends_here[i] | graph.before(reachable)
            if not is_new and np.array_equal(earlier, reachable):  # and so it stays
                runs[-1].first = lowest
                break
            budget.spend("max_states", len(labels))
            reachable = earlier
            live = reachable.any(axis=1)
            runs.append(_Run(count, count, labels[:, i], live, nothing.copy(), nothing))
            is_new = False
            count -= 1
    return runs[::-1]


def _find_needed(graph: _Graph, runs: list[_Run]) -> None:
    """Forwards from the start. In a long run in which the states keep changing, rather too many than too few."""
    flags = np.zeros(len(graph.table), np.bool_)
    flags[graph.start] = True
    for run in runs:
        count = run.first
        while run.last is None or count <= run.last:
            flags = flags & run.live
            is_settling = run.last is None or count - run.first > _MAX_EXACT_STEPS + len(flags)
            flags = flags | run.needed if is_settling else flags
            run.needed |= flags
            after = graph.after(flags)
            is_closed = not (after & run.live & ~run.needed).any()
            is_steady = np.array_equal(after & run.live, flags)
            flags = after
            if is_steady or (is_settling and is_closed):
                break
            count += 1
        run.leaving = flags


def _lay_out(graph: _Graph, runs: list[_Run], budget: Budget) -> CountedTable:
    """Numbers the needed states of all runs and joins them; each run leads to the next one."""
    runs = [part for run in runs for part in _unrolled(run)]
    num_states, num_atoms = graph.table.shape
    budget.spend("max_states", sum(int(run.needed.sum()) for run in runs))
    numbers = np.zeros((len(runs) + 1, num_states), dtype=np.int32)  # the last row: all dead
    next_number = 1
    for i, run in enumerate(runs):
        states = np.flatnonzero(run.needed)
        if i == 0:  # the start comes first
            states = np.concatenate([[graph.start], states[states != graph.start]])
        numbers[i, states] = np.arange(next_number, next_number + len(states))
        next_number += len(states)
    budget.check("max_work_bytes", 8 * next_number * num_atoms)
    table = np.zeros((next_number, 2 * num_atoms), dtype=np.int32)
    labels = np.full(next_number, NO_LABEL, dtype=np.int32)
    thresholds = np.zeros(next_number, dtype=np.int32)
    counted = 0
    for i, run in enumerate(runs):
        states = np.flatnonzero(run.needed)
        own = numbers[i, states]
        targets = graph.table[states]
        labels[own] = run.labels[states]
        is_next = i + 1 < len(runs) and run.last is not None and runs[i + 1].first == run.last + 1
        following = numbers[i + 1] if is_next else numbers[-1]
        if run.last is None or not (following | numbers[i])[run.leaving].any():
            below = reached = numbers[i]
        elif run.last == run.first:
            below = reached = following
        else:
            below, reached = numbers[i], following
            counted += run.last - run.first + 1
            thresholds[own] = counted
        table[own] = np.concatenate([below[targets], reached[targets]], axis=1)
    table, labels, thresholds = minimize_labelled(table, labels, thresholds)
    return CountedTable(table[:, :num_atoms], table[:, num_atoms:], labels, thresholds)


def _unrolled(run: _Run) -> list[_Run]:
    if run.last is None or (run.last - run.first + 1) * int(run.needed.sum()) > _MAX_UNROLLED:
        return [run]
    return [
        _Run(count, count, run.labels, run.live, run.needed, run.leaving) for count in range(run.first, run.last + 1)
    ]
