"""RMS norm of a sum, and of a stream whose norm lacks its factor, on a GPU. Shape legend: see `reference`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgrun_kernels.hidden import Hidden
from sgrun_kernels.overlap import await_previous, launch_options


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(rms_norm(x + residual), x + residual), both [T, N] contiguous; one read and one write of each."""
    num_rows, num_columns = x.shape
    assert x.stride(1) == residual.stride(1) == 1, "columns are read in 16-byte pieces"
    normed, total = torch.empty(2, num_rows, num_columns, dtype=x.dtype, device=x.device)
    if num_rows:
        block = triton.next_power_of_2(num_columns)
        _add_rms_norm_kernel[(num_rows,)](
            x,
            residual,
            weight,
            normed,
            total,
            num_columns,
            eps,
            x.stride(0),
            residual.stride(0),
            BLOCK=block,
            num_warps=min(max(block // 512, 1), 8),
            **launch_options(),
        )
    return normed, total


@triton.jit
def _add_rms_norm_kernel(
    x,
    residual,
    weight,
    normed,
    total,
    num_columns,
    eps,
    x_stride,
    residual_stride,
    BLOCK: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    """One program a row."""
    await_previous(OVERLAPS)
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < num_columns
    value = tl.load(x + row * x_stride + columns, mask=inside, other=0.0).to(tl.float32)
    value += tl.load(residual + row * residual_stride + columns, mask=inside, other=0.0).to(tl.float32)
    rounded = value.to(total.dtype.element_ty)
    tl.store(total + row * num_columns + columns, rounded, mask=inside)
    value = rounded.to(tl.float32)
    rstd = tl.rsqrt(tl.sum(value * value, axis=0) / num_columns + eps)
    scaled = value * rstd * tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(normed + row * num_columns + columns, scaled.to(normed.dtype.element_ty), mask=inside)


def complete_norm(hidden: Hidden) -> Tensor:
    """`hidden.normed` [T, N] with its factor, for a product that does not apply it."""
    if hidden.squares is None:
        return hidden.normed
    num_rows, num_columns = hidden.normed.shape
    num_parts = hidden.squares.shape[1]
    out = torch.empty_like(hidden.normed)
    if num_rows:
        _complete_norm_kernel[(num_rows,)](
            hidden.normed,
            hidden.squares,
            out,
            num_columns,
            num_parts,
            hidden.eps,
            BLOCK=triton.next_power_of_2(num_columns),
            BLOCK_PARTS=triton.next_power_of_2(num_parts),
            **launch_options(),
        )
    return out


@triton.jit
def _complete_norm_kernel(
    normed,
    squares,
    out,
    num_columns,
    num_parts,
    eps,
    BLOCK: tl.constexpr,
    BLOCK_PARTS: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    """One program a row."""
    await_previous(OVERLAPS)
    row = tl.program_id(0).to(tl.int64)
    columns, parts = tl.arange(0, BLOCK), tl.arange(0, BLOCK_PARTS)
    inside = columns < num_columns
    value = tl.load(normed + row * num_columns + columns, mask=inside, other=0.0).to(tl.float32)
    row_squares = tl.load(squares + row * num_parts + parts, mask=parts < num_parts, other=0.0)
    value *= tl.rsqrt(tl.sum(row_squares, axis=0) / num_columns + eps)
    tl.store(out + row * num_columns + columns, value.to(out.dtype.element_ty), mask=inside)
