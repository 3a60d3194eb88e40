"""From a grammar to deterministic procedures: the steps in their order, and what to try where a byte is not enough."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from sgrun.errors import GrammarTooLargeError
from sgrun.grammar import cfg
from sgrun.grammar.calls import choose_procedures, with_brackets
from sgrun.grammar.cfg import Grammar
from sgrun.grammar.explore import Cells, Explorable, Explorer, State
from sgrun.grammar.left_recursion import without_left_recursion
from sgrun.grammar.limits import Budget
from sgrun.grammar.network import Network
from sgrun.grammar.procedure import END, Procedure, Return
from sgrun.grammar.pushdown import Conflict, ProcedureKey, Pushdown
from sgrun.grammar.rule_sets import ALL_BYTES, ByteSet, RuleSets, Terminals

MAX_RULES = 1000
MAX_ATTEMPTS = 8

Resolve = Callable[[Hashable], Explorable | Procedure]


def grammar_procedures(
    grammar: Grammar, budget: Budget, resolve_external: Resolve | None = None, *, is_whole: bool = True
) -> tuple[Hashable, Resolve]:
    """(root key, resolve) for `assemble`: the texts of the grammar's start rule.

    `is_whole`: the text is the whole input; otherwise the root returns before the first byte that cannot belong to it,
    so that it can be called. `resolve_external` answers for the keys of cfg.External.
    Raises InvalidGrammarError, UnsupportedGrammarError (with rule and line) or GrammarTooLargeError.
    """
    grammar = cfg.reachable(grammar)
    if len(grammar.rules) > MAX_RULES:
        raise GrammarTooLargeError(f"the grammar uses {len(grammar.rules)} rules; allowed: at most {MAX_RULES}")
    terminals = Terminals(budget, lambda key: _first_of(key, resolve_external))
    grammar = cfg.reachable(without_left_recursion(grammar, terminals, budget))
    after = 0 if is_whole else ALL_BYTES
    grammar = with_brackets(grammar, RuleSets(grammar, terminals, after))
    sets = RuleSets(grammar, terminals, after)
    pushdown = _explored(grammar, terminals, sets, budget, is_whole)
    root = pushdown.root(is_whole=is_whole)

    def resolve(key: Hashable) -> Explorable | Procedure:
        if isinstance(key, ProcedureKey):
            return pushdown.procedure(key)
        assert resolve_external is not None
        return resolve_external(key)

    return root, resolve


def _explored(grammar: Grammar, terminals: Terminals, sets: RuleSets, budget: Budget, is_whole: bool) -> Pushdown:
    """Tries procedures until none of them has to guess; raises the first conflict where there is no such choice.

    The order is from small tables to large ones: few procedures first, then made for each caller, then those that
    show their own end.
    """
    unfit: set[str] = set()
    tried: set[tuple[frozenset[str], bool]] = set()
    first_conflict: Conflict | None = None
    for attempt in range(MAX_ATTEMPTS):
        knows_callers = attempt % 2 == 1
        procedures = choose_procedures(grammar, sets, unfit, shows_end=attempt > 1)
        choice = (frozenset(procedures), knows_callers)
        if choice in tried:
            continue
        tried.add(choice)
        spent = Budget(budget.limits)
        network = Network(grammar, procedures, terminals, sets, spent)
        pushdown = Pushdown(network, sets, spent, knows_callers=knows_callers)

        def resolve(key: Hashable, pushdown: Pushdown = pushdown) -> Explorable:
            return pushdown.procedure(key) if isinstance(key, ProcedureKey) else _Anything()

        try:
            Explorer(resolve, spent).explore(pushdown.root(is_whole=is_whole))
        except Conflict as conflict:
            first_conflict = first_conflict or conflict
            if attempt > 2:
                unfit |= conflict.rules
            continue
        return pushdown
    assert first_conflict is not None
    raise first_conflict


class _Anything:
    """Stands for an external procedure where only what comes after it matters."""

    def expand(self, state: State) -> Cells:
        return [([*range(END + 1)], Return(0, consumes=False))]


def _first_of(key: Hashable, resolve_external: Resolve | None) -> tuple[ByteSet, bool]:
    assert resolve_external is not None
    source = resolve_external(key)
    if isinstance(source, Procedure):
        row = source.table[0]
        live = [int(column) for column in row.nonzero()[0]]
        ends = isinstance(source.edges[int(row[END])], Return)
    else:
        cells = source.expand("start")
        live = [c for columns, _ in cells for c in _listed(columns)]
        ends = any(END in _listed(columns) and isinstance(edge, Return) for columns, edge in cells)
    return sum(1 << column for column in live if column < END), ends


def _listed(columns: int | slice | list[int]) -> list[int]:
    if isinstance(columns, int):
        return [columns]
    return list(range(*columns.indices(END + 1))) if isinstance(columns, slice) else columns
