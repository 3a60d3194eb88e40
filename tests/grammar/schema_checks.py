"""What tests of JSON schemas need: compiling, texts of values, and a validator that knows nothing of this project."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any

import jsonschema
from jsonschema.protocols import Validator

from sgrun.grammar.automaton import Automaton
from sgrun.grammar.limits import Budget, CompileLimits
from sgrun.grammar.sample import Sampler
from sgrun.grammar.schema.values import compile_json_schema
from sgrun.types import JsonSchemaSpec

DIALECTS = {
    4: "http://json-schema.org/draft-04/schema#",
    6: "http://json-schema.org/draft-06/schema#",
    7: "http://json-schema.org/draft-07/schema#",
    2019: "https://json-schema.org/draft/2019-09/schema",
    2020: "https://json-schema.org/draft/2020-12/schema",
}


def compiled(schema: Any, **options: Any) -> Automaton:
    """`options`: those of JsonSchemaSpec, which is not strict here unless they say so."""
    text = schema if isinstance(schema, str) else json.dumps(schema)
    return compile_json_schema(JsonSchemaSpec(text, **{"strict": False, **options}), Budget(CompileLimits()))


def in_draft(schema: dict[str, Any], draft: int) -> dict[str, Any]:
    return {"$schema": DIALECTS[draft], **schema}


def validator(schema: Any) -> Validator:
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    return kind(schema)


def takes(automaton: Automaton, value: Any) -> bool:
    """Whether the value is accepted as `json.dumps` writes it, properties in the order of the value."""
    return automaton.accepts(json.dumps(value).encode())


def takes_in_some_order(automaton: Automaton, value: Any) -> bool:
    return any(takes(automaton, other) for other in orders(value))


def orders(value: Any) -> Iterator[Any]:
    """The value with its properties in every order."""
    if isinstance(value, dict):
        for names in itertools.permutations(value):
            for inner in itertools.product(*(list(orders(value[name])) for name in names)):
                yield dict(zip(names, inner, strict=True))
    elif isinstance(value, list):
        for items in itertools.product(*(list(orders(item)) for item in value)):
            yield list(items)
    else:
        yield value


def check_values(schema: Any, valid: list[Any], invalid: list[Any]) -> None:
    """Both the automaton and the validator think so."""
    automaton, judge = compiled(schema), validator(schema)
    for value in valid:
        assert judge.is_valid(value), value
        assert takes_in_some_order(automaton, value), value
    for value in invalid:
        assert not judge.is_valid(value), value
        assert not takes_in_some_order(automaton, value), value


def check_walks(schema: Any, automaton: Automaton, seed: int, count: int, soft_len: int = 60) -> None:
    """Texts by random walks are valid; those that repeat an unlisted name only where no keyword is listed for that."""
    depends = any(unchecked.keyword.endswith("Properties") for unchecked in automaton.checked_afterwards)
    judge, sampler = validator(schema), Sampler(automaton, seed, soft_len)
    for _ in range(count):
        text = sampler.text().decode()
        repeats: list[str] = []
        value = parsed(text, repeats)
        assert (repeats and depends) or judge.is_valid(value), text


def parsed(text: str, repeats: list[str]) -> Any:
    """The value of a text, numbers exactly; names that come twice in an object are added to `repeats`."""

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        repeats.extend(name for name in set(names) if names.count(name) > 1)
        return dict(pairs)

    return json.loads(text, parse_float=_number, object_pairs_hook=collect)


def _number(text: str) -> int | Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation:  # an exponent of dozens of digits, which only an unbounded number may have
        return 0
    if abs(number.adjusted()) > 1100:  # likewise, and more than the validator can divide
        return 0
    return int(number) if number == number.to_integral_value() else number
