"""Sampling in Triton, two launches for rows of any mix: one reads the logits once, block by block; in the other, one
program a row combines its blocks and draws.

Which token is drawn depends on float32 logits and masses, on sums of float32 within a block of 2,048 tokens, and else
on integers; so neither the other rows nor a row's place have a part in it. What float32 leaves: a token's probability
is right to about 1e-6 of itself, one below 1e-12 of the likeliest is 0, and the edge of top_p or min_p may lie one
token off where a token reaches it to 1e-6.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from sgrun_kernels.cuts import bound_of, draw_cut, find_candidates, has_cut
from sgrun_kernels.effects import effective, effects_of, float_at
from sgrun_kernels.fields import (
    DRAWN,
    DRAWN_LOGPROB,
    NOT_FINITE,
    NOTHING_ALLOWED,
    POSITION,
    ROW_LEN,
    SEED,
    TEMPERATURE,
    WANTS_LOGPROB,
)
from sgrun_kernels.masses import LOG2_E, mass_of, share_of, uniform_bits
from sgrun_kernels.reference_sampling import top_logprobs
from sgrun_kernels.rows import Adjustments, Rows
from sgrun_kernels.workspace import GROUP, SAMPLE_BLOCK, SampleWorkspace

__all__ = ["sample_", "top_logprobs"]

SCAN_WARPS = 8
DRAW_WARPS = 8

_BLOCK = tl.constexpr(SAMPLE_BLOCK)
_LINES = tl.constexpr(SAMPLE_BLOCK // 32)
_GROUP = tl.constexpr(GROUP)
_GROUPS = tl.constexpr(SAMPLE_BLOCK // GROUP)  # of a block
_NEVER = tl.constexpr(2**31 - 1)  # above every token id
_BLOCK_UNIT = tl.constexpr(2.0**42)  # of a block's mass: 2^21 tokens stay below 2^63


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
        workspace.bins,
        *sizes,
        BLOCKS=triton.next_power_of_2(num_blocks),
        BINS=workspace.bins.shape[1],
        num_warps=DRAW_WARPS,
    )


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
    index, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    row_id = tl.load(row_ids + index).to(tl.int64)
    row = words + row_id * ROW_LEN
    effects = effects_of(row, masks + row_id * mask_len, seen, bias, vocab_size, mask_len)
    temperature, is_cut = float_at(row + TEMPERATURE), has_cut(row, vocab_size)
    wants_logprob = tl.load(row + WANTS_LOGPROB)
    line = block * _LINES + tl.arange(0, _LINES)[:, None]
    token = line * 32 + tl.arange(0, 32)[None, :]
    raw = tl.load(logits + index * stride + token, mask=token < vocab_size, other=0.0).to(tl.float32)
    is_finite = tl.abs(raw) < float("inf")
    raw = tl.where(is_finite, raw, 0.0)
    x = effective(raw, token, line, effects)
    best = tl.max(tl.max(x, 1), 0)
    values = block_values + index * 4 * num_blocks + block
    ids = block_ids + index * 2 * num_blocks + block
    tl.store(values, best)
    tl.store(ids + num_blocks, tl.sum(tl.sum((~is_finite).to(tl.int32), 1), 0))
    if temperature > 0:
        highest = tl.where(best == float("-inf"), 0.0, best)
        tl.store(values + num_blocks, tl.sum(tl.sum(tl.exp2((x - highest) * (LOG2_E / temperature)), 1), 0))
        if is_cut:
            maxima = tl.max(tl.reshape(tl.max(x, 1), [_GROUPS, _GROUP // 32]), 1)
            tl.store(group_max + (index * num_blocks + block) * _GROUPS + tl.arange(0, _GROUPS), maxima)
    else:
        tl.store(ids, tl.min(tl.min(tl.where(x == best, token, _NEVER), 1), 0))
    if wants_logprob != 0:
        raw = tl.where(token < vocab_size, raw, float("-inf"))
        highest = tl.max(tl.max(raw, 1), 0)
        tl.store(values + 2 * num_blocks, highest)
        tl.store(values + 3 * num_blocks, tl.sum(tl.sum(tl.exp2((raw - highest) * LOG2_E), 1), 0))


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
    bins,
    vocab_size,
    stride,
    mask_len,
    num_blocks,
    BLOCKS: tl.constexpr,
    BINS: tl.constexpr,
):
    """One program a row: from its blocks to its token."""
    index = tl.program_id(0).to(tl.int64)
    row_id = tl.load(row_ids + index).to(tl.int64)
    row = words + row_id * ROW_LEN
    effects = effects_of(row, masks + row_id * mask_len, seen, bias, vocab_size, mask_len)
    logits += index * stride
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
        temperature = float_at(row + TEMPERATURE)
        if temperature == 0:
            best_ids = tl.load(block_ids + block, mask=inside, other=_NEVER)
            token = tl.min(tl.where(highest == best, best_ids, _NEVER), 0)
        else:
            scale = LOG2_E / temperature
            mass = tl.load(block_values + num_blocks + block, mask=inside, other=0.0)
            mass = mass.to(tl.float64) * tl.exp2((highest - best) * scale).to(tl.float64)
            bits = uniform_bits(tl.load((row + SEED).to(tl.pointer_type(tl.int64))), tl.load(row + POSITION))
            if has_cut(row, vocab_size):
                num_groups = num_blocks * _GROUPS
                group = tl.arange(0, BLOCKS * _GROUPS)
                group_max += index * num_groups
                maxima = tl.load(group_max + group, mask=group < num_groups, other=float("-inf"))
                total = tl.sum(mass, 0)
                bound = bound_of(maxima, best, scale, total, row, vocab_size)
                groups += index * num_groups
                values += index * vocab_size
                ids += index * vocab_size
                count = find_candidates(logits, effects, maxima, group, bound, groups, values, ids, vocab_size)
                found = values, ids, count, best, scale
                token = draw_cut(found, bins + index * BINS, bound, total, bits, row, vocab_size)
            else:
                token = _draw_plain(logits, effects, block, highest, mass, scale, bits, vocab_size)
    tl.store(row + DRAWN, token)
    logprob = tl.full((), 0.0, tl.float32)
    if (tl.load(row + WANTS_LOGPROB) != 0) & (token >= 0):
        highest = tl.load(block_values + 2 * num_blocks + block, mask=inside, other=float("-inf"))
        raw_best = tl.max(highest, 0)
        mass = tl.load(block_values + 3 * num_blocks + block, mask=inside, other=0.0)
        mass = tl.sum(mass * tl.exp2((highest - raw_best) * LOG2_E), 0)
        logprob = tl.load(logits + token).to(tl.float32) - raw_best - tl.log(mass)
    tl.store((row + DRAWN_LOGPROB).to(tl.pointer_type(tl.float32)), logprob)


@triton.jit
def _draw_plain(logits, effects, block, highest, mass, scale, bits, vocab_size):
    """Chooses a block by its share of the mass, then a token in it, by the part of the share that is left."""
    weight = (mass * _BLOCK_UNIT).to(tl.int64)
    reached = tl.cumsum(weight, 0)
    target = share_of(bits, tl.sum(weight, 0))
    chosen = tl.min(tl.where(reached > target, block, _NEVER), 0)
    is_chosen = block == chosen
    chosen_weight = tl.sum(tl.where(is_chosen, weight, 0), 0)
    rest = target - tl.sum(tl.where(is_chosen, reached - weight, 0), 0)
    token = chosen * _BLOCK + tl.arange(0, _BLOCK)
    x = tl.load(logits + token, mask=token < vocab_size, other=0.0).to(tl.float32)
    x = effective(x, token, token // 32, effects)
    token_mass = mass_of(x, tl.max(tl.where(is_chosen, highest, float("-inf")), 0), scale)
    total = tl.sum(token_mass, 0)
    share = (rest.to(tl.float64) / chosen_weight.to(tl.float64) * total.to(tl.float64)).to(tl.int64)
    share = tl.minimum(share, total - 1)
    return tl.min(tl.where(tl.cumsum(token_mass, 0) > share, token, _NEVER), 0)
