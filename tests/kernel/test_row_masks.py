"""Masks of rows against the host's walk, token by token."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from device_rows import (
    DEVICE,
    all_ids,
    arena_of,
    implementations,
    place_in,
    placed,
    records_of,
    rows_of,
    tables_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from random_automata import automata, cursors

from sgrun.grammar.automaton import CALL, MOVE, OP_BITS, RETURN_AFTER, Automaton
from sgrun.grammar.compiler import compile_grammar
from sgrun.grammar.masks import token_bitmask
from sgrun.grammar.vocabulary import Vocabulary
from sgrun.grammar.walk import Cursor
from sgrun.types import JsonSchemaSpec, LarkSpec, RegexSpec
from sgrun_kernels import automaton, reference_automaton
from sgrun_kernels.bitmask_cache import BitmaskCache
from sgrun_kernels.rows import NO_TOKEN
from sgrun_kernels.workspace import allocate_frames

SHORT = [bytes(letters) for length in (1, 2, 3) for letters in product(b"abc", repeat=length)]
LONG = [b"abcabc", b"aaaaaaaaaa", b"cab" * 3, b"a" * 18, b"ba" * 6, b"ab" * 12]
PIECES: list[bytes | None] = [None, *SHORT, b"", *LONG, "é".encode(), b"\xff", b"abc"]
VOCABULARY = Vocabulary(PIECES, end_token_ids=[0, len(PIECES) - 1])  # one end token without bytes, one with
IMPLEMENTATIONS = implementations(reference_automaton, automaton)


def poisoned_cache(num_rows: int, num_words: int) -> BitmaskCache:
    """Of one set."""
    cache = BitmaskCache.allocate(num_rows, num_words, DEVICE, size_bytes=1)
    cache.bits.fill_(0x5A5A5A5A)
    return cache


def masks_of(
    implementation: ModuleType,
    automata: list[Automaton],
    records: np.ndarray,
    vocabulary: Vocabulary,
    block: int = 32,
    cache: BitmaskCache | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """(masks [R, words] of rows that all have constraints, records afterwards), from an empty cache if None. Under the
    interpreter two programs walk `block` tokens at once; a GPU walks as many as in the engine."""
    rows, tables = rows_of(records), tables_of(vocabulary)
    cache = cache or poisoned_cache(len(records), tables.num_words)
    frames = torch.empty((2, 64, block, 2), dtype=torch.int32) if DEVICE.type == "cpu" else allocate_frames(DEVICE)
    frames.fill_(-(10**9))
    implementation.row_masks_(all_ids(len(records)), rows, arena_of(automata), tables, cache, frames)
    after = records_of(rows)
    return cache.bits.cpu().numpy()[after["mask"]], after


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
@settings(max_examples=6, deadline=None)
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


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@settings(max_examples=8, deadline=None)
@given(data=st.data(), automaton=automata())
def test_rows_walk_the_tokens_that_they_drew_before_their_masks_are_made(
    implementation: ModuleType, data: st.DataObject, automaton: Automaton
) -> None:
    """Rows with a token that their constraint allows, and without one."""
    places = [(0, data.draw(cursors(automaton))) for _ in range(5)]
    records, after = placed(places), []
    for row_id, (_, cursor) in enumerate(places):
        token_id, cursor = data.draw(st.sampled_from([(NO_TOKEN, cursor), *allowed_tokens(automaton, cursor)]))
        records["unwalked"][row_id] = token_id
        after.append(cursor)
    masks, walked = masks_of(implementation, [automaton], records, VOCABULARY)
    for row_id, cursor in enumerate(after):
        assert place_in(walked[row_id]) == cursor
        assert walked["unwalked"][row_id] == NO_TOKEN
        expected, has_text = expected_mask(automaton, cursor, VOCABULARY, True)
        assert (masks[row_id] == expected).all(), row_id
        assert walked["has_text"][row_id] == has_text


def allowed_tokens(automaton: Automaton, cursor: Cursor) -> list[tuple[int, Cursor]]:
    """Tokens with text, and where they lead."""
    tokens = [i for i in range(VOCABULARY.size) if i not in VOCABULARY.end_token_ids and VOCABULARY.token(i)]
    after = [(token_id, automaton.walker.advance(cursor, VOCABULARY.token(token_id))) for token_id in tokens]
    return [(token_id, cursor) for token_id, cursor in after if cursor is not None]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_the_deepest_stack_and_a_token_of_many_bytes_are_followed(implementation: ModuleType) -> None:
    """Nesting up to 64 frames in one token, and back down in another."""
    table = np.zeros((4, 4), dtype=np.int32)
    table[1, 1] = MOVE | 2 << OP_BITS  # a: inside
    table[2, 1] = table[3, 1] = CALL  # site 0: another a opens one more
    table[2, 2] = table[3, 2] = RETURN_AFTER
    classes = np.zeros(256, dtype=np.uint8)
    classes[ord("a")], classes[ord("b")] = 1, 2
    sites, counts = np.array([[1, 3]], dtype=np.int32), np.zeros((0, 3), dtype=np.int32)
    nested = Automaton(classes, table, sites, counts, start=2)
    vocabulary = Vocabulary([None, b"a" * 64, b"b" * 63, b"b", b"aabbab"], end_token_ids=[0])
    cursor = Cursor(2)
    records = placed([(0, cursor)])
    for token_id in (1, 2, 4, 4, 3):
        records["unwalked"] = token_id
        after = nested.walker.advance(cursor, vocabulary.token(token_id))
        assert after is not None
        _, records = masks_of(implementation, [nested], records, vocabulary)
        cursor = place_in(records[0])
        assert cursor == after


SCHEMA = """{"type": "object", "required": ["name", "tags"], "additionalProperties": false, "properties": {
    "name": {"type": "string", "maxLength": 1500}, "tags": {"type": "array", "items": {"enum": ["a", "bc"]}},
    "more": {"$ref": "#"}}}"""


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (RegexSpec(r"-?\d{1,3}(\.\d+)? (apples|pears)"), "12.5 "),
        (RegexSpec(r"[^\"]*"), "free text"),
        (JsonSchemaSpec(SCHEMA), '{"name": "A", "tags": [], "more": ' * 3),
        (JsonSchemaSpec("{}"), "[" * 40 + '{"a": [1, "'),
        (JsonSchemaSpec("{}"), "[" * 62 + '{"a'),
        (JsonSchemaSpec("{}"), '{"a": 1}'),
    ],
)
def test_masks_over_a_real_vocabulary_are_those_of_the_host(
    smollm2: Vocabulary, spec: RegexSpec | JsonSchemaSpec, text: str
) -> None:
    compiled = compile_grammar(spec)
    cursor = compiled.walker.advance(compiled.walker.start, text.encode())
    assert cursor is not None
    is_accepting = compiled.walker.is_accepting(cursor)
    allowed = bits(token_bitmask(compiled, cursor, smollm2))
    masks, records = masks_of(automaton, [compiled], placed([(0, cursor)]), smollm2, block=16384)
    assert bits(masks[0]) == sorted({*allowed, *(smollm2.end_token_ids if is_accepting else ())})
    assert records["has_text"][0] == bool(allowed)
    assert records["is_accepting"][0] == is_accepting


@pytest.fixture(scope="module")
def smollm2(smollm2_gguf: Path) -> Vocabulary:
    return Vocabulary.from_tokenizer(smollm2_gguf)


def bits(mask: np.ndarray) -> list[int]:
    return np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")).tolist()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_rows_of_several_automata_are_masked_apart_and_others_left_alone(implementation: ModuleType) -> None:
    """Rows in any order; one is without a constraint, and one is not asked for."""
    compiled = [compile_grammar(RegexSpec(pattern)) for pattern in ("a*", "(ab)+c?", "[ab]{2,1500}")]
    places = [(i % 3, compiled[i % 3].walker.start) for i in range(7)]
    records = placed(places)
    records["automaton"][3] = -1
    records["mask"] = -7
    rows, tables = rows_of(records), tables_of(VOCABULARY)
    cache = poisoned_cache(7, tables.num_words)
    frames = torch.zeros((5, 64, 32, 2), dtype=torch.int32)
    row_ids = torch.tensor([6, 3, 0, 5, 1, 2], dtype=torch.int32)
    implementation.row_masks_(row_ids, rows, arena_of(compiled), tables, cache, frames)
    after = records_of(rows)
    for row_id, (index, cursor) in enumerate(places):
        if row_id in (3, 4):
            assert after[row_id] == records[row_id]
        else:
            expected, _ = expected_mask(compiled[index], cursor, VOCABULARY, can_end=True)
            assert cache.bits[int(after["mask"][row_id])].tolist() == expected.tolist()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_one_token_may_fill_the_stack_and_empty_it(implementation: ModuleType) -> None:
    """Brackets: 64 frames are allowed and 65 are not, whatever of them the token itself opened or the row had."""
    compiled = compile_grammar(LarkSpec('start: "[" start? "]"'))
    brackets = [b"[" * 63, b"[" * 64, b"[" * 65, b"]" * 63, b"]" * 64, b"[" * 40 + b"]" * 40, b"]]" + b"[" * 3]
    vocabulary = Vocabulary([*brackets, b"[" * 30 + b"]" * 29 + b"[" * 8, None], end_token_ids=[len(brackets) + 1])
    for num_open in (1, 62):
        cursor = compiled.walker.advance(compiled.walker.start, b"[" * num_open)
        assert cursor is not None
        masks, _ = masks_of(implementation, [compiled], placed([(0, cursor)]), vocabulary)
        expected, _ = expected_mask(compiled, cursor, vocabulary, can_end=True)
        assert bits(masks[0]) == bits(expected), num_open


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_rows_at_one_place_get_the_same_mask_and_no_others_do(implementation: ModuleType) -> None:
    """Equal states with other stacks, counters or rules for the end."""
    bracketed = compile_grammar(LarkSpec('start: "a" start "a" | "b" start "b" | "c"'))
    counted = compile_grammar(RegexSpec("a{3,1500}"))
    texts = [b"abc", b"bac", b"aac", b"aabc", b"ac"]
    places = [(0, bracketed.walker.advance(bracketed.walker.start, text)) for text in texts]
    places += [(1, counted.walker.advance(counted.walker.start, b"a" * count)) for count in (2, 2, 3, 1497, 1498)]
    compiled = [bracketed, counted]
    records = placed(places * 2)
    records["can_end"][7] = 0
    masks, after = masks_of(implementation, compiled, records, VOCABULARY)
    for row_id, (index, cursor) in enumerate(places * 2):
        expected, has_text = expected_mask(compiled[index], cursor, VOCABULARY, row_id != 7)
        assert masks[row_id].tolist() == expected.tolist(), row_id
        assert after["has_text"][row_id] == has_text, row_id
