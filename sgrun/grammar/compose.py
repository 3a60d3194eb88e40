"""Constraints made of constraints: sequences with named pieces, free text with triggers, schemas within Lark texts."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

from sgrun.errors import GrammarError, InvalidGrammarError, UnsupportedGrammarError
from sgrun.grammar import cfg
from sgrun.grammar.assemble import assemble
from sgrun.grammar.automaton import Automaton, Unchecked
from sgrun.grammar.cfg import Expr, External, Grammar, Rule, Terminal
from sgrun.grammar.choices import parse_choices
from sgrun.grammar.explore import ProcedureLike
from sgrun.grammar.gbnf import gbnf_procedures
from sgrun.grammar.grammar_procedures import grammar_procedures
from sgrun.grammar.lark_text import lark_procedures
from sgrun.grammar.limits import Budget
from sgrun.grammar.procedure import Procedure
from sgrun.grammar.regex import parse_regex
from sgrun.grammar.regular import dfa_procedure, regular_procedure
from sgrun.grammar.routing import Resolve, Routed, as_part, routed
from sgrun.grammar.rule_sets import ANYTHING, AT_END, ByteSet, utf8
from sgrun.grammar.schema.values import ROOT, Values, read_values
from sgrun.grammar.syntax import Text
from sgrun.grammar.triggered import Bound, triggered_procedure
from sgrun.types import (
    ChoicesSpec,
    DfaSpec,
    GbnfSpec,
    GrammarSpec,
    JsonSchemaSpec,
    LarkSpec,
    Part,
    RegexSpec,
    SequenceSpec,
    TriggeredSpec,
)

ComposedSpec = LarkSpec | GbnfSpec | SequenceSpec | TriggeredSpec


def compile_composed(spec: ComposedSpec, budget: Budget) -> Automaton:
    """The automaton of a grammar text, a sequence or triggered text. Raises GrammarError as compile_grammar does."""
    composer = _Composer(budget)
    root, resolve = composer.procedures(spec, AT_END, 0)
    automaton = assemble(root, resolve, budget)
    return replace(automaton, checked_afterwards=composer.checked_afterwards())


class _Composer:
    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._schemas: list[Values] = []

    def procedures(self, spec: GrammarSpec, after: ByteSet, depth: int) -> tuple[Hashable, Resolve]:
        """(root key, resolve) of a text before what `after` holds."""
        budget = self._budget
        budget.check("max_nesting", depth)
        match spec:
            case RegexSpec(pattern):
                return _one(regular_procedure(parse_regex(pattern, budget), budget))
            case ChoicesSpec(choices):
                return _one(regular_procedure(parse_choices(choices, budget), budget))
            case DfaSpec():
                return _one(dfa_procedure(spec))
            case JsonSchemaSpec():
                return self._schema(spec)
            case LarkSpec(grammar, start):
                return lark_procedures(
                    grammar, start, budget, lambda text, _: self._schema(JsonSchemaSpec(text)), after
                )
            case GbnfSpec(grammar):
                return gbnf_procedures(grammar, budget, after=after)
            case SequenceSpec(parts):
                return self._sequence(parts, after, depth)
            case TriggeredSpec():
                return self._triggered(spec, after, depth)

    def checked_afterwards(self) -> tuple[Unchecked, ...]:
        """Of all schemas, once they are explored. Raises UnsupportedGrammarError as they do."""
        return tuple(dict.fromkeys(unchecked for values in self._schemas for unchecked in values.checked_afterwards()))

    def _schema(self, spec: JsonSchemaSpec) -> tuple[Hashable, Resolve]:
        values = read_values(spec, self._budget)
        self._schemas.append(values)
        return ROOT, lambda key: as_part(values.resolve(key)) if key == ROOT else values.resolve(key)

    def _sequence(self, parts: tuple[str | Part, ...], after: ByteSet, depth: int) -> tuple[Hashable, Resolve]:
        """Regular pieces are written out, so that where they end may depend on all that follows."""
        fronts: dict[int, Resolve] = {}
        items: list[Expr] = []
        names: set[str] = set()
        for number, part in enumerate(parts):
            if isinstance(part, str):
                items += [Terminal(repr(part), Text(part))] if part else []
                continue
            if part.name in names:
                raise InvalidGrammarError(f"two parts of a sequence are called {part.name!r}; names are used once")
            names.add(part.name)
            follow = _first_of(parts[number + 1]) if number + 1 < len(parts) else after
            items.append(self._item(number, part, follow, fronts, depth))

        def resolve(key: Hashable) -> ProcedureLike:
            assert isinstance(key, Routed) and isinstance(key.name, int)
            return routed(key.name, fronts[key.name])(key)

        rules = {"sequence": Rule("sequence", cfg.sequence(items), 1)}
        return grammar_procedures(Grammar(rules, "sequence"), self._budget, resolve, after)

    def _item(self, number: int, part: Part, follow: ByteSet, fronts: dict[int, Resolve], depth: int) -> Expr:
        match part.spec:
            case RegexSpec(pattern):
                return Terminal(part.name, parse_regex(pattern, self._budget))
            case ChoicesSpec(choices):
                return Terminal(part.name, parse_choices(choices, self._budget))
        try:
            root, fronts[number] = self.procedures(part.spec, follow, depth + 1)
        except GrammarError as error:
            raise type(error)(f"part {part.name!r}: {error}") from error
        return External(Routed(number, root), part.name)

    def _triggered(self, spec: TriggeredSpec, after: ByteSet, depth: int) -> tuple[Hashable, Resolve]:
        if after != AT_END:
            raise UnsupportedGrammarError("text with triggers has no end of its own; let it be the whole text")
        fronts: dict[int, Resolve] = {}
        bounds: list[Bound] = []
        for number, trigger in enumerate(spec.triggers):
            follow = _first_of(trigger.end) if trigger.end else ANYTHING
            try:
                root, fronts[number] = self.procedures(trigger.spec, follow, depth + 1)
            except GrammarError as error:
                raise type(error)(f"trigger {trigger.begin!r}: {error}") from error
            bounds.append(Bound(trigger.begin, Routed(number, root), trigger.end))
        procedure = triggered_procedure(bounds, self._budget)

        def resolve(key: Hashable) -> ProcedureLike:
            if not isinstance(key, Routed):
                return procedure
            assert isinstance(key.name, int)
            return routed(key.name, fronts[key.name])(key)

        return "text", resolve


def _one(procedure: Procedure) -> tuple[Hashable, Resolve]:
    part = as_part(procedure)
    return "regular", lambda _: part


def _first_of(part: str | Part) -> ByteSet:
    return 1 << utf8(part)[0] if isinstance(part, str) and part else ANYTHING
