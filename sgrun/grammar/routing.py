"""Puts procedures of several front ends side by side: their keys are kept apart by the front end's name."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

from sgrun.grammar.explore import Cells, Explorable, LazyCall, State
from sgrun.grammar.procedure import Call, Procedure

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
