"""The compiled form of a constraint: a deterministic automaton over bytes, as tables ready for a device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

DEAD = 0


@dataclass(frozen=True, eq=False, slots=True)
class Automaton:
    """A minimal, trimmed DFA over bytes: `transitions[state, byte_classes[byte]]` is the next state.

    State 0 (`DEAD`) is the sink: its row is all 0 and it never accepts, so a walk may run on without a branch. From
    every other state acceptance can be reached. Compared and hashed by identity, so that it can key caches.
    """

    byte_classes: npt.NDArray[np.uint8]  # [256]
    transitions: npt.NDArray[np.int32]  # [num_states, num_classes]
    accepting: npt.NDArray[np.bool_]  # [num_states]
    start: int

    @property
    def num_states(self) -> int:
        return len(self.transitions)

    @property
    def num_classes(self) -> int:
        return int(self.transitions.shape[1])

    @property
    def size_bytes(self) -> int:
        return self.byte_classes.nbytes + self.transitions.nbytes + self.accepting.nbytes
