from __future__ import annotations

import json
from typing import Any

import pytest
from schema_checks import compiled, parsed, takes, validator

from sgrun.grammar.sample import Sampler

INTEGER = {"type": "integer"}
NULL = {"type": "null"}
ODD_NAME = 'a"\\/\n\x7fé\U0001f600'
THING = {
    "type": "object",
    "properties": {"a": INTEGER, "b": {"type": "array", "items": NULL}},
    "additionalProperties": False,
}

SPACINGS = {
    '{"a":1,"b":[null,null]}': {"compact", "space", "free"},
    '{"a": 1, "b": [null, null]}': {"space", "free"},
    '{"a": 1,"b":[null, null]}': {"space", "free"},
    '{"a":  1}': {"free"},
    '{"a":1,  "b":[]}': {"free"},
    '{"a" :1}': {"free"},
    '{ "a":1}': {"free"},
    '{"a":1 }': {"free"},
    '{"b":[ null , null ]}': {"free"},
    '{"b":[\n\tnull\r\n]\n}': {"free"},
    ' {"a":1}': {"free"},
    '{"a":1}\n': {"free"},
    "{ }": {"free"},
    '{"b":[ ]}': {"free"},
    '{"a":\u00a01}': set(),
    '{"a":1,}': set(),
    '{,"a":1}': set(),
    '{"b":[null,]}': set(),
    '{"b":[,null]}': set(),
    '{"a":1}}': set(),
    '{"a":1} {"a":1}': set(),
    '{"a":1': set(),
    "": set(),
    " ": set(),
    '{"a" 1}': set(),
    '{a:1}': set(),
    "{'a':1}": set(),
}  # fmt: skip


@pytest.mark.parametrize("whitespace", ["compact", "space", "free"])
def test_white_space(whitespace: str) -> None:
    automaton = compiled(THING, whitespace=whitespace)
    for text, allowed in SPACINGS.items():
        assert automaton.accepts(text.encode()) == (whitespace in allowed), text


def test_scalars_at_the_root_have_white_space_around_them_only_where_it_is_free() -> None:
    for schema, text in ((INTEGER, "12"), (NULL, "null"), ({"type": "string"}, '"a"')):
        assert compiled(schema).accepts(text.encode())
        assert not compiled(schema).accepts(f" {text}".encode()) and not compiled(schema).accepts(f"{text} ".encode())
        assert compiled(schema, whitespace="free").accepts(f"\n{text}\t".encode())


@pytest.mark.parametrize("whitespace", ["compact", "space", "free"])
def test_generated_texts_are_valid_in_every_layout(whitespace: str) -> None:
    judge, sampler = validator(THING), Sampler(compiled(THING, whitespace=whitespace), seed=1)
    for _ in range(30):
        text = sampler.text().decode()
        assert judge.is_valid(json.loads(text)), text
        assert whitespace == "free" or text == text.strip()


def test_properties_come_in_the_order_of_the_schema_and_others_after_them() -> None:
    schema = {"properties": {"b": {}, "a": {}}, "required": ["c", "b"]}
    automaton = compiled(schema)
    for text in ('{"b":1,"a":1,"c":1}', '{"b":1,"c":1}', '{"b":1,"a":1,"c":1,"z":1,"A":1}'):
        assert automaton.accepts(text.encode()), text
    for text in ('{"a":1,"b":1,"c":1}', '{"c":1,"b":1}', '{"z":1,"b":1,"c":1}', '{"b":1,"c":1,"z":1,"a":1}'):
        assert not automaton.accepts(text.encode()), text


def test_listed_names_are_not_generated_twice() -> None:
    automaton = compiled({"properties": {"a": {}, ODD_NAME: {}}})
    for ensure_ascii in (True, False):
        name = json.dumps(ODD_NAME, ensure_ascii=ensure_ascii)
        assert automaton.accepts(f"{{{name}:1}}".encode())
        assert not automaton.accepts(f"{{{name}:1,{name}:1}}".encode())
    assert not automaton.accepts(b'{"a":1,"a":1}')
    assert not automaton.accepts(b'{"a":1,"\\u0061":1}')


