"""Reads a Lark grammar text into rules over terminals.

Which texts the grammar has: those that its rules derive, character by character, with `%ignore`d text between
terminals; except that a terminal other than a plain string is as long as it can be, as lexers have it. Priorities,
aliases, `?`, `!` and `_` shape Lark's parse trees and do not change the texts. `&`, `~x` and ranges work on terminals.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import reduce
from typing import TypeVar

from lark import Token, Tree

from sgrun.errors import GrammarError, GrammarTooLargeError, InvalidGrammarError, UnsupportedGrammarError
from sgrun.grammar import cfg, charset
from sgrun.grammar.cfg import Expr, External, Grammar, Ref, Repetition, Rule, Terminal
from sgrun.grammar.explore import ProcedureLike
from sgrun.grammar.grammar_procedures import MAX_RULES, grammar_procedures
from sgrun.grammar.lark_common import COMMON_TERMINALS
from sgrun.grammar.lark_syntax import Source, nesting
from sgrun.grammar.limits import Budget
from sgrun.grammar.regex import parse_regex
from sgrun.grammar.routing import Resolve, Routed, routed
from sgrun.grammar.rule_sets import AT_END, ByteSet
from sgrun.grammar.syntax import Alternation, Chars, Complement, Concat, Intersection, Node, Repeat, Text

SchemaProcedures = Callable[[str, Budget], tuple[Hashable, Resolve]]
MAX_DEFINITIONS = 4 * MAX_RULES
MAX_INSTANCES = MAX_RULES  # of templates

_DEFINITION = re.compile(r"^[ \t]*[!?]{0,2}[A-Za-z_]\w*(?:\{[^}\n]*\})?(?:\.-?\d+)?[ \t]*:", re.MULTILINE)
# Others mean a backslash and the character to Lark, and the character or nothing to others that read its notation.
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "\\": "\\", '"': '"', "'": "'"}
_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))", re.DOTALL)


def lark_procedures(
    text: str, start: str, budget: Budget, json_schema: SchemaProcedures, after: ByteSet = AT_END
) -> tuple[Hashable, Resolve]:
    """(root key, resolve) for `assemble`: the texts of the rule `start`. `json_schema` compiles `%json` blocks,
    `after` as in grammar_procedures.

    Raises InvalidGrammarError (with line and column), UnsupportedGrammarError or GrammarTooLargeError.
    """
    budget.spend("max_source_len", len(text))
    num_definitions = sum(1 for _ in _DEFINITION.finditer(text))
    if num_definitions > MAX_DEFINITIONS:
        raise GrammarTooLargeError(
            f"the Lark grammar has {num_definitions} rules and terminals; allowed: at most {MAX_DEFINITIONS}"
        )
    budget.check("max_nesting", nesting(text))
    reader = _Reader(Source(text), budget, json_schema)
    return grammar_procedures(reader.grammar(start), budget, reader.resolve_external, after)


@dataclass(frozen=True, slots=True)
class _Definition:
    parameters: tuple[str, ...]
    body: Tree[Token]
    at: int


class _Reader:
    def __init__(self, source: Source, budget: Budget, json_schema: SchemaProcedures) -> None:
        self._source = source
        self._budget = budget
        self._json_schema = json_schema
        self._rules: dict[str, _Definition] = {}
        self._terminals: dict[str, _Definition] = {}
        self._imported: dict[str, str] = {}
        self._ignored: list[Tree[Token]] = []
        self._terminals_read: dict[str, Terminal] = {}
        self._being_read: list[str] = []
        self._literals: dict[str, Expr] = {}
        self._schemas: dict[int, Resolve] = {}
        self._finished: dict[str, Rule] = {}
        self._instances: dict[tuple[str, tuple[Expr, ...]], str] = {}
        self._waiting: list[tuple[str, _Definition, dict[str, Expr]]] = []
        for statement in source.tree.children:
            assert isinstance(statement, Tree)
            self._take(statement)

    def grammar(self, start: str) -> Grammar:
        for name, definition in self._rules.items():
            if not definition.parameters:
                self._waiting.append((name, definition, {}))
        while self._waiting:
            name, definition, scope = self._waiting.pop()
            body = self._expr(definition.body, scope, 0)
            self._finished[name] = Rule(name, body, self._source.line(definition.at))
        skip = tuple(Terminal("%ignore", self._node(tree, 0), is_greedy=True) for tree in self._ignored)
        return Grammar(self._finished, start, skip)

    def resolve_external(self, key: Hashable) -> ProcedureLike:
        assert isinstance(key, Routed) and isinstance(key.name, int)
        return routed(key.name, self._schemas[key.name])(key)

    def _take(self, statement: Tree[Token]) -> None:
        children = statement.children
        at = _position(statement)
        match statement.data:
            case "rule":
                name, parameters, _, attributes, body = children
                self._refuse_attributes(attributes)
                names = tuple(str(child) for child in parameters.children) if isinstance(parameters, Tree) else ()
                self._define(self._rules, str(name).lstrip("!?"), _Definition(names, _tree(body), at))
            case "terminal":
                name, _, attributes, body = children
                self._refuse_attributes(attributes)
                self._define(self._terminals, str(name), _Definition((), _tree(body), at))
            case "ignored":
                self._ignored.append(_tree(children[0]))
            case "import_one":
                module, _, imported = str(children[0]).rpartition(".")
                self._import(module, imported, str(children[1] or imported), at)
            case "import_many":
                for child in children[1:]:
                    self._import(str(children[0]), str(child), str(child), at)
            case "header":
                if self._source.json_texts[_start(children[0])].strip("{} \t\n"):
                    raise self._unsupported("options in %llguidance", at)
            case _:
                raise self._unsupported(str(children[0]), at)

    def _define(self, kind: dict[str, _Definition], name: str, definition: _Definition) -> None:
        if name in kind or name in self._imported:
            raise InvalidGrammarError(f"{name!r} is defined again at {self._source.place(definition.at)}")
        kind[name] = definition

    def _import(self, module: str, name: str, alias: str, at: int) -> None:
        if module != "common" or name not in COMMON_TERMINALS:
            raise UnsupportedGrammarError(
                f"{self._source.place(at)} imports {module}.{name}; there is only the module common, with "
                f"{', '.join(COMMON_TERMINALS)}"
            )
        if alias in self._terminals:
            raise InvalidGrammarError(f"{alias!r} is defined again at {self._source.place(at)}")
        self._imported[alias] = name

    def _refuse_attributes(self, attributes: object) -> None:
        if isinstance(attributes, Token):
            raise self._unsupported(f"the attribute {attributes}", attributes.start_pos or 0)

    # Rules

    def _expr(self, tree: Tree[Token], scope: dict[str, Expr], depth: int) -> Expr:
        self._budget.check("max_nesting", depth)
        match tree.data:
            case "alternatives":
                return cfg.choice([self._expr(_tree(child), scope, depth) for child in tree.children])
            case "conjunction" if len(tree.children) > 1:
                return self._anonymous(tree, depth)
            case "conjunction":
                return self._expr(_tree(tree.children[0]), scope, depth)
            case "alternative":
                return cfg.sequence([self._expr(_tree(child), scope, depth) for child in tree.children[:-1]])
            case "item":
                inner = self._expr(_tree(tree.children[0]), scope, depth)
                quantifier = tree.children[1]
                return inner if quantifier is None else Repetition(inner, *self._counts(_tree(quantifier)))
            case "group":
                return self._expr(_tree(tree.children[0]), scope, depth + 1)
            case "optional":
                return Repetition(self._expr(_tree(tree.children[0]), scope, depth + 1), 0, 1)
            case "use":
                return self._use(tree, scope, depth)
            case "json":
                return self._json(tree)
            case "foreign":
                raise self._unsupported(str(tree.children[0]), _position(tree))
        return self._anonymous(tree, depth)

    def _use(self, tree: Tree[Token], scope: dict[str, Expr], depth: int) -> Expr:
        name, at = str(tree.children[0]), _position(tree)
        if name in scope:
            return scope[name]
        if name.lstrip("_")[:1].isupper():
            return self._terminal(name, at, depth)
        name = name.lstrip("!?")
        definition = self._rules.get(name)
        given = tree.children[1]
        arguments = [self._expr(_tree(child), scope, depth + 1) for child in _tree(given).children] if given else []
        if definition is None:
            raise InvalidGrammarError(f"{self._source.place(at)} uses the rule {name!r}, which is not defined")
        if len(arguments) != len(definition.parameters):
            raise InvalidGrammarError(
                f"{self._source.place(at)} gives {name!r} {len(arguments)} arguments; it takes "
                f"{len(definition.parameters)}"
            )
        return Ref(self._instance(name, definition, tuple(arguments))) if arguments else Ref(name)

    def _instance(self, name: str, definition: _Definition, arguments: tuple[Expr, ...]) -> str:
        known = self._instances.get((name, arguments))
        if known is None:
            if len(self._instances) == MAX_INSTANCES:
                raise GrammarTooLargeError(
                    f"templates of the Lark grammar are used with more than {MAX_INSTANCES} different arguments"
                )
            known = self._instances[name, arguments] = f"{name}{{{len(self._instances)}}}"
            self._waiting.append((known, definition, dict(zip(definition.parameters, arguments, strict=True))))
        return known

    def _json(self, tree: Tree[Token]) -> Expr:
        at = _start(tree.children[0])
        root, self._schemas[at] = self._at(at, lambda: self._json_schema(self._source.json_texts[at], self._budget))
        return External(Routed(at, root), f"%json at {self._source.place(at)}")

    def _anonymous(self, tree: Tree[Token], depth: int) -> Expr:
        """A terminal without a name; equal ones are the same."""
        spelled = self._source.text[tree.meta.start_pos : tree.meta.end_pos]
        known = self._literals.get(spelled)
        if known is None:
            node = self._node(tree, depth)
            known = Terminal(spelled, node, is_greedy=tree.data != "literal")
            if isinstance(node, Text) and not node.text:
                known = cfg.EMPTY
            self._literals[spelled] = known
        return known

    # Terminals

    def _terminal(self, name: str, at: int, depth: int) -> Terminal:
        known = self._terminals_read.get(name)
        if known is not None:
            return known
        if name in self._being_read:
            raise InvalidGrammarError(f"the terminal {name!r} is defined by itself at {self._source.place(at)}")
        self._being_read.append(name)
        if name in self._imported:
            node = parse_regex(COMMON_TERMINALS[self._imported[name]], self._budget)
        elif name in self._terminals:
            node = self._node(self._terminals[name].body, depth + 1)
        else:
            raise InvalidGrammarError(f"{self._source.place(at)} uses the terminal {name!r}, which is not defined")
        self._being_read.pop()
        known = self._terminals_read[name] = Terminal(name, node, is_greedy=not isinstance(node, Text))
        return known

    def _node(self, tree: Tree[Token], depth: int) -> Node:
        self._budget.check("max_nesting", depth)
        children = tree.children
        at = _position(tree)
        match tree.data:
            case "alternatives" | "conjunction":
                nodes = [self._node(_tree(child), depth) for child in children]
                if tree.data == "alternatives":
                    return nodes[0] if len(nodes) == 1 else Alternation(tuple(nodes))
                return reduce(Intersection, nodes)
            case "alternative":
                nodes = [self._node(_tree(child), depth) for child in children[:-1]]
                return nodes[0] if len(nodes) == 1 else Concat(tuple(nodes))
            case "item":
                inner = self._node(_tree(children[0]), depth)
                return inner if children[1] is None else Repeat(inner, *self._counts(_tree(children[1])))
            case "group":
                return self._node(_tree(children[0]), depth + 1)
            case "optional":
                return Repeat(self._node(_tree(children[0]), depth + 1), 0, 1)
            case "negated":
                return Complement(self._node(_tree(children[0]), depth + 1))
            case "range":
                low, high = (self._unquoted(child)[0] for child in children)
                if len(low) != 1 or len(high) != 1 or low > high:
                    raise InvalidGrammarError(
                        f"the range at {self._source.place(at)} is not from one character to a later one"
                    )
                return Chars(charset.intersect(((ord(low), ord(high)),), charset.SCALARS))
            case "literal":
                text, ignores_case = self._unquoted(children[0])
                return self._regex(f"(?i:{re.escape(text)})", at) if ignores_case else Text(text)
            case "regexp":
                pattern, _, flags = str(children[0])[1:].rpartition("/")
                kept = "".join(sorted(set(flags) & set("imsx")))
                return self._regex(f"(?{kept}:{pattern})" if kept else pattern, at)
            case "use":
                name = str(children[0])
                if not name.lstrip("_")[:1].isupper():
                    raise InvalidGrammarError(
                        f"{self._source.place(at)} uses the rule {name!r} within a terminal; only terminals may be used"
                    )
                return self._terminal(name, at, depth + 1).node
        raise self._unsupported(f"{self._source.text[at : tree.meta.end_pos][:20]!r} within a terminal", at)

    def _regex(self, pattern: str, at: int) -> Node:
        return self._at(at, lambda: parse_regex(pattern, self._budget))

    def _at(self, at: int, build: Callable[[], _T]) -> _T:
        """What `build` makes; its errors say where in the grammar they arose."""
        try:
            return build()
        except GrammarError as error:
            raise type(error)(f"{self._source.place(at)}: {error}") from error

    def _counts(self, quantifier: Tree[Token]) -> tuple[int, int | None]:
        low: int
        high: int | None
        numbers = [None if child is None else int(str(child)) for child in quantifier.children if _is_number(child)]
        match quantifier.data:
            case "maybe":
                return 0, 1
            case "any_number":
                return 0, None
            case "at_least_one":
                return 1, None
            case "times":
                low = numbers[0] or 0
                high = low if numbers[1] is None else numbers[1]
            case _:
                low_text, comma, high_text = str(quantifier.children[0])[1:-1].partition(",")
                low = int(low_text.strip() or 0)
                high = (int(high_text) if high_text.strip() else None) if comma else low
        if high is not None and high < low:
            raise InvalidGrammarError(
                f"the repeat at {self._source.place(_position(quantifier))} is from {low} to {high} times"
            )
        return low, high

    def _unquoted(self, token: Token | Tree[Token]) -> tuple[str, bool]:
        assert isinstance(token, Token)
        quoted = str(token)
        ignores_case = quoted.endswith("i")
        inner = quoted[1 : -2 if ignores_case else -1]
        for found in _ESCAPE.finditer(inner):
            if found[4] and found[4] not in _ESCAPES:
                raise self._unsupported(f"the escape {found.group()} in {quoted}", _start(token))
        try:
            return _ESCAPE.sub(_unescaped, inner), ignores_case
        except ValueError as error:
            raise InvalidGrammarError(f"{quoted} at {self._source.place(_start(token))}: {error}") from error

    def _unsupported(self, what: str, at: int) -> UnsupportedGrammarError:
        return UnsupportedGrammarError(
            f"the Lark grammar uses {what} at {self._source.place(at)}, which is not supported; supported: rules, "
            "templates, terminals, %ignore, %import common.X, %json"
        )


_T = TypeVar("_T")


def _unescaped(found: re.Match[str]) -> str:
    code = found[1] or found[2] or found[3]
    return chr(int(code, 16)) if code else _ESCAPES[found[4]]


def _is_number(child: object) -> bool:
    return child is None or (isinstance(child, Token) and child.type == "NUMBER")


def _position(tree: Tree[Token]) -> int:
    """Where a tree begins; an empty one stands nowhere."""
    return 0 if tree.meta.empty else tree.meta.start_pos


def _start(child: object) -> int:
    assert isinstance(child, Token) and child.start_pos is not None
    return child.start_pos


def _tree(child: object) -> Tree[Token]:
    assert isinstance(child, Tree)
    return child
