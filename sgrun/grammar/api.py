"""The grammar engine without an engine: constraints compiled while the caller waits."""

from __future__ import annotations

import atexit
import dataclasses
import difflib
import functools
import os
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, cast

from sgrun.errors import InvalidParameterError
from sgrun.grammar.automaton import Automaton
from sgrun.grammar.compiler import GrammarCompiler
from sgrun.grammar.outlines_index import OutlinesIndex, outlines_spec
from sgrun.python_types import json_schema as schema_of
from sgrun.python_types import schema_text
from sgrun.types import ChoicesSpec, GbnfSpec, GrammarSpec, JsonSchemaSpec, LarkSpec, RegexSpec, check_spec

_OPTIONS = {
    "json_schema": [field.name for field in dataclasses.fields(JsonSchemaSpec)][1:],
    "lark": ["start"],
    "outlines_index": ["vocabulary"],
}


def compile(
    *,
    regex: str | None = None,
    json_schema: object = None,
    lark: str | None = None,
    gbnf: str | None = None,
    choices: Sequence[str] | None = None,
    outlines_index: OutlinesIndex | None = None,
    spec: GrammarSpec | None = None,
    **options: Any,
) -> Automaton:
    """The automaton of one constraint: exactly one of the named arguments.

    `json_schema`: JSON text, a dict, a boolean, a Python type that Pydantic reads, or a function (its parameters). Its
    options: `whitespace` ("compact", "space" or "free"; "space"), `strict` (False: what is not enforced is listed in
    `checked_afterwards`; True: refused), `open_objects` (True: properties that a schema neither lists nor speaks of are
    allowed), `formats` (True: `format` constrains; False: it is an annotation), `property_order` ("schema",
    "sorted" or "any") and `plain_integers` (True: `1.0` and `1e2` are not generated for integers; False). `lark`: the
    option `start` is the rule to begin with ("start"). `outlines_index`: an `outlines_core.Index`; the option
    `vocabulary`, a Vocabulary, is needed with it. `spec`: any spec of `sgrun.types`, which has its own options.
    Raises InvalidGrammarError, UnsupportedGrammarError, GrammarTooLargeError (over 5 s or 2 GiB, among others), and
    InvalidParameterError for wrong arguments.
    """
    given = {
        "regex": regex,
        "json_schema": json_schema,
        "lark": lark,
        "gbnf": gbnf,
        "choices": choices,
        "outlines_index": outlines_index,
        "spec": spec,
    }
    kinds = [name for name, value in given.items() if value is not None]
    if len(kinds) != 1:
        raise InvalidParameterError(f"given are {kinds or 'none'}; allowed: exactly one of {list(given)}")
    return submit(_spec(kinds[0], given[kinds[0]], options)).result()


def submit(spec: GrammarSpec) -> Future[Automaton]:
    """A future of the spec's automaton, for those who must not block; its errors are those of `compile`."""
    return _compiler().submit(spec)


def _spec(kind: str, value: Any, options: dict[str, Any]) -> GrammarSpec:
    _check(options, kind)
    match kind:
        case "json_schema":
            text = value if isinstance(value, str) else schema_text(schema_of(value))
            return JsonSchemaSpec(text, **{"strict": False, **options})
        case "lark":
            return LarkSpec(value, **options)
        case "gbnf":
            return GbnfSpec(value)
        case "choices":
            if isinstance(value, str):
                raise InvalidParameterError(f"choices is the string {value!r}; allowed: a list of strings")
            return ChoicesSpec(tuple(value))
        case "outlines_index":
            if "vocabulary" not in options:
                raise InvalidParameterError("outlines_index came without vocabulary; give that of its tokenizer")
            return outlines_spec(value, options["vocabulary"])
        case "spec":
            check_spec(kind, value)
            return cast(GrammarSpec, value)
        case _:
            return RegexSpec(value)


def _check(options: dict[str, Any], kind: str) -> None:
    allowed = _OPTIONS.get(kind, [])
    for name in options:
        if name not in allowed:
            nearest = difflib.get_close_matches(name, allowed, n=1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise InvalidParameterError(f"{name!r} is no option of {kind}; allowed: {allowed or 'none'}{hint}")


@functools.cache
def _compiler() -> GrammarCompiler:
    """One for all callers of this process, started by the first: what is compiled is kept, and starting costs 0.2 s."""
    compiler = GrammarCompiler()
    atexit.register(compiler.close)
    return compiler


os.register_at_fork(after_in_child=_compiler.cache_clear)  # its threads stay behind in the parent
