"""The procedures for JSON numbers and strings: which of the asked assertions hold of a value, as a label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import product

import numpy as np
import numpy.typing as npt

from sgrun.grammar.charset import CodePoints, union
from sgrun.grammar.formats import is_known_format
from sgrun.grammar.labelled import DEAD, NO_LABEL, START, Labels, minimize_labelled
from sgrun.grammar.lengths import CountedTable, with_lengths
from sgrun.grammar.limits import Budget, CompileLimits
from sgrun.grammar.number_syntax import SYMBOLS
from sgrun.grammar.numbers import (
    AtLeast,
    AtMost,
    Integer,
    MultipleOf,
    NumberAtom,
    NumberEquals,
    number_holds,
    number_table,
)
from sgrun.grammar.procedure import NUM_COLUMNS, Count, Edge, Move, Procedure, Return
from sgrun.grammar.spelling import spell
from sgrun.grammar.strings import (
    Format,
    LengthAtLeast,
    LengthAtMost,
    Pattern,
    StringAtom,
    StringPart,
    TextEquals,
    string_holds,
    string_parts,
)
from sgrun.grammar.texts import TextPart, text_factor

__all__ = [
    "AtLeast",
    "AtMost",
    "Format",
    "Integer",
    "LengthAtLeast",
    "LengthAtMost",
    "MultipleOf",
    "NumberAtom",
    "NumberEquals",
    "Pattern",
    "StringAtom",
    "TextEquals",
    "atom_problem",
    "number_holds",
    "number_procedure",
    "string_holds",
    "string_procedure",
]

LabelOf = Callable[[tuple[bool, ...]], int | None]


def atom_problem(atom: StringAtom) -> None:
    """Raises what a procedure with this atom would: InvalidGrammarError for a malformed pattern,
    UnsupportedGrammarError for one that is not followed, GrammarTooLargeError. Unknown formats are annotations, which
    always hold."""
    if isinstance(atom, Pattern):
        string_parts(atom, Budget(CompileLimits()))


def number_procedure(atoms: Sequence[NumberAtom], label_of: LabelOf, budget: Budget) -> Procedure:
    """Reads a JSON number from its first byte; it ends before the byte that does not continue it, or at END.

    `label_of` maps which atoms hold (in their order) to the label to return, None for numbers that are not wanted.
    Raises GrammarTooLargeError.
    """
    if len(atoms) <= 3 and all(map(_is_common, atoms)):
        labels = tuple(label_of(truths) for truths in product((False, True), repeat=len(atoms)))
        return _common_number_procedure(tuple(atoms), labels)
    return _number_procedure(atoms, label_of, budget)


def _is_common(atom: NumberAtom) -> bool:
    """Of a kind of which there are few, with small tables."""
    match atom:
        case AtLeast(value, _) | AtMost(value, _):
            return value.denominator == 1 and abs(value) < 1000
    return isinstance(atom, Integer)


@lru_cache(maxsize=256)
def _common_number_procedure(atoms: tuple[NumberAtom, ...], labels: tuple[int | None, ...]) -> Procedure:
    """`labels`: for each way in which atoms hold, in the order of their binary numbers."""

    def label_of(truths: tuple[bool, ...]) -> int | None:
        return labels[sum(truth << place for place, truth in enumerate(reversed(truths)))]

    return _number_procedure(atoms, label_of, Budget(CompileLimits()))


def _number_procedure(atoms: Sequence[NumberAtom], label_of: LabelOf, budget: Budget) -> Procedure:
    explored = number_table(tuple(atoms), budget)
    numbered = _Numbered(label_of)
    labels = _labels(explored.truths, numbered)
    table, labels, _ = minimize_labelled(explored.table, labels)
    budget.check("max_work_bytes", 4 * NUM_COLUMNS * len(table))
    targets = np.zeros((len(table), NUM_COLUMNS), dtype=np.int32)
    targets[:, [ord(symbol) for symbol in SYMBOLS]] = table
    targets[:, ord("E")] = targets[:, ord("e")]
    edges: list[Edge] = [Move(state) for state in range(len(table))]
    for label in np.unique(labels[labels != NO_LABEL]).tolist():
        rows = targets[labels == label]
        targets[labels == label] = np.where(rows == 0, len(edges), rows)
        edges.append(Return(numbered.labels[label], consumes=False))
    if len(table) > 1:  # state 0 is free, as nothing is the edge that refuses
        targets[DEAD] = targets[START]
    return Procedure(targets, edges)


def string_procedure(atoms: Sequence[StringAtom], label_of: LabelOf, budget: Budget) -> Procedure:
    """Reads a JSON string from its opening to its closing quote; `label_of` as for numbers.

    Raises InvalidGrammarError, UnsupportedGrammarError (a pattern) or GrammarTooLargeError.
    """
    if len(atoms) == 1 and isinstance(atoms[0], Format) and is_known_format(atoms[0].name):
        return _format_procedure(atoms[0].name, label_of((False,)), label_of((True,)))
    return _string_procedure(atoms, label_of, budget)


@lru_cache(maxsize=64)
def _format_procedure(name: str, other_label: int | None, label: int | None) -> Procedure:
    """The most frequent of the large string procedures; there are few of them."""
    return _string_procedure(
        [Format(name)], lambda truths: label if truths[0] else other_label, Budget(CompileLimits())
    )


def _string_procedure(atoms: Sequence[StringAtom], label_of: LabelOf, budget: Budget) -> Procedure:
    parts_of = {atom: string_parts(atom, budget) for atom in dict.fromkeys(atoms)}
    parts = list(dict.fromkeys(part for parts in parts_of.values() for part in parts))
    texts = [part for part in parts if not isinstance(part, LengthAtLeast | LengthAtMost)]
    thresholds = sorted({_threshold(part) for part in parts if isinstance(part, LengthAtLeast | LengthAtMost)} - {0})
    factor, columns = text_factor(texts, budget)
    text_truths = dict(zip(texts, factor.truths[:, columns].T, strict=True))
    numbered = _Numbered(label_of)
    labels = [
        _string_labels([parts_of[atom] for atom in atoms], text_truths, len(factor.table), length, numbered)
        for length in (0, *thresholds)
    ]
    counted = with_lengths(factor.table, factor.start, np.stack(labels, axis=1), thresholds, budget)
    sets, counted = _without_twins(factor.sets, counted)

    # A state that counts goes on, by the first byte of a character, to a state with what may follow below the
    # threshold or to one with what may follow where it is reached.
    num_outer = len(counted.below)
    followers: dict[bytes, int] = {}
    counts: dict[int, Count] = {}
    for state in np.flatnonzero(counted.thresholds).tolist():
        below, reached = (
            followers.setdefault(row.tobytes(), num_outer + len(followers))
            for row in (counted.below[state], counted.reached[state])
        )
        counts[state] = Count(int(counted.thresholds[state]), below, reached)
    following = np.frombuffer(b"".join(followers), dtype=np.int32).reshape(-1, len(sets))
    targets = np.concatenate([counted.below, following])
    rows, inner = spell(targets, sets, len(targets), budget)

    edges: list[Edge] = [Move(state) for state in range(len(targets) + len(inner))]
    for state, count in counts.items():
        is_possible = (rows[count.below] != 0) | (rows[count.reached] != 0)
        rows[state] = np.where(is_possible, len(edges), 0)
        edges.append(count)
    for label in np.unique(counted.labels[counted.labels != NO_LABEL]).tolist():
        rows[np.flatnonzero(counted.labels == label), ord('"')] = len(edges)
        edges.append(Return(numbered.labels[label], consumes=True))
    if num_outer > START:  # state 0 is free, as nothing is the edge that refuses
        rows[DEAD, ord('"')] = START
    return Procedure(np.concatenate([rows, inner]), edges)


class _Numbered:
    """Labels by their place in `labels`: they may be larger than what an array holds."""

    def __init__(self, label_of: LabelOf) -> None:
        self._label_of = label_of
        self._numbers: dict[int, int] = {}

    @property
    def labels(self) -> list[int]:
        return list(self._numbers)

    def __call__(self, truths: tuple[bool, ...]) -> int | None:
        label = self._label_of(truths)
        return None if label is None else self._numbers.setdefault(label, len(self._numbers))


def _threshold(atom: LengthAtLeast | LengthAtMost) -> int:
    """The length at which the atom's truth changes."""
    return atom.count if isinstance(atom, LengthAtLeast) else atom.count + 1


