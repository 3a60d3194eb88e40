"""Masses of tokens, the uniform number of a draw, and floats as ordered integers, in Triton.

A token's mass is exp2((x - highest) * log2(e) / temperature) in float32, as an integer in units of 2^-40. Integers sum
to the same whatever the order, and a token of no mass is never drawn.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
UNIT = tl.constexpr(2.0**40)  # of a mass: those of 2^22 tokens sum to less than 2^63
_MULTIPLIER_A = tl.constexpr(0xD2E7470EE14C6C93)  # these four are Philox4x64's
_MULTIPLIER_B = tl.constexpr(0xCA5A826395121157)
_STEP_A = tl.constexpr(0x9E3779B97F4A7C15)
_STEP_B = tl.constexpr(0xBB67AE8584CAA73B)
_UPPER_53 = tl.constexpr(0xFFFFFFFFFFFFF800)


@triton.jit
def mass_of(x, highest, scale):
    """int64 masses of logits x; `scale` is log2(e) / temperature."""
    return (tl.exp2((x - highest) * scale) * UNIT).to(tl.int64)


@triton.jit
def key_of(x):
    """int32 in the order of the floats, -inf included; both zeros have the same."""
    bits = (x + 0.0).to(tl.int32, bitcast=True)
    return tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


@triton.jit
def value_of(key):
    """The float32 of a key."""
    return tl.where(key < 0, key ^ 0x7FFFFFFF, key).to(tl.float32, bitcast=True)


@triton.jit
def uniform_bits(seed, position):
    """The uniform number of (seed, position) as the upper 53 of 64 bits: Philox4x64-10, key seed, counter position."""
    multiplier_a = tl.full((), _MULTIPLIER_A, tl.uint64)
    multiplier_b = tl.full((), _MULTIPLIER_B, tl.uint64)
    a = (position.to(tl.int64) + 1).to(tl.uint64)  # numpy's generator counts before it draws
    b = tl.full((), 0, tl.uint64)
    c = tl.full((), 0, tl.uint64)
    d = tl.full((), 0, tl.uint64)
    key_a = seed.to(tl.uint64, bitcast=True)
    key_b = tl.full((), 0, tl.uint64)
    for _ in tl.static_range(10):
        high_a, high_c = tl.umulhi(a, multiplier_a), tl.umulhi(c, multiplier_b)
        a, b, c, d = high_c ^ b ^ key_a, c * multiplier_b, high_a ^ d ^ key_b, a * multiplier_a
        key_a += tl.full((), _STEP_A, tl.uint64)
        key_b += tl.full((), _STEP_B, tl.uint64)
    return a & tl.full((), _UPPER_53, tl.uint64)


@triton.jit
def share_of(bits, total):
    """floor(u * total) for the number u in [0, 1) of `bits`; total int64."""
    return tl.umulhi(bits, total.to(tl.uint64)).to(tl.int64)
