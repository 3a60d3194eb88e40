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
from enum import Enum, IntEnum, auto
from fractions import Fraction
from functools import cache
from math import gcd
from typing import Any

import numpy as np

from sgrun.errors import GrammarTooLargeError
from sgrun.grammar.labelled import Table
from sgrun.grammar.limits import Budget


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


_MAX_BOUND_BITS = 13_000  # below the digits that Python turns into text
SYMBOLS = "0123456789-+.e"  # the columns of a number table; E is read as e
_MINUS, _PLUS, _POINT, _EXPONENT = range(10, 14)


@dataclass(frozen=True, eq=False, slots=True)
class NumberTable:
    """`table[state, symbol]` is the next state, 0 if there is none; the start is 1. `truths[state]` says which atoms
    hold of the text so far, None where it is not a number."""

    table: Table
    truths: list[tuple[bool, ...] | None]


def number_table(atoms: tuple[NumberAtom, ...], budget: Budget) -> NumberTable:
    """Raises GrammarTooLargeError, most of all for a large `MultipleOf`."""
    return _explore(atoms, budget)


class _Exponents(Enum):
    NONE = auto()
    WHOLE = auto()
    SCIENTIFIC = auto()
    ANY = auto()


class _Phase(IntEnum):
    START = auto()
    SIGN = auto()
    ZERO = auto()
    ONE = auto()  # as the first digit, where exponents are of whole numbers
    FIRST = auto()  # one digit, not 0
    INTEGER = auto()
    POINT = auto()
    FRACTION = auto()
    MANTISSA_POINT = auto()  # as the two before, with one digit before the point
    MANTISSA = auto()
    EXPONENT = auto()
    EXPONENT_SIGN = auto()
    EXPONENT_DIGIT = auto()
    EXPONENT_DIGITS = auto()
    # The exponent of a power of ten, by its digits so far
    POWER = auto()
    POWER_SIGN = auto()
    POWER_1_TO_2 = auto()
    POWER_10_TO_29 = auto()
    POWER_3 = auto()
    POWER_30 = auto()
    # Scientific notation: the exponent is U (up, at least 16) or D (down, at most -5).
    U = auto()
    U_1 = auto()
    U_2_TO_9 = auto()
    U_10_TO_15 = auto()
    U_TWO_DIGITS = auto()
    D = auto()
    D_0 = auto()
    D_1_TO_4 = auto()
    D_5_TO_9 = auto()
    D_TWO_DIGITS = auto()
    LAST_DIGIT = auto()


_P = _Phase
_NUMBERS = frozenset(
    {_P.ZERO, _P.ONE, _P.FIRST, _P.INTEGER, _P.FRACTION, _P.MANTISSA, _P.EXPONENT_DIGIT, _P.EXPONENT_DIGITS}
    | {_P.POWER_1_TO_2, _P.POWER_10_TO_29, _P.POWER_3, _P.POWER_30}
    | {_P.U_TWO_DIGITS, _P.D_5_TO_9, _P.D_TWO_DIGITS, _P.LAST_DIGIT}
)
_IN_WHOLE = frozenset([_P.ZERO, _P.ONE, _P.FIRST, _P.INTEGER])
_IN_FRACTION = frozenset([_P.FRACTION, _P.MANTISSA])
_POWER_DIGITS: dict[_Phase, list[tuple[range, _Phase]]] = {
    _P.POWER: [
        (range(1), _P.EXPONENT_DIGIT),
        (range(1, 3), _P.POWER_1_TO_2),
        (range(3, 4), _P.POWER_3),
        (range(4, 10), _P.EXPONENT_DIGIT),
    ],
    _P.POWER_1_TO_2: [(range(10), _P.POWER_10_TO_29)],
    _P.POWER_10_TO_29: [(range(10), _P.EXPONENT_DIGITS)],
    _P.POWER_3: [(range(1), _P.POWER_30), (range(1, 10), _P.EXPONENT_DIGITS)],
    _P.POWER_30: [(range(9), _P.EXPONENT_DIGITS)],
}
_POWER_DIGITS[_P.POWER_SIGN] = _POWER_DIGITS[_P.POWER]
_SCIENTIFIC_DIGITS: dict[_Phase, list[tuple[range, _Phase]]] = {
    _P.EXPONENT: [(range(1, 2), _P.U_1), (range(2, 10), _P.U_2_TO_9)],
    _P.U: [(range(1, 2), _P.U_1), (range(2, 10), _P.U_2_TO_9)],
    _P.U_1: [(range(6), _P.U_10_TO_15), (range(6, 10), _P.U_TWO_DIGITS)],
    _P.U_2_TO_9: [(range(10), _P.U_TWO_DIGITS)],
    _P.U_10_TO_15: [(range(10), _P.LAST_DIGIT)],
    _P.U_TWO_DIGITS: [(range(10), _P.LAST_DIGIT)],
    _P.D: [(range(1), _P.D_0), (range(1, 5), _P.D_1_TO_4), (range(5, 10), _P.D_5_TO_9)],
    _P.D_0: [(range(5, 10), _P.LAST_DIGIT)],
    _P.D_1_TO_4: [(range(10), _P.D_TWO_DIGITS)],
    _P.D_5_TO_9: [(range(10), _P.D_TWO_DIGITS)],
    _P.D_TWO_DIGITS: [(range(10), _P.LAST_DIGIT)],
}


