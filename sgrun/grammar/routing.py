"""Puts procedures of several front ends side by side: their keys are kept apart by the front end's name, and what was
made to be the whole text is made to be a part of one."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

from sgrun.grammar.explore import Cells, Explorable, LazyCall, ProcedureLike, Row, State
from sgrun.grammar.procedure import END, Call, Overlay, Procedure, Return

Resolve = Callable[[Hashable], ProcedureLike]


@dataclass(frozen=True, slots=True)
class Routed:
    """The procedure `key` of the front end `name`."""

    name: Hashable
    key: Hashable


def routed(name: Hashable, resolve: Resolve) -> Callable[[Routed], ProcedureLike]:
    """`resolve` of a front end for keys that name it, whose procedures call by such keys too."""

    def resolve_routed(routed_key: Routed) -> ProcedureLike:
        source = resolve(routed_key.key)
        if isinstance(source, Overlay):
            return source
        if not isinstance(source, Procedure):
            return _RoutedSource(name, source)
        if not any(isinstance(edge, Call) for edge in source.edges):
            return source
        edges = [
            Call(Routed(name, edge.callee), edge.targets) if isinstance(edge, Call) else edge for edge in source.edges
        ]
        return Procedure(source.table, edges)

    return resolve_routed


@dataclass(frozen=True, slots=True)
class _RoutedSource:
    name: Hashable
    source: Explorable

    def expand(self, state: State) -> Row:
        row = self.source.expand(state)
        cells: Cells = [
            (columns, LazyCall(Routed(self.name, edge.callee), edge.after) if isinstance(edge, LazyCall) else edge)
            for columns, edge in row.cells
        ]
        return Row(cells, row.otherwise)


def start_cells(source: ProcedureLike) -> Cells:
    """What happens at the start of a procedure."""
    assert not isinstance(source, Overlay), "a root is no overlay"
    if not isinstance(source, Procedure):
        return source.expand("start").cells
    return [(source.sparse.columns[number], edge) for number, edge in source.sparse.rows[0]]


def as_part(source: ProcedureLike) -> ProcedureLike:
    """A root procedure that ends at the end of input, so that it also returns before a byte it cannot go on with."""
    assert not isinstance(source, Overlay), "a root is no overlay"
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

    def expand(self, state: State) -> Row:
        row = self.source.expand(state)
        used = {column for columns, _ in row.cells for column in columns}
        for columns, edge in row.cells:
            if END in columns and isinstance(edge, Return):
                return Row([*row.cells, (tuple(byte for byte in range(END) if byte not in used), edge)])
        return row
