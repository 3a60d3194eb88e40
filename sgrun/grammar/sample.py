"""Random texts of an automaton: seeded walks by bytes that take a short way out once they are long enough."""

from __future__ import annotations

import operator
import random

import numpy as np
import numpy.typing as npt

from sgrun.grammar.automaton import Automaton
from sgrun.grammar.least_costs import least_costs
from sgrun.grammar.walk import Cursor

_NEVER = 1e9  # more bytes than any way out

Distances = npt.NDArray[np.float64]


class Sampler:
    """Draws accepted texts. `soft_len`: bytes after which a walk turns to a short way out."""

    def __init__(self, automaton: Automaton, seed: int, soft_len: int = 120) -> None:
        self._automaton = automaton
        self._random = random.Random(seed)
        self._soft_len = soft_len
        self._distances = _distances(automaton)
        classes = automaton.byte_classes
        self._bytes = [np.flatnonzero(classes == column).tolist() for column in range(automaton.num_classes)]

    def text(self) -> bytes:
        """One accepted text."""
        while True:
            cursor, data = self._walk()
            rest = self.completion(cursor)
            if rest is not None:
                return data + rest

    def completion(self, cursor: Cursor) -> bytes | None:
        """What completes the text at `cursor`, in few bytes; None if every way asks for more frames than there may be.

        A search depth first, in each place first to where the fewest bytes are still to come, as far as tables without
        their counters and their looking ahead tell. No place is visited twice.
        """
        origins: dict[Cursor, tuple[Cursor, int] | None] = {cursor: None}
        waiting = [cursor]
        while waiting:
            at = waiting.pop()
            if self._automaton.walker.is_accepting(at):
                return _spelled(origins, at)
            found = {after: members for after, members in self._followers(at).items() if after not in origins}
            for after in sorted(found, key=self._way_out, reverse=True):
                origins[after] = at, self._byte(found[after])
                waiting.append(after)
        return None

    def _walk(self) -> tuple[Cursor, bytes]:
        """Some random bytes, and where they lead."""
        walker = self._automaton.walker
        cursor = walker.start
        data = bytearray()
        while len(data) < self._soft_len:
            followers = self._followers(cursor)
            if not followers or (walker.is_accepting(cursor) and self._random.random() < 0.2):
                break
            # where to first, then by which byte: quotes and commas count as much as all letters together
            cursor = self._random.choice(list(followers))
            data.append(self._byte(followers[cursor]))
        return cursor, bytes(data)

    def _followers(self, cursor: Cursor) -> dict[Cursor, list[int]]:
        """Where the next byte may lead, each with the bytes that lead there."""
        followers: dict[Cursor, list[int]] = {}
        for members in self._bytes:
            after = self._automaton.walker.advance(cursor, bytes(members[:1])) if members else None
            if after is not None:
                followers.setdefault(after, []).extend(members)
        return followers

    def _byte(self, members: list[int]) -> int:
        """Letters and digits before others, so that the text can be read."""
        plain = [byte for byte in members if chr(byte).isascii() and chr(byte).isalnum()]
        return self._random.choice(plain or members)

    def _way_out(self, cursor: Cursor) -> float:
        """The fewest bytes to the end, as far as nothing that is counted or looked ahead to asks for more."""
        sites = self._automaton.sites
        ways = np.append(np.full(sites.shape[1] - 1, _NEVER), 0.0)
        for site, _ in cursor.stack:
            returned = (self._distances[sites[site, 1:]] + ways).min(axis=1)
            ways = np.append(returned, _NEVER)  # the input ends in the outermost frame only
        return float((self._distances[cursor.state] + ways).min())


def _spelled(origins: dict[Cursor, tuple[Cursor, int] | None], cursor: Cursor) -> bytes:
    """The bytes that led to `cursor`."""
    data = bytearray()
    while (origin := origins[cursor]) is not None:
        cursor, byte = origin
        data.append(byte)
    return bytes(reversed(data))


def _distances(automaton: Automaton) -> Distances:
    """[num_states, num_labels + 1] the fewest bytes from a state to returning each label, and to accepting."""
    distances = np.full((automaton.num_states, automaton.sites.shape[1]), _NEVER)
    for state, costs in least_costs(automaton, 1, operator.add).items():
        for label, num_bytes in costs.items():  # AT_END is the last column
            distances[state, label] = num_bytes
    return distances
