"""Decides which repeats of a syntax tree are counted by the automaton's counter, and which are unrolled."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sgrun.grammar.syntax import (
    Alternation,
    Assertion,
    Chars,
    Complement,
    Concat,
    Intersection,
    Lookahead,
    Node,
    Repeat,
    Scope,
    Text,
)

MAX_UNROLLED = 64  # states; a repeat that needs no more, or few copies of its body, is not worth a counter
_STATES_PER_COPY = 8
_NO_REPEATS: frozenset[Repeat] = frozenset()


@dataclass(frozen=True, slots=True)
class _Plan:
    """About how many states a node needs with everything unrolled, and with `counted` counted."""

    unrolled: int
    size: int
    counted: frozenset[Repeat] = _NO_REPEATS


def repeats_to_count(
    node: Node, refused: Collection[Repeat] = (), max_unrolled: int = MAX_UNROLLED
) -> frozenset[Repeat]:
    """The repeats to count so that the whole gets small, none inside another, and none of `refused`."""
    return _Planner(refused, max_unrolled).plan(node).counted


class _Planner:
    def __init__(self, refused: Collection[Repeat], max_unrolled: int) -> None:
        self._refused = refused
        self._max_unrolled = max_unrolled
        self._max_copies = max_unrolled // _STATES_PER_COPY
        self._known: dict[Node, _Plan] = {}  # a node may be shared

    def plan(self, node: Node) -> _Plan:
        known = self._known.get(node)
        if known is None:
            known = self._known[node] = self._plan(node)
        return known

    def _plan(self, node: Node) -> _Plan:
        match node:
            case Chars(code_points):
                # About how many states it takes over bytes.
                size = 1 + sum(1 for _, high in code_points if high > 0x7F)
                return _Plan(size, size)
            case Assertion():
                return _Plan(1, 1)
            case Text(text):
                return _Plan(len(text), len(text))
            case Concat(parts) | Alternation(parts):
                plans = [self.plan(part) for part in parts]
                counted = _NO_REPEATS.union(*(plan.counted for plan in plans))
                return _Plan(1 + sum(plan.unrolled for plan in plans), 1 + sum(plan.size for plan in plans), counted)
            case Repeat():
                return self._repeat(node)
            case Scope(inner):
                return self.plan(inner)
            case Lookahead(inner, _) | Complement(inner):
                return _Plan(self.plan(inner).unrolled, self.plan(inner).unrolled)
            case Intersection(left, right):
                one, two = sorted((self.plan(left), self.plan(right)), key=lambda plan: plan.unrolled - plan.size)
                return _Plan(one.unrolled * two.unrolled, one.unrolled * two.size, two.counted)

    def _repeat(self, node: Repeat) -> _Plan:
        body = self.plan(node.node)
        copies = max(1, node.min_count if node.max_count is None else node.max_count)
        unrolled = _Plan(copies * body.unrolled, copies * body.size, body.counted)
        is_large = unrolled.size > max(self._max_unrolled, body.unrolled) and copies > self._max_copies
        if is_large and node not in self._refused and node.min_count <= copies and _is_emptiness_certain(node.node):
            return _Plan(unrolled.unrolled, body.unrolled, frozenset((node,)))
        return unrolled


def _is_emptiness_certain(node: Node) -> bool:
    """Whether it does not depend on assertions if the node matches the empty text."""
    return may_be_empty(node, if_assertions_hold=True) == may_be_empty(node, if_assertions_hold=False)


def may_be_empty(node: Node, *, if_assertions_hold: bool) -> bool:
    """Whether the empty text matches, with assertions and lookahead that all hold or all fail."""

    def ask(inner: Node) -> bool:
        return may_be_empty(inner, if_assertions_hold=if_assertions_hold)

    match node:
        case Chars():
            return False
        case Text(text):
            return not text
        case Assertion() | Lookahead():
            return if_assertions_hold
        case Concat(parts):
            return all(ask(part) for part in parts)
        case Alternation(parts):
            return any(ask(part) for part in parts)
        case Repeat(inner, min_count, _):
            return min_count == 0 or ask(inner)
        case Intersection(left, right):
            return ask(left) and ask(right)
        case Complement(inner):
            return not may_be_empty(inner, if_assertions_hold=not if_assertions_hold)
        case Scope(inner):
            return ask(inner)


def holds_any(node: Node, repeats: Collection[Repeat]) -> bool:
    """Whether one of these repeats is in the node."""
    if not repeats:
        return False
    match node:
        case Repeat(inner, _, _):
            return node in repeats or holds_any(inner, repeats)
        case Concat(parts) | Alternation(parts):
            return any(holds_any(part, repeats) for part in parts)
        case Scope(inner):
            return holds_any(inner, repeats)
        case Intersection(left, right):
            return holds_any(left, repeats) or holds_any(right, repeats)
    return False
