"""JSON strings: what a schema can assert of one, and the simpler conditions that this comes down to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from sgrun.grammar.formats import FORMAT_MAX_LEN, is_known_format
from sgrun.grammar.limits import Budget, CompileLimits
from sgrun.grammar.regex import parse_search_pattern
from sgrun.grammar.syntax import Assertion, Chars, Concat, Node, Position, Repeat, Scope, Text
from sgrun.grammar.texts import Factor, KnownFormat, Matches, OneText, TextPart, format_factor, matching

_MAX_UNROLLED = 16


@dataclass(frozen=True, slots=True)
class Pattern:
    """`pattern` is found somewhere in the text."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Format:
    """One of the formats of the standard (formats.py); always true under another name."""

    name: str


@dataclass(frozen=True, slots=True)
class LengthAtLeast:
    """In code points."""

    count: int


@dataclass(frozen=True, slots=True)
class LengthAtMost:
    count: int


@dataclass(frozen=True, slots=True)
class TextEquals:
    text: str


StringAtom = Pattern | Format | LengthAtLeast | LengthAtMost | TextEquals


StringPart = TextPart | LengthAtLeast | LengthAtMost


def string_parts(atom: StringAtom, budget: Budget) -> list[StringPart]:
    """Simpler conditions that hold together exactly where `atom` holds; lengths are apart from texts.

    Raises InvalidGrammarError, UnsupportedGrammarError (a pattern) or GrammarTooLargeError.
    """
    match atom:
        case LengthAtLeast() | LengthAtMost():
            return [atom]
        case TextEquals(text):
            return [OneText(text)]
        case Pattern(pattern):
            return _without_long_repeat(parse_search_pattern(pattern, budget))
        case Format(name):
            longest = [LengthAtMost(FORMAT_MAX_LEN[name])] if name in FORMAT_MAX_LEN else []
            return [KnownFormat(name), *longest] if is_known_format(name) else []


def string_holds(atom: StringAtom, text: str) -> bool:
    return all(_part_holds(part, text) for part in _known_parts(atom))


_Checkable = LengthAtLeast | LengthAtMost | OneText | KnownFormat | Factor


@lru_cache(maxsize=256)
def _known_parts(atom: StringAtom) -> tuple[_Checkable, ...]:
    budget = Budget(CompileLimits())
    return tuple(matching(part, budget) if isinstance(part, Matches) else part for part in string_parts(atom, budget))


def _part_holds(part: _Checkable, text: str) -> bool:
    match part:
        case LengthAtLeast(count):
            return len(text) >= count
        case LengthAtMost(count):
            return len(text) <= count
        case OneText(other):
            return text == other
        case KnownFormat(name):
            return format_factor(name).takes(text)
        case Factor():
            return part.takes(text)


def _without_long_repeat(node: Node) -> list[StringPart]:
    """Of `^..{1,500}..$`, where the length alone says how often is repeated, the bounds become bounds of the length."""
    inside = _between_anchors(node)
    varying = [i for i, part in enumerate(inside) if _width(part) is None]
    if len(varying) != 1:
        return [Matches(node)]
    repeat = inside[varying[0]]
    if not isinstance(repeat, Repeat) or _width(repeat.node) != 1:
        return [Matches(node)]
    low, high = repeat.min_count, repeat.max_count
    if max(low, high or 0) <= _MAX_UNROLLED:
        return [Matches(node)]
    width = sum(_width(part) or 0 for part in inside)
    inside[varying[0]] = Repeat(repeat.node, 0, None)
    unbounded = Matches(Scope(Concat((Assertion(Position.START), *inside, Assertion(Position.END)))))
    return [unbounded, LengthAtLeast(width + low), *([] if high is None else [LengthAtMost(width + high)])]


def _between_anchors(node: Node) -> list[Node]:
    """The parts of `^...$`; nothing if it is something else."""
    if not isinstance(node, Scope) or not isinstance(node.node, Concat) or len(node.node.parts) < 2:
        return []
    first, *inside, last = node.node.parts
    is_start = isinstance(first, Assertion) and first.position is Position.START
    is_end = isinstance(last, Assertion) and last.position is Position.END
    return inside if is_start and is_end else []


def _width(node: Node) -> int | None:
    """How many code points each of the texts has; None where it may vary."""
    match node:
        case Chars():
            return 1
        case Text(text):
            return len(text)
        case Repeat(Chars(), low, high) if low == high:
            return low
    return None
