"""Names that a text repeats, which readers take by their last value: what that may change is listed."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schema_checks import compiled, validator

from sgrun.errors import InvalidGrammarError

INTEGER = {"type": "integer"}
OTHERS = {"additionalProperties": INTEGER}
PATTERN = {"patternProperties": {"^x": INTEGER}}


def listed(schema: Any, **options: Any) -> list[str]:
    found = compiled(schema, **options).checked_afterwards
    assert all(unchecked.pointer.endswith(unchecked.keyword) for unchecked in found)
    return [unchecked.pointer for unchecked in found]


@pytest.mark.parametrize(
    ("schema", "pointers"),
    [
        ({"not": OTHERS}, ["#/not/additionalProperties"]),
        ({"not": PATTERN}, ["#/not/patternProperties"]),
        ({"not": {"unevaluatedProperties": INTEGER}}, ["#/not/unevaluatedProperties"]),
        ({"oneOf": [OTHERS, {"required": ["a"]}]}, ["#/oneOf/0/additionalProperties"]),
        ({"if": OTHERS, "then": {"required": ["a"]}}, ["#/if/additionalProperties"]),
        ({"not": {"additionalProperties": OTHERS}},
         ["#/not/additionalProperties", "#/not/additionalProperties/additionalProperties"]),
        ({"not": {"items": OTHERS}}, ["#/not/items/additionalProperties"]),
        ({"contains": OTHERS, "maxContains": 1}, ["#/contains/additionalProperties"]),
        ({"not": {"properties": {"a": {"patternProperties": {"x": OTHERS}}}}},
         ["#/not/properties/a/patternProperties", "#/not/properties/a/patternProperties/x/additionalProperties"]),
        ({"not": {"maxProperties": 1}}, ["#/not/maxProperties"]),
        ({"oneOf": [{"minProperties": 2}, {"required": ["a"]}]}, ["#/oneOf/0/minProperties"]),
        ({"minProperties": 3, "properties": {"a": {}}, "required": ["a"]}, ["#/minProperties"]),
    ],
    ids=str,
)  # fmt: skip
def test_what_a_repeated_name_can_change_is_listed(schema: Any, pointers: list[str]) -> None:
    assert listed(schema) == pointers


@pytest.mark.parametrize(
    "schema",
    [
        {"allOf": [OTHERS, PATTERN, {"unevaluatedProperties": INTEGER}]},
        {"anyOf": [OTHERS, PATTERN]},
        {"not": {"not": OTHERS}},
        {"if": {"required": ["a"]}, "then": OTHERS, "else": PATTERN},
        {"contains": OTHERS, "minContains": 2},
        {"not": {"contains": INTEGER, "maxContains": 1}},
        {"oneOf": [{"type": "string"}, {"type": "object", **OTHERS}]},
        {"not": {"additionalProperties": False}},
        {"not": {"additionalProperties": {}, "required": ["a"]}},
        {"not": {"patternProperties": {"x": False}}},
        {"oneOf": [{"properties": {"k": {"const": k}}, "required": ["k"], **OTHERS} for k in ("a", "b")]},
        {"oneOf": [{"properties": {"a": INTEGER}}, {"properties": {"a": {"type": "null"}}, "required": ["a"]}]},
        {"not": {"propertyNames": {"maxLength": 3}}},
        {"minProperties": 2, "properties": {"a": {}}, "required": ["a"]},
        {"minProperties": 1, "maxProperties": 3},
        {"not": {"minProperties": 2}},
        {"not": {"maxProperties": 0}},
        {"properties": {"a": {}, "b": {}}, "allOf": [{"minProperties": 2}], "additionalProperties": False},
    ],
    ids=str,
)
def test_what_no_repeated_name_changes_is_not_listed(schema: Any) -> None:
    assert listed(schema) == []


def test_no_name_is_repeated_where_only_listed_ones_are_generated() -> None:
    schema = {"properties": {"a": {}, "b": {}}, "minProperties": 2}
    assert listed(schema) == ["#/minProperties"]
    assert listed(schema, open_objects=False) == []


MEMBERS = ["1", '"a"', "null", "[1]", '{"z":1,"z":"a"}', '{"z":"a","z":1}', '{"z":null,"z":1}']
TEXTS = [
    "{" + ",".join(f'"{name}":{value}' for name, value in zip(names, values, strict=True)) + "}"
    for names in ("z", "zz", "az", "zy", "zyz")
    for values in itertools.product(MEMBERS, repeat=len(names))
]
_LEAVES = st.sampled_from([INTEGER, {"type": "string"}, {"const": 1}, {"minProperties": 2}, {"maxProperties": 1}, {}])


def _larger(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    two = st.lists(inner, min_size=2, max_size=2)
    return st.one_of(
        st.builds(lambda schema: {"additionalProperties": schema}, inner),
        st.builds(lambda schema: {"patternProperties": {"z": schema}}, inner),
        st.builds(lambda schemas: {"anyOf": schemas[:1], "unevaluatedProperties": schemas[1]}, two),
        st.builds(lambda schemas: {"properties": {"a": schemas[0]}, "additionalProperties": schemas[1]}, two),
        st.builds(lambda schema: {"not": schema}, inner),
        st.builds(lambda keyword, schemas: {keyword: schemas}, st.sampled_from(["oneOf", "anyOf", "allOf"]), two),
        st.builds(lambda schemas: {"if": schemas[0], "then": schemas[1]}, two),
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.recursive(_LEAVES, _larger, max_leaves=5))
def test_texts_with_repeated_names_are_valid_unless_something_is_listed(schema: Any) -> None:
    try:
        automaton = compiled(schema)
    except InvalidGrammarError:
        return
    judge = validator(schema)
    wrong = [text for text in TEXTS if automaton.accepts(text.encode()) and not judge.is_valid(json.loads(text))]
    assert not wrong or automaton.checked_afterwards
