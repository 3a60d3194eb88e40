"""Reads the keywords that combine schemas about one value, and those about values of any kind."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

from sgrun.errors import InvalidGrammarError
from sgrun.grammar.numbers import Integer, NumberEquals
from sgrun.grammar.schema import arguments
from sgrun.grammar.schema.arguments import Schema
from sgrun.grammar.schema.atoms import Items, ItemsAtLeast, Properties, Required
from sgrun.grammar.schema.formula import FALSE, Kind
from sgrun.grammar.schema.places import Place, shown
from sgrun.grammar.strings import TextEquals

if TYPE_CHECKING:
    from sgrun.grammar.schema.reader import Reader

_TYPES: Mapping[str, tuple[Kind, ...]] = {
    "null": ("null",),
    "boolean": ("true", "false"),
    "number": ("number",),
    "integer": ("number",),
    "string": ("string",),
    "array": ("array",),
    "object": ("object",),
}


def ref(reader: Reader, schema: Schema, place: Place) -> int:
    return reader.formulas.reference(reader.document.refer(schema["$ref"], place, "$ref"))


def dynamic_ref(reader: Reader, schema: Schema, place: Place) -> int:
    target = reader.document.refer(schema["$dynamicRef"], place, "$dynamicRef", is_dynamic=True)
    return reader.formulas.reference(target)


def recursive_ref(reader: Reader, schema: Schema, place: Place) -> int:
    return reader.formulas.reference(reader.document.recursive(place))


def all_of(reader: Reader, schema: Schema, place: Place) -> int:
    return reader.formulas.and_(_branches(reader, schema, "allOf", place))


def any_of(reader: Reader, schema: Schema, place: Place) -> int:
    return reader.formulas.or_(_branches(reader, schema, "anyOf", place))


def one_of(reader: Reader, schema: Schema, place: Place) -> int:
    return reader.formulas.exactly_one(_branches(reader, schema, "oneOf", place))


def _branches(reader: Reader, schema: Schema, keyword: str, place: Place) -> list[int]:
    branches = arguments.expect(schema[keyword], list, "a list of schemas", place.at(keyword))
    if not branches:
        raise InvalidGrammarError(f"#{place.at(keyword).pointer} is empty; allowed: at least one schema")
    return [reader.reference(place.at(keyword, number)) for number in range(len(branches))]


def negation(reader: Reader, schema: Schema, place: Place) -> int:
    return reader.formulas.not_(reader.reference(place.at("not")))


def conditional(reader: Reader, schema: Schema, place: Place) -> int:
    condition = reader.reference(place.at("if"))
    parts = []
    if "then" in schema:
        parts.append(reader.formulas.implies(condition, reader.reference(place.at("then"))))
    if "else" in schema:
        parts.append(reader.formulas.or_((condition, reader.reference(place.at("else")))))
    return reader.formulas.and_(parts)


def kinds(reader: Reader, schema: Schema, place: Place) -> int:
    names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    parts = []
    for name in names:
        if not isinstance(name, str) or name not in _TYPES:
            raise InvalidGrammarError(
                f"#{place.at('type').pointer} is {shown(schema['type'])}; allowed: one or a list of {', '.join(_TYPES)}"
            )
        atoms = [Integer(reader.plain_integers)] if name == "integer" else []
        parts.append(reader.formulas.and_([reader.formulas.is_kind(*_TYPES[name]), reader.atoms(atoms)]))
    return reader.formulas.or_(parts)


def enum(reader: Reader, schema: Schema, place: Place) -> int:
    values = arguments.expect(schema["enum"], list, "a list of values", place.at("enum"))
    return reader.formulas.or_(equals(reader, value, place.at("enum")) for value in values)


def const(reader: Reader, schema: Schema, place: Place) -> int:
    return equals(reader, schema["const"], place.at("const"))


def equals(reader: Reader, value: object, place: Place) -> int:
    """The formula that holds of this value alone."""
    reader.budget.spend("max_nfa_states", 1)
    formulas = reader.formulas
    match value:
        case None:
            return formulas.is_kind("null")
        case bool():
            return formulas.is_kind("true" if value else "false")
        case int() | float() | Decimal():
            return _and_kind(reader, "number", NumberEquals(Fraction(value)))
        case str():
            return _and_kind(reader, "string", TextEquals(arguments.text(value, place)))
        case list():
            items = tuple(equals(reader, item, place) for item in value)
            return _and_kind(reader, "array", Items(items, FALSE), *arguments.at_least(ItemsAtLeast, len(items)))
        case dict():
            named = tuple((arguments.text(name, place), equals(reader, inner, place)) for name, inner in value.items())
            required = [Required(name) for name in value]
            return _and_kind(reader, "object", Properties(named, (), FALSE), *required)
    raise AssertionError(f"no JSON value: {value!r}")


def _and_kind(reader: Reader, kind: Kind, *atoms: Hashable) -> int:
    return reader.formulas.and_([reader.formulas.is_kind(kind), *map(reader.formulas.atom, atoms)])
