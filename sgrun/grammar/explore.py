"""Explores procedures from the root as far as texts lead: which states are reached, and which labels are ever returned.

A call goes on with a label only once its callee is known to return it, so nothing is built for combinations that no
text has, and what is found is exactly what can happen (the least fixed point).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from sgrun.grammar.limits import Budget
from sgrun.grammar.procedure import NUM_COLUMNS, Call, Count, Edge, Move, Procedure, Reset, Return

State = Hashable
Columns = int | slice | list[int]


@dataclass(frozen=True, slots=True)
class LazyCall:
    """Runs another procedure; `after(label)` is the state to go on with, None where the label is not wanted."""

    callee: Hashable
    after: Callable[[int], State | None]


@dataclass(frozen=True, slots=True)
class LazyMove:
    target: State


@dataclass(frozen=True, slots=True)
class LazyCount:
    threshold: int
    below: State
    reached: State | None


LazyEdge = LazyMove | LazyCall | LazyCount | Return
Cells = list[tuple[Columns, LazyEdge]]


class Row:
    """What happens in one state, edge by edge, on the given bytes or END."""

    def __init__(self) -> None:
        self.cells: Cells = []

    def add(self, columns: Columns, edge: LazyEdge) -> None:
        self.cells.append((columns, edge))


class Explorable(Protocol):
    """A procedure that is made state by state; its start state is "start"."""

    def expand(self, state: State) -> Cells: ...


@dataclass(slots=True)
class CallSite:
    """A call of an explored procedure: label -> state, for the labels that its callee returns and that are wanted."""

    callee: Part
    after: Callable[[int], State | None]
    targets: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CountSite:
    threshold: int
    below: int
    reached: int | None


Explored = Move | Reset | Return | CountSite | CallSite


@dataclass(slots=True, eq=False)
class Part:
    """One procedure as far as it was explored: `rows[state][byte or END]` indexes `edges`; 0 is no edge."""

    key: Hashable
    rows: list[npt.NDArray[np.int32]] = field(default_factory=list)
    edges: list[Explored] = field(default_factory=lambda: [Move(0)])
    labels: set[int] = field(default_factory=set)
    callers: list[tuple[Part, CallSite]] = field(default_factory=list)
    states: dict[State, int] = field(default_factory=dict)


class Explorer:
    def __init__(self, resolve: Callable[[Hashable], Explorable | Procedure], budget: Budget) -> None:
        self.parts: dict[Hashable, Part] = {}
        self._resolve = resolve
        self._budget = budget
        self._sources: dict[Hashable, Explorable] = {}
        self._waiting: deque[tuple[Part, State]] = deque()

    def explore(self, root: Hashable) -> Part:
        part = self._part(root)
        while self._waiting:
            part_, state = self._waiting.popleft()
            self._expand(part_, state)
        return part

    def _part(self, key: Hashable) -> Part:
        part = self.parts.get(key)
        if part is None:
            part = self.parts[key] = Part(key)
            source = self._resolve(key)
            if isinstance(source, Procedure):
                if not any(isinstance(edge, Call) for edge in source.edges):
                    self._take_whole(part, source)
                    return part
                source = _StaticSource(source)
                self._sources[key] = source
                self._state(part, 0)
            else:
                self._sources[key] = source
                self._state(part, "start")
        return part

    def _take_whole(self, part: Part, procedure: Procedure) -> None:
        """A procedure without calls is used as it is."""
        self._budget.spend("max_states", len(procedure.table))
        part.rows = list(procedure.table)
        for edge in procedure.edges[1:]:
            assert not isinstance(edge, Call)
            part.edges.append(CountSite(edge.threshold, edge.below, edge.reached) if isinstance(edge, Count) else edge)
        used = np.unique(procedure.table)
        for index in used.tolist():
            edge = part.edges[index]
            if index and isinstance(edge, Return):
                part.labels.add(edge.label)

    def _state(self, part: Part, state: State) -> int:
        number = part.states.get(state)
        if number is None:
            number = part.states[state] = len(part.rows)
            self._budget.spend("max_states", 1)
            part.rows.append(np.zeros(NUM_COLUMNS, dtype=np.int32))
            self._waiting.append((part, state))
        return number

    def _expand(self, part: Part, state: State) -> None:
        row = part.rows[part.states[state]]
        for columns, lazy in self._sources[part.key].expand(state):
            assert not np.any(row[columns]), f"two edges for one byte in {part.key}, {state}"
            row[columns] = len(part.edges)
            part.edges.append(self._edge(part, lazy))
            if isinstance(lazy, Return):
                self._returns(part, lazy.label)

    def _edge(self, part: Part, lazy: LazyEdge | Edge) -> Explored:
        match lazy:
            case LazyMove(target) | Move(target):
                return Move(self._state(part, target))
            case Reset(target):
                return Reset(self._state(part, target))
            case LazyCount(threshold, below, reached) | Count(threshold, below, reached):
                above = None if reached is None else self._state(part, reached)
                return CountSite(threshold, self._state(part, below), above)
            case LazyCall(callee, after):
                return self._call(part, callee, after)
            case Call(callee, targets):
                return self._call(part, callee, dict(targets).get)
        return lazy

    def _call(self, part: Part, callee: Hashable, after: Callable[[int], State | None]) -> CallSite:
        target = self._part(callee)
        site = CallSite(target, after)
        target.callers.append((part, site))
        for label in list(target.labels):
            self._go_on(part, site, label)
        return site

    def _returns(self, part: Part, label: int) -> None:
        if label not in part.labels:
            part.labels.add(label)
            for caller, site in list(part.callers):
                self._go_on(caller, site, label)

    def _go_on(self, caller: Part, site: CallSite, label: int) -> None:
        state = site.after(label)
        if state is not None:
            site.targets[label] = self._state(caller, state)


class _StaticSource:
    """A finished procedure with calls, state by state."""

    def __init__(self, procedure: Procedure) -> None:
        self._procedure = procedure

    def expand(self, state: State) -> Cells:
        assert isinstance(state, int)
        row = self._procedure.table[state]
        return [
            (np.flatnonzero(row == index).tolist(), self._procedure.edges[index])
            for index in np.unique(row).tolist()
            if index
        ]
