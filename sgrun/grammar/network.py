"""A grammar as a nondeterministic network over bytes: one graph for each procedure, whose moves read bytes or call.

Positions are numbered through all graphs. Rules that are not procedures are written out where they are used.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from sgrun.grammar import cfg
from sgrun.grammar.cfg import Expr, External, Grammar, Ref, Rule, Terminal
from sgrun.grammar.limits import Budget
from sgrun.grammar.rule_sets import ByteDfa, ByteSet, RuleSets, Terminals
from sgrun.grammar.symbol_graph import symbol_graph
from sgrun.grammar.syntax import Node

Watch = int  # a state of a terminal that has ended, and must not be able to go on: see Network.watch_step


@dataclass(frozen=True, slots=True)
class TerminalStart:
    """A terminal about to begin, and the position after it."""

    terminal: Terminal
    target: int


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
        self.skipping: set[int] = set()  # positions before and within text that is skipped
        self.starts: dict[int, TerminalStart] = {}
        self._variants: dict[tuple[int, frozenset[Terminal]], int] = {}
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
        """None: the terminal goes on with this byte, so it had not ended. 0: it cannot. Else: ask with the next."""
        return 0 if byte_class == self.num_classes else self._alphabet.watch_step(watch, byte_class)

    def _matters(self, position: int) -> bool:
        return bool(self.moves[position]) or position in self.calls or position in self.final_of

    def _add_graph(self, name: str, body: Expr, rule: Rule) -> None:
        start, final = self._add_position(name), self._add_position(name)
        self.graphs[name] = Graph(rule, start, final)
        self.final_of[final] = name
        graph = symbol_graph(body, self._grammar, self._procedures, self._sets, self._budget)
        states = [self._add_position(name) for _ in graph.edges]
        self.jumps[start].append((None, self._skip_before(states[0], name) if name == "" else states[0]))
        begins: dict[tuple[Terminal, int], int] = {}
        for state, edges in enumerate(graph.edges):
            if graph.accepting[state]:
                self.jumps[states[state]].append((None, final))
            for symbol, to in edges.items():
                if isinstance(symbol, Terminal):
                    begin = begins.get((symbol, to))
                    if begin is None:
                        begin = begins[symbol, to] = self._add_position(name)
                        self._add_terminal(symbol, begin, self._skip_before(states[to], name), name)
                    self.jumps[states[state]].append((None, begin))
                else:
                    callee = symbol.rule if isinstance(symbol, Ref) else symbol
                    after = states[to] if isinstance(symbol, Ref) else self._skip_before(states[to], name)
                    self.calls.setdefault(states[state], []).append(CallMove(callee, after))

    def _add_position(self, owner: str) -> int:
        self._budget.spend("max_nfa_states", 1)
        self.moves.append([])
        self.jumps.append([])
        self.owner.append(owner)
        return len(self.moves) - 1

    def _add_terminal(self, terminal: Terminal, begin: int, target: int, owner: str) -> None:
        self.starts[begin] = TerminalStart(terminal, target)
        self._add_dfa(self._terminals.dfa(terminal.node), begin, target, owner, terminal.is_greedy)

    def _add_dfa(self, dfa: ByteDfa, begin: int, target: int, owner: str, is_greedy: bool) -> None:
        """Adds the moves of a terminal from `begin`, which nothing leads back to."""
        positions = [begin, *(self._add_position(owner) for _ in range(1, len(dfa.table)))]
        watches = self._alphabet.watches(dfa)
        for state, moves in enumerate(self._alphabet.moves(dfa)):
            ends: list[tuple[Watch | None, int]] = []
            if dfa.accepting[state]:
                ends = [(watches[state] if is_greedy and moves else None, target)]
            for position in [positions[state], begin] if state == 1 else [positions[state]] * min(state, 1):
                self.moves[position] = [(byte_class, positions[to]) for byte_class, to in moves]
                self.jumps[position] += ends

    def beside(self, begin: int, others: frozenset[Terminal]) -> int:
        """Where to begin the terminal of `begin` if `others` may begin at the same place.

        The longest terminal is meant, and of two with the same text the literal one: so names are not keywords, and
        keywords are whole words, as lexers have it.
        """
        start = self.starts[begin]
        rivals = self._terminals.rivals(start.terminal, others)
        if not rivals:
            return begin
        variant = self._variants.get((begin, rivals))
        if variant is None:
            variant = self._variants[begin, rivals] = self._add_position(self.owner[begin])
            self._add_guarded(start, sorted(rivals, key=lambda other: other.name), variant)
        return variant

    def _add_guarded(self, start: TerminalStart, rivals: list[Terminal], begin: int) -> None:
        """Adds the moves of a terminal which ends only where no greedy rival goes on and no literal one ends."""
        terminals = [start.terminal, *rivals]
        dfas = [self._terminals.dfa(terminal.node) for terminal in terminals]
        moves = [[dict(row) for row in self._alphabet.moves(dfa)] for dfa in dfas]
        positions = {(1,) * len(dfas): begin}
        waiting = list(positions)
        while waiting:
            states = waiting.pop()
            position = positions[states]
            for byte_class, own in moves[0][states[0]].items():
                others = [rows[state].get(byte_class, 0) for rows, state in zip(moves[1:], states[1:], strict=True)]
                after = (own, *others)
                if after not in positions:
                    positions[after] = self._add_position(self.owner[begin])
                    waiting.append(after)
                self.moves[position].append((byte_class, positions[after]))
            at = list(zip(terminals, dfas, moves, states, strict=True))
            is_taken = any(dfa.accepting[state] for rival, dfa, _, state in at[1:] if not rival.is_greedy)
            if dfas[0].accepting[states[0]] and not (is_taken and start.terminal.is_greedy):
                for terminal, dfa, rows, state in at:
                    if terminal.is_greedy and rows[state]:
                        between = self._add_position(self.owner[begin])
                        self.jumps[position].append((self._alphabet.watches(dfa)[state], between))
                        position = between
                self.jumps[position].append((None, start.target))

    def _skip_before(self, target: int, owner: str) -> int:
        """A position from which text to be skipped leads to `target`."""
        if not self._grammar.skip:
            return target
        if target not in self._skips:
            first = len(self.moves)
            begin = self._skips[target] = self._add_position(owner)
            self.jumps[begin].append((None, target))
            for terminal in self._grammar.skip:
                inner = self._add_position(owner)
                self.jumps[begin].append((None, inner))
                self._add_terminal(terminal, inner, begin, owner)
            self.skipping.update(range(first, len(self.moves)))
        return self._skips[target]


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
        self._moves: dict[ByteDfa, list[list[tuple[int, int]]]] = {}
        self._watches: dict[ByteDfa, range] = {}
        self._watched: list[tuple[ByteDfa, int]] = []

    def moves(self, dfa: ByteDfa) -> list[list[tuple[int, int]]]:
        known = self._moves.get(dfa)
        if known is None:
            table = dfa.table[:, self._bytes]
            known = [[(cls, int(row[cls])) for cls in np.flatnonzero(row).tolist()] for row in table]
            self._moves[dfa] = known
        return known

    def watches(self, dfa: ByteDfa) -> range:
        """One watch for each state."""
        known = self._watches.get(dfa)
        if known is None:
            first = len(self._watched) + 1
            known = self._watches[dfa] = range(first, first + len(dfa.table))
            self._watched += [(dfa, state) for state in range(len(dfa.table))]
        return known

    def watch_step(self, watch: Watch, byte_class: int) -> Watch | None:
        dfa, state = self._watched[watch - 1]
        after = int(dfa.table[state, self._bytes[byte_class]])
        if after == 0:
            return 0
        return None if after < dfa.num_outer else self._watches[dfa][after]


def _used_dfas(grammar: Grammar, terminals: Terminals) -> list[ByteDfa]:
    nodes: dict[Node, None] = {}
    for rule in grammar.rules.values():
        nodes.update((found.node, None) for found in cfg.walk(rule.body) if isinstance(found, Terminal))
    nodes.update((terminal.node, None) for terminal in grammar.skip)
    return [terminals.dfa(node) for node in nodes]


def _first_sets(grammar: Grammar, terminals: Terminals) -> list[ByteSet]:
    """What texts of external procedures begin with."""
    externals: dict[Hashable, None] = {}
    for rule in grammar.rules.values():
        externals.update((found.key, None) for found in cfg.walk(rule.body) if isinstance(found, External))
    return [terminals.external(key)[0] for key in externals]
