from __future__ import annotations

import gc
from itertools import product
from weakref import ref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_automata import automata, cursors

from sgrun.grammar import masks
from sgrun.grammar.automaton import ACCEPT, COUNT, MOVE, OP_BITS, Automaton
from sgrun.grammar.compiler import compile_grammar
from sgrun.grammar.masks import token_bitmask
from sgrun.grammar.vocabulary import Vocabulary
from sgrun.grammar.walk import Cursor
from sgrun.types import JsonSchemaSpec, RegexSpec

SHORT = [bytes(letters) for length in (1, 2, 3) for letters in product(b"abc", repeat=length)]
LONG = [b"abcabc", b"aaaaaaaaaa", b"bbbbbbb", b"cccccccccc", b"abababab", b"cab" * 3, b"a" * 18, b"ba" * 6]
TEXTS = ["é", "日本", "aé", "aab", "\x7f~", "𝄞", 'a"', '"a', 'aa"', "\\", "a\n", "é\nab", 'a"aaa', "é" * 9]
PARTIAL = [b"\xc3", b"\xa9", b"a\xff", b"\xa9a", b"a\xe6\x97", b"\xa5ab", b"\xed\xa0\x80"]
PIECES: list[bytes | None] = [None, *SHORT, b"", *LONG, b"ab", *(text.encode() for text in TEXTS), *PARTIAL]


def bits(mask: np.ndarray) -> list[int]:
    return np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")).tolist()


def by_definition(automaton: Automaton, cursor: Cursor, pieces: list[bytes | None]) -> list[int]:
    walker = automaton.walker
    return [i for i, data in enumerate(pieces) if data and walker.advance(cursor, data) is not None]


@settings(max_examples=200, deadline=None)
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


@pytest.mark.parametrize(
    "schema",
    [
        '{"type":"string"}',
        '{"type":"string","minLength":2,"maxLength":5}',
        '{"type":"string","minLength":3}',
        '{"type":"array","items":{"type":"string","maxLength":4},"maxItems":3}',
        '{"properties":{"ab":{"type":"string","maxLength":12},"a\\"":{}},"additionalProperties":{"type":"boolean"}}',
        '{"type":"string","pattern":"^a+.{2,4}$"}',
    ],
)
@pytest.mark.parametrize("many", [0, 200])
def test_masks_of_json_strings_are_what_their_definition_says(
    schema: str, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masks, "MANY", many)  # 0: asks for every node whether its subtree needs a walk
    automaton = compile_grammar(JsonSchemaSpec(schema))
    json_pieces = [*PIECES, b"[", b",", b"]", b'["', b'","', b'"]', b'{"', b'":', b"}", b"true", b'{"ab":"', b'a":tr']
    vocabulary = Vocabulary(json_pieces)
    seen = {automaton.walker.start}
    waiting = [automaton.walker.start]
    while waiting and len(seen) < 60:
        cursor = waiting.pop(0)
        expected = by_definition(automaton, cursor, json_pieces)
        assert bits(vocabulary.masks.get(automaton, cursor)) == expected
        for number in expected:
            after = automaton.walker.advance(cursor, json_pieces[number] or b"")
            if after is not None and after not in seen:
                seen.add(after)
                waiting.append(after)


def test_counters_far_from_their_threshold_share_one_mask() -> None:
    automaton = compile_grammar(JsonSchemaSpec('{"type":"string","maxLength":10000}'))
    vocabulary = Vocabulary(PIECES)
    cursor = automaton.walker.advance(automaton.walker.start, b'"')
    assert cursor is not None
    found = set()
    for _ in range(9900):
        found.add(id(vocabulary.masks.get(automaton, cursor)))
        cursor = automaton.walker.advance(cursor, b"a")
        assert cursor is not None
    assert len(found) <= 2
    for _ in range(100):
        assert bits(vocabulary.masks.get(automaton, cursor)) == by_definition(automaton, cursor, PIECES)
        cursor = automaton.walker.advance(cursor, b"a")
        assert cursor is not None


def test_stacks_that_no_token_looks_into_share_one_mask() -> None:
    automaton = compile_grammar(JsonSchemaSpec('{"items":{"$ref":"#"},"type":["array","string"]}'))
    vocabulary = Vocabulary(PIECES)
    masks_inside = set()
    for depth in range(1, 30):
        cursor = automaton.walker.advance(automaton.walker.start, b"[" * depth + b'"a')
        assert cursor is not None
        masks_inside.add(id(vocabulary.masks.get(automaton, cursor)))
    assert len(masks_inside) <= 2  # the outermost array lies on another frame than those in it


