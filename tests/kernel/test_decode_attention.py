"""Decode attention of the GPU against float64, with NaN in every place that nothing was stored to."""

from __future__ import annotations

import random
from itertools import pairwise, product

import pytest
import torch
from paged_rows import PagedRows
from torch import Tensor

from sgrun_kernels.decode_attention import MULTIPROCESSORS, decode_attention
from sgrun_kernels.decode_plan import (
    ENOUGH_ROW_HEADS,
    EXTRA_PROGRAMS,
    MANY_ROW_HEADS,
    PROGRAM_LEN,
    extra_runs,
    plan_decode,
    plan_shared,
    programs_of_a_bundle,
    programs_of_a_row,
)
from sgrun_kernels.decode_splits import (
    COLUMNS_AT_ONCE,
    MAX_SPLITS,
    ROWS_AT_ONCE,
    SPLIT_LEN,
    block_tokens,
    common_splits,
    dealt_splits,
    most_splits,
)

# Triton's interpreter multiplies the bits of bfloat16 as integers.
DTYPES = [torch.float32, torch.float16] + ([torch.bfloat16] if torch.cuda.is_available() else [])
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}
SCALE = 0.3
SAME_BITS_HEADS = 16 if torch.cuda.is_available() else 8  # the interpreter's products differ with the size of a tile


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _attended(
    rows: PagedRows,
    q: Tensor,
    chosen: list[int] | None = None,
    max_seq_len: int | None = None,
    num_programs: int | None = None,
    bundle_rows: int = 1,
) -> Tensor:
    """Attention of the rows `chosen`, all of them by default."""
    chosen = list(range(len(rows.seq_lens))) if chosen is None else chosen
    seq_lens = [rows.seq_lens[row] for row in chosen]
    tables = rows.page_tables[chosen].int()
    lens, longest = torch.tensor(seq_lens, dtype=torch.int32), max_seq_len or max(seq_lens)
    if num_programs is None:
        plan = plan_decode(tables, lens, longest, rows.k_cache, rows.num_q_heads)
    else:
        plan = plan_shared(tables, lens, longest, rows.k_cache, rows.num_q_heads, num_programs, bundle_rows)
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


@pytest.mark.parametrize("num_programs", [0, 1, 2, 3, 20])
def test_long_rows_are_merged_of_splits(num_programs: int) -> None:
    seq_lens = [SPLIT_LEN, 2 * SPLIT_LEN + 1, 3, 9 * SPLIT_LEN - 1]
    rows = PagedRows(seq_lens, 16, 3, 1, 16, torch.float32)
    q = rows.queries(len(seq_lens))
    _assert_near(rows, q, _attended(rows, q, num_programs=num_programs))


@pytest.mark.parametrize("num_programs", [0, 1, 5])
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
    for num_programs in (0, 1, 2, 3, 7):
        assert torch.equal(together, _attended(rows, q, num_programs=num_programs))


def test_as_many_programs_share_a_row_as_keep_the_gpu_busy() -> None:
    assert [programs_of_a_row(num, 4000) for num in (8, 32, 64, 128)] == [16, 16, 16, 8]
    assert programs_of_a_row(ENOUGH_ROW_HEADS - 1, 4000) == 4
    assert programs_of_a_row(ENOUGH_ROW_HEADS, 4000) == programs_of_a_row(MANY_ROW_HEADS - 1, 4000) == 0
    assert programs_of_a_row(MANY_ROW_HEADS, PROGRAM_LEN) == 1
    assert programs_of_a_row(MANY_ROW_HEADS, PROGRAM_LEN + 1) == 0
    assert programs_of_a_row(8, 100) == 1


def test_the_bits_do_not_depend_on_how_many_programs_there_is_room_for() -> None:
    """Two to a multiprocessor, three, four, and more; the interpreter makes no difference."""
    num_kv_heads = MULTIPROCESSORS if torch.cuda.is_available() else 2
    rows = PagedRows([20, 400, 1, 70, 333], 16, 2 * num_kv_heads, num_kv_heads, 128, DTYPES[-1])
    q = rows.queries(5)
    alone = _attended(rows, q, num_programs=1)
    _assert_near(rows, q, alone)
    for num_rows in (2, 3, 4, 5):
        assert torch.equal(_attended(rows, q, list(range(num_rows)), num_programs=0), alone[:num_rows])


