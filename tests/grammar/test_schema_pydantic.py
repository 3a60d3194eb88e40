from __future__ import annotations

import datetime
import json
from enum import Enum
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from schema_checks import check_walks, compiled

from sgrun.grammar.sample import Sampler


class Color(Enum):
    RED = "red"
    ODD = 'a"\\é\n'


Small = Annotated[int, Field(ge=-999, le=999)]  # Pydantic takes no int beyond 4300 digits, schemas do


class Point(BaseModel):
    x: Small
    y: float | None = None


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: Annotated[int, Field(ge=1, le=9)]


class Dog(BaseModel):
    kind: Literal["dog"]
    weight: Annotated[float, Field(gt=0.5, lt=100)]


class Tree(BaseModel):
    model_config = ConfigDict(extra="forbid")
    label: Annotated[str, Field(max_length=3)]
    children: list[Tree] = []


class Everything(BaseModel):
    """A description that constrains nothing."""

    model_config = ConfigDict(extra="forbid")
    name: Annotated[str, Field(min_length=1, max_length=5)]
    tag: Literal["a", "b"]
    color: Color
    ok: bool = False
    points: list[Point] = []
    origin: Point = Field(default=Point(x=0), description="beside a $ref")
    pair: tuple[Small, str]
    code: Annotated[str, Field(pattern=r"^[A-Z]{2}\d+$", max_length=6)]
    few: Annotated[list[bool], Field(min_length=1, max_length=3)]
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    counts: dict[str, Small] = {}
    even: Annotated[int, Field(multiple_of=2)] = 0
    day: datetime.date = datetime.date(2020, 1, 1)
    key: UUID | None = None
    nothing: None = None


def test_generated_texts_fit_the_pydantic_model() -> None:
    sampler = Sampler(compiled(Everything.model_json_schema()), seed=4, soft_len=300)
    seen = set()
    for _ in range(120):
        seen.update(Everything.model_validate_json(sampler.text()).model_fields_set)
    assert seen == set(Everything.model_fields)


def test_recursive_models_nest() -> None:
    automaton = compiled(Tree.model_json_schema())
    tree = Tree(label="a", children=[Tree(label="b", children=[Tree(label="c")]), Tree(label="d")])
    assert automaton.accepts(tree.model_dump_json().encode())
    assert not automaton.accepts(tree.model_dump_json().replace('"c"', '"cccc"').encode())
    check_walks(Tree.model_json_schema(), automaton, seed=3, count=20)


def test_what_a_model_dumps_is_taken() -> None:
    everything = Everything(
        name="é", tag="a", color=Color.ODD, points=[Point(x=1, y=0.25)], pair=(1, "x"), code="AB12", few=[True],
        pet=Dog(kind="dog", weight=2.5), counts={"a": 1, "b": 2}, key=UUID(int=5),
    )  # fmt: skip
    automaton = compiled(Everything.model_json_schema())
    dumped = everything.model_dump_json()
    assert automaton.accepts(dumped.encode()) and automaton.accepts(json.dumps(json.loads(dumped)).encode())
    for wrong in ('"weight":200.5', '"weight":0.5', '"lives":3'):
        assert not automaton.accepts(dumped.replace('"weight":2.5', wrong).encode())
