"""Draws of rows with top_k, top_p or min_p, in Triton, without sorting.

`find_candidates` gathers the tokens that might be kept, by the highest logits of groups of 64 tokens. The k-th highest
logit, and the one at which the mass reaches top_p, are found among them by a histogram of their keys, refined three
times at most. Likely tokens are few in what a model says, and so are the candidates; where the distribution is flat,
they are the vocabulary, and one program takes some ten passes over it.

Two tuples go from function to function: `found` (values, ids, number of candidates, highest logit, scale) and `last`
(logit, id): kept is what lies above that logit, or equals it with an id up to that one.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sgrun_kernels.effects import effective, float_at
from sgrun_kernels.fields import MIN_P, TOP_K, TOP_P
from sgrun_kernels.masses import UNIT, key_of, mass_of, share_of, value_of
from sgrun_kernels.workspace import BINS, GROUP, SAMPLE_BLOCK

_BLOCK = tl.constexpr(SAMPLE_BLOCK)
_GROUP = tl.constexpr(GROUP)
_BINS = tl.constexpr(BINS)
_SLACK = tl.constexpr(4096)  # keys: how tight the bound on candidates is
_NEVER = tl.constexpr(2**31 - 1)  # above every token id


@triton.jit
def has_cut(row, vocab_size):
    return (tl.load(row + TOP_K) < vocab_size) | (float_at(row + TOP_P) < 1) | (float_at(row + MIN_P) > 0)


@triton.jit
def bound_of(maxima, best, scale, total, row, vocab_size):
    """A logit that no kept token is below, from the highest logits of groups: where enough of them lie above it, in
    number or in mass, enough tokens do. -inf where they do not tell. `total`: the mass of all tokens, float64."""
    top_k, top_p = tl.load(row + TOP_K), float_at(row + TOP_P)
    low = key_of(tl.full((), float("-inf"), tl.float32))
    if (top_k < vocab_size) | (top_p < 1):
        # A thousandth of a percent more covers what the float32 sums of blocks lack.
        needed = (top_p.to(tl.float64) * total * UNIT * 1.00001).to(tl.int64) + 1
        mass = mass_of(maxima, best, scale)
        high = key_of(best)
        while high.to(tl.int64) - low > _SLACK:
            middle = (low.to(tl.int64) + high + 1 >> 1).to(tl.int32)
            is_above = maxima >= value_of(middle)
            is_enough = tl.sum(is_above.to(tl.int32), 0) >= top_k
            if top_k >= vocab_size:
                is_enough = tl.sum(tl.where(is_above, mass, 0), 0) >= needed
            low = tl.where(is_enough, middle, low)
            high = tl.where(is_enough, high, middle - 1)
    else:
        low = key_of(_least_likely(best, scale, row))
    return value_of(low)


@triton.jit
def _least_likely(best, scale, row):
    """The logit of a token that is min_p times as likely as the likeliest; -inf where min_p is off."""
    min_p = float_at(row + MIN_P)
    return tl.where(min_p > 0, best + tl.log2(tl.where(min_p > 0, min_p, 1.0)) / scale, float("-inf"))


@triton.jit
def find_candidates(logits, effects, maxima, group, bound, groups, values, ids, vocab_size):
    """Writes the tokens that are not below `bound` to values and ids, in the order of ids; returns how many."""
    is_open = (maxima >= bound) & (maxima > float("-inf"))
    tl.store(groups + tl.cumsum(is_open.to(tl.int32), 0) - 1, group, mask=is_open)
    num_open = tl.sum(is_open.to(tl.int32), 0)
    tl.debug_barrier()
    num_found = tl.full((), 0, tl.int32)
    lane = tl.arange(0, _BLOCK)
    for first in range(0, num_open, _BLOCK // _GROUP):
        slot = first + lane // _GROUP
        token = tl.load(groups + slot, mask=slot < num_open, other=0) * _GROUP + lane % _GROUP
        token = tl.where(slot < num_open, token, vocab_size)
        x = tl.load(logits + token, mask=token < vocab_size, other=0.0).to(tl.float32)
        x = effective(x, token, token // 32, effects)
        is_found = (x >= bound) & (x > float("-inf"))
        place = num_found + tl.cumsum(is_found.to(tl.int32), 0) - 1
        tl.store(values + place, x, mask=is_found)
        tl.store(ids + place, token, mask=is_found)
        num_found += tl.sum(is_found.to(tl.int32), 0)
    tl.debug_barrier()
    return num_found


@triton.jit
def draw_cut(found, bins, bound, total, bits, row, vocab_size):
    """The token of a row whose candidates are `found`, none of them below `bound`."""
    top_k, top_p = tl.load(row + TOP_K), float_at(row + TOP_P)
    num_candidates, best, scale = found[2], found[3], found[4]
    last, last_id = bound, vocab_size
    if top_k < num_candidates:
        needed = top_k.to(tl.int64)
        last, above = _search(found, (bound, vocab_size), bins, needed, BY_MASS=False)
        last_id = _nth_id(found, last, needed - above)
    if top_p < 1:
        kept_mass = _mass_of_kept(found, (last, last_id))
        mass = tl.where(top_k < vocab_size, kept_mass.to(tl.float64), total * UNIT)
        needed = tl.minimum(tl.maximum(tl.ceil(top_p.to(tl.float64) * mass).to(tl.int64), 1), kept_mass)
        last, above = _search(found, (last, last_id), bins, needed, BY_MASS=True)
        each = mass_of(last, best, scale)
        last_id = _nth_id(found, last, (needed - above + each - 1) // each)
    least = _least_likely(best, scale, row)
    if least > last:
        last, last_id = least, vocab_size
    target = share_of(bits, _mass_of_kept(found, (last, last_id)))
    return _draw_kept(found, (last, last_id), target)


@triton.jit
def _kept(found, last, first):
    """A block of candidates: (logits, ids, whether they are kept)."""
    values, ids, num_candidates = found[0], found[1], found[2]
    slot = first + tl.arange(0, _BLOCK)
    value = tl.load(values + slot, mask=slot < num_candidates, other=float("-inf"))
    token = tl.load(ids + slot, mask=slot < num_candidates, other=_NEVER)
    return value, token, (slot < num_candidates) & ((value > last[0]) | ((value == last[0]) & (token <= last[1])))


@triton.jit
def _mass_of_kept(found, last):
    num_candidates, best, scale = found[2], found[3], found[4]
    mass = tl.full((), 0, tl.int64)
    for first in range(0, num_candidates, _BLOCK):
        x, _, is_kept = _kept(found, last, first)
        mass += tl.sum(tl.where(is_kept, mass_of(x, best, scale), 0), 0)
    return mass


@triton.jit
def _search(found, last, bins, needed, BY_MASS: tl.constexpr):
    """(the highest logit at which the kept candidates reach `needed`, in number or in mass; what lies above it).

    Each round parts the range of keys that is left into bins and goes on with one of them. All kept candidates together
    reach `needed`.
    """
    num_candidates, best, scale = found[2], found[3], found[4]
    low, high = key_of(last[0]).to(tl.int64), key_of(best).to(tl.int64)
    above = tl.full((), 0, tl.int64)
    number = tl.arange(0, _BINS)
    shift = tl.full((), 1, tl.int64)
    while shift > 0:
        shift = tl.full((), 0, tl.int64)
        while high - low >> shift >= _BINS:
            shift += 1
        tl.store(bins + number, tl.zeros((_BINS,), tl.int64))
        tl.debug_barrier()
        for first in range(0, num_candidates, _BLOCK):
            x, _, is_kept = _kept(found, last, first)
            key = key_of(x).to(tl.int64)
            weight = mass_of(x, best, scale) if BY_MASS else tl.full((_BLOCK,), 1, tl.int64)
            is_in = is_kept & (key >= low) & (key <= high)
            tl.atomic_add(bins + (key - low >> shift), weight, mask=is_in, sem="relaxed")
        tl.debug_barrier()
        weight = tl.load(bins + number)
        reached = above + tl.sum(weight, 0) - tl.cumsum(weight, 0) + weight
        chosen = tl.max(tl.where(reached >= needed, number, 0), 0)
        above += tl.sum(tl.where(number > chosen, weight, 0), 0)
        low += chosen.to(tl.int64) << shift
        high = tl.minimum(high, low + (tl.full((), 1, tl.int64) << shift) - 1)
        tl.debug_barrier()
    return value_of(low.to(tl.int32)), above


@triton.jit
def _nth_id(found, value, number):
    """The id of the number-th candidate, from 1, whose logit is `value`."""
    values, ids, num_candidates = found[0], found[1], found[2]
    nth = tl.full((), _NEVER, tl.int32)
    before = tl.full((), 0, tl.int64)
    for first in range(0, num_candidates, _BLOCK):
        slot = first + tl.arange(0, _BLOCK)
        is_equal = tl.load(values + slot, mask=slot < num_candidates, other=float("-inf")) == value
        token = tl.load(ids + slot, mask=slot < num_candidates, other=_NEVER)
        is_nth = is_equal & (before + tl.cumsum(is_equal.to(tl.int32), 0) == number)
        nth = tl.minimum(nth, tl.min(tl.where(is_nth, token, _NEVER), 0))
        before += tl.sum(is_equal.to(tl.int64), 0)
    return nth


@triton.jit
def _draw_kept(found, last, target):
    """The first of the kept candidates, in the order of ids, at which their mass exceeds `target`."""
    num_candidates, best, scale = found[2], found[3], found[4]
    drawn = tl.full((), _NEVER, tl.int32)
    before = tl.full((), 0, tl.int64)
    for first in range(0, num_candidates, _BLOCK):
        x, token, is_kept = _kept(found, last, first)
        mass = tl.where(is_kept, mass_of(x, best, scale), 0)
        is_past = before + tl.cumsum(mass, 0) > target
        drawn = tl.minimum(drawn, tl.min(tl.where(is_past, token, _NEVER), 0))
        before += tl.sum(mass, 0)
    return drawn
