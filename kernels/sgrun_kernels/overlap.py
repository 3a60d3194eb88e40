"""Lets a kernel start while the one before it ends (programmatic dependent launch, CUDA C++ programming guide).

A kernel launched with `launch_options()` may run before what it reads is written, up to `await_previous`, which each of
them calls before it reads or writes anything but weights. The next kernel starts once all programs of this one have
released it or ended.
"""

from __future__ import annotations

import functools

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


def launch_options() -> dict[str, bool]:
    """What the launch of each kernel here takes besides its own arguments."""
    return {"OVERLAPS": True, "launch_pdl": True} if _can_overlap() else {"OVERLAPS": False}


@functools.cache
def _can_overlap() -> bool:
    """Not under Triton's interpreter, nor before compute capability 9."""
    return not triton.knobs.runtime.interpret and triton.runtime.driver.active.get_current_target().arch >= 90


@triton.jit
def await_previous(OVERLAPS: tl.constexpr, RELEASES: tl.constexpr = True):
    """Waits for all earlier kernels' writes; before that it releases the next kernel.

    A kernel whose programs fill the device does so later, by `release_next`: those of the next one would crowd on the
    multiprocessors that are free first.
    """
    if OVERLAPS:
        if RELEASES:
            gdc_launch_dependents()
        gdc_wait()


@triton.jit
def release_next(OVERLAPS: tl.constexpr):
    """Lets the next kernel start."""
    if OVERLAPS:
        gdc_launch_dependents()
