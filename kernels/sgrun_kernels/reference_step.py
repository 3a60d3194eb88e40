"""The twin of `step.py` in plain Python, one row after the other. Same names, same signatures."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from sgrun_kernels.bitmask_cache import ENTRY, BitmaskCache
from sgrun_kernels.rows import (
    FAILED,
    FINISHED,
    NO_TOKEN,
    OUT_OF_TOKENS,
    STOPPED,
    Adjustments,
    DecodeInputs,
    Records,
    Ring,
    Rows,
    ring_entries,
)


def commit_step_(row_ids: Tensor, rows: Rows, ring: Ring, adjustments: Adjustments, cache: BitmaskCache) -> None:
    """Applies what was drawn to rows `row_ids` [L] int32, all different, and writes their entries of the ring's current
    step; then the ring goes on to the next.

    A row that takes its token has position, seq_len and the token's count one higher, remaining one lower, and the
    token as its next input; `row_masks_` walks it, beside the next step. See `Ring` for the ways a row ends.
    """
    records, kept = rows.records(), cache.entries.numpy().view(ENTRY)[:, 0]
    index = int(ring.index)
    entries = ring_entries(ring.words)[index % len(ring.words)]
    for row_id in row_ids.tolist():
        record = records[row_id : row_id + 1]
        is_constrained = record["automaton"][0] >= 0
        token_id, reason = _commit(record, adjustments)
        logprob = record["drawn_logprob"][0] if token_id >= 0 else 0.0
        is_forced = is_constrained and token_id >= 0 and kept[record["mask"][0]]["num_allowed"] == 1
        entries[row_id] = (token_id, reason, logprob, is_forced)
        if reason:
            record["is_active"], record["automaton"] = 0, -1
    ring.index.fill_(index + 1)


def decode_inputs_(row_ids: Tensor, rows: Rows, inputs: DecodeInputs, page_size: int, spare_page: int) -> None:
    """Fills `inputs` [L] for the next decode step of rows `row_ids` [L] int32: each row's token_id at the last of its
    seq_len positions, where its K/V go, and its pages. A row that is not active is a sequence of one token, id 0,
    whose K/V go to `spare_page`, to its own offset of it as far as there are enough.
    """
    records = rows.records()[row_ids.numpy()]
    is_active = records["is_active"] != 0
    seq_lens = np.where(is_active, records["seq_len"], 1)
    positions = seq_lens - 1
    pages = rows.page_tables.numpy()[row_ids.numpy(), positions // page_size]
    offsets = np.where(is_active, positions, np.arange(len(positions))) % page_size
    slots = np.where(is_active, pages, spare_page).astype(np.int64) * page_size + offsets
    inputs.token_ids.numpy()[:] = np.where(is_active, records["token_id"], 0)
    inputs.positions.numpy()[:] = positions
    inputs.slots.numpy()[:] = slots
    inputs.seq_lens.numpy()[:] = seq_lens
    inputs.page_tables.numpy()[:] = rows.page_tables.numpy()[row_ids.numpy(), : inputs.page_tables.shape[1]]


def _commit(record: Records, adjustments: Adjustments) -> tuple[int, int]:
    """(token_id, reason) of the ring's entry."""
    token_id, automaton = int(record["drawn"][0]), int(record["automaton"][0])
    if not record["is_active"][0]:
        return NO_TOKEN, 0
    if automaton >= 0 and record["is_accepting"][0] and not record["has_text"][0]:
        return NO_TOKEN, FINISHED
    if token_id < 0:
        return token_id, FAILED
    if token_id in record["stop_ids"][0]:
        return token_id, STOPPED
    record["unwalked"] = token_id
    if record["adjustment"][0] >= 0:
        adjustments.seen[record["adjustment"][0], token_id] += 2
    record["token_id"] = token_id
    record["position"] += 1
    record["seq_len"] += 1
    record["remaining"] -= 1
    return token_id, 0 if record["remaining"][0] else OUT_OF_TOKENS
