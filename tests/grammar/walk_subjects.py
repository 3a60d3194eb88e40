"""Constraints for masked walks, each with a validator that knows nothing of this project and with valid texts."""

from __future__ import annotations

import datetime
import decimal
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jsonschema
from lark import Lark
from lark.exceptions import LarkError
from lark_grammars import EXAMPLES
from regex_table import PYTHON
from schema_checks import parsed

from sgrun.types import ChoicesSpec, GrammarSpec, JsonSchemaSpec, LarkSpec, RegexSpec

FORMATS = jsonschema.FormatChecker(jsonschema.Draft202012Validator.FORMAT_CHECKER.checkers.keys())


@dataclass(frozen=True)
class Subject:
    name: str
    spec: GrammarSpec
    is_valid: Callable[[str], bool]
    valid: tuple[str, ...]


def regexes() -> Iterator[Subject]:
    for row in PYTHON:
        reference = re.compile(row.pattern)
        yield Subject(
            row.pattern, RegexSpec(row.pattern), lambda text, r=reference: bool(r.fullmatch(text)), (*row.accepted,)
        )


def grammars() -> Iterator[Subject]:
    """Their valid texts are in `test_grammar_tables.py`."""
    for name, example in EXAMPLES.items():
        if name != "tool calls":  # Lark has no `&` and no `~` in front of a terminal
            yield Subject(name, LarkSpec(example.grammar), _lark_validator(example.grammar), ())


def _lark_validator(grammar: str) -> Callable[[str], bool]:
    """Either of Lark's parsers takes the text: LALR, whose merged states may offer its lexer keywords that cannot stand
    there (ASC in `a ascend`, for `a AS cend`), or Earley, which is slow and ends terminals anywhere."""
    lalr = Lark(grammar, parser="lalr", lexer="contextual")
    earley = Lark(grammar, parser="earley")
    return lambda text: _parses(lalr, text) or _parses(earley, text)


def _parses(parser: Lark, text: str) -> bool:
    try:
        parser.parse(text)
    except LarkError:
        return False
    return True


def choices() -> Iterator[Subject]:
    for texts in (
        ("yes", "no"),
        ("a", "ab", "abc", "b"),
        ("日", "日本", "日本語", "naïve"),
        tuple(map(str, range(1000))),
    ):
        yield Subject(f"choices {texts[0]}", ChoicesSpec(texts), lambda text, t=texts: text in t, texts[:20])


def schemas() -> Iterator[Subject]:
    for number, (schema, values) in enumerate(SCHEMAS):
        text = json.dumps(schema)
        separators = (",", ":") if number % 2 else (", ", ": ")
        is_escaped = number % 4 == 1 and "idn-" not in text  # host names beyond ASCII are not offered as \\u
        yield Subject(
            f"schema {number}: {text[:60]}",
            JsonSchemaSpec(text, whitespace=("space", "compact", "free")[number % 3] if number % 2 else "space"),
            schema_validator(schema),
            tuple(json.dumps(value, separators=separators, ensure_ascii=is_escaped) for value in values),
        )


def schema_validator(schema: Any) -> Callable[[str], bool]:
    """Texts in which a name that is not listed comes twice are passed over, as a reader keeps one of the values."""
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    judge = kind(json.loads(json.dumps(schema), parse_float=decimal.Decimal), format_checker=FORMATS)

    def is_valid(text: str) -> bool:
        repeats: list[str] = []
        value = parsed(text, repeats)
        with decimal.localcontext(prec=2000):  # multiples of very large numbers
            return bool(repeats) or judge.is_valid(value)

    return is_valid


# What the jsonschema library checks only with further packages, checked with the standard library.


@FORMATS.checks("date-time", raises=ValueError)
def _is_date_time(value: object) -> bool:
    if isinstance(value, str):
        date, letter, time = value[:10], value[10:11], value[11:]
        datetime.date.fromisoformat(date)
        return letter in ("T", "t") and _is_time(time)
    return True


