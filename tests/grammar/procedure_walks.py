"""A plain interpreter of one procedure without calls, by the definition of the automaton."""

from __future__ import annotations

from sgrun.grammar.limits import Budget, CompileLimits
from sgrun.grammar.procedure import END, Count, Move, Procedure, Reset, Return
from sgrun.grammar.regex import parse_regex
from sgrun.grammar.regular import regular_procedure


def regex_procedure(pattern: str) -> Procedure:
    budget = Budget(CompileLimits())
    return regular_procedure(parse_regex(pattern, budget), budget)


def takes(procedure: Procedure, text: str | bytes) -> bool:
    """Whether label 0 is returned at the end of the text."""
    data = text.encode() if isinstance(text, str) else text
    state, counter = 0, 0
    for byte in [*data, END]:
        while True:
            index = int(procedure.table[state, byte])
            if not index:
                return False
            edge = procedure.edges[index]
            match edge:
                case Move(target):
                    state = target
                    break
                case Reset(target):
                    state, counter = target, 0
                    break
                case Count(threshold, below, reached):
                    counter += 1
                    state = reached if counter == threshold else below
                case Return(label, consumes):
                    assert byte == END and label == 0 and not consumes
                    return True
    raise AssertionError("the end of the text has no edge but Return")
