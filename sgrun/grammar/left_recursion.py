"""Rewrites a grammar so that no rule begins with itself: recursion at either end of a rule becomes iteration.

With P for the alternatives that do not begin with the rule A itself, `A: A u A | A v | w A | q` has the texts of
`P v* (u P v*)*` where `P: w* q`; both directions are short inductions. Indirect left recursion is first made direct by
substitution (Paull's algorithm; Aho, Lam, Sethi, Ullman, "Compilers", 4.3.3).
"""

from __future__ import annotations

from sgrun.errors import InvalidGrammarError, UnsupportedGrammarError
from sgrun.grammar import cfg
from sgrun.grammar.cfg import EMPTY, Chain, Choice, Expr, Grammar, Ref, Repetition, Rule, Sequence
from sgrun.grammar.limits import Budget
from sgrun.grammar.rule_sets import Terminals, nullable_rules

_Parts = tuple[Expr, ...]


def without_left_recursion(grammar: Grammar, terminals: Terminals, budget: Budget, *, loops_tails: bool) -> Grammar:
    """The same language. `loops_tails`: recursion at the end of rules becomes iteration, too.

    Raises InvalidGrammarError where a rule can never end, UnsupportedGrammarError where the recursion is hidden behind
    something that may be empty.
    """
    rewriter = _Rewriter(grammar, terminals, budget)
    edges = {name: set(rewriter.leading(rule.body)) for name, rule in grammar.rules.items()}
    for members in cfg.components(edges):
        rewriter.rewrite(members)
    if not loops_tails:
        return Grammar(rewriter.rules, grammar.start, grammar.skip)
    ending = {name: set(_ending(rule.body)) for name, rule in rewriter.rules.items()}
    for members in cfg.components(ending):
        rewriter.rewrite_tails(members)
    return Grammar(rewriter.rules, grammar.start, grammar.skip)


