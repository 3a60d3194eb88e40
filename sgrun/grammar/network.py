"""A grammar as a nondeterministic network over bytes: one graph for each procedure, whose moves read bytes or call.

Positions are numbered through all graphs. Rules that are not procedures are written out where they are used.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from sgrun.errors import GrammarTooLargeError
from sgrun.grammar import cfg
from sgrun.grammar.cfg import Chain, Choice, Expr, External, Grammar, Ref, Repetition, Rule, Sequence, Terminal
from sgrun.grammar.limits import Budget
from sgrun.grammar.rule_sets import ByteDfa, ByteSet, RuleSets, Terminals
from sgrun.grammar.syntax import Node

Watch = int  # a state of a terminal that has ended, and must not be able to go on: see Network.watch_step
MAX_WRITTEN_OUT = 60  # rules inside rules


@dataclass(frozen=True, slots=True)
class CallMove:
    callee: str | External
    target: int


@dataclass(eq=False, slots=True)
class Graph:
    rule: Rule
    start: int
    final: int


@dataclass(frozen=True, slots=True)
class Reached:
    """A position reached without reading, and the ended greedy terminals that were passed on the way."""

    position: int
    watches: tuple[Watch, ...]


class Network:
    """moves[p]: (byte class, target); jumps[p]: (watch or None, target), read nothing; calls[p]: procedures."""

    def __init__(
        self, grammar: Grammar, procedures: set[str], terminals: Terminals, sets: RuleSets, budget: Budget
    ) -> None:
        self.graphs: dict[str, Graph] = {}
        self.moves: list[list[tuple[int, int]]] = []
        self.jumps: list[list[tuple[Watch | None, int]]] = []
        self.calls: dict[int, list[CallMove]] = {}
        self.final_of: dict[int, str] = {}
        self.owner: list[str] = []
        self._grammar = grammar
        self._procedures = procedures
        self._terminals = terminals
        self._sets = sets
        self._budget = budget
        self._skips: dict[int, int] = {}
        self._closures: dict[int, tuple[Reached, ...]] = {}
        self._alphabet = _Alphabet(_used_dfas(grammar, terminals), _first_sets(grammar, terminals))
        self.byte_classes = self._alphabet.byte_classes
        self.num_classes = self._alphabet.num_classes
        for name in sorted(procedures):
            self._add_graph(name, grammar.rules[name].body, grammar.rules[name])
        start = grammar.rules[grammar.start]
        self._add_graph("", Ref(start.name), Rule(start.name, start.body, start.line))

    def closure(self, position: int) -> tuple[Reached, ...]:
        """What `position` reaches without reading that matters: positions with moves or calls, and the final one."""
        known = self._closures.get(position)
        if known is None:
            seen = {Reached(position, ())}
            waiting = list(seen)
            while waiting:
                place = waiting.pop()
                for watch, target in self.jumps[place.position]:
                    watches = place.watches if watch is None else tuple(sorted({*place.watches, watch}))
                    after = Reached(target, watches)
                    if after not in seen:
                        seen.add(after)
                        waiting.append(after)
            known = self._closures[position] = tuple(place for place in seen if self._matters(place.position))
            self._budget.spend("max_set_elements", len(seen))
        return known

    def watch_step(self, watch: Watch, byte_class: int) -> Watch | None:
        """None: the terminal goes on with this byte, so it had not ended. 0: it cannot. Else: ask with the next byte."""
        return self._alphabet.watch_step(watch, byte_class)

    def _matters(self, position: int) -> bool:
        return bool(self.moves[position]) or position in self.calls or position in self.final_of

    def _add_graph(self, name: str, body: Expr, rule: Rule) -> None:
        start, final = self._add_position(name), self._add_position(name)
        self.graphs[name] = Graph(rule, start, final)
        self.final_of[final] = name
        begin = start
        if name == "" and self._grammar.skip is not None:
            begin = self._add_position(name)
            self.jumps[start].append((None, self._skip_before(begin, name)))
        self._add(body, begin, final, name, 0)
        self._turn_tail_calls(self.graphs[name], name)

    def _add_position(self, owner: str) -> int:
        self._budget.spend("max_nfa_states", 1)
        self.moves.append([])
        self.jumps.append([])
        self.owner.append(owner)
        return len(self.moves) - 1

    def _add(self, expr: Expr, source: int, target: int, owner: str, depth: int) -> None:
        """Adds paths for the texts of `expr`; none enters `source` or leaves `target`."""
        if depth > MAX_WRITTEN_OUT:
            raise GrammarTooLargeError(
                f"rules and groups of the grammar nest more than {MAX_WRITTEN_OUT} deep; use fewer levels"
            )
        match expr:
            case Terminal(_, node, is_greedy):
                dfa = self._terminals.dfa(node)
                self._add_dfa(dfa, source, self._skip_before(target, owner), owner, is_greedy)
            case Ref(rule) if rule in self._procedures:
                self.calls.setdefault(source, []).append(CallMove(rule, target))
                if self._sets.is_nullable(expr):
                    self.jumps[source].append((None, target))
            case Ref(rule):
                self._add(self._grammar.rules[rule].body, source, target, owner, depth + 1)
            case External():
                after = self._skip_before(target, owner)
                self.calls.setdefault(source, []).append(CallMove(expr, after))
                if self._sets.is_nullable(expr):
                    self.jumps[source].append((None, after))
            case Sequence(parts):
                for part in parts[:-1]:
                    between = self._add_position(owner)
                    self._add(part, source, between, owner, depth + 1)
                    source = between
                if parts:
                    self._add(parts[-1], source, target, owner, depth + 1)
                else:
                    self.jumps[source].append((None, target))
            case Choice(parts):
                for part in parts:
                    begin = self._add_position(owner)
                    self.jumps[source].append((None, begin))
                    self._add(part, begin, target, owner, depth + 1)
            case Repetition():
                self._add_repetition(expr, source, target, owner, depth + 1)
            case Chain(item, link):
                begin, end = self._add_position(owner), self._add_position(owner)
                self.jumps[source].append((None, begin))
                self._add(item, begin, end, owner, depth + 1)
                self._add(link, end, begin, owner, depth + 1)
                self.jumps[end].append((None, target))

    def _add_repetition(self, expr: Repetition, source: int, target: int, owner: str, depth: int) -> None:
        if expr.max_count is not None and expr.max_count < expr.min_count:
            return
        num_fixed = expr.min_count if expr.max_count is not None else max(expr.min_count - 1, 0)
        for _ in range(num_fixed):
            after = self._add_position(owner)
            self._add(expr.item, source, after, owner, depth)
            source = after
        if expr.max_count is None:
            begin, end = self._add_position(owner), self._add_position(owner)
            self.jumps[source].append((None, begin))
            self._add(expr.item, begin, end, owner, depth)
            self.jumps[end] += [(None, begin), (None, target)]
            if expr.min_count == 0:
                self.jumps[begin].append((None, target))
            return
        for _ in range(expr.max_count - expr.min_count):
            self.jumps[source].append((None, target))
            after = self._add_position(owner)
            self._add(expr.item, source, after, owner, depth)
            source = after
        self.jumps[source].append((None, target))

    def _add_dfa(self, dfa: ByteDfa, source: int, target: int, owner: str, is_greedy: bool) -> None:
        positions = [source, *(self._add_position(owner) for _ in range(1, len(dfa.table)))]
        if len(dfa.table) == 1:
            return
        self.jumps[source].append((None, positions[1]))
        watches = self._alphabet.watches(dfa)
        for state, moves in enumerate(self._alphabet.moves(dfa)):
            if state:
                self.moves[positions[state]] = [(byte_class, positions[to]) for byte_class, to in moves]
        for state in np.flatnonzero(dfa.accepting).tolist():
            has_more = is_greedy and bool(dfa.table[state].any())
            self.jumps[positions[state]].append((watches[state] if has_more else None, target))

    def _skip_before(self, target: int, owner: str) -> int:
        """A position from which text to be skipped leads to `target`."""
        if self._grammar.skip is None:
            return target
        if target not in self._skips:
            begin = self._skips[target] = self._add_position(owner)
            self._add_dfa(self._terminals.dfa(self._grammar.skip), begin, target, owner, is_greedy=False)
        return self._skips[target]

    def _turn_tail_calls(self, graph: Graph, name: str) -> None:
        """A call of the procedure itself with nothing to do afterwards goes to its start instead."""
        for position, calls in list(self.calls.items()):
            if self.owner[position] != name:
                continue
            kept = [call for call in calls if not (call.callee == name and self._is_end(call.target, graph.final))]
            if len(kept) < len(calls):
                self.jumps[position].append((None, graph.start))
                if kept:
                    self.calls[position] = kept
                else:
                    del self.calls[position]

    def _is_end(self, position: int, final: int) -> bool:
        seen = {position}
        waiting = [position]
        while waiting:
            found = waiting.pop()
            if self.moves[found] or found in self.calls:
                return False
            for _, target in self.jumps[found]:
                if target not in seen:
                    seen.add(target)
                    waiting.append(target)
        return final in seen


class _Alphabet:
    """Bytes that no terminal tells apart are one class. Watches are states of all terminals, numbered through."""

    def __init__(self, dfas: list[ByteDfa], byte_sets: list[ByteSet]) -> None:
        rows = [np.zeros((1, 256), np.int32), *(dfa.table for dfa in dfas)]
        rows += [np.array([[found >> byte & 1 for byte in range(256)]], np.int32) for found in byte_sets]
        columns = np.ascontiguousarray(np.concatenate(rows).T)
        classes: dict[bytes, int] = {}
        self.byte_classes = np.array([classes.setdefault(column.tobytes(), len(classes)) for column in columns])
        self.num_classes = len(classes)
        self._bytes = np.unique(self.byte_classes, return_index=True)[1]
        self._firsts: dict[int, int] = {}
        self._dfas: list[tuple[ByteDfa, int]] = []
        self._steps: dict[tuple[Watch, int], Watch | None] = {}
        num_watches = 1
        self._dfa_of_watch: list[int] = [0]
        for index, dfa in enumerate(dfas):
            self._firsts[id(dfa)] = num_watches
            self._dfas.append((dfa, num_watches))
            self._dfa_of_watch += [index] * len(dfa.table)
            num_watches += len(dfa.table)
        self._moves: dict[int, list[list[tuple[int, int]]]] = {}

    def moves(self, dfa: ByteDfa) -> list[list[tuple[int, int]]]:
        known = self._moves.get(id(dfa))
        if known is None:
            table = dfa.table[:, self._bytes]
            known = [[(cls, int(row[cls])) for cls in np.flatnonzero(row).tolist()] for row in table]
            self._moves[id(dfa)] = known
        return known

    def watches(self, dfa: ByteDfa) -> range:
        first = self._firsts[id(dfa)]
        return range(first, first + len(dfa.table))

    def watch_step(self, watch: Watch, byte_class: int) -> Watch | None:
        dfa, first = self._dfas[self._dfa_of_watch[watch]]
        after = int(dfa.table[watch - first, self._bytes[byte_class]])
        if after == 0:
            return 0
        return None if after < dfa.num_outer else first + after


def _used_dfas(grammar: Grammar, terminals: Terminals) -> list[ByteDfa]:
    nodes: dict[Node, None] = {}
    for rule in grammar.rules.values():
        nodes.update((found.node, None) for found in cfg.walk(rule.body) if isinstance(found, Terminal))
    if grammar.skip is not None:
        nodes[grammar.skip] = None
    return [terminals.dfa(node) for node in nodes]


def _first_sets(grammar: Grammar, terminals: Terminals) -> list[ByteSet]:
    """What texts of external procedures begin with."""
    externals: dict[Hashable, None] = {}
    for rule in grammar.rules.values():
        externals.update((found.key, None) for found in cfg.walk(rule.body) if isinstance(found, External))
    return [terminals.external(key)[0] for key in externals]
