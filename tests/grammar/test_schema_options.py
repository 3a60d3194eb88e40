"""What the options of a JSON schema change."""

from __future__ import annotations

from typing import Any

import pytest
from schema_checks import check_walks, compiled, in_draft, orders, takes, validator

from sgrun.errors import GrammarTooLargeError, InvalidParameterError
from sgrun.types import JsonSchemaSpec


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("whitespace", "tab", "whitespace is 'tab'; allowed: 'compact', 'space', 'free'"),
        ("property_order", "random", "property_order is 'random'; allowed: 'schema', 'sorted', 'any'"),
        ("formats", 1, "formats is 1; allowed: True and False"),
        ("plain_integers", "no", "plain_integers is 'no'; allowed: True and False"),
    ],
)
def test_an_option_says_what_it_allows(name: str, value: Any, message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        JsonSchemaSpec("true", **{name: value})


def test_format_is_an_annotation_where_formats_do_not_constrain() -> None:
    schema = {"type": "string", "format": "date", "maxLength": 10}
    assert takes(compiled(schema), "2026-11-20") and not takes(compiled(schema), "a day")
    assert takes(compiled(schema, formats=False), "a day")
    assert not takes(compiled(schema, formats=False), "too long a day")


INTEGERS: list[tuple[Any, list[str], list[str]]] = [
    ({"type": "integer"}, ["0", "-7", "120"], ["1.0", "1e2", "6E9", "-9e+73", "1.5"]),
    ({"type": ["integer", "null"], "minimum": 3}, ["3", "44", "null"], ["3.0", "2", "3e1"]),
    ({"type": "integer", "multipleOf": 5}, ["5", "-10"], ["5.0", "5e1", "6"]),
    ({"type": "integer", "enum": [1, 2.0]}, ["1", "2"], ["1.0", "2.0", "3"]),
    ({"type": "number"}, ["1", "1.0", "1e2"], []),
    ({"type": "number", "not": {"type": "integer"}}, ["1.5"], ["1.0", "1", "1e2"]),
    ({"anyOf": [{"type": "integer"}, {"minimum": 2}]}, ["1", "2.5", "3"], ["1.5", "1.0"]),
]


@pytest.mark.parametrize(("schema", "taken", "refused"), INTEGERS, ids=lambda value: str(value)[:40])
def test_plain_integers_are_digits(schema: Any, taken: list[str], refused: list[str]) -> None:
    automaton = compiled(schema, plain_integers=True)
    assert [text for text in taken if not automaton.accepts(text.encode())] == []
    assert [text for text in refused if automaton.accepts(text.encode())] == []
    check_walks(schema, automaton, seed=3, count=10)


def test_integers_may_be_spelled_otherwise_without_plain_integers_but_not_in_draft_4() -> None:
    for text in (b"1.0", b"1e2", b"1e+308"):
        assert compiled({"type": "integer"}).accepts(text)
        assert not compiled(in_draft({"type": "integer"}, 4)).accepts(text)


@pytest.mark.parametrize("draft", [4, 7, 2020])
def test_whole_numbers_with_exponents_are_multiples_of_parts_of_one(draft: int) -> None:
    automaton = compiled(in_draft({"type": "number", "multipleOf": 0.5}, draft))
    assert automaton.accepts(b"1e308") and automaton.accepts(b"2.5") and not automaton.accepts(b"2.4")


ORDERED = {
    "type": "object",
    "properties": {"b": {"type": "null"}, "a": {"type": "null"}, "\u00e9": {"type": "null"}},
    "required": ["Z", "b"],
    "additionalProperties": {"type": "integer"},
}


def test_sorted_properties_come_by_code_point() -> None:
    automaton = compiled(ORDERED, property_order="sorted")
    assert takes(automaton, {"Z": 1, "a": None, "b": None, "\u00e9": None, "other": 1})
    for value in ({"b": None, "a": None, "Z": 1}, {"a": None, "b": None, "Z": 1}, {"Z": 1, "other": 1, "b": None}):
        assert not takes(automaton, value)
    assert takes(compiled(ORDERED), {"b": None, "a": None, "Z": 1})
    check_walks(ORDERED, automaton, seed=1, count=10)


ANY: list[Any] = [
    ORDERED,
    {"type": "object", "properties": {"a": {"type": "null"}, "b": {}}, "minProperties": 2, "maxProperties": 3},
    {
        "properties": {"a": {"const": 1}, "ab": {"const": 2}},
        "additionalProperties": False,
        "dependentRequired": {"ab": ["a"]},
    },
    {"oneOf": [{"required": ["a"]}, {"required": ["b"]}], "patternProperties": {"^x": {"type": "null"}}},
    {"const": {"a": {"b": 1, "ab": 2}, "\u00e9": []}},
]
MEMBERS: list[dict[str, Any]] = [
    {},
    {"Z": 1, "b": None},
    {"a": None, "Z": 1, "other": 2, "b": None},
    {"Z": "", "b": None},
    {"a": None, "x": None},
    {"a": 1, "ab": 2},
    {"ab": 2},
    {"b": 1, "x": 1},
    {"a": {"ab": 2, "b": 1}, "\u00e9": []},
]


@pytest.mark.parametrize("schema", ANY, ids=lambda schema: str(schema)[:40])
def test_properties_may_come_in_any_order(schema: Any) -> None:
    automaton = compiled(schema, property_order="any")
    for value in MEMBERS:
        for ordered in orders(value):
            assert takes(automaton, ordered) == validator(schema).is_valid(value), ordered
    assert not automaton.accepts(b'{"a":1,"a":1}')
    check_walks(schema, automaton, seed=2, count=10)


def test_any_order_is_for_few_names() -> None:
    names = [f"p{number}" for number in range(7)]
    few, many = ({"properties": dict.fromkeys(some, True), "required": some} for some in (names[:6], names))
    automaton = compiled(few, property_order="any")
    assert takes(automaton, dict.fromkeys(reversed(names[:6]), 1)) and not takes(automaton, dict.fromkeys(names[:5], 1))
    again = ",".join(f'"{name}":1' for name in [*names[:6], names[0]])
    assert not automaton.accepts(f"{{{again}}}".encode())
    with pytest.raises(GrammarTooLargeError, match=r"an object of 7 listed properties .* at most 6"):
        compiled(many, property_order="any")
