from __future__ import annotations

import json
import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scalar_walks import all_hold, bits, label_of, labels_in_table, places, strings

from sgrun.errors import GrammarTooLargeError, InvalidGrammarError, UnsupportedGrammarError
from sgrun.grammar.limits import Budget, CompileLimits
from sgrun.grammar.procedure import Count
from sgrun.grammar.scalars import atom_problem, string_procedure
from sgrun.grammar.strings import (
    Format,
    LengthAtLeast,
    LengthAtMost,
    Pattern,
    StringAtom,
    TextEquals,
    string_holds,
)

_PATTERNS = {  # by ECMA-262: the same for `re`
    "a": "a",
    "^[ab]+$": r"^[ab]+\Z",
    "^(ab)*$": r"^(ab)*\Z",
    "^(aaa)*$": r"^(aaa)*\Z",
    "b$": r"b\Z",
    "[^a]": "[^a]",
    "^.*é": "^.*é",
    "😀": "😀",
    "^[^a😀]*$": r"^[^a😀]*\Z",
    "^(a|bb)*$": r"^(a|bb)*\Z",
    "^[ab]{3,20}$": r"^[ab]{3,20}\Z",
    "^a[ab]{0,17}b$": r"^a[ab]{0,17}b\Z",
    "^[ab]{18,}$": r"^[ab]{18,}\Z",
}
_atoms: st.SearchStrategy[StringAtom] = st.one_of(
    st.sampled_from(sorted(_PATTERNS)).map(Pattern),
    st.builds(LengthAtLeast, st.integers(0, 24)),
    st.builds(LengthAtMost, st.integers(0, 24)),
    st.builds(TextEquals, st.text("ab", max_size=4)),
)
_texts = st.text("ab", max_size=26) | st.text('abé😀"\\/\t\x00\x7fc', max_size=12) | st.text(max_size=6)


def _holds(atom: StringAtom, text: str) -> bool:
    match atom:
        case Pattern(pattern):
            return re.search(_PATTERNS[pattern], text) is not None
        case LengthAtLeast(count):
            return len(text) >= count
        case LengthAtMost(count):
            return len(text) <= count
        case TextEquals(other):
            return text == other
        case Format():
            raise AssertionError("formats have tests of their own")


@settings(max_examples=300, deadline=None)
@given(st.lists(_atoms, max_size=3), st.lists(_texts, min_size=1, max_size=10))
def test_labels_agree_with_what_holds_of_the_decoded_text(atoms: list[StringAtom], texts: list[str]) -> None:
    procedure = strings(*atoms)
    for text in texts:
        expected = bits(tuple(_holds(atom, text) for atom in atoms))
        assert label_of(procedure, json.dumps(text)) == expected
        assert label_of(procedure, json.dumps(text, ensure_ascii=False)) == expected
        assert [string_holds(atom, text) for atom in atoms] == [_holds(atom, text) for atom in atoms]


@settings(max_examples=60, deadline=None)
@given(st.lists(_atoms, max_size=3), st.lists(st.sampled_from([None, 0, 1]), min_size=8, max_size=8))
@example([Pattern("^.*é"), LengthAtLeast(2)], [0, None, None, 1])
def test_every_label_that_the_table_promises_can_be_reached(atoms: list[StringAtom], labels: list[int | None]) -> None:
    procedure = string_procedure(atoms, lambda truths: labels[bits(truths)], Budget(CompileLimits()))
    promised = labels_in_table(procedure)
    for (state, _), reached in places(procedure).items():
        assert reached == promised[state]
        assert reached or state == 0


def test_the_plain_string_is_tiny_and_takes_every_spelling() -> None:
    procedure = strings()
    assert len(procedure.table) <= 24
    for text in ['""', '"a\\u0061\\/\\"\\\\\\b\\f\\n\\r\\t"', '"é\\u00E9\\u00e9"', '"😀\\ud83d\\uDE00"', '"\x7f"']:
        assert label_of(procedure, text) == 0
    for text in [
        '"\\ud800"',
        '"\\udc00"',
        '"\\ud83d\\u0041"',
        '"\\ud83dx"',
        '"\t"',
        '"\\x41"',
        '"\\u12"',
        '"a',
        "a",
        '""x',
    ]:
        assert label_of(procedure, text) is None
    for data in [b'"\xff"', b'"\xc3"', b'"\xed\xa0\x80"', b'"\xc0\x80"', b'"\xf4\x90\x80\x80"']:
        assert label_of(procedure, data) is None


def test_every_character_has_its_raw_and_its_escaped_spelling() -> None:
    procedure = strings(LengthAtMost(1))
    for code_point in [*range(0x800), *range(0x800, 0x110000, 97), 0xD7FF, 0xE000, 0xFFFF, 0x10000, 0x10FFFF]:
        if not 0xD800 <= code_point <= 0xDFFF:
            assert label_of(procedure, json.dumps(chr(code_point))) == 1
            assert label_of(procedure, json.dumps(chr(code_point), ensure_ascii=False)) == 1


