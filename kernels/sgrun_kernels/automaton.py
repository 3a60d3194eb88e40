"""Walks of tokens through automata in Triton: that of the token which a row drew, and the bitmask of its new place,
unless it is kept from a place like it.

A lane walks one token. Frames that it finds on its row's stack it reads there; frames that it pushes go to memory of
its own, level by level: `low` is the least depth that the lane has been at, and what lies below `low` is the row's.

Read off the machine code: a token takes some 28 instructions for each of its bytes that is walked, and 130 where one
of its neighbours calls, returns or counts. A program is one warp with four tokens a thread, since it goes on until its
longest survivor has ended: after two or three bytes where the text is structure, after about as many as tokens are long
where it is free. Counted so, masks of 64 rows over 131,072 tokens are 30 or 110 us of an H200's instructions.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgrun_kernels.bitmask_cache import BitmaskCache
from sgrun_kernels.bitmask_lookup import describe, find, take
from sgrun_kernels.fields import (
    ACCEPT,
    ANY_COUNTER,
    AUTOMATON,
    CALL,
    CAN_END,
    CLASSES,
    CONSTRAINT,
    CONSUMING,
    COUNT,
    COUNTER,
    COUNTS,
    DEPTH,
    ENTRY_HAS_TEXT,
    ENTRY_IS_ACCEPTING,
    ENTRY_LEN,
    ENTRY_LOW,
    ENTRY_NEAR,
    ENTRY_NUM_ALLOWED,
    ENTRY_USED,
    HAS_TEXT,
    HEAD_LEN,
    IS_ACCEPTING,
    LEADER,
    MASK,
    MAX_DEPTH,
    MOVE,
    NO_TOKEN,
    OP_BITS,
    OP_MASK,
    RESET,
    RETURN,
    RETURN_AFTER,
    ROW_LEN,
    SITES,
    SITES_WIDTH,
    STACK,
    STATE,
    TABLE,
    TABLE_WIDTH,
    UNWALKED,
    WAYS,
)
from sgrun_kernels.rows import Rows, lanes_of
from sgrun_kernels.tables import AutomatonArena, VocabularyTables

MASK_REGISTERS = 128  # of a thread: all programs are resident, and what is known of 256 rows waits on the stack


def row_masks_(
    row_ids: Tensor,
    rows: Rows,
    arena: AutomatonArena,
    vocabulary: VocabularyTables,
    cache: BitmaskCache,
    frames: Tensor,
) -> None:
    """See the twin. At most as many programs run as `frames` has places for."""
    num_rows, block = len(row_ids), frames.shape[2]
    num_blocks = triton.cdiv(vocabulary.size, block)
    assert cache.bits.shape[1] == vocabulary.num_words, (cache.bits.shape, vocabulary.num_words)
    assert len(cache.bits) >= cache.own_slot(len(rows.words)), (cache.bits.shape, cache.num_sets, rows.words.shape)
    assert frames.shape[1::2] == (MAX_DEPTH.value, 2), frames.shape
    assert vocabulary.token_bytes.numel() < 2**31, vocabulary.token_bytes.shape
    assert num_rows <= len(frames) * block, (num_rows, frames.shape)
    tables = arena.words, arena.words.view(torch.uint8), arena.heads
    lanes = lanes_of(num_rows, rows)
    _advance_kernel[(num_rows,)](
        row_ids,
        rows.words,
        *tables,
        vocabulary.token_bytes,
        vocabulary.token_lens,
        cache.entries,
        cache.launch,
        vocabulary.size,
        cache.num_sets,
        num_warps=1,
    )
    _claim_kernel[(num_rows,)](
        row_ids,
        rows.words,
        *tables,
        cache.entries,
        cache.launch,
        frames,
        num_rows,
        cache.num_sets,
        ROWS=lanes,
        num_warps=1,
    )
    _mask_kernel[(min(num_rows * num_blocks, len(frames)),)](
        row_ids,
        rows.words,
        *tables,
        vocabulary.token_bytes,
        vocabulary.token_lens,
        cache.bits,
        cache.entries,
        cache.launch,
        frames,
        num_rows,
        num_blocks,
        vocabulary.size,
        vocabulary.num_words,
        ROWS=lanes,
        BLOCK=block,
        num_warps=1,
        maxnreg=MASK_REGISTERS,
    )


@triton.jit(do_not_specialize=["num_sets"])
def _advance_kernel(
    row_ids, words, arena, arena_bytes, heads, token_bytes, token_lens, entries, launch, num_tokens, num_sets
):
    """One program a row: moves its place over the token that is yet to be walked, which its bitmask allowed, and looks
    for the bitmask of the place. The one lane's frames are the row's."""
    row = words + tl.load(row_ids + tl.program_id(0)).to(tl.int64) * ROW_LEN
    automaton, token = tl.load(row + AUTOMATON), tl.load(row + UNWALKED)
    if automaton >= 0:
        head = heads + automaton * HEAD_LEN
        if token >= 0:
            lane = tl.arange(0, 32)
            lens = tl.where(lane == 0, tl.load(token_lens + token).to(tl.int32), 0)
            state, counter, depth, _, _ = walk(
                token + lane * 0,
                lens,
                row,
                row + STACK + lane * 0,
                2,
                arena,
                arena_bytes,
                head,
                token_bytes,
                num_tokens,
                AT_END=False,
            )
            tl.store(row + STATE + lane, state, mask=lane == 0)
            tl.store(row + COUNTER + lane, counter, mask=lane == 0)
            tl.store(row + DEPTH + lane, depth, mask=lane == 0)
            tl.store(row + UNWALKED, NO_TOKEN)
            tl.debug_barrier()  # the other lanes read what this one has stored
        slot = find(row, tl.load(head + CONSTRAINT), entries, num_sets)
        tl.store(row + MASK, slot)
        if slot >= 0:
            entry = entries + slot * ENTRY_LEN
            tl.store(entry + ENTRY_USED, tl.load(launch))
            tl.store(row + LEADER, -1)
            tl.store(row + IS_ACCEPTING, tl.load(entry + ENTRY_IS_ACCEPTING))
            tl.store(row + HAS_TEXT, tl.load(entry + ENTRY_HAS_TEXT))


@triton.jit(do_not_specialize=["num_rows", "num_sets"])
def _claim_kernel(
    row_ids,
    words,
    arena,
    arena_bytes,
    heads,
    entries,
    launch,
    frames,
    num_rows,
    num_sets,
    ROWS: tl.constexpr,
):
    """One program a row whose bitmask was not there: whether the text so far is complete, which row leads it to its
    bitmask, and where that goes if it leads itself."""
    index = tl.program_id(0)
    row_id = tl.load(row_ids + index)
    row = words + row_id.to(tl.int64) * ROW_LEN
    automaton = tl.load(row + AUTOMATON)
    if (automaton >= 0) & (tl.load(row + MASK) < 0):
        leader = _leader(index, row, row_ids, words, num_rows, ROWS)
        tl.store(row + LEADER, leader)
        lane = tl.arange(0, 32)
        own = frames + tl.program_id(0) * MAX_DEPTH * 2 + lane * 0
        lens = (lane == 0).to(tl.int32)
        head = heads + automaton * HEAD_LEN
        state, _, _, low, near = walk(lane, lens, row, own, 2, arena, arena_bytes, head, arena_bytes, 0, AT_END=True)
        is_accepting = tl.max((state != 0).to(tl.int32), 0)
        tl.store(row + IS_ACCEPTING, is_accepting)
        tl.store(row + HAS_TEXT, 0)
        if leader == index:
            constraint = tl.load(head + CONSTRAINT)
            own_slot = num_sets * WAYS + row_id
            slot = take(row, constraint, own_slot, entries, tl.load(launch), num_sets)
            describe(row, constraint, tl.min(low, 0), tl.min(near, 0), is_accepting, entries + slot * ENTRY_LEN)
            tl.store(row + MASK, slot)


@triton.jit
def _leader(index, row, row_ids, words, num_rows, ROWS: tl.constexpr):
    """The first row at the same place of the same automaton; the row itself if that one's stack is another."""
    other = tl.arange(0, ROWS)
    inside = other < num_rows
    records = words + tl.load(row_ids + other, mask=inside, other=0).to(tl.int64) * ROW_LEN
    is_same = inside
    for field in tl.static_range(5):
        word = (AUTOMATON, STATE, COUNTER, DEPTH, CAN_END)[field]
        is_same = is_same & (tl.load(records + word, mask=inside, other=-1) == tl.load(row + word))
    leader = tl.min(tl.where(is_same, other, ROWS), 0)
    frame = tl.arange(0, 2 * MAX_DEPTH)
    is_used = frame < 2 * tl.load(row + DEPTH)
    stack = tl.load(row + STACK + frame, mask=is_used, other=0)
    leaders = words + tl.load(row_ids + leader).to(tl.int64) * ROW_LEN + STACK
    differs = stack != tl.load(leaders + frame, mask=is_used, other=0)
    return tl.where(tl.max(differs.to(tl.int32), 0) == 0, leader, index)


