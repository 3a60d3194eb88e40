from __future__ import annotations

from typing import Any

import pytest
from schema_checks import check_values, check_walks, compiled, in_draft, takes, validator

from sgrun.errors import InvalidGrammarError, UnsupportedGrammarError

INTEGER = {"type": "integer"}
STRING = {"type": "string"}
LIST = {"type": "object", "properties": {"value": INTEGER, "next": {"$ref": "#"}}, "required": ["value"],
        "additionalProperties": False}  # fmt: skip
TREE = {
    "$id": "https://example.org/tree",
    "$dynamicAnchor": "node",
    "type": "object",
    "properties": {"data": True, "children": {"type": "array", "items": {"$dynamicRef": "#node"}}},
}
RECURSIVE_TREE = {
    "$id": "https://example.org/tree",
    "$recursiveAnchor": True,
    "type": "object",
    "properties": {"children": {"type": "array", "items": {"$recursiveRef": "#"}}},
}

Case = tuple[Any, list[Any], list[Any]]
CASES: list[Case] = [
    (LIST, [{"value": 1}, {"value": 1, "next": {"value": 2, "next": {"value": 3}}}], [{}, {"value": 1, "next": {}}, 1]),
    ({"$defs": {"a/b~c%": INTEGER}, "items": {"$ref": "#/$defs/a~1b~0c%25"}}, [[1]], [[""]]),
    ({"prefixItems": [INTEGER, {"$ref": "#/prefixItems/0"}]}, [[1, 2]], [[1, ""]]),
    ({"$defs": {"x": {"$anchor": "here", "type": "integer"}}, "items": {"$ref": "#here"}}, [[1]], [[""]]),
    (
        {"$id": "https://example.org/root", "$defs": {"x": {"$id": "other", "$defs": {"y": INTEGER}, "type": "string"}},
         "prefixItems": [{"$ref": "other"}, {"$ref": "https://example.org/other#/$defs/y"}, {"$ref": "#/$defs/x"}]},
        [["", 1, ""]],
        [[1], ["", ""], ["", 1, 1]],
    ),
    (
        {"$id": "https://example.org/root", "$defs": {
            "x": {"$id": "https://example.org/inner/x", "items": {"$ref": "#/$defs/z"}, "$defs": {"z": STRING}},
            "z": INTEGER}, "$ref": "inner/x"},
        [[""]],
        [[1]],
    ),
    ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/c"}, "c": INTEGER}}, [1], [""]),
    ({"$ref": "#/$defs/a", "minimum": 2, "$defs": {"a": INTEGER}}, [2], [1, ""]),
    ({"properties": {"$ref": STRING}}, [{"$ref": ""}], [{"$ref": 1}]),
    ({"items": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}, "type": "array"}, [[], [None, [[], [None]]]], [[1],
     [[[1]]]]),
    (
        {"$id": "https://example.org/strict", "$dynamicAnchor": "node", "$ref": "tree", "unevaluatedProperties": False,
         "$defs": {"tree": TREE}},
        [{"data": 1, "children": [{"data": 2}]}],
        [{"x": 1}, {"children": [{"x": 1}]}],
    ),
    (TREE, [{"children": [{"children": [], "x": 1}]}], [{"children": [1]}]),
    (
        in_draft({"$id": "https://example.org/strict", "$recursiveAnchor": True, "$ref": "tree",
                  "unevaluatedProperties": False, "$defs": {"tree": RECURSIVE_TREE}}, 2019),
        [{"children": [{}]}],
        [{"x": 1}, {"children": [{"x": 1}]}],
    ),
    (
        in_draft({"$id": "https://example.org/strict", "$ref": "tree", "unevaluatedProperties": False,
                  "$defs": {"tree": RECURSIVE_TREE}}, 2019),
        [{"children": [{"x": 1}]}],
        [{"x": 1}],
    ),
    (in_draft({"id": "https://example.org/r", "definitions": {"a": {"id": "#foo", "type": "integer"}},
               "items": {"$ref": "#foo"}}, 4), [[1]], [[""]]),
    (in_draft({"definitions": {"a": {"$id": "#foo", "type": "integer"}}, "items": {"$ref": "#foo"}}, 7), [[1]], [[""]]),
    (
        {"$defs": {"even": {"oneOf": [{"const": "end"}, {"type": "array", "prefixItems": [{"$ref": "#/$defs/odd"}],
                                                         "minItems": 1, "maxItems": 1}]},
                   "odd": {"type": "array", "prefixItems": [{"$ref": "#/$defs/even"}], "minItems": 1, "maxItems": 1}},
         "$ref": "#/$defs/even"},
        ["end", [["end"]], [[[["end"]]]]],
        [["end"], [[["end"]]]],
    ),
    ({"$defs": {"not": {"not": {"properties": {"a": {"$ref": "#/$defs/not"}}}}}, "$ref": "#/$defs/not"},
     [{"a": {}}, {"a": 1}], [{}, {"a": {"a": 1}}, 1]),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case[0])[:60])
def test_references_lead_where_the_validator_goes(case: Case) -> None:
    check_values(*case)
    check_walks(case[0], compiled(case[0]), seed=6, count=10)


def test_recursion_is_as_deep_as_there_are_frames() -> None:
    automaton = compiled({"type": "array", "items": {"$ref": "#"}})
    value: list[Any] = []
    for _ in range(50):
        value = [value]
    assert takes(automaton, value) and automaton.num_states < 20


def test_nothing_outside_of_the_schema_is_fetched() -> None:
    for schema in (
        {"$ref": "https://example.org/x.json"},
        {"items": {"$ref": "other.json"}},
        {"$id": "https://example.org/a/b", "$ref": "../c#/x"},
    ):
        with pytest.raises(UnsupportedGrammarError, match="nothing is fetched"):
            compiled(schema)


def test_what_is_not_reached_is_not_read() -> None:
    assert takes(compiled({"$defs": {"a": {"$ref": "https://example.org/x.json"}, "b": {"type": 5}}}), 1)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"$ref": "#"}, "#: the reference leads only to itself"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}}, "leads only to itself"),
        ({"items": {"$ref": "#/$defs/a"}}, r"#/items/.ref: the reference '#/.defs/a' leads nowhere"),
        ({"items": {"$ref": "#/enum/2"}, "enum": [[1], 2]}, "leads nowhere: there is no '/enum/2'"),
        ({"items": {"$ref": "#there"}}, r"#/items/.ref: .* there is no anchor 'there'"),
        ({"$ref": 1}, r"#/.ref is 1; allowed: a string"),
        ({"$dynamicRef": []}, r"#/.dynamicRef is \[\]"),
        ({"$id": "http://a/", "items": {"$ref": "http://[x"}}, "no URI reference"),
        ({"$id": "http://a/", "not": {"$id": "http://[x"}}, "#/not: 'http://.x' is no URI reference"),
    ],
)
def test_references_to_nothing_are_refused_with_their_pointer(schema: Any, message: str) -> None:
    with pytest.raises(InvalidGrammarError, match=message):
        compiled(schema)


def test_a_reference_hides_its_siblings_up_to_draft_7() -> None:
    for draft, value in ((7, "xx"), (2019, "x")):
        definitions = "definitions" if draft == 7 else "$defs"
        schema = in_draft({definitions: {"s": STRING}, "$ref": f"#/{definitions}/s", "maxLength": 1}, draft)
        assert takes(compiled(schema), value) and validator(schema).is_valid(value)
        assert takes(compiled(schema), "xx") == (draft == 7)
