"""Reads the keywords of a JSON schema (drafts 4 to 2020-12) into formulas.

Every keyword is enforced, listed in `checked_afterwards`, or refused; words that no draft knows are annotations.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping
from decimal import Decimal
from fractions import Fraction
from itertools import combinations
from typing import Any, NoReturn

from sgrun.errors import GrammarTooLargeError, InvalidGrammarError, UnsupportedGrammarError
from sgrun.grammar.automaton import Unchecked
from sgrun.grammar.limits import Budget
from sgrun.grammar.numbers import AtLeast, AtMost, Integer, MultipleOf, NumberAtom, NumberEquals
from sgrun.grammar.scalars import atom_problem
from sgrun.grammar.schema.atoms import (
    ArrayAtom,
    ContainsAtLeast,
    ContainsAtMost,
    Items,
    ItemsAtLeast,
    ItemsAtMost,
    Names,
    ObjectAtom,
    Properties,
    PropertiesAtLeast,
    PropertiesAtMost,
    Required,
)
from sgrun.grammar.schema.evaluated import Coverage, covered_items, covered_properties
from sgrun.grammar.schema.formula import FALSE, TRUE, Formulas, Kind
from sgrun.grammar.schema.places import Document, Place
from sgrun.grammar.strings import Format, LengthAtLeast, LengthAtMost, Pattern, StringAtom, TextEquals

Schema = dict[str, Any]
MAX_COUNT = 2**31 - 2  # what a counter holds; no text has as many of anything, so larger counts mean the same
MAX_UNIQUE_VALUES = 6  # of an enum of items, so that uniqueItems is a small set of values seen
_TYPES: Mapping[str, tuple[Kind, ...]] = {
    "null": ("null",),
    "boolean": ("true", "false"),
    "number": ("number",),
    "integer": ("number",),
    "string": ("string",),
    "array": ("array",),
    "object": ("object",),
}


class Reader:
    """The formulas of one schema document. `checked_afterwards` lists what they leave open, as it is met."""

    def __init__(self, text: str, budget: Budget) -> None:
        budget.spend("max_source_len", len(text))
        self.document = Document(_parsed(text, budget), budget)
        self.draft = self.document.draft
        self.formulas = Formulas(_kind_of, self.at)
        self.checked_afterwards: list[Unchecked] = []
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

    def _schema(self, schema: object, place: Place) -> int:
        if isinstance(schema, bool):
            return TRUE if schema else FALSE
        if not isinstance(schema, dict):
            raise InvalidGrammarError(f"#{place.pointer} is {schema!r}; allowed: a schema (an object or a boolean)")
        if "$ref" in schema and self.draft <= 7:
            return self._ref(schema, place)
        parts = []
        for keyword in schema:
            read = _KEYWORDS.get(keyword)
            if read is not None and not self._is_later(keyword):
                parts.append(read(self, schema, place))
        return self.formulas.and_(parts)

    def _is_later(self, keyword: str) -> bool:
        """Whether this draft does not know the keyword yet, so that it is an annotation."""
        return self.draft < _SINCE.get(keyword, 0)

    # In place: other schemas about the same value

    def _ref(self, schema: Schema, place: Place) -> int:
        return self.formulas.reference(self.document.refer(schema["$ref"], place, "$ref"))

    def _dynamic_ref(self, schema: Schema, place: Place) -> int:
        target = self.document.refer(schema["$dynamicRef"], place, "$dynamicRef", is_dynamic=True)
        return self.formulas.reference(target)

    def _recursive_ref(self, schema: Schema, place: Place) -> int:
        return self.formulas.reference(self.document.recursive(place))

    def _all_of(self, schema: Schema, place: Place) -> int:
        return self.formulas.and_(self._branches(schema, "allOf", place))

    def _any_of(self, schema: Schema, place: Place) -> int:
        return self.formulas.or_(self._branches(schema, "anyOf", place))

    def _one_of(self, schema: Schema, place: Place) -> int:
        return self.formulas.exactly_one(self._branches(schema, "oneOf", place))

    def _branches(self, schema: Schema, keyword: str, place: Place) -> list[int]:
        branches = _expect(schema[keyword], list, "a list of schemas", place.at(keyword))
        if not branches:
            raise InvalidGrammarError(f"#{place.at(keyword).pointer} is empty; allowed: at least one schema")
        return [self.reference(place.at(keyword, number)) for number in range(len(branches))]

    def _not(self, schema: Schema, place: Place) -> int:
        return self.formulas.not_(self.reference(place.at("not")))

    def _if(self, schema: Schema, place: Place) -> int:
        condition = self.reference(place.at("if"))
        parts = []
        if "then" in schema:
            parts.append(self.formulas.implies(condition, self.reference(place.at("then"))))
        if "else" in schema:
            parts.append(self.formulas.or_((condition, self.reference(place.at("else")))))
        return self.formulas.and_(parts)

    # Any kind of value

    def _type(self, schema: Schema, place: Place) -> int:
        names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        parts = []
        for name in names:
            if not isinstance(name, str) or name not in _TYPES:
                raise InvalidGrammarError(
                    f"#{place.at('type').pointer} is {schema['type']!r}; allowed: one or a list of {', '.join(_TYPES)}"
                )
            kinds = self.formulas.is_kind(*_TYPES[name])
            parts.append(self.formulas.and_((kinds, self.formulas.atom(Integer()))) if name == "integer" else kinds)
        return self.formulas.or_(parts)

    def _enum(self, schema: Schema, place: Place) -> int:
        values = _expect(schema["enum"], list, "a list of values", place.at("enum"))
        return self.formulas.or_(self.equals(value, place.at("enum")) for value in values)

    def _const(self, schema: Schema, place: Place) -> int:
        return self.equals(schema["const"], place.at("const"))

    def equals(self, value: object, place: Place) -> int:
        """The formula that holds of this value alone."""
        self.budget.spend("max_nfa_states", 1)
        formulas = self.formulas
        match value:
            case None:
                return formulas.is_kind("null")
            case bool():
                return formulas.is_kind("true" if value else "false")
            case int() | float() | Decimal():
                return self._and_kind("number", NumberEquals(Fraction(value)))
            case str():
                return self._and_kind("string", TextEquals(_text(value, place)))
            case list():
                items = tuple(self.equals(item, place) for item in value)
                return self._and_kind("array", Items(items, FALSE), *_at_least(ItemsAtLeast, len(items)))
            case dict():
                named = tuple((_text(name, place), self.equals(inner, place)) for name, inner in value.items())
                required = [Required(name) for name in value]
                return self._and_kind("object", Properties(named, (), FALSE), *required)
        raise AssertionError(f"no JSON value: {value!r}")

    def _and_kind(self, kind: Kind, *atoms: Hashable) -> int:
        return self.formulas.and_([self.formulas.is_kind(kind), *map(self.formulas.atom, atoms)])

    # Numbers

    def _minimum(self, schema: Schema, place: Place) -> int:
        is_exclusive = self.draft == 4 and schema.get("exclusiveMinimum") is True
        return self.formulas.atom(AtLeast(_number(schema, "minimum", place), is_exclusive))

    def _maximum(self, schema: Schema, place: Place) -> int:
        is_exclusive = self.draft == 4 and schema.get("exclusiveMaximum") is True
        return self.formulas.atom(AtMost(_number(schema, "maximum", place), is_exclusive))

    def _exclusive_minimum(self, schema: Schema, place: Place) -> int:
        if isinstance(schema["exclusiveMinimum"], bool):  # draft 4: read with minimum
            return self._old_exclusive(schema, place, "exclusiveMinimum", "minimum")
        return self.formulas.atom(AtLeast(_number(schema, "exclusiveMinimum", place), True))

    def _exclusive_maximum(self, schema: Schema, place: Place) -> int:
        if isinstance(schema["exclusiveMaximum"], bool):
            return self._old_exclusive(schema, place, "exclusiveMaximum", "maximum")
        return self.formulas.atom(AtMost(_number(schema, "exclusiveMaximum", place), True))

    def _old_exclusive(self, schema: Schema, place: Place, keyword: str, bound: str) -> int:
        if self.draft == 4 or not schema[keyword]:
            return TRUE
        if bound not in schema:
            return TRUE
        kind = AtLeast if bound == "minimum" else AtMost
        return self.formulas.atom(kind(_number(schema, bound, place), True))

    def _multiple_of(self, schema: Schema, place: Place) -> int:
        value = _number(schema, "multipleOf", place)
        if value <= 0:
            raise InvalidGrammarError(f"#{place.at('multipleOf').pointer} is {value}; allowed: a number above 0")
        return self._checked(MultipleOf(value), place.at("multipleOf"))

    # Strings

    def _min_length(self, schema: Schema, place: Place) -> int:
        return self._atoms(_at_least(LengthAtLeast, _count(schema, "minLength", place)))

    def _max_length(self, schema: Schema, place: Place) -> int:
        return self.formulas.atom(LengthAtMost(_count(schema, "maxLength", place)))

    def _pattern(self, schema: Schema, place: Place) -> int:
        pattern = _expect(schema["pattern"], str, "a string", place.at("pattern"))
        return self._checked(Pattern(pattern), place.at("pattern"))

    def _format(self, schema: Schema, place: Place) -> int:
        name = _expect(schema["format"], str, "a string", place.at("format"))
        return self._checked(Format(name), place.at("format"))

    def _checked(self, atom: NumberAtom | StringAtom, place: Place) -> int:
        try:
            atom_problem(atom)
        except (InvalidGrammarError, UnsupportedGrammarError, GrammarTooLargeError) as error:
            raise type(error)(f"#{place.pointer}: {error}") from error
        return self.formulas.atom(atom)

    # Arrays

    def _prefix_items(self, schema: Schema, place: Place) -> int:
        return self._array_items(schema, place) if "items" not in schema else TRUE  # else read with items

    def _items(self, schema: Schema, place: Place) -> int:
        return self._array_items(schema, place)

    def _array_items(self, schema: Schema, place: Place) -> int:
        prefix, rest = self.item_schemas(schema, place)
        return self.formulas.atom(Items(prefix, rest))

    def item_schemas(self, schema: Schema, place: Place) -> tuple[tuple[int, ...], int]:
        """What items by position and later ones have to satisfy, by all drafts' spellings."""
        items = schema.get("items", True)
        if isinstance(items, list):
            prefix = tuple(self.reference(place.at("items", number)) for number in range(len(items)))
            rest = self.reference(place.at("additionalItems")) if "additionalItems" in schema else TRUE
            return prefix, rest
        prefix = ()
        if "prefixItems" in schema and self.draft >= 2020:
            listed = _expect(schema["prefixItems"], list, "a list of schemas", place.at("prefixItems"))
            prefix = tuple(self.reference(place.at("prefixItems", number)) for number in range(len(listed)))
        return prefix, self.reference(place.at("items")) if "items" in schema else TRUE

    def _contains(self, schema: Schema, place: Place) -> int:
        formula = self.reference(place.at("contains"))
        has_counts = self.draft >= 2019
        least = _count(schema, "minContains", place) if has_counts and "minContains" in schema else 1
        parts = [ContainsAtLeast(formula, least)] if least else []
        most = []
        if has_counts and "maxContains" in schema:
            most = [ContainsAtMost(formula, _count(schema, "maxContains", place))]
        return self._atoms([*parts, *most])

    def _min_items(self, schema: Schema, place: Place) -> int:
        return self._atoms(_at_least(ItemsAtLeast, _count(schema, "minItems", place)))

    def _max_items(self, schema: Schema, place: Place) -> int:
        return self.formulas.atom(ItemsAtMost(_count(schema, "maxItems", place)))

    def _unique_items(self, schema: Schema, place: Place) -> int:
        if schema["uniqueItems"] is not True:
            return TRUE
        if isinstance(schema.get("maxItems"), int) and schema["maxItems"] <= 1:
            return TRUE
        values = self._item_values(schema, place)
        if values is not None:
            once = (ContainsAtMost(self.equals(value, place), 1) for value in values)
            return self._atoms(list(once))
        self.checked_afterwards.append(Unchecked("uniqueItems", f"#{place.at('uniqueItems').pointer}"))
        return TRUE

    def _item_values(self, schema: Schema, place: Place) -> list[object] | None:
        """The values of which all items are, if they are few."""
        items = schema.get("items")
        if "prefixItems" in schema or not isinstance(items, dict):
            return None
        while set(items) == {"$ref"}:
            items = self.document.value(self.document.refer(items["$ref"], place.at("items"), "$ref").pointer)
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

    # Objects

    def _property_keywords(self, schema: Schema, place: Place) -> int:
        return self.formulas.atom(self.property_atom(schema, place))

    def property_atom(self, schema: Schema, place: Place) -> Properties:
        """properties, patternProperties and additionalProperties, which know of each other."""
        names = _expect(schema.get("properties", {}), dict, "an object of schemas", place.at("properties"))
        patterns = _expect(
            schema.get("patternProperties", {}), dict, "an object of schemas", place.at("patternProperties")
        )
        for pattern in patterns:
            self._checked(Pattern(pattern), place.at("patternProperties", pattern))
        return Properties(
            tuple((_text(name, place), self.reference(place.at("properties", name))) for name in names),
            tuple((pattern, self.reference(place.at("patternProperties", pattern))) for pattern in patterns),
            self.reference(place.at("additionalProperties")) if "additionalProperties" in schema else TRUE,
            speaks_of_others=not _OTHERS.isdisjoint(schema),
        )

    def _required(self, schema: Schema, place: Place) -> int:
        names = schema["required"]
        if isinstance(names, bool):  # draft 3 had it inside the property; it says nothing in later ones
            raise InvalidGrammarError(f"#{place.at('required').pointer} is {names!r}; allowed: a list of names")
        listed = _expect(names, list, "a list of names", place.at("required"))
        return self._atoms([_required(name, place.at("required")) for name in listed])

    def _property_names(self, schema: Schema, place: Place) -> int:
        return self.formulas.atom(Names(self.reference(place.at("propertyNames"))))

    def _min_properties(self, schema: Schema, place: Place) -> int:
        count = _count(schema, "minProperties", place)
        is_closed = schema.get("additionalProperties") is False and not schema.get("patternProperties")
        if count > 1 and not is_closed:  # names that are not listed are not compared, and may come twice
            self.checked_afterwards.append(Unchecked("minProperties", str(place.at("minProperties"))))
        return self._atoms(_at_least(PropertiesAtLeast, count))

    def _max_properties(self, schema: Schema, place: Place) -> int:
        return self.formulas.atom(PropertiesAtMost(_count(schema, "maxProperties", place)))

    def _dependencies(self, schema: Schema, place: Place) -> int:
        return self._dependent(schema, place, "dependencies")

    def _dependent_required(self, schema: Schema, place: Place) -> int:
        return self._dependent(schema, place, "dependentRequired")

    def _dependent_schemas(self, schema: Schema, place: Place) -> int:
        return self._dependent(schema, place, "dependentSchemas")

    def _dependent(self, schema: Schema, place: Place, keyword: str) -> int:
        parts = []
        for name, then in _expect(schema[keyword], dict, "an object", place.at(keyword)).items():
            if isinstance(then, list):
                follows = self._atoms([_required(other, place.at(keyword, name)) for other in then])
            elif isinstance(then, str):
                follows = self.formulas.atom(_required(then, place.at(keyword, name)))
            else:
                follows = self.reference(place.at(keyword, name))
            has_name = self.formulas.atom(_required(name, place.at(keyword)))
            here = self.formulas.and_((self.formulas.is_kind("object"), has_name))
            parts.append(self.formulas.implies(here, follows))
        return self.formulas.and_(parts)

    # What other keywords have not spoken of

    def _unevaluated_properties(self, schema: Schema, place: Place) -> int:
        coverage = covered_properties(self, schema, place)
        rest = self.reference(place.at("unevaluatedProperties"))

        def atom(covers: list[Coverage]) -> Hashable:
            named = tuple((name, TRUE) for cover in covers for name in cover.names)
            patterns = tuple((pattern, TRUE) for cover in covers for pattern in cover.patterns)
            return Properties(named, patterns, rest)

        return self._unevaluated(coverage, atom, place.at("unevaluatedProperties"))

    def _unevaluated_items(self, schema: Schema, place: Place) -> int:
        coverage = covered_items(self, schema, place)
        rest = self.reference(place.at("unevaluatedItems"))

        def atom(covers: list[Coverage]) -> Hashable:
            later = self.formulas.or_([rest, *(formula for cover in covers for formula in cover.items)])
            return Items((TRUE,) * max((cover.num_items for cover in covers), default=0), later)

        return self._unevaluated(coverage, atom, place.at("unevaluatedItems"))

    def _unevaluated(self, coverage: list[Coverage], atom: Callable[[list[Coverage]], Hashable], place: Place) -> int:
        """For every set of conditions that may hold: these hold, and what they cover leaves the rest to the keyword.
        A larger set asks for less, so the sets need not exclude each other."""
        always = [cover for cover in coverage if cover.condition == TRUE]
        sometimes = [cover for cover in coverage if cover.condition not in (TRUE, FALSE) and not cover.is_empty]
        if any(cover.is_all for cover in always):
            return TRUE
        if len(sometimes) > 6:
            raise GrammarTooLargeError(
                f"#{place.pointer}: {len(sometimes)} conditional schemas decide what is unevaluated; "
                "at most 6 are followed"
            )
        parts = []
        for size in range(len(sometimes) + 1):
            for chosen in combinations(sometimes, size):
                conditions = [cover.condition for cover in chosen]
                covers = [*always, *chosen]
                told = TRUE if any(cover.is_all for cover in covers) else self.formulas.atom(atom(covers))
                parts.append(self.formulas.and_([*conditions, told]))
        return self.formulas.or_(parts)

    def _atoms(self, atoms: list[Any]) -> int:
        return self.formulas.and_(self.formulas.atom(atom) for atom in atoms)


