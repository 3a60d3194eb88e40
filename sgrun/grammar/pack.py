"""Owns the last step to an automaton: rows of entries become tables, in which equal states and equal bytes are one."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from sgrun.errors import InvalidGrammarError
from sgrun.grammar.automaton import ACCEPT, CALL, COUNT, DEAD, MOVE, OP_BITS, OP_MASK, RESET, Automaton
from sgrun.grammar.limits import Budget
from sgrun.grammar.procedure import END, NUM_COLUMNS, Columns, Count, Move, Procedure, Reset, Return

PackedRow = tuple[int, list[int]]
"""(state whose entries there are on other bytes, [number of columns, entry, number of columns, entry, ..])"""

_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False, slots=True)
class MergedStates:
    """States under their final numbers; `names` has the one of each state that there was. Cell i is the entry
    `entries[i]` of state `owners[i]` on the columns with the number `columns[i]`."""

    names: _Ints
    bases: _Ints  # [num_states]: the state whose entries there are on other bytes, or DEAD
    owners: _Ints
    columns: _Ints
    entries: _Ints
    sites: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int32]

    @property
    def num_states(self) -> int:
        return len(self.bases)


def merged_states(
    rows: list[PackedRow], sites: list[tuple[int, ...]], counts: list[tuple[int, int, int]]
) -> MergedStates:
    """States that are alike under one number.

    They are looked at from the last one found to the first, so that what a state leads to has got its number before
    it, but for the states of loops, which keep apart.
    """
    names = list(range(len(rows)))
    kept: dict[tuple[int, ...], int] = {}
    known: dict[tuple[int, ...], int] = {}  # sites and counts by what they lead to -> one of them
    for state in range(len(rows) - 1, -1, -1):
        under, cells = rows[state]
        row = [names[under]]
        pairs = iter(cells)
        for columns, entry in zip(pairs, pairs, strict=True):
            op = entry & OP_MASK
            if op in (MOVE, RESET):
                entry = op | names[entry >> OP_BITS] << OP_BITS
            elif op == CALL:
                argument = entry >> OP_BITS
                entry = op | known.setdefault(tuple([names[to] for to in sites[argument]]), argument) << OP_BITS
            elif op == COUNT:
                argument = entry >> OP_BITS
                threshold, below, reached = counts[argument]
                # A negative number first, so that no site is meant.
                entry = op | known.setdefault((-threshold, names[below], names[reached]), argument) << OP_BITS
            row += (columns, entry)
        names[state] = kept.setdefault(tuple(row), state)
    return _renumbered(rows, np.array(names), sites, counts)


def _renumbered(
    rows: list[PackedRow], names: _Ints, sites: list[tuple[int, ...]], counts: list[tuple[int, int, int]]
) -> MergedStates:
    kept, names = np.unique(names, return_inverse=True)
    final = [rows[state] for state in kept.tolist()]
    sizes = [len(cells) // 2 for _, cells in final]
    flat = np.fromiter(chain.from_iterable(cells for _, cells in final), np.int64, 2 * sum(sizes))
    columns, entries = flat[::2], flat[1::2]
    ops, arguments = entries & OP_MASK, entries >> OP_BITS
    is_move, is_call, is_count = (ops == MOVE) | (ops == RESET), ops == CALL, ops == COUNT
    site_table, new_sites = _used(_table(sites, 2), arguments[is_call])
    count_table, new_counts = _used(_table(counts, 3), arguments[is_count])
    arguments[is_move] = names[arguments[is_move]]
    site_table, merged_sites = np.unique(names[site_table], axis=0, return_inverse=True)
    arguments[is_call] = merged_sites.reshape(-1)[new_sites]
    count_table[:, 1:] = names[count_table[:, 1:]]
    count_table, merged_counts = np.unique(count_table, axis=0, return_inverse=True)
    arguments[is_count] = merged_counts.reshape(-1)[new_counts]
    return MergedStates(
        names,
        names[[under for under, _ in final]],
        np.repeat(np.arange(len(final)), sizes),
        columns,
        ops | arguments << OP_BITS,
        site_table.astype(np.int32),
        count_table.astype(np.int32),
    )


def _table(rows: list[tuple[int, ...]] | list[tuple[int, int, int]], width: int) -> _Ints:
    """The rows below each other, shorter ones filled up with 0."""
    table = np.zeros((len(rows), max(map(len, rows), default=width)), dtype=np.int64)
    for cells, row in zip(table, rows, strict=True):
        cells[: len(row)] = row
    return table


def _used(table: _Ints, numbers: _Ints) -> tuple[_Ints, _Ints]:
    """The rows with these numbers, and where among them each of the numbers is found."""
    used, where = np.unique(numbers, return_inverse=True)
    return table[used], where


def packed(
    states: MergedStates,
    columns: list[Columns],
    start: int,
    budget: Budget,
) -> Automaton:
    """The automaton of the states; `columns` by their numbers. Raises GrammarTooLargeError."""
    used = np.unique(states.columns)
    members = np.zeros((len(used), NUM_COLUMNS), dtype=np.bool_)
    for holds, number in zip(members, used.tolist(), strict=True):
        holds[list(columns[number])] = True
    classes = _classes(members)
    representatives = _first_of_each(classes)
    budget.check("max_table_bytes", 4 * states.num_states * len(representatives))
    table = np.zeros((states.num_states, len(representatives)), dtype=np.int32)
    cells = _Cells(states, used, members[:, representatives])
    is_over = states.bases != DEAD
    cells.write(table, ~is_over[states.owners])
    over = np.flatnonzero(is_over)
    table[over] = table[states.bases[over]]
    cells.write(table, is_over[states.owners])
    # Where two entries of a state are the same by now, bytes that were told apart may be alike.
    fewer = _classes(table)
    return Automaton(
        fewer[classes[:END]].astype(np.uint8),
        np.ascontiguousarray(table[:, _first_of_each(fewer)]),
        states.sites,
        states.counts,
        int(states.names[start]),
    )


def packed_procedure(procedure: Procedure, budget: Budget) -> Automaton:
    """The automaton of a procedure without calls that is minimal and can be completed from every state, as those of
    regular languages are: its table as it is. Raises InvalidGrammarError if it has no text, GrammarTooLargeError."""
    if not procedure.table.any():
        raise InvalidGrammarError("the constraint matches nothing: there is no text that satisfies it")
    entries = np.zeros(len(procedure.edges), dtype=np.int32)
    counts: list[tuple[int, int, int]] = []
    for index, edge in enumerate(procedure.edges[1:], start=1):
        match edge:
            case Move(target):
                entries[index] = MOVE | (target + 1) << OP_BITS  # state 0 is dead
            case Reset(target):
                entries[index] = RESET | (target + 1) << OP_BITS
            case Count(threshold, below, reached):
                entries[index] = COUNT | len(counts) << OP_BITS
                counts.append((threshold, below + 1, reached + 1))
            case Return(label, consumes):
                assert (label, consumes) == (0, False), "the text ends at the end of input"
                entries[index] = ACCEPT
    classes = _classes(procedure.table)
    narrow = procedure.table[:, _first_of_each(classes)]
    budget.spend("max_states", len(narrow))
    budget.check("max_table_bytes", narrow.nbytes + narrow[0].nbytes)
    table = np.concatenate([np.zeros((1, narrow.shape[1]), dtype=np.int32), entries[narrow]])
    return Automaton(
        classes[:END].astype(np.uint8),
        table,
        np.zeros((0, 2), dtype=np.int32),
        np.array(counts, dtype=np.int32).reshape(-1, 3),
        start=1,
    )


class _Cells:
    """Where in a table the cells of the states are: the columns numbered used[i] are those that `members[i]` marks."""

    def __init__(self, states: MergedStates, used: _Ints, members: npt.NDArray[np.bool_]) -> None:
        self._states = states
        self._numbers = np.searchsorted(used, states.columns)
        self._places = np.nonzero(members)[1]  # columns of the table, those of one number after the other
        self._sizes = members.sum(axis=1)
        self._starts = np.cumsum(self._sizes) - self._sizes

    def write(self, table: npt.NDArray[np.int32], chosen: npt.NDArray[np.bool_]) -> None:
        numbers = self._numbers[chosen]
        sizes = self._sizes[numbers]
        ends = np.cumsum(sizes)
        within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - sizes, sizes)
        places = self._places[np.repeat(self._starts[numbers], sizes) + within]
        table[np.repeat(self._states.owners[chosen], sizes), places] = np.repeat(self._states.entries[chosen], sizes)


def _classes(table: npt.NDArray[np.generic]) -> _Ints:
    """Equal columns but for the last, which keeps apart, get equal numbers, in the order in which they come."""
    numbers: dict[bytes, int] = {}
    columns = np.ascontiguousarray(table[:, :-1].T)
    found = [numbers.setdefault(column.tobytes(), len(numbers)) for column in columns]
    return np.array([*found, len(numbers)])


def _first_of_each(classes: _Ints) -> _Ints:
    return np.asarray(np.unique(classes, return_index=True)[1])
