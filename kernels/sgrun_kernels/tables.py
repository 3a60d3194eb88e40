"""What constraints are walked on: the automata that are loaded, and the bytes of the vocabulary. Plain torch.

An automaton in the arena: a head of eight words, and its tables one after the other. Entries are `op | argument << 3`;
what the operations do stands in `sgrun/grammar/automaton.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

OP_BITS = 3
MOVE, CALL, RETURN, RETURN_AFTER, COUNT, RESET, ACCEPT = range(1, 8)

# Words of a head: offsets into the arena, the widths of the two-dimensional tables, and which constraint it is.
CLASSES, TABLE, TABLE_WIDTH, SITES, SITES_WIDTH, COUNTS, CONSTRAINT = range(7)
HEAD_LEN = 8


@dataclass(frozen=True, slots=True)
class AutomatonArena:
    """`words` [size] int32: 64 words of byte classes, then table [states, classes + 1], sites [sites, 1 + labels] and
    counts [counts, 3] of each automaton. `heads` [max_automata, 8] int32: where they are."""

    words: Tensor
    heads: Tensor

    @classmethod
    def allocate(cls, size_bytes: int, max_automata: int, device: torch.device) -> AutomatonArena:
        return cls(
            torch.zeros(size_bytes // 4, dtype=torch.int32, device=device),
            torch.zeros((max_automata, HEAD_LEN), dtype=torch.int32, device=device),
        )


def pack_automaton(
    byte_classes: npt.NDArray[np.uint8],
    table: npt.NDArray[np.int32],
    sites: npt.NDArray[np.int32],
    counts: npt.NDArray[np.int32],
    offset: int,
    constraint: int,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """(words, head) of one automaton that is to stand at `offset` of the arena. `constraint`: a number, not 0, that no
    other automaton has or had; bitmasks are known by it."""
    parts = [byte_classes.view(np.int32), table.reshape(-1), sites.reshape(-1), counts.reshape(-1)]
    starts = offset + np.cumsum([0, *(len(part) for part in parts[:-1])])
    head = np.zeros(HEAD_LEN, dtype=np.int32)
    head[[CLASSES, TABLE, SITES, COUNTS]] = starts
    head[[TABLE_WIDTH, SITES_WIDTH, CONSTRAINT]] = table.shape[1], sites.shape[1], constraint
    return np.concatenate(parts), head


@dataclass(frozen=True, slots=True)
class VocabularyTables:
    """`token_bytes` [max_len, V] uint8: byte i of every token, side by side. `token_lens` [V] int16: 0 for a token that
    is never allowed, -1 for an end token: allowed where the text is complete and the row's can_end is set, whatever
    its own bytes."""

    token_bytes: Tensor
    token_lens: Tensor

    @property
    def size(self) -> int:
        return len(self.token_lens)

    @property
    def num_words(self) -> int:
        """Words of a bitmask."""
        return (self.size + 31) // 32

    @classmethod
    def build(
        cls,
        flat: npt.NDArray[np.uint8],
        offsets: npt.NDArray[np.int32],
        end_token_ids: frozenset[int],
        device: torch.device,
    ) -> VocabularyTables:
        """Of tokens that stand one after the other: token i is flat[offsets[i]:offsets[i + 1]]."""
        lens = np.diff(offsets)
        token_bytes = np.zeros((max(int(lens.max(initial=1)), 1), len(lens)), dtype=np.uint8)
        tokens = np.repeat(np.arange(len(lens)), lens)
        token_bytes[np.arange(len(flat)) - offsets[tokens], tokens] = flat
        lens[sorted(end_token_ids)] = -1
        return cls(torch.from_numpy(token_bytes).to(device), torch.from_numpy(lens.astype(np.int16)).to(device))
