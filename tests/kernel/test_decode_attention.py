"""Decode attention of the GPU against float64, with NaN in every place that nothing was stored to."""

from __future__ import annotations

import pytest
import torch
from paged_rows import PagedRows
from torch import Tensor

from sgrun_kernels.decode_attention import (
    ENOUGH_ROW_HEADS,
    MAX_SPLITS,
    PROGRAM_LEN,
    SPLIT_LEN,
    decode_attention,
    most_splits,
    plan_decode,
    plan_shared,
    programs_of_a_row,
)

# Triton's interpreter multiplies the bits of bfloat16 as integers.
DTYPES = [torch.float32, torch.float16] + ([torch.bfloat16] if torch.cuda.is_available() else [])
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}
SCALE = 0.3


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _attended(
    rows: PagedRows,
    q: Tensor,
    chosen: list[int] | None = None,
    max_seq_len: int | None = None,
    num_programs: int | None = None,
) -> Tensor:
    """Attention of the rows `chosen`, all of them by default."""
    chosen = list(range(len(rows.seq_lens))) if chosen is None else chosen
    seq_lens = [rows.seq_lens[row] for row in chosen]
    tables = rows.page_tables[chosen].int()
    lens, longest = torch.tensor(seq_lens, dtype=torch.int32), max_seq_len or max(seq_lens)
    if num_programs is None:
        plan = plan_decode(tables, lens, longest, rows.k_cache, rows.num_q_heads)
    else:
        plan = plan_shared(tables, lens, longest, rows.k_cache, rows.num_q_heads, num_programs)
    for part in (plan.parts, plan.part_weights):
        part.fill_(float("nan"))
    out = decode_attention(q[chosen], rows.k_cache, rows.v_cache, plan, SCALE)
    assert plan.arrivals.eq(0).all()
    return out


def _assert_near(rows: PagedRows, q: Tensor, out: Tensor) -> None:
    expected = torch.cat([rows.expected(row, q[row : row + 1], SCALE) for row in range(len(rows.seq_lens))])
    tolerance = TOLERANCE[rows.dtype]
    torch.testing.assert_close(out, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_dim", [64, 80, 96, 128, 256])
def test_every_head_dim_sees_each_row_to_its_end(dtype: torch.dtype, head_dim: int) -> None:
    rows = PagedRows([1, 65, 30], 16, 4, 2, head_dim, dtype)
    q = rows.queries(3)
    _assert_near(rows, q, _attended(rows, q))


@pytest.mark.parametrize("group", [1, 2, 3, 7, 8, 64])
def test_every_number_of_query_heads_to_a_key_head(group: int) -> None:
    rows = PagedRows([9, 300], 16, 2 * group, 2, 16, torch.float32)
    q = rows.queries(2)
    _assert_near(rows, q, _attended(rows, q))


@pytest.mark.parametrize("page_size", [1, 4, 16, 48])
def test_rows_end_anywhere_in_a_page(page_size: int) -> None:
    rows = PagedRows([1, page_size, page_size + 1, 2 * page_size - 1, 129], page_size, 3, 1, 16, torch.float16)
    q = rows.queries(5)
    _assert_near(rows, q, _attended(rows, q))


@pytest.mark.parametrize("num_programs", [1, 2, 3, 20])
def test_long_rows_are_merged_of_splits(num_programs: int) -> None:
    seq_lens = [SPLIT_LEN, 2 * SPLIT_LEN + 1, 3, 9 * SPLIT_LEN - 1]
    rows = PagedRows(seq_lens, 16, 3, 1, 16, torch.float32)
    q = rows.queries(len(seq_lens))
    _assert_near(rows, q, _attended(rows, q, num_programs=num_programs))


@pytest.mark.parametrize("num_programs", [1, 5])
def test_splits_of_long_rows_and_many_heads(num_programs: int) -> None:
    rows = PagedRows([2 * MAX_SPLITS * SPLIT_LEN + 100], 16, 64, 1, 16, torch.float32)
    q = rows.queries(1)
    _assert_near(rows, q, _attended(rows, q, num_programs=num_programs))


def test_a_row_gives_the_same_bits_alone_and_in_any_batch_and_bound() -> None:
    seq_lens = [700, 20, 257]
    rows = PagedRows(seq_lens, 16, 6, 2, 64, torch.float16)
    q = rows.queries(len(seq_lens))
    together = _attended(rows, q, max_seq_len=2000)
    assert torch.equal(together, _attended(rows, q))
    for row in range(len(seq_lens)):
        assert torch.equal(together[row : row + 1], _attended(rows, q, [row]))
    for num_programs in (1, 2, 3, 7):
        assert torch.equal(together, _attended(rows, q, num_programs=num_programs))


def test_as_many_programs_share_a_row_as_keep_the_gpu_busy() -> None:
    assert [programs_of_a_row(num, 4000) for num in (8, 32, 64, 128)] == [16, 16, 16, 8]
    assert programs_of_a_row(ENOUGH_ROW_HEADS, 4000) == 1
    assert programs_of_a_row(8, 100) == 1


def test_no_program_has_a_very_long_row_to_itself() -> None:
    assert programs_of_a_row(ENOUGH_ROW_HEADS, PROGRAM_LEN) == 1
    assert programs_of_a_row(10 * ENOUGH_ROW_HEADS, 3 * PROGRAM_LEN) == 3


def test_the_splits_of_a_row_are_bounded_however_long_it_may_be() -> None:
    assert most_splits(1) == 1
    assert most_splits(10**6) == MAX_SPLITS
    for max_seq_len in (100, 576, 1024, 5000):
        lens = range(1, max_seq_len + 1)
        splits = [-(-seq_len // (SPLIT_LEN + -(-seq_len // MAX_SPLITS))) for seq_len in lens]
        assert max(splits) <= most_splits(max_seq_len) <= max(splits) + 1


def test_one_program_to_a_row_takes_no_memory_for_parts() -> None:
    k_cache = torch.empty(1, 16, 8, 64, dtype=torch.float16)
    tables, lens = torch.zeros(2, 9), torch.zeros(2)
    alone, shared = (plan_shared(tables, lens, 1000, k_cache, 16, num) for num in (1, 2))
    assert alone.parts.numel() == alone.part_weights.numel() == alone.arrivals.numel() == 0
    assert shared.parts.shape == (2, 8, most_splits(1000), 2, 64)


def test_queries_and_page_tables_may_be_views() -> None:
    rows = PagedRows([40, 7], 4, 4, 2, 16, torch.float32)
    q = rows.queries(2)
    wide_q = torch.full((2, 9, 16), float("nan"))
    wide_q[:, 3:7] = q
    wide_tables = torch.full((2, 30), 10**6)
    wide_tables[:, : rows.page_tables.shape[1]] = rows.page_tables
    tables = wide_tables[:, : rows.page_tables.shape[1]]
    plan = plan_decode(tables, torch.tensor([40, 7]), 40, rows.k_cache, 4)
    _assert_near(rows, q, decode_attention(wide_q[:, 3:7], rows.k_cache, rows.v_cache, plan, SCALE))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of Triton's interpreter
def test_nan_in_one_row_stays_in_that_row() -> None:
    rows = PagedRows([300, 300], 16, 2, 1, 16, torch.float32)
    q = rows.queries(2)
    clean = _attended(rows, q)
    q[0] = float("nan")
    out = _attended(rows, q)
    assert out[0].isnan().all()
    assert torch.equal(out[1], clean[1])
