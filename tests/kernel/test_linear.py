"""Products on the GPU against float64: streamed ones of few rows, and what stands before and after them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sgrun_kernels.linear import (
    MAX_STREAM_ROWS,
    StreamConfig,
    add_norm_gate_up,
    add_norm_linear,
    linear,
    stream,
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


def _normed(x: Tensor, residual: Tensor, norm: Tensor) -> Tensor:
    total = (x + residual).double()
    return total / (total.square().mean(-1, keepdim=True) + EPS).sqrt() * norm.double()


def _assert_near(actual: Tensor, expected: Tensor) -> None:
    tolerance = TOLERANCE[actual.dtype]
    torch.testing.assert_close(actual.double(), expected, rtol=tolerance, atol=tolerance)


def _weight(num_outputs: int, num_columns: int, dtype: torch.dtype) -> Tensor:
    return (torch.randn(num_outputs, num_columns) / num_columns**0.5).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_rows", [0, *NUM_ROWS])
@pytest.mark.parametrize("has_bias", [False, True])
def test_linear_multiplies_by_the_transpose(dtype: torch.dtype, num_rows: int, has_bias: bool) -> None:
    x, weight, bias = torch.randn(num_rows, 300).to(dtype), _weight(70, 300, dtype), torch.randn(70).to(dtype)
    expected = x.double() @ weight.double().T + (bias.double() if has_bias else 0)
    _assert_near(linear(x, weight, bias if has_bias else None), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_rows", NUM_ROWS)
@pytest.mark.parametrize("has_bias", [False, True])
def test_add_norm_linear_multiplies_the_norm_of_the_sum(dtype: torch.dtype, num_rows: int, has_bias: bool) -> None:
    x, residual, norm = torch.randn(num_rows, 300).to(dtype), torch.randn(num_rows, 300).to(dtype), torch.randn(300)
    weight, bias = _weight(70, 300, dtype), torch.randn(70).to(dtype)
    before = x.clone(), residual.clone()
    out, total = add_norm_linear(x, residual, norm.to(dtype), EPS, weight, bias if has_bias else None)
    expected = _normed(x, residual, norm.to(dtype)) @ weight.double().T + (bias.double() if has_bias else 0)
    _assert_near(out, expected)
    assert torch.equal(total, x + residual)
    assert torch.equal(x, before[0])
    assert torch.equal(residual, before[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_rows", NUM_ROWS)
@pytest.mark.parametrize("has_bias", [False, True])
def test_add_norm_gate_up_gates_the_second_half(dtype: torch.dtype, num_rows: int, has_bias: bool) -> None:
    x, residual, norm = torch.randn(num_rows, 300).to(dtype), torch.randn(num_rows, 300).to(dtype), torch.randn(300)
    weight, bias = _weight(140, 300, dtype), torch.randn(140).to(dtype)
    out, total = add_norm_gate_up(x, residual, norm.to(dtype), EPS, weight, bias if has_bias else None)
    product = _normed(x, residual, norm.to(dtype)) @ weight.double().T + (bias.double() if has_bias else 0)
    gate, up = product.chunk(2, dim=1)
    _assert_near(out, gate / (1 + (-gate).exp()) * up)
    assert torch.equal(total, x + residual)


@pytest.mark.parametrize(("block_rows", "block_outputs", "block_columns"), [(8, 16, 512), (16, 64, 64)])
def test_every_cut_gives_the_same_product(block_rows: int, block_outputs: int, block_columns: int) -> None:
    x, weight = torch.randn(3, 90), _weight(50, 90, torch.float32)
    config = StreamConfig(block_rows, block_outputs, block_columns, num_warps=4, num_stages=2)
    expected = x.double() @ weight.double().T
    _assert_near(stream(x, weight, None, config), expected)
    gated = stream(x, weight, None, config, is_gated=True)
    gate, up = expected.chunk(2, dim=1)
    _assert_near(gated, gate / (1 + (-gate).exp()) * up)


def test_rows_may_be_views() -> None:
    wide = torch.full((4, 80), float("nan"))
    wide[:, 10:50] = torch.randn(4, 40)
    x, norm, weight = wide[:, 10:50], torch.randn(40), _weight(10, 40, torch.float32)
    _assert_near(linear(x, weight), x.double() @ weight.double().T)
    out, total = add_norm_linear(x, x, norm, EPS, weight)
    _assert_near(out, _normed(x, x, norm) @ weight.double().T)
    assert torch.equal(total, 2 * x)


def test_a_row_gives_the_same_bits_beside_any_others() -> None:
    dtype = torch.float32
    x, residual, norm, weight = torch.randn(16, 200), torch.randn(16, 200), torch.randn(200), _weight(40, 200, dtype)
    together, _ = add_norm_gate_up(x, residual, norm, EPS, weight)
    for num_rows in (1, 7):
        alone, _ = add_norm_gate_up(x[:num_rows], residual[:num_rows], norm, EPS, weight)
        assert torch.equal(alone, together[:num_rows])


def test_nan_in_one_row_stays_in_that_row() -> None:
    x, residual, norm, weight = torch.randn(3, 40), torch.randn(3, 40), torch.randn(40), _weight(20, 40, torch.float32)
    clean, _ = add_norm_linear(x, residual, norm, EPS, weight)
    x[1, 7] = float("nan")
    out, _ = add_norm_linear(x, residual, norm, EPS, weight)
    assert out[1].isnan().all()
    assert torch.equal(out[[0, 2]], clean[[0, 2]])


def test_large_activations_do_not_overflow_half_precision() -> None:
    x, residual = torch.full((2, 64), 20_000.0).half(), torch.full((2, 64), 10_000.0).half()
    norm, weight = torch.full((64,), 4.0).half(), _weight(20, 64, torch.float16)
    out, _ = add_norm_linear(x, residual, norm, EPS, weight)
    _assert_near(out, _normed(x, residual, norm) @ weight.double().T)


@pytest.mark.parametrize("num_outputs", [1024, 6144, 14336, 28672, 128256])
def test_the_cut_leaves_no_multiprocessor_without_a_program_for_wider_ones(num_outputs: int) -> None:
    for num_rows in range(1, MAX_STREAM_ROWS + 1):
        config = stream_config(num_rows, num_outputs, torch.bfloat16, is_gated=False)
        assert num_rows <= config.block_rows
        assert config.block_outputs == 16 or num_outputs >= 132 * config.block_outputs
