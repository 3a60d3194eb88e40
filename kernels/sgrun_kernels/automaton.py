"""Walks of tokens through automata in Triton: that of the token which a row drew, and the bitmask of its new place.

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

from sgrun_kernels.fields import (
    ACCEPT,
    AUTOMATON,
    CALL,
    CAN_END,
    CLASSES,
    CONSUMING,
    COUNT,
    COUNTER,
    COUNTS,
    DEPTH,
    HAS_MASK,
    HAS_TEXT,
    HEAD_LEN,
    IS_ACCEPTING,
    LEADER,
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
)
from sgrun_kernels.rows import Rows, lanes_of
from sgrun_kernels.tables import AutomatonArena, VocabularyTables

MASK_REGISTERS = 128  # of a thread: all programs are resident, and what is known of 256 rows waits on the stack


def row_masks_(
    row_ids: Tensor, rows: Rows, arena: AutomatonArena, vocabulary: VocabularyTables, masks: Tensor, frames: Tensor
) -> None:
    """See the twin. At most as many programs run as `frames` has places for."""
    num_rows, block = len(row_ids), frames.shape[2]
    num_blocks = triton.cdiv(vocabulary.size, block)
    assert masks.shape[1] == vocabulary.num_words, (masks.shape, vocabulary.num_words)
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
        vocabulary.size,
        num_warps=1,
    )
    _end_kernel[(num_rows,)](row_ids, rows.words, *tables, frames, num_rows, ROWS=lanes, num_warps=1)
    _mask_kernel[(min(num_rows * num_blocks, len(frames)),)](
        row_ids,
        rows.words,
        *tables,
        vocabulary.token_bytes,
        vocabulary.token_lens,
        masks,
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


@triton.jit
def _advance_kernel(row_ids, words, arena, arena_bytes, heads, token_bytes, token_lens, num_tokens):
    """One program a row: moves its place over the token that is yet to be walked, which its bitmask allowed. The one
    lane's frames are the row's."""
    row = words + tl.load(row_ids + tl.program_id(0)).to(tl.int64) * ROW_LEN
    automaton, token = tl.load(row + AUTOMATON), tl.load(row + UNWALKED)
    if (automaton >= 0) & (token >= 0):
        lane = tl.arange(0, 32)
        lens = tl.where(lane == 0, tl.load(token_lens + token).to(tl.int32), 0)
        own, head = row + STACK + lane * 0, heads + automaton * HEAD_LEN
        old_state, old_counter, old_depth = tl.load(row + STATE), tl.load(row + COUNTER), tl.load(row + DEPTH)
        state, counter, depth, low = walk(
            token + lane * 0, lens, row, own, 2, arena, arena_bytes, head, token_bytes, num_tokens, AT_END=False
        )
        is_walker = lane == 0
        tl.store(row + STATE + lane, state, mask=is_walker)
        tl.store(row + COUNTER + lane, counter, mask=is_walker)
        tl.store(row + DEPTH + lane, depth, mask=is_walker)
        is_same = (state == old_state) & (counter == old_counter) & (depth == old_depth) & (low == old_depth)
        tl.store(row + HAS_MASK + lane, is_same.to(tl.int32), mask=is_walker)
        tl.store(row + UNWALKED, NO_TOKEN)


@triton.jit(do_not_specialize=["num_rows"])
def _end_kernel(row_ids, words, arena, arena_bytes, heads, frames, num_rows, ROWS: tl.constexpr):
    """One program a row: whether the text so far is complete, and which row leads it to its bitmask."""
    index = tl.program_id(0)
    row = words + tl.load(row_ids + index).to(tl.int64) * ROW_LEN
    automaton = tl.load(row + AUTOMATON)
    if (automaton >= 0) & (tl.load(row + HAS_MASK) == 0):
        tl.store(row + LEADER, _leader(index, row, row_ids, words, num_rows, ROWS))
        lane = tl.arange(0, 32)
        own = frames + tl.program_id(0) * MAX_DEPTH * 2 + lane * 0
        lens = (lane == 0).to(tl.int32)
        head = heads + automaton * HEAD_LEN
        state, _, _, _ = walk(lane, lens, row, own, 2, arena, arena_bytes, head, arena_bytes, 0, AT_END=True)
        tl.store(row + IS_ACCEPTING, tl.max((state != 0).to(tl.int32), 0))
        tl.store(row + HAS_TEXT, 0)


@triton.jit
def _leader(index, row, row_ids, words, num_rows, ROWS: tl.constexpr):
    """The first row at the same place of the same automaton, those first that have their bitmask; the row itself if
    that one's stack is another."""
    other = tl.arange(0, ROWS)
    inside = other < num_rows
    records = words + tl.load(row_ids + other, mask=inside, other=0).to(tl.int64) * ROW_LEN
    is_same = inside
    for field in tl.static_range(5):
        word = (AUTOMATON, STATE, COUNTER, DEPTH, CAN_END)[field]
        is_same = is_same & (tl.load(records + word, mask=inside, other=-1) == tl.load(row + word))
    has_mask = tl.load(records + HAS_MASK, mask=inside, other=0) != 0
    leader = tl.min(tl.where(is_same, tl.where(has_mask, other, other + ROWS), 2 * ROWS), 0) % ROWS
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
    masks,
    frames,
    num_rows,
    num_blocks,
    num_tokens,
    num_words,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program after the other takes a block of tokens: of a row that leads others, which all get its bits, or of
    one whose leader has its bitmask, to copy."""
    lane, index = tl.arange(0, BLOCK), tl.arange(0, ROWS)
    own = frames + tl.program_id(0).to(tl.int64) * MAX_DEPTH * BLOCK * 2 + lane * 2
    inside = index < num_rows
    row_id = tl.load(row_ids + index, mask=inside, other=0).to(tl.int64)
    records = words + row_id * ROW_LEN
    is_wanting = tl.load(records + AUTOMATON, mask=inside, other=-1) >= 0
    is_wanting = is_wanting & (tl.load(records + HAS_MASK, mask=inside, other=1) == 0)
    leader = tl.load(records + LEADER, mask=is_wanting, other=-1)
    leader_id = tl.load(row_ids + leader, mask=is_wanting, other=0).to(tl.int64)
    is_copy = tl.load(words + leader_id * ROW_LEN + HAS_MASK, mask=is_wanting, other=0) != 0
    rank = tl.cumsum((is_wanting & (is_copy | (leader == index))).to(tl.int32), 0)
    num_items = tl.max(rank, 0)
    for item in range(tl.program_id(0), num_items * num_blocks, tl.num_programs(0)):
        block = item // num_items
        chosen = tl.min(tl.where(rank == item % num_items + 1, index, ROWS), 0)
        row = words + tl.load(row_ids + chosen).to(tl.int64) * ROW_LEN
        word = block * (BLOCK // 32) + tl.arange(0, BLOCK // 32)
        source = tl.load(row_ids + tl.load(row + LEADER)).to(tl.int64)
        is_target = is_wanting & (leader == chosen) & (is_copy == 0)
        if tl.load(words + source * ROW_LEN + HAS_MASK) != 0:
            is_target = index == chosen
            bits = tl.load(masks + source * num_words + word, mask=word < num_words, other=0)
            has_text = tl.load(words + source * ROW_LEN + HAS_TEXT)
        else:
            token = block * BLOCK + lane
            lens = tl.load(token_lens + token, mask=token < num_tokens, other=0).to(tl.int32)
            head = heads + tl.load(row + AUTOMATON) * HEAD_LEN
            state, _, _, _ = walk(
                token, lens, row, own, BLOCK * 2, arena, arena_bytes, head, token_bytes, num_tokens, AT_END=False
            )
            allowed = (state != 0).to(tl.int32)
            has_text = tl.max(allowed, 0)
            allowed |= (lens < 0).to(tl.int32) & tl.load(row + IS_ACCEPTING) & tl.load(row + CAN_END)
            bits = tl.sum(tl.reshape(allowed, [BLOCK // 32, 32]) << tl.arange(0, 32)[None, :], 1)
        if has_text > 0:
            tl.store(records + HAS_TEXT, 1, mask=is_target)  # by several programs, the same
        places = masks + row_id[:, None] * num_words + word[None, :]
        bits = tl.broadcast_to(bits[None, :], [ROWS, BLOCK // 32])
        tl.store(places, bits, mask=is_target[:, None] & (word < num_words)[None, :])


@triton.jit
def walk(token, lens, row, own, own_stride, arena, arena_bytes, head, token_bytes, num_tokens, AT_END: tl.constexpr):
    """Where the first `lens` bytes of each `token` lead from the row's place: (state, counter, depth, the least
    depth on the way), state 0 if they are refused or there are none. AT_END: where the end of the text leads.

    `own` points at each lane's memory for frames, which has a frame every `own_stride` words.
    """
    classes = arena_bytes + tl.load(head + CLASSES).to(tl.int64) * 4
    table, table_width = arena + tl.load(head + TABLE), tl.load(head + TABLE_WIDTH)
    at = tl.zeros_like(lens)
    live = lens > 0
    state = tl.where(live, tl.load(row + STATE), 0)
    counter = at + tl.load(row + COUNTER)
    depth = at + tl.load(row + DEPTH)
    low = depth
    while tl.max(live.to(tl.int32), 0) > 0:
        if AT_END:
            column = at + table_width - 1
        else:
            byte = tl.load(token_bytes + (at * num_tokens + token), mask=live, other=0)
            column = tl.load(classes + byte.to(tl.int32), mask=live, other=0).to(tl.int32)
        entry = tl.load(table + (state * table_width + column), mask=live, other=0)
        following = entry >> OP_BITS  # of a move, as most entries are; entry 0 leads to state 0
        if tl.max(entry & (OP_MASK - MOVE), 0) > 0:  # neither a move nor dead: those are 1 and 0
            following, counter, depth, low, at = _carry_out(
                entry, state, counter, depth, low, at, row, own, own_stride, arena, head
            )
        else:
            at += 1
        state = tl.where(live, following, state)
        live = live & (state != 0) & (at < lens)
    return state, counter, depth, low


@triton.jit
def _carry_out(entry, state, counter, depth, low, at, row, own, own_stride, arena, head):
    """One entry of each lane, whatever it is: (next state, counter, depth, low, at)."""
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
    is_reached = number == tl.load(counts + argument * 3, mask=counts_up, other=0)
    following += tl.load(counts + argument * 3 + 1 + is_reached.to(tl.int32), mask=counts_up, other=0)

    counter = tl.where(pushes, 0, tl.where(pops, saved, tl.where(counts_up, number, counter)))
    low = tl.where(pops, tl.minimum(low, top), low)
    depth += pushes.to(tl.int32) - pops.to(tl.int32)
    return following, counter, depth, low, at
