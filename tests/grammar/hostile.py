"""Constraints that are made to cost: deep, wide, or exploding. Most end in GrammarTooLargeError, some compile."""

from __future__ import annotations

import json
from typing import Any

from sgrun.errors import InvalidGrammarError, UnsupportedGrammarError
from sgrun.types import ChoicesSpec, GbnfSpec, GrammarSpec, JsonSchemaSpec, LarkSpec, RegexSpec


def _schema(schema: Any) -> JsonSchemaSpec:
    return JsonSchemaSpec(json.dumps(schema), strict=False)


def _nested(num_levels: int, before: str, inner: str, after: str) -> str:
    return before * num_levels + inner + after * num_levels


REGEXES = {
    "exponential in its tail": "(.*a.{18}|b)",
    "the same over two letters": "(a|b)*a(a|b){24}",
    "counts within counts": "(?:(?:a{1,200}b?){1,200}c?){1,200}",
    "ambiguous counts": ".{1,500}.{1,500}x",
    "three ambiguous counts": ".{0,5000}.{0,5000}.{0,5000}",
    "ambiguous counts of words": r"\w{1,300}\d{1,300}",
    "counted lookaheads": "(?=.{0,300}a)(?=.{0,200}b).*",
    "lookaheads in lookaheads": r"(?=(?=(?=.*a.{10}).*b.{10}).*c.{10}).*",
    "negated lookahead with a tail": r"(?!.*(?:a.{20}b))[ab]*",
    "many lookaheads": "".join(f"(?=.*{letter})" for letter in "abcdefghijklmnopqrstuvwxyz") + ".*",
    "many negated lookaheads": "".join(f"(?!.*{letter}.{{3}})" for letter in "abcdefghijklmnopqrstuvwxyz") + ".*",
    "a password over all of Unicode": r"(?=.*[A-Z])(?=.*[a-z])(?=.*\d)(?=.*[^\w\s]).{8,64}",
    "30,000 parentheses": _nested(30_000, "(", "a", ")"),
    "30,000 open parentheses": "(" * 30_000,
    "99 counted groups": _nested(99, "(?:", "a", "){1,3}"),
    "a count of a billion": "(?:a{999999999}){999999999}",
    "a long text many times": "(?:" + "a" * 1000 + "){1000}",
    "270,000 characters": "a" * 270_000,
    "a million characters": "a" * 1_000_000,
    "40,000 alternatives": "|".join(f"{i:05}" for i in range(40_000)),
    "200 alternatives of long words": "|".join(rf"\w{{{i}}}x" for i in range(200)),
    "2,000 words of Unicode": r"\w" * 2000,
    "many sets": "".join(f"[{chr(0x4E00 + i)}-{chr(0x9FFF - i)}]" for i in range(3000)),
    "many properties": "".join(rf"\p{{L}}\P{{N}}(?i)\p{{Lu}}{chr(0x4E00 + i)}" for i in range(400)),
    "folded letters": "(?i)" + "é" * 20_000,
    "borders": r"\b(?:\w+\b\W*){1,100}" * 5,
    "optional after optional": "a?" * 5000 + "a" * 5000,
    "stars in stars": _nested(90, "(", "a*", ")*"),
    "backtracking": "(x+x+)+y" * 20,
    "counts of texts of any length": "(.{0,300}x){0,20}",
    "a negated lookahead in each of many stars": "(?:(?:a|b)(?!" * 40 + "c" + "))*" * 40,
    "an alternative within a large count": "(?:a{1000}){100000}b|c{5}",
}

