"""Where a row is cut off, exactly: histograms of its tokens by their logits, in Triton.

A key is a logit's place in the order of float32. Tokens between the two ends of a range of keys are counted in bins of
2^shift keys; keys of logits close to zero, of which there are as many as of all others, share one. Where bins hold one
logit each, as with logits of 16 bits the first mostly do, their masses follow; else they are summed beside. The bin in
which the cut lies is the next range, until bins hold one logit each. Who filled the first bins for a row goes on alone,
and starts again from the whole row where the cut is not in the first range.

Three tuples go from function to function: `logits_of` (pointer, effects, highest logit, scale, how many strips there
are, listed groups), `bins_of` (pointers to counts, to masses and to the mass above the first range) and `bins`
(`bins_between`).
"""

from __future__ import annotations

import triton
import triton.language as tl

from sgrun_kernels.cuts import ALL, BINS, floor_of, least_likely
from sgrun_kernels.effects import effective, float_at
from sgrun_kernels.fields import TOP_K, TOP_P
from sgrun_kernels.groups import AT_ONCE, load_groups
from sgrun_kernels.masses import UNIT, key_of, mass_of, value_of
from sgrun_kernels.strips import load_tile

_SEVEN_OCTAVES = tl.constexpr(7 << 23)  # of float32, in keys
_REFILL_TILE = tl.constexpr(16)


@triton.jit
def range_of(bracket, zero_bits):
    """(lowest, highest key) of a bracket, int64; the lowest is rounded down to a multiple of 2^zero_bits."""
    low, high, best = tl.load(bracket), tl.load(bracket + 1), tl.load(bracket + 2)
    highest = tl.minimum(key_of(high).to(tl.int64) - 1, key_of(best).to(tl.int64))
    return _aligned(key_of(low), zero_bits), highest


@triton.jit
def _aligned(key, zero_bits):
    return (key >> zero_bits).to(tl.int64) << zero_bits


@triton.jit
def _zone_of(low, high, zero_bits):
    """Keys up to this far from zero share a bin: seven octaves below the greatest, if there are not bins for all."""
    greatest = tl.maximum(tl.maximum(low, high), -1 - tl.minimum(low, high))
    zone = (tl.maximum(greatest - _SEVEN_OCTAVES, 0) >> zero_bits) << zero_bits
    return tl.where(high - low >> zero_bits >= BINS, zone, tl.zeros_like(zone))


@triton.jit
def _squeezed(key, zone):
    """Keys without those from -1 - zone to zone, which become 0."""
    return key - tl.maximum(tl.minimum(key, zone), -1 - zone)


@triton.jit
def bins_between(low, high, zero_bits):
    """The bins of a range: (lowest and highest key, zone, squeezed key of the first bin, shift, whether each holds one
    logit)."""
    zone = _zone_of(low, high, zero_bits)
    first = (_squeezed(low, zone) >> zero_bits) << zero_bits
    shift = zero_bits
    while _squeezed(high, zone) - first >> shift >= BINS:
        shift += 1
    return low, high, zone, first, shift, (shift <= zero_bits) & (zone == 0)


@triton.jit
def fill(x, best, scale, bins_of, bins, by_count, by_mass):
    """Adds logits to their bins."""
    counts, masses, _ = bins_of
    low, high, zone, first_bin, shift, is_fine = bins
    key = key_of(x)
    is_inside = (key >= low.to(tl.int32)) & (key <= high.to(tl.int32))
    number = (_squeezed(key, zone.to(tl.int32)) - first_bin.to(tl.int32)).to(tl.uint32, bitcast=True)
    number = (number >> shift.to(tl.uint32)).to(tl.int32)
    if by_count | is_fine:
        tl.atomic_add(counts + number, 1, mask=is_inside, sem="relaxed")
    if by_mass & (is_fine == 0):
        tl.atomic_add(masses + number, mass_of(x, best, scale), mask=is_inside, sem="relaxed")


@triton.jit
def _weights(bins_of, bins, best, scale, zero_bits, by_mass):
    """Numbers of tokens, or masses, of the bins [2048] int64."""
    number = tl.arange(0, BINS)
    _, _, _, first_bin, shift, is_fine = bins
    if by_mass & (is_fine == 0):
        weight = tl.load(bins_of[1] + number)
    else:
        weight = tl.load(bins_of[0] + number).to(tl.int64)
        if by_mass:
            key = first_bin + (number.to(tl.int64) << shift)
            x = _value_of(tl.where(key < 0, key - 1, key), zero_bits)
            weight *= mass_of(tl.minimum(x, best), best, scale)
    return weight


