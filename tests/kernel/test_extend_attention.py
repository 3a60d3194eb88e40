"""Extend attention of the GPU against float64, with NaN in every place that nothing was stored to."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest
import torch
from paged_rows import PagedRows
from torch import Tensor

from sgrun_kernels.extend_attention import extend_attention, plan_extend
from sgrun_kernels.extend_plan import ExtendPlan

# Triton's interpreter multiplies the bits of bfloat16 as integers.
DTYPES = [torch.float32, torch.float16] + ([torch.bfloat16] if torch.cuda.is_available() else [])
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}
SCALE = 0.3


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _plan(rows: PagedRows, extend_lens: list[int], chosen: list[int] | None = None) -> ExtendPlan:
    """Of the rows `chosen`, all of them by default."""
    chosen = list(range(len(rows.seq_lens))) if chosen is None else chosen
    seq_lens = [rows.seq_lens[row] for row in chosen]
    extend_lens = [extend_lens[row] for row in chosen]
    return plan_extend(
        rows.page_tables[chosen].int(),
        torch.tensor(seq_lens, dtype=torch.int32),
        torch.tensor([0, *extend_lens]).cumsum(0).int(),
        seq_lens,
        extend_lens,
        rows.k_cache,
        rows.num_q_heads,
    )


def _attended(rows: PagedRows, extend_lens: list[int], q: Tensor, chosen: list[int] | None = None) -> Tensor:
    """Attention of the rows `chosen`, all of them by default; q holds the queries of just these."""
    return extend_attention(q, rows.k_cache, rows.v_cache, _plan(rows, extend_lens, chosen), SCALE)


def _assert_near(rows: PagedRows, extend_lens: list[int], q: Tensor, out: Tensor) -> None:
    expected = torch.cat([rows.expected(row, part, SCALE) for row, part in enumerate(q.split(extend_lens))])
    tolerance = TOLERANCE[rows.dtype]
    torch.testing.assert_close(out, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_dim", [64, 80, 96, 128, 256])
def test_every_head_dim_is_causal_over_each_rows_prefix(dtype: torch.dtype, head_dim: int) -> None:
    extend_lens = [1, 40, 7, 3]
    rows = PagedRows([1, 40, 70, 131], 16, 4, 2, head_dim, dtype)
    q = rows.queries(sum(extend_lens))
    _assert_near(rows, extend_lens, q, _attended(rows, extend_lens, q))


@pytest.mark.parametrize("group", [1, 2, 3, 7, 8, 64])
def test_every_number_of_query_heads_to_a_key_head(group: int) -> None:
    extend_lens = [5, 33]
    rows = PagedRows([70, 33], 16, group, 1, 16, torch.float32)
    q = rows.queries(sum(extend_lens))
    _assert_near(rows, extend_lens, q, _attended(rows, extend_lens, q))


@pytest.mark.parametrize(("page_size", "head_dim"), [(1, 16), (4, 16), (48, 16), (16, 64), (32, 64), (64, 128)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_rows_begin_and_end_anywhere_in_a_page(page_size: int, head_dim: int, dtype: torch.dtype) -> None:
    seq_lens = [1, page_size, page_size + 1, 2 * page_size, 150]
    extend_lens = [1, page_size, 1, page_size + 1, 87]
    rows = PagedRows(seq_lens, page_size, 3, 1, head_dim, dtype)
    q = rows.queries(sum(extend_lens))
    _assert_near(rows, extend_lens, q, _attended(rows, extend_lens, q))


def test_a_row_gives_the_same_bits_alone_and_in_a_batch() -> None:
    seq_lens, extend_lens = [100, 3, 2100, 129], [60, 3, 1, 128]
    rows = PagedRows(seq_lens, 16, 6, 2, 64, torch.float16)
    q = rows.queries(sum(extend_lens))
    together = _attended(rows, extend_lens, q).split(extend_lens)
    for row, part in enumerate(q.split(extend_lens)):
        assert torch.equal(_attended(rows, extend_lens, part, [row]), together[row])


@pytest.mark.parametrize("dtype", DTYPES)
def test_few_tokens_attend_to_a_long_prefix_in_parts(dtype: torch.dtype) -> None:
    extend_lens = [3, 40, 33, 1]
    rows = PagedRows([2500, 40, 1300, 1025], 16, 3, 1, 64, dtype)
    q = rows.queries(sum(extend_lens))
    cut_tokens = {
        token for first, count, *_ in _plan(rows, extend_lens).merges.tolist() for token in range(first, first + count)
    }
    assert cut_tokens == {*range(3), *range(43, 77)}
    _assert_near(rows, extend_lens, q, _attended(rows, extend_lens, q))


def test_tiles_with_the_most_to_read_come_first() -> None:
    k_cache = torch.empty(1, 16, 2, 64, dtype=torch.float16)
    none = torch.zeros(2, dtype=torch.int64)
    plan = plan_extend(none[None], none, none, [300, 900], [300, 10], k_cache, 4)
    tiles = [[1, 300, 10, 890, 0, 900, -1], [0, 256, 44, 256, 0, 300, -1]]
    tiles += [[0, token, 64, token, 0, token + 64, -1] for token in (192, 128, 64, 0)]
    assert plan.tiles.tolist() == tiles
    assert len(plan.merges) == len(plan.parts) == 0


def test_keys_are_cut_where_a_row_has_few_tiles() -> None:
    """8 tiles of 64 tokens and 2 heads are 16 of 132 programs, so each is cut into 8 parts; 80 tiles fill them all."""
    k_cache = torch.empty(1, 16, 2, 64, dtype=torch.float16)
    none = torch.zeros(1, dtype=torch.int64)
    plan = plan_extend(none[:, None], none, none, [80000], [512], k_cache, 4)
    assert len(plan.tiles) == len(plan.parts) == 8 * 8
    plan = plan_extend(none[:, None], none, none, [80000], [80 * 64], k_cache, 4)
    assert len(plan.tiles) == 80
    assert len(plan.parts) == 0


def test_each_tile_sees_all_its_keys_once_and_some_of_every_part() -> None:
    draw = random.Random(0)
    k_cache = torch.empty(1, 16, 2, 64, dtype=torch.float16)
    for _ in range(50):
        extend_lens = [draw.choice([1, 63, 64, 65, draw.randrange(1, 3000)]) for _ in range(4)]
        seq_lens = [extend_len + draw.choice([0, draw.randrange(20000)]) for extend_len in extend_lens]
        none = torch.zeros(4, dtype=torch.int64)
        plan = plan_extend(none[:, None], none, none, seq_lens, extend_lens, k_cache, 4)
        parts = defaultdict(list)
        for row, token, num_tokens, position, start, end, part in plan.tiles.tolist():
            parts[row, token, num_tokens, position].append((start, end, part))
        merges = {
            (token, num_tokens): range(part, part + count) for token, num_tokens, part, count in plan.merges.tolist()
        }
        assert [part for numbers in merges.values() for part in numbers] == list(range(len(plan.parts)))
        tokens = []
        for (row, token, num_tokens, position), pieces in sorted(parts.items()):
            starts, ends, numbers = zip(*sorted(pieces), strict=True)
            assert position == seq_lens[row] - extend_lens[row] + token - sum(extend_lens[:row])
            assert starts == (0, *ends[:-1])
            assert starts[-1] <= position
            assert ends[-1] == position + num_tokens
            assert all(start % 128 == 0 for start in starts)
            assert len(starts) == 1 or starts[1] >= 1024
            assert list(numbers) == (list(merges[token, num_tokens]) if len(numbers) > 1 else [-1])
            assert num_tokens <= 64
            tokens += [(row, number) for number in range(token, token + num_tokens)]
        rows = [row for row, extend_len in enumerate(extend_lens) for _ in range(extend_len)]
        assert tokens == list(zip(rows, range(len(rows)), strict=True))


def test_queries_and_page_tables_may_be_views() -> None:
    rows = PagedRows([40, 7], 4, 4, 2, 16, torch.float32)
    q = rows.queries(12)
    wide_q = torch.full((12, 9, 16), float("nan"))
    wide_q[:, 3:7] = q
    wide_tables = torch.full((2, 30), 10**6)
    wide_tables[:, : rows.page_tables.shape[1]] = rows.page_tables
    tables = wide_tables[:, : rows.page_tables.shape[1]]
    plan = plan_extend(
        tables, torch.tensor([40, 7]), torch.tensor([0, 5, 12]), [40, 7], [5, 7], rows.k_cache, rows.num_q_heads
    )
    out = extend_attention(wide_q[:, 3:7], rows.k_cache, rows.v_cache, plan, SCALE)
    _assert_near(rows, [5, 7], q, out)


def test_no_rows_give_no_output() -> None:
    k_cache = torch.empty(2, 4, 1, 16)
    none = torch.zeros(0, dtype=torch.int64)
    plan = plan_extend(none.view(0, 0), none, torch.zeros(1, dtype=torch.int64), [], [], k_cache, 2)
    assert extend_attention(torch.zeros(0, 2, 16), k_cache, k_cache, plan, 1.0).shape == (0, 2, 16)
