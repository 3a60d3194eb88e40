"""The draw of one row in Triton: a band of tokens by its weight, then a token of the band, and what is said of it."""

from __future__ import annotations

import triton
import triton.language as tl

from sgrun_kernels.effects import effective, float_at
from sgrun_kernels.fields import (
    DRAWN,
    DRAWN_LOGPROB,
    NOT_FINITE,
    NOTHING_ALLOWED,
    POSITION,
    SEED,
    TEMPERATURE,
    WANTS_LOGPROB,
)
from sgrun_kernels.masses import LOG2_E, mass_of, share_of, uniform_bits
from sgrun_kernels.strips import BAND, STRIP, load_tile

_NEVER = tl.constexpr(2**31 - 1)  # above every token id
_BAND_UNIT = tl.constexpr(2.0**42)  # of a band's mass: 2^21 tokens stay below 2^63


@triton.jit
def draw_plain(logits, effects, highest, mass, row, bits):
    """The draw of a row without a cut: the best token, or any by its mass. `highest`, `mass`: of its bands."""
    best, temperature = tl.max(highest, 0), float_at(row + TEMPERATURE)
    token = tl.full((), NOTHING_ALLOWED, tl.int32)
    if tl.max((mass != mass).to(tl.int32), 0) > 0:
        token = tl.full((), NOT_FINITE, tl.int32)
    elif best > float("-inf"):
        scale, least = tl.full((), 1.0, tl.float32), best
        weight = (highest == best).to(tl.int64)
        if temperature > 0:
            scale, least = LOG2_E / temperature, tl.full((), float("-inf"), tl.float32)
            weight = (mass.to(tl.float64) * tl.exp2((highest - best) * scale).to(tl.float64) * _BAND_UNIT).to(tl.int64)
        kept_ties = tl.full((highest.shape[0],), STRIP * BAND, tl.int32)
        token = draw(logits, effects, weight, kept_ties, highest, least, scale, row, bits)
    return token


@triton.jit
def uniform_bits_of(row):
    """The uniform number of a row's next draw."""
    return uniform_bits(tl.load((row + SEED).to(tl.pointer_type(tl.int64))), tl.load(row + POSITION))


@triton.jit
def _add_each(a, b, c, d, other_a, other_b, other_c, other_d):
    return a + other_a, b + other_b, c + other_c, d + other_d


@triton.jit
def draw(logits, effects, weight, kept_ties, highest, least, scale, row, bits):
    """Chooses a band by its share of the weights [BANDS] int64, then a token in it by the part of the share that is
    left: of those above the logit `least`, or equal to it and among the first `kept_ties` [BANDS] of their band."""
    band = tl.arange(0, weight.shape[0])
    reached = tl.cumsum(weight, 0)
    target = share_of(bits, tl.sum(weight, 0))
    target = tl.where(float_at(row + TEMPERATURE) == 0, 0, target)
    chosen = tl.min(tl.where(reached > target, band, _NEVER), 0)
    is_chosen = band == chosen
    first = chosen * BAND
    chosen_weight, before, num_ties, top = tl.reduce(
        (
            tl.where(is_chosen, weight, 0),
            tl.where(is_chosen, reached - weight, 0),
            tl.where(is_chosen, kept_ties, 0),
            tl.where(is_chosen, highest, 0.0),
        ),
        0,
        _add_each,
    )
    rest = target - before
    x = load_tile(logits, first, effects[4], BAND).to(tl.float32)
    x = tl.reshape(effective(x, first, effects), [BAND * STRIP])
    is_tie = x == least
    is_kept = (x > least) | (is_tie & (tl.cumsum(is_tie.to(tl.int32), 0) <= num_ties))
    mass = tl.where(is_kept, mass_of(x, top, scale), 0)
    total = tl.sum(mass, 0)
    share = (rest.to(tl.float64) / chosen_weight.to(tl.float64) * total.to(tl.float64)).to(tl.int64)
    share = tl.minimum(share, total - 1)
    place = tl.where(tl.cumsum(mass, 0) > share, tl.arange(0, BAND * STRIP), _NEVER)
    return first * STRIP + tl.min(place, 0)


@triton.jit
def finish(token, logits, stats, row, num_bands, BANDS: tl.constexpr):
    """Writes what was drawn."""
    tl.store(row + DRAWN, token)
    logprob = tl.full((), 0.0, tl.float32)
    if (tl.load(row + WANTS_LOGPROB) != 0) & (token >= 0):
        band = tl.arange(0, BANDS)
        inside = band < num_bands
        highest = tl.load(stats + 2 * num_bands + band, mask=inside, other=float("-inf"))
        best = tl.max(highest, 0)
        mass = tl.load(stats + 3 * num_bands + band, mask=inside, other=0.0)
        mass = tl.sum(mass * tl.exp2((highest - best) * LOG2_E), 0)
        logprob = tl.load(logits + token).to(tl.float32) - best - tl.log(mass)
    tl.store((row + DRAWN_LOGPROB).to(tl.pointer_type(tl.float32)), logprob)
