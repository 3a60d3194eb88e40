"""Grammars in Lark's notation, each with texts it has and texts it has not: for tests and the benchmark."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    grammar: str
    accepted: tuple[str, ...]
    rejected: tuple[str, ...]


ARITHMETIC = Example(
    r"""
start: sum
sum: sum ("+" | "-") product | product
product: product ("*" | "/") power | power
power: unary "^" power | unary
unary: "-" unary | atom
atom: NUMBER | NAME | "(" sum ")"
NAME: /[a-z_][a-z_0-9]*/
%import common.NUMBER
%import common.WS
%ignore WS
""",
    ("1", "1+2*3", "-(a - -b)^2^x / 1.5e3", "((((1))))", " 1 \n+\t2 ", "x1_", "--1"),
    ("", "1+", "+1", "()", "(1", "1)", "1 2", "a b", "1**2", "2x", "é"),
)

JSON = Example(
    r"""
start: value
?value: object | array | STRING | NUMBER | "true" | "false" | "null"
object: "{" [pair ("," pair)*] "}"
pair: STRING ":" value
array: "[" [value ("," value)*] "]"
STRING: /"([^"\\\x00-\x1f]|\\(["\\\/bfnrt]|u[0-9a-fA-F]{4}))*"/
NUMBER: /-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?/
WS: /[ \t\n\r]+/
%ignore WS
""",
    ('{"a": [1, -2.5e3, {"b":null}]} ', "[]", '"\\u00e9é\\n"', "[true,false]", "0", " {} "),
    ("[01]", "[1,]", '{"a":}', '{"a":1,}', "[1", "]", '"\n"', "nul", "1.", "[1 2]"),
)

S_EXPRESSIONS = Example(
    r"""
start: sexp+
sexp: atom | "(" sexp* ("." sexp)? ")" | "'" sexp
atom: SYMBOL | INT | STR
SYMBOL: /[a-z+*\/<>=!?-][a-z0-9+*\/<>=!?-]*/
INT: /[+-]?[0-9]+/
STR: /"[^"]*"/
%ignore /[ \n]+/
%ignore /;[^\n]*/
""",
    ("(a b (c . d) 'x 12)", "()", "''(1 2) foo", "(a);end", "(+ 1 -2)", '("x;y" ; note\n)', "1 2"),
    ("(", ")", "(a . )", "(. a b)", "'", "(a . b c)", '"', ";only"),
)

MARKUP = Example(
    "start: content\ncontent: (TEXT | element)*\nelement: "
    + " | ".join(
        f'"<{tag}" attribute* ">" content "</{tag}>" | "<{tag}" attribute* "/>"'
        for tag in ("div", "p", "ul", "li", "dl", "b")
    )
    + r"""
attribute: NAME "=" VALUE
TEXT: /[^<>]+/
NAME: /\s+[a-z]+/
VALUE: /"[^"]*"/
""",
    ('<div>a<p a="1">x</p></div>', "<li/>", "", "text", "<ul><li>1</li><li>2</li></ul>", "<b><b><b/></b></b>"),
    ('<div>a<p a="1">x</div></p>', "<b", "<p>", "</p>", "<p></p", "<q></q>", "<p a></p>", "a>b"),
)

# The priority is for Lark's own lexer, which prefers keywords to names only where they are spelled in one way.
SQL = Example(
    r"""
start: select ";"?
select: "SELECT"i ["DISTINCT"i] columns "FROM"i source join* ["WHERE"i cond] ["GROUP"i "BY"i exprs] tail
tail: ["ORDER"i "BY"i order ("," order)*] ["LIMIT"i INT]
columns: "*" | column ("," column)*
column: expr ["AS"i NAME]
source: NAME ["AS"i NAME] | "(" select ")" "AS"i NAME
join: ("LEFT"i | "INNER"i)? "JOIN"i source "ON"i cond
order: expr ("ASC"i | "DESC"i)?
exprs: expr ("," expr)*
cond: cond "OR"i conj | conj
conj: conj "AND"i neg | neg
neg: "NOT"i neg | pred
pred: expr tested | "(" cond ")" | "EXISTS"i "(" select ")"
tested: ("=" | "<>" | "<=" | ">=" | "<" | ">") expr | "IN"i "(" (select | exprs) ")" | "LIKE"i STRING
      | "BETWEEN"i expr "AND"i expr | "IS"i ["NOT"i] "NULL"i
