from __future__ import annotations

import json
from typing import Any

import pytest
from schema_checks import compiled, takes

INTEGER = {"type": "integer"}


@pytest.mark.parametrize("bound", [1, 2, 39, 40, 41, 42, 500])
def test_item_counts_are_exact_on_both_sides(bound: int) -> None:
    least, most = compiled({"items": INTEGER, "minItems": bound}), compiled({"items": INTEGER, "maxItems": bound})
    for num_items in (0, 1, bound - 1, bound, bound + 1, 3 * bound):
        assert takes(least, [0] * num_items) == (num_items >= bound), num_items
        assert takes(most, [0] * num_items) == (num_items <= bound), num_items


def test_large_counts_take_a_counter_and_no_more_states() -> None:
    schemas: list[dict[str, Any]] = [
        {"items": {"type": "null"}, "maxItems": 100_000},
        {"items": {"type": "null"}, "minItems": 500, "maxItems": 501},
        {"type": "string", "maxLength": 10_000},
        {"type": "string", "minLength": 5_000, "maxLength": 10_000, "pattern": "^[ab]"},
    ]
    for schema in schemas:
        automaton = compiled(schema)
        assert len(automaton.counts) and automaton.num_states < 200, schema


def test_a_maximum_of_a_hundred_thousand_items_is_exact() -> None:
    automaton = compiled({"type": "array", "items": {"type": "null"}, "maxItems": 100_000}, whitespace="compact")
    text = "[" + ",".join(["null"] * 100_000)
    assert automaton.accepts(f"{text}]".encode())
    assert not automaton.accepts(f"{text},null]".encode())


def test_several_counts_hold_at_once() -> None:
    automaton = compiled({"minItems": 45, "maxItems": 60, "contains": {"const": 1}, "maxContains": 2})
    assert takes(automaton, [1, *[0] * 50, 1])
    for value in ([0] * 50, [1] * 50, [1] + [0] * 43, [1] + [0] * 60):
        assert not takes(automaton, value)


def test_alternatives_with_different_counts_are_told_apart() -> None:
    automaton = compiled({"oneOf": [{"minItems": 50}, {"maxItems": 100}], "type": "array"})
    for num_items, is_valid in ((0, True), (49, True), (50, False), (100, False), (101, True), (500, True)):
        assert takes(automaton, [0] * num_items) == is_valid, num_items


def test_counts_of_nested_arrays_do_not_disturb_each_other() -> None:
    inner = {"type": "array", "items": INTEGER, "minItems": 50, "maxItems": 50}
    automaton = compiled({"type": "array", "items": inner, "minItems": 45, "maxItems": 45})
    assert takes(automaton, [[0] * 50] * 45)
    for value in ([[0] * 50] * 44, [[0] * 50] * 46, [[0] * 50] * 44 + [[0] * 49], [[0] * 51] + [[0] * 50] * 44):
        assert not takes(automaton, value)


def test_positions_are_known_beside_large_counts() -> None:
    automaton = compiled({"prefixItems": [{"type": "string"}, INTEGER], "items": {"type": "null"}, "minItems": 60})
    assert takes(automaton, ["", 1, *[None] * 58])
    for value in (["", 1, *[None] * 57], ["", *[None] * 60], ["", 1, *[None] * 60, 1]):
        assert not takes(automaton, value)


def test_lengths_are_counted_in_characters() -> None:
    automaton = compiled({"type": "string", "minLength": 300, "maxLength": 400})
    for char in ("a", "é", "𝄞", "\n", '"'):
        for length, is_valid in ((299, False), (300, True), (400, True), (401, False)):
            for ensure_ascii in (True, False):
                text = json.dumps(char * length, ensure_ascii=ensure_ascii)
                assert automaton.accepts(text.encode()) == is_valid, (char, length)


def test_counts_beyond_every_text_mean_no_bound() -> None:
    huge = 10**30
    schema = {"maxItems": huge, "maxLength": huge, "items": {"maxItems": 2**31, "maxLength": 2**32}}
    assert takes(compiled(schema), ["a", [1]])
    assert not takes(compiled({"anyOf": [{"minItems": huge}, {"type": "null"}]}), [1, 2])
    assert takes(compiled({"minItems": 2.0}), [1, 2])
