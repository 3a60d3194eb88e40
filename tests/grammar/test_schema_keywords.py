from __future__ import annotations

import base64
from typing import Any

import pytest
from schema_checks import DIALECTS, check_values, check_walks, compiled, in_draft, takes, validator

from sgrun.grammar.schema.report import assertions

INTEGER = {"type": "integer"}
STRING = {"type": "string"}
ODD_NAME = 'a"\\\né\U0001f600'

Case = tuple[Any, list[Any], list[Any]]

BOOLEAN: list[Case] = [
    (True, [None, {"a": [1]}], []),
    ({}, [None, {"a": [1]}], []),
    ({"allOf": [{"minimum": 1}, {"maximum": 3}, INTEGER]}, [1, 3], [0, 4, 1.5, "a"]),
    ({"anyOf": [{"const": "x"}, INTEGER, False]}, ["x", 1], ["y", 1.5]),
    ({"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, [{"a": 1}, {"b": 1}, {"a": 1, "b": 1}, 5], [{}, {"c": 1}]),
    ({"oneOf": [INTEGER, {"minimum": 2}]}, [1, 2.5, "s"], [3, 1.5]),
    ({"oneOf": [{"pattern": "a"}, {"pattern": "b"}, {"pattern": "c"}], "type": "string"}, ["a", "xb"],
     ["ab", "abc", ""]),
    (
        {"oneOf": [{"properties": {"a": INTEGER}}, {"properties": {"a": STRING}}], "type": "object"},
        [{"a": 1}, {"a": "s"}],
        [{}, {"a": None}],
    ),
    ({"oneOf": [{"items": INTEGER}, {"items": {"minimum": 2}}], "type": "array"}, [[1], [1, 2], [2.5]], [[], [3],
     [1, 2.5]]),
    ({"not": STRING}, [1, None, {}], ["", "a"]),
    ({"not": {"not": INTEGER}}, [1], ["a"]),
    ({"not": {"properties": {"a": INTEGER}, "required": ["a"]}}, [{}, {"a": "s"}], [{"a": 1}, 1]),
    ({"not": {"items": INTEGER}}, [["a"], [1, "a"]], [[], [1, 2], 1.5]),
    ({"not": {"required": ["a"]}, "type": "object"}, [{}, {"b": 1}], [{"a": 1}]),
    ({"not": {"enum": [1, "a", {"b": 1}]}}, [2, "b", {}, {"b": 2}], [1, 1.0, "a", {"b": 1}]),
    ({"if": INTEGER, "then": {"minimum": 3}, "else": STRING}, [3, "a"], [2, 1.5, None]),
    ({"if": {"const": 1}}, [1, 2], []),
    ({"then": STRING, "else": INTEGER}, [None], []),
    (
        {"if": {"properties": {"kind": {"const": "a"}}, "required": ["kind"]}, "then": {"required": ["x"]},
         "else": {"properties": {"x": False}}, "properties": {"kind": STRING, "x": INTEGER}},
        [{"kind": "a", "x": 1}, {"kind": "b"}, {}],
        [{"kind": "a"}, {"kind": "b", "x": 1}, {"x": 1}],
    ),
    ({"type": ["boolean", "null"]}, [True, None], [0, "", []]),
    ({"type": "integer"}, [1, -3, 1.0], [1.5, True]),
    ({"enum": [1, "a", None, [1, {"a": 2}]]}, [1, 1.0, "a", None, [1, {"a": 2}]], [2, [1], [1, {}], True]),
    ({"enum": [{"b": 1, "a": [2]}, {}]}, [{"b": 1, "a": [2]}, {}], [{"b": 1}, {"b": 1, "a": [2], "c": 0}]),
    ({"enum": [1, "aaa"], "maxLength": 2, "type": ["integer", "string"]}, [1], ["aaa"]),
    ({"const": {"a": {"b": []}}}, [{"a": {"b": []}}], [{}, {"a": {}}, {"a": {"b": [1]}}]),
    ({"const": ODD_NAME}, [ODD_NAME], ["a"]),
]  # fmt: skip

OBJECTS: list[Case] = [
    ({"properties": {"a": INTEGER, "b": STRING}}, [{}, {"a": 1, "b": ""}, {"b": "", "z": None}, 7], [{"a": ""},
     {"b": 1}]),
    ({"properties": {"a": INTEGER}, "additionalProperties": False, "type": "object"}, [{}, {"a": 1}], [{"b": 1},
     {"A": 1}]),
    ({"additionalProperties": INTEGER}, [{"a": 1, "b": 2}], [{"a": 1, "b": ""}]),
    (
        {"properties": {"ab": STRING}, "patternProperties": {"^a": {"minLength": 1}, "b$": {"maxLength": 2}},
         "additionalProperties": INTEGER},
        [{"ab": "x", "a": "xxxx", "zb": "", "z": 1}, {"az": 5}],
        [{"ab": ""}, {"ab": "xxx"}, {"ab": 1}, {"zb": "xxx"}, {"z": "x"}],
    ),
    ({"patternProperties": {"a": False}}, [{}, {"b": 1}], [{"a": 1}, {"bab": 1}]),
    ({"required": ["a", "b"], "properties": {"b": {}}}, [{"b": 1, "a": 1}, 3], [{"a": 1}, {"b": 1}, {}]),
    ({"required": ["a"], "additionalProperties": INTEGER}, [{"a": 1}], [{"a": ""}, {}]),
    ({"propertyNames": {"maxLength": 2}}, [{"ab": 1}, {}], [{"abc": 1}]),
    ({"propertyNames": {"enum": ["a", "b"]}, "properties": {"c": {}, "a": INTEGER}}, [{"a": 1, "b": 2}], [{"c": 1},
     {"a": ""}]),
    ({"propertyNames": False}, [{}, []], [{"": 1}]),
    ({"propertyNames": {"not": {"pattern": "^_"}}}, [{"a": 1}], [{"_a": 1}]),
    ({"minProperties": 2, "maxProperties": 3}, [{"a": 1, "b": 1}, {"a": 1, "b": 1, "c": 1}],
     [{}, {"a": 1}, {"a": 1, "b": 1, "c": 1, "d": 1}]),
    (
        {"properties": {"a": {}, "b": {}, "c": {}}, "minProperties": 2, "additionalProperties": False},
        [{"a": 1, "b": 1}, {"a": 1, "c": 1}, {"b": 1, "c": 1}],
        [{}, {"c": 1}],
    ),
    ({"dependentRequired": {"a": ["b", "c"]}}, [{}, {"b": 1}, {"a": 1, "b": 1, "c": 1}, []], [{"a": 1},
     {"a": 1, "b": 1}]),
    (
        {"dependentSchemas": {"a": {"properties": {"b": INTEGER}}, "c": False}},
        [{"a": 1, "b": 1}, {"b": ""}, 1],
        [{"a": 1, "b": ""}, {"c": 1}],
    ),
    ({"properties": {ODD_NAME: INTEGER}, "required": [ODD_NAME]}, [{ODD_NAME: 1}], [{}, {ODD_NAME: ""}]),
    ({"properties": {"a": False}}, [{}, {"b": 1}], [{"a": 1}]),
    ({"allOf": [{"properties": {"a": INTEGER}}, {"properties": {"b": STRING, "a": {"minimum": 2}}}]},
     [{"a": 2, "b": ""}, {}], [{"a": 1}, {"b": 1}]),
    (
        {"anyOf": [{"properties": {"a": INTEGER, "b": INTEGER}}, {"properties": {"a": STRING, "b": STRING}}],
         "required": ["a", "b"]},
        [{"a": 1, "b": 1}, {"a": "", "b": ""}],
        [{"a": 1, "b": ""}, {"a": "", "b": 1}],
    ),
]  # fmt: skip

ARRAYS: list[Case] = [
    ({"items": INTEGER}, [[], [1, 2], "s"], [[""], [1, ""]]),
    ({"items": False}, [[]], [[1]]),
    ({"prefixItems": [INTEGER, STRING]}, [[], [1], [1, "", None]], [[""], [1, 2]]),
    ({"prefixItems": [INTEGER], "items": STRING}, [[1, "", ""]], [[1, 1], [""]]),
    ({"prefixItems": [INTEGER, STRING], "items": False, "minItems": 1}, [[1], [1, ""]], [[], [1, "", 1]]),
    ({"minItems": 1, "maxItems": 2}, [[1], [1, 2]], [[], [1, 2, 3]]),
    ({"contains": INTEGER}, [[1], ["", 1], 3], [[], [""]]),
    ({"contains": INTEGER, "minContains": 2, "maxContains": 3}, [[1, "", 1], [1, 1, 1, ""]], [[1], [1, 1, 1, 1]]),
    ({"contains": INTEGER, "minContains": 0, "maxContains": 1}, [[], ["", 1]], [[1, 2]]),
    ({"contains": {"minimum": 5}, "items": INTEGER}, [[1, 5]], [[1], [5, ""]]),
    ({"allOf": [{"contains": {"multipleOf": 2}}, {"contains": {"multipleOf": 3}}]}, [[2, 3], [6], [1, 6]], [[2],
     [3, 9]]),
    ({"maxContains": 1, "minContains": 3}, [[], [1, 1]], []),
    ({"uniqueItems": True, "maxItems": 1}, [[], [1]], [[1, 1]]),
    ({"uniqueItems": True, "items": {"enum": [1, "a", None]}}, [[], [1, "a"], [None, 1, "a"]], [[1, 1], ["a", 1, "a"]]),
    ({"uniqueItems": True, "items": {"type": "boolean"}}, [[True], [False, True]], [[True, True]]),
    ({"uniqueItems": False}, [[1, 1]], []),
    ({"uniqueItems": True, "items": {"enum": list("abcdefgh")}}, [list("hgfedcba"), []], [["a", "h", "a"]]),
    ({"uniqueItems": True, "items": {"type": ["null", "boolean"]}}, [[None, True, False]], [[None, None]]),
    ({"uniqueItems": True, "items": {"type": "integer", "minimum": 0.5, "maximum": 3}}, [[3, 1, 2]], [[3, 1, 3],
     [1, 1.0]]),
    ({"uniqueItems": True, "items": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/x"}]}, "$defs": {"x":
      {"allOf": [{"type": "string"}, {"enum": ["a", True]}]}}}, [[None, "a"], ["a"]], [[None, None], ["a", "a"], [1]]),
    ({"uniqueItems": True, "prefixItems": [{"type": "boolean"}, {"const": 0}], "items": False}, [[True, 0], [False]],
     [[0], [True, 0, 0], [True, True]]),
    ({"uniqueItems": True, "prefixItems": [{"type": "boolean"}, {"enum": [True, 1]}], "maxItems": 2},
     [[False, True], [True, 1]], [[True, True]]),
]  # fmt: skip

UNEVALUATED: list[Case] = [
    ({"properties": {"a": {}}, "unevaluatedProperties": False}, [{"a": 1}], [{"b": 1}]),
    ({"allOf": [{"properties": {"a": {}}}], "properties": {"b": {}}, "unevaluatedProperties": False},
     [{"b": 1, "a": 1}], [{"c": 1}]),
    (
        {"anyOf": [{"properties": {"a": INTEGER}, "required": ["a"]},
         {"properties": {"b": INTEGER}, "required": ["b"]}],
         "unevaluatedProperties": False},
        [{"a": 1}, {"b": 1}, {"a": 1, "b": 1}],
        [{"a": 1, "b": ""}, {"a": "", "b": 1}, {"a": 1, "c": 1}],
    ),
    (
        {"if": {"required": ["a"], "properties": {"a": {}}}, "then": {"properties": {"b": {}}},
         "else": {"properties": {"c": {}}}, "unevaluatedProperties": False},
        [{"a": 1, "b": 1}, {"c": 1}, {}],
        [{"b": 1}, {"a": 1, "c": 1}],
    ),
    ({"$ref": "#/$defs/x", "unevaluatedProperties": STRING, "$defs": {"x": {"patternProperties": {"^a": INTEGER}}}},
     [{"a": 1, "b": ""}], [{"a": ""}, {"b": 1}]),
    ({"dependentSchemas": {"a": {"properties": {"a": {}, "b": {}}}}, "unevaluatedProperties": False},
     [{"a": 1, "b": 1}, {}], [{"b": 1}]),
    ({"not": {"not": {"properties": {"a": {}}}}, "unevaluatedProperties": False}, [{}], [{"a": 1}]),
    ({"additionalProperties": INTEGER, "unevaluatedProperties": False}, [{"a": 1}], [{"a": ""}]),
    # What two branches evaluate by one reference counts in each of them.
    ({"anyOf": [{"required": ["a"], "$ref": "#/$defs/x"}, {"$ref": "#/$defs/x"}], "unevaluatedProperties": False,
      "$defs": {"x": {"properties": {"b": {}}}}}, [{"b": 1}], [{"a": 1, "b": 1}]),
    ({"prefixItems": [INTEGER], "unevaluatedItems": STRING}, [[1, ""], []], [[1, 1]]),
    ({"allOf": [{"prefixItems": [INTEGER, INTEGER]}], "unevaluatedItems": False}, [[1, 1]], [[1, 1, 1]]),
    ({"contains": INTEGER, "unevaluatedItems": STRING}, [[1, "", 2]], [[""], [1, None]]),
    ({"anyOf": [{"prefixItems": [INTEGER]}, {"prefixItems": [{}, STRING]}], "unevaluatedItems": False},
     [[1], [1, ""]], [[1, 1], ["", "", 1]]),
    # A condition about objects evaluates no items.
    ({"dependentSchemas": {"a": {"contains": {}}}, "unevaluatedItems": STRING}, [[""], {"a": [1]}], [[1], [{"a": 1}]]),
    # Branches that evaluate nothing do not count among the conditions, of which only a few are followed.
    ({"anyOf": [{"required": [name]} for name in "abcdefgh"], "properties": {"a": {}, "b": {}},
      "unevaluatedProperties": False}, [{"a": 1}, {"a": 1, "b": 1}], [{"c": 1}, {}]),
]  # fmt: skip


@pytest.mark.parametrize("case", [*BOOLEAN, *OBJECTS, *ARRAYS, *UNEVALUATED], ids=lambda case: str(case[0])[:60])
def test_values_are_taken_as_the_validator_says(case: Case) -> None:
    check_values(*case)


@pytest.mark.parametrize("case", [*BOOLEAN, *OBJECTS, *ARRAYS, *UNEVALUATED], ids=lambda case: str(case[0])[:60])
def test_generated_texts_are_valid(case: Case) -> None:
    check_walks(case[0], compiled(case[0]), seed=5, count=12)


DRAFTS: list[tuple[tuple[int, ...], Case]] = [
    ((4,), ({"minimum": 1, "exclusiveMinimum": True, "maximum": 3, "exclusiveMaximum": False}, [2, 3], [1, 4])),
    ((6, 7, 2019, 2020), ({"exclusiveMinimum": 1, "exclusiveMaximum": 3}, [2, 1.5], [1, 3])),
    ((4,), ({"const": 1, "contains": INTEGER, "propertyNames": False, "if": False, "else": False}, [2, [""],
     {"a": 1}], [])),
    ((6,), ({"const": 1, "if": {}, "then": False}, [1], [2])),
    ((6,), ({"contains": INTEGER, "minContains": 2, "maxContains": 2}, [[1], [1, 1, 1]], [[]])),
    ((7,), ({"if": INTEGER, "then": {"minimum": 1}}, [1, ""], [0])),
    ((4, 6, 7, 2019), ({"items": [INTEGER, STRING], "additionalItems": False}, [[], [1, ""]], [["", 1], [1, "", 1]])),
    ((4, 6, 7, 2019), ({"items": [INTEGER], "additionalItems": STRING}, [[1, ""]], [[1, 1]])),
    ((4, 6, 7, 2019), ({"items": INTEGER, "additionalItems": STRING}, [[1, 1]], [[1, ""]])),
    ((4, 6, 7, 2019), ({"prefixItems": [INTEGER]}, [[""]], [])),
    ((4, 6, 7), ({"dependencies": {"a": ["b"], "c": {"properties": {"d": INTEGER}}}},
                 [{"a": 1, "b": 1}, {"c": 1, "d": 1}, {"d": ""}], [{"a": 1}, {"c": 1, "d": ""}])),
    ((4, 6, 7), ({"dependentRequired": {"a": ["b"]}, "unevaluatedProperties": False}, [{"a": 1}], [])),
    ((2019, 2020), ({"dependentRequired": {"a": ["b"]}}, [{"a": 1, "b": 1}], [{"a": 1}])),
    ((2019,), ({"prefixItems": [{}], "unevaluatedItems": False}, [[]], [[1]])),
    ((2019,), ({"items": [INTEGER], "unevaluatedItems": STRING}, [[1, ""]], [[1, 1]])),
    ((4, 6, 7), ({"definitions": {"s": STRING}, "properties": {"a": {"$ref": "#/definitions/s", "maxLength": 1}}},
                 [{"a": "xx"}], [{"a": 1}])),
    ((2019, 2020), ({"$defs": {"s": STRING}, "properties": {"a": {"$ref": "#/$defs/s", "maxLength": 1}}},
                    [{"a": "x"}], [{"a": 1}, {"a": "xx"}])),
]  # fmt: skip


@pytest.mark.parametrize(
    ("draft", "case"),
    [(draft, case) for drafts, case in DRAFTS for draft in drafts],
    ids=lambda value: str(value) if isinstance(value, int) else str(value[0])[:50],
)
def test_keywords_mean_what_the_draft_says(draft: int, case: Case) -> None:
    schema, valid, invalid = case
    check_values(in_draft(schema, draft), valid, invalid)


def test_all_drafts_know_the_keywords_that_never_changed() -> None:
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
    for draft in DIALECTS:
        check_values(in_draft(schema, draft), [{"a": 1}], [{}, {"a": 3}, {"a": 1, "b": 1}])


@pytest.mark.parametrize(
    ("dialect", "is_2020"),
    [
        ("http://json-schema.org/draft-07/schema", False),
        ("https://json-schema.org/draft-07/hyper-schema#", False),
        ("https://json-schema.org/draft/2020-12/schema#", True),
        ("http://json-schema.org/draft/2020-12/schema", True),
    ],
)
def test_a_draft_may_be_named_with_and_without_its_empty_fragment(dialect: str, is_2020: bool) -> None:
    automaton = compiled({"$schema": dialect, "prefixItems": [{"type": "null"}]})
    assert takes(automaton, [1]) != is_2020


def test_a_draft_named_inside_of_a_resource_says_nothing() -> None:
    assert takes(compiled({"$defs": {"x": {"$schema": DIALECTS[4]}}, "prefixItems": [{"$ref": "#/$defs/x"}]}), [1])


def test_formats_that_are_not_known_are_reported_as_no_assertions() -> None:
    schema = {"format": "date", "items": {"format": "int32"}, "not": {"format": []}, "contentEncoding": "base64"}
    assert assertions(schema) == [("format", "#/format"), ("items", "#/items"), ("not", "#/not")]
    assert ("contentEncoding", "#/contentEncoding") in assertions(in_draft(schema, 7))


def test_words_that_no_draft_knows_constrain_nothing() -> None:
    schema = {
        "title": 1,
        "x-order": [1],
        "contentEncoding": "base64",
        "description": None,
        "default": 3,
        "$comment": "",
    }
    assert takes(compiled(schema), "not base64") and validator(schema).is_valid("")


def test_content_is_base64_in_draft_7_alone() -> None:
    schema = {"contentEncoding": "Base64"}
    automaton = compiled(in_draft(schema, 7))
    for data in (b"", b"a", b"ab", b"abc", b"\xff\xfb?\0"):
        assert takes(automaton, base64.b64encode(data).decode()), data
    for text in ("eyJmb28iOi%iYmFyIn0K", "a", "ab", "ab=", "ab==", "abcd=", "QUJD\n", "QQ==QQ=="):
        assert not takes(automaton, text), text
        for draft in (4, 6, 2019, 2020):
            assert takes(compiled(in_draft(schema, draft)), text)
        assert takes(compiled(in_draft(schema, 7), formats=False), text)
    assert automaton.accepts(b'"\\/+AA"') and takes(automaton, 5)


@pytest.mark.parametrize(
    ("schema", "pointers"),
    [
        ({"contentMediaType": "application/json"}, ["#/contentMediaType"]),
        ({"contentMediaType": "text/html", "contentEncoding": "8bit"}, []),
    ],
)
def test_content_that_is_not_enforced_is_listed(schema: Any, pointers: list[str]) -> None:
    assert [unchecked.pointer for unchecked in compiled(in_draft(schema, 7)).checked_afterwards] == pointers
    assert compiled(in_draft(schema, 2020)).checked_afterwards == ()
    assert compiled(in_draft(schema, 7), formats=False).checked_afterwards == ()


@pytest.mark.parametrize(
    ("schema", "pointers"),
    [
        ({"uniqueItems": True}, ["#/uniqueItems"]),
        ({"items": {"items": {"type": "integer"}, "uniqueItems": True}}, ["#/items/uniqueItems"]),
        ({"items": {"enum": list(range(20))}, "uniqueItems": True}, ["#/uniqueItems"]),
        ({"items": {"enum": [1, 2]}, "uniqueItems": True}, []),
        ({"prefixItems": [{"const": 1}, {"const": 2}], "uniqueItems": True}, ["#/uniqueItems"]),
        ({"prefixItems": [{"enum": [*range(5)]}, {"enum": [*range(5, 10)]}], "items": False, "uniqueItems": True},
         ["#/uniqueItems"]),
        ({"items": {"oneOf": [{"const": 1}, {"const": 2}]}, "uniqueItems": True}, []),
        ({"$schema": DIALECTS[4], "items": {"const": 1}, "uniqueItems": True}, ["#/uniqueItems"]),
        ({"prefixItems": [{"const": 1}, {}], "items": False, "uniqueItems": True}, ["#/uniqueItems"]),
        ({"items": {"anyOf": [{"const": 1}, {"type": "string"}]}, "uniqueItems": True}, ["#/uniqueItems"]),
        ({"items": {"type": "integer", "minimum": 1, "maximum": 100}, "uniqueItems": True}, ["#/uniqueItems"]),
        ({"uniqueItems": False}, []),
        ({"properties": {"a/b": {"uniqueItems": True}}}, ["#/properties/a~1b/uniqueItems"]),
        ({"minProperties": 2}, ["#/minProperties"]),
        ({"items": {"type": "integer", "multipleOf": 0.123456789}}, ["#/items/multipleOf"]),
        ({"multipleOf": 86400}, []),
        ({"minProperties": 1}, []),
        ({"minProperties": 2, "properties": {"a": {}, "b": {}}, "additionalProperties": False}, []),
        ({"minProperties": 2, "patternProperties": {"a": {}}, "additionalProperties": False}, ["#/minProperties"]),
        ({"prefixItems": [{"$ref": "#/$defs/u"}, {"$ref": "#/$defs/u"}], "$defs": {"u": {"uniqueItems": True}}},
         ["#/$defs/u/uniqueItems"]),
    ],
)  # fmt: skip
def test_what_is_not_enforced_is_listed_once(schema: Any, pointers: list[str]) -> None:
    assert [unchecked.pointer for unchecked in compiled(schema).checked_afterwards] == pointers


def test_repeated_names_can_reach_min_properties_and_no_listed_name_is_repeated() -> None:
    automaton = compiled({"minProperties": 2, "properties": {"a": {}}})
    assert automaton.accepts(b'{"x":1,"x":1}')
    assert not automaton.accepts(b'{"a":1,"a":1}') and not automaton.accepts(b'{"a":1,"x":1,"a":1}')
