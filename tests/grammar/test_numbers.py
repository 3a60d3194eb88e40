from __future__ import annotations

import json
import re
from decimal import Decimal
from fractions import Fraction

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scalar_walks import all_hold, bits, label_of, numbers, step

from sgrun.errors import GrammarTooLargeError
from sgrun.grammar.limits import Budget, CompileLimits
from sgrun.grammar.numbers import (
    AtLeast,
    AtMost,
    Integer,
    MultipleOf,
    NumberAtom,
    NumberEquals,
    exact_value,
    number_holds,
)
from sgrun.grammar.procedure import END, Return
from sgrun.grammar.scalars import number_procedure

_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_WHOLE_WITH_POINT = re.compile(r"-?[0-9]+\.0+([eE].*)?")
_NEAR = ["0", "1", "-1", "10", "100", "99", "-0.5", "57.25", "0.1", "0.001"]
_FAR = ["1e-5", "5e-7", "1e-20", "1e16", "1e20", "1.5e16", "1e22", "-1e22", str(2**63 - 1), str(-(2**63)), str(2**64)]
_BOUNDS = [Fraction(text) for text in _NEAR + _FAR]
_STEPS = [
    Fraction(text)
    for text in (
        "1",
        "2",
        "7",
        "10",
        "0.01",
        "2.5",
        "1e-8",
        "0.125",
        "0.3",
        "1500",
        "1/3",
        "10/7",
        "96",
        "0.048",
        "1024",
    )
]

_bounds = st.sampled_from(_BOUNDS) | st.fractions(-1000, 1000, max_denominator=1).map(lambda value: value / 100)
_atoms: st.SearchStrategy[NumberAtom] = st.one_of(
    st.builds(Integer, st.booleans()),
    st.builds(AtLeast, _bounds, st.booleans()),
    st.builds(AtMost, _bounds, st.booleans()),
    st.builds(MultipleOf, st.sampled_from(_STEPS)),
    st.builds(NumberEquals, _bounds),
)
_digits = st.text("0123456789", max_size=3)
_texts = st.one_of(
    st.builds(
        "".join,
        st.tuples(
            st.sampled_from(["", "-"]),
            st.integers(0, 1200).map(str),
            st.sampled_from(["", ".", ".0", ".00", ".5", ".25"]) | _digits.map(".{}".format),
            st.sampled_from(["", "", "e5", "e+16", "e-5", "E22", "e-05", "e+", "e0"]),
        ),
    ),
    st.sampled_from(_BOUNDS).map(lambda value: json.dumps(float(value))),
    st.sampled_from(_BOUNDS).map(lambda value: str(int(value))),
    st.sampled_from(["", "-", "01", "1.", ".5", "+1", "-01", "00", "-0", "-0.0", "1..0", "1e5.0", "1-"]),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(_atoms, max_size=3), st.lists(_texts, min_size=1, max_size=20))
def test_labels_agree_with_exact_arithmetic(atoms: list[NumberAtom], texts: list[str]) -> None:
    procedure = numbers(*atoms)
    for text in texts:
        label = label_of(procedure, text)
        is_left_out = Integer(is_plain=True) in atoms and _WHOLE_WITH_POINT.fullmatch(text)
        if is_left_out or not _JSON_NUMBER.fullmatch(text):
            assert label is None
        elif "e" not in text.lower() or label is not None:
            value = Fraction(text)
            assert label == bits(tuple(number_holds(atom, value) for atom in atoms))


@settings(max_examples=100, deadline=None)
@given(st.lists(_bounds.map(NumberEquals) | st.builds(AtLeast, _bounds), min_size=1, max_size=2), st.floats(0, 1e300))
def test_floats_as_json_dumps_writes_them_are_read(atoms: list[NumberAtom], value: float) -> None:
    for number in (value, -value, 1 / (value + 1)):
        expected = bits(tuple(number_holds(atom, number) for atom in atoms))
        assert label_of(numbers(*atoms), json.dumps(number)) == expected


@settings(max_examples=100, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["integer", "number"]),
            "minimum": st.integers(-50, 50),
            "exclusiveMaximum": st.integers(-50, 50) | st.sampled_from([0.5, 12.75]),
            "multipleOf": st.sampled_from([1, 3, 0.5, 0.25]),
        },
    ),
    st.lists(st.integers(-60, 60) | st.integers(-240, 240).map(lambda value: value / 4), min_size=5, max_size=20),
)
def test_acceptance_agrees_with_jsonschema(schema: dict[str, object], values: list[int | float]) -> None:
    atoms: list[NumberAtom] = [Integer()] if schema.get("type") == "integer" else []
    for keyword, number in schema.items():
        match keyword, number:
            case "minimum", int() | float():
                atoms.append(AtLeast(exact_value(number)))
            case "exclusiveMaximum", int() | float():
                atoms.append(AtMost(exact_value(number), exclusive=True))
            case "multipleOf", int() | float():
                atoms.append(MultipleOf(exact_value(number)))
    procedure = number_procedure(atoms, all_hold, Budget(CompileLimits()))
    validator = jsonschema.Draft202012Validator(schema)
    for value in values:
        assert (label_of(procedure, json.dumps(value)) == 0) == validator.is_valid(value)


