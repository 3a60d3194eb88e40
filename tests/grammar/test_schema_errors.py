from __future__ import annotations

import json
import random
from contextlib import suppress
from typing import Any

import pytest
from schema_checks import DIALECTS, compiled, takes

from sgrun.errors import GrammarTooLargeError, InvalidGrammarError, UnsupportedGrammarError

LONE_SURROGATE = "\ud800"


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("5", "# is 5; allowed: a schema"),
        ('{"type":5}', "#/type is 5; allowed: one or a list of null, boolean"),
        ('{"type":"strin"}', "#/type is 'strin'"),
        ('{"type":["null",[]]}', "#/type is "),
        ('{"properties":[]}', "#/properties is "),
        ('{"properties":{"a":3}}', "#/properties/a is 3"),
        ('{"required":"a"}', "#/required is 'a'"),
        ('{"required":[1]}', "#/required is 1"),
        ('{"required":true}', "#/required is True"),
        ('{"additionalProperties":1}', "#/additionalProperties is 1"),
        ('{"dependentRequired":{"a":[1]}}', "#/dependentRequired/a is 1"),
        ('{"items":3}', "#/items is 3"),
        ('{"minItems":-1}', "#/minItems is -1; allowed: an integer from 0"),
        ('{"minItems":1.5}', "#/minItems is 1.5; allowed: an integer from 0"),
        ('{"maxItems":true}', "#/maxItems is True"),
        ('{"prefixItems":{}}', "#/prefixItems is "),
        ('{"maxLength":"1"}', "#/maxLength is '1'|#/maxLength is 1"),
        ('{"minimum":"1"}', "#/minimum is '1'"),
        ('{"multipleOf":0}', "#/multipleOf is 0; allowed: a number above 0"),
        ('{"pattern":1}', "#/pattern is 1"),
        ('{"pattern":"("}', "#/pattern: "),
        ('{"patternProperties":{"(":{}}}', r"#/patternProperties/\(: "),
        ('{"format":1}', "#/format is 1"),
        ('{"$schema":7}', r"#/\$schema is 7; allowed: a string"),
        ('{"enum":1}', "#/enum is 1"),
        ('{"anyOf":[]}', "#/anyOf is empty"),
        ('{"anyOf":{}}', "#/anyOf is "),
        ('{"items":{"not":{"oneOf":[]}}}', "#/items/not/oneOf is empty"),
        ('{"items":{"anyOf":[{"$ref":"#/items"}]},"uniqueItems":true}', "#/items: the reference leads only to itself"),
        ('{"type":', "is not JSON"),
        ('{"const":NaN}', "NaN is no JSON value"),
        ('{"const":1e999}', "beyond the range"),
    ],
)
def test_malformed_schema_is_refused_with_its_pointer(schema: str, message: str) -> None:
    with pytest.raises(InvalidGrammarError, match=message):
        compiled(schema)


@pytest.mark.parametrize(
    "schema",
    [
        False,
        {"not": {}},
        {"enum": []},
        {"type": "string", "minLength": 3, "maxLength": 2},
        {"type": "string", "pattern": "^a{3}$", "maxLength": 2},
        {"type": "array", "minItems": 3, "maxItems": 2},
        {"type": "array", "minItems": 300, "maxItems": 200},
        {"type": "array", "prefixItems": [{"type": "null"}], "items": False, "minItems": 2},
        {"type": "array", "contains": {"type": "null"}, "items": {"type": "integer"}},
        {"enum": ["a"], "type": "integer"},
        {"type": "integer", "minimum": 2, "exclusiveMaximum": 3, "multipleOf": 3},
        {"type": "object", "properties": {"a": False}, "required": ["a"]},
        {"type": "object", "propertyNames": {"maxLength": 1}, "required": ["ab"]},
        {"type": "object", "minProperties": 2, "propertyNames": False},
        {"type": "object", "minProperties": 3, "properties": {"a": {}, "b": {}}, "additionalProperties": False},
        {"type": "object", "required": ["a"], "properties": {"a": {"$ref": "#"}}},  # no end of it
        {"oneOf": [{}, {}]},
        {"allOf": [{"type": "null"}, {"type": "string"}]},
    ],
    ids=lambda schema: json.dumps(schema)[:50],
)
def test_schema_without_any_valid_text_is_refused(schema: Any) -> None:
    with pytest.raises(InvalidGrammarError, match="matches nothing"):
        compiled(schema)


