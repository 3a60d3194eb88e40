from __future__ import annotations

import json
from enum import Enum
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from grammar_walks import accepts, random_texts
from pydantic import BaseModel, Field

from sgrun.errors import InvalidGrammarError, UnsupportedGrammarError
from sgrun.grammar.compiler import compile_grammar
from sgrun.types import JsonSchemaSpec


def _compiled(schema: Any):
    return compile_grammar(JsonSchemaSpec(json.dumps(schema)))


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


class Color(Enum):
    RED = "red"
    ODD = 'a"\\é\n'


class Point(BaseModel):
    x: int
    y: float | None = None


class Everything(BaseModel):
    """A description that constrains nothing."""

    name: Annotated[str, Field(min_length=1, max_length=5)]
    tag: Literal["a", "b"]
    one: Literal[3]
    color: Color
    ok: bool = False
    points: list[Point] = []
    origin: Point = Field(default=Point(x=0), description="beside a $ref")
    pair: tuple[int, str]
    code: Annotated[str, Field(pattern=r"^[A-Z]{2}\d+$", max_length=6)]
    found: Annotated[str, Field(pattern=r"x\s")]
    few: Annotated[list[bool], Field(min_length=1, max_length=3)]
    nothing: None = None


SCHEMAS: list[Any] = [
    {"type": "string"},
    {"type": "string", "minLength": 2, "maxLength": 3},
    {"type": "string", "pattern": "a.b"},
    {"type": "string", "pattern": r"^\D\W\S[^\d]$"},
    {"type": "string", "pattern": r"^[^a-z]*$", "minLength": 3},
    {"type": "string", "pattern": r"(?m)^x$", "maxLength": 9},
    {"type": "integer"},
    {"type": "number"},
    {"type": ["boolean", "null", "string"], "maxLength": 2},
    {"type": "array", "items": {"type": "integer"}},
    {"type": "array", "items": {"type": "array", "items": {"type": "null"}, "minItems": 2}, "maxItems": 3},
    {"type": "array", "prefixItems": [{"type": "null"}, {"type": "boolean"}]},
    {"type": "array", "prefixItems": [{"type": "null"}], "items": {"type": "boolean"}, "minItems": 3},
    {"type": "array", "items": False},
    _object(a={"type": "integer"}, b={"type": "null"}, c={"type": "boolean"}),
    {**_object(a={"type": "integer"}, b={"type": "null"}, c={"type": "boolean"}), "required": ["b"]},
    {"type": "object", "additionalProperties": False},
    {**_object(**{'k"é\n': {"type": "null"}}), "additionalProperties": False, "required": ['k"é\n']},
    {"enum": [1, "x", None, 2.5, True, [1, {"a": []}], {"b": 1, "c": "d"}, {}]},
    {"enum": [1, 1.0, 1.5, "1", True], "type": ["integer", "string"]},
    {"const": {"k": [1, 2]}},
    {"anyOf": [{"type": "integer"}, {"const": "x"}, False]},
    {"allOf": [{"type": "null"}], "title": "t"},
    {"$defs": {"a/b~c": {"type": "null"}}, "type": "array", "items": {"$ref": "#/$defs/a~1b~0c"}},
    {"$defs": {"é": {"type": "null"}}, "anyOf": [{"$ref": "#/$defs/%C3%A9"}, {"$ref": "#/anyOf/2"}, {"const": 1}]},
    {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "urn:x", "title": "", "type": "null"},
    Everything.model_json_schema(),
]  # fmt: skip


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: json.dumps(schema)[:50])
def test_every_generated_text_is_valid(schema: Any) -> None:
    validator = jsonschema.Draft202012Validator(schema)
    for text in random_texts(_compiled(schema), seed=3, count=60):
        validator.validate(json.loads(text))


def test_generated_texts_fit_the_pydantic_model() -> None:
    seen = set()
    for text in random_texts(_compiled(Everything.model_json_schema()), seed=4, count=300, soft_len=200):
        seen.update(Everything.model_validate_json(text).model_fields_set)
    assert seen == set(Everything.model_fields)


