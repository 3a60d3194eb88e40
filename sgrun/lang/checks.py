"""Owns the check of a finished text against a schema of which an automaton does not enforce everything."""

from __future__ import annotations

import base64
import json
import re
from fractions import Fraction
from typing import Any

from sgrun.errors import CheckFailedError
from sgrun.types import JsonSchemaSpec


def check_text(spec: JsonSchemaSpec, text: str) -> None:
    """Raises CheckFailedError, with keyword and JSON pointer, for a JSON text that a schema refuses.

    A text that was cut short is no JSON; it is not checked.
    """
    try:
        value = read_json(text)
    except json.JSONDecodeError:
        return
    try:
        error = _first_error(json.loads(spec.schema), value, spec.formats)
    except re.error as fault:
        raise CheckFailedError(f"the text cannot be checked: {fault} in the pattern {fault.pattern!r}") from fault
    if error is not None:
        keys = (str(key).replace("~", "~0").replace("/", "~1") for key in error.absolute_schema_path)
        pointer = "/".join(["#", *keys])
        raise CheckFailedError(
            f"{pointer}: the text breaks the keyword {error.validator!r} at {error.json_path}: {error.message[:200]}"
        )


def read_json(text: str) -> Any:
    """Raises json.JSONDecodeError, and CheckFailedError for an integer of more digits than Python reads."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError as error:
        raise CheckFailedError(f"the text cannot be read: {error}") from error


def _first_error(schema: Any, value: object, has_formats: bool) -> Any:
    import jsonschema

    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    keywords: dict[str, Any] = {"multipleOf": _multiple_of}
    if has_formats and kind is jsonschema.Draft7Validator:
        keywords["contentMediaType"] = _content
    exact = jsonschema.validators.extend(kind, keywords)
    return jsonschema.exceptions.best_match(exact(schema).iter_errors(value))


def _multiple_of(validator: Any, divisor: float, value: object, schema: object) -> Any:
    """By exact arithmetic, as the automaton has it; that of the library takes 0.3 for no multiple of 0.1."""
    import jsonschema

    if validator.is_type(value, "number") and Fraction(repr(value)) % Fraction(repr(divisor)):
        yield jsonschema.ValidationError(f"{value!r} is not a multiple of {divisor!r}")


def _content(validator: Any, media_type: str, value: object, schema: Any) -> Any:
    """Of draft 7: JSON within a string, which the library passes over; in later drafts the keyword is an annotation."""
    import jsonschema

    if media_type != "application/json" or not isinstance(value, str):
        return
    is_base64 = str(schema.get("contentEncoding")).lower() == "base64"
    try:
        json.loads(base64.b64decode(value, validate=True) if is_base64 else value)
    except ValueError as error:
        yield jsonschema.ValidationError(f"{value!r} holds no JSON: {error}")
