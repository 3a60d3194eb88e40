"""Owns typed values: the constraint that a generation with a dtype follows, and how its text becomes a value."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from sgrun.errors import InvalidParameterError, ProgramError
from sgrun.lang.schema import json_schema_spec
from sgrun.python_types import value_reader
from sgrun.types import GrammarSpec, RegexSpec

# What a model writes after a number, cut off as stop strings. The token that begins so may go on with anything: were
# " eggs" not allowed after "12", a digit would have to be.
FLOAT_ENDS = (" ", "\n", ",", ";", ":", "!", "?", ")", "]", "}", "%", '"', "'", "*", "/")
INT_ENDS = (".", *FLOAT_ENDS)
_AFTER_FLOAT = f"([{re.escape(''.join(FLOAT_ENDS))}][\\s\\S]*)?"
_AFTER_INT = f"([{re.escape(''.join(INT_ENDS))}][\\s\\S]*)?"


@dataclass(frozen=True, slots=True)
class TypedValue:
    """`parse` raises ValueError for a text that was cut short."""

    name: str
    grammar: GrammarSpec
    parse: Callable[[str], object]
    ends: tuple[str, ...] = ()

    def value(self, text: str) -> object:
        """The value of generated `text`. Raises ProgramError if the generation ended too early to have one."""
        try:
            return self.parse(text)
        except ValueError as error:
            raise ProgramError(
                f"the generated text {text!r} is not a complete {self.name}; raise max_tokens or remove stop strings"
            ) from error


def typed_value(dtype: object, *, strict: bool) -> TypedValue:
    """How a dtype is written and read: int, float, bool, str (or their names) bare, any other type as JSON text.

    Raises InvalidParameterError.
    """
    for kind, typed in _BARE.items():
        if dtype is kind or dtype == kind.__name__:
            return typed
    if isinstance(dtype, str | dict | bool):
        raise InvalidParameterError(f"dtype is {dtype!r}; allowed: 'int', 'float', 'bool', 'str', or a Python type")
    name = getattr(dtype, "__name__", repr(dtype))
    return TypedValue(name, json_schema_spec(dtype, strict=strict), value_reader(dtype))


def _parse_bool(text: str) -> bool:
    if text not in ("True", "False"):
        raise ValueError(text)
    return text == "True"


def _parse_str(text: str) -> str:
    return text.removeprefix('"').removesuffix('"')


_BARE = {
    int: TypedValue("int", RegexSpec(r"[+-]?(0|[1-9][0-9]{0,17})" + _AFTER_INT), int, INT_ENDS),
    float: TypedValue(
        "float", RegexSpec(r"[+-]?(0|[1-9][0-9]{0,14})(\.[0-9]{1,15})?" + _AFTER_FLOAT), float, FLOAT_ENDS
    ),
    bool: TypedValue("bool", RegexSpec("True|False"), _parse_bool),
    str: TypedValue("str", RegexSpec(r'"[^"\\\x00-\x1f]*"'), _parse_str),
}
