"""How the extends of a step are cut into tiles of new tokens, and long sequences in front of few tokens into parts.

How a row is cut depends on the row alone, whatever else is in the batch, so that its bits do too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import triton
from torch import Tensor

from sgrun_kernels import extend_hopper

TARGET_PROGRAMS = 132  # what keeps each multiprocessor of an H100 or H200 at work
MIN_PART_LEN = 1024  # tokens of a part: long against writing and merging its result
PART_ALIGNMENT = 128  # so that blocks of keys and pages begin where parts do


@dataclass(frozen=True, slots=True)
class ExtendPlan:
    page_tables: Tensor  # [R, P] int32 or int64
    tiles: (
        Tensor  # [N, 7] int32: row, first token of T, tokens, position of the first, first key, end of keys, part or -1
    )
    merges: Tensor  # [M, 4] int32: first token of T, tokens, first part, parts
    parts: Tensor  # [parts, Hk, block_m, D] float32
    part_weights: Tensor  # [parts, Hk, block_m] float32, logarithms to base 2
    block_m: int  # rows of a tile: tokens times query heads
    is_hopper: bool  # which of the two kernels takes it


def plan_extend(
    page_tables: Tensor,
    seq_lens: Tensor,
    extend_starts: Tensor,
    seq_lens_host: list[int],
    extend_lens_host: list[int],
    k_cache: Tensor,
    num_q_heads: int,
) -> ExtendPlan:
    """What `extend_attention` needs and all layers share, for caches of the shape of `k_cache`.

    page_tables [R, P] int32 or int64; of the lengths it reads the host lists. Where a row has too few tiles to keep a
    GPU at work, the keys of each are cut into parts of MIN_PART_LEN tokens or more, whose results take
    4 * block_m * Hk * D bytes each until the step ends. The longest tiles come first, so that none of them is left for
    the end.
    """
    num_kv_heads, head_dim = k_cache.shape[2:]
    group = num_q_heads // num_kv_heads
    block_m = max(128 if k_cache.dtype.itemsize == 2 else 32, triton.next_power_of_2(group))
    device = page_tables.device
    lens = np.array(seq_lens_host, dtype=np.int64), np.array(extend_lens_host, dtype=np.int64)
    tiles, merges = _cut(*lens, block_m // group, num_kv_heads)
    shape = (int(merges[:, 3].sum()), num_kv_heads, block_m)
    return ExtendPlan(
        page_tables,
        tiles=_to_device(tiles[np.argsort(tiles[:, 4] - tiles[:, 5], kind="stable")], device),
        merges=_to_device(merges, device),
        parts=torch.empty(*shape, head_dim, dtype=torch.float32, device=device),
        part_weights=torch.empty(shape, dtype=torch.float32, device=device),
        block_m=block_m,
        is_hopper=extend_hopper.is_able(k_cache),
    )


def _cut(
    seq_lens: np.ndarray, extend_lens: np.ndarray, tile_tokens: int, num_kv_heads: int
) -> tuple[np.ndarray, np.ndarray]:
    """(tiles, merges) in the rows' order. A part ends where the tile's first token still sees all of it, but the last
    part, which ends with the tile's last token."""
    counts = -(-extend_lens // tile_tokens)
    rows, index = _counted(counts)
    tokens = (np.cumsum(extend_lens) - extend_lens)[rows] + index * tile_tokens
    num_tokens = np.minimum(extend_lens[rows] - index * tile_tokens, tile_tokens)
    positions = (seq_lens - extend_lens)[rows] + index * tile_tokens

    row_parts = np.maximum(TARGET_PROGRAMS // np.maximum(counts * num_kv_heads, 1), 1)
    aligned_lens = -(-seq_lens // (row_parts * PART_ALIGNMENT)) * PART_ALIGNMENT
    part_lens = np.maximum(aligned_lens, MIN_PART_LEN)[rows]
    num_parts = -(-(positions + 1) // part_lens)
    is_cut = num_parts > 1
    first_parts = np.cumsum(num_parts * is_cut) - num_parts
    merges = np.stack((tokens, num_tokens, first_parts, num_parts), axis=1)[is_cut]

    tile, part = _counted(num_parts)
    starts = part * part_lens[tile]
    ends = np.where(part == num_parts[tile] - 1, (positions + num_tokens)[tile], starts + part_lens[tile])
    places = np.where(is_cut[tile], first_parts[tile] + part, -1)
    tiles = np.stack((rows[tile], tokens[tile], num_tokens[tile], positions[tile], starts, ends, places), axis=1)
    return tiles.astype(np.int32), merges.astype(np.int32)


def _counted(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(i, j) for j from 0 to counts[i] - 1, for each i in turn."""
    owners = np.repeat(np.arange(len(counts)), counts)
    return owners, np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)


def _to_device(values: np.ndarray, device: torch.device) -> Tensor:
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
