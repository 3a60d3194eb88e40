"""Device memory that sampling and masks need between their launches."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sgrun_kernels.rows import MAX_DEPTH

STRIP = 256  # tokens that one warp reads at once
BAND = 4 * STRIP  # tokens of one sum of masses: fixed, since the rounding of a row's masses depends on it
BINS = 2048  # of a histogram of logits
GROUPS = 32  # of a band: as many as a warp has threads
MAX_GROUPS = 512  # of a row, that one program looks through
LINE = 32  # tokens of a word of the bitmask
MASK_BLOCK = 128  # tokens that a program of row_masks_ walks at once
MASK_PROGRAMS = 2112  # 16 for each of 132 multiprocessors


@dataclass(frozen=True, slots=True)
class SampleWorkspace:
    """For up to L rows of logits; NB bands of `BAND` tokens. 46 KB a row of 131,072 tokens.

    `stats` [L, 4, NB] float32: highest logit, mass, highest raw logit, raw mass of each band. `group_maxes` [L, NB, 32]
    float32: highest logit of each group. `brackets` [L, 4] float32: see `find_bracket`. `groups` [L, 512] int32: those
    that hold all tokens which are likely enough, if there are not more, and `num_groups` [L] int32 how many, else 0.
    `queues` [2, L] int32: rows whose cut is searched in all logits, and those of which all kept logits are summed.
    `num_ties` [L] int32: see `find_cut`. `kept` [L, NB] float32: mass above the cut. `ties` [L, NB] int32: tokens at
    the cut.

    What is in these before a launch does not matter; the others are 0 between launches: `counts` [L, 2048] int32,
    `masses` [L, 2048] int64, `above` [L] int64, `arrivals` [4, L] int32, `num_queued` [4] int32 (see `_draw_kernel`).
    """

    stats: Tensor
    brackets: Tensor
    group_maxes: Tensor
    groups: Tensor
    num_groups: Tensor
    queues: Tensor
    num_ties: Tensor
    kept: Tensor
    ties: Tensor
    counts: Tensor
    masses: Tensor
    above: Tensor
    arrivals: Tensor
    num_queued: Tensor

    @classmethod
    def allocate(cls, num_rows: int, vocab_size: int, device: torch.device) -> SampleWorkspace:
        num_bands = -(-vocab_size // BAND)

        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        return cls(
            stats=zeros(num_rows, 4, num_bands),
            brackets=zeros(num_rows, 4),
            group_maxes=zeros(num_rows, num_bands, GROUPS),
            groups=zeros(num_rows, MAX_GROUPS, dtype=torch.int32),
            num_groups=zeros(num_rows, dtype=torch.int32),
            queues=zeros(2, num_rows, dtype=torch.int32),
            num_ties=zeros(num_rows, dtype=torch.int32),
            kept=zeros(num_rows, num_bands),
            ties=zeros(num_rows, num_bands, dtype=torch.int32),
            counts=zeros(num_rows, BINS, dtype=torch.int32),
            masses=zeros(num_rows, BINS, dtype=torch.int64),
            above=zeros(num_rows, dtype=torch.int64),
            arrivals=zeros(4, num_rows, dtype=torch.int32),
            num_queued=zeros(4, dtype=torch.int32),
        )


def allocate_frames(device: torch.device) -> Tensor:
    """Where the tokens of a mask keep the frames that they push: [MASK_PROGRAMS, 64, MASK_BLOCK, 2] int32, 138 MB."""
    return torch.empty((MASK_PROGRAMS, MAX_DEPTH, MASK_BLOCK, 2), dtype=torch.int32, device=device)
