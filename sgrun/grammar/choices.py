"""Reads a list of choices into the syntax tree."""

from __future__ import annotations

from sgrun.errors import InvalidGrammarError
from sgrun.grammar.limits import Budget
from sgrun.grammar.syntax import Alternation, Node, Text


def parse_choices(choices: tuple[str, ...], budget: Budget) -> Node:
    """One of these texts; one may be the beginning of another. Raises InvalidGrammarError."""
    if not choices:
        raise InvalidGrammarError("choices is empty; give at least one non-empty string")
    budget.spend("max_source_len", sum(map(len, choices)))
    seen: set[str] = set()
    for index, choice in enumerate(choices):
        if not choice:
            raise InvalidGrammarError(f"choice {index} is the empty string; allowed: non-empty strings")
        if choice in seen:
            raise InvalidGrammarError(f"choice {index} {choice!r} is there twice; give each string once")
        seen.add(choice)
    return Alternation(tuple(Text(choice) for choice in choices))
