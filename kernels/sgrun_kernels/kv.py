"""Copies within the caches, on a GPU. Shape legend: see `reference`."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from sgrun_kernels.overlap import await_previous, launch_options


def copy_kv(k_cache: Tensor, v_cache: Tensor, src_slots: Tensor, dst_slots: Tensor) -> None:
    """Copies slots within the caches: src_slots, dst_slots [C] int32 or int64, no slot in both, dst_slots unique."""
    assert k_cache.is_contiguous()
    assert v_cache.is_contiguous()
    place_size = k_cache.shape[2] * k_cache.shape[3]
    if len(src_slots):
        _copy_kernel[(len(src_slots),)](
            k_cache,
            v_cache,
            src_slots,
            dst_slots,
            place_size,
            BLOCK=triton.next_power_of_2(place_size),
            **launch_options(),
        )


@triton.jit
def _copy_kernel(k_cache, v_cache, src_slots, dst_slots, place_size, BLOCK: tl.constexpr, OVERLAPS: tl.constexpr):
    """One program a slot: its keys and values of all heads."""
    await_previous(OVERLAPS)
    index = tl.program_id(0)
    src = tl.load(src_slots + index).to(tl.int64) * place_size
    dst = tl.load(dst_slots + index).to(tl.int64) * place_size
    columns = tl.arange(0, BLOCK)
    inside = columns < place_size
    tl.store(k_cache + dst + columns, tl.load(k_cache + src + columns, mask=inside), mask=inside)
    tl.store(v_cache + dst + columns, tl.load(v_cache + src + columns, mask=inside), mask=inside)
