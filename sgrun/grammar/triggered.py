"""Free text in which triggers bind what follows: text up to the first trigger, followed by the automaton of Aho and
Corasick (1975), then a call, then free text again."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from sgrun.errors import InvalidGrammarError
from sgrun.grammar import charset
from sgrun.grammar.charset import CodePoints
from sgrun.grammar.dfa import Dfa
from sgrun.grammar.limits import Budget
from sgrun.grammar.procedure import END, Call, Move, Procedure, ProcedureBuilder, Return
from sgrun.grammar.rule_sets import utf8
from sgrun.grammar.utf8 import expand

_START = 1  # 0 is the dead state


@dataclass(frozen=True, slots=True)
class Bound:
    """After `begin`, the procedure `callee` is called; then comes `end`."""

    begin: str
    callee: Hashable
    end: str


def triggered_procedure(bounds: list[Bound], budget: Budget) -> Procedure:
    """Returns label 0 at the end of input where the text is complete: outside of everything that a trigger binds.

    Raises InvalidGrammarError for an empty trigger and for one that holds another, which would always come first.
    """
    begins = [bound.begin for bound in bounds]
    for begin in begins:
        utf8(begin)
        inner = [other for other in begins if other in begin]
        if not begin or len(inner) > 1:
            raise InvalidGrammarError(
                f"the trigger {begin!r} is empty or holds the trigger {inner[0]!r}; each has to be found on its own"
            )
    dfa, atom_sets, found = _free_text(begins, budget)
    expanded = expand(dfa, atom_sets, budget)
    table = expanded.transitions[:, expanded.byte_classes]
    builder = ProcedureBuilder()
    for _ in table:
        builder.add_state()
    # State 0 of a procedure is its start: the dead state, which nothing enters, makes room for it.
    names = np.arange(len(table))
    names[[0, _START]] = names[[_START, 0]]
    for state, row in enumerate(table):
        if state in found:
            bound = bounds[found[state]]
            behind = _spelled(builder, utf8(bound.end), int(names[_START]))
            builder.add_edge(int(names[state]), slice(0, END + 1), Call(bound.callee, ((0, behind),)))
        elif state:
            for target in np.unique(row[row != 0]).tolist():
                columns = np.flatnonzero(row == target).tolist()
                builder.add_edge(int(names[state]), columns, Move(int(names[target])))
            if expanded.accepting[state]:
                builder.add_edge(int(names[state]), END, Return(0, consumes=False))
    return builder.build()


def _free_text(begins: list[str], budget: Budget) -> tuple[Dfa, list[CodePoints], dict[int, int]]:
    """The texts up to and with the first trigger, over code points, and the states where trigger i was found."""
    chars = sorted({char for begin in begins for char in begin})
    column = {char: index for index, char in enumerate(chars)}
    others = charset.subtract(charset.SCALARS, charset.of_chars("".join(chars)))
    children: list[dict[str, int]] = [{}, {}]
    found: dict[int, int] = {}
    for number, begin in enumerate(begins):
        state = _START
        for char in begin:
            if char not in children[state]:
                children[state][char] = len(children)
                children.append({})
                budget.spend("max_states", 1)
            state = children[state][char]
        found[state] = number
    budget.check("max_work_bytes", 4 * len(children) * (len(chars) + 1))
    transitions = np.zeros((len(children), len(chars) + 1), dtype=np.int32)
    transitions[_START] = _START
    fallback = {_START: _START}
    waiting = deque([_START])
    while waiting:
        state = waiting.popleft()
        if state != _START:
            transitions[state] = transitions[fallback[state]]
        for char, child in children[state].items():
            fallback[child] = _START if state == _START else int(transitions[state, column[char]])
            transitions[state, column[char]] = child
            waiting.append(child)
    transitions[list(found)] = 0
    accepting = np.ones(len(children), dtype=np.bool_)
    accepting[[0, *found]] = False
    return Dfa(transitions, accepting), [*(charset.of_chars(char) for char in chars), others], found


def _spelled(builder: ProcedureBuilder, data: bytes, target: int) -> int:
    """A state from which `data` leads to `target`."""
    for byte in reversed(data):
        state = builder.add_state()
        builder.add_edge(state, byte, Move(target))
        target = state
    return target
