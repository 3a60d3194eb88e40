"""Deterministic automata over code points: atoms, subset construction, minimisation.

Atoms are the largest sets of code points that no label tells apart. Working on atoms instead of bytes keeps alphabet
and state count small; the expansion to bytes comes last (utf8.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sgrun.grammar.charset import CodePoints
from sgrun.grammar.limits import Budget
from sgrun.grammar.nfa import Nfa

DEAD = 0


@dataclass(frozen=True, eq=False, slots=True)
class Atoms:
    """A partition of all code points that labels hold. Atom a is `sets[a]`; label l is the atoms `of_label[l]`."""

    sets: list[CodePoints]
    of_label: list[frozenset[int]]


@dataclass(frozen=True, eq=False, slots=True)
class Dfa:
    """`transitions[state, atom]`; state 0 is the dead sink, state 1 the start. Empty language: state 0 alone."""

    transitions: npt.NDArray[np.int32]  # [num_states, num_atoms]
    accepting: npt.NDArray[np.bool_]  # [num_states]

    @property
    def is_empty(self) -> bool:
        return len(self.transitions) == 1


def atoms_of(labels: Sequence[CodePoints], budget: Budget) -> Atoms:
    """Sweeps over all range ends; code points with the same set of labels around them form one atom."""
    budget.spend("max_set_elements", sum(map(len, labels)))
    events: dict[int, int] = {}  # where ranges begin or end -> the labels of these ranges, as bits
    for label, code_points in enumerate(labels):
        bit = 1 << label
        for low, high in code_points:
            events[low] = events.get(low, 0) ^ bit
            events[high + 1] = events.get(high + 1, 0) ^ bit
    ranges: dict[int, list[tuple[int, int]]] = {}
    around = low = 0
    for at in sorted(events):
        if around:
            ranges.setdefault(around, []).append((low, at - 1))
        around ^= events[at]
        low = at
    of_label: list[set[int]] = [set() for _ in labels]
    for atom, members in enumerate(ranges):
        budget.spend("max_set_elements", members.bit_count())
        while members:
            label = members.bit_length() - 1
            of_label[label].add(atom)
            members ^= 1 << label
    return Atoms([tuple(pairs) for pairs in ranges.values()], [frozenset(atoms) for atoms in of_label])


def determinize(nfa: Nfa, atoms: Atoms, budget: Budget) -> Dfa:
    """The subset construction over the NFA states from which acceptance can be reached, so every state is live."""
    assert not nfa.guarded and not nfa.counting
    closure = _Closures(nfa, budget)
    start = closure.of(Nfa.START)
    if not start:
        return Dfa(np.zeros((1, len(atoms.sets)), dtype=np.int32), np.zeros(1, dtype=np.bool_))
    splitter = LabelSplitter(atoms)
    states: dict[frozenset[int], int] = {start: 1}
    waiting = deque([start])
    rows = [np.zeros(len(atoms.sets), dtype=np.int32)]
    accepting = [False]
    while waiting:
        subset = waiting.popleft()
        targets: dict[int, set[int]] = {}
        for state in subset:
            for label, target in nfa.moves[state]:
                reached = closure.of(target)
                if reached:
                    targets.setdefault(label, set()).update(reached)
        row = np.zeros(len(atoms.sets), dtype=np.int32)
        budget.check("max_work_bytes", len(rows) * row.nbytes)
        for labels, cells in splitter.split(tuple(targets)):
            after = frozenset().union(*(targets[label] for label in labels))
            if after not in states:
                states[after] = len(states) + 1
                waiting.append(after)
                budget.spend("max_states", 1)
            row[cells] = states[after]
        rows.append(row)
        accepting.append(Nfa.ACCEPT in subset)
    return Dfa(np.stack(rows), np.array(accepting))


class _Closures:
    """For an NFA state, the states it reaches by jumps that matter: those with moves to live states, and acceptance."""

    def __init__(self, nfa: Nfa, budget: Budget) -> None:
        self._nfa = nfa
        self._budget = budget
        self._live = nfa.live_states()
        self._known: dict[int, frozenset[int]] = {}

    def of(self, state: int) -> frozenset[int]:
        known = self._known.get(state)
        if known is None:
            known = self._known[state] = self._search(state)
        self._budget.spend("max_set_elements", len(known))
        return known

    def _search(self, state: int) -> frozenset[int]:
        if state not in self._live:
            return frozenset()
        seen = {state}
        waiting = [state]
        while waiting:
            for target in self._nfa.jumps[waiting.pop()]:
                if target not in seen and target in self._live:
                    seen.add(target)
                    waiting.append(target)
        self._budget.spend("max_set_elements", len(seen))
        return frozenset(s for s in seen if s == Nfa.ACCEPT or any(to in self._live for _, to in self._nfa.moves[s]))


class LabelSplitter:
    """Which atoms go with which of a state's labels; the answer for a tuple of labels is kept."""

    def __init__(self, atoms: Atoms) -> None:
        self._atoms = atoms
        self._known: dict[tuple[int, ...], list[tuple[tuple[int, ...], npt.NDArray[np.int64]]]] = {}

    def split(self, labels: tuple[int, ...]) -> list[tuple[tuple[int, ...], npt.NDArray[np.int64]]]:
        """Groups of (labels, the atoms that are in exactly these of the given labels)."""
        known = self._known.get(labels)
        if known is None:
            holders: dict[int, list[int]] = {}
            for label in labels:
                for atom in self._atoms.of_label[label]:
                    holders.setdefault(atom, []).append(label)
            groups: dict[tuple[int, ...], list[int]] = {}
            for atom, held_by in holders.items():
                groups.setdefault(tuple(held_by), []).append(atom)
            known = self._known[labels] = [(held_by, np.array(cells)) for held_by, cells in groups.items()]
        return known


