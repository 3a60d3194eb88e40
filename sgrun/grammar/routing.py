"""Puts procedures of several front ends side by side: their keys are kept apart by the front end's name, and what was
made to be the whole text is made to be a part of one."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np

from sgrun.grammar.explore import Cells, Columns, Explorable, LazyCall, LazyEdge, State
from sgrun.grammar.procedure import END, Call, Edge, Procedure, Return

Resolve = Callable[[Hashable], Explorable | Procedure]


@dataclass(frozen=True, slots=True)
class Routed:
    """The procedure `key` of the front end `name`."""

    name: Hashable
    key: Hashable


def routed(name: Hashable, resolve: Resolve) -> Callable[[Routed], Explorable | Procedure]:
    """`resolve` of a front end for keys that name it, whose procedures call by such keys too."""

    def resolve_routed(routed_key: Routed) -> Explorable | Procedure:
        source = resolve(routed_key.key)
        if not isinstance(source, Procedure):
            return _RoutedSource(name, source)
        edges = [
            Call(Routed(name, edge.callee), edge.targets) if isinstance(edge, Call) else edge for edge in source.edges
        ]
        return Procedure(source.table, edges)

    return resolve_routed


@dataclass(frozen=True, slots=True)
class _RoutedSource:
    name: Hashable
    source: Explorable

    def expand(self, state: State) -> Cells:
        return [
            (columns, LazyCall(Routed(self.name, edge.callee), edge.after) if isinstance(edge, LazyCall) else edge)
            for columns, edge in self.source.expand(state)
        ]


def columns_of(columns: Columns) -> list[int]:
    """The bytes (and END) that an edge is for."""
    if isinstance(columns, int):
        return [columns]
    return list(range(*columns.indices(END + 1))) if isinstance(columns, slice) else columns


def start_cells(source: Explorable | Procedure) -> list[tuple[Columns, LazyEdge | Edge]]:
    """What happens at the start of a procedure."""
    if not isinstance(source, Procedure):
        return list(source.expand("start"))
    row = source.table[0]
    return [(np.flatnonzero(row == index).tolist(), source.edges[index]) for index in np.unique(row).tolist() if index]


def as_part(source: Explorable | Procedure) -> Explorable | Procedure:
    """A root procedure that ends at the end of input, so that it also returns before a byte it cannot go on with."""
    if not isinstance(source, Procedure):
        return _Part(source)
    table = source.table.copy()
    for row in table:
        if isinstance(source.edges[row[END]], Return):
            row[row == 0] = row[END]
    return Procedure(table, source.edges)


@dataclass(frozen=True, slots=True)
class _Part:
    source: Explorable

    def expand(self, state: State) -> Cells:
        cells = self.source.expand(state)
        used = {column for columns, _ in cells for column in columns_of(columns)}
        for columns, edge in cells:
            if END in columns_of(columns) and isinstance(edge, Return):
                return [*cells, ([byte for byte in range(END) if byte not in used], edge)]
        return cells
