"""The gate of the feed-forward layer, on a GPU. Shape legend: see `reference`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgrun_kernels.overlap import await_previous, launch_options

BLOCK = 1024


def silu_mul(gate_up: Tensor) -> Tensor:
    """silu(gate) * up, where contiguous gate_up [T, 2 * I] holds gate, then up; returns [T, I]."""
    assert gate_up.is_contiguous()
    num_rows, inner = gate_up.shape[0], gate_up.shape[1] // 2
    out = torch.empty(num_rows, inner, dtype=gate_up.dtype, device=gate_up.device)
    if num_rows:
        _silu_mul_kernel[(num_rows, triton.cdiv(inner, BLOCK))](gate_up, out, inner, BLOCK=BLOCK, **launch_options())
    return out


@triton.jit
def _silu_mul_kernel(gate_up, out, inner, BLOCK: tl.constexpr, OVERLAPS: tl.constexpr):
    """One program a row and block of columns."""
    await_previous(OVERLAPS)
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < inner
    gate = tl.load(gate_up + row * 2 * inner + columns, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * inner + inner + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * inner + columns, (silu(gate) * up).to(out.dtype.element_ty), mask=inside)


@triton.jit
def silu(x):
    """x / (1 + exp(-x)) of float32."""
    return x / (1.0 + tl.exp(-x))
