"""Reads the keywords about arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sgrun.grammar.automaton import Unchecked
from sgrun.grammar.schema import arguments
from sgrun.grammar.schema.arguments import Schema
from sgrun.grammar.schema.atoms import ContainsAtLeast, ContainsAtMost, Items, ItemsAtLeast, ItemsAtMost
from sgrun.grammar.schema.combining import equals
from sgrun.grammar.schema.formula import TRUE
from sgrun.grammar.schema.places import Place

if TYPE_CHECKING:
    from sgrun.grammar.schema.reader import Reader

MAX_UNIQUE_VALUES = 6  # of an enum of items, so that uniqueItems is a small set of values seen


def prefix_items(reader: Reader, schema: Schema, place: Place) -> int:
    return items(reader, schema, place) if "items" not in schema else TRUE  # else read with items


def items(reader: Reader, schema: Schema, place: Place) -> int:
    prefix, rest = _item_schemas(reader, schema, place)
    return reader.formulas.atom(Items(prefix, rest))


def _item_schemas(reader: Reader, schema: Schema, place: Place) -> tuple[tuple[int, ...], int]:
    """What items by position and later ones have to satisfy, by all drafts' spellings."""
    if isinstance(schema.get("items"), list):
        prefix = tuple(reader.reference(place.at("items", number)) for number in range(len(schema["items"])))
        rest = reader.reference(place.at("additionalItems")) if "additionalItems" in schema else TRUE
        return prefix, rest
    prefix = ()
    if "prefixItems" in schema and reader.draft >= 2020:
        listed = arguments.expect(schema["prefixItems"], list, "a list of schemas", place.at("prefixItems"))
        prefix = tuple(reader.reference(place.at("prefixItems", number)) for number in range(len(listed)))
    return prefix, reader.reference(place.at("items")) if "items" in schema else TRUE


def contains(reader: Reader, schema: Schema, place: Place) -> int:
    formula = reader.reference(place.at("contains"))
    has_counts = reader.draft >= 2019
    least = arguments.count(schema, "minContains", place) if has_counts and "minContains" in schema else 1
    parts = [ContainsAtLeast(formula, least)] if least else []
    most = []
    if has_counts and "maxContains" in schema:
        most = [ContainsAtMost(formula, arguments.count(schema, "maxContains", place))]
    return reader.atoms([*parts, *most])


def min_items(reader: Reader, schema: Schema, place: Place) -> int:
    return reader.atoms(arguments.at_least(ItemsAtLeast, arguments.count(schema, "minItems", place)))


def max_items(reader: Reader, schema: Schema, place: Place) -> int:
    return reader.formulas.atom(ItemsAtMost(arguments.count(schema, "maxItems", place)))


def unique_items(reader: Reader, schema: Schema, place: Place) -> int:
    if schema["uniqueItems"] is not True:
        return TRUE
    if isinstance(schema.get("maxItems"), int) and schema["maxItems"] <= 1:
        return TRUE
    values = _item_values(reader, schema, place)
    if values is not None:
        once = (ContainsAtMost(equals(reader, value, place), 1) for value in values)
        return reader.atoms(list(once))
    reader.checked_afterwards.append(Unchecked("uniqueItems", f"#{place.at('uniqueItems').pointer}"))
    return TRUE


def _item_values(reader: Reader, schema: Schema, place: Place) -> list[object] | None:
    """The values of which all items are, if they are few."""
    items = schema.get("items")
    if "prefixItems" in schema or not isinstance(items, dict):
        return None
    while set(items) == {"$ref"}:
        items = reader.document.value(reader.document.refer(items["$ref"], place.at("items"), "$ref").pointer)
        if not isinstance(items, dict):
            return None
    values: object = items.get("enum")
    if "const" in items:
        values = [items["const"]]
    elif items.get("type") == "boolean":
        values = [True, False]
    elif items.get("type") == "null":
        values = [None]
    return values if isinstance(values, list) and len(values) <= MAX_UNIQUE_VALUES else None
