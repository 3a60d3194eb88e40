from __future__ import annotations

import random
import re
import warnings

import numpy as np
import pytest
from grammar_walks import random_texts
from hypothesis import example, given, settings
from hypothesis import strategies as st
from procedure_walks import configurations_that_cannot_end, moves_and_ends, regex_procedure, takes
from regex_table import BEYOND_PYTHON, ECMA, PYTHON, REFUSED, Row

from sgrun.errors import GrammarTooLargeError, InvalidGrammarError, UnsupportedGrammarError
from sgrun.grammar.charset import MAX_CODE_POINT
from sgrun.grammar.compiler import compile_grammar
from sgrun.grammar.limits import Budget, CompileLimits
from sgrun.grammar.procedure import Count, Move, Procedure
from sgrun.grammar.regex import parse_search_pattern
from sgrun.grammar.regular import regular_procedure
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
    procedure = regex_procedure(pattern)
    for text in TEXTS:
        assert takes(procedure, text) == bool(reference.fullmatch(text)), text


def _search_procedure(pattern: str) -> Procedure:
    budget = Budget(CompileLimits())
    return regular_procedure(parse_search_pattern(pattern, budget), budget)


def _check(row: Row, procedure: Procedure) -> None:
    assert [text for text in row.accepted if not takes(procedure, text)] == []
    assert [text for text in row.rejected if takes(procedure, text)] == []


def test_table_is_large_enough() -> None:
    assert len(PYTHON) >= 300 and len({row.pattern for row in PYTHON}) == len(PYTHON)
    assert all(len(row.accepted) >= 2 and len(row.rejected) >= 2 for row in PYTHON)


@pytest.mark.parametrize("row", PYTHON, ids=lambda row: row.pattern)
def test_pattern_in_use_agrees_with_re(row: Row) -> None:
    reference = re.compile(row.pattern)
    assert all(reference.fullmatch(text) for text in row.accepted)
    assert not any(reference.fullmatch(text) for text in row.rejected)
    _check(row, regex_procedure(row.pattern))


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row.pattern)
def test_pattern_beyond_automata_is_refused(row: Row) -> None:
    reference = re.compile(row.pattern)
    assert all(reference.fullmatch(text) for text in row.accepted)
    assert not any(reference.fullmatch(text) for text in row.rejected)
    with pytest.raises(UnsupportedGrammarError):
        regex_procedure(row.pattern)


@pytest.mark.parametrize("row", BEYOND_PYTHON, ids=lambda row: row.pattern)
def test_spelling_that_re_refuses_has_its_usual_meaning(row: Row) -> None:
    _check(row, regex_procedure(row.pattern))


@pytest.mark.parametrize("row", ECMA, ids=lambda row: row.pattern)
def test_search_pattern_follows_ecmascript(row: Row) -> None:
    _check(row, _search_procedure(row.pattern))


# Random patterns. `\B` is written as `(?!\b)`, because on the empty text `\B` does not match before Python 3.14.

_ALPHABET = "aabB\n\né1 _日kKſ\u212a٣-"
_LEAVES = (
    r"a|b|\n|é|[ab]|[^a]|.|\d|\w|\s|\W|\D|\S|^|$|\A|\Z|(?m:^)|(?m:$)|(?s:.)|(?i:B)|(?i:[^b])|日|\b|(?a:\b)|(?!\b)|"
    r"(?i:k)|(?i:[^k])|(?i:[j-s])|(?a:\w)|(?a:\W)|(?ai:[k-s])|[^\W_]|[^\S\n]|[\d_-]|[a-k\s]|ſ|\u212a|aab|"
)
_leaves = st.sampled_from(_LEAVES.split("|"))
_quantifiers = st.sampled_from(["*", "+", "?", "*?", "{2}", "{0,2}", "{1,3}", "{2,}", "{3,5}", "{4}", "{0,4}", "{,7}"])
_patterns = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})"),
        st.tuples(inner, _quantifiers).map(lambda pair: f"(?:{pair[0]}){pair[1]}"),
        st.tuples(st.sampled_from(["?=", "?!", "", "?i:", "?m:", "?s:", "?a:", "?im:"]), inner).map(
            lambda pair: f"({pair[0]}{pair[1]})"
        ),
    ),
    max_leaves=12,
)
_texts = st.lists(st.text(_ALPHABET, max_size=8), min_size=20, max_size=20)


