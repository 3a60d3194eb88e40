"""Masks of rows against the host's walk, token by token."""

from __future__ import annotations

from itertools import product
from types import ModuleType

import numpy as np
import pytest
import torch
from device_rows import all_ids, arena_of, placed, records_of, rows_of, tables_of
from hypothesis import given, settings
from hypothesis import strategies as st
from random_automata import automata, cursors

from sgrun.grammar.automaton import Automaton
from sgrun.grammar.vocabulary import Vocabulary
from sgrun.grammar.walk import Cursor
from sgrun_kernels import automaton, reference_automaton

SHORT = [bytes(letters) for length in (1, 2, 3) for letters in product(b"abc", repeat=length)]
LONG = [b"abcabc", b"aaaaaaaaaa", b"cab" * 3, b"a" * 18, b"ba" * 6, b"ab" * 20]
PIECES: list[bytes | None] = [None, *SHORT, b"", *LONG, "é".encode(), b"\xff", b"abc"]
VOCABULARY = Vocabulary(PIECES, end_token_ids=[0, len(PIECES) - 1])  # one end token without bytes, one with
IMPLEMENTATIONS = [reference_automaton, automaton]


def masks_of(
    implementation: ModuleType, automata: list[Automaton], records: np.ndarray, vocabulary: Vocabulary
) -> tuple[np.ndarray, np.ndarray]:
    """(masks [R, words] on a poisoned buffer, records afterwards)."""
    rows, tables = rows_of(records), tables_of(vocabulary)
    masks = torch.full((len(records), tables.num_words), 0x5A5A5A5A, dtype=torch.int32)
    frames = torch.full((2, 64, 256, 2), -(10**9), dtype=torch.int32)
    implementation.row_masks_(all_ids(len(records)), rows, arena_of(automata), tables, masks, frames)
    return masks.cpu().numpy(), records_of(rows)


def expected_mask(
    automaton: Automaton, cursor: Cursor, vocabulary: Vocabulary, can_end: bool
) -> tuple[np.ndarray, bool]:
    """(bitmask, whether text is allowed), walking each token."""
    walker = automaton.walker
    allowed = np.zeros(vocabulary.num_words * 32, dtype=np.bool_)
    for token_id in range(vocabulary.size):
        data = vocabulary.token(token_id)
        if data and token_id not in vocabulary.end_token_ids:
            allowed[token_id] = walker.advance(cursor, data) is not None
    has_text = bool(allowed.any())
    if can_end and walker.is_accepting(cursor):
        allowed[sorted(vocabulary.end_token_ids)] = True
    return np.packbits(allowed, bitorder="little").view("<i4"), has_text


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@settings(max_examples=12, deadline=None)
@given(data=st.data(), automaton=automata(), can_end=st.booleans())
def test_masks_of_any_cursor_are_what_their_definition_says(
    implementation: ModuleType, data: st.DataObject, automaton: Automaton, can_end: bool
) -> None:
    places = [(0, data.draw(cursors(automaton))) for _ in range(4)]
    masks, records = masks_of(implementation, [automaton], placed(places, can_end), VOCABULARY)
    for row_id, (_, cursor) in enumerate(places):
        expected, has_text = expected_mask(automaton, cursor, VOCABULARY, can_end)
        assert (masks[row_id] == expected).all(), (row_id, cursor)
        assert records["has_text"][row_id] == has_text
        assert records["is_accepting"][row_id] == automaton.walker.is_accepting(cursor)
