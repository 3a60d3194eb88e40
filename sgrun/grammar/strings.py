"""JSON strings: what a schema can assert of one, and the automaton that reads one character by character."""

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
from sgrun.grammar.formats import FORMAT_MAX_LEN, format_node, is_known_format
from sgrun.grammar.labelled import Table
from sgrun.grammar.limits import Budget, CompileLimits
from sgrun.grammar.regex import parse_search_pattern
from sgrun.grammar.rewrite import without_assertions
from sgrun.grammar.syntax import Node


@dataclass(frozen=True, slots=True)
class Pattern:
    """`pattern` is found somewhere in the text."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Format:
    """One of the formats of the standard (formats.py); always true under another name."""

    name: str


@dataclass(frozen=True, slots=True)
class LengthAtLeast:
    """In code points."""

    count: int


@dataclass(frozen=True, slots=True)
class LengthAtMost:
    count: int


@dataclass(frozen=True, slots=True)
class TextEquals:
    text: str


StringAtom = Pattern | Format | LengthAtLeast | LengthAtMost | TextEquals


@dataclass(frozen=True, eq=False, slots=True)
class Factor:
    """A deterministic automaton over characters that follows some atoms: `truths[state, i]` says whether the i-th of
    them holds of the text so far. It has a move for every character: `table[state, a]` for those of `sets[a]`."""

    table: Table
    start: int
    truths: npt.NDArray[np.bool_]  # [num_states, num_atoms]
    sets: list[CodePoints]


def string_holds(atom: StringAtom, text: str) -> bool:
    match atom:
        case LengthAtLeast(count):
            return len(text) >= count
        case LengthAtMost(count):
            return len(text) <= count
        case TextEquals(other):
            return text == other
        case Pattern(pattern):
            return _is_taken(_known_pattern(pattern), text)
        case Format(name):
            is_short = len(text) <= FORMAT_MAX_LEN.get(name, len(text))
            return not is_known_format(name) or (is_short and _is_taken(_format_factor(name), text))


def _is_taken(factor: Factor, text: str) -> bool:
    state = factor.start
    for char in text:
        atom = next((a for a, chars in enumerate(factor.sets) if charset.contains(chars, ord(char))), None)
        if atom is None:  # a lone surrogate
            return False
        state = int(factor.table[state, atom])
    return bool(factor.truths[state, 0])


@lru_cache(maxsize=256)
def _known_pattern(pattern: str) -> Factor:
    return _factor_of(parse_search_pattern(pattern, Budget(CompileLimits())), Budget(CompileLimits()))


@lru_cache
def _format_factor(name: str) -> Factor:
    budget = Budget(CompileLimits())
    return _factor_of(format_node(name, budget), budget)


def text_factor(atoms: Sequence[Pattern | Format | TextEquals], budget: Budget) -> tuple[Factor, list[int]]:
    """Follows all atoms at once, formats without their bounds on the length.

    Returned with it, for each atom, its column of `truths`.
    """
    texts = list(dict.fromkeys(atom.text for atom in atoms if isinstance(atom, TextEquals)))
    columns: dict[StringAtom, int] = {TextEquals(text): column for column, text in enumerate(texts)}
    factors = [_one_of(texts)] if texts else []
    for atom in dict.fromkeys(atoms):
        match atom:
            case Pattern(pattern):
                columns[atom] = len(columns)
                factors.append(_factor_of(parse_search_pattern(pattern, budget), budget))
            case Format(name):
                columns[atom] = len(columns)
                factors.append(_format_factor(name))
    if not factors:
        everything = Factor(np.zeros((1, 1), np.int32), 0, np.zeros((1, 0), np.bool_), [charset.SCALARS])
        return everything, [columns[atom] for atom in atoms]
    factor = factors[0]
    for other in factors[1:]:
        factor = _product(factor, other, budget)
    return factor, [columns[atom] for atom in atoms]


def _factor_of(node: Node, budget: Budget) -> Factor:
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
