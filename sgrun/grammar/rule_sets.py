"""What the rules of a grammar begin with, are followed by and may be extended with, as sets of bytes.

The classical FIRST and FOLLOW sets (Aho, Lam, Sethi, Ullman, "Compilers", 4.4.2), with bytes for symbols; a set is an
integer with bit b for byte b, and bit 256 for the end of input.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sgrun.errors import UnsupportedGrammarError
from sgrun.grammar.build import build_nfa
from sgrun.grammar.cfg import Chain, Choice, Expr, External, Grammar, Ref, Repetition, Sequence, Terminal
from sgrun.grammar.dfa import atoms_of, determinize, minimize
from sgrun.grammar.limits import Budget
from sgrun.grammar.procedure import END
from sgrun.grammar.syntax import Node, Text
from sgrun.grammar.utf8 import expand

ByteSet = int
AT_END: ByteSet = 1 << END
ANYTHING: ByteSet = (1 << (END + 1)) - 1
_WORK_PER_PAIR = 4  # looking at two terminals side by side costs about as much as so many set elements elsewhere


@dataclass(frozen=True, eq=False, slots=True)
class ByteDfa:
    """A regular language byte by byte: state 0 is dead, state 1 the start."""

    table: npt.NDArray[np.int32]  # [num_states, 256]
    accepting: npt.NDArray[np.bool_]  # [num_states]
    num_outer: int  # states from here on are inside a code point

    @property
    def is_nullable(self) -> bool:
        return len(self.table) > 1 and bool(self.accepting[1])

    def live_bytes(self, state: int) -> ByteSet:
        return byte_set(np.flatnonzero(self.table[state]).tolist())


def byte_set(byte_values: list[int]) -> ByteSet:
    return sum(1 << byte for byte in byte_values)


class Terminals:
    """The byte automata of a grammar's terminals, each built once; `first_of` answers for external procedures."""

    def __init__(self, budget: Budget, first_of: Callable[[Hashable], tuple[ByteSet, bool]]) -> None:
        self._budget = budget
        self._first_of = first_of
        self._known: dict[Node, ByteDfa] = {}
        self._rivals: dict[tuple[Terminal, frozenset[Terminal]], frozenset[Terminal]] = {}
        self._greedy: dict[frozenset[Terminal], frozenset[Terminal]] = {}
        self._pairs: dict[tuple[Terminal, Terminal], bool] = {}
        self._steps: dict[ByteDfa, list[list[tuple[int, ByteSet]]]] = {}

    def dfa(self, node: Node) -> ByteDfa:
        known = self._known.get(node)
        if known is None:
            known = self._known[node] = _text(node.text) if isinstance(node, Text) else _regular(node, self._budget)
        return known

    def rivals(self, terminal: Terminal, others: frozenset[Terminal]) -> frozenset[Terminal]:
        """Those of `others` as which a text of `terminal` is better read: a greedy one goes on behind it, or a literal
        one has the same text while `terminal` is greedy. Quick for a set that was asked about before."""
        known = self._rivals.get((terminal, others))
        if known is None:
            greedy = self._greedy.get(others)
            if greedy is None:
                greedy = self._greedy[others] = frozenset(other for other in others if other.is_greedy)
            asked = others if terminal.is_greedy else greedy
            known = frozenset(other for other in asked if other != terminal and self._is_rival(terminal, other))
            self._rivals[terminal, others] = known
        return known

    def _is_rival(self, terminal: Terminal, other: Terminal) -> bool:
        known = self._pairs.get((terminal, other))
        if known is None:
            known = self._pairs[terminal, other] = self._find_rival(terminal, other)
        return known

    def _find_rival(self, terminal: Terminal, other: Terminal) -> bool:
        one, two = self.dfa(terminal.node), self.dfa(other.node)
        better = np.any(two.table != 0, axis=1) if other.is_greedy else two.accepting
        steps, steps_beside = self._steps_of(one), self._steps_of(two)
        seen = {(1, 1)} if len(one.table) > 1 and len(two.table) > 1 else set()
        waiting = list(seen)
        while waiting:
            state, beside = waiting.pop()
            self._budget.spend("max_set_elements", _WORK_PER_PAIR)
            if one.accepting[state] and better[beside]:
                return True
            for target, found in steps[state]:
                for target_beside, found_beside in steps_beside[beside]:
                    pair = target, target_beside
                    if found & found_beside and pair not in seen:
                        seen.add(pair)
                        waiting.append(pair)
        return False

    def _steps_of(self, dfa: ByteDfa) -> list[list[tuple[int, ByteSet]]]:
        """For each state where it leads, and by which bytes."""
        known = self._steps.get(dfa)
        if known is None:
            known = self._steps[dfa] = []
            for row in dfa.table:
                bytes_to: dict[int, list[int]] = {}
                for byte in np.flatnonzero(row).tolist():
                    bytes_to.setdefault(int(row[byte]), []).append(byte)
                known.append([(target, byte_set(found)) for target, found in bytes_to.items()])
        return known

    def external(self, key: Hashable) -> tuple[ByteSet, bool]:
        """(the bytes that a text of an external procedure begins with, whether it may be empty)."""
        return self._first_of(key)

    def is_nullable(self, expr: Expr, nullable: set[str]) -> bool:
        match expr:
            case Terminal(_, node, _):
                return self.dfa(node).is_nullable
            case Ref(rule):
                return rule in nullable
            case External(key, _):
                return self.external(key)[1]
            case Sequence(parts):
                return all(self.is_nullable(part, nullable) for part in parts)
            case Choice(parts):
                return any(self.is_nullable(part, nullable) for part in parts)
            case Repetition(item, min_count, _):
                return min_count == 0 or self.is_nullable(item, nullable)
            case Chain(item, _):
                return self.is_nullable(item, nullable)


