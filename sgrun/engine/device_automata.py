"""Owns which automata stand in the device's arena, and puts a generation's place in its constraint into its row. Knows
nothing of rows' other fields or of when a step runs."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from itertools import count

import torch

from sgrun.engine.transfer import to_device
from sgrun.grammar.automaton import Automaton
from sgrun.grammar.walk import Cursor
from sgrun_kernels.rows import Records
from sgrun_kernels.tables import AutomatonArena, pack_automaton

DEFAULT_ARENA_BYTES = 256 * 2**20


@dataclass(slots=True, eq=False)
class _Loaded:
    """Words `start` to `end` of the arena."""

    index: int
    start: int
    end: int
    num_users: int = 0


class DeviceAutomata:
    """An arena for up to `max_users` generations, each with one automaton. An automaton with users stays where it is;
    one without stays until room is needed, and the least recently used go first. The arena begins with `size_bytes`; it
    becomes larger, and another tensor, when the automata in use do not fit.

    Copies are launched in order with the steps, so that a step which reads an automaton sees it whole, and the room of
    one is written to only after the steps that read it. Used by one thread.
    """

    def __init__(self, device: torch.device, max_users: int, size_bytes: int = DEFAULT_ARENA_BYTES) -> None:
        self.arena = AutomatonArena.allocate(size_bytes, max_users, device)
        self._device = device
        self._free_indices = list(range(max_users))
        self._constraints = count(1)  # one for each load, since the device keeps bitmasks of what has been unloaded
        self._loaded: OrderedDict[Automaton, _Loaded] = OrderedDict()  # least recently used first

    def acquire(self, automaton: Automaton) -> int:
        """Adds a user; returns the automaton's index in the arena."""
        loaded = self._loaded.get(automaton)
        if loaded is None:
            loaded = self._load(automaton)
        loaded.num_users += 1
        self._loaded.move_to_end(automaton)
        return loaded.index

    def release(self, automaton: Automaton) -> None:
        """Takes one user away."""
        loaded = self._loaded[automaton]
        assert loaded.num_users > 0, f"automaton {loaded.index} has no user"
        loaded.num_users -= 1

    def _load(self, automaton: Automaton) -> _Loaded:
        length = automaton.size_bytes // 4
        start = self._gap(length)
        unused = [other for other, loaded in self._loaded.items() if loaded.num_users == 0]
        while unused and (start is None or not self._free_indices):
            self._free_indices.append(self._loaded.pop(unused.pop(0)).index)
            start = self._gap(length)
        if start is None:
            start = self._grow(length)
        loaded = self._loaded[automaton] = _Loaded(self._free_indices.pop(), start, start + length)
        tables = automaton.byte_classes, automaton.table, automaton.sites, automaton.counts
        words, head = pack_automaton(*tables, start, next(self._constraints))
        self.arena.words[start : start + length] = to_device(words, self._device)
        self.arena.heads[loaded.index] = to_device(head, self._device)
        return loaded

    def _gap(self, length: int) -> int | None:
        """Where the first `length` free words start."""
        start = 0
        for loaded in sorted(self._loaded.values(), key=lambda loaded: loaded.start):
            if loaded.start - start >= length:
                return start
            start = loaded.end
        return start if len(self.arena.words) - start >= length else None

    def _grow(self, length: int) -> int:
        """Makes room for `length` words behind all others, which stay where they are; returns where it starts."""
        old = self.arena.words
        words = torch.zeros(2 * (len(old) + length), dtype=old.dtype, device=old.device)
        words[: len(old)] = old
        self.arena = AutomatonArena(words, self.arena.heads)
        return max((loaded.end for loaded in self._loaded.values()), default=0)


def put_place(records: Records, row: int, automaton: int, cursor: Cursor) -> None:
    """Writes where a generation stands in its constraint, the automaton at that index of the arena, to records[row]."""
    record = records[row]
    record["automaton"], record["state"], record["counter"] = automaton, cursor.state, cursor.counter
    record["depth"] = len(cursor.stack)
    if cursor.stack:
        record["stack"][: len(cursor.stack)] = cursor.stack
