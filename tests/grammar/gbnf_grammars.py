"""Grammars in GBNF, each with texts it has and texts it has not: for tests and the benchmark.

Those named as in lark_grammars.py have the same texts as the grammars there.
"""

from __future__ import annotations

import lark_grammars
from lark_grammars import Example

EQUATIONS = Example(
    r"""
# one line for each equation
root  ::= (expr "=" ws term "\n")+
expr  ::= term ([-+*/] term)*
term  ::= ident | num | "(" ws expr ")" ws
ident ::= [a-z] [a-z0-9_]* ws   # a name
num   ::= [0-9]+ ws
ws    ::= [ \t\n]*
""",
    ("a+1=2\n(a*3)= 4\n", "x_1=0\n"),
    ("", "a=\n", "a+=1\n", "(a=1\n", "a=1"),
)

VALUES = Example(
    r"""
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
""",
    ('{"a": [1, 2.5e3,\n  {"b":null} ]} ', '"\\u00e9é"', "[]"),
    ("[1,]", "[1  ]", '{"a"}', "01"),
)

GAME = Example(
    r"""
# numbered moves: 1. e4 e5
root ::= (number ". " move " " move "\n")+ result?
number ::= [1-9] [0-9]{0,2}
move ::= (piece | pawn | castle) [+#]?
piece ::= [NBKQR] [a-h]? [1-8]? "x"? square
pawn ::= ([a-h] "x")? square ("=" [NBQR])?
castle ::= "O-O" "-O"?
square ::= [a-h] [1-8]
result ::= "1-0" | "0-1" | "1/2-1/2"
""",
    ("1. e4 e5\n", "1. Nbd7 O-O-O+\n12. exd8=Q# Rhxe1\n1-0", "1. Qh4xe1 N1f3\n"),
    ("", "1. e4\n", "01. e4 e5\n", "1. e9 e5\n", "1. O-O-O-O e5\n", "1-0", "1. exd8=K a1\n", "1. Nxx e5\n"),
)

STATEMENTS = Example(
    r"""
root      ::= block
block     ::= "{" ws (statement ws)* "}"
statement ::= block | "if" ws condition ws block (ws "else" ws block)? | "return" (ws1 sum)? ws ";" | assign
assign    ::= "let" ws1 name ws "=" ws sum ws ";"
condition ::= "(" ws sum ws ("==" | "!=" | "<" "="?) ws sum ws ")"
sum       ::= factor (ws [-+] ws factor)*
factor    ::= name ("(" ws (sum (ws "," ws sum)*)? ws ")")? | digits | "(" ws sum ws ")"
name      ::= [a-zA-Z_] [a-zA-Z_0-9]*
digits    ::= [0-9]+
ws        ::= ([ \n\t] | "//" [^\n]* "\n")*
ws1       ::= [ \n\t] ws
""",
    (
        "{}",
        "{ let x = f(1, y) + (2); // note\n if (x <= 3) { return x ; } else {} return; }",
        "{{{}}}",
        "{ let a=b; let c = d( )- 1; }",
    ),
    ("", "{", "{ let x = ; }", "{ if (x) {} }", "{ return 1 }", "{ if (a<b) return; }", "{ else {} }", "{let1=2;}"),
)

LINES = Example(
    r"""
root ::= title "\n"? item+
title ::= "# " [^\n#] [^\n]{0,60} "\n"
item ::= ("- " | [1-9] ". ") text "\n" ("  - " text "\n"){0,3}
text ::= [^ \n] [^\n]*
""",
    ("# T\n- a\n", "# Some list\n\n1. x\n  - y\n- z\n", "# é\n- a\n  - b\n  - c\n  - d\n"),
    (
        "",
        "- a\n",
        "# T\n",
        "# T\n-a\n",
        "# T\n- a",
        "# T\n\n\n- a\n",
        "# T\n- a\n  - 1\n  - 2\n  - 3\n  - 4\n",
        "##T\n- a\n",
    ),
)

ARITHMETIC = r"""
root ::= ws sum
sum ::= product (("+" | "-") ws product)*
product ::= power (("*" | "/") ws power)*
power ::= unary ("^" ws unary)*
unary ::= "-" ws unary | atom
atom ::= number ws | name ws | "(" ws sum ")" ws
name ::= [a-z_] [a-z_0-9]*
number ::= [0-9]+ ("." [0-9]*)? exponent? | "." [0-9]+ exponent?
exponent ::= [eE] [+-]? [0-9]+
ws ::= [ \t\x0C\r\n]*
"""

JSON = r"""
root ::= ws value
value ::= (object | array | string | number | "true" | "false" | "null") ws
object ::= "{" ws (pair ("," ws pair)*)? "}"
pair ::= string ws ":" ws value
array ::= "[" ws (value ("," ws value)*)? "]"
string ::= "\"" ([^"\\\x00-\x1f] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4}))* "\""
number ::= "-"? ("0" | [1-9] [0-9]*) ("." [0-9]+)? ([eE] [+-]? [0-9]+)?
ws ::= [ \t\n\r]*
"""

S_EXPRESSIONS = r"""
root ::= ws sexp+ comment?
sexp ::= atom ws | "(" ws sexp* ("." ws sexp)? ")" ws | "'" ws sexp
atom ::= [a-z+*/<>=!?-] [a-z0-9+*/<>=!?-]* | [+-]? [0-9]+ | "\"" [^"]* "\""
ws ::= ([ \n] | comment "\n")*
comment ::= ";" [^\n]*
"""

_TAGS = ("div", "p", "ul", "li", "dl", "b")
MARKUP = (
    "root ::= ([^<>] | element)*\nelement ::= "
    + " | ".join(f'"<{tag}" attribute* (">" root "</{tag}>" | "/>")' for tag in _TAGS)
    + r"""
attribute ::= [ \t\n\r]+ [a-z]+ "=\"" [^"]* "\""
"""
)


def _translated(name: str, grammar: str) -> Example:
    original = lark_grammars.EXAMPLES[name]
    return Example(grammar, original.accepted, original.rejected)


EXAMPLES = {
    "equations": EQUATIONS,
    "values": VALUES,
    "game": GAME,
    "statements": STATEMENTS,
    "lines": LINES,
    "arithmetic": _translated("arithmetic", ARITHMETIC),
    "json": _translated("json", JSON),
    "s-expressions": _translated("s-expressions", S_EXPRESSIONS),
    "markup": _translated("markup", MARKUP),
}

# The next bytes do not decide how these go on, so that a deterministic automaton cannot follow them.
UNDECIDED = {
    "dangling else": Example(
        'root ::= "if " root ("else " root)? | "x "',
        ("x ", "if x ", "if if x else x ", "if x else if x else x "),
        ("", "if ", "x else x ", "if x else ", "if x else x else x "),
    ),
    "palindromes": Example(
        'root ::= "a" root "a" | "b" root "b" | "c"? | "a" | "b"',
        lark_grammars.UNDECIDED["palindromes"].accepted,
        lark_grammars.UNDECIDED["palindromes"].rejected,
    ),
}