@FORMATS.checks("time", raises=ValueError)
def _is_time(value: object) -> bool:
    if not isinstance(value, str):
        return True
    found = re.fullmatch(r"(\d\d):(\d\d):(\d\d)(\.\d+)?([Zz]|([+-])(\d\d):(\d\d))", value, re.ASCII)
    if not found:
        return False
    hour, minute, second = (int(found[i]) for i in (1, 2, 3))
    offset = datetime.timedelta(hours=int(found[7] or 0), minutes=int(found[8] or 0)) * (-1 if found[6] == "-" else 1)
    is_offset = int(found[7] or 0) < 24 and int(found[8] or 0) < 60
    utc = datetime.datetime(2000, 1, 2, hour, minute) - offset
    return is_offset and (second < 60 or (second == 60 and (utc.hour, utc.minute) == (23, 59)))


@FORMATS.checks("duration")
def _is_duration(value: object) -> bool:
    time = r"T(?:\d+H(?:\d+M(?:\d+S)?)?|\d+M(?:\d+S)?|\d+S)"
    date = r"(?:\d+Y(?:\d+M(?:\d+D)?)?|\d+M(?:\d+D)?|\d+D)"
    return not isinstance(value, str) or bool(re.fullmatch(f"P(?:{date}(?:{time})?|{time}|\\d+W)", value, re.ASCII))


@FORMATS.checks("hostname")
def _is_hostname(value: object) -> bool:
    if not isinstance(value, str):
        return True
    labels = value.split(".")
    return len(value) <= 253 and all(
        re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?", label) for label in labels
    )


@FORMATS.checks("json-pointer")
def _is_json_pointer(value: object) -> bool:
    return not isinstance(value, str) or bool(re.fullmatch(r"(/([^/~]|~[01])*)*", value, re.DOTALL))


@FORMATS.checks("relative-json-pointer")
def _is_relative_json_pointer(value: object) -> bool:
    return not isinstance(value, str) or bool(re.fullmatch(r"(0|[1-9][0-9]*)(#|(/([^/~]|~[01])*)*)", value, re.DOTALL))


@FORMATS.checks("uri")
def _is_uri(value: object) -> bool:
    """The characters, the scheme, and where brackets may stand (RFC 3986); not all of it."""
    legal = r"[A-Za-z][A-Za-z0-9+.-]*:([A-Za-z0-9._~:/?#@!$&'()*+,;=\[\]-]|%[0-9A-Fa-f]{2})*"
    return not isinstance(value, str) or (bool(re.fullmatch(legal, value)) and value.count("#") <= 1)


_ADDRESS = {
    "type": "object",
    "properties": {
        "street": {"type": "string", "minLength": 1, "maxLength": 40},
        "zip": {"type": "string", "pattern": r"^\d{5}(-\d{4})?$"},
        "country": {"enum": ["DE", "FR", "US", "日本"]},
    },
    "required": ["street", "country"],
    "additionalProperties": False,
}
_TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"v": {"type": "integer"}, "kids": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
            "required": ["v"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}
_SHAPES = {
    "oneOf": [
        {"type": "object", "properties": {"kind": {"const": "circle"}, "r": {"type": "number", "exclusiveMinimum": 0}},
         "required": ["kind", "r"], "additionalProperties": False},
        {"type": "object", "properties": {"kind": {"const": "box"}, "w": {"type": "integer"}, "h": {"type": "integer"}},
         "required": ["kind", "w", "h"], "additionalProperties": False},
    ]
}  # fmt: skip


def _of_format(name: str, *texts: str) -> tuple[Any, list[Any]]:
    return {"type": "string", "format": name}, list(texts)


