"""From a syntax tree to a procedure: the entry point for everything regular."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sgrun.grammar.build import build_nfa
from sgrun.grammar.charset import CodePoints
from sgrun.grammar.counting import CountingDfa, ResetStep, Step, determinize_counting
from sgrun.grammar.dfa import atoms_of, determinize, minimize
from sgrun.grammar.limits import Budget
from sgrun.grammar.procedure import END, Count, Edge, Move, Procedure, Reset, Return
from sgrun.grammar.repeats import MAX_UNROLLED, repeats_to_count
from sgrun.grammar.syntax import Node, Repeat
from sgrun.grammar.utf8 import ByteDfa, expand
from sgrun.types import DfaSpec

_TAIL = 8  # iterations; what other conditions still ask for near the maximum is mostly shorter

_MAX_TAIL = 32


def regular_procedure(node: Node, budget: Budget, max_unrolled: int = MAX_UNROLLED) -> Procedure:
    """Returns label 0 at the end of input where the text matches; without edges if no text does.

    Minimal: as a plain DFA, or with the counter where that saves unrolling a counted repeat to more than `max_unrolled`
    states and its count is never ambiguous. Raises GrammarTooLargeError.
    """
    machine, atom_sets = _machine(node, budget, max_unrolled)
    return procedure_of(expand(machine.dfa, atom_sets, budget), machine.steps)


def dfa_procedure(spec: DfaSpec) -> Procedure:
    """Returns label 0 at the end of the texts that a ready-made automaton accepts."""
    transitions = np.array(spec.transitions, dtype=np.int32)
    accepting = np.isin(np.arange(len(transitions)), spec.accepting)
    return procedure_of(ByteDfa(np.array(spec.byte_classes, dtype=np.uint8), transitions, accepting), {})


def _machine(node: Node, budget: Budget, max_unrolled: int) -> tuple[CountingDfa, list[CodePoints]]:
    unrolled: set[Repeat] = set()
    tails: dict[Repeat, int] = {}
    while True:
        counted = {repeat: tails.get(repeat, 0) for repeat in repeats_to_count(node, unrolled, max_unrolled)}
        nfa = build_nfa(node, budget, counted)
        atoms = atoms_of(nfa.labels, budget)
        if not counted:
            return CountingDfa(minimize(determinize(nfa, atoms, budget)), {}), atoms.sets
        found = determinize_counting(nfa, atoms, budget)
        if isinstance(found, CountingDfa):
            return found, atoms.sets
        repeat = found.repeat
        # Without a minimum, fewer counts are ambiguous: X{2,9} is X{0,7}X{2}.
        tail = repeat.min_count if found.is_ambiguous else _TAIL
        if tails.get(repeat, 0) < tail <= _MAX_TAIL and (repeat.max_count is None or tail < repeat.max_count):
            tails[repeat] = tail
        else:
            unrolled.add(repeat)


def procedure_of(expanded: ByteDfa, steps: Mapping[int, Step]) -> Procedure:
    """The procedure that returns label 0 at the end of the texts that a DFA over bytes accepts."""
    transitions = expanded.transitions  # a target is a state or a step
    is_state = np.ones(len(transitions), dtype=np.bool_)
    is_state[[0, *steps]] = False
    states = np.flatnonzero(is_state)
    if not len(states):  # no text matches
        return Procedure(np.zeros((1, END + 1), dtype=np.int32), [Move(0)])
    names = np.cumsum(is_state) - 1
    edges: list[Edge] = [Move(0)]
    edge_of = np.zeros(len(transitions), dtype=np.int32)
    passages: dict[int, int] = {}  # states that take any byte to one state: a count step reads nothing

    def passage_to(state: int) -> int:
        return passages.setdefault(state, len(states) + len(passages))

    for target in np.unique(transitions[states]).tolist():
        if target == 0:
            continue
        step = steps.get(target)
        edge_of[target] = len(edges)
        if step is None:
            edges.append(Move(int(names[target])))
        elif isinstance(step, ResetStep):
            edges.append(Reset(int(names[step.target])))
        else:
            edges.append(Count(step.threshold, passage_to(step.below), passage_to(step.reached)))
    table = np.zeros((len(states) + len(passages), END + 1), dtype=np.int32)
    table[: len(states), :END] = edge_of[transitions[states]][:, expanded.byte_classes]
    for state, name in passages.items():
        table[name, :END] = len(edges)
        edges.append(Move(int(names[state])))
    table[: len(states)][expanded.accepting[states], END] = len(edges)
    edges.append(Return(0, consumes=False))
    return Procedure(table, edges)
