"""Sampling in Triton, two launches for rows of any mix: one reads the logits once, band by band; the second draws. Of
rows with top_k, top_p or min_p it first looks through the groups that hold all likely tokens, or, where these are many,
reads all logits again, once to find where to cut and once to sum what is kept.

Which token is drawn depends on float32 logits and masses, on sums of float32 within a band of 1,024 tokens (15
additions from any token to its sum), and else on integers; so neither the other rows nor a row's place have a part in
it. What float32 leaves: a token's probability is right to about 1e-6 of itself, one below 1e-12 of the likeliest is 0,
and the edge of top_p or min_p may lie one token off where a token reaches it to 1e-6.
"""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgrun_kernels.cuts import BINS, is_last, is_plain
from sgrun_kernels.draws import draw, draw_plain, finish, uniform_bits_of
from sgrun_kernels.effects import effective, effects_of, float_at, has_mask_alone, mask_alone
from sgrun_kernels.fields import (
    ADJUSTMENT,
    ROW_LEN,
    TEMPERATURE,
    TOP_K,
    TOP_P,
)
from sgrun_kernels.groups import AT_ONCE, load_groups
from sgrun_kernels.histograms import bins_between, fill, find_cut, range_of
from sgrun_kernels.masses import LOG2_E, UNIT, mass_of
from sgrun_kernels.overlap import await_previous, launch_options
from sgrun_kernels.reference_sampling import top_logprobs
from sgrun_kernels.rows import Adjustments, Rows
from sgrun_kernels.scan import scan_kernel
from sgrun_kernels.strips import (
    BAND,
    STRIP,
    bands_of,
    by_band,
    load_tile,
    sum_of_bands,
)
from sgrun_kernels.workspace import SampleWorkspace

__all__ = ["sample_", "top_logprobs"]

