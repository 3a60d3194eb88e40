"""The tokens' embeddings and their norm, on a GPU. Shape legend: see `reference`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgrun_kernels.hidden import Hidden
from sgrun_kernels.overlap import await_previous, launch_options


def embed_norm(token_ids: Tensor, weight: Tensor, norm: Tensor, eps: float) -> Hidden:
    """Rows `token_ids` [T] of `weight` [V, H], and their norm by `norm` [H]; its `arrivals` serve one step's layers."""
    num_tokens, num_columns = len(token_ids), weight.shape[1]
    assert weight.is_contiguous()
    total, normed = torch.empty(2, num_tokens, num_columns, dtype=weight.dtype, device=weight.device)
    arrivals = torch.empty(num_columns, dtype=torch.int32, device=weight.device)
    if num_tokens:
        block = triton.next_power_of_2(num_columns)
        _embed_norm_kernel[(num_tokens,)](
            token_ids,
            weight,
            norm,
            total,
            normed,
            arrivals,
            num_columns,
            eps,
            BLOCK=block,
            num_warps=min(max(block // 512, 1), 8),
            **launch_options(),
        )
    return Hidden(total, normed, eps, arrivals=arrivals)


@triton.jit
def _embed_norm_kernel(
    token_ids, weight, norm, total, normed, arrivals, num_columns, eps, BLOCK: tl.constexpr, OVERLAPS: tl.constexpr
):
    """One program a token."""
    await_previous(OVERLAPS)
    token = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < num_columns
    tl.store(arrivals + columns, 0, mask=inside & (token == 0))
    source = weight + tl.load(token_ids + token).to(tl.int64) * num_columns + columns
    embedded = tl.load(source, mask=inside, other=0.0)
    places = token * num_columns + columns
    tl.store(total + places, embedded, mask=inside)
    value = embedded.to(tl.float32)
    factor = tl.rsqrt(tl.sum(value * value, axis=0) / num_columns + eps)
    scaled = value * factor * tl.load(norm + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(normed + places, scaled.to(normed.dtype.element_ty), mask=inside)