@pytest.mark.parametrize(
    ("schema", "pointer"),
    [
        ({"const": LONE_SURROGATE}, "#/const"),
        ({"items": {"enum": [{LONE_SURROGATE: 1}]}}, "#/items/enum"),
        ({"properties": {LONE_SURROGATE: {}}}, "#"),
        ({"required": [LONE_SURROGATE]}, "#/required"),
        ({"dependentRequired": {LONE_SURROGATE: []}}, "#/dependentRequired"),
        ({"pattern": "a(?<=b)"}, "#/pattern"),
        ({"$schema": DIALECTS[7], "contentEncoding": "quoted-printable"}, "#/contentEncoding"),
        ({"$schema": "http://example.com/draft-07/schema#"}, "#/$schema"),
        ({"$schema": "https://json-schema.org/draft/2020-12/schema/more"}, "#/$schema"),
        ({"$schema": "https://json-schema.org/schema"}, "#/$schema"),
        ({"$schema": DIALECTS[7], "items": {"$id": "http://a/b", "$schema": DIALECTS[2020]}}, "#/items/$schema"),
        ({"$defs": {"x": {"$id": "y", "$schema": "http://example.com/own"}}}, "#/$defs/x/$schema"),
        ({"patternProperties": {r"(a)\1": {}}}, r"#/patternProperties/(a)\1"),
    ],
)
def test_what_no_text_is_generated_for_is_refused_with_its_pointer(schema: Any, pointer: str) -> None:
    with pytest.raises(UnsupportedGrammarError) as caught:
        compiled(schema)
    assert str(caught.value).startswith(pointer + ": ")


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#" + "/a" * 50_000},
        {"$ref": "#" + "a" * 50_000},
        {"$ref": "http://a/" + "a" * 50_000},
        {"$schema": "a" * 50_000},
        {"type": "a" * 50_000},
        {"items": ["a"] * 50_000},
        {"minimum": "1" * 50_000},
        {"maxLength": "1" * 50_000},
        {"required": [["a"] * 50_000]},
    ],
    ids=lambda schema: str(schema)[:20],
)
def test_what_is_long_is_not_repeated_in_full(schema: Any) -> None:
    with pytest.raises((InvalidGrammarError, UnsupportedGrammarError)) as caught:
        compiled(schema)
    assert len(str(caught.value)) < 400


def test_lone_surrogates_in_annotations_do_no_harm() -> None:
    assert takes(compiled({"description": LONE_SURROGATE, "examples": [LONE_SURROGATE]}), 1)


@pytest.mark.parametrize(
    "schema",
    [
        '{"not":' * 300 + "{}" + "}" * 300,
        '{"const":' + "[" * 900 + "]" * 900 + "}",
        "[" * 100_000,
        "{" + " " * 300_000 + "}",
        {"$ref": "#/$defs/0", "$defs": {**{str(i): {"$ref": f"#/$defs/{i + 1}"} for i in range(900)}, "900": {}}},
        {"anyOf": [{"items": {"maximum": number}} for number in range(70)]},
        {"unevaluatedProperties": False, "anyOf": [{"properties": {name: {}}} for name in "abcdefgh"]},
    ],
    ids=lambda schema: json.dumps(schema)[:30],
)
def test_what_would_take_too_much_is_refused(schema: Any) -> None:
    with pytest.raises(GrammarTooLargeError):
        compiled(schema)


def test_references_may_share_without_multiplying() -> None:
    doubling = {
        str(i): {"items": {"$ref": f"#/$defs/{i + 1}"}, "prefixItems": [{"$ref": f"#/$defs/{i + 1}"}]}
        for i in range(30)
    }
    automaton = compiled({"$ref": "#/$defs/0", "$defs": {**doubling, "30": {"type": "null"}}, "type": "array"})
    assert automaton.num_states < 5_000


def test_whatever_stands_where_no_draft_expects_it_ends_in_a_typed_error() -> None:
    odd: list[Any] = [
        None,
        True,
        -1,
        1.5,
        "x",
        "#",
        "",
        [],
        [1],
        ["a"],
        [[]],
        {},
        {"a": 5},
        {"": True},
        {"a": ["b", 1]},
        [{}],
    ]
    keywords = [
        "$ref", "$dynamicRef", "$recursiveRef", "allOf", "anyOf", "oneOf", "not", "if", "then", "else", "type",
        "enum", "const", "minimum", "exclusiveMaximum", "multipleOf", "minLength", "pattern", "format", "items",
        "prefixItems", "additionalItems", "contains", "minContains", "maxItems", "uniqueItems", "properties",
        "patternProperties", "additionalProperties", "required", "propertyNames", "minProperties",
        "dependencies", "dependentRequired", "dependentSchemas", "unevaluatedProperties", "unevaluatedItems",
        "$id", "id", "$anchor", "$dynamicAnchor", "$recursiveAnchor", "$defs", "definitions", "$schema",
        "contentSchema",
    ]  # fmt: skip
    source = random.Random(2)
    for _ in range(1500):
        schema = {keyword: source.choice(odd) for keyword in source.sample(keywords, source.choice([1, 2, 3]))}
        if source.random() < 0.4:
            keyword = source.choice(["allOf", "anyOf"])
            schema = {keyword: [schema], "unevaluatedProperties": False, "unevaluatedItems": False}
        if source.random() < 0.5:
            schema = {"$schema": source.choice(list(DIALECTS.values())), **schema}
        with suppress(InvalidGrammarError, UnsupportedGrammarError, GrammarTooLargeError):
            compiled(schema)
