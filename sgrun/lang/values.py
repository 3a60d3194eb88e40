"""Owns typed values: the regex that a generation with a dtype follows, and how its text becomes a value."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from sgrun.errors import ProgramError

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
    pattern: str
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


def _parse_bool(text: str) -> bool:
    if text not in ("True", "False"):
        raise ValueError(text)
    return text == "True"


def _parse_str(text: str) -> str:
    return text.removeprefix('"').removesuffix('"')


TYPED_VALUES = {
    typed.name: typed
    for typed in (
        TypedValue("int", r"[+-]?(0|[1-9][0-9]{0,17})" + _AFTER_INT, int, INT_ENDS),
        TypedValue("float", r"[+-]?(0|[1-9][0-9]{0,14})(\.[0-9]{1,15})?" + _AFTER_FLOAT, float, FLOAT_ENDS),
        TypedValue("bool", r"True|False", _parse_bool),
        TypedValue("str", r'"[^"\\\x00-\x1f]*"', _parse_str),
    )
}
