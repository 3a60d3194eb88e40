"""Owns the host names in the characters of all languages (format `idn-hostname`): the labels of IDNA 2008.

The language is smaller than the standard's: letters, marks and digits that IDNA 2008 leaves as they are; labels written
in one direction; single hyphens before letters and digits; the zero-width non-joiner after a virama or between two
Arabic letters that join on both sides. In two points it is larger: the standard allows a label 63 octets once it is in
Punycode, while here the whole name has at most 63 code points (formats.py), as a bound for each label would take 15,000
states; and what a label that is in Punycode decodes to is not looked at.

Sources: RFC 5891 (labels), 5892 (characters, and the rules for context in its appendix A), 5893 (directions).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence

from sgrun.grammar import charset
from sgrun.grammar.charset import CodePoints
from sgrun.grammar.properties import property_set
from sgrun.grammar.syntax import Alternation, Chars, Concat, Node, Repeat, Text

_UNCHANGED = ((0x4E00, 0x9FFF), (0xAC00, 0xD7A3))  # ideographs and Hangul syllables, looked at as a whole
_LAST_CASED = 0x1FFFF  # rarer ideographs lie above
# RFC 5892, section 2.6.
_VALID = frozenset("\u00df\u03c2\u06fd\u06fe\u0f0b\u3007")
_DISALLOWED = frozenset("\u0640\u07fa\u302e\u302f\u3031\u3032\u3033\u3034\u3035\u303b")

_SMALL_LETTERS: CodePoints = ((ord("a"), ord("z")),)
# Sections 2.4 and 2.9: what is ignored by default, and the parts of Hangul syllables.
_LEFT_OUT: CodePoints = charset.of_ranges(
    [
        *((0x34F, 0x34F), (0x1100, 0x11FF), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x3164, 0x3164), (0xA960, 0xA97F)),
        *((0xD7B0, 0xD7FF), (0xFE00, 0xFE0F), (0xFFA0, 0xFFA0)),
    ]
)
_DIGITS: CodePoints = ((ord("0"), ord("9")),)
_ARABIC_DIGITS: CodePoints = ((0x660, 0x669),)
_EXTENDED_DIGITS: CodePoints = ((0x6F0, 0x6F9),)
_HYPHEN = charset.of_chars("-")
_DOTS = charset.of_chars(".\u3002\uff0e\uff61")
_KATAKANA_DOT = charset.of_chars("\u30fb")
_JOINERS = charset.of_chars("\u200c\u200d")
# Joining_Type=Dual_Joining in ArabicShaping.txt of the Unicode character database, of U+0620 to U+064A.
_DUAL_JOINING: CodePoints = charset.of_ranges(
    [(0x620, 0x620), (0x626, 0x626), (0x628, 0x628), (0x62A, 0x62E), (0x633, 0x63F), (0x641, 0x647), (0x649, 0x64A)]
)


def idn_hostname() -> Node:
    """The texts of the format, but for a bound on their length."""
    left_to_right, right_to_left, marks = _characters()
    ascii_letters = charset.union(_SMALL_LETTERS, _DIGITS)
    left = charset.union(ascii_letters, left_to_right, _EXTENDED_DIGITS)
    right_marks = _chosen(marks, lambda char: unicodedata.bidirectional(char) == "NSM")
    greek = charset.intersect(left_to_right, _script("Greek"))
    asian = charset.intersect(left_to_right, charset.union(*map(_script, ("Hiragana", "Katakana", "Han"))))
    hebrew = charset.intersect(right_to_left, _script("Hebrew"))
    joiner = Concat((Chars(_chosen(marks, lambda char: unicodedata.combining(char) == 9)), Chars(_JOINERS)))
    middle_dot = _between(charset.of_chars("l"), "\u00b7")
    keraia = Concat((Chars(charset.of_chars("\u0375")), Chars(greek)))
    geresh = Concat((Chars(hebrew), Chars(charset.of_chars("\u05f3\u05f4"))))
    non_joiner = _between(_DUAL_JOINING, "\u200c")
    labels = [
        _label(ascii_letters, ascii_letters),
        Concat((Text("xn--"), _label(ascii_letters, ascii_letters))),
        _label(left, left, marks, [middle_dot, keraia], [joiner]),
        _with_katakana_dot(left, marks, asian),
    ]
    for digits in (charset.union(_DIGITS, _EXTENDED_DIGITS), _ARABIC_DIGITS):  # which do not mix
        labels.append(
            _label(right_to_left, charset.union(right_to_left, digits), right_marks, [geresh, non_joiner], [])
        )
    label = Alternation(tuple(labels))
    return Concat((label, Repeat(Concat((Chars(_DOTS), label)), 0, None)))


def _label(
    first: CodePoints,
    letters: CodePoints,
    marks: CodePoints = (),
    anywhere: Sequence[Node] = (),
    not_first: Sequence[Node] = (),
) -> Node:
    """Single hyphens stand before letters, marks anywhere else but first. `anywhere` and `not_first` are characters
    together with the context that they need."""
    later = (Chars(charset.union(letters, marks)), Concat((Chars(_HYPHEN), Chars(letters))), *anywhere, *not_first)
    return Concat((Alternation((Chars(first), *anywhere)), Repeat(Alternation(later), 0, None)))


def _between(letters: CodePoints, sign: str) -> Node:
    """The sign, with one of the letters on either side."""
    return Concat((Chars(letters), Repeat(Concat((Chars(charset.of_chars(sign)), Chars(letters))), 1, None)))


def _with_katakana_dot(letters: CodePoints, marks: CodePoints, needed: CodePoints) -> Node:
    """Labels in which the dot may stand, since one of `needed` does."""
    begun = charset.union(letters, _KATAKANA_DOT)
    later = Repeat(Alternation((Chars(charset.union(begun, marks)), Concat((Chars(_HYPHEN), Chars(begun))))), 0, None)
    before = Repeat(Concat((Chars(begun), later, Repeat(Chars(_HYPHEN), 0, 1))), 0, 1)
    return Concat((before, Chars(needed), later))


def _script(name: str) -> CodePoints:
    found = property_set(f"Script={name}")
    assert found is not None
    return found


def _chosen(code_points: CodePoints, is_chosen: Callable[[str], bool]) -> CodePoints:
    chars = (chr(c) for low, high in code_points for c in range(low, high + 1))
    return charset.of_chars("".join(filter(is_chosen, chars)))


def _characters() -> tuple[CodePoints, CodePoints, CodePoints]:
    """Letters and digits written from left to right, letters written from right to left, and marks: those beyond
    ASCII that are their own NFKC case folding and never join the character before them (RFC 5892, sections 2 and 3)."""
    others = charset.subtract(charset.SCALARS, charset.union(((0, 0x7F),), _UNCHANGED, _LEFT_OUT))
    characters = [chr(c) for low, high in others for c in range(low, min(high, _LAST_CASED) + 1)]
    kinds = {char: unicodedata.category(char) for char in characters}
    in_labels = ("Ll", "Lo", "Lm", "Mn", "Mc", "Nd")
    kinds = {char: kind for char, kind in kinds.items() if kind in in_labels or char in _VALID}
    joining = {parts[-1] for char in kinds if (parts := unicodedata.normalize("NFD", char)) != char}
    stable = [char for char in kinds if char in _VALID or (char not in joining and _is_folded(char))]
    stable = [char for char in stable if char not in _DISALLOWED]
    letters = [char for char in stable if kinds[char][0] != "M"]
    left_to_right = [char for char in letters if unicodedata.bidirectional(char) == "L"]
    right_to_left = [char for char in letters if unicodedata.bidirectional(char) in ("R", "AL")]
    marks = [char for char in stable if kinds[char][0] == "M" and unicodedata.combining(char) in (0, 9)]
    return (
        charset.union(_UNCHANGED, charset.of_chars("".join(left_to_right))),
        charset.of_chars("".join(right_to_left)),
        charset.of_chars("".join(marks)),
    )


def _is_folded(char: str) -> bool:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", char).casefold()) == char