expr: expr ("+" | "-") mul | mul
mul: mul ("*" | "/") prim | prim
prim: NAME ("." NAME)? | NUMBER | STRING | NAME "(" ("*" | exprs)? ")" | "(" expr ")" | "(" select ")"
NAME.-1: /[a-z_][a-z0-9_]*/
STRING: /'([^']|'')*'/
%import common.NUMBER
%import common.INT
%import common.WS
%ignore WS
""",
    (
        "SELECT a, b AS c FROM t WHERE a = 1 AND (b > 2 OR c IN (SELECT x FROM y)) ORDER BY a DESC LIMIT 10;",
        "select * from (select count(*) from t) as u",
        "select (a) from t where ((a + 1) * 2) > 2 and ((a = 1))",
        "select a from t where not a is not null and exists (select a from t limit 1)",
        "select selected from t as fromage left join u on t.id = u.id",
    ),
    (
        "select from t",
        "select a b from t",
        "select a from t where a",
        "select a from t where (a) and b = 1",
        "select a from t limit x",
        "select (select a from t from t",
    ),
)

PYTHON = Example(
    r"""
start: test
?test: or_test ("if" or_test "else" test)? | lambdef
lambdef: "lambda" [params] ":" test
params: NAME ("," NAME)*
?or_test: and_test ("or" and_test)*
?and_test: not_test ("and" not_test)*
?not_test: "not" not_test | comparison
?comparison: expr (comp_op expr)*
comp_op: "<" | ">" | "==" | ">=" | "<=" | "!=" | "in" | "not" "in" | "is" | "is" "not"
?expr: xor ("|" xor)*
?xor: conjunction ("^" conjunction)*
?conjunction: shift ("&" shift)*
?shift: arith (("<<" | ">>") arith)*
?arith: term (("+" | "-") term)*
?term: factor (("*" | "/" | "%" | "//" | "@") factor)*
?factor: ("+" | "-" | "~") factor | power
?power: atom_expr ("**" factor)?
?atom_expr: atom | atom_expr "(" [args] ")" | atom_expr "[" subs "]" | atom_expr "." NAME
args: arg ("," arg)* [","]
arg: test | NAME "=" test | "*" test | "**" test
subs: sub ("," sub)* [","]
sub: test | [test] ":" [test] [":" [test]]
?atom: "(" [tests] ")" | "[" [tests comp_for?] "]" | "{" [dict] "}" | NAME | NUMBER | STRING
     | "None" | "True" | "False"
comp_for: "for" NAME "in" or_test ["if" or_test]
tests: test ("," test)* [","]
dict: test ":" test ("," test ":" test)* [","]
NAME: /[a-zA-Z_][a-zA-Z0-9_]*/
NUMBER: /[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?/
STRING: /"([^"\\\n]|\\.)*"|'([^'\\\n]|\\.)*'/
%ignore /[ \t]+/
""",
    (
        "a + b*3 if not x else f(1, k=2, *z)[1:2]",
        "lambda x, y: x",
        "(1,)",
        "{1: 2, 'a': [x for x in y if z]}",
        "not a in b",
        "x not in y is not z",
        "-x**-y",
        "a.b(c).d[0][:, ::2]",
        "notx",
        "nothing or iffy and lambdas",
        "{}",
    ),
    ("a if b", "lambda", "not", "f(", "a b", "1 2", "a.1", "[x for]", "x not y", "(not)", "a = b", "f(a b)", "{1}"),
)

TOOL_CALLS = Example(
    r"""
