"""Reads a JSON schema into the syntax tree."""

from __future__ import annotations

from sgrun.errors import UnsupportedGrammarError
from sgrun.grammar.limits import CompileLimits
from sgrun.grammar.syntax import Node


def parse_json_schema(schema: str, limits: CompileLimits) -> Node:
    limits.check("max_source_len", len(schema))
    raise UnsupportedGrammarError("JSON schemas are not supported yet")