SCHEMAS: list[tuple[Any, list[Any]]] = [
    (_ADDRESS, [{"street": "Unter den Linden 1", "zip": "10117", "country": "DE"}, {"street": "é", "country": "日本"}]),
    ({"type": "array", "items": _ADDRESS, "minItems": 1, "maxItems": 3}, [[{"street": "a\"b\\c", "country": "US"}]]),
    (_TREE, [{"v": 1}, {"v": -2, "kids": [{"v": 3, "kids": []}, {"v": 4}]}]),
    (_SHAPES, [{"kind": "circle", "r": 0.5}, {"kind": "box", "w": 1, "h": -10}]),
    (True, [None, {"a": [1, {"b": "c"}]}, "x\ty", -1.5e3]),
    ({"type": "object", "patternProperties": {"^x_": {"type": "integer"}}, "additionalProperties": {"type": "string"}},
     [{"x_a": 1, "b": "c"}, {}]),
    ({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}, "required": ["a"],
      "dependentRequired": {"b": ["c"]}, "minProperties": 1, "maxProperties": 3},
     [{"a": 1}, {"a": 1, "b": "", "c": None}]),
    ({"if": {"properties": {"t": {"const": 1}}, "required": ["t"]}, "then": {"required": ["n"]},
      "else": {"maxProperties": 2}, "type": "object",
      "properties": {"t": {"enum": [1, 2]}, "n": {"type": "number", "multipleOf": 0.25}},
      "additionalProperties": False}, [{"t": 1, "n": 0.75}, {"t": 2}, {}]),
    ({"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": {"type": "boolean"}},
     [[], ["a"], ["a", 1, True, False]]),
    ({"type": "array", "contains": {"type": "integer", "minimum": 5}, "minContains": 2, "maxContains": 3},
     [[5, 6], [1, "a", 7, 8]]),
    ({"type": "integer", "minimum": -250, "maximum": 1024}, [0, -250, 1024, 7]),
    ({"type": "number", "exclusiveMinimum": -1.5, "maximum": 99.75}, [0, 99.75, -1.25, 0.001]),
    ({"type": "integer", "multipleOf": 7}, [0, 49, -7, 700000000000007]),
    ({"type": "string", "minLength": 20, "maxLength": 300}, ["x" * 20, "日本語 naïve \U0001d11e" * 5]),
    ({"type": "string", "pattern": r"^(?!.*(foo|bar))[a-z]+(-[a-z]+)*$", "maxLength": 30}, ["abc-def", "fo-ba"]),
    ({"type": "string", "pattern": r"^[\w.]+@[\w.]+$", "not": {"pattern": r"\.\."}, "maxLength": 40},
     ["a@b", "a.b@c.d"]),
    ({"enum": ["a", "ab", 'q"\\\n', 1, 1.5, None, [1, {"a": 2}], {"k": []}]}, ["ab", 'q"\\\n', 1.5, {"k": []}]),
    ({"anyOf": [{"type": "string", "maxLength": 3}, {"type": "integer"}], "not": {"const": 3}}, ["abc", 4, "3"]),
    ({"type": "object", "properties": {"a": {}}, "allOf": [{"properties": {"b": {"type": "null"}}}],
      "unevaluatedProperties": False}, [{"a": 1, "b": None}, {"b": None}]),
    ({"type": "object", "propertyNames": {"pattern": "^[a-c]{1,2}$"}, "maxProperties": 2}, [{"a": 1, "bc": []}]),
    ({"$schema": "http://json-schema.org/draft-07/schema#", "type": "array", "items": [{"type": "integer"}],
      "additionalItems": {"$ref": "#/definitions/d"},
      "definitions": {"d": {"type": ["string", "null"], "maxLength": 5}}},
     [[1, "a", None], []]),
    ({"type": "array", "items": {"enum": [1, 2, 3]}, "uniqueItems": True}, [[1, 3, 2], []]),
    ({"type": "array", "minItems": 12, "maxItems": 40, "items": {"type": "integer", "minimum": 0, "maximum": 9}},
     [[1] * 12, list(range(10)) * 4]),
    ({"type": "object", "properties": {"é\n": {"const": "\u2028"}, '"': {"type": "null"}}, "required": ["é\n", '"'],
      "additionalProperties": False}, [{"é\n": "\u2028", '"': None}]),
    _of_format("date", "2024-02-29", "1999-12-31"),
    _of_format("date-time", "2024-02-29T23:59:59Z", "1998-12-31T23:59:60.5+00:00"),
    _of_format("time", "12:00:00Z", "15:59:60-08:00"),
    _of_format("duration", "P1Y2M3DT4H5M6S", "P3W"),
    _of_format("email", "joe.bloggs@example.com"),
    _of_format("hostname", "www.example.com", "a-b"),
    _of_format("ipv4", "127.0.0.1"),
    _of_format("ipv6", "::1", "2001:db8::ffff:1.2.3.4"),
    _of_format("uuid", "2eb8aa08-aa98-11ea-b4aa-73b441d16380"),
    _of_format("uri", "http://a.b/c?d=e%20f#g", "urn:isbn:0"),
    _of_format("json-pointer", "", "/a~1b/0"),
    _of_format("relative-json-pointer", "0#", "1/a"),
    _of_format("regex", "^a+(b|c)?$"),
    ({"format": "idn-hostname", "type": "string", "maxLength": 10}, ["실례.테스트"]),
]  # fmt: skip
