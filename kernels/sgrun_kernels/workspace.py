"""Device memory that sampling and masks need between their launches; what is in it before a launch does not matter."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sgrun_kernels.rows import MAX_DEPTH

SAMPLE_BLOCK = 2048  # tokens of a block: fixed, since the rounding of a row's masses depends on it
BINS = 4096  # of a histogram of logits
GROUP = 64  # tokens of a group, whose maxima tell where the likely tokens are
MASK_BLOCK = 128  # tokens that a program of row_masks_ walks at once
MASK_PROGRAMS = 2112  # 16 for each of 132 multiprocessors


@dataclass(frozen=True, slots=True)
class SampleWorkspace:
    """For up to L rows of logits; NB blocks of `SAMPLE_BLOCK` tokens. 8 bytes a token and row, nearly all of them for
    the candidates: 268 MB for 256 rows of 131,072.

    `block_values` [L, 4, NB] float32: highest logit, mass, highest raw logit, raw mass. `block_ids` [L, 2, NB] int32:
    the best token, how many raw logits are not finite. `group_max` [L, NB * 32] float32, `groups` the same int32: those
    in which candidates are. `values` float32, `ids` int32 [L, V]: candidates in the order of ids. `bins` [L, 4096]
    int64.
    """

    block_values: Tensor
    block_ids: Tensor
    group_max: Tensor
    groups: Tensor
    values: Tensor
    ids: Tensor
    bins: Tensor

    @classmethod
    def allocate(cls, num_rows: int, vocab_size: int, device: torch.device) -> SampleWorkspace:
        num_blocks = -(-vocab_size // SAMPLE_BLOCK)
        num_groups = num_blocks * (SAMPLE_BLOCK // GROUP)

        def floats(*shape: int) -> Tensor:
            return torch.empty(num_rows, *shape, dtype=torch.float32, device=device)

        def ints(*shape: int) -> Tensor:
            return torch.empty(num_rows, *shape, dtype=torch.int32, device=device)

        return cls(
            floats(4, num_blocks),
            ints(2, num_blocks),
            floats(num_groups),
            ints(num_groups),
            floats(vocab_size),
            ints(vocab_size),
            torch.empty(num_rows, BINS, dtype=torch.int64, device=device),
        )


def allocate_frames(device: torch.device) -> Tensor:
    """Where the tokens of a mask keep the frames that they push: [MASK_PROGRAMS, 64, MASK_BLOCK, 2] int32, 138 MB."""
    return torch.empty((MASK_PROGRAMS, MAX_DEPTH, MASK_BLOCK, 2), dtype=torch.int32, device=device)
