from __future__ import annotations

import re

import numpy as np
import pytest
from grammar_walks import accepts, random_texts
from hypothesis import given, settings
from hypothesis import strategies as st

from sgrun.errors import GrammarTooLargeError, InvalidGrammarError, UnsupportedGrammarError
from sgrun.grammar.automaton import DEAD
from sgrun.grammar.charset import MAX_CODE_POINT
from sgrun.grammar.compiler import compile_grammar
from sgrun.grammar.matcher import advance
from sgrun.types import RegexSpec

PATTERNS = r"""
a
abc
é日𝄞
a|b
a|bc|
(a)(b)
(?:ab)+
(ab)*
(?P<name>a)b
a?b*c+
a??b*?c+?
a{3}
a{2,}
a{,2}
a{1,3}b{0}
(?:a|b){2}
(a{2}){2}
(?:){3}a
(a*)*
(?:a?b?)*c
[abc]
[^abc]
[a-c]
[^a-c\n]
[]a]
[-a]
[a\-c]
[\d_]
[^\d\s]
[\W]
[^\W]
.
(?s).
(?s:.)a
a.c
.*
\d
\D
\w
\W
\s
\S
\d{3}-\d{4}
\w+
(?a)\w+
(?a)\d\s
(?i)abc
(?i)[a-c]
(?i)[^a-c]
(?i)k
(?i)straße
(?i:a)b
(?i)(?-i:a)b
(?i)ς
(?i)[à-ž]
^a
a$
^a$
\Aa\Z
^$
a$\n
a$\n\n
a\Z\n
a\Z$\n
a\Z(?m:$)\n
(?m:a$)$\nb
a^b
$^
(?:^a|b)*
(?:a$|b)*
(?m)^a$
(?m)a$\n^b
(?m)a\n^
(?m:a$)\nb
(?m)(?:^a$\n?)*
(?x) a b # comment
\x41\u00e9\U0001d11e
\n\t\\
\.\*
(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.\d){1,2}
[\w.+-]+@[\w-]+\.[a-z]{2,4}
https?://[^\s/$.?#].[^\s]*
""".strip("\n").splitlines()

TEXTS = [
    "", "a", "b", "c", "d", "aa", "ab", "ba", "bb", "abc", "aaa", "aaaa", "aab", "aabb", "abab", "ababc", "bc", "acc",
    "A", "B", "K", "k", "\u212a", "ABC", "aBc", "Ab", "aB", "a\n", "a\n\n", "a\nb", "\n", "\n\n", "b\na", "a\na\n",
    "é", "É", "日", "é日𝄞", "𝄞", "Aé𝄞", "aéc", "straße", "STRASSE", "STRAẞE", "ς", "σ", "Σ", "ž", "Ž", "ſ", "ı",
    "1", "٣", "123-4567", "1234", "_", "-", "]", "a_1", "٣ ", "1 ", "1\u00a0", " ", "\u2028", "\x1c", "\\", "\n\t\\",
    ".*", ".", "255.1", "256.1.1", "19.9.9", "foo.bar+1@example.org", "x@y.com", "http://a.b/c?d", "https://ü.de",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_pattern_takes_what_fullmatch_takes(pattern: str) -> None:
    reference = re.compile(pattern)
    try:
        automaton = compile_grammar(RegexSpec(pattern))
    except InvalidGrammarError:
        assert not any(reference.fullmatch(text) for text in TEXTS)
        return
    for text in TEXTS:
        assert accepts(automaton, text) == bool(reference.fullmatch(text)), text
    for text in random_texts(automaton, seed=1, count=5, soft_len=10):
        assert reference.fullmatch(text), text


_ALPHABET = "aabB\n\né1 _日"
_LEAVES = r"a|b|\n|é|[ab]|[^a]|.|\d|\w|\s|\W|\D|^|$|\A|\Z|(?m:^)|(?m:$)|(?s:.)|(?i:B)|(?i:[^b])|日|"
_leaves = st.sampled_from(re.split(r"\|", _LEAVES))
_quantifiers = st.sampled_from(["*", "+", "?", "*?", "{2}", "{0,2}", "{1,3}", "{2,}"])
_patterns = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})"),
        st.tuples(inner, _quantifiers).map(lambda pair: f"(?:{pair[0]}){pair[1]}"),
    ),
    max_leaves=12,
)


@settings(max_examples=400, deadline=None)
@given(_patterns, st.lists(st.text(_ALPHABET, max_size=6), min_size=20, max_size=20))
def test_random_patterns_agree_with_re(pattern: str, texts: list[str]) -> None:
    reference = re.compile(pattern)
    try:
        automaton = compile_grammar(RegexSpec(pattern))
    except InvalidGrammarError:
        assert not any(reference.fullmatch(text) for text in texts)
        return
    for text in texts:
        assert accepts(automaton, text) == bool(reference.fullmatch(text)), text


