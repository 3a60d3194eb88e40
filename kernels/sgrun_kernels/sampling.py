"""Sampling in Triton, three launches for rows of any mix: one reads the logits once, strip by strip; the second reads
those of rows with top_k or top_p, to find where to cut; the third draws, and reads the logits of rows with a cut again.

Which token is drawn depends on float32 logits and masses, on sums of float32 within a strip of 256 tokens, and else on
integers; so neither the other rows nor a row's place have a part in it. What float32 leaves: a token's probability is
right to about 1e-6 of itself, one below 1e-12 of the likeliest is 0, and the edge of top_p or min_p may lie one token
off where a token reaches it to 1e-6.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgrun_kernels.cuts import find_bracket, has_cut, is_last, is_plain
from sgrun_kernels.draws import draw, draw_plain, finish
from sgrun_kernels.effects import effective, effects_of, float_at, has_mask_alone, mask_alone
from sgrun_kernels.fields import (
    ADJUSTMENT,
    ROW_LEN,
    TEMPERATURE,
    TOP_K,
    TOP_P,
    WANTS_LOGPROB,
)
from sgrun_kernels.histograms import BINS, fill, find_cut, range_of
from sgrun_kernels.masses import LOG2_E, UNIT, mass_of
from sgrun_kernels.overlap import await_previous, launch_options, release_next
from sgrun_kernels.reference_sampling import top_logprobs
from sgrun_kernels.rows import Adjustments, Rows, lanes_of
from sgrun_kernels.strips import LINE, LINES, STRIP, finite, lines_of, load_tile, tokens_of
from sgrun_kernels.workspace import SampleWorkspace

__all__ = ["sample_", "top_logprobs"]

# The settings are measured: a program reads PARTS tiles of strips, all at once where a row has a bitmask at most; with
# the registers that the compiler would like to have, fewer programs are under way, and it is slower.
PARTS = 4
SCAN_TILE = 4
SCAN_WARPS = 4
SCAN_REGISTERS = 80
CUT_TILE = 8
CUT_WARPS = 8
CUT_PROGRAMS = 396  # three for each of 132 multiprocessors
CUT_REGISTERS = 80
# Strips of a row, padded: no fewer than a program has threads. With one, Triton 3.6 makes code that reads beyond its
# shared memory.
MIN_STRIPS = 256
ZERO_BITS = {torch.bfloat16: 16, torch.float16: 13, torch.float32: 0}  # of a logit in float32


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
    num_strips = workspace.stats.shape[2]
    assert logits.stride(1) == 1, logits.stride()
    assert num_rows <= len(workspace.stats), (num_rows, len(workspace.stats))
    assert num_strips == triton.cdiv(vocab_size, STRIP.value), (num_strips, vocab_size)
    assert adjustments.bias.shape[1] == vocab_size, (adjustments.bias.shape, vocab_size)
    shared = (
        logits,
        row_ids,
        rows.words,
        masks,
        adjustments.seen,
        adjustments.bias,
        workspace.stats,
        workspace.brackets,
        workspace.num_ties,
    )
    sizes = vocab_size, logits.stride(0), masks.shape[1], num_strips
    strips = max(triton.next_power_of_2(num_strips), MIN_STRIPS)
    scan_arrivals, count_arrivals, keep_arrivals = workspace.arrivals
    _scan_kernel[(triton.cdiv(num_strips, SCAN_TILE * PARTS), num_rows)](
        *shared,
        workspace.samples,
        scan_arrivals,
        *sizes,
        STRIPS=strips,
        TILE=SCAN_TILE,
        PARTS=PARTS,
        num_warps=SCAN_WARPS,
        maxnreg=SCAN_REGISTERS,
    )
    programs = min(num_rows * triton.cdiv(num_strips, CUT_TILE * PARTS), CUT_PROGRAMS)
    lanes = lanes_of(num_rows, rows)
    _count_kernel[(programs,)](
        *shared,
        workspace.counts,
        workspace.masses,
        workspace.above,
        count_arrivals,
        num_rows,
        *sizes,
        STRIPS=strips,
        TILE=CUT_TILE,
        PARTS=PARTS,
        ROWS=lanes,
        ZERO_BITS=ZERO_BITS[logits.dtype],
        num_warps=CUT_WARPS,
        maxnreg=CUT_REGISTERS,
        **launch_options(),
    )
    _draw_kernel[(num_rows + programs,)](
        *shared,
        workspace.kept,
        workspace.ties,
        keep_arrivals,
        num_rows,
        *sizes,
        STRIPS=strips,
        TILE=CUT_TILE,
        PARTS=PARTS,
        ROWS=lanes,
        num_warps=CUT_WARPS,
        maxnreg=CUT_REGISTERS,
        **launch_options(),
    )


@triton.jit
def _scan_kernel(
    logits,
    row_ids,
    words,
    masks,
    seen,
    bias,
    stats,
    brackets,
    num_ties,
    samples,
    arrivals,
    vocab_size,
    stride,
    mask_len,
    num_strips,
    STRIPS: tl.constexpr,
    TILE: tl.constexpr,
    PARTS: tl.constexpr,
):
    """One program for each tile of each row. Rows with cuts also take samples, and the last program of such a row says
    between which logits the cut lies."""
    index = tl.program_id(1).to(tl.int64)
    first = tl.program_id(0) * TILE * PARTS
    logits += index * stride
    row_id = tl.load(row_ids + index).to(tl.int64)
    row = words + row_id * ROW_LEN
    effects = effects_of(row, masks, seen, bias, vocab_size, mask_len)
    temperature = float_at(row + TEMPERATURE)
    scale = tl.where(temperature > 0, LOG2_E / tl.where(temperature > 0, temperature, 1.0), 0.0)
    is_cut = (temperature > 0) & has_cut(row, vocab_size)
    wants_logprob = tl.load(row + WANTS_LOGPROB)
    stats += index * 4 * num_strips
    samples += index * num_strips * LINES
    if has_mask_alone(effects):
        _scan(
            logits, first, mask_alone(effects), scale, is_cut, wants_logprob, stats, samples, num_strips, TILE * PARTS
        )
    else:
        for part in range(PARTS):
            _scan(logits, first + part * TILE, effects, scale, is_cut, wants_logprob, stats, samples, num_strips, TILE)
    if is_cut:
        if is_last(arrivals + index, tl.num_programs(0)):
            find_bracket(stats, samples, brackets + index * 4, num_ties + index, row, vocab_size, num_strips, STRIPS)
    elif first == 0:
        tl.store(brackets + index * 4, float("nan"))


@triton.jit
def _scan(logits, first, effects, scale, is_cut, wants_logprob, stats, samples, num_strips, TILE: tl.constexpr):
    """Writes what there is to know of a tile of logits. `scale`: log2(e) / temperature, 0 for greedy rows."""
    raw = load_tile(logits, first, effects[4], TILE).to(tl.float32)
    strip = first + tl.arange(0, TILE)
    inside = strip < num_strips
    if wants_logprob != 0:
        likely = tl.where(tokens_of(first, TILE) < effects[4], raw, float("-inf"))
        highest = tl.max(likely, 1)
        tl.store(stats + 2 * num_strips + strip, highest, mask=inside)
        raw_mass = tl.sum(tl.exp2((likely - finite(highest)[:, None]) * LOG2_E), 1)
        tl.store(stats + 3 * num_strips + strip, raw_mass, mask=inside)
    x = effective(raw, first, effects)
    highest = tl.max(x, 1)
    mass = raw * 0.0  # NaN where a logit is not finite
    if scale > 0:
        mass += tl.exp2((x - finite(highest)[:, None]) * scale)
    tl.store(stats + strip, highest, mask=inside)
    tl.store(stats + num_strips + strip, tl.sum(mass, 1), mask=inside)
    if is_cut:
        line = lines_of(first, TILE)
        chosen = (line * -1640531535 >> 27) & (LINE - 1)  # spread by Knuth's multiplier, 2^32 / golden ratio
        is_sample = tl.arange(0, LINE)[None, None, :] == chosen[:, :, None]
        sample = tl.sum(tl.where(is_sample, tl.reshape(x, [TILE, LINES, LINE]), 0.0), 2)
        tl.store(samples + line, sample, mask=inside[:, None])


@triton.jit(do_not_specialize=["num_rows"])
def _count_kernel(
    logits,
    row_ids,
    words,
    masks,
    seen,
    bias,
    stats,
    brackets,
    num_ties,
    counts,
    bin_masses,
    above,
    arrivals,
    num_rows,
    vocab_size,
    stride,
    mask_len,
    num_strips,
    STRIPS: tl.constexpr,
    TILE: tl.constexpr,
    PARTS: tl.constexpr,
    ROWS: tl.constexpr,
    ZERO_BITS: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    """The programs share the tiles of the rows whose cut is to be found; the last one of a row finds it. ZERO_BITS: how
    many bits of a logit in float32 are 0 for sure."""
    await_previous(OVERLAPS, RELEASES=False)
    lane = tl.arange(0, ROWS)
    low = tl.load(brackets + lane * 4, mask=lane < num_rows, other=float("nan"))
    high = tl.load(brackets + lane * 4 + 1, mask=lane < num_rows, other=float("nan"))
    rank = tl.cumsum((high > low).to(tl.int32), 0)
    num_tiles = tl.cdiv(num_strips, TILE * PARTS)
    for item in range(tl.program_id(0), tl.max(rank, 0) * num_tiles, tl.num_programs(0)):
        index = tl.min(tl.where(rank == item // num_tiles + 1, lane, ROWS), 0).to(tl.int64)
        row_id = tl.load(row_ids + index).to(tl.int64)
        row = words + row_id * ROW_LEN
        effects = effects_of(row, masks, seen, bias, vocab_size, mask_len)
        bracket = brackets + index * 4
        scale = LOG2_E / float_at(row + TEMPERATURE)
        logits_of = logits + index * stride, effects, tl.load(bracket + 2), scale, num_strips
        bins_of = counts + index * BINS, bin_masses + index * BINS, above + index
        zero_bits = tl.where(tl.load(row + ADJUSTMENT) < 0, ZERO_BITS, 0)
        by_count, by_mass = tl.load(row + TOP_K) < vocab_size, float_at(row + TOP_P) < 1
        lowest, highest = range_of(bracket, zero_bits)
        first, mass = item % num_tiles * TILE * PARTS, tl.full((), 0, tl.int64)
        for part in range(PARTS):
            mass += fill(first + part * TILE, logits_of, bins_of, lowest, highest, zero_bits, by_count, by_mass, TILE)
        tl.atomic_add(above + index, mass, sem="relaxed")
        if is_last(arrivals + index, num_tiles):
            total = _total_mass(stats + index * 4 * num_strips, scale, num_strips, STRIPS)
            find_cut(logits_of, bins_of, bracket, num_ties + index, total, zero_bits, row, vocab_size, TILE)
    release_next(OVERLAPS)


@triton.jit
def _total_mass(stats, scale, num_strips, STRIPS: tl.constexpr):
    """Of all tokens, in units of the likeliest, float64."""
    strip = tl.arange(0, STRIPS)
    highest = tl.load(stats + strip, mask=strip < num_strips, other=float("-inf"))
    mass = tl.load(stats + num_strips + strip, mask=strip < num_strips, other=0.0)
    return tl.sum(mass.to(tl.float64) * tl.exp2((highest - tl.max(highest, 0)) * scale).to(tl.float64), 0)


@triton.jit(do_not_specialize=["num_rows"])
def _draw_kernel(
    logits,
    row_ids,
    words,
    masks,
    seen,
    bias,
    stats,
    brackets,
    num_ties,
    kept,
    ties,
    arrivals,
    num_rows,
    vocab_size,
    stride,
    mask_len,
    num_strips,
    STRIPS: tl.constexpr,
    TILE: tl.constexpr,
    PARTS: tl.constexpr,
    ROWS: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    """A program for each row without a cut; those behind them share the tiles of the others, to sum what is kept. The
    last one of a row draws."""
    await_previous(OVERLAPS)
    strip = tl.arange(0, STRIPS)
    if tl.program_id(0) < num_rows:
        index = tl.program_id(0).to(tl.int64)
        stats += index * 4 * num_strips
        highest = tl.load(stats + strip, mask=strip < num_strips, other=float("-inf"))
        mass = tl.load(stats + num_strips + strip, mask=strip < num_strips, other=0.0)
        row_id = tl.load(row_ids + index).to(tl.int64)
        row = words + row_id * ROW_LEN
        effects = effects_of(row, masks, seen, bias, vocab_size, mask_len)
        logits += index * stride
        if is_plain(brackets + index * 4):
            token = draw_plain(logits, effects, highest, mass, row)
            finish(token, logits, stats, row, num_strips, STRIPS)
    else:
        lane = tl.arange(0, ROWS)
        low = tl.load(brackets + lane * 4, mask=lane < num_rows, other=float("nan"))
        rank = tl.cumsum((low == low).to(tl.int32), 0)
        num_tiles = tl.cdiv(num_strips, TILE * PARTS)
        for item in range(tl.program_id(0) - num_rows, tl.max(rank, 0) * num_tiles, tl.num_programs(0) - num_rows):
            index = tl.min(tl.where(rank == item // num_tiles + 1, lane, ROWS), 0).to(tl.int64)
            row_id = tl.load(row_ids + index).to(tl.int64)
            row = words + row_id * ROW_LEN
            effects = effects_of(row, masks, seen, bias, vocab_size, mask_len)
            own, own_kept, own_ties = logits + index * stride, kept + index * num_strips, ties + index * num_strips
            best, cut = tl.load(brackets + index * 4 + 2), tl.load(brackets + index * 4 + 3)
            scale = LOG2_E / float_at(row + TEMPERATURE)
            first = item % num_tiles * TILE * PARTS
            if has_mask_alone(effects):
                _keep(own, first, mask_alone(effects), best, cut, scale, own_kept, own_ties, num_strips, TILE * PARTS)
            else:
                for part in range(PARTS):
                    _keep(own, first + part * TILE, effects, best, cut, scale, own_kept, own_ties, num_strips, TILE)
            if is_last(arrivals + index, num_tiles):
                own_stats = stats + index * 4 * num_strips
                highest = tl.load(own_stats + strip, mask=strip < num_strips, other=float("-inf"))
                weight = (tl.load(own_kept + strip, mask=strip < num_strips, other=0.0) * UNIT).to(tl.int64)
                num_at_cut = tl.load(own_ties + strip, mask=strip < num_strips, other=0)
                before = tl.cumsum(num_at_cut, 0) - num_at_cut
                kept_ties = tl.minimum(tl.maximum(tl.load(num_ties + index) - before, 0), num_at_cut)
                weight += kept_ties * mass_of(cut, best, scale)
                token = draw(own, effects, weight, kept_ties, highest, cut, scale, row)
                finish(token, own, own_stats, row, num_strips, STRIPS)


@triton.jit
def _keep(logits, first, effects, best, cut, scale, kept, ties, num_strips, TILE: tl.constexpr):
    """Writes the mass above the cut and the number of tokens at it of each strip of a tile."""
    strip = first + tl.arange(0, TILE)
    x = effective(load_tile(logits, first, effects[4], TILE).to(tl.float32), first, effects)
    mass = tl.where(x > cut, tl.exp2((x - best) * scale), 0.0)
    tl.store(kept + strip, tl.sum(mass, 1), mask=strip < num_strips)
    tl.store(ties + strip, tl.sum((x == cut).to(tl.int32), 1), mask=strip < num_strips)
