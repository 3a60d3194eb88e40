"""Causal attention of ragged rows over their pages, on a GPU, cached prefix and new tokens alike.

The query heads of one key/value head stand beside each other in the rows of a tile, so that keys and values are read
once for all of them, however short the extend is (flash attention, https://arxiv.org/abs/2307.08691). On a Hopper GPU
`extend_hopper` does this; the kernel here runs anywhere. Where a tile's keys are cut into parts, both leave normalised
parts and the logarithms of their weights, which a second kernel merges in order. What a row gets depends on the row
alone, whatever else is in the batch.

Shape legend: see `reference`; G is Hq / Hk, the query heads that share a key/value head.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgrun_kernels import extend_hopper
from sgrun_kernels.extend_plan import ExtendPlan, plan_extend
from sgrun_kernels.overlap import await_previous, launch_options

__all__ = ["extend_attention", "plan_extend"]

LOG2_E = 1.4426950408889634
MERGE_ROWS = 16  # of a tile that one program merges


def extend_attention(q: Tensor, k_cache: Tensor, v_cache: Tensor, plan: ExtendPlan, scale: float) -> Tensor:
    """Causal attention: q [T, Hq, D] -> [T, Hq, D] contiguous. All places that a row sees must have been stored."""
    num_q_heads, num_kv_heads, head_dim = q.shape[1], k_cache.shape[2], k_cache.shape[3]
    assert q.stride(2) == plan.page_tables.stride(1) == 1
    assert k_cache.is_contiguous()
    assert v_cache.is_contiguous()
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    if not len(plan.tiles):
        return out
    if plan.is_hopper:
        extend_hopper.attend_(out, q, k_cache, v_cache, plan, scale * LOG2_E)
    else:
        _attend_(out, q, k_cache, v_cache, plan, scale * LOG2_E)
    if len(plan.merges):
        _merge_kernel[(len(plan.merges), num_kv_heads, triton.cdiv(plan.block_m, MERGE_ROWS))](
            out,
            plan.merges,
            plan.parts,
            plan.part_weights,
            NUM_KV_HEADS=num_kv_heads,
            GROUP=num_q_heads // num_kv_heads,
            HEAD_DIM=head_dim,
            BLOCK_M=plan.block_m,
            BLOCK_ROWS=MERGE_ROWS,
            BLOCK_D=triton.next_power_of_2(head_dim),
            **launch_options(),
        )
    return out


def _attend_(out: Tensor, q: Tensor, k_cache: Tensor, v_cache: Tensor, plan: ExtendPlan, scale_log2: float) -> None:
    num_q_heads, num_kv_heads, head_dim = q.shape[1], k_cache.shape[2], k_cache.shape[3]
    block_d = max(triton.next_power_of_2(head_dim), 16)
    is_half = k_cache.dtype.itemsize == 2
    _extend_kernel[(len(plan.tiles) * num_kv_heads,)](
        q,
        k_cache,
        v_cache,
        plan.page_tables,
        plan.tiles,
        out,
        plan.parts,
        plan.part_weights,
        scale_log2,
        q.stride(0),
        q.stride(1),
        plan.page_tables.stride(0),
        PAGE_SIZE=k_cache.shape[1],
        NUM_KV_HEADS=num_kv_heads,
        GROUP=num_q_heads // num_kv_heads,
        HEAD_DIM=head_dim,
        BLOCK_M=plan.block_m,
        BLOCK_D=block_d,
        BLOCK_N=(64 if block_d <= 128 else 32) if is_half else 16,
        num_warps=8 if is_half else 4,
        num_stages=3 if is_half else 2,
        **launch_options(),
    )


@triton.jit
def _extend_kernel(
    q,
    k_cache,
    v_cache,
    page_tables,
    tiles,
    out,
    parts,
    part_weights,
    scale_log2,
    q_token_stride,
    q_head_stride,
    table_stride,
    PAGE_SIZE: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    """One program a tile and key/value head. Blocks of keys that all of the tile sees need no mask."""
    await_previous(OVERLAPS)
    tile = tiles + tl.program_id(0) // NUM_KV_HEADS * 7
    head = tl.program_id(0) % NUM_KV_HEADS
    row = tl.load(tile).to(tl.int64)
    first_token = tl.load(tile + 1).to(tl.int64)
    num_tokens = tl.load(tile + 2)
    first_position = tl.load(tile + 3)
    start = tl.load(tile + 4)
    end = tl.load(tile + 5)
    part = tl.load(tile + 6).to(tl.int64)

    index = tl.arange(0, BLOCK_M)
    tokens = first_token + index // GROUP
    q_heads = head * GROUP + index % GROUP
    dims = tl.arange(0, BLOCK_D)
    is_row = index < num_tokens * GROUP
    is_q = is_row[:, None] & (dims < HEAD_DIM)[None, :]
    q_places = tokens[:, None] * q_token_stride + q_heads[:, None] * q_head_stride + dims[None, :]
    q_tile = tl.load(q + q_places, mask=is_q, other=0.0)

    table = page_tables + row * table_stride
    k_base = k_cache + head * HEAD_DIM
    v_base = v_cache + head * HEAD_DIM
    top = tl.full((BLOCK_M,), float("-inf"), tl.float32)  # of the scores, to base 2
    total = tl.zeros((BLOCK_M,), tl.float32)
    acc = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    positions = first_position + index // GROUP
    all_see = tl.minimum(start + (first_position + 1 - start) // BLOCK_N * BLOCK_N, end)
    for keys_start in range(start, all_see, BLOCK_N):
        top, total, acc = _attend_block(
            top, total, acc, q_tile, k_base, v_base, table, positions, keys_start, end, scale_log2,
            False, PAGE_SIZE, NUM_KV_HEADS * HEAD_DIM, HEAD_DIM, BLOCK_D, BLOCK_N,
        )  # fmt: skip
    for keys_start in range(all_see, end, BLOCK_N):
        top, total, acc = _attend_block(
            top, total, acc, q_tile, k_base, v_base, table, positions, keys_start, end, scale_log2,
            True, PAGE_SIZE, NUM_KV_HEADS * HEAD_DIM, HEAD_DIM, BLOCK_D, BLOCK_N,
        )  # fmt: skip
    acc = acc / total[:, None]
    if part < 0:
        out_places = (tokens[:, None] * (NUM_KV_HEADS * GROUP) + q_heads[:, None]) * HEAD_DIM
        tl.store(out + out_places + dims[None, :], acc.to(out.dtype.element_ty), mask=is_q)
    else:
        part_places = (part * NUM_KV_HEADS + head) * BLOCK_M + index
        tl.store(parts + part_places[:, None] * HEAD_DIM + dims[None, :], acc, mask=is_q)
        tl.store(part_weights + part_places, top + tl.log2(total), mask=is_row)


@triton.jit
def _attend_block(
    top,
    total,
    acc,
    q_tile,
    k_base,
    v_base,
    table,
    positions,
    start,
    end,
    scale_log2,
    IS_MASKED: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
    TOKEN_STRIDE: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """(top, total, acc) with the keys `start` to start + BLOCK_N - 1; masked: up to each query's position, and none
    read from `end` on."""
    keys = start + tl.arange(0, BLOCK_N)
    dims = tl.arange(0, BLOCK_D)
    is_key = keys < end
    is_dim = dims < HEAD_DIM
    page = tl.load(table + keys // PAGE_SIZE, mask=is_key, other=0)
    places = (page.to(tl.int64) * PAGE_SIZE + keys % PAGE_SIZE) * TOKEN_STRIDE
    k_places = k_base + places[None, :] + dims[:, None]
    v_places = v_base + places[:, None] + dims[None, :]
    if IS_MASKED:
        k = tl.load(k_places, mask=is_key[None, :] & is_dim[:, None], other=0.0)
        v = tl.load(v_places, mask=is_key[:, None] & is_dim[None, :], other=0.0)
    else:
        k = tl.load(k_places, mask=is_dim[:, None], other=0.0)
        v = tl.load(v_places, mask=is_dim[None, :], other=0.0)
    scores = tl.dot(q_tile, k, input_precision="ieee") * scale_log2
    if IS_MASKED:
        scores = tl.where(keys[None, :] <= positions[:, None], scores, float("-inf"))
    new_top = tl.maximum(top, tl.max(scores, axis=1))
    weights = tl.exp2(scores - new_top[:, None])
    shrink = tl.exp2(top - new_top)
    total = total * shrink + tl.sum(weights, axis=1)
    acc = tl.dot(weights.to(v.dtype), v, acc * shrink[:, None], input_precision="ieee")
    return new_top, total, acc


@triton.jit
def _merge_kernel(
    out,
    merges,
    parts,
    part_weights,
    NUM_KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    """One program some rows of a tile and key/value head."""
    await_previous(OVERLAPS)
    merge = merges + tl.program_id(0) * 4
    head = tl.program_id(1)
    first_token = tl.load(merge).to(tl.int64)
    num_tokens = tl.load(merge + 1)
    first_part = tl.load(merge + 2).to(tl.int64)
    num_parts = tl.load(merge + 3)

    index = tl.program_id(2) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    dims = tl.arange(0, BLOCK_D)
    is_row = index < num_tokens * GROUP
    is_out = is_row[:, None] & (dims < HEAD_DIM)[None, :]
    top = tl.full((BLOCK_ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_ROWS,), tl.float32)
    acc = tl.zeros((BLOCK_ROWS, BLOCK_D), tl.float32)
    for part in range(first_part, first_part + num_parts):
        places = (part * NUM_KV_HEADS + head) * BLOCK_M + index
        weight = tl.load(part_weights + places, mask=is_row, other=0.0)
        value = tl.load(parts + places[:, None] * HEAD_DIM + dims[None, :], mask=is_out, other=0.0)
        new_top = tl.maximum(top, weight)
        shrink = tl.exp2(top - new_top)
        share = tl.exp2(weight - new_top)
        acc = acc * shrink[:, None] + value * share[:, None]
        total = total * shrink + share
        top = new_top
    places = ((first_token + index // GROUP) * (NUM_KV_HEADS * GROUP) + head * GROUP + index % GROUP) * HEAD_DIM
    tl.store(out + places[:, None] + dims[None, :], (acc / total[:, None]).to(out.dtype.element_ty), mask=is_out)
