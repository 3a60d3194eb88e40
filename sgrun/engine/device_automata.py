"""Owns which automata stand in the device's arena, and puts a generation's place in its constraint into its row. Knows
nothing of rows' other fields or of when a step runs."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch

from sgrun.errors import GrammarTooLargeError
from sgrun.grammar.automaton import Automaton
from sgrun.grammar.walk import Cursor
from sgrun_kernels.rows import Records
from sgrun_kernels.tables import AutomatonArena, pack_automaton

DEFAULT_ARENA_BYTES = 256 * 2**20
MAX_AUTOMATA = 4096


@dataclass(slots=True, eq=False)
class _Loaded:
    """Words `start` to `end` of the arena. `uploaded`: recorded behind the copy; None on the CPU."""

    index: int
    start: int
    end: int
    num_users: int
    uploaded: torch.cuda.Event | None


class DeviceAutomata:
    """An arena of at most `size_bytes` and `max_automata`. An automaton with users stays where it is; one without stays
    until room is needed, and the least recently used go first.

    Copies run on a stream of their own from pinned memory and wait for nothing: the room of an automaton is written to
    as soon as nobody uses it. So release an automaton only once no launched step reads it any more, which is when the
    row's end was read from the ring, or an update that took the row off has run. Used by one thread.
    """

    def __init__(
        self, device: torch.device, size_bytes: int = DEFAULT_ARENA_BYTES, max_automata: int = MAX_AUTOMATA
    ) -> None:
        self.arena = AutomatonArena.allocate(size_bytes, max_automata, device)
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._size = len(self.arena.words)
        self._free_indices = list(range(max_automata))
        self._loaded: OrderedDict[Automaton, _Loaded] = OrderedDict()  # least recently used first

    def acquire(self, automaton: Automaton) -> int | None:
        """Adds a user; returns the automaton's index in the arena, None if there is no room until others are released.

        Raises GrammarTooLargeError if the arena could never hold it.
        """
        if automaton.size_bytes > self._size * 4:
            raise GrammarTooLargeError(
                f"the constraint's automaton takes {automaton.size_bytes:,} bytes on the device; allowed: "
                f"{self._size * 4:,}; make the constraint smaller or the arena larger"
            )
        loaded = self._loaded.get(automaton)
        if loaded is None:
            loaded = self._load(automaton)
        if loaded is None:
            return None
        loaded.num_users += 1
        self._loaded.move_to_end(automaton)
        return loaded.index

    def release(self, automaton: Automaton) -> None:
        """Takes one user away."""
        loaded = self._loaded[automaton]
        assert loaded.num_users > 0, f"automaton {loaded.index} has no user"
        loaded.num_users -= 1

    def is_ready(self, automaton: Automaton) -> bool:
        """Whether the copy to the device has ended."""
        uploaded = self._loaded[automaton].uploaded
        return uploaded is None or bool(uploaded.query())  # type: ignore[no-untyped-call]

    def wait_on_stream(self, automaton: Automaton) -> None:
        """Holds what is launched on the current stream from here on until the copy has ended; the host goes on."""
        uploaded = self._loaded[automaton].uploaded
        if uploaded is not None:
            torch.cuda.current_stream().wait_event(uploaded)

    def _load(self, automaton: Automaton) -> _Loaded | None:
        length = automaton.size_bytes // 4
        start = self._gap(length)
        unused = [other for other, loaded in self._loaded.items() if loaded.num_users == 0]
        while start is None or not self._free_indices:
            if not unused:
                return None
            self._free_indices.append(self._loaded.pop(unused.pop(0)).index)
            start = self._gap(length)
        index = self._free_indices.pop()
        loaded = self._loaded[automaton] = _Loaded(index, start, start + length, 0, self._copy(automaton, index, start))
        return loaded

    def _gap(self, length: int) -> int | None:
        """Where the first `length` free words start."""
        start = 0
        for loaded in sorted(self._loaded.values(), key=lambda loaded: loaded.start):
            if loaded.start - start >= length:
                return start
            start = loaded.end
        return start if self._size - start >= length else None

    def _copy(self, automaton: Automaton, index: int, start: int) -> torch.cuda.Event | None:
        packed = pack_automaton(automaton.byte_classes, automaton.table, automaton.sites, automaton.counts, start)
        words, head = map(torch.from_numpy, packed)
        target = self.arena.words[start : start + len(words)]
        if self._stream is None:
            target.copy_(words)
            self.arena.heads[index].copy_(head)
            return None
        with torch.cuda.stream(self._stream):
            target.copy_(words.pin_memory(), non_blocking=True)
            self.arena.heads[index].copy_(head.pin_memory(), non_blocking=True)
        uploaded = torch.cuda.Event()  # type: ignore[no-untyped-call]
        uploaded.record(self._stream)
        return uploaded


def put_place(records: Records, row: int, automaton: int, cursor: Cursor) -> None:
    """Writes where a generation stands in its constraint, the automaton at that index of the arena, to records[row]."""
    record = records[row]
    record["automaton"], record["state"], record["counter"] = automaton, cursor.state, cursor.counter
    record["depth"] = len(cursor.stack)
    if cursor.stack:
        record["stack"][: len(cursor.stack)] = cursor.stack
