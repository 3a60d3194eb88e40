"""Matrix products, on a GPU: few rows by streaming the weights once, more by the library.

A step of few rows takes as long as its weights take to be read. One kernel reads them in pieces that stay in flight
several deep, multiplies all rows at once, and applies the gate behind a product. The sum and norm in front are a kernel
of their own: done by each of a product's programs they would read more than the weights of those programs.
Every output is summed by one program, its warps each over their own columns, in a fixed order: no result depends on
timing, or on the rows beside it.

Shape legend: see `reference`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from sgrun_kernels.activation import silu, silu_mul
from sgrun_kernels.norms import add_rms_norm
from sgrun_kernels.overlap import await_previous, launch_options, release_next

MAX_STREAM_ROWS = 16


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """How a product of few rows is cut into programs and pieces."""

    block_rows: int  # the rows, padded
    block_outputs: int  # of one program; gated, of each half
    block_columns: int  # of a piece
    num_warps: int  # each multiplies its own part of a piece's columns
    num_stages: int


def stream_config(num_rows: int, num_outputs: int, dtype: torch.dtype, is_gated: bool) -> StreamConfig:
    """Pieces of 8 or 16 KiB of weights, the columns split among four warps, so that none is read from shared memory
    twice and no warp waits long for its own sums.

    32 outputs a program, so that the rows are read less often, unless that leaves a multiprocessor of an H100's or
    H200's 132 without one. All cuts add the same columns in the same order: a row gives the same bits among any others.
    """
    if dtype == torch.float32:
        return StreamConfig(block_rows=16, block_outputs=16, block_columns=64, num_warps=4, num_stages=3)
    return StreamConfig(
        block_rows=8 if num_rows <= 8 else 16,
        block_outputs=32 if num_outputs >= 32 * 132 and not is_gated else 16,
        block_columns=256,
        num_warps=4,
        num_stages=4,
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias: x [T, K], weight [N, K] contiguous, bias [N]; returns [T, N]."""
    if not _is_streamed(x):
        return F.linear(x, weight, bias)
    return stream(x, weight, bias, stream_config(len(x), len(weight), x.dtype, is_gated=False))


def add_norm_linear(
    x: Tensor, residual: Tensor, norm: Tensor, eps: float, weight: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(linear(rms_norm(x + residual)), x + residual): x and residual [T, H], norm [H]; [T, N] and [T, H]."""
    hidden, total = add_rms_norm(x, residual, norm, eps)
    return linear(hidden, weight, bias), total


def add_norm_gate_up(
    x: Tensor, residual: Tensor, norm: Tensor, eps: float, weight: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(silu_mul(linear(rms_norm(x + residual))), x + residual): weight [2 * I, H]; returns [T, I] and [T, H]."""
    hidden, total = add_rms_norm(x, residual, norm, eps)
    if not _is_streamed(x):
        return silu_mul(linear(hidden, weight, bias)), total
    config = stream_config(len(x), len(weight) // 2, x.dtype, is_gated=True)
    return stream(hidden, weight, bias, config, is_gated=True), total


def _is_streamed(x: Tensor) -> bool:
    return 0 < len(x) <= MAX_STREAM_ROWS


def stream(x: Tensor, weight: Tensor, bias: Tensor | None, config: StreamConfig, is_gated: bool = False) -> Tensor:
    """The product [T, N] or, gated, [T, N / 2] of up to block_rows rows."""
    num_rows, num_columns = x.shape
    num_outputs = len(weight) // 2 if is_gated else len(weight)
    assert x.stride(1) == 1
    assert weight.is_contiguous()
    out = torch.empty(num_rows, num_outputs, dtype=x.dtype, device=x.device)
    _stream_kernel[(triton.cdiv(num_outputs, config.block_outputs),)](
        x,
        weight,
        bias,
        out,
        num_rows,
        num_columns,
        num_outputs,
        x.stride(0),
        HAS_BIAS=bias is not None,
        IS_GATED=is_gated,
        BLOCK_ROWS=config.block_rows,
        BLOCK_OUTPUTS=config.block_outputs,
        BLOCK_COLUMNS=config.block_columns,
        PARTS=config.num_warps,
        num_warps=config.num_warps,
        num_stages=config.num_stages,
        **launch_options(),
    )
    return out


@triton.jit
def _stream_kernel(
    x,
    weight,
    bias,
    out,
    num_rows,
    num_columns,
    num_outputs,
    x_stride,
    HAS_BIAS: tl.constexpr,
    IS_GATED: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    PARTS: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    """One program a block of outputs; gated, of the gate's and the up half's."""
    rows = tl.arange(0, BLOCK_ROWS)
    is_row = rows < num_rows
    outputs = tl.program_id(0) * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)
    is_output = outputs < num_outputs
    weight_rows = weight + outputs.to(tl.int64) * num_columns
    up_rows = weight_rows + num_outputs.to(tl.int64) * num_columns
    await_previous(OVERLAPS, RELEASES=False)
    parts = tl.arange(0, PARTS)[:, None] * (BLOCK_COLUMNS // PARTS) + tl.arange(0, BLOCK_COLUMNS // PARTS)[None, :]
    acc = tl.zeros((PARTS, BLOCK_OUTPUTS, BLOCK_ROWS), tl.float32)
    up_acc = tl.zeros((PARTS, BLOCK_OUTPUTS, BLOCK_ROWS), tl.float32)
    for start in range(0, num_columns, BLOCK_COLUMNS):
        columns = start + parts  # [PARTS, BLOCK_COLUMNS / PARTS]
        is_column = columns < num_columns
        is_weight = is_column[:, None, :] & is_output[None, :, None]
        piece = tl.load(weight_rows[None, :, None] + columns[:, None, :], mask=is_weight, other=0.0)
        inside = is_column[:, :, None] & is_row[None, None, :]
        value = tl.load(x + rows[None, None, :] * x_stride + columns[:, :, None], mask=inside, other=0.0)
        acc = tl.dot(piece, value, acc, input_precision="ieee")
        if IS_GATED:
            up_piece = tl.load(up_rows[None, :, None] + columns[:, None, :], mask=is_weight, other=0.0)
            up_acc = tl.dot(up_piece, value, up_acc, input_precision="ieee")
    release_next(OVERLAPS)
    result = tl.sum(acc, axis=0)  # [BLOCK_OUTPUTS, BLOCK_ROWS]
    up_result = tl.sum(up_acc, axis=0)
    if HAS_BIAS:
        result += tl.load(bias + outputs, mask=is_output, other=0.0).to(tl.float32)[:, None]
        if IS_GATED:
            up_result += tl.load(bias + num_outputs + outputs, mask=is_output, other=0.0).to(tl.float32)[:, None]
    if IS_GATED:
        result = silu(result) * up_result
    out_places = out + rows[None, :] * num_outputs + outputs[:, None]
    tl.store(out_places, result.to(out.dtype.element_ty), mask=is_output[:, None] & is_row[None, :])
