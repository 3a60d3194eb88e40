"""Reads a JSON schema (drafts 4 to 2020-12) into formulas.

Every keyword is enforced, listed in `checked_afterwards`, or refused; words that no draft knows are annotations.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable
from decimal import Decimal
from typing import NoReturn

from sgrun.errors import GrammarTooLargeError, InvalidGrammarError
from sgrun.grammar.automaton import Unchecked
from sgrun.grammar.limits import Budget
from sgrun.grammar.numbers import NumberAtom
from sgrun.grammar.schema.atoms import ArrayAtom, ObjectAtom
from sgrun.grammar.schema.formula import FALSE, TRUE, Formulas, Kind
from sgrun.grammar.schema.keywords import formula_of
from sgrun.grammar.schema.places import Document, Place, shown
from sgrun.grammar.strings import StringAtom
from sgrun.types import JsonSchemaSpec


class Reader:
    """The formulas of one schema document. `checked_afterwards` lists what they leave open, as it is met; `repeatable`
    the atoms (formula ids) that repeated names may make a difference to, and the keywords that they stand for."""

    def __init__(self, spec: JsonSchemaSpec, budget: Budget) -> None:
        budget.spend("max_source_len", len(spec.schema))
        self.document = Document(_parsed(spec.schema, budget), budget)
        self.draft = self.document.draft
        self.formats = spec.formats
        self.plain_integers = spec.plain_integers or self.draft == 4  # where 1.0 is no integer
        self.formulas = Formulas(_kind_of, self.at)
        self.checked_afterwards: list[Unchecked] = []
        self.repeatable: list[tuple[int, Unchecked]] = []
        self.budget = budget
        self._known: dict[Place, int] = {}

    def root(self) -> int:
        return self.at(self.document.entered(Place("", "")))

    def at(self, target: Hashable) -> int:
        """The formula of the schema at a place, which is entered already."""
        assert isinstance(target, Place)
        found = self._known.get(target)
        if found is None:
            self.budget.spend("max_nfa_states", 1)
            found = self._known[target] = self._schema(self.document.value(target.pointer), target)
        return found

    def reference(self, place: Place) -> int:
        """A schema somewhere below: read when a value is there."""
        return self.formulas.reference(self.document.entered(place))

    def atoms(self, atoms: Iterable[Hashable]) -> int:
        """All of them hold."""
        return self.formulas.and_(map(self.formulas.atom, atoms))

    def _schema(self, schema: object, place: Place) -> int:
        if isinstance(schema, bool):
            return TRUE if schema else FALSE
        if not isinstance(schema, dict):
            raise InvalidGrammarError(
                f"#{place.pointer} is {shown(schema)}; allowed: a schema (an object or a boolean)"
            )
        keywords = ["$ref"] if "$ref" in schema and self.draft <= 7 else schema
        read = [formula_of(self, keyword, schema, place) for keyword in keywords]
        return self.formulas.and_(formula for formula in read if formula is not None)


def _kind_of(atom: Hashable) -> Kind | None:
    if isinstance(atom, NumberAtom):
        return "number"
    if isinstance(atom, StringAtom):
        return "string"
    if isinstance(atom, ArrayAtom):
        return "array"
    assert isinstance(atom, ObjectAtom), atom
    return "object"


def _parsed(text: str, budget: Budget) -> object:
    try:
        return json.loads(text, parse_float=_decimal, parse_constant=_refuse_constant)
    except ValueError as error:  # also an integer of thousands of digits
        raise InvalidGrammarError(f"the JSON schema is not JSON: {error}") from error
    except RecursionError as error:
        raise GrammarTooLargeError(
            f"the JSON schema nests too deeply: max_nesting is {budget.limits.max_nesting}"
        ) from error


def _decimal(text: str) -> Decimal:
    """Exact, and bounded: 1e999999999 would be a number of a billion digits."""
    value = Decimal(text)
    if not value.is_finite() or abs(value.adjusted()) > 400:
        raise ValueError(f"the number {text} is beyond the range of a double")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")