@cache
def _syntax(phase: _Phase, exponents: _Exponents) -> list[tuple[int, _Phase]]:
    """The symbols that may follow, each with the phase it leads to."""
    match phase:
        case _P.START | _P.SIGN:
            minus = [(_MINUS, _P.SIGN)] if phase is _P.START else []
            one = _P.ONE if exponents is _Exponents.WHOLE else _P.FIRST
            return [*minus, (0, _P.ZERO), (1, one), *((d, _P.FIRST) for d in range(2, 10))]
        case _P.ZERO | _P.ONE | _P.FIRST | _P.INTEGER:
            is_mantissa = exponents is _Exponents.SCIENTIFIC and phase is _P.FIRST
            after = [(_POINT, _P.MANTISSA_POINT if is_mantissa else _P.POINT)]
            if phase is not _P.ZERO:
                after += [(d, _P.INTEGER) for d in range(10)]
            if is_mantissa or exponents in (_Exponents.WHOLE, _Exponents.ANY):
                after.append((_EXPONENT, _P.POWER if phase is _P.ONE else _P.EXPONENT))
            return after
        case _P.POINT | _P.FRACTION:
            after = [(d, _P.FRACTION) for d in range(10)]
            if phase is _P.FRACTION and exponents is _Exponents.ANY:
                after.append((_EXPONENT, _P.EXPONENT))
            return after
        case _P.MANTISSA_POINT:
            return [(d, _P.MANTISSA) for d in range(10)]
        case _P.MANTISSA:
            return [(_EXPONENT, _P.EXPONENT), *((d, _P.MANTISSA) for d in range(10))]
    if phase in _POWER_DIGITS:
        plus = [(_PLUS, _P.POWER_SIGN)] if phase is _P.POWER else []
        return plus + [(d, to) for digits, to in _POWER_DIGITS[phase] for d in digits]
    if exponents is _Exponents.SCIENTIFIC:
        signs = [(_PLUS, _P.U), (_MINUS, _P.D)] if phase is _P.EXPONENT else []
        return signs + [(d, to) for digits, to in _SCIENTIFIC_DIGITS.get(phase, ()) for d in digits]
    digit_phase = {
        _P.EXPONENT: _P.EXPONENT_DIGIT,
        _P.EXPONENT_SIGN: _P.EXPONENT_DIGIT,
        _P.EXPONENT_DIGIT: _P.EXPONENT_DIGITS,
        _P.EXPONENT_DIGITS: _P.EXPONENT_DIGITS,
    }[phase]
    after = [(d, digit_phase) for d in range(10)]
    if phase is _P.EXPONENT:
        signs_allowed = (_PLUS, _MINUS) if exponents is _Exponents.ANY else (_PLUS,)
        after += [(sign, _P.EXPONENT_SIGN) for sign in signs_allowed]
    if phase is _P.EXPONENT_DIGITS and exponents is _Exponents.WHOLE:
        return []
    return after


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

    def after(self, state: _Residue, phase: _Phase, symbol: int) -> _Residue:
        if state is None or symbol >= 10:
            return state
        residue, places = state
        if phase not in _IN_FRACTION:
            if phase in _IN_WHOLE:
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