@triton.jit(do_not_specialize=["num_rows"])
def _mask_kernel(
    row_ids,
    words,
    arena,
    arena_bytes,
    heads,
    token_bytes,
    token_lens,
    bits,
    entries,
    launch,
    frames,
    num_rows,
    num_blocks,
    num_tokens,
    num_words,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program after the other walks a block of tokens of a row that leads others or itself."""
    lane, index = tl.arange(0, BLOCK), tl.arange(0, ROWS)
    own = frames + tl.program_id(0).to(tl.int64) * MAX_DEPTH * BLOCK * 2 + lane * 2
    inside = index < num_rows
    records = words + tl.load(row_ids + index, mask=inside, other=0).to(tl.int64) * ROW_LEN
    is_constrained = tl.load(records + AUTOMATON, mask=inside, other=-1) >= 0
    leader = tl.load(records + LEADER, mask=is_constrained, other=-1)
    rank = tl.cumsum((leader == index).to(tl.int32), 0)
    num_items = tl.max(rank, 0)
    for item in range(tl.program_id(0), num_items * num_blocks, tl.num_programs(0)):
        block = item // num_items
        chosen = tl.min(tl.where(rank == item % num_items + 1, index, ROWS), 0)
        row = words + tl.load(row_ids + chosen).to(tl.int64) * ROW_LEN
        slot = tl.load(row + MASK)
        token = block * BLOCK + lane
        lens = tl.load(token_lens + token, mask=token < num_tokens, other=0).to(tl.int32)
        head = heads + tl.load(row + AUTOMATON) * HEAD_LEN
        state, _, _, low, near = walk(
            token, lens, row, own, BLOCK * 2, arena, arena_bytes, head, token_bytes, num_tokens, AT_END=False
        )
        allowed = (state != 0).to(tl.int32)
        # Several programs may store these, the same values.
        entry = entries + slot * ENTRY_LEN
        if tl.max(allowed, 0) > 0:
            tl.store(entry + ENTRY_HAS_TEXT, 1)
            tl.store(records + HAS_TEXT, 1, mask=leader == chosen)
        if block == 0:
            tl.store(records + MASK, slot, mask=leader == chosen)
        lowest, nearest = tl.min(low, 0), tl.min(near, 0)
        if lowest < tl.load(entry + ENTRY_LOW):
            tl.atomic_min(entry + ENTRY_LOW, lowest, sem="relaxed")
        if nearest < tl.load(entry + ENTRY_NEAR):
            tl.atomic_min(entry + ENTRY_NEAR, nearest, sem="relaxed")
        allowed |= (lens < 0).to(tl.int32) & tl.load(row + IS_ACCEPTING) & tl.load(row + CAN_END)
        num_allowed = tl.sum(allowed, 0)
        if num_allowed > 0:
            tl.atomic_add(entry + ENTRY_NUM_ALLOWED, num_allowed, sem="relaxed")
        found = tl.sum(tl.reshape(allowed, [BLOCK // 32, 32]) << tl.arange(0, 32)[None, :], 1)
        word = block * (BLOCK // 32) + tl.arange(0, BLOCK // 32)
        tl.store(bits + slot.to(tl.int64) * num_words + word, found, mask=word < num_words)
    if tl.program_id(0) == 0:
        tl.store(launch, tl.load(launch) + 1)


@triton.jit
def walk(token, lens, row, own, own_stride, arena, arena_bytes, head, token_bytes, num_tokens, AT_END: tl.constexpr):
    """Where the first `lens` bytes of each `token` lead from the row's place: (state, counter, depth, the least
    depth on the way, 0 if there was no room for a frame, how near a counter came to where it matters), state 0 if they
    are refused or there are none. AT_END: where the end of the text leads.

    `own` points at each lane's memory for frames, which has a frame every `own_stride` words.
    """
    classes = arena_bytes + tl.load(head + CLASSES).to(tl.int64) * 4
    table, table_width = arena + tl.load(head + TABLE), tl.load(head + TABLE_WIDTH)
    at = tl.zeros_like(lens)
    live = lens > 0
    state = tl.where(live, tl.load(row + STATE), 0)
    counter = at + tl.load(row + COUNTER)
    depth = at + tl.load(row + DEPTH)
    low, near = depth, at + ANY_COUNTER
    while tl.max(live.to(tl.int32), 0) > 0:
        if AT_END:
            column = at + table_width - 1
        else:
            byte = tl.load(token_bytes + (at * num_tokens + token), mask=live, other=0)
            column = tl.load(classes + byte.to(tl.int32), mask=live, other=0).to(tl.int32)
        entry = tl.load(table + (state * table_width + column), mask=live, other=0)
        following = entry >> OP_BITS  # of a move, as most entries are; entry 0 leads to state 0
        if tl.max(entry & (OP_MASK - MOVE), 0) > 0:  # neither a move nor dead: those are 1 and 0
            following, counter, depth, low, near, at = _carry_out(
                entry, state, counter, depth, low, near, at, row, own, own_stride, arena, head
            )
        else:
            at += 1
        state = tl.where(live, following, state)
        live = live & (state != 0) & (at < lens)
    return state, counter, depth, low, near


@triton.jit
def _carry_out(entry, state, counter, depth, low, near, at, row, own, own_stride, arena, head):
    """One entry of each lane, whatever it is: (next state, counter, depth, low, near, at)."""
    op, argument = entry & OP_MASK, entry >> OP_BITS
    following = tl.where((op == MOVE) | (op == RESET), argument, tl.where(op == ACCEPT, state, 0))
    counter = tl.where(op == RESET, 0, counter)
    at += (CONSUMING >> op) & 1
    sites, sites_width = arena + tl.load(head + SITES), tl.load(head + SITES_WIDTH)
    counts = arena + tl.load(head + COUNTS)
    pushes = (op == CALL) & (depth < MAX_DEPTH)
    tl.store(own + depth * own_stride, argument, mask=pushes)
    tl.store(own + depth * own_stride + 1, counter, mask=pushes)
    tl.debug_barrier()  # the compiler may let one thread store a lane's frame and another load it
    following = tl.load(sites + argument * sites_width, mask=pushes, other=0) + following

    pops = ((op == RETURN) | (op == RETURN_AFTER)) & (depth > 0)
    top = depth - 1
    is_rows = pops & (top < low)
    is_own = pops & (top >= low)
    in_row = row + STACK + top * 2
    site = tl.load(in_row, mask=is_rows, other=0) + tl.load(own + top * own_stride, mask=is_own, other=0)
    saved = tl.load(in_row + 1, mask=is_rows, other=0) + tl.load(own + top * own_stride + 1, mask=is_own, other=0)
    following += tl.load(sites + site * sites_width + 1 + argument, mask=pops, other=0)

    counts_up = op == COUNT
    number = counter + 1
    missing = tl.load(counts + argument * 3, mask=counts_up, other=0) - number
    following += tl.load(counts + argument * 3 + 1 + (missing == 0).to(tl.int32), mask=counts_up, other=0)
    near = tl.where(counts_up, tl.minimum(near, tl.maximum(tl.abs(missing), 1)), near)

    counter = tl.where(pushes, 0, tl.where(pops, saved, tl.where(counts_up, number, counter)))
    low = tl.where(pops, tl.minimum(low, top), tl.where((op == CALL) & (depth == MAX_DEPTH), 0, low))
    depth += pushes.to(tl.int32) - pops.to(tl.int32)
    return following, counter, depth, low, near, at
