"""Makes an automaton of procedures: every call is specialised to the labels that its caller can go on with, what cannot
be completed is left out, equal states are merged, and the tables are packed.

A state of the automaton is a state of a procedure together with the wanted labels that can still be returned from it:
that is all that its entries depend on, so callers that want different labels share whatever they do not tell apart.
Sets of labels are bit sets, bit i for the i-th label that the procedure is known to return.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import cached_property
from typing import Any

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
    checked_afterwards: Sequence[Unchecked] = (),
) -> Automaton:
    """The automaton of the texts for which the procedure `root` returns label 0 at the end of input.

    `checked_afterwards` may grow while procedures are explored.

    Raises InvalidGrammarError if there are none, GrammarTooLargeError.
    """
    explorer = Explorer(resolve, budget)
    part = explorer.explore(root)
    packer = _Packer(part, budget)
    start = packer.number(packer.graph(part), 0, 1 if 0 in part.labels else 0)
    if start == DEAD:
        raise InvalidGrammarError("the constraint matches nothing: there is no text that satisfies it")
    packer.run()
    return _packed(packer, start, tuple(dict.fromkeys(checked_afterwards)), budget)


_Row = tuple[int, tuple[Any, ...]]  # a pattern of columns, and the entries in it


class _Graph:
    """An explored procedure: for each state its edges, and the labels that can be returned from it."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.ranks = {label: rank for rank, label in enumerate(sorted(part.labels))}
        self.numbers: dict[tuple[int, int], int] = {}  # (state, wanted labels) -> state of the automaton
        self.edges_of: list[list[int]] = []
        self.patterns: list[bytes] = []
        places = np.zeros(len(part.edges), dtype=np.uint16)
        for row in part.rows:
            edges = sorted(set(row.tolist()))
            places[edges] = np.arange(len(edges))
            self.edges_of.append(edges)
            self.patterns.append(places[row].tobytes())

    @cached_property
    def returnable(self) -> list[int]:
        """For each state the labels that can still be returned."""
        found = [0] * len(self.edges_of)
        sources: list[list[int]] = [[] for _ in self.edges_of]
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

    def __init__(self, root: Part, budget: Budget) -> None:
        self._root = root
        self._budget = budget
        self._graphs: dict[Part, _Graph] = {}
        self._waiting: list[tuple[_Graph, int, int]] = []
        self._sites: dict[tuple[int, ...], int] = {}
        self._counts: dict[tuple[int, int, int], int] = {}
        self._patterns: dict[bytes, int] = {bytes(2 * NUM_COLUMNS): 0}
        self.rows: list[_Row] = [(0, (DEAD,))]

    @property
    def patterns(self) -> npt.NDArray[np.uint16]:
        """[num_patterns, 257]: which of a row's entries each byte has."""
        return np.frombuffer(b"".join(self._patterns), dtype=np.uint16).reshape(-1, NUM_COLUMNS)

    @property
    def sites(self) -> list[tuple[int, ...]]:
        return list(self._sites)

    @property
    def counts(self) -> list[tuple[int, int, int]]:
        return list(self._counts)

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
            self._budget.spend("max_states", 1)
            number = graph.numbers[state, wanted] = len(self.rows)
            self.rows.append(self.rows[DEAD])  # until its turn comes
            self._waiting.append((graph, state, wanted))
        return number

    def run(self) -> None:
        while self._waiting:
            graph, state, wanted = self._waiting.pop()
            pattern = self._patterns.setdefault(graph.patterns[state], len(self._patterns))
            entries = [self._entry(graph, index, wanted) if index else DEAD for index in graph.edges_of[state]]
            self.rows[graph.numbers[state, wanted]] = (pattern, tuple(entries))

    def _entry(self, graph: _Graph, index: int, wanted: int) -> int:
        edge = graph.part.edges[index]
        match edge:
            case Move(target):
                return _entry(MOVE, self.number(graph, target, wanted))
            case Reset(target):
                return _entry(RESET, self.number(graph, target, wanted))
            case Return(label, consumes):
                rank = graph.ranks[label]
                if not wanted >> rank & 1:
                    return DEAD
                if graph.part is self._root:
                    assert not consumes, "the root procedure ends at the end of input"
                    return ACCEPT
                return (RETURN_AFTER if consumes else RETURN) | rank << OP_BITS
            case CountSite(threshold, below, reached):
                count = (threshold, self.number(graph, below, wanted), self.number(graph, reached, wanted))
                if count[1:] == (DEAD, DEAD):
                    return DEAD
                return COUNT | self._counts.setdefault(count, len(self._counts)) << OP_BITS
        return self._call(graph, edge, wanted)

    def _call(self, graph: _Graph, site: CallSite, wanted: int) -> int:
        callee = self.graph(site.callee)
        row = [DEAD] * len(callee.ranks)
        asked = 0
        for label, target in site.targets.items():
            rank = callee.ranks[label]
            row[rank] = self.number(graph, target, wanted)
            asked |= (row[rank] != DEAD) << rank
        start = self.number(callee, 0, asked)
        if start == DEAD:
            return DEAD
        return CALL | self._sites.setdefault((start, *row), len(self._sites)) << OP_BITS


