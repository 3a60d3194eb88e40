"""Attention of one token per row over its pages, on a GPU: split over the sequence, merged by whoever comes last.

How a row is cut into splits depends on its own length alone (see `decode_splits`). The parts of a row's splits are
merged one after the other (flash decoding, https://arxiv.org/abs/2311.01282): by the program that has the whole row, as
it goes; or, where several programs share the row, by the last of them to arrive, with the same operations in the same
order. How many share it depends on the batch, what is computed does not: a row gives the same bits alone and in any
batch. Of few rows all are shared; of many those that are much longer than the others, for which their splits are dealt.

Rows that stand side by side may be bundled: the splits that they have in common are computed by a launch of its own,
for all query heads of a bundle together, so that their pages are read once; each row then goes on from these parts. The
rows of a bundle know nothing of one another: the bits are the same.

Shape legend: see `reference`; G is Hq / Hk, the query heads that share a key/value head.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgrun_kernels.decode_plan import DecodePlan
from sgrun_kernels.decode_splits import MAX_SPLITS, SPLIT_LEN, block_tokens, split_blocks
from sgrun_kernels.overlap import await_previous, launch_options, release_next

MULTIPROCESSORS = 132  # of an H100 or H200
LOG2_E = 1.4426950408889634


def decode_attention(q: Tensor, k_cache: Tensor, v_cache: Tensor, plan: DecodePlan, scale: float) -> Tensor:
    """Attention of one token per row over the row's whole sequence: q [R, Hq, D] -> [R, Hq, D] contiguous."""
    num_rows, num_q_heads, head_dim = q.shape
    assert q.stride(2) == plan.page_tables.stride(1) == 1
    assert k_cache.is_contiguous()
    assert v_cache.is_contiguous()
    out = torch.empty(num_rows, num_q_heads, head_dim, dtype=q.dtype, device=q.device)
    if plan.bundle_rows > 1:
        _launch(q, k_cache, v_cache, plan, scale, out, is_of_bundles=True)
    _launch(q, k_cache, v_cache, plan, scale, out, is_of_bundles=False)
    return out


