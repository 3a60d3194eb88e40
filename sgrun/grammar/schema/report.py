"""What becomes of each keyword of a schema: which say what is valid, and which are annotations."""

from __future__ import annotations

from collections.abc import Iterator

from sgrun.grammar.formats import is_known_format
from sgrun.grammar.limits import Budget, CompileLimits
from sgrun.grammar.schema.keywords import is_assertion
from sgrun.grammar.schema.places import Document, inner_schemas


def assertions(schema: object) -> list[tuple[str, str]]:
    """(keyword, JSON pointer) of every keyword that says what is valid, in the order of the schema.

    Raises GrammarTooLargeError if the schema is nested too deeply.
    """
    draft = Document(schema, Budget(CompileLimits())).draft
    return list(_assertions(schema, "#", draft))


def _assertions(schema: object, pointer: str, draft: int) -> Iterator[tuple[str, str]]:
    if not isinstance(schema, dict):
        return
    for keyword in schema:
        if keyword == "format" and not is_known_format(str(schema["format"])):
            continue
        if is_assertion(keyword, draft) and ("$ref" not in schema or draft > 7 or keyword == "$ref"):
            yield keyword, f"{pointer}/{keyword}"
    for name, inner in inner_schemas(schema):
        yield from _assertions(inner, f"{pointer}/{name}", draft)
