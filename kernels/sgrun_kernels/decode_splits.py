"""How the tokens of a decoding row are cut into splits, and which of them rows that stand side by side have in common.

A row is cut by its own length alone: SPLIT_LEN tokens to a split, and more the longer it is, so that there are at most
MAX_SPLITS, in whole blocks. Rows of a bundle whose page tables begin with the same pages, and which are cut alike, can
have the splits over those pages computed together (https://arxiv.org/abs/2402.05099 calls it prefix sharing).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgrun_kernels.overlap import await_previous, launch_options

SPLIT_LEN = 128
MAX_SPLITS = 32
COLUMNS_AT_ONCE = 256  # of page tables, that are compared
ROWS_AT_ONCE = 256  # whose blocks are summed
RUNS_AT_ONCE = 8  # whose beginning is found


def block_tokens(head_dim: int, dtype: torch.dtype) -> int:
    """Tokens of a block: 32 KiB of keys and values, in blocks of 16 tokens or more."""
    block_d: int = triton.next_power_of_2(head_dim)
    return max(64 * 128 * 2 // (max(block_d, 128) * dtype.itemsize), 16)


def most_splits(max_seq_len: int) -> int:
    """How many splits a row of up to so many tokens may have."""
    share = -(-max_seq_len // MAX_SPLITS)
    return -(-share * MAX_SPLITS // (SPLIT_LEN + share))


def common_splits(page_tables: Tensor, seq_lens: Tensor, bundle_rows: int, page_size: int, block_n: int) -> Tensor:
    """How many of their first splits the rows of each bundle have in common: [R / bundle_rows, rounded up] int32.

    Bundles are of `bundle_rows` rows (a power of two) one after the other, of page_tables [R, P] and seq_lens [R], both
    int32 or int64 and read on the device alone. The last bundle may have fewer rows.
    """
    assert page_tables.stride(1) == 1
    common = torch.empty(triton.cdiv(len(seq_lens), bundle_rows), dtype=torch.int32, device=page_tables.device)
    _common_splits_kernel[(len(common),)](
        page_tables,
        seq_lens,
        common,
        page_tables.stride(0),
        len(seq_lens),
        PAGE_SIZE=page_size,
        BLOCK_N=block_n,
        SPLIT_LEN=SPLIT_LEN,
        MAX_SPLITS=MAX_SPLITS,
        BUNDLE_ROWS=bundle_rows,
        COLUMNS_AT_ONCE=COLUMNS_AT_ONCE,
        num_warps=4,
        **launch_options(),
    )
    return common


def dealt_splits(seq_lens: Tensor, common: Tensor, bundle_rows: int, num_extra: int, block_n: int) -> Tensor:
    """The rows' splits in runs of neighbours, for programs that take one each: [R + num_extra + 1] int32.

    A row is one run, or several of about equal length where it has more blocks than all rows have over `num_extra`. Run
    n goes from place n up to place n + 1, or to its row's end; the place of split s of row r is r * MAX_SPLITS + s,
    where splits are counted from behind those that the row's bundle has in common. Runs beyond the last are empty.
    """
    places = torch.empty(len(seq_lens) + num_extra + 1, dtype=torch.int32, device=seq_lens.device)
    _deal_kernel[(triton.cdiv(len(places), RUNS_AT_ONCE),)](
        seq_lens,
        common,
        places,
        len(seq_lens),
        num_extra,
        BLOCK_N=block_n,
        SPLIT_LEN=SPLIT_LEN,
        MAX_SPLITS=MAX_SPLITS,
        BUNDLE_ROWS=bundle_rows,
        ROWS_AT_ONCE=ROWS_AT_ONCE,
        RUNS_AT_ONCE=RUNS_AT_ONCE,
        num_warps=4,
        **launch_options(),
    )
    return places


@triton.jit
def split_blocks(seq_len, BLOCK_N: tl.constexpr, SPLIT_LEN: tl.constexpr, MAX_SPLITS: tl.constexpr):
    """Blocks of a split of a row of `seq_len` tokens."""
    return tl.cdiv(SPLIT_LEN + tl.cdiv(seq_len, MAX_SPLITS), BLOCK_N)


@triton.jit(do_not_specialize=["table_stride", "num_rows"])
def _common_splits_kernel(
    page_tables,
    seq_lens,
    common,
    table_stride,
    num_rows,
    PAGE_SIZE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    SPLIT_LEN: tl.constexpr,
    MAX_SPLITS: tl.constexpr,
    BUNDLE_ROWS: tl.constexpr,
    COLUMNS_AT_ONCE: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    """One program to a bundle. A row that the last bundle lacks is the first one once more."""
    await_previous(OVERLAPS)
    first_row = tl.program_id(0).to(tl.int64) * BUNDLE_ROWS
    rows = first_row + tl.arange(0, BUNDLE_ROWS)
    rows = tl.where(rows < num_rows, rows, first_row)
    lens = tl.load(seq_lens + rows).to(tl.int32)
    blocks = split_blocks(lens, BLOCK_N, SPLIT_LEN, MAX_SPLITS)
    most_blocks = tl.max(blocks, axis=0)
    shortest = tl.min(lens, axis=0)
    is_alike = tl.min(blocks, axis=0) == most_blocks
    num_columns = tl.where(is_alike, tl.cdiv(shortest, PAGE_SIZE), 0)
    column = 0
    num_same = num_columns
    while column < num_same:
        columns = column + tl.arange(0, COLUMNS_AT_ONCE)
        is_column = columns < num_columns
        first_pages = tl.load(page_tables + first_row * table_stride + columns, mask=is_column, other=0)
        places = rows[:, None] * table_stride + columns[None, :]
        pages = tl.load(page_tables + places, mask=is_column[None, :], other=0)
        differing = tl.where(pages == first_pages[None, :], num_columns, columns[None, :])
        num_same = tl.minimum(num_same, tl.min(differing))
        column += COLUMNS_AT_ONCE
    num_tokens = tl.minimum(num_same * PAGE_SIZE, shortest)
    tl.store(common + tl.program_id(0), num_tokens // (most_blocks * BLOCK_N))


@triton.jit(do_not_specialize=["num_rows", "num_extra"])
def _deal_kernel(
    seq_lens,
    common,
    places,
    num_rows,
    num_extra,
    BLOCK_N: tl.constexpr,
    SPLIT_LEN: tl.constexpr,
    MAX_SPLITS: tl.constexpr,
    BUNDLE_ROWS: tl.constexpr,
    ROWS_AT_ONCE: tl.constexpr,
    RUNS_AT_ONCE: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    """One program for RUNS_AT_ONCE of the places."""
    await_previous(OVERLAPS)
    num_blocks = 0
    for start in range(0, num_rows, ROWS_AT_ONCE):
        rows = start + tl.arange(0, ROWS_AT_ONCE)
        own_blocks, _ = _own(seq_lens, common, rows, num_rows, BLOCK_N, SPLIT_LEN, MAX_SPLITS, BUNDLE_ROWS)
        num_blocks += tl.sum(own_blocks, axis=0)
    most_blocks = tl.maximum(tl.cdiv(num_blocks, num_extra), 1)
    runs = tl.program_id(0) * RUNS_AT_ONCE + tl.arange(0, RUNS_AT_ONCE)
    row = tl.zeros((RUNS_AT_ONCE,), tl.int32)
    before = tl.zeros((RUNS_AT_ONCE,), tl.int32)  # runs of the rows before it
    num_seen = 0
    for start in range(0, num_rows, ROWS_AT_ONCE):
        rows = start + tl.arange(0, ROWS_AT_ONCE)
        own_blocks, own_splits = _own(seq_lens, common, rows, num_rows, BLOCK_N, SPLIT_LEN, MAX_SPLITS, BUNDLE_ROWS)
        row_runs = tl.where(rows < num_rows, _runs(own_blocks, own_splits, most_blocks), 0)
        ends = num_seen + tl.cumsum(row_runs, axis=0)
        is_before = (rows < num_rows)[:, None] & (ends[:, None] <= runs[None, :])
        row += tl.sum(is_before.to(tl.int32), axis=0)
        before = tl.maximum(before, tl.max(tl.where(is_before, ends[:, None], 0), axis=0))
        num_seen += tl.sum(row_runs, axis=0)
    own_blocks, own_splits = _own(seq_lens, common, row, num_rows, BLOCK_N, SPLIT_LEN, MAX_SPLITS, BUNDLE_ROWS)
    split = (runs - before) * own_splits // _runs(own_blocks, own_splits, most_blocks)
    is_run = row < num_rows
    tl.store(places + runs, row * MAX_SPLITS + tl.where(is_run, split, 0), mask=runs <= num_rows + num_extra)


@triton.jit
def _runs(own_blocks, own_splits, most_blocks):
    """How many runs a row of so many blocks and splits becomes: one at least, which writes its result."""
    return tl.maximum(tl.minimum(tl.cdiv(own_blocks, most_blocks), own_splits), 1)


@triton.jit
def _own(
    seq_lens,
    common,
    rows,
    num_rows,
    BLOCK_N: tl.constexpr,
    SPLIT_LEN: tl.constexpr,
    MAX_SPLITS: tl.constexpr,
    BUNDLE_ROWS: tl.constexpr,
):
    """Blocks and splits of each row behind those that its bundle has in common; none behind the last row."""
    is_row = rows < num_rows
    lens = tl.load(seq_lens + rows, mask=is_row, other=0).to(tl.int32)
    row_blocks, blocks = tl.cdiv(lens, BLOCK_N), split_blocks(lens, BLOCK_N, SPLIT_LEN, MAX_SPLITS)
    num_common = tl.zeros_like(lens)
    if BUNDLE_ROWS > 1:
        num_common += tl.load(common + rows // BUNDLE_ROWS, mask=is_row, other=0)
    return tl.maximum(row_blocks - num_common * blocks, 0), tl.cdiv(row_blocks, blocks) - num_common
