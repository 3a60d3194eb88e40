"""Where a row is cut off, exactly: histograms of its tokens by their logits, in Triton.

A key is a logit's place in the order of float32. Tokens between the two ends of a range of keys are counted, and their
masses summed, in bins of 2^shift keys; keys of logits close to zero, of which there are as many as of all others, share
one. The bin in which the cut lies is the next range, until bins hold one logit each:
with logits of 16 bits the first mostly do. All programs of a row fill the first bins; the last one goes on alone, and
starts again from the whole row where the cut is not in the first range.

Two tuples go from function to function: `logits_of` (pointer, effects, highest logit, scale, how many strips there are)
and `bins_of` (pointers to counts, to masses and to the mass above the first range).
"""

from __future__ import annotations

import triton
import triton.language as tl

from sgrun_kernels import workspace
from sgrun_kernels.cuts import ALL, floor_of, least_likely
from sgrun_kernels.effects import effective, float_at
from sgrun_kernels.fields import TOP_K, TOP_P
from sgrun_kernels.masses import UNIT, key_of, mass_of, value_of
from sgrun_kernels.strips import load_tile

_SEVEN_OCTAVES = tl.constexpr(7 << 23)  # of float32, in keys
BINS = tl.constexpr(workspace.BINS)


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
def _scale_of(low, high, zero_bits):
    """(zone, squeezed key of the first bin, shift) of the bins of a range."""
    zone = _zone_of(low, high, zero_bits)
    first = (_squeezed(low, zone) >> zero_bits) << zero_bits
    shift = zero_bits
    while _squeezed(high, zone) - first >> shift >= BINS:
        shift += 1
    return zone, first, shift


@triton.jit
def fill(first, logits_of, bins_of, low, high, zero_bits, by_count, by_mass, TILE: tl.constexpr):
    """Adds a tile of a row to its bins; returns the mass above them."""
    logits, effects, best, scale, _ = logits_of
    counts, masses, _ = bins_of
    x = effective(load_tile(logits, first, effects[4], TILE).to(tl.float32), first, effects)
    key = key_of(x)
    is_inside = (key >= low.to(tl.int32)) & (key <= high.to(tl.int32))
    zone, first_bin, shift = _scale_of(low, high, zero_bits)
    number = (_squeezed(key, zone.to(tl.int32)) - first_bin.to(tl.int32)).to(tl.uint32, bitcast=True)
    number = (number >> shift.to(tl.uint32)).to(tl.int32)
    above = tl.full((), 0, tl.int64)
    if by_count:
        tl.atomic_add(counts + number, 1, mask=is_inside, sem="relaxed")
    if by_mass:
        mass = mass_of(x, best, scale)
        tl.atomic_add(masses + number, mass, mask=is_inside, sem="relaxed")
        above += tl.sum(tl.sum(tl.where(key > high.to(tl.int32), mass, 0), 1), 0)
    return above


