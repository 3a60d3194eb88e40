from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sgrun.errors import GrammarError
from sgrun.grammar.compiler import compile_grammar
from sgrun.grammar.limits import CompileLimits
from sgrun.types import GbnfSpec, LarkSpec

SMALL = CompileLimits(max_states=2000, max_nfa_states=4000, max_set_elements=40_000)

LARK_PIECES = st.sampled_from(
    [
        "start",
        "a",
        "A",
        '"x"',
        '"x"',
        '"xy"i',
        "/[a-z]+/",
        "/x*/",
        '"\\ud800"',
        '"a".."c"',
        "(a)",
        '["x"]',
        "(",
        ")",
        "|",
        "|",
        "*",
        "+",
        "?",
        "~2",
        "{0,2}",
        "&",
        "~A",
        "-> b",
        "\nb: ",
        "\n%ignore ",
        "\n%import common.WS",
        '%json {"type":"null"}',
        "B",
        "<t>",
        "\\",
    ]
)
GBNF_PIECES = st.sampled_from(
    [
        "root",
        "a",
        '"x"',
        '"x"',
        '"x\\n"',
        "[a-z]",
        "[^x]",
        ".",
        "[\\ud7ff-\\uffff]",
        '"\\U00110000"',
        "(a)",
        "(",
        ")",
        "|",
        "|",
        "*",
        "+",
        "?",
        "{2}",
        "{1,}",
        "{,2}",
        "\nb ::= ",
        "# x\n",
        "b",
        "<t>",
        "\\",
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(LARK_PIECES, max_size=25))
def test_any_lark_text_compiles_or_ends_in_an_error_of_ours(pieces: list[str]) -> None:
    _compile(LarkSpec("start: " + " ".join(pieces) + '\na: "a" start |\nA: "a"~1..2\n'))


@settings(max_examples=400, deadline=None)
@given(st.lists(GBNF_PIECES, max_size=25))
def test_any_gbnf_text_compiles_or_ends_in_an_error_of_ours(pieces: list[str]) -> None:
    _compile(GbnfSpec("root ::= " + " ".join(pieces) + '\na ::= "a" root |\n'))


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_any_text_at_all_ends_in_an_error_of_ours(text: str) -> None:
    _compile(LarkSpec(text))
    _compile(GbnfSpec(text))


def _compile(spec: LarkSpec | GbnfSpec) -> None:
    try:
        automaton = compile_grammar(spec, SMALL)
    except GrammarError:
        return
    assert automaton.num_states > 1
