"""Matrix products, on a GPU: which are streamed, how they are cut, and which are left to the library.

A step of few rows takes as long as its weights take to be read, so `streaming` reads them once and has what stands
beside a product in the same launch. Its programs read the rows again and again: large weights of many rows go to the
library, with the gate and the norm as kernels of their own.

Shape legend: see `reference`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sgrun_kernels.activation import silu_mul
from sgrun_kernels.hidden import Hidden
from sgrun_kernels.norms import add_rms_norm, complete_norm
from sgrun_kernels.streaming import TILE_ROWS, StreamConfig, stream, stream_add_norm

MAX_WARP_ROWS = 16
MAX_SMALL_BYTES = 32 * 2**20  # of weights: of larger ones the library's product takes longer than launches beside it
NUM_MULTIPROCESSORS = 132  # of an H100 or H200


def linear_add_norm(x: Tensor, weight: Tensor, bias: Tensor | None, hidden: Hidden, norm: Tensor) -> Hidden:
    """x @ weight.T + bias + hidden.total, and its norm: x [T, K], weight [H, K] contiguous, bias [H], norm [H]."""
    adds = x.dtype != torch.float16  # which has no room for what lacks the norm's factor
    config = stream_config(len(x), len(weight), weight.shape[1], x.dtype, adds=adds)
    if config and adds:
        return stream_add_norm(x, weight, bias, config, hidden, norm)
    delta = stream(x, weight, bias, config) if config else F.linear(x, weight, bias)
    normed, total = add_rms_norm(delta, hidden.total, norm, hidden.eps)
    return Hidden(total, normed, hidden.eps, arrivals=hidden.arrivals)


def normed_linear(hidden: Hidden, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """hidden.normed @ weight.T + bias: weight [N, H] contiguous, bias [N]; returns [T, N]."""
    config = stream_config(len(hidden.normed), len(weight), weight.shape[1], weight.dtype)
    if config:
        return stream(hidden.normed, weight, bias, config, hidden=hidden)
    return F.linear(complete_norm(hidden), weight, bias)


def normed_gate_up(hidden: Hidden, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """silu_mul of that product: weight [2 * I, H]; returns [T, I]."""
    config = stream_config(len(hidden.normed), len(weight) // 2, weight.shape[1], weight.dtype, is_gated=True)
    if config:
        return stream(hidden.normed, weight, bias, config, hidden=hidden, is_gated=True)
    return silu_mul(F.linear(complete_norm(hidden), weight, bias))


def stream_config(
    num_rows: int,
    num_outputs: int,
    num_columns: int,
    dtype: torch.dtype,
    is_gated: bool = False,
    adds: bool = False,
) -> StreamConfig | None:
    """How the product is streamed; None where the library is faster. `num_outputs`: gated, of each half.

    What the rows are has no part in the order of the sums: a row gives the same bits beside any others, as long as they
    are few or many.
    """
    if num_rows == 0:
        return None
    if dtype == torch.float32:
        is_few = num_rows <= MAX_WARP_ROWS
        return StreamConfig(16, block_outputs=16, block_columns=64, num_warps=4, num_stages=3) if is_few else None
    weight_bytes = num_outputs * (1 + is_gated) * num_columns * dtype.itemsize
    is_small = weight_bytes <= MAX_SMALL_BYTES and num_outputs <= 32 * NUM_MULTIPROCESSORS  # one round of programs
    if is_small and 8 < num_rows <= TILE_ROWS:
        return _tile_config(num_outputs, num_columns, is_gated, adds)
    return _warp_config(num_rows, num_outputs, is_gated) if num_rows <= MAX_WARP_ROWS else None


def _warp_config(num_rows: int, num_outputs: int, is_gated: bool) -> StreamConfig:
    """Pieces of 16 or 32 KiB of weights, the columns split among four warps, so that none is read from shared memory
    twice and no warp waits long for its own sums.

    32 outputs a program, so that the rows are read less often, where that keeps no fewer multiprocessors at work.
    """
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


def _tile_config(num_outputs: int, num_columns: int, is_gated: bool, adds: bool) -> StreamConfig:
    """32 outputs a program where that keeps half of the multiprocessors at work. A sum with the residual stream has few
    outputs and many columns: up to four programs share them.

    So many stages that two programs hardly fit on one multiprocessor: the next product's would crowd there.
    """
    if adds:
        num_blocks = -(-num_outputs // 32)
        num_splits = max(min(4, NUM_MULTIPROCESSORS // num_blocks, num_columns // 256), 1)
        return StreamConfig(TILE_ROWS, 32, block_columns=128, num_warps=4, num_stages=6, num_splits=num_splits)
    block_outputs = 32 if num_outputs >= 32 * NUM_MULTIPROCESSORS // 2 else 16
    num_stages = 4 if is_gated else 6
    return StreamConfig(TILE_ROWS, block_outputs, block_columns=128, num_warps=4, num_stages=num_stages)
