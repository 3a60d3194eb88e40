"""The text of a regular expression while it is read: a position, and errors that name the column."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from sgrun.errors import InvalidGrammarError, UnsupportedGrammarError


class Flavour(Enum):
    PYTHON = auto()  # the `re` module, and what Rust and ECMAScript spell in ways that `re` refuses
    ECMA = auto()  # ECMA-262 with the u flag, as JSON schema's `pattern` asks for, lenient where that is harmless


@dataclass
class RegexText:
    pattern: str
    flavour: Flavour
    at: int = 0

    @property
    def is_ecma(self) -> bool:
        return self.flavour is Flavour.ECMA

    def peek(self, length: int = 1) -> str:
        """The next characters; fewer at the end."""
        return self.pattern[self.at : self.at + length]

    def take(self, expected: str) -> bool:
        """Whether `expected` comes next; moves past it if so."""
        found = self.pattern.startswith(expected, self.at)
        if found:
            self.at += len(expected)
        return found

    def take_until(self, end: str, what: str) -> str:
        """The text up to `end`, moving past both. Raises InvalidGrammarError if there is no `end`."""
        stop = self.pattern.find(end, self.at)
        if stop < 0:
            raise self.malformed(f"missing {end} after {what}", self.at)
        found = self.pattern[self.at : stop]
        self.at = stop + len(end)
        return found

    def malformed(self, what: str, at: int) -> InvalidGrammarError:
        return InvalidGrammarError(f"the regular expression {self._shown()} is malformed: {what} at column {at + 1}")

    def unsupported(self, what: str, at: int, instead: str) -> UnsupportedGrammarError:
        return UnsupportedGrammarError(
            f"the regular expression {self._shown()} uses {what} at column {at + 1}, which is not supported; {instead}"
        )

    def _shown(self) -> str:
        return repr(self.pattern) if len(self.pattern) <= 80 else f"{self.pattern[:77]!r}..."
