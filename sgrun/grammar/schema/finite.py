"""Which values a schema can hold of at all, where these are few."""

from __future__ import annotations

from collections.abc import Iterable
from math import floor
from typing import TYPE_CHECKING

from sgrun.grammar.schema import arguments
from sgrun.grammar.schema.arguments import Schema
from sgrun.grammar.schema.combining import equals
from sgrun.grammar.schema.places import Place

if TYPE_CHECKING:
    from sgrun.grammar.schema.reader import Reader

MAX_VALUES = 8  # of which every set is a state

Values = dict[int, None]  # formulas that hold of one value each
_OF_TYPE: dict[object, tuple[object, ...]] = {"null": (None,), "boolean": (True, False)}


def few_values(reader: Reader, place: Place, open_: frozenset[Place] = frozenset()) -> Values | None:
    """All values that satisfy the schema at a place, and maybe others; None if they are not known to be few.

    Malformed keywords are passed over: whoever reads the schema refuses them.
    """
    schema = reader.document.value(place.pointer)
    if schema is False:
        return {}
    if not isinstance(schema, dict) or place in open_:
        return None
    open_ |= {place}
    keywords = ["$ref"] if "$ref" in schema and reader.draft <= 7 else list(schema)
    for keyword in keywords:  # all of them hold, so any of them tells
        found = _allowed(reader, schema, keyword, place, open_)
        if found is not None and len(found) <= MAX_VALUES:
            return found
    return None


def _allowed(reader: Reader, schema: Schema, keyword: str, place: Place, open_: frozenset[Place]) -> Values | None:
    match keyword, schema[keyword]:
        case "enum", list(values) if len(values) <= MAX_VALUES:
            return _each(reader, values, place.at("enum"))
        case "const", value if reader.draft >= 6:
            return _each(reader, [value], place.at("const"))
        case "type", "integer":
            return _integers(reader, schema, place)
        case "type", names:
            listed = names if isinstance(names, list) else [names]
            if all(isinstance(name, str) and name in _OF_TYPE for name in listed):
                return _each(reader, [value for name in listed for value in _OF_TYPE[name]], place)
        case "$ref", ref:
            return few_values(reader, reader.document.refer(ref, place, "$ref"), open_)
        case "allOf", list(parts):
            found = [few_values(reader, _inside(reader, place, "allOf", i), open_) for i in range(len(parts))]
            return min((values for values in found if values is not None), key=len, default=None)
        case "anyOf" | "oneOf", list(parts):
            return joined(few_values(reader, _inside(reader, place, keyword, i), open_) for i in range(len(parts)))
    return None


def joined(found: Iterable[Values | None]) -> Values | None:
    """The values of all, None if any are not known or there are too many."""
    every: Values = {}
    for values in found:
        if values is None:
            return None
        every |= values
    return every if len(every) <= MAX_VALUES else None


def _each(reader: Reader, values: Iterable[object], place: Place) -> Values:
    return dict.fromkeys(equals(reader, value, place) for value in values)


def _integers(reader: Reader, schema: Schema, place: Place) -> Values | None:
    if "minimum" not in schema or "maximum" not in schema:
        return None
    low, high = floor(arguments.number(schema, "minimum", place)), floor(arguments.number(schema, "maximum", place))
    return _each(reader, range(low, high + 1), place) if high - low < MAX_VALUES else None


def _inside(reader: Reader, place: Place, keyword: str, number: int) -> Place:
    return reader.document.entered(place.at(keyword, number))
