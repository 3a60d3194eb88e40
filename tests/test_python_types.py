"""Python types and functions as schemas, and what their texts are read as."""

from __future__ import annotations

import datetime
import enum
import functools
import json
import subprocess
import sys
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, NewType, NotRequired, Required

import annotated_types
import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from sgrun import grammar
from sgrun.errors import CheckFailedError, InvalidParameterError
from sgrun.python_types import json_schema, tool_call, value_reader


class Color(enum.Enum):
    RED = "red"
    TWO = 2


@dataclass
class Point:
    x: int
    y: float = 0.5


class Movie(TypedDict):
    title: str
    year: int


class Seat(typing.TypedDict, total=False):
    """A seat."""

    row: Required[int]
    letter: str


class Hall(typing.TypedDict):
    seats: list[Seat]
    owner: NotRequired[Annotated[Seat, "by title"] | None]


class Pair(NamedTuple):
    first: int
    second: str


class Tree(BaseModel):
    value: int
    children: list[Tree] = []


UserId = NewType("UserId", int)
Percent = Annotated[int, Field(ge=0, le=100)]

VALUES: list[tuple[Any, str, Any, str]] = [
    (int, "12", 12, '"a"'),
    (float, "1.5", 1.5, "true"),
    (str, '"é"', "é", "1"),
    (bool, "true", True, "1"),
    (type(None), "null", None, "0"),
    (Literal["a", 1], '"a"', "a", '"b"'),
    (Color, "2", Color.TWO, '"blue"'),
    (Point, '{"x": 1}', Point(1, 0.5), '{"y": 1}'),
    (Movie, '{"title": "M", "year": 1931}', {"title": "M", "year": 1931}, '{"title": "M"}'),
    (Seat, '{"row": 1}', {"row": 1}, '{"letter": "a"}'),
    (Hall, '{"seats": [{"row": 1}], "owner": null}', {"seats": [{"row": 1}], "owner": None}, '{"seats": [{}]}'),
    (dict[str, Seat | int], '{"a": {"row": 1}, "b": 2}', {"a": {"row": 1}, "b": 2}, '{"a": {}}'),
    (Pair, '[1, "b"]', Pair(1, "b"), '["b", 1]'),
    (Tree, '{"value": 1, "children": [{"value": 2}]}', Tree(value=1, children=[Tree(value=2)]), '{"children": []}'),
    (int | None, "null", None, '"a"'),
    (int | str, '"a"', "a", "null"),
    (list[Point], '[{"x": 1, "y": 2.0}]', [Point(1, 2.0)], "[1]"),
    (dict[str, int], '{"a": 1}', {"a": 1}, '{"a": "b"}'),
    (tuple[int, str], '[1, "b"]', (1, "b"), "[1]"),
    (tuple[int, ...], "[1, 2]", (1, 2), '["a"]'),
    (Percent, "100", 100, "101"),
    (Annotated[str, annotated_types.MaxLen(2)], '"ab"', "ab", '"abc"'),
    (UserId, "7", 7, '"7"'),
    (datetime.date, '"2024-02-29"', datetime.date(2024, 2, 29), '"2023-02-29"'),
    (datetime.timedelta, '"P1D"', datetime.timedelta(days=1), '"1 day"'),
]


@pytest.mark.parametrize(("python_type", "text", "value", "other"), VALUES, ids=lambda value: str(value)[:24])
def test_a_type_constrains_its_text_which_is_read_as_its_value(
    python_type: Any, text: str, value: Any, other: str
) -> None:
    automaton = grammar.compile(json_schema=python_type)
    assert automaton.accepts(text.encode()) and not automaton.accepts(other.encode())
    read = value_reader(python_type)(text)
    assert read == value and type(read) is type(value)


def schedule(city: str, day: datetime.date, *, schema: Percent = 5, copy: Color | None = None) -> str:
    """Plans something."""
    return f"{city} {day} {schema} {copy}"


def test_the_two_typed_dicts_are_one_to_a_schema() -> None:
    schema = json_schema(Seat)
    assert isinstance(schema, dict)
    assert (schema["required"], schema["description"]) == (["row"], "A seat.")
    assert "additionalProperties" not in schema


