"""Products on the GPU against float64: streamed ones of few rows, and what stands before and after them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sgrun_kernels.hidden import Hidden
from sgrun_kernels.linear import (
    MAX_SMALL_BYTES,
    MAX_WARP_ROWS,
    linear_add_norm,
    normed_gate_up,
    normed_linear,
    stream_config,
)
from sgrun_kernels.norms import complete_norm
from sgrun_kernels.streaming import TILE_ROWS, StreamConfig, stream, stream_add_norm

# Triton's interpreter multiplies the bits of bfloat16 as integers.
DTYPES = [torch.float32, torch.float16] + ([torch.bfloat16] if torch.cuda.is_available() else [])
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 6e-2, torch.float16: 1e-2}
EPS = 1e-5
NUM_ROWS = [1, 8, 9, MAX_WARP_ROWS + 1, TILE_ROWS, TILE_ROWS + 1]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _norm(total: Tensor, norm: Tensor) -> Tensor:
    total = total.double()
    return total / (total.square().mean(-1, keepdim=True) + EPS).sqrt() * norm.double()


def _plain(normed: Tensor) -> Hidden:
    return Hidden(normed, normed, EPS, arrivals=torch.zeros(normed.shape[1], dtype=torch.int32))


def _assert_near(actual: Tensor, expected: Tensor) -> None:
    tolerance = TOLERANCE[actual.dtype]
    torch.testing.assert_close(actual.double(), expected, rtol=tolerance, atol=tolerance)


def _weight(num_outputs: int, num_columns: int, dtype: torch.dtype) -> Tensor:
    return (torch.randn(num_outputs, num_columns) / num_columns**0.5).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_rows", [0, *NUM_ROWS])
@pytest.mark.parametrize("has_bias", [False, True])
def test_normed_linear_multiplies_by_the_transpose(dtype: torch.dtype, num_rows: int, has_bias: bool) -> None:
    x, weight, bias = torch.randn(num_rows, 300).to(dtype), _weight(70, 300, dtype), torch.randn(70).to(dtype)
    expected = x.double() @ weight.double().T + (bias.double() if has_bias else 0)
    _assert_near(normed_linear(_plain(x), weight, bias if has_bias else None), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_rows", NUM_ROWS)
@pytest.mark.parametrize("has_bias", [False, True])
def test_normed_gate_up_gates_the_second_half(dtype: torch.dtype, num_rows: int, has_bias: bool) -> None:
    x, weight, bias = torch.randn(num_rows, 300).to(dtype), _weight(140, 300, dtype), torch.randn(140).to(dtype)
    product = x.double() @ weight.double().T + (bias.double() if has_bias else 0)
    gate, up = product.chunk(2, dim=1)
    _assert_near(normed_gate_up(_plain(x), weight, bias if has_bias else None), gate / (1 + (-gate).exp()) * up)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_rows", NUM_ROWS)
@pytest.mark.parametrize("has_bias", [False, True])
def test_products_of_a_sums_norm_are_those_of_its_parts(dtype: torch.dtype, num_rows: int, has_bias: bool) -> None:
    x, residual, norm = torch.randn(num_rows, 90).to(dtype), torch.randn(num_rows, 300).to(dtype), torch.randn(300)
    weight, bias, norm = _weight(300, 90, dtype), torch.randn(300).to(dtype), norm.to(dtype)
    before = x.clone(), residual.clone()
    hidden = linear_add_norm(x, weight, bias if has_bias else None, _plain(residual), norm)
    _assert_near(hidden.total, x.double() @ weight.double().T + (bias.double() if has_bias else 0) + residual.double())
    normed, next_weight = _norm(hidden.total, norm), _weight(70, 300, dtype)
    _assert_near(normed_linear(hidden, next_weight), normed @ next_weight.double().T)
    gate, up = (normed @ next_weight.double().T).chunk(2, dim=1)
    _assert_near(normed_gate_up(hidden, next_weight), gate / (1 + (-gate).exp()) * up)
    for rows in ([num_rows - 1], []):
        of_rows = normed_linear(hidden.rows(torch.tensor(rows, dtype=torch.int64)), next_weight)
        _assert_near(of_rows, normed[rows] @ next_weight.double().T)
    assert torch.equal(x, before[0])
    assert torch.equal(residual, before[1])


CUTS = [
    StreamConfig(8, 16, 512, num_warps=4, num_stages=2),
    StreamConfig(16, 64, 64, num_warps=4, num_stages=2),
    StreamConfig(TILE_ROWS, 16, 32, num_warps=4, num_stages=2),
]


@pytest.mark.parametrize("config", CUTS)
@pytest.mark.parametrize("num_rows", [3, 8])
def test_every_cut_gives_the_same_product(config: StreamConfig, num_rows: int) -> None:
    x, weight = torch.randn(num_rows, 90), _weight(50, 90, torch.float32)
    expected = x.double() @ weight.double().T
    _assert_near(stream(x, weight, None, config), expected)
    gated = stream(x, weight, None, config, is_gated=True)
    gate, up = expected.chunk(2, dim=1)
    _assert_near(gated, gate / (1 + (-gate).exp()) * up)


@pytest.mark.parametrize("num_splits", [1, 2, 4])
@pytest.mark.parametrize("config", CUTS)
def test_programs_that_share_an_output_sum_all_its_columns(config: StreamConfig, num_splits: int) -> None:
    """Of 90 columns and 4 splits in pieces of 32 the last has none."""
    x, weight, norm = torch.randn(7, 90), _weight(50, 90, torch.float32), torch.randn(50)
    before = _plain(torch.randn(7, 50))
    expected = x.double() @ weight.double().T + before.total.double()
    for _ in range(2):  # the counters are as they were
        torch.use_deterministic_algorithms(True)  # which fills what is allocated with NaN
        hidden = stream_add_norm(x, weight, None, replace(config, num_splits=num_splits), before, norm)
        torch.use_deterministic_algorithms(False)
        _assert_near(hidden.total, expected)
        assert hidden.squares is not None
        _assert_near(hidden.squares.sum(1), expected.square().sum(1))
        _assert_near(complete_norm(hidden), _norm(hidden.total, norm))
        assert hidden.arrivals is before.arrivals
        assert before.arrivals is not None
        assert before.arrivals.eq(0).all()


def test_rows_behind_the_last_are_not_written() -> None:
    config = StreamConfig(TILE_ROWS, 16, 32, num_warps=4, num_stages=2, num_splits=2)
    wide = torch.full((TILE_ROWS, 40), float("nan"))
    wide[:5] = torch.randn(5, 40)
    weight, norm = _weight(20, 40, torch.float32), torch.randn(20)
    hidden = stream_add_norm(wide[:5], weight, None, config, _plain(torch.zeros(5, 20)), norm)
    _assert_near(hidden.total, wide[:5].double() @ weight.double().T)
    assert hidden.squares is not None
    assert hidden.squares.isfinite().all()


def test_the_library_multiplies_what_a_streamed_sum_left() -> None:
    """A small product of 17 rows, and a large one behind it."""
    x, weight, norm = torch.randn(17, 40), _weight(64, 40, torch.float32), torch.randn(64)
    config = StreamConfig(TILE_ROWS, 32, 32, num_warps=4, num_stages=2)
    hidden = stream_add_norm(x, weight, None, config, _plain(torch.zeros(17, 64)), norm)
    assert stream_config(17, 20, 64, torch.float32) is None
    next_weight = _weight(20, 64, torch.float32)
    expected = _norm(hidden.total, norm) @ next_weight.double().T
    _assert_near(normed_linear(hidden, next_weight), expected)
    gate, up = expected.chunk(2, dim=1)
    _assert_near(normed_gate_up(hidden, next_weight), gate / (1 + (-gate).exp()) * up)


def test_rows_may_be_views() -> None:
    wide = torch.full((4, 80), float("nan"))
    wide[:, 10:50] = torch.randn(4, 40)
    x, weight = wide[:, 10:50], _weight(10, 40, torch.float32)
    _assert_near(normed_linear(_plain(x), weight), x.double() @ weight.double().T)
    hidden = linear_add_norm(x, weight, None, _plain(torch.ones(4, 10)), torch.ones(10))
    _assert_near(hidden.total, x.double() @ weight.double().T + 1)


def test_a_row_gives_the_same_bits_beside_any_others() -> None:
    x, residual, norm = torch.randn(16, 200), torch.randn(16, 200), torch.randn(200)
    weight, next_weight = _weight(200, 200, torch.float32), _weight(40, 200, torch.float32)
    together = linear_add_norm(x, weight, None, _plain(residual), norm)
    for num_rows in (1, 7):
        alone = linear_add_norm(x[:num_rows], weight, None, _plain(residual[:num_rows]), norm)
        assert torch.equal(alone.total, together.total[:num_rows])
        for product in (normed_linear, normed_gate_up):
            assert torch.equal(product(alone, next_weight), product(together, next_weight)[:num_rows])


def test_nan_in_one_row_stays_in_that_row() -> None:
    x, residual, norm = torch.randn(3, 40), torch.randn(3, 40), torch.randn(40)
    weight, next_weight = _weight(40, 40, torch.float32), _weight(20, 40, torch.float32)
    clean = normed_linear(linear_add_norm(x, weight, None, _plain(residual), norm), next_weight)
    x[1, 7] = float("nan")
    out = normed_linear(linear_add_norm(x, weight, None, _plain(residual), norm), next_weight)
    assert out[1].isnan().all()
    assert torch.equal(out[[0, 2]], clean[[0, 2]])


def test_large_activations_do_not_overflow_half_precision() -> None:
    x, residual = torch.zeros(2, 64).half(), torch.full((2, 64), 30_000.0).half()
    norm, weight, next_weight = torch.full((64,), 4.0).half(), _weight(64, 64, torch.float16), torch.eye(64).half()
    hidden = linear_add_norm(x, weight, None, _plain(residual), norm)
    _assert_near(normed_linear(hidden, next_weight), _norm(residual, norm))


SHAPES = [(960, 576), (576, 1536), (1024, 2048), (4096, 1024), (49152, 64), (6144, 4096), (14336, 4096), (128256, 4096)]


@pytest.mark.parametrize(("num_outputs", "num_columns"), SHAPES)
def test_the_cut_holds_the_rows_and_keeps_multiprocessors_at_work(num_outputs: int, num_columns: int) -> None:
    for num_rows in range(1, TILE_ROWS + 2):
        config = stream_config(num_rows, num_outputs, num_columns, torch.bfloat16)
        is_small = 2 * num_outputs * num_columns <= MAX_SMALL_BYTES and num_outputs <= 32 * 132
        assert (config is not None) == (num_rows <= (TILE_ROWS if is_small else MAX_WARP_ROWS))
        if config:
            assert num_rows <= config.block_rows
            rounds = -(-num_outputs // config.block_outputs) / 132
            assert config.block_outputs == 16 or rounds / math.ceil(rounds) > (0.5 if num_rows > 8 else 0.95)


@pytest.mark.parametrize(("num_outputs", "num_columns"), SHAPES)
@pytest.mark.parametrize(("is_gated", "adds"), [(False, False), (True, False), (False, True)])
def test_the_order_of_a_products_sums_is_the_same_for_few_rows_and_for_many(
    num_outputs: int, num_columns: int, is_gated: bool, adds: bool
) -> None:
    def orders(num_rows: range) -> set[tuple[int, int, int]]:
        configs = [stream_config(rows, num_outputs, num_columns, torch.bfloat16, is_gated, adds) for rows in num_rows]
        return {(config.block_columns, config.num_warps, config.num_splits) for config in configs if config}

    is_small = stream_config(64, num_outputs, num_columns, torch.bfloat16, is_gated, adds) is not None
    for num_rows in (range(1, 9), range(9, 65)) if is_small else (range(1, 17),):
        assert len(orders(num_rows)) == 1


def test_no_more_programs_share_an_output_than_there_are_columns_and_multiprocessors_for() -> None:
    for num_outputs, num_columns, expected in (
        (1024, 3072, 4),
        (576, 576, 2),
        (2048, 2048, 2),
        (4096, 1024, 1),
        (64, 64, 1),
    ):
        config = stream_config(32, num_outputs, num_columns, torch.bfloat16, adds=True)
        assert config is not None
        assert config.num_splits == expected
