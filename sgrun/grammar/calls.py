"""Decides which rules of a grammar become procedures; every other rule is written out where it is used.

A stack is needed only where rules contain themselves. Rules that show by their last byte, or by the byte after, that
they are over make the best procedures: they return without looking further ahead.
"""

from __future__ import annotations

from sgrun.grammar import cfg
from sgrun.grammar.cfg import Chain, Choice, Expr, Grammar, Ref, Repetition, Rule, Sequence, Terminal
from sgrun.grammar.rule_sets import RuleSets


def with_brackets(grammar: Grammar, sets: RuleSets) -> Grammar:
    """Makes a rule of each part of a recursive rule from a terminal to a terminal, as `"(" expr ")"`: it shows its end.

    Equal parts are one rule.
    """
    rules = dict(grammar.rules)
    brackets: dict[Expr, str] = {}
    for members in cfg.components(_edges(grammar)):
        for name in members:
            rule = grammar.rules[name]
            cutter = _Cutter(rule, set(members), sets, rules, brackets)
            rules[name] = Rule(name, cutter.cut(rule.body), rule.line)
    return Grammar(rules, grammar.start, grammar.skip)


class _Cutter:
    def __init__(
        self, rule: Rule, members: set[str], sets: RuleSets, rules: dict[str, Rule], brackets: dict[Expr, str]
    ) -> None:
        self._rule = rule
        self._members = members
        self._sets = sets
        self._rules = rules
        self._brackets = brackets

    def cut(self, expr: Expr) -> Expr:
        match expr:
            case Sequence(parts):
                return self._cut_sequence(tuple(self.cut(part) for part in parts))
            case Choice(parts):
                return Choice(tuple(self.cut(part) for part in parts))
            case Repetition(item, min_count, max_count):
                return Repetition(self.cut(item), min_count, max_count)
            case Chain(item, link):
                return Chain(self.cut(item), self.cut(link))
        return expr

    def _cut_sequence(self, parts: tuple[Expr, ...]) -> Expr:
        recursive = [i for i, part in enumerate(parts) if not self._members.isdisjoint(cfg.references(part))]
        ends = [i for i, part in enumerate(parts) if isinstance(part, Terminal) and not self._sets.is_nullable(part)]
        before = [i for i in ends if recursive and i < recursive[0]]
        after = [i for i in ends if recursive and i > recursive[-1]]
        if not before or not after:
            return Sequence(parts)
        bracket = Sequence(parts[before[-1] : after[0] + 1])
        name = self._brackets.setdefault(bracket, f"{self._rule.name}#{len(self._brackets)}")
        self._rules.setdefault(name, Rule(name, bracket, self._rule.line))
        return Sequence((*parts[: before[-1]], Ref(name), *parts[after[0] + 1 :]))


def choose_procedures(grammar: Grammar, sets: RuleSets, unfit: set[str], *, shows_end: bool) -> set[str]:
    """Rules that cut every recursion. Those in `unfit`, and those that cannot tell their end by one byte, come last.

    `shows_end`: prefers rules that nothing can extend, though there may be more of them.
    """
    edges = _edges(grammar)
    num_uses: dict[str, int] = {}
    for rule in grammar.rules.values():
        for name in cfg.references(rule.body):
            num_uses[name] = num_uses.get(name, 0) + 1
    chosen: set[str] = set()
    while True:
        cyclic = [name for members in cfg.components(edges) for name in members]
        if not cyclic:
            break
        within = {name: len(edges[name].intersection(cyclic)) for name in cyclic}
        best = min(
            cyclic,
            key=lambda name: (
                name in unfit,
                bool(sets.extending[name] & sets.follow[name]),
                shows_end and bool(sets.extending[name]),
                -num_uses.get(name, 0) * within[name],
                grammar.rules[name].line,
                name,
            ),
        )
        chosen.add(best)
        edges = {name: targets - {best} for name, targets in edges.items() if name != best}
    return chosen


def _edges(grammar: Grammar) -> dict[str, set[str]]:
    return {name: set(cfg.references(rule.body)) for name, rule in grammar.rules.items()}
