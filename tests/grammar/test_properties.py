from __future__ import annotations

import unicodedata

import pytest
import regex

from sgrun.grammar.charset import MAX_CODE_POINT, CodePoints, contains, of_ranges
from sgrun.grammar.properties import property_set
from sgrun.grammar.scripts import SCRIPTS


@pytest.fixture(scope="module")
def by_category() -> dict[str, CodePoints]:
    ranges: dict[str, list[tuple[int, int]]] = {}
    for code_point in range(MAX_CODE_POINT + 1):
        ranges.setdefault(unicodedata.category(chr(code_point)), []).append((code_point, code_point))
    return {name: of_ranges(pairs) for name, pairs in ranges.items()}


def test_categories_are_those_of_unicodedata(by_category: dict[str, CodePoints]) -> None:
    assert len(by_category) == 30
    for name, members in by_category.items():
        assert property_set(name) == members, name


def test_groups_hold_their_categories(by_category: dict[str, CodePoints]) -> None:
    for group in "LMNPSZC":
        members = of_ranges(pair for name, pairs in by_category.items() if name[0] == group for pair in pairs)
        assert property_set(group) == members, group
    assert property_set("LC") == of_ranges(pair for name in ("Lu", "Ll", "Lt") for pair in by_category[name])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Letter", "L"),
        ("Uppercase_Letter", "Lu"),
        ("uppercase letter", "gc=lu"),
        ("General_Category=Decimal_Number", "digit"),
        ("punct", "P"),
        ("Cased_Letter", "LC"),
        ("Script=Greek", "greek"),
        ("sc=Grek", "Greek"),
        ("Han", "script=Hani"),
    ],
)
def test_long_and_short_names_mean_the_same(one: str, other: str) -> None:
    assert property_set(one) is not None
    assert property_set(one) == property_set(other)


@pytest.mark.parametrize("name", ["", "Xx", "sc=", "gc=", "Script=L", "gc=Greek", "Emoji", "Klingon", "L&", "=L"])
def test_unknown_properties_are_told(name: str) -> None:
    assert property_set(name) is None


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_agree_with_the_regex_library(name: str) -> None:
    members = property_set(f"Script={name}")
    reference = regex.compile(rf"\p{{Script={name}}}")
    assert members
    for code_point in range(0x32000):
        char = chr(code_point)
        if unicodedata.category(char) != "Cn":  # the library may know fewer or more letters than the table
            assert contains(members, code_point) == bool(reference.match(char)), hex(code_point)
