"""Device memory that sampling and masks need between their launches."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sgrun_kernels.rows import MAX_DEPTH

STRIP = 256  # tokens that one warp reads at once: fixed, since the rounding of a row's masses depends on it
BINS = 2048  # of a histogram of logits
LINE = 32  # tokens of a word of the bitmask; one of them is a sample
MASK_BLOCK = 128  # tokens that a program of row_masks_ walks at once
MASK_PROGRAMS = 2112  # 16 for each of 132 multiprocessors


@dataclass(frozen=True, slots=True)
class SampleWorkspace:
    """For up to L rows of logits; NS strips of `STRIP` tokens. 50 KB a row of 131,072 tokens.

    `stats` [L, 4, NS] float32: highest logit, mass, highest raw logit, raw mass of each strip. `samples` [L, NS * 8]
    float32: the logit of one token of each line. `brackets` [L, 4] float32: see `find_bracket`. `num_ties` [L] int32:
    see `find_cut`. `kept` [L, NS] float32: mass above the cut. `ties` [L, NS] int32: tokens at the cut.

    What is in these before a launch does not matter; the others are 0 between launches: `counts` [L, 2048] int32,
    `masses` [L, 2048] int64, `above` [L] int64, `arrivals` [3, L] int32.
    """

    stats: Tensor
    samples: Tensor
    brackets: Tensor
    num_ties: Tensor
    kept: Tensor
    ties: Tensor
    counts: Tensor
    masses: Tensor
    above: Tensor
    arrivals: Tensor

    @classmethod
    def allocate(cls, num_rows: int, vocab_size: int, device: torch.device) -> SampleWorkspace:
        num_strips = -(-vocab_size // STRIP)

        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        return cls(
            stats=zeros(num_rows, 4, num_strips),
            samples=zeros(num_rows, num_strips * (STRIP // LINE)),
            brackets=zeros(num_rows, 4),
            num_ties=zeros(num_rows, dtype=torch.int32),
            kept=zeros(num_rows, num_strips),
            ties=zeros(num_rows, num_strips, dtype=torch.int32),
            counts=zeros(num_rows, BINS, dtype=torch.int32),
            masses=zeros(num_rows, BINS, dtype=torch.int64),
            above=zeros(num_rows, dtype=torch.int64),
            arrivals=zeros(3, num_rows, dtype=torch.int32),
        )


def allocate_frames(device: torch.device) -> Tensor:
    """Where the tokens of a mask keep the frames that they push: [MASK_PROGRAMS, 64, MASK_BLOCK, 2] int32, 138 MB."""
    return torch.empty((MASK_PROGRAMS, MAX_DEPTH, MASK_BLOCK, 2), dtype=torch.int32, device=device)
