"""Reads what a regular expression says about one character: escapes, classes such as `\\d`, and `[...]`.

Case folding follows `re`, whose tables are private (`re._casefix`, `_sre`); nothing else in sgrun touches them, and the
tests compare the outcome with `re` for every code point.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache, lru_cache
from importlib import import_module
from typing import Any

from sgrun.grammar import charset
from sgrun.grammar.charset import CodePoints
from sgrun.grammar.properties import property_set
from sgrun.grammar.regex_text import RegexText
from sgrun.grammar.scripts import SCRIPTS

# By name, because these modules have no type stubs.
_casefix: Any = import_module("re._casefix")
_sre: Any = import_module("_sre")

_CONTROLS = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}
_ECMA_CONTROLS = {letter: code for letter, code in _CONTROLS.items() if letter != "a"}
_HEX_LENGTHS = {"x": 2, "u": 4, "U": 8}
_POSIX = re.compile(r"\[:\^?[a-z]+:\]")


def read_escape(text: RegexText, flags: int, *, is_in_set: bool) -> int | CodePoints:
    """Reads from a backslash on: one code point, or the set of a class. Assertions and backreferences are not here."""
    start = text.at
    text.at += 1
    letter = text.peek()
    text.at += 1
    if not letter:
        raise text.malformed("bad escape (end of pattern)", start)
    if letter in "dDsSwW":
        return _class_of_letter(letter, flags, text.is_ecma)
    if letter in "pP":
        return _property(text, start, flags, is_negated=letter == "P")
    if letter in "xu" or (letter == "U" and not text.is_ecma):
        return _hexadecimal(text, start, letter)
    if letter == "c":
        control = text.peek()
        text.at += 1
        if not control.isascii() or not control.isalpha():
            raise text.malformed("bad escape \\c", start)
        return ord(control) % 32
    if letter == "N" and not text.is_ecma:
        return _named(text, start)
    if letter.isdigit() and letter.isascii():
        return _octal(text, start, is_in_set=is_in_set)
    controls = _ECMA_CONTROLS if text.is_ecma else _CONTROLS
    if letter in controls and (letter != "b" or is_in_set):
        return controls[letter]
    if letter.isascii() and letter.isalpha():
        raise text.malformed(f"bad escape \\{letter}", start)
    return ord(letter)


def _hexadecimal(text: RegexText, start: int, letter: str) -> int:
    if letter in "xu" and text.peek() == "{":
        text.at += 1
        digits = text.take_until("}", f"\\{letter}{{")
        length = max(1, len(digits))
    else:
        length = _HEX_LENGTHS[letter]
        digits = text.peek(length)
        text.at += length
    if len(digits) != length or not re.fullmatch("[0-9a-fA-F]+", digits):
        raise text.malformed(f"incomplete escape {text.pattern[start : text.at]}", start)
    code_point = int(digits, 16)
    if code_point > charset.MAX_CODE_POINT:
        raise text.malformed(f"bad escape {text.pattern[start : text.at]}", start)
    if text.is_ecma and 0xD800 <= code_point <= 0xDBFF:  # half of a pair, as UTF-16 spells it
        low = re.compile(r"\\u([dD][c-fC-F][0-9a-fA-F]{2})").match(text.pattern, text.at)
        if low:
            text.at = low.end()
            return 0x10000 + ((code_point - 0xD800) << 10) + int(low[1], 16) - 0xDC00
    return code_point


def _named(text: RegexText, start: int) -> int:
    if not text.take("{"):
        raise text.malformed("missing { after \\N", start)
    name = text.take_until("}", "\\N{")
    try:
        return ord(unicodedata.lookup(name))
    except (KeyError, TypeError) as error:  # unknown, or a sequence of several characters
        raise text.malformed(f"undefined character name {name!r}", start) from error


def _octal(text: RegexText, start: int, *, is_in_set: bool) -> int:
    found = re.compile(r"0[0-7]{0,2}|[0-3][0-7]{2}").match(text.pattern, start + 1)
    if text.is_ecma:
        found = re.compile(r"0(?![0-9])").match(text.pattern, start + 1)
    elif is_in_set:
        found = re.compile(r"[0-3][0-7]{1,2}|[0-7]{1,2}(?![0-7])").match(text.pattern, start + 1)
    if not found:
        raise text.malformed(f"bad escape {text.pattern[start : start + 2]}", start)
    text.at = found.end()
    return int(found[0], 8)


def _property(text: RegexText, start: int, flags: int, *, is_negated: bool) -> CodePoints:
    name = text.take_until("}", "\\p{") if text.take("{") else text.peek()
    if text.pattern[start + 2 : start + 3] != "{":
        text.at += 1
    if name.startswith("^"):
        name, is_negated = name[1:], not is_negated
    found = _property_chars(name, is_negated, bool(flags & re.IGNORECASE), bool(flags & re.ASCII))
    if found is None:
        raise text.unsupported(
            f"the property {name!r}",
            start,
            f"supported: general categories, Any, ASCII, Assigned, and the scripts {', '.join(SCRIPTS)}",
        )
    return found


@lru_cache(maxsize=64)
def _property_chars(name: str, is_negated: bool, ignores_case: bool, is_ascii: bool) -> CodePoints | None:
    found = property_set(name)
    if found is not None and ignores_case:
        found = case_rules(is_ascii).fold(found)
    if found is None:
        return None
    return charset.intersect(charset.complement(found) if is_negated else found, charset.SCALARS)


@cache
def _class_of_letter(letter: str, flags: int, is_ecma: bool) -> CodePoints:
    lower = letter.lower()
    if is_ecma:
        found = charset.ecma_space() if lower == "s" else charset.python_class(lower, True)
    else:
        found = charset.python_class(lower, bool(flags & re.ASCII))
    return found if letter == lower else charset.subtract(charset.SCALARS, found)


def read_set(text: RegexText, flags: int) -> CodePoints:
    """Reads from a `[` on."""
    start = text.at
    text.at += 1
    is_negated = text.take("^")
    ranges: list[tuple[int, int]] = []
    classes: list[CodePoints] = []
    is_first = not text.is_ecma  # there, `[]` is the empty set; elsewhere the bracket stands for itself
    while is_first or not text.take("]"):
        is_first = False
        at = text.at
        low = _set_item(text, start, flags)
        if text.peek() != "-" or text.peek(2) in ("-", "-]"):
            _add(low, ranges, classes)
            continue
        text.at += 1
        high = _set_item(text, start, flags)
        if isinstance(low, int) and isinstance(high, int):
            if low > high:
                raise text.malformed(f"bad character range {text.pattern[at : text.at]}", at)
            ranges.append((low, high))
        elif text.is_ecma:  # `[\w-.]`: the hyphen stands for itself (ECMA-262, B.1.2.8.1)
            for item in (low, ord("-"), high):
                _add(item, ranges, classes)
        else:
            raise text.malformed(f"bad character range {text.pattern[at : text.at]}", at)
    own = charset.of_ranges(ranges)
    if flags & re.IGNORECASE:
        own = fold(own, bool(flags & re.ASCII))
    members = charset.union(own, *classes) if classes else own
    return charset.intersect(charset.complement(members) if is_negated else members, charset.SCALARS)


def _add(item: int | CodePoints, ranges: list[tuple[int, int]], classes: list[CodePoints]) -> None:
    if isinstance(item, int):
        ranges.append((item, item))
    else:
        classes.append(item)


def _set_item(text: RegexText, start: int, flags: int) -> int | CodePoints:
    char = text.peek()
    if not char:
        raise text.malformed("unterminated character set", start)
    if char == "\\":
        return read_escape(text, flags, is_in_set=True)
    if char in "[&-~|":
        _refuse_ambiguous(text)
    text.at += 1
    return ord(char)


def _refuse_ambiguous(text: RegexText) -> None:
    """What Rust and others read as a nested set or an operation, and `re` (with a warning) as plain characters."""
    at = text.at
    if _POSIX.match(text.pattern, at):
        raise text.unsupported("a POSIX class", at, "write out the characters, or a property such as \\p{L}")
    if not text.is_ecma and (text.peek(2) == "&&" or text.peek(3) in ("--[", "~~[", "||[")):
        raise text.unsupported(
            f"{text.peek(2)} in a set, which is an operation in some languages and two characters in others",
            at,
            "escape the characters, or write an intersection as a lookahead: (?=[a-z])[^aeiou]",
        )


@cache
def case_rules(is_ascii: bool) -> charset.CaseRules:
    """How letters are compared under (?i)."""
    if is_ascii:
        return charset.CaseRules.of(_sre.ascii_tolower, {})
    return charset.CaseRules.of(_sre.unicode_tolower, _casefix._EXTRA_CASES)


@cache
def _folded_char(code_point: int, is_ascii: bool) -> CodePoints:
    return case_rules(is_ascii).fold(((code_point, code_point),))


def fold(code_points: CodePoints, is_ascii: bool) -> CodePoints:
    """Everything that differs from a member only in case."""
    if len(code_points) == 1 and code_points[0][0] == code_points[0][1]:
        return _folded_char(code_points[0][0], is_ascii)
    return case_rules(is_ascii).fold(code_points)
