"""Reads GBNF, the grammar notation of llama.cpp, into rules: its texts are what these derive, character by character.

    root  ::= "yes" | item+ ("," [a-z^]{1,3})?   # comment

Rules end at the end of a line, except within parentheses and around `|`.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass
from typing import NoReturn

from sgrun.errors import GrammarTooLargeError, InvalidGrammarError, UnsupportedGrammarError
from sgrun.grammar import cfg, charset
from sgrun.grammar.cfg import Expr, Grammar, Ref, Repetition, Rule, Terminal
from sgrun.grammar.grammar_procedures import MAX_RULES, grammar_procedures
from sgrun.grammar.limits import Budget
from sgrun.grammar.routing import Resolve
from sgrun.grammar.rule_sets import AT_END, ByteSet
from sgrun.grammar.syntax import Chars, Node, Text

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r]+|\#[^\n]*)
    |(?P<newline>\n)
    |(?P<define>(?P<defined>[A-Za-z0-9_-]+)[ \t]*::=)
    |(?P<name>[A-Za-z0-9_-]+)
    |(?P<literal>"(?:\\.|[^"\\\n])*")
    |(?P<set>\[\^?(?:\\.|[^\]\\\n])*\])
    |(?P<counts>\{[ \t]*(?P<low>[0-9]{0,9})[ \t]*(?P<comma>,)?[ \t]*(?P<high>[0-9]{0,9})[ \t]*\})
    |(?P<mark>[|()*+?.])
    |(?P<special>!?<[^>\n]*>)""",
    re.VERBOSE | re.DOTALL,
)
_CHARACTER = re.compile(
    r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))|(.)",
    re.DOTALL,
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "[": "[", "]": "]", "-": "-", "^": "^"}
_REPEATS: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}


def gbnf_procedures(
    text: str, budget: Budget, start: str = "root", after: ByteSet = AT_END
) -> tuple[Hashable, Resolve]:
    """(root key, resolve) for `assemble`: the texts of the rule `start`; `after` as in grammar_procedures.

    Raises InvalidGrammarError (with line and column), UnsupportedGrammarError or GrammarTooLargeError.
    """
    budget.spend("max_source_len", len(text))
    rules = _Reader(text, budget).rules()
    return grammar_procedures(Grammar(rules, start), budget, after=after)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int
    counts: tuple[int, int | None] | None = None