class _Digits:
    """Compares a whole number, digit by digit from the left, with `bound`. States: (digits read, sign of the
    difference so far)."""

    def __init__(self, bound: int) -> None:
        self._digits = [int(d) for d in str(bound)]

    def after(self, state: tuple[int, int], digit: int) -> tuple[int, int]:
        num_read, sign = state
        if num_read == len(self._digits):
            return (num_read + 1, 1)
        if num_read > len(self._digits):
            return state
        return (num_read + 1, sign or _sign(digit - self._digits[num_read]))

    def is_longer(self, state: tuple[int, int]) -> bool:
        return state[0] > len(self._digits)

    def result(self, state: tuple[int, int]) -> int:
        num_read, sign = state
        return sign if num_read == len(self._digits) else _sign(num_read - len(self._digits))


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)


_Tail = tuple[int, int]  # sign of the difference so far, and what is left of the bound times its denominator


@dataclass(frozen=True, slots=True)
class _Whole:
    """Before the point. `mantissa` compares the same digits with the bound's mantissa, while there is one digit."""

    is_negative: bool
    digits: tuple[int, int]
    mantissa: _Tail | None


@dataclass(frozen=True, slots=True)
class _Decimal:
    """Behind the point."""

    is_negative: bool
    tail: _Tail
    mantissa: _Tail | None


@dataclass(frozen=True, slots=True)
class _Scientific:
    """Behind the `e`. `sign` compares the mantissas."""

    is_negative: bool
    sign: int
    is_up: bool
    digits: tuple[int, int]


_Place = int | _Whole | _Decimal | _Scientific  # an int is the sign of number - bound where that is settled