@triton.jit
def find_cut(logits_of, bins_of, bracket, num_ties, total, zero_bits, row, vocab_size, TILE: tl.constexpr):
    """Writes the logit of the cut to the bracket, and how many of the tokens with just that logit are kept, the first
    ones; leaves the bins empty. `total`: the mass of all tokens, float64."""
    _, masses, above_first = bins_of
    best, scale = logits_of[2], logits_of[3]
    top_k, top_p = tl.load(row + TOP_K), float_at(row + TOP_P)
    low, high = range_of(bracket, zero_bits)
    floor = floor_of(best, scale, row, vocab_size)
    bounds = _aligned(key_of(floor), zero_bits), key_of(best).to(tl.int64)
    cut, ties = floor, tl.full((), ALL, tl.int64)
    above, whole, skipped = tl.load(above_first), total * UNIT, tl.full((), -1, tl.int32)
    over, is_filled = tl.full((), 0, tl.int64), low == low
    if top_k < vocab_size:
        needed = top_k.to(tl.int64)
        key, over, inside, chosen, is_first = _search(
            logits_of,
            bins_of,
            low,
            high,
            bounds,
            needed,
            tl.zeros_like(needed),
            is_filled,
            skipped,
            zero_bits,
            False,
            TILE,
        )
        if inside > 0:
            cut, ties = _value_of(key, zero_bits), needed - over
        if top_p < 1:
            if (is_first == 0) | (inside == 0):
                low, high, chosen = tl.where(inside > 0, key + (1 << zero_bits), bounds[0]), bounds[1], skipped
                _refill(logits_of, bins_of, low, high, zero_bits, True, TILE)
            skipped = chosen
            number = tl.arange(0, BINS)
            above = tl.full((), 0, tl.int64)
            over = tl.sum(tl.where(number > skipped, tl.load(masses + number), 0), 0)
            whole = (over + tl.where(inside > 0, ties * mass_of(cut, best, scale), 0)).to(tl.float64)
    if top_p < 1:
        needed = tl.maximum(tl.ceil(top_p.to(tl.float64) * whole).to(tl.int64), 1)
        each = mass_of(cut, best, scale)
        if (top_k < vocab_size) & (needed > over):
            ties = tl.where(each > 0, tl.minimum(ties, (needed - over + each - 1) // tl.maximum(each, 1)), ties)
        else:
            key, over, inside, chosen, is_first = _search(
                logits_of, bins_of, low, high, bounds, needed, above, is_filled, skipped, zero_bits, True, TILE
            )
            if inside > 0:
                cut = _value_of(key, zero_bits)
                each = mass_of(cut, best, scale)
                ties = (needed - over + each - 1) // each
    least = least_likely(best, scale, row)
    tl.store(num_ties, tl.where(least > cut, ALL, ties).to(tl.int32))
    tl.store(bracket + 3, tl.maximum(cut, least))
    _clear(bins_of)
    tl.store(above_first, 0)


@triton.jit
def _search(
    logits_of,
    bins_of,
    low,
    high,
    bounds,
    needed,
    above,
    is_filled,
    skipped,
    zero_bits,
    BY_MASS: tl.constexpr,
    TILE: tl.constexpr,
):
    """(the highest key from which on tokens reach `needed`, in number or in mass; what lies above that key; what lies
    at it, 0 if all together do not reach it; its bin, whether that is one of the first bins).

    `above`: what lies above the first bins. Bins up to `skipped` of them do not count.
    """
    number = tl.arange(0, BINS)
    over, inside = tl.full((), 0, tl.int64), tl.full((), 0, tl.int64)
    chosen, num_rounds = tl.full((), -1, tl.int32), tl.full((), 0, tl.int32)
    is_found = needed < 0
    while is_found == 0:
        if is_filled == 0:
            _refill(logits_of, bins_of, low, high, zero_bits, BY_MASS, TILE)
        zone, first_bin, shift = _scale_of(low, high, zero_bits)
        weight = tl.load((bins_of[1] if BY_MASS else bins_of[0]) + number).to(tl.int64)
        weight = tl.where(number > skipped, weight, 0)
        reached = above + tl.sum(weight, 0) - tl.cumsum(weight, 0) + weight
        chosen = tl.max(tl.where(reached >= needed, number, -1), 0)
        over = above + tl.sum(tl.where(number > chosen, weight, 0), 0)
        inside = tl.sum(tl.where(number == chosen, weight, 0), 0)
        num_rounds += 1
        if (above < needed) & (chosen >= 0):
            first = first_bin + (chosen.to(tl.int64) << shift)
            last = first + (tl.full((), 1, tl.int64) << shift) - 1
            is_found = (shift <= zero_bits) & ((first != 0) | (zone == 0))
            is_positive = (first > 0) | ((first == 0) & (zone == 0))  # no token has the key -1, of the other zero
            low = tl.maximum(low, tl.where(is_positive, first + zone, first - zone - 1))
            high = tl.minimum(high, tl.where(last >= 0, last + zone, last - zone - 1))
            above = over
        else:
            is_found = (low <= bounds[0]) & (high >= bounds[1])
            inside = tl.zeros_like(inside)
            low, high, above = bounds[0], bounds[1], tl.zeros_like(above)
        is_filled, skipped = low < low, tl.full((), -1, tl.int32)
    return low, over, inside, chosen, num_rounds == 1


@triton.jit
def _refill(logits_of, bins_of, low, high, zero_bits, BY_MASS: tl.constexpr, TILE: tl.constexpr):
    """Fills the bins by one program alone."""
    _clear(bins_of)
    for first in range(0, logits_of[4], 4 * TILE):
        fill(first, logits_of, bins_of, low, high, zero_bits, not BY_MASS, BY_MASS, 4 * TILE)
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
