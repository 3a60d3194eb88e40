from __future__ import annotations

import random

import lark_grammars
import pytest
from gbnf_grammars import EXAMPLES, UNDECIDED
from grammar_walks import accepts, mutated, random_texts

from sgrun.errors import GrammarError, GrammarTooLargeError, InvalidGrammarError, UnsupportedGrammarError
from sgrun.grammar.automaton import Automaton
from sgrun.grammar.compiler import compile_grammar
from sgrun.types import GbnfSpec, LarkSpec


def _gbnf(grammar: str) -> Automaton:
    return compile_grammar(GbnfSpec(grammar))


@pytest.mark.parametrize("name", EXAMPLES)
def test_grammars_take_their_texts_and_no_others(name: str) -> None:
    example = EXAMPLES[name]
    automaton = _gbnf(example.grammar)
    assert [text for text in example.accepted if not accepts(automaton, text)] == []
    assert [text for text in example.rejected if accepts(automaton, text)] == []


@pytest.mark.parametrize("name", sorted(EXAMPLES.keys() & lark_grammars.EXAMPLES.keys()))
def test_a_grammar_in_both_notations_has_the_same_texts(name: str) -> None:
    gbnf, lark = _gbnf(EXAMPLES[name].grammar), compile_grammar(LarkSpec(lark_grammars.EXAMPLES[name].grammar))
    draw = random.Random(4)
    texts = [*EXAMPLES[name].accepted, *EXAMPLES[name].rejected, *random_texts(gbnf, seed=5, count=30, soft_len=30)]
    chars = "".join(sorted(set("".join(texts))))
    texts += [mutated(text, chars, draw) for text in texts for _ in range(8)]
    assert [text for text in texts if accepts(gbnf, text) != accepts(lark, text)] == []


@pytest.mark.parametrize("name", UNDECIDED)
def test_what_the_next_bytes_do_not_decide_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedGrammarError, match=r"rule 'root' \(line 1\).* may go on"):
        _gbnf(UNDECIDED[name].grammar)


@pytest.mark.parametrize(
    ("grammar", "accepted", "rejected"),
    [
        ("root ::= [^\\]^-] . [a\\-z-] [\\u00e9-\\u00eb]", ["aé-é", "\n-zë"], ["]a-é", "^a-é", "-a-é", "aabé", "aa-ì"]),
        ('root ::= "a" | b\nb ::= "(" root ")"', ["a", "((a))"], ["(", "()", "(a"]),
        ('root ::= a{2} a{0,1} b{1,}\na ::= "a"\nb ::= "b"', ["aab", "aaabb"], ["ab", "aaaab", "aa"]),
        ('root ::= a\n\n  | "c"\na ::= "\\x41\\n\\"\\\\"', ['A\n"\\', "c"], ["A", ""]),
        ('root ::= "in" name\nname ::= [a-z]+', ["ink", "inin"], ["in"]),  # no lexer: letters are just letters
    ],
)
def test_small_grammars_take_their_texts_and_no_others(grammar: str, accepted: list[str], rejected: list[str]) -> None:
    automaton = _gbnf(grammar)
    assert [text for text in accepted if not accepts(automaton, text)] == []
    assert [text for text in rejected if accepts(automaton, text)] == []


@pytest.mark.parametrize(
    ("grammar", "error", "message"),
    [
        ("root ::= root", InvalidGrammarError, r"'root' \(line 1\) can never end"),
        ("root ::= (", InvalidGrammarError, "line 1, column 11, the end of the text: `\\)` is expected"),
        ('root = "a"', InvalidGrammarError, "line 1, column 6"),
        ('root ::= "a"\nroot ::= "b"', InvalidGrammarError, "line 2, column 1, 'root': the rule 'root' is defined"),
        ('root ::= "a"\n"b"', InvalidGrammarError, "line 2, column 1"),
        ("root ::= a", InvalidGrammarError, "'a', which is not defined"),
        ('root ::= "a"{2,1}', InvalidGrammarError, "from 2 to 1 times"),
        ("root ::= [z-a]", InvalidGrammarError, "range z-a is empty"),
        (r"root ::= [\d]", InvalidGrammarError, r"line 1, column 10.*\\d means nothing"),
        ("root ::= * ", InvalidGrammarError, "nothing to repeat"),
        ('start ::= "a"', InvalidGrammarError, "no rule 'root'"),
        ("root ::= <think>", UnsupportedGrammarError, "<think> at line 1, column 10"),
        ('root ::= "a" root "a" | "a"', UnsupportedGrammarError, r"rule 'root' \(line 1\), 'a' may go on"),
        ("root ::= " + "(" * 30_000, GrammarTooLargeError, "max_nesting"),
        ("\n".join(f"r{i} ::= r{i + 1}" for i in range(10_000)), GrammarTooLargeError, "1000 rules"),
        ('root ::= "a"{1,900000000}', GrammarTooLargeError, "max_nfa_states"),
    ],
)
def test_errors_say_where(grammar: str, error: type[GrammarError], message: str) -> None:
    with pytest.raises(error, match=message):
        _gbnf(grammar)
