"""Reads the keywords about what others have not spoken of."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import TYPE_CHECKING

from sgrun.errors import GrammarTooLargeError
from sgrun.grammar.automaton import Unchecked
from sgrun.grammar.schema.arguments import Schema
from sgrun.grammar.schema.atoms import Items, Properties
from sgrun.grammar.schema.evaluated import Coverage, covered_items, covered_properties
from sgrun.grammar.schema.formula import FALSE, TRUE
from sgrun.grammar.schema.places import Place

if TYPE_CHECKING:
    from sgrun.grammar.schema.reader import Reader

MAX_CONDITIONS = 6  # of which all sets are looked at


def unevaluated_properties(reader: Reader, schema: Schema, place: Place) -> int:
    coverage = covered_properties(reader, schema, place)
    keyword = place.at("unevaluatedProperties")
    rest = reader.reference(keyword)

    def atom(covers: list[Coverage]) -> int:
        named = tuple((name, TRUE) for cover in covers for name in cover.names)
        patterns = tuple((pattern, TRUE) for cover in covers for pattern in cover.patterns)
        formula = reader.formulas.atom(Properties(named, patterns, rest))
        reader.repeatable.append((formula, Unchecked("unevaluatedProperties", str(keyword))))
        return formula

    return _unevaluated(reader, coverage, atom, keyword)


def unevaluated_items(reader: Reader, schema: Schema, place: Place) -> int:
    coverage = covered_items(reader, schema, place)
    rest = reader.reference(place.at("unevaluatedItems"))

    def atom(covers: list[Coverage]) -> int:
        later = reader.formulas.or_([rest, *(formula for cover in covers for formula in cover.items)])
        prefix = (TRUE,) * max((cover.num_items for cover in covers), default=0)
        return reader.formulas.atom(Items(prefix, later))

    return _unevaluated(reader, coverage, atom, place.at("unevaluatedItems"))


def _unevaluated(reader: Reader, coverage: list[Coverage], atom: Callable[[list[Coverage]], int], place: Place) -> int:
    """For every set of conditions that may hold: these hold, and what they cover leaves the rest to the keyword.
    A larger set asks for less, so the sets need not exclude each other."""
    always = [cover for cover in coverage if cover.condition == TRUE]
    sometimes = [cover for cover in coverage if cover.condition not in (TRUE, FALSE) and not cover.is_empty]
    if any(cover.is_all for cover in always):
        return TRUE
    if len(sometimes) > MAX_CONDITIONS:
        raise GrammarTooLargeError(
            f"#{place.pointer}: {len(sometimes)} conditional schemas decide what is unevaluated; "
            f"at most {MAX_CONDITIONS} are followed"
        )
    parts = []
    for size in range(len(sometimes) + 1):
        for chosen in combinations(sometimes, size):
            conditions = [cover.condition for cover in chosen]
            covers = [*always, *chosen]
            told = TRUE if any(cover.is_all for cover in covers) else atom(covers)
            parts.append(reader.formulas.and_([*conditions, told]))
    return reader.formulas.or_(parts)
