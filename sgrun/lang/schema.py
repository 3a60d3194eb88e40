"""What a user may give as a JSON schema, turned into a JsonSchemaSpec. Checks that it is JSON, not what it says."""

from __future__ import annotations

import json
from typing import Any, Protocol, runtime_checkable

from sgrun.errors import InvalidGrammarError, InvalidParameterError
from sgrun.types import JsonSchemaSpec


@runtime_checkable
class HasJsonSchema(Protocol):
    """A Pydantic model class."""

    def model_json_schema(self) -> dict[str, Any]: ...


def json_schema_spec(value: dict[str, Any] | str | type[HasJsonSchema]) -> JsonSchemaSpec:
    """A schema given as a dict, as JSON text, or as a Pydantic model class; its text keeps the order of properties.

    Raises InvalidGrammarError if the text or the dict is no JSON, InvalidParameterError for any other kind of value.
    """
    if isinstance(value, str):
        return _spec(_parsed(value))
    if isinstance(value, dict):
        return _spec(value)
    if isinstance(value, type) and isinstance(value, HasJsonSchema):
        return _spec(value.model_json_schema())
    raise InvalidParameterError(f"the JSON schema is {value!r}; allowed: a dict, JSON text or a Pydantic model class")


def _spec(schema: object) -> JsonSchemaSpec:
    """Models write what is listed: in an object that leaves others open, a small one would go on inventing them."""
    return JsonSchemaSpec(_canonical(schema), open_objects=False)


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidGrammarError(
            f"the JSON schema is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from error
    except RecursionError as error:
        raise InvalidGrammarError("the JSON schema is nested too deeply to be read") from error


def _canonical(schema: object) -> str:
    try:
        return json.dumps(schema, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidGrammarError(f"the JSON schema holds what JSON cannot express: {error}") from error
    except RecursionError as error:
        raise InvalidGrammarError("the JSON schema is nested too deeply to be read") from error
