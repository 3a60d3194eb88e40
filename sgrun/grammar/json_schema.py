"""Reads a JSON schema into the syntax tree of the JSON texts that are generated for it.

Every generated text is valid under the schema; where a schema allows more than is generated, that is by choice:

- Form: no white space but an optional space after each `:` and `,`.
- Properties come in the order of `properties`, and those that a schema leaves open are not generated (an absent
  `additionalProperties` counts as false; so does an absent `items` behind `prefixItems`).
- Numbers have an exponent of at most two digits. Values of `enum` and `const` are spelled in one way.
- `pattern` is searched for, in the smaller of what ECMAScript and Python make of it, and in such a string only the
  escapes \\" \\\\ \\b \\f \\n \\r \\t are generated.

A keyword that would constrain the text and is not enforced is refused, never dropped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, NoReturn, TypeVar
from urllib.parse import unquote

from sgrun.errors import GrammarTooLargeError, InvalidGrammarError, UnsupportedGrammarError
from sgrun.grammar import charset
from sgrun.grammar.limits import Budget
from sgrun.grammar.regex import parse_search_pattern
from sgrun.grammar.rewrite import JSON_RAW
from sgrun.grammar.syntax import (
    EMPTY,
    Alternation,
    Chars,
    Concat,
    Elements,
    Intersection,
    JsonEscaped,
    Members,
    Node,
    Repeat,
    Text,
)

_ANNOTATIONS = frozenset(
    ["title", "description", "default", "examples", "$comment", "deprecated", "readOnly", "writeOnly", "$defs"]
) | {"definitions"}
_ROOT_ANNOTATIONS = frozenset(["$schema", "$id"])
_TYPE_KEYWORDS: Mapping[str, frozenset[str]] = {
    "object": frozenset(["properties", "required", "additionalProperties"]),
    "array": frozenset(["items", "prefixItems", "minItems", "maxItems"]),
    "string": frozenset(["minLength", "maxLength", "pattern"]),
    "number": frozenset(),
    "integer": frozenset(),
    "boolean": frozenset(),
    "null": frozenset(),
}
_SUPPORTED = (
    "supported: type, properties, required, additionalProperties (false), items, prefixItems, minItems, maxItems, "
    "minLength, maxLength, pattern, enum, const, anyOf, allOf with one schema, and $ref within the schema that "
    "does not lead back to itself"
)
_DIALECTS_WITHOUT_PREFIX_ITEMS = ("draft-04", "draft-06", "draft-07", "2019-09")
_T = TypeVar("_T")


def parse_json_schema(schema: str, budget: Budget) -> Node:
    """The JSON texts for a schema given as JSON text.

    Raises InvalidGrammarError (malformed) and UnsupportedGrammarError (a keyword that is not enforced), both naming
    the JSON pointer, or GrammarTooLargeError.
    """
    budget.spend("max_source_len", len(schema))
    try:
        root = json.loads(schema, parse_constant=_refuse_constant)
    except ValueError as error:  # also an integer of thousands of digits
        raise InvalidGrammarError(f"the JSON schema is not JSON: {error}") from error
    except RecursionError as error:
        raise GrammarTooLargeError(
            f"the JSON schema nests too deeply: max_nesting is {budget.limits.max_nesting}"
        ) from error
    return _Reader(root, budget).read()


def _optional(node: Node) -> Node:
    return Alternation((EMPTY, node))


_NOTHING: Node = Alternation(())
_COMMA: Node = Concat((Text(","), _optional(Text(" "))))
_COLON: Node = Concat((Text(":"), _optional(Text(" "))))

_DIGIT: Node = Chars(((0x30, 0x39),))
_DIGITS: Node = Repeat(_DIGIT, 1, None)
_INTEGER: Node = Concat(
    (
        _optional(Text("-")),
        Alternation((Text("0"), Concat((Chars(((0x31, 0x39),)), Repeat(_DIGIT, 0, None))))),
    )
)
_NUMBER: Node = Concat(
    (
        _INTEGER,
        _optional(Concat((Text("."), _DIGITS))),
        _optional(
            Concat((Chars(charset.of_chars("eE")), _optional(Chars(charset.of_chars("+-"))), Repeat(_DIGIT, 1, 2)))
        ),
    )
)
_HEX: Node = Chars(charset.of_chars("0123456789abcdefABCDEF"))
# A lone surrogate is no character, so \ud800 to \udfff are left out.
_FOUR_HEX: Node = Alternation(
    (
        Concat((Chars(charset.of_chars("0123456789abcefABCEF")), _HEX, _HEX, _HEX)),
        Concat((Chars(charset.of_chars("dD")), Chars(charset.of_chars("01234567")), _HEX, _HEX)),
    )
)
_STRING_CHAR: Node = Alternation(
    (
        Chars(JSON_RAW),
        Concat((Text("\\"), Alternation((Chars(charset.of_chars('"\\/bfnrt')), Concat((Text("u"), _FOUR_HEX)))))),
    )
)
_BOOLEAN: Node = Alternation((Text("true"), Text("false")))
_NULL: Node = Text("null")


class _Reader:
    """Walks one schema. `pointer` is where in it a sub-schema lies, as a JSON pointer (RFC 6901) after `#`."""

    def __init__(self, root: object, budget: Budget) -> None:
        self._root = root
        self._budget = budget
        self._open_refs = ["#"]

    def read(self) -> Node:
        return self._schema(self._root, "#", depth=0)

    def _schema(self, schema: object, pointer: str, depth: int) -> Node:
        self._budget.check("max_nesting", depth)
        self._budget.spend("max_nfa_states", 1)  # references may multiply what the text holds
        if schema is False:
            return _NOTHING
        if schema is True:
            raise _unsupported(pointer, "a schema that allows any value")
        keywords = _expect(schema, dict, "a schema (an object or a boolean)", pointer)
        for keyword, read in self._applicators().items():
            if keyword in keywords:
                allowed = (keyword, "type") if keyword in ("enum", "const") else (keyword,)
                self._refuse_others(keywords, allowed, f" beside {keyword}", pointer)
                return read(keywords, pointer, depth)
        return self._typed(keywords, pointer, depth)

    def _applicators(self) -> Mapping[str, Callable[[dict[str, Any], str, int], Node]]:
        return {
            "$ref": self._ref,
            "const": self._const,
            "enum": self._enum,
            "anyOf": self._any_of,
            "allOf": self._all_of,
        }

    def _refuse_others(self, keywords: Collection[str], allowed: Collection[str], context: str, pointer: str) -> None:
        for keyword in keywords:
            is_annotation = keyword in _ANNOTATIONS or (pointer == "#" and keyword in _ROOT_ANNOTATIONS)
            if not is_annotation and keyword not in allowed:
                raise _unsupported(_at(pointer, keyword), f"the keyword {keyword!r}{context}")

    # Schemas that stand for other schemas or for given values

    def _ref(self, keywords: dict[str, Any], pointer: str, depth: int) -> Node:
        where = _at(pointer, "$ref")
        ref = _expect(keywords["$ref"], str, "a string", where)
        if ref != "#" and not ref.startswith("#/"):
            raise _unsupported(where, f"the reference {ref!r} to somewhere else than a place within the schema")
        target = unquote(ref)
        if target in self._open_refs:
            raise _unsupported(where, f"recursion (the reference {ref!r} leads back to itself)")
        self._open_refs.append(target)
        node = self._schema(self._resolve(target, where), target, depth + 1)
        self._open_refs.pop()
        return node

    def _resolve(self, target: str, where: str) -> object:
        found = self._root
        for step in target.split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict) and name in found:
                found = found[name]
            elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
                found = found[int(name)]
            else:
                raise InvalidGrammarError(f"{where}: the reference {target!r} leads nowhere")
        return found

    def _const(self, keywords: dict[str, Any], pointer: str, depth: int) -> Node:
        return self._values([keywords["const"]], keywords, _at(pointer, "const"), pointer, depth)

    def _enum(self, keywords: dict[str, Any], pointer: str, depth: int) -> Node:
        where = _at(pointer, "enum")
        values = _expect(keywords["enum"], list, "a list of values", where)
        if not values:
            raise InvalidGrammarError(f"{where} is empty; allowed: at least one value")
        return self._values(values, keywords, where, pointer, depth)

    def _values(self, values: list[object], keywords: dict[str, Any], where: str, pointer: str, depth: int) -> Node:
        if "type" in keywords:
            types = _types(keywords["type"], _at(pointer, "type"))
            values = [value for value in values if any(_is_of_type(value, name) for name in types)]
        return Alternation(tuple(self._json_text(value, where, depth) for value in values))

    def _any_of(self, keywords: dict[str, Any], pointer: str, depth: int) -> Node:
        return Alternation(tuple(self._schemas(keywords["anyOf"], _at(pointer, "anyOf"), depth)))

    def _all_of(self, keywords: dict[str, Any], pointer: str, depth: int) -> Node:
        where = _at(pointer, "allOf")
        nodes = self._schemas(keywords["allOf"], where, depth)
        if len(nodes) > 1:
            raise _unsupported(where, "allOf with more than one schema")
        return nodes[0]

    def _schemas(self, schemas: object, pointer: str, depth: int) -> list[Node]:
        listed = _expect(schemas, list, "a list of schemas", pointer)
        if not listed:
            raise InvalidGrammarError(f"{pointer} is empty; allowed: at least one schema")
        return [self._schema(schema, _at(pointer, str(i)), depth + 1) for i, schema in enumerate(listed)]

    # Schemas with a type

    def _typed(self, keywords: dict[str, Any], pointer: str, depth: int) -> Node:
        types = _types(keywords["type"], _at(pointer, "type")) if "type" in keywords else []
        allowed = {"type"}.union(*(_TYPE_KEYWORDS[name] for name in types))
        self._refuse_others(keywords, allowed, f" for type {' or '.join(types)}" if types else "", pointer)
        if not types:
            raise _unsupported(pointer, "a schema without a type, which allows any value,")
        nodes = tuple(self._of_type(name, keywords, pointer, depth) for name in types)
        return nodes[0] if len(nodes) == 1 else Alternation(nodes)

    def _of_type(self, name: str, keywords: dict[str, Any], pointer: str, depth: int) -> Node:
        match name:
            case "object":
                return self._object(keywords, pointer, depth)
            case "array":
                return self._array(keywords, pointer, depth)
            case "string":
                return self._string(keywords, pointer)
            case "number":
                return _NUMBER
            case "integer":
                return _INTEGER
            case "boolean":
                return _BOOLEAN
            case _:
                return _NULL

    def _object(self, keywords: dict[str, Any], pointer: str, depth: int) -> Node:
        if keywords.get("additionalProperties", False) is not False:
            where = _at(pointer, "additionalProperties")
            if not isinstance(keywords["additionalProperties"], (dict, bool)):
                _expect(keywords["additionalProperties"], dict, "a schema (an object or a boolean)", where)
            raise _unsupported(where, "additionalProperties other than false")
        if "properties" not in keywords and "additionalProperties" not in keywords:
            raise _unsupported(pointer, "an object without properties, which allows any property,")
        where = _at(pointer, "properties")
        properties = _expect(keywords.get("properties", {}), dict, "an object of schemas", where)
        required = _expect(keywords.get("required", []), list, "a list of names", _at(pointer, "required"))
        for name in required:
            _expect(name, str, "a string", _at(pointer, "required"))
            if name not in properties:
                raise _unsupported(_at(pointer, "required"), f"the required property {name!r} that has no schema")
        required_names = set(required)
        members = []
        for name, schema in properties.items():
            place = _at(where, name)
            value = self._schema(schema, place, depth + 1)
            members.append((Concat((self._json_text(name, place, depth), _COLON, value)), name in required_names))
        return Concat((Text("{"), Members(tuple(members), _COMMA), Text("}")))

    def _array(self, keywords: dict[str, Any], pointer: str, depth: int) -> Node:
        prefix: list[Node] = []
        if "prefixItems" in keywords:
            where = _at(pointer, "prefixItems")
            dialect = self._root.get("$schema", "") if isinstance(self._root, dict) else ""
            if any(name in str(dialect) for name in _DIALECTS_WITHOUT_PREFIX_ITEMS):
                raise _unsupported(where, f"prefixItems under $schema {dialect!r}, which does not know it,")
            prefix = self._schemas(keywords["prefixItems"], where, depth)
        where = _at(pointer, "items")
        if isinstance(keywords.get("items"), list):
            raise _unsupported(where, "items as a list (prefixItems says the same)")
        if "items" not in keywords and not prefix:
            raise _unsupported(pointer, "an array without items, which allows any value,")
        rest = self._schema(keywords.get("items", False), where, depth + 1)
        shortest = _count(keywords, "minItems", pointer) or 0
        longest = _count(keywords, "maxItems", pointer)
        items = Elements(tuple(prefix), rest, _COMMA, shortest, longest)
        return Concat((Text("["), items, Text("]")))

    def _string(self, keywords: dict[str, Any], pointer: str) -> Node:
        shortest = _count(keywords, "minLength", pointer) or 0
        longest = _count(keywords, "maxLength", pointer)
        inside: Node = Repeat(_STRING_CHAR, shortest, longest)
        if "pattern" in keywords:
            where = _at(pointer, "pattern")
            pattern = _expect(keywords["pattern"], str, "a string", where)
            found = JsonEscaped(self._pattern(pattern, where))
            inside = found if shortest == 0 and longest is None else Intersection(found, inside)
        return Concat((Text('"'), inside, Text('"')))

    def _json_text(self, value: object, pointer: str, depth: int) -> Node:
        """One given value, spelled as generated objects and arrays are."""
        self._budget.check("max_nesting", depth)
        self._budget.spend("max_nfa_states", 1)
        match value:
            case dict():
                members = []
                for name, inner in value.items():
                    spelled = self._json_text(name, pointer, depth), _COLON, self._json_text(inner, pointer, depth + 1)
                    members.append((Concat(spelled), True))
                return Concat((Text("{"), Members(tuple(members), _COMMA), Text("}")))
            case list():
                items = [(self._json_text(inner, pointer, depth + 1), True) for inner in value]
                return Concat((Text("["), Members(tuple(items), _COMMA), Text("]")))
            case float() if not math.isfinite(value):
                raise _unsupported(pointer, "a number beyond the range of a double")
            case _:
                text = json.dumps(value, ensure_ascii=False)
                if any(0xD800 <= ord(char) <= 0xDFFF for char in text):
                    raise _unsupported(pointer, "a lone surrogate, which UTF-8 cannot spell,")
                return Text(text)

    def _pattern(self, pattern: str, where: str) -> Node:
        try:
            return parse_search_pattern(pattern, self._budget)
        except (InvalidGrammarError, UnsupportedGrammarError, GrammarTooLargeError) as error:
            raise type(error)(f"{where}: {error}") from error


def _at(pointer: str, name: str) -> str:
    return f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"


def _unsupported(pointer: str, what: str) -> UnsupportedGrammarError:
    return UnsupportedGrammarError(f"{pointer}: {what} is not supported; {_SUPPORTED}")


def _expect(value: object, kind: type[_T], allowed: str, pointer: str) -> _T:
    if isinstance(value, kind):
        return value
    raise InvalidGrammarError(f"{pointer} is {value!r}; allowed: {allowed}")


def _count(keywords: dict[str, Any], keyword: str, pointer: str) -> int | None:
    if keyword not in keywords:
        return None
    value = keywords[keyword]
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidGrammarError(f"{_at(pointer, keyword)} is {value!r}; allowed: an integer from 0")
    return value


def _types(value: object, pointer: str) -> list[str]:
    names: list[Any] = value if isinstance(value, list) else [value]
    for name in names:
        if not isinstance(name, str) or name not in _TYPE_KEYWORDS:
            raise InvalidGrammarError(f"{pointer} is {value!r}; allowed: one or a list of {', '.join(_TYPE_KEYWORDS)}")
    if not names:
        raise InvalidGrammarError(f"{pointer} is empty; allowed: at least one type")
    return names


def _is_of_type(value: object, name: str) -> bool:
    match value:
        case None:
            return name == "null"
        case bool():
            return name == "boolean"
        case int():
            return name in ("integer", "number")
        case float():
            return name == "number" or (name == "integer" and value.is_integer())
        case str():
            return name == "string"
        case list():
            return name == "array"
        case _:
            return name == "object"


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")
