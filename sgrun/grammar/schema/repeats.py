"""Owns where a text may repeat a property name that no schema lists so that readers, who keep the last value, see
another truth than the automaton, which sees every one.

Where an assertion is wanted to hold, no harm is done: it holds of every value. It is where one is wanted to fail (under
`not`, in `oneOf`, in `if`) that a value may make it fail which a later one replaces; and where properties are counted,
that one may count twice.
"""

from __future__ import annotations

from collections.abc import Iterator

from sgrun.grammar.schema.atoms import (
    ContainsAtLeast,
    ContainsAtMost,
    Items,
    Properties,
    PropertiesAtLeast,
    PropertiesAtMost,
)
from sgrun.grammar.schema.formula import Formulas, Kind

_CONTAINERS: tuple[Kind, ...] = ("array", "object")


def misjudged(formulas: Formulas, root: int, met: set[int]) -> set[int]:
    """Of the atoms (formula ids) that were `met` where names may be repeated, those whose truth repeats can bend to
    what the formula `root` wants. Goes through what the exploration has specialised."""
    return {
        formula
        for formula, is_wanted in _uses(formulas, root)
        if formula in met and isinstance(formulas.atom_of(formula), PropertiesAtLeast) == is_wanted
    }


def _uses(formulas: Formulas, root: int) -> set[tuple[int, bool]]:
    """Every atom about arrays and objects, each with whether it is wanted to hold or to fail."""
    found: set[tuple[int, bool]] = set()
    values = {(root, True)}
    waiting = [(root, True)]
    while waiting:
        value, is_wanted = waiting.pop()
        for kind in _CONTAINERS:
            for atom, is_positive in formulas.signed_atoms(value, kind):
                use = (atom, is_positive == is_wanted)
                if use in found:
                    continue
                found.add(use)
                for inner, keeps in _inside(formulas, atom):
                    below = (inner, keeps == use[1])
                    if below not in values:
                        values.add(below)
                        waiting.append(below)
    return found


def _inside(formulas: Formulas, formula: int) -> Iterator[tuple[int, bool]]:
    """The formulas that an atom asks of values inside, and whether it holds the rather when these hold."""
    match formulas.atom_of(formula):
        case Items(prefix, rest):
            yield from ((inner, True) for inner in (*prefix, rest))
        case ContainsAtLeast(inner):
            yield inner, True
        case ContainsAtMost(inner):
            yield inner, False
        case Properties(named, patterns, rest):
            yield from ((inner, True) for _, inner in (*named, *patterns))
            yield rest, True


def can_be_repeated(atom: PropertiesAtLeast | PropertiesAtMost) -> bool:
    """Whether a property that is counted next and its repetition can make the difference."""
    return atom.count > 1 if isinstance(atom, PropertiesAtLeast) else atom.count > 0
