"""A row of logits as strips of 256 tokens, which one warp reads at once, and bands of four strips, in Triton.

The strips of a tile are in an order in which those of a band lie in one warp: sums over bands need no barrier if there
are as many as warps. A tile's tokens are [TILE, 256] or [4, BANDS, 256], what belongs to a band is [BANDS].
"""

from __future__ import annotations

import triton
import triton.language as tl

from sgrun_kernels import workspace

STRIP = tl.constexpr(workspace.STRIP)
LINE = tl.constexpr(workspace.LINE)
LINES = tl.constexpr(workspace.STRIP // workspace.LINE)  # of a strip
GROUPS = tl.constexpr(workspace.GROUPS)  # of a band
RUN = tl.constexpr(workspace.STRIP // workspace.GROUPS)  # tokens in a row of a group
GROUP = tl.constexpr(workspace.BAND // workspace.GROUPS)  # tokens of one
BAND = tl.constexpr(workspace.BAND // workspace.STRIP)  # strips of a band


@triton.jit
def strips_of(first_strip, TILE: tl.constexpr):
    """Numbers [TILE] of the strips of a tile: the first of each band, then the second of each, and so on."""
    number = tl.arange(0, TILE)
    bands: tl.constexpr = max(TILE // BAND, 1)
    return first_strip + number % bands * BAND + number // bands


@triton.jit
def bands_of(first_strip, TILE: tl.constexpr):
    """Numbers [BANDS] of the bands of a tile."""
    return first_strip // BAND + tl.arange(0, TILE // BAND)


@triton.jit
def tokens_of(first_strip, TILE: tl.constexpr):
    """Ids [TILE, 256] of strips."""
    return strips_of(first_strip, TILE)[:, None] * STRIP + tl.arange(0, STRIP)[None, :]


@triton.jit
def lines_of(first_strip, TILE: tl.constexpr):
    """Numbers [TILE, 8] of the lines of strips: the words of a bitmask."""
    return strips_of(first_strip, TILE)[:, None] * LINES + tl.arange(0, LINES)[None, :]


@triton.jit
def load_tile(logits, first_strip, vocab_size, TILE: tl.constexpr):
    """Logits [TILE, 256] of strips; 0 beyond the vocabulary."""
    token = tokens_of(first_strip, TILE)
    return tl.load(logits + token, mask=token < vocab_size, other=0.0)


@triton.jit
def by_band(x):
    """[4, BANDS, 256] of [TILE, 256]."""
    return tl.reshape(x, [BAND, x.shape[0] // BAND, STRIP])


@triton.jit
def max_of_groups(x):
    """[BANDS, 32] of [4, BANDS, 256]: a group is what one thread has of a band, eight tokens of each of its strips."""
    return tl.max(tl.max(tl.reshape(x, [BAND, x.shape[1], GROUPS, RUN]), 3), 0)


@triton.jit
def first_of_groups(x):
    """[BANDS, 32] of [4, BANDS, 256]: the first token of each group."""
    x = tl.reshape(x, [BAND, x.shape[1], GROUPS, RUN])
    strip, token = tl.arange(0, BAND)[:, None, None, None], tl.arange(0, RUN)[None, None, None, :]
    return tl.max(tl.max(tl.where((strip == 0) & (token == 0), x, float("-inf")), 3), 0)


@triton.jit
def max_of_bands(x):
    """[BANDS] of [4, BANDS, 256]."""
    return tl.max(max_of_groups(x), 1)


@triton.jit
def sum_of_groups(x):
    """[BANDS, 32] of [4, BANDS, 256]."""
    return tl.sum(tl.sum(tl.reshape(x, [BAND, x.shape[1], GROUPS, RUN]), 3), 0)


@triton.jit
def sum_of_bands(x):
    """[BANDS] of [4, BANDS, 256]."""
    return tl.sum(sum_of_groups(x), 1)


@triton.jit
def tokens_of_groups(group):
    """Ids [NUM, 4, 8] of groups [NUM]."""
    first = group // GROUPS * (BAND * STRIP) + group % GROUPS * RUN
    return first[:, None, None] + tl.arange(0, BAND)[None, :, None] * STRIP + tl.arange(0, RUN)[None, None, :]


@triton.jit
def finite(highest):
    """What to subtract from logits whose highest this is: 0 where there are none."""
    return tl.where(highest == float("-inf"), 0.0, highest)
