from __future__ import annotations

import json

import pytest

from sgrun.errors import GrammarTooLargeError
from sgrun.grammar.automaton import MAX_DEPTH, Automaton
from sgrun.grammar.compiler import compile_grammar
from sgrun.grammar.depth import least_depth, may_nest_too_deep
from sgrun.types import JsonSchemaSpec, LarkSpec, RegexSpec


def _schema(schema: object) -> Automaton:
    return compile_grammar(JsonSchemaSpec(json.dumps(schema)))


def _nested(num_arrays: int, innermost: object) -> object:
    schema = innermost
    for _ in range(num_arrays):
        schema = {"type": "array", "items": schema, "minItems": 1}
    return schema


def test_shallowest_text_counts() -> None:
    assert least_depth(compile_grammar(RegexSpec("a{500}|b"))) == 0
    assert least_depth(_schema(_nested(7, {"type": "null"}))) == 7
    assert least_depth(_schema({"anyOf": [_nested(7, True), {"type": "object", "required": ["a"]}]})) == 1
    node = {"type": "object", "properties": {"next": {"$ref": "#"}, "end": {"const": 1}}, "additionalProperties": False}
    assert least_depth(_schema({**node, "oneOf": [{"required": ["next"]}, {"required": ["end"]}]})) == 2
    assert least_depth(compile_grammar(LarkSpec('start: "(" start ")" | "[" start start "]" | "<x>"'))) == 1


def test_what_nests_deeper_than_the_frames_go_is_refused() -> None:
    deepest = _schema(_nested(MAX_DEPTH - 1, {"type": "string"}))
    assert deepest.accepts(b"[" * (MAX_DEPTH - 1) + b'""' + b"]" * (MAX_DEPTH - 1))
    for num_arrays in (MAX_DEPTH, MAX_DEPTH + 20):
        with pytest.raises(GrammarTooLargeError, match=rf"nests \d+ levels deep; allowed: at most {MAX_DEPTH}"):
            _schema(_nested(num_arrays, {"type": "string", "maxLength": 99}))


def test_what_may_nest_deeper_is_not_refused() -> None:
    automaton = _schema({"anyOf": [_nested(MAX_DEPTH + 20, {"type": "string", "maxLength": 99}), {"type": "null"}]})
    assert automaton.accepts(b"null")


def test_only_calls_that_could_nest_too_deep_are_looked_into() -> None:
    chain = {number: {number + 1} for number in range(MAX_DEPTH)}
    assert may_nest_too_deep({**chain, MAX_DEPTH: set()}, [1] * (MAX_DEPTH + 1))
    del chain[0]
    assert not may_nest_too_deep({0: {2}, **chain, MAX_DEPTH: set()}, [1] * (MAX_DEPTH + 1))
    # A procedure that calls itself may be within itself once for each set of labels it is asked for.
    assert not may_nest_too_deep({0: {1}, 1: set()}, [1, 100])
    assert may_nest_too_deep({0: {1}, 1: {1}}, [1, 100])
    assert may_nest_too_deep({0: {1, 2}, 1: {2}, 2: {1}}, [1, 40, 40])
    assert not may_nest_too_deep({0: {1, 2}, 1: {2}, 2: {1}}, [1, 30, 30])
