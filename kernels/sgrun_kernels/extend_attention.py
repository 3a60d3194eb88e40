"""Causal attention of ragged rows over their pages, on a GPU, cached prefix and new tokens alike.

The query heads of one key/value head stand beside each other in the rows of a tile, so that keys and values are read
once for all of them, however short the extend is (flash attention, https://arxiv.org/abs/2307.08691). What a row gets
depends on the row alone, whatever else is in the batch.

Shape legend: see `reference`; G is Hq / Hk, the query heads that share a key/value head.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from sgrun_kernels.overlap import await_previous, launch_options

LOG2_E = 1.4426950408889634


@dataclass(frozen=True, slots=True)
class ExtendPlan:
    page_tables: Tensor  # [R, P] int32 or int64
    seq_lens: Tensor  # [R]
    extend_starts: Tensor  # [R + 1]
    tiles: Tensor  # [N, 2] int32: row, the tile's first new token in it
    block_m: int  # rows of a tile: tokens times query heads


def plan_extend(
    page_tables: Tensor,
    seq_lens: Tensor,
    extend_starts: Tensor,
    seq_lens_host: list[int],
    extend_lens_host: list[int],
    k_cache: Tensor,
    num_q_heads: int,
) -> ExtendPlan:
    """What `extend_attention` needs and all layers share, for caches of the shape of `k_cache`.

    page_tables [R, P], seq_lens [R] and extend_starts [R + 1] int32 or int64; the last two are the host lists once
    more. The tiles that see the most tokens come first, so that none of them is left for the end.
    """
    group = num_q_heads // k_cache.shape[2]
    block_m = max(128 if k_cache.dtype.itemsize == 2 else 32, triton.next_power_of_2(group))
    tile_tokens = block_m // group
    extend_lens = np.asarray(extend_lens_host, dtype=np.int32)
    counts = -(-extend_lens // tile_tokens)
    rows = np.repeat(np.arange(len(extend_lens), dtype=np.int32), counts)
    firsts = (np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)) * tile_tokens
    seen = (np.asarray(seq_lens_host, dtype=np.int32) - extend_lens)[rows] + firsts
    order = np.argsort(-seen, kind="stable")
    tiles = torch.from_numpy(np.stack((rows, firsts.astype(np.int32)), axis=1)[order])
    if page_tables.is_cuda:
        tiles = tiles.pin_memory().to(page_tables.device, non_blocking=True)
    return ExtendPlan(page_tables, seq_lens, extend_starts, tiles, block_m)


def extend_attention(q: Tensor, k_cache: Tensor, v_cache: Tensor, plan: ExtendPlan, scale: float) -> Tensor:
    """Causal attention: q [T, Hq, D] -> [T, Hq, D] contiguous. All places that a row sees must have been stored."""
    num_tokens, num_q_heads, head_dim = q.shape
    num_kv_heads = k_cache.shape[2]
    assert q.stride(2) == plan.page_tables.stride(1) == 1
    assert k_cache.is_contiguous()
    assert v_cache.is_contiguous()
    out = torch.empty(num_tokens, num_q_heads, head_dim, dtype=q.dtype, device=q.device)
    if len(plan.tiles):
        block_d = max(triton.next_power_of_2(head_dim), 16)
        is_half = k_cache.dtype.itemsize == 2
        _extend_kernel[(len(plan.tiles) * num_kv_heads,)](
            q,
            k_cache,
            v_cache,
            plan.page_tables,
            plan.seq_lens,
            plan.extend_starts,
            plan.tiles,
            out,
            scale * LOG2_E,
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
    return out


@triton.jit
def _extend_kernel(
    q,
    k_cache,
    v_cache,
    page_tables,
    seq_lens,
    extend_starts,
    tiles,
    out,
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
    TOKENS: tl.constexpr = BLOCK_M // GROUP
    tile = tl.program_id(0) // NUM_KV_HEADS
    head = tl.program_id(0) % NUM_KV_HEADS
    row = tl.load(tiles + tile * 2).to(tl.int64)
    first = tl.load(tiles + tile * 2 + 1)
    extend_start = tl.load(extend_starts + row).to(tl.int64)
    extend_len = (tl.load(extend_starts + row + 1) - extend_start).to(tl.int32)
    cached_len = tl.load(seq_lens + row).to(tl.int32) - extend_len

    index = tl.arange(0, BLOCK_M)
    tokens = first + index // GROUP
    q_heads = head * GROUP + index % GROUP
    dims = tl.arange(0, BLOCK_D)
    is_dim = dims < HEAD_DIM
    is_q = ((index < TOKENS * GROUP) & (tokens < extend_len))[:, None] & is_dim[None, :]
    q_places = (extend_start + tokens)[:, None] * q_token_stride + q_heads[:, None] * q_head_stride + dims[None, :]
    q_tile = tl.load(q + q_places, mask=is_q, other=0.0)

    table = page_tables + row * table_stride
    k_base = k_cache + head * HEAD_DIM
    v_base = v_cache + head * HEAD_DIM
    top = tl.full((BLOCK_M,), float("-inf"), tl.float32)  # of the scores, to base 2
    total = tl.zeros((BLOCK_M,), tl.float32)
    acc = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    positions = cached_len + tokens
    all_see = (cached_len + first + 1) // BLOCK_N * BLOCK_N
    end = cached_len + tl.minimum(first + TOKENS, extend_len)
    for start in range(0, all_see, BLOCK_N):
        top, total, acc = _attend_block(
            top, total, acc, q_tile, k_base, v_base, table, positions, start, end, scale_log2,
            False, PAGE_SIZE, NUM_KV_HEADS * HEAD_DIM, HEAD_DIM, BLOCK_D, BLOCK_N,
        )  # fmt: skip
    for start in range(all_see, end, BLOCK_N):
        top, total, acc = _attend_block(
            top, total, acc, q_tile, k_base, v_base, table, positions, start, end, scale_log2,
            True, PAGE_SIZE, NUM_KV_HEADS * HEAD_DIM, HEAD_DIM, BLOCK_D, BLOCK_N,
        )  # fmt: skip
    out_places = ((extend_start + tokens)[:, None] * (NUM_KV_HEADS * GROUP) + q_heads[:, None]) * HEAD_DIM
    tl.store(out + out_places + dims[None, :], (acc / total[:, None]).to(out.dtype.element_ty), mask=is_q)


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
