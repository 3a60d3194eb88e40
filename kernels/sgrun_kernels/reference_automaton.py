"""The twin of `automaton.py` in plain Python, one token after the other. Same names, same signatures."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sgrun_kernels.bitmask_cache import ENTRY, BitmaskCache
from sgrun_kernels.rows import MAX_DEPTH, NO_TOKEN, Records, Rows
from sgrun_kernels.tables import (
    ACCEPT,
    CALL,
    CLASSES,
    COUNT,
    COUNTS,
    MOVE,
    OP_BITS,
    RESET,
    RETURN,
    RETURN_AFTER,
    SITES,
    SITES_WIDTH,
    TABLE,
    TABLE_WIDTH,
    AutomatonArena,
    VocabularyTables,
)

OP_MASK = (1 << OP_BITS) - 1


class Place(NamedTuple):
    """Where a text stands: `stack` holds (site, counter), the outermost frame first."""

    state: int
    counter: int
    stack: tuple[tuple[int, int], ...]


def row_masks_(
    row_ids: Tensor,
    rows: Rows,
    arena: AutomatonArena,
    vocabulary: VocabularyTables,
    cache: BitmaskCache,
    frames: Tensor,
) -> None:
    """Walks the token that each constrained row of `row_ids` [L] int32 drew last, if it is unwalked. Then sees that the
    bitmask of its place is in the cache, and writes its slot, `is_accepting` and `has_text` to the row. A token is
    allowed if the place after it is alive, an end token if the text is complete and the row's can_end is set. Rows
    without a constraint are left as they are. The twin keeps nothing: it writes every bitmask to the row's own slot.

    `frames`: see `allocate_frames`.
    """
    records = rows.records()
    token_lens = vocabulary.token_lens.numpy()
    columns = vocabulary.token_bytes.numpy()
    for row_id in row_ids.tolist():
        record = records[row_id : row_id + 1]
        if record["automaton"][0] < 0:
            continue
        walker = ArenaWalker(arena, int(record["automaton"][0]))
        if record["unwalked"][0] != NO_TOKEN:
            _walk_token(record, walker, vocabulary)
        place = place_of(record[0])
        is_accepting = walker.is_accepting(place)
        allowed = np.zeros(vocabulary.num_words * 32, dtype=np.bool_)
        for token_id in np.flatnonzero(token_lens > 0):
            data = columns[: token_lens[token_id], token_id].tobytes()
            allowed[token_id] = walker.advance(place, data) is not None
        record["is_accepting"], record["has_text"] = is_accepting, allowed.any()
        if is_accepting and record["can_end"][0]:
            allowed[: vocabulary.size] |= token_lens == -1
        slot = record["mask"] = cache.own_slot(row_id)
        cache.entries.numpy().view(ENTRY)[slot]["num_allowed"] = allowed.sum()
        cache.bits[slot] = torch.from_numpy(np.packbits(allowed, bitorder="little").view("<i4"))


def _walk_token(record: Records, walker: ArenaWalker, vocabulary: VocabularyTables) -> None:
    token_id = int(record["unwalked"][0])
    data = vocabulary.token_bytes[: int(vocabulary.token_lens[token_id]), token_id].numpy().tobytes()
    place = walker.advance(place_of(record[0]), data)
    assert place is not None, f"the bitmask allowed token {token_id}, the automaton refuses it"
    record["state"], record["counter"], record["depth"] = place.state, place.counter, len(place.stack)
    if place.stack:
        record["stack"][0, : len(place.stack)] = place.stack
    record["unwalked"] = NO_TOKEN


def place_of(record: Records) -> Place:
    """The place of one row's record."""
    frames = record["stack"][: record["depth"]].tolist()
    return Place(int(record["state"]), int(record["counter"]), tuple((site, counter) for site, counter in frames))


class ArenaWalker:
    """One automaton of an arena on the CPU."""

    def __init__(self, arena: AutomatonArena, automaton: int) -> None:
        self.words: npt.NDArray[np.int32] = arena.words.numpy()
        self.head = arena.heads[automaton].tolist()
        self.classes = self.words[self.head[CLASSES] :][:64].tobytes()

    def advance(self, place: Place, data: bytes) -> Place | None:
        """Where `data` leads; None if the automaton refuses it."""
        return self._walk(place, list(data.translate(self.classes)))

    def is_accepting(self, place: Place) -> bool:
        """Whether the text so far is complete."""
        return self._walk(place, [self.head[TABLE_WIDTH] - 1]) is not None

    def _walk(self, place: Place, columns: list[int]) -> Place | None:
        state, counter, stack = place
        at = 0
        while at < len(columns):
            entry = self._word(TABLE, state * self.head[TABLE_WIDTH] + columns[at])
            op, argument = entry & OP_MASK, entry >> OP_BITS
            if op in (MOVE, RESET):
                state = argument
            elif op == CALL:
                if len(stack) == MAX_DEPTH:
                    return None
                stack = (*stack, (argument, counter))
                state = self._word(SITES, argument * self.head[SITES_WIDTH])
            elif op in (RETURN, RETURN_AFTER):
                if not stack:
                    return None
                site, counter = stack[-1]
                stack = stack[:-1]
                state = self._word(SITES, site * self.head[SITES_WIDTH] + 1 + argument)
            elif op == COUNT:
                counter += 1
                is_reached = counter == self._word(COUNTS, 3 * argument)
                state = self._word(COUNTS, 3 * argument + 1 + is_reached)
            elif op != ACCEPT:
                return None
            counter = 0 if op in (CALL, RESET) else counter
            at += op in (MOVE, RETURN_AFTER, RESET, ACCEPT)
        return Place(state, counter, stack) if state else None

    def _word(self, table: int, index: int) -> int:
        return int(self.words[self.head[table] + index])
