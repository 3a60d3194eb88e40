"""Spells an automaton over characters as the inside of a JSON string, byte by byte.

Every spelling of a character leads to the same state: its UTF-8 bytes (RFC 3629), the short escapes and the \\uXXXX
escapes of RFC 8259 section 7, a pair of them above U+FFFF. Lone surrogates are not spelled: they are no characters.
\\uXXXX of printable ASCII, which no serialiser writes, is left out unless all of it is alike, and all \\uXXXX but those
of control characters where telling the characters apart by their hex digits would take very many states.

Code points (and UTF-16 code units) form tries that are the same for every state. A state in the middle of a character
is a node of such a trie together with the state the character began in; two of them are the same if their rows are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from sgrun.grammar.charset import CodePoints
from sgrun.grammar.labelled import Table
from sgrun.grammar.limits import Budget
from sgrun.grammar.procedure import NUM_COLUMNS

SHORT_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t"}

_MAX_HEX_CELLS = 10_000  # states times ranges of characters

_Run = tuple[int, int, int]  # first index, last index, value: a column of targets
_Columns = npt.NDArray[np.int64]
_CONTINUATION = np.arange(0x80, 0xC0)
_LOWER_HEX = np.frombuffer(b"0123456789abcdef", dtype=np.uint8).astype(np.int64)
_UPPER_HEX = np.frombuffer(b"0123456789ABCDEF", dtype=np.uint8).astype(np.int64)


def spell(targets: Table, atom_sets: Sequence[CodePoints], first_inner: int, budget: Budget) -> tuple[Table, Table]:
    """Spells `targets[state, atom]`, where the value 0 means that the character is refused.

    Atoms are disjoint sets of characters. Returns two tables over bytes, [.., 257]: the rows of the given states, and
    those of the states within characters, which are numbered from `first_inner`.
    """
    runs = sorted((low, high, atom) for atom, pairs in enumerate(atom_sets) for low, high in pairs)
    budget.check("max_work_bytes", 4 * NUM_COLUMNS * len(targets))
    inner = _InnerStates(first_inner, budget)
    rows = np.zeros((len(targets), NUM_COLUMNS), dtype=np.int32)
    for low, high, atom in _clip(runs, 0x20, 0x7F):
        rows[:, low : high + 1] = targets[:, atom, None]
    _add_utf8(rows, targets, runs, inner)
    rows[:, ord('"')] = 0
    rows[:, ord("\\")] = _escapes(targets, runs, inner)
    return rows, inner.table()


def _add_utf8(rows: Table, targets: Table, runs: list[_Run], inner: _InnerStates) -> None:
    for num_more, (first, last, lead) in enumerate(
        [(0x80, 0x7FF, 0xC0), (0x800, 0xFFFF, 0xE0), (0x10000, 0x10FFFF, 0xF0)], 1
    ):
        folded, reached = _clip(runs, first, last), targets
        for _ in range(num_more):
            folded, reached = _fold(folded, reached, 64, 0, [_CONTINUATION], inner)
        for low, high, node in folded:
            rows[:, lead + low : lead + high + 1] = reached[:, node, None]


def _escapes(targets: Table, runs: list[_Run], inner: _InnerStates) -> Table:
    """For each state, the state behind a backslash."""
    rows = np.zeros((len(targets), NUM_COLUMNS), dtype=np.int32)
    for low, high, atom in _clip(runs, 0, 0x7F):
        for char, letter in SHORT_ESCAPES.items():
            if low <= ord(char) <= high:
                rows[:, ord(letter)] = targets[:, atom]
    hex_runs = _hex_runs(targets, runs)
    if hex_runs:
        rows[:, ord("u")] = _hex_escapes(targets, hex_runs, inner)
    return inner.add(rows)


def _hex_runs(targets: Table, runs: list[_Run]) -> list[_Run]:
    """The characters that are also spelled \\uXXXX."""
    if len({atom for _, _, atom in _clip(runs, 0x20, 0x7E)}) == 1:
        return runs
    taken = set(np.flatnonzero(targets.any(axis=0)).tolist())
    rare = [run for run in _clip(runs, 0, 0x1F) + _clip(runs, 0x7F, 0x10FFFF) if run[2] in taken]
    num_states = int(targets[:, sorted({atom for _, _, atom in rare})].any(axis=1).sum())
    return rare if num_states * len(rare) <= _MAX_HEX_CELLS else _clip(rare, 0, 0x1F)


def _hex_escapes(targets: Table, runs: list[_Run], inner: _InnerStates) -> Table:
    """For each state, the state behind \\u."""
    hex_digits = [_LOWER_HEX, _UPPER_HEX]
    # The second unit of a pair: its last ten bits, read after `\\u` and the digit d.
    pairs, reached = _clip(runs, 0x10000, 0x10FFFF, shift=-0x10000), targets
    for size, offset, columns in [(16, 0, hex_digits), (16, 0, hex_digits), (4, 12, hex_digits), (1, 13, hex_digits)]:
        pairs, reached = _fold(pairs, reached, size, offset, columns, inner)
    for char in "u\\":
        pairs, reached = _fold(pairs, reached, 1, 0, [np.array([ord(char)])], inner)
    # The first unit: a character of its own, or the first ten bits of a pair.
    num_atoms = targets.shape[1]
    units = _clip(runs, 0, 0xFFFF)
    units += [(0xD800 + low, 0xD800 + high, num_atoms + node) for low, high, node in pairs]
    units, reached = sorted(units), np.concatenate([targets, reached], axis=1)
    for _ in range(4):
        units, reached = _fold(units, reached, 16, 0, hex_digits, inner)
    ((_, _, root),) = units
    return np.asarray(reached[:, root])


def _fold(
    runs: list[_Run],
    below: Table,
    size: int,
    offset: int,
    columns: Sequence[_Columns],
    inner: _InnerStates,
) -> tuple[list[_Run], Table]:
    """One level of a trie: runs over indices become runs over index // size, their values the nodes that hold the
    cells, and with them the states at these nodes: [num_states, num_nodes].

    Cell i of a node is read by the bytes `columns[..][offset + i]`.
    """
    folded: list[_Run] = []
    nodes: dict[tuple[_Run, ...], int] = {}
    for first, last, pieces in _blocks(runs, size):
        node = nodes.setdefault(pieces, len(nodes))
        if folded and folded[-1][1] + 1 == first and folded[-1][2] == node:
            folded[-1] = (folded[-1][0], last, node)
        else:
            folded.append((first, last, node))
    reached = np.zeros((len(below), len(nodes)), dtype=np.int32)
    for pieces, node in nodes.items():
        values = below[:, [value for _, _, value in pieces]]
        live = np.flatnonzero(values.any(axis=1))
        if len(live) == 0:
            continue
        distinct, back = np.unique(values[live], axis=0, return_inverse=True) if len(live) > 1 else (values[live], [0])
        rows = np.zeros((len(distinct), NUM_COLUMNS), dtype=np.int32)
        for i, (low, high, _) in enumerate(pieces):
            for bytes_of in columns:
                rows[:, bytes_of[offset + low : offset + high + 1]] = distinct[:, i, None]
        reached[live, node] = inner.add(rows)[back]
    return folded, reached


def _blocks(runs: Iterable[_Run], size: int) -> Iterable[tuple[int, int, tuple[_Run, ...]]]:
    """Cuts runs at multiples of `size`: (first block, last block, runs over the cells within each of these blocks)."""
    pieces: list[_Run] = []
    block = -1
    for low, high, value in runs:
        while low <= high:
            if low // size != block:
                if pieces:
                    yield block, block, tuple(pieces)
                    pieces = []
                block = low // size
            if low % size == 0 and high - low + 1 >= size:
                end = (high + 1) // size - 1
                yield block, end, ((0, size - 1, value),)
                low = (end + 1) * size
                block = -1
                continue
            end = min(high, block * size + size - 1)
            pieces.append((low % size, end % size, value))
            low = end + 1
    if pieces:
        yield block, block, tuple(pieces)


class _InnerStates:
    """Numbers rows from `first` on; equal rows get the same number, and those that refuse everything 0."""

    def __init__(self, first: int, budget: Budget) -> None:
        self._first = first
        self._budget = budget
        self._numbers: dict[bytes, int] = {}

    def add(self, rows: Table) -> Table:
        known = len(self._numbers)
        live = np.flatnonzero(rows.any(axis=1))
        numbers = np.zeros(len(rows), dtype=np.int32)
        numbers[live] = [
            self._first + self._numbers.setdefault(row.tobytes(), len(self._numbers)) for row in rows[live]
        ]
        self._budget.spend("max_states", len(self._numbers) - known)
        self._budget.check("max_work_bytes", 4 * NUM_COLUMNS * len(self._numbers))
        return numbers

    def table(self) -> Table:
        return np.frombuffer(b"".join(self._numbers), dtype=np.int32).reshape(-1, NUM_COLUMNS)


def _clip(runs: Iterable[_Run], first: int, last: int, shift: int = 0) -> list[_Run]:
    return [
        (max(low, first) + shift, min(high, last) + shift, value)
        for low, high, value in runs
        if low <= last and high >= first
    ]
