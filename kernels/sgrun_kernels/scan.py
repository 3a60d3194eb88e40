"""The one pass over all logits, in Triton: highest logit and mass of each band, and roughly where a row's cut lies."""

from __future__ import annotations

import triton
import triton.language as tl

from sgrun_kernels.brackets import find_bracket, sample_bin
from sgrun_kernels.cuts import BINS, has_cut, is_last
from sgrun_kernels.effects import effective, effects_of, float_at, has_mask_alone, mask_alone
from sgrun_kernels.fields import ROW_LEN, TEMPERATURE, WANTS_LOGPROB
from sgrun_kernels.masses import LOG2_E
from sgrun_kernels.overlap import release_next
from sgrun_kernels.strips import (
    BAND,
    GROUPS,
    bands_of,
    by_band,
    finite,
    first_of_groups,
    load_tile,
    max_of_bands,
    max_of_groups,
    sum_of_bands,
    sum_of_groups,
    tokens_of,
)


@triton.jit(do_not_specialize=["max_rows"])
def scan_kernel(
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
    group_maxes,
    arrivals,
    vocab_size,
    stride,
    mask_len,
    num_bands,
    max_rows,
    BANDS: tl.constexpr,
    MAX_GROUPS: tl.constexpr,
    TILE: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    """One program for each tile of each row. Rows with cuts also count samples, and the last program of such a row says
    between which logits the cut lies."""
    release_next(OVERLAPS)
    index = tl.program_id(1).to(tl.int64)
    first = tl.program_id(0) * TILE
    logits += index * stride
    row_id = tl.load(row_ids + index).to(tl.int64)
    raw = load_tile(logits, first, vocab_size, TILE)
    tl.debug_barrier()  # the compiler does not put off these loads until the row's record is there
    row = words + row_id * ROW_LEN
    effects = effects_of(row, masks, seen, bias, vocab_size, mask_len)
    temperature = float_at(row + TEMPERATURE)
    scale = tl.where(temperature > 0, LOG2_E / tl.where(temperature > 0, temperature, 1.0), 0.0)
    is_cut = (temperature > 0) & has_cut(row, vocab_size)
    stats += index * 4 * num_bands
    counts += index * BINS
    group_maxes += index * num_bands * GROUPS
    if has_mask_alone(effects):
        _scan(raw, first, mask_alone(effects), scale, is_cut, stats, group_maxes, counts, num_bands, TILE)
    else:
        for own in range(first, first + TILE, BAND):
            own_raw = load_tile(logits, own, vocab_size, BAND)
            _scan(own_raw, own, effects, scale, is_cut, stats, group_maxes, counts, num_bands, BAND)
    if tl.load(row + WANTS_LOGPROB) != 0:
        _scan_raw(logits, first, vocab_size, stats, num_bands, TILE)
    if is_cut:
        if is_last(arrivals + index, tl.num_programs(0)):
            low, high, num_listed = find_bracket(
                stats,
                group_maxes,
                groups + index * MAX_GROUPS,
                num_groups + index,
                counts,
                brackets + index * 4,
                num_ties + index,
                row,
                vocab_size,
                num_bands,
                BANDS,
                MAX_GROUPS,
            )
            if (num_listed == 0) & (low == low):
                if low < high:
                    _queue(queues, num_queued, index, max_rows, 0)
                _queue(queues, num_queued, index, max_rows, 1)
    elif first == 0:
        tl.store(brackets + index * 4, float("nan"))


@triton.jit
def _queue(queues, num_queued, index, max_rows, QUEUE: tl.constexpr):
    """Adds a row to a queue. In what order rows are there makes no difference to what is drawn."""
    tl.store(queues + QUEUE * max_rows + tl.atomic_add(num_queued + QUEUE, 1, sem="relaxed"), index.to(tl.int32))


@triton.jit
def _scan(raw, first, effects, scale, is_cut, stats, group_maxes, counts, num_bands, TILE: tl.constexpr):
    """Writes what there is to know of a tile of logits. `scale`: log2(e) / temperature, 0 for greedy rows."""
    band = bands_of(first, TILE)
    inside = band < num_bands
    raw = raw.to(tl.float32)
    mass = sum_of_groups(by_band(raw * 0.0))  # NaN where a logit is not finite
    x = effective(raw, first, effects)
    group_max = max_of_groups(by_band(x))
    highest = tl.max(group_max, 1)
    if scale > 0:
        mass += sum_of_groups(tl.exp2((by_band(x) - finite(highest)[None, :, None]) * scale))
    tl.store(stats + band, highest, mask=inside)
    tl.store(stats + num_bands + band, tl.sum(mass, 1), mask=inside)
    if is_cut:
        group = band[:, None] * GROUPS + tl.arange(0, GROUPS)[None, :]
        tl.store(group_maxes + group, group_max, mask=inside[:, None])
        sample = first_of_groups(by_band(x))
        is_sample = inside[:, None] & (sample > float("-inf"))
        tl.atomic_add(counts + sample_bin(sample), 1, mask=is_sample, sem="relaxed")


@triton.jit
def _scan_raw(logits, first, vocab_size, stats, num_bands, TILE: tl.constexpr):
    """The same of the model's own distribution, for log-probabilities."""
    band = bands_of(first, TILE)
    inside = band < num_bands
    x = load_tile(logits, first, vocab_size, TILE).to(tl.float32)
    x = by_band(tl.where(tokens_of(first, TILE) < vocab_size, x, float("-inf")))
    highest = max_of_bands(x)
    tl.store(stats + 2 * num_bands + band, highest, mask=inside)
    mass = sum_of_bands(tl.exp2((x - finite(highest)[None, :, None]) * LOG2_E))
    tl.store(stats + 3 * num_bands + band, mass, mask=inside)
