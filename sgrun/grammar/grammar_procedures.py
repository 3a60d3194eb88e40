"""From a grammar to deterministic procedures: the steps in their order, and what to try where a byte is not enough."""

from __future__ import annotations

from collections.abc import Hashable

from sgrun.errors import GrammarTooLargeError, UnsupportedGrammarError
from sgrun.grammar import cfg
from sgrun.grammar.calls import choose_procedures, with_brackets
from sgrun.grammar.cfg import Grammar
from sgrun.grammar.explore import Explorable, Explorer, ProcedureLike, Row, State
from sgrun.grammar.left_recursion import without_left_recursion
from sgrun.grammar.limits import Budget
from sgrun.grammar.network import Network
from sgrun.grammar.procedure import END, Return
from sgrun.grammar.pushdown import Conflict, ProcedureKey, Pushdown
from sgrun.grammar.routing import Resolve, start_cells
from sgrun.grammar.rule_sets import AT_END, ByteSet, RuleSets, Terminals

MAX_RULES = 1000
MAX_ATTEMPTS = 5


def grammar_procedures(
    grammar: Grammar, budget: Budget, resolve_external: Resolve | None = None, after: ByteSet = AT_END
) -> tuple[Hashable, Resolve]:
    """(root key, resolve) for `assemble`: the texts of the grammar's start rule.

    `after`: what may follow the text, before which the root returns; by default only the end of input.
    `resolve_external` answers for the keys of cfg.External.
    Raises InvalidGrammarError, UnsupportedGrammarError (with rule and line) or GrammarTooLargeError.
    """
    grammar = cfg.reachable(grammar)
    if len(grammar.rules) > MAX_RULES:
        raise GrammarTooLargeError(f"the grammar uses {len(grammar.rules)} rules; allowed: at most {MAX_RULES}")
    terminals = Terminals(budget, lambda key: _first_of(key, resolve_external))
    try:
        pushdown = _pushdown(grammar, terminals, budget, after, loops_tails=True)
    except Conflict as conflict:
        # Rules that are called at their end can be told apart from others that are called in the same place.
        try:
            pushdown = _pushdown(grammar, terminals, budget, after, loops_tails=False)
        except Conflict:
            raise UnsupportedGrammarError(str(conflict)) from conflict

    def resolve(key: Hashable) -> ProcedureLike:
        if isinstance(key, ProcedureKey):
            return pushdown.procedure(key)
        assert resolve_external is not None
        return resolve_external(key)

    return pushdown.root, resolve


def _pushdown(grammar: Grammar, terminals: Terminals, budget: Budget, after: ByteSet, *, loops_tails: bool) -> Pushdown:
    grammar = cfg.reachable(without_left_recursion(grammar, terminals, budget, loops_tails=loops_tails))
    grammar = with_brackets(grammar, RuleSets(grammar, terminals, after))
    return _explored(grammar, terminals, RuleSets(grammar, terminals, after), budget, after)


def _explored(grammar: Grammar, terminals: Terminals, sets: RuleSets, budget: Budget, after: ByteSet) -> Pushdown:
    """Tries procedures until none of them has to guess; raises the first conflict where there is no such choice.

    The order is from small tables to large ones: few procedures first, then those that show their own end.
    """
    unfit: set[str] = set()
    tried: list[set[str]] = []
    first_conflict: Conflict | None = None
    for attempt in range(MAX_ATTEMPTS):
        procedures = choose_procedures(grammar, sets, unfit, shows_end=attempt > 0)
        if procedures in tried:
            continue
        tried.append(procedures)
        spent = Budget(budget.limits)
        pushdown = Pushdown(Network(grammar, procedures, terminals, sets, spent), sets, after, spent)

        def resolve(key: Hashable, pushdown: Pushdown = pushdown) -> Explorable:
            return pushdown.procedure(key) if isinstance(key, ProcedureKey) else _Anything()

        try:
            Explorer(resolve, spent).explore(pushdown.root)
        except Conflict as conflict:
            first_conflict = first_conflict or conflict
            if attempt > 0:
                unfit |= conflict.rules
            continue
        return pushdown
    assert first_conflict is not None
    raise first_conflict


class _Anything:
    """Stands for an external procedure where only what comes after it matters."""

    def expand(self, state: State) -> Row:
        return Row([(tuple(range(END + 1)), Return(0, consumes=False))])


def _first_of(key: Hashable, resolve_external: Resolve | None) -> tuple[ByteSet, bool]:
    assert resolve_external is not None
    first: ByteSet = 0
    may_be_empty = False
    for columns, edge in start_cells(resolve_external(key)):
        for column in columns:
            if isinstance(edge, Return):
                may_be_empty |= column == END
            elif column != END:
                first |= 1 << column
    return first, may_be_empty
