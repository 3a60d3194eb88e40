"""The rows of the tokens' embeddings, on a GPU. Shape legend: see `reference`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgrun_kernels.overlap import await_previous, launch_options

BLOCK = 1024


def embed(token_ids: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """(rows `token_ids` [T] of `weight` [V, H], zeros), both [T, H]; in one launch."""
    num_tokens, num_columns = len(token_ids), weight.shape[1]
    assert weight.is_contiguous()
    embedded, zeros = torch.empty(2, num_tokens, num_columns, dtype=weight.dtype, device=weight.device)
    if num_tokens:
        _embed_kernel[(num_tokens, triton.cdiv(num_columns, BLOCK))](
            token_ids, weight, embedded, zeros, num_columns, BLOCK=BLOCK, **launch_options()
        )
    return embedded, zeros


@triton.jit
def _embed_kernel(token_ids, weight, embedded, zeros, num_columns, BLOCK: tl.constexpr, OVERLAPS: tl.constexpr):
    """One program a token and block of columns."""
    await_previous(OVERLAPS)
    token = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < num_columns
    source = weight + tl.load(token_ids + token).to(tl.int64) * num_columns + columns
    places = token * num_columns + columns
    tl.store(embedded + places, tl.load(source, mask=inside), mask=inside)
    tl.store(zeros + places, tl.zeros((BLOCK,), zeros.dtype.element_ty), mask=inside)
