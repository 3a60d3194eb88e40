"""What several grammar tests need: whether an automaton takes a text, and random texts out of an automaton."""

from __future__ import annotations

import random

import numpy as np

from sgrun.grammar.automaton import DEAD, Automaton
from sgrun.grammar.matcher import advance


def accepts(automaton: Automaton, text: str | bytes) -> bool:
    data = text.encode() if isinstance(text, str) else text
    return bool(automaton.accepting[advance(automaton, automaton.start, data)])


def distances_to_acceptance(automaton: Automaton) -> np.ndarray:
    """The fewest bytes from each state to acceptance; a large number where there is no way."""
    far = 10**9
    distances = np.where(automaton.accepting, 0, far)
    while True:
        steps = np.where(automaton.transitions == DEAD, far, distances[automaton.transitions]).min(axis=1) + 1
        shorter = np.minimum(distances, np.minimum(steps, far))
        if (shorter == distances).all():
            return distances
        distances = shorter


def random_texts(automaton: Automaton, seed: int, count: int, soft_len: int = 120) -> list[str]:
    """Accepted texts by random walks; after `soft_len` bytes a walk takes the shortest way out."""
    draw = random.Random(seed)
    distances = distances_to_acceptance(automaton)
    texts = []
    for _ in range(count):
        state, data = automaton.start, bytearray()
        while True:
            row = automaton.transitions[state][automaton.byte_classes]
            following = np.flatnonzero(row)
            if automaton.accepting[state] and (not len(following) or len(data) > soft_len or draw.random() < 0.1):
                break
            if len(data) > soft_len:
                byte = int(following[np.argmin(distances[row[following]])])
            elif draw.random() < 0.5:  # classes with few bytes, such as quotes and commas, count as much as others
                by_target = {int(row[b]): int(b) for b in following}
                byte = by_target[draw.choice(sorted(by_target))]
            else:
                byte = int(draw.choice(following.tolist()))
            data.append(byte)
            state = int(row[byte])
        texts.append(data.decode())
    return texts
