"""Unrolls a syntax tree into an NFA over code points."""

from __future__ import annotations

from collections.abc import Mapping

from sgrun.grammar import charset
from sgrun.grammar.limits import Budget
from sgrun.grammar.nfa import Counting, Counts, Nfa
from sgrun.grammar.repeats import holds_any, may_be_empty
from sgrun.grammar.rewrite import restricted, without_assertions
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

_NONE: Mapping[Repeat, int] = {}
_ANYTHING = Repeat(Chars(charset.SCALARS), 0, None)


def build_nfa(node: Node, budget: Budget, counted: Mapping[Repeat, int] = _NONE) -> Nfa:
    """An NFA for the texts of `node`, in which the repeats `counted` count and all others are unrolled.

    `counted` gives how many of the last iterations are unrolled nevertheless. A counted repeat must not be inside
    another one, a lookahead or a complement, nor be in both sides of an intersection. Raises GrammarTooLargeError as
    soon as there are too many states.
    """
    nfa = Nfa(budget)
    _add(nfa, node, Nfa.START, Nfa.ACCEPT, counted)
    return nfa


def _add(nfa: Nfa, node: Node, source: int, target: int, counted: Mapping[Repeat, int]) -> None:
    """Adds paths from `source` to `target` that spell the texts of `node`.

    No part ever adds a move into its source or out of its target; loops run over states of their own.
    """
    match node:
        case Chars(code_points):
            nfa.add_move(source, nfa.label(code_points), target)
        case Text(text):
            nfa.add_text(source, text, target)
        case Concat(parts):
            for part in parts[:-1]:
                after = nfa.add_state()
                _add(nfa, part, source, after, counted)
                source = after
            if parts:
                _add(nfa, parts[-1], source, target, counted)
            else:
                nfa.add_jump(source, target)
        case Alternation(parts):
            for part in parts:
                _add(nfa, part, source, target, counted)
        case Repeat():
            if node in counted:
                _add_counted(nfa, node, counted[node], source, target)
            else:
                _add_repeat(nfa, node, source, target, counted)
        case Assertion(position):
            nfa.guarded.setdefault(source, []).append((position, target))
        case Lookahead(inner, is_negated):
            nfa.guarded.setdefault(source, []).append((len(nfa.lookaheads), target))
            nfa.lookaheads.append((build_nfa(Concat((inner, _ANYTHING)), nfa.budget), is_negated))
        case Scope(inner):
            nfa.embed(without_assertions(build_nfa(inner, nfa.budget, counted)), source, target)
        case Intersection(left, right):
            if holds_any(right, counted):
                left, right = right, left
            condition = build_nfa(right, nfa.budget)
            nfa.embed(restricted(build_nfa(left, nfa.budget, counted), condition, is_negated=False), source, target)
        case Complement(inner):
            condition = build_nfa(inner, nfa.budget)
            nfa.embed(restricted(build_nfa(_ANYTHING, nfa.budget), condition, is_negated=True), source, target)


def _add_counted(nfa: Nfa, node: Repeat, tail: int, source: int, target: int) -> None:
    """Counts all iterations but the last `tail`, which are unrolled: X{2,9} with a tail of 3 is X{0,6}X{3}|X{2}."""
    # Only iterations that read something are counted.
    min_count = 0 if may_be_empty(node.node, if_assertions_hold=True) else node.min_count
    max_count = None if node.max_count is None else node.max_count - tail
    counts = Counts(max(0, min_count - tail), max_count, node)
    loop, first, after = nfa.add_state(), nfa.add_state(), nfa.add_state()
    nfa.counting.setdefault(source, []).append((Counting.ENTER, counts, loop))
    nfa.counting[loop] = [(Counting.ITERATE, counts, first), (Counting.EXIT, counts, after)]
    _add(nfa, node.node, first, loop, _NONE)
    _add_repeat(nfa, Repeat(node.node, tail, tail), after, target, _NONE)
    if min_count < tail:
        _add_repeat(nfa, Repeat(node.node, min_count, tail - 1), source, target, _NONE)


def _add_repeat(nfa: Nfa, node: Repeat, source: int, target: int, counted: Mapping[Repeat, int]) -> None:
    if node.max_count is not None and node.max_count < node.min_count:
        return
    for _ in range(node.min_count):
        after = nfa.add_state()
        _add(nfa, node.node, source, after, counted)
        source = after
    if node.max_count is None:
        loop, back = nfa.add_state(), nfa.add_state()
        nfa.add_jump(source, loop)
        _add(nfa, node.node, loop, back, counted)
        nfa.add_jump(back, loop)
        nfa.add_jump(loop, target)
        return
    for _ in range(node.max_count - node.min_count):
        nfa.add_jump(source, target)
        after = nfa.add_state()
        _add(nfa, node.node, source, after, counted)
        source = after
    nfa.add_jump(source, target)