@pytest.mark.parametrize(
    ("schema", "accepted", "refused"),
    [
        (
            {"type": "string"},
            ['""', '"a"', '"é日𝄞"', '"\\n\\/\\u00e9\\uFFFF\\"\\\\"', '"\x7f"'],
            ['"', '"\n"', '"\\x"', '"\\ud800"', '"\\uDFff"', '"a', "a", '" "x', ' ""'],
        ),
        (
            {"type": "integer"},
            ["0", "-0", "10", "-12345678901234567890"],
            ["", "-", "01", "1.0", "1e2", "+1", " 1", "--1"],
        ),
        (
            {"type": "number"},
            ["0", "-1.50", "1e5", "2E-07", "0.0e+9", "3.25E10"],
            [".5", "1.", "1e", "1e123", "00", "NaN", "Infinity", "1e+"],
        ),
        ({"type": "boolean"}, ["true", "false"], ["True", "1", "tru"]),
        (
            {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3},
            ["[1]", "[1,2]", "[1, 2,3]"],
            ["[]", "[1,]", "[,1]", "[1,  2]", "[ 1]", "[1 ]", "[1,2,3,4]", "[1 ,2]"],
        ),
        (
            {**_object(a={"type": "null"}, b={"type": "null"}, c={"type": "null"}), "required": ["b"]},
            ['{"b": null}', '{"a":null,"b":null}', '{"b": null, "c": null}', '{"a":null, "b": null,"c":null}'],
            ["{}", '{"a":null}', '{"a":null,"c":null}', '{"b":null,"a":null}', '{"b":null,}', '{"b":null,"d":null}',
             '{"b":null,"b":null}', '{"b":  null}', '{ "b":null}'],
        ),
        (
            {"type": "string", "minLength": 2, "maxLength": 2},
            ['"ab"', '"𝄞日"', '"\\n\\u00e9"'],
            ['"a"', '"abc"', '""', '"\\n"'],
        ),
        (
            {"type": "string", "pattern": "a\\.b$"},
            ['"a.b"', '"xxa.b"', '"\\n\\\\a.b"'],
            ['"a.bx"', '"axb"', '"a.b\\n"', '"\\u0061.b"'],
        ),
        ({"type": "string", "pattern": '^"\\\\\n$'}, ['"\\"\\\\\\n"'], ['""\\\\\\n"', '"\\"\\\\\\\\n"']),
        ({"type": "string", "pattern": "^.$"}, ['"é"', '"\x85"'], ['"\u2028"', '"\\r"', '"\\n"']),
        ({"type": "string", "pattern": r"^\d$"}, ['"1"'], ['"٣"', '"a"']),
        *(({"type": "string", "pattern": pattern}, ['"a"'], ['"1"', '"٣"']) for pattern in (r"^\D$", r"^[^\d]$")),
        ({"type": "string", "pattern": r"^\s$"}, ['" "', '"\\t"'], ['"\x85"', '"\ufeff"']),
        ({"type": "string", "pattern": r"^\S$"}, ['"a"'], ['"\x85"', '"\ufeff"', '" "']),
        ({"const": {"a": [1, "é"]}}, ['{"a":[1,"é"]}', '{"a": [1, "é"]}'], ['{"a":[1,"\\u00e9"]}', '{"a":[1]}']),
        ({"enum": [1, "1", 1.5, True], "type": ["integer", "boolean"]}, ["1", "true"], ['"1"', "1.5"]),
    ],
)  # fmt: skip
def test_form_of_the_text(schema: Any, accepted: list[str], refused: list[str]) -> None:
    automaton = _compiled(schema)
    for text in accepted:
        assert accepts(automaton, text), text
        jsonschema.Draft202012Validator(schema).validate(json.loads(text))
    for text in refused:
        assert not accepts(automaton, text), text


_INTEGER = {"type": "integer"}