def _entry(op: int, state: int) -> int:
    return DEAD if state == DEAD else op | state << OP_BITS


def _packed(packer: _Packer, start: int, checked_afterwards: tuple[Unchecked, ...], budget: Budget) -> Automaton:
    """Merges states that are alike and bytes that no state tells apart, and fills the tables."""
    merged = _Merged(packer)
    patterns = np.stack(list(merged.patterns))
    classes: dict[bytes, int] = {}
    columns = np.ascontiguousarray(patterns[:, :END].T)
    byte_classes = np.array([classes.setdefault(column.tobytes(), len(classes)) for column in columns])
    representatives = [*np.unique(byte_classes, return_index=True)[1].tolist(), END]
    cells = patterns[:, representatives]
    budget.check("max_table_bytes", 4 * len(merged.rows) * len(representatives))
    table = np.zeros((len(merged.rows), len(representatives)), dtype=np.int32)
    for row, (pattern, entries) in zip(table, merged.rows, strict=True):
        row[:] = np.array(entries, dtype=np.int32)[cells[pattern]]
    return Automaton(
        byte_classes.astype(np.uint8),
        table,
        _table(list(merged.sites), 2),
        _table(list(merged.counts), 3),
        merged.names[start],
        checked_afterwards,
    )


def _table(rows: list[tuple[int, ...]], width: int) -> npt.NDArray[np.int32]:
    """The rows below each other, shorter ones filled up with 0."""
    table = np.zeros((len(rows), max(map(len, rows), default=width)), dtype=np.int32)
    for cells, row in zip(table, rows, strict=True):
        cells[: len(row)] = row
    return table


class _Merged:
    """States that are alike under one number. They are looked at from the last one found to the first, so that what a
    state leads to has got its number before it, but for the states of loops, which keep apart."""

    def __init__(self, packer: _Packer) -> None:
        self._packer = packer
        self._sites, self._counts = packer.sites, packer.counts
        self.names: list[int] = list(range(len(packer.rows)))
        kept: dict[_Row, int] = {}
        for state in range(len(packer.rows) - 1, -1, -1):
            pattern, entries = packer.rows[state]
            self.names[state] = kept.setdefault((pattern, tuple(map(self._resolved, entries))), state)
        dense = {state: number for number, state in enumerate(sorted(set(self.names)))}
        self.names = [dense[name] for name in self.names]
        self.sites: dict[tuple[int, ...], int] = {}
        self.counts: dict[tuple[int, ...], int] = {}
        self.patterns: list[npt.NDArray[np.uint16]] = []
        self._folded: dict[tuple[int, tuple[int, ...]], int] = {}
        self._by_content: dict[bytes, int] = {}
        self._all_patterns = packer.patterns
        self.rows = [self._final(packer.rows[state]) for state in dense]

    def _resolved(self, entry: int) -> Hashable:
        """The entry by what it leads to, as far as that has its number."""
        op, argument = entry & OP_MASK, entry >> OP_BITS
        if op in (MOVE, RESET):
            return op, self.names[argument]
        if op == CALL:
            return op, tuple(self.names[state] for state in self._sites[argument])
        if op == COUNT:
            threshold, below, reached = self._counts[argument]
            return op, threshold, self.names[below], self.names[reached]
        return entry

    def _final(self, row: _Row) -> tuple[int, tuple[int, ...]]:
        """The row with final numbers, and each entry in it once."""
        pattern, entries = row
        named = [self._renumbered(entry) for entry in entries]
        once = tuple(dict.fromkeys(named))
        fold = tuple(once.index(entry) for entry in named)
        folded = self._folded.get((pattern, fold))
        if folded is None:
            content = np.array(fold, dtype=np.uint16)[self._all_patterns[pattern]]
            folded = self._by_content.setdefault(content.tobytes(), len(self.patterns))
            if folded == len(self.patterns):
                self.patterns.append(content)
            self._folded[pattern, fold] = folded
        return folded, once

    def _renumbered(self, entry: int) -> int:
        op, argument = entry & OP_MASK, entry >> OP_BITS
        if op in (MOVE, RESET):
            return op | self.names[argument] << OP_BITS
        if op == CALL:
            site = tuple(self.names[state] for state in self._sites[argument])
            return op | self.sites.setdefault(site, len(self.sites)) << OP_BITS
        if op == COUNT:
            threshold, below, reached = self._counts[argument]
            count = (threshold, self.names[below], self.names[reached])
            return op | self.counts.setdefault(count, len(self.counts)) << OP_BITS
        return entry
