"""Reads a regular expression into the syntax tree.

Two flavours. PYTHON is what `re` reads, with the meaning it has there, and beyond it spellings of Rust and ECMAScript
that `re` refuses: `\\p{...}`, `\\u{...}`, `\\x{...}`, `\\cX`, `\\z`, `(?<name>...)`, and flags in the middle, which
hold up to the end of their group. ECMA is for JSON schema's `pattern`.

What texts match is all that counts here, so lazy repeats are as greedy ones. A possessive repeat or an atomic group of
something whose length is fixed is expressed by lookahead; others are refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import IntEnum

from sgrun.errors import GrammarTooLargeError
from sgrun.grammar import charset
from sgrun.grammar.charset import CodePoints
from sgrun.grammar.limits import Budget
from sgrun.grammar.regex_sets import fold, read_escape, read_set
from sgrun.grammar.regex_text import Flavour, RegexText
from sgrun.grammar.repeats import repeats_to_count
from sgrun.grammar.syntax import (
    EMPTY,
    Alternation,
    Assertion,
    Chars,
    Concat,
    Intersection,
    Lookahead,
    Node,
    Position,
    Repeat,
    Scope,
    Text,
    alternation,
    concat,
    repeat,
)

ANYTHING: Node = Repeat(Chars(charset.SCALARS), 0, None)
_ANY = charset.subtract(charset.SCALARS, charset.of_chars("\n"))
_ECMA_ANY = charset.subtract(charset.SCALARS, charset.of_chars("\n\r\u2028\u2029"))
_FLAGS = {"i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL, "x": re.VERBOSE, "a": re.ASCII, "u": re.UNICODE}
_COUNTS = re.compile(r"\{(?!\})([0-9]*)(?:(,)([0-9]*))?\}")
_MAX_DIGITS = 9
_INLINE_FLAGS = re.compile(r"([a-zA-Z]*)(-[a-zA-Z]*)?([:)])")
_GROUP_NAME = re.compile(r"P?<([^\W\d]\w*)>")
_INSTEAD = (
    "supported: literals, classes, groups, alternation, repeats, flags, lookahead and the assertions "
    "^ $ \\A \\Z \\b \\B"
)
_REFUSED_GROUPS = {
    "<=": "lookbehind",
    "<!": "lookbehind",
    "P=": "a backreference",
    "P>": "recursion",
    "(": "a conditional group",
}
_ANCHORS = {"A": Position.START, "Z": Position.END, "z": Position.END}


def parse_regex(pattern: str, budget: Budget) -> Node:
    """The language of `re.fullmatch(pattern, text)`.

    Raises InvalidGrammarError (malformed) or UnsupportedGrammarError (a construct that is not followed), both with the
    column, or GrammarTooLargeError.
    """
    reader = _Reader(RegexText(pattern, Flavour.PYTHON), budget)
    return reader.scoped(reader.read())


def parse_search_pattern(pattern: str, budget: Budget) -> Node:
    """Texts in which `pattern` is found, by the rules of ECMA-262 with the u flag (JSON schema's `pattern`).

    Taken beyond ECMA-262, because patterns in use have them and nothing else can be meant: what Annex B allows, `\\A`,
    `\\Z`, `\\z`, `(?P<name>...)` and inline flags. Raises as `parse_regex`.
    """
    reader = _Reader(RegexText(pattern, Flavour.ECMA), budget)
    node = reader.read()
    parts = list(node.parts) if isinstance(node, Concat) else [node]
    # What repeats at an end without an anchor need not be repeated more often than it must: the rest is anything.
    for end, anchor in ((0, Position.START), (-1, Position.END)):
        match parts[end]:
            case Assertion(position) if position is anchor:
                continue
            case Repeat(inner, min_count, _):
                parts[end] = Repeat(inner, min_count, min_count)
        parts = [ANYTHING, *parts] if end == 0 else [*parts, ANYTHING]
    return reader.scoped(Concat(tuple(parts)))


class _Last(IntEnum):
    """What came before a quantifier."""

    NOTHING = 0
    REPEATABLE = 1
    REPEATED = 2


@dataclass
class _Reader:
    text: RegexText
    budget: Budget
    has_assertions: bool = False
    num_groups: int = 0
    names: set[str] = field(default_factory=set)

    def read(self) -> Node:
        self.budget.spend("max_source_len", len(self.text.pattern))
        node = self._alternatives(re.NOFLAG, depth=0)
        if self.text.peek():
            raise self.text.malformed("unbalanced parenthesis", self.text.at)
        return node

    def scoped(self, node: Node) -> Node:
        """What is first looked ahead to with large counts, mostly the length, is split off, as that can be counted."""
        if not self.has_assertions:
            return node
        if isinstance(node, Concat):
            for at, part in enumerate(node.parts):
                if isinstance(part, Lookahead) and not part.is_negated and repeats_to_count(part.node):
                    others = Concat(node.parts[:at] + node.parts[at + 1 :])
                    return Intersection(Scope(Concat((part.node, ANYTHING))), self.scoped(others))
                if not isinstance(part, Lookahead | Assertion):
                    break
        return Scope(node)

    def _alternatives(self, flags: int, depth: int) -> Node:
        """Up to a closing parenthesis or the end."""
        self.budget.check("max_nesting", depth)
        branches: list[Node] = []
        while True:
            branch, flags = self._branch(flags, depth)
            branches.append(branch)
            if not self.text.take("|"):
                return alternation(branches)

    def _branch(self, flags: int, depth: int) -> tuple[Node, int]:
        """One alternative, and the flags that hold after it."""
        text = self.text
        parts: list[Node] = []
        last = _Last.NOTHING
        while (char := text.peek()) and char not in "|)":
            start = text.at
            if flags & re.VERBOSE and char in " \t\n\r\v\f":
                text.at += 1
                continue
            if flags & re.VERBOSE and char == "#":
                newline = text.pattern.find("\n", start)
                text.at = len(text.pattern) if newline < 0 else newline + 1
                continue
            if counts := self._quantifier():
                if last is not _Last.REPEATABLE:
                    raise text.malformed("multiple repeat" if last else "nothing to repeat", start)
                parts[-1] = self._repeated(parts[-1], counts, start)
                last = _Last.REPEATED
                continue
            if char == "(" and text.peek(2) == "(?":
                item, flags = self._special_group(flags, depth)
                if item is None:
                    continue
            elif char == "(":
                text.at += 1
                self.num_groups += 1
                item = self._group(start, flags, depth)
            else:
                item = self._single(char, flags)
            last = _Last.NOTHING if isinstance(item, Assertion) else _Last.REPEATABLE
            parts.append(item)
        return concat(_joined(parts)), flags

    # Quantifiers

    def _quantifier(self) -> tuple[int, int | None] | None:
        """Reads `* + ? {m,n}` if one is next; elsewhere `{` is a character."""
        text = self.text
        simple: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
        if counts := simple.get(text.peek()):
            text.at += 1
            return counts
        found = _COUNTS.match(text.pattern, text.at) if text.peek() == "{" else None
        if not found:
            return None
        low, comma, high = found.groups()
        if not low and text.is_ecma:
            raise text.unsupported(
                f"{found[0]}, a repeat in some languages and plain text in ECMAScript,", text.at, "write {0,n}"
            )
        if max(len(low), len(high or "")) > _MAX_DIGITS:
            raise GrammarTooLargeError(
                f"the regular expression repeats too often: {found[0][:40]} at column {text.at + 1}"
            )
        least = int(low or 0)
        most = least if not comma else int(high) if high else None
        if most is not None and most < least:
            raise text.malformed("min repeat greater than max repeat", text.at)
        text.at = found.end()
        return least, most

    def _repeated(self, node: Node, counts: tuple[int, int | None], start: int) -> Node:
        least, most = counts
        if self.text.take("?") or self.text.is_ecma or not self.text.take("+"):
            return repeat(node, least, most)
        width = _fixed_width(node)
        if not width:
            raise self.text.unsupported("a possessive quantifier of something of variable length", start, _INSTEAD)
        # Each iteration is as long as any other, so as many as possible means that one more does not fit.
        self.has_assertions = True
        not_one_more = Lookahead(node, is_negated=True)
        if most is None:
            return Concat((repeat(node, least, None), not_one_more))
        fewer = Concat((repeat(node, least, most - 1), not_one_more)) if most > least else Alternation(())
        return Alternation((repeat(node, most, most), fewer))

    # Groups

    def _group(self, start: int, flags: int, depth: int) -> Node:
        """The inside of a group, whose opening at `start` has been read."""
        node = self._alternatives(flags, depth + 1)
        if not self.text.take(")"):
            raise self.text.malformed("missing ), unterminated subpattern", start)
        # An assertion in a group may be repeated.
        return Concat((node,)) if isinstance(node, Assertion) else node

    def _special_group(self, flags: int, depth: int) -> tuple[Node | None, int]:
        """A group that begins with `(?`, and the flags that hold behind it. None: it adds nothing."""
        text = self.text
        start = text.at
        text.at += 2
        for opening, name in _REFUSED_GROUPS.items():
            if text.pattern.startswith(opening, text.at):
                raise text.unsupported(name, start, _INSTEAD)
        if text.take("#"):
            text.take_until(")", "(?#")
            return None, flags
        for opening in ("=", "!"):
            if text.take(opening):
                self.has_assertions = True
                return Lookahead(self._group(start, flags, depth), is_negated=opening == "!"), flags
        if text.take(">"):
            node = self._group(start, flags, depth)
            if _fixed_width(node) is None:
                raise text.unsupported("an atomic group of variable length", start, _INSTEAD)
            return node, flags
        if named := _GROUP_NAME.match(text.pattern, text.at):
            if named[1] in self.names:
                raise text.malformed(f"redefinition of group name {named[1]!r}", start)
            self.names.add(named[1])
            self.num_groups += 1
            text.at = named.end()
            return self._group(start, flags, depth), flags
        return self._flags_group(start, flags, depth)

    def _flags_group(self, start: int, flags: int, depth: int) -> tuple[Node | None, int]:
        text = self.text
        found = _INLINE_FLAGS.match(text.pattern, text.at)
        if not found or (found[3] == ")" and not found[1] and not found[2]):
            raise text.malformed(f"unknown extension {text.pattern[start : start + 3]}", start)
        added, removed, end = found[1], (found[2] or "-")[1:], found[3]
        unknown = [letter for letter in added + removed if letter not in _FLAGS]
        is_contradictory = set("au") <= set(added) or set(added) & set(removed) or set("au") & set(removed)
        if unknown or is_contradictory or found[2] == "-":
            what = f"unknown flag {unknown[0]}" if unknown else "bad inline flags"
            raise text.malformed(what, start)
        text.at = found.end()
        changed = flags
        if set("au") & set(added):
            changed &= ~(re.ASCII | re.UNICODE)
        for letter in added:
            changed |= _FLAGS[letter]
        for letter in removed:
            changed &= ~_FLAGS[letter]
        if end == ")":
            return None, changed
        return self._group(start, changed, depth), flags

    # Single characters and assertions

    def _single(self, char: str, flags: int) -> Node:
        text = self.text
        match char:
            case "\\":
                return self._escape(flags)
            case "[":
                return self._chars(read_set(text, flags))
            case "^":
                text.at += 1
                return self._assertion(Position.LINE_START if flags & re.MULTILINE else Position.START)
            case "$":
                text.at += 1
                at_end = Position.END if text.is_ecma else Position.END_OR_LAST_NEWLINE
                return self._assertion(Position.LINE_END if flags & re.MULTILINE else at_end)
            case ".":
                text.at += 1
                narrow = _ECMA_ANY if text.is_ecma else _ANY
                return self._chars(charset.SCALARS if flags & re.DOTALL else narrow)
        text.at += 1
        return self._literal(ord(char), flags)

    def _escape(self, flags: int) -> Node:
        text = self.text
        letter = text.pattern[text.at + 1 : text.at + 2]
        if letter in ("b", "B"):
            text.at += 2
            is_ascii = text.is_ecma or flags & re.ASCII
            if letter == "b":
                return self._assertion(Position.ASCII_WORD_BORDER if is_ascii else Position.WORD_BORDER)
            return self._assertion(Position.NO_ASCII_WORD_BORDER if is_ascii else Position.NO_WORD_BORDER)
        if letter in _ANCHORS:
            text.at += 2
            return self._assertion(_ANCHORS[letter])
        self._refuse_backreference()
        found = read_escape(text, flags, is_in_set=False)
        return self._literal(found, flags) if isinstance(found, int) else self._chars(found)

    def _refuse_backreference(self) -> None:
        text = self.text
        is_octal = not text.is_ecma and re.compile(r"\\[0-3][0-7]{2}").match(text.pattern, text.at)
        number = re.compile(r"\\([1-9][0-9]?)").match(text.pattern, text.at)
        if number and not is_octal:
            if int(number[1]) > self.num_groups and not text.is_ecma:
                raise text.malformed(f"invalid group reference {number[1]}", text.at)
            raise text.unsupported("a backreference", text.at, _INSTEAD)
        if text.is_ecma and text.peek(3) == "\\k<":
            raise text.unsupported("a backreference", text.at, _INSTEAD)

    def _literal(self, code_point: int, flags: int) -> Node:
        if flags & re.IGNORECASE:
            folded = fold(((code_point, code_point),), bool(flags & re.ASCII))
            if len(folded) > 1:
                return self._chars(folded)
        return Text(chr(code_point))

    def _chars(self, code_points: CodePoints) -> Chars:
        self.budget.spend("max_set_elements", len(code_points))
        return Chars(code_points)

    def _assertion(self, position: Position) -> Assertion:
        self.has_assertions = True
        return Assertion(position)


def _joined(parts: list[Node]) -> list[Node]:
    """Neighbouring texts as one."""
    joined: list[Node] = []
    texts: list[str] = []
    for part in parts:
        if isinstance(part, Text):
            texts.append(part.text)
            continue
        if texts:
            joined.append(Text("".join(texts)))
            texts.clear()
        joined.append(part)
    if texts or not joined:
        joined.append(Text("".join(texts)) if texts else EMPTY)
    return joined


def _fixed_width(node: Node) -> int | None:
    """How many code points each match has; None if that varies."""
    match node:
        case Chars():
            return 1
        case Text(text):
            return len(text)
        case Assertion() | Lookahead():
            return 0
        case Concat(parts):
            widths = [_fixed_width(part) for part in parts]
            return None if None in widths else sum(width for width in widths if width)
        case Alternation(parts):
            alternatives = {_fixed_width(part) for part in parts}
            return alternatives.pop() if len(alternatives) == 1 else None
        case Repeat(inner, low, high) if low == high:
            width = _fixed_width(inner)
            return None if width is None else low * width
    return None
