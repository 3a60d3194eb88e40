"""Compares a JSON number with a bound, digit by digit."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from sgrun.errors import GrammarTooLargeError
from sgrun.grammar.number_syntax import IN_FRACTION, MINUS, SCIENTIFIC_DIGITS, P, Phase

_MAX_BOUND_BITS = 13_000  # below the digits that Python turns into text


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


class Comparison:
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

    def after(self, place: _Place, phase: Phase, symbol: int) -> _Place:
        match place:
            case _Whole(is_negative, digits, mantissa):
                if phase is P.EXPONENT:
                    return place
                if phase in (P.POINT, P.MANTISSA_POINT):
                    sign = self._whole.result(digits)
                    return self._decimal(is_negative, (sign, 0 if sign else self._rest), mantissa)
                if symbol >= 10 or phase in SCIENTIFIC_DIGITS:
                    return self._scientific(is_negative, mantissa, phase, symbol)
                return self._whole_digit(place, phase, symbol)
            case _Decimal(is_negative, tail, mantissa):
                if phase is P.EXPONENT:
                    return place
                if phase not in IN_FRACTION:
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

    def _whole_digit(self, place: _Whole, phase: Phase, digit: int) -> _Place:
        digits = self._whole.after(place.digits, digit)
        mantissa = None
        if phase is P.FIRST and self._has_scientific:
            sign = _sign(digit - self._first_digit)
            mantissa = (sign, 0 if sign else self._mantissa_rest)
        if mantissa is None and self._whole.is_longer(digits):
            return -1 if place.is_negative else 1
        return _Whole(place.is_negative, digits, mantissa)

    def _decimal(self, is_negative: bool, tail: _Tail, mantissa: _Tail | None) -> _Place:
        if mantissa is None and tail[0]:
            return -tail[0] if is_negative else tail[0]
        return _Decimal(is_negative, tail, mantissa)

    def _scientific(self, is_negative: bool, mantissa: _Tail | None, phase: Phase, symbol: int) -> _Place:
        """After the first symbol behind the `e`, which shows the exponent's sign."""
        assert mantissa is not None
        is_up = symbol != MINUS
        is_exponent_far = self._exponent < 16 if is_up else self._exponent > -5
        if is_exponent_far or self._bound_sign == 0:
            sign = 1 if is_up or self._bound_sign == 0 else -1
            return -sign if is_negative else sign
        place = _Scientific(is_negative, _tail_result(mantissa), is_up, (0, 0))
        return place if symbol >= 10 else self.after(place, phase, symbol)


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
