"""Owns which idle sequences keep what is cached of them from eviction."""

from __future__ import annotations

from sgrun.cache.radix_tree import RadixTree
from sgrun.engine.sequence import Sequence


class Pins:
    """A pin is a lock on the end of a sequence's cached path."""

    def __init__(self, tree: RadixTree) -> None:
        self._tree = tree
        self._pinned: dict[int, Sequence] = {}  # longest pinned first

    def renew(self, seq: Sequence) -> None:
        """Pins what is cached of the sequence's tokens now."""
        node = self._tree.match_prefix(seq.token_ids, len(seq.token_ids), seq.cache_salt).node
        self._tree.lock(node)
        self.remove(seq)
        seq.pin = node
        self._pinned[seq.id] = seq

    def remove(self, seq: Sequence) -> None:
        """Takes the sequence's pin away, if it has one."""
        if seq.pin is not None:
            self._tree.unlock(seq.pin)
            seq.pin = None
            del self._pinned[seq.id]

    def remove_oldest(self) -> bool:
        """Takes away the pin that has been there longest; False if there is none."""
        if not self._pinned:
            return False
        self.remove(next(iter(self._pinned.values())))
        return True
