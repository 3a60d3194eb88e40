from __future__ import annotations

import random
import re
from functools import cache

import pytest
from grammar_walks import accepts, mutated, random_texts
from lark import Lark
from lark.exceptions import LarkError
from lark_grammars import EXAMPLES, FOR_LARK_TOO, UNDECIDED

from sgrun.errors import GrammarError, InvalidGrammarError, UnsupportedGrammarError
from sgrun.grammar.automaton import Automaton
from sgrun.grammar.compiler import compile_grammar
from sgrun.grammar.lark_common import COMMON_TERMINALS
from sgrun.types import LarkSpec


@cache
def _automaton(name: str) -> Automaton:
    return compile_grammar(LarkSpec(EXAMPLES[name].grammar))


def _lark(grammar: str) -> Automaton:
    return compile_grammar(LarkSpec(grammar))


@pytest.mark.parametrize("name", EXAMPLES)
def test_grammars_take_their_texts_and_no_others(name: str) -> None:
    automaton = _automaton(name)
    assert [text for text in EXAMPLES[name].accepted if not accepts(automaton, text)] == []
    assert [text for text in EXAMPLES[name].rejected if accepts(automaton, text)] == []


def _parses(parser: Lark, text: str) -> bool:
    try:
        parser.parse(text)
    except LarkError:
        return False
    return True


@pytest.mark.parametrize("name", FOR_LARK_TOO)
def test_random_texts_and_mutations_are_judged_as_larks_own_parser_judges_them(name: str) -> None:
    parser = Lark(EXAMPLES[name].grammar, parser="lalr", lexer="contextual")
    draw = random.Random(3)
    examples = [*EXAMPLES[name].accepted, *EXAMPLES[name].rejected]
    examples += random_texts(_automaton(name), seed=5, count=60, soft_len=30)
    chars = "".join(sorted(set("".join(examples))))
    texts = [mutated(text, chars, draw) for text in examples for _ in range(8)]
    wrong = [text for text in texts if accepts(_automaton(name), text) != _parses(parser, text)]
    assert wrong == []
    assert 0.1 < sum(accepts(_automaton(name), text) for text in texts) / len(texts) < 0.95


def test_names_are_not_keywords_where_both_could_stand_and_keywords_are_whole_words() -> None:
    automaton = _lark('start: "not" start | NAME\nNAME: /[a-z]+/\n%ignore " "')
    assert accepts(automaton, "not not nothing")
    assert accepts(automaton, "notnot")  # a name
    assert not accepts(automaton, "not")
    assert not accepts(automaton, "not not")


def test_terminals_are_as_long_as_they_can_be() -> None:
    automaton = _lark("start: A B\nA: /[a-y]+/\nB: /[xyz]+/")
    assert accepts(automaton, "abz")
    assert not accepts(automaton, "axyx")  # A takes all of it, as it does in a lexer
    assert accepts(_lark('start: "a"* "ab"'), "aab")  # plain strings leave room for what follows


def test_the_longest_character_counts_not_the_longest_byte() -> None:
    automaton = _lark("start: A B\nA: /[aé]+/\nB: /[üb]+/")  # é and ü begin with the same byte
    assert accepts(automaton, "éü")
    assert not accepts(automaton, "é")


def test_a_character_that_begins_like_a_longer_terminal_is_decided_when_it_is_read() -> None:
    automaton = _lark("start: A B\nA: /[aé]+/\nB: /[éü]+/")
    assert accepts(automaton, "aü")
    assert not accepts(automaton, "aé")  # A goes on with é, and nothing is left for B


def test_white_space_above_ascii_goes_before_what_begins_with_the_same_byte() -> None:
    automaton = _lark('start: "(" start* ")" | /\\d/\n%ignore /\\s+/')
    assert accepts(automaton, "(1\u3000(2 ) 3)")
    assert accepts(automaton, "(٣٤)")  # Arabic digits share no byte with white space


def test_terminals_with_names_are_literals_too() -> None:
    automaton = _lark('start: IN NAME | NAME\nIN: "in"\nNAME: /[a-z]+/\n%ignore " "')
    assert accepts(automaton, "in ink")
    assert not accepts(automaton, "in")


