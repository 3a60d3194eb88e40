"""Explores procedures from the root as far as texts lead: which states are reached, and which labels are ever returned.

A call goes on with a label only once its callee is known to return it, so nothing is built for combinations that no
text has, and what is found is exactly what can happen (the least fixed point).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Protocol

from sgrun.grammar.limits import Budget
from sgrun.grammar.procedure import Call, Columns, Count, Edge, Move, Overlay, Procedure, Reset, Return

State = Hashable


@dataclass(frozen=True, slots=True)
class LazyCall:
    """Runs another procedure; `after(label)` is the state to go on with, None where the label is not wanted."""

    callee: Hashable
    after: Callable[[int], State | None]


@dataclass(slots=True)
class LazyMove:
    """Consumes the byte; the bytes `then` lead on to `target`."""

    target: State
    then: bytes = b""


@dataclass(frozen=True, slots=True)
class LazyCount:
    threshold: int
    below: State
    reached: State | None


LazyEdge = LazyMove | LazyCall | LazyCount | Return
Cells = list[tuple[Columns, LazyEdge | Edge]]


@dataclass(slots=True)
class Row:
    """What happens in one state, edge by edge, on the given bytes or END; on others what happens in `otherwise`, a
    state that has no such state itself."""

    cells: Cells = field(default_factory=list)
    otherwise: State | None = None

    def add(self, columns: Columns, edge: LazyEdge) -> None:
        self.cells.append((columns, edge))


class Explorable(Protocol):
    """A procedure that is made state by state; its start state is "start"."""

    def expand(self, state: State) -> Row: ...


ProcedureLike = Explorable | Procedure | Overlay


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


Explored = int | Reset | Return | CountSite | CallSite | None  # an int moves to that state, None refuses


@dataclass(slots=True, eq=False)
class Part:
    """One procedure as far as it was explored: `rows[state]` holds its edges, each with the number of its columns. On
    bytes that are not there, a state in `bases` does what that state of that part does."""

    source: Explorable | None
    rows: list[list[tuple[int, Explored]]] = field(default_factory=list)
    bases: dict[int, tuple[Part, int]] = field(default_factory=dict)
    labels: set[int] = field(default_factory=set)
    callers: list[tuple[Part, CallSite]] = field(default_factory=list)
    states: dict[State, int] = field(default_factory=dict)
    spelled: dict[tuple[int, int], int] = field(default_factory=dict)  # (byte, state after it) -> state before it


class Explorer:
    """`columns`: what the numbers of columns in the parts' rows stand for."""

    def __init__(self, resolve: Callable[[Hashable], ProcedureLike], budget: Budget) -> None:
        self.parts: dict[Hashable, Part] = {}
        self.columns: dict[Columns, int] = {}
        self._resolve = resolve
        self._budget = budget
        self._waiting: deque[tuple[Part, State, int]] = deque()
        self._shapes: set[tuple[int, ...]] = set()

    def explore(self, root: Hashable) -> Part:
        part = self._part(root)
        while self._waiting:
            self._expand(*self._waiting.popleft())
        return part

    def _part(self, key: Hashable) -> Part:
        part = self.parts.get(key)
        if part is None:
            source = self._resolve(key)
            if isinstance(source, Overlay):
                part = self._overlay(source)
            elif not isinstance(source, Procedure):
                part = Part(source)
                self._state(part, "start")
            elif any(isinstance(edge, Call) for edge in source.edges):
                part = Part(_StaticSource(source))
                self._state(part, 0)
            else:
                part = self._whole(source)
            self.parts[key] = part
        return part

    def _whole(self, procedure: Procedure) -> Part:
        """A procedure without calls is used as it is; keys that stand for one procedure share it."""
        part = self.parts.get(procedure)
        if part is not None:
            return part
        part = self.parts[procedure] = Part(None)
        sparse = procedure.sparse
        self._budget.spend("max_states", len(sparse.rows))
        numbers = [self._column(columns) for columns in sparse.columns]
        known: dict[int, Explored] = {id(edge): _static(edge) for edge in procedure.edges}
        part.rows = [[(numbers[columns], known[id(edge)]) for columns, edge in row] for row in sparse.rows]
        part.labels = {edge.label for row in sparse.rows for _, edge in row if type(edge) is Return}
        return part

    def _overlay(self, overlay: Overlay) -> Part:
        part = Part(None)
        self._budget.spend("max_states", len(overlay.rows))
        part.labels = {edge.label for _, cells in overlay.rows for _, edge in cells if type(edge) is Return}
        if overlay.base is not None:
            base = self._whole(overlay.base)
            assert max(base.labels) < min(part.labels), "the labels of an overlay are above those of its base"
            part.labels |= base.labels
            part.bases = {state: (base, under) for state, (under, _) in enumerate(overlay.rows) if under is not None}
        for _, cells in overlay.rows:
            part.rows.append(
                [(self._column(columns), None if edge is None else _static(edge)) for columns, edge in cells]
            )
        return part

    def _column(self, columns: Columns) -> int:
        return self.columns.setdefault(columns, len(self.columns))

    def _state(self, part: Part, state: State) -> int:
        number = part.states.get(state)
        if number is None:
            number = part.states[state] = len(part.rows)
            self._budget.spend("max_states", 1)
            part.rows.append([])
            self._waiting.append((part, state, number))
        return number

    def _before(self, part: Part, text: bytes, number: int) -> int:
        """The state from which `text` leads to the state `number`."""
        for byte in reversed(text):
            before = part.spelled.get((byte, number))
            if before is None:
                before = part.spelled[byte, number] = len(part.rows)
                self._budget.spend("max_states", 1)
                part.rows.append([(self._column((byte,)), number)])
            number = before
        return number

    def _expand(self, part: Part, state: State, number: int) -> None:
        assert part.source is not None
        row = part.source.expand(state)
        if row.otherwise is not None:
            part.bases[number] = (part, self._state(part, row.otherwise))
        cells = part.rows[number]
        for columns, lazy in row.cells:
            cells.append((self._column(columns), self._edge(part, lazy)))
        shape = tuple([columns for columns, _ in cells])
        if shape not in self._shapes:
            self._shapes.add(shape)
            used = [column for columns, _ in row.cells for column in columns]
            assert len(used) == len(set(used)), f"two edges for one byte in {state}"

    def _edge(self, part: Part, lazy: LazyEdge | Edge) -> Explored:
        match lazy:
            case LazyMove(target, then):
                number = self._state(part, target)
                return self._before(part, then, number) if then else number
            case LazyCall(callee, after):
                return self._call(part, callee, after)
            case Return(label, _):
                self._returns(part, label)
                return lazy
            case LazyCount(threshold, below, reached) | Count(threshold, below, reached):
                above = None if reached is None else self._state(part, reached)
                return CountSite(threshold, self._state(part, below), above)
            case Move(target):
                return self._state(part, target)
            case Reset(target):
                return Reset(self._state(part, target))
            case Call(callee, targets):
                return self._call(part, callee, dict(targets).get)

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


def _static(edge: Edge) -> Explored:
    match edge:
        case Move(target):
            return target
        case Count(threshold, below, reached):
            return CountSite(threshold, below, reached)
    assert not isinstance(edge, Call)
    return edge


class _StaticSource:
    """A finished procedure with calls, state by state."""

    def __init__(self, procedure: Procedure) -> None:
        self._sparse = procedure.sparse

    def expand(self, state: State) -> Row:
        assert isinstance(state, int)
        return Row([(self._sparse.columns[number], edge) for number, edge in self._sparse.rows[state]])