def _string_labels(
    parts_of_atoms: list[list[StringPart]],
    text_truths: dict[TextPart, npt.NDArray[np.bool_]],
    num_states: int,
    length: int,
    label_of: LabelOf,
) -> Labels:
    """For each state, the label of texts of this length that end there."""
    truths = np.ones((num_states, len(parts_of_atoms)), dtype=np.bool_)
    for column, parts in enumerate(parts_of_atoms):
        for part in parts:
            if isinstance(part, LengthAtLeast | LengthAtMost):
                truths[:, column] &= (length >= _threshold(part)) == isinstance(part, LengthAtLeast)
            else:
                truths[:, column] &= text_truths[part]
    held = [row.tobytes() for row in truths]
    first = {key: state for state, key in enumerate(held)}
    labels = dict(
        zip(first, _labels([tuple(truths[state].tolist()) for state in first.values()], label_of), strict=True)
    )
    return np.array([labels[key] for key in held], dtype=np.int32)


def _without_twins(sets: list[CodePoints], counted: CountedTable) -> tuple[list[CodePoints], CountedTable]:
    """Joins sets of characters that no state tells apart."""
    columns = np.ascontiguousarray(np.concatenate([counted.below, counted.reached]).T)
    twins: dict[bytes, list[int]] = {}
    for atom, column in enumerate(columns):
        twins.setdefault(column.tobytes(), []).append(atom)
    if len(twins) == len(sets):
        return sets, counted
    joined = [union(*(sets[atom] for atom in atoms)) for atoms in twins.values()]
    first = [atoms[0] for atoms in twins.values()]
    return joined, CountedTable(counted.below[:, first], counted.reached[:, first], counted.labels, counted.thresholds)


def _labels(truths: Sequence[tuple[bool, ...] | None], label_of: LabelOf) -> Labels:
    known: dict[tuple[bool, ...] | None, int | None] = {None: None}
    for held in truths:
        if held not in known and held is not None:
            known[held] = label_of(held)
    labels = [known[held] for held in truths]
    return np.array([NO_LABEL if label is None else label for label in labels], dtype=np.int32)