def minimize(dfa: Dfa) -> Dfa:
    """The smallest DFA of the same language, states numbered breadth-first. All states but 0 must be live.

    Partition refinement that revisits only the predecessors of relabelled states and relabels the smaller parts
    (Hopcroft 1971). It starts from the distance to acceptance, which equivalent states share.
    """
    num_states = len(dfa.transitions)
    successors = [np.unique(row[row != DEAD]).tolist() for row in dfa.transitions]
    predecessors: list[list[int]] = [[] for _ in range(num_states)]
    for state, targets in enumerate(successors):
        for target in targets:
            predecessors[target].append(state)
    blocks = _distances_to_acceptance(dfa.accepting, predecessors)
    num_blocks = int(blocks.max()) + 1
    sizes = np.bincount(blocks, minlength=num_blocks).tolist()
    touched = set(range(1, num_states))
    while touched:
        parts: dict[int, dict[bytes, list[int]]] = {}
        for state in touched:
            signature = blocks[dfa.transitions[state]].tobytes()
            parts.setdefault(int(blocks[state]), {}).setdefault(signature, []).append(state)
        relabelled: list[int] = []
        for block, by_signature in parts.items():
            groups = sorted(by_signature.values(), key=len)
            num_untouched = sizes[block] - sum(map(len, groups))
            # States that were not touched still look alike. The largest group keeps the label if none was left out.
            if num_untouched == 0:
                groups.pop()
            for group in groups:
                blocks[group] = num_blocks
                sizes.append(len(group))
                sizes[block] -= len(group)
                num_blocks += 1
                relabelled.extend(group)
        touched = {source for state in relabelled for source in predecessors[state]}
    return _quotient(dfa, blocks, num_blocks)


def _distances_to_acceptance(accepting: npt.NDArray[np.bool_], predecessors: list[list[int]]) -> npt.NDArray[np.int32]:
    """The length of the shortest accepted text from each state, plus 1; 0 for the dead state."""
    distances = np.zeros(len(accepting), dtype=np.int32)
    frontier = np.flatnonzero(accepting).tolist()
    distance = 1
    distances[frontier] = distance
    while frontier:
        distance += 1
        frontier = list({source for state in frontier for source in predecessors[state] if not distances[source]})
        distances[frontier] = distance
    return distances


def _quotient(dfa: Dfa, blocks: npt.NDArray[np.int32], num_blocks: int) -> Dfa:
    """One state for each block, numbered breadth-first from the start."""
    representatives = np.zeros(num_blocks, dtype=np.int64)
    representatives[blocks[::-1]] = np.arange(len(blocks))[::-1]
    table = blocks[dfa.transitions[representatives]]
    dead = int(blocks[DEAD])
    names = {dead: DEAD}
    waiting = deque([int(blocks[1])] if len(blocks) > 1 else [])
    names.update((block, 1) for block in waiting)
    while waiting:
        row = table[waiting.popleft()]
        for block in dict.fromkeys(row.tolist()):
            if block not in names:
                names[block] = len(names)
                waiting.append(block)
    order = np.array(list(names))
    renamed = np.zeros(num_blocks, dtype=np.int32)
    renamed[order] = np.arange(len(order), dtype=np.int32)
    return Dfa(renamed[table[order]], dfa.accepting[representatives[order]])
