"""Reads the keywords about arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sgrun.grammar.automaton import Unchecked
from sgrun.grammar.schema import arguments
from sgrun.grammar.schema.arguments import Schema
from sgrun.grammar.schema.atoms import ContainsAtLeast, ContainsAtMost, Items, ItemsAtLeast, ItemsAtMost
from sgrun.grammar.schema.finite import Values, few_values, joined
from sgrun.grammar.schema.formula import TRUE
from sgrun.grammar.schema.places import Place

if TYPE_CHECKING:
    from sgrun.grammar.schema.reader import Reader


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
    if _is_at_most(schema, "maxItems", 1):
        return TRUE
    values = _item_values(reader, schema, place)
    if values is not None:
        return reader.atoms(ContainsAtMost(value, 1) for value in values)
    reader.checked_afterwards.append(Unchecked("uniqueItems", str(place.at("uniqueItems"))))
    return TRUE


def _item_values(reader: Reader, schema: Schema, place: Place) -> Values | None:
    """The values that any of the items may have, if they are few."""
    items = schema.get("items", True)
    if isinstance(items, list):
        prefix, rest = [place.at("items", number) for number in range(len(items))], "additionalItems"
    else:
        listed = schema.get("prefixItems") if reader.draft >= 2020 else None
        prefix = [place.at("prefixItems", number) for number in range(len(listed) if isinstance(listed, list) else 0)]
        rest = "items"
    later = [place.at(rest)] if rest in schema else []
    if not later and not _is_at_most(schema, "maxItems", len(prefix)):
        return None
    return joined(few_values(reader, reader.document.entered(item)) for item in (*prefix, *later))


def _is_at_most(schema: Schema, keyword: str, count: int) -> bool:
    return isinstance(schema.get(keyword), int) and schema[keyword] <= count
