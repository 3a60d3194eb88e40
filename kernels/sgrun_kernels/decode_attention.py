"""Attention of one token per row over its pages, on a GPU: split over the sequence, merged by whoever comes last.

A row is cut into splits by its own length alone: SPLIT_LEN tokens, and longer ones the longer it is, so that there are
at most MAX_SPLITS. The parts of a row's splits are merged one after the other (flash decoding,
https://arxiv.org/abs/2311.01282): by the program that has the whole row, as it goes; or, where several programs share
the row, by the last of them to arrive, with the same operations in the same order. How many share it depends on the
batch, what is computed does not: a row gives the same bits alone and in any batch.

Shape legend: see `reference`; G is Hq / Hk, the query heads that share a key/value head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgrun_kernels.overlap import await_previous, launch_options

SPLIT_LEN = 128
MAX_SPLITS = 32
ENOUGH_ROW_HEADS = 256  # rows times key/value heads that keep an H100 or H200 busy with a program for each
SHARED_PROGRAMS = 1024  # programs to aim at where there are fewer
PROGRAM_LEN = 8192  # tokens that a program may have to itself
LOG2_E = 1.4426950408889634


@dataclass(frozen=True, slots=True)
class DecodePlan:
    page_tables: Tensor  # [R, P] int32 or int64
    seq_lens: Tensor  # [R], read on the device alone
    num_programs: int  # that share a row and key/value head
    parts: Tensor  # [R, Hk, S, G, D] float32, sums of weighted values; S the most splits of a row
    part_weights: Tensor  # [R, Hk, S, 2, G] float32: the highest score, to base 2, and the sum of the weights
    arrivals: Tensor  # [R, Hk] int32; 0 between launches


def plan_decode(
    page_tables: Tensor, seq_lens: Tensor, max_seq_len: int, k_cache: Tensor, num_q_heads: int
) -> DecodePlan:
    """What `decode_attention` needs and all layers share, for caches of the shape of `k_cache`.

    page_tables [R, P] and seq_lens [R] int32 or int64; max_seq_len is no less than the longest of them, now and in
    every replay of a graph that captures this.
    """
    num_programs = programs_of_a_row(len(seq_lens) * k_cache.shape[2], max_seq_len)
    return plan_shared(page_tables, seq_lens, max_seq_len, k_cache, num_q_heads, num_programs)


def programs_of_a_row(num_row_heads: int, max_seq_len: int) -> int:
    """How many programs share a row and key/value head, of `num_row_heads` of up to `max_seq_len` tokens."""
    busy = 1 if num_row_heads >= ENOUGH_ROW_HEADS else SHARED_PROGRAMS // num_row_heads
    return min(max(busy, -(-max_seq_len // PROGRAM_LEN)), most_splits(max_seq_len))


def most_splits(max_seq_len: int) -> int:
    """How many splits a row of up to so many tokens may have."""
    share = -(-max_seq_len // MAX_SPLITS)
    return -(-share * MAX_SPLITS // (SPLIT_LEN + share))


def plan_shared(
    page_tables: Tensor, seq_lens: Tensor, max_seq_len: int, k_cache: Tensor, num_q_heads: int, num_programs: int
) -> DecodePlan:
    """A plan of that many programs to a row and key/value head; one program needs no memory for parts."""
    num_rows, num_kv_heads, head_dim = len(seq_lens), k_cache.shape[2], k_cache.shape[3]
    group, device = num_q_heads // num_kv_heads, page_tables.device
    num_parts = most_splits(max_seq_len) if num_programs > 1 else 0
    return DecodePlan(
        page_tables,
        seq_lens,
        num_programs,
        parts=torch.empty(num_rows, num_kv_heads, num_parts, group, head_dim, dtype=torch.float32, device=device),
        part_weights=torch.empty(num_rows, num_kv_heads, num_parts, 2, group, dtype=torch.float32, device=device),
        arrivals=torch.zeros(num_rows if num_parts else 0, num_kv_heads, dtype=torch.int32, device=device),
    )


def decode_attention(q: Tensor, k_cache: Tensor, v_cache: Tensor, plan: DecodePlan, scale: float) -> Tensor:
    """Attention of one token per row over the row's whole sequence: q [R, Hq, D] -> [R, Hq, D] contiguous."""
    num_rows, num_q_heads, head_dim = q.shape
    num_kv_heads, num_parts, group = plan.parts.shape[1:4]
    page_size = k_cache.shape[1]
    assert q.stride(2) == plan.page_tables.stride(1) == 1
    assert k_cache.is_contiguous()
    assert v_cache.is_contiguous()
    out = torch.empty(num_rows, num_q_heads, head_dim, dtype=q.dtype, device=q.device)
    block_g = max(triton.next_power_of_2(group), 8)
    block_d = max(triton.next_power_of_2(head_dim), 16)
    block_n = _block_n(block_d, k_cache.dtype)
    _decode_kernel[(num_rows * num_kv_heads, plan.num_programs)](
        q,
        k_cache,
        v_cache,
        plan.page_tables,
        plan.seq_lens,
        out,
        plan.parts,
        plan.part_weights,
        plan.arrivals,
        scale * LOG2_E,
        q.stride(0),
        q.stride(1),
        plan.page_tables.stride(0),
        num_parts,
        PAGE_SIZE=page_size,
        CHUNK=min(page_size & -page_size, block_n),
        NUM_KV_HEADS=num_kv_heads,
        GROUP=group,
        HEAD_DIM=head_dim,
        SPLIT_LEN=SPLIT_LEN,
        MAX_SPLITS=MAX_SPLITS,
        IS_SHARED=plan.num_programs > 1,
        BLOCK_G=block_g,
        BLOCK_D=block_d,
        BLOCK_N=block_n,
        PARTS_AT_ONCE=max(8192 // max(block_g * block_d, 1024), 1),
        num_warps=4,
        num_stages=3,
        **launch_options(),
    )
    return out


def _block_n(block_d: int, dtype: torch.dtype) -> int:
    """Tokens of a block: 32 KiB of keys and values, in blocks of 16 tokens or more."""
    return max(64 * 128 * 2 // (max(block_d, 128) * dtype.itemsize), 16)


@triton.jit(do_not_specialize=["table_stride", "num_parts"])
def _decode_kernel(
    q,
    k_cache,
    v_cache,
    page_tables,
    seq_lens,
    out,
    parts,
    part_weights,
    arrivals,
    scale_log2,
    q_row_stride,
    q_head_stride,
    table_stride,
    num_parts,
    PAGE_SIZE: tl.constexpr,
    CHUNK: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    SPLIT_LEN: tl.constexpr,
    MAX_SPLITS: tl.constexpr,
    IS_SHARED: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    PARTS_AT_ONCE: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    """Program (row and key/value head, n) of N takes the n-th of N equal runs of the row's splits."""
    await_previous(OVERLAPS)
    row_head = tl.program_id(0).to(tl.int64)
    row = row_head // NUM_KV_HEADS
    head = row_head % NUM_KV_HEADS
    seq_len = tl.load(seq_lens + row).to(tl.int32)
    row_blocks = tl.cdiv(seq_len, BLOCK_N)
    split_blocks = tl.cdiv(SPLIT_LEN + tl.cdiv(seq_len, MAX_SPLITS), BLOCK_N)
    row_splits = tl.cdiv(row_blocks, split_blocks)
    n, num_programs = tl.program_id(1), tl.num_programs(1)
    first = n * row_splits // num_programs * split_blocks
    last = tl.minimum((n + 1) * row_splits // num_programs * split_blocks, row_blocks)

    heads = tl.arange(0, BLOCK_G)
    dims = tl.arange(0, BLOCK_D)
    is_head = heads < GROUP
    is_q = is_head[:, None] & (dims < HEAD_DIM)[None, :]
    q_heads = head * GROUP + heads
    q_tile = tl.load(q + row * q_row_stride + q_heads[:, None] * q_head_stride + dims[None, :], mask=is_q, other=0.0)
    table = page_tables + row * table_stride
    row_parts = row_head * num_parts
    part_places = heads[:, None] * HEAD_DIM + dims[None, :]
    # Of the row, and of its split: the highest score, to base 2, the sum of the weights, and that of weighted values.
    row_top = tl.full((BLOCK_G,), float("-inf"), tl.float32)
    row_total = tl.zeros((BLOCK_G,), tl.float32)
    row_acc = tl.zeros((BLOCK_G, BLOCK_D), tl.float32)
    top, acc = row_top, row_acc
    totals = tl.zeros((BLOCK_G, BLOCK_N), tl.float32)  # summed at the split's end
    pages = _pages(table, first, seq_len, PAGE_SIZE, CHUNK, BLOCK_N)
    for block in range(first, last):
        is_token = block * BLOCK_N + tl.arange(0, BLOCK_N) < seq_len
        chunk_starts = block * BLOCK_N + tl.arange(0, BLOCK_N // CHUNK) * CHUNK
        chunk_slots = pages.to(tl.int64) * PAGE_SIZE + chunk_starts % PAGE_SIZE
        slots = (chunk_slots[:, None] + tl.arange(0, CHUNK)[None, :]).reshape(BLOCK_N)
        places = ((slots * NUM_KV_HEADS + head) * HEAD_DIM)[:, None] + dims[None, :]
        is_stored = is_token[:, None] & (dims < HEAD_DIM)[None, :]
        k = tl.load(k_cache + places, mask=is_stored, other=0.0)
        v = tl.load(v_cache + places, mask=is_stored, other=0.0)
        scores = tl.dot(q_tile, k.T, input_precision="ieee") * scale_log2
        scores = tl.where(is_token[None, :], scores, float("-inf"))
        new_top = tl.maximum(top, tl.max(scores, axis=1))
        weights = tl.exp2(scores - new_top[:, None])
        shrink = tl.exp2(top - new_top)
        totals = totals * shrink[:, None] + weights
        acc = tl.dot(weights.to(v.dtype), v, acc * shrink[:, None], input_precision="ieee")
        top = new_top
        pages = _pages(table, block + 1, seq_len, PAGE_SIZE, CHUNK, BLOCK_N)
        if ((block + 1) % split_blocks == 0) | (block + 1 == row_blocks):
            total = tl.sum(totals, axis=1)
            if IS_SHARED:
                part = row_parts + block // split_blocks
                tl.store(parts + part * GROUP * HEAD_DIM + part_places, acc, mask=is_q)
                tl.store(part_weights + part * 2 * GROUP + heads, top, mask=is_head)
                tl.store(part_weights + part * 2 * GROUP + GROUP + heads, total, mask=is_head)
            else:
                row_top, row_total, row_acc = _merged(row_top, row_total, row_acc, top, total, acc)
            top = tl.full((BLOCK_G,), float("-inf"), tl.float32)
            totals = tl.zeros((BLOCK_G, BLOCK_N), tl.float32)
            acc = tl.zeros((BLOCK_G, BLOCK_D), tl.float32)

    is_last = True
    if IS_SHARED:
        tl.debug_barrier()  # all of this program's parts are written before it counts as arrived
        is_last = tl.atomic_add(arrivals + row_head, 1, sem="acq_rel", scope="gpu") == num_programs - 1
        if is_last:
            tl.store(arrivals + row_head, 0)
            for first_split in range(0, row_splits, PARTS_AT_ONCE):
                for ahead in tl.static_range(PARTS_AT_ONCE):
                    # Other programs wrote these: nothing is read through the L1. A part that there is not adds nothing.
                    is_part = first_split + ahead < row_splits
                    part = row_parts + first_split + ahead
                    weights_place = part_weights + part * 2 * GROUP + heads
                    is_weight = is_head & is_part
                    no_top = tl.where(is_head, float("-inf"), 0.0)
                    top = tl.load(weights_place, mask=is_weight, other=no_top, cache_modifier=".cg")
                    total = tl.load(weights_place + GROUP, mask=is_weight, other=0.0, cache_modifier=".cg")
                    acc = tl.load(
                        parts + part * GROUP * HEAD_DIM + part_places,
                        mask=is_q & is_part,
                        other=0.0,
                        cache_modifier=".cg",
                    )
                    row_top, row_total, row_acc = _merged(row_top, row_total, row_acc, top, total, acc)
    if is_last:
        result = row_acc / tl.where(is_head, row_total, 1.0)[:, None]
        out_places = row_head * GROUP * HEAD_DIM + part_places
        tl.store(out + out_places, result.to(out.dtype.element_ty), mask=is_q)


@triton.jit
def _pages(table, block, seq_len, PAGE_SIZE: tl.constexpr, CHUNK: tl.constexpr, BLOCK_N: tl.constexpr):
    """Page numbers of the chunks of a block, each of which lies in one page; loaded a block ahead of what waits."""
    starts = block * BLOCK_N + tl.arange(0, BLOCK_N // CHUNK) * CHUNK
    return tl.load(table + starts // PAGE_SIZE, mask=starts < seq_len, other=0)


@triton.jit
def _merged(top, total, acc, part_top, part_total, part_acc):
    """Two parts as one, with products and sums fused as written, so that the bits are the same wherever it is done."""
    new_top = tl.maximum(top, part_top)
    shrink = tl.exp2(top - new_top)
    part_shrink = tl.exp2(part_top - new_top)
    total = tl.fma(total, shrink, part_total * part_shrink)
    acc = tl.fma(acc, tl.broadcast_to(shrink[:, None], acc.shape), part_acc * part_shrink[:, None])
    return new_top, total, acc
