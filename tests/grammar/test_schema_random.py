"""Random schemas, small and nested, against the validator: on given values, and on texts by random walks."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from schema_checks import check_walks, compiled, takes_in_some_order, validator

from sgrun.errors import GrammarTooLargeError, InvalidGrammarError
from sgrun.grammar.automaton import Automaton

NAMES = st.sampled_from(["a", "b", "ab", "c"])
VALUES: list[Any] = [
    None, True, False, 0, 1, 2, -1, 1.5, 10, "", "a", "ab", "bb", [], [1], [1, 2], ["a"], [1, "a", None], [[1]], [1, 1],
    [{"a": 1}], {}, {"a": 1}, {"b": 1}, {"a": 1, "b": "a"}, {"c": 1}, {"a": "x", "c": 2}, {"ab": 1}, {"a": {"a": 1}},
    {"z": 1}, {"a": 1, "b": 2, "c": 3}, {"b": [1]},
]  # fmt: skip
SMALL = st.integers(0, 3)
TYPES = ["object", "array", "string", "integer", "number", ["object", "array"], ["null", "boolean", "string"]]
LEAVES = st.sampled_from(
    [True, False, {}, {"type": "integer"}, {"type": "string"}, {"minimum": 1}, {"type": ["null", "array"]},
     {"maxLength": 1}, {"pattern": "^a"}, {"multipleOf": 2}, {"type": "object"}, {"$ref": "#/$defs/x"}, {"$ref": "#"}]
) | st.builds(lambda value: {"const": value}, st.sampled_from(VALUES))  # fmt: skip


def _larger(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    some = st.lists(inner, min_size=1, max_size=3)
    keywords = {
        "type": st.sampled_from(TYPES),
        "enum": st.lists(st.sampled_from(VALUES), min_size=1, max_size=4),
        "allOf": some,
        "anyOf": some,
        "oneOf": some,
        "not": inner,
        "properties": st.dictionaries(NAMES, inner, min_size=1, max_size=3),
        "patternProperties": st.dictionaries(st.sampled_from(["^a", "b", "c$", "[^b]"]), inner, min_size=1, max_size=2),
        "additionalProperties": inner,
        "propertyNames": inner,
        "unevaluatedProperties": inner,
        "required": st.lists(NAMES, min_size=1, max_size=2, unique=True),
        "minProperties": SMALL,
        "maxProperties": SMALL,
        "dependentRequired": st.dictionaries(NAMES, st.lists(NAMES, max_size=2, unique=True), min_size=1, max_size=1),
        "dependentSchemas": st.dictionaries(NAMES, inner, min_size=1, max_size=1),
        "items": inner,
        "prefixItems": some,
        "unevaluatedItems": inner,
        "minItems": SMALL,
        "maxItems": SMALL,
    }
    groups = [st.fixed_dictionaries({name: value}) for name, value in keywords.items()]
    groups.append(st.fixed_dictionaries({"if": inner, "then": inner}, optional={"else": inner}))
    groups.append(st.fixed_dictionaries({"contains": inner}, optional={"minContains": SMALL, "maxContains": SMALL}))
    return st.lists(st.one_of(groups), min_size=1, max_size=3).map(
        lambda parts: {k: v for p in parts for k, v in p.items()}
    )


def _rooted(schema: Any, definition: Any) -> Any:
    return {"$defs": {"x": definition}, **schema} if isinstance(schema, dict) else schema


SCHEMAS = st.builds(_rooted, st.recursive(LEAVES, _larger, max_leaves=8), LEAVES | _larger(LEAVES))


@contextlib.contextmanager
def judged() -> Iterator[None]:
    """The validator follows a reference that leads only to itself for ever, even where another keyword decides."""
    try:
        yield
    except RecursionError:
        reject()


def _compiled(schema: Any) -> Automaton | None:
    """None if there is nothing to compare: references that lead only to themselves, more conditions than are followed,
    and schemas of no value."""
    try:
        return compiled(schema)
    except GrammarTooLargeError:
        return None
    except InvalidGrammarError as error:
        if "only to itself" not in str(error):
            assert "matches nothing" in str(error)
            with judged():
                is_any_valid = any(validator(schema).is_valid(value) for value in VALUES)
            assert not is_any_valid
        return None


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SCHEMAS)
def test_a_value_is_taken_iff_it_is_valid(schema: Any) -> None:
    automaton = _compiled(schema)
    if automaton is not None:
        judge = validator(schema)
        for value in VALUES:
            with judged():
                is_valid = judge.is_valid(value)
            assert takes_in_some_order(automaton, value) == is_valid, json.dumps(value)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SCHEMAS, st.integers(0, 2**32))
def test_walks_end_in_valid_texts(schema: Any, seed: int) -> None:
    automaton = _compiled(schema)
    if automaton is not None:
        with judged():
            check_walks(schema, automaton, seed, count=4, soft_len=30)
