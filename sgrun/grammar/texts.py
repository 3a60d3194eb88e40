"""Deterministic automata over characters that follow several conditions on a text side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from sgrun.grammar import charset
from sgrun.grammar.build import build_nfa
from sgrun.grammar.charset import CodePoints
from sgrun.grammar.dfa import Atoms, atoms_of, determinize, minimize
from sgrun.grammar.formats import format_node
from sgrun.grammar.labelled import Table
from sgrun.grammar.limits import Budget, CompileLimits
from sgrun.grammar.rewrite import without_assertions
from sgrun.grammar.syntax import Node


@dataclass(frozen=True, slots=True)
class OneText:
    text: str


@dataclass(frozen=True, slots=True)
class KnownFormat:
    """The language of a known format, but for its bound on the length."""

    name: str


@dataclass(frozen=True, eq=False, slots=True)
class Matches:
    """The text is one of `node`."""

    node: Node


TextPart = OneText | KnownFormat | Matches


@dataclass(frozen=True, eq=False, slots=True)
class Factor:
    """A deterministic automaton over characters that follows conditions: `truths[state, i]` says whether the i-th of
    them holds of the text so far. It has a move for every character: `table[state, a]` for those of `sets[a]`."""

    table: Table
    start: int
    truths: npt.NDArray[np.bool_]  # [num_states, num_conditions]
    sets: list[CodePoints]

    def takes(self, text: str) -> bool:
        """Whether the first of the conditions holds of a whole text. False if there is a lone surrogate in it."""
        state = self.start
        for char in text:
            atom = next((a for a, chars in enumerate(self.sets) if charset.contains(chars, ord(char))), None)
            if atom is None:
                return False
            state = int(self.table[state, atom])
        return bool(self.truths[state, 0])


def text_factor(parts: Sequence[TextPart], budget: Budget) -> tuple[Factor, list[int]]:
    """Follows all parts, which are different, at once; with it, for each part, its column of `truths`."""
    texts = [part.text for part in parts if isinstance(part, OneText)]
    others = [part for part in parts if not isinstance(part, OneText)]
    factors = [_one_of(texts)] if texts or not others else []
    for part in others:
        factors.append(matching(part, budget) if isinstance(part, Matches) else format_factor(part.name))
    factor = factors[0]
    for other in factors[1:]:
        factor = _product(factor, other, budget)
    columns = {part: column for column, part in enumerate([*map(OneText, texts), *others])}
    return factor, [columns[part] for part in parts]


@lru_cache
def format_factor(name: str) -> Factor:
    """Kept, because there are few formats, and building one takes longer than all else for a string."""
    budget = Budget(CompileLimits())
    return matching(Matches(format_node(name, budget)), budget)


def matching(part: Matches, budget: Budget) -> Factor:
    node = part.node
    nfa = without_assertions(build_nfa(node, budget))
    atoms = atoms_of([*nfa.labels, charset.SCALARS], budget)
    dfa = minimize(determinize(nfa, Atoms(atoms.sets, atoms.of_label[:-1]), budget))
    start = 0 if dfa.is_empty else 1
    return Factor(dfa.transitions, start, dfa.accepting[:, None], atoms.sets)


def _one_of(texts: list[str]) -> Factor:
    """A trie; state 0 is for all other texts."""
    chars = sorted(set("".join(texts)))
    atoms = {char: i + 1 for i, char in enumerate(chars)}
    sets = [charset.subtract(charset.SCALARS, charset.of_chars("".join(chars)))]
    sets += [charset.intersect(charset.of_chars(char), charset.SCALARS) for char in chars]  # a lone surrogate: none
    rows = [[0] * len(sets), [0] * len(sets)]
    ends = {}
    for column, text in enumerate(texts):
        state = 1
        for char in text:
            if rows[state][atoms[char]] == 0:
                rows[state][atoms[char]] = len(rows)
                rows.append([0] * len(sets))
            state = rows[state][atoms[char]]
        ends[state] = column
    truths = np.zeros((len(rows), len(texts)), dtype=np.bool_)
    for state, column in ends.items():
        truths[state, column] = True
    return Factor(np.array(rows, dtype=np.int32), 1, truths, sets)


def _product(left: Factor, right: Factor, budget: Budget) -> Factor:
    """Both side by side, breadth-first over the pairs of states that are reached together."""
    atoms = atoms_of([*left.sets, *right.sets], budget)
    of_left, of_right = np.zeros(len(atoms.sets), np.int64), np.zeros(len(atoms.sets), np.int64)
    for label, members in enumerate(atoms.of_label):
        if label < len(left.sets):
            of_left[list(members)] = label
        else:
            of_right[list(members)] = label - len(left.sets)
    left_table, right_table = left.table[:, of_left].astype(np.int64), right.table[:, of_right]
    width = len(right.table)
    frontier = np.array([left.start * width + right.start])
    numbers = {int(frontier[0]): 0}
    rows: list[Table] = []
    while len(frontier):
        one, two = np.divmod(frontier, width)
        targets, back = np.unique(left_table[one] * width + right_table[two], return_inverse=True)
        new = [code for code in targets.tolist() if code not in numbers]
        budget.spend("max_states", len(new))
        for code in new:
            numbers[code] = len(numbers)
        names = np.array([numbers[code] for code in targets.tolist()], dtype=np.int32)
        rows.append(names[back].reshape(len(frontier), -1))
        budget.check("max_work_bytes", 4 * len(numbers) * len(atoms.sets))
        frontier = np.array(new, dtype=np.int64)
    one, two = np.divmod(np.array(list(numbers)), width)
    truths = np.concatenate([left.truths[one], right.truths[two]], axis=1)
    return Factor(np.concatenate(rows), 0, truths, atoms.sets)
