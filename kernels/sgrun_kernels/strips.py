"""A row of logits as strips of 256 tokens, eight lines of 32 each: what one warp reads at once, in Triton.

Rows of a tile lie in one warp each, so that sums over them need no barrier.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sgrun_kernels import workspace

STRIP = tl.constexpr(workspace.STRIP)
LINE = tl.constexpr(workspace.LINE)
LINES = tl.constexpr(workspace.STRIP // workspace.LINE)  # of a strip


@triton.jit
def tokens_of(first_strip, TILE: tl.constexpr):
    """Ids [TILE, 256] of strips."""
    return (first_strip + tl.arange(0, TILE))[:, None] * STRIP + tl.arange(0, STRIP)[None, :]


@triton.jit
def lines_of(first_strip, TILE: tl.constexpr):
    """Numbers [TILE, 8] of the lines of strips: the words of a bitmask."""
    return (first_strip + tl.arange(0, TILE))[:, None] * LINES + tl.arange(0, LINES)[None, :]


@triton.jit
def load_tile(logits, first_strip, vocab_size, TILE: tl.constexpr):
    """Logits [TILE, 256] of strips; 0 beyond the vocabulary."""
    token = tokens_of(first_strip, TILE)
    return tl.load(logits + token, mask=token < vocab_size, other=0.0)


@triton.jit
def finite(highest):
    """What to subtract from logits whose highest this is: 0 where there are none."""
    return tl.where(highest == float("-inf"), 0.0, highest)
