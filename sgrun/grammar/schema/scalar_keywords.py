"""Reads the keywords about numbers and strings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sgrun.errors import GrammarTooLargeError, InvalidGrammarError, UnsupportedGrammarError
from sgrun.grammar.automaton import Unchecked
from sgrun.grammar.numbers import AtLeast, AtMost, MultipleOf, num_residues
from sgrun.grammar.scalars import atom_problem
from sgrun.grammar.schema import arguments
from sgrun.grammar.schema.arguments import Schema
from sgrun.grammar.schema.formula import TRUE
from sgrun.grammar.schema.places import Place, shown
from sgrun.grammar.strings import Format, LengthAtLeast, LengthAtMost, Pattern, StringAtom

if TYPE_CHECKING:
    from sgrun.grammar.schema.reader import Reader

# RFC 4648, section 4, with the bits that pad the last group 0, as encoders have to write them (section 3.5).
_BASE64 = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$"
_IDENTITIES = ("7bit", "8bit", "binary")


def minimum(reader: Reader, schema: Schema, place: Place) -> int:
    is_exclusive = reader.draft == 4 and schema.get("exclusiveMinimum") is True
    return reader.formulas.atom(AtLeast(arguments.number(schema, "minimum", place), is_exclusive))


def maximum(reader: Reader, schema: Schema, place: Place) -> int:
    is_exclusive = reader.draft == 4 and schema.get("exclusiveMaximum") is True
    return reader.formulas.atom(AtMost(arguments.number(schema, "maximum", place), is_exclusive))


def exclusive_minimum(reader: Reader, schema: Schema, place: Place) -> int:
    if isinstance(schema["exclusiveMinimum"], bool):  # draft 4: read with minimum
        return _old_exclusive(reader, schema, place, "exclusiveMinimum", "minimum")
    return reader.formulas.atom(AtLeast(arguments.number(schema, "exclusiveMinimum", place), True))


def exclusive_maximum(reader: Reader, schema: Schema, place: Place) -> int:
    if isinstance(schema["exclusiveMaximum"], bool):
        return _old_exclusive(reader, schema, place, "exclusiveMaximum", "maximum")
    return reader.formulas.atom(AtMost(arguments.number(schema, "exclusiveMaximum", place), True))


def _old_exclusive(reader: Reader, schema: Schema, place: Place, keyword: str, bound: str) -> int:
    if reader.draft == 4 or not schema[keyword]:
        return TRUE
    if bound not in schema:
        return TRUE
    kind = AtLeast if bound == "minimum" else AtMost
    return reader.formulas.atom(kind(arguments.number(schema, bound, place), True))


def multiple_of(reader: Reader, schema: Schema, place: Place) -> int:
    value = arguments.number(schema, "multipleOf", place)
    if value <= 0:
        raise InvalidGrammarError(f"#{place.at('multipleOf').pointer} is {value}; allowed: a number above 0")
    if num_residues(value) > reader.budget.limits.max_residues:
        reader.checked_afterwards.append(Unchecked("multipleOf", str(place.at("multipleOf"))))
        return TRUE
    return reader.formulas.atom(MultipleOf(value))


def min_length(reader: Reader, schema: Schema, place: Place) -> int:
    return reader.atoms(arguments.at_least(LengthAtLeast, arguments.count(schema, "minLength", place)))


def max_length(reader: Reader, schema: Schema, place: Place) -> int:
    return reader.formulas.atom(LengthAtMost(arguments.count(schema, "maxLength", place)))


def pattern(reader: Reader, schema: Schema, place: Place) -> int:
    searched = arguments.expect(schema["pattern"], str, "a string", place.at("pattern"))
    return checked(reader, Pattern(searched), place.at("pattern"))


def format_(reader: Reader, schema: Schema, place: Place) -> int:
    name = arguments.expect(schema["format"], str, "a string", place.at("format"))
    return checked(reader, Format(name), place.at("format")) if reader.formats else TRUE


def content_encoding(reader: Reader, schema: Schema, place: Place) -> int:
    """Of draft 7, where the names are those of RFC 2045, section 6.1."""
    name = arguments.expect(schema["contentEncoding"], str, "a string", place.at("contentEncoding")).lower()
    if reader.formats and name == "base64":
        return reader.formulas.atom(Pattern(_BASE64))
    if reader.formats and name not in _IDENTITIES:
        raise UnsupportedGrammarError(
            f"{place.at('contentEncoding')}: the encoding {shown(name)} is not enforced; allowed: base64, "
            f"{', '.join(_IDENTITIES)}, or any with the option formats=False"
        )
    return TRUE


def content_media_type(reader: Reader, schema: Schema, place: Place) -> int:
    """Of draft 7. A JSON text within a string is not enforced; other types say nothing that could be checked."""
    name = arguments.expect(schema["contentMediaType"], str, "a string", place.at("contentMediaType"))
    if reader.formats and name == "application/json":
        reader.checked_afterwards.append(Unchecked("contentMediaType", str(place.at("contentMediaType"))))
    return TRUE


def checked(reader: Reader, atom: StringAtom, place: Place) -> int:
    """The formula of an atom that some procedure can be built for; raises what stands in the way with the pointer."""
    try:
        atom_problem(atom)
    except (InvalidGrammarError, UnsupportedGrammarError, GrammarTooLargeError) as error:
        raise type(error)(f"#{place.pointer}: {error}") from error
    return reader.formulas.atom(atom)
