"""What a committed step does to rows, ring and counts, against a plain model of generations."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from device_rows import DEVICE, implementations, place_in, placed, put_cursor, records_of, rows_of
from hypothesis import given, settings
from hypothesis import strategies as st
from random_automata import automata, cursors

from sgrun.grammar.automaton import Automaton
from sgrun.grammar.vocabulary import Vocabulary
from sgrun_kernels import reference_step, step
from sgrun_kernels.bitmask_cache import ENTRY, BitmaskCache
from sgrun_kernels.rows import (
    FAILED,
    FINISHED,
    NO_TOKEN,
    NOTHING_ALLOWED,
    OUT_OF_TOKENS,
    STOPPED,
    Adjustments,
    DecodeInputs,
    Ring,
    new_records,
    ring_entries,
)

IMPLEMENTATIONS = implementations(reference_step, step)
PIECES: list[bytes | None] = [None, b"a", b"b", b"c", b"ab", b"ba", b"aab", b"cccc", b"abcabc", b"a" * 30]
VOCABULARY = Vocabulary(PIECES, end_token_ids=[0])
NUM_ROWS = 6


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@settings(max_examples=12, deadline=None)
@given(data=st.data(), automaton=automata())
def test_steps_do_to_rows_what_the_ring_says(
    implementation: ModuleType, data: st.DataObject, automaton: Automaton
) -> None:
    """Random tokens, each one that the row's constraint allows, over several steps of random rows."""
    walker = automaton.walker
    places = [(0, data.draw(cursors(automaton))) for _ in range(NUM_ROWS)]
    records = placed(places)
    records["automaton"][::3] = -1
    records["is_active"][5] = 0
    records["remaining"] = data.draw(st.lists(st.integers(1, 4), min_size=NUM_ROWS, max_size=NUM_ROWS))
    records["seq_len"] = np.arange(10, 10 + NUM_ROWS)
    records["position"] = np.arange(NUM_ROWS)
    records["adjustment"] = [1, -1, 0, -1, 2, -1]
    records["stop_ids"][:, :2] = [[0, 3]] * NUM_ROWS
    records["mask"] = data.draw(st.permutations(range(NUM_ROWS)))
    cache = BitmaskCache.allocate(NUM_ROWS, 1, DEVICE, size_bytes=1)
    num_allowed = data.draw(st.lists(st.integers(0, 2), min_size=NUM_ROWS, max_size=NUM_ROWS))
    kept = np.zeros(len(cache.entries), dtype=ENTRY)
    kept["num_allowed"][:NUM_ROWS] = num_allowed
    cache.entries.copy_(torch.from_numpy(kept.view(np.int32).reshape(len(kept), -1)))
    rows = rows_of(records)
    ring = Ring.allocate(3, NUM_ROWS, DEVICE)
    adjustments = Adjustments.allocate(3, VOCABULARY.size, DEVICE)
    expected, expected_seen = records.copy(), np.zeros((3, VOCABULARY.size), dtype=np.int32)
    for number in range(5):
        row_ids = data.draw(st.lists(st.integers(0, NUM_ROWS - 1), unique=True, min_size=1))
        for row_id in row_ids:
            record = expected[row_id : row_id + 1]
            cursor = place_in(record[0])
            if record["automaton"][0] >= 0 and record["unwalked"][0] != NO_TOKEN:
                cursor = walker.advance(cursor, VOCABULARY.token(int(record["unwalked"][0])))
                assert cursor is not None
                put_cursor(record, 0, cursor)
            texts = [i for i in range(1, VOCABULARY.size) if walker.advance(cursor, VOCABULARY.token(i)) is not None]
            is_constrained = record["automaton"][0] >= 0
            allowed = [*(texts if is_constrained else range(1, VOCABULARY.size)), 0]
            record["drawn"] = data.draw(st.sampled_from([*allowed, NOTHING_ALLOWED]))
            record["drawn_logprob"] = -float(number)
            record["has_text"], record["is_accepting"] = bool(texts), walker.is_accepting(cursor)
        rows.words.copy_(torch.from_numpy(expected.view(np.int32).reshape(NUM_ROWS, -1)))
        implementation.commit_step_(torch.tensor(row_ids, dtype=torch.int32), rows, ring, adjustments, cache)
        entries = ring_entries(ring.words.cpu())[number % 3]
        for row_id in row_ids:
            record = expected[row_id : row_id + 1]
            is_forced = record["automaton"][0] >= 0 and num_allowed[record["mask"][0]] == 1
            entry = _commit(record, expected_seen)
            assert entries[row_id]["is_forced"] == (is_forced and entry[0] >= 0)
            assert tuple(entries[row_id])[:2] == entry
            assert entries[row_id]["logprob"] == (-float(number) if entry[0] >= 0 else 0.0)
        _assert_equal_rows(records_of(rows), expected)
        assert adjustments.seen.cpu().numpy().tolist() == expected_seen.tolist()
        assert int(ring.index) == number + 1 and int(ring.arrivals) == 0


def _commit(record: Any, seen: np.ndarray) -> tuple[int, int]:
    token_id = int(record["drawn"][0])
    if not record["is_active"][0]:
        return NO_TOKEN, 0
    is_constrained = record["automaton"][0] >= 0
    if is_constrained and record["is_accepting"][0] and not record["has_text"][0]:
        token_id, reason = NO_TOKEN, FINISHED
    elif token_id < 0:
        reason = FAILED
    elif token_id in (0, 3):
        reason = STOPPED
    else:
        record["unwalked"] = token_id
        if record["adjustment"][0] >= 0:
            seen[record["adjustment"][0], token_id] += 2
        record["token_id"] = token_id
        record["position"] += 1
        record["seq_len"] += 1
        record["remaining"] -= 1
        reason = 0 if record["remaining"][0] else OUT_OF_TOKENS
    if reason:
        record["is_active"], record["automaton"] = 0, -1
    return token_id, reason


def _assert_equal_rows(actual: Any, expected: Any) -> None:
    for name in expected.dtype.names:
        assert actual[name].tolist() == expected[name].tolist(), name


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_inputs_of_the_next_step_are_the_last_tokens_and_spare_places(implementation: ModuleType) -> None:
    records = new_records(5)
    records["is_active"] = [1, 0, 1, 1, 0]
    records["token_id"] = [7, 8, 9, 10, 11]
    records["seq_len"] = [1, 99, 9, 8, 3]
    rows = rows_of(records, max_pages=3)
    rows.page_tables.copy_(torch.arange(100, 115).view(5, 3))
    row_ids = torch.tensor([4, 3, 2, 0, 1], dtype=torch.int32)
    inputs = DecodeInputs.allocate(5, 4, DEVICE).first(5, 2)
    for tensor in (inputs.token_ids, inputs.positions, inputs.slots, inputs.seq_lens, inputs.page_tables):
        tensor.fill_(-1)
    implementation.decode_inputs_(row_ids, rows, inputs, page_size=4, spare_page=50)
    assert inputs.token_ids.tolist() == [0, 10, 9, 7, 0]
    assert inputs.positions.tolist() == [0, 7, 8, 0, 0]
    assert inputs.seq_lens.tolist() == [1, 8, 9, 1, 1]
    assert inputs.page_tables.tolist() == [[112, 113], [109, 110], [106, 107], [100, 101], [103, 104]]
    assert inputs.slots.tolist() == [200, 110 * 4 + 3, 108 * 4, 400, 200]