def _runs(seq_lens: list[int], num_extra: int, common: list[int] | None = None) -> list[tuple[int, int, int]]:
    """What is dealt: row, first split and the one behind the last."""
    lens, bundle_rows = torch.tensor(seq_lens, dtype=torch.int32), 2 if common else 1
    places = dealt_splits(lens, torch.tensor(common or [], dtype=torch.int32), bundle_rows, num_extra, 64).tolist()
    assert len(places) == len(seq_lens) + num_extra + 1
    assert places == sorted(places)
    assert places[-1] == len(seq_lens) * MAX_SPLITS
    runs = [(place // MAX_SPLITS, place, end) for place, end in pairwise(places) if place < end]
    return [(row, place % MAX_SPLITS, min(end - row * MAX_SPLITS, MAX_SPLITS)) for row, place, end in runs]


def test_a_row_that_is_no_longer_than_its_share_is_one_run() -> None:
    assert _runs([576] * 9, 6) == [(row, 0, MAX_SPLITS) for row in range(9)]
    assert _runs([640, 576, 500, 1, 576, 576], 4) == [(row, 0, MAX_SPLITS) for row in range(6)]


def test_a_long_row_is_cut_into_runs_of_about_its_share() -> None:
    # 8,000 tokens are 125 blocks, 21 splits of 6; 100 are 2 blocks. A share is 131 / 2 or 131 / 6, rounded up.
    assert _runs([100, 8000, 100, 100], 2) == [(0, 0, 32), (1, 0, 10), (1, 10, 32), (2, 0, 32), (3, 0, 32)]
    cuts = [run * 21 // 6 for run in range(6)]
    long_runs = [(1, first, last) for first, last in pairwise([*cuts, MAX_SPLITS])]
    assert _runs([100, 8000, 100, 100], 6) == [(0, 0, 32), *long_runs, (2, 0, 32), (3, 0, 32)]
    assert len(_runs([100, 8000], 200)) == 1 + 21


def test_splits_in_common_are_not_dealt() -> None:
    assert _runs([8000, 8000, 8000, 8000], 3, [0, 21]) == [
        (0, 0, 10),
        (0, 10, 32),
        (1, 0, 10),
        (1, 10, 32),
        (2, 0, 32),
        (3, 0, 32),
    ]
    assert _runs([8000, 8000], 9, [21]) == [(0, 0, 32), (1, 0, 32)]


def test_all_splits_of_any_rows_are_dealt_once_and_long_runs_are_cut() -> None:
    rng = random.Random(0)
    for num_rows in (1, 7, ROWS_AT_ONCE, ROWS_AT_ONCE + 1, 3 * ROWS_AT_ONCE - 5):
        seq_lens = [rng.choice([1, rng.randint(1, 300), rng.randint(1, 9000)]) for _ in range(num_rows)]
        num_extra = rng.randint(1, num_rows)
        runs = _runs(seq_lens, num_extra)
        most_blocks = -(-sum(-(-seq_len // 64) for seq_len in seq_lens) // num_extra)
        assert len(runs) <= num_rows + num_extra
        for row, seq_len in enumerate(seq_lens):
            own = [(first, last) for of, first, last in runs if of == row]
            assert [first for first, _ in own] == [0, *(last for _, last in own[:-1])]
            assert own[-1][1] == MAX_SPLITS
            blocks, split = -(-seq_len // 64), -(-(SPLIT_LEN + -(-seq_len // MAX_SPLITS)) // 64)
            assert len(own) == min(-(-blocks // most_blocks), -(-blocks // split))


def test_extra_runs_are_fewer_the_more_rows_there_are() -> None:
    assert [extra_runs(num_rows, 8) for num_rows in (1, 32, 64, 96, 256)] == [1, 21, 42, 64, EXTRA_PROGRAMS // 8]
    assert extra_runs(4, 1024) == 1


def test_the_splits_of_a_row_are_bounded_however_long_it_may_be() -> None:
    assert most_splits(1) == 1
    assert most_splits(10**6) == MAX_SPLITS
    for max_seq_len in (100, 576, 1024, 5000):
        lens = range(1, max_seq_len + 1)
        splits = [-(-seq_len // (SPLIT_LEN + -(-seq_len // MAX_SPLITS))) for seq_len in lens]
        assert max(splits) <= most_splits(max_seq_len) <= max(splits) + 1


def test_one_program_to_a_row_takes_no_memory_for_parts() -> None:
    k_cache = torch.empty(1, 16, 8, 64, dtype=torch.float16)
    tables, lens = torch.zeros(2, 9), torch.ones(2, dtype=torch.int32)
    alone, shared, dealt = (plan_shared(tables, lens, 1000, k_cache, 16, num) for num in (1, 2, 0))
    assert alone.parts.numel() == alone.part_weights.numel() == 0
    assert shared.parts.shape == dealt.parts.shape == (2, 8, most_splits(1000), 2, 64)


def _sharing(prefixes: list[int], seq_lens: list[int], num_q_heads: int, page_size: int = 16) -> PagedRows:
    """Rows of which each begins with that many tokens of the row before it, in whole pages, the same pages."""
    rows = PagedRows(seq_lens, page_size, num_q_heads, 2, 16, DTYPES[-1])
    for row, prefix in enumerate(prefixes):
        num_pages = prefix // page_size
        rows.page_tables[row, :num_pages] = rows.page_tables[row - 1, :num_pages]
        for stored in (rows.k, rows.v):
            stored[row][: num_pages * page_size] = stored[row - 1][: num_pages * page_size]
    return rows


def _common(rows: PagedRows, bundle_rows: int) -> list[int]:
    lens, page_size = torch.tensor(rows.seq_lens, dtype=torch.int32), rows.k_cache.shape[1]
    block_n = block_tokens(rows.k_cache.shape[3], rows.dtype)
    return common_splits(rows.page_tables.int(), lens, bundle_rows, page_size, block_n).tolist()


def test_rows_of_a_bundle_have_the_whole_splits_over_their_same_pages_in_common() -> None:
    block_n = block_tokens(16, DTYPES[-1])
    split = -(-(SPLIT_LEN + 1000 // MAX_SPLITS) // block_n) * block_n
    assert _common(_sharing([0, 800, 800, 800], [1000] * 4, 4), 4) == [800 // split]
    assert _common(_sharing([0, 2 * split - 16], [1000] * 2, 4), 2) == [1]
    assert _common(_sharing([0, 2 * split], [1000] * 2, 4), 2) == [2]
    assert _common(_sharing([0, 2 * split], [1000, 2 * split], 4), 2) == [2]
    assert _common(_sharing([0, 800, 0, 800], [1000] * 4, 4), 4) == [0]
    assert _common(_sharing([0, 800, 0, 800, 0], [1000] * 5, 4), 2) == [800 // split, 800 // split, 1000 // split]


def test_rows_that_are_cut_differently_have_nothing_in_common() -> None:
    tables, lens = torch.arange(1, 140).repeat(2, 1), torch.tensor([2040, 2100])
    assert common_splits(tables, lens, 2, 16, 64).tolist() == [0]
    assert common_splits(tables, lens + 60, 2, 16, 64).tolist() == [2100 // 256]


def test_a_split_that_one_row_has_in_part_is_not_common() -> None:
    tables, split = torch.arange(1, 140).repeat(2, 1), 3 * 64
    assert common_splits(tables, torch.tensor([2 * split, 2 * split - 8]), 2, 16, 64).tolist() == [1]
    assert common_splits(tables, torch.tensor([2 * split, 2 * split]), 2, 16, 64).tolist() == [2]


def test_long_page_tables_are_compared_to_their_end() -> None:
    lens, seq_len = torch.tensor([9000, 9000], dtype=torch.int32), 9000
    tables = torch.arange(1, seq_len + 1, dtype=torch.int32).repeat(2, 1)
    split = -(-(SPLIT_LEN + -(-seq_len // MAX_SPLITS)) // 64) * 64
    for same in (100, COLUMNS_AT_ONCE, 5000, 8999, 9000):
        tables[1, :same], tables[1, same:] = tables[0, :same], 0
        assert common_splits(tables, lens, 2, 1, 64).tolist() == [same // split]


@pytest.mark.parametrize(("num_q_heads", "bundle_rows"), [(4, 8), (4, 2), (2, 16), (6, 4), (14, 2), (32, 1), (64, 1)])
def test_as_many_rows_are_bundled_as_a_tile_of_heads_holds(num_q_heads: int, bundle_rows: int) -> None:
    rows = _sharing([0, 300, 300, 0, 300, 300, 300], [400] * 7, num_q_heads)
    lens = torch.tensor(rows.seq_lens, dtype=torch.int32)
    plan = plan_decode(rows.page_tables, lens, 400, rows.k_cache, num_q_heads, shares_prefixes=True)
    assert plan.bundle_rows == (bundle_rows if num_q_heads != 4 else 8)


@pytest.mark.parametrize("seed", range(6))
def test_bundled_rows_give_the_bits_that_each_gives_alone(seed: int) -> None:
    rng = random.Random(seed)
    num_rows, page_size, group = rng.randint(2, 11), rng.choice([4, 16]), rng.choice([1, 2, 3, 4, 7])
    sizes = [rows for rows in (2, 4, 8, 16) if rows * group <= SAME_BITS_HEADS] or [2]
    seq_lens = [rng.choice([rng.randint(400, 900), rng.randint(400, 420), 1]) for _ in range(num_rows)]
    longest = [0, *(min(pair) for pair in pairwise(seq_lens))]
    prefixes = [rng.choice([0, most, rng.randint(0, most), most]) for most in longest]
    rows = _sharing(prefixes, seq_lens, 2 * group, page_size)
    q = rows.queries(num_rows)
    alone = _attended(rows, q)
    _assert_near(rows, q, alone)
    for num_programs, bundle_rows in product((0, 1, 2), sizes):
        together = _attended(rows, q, num_programs=num_programs, bundle_rows=bundle_rows)
        if bundle_rows * group <= SAME_BITS_HEADS:
            assert torch.equal(together, alone)
        else:
            _assert_near(rows, q, together)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of Triton's interpreter
def test_nan_in_one_row_of_a_bundle_stays_in_that_row() -> None:
    rows = _sharing([0, 800, 800, 800], [900] * 4, 4)
    q = rows.queries(4)
    clean = _attended(rows, q, bundle_rows=4)
    q[1] = float("nan")
    out = _attended(rows, q, num_programs=0, bundle_rows=4)
    assert out[1].isnan().all()
    for row in (0, 2, 3):
        assert torch.equal(out[row], clean[row])


def test_what_is_common_is_computed_once() -> None:
    """The pages of the rows behind the first are another's as far as the bundle goes: nothing is read there."""
    rows = _sharing([0, 800, 800, 800], [900] * 4, 4)
    q, lens = rows.queries(4), torch.tensor([900] * 4, dtype=torch.int32)
    plan = plan_shared(rows.page_tables, lens, 900, rows.k_cache, 4, 0, 4)
    together = decode_attention(q, rows.k_cache, rows.v_cache, plan, SCALE)
    rows.page_tables[1:, :40] = 0  # a page of NaN
    assert torch.equal(decode_attention(q, rows.k_cache, rows.v_cache, plan, SCALE), together)


def test_as_many_programs_share_a_bundle_as_keep_the_gpu_busy() -> None:
    assert [programs_of_a_bundle(num, 4000) for num in (8, 128, 512, 4096)] == [16, 8, 2, 1]


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
