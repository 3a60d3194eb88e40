"""Reads an `outlines_core.Index` back into an automaton over bytes.

An index says which token leads from which state to which. The texts taken are those that some accepted path of tokens
spells, however the model then splits them into tokens. Nothing is taken on trust beyond that: the released versions up
to 0.2.14 leave out transitions (`(ab)*` over the tokens a, b, ab has none on a), and what an index leaves out is left
out here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np

from sgrun.errors import InvalidGrammarError, InvalidParameterError
from sgrun.grammar.dfa import Atoms, Dfa, atoms_of, determinize, minimize
from sgrun.grammar.limits import Budget, CompileLimits
from sgrun.grammar.nfa import Nfa
from sgrun.grammar.vocabulary import Vocabulary
from sgrun.types import DfaSpec

_TOKENS_PER_ELEMENT = 16  # walking over a token costs less than an element of a set


@runtime_checkable
class OutlinesIndex(Protocol):
    """What is used of `outlines_core.Index`."""

    def get_initial_state(self) -> int: ...
    def get_transitions(self) -> Mapping[int, Mapping[int, int]]: ...
    def is_final_state(self, state: int) -> bool: ...


def outlines_spec(index: OutlinesIndex, vocabulary: Vocabulary) -> DfaSpec:
    """The constraint that an index stands for; `vocabulary` is that of the tokenizer that the index was made for.

    Raises InvalidGrammarError if no text is taken, InvalidParameterError if the index is none or knows tokens that the
    vocabulary does not have, GrammarTooLargeError.
    """
    if not isinstance(index, OutlinesIndex):
        raise InvalidParameterError(f"the index is {index!r}; allowed: an outlines_core.Index")
    budget = Budget(CompileLimits())
    transitions = index.get_transitions()
    nfa = Nfa(budget)
    labels = [nfa.label(((byte, byte),)) for byte in range(256)]
    states: dict[int, int] = {index.get_initial_state(): Nfa.START}
    waiting = deque(states)
    largest = max((token for moves in transitions.values() for token in moves), default=0)
    if largest >= vocabulary.size:
        raise InvalidParameterError(
            f"the index knows the token {largest}, the vocabulary has {vocabulary.size}; "
            "give the vocabulary of the tokenizer that the index was made for"
        )
    by_bytes = {
        state: {vocabulary.token(token): target for token, target in moves.items()}
        for state, moves in transitions.items()
    }
    while waiting:
        state = waiting.popleft()
        if index.is_final_state(state):
            nfa.add_jump(states[state], Nfa.ACCEPT)
        trie: dict[bytes, int] = {b"": states[state]}
        moves = transitions.get(state, {})
        budget.spend("max_set_elements", len(moves) // _TOKENS_PER_ELEMENT)
        for token, target in moves.items():
            data = vocabulary.token(token)
            if not data or (len(data) > 1 and _leads_by_bytes(by_bytes, state, data, target)):
                continue
            if target not in states:
                states[target] = nfa.add_state()
                waiting.append(target)
            for end in range(1, len(data)):
                if data[:end] not in trie:
                    trie[data[:end]] = nfa.add_state()
                    nfa.add_move(trie[data[: end - 1]], labels[data[end - 1]], trie[data[:end]])
            nfa.add_move(trie[data[:-1]], labels[data[-1]], states[target])
    atoms = atoms_of(nfa.labels, budget)
    return _over_bytes(minimize(determinize(nfa, atoms, budget)), atoms)


def _over_bytes(dfa: Dfa, atoms: Atoms) -> DfaSpec:
    if dfa.is_empty:
        raise InvalidGrammarError("the index has no accepted path of tokens that are text, so nothing matches it")
    transitions = np.zeros((len(dfa.transitions), 256), dtype=np.int32)
    for atom, ranges in enumerate(atoms.sets):
        for low, high in ranges:
            transitions[:, low : high + 1] = dfa.transitions[:, atom, None]
    columns, byte_classes = np.unique(transitions, axis=1, return_inverse=True)
    return DfaSpec(
        tuple(byte_classes.reshape(-1).tolist()),
        tuple(map(tuple, columns.tolist())),
        tuple(np.flatnonzero(dfa.accepting).tolist()),
    )


def _leads_by_bytes(by_bytes: Mapping[int, Mapping[bytes, int]], state: int, data: bytes, target: int) -> bool:
    """Whether tokens of one byte each lead the same way, so that this token adds no text."""
    for at in range(len(data)):
        after = by_bytes.get(state, {}).get(data[at : at + 1])
        if after is None:
            return False
        state = after
    return state == target
