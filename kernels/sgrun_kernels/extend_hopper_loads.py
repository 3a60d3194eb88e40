"""The warps of `extend_hopper` that load: what stands in shared memory, and in which order it gets there.

A program takes items, tiles of a key/value head, turn after turn. Queries of tiles, blocks of keys and blocks of values
go round in a ring each, across the tiles. Signs between warps are mbarriers, named for what they announce: `ready` to
those that compute, `free` to those that load.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import async_copy, fence_async_shared, mbarrier, tma

BLOCK_M = gl.constexpr(128)  # rows of a tile, tokens times query heads
BLOCK_N = gl.constexpr(128)  # tokens of a block of keys or values
Q_STAGES, K_STAGES, V_STAGES = gl.constexpr(1), gl.constexpr(3), gl.constexpr(3)  # 224 KiB at head_dim 128
TILE_FIELDS = gl.constexpr(7)


@gluon.jit
def item_of(turn):
    """This program's item: the programs take them to and fro, as the first are the longest."""
    program = gl.program_id(0)
    last = gl.num_programs(0) - 1
    return turn * gl.num_programs(0) + gl.where(turn % 2 == 0, program, last - program)


@gluon.jit
def load_queries(queries, items, q_shared, NUM_KV_HEADS: gl.constexpr, GROUP: gl.constexpr, HEAD_DIM: gl.constexpr):
    """The queries of every tile, zeros in rows that it does not have. For two warps."""
    q, q_token_stride, q_head_stride = queries
    tiles, num_items = items
    q_ring, q_ready, q_free = q_shared
    LANES: gl.constexpr = HEAD_DIM // 8
    layout: gl.constexpr = gl.BlockedLayout([1, 8], [32 // LANES, LANES], [2, 1], [1, 0])
    half_index = gl.arange(0, BLOCK_M // 2, gl.SliceLayout(1, layout))
    dims = gl.arange(0, HEAD_DIM, gl.SliceLayout(0, layout))[None, :]
    turn = 0
    item = item_of(turn)
    while item < num_items:
        tile = tiles + item // NUM_KV_HEADS * TILE_FIELDS
        first_token = gl.load(tile + 1).to(gl.int64)
        num_tokens = gl.load(tile + 2)
        first_head = item % NUM_KV_HEADS * GROUP
        stage = turn % Q_STAGES
        mbarrier.wait(q_free.index(stage), turn // Q_STAGES & 1 ^ 1)
        for half in range(2):
            index = half * (BLOCK_M // 2) + half_index
            places = (first_token + index // GROUP) * q_token_stride + (first_head + index % GROUP) * q_head_stride
            is_row = (index < num_tokens * GROUP)[:, None]
            async_copy.async_copy_global_to_shared(
                q_ring.index(stage * 2 + half), q + places[:, None] + dims, mask=is_row
            )
        async_copy.commit_group()
        async_copy.wait_group(0)
        fence_async_shared()
        gl.thread_barrier()
        mbarrier.arrive(q_ready.index(stage), count=1)
        turn += 1
        item = item_of(turn)


@gluon.jit
def load_keys_and_values(
    caches,
    tables,
    items,
    k_shared,
    v_shared,
    PAGE_SIZE: gl.constexpr,
    NUM_KV_HEADS: gl.constexpr,
    HEAD_DIM: gl.constexpr,
):
    """The pages of every tile, by the copy engine. For one warp.

    What stands behind the last key in its page may be anything. Keys there are masked when they are used; values are
    not read, zeros stand for them.
    """
    k_boxes, v_boxes, v_cache = caches
    page_tables, table_stride = tables
    tiles, num_items = items
    k_ring, k_ready, k_free = k_shared
    v_ring, v_ready, v_free = v_shared
    PAGES: gl.constexpr = BLOCK_N // PAGE_SIZE
    PAGE_BYTES: gl.constexpr = PAGE_SIZE * HEAD_DIM * 2
    loaded = 0  # blocks, over all tiles
    turn = 0
    item = item_of(turn)
    while item < num_items:
        tile = tiles + item // NUM_KV_HEADS * TILE_FIELDS
        column = item % NUM_KV_HEADS * HEAD_DIM
        table = page_tables + gl.load(tile).to(gl.int64) * table_stride
        start = gl.load(tile + 4)
        end = gl.load(tile + 5)
        for keys_start in range(start, end, BLOCK_N):
            stage = loaded % K_STAGES
            slots = _with_slots((), table, keys_start, end, k_boxes.shape[0], PAGES, PAGE_SIZE)
            mbarrier.wait(k_free.index(stage), loaded // K_STAGES & 1 ^ 1)
            mbarrier.expect(k_ready.index(stage), PAGES * PAGE_BYTES)
            for page in gl.static_range(PAGES):
                box = k_ring.index(stage).slice(page * PAGE_SIZE, PAGE_SIZE)
                tma.async_copy_global_to_shared(k_boxes, [slots[page], column], k_ready.index(stage), box)
            stage = loaded % V_STAGES
            mbarrier.wait(v_free.index(stage), loaded // V_STAGES & 1 ^ 1)
            has_cut_page = (keys_start + BLOCK_N > end) & (end % PAGE_SIZE > 0)
            mbarrier.expect(v_ready.index(stage), PAGES * PAGE_BYTES, pred=has_cut_page == 0)
            if has_cut_page:
                for page in gl.static_range(PAGES):
                    num_keys = end - keys_start - page * PAGE_SIZE
                    if (num_keys > 0) & (num_keys < PAGE_SIZE):
                        box = v_ring.index(stage).slice(page * PAGE_SIZE, PAGE_SIZE)
                        values = v_cache + slots[page].to(gl.int64) * (NUM_KV_HEADS * HEAD_DIM) + column
                        _load_cut_page(values, num_keys, box, PAGE_SIZE, NUM_KV_HEADS * HEAD_DIM, HEAD_DIM)
                fence_async_shared()
                gl.thread_barrier()
                mbarrier.expect(v_ready.index(stage), (PAGES - 1) * PAGE_BYTES)
            for page in gl.static_range(PAGES):
                num_keys = end - keys_start - page * PAGE_SIZE
                is_uncut = (num_keys <= 0) | (num_keys >= PAGE_SIZE)
                box = v_ring.index(stage).slice(page * PAGE_SIZE, PAGE_SIZE)
                tma.async_copy_global_to_shared(v_boxes, [slots[page], column], v_ready.index(stage), box, is_uncut)
            loaded += 1
        turn += 1
        item = item_of(turn)


@gluon.jit
def _with_slots(slots, table, keys_start, end, num_slots, PAGES: gl.constexpr, PAGE_SIZE: gl.constexpr):
    """The tuple `slots` and the first slot of each page of a block; behind the last page one that no cache has, since
    zeros are copied from there."""
    for page in gl.static_range(PAGES):
        keys = keys_start + page * PAGE_SIZE
        number = gl.load(table + keys // PAGE_SIZE, mask=keys < end, other=0).to(gl.int32)
        slot = gl.where(keys < end, number * PAGE_SIZE, num_slots)
        slots = slots + (slot,)  # noqa: RUF005  Gluon has no unpacking of tuples
    return slots


@gluon.jit
def _load_cut_page(
    values, num_values, box, PAGE_SIZE: gl.constexpr, TOKEN_STRIDE: gl.constexpr, HEAD_DIM: gl.constexpr
):
    """The first `num_values` values of a page, then zeros; 16 at a time, for a warp of few registers."""
    LANES: gl.constexpr = HEAD_DIM // 8
    layout: gl.constexpr = gl.BlockedLayout([1, 8], [32 // LANES, LANES], [1, 1], [1, 0])
    index = gl.arange(0, 16, gl.SliceLayout(1, layout))
    dims = gl.arange(0, HEAD_DIM, gl.SliceLayout(0, layout))[None, :]
    for piece in gl.static_range(0, PAGE_SIZE, 16):
        places = ((piece + index) * TOKEN_STRIDE)[:, None] + dims
        box.slice(piece, 16).store(gl.load(values + places, mask=(piece + index < num_values)[:, None], other=0.0))
