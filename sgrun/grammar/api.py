"""The grammar engine without an engine: constraints compiled while the caller waits."""

from __future__ import annotations

import atexit
import dataclasses
import difflib
import functools
import json
import os
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from sgrun.errors import InvalidGrammarError, InvalidParameterError
from sgrun.grammar.automaton import Automaton
from sgrun.grammar.compiler import GrammarCompiler
from sgrun.types import ChoicesSpec, GrammarSpec, JsonSchemaSpec, LarkSpec, RegexSpec


@runtime_checkable
class HasJsonSchema(Protocol):
    """A Pydantic model class."""

    def model_json_schema(self) -> dict[str, Any]: ...


def compile(
    *,
    regex: str | None = None,
    json_schema: str | bool | dict[str, Any] | type[HasJsonSchema] | None = None,
    lark: str | None = None,
    choices: Sequence[str] | None = None,
    **options: Any,
) -> Automaton:
    """The automaton of one constraint: exactly one of `regex`, `json_schema`, `lark` and `choices`.

    `json_schema`: JSON text, a dict, a boolean or a Pydantic model class. Its options: `whitespace` ("compact", "space"
    or "free"; "space"), `strict` (False: what is not enforced is listed in `checked_afterwards`; True: refused) and
    `open_objects` (True: properties that a schema neither lists nor speaks of are allowed). Those of `lark`: `start`,
    the rule to begin with ("start").
    Raises InvalidGrammarError, UnsupportedGrammarError, GrammarTooLargeError (over 5 s or 2 GiB, among others), and
    InvalidParameterError for wrong arguments.
    """
    given = {"regex": regex, "json_schema": json_schema, "lark": lark, "choices": choices}
    kinds = [name for name, value in given.items() if value is not None]
    if len(kinds) != 1:
        raise InvalidParameterError(f"given are {kinds or 'none'}; allowed: exactly one of {list(given)}")
    return _compiler().submit(_spec(kinds[0], given[kinds[0]], options)).result()


def _spec(kind: str, value: Any, options: dict[str, Any]) -> GrammarSpec:
    match kind:
        case "json_schema":
            _check(options, JsonSchemaSpec, kind)
            return JsonSchemaSpec(_schema_text(value), **{"strict": False, **options})
        case "lark":
            _check(options, LarkSpec, kind)
            return LarkSpec(_text(value, kind), **options)
        case "choices":
            _check(options, ChoicesSpec, kind)
            if isinstance(value, str):
                raise InvalidParameterError(f"choices is the string {value!r}; allowed: a list of strings")
            return ChoicesSpec(tuple(_text(choice, kind) for choice in value))
        case _:
            _check(options, RegexSpec, kind)
            return RegexSpec(_text(value, kind))


def _check(options: dict[str, Any], spec: type[GrammarSpec], kind: str) -> None:
    allowed = [field.name for field in dataclasses.fields(spec)][1:]
    for name in options:
        if name not in allowed:
            nearest = difflib.get_close_matches(name, allowed, n=1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise InvalidParameterError(f"{name!r} is no option of {kind}; allowed: {allowed or 'none'}{hint}")


def _text(value: object, kind: str) -> str:
    if not isinstance(value, str):
        raise InvalidParameterError(f"{kind} holds {value!r}; allowed: str")
    return value


def _schema_text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, type) and isinstance(value, HasJsonSchema):
        value = value.model_json_schema()
    if not isinstance(value, dict | bool):
        raise InvalidParameterError(
            f"json_schema is {value!r}; allowed: JSON text, a dict, a boolean or a Pydantic model class"
        )
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidGrammarError(f"the JSON schema holds what JSON cannot express: {error}") from error


@functools.cache
def _compiler() -> GrammarCompiler:
    """One for all callers of this process, started by the first: what is compiled is kept, and starting costs 0.2 s."""
    compiler = GrammarCompiler()
    atexit.register(compiler.close)
    return compiler


os.register_at_fork(after_in_child=_compiler.cache_clear)  # its threads stay behind in the parent