def test_kept_masks_stay_within_their_bytes() -> None:
    automaton = compile_grammar(RegexSpec("abcabcabc"))
    mask_bytes = 4 * Vocabulary(PIECES).num_words
    vocabulary = Vocabulary(PIECES, max_mask_bytes=3 * (mask_bytes + masks.KEY_BYTES))
    cursors = [automaton.walker.advance(automaton.walker.start, b"abcabc"[:n]) or Cursor(0) for n in range(5)]
    first = vocabulary.masks.get(automaton, cursors[0])
    assert vocabulary.masks.get(automaton, cursors[0]) is first
    assert not first.flags.writeable
    for cursor in cursors[1:3]:
        vocabulary.masks.get(automaton, cursor)
    assert vocabulary.masks.get(automaton, cursors[0]) is first
    vocabulary.masks.get(automaton, cursors[3])  # drops the one not asked for longest, the second
    assert vocabulary.masks.size_bytes == 3 * (mask_bytes + masks.KEY_BYTES)
    assert vocabulary.masks.get(automaton, cursors[0]) is first
    for cursor in cursors[1:4]:
        vocabulary.masks.get(automaton, cursor)
    assert vocabulary.masks.get(automaton, cursors[0]) is not first


def test_masks_of_automata_are_told_apart() -> None:
    vocabulary = Vocabulary(PIECES)
    one, two = compile_grammar(RegexSpec("a")), compile_grammar(RegexSpec("b"))
    assert bits(vocabulary.masks.get(one, one.walker.start)) == [PIECES.index(b"a")]
    assert bits(vocabulary.masks.get(two, two.walker.start)) == [PIECES.index(b"b")]


def test_masks_do_not_keep_their_automaton() -> None:
    vocabulary = Vocabulary([b"a", b"b", b"ab"])
    for pattern, allowed in (("a", 1), ("b", 2), ("ab", 5)):  # at the same address, as like as not
        automaton = compile_grammar(RegexSpec(pattern))
        assert vocabulary.masks.get(automaton, Cursor(automaton.start)).tolist() == [allowed]
        gone = ref(automaton)
        del automaton
        gc.collect()
        assert gone() is None
    assert vocabulary.masks.size_bytes == 3 * (masks.KEY_BYTES + 4)


@pytest.mark.parametrize("size", [1, 31, 32, 33, 64])
def test_mask_has_no_bits_beyond_the_vocabulary(size: int) -> None:
    vocabulary = Vocabulary([b"a"] * size)
    automaton = compile_grammar(RegexSpec("a*"))
    mask = token_bitmask(automaton, automaton.walker.start, vocabulary)
    assert len(mask) == vocabulary.num_words == -(-size // 32) and mask.dtype == np.int32
    assert bits(mask) == list(range(size))


def test_many_keys_are_told_apart_like_few() -> None:
    draw = np.random.default_rng(0)
    for keys in (draw.integers(0, 50, 5000) << 32 | draw.integers(0, 9, 5000), draw.integers(0, 2**50, 5000)):
        distinct, inverse = masks.distinct(keys)
        assert sorted(distinct) == sorted(set(keys.tolist())) and (distinct[inverse] == keys).all()


def automaton_of(rows: list[list[int]], classes: np.ndarray, counts: list[list[int]]) -> Automaton:
    table, sites = np.array(rows, dtype=np.int32), np.zeros((0, 2), dtype=np.int32)
    return Automaton(classes, table, sites, np.array(counts, dtype=np.int32).reshape(-1, 3), start=1)


def test_byte_that_counts_twice_comes_to_its_threshold_sooner() -> None:
    classes = np.zeros(256, dtype=np.uint8)
    classes[ord("a")] = 1
    count, again, move = COUNT | 0 << OP_BITS, COUNT | 1 << OP_BITS, MOVE | 1 << OP_BITS
    automaton = automaton_of(
        [[0, 0, 0], [0, count, ACCEPT], [0, again, 0], [0, move, 0]], classes, [[9, 2, 0], [99, 3, 0]]
    )
    pieces: list[bytes | None] = [b"a" * length for length in range(1, 8)]
    assert bits(Vocabulary(pieces).masks.get(automaton, automaton.walker.start)) == [0, 1, 2, 3]


def test_text_that_is_free_after_half_a_character_is_not_free_inside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "MANY", 0)
    classes = np.ones(256, dtype=np.uint8)
    for number, (low, high) in enumerate([(0xC2, 0xDF), (0xE0, 0xEF), (0xF0, 0xF4), (0x80, 0xBF)], start=2):
        classes[low : high + 1] = number
    rows = [[0] * 7, [0, 0, 0, 2, 0, 0, 0], [0, 2, 3, 4, 5, 0, 0], [0, 0, 0, 0, 0, 2, 0], [0, 0, 0, 0, 0, 3, 0]]
    rows.append([0, 0, 0, 0, 0, 4, 0])
    moves = [[MOVE | state << OP_BITS if state else 0 for state in row] for row in rows]
    automaton = automaton_of(moves, classes, [])  # \xe6 and then characters, which do not go on with \x97
    pieces: list[bytes | None] = ["日本".encode(), b"\xe6a", b"\xe6", b"\xe6\x97"]
    expected = by_definition(automaton, automaton.walker.start, pieces)
    assert bits(Vocabulary(pieces).masks.get(automaton, automaton.walker.start)) == expected == [1, 2]