def _launch(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, plan: DecodePlan, scale: float, out: Tensor, *, is_of_bundles: bool
) -> None:
    """Computes the common splits of all bundles, or else what remains of each row."""
    num_rows, _, head_dim = q.shape
    num_kv_heads, num_parts, group = plan.parts.shape[1:4]
    page_size = k_cache.shape[1]
    rows_at_once = plan.bundle_rows if is_of_bundles else 1
    block_g = max(triton.next_power_of_2(rows_at_once * group), 8)
    block_d = max(triton.next_power_of_2(head_dim), 16)
    block_n = block_tokens(head_dim, k_cache.dtype)
    is_dealt = not is_of_bundles and not plan.num_programs
    if is_of_bundles:
        grid = len(plan.common) * num_kv_heads, plan.bundle_programs
    elif is_dealt:
        grid = (len(plan.places) - 1) * num_kv_heads, 1
    else:
        grid = num_rows * num_kv_heads, plan.num_programs
    is_sized = is_dealt and block_d * k_cache.dtype.itemsize == 256  # 32 KiB of keys and values a block
    num_stages, max_registers = _stages(num_rows * num_kv_heads) if is_sized else (3, None)
    _decode_kernel[grid](
        q,
        k_cache,
        v_cache,
        plan.page_tables,
        plan.seq_lens,
        plan.common,
        plan.places,
        out,
        plan.parts,
        plan.part_weights,
        plan.arrivals,
        scale * LOG2_E,
        q.stride(0),
        q.stride(1),
        plan.page_tables.stride(0),
        num_parts,
        num_rows,
        PAGE_SIZE=page_size,
        CHUNK=min(page_size & -page_size, block_n),
        NUM_KV_HEADS=num_kv_heads,
        GROUP=group,
        HEAD_DIM=head_dim,
        SPLIT_LEN=SPLIT_LEN,
        MAX_SPLITS=MAX_SPLITS,
        BUNDLE_ROWS=plan.bundle_rows,
        IS_OF_BUNDLES=is_of_bundles,
        IS_DEALT=is_dealt,
        IS_SHARED=is_of_bundles or plan.num_programs > 1,
        BLOCK_G=block_g,
        BLOCK_D=block_d,
        BLOCK_N=block_n,
        PARTS_AT_ONCE=max(8192 // max(block_g * block_d, 1024), 1),
        num_warps=4,
        num_stages=num_stages,
        maxnreg=max_registers,
        **launch_options(),
    )


def _stages(num_row_heads: int) -> tuple[int, int | None]:
    """How many blocks ahead programs load, and their most registers, so that each multiprocessor has room for as many
    programs as it should get: not for three where there are two for each, and for four where it is four."""
    if num_row_heads <= 2 * MULTIPROCESSORS:
        return 4, None
    return (2, 128) if 3 * MULTIPROCESSORS < num_row_heads <= 4 * MULTIPROCESSORS else (3, None)


@triton.jit(do_not_specialize=["table_stride", "num_parts", "num_rows"])
def _decode_kernel(
    q,
    k_cache,
    v_cache,
    page_tables,
    seq_lens,
    common,
    places,
    out,
    parts,
    part_weights,
    arrivals,
    scale_log2,
    q_row_stride,
    q_head_stride,
    table_stride,
    num_parts,
    num_rows,
    PAGE_SIZE: tl.constexpr,
    CHUNK: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    SPLIT_LEN: tl.constexpr,
    MAX_SPLITS: tl.constexpr,
    BUNDLE_ROWS: tl.constexpr,
    IS_OF_BUNDLES: tl.constexpr,
    IS_DEALT: tl.constexpr,
    IS_SHARED: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    PARTS_AT_ONCE: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    """Program (row and key/value head, n) of N takes the n-th of N equal runs of the row's splits, those behind the
    common ones of its bundle. Or, of bundles: of the common ones of a bundle and key/value head. Dealt, program
    (run and key/value head) takes that run. The plan is read before the kernel waits for the one before it."""
    entry = tl.program_id(0) // NUM_KV_HEADS
    head = tl.program_id(0) % NUM_KV_HEADS
    heads = tl.arange(0, BLOCK_G)
    if IS_DEALT:
        place, end = tl.load(places + entry), tl.load(places + entry + 1)
        if place == end:  # there are fewer runs
            await_previous(OVERLAPS, RELEASES=False)
            return
        entry = place // MAX_SPLITS
    entry = entry.to(tl.int64)
    row = entry * BUNDLE_ROWS if IS_OF_BUNDLES else entry
    seq_len = tl.load(seq_lens + row).to(tl.int32)
    num_common = tl.load(common + row // BUNDLE_ROWS) if BUNDLE_ROWS > 1 else 0
    row_blocks = tl.cdiv(seq_len, BLOCK_N)
    blocks = split_blocks(seq_len, BLOCK_N, SPLIT_LEN, MAX_SPLITS)
    row_splits = tl.cdiv(row_blocks, blocks)
    num_own = num_common if IS_OF_BUNDLES else row_splits - num_common
    if IS_DEALT:
        first_split = place % MAX_SPLITS
        last_split = tl.minimum(end - entry.to(tl.int32) * MAX_SPLITS, num_own)
    else:
        first_split = tl.program_id(1) * num_own // tl.num_programs(1)
        last_split = (tl.program_id(1) + 1) * num_own // tl.num_programs(1)
    num_taken = last_split - first_split
    is_shared = num_taken != num_own if IS_DEALT else IS_SHARED
    if IS_OF_BUNDLES:
        first, last = first_split * blocks, last_split * blocks
        q_rows, q_heads = row + heads // GROUP, heads % GROUP
        is_head = heads < tl.minimum(num_rows - row, BUNDLE_ROWS) * GROUP
    else:
        first = (num_common + first_split) * blocks
        last = tl.minimum((num_common + last_split) * blocks, row_blocks)
        q_rows, q_heads = row, heads
        is_head = heads < GROUP
    dims = tl.arange(0, BLOCK_D)
    table = page_tables + row * table_stride
    pages = _pages(table, first, seq_len, PAGE_SIZE, CHUNK, BLOCK_N)
    await_previous(OVERLAPS, RELEASES=False)
    is_q = is_head[:, None] & (dims < HEAD_DIM)[None, :]
    q_places = q_rows * q_row_stride + (head * GROUP + q_heads) * q_head_stride
    q_tile = tl.load(q + q_places[:, None] + dims[None, :], mask=is_q, other=0.0)
    row_parts = (q_rows * NUM_KV_HEADS + head) * num_parts
    # Of the row, and of its split: the highest score, to base 2, the sum of the weights, and that of weighted values.
    top = tl.full((BLOCK_G,), float("-inf"), tl.float32)
    acc = tl.zeros((BLOCK_G, BLOCK_D), tl.float32)
    row_top, row_total, row_acc = top, tl.zeros((BLOCK_G,), tl.float32), acc
    if BUNDLE_ROWS > 1 and not IS_OF_BUNDLES and not is_shared:
        row_top, row_total, row_acc = _merged_parts(
            parts, part_weights, row_parts, num_common, GROUP, HEAD_DIM, BLOCK_G, BLOCK_D, PARTS_AT_ONCE
        )
    totals = tl.zeros((BLOCK_G, BLOCK_N), tl.float32)  # summed at the split's end
    for block in range(first, last):
        is_token = block * BLOCK_N + tl.arange(0, BLOCK_N) < seq_len
        chunk_starts = block * BLOCK_N + tl.arange(0, BLOCK_N // CHUNK) * CHUNK
        chunk_slots = pages.to(tl.int64) * PAGE_SIZE + chunk_starts % PAGE_SIZE
        slots = (chunk_slots[:, None] + tl.arange(0, CHUNK)[None, :]).reshape(BLOCK_N)
        kv_places = ((slots * NUM_KV_HEADS + head) * HEAD_DIM)[:, None] + dims[None, :]
        is_stored = is_token[:, None] & (dims < HEAD_DIM)[None, :]
        k = tl.load(k_cache + kv_places, mask=is_stored, other=0.0)
        v = tl.load(v_cache + kv_places, mask=is_stored, other=0.0)
        scores = tl.dot(q_tile, k.T, input_precision="ieee") * scale_log2
        scores = tl.where(is_token[None, :], scores, float("-inf"))
        new_top = tl.maximum(top, tl.max(scores, axis=1))
        weights = tl.exp2(scores - new_top[:, None])
        shrink = tl.exp2(top - new_top)
        totals = totals * shrink[:, None] + weights
        acc = tl.dot(weights.to(v.dtype), v, acc * shrink[:, None], input_precision="ieee")
        top = new_top
        pages = _pages(table, block + 1, seq_len, PAGE_SIZE, CHUNK, BLOCK_N)
        if ((block + 1) % blocks == 0) | (block + 1 == row_blocks):
            total = tl.sum(totals, axis=1)
            if is_shared:
                part = row_parts + block // blocks
                part_places = parts + (part * GROUP + q_heads)[:, None] * HEAD_DIM + dims[None, :]
                if IS_OF_BUNDLES:
                    # By halves: what the tile goes through on its way takes so little shared memory that a
                    # multiprocessor has room for one more program.
                    upper_places, lower_places = _halves(part_places)
                    is_upper, is_lower = _halves(is_q.to(tl.int8))
                    upper, lower = _halves(acc)
                    tl.store(upper_places, upper, mask=is_upper != 0)
                    tl.store(lower_places, lower, mask=is_lower != 0)
                else:
                    tl.store(part_places, acc, mask=is_q)
                tl.store(part_weights + part * 2 * GROUP + q_heads, top, mask=is_head)
                tl.store(part_weights + part * 2 * GROUP + GROUP + q_heads, total, mask=is_head)
            else:
                row_top, row_total, row_acc = _merged(row_top, row_total, row_acc, top, total, acc)
            top = tl.full((BLOCK_G,), float("-inf"), tl.float32)
            totals = tl.zeros((BLOCK_G, BLOCK_N), tl.float32)
            acc = tl.zeros((BLOCK_G, BLOCK_D), tl.float32)

    if not IS_DEALT:
        release_next(OVERLAPS)
    is_complete = not IS_OF_BUNDLES
    if is_shared and not IS_OF_BUNDLES:
        arrived = arrivals + entry * NUM_KV_HEADS + head
        num_new, num_all = (num_taken, num_own) if IS_DEALT else (1, tl.num_programs(1))
        tl.debug_barrier()  # all of this program's parts are written before it counts as arrived
        is_complete = tl.atomic_add(arrived, num_new, sem="acq_rel", scope="gpu") == num_all - num_new
        if is_complete:
            tl.store(arrived, 0)
            row_top, row_total, row_acc = _merged_parts(
                parts, part_weights, row_parts, row_splits, GROUP, HEAD_DIM, BLOCK_G, BLOCK_D, PARTS_AT_ONCE
            )
    if is_complete:
        result = row_acc / tl.where(is_head, row_total, 1.0)[:, None]
        out_heads = (entry * NUM_KV_HEADS + head) * GROUP + heads
        tl.store(out + out_heads[:, None] * HEAD_DIM + dims[None, :], result.to(out.dtype.element_ty), mask=is_q)


@triton.jit
def _halves(tile):
    """The upper and the lower half of the rows."""
    rows: tl.constexpr = tile.shape[0]
    return tile.reshape(2, rows // 2, tile.shape[1]).permute(1, 2, 0).split()


@triton.jit
def _pages(table, block, seq_len, PAGE_SIZE: tl.constexpr, CHUNK: tl.constexpr, BLOCK_N: tl.constexpr):
    """Page numbers of the chunks of a block, each of which lies in one page; loaded a block ahead of what waits."""
    starts = block * BLOCK_N + tl.arange(0, BLOCK_N // CHUNK) * CHUNK
    return tl.load(table + starts // PAGE_SIZE, mask=starts < seq_len, other=0)


@triton.jit
def _merged_parts(
    parts,
    part_weights,
    row_parts,
    num_splits,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PARTS_AT_ONCE: tl.constexpr,
):
    """The first `num_splits` parts of one row as one. Other programs wrote them: nothing is read through the L1. A part
    that there is not adds nothing."""
    heads, dims = tl.arange(0, BLOCK_G), tl.arange(0, BLOCK_D)
    is_head = heads < GROUP
    is_q = is_head[:, None] & (dims < HEAD_DIM)[None, :]
    part_places = heads[:, None] * HEAD_DIM + dims[None, :]
    no_top = tl.where(is_head, float("-inf"), 0.0)
    row_top = tl.full((BLOCK_G,), float("-inf"), tl.float32)
    row_total = tl.zeros((BLOCK_G,), tl.float32)
    row_acc = tl.zeros((BLOCK_G, BLOCK_D), tl.float32)
    for first_split in range(0, num_splits, PARTS_AT_ONCE):
        for ahead in tl.static_range(PARTS_AT_ONCE):
            is_part = first_split + ahead < num_splits
            part = row_parts + first_split + ahead
            weights_place = part_weights + part * 2 * GROUP + heads
            is_weight = is_head & is_part
            top = tl.load(weights_place, mask=is_weight, other=no_top, cache_modifier=".cg")
            total = tl.load(weights_place + GROUP, mask=is_weight, other=0.0, cache_modifier=".cg")
            acc_places = parts + part * GROUP * HEAD_DIM + part_places
            acc = tl.load(acc_places, mask=is_q & is_part, other=0.0, cache_modifier=".cg")
            row_top, row_total, row_acc = _merged(row_top, row_total, row_acc, top, total, acc)
    return row_top, row_total, row_acc


@triton.jit
def _merged(top, total, acc, part_top, part_total, part_acc):
    """Two parts as one, with products and sums fused as written, so that the bits are the same wherever it is done."""
    new_top = tl.maximum(top, part_top)
    shrink = tl.exp2(top - new_top)
    part_shrink = tl.exp2(part_top - new_top)
    total = tl.fma(total, shrink, part_total * part_shrink)
    acc = tl.fma(acc, tl.broadcast_to(shrink[:, None], acc.shape), part_acc * part_shrink[:, None])
    return new_top, total, acc
