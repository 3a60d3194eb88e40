"""Where a text stands in an automaton, and how bytes move it: plain Python, one text at a time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sgrun.grammar.automaton import (
    ACCEPT,
    CALL,
    COUNT,
    DEAD,
    MAX_DEPTH,
    MOVE,
    OP_BITS,
    OP_MASK,
    RESET,
    RETURN,
    RETURN_AFTER,
    Automaton,
)

MAX_FORCED_LEN = 4096
FAR = 2**31 - 1  # a counter that meets no threshold any more, or not soon enough to matter; it stays where it is


class Cursor(NamedTuple):
    """`stack`: the frames that wait, (site, counter) each, the innermost last."""

    state: int
    counter: int = 0
    stack: tuple[tuple[int, int], ...] = ()


class Walker:
    """The tables of one automaton as Python reads them fastest. Nothing changes after construction, but
    that loops are added as they are met."""

    def __init__(self, automaton: Automaton) -> None:
        self.start = Cursor(automaton.start)
        self.width = automaton.table.shape[1]
        self.classes = automaton.byte_classes.tobytes()
        self.entries = automaton.table.reshape(-1).data
        self.sites = automaton.sites.tolist()
        self.counts = automaton.counts.tolist()
        self._loops = _Loops(automaton)

    def advance(self, cursor: Cursor, data: bytes) -> Cursor | None:
        """Where `data` leads, `cursor` itself if it stays there; None if the automaton refuses it."""
        rest = data.lstrip(self._loops[cursor.state])
        return self._walk(cursor, rest.translate(self.classes)) if rest else cursor

    def is_accepting(self, cursor: Cursor) -> bool:
        """Whether the text so far is complete."""
        end = self.width - 1
        return self.entries[cursor.state * self.width + end] != DEAD and self._walk(cursor, (end,)) is not None

    def forced_bytes(self, cursor: Cursor) -> bytes:
        """What every completion goes on with, up to `MAX_FORCED_LEN` bytes; empty where the text may end."""
        forced = bytearray()
        while len(forced) < MAX_FORCED_LEN and not self.is_accepting(cursor):
            following = self._only_byte(cursor)
            if following is None:
                break
            byte, cursor = following
            forced.append(byte)
        return bytes(forced)

    def following(self, cursor: Cursor) -> Iterator[tuple[int, Cursor]]:
        """The classes of the bytes that may follow, and where each leads."""
        row = self.entries[cursor.state * self.width : (cursor.state + 1) * self.width - 1]
        for column, entry in enumerate(row):
            if entry != DEAD and (after := self._walk(cursor, (column,))) is not None:
                yield column, after

    def _only_byte(self, cursor: Cursor) -> tuple[int, Cursor] | None:
        """The byte that may follow and where it leads; None unless there is exactly one."""
        found: tuple[int, Cursor] | None = None
        for column, after in self.following(cursor):
            if found is not None or self.classes.count(column) > 1:
                return None
            found = self.classes.index(column), after
        return found

    def _walk(self, cursor: Cursor, columns: Iterable[int]) -> Cursor | None:
        entries, width = self.entries, self.width
        state, counter, stack = cursor
        for column in columns:
            while True:
                entry = entries[state * width + column]
                op, argument = entry & OP_MASK, entry >> OP_BITS
                if op == MOVE:
                    state = argument
                    break
                if op == CALL:
                    if len(stack) == MAX_DEPTH:
                        return None
                    stack = (*stack, (argument, counter))
                    state, counter = self.sites[argument][0], 0
                elif op in (RETURN, RETURN_AFTER):
                    if not stack:
                        return None
                    site, counter = stack[-1]
                    stack = stack[:-1]
                    state = self.sites[site][1 + argument]
                    if op == RETURN_AFTER:
                        break
                elif op == COUNT:
                    threshold, below, reached = self.counts[argument]
                    counter += 1
                    state = reached if counter == threshold else below
                elif op == RESET:
                    state, counter = argument, 0
                    break
                elif op == ACCEPT:
                    break
                else:
                    return None
        return Cursor(state, counter, stack) if state != DEAD else None


class _Loops(dict[int, bytes]):
    """The bytes that leave a state where it is, of the states that have been asked for. Most of a text is such bytes:
    whitespace, strings, digits."""

    def __init__(self, automaton: Automaton) -> None:
        super().__init__()
        self._classes, self._table = automaton.byte_classes, automaton.table

    def __missing__(self, state: int) -> bytes:
        row, loop, loops = self._table[state], MOVE | state << OP_BITS, b""
        if loop in row.tolist():  # most have none
            loops = np.flatnonzero(row[self._classes] == loop).astype(np.uint8).tobytes()
        self[state] = loops
        return loops


class Thresholds:
    """Which thresholds a frame's counter can still meet, so that counters that act alike can be taken for one.

    A state and every state that its frame may be in before or after it have the same thresholds: those of all counts
    among them.
    """

    def __init__(self, automaton: Automaton) -> None:
        self._of_group: dict[int, list[int]] = {}
        self._groups = self._site_groups = np.zeros(0, dtype=np.int32)
        self._is_exact = False
        if len(automaton.counts):
            self._groups = _frame_groups(automaton)
            self._site_groups = self._groups[automaton.sites[:, 1:].max(axis=1, initial=0)]
            self._is_exact = _counts_twice(automaton)
            found: dict[int, set[int]] = {}
            for threshold, below, reached in automaton.counts.tolist():
                found.setdefault(int(self._groups[below or reached]), set()).add(threshold)
            self._of_group = {group: sorted(thresholds) for group, thresholds in found.items()}

    def counter(self, state: int, counter: int, num_bytes: int) -> int:
        """`counter`, or FAR if no count within `num_bytes` from this state tells them apart."""
        if not self._of_group:
            return 0
        return self._nearest(int(self._groups[state]), counter, num_bytes)

    def waiting(self, frame: tuple[int, int], num_bytes: int) -> tuple[int, int]:
        """The same for the counter of a frame (site, counter) on the stack."""
        if not self._of_group:
            return frame
        site, counter = frame
        return site, self._nearest(int(self._site_groups[site]), counter, num_bytes)

    def _nearest(self, group: int, counter: int, num_bytes: int) -> int:
        thresholds = self._of_group.get(group, [])
        above = bisect_right(thresholds, counter)
        if above == len(thresholds):
            return FAR
        is_far = thresholds[above] - counter > num_bytes and not self._is_exact
        return FAR if is_far else counter


def _frame_groups(automaton: Automaton) -> npt.NDArray[np.int32]:
    """[num_states] the lowest state of those that are linked by moves, counts and calls that return."""
    table = automaton.table
    is_first = np.ones(table.shape, dtype=np.bool_)
    is_first[:, 1:] = table[:, 1:] != table[:, :-1]
    sources, columns = np.nonzero(is_first)
    entries = table[sources, columns]
    ops, arguments = entries & OP_MASK, entries >> OP_BITS
    links = [np.stack([sources[ops == MOVE], arguments[ops == MOVE]])]
    for op, targets in ((COUNT, automaton.counts[:, 1:]), (CALL, automaton.sites[:, 1:])):
        for column in targets.T:
            links.append(np.stack([sources[ops == op], column[arguments[ops == op]]]))
    left, right = np.concatenate(links, axis=1)
    left, right = left[right != DEAD], right[right != DEAD]
    groups = np.arange(len(table), dtype=np.int32)
    while True:
        lower = np.minimum(groups[left], groups[right])
        joined = groups.copy()
        np.minimum.at(joined, groups[left], lower)
        np.minimum.at(joined, groups[right], lower)
        joined = joined[joined]
        if (joined == groups).all():
            return groups
        groups = joined


def _counts_twice(automaton: Automaton) -> bool:
    """Whether one byte might add more than 1 to a counter."""
    seen: set[int] = set()
    states = {int(state) for state in automaton.counts[:, 1:].reshape(-1)}
    while states:
        seen |= states
        entries = np.unique(automaton.table[sorted(states)])
        if (entries & OP_MASK == COUNT).any():
            return True
        called = entries[entries & OP_MASK == CALL] >> OP_BITS
        states = {int(state) for state in automaton.sites[called, 1:].reshape(-1)} - seen
    return False
