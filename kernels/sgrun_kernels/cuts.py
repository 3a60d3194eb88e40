"""Rows that top_k, top_p and min_p cut off, in Triton."""

from __future__ import annotations

import triton
import triton.language as tl

from sgrun_kernels import workspace
from sgrun_kernels.effects import float_at
from sgrun_kernels.fields import MIN_P, TOP_K, TOP_P

ALL = tl.constexpr(2**30)  # more ties than there are
BINS = tl.constexpr(workspace.BINS)


@triton.jit
def has_cut(row, vocab_size):
    return (tl.load(row + TOP_K) < vocab_size) | (float_at(row + TOP_P) < 1) | (float_at(row + MIN_P) > 0)


@triton.jit
def is_last(arrivals, num_programs):
    """Whether all others of `num_programs` have come here before; what they wrote may then be read."""
    tl.debug_barrier()
    last = tl.atomic_add(arrivals, 1) == num_programs - 1
    if last:
        tl.store(arrivals, 0)
    return last


@triton.jit
def is_plain(bracket):
    """Whether a row has nothing to cut."""
    low = tl.load(bracket)
    return low != low


@triton.jit
def least_likely(best, scale, row):
    """The logit of a token that is min_p times as likely as the likeliest; -inf where min_p is off."""
    min_p = float_at(row + MIN_P)
    return tl.where(min_p > 0, best + tl.log2(tl.where(min_p > 0, min_p, 1.0)) / scale, float("-inf"))


@triton.jit
def floor_of(best, scale, row, vocab_size):
    """The logit from which on tokens count: one below has no mass, or is less likely than min_p allows. Not so with
    top_k, since what it keeps is the whole of which top_p is a part."""
    has_top_k = tl.load(row + TOP_K) < vocab_size
    least = tl.where(has_top_k, float("-inf"), least_likely(best, scale, row))
    return tl.maximum(best - 41.0 / scale, least)
