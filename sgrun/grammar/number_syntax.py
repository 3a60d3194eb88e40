"""The grammar of JSON numbers (RFC 8259, section 6), with as much of the exponents as an automaton decides: the phases
of a number and the symbols that may follow in each."""

from __future__ import annotations

from enum import Enum, IntEnum, auto
from functools import cache

SYMBOLS = "0123456789-+.e"  # the columns of a number table; E is read as e
MINUS, _PLUS, _POINT, _EXPONENT = range(10, 14)


class Exponents(Enum):
    NONE = auto()
    WHOLE = auto()
    SCIENTIFIC = auto()
    ANY = auto()


class Phase(IntEnum):
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


P = Phase
NUMBERS = frozenset(
    {P.ZERO, P.ONE, P.FIRST, P.INTEGER, P.FRACTION, P.MANTISSA, P.EXPONENT_DIGIT, P.EXPONENT_DIGITS}
    | {P.POWER_1_TO_2, P.POWER_10_TO_29, P.POWER_3, P.POWER_30}
    | {P.U_TWO_DIGITS, P.D_5_TO_9, P.D_TWO_DIGITS, P.LAST_DIGIT}
)
IN_WHOLE = frozenset([P.ZERO, P.ONE, P.FIRST, P.INTEGER])
IN_FRACTION = frozenset([P.FRACTION, P.MANTISSA])
_POWER_DIGITS: dict[Phase, list[tuple[range, Phase]]] = {
    P.POWER: [
        (range(1), P.EXPONENT_DIGIT),
        (range(1, 3), P.POWER_1_TO_2),
        (range(3, 4), P.POWER_3),
        (range(4, 10), P.EXPONENT_DIGIT),
    ],
    P.POWER_1_TO_2: [(range(10), P.POWER_10_TO_29)],
    P.POWER_10_TO_29: [(range(10), P.EXPONENT_DIGITS)],
    P.POWER_3: [(range(1), P.POWER_30), (range(1, 10), P.EXPONENT_DIGITS)],
    P.POWER_30: [(range(9), P.EXPONENT_DIGITS)],
}
_POWER_DIGITS[P.POWER_SIGN] = _POWER_DIGITS[P.POWER]
SCIENTIFIC_DIGITS: dict[Phase, list[tuple[range, Phase]]] = {
    P.EXPONENT: [(range(1, 2), P.U_1), (range(2, 10), P.U_2_TO_9)],
    P.U: [(range(1, 2), P.U_1), (range(2, 10), P.U_2_TO_9)],
    P.U_1: [(range(6), P.U_10_TO_15), (range(6, 10), P.U_TWO_DIGITS)],
    P.U_2_TO_9: [(range(10), P.U_TWO_DIGITS)],
    P.U_10_TO_15: [(range(10), P.LAST_DIGIT)],
    P.U_TWO_DIGITS: [(range(10), P.LAST_DIGIT)],
    P.D: [(range(1), P.D_0), (range(1, 5), P.D_1_TO_4), (range(5, 10), P.D_5_TO_9)],
    P.D_0: [(range(5, 10), P.LAST_DIGIT)],
    P.D_1_TO_4: [(range(10), P.D_TWO_DIGITS)],
    P.D_5_TO_9: [(range(10), P.D_TWO_DIGITS)],
    P.D_TWO_DIGITS: [(range(10), P.LAST_DIGIT)],
}


@cache
def syntax(phase: Phase, exponents: Exponents) -> list[tuple[int, Phase]]:
    """The symbols that may follow, each with the phase it leads to."""
    match phase:
        case P.START | P.SIGN:
            minus = [(MINUS, P.SIGN)] if phase is P.START else []
            one = P.ONE if exponents is Exponents.WHOLE else P.FIRST
            return [*minus, (0, P.ZERO), (1, one), *((d, P.FIRST) for d in range(2, 10))]
        case P.ZERO | P.ONE | P.FIRST | P.INTEGER:
            is_mantissa = exponents is Exponents.SCIENTIFIC and phase is P.FIRST
            after = [(_POINT, P.MANTISSA_POINT if is_mantissa else P.POINT)]
            if phase is not P.ZERO:
                after += [(d, P.INTEGER) for d in range(10)]
            if is_mantissa or exponents in (Exponents.WHOLE, Exponents.ANY):
                after.append((_EXPONENT, P.POWER if phase is P.ONE else P.EXPONENT))
            return after
        case P.POINT | P.FRACTION:
            after = [(d, P.FRACTION) for d in range(10)]
            if phase is P.FRACTION and exponents is Exponents.ANY:
                after.append((_EXPONENT, P.EXPONENT))
            return after
        case P.MANTISSA_POINT:
            return [(d, P.MANTISSA) for d in range(10)]
        case P.MANTISSA:
            return [(_EXPONENT, P.EXPONENT), *((d, P.MANTISSA) for d in range(10))]
    if phase in _POWER_DIGITS:
        plus = [(_PLUS, P.POWER_SIGN)] if phase is P.POWER else []
        return plus + [(d, to) for digits, to in _POWER_DIGITS[phase] for d in digits]
    if exponents is Exponents.SCIENTIFIC:
        signs = [(_PLUS, P.U), (MINUS, P.D)] if phase is P.EXPONENT else []
        return signs + [(d, to) for digits, to in SCIENTIFIC_DIGITS.get(phase, ()) for d in digits]
    digit_phase = {
        P.EXPONENT: P.EXPONENT_DIGIT,
        P.EXPONENT_SIGN: P.EXPONENT_DIGIT,
        P.EXPONENT_DIGIT: P.EXPONENT_DIGITS,
        P.EXPONENT_DIGITS: P.EXPONENT_DIGITS,
    }[phase]
    after = [(d, digit_phase) for d in range(10)]
    if phase is P.EXPONENT:
        signs_allowed = (_PLUS, MINUS) if exponents is Exponents.ANY else (_PLUS,)
        after += [(sign, P.EXPONENT_SIGN) for sign in signs_allowed]
    if phase is P.EXPONENT_DIGITS and exponents is Exponents.WHOLE:
        return []
    return after
