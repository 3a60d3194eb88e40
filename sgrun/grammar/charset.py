"""Sets of Unicode code points as sorted ranges, the character classes of Python's `re`, and its case folding."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

CodePoints = tuple[tuple[int, int], ...]  # inclusive, sorted, disjoint, not adjacent

MAX_CODE_POINT = 0x10FFFF
SURROGATES: CodePoints = ((0xD800, 0xDFFF),)


def of_ranges(ranges: Iterable[tuple[int, int]]) -> CodePoints:
    """The union of ranges given in any order."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)


def of_chars(chars: str) -> CodePoints:
    return of_ranges((ord(char), ord(char)) for char in chars)


def union(*sets: CodePoints) -> CodePoints:
    return of_ranges(pair for code_points in sets for pair in code_points)


def complement(code_points: CodePoints) -> CodePoints:
    gaps = []
    low = 0
    for first, last in code_points:
        if low < first:
            gaps.append((low, first - 1))
        low = last + 1
    if low <= MAX_CODE_POINT:
        gaps.append((low, MAX_CODE_POINT))
    return tuple(gaps)


def subtract(left: CodePoints, right: CodePoints) -> CodePoints:
    return intersect(left, complement(right))


def intersect(left: CodePoints, right: CodePoints) -> CodePoints:
    common = []
    i = j = 0
    while i < len(left) and j < len(right):
        low, high = max(left[i][0], right[j][0]), min(left[i][1], right[j][1])
        if low <= high:
            common.append((low, high))
        if left[i][1] < right[j][1]:
            i += 1
        else:
            j += 1
    return tuple(common)


def contains(code_points: CodePoints, code_point: int) -> bool:
    at = bisect_right(code_points, (code_point, MAX_CODE_POINT + 1)) - 1
    return at >= 0 and code_point <= code_points[at][1]


SCALARS = complement(SURROGATES)  # what UTF-8 can spell
NEWLINE = of_chars("\n")


@cache
def python_class(letter: str, is_ascii: bool = False) -> CodePoints:
    """What `\\d`, `\\w` or `\\s` (by its letter) matches in Python."""
    # Nothing beyond the first four planes is a letter, a digit or white space.
    every_char = np.arange(0x40000, dtype="<u4").tobytes().decode("utf-32-le", "surrogatepass")
    runs = re.compile(rf"\{letter}+", re.ASCII if is_ascii else re.UNICODE).finditer(every_char)
    return tuple((run.start(), run.end() - 1) for run in runs)


@cache
def ecma_space() -> CodePoints:
    """What `\\s` matches in ECMAScript: white space and line terminators (ECMA-262, 22.2.2.9)."""
    zs = of_ranges((c, c) for c in (0x20, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000))
    return union(zs, of_chars("\t\n\v\f\r\ufeff\u2028\u2029"))


@dataclass(frozen=True)
class CaseRules:
    """How `re` compares letters without case: by their lower case, and a few lower-case letters count as one.

    Built from the function that gives the lower case of a code point, and from the letters alike to each.
    """

    lower: dict[int, int]  # only code points that are not their own lower case
    alike: dict[int, tuple[int, ...]]
    upper: dict[int, list[int]]  # lower case -> the code points that have it

    @staticmethod
    def of(lower_of: Callable[[int], int], alike: Mapping[int, tuple[int, ...]]) -> CaseRules:
        lower = {c: low for c in range(0x20000) if (low := lower_of(c)) != c}  # no cased letters lie above
        upper: dict[int, list[int]] = {}
        for code_point, low in lower.items():
            upper.setdefault(low, []).append(code_point)
        return CaseRules(lower, dict(sorted(alike.items())), dict(sorted(upper.items())))

    def fold(self, code_points: CodePoints) -> CodePoints:
        """Everything that differs from a member only in case."""
        moved = _keys_within(self.lower, code_points)
        folded = union(subtract(code_points, _singles(moved)), _singles(self.lower[c] for c in moved))
        folded = union(folded, _singles(c for key in _keys_within(self.alike, folded) for c in self.alike[key]))
        return union(folded, _singles(c for key in _keys_within(self.upper, folded) for c in self.upper[key]))


def _singles(code_points: Iterable[int]) -> CodePoints:
    return of_ranges((c, c) for c in code_points)


def _keys_within(sorted_keys: Mapping[int, object], code_points: CodePoints) -> list[int]:
    keys = list(sorted_keys)
    return [c for low, high in code_points for c in keys[bisect_left(keys, low) : bisect_right(keys, high)]]
