"""The compiled form of a constraint: a deterministic pushdown automaton over bytes, as tables ready for a device.

An entry of the table is an operation and its argument, `op | argument << 3`. Walking a byte carries out entries until
one consumes it:

    DEAD          0  the text is refused
    MOVE          1  consumes; goes to state `argument`
    CALL          2  pushes (site, counter); goes to sites[argument, 0] with the counter at 0
    RETURN        3  pops; goes to sites[popped site, 1 + argument] with the popped counter
    RETURN_AFTER  4  consumes, then as RETURN
    COUNT         5  adds 1 to the counter; goes to counts[argument, 2] if it is now counts[argument, 0], else to [., 1]
    RESET         6  consumes; goes to state `argument` with the counter at 0
    ACCEPT        7  only for the end of input, whose column is the last: the text is complete

The argument of RETURN is a label: which of the languages that the caller asked about the text just read is in.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from sgrun.grammar.matcher import Matcher
    from sgrun.grammar.vocabulary import Vocabulary
    from sgrun.grammar.walk import Thresholds, Walker

MOVE, CALL, RETURN, RETURN_AFTER, COUNT, RESET, ACCEPT = range(1, 8)
DEAD = 0  # the dead entry, and the dead state
OP_BITS = 3
OP_MASK = 7
MAX_DEPTH = 64  # frames; a call beyond is dead


@dataclass(frozen=True, slots=True)
class Unchecked:
    """A keyword that the automaton does not enforce, by its JSON pointer: to be checked on the finished text."""

    keyword: str
    pointer: str


@dataclass(frozen=True, eq=False)
class Automaton:
    """Trimmed: whatever is reached alive can be completed, unless it runs out of frames. State 0 is dead. A DFA has
    MOVE and ACCEPT entries alone. Compared and hashed by identity, so that it can key caches."""

    byte_classes: npt.NDArray[np.uint8]  # [256]
    table: npt.NDArray[np.int32]  # [num_states, num_classes + 1] entries
    sites: npt.NDArray[np.int32]  # [num_sites, 1 + num_labels] states
    counts: npt.NDArray[np.int32]  # [num_counts, 3] threshold, state below it, state once it is reached
    start: int
    checked_afterwards: tuple[Unchecked, ...] = ()

    @property
    def num_states(self) -> int:
        return len(self.table)

    @property
    def num_classes(self) -> int:
        return int(self.table.shape[1]) - 1

    @property
    def size_bytes(self) -> int:
        return self.byte_classes.nbytes + self.table.nbytes + self.sites.nbytes + self.counts.nbytes

    # What walks an automaton is built on this module, so it is imported where it is asked for.

    def accepts(self, data: bytes) -> bool:
        """Whether `data` is a complete text of the language."""
        cursor = self.walker.advance(self.walker.start, data)
        return cursor is not None and self.walker.is_accepting(cursor)

    def matcher(self, vocabulary: Vocabulary, end_token_ids: Collection[int] | None = None) -> Matcher:
        """A cursor at the start, for one generation. `end_token_ids`: those of the vocabulary if None."""
        from sgrun.grammar.matcher import Matcher

        return Matcher(self, vocabulary, vocabulary.end_token_ids if end_token_ids is None else end_token_ids)

    @cached_property
    def walker(self) -> Walker:
        from sgrun.grammar.walk import Walker

        return Walker(self)

    @cached_property
    def thresholds(self) -> Thresholds:
        from sgrun.grammar.walk import Thresholds

        return Thresholds(self)
