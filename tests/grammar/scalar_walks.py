"""Walks over the procedure of one scalar, by the definition of the automaton."""

from __future__ import annotations

from collections.abc import Iterator

from sgrun.grammar.limits import Budget, CompileLimits
from sgrun.grammar.numbers import NumberAtom
from sgrun.grammar.procedure import END, Count, Move, Procedure, Return
from sgrun.grammar.scalars import number_procedure, string_procedure
from sgrun.grammar.strings import StringAtom

Place = tuple[int, int]  # state, counter


def bits(truths: tuple[bool, ...]) -> int:
    """A label of its own for every combination of truths."""
    return sum(truth << i for i, truth in enumerate(truths))


def all_hold(truths: tuple[bool, ...]) -> int | None:
    return 0 if all(truths) else None


def numbers(*atoms: NumberAtom) -> Procedure:
    return number_procedure(atoms, bits, Budget(CompileLimits()))


def strings(*atoms: StringAtom) -> Procedure:
    return string_procedure(atoms, bits, Budget(CompileLimits()))


def step(procedure: Procedure, place: Place, column: int) -> Place | Return | None:
    state, counter = place
    while index := int(procedure.table[state, column]):
        match procedure.edges[index]:
            case Move(target):
                return target, counter
            case Return() as returned:
                return returned
            case Count(threshold, below, reached):
                counter += 1
                state = reached if counter == threshold else below
            case edge:
                raise AssertionError(f"a scalar has no {edge}")
    return None


def label_of(procedure: Procedure, text: str | bytes) -> int | None:
    """The label that is returned exactly at the end of the text."""
    data = text.encode() if isinstance(text, str) else text
    place: Place = (0, 0)
    for at, column in enumerate([*data, END]):
        match step(procedure, place, column):
            case Return(label, consumes):
                is_end = at == len(data) - 1 if consumes else column == END
                return label if is_end else None
            case None:
                return None
            case after:
                place = after
    return None


def places(procedure: Procedure) -> dict[Place, set[int]]:
    """Every state and counter that some text leads to, with the labels that can still be returned from there."""
    following: dict[Place, set[Place]] = {}
    labels: dict[Place, set[int]] = {}
    waiting: list[Place] = [(0, 0)]
    while waiting:
        place = waiting.pop()
        if place in following:
            continue
        following[place], labels[place] = set(), set()
        for column in range(END + 1):
            match step(procedure, place, column):
                case Return(label, _):
                    labels[place].add(label)
                case None:
                    pass
                case after:
                    following[place].add(after)
        waiting.extend(following[place])
    changed = True
    while changed:
        changed = False
        for place, targets in following.items():
            found = labels[place].union(*(labels[target] for target in targets))
            changed = changed or found != labels[place]
            labels[place] = found
    return labels


def labels_in_table(procedure: Procedure) -> list[set[int]]:
    """For each state, the labels of all returns that edges lead to, whatever the counter."""
    labels: list[set[int]] = [set() for _ in procedure.table]
    changed = True
    while changed:
        changed = False
        for state, row in enumerate(procedure.table.tolist()):
            found = {label for index in set(row) - {0} for label in _labels_behind(procedure, labels, index)}
            changed = changed or found != labels[state]
            labels[state] = found
    return labels


def _labels_behind(procedure: Procedure, labels: list[set[int]], index: int) -> Iterator[int]:
    match procedure.edges[index]:
        case Move(target):
            yield from labels[target]
        case Count(_, below, reached):
            yield from labels[below] | labels[reached]
        case Return(label, _):
            yield label
