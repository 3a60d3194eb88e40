"""Owns the procedures for property names and listed texts: those that tell given strings from each other.

The general string procedure does that as well, for any assertions about strings; these are the shapes that most names
and enumerations have, laid out directly: the trie of the strings, for names over the plain string.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from sgrun.grammar.limits import Budget, CompileLimits
from sgrun.grammar.procedure import Columns, Move, Overlay, Procedure, Return
from sgrun.grammar.scalars import string_procedure

_QUOTE, _BACKSLASH = ord('"'), ord("\\")
_ALWAYS_ESCAPED = (_QUOTE, _BACKSLASH)
_ESCAPED = (ord('"'), ord("\\"), ord("/"))  # characters whose short escape is a backslash and themselves
_PRINTABLE_HEX = tuple(b"234567")

_Cells = list[tuple[Columns, Move | Return | None]]
_Row = tuple[int | None, _Cells]


@lru_cache(maxsize=8)
def plain_string(label: int) -> Procedure:
    """Any string, with this label."""
    return string_procedure((), lambda _: label, Budget(CompileLimits()))


def can_lay_out(names: Sequence[str]) -> bool:
    """Whether the direct layouts are exact: where a name has other than printable ASCII, too many escapes spell it."""
    return all(0x20 <= ord(char) < 0x7F for name in names for char in name)


def names_procedure(names: Sequence[str]) -> Procedure | Overlay:
    """Label i + 1 for names[i], 0 for every other string, from the opening to the closing quote.

    Escapes that would spell printable ASCII are refused where they could continue one of the names; they are needless,
    and `json.dumps` does not write them.
    """
    plain = plain_string(0)
    if not names:
        return plain
    between = _follow(plain, 0, b'"')
    escape = _follow(plain, between, b"\\")
    first, second, third, first_node = 1, 2, 3, 4
    # \u, \u0 and \u00 on a name: as in a plain string, but for the third digit of printable characters.
    rows: list[_Row] = [
        (None, [((_QUOTE,), Move(first_node))]),
        (_follow(plain, escape, b"u"), [((ord("0"),), Move(second))]),
        (_follow(plain, escape, b"u0"), [((ord("0"),), Move(third))]),
        (_follow(plain, escape, b"u00"), [(_PRINTABLE_HEX, None)]),
    ]
    nodes, behind = _laid_out(names, first_node, needs_escape=True)
    for cells, number in nodes:
        if number is not None:
            cells.append(((_QUOTE,), Return(number + 1, consumes=True)))
        rows.append((between, cells))
    rows += [(escape, [((ord("u"),), Move(first)), *cells]) for cells in behind]
    return Overlay(plain, rows)


def listed_procedure(texts: Sequence[str], label: int) -> Overlay:
    """This label for each of the texts; other strings are refused. Spelled as `names_procedure` has it."""
    nodes, behind = _laid_out(texts, 1, needs_escape=False)
    for cells, number in nodes:
        if number is not None:
            cells.append(((_QUOTE,), Return(label, consumes=True)))
    rows: list[_Cells] = [[((_QUOTE,), Move(1))], *(cells for cells, _ in nodes), *behind]
    return Overlay(None, [(None, cells) for cells in rows])


def _laid_out(
    texts: Sequence[str], first_node: int, *, needs_escape: bool
) -> tuple[list[tuple[_Cells, int | None]], list[_Cells]]:
    """The trie of the texts from the state `first_node` on: for each node its cells, and the text that ends there; and
    the states behind a backslash, which come after the nodes. `needs_escape`: there is one also where no short escape
    goes on."""
    children: list[dict[int, int]] = [{}]
    ended: dict[int, int] = {}
    for number, text in enumerate(texts):
        node = 0
        for byte in text.encode():
            if byte not in children[node]:
                children[node][byte] = len(children)
                children.append({})
            node = children[node][byte]
        ended[node] = number
    behind: dict[tuple[tuple[int, int], ...], int] = {}
    nodes: list[tuple[_Cells, int | None]] = []
    for node, following in enumerate(children):
        cells: _Cells = [
            ((byte,), Move(first_node + child)) for byte, child in following.items() if byte not in _ALWAYS_ESCAPED
        ]
        short = tuple((byte, first_node + following[byte]) for byte in _ESCAPED if byte in following)
        if short or (following and needs_escape):
            after = behind.setdefault(short, first_node + len(children) + len(behind))
            cells.append(((_BACKSLASH,), Move(after)))
        nodes.append((cells, ended.get(node)))
    return nodes, [[((byte,), Move(state)) for byte, state in short] for short in behind]


def _follow(procedure: Procedure, state: int, data: bytes) -> int:
    for byte in data:
        edge = procedure.edges[procedure.table[state, byte]]
        assert isinstance(edge, Move)
        state = edge.target
    return state
