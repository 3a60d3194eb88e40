"""Owns the procedure that tells a schema's property names from each other and from all other names.

The general string procedure does that as well, for any assertions about names; this is the shape that most objects
have, laid out directly: the trie of the names on top of the plain string.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from sgrun.grammar.limits import Budget, CompileLimits
from sgrun.grammar.procedure import Edge, Move, Procedure, Return
from sgrun.grammar.scalars import string_procedure

_QUOTE, _BACKSLASH = ord('"'), ord("\\")
_SHORT = {ord('"'): ord('"'), ord("\\"): ord("\\"), ord("/"): ord("/")}  # character -> byte behind the backslash
_PRINTABLE_HEX = [ord(digit) for digit in "234567"]


@lru_cache(maxsize=8)
def plain_string(label: int) -> Procedure:
    """Any string, with this label."""
    return string_procedure((), lambda _: label, Budget(CompileLimits()))


def can_lay_out(names: Sequence[str]) -> bool:
    """Whether `names_procedure` is exact: where a name has other than printable ASCII, too many escapes spell it."""
    return all(0x20 <= ord(char) < 0x7F for name in names for char in name)


def names_procedure(names: Sequence[str]) -> Procedure:
    """Label i for names[i], len(names) for every other string, from the opening to the closing quote.

    Escapes that would spell printable ASCII are refused where they could continue one of the names; they are needless,
    and `json.dumps` does not write them.
    """
    other = plain_string(len(names))
    between = _follow(other, 0, b'"')
    escape = _follow(other, between, b"\\")
    layout = _Layout(other)
    # \u, \u0 and \u00 on a name: as in a plain string, but for the third digit of printable characters
    third = layout.copy(_follow(other, escape, b"u00"))
    third[_PRINTABLE_HEX] = 0
    third_state = layout.add(third)
    second = layout.copy(_follow(other, escape, b"u0"))
    second[ord("0")] = layout.edge(Move(third_state))
    second_state = layout.add(second)
    first = layout.copy(_follow(other, escape, b"u"))
    first[ord("0")] = layout.edge(Move(second_state))
    first_state = layout.add(first)
    behind: dict[tuple[tuple[int, int], ...], int] = {}  # children that have a short escape -> state after the "\"

    children: list[dict[int, int]] = [{}]
    ended: list[int | None] = [None]
    for number, name in enumerate(names):
        node = 0
        for byte in name.encode():
            if byte not in children[node]:
                children[node][byte] = len(children)
                children.append({})
                ended.append(None)
            node = children[node][byte]
        ended[node] = number
    first_node = layout.num_states
    rows = [layout.rows[layout.add(layout.copy(between))] for _ in children]
    for node, row in enumerate(rows):
        if (label := ended[node]) is not None:
            row[_QUOTE] = layout.edge(Return(label, consumes=True))
        if not children[node]:
            continue  # whatever goes on from here is another name
        for byte, child in children[node].items():
            if byte not in (_QUOTE, _BACKSLASH):  # these two are always escaped
                row[byte] = layout.edge(Move(first_node + child))
        short = tuple((_SHORT[char], first_node + children[node][char]) for char in _SHORT if char in children[node])
        if short not in behind:
            escaped = layout.copy(escape)
            escaped[ord("u")] = layout.edge(Move(first_state))
            for byte, state in short:
                escaped[byte] = layout.edge(Move(state))
            behind[short] = layout.add(escaped)
        row[_BACKSLASH] = layout.edge(Move(behind[short]))
    layout.rows[0][_QUOTE] = layout.edge(Move(first_node))
    return Procedure(np.stack(layout.rows), layout.edges)


_Cells = npt.NDArray[np.int32]  # [257]


class _Layout:
    """Rows and edges that start as those of the plain string."""

    def __init__(self, plain: Procedure) -> None:
        self.rows: list[_Cells] = [row.copy() for row in plain.table]
        self.edges: list[Edge] = list(plain.edges)
        self._indices = {edge: index for index, edge in enumerate(self.edges) if index}

    @property
    def num_states(self) -> int:
        return len(self.rows)

    def copy(self, state: int) -> _Cells:
        return self.rows[state].copy()

    def add(self, row: _Cells) -> int:
        self.rows.append(row)
        return len(self.rows) - 1

    def edge(self, edge: Edge) -> int:
        index = self._indices.get(edge)
        if index is None:
            index = self._indices[edge] = len(self.edges)
            self.edges.append(edge)
        return index


def _follow(procedure: Procedure, state: int, data: bytes) -> int:
    for byte in data:
        edge = procedure.edges[procedure.table[state, byte]]
        assert isinstance(edge, Move)
        state = edge.target
    return state
