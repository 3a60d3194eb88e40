"""The shape of Lark grammar texts: our own grammar of that notation, read with the `lark` library into its trees.

Besides Lark's notation it has `&` (and), a leading `~` (not), `{m,n}`, and `%json`, as llguidance's dialect does.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from functools import cache

from lark import Lark, Token, Tree, UnexpectedInput

from sgrun.errors import InvalidGrammarError

_NOTATION = r"""
start: _NL? (_statement _NL)* _statement?
_statement: rule | terminal | ignored | imported | refused | header

rule: RULE [parameters] [PRIORITY] [ATTRIBUTES] _COLON alternatives
terminal: TERMINAL [PRIORITY] [ATTRIBUTES] _COLON alternatives
parameters: "{" RULE ("," RULE)* "}"
ignored: "%ignore" alternatives
imported: "%import" DOTTED ["->" (RULE | TERMINAL)] -> import_one
        | "%import" DOTTED _OPEN (RULE | TERMINAL) ("," (RULE | TERMINAL))* _CLOSE -> import_many
refused: REFUSED_DIRECTIVE /[^\n]+/
header: "%llguidance" JSON

alternatives: conjunction (_OR conjunction)*
conjunction: alternative (_AND alternative)*
alternative: item* [_ARROW RULE]
item: _atom [quantifier]
_atom: group | optional | negated | range | literal | regexp | use | json | foreign
group: _OPEN alternatives _CLOSE
optional: _OPEN_OPTIONAL alternatives _CLOSE_OPTIONAL
negated: _NOT _atom
range: STRING ".." STRING
literal: STRING
regexp: REGEXP
use: (RULE | TERMINAL) [arguments]
arguments: "{" alternatives ("," alternatives)* "}"
json: "%json" JSON
foreign: FOREIGN

quantifier: _QUESTION -> maybe | _STAR -> any_number | _PLUS -> at_least_one
          | _TIMES NUMBER [".." NUMBER] -> times | COUNTS -> counts

RULE: /[!?]{0,2}_?[a-z][_a-z0-9]*/
TERMINAL: /_?[A-Z][_A-Z0-9]*/
DOTTED: /\.?[A-Za-z_][A-Za-z_0-9]*(\.[A-Za-z_][A-Za-z_0-9]*)*/
PRIORITY: /\.-?[0-9]+/
ATTRIBUTES: /\[[^\]\n]*\]/
REFUSED_DIRECTIVE: /%(declare|override|extend)\b/
STRING: /"(?:\\.|[^"\\\n])*"i?/
REGEXP: /\/(?![\/*])(?:\\.|[^\/\\\n])+\/[imslux]*/
FOREIGN: /<[^>\n]*>|@[A-Za-z0-9_-]+|%(regex|lark)\b/
JSON: /\x00+/
NUMBER: /[0-9]{1,9}/
COUNTS: /\{\s*[0-9]{0,9}\s*(,\s*[0-9]{0,9}\s*)?\}/
_TIMES: /~(?=\s*[0-9])/
_NOT: /~(?!\s*[0-9])/
_QUESTION: "?"
_STAR: "*"
_PLUS: "+"
_COLON: /:/
_ARROW: "->"
_AND.2: /(\s|\/\/[^\n]*\n|#[^\n]*\n)*&/
_OR.2: /(\s|\/\/[^\n]*\n|#[^\n]*\n)*\|/
_OPEN: /\((\s|\/\/[^\n]*\n|#[^\n]*\n)*/
_CLOSE.2: /(\s|\/\/[^\n]*\n|#[^\n]*\n)*\)/
_OPEN_OPTIONAL: /\[(\s|\/\/[^\n]*\n|#[^\n]*\n)*/
_CLOSE_OPTIONAL.2: /(\s|\/\/[^\n]*\n|#[^\n]*\n)*\]/
_NL: /(\s*(\/\/[^\n]*|#[^\n]*)?\n)+\s*/
%ignore /[ \t\r\f]+/
%ignore /(\/\/|#)[^\n]*/
"""

_BRACKET = re.compile(r'"(?:\\.|[^"\\\n])*"|/(?![/*])(?:\\.|[^/\\\n])+/|(//|#)[^\n]*|[()\[\]]')
_JSON_DIRECTIVE = re.compile(r'"(?:\\.|[^"\\\n])*"|(//|#)[^\n]*|%(?:json|llguidance)\s*(?=\{)')


class Source:
    """A grammar text: its tree, JSON values by where they stand, and lines and columns for messages."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.json_texts: dict[int, str] = {}
        self._newlines = [found.start() for found in re.finditer("\n", text)]
        blanked = self._without_json(text)
        try:
            self.tree: Tree[Token] = _reader().parse(blanked)
        except UnexpectedInput as error:
            at = error.pos_in_stream if isinstance(error.pos_in_stream, int) else len(text)
            found = repr(text[at : at + 20].split("\n")[0]) if at < len(text) else "the end of the text"
            raise InvalidGrammarError(
                f"the Lark grammar is malformed at {self.place(at)}: {found} cannot stand there"
            ) from error

    def place(self, at: int) -> str:
        line = self.line(at)
        return f"line {line}, column {at - (self._newlines[line - 2] if line > 1 else -1)}"

    def line(self, at: int) -> int:
        return bisect_left(self._newlines, at) + 1

    def _without_json(self, text: str) -> str:
        """The text with JSON objects blanked out by as many NULs: no regular expression finds where they end."""
        if "\0" in text:
            raise InvalidGrammarError(f"the Lark grammar holds a NUL character at {self.place(text.index(chr(0)))}")
        pieces: list[str] = []
        at = 0
        while (found := _JSON_DIRECTIVE.search(text, at)) is not None:
            pieces.append(text[at : found.end()])
            at = found.end()
            if found.group().startswith("%"):
                end = self._json_end(at)
                self.json_texts[at] = text[at:end]
                pieces.append("\0" * (end - at))
                at = end
        return "".join([*pieces, text[at:]])

    def _json_end(self, at: int) -> int:
        try:
            return json.JSONDecoder().raw_decode(self.text, at)[1]
        except json.JSONDecodeError as error:
            raise InvalidGrammarError(
                f"the JSON value at {self.place(at)} is malformed at {self.place(error.pos)}: {error.msg}"
            ) from error
        except RecursionError as error:
            raise InvalidGrammarError(f"the JSON value at {self.place(at)} nests too deeply") from error


def nesting(text: str) -> int:
    """How deeply groups lie within each other."""
    depth = deepest = 0
    for found in _BRACKET.finditer(text):
        depth += (found.group() in "([") - (found.group() in ")]")
        deepest = max(deepest, depth)
    return deepest


@cache
def _reader() -> Lark:
    return Lark(_NOTATION, parser="lalr", lexer="contextual", propagate_positions=True, maybe_placeholders=True)
