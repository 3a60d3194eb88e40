"""Matrix products, on a GPU: few rows by streaming the weights once, more by the library.

A step of few rows takes as long as its weights take to be read. One kernel reads them in pieces that stay in flight
several deep, multiplies all rows at once, and carries what stands behind a product: the gate, or the sum with the
residual stream and its norm. A norm's factor is known only when all programs are done, so that the next product applies
it, to its finished sums. Every output is summed by one program, its warps each over their own columns, in a fixed
order: no result depends on timing, or on the rows beside it.

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
from sgrun_kernels.hidden import Hidden
from sgrun_kernels.norms import add_rms_norm
from sgrun_kernels.overlap import await_previous, launch_options, release_next

MAX_STREAM_ROWS = 16
NUM_MULTIPROCESSORS = 132  # of an H100 or H200


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """How a product of few rows is cut into programs and pieces."""

    block_rows: int  # the rows, padded
    block_outputs: int  # of one program; gated, of each half
    block_columns: int  # of a piece
    num_warps: int  # each multiplies its own part of a piece's columns
    num_stages: int


def stream_config(num_rows: int, num_outputs: int, dtype: torch.dtype, is_gated: bool) -> StreamConfig:
    """Pieces of 16 or 32 KiB of weights, the columns split among four warps, so that none is read from shared memory
    twice and no warp waits long for its own sums.

    32 outputs a program, so that the rows are read less often, where that keeps no fewer multiprocessors at work. What
    the rows are has no part in the order of the sums: a row gives the same bits among any others.
    """
    if dtype == torch.float32:
        return StreamConfig(block_rows=16, block_outputs=16, block_columns=64, num_warps=4, num_stages=3)
    block_rows = 8 if num_rows <= 8 else 16
    if is_gated:
        return StreamConfig(block_rows, block_outputs=16, block_columns=256, num_warps=4, num_stages=5)
    if num_outputs >= 4 * 32 * NUM_MULTIPROCESSORS:  # many rounds of programs: small ones, several at a time
        return StreamConfig(block_rows, block_outputs=32, block_columns=256, num_warps=4, num_stages=4)
    block_outputs = 32 if _share_at_work(num_outputs, 32) >= _share_at_work(num_outputs, 16) else 16
    return StreamConfig(block_rows, block_outputs, block_columns=512, num_warps=4, num_stages=4)


def _share_at_work(num_outputs: int, block_outputs: int) -> float:
    """Of the multiprocessors, in all rounds of programs of a product."""
    num_programs = -(-num_outputs // block_outputs)
    num_rounds = -(-num_programs // NUM_MULTIPROCESSORS)
    return num_programs / (num_rounds * NUM_MULTIPROCESSORS)


def linear_add_norm(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor, norm: Tensor, eps: float
) -> Hidden:
    """x @ weight.T + bias + residual, and its norm: x [T, K], weight [H, K] contiguous, bias [H], residual [T, H], norm
    [H]."""
    if _is_streamed(x) and x.dtype != torch.float16:  # which has no room for what lacks the norm's factor
        return stream_add_norm(x, weight, bias, _config(x, weight), residual, norm, eps)
    delta = stream(x, weight, bias, _config(x, weight)) if _is_streamed(x) else F.linear(x, weight, bias)
    normed, total = add_rms_norm(delta, residual, norm, eps)
    return Hidden(total, normed, eps)


def normed_linear(hidden: Hidden, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """hidden.normed @ weight.T + bias: weight [N, H] contiguous, bias [N]; returns [T, N]."""
    if not _is_streamed(hidden.normed):
        return F.linear(hidden.normed, weight, bias)
    return stream(hidden.normed, weight, bias, _config(hidden.normed, weight), hidden=hidden)


def normed_gate_up(hidden: Hidden, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """silu_mul of that product: weight [2 * I, H]; returns [T, I]."""
    if not _is_streamed(hidden.normed):
        return silu_mul(F.linear(hidden.normed, weight, bias))
    config = stream_config(len(hidden.normed), len(weight) // 2, weight.dtype, is_gated=True)
    return stream(hidden.normed, weight, bias, config, hidden=hidden, is_gated=True)


def _is_streamed(x: Tensor) -> bool:
    return 0 < len(x) <= MAX_STREAM_ROWS


def _config(x: Tensor, weight: Tensor) -> StreamConfig:
    return stream_config(len(x), len(weight), x.dtype, is_gated=False)


def stream(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    config: StreamConfig,
    hidden: Hidden | None = None,
    is_gated: bool = False,
) -> Tensor:
    """The product [T, N] or, gated, [T, N / 2] of up to block_rows rows x [T, K], which may be `hidden.normed`."""
    num_outputs = len(weight) // 2 if is_gated else len(weight)
    out = torch.empty(len(x), num_outputs, dtype=x.dtype, device=x.device)
    squares, eps = (None, 0.0) if hidden is None else (hidden.squares, hidden.eps)
    _launch(x, weight, bias, config, out, is_gated=is_gated, in_squares=squares, eps=eps)
    return out


def stream_add_norm(
    x: Tensor, weight: Tensor, bias: Tensor | None, config: StreamConfig, residual: Tensor, norm: Tensor, eps: float
) -> Hidden:
    """`linear_add_norm` of up to block_rows rows, with `squares`: one part for each program."""
    total, normed = torch.empty(2, len(x), len(weight), dtype=x.dtype, device=x.device)
    num_programs = triton.cdiv(len(weight), config.block_outputs)
    squares = torch.empty(len(x), num_programs, dtype=torch.float32, device=x.device)
    _launch(x, weight, bias, config, total, residual=residual, norm=norm, normed=normed, squares=squares)
    return Hidden(total, normed, eps, squares)


def _launch(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    config: StreamConfig,
    out: Tensor,
    is_gated: bool = False,
    in_squares: Tensor | None = None,
    eps: float = 0.0,
    residual: Tensor | None = None,
    norm: Tensor | None = None,
    normed: Tensor | None = None,
    squares: Tensor | None = None,
) -> None:
    num_rows, num_outputs = out.shape
    num_parts = 1 if in_squares is None else in_squares.shape[1]
    assert x.stride(1) == 1
    assert residual is None or residual.is_contiguous()
    assert weight.is_contiguous()
    _stream_kernel[(triton.cdiv(num_outputs, config.block_outputs),)](
        x,
        weight,
        bias,
        out,
        in_squares,
        residual,
        norm,
        normed,
        squares,
        num_rows,
        x.shape[1],
        num_outputs,
        num_parts,
        eps,
        x.stride(0),
        HAS_BIAS=bias is not None,
        IS_GATED=is_gated,
        HAS_SQUARES=in_squares is not None,
        ADDS=residual is not None,
        BLOCK_ROWS=config.block_rows,
        BLOCK_OUTPUTS=config.block_outputs,
        BLOCK_COLUMNS=config.block_columns,
        BLOCK_PARTS=triton.next_power_of_2(num_parts),
        WARPS=config.num_warps,
        num_warps=config.num_warps,
        num_stages=config.num_stages,
        **launch_options(),
    )


@triton.jit(do_not_specialize=["num_rows"])
def _stream_kernel(
    x,
    weight,
    bias,
    out,
    in_squares,
    residual,
    norm,
    normed,
    squares,
    num_rows,
    num_columns,
    num_outputs,
    num_parts,
    eps,
    x_stride,
    HAS_BIAS: tl.constexpr,
    IS_GATED: tl.constexpr,
    HAS_SQUARES: tl.constexpr,
    ADDS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_PARTS: tl.constexpr,
    WARPS: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    """One program a block of outputs; gated, of the gate's and the up half's."""
    await_previous(OVERLAPS, RELEASES=False)
    program = tl.program_id(0)
    rows = tl.arange(0, BLOCK_ROWS)
    is_row = rows < num_rows
    outputs = program * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)
    is_output = outputs < num_outputs
    weight_rows = weight + outputs.to(tl.int64) * num_columns
    up_rows = weight_rows + num_outputs.to(tl.int64) * num_columns
    if HAS_SQUARES:
        parts = tl.arange(0, BLOCK_PARTS)
        is_part = (parts < num_parts)[:, None] & is_row[None, :]
        row_squares = tl.load(in_squares + rows[None, :] * num_parts + parts[:, None], mask=is_part, other=0.0)
    PER_WARP: tl.constexpr = BLOCK_COLUMNS // WARPS
    warp_columns = tl.arange(0, WARPS)[:, None] * PER_WARP + tl.arange(0, PER_WARP)[None, :]
    acc = tl.zeros((WARPS, BLOCK_OUTPUTS, BLOCK_ROWS), tl.float32)
    up_acc = tl.zeros((WARPS, BLOCK_OUTPUTS, BLOCK_ROWS), tl.float32)
    for start in range(0, num_columns, BLOCK_COLUMNS):
        columns = start + warp_columns
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
    if HAS_SQUARES:
        factor = tl.rsqrt(tl.sum(row_squares, axis=0) / num_columns + eps)[None, :]
        result *= factor
        up_result *= factor
    if HAS_BIAS:
        result += tl.load(bias + outputs, mask=is_output, other=0.0).to(tl.float32)[:, None]
        if IS_GATED:
            up_result += tl.load(bias + num_outputs + outputs, mask=is_output, other=0.0).to(tl.float32)[:, None]
    if IS_GATED:
        result = silu(result) * up_result
    result = result.to(out.dtype.element_ty)
    places = rows[None, :] * num_outputs + outputs[:, None]
    is_place = is_output[:, None] & is_row[None, :]
    if ADDS:
        added = tl.load(residual + places, mask=is_place, other=0.0).to(tl.float32)
        result = (result.to(tl.float32) + added).to(out.dtype.element_ty)
        total = result.to(tl.float32)
        factors = tl.load(norm + outputs, mask=is_output, other=0.0).to(tl.float32)
        tl.store(normed + places, (total * factors[:, None]).to(normed.dtype.element_ty), mask=is_place)
        block_squares = tl.sum(tl.where(is_output[:, None], total * total, 0.0), axis=0)
        tl.store(squares + rows * tl.num_programs(0) + program, block_squares, mask=is_row)
    tl.store(out + places, result, mask=is_place)