def test_the_empty_text_of_a_rule_is_the_callers_business() -> None:
    automaton = _lark('start: n "x1" | "(" n ")"\nn: "x" n "y" |')
    for text in ("x1", "xyx1", "()", "(xxyy)"):
        assert accepts(automaton, text), text
    for text in ("xx1", "(xxy)", "xx"):
        assert not accepts(automaton, text), text


def test_an_optional_rule_does_not_follow_itself() -> None:
    automaton = _lark('start: "[" x? "]"\nx: "a" x "b" | "a"')
    assert accepts(automaton, "[aaabb]")
    assert accepts(automaton, "[]")
    assert not accepts(automaton, "[aa]")


def test_left_recursion_right_recursion_and_ambiguous_operators_become_loops_without_depth() -> None:
    for body in (
        'start: start "+" N | N',
        'start: N "+" start | N',
        'start: start "+" start | N',
        'start: a\na: b "+" N | N\nb: a',
        'start: N | N "+" b\nb: start',
    ):
        automaton = _lark(body + "\nN: /[0-9]/")
        assert accepts(automaton, "+".join("1" * 200)), body
        assert not accepts(automaton, "1+"), body
        assert not accepts(automaton, "11"), body


def test_prefix_operators_bind_as_the_rules_say() -> None:
    automaton = _lark('start: start "+" start | "-" start | "(" start ")" | start "!" | /[0-9]/')
    for text in ("-1+-2", "--1!", "(1+2)!+3", "-(1!)"):
        assert accepts(automaton, text), text
    for text in ("1-2", "!1", "-", "(1", "1+!"):
        assert not accepts(automaton, text), text


def test_alternatives_that_begin_alike_are_told_apart_however_deep() -> None:
    automaton = _lark(
        'start: target "=" expr | expr\ntarget: "(" target ")" | N\nexpr: "(" expr ")" | N | "1"\nN: /[a-z]/'
    )
    for text in ("((a))=((1))", "((1))", "((a))", "a=1"):
        assert accepts(automaton, text), text
    for text in ("((1))=a", "((a)=1", "1=a"):
        assert not accepts(automaton, text), text


def test_matched_and_unmatched_conditionals_go_through() -> None:
    matched = """
        start: matched | unmatched
        matched: "if" matched "else" matched | "x"
        unmatched: "if" start | "if" matched "else" unmatched
        %ignore " "
    """
    automaton = _lark(matched)
    assert accepts(automaton, "if if x else x")
    assert accepts(automaton, "if if x else x else x")
    assert not accepts(automaton, "if x else x else x")


@pytest.mark.parametrize("name", UNDECIDED)
def test_what_the_next_bytes_do_not_decide_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedGrammarError, match=r"rule 'start' \(line 1\).* may go on"):
        _lark(UNDECIDED[name].grammar)


def test_ignored_text_stands_between_terminals_only() -> None:
    automaton = _lark('start: "ab" A\nA: "c" "d"\n%ignore " "\n%ignore /#[^#]*#/')
    assert accepts(automaton, "  ab # x # cd ##")
    assert not accepts(automaton, "a b cd")
    assert not accepts(automaton, "ab c d")
    assert not accepts(automaton, "ab cd #")


@pytest.mark.parametrize("name", COMMON_TERMINALS)
def test_common_terminals_have_the_texts_of_larks_own(name: str) -> None:
    known = Lark(f"start: X\n%import common.{name} -> X").get_terminal("X").pattern.to_regexp()
    ours = _lark(f"start: X\n%import common.{name} -> X")
    draw = random.Random(7)
    alphabet = "019aAfgZ_.+-eE \"\\\t\n\r\f#/*'"
    texts = ["".join(draw.choice(alphabet) for _ in range(draw.randrange(7))) for _ in range(400)]
    texts += random_texts(ours, seed=2, count=30, soft_len=8)
    texts += ["/**/", "/***/", "/* a */", "//x", "--x", "#x", '"a\\"b"', "1.e5", ".5", "1e-5", "\r\n\n", "x_1"]
    # a lazy repeat stops at the first end of a comment, which a full match does not know of
    texts = [text for text in texts if name != "C_COMMENT" or "*/" not in text[2:-2]]
    assert [text for text in texts if accepts(ours, text) != bool(re.fullmatch(known, text))] == []


