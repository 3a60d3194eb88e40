from __future__ import annotations

import pytest
from grammar_walks import accepts

from sgrun.errors import GrammarError, GrammarTooLargeError, InvalidGrammarError, UnsupportedGrammarError
from sgrun.grammar.automaton import Automaton
from sgrun.grammar.compiler import compile_grammar
from sgrun.types import GbnfSpec

ARITHMETIC = r"""
# one line for each equation
root  ::= (expr "=" ws term "\n")+
expr  ::= term ([-+*/] term)*
term  ::= ident | num | "(" ws expr
    ")" ws
ident ::= [a-z] [a-z0-9_]* ws   # a name
num   ::= [0-9]+ ws
ws    ::= [ \t\n]*
""".replace("expr\n    ", "expr ")

VALUES = r"""
root ::= value
value ::= object | array | string | number |
  ("true" | "false" | "null") ws
object ::= "{" ws (
    string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws
array ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x00-\x1F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= "-"? ([0-9] | [1-9] [0-9]{1,15}) ("." [0-9]+)? ([eE] [-+]? [0-9]+)? ws
ws ::= | " " | "\n" [ \t]{0,20}
"""


def _gbnf(grammar: str) -> Automaton:
    return compile_grammar(GbnfSpec(grammar))


@pytest.mark.parametrize(
    ("grammar", "accepted", "rejected"),
    [
        (ARITHMETIC, ["a+1=2\n(a*3)= 4\n", "x_1=0\n"], ["", "a=\n", "a+=1\n", "(a=1\n", "a=1"]),
        (VALUES, ['{"a": [1, 2.5e3,\n  {"b":null} ]} ', '"\\u00e9é"', "[]"], ["[1,]", "[1  ]", '{"a"}', "01"]),
        ("root ::= [^\\]^-] . [a\\-z-] [\\u00e9-\\u00eb]", ["aé-é", "\n-zë"], ["]a-é", "^a-é", "-a-é", "aabé", "aa-ì"]),
        ('root ::= "a" | b\nb ::= "(" root ")"', ["a", "((a))"], ["(", "()", "(a"]),
        ('root ::= a{2} a{0,1} b{1,}\na ::= "a"\nb ::= "b"', ["aab", "aaabb"], ["ab", "aaaab", "aa"]),
        ('root ::= a\n\n  | "c"\na ::= "\\x41\\n\\"\\\\"', ['A\n"\\', "c"], ["A", ""]),
        ('root ::= "in" name\nname ::= [a-z]+', ["ink", "inin"], ["in"]),  # no lexer: letters are just letters
    ],
)
def test_grammars_take_their_texts_and_no_others(grammar: str, accepted: list[str], rejected: list[str]) -> None:
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
