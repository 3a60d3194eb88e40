"""Owns the way from a planned step to packed tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgrun.engine.generation import SampleTask
from sgrun.engine.scheduler import Row
from sgrun.engine.scoring import ScoreTask
from sgrun.engine.side_by_side import side_by_side
from sgrun.engine.transfer import all_to_device
from sgrun.models.inputs import ForwardInputs

Scored: TypeAlias = tuple[Row, ScoreTask, int, Tensor]
"""A row, its task, one of its positions, and the logits [vocab] behind it."""
Sampling: TypeAlias = tuple[Row, SampleTask]


@dataclass(frozen=True, slots=True)
class Batch:
    """`wanted[i]` says whose logits the i-th row of the model's output is: (row, position). `unknown`: rows whose only
    token is not known yet, with its place in `inputs.token_ids`, where 0 stands instead."""

    inputs: ForwardInputs
    wanted: list[tuple[Row, int]]
    unknown: list[tuple[int, Row]]

    def split(self, logits: Tensor) -> tuple[list[Scored], list[int], list[Sampling]]:
        """What is scored; and the rows of `logits` [L, V] that are sampled from, with whose they are."""
        scored, places, sampling = [], [], []
        for index, (row, position) in enumerate(self.wanted):
            if isinstance(row.task, ScoreTask):
                scored.append((row, row.task, position, logits[index]))
            elif isinstance(row.task, SampleTask):
                places.append(index)
                sampling.append((row, row.task))
        return scored, places, sampling


def build_batch(rows: list[Row], page_size: int, device: torch.device) -> Batch:
    """Packs `rows`, given in the order in which they were planned: extends first, then those of one token side by side
    with their like."""
    copy_src, copy_dst = _copies(rows, page_size)
    decodes, decodes_share = side_by_side([row for row in rows if row.num_tokens == 1], page_size)
    rows = [row for row in rows if row.num_tokens > 1] + decodes
    starts = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum([row.num_tokens for row in rows], out=starts[1:])
    token_ids = np.empty(starts[-1], dtype=np.int64)
    positions = np.empty(starts[-1], dtype=np.int64)
    slots = np.empty(starts[-1], dtype=np.int64)
    page_tables = np.zeros((len(rows), max(len(row.lease.pages) for row in rows)), dtype=np.int64)
    wanted: list[tuple[Row, int]] = []
    unknown: list[tuple[int, Row]] = []
    logits_rows: list[int] = []
    for index, row in enumerate(rows):
        packed = slice(int(starts[index]), int(starts[index + 1]))
        end = row.start + row.num_tokens
        pages = np.asarray(row.lease.pages, dtype=np.int64)
        page_tables[index, : len(pages)] = pages
        places = np.arange(row.start, end)
        positions[packed] = places
        slots[packed] = pages[places // page_size] * page_size + places % page_size
        if row.start < len(row.task.tokens):
            token_ids[packed] = row.task.tokens[row.start : end]
        else:
            token_ids[packed] = 0
            unknown.append((packed.start, row))
        for position in row.task.wanted_positions(row.start, end):
            wanted.append((row, position))
            logits_rows.append(packed.start + position - row.start)
    seq_lens = [row.start + row.num_tokens for row in rows]

    num_extends = len(rows) - len(decodes)
    arrays = [token_ids, positions, slots, copy_src, copy_dst, page_tables, np.array(seq_lens), starts]
    tensors = all_to_device([*arrays, np.array(logits_rows, dtype=np.int64)], device)
    inputs = ForwardInputs(
        token_ids=tensors[0],
        positions=tensors[1],
        store_slots=tensors[2],
        copy_src=tensors[3],
        copy_dst=tensors[4],
        page_tables=tensors[5],
        seq_lens=tensors[6],
        extend_starts=tensors[7],
        logits_rows=tensors[8],
        num_extends=num_extends,
        seq_lens_host=seq_lens[:num_extends],
        extend_lens_host=[row.num_tokens for row in rows[:num_extends]],
        max_decode_len=max(seq_lens[num_extends:], default=0),
        decodes_share=decodes_share,
    )
    return Batch(inputs, wanted, unknown)


def _copies(rows: list[Row], page_size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Source and destination slots, one by one. All copies of a step happen at once, so a copy from a page that is
    itself filled by an earlier copy of this step takes from where that one takes."""
    origin: dict[int, int] = {}
    for copy in (row.copy for row in rows if row.copy is not None):
        for offset in range(copy.num_tokens):
            src = copy.src * page_size + offset
            origin[copy.dst * page_size + offset] = origin.get(src, src)
    return np.array(list(origin.values()), dtype=np.int64), np.array(list(origin), dtype=np.int64)
