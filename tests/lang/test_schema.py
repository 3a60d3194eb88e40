from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel

from sgrun.errors import InvalidGrammarError, InvalidParameterError
from sgrun.lang.schema import json_schema_spec


class Model(BaseModel):
    z: int
    a: str


def test_dict_and_text_of_one_schema_give_the_same_spec() -> None:
    schema = {"type": "object", "properties": {"z": {"type": "null"}, "é": {"const": 1}}}
    assert json_schema_spec(schema) == json_schema_spec(json.dumps(schema, indent=2))


def test_order_of_properties_is_kept() -> None:
    schema = json.loads(json_schema_spec(Model).schema)
    assert list(schema["properties"]) == ["z", "a"]
    assert schema == Model.model_json_schema()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ('{"a": ', "Expecting value at line 1, column 7"),
        ({"const": {1, 2}}, "set is not JSON"),
        ({"const": float("nan")}, "what JSON cannot express"),
        ('{"const": NaN}', "what JSON cannot express"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_not_json_is_refused(value: Any, message: str) -> None:
    with pytest.raises(InvalidGrammarError, match=message):
        json_schema_spec(value)


def test_booleans_and_types_are_schemas() -> None:
    assert json_schema_spec(True).schema == "true"
    assert json_schema_spec(int).schema == '{"type":"integer"}'
    assert json_schema_spec(list[int], strict=False).strict is False


@pytest.mark.parametrize("value", [3, [], Model(z=1, a="")])
def test_other_values_are_refused(value: Any) -> None:
    with pytest.raises(InvalidParameterError, match="JSON text, a dict, a boolean, or a Python type or function"):
        json_schema_spec(value)


def test_value_that_contains_itself_is_refused() -> None:
    schema: dict[str, Any] = {}
    schema["not"] = schema
    with pytest.raises(InvalidGrammarError, match="Circular reference"):
        json_schema_spec(schema)
