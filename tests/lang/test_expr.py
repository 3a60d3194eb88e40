"""Expressions are checked when they are made."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

import sgrun as sg
from sgrun.errors import InvalidParameterError, ProgramError
from sgrun.lang.expr import Concat, Gen, Select
from sgrun.types import ChoicesSpec, GbnfSpec, GrammarSpec, JsonSchemaSpec, LarkSpec, Part, RegexSpec, SequenceSpec


@pytest.mark.parametrize(
    "arguments",
    [
        {"regex": "a", "json_schema": {}},
        {"regex": "a", "dtype": int},
        {"dtype": int, "choices": ["a"]},
        {"choices": []},
        {"choices": "abc"},
        {"choices": ["a", ""]},
        {"choices": ["a", "a"]},
        {"choices": ["a", "b"], "n": 2},
        {"choices": ["a", "b"], "max_tokens": 5},
        {"choices": ["a", "b"], "temperature": 0.5},
        {"choices_method": sg.greedy_token_selection},
        {"min_tokens": 20, "max_tokens": 10},
        {"max_tokens": 0},
        {"temperature": -1},
        {"top_p": 0},
        {"stop": 5},
        {"stop": [""]},
        {"stop_token_ids": 3},
        {"logit_bias": [1]},
        {"n": 0},
        {"dtype": object()},
        {"dtype": {"type": "null"}},
        {"dtype": int, "json_schema": {}},
        {"lark": "a", "gbnf": "b"},
        {"grammar": RegexSpec("a"), "regex": "a"},
        {"grammar": "a"},
        {"grammar": Part("x", RegexSpec("a"))},
        {"lark": b"start: A"},
        {"strict": False},
        {"strict": False, "regex": "a"},
        {"dtype": "complex"},
        {"logprob_start_len": 0},
        {"return_logprob": False, "top_logprobs_num": 2},
        {"json_schema": 5},
        {"name": 5},
    ],
    ids=str,
)
def test_wrong_or_contradictory_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameterError):
        sg.gen(**arguments)


def test_select_needs_choices() -> None:
    with pytest.raises(InvalidParameterError, match="at least one"):
        sg.select("x")


def test_sampled_select_is_refused_with_advice() -> None:
    with pytest.raises(InvalidParameterError, match="constrained_decoding"):
        sg.select("x", ["a", "b"], temperature=1.0)


def test_one_choice_is_allowed() -> None:
    assert sg.select("x", ["a"]) == Select("x", ("a",), sg.token_length_normalized)


def test_inherited_limits_are_not_guessed() -> None:
    assert isinstance(sg.gen(min_tokens=5000), Gen)


def test_constraints_become_specs() -> None:
    class Person(BaseModel):
        age: int

    assert gen_of(sg.gen(regex="a+")).grammar == RegexSpec("a+")
    assert gen_of(sg.gen(json_schema='{"type": "null"}')).grammar == JsonSchemaSpec(
        '{"type":"null"}', open_objects=False, plain_integers=True
    )
    spec = gen_of(sg.gen(json_schema=Person)).grammar
    assert isinstance(spec, JsonSchemaSpec)
    assert '"age"' in spec.schema


def test_grammar_texts_and_specs_become_the_grammar() -> None:
    assert gen_of(sg.gen(lark="start: A")).grammar == LarkSpec("start: A")
    assert gen_of(sg.gen(gbnf='root ::= "a"')).grammar == GbnfSpec('root ::= "a"')
    specs: list[GrammarSpec] = [SequenceSpec(("a", Part("x", RegexSpec("b")))), JsonSchemaSpec("{}")]
    for spec in specs:
        assert gen_of(sg.gen(grammar=spec)).grammar is spec


def test_strictness_reaches_the_spec_of_a_schema_and_of_a_type() -> None:
    for strict in (True, False):
        for expr in (sg.gen(json_schema={}, strict=strict), sg.gen(dtype=set[int], strict=strict)):
            spec = gen_of(expr).grammar
            assert isinstance(spec, JsonSchemaSpec)
            assert (spec.strict, spec.open_objects) == (strict, False)


def test_constrained_choices_are_a_generation_with_its_temperature() -> None:
    expr = gen_of(sg.gen("x", choices=["a", "b"], temperature=0.7, choices_method=sg.constrained_decoding))
    assert expr.grammar == ChoicesSpec(("a", "b"))
    assert expr.sampling["temperature"] == 0.7
    assert gen_of(sg.select("x", ["a"], choices_method=sg.constrained_decoding)).sampling["temperature"] == 0.0


@pytest.mark.parametrize(("dtype", "name"), [(int, "int"), ("float", "float"), (bool, "bool"), ("str", "str")])
def test_dtype_by_type_or_name(dtype: type | str, name: str) -> None:
    typed = gen_of(sg.gen(dtype=dtype)).typed
    assert typed is not None
    assert typed.name == name


@pytest.mark.parametrize("use", [str, lambda expr: f"Answer: {expr}", "{}".format])
def test_expression_as_text_is_an_error(use: Any) -> None:
    with pytest.raises(ProgramError, match="f-string"):
        use(sg.gen("x"))


def test_repr_shows_the_expression() -> None:
    assert "'x'" in repr(sg.gen("x"))


def test_expressions_and_strings_combine_in_order() -> None:
    expr = "a" + sg.gen("x") + "b" + (sg.gen("y") + "c")
    assert isinstance(expr, Concat)
    assert [part if isinstance(part, str) else gen_of(part).name for part in expr.parts] == ["a", "x", "b", "y", "c"]


@pytest.mark.parametrize("other", [5, None, ["a"]])
def test_other_values_do_not_combine(other: Any) -> None:
    with pytest.raises(ProgramError, match=r"use str\(\)"):
        sg.gen("x") + other


def gen_of(expr: object) -> Gen:
    assert isinstance(expr, Gen)
    return expr
