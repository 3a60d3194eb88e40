"""The syntax tree of a text language over code points, which every kind of constraint is turned into.

Nodes may be shared, so that a tree is small even where the language it unrolls to is not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from sgrun.grammar.charset import CodePoints


@dataclass(frozen=True, eq=False, slots=True)
class Chars:
    """One code point out of a set. The empty set matches nothing."""

    code_points: CodePoints


@dataclass(frozen=True, eq=False, slots=True)
class Text:
    """Exactly this text."""

    text: str


@dataclass(frozen=True, eq=False, slots=True)
class Concat:
    parts: tuple[Node, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Alternation:
    parts: tuple[Node, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Repeat:
    """`node` at least `min_count` and at most `max_count` times (None: any number)."""

    node: Node
    min_count: int
    max_count: int | None


class Position(Enum):
    """Where an assertion holds; relative to the enclosing Scope."""

    START = auto()
    END = auto()
    END_OR_LAST_NEWLINE = auto()  # at the end, or before a newline that ends the text
    LINE_START = auto()
    LINE_END = auto()
    WORD_BORDER = auto()  # of words as `\w` sees them
    NO_WORD_BORDER = auto()
    ASCII_WORD_BORDER = auto()
    NO_ASCII_WORD_BORDER = auto()


@dataclass(frozen=True, eq=False, slots=True)
class Assertion:
    position: Position


@dataclass(frozen=True, eq=False, slots=True)
class Lookahead:
    """Reads nothing; holds where the rest of the Scope's text begins (or does not begin) with a text of `node`."""

    node: Node
    is_negated: bool


@dataclass(frozen=True, eq=False, slots=True)
class Scope:
    """A text of its own: assertions and lookahead inside speak of its start and end."""

    node: Node


@dataclass(frozen=True, eq=False, slots=True)
class Intersection:
    """The texts that both match."""

    left: Node
    right: Node


@dataclass(frozen=True, eq=False, slots=True)
class Complement:
    """Every text that does not match."""

    node: Node


Node = Chars | Text | Concat | Alternation | Repeat | Assertion | Lookahead | Scope | Intersection | Complement
EMPTY = Text("")
MAX_COUNT = 10**9  # what a repeat is joined up to: counters are int32


def concat(parts: Sequence[Node]) -> Node:
    return parts[0] if len(parts) == 1 else Concat(tuple(parts))


def alternation(parts: Sequence[Node]) -> Node:
    return parts[0] if len(parts) == 1 else Alternation(tuple(parts))


def repeat(node: Node, min_count: int, max_count: int | None) -> Node:
    """`Repeat`; a repeat of a repeat becomes one where that counts the same: (a{0,50}){0,50} is a{0,2500}."""
    if not isinstance(node, Repeat):
        return Repeat(node, min_count, max_count)
    low, high = node.min_count, node.max_count
    # The counts min_count * [low, high], (min_count + 1) * [low, high] ... have no gaps if the first two have none.
    first_most = math.inf if high is None and min_count else min_count * (high or 0)
    if min_count != max_count and (min_count + 1) * low > first_most + 1:
        return Repeat(node, min_count, max_count)
    if max_count == 0 or high == 0:
        return Repeat(node.node, min_count * low, 0)
    most = None if max_count is None or high is None else max_count * high
    if max(min_count * low, most or 0) > MAX_COUNT:
        return Repeat(node, min_count, max_count)
    return Repeat(node.node, min_count * low, most)
