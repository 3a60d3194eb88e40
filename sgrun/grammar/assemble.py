"""Makes an automaton of procedures: every call is specialised to the labels that its caller can go on with, what cannot
be completed is left out, equal states are merged, and the tables are packed.

A state of the automaton is a state of a procedure together with the wanted labels that can still be returned from it:
that is all that its entries depend on, so callers that want different labels share whatever they do not tell apart.
Sets of labels are bit sets, bit i for the i-th label that the procedure is known to return.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cached_property

import numpy as np
import numpy.typing as npt

from sgrun.errors import InvalidGrammarError
from sgrun.grammar.automaton import (
    ACCEPT,
    CALL,
    COUNT,
    DEAD,
    MOVE,
    OP_BITS,
    OP_MASK,
    RESET,
    RETURN,
    RETURN_AFTER,
    Automaton,
    Unchecked,
)
from sgrun.grammar.explore import CallSite, CountSite, Explorable, Explorer, Part
from sgrun.grammar.limits import Budget
from sgrun.grammar.procedure import END, NUM_COLUMNS, Move, Procedure, Reset, Return


def assemble(
    root: Hashable,
    resolve: Callable[[Hashable], Explorable | Procedure],
    budget: Budget,
    checked_afterwards: tuple[Unchecked, ...] = (),
) -> Automaton:
    """The automaton of the texts for which the procedure `root` returns label 0 at the end of input.

    Raises InvalidGrammarError if there are none, GrammarTooLargeError.
    """
    explorer = Explorer(resolve, budget)
    part = explorer.explore(root)
    packer = _Packer(explorer, root, budget)
    start = packer.number(root, 0, packer.graph(root).bits([0]) if 0 in part.labels else 0)
    if start == DEAD:
        raise InvalidGrammarError("the constraint matches nothing: there is no text that satisfies it")
    packer.run()
    return _packed(packer, start, checked_afterwards)


class _Graph:
    """An explored procedure: for each state its edges, and the labels that can be returned from it."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.ranks = {label: rank for rank, label in enumerate(sorted(part.labels))}
        self.rows = np.stack(part.rows)
        self.edges_of = [np.unique(row).tolist() for row in self.rows]

    def bits(self, labels: list[int]) -> int:
        return sum(1 << self.ranks[label] for label in labels)

    @cached_property
    def returnable(self) -> list[int]:
        """For each state the labels that can still be returned."""
        found = [0] * len(self.rows)
        sources: list[list[int]] = [[] for _ in self.rows]
        waiting: list[int] = []
        for state, indices in enumerate(self.edges_of):
            for index in indices:
                if not index:
                    continue
                edge = self.part.edges[index]
                if isinstance(edge, Return):
                    found[state] |= 1 << self.ranks[edge.label]
                else:
                    for target in _targets(edge):
                        sources[target].append(state)
            if found[state]:
                waiting.append(state)
        while waiting:
            state = waiting.pop()
            for source in sources[state]:
                if found[source] | found[state] != found[source]:
                    found[source] |= found[state]
                    waiting.append(source)
        return found


def _targets(edge: Move | Reset | CountSite | CallSite) -> list[int]:
    match edge:
        case Move(target) | Reset(target):
            return [target]
        case CountSite(_, below, reached):
            return [below] if reached is None else [below, reached]
    return list(edge.targets.values())


