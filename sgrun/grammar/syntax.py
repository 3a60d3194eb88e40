"""The syntax tree of a text language over code points, which every kind of constraint is turned into.

Nodes may be shared, so that a tree is small even where the language it unrolls to is not.
"""

from __future__ import annotations

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


@dataclass(frozen=True, eq=False, slots=True)
class Elements:
    """Items with a separator between them: at first those of `prefix`, then `rest` over and over.

    Between `min_count` and `max_count` items (None: any number); without `rest`, at most those of `prefix`.
    """

    prefix: tuple[Node, ...]
    rest: Node | None
    separator: Node
    min_count: int
    max_count: int | None


@dataclass(frozen=True, eq=False, slots=True)
class Members:
    """Items in this order with a separator between them; only those flagged as required must be there."""

    items: tuple[tuple[Node, bool], ...]
    separator: Node


class Position(Enum):
    """Where an assertion holds; relative to the enclosing Scope."""

    START = auto()
    END = auto()
    END_OR_LAST_NEWLINE = auto()  # at the end, or before a newline that ends the text
    LINE_START = auto()
    LINE_END = auto()


@dataclass(frozen=True, eq=False, slots=True)
class Assertion:
    position: Position


@dataclass(frozen=True, eq=False, slots=True)
class Scope:
    """A text of its own: assertions inside speak of its start and end."""

    node: Node


@dataclass(frozen=True, eq=False, slots=True)
class JsonEscaped:
    """The texts of `node` as they are spelled between the quotes of a JSON string."""

    node: Node


@dataclass(frozen=True, eq=False, slots=True)
class Intersection:
    """The texts that both match."""

    left: Node
    right: Node


Node = (
    Chars | Text | Concat | Alternation | Repeat | Elements | Members | Assertion | Scope | JsonEscaped | Intersection
)
EMPTY = Text("")
