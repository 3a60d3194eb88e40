"""Makes an automaton of procedures: every call is specialised to the labels that its caller can go on with, what cannot
be completed is left out, equal states are merged, and the tables are packed.

A state of the automaton is a state of a procedure together with the wanted labels that can still be returned from it:
that is all that its entries depend on, so callers that want different labels share whatever they do not tell apart.
Sets of labels are bit sets, bit i for the i-th label that the procedure is known to return.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cached_property

from sgrun.errors import InvalidGrammarError
from sgrun.grammar.automaton import (
    ACCEPT,
    CALL,
    COUNT,
    DEAD,
    MOVE,
    OP_BITS,
    RESET,
    RETURN,
    RETURN_AFTER,
    Automaton,
)
from sgrun.grammar.depth import check_depth, may_nest_too_deep
from sgrun.grammar.explore import CallSite, CountSite, Explored, Explorer, Part, ProcedureLike
from sgrun.grammar.limits import Budget
from sgrun.grammar.pack import PackedRow, merged_states, packed
from sgrun.grammar.procedure import Reset, Return


def assemble(
    root: Hashable,
    resolve: Callable[[Hashable], ProcedureLike],
    budget: Budget,
) -> Automaton:
    """The automaton of the texts for which the procedure `root` returns label 0 at the end of input.

    `checked_afterwards` may grow while procedures are explored.

    Raises InvalidGrammarError if there are none, GrammarTooLargeError also where every text nests too deep.
    """
    explorer = Explorer(resolve, budget)
    part = explorer.explore(root)
    numbering = _Numbering(part, budget)
    start = numbering.number(numbering.graph(part), 0, 1 if 0 in part.labels else 0)
    if start == DEAD:
        raise InvalidGrammarError("the constraint matches nothing: there is no text that satisfies it")
    numbering.run()
    states = merged_states(numbering.rows, list(numbering.sites), list(numbering.counts))
    automaton = packed(states, list(explorer.columns), start, budget)
    if may_nest_too_deep(*numbering.calls()):
        check_depth(automaton)
    return automaton


class _Graph:
    """An explored procedure, and the labels that can be returned from each of its states."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.ranks = {label: rank for rank, label in enumerate(sorted(part.labels))}
        self.numbers: dict[tuple[int, int], int] = {}  # (state, wanted labels) -> state of the automaton
        self.callees: set[_Graph] = set()

    @cached_property
    def returnable(self) -> list[int]:
        """For each state the labels that can still be returned, as a bit set."""
        rows, ranks = self.part.rows, self.ranks
        found = [0] * len(rows)
        sources: list[list[int]] = [[] for _ in rows]
        for state, row in enumerate(rows):
            for _, edge in row:
                if type(edge) is int:
                    sources[edge].append(state)
                elif type(edge) is Return:
                    found[state] |= 1 << ranks[edge.label]
                else:
                    for target in _targets(edge):
                        sources[target].append(state)
        for state, (part, under) in self.part.bases.items():
            if part is self.part:
                sources[under].append(state)
            else:
                found[state] |= (1 << len(part.labels)) - 1
        waiting = [state for state, labels in enumerate(found) if labels]
        while waiting:
            state = waiting.pop()
            labels = found[state]
            for source in sources[state]:
                if found[source] | labels != found[source]:
                    found[source] |= labels
                    waiting.append(source)
        return found


def _targets(edge: Explored) -> list[int]:
    match edge:
        case int():
            return [edge]
        case Reset(target):
            return [target]
        case CountSite(_, below, reached):
            return [below] if reached is None else [below, reached]
        case CallSite():
            return list(edge.targets.values())
    return []


