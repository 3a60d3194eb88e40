"""Unrolls a syntax tree into an NFA over code points."""

from __future__ import annotations

from sgrun.grammar.dfa import intersection
from sgrun.grammar.limits import Budget
from sgrun.grammar.nfa import Nfa
from sgrun.grammar.rewrite import json_escaped, without_assertions
from sgrun.grammar.syntax import (
    Alternation,
    Assertion,
    Chars,
    Concat,
    Elements,
    Intersection,
    JsonEscaped,
    Members,
    Node,
    Repeat,
    Scope,
    Text,
)


def build_nfa(node: Node, budget: Budget) -> Nfa:
    """An NFA for the texts of `node`; raises GrammarTooLargeError as soon as it has too many states."""
    nfa = Nfa(budget)
    _add(nfa, node, Nfa.START, Nfa.ACCEPT)
    return nfa


def _add(nfa: Nfa, node: Node, source: int, target: int) -> None:
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
                _add(nfa, part, source, after)
                source = after
            if parts:
                _add(nfa, parts[-1], source, target)
            else:
                nfa.add_jump(source, target)
        case Alternation(parts):
            for part in parts:
                _add(nfa, part, source, target)
        case Repeat():
            _add_repeat(nfa, node, source, target)
        case Elements():
            _add_elements(nfa, node, source, target)
        case Members():
            _add_members(nfa, node, source, target)
        case Assertion(position):
            nfa.guarded.setdefault(source, []).append((position, target))
        case Scope(inner):
            nfa.embed(without_assertions(build_nfa(inner, nfa.budget)), source, target)
        case JsonEscaped(inner):
            nfa.embed(json_escaped(build_nfa(inner, nfa.budget)), source, target)
        case Intersection(left, right):
            nfa.embed(intersection(build_nfa(left, nfa.budget), build_nfa(right, nfa.budget)), source, target)


def _add_repeat(nfa: Nfa, node: Repeat, source: int, target: int) -> None:
    if node.max_count is not None and node.max_count < node.min_count:
        return
    for _ in range(node.min_count):
        after = nfa.add_state()
        _add(nfa, node.node, source, after)
        source = after
    if node.max_count is None:
        loop, back = nfa.add_state(), nfa.add_state()
        nfa.add_jump(source, loop)
        _add(nfa, node.node, loop, back)
        nfa.add_jump(back, loop)
        nfa.add_jump(loop, target)
        return
    for _ in range(node.max_count - node.min_count):
        nfa.add_jump(source, target)
        after = nfa.add_state()
        _add(nfa, node.node, source, after)
        source = after
    nfa.add_jump(source, target)


def _add_elements(nfa: Nfa, node: Elements, source: int, target: int) -> None:
    if node.min_count == 0:
        nfa.add_jump(source, target)
    before = source
    num_items = 0
    while node.max_count is None or num_items < node.max_count:
        is_rest = num_items >= len(node.prefix)
        item = node.rest if is_rest else node.prefix[num_items]
        if item is None:
            return
        first, after = nfa.add_state(), nfa.add_state()
        nfa.add_jump(before, first)
        _add(nfa, item, first, after)
        num_items += 1
        if num_items >= node.min_count:
            nfa.add_jump(after, target)
        before = nfa.add_state()
        _add(nfa, node.separator, after, before)
        if is_rest and node.max_count is None and num_items >= node.min_count:
            nfa.add_jump(before, first)
            return


def _add_members(nfa: Nfa, node: Members, source: int, target: int) -> None:
    """Two rails run along the items: on `bare` nothing is written yet, on `led` the next item needs a separator."""
    bare, led = nfa.add_state(), nfa.add_state()
    nfa.add_jump(source, bare)
    for item, is_required in node.items:
        first, next_bare, next_led = nfa.add_state(), nfa.add_state(), nfa.add_state()
        nfa.add_jump(bare, first)
        _add(nfa, node.separator, led, first)
        _add(nfa, item, first, next_led)
        if not is_required:
            nfa.add_jump(bare, next_bare)
            nfa.add_jump(led, next_led)
        bare, led = next_bare, next_led
    nfa.add_jump(bare, target)
    nfa.add_jump(led, target)