_PROPERTY_KEYWORDS = ("properties", "patternProperties", "additionalProperties")
_OTHERS = frozenset(["patternProperties", "additionalProperties", "unevaluatedProperties"])
_SINCE = {
    "const": 6,
    "contains": 6,
    "propertyNames": 6,
    "if": 7,
    "dependentRequired": 2019,
    "dependentSchemas": 2019,
    "unevaluatedItems": 2019,
    "unevaluatedProperties": 2019,
    "$recursiveRef": 2019,
    "prefixItems": 2020,
    "$dynamicRef": 2020,
}
_KEYWORDS: Mapping[str, Callable[[Reader, Schema, Place], int]] = {
    "$ref": Reader._ref,
    "$dynamicRef": Reader._dynamic_ref,
    "$recursiveRef": Reader._recursive_ref,
    "allOf": Reader._all_of,
    "anyOf": Reader._any_of,
    "oneOf": Reader._one_of,
    "not": Reader._not,
    "if": Reader._if,
    "type": Reader._type,
    "enum": Reader._enum,
    "const": Reader._const,
    "minimum": Reader._minimum,
    "maximum": Reader._maximum,
    "exclusiveMinimum": Reader._exclusive_minimum,
    "exclusiveMaximum": Reader._exclusive_maximum,
    "multipleOf": Reader._multiple_of,
    "minLength": Reader._min_length,
    "maxLength": Reader._max_length,
    "pattern": Reader._pattern,
    "format": Reader._format,
    "items": Reader._items,
    "prefixItems": Reader._prefix_items,
    "contains": Reader._contains,
    "minItems": Reader._min_items,
    "maxItems": Reader._max_items,
    "uniqueItems": Reader._unique_items,
    "properties": Reader._property_keywords,
    "patternProperties": Reader._property_keywords,
    "additionalProperties": Reader._property_keywords,
    "required": Reader._required,
    "propertyNames": Reader._property_names,
    "minProperties": Reader._min_properties,
    "maxProperties": Reader._max_properties,
    "dependencies": Reader._dependencies,
    "dependentRequired": Reader._dependent_required,
    "dependentSchemas": Reader._dependent_schemas,
    "unevaluatedProperties": Reader._unevaluated_properties,
    "unevaluatedItems": Reader._unevaluated_items,
}


