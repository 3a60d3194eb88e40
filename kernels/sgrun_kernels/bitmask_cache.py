"""The bitmasks of places in constraints, kept on the device from step to step. Plain torch; knows nothing of kernels.

A bitmask depends on less than the place: of the stack, on the frames that some token popped; on the depth only where a
token came to the bottom or found no room to push; on a counter only as far as it decides which thresholds are reached.
`ENTRY` says what it depended on, so that other places share it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sgrun_kernels.rows import MAX_DEPTH

WAYS = 32  # slots where a place's bitmask may be: a lane looks at each
CACHE_BYTES = 64 * 2**20
ANY_COUNTER = 2**30  # as `near`: no threshold was looked at

ENTRY = np.dtype(
    [
        ("constraint", "<i4"),  # id of the automaton; 0: the slot is free
        ("can_end", "<i4"),
        ("state", "<i4"),
        ("counter", "<i4"),
        ("depth", "<i4"),
        # Frames below it were not looked at. 0: the depth matters too, as a token came to the bottom of the stack or to
        # its end.
        ("low", "<i4"),
        ("near", "<i4"),  # the counters, also of frames, may differ by less than this; at least 1
        ("is_accepting", "<i4"),
        ("has_text", "<i4"),
        ("num_allowed", "<i4"),  # tokens, those that end the text included
        ("used", "<i4"),  # the launch that used it last
        ("padding", "<i4", (1,)),  # to whole 16-byte pieces
        ("stack", "<i4", (MAX_DEPTH, 2)),
    ]
)


@dataclass(frozen=True, slots=True)
class BitmaskCache:
    """`bits` [S, words] int32: bit i % 32 of word i // 32 is set if token i is allowed. `entries` [S, E] int32: see
    `ENTRY`. `launch` [1] int32: the number of the next launch.

    The slots are `num_sets` sets of WAYS, where the least recently used give way, and behind them one for each row: for
    bitmasks whose set is in use by rows of the same launch.
    """

    bits: Tensor
    entries: Tensor
    launch: Tensor
    num_sets: int

    @classmethod
    def allocate(
        cls, max_rows: int, num_words: int, device: torch.device, size_bytes: int = CACHE_BYTES
    ) -> BitmaskCache:
        num_sets = max(1, size_bytes // (4 * num_words * WAYS))
        num_slots = num_sets * WAYS + max_rows
        return cls(
            torch.zeros((num_slots, num_words), dtype=torch.int32, device=device),
            torch.zeros((num_slots, ENTRY.itemsize // 4), dtype=torch.int32, device=device),
            torch.ones(1, dtype=torch.int32, device=device),
            num_sets,
        )

    def own_slot(self, row_id: int) -> int:
        """The slot that no other row uses."""
        return self.num_sets * WAYS + row_id