class _Comparison:
    """The sign of the number less `bound`."""

    def __init__(self, bound: Fraction, has_scientific: bool) -> None:
        if max(bound.numerator.bit_length(), bound.denominator.bit_length()) > _MAX_BOUND_BITS:
            raise GrammarTooLargeError(
                f"a bound has too many digits: at most {_MAX_BOUND_BITS} bits before and behind the point are compared"
            )
        size = abs(bound)
        self._bound_sign = _sign(bound.numerator)
        self._has_scientific = has_scientific
        self._whole = _Digits(size.numerator // size.denominator)
        self._rest, self._denominator = size.numerator % size.denominator, size.denominator
        self._exponent = _decimal_exponent(size) if size else 0
        self._exponent_digits = _Digits(abs(self._exponent))
        mantissa = size / Fraction(10) ** self._exponent
        self._first_digit, self._mantissa_rest = divmod(mantissa.numerator, mantissa.denominator)
        self._mantissa_denominator = mantissa.denominator

    def start(self, is_negative: bool) -> _Place:
        if is_negative and self._bound_sign > 0:
            return -1
        if not is_negative and self._bound_sign < 0:
            return 1
        return _Whole(is_negative, (0, 0), None)

    def after(self, place: _Place, phase: _Phase, symbol: int) -> _Place:
        match place:
            case _Whole(is_negative, digits, mantissa):
                if phase is _P.EXPONENT:
                    return place
                if phase in (_P.POINT, _P.MANTISSA_POINT):
                    sign = self._whole.result(digits)
                    return self._decimal(is_negative, (sign, 0 if sign else self._rest), mantissa)
                if symbol >= 10 or phase in _SCIENTIFIC_DIGITS:
                    return self._scientific(is_negative, mantissa, phase, symbol)
                return self._whole_digit(place, phase, symbol)
            case _Decimal(is_negative, tail, mantissa):
                if phase is _P.EXPONENT:
                    return place
                if phase not in _IN_FRACTION:
                    return self._scientific(is_negative, mantissa, phase, symbol)
                after = None if mantissa is None else _tail_after(mantissa, self._mantissa_denominator, symbol)
                return self._decimal(is_negative, _tail_after(tail, self._denominator, symbol), after)
            case _Scientific(is_negative, sign, is_up, exponent):
                if exponent == (0, 0) and symbol == 0:
                    return place  # 1e-05
                return _Scientific(is_negative, sign, is_up, self._exponent_digits.after(exponent, symbol))
            case _:
                return place

    def result(self, place: _Place) -> int:
        match place:
            case _Whole(is_negative, digits, _):
                sign = self._whole.result(digits) or -_sign(self._rest)
            case _Decimal(is_negative, tail, _):
                sign = _tail_result(tail)
            case _Scientific(is_negative, sign, is_up, exponent):
                bigger = self._exponent_digits.result(exponent)
                sign = (bigger if is_up else -bigger) or sign
            case _:
                return place
        return -sign if is_negative else sign

    def _whole_digit(self, place: _Whole, phase: _Phase, digit: int) -> _Place:
        digits = self._whole.after(place.digits, digit)
        mantissa = None
        if phase is _P.FIRST and self._has_scientific:
            sign = _sign(digit - self._first_digit)
            mantissa = (sign, 0 if sign else self._mantissa_rest)
        if mantissa is None and self._whole.is_longer(digits):
            return -1 if place.is_negative else 1
        return _Whole(place.is_negative, digits, mantissa)

    def _decimal(self, is_negative: bool, tail: _Tail, mantissa: _Tail | None) -> _Place:
        if mantissa is None and tail[0]:
            return -tail[0] if is_negative else tail[0]
        return _Decimal(is_negative, tail, mantissa)

    def _scientific(self, is_negative: bool, mantissa: _Tail | None, phase: _Phase, symbol: int) -> _Place:
        """After the first symbol behind the `e`, which shows the exponent's sign."""
        assert mantissa is not None
        is_up = symbol != _MINUS
        is_exponent_far = self._exponent < 16 if is_up else self._exponent > -5
        if is_exponent_far or self._bound_sign == 0:
            sign = 1 if is_up or self._bound_sign == 0 else -1
            return -sign if is_negative else sign
        place = _Scientific(is_negative, _tail_result(mantissa), is_up, (0, 0))
        return place if symbol >= 10 else self.after(place, phase, symbol)


def _tail_after(tail: _Tail, denominator: int, digit: int) -> _Tail:
    sign, rest = tail
    if sign:
        return tail
    bound_digit, rest = divmod(10 * rest, denominator)
    sign = _sign(digit - bound_digit)
    return (sign, 0 if sign else rest)


def _tail_result(tail: _Tail) -> int:
    sign, rest = tail
    return sign or -_sign(rest)


def _decimal_exponent(size: Fraction) -> int:
    """The e for which 10**e <= size < 10**(e + 1)."""
    guess = len(str(size.numerator)) - len(str(size.denominator))
    return guess if size >= Fraction(10) ** guess else guess - 1


_Tracker = _Divisibility | _Comparison


class _Steps:
    """One tracker with its places as numbers, each step taken once."""

    def __init__(self, tracker: _Tracker) -> None:
        self._tracker: Any = tracker  # its places are its own affair
        self._places: list[Any] = []
        self._numbers: dict[Any, int] = {}
        self._known: dict[tuple[int, _Phase, int], int] = {}

    def start(self, is_negative: bool) -> int:
        return self._number(self._tracker.start(is_negative))

    def after(self, number: int, phase: _Phase, symbol: int) -> int:
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
    has_scientific = exponents is _Exponents.SCIENTIFIC
    running = [
        _Steps(_Comparison(value, has_scientific) if is_bound else _Divisibility(value, budget))
        for is_bound, value in indices
    ]
    plain = [indices[_tracker_key(atom)] for atom in atoms if atom == Integer(is_plain=True)]
    tests = [(indices[key], _signs_that_hold(atom)) for key, atom in zip(keys, atoms, strict=True)]
    positive, negative = (tuple(steps.start(is_negative) for steps in running) for is_negative in (False, True))

    states: dict[tuple[_Phase, tuple[int, ...]], int] = {(_P.START, positive): 1}
    rows: list[list[int]] = [[0] * len(SYMBOLS)]
    truths: list[tuple[bool, ...] | None] = [None]
    waiting = deque(states)
    while waiting:
        phase, places = waiting.popleft()
        row = [0] * len(SYMBOLS)
        for symbol, to in _syntax(phase, exponents):
            if to is _P.SIGN:
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
        if phase in _NUMBERS:
            results = [steps.result(place) for steps, place in zip(running, places, strict=True)]
            is_left_out = phase in _IN_FRACTION and any(results[i] == 0 for i in plain)
            truths.append(None if is_left_out else tuple(results[i] in signs for i, signs in tests))
        else:
            truths.append(None)
    return NumberTable(np.array(rows, dtype=np.int32), truths)


def _exponents_for(atoms: tuple[NumberAtom, ...]) -> _Exponents:
    if not atoms:
        return _Exponents.ANY
    if all(_keeps_truth(atom) for atom in atoms):
        return _Exponents.WHOLE
    if any(isinstance(atom, Integer | MultipleOf) for atom in atoms):
        return _Exponents.NONE
    return _Exponents.SCIENTIFIC


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
