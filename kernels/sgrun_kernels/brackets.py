"""Between which logits top_k, top_p and min_p cut a row off, told by samples, in Triton.

The first token of each group of 32 is a sample. They tell two logits between which the cut lies (Floyd and Rivest 1975,
"Expected time bounds for selection", with masses in place of ranks where top_p cuts), so that only the tokens in
between have to be looked at closely; see `histograms.py`, which also notices where the samples were wrong.

Samples are counted in bins by their keys (see `key_of`): 64 bins for each octave from 2^-9 to 2^7, one for what is
closer to zero, and all that is farther away in the first and the last. So their masses are known within bounds, which
is all that is needed, and no program has to look at the samples themselves.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sgrun_kernels.cuts import ALL, BINS, floor_of
from sgrun_kernels.effects import float_at
from sgrun_kernels.fields import TEMPERATURE, TOP_K, TOP_P
from sgrun_kernels.groups import list_groups
from sgrun_kernels.masses import LOG2_E, key_of, value_of
from sgrun_kernels.strips import GROUP, finite

_DEVIATIONS = tl.constexpr(4.0)  # of an estimate, on either side of it
_FEWEST = tl.constexpr(16)  # samples above a bracket's lower end: the tokens below it are many, and none is heavy
_HALF = tl.constexpr(BINS.value // 2)  # bins of positive logits
_KEY_BITS = tl.constexpr(17)  # of keys that share a bin: six of the mantissa's 23 tell bins apart
_ZONE = tl.constexpr((127 - 9) << 6)  # the first bin's number without those bits, of 2^-9


@triton.jit
def sample_bin(x):
    """int32 number of the bin of logits x."""
    number = key_of(x) >> _KEY_BITS
    number -= tl.maximum(tl.minimum(number, _ZONE), -1 - _ZONE)
    return tl.maximum(tl.minimum(number, _HALF - 1), -_HALF) + _HALF


@triton.jit
def _lower_end(number):
    """The lowest logit of bins, float32; the first and the one behind the last go on beyond it."""
    number -= _HALF
    return value_of(tl.where(number > 0, number + _ZONE, number - 1 - _ZONE) << _KEY_BITS)


@triton.jit
def find_bracket(
    stats,
    group_maxes,
    groups,
    num_groups,
    counts,
    bracket,
    num_ties,
    row,
    vocab_size,
    num_bands,
    BANDS: tl.constexpr,
    MAX_GROUPS: tl.constexpr,
):
    """Writes (low, high, best, low) to `bracket`: the cut is most likely at least `low`, and below `high`, or is `low`
    if they are the same; `best` is the highest logit. The fourth is to be the cut. NaN if there is nothing to cut.
    `counts` [2048]: of samples by bin; left empty. If few groups have tokens from `low` on, lists them.

    Returns low, high and how many groups are listed."""
    number = tl.arange(0, BINS)
    count = tl.load(counts + number)
    tl.store(counts + number, tl.zeros((BINS,), tl.int32))
    band = tl.arange(0, BANDS)
    highest = tl.load(stats + band, mask=band < num_bands, other=float("-inf"))
    mass = tl.load(stats + num_bands + band, mask=band < num_bands, other=0.0)
    best, scale = tl.max(highest, 0), LOG2_E / float_at(row + TEMPERATURE)
    total = tl.sum(mass * tl.exp2((highest - finite(best)) * scale), 0)
    low = tl.where((total > 0) & (best > float("-inf")), floor_of(best, scale, row, vocab_size), float("nan"))
    high, num = low, tl.full((), 0, tl.int32)
    if low == low:
        top_k, top_p = tl.load(row + TOP_K), float_at(row + TOP_P)
        is_searched = (top_k < vocab_size) | (top_p < 1)
        lowest, num = list_groups(
            group_maxes,
            groups,
            low,
            best,
            scale,
            total,
            top_k,
            top_p,
            is_searched,
            vocab_size,
            num_bands,
            BANDS,
            MAX_GROUPS,
        )
        if num > 0:
            low, high = lowest, tl.where(is_searched, float("inf"), lowest)
        elif is_searched:
            low, high = _search_samples(count, low, best, scale, total, top_k, top_p, vocab_size)
    tl.store(bracket, low)
    tl.store(bracket + 1, high)
    tl.store(bracket + 2, best)
    tl.store(bracket + 3, low)
    tl.store(num_ties, ALL)
    tl.store(num_groups, num)
    return low, high, num


@triton.jit
def _search_samples(count, floor, best, scale, total, top_k, top_p, vocab_size):
    """Two ends of bins: the highest which is low enough, and the lowest that is high enough. Enough is `_DEVIATIONS`
    beyond what the samples say; with top_k only the lower end is looked for.

    The variance of a sum over samples is at most the sum times the greatest of them.
    """
    number = tl.arange(0, BINS)
    low, high = tl.minimum(_lower_end(number), best), tl.minimum(_lower_end(number + 1), best)
    least = tl.where(number > 0, tl.exp2((low - best) * scale), 0.0)
    most = tl.exp2((tl.where(number < BINS - 1, high, best) - best) * scale)
    num_samples = count.to(tl.float32)
    has_top_k = top_k < vocab_size
    limit = (1 - top_p) * total / GROUP
    expected = top_k.to(tl.float32) / GROUP
    num_needed = tl.where(has_top_k, expected + (_DEVIATIONS + 1) * (tl.sqrt(expected) + 1), _FEWEST)
    num_above = tl.sum(count, 0) - tl.cumsum(count, 0) + count
    at_least = tl.cumsum(num_samples * least, 0) - num_samples * least
    at_most = tl.cumsum(num_samples * most, 0) - num_samples * most
    spread = _DEVIATIONS * tl.sqrt(tl.maximum(at_most, 0.0) * least)
    is_low = (num_above >= num_needed) & (has_top_k | (at_most + spread <= limit))
    is_high = (has_top_k == 0) & (at_least - spread >= limit) & (low > floor) & (low < best)
    last = tl.max(tl.where(is_low, number, 0), 0)
    first = tl.min(tl.where(is_high & (number > last), number, BINS), 0)
    return (
        tl.where(last > 0, tl.maximum(_lower_end(last), floor), floor),
        tl.where(first < BINS, _lower_end(first), float("inf")),
    )