def test_repeats_options_templates_and_escapes() -> None:
    automaton = _lark(r"""
        start: pairs{item, ";"} ["!"] "\u00e9\n\"\x41"i ~ 2
        pairs{x, s}: x s x | pairs{x, ","}
        item: ("a".."c"){2,3} | /x/+
        """)
    assert accepts(automaton, 'ab;xxxé\n"AÉ\n"a')
    assert accepts(_lark('start: f{"a"}\nf{x}: x | "(" f{x} ")"'), "((a))")
    assert not accepts(automaton, 'a;xxxé\n"Aé\n"A')


def test_json_schemas_stand_within_rules() -> None:
    automaton = _lark(
        'start: "call" NAME %json {"type": "array", "items": {"type": "integer"}} ";"\nNAME: /[a-z]+/\n%ignore " "'
    )
    assert accepts(automaton, "call f [1, 2] ;")
    assert not accepts(automaton, 'call f ["a"];')
    with pytest.raises(InvalidGrammarError, match=r"line 1, column 14.*line 2, column 6"):
        _lark('start: %json {\n"a": }')


@pytest.mark.parametrize(
    ("grammar", "error", "message"),
    [
        ("start: start", InvalidGrammarError, r"'start' \(line 1\) can never end"),
        ("start: a\na: b\nb: a", InvalidGrammarError, "can never end"),
        ('start: start "a"', InvalidGrammarError, "can never end"),
        ('start: e start "x" | "y"\ne: "z"?', UnsupportedGrammarError, "line 1.*may be empty"),
        ('start: "a" b', InvalidGrammarError, "line 1, column 12 uses the rule 'b', which is not defined"),
        ("start:\n  B", InvalidGrammarError, "malformed at line 2, column 3"),
        ("start: B", InvalidGrammarError, "terminal 'B', which is not defined"),
        ('start: A\nA: "a" A', InvalidGrammarError, "'A' is defined by itself at line 2, column 8"),
        ('start: A\nb: "x"\nA: b', InvalidGrammarError, "rule 'b' within a terminal"),
        ('start: "a"\nstart: "b"', InvalidGrammarError, "'start' is defined again at line 2"),
        ('start: WS\n%import common.WS\nWS: "x"', InvalidGrammarError, "'WS' is defined again at line 3"),
        ('a: "b"', InvalidGrammarError, "no rule 'start'"),
        ("start: (", InvalidGrammarError, "malformed at line 1"),
        ('start: "a', InvalidGrammarError, "line 1, column 8"),
        ("start: /(/", InvalidGrammarError, "line 1, column 8: the regular expression"),
        ("start: /(?<=a)b/", UnsupportedGrammarError, "line 1, column 8"),
        ('start: "a" ~ 3..2', InvalidGrammarError, "from 3 to 2 times"),
        ('start: "b".."a"', InvalidGrammarError, "range at line 1"),
        ('start: f{"a", "b"}\nf{x}: x', InvalidGrammarError, "2 arguments; it takes 1"),
        ('start: "a" & start', InvalidGrammarError, "rule 'start' within a terminal"),
        (r'start: "a\+"', UnsupportedGrammarError, r"escape \\\+ in \"a\\\+\" at line 1, column 8"),
        ("%declare X\nstart: X", UnsupportedGrammarError, "%declare at line 1"),
        ("start: X\n%import python.X", UnsupportedGrammarError, "line 2.*imports python.X"),
        ('start[lazy]: "a"', UnsupportedGrammarError, r"\[lazy\]"),
        ("start: <|end|>", UnsupportedGrammarError, r"<\|end\|>"),
        ('start: "a\0"', InvalidGrammarError, "NUL"),
        ("start: /a/ & /b/", InvalidGrammarError, "matches nothing"),
    ],
)
def test_errors_say_where(grammar: str, error: type[GrammarError], message: str) -> None:
    with pytest.raises(error, match=f"(?s){message}"):
        _lark(grammar)


def test_deep_nesting_ends_where_the_frames_do() -> None:
    automaton = _lark('start: "(" start ")" | "x"')
    assert accepts(automaton, "(" * 60 + "x" + ")" * 60)
    assert not accepts(automaton, "(" * 70 + "x" + ")" * 70)