class _Reader:
    def __init__(self, text: str, budget: Budget) -> None:
        self._text = text
        self._budget = budget
        self._tokens = self._tokenized()
        self._next = 0
        self._terminals: dict[str, Terminal] = {}

    def rules(self) -> dict[str, Rule]:
        rules: dict[str, Rule] = {}
        self._skip_newlines()
        while (token := self._peek()).kind != "end":
            if token.kind != "define":
                self._fail(token, "a rule, as in `name ::= ...`, is expected")
            self._next += 1
            if token.text in rules:
                self._fail(token, f"the rule {token.text!r} is defined again")
            if len(rules) == MAX_RULES:
                raise GrammarTooLargeError(f"the GBNF grammar has more than {MAX_RULES} rules")
            self._skip_newlines()
            body = self._choice(depth=0)
            rules[token.text] = Rule(token.text, body, self._text.count("\n", 0, token.at) + 1)
            if self._peek().kind not in ("newline", "end"):
                self._fail(self._peek(), "the end of the rule is expected")
            self._skip_newlines()
        return rules

    def _choice(self, depth: int) -> Expr:
        self._budget.check("max_nesting", depth)
        parts = [self._sequence(depth)]
        while self._has_alternative(depth):
            self._skip_newlines()
            parts.append(self._sequence(depth))
        return cfg.choice(parts)

    def _has_alternative(self, depth: int) -> bool:
        """Takes a `|`, if that is what comes next, be it on a later line."""
        back = self._next
        self._skip_newlines()
        if self._peek().text == "|" and self._peek().kind == "mark":
            self._next += 1
            return True
        if depth == 0:
            self._next = back
        return False

    def _sequence(self, depth: int) -> Expr:
        parts: list[Expr] = []
        while True:
            if depth:
                self._skip_newlines()
            token = self._peek()
            if token.kind == "mark" and token.text in "*+?":
                self._fail(token, "there is nothing to repeat before it")
            if token.kind not in ("name", "literal", "set", "special") and token.text not in ("(", "."):
                return cfg.sequence(parts)
            self._next += 1
            item = self._item(token, depth)
            while self._peek().kind == "counts" or self._peek().text in ("*", "+", "?"):
                repeat = self._peek()
                self._next += 1
                item = Repetition(item, *(repeat.counts or _REPEATS[repeat.text]))
            parts.append(item)

    def _item(self, token: _Token, depth: int) -> Expr:
        match token.kind:
            case "name":
                return Ref(token.text)
            case "special":
                raise UnsupportedGrammarError(
                    f"the GBNF grammar names the token {token.text} at {self._place(token.at)}; only text is supported"
                )
            case "mark" if token.text == "(":
                inner = self._choice(depth + 1)
                self._skip_newlines()
                if self._peek().text != ")":
                    self._fail(self._peek(), "`)` is expected")
                self._next += 1
                return inner
        known = self._terminals.get(token.text)
        if known is None:
            try:
                known = self._terminals[token.text] = Terminal(token.text, self._node(token))
            except ValueError as error:
                self._fail(token, str(error))
        return cfg.EMPTY if token.text == '""' else known

    def _node(self, token: _Token) -> Node:
        if token.kind == "literal":
            return Text("".join(char for char, _ in _characters(token.text[1:-1])))
        if token.kind == "mark":
            return Chars(charset.SCALARS)
        is_negated = token.text.startswith("[^")
        characters = _characters(token.text[2 if is_negated else 1 : -1])
        ranges: list[tuple[int, int]] = []
        at = 0
        while at < len(characters):
            low = high = characters[at][0]
            if at + 2 < len(characters) and characters[at + 1] == ("-", False):
                high = characters[at + 2][0]
                at += 2
            if low > high:
                self._fail(token, f"the range {low}-{high} is empty")
            ranges.append((ord(low), ord(high)))
            at += 1
        chars = charset.of_ranges(ranges)
        return Chars(
            charset.subtract(charset.SCALARS, chars) if is_negated else charset.intersect(chars, charset.SCALARS)
        )

    def _tokenized(self) -> list[_Token]:
        tokens: list[_Token] = []
        at = 0
        while at < len(self._text):
            found = _TOKEN.match(self._text, at)
            if found is None:
                raise InvalidGrammarError(
                    f"the GBNF grammar is malformed at {self._place(at)}: {self._text[at : at + 20]!r} cannot stand "
                    "there"
                )
            counts = None
            if found["counts"]:
                low = int(found["low"] or 0)
                high = int(found["high"]) if found["high"] else None
                counts = (low, high if found["comma"] else low)
                if counts[1] is not None and counts[1] < low:
                    raise InvalidGrammarError(f"the repeat at {self._place(at)} is from {low} to {high} times")
            kind = next(name for name in _KINDS if found[name] is not None)
            if kind != "space":
                tokens.append(_Token(kind, found["defined"] or found.group(), at, counts))
            at = found.end()
        return [*tokens, _Token("end", "", at)]

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _skip_newlines(self) -> None:
        while self._peek().kind == "newline":
            self._next += 1

    def _place(self, at: int) -> str:
        line = self._text.count("\n", 0, at) + 1
        return f"line {line}, column {at - self._text.rfind(chr(10), 0, at)}"

    def _fail(self, token: _Token, why: str) -> NoReturn:
        shown = "the end of the text" if token.kind == "end" else repr(token.text)
        raise InvalidGrammarError(f"the GBNF grammar is malformed at {self._place(token.at)}, {shown}: {why}")


_KINDS = ("space", "newline", "define", "name", "literal", "set", "counts", "mark", "special")


def _characters(text: str) -> list[tuple[str, bool]]:
    """The characters that are meant, and whether each was escaped. Raises ValueError for what is no code point and for
    escapes that mean nothing."""
    found: list[tuple[str, bool]] = []
    for match in _CHARACTER.finditer(text):
        code = match[1] or match[2] or match[3]
        if code:
            found.append((chr(int(code, 16)), True))
        elif match[4]:
            if match[4] not in _ESCAPES:
                raise ValueError(f"{match.group()} means nothing; allowed: {', '.join(map(repr, _ESCAPES))} after \\")
            found.append((_ESCAPES[match[4]], True))
        else:
            found.append((match[5], False))
    return found