LARKS = {
    "10,000 rules": "start: r0\n" + "\n".join(f'r{i}: r{i + 1} "a"' for i in range(10_000)),
    "900 rules that call each other": "start: r0\n"
    + "\n".join(f'r{i}: r{i + 1} "a"' for i in range(900))
    + '\nr900: "x"',
    "30,000 parentheses": "start: " + _nested(30_000, "(", '"a"', ")"),
    "30,000 open brackets": "start: " + "[" * 30_000,
    "a count of nearly a billion": 'start: "a" ~ 1..900000000',
    "counts within counts": 'start: ("a" ~ 0..999 "b") ~ 0..999',
    "a template that grows": 'start: f{"a"}\nf{x}: f{g{x}} | x\ng{y}: y y',
    "doubling rules": "\n".join(f'r{i}: r{i + 1} r{i + 1} "x"' for i in range(40)) + '\nr40: "a"\nstart: r0',
    "left recursion through all": "start: a0\n"
    + "\n".join(f"a{i}: " + " | ".join(f'a{j} "x{j}"' for j in range(40)) + ' | "y"' for i in range(40)),
    "an exploding terminal": "start: /(a|b)*a(a|b){16}/",
    "an exploding intersection": "start: A\nA: " + " & ".join(f"/(.*a.{{{i}}})*/" for i in range(3, 12)),
    "complements of complements": "start: A\nA: " + "~(" * 60 + "/a.{3}b/" + ")" * 60,
    "many ignored terminals": 'start: "a"*\n' + "\n".join(f"%ignore /x{i}[^x]*/" for i in range(300)),
    "many terminals in one place": "start: (" + " | ".join(f"T{i}" for i in range(400)) + ")+\n"
    + "\n".join(f"T{i}: /[a-z]{{1,{i + 1}}}{i}/" for i in range(400)),
    "a palindrome": 'start: "a" start "a" | "b" start "b" | ""',
    "250,000 characters of comment": 'start: "a"\n' + "//x\n" * 62_000,
    "white space without end": 'start: "a"' + " \n" * 140_000,
    "a schema that explodes": 'start: %json {"pattern": "(a|b)*a(a|b){24}"}',
}  # fmt: skip

GBNFS = {
    "1,001 rules": "\n".join(f"r{i} ::= r{i + 1}" for i in range(1001)) + '\nroot ::= r0\nr1001 ::= "a"',
    "30,000 parentheses": "root ::= " + _nested(30_000, "(", '"a"', ")"),
    "counts within counts": 'root ::= (("a"{0,900} "b"){0,900} "c"){0,900}',
    "repeats of repeats": 'root ::= "a"' + "{1,9}" * 90,
    "a large optional choice": "root ::= (" + " | ".join(f'"{i}"' for i in range(3000)) + ")*",
}

SCHEMAS = {
    "5,000 arrays": JsonSchemaSpec('{"items":' * 5000 + "{}" + "}" * 5000),
    "500 arrays": JsonSchemaSpec('{"items":' * 500 + "{}" + "}" * 500),
    "90 arrays that must be": JsonSchemaSpec('{"type":"array","minItems":1,"items":' * 90 + "{}" + "}" * 90),
    "100,000 brackets": JsonSchemaSpec("[" * 100_000),
    "5,000 properties": _schema({"properties": {f"p{i}": {"type": "integer"} for i in range(5000)}}),
    "5,000 required properties": _schema({"required": [f"p{i}" for i in range(5000)]}),
    "50,000 strings": _schema({"enum": [f"value {i}" for i in range(50_000)]}),
    "5,000 objects": _schema({"enum": [{"a": i, "b": [i] * 3} for i in range(5000)]}),
    "a large constant": _schema({"const": {f"k{i}": list(range(20)) for i in range(1000)}}),
    "100 alternatives": _schema({"anyOf": [{"required": [f"p{i}"]} for i in range(100)]}),
    "exclusive alternatives": _schema({"oneOf": [{"minimum": i, "multipleOf": i + 2} for i in range(25)]}),
    "doubling references": _schema(
        {"$defs": {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(40)}
         | {"d40": {"type": "null"}}, "$ref": "#/$defs/d0"}
    ),
    "doubling properties": _schema(
        {"$defs": {f"d{i}": {"properties": {"a": {"$ref": f"#/$defs/d{i + 1}"}, "b": {"$ref": f"#/$defs/d{i + 1}"}},
                             "required": ["a", "b"]} for i in range(30)} | {"d30": {"type": "null"}},
         "$ref": "#/$defs/d0"}
    ),
    "an exploding pattern": _schema({"type": "string", "pattern": "(a|b)*a(a|b){24}"}),
    "many patterns": _schema({"allOf": [{"pattern": f"a.{{{i}}}b"} for i in range(12)]}),
    "many property patterns": _schema({"patternProperties": {f"a.*{i}": {"minimum": i} for i in range(25)}}),
    "many multiples": _schema({"allOf": [{"multipleOf": prime} for prime in (7, 11, 13, 17, 19, 23, 29)]}),
    "a long decimal": _schema({"multipleOf": 0.123456789}),
    "large bounds": _schema({"type": "integer", "minimum": -(10**4000), "maximum": 10**4000}),
    "a large count": _schema({"minItems": 10**9, "maxItems": 10**12, "items": {"minLength": 10**9}}),
    "counted properties": _schema({"minProperties": 3000, "maxProperties": 9000}),
    "counted contents": _schema({"contains": {"minimum": 5}, "minContains": 3000, "maxContains": 9000}),
    "12 kinds of contents": _schema({"allOf": [{"contains": {"const": i}} for i in range(12)]}),
    "conditions": _schema(
        {"allOf": [{"if": {"required": [f"p{i}"]}, "then": {"properties": {f"q{i}": False}}} for i in range(40)]}
    ),
    "denials of denials": JsonSchemaSpec('{"not":' * 90 + '{"required":["a"]}' + "}" * 90),
    "unevaluated": _schema(
        {"anyOf": [{"properties": {f"p{i}": {"minimum": i}}, "required": [f"p{i}"]} for i in range(14)],
         "unevaluatedProperties": False}
    ),
    "a reference to itself": _schema({"$ref": "#"}),
    "references in a ring": _schema(
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}
    ),
    "a long pointer": _schema({"$ref": "#" + "/a" * 90}),
}  # fmt: skip

