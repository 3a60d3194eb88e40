"""What a procedure reads, as a minimal deterministic automaton over terminals and calls.

Rules that are not procedures are written out. Merging what is alike here, where a terminal is one step, keeps the
network of bytes small.
"""

from __future__ import annotations

from dataclasses import dataclass

from sgrun.errors import GrammarTooLargeError
from sgrun.grammar.cfg import Chain, Choice, Expr, External, Grammar, Ref, Repetition, Sequence, Terminal
from sgrun.grammar.limits import Budget
from sgrun.grammar.rule_sets import RuleSets

Symbol = Terminal | Ref | External
MAX_WRITTEN_OUT = 100  # rules and groups inside each other


@dataclass(frozen=True, slots=True)
class SymbolGraph:
    """edges[state]: symbol -> next state; state 0 is the start."""

    edges: list[dict[Symbol, int]]
    accepting: list[bool]


def symbol_graph(body: Expr, grammar: Grammar, procedures: set[str], sets: RuleSets, budget: Budget) -> SymbolGraph:
    """The body of the procedure `name`."""
    nfa = _Nfa(grammar, procedures, sets, budget)
    nfa.add(body, 0, 1, 0)
    return _minimized(nfa.determinized())


class _Nfa:
    """State 0 is the start, state 1 accepts."""

    def __init__(self, grammar: Grammar, procedures: set[str], sets: RuleSets, budget: Budget) -> None:
        self.moves: list[list[tuple[Symbol, int]]] = [[], []]
        self.jumps: list[list[int]] = [[], []]
        self._grammar = grammar
        self._procedures = procedures
        self._sets = sets
        self._budget = budget

    def add_state(self) -> int:
        self._budget.spend("max_nfa_states", 4)  # one terminal is several states of bytes
        self.moves.append([])
        self.jumps.append([])
        return len(self.moves) - 1

    def add(self, expr: Expr, source: int, target: int, depth: int) -> None:
        """Adds paths for `expr`; none enters `source` or leaves `target`."""
        if depth > MAX_WRITTEN_OUT:
            raise GrammarTooLargeError(
                f"rules and groups of the grammar nest more than {MAX_WRITTEN_OUT} deep; use fewer levels"
            )
        match expr:
            case Ref(rule) if rule not in self._procedures:
                self.add(self._grammar.rules[rule].body, source, target, depth + 1)
            case Ref() | External():
                self.moves[source].append((expr, target))
                if self._sets.is_nullable(expr):  # procedures leave the empty text to their callers
                    self.jumps[source].append(target)
            case Terminal():
                self.moves[source].append((expr, target))
            case Sequence(parts):
                for part in parts[:-1]:
                    between = self.add_state()
                    self.add(part, source, between, depth + 1)
                    source = between
                if parts:
                    self.add(parts[-1], source, target, depth + 1)
                else:
                    self.jumps[source].append(target)
            case Choice(parts):
                for part in parts:
                    self.add(part, source, target, depth + 1)
            case Repetition():
                self._add_repetition(expr, source, target, depth + 1)
            case Chain(item, link):
                begin, end = self.add_state(), self.add_state()
                self.jumps[source].append(begin)
                self.add(item, begin, end, depth + 1)
                self.add(link, end, begin, depth + 1)
                self.jumps[end].append(target)

    def _add_repetition(self, expr: Repetition, source: int, target: int, depth: int) -> None:
        for _ in range(expr.min_count):
            after = self.add_state()
            self.add(expr.item, source, after, depth)
            source = after
        if expr.max_count is None:
            begin, end = self.add_state(), self.add_state()
            self.jumps[source].append(begin)
            self.add(expr.item, begin, end, depth)
            self.jumps[end].append(begin)
            self.jumps[begin].append(target)
            return
        for _ in range(expr.max_count - expr.min_count):
            self.jumps[source].append(target)
            after = self.add_state()
            self.add(expr.item, source, after, depth)
            source = after
        self.jumps[source].append(target)

    def determinized(self) -> SymbolGraph:
        start = self._closure({0})
        numbers = {start: 0}
        edges: list[dict[Symbol, int]] = []
        waiting = [start]
        for subset in waiting:
            reached: dict[Symbol, set[int]] = {}
            for state in subset:
                for symbol, target in self.moves[state]:
                    reached.setdefault(symbol, set()).add(target)
            row: dict[Symbol, int] = {}
            for symbol, targets in reached.items():
                after = self._closure(targets)
                if after not in numbers:
                    numbers[after] = len(numbers)
                    waiting.append(after)
                row[symbol] = numbers[after]
            edges.append(row)
        return SymbolGraph(edges, [1 in subset for subset in waiting])

    def _closure(self, states: set[int]) -> frozenset[int]:
        seen = set(states)
        waiting = list(states)
        while waiting:
            for target in self.jumps[waiting.pop()]:
                if target not in seen:
                    seen.add(target)
                    waiting.append(target)
        self._budget.spend("max_set_elements", len(seen))
        return frozenset(state for state in seen if self.moves[state] or state == 1)


def _minimized(graph: SymbolGraph) -> SymbolGraph:
    """States that accept the same are merged (Moore's refinement)."""
    blocks = [int(accepts) for accepts in graph.accepting]
    num_blocks = len(set(blocks))
    while True:
        signatures: dict[object, int] = {}
        blocks = [
            signatures.setdefault(
                (blocks[state], frozenset((symbol, blocks[to]) for symbol, to in edges.items())), len(signatures)
            )
            for state, edges in enumerate(graph.edges)
        ]
        if len(signatures) == num_blocks:
            break
        num_blocks = len(signatures)
    first_of = {block: state for state, block in reversed(list(enumerate(blocks)))}
    kept = sorted(first_of.values())  # the start is the first of its block
    number = {blocks[state]: index for index, state in enumerate(kept)}
    edges = [{symbol: number[blocks[to]] for symbol, to in graph.edges[state].items()} for state in kept]
    return SymbolGraph(edges, [graph.accepting[state] for state in kept])