class _Packer:
    """Numbers the states that are wanted, from the root on, and writes their rows."""

    def __init__(self, explorer: Explorer, root: Hashable, budget: Budget) -> None:
        self._parts = explorer.parts
        self._root = root
        self._budget = budget
        self._graphs: dict[Hashable, _Graph] = {}
        self._numbers: dict[tuple[Hashable, int, int], int] = {}
        self._waiting: list[tuple[Hashable, int, int]] = []
        self._sites: dict[tuple[int, ...], int] = {}
        self._counts: dict[tuple[int, int, int], int] = {}
        self.rows = [np.zeros(NUM_COLUMNS, dtype=np.int32)]

    @property
    def sites(self) -> npt.NDArray[np.int32]:
        width = max(map(len, self._sites), default=2)
        table = np.zeros((len(self._sites), width), dtype=np.int32)
        for row, site in zip(table, self._sites, strict=True):
            row[: len(site)] = site
        return table

    @property
    def counts(self) -> npt.NDArray[np.int32]:
        return np.array(list(self._counts), dtype=np.int32).reshape(-1, 3)

    def graph(self, key: Hashable) -> _Graph:
        graph = self._graphs.get(key)
        if graph is None:
            graph = self._graphs[key] = _Graph(self._parts[key])
        return graph

    def number(self, key: Hashable, state: int | None, wanted: int) -> int:
        """The automaton's state for a procedure's state of which these labels are wanted; DEAD if it returns none."""
        if state is None:
            return DEAD
        wanted &= self.graph(key).returnable[state]
        if not wanted:
            return DEAD
        name = (key, state, wanted)
        number = self._numbers.get(name)
        if number is None:
            self._budget.spend("max_states", 1)
            number = self._numbers[name] = len(self.rows)
            self.rows.append(self.rows[DEAD])
            self._waiting.append(name)
        return number

    def run(self) -> None:
        while self._waiting:
            name = self._waiting.pop()
            key, state, wanted = name
            graph = self.graph(key)
            indices = graph.edges_of[state]
            entries = np.array([self._entry(graph, index, wanted) if index else DEAD for index in indices], np.int32)
            self.rows[self._numbers[name]] = entries[np.searchsorted(indices, graph.rows[state])]

    def _entry(self, graph: _Graph, index: int, wanted: int) -> int:
        edge, key = graph.part.edges[index], graph.part.key
        match edge:
            case Move(target):
                return _entry(MOVE, self.number(key, target, wanted))
            case Reset(target):
                return _entry(RESET, self.number(key, target, wanted))
            case Return(label, consumes):
                rank = graph.ranks[label]
                if not wanted >> rank & 1:
                    return DEAD
                if key == self._root:
                    assert not consumes, "the root procedure ends at the end of input"
                    return ACCEPT
                return (RETURN_AFTER if consumes else RETURN) | rank << OP_BITS
            case CountSite(threshold, below, reached):
                count = (threshold, self.number(key, below, wanted), self.number(key, reached, wanted))
                if count[1:] == (DEAD, DEAD):
                    return DEAD
                return COUNT | self._counts.setdefault(count, len(self._counts)) << OP_BITS
        return self._call(key, edge, wanted)

    def _call(self, key: Hashable, site: CallSite, wanted: int) -> int:
        callee = self.graph(site.callee)
        row = [DEAD] * len(callee.ranks)
        asked = 0
        for label, target in site.targets.items():
            rank = callee.ranks[label]
            row[rank] = self.number(key, target, wanted)
            asked |= (row[rank] != DEAD) << rank
        start = self.number(site.callee, 0, asked)
        if start == DEAD:
            return DEAD
        return CALL | self._sites.setdefault((start, *row), len(self._sites)) << OP_BITS


def _entry(op: int, state: int) -> int:
    return DEAD if state == DEAD else op | state << OP_BITS


def _packed(packer: _Packer, start: int, checked_afterwards: tuple[Unchecked, ...]) -> Automaton:
    """Bytes that no state tells apart share a column; states, sites and counts that are alike are merged."""
    rows = np.stack(packer.rows)
    classes: dict[bytes, int] = {}
    columns = np.ascontiguousarray(rows.T)
    byte_classes = np.array([classes.setdefault(columns[byte].tobytes(), len(classes)) for byte in range(256)])
    representatives = np.unique(byte_classes, return_index=True)[1]
    table = np.ascontiguousarray(rows[:, [*representatives.tolist(), END]])
    sites, counts = packer.sites, packer.counts
    while True:
        names, kept = _merge(table)
        if len(kept) == len(table):
            break
        sites = names[sites]
        counts = np.concatenate([counts[:, :1], names[counts[:, 1:]]], axis=1)
        site_names, kept_sites = _merge(sites)
        count_names, kept_counts = _merge(counts)
        sites, counts = sites[kept_sites], counts[kept_counts]
        table = _renamed(table[kept], names, site_names, count_names)
        start = int(names[start])
    return Automaton(
        byte_classes.astype(np.uint8),
        np.ascontiguousarray(table, dtype=np.int32),
        np.ascontiguousarray(sites, dtype=np.int32),
        np.ascontiguousarray(counts, dtype=np.int32),
        start,
        checked_afterwards,
    )


def _merge(rows: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int64], list[int]]:
    """(new number of each row, the rows that are kept): equal rows get one number, in order."""
    numbers: dict[bytes, int] = {}
    kept: list[int] = []
    names = np.zeros(len(rows), dtype=np.int64)
    for index, row in enumerate(rows):
        content = row.tobytes()
        number = numbers.get(content)
        if number is None:
            number = numbers[content] = len(kept)
            kept.append(index)
        names[index] = number
    return names, kept


def _renamed(
    table: npt.NDArray[np.int32],
    names: npt.NDArray[np.int64],
    site_names: npt.NDArray[np.int64],
    count_names: npt.NDArray[np.int64],
) -> npt.NDArray[np.int32]:
    ops, arguments = table & OP_MASK, table >> OP_BITS
    for named, kinds in ((names, (MOVE, RESET)), (site_names, (CALL,)), (count_names, (COUNT,))):
        is_kind = np.isin(ops, kinds)
        arguments = np.where(is_kind, named[np.where(is_kind, arguments, 0)] if len(named) else arguments, arguments)
    return (ops | arguments << OP_BITS).astype(np.int32)