# The settings are measured: a program reads a tile of strips at once where a row has a bitmask at most, else one band
# after the other; with the registers that the compiler would like to have, fewer programs are under way.
SCAN_TILE = 16
SCAN_WARPS = 4
DRAW_TILE = 16
DRAW_WARPS = 8
SCAN_REGISTERS = 64
DRAW_REGISTERS = 128
DRAW_PROGRAMS = 2  # of a multiprocessor
# Bands of a row, padded, as many as of a large vocabulary: with one, Triton 3.6 makes code that reads beyond its shared
# memory; with these, compute-sanitizer finds nothing.
MIN_BANDS = 128
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
    num_bands = workspace.stats.shape[2]
    assert logits.stride(1) == 1, logits.stride()
    assert num_rows <= len(workspace.stats), (num_rows, len(workspace.stats))
    assert num_bands == triton.cdiv(vocab_size, BAND.value * STRIP.value), (num_bands, vocab_size)
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
        workspace.counts,
        workspace.groups,
        workspace.num_groups,
        workspace.queues,
        workspace.num_queued,
    )
    sizes = vocab_size, logits.stride(0), masks.shape[1], num_bands, workspace.queues.shape[1]
    bands = max(triton.next_power_of_2(num_bands), MIN_BANDS)
    options = launch_options()
    scan_kernel[(triton.cdiv(num_bands, SCAN_TILE // BAND.value), num_rows)](
        *shared,
        workspace.group_maxes,
        workspace.arrivals,
        *sizes,
        BANDS=bands,
        MAX_GROUPS=workspace.groups.shape[1],
        TILE=SCAN_TILE,
        OVERLAPS=options["OVERLAPS"],
        num_warps=SCAN_WARPS,
        maxnreg=SCAN_REGISTERS,
    )
    num_tiles = triton.cdiv(num_bands, DRAW_TILE // BAND.value)
    programs = min(num_rows * num_tiles, _max_programs(logits.device))
    _draw_kernel[(max(num_rows, programs),)](
        *shared,
        workspace.masses,
        workspace.above,
        workspace.kept,
        workspace.ties,
        workspace.arrivals,
        num_rows,
        *sizes,
        BANDS=bands,
        MAX_GROUPS=workspace.groups.shape[1],
        TILE=DRAW_TILE,
        ZERO_BITS=ZERO_BITS[logits.dtype],
        num_warps=DRAW_WARPS,
        maxnreg=DRAW_REGISTERS,
        **options,
    )


@functools.cache
def _max_programs(device: torch.device) -> int:
    """How many programs share the tiles of rows with a cut: as many as run at once."""
    is_gpu = device.type == "cuda"
    return DRAW_PROGRAMS * torch.cuda.get_device_properties(device).multi_processor_count if is_gpu else 2


@triton.jit
def _total_mass(stats, scale, num_bands, BANDS: tl.constexpr):
    """Of all tokens, in units of the likeliest, float64."""
    band = tl.arange(0, BANDS)
    highest = tl.load(stats + band, mask=band < num_bands, other=float("-inf"))
    mass = tl.load(stats + num_bands + band, mask=band < num_bands, other=0.0)
    return tl.sum(mass.to(tl.float64) * tl.exp2((highest - tl.max(highest, 0)) * scale).to(tl.float64), 0)


@triton.jit(do_not_specialize=["num_rows", "max_rows"])
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
    counts,
    groups,
    num_groups,
    queues,
    num_queued,
    bin_masses,
    above,
    kept,
    ties,
    arrivals,
    num_rows,
    vocab_size,
    stride,
    mask_len,
    num_bands,
    max_rows,
    BANDS: tl.constexpr,
    MAX_GROUPS: tl.constexpr,
    TILE: tl.constexpr,
    ZERO_BITS: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    """Draws rows without a cut. Then the programs share rows with a listed cut; the tiles of rows whose cut is to be
    found, and the last program of a row finds it; and those of all rows with a cut, to sum what is kept, and the last
    one of a row draws. They take them in this order, so that one that waits for a cut waits for others at work.
    ZERO_BITS: how many bits of a logit in float32 are 0 for sure. `num_queued`: length of each queue, programs that
    have ended, items taken."""
    start = tl.program_id(0)
    count_arrivals, keep_arrivals, found = arrivals + max_rows, arrivals + 2 * max_rows, arrivals + 3 * max_rows
    index = tl.minimum(start, num_rows - 1).to(tl.int64)
    row_id = tl.load(row_ids + index).to(tl.int64)
    row = words + row_id * ROW_LEN
    effects = effects_of(row, masks, seen, bias, vocab_size, mask_len)
    bits = uniform_bits_of(row)
    await_previous(OVERLAPS)
    own, own_stats = logits + index * stride, stats + index * 4 * num_bands
    band = tl.arange(0, BANDS)
    inside = band < num_bands
    highest = tl.load(own_stats + band, mask=inside, other=float("-inf"))
    mass = tl.load(own_stats + num_bands + band, mask=inside, other=0.0)
    is_listed, is_plain_row = tl.load(num_groups + index) > 0, is_plain(brackets + index * 4)
    if (start < num_rows) & is_plain_row:
        token = draw_plain(own, effects, highest, mass, row, bits)
        finish(token, own, own_stats, row, num_bands, BANDS)
    num_tiles = tl.cdiv(num_bands, TILE // BAND)
    num_counts = tl.load(num_queued) * num_tiles
    num_items = num_counts + tl.load(num_queued + 1) * num_tiles
    item = tl.full((), -1, tl.int32)
    if (start >= num_rows) | is_plain_row | (is_listed == 0):
        item = _next_item(num_queued, num_items)
    while item < num_items:
        is_row, is_count = item < 0, (item >= 0) & (item < num_counts)
        place = tl.maximum(item - tl.where(is_count, 0, num_counts), 0)
        first = place % num_tiles * TILE
        if is_row == 0:
            index = tl.load(queues + place // num_tiles + tl.where(is_count, 0, max_rows)).to(tl.int64)
        own = logits + index * stride
        row_id = tl.load(row_ids + index).to(tl.int64)
        raw = load_tile(own, first, tl.where(is_row, 0, vocab_size), TILE)
        tl.debug_barrier()  # the loads are not put off, as in the scan
        row = words + row_id * ROW_LEN
        effects = effects_of(row, masks, seen, bias, vocab_size, mask_len)
        scale = LOG2_E / float_at(row + TEMPERATURE)
        zero_bits = tl.where(tl.load(row + ADJUSTMENT) < 0, ZERO_BITS, 0)
        bracket, own_stats = brackets + index * 4, stats + index * 4 * num_bands
        bins_of = counts + index * BINS, bin_masses + index * BINS, above + index
        listed_groups = groups + index * MAX_GROUPS, tl.load(num_groups + index)
        own_kept, own_ties = kept + index * num_bands, ties + index * num_bands
        is_searched = tl.load(bracket) < tl.load(bracket + 1)
        finds, draws = is_row & is_searched, is_row
        if is_row:
            if is_searched:
                _count_groups(own, effects, listed_groups, scale, bracket, bins_of, row, zero_bits)
        elif is_count:
            _count(raw, own, first, effects, scale, bracket, bins_of, row, zero_bits, TILE)
            finds = is_last(count_arrivals + index, num_tiles)
        if finds:
            total = _total_mass(own_stats, scale, num_bands, BANDS)
            logits_of = own, effects, tl.load(bracket + 2), scale, num_bands * BAND, listed_groups
            find_cut(logits_of, bins_of, bracket, num_ties + index, total, zero_bits, row, vocab_size)
            tl.debug_barrier()
            if is_row == 0:
                tl.atomic_xchg(found + index, 1)
        if is_row:
            _keep_groups(own, effects, listed_groups, scale, bracket, bins_of)
        elif is_count == 0:
            if is_searched:
                while tl.atomic_add(found + index, 0, sem="acquire") == 0:
                    pass
            _keep(raw, own, first, effects, scale, bracket, own_kept, own_ties, num_bands, TILE)
            draws = is_last(keep_arrivals + index, num_tiles)
        if draws:
            tl.store(found + index, 0)
            if is_row:
                weight = tl.load(bins_of[1] + band, mask=inside, other=0)
                num_at_cut = tl.load(bins_of[0] + band, mask=inside, other=0)
                tl.debug_barrier()
                tl.store(bins_of[1] + band, tl.zeros((BANDS,), tl.int64), mask=inside)
                tl.store(bins_of[0] + band, tl.zeros((BANDS,), tl.int32), mask=inside)
            else:
                weight = (tl.load(own_kept + band, mask=inside, other=0.0) * UNIT).to(tl.int64)
                num_at_cut = tl.load(own_ties + band, mask=inside, other=0)
            highest = tl.load(own_stats + band, mask=inside, other=float("-inf"))
            best, cut = tl.load(bracket + 2), tl.load(bracket + 3)
            before = tl.cumsum(num_at_cut, 0) - num_at_cut
            kept_ties = tl.minimum(tl.maximum(tl.load(num_ties + index) - before, 0), num_at_cut)
            weight += kept_ties * mass_of(cut, best, scale)
            token = draw(own, effects, weight, kept_ties, highest, cut, scale, row, uniform_bits_of(row))
            finish(token, own, own_stats, row, num_bands, BANDS)
        item = _next_item(num_queued, num_items)
    if num_items > 0:
        _empty_queues(num_queued)


@triton.jit
def _next_item(num_queued, num_items):
    """What this program does next. None begins before those in front of it have."""
    item = num_items
    if num_items > 0:
        item = tl.atomic_add(num_queued + 3, 1, sem="relaxed")
    return item


@triton.jit
def _empty_queues(num_queued):
    """Done by the last program."""
    if is_last(num_queued + 2, tl.num_programs(0)):
        tl.store(num_queued + tl.arange(0, 4), 0)


@triton.jit
def _count_groups(logits, effects, groups, scale, bracket, bins_of, row, zero_bits):
    """Counts the tokens of listed groups that lie in the bracket."""
    best = tl.load(bracket + 2)
    lowest, highest = range_of(bracket, zero_bits)
    bins = bins_between(lowest, highest, zero_bits)
    by_count, by_mass = tl.load(row + TOP_K) < effects[4], float_at(row + TOP_P) < 1
    for first in range(0, groups[1], AT_ONCE):
        x, _ = load_groups(logits, groups, first, effects)
        fill(x, best, scale, bins_of, bins, by_count, by_mass)
    tl.debug_barrier()


@triton.jit
def _keep_groups(logits, effects, groups, scale, bracket, bins_of):
    """Sums mass above the cut and number of tokens at it of each band of listed groups, in the bins of their row."""
    best, cut = tl.load(bracket + 2), tl.load(bracket + 3)
    for first in range(0, groups[1], AT_ONCE):
        x, token = load_groups(logits, groups, first, effects)
        tl.atomic_add(bins_of[1] + token // (BAND * STRIP), mass_of(x, best, scale), mask=x > cut, sem="relaxed")
        tl.atomic_add(bins_of[0] + token // (BAND * STRIP), 1, mask=x == cut, sem="relaxed")
    tl.debug_barrier()


@triton.jit
def _count(raw, logits, first, effects, scale, bracket, bins_of, row, zero_bits, TILE: tl.constexpr):
    """Counts the tokens of a tile that lie in the bracket, and sums the masses of those above it."""
    best, high = tl.load(bracket + 2), tl.load(bracket + 1)
    lowest, highest = range_of(bracket, zero_bits)
    bins = bins_between(lowest, highest, zero_bits)
    by_count, by_mass = tl.load(row + TOP_K) < effects[4], float_at(row + TOP_P) < 1
    if has_mask_alone(effects):
        _count_tile(raw, first, mask_alone(effects), scale, best, high, bins_of, bins, by_count, by_mass)
    else:
        for own in range(first, first + TILE, BAND):
            own_raw = load_tile(logits, own, effects[4], BAND)
            _count_tile(own_raw, own, effects, scale, best, high, bins_of, bins, by_count, by_mass)


@triton.jit
def _count_tile(raw, first, effects, scale, best, high, bins_of, bins, by_count, by_mass):
    x = effective(raw.to(tl.float32), first, effects)
    if by_mass & (high < float("inf")):
        mass = sum_of_bands(by_band(tl.where(x >= high, tl.exp2((x - best) * scale), 0.0)))
        tl.atomic_add(bins_of[2], tl.sum((mass * UNIT).to(tl.int64), 0), sem="relaxed")
    fill(x, best, scale, bins_of, bins, by_count, by_mass)


@triton.jit
def _keep(raw, logits, first, effects, scale, bracket, kept, ties, num_bands, TILE: tl.constexpr):
    """Writes the mass above the cut and the number of tokens at it of each band of a tile."""
    best, cut = tl.load(bracket + 2), tl.load(bracket + 3)
    if has_mask_alone(effects):
        _keep_tile(raw, first, mask_alone(effects), scale, best, cut, kept, ties, num_bands, TILE)
    else:
        for own in range(first, first + TILE, BAND):
            own_raw = load_tile(logits, own, effects[4], BAND)
            _keep_tile(own_raw, own, effects, scale, best, cut, kept, ties, num_bands, BAND)


@triton.jit
def _keep_tile(raw, first, effects, scale, best, cut, kept, ties, num_bands, TILE: tl.constexpr):
    x = by_band(effective(raw.to(tl.float32), first, effects))
    band = bands_of(first, TILE)
    mass = tl.where(x > cut, tl.exp2((x - best) * scale), 0.0)
    tl.store(kept + band, sum_of_bands(mass), mask=band < num_bands)
    tl.store(ties + band, sum_of_bands((x == cut).to(tl.int32)), mask=band < num_bands)