@pytest.mark.parametrize(
    ("atom", "taken", "refused"),
    [
        (
            Integer(),
            ["0", "-0", "7", "1.0", "10.00", "1e2", "12E+05", "1e1", "1e+308", "-1E123", "1e30", "1e00"],
            ["1.5", "0.1", "1e-2", "1e309", "1e400", "2e100", "11e100"],
        ),
        (Integer(is_plain=True), ["0", "-0", "7", "-120"], ["1.0", "-0.0", "1e2", "1e+308", "1.5"]),
        (MultipleOf(Fraction(1, 2)), ["1.5", "1e2", "1e+308"], ["1.5e2", "1.2"]),
        (NumberEquals(Fraction(1)), ["1", "1.0", "1.00"], ["1.01", "10", "-1", "0.99"]),
        (NumberEquals(Fraction(0)), ["0", "-0", "0.0", "-0.00"], ["0.01", "1"]),
        (NumberEquals(exact_value(1e-05)), ["1e-05", "1e-5", "1E-05", "0.00001", "1.0e-05"], ["1e-06", "1e+05"]),
        (NumberEquals(exact_value(1e22)), ["1e+22", "1e22", "1.0e22", "1" + 22 * "0"], ["1e+23", "1e-22", "1.1e22"]),
        (
            AtMost(exact_value(1e308)),
            ["1e308", "1" + 308 * "0", "1e+16", "-1e999"],
            ["1.01e308", "1" + 309 * "0", "2e308"],
        ),
        (AtMost(Fraction(2**63 - 1)), ["9223372036854775807"], ["9223372036854775808", "9223372036854775807.1"]),
        (AtMost(Fraction(0), exclusive=True), ["-0.1", "-7", "-1e-07"], ["0", "-0", "-0.0", "1"]),
        (AtLeast(Fraction(1, 4)), ["0.25", "0.250", "3"], ["0.2", "0.24", "-1", "-0.25"]),
        (MultipleOf(Fraction(1, 100)), ["0.01", "1", "3.14", "2.500"], ["0.001", "1.005"]),
        (MultipleOf(Fraction(5, 2)), ["0", "2.5", "-7.5", "10", "10.0"], ["1", "2.6", "2.51"]),
        (MultipleOf(Fraction(1, 10**8)), ["0.00000001", "1"], ["0.000000001"]),
    ],
    ids=str,
)
def test_what_one_assertion_takes(atom: NumberAtom, taken: list[str], refused: list[str]) -> None:
    procedure = number_procedure([atom], all_hold, Budget(CompileLimits()))
    assert [text for text in taken if label_of(procedure, text) != 0] == []
    assert [text for text in refused if label_of(procedure, text) is not None] == []


def test_a_number_without_assertions_may_have_any_exponent() -> None:
    for text in ("0", "-1.5e-300", "1E+400", "0e0", "12e7"):
        assert label_of(numbers(), text) == 0


def test_a_number_returns_before_whatever_does_not_continue_it() -> None:
    procedure = number_procedure([AtMost(Fraction(99)), Integer()], all_hold, Budget(CompileLimits()))
    place = (0, 0)
    for byte in b"99":
        after = step(procedure, place, byte)
        assert isinstance(after, tuple)
        place = after
    returning = [column for column in range(END + 1) if step(procedure, place, column) == Return(0, consumes=False)]
    assert returning == [column for column in range(END + 1) if column != ord(".")]


def test_no_number_at_all_is_an_empty_procedure() -> None:
    procedure = number_procedure([AtLeast(Fraction(3)), AtMost(Fraction(2))], all_hold, Budget(CompileLimits()))
    assert not procedure.table.any()


def test_a_negated_assertion_is_exact() -> None:
    procedure = number_procedure(
        [MultipleOf(Fraction(3))], lambda truths: None if truths[0] else 5, Budget(CompileLimits())
    )
    assert [n for n in range(50) if label_of(procedure, str(n)) == 5] == [n for n in range(50) if n % 3]
    assert label_of(procedure, "3.5") == 5


def test_minimal_tables_are_small() -> None:
    atoms = [Integer(), AtLeast(Fraction(0)), AtMost(Fraction(100))]
    assert len(number_procedure(atoms, all_hold, Budget(CompileLimits())).table) <= 10
    assert len(numbers().table) <= 10


@pytest.mark.parametrize(
    "value", [Fraction(10_007), Fraction(99_991, 10**6), Fraction(10) ** 4000], ids=["7", "6", "10"]
)
def test_a_large_modulus_is_refused(value: Fraction) -> None:
    with pytest.raises(GrammarTooLargeError, match="max_residues"):
        numbers(MultipleOf(value))


@pytest.mark.parametrize(
    ("step", "num_states"),
    [("100000", 30), ("1e15", 60), ("86400", 450), ("65536", 8600), ("0.00390625", 2000), ("1e-300", 700)],
)
def test_residues_that_no_digits_tell_apart_are_one(step: str, num_states: int) -> None:
    value = Fraction(step)
    procedure = numbers(MultipleOf(value))
    assert len(procedure.table) <= num_states
    for factor in (1, 3, 10, 77, 1024):
        for other in (Fraction(0), value / 2, value / 5, value / 10):
            if (value * factor + other).denominator < 10**12:
                text = format(Decimal((value * factor + other).numerator) / (value * factor + other).denominator, "f")
                assert label_of(procedure, text) == (other == 0), text


def test_many_small_moduli_are_refused_together() -> None:
    with pytest.raises(GrammarTooLargeError, match="max_states"):
        number_procedure(
            [MultipleOf(Fraction(p)) for p in (97, 89, 83)], all_hold, Budget(CompileLimits(max_states=5000))
        )


def test_a_bound_of_very_many_digits_is_refused() -> None:
    with pytest.raises(GrammarTooLargeError, match="too many digits"):
        numbers(AtMost(Fraction(10) ** 20_000))
