"""The kernel that streams a product's weights once, for up to 64 rows.

It reads the weights in pieces that stay in flight several deep, multiplies all rows at once, and carries what stands
behind a product: the gate, or the sum with the residual stream and its norm. A norm's factor is known only when all
programs are done, so that the next product applies it, to its finished sums. Every output is summed in a fixed order,
by one program or by some that share its columns: no result depends on timing, or on the rows beside it.

Shape legend: see `reference`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgrun_kernels.activation import silu
from sgrun_kernels.hidden import Hidden
from sgrun_kernels.overlap import await_previous, launch_options, release_next

TILE_ROWS = 64  # of a matrix instruction of four warps


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """How a product is cut into programs and pieces.

    With fewer than TILE_ROWS padded rows each warp multiplies its own part of a piece's columns; with as many, the
    warps share the rows of one tile.
    """

    block_rows: int  # the rows, padded
    block_outputs: int  # of one program; gated, of each half
    block_columns: int  # of a piece
    num_warps: int
    num_stages: int
    num_splits: int = 1  # programs that share the columns of an output


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
    x: Tensor, weight: Tensor, bias: Tensor | None, config: StreamConfig, hidden: Hidden, norm: Tensor
) -> Hidden:
    """`linear_add_norm` of up to block_rows rows, with `squares`: one part for each block of outputs."""
    total, normed = torch.empty(2, len(x), len(weight), dtype=x.dtype, device=x.device)
    num_blocks = triton.cdiv(len(weight), config.block_outputs)
    squares = torch.empty(len(x), num_blocks, dtype=torch.float32, device=x.device)
    _launch(
        x,
        weight,
        bias,
        config,
        total,
        residual=hidden.total,
        norm=norm,
        normed=normed,
        squares=squares,
        arrivals=hidden.arrivals,
    )
    return Hidden(total, normed, hidden.eps, squares, hidden.arrivals)


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
    arrivals: Tensor | None = None,
) -> None:
    (num_rows, num_outputs), num_splits = out.shape, config.num_splits
    num_parts = 1 if in_squares is None else in_squares.shape[1]
    partials = None
    if num_splits > 1:
        assert arrivals is not None
        partials = torch.empty(num_splits, num_rows, num_outputs, dtype=torch.float32, device=x.device)
    assert x.stride(1) == 1
    assert residual is None or residual.is_contiguous()
    assert weight.is_contiguous()
    _stream_kernel[(triton.cdiv(num_outputs, config.block_outputs), num_splits)](
        x,
        weight,
        bias,
        out,
        in_squares,
        residual,
        norm,
        normed,
        squares,
        partials,
        arrivals,
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
        IS_TILE=config.block_rows >= TILE_ROWS,
        BLOCK_ROWS=config.block_rows,
        BLOCK_OUTPUTS=config.block_outputs,
        BLOCK_COLUMNS=config.block_columns,
        BLOCK_PARTS=triton.next_power_of_2(num_parts),
        NUM_SPLITS=num_splits,
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
    partials,
    arrivals,
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
    IS_TILE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_PARTS: tl.constexpr,
    NUM_SPLITS: tl.constexpr,
    WARPS: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    """One program a block of outputs (gated, of the gate's and the up half's) and a split of the columns."""
    await_previous(OVERLAPS, RELEASES=False)
    program = tl.program_id(0)
    rows = tl.arange(0, BLOCK_ROWS)
    is_row = rows < num_rows
    outputs = program * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)
    is_output = outputs < num_outputs
    places = rows[None, :] * num_outputs + outputs[:, None]
    is_place = is_output[:, None] & is_row[None, :]
    row_squares, added, factors = None, None, None
    if HAS_SQUARES:
        parts = tl.arange(0, BLOCK_PARTS)
        is_part = (parts < num_parts)[:, None] & is_row[None, :]
        row_squares = tl.load(in_squares + rows[None, :] * num_parts + parts[:, None], mask=is_part, other=0.0)
    if ADDS and IS_TILE:  # under way before the loop; of few rows the weights come first
        added = tl.load(residual + places, mask=is_place, other=0.0)
        factors = tl.load(norm + outputs, mask=is_output, other=0.0)
    first, end = 0, num_columns
    if NUM_SPLITS > 1:
        split_columns = tl.cdiv(tl.cdiv(num_columns, NUM_SPLITS), BLOCK_COLUMNS) * BLOCK_COLUMNS
        first = tl.program_id(1) * split_columns
        end = tl.minimum(num_columns, first + split_columns)
    if IS_TILE:
        result, up_result = _sums_of_tile(
            x, weight, rows, is_row, x_stride, program, first, end, num_columns, num_outputs,
            IS_GATED, BLOCK_ROWS, BLOCK_OUTPUTS, BLOCK_COLUMNS,
        )  # fmt: skip
    else:
        result, up_result = _sums_by_warps(
            x, weight, rows, is_row, x_stride, outputs, is_output, first, end, num_columns, num_outputs,
            IS_GATED, BLOCK_ROWS, BLOCK_OUTPUTS, BLOCK_COLUMNS, WARPS,
        )  # fmt: skip
    release_next(OVERLAPS)
    if NUM_SPLITS > 1:
        plane = num_rows * num_outputs
        tl.store(partials + tl.program_id(1) * plane + places, result, mask=is_place)
        tl.debug_barrier()  # all of this program's sums are written before it counts as arrived
        if tl.atomic_add(arrivals + program, 1, sem="acq_rel", scope="gpu") == NUM_SPLITS - 1:
            tl.store(arrivals + program, 0)
            result = tl.load(partials + places, mask=is_place, other=0.0)
            for other in tl.static_range(1, NUM_SPLITS):
                result += tl.load(partials + other * plane + places, mask=is_place, other=0.0)
            _finish(
                result, up_result, bias, out, row_squares, residual, added, norm, factors, normed, squares,
                rows, is_row, outputs, is_output, places, is_place, num_columns, num_outputs, eps,
                HAS_BIAS, IS_GATED, HAS_SQUARES, ADDS, IS_TILE,
            )  # fmt: skip
    else:
        _finish(
            result, up_result, bias, out, row_squares, residual, added, norm, factors, normed, squares,
            rows, is_row, outputs, is_output, places, is_place, num_columns, num_outputs, eps,
            HAS_BIAS, IS_GATED, HAS_SQUARES, ADDS, IS_TILE,
        )  # fmt: skip


@triton.jit
def _sums_by_warps(
    x, weight, rows, is_row, x_stride, outputs, is_output, first, end, num_columns, num_outputs,
    IS_GATED: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_OUTPUTS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr,
    WARPS: tl.constexpr,
):  # fmt: skip
    """[BLOCK_OUTPUTS, BLOCK_ROWS] of the product and, gated, of its up half; each warp sums columns of its own."""
    weight_rows = weight + outputs.to(tl.int64) * num_columns
    up_rows = weight_rows + num_outputs.to(tl.int64) * num_columns
    PER_WARP: tl.constexpr = BLOCK_COLUMNS // WARPS
    warp_columns = tl.arange(0, WARPS)[:, None] * PER_WARP + tl.arange(0, PER_WARP)[None, :]
    acc = tl.zeros((WARPS, BLOCK_OUTPUTS, BLOCK_ROWS), tl.float32)
    up_acc = tl.zeros((WARPS, BLOCK_OUTPUTS, BLOCK_ROWS), tl.float32)
    for start in range(first, end, BLOCK_COLUMNS):
        columns = start + warp_columns
        is_column = columns < end
        is_weight = is_column[:, None, :] & is_output[None, :, None]
        piece = tl.load(weight_rows[None, :, None] + columns[:, None, :], mask=is_weight, other=0.0)
        inside = is_column[:, :, None] & is_row[None, None, :]
        value = tl.load(x + rows[None, None, :] * x_stride + columns[:, :, None], mask=inside, other=0.0)
        acc = tl.dot(piece, value, acc, input_precision="ieee")
        if IS_GATED:
            up_piece = tl.load(up_rows[None, :, None] + columns[:, None, :], mask=is_weight, other=0.0)
            up_acc = tl.dot(up_piece, value, up_acc, input_precision="ieee")
    return tl.sum(acc, axis=0), tl.sum(up_acc, axis=0)


@triton.jit
def _sums_of_tile(
    x, weight, rows, is_row, x_stride, program, first, end, num_columns, num_outputs,
    IS_GATED: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_OUTPUTS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr,
):  # fmt: skip
    """The same in one product: gate and up stand beside each other, so that a thread holds both."""
    HALVES: tl.constexpr = 2 if IS_GATED else 1
    index = tl.arange(0, HALVES * BLOCK_OUTPUTS)
    outputs = program * BLOCK_OUTPUTS + index // HALVES
    is_output = outputs < num_outputs
    weight_rows = weight + (outputs + index % HALVES * num_outputs).to(tl.int64) * num_columns
    acc = tl.zeros((BLOCK_ROWS, HALVES * BLOCK_OUTPUTS), tl.float32)
    for start in range(first, end, BLOCK_COLUMNS):
        columns = start + tl.arange(0, BLOCK_COLUMNS)
        is_column = columns < end
        is_weight = is_output[:, None] & is_column[None, :]
        piece = tl.load(weight_rows[:, None] + columns[None, :], mask=is_weight, other=0.0)
        inside = is_row[:, None] & is_column[None, :]
        value = tl.load(x + rows[:, None] * x_stride + columns[None, :], mask=inside, other=0.0)
        acc = tl.dot(value, piece.T, acc, input_precision="ieee")
    if IS_GATED:
        result, up_result = tl.split(acc.reshape(BLOCK_ROWS, BLOCK_OUTPUTS, 2))
    else:
        result, up_result = acc, acc
    return result.T, up_result.T


@triton.jit
def _finish(
    result, up_result, bias, out, row_squares, residual, added, norm, factors, normed, squares,
    rows, is_row, outputs, is_output, places, is_place, num_columns, num_outputs, eps,
    HAS_BIAS: tl.constexpr, IS_GATED: tl.constexpr, HAS_SQUARES: tl.constexpr, ADDS: tl.constexpr,
    IS_TILE: tl.constexpr,
):  # fmt: skip
    """What stands behind a block's finished sums."""
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
    rounded = result.to(out.dtype.element_ty)
    if ADDS:
        if not IS_TILE:
            added = tl.load(residual + places, mask=is_place, other=0.0)
            factors = tl.load(norm + outputs, mask=is_output, other=0.0)
        rounded = (rounded.to(tl.float32) + added.to(tl.float32)).to(out.dtype.element_ty)
        total = rounded.to(tl.float32)
        scaled = total * factors.to(tl.float32)[:, None]
        tl.store(normed + places, scaled.to(normed.dtype.element_ty), mask=is_place)
        block_squares = tl.sum(tl.where(is_output[:, None], total * total, 0.0), axis=0)
        tl.store(squares + rows * tl.num_programs(0) + tl.program_id(0), block_squares, mask=is_row)
    tl.store(out + places, rounded, mask=is_place)