@settings(max_examples=300, deadline=None)
@given(_patterns, _texts)
def test_random_patterns_agree_with_re(pattern: str, texts: list[str]) -> None:
    reference = re.compile(pattern)
    procedure = regex_procedure(pattern)
    for text in texts:
        assert takes(procedure, text) == bool(reference.fullmatch(text)), text


@settings(max_examples=300, deadline=None)
@given(_patterns, _texts)
@example("(?:a|^b){3,5}a", ["aaab", "baaa", "aaaaaa", "aaaaaaa"])
@example("(?:a+b?){3,5}", ["aaa", "aba", "ab", "aab", "ababab", "abababababab"])
@example("(?:a{2}b?){3,5}(?!a)", ["aaaaaa", "aabaabaab", "aabaaba"])
@example("(?:(?:a?){1,3}b){2,}", ["abab", "bb", "aaaab", "aabaaab"])
def test_counted_repeats_agree_with_re(pattern: str, texts: list[str]) -> None:
    """Everything is counted that can be, however small."""
    reference = re.compile(pattern)
    procedure = regex_procedure(pattern, max_unrolled=0)
    for text in texts:
        assert takes(procedure, text) == bool(reference.fullmatch(text)), text
    assert not configurations_that_cannot_end(procedure)


@settings(max_examples=60, deadline=None)
@given(_patterns, st.randoms(use_true_random=False))
def test_texts_of_random_patterns_and_texts_beside_them_agree_with_re(pattern: str, draw: random.Random) -> None:
    """Drawn texts match most of the time; those that differ in a character are close to the border."""
    reference = re.compile(pattern)
    try:
        automaton = compile_grammar(RegexSpec(pattern))
    except InvalidGrammarError as error:
        assert "matches nothing" in str(error)
        return
    for text in random_texts(automaton, seed=draw.randrange(1000), count=4, soft_len=8):
        assert reference.fullmatch(text), text
        for _ in range(4):
            at = draw.randrange(len(text) + 1)
            other = text[:at] + draw.choice(["", *_ALPHABET]) + text[at + draw.randrange(2) :]
            if len(other) <= 14:  # `re` takes time exponential in the length for some of these
                assert automaton.accepts(other.encode()) == bool(reference.fullmatch(other)), other


_SYNTAX = [*"ab()[]{}|*+?^$\\.,-:=!<>&'1230dDwWsbBAZxuiPp_ \n", "(?", "(?:", "[^", "{1,3}", "(?P<a>", "(?i)", "(?x:"]


@settings(max_examples=1000, deadline=None)
@given(st.lists(st.sampled_from(_SYNTAX), max_size=12).map("".join), _texts)
def test_random_syntax_is_read_as_by_re(pattern: str, texts: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        try:
            reference = re.compile(pattern)
        except (re.error, OverflowError):
            reference = None
    try:
        procedure = regex_procedure(pattern)
    except UnsupportedGrammarError:
        return
    except InvalidGrammarError as error:
        assert reference is None, error
        assert "at column" in str(error)
        return
    if reference is not None and r"\B" not in pattern:
        for text in [*texts, pattern]:
            assert takes(procedure, text) == bool(reference.fullmatch(text)), text


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(_SYNTAX), max_size=12).map("".join))
def test_random_search_patterns_end_in_an_answer(pattern: str) -> None:
    try:
        _search_procedure(pattern)
    except (UnsupportedGrammarError, InvalidGrammarError):
        return


# Counted repeats


