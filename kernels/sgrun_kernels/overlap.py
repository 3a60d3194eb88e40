"""Lets a kernel start while the one before it ends (programmatic dependent launch, CUDA C++ programming guide).

A kernel launched with `launch_options()` may run before what it reads is written, up to `await_previous`, which each of
them calls before it reads or writes anything but weights.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

IS_ON = False  # off until it is measured on a GPU; Triton's interpreter has no such launches


def launch_options() -> dict[str, bool]:
    """What the launch of each kernel here takes besides its own arguments."""
    return {"OVERLAPS": True, "launch_pdl": True} if IS_ON else {"OVERLAPS": False}


@triton.jit
def await_previous(OVERLAPS: tl.constexpr):
    """Waits for all earlier kernels' writes, then lets the next kernel start."""
    if OVERLAPS:
        gdc_wait()
        gdc_launch_dependents()


@triton.jit
def prefetch(pointers):
    """Brings the 128-byte lines under `pointers` into the L2."""
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [pointers], dtype=tl.int32, is_pure=False, pack=1
    )
