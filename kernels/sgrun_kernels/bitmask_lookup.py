"""Where the bitmask of a row's place is kept, in Triton: a warp looks through the ways of a set, or takes one of them.

Launches come one after the other: all rows look first, then those that found nothing take slots, then these are filled.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sgrun_kernels.fields import (
    CAN_END,
    COUNTER,
    DEPTH,
    ENTRY_CAN_END,
    ENTRY_CONSTRAINT,
    ENTRY_COUNTER,
    ENTRY_DEPTH,
    ENTRY_HAS_TEXT,
    ENTRY_IS_ACCEPTING,
    ENTRY_LEN,
    ENTRY_LOW,
    ENTRY_NEAR,
    ENTRY_NUM_ALLOWED,
    ENTRY_STACK,
    ENTRY_STATE,
    ENTRY_USED,
    MAX_DEPTH,
    STACK,
    STATE,
    WAYS,
)


@triton.jit
def find(row, constraint, entries, num_sets):
    """The slot that holds the bitmask of the row's place; -1 if there is none."""
    can_end, state = tl.load(row + CAN_END), tl.load(row + STATE)
    counter, depth = tl.load(row + COUNTER), tl.load(row + DEPTH)
    slot = _first_slot(constraint, state, num_sets) + tl.arange(0, WAYS)
    entry = entries + slot * ENTRY_LEN
    kept_depth, low = tl.load(entry + ENTRY_DEPTH), tl.load(entry + ENTRY_LOW)
    is_same = (tl.load(entry + ENTRY_CONSTRAINT) == constraint) & (tl.load(entry + ENTRY_CAN_END) == can_end)
    is_same = is_same & (tl.load(entry + ENTRY_STATE) == state)
    is_same = is_same & (tl.abs(tl.load(entry + ENTRY_COUNTER) - counter) < tl.load(entry + ENTRY_NEAR))
    # What had room to push there has it where less is on the stack; all frames that were looked at have to be there.
    has_room = (depth <= kept_depth) & (depth >= kept_depth - low)
    is_same = is_same & tl.where(low > 0, has_room, depth == kept_depth)
    found = -1
    while tl.max(is_same.to(tl.int32), 0) > 0:
        candidate = tl.min(tl.where(is_same, slot, 2**31 - 1), 0)
        if _has_frames(row, depth, entries + candidate * ENTRY_LEN):
            found = candidate
            is_same = is_same & (slot < 0)
        is_same = is_same & (slot != candidate)
    return found


@triton.jit
def take(row, constraint, own_slot, entries, now, num_sets):
    """A slot for the bitmask of the row's place: the one of its set that was used the longest ago, `own_slot` if this
    launch uses all of them. Others may take slots of the set at the same time."""
    way = tl.arange(0, WAYS)
    first = _first_slot(constraint, tl.load(row + STATE), num_sets)
    taken = own_slot
    num_tries = 0
    while num_tries < WAYS:
        used = tl.load(entries + (first + way) * ENTRY_LEN + ENTRY_USED, volatile=True)
        oldest = tl.min(used, 0)
        candidate = first + tl.min(tl.where(used == oldest, way, WAYS), 0)
        num_tries += 1
        if oldest == now:
            num_tries = WAYS
        elif tl.atomic_cas(entries + candidate * ENTRY_LEN + ENTRY_USED, oldest, now) == oldest:
            taken = candidate
            num_tries = WAYS
    return taken


@triton.jit
def describe(row, constraint, low, near, is_accepting, entry):
    """Writes what the bitmask that is about to be filled in depends on, as far as it is known. No token is
    allowed yet."""
    depth = tl.load(row + DEPTH)
    tl.store(entry + ENTRY_CONSTRAINT, constraint)
    tl.store(entry + ENTRY_CAN_END, tl.load(row + CAN_END))
    tl.store(entry + ENTRY_STATE, tl.load(row + STATE))
    tl.store(entry + ENTRY_COUNTER, tl.load(row + COUNTER))
    tl.store(entry + ENTRY_DEPTH, depth)
    tl.store(entry + ENTRY_LOW, low)
    tl.store(entry + ENTRY_NEAR, near)
    tl.store(entry + ENTRY_IS_ACCEPTING, is_accepting)
    tl.store(entry + ENTRY_HAS_TEXT, 0)
    tl.store(entry + ENTRY_NUM_ALLOWED, 0)
    word = tl.arange(0, 2 * MAX_DEPTH)
    frames = tl.load(row + STACK + word, mask=word < 2 * depth, other=0)
    tl.store(entry + ENTRY_STACK + word, frames, mask=word < 2 * depth)


@triton.jit
def _first_slot(constraint, state, num_sets):
    """Of the set of a place. Stack and counter have no part in it, since they may not matter. The multipliers are odd
    and as good as random, the first of them 2^32 over the golden ratio."""
    mixed = constraint * -1640531535 + state * -2048144789
    mixed = (mixed ^ (mixed >> 15)) * 374761393
    return ((mixed >> 4) & 0x7FFFFFF) % num_sets * WAYS


@triton.jit
def _has_frames(row, depth, entry):
    """Whether the frames that an entry depends on are those on top of the row's stack."""
    kept_depth = tl.load(entry + ENTRY_DEPTH)
    word = tl.arange(0, 2 * MAX_DEPTH)
    matters = (word >= 2 * tl.load(entry + ENTRY_LOW)) & (word < 2 * kept_depth)
    kept = tl.load(entry + ENTRY_STACK + word, mask=matters, other=0)
    frames = tl.load(row + STACK + word + 2 * (depth - kept_depth), mask=matters, other=0)
    allowed = tl.where(word % 2 == 0, 1, tl.load(entry + ENTRY_NEAR))  # sites and counters in turn
    return tl.max((tl.abs(kept - frames) >= allowed).to(tl.int32), 0) == 0