@pytest.mark.parametrize(
    ("schema", "pointer", "reason"),
    [
        *(
            ({"type": "array", "items": {**_INTEGER, keyword: 3}}, f"#/items/{keyword}", f"the keyword '{keyword}'")
            for keyword in ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "unknown"]
        ),
        *(
            ({**_object(a=_INTEGER), keyword: {}}, f"#/{keyword}", f"the keyword '{keyword}'")
            for keyword in [
                "patternProperties", "propertyNames", "minProperties", "maxProperties", "dependentRequired",
                "dependentSchemas", "dependencies", "unevaluatedProperties", "if", "then", "else", "not",
            ]
        ),
        *(
            ({"type": "array", "items": _INTEGER, keyword: True}, f"#/{keyword}", f"the keyword '{keyword}'")
            for keyword in [
                "uniqueItems", "contains", "minContains", "maxContains", "additionalItems", "unevaluatedItems",
            ]
        ),
        *(
            ({"type": "string", keyword: "x"}, f"#/{keyword}", f"the keyword '{keyword}'")
            for keyword in ["format", "contentEncoding", "contentMediaType", "contentSchema"]
        ),
        *(({keyword: "x"}, f"#/{keyword}", "the keyword") for keyword in ["$dynamicRef", "$recursiveRef", "oneOf"]),
        (_object(**{"a/b~c": {"type": "string", "format": "date"}}), "#/properties/a~1b~0c/format", "format"),
        ({"type": "string", "minimum": 1}, "#/minimum", "for type string"),
        ({"type": "null", "maxLength": 1}, "#/maxLength", "for type null"),
        ({"type": "string", "pattern": r"a(?=b)"}, "#/pattern", "lookaround"),
        ({"type": "string", "enum": ["a"], "maxLength": 1}, "#/maxLength", "beside enum"),
        ({"anyOf": [_INTEGER], "type": "integer"}, "#/type", "beside anyOf"),
        ({"$defs": {"a": _INTEGER}, "$ref": "#/$defs/a", "type": "integer"}, "#/type", "beside .ref"),
        ({"allOf": [_INTEGER, _INTEGER]}, "#/allOf", "more than one schema"),
        ({**_object(a=_INTEGER), "additionalProperties": True}, "#/additionalProperties", "other than false"),
        ({**_object(a=_INTEGER), "additionalProperties": _INTEGER}, "#/additionalProperties", "other than false"),
        ({**_object(a=_INTEGER), "required": ["b"]}, "#/required", "'b' that has no schema"),
        ({"type": "object"}, "#", "allows any property"),
        ({"type": "array"}, "#", "allows any value"),
        ({"type": "array", "items": {}}, "#/items", "allows any value"),
        ({"type": "array", "items": True}, "#/items", "allows any value"),
        ({"type": "array", "items": [_INTEGER]}, "#/items", "prefixItems says the same"),
        (
            {"$schema": "http://json-schema.org/draft-07/schema#", "type": "array", "prefixItems": [_INTEGER]},
            "#/prefixItems",
            "draft-07",
        ),
        (True, "#", "allows any value"),
        ({}, "#", "allows any value"),
        ({"$ref": "#"}, "#/$ref", "recursion"),
        (_object(next={"anyOf": [{"type": "null"}, {"$ref": "#"}]}), "#/properties/next/anyOf/1/$ref", "recursion"),
        (
            {"$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"},
            "#/$defs/a/items/$ref",
            "recursion",
        ),
        ({"type": "array", "items": {"$ref": "#/items"}}, "#/items/$ref", "recursion"),
        ({"$ref": "https://example.org/x.json"}, "#/$ref", "somewhere else"),
        ({"$ref": "#anchor"}, "#/$ref", "somewhere else"),
        (_object(a={"$id": "urn:y", "type": "null"}), "#/properties/a/$id", "id"),
        ({"const": "\ud800"}, "#/const", "surrogate"),
    ],
)  # fmt: skip
def test_what_is_not_enforced_is_refused_with_its_pointer(schema: Any, pointer: str, reason: str) -> None:
    with pytest.raises(UnsupportedGrammarError, match=reason) as caught:
        _compiled(schema)
    assert str(caught.value).startswith(pointer + ": ")
    assert "supported: " in str(caught.value)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("5", "# is 5; allowed: a schema"),
        ('{"type":5}', "#/type is 5; allowed: one or a list of object, array"),
        ('{"type":"strin"}', "#/type is 'strin'"),
        ('{"type":["null",[]]}', "#/type is "),
        ('{"type":[]}', "#/type is empty"),
        ('{"type":"object","properties":[]}', "#/properties is "),
        ('{"type":"object","properties":{"a":3}}', "#/properties/a is 3"),
        ('{"type":"object","properties":{},"required":"a"}', "#/required is 'a'"),
        ('{"type":"object","properties":{},"required":[1]}', "#/required is 1"),
        ('{"type":"object","additionalProperties":1}', "#/additionalProperties is 1"),
        ('{"type":"array","items":3}', "#/items is 3"),
        ('{"type":"array","items":false,"minItems":-1}', "#/minItems is -1; allowed: an integer from 0"),
        ('{"type":"array","items":false,"maxItems":true}', "#/maxItems is True"),
        ('{"type":"array","prefixItems":{}}', "#/prefixItems is "),
        ('{"type":"string","maxLength":"1"}', "#/maxLength is '1'"),
        ('{"type":"string","pattern":1}', "#/pattern is 1"),
        ('{"type":"string","pattern":"("}', "#/pattern: the regular expression .* column 1"),
        ('{"enum":[]}', "#/enum is empty"),
        ('{"enum":1}', "#/enum is 1"),
        ('{"anyOf":[]}', "#/anyOf is empty"),
        ('{"anyOf":{}}', "#/anyOf is "),
        ('{"$ref":1}', "#/.ref is 1"),
        ('{"$ref":"#/$defs/a"}', "#/.ref: the reference '#/.defs/a' leads nowhere"),
        ('{"type":', "is not JSON"),
        ('{"const":NaN}', "NaN is no JSON value"),
    ],
)
def test_malformed_schema_is_refused_with_its_pointer(schema: str, message: str) -> None:
    with pytest.raises(InvalidGrammarError, match=message):
        compile_grammar(JsonSchemaSpec(schema))


@pytest.mark.parametrize(
    "schema",
    [
        False,
        {"type": "string", "minLength": 3, "maxLength": 2},
        {"type": "string", "pattern": "^a{3}$", "maxLength": 2},
        {"type": "array", "items": {"type": "null"}, "minItems": 3, "maxItems": 2},
        {"type": "array", "prefixItems": [{"type": "null"}], "minItems": 2},
        {"enum": ["a"], "type": "integer"},
        {**_object(a=False), "required": ["a"]},
    ],
)
def test_schema_without_any_valid_text_is_refused(schema: Any) -> None:
    with pytest.raises(InvalidGrammarError, match="matches nothing"):
        _compiled(schema)


def test_keyword_order_does_not_decide_what_is_refused() -> None:
    with pytest.raises(UnsupportedGrammarError, match="#/enum: the keyword 'enum' beside const"):
        _compiled({"enum": [1], "const": 1})
