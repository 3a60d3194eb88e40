from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from random_automata import automata, cursors

from sgrun.grammar.automaton import (
    Automaton,
)
from sgrun.grammar.masks import token_bitmask
from sgrun.grammar.vocabulary import Vocabulary
from sgrun.grammar.walk import Cursor

SHORT = [bytes(letters) for length in (1, 2, 3) for letters in product(b"abc", repeat=length)]
LONG = [b"abcabc", b"aaaaaaaaaa", b"bbbbbbb", b"cccccccccc", b"abababab", b"cab" * 3, b"a" * 13, b"ba" * 6]
PIECES: list[bytes | None] = [None, *SHORT, b"", *LONG, b"ab", b"a\xff", b"d"]


def bits(mask: np.ndarray) -> list[int]:
    return np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")).tolist()


def by_definition(automaton: Automaton, cursor: Cursor, pieces: list[bytes | None]) -> list[int]:
    walker = automaton.walker
    return [i for i, data in enumerate(pieces) if data and walker.advance(cursor, data) is not None]


@settings(max_examples=300, deadline=None)
@given(st.data(), automata())
def test_masks_of_any_cursor_are_what_their_definition_says(data: st.DataObject, automaton: Automaton) -> None:
    vocabulary = Vocabulary(PIECES)
    for _ in range(12):  # one cache for all, so that a mask shared by too many shows
        cursor = data.draw(cursors(automaton))
        expected = by_definition(automaton, cursor, PIECES)
        assert bits(token_bitmask(automaton, cursor, vocabulary)) == expected
        assert bits(vocabulary.masks.get(automaton, cursor)) == expected
        assert bits(vocabulary.masks.get(automaton, cursor)) == expected


@settings(max_examples=100, deadline=None)
@given(automata())
def test_masks_of_every_reachable_cursor_are_what_their_definition_says(automaton: Automaton) -> None:
    vocabulary = Vocabulary(PIECES)
    seen = {automaton.walker.start}
    waiting = [automaton.walker.start]
    while waiting and len(seen) < 80:
        cursor = waiting.pop(0)
        assert bits(vocabulary.masks.get(automaton, cursor)) == by_definition(automaton, cursor, PIECES)
        for token in SHORT[:12]:
            after = automaton.walker.advance(cursor, token)
            if after is not None and after not in seen:
                seen.add(after)
                waiting.append(after)