class _Rewriter:
    def __init__(self, grammar: Grammar, terminals: Terminals, budget: Budget) -> None:
        self.rules = dict(grammar.rules)
        self._terminals = terminals
        self._budget = budget
        self._nullable = nullable_rules(grammar, terminals)

    def leading(self, expr: Expr) -> list[str]:
        """The rules that a text of `expr` may begin with."""
        match expr:
            case Ref(rule):
                return [rule]
            case Choice(parts):
                return [name for part in parts for name in self.leading(part)]
            case Sequence(parts):
                names: list[str] = []
                for part in parts:
                    names += self.leading(part)
                    if not self._is_nullable(part):
                        break
                return names
            case Repetition(item, _, _):
                return self.leading(item)
            case Chain(item, link):
                return self.leading(item) + (self.leading(link) if self._is_nullable(item) else [])
        return []

    def rewrite(self, members: list[str]) -> None:
        """Removes left recursion from rules that begin with each other."""
        members = sorted(members, key=lambda name: (self.rules[name].line, name))
        for index, name in enumerate(members):
            alternatives = self._alternatives(name, self.rules[name].body, set(members))
            for earlier in members[:index]:
                alternatives = self._substituted(name, alternatives, earlier, set(members))
            self._set(name, self._iterated(name, alternatives))

    def rewrite_tails(self, members: list[str]) -> None:
        """Turns recursion at the end of rules into iteration."""
        members = sorted(members, key=lambda name: (self.rules[name].line, name), reverse=True)
        for index, name in enumerate(members):
            alternatives = _trailing(self.rules[name].body, set(members))
            for earlier in members[:index]:
                inner = _trailing(self.rules[earlier].body, set(members))
                alternatives = [
                    found
                    for parts in alternatives
                    for found in ([(*parts[:-1], *end) for end in inner] if parts[-1:] == (Ref(earlier),) else [parts])
                ]
                self._budget.spend("max_nfa_states", sum(map(len, alternatives)))
            repeated = [parts[:-1] for parts in alternatives if len(parts) > 1 and parts[-1] == Ref(name)]
            ended = [parts for parts in alternatives if parts[-1:] != (Ref(name),)]
            self._set(name, self._tail_iterated(name, repeated, ended))

    def _iterated(self, name: str, alternatives: list[_Parts]) -> Expr:
        own = Ref(name)
        suffixes = [parts[1:] for parts in alternatives if parts and parts[0] == own and len(parts) > 1]
        others = [parts for parts in alternatives if not (parts and parts[0] == own)]
        prefixes = [parts[:-1] for parts in others if len(parts) > 1 and parts[-1] == own]
        ended = [parts for parts in others if not (len(parts) > 1 and parts[-1] == own)]
        primary = self._tail_iterated(name, prefixes, ended)
        links = [parts[:-1] for parts in suffixes if parts[-1] == own]
        postfixes = [parts for parts in suffixes if parts[-1] != own]
        item = cfg.sequence([primary, cfg.star(_any(postfixes))]) if postfixes else primary
        return Chain(item, _any(links)) if links else item

    def _tail_iterated(self, name: str, repeated: list[_Parts], ended: list[_Parts]) -> Expr:
        if not ended:
            rule = self.rules[name]
            raise InvalidGrammarError(
                f"rule {name!r} (line {rule.line}) can never end: each of its alternatives needs {name!r} again"
            )
        if not repeated:
            return _any(ended)
        return cfg.sequence([cfg.star(_any(repeated)), _any(ended)])

    def _substituted(self, name: str, alternatives: list[_Parts], earlier: str, members: set[str]) -> list[_Parts]:
        result: list[_Parts] = []
        for parts in alternatives:
            if parts and parts[0] == Ref(earlier):
                if earlier in self._nullable and len(parts) > 1:
                    raise self._hidden(name)
                inner = self._alternatives(name, self.rules[earlier].body, members)
                result += [(*begin, *parts[1:]) for begin in inner]
            else:
                result.append(parts)
            self._budget.spend("max_nfa_states", sum(map(len, result[-1:])))
        return result

    def _alternatives(self, name: str, expr: Expr, members: set[str]) -> list[_Parts]:
        """The expression as sequences, opened as far as it takes to see which of `members` they begin with."""
        self._budget.spend("max_nfa_states", 1)
        if not members.intersection(self.leading(expr)):
            return [expr.parts if isinstance(expr, Sequence) else (expr,)]
        match expr:
            case Choice(parts):
                return [found for part in parts for found in self._alternatives(name, part, members)]
            case Sequence(parts):
                first, rest = parts[0], parts[1:]
                begins = self._alternatives(name, first, members)
                result = [(*begin, *rest) for begin in begins if begin]
                may_be_empty = any(self._is_nullable(Sequence(begin)) for begin in begins if begin)
                if may_be_empty and members.intersection(self.leading(Sequence(rest))):
                    raise self._hidden(name)
                if () in begins:
                    result += self._alternatives(name, Sequence(rest), members)
                return result
            case Repetition(item, min_count, max_count):
                if max_count == 0:
                    return [()]
                again = Repetition(item, max(min_count - 1, 0), None if max_count is None else max_count - 1)
                begins = self._alternatives(name, item, members)
                if any(self._is_nullable(Sequence(begin)) for begin in begins):
                    raise self._hidden(name)
                rest = () if again.max_count == 0 else (again,)
                return [(*begin, *rest) for begin in begins] + ([()] if min_count == 0 else [])
            case Chain(item, link):
                return self._alternatives(name, Sequence((item, cfg.star(cfg.sequence([link, item])))), members)
        return [(expr,)]

    def _is_nullable(self, expr: Expr) -> bool:
        return self._terminals.is_nullable(expr, self._nullable)

    def _set(self, name: str, body: Expr) -> None:
        self.rules[name] = Rule(name, body, self.rules[name].line)

    def _hidden(self, name: str) -> UnsupportedGrammarError:
        return UnsupportedGrammarError(
            f"rule {name!r} (line {self.rules[name].line}) begins with itself behind something that may be empty; "
            "write the alternatives with and without it"
        )


def _ending(expr: Expr) -> list[str]:
    """The rules that plainly stand at the end of `expr`."""
    return [parts[-1].rule for parts in _trailing(expr, None) if parts and isinstance(parts[-1], Ref)]


def _trailing(expr: Expr, names: set[str] | None) -> list[_Parts]:
    """The expression as sequences, opened at the end as far as it takes to see the rules `names` (all) there."""
    if names is not None and names.isdisjoint(cfg.references(expr)):
        return [expr.parts if isinstance(expr, Sequence) else (expr,)]
    match expr:
        case Choice(parts):
            return [found for part in parts for found in _trailing(part, names)]
        case Sequence(parts) if parts:
            return [(*parts[:-1], *end) for end in _trailing(parts[-1], names)]
        case Repetition(item, 0, 1):
            return [*_trailing(item, names), ()]
    return [(expr,)]


def _any(alternatives: list[_Parts]) -> Expr:
    return cfg.choice(cfg.sequence(parts) for parts in alternatives) if alternatives else EMPTY