HOSTILE: dict[str, GrammarSpec] = {
    **{f"regex: {name}": RegexSpec(text) for name, text in REGEXES.items()},
    **{f"lark: {name}": LarkSpec(text) for name, text in LARKS.items()},
    **{f"gbnf: {name}": GbnfSpec(text) for name, text in GBNFS.items()},
    **{f"schema: {name}": spec for name, spec in SCHEMAS.items()},
    "choices: 200,000": ChoicesSpec(tuple(map(str, range(200_000)))),
    "choices: 30,000": ChoicesSpec(tuple(map(str, range(30_000)))),
    "choices: one long": ChoicesSpec(("x" * 290_000,)),
    "choices: long ones alike": ChoicesSpec(tuple("a" * n for n in range(1, 700))),
}
COMPILED = {
    "schema: a long decimal",  # what is not enforced is listed
    "regex: counted lookaheads",
    "regex: lookaheads in lookaheads",
    "regex: a password over all of Unicode",
    "regex: a long text many times",
    "regex: folded letters",
    "regex: stars in stars",
    "regex: backtracking",
    "regex: a negated lookahead in each of many stars",
    "regex: an alternative within a large count",
    "lark: an exploding intersection",
    "lark: 250,000 characters of comment",
    "lark: white space without end",
    "schema: 100 alternatives",
    "schema: doubling references",
    "schema: doubling properties",
    "schema: a large count",
    "schema: denials of denials",
    "choices: 30,000",
}
OTHERWISE = {
    "lark: a palindrome": UnsupportedGrammarError,
    "schema: a reference to itself": InvalidGrammarError,
    "schema: references in a ring": InvalidGrammarError,
    "schema: a long pointer": InvalidGrammarError,
}
QUICK = [  # within about half a second
    "regex: the same over two letters",
    "regex: counts within counts",
    "regex: many negated lookaheads",
    "regex: 30,000 parentheses",
    "regex: 99 counted groups",
    "regex: a long text many times",
    "regex: a million characters",
    "regex: 2,000 words of Unicode",
    "regex: many sets",
    "regex: stars in stars",
    "regex: backtracking",
    "regex: counts of texts of any length",
    "regex: a negated lookahead in each of many stars",
    "regex: an alternative within a large count",
    *(f"lark: {name}" for name in list(LARKS)[:8]),
    "lark: complements of complements",
    "lark: a palindrome",
    "lark: 250,000 characters of comment",
    "lark: white space without end",
    "gbnf: 1,001 rules",
    "gbnf: 30,000 parentheses",
    "gbnf: counts within counts",
    "gbnf: repeats of repeats",
    *(f"schema: {name}" for name in list(SCHEMAS)[:4]),
    "schema: 50,000 strings",
    "schema: 100 alternatives",
    "schema: doubling references",
    "schema: doubling properties",
    "schema: many property patterns",
    "schema: a long decimal",
    "schema: large bounds",
    "schema: a large count",
    "schema: denials of denials",
    "schema: unevaluated",
    "schema: a reference to itself",
    "schema: references in a ring",
    "schema: a long pointer",
    "choices: 200,000",
]
