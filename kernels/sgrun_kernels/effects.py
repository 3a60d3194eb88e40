"""What a row's own rules do to its logits before the draw, in Triton: penalties and bias, bitmask, banned ids."""

from __future__ import annotations

import triton
import triton.language as tl

from sgrun_kernels.fields import (
    ADJUSTMENT,
    AUTOMATON,
    BAN_UNTIL,
    FREQUENCY_PENALTY,
    MAX_STOP_IDS,
    POSITION,
    PRESENCE_PENALTY,
    REPETITION_PENALTY,
    STOP_IDS,
)


@triton.jit
def float_at(word):
    return tl.load(word).to(tl.float32, bitcast=True)


@triton.jit
def effects_of(row, mask, seen, bias, vocab_size, mask_len):
    """What `effective` has to know of a row whose bitmask is at `mask`, loaded ahead of its logits."""
    is_banned = tl.load(row + POSITION) < tl.load(row + BAN_UNTIL)
    return row, mask, seen, bias, vocab_size, mask_len, tl.load(row + ADJUSTMENT), tl.load(row + AUTOMATON), is_banned


@triton.jit
def effective(x, token, word, effects):
    """The logits x of ids `token` as they count for the draw; -inf beyond the vocabulary. `word` is token // 32 and
    broadcasts to `token`."""
    row, mask, seen, bias, vocab_size, mask_len, adjustment, automaton, is_banned = effects
    is_token = token < vocab_size
    if adjustment >= 0:
        place = adjustment.to(tl.int64) * vocab_size + token
        x = _penalised(x, tl.load(seen + place, mask=is_token, other=0), row)
        x += tl.load(bias + place, mask=is_token, other=0.0)
    if automaton >= 0:
        bits = tl.load(mask + word, mask=word < mask_len, other=0)
        x = tl.where((bits >> (token % 32)) & 1 != 0, x, float("-inf"))
    if is_banned:
        for i in tl.static_range(MAX_STOP_IDS):
            x = tl.where(token == tl.load(row + STOP_IDS + i), float("-inf"), x)
    x = tl.where(x == 0.0, 0.0, x)  # one zero: the order of keys tells two apart
    return tl.where(is_token, x, float("-inf"))


@triton.jit
def _penalised(x, seen, row):
    repetition = float_at(row + REPETITION_PENALTY)
    x = tl.where(seen > 0, tl.where(x > 0, tl.div_rn(x, repetition + tl.zeros_like(x)), x * repetition), x)
    num_outputs = seen >> 1
    penalty = num_outputs.to(tl.float32) * float_at(row + FREQUENCY_PENALTY) + float_at(row + PRESENCE_PENALTY)
    return tl.where(num_outputs > 0, x - penalty, x)
