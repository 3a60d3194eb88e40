"""Reads the keywords about objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sgrun.errors import InvalidGrammarError
from sgrun.grammar.automaton import Unchecked
from sgrun.grammar.schema import arguments
from sgrun.grammar.schema.arguments import Schema
from sgrun.grammar.schema.atoms import Names, Properties, PropertiesAtLeast, PropertiesAtMost
from sgrun.grammar.schema.formula import TRUE
from sgrun.grammar.schema.places import Place, shown
from sgrun.grammar.schema.scalar_keywords import checked
from sgrun.grammar.strings import Pattern

if TYPE_CHECKING:
    from sgrun.grammar.schema.reader import Reader

_OTHERS = frozenset(["patternProperties", "additionalProperties", "unevaluatedProperties"])


def properties(reader: Reader, schema: Schema, place: Place) -> int:
    """properties, patternProperties and additionalProperties, which know of each other."""
    names = arguments.expect(schema.get("properties", {}), dict, "an object of schemas", place.at("properties"))
    patterns = arguments.expect(
        schema.get("patternProperties", {}), dict, "an object of schemas", place.at("patternProperties")
    )
    for pattern in patterns:
        checked(reader, Pattern(pattern), place.at("patternProperties", pattern))
    atom = Properties(
        tuple((arguments.text(name, place), reader.reference(place.at("properties", name))) for name in names),
        tuple((pattern, reader.reference(place.at("patternProperties", pattern))) for pattern in patterns),
        reader.reference(place.at("additionalProperties")) if "additionalProperties" in schema else TRUE,
        speaks_of_others=not _OTHERS.isdisjoint(schema),
    )
    formula = reader.formulas.atom(atom)
    for keyword in ("patternProperties", "additionalProperties"):
        if keyword in schema:
            reader.repeatable.append((formula, Unchecked(keyword, str(place.at(keyword)))))
    return formula


def required(reader: Reader, schema: Schema, place: Place) -> int:
    names = schema["required"]
    if isinstance(names, bool):  # draft 3 had it inside the property; it says nothing in later ones
        raise InvalidGrammarError(f"#{place.at('required').pointer} is {shown(names)}; allowed: a list of names")
    listed = arguments.expect(names, list, "a list of names", place.at("required"))
    return reader.atoms([arguments.required(name, place.at("required")) for name in listed])


def property_names(reader: Reader, schema: Schema, place: Place) -> int:
    return reader.formulas.atom(Names(reader.reference(place.at("propertyNames"))))


def min_properties(reader: Reader, schema: Schema, place: Place) -> int:
    count = arguments.count(schema, "minProperties", place)
    if not count:
        return TRUE
    formula = reader.formulas.atom(PropertiesAtLeast(count, count))
    reader.repeatable.append((formula, Unchecked("minProperties", str(place.at("minProperties")))))
    return formula


def max_properties(reader: Reader, schema: Schema, place: Place) -> int:
    count = arguments.count(schema, "maxProperties", place)
    formula = reader.formulas.atom(PropertiesAtMost(count, count))
    reader.repeatable.append((formula, Unchecked("maxProperties", str(place.at("maxProperties")))))
    return formula


def dependencies(reader: Reader, schema: Schema, place: Place) -> int:
    return _dependent(reader, schema, place, "dependencies")


def dependent_required(reader: Reader, schema: Schema, place: Place) -> int:
    return _dependent(reader, schema, place, "dependentRequired")


def dependent_schemas(reader: Reader, schema: Schema, place: Place) -> int:
    return _dependent(reader, schema, place, "dependentSchemas")


def _dependent(reader: Reader, schema: Schema, place: Place, keyword: str) -> int:
    parts = []
    for name, then in arguments.expect(schema[keyword], dict, "an object", place.at(keyword)).items():
        if isinstance(then, list):
            follows = reader.atoms([arguments.required(other, place.at(keyword, name)) for other in then])
        elif isinstance(then, str):
            follows = reader.formulas.atom(arguments.required(then, place.at(keyword, name)))
        else:
            follows = reader.reference(place.at(keyword, name))
        has_name = reader.formulas.atom(arguments.required(name, place.at(keyword)))
        here = reader.formulas.and_((reader.formulas.is_kind("object"), has_name))
        parts.append(reader.formulas.implies(here, follows))
    return reader.formulas.and_(parts)
