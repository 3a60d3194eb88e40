"""Attention of one token per row over its pages, on a GPU: split over the sequence, merged by whoever comes last.

A row is cut into splits of its own length alone: SPLIT_LEN tokens, longer ones where there would be more than
MAX_SPLITS. Each split leaves a normalised part and the logarithm of its weight, and the last program of a row and
key/value head to arrive merges them in order (flash decoding, https://arxiv.org/abs/2311.01282). How many programs
share the splits depends on the batch, what is computed does not: a row gives the same bits alone and in any batch.

Shape legend: see `reference`; G is Hq / Hk, the query heads that share a key/value head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgrun_kernels.overlap import await_previous, launch_options

SPLIT_LEN = 256  # 128 KiB of bf16 keys and values at head_dim 128: long against the start of a program
MAX_SPLITS = 32  # bounds the partial results: 134 MB for 256 rows of 32 heads
TARGET_PROGRAMS = 8 * 132  # what keeps each multiprocessor of an H100 or H200 at work
LOG2_E = 1.4426950408889634


@dataclass(frozen=True, slots=True)
class DecodePlan:
    page_tables: Tensor  # [R, P] int32 or int64
    seq_lens: Tensor  # [R], read on the device alone
    num_programs: int  # that share a row and key/value head
    parts: Tensor  # [R, Hk, S, G, D] float32, S the most splits of a row
    part_weights: Tensor  # [R, Hk, S, G] float32, logarithms to base 2
    arrivals: Tensor  # [R, Hk] int32; 0 between launches


def plan_decode(
    page_tables: Tensor, seq_lens: Tensor, max_seq_len: int, k_cache: Tensor, num_q_heads: int
) -> DecodePlan:
    """What `decode_attention` needs and all layers share, for caches of the shape of `k_cache`.

    page_tables [R, P] and seq_lens [R] int32 or int64; max_seq_len is no less than the longest of them, now and in
    every replay of a graph that captures this.
    """
    num_rows, num_kv_heads, head_dim = len(seq_lens), k_cache.shape[2], k_cache.shape[3]
    num_splits = min(triton.cdiv(max_seq_len, SPLIT_LEN), MAX_SPLITS)
    num_programs = min(triton.cdiv(TARGET_PROGRAMS, num_rows * num_kv_heads), num_splits)
    shape = (num_rows, num_kv_heads, num_splits, num_q_heads // num_kv_heads)
    device = page_tables.device
    return DecodePlan(
        page_tables,
        seq_lens,
        num_programs,
        parts=torch.empty(*shape, head_dim, dtype=torch.float32, device=device),
        part_weights=torch.empty(shape, dtype=torch.float32, device=device),
        arrivals=torch.zeros(num_rows, num_kv_heads, dtype=torch.int32, device=device),
    )


def decode_attention(q: Tensor, k_cache: Tensor, v_cache: Tensor, plan: DecodePlan, scale: float) -> Tensor:
    """Attention of one token per row over the row's whole sequence: q [R, Hq, D] -> [R, Hq, D] contiguous."""
    num_rows, num_q_heads, head_dim = q.shape
    num_kv_heads, group = plan.part_weights.shape[1], plan.part_weights.shape[3]
    assert q.stride(2) == plan.page_tables.stride(1) == 1
    assert k_cache.is_contiguous()
    assert v_cache.is_contiguous()
    out = torch.empty(num_rows, num_q_heads, head_dim, dtype=q.dtype, device=q.device)
    block_d = max(triton.next_power_of_2(head_dim), 16)
    block_merge_g = triton.next_power_of_2(group)
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
        plan.parts.shape[2],
        PAGE_SIZE=k_cache.shape[1],
        NUM_KV_HEADS=num_kv_heads,
        GROUP=group,
        HEAD_DIM=head_dim,
        SPLIT_LEN=SPLIT_LEN,
        MAX_SPLITS=MAX_SPLITS,
        BLOCK_G=max(block_merge_g, 16),
        BLOCK_D=block_d,
        BLOCK_N=_block_n(block_d, k_cache.dtype),
        MERGE_G=block_merge_g,
        MERGE_SPLITS=min(max(8192 // (block_merge_g * block_d), 1), MAX_SPLITS),
        num_warps=4,
        **launch_options(),
        num_stages=5,  # shared by two levels of loads, pages before keys and values: those stand two deep
    )
    return out


def _block_n(block_d: int, dtype: torch.dtype) -> int:
    """Tokens of a block: 32 KiB of keys and values, in blocks of 16 tokens or more."""
    return max(64 * 128 * 2 // (max(block_d, 128) * dtype.itemsize), 16)


@triton.jit
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
    num_splits,
    PAGE_SIZE: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    SPLIT_LEN: tl.constexpr,
    MAX_SPLITS: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    MERGE_G: tl.constexpr,
    MERGE_SPLITS: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    """Program (row and key/value head, n) of N takes splits n, n + N, ... of the row."""
    await_previous(OVERLAPS)
    row_head = tl.program_id(0).to(tl.int64)
    row = row_head // NUM_KV_HEADS
    head = row_head % NUM_KV_HEADS
    seq_len = tl.load(seq_lens + row).to(tl.int32)
    split_len = tl.maximum(SPLIT_LEN, tl.cdiv(tl.cdiv(seq_len, MAX_SPLITS), BLOCK_N) * BLOCK_N)
    row_splits = tl.cdiv(seq_len, split_len)

    heads = tl.arange(0, BLOCK_G)
    dims = tl.arange(0, BLOCK_D)
    is_q = (heads < GROUP)[:, None] & (dims < HEAD_DIM)[None, :]
    q_heads = head * GROUP + heads
    q_tile = tl.load(q + row * q_row_stride + q_heads[:, None] * q_head_stride + dims[None, :], mask=is_q, other=0.0)
    for split in range(tl.program_id(1), row_splits, tl.num_programs(1)):
        end = tl.minimum((split + 1) * split_len, seq_len)
        top = tl.full((BLOCK_G,), float("-inf"), tl.float32)  # of the scores, to base 2
        total = tl.zeros((BLOCK_G,), tl.float32)
        acc = tl.zeros((BLOCK_G, BLOCK_D), tl.float32)
        for start in range(split * split_len, end, BLOCK_N):
            positions = start + tl.arange(0, BLOCK_N)
            is_token = positions < end
            page = tl.load(page_tables + row * table_stride + positions // PAGE_SIZE, mask=is_token, other=0)
            slots = page.to(tl.int64) * PAGE_SIZE + positions % PAGE_SIZE
            places = (slots * NUM_KV_HEADS + head) * HEAD_DIM
            k = tl.load(
                k_cache + places[None, :] + dims[:, None],
                mask=is_token[None, :] & (dims < HEAD_DIM)[:, None],
                other=0.0,
            )
            v = tl.load(
                v_cache + places[:, None] + dims[None, :],
                mask=is_token[:, None] & (dims < HEAD_DIM)[None, :],
                other=0.0,
            )
            scores = tl.dot(q_tile, k, input_precision="ieee") * scale_log2
            scores = tl.where(is_token[None, :], scores, float("-inf"))
            new_top = tl.maximum(top, tl.max(scores, axis=1))
            weights = tl.exp2(scores - new_top[:, None])
            shrink = tl.exp2(top - new_top)
            total = total * shrink + tl.sum(weights, axis=1)
            acc = tl.dot(weights.to(v.dtype), v, acc * shrink[:, None], input_precision="ieee")
            top = new_top
        acc = acc / total[:, None]
        if row_splits == 1:
            places = (row * NUM_KV_HEADS * GROUP + q_heads[:, None]) * HEAD_DIM + dims[None, :]
            tl.store(out + places, acc.to(out.dtype.element_ty), mask=is_q)
        else:
            part = (row_head * num_splits + split) * GROUP + heads
            tl.store(parts + part[:, None] * HEAD_DIM + dims[None, :], acc, mask=is_q)
            tl.store(part_weights + part, top + tl.log2(total), mask=heads < GROUP)

    if row_splits > 1:
        tl.debug_barrier()  # all of this program's parts are written before it counts as arrived
        if tl.atomic_add(arrivals + row_head, 1, sem="acq_rel", scope="gpu") == tl.num_programs(1) - 1:
            tl.store(arrivals + row_head, 0)
            first = row_head * num_splits * GROUP
            merged = _merged(
                parts + first * HEAD_DIM,
                part_weights + first,
                row_splits,
                GROUP,
                HEAD_DIM,
                BLOCK_D,
                MAX_SPLITS,
                MERGE_G,
                MERGE_SPLITS,
            )
            merge_heads = tl.arange(0, MERGE_G)
            places = (row_head * GROUP + merge_heads[:, None]) * HEAD_DIM + dims[None, :]
            is_out = (merge_heads < GROUP)[:, None] & (dims < HEAD_DIM)[None, :]
            tl.store(out + places, merged.to(out.dtype.element_ty), mask=is_out)


@triton.jit
def _merged(
    parts,
    part_weights,
    row_splits,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    MAX_SPLITS: tl.constexpr,
    MERGE_G: tl.constexpr,
    MERGE_SPLITS: tl.constexpr,
):
    """[MERGE_G, BLOCK_D] of a row and head's parts, which other programs wrote: nothing is read through the L1."""
    heads = tl.arange(0, MERGE_G)
    dims = tl.arange(0, BLOCK_D)
    splits = tl.arange(0, MAX_SPLITS)
    all_logs = tl.load(
        part_weights + splits[:, None] * GROUP + heads[None, :],
        mask=(splits < row_splits)[:, None] & (heads < GROUP)[None, :],
        other=float("-inf"),
        cache_modifier=".cg",
    )
    top = tl.where(heads < GROUP, tl.max(all_logs, axis=0), 0.0)
    total = tl.where(heads < GROUP, tl.sum(tl.exp2(all_logs - top[None, :]), axis=0), 1.0)
    acc = tl.zeros((MERGE_G, BLOCK_D), tl.float32)
    for first in range(0, row_splits, MERGE_SPLITS):
        chunk = first + tl.arange(0, MERGE_SPLITS)
        is_part = (chunk < row_splits)[:, None] & (heads < GROUP)[None, :]
        rows = chunk[:, None] * GROUP + heads[None, :]
        logs = tl.load(part_weights + rows, mask=is_part, other=float("-inf"), cache_modifier=".cg")
        part = tl.load(
            parts + rows[:, :, None] * HEAD_DIM + dims[None, None, :],
            mask=is_part[:, :, None] & (dims < HEAD_DIM)[None, None, :],
            other=0.0,
            cache_modifier=".cg",
        )
        acc += tl.sum(part * tl.exp2(logs - top[None, :])[:, :, None], axis=0)
    return acc / total[:, None]
