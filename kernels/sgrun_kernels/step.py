"""What follows a draw, in Triton: one program a row. See the twin for what each does."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from sgrun_kernels.bitmask_cache import BitmaskCache
from sgrun_kernels.fields import (
    ADJUSTMENT,
    AUTOMATON,
    DRAWN,
    DRAWN_LOGPROB,
    ENTRY_LEN,
    ENTRY_NUM_ALLOWED,
    FAILED,
    FINISHED,
    HAS_TEXT,
    IS_ACCEPTING,
    IS_ACTIVE,
    MASK,
    MAX_STOP_IDS,
    NO_TOKEN,
    OUT_OF_TOKENS,
    POSITION,
    REMAINING,
    RING_LEN,
    ROW_LEN,
    SEQ_LEN,
    STOP_IDS,
    STOPPED,
    TOKEN_ID,
    UNWALKED,
)
from sgrun_kernels.overlap import await_previous, launch_options
from sgrun_kernels.rows import Adjustments, DecodeInputs, Ring, Rows


def commit_step_(row_ids: Tensor, rows: Rows, ring: Ring, adjustments: Adjustments, cache: BitmaskCache) -> None:
    """See the twin."""
    ring_size, max_rows, _ = ring.words.shape
    assert max_rows == len(rows.words), (max_rows, len(rows.words))
    _commit_kernel[(len(row_ids),)](
        row_ids,
        rows.words,
        ring.words,
        ring.index,
        ring.arrivals,
        adjustments.seen,
        cache.entries,
        ring_size,
        max_rows,
        adjustments.seen.shape[1],
        num_warps=1,
        **launch_options(),
    )


def decode_inputs_(row_ids: Tensor, rows: Rows, inputs: DecodeInputs, page_size: int, spare_page: int) -> None:
    """See the twin."""
    _inputs_kernel[(len(row_ids),)](
        row_ids,
        rows.words,
        rows.page_tables,
        inputs.token_ids,
        inputs.positions,
        inputs.slots,
        inputs.seq_lens,
        inputs.page_tables,
        inputs.page_tables.shape[1],
        rows.page_tables.stride(0),
        inputs.page_tables.stride(0),
        page_size,
        spare_page,
        BLOCK=1024,
    )


@triton.jit
def _commit_kernel(
    row_ids,
    words,
    ring,
    ring_index,
    arrivals,
    seen,
    entries,
    ring_size,
    max_rows,
    vocab_size,
    OVERLAPS: tl.constexpr,
):
    await_previous(OVERLAPS)
    row_id = tl.load(row_ids + tl.program_id(0)).to(tl.int64)
    row = words + row_id * ROW_LEN
    index = tl.load(ring_index)
    token = tl.load(row + DRAWN)
    automaton = tl.load(row + AUTOMATON)
    is_active = tl.load(row + IS_ACTIVE) != 0
    is_finished = (automaton >= 0) & (tl.load(row + IS_ACCEPTING) != 0) & (tl.load(row + HAS_TEXT) == 0)
    stop_ids = tl.load(row + STOP_IDS + tl.arange(0, MAX_STOP_IDS))
    is_stop = tl.max((stop_ids == token).to(tl.int32), 0) != 0
    reason = tl.where(is_finished, FINISHED, tl.where(token < 0, FAILED, tl.where(is_stop, STOPPED, 0)))
    reason = tl.where(is_active, reason, 0)
    if is_active & (reason == 0):
        tl.store(row + UNWALKED, token)
        adjustment = tl.load(row + ADJUSTMENT)
        if adjustment >= 0:
            place = seen + adjustment.to(tl.int64) * vocab_size + token
            tl.store(place, tl.load(place) + 2)
        remaining = tl.load(row + REMAINING) - 1
        reason = tl.where(remaining == 0, OUT_OF_TOKENS, 0)
        tl.store(row + REMAINING, remaining)
        tl.store(row + TOKEN_ID, token)
        tl.store(row + POSITION, tl.load(row + POSITION) + 1)
        tl.store(row + SEQ_LEN, tl.load(row + SEQ_LEN) + 1)
    if reason != 0:
        tl.store(row + IS_ACTIVE, 0)
        tl.store(row + AUTOMATON, -1)
    entry = ring + (index % ring_size * max_rows + row_id) * RING_LEN
    token = tl.where(is_active & (is_finished == 0), token, NO_TOKEN)
    tl.store(entry, token)
    tl.store(entry + 1, reason)
    tl.store(entry + 2, tl.where(token >= 0, tl.load(row + DRAWN_LOGPROB), 0))
    kept = entries + tl.load(row + MASK) * ENTRY_LEN
    num_allowed = tl.load(kept + ENTRY_NUM_ALLOWED, mask=automaton >= 0, other=0)
    tl.store(entry + 3, ((token >= 0) & (num_allowed == 1)).to(tl.int32))
    # The last program has seen all others read the index.
    if tl.atomic_add(arrivals, 1) == tl.num_programs(0) - 1:
        tl.store(arrivals, 0)
        tl.store(ring_index, index + 1)


@triton.jit
def _inputs_kernel(
    row_ids,
    words,
    page_tables,
    token_ids,
    positions,
    slots,
    seq_lens,
    own_pages,
    num_pages,
    table_stride,
    own_stride,
    page_size,
    spare_page,
    BLOCK: tl.constexpr,
):
    index = tl.program_id(0).to(tl.int64)
    row_id = tl.load(row_ids + index).to(tl.int64)
    row = words + row_id * ROW_LEN
    table = page_tables + row_id * table_stride
    is_active = tl.load(row + IS_ACTIVE) != 0
    seq_len = tl.where(is_active, tl.load(row + SEQ_LEN), 1)
    position = seq_len - 1
    page = tl.where(is_active, tl.load(table + position // page_size), spare_page).to(tl.int64)
    offset = tl.where(is_active, position, index) % page_size
    tl.store(token_ids + index, tl.where(is_active, tl.load(row + TOKEN_ID), 0))
    tl.store(positions + index, position)
    tl.store(slots + index, page * page_size + offset)
    tl.store(seq_lens + index, seq_len)
    for start in range(0, num_pages, BLOCK):
        places = start + tl.arange(0, BLOCK)
        inside = places < num_pages
        tl.store(own_pages + index * own_stride + places, tl.load(table + places, mask=inside), mask=inside)
