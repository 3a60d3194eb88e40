"""Sampling in Triton, two launches for rows of any mix: one reads the logits once, block by block; in the other, one
program a row combines its blocks and draws.

Masses are exp2((x - highest) * log2(e) / temperature) in float32. Whatever decides a draw is summed as integers, so
neither the order of summing nor what else is in the batch changes it, and a token of no mass is never drawn. What
float32 leaves: a token's probability is right to about 1e-6 of itself, and one below 1e-12 of the likeliest is 0.

Rows with top_k, top_p or min_p are cut first: `_candidates` gathers the tokens that might be kept, by the highest
logits of groups of 64 tokens; the k-th highest logit, and the one at which the mass reaches top_p, are found among them
by halving the range of float32 keys. Likely tokens are few in what a model says, and so are the candidates; where the
distribution is flat, they are the vocabulary, and a row takes some 50 passes over it by one program.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from sgrun_kernels.fields import (
    ADJUSTMENT,
    AUTOMATON,
    BAN_UNTIL,
    DRAWN,
    DRAWN_LOGPROB,
    FREQUENCY_PENALTY,
    MAX_STOP_IDS,
    MIN_P,
    NOT_FINITE,
    NOTHING_ALLOWED,
    POSITION,
    PRESENCE_PENALTY,
    REPETITION_PENALTY,
    ROW_LEN,
    SEED,
    STOP_IDS,
    TEMPERATURE,
    TOP_K,
    TOP_P,
    WANTS_LOGPROB,
)
from sgrun_kernels.reference_sampling import top_logprobs
from sgrun_kernels.rows import Adjustments, Rows
from sgrun_kernels.workspace import GROUP, SAMPLE_BLOCK, SampleWorkspace

__all__ = ["sample_", "top_logprobs"]

SCAN_WARPS = 4
DRAW_WARPS = 8

_BLOCK = tl.constexpr(SAMPLE_BLOCK)
_GROUP = tl.constexpr(GROUP)
_LOG2_E = tl.constexpr(1.4426950408889634)
_NEVER = tl.constexpr(2**31 - 1)  # above every token id
_UNIT = tl.constexpr(2.0**40)  # of a token's mass as an integer: 2^18 tokens stay below 2^63
_BLOCK_UNIT = tl.constexpr(2.0**42)  # of a block's mass
_SLACK = tl.constexpr(4096)  # keys: how tight the bound on candidates is
_MULTIPLIERS = tl.constexpr((0xD2E7470EE14C6C93, 0xCA5A826395121157))  # of Philox4x64
_STEP = tl.constexpr(0x9E3779B97F4A7C15)  # of its key


def sample_(
    logits: Tensor,
    row_ids: Tensor,
    rows: Rows,
    masks: Tensor,
    adjustments: Adjustments,
    workspace: SampleWorkspace,
) -> None:
    """See the twin. `workspace` has at least as many rows as `logits`."""
    num_rows, vocab_size = logits.shape
    num_blocks = workspace.block_values.shape[2]
    assert logits.stride(1) == 1, logits.stride()
    assert num_rows <= len(workspace.values), (num_rows, len(workspace.values))
    assert workspace.values.shape[1] == adjustments.bias.shape[1] == vocab_size, (workspace.values.shape, vocab_size)
    shared = (
        logits,
        row_ids,
        rows.words,
        masks,
        adjustments.seen,
        adjustments.bias,
        workspace.block_values,
        workspace.block_ids,
        workspace.group_max,
    )
    sizes = vocab_size, logits.stride(0), masks.shape[1], num_blocks
    _scan_kernel[(num_rows, num_blocks)](*shared, *sizes, num_warps=SCAN_WARPS)
    _draw_kernel[(num_rows,)](
        *shared,
        workspace.groups,
        workspace.values,
        workspace.ids,
        *sizes,
        BLOCKS=triton.next_power_of_2(num_blocks),
        num_warps=DRAW_WARPS,
    )


@triton.jit
def _float(word):
    return tl.load(word).to(tl.float32, bitcast=True)


@triton.jit
def _effective(x, token, word, masks, seen, bias, row, vocab_size, mask_len):
    """Logits after penalties, bias, bitmask and bans; -inf beyond the vocabulary. `word` broadcasts to `token`."""
    is_token = token < vocab_size
    adjustment = tl.load(row + ADJUSTMENT)
    if adjustment >= 0:
        place = adjustment.to(tl.int64) * vocab_size + token
        x = _adjusted(x, tl.load(seen + place, mask=is_token, other=0), row)
        x += tl.load(bias + place, mask=is_token, other=0.0)
    if tl.load(row + AUTOMATON) >= 0:
        bits = tl.load(masks + word, mask=word < mask_len, other=0)
        x = tl.where((bits >> (token % 32)) & 1 != 0, x, float("-inf"))
    if tl.load(row + POSITION) < tl.load(row + BAN_UNTIL):
        for i in tl.static_range(MAX_STOP_IDS):
            x = tl.where(token == tl.load(row + STOP_IDS + i), float("-inf"), x)
    x = tl.where(x == 0.0, 0.0, x)  # one zero: the order of keys tells two apart
    return tl.where(is_token, x, float("-inf"))


@triton.jit
def _adjusted(x, seen, row):
    repetition = _float(row + REPETITION_PENALTY)
    x = tl.where(seen > 0, tl.where(x > 0, tl.div_rn(x, repetition + tl.zeros_like(x)), x * repetition), x)
    num_outputs = seen >> 1
    penalty = num_outputs.to(tl.float32) * _float(row + FREQUENCY_PENALTY) + _float(row + PRESENCE_PENALTY)
    return tl.where(num_outputs > 0, x - penalty, x)


@triton.jit
def _has_cut(row, vocab_size):
    return (tl.load(row + TOP_K) < vocab_size) | (_float(row + TOP_P) < 1) | (_float(row + MIN_P) > 0)


@triton.jit
def _scan_kernel(
    logits,
    row_ids,
    words,
    masks,
    seen,
    bias,
    block_values,
    block_ids,
    group_max,
    vocab_size,
    stride,
    mask_len,
    num_blocks,
):
    """One program for each row and block, as lines of 32 tokens: a word of the bitmask a line."""
    lines: tl.constexpr = _BLOCK // 32
    index, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    row_id = tl.load(row_ids + index).to(tl.int64)
    row = words + row_id * ROW_LEN
    line = block * lines + tl.arange(0, lines)[:, None]
    token = line * 32 + tl.arange(0, 32)[None, :]
    raw = tl.load(logits + index * stride + token, mask=token < vocab_size, other=0.0).to(tl.float32)
    is_finite = tl.abs(raw) < float("inf")
    raw = tl.where(is_finite, raw, 0.0)
    x = _effective(raw, token, line, masks + row_id * mask_len, seen, bias, row, vocab_size, mask_len)
    best = tl.max(tl.max(x, 1), 0)
    values = block_values + index * 4 * num_blocks + block
    ids = block_ids + index * 2 * num_blocks + block
    tl.store(values, best)
    tl.store(ids + num_blocks, tl.sum(tl.sum((~is_finite).to(tl.int32), 1), 0))
    temperature = _float(row + TEMPERATURE)
    if temperature > 0:
        highest = tl.where(best == float("-inf"), 0.0, best)
        tl.store(values + num_blocks, tl.sum(tl.sum(tl.exp2((x - highest) * (_LOG2_E / temperature)), 1), 0))
        if _has_cut(row, vocab_size):
            groups: tl.constexpr = _BLOCK // _GROUP
            group = block * groups + tl.arange(0, groups)
            line_max = tl.reshape(tl.max(x, 1), [groups, _GROUP // 32])
            tl.store(group_max + index * num_blocks * groups + group, tl.max(line_max, 1))
    else:
        tl.store(ids, tl.min(tl.min(tl.where(x == best, token, _NEVER), 1), 0))
    if tl.load(row + WANTS_LOGPROB) != 0:
        raw = tl.where(token < vocab_size, raw, float("-inf"))
        highest = tl.max(tl.max(raw, 1), 0)
        tl.store(values + 2 * num_blocks, highest)
        tl.store(values + 3 * num_blocks, tl.sum(tl.sum(tl.exp2((raw - highest) * _LOG2_E), 1), 0))


@triton.jit
def _draw_kernel(
    logits,
    row_ids,
    words,
    masks,
    seen,
    bias,
    block_values,
    block_ids,
    group_max,
    groups,
    values,
    ids,
    vocab_size,
    stride,
    mask_len,
    num_blocks,
    BLOCKS: tl.constexpr,
):
    """One program a row: from its blocks to its token."""
    index = tl.program_id(0).to(tl.int64)
    row_id = tl.load(row_ids + index).to(tl.int64)
    row = words + row_id * ROW_LEN
    logits += index * stride
    masks += row_id * mask_len
    block_values += index * 4 * num_blocks
    block_ids += index * 2 * num_blocks
    block = tl.arange(0, BLOCKS)
    inside = block < num_blocks
    highest = tl.load(block_values + block, mask=inside, other=float("-inf"))
    best = tl.max(highest, 0)
    token = tl.full((), NOTHING_ALLOWED, tl.int32)
    if tl.sum(tl.load(block_ids + num_blocks + block, mask=inside, other=0), 0) > 0:
        token = tl.full((), NOT_FINITE, tl.int32)
    elif best > float("-inf"):
        temperature = _float(row + TEMPERATURE)
        if temperature == 0:
            best_ids = tl.load(block_ids + block, mask=inside, other=_NEVER)
            token = tl.min(tl.where(highest == best, best_ids, _NEVER), 0)
        else:
            scale = _LOG2_E / temperature
            mass = tl.load(block_values + num_blocks + block, mask=inside, other=0.0)
            mass = mass.to(tl.float64) * tl.exp2((highest - best) * scale).to(tl.float64)
            bits = _uniform_bits(tl.load((row + SEED).to(tl.pointer_type(tl.int64))), tl.load(row + POSITION))
            if _has_cut(row, vocab_size):
                num_groups: tl.constexpr = BLOCKS * (_BLOCK // _GROUP)
                limit = num_blocks * (_BLOCK // _GROUP)
                group = tl.arange(0, num_groups)
                group_max += index * limit
                maxima = tl.load(group_max + group, mask=group < limit, other=float("-inf"))
                total = tl.sum(mass, 0)
                bound = _bound(maxima, best, scale, total, row, vocab_size)
                groups += index * limit
                values += index * vocab_size
                ids += index * vocab_size
                num_candidates = _candidates(
                    logits, masks, seen, bias, row, vocab_size, mask_len, maxima, group, bound, groups, values, ids
                )
                token = _draw_cut(values, ids, num_candidates, bound, best, scale, total, bits, row, vocab_size)
            else:
                token = _draw_plain(
                    logits, masks, seen, bias, row, vocab_size, mask_len, block, highest, best, mass, scale, bits
                )
    tl.store(row + DRAWN, token)
    logprob = tl.full((), 0.0, tl.float32)
    if (tl.load(row + WANTS_LOGPROB) != 0) & (token >= 0):
        highest = tl.load(block_values + 2 * num_blocks + block, mask=inside, other=float("-inf"))
        raw_best = tl.max(highest, 0)
        mass = tl.load(block_values + 3 * num_blocks + block, mask=inside, other=0.0)
        mass = tl.sum(mass * tl.exp2((highest - raw_best) * _LOG2_E), 0)
        logprob = tl.load(logits + token).to(tl.float32) - raw_best - tl.log(mass)
    tl.store((row + DRAWN_LOGPROB).to(tl.pointer_type(tl.float32)), logprob)


@triton.jit
def _uniform_bits(seed, position):
    """The uniform number of (seed, position) in 64 bits, of which the host uses the upper 53: Philox4x64-10."""
    multiplier_a = tl.full((), _MULTIPLIERS[0], tl.uint64)
    multiplier_b = tl.full((), _MULTIPLIERS[1], tl.uint64)
    a = (position.to(tl.int64) + 1).to(tl.uint64)  # numpy counts before it draws
    b = tl.full((), 0, tl.uint64)
    c = tl.full((), 0, tl.uint64)
    d = tl.full((), 0, tl.uint64)
    key_a = seed.to(tl.uint64, bitcast=True)
    key_b = tl.full((), 0, tl.uint64)
    for _ in tl.static_range(10):
        high_a, high_c = tl.umulhi(a, multiplier_a), tl.umulhi(c, multiplier_b)
        a, b, c, d = high_c ^ b ^ key_a, c * multiplier_b, high_a ^ d ^ key_b, a * multiplier_a
        key_a += tl.full((), 0x9E3779B97F4A7C15, tl.uint64)
        key_b += tl.full((), 0xBB67AE8584CAA73B, tl.uint64)
    return a & tl.full((), 0xFFFFFFFFFFFFF800, tl.uint64)


@triton.jit
def _share(bits, total):
    """floor(u * total) for the number u in [0, 1) of `bits`; total int64."""
    return tl.umulhi(bits, total.to(tl.uint64)).to(tl.int64)


@triton.jit
def _draw_plain(logits, masks, seen, bias, row, vocab_size, mask_len, block, highest, best, mass, scale, bits):
    """Chooses a block by its share of the mass, then a token in it, by the part of the share that is left."""
    weight = (mass * _BLOCK_UNIT).to(tl.int64)
    reached = tl.cumsum(weight, 0)
    target = _share(bits, tl.sum(weight, 0))
    chosen = tl.min(tl.where(reached > target, block, _NEVER), 0)
    is_chosen = block == chosen
    chosen_weight = tl.sum(tl.where(is_chosen, weight, 0), 0)
    rest = target - tl.sum(tl.where(is_chosen, reached - weight, 0), 0)
    token = chosen * _BLOCK + tl.arange(0, _BLOCK)
    x = tl.load(logits + token, mask=token < vocab_size, other=0.0).to(tl.float32)
    x = _effective(x, token, token // 32, masks, seen, bias, row, vocab_size, mask_len)
    token_mass = _integer_mass(x, tl.max(tl.where(is_chosen, highest, float("-inf")), 0), scale)
    total = tl.sum(token_mass, 0)
    share = (rest.to(tl.float64) / chosen_weight.to(tl.float64) * total.to(tl.float64)).to(tl.int64)
    share = tl.minimum(share, total - 1)
    return tl.min(tl.where(tl.cumsum(token_mass, 0) > share, token, _NEVER), 0)


@triton.jit
def _integer_mass(x, highest, scale):
    return (tl.exp2((x - highest) * scale) * _UNIT).to(tl.int64)


@triton.jit
def _key(x):
    """int32 in the order of the floats, -inf included; its own inverse on the bits."""
    bits = x.to(tl.int32, bitcast=True)
    return tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


@triton.jit
def _value(key):
    return tl.where(key < 0, key ^ 0x7FFFFFFF, key).to(tl.float32, bitcast=True)


@triton.jit
def _middle(low, high):
    """Above low, at most high, without overflow."""
    return (low.to(tl.int64) + high + 1 >> 1).to(tl.int32)


@triton.jit
def _bound(maxima, best, scale, total, row, vocab_size):
    """A logit that no kept token is below, from the highest logits of groups: where enough of them lie above it, in
    number or in mass, enough tokens do. -inf where they do not tell."""
    top_k, top_p, min_p = tl.load(row + TOP_K), _float(row + TOP_P), _float(row + MIN_P)
    low = _key(tl.full((), float("-inf"), tl.float32))
    if (top_k < vocab_size) | (top_p < 1):
        # A thousandth of a percent more covers what the float32 sums of blocks lack.
        needed = (top_p.to(tl.float64) * total * _UNIT * 1.00001).to(tl.int64) + 1
        mass = _integer_mass(maxima, best, scale)
        high = _key(best)
        while high.to(tl.int64) - low > _SLACK:
            middle = _middle(low, high)
            is_above = maxima >= _value(middle)
            is_enough = tl.sum(is_above.to(tl.int32), 0) >= top_k
            if top_k >= vocab_size:
                is_enough = tl.sum(tl.where(is_above, mass, 0), 0) >= needed
            low = tl.where(is_enough, middle, low)
            high = tl.where(is_enough, high, middle - 1)
    else:
        low = _key(_min_p_value(best, min_p, scale))
    return _value(low)


@triton.jit
def _min_p_value(best, min_p, scale):
    """The logit of a token that is min_p times as likely as the likeliest; -inf for 0."""
    return tl.where(min_p > 0, best + tl.log2(tl.where(min_p > 0, min_p, 1.0)) / scale, float("-inf"))


@triton.jit
def _candidates(logits, masks, seen, bias, row, vocab_size, mask_len, maxima, group, bound, groups, values, ids):
    """Writes the tokens that are not below `bound`, in the order of their ids, and returns how many they are."""
    is_open = (maxima >= bound) & (maxima > float("-inf"))
    tl.store(groups + tl.cumsum(is_open.to(tl.int32), 0) - 1, group, mask=is_open)
    num_open = tl.sum(is_open.to(tl.int32), 0)
    tl.debug_barrier()
    num_found = tl.full((), 0, tl.int32)
    lane = tl.arange(0, _BLOCK)
    for first in range(0, num_open, _BLOCK // _GROUP):
        slot = first + lane // _GROUP
        token = tl.load(groups + slot, mask=slot < num_open, other=vocab_size) * _GROUP + lane % _GROUP
        token = tl.where(slot < num_open, token, vocab_size)
        x = tl.load(logits + token, mask=token < vocab_size, other=0.0).to(tl.float32)
        x = _effective(x, token, token // 32, masks, seen, bias, row, vocab_size, mask_len)
        is_found = (x >= bound) & (x > float("-inf"))
        place = num_found + tl.cumsum(is_found.to(tl.int32), 0) - 1
        tl.store(values + place, x, mask=is_found)
        tl.store(ids + place, token, mask=is_found)
        num_found += tl.sum(is_found.to(tl.int32), 0)
    tl.debug_barrier()
    return num_found


@triton.jit
def _draw_cut(values, ids, num_candidates, bound, best, scale, total, bits, row, vocab_size):
    """Narrows the candidates to those above a last logit, or equal to it with an id up to a last one; then draws."""
    top_k, top_p, min_p = tl.load(row + TOP_K), _float(row + TOP_P), _float(row + MIN_P)
    last, last_id = bound, vocab_size
    if top_k < num_candidates:
        needed = top_k.to(tl.int64)
        value = _search(values, ids, num_candidates, last, last_id, bound, best, scale, needed, BY_MASS=False)
        above = _above(values, ids, num_candidates, last, last_id, value, best, scale, BY_MASS=False)
        last_id = _nth_id(values, ids, num_candidates, value, needed - above)
        last = value
    if top_p < 1:
        mass = (total * _UNIT).to(tl.int64)
        if top_k < vocab_size:
            mass = _reached(values, ids, num_candidates, last, last_id, last, best, scale, BY_MASS=True)
        needed = tl.maximum(tl.ceil(top_p.to(tl.float64) * mass.to(tl.float64)).to(tl.int64), 1)
        if _reached(values, ids, num_candidates, last, last_id, last, best, scale, BY_MASS=True) >= needed:
            value = _search(values, ids, num_candidates, last, last_id, last, best, scale, needed, BY_MASS=True)
            above = _above(values, ids, num_candidates, last, last_id, value, best, scale, BY_MASS=True)
            each = _integer_mass(value, best, scale)
            last_id = _nth_id(values, ids, num_candidates, value, (needed - above + each - 1) // each)
            last = value
    least = _min_p_value(best, min_p, scale)
    if least > last:
        last, last_id = least, vocab_size
    mass = _reached(values, ids, num_candidates, last, last_id, last, best, scale, BY_MASS=True)
    return _draw_kept(values, ids, num_candidates, last, last_id, best, scale, _share(bits, mass))


@triton.jit
def _kept(values, ids, num_candidates, first, last, last_id):
    """A block of candidates: (logits, ids, whether they are kept)."""
    slot = first + tl.arange(0, _BLOCK)
    value = tl.load(values + slot, mask=slot < num_candidates, other=float("-inf"))
    token = tl.load(ids + slot, mask=slot < num_candidates, other=_NEVER)
    is_kept = (slot < num_candidates) & ((value > last) | ((value == last) & (token <= last_id)))
    return value, token, is_kept


@triton.jit
def _reached(values, ids, num_candidates, last, last_id, value, best, scale, BY_MASS: tl.constexpr):
    """How many, or how much mass, of the kept candidates are not below `value`."""
    reached = tl.full((), 0, tl.int64)
    for first in range(0, num_candidates, _BLOCK):
        x, _, is_kept = _kept(values, ids, num_candidates, first, last, last_id)
        weight = _integer_mass(x, best, scale) if BY_MASS else tl.full((_BLOCK,), 1, tl.int64)
        reached += tl.sum(tl.where(is_kept & (x >= value), weight, 0), 0)
    return reached


@triton.jit
def _above(values, ids, num_candidates, last, last_id, value, best, scale, BY_MASS: tl.constexpr):
    following = _value(_key(value) + 1)
    return _reached(values, ids, num_candidates, last, last_id, following, best, scale, BY_MASS=BY_MASS)


@triton.jit
def _search(values, ids, num_candidates, last, last_id, lowest, best, scale, needed, BY_MASS: tl.constexpr):
    """The highest logit at which the kept candidates reach `needed`; at `lowest` they do."""
    low, high = _key(lowest), _key(best)
    while low < high:
        middle = _middle(low, high)
        pivot = _value(middle)
        is_reached = _reached(values, ids, num_candidates, last, last_id, pivot, best, scale, BY_MASS=BY_MASS) >= needed
        low = tl.where(is_reached, middle, low)
        high = tl.where(is_reached, high, middle - 1)
    return _value(low)


@triton.jit
def _nth_id(values, ids, num_candidates, value, number):
    """The id of the number-th candidate, from 1, whose logit is `value`."""
    found = tl.full((), _NEVER, tl.int32)
    before = tl.full((), 0, tl.int64)
    for first in range(0, num_candidates, _BLOCK):
        slot = first + tl.arange(0, _BLOCK)
        is_equal = tl.load(values + slot, mask=slot < num_candidates, other=float("-inf")) == value
        token = tl.load(ids + slot, mask=slot < num_candidates, other=_NEVER)
        is_nth = is_equal & (before + tl.cumsum(is_equal.to(tl.int32), 0) == number)
        found = tl.minimum(found, tl.min(tl.where(is_nth, token, _NEVER), 0))
        before += tl.sum(is_equal.to(tl.int64), 0)
    return found


@triton.jit
def _draw_kept(values, ids, num_candidates, last, last_id, best, scale, target):
    """The first of the kept candidates, in the order of ids, at which their mass exceeds `target`."""
    found = tl.full((), _NEVER, tl.int32)
    before = tl.full((), 0, tl.int64)
    for first in range(0, num_candidates, _BLOCK):
        x, token, is_kept = _kept(values, ids, num_candidates, first, last, last_id)
        mass = tl.where(is_kept, _integer_mass(x, best, scale), 0)
        is_past = before + tl.cumsum(mass, 0) > target
        found = tl.minimum(found, tl.min(tl.where(is_past, token, _NEVER), 0))
        before += tl.sum(mass, 0)
    return found
