"""What a row's own rules do to its logits before the draw, in Triton: penalties and bias, bitmask, banned ids."""

from __future__ import annotations

import triton
import triton.language as tl

from sgrun_kernels.fields import (
    ADJUSTMENT,
    AUTOMATON,
    BAN_UNTIL,
    FREQUENCY_PENALTY,
    MASK,
    MAX_STOP_IDS,
    POSITION,
    PRESENCE_PENALTY,
    REPETITION_PENALTY,
    STOP_IDS,
)
from sgrun_kernels.strips import LINE, LINES, STRIP, lines_of, tokens_of


@triton.jit
def float_at(word):
    return tl.load(word).to(tl.float32, bitcast=True)


@triton.jit
def effects_of(row, masks, seen, bias, vocab_size, mask_len):
    """What `effective` has to know of a row, loaded ahead of its logits."""
    mask = masks + tl.load(row + MASK).to(tl.int64) * mask_len
    is_banned = tl.load(row + POSITION) < tl.load(row + BAN_UNTIL)
    return row, mask, seen, bias, vocab_size, mask_len, tl.load(row + ADJUSTMENT), tl.load(row + AUTOMATON), is_banned


@triton.jit
def has_mask_alone(effects):
    """Whether neither penalties, bias nor banned ids have to do with a row, as with most rows."""
    return (effects[6] < 0) & (effects[8] == 0)


@triton.jit
def mask_alone(effects):
    """The effects of such a row, from which the compiler sees so: that takes half as many registers."""
    row, mask, seen, bias, vocab_size, mask_len, _, automaton, _ = effects
    return row, mask, seen, bias, vocab_size, mask_len, -1, automaton, False


@triton.jit
def effective(x, first_strip, effects):
    """The logits x [TILE, 256] of strips as they count for the draw; -inf beyond the vocabulary."""
    row, mask, seen, bias, vocab_size, mask_len, adjustment, automaton, is_banned = effects
    TILE: tl.constexpr = x.shape[0]
    token = tokens_of(first_strip, TILE)
    if adjustment >= 0:
        x = _adjusted(x, token, token < vocab_size, row, seen, bias, adjustment.to(tl.int64) * vocab_size)
    if automaton >= 0:
        word = lines_of(first_strip, TILE)
        bits = tl.load(mask + word, mask=word < mask_len, other=0)
        bits = tl.reshape(tl.broadcast_to(bits[:, :, None], [TILE, LINES, LINE]), [TILE, STRIP])
        x = tl.where((bits >> (token % LINE)) & 1 != 0, x, float("-inf"))
    if is_banned:
        x = _without_banned(x, token, row)
    if (first_strip + TILE) * STRIP > vocab_size:
        x = tl.where(token < vocab_size, x, float("-inf"))
    return x


@triton.jit
def effective_at(x, token, inside, effects):
    """The same of logits of any tokens; those not `inside` are -inf before and after."""
    row, mask, seen, bias, vocab_size, _, adjustment, automaton, is_banned = effects
    if adjustment >= 0:
        x = _adjusted(x, token, inside, row, seen, bias, adjustment.to(tl.int64) * vocab_size)
    if automaton >= 0:
        bits = tl.load(mask + token // LINE, mask=inside, other=0)
        x = tl.where((bits >> (token % LINE)) & 1 != 0, x, float("-inf"))
    if is_banned:
        x = _without_banned(x, token, row)
    return x


@triton.jit
def _adjusted(x, token, inside, row, seen, bias, start):
    """With penalties and bias, which begin at `start`."""
    x = _penalised(x, tl.load(seen + start + token, mask=inside, other=0), row)
    return x + tl.load(bias + start + token, mask=inside, other=0.0)


@triton.jit
def _without_banned(x, token, row):
    for i in range(_num_stops(row)):
        x = tl.where(token == tl.load(row + STOP_IDS + i), float("-inf"), x)
    return x


@triton.jit
def _num_stops(row):
    return tl.sum((tl.load(row + STOP_IDS + tl.arange(0, MAX_STOP_IDS)) >= 0).to(tl.int32), 0)


@triton.jit
def _penalised(x, seen, row):
    repetition = float_at(row + REPETITION_PENALTY)
    x = tl.where(seen > 0, tl.where(x > 0, tl.div_rn(x, repetition + tl.zeros_like(x)), x * repetition), x)
    num_outputs = seen >> 1
    penalty = num_outputs.to(tl.float32) * float_at(row + FREQUENCY_PENALTY) + float_at(row + PRESENCE_PENALTY)
    return tl.where(num_outputs > 0, x - penalty, x)
