"""JSON numbers: what a schema can assert of one, and the automaton that reads one digit by digit.

Assertions are about the exact value that the text denotes, so `1`, `1.0` and `1.00` are one number. Values are compared
with a bound digit by digit; divisibility is a residue of the digits so far. Which exponents are generated (the text has
to be decided by finitely many states, and the exponent comes after the digits):

- no assertion: any exponent;
- `Integer` and `MultipleOf` of parts of 1 (0.5, 0.01) alone: non-negative exponents of at most two digits behind an
  integer, and up to 308 behind a 1, the powers of ten that a double holds;
- bounds and equalities: scientific notation with one digit before the point and an exponent of at least 16 or at most
  -5, which is where `json.dumps` and JavaScript use it;
- otherwise: none.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from math import gcd
from typing import Any

import numpy as np

from sgrun.grammar.labelled import Table
from sgrun.grammar.limits import Budget
from sgrun.grammar.number_bounds import Comparison
from sgrun.grammar.number_syntax import IN_FRACTION, IN_WHOLE, NUMBERS, SYMBOLS, Exponents, P, Phase, syntax


@dataclass(frozen=True, slots=True)
class Integer:
    """The value has no fractional part. `is_plain`: whole numbers that are spelled with a point or an exponent, which
    some readers make floats of, are not in the language at all."""

    is_plain: bool = False


@dataclass(frozen=True, slots=True)
class AtLeast:
    value: Fraction
    exclusive: bool = False


@dataclass(frozen=True, slots=True)
class AtMost:
    value: Fraction
    exclusive: bool = False


@dataclass(frozen=True, slots=True)
class MultipleOf:
    """`value` is above 0 and has a finite decimal expansion."""

    value: Fraction


@dataclass(frozen=True, slots=True)
class NumberEquals:
    value: Fraction


NumberAtom = Integer | AtLeast | AtMost | MultipleOf | NumberEquals


def exact_value(value: int | float | Fraction) -> Fraction:
    """The number that the JSON text of `value` denotes: of the float 0.1, one tenth."""
    return Fraction(repr(value)) if isinstance(value, float) else Fraction(value)


def number_holds(atom: NumberAtom, value: int | float | Fraction) -> bool:
    exact = exact_value(value)
    match atom:
        case Integer():
            return exact.denominator == 1
        case AtLeast(bound, exclusive):
            return exact > bound or (exact == bound and not exclusive)
        case AtMost(bound, exclusive):
            return exact < bound or (exact == bound and not exclusive)
        case MultipleOf(step):
            return (exact / step).denominator == 1
        case NumberEquals(other):
            return exact == other


@dataclass(frozen=True, eq=False, slots=True)
class NumberTable:
    """`table[state, symbol]` is the next state, 0 if there is none; the start is 1. `truths[state]` says which atoms
    hold of the text so far, None where it is not a number."""

    table: Table
    truths: list[tuple[bool, ...] | None]


def number_table(atoms: tuple[NumberAtom, ...], budget: Budget) -> NumberTable:
    """Raises GrammarTooLargeError, most of all for a large `MultipleOf`."""
    return _explore(atoms, budget)


_Residue = tuple[int, int] | None
_MAX_SHORT = 40  # more digits than any modulus has that is followed


class _Divisibility:
    """Whether `step` divides the number. With step = m / 10**d, the state is the value so far, times 10**d, modulo m,
    and how many digits behind the point have been read; None once a digit makes it impossible. Of residues that no
    further digits tell apart, one stands for all."""

    def __init__(self, step: Fraction, budget: Budget) -> None:
        self._num_places, self._modulus = _scaled(step)
        budget.check("max_residues", num_residues(step))
        self._num_short = _num_short(self._num_places, self._modulus)
        self._alike: dict[tuple[int, ...], int] = {}
        self._one_for_all(0)

    def start(self, is_negative: bool) -> _Residue:
        return (0, 0)

    def after(self, state: _Residue, phase: Phase, symbol: int) -> _Residue:
        if state is None or symbol >= 10:
            return state
        residue, places = state
        if phase not in IN_FRACTION:
            if phase in IN_WHOLE:
                return (self._one_for_all((10 * residue + symbol * 10**self._num_places) % self._modulus), 0)
            return state  # a digit of an exponent that cannot make a multiple of 1 something else
        if places == self._num_places:
            return state if symbol == 0 else None
        weight = 10 ** (self._num_places - places - 1)
        residue = (residue + symbol * weight) % self._modulus
        return (residue, places + 1) if -residue % self._modulus < weight else None

    def result(self, state: _Residue) -> int:
        return 0 if state is not None and state[0] == 0 else 1

    def _one_for_all(self, residue: int) -> int:
        """What completes a residue: after each number of digits that is too small to reach every residue, the one value
        of these digits that does, if there is one; after more digits, all that is left of the residue."""
        key = []
        for num_digits in range(self._num_short):
            missing = -residue * 10**num_digits % self._modulus
            key.append(missing if missing < 10 ** (num_digits + self._num_places) else -1)
        key.append(residue * 10**self._num_short % self._modulus)
        return self._alike.setdefault(tuple(key), residue)


def num_residues(step: Fraction) -> int:
    """At least how many states divisibility takes: Alexeev, Minimal DFA for testing divisibility (2004)."""
    num_places, modulus = _scaled(step)
    total, apart = modulus // gcd(10**num_places, modulus), 0
    for num_digits in range(num_places, num_places + min(_num_short(num_places, modulus), _MAX_SHORT)):
        apart += 10**num_digits // gcd(10**num_digits, modulus) + 1
        total = min(total, apart + modulus // gcd(10 ** (num_digits + 1), modulus))
    for num_digits in range(num_places):  # that are to come behind the point
        common = gcd(10**num_digits, modulus)
        total += min(modulus // common, 10**num_digits // common + 1)
    return total


def _scaled(step: Fraction) -> tuple[int, int]:
    """d and m of step = m / 10**d. Only decimal fractions can be spelled, so the factors of the denominator that are
    neither 2 nor 5 cancel."""
    twos, rest = _without_factor(step.denominator, 2)
    fives, rest = _without_factor(rest, 5)
    num_places = max(twos, fives)
    return num_places, int(step * rest * 10**num_places)


def _num_short(num_places: int, modulus: int) -> int:
    """How many digits before the point it takes to reach every residue."""
    return max(0, len(str(modulus - 1)) - num_places)


def _without_factor(number: int, factor: int) -> tuple[int, int]:
    count = 0
    while number % factor == 0:
        number //= factor
        count += 1
    return count, number


_Tracker = _Divisibility | Comparison


class _Steps:
    """One tracker with its places as numbers, each step taken once."""

    def __init__(self, tracker: _Tracker) -> None:
        self._tracker: Any = tracker  # its places are its own affair
        self._places: list[Any] = []
        self._numbers: dict[Any, int] = {}
        self._known: dict[tuple[int, Phase, int], int] = {}

    def start(self, is_negative: bool) -> int:
        return self._number(self._tracker.start(is_negative))

    def after(self, number: int, phase: Phase, symbol: int) -> int:
        key = (number, phase, symbol)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._number(self._tracker.after(self._places[number], phase, symbol))
        return known

    def result(self, number: int) -> int:
        result: int = self._tracker.result(self._places[number])
        return result

    def _number(self, place: Any) -> int:
        number = self._numbers.setdefault(place, len(self._places))
        if number == len(self._places):
            self._places.append(place)
        return number


def _explore(atoms: tuple[NumberAtom, ...], budget: Budget) -> NumberTable:
    """Runs all atoms side by side over every number."""
    exponents = _exponents_for(atoms)
    keys = [_tracker_key(atom) for atom in atoms]
    indices = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    has_scientific = exponents is Exponents.SCIENTIFIC
    running = [
        _Steps(Comparison(value, has_scientific) if is_bound else _Divisibility(value, budget))
        for is_bound, value in indices
    ]
    plain = [indices[_tracker_key(atom)] for atom in atoms if atom == Integer(is_plain=True)]
    tests = [(indices[key], _signs_that_hold(atom)) for key, atom in zip(keys, atoms, strict=True)]
    positive, negative = (tuple(steps.start(is_negative) for steps in running) for is_negative in (False, True))

    states: dict[tuple[Phase, tuple[int, ...]], int] = {(P.START, positive): 1}
    rows: list[list[int]] = [[0] * len(SYMBOLS)]
    truths: list[tuple[bool, ...] | None] = [None]
    waiting = deque(states)
    while waiting:
        phase, places = waiting.popleft()
        row = [0] * len(SYMBOLS)
        for symbol, to in syntax(phase, exponents):
            if to is P.SIGN:
                following = negative
            else:
                following = tuple(
                    [steps.after(place, to, symbol) for steps, place in zip(running, places, strict=True)]
                )
            state = (to, following)
            number = states.get(state)
            if number is None:
                number = states[state] = len(states) + 1
                budget.spend("max_states", 1)
                waiting.append(state)
            row[symbol] = number
        rows.append(row)
        if phase in NUMBERS:
            results = [steps.result(place) for steps, place in zip(running, places, strict=True)]
            is_left_out = phase in IN_FRACTION and any(results[i] == 0 for i in plain)
            truths.append(None if is_left_out else tuple(results[i] in signs for i, signs in tests))
        else:
            truths.append(None)
    return NumberTable(np.array(rows, dtype=np.int32), truths)


def _exponents_for(atoms: tuple[NumberAtom, ...]) -> Exponents:
    if not atoms:
        return Exponents.ANY
    if all(_keeps_truth(atom) for atom in atoms):
        return Exponents.WHOLE
    if any(isinstance(atom, Integer | MultipleOf) for atom in atoms):
        return Exponents.NONE
    return Exponents.SCIENTIFIC


def _keeps_truth(atom: NumberAtom) -> bool:
    """Whether an exponent leaves the truth of a whole number as it is."""
    match atom:
        case Integer(is_plain):
            return not is_plain
        case MultipleOf(step):
            return step.numerator == 1
    return False


def _tracker_key(atom: NumberAtom) -> tuple[bool, Fraction]:
    """Whether the atom compares, and with what; else what has to divide the number."""
    match atom:
        case Integer():
            return (False, Fraction(1))
        case MultipleOf(step):
            return (False, step)
        case AtLeast(value, _) | AtMost(value, _) | NumberEquals(value):
            return (True, value)


def _signs_that_hold(atom: NumberAtom) -> tuple[int, ...]:
    """The results of the atom's tracker that make it true."""
    match atom:
        case AtLeast(_, is_exclusive):
            return (1,) if is_exclusive else (0, 1)
        case AtMost(_, is_exclusive):
            return (-1,) if is_exclusive else (-1, 0)
        case _:
            return (0,)
