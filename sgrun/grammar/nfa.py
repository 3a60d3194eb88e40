"""A nondeterministic automaton over code points, and how a syntax tree unrolls into one."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum, auto

from sgrun.errors import UnsupportedGrammarError
from sgrun.grammar import charset
from sgrun.grammar.charset import CodePoints
from sgrun.grammar.limits import Budget
from sgrun.grammar.syntax import Position, Repeat


class Counting(Enum):
    """What a jump does to the count of a counted repeat, which is how many iterations have begun."""

    ENTER = auto()  # to where iterations begin; the count is 0
    ITERATE = auto()  # into the body, if the count is below the maximum, which adds 1
    EXIT = auto()  # out, if the count is at least the minimum


@dataclass(frozen=True, eq=False, slots=True)
class Counts:
    """The bounds of one counted repeat; `node` is the repeat it was built for."""

    min_count: int
    max_count: int | None
    node: Repeat


Guard = Position | int  # an assertion, or the index of a lookahead


class Nfa:
    """States 0 (start), 1 (accepting) and more. A move is labelled with a set of code points; a jump reads nothing.

    A guarded jump may be taken only where its assertion holds. A counting jump is part of a repeat that is not
    unrolled.
    """

    START = 0
    ACCEPT = 1

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.labels: list[CodePoints] = []
        self.moves: list[list[tuple[int, int]]] = []  # state -> (label, target)
        self.jumps: list[list[int]] = []  # state -> targets
        self.guarded: dict[int, list[tuple[Guard, int]]] = {}
        self.lookaheads: list[tuple[Nfa, bool]] = []  # what the rest has to match, and whether it must not
        self.counting: dict[int, list[tuple[Counting, Counts, int]]] = {}
        self._label_ids: dict[CodePoints, int] = {}
        self.add_state()
        self.add_state()

    @property
    def num_states(self) -> int:
        return len(self.moves)

    def add_state(self) -> int:
        self.moves.append([])
        self.jumps.append([])
        self.budget.spend("max_nfa_states", 1)
        return len(self.moves) - 1

    def label(self, code_points: CodePoints) -> int:
        """The id of a set; sets are stored once."""
        label = self._label_ids.setdefault(code_points, len(self.labels))
        if label == len(self.labels):
            self.labels.append(code_points)
        return label

    def add_move(self, source: int, label: int, target: int) -> None:
        if self.labels[label]:
            self.moves[source].append((label, target))

    def add_jump(self, source: int, target: int) -> None:
        self.jumps[source].append(target)

    def add_text(self, source: int, text: str, target: int) -> None:
        """A chain of moves that spells `text`."""
        for char in text[:-1]:
            after = self.add_state()
            self.add_move(source, self.char(char), after)
            source = after
        if text:
            self.add_move(source, self.char(text[-1]), target)
        else:
            self.add_jump(source, target)

    def char(self, char: str) -> int:
        """The label of one character."""
        code_point = ord(char)
        if charset.contains(charset.SURROGATES, code_point):
            raise UnsupportedGrammarError(
                f"the lone surrogate U+{code_point:04X} cannot be generated: UTF-8 has no such text"
            )
        return self.label(((code_point, code_point),))

    def embed(self, other: Nfa, source: int, target: int) -> None:
        """Copies `other` in between two states."""
        assert not other.guarded, "assertions are relative to the text, so they are worked in first"
        states = [self.add_state() for _ in other.moves]
        labels = [self.label(code_points) for code_points in other.labels]
        self.add_jump(source, states[Nfa.START])
        self.add_jump(states[Nfa.ACCEPT], target)
        for state, moves in enumerate(other.moves):
            self.moves[states[state]].extend((labels[label], states[to]) for label, to in moves)
            self.jumps[states[state]].extend(states[to] for to in other.jumps[state])
        for state, counting in other.counting.items():
            self.counting[states[state]] = [(kind, counts, states[to]) for kind, counts, to in counting]

    def live_states(self) -> set[int]:
        """The states from which acceptance can be reached (if guards hold and counts allow it)."""
        sources: list[list[int]] = [[] for _ in self.moves]
        for state, moves in enumerate(self.moves):
            for _, target in moves:
                sources[target].append(state)
            for target in self.jumps[state]:
                sources[target].append(state)
        for state, guarded in self.guarded.items():
            for _, target in guarded:
                sources[target].append(state)
        for state, counting in self.counting.items():
            for _, _, target in counting:
                sources[target].append(state)
        live = {Nfa.ACCEPT}
        waiting = deque(live)
        while waiting:
            for source in sources[waiting.popleft()]:
                if source not in live:
                    live.add(source)
                    waiting.append(source)
        return live
