"""The form every grammar text is read into: rules over terminals, references, sequences, choices and repeats.

A terminal is a regular language, given as a syntax tree over code points; rules may refer to each other and to
themselves. Knows no notation and no automaton.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from sgrun.errors import InvalidGrammarError
from sgrun.grammar.syntax import Node

_Name = TypeVar("_Name", str, int)


@dataclass(frozen=True, slots=True)
class Terminal:
    """A text of `node`. A greedy one ends only where it cannot go on with the next character."""

    name: str
    node: Node
    is_greedy: bool = False


@dataclass(frozen=True, slots=True)
class Ref:
    rule: str


@dataclass(frozen=True, slots=True)
class External:
    """A text for which the procedure `key` of another front end returns label 0."""

    key: Hashable
    name: str


@dataclass(frozen=True, slots=True)
class Sequence:
    parts: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    parts: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Repetition:
    """`item` at least `min_count` and at most `max_count` times (None: any number)."""

    item: Expr
    min_count: int
    max_count: int | None


@dataclass(frozen=True, slots=True)
class Chain:
    """One `item` or more, with a `link` between two of them."""

    item: Expr
    link: Expr


Expr = Terminal | Ref | External | Sequence | Choice | Repetition | Chain
EMPTY = Sequence(())


@dataclass(frozen=True, slots=True)
class Rule:
    name: str
    body: Expr
    line: int


@dataclass(frozen=True, slots=True)
class Grammar:
    """`skip`: terminals of which any number may stand before, between and after all others."""

    rules: dict[str, Rule]
    start: str
    skip: tuple[Terminal, ...] = ()


def sequence(parts: Iterable[Expr]) -> Expr:
    """The parts one after the other, without nested sequences; `item (link item)*` becomes a chain."""
    flat: list[Expr] = []
    for part in parts:
        flat.extend(part.parts if isinstance(part, Sequence) else (part,))
    joined: list[Expr] = []
    for part in flat:
        chain = _chain(joined, part)
        if chain is None:
            joined.append(part)
        else:
            num_taken, link = chain
            item = sequence(joined[len(joined) - num_taken :])
            del joined[len(joined) - num_taken :]
            joined.append(Chain(item, link))
    return joined[0] if len(joined) == 1 else Sequence(tuple(joined))


def _chain(before: list[Expr], part: Expr) -> tuple[int, Expr] | None:
    """Where `part` repeats a link followed by the last parts before it: how many parts, and the link."""
    if not (isinstance(part, Repetition) and part.min_count == 0 and part.max_count is None):
        return None
    repeated = part.item.parts if isinstance(part.item, Sequence) else (part.item,)
    num_taken = 0
    while num_taken < min(len(before), len(repeated)) and before[-1 - num_taken] == repeated[-1 - num_taken]:
        num_taken += 1
    if not num_taken:
        return None
    return num_taken, sequence(repeated[: len(repeated) - num_taken])


def choice(parts: Iterable[Expr]) -> Expr:
    """One of the parts, without nested choices and without repetitions."""
    flat: dict[Expr, None] = {}
    for part in parts:
        flat.update(dict.fromkeys(part.parts if isinstance(part, Choice) else (part,)))
    return next(iter(flat)) if len(flat) == 1 else Choice(tuple(flat))


def star(item: Expr) -> Expr:
    return Repetition(item, 0, None)


def children(expr: Expr) -> tuple[Expr, ...]:
    match expr:
        case Sequence(parts) | Choice(parts):
            return parts
        case Repetition(item, _, _):
            return (item,)
        case Chain(item, link):
            return (item, link)
    return ()


def walk(expr: Expr) -> Iterator[Expr]:
    """The expression and everything in it."""
    waiting = [expr]
    while waiting:
        found = waiting.pop()
        yield found
        waiting.extend(children(found))


def references(expr: Expr) -> list[str]:
    """The rules that an expression names, as often as it does."""
    return [found.rule for found in walk(expr) if isinstance(found, Ref)]


def reachable(grammar: Grammar) -> Grammar:
    """Without the rules that the start does not need. Raises InvalidGrammarError for a name without a rule."""
    if grammar.start not in grammar.rules:
        raise InvalidGrammarError(
            f"the grammar has no rule {grammar.start!r} to start with; it has {_listed(grammar.rules)}"
        )
    found: dict[str, Rule] = {}
    waiting = [grammar.start]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        rule = found[name] = grammar.rules[name]
        for reference in references(rule.body):
            if reference not in grammar.rules:
                raise InvalidGrammarError(
                    f"rule {name!r} (line {rule.line}) uses {reference!r}, which is not defined; "
                    f"the grammar has {_listed(grammar.rules)}"
                )
            waiting.append(reference)
    return Grammar(found, grammar.start, grammar.skip)


def components(edges: dict[_Name, set[_Name]]) -> list[list[_Name]]:
    """The strongly connected components that hold a cycle (Tarjan 1972, without recursion)."""
    order: dict[_Name, int] = {}
    low: dict[_Name, int] = {}
    stack: list[_Name] = []
    on_stack: set[_Name] = set()
    found: list[list[_Name]] = []
    for root in edges:
        if root in order:
            continue
        order[root] = low[root] = len(order)
        stack.append(root)
        on_stack.add(root)
        path = [(root, iter(sorted(edges[root])))]
        while path:
            name, targets = path[-1]
            target = next(targets, None)
            if target is None:
                path.pop()
                if path:
                    low[path[-1][0]] = min(low[path[-1][0]], low[name])
                if low[name] == order[name]:
                    at = stack.index(name)
                    members = stack[at:]
                    del stack[at:]
                    on_stack.difference_update(members)
                    if len(members) > 1 or name in edges[name]:
                        found.append(members)
            elif target not in order:
                order[target] = low[target] = len(order)
                stack.append(target)
                on_stack.add(target)
                path.append((target, iter(sorted(edges[target]))))
            elif target in on_stack:
                low[name] = min(low[name], order[target])
    return found


def _listed(rules: dict[str, Rule]) -> str:
    names = sorted(rules)
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
