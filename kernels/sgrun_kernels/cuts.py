"""Between which logits top_k, top_p and min_p cut a row off, told by samples, in Triton.

One token of each line of 32 is a sample. They tell two logits between which the cut lies (Floyd and Rivest 1975,
"Expected time bounds for selection", with masses in place of ranks where top_p cuts), so that only the tokens in
between have to be looked at closely; see `histograms.py`, which also notices where the samples were wrong.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sgrun_kernels.effects import float_at
from sgrun_kernels.fields import MIN_P, TEMPERATURE, TOP_K, TOP_P
from sgrun_kernels.masses import LOG2_E
from sgrun_kernels.strips import LINE, LINES, finite

ALL = tl.constexpr(2**30)  # more ties than there are
_DEVIATIONS = tl.constexpr(4.0)  # of an estimate, on either side of it
_FEWEST = tl.constexpr(16)  # samples above a bracket's lower end: the tokens below it are many, and none is heavy
_HALVINGS = tl.constexpr(12)


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


@triton.jit
def find_bracket(stats, samples, bracket, num_ties, row, vocab_size, num_strips, STRIPS: tl.constexpr):
    """Writes (low, high, best, low) to `bracket`: the cut is most likely at least `low`, and below `high`, or is `low`
    if they are the same; `best` is the highest logit. The fourth is to be the cut. NaN if there is nothing to cut."""
    strip = tl.arange(0, STRIPS)
    highest = tl.load(stats + strip, mask=strip < num_strips, other=float("-inf"))
    mass = tl.load(stats + num_strips + strip, mask=strip < num_strips, other=0.0)
    best, scale = tl.max(highest, 0), LOG2_E / float_at(row + TEMPERATURE)
    total = tl.sum(mass * tl.exp2((highest - finite(best)) * scale), 0)
    low = tl.where((total > 0) & (best > float("-inf")), floor_of(best, scale, row, vocab_size), float("nan"))
    high = low
    if low == low:
        top_k, top_p = tl.load(row + TOP_K), float_at(row + TOP_P)
        if (top_k < vocab_size) | (top_p < 1):
            low, high = _search_samples(samples, low, best, scale, total, top_k, top_p, vocab_size, num_strips, STRIPS)
    tl.store(bracket, low)
    tl.store(bracket + 1, high)
    tl.store(bracket + 2, best)
    tl.store(bracket + 3, low)
    tl.store(num_ties, ALL)


@triton.jit
def _search_samples(samples, low, best, scale, total, top_k, top_p, vocab_size, num_strips, STRIPS: tl.constexpr):
    """Halves two ranges in turn: that of the highest logit which is low enough, and of the lowest that is high enough.
    Enough is `_DEVIATIONS` beyond what the samples say; with top_k only the lower end is looked for.

    The variance of a sum over samples is at most the sum times the greatest of them.
    """
    line = tl.arange(0, STRIPS * LINES)
    x = tl.load(samples + line, mask=line < num_strips * LINES, other=float("-inf"))
    mass = tl.exp2((x - best) * scale)
    has_top_k = top_k < vocab_size
    limit = (1 - top_p) * total / LINE
    expected = top_k.to(tl.float32) / LINE
    num_needed = tl.where(has_top_k, expected + (_DEVIATIONS + 1) * (tl.sqrt(expected) + 1), _FEWEST)
    lowest = tl.min(tl.where(x > float("-inf"), x, best), 0)
    too_high, too_low, high = best, tl.maximum(low, lowest), tl.full((), float("inf"), tl.float32)
    below = too_low
    for i in range(_HALVINGS):
        middle = tl.where((i % 2 == 0) | has_top_k, below + too_high, too_low + tl.minimum(high, best)) * 0.5
        tail = tl.sum(tl.where(x < middle, mass, 0.0), 0)
        num_above = tl.sum((x >= middle).to(tl.int32), 0)
        spread = _DEVIATIONS * tl.sqrt(tail * tl.exp2((middle - best) * scale))
        is_low = (num_above >= num_needed) & (has_top_k | (tail + spread <= limit))
        is_high = (has_top_k == 0) & (tail - spread >= limit)
        low = tl.where(is_low, tl.maximum(low, middle), low)
        below = tl.maximum(below, low)
        too_high = tl.where(is_low, too_high, tl.minimum(too_high, middle))
        high = tl.where(is_high, tl.minimum(high, middle), high)
        too_low = tl.where(is_high, too_low, tl.maximum(too_low, middle))
    return low, high