def test_lengths_are_in_code_points_and_counted_by_a_few_states() -> None:
    procedure = string_procedure([LengthAtMost(100_000)], all_hold, Budget(CompileLimits()))
    assert len(procedure.table) <= 26
    assert any(isinstance(edge, Count) for edge in procedure.edges)
    assert label_of(procedure, json.dumps("é" * 100_000)) == 0
    assert label_of(procedure, json.dumps("😀" * 100_001, ensure_ascii=False)) is None
    assert label_of(procedure, '"' + "a" * 100_001) is None


def test_characters_below_a_short_minimum_are_not_counted() -> None:
    procedure = string_procedure([LengthAtLeast(1), LengthAtMost(50)], all_hold, Budget(CompileLimits()))
    assert [n for n in range(60) if label_of(procedure, '"' + "a" * n + '"') == 0] == list(range(1, 51))
    assert len(procedure.table) < 80


def test_a_pattern_and_a_long_length_hold_together() -> None:
    atoms = [Pattern("^[a-z]+@[a-z]+$"), LengthAtLeast(200), LengthAtMost(10_000)]
    procedure = string_procedure(atoms, all_hold, Budget(CompileLimits()))
    assert len(procedure.table) < 60
    for size in (199, 200, 10_000, 10_001):
        text = "a" * (size - 2) + "@b"
        assert (label_of(procedure, f'"{text}"') == 0) == (200 <= size <= 10_000)
    # With one character left there is no room for `@b` any more: the text is not led there.
    assert label_of(procedure, '"' + "a" * 9_998 + "@b" + '"') == 0
    assert label_of(procedure, '"' + "a" * 9_999 + "@b" + '"') is None


def test_a_length_that_never_fits_the_pattern_leaves_nothing() -> None:
    odd = [LengthAtLeast(301), LengthAtMost(301)]
    assert not string_procedure([Pattern("^(ab)*$"), *odd], all_hold, Budget(CompileLimits())).table.any()


def test_a_pattern_that_bounds_the_length_is_counted() -> None:
    procedure = string_procedure([Pattern("^x-[^ ]{2,5000}[0-9]{3}$")], all_hold, Budget(CompileLimits()))
    assert len(procedure.table) < 150
    for count in (1, 2, 5000, 5001):
        assert (label_of(procedure, f'"x-{"é" * count}123"') == 0) == (2 <= count <= 5000)


def test_an_unaffordable_length_is_refused() -> None:
    with pytest.raises(GrammarTooLargeError, match="max_states"):
        strings(Pattern("^(aaaaaaa)*$"), LengthAtLeast(1_000_000), LengthAtMost(1_000_003))


def test_many_texts_are_told_apart() -> None:
    names = [f"name_{i}" for i in range(300)]
    procedure = string_procedure(
        [TextEquals(name) for name in names], lambda truths: (*truths, True).index(True), Budget(CompileLimits())
    )
    assert [label_of(procedure, json.dumps(name)) for name in names] == list(range(300))
    assert label_of(procedure, '"name_300"') == 300


def test_a_lone_surrogate_is_never_spelled() -> None:
    procedure = strings(TextEquals("\ud800"), TextEquals("a"))
    assert label_of(procedure, '"a"') == 2
    assert label_of(procedure, '"\\ud800"') is None
    assert not string_holds(Pattern("."), "\ud800")


def test_no_refused_character_is_begun() -> None:
    procedure = string_procedure([Pattern("^[a-z]*$")], all_hold, Budget(CompileLimits()))
    state = procedure.table[0, ord('"')]
    assert [byte for byte in range(256) if procedure.table[state, byte]] == [ord('"'), *range(ord("a"), ord("z") + 1)]


def test_malformed_and_unsupported_patterns_are_told_early() -> None:
    with pytest.raises(InvalidGrammarError):
        atom_problem(Pattern("^(abc]"))
    with pytest.raises(UnsupportedGrammarError):
        atom_problem(Pattern(r"(a)\1"))
    atom_problem(Pattern("^a$"))
    atom_problem(Format("of our own"))


def test_plain_strings_and_patterns_are_quick() -> None:
    for atoms, limit_s in [([], 0.005), ([Pattern("^[A-Z]{2}-[0-9]+$")], 0.02), ([LengthAtMost(10_000)], 0.005)]:
        times = []
        for _ in range(5):
            start = time.process_time()
            string_procedure(atoms, all_hold, Budget(CompileLimits()))
            times.append(time.process_time() - start)
        assert min(times) < limit_s
