"""Reads a Python regular expression into the syntax tree.

Python's own parser does the reading, so that what a pattern means is what `re` says it means. It is a private module
(`re._parser`, with `re._casefix` and `_sre` for case folding); nothing else in sgrun touches it, and the tests compare
the outcome with `re` itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any

from sgrun.errors import GrammarTooLargeError, InvalidGrammarError, UnsupportedGrammarError
from sgrun.grammar import charset
from sgrun.grammar.charset import CodePoints
from sgrun.grammar.limits import Budget
from sgrun.grammar.syntax import Alternation, Assertion, Chars, Concat, Node, Position, Repeat, Scope, Text

# By name, because these modules have no type stubs.
_parser: Any = import_module("re._parser")
_constants: Any = import_module("re._constants")
_casefix: Any = import_module("re._casefix")
_sre: Any = import_module("_sre")

_ANYTHING = Repeat(Chars(charset.SCALARS), 0, None)


def parse_regex(pattern: str, budget: Budget) -> Node:
    """The language of `re.fullmatch(pattern, text)`.

    Raises InvalidGrammarError (malformed, with Python's message and the column), UnsupportedGrammarError (a construct
    that no finite automaton of this kind follows, with its column) or GrammarTooLargeError.
    """
    return _parse(pattern, budget, is_search=False)


def parse_search_pattern(pattern: str, budget: Budget) -> Node:
    """Texts in which `pattern` is found under the rules of ECMAScript and of Python alike (JSON schema's `pattern`).

    The two differ in `\\d \\w \\s . $` and their negations; the smaller language of the two is taken.
    """
    return _parse(pattern, budget, is_search=True)


def _parse(pattern: str, budget: Budget, *, is_search: bool) -> Node:
    budget.spend("max_source_len", len(pattern))
    try:
        parsed = _parser.parse(pattern)
    except re.error as error:
        column = "" if error.pos is None else f" at column {error.pos + 1}"
        raise InvalidGrammarError(
            f"the regular expression {_shown(pattern)} is malformed: {error.msg}{column}"
        ) from error
    except OverflowError as error:
        raise GrammarTooLargeError(f"the regular expression {_shown(pattern)} repeats too often: {error}") from error
    except RecursionError as error:
        raise GrammarTooLargeError(
            f"the regular expression {_shown(pattern)} nests too deeply: max_nesting is {budget.limits.max_nesting}"
        ) from error
    reader = _Reader(pattern, budget, is_portable=is_search)
    node = reader.sequence(parsed, parsed.state.flags, depth=0)
    if is_search:
        node = Concat((_ANYTHING, node, _ANYTHING))
    return Scope(node) if reader.has_assertions else node


@dataclass
class _Reader:
    pattern: str
    budget: Budget
    is_portable: bool
    has_assertions: bool = False
    known_sets: dict[tuple[tuple[Any, ...], int], Chars] = field(default_factory=dict)

    def sequence(self, items: Sequence[tuple[Any, Any]], flags: int, depth: int) -> Node:
        self.budget.check("max_nesting", depth)
        parts = [self._item(op, argument, flags, depth) for op, argument in items]
        return parts[0] if len(parts) == 1 else Concat(tuple(parts))

    def _item(self, op: Any, argument: Any, flags: int, depth: int) -> Node:
        match op:
            case _constants.LITERAL if not flags & re.IGNORECASE:
                return Text(chr(argument))
            case _constants.LITERAL:
                return self._chars([(op, argument)], flags)
            case _constants.NOT_LITERAL:
                return self._chars([(_constants.NEGATE, None), (_constants.LITERAL, argument)], flags)
            case _constants.IN:
                return self._chars(argument, flags)
            case _constants.ANY:
                return Chars(self._any(flags))
            case _constants.AT:
                return self._assertion(argument, flags)
            case _constants.BRANCH:
                return Alternation(tuple(self.sequence(branch, flags, depth + 1) for branch in argument[1]))
            case _constants.SUBPATTERN:
                _, added, removed, inner = argument
                return self.sequence(inner, (flags | added) & ~removed, depth + 1)
            case _constants.MAX_REPEAT | _constants.MIN_REPEAT:  # laziness does not change which texts match
                low, high, inner = argument
                return Repeat(
                    self.sequence(inner, flags, depth + 1), low, None if high is _constants.MAXREPEAT else int(high)
                )
            case _:
                raise self._unsupported(op)

    def _assertion(self, where: Any, flags: int) -> Assertion:
        self.has_assertions = True
        is_multiline = bool(flags & re.MULTILINE)
        match where:
            case _constants.AT_BEGINNING if is_multiline:
                return Assertion(Position.LINE_START)
            case _constants.AT_BEGINNING | _constants.AT_BEGINNING_STRING:
                return Assertion(Position.START)
            case _constants.AT_END if is_multiline:
                return Assertion(Position.LINE_END)
            case _constants.AT_END if not self.is_portable:
                return Assertion(Position.END_OR_LAST_NEWLINE)
            case _constants.AT_END | _constants.AT_END_STRING:
                return Assertion(Position.END)
            case _:
                raise self._unsupported(where)

    def _any(self, flags: int) -> CodePoints:
        if flags & re.DOTALL:
            return charset.SCALARS
        return charset.subtract(charset.SCALARS, charset.of_chars("\n\r\u2028\u2029" if self.is_portable else "\n"))

    def _chars(self, items: Sequence[tuple[Any, Any]], flags: int) -> Chars:
        key = (tuple(items), flags)
        known = self.known_sets.get(key)
        if known is None:
            known = self.known_sets[key] = Chars(self._set(items, flags))
            self.budget.spend("max_set_elements", len(known.code_points))
        return known

    def _set(self, items: Sequence[tuple[Any, Any]], flags: int) -> CodePoints:
        is_negated = items[0][0] is _constants.NEGATE
        ranges: list[tuple[int, int]] = []
        classes: list[CodePoints] = []
        for op, argument in items[1:] if is_negated else items:
            match op:
                case _constants.LITERAL:
                    ranges.append((argument, argument))
                case _constants.RANGE:
                    ranges.append(argument)
                case _constants.CATEGORY:
                    classes.append(self._category(argument, flags, is_narrow=not is_negated))
        own = charset.of_ranges(ranges)
        if flags & re.IGNORECASE:
            own = _case_rules(bool(flags & re.ASCII)).fold(own)
        members = charset.union(own, *classes)
        return charset.intersect(charset.complement(members) if is_negated else members, charset.SCALARS)

    def _category(self, category: Any, flags: int, *, is_narrow: bool) -> CodePoints:
        """`\\d` and its kind; under portable rules the smaller (or the larger) of what the two languages mean."""
        letter, is_complement = _CATEGORIES[category]
        python = charset.python_class(letter, bool(flags & re.ASCII))
        if self.is_portable:
            ecma = charset.ecma_space() if letter == "s" else charset.python_class(letter, True)
            wants_smaller = is_narrow != is_complement
            python = charset.intersect(python, ecma) if wants_smaller else charset.union(python, ecma)
        return charset.complement(python) if is_complement else python

    def _unsupported(self, op: Any) -> UnsupportedGrammarError:
        name, spelling = _UNSUPPORTED[op.name]  # by name: numbers of operators and of positions overlap
        column = next((found.start() + 1 for found in _TOKENS.finditer(self.pattern) if spelling(found.group())), 1)
        return UnsupportedGrammarError(
            f"the regular expression {_shown(self.pattern)} uses {name} at column {column}, which is not supported; "
            "supported: literals, classes, groups, alternation, repeats, flags, and the assertions ^ $ \\A \\Z"
        )


@cache
def _case_rules(is_ascii: bool) -> charset.CaseRules:
    if is_ascii:
        return charset.CaseRules.of(_sre.ascii_tolower, {})
    return charset.CaseRules.of(_sre.unicode_tolower, _casefix._EXTRA_CASES)


_CATEGORIES = {
    _constants.CATEGORY_DIGIT: ("d", False),
    _constants.CATEGORY_NOT_DIGIT: ("d", True),
    _constants.CATEGORY_SPACE: ("s", False),
    _constants.CATEGORY_NOT_SPACE: ("s", True),
    _constants.CATEGORY_WORD: ("w", False),
    _constants.CATEGORY_NOT_WORD: ("w", True),
}

# The parsed form has no columns, so a refused construct is looked up again in the pattern's own tokens.
_TOKENS = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?#[^)]*\)|\(\?(?:<?[=!]|>|\(|P=)|(?:[*+?]|\{[0-9]*,?[0-9]*\})\+|.", re.DOTALL
)
_UNSUPPORTED: dict[str, tuple[str, Callable[[str], bool]]] = {
    "AT_BOUNDARY": ("a word boundary (\\b)", lambda token: token == r"\b"),
    "AT_NON_BOUNDARY": ("a word boundary (\\B)", lambda token: token == r"\B"),
    "ASSERT": ("lookaround", lambda token: token in ("(?=", "(?<=")),
    "ASSERT_NOT": ("lookaround", lambda token: token in ("(?!", "(?<!")),
    "GROUPREF": (
        "a backreference",
        lambda token: token == "(?P=" or (token[0] == "\\" and token[1:].isdigit() and token[1] != "0"),
    ),
    "GROUPREF_EXISTS": ("a conditional group", lambda token: token == "(?("),
    "ATOMIC_GROUP": ("an atomic group", lambda token: token == "(?>"),
    "POSSESSIVE_REPEAT": ("a possessive quantifier", lambda token: len(token) > 1 and token[-1] == "+"),
}


def _shown(pattern: str) -> str:
    return repr(pattern) if len(pattern) <= 80 else f"{pattern[:77]!r}..."
