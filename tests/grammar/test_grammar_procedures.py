from __future__ import annotations

import random
from itertools import product

import pytest

from sgrun.errors import GrammarTooLargeError, InvalidGrammarError, UnsupportedGrammarError
from sgrun.grammar import cfg
from sgrun.grammar.assemble import assemble
from sgrun.grammar.automaton import Automaton
from sgrun.grammar.cfg import Chain, Choice, Expr, Grammar, Ref, Repetition, Rule, Sequence, Terminal
from sgrun.grammar.grammar_procedures import grammar_procedures
from sgrun.grammar.limits import Budget, CompileLimits
from sgrun.grammar.syntax import Text

MAX_LEN = 5
TERMINALS = {char: Terminal(char, Text(char)) for char in "xy()"}
TEXTS = ["".join(chars) for length in range(MAX_LEN + 1) for chars in product(TERMINALS, repeat=length)]


def _compiled(grammar: Grammar) -> Automaton:
    budget = Budget(CompileLimits())
    return assemble(*grammar_procedures(grammar, budget), budget)


def _random_expr(draw: random.Random, names: list[str], depth: int) -> Expr:
    parts: list[Expr] = []
    for _ in range(draw.randrange(1, 4)):
        sequence: list[Expr] = []
        for _ in range(draw.randrange(1, 4)):
            kind = draw.random()
            if kind < 0.45:
                sequence.append(draw.choice(list(TERMINALS.values())))
            elif kind < 0.8 or depth > 1:
                sequence.append(Ref(draw.choice(names)))
            else:
                low, high = draw.choice([(0, 1), (0, None), (1, None), (1, 1), (0, 2)])
                sequence.append(Repetition(_random_expr(draw, names, depth + 1), low, high))
        parts.append(cfg.sequence(sequence))
    return cfg.choice(parts)


def _texts(expr: Expr, known: dict[str, set[str]]) -> set[str]:
    """The texts of an expression up to MAX_LEN, given those of the rules."""
    match expr:
        case Terminal(name, _, _):
            return {name}
        case Ref(rule):
            return known[rule]
        case Choice(parts):
            return set().union(*(_texts(part, known) for part in parts))
        case Sequence(parts):
            found = {""}
            for part in parts:
                found = _joined(found, _texts(part, known))
            return found
        case Repetition(item, low, high):
            inner = _texts(item, known)
            found, power, count = set(), {""}, 0
            while power and count <= min(MAX_LEN, high or MAX_LEN) + low:
                if count >= low and (high is None or count <= high):
                    found |= power
                power, count = _joined(power, inner), count + 1
            return found
        case Chain(item, link):
            rest = Repetition(Sequence((link, item)), 0, None)
            return _texts(Sequence((item, rest)), known)
    raise AssertionError(expr)


def _joined(left: set[str], right: set[str]) -> set[str]:
    return {one + two for one in left for two in right if len(one) + len(two) <= MAX_LEN}


def _language(grammar: Grammar) -> set[str]:
    known: dict[str, set[str]] = {name: set() for name in grammar.rules}
    while True:
        found = {name: _texts(rule.body, known) for name, rule in grammar.rules.items()}
        if found == known:
            return known[grammar.start]
        known = found


@pytest.mark.parametrize("first_seed", [0, 100, 200])
def test_random_grammars_have_exactly_the_texts_that_their_rules_derive(first_seed: int) -> None:
    num_compiled = 0
    for seed in range(first_seed, first_seed + 100):
        draw = random.Random(seed)
        names = ["start", "a", "b", "c"][: draw.randrange(1, 5)]
        rules = {name: Rule(name, _random_expr(draw, names, 0), line) for line, name in enumerate(names, 1)}
        grammar = Grammar(rules, "start")
        try:
            automaton = _compiled(grammar)
        except (InvalidGrammarError, UnsupportedGrammarError, GrammarTooLargeError):  # no end, or no end in sight
            continue
        num_compiled += 1
        wanted = _language(grammar)
        assert {text for text in TEXTS if automaton.accepts(text.encode())} == wanted, f"seed {seed}: {rules}"
    assert num_compiled >= 15


def test_what_is_alive_can_be_completed() -> None:
    """Whatever prefix is alive, some text of the language begins with it."""
    x, y, left, right = TERMINALS.values()
    body = cfg.choice([cfg.sequence([left, Ref("start"), right]), cfg.sequence([Ref("start"), x, Ref("start")]), y])
    grammar = Grammar({"start": Rule("start", body, 1)}, "start")
    automaton = _compiled(grammar)
    walker = automaton.walker
    prefixes = {text[:end] for text in _language(grammar) for end in range(len(text) + 1)}
    for text in TEXTS:
        if walker.advance(walker.start, text.encode()) is not None and len(text) <= 2:
            assert text in prefixes, text


def test_item_link_item_is_one_loop() -> None:
    x, y, *_ = TERMINALS.values()
    assert cfg.sequence([x, cfg.star(cfg.sequence([y, x]))]) == Chain(x, y)
    assert cfg.sequence([y, x, cfg.star(cfg.sequence([x, y, x]))]) == Chain(Sequence((y, x)), x)
    assert cfg.sequence([x, cfg.star(y)]) == Sequence((x, cfg.star(y)))


def test_components_are_the_cycles() -> None:
    edges = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": {"d"}, "e": {"a"}}
    assert sorted(map(sorted, cfg.components(edges))) == [["b", "c"], ["d"]]
