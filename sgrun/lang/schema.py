"""What a user may give as a JSON schema, turned into a JsonSchemaSpec. Checks that it is JSON, not what it says."""

from __future__ import annotations

import json

from sgrun.errors import InvalidGrammarError
from sgrun.python_types import json_schema, schema_text
from sgrun.types import JsonSchemaSpec


def json_schema_spec(source: object, *, strict: bool = True) -> JsonSchemaSpec:
    """A schema given as JSON text, a dict, a boolean or a Python type; its text keeps the order of properties.

    Models write what is listed: in an object that leaves others open, a small one would go on inventing them, so
    objects are closed; and integers are digits, which every reader takes for integers. Raises InvalidGrammarError if
    the text or the dict is no JSON, InvalidParameterError for any other kind of value.
    """
    schema = _parsed(source) if isinstance(source, str) else json_schema(source)
    return JsonSchemaSpec(schema_text(schema), strict=strict, open_objects=False, plain_integers=True)


def _parsed(text: str) -> dict[str, object] | bool:
    try:
        schema: dict[str, object] | bool = json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidGrammarError(
            f"the JSON schema is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from error
    except RecursionError as error:
        raise InvalidGrammarError("the JSON schema is nested too deeply to be read") from error
    return schema
