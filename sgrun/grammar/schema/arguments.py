"""Owns the checks of what a keyword is given. Each raises InvalidGrammarError with the JSON pointer."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

from sgrun.errors import InvalidGrammarError, UnsupportedGrammarError
from sgrun.grammar.schema.atoms import Required
from sgrun.grammar.schema.places import Place, shown

Schema = dict[str, Any]
MAX_COUNT = 2**31 - 2  # what a counter holds; no text has as many of anything, so larger counts mean the same


def expect(value: object, kind: type[Any], allowed: str, place: Place) -> Any:
    if isinstance(value, kind):
        return value
    raise InvalidGrammarError(f"#{place.pointer} is {shown(value)}; allowed: {allowed}")


def number(schema: Schema, keyword: str, place: Place) -> Fraction:
    value = schema[keyword]
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise InvalidGrammarError(f"#{place.at(keyword).pointer} is {shown(value)}; allowed: a number")
    return Fraction(value)


def count(schema: Schema, keyword: str, place: Place) -> int:
    value = schema[keyword]
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or value != int(value) or value < 0:
        raise InvalidGrammarError(f"#{place.at(keyword).pointer} is {shown(value)}; allowed: an integer from 0")
    return min(int(value), MAX_COUNT)


def text(value: str, place: Place) -> str:
    """The value, which UTF-8 has to be able to spell: raises UnsupportedGrammarError for a lone surrogate."""
    if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
        raise UnsupportedGrammarError(f"{place}: {shown(value)} holds a lone surrogate, which no UTF-8 text does")
    return value


def required(name: object, place: Place) -> Required:
    return Required(text(expect(name, str, "a string", place), place))


def at_least(kind: Callable[[int], Any], count: int) -> list[Any]:
    """The atoms of a lower bound, of which 0 is none."""
    return [kind(count)] if count else []