start: call (";" call)*
call: name "(" [argument ("," argument)*] ")"
argument: KEY "=" value
value: STRING | NUMBER | "true" | "false" | list | call
list: "[" _separated{value, ","}? "]"
_separated{item, separator}: item (separator item)*
name: "search" | "send" | "search_all"
KEY: /[a-z]+/ & ~("to" | "from")
STRING: "\"" /[^"\n]/ ~ 0..20 "\""
NUMBER: "-"? DIGITS ["." DIGITS]
DIGITS: "0".."9"+
%ignore " "
""",
    ('search(q="a b", n=-1.5)', "send()", 'search_all(x=[1, "b", []]);send(y=search())', "send(tom=true)"),
    ("send(to=1)", "find()", "send(a=)", "send(a=1", "send();", 'send(a="' + "x" * 21 + '")', "send(a=[1,])"),
)

QUERY = Example(
    r"""
start: operation | selection
operation: ("query" | "mutation") NAME? variables? selection
variables: "(" variable ("," variable)* ")"
variable: "$" NAME ":" type ["=" value]
type: NAME "!"? | "[" type "]" "!"?
selection: "{" field (","? field)* "}"
field: "..." ("on" NAME)? selection | [NAME ":"] NAME arguments? selection?
arguments: "(" argument ("," argument)* ")"
argument: NAME ":" value
value: "$" NAME | INT | STRING | "[" (value ("," value)*)? "]" | "{" (argument ("," argument)*)? "}"
NAME: /[A-Za-z_][A-Za-z0-9_]*/
INT: /-?[0-9]+/
STRING: /"[^"\n]*"/
%ignore /[ \t\n]+/
""",
    (
        "{a}",
        "{ a b { c } }",
        'query Q($id: ID!, $n: [Int!] = [1]) { user(id: $id, at: {x: "y"}) { friends(first: 5) { name }, id } }',
        "mutation { me: add(n: -1) { ok } }",
        "{ ... on User { id } ... { a } }",
        "query query {query}",
    ),
    ("{}", "{a", "query", "{a(}", "{a()}", "query ($x) {a}", "{a: }", "{a(x: $)}", "queryable", "{... on}"),
)

CLAUSES = Example(
    r"""
start: clause+
clause: term (":-" goal ("," goal)*)? "."
goal: term [("=" | "is" | "<") term] | "\\+" goal | "!"
term: ATOM ["(" term ("," term)* ")"] | VARIABLE | NUMBER | "[" [term ("," term)* ["|" term]] "]"
ATOM: /[a-z][A-Za-z0-9_]*|'[^'\n]*'/
VARIABLE: /[A-Z_][A-Za-z0-9_]*/
NUMBER: /[0-9]+/
%ignore /\s+/
%ignore /%[^\n]*\n/
""",
    (
        "parent(tom, bob).",
        "len([], 0). len([_|T], N) :- len(T, M), N is 1.",
        "p :- \\+ q(X), !. % rule\nq('a b').",
        "isa(x).y.",
    ),
    ("", "p", "p(.", "p :- .", "p(). ", ":- q.", "p :- q,.", "[a|]. ", "p q.", "p('a."),
)

EXAMPLES = {
    "arithmetic": ARITHMETIC,
    "json": JSON,
    "s-expressions": S_EXPRESSIONS,
    "markup": MARKUP,
    "sql": SQL,
    "python": PYTHON,
    "tool calls": TOOL_CALLS,
    "queries": QUERY,
    "clauses": CLAUSES,
}
FOR_LARK_TOO = [name for name in EXAMPLES if name != "tool calls"]  # Lark has no `&` and no `~` in front of a terminal

# The next bytes do not decide how these go on, so that a deterministic automaton cannot follow them.
UNDECIDED = {
    "dangling else": Example(
        'start: "if" start ("else" start)? | "x"\n%ignore " "',
        ("x", "if x", "if if x else x", "if x else if x else x"),
        ("", "if", "x else x", "if x else", "if x else x else x"),
    ),
    "palindromes": Example(
        'start: "a" start "a" | "b" start "b" | "c"? | "a" | "b"',
        ("", "a", "abba", "abcba", "bbb"),
        ("ab", "abb", "cc"),
    ),
}
