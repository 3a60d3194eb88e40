"""Random automata with calls, labels and counters over three classes of bytes, and cursors in them, for hypothesis."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from sgrun.grammar.automaton import (
    ACCEPT,
    CALL,
    COUNT,
    DEAD,
    MAX_DEPTH,
    MOVE,
    OP_BITS,
    RESET,
    RETURN,
    RETURN_AFTER,
    Automaton,
)
from sgrun.grammar.walk import Cursor

NUM_LABELS = 2
LETTERS = b"abc"


@st.composite
def automata(draw: st.DrawFn) -> Automaton:
    """Entries that do not consume lead to higher states only, so that every byte comes to an end."""
    num_states = draw(st.integers(2, 7))
    any_state = st.integers(1, num_states - 1)
    table = np.zeros((num_states, len(LETTERS) + 2), dtype=np.int32)
    sites: list[list[int]] = []
    counts: list[list[int]] = []

    def entry(state: int, *, is_end: bool) -> int:
        ops = [DEAD, RETURN, ACCEPT] if is_end else [DEAD, MOVE, MOVE, RETURN, RETURN_AFTER, RESET]
        op = draw(st.sampled_from([*ops, CALL, COUNT] if state < num_states - 1 else ops))
        higher = st.integers(state + 1, num_states - 1)
        if op in (MOVE, RESET):
            return op | draw(any_state) << OP_BITS
        if op in (RETURN, RETURN_AFTER):
            return op | draw(st.integers(0, NUM_LABELS - 1)) << OP_BITS
        if op == CALL:
            sites.append([draw(higher), *(draw(st.just(DEAD) | higher) for _ in range(NUM_LABELS))])
            return op | (len(sites) - 1) << OP_BITS
        if op == COUNT:
            threshold = draw(st.integers(1, 6) | st.sampled_from([15, 16, 40]))
            counts.append([threshold, draw(st.just(DEAD) | higher), draw(st.just(DEAD) | higher)])
            return op | (len(counts) - 1) << OP_BITS
        return op

    for state in range(1, num_states):
        for column in range(1, len(LETTERS) + 2):
            table[state, column] = entry(state, is_end=column == len(LETTERS) + 1)
    classes = np.zeros(256, dtype=np.uint8)
    if draw(st.booleans()):  # any byte stands for a, but for b and the quote: text is free where a loops
        classes[:] = 1
        classes[ord("b")] = 1 + draw(st.integers(0, 1))
        classes[ord('"')] = 3
    else:
        for number, letter in enumerate(LETTERS, start=1):
            classes[letter] = number
    return Automaton(
        byte_classes=classes,
        table=table,
        sites=np.array(sites, dtype=np.int32).reshape(-1, 1 + NUM_LABELS),
        counts=np.array(counts, dtype=np.int32).reshape(-1, 3),
        start=draw(any_state),
    )


@st.composite
def cursors(draw: st.DrawFn, automaton: Automaton) -> Cursor:
    """Anywhere, reachable or not, with few frames or nearly as many as there may be."""
    counter = st.integers(0, 6) | st.integers(0, 41)
    stack: list[tuple[int, int]] = []
    if len(automaton.sites):
        frame = st.tuples(st.integers(0, len(automaton.sites) - 1), counter)
        stack = draw(st.lists(frame, max_size=4))
        if stack and draw(st.booleans()):
            depth = draw(st.integers(MAX_DEPTH - 5, MAX_DEPTH))
            stack = (stack * MAX_DEPTH)[:depth]
    state = draw(st.integers(1, automaton.num_states - 1))
    return Cursor(state, draw(counter), tuple(stack))
