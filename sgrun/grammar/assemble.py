"""Makes an automaton of procedures: every call is specialised to the labels that its caller can go on with, what cannot
be completed is left out, equal states are merged, and the tables are packed."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

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
from sgrun.grammar.procedure import END, Move, Procedure, Reset, Return

InstanceKey = tuple[Hashable, frozenset[int]]  # a procedure, and the labels with which it may return


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
    explorer.explore(root)
    graphs: dict[Hashable, _Graph] = {}
    instances: dict[InstanceKey, _Instance] = {}
    waiting: list[InstanceKey] = [(root, frozenset([0]))]
    num_states = 1
    while waiting:
        key = waiting.pop()
        if key in instances:
            continue
        part = explorer.parts[key[0]]
        graph = graphs.setdefault(key[0], _Graph(part)) if key[0] not in graphs else graphs[key[0]]
        instance = instances[key] = _Instance(part, graph, key[1], num_states)
        num_states += len(instance.states)
        budget.check("max_states", num_states)
        waiting.extend(instance.callees.values())
    if not instances[root, frozenset([0])].live[0]:
        raise InvalidGrammarError("the constraint matches nothing: there is no text that satisfies it")
    packer = _Packer(instances)
    blocks = [packer.rows(instance, is_root=key[0] == root) for key, instance in instances.items()]
    rows = np.concatenate([np.zeros((1, END + 1), dtype=np.int32), *blocks])
    budget.check("max_work_bytes", rows.nbytes)
    start = instances[root, frozenset([0])].number_of(0)
    return _packed(rows, packer, start, checked_afterwards)


class _Graph:
    """The steps of an explored procedure as arrays: source and target states, and the labels that states return."""

    def __init__(self, part: Part) -> None:
        self.rows = np.stack(part.rows)
        num_edges = len(part.edges)
        flat = np.unique(np.arange(len(self.rows))[:, None] * num_edges + self.rows)
        pairs = [(int(pair) // num_edges, int(pair) % num_edges) for pair in flat.tolist() if pair % num_edges]
        sources: list[int] = []
        targets: list[int] = []
        self.returns: list[tuple[int, int]] = []
        self.calls: list[tuple[int, int]] = []  # state, edge
        for state, index in pairs:
            edge = part.edges[index]
            reached: list[int] = []
            match edge:
                case Move(target) | Reset(target):
                    reached = [target]
                case CountSite(_, below, above):
                    reached = [below] if above is None else [below, above]
                case CallSite():
                    reached = list(edge.targets.values())
                    self.calls.append((state, index))
                case Return(label, _):
                    self.returns.append((state, label))
            sources += [state] * len(reached)
            targets += reached
        self.sources = np.array(sources, dtype=np.int64)
        self.targets = np.array(targets, dtype=np.int64)

    def live(self, labels: frozenset[int]) -> npt.NDArray[np.bool_]:
        """The states from which one of the labels can be returned."""
        live = np.zeros(len(self.rows), dtype=np.bool_)
        live[[state for state, label in self.returns if label in labels]] = True
        return _spread(live, self.targets, self.sources)


def _spread(
    marked: npt.NDArray[np.bool_], sources: npt.NDArray[np.int64], targets: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Marks what is reached from marked states."""
    num_marked = -1
    while num_marked != (num_marked := int(marked.sum())):
        marked[targets[marked[sources]]] = True
    return marked


class _Instance:
    """A procedure for callers that go on with `labels` alone; its states are numbered from `first` on."""

    def __init__(self, part: Part, graph: _Graph, labels: frozenset[int], first: int) -> None:
        self.part = part
        self.graph = graph
        self.labels = {label: number for number, label in enumerate(sorted(labels))}
        self.live = graph.live(labels)
        within = self.live[graph.sources] & self.live[graph.targets]
        reached = np.zeros(len(self.live), dtype=np.bool_)
        reached[0] = self.live[0]
        reached = _spread(reached, graph.sources[within], graph.targets[within])
        self.states = np.flatnonzero(reached)
        self.numbers = np.zeros(len(self.live), dtype=np.int64)
        self.numbers[self.states] = np.arange(first, first + len(self.states))
        self.callees: dict[int, InstanceKey] = {}  # by edge
        for state, index in graph.calls:
            site = part.edges[index]
            assert isinstance(site, CallSite)
            wanted = frozenset(label for label, target in site.targets.items() if self.live[target])
            if reached[state] and wanted:
                self.callees[index] = (site.callee, wanted)

    def number_of(self, state: int | None) -> int:
        """The state's number in the automaton, DEAD for one that is left out."""
        return DEAD if state is None else int(self.numbers[state])


class _Packer:
    """Turns edges into entries, and collects the sites and counts that they name."""

    def __init__(self, instances: dict[InstanceKey, _Instance]) -> None:
        self._instances = instances
        self._sites: dict[tuple[int, ...], int] = {}
        self._counts: dict[tuple[int, int, int], int] = {}
        self._num_labels = max(len(instance.labels) for instance in instances.values())

    @property
    def sites(self) -> npt.NDArray[np.int32]:
        return np.array(list(self._sites), dtype=np.int32).reshape(-1, 1 + self._num_labels)

    @property
    def counts(self) -> npt.NDArray[np.int32]:
        return np.array(list(self._counts), dtype=np.int32).reshape(-1, 3)

    def rows(self, instance: _Instance, *, is_root: bool) -> npt.NDArray[np.int32]:
        entries = np.zeros(len(instance.part.edges), dtype=np.int32)
        used = np.unique(instance.graph.rows[instance.states]) if len(instance.states) else np.zeros(0, dtype=np.int32)
        for index in used.tolist():
            if index:
                entries[index] = self._entry(instance, index, is_root)
        return entries[instance.graph.rows[instance.states]]

    def _entry(self, instance: _Instance, index: int, is_root: bool) -> int:
        edge = instance.part.edges[index]
        match edge:
            case Move(target):
                return _entry(MOVE, instance.number_of(target))
            case Reset(target):
                return _entry(RESET, instance.number_of(target))
            case Return(label, consumes):
                if label not in instance.labels:
                    return DEAD
                if is_root:
                    assert not consumes, "the root procedure ends at the end of input"
                    return ACCEPT
                return (RETURN_AFTER if consumes else RETURN) | instance.labels[label] << OP_BITS
            case CountSite(threshold, below, reached):
                count = (threshold, instance.number_of(below), instance.number_of(reached))
                if count[1:] == (DEAD, DEAD):
                    return DEAD
                return COUNT | self._counts.setdefault(count, len(self._counts)) << OP_BITS
            case CallSite():
                return self._call(instance, index, edge)

    def _call(self, instance: _Instance, index: int, site: CallSite) -> int:
        if index not in instance.callees:
            return DEAD
        callee = self._instances[instance.callees[index]]
        row = [callee.number_of(0)] + [DEAD] * self._num_labels
        for label, number in callee.labels.items():
            row[1 + number] = instance.number_of(site.targets[label])
        return CALL | self._sites.setdefault(tuple(row), len(self._sites)) << OP_BITS


def _entry(op: int, state: int) -> int:
    return DEAD if state == DEAD else op | state << OP_BITS


def _packed(
    rows: npt.NDArray[np.int32], packer: _Packer, start: int, checked_afterwards: tuple[Unchecked, ...]
) -> Automaton:
    """Bytes that no state tells apart share a column; states, sites and counts that are alike are merged."""
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
        sites.astype(np.int32),
        counts.astype(np.int32),
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