def test_names_and_given_texts_are_spelled_raw_or_escaped() -> None:
    closed = {"properties": {ODD_NAME: {"const": ODD_NAME}}, "required": [ODD_NAME], "additionalProperties": False}
    for schema in (closed, {**closed, "additionalProperties": INTEGER}, {"const": {ODD_NAME: ODD_NAME}}):
        automaton = compiled(schema)
        for ensure_ascii in (True, False):
            assert automaton.accepts(json.dumps({ODD_NAME: ODD_NAME}, ensure_ascii=ensure_ascii).encode())
        assert not automaton.accepts(json.dumps({ODD_NAME: ODD_NAME[:-1]}).encode())
        assert not automaton.accepts(json.dumps({ODD_NAME[:-1]: ODD_NAME}).encode())


def test_names_that_begin_alike_are_told_apart() -> None:
    schema = {
        "properties": {"a": INTEGER, "ab": NULL, "abc": INTEGER, "": NULL},
        "additionalProperties": {"type": "string"},
    }
    automaton = compiled(schema)
    for value in ({"a": 1, "ab": None, "abc": 1, "": None}, {"abcd": ""}, {"b": ""}, {"A": ""}):
        assert takes(automaton, value)
    for other in ({"a": ""}, {"ab": 1}, {"abc": None}, {"": ""}, {"abcd": 1}):
        assert not takes(automaton, other)


@pytest.mark.parametrize(
    ("schema", "accepted", "refused"),
    [
        (
            {"type": "string"},
            ['""', '"a"', '"é日𝄞"', '"\\n\\/\\u00e9\\uFFFF\\"\\\\"', '"\\ud834\\udd1e"', '"\x7f"'],
            ['"', '"\n"', '"\\x"', '"\\ud800"', '"\\udd1e"', '"a', "a", '" "x', ' ""', '"\\u00g0"'],
        ),
        ({"type": "integer"}, ["0", "-0", "10", "-12345678901234567890", "1.0", "1e2"],
         ["", "-", "01", "1.5", "+1", "--1"]),
        ({"type": "number"}, ["0", "-1.50", "1e5", "2E-07", "0.0e+9", "1e123"],
         [".5", "1.", "1e", "00", "NaN", "Infinity", "1e+"]),
        ({"type": "boolean"}, ["true", "false"], ["True", "1", "tru", "truefalse"]),
        ({"type": "string", "minLength": 2, "maxLength": 2}, ['"ab"', '"𝄞日"', '"\\n\\u00e9"'],
         ['"a"', '"abc"', '"\\n"']),
        ({"type": "string", "pattern": "a\\.b$"}, ['"a.b"', '"xxa.b"', '"\\n\\\\a.b"'],
         ['"a.bx"', '"axb"', '"a.b\\n"']),
        ({"type": "string", "pattern": '^"\\\\\n$'}, ['"\\"\\\\\\n"'], ['""\\\\\\n"', '"\\"\\\\\\\\n"']),
        ({"const": 1.5}, ["1.5", "1.50"], ["1", "1.51", "15e-1"]),
        ({"const": 100}, ["100", "100.0"], ["10", "1000", "1e2"]),
        ({"const": 10**20}, [str(10**20), "1e20", "1E+20"], [str(10**20 + 1), "1e21"]),
        ({"minimum": 0.5}, ["0.5", "1", "7.25", "1e16"], ["0.49", "-1", "1e-5"]),
    ],
)  # fmt: skip
def test_spellings_of_scalars(schema: Any, accepted: list[str], refused: list[str]) -> None:
    automaton = compiled(schema)
    for text in accepted:
        assert automaton.accepts(text.encode()), text
        assert validator(schema).is_valid(parsed(text, []))
    for text in refused:
        assert not automaton.accepts(text.encode()), text


@pytest.mark.parametrize(
    ("schema", "others"),
    [
        ({"properties": {"a": {}}}, False),
        ({"properties": {"a": {}}, "additionalProperties": True}, True),
        ({"properties": {"a": {}}, "patternProperties": {"^x": {}}}, True),
        ({"allOf": [{"properties": {"a": {}}}, {"properties": {"c": {}}}]}, False),
        ({"type": "object"}, True),
        ({"properties": {"a": {}}, "required": ["b"]}, False),
    ],
    ids=str,
)
def test_closed_objects_have_only_what_the_schema_lists_or_speaks_of(schema: dict[str, Any], others: bool) -> None:
    texts = ['{"a":1,"x":2}', '{"x":2}'] if "required" not in schema else ['{"a":1,"b":1,"x":2}']
    for text in texts:
        assert compiled(schema).accepts(text.encode())
        assert compiled(schema, open_objects=False).accepts(text.encode()) == others
    listed = '{"a":1,"b":2}' if "required" in schema else '{"a":1}'
    assert compiled(schema, open_objects=False).accepts(listed.encode())
