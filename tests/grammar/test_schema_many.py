"""Schemas with many alternatives, properties or things to look for, as people write them."""

from __future__ import annotations

import random
from typing import Any

import pytest
from schema_checks import compiled, takes, validator

NAMES = [f"p{i}" for i in range(100)]


def test_ten_contains_are_each_looked_for() -> None:
    automaton = compiled({"type": "array", "allOf": [{"contains": {"const": i}} for i in range(10)]})
    everything = list(range(10))
    assert takes(automaton, everything) and takes(automaton, ["x", *reversed(everything), 3])
    for missing in everything:
        assert not takes(automaton, [i for i in everything if i != missing] * 2)


def test_several_contains_are_counted_apart() -> None:
    sought = [{"multipleOf": 2}, {"minimum": 3}, {"const": 5}, {"type": "string"}, {"maximum": 1}]
    schema = {
        "items": {"type": ["integer", "string"]},
        "allOf": [{"contains": one, "minContains": 1 + i % 2, "maxContains": 4} for i, one in enumerate(sought)],
    }
    automaton, valid = compiled(schema), validator(schema)
    rng = random.Random(0)
    judgements = []
    for _ in range(300):
        value = rng.choices([0, 1, 2, 4, 5, 5, "x"], k=rng.randint(2, 6))
        judgements.append(valid.is_valid(value))
        assert takes(automaton, value) == judgements[-1], value
    assert sum(judgements) > 10


@pytest.mark.parametrize("rest", [{}, {"additionalProperties": True}])
def test_one_of_a_hundred_branches_that_require_different_properties_is_enough(rest: dict[str, Any]) -> None:
    branches = [{"properties": {name: {"type": "string"}}, "required": [name], **rest} for name in NAMES]
    automaton = compiled({"type": "object", "anyOf": branches})
    for value in ({"p7": "x"}, {"p7": 1, "p9": "x", "other": 0}, {"p0": "x", "p99": 1}):
        assert takes(automaton, value), value
    for value in ({}, {"other": "x"}, {"p7": 1}, {"p7": 1, "p9": None}):
        assert not takes(automaton, value), value
    assert automaton.num_states < 6_000


def test_one_of_a_hundred_listed_properties_is_enough() -> None:
    properties = {name: {"type": "integer"} for name in NAMES}
    schema = {"properties": properties, "anyOf": [{"required": [name]} for name in NAMES], "type": "object"}
    for options in ({}, {"additionalProperties": False}):
        automaton = compiled({**schema, **options})
        assert takes(automaton, {"p40": 1}) and takes(automaton, {"p1": 1, "p99": 2})
        assert not takes(automaton, {}) and not takes(automaton, {"p40": "x"})


@pytest.mark.parametrize("keyword", ["anyOf", "oneOf"])
def test_forty_overlapping_alternatives_are_told_apart(keyword: str) -> None:
    branches = [
        {"properties": {"type": {"const": f"t{i}"}, f"a{i}": {"minLength": 1}}, "required": ["type"]} for i in range(40)
    ]
    automaton = compiled({"type": "object", keyword: branches})
    assert takes(automaton, {"type": "t39", "a39": "x"}) and takes(automaton, {"type": "t0", "a1": ""})
    assert not takes(automaton, {"type": "t40"}) and not takes(automaton, {"type": "t39", "a39": ""})


def test_what_alternatives_say_of_numbers_and_strings_is_told_apart_beyond_a_label_of_32_bits() -> None:
    branches = [{"anyOf": [{"minimum": i}, {"minLength": i}], "maximum": i + 2, "maxLength": i + 2} for i in range(35)]
    schema = {"items": {"oneOf": branches}, "type": "array"}
    automaton, valid = compiled(schema), validator(schema)
    for value in ([*range(-1, 40)], ["x" * i for i in range(40)]):
        for item in value:
            assert takes(automaton, [item]) == valid.is_valid([item]), item


def test_a_closed_object_with_many_properties_offers_those_that_may_still_come() -> None:
    names = [f"some_property_{i}" for i in range(120)]
    schema = {
        "properties": {name: {"type": "null"} for name in names},
        "required": [names[60]],
        "additionalProperties": False,
    }
    automaton = compiled({"type": "object", **schema})
    rng = random.Random(0)
    for _ in range(20):
        chosen = sorted(rng.sample(range(120), 5))
        value = {names[i]: None for i in sorted({*chosen, 60})}
        assert takes(automaton, value)
        assert not takes(automaton, dict(reversed(value.items())))
        assert takes(automaton, {names[i]: None for i in chosen}) == (60 in chosen)
    assert not takes(automaton, {names[60]: None, "some_property_": None})
    assert automaton.sites.size < 1_000  # no table of names by names


def test_equal_names_of_closed_objects_share_their_states_wherever_they_may_come() -> None:
    few, many = (
        compiled({"properties": {f"name{i}": {"const": 1} for i in range(n)}, "additionalProperties": False})
        for n in (50, 100)
    )
    assert many.num_states < 2.2 * few.num_states


def test_any_of_many_patterns_may_be_the_one_that_is_left() -> None:
    first = {"patternProperties": {f"^a{i}": {} for i in range(8)}, "additionalProperties": False}
    second = {"patternProperties": {"^b": {"type": "integer"}}, "additionalProperties": False}
    automaton = compiled({"type": "object", "oneOf": [first, second], "minProperties": 1})
    assert takes(automaton, {"b1": 1, "b2": 2}) and takes(automaton, {"a7": None, "a0": 1})
    assert not takes(automaton, {"b1": 1, "a2": 2}) and not takes(automaton, {"b1": 1, "b2": None})
