"""Owns typed values: the regex that a generation with a dtype follows, and how its text becomes a value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sgrun.errors import ProgramError

NUMBER_ENDS = (" ", "\n")  # what a model writes after a number; cut off as stop strings


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
        TypedValue("int", r"[+-]?(0|[1-9][0-9]{0,17})[ \n]?", int, NUMBER_ENDS),
        TypedValue("float", r"[+-]?(0|[1-9][0-9]{0,14})(\.[0-9]{1,15})?[ \n]?", float, NUMBER_ENDS),
        TypedValue("bool", r"True|False", _parse_bool),
        TypedValue("str", r'"[^"\\\x00-\x1f]*"', _parse_str),
    )
}
