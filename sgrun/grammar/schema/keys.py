"""Owns the procedure that tells a schema's property names from each other and from all other names.

The general string procedure does that as well, for any assertions about names; this is the shape that most objects
have, laid out directly: the trie of the names over the plain string.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from sgrun.grammar.limits import Budget, CompileLimits
from sgrun.grammar.procedure import Columns, Move, Overlay, Procedure, Return
from sgrun.grammar.scalars import string_procedure

_QUOTE, _BACKSLASH = ord('"'), ord("\\")
_ESCAPED = (ord('"'), ord("\\"), ord("/"))  # characters whose short escape is a backslash and themselves
_PRINTABLE_HEX = tuple(b"234567")

_Row = tuple[int | None, list[tuple[Columns, Move | Return | None]]]


@lru_cache(maxsize=8)
def plain_string(label: int) -> Procedure:
    """Any string, with this label."""
    return string_procedure((), lambda _: label, Budget(CompileLimits()))


def can_lay_out(names: Sequence[str]) -> bool:
    """Whether `names_procedure` is exact: where a name has other than printable ASCII, too many escapes spell it."""
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
    children: list[dict[int, int]] = [{}]
    ended: dict[int, int] = {}
    for number, name in enumerate(names):
        node = 0
        for byte in name.encode():
            if byte not in children[node]:
                children[node][byte] = len(children)
                children.append({})
            node = children[node][byte]
        ended[node] = number
    first, second, third, first_node = 1, 2, 3, 4
    # \u, \u0 and \u00 on a name: as in a plain string, but for the third digit of printable characters.
    rows: list[_Row] = [
        (None, [((_QUOTE,), Move(first_node))]),
        (_follow(plain, escape, b"u"), [((ord("0"),), Move(second))]),
        (_follow(plain, escape, b"u0"), [((ord("0"),), Move(third))]),
        (_follow(plain, escape, b"u00"), [(_PRINTABLE_HEX, None)]),
    ]
    behind: dict[tuple[tuple[int, int], ...], int] = {}  # children that have a short escape -> state after the "\"
    for node, following in enumerate(children):
        cells: list[tuple[Columns, Move | Return | None]] = []
        if node in ended:
            cells.append(((_QUOTE,), Return(ended[node] + 1, consumes=True)))
        for byte, child in following.items():
            if byte not in (_QUOTE, _BACKSLASH):  # these two are always escaped
                cells.append(((byte,), Move(first_node + child)))
        if following:  # else whatever goes on from here is another name
            short = tuple((byte, first_node + following[byte]) for byte in _ESCAPED if byte in following)
            after = behind.setdefault(short, first_node + len(children) + len(behind))
            cells.append(((_BACKSLASH,), Move(after)))
        rows.append((between, cells))
    for short in behind:
        rows.append((escape, [((ord("u"),), Move(first)), *(((byte,), Move(state)) for byte, state in short)]))
    return Overlay(plain, rows)


def _follow(procedure: Procedure, state: int, data: bytes) -> int:
    for byte in data:
        edge = procedure.edges[procedure.table[state, byte]]
        assert isinstance(edge, Move)
        state = edge.target
    return state