@pytest.mark.parametrize(
    ("pattern", "max_states", "accepted", "rejected"),
    [
        (r"[a-z]{1,5000}", 10, ["a" * 5000], ["", "a" * 5001]),
        (r"\w{0,2000}", 700, ["", "é" * 2000], ["é" * 2001]),
        (r"(ab|cd){3,10000}", 20, ["ab" * 3, "cd" * 10000], ["abcd", "ab" * 10001, "aba"]),
        (r"\d{1,3}(,\d{3}){0,1000}", 250, ["1", "1" + ",234" * 1000], ["1" + ",234" * 1001, "1,23"]),
        (r".{1,10000}X", 30, ["XX", "X" * 10001], ["X", "X" * 10002]),
        (r"[a-z]{1,5000}@[a-z]{2,5000}", 15, ["a@bb", "a@" + "b" * 5000], ["a@b", "a@" + "b" * 5001]),
        (r"[a-z]{1,5000}[0-9]{1,5000}", 12, ["a1", "a" * 5000 + "1" * 5000], ["a" * 5000 + "1" * 5001, "a"]),
        (r"(?:[a-z]{300,500};)*", 10, ["", "a" * 300 + ";" + "b" * 500 + ";"], ["a" * 299 + ";", "a" * 501 + ";"]),
        (r"(?:[a-z]{1,1000},){1,1000}", 2100, ["a,", "a," * 1000], ["a," * 1001, "a" * 1001 + ","]),
        (r"a{3000,}", 10, ["a" * 3000, "a" * 3001], ["a" * 2999]),
        (r"(?:a?b?){300}", 15, ["", "ab" * 300, "ba" * 299], ["ba" * 300, "a" * 301]),
        (r"(a+){1,5000}", 4, ["a", "a" * 6000], [""]),
        (r"(?:[a-z]+ ?){3,200}", 30, ["abc", "a b c", "ab " * 200], ["ab", "a", "a " * 201]),
        (r"(\s?[a-z]+\s?,?){1,100}", 60, ["a", " a , b,c", "a," * 100], ["", "a," * 101]),
        (r"((a{0,50}){0,50}){0,50}", 10, ["", "a" * 125_000], ["a" * 125_001]),
        (r"a*a{1,300}", 4, ["a" * 1000], [""]),
        (r"(?=.*[0-9])[a-z0-9]{8,4000}", 100, ["a" * 3999 + "1", "1" * 8], ["a" * 4000, "a" * 4000 + "1", "a1"]),
        (r"(?=.{1,253}$)(?:[a-z]{1,63}\.)+[a-z]{2,9}", 400, ["a.bc", "a." * 125 + "abc"], ["a." * 125 + "abcd"]),
        (r"^(?!.*\.\.)[a-z.]{1,253}$", 15, ["a.b", "a" * 253], ["a..b", "a" * 254]),
        (r"\b[a-z]{1,500}\b \b[a-z]{1,500}\b", 20, ["a b", "a " + "b" * 500], ["a " + "b" * 501, "a "]),
    ],
)
def test_large_counts_stay_small(pattern: str, max_states: int, accepted: list[str], rejected: list[str]) -> None:
    procedure = regex_procedure(pattern)
    assert len(procedure.table) <= max_states
    _check(Row(pattern, accepted, rejected), procedure)


@pytest.mark.parametrize(
    ("pattern", "accepted", "rejected"),
    [
        (r"(?:a|aa){1,200}", ["a" * 400, "a"], ["", "a" * 401]),
        (r"[a-z]{1,100}[a-f]{1,100}", ["za", "a" * 200], ["a", "a" * 201]),
        (r"(?!a{7})a{3,500}b", ["aaab", "a" * 6 + "b"], ["aab", "a" * 7 + "b"]),
    ],
)
def test_ambiguous_counts_are_unrolled(pattern: str, accepted: list[str], rejected: list[str]) -> None:
    procedure = regex_procedure(pattern)
    assert len(procedure.table) > 100 or not any(isinstance(edge, Count) for edge in procedure.edges)
    _check(Row(pattern, accepted, rejected), procedure)


def test_small_counts_are_unrolled() -> None:
    assert all(isinstance(edge, Move) for edge in regex_procedure(r"[a-z]{3,40}").edges[:-1])


# Characters


def _accepted_chars(pattern: str) -> np.ndarray:
    """For each code point, whether it is accepted as the whole text, by walking all UTF-8 encodings at once."""
    targets, accepting = moves_and_ends(regex_procedure(pattern))
    result = np.zeros(MAX_CODE_POINT + 1, dtype=bool)
    for low, high in [(0, 0x7F), (0x80, 0x7FF), (0x800, 0xD7FF), (0xE000, 0xFFFF), (0x10000, MAX_CODE_POINT)]:
        text = "".join(map(chr, range(low, high + 1)))
        states = np.zeros(len(text), dtype=np.int64)
        for column in np.frombuffer(text.encode(), dtype=np.uint8).reshape(len(text), -1).T:
            states = targets[states, column]
        result[low : high + 1] = accepting[states]
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
    procedure = regex_procedure(r"(?s).*")
    invalid = b"\x80 \xc0\x80 \xc1\xbf \xe0\x80\x80 \xed\xa0\x80 \xf0\x80\x80\x80 \xf4\x90\x80\x80 \xf5 \xe2\x82"
    assert [data for data in invalid.split() if takes(procedure, data)] == []
    assert takes(procedure, invalid.decode("utf-8", "replace"))


