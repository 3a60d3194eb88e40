"""Expands a DFA over code points into one over the bytes of their UTF-8 encoding (RFC 3629).

The code points form a trie of at most four bytes, the same for every state. A state in the middle of a code point is
a node of that trie together with the state the code point began in; two of them are the same state if their rows are.
Rows are compared from the last byte of a code point backwards, so a minimal DFA becomes a minimal byte DFA: a state
inside a code point is never equivalent to one between two code points.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sgrun.grammar.charset import CodePoints
from sgrun.grammar.dfa import Dfa
from sgrun.grammar.limits import Budget

_Run = tuple[int, int, int]  # first index, last index, value: an atom, or a node of the level below
_States = npt.NDArray[np.int32]
_CHUNK_BYTES = 2**23  # how much of the rows is made at once


@dataclass(frozen=True, eq=False, slots=True)
class ByteDfa:
    """`transitions[state, byte_classes[byte]]`; state 0 is the dead sink, state 1 the start."""

    byte_classes: npt.NDArray[np.uint8]  # [256]
    transitions: npt.NDArray[np.int32]  # [num_states, num_classes]
    accepting: npt.NDArray[np.bool_]  # [num_states]


def expand(dfa: Dfa, atom_sets: list[CodePoints], budget: Budget) -> ByteDfa:
    """The same over bytes: the states of `dfa` first, then those inside code points. Raises GrammarTooLargeError."""
    runs = sorted((low, high, atom) for atom, pairs in enumerate(atom_sets) for low, high in pairs)
    levels = [_Level(), _Level(), _Level()]  # nodes with one, two and three bytes to come
    leads = [(0, low, high, atom) for low, high, atom in _clip(runs, 0, 0x7F)]
    for num_more, (first, last, lead_byte) in enumerate(
        [(0x80, 0x7FF, 0xC0), (0x800, 0xFFFF, 0xE0), (0x10000, 0x10FFFF, 0xF0)], 1
    ):
        folded = _clip(runs, first, last)
        for level in levels[:num_more]:
            folded = level.fold(folded)
        leads.extend((num_more, lead_byte + low, lead_byte + high, node) for low, high, node in folded)

    reached = [dfa.transitions]  # by bytes to come: [num_outer, number of atoms or nodes]
    inner_rows: list[_States] = []
    num_states = len(dfa.transitions)
    for level in levels:
        rows = _DistinctRows(num_states, budget)
        reached.append(level.reached(reached[-1], rows, budget))
        inner_rows.append(rows.table())
        num_states += len(rows.table())
    return _assemble(dfa, leads, reached, np.concatenate(inner_rows), budget)


class _Level:
    """The different trie nodes with the same number of bytes still to come, each as runs over its 64 next bytes."""

    def __init__(self) -> None:
        self._nodes: dict[tuple[_Run, ...], int] = {}

    def fold(self, runs: Iterable[_Run]) -> list[_Run]:
        """Runs over indices become runs over index // 64, their values the nodes that hold the 64 cells."""
        folded: list[_Run] = []
        pieces: list[_Run] = []
        block = -1

        def close() -> None:
            if pieces:
                _append(folded, (block, block, self._node(pieces)))
                pieces.clear()

        for low, high, value in runs:
            for start, end in _split_at_blocks(low, high):
                if start >> 6 != block:
                    close()
                    block = start >> 6
                if end >> 6 == block:
                    pieces.append((start & 63, end & 63, value))
                else:  # whole blocks
                    _append(folded, (block, end >> 6, self._node([(0, 63, value)])))
        close()
        return folded

    def _node(self, pieces: list[_Run]) -> int:
        return self._nodes.setdefault(tuple(pieces), len(self._nodes))

    def reached(self, below: _States, rows: _DistinctRows, budget: Budget) -> _States:
        """For each outer state and node, the inner state there: [num_outer, num_nodes]; adds its row to `rows`."""
        budget.check("max_work_bytes", 4 * len(below) * len(self._nodes))
        values = np.full((len(self._nodes), 64), below.shape[1], dtype=np.int64)  # the last value: no text goes on
        for pieces, node in self._nodes.items():
            for low, high, value in pieces:
                values[node, low : high + 1] = value
        padded = np.concatenate([below, np.zeros((len(below), 1), dtype=np.int32)], axis=1)
        states = np.zeros((len(below), len(self._nodes)), dtype=np.int32)
        step = max(1, _CHUNK_BYTES // max(1, 4 * values.size))
        for first in range(0, len(below), step):
            cells = padded[first : first + step][:, values]  # [outer states, nodes, 64]
            is_live = cells.any(axis=2)
            states[first : first + step][is_live] = rows.add(cells[is_live])
        return states


class _DistinctRows:
    """Numbers rows; equal rows get the same number."""

    def __init__(self, first: int, budget: Budget) -> None:
        self._first = first
        self._budget = budget
        self._numbers: dict[bytes, int] = {}

    def add(self, rows: _States) -> list[int]:
        data = rows.tobytes()
        width = rows.shape[1] * rows.itemsize
        numbers = [
            self._numbers.setdefault(data[at : at + width], self._first + len(self._numbers))
            for at in range(0, len(data), width)
        ]
        self._budget.check("max_states", self._first + len(self._numbers))
        return numbers

    def table(self) -> _States:
        return np.frombuffer(b"".join(self._numbers), dtype=np.int32).reshape(-1, 64)


def _assemble(
    dfa: Dfa, leads: list[tuple[int, int, int, int]], reached: list[_States], inner: _States, budget: Budget
) -> ByteDfa:
    """Joins outer and inner states to one table, one column for each class of bytes that no state tells apart."""
    num_outer, num_states = len(dfa.transitions), len(dfa.transitions) + len(inner)
    classes: dict[bytes, int] = {bytes(4 * num_states): 0}  # a column's content -> its class; 0: always dead
    byte_classes = np.zeros(256, dtype=np.uint8)
    column = np.zeros(num_states, dtype=np.int32)

    def class_of_column() -> int:
        number = classes.setdefault(column.tobytes(), len(classes))
        budget.check("max_table_bytes", len(classes) * column.nbytes)
        return number

    for num_more, low, high, value in leads:
        column[:num_outer] = reached[num_more][:, value]
        byte_classes[low : high + 1] = class_of_column()
    column[:num_outer] = 0
    for cell in range(64):
        column[num_outer:] = inner[:, cell]
        byte_classes[0x80 + cell] = class_of_column()
    transitions = np.frombuffer(b"".join(classes), dtype=np.int32).reshape(len(classes), num_states).T
    accepting = np.zeros(num_states, dtype=np.bool_)
    accepting[:num_outer] = dfa.accepting
    return ByteDfa(byte_classes, np.array(transitions, order="C"), accepting)


def _clip(runs: Iterable[_Run], first: int, last: int) -> list[_Run]:
    return [(max(low, first), min(high, last), value) for low, high, value in runs if low <= last and high >= first]


def _split_at_blocks(low: int, high: int) -> list[tuple[int, int]]:
    """Cuts a range into its part of the first block of 64, the whole blocks in the middle, its part of the last one."""
    parts = []
    if low & 63:
        end = min(high, low | 63)
        parts.append((low, end))
        low = end + 1
    whole_end = ((high + 1) & ~63) - 1
    if low < whole_end:
        parts.append((low, whole_end))
        low = whole_end + 1
    if low <= high:
        parts.append((low, high))
    return parts


def _append(runs: list[_Run], run: _Run) -> None:
    """Adds a run, joined to the last one where it goes on with the same value."""
    if runs and runs[-1][1] + 1 == run[0] and runs[-1][2] == run[2]:
        runs[-1] = (runs[-1][0], run[1], run[2])
    else:
        runs.append(run)
