"""Attention of the tiles of an extend on a Hopper GPU, in Gluon: warps that load stand beside warps that compute.

Two groups of four warps compute 64 rows of a tile each, from what the warps of `extend_hopper_loads` put into shared
memory. While the tensor cores multiply weights and values of one block for a group, it takes the exponentials of the
next (FlashAttention-3, https://arxiv.org/abs/2407.08608).

Shape legend: see `reference`; G is Hq / Hk, the query heads that share a key/value head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, warpgroup_mma, warpgroup_mma_wait
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from sgrun_kernels.extend_hopper_loads import (
    BLOCK_M,
    BLOCK_N,
    K_STAGES,
    Q_STAGES,
    TILE_FIELDS,
    V_STAGES,
    item_of,
    load_keys_and_values,
    load_queries,
)

if TYPE_CHECKING:
    from sgrun_kernels.extend_plan import ExtendPlan

TRITON = "3.6."  # whose Gluon this is written in; the next one has other names
COMPUTE_REGISTERS, LOAD_REGISTERS = 216, 72  # of a thread: 504 in two groups that compute and one that loads


def is_able(k_cache: Tensor) -> bool:
    """Whether this Triton has the Gluon of this kernel, the GPU is a Hopper one, and pages and heads fit boxes of the
    copy engine and blocks."""
    page_size, head_dim = k_cache.shape[1], k_cache.shape[3]
    fits = k_cache.dtype.itemsize == 2 and head_dim in (64, 128) and page_size in (16, 32, 64)
    if not fits or triton.knobs.runtime.interpret or not triton.__version__.startswith(TRITON):
        return False
    return bool(triton.runtime.driver.active.get_current_target().arch == 90)


def attend_(out: Tensor, q: Tensor, k_cache: Tensor, v_cache: Tensor, plan: ExtendPlan, scale_log2: float) -> None:
    """Writes `out` [T, Hq, D], and `plan.parts` and `plan.part_weights` where the keys of a tile are cut into parts."""
    num_kv_heads, head_dim = k_cache.shape[2], k_cache.shape[3]
    num_items = len(plan.tiles) * num_kv_heads
    _extend_hopper_kernel[(min(num_items, _num_processors(q.device)),)](
        q,
        _page_boxes(k_cache),
        _page_boxes(v_cache),
        v_cache,
        plan.page_tables,
        plan.tiles,
        num_items,
        out,
        plan.parts,
        plan.part_weights,
        scale_log2,
        q.stride(0),
        q.stride(1),
        plan.page_tables.stride(0),
        PAGE_SIZE=k_cache.shape[1],
        NUM_KV_HEADS=num_kv_heads,
        GROUP=q.shape[1] // num_kv_heads,
        HEAD_DIM=head_dim,
        COMPUTE_REGISTERS=COMPUTE_REGISTERS,
        LOAD_REGISTERS=LOAD_REGISTERS,
        num_warps=4,
    )


def _num_processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def _page_boxes(cache: Tensor) -> TensorDescriptor:
    """A cache as a matrix of slots by heads times dimensions, copied in boxes of a page of one head."""
    num_pages, page_size, num_kv_heads, head_dim = cache.shape
    width = num_kv_heads * head_dim
    layout = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)
    return TensorDescriptor(cache, [num_pages * page_size, width], [width, 1], [page_size, head_dim], layout)


@gluon.jit(do_not_specialize=["num_items"])
def _extend_hopper_kernel(
    q,
    k_boxes,
    v_boxes,
    v_cache,
    page_tables,
    tiles,
    num_items,
    out,
    parts,
    part_weights,
    scale_log2,
    q_token_stride,
    q_head_stride,
    table_stride,
    PAGE_SIZE: gl.constexpr,
    NUM_KV_HEADS: gl.constexpr,
    GROUP: gl.constexpr,
    HEAD_DIM: gl.constexpr,
    COMPUTE_REGISTERS: gl.constexpr,
    LOAD_REGISTERS: gl.constexpr,
):
    """Each program takes items in turn, tiles of a key/value head. It fills its multiprocessor and runs long: it starts
    behind the kernel before it, as kernels do that know nothing of `overlap`."""
    dtype: gl.constexpr = v_cache.dtype.element_ty
    layout: gl.constexpr = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)
    q_ring = gl.allocate_shared_memory(dtype, [2 * Q_STAGES, BLOCK_M // 2, HEAD_DIM], layout)
    k_ring = gl.allocate_shared_memory(dtype, [K_STAGES, BLOCK_N, HEAD_DIM], layout)
    v_ring = gl.allocate_shared_memory(dtype, [V_STAGES, BLOCK_N, HEAD_DIM], layout)
    q_shared = (q_ring, _barriers(Q_STAGES, 1), _barriers(Q_STAGES, 2))
    k_shared = (k_ring, _barriers(K_STAGES, 1), _barriers(K_STAGES, 2))
    v_shared = (v_ring, _barriers(V_STAGES, 1), _barriers(V_STAGES, 2))
    queries, caches, tables = (
        (q, q_token_stride, q_head_stride),
        (k_boxes, v_boxes, v_cache),
        (page_tables, table_stride),
    )
    items, results = (tiles, num_items), (out, parts, part_weights)
    shared = (q_shared, k_shared, v_shared)
    gl.warp_specialize(
        [
            (_attend_half, (0, results, items, shared, scale_log2, NUM_KV_HEADS, GROUP, HEAD_DIM)),
            (_attend_half, (1, results, items, shared, scale_log2, NUM_KV_HEADS, GROUP, HEAD_DIM)),
            (load_keys_and_values, (caches, tables, items, k_shared, v_shared, PAGE_SIZE, NUM_KV_HEADS, HEAD_DIM)),
            (load_queries, (queries, items, q_shared, NUM_KV_HEADS, GROUP, HEAD_DIM)),
        ],
        [4, 1, 2],
        [COMPUTE_REGISTERS, LOAD_REGISTERS, LOAD_REGISTERS],
    )


@gluon.jit
def _barriers(STAGES: gl.constexpr, ARRIVALS: gl.constexpr):
    barriers = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for stage in gl.static_range(STAGES):
        mbarrier.init(barriers.index(stage), count=ARRIVALS)
    return barriers


@gluon.jit
def _attend_half(
    HALF: gl.constexpr,
    results,
    items,
    shared,
    scale_log2,
    NUM_KV_HEADS: gl.constexpr,
    GROUP: gl.constexpr,
    HEAD_DIM: gl.constexpr,
):
    """One half of the rows of every tile, by four warps. What is known of a tile is read one turn ahead."""
    S_LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BLOCK_N, 16])
    O_LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, HEAD_DIM, 16])
    HALF_M: gl.constexpr = BLOCK_M // 2
    tiles, num_items = items
    q_shared, k_shared, v_shared = shared
    q_ring, q_ready, q_free = q_shared
    k_ring, k_ready, k_free = k_shared
    v_ring, v_ready, v_free = v_shared
    tokens_of_rows = (HALF * HALF_M + gl.arange(0, HALF_M, gl.SliceLayout(1, S_LAYOUT))) // GROUP
    block_keys = gl.arange(0, BLOCK_N, gl.SliceLayout(0, S_LAYOUT))
    zeros = gl.zeros([HALF_M, BLOCK_N], gl.float32, S_LAYOUT)
    taken = 0  # blocks, over all tiles
    turn = 0
    item = item_of(turn)
    next_tile = _tile_at(tiles, item, num_items, NUM_KV_HEADS)
    while item < num_items:
        first_token, num_tokens, first_position, start, end, part = next_tile
        head = item % NUM_KV_HEADS
        positions = first_position + tokens_of_rows
        all_see = gl.minimum(start + (first_position + 1 - start) // BLOCK_N * BLOCK_N, end)
        item = item_of(turn + 1)
        next_tile = _tile_at(tiles, item, num_items, NUM_KV_HEADS)

        stage = taken % K_STAGES
        q_half = q_ring.index(turn % Q_STAGES * 2 + HALF)
        mbarrier.wait(q_ready.index(turn % Q_STAGES), turn // Q_STAGES & 1)
        mbarrier.wait(k_ready.index(stage), taken // K_STAGES & 1)
        scores = warpgroup_mma(q_half, k_ring.index(stage).permute((1, 0)), zeros, use_acc=False)
        mbarrier.arrive(k_free.index(stage), count=1)
        top = gl.full([HALF_M], float("-inf"), gl.float32, gl.SliceLayout(1, S_LAYOUT))  # of the scores, to base 2
        total = gl.zeros([HALF_M], gl.float32, gl.SliceLayout(1, S_LAYOUT))
        scores = gl.where((start + block_keys)[None, :] <= positions[:, None], scores, float("-inf"))
        weights, top, total, _ = _weights(scores, top, total, scale_log2)
        p = gl.convert_layout(weights.to(v_ring.dtype), gl.DotOperandLayout(0, O_LAYOUT, 2))
        acc = gl.zeros([HALF_M, HEAD_DIM], gl.float32, O_LAYOUT)
        taken += 1
        for keys_start in range(start + BLOCK_N, all_see, BLOCK_N):
            acc, p, top, total = _attend_block(
                acc, p, top, total, q_half, k_shared, v_shared, taken, zeros, keys_start, positions, scale_log2, False
            )
            taken += 1
        for keys_start in range(gl.maximum(all_see, start + BLOCK_N), end, BLOCK_N):
            acc, p, top, total = _attend_block(
                acc, p, top, total, q_half, k_shared, v_shared, taken, zeros, keys_start, positions, scale_log2, True
            )
            taken += 1
        mbarrier.arrive(q_free.index(turn % Q_STAGES), count=1)
        stage = (taken - 1) % V_STAGES
        mbarrier.wait(v_ready.index(stage), (taken - 1) // V_STAGES & 1)
        acc = warpgroup_mma(p, v_ring.index(stage), acc)
        mbarrier.arrive(v_free.index(stage), count=1)
        total = gl.convert_layout(total, gl.SliceLayout(1, O_LAYOUT))
        top = gl.convert_layout(top, gl.SliceLayout(1, O_LAYOUT))
        _store(
            results, acc / total[:, None], top, total, first_token, num_tokens, head, part, HALF, NUM_KV_HEADS, GROUP
        )
        turn += 1


@gluon.jit
def _tile_at(tiles, item, num_items, NUM_KV_HEADS: gl.constexpr):
    """The tile of an item but for its row; the first one behind the last item."""
    tile = tiles + gl.where(item < num_items, item // NUM_KV_HEADS, 0) * TILE_FIELDS
    return (
        gl.load(tile + 1),
        gl.load(tile + 2),
        gl.load(tile + 3),
        gl.load(tile + 4),
        gl.load(tile + 5),
        gl.load(tile + 6),
    )


@gluon.jit
def _attend_block(
    acc, p, top, total, q_half, k_shared, v_shared, taken, zeros, keys_start, positions, scale_log2,
    IS_MASKED: gl.constexpr,
):  # fmt: skip
    """(acc, p, top, total) with the values of the block before, whose weights are `p`, and this block's weights."""
    k_ring, k_ready, k_free = k_shared
    v_ring, v_ready, v_free = v_shared
    stage, phase = taken % K_STAGES, taken // K_STAGES & 1
    before = (taken - 1) % V_STAGES
    mbarrier.wait(k_ready.index(stage), phase)
    mbarrier.wait(v_ready.index(before), (taken - 1) // V_STAGES & 1)
    s_token = warpgroup_mma(q_half, k_ring.index(stage).permute((1, 0)), zeros, use_acc=False, is_async=True)
    o_token = warpgroup_mma(p, v_ring.index(before), acc, is_async=True)
    scores = warpgroup_mma_wait(1, deps=[s_token])
    if IS_MASKED:
        keys = keys_start + gl.arange(0, BLOCK_N, gl.SliceLayout(0, scores.type.layout))
        scores = gl.where(keys[None, :] <= positions[:, None], scores, float("-inf"))
    weights, top, total, shrink = _weights(scores, top, total, scale_log2)
    # A wait that is over at once: its branch keeps the assembler from moving the exponentials behind the one after it.
    mbarrier.wait(k_ready.index(stage), phase)
    acc, weights = warpgroup_mma_wait(0, deps=[o_token, weights])
    mbarrier.arrive(k_free.index(stage), count=1)
    mbarrier.arrive(v_free.index(before), count=1)
    acc = acc * gl.convert_layout(shrink, gl.SliceLayout(1, acc.type.layout))[:, None]
    p = gl.convert_layout(weights.to(v_ring.dtype), gl.DotOperandLayout(0, acc.type.layout, 2))
    return acc, p, top, total


@gluon.jit
def _weights(scores, top, total, scale_log2):
    """(weights, their top and total so far, what the results so far shrink by)."""
    new_top = gl.maximum(top, gl.max(scores, 1) * scale_log2)
    weights = gl.exp2(scores * scale_log2 - new_top[:, None])
    shrink = gl.exp2(top - new_top)
    return weights, new_top, total * shrink + gl.sum(weights, 1), shrink


@gluon.jit
def _store(
    results, values, top, total, first_token, num_tokens, head, part,
    HALF: gl.constexpr, NUM_KV_HEADS: gl.constexpr, GROUP: gl.constexpr,
):  # fmt: skip
    """A half of a tile, or of a part of one with the logarithms of its weights."""
    out, parts, part_weights = results
    HALF_M: gl.constexpr = values.shape[0]
    HEAD_DIM: gl.constexpr = values.shape[1]
    layout: gl.constexpr = values.type.layout
    index = HALF * HALF_M + gl.arange(0, HALF_M, gl.SliceLayout(1, layout))
    dims = gl.arange(0, HEAD_DIM, gl.SliceLayout(0, layout))[None, :]
    is_row = index < num_tokens * GROUP
    if part < 0:
        tokens = first_token.to(gl.int64) + index // GROUP
        places = (tokens * (NUM_KV_HEADS * GROUP) + head * GROUP + index % GROUP) * HEAD_DIM
        gl.store(out + places[:, None] + dims, values.to(out.dtype.element_ty), mask=is_row[:, None])
    else:
        places = (part.to(gl.int64) * NUM_KV_HEADS + head) * BLOCK_M + index
        gl.store(parts + places[:, None] * HEAD_DIM + dims, values, mask=is_row[:, None])
        gl.store(part_weights + places, top + gl.log2(total), mask=is_row)