def is_assertion(keyword: str, draft: int) -> bool:
    """Whether a keyword says which values are valid, rather than something about them, in this draft."""
    companion_of = {"then": "if", "else": "if", "minContains": "contains", "maxContains": "contains"}
    keyword = companion_of.get(keyword, "items" if keyword == "additionalItems" else keyword)
    return keyword in _KEYWORDS and draft >= _SINCE.get(keyword, 0)


def _kind_of(atom: Hashable) -> Kind | None:
    if isinstance(atom, NumberAtom):
        return "number"
    if isinstance(atom, StringAtom):
        return "string"
    if isinstance(atom, ArrayAtom):
        return "array"
    assert isinstance(atom, ObjectAtom), atom
    return "object"


def _at_least(kind: Callable[[int], Any], count: int) -> list[Any]:
    return [kind(count)] if count else []


def _number(schema: Schema, keyword: str, place: Place) -> Fraction:
    value = schema[keyword]
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise InvalidGrammarError(f"#{place.at(keyword).pointer} is {value!r}; allowed: a number")
    return Fraction(value)


def _count(schema: Schema, keyword: str, place: Place) -> int:
    value = schema[keyword]
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or value != int(value) or value < 0:
        raise InvalidGrammarError(f"#{place.at(keyword).pointer} is {value}; allowed: an integer from 0")
    return min(int(value), MAX_COUNT)


def _required(name: object, place: Place) -> Required:
    return Required(_text(_expect(name, str, "a string", place), place))


def _text(value: str, place: Place) -> str:
    """The value, which UTF-8 has to be able to spell."""
    if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
        raise UnsupportedGrammarError(f"{place}: {value!r} holds a lone surrogate, which no UTF-8 text does")
    return value


def _expect(value: object, kind: type[Any], allowed: str, place: Place) -> Any:
    if isinstance(value, kind):
        return value
    raise InvalidGrammarError(f"#{place.pointer} is {value!r}; allowed: {allowed}")


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
