"""What the keywords beside `unevaluatedProperties` and `unevaluatedItems` have spoken of, and under which condition."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from sgrun.grammar.schema.atoms import Required
from sgrun.grammar.schema.formula import TRUE
from sgrun.grammar.schema.places import Place

if TYPE_CHECKING:
    from sgrun.grammar.schema.reader import Reader

Schema = dict[str, Any]
_Kind = TypeVar("_Kind", list[Any], dict[str, Any])


@dataclass(frozen=True, slots=True)
class Coverage:
    """If `condition` holds of the value: these properties, or its first `num_items` items and those that satisfy one
    of `items`, are evaluated; all of them with `is_all`."""

    condition: int
    names: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    num_items: int = 0
    items: tuple[int, ...] = ()
    is_all: bool = False

    @property
    def is_empty(self) -> bool:
        return not (self.names or self.patterns or self.num_items or self.items or self.is_all)


@dataclass(slots=True)
class _Walk:
    """Malformed keywords are passed over: whoever reads the schemas that they are in refuses them."""

    reader: Reader
    is_items: bool
    open: set[Place] = field(default_factory=set)  # that the walk is inside of

    def cover(self, schema: object, place: Place, is_top: bool) -> list[Coverage]:
        if not isinstance(schema, dict) or place in self.open:
            return []
        self.reader.budget.spend("max_nfa_states", 1)  # a place counts again wherever it is referred to
        self.open.add(place)
        found = self._cover(schema, place, is_top)
        self.open.remove(place)
        return found

    def _cover(self, schema: Schema, place: Place, is_top: bool) -> list[Coverage]:
        own = self._items(schema, place) if self.is_items else self._properties(schema)
        keyword = "unevaluatedItems" if self.is_items else "unevaluatedProperties"
        if not is_top and keyword in schema:
            own = replace(own, is_all=True)
        found = [own]
        for number, _ in enumerate(_as(list, schema, "allOf")):
            found += self._inside(place.at("allOf", number), TRUE)
        for keyword in ("anyOf", "oneOf"):
            for number, _ in enumerate(_as(list, schema, keyword)):
                inner = place.at(keyword, number)
                found += self._inside(inner, self.reader.reference(inner))
        if "if" in schema:
            condition = self.reader.reference(place.at("if"))
            found += self._inside(place.at("if"), condition)
            if "then" in schema:
                found += self._inside(place.at("then"), condition)
            if "else" in schema:
                found += self._inside(place.at("else"), self.reader.formulas.not_(condition))
        for name in _as(dict, schema, "dependentSchemas"):
            formulas = self.reader.formulas
            condition = formulas.and_((formulas.is_kind("object"), formulas.atom(Required(name))))
            found += self._inside(place.at("dependentSchemas", name), condition)
        document = self.reader.document
        for keyword, is_dynamic in (("$ref", False), ("$dynamicRef", True)):
            if keyword in schema:
                target = document.refer(schema[keyword], place, keyword, is_dynamic=is_dynamic)
                found += self.cover(document.value(target.pointer), target, is_top=False)
        if "$recursiveRef" in schema:
            target = document.recursive(place)
            found += self.cover(document.value(target.pointer), target, is_top=False)
        return found

    def _inside(self, place: Place, condition: int) -> list[Coverage]:
        entered = self.reader.document.entered(place)
        covers = self.cover(self.reader.document.value(place.pointer), entered, is_top=False)
        return [replace(cover, condition=self.reader.formulas.and_((cover.condition, condition))) for cover in covers]

    def _properties(self, schema: Schema) -> Coverage:
        return Coverage(
            TRUE,
            names=tuple(_as(dict, schema, "properties")),
            patterns=tuple(_as(dict, schema, "patternProperties")),
            is_all="additionalProperties" in schema,
        )

    def _items(self, schema: Schema, place: Place) -> Coverage:
        items = schema.get("items")
        if isinstance(items, list):
            return Coverage(TRUE, num_items=len(items), is_all="additionalItems" in schema)
        contains: tuple[int, ...] = ()
        if "contains" in schema and self.reader.draft >= 2020:
            contains = (self.reader.reference(place.at("contains")),)
        num_items = len(_as(list, schema, "prefixItems")) if self.reader.draft >= 2020 else 0
        return Coverage(TRUE, num_items=num_items, items=contains, is_all="items" in schema)


def _as(kind: type[_Kind], schema: Schema, keyword: str) -> _Kind:
    value = schema.get(keyword)
    return value if isinstance(value, kind) else kind()


def covered_properties(reader: Reader, schema: Schema, place: Place) -> list[Coverage]:
    return _Walk(reader, is_items=False).cover(schema, place, is_top=True)


def covered_items(reader: Reader, schema: Schema, place: Place) -> list[Coverage]:
    return _Walk(reader, is_items=True).cover(schema, place, is_top=True)
