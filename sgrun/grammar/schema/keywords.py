"""Owns which keywords there are: since which draft, and what reads each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from sgrun.grammar.schema import array_keywords, combining, object_keywords, scalar_keywords, unevaluated
from sgrun.grammar.schema.arguments import Schema
from sgrun.grammar.schema.places import Place

if TYPE_CHECKING:
    from sgrun.grammar.schema.reader import Reader

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
_ONLY = {"contentEncoding": 7, "contentMediaType": 7}  # annotations in later drafts
_READ: Mapping[str, Callable[[Reader, Schema, Place], int]] = {
    "$ref": combining.ref,
    "$dynamicRef": combining.dynamic_ref,
    "$recursiveRef": combining.recursive_ref,
    "allOf": combining.all_of,
    "anyOf": combining.any_of,
    "oneOf": combining.one_of,
    "not": combining.negation,
    "if": combining.conditional,
    "type": combining.kinds,
    "enum": combining.enum,
    "const": combining.const,
    "minimum": scalar_keywords.minimum,
    "maximum": scalar_keywords.maximum,
    "exclusiveMinimum": scalar_keywords.exclusive_minimum,
    "exclusiveMaximum": scalar_keywords.exclusive_maximum,
    "multipleOf": scalar_keywords.multiple_of,
    "minLength": scalar_keywords.min_length,
    "maxLength": scalar_keywords.max_length,
    "pattern": scalar_keywords.pattern,
    "format": scalar_keywords.format_,
    "contentEncoding": scalar_keywords.content_encoding,
    "contentMediaType": scalar_keywords.content_media_type,
    "items": array_keywords.items,
    "prefixItems": array_keywords.prefix_items,
    "contains": array_keywords.contains,
    "minItems": array_keywords.min_items,
    "maxItems": array_keywords.max_items,
    "uniqueItems": array_keywords.unique_items,
    "properties": object_keywords.properties,
    "patternProperties": object_keywords.properties,
    "additionalProperties": object_keywords.properties,
    "required": object_keywords.required,
    "propertyNames": object_keywords.property_names,
    "minProperties": object_keywords.min_properties,
    "maxProperties": object_keywords.max_properties,
    "dependencies": object_keywords.dependencies,
    "dependentRequired": object_keywords.dependent_required,
    "dependentSchemas": object_keywords.dependent_schemas,
    "unevaluatedProperties": unevaluated.unevaluated_properties,
    "unevaluatedItems": unevaluated.unevaluated_items,
}
_READ_WITH = {
    "then": "if",
    "else": "if",
    "minContains": "contains",
    "maxContains": "contains",
    "additionalItems": "items",
}


def formula_of(reader: Reader, keyword: str, schema: Schema, place: Place) -> int | None:
    """What one keyword of a schema says; None if it is an annotation in this draft, or is read with another one."""
    return _READ[keyword](reader, schema, place) if _is_read(keyword, reader.draft) else None


def is_assertion(keyword: str, draft: int) -> bool:
    """Whether a keyword says which values are valid, rather than something about them, in this draft."""
    return _is_read(_READ_WITH.get(keyword, keyword), draft)


def _is_read(keyword: str, draft: int) -> bool:
    return keyword in _READ and draft >= _SINCE.get(keyword, 0) and draft == _ONLY.get(keyword, draft)
