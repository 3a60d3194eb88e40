"""A plain interpreter of one procedure without calls, by the definition of the automaton."""

from __future__ import annotations

import numpy as np

from sgrun.grammar.limits import Budget, CompileLimits
from sgrun.grammar.procedure import END, Count, Move, Procedure, Reset, Return
from sgrun.grammar.regex import parse_regex
from sgrun.grammar.regular import regular_procedure
from sgrun.grammar.repeats import MAX_UNROLLED


def regex_procedure(pattern: str, max_unrolled: int = MAX_UNROLLED) -> Procedure:
    budget = Budget(CompileLimits())
    return regular_procedure(parse_regex(pattern, budget), budget, max_unrolled)


def _after(procedure: Procedure, state: int, counter: int, byte: int) -> tuple[int, int] | None:
    """The state and the counter after a byte; None if it is refused."""
    while index := int(procedure.table[state, byte]):
        match procedure.edges[index]:
            case Move(target):
                return target, counter
            case Reset(target):
                return target, 0
            case Count(threshold, below, reached):
                counter += 1
                state = reached if counter == threshold else below
    return None


def takes(procedure: Procedure, text: str | bytes) -> bool:
    """Whether label 0 is returned at the end of the text."""
    place: tuple[int, int] | None = (0, 0)
    for byte in text.encode() if isinstance(text, str) else text:
        place = _after(procedure, *place, byte)
        if place is None:
            return False
    return _is_accepting(procedure, place[0])


def _is_accepting(procedure: Procedure, state: int) -> bool:
    index = int(procedure.table[state, END])
    assert not index or procedure.edges[index] == Return(0, consumes=False)
    return bool(index)


def moves_and_ends(procedure: Procedure) -> tuple[np.ndarray, np.ndarray]:
    """Of a procedure without counts: [num_states + 1, 256] next states, the last state being dead, and who accepts."""
    dead = len(procedure.table)
    target_of = np.array([edge.target if isinstance(edge, Move) else dead for edge in procedure.edges])
    target_of[0] = dead
    targets = np.concatenate([target_of[procedure.table[:, :END]], np.full((1, END), dead)])
    return targets, np.append(procedure.table[:, END] != 0, False)


def configurations_that_cannot_end(procedure: Procedure) -> set[tuple[int, int]]:
    """The states and counters that are reached and from which no text is accepted; for small counts."""
    _, columns = np.unique(procedure.table[:, :END], axis=1, return_index=True)
    sources: dict[tuple[int, int], set[tuple[int, int]]] = {(0, 0): set()}
    waiting = [(0, 0)]
    while waiting:
        place = waiting.pop()
        for byte in columns.tolist():
            after = _after(procedure, *place, byte)
            if after is not None:
                if after not in sources:
                    sources[after] = set()
                    waiting.append(after)
                sources[after].add(place)
    ends = {place for place in sources if _is_accepting(procedure, place[0])}
    waiting = list(ends)
    while waiting:
        for place in sources[waiting.pop()] - ends:
            ends.add(place)
            waiting.append(place)
    return set(sources) - ends if procedure.table.any() else set()