# Refusals


@pytest.mark.parametrize(
    ("pattern", "name", "column"),
    [
        (r"(?<=a)b", "lookbehind", 1),
        (r"\(?(?<!a)b", "lookbehind", 4),
        (r"[(?<=](?<=b)", "lookbehind", 7),
        (r"(a)\1", "a backreference", 4),
        (r"(?P<n>a)(?P=n)", "a backreference", 9),
        (r"(a)(?(1)b|c)", "a conditional group", 4),
        (r"x(?>a+)", "an atomic group of variable length", 2),
        (r"x(?:ab?)*+", "a possessive quantifier of something of variable length", 9),
        (r"a[[:alpha:]]", "a POSIX class", 3),
        (r"[a-z&&[^b]]", "&& in a set", 5),
        (r"[a-z--[aeiou]]", "-- in a set", 5),
        (r"x\p{Emoji}", "the property 'Emoji'", 2),
        (r"\p{Script=Klingon}", "the property 'Script=Klingon'", 1),
    ],
)
def test_what_is_not_followed_is_refused_with_its_column(pattern: str, name: str, column: int) -> None:
    with pytest.raises(UnsupportedGrammarError, match=rf"uses {re.escape(name)}.* at column {column},"):
        regex_procedure(pattern)


@pytest.mark.parametrize(
    ("pattern", "name", "column"),
    [(r"a\1", "a backreference", 2), (r"(?<a>b)\k<a>", "a backreference", 8), ("ab{,3}", "{,3}", 3)],
)
def test_what_is_not_followed_in_search_patterns_is_refused(pattern: str, name: str, column: int) -> None:
    with pytest.raises(UnsupportedGrammarError, match=rf"uses {re.escape(name)}.* at column {column},"):
        _search_procedure(pattern)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a(b", r"missing \), unterminated subpattern at column 2"),
        ("ab)", "unbalanced parenthesis at column 3"),
        ("[a", "unterminated character set at column 1"),
        ("a**", "multiple repeat at column 3"),
        ("a|*", "nothing to repeat at column 3"),
        ("x^*", "nothing to repeat at column 3"),
        (r"x\q", r"bad escape \\q at column 2"),
        (r"\x4", r"incomplete escape \\x4 at column 1"),
        (r"\u{110000}", "bad escape .* at column 1"),
        (r"\p{L", "missing } after .* at column 4"),
        (r"a\2(b)", "invalid group reference 2 at column 2"),
        ("a{3,2}", "min repeat greater than max repeat at column 2"),
        ("[b-a]", "bad character range b-a at column 2"),
        (r"[\w-z]", r"bad character range .* at column 2"),
        ("(?P<a>x)(?P<a>y)", "redefinition of group name 'a' at column 9"),
        ("(?q)a", r"unknown flag q at column 1"),
        ("(?au)a", "bad inline flags at column 1"),
        ("(?*a)", r"unknown extension \(\?\* at column 1"),
        ("(?#a", r"missing \) after .* at column 4"),
        ("a\\", "bad escape .* at column 2"),
    ],
)
def test_malformed_pattern_is_refused_with_its_column(pattern: str, message: str) -> None:
    with pytest.raises(InvalidGrammarError, match=f"is malformed: {message}"):
        regex_procedure(pattern)


@pytest.mark.parametrize("pattern", ["a^b", "[^\\s\\S]", "(?:a$)b", "a\\Zb", "(?!a)a{500}", "(?=b)a", r"a\bb"])
def test_pattern_that_matches_nothing_has_no_edges(pattern: str) -> None:
    assert not regex_procedure(pattern).table.any()


def test_lone_surrogate_is_refused() -> None:
    with pytest.raises(UnsupportedGrammarError, match="U\\+D800"):
        regex_procedure("a\ud800")


def test_nesting_is_bounded_on_both_sides() -> None:
    assert takes(regex_procedure("(" * 99 + "a" + ")" * 99), "a")
    for depth in (150, 30_000):
        with pytest.raises(GrammarTooLargeError, match="max_nesting is 100"):
            regex_procedure("(" * depth + "a" + ")" * depth)
