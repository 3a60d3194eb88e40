"""How the programs of decode attention share its rows: what all layers of a step have in common.

Of few rows each is shared by as many programs as keep the device busy. Of more each has one to itself, but those that
are much longer than the others, whose splits are dealt to several: the device would wait for them at the end. Of very
many the device has work beside them. Shape legend: see `decode_attention`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sgrun_kernels.decode_splits import block_tokens, common_splits, dealt_splits, most_splits

ENOUGH_ROW_HEADS = 256  # rows times key/value heads that keep an H100 or H200 busy with a program for each
SHARED_PROGRAMS = 1024  # programs to aim at where there are fewer
MANY_ROW_HEADS = 1024  # so many that a row of up to PROGRAM_LEN tokens is hidden behind others
PROGRAM_LEN = 8192
EXTRA_PROGRAMS = 512  # at most, beside one for each row and key/value head
BUNDLE_HEADS = 16  # query heads of a bundle at most: as many as one tensor-core operation takes


@dataclass(frozen=True, slots=True)
class DecodePlan:
    page_tables: Tensor  # [R, P] int32 or int64
    seq_lens: Tensor  # [R], read on the device alone
    num_programs: int  # that share a row and key/value head; 0 where `places` says which programs take it
    places: Tensor  # [N + 1] int32, where each run of dealt splits begins: see `dealt_splits`
    bundle_rows: int  # rows of a bundle; 1 where none are bundled
    bundle_programs: int  # that share a bundle and key/value head; 0 without bundles
    common: Tensor  # [B] int32, splits that the rows of each bundle have in common; B is R / bundle_rows, rounded up
    parts: Tensor  # [R, Hk, S, G, D] float32, sums of weighted values; S the most splits of a row
    part_weights: Tensor  # [R, Hk, S, 2, G] float32: the highest score, to base 2, and the sum of the weights
    arrivals: Tensor  # [R, Hk] int32, of programs, or of dealt splits; 0 between launches


def plan_decode(
    page_tables: Tensor,
    seq_lens: Tensor,
    max_seq_len: int,
    k_cache: Tensor,
    num_q_heads: int,
    *,
    shares_prefixes: bool = False,
) -> DecodePlan:
    """What `decode_attention` needs and all layers share, for caches of the shape of `k_cache`.

    page_tables [R, P] and seq_lens [R] int32 or int64; max_seq_len is no less than the longest of them, now and in
    every replay of a graph that captures this. With shares_prefixes, rows that stand side by side and whose tables
    begin with the same pages read these together: the same results, sooner where much is shared.
    """
    num_kv_heads, max_bundle = k_cache.shape[2], BUNDLE_HEADS * k_cache.shape[2] // num_q_heads
    num_programs = programs_of_a_row(len(seq_lens) * num_kv_heads, max_seq_len)
    bundle_rows = 1 << max_bundle.bit_length() - 1 if shares_prefixes and max_bundle else 1
    return plan_shared(page_tables, seq_lens, max_seq_len, k_cache, num_q_heads, num_programs, bundle_rows)


def programs_of_a_row(num_row_heads: int, max_seq_len: int) -> int:
    """How many programs share a row and key/value head, of `num_row_heads` of up to `max_seq_len` tokens; 0 where
    splits are dealt."""
    if num_row_heads < ENOUGH_ROW_HEADS:
        return min(SHARED_PROGRAMS // num_row_heads, most_splits(max_seq_len))
    return 1 if num_row_heads >= MANY_ROW_HEADS and max_seq_len <= PROGRAM_LEN else 0


def extra_runs(num_rows: int, num_kv_heads: int) -> int:
    """How many runs splits are dealt in beside one for each row: a row that is half as long again as the average is cut
    in two, of very many rows a longer one."""
    return max(min(2 * num_rows // 3, EXTRA_PROGRAMS // num_kv_heads), 1)


def programs_of_a_bundle(num_bundle_heads: int, max_seq_len: int) -> int:
    """How many programs share a bundle and key/value head, of `num_bundle_heads`."""
    return min(max(SHARED_PROGRAMS // num_bundle_heads, 1), most_splits(max_seq_len))


def plan_shared(
    page_tables: Tensor,
    seq_lens: Tensor,
    max_seq_len: int,
    k_cache: Tensor,
    num_q_heads: int,
    num_programs: int,
    bundle_rows: int = 1,
) -> DecodePlan:
    """A plan of that many programs to a row and key/value head, or 0 to deal; and so many rows to a bundle. One program
    to a row that is in no bundle needs no memory for parts."""
    num_rows, page_size, num_kv_heads, head_dim = len(seq_lens), *k_cache.shape[1:]
    group, device = num_q_heads // num_kv_heads, page_tables.device
    num_parts = 0 if num_programs == bundle_rows == 1 else most_splits(max_seq_len)
    block_n = block_tokens(head_dim, k_cache.dtype)
    bundle_programs, places = 0, torch.empty(0, dtype=torch.int32, device=device)
    common = torch.empty(0, dtype=torch.int32, device=device)
    if bundle_rows > 1:
        common = common_splits(page_tables, seq_lens, bundle_rows, page_size, block_n)
        bundle_programs = programs_of_a_bundle(len(common) * num_kv_heads, max_seq_len)
    if not num_programs:
        places = dealt_splits(seq_lens, common, bundle_rows, extra_runs(num_rows, num_kv_heads), block_n)
    return DecodePlan(
        page_tables,
        seq_lens,
        num_programs,
        places,
        bundle_rows,
        bundle_programs,
        common,
        parts=torch.empty(num_rows, num_kv_heads, num_parts, group, head_dim, dtype=torch.float32, device=device),
        part_weights=torch.empty(num_rows, num_kv_heads, num_parts, 2, group, dtype=torch.float32, device=device),
        # Last: torch's kernels overlap with nothing, so whatever follows may read the plan without waiting for it.
        arrivals=torch.zeros(num_rows, num_kv_heads, dtype=torch.int32, device=device),
    )