@triton.jit
def find_cut(logits_of, bins_of, bracket, num_ties, total, zero_bits, row, vocab_size):
    """Writes the logit of the cut to the bracket, and how many of the tokens with just that logit are kept, the first
    ones; leaves the bins empty. `total`: the mass of all tokens, float64.

    Looks for the highest key from which on tokens reach `needed`, in number for top_k, then in mass for top_p. `above`
    is what lies above the range of the bins; bins up to `skipped` do not count. With both, what top_k keeps is weighed
    before it is known how much of it is needed.
    """
    best, scale = logits_of[2], logits_of[3]
    top_k, top_p = tl.load(row + TOP_K), float_at(row + TOP_P)
    first_low, first_high = range_of(bracket, zero_bits)
    floor = floor_of(best, scale, row, vocab_size)
    lowest, highest = _aligned(key_of(floor), zero_bits), key_of(best).to(tl.int64)
    number = tl.arange(0, BINS)
    cut, ties = floor, tl.full((), ALL, tl.int64)
    low, high, by_mass = first_low, first_high, top_k >= vocab_size
    needed, above = tl.where(by_mass, _share(top_p, total * UNIT), top_k.to(tl.int64)), tl.load(bins_of[2])
    skipped, is_first, is_done = tl.full((), -1, tl.int32), low == low, low != low
    while is_done == 0:
        bins = bins_between(low, high, zero_bits)
        _, _, zone, first_bin, shift, _ = bins
        if is_first == 0:
            _refill(logits_of, bins_of, bins, by_mass, low >= first_low)
        weight = tl.where(number > skipped, _weights(bins_of, bins, best, scale, zero_bits, by_mass), 0)
        over, each = tl.sum(weight, 0), mass_of(cut, best, scale)
        is_short = low != low
        if needed < 0:
            needed = _share(top_p, (over + tl.where(ties < ALL, ties * each, 0)).to(tl.float64))
            is_short = needed > over
        reached = above + tl.sum(weight, 0) - tl.cumsum(weight, 0) + weight
        chosen = tl.max(tl.where(reached >= needed, number, -1), 0)
        inside = tl.sum(tl.where(number == chosen, weight, 0), 0)
        is_found = low != low
        if is_short:  # the cut of top_k is that of top_p too
            enough = (needed - over + each - 1) // tl.maximum(each, 1)
            ties, is_done = tl.where(each > 0, tl.minimum(ties, enough), ties), low == low
        elif (above < needed) & (chosen >= 0):
            over = above + tl.sum(tl.where(number > chosen, weight, 0), 0)
            first = first_bin + (chosen.to(tl.int64) << shift)
            last = first + (tl.full((), 1, tl.int64) << shift) - 1
            is_found = (shift <= zero_bits) & ((first != 0) | (zone == 0))
            is_positive = (first > 0) | ((first == 0) & (zone == 0))  # no token has the key -1, of the other zero
            low = tl.maximum(low, tl.where(is_positive, first + zone, first - zone - 1))
            high = tl.minimum(high, tl.where(last >= 0, last + zone, last - zone - 1))
            above = over
        else:
            is_found = (low <= lowest) & (high >= highest)
            inside = tl.zeros_like(inside)
            low, high, above = lowest, highest, tl.zeros_like(above)
        was_first, is_first, skipped = is_first, low != low, tl.full((), -1, tl.int32)
        if is_found:
            is_done = by_mass | (top_p >= 1)
            if inside > 0:
                cut = _value_of(low, zero_bits)
                each = mass_of(cut, best, scale)
                ties = tl.where(by_mass, (needed - over + each - 1) // tl.maximum(each, 1), needed - over)
            if is_done == 0:
                above, needed, by_mass = tl.zeros_like(above), tl.full((), -1, tl.int64), low == low
                is_first = was_first & (inside > 0)
                if is_first:  # the masses of the same bins
                    low, high, skipped = first_low, first_high, chosen
                else:
                    low, high = tl.where(inside > 0, low + (1 << zero_bits), lowest), highest
    least = least_likely(best, scale, row)
    tl.store(num_ties, tl.where(least > cut, ALL, ties).to(tl.int32))
    tl.store(bracket + 3, tl.maximum(cut, least))
    _clear(bins_of)
    tl.store(bins_of[2], 0)


@triton.jit
def _share(top_p, whole):
    """The part of a mass, float64, that is needed, int64."""
    return tl.maximum(tl.ceil(top_p.to(tl.float64) * whole).to(tl.int64), 1)


@triton.jit
def _refill(logits_of, bins_of, bins, by_mass, is_listed):
    """Fills the bins by one program alone. `is_listed`: the groups, if any are listed, have all tokens of the range."""
    logits, effects, best, scale, num_strips, groups = logits_of
    _clear(bins_of)
    if is_listed & (groups[1] > 0):
        for first in range(0, groups[1], AT_ONCE):
            x, _ = load_groups(logits, groups, first, effects)
            fill(x, best, scale, bins_of, bins, by_mass == 0, by_mass)
    else:
        for first in range(0, num_strips, _REFILL_TILE):
            x = load_tile(logits, first, effects[4], _REFILL_TILE).to(tl.float32)
            fill(effective(x, first, effects), best, scale, bins_of, bins, by_mass == 0, by_mass)
    tl.debug_barrier()


@triton.jit
def _clear(bins_of):
    number = tl.arange(0, BINS)
    tl.debug_barrier()
    tl.store(bins_of[0] + number, tl.zeros((BINS,), tl.int32))
    tl.store(bins_of[1] + number, tl.zeros((BINS,), tl.int64))
    tl.debug_barrier()


@triton.jit
def _value_of(key, zero_bits):
    """The logit of a key without its lowest bits, which are all 0, or all 1 where it is negative."""
    key = key.to(tl.int32)
    return value_of(tl.where(key < 0, key | ((1 << zero_bits) - 1), key))
