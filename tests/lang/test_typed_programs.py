"""Programs that read values of Python types, checked texts and the pieces of composed constraints."""

from __future__ import annotations

import asyncio
import enum
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from pydantic import BaseModel, field_validator

import sgrun as sg
from sgrun.errors import CheckFailedError, ProgramError
from sgrun.lang.captures import Captured
from sgrun.lang.scripted import ScriptedBackend
from sgrun.types import ChoicesSpec, GrammarSpec, JsonSchemaSpec, Part, RegexSpec, SequenceSpec, Trigger, TriggeredSpec


class Color(enum.Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: int


class Even(BaseModel):
    number: int

    @field_validator("number")
    @classmethod
    def is_even(cls, value: int) -> int:
        assert value % 2 == 0, "odd"
        return value


def run(text: str, **arguments: Any) -> sg.ProgramState:
    """A program of one generation that is answered with `text`."""

    @sg.function
    def program(s: sg.ProgramState) -> None:
        s += "?" + sg.gen("x", **arguments)

    with ScriptedBackend(text) as backend:
        state = program.run(backend=backend)
        state.sync()
        return state


@pytest.mark.parametrize(
    ("dtype", "text", "value"),
    [
        (Point, '{"x": 1, "y": 2}', Point(1, 2)),
        (Color, '"red"', Color.RED),
        (Literal["a", "b"], '"b"', "b"),
        (list[int], "[1, 2]", [1, 2]),
        (int | None, "null", None),
        (Even, '{"number": 2}', Even(number=2)),
    ],
    ids=str,
)
def test_a_generation_of_a_type_is_its_value(dtype: Any, text: str, value: Any) -> None:
    state = run(text, dtype=dtype)
    assert state["x"] == value
    assert state.text() == "?" + text
    assert state.get_meta_info("x")["text"] == text


def test_a_value_is_the_same_object_at_each_reading() -> None:
    state = run("[1, 2]", dtype=list[int])
    state["x"].append(3)
    assert state["x"] == [1, 2, 3]


def test_samples_of_a_type_are_a_list_of_its_values() -> None:
    assert run('{"x": 1, "y": 2}', dtype=Point, n=2)["x"] == [Point(1, 2)] * 2


def test_a_schema_alone_gives_the_text_whatever_stated_it() -> None:
    for schema in (Point, {"type": "object"}, "{}", True):
        assert run('{"x": 1, "y": 2}', json_schema=schema)["x"] == '{"x": 1, "y": 2}'


def test_a_typed_value_cut_short_is_the_same_error_for_every_type() -> None:
    with pytest.raises(ProgramError, match=r"not a complete Point; raise max_tokens"):
        run('{"x": 1, "y', dtype=Point)["x"]


def test_a_value_that_the_type_refuses_is_named_with_its_field_and_line() -> None:
    with pytest.raises(CheckFailedError, match=r"no Even: at number: .*odd") as caught:
        run('{"number": 3}', dtype=Even)["x"]
    assert "in program 'program'" in caught.value.__notes__[0]


UNIQUE: dict[str, Any] = {"type": "object", "properties": {"a/b": {"type": "array", "uniqueItems": True}}}


def test_a_lenient_schema_is_checked_when_its_text_is_read() -> None:
    assert run('{"a/b": [1, true]}', json_schema=UNIQUE, strict=False)["x"] == '{"a/b": [1, true]}'
    state = run('{"a/b": [1, 1.0]}', json_schema=UNIQUE, strict=False)
    with pytest.raises(CheckFailedError, match=r"#/properties/a~1b/uniqueItems: .* 'uniqueItems' at \$\['a/b'\]"):
        state["x"]
    assert state.text() == '?{"a/b": [1, 1.0]}'


def test_a_strict_schema_is_the_engines_to_enforce() -> None:
    assert run("[1, 1]", json_schema=UNIQUE["properties"]["a/b"])["x"] == "[1, 1]"


def test_a_lenient_text_cut_short_is_not_checked() -> None:
    assert run('{"a/b": [1, 1', json_schema=UNIQUE, strict=False)["x"] == '{"a/b": [1, 1'


def test_a_lenient_type_is_checked_and_read() -> None:
    assert run("[1, 2]", dtype=set[int], strict=False)["x"] == {1, 2}
    with pytest.raises(CheckFailedError, match="uniqueItems"):
        run("[1, 1]", dtype=set[int], strict=False)["x"]


def test_the_check_has_exact_arithmetic_and_drafts_as_the_automaton_has() -> None:
    assert run("0.3", json_schema={"multipleOf": 0.1}, strict=False)["x"] == "0.3"
    with pytest.raises(CheckFailedError, match="multipleOf"):
        run("0.35", json_schema={"multipleOf": 0.1}, strict=False)["x"]
    assert run('"a"', json_schema={"multipleOf": 0.1}, strict=False)["x"] == '"a"'
    with pytest.raises(CheckFailedError, match=r"#/prefixItems/0/type"):
        run("[1]", json_schema={"prefixItems": [{"type": "string"}]}, strict=False)["x"]
    draft4 = {"$schema": "http://json-schema.org/draft-04/schema#", "maximum": 3, "exclusiveMaximum": True}
    with pytest.raises(CheckFailedError, match="maximum"):
        run("3", json_schema=draft4, strict=False)["x"]


def test_an_integer_that_python_does_not_read_is_an_error_of_ours() -> None:
    with pytest.raises(CheckFailedError, match=r"cannot be read: .*digits"):
        run("1" * 5000, json_schema={}, strict=False)["x"]
    digits = SequenceSpec((Part("n", JsonSchemaSpec('{"type":"integer"}')), "!"))
    with pytest.raises(CheckFailedError, match=r"cannot be read: .*digits"):
        run("1" * 5000 + "!", grammar=digits).captures("x")


def test_pointers_are_escaped() -> None:
    with pytest.raises(CheckFailedError, match=r"#/properties/~0a~1/const"):
        run('{"~a/": 1}', json_schema={"properties": {"~a/": {"const": 2}}}, strict=False)["x"]


def test_a_pattern_that_the_check_cannot_read_is_named() -> None:
    with pytest.raises(CheckFailedError, match=r"cannot be checked: .*'\\\\p\{L\}'"):
        run('"a"', json_schema={"pattern": r"\p{L}"}, strict=False)["x"]


# Pieces

PERSON = SequenceSpec(
    ("Name: ", Part("name", RegexSpec("[A-Z][a-z]*")), ", ", Part("pets", JsonSchemaSpec('{"type":"array"}')), ".")
)


def add(a: int, b: int) -> int:
    return a + b


CALLS = TriggeredSpec(
    (
        Trigger("<call>", sg.json_schema_spec(sg.tool_call(add)), "</call>"),
        Trigger("#", RegexSpec("[0-9]{2}")),
    )
)


def test_the_parts_of_a_sequence_are_read_by_name() -> None:
    state = run('Name: Zoe, ["cat", 2].', grammar=PERSON)
    assert state["x"] == 'Name: Zoe, ["cat", 2].'
    assert state.captures("x") == {"name": "Zoe", "pets": ["cat", 2]}


def test_calls_in_free_text_are_read_in_their_order() -> None:
    state = run('é #12 <call>{"name": "add", "arguments": {"a": 1, "b": 2}}</call> so', grammar=CALLS)
    number, call = state.captures("x")
    assert number == Captured("#", "12")
    assert call.trigger == "<call>"
    assert add(**call.value["arguments"]) == 3
    assert run("nothing", grammar=CALLS).captures("x") == []


def test_pieces_nest() -> None:
    spec = SequenceSpec((Part("head", PERSON), " Calls: ", Part("calls", CALLS)))
    state = run("Name: Al, []. Calls: #12", grammar=spec)
    assert state.captures("x") == {"head": {"name": "Al", "pets": []}, "calls": [Captured("#", "12")]}


def test_pieces_of_samples_and_of_joined_forks_are_lists() -> None:
    assert run("Name: Al, [].", grammar=PERSON, n=2).captures("x") == [{"name": "Al", "pets": []}] * 2

    @sg.function
    def forked(s: sg.ProgramState) -> None:
        s += "?"
        forks = s.fork(2)
        forks += sg.gen("x", grammar=PERSON)
        forks[1]["y"] = 1
        forks.join()

    with ScriptedBackend("Name: Al, [].") as backend:
        state = forked.run(backend=backend)
        assert state.captures("x") == [{"name": "Al", "pets": []}] * 2
        with pytest.raises(ProgramError, match="no pieces"):
            state.captures("y")


def test_pieces_are_read_inside_the_bodies_of_a_batch() -> None:
    @sg.function
    def program(s: sg.ProgramState) -> Any:
        s += "?" + sg.gen("x", grammar=PERSON)
        return s.captures("x")["name"]

    with ScriptedBackend("Name: Al, [].") as backend:
        assert [state.ret_value for state in program.run_batch([{}] * 3, backend=backend)] == ["Al"] * 3


def test_pieces_can_be_awaited() -> None:
    @sg.function
    async def program(s: sg.ProgramState) -> Any:
        s += "?" + sg.gen("x", grammar=PERSON)
        with pytest.raises(ProgramError, match="without awaiting"):
            s.captures("x")
        return await s.acaptures("x")

    with ScriptedBackend("Name: Al, [].") as backend:
        assert asyncio.run(program.arun(backend=backend)).ret_value == {"name": "Al", "pets": []}


def test_a_composed_text_cut_short_has_no_pieces() -> None:
    for grammar, text in ((PERSON, "Name: Al, ["), (CALLS, 'x <call>{"name": "add"')):
        with pytest.raises(ProgramError, match=r"not all of its constraint .*; raise max_tokens"):
            run(text, grammar=grammar).captures("x")


def test_a_lenient_piece_is_checked_when_it_is_read() -> None:
    part = JsonSchemaSpec('{"type":"array","uniqueItems":true}', strict=False)
    with pytest.raises(CheckFailedError, match="uniqueItems"):
        run("[1,1]!", grammar=SequenceSpec((Part("a", part), "!"))).captures("x")


def test_other_variables_have_no_pieces() -> None:
    with pytest.raises(ProgramError, match="'x' has no pieces"):
        run("a", regex="a").captures("x")


def test_backends_get_the_spec_as_it_was_given() -> None:
    specs: list[GrammarSpec] = [CALLS, PERSON, ChoicesSpec(("a",)), JsonSchemaSpec("{}")]

    @sg.function
    def program(s: sg.ProgramState) -> None:
        s += "?"
        for spec in specs:
            s += sg.gen(grammar=spec)

    with ScriptedBackend("a") as backend:
        program.run(backend=backend).sync()
        assert [call.value[1] for call in backend.calls if call.name == "generate"] == specs