def test_a_function_is_the_schema_of_its_parameters() -> None:
    schema = json_schema(schedule)
    assert isinstance(schema, dict)
    assert list(schema["properties"]) == ["city", "day", "schema", "copy"]
    assert schema["required"] == ["city", "day"]
    assert schema["additionalProperties"] is False
    assert schema["description"] == "Plans something."
    automaton = grammar.compile(json_schema=schedule)
    assert automaton.accepts(b'{"city": "Rome", "day": "2024-01-01", "copy": "red"}')
    assert not automaton.accepts(b'{"city": "Rome", "day": "2024-01-01", "schema": 101}')


def test_arguments_are_read_as_the_function_takes_them() -> None:
    arguments = value_reader(schedule)('{"city": "Rome", "day": "2024-01-01", "copy": "red"}')
    assert arguments == {"city": "Rome", "day": datetime.date(2024, 1, 1), "copy": Color.RED}
    assert schedule(**arguments).startswith("Rome 2024-01-01 5 Color.RED")  # type: ignore[arg-type]


def test_methods_and_functions_without_annotations_can_be_called() -> None:
    bound = json_schema(Shop().buy)
    assert isinstance(bound, dict) and list(bound["properties"]) == ["item"]


class Shop:
    def buy(self, item): ...  # type: ignore[no-untyped-def]


def add(a: int, b: int) -> int:
    return a + b


def test_a_call_names_one_of_the_functions_and_fits_its_parameters() -> None:
    automaton = grammar.compile(json_schema=tool_call(add, schedule))
    assert automaton.accepts(b'{"name": "add", "arguments": {"a": 1, "b": 2}}')
    assert automaton.accepts(b'{"name": "schedule", "arguments": {"city": "Rome", "day": "2024-01-01"}}')
    assert not automaton.accepts(b'{"name": "schedule", "arguments": {"a": 1, "b": 2}}')
    assert not automaton.accepts(b'{"name": "add", "arguments": {"a": 1, "b": 2, "c": 3}}')
    assert grammar.compile(json_schema=tool_call(add)).accepts(b'{"name": "add", "arguments": {"a": 1, "b": 2}}')
    call = value_reader(tool_call(add, schedule))('{"name": "add", "arguments": {"a": 1, "b": 2}}')
    assert call == {"name": "add", "arguments": {"a": 1, "b": 2}}


def gather(*items: int) -> None: ...


def at(x: int, /) -> None: ...


def unknown(x: NoSuchName) -> None: ...  # type: ignore[name-defined]  # noqa: F821


class Plain: ...


@pytest.mark.parametrize(
    "source",
    [3, [1], Point(1), Plain, Callable[[int], int], gather, at, unknown, len, functools.partial(len)],
)
def test_what_pydantic_cannot_read_is_refused(source: Any) -> None:
    with pytest.raises(
        InvalidParameterError, match=r"type or schema is .*; allowed: JSON text, a dict, a boolean, or"
    ) as caught:
        json_schema(source)
    assert "\n" not in str(caught.value)


def test_a_call_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidParameterError, match="at least one"):
        tool_call()


def test_a_text_that_breaks_a_rule_of_its_type_is_told_from_one_cut_short() -> None:
    read = value_reader(list[Percent])
    with pytest.raises(CheckFailedError, match="at 1: Input should be less than or equal to 100"):
        read("[1, 101]")
    with pytest.raises(CheckFailedError, match="is no int: at the value: Input should be a valid integer"):
        value_reader(int)("1.5")
    with pytest.raises(json.JSONDecodeError):
        read("[1, 10")
    with pytest.raises(CheckFailedError, match="hex escape"):
        value_reader(list[str])('["\\ud800"]')


def test_a_type_without_pydantic_is_refused_with_what_to_install() -> None:
    code = (
        "import sys; sys.modules['pydantic'] = None; sys.modules['pydantic.errors'] = None\n"
        "import sgrun\nprint(sgrun.json_schema_spec({'type': 'null'}).schema)\n"
        "try: sgrun.gen(dtype=list[int])\nexcept sgrun.errors.InvalidParameterError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    schema, message = done.stdout.splitlines()
    assert json.loads(schema) == {"type": "null"}
    assert "pip install 'sgrun[types]'" in message
