"""What one keyword asserts of an array or an object. Fields called `formula` are formulas about the values inside."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Items:
    """Item i satisfies prefix[i], later ones `rest`."""

    prefix: tuple[int, ...]
    rest: int


@dataclass(frozen=True, slots=True)
class ContainsAtLeast:
    formula: int
    count: int


@dataclass(frozen=True, slots=True)
class ContainsAtMost:
    formula: int
    count: int


@dataclass(frozen=True, slots=True)
class ItemsAtLeast:
    count: int


@dataclass(frozen=True, slots=True)
class ItemsAtMost:
    count: int


ArrayAtom = Items | ContainsAtLeast | ContainsAtMost | ItemsAtLeast | ItemsAtMost


@dataclass(frozen=True, slots=True)
class Properties:
    """A property satisfies what `named` says of its name and what all `patterns` say that are found in it; if none of
    these does, `rest`. `speaks_of_others`: the schema itself says what others there may be."""

    named: tuple[tuple[str, int], ...]
    patterns: tuple[tuple[str, int], ...]
    rest: int
    speaks_of_others: bool = True


@dataclass(frozen=True, slots=True)
class Required:
    name: str


@dataclass(frozen=True, slots=True)
class PropertiesAtLeast:
    """`count` more, of `total` that the schema asks for."""

    count: int
    total: int


@dataclass(frozen=True, slots=True)
class PropertiesAtMost:
    """`count` more, of `total` that the schema allows."""

    count: int
    total: int


@dataclass(frozen=True, slots=True)
class Names:
    """Every property name, as a string, satisfies the formula."""

    formula: int


ObjectAtom = Properties | Required | PropertiesAtLeast | PropertiesAtMost | Names
