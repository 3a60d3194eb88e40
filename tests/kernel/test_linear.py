"""Products on the GPU against float64: streamed ones of few rows, and what stands before and after them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sgrun_kernels.hidden import Hidden
from sgrun_kernels.linear import (
    MAX_STREAM_ROWS,
    StreamConfig,
    linear_add_norm,
    normed_gate_up,
    normed_linear,
    stream,
    stream_add_norm,
    stream_config,
)

# Triton's interpreter multiplies the bits of bfloat16 as integers.
DTYPES = [torch.float32, torch.float16] + ([torch.bfloat16] if torch.cuda.is_available() else [])
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 6e-2, torch.float16: 1e-2}
EPS = 1e-5
NUM_ROWS = [1, 5, MAX_STREAM_ROWS, MAX_STREAM_ROWS + 1]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _norm(total: Tensor, norm: Tensor) -> Tensor:
    total = total.double()
    return total / (total.square().mean(-1, keepdim=True) + EPS).sqrt() * norm.double()


def _plain(normed: Tensor) -> Hidden:
    return Hidden(normed, normed, EPS)


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
    hidden = linear_add_norm(x, weight, bias if has_bias else None, residual, norm, EPS)
    _assert_near(hidden.total, x.double() @ weight.double().T + (bias.double() if has_bias else 0) + residual.double())
    normed, next_weight = _norm(hidden.total, norm), _weight(70, 300, dtype)
    _assert_near(normed_linear(hidden, next_weight), normed @ next_weight.double().T)
    gate, up = (normed @ next_weight.double().T).chunk(2, dim=1)
    _assert_near(normed_gate_up(hidden, next_weight), gate / (1 + (-gate).exp()) * up)
    last = hidden.rows(torch.tensor([num_rows - 1]))
    _assert_near(normed_linear(last, next_weight), normed[-1:] @ next_weight.double().T)
    assert torch.equal(x, before[0])
    assert torch.equal(residual, before[1])


@pytest.mark.parametrize(("block_rows", "block_outputs", "block_columns"), [(8, 16, 512), (16, 64, 64)])
def test_every_cut_gives_the_same_product(block_rows: int, block_outputs: int, block_columns: int) -> None:
    x, weight = torch.randn(3, 90), _weight(50, 90, torch.float32)
    config = StreamConfig(block_rows, block_outputs, block_columns, num_warps=4, num_stages=2)
    expected = x.double() @ weight.double().T
    _assert_near(stream(x, weight, None, config), expected)
    gated = stream(x, weight, None, config, is_gated=True)
    gate, up = expected.chunk(2, dim=1)
    _assert_near(gated, gate / (1 + (-gate).exp()) * up)
    hidden = stream_add_norm(x, weight, None, config, torch.ones(3, 50), torch.ones(50), EPS)
    _assert_near(hidden.total, expected + 1)
    assert hidden.squares is not None
    _assert_near(hidden.squares.sum(1), (expected + 1).square().sum(1))


def test_rows_may_be_views() -> None:
    wide = torch.full((4, 80), float("nan"))
    wide[:, 10:50] = torch.randn(4, 40)
    x, weight = wide[:, 10:50], _weight(10, 40, torch.float32)
    _assert_near(normed_linear(_plain(x), weight), x.double() @ weight.double().T)
    hidden = linear_add_norm(x, weight, None, torch.ones(4, 10), torch.ones(10), EPS)
    _assert_near(hidden.total, x.double() @ weight.double().T + 1)


def test_a_row_gives_the_same_bits_beside_any_others() -> None:
    x, residual, norm = torch.randn(16, 200), torch.randn(16, 200), torch.randn(200)
    weight, next_weight = _weight(200, 200, torch.float32), _weight(40, 200, torch.float32)
    together = linear_add_norm(x, weight, None, residual, norm, EPS)
    for num_rows in (1, 7):
        alone = linear_add_norm(x[:num_rows], weight, None, residual[:num_rows], norm, EPS)
        assert torch.equal(alone.total, together.total[:num_rows])
        for product in (normed_linear, normed_gate_up):
            assert torch.equal(product(alone, next_weight), product(together, next_weight)[:num_rows])


def test_nan_in_one_row_stays_in_that_row() -> None:
    x, residual, norm = torch.randn(3, 40), torch.randn(3, 40), torch.randn(40)
    weight, next_weight = _weight(40, 40, torch.float32), _weight(20, 40, torch.float32)
    clean = normed_linear(linear_add_norm(x, weight, None, residual, norm, EPS), next_weight)
    x[1, 7] = float("nan")
    out = normed_linear(linear_add_norm(x, weight, None, residual, norm, EPS), next_weight)
    assert out[1].isnan().all()
    assert torch.equal(out[[0, 2]], clean[[0, 2]])


def test_large_activations_do_not_overflow_half_precision() -> None:
    x, residual = torch.zeros(2, 64).half(), torch.full((2, 64), 30_000.0).half()
    norm, weight, next_weight = torch.full((64,), 4.0).half(), _weight(64, 64, torch.float16), torch.eye(64).half()
    hidden = linear_add_norm(x, weight, None, residual, norm, EPS)
    _assert_near(normed_linear(hidden, next_weight), _norm(residual, norm))


@pytest.mark.parametrize("num_outputs", [576, 1024, 4096, 6144, 14336, 28672, 128256])
def test_the_cut_holds_the_rows_and_keeps_multiprocessors_at_work(num_outputs: int) -> None:
    for num_rows in range(1, MAX_STREAM_ROWS + 1):
        config = stream_config(num_rows, num_outputs, torch.bfloat16, is_gated=False)
        assert num_rows <= config.block_rows
        rounds = -(-num_outputs // config.block_outputs) / 132
        assert config.block_outputs == 16 or rounds / math.ceil(rounds) > 0.95


def test_the_order_of_a_products_sums_is_the_same_for_any_rows() -> None:
    for is_gated in (False, True):
        configs = {stream_config(rows, 4096, torch.bfloat16, is_gated) for rows in range(1, MAX_STREAM_ROWS + 1)}
        assert len({(config.block_columns, config.num_warps) for config in configs}) == 1