def utf8(text: str) -> bytes:
    """Raises UnsupportedGrammarError for a lone surrogate."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise UnsupportedGrammarError(f"{text!r} holds a lone surrogate: UTF-8 has no such text") from error


def _text(text: str) -> ByteDfa:
    data = utf8(text)
    table = np.zeros((len(data) + 2, 256), dtype=np.int32)
    for index, byte in enumerate(data):
        table[index + 1, byte] = index + 2
    accepting = np.zeros(len(data) + 2, dtype=np.bool_)
    accepting[-1] = True
    return ByteDfa(table, accepting, len(table))


def _regular(node: Node, budget: Budget) -> ByteDfa:
    nfa = build_nfa(node, budget)
    atoms = atoms_of(nfa.labels, budget)
    dfa = minimize(determinize(nfa, atoms, budget))
    expanded = expand(dfa, atoms.sets, budget)
    table = expanded.transitions[:, expanded.byte_classes]
    return ByteDfa(table, expanded.accepting, len(dfa.transitions))


def nullable_rules(grammar: Grammar, terminals: Terminals) -> set[str]:
    """The rules that have the empty text."""
    nullable: set[str] = set()
    num_known = -1
    while num_known != (num_known := len(nullable)):
        for name, rule in reversed(grammar.rules.items()):
            if terminals.is_nullable(rule.body, nullable):
                nullable.add(name)
    return nullable


class RuleSets:
    """first[rule], follow[rule] and extending[rule]: bytes that may go on after a complete text of the rule."""

    def __init__(self, grammar: Grammar, terminals: Terminals, after_start: ByteSet) -> None:
        self._terminals = terminals
        self.nullable = nullable_rules(grammar, terminals)
        self.first = dict.fromkeys(grammar.rules, 0)
        self.follow = dict.fromkeys(grammar.rules, 0)
        self.extending = dict.fromkeys(grammar.rules, 0)
        self.follow[grammar.start] = after_start
        # Rules stand before those that they use, mostly: what rises from these is found backwards.
        rules = list(grammar.rules.items())
        _to_fixpoint(lambda: [self._add(self.first, n, self.first_of(r.body)) for n, r in reversed(rules)])
        _to_fixpoint(lambda: [self._add(self.extending, n, self._extending(r.body)) for n, r in reversed(rules)])
        _to_fixpoint(lambda: [self._pass_on(r.body, self.follow[n], False) for n, r in rules])

    def is_nullable(self, expr: Expr) -> bool:
        return self._terminals.is_nullable(expr, self.nullable)

    def first_of(self, expr: Expr) -> ByteSet:
        match expr:
            case Terminal(_, node, _):
                dfa = self._terminals.dfa(node)
                return dfa.live_bytes(1) if len(dfa.table) > 1 else 0
            case Ref(rule):
                return self.first[rule]
            case External(key, _):
                return self._terminals.external(key)[0]
            case Sequence(parts):
                found = 0
                for part in parts:
                    found |= self.first_of(part)
                    if not self.is_nullable(part):
                        break
                return found
            case Choice(parts):
                return _union([self.first_of(part) for part in parts])
            case Repetition(item, _, _):
                return self.first_of(item)
            case Chain(item, link):
                return self.first_of(item) | (self.first_of(link) if self.is_nullable(item) else 0)

    def _extending(self, expr: Expr) -> ByteSet:
        match expr:
            case Terminal(_, node, is_greedy):
                dfa = self._terminals.dfa(node)
                ends = [] if is_greedy else np.flatnonzero(dfa.accepting).tolist()
                return _union([dfa.live_bytes(state) for state in ends])
            case Ref(rule):
                return self.extending[rule]
            case External():
                return 0
            case Sequence(parts):
                found = 0
                for part in parts:
                    found = self._extending(part) | (found | self.first_of(part) if self.is_nullable(part) else 0)
                return found
            case Choice(parts):
                return _union([self._extending(part) for part in parts])
            case Repetition(item, _, max_count):
                return self._extending(item) | (0 if max_count == 1 else self.first_of(item))
            case Chain(item, link):
                return self._extending(item) | self.first_of(link)

    def _pass_on(self, expr: Expr, after: ByteSet, has_changed: bool) -> bool:
        """Tells the rules in `expr` what follows them if `after` follows it; True if one of them learned something."""
        match expr:
            case Ref(rule):
                return self._add(self.follow, rule, after) or has_changed
            case Sequence(parts):
                for part in reversed(parts):
                    has_changed = self._pass_on(part, after, has_changed)
                    after = self.first_of(part) | (after if self.is_nullable(part) else 0)
            case Choice(parts):
                for part in parts:
                    has_changed = self._pass_on(part, after, has_changed)
            case Repetition(item, _, max_count):
                again = 0 if max_count == 1 else self.first_of(item)
                return self._pass_on(item, after | again, has_changed)
            case Chain(item, link):
                between = self.first_of(link) | (self.first_of(item) if self.is_nullable(link) else 0)
                has_changed = self._pass_on(item, after | between, has_changed)
                more = between | after if self.is_nullable(item) else 0
                return self._pass_on(link, self.first_of(item) | more, has_changed)
        return has_changed

    def _add(self, sets: dict[str, ByteSet], name: str, found: ByteSet) -> bool:
        has_changed = bool(found & ~sets[name])
        sets[name] |= found
        return has_changed


def _to_fixpoint(sweep: Callable[[], list[bool]]) -> None:
    while any(sweep()):
        pass


def _union(sets: list[ByteSet]) -> ByteSet:
    found = 0
    for more in sets:
        found |= more
    return found
