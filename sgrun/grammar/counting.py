"""The subset construction with one counter: counted repeats that are not unrolled.

A repeat's count is how many of its iterations have begun; the counter is one less. What matters of a count is only
how it lies to the bounds, its region, which is part of the states; the counter decides when a region ends. As there is
one counter, all NFA states that a text may be in and whose future depends on a count must agree on it. Where they do
not (`(a|aa){1,500}`, `.{1,500}.{1,500}`), the text is ambiguous and the repeat has to be unrolled.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from sgrun.grammar.dfa import DEAD, Atoms, Dfa, LabelSplitter, minimize
from sgrun.grammar.limits import Budget
from sgrun.grammar.nfa import Counting, Counts, Nfa
from sgrun.grammar.syntax import Repeat


class _Region(IntEnum):
    OUTSIDE = 0
    NOTHING_BEGUN = 1
    BELOW_MIN = 2
    BELOW_MAX = 3
    AT_MAX = 4
    UNBOUNDED = 5  # the minimum is reached and there is no maximum

    @staticmethod
    def of(count: int, counts: Counts) -> _Region:
        if count < counts.min_count:
            return _Region.BELOW_MIN
        if counts.max_count is None:
            return _Region.UNBOUNDED
        return _Region.BELOW_MAX if count < counts.max_count else _Region.AT_MAX

    @property
    def is_counted(self) -> bool:
        return self in (_Region.BELOW_MIN, _Region.BELOW_MAX)


class _Effect(IntEnum):
    """What a byte does to the count on the way into an NFA state."""

    NOTHING = 0  # the state does not depend on the counter
    KEEP = 1
    ITERATE = 2
    ENTER = 3


_WORK_PER_WAY = 4  # following a way costs about as much as so many set elements elsewhere
_LOWEST_COUNT_FIRST = (_Effect.NOTHING, _Effect.ENTER, _Effect.KEEP, _Effect.ITERATE)


_Config = tuple[int, _Region, Counts | None]  # an NFA state and where it stands in the repeat it is in
_Way = tuple[_Effect, _Config]
_Subset = frozenset[_Config]


@dataclass(frozen=True, slots=True)
class ResetStep:
    """Goes to `target` with the counter at 0."""

    target: int


@dataclass(frozen=True, slots=True)
class CountStep:
    """Adds 1 to the counter, then goes to `reached` if it is `threshold` and to `below` otherwise."""

    threshold: int
    below: int
    reached: int


Step = ResetStep | CountStep


@dataclass(frozen=True, eq=False, slots=True)
class CountingDfa:
    """A minimal DFA some of whose states are only steps: on the way into such a state the step is taken instead."""

    dfa: Dfa
    steps: dict[int, Step]


@dataclass(frozen=True, slots=True)
class Uncountable:
    """A repeat that one counter cannot count here: the count is ambiguous, or near its end a text can only be
    completed for some counts, which a tail of unrolled iterations may put right."""

    repeat: Repeat
    is_ambiguous: bool


def determinize_counting(nfa: Nfa, atoms: Atoms, budget: Budget) -> CountingDfa | Uncountable:
    """The minimal DFA with one counter, every state of which can be completed whatever the counter is."""
    construction = _Construction(nfa, atoms, budget)
    ambiguous = construction.run()
    return construction.finished() if ambiguous is None else ambiguous


class _Construction:
    """DFA states are subsets; steps are numbered together with them. Number 0 is the dead state, 1 the start."""

    def __init__(self, nfa: Nfa, atoms: Atoms, budget: Budget) -> None:
        assert not nfa.guarded
        self._nfa = nfa
        self._budget = budget
        self._num_atoms = len(atoms.sets)
        self._live = nfa.live_states()
        self._splitter = LabelSplitter(atoms)
        self._pauses: dict[int, list[int]] = {}
        self._numbers: dict[_Subset | Step, int] = {}
        self._waiting: deque[_Subset] = deque()
        self._rows: list[npt.NDArray[np.int32]] = [np.zeros(self._num_atoms, dtype=np.int32)]
        self._accepting = [False]
        self._steps: dict[int, Step] = {}
        self._repeats: dict[int, Repeat] = {}  # the repeat that a step counts

    def run(self) -> Uncountable | None:
        """Explores all subsets; an ambiguous repeat ends it."""
        self._number_of(frozenset((state, _Region.OUTSIDE, None) for state in self._pauses_of(Nfa.START)))
        while self._waiting:
            subset = self._waiting.popleft()
            ways, is_accepting = self._ways(subset)
            number = self._numbers[subset]
            self._accepting[number] = is_accepting
            for labels, cells in self._splitter.split(tuple(ways)):
                after = self._after(set().union(*(ways[label] for label in labels)))
                if isinstance(after, Repeat):
                    return Uncountable(after, is_ambiguous=True)
                self._rows[number][cells] = after
        return None

    def _number_of(self, key: _Subset | Step) -> int:
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._rows)
            self._rows.append(np.zeros(self._num_atoms, dtype=np.int32))
            self._accepting.append(False)
            self._budget.spend("max_states", 1)
            if isinstance(key, frozenset):
                self._waiting.append(key)
            else:
                self._steps[number] = key
        return number

    def _pauses_of(self, state: int) -> list[int]:
        """The states reached by plain jumps in which something can happen."""
        known = self._pauses.get(state)
        if known is None:
            seen = {state} & self._live
            waiting = list(seen)
            while waiting:
                for target in self._nfa.jumps[waiting.pop()]:
                    if target in self._live and target not in seen:
                        seen.add(target)
                        waiting.append(target)
            nfa = self._nfa
            known = [s for s in seen if s == Nfa.ACCEPT or nfa.moves[s] or s in nfa.counting]
            self._pauses[state] = known
            self._budget.spend("max_set_elements", len(seen))
        return known

    def _ways(self, subset: _Subset) -> tuple[dict[int, set[_Way]], bool]:
        """Where each label leads, and whether the text may end here."""
        ways: dict[int, set[_Way]] = {}
        is_accepting = False
        waiting: list[_Way] = []
        for state, region, counts in subset:
            waiting.append((_Effect.KEEP if region.is_counted else _Effect.NOTHING, (state, region, counts)))
        seen = set(waiting)
        while waiting:
            effect, (state, region, counts) = waiting.pop()
            is_accepting |= state == Nfa.ACCEPT
            for label, target in self._nfa.moves[state]:
                if target in self._live:
                    ways.setdefault(label, set()).add((effect, (target, region, counts)))
            onward: list[_Way] = [(effect, (to, region, counts)) for to in self._nfa.jumps[state] if to in self._live]
            for kind, bounds, target in self._nfa.counting.get(state, ()):
                way = _counted(kind, bounds, target, effect, region)
                if way is not None and target in self._live:
                    onward.append(way)
            for way in onward:
                if way not in seen:
                    seen.add(way)
                    waiting.append(way)
        self._budget.spend("max_set_elements", _WORK_PER_WAY * len(seen))
        return ways, is_accepting

    def _after(self, ways: set[_Way]) -> int | Repeat:
        """The number of the subset or step that a byte leads to along these ways; a repeat if they disagree."""
        groups = self._grouped(ways)
        subset = frozenset().union(*groups.values())
        counted = [group for group in groups if group[0] is not _Effect.NOTHING]
        if not counted:
            return self._number_of(subset)
        if len(counted) > 1:
            return min((counts.node for _, counts in counted if counts), key=_size)
        effect, counts = counted[0]
        if counts and effect is _Effect.ITERATE:
            return self._count_step(groups, counts)
        target = self._number_of(subset)
        return self._number_of(ResetStep(target)) if effect is _Effect.ENTER else target

    def _grouped(self, ways: set[_Way]) -> dict[tuple[_Effect, Counts | None], _Subset]:
        """The configurations reached, by what happens to the count.

        Once the minimum is reached, whatever matches after more iterations matches after fewer. So what is reached with
        a lower count too is left out: entered anew (count 1), then with the same count, then with one more. What the
        next iteration begins with, from a configuration that is there anyway, is left out too.
        """
        groups: dict[tuple[_Effect, Counts | None], set[_Config]] = {}
        begun_next: set[_Config] = set()
        for effect, (target, region, counts) in sorted(ways, key=_dominance):
            of_counts = counts if effect is not _Effect.NOTHING else None
            for state in self._pauses_of(target):
                config = (state, region, counts)
                if effect is _Effect.KEEP:
                    begun_next.update(self._begun_from(state, region))
                is_covered = (effect is _Effect.ITERATE and config in begun_next) or (
                    region is _Region.BELOW_MAX
                    and any(config in members for (_, other), members in groups.items() if other is of_counts)
                )
                if not is_covered:
                    groups.setdefault((effect, of_counts), set()).add(config)
        return {group: frozenset(members) for group, members in groups.items()}

    def _begun_from(self, state: int, region: _Region) -> list[_Config]:
        """Where an iteration begins, if one may begin in this state."""
        return [
            (begun, region, counts)
            for kind, counts, first in self._nfa.counting.get(state, ())
            if kind is Counting.ITERATE
            for begun in self._pauses_of(first)
        ]

    def _count_step(self, groups: Mapping[tuple[_Effect, Counts | None], _Subset], counts: Counts) -> int:
        iterated = groups[_Effect.ITERATE, counts]
        others = groups.get((_Effect.NOTHING, None), frozenset())
        is_below_min = next(iter(iterated))[1] is _Region.BELOW_MIN
        bound = counts.min_count if is_below_min else counts.max_count
        assert bound is not None, "a region that is counted has an end"
        beyond = _Region.of(bound, counts)
        crossed = others | {(state, beyond, of) for state, _, of in iterated}
        step = CountStep(bound - 1, self._number_of(others | iterated), self._number_of(crossed))
        number = self._number_of(step)
        self._repeats[number] = counts.node
        return number

    def finished(self) -> CountingDfa | Uncountable:
        table = np.stack(self._rows)
        live = self._completed(table)
        for number, step in self._steps.items():
            # With both or neither of them live, a text that counts on comes to the threshold, whatever the counter is.
            if isinstance(step, CountStep) and (step.below in live) != (step.reached in live):
                return Uncountable(self._repeats[number], is_ambiguous=False)
        if 1 not in live:
            return CountingDfa(Dfa(table[:1], np.zeros(1, dtype=np.bool_)), {})
        is_live = np.zeros(len(table), dtype=np.bool_)
        is_live[list(live)] = True
        table[~is_live] = DEAD
        table[~is_live[table]] = DEAD
        return _minimal(table, np.array(self._accepting), {n: s for n, s in self._steps.items() if n in live})

    def _completed(self, table: npt.NDArray[np.int32]) -> set[int]:
        """The states from which there is a way to acceptance, if every count step comes to its threshold."""
        sources: list[list[int]] = [[] for _ in table]
        for state, row in enumerate(table):
            for target in np.unique(row[row != DEAD]).tolist():
                sources[target].append(state)
        for number, step in self._steps.items():
            sources[step.target if isinstance(step, ResetStep) else step.reached].append(number)
        found = set(np.flatnonzero(self._accepting).tolist())
        waiting = list(found)
        while waiting:
            for source in sources[waiting.pop()]:
                if source not in found:
                    found.add(source)
                    waiting.append(source)
        return found


def _counted(kind: Counting, counts: Counts, target: int, effect: _Effect, region: _Region) -> _Way | None:
    """Where a counting jump leads; None if it may not be taken. An iteration that reads nothing leads nowhere."""
    has_begun = effect in (_Effect.ITERATE, _Effect.ENTER)
    match kind:
        case Counting.ENTER:
            return _Effect.NOTHING, (target, _Region.NOTHING_BEGUN, counts)
        case Counting.EXIT:
            may_leave = counts.min_count == 0 if region is _Region.NOTHING_BEGUN else region is not _Region.BELOW_MIN
            return (_Effect.NOTHING, (target, _Region.OUTSIDE, None)) if may_leave and not has_begun else None
        case Counting.ITERATE if has_begun or region is _Region.AT_MAX or counts.max_count == 0:
            return None
        case Counting.ITERATE if region is _Region.NOTHING_BEGUN:
            first = _Region.of(1, counts)
            return _Effect.ENTER if first.is_counted else _Effect.NOTHING, (target, first, counts)
        case Counting.ITERATE:
            return _Effect.ITERATE if region.is_counted else _Effect.NOTHING, (target, region, counts)


def _dominance(way: _Way) -> int:
    return _LOWEST_COUNT_FIRST.index(way[0])


def _size(repeat: Repeat) -> int:
    return repeat.max_count or repeat.min_count


def _minimal(table: npt.NDArray[np.int32], accepting: npt.NDArray[np.bool_], steps: Mapping[int, Step]) -> CountingDfa:
    """Minimised as a plain DFA in which the steps are states with letters of their own."""
    num_atoms = table.shape[1]
    thresholds = sorted({step.threshold for step in steps.values() if isinstance(step, CountStep)})
    letters = np.zeros((len(table), 1 + 2 * len(thresholds)), dtype=np.int32)  # reset, then below and reached of each
    for number, step in steps.items():
        if isinstance(step, ResetStep):
            letters[number, 0] = step.target
        else:
            at = 1 + 2 * thresholds.index(step.threshold)
            letters[number, at : at + 2] = step.below, step.reached
    smallest = minimize(Dfa(np.concatenate([table, letters], axis=1), accepting))
    letters = smallest.transitions[:, num_atoms:]
    minimal_steps: dict[int, Step] = {}
    for number in np.flatnonzero(letters.any(axis=1)).tolist():
        first = int(np.flatnonzero(letters[number])[0])
        if first == 0:
            minimal_steps[number] = ResetStep(int(letters[number, 0]))
        else:
            below, reached = letters[number, first : first + 2].tolist()
            minimal_steps[number] = CountStep(thresholds[(first - 1) // 2], below, reached)
    return CountingDfa(
        Dfa(np.ascontiguousarray(smallest.transitions[:, :num_atoms]), smallest.accepting), minimal_steps
    )
