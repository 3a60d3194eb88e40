"""What one forward pass reads: packed tensors for a batch of rows, without padding between them.

A row is one sequence in this step. Its new tokens are extended over a cached prefix (`extend_len` >= 1); a decode is a
row with extend_len 1. Rows are ordered: `num_extends` rows with any extend_len, then the decodes.

Shape legend: T new tokens of all rows, R rows, P longest page table, C copied slots, L rows of wanted logits.
A slot is page * page_size + offset, an index into a layer's [num_pages * page_size] token places.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class ForwardInputs:
    """In every layer: K and V of all T tokens are stored to `store_slots`, then `copy_src` slots are copied to
    `copy_dst`, then attention reads. So a row may read pages that another row fills in the same step."""

    token_ids: Tensor  # [T] int64
    positions: Tensor  # [T] int64
    store_slots: Tensor  # [T] int64, unique
    copy_src: Tensor  # [C] int64
    copy_dst: Tensor  # [C] int64
    page_tables: Tensor  # [R, P] int64, unused entries 0
    seq_lens: Tensor  # [R] int64, tokens that attention sees: cached + new
    extend_starts: Tensor  # [R + 1] int64, cumulative extend_lens
    logits_rows: Tensor | None  # [L] int64, which of the T tokens need logits; None: all, in order
    num_extends: int
    seq_lens_host: list[int]  # of the extends, these two on the host: no one has to wait for the device
    extend_lens_host: list[int]
    max_decode_len: int  # no seq_len of a decode is longer; in a captured graph the bound of all its replays
    decodes_share: bool  # whether attention is to read once what decodes side by side have in common: the same results