class _Numbering:
    """Numbers the states that are wanted, from the root on, and writes their rows."""

    def __init__(self, root: Part, budget: Budget) -> None:
        self._root = root
        self._budget = budget
        self.rows: list[PackedRow] = [(DEAD, [])]
        self.sites: dict[tuple[int, ...], int] = {}
        self.counts: dict[tuple[int, int, int], int] = {}
        self._graphs: dict[Part, _Graph] = {}
        self._waiting: list[tuple[_Graph, int, int, int]] = []

    def graph(self, part: Part) -> _Graph:
        graph = self._graphs.get(part)
        if graph is None:
            graph = self._graphs[part] = _Graph(part)
        return graph

    def number(self, graph: _Graph, state: int | None, wanted: int) -> int:
        """The automaton's state for a procedure's state of which these labels are wanted; DEAD if it returns none."""
        if state is None:
            return DEAD
        wanted &= graph.returnable[state]
        if not wanted:
            return DEAD
        number = graph.numbers.get((state, wanted))
        if number is None:
            number = graph.numbers[state, wanted] = len(self.rows)
            self._budget.spend("max_states", 1)
            self.rows.append(self.rows[DEAD])  # until its turn comes
            self._waiting.append((graph, state, wanted, number))
        return number

    def run(self) -> None:
        while self._waiting:
            graph, state, wanted, number = self._waiting.pop()
            self.rows[number] = self._row(graph, state, wanted)

    def calls(self) -> tuple[dict[int, set[int]], list[int]]:
        """By numbers: the procedures that each procedure calls, and with how many sets of labels each is called."""
        numbers = {graph: number for number, graph in enumerate(self._graphs.values())}
        calls = {number: {numbers[callee] for callee in graph.callees} for graph, number in numbers.items()}
        return calls, [sum(state == 0 for state, _ in graph.numbers) for graph in numbers]

    def _row(self, graph: _Graph, state: int, wanted: int) -> PackedRow:
        base = graph.part.bases.get(state)
        under = DEAD if base is None else self.number(self.graph(base[0]), base[1], wanted)
        numbers, returnable = graph.numbers, graph.returnable
        cells: list[int] = []
        for columns, edge in graph.part.rows[state]:
            if type(edge) is int:  # most are, so what `number` does is done here
                left = wanted & returnable[edge]
                target = numbers.get((edge, left)) if left else DEAD
                if target is None:
                    target = self.number(graph, edge, left)
                entry = MOVE | target << OP_BITS if target else DEAD
            else:
                entry = self._entry(graph, edge, wanted)
            if entry or under:
                cells += (columns, entry)
        return under, cells

    def _entry(self, graph: _Graph, edge: Explored, wanted: int) -> int:
        match edge:
            case Return(label, consumes):
                rank = graph.ranks[label]
                if not wanted >> rank & 1:
                    return DEAD
                if graph.part is self._root:
                    assert not consumes, "the root procedure ends at the end of input"
                    return ACCEPT
                return (RETURN_AFTER if consumes else RETURN) | rank << OP_BITS
            case Reset(target):
                state = self.number(graph, target, wanted)
                return RESET | state << OP_BITS if state else DEAD
            case CountSite(threshold, below, reached):
                count = (threshold, self.number(graph, below, wanted), self.number(graph, reached, wanted))
                if count[1:] == (DEAD, DEAD):
                    return DEAD
                return COUNT | self.counts.setdefault(count, len(self.counts)) << OP_BITS
            case CallSite():
                return self._call(graph, edge, wanted)
        return DEAD

    def _call(self, graph: _Graph, site: CallSite, wanted: int) -> int:
        callee = self.graph(site.callee)
        row = [DEAD] * len(callee.ranks)
        asked = 0
        for label, target in site.targets.items():
            state = self.number(graph, target, wanted)
            if state:
                rank = callee.ranks[label]
                row[rank] = state
                asked |= 1 << rank
        start = self.number(callee, 0, asked)
        if start == DEAD:
            return DEAD
        graph.callees.add(callee)
        return CALL | self.sites.setdefault((start, *row), len(self.sites)) << OP_BITS