def _accepted_chars(pattern: str) -> np.ndarray:
    """For each code point, whether it is accepted as the whole text, by walking all UTF-8 encodings at once."""
    automaton = compile_grammar(RegexSpec(pattern))
    result = np.zeros(MAX_CODE_POINT + 1, dtype=bool)
    for low, high in [(0, 0x7F), (0x80, 0x7FF), (0x800, 0xD7FF), (0xE000, 0xFFFF), (0x10000, MAX_CODE_POINT)]:
        text = "".join(map(chr, range(low, high + 1)))
        data = np.frombuffer(text.encode(), dtype=np.uint8).reshape(len(text), -1)
        states = np.full(len(text), automaton.start)
        for column in data.T:
            states = automaton.transitions[states, automaton.byte_classes[column]]
        result[low : high + 1] = automaton.accepting[states]
    return result


@pytest.mark.parametrize(
    "pattern",
    [
        *(r"\w", r"\D", r"\s", r"[^\s\w]", r".", r"(?i)k", r"(?i)[^a-zµ]", r"(?i)[à-ž\d]", r"(?ai)[k-s]"),
        *(r"(?i)[\U00010400-\U00010410]", r"(?i)[A-Zϐ]", r"(?i)[İıi]", r"(?i)[\u0100-\u0500\u1e00-\u1fff]"),
    ],
)
def test_every_code_point_is_classified_as_by_re(pattern: str) -> None:
    reference = re.compile(pattern)
    expected = [
        reference.fullmatch(chr(c)) is not None and not 0xD800 <= c <= 0xDFFF for c in range(MAX_CODE_POINT + 1)
    ]
    wrong = np.flatnonzero(_accepted_chars(pattern) != np.array(expected))
    assert not len(wrong), [hex(c) for c in wrong[:10]]


def test_invalid_utf8_is_never_taken() -> None:
    automaton = compile_grammar(RegexSpec(r"(?s).*"))
    for data in (
        b"\x80",
        b"\xc0\x80",
        b"\xc1\xbf",
        b"\xe0\x80\x80",
        b"\xed\xa0\x80",
        b"\xf0\x80\x80\x80",
        b"\xf4\x90",
        b"\xf5",
    ):
        assert advance(automaton, automaton.start, data) == DEAD, data


@pytest.mark.parametrize(
    ("pattern", "name", "column"),
    [
        (r"a\b", "word boundary", 2),
        (r"[\b]a\B", "word boundary", 6),
        (r"a(?=b)", "lookaround", 2),
        (r"[(?=](?!b)", "lookaround", 6),
        (r"(?<=a)b", "lookaround", 1),
        (r"\(?(?<!a)b", "lookaround", 4),
        (r"(a)\1", "backreference", 4),
        (r"(?P<n>a)(?P=n)", "backreference", 9),
        (r"(a)(?(1)b|c)", "conditional group", 4),
        (r"x(?>a)", "atomic group", 2),
        (r"xa*+", "possessive", 3),
        (r"a{1,2}+", "possessive", 2),
    ],
)
def test_what_no_automaton_follows_is_refused_with_its_column(pattern: str, name: str, column: int) -> None:
    with pytest.raises(UnsupportedGrammarError, match=rf"{name}.* at column {column},"):
        compile_grammar(RegexSpec(pattern))


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a(b", r"missing \), unterminated subpattern at column 2"),
        ("[a", "unterminated character set at column 1"),
        ("a**", "multiple repeat at column 3"),
        (r"\p{L}", r"bad escape \\p at column 1"),
        ("a{3,2}", "min repeat greater than max repeat at column 3"),
    ],
)
def test_malformed_pattern_is_refused_with_pythons_words(pattern: str, message: str) -> None:
    with pytest.raises(InvalidGrammarError, match=message):
        compile_grammar(RegexSpec(pattern))


@pytest.mark.parametrize("pattern", ["a^b", "[^\\s\\S]", "(?:a$)b", "a\\Zb"])
def test_pattern_that_matches_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidGrammarError, match="matches nothing"):
        compile_grammar(RegexSpec(pattern))


def test_lone_surrogate_is_refused() -> None:
    with pytest.raises(UnsupportedGrammarError, match="U\\+D800"):
        compile_grammar(RegexSpec("a\ud800"))


def test_nesting_is_bounded_on_both_sides() -> None:
    assert accepts(compile_grammar(RegexSpec("(" * 99 + "a" + ")" * 99)), "a")
    for depth in (150, 30_000):
        with pytest.raises(GrammarTooLargeError, match="max_nesting is 100"):
            compile_grammar(RegexSpec("(" * depth + "a" + ")" * depth))
