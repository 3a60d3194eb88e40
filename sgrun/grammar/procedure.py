"""What front ends build: graphs over bytes that recognise one value, key or rule and return a label for it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

END = 256  # the column of the end of input
NUM_COLUMNS = 257

Columns = tuple[int, ...]  # bytes, and END


@dataclass(frozen=True, slots=True)
class Move:
    """Consumes the byte."""

    target: int


@dataclass(frozen=True, slots=True)
class Call:
    """Runs another procedure from this byte on. `targets`: (label, state after it); other labels are not wanted."""

    callee: Hashable
    targets: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Return:
    """Ends the procedure with a label, with this byte as the last one or before it."""

    label: int
    consumes: bool


@dataclass(frozen=True, slots=True)
class Count:
    """Adds 1 to the procedure's counter, which is 0 at its start, without consuming the byte."""

    threshold: int
    below: int
    reached: int


@dataclass(frozen=True, slots=True)
class Reset:
    """Consumes the byte and sets the counter to 0."""

    target: int


Edge = Move | Call | Return | Count | Reset


@dataclass(frozen=True, eq=False, slots=True)
class SparseRows:
    """For each state its edges, each with the number of the columns that it is for."""

    columns: list[Columns]
    rows: list[list[tuple[int, Edge]]]


@dataclass(frozen=True, eq=False)
class Procedure:
    """`table[state, byte or END]` is an index into `edges`; 0, where edges[0] is never used, means that the text is
    refused. State 0 is the start. No path of edges that do not consume leads back to its beginning."""

    table: npt.NDArray[np.int32]  # [num_states, 257]
    edges: list[Edge]

    @cached_property
    def sparse(self) -> SparseRows:
        alike: dict[bytes, list[int]] = {}
        for column, cells in enumerate(np.ascontiguousarray(self.table.T)):
            alike.setdefault(cells.tobytes(), []).append(column)
        groups = list(alike.values())
        numbers: dict[tuple[int, ...], int] = {}
        rows = []
        for row in self.table[:, [group[0] for group in groups]].tolist():
            used: dict[int, list[int]] = {}
            for group, index in enumerate(row):
                if index:
                    used.setdefault(index, []).append(group)
            rows.append(
                [
                    (numbers.setdefault(tuple(members), len(numbers)), self.edges[index])
                    for index, members in used.items()
                ]
            )
        columns = [tuple(column for group in members for column in groups[group]) for members in numbers]
        return SparseRows(columns, rows)


@dataclass(frozen=True, eq=False, slots=True)
class Overlay:
    """A procedure written over another one, `base`, which has no calls: a state does what a state of the base does,
    but on the given bytes; None refuses them. State 0 is the start. Without a base, what is not given is refused.

    Labels of the base are lower than those of the overlay's own edges, and each stays possible wherever the base's
    state is written over.
    """

    base: Procedure | None
    rows: list[tuple[int | None, list[tuple[Columns, Move | Return | None]]]]  # (state of the base, what differs)


class ProcedureBuilder:
    """Collects states and edges; equal edges are stored once."""

    def __init__(self) -> None:
        self._rows: list[npt.NDArray[np.int32]] = []
        self._edges: list[Edge] = [Move(0)]
        self._indices: dict[Edge, int] = {}

    def add_state(self) -> int:
        self._rows.append(np.zeros(NUM_COLUMNS, dtype=np.int32))
        return len(self._rows) - 1

    @property
    def num_states(self) -> int:
        return len(self._rows)

    def add_edge(self, state: int, columns: int | slice | list[int], edge: Edge) -> None:
        """Sets what happens in `state` on these bytes; they must be free."""
        index = self._indices.get(edge)
        if index is None:
            index = self._indices[edge] = len(self._edges)
            self._edges.append(edge)
        row = self._rows[state]
        assert not np.any(row[columns]), f"two edges for one byte in state {state}"
        row[columns] = index

    def target_of(self, state: int, byte: int) -> int | None:
        """Where a Move leads on `byte`, if there is one."""
        index = int(self._rows[state][byte])
        edge = self._edges[index]
        return edge.target if index and isinstance(edge, Move) else None

    def build(self) -> Procedure:
        return Procedure(np.stack(self._rows), self._edges)
