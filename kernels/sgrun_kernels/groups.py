"""Rows of which few tokens are likely: the groups of 32 tokens that hold them, listed, in Triton.

The highest token of each group is known from the scan. From a logit on from which these alone are enough, no other
group has a token that is kept; most rows of a language model keep a few hundred tokens at most, so one program looks
through their groups, in place of all programs twice through all logits.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sgrun_kernels.effects import effective_at
from sgrun_kernels.strips import GROUPS, tokens_of_groups

AT_ONCE = tl.constexpr(128)
_HALVINGS = tl.constexpr(10)


@triton.jit
def list_groups(
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
    BANDS: tl.constexpr,
    MAX_GROUPS: tl.constexpr,
):
    """(a logit from which on there are tokens enough; the number of groups that have some, 0 if they do not fit).

    The highest tokens of groups alone are enough, in number or in mass: the others can only make the cut higher.
    """
    number = tl.arange(0, BANDS * GROUPS)
    x = tl.load(group_maxes + number, mask=number < num_bands * GROUPS, other=float("-inf"))
    has_top_k = top_k < vocab_size
    worth = tl.where(has_top_k, 1.0, tl.exp2((x - best) * scale))
    needed = tl.where(has_top_k, top_k.to(tl.float32), top_p * total * (1 + 1e-5))
    too_high = best
    for _ in range(tl.where(is_searched, _HALVINGS, 0)):
        middle = (low + too_high) * 0.5
        is_low = tl.sum(tl.where(x >= middle, worth, 0.0), 0) >= needed
        low = tl.where(is_low, middle, low)
        too_high = tl.where(is_low, too_high, middle)
    is_listed = x >= low
    num = tl.sum(is_listed.to(tl.int32), 0)
    num = tl.where(num <= MAX_GROUPS, num, 0)
    if num > 0:
        place = tl.cumsum(is_listed.to(tl.int32), 0) - 1
        tl.store(groups + place, number, mask=is_listed)
    return low, num


@triton.jit
def load_groups(logits, groups, first, effects):
    """(logits [128, 4, 8] of the groups from the `first` of a list on as they count for the draw, see `effective`, and
    -inf behind the list; their tokens). `groups`: (pointer to the list, its length)."""
    number = first + tl.arange(0, AT_ONCE)
    token = tokens_of_groups(tl.load(groups[0] + number, mask=number < groups[1], other=0))
    inside = (number < groups[1])[:, None, None] & (token < effects[4])
    x = tl.load(logits + token, mask=inside, other=float("-inf")).to(tl.float32)
    return effective_at(x, token, inside, effects), token
